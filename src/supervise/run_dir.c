/* SPDX-License-Identifier: MIT */
/* The folder of our sockets: below /run/weir, which is root's, so that nobody can put a link in the way. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervise/internal.h"

static void remove_all(int dir)
{
    int copy = fcntl(dir, F_DUPFD_CLOEXEC, 3);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') unlinkat(dir, e->d_name, 0);
    if (d) closedir(d);
    else if (copy >= 0) close(copy);
}

/* A folder of ours below dir: a descriptor, -1. */
static int open_own(int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == geteuid()) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* What is in `name` below base: sockets in pool, folders of files in control (control's own: only emptied if nothing is odd). */
static void remove_run(int base, const char *name)
{
    int run = open_own(base, name), pool = run < 0 ? -1 : open_own(run, "pool");
    if (run < 0) return;
    if (pool >= 0) {
        remove_all(pool);
        close(pool);
    }
    unlinkat(run, "pool", AT_REMOVEDIR);
    int own = openat(run, "control", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (own >= 0) {
        int copy = fcntl(own, F_DUPFD_CLOEXEC, 3);
        DIR *d = copy < 0 ? NULL : fdopendir(copy);
        for (struct dirent *e; d && (e = readdir(d));) {
            if (e->d_name[0] == '.') continue;
            int sub = openat(own, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (sub >= 0) {
                remove_all(sub);
                close(sub);
            }
            if (unlinkat(own, e->d_name, 0) < 0) unlinkat(own, e->d_name, AT_REMOVEDIR);
        }
        if (d) closedir(d);
        else if (copy >= 0) close(copy);
        close(own);
    }
    unlinkat(run, "control", AT_REMOVEDIR);
    close(run);
    unlinkat(base, name, AT_REMOVEDIR);
}

/* Its owner lives, perhaps in another pid namespace: it holds a lock on the folder. */
static bool is_locked(int base, const char *name)
{
    int fd = open_own(base, name);
    if (fd < 0) return false;
    bool locked = flock(fd, LOCK_EX | LOCK_NB) < 0;
    close(fd);
    return locked;
}

/* What a root part that was killed could not remove: folders named by the pid of nobody who lives. */
static void remove_stale(int base, const char *prefix)
{
    int copy = fcntl(base, F_DUPFD_CLOEXEC, 3);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    size_t len = strlen(prefix);
    for (struct dirent *e; d && (e = readdir(d));) {
        char *end;
        if (strncmp(e->d_name, prefix, len) != 0) continue;
        long pid = strtol(e->d_name + len, &end, 10);
        bool named = pid > 0 && (!*end || (*end == '.' && strspn(end + 1, "0123456789") == strlen(end + 1)));
        if (named && kill((pid_t)pid, 0) < 0 && errno == ESRCH && !is_locked(base, e->d_name)) remove_run(base, e->d_name);
    }
    if (d) closedir(d);
    else if (copy >= 0) close(copy);
}

static int open_base(struct root *r)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (r->is_root) {
        base = "/run/weir";
    } else if (!base || base[0] != '/' || strlen(base) > 24) {
        base = "/tmp";
    }
    const char *prefix = r->is_root ? "" : "weir-";
    snprintf(r->dir, sizeof r->dir, "%.30s", base);
    if (r->is_root && mkdir(base, 0755) < 0 && errno != EEXIST) return -1;
    int fd = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) return -1;
    if (r->is_root && st.st_uid != 0 && fchown(fd, 0, 0) < 0) return -1; /* of an older version: was control's */
    if (r->is_root) fchmod(fd, 0755);
    snprintf(r->name, sizeof r->name, "%s%d", prefix, (int)getpid());
    for (int n = 1; n < 1000 && is_locked(fd, r->name); n++) snprintf(r->name, sizeof r->name, "%s%d.%d", prefix, (int)getpid(), n);
    snprintf(r->dir, sizeof r->dir, "%.30s/%s", base, r->name);
    remove_stale(fd, prefix);
    remove_run(fd, r->name); /* of an older process with our pid */
    return fd;
}

bool run_dir_make(struct root *r)
{
    r->base = open_base(r);
    if (r->base < 0 || mkdirat(r->base, r->name, 0711) < 0) return false;
    int run = open_own(r->base, r->name);
    bool fine = run >= 0 && fchmod(run, 0711) == 0 && mkdirat(run, "pool", 0711) == 0 && mkdirat(run, "control", 0711) == 0;
    int own = fine ? open_own(run, "control") : -1; /* for files that control makes for apps, and its socket */
    if (own < 0 || fchmod(own, 0711) < 0) fine = false;
    if (fine && r->is_root && fchown(own, r->control_who.uid, r->control_who.gid) < 0) fine = false;
    if (own >= 0) close(own);
    if (run >= 0 && (!fine || flock(run, LOCK_EX | LOCK_NB) < 0)) close(run);
    else r->lock = run; /* as long as we live */
    return fine;
}

void run_dir_remove(const struct root *r)
{
    remove_run(r->base, r->name);
}

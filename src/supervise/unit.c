/* SPDX-License-Identifier: MIT */
/* Starting things: identities, private sockets, the checked contents of a start. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervise/internal.h"

/* All groups of a user whose own one is gid: as initgroups(3) would set them. */
static int find_groups(const char *user, gid_t gid, struct identity *out)
{
    out->group_count = (int)(sizeof out->groups / sizeof out->groups[0]);
    return getgrouplist(user, gid, out->groups, &out->group_count) < 0 ? E2BIG : 0;
}

static bool in_group(const struct identity *who, gid_t gid)
{
    bool is = false;
    for (int i = 0; i < who->group_count; i++) is |= who->groups[i] == gid;
    return is;
}

int identity_of(const char *user, const char *group, struct identity *out)
{
    memset(out, 0, sizeof *out);
    if (geteuid() != 0 || !user[0]) {
        out->uid = geteuid();
        out->gid = getegid();
        return geteuid() == 0 ? EPERM : 0; /* root runs nothing as root */
    }
    errno = 0;
    struct passwd *pw = getpwnam(user);
    if (!pw) return errno ? errno : ENOENT;
    if (pw->pw_uid == 0) return EPERM;
    out->uid = pw->pw_uid;
    out->gid = pw->pw_gid;
    int bad = find_groups(user, out->gid, out);
    if (bad) return bad;
    if (in_group(out, 0)) return EPERM; /* root's group is nearly root */
    if (group[0]) {
        struct group *gr = getgrnam(group);
        if (!gr) return ENOENT;
        if (!in_group(out, gr->gr_gid)) return EPERM;
        out->gid = gr->gr_gid;
        bad = find_groups(user, out->gid, out);
        if (bad) return bad;
    }
    snprintf(out->name, sizeof out->name, "%s", user);
    out->change = true;
    return 0;
}

int become(const struct identity *who, const char **step)
{
    *step = "change the user";
    if (!who->change) return 0;
    if (setgroups((size_t)who->group_count, who->groups) < 0 || setgid(who->gid) < 0 || setuid(who->uid) < 0) return errno;
    if (who->uid != 0 && setuid(0) == 0) return EPERM; /* it must not be possible to go back */
    return 0;
}

/* A listening socket at path, owned by uid and gid (-1: as we are): a descriptor, or -errno. */
static int listen_at(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) return -ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    unlink(path);
    mode_t old = umask(0177); /* nobody else connects before the owner is set */
    int bad = bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ? errno : 0;
    umask(old);
    /* the folder is ours alone: the name cannot have become something else */
    if (!bad && uid != (uid_t)-1 && lchown(path, uid, gid) < 0) bad = errno;
    if (!bad && chmod(path, mode) < 0) bad = errno;
    if (!bad && listen(fd, 511) < 0) bad = errno; /* FC1-2.2-a */
    if (!bad) return fd;
    close(fd);
    unlink(path);
    return -bad;
}

int private_socket(const char *path, const struct identity *owner, gid_t gateway)
{
    return owner->change ? listen_at(path, owner->uid, gateway, 0660) : listen_at(path, (uid_t)-1, (gid_t)-1, 0600);
}

int control_socket(const char *path, const struct identity *owner)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EAGAIN);
    if (fd >= 0) close(fd);
    return taken ? -EADDRINUSE : listen_at(path, owner->uid, owner->gid, 0600);
}

/* Below /var/lib, which is root's, so that nobody can put a link in the way. */
static void root_state_dir(const struct identity *control, char *out, size_t len)
{
    char name[sizeof control->name + 8];
    struct stat st;
    mkdir("/var/lib/weir", 0755);
    int base = open("/var/lib/weir", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    snprintf(name, sizeof name, "state-%s", control->name);
    if (base >= 0 && fstat(base, &st) == 0 && st.st_uid == 0) {
        mkdirat(base, name, 0700);
        int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        bool owned = fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == control->uid;
        if (fd >= 0 && (owned || fchown(fd, control->uid, control->gid) == 0)) snprintf(out, len, "/var/lib/weir/%s", name);
        if (fd >= 0) close(fd);
    }
    if (base >= 0) close(base);
}

void state_dir(bool is_root, const struct identity *control, char *out, size_t len)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    out[0] = 0;
    if (is_root) root_state_dir(control, out, len);
    else if (state && state[0] == '/') snprintf(out, len, "%s/weir", state);
    else if (home && home[0] == '/') snprintf(out, len, "%s/.local/state/weir", home);
    if (strlen(out) + 1 == len) out[0] = 0; /* cut */
}

int send_with_fd(int to, struct msghdr *h, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } c;
    if (fd >= 0) {
        memset(&c, 0, sizeof c);
        h->msg_control = c.room;
        h->msg_controllen = sizeof c.room;
        CMSG_FIRSTHDR(h)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(h)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(h)->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(h)), &fd, sizeof fd);
    }
    ssize_t n;
    do {
        n = sendmsg(to, h, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    h->msg_control = NULL; /* it was ours */
    return n < 0 ? errno : 0;
}

void close_from(int first)
{
    if (syscall(SYS_close_range, (unsigned)first, ~0u, 0u) == 0) return;
    long max = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd < max; fd++) close(fd);
}

void reset_signals(void)
{
    struct { /* the kernel's own: libc refuses to touch those that it uses itself, and whoever started us may ignore them */
        uintptr_t handler;
        unsigned long flags;
        void *restorer;
        unsigned long mask[2];
    } is, dfl = {0};
    sigset_t none;
    for (int s = 1; s <= 64; s++) {
        bool libc_uses = s > SIGSYS && s < SIGRTMIN; /* where it handles them they are its own, until the exec */
        if (syscall(SYS_rt_sigaction, s, NULL, &is, 8) == 0 && (!libc_uses || is.handler == (uintptr_t)SIG_IGN)) syscall(SYS_rt_sigaction, s, &dfl, NULL, 8);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---- the contents of a start ---- */

/* The next string of the block; NULL: it does not end. */
static char *next_string(char **p, char *end)
{
    char *s = *p, *nul = s < end ? memchr(s, 0, (size_t)(end - s)) : NULL;
    if (!nul) return NULL;
    *p = nul + 1;
    return s;
}

off_t sealed_size(int memfd, off_t least, off_t most)
{
    struct stat st;
    const int need = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0 || (seals & need) != need || fstat(memfd, &st) < 0) return -1;
    return st.st_size < least || st.st_size > most ? -1 : st.st_size;
}

#define ARGS_MAX 16384 /* weir-cgi is told the roots of all sites */

int spec_read(int memfd, struct spec *out)
{
    struct root_spec head;
    off_t size = sealed_size(memfd, sizeof head, ROOT_SPEC_MAX);
    memset(out, 0, sizeof *out);
    if (size < 0) return EINVAL;
    out->bytes = malloc((size_t)size);
    if (!out->bytes) return ENOMEM;
    if (pread(memfd, out->bytes, (size_t)size, 0) != size) return EIO;
    memcpy(&head, out->bytes, sizeof head);
    if (head.version != ROOT_PROTO_VERSION || head.argc < 1 || head.argc > ARGS_MAX || head.envc > 4096) return EINVAL;
    out->argv = calloc(head.argc + 1, sizeof(char *));
    out->envp = calloc(head.envc + 1, sizeof(char *));
    if (!out->argv || !out->envp) return ENOMEM;
    char *p = out->bytes + sizeof head, *end = out->bytes + size;
    out->dir = next_string(&p, end);
    if (!out->dir) return EINVAL;
    for (uint32_t i = 0; i < head.argc; i++)
        if (!(out->argv[i] = next_string(&p, end))) return EINVAL;
    for (uint32_t i = 0; i < head.envc; i++)
        if (!(out->envp[i] = next_string(&p, end))) return EINVAL;
    if (out->argv[0][0] != '/' || out->dir[0] != '/') return EINVAL;
    out->files = head.files;
    out->flags = head.flags;
    return 0;
}

void spec_free(struct spec *s)
{
    free(s->argv);
    free(s->envp);
    free(s->bytes);
    memset(s, 0, sizeof *s);
}

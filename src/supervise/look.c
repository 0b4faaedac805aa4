/* SPDX-License-Identifier: MIT */
/* What /proc tells of the processes below us: who they are, who holds a socket, what one does. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervise/internal.h"

/* The kernel's own list of whom a thread started, or was given; -1: there is none. */
static int read_children(pid_t pid, const char *task, struct process **list, size_t *n, size_t *cap)
{
    char path[340], text[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%.200s/children", (int)pid, task);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len;
    long child = 0;
    if (fd < 0) return errno == ENOENT && access("/proc/thread-self/children", F_OK) < 0 ? -1 : 0;
    while ((len = read(fd, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < len; i++) { /* numbers, a space behind each */
            if (text[i] >= '0' && text[i] <= '9') {
                child = child * 10 + (text[i] - '0');
                continue;
            }
            if (child && *n == *cap) {
                size_t room = *cap ? *cap * 2 : 64;
                struct process *grown = realloc(*list, room * sizeof *grown);
                if (!grown) break;
                *list = grown;
                *cap = room;
            }
            if (child) (*list)[(*n)++] = (struct process){.pid = (pid_t)child, .parent = pid};
            child = 0;
        }
    close(fd);
    return 0;
}

static int add_children(pid_t pid, struct process **list, size_t *n, size_t *cap)
{
    char path[64];
    int bad = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    if (!d) return 0; /* it has ended */
    for (struct dirent *e; !bad && (e = readdir(d));)
        if (e->d_name[0] != '.') bad = read_children(pid, e->d_name, list, n, cap);
    closedir(d);
    return bad;
}

static size_t read_processes(struct process **out)
{
    size_t n = 0, cap = 0;
    struct process *list = NULL;
    DIR *d = opendir("/proc");
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[300], buf[512];
        int pid = atoi(e->d_name), parent;
        if (pid <= 0) continue;
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
        if (fd >= 0) close(fd);
        if (len <= 0) continue;
        buf[len] = 0;
        char *end = strrchr(buf, ')'); /* the name may hold anything */
        if (!end || sscanf(end + 1, " %*c %d", &parent) != 1) continue;
        if (n == cap) {
            cap = cap ? cap * 2 : 256;
            struct process *grown = realloc(list, cap * sizeof *grown);
            if (!grown) break;
            list = grown;
        }
        list[n++] = (struct process){.pid = pid, .parent = parent};
    }
    closedir(d);
    *out = list;
    return n;
}

static int by_pid(const void *a, const void *b)
{
    const struct process *x = a, *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Where the kernel keeps no such list: of all processes those that descend from it. */
static size_t search_below(pid_t top, struct process **out)
{
    struct process *list = NULL;
    size_t n = read_processes(&list), kept = 0;
    if (n) qsort(list, n, sizeof *list, by_pid);
    for (bool more = true; more;) { /* marks children of the marked ones until there are none: a few passes */
        more = false;
        for (size_t i = 0; i < n; i++) {
            if (list[i].below) continue;
            const struct process key = {.pid = list[i].parent}, *parent = bsearch(&key, list, n, sizeof *list, by_pid);
            if (list[i].parent != top && !(parent && parent->below)) continue;
            list[i].below = more = true;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (list[i].below) list[kept++] = list[i];
    *out = list;
    return kept;
}

/* Costs as much as there is below, not as there is on the machine: many keepers may look at the same time. */
size_t read_below(pid_t top, struct process **out)
{
    struct process *list = NULL;
    size_t n = 0, cap = 0;
    int bad = add_children(top, &list, &n, &cap);
    for (size_t i = 0; !bad && i < n; i++) bad = add_children(list[i].pid, &list, &n, &cap);
    if (!bad) {
        *out = list;
        return n;
    }
    free(list);
    return search_below(top, out);
}

static bool holds(pid_t pid, const char *name)
{
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    bool found = false;
    if (!d) return false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
        if (n <= 0) continue;
        link[n] = 0;
        found = strcmp(link, name) == 0;
    }
    closedir(d);
    return found;
}

pid_t holder_of(uint64_t inode)
{
    struct process *list = NULL;
    size_t n = read_below(getpid(), &list);
    pid_t found = 0;
    char name[64];
    snprintf(name, sizeof name, "socket:[%llu]", (unsigned long long)inode);
    for (size_t i = 0; i < n && !found; i++)
        if (holds(list[i].pid, name)) found = list[i].pid;
    free(list);
    return found;
}

/* The first line of a file of /proc/PID; what cannot be printed is a question mark. */
static void first_line(pid_t pid, const char *file, char *out, size_t len)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, len - 1);
    if (fd >= 0) close(fd);
    out[n > 0 ? n : 0] = 0;
    out[strcspn(out, "\n")] = 0;
    for (char *p = out; *p; p++)
        if (!isprint((unsigned char)*p)) *p = '?';
}

void describe_process(pid_t pid, char *out, size_t len)
{
    char stat[512], name[32], where[48], call[32];
    first_line(pid, "stat", stat, sizeof stat);
    first_line(pid, "comm", name, sizeof name);
    first_line(pid, "wchan", where, sizeof where);
    first_line(pid, "syscall", call, sizeof call);
    const char *end = strrchr(stat, ')');
    call[strcspn(call, " ")] = 0;
    snprintf(out, len, "%.15s, state %c%s%.40s%s%.16s", name, end && end[1] ? end[2] : '?', where[0] && where[0] != '0' ? ", in " : "",
             where[0] != '0' ? where : "", call[0] >= '0' && call[0] <= '9' ? ", system call " : "", call[0] >= '0' && call[0] <= '9' ? call : "");
}

/* SPDX-License-Identifier: MIT */
/* The root part becomes its new version in place: same pid, same children, same sockets. What it knows goes through a sealed
 * memfd. The new program is asked first whether it understands it; an open descriptor of the old one is the way back. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervise/internal.h"

#define STATE_VERSION 5
#define ASK_MS        2000 /* what the new program has to answer */
#define ARGS_MAX      96

struct state { /* then units, then listening sockets */
    char magic[8];
    uint32_t version, proto, state_size, unit_size, held_size, keeper_size;
    uint32_t unit_count, listener_count, gateway_count;
    int32_t control, control_socket, kept, kept_orders, base, lock;
    pid_t control_pid;
    int64_t control_started_ms;
    struct gateway gateways[ROOT_GATEWAYS_MAX];
    char dir[64], name[24];
    struct identity control_who, gateway_who; /* as they were at the start: that users are gone by now ends nothing */
    gid_t gateway_gid;
};
static const char magic[8] = {'w', 'e', 'i', 'r', 'r', 'o', 'o', 't'};

/* ---- writing ---- */

static bool put(int fd, const void *p, size_t len)
{
    return write(fd, p, len) == (ssize_t)len; /* a memfd takes all, or there is no memory */
}

static int write_state(const struct root *r)
{
    struct state s = {.version = STATE_VERSION, .proto = ROOT_PROTO_VERSION, .state_size = sizeof s, .unit_size = sizeof(struct unit),
                      .held_size = sizeof(struct held), .keeper_size = sizeof(struct keeper_msg), .unit_count = (uint32_t)r->unit_count,
                      .listener_count = (uint32_t)r->listener_count, .gateway_count = (uint32_t)r->gateway_count, .control = r->control,
                      .control_socket = r->control_socket, .kept = r->kept, .kept_orders = r->kept_orders, .base = r->base, .lock = r->lock, .control_pid = r->control_pid,
                      .control_started_ms = r->control_started_ms, .control_who = r->control_who, .gateway_who = r->gateway_who, .gateway_gid = r->gateway_gid};
    memcpy(s.magic, magic, sizeof magic);
    memcpy(s.gateways, r->gateways, sizeof s.gateways);
    memcpy(s.dir, r->dir, sizeof s.dir);
    memcpy(s.name, r->name, sizeof s.name);
    int fd = memfd_create("weir-root", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool fine = fd >= 0 && put(fd, &s, sizeof s);
    for (size_t i = 0; fine && i < r->unit_count; i++) fine = put(fd, r->units[i], sizeof *r->units[i]);
    for (size_t i = 0; fine && i < r->listener_count; i++) fine = put(fd, &r->listeners[i], sizeof r->listeners[i]);
    if (fine && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

/* ---- reading ---- */

static bool is_open(int fd, bool may_be_none)
{
    return fd < 0 ? may_be_none : fcntl(fd, F_GETFD) >= 0;
}

static bool understood(int fd, struct state *s)
{
    struct stat st;
    if (pread(fd, s, sizeof *s, 0) != (ssize_t)sizeof *s || memcmp(s->magic, magic, sizeof magic) != 0 || s->version != STATE_VERSION) return false;
    if (s->proto != ROOT_PROTO_VERSION || s->state_size != sizeof *s || s->unit_size != sizeof(struct unit) || s->held_size != sizeof(struct held) ||
        s->keeper_size != sizeof(struct keeper_msg))
        return false;
    if (s->unit_count > ROOT_UNITS_MAX || s->listener_count > ROOT_LISTENERS_MAX || s->gateway_count > ROOT_GATEWAYS_MAX) return false;
    off_t len = (off_t)(sizeof *s + s->unit_count * sizeof(struct unit) + s->listener_count * sizeof(struct held));
    return fstat(fd, &st) == 0 && st.st_size == len && memchr(s->dir, 0, sizeof s->dir) && memchr(s->name, 0, sizeof s->name);
}

bool upgrade_check(int memfd)
{
    struct state s;
    return understood(memfd, &s);
}

static bool read_units(struct root *r, int memfd, const struct state *s)
{
    off_t at = (off_t)sizeof *s;
    for (; r->unit_count < s->unit_count; at += (off_t)sizeof(struct unit)) {
        struct unit *u = malloc(sizeof *u);
        if (!u || pread(memfd, u, sizeof *u, at) != (ssize_t)sizeof *u || !is_open(u->channel, true) || !is_open(u->log, true) || !is_open(u->log_errors, true)) {
            free(u);
            return false;
        }
        r->units[r->unit_count++] = u;
    }
    ssize_t n = (ssize_t)(s->listener_count * sizeof(struct held));
    return n == 0 || pread(memfd, r->listeners, (size_t)n, at) == n;
}

/* For each descriptor that is held. */
static void each_fd(struct root *r, void (*f)(int fd))
{
    f(r->control);
    f(r->control_socket);
    f(r->kept);
    f(r->kept_orders);
    f(r->base);
    f(r->lock);
    for (size_t i = 0; i < r->gateway_count; i++) f(r->gateways[i].channel);
    for (size_t i = 0; i < r->unit_count; i++) {
        f(r->units[i]->channel);
        f(r->units[i]->log);
        f(r->units[i]->log_errors);
    }
    for (size_t i = 0; i < r->listener_count; i++) f(r->listeners[i].fd);
}

static void keep_over_exec(int fd)
{
    if (fd >= 0) fcntl(fd, F_SETFD, 0);
}

static void close_on_exec(int fd)
{
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
}

bool upgrade_resume(struct root *r, int memfd)
{
    struct state s;
    if (!understood(memfd, &s) || !read_units(r, memfd, &s)) return false;
    r->listener_count = s.listener_count;
    r->gateway_count = s.gateway_count;
    memcpy(r->gateways, s.gateways, sizeof r->gateways);
    r->control = s.control;
    r->control_socket = s.control_socket;
    r->kept = s.kept;
    r->kept_orders = s.kept_orders;
    r->base = s.base;
    r->lock = s.lock;
    r->control_pid = s.control_pid;
    r->control_started_ms = s.control_started_ms;
    r->control_who = s.control_who;
    r->gateway_who = s.gateway_who;
    r->gateway_gid = s.gateway_gid;
    memcpy(r->dir, s.dir, sizeof r->dir);
    memcpy(r->name, s.name, sizeof r->name);
    if (!is_open(r->control, true) || !is_open(r->base, false)) return false;
    close(memfd);
    each_fd(r, close_on_exec);
    return true;
}

/* ---- the change ---- */

/* 0, or an errno: the new program is started only to say whether it understands. */
static int ask(const struct root *r, int memfd)
{
    char fd[16];
    snprintf(fd, sizeof fd, "%d", memfd);
    char *argv[] = {(char *)(uintptr_t)r->self, (char *)(uintptr_t) "--understands", fd, NULL};
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        keep_over_exec(memfd);
        execv(r->self, argv);
        _exit(126);
    }
    if (pid < 0) return errno;
    int p = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd wait = {.fd = p, .events = POLLIN};
    if (p < 0 || poll(&wait, 1, ASK_MS) != 1) kill(pid, SIGKILL);
    if (p >= 0) close(p);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 126 ? ENOEXEC : EPROTO;
}

/* The arguments of this process without those of an earlier change, behind the new ones. */
static void arguments(const struct root *r, char **out, char *memfd, char *back, bool returned)
{
    size_t n = 0;
    out[n++] = r->argv[0];
    char *const mine[] = {(char *)(uintptr_t) "--resume", memfd, (char *)(uintptr_t) "--back", back, (char *)(uintptr_t) "--self", (char *)(uintptr_t)r->self};
    for (size_t i = 0; i < sizeof mine / sizeof mine[0]; i++) out[n++] = mine[i];
    if (returned) out[n++] = (char *)(uintptr_t) "--returned";
    char **a = r->argv + 1;
    while (*a && a[1] && (strcmp(*a, "--resume") == 0 || strcmp(*a, "--back") == 0 || strcmp(*a, "--self") == 0)) a += 2;
    if (*a && strcmp(*a, "--returned") == 0) a++;
    for (; *a && n < ARGS_MAX - 1; a++) out[n++] = *a;
    out[n] = NULL;
}

static void change(struct root *r, int memfd, int old)
{
    char fd[16], back[16], *argv[ARGS_MAX];
    snprintf(fd, sizeof fd, "%d", memfd);
    snprintf(back, sizeof back, "%d", old);
    arguments(r, argv, fd, back, false);
    each_fd(r, keep_over_exec);
    keep_over_exec(memfd);
    keep_over_exec(old);
    execv(r->self, argv);
}

void upgrade(struct root *r)
{
    struct root_msg m = {.kind = ROOT_UPGRADED};
    int memfd = -1, old = -1;
    systemd_reloading();
    const char *what = "end and start a new one at the same time";
    if (r->ending || r->first_waiting) {
        m.code = EBUSY; /* control is behind: its messages would be lost */
    } else if ((memfd = write_state(r)) < 0 || (old = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) < 0) {
        m.code = errno;
        what = "write down what is held";
    } else if ((m.code = ask(r, memfd)) != 0) {
        what = m.code == EPROTO ? "go on in the new version: it does not take over what runs (restart instead)" : "start the new version";
    } else {
        change(r, memfd, old); /* this program ends here */
        m.code = errno;
        what = "start the new version";
        each_fd(r, close_on_exec);
    }
    if (memfd >= 0) close(memfd);
    if (old >= 0) close(old);
    snprintf(m.text, sizeof m.text, "%s", what);
    tell(r, m, -1);
}

void upgrade_back(struct root *r, int memfd, int old)
{
    char fd[16], back[] = "-1", path[32], *argv[ARGS_MAX];
    snprintf(fd, sizeof fd, "%d", memfd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", old);
    arguments(r, argv, fd, back, true);
    fcntl(old, F_SETFD, FD_CLOEXEC);
    execv(path, argv);
}

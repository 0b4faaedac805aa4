/* SPDX-License-Identifier: MIT */
/* weir-supervise: the root part. It spawns, binds, signals and holds what must outlive the others; it decides nothing and
 * reads nothing but fixed-size orders of control. Child subreaper: what a killed keeper leaves comes here and is killed. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "supervise/internal.h"

#define END_MS         1000 /* what apps have after TERM when everything ends */
#define GATEWAY_END_MS 600  /* what requests have that run, where somebody waits at a terminal (SIGINT) */
#define SERVICE_END_MS 5000 /* ... and where a service manager does (SIGTERM, SIGQUIT) */
#define LAST_WORDS     1000  /* orders of a control that ended */
#define CONTROL_LIVED_MS 1000 /* one that ended sooner failed to start: the next one waits */
#define KEEPERS_MS     3000  /* what keepers have beyond that: then they are killed, too */
#define WAITING_MAX    20000 /* messages that control has not taken */
#define START_TRIES    5     /* of a control that never had a configuration: then it is of no use */
#define AGAIN_MS       100   /* between tries to tell the service manager */

int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- messages ---- */

static int send_fd(int to, const void *p, size_t len, int fd)
{
    struct iovec v = {(void *)(uintptr_t)p, len};
    return send_with_fd(to, &(struct msghdr){.msg_iov = &v, .msg_iovlen = 1}, fd);
}

static void forget_waiting(struct root *r)
{
    while (r->first_waiting) {
        struct waiting *w = r->first_waiting;
        r->first_waiting = w->next;
        if (w->fd >= 0) close(w->fd);
        free(w);
    }
    r->last_waiting = &r->first_waiting;
    r->waiting_count = 0;
}

/* Control is behind: its message waits, in order. One that never reads is of no use: a new one is told everything again. */
static void wait_for_control(struct root *r, const struct root_msg *m, int fd)
{
    struct waiting *w = r->waiting_count < WAITING_MAX ? malloc(sizeof *w) : NULL;
    int copy = w && fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (!w || (fd >= 0 && copy < 0)) {
        free(w);
        if (r->control_pid > 0) kill(r->control_pid, SIGKILL);
        return;
    }
    *w = (struct waiting){.m = *m, .fd = copy};
    *r->last_waiting = w;
    r->last_waiting = &w->next;
    r->waiting_count++;
}

void tell(struct root *r, struct root_msg m, int fd)
{
    m.version = ROOT_PROTO_VERSION;
    if (r->control < 0) return;
    int bad = r->first_waiting ? EAGAIN : send_fd(r->control, &m, sizeof m, fd);
    if (bad == EAGAIN || bad == ENOBUFS) wait_for_control(r, &m, fd); /* anything else is noticed by reading */
}

static void tell_waiting(struct root *r)
{
    while (r->first_waiting) {
        struct waiting *w = r->first_waiting;
        int bad = send_fd(r->control, &w->m, sizeof w->m, w->fd);
        if (bad == EAGAIN || bad == ENOBUFS) return;
        r->first_waiting = w->next;
        if (!w->next) r->last_waiting = &r->first_waiting;
        r->waiting_count--;
        if (w->fd >= 0) close(w->fd);
        free(w);
    }
}

static void failed(struct root *r, uint64_t unit, int code, const char *what)
{
    struct root_msg m = {.kind = ROOT_FAILED, .unit = unit, .code = code};
    snprintf(m.text, sizeof m.text, "%s", what);
    tell(r, m, -1);
}

void complain(const char *fmt, ...)
{
    char line[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (n >= (int)sizeof line) n = (int)sizeof line - 1;
    if (n > 0 && poll(&p, 1, 0) == 1 && p.revents & POLLOUT && write(STDERR_FILENO, line, (size_t)n) < 0) return;
}

/* ---- children of ours ---- */

static int open_config(const struct root *r)
{
    return r->config ? open(r->config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
}

/* In a fork: these descriptors become 3, 4, ...; everything else above 2 is closed. */
static bool arrange(const int *fds, int count)
{
    int high[ROOT_FDS_MAX];
    for (int i = 0; i < count; i++)
        if ((high[i] = fcntl(fds[i], F_DUPFD, 64)) < 0) return false;
    for (int i = 0; i < count; i++)
        if (dup2(high[i], 3 + i) < 0) return false;
    close_from(3 + count);
    return true;
}

static _Noreturn void run_weir(const struct root *r, const struct identity *who, char **argv, char **envp, const int *fds, int count)
{
    const char *step = "arrange the descriptors";
    reset_signals();
    setpgid(0, 0); /* the terminal's Ctrl-C is for the root part alone */
    int code = arrange(fds, count) ? become(who, &step) : errno;
    if (!code) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* they see the end of their sockets, too */
        execve(r->weir, argv, envp);
        code = errno;
        step = "start weir";
    }
    fprintf(stderr, "weir-supervise: cannot %s: %s\n", step, strerror(code));
    _exit(126);
}

static void read_again(struct root *r, uint32_t flags);

static void start_control(struct root *r)
{
    int pair[2], config = open_config(r);
    char dir[96], flags[32], home[] = "HOME=/", path[] = "PATH=/usr/local/bin:/usr/bin:/bin", lang[] = "LANG=C.UTF-8";
    char fd[] = "WEIR_ROOT=3", term[96], journal[] = "WEIR=1", state[160] = "WEIR_STATE=";
    char *argv[64] = {(char *)(uintptr_t)r->weir, (char *)(uintptr_t) "control"}, *envp[16];
    int argc = 2;
    for (char **a = r->control_args; *a && argc < 62; a++) argv[argc++] = *a;
    state_dir(r->is_root, &r->control_who, state + strlen(state), sizeof state - strlen(state));
    snprintf(dir, sizeof dir, "WEIR_DIR=%s", r->dir);
    snprintf(flags, sizeof flags, "WEIR_PRIVILEGED=%d", r->is_root);
    snprintf(term, sizeof term, "TERM=%.80s", getenv("TERM") ? getenv("TERM") : "dumb");
    char *const env[] = {path, home, lang, fd, dir, flags, term, journal, state, NULL};
    memcpy(envp, env, sizeof env);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        if (config >= 0) close(config);
        r->control_due_ms = now_ms() + 1000;
        return;
    }
    r->control_pid = fork();
    if (r->control_pid == 0) run_weir(r, &r->control_who, argv, envp, &pair[1], 1);
    close(pair[1]);
    r->control_started_ms = now_ms();
    if (r->control_pid < 0) {
        close(pair[0]);
        if (config >= 0) close(config);
        r->control_pid = 0;
        r->control_due_ms = now_ms() + 1000;
        return;
    }
    r->control = pair[0];
    tell(r, (struct root_msg){.kind = ROOT_HELLO, .flags = r->is_root | (r->kept >= 0 ? 2u : 0u) | (r->upgraded ? 4u : 0u),
                              .code = (int32_t)r->unit_count * 2 + (r->kept_orders >= 0), .ms = (uint32_t)r->gateway_count}, r->kept >= 0 ? r->kept : config);
    if (config >= 0) close(config);
    for (size_t i = 0; i < r->unit_count; i++) { /* what lived through the end of the last one */
        const struct unit *u = r->units[i];
        struct root_msg m = {.kind = ROOT_UNIT, .unit = u->id, .pid = u->pid,
                             .flags = (u->ending ? 1u : 0u) | (u->lost ? 2u : 0u)};
        memcpy(m.tag, u->tag, sizeof m.tag);
        memcpy(m.name, u->name, sizeof m.name);
        snprintf(m.text, sizeof m.text, "%s", u->path);
        tell(r, m, u->log);
        tell(r, (struct root_msg){.kind = ROOT_UNIT_ERRORS, .unit = u->id}, u->log_errors);
    }
    if (r->kept_orders >= 0) tell(r, (struct root_msg){.kind = ROOT_ORDERS}, r->kept_orders);
    for (size_t i = 0; i < r->listener_count; i++) r->listeners[i].asked = false;
    if (r->read_later) read_again(r, 1);
    r->read_later = false;
    tell(r, (struct root_msg){.kind = ROOT_PING}, -1);
}

/* A new link between control and a gateway that runs. Without descriptors there is none yet: control asks again. */
static void relink(struct root *r, const struct gateway *g)
{
    int pair[2] = {-1, -1};
    char byte = 'L';
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) send_fd(g->channel, &byte, 1, pair[0]);
    tell(r, (struct root_msg){.kind = ROOT_GATEWAY_UP, .pid = g->pid, .flags = 1}, pair[1]);
    if (pair[0] < 0) return;
    close(pair[0]);
    close(pair[1]);
}

static struct gateway *find_gateway(struct root *r, pid_t pid)
{
    for (size_t i = 0; i < r->gateway_count; i++)
        if (r->gateways[i].pid == pid) return &r->gateways[i];
    return NULL;
}

static void signal_gateways(const struct root *r, int sig)
{
    for (size_t i = 0; i < r->gateway_count; i++) kill(r->gateways[i].pid, sig);
}

static void start_gateway(struct root *r)
{
    int link[2], channel[2];
    char path[] = "PATH=/usr/bin:/bin", lang[] = "LANG=C.UTF-8", a[] = "WEIR_LINK=3", b[] = "WEIR_ROOT=4", tz[80];
    snprintf(tz, sizeof tz, "TZ=%.70s", getenv("TZ") ? getenv("TZ") : "");
    char *argv[] = {(char *)(uintptr_t)r->weir, (char *)(uintptr_t) "gateway", NULL}, *envp[] = {path, lang, a, b, getenv("TZ") ? tz : NULL, NULL};
    if (r->ending) return;
    if (r->gateway_count == ROOT_GATEWAYS_MAX) {
        failed(r, 0, EBUSY, "start one more");
        return;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0) {
        failed(r, 0, errno, "make a socket pair");
        return;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0) {
        failed(r, 0, errno, "make a socket pair");
        close(link[0]);
        close(link[1]);
        return;
    }
    int fds[2] = {link[0], channel[0]};
    pid_t pid = fork();
    if (pid == 0) run_weir(r, &r->gateway_who, argv, envp, fds, 2);
    close(link[0]);
    close(channel[0]);
    if (pid < 0) {
        failed(r, 0, errno, "fork");
        close(channel[1]);
    } else {
        r->gateways[r->gateway_count++] = (struct gateway){pid, channel[1]};
        tell(r, (struct root_msg){.kind = ROOT_GATEWAY_UP, .pid = pid}, link[1]);
    }
    close(link[1]);
}

/* ---- units ---- */

static struct unit *find_unit(struct root *r, uint64_t id)
{
    for (size_t i = 0; i < r->unit_count; i++)
        if (r->units[i]->id == id) return r->units[i];
    return NULL;
}

static bool valid_text(const char *s, size_t room, bool name)
{
    size_t n = strnlen(s, room);
    if (n == room) return false;
    for (size_t i = 0; name && i < n; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') ||
              (i && strchr("-_.", s[i]))))
            return false;
    return !name || n > 0;
}

static _Noreturn void fork_keeper(const struct keeper_start *k)
{
    const int fds[5] = {k->channel, k->listener, k->out, k->err, k->file};
    struct keeper_start s = *k;
    int count = k->file >= 0 ? 5 : 4;
    if (!arrange(fds, count)) _exit(1);
    s.channel = 3;
    s.listener = 4;
    s.out = 5;
    s.err = 6;
    if (s.file >= 0) s.file = 7;
    for (int i = 3; i < 3 + count; i++) fcntl(i, F_SETFD, FD_CLOEXEC);
    keeper_run(&s);
}

static struct held *find_held(struct root *r, const struct root_msg *m)
{
    for (size_t i = 0; i < r->listener_count; i++)
        if (r->listeners[i].len == m->address_len && memcmp(r->listeners[i].address, m->address, m->address_len) == 0) return &r->listeners[i];
    return NULL;
}

/* The socket at the message's address, if it is one in the file system that we hold. */
static int copy_of(struct root *r, const struct root_msg *m)
{
    const struct held *h = m->address_len <= sizeof m->address ? find_held(r, m) : NULL;
    if (!h || ((const struct sockaddr *)(const void *)h->address)->sa_family != AF_UNIX) return -ENOENT;
    int fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
}

/* fds: memfd, stdout, stderr, both to read, and perhaps a file. All are the caller's to close. */
static void start_unit(struct root *r, const struct root_msg *m, const int *fds)
{
    struct keeper_start k = {.out = fds[1], .err = fds[2], .file = fds[5]};
    int pair[2];
    struct unit *u = calloc(1, sizeof *u);
    if (!u || r->unit_count >= ROOT_UNITS_MAX || find_unit(r, m->unit) || m->unit == 0) {
        free(u);
        failed(r, m->unit, EINVAL, "start one more unit");
        return;
    }
    int bad = identity_of(m->user, m->group, &k.who);
    if (bad) {
        free(u);
        failed(r, m->unit, bad, "use this user");
        return;
    }
    bad = spec_read(fds[0], &k.spec);
    if (!bad && ((k.spec.flags & ROOT_SPEC_FPM) != 0) != (k.file >= 0)) bad = EINVAL;
    if (bad) {
        spec_free(&k.spec);
        free(u);
        failed(r, m->unit, bad, "read what to start");
        return;
    }
    if (snprintf(u->path, sizeof u->path, "%.40s/pool/%.56s.sock", r->dir, m->name) >= (int)sizeof u->path) u->path[0] = 0;
    k.shared = m->address_len > 0;
    k.listener = k.shared ? copy_of(r, m) : private_socket(u->path, &k.who, r->gateway_gid);
    if (k.listener < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        bad = k.listener < 0 ? -k.listener : errno;
        if (k.listener >= 0) close(k.listener);
        if (!k.shared) unlink(u->path);
        spec_free(&k.spec);
        failed(r, m->unit, bad, k.shared ? "take the pool's socket" : "make the private socket");
        free(u);
        return;
    }
    k.channel = pair[1];
    u->keeper = fork();
    if (u->keeper == 0) fork_keeper(&k);
    bad = u->keeper < 0 ? errno : 0;
    close(pair[1]);
    close(k.listener);
    spec_free(&k.spec);
    if (bad) {
        close(pair[0]);
        unlink(u->path);
        free(u);
        failed(r, m->unit, bad, "fork");
        return;
    }
    u->id = m->unit;
    u->channel = pair[0];
    u->log = fcntl(fds[3], F_DUPFD_CLOEXEC, 3);
    u->log_errors = fcntl(fds[4], F_DUPFD_CLOEXEC, 3);
    memcpy(u->name, m->name, sizeof u->name);
    memcpy(u->tag, m->tag, sizeof u->tag);
    r->units[r->unit_count++] = u;
}

static void drop_unit(struct root *r, size_t i)
{
    struct unit *u = r->units[i];
    unlink(u->path);
    if (u->channel >= 0) close(u->channel);
    if (u->log >= 0) close(u->log);
    if (u->log_errors >= 0) close(u->log_errors);
    if (!u->told && !u->pid) failed(r, u->id, ECHILD, "start its keeper");
    else if (!u->told) tell(r, (struct root_msg){.kind = ROOT_EXITED, .unit = u->id, .pid = u->pid, .code = u->status}, -1);
    free(u);
    r->units[i] = r->units[--r->unit_count];
}

static void end_unit(struct unit *u, uint32_t ms, int sig)
{
    struct keeper_msg m = {.kind = KEEPER_END, .ms = ms, .code = sig};
    u->ending = true;
    if (u->channel < 0 || send(u->channel, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return;
    if (errno == EAGAIN || errno == ENOBUFS) shutdown(u->channel, SHUT_WR); /* it reads the end behind what it has to do */
}

static void ask_keeper(const struct unit *u, const struct root_msg *m)
{
    struct keeper_msg k = {.kind = m->kind == ROOT_KILL ? KEEPER_KILL : KEEPER_LOOK, .inode = m->inode};
    memcpy(k.tag, m->tag, sizeof k.tag);
    if (u->channel >= 0 && send(u->channel, &k, sizeof k, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return; /* it ends anyway */
}

static void from_keeper(struct root *r, struct unit *u)
{
    struct keeper_msg k;
    ssize_t n = recv(u->channel, &k, sizeof k, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n != (ssize_t)sizeof k) { /* SIGCHLD of the keeper does the rest */
        close(u->channel);
        u->channel = -1;
        return;
    }
    if (k.kind == KEEPER_STARTED) {
        struct root_msg m = {.kind = ROOT_STARTED, .unit = u->id, .pid = k.pid};
        u->pid = k.pid;
        snprintf(m.text, sizeof m.text, "%s", u->path);
        tell(r, m, -1);
    } else if (k.kind == KEEPER_FAILED) {
        k.text[sizeof k.text - 1] = 0;
        u->told = true;
        failed(r, u->id, k.code, k.text);
    } else if (k.kind == KEEPER_LOST) {
        u->lost = true;
        tell(r, (struct root_msg){.kind = ROOT_LOST, .unit = u->id, .pid = u->pid, .code = k.code}, -1);
    } else if (k.kind == KEEPER_EXITED) {
        u->status = k.code;
    } else if (k.kind == KEEPER_LOOKED) {
        struct root_msg m = {.kind = ROOT_LOOKED, .unit = u->id, .pid = k.pid, .flags = (uint32_t)k.code};
        k.text[sizeof k.text - 1] = k.tag[sizeof k.tag - 1] = 0;
        memcpy(m.text, k.text, sizeof m.text);
        memcpy(m.tag, k.tag, sizeof m.tag);
        tell(r, m, -1);
    }
}

/* ---- listening sockets ---- */

/* The path of a unix socket's address; NULL: it is none. */
static const char *unix_path(const unsigned char *address, uint32_t len)
{
    const struct sockaddr_un *u = (const void *)address;
    if (u->sun_family != AF_UNIX || len > sizeof *u || len <= offsetof(struct sockaddr_un, sun_path)) return NULL;
    return memchr(u->sun_path, 0, len - offsetof(struct sockaddr_un, sun_path)) ? u->sun_path : NULL;
}

static struct held *hold(struct root *r, const struct root_msg *m, int fd)
{
    struct held *h = &r->listeners[r->listener_count++];
    *h = (struct held){.fd = fd, .len = m->address_len, .stored = true}; /* of a unix socket nobody keeps a copy: its path is ours */
    memcpy(h->address, m->address, m->address_len);
    return h;
}

/* A front's: made, or its rights are set anew. Made anew if somebody removed its name. */
static void listen_unix(struct root *r, const struct root_msg *m, const char *path, struct held *h, int *fd, int *code)
{
    mode_t mode = m->flags & 0666;
    *code = h ? public_socket_rights(path, &r->gateway_who, m->group, mode, &h->made) : 0;
    if (h && *code != ENOENT) return; /* it is given with the trouble: it listens all the same */
    struct held_name name = {0};
    int made = h || r->listener_count < ROOT_LISTENERS_MAX ? public_socket(path, &r->gateway_who, m->group, mode, &name) : -EMFILE;
    *code = made < 0 ? -made : 0;
    if (made < 0) return;
    if (m->ms) listen(made, m->ms > 65535 ? 65535 : (int)m->ms);
    *fd = made;
    if (!h) {
        hold(r, m, made)->made = name;
        return;
    }
    shutdown(h->fd, SHUT_RDWR);
    close(h->fd);
    h->fd = made;
    h->made = name;
}

/* A new one at the address of h: 0, or an errno. */
static int open_listener(struct held *h)
{
    int one = 1, zero = 0, bad = 0;
    const struct sockaddr *at = (const struct sockaddr *)(const void *)h->address;
    h->fd = socket(at->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (h->fd < 0) return errno;
    setsockopt(h->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (at->sa_family == AF_INET6) setsockopt(h->fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(h->fd, at, h->len) < 0 || listen(h->fd, 4096) < 0) {
        bad = errno;
        close(h->fd);
        h->fd = -1;
    }
    return bad;
}

static void do_listen(struct root *r, const struct root_msg *m)
{
    struct root_msg answer = {.kind = ROOT_LISTENING, .unit = m->unit};
    struct held new = {.fd = -1, .len = m->address_len}, *h = find_held(r, m);
    const struct sockaddr_in *at = (const void *)m->address; /* an IPv6 address has its port at the same place */
    const char *path = unix_path(m->address, m->address_len);
    int fd = h ? h->fd : -1;
    if (path) {
        listen_unix(r, m, path, h, &fd, &answer.code);
    } else if (!h && r->listener_count < ROOT_LISTENERS_MAX && m->address_len <= sizeof m->address && (at->sin_family == AF_INET || at->sin_family == AF_INET6)) {
        memcpy(new.address, m->address, m->address_len);
        answer.code = open_listener(&new);
        if (answer.code == EADDRINUSE && systemd_drop_given(r->listeners, &r->listener_count, at->sin_port)) answer.code = open_listener(&new);
        if (new.fd >= 0) {
            h = &r->listeners[r->listener_count++];
            *h = new;
            systemd_store(h);
            fd = h->fd;
        }
    } else if (!h) {
        answer.code = EINVAL;
    } else if (h->given) {
        h->given = false;
        listen(h->fd, 4096); /* as long a queue as one of ours has */
    }
    if (!h) h = find_held(r, m); /* made just now */
    if (h) h->asked = true;
    tell(r, answer, fd);
}

static void do_control_socket(struct root *r)
{
    struct root_msg answer = {.kind = ROOT_LISTENING};
    if (r->control_socket < 0 && r->is_root) {
        int fd = control_socket(WEIR_CONTROL_SOCKET, &r->control_who);
        if (fd >= 0) r->control_socket = fd;
        else answer.code = -fd;
    }
    if (r->control_socket < 0 && !answer.code) answer.code = EPERM;
    tell(r, answer, r->control_socket);
}

static void end_listener(struct root *r, struct held *h)
{
    const char *path = unix_path(h->address, h->len);
    shutdown(h->fd, SHUT_RDWR); /* at once, whoever still holds it */
    close(h->fd);
    if (path) public_socket_end(path);
    *h = r->listeners[--r->listener_count];
}

/* For good: the service manager keeps no copy. */
static void drop_listener(struct root *r, struct held *h)
{
    systemd_unstore(h);
    end_listener(r, h);
}

static void do_unlisten(struct root *r, const struct root_msg *m)
{
    struct held *named = m->address_len ? find_held(r, m) : NULL;
    if (named) drop_listener(r, named);
    for (size_t i = r->listener_count; i-- > 0 && !m->address_len;) /* the last one takes the place of one that ends */
        if (!r->listeners[i].asked && !r->listeners[i].given) drop_listener(r, &r->listeners[i]);
}

/* ---- the end ---- */

/* Apps end behind the gateway: what it has taken is answered, as far as its time goes. */
static void end_units(struct root *r)
{
    if (r->units_told || r->gateway_count) return;
    r->units_told = true;
    for (size_t i = 0; i < r->unit_count; i++) end_unit(r->units[i], END_MS, 0);
}

static void begin_end(struct root *r, int code, int64_t gateway_ms)
{
    if (r->ending) return;
    r->ending = true;
    r->exit_code = code;
    r->end_at_ms = now_ms() + gateway_ms;
    r->keepers_at_ms = r->end_at_ms + END_MS + KEEPERS_MS;
    systemd_stopping();
    tell(r, (struct root_msg){.kind = ROOT_ENDING}, -1);
    signal_gateways(r, SIGTERM);
    end_units(r);
}

static void push_end(struct root *r)
{
    if (!r->ending) return;
    end_units(r);
    if (now_ms() >= r->end_at_ms) signal_gateways(r, SIGKILL);
    if (now_ms() >= r->keepers_at_ms) /* what they kept comes to us, and is killed with the rest */
        for (size_t i = 0; i < r->unit_count; i++) kill(r->units[i]->keeper, SIGKILL);
    if (r->unit_count == 0 && r->gateway_count == 0 && r->control_pid > 0 && !r->control_stopped) {
        r->control_stopped = true;
        kill(r->control_pid, SIGTERM);
        r->end_at_ms = now_ms() + 500;
    }
    if (r->control_stopped && r->control_pid > 0 && now_ms() >= r->end_at_ms) kill(r->control_pid, SIGKILL);
}

/* ---- events ---- */

static void read_again(struct root *r, uint32_t flags)
{
    if (r->control < 0) {
        r->read_later = true;
        return;
    }
    int fd = open_config(r);
    if (r->ready) systemd_reloading();
    tell(r, (struct root_msg){.kind = ROOT_READ_AGAIN, .flags = flags}, fd);
    if (fd >= 0) close(fd);
}

/* What control gives us to keep replaces what was kept. */
static void keep(int *kept, int *fds, int count)
{
    if (count < 1) return;
    if (*kept >= 0) close(*kept);
    *kept = fds[0];
    fds[0] = -1;
}

static void on_ready(struct root *r, const struct root_msg *m)
{
    if (r->ending || !valid_text(m->text, sizeof m->text, false)) return;
    r->ready = true;
    systemd_drop_given(r->listeners, &r->listener_count, 0);
    systemd_ready(m->text);
}

static bool may_end_by(int sig)
{
    return sig == SIGTERM || sig == SIGQUIT || sig == SIGINT || sig == SIGHUP || sig == SIGUSR1 || sig == SIGUSR2;
}

static void from_control(struct root *r)
{
    struct root_msg m;
    int fds[ROOT_FDS_MAX] = {-1, -1, -1, -1, -1, -1}, count = 0;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * ROOT_FDS_MAX)];
    } c;
    struct iovec v = {&m, sizeof m};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof c.room};
    ssize_t n = recvmsg(r->control, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    for (struct cmsghdr *k = n > 0 ? CMSG_FIRSTHDR(&h) : NULL; k; k = CMSG_NXTHDR(&h, k)) {
        if (k->cmsg_level != SOL_SOCKET || k->cmsg_type != SCM_RIGHTS) continue;
        count = (int)((k->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(k), sizeof(int) * (size_t)count);
    }
    bool fine = n == (ssize_t)sizeof m && m.version == ROOT_PROTO_VERSION && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
                valid_text(m.user, sizeof m.user, false) && valid_text(m.group, sizeof m.group, false);
    if (n <= 0) {
        close(r->control);
        r->control = -1;
        forget_waiting(r);
    } else if (!fine) {
        complain("weir-supervise: control sent what is no order\n");
        if (n == (ssize_t)sizeof m && m.version == ROOT_PROTO_VERSION && m.kind == ROOT_START) failed(r, m.unit, EMFILE, "take the order");
    } else {
        struct unit *u = find_unit(r, m.unit);
        switch (m.kind) {
        case ROOT_READ: read_again(r, 0); break;
        case ROOT_KEEP: keep(&r->kept, fds, count); break;
        case ROOT_KEEP_ORDERS: keep(&r->kept_orders, fds, count); break;
        case ROOT_LISTEN: do_listen(r, &m); break;
        case ROOT_CONTROL_SOCKET: do_control_socket(r); break;
        case ROOT_UNLISTEN: do_unlisten(r, &m); break;
        case ROOT_OPEN: open_keys(r, &m, fds[0]); break;
        case ROOT_START:
            if (count >= 5 && valid_text(m.name, sizeof m.name, true) && !r->ending) start_unit(r, &m, fds);
            else failed(r, m.unit, EINVAL, "understand the order");
            break;
        case ROOT_END:
            if (u) end_unit(u, m.ms > 3600000 ? 3600000 : m.ms, may_end_by(m.code) ? m.code : 0);
            break;
        case ROOT_LOOK:
        case ROOT_KILL:
            if (u) ask_keeper(u, &m);
            break;
        case ROOT_GATEWAY:
            r->upgraded = false; /* control heard of it */
            start_gateway(r);
            break;
        case ROOT_RELINK:
            if (find_gateway(r, m.pid)) relink(r, find_gateway(r, m.pid));
            break;
        case ROOT_GATEWAY_END:
            if (find_gateway(r, m.pid)) kill(m.pid, m.flags & 1 ? SIGKILL : SIGTERM);
            break;
        case ROOT_UPGRADE: upgrade(r); break;
        case ROOT_TAG:
            if (u) memcpy(u->tag, m.tag, sizeof u->tag);
            break;
        case ROOT_STOP: begin_end(r, m.code, GATEWAY_END_MS); break;
        case ROOT_PING: r->answered = true; break;
        case ROOT_READY: on_ready(r, &m); break;
        default: complain("weir-supervise: control sent an order that is not known\n"); break;
        }
    }
    for (int i = 0; i < count; i++)
        if (fds[i] >= 0) close(fds[i]);
}

static void control_ended(struct root *r, int status)
{
    r->control_pid = 0;
    if (r->control >= 0) {
        for (int words = 0; r->control >= 0 && words < LAST_WORDS; words++) {
            struct pollfd p = {.fd = r->control, .events = POLLIN};
            if (poll(&p, 1, 0) <= 0) break;
            from_control(r);
        }
        if (r->control >= 0) close(r->control);
        r->control = -1;
    }
    forget_waiting(r);
    if (r->ending) return;
    if (!r->upgraded) complain("weir-supervise: control ended (%s %d): a new one starts\n", WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    bool lived = now_ms() - r->control_started_ms > CONTROL_LIVED_MS;
    r->control_failures = lived ? 0 : r->control_failures + 1;
    r->control_due_ms = now_ms() + (r->control_failures ? 100 << (r->control_failures < 6 ? r->control_failures : 6) : 0);
    if (r->kept >= 0 || r->control_failures < START_TRIES) return;
    complain("weir-supervise: control cannot start\n");
    begin_end(r, 1, GATEWAY_END_MS);
}

static void reap(struct root *r)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0) return;
        if (pid == r->control_pid) {
            control_ended(r, status);
            continue;
        }
        struct gateway *g = find_gateway(r, pid);
        if (g) {
            close(g->channel);
            *g = r->gateways[--r->gateway_count];
            tell(r, (struct root_msg){.kind = ROOT_GATEWAY_DOWN, .pid = pid, .code = status}, -1);
            continue;
        }
        for (size_t i = 0; i < r->unit_count; i++) {
            if (r->units[i]->keeper != pid) continue;
            for (int words = 0; r->units[i]->channel >= 0 && words < 16; words++) from_keeper(r, r->units[i]);
            if (WIFSIGNALED(status)) r->units[i]->status = status; /* it could not clean up: what it kept came to us (kill_strays) */
            drop_unit(r, i);
            break;
        }
    }
}

/* Children that are none of ours by name: orphans of a killed keeper. */
static void kill_strays(struct root *r)
{
    char path[64];
    int pid;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%d", &pid) == 1) {
        bool known = pid == r->control_pid || pid <= 0 || find_gateway(r, pid);
        for (size_t i = 0; i < r->unit_count && !known; i++) known = r->units[i]->keeper == pid;
        if (!known) kill(pid, SIGKILL);
    }
    if (f) fclose(f);
}

static void on_signals(struct root *r)
{
    struct signalfd_siginfo si;
    while (read(r->signals, &si, sizeof si) == (ssize_t)sizeof si) {
        switch (si.ssi_signo) {
        case SIGCHLD:
            reap(r);
            kill_strays(r);
            break;
        case SIGHUP: read_again(r, 1); break;
        case SIGUSR1: tell(r, (struct root_msg){.kind = ROOT_REOPEN}, -1); break;
        case SIGUSR2: break;
        default:
            if (r->interrupts++) { /* asked again: at once */
                for (size_t i = 0; i < r->unit_count; i++) end_unit(r->units[i], 0, 0);
                r->end_at_ms = 0;
                r->keepers_at_ms = now_ms() + 500;
            }
            begin_end(r, 0, si.ssi_signo == SIGINT ? GATEWAY_END_MS : SERVICE_END_MS);
        }
    }
}

/* Control has to answer within two beats, and two seconds, or is replaced. The service manager hears of us as long as that may
 * still help. `unread`: something of control has not been read yet. */
static void beat(struct root *r, bool unread)
{
    int64_t each = systemd_beat_ms();
    unsigned enough = each < 1000 ? (unsigned)(2000 / each) : 2;
    if (now_ms() < r->beat_at_ms || r->ending) return;
    r->beat_at_ms = now_ms() + each; /* not the time that we were stopped ourselves: nobody could answer then */
    if (r->answered || unread) r->silent = 0;
    else r->silent++;
    r->answered = false;
    if (r->silent < 2 * enough) systemd_alive();
    if (r->silent && r->silent % enough == 0 && r->control_pid > 0) {
        complain("weir-supervise: control does not answer: it is killed\n");
        kill(r->control_pid, SIGKILL);
    } else if (r->control_pid > 0) {
        tell(r, (struct root_msg){.kind = ROOT_PING}, -1);
    }
}

static int next_wait(const struct root *r)
{
    if (r->ending) return 20;
    int64_t at = r->beat_at_ms, soon = now_ms() + AGAIN_MS;
    if (r->control_pid <= 0 && r->control_due_ms < at) at = r->control_due_ms;
    if (r->manager_behind && soon < at) at = soon;
    int64_t left = at - now_ms();
    return left < 0 ? 0 : (int)left;
}

static void turn(struct root *r)
{
    static struct pollfd p[ROOT_UNITS_MAX + 2];
    static struct unit *of[ROOT_UNITS_MAX + 2];
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = r->signals, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = r->control, .events = (short)(POLLIN | (r->first_waiting ? POLLOUT : 0))};
    for (size_t i = 0; i < r->unit_count; i++) {
        of[n] = r->units[i];
        p[n++] = (struct pollfd){.fd = r->units[i]->channel, .events = POLLIN};
    }
    if (poll(p, n, next_wait(r)) < 0 && errno != EINTR) _exit(1);
    for (nfds_t i = 2; i < n; i++)
        if (p[i].revents) from_keeper(r, of[i]);
    if (p[1].revents & POLLOUT && r->control >= 0) tell_waiting(r);
    if (p[1].revents & ~POLLOUT && r->control >= 0) from_control(r);
    if (p[0].revents) on_signals(r);
    if (r->control_pid == 0 && !r->ending && now_ms() >= r->control_due_ms) {
        start_control(r);
        for (size_t i = 0; i < r->gateway_count && r->control >= 0; i++) relink(r, &r->gateways[i]);
    }
    beat(r, p[1].revents & POLLIN);
    r->manager_behind = systemd_again(r->listeners, r->listener_count);
    push_end(r);
}

/* ---- start ---- */

static bool find_users(struct root *r, const char *control_user, const char *gateway_user)
{
    if (!r->is_root) {
        r->gateway_gid = getegid();
        r->control_who = r->gateway_who = (struct identity){.uid = geteuid(), .gid = getegid()};
        return true;
    }
    const char *missing = identity_of(control_user, "", &r->control_who) ? control_user : identity_of(gateway_user, "", &r->gateway_who) ? gateway_user : NULL;
    if (missing) {
        fprintf(stderr, "weir: there is no user %s: create it with: useradd --system --no-create-home --shell /usr/sbin/nologin %s\n", missing, missing);
        return false;
    }
    if (!container_rights(&r->control_who, &r->gateway_who)) return false;
    r->gateway_gid = r->gateway_who.gid;
    r->control_who.gid = r->gateway_gid; /* control proves readiness by connecting as the gateway would */
    return true;
}

/* This is the new program: control follows by itself, when it has heard. */
static void upgraded(struct root *r, bool fine)
{
    struct root_msg m = {.kind = ROOT_UPGRADED, .code = fine ? 0 : EPROTO};
    snprintf(m.text, sizeof m.text, "go on in the new version");
    r->upgraded = fine;
    tell(r, m, -1);
    reap(r); /* whose end came in between */
}

static int usage(void)
{
    fputs("weir-supervise is started by `weir serve` and `weir supervise`.\n", stderr);
    return 2;
}

static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGQUIT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
    sigprocmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    static struct root r = {.control = -1};
    const char *control_user = "weir", *gateway_user = "weir-gw";
    static char *none[] = {NULL};
    sigset_t set;
    r.control_args = none;
    int resume = -1, back = -1;
    bool returned = false; /* from a new version that could not go on */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--weir") == 0 && i + 1 < argc) r.weir = argv[++i];
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) r.config = argv[++i];
        else if (strcmp(argv[i], "--user") == 0 && i + 1 < argc) control_user = argv[++i];
        else if (strcmp(argv[i], "--gateway-user") == 0 && i + 1 < argc) gateway_user = argv[++i];
        else if (strcmp(argv[i], "--resume") == 0 && i + 1 < argc) resume = atoi(argv[++i]);
        else if (strcmp(argv[i], "--back") == 0 && i + 1 < argc) back = atoi(argv[++i]);
        else if (strcmp(argv[i], "--self") == 0 && i + 1 < argc) snprintf(r.self, sizeof r.self, "%s", argv[++i]);
        else if (strcmp(argv[i], "--returned") == 0) returned = true;
        else if (strcmp(argv[i], "--understands") == 0 && i + 1 < argc) return upgrade_check(atoi(argv[++i])) ? 0 : 1;
        else if (strcmp(argv[i], "--") == 0) {
            r.control_args = argv + i + 1;
            break;
        } else return usage();
    }
    if (!r.weir || r.weir[0] != '/') return usage();
    systemd_begin();
    block_signals(&set);
    if (!container_begin(&set)) return 1;
    r.listener_count = systemd_take(r.listeners, ROOT_LISTENERS_MAX);
    r.is_root = geteuid() == 0;
    r.argv = argv;
    r.last_waiting = &r.first_waiting;
    r.control_socket = r.kept = r.kept_orders = r.base = r.lock = -1;
    if (!r.self[0] && readlink("/proc/self/exe", r.self, sizeof r.self - 1) == (ssize_t)sizeof r.self - 1) r.self[0] = 0; /* a longer one */
    if (resume < 0 && !container_proc()) return 1;
    if (resume >= 0 && !upgrade_resume(&r, resume)) {
        upgrade_back(&r, resume, back);
        return 1;
    }
    if (back >= 0) close(back);
    if (resume < 0 && !find_users(&r, control_user, gateway_user)) return 1;
    if (resume < 0 && !run_dir_make(&r)) {
        fprintf(stderr, "weir: cannot make the folder %s: %s: it has to be on a file system that can be written%s\n", r.dir, strerror(errno),
                r.is_root ? " (in a read-only container, mount a tmpfs on /run)" : "; XDG_RUNTIME_DIR names another place than /tmp");
        return 1;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    r.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (r.signals < 0) return 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* three for each unit; apps get their own limit */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    r.beat_at_ms = now_ms() + systemd_beat_ms();
    if (resume >= 0) upgraded(&r, !returned);
    else start_control(&r);
    while (!r.ending || r.unit_count || r.control_pid > 0 || r.gateway_count) turn(&r);
    kill_descendants(SIGKILL, 100);
    if (r.control_socket >= 0) unlink(WEIR_CONTROL_SOCKET);
    for (size_t i = 0; i < r.listener_count;) { /* others may be the service manager's, too: they go with us, or stay */
        if (unix_path(r.listeners[i].address, r.listeners[i].len)) end_listener(&r, &r.listeners[i]);
        else i++;
    }
    run_dir_remove(&r);
    return r.exit_code;
}

/* SPDX-License-Identifier: MIT */
/* control's loop: what the root part, the gateway and people say, and what follows from it. */
#include "control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/internal.h"
#include "loop/loop.h"

int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void say(const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "weir: %s\n", line);
}

static volatile sig_atomic_t terminated;

/* ---- watches ---- */

int watch_add(struct control *c, struct watch *w, enum watch_kind kind, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = w};
    w->kind = kind;
    w->fd = fd;
    w->dead = false;
    weir_list_init(&w->link);
    if (kind == WATCH_OUTPUT || kind == WATCH_PROBE || kind == WATCH_CLIENT) weir_list_push_back(&c->heap, &w->link);
    if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &ev) == 0) return WEIR_OK;
    weir_list_remove(&w->link);
    close(fd);
    w->fd = -1;
    return WEIR_SYSTEM;
}

void watch_end(struct control *c, struct watch *w, bool free_it)
{
    if (w->fd >= 0) {
        epoll_ctl(c->epoll, EPOLL_CTL_DEL, w->fd, NULL);
        close(w->fd);
        w->fd = -1;
    }
    if (!free_it || w->dead) return;
    weir_list_remove(&w->link);
    w->dead = true; /* events of this turn may still name it */
    w->next_dead = c->dead;
    c->dead = w;
}

static void bury(struct control *c)
{
    while (c->dead) {
        struct watch *w = c->dead;
        c->dead = w->next_dead;
        free(w); /* it is the first member of its owner */
    }
}

/* ---- to the root part ---- */

void root_send(struct control *c, struct root_msg *m, const int *fds, size_t count)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * 4)];
    } ctl;
    struct iovec v = {m, sizeof *m};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
    m->version = ROOT_PROTO_VERSION;
    if (count) {
        memset(&ctl, 0, sizeof ctl);
        h.msg_control = ctl.room;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        CMSG_FIRSTHDR(&h)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&h)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&h)->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), fds, sizeof(int) * count);
    }
    ssize_t n;
    do {
        n = sendmsg(c->root.fd, &h, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EPIPE) terminated = 1; /* the root part is gone */
}

/* ---- configuration ---- */

static void warn_walls(const struct control *c)
{
    if (c->o.privileged) return;
    say("not root: everything runs as one user, without walls between the parts and the apps");
}

/* Users are settled when the root part starts. */
static void check_users(const struct control *c, const struct weir_config *conf)
{
    const struct passwd *pw = c->o.privileged ? getpwuid(geteuid()) : NULL;
    if (pw && !c->o.dir && strcmp(pw->pw_name, conf->user) != 0)
        say("control runs as %s, the configuration says %s: it holds from the next start on", pw->pw_name, conf->user);
}

static void text_of(const struct weir_config_report *r, char *why, size_t len)
{
    FILE *f = fmemopen(why, len, "w");
    if (!f) return;
    weir_config_report_print(r, f);
    fclose(f);
}

static const char *dir_user(const struct control *c, char *out, size_t len)
{
    struct stat st;
    if (!c->o.privileged || stat(c->o.dir, &st) < 0) return NULL;
    struct passwd *pw = st.st_uid ? getpwuid(st.st_uid) : NULL;
    snprintf(out, len, "%s", pw ? pw->pw_name : "weir-demo");
    return out;
}

/* Reads, checks and, if all is well, takes the configuration. fd: opened by the root part; -1: by its name. */
bool control_reload(struct control *c, int fd, char *why, size_t len)
{
    struct weir_config_report report;
    struct weir_config_sources src = {0};
    struct weir_config *conf = NULL;
    char user[64];
    int status;
    weir_config_report_init(&report);
    if (c->o.dir) status = weir_config_for_dir(c->o.dir, c->o.listen, dir_user(c, user, sizeof user), &src, &report);
    else if (fd >= 0) status = weir_config_read_fd(fd, c->o.config_path, &src, &report);
    else status = weir_config_read(c->o.config_path, &src, &report);
    if (status == WEIR_OK) status = weir_config_parse(&src, &conf, &report);
    if (conf) weir_config_check_machine(conf, c->o.privileged, &report);
    bool fine = conf && report.errors == 0 && report.later == 0;
    if (why) text_of(&report, why, len);
    if (!why || fine) weir_config_report_print(&report, stderr);
    if (fine && c->o.no_sites) conf->site_count = conf->listener_count = 0;
    if (fine) {
        struct weir_buf packed = {0};
        int memfd = weir_config_pack(&src, &packed) == WEIR_OK ? weir_link_memfd("weir-config", weir_buf_ptr(&packed), weir_buf_len(&packed)) : -1;
        weir_buf_fini(&packed);
        fine = memfd >= 0;
        if (fine) {
            if (c->config_memfd >= 0) close(c->config_memfd);
            c->config_memfd = memfd;
            weir_config_sources_free(&c->sources);
            c->sources = src;
            src = (struct weir_config_sources){0};
            struct weir_config *old = c->conf;
            c->conf = conf;
            conf = NULL;
            c->config_version++;
            check_users(c, c->conf);
            pools_plan(c);
            weir_config_drop(old);
            for (size_t i = 0; i < c->listener_count; i++) c->listeners[i].wanted = false;
        }
    }
    weir_config_drop(conf);
    weir_config_sources_free(&src);
    weir_config_report_fini(&report);
    return fine;
}

/* ---- listeners ---- */

static struct listener_fd *listener_for(struct control *c, const struct weir_conf_listener *l)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (strcmp(c->listeners[i].socket, l->address.socket) == 0) return &c->listeners[i];
    if (c->listener_count == WEIR_COUNT(c->listeners)) return NULL;
    struct listener_fd *f = &c->listeners[c->listener_count++];
    *f = (struct listener_fd){.fd = -1, .id = ++c->next_listener};
    snprintf(f->socket, sizeof f->socket, "%s", l->address.socket);
    return f;
}

static bool address_of(const struct listener_fd *f, struct root_msg *m)
{
    struct sockaddr_storage at;
    if (weir_address_parse(weir_cstr(f->socket), &at, &m->address_len) < 0) return false;
    memcpy(m->address, &at, sizeof m->address < sizeof at ? sizeof m->address : sizeof at);
    return true;
}

/* The gateway uses the new configuration: what that does not name is closed. */
static void drop_listeners(struct control *c)
{
    for (size_t i = 0; i < c->listener_count;) {
        struct listener_fd *f = &c->listeners[i];
        struct root_msg m = {.kind = ROOT_UNLISTEN};
        if (f->wanted || !f->answered) {
            i++;
            continue;
        }
        if (f->fd >= 0) {
            close(f->fd);
            if (address_of(f, &m)) root_send(c, &m, NULL, 0);
        }
        *f = c->listeners[--c->listener_count];
    }
}

static void ask_listeners(struct control *c)
{
    for (size_t i = 0; i < c->conf->listener_count; i++) {
        struct listener_fd *f = listener_for(c, &c->conf->listeners[i]);
        struct root_msg m = {.kind = ROOT_LISTEN};
        if (!f) continue;
        f->wanted = true;
        if (f->asked) continue;
        f->asked = true;
        if (!address_of(f, &m)) {
            f->answered = true;
            f->code = EINVAL;
            continue;
        }
        m.unit = f->id;
        root_send(c, &m, NULL, 0);
    }
}

static void on_listening(struct control *c, const struct root_msg *m, int fd)
{
    for (size_t i = 0; i < c->listener_count; i++) {
        struct listener_fd *f = &c->listeners[i];
        if (f->id != m->unit) continue;
        f->answered = true;
        f->fd = fd;
        f->code = m->code;
        if (fd < 0) f->asked = false; /* a reload tries again */
        return;
    }
    if (fd >= 0) close(fd);
}

/* All that the configuration names are open: 1; not yet: 0; one cannot be: -1, said why. */
static int listeners_open(struct control *c)
{
    for (size_t i = 0; i < c->conf->listener_count; i++) {
        const struct weir_conf_listener *l = &c->conf->listeners[i];
        struct listener_fd *f = listener_for(c, l);
        if (!f || !f->answered) return f ? 0 : -1;
        if (f->fd >= 0) continue;
        say("%s:%u:%u: cannot listen on %s: %s", l->place.file, l->place.line, l->place.column, l->address.text,
            f->code == EADDRINUSE ? "the port is in use: stop the other program, or choose another port"
            : f->code == EACCES   ? "only root may use this port: choose one above 1023"
                                  : strerror(f->code));
        return -1;
    }
    return 1;
}

/* ---- gateway ---- */

static void send_config(struct control *c)
{
    struct weir_link_message m = {.type = WEIR_LINK_CONFIG, .version = c->config_version};
    int fds[WEIR_LINK_FDS_MAX];
    size_t n = 0;
    if (c->link.fd < 0 || c->config_sent == c->config_version || listeners_open(c) != 1) return;
    fds[n++] = c->config_memfd;
    for (size_t i = 0; i < c->conf->listener_count && n < WEIR_COUNT(fds); i++) fds[n++] = listener_for(c, &c->conf->listeners[i])->fd;
    if (weir_link_send(c->link.fd, &m, fds, n) == WEIR_OK) c->config_sent = c->config_version;
}

static void lose_link(struct control *c)
{
    watch_end(c, &c->link, false);
    c->gateway_ready = false;
    c->config_sent = 0;
    pools_forget_gateway(c);
}

static void from_gateway(struct control *c)
{
    struct weir_arena a;
    weir_arena_init(&a, 4u << 20);
    for (;;) {
        struct weir_link_message m;
        int fds[WEIR_LINK_FDS_MAX];
        size_t count;
        int status = weir_link_receive(c->link.fd, &a, &m, fds, &count);
        if (status == WEIR_AGAIN) break;
        if (status < 0) {
            lose_link(c);
            break;
        }
        while (count) close(fds[--count]); /* a gateway has none to give */
        if (m.type == WEIR_LINK_READY) {
            if (m.text[0]) say("gateway: %s", m.text);
            c->gateway_ready = true;
            c->gateway_failures = 0;
            c->endpoint_sum = 0;
            if (!m.text[0] && m.version == c->config_version) drop_listeners(c);
        } else if (m.type == WEIR_LINK_STATE) {
            pools_use(c, &m);
        }
        weir_arena_reset(&a);
    }
    weir_arena_fini(&a);
}

static void on_gateway_up(struct control *c, const struct root_msg *m, int fd)
{
    c->gateway_pid = m->pid;
    c->gateway_up = true;
    if (c->link.fd >= 0) watch_end(c, &c->link, false);
    c->config_sent = 0;
    c->gateway_ready = false;
    if (fd >= 0 && watch_add(c, &c->link, WATCH_LINK, fd) < 0) c->link.fd = -1;
}

static void on_gateway_down(struct control *c, const struct root_msg *m)
{
    bool meant = c->gateway_restarting;
    if (c->link.fd >= 0) lose_link(c);
    c->gateway_pid = 0;
    c->gateway_up = c->gateway_restarting = false;
    c->gateway_kill_ms = 0;
    pools_forget_gateway(c);
    if (c->ending) return;
    c->gateway_restarts++;
    if (!meant) {
        say("the gateway ended (wait status %d): a new one starts", m->code);
        c->gateway_failures++;
    }
    unsigned n = c->gateway_failures > 1 ? c->gateway_failures - 1 : 0;
    c->gateway_due_ms = now_ms() + (n ? (int64_t)100 << (n < 6 ? n : 6) : 0);
}

void gateway_restart(struct control *c)
{
    struct weir_link_message m = {.type = WEIR_LINK_DRAIN, .drain_ms = GATEWAY_DRAIN_MS};
    if (c->gateway_restarting || !c->gateway_pid) return;
    c->gateway_restarting = true;
    c->gateway_kill_ms = now_ms() + GATEWAY_DRAIN_MS + 100;
    if (c->link.fd < 0 || weir_link_send(c->link.fd, &m, NULL, 0) < 0) c->gateway_kill_ms = now_ms();
}

static void gateway_turn(struct control *c)
{
    if (c->conf->site_count == 0 || c->ending) return;
    int open = listeners_open(c);
    if (open < 0 && !c->announced) { /* nothing ran yet: there is nothing to keep */
        c->ending = true;
        root_send(c, &(struct root_msg){.kind = ROOT_STOP, .code = 1}, NULL, 0);
        return;
    }
    if (open != 1) return;
    if (!c->gateway_pid && !c->gateway_up && now_ms() >= c->gateway_due_ms) {
        c->gateway_up = true;
        root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY}, NULL, 0);
    }
    if (c->gateway_kill_ms && now_ms() >= c->gateway_kill_ms) {
        c->gateway_kill_ms = 0;
        root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY_KILL}, NULL, 0);
    }
    send_config(c);
}

/* ---- what the terminal says when all is up ---- */

static void announce(struct control *c)
{
    bool web = c->conf->site_count > 0;
    if (c->announced || (web && !c->gateway_ready) || !pools_all_ready(c)) return;
    c->announced = true;
    for (const struct pool *p = c->pools; p; p = p->next)
        for (const struct unit *u = p->units; u; u = u->next)
            say("pool %s: process %d %s%s%s", p->name, (int)u->pid, unit_state_name(u->state), p->conf && p->conf->user ? " as " : "",
                p->conf && p->conf->user && c->o.privileged ? p->conf->user : "");
    for (size_t i = 0; i < c->conf->listener_count; i++) {
        const char *s = c->conf->listeners[i].address.text;
        char host[256] = "localhost";
        if (strncmp(s, "http://*", 8) == 0) say("serving http://%s%s", host, s + 8);
        else say("serving %s", s);
    }
    if (c->control_path[0]) say("weir status, reload, restart: by %s", c->control_path);
    say("ready. Ctrl-C ends everything");
}

/* ---- from the root part ---- */

static void first_config(struct control *c, const struct root_msg *m, int fd)
{
    c->adopting = m->code;
    if (!m->code) warn_walls(c);
    if (!control_reload(c, fd, NULL, 0)) {
        c->ending = true;
        root_send(c, &(struct root_msg){.kind = ROOT_STOP, .code = 1}, NULL, 0);
    } else if (command_listen(c) < 0) {
        say("out of descriptors: there is no control socket");
    }
    if (fd >= 0) close(fd);
}

static void on_root_failed(struct control *c, const struct root_msg *m)
{
    if (m->unit) {
        pools_root(c, m);
        return;
    }
    say("the gateway cannot start: %s: %s", m->text, strerror(m->code));
    c->gateway_up = false;
    c->gateway_due_ms = now_ms() + 1000;
}

static void from_root(struct control *c)
{
    struct root_msg m;
    int fd = -1;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } ctl;
    struct iovec v = {&m, sizeof m};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.room, .msg_controllen = sizeof ctl.room};
    ssize_t n = recvmsg(c->root.fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n != (ssize_t)sizeof m || m.version != ROOT_PROTO_VERSION) { /* the root part is gone */
        terminated = 1;
        return;
    }
    struct cmsghdr *k = CMSG_FIRSTHDR(&h);
    if (k && k->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(k), sizeof fd);
    m.text[sizeof m.text - 1] = 0;
    m.tag[sizeof m.tag - 1] = 0;
    switch (m.kind) {
    case ROOT_HELLO: first_config(c, &m, fd); return;
    case ROOT_LISTENING: on_listening(c, &m, fd); return;
    case ROOT_UNIT:
        if (c->adopting) c->adopting--;
        if (c->conf) pools_adopt(c, &m, fd);
        else if (fd >= 0) close(fd);
        return;
    case ROOT_GATEWAY_UP: on_gateway_up(c, &m, fd); return;
    case ROOT_GATEWAY_DOWN: on_gateway_down(c, &m); break;
    case ROOT_STARTED:
    case ROOT_EXITED: pools_root(c, &m); break;
    case ROOT_FAILED: on_root_failed(c, &m); break;
    case ROOT_READ_AGAIN: {
        char why[4096];
        bool fine = control_reload(c, fd, why, sizeof why);
        if (!fine) fputs(why, stderr);
        say("%s", fine ? "the configuration was read again" : "the old configuration stays in use");
        break;
    }
    case ROOT_ENDING: c->ending = true; break;
    default: break;
    }
    if (fd >= 0) close(fd);
}

/* ---- the loop ---- */

static void dispatch(struct control *c, struct watch *w)
{
    if (w->dead || w->fd < 0) return;
    switch (w->kind) {
    case WATCH_ROOT: from_root(c); break;
    case WATCH_LINK: from_gateway(c); break;
    case WATCH_OUTPUT: output_event(c, (struct output *)(void *)w); break;
    case WATCH_PROBE: probe_event(c, (struct probe *)(void *)w); break;
    case WATCH_LISTEN: command_accept(c); break;
    case WATCH_CLIENT: command_event(c, (struct client *)(void *)w); break;
    }
}

static int next_ms(const struct control *c)
{
    int64_t wait = c->conf && !c->ending ? pools_next_ms(c) : -1, now = now_ms();
    if (c->gateway_kill_ms && (wait < 0 || c->gateway_kill_ms - now < wait)) wait = c->gateway_kill_ms > now ? c->gateway_kill_ms - now : 0;
    if (c->conf && c->conf->site_count && !c->gateway_pid && !c->ending && !c->gateway_up) {
        int64_t due = c->gateway_due_ms > now ? c->gateway_due_ms - now : 50;
        if (wait < 0 || due < wait) wait = due;
    }
    return wait < 0 ? -1 : wait > 60000 ? 60000 : (int)wait;
}

static void on_term(int sig)
{
    (void)sig;
    terminated = 1;
}

/* Gives all back, so that a leak would be seen. */
static void finish(struct control *c)
{
    while (!weir_list_empty(&c->heap)) {
        struct watch *w = WEIR_CONTAINER(c->heap.next, struct watch, link);
        if (w->kind == WATCH_OUTPUT) weir_buf_fini(&((struct output *)(void *)w)->line);
        if (w->kind == WATCH_CLIENT) weir_buf_fini(&((struct client *)(void *)w)->in);
        if (w->kind == WATCH_PROBE) weir_wire_server_free(((struct probe *)(void *)w)->wire);
        watch_end(c, w, true);
    }
    bury(c);
    pools_free(c);
    weir_config_drop(c->conf);
    weir_config_sources_free(&c->sources);
}

int weir_control_run(const struct weir_control_options *o)
{
    static struct control c;
    struct sigaction sa = {.sa_handler = on_term};
    c.o = *o;
    weir_list_init(&c.heap);
    c.config_memfd = c.link.fd = c.listen.fd = -1;
    c.next_unit = 1;
    c.started_ms = now_ms();
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &sa, NULL);
    c.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c.epoll < 0 || watch_add(&c, &c.root, WATCH_ROOT, o->root_fd) < 0) return 1;
    while (!terminated) {
        struct epoll_event ev[64];
        int n = epoll_wait(c.epoll, ev, 64, next_ms(&c));
        for (int i = 0; i < n; i++) dispatch(&c, ev[i].data.ptr);
        bury(&c);
        if (!c.conf || c.ending || c.adopting) continue;
        ask_listeners(&c);
        pools_turn(&c);
        gateway_turn(&c);
        announce(&c);
    }
    if (c.control_path[0]) unlink(c.control_path);
    finish(&c);
    return 0;
}

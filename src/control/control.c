/* SPDX-License-Identifier: MIT */
/* control's loop: what the root part, gateways and people say, and what follows from it. */
#include "control/control.h"

#include <errno.h>
#include <fcntl.h>
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
#include "weir/weir.h"

#define READY_MS 60000 /* pools that take longer to be ready do not keep the service manager waiting */

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
    char out[sizeof line * 4 + 2];
    size_t n = strlen(line), at = weir_text_escape(out, sizeof out - 1, line, n);
    out[at] = 0;
    fprintf(output_stream(), "weir: %s\n", out);
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

/* 0, or an errno. */
static int send_order(struct control *c, struct root_msg *m, const int *fds, size_t count)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * ROOT_FDS_MAX)];
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
        n = sendmsg(c->root.fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return 0;
    if (errno == EPIPE || errno == ECONNRESET) terminated = 1; /* the root part is gone */
    return errno;
}

static void watch_root(struct control *c, bool writable)
{
    struct epoll_event ev = {.events = EPOLLIN | (writable ? (uint32_t)EPOLLOUT : 0u), .data.ptr = &c->root};
    epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->root.fd, &ev);
}

/* Orders that the root part has not taken yet, in order: it never waits for us, nor we for it. */
struct order {
    struct order *next;
    struct root_msg m;
    int fds[ROOT_FDS_MAX];
    size_t count;
};

void root_send(struct control *c, struct root_msg *m, const int *fds, size_t count)
{
    int bad = c->first_order ? EAGAIN : send_order(c, m, fds, count);
    if (bad != EAGAIN && bad != ENOBUFS) return;
    struct order *o = calloc(1, sizeof *o);
    if (!o) abort(); /* an order cannot be lost; the root part starts us again and tells what runs */
    o->m = *m;
    for (; o->count < count; o->count++) o->fds[o->count] = fcntl(fds[o->count], F_DUPFD_CLOEXEC, 3);
    struct order **at = &c->first_order;
    while (*at) at = &(*at)->next;
    *at = o;
    watch_root(c, true);
}

static void send_orders(struct control *c)
{
    while (c->first_order) {
        struct order *o = c->first_order;
        int bad = send_order(c, &o->m, o->fds, o->count);
        if (bad == EAGAIN || bad == ENOBUFS) return;
        c->first_order = o->next;
        weir_link_close(o->fds, o->count);
        free(o);
    }
    watch_root(c, false);
}

/* Log files were moved away: new ones are opened, here and in the gateways. */
void logs_reopen(struct control *c)
{
    output_reopen();
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) c->gateways[i].reopen = c->gateways[i].pid != 0;
}

/* ---- what the terminal, and the service manager, are told when all is up ---- */

void tell_ready(struct control *c, const char *trouble)
{
    struct root_msg m = {.kind = ROOT_READY};
    size_t pools = 0;
    if (!c->announced) return; /* the first time by announce() */
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) pools += WEIR_CONTAINER(l, struct pool, link)->conf != NULL;
    snprintf(m.text, sizeof m.text, "sites: %zu, pools: %zu%s", c->conf->site_count, pools, trouble);
    root_send(c, &m, NULL, 0);
}

static void announce(struct control *c)
{
    bool web = gateway_is_needed(c->conf);
    if (c->announced || (web && !(c->serving && c->serving->ready))) return;
    bool all = pools_all_ready(c);
    if (!all && now_ms() < c->started_ms + READY_MS) return; /* then the others serve all the same */
    if (!all) pools_say_missing(c);
    c->announced = true;
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        for (const struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
            const struct unit *u = WEIR_CONTAINER(k, struct unit, link);
            if (!u->pid) continue; /* its start was only asked for */
            say("pool %s: process %d %s%s%s", p->name, (int)u->pid, unit_state_name(u->state), p->conf && p->conf->user ? " as " : "",
                p->conf && p->conf->user && c->o.privileged ? p->conf->user : "");
        }
    }
    for (size_t i = 0; i < c->conf->listener_count; i++) {
        const char *s = c->conf->listeners[i].address.text, *any = strstr(s, "://*");
        if (any) say("serving %.*s://localhost%s", (int)(any - s), s, any + 4);
        else say("serving %s", s);
    }
    if (c->control_path[0]) say("orders, such as weir status: -s %s", c->control_path);
    say("ready. Ctrl-C ends everything");
    tell_ready(c, "");
}

/* ---- from the root part ---- */

static void on_hello(struct control *c, const struct root_msg *m, int fd)
{
    bool kept = m->flags & 2; /* what the last control used */
    c->adopting = m->code + (int)m->ms;
    c->replacing = m->flags & 4;
    c->announced = kept;
    if (kept) say("control goes on, version " WEIR_VERSION);
    if (!kept && !c->o.privileged) say("not root: everything runs as one user, without walls between the parts and the apps");
    reload_begin(c, fd, kept, false);
    if (fd >= 0) close(fd);
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
    case ROOT_HELLO: on_hello(c, &m, fd); return;
    case ROOT_LISTENING:
        if (m.unit) reload_listening(c, &m, fd);
        else command_socket(c, fd, m.code);
        return;
    case ROOT_UNIT:
        if (c->adopting) c->adopting--;
        units_adopt(c, &m, fd);
        return;
    case ROOT_UNIT_ERRORS:
        if (c->adopting) c->adopting--;
        units_adopt_errors(c, &m, fd);
        return;
    case ROOT_GATEWAY_UP:
        if (m.flags & 1 && c->adopting) c->adopting--;
        gateway_up(c, &m, fd);
        return;
    case ROOT_GATEWAY_DOWN: gateway_down(c, &m); break;
    case ROOT_STARTED:
    case ROOT_LOST:
    case ROOT_EXITED: units_root(c, &m); break;
    case ROOT_LOOKED: units_looked(c, &m); break;
    case ROOT_FAILED:
        if (m.unit) units_root(c, &m);
        else gateway_failed(c, &m);
        break;
    case ROOT_READ_AGAIN:
        if (!c->conf) { /* what was kept comes first: it is what stays in use if this one is of no use */
            c->read_later = true;
            break;
        }
        reload_begin(c, fd, false, m.flags & 1 || c->files.asked);
        c->files.asked = false;
        break;
    case ROOT_ENDING: c->ending = true; break;
    case ROOT_UPGRADED:
        command_upgraded(c, m.code, m.text);
        if (m.code == 0) terminated = 1; /* the root part is the new version: it starts ours */
        break;
    case ROOT_ORDERS:
        if (c->adopting) c->adopting--;
        orders_kept(c, fd);
        break;
    case ROOT_OPENED: keys_opened(c, &m, fd); return;
    case ROOT_REOPEN: logs_reopen(c); break;
    case ROOT_PING: root_send(c, &(struct root_msg){.kind = ROOT_PING}, NULL, 0); break;
    default: break;
    }
    if (fd >= 0) close(fd);
}

/* ---- the loop ---- */

static void dispatch(struct control *c, struct watch *w)
{
    if (w->dead || w->fd < 0) return;
    switch (w->kind) {
    case WATCH_ROOT:
        if (c->first_order) send_orders(c);
        from_root(c);
        break;
    case WATCH_LINK: gateway_event(c, WEIR_CONTAINER(w, struct gateway, link)); break;
    case WATCH_OUTPUT: output_event(c, (struct output *)(void *)w); break;
    case WATCH_PROBE: probe_event(c, (struct probe *)(void *)w); break;
    case WATCH_LISTEN: command_accept(c); break;
    case WATCH_NOTIFY: notify_event(c); break;
    case WATCH_FILES: files_event(c); break;
    case WATCH_CLIENT: command_event(c, (struct client *)(void *)w); break;
    }
}

static int next_ms(struct control *c)
{
    int64_t wait = c->conf && !c->ending ? pools_next_ms(c) : -1;
    int64_t due = c->conf && !c->ending ? gateways_next_ms(c) : -1;
    if (due >= 0 && (wait < 0 || due < wait)) wait = due;
    int64_t order = c->conf && !c->ending ? orders_next_ms(c) : -1, file = c->conf && !c->ending ? files_next_ms(c) : -1;
    if (order >= 0 && (wait < 0 || order < wait)) wait = order;
    if (file >= 0 && (wait < 0 || file < wait)) wait = file;
    if (c->conf && !c->announced && now_ms() < c->started_ms + READY_MS && (wait < 0 || wait > READY_MS)) wait = c->started_ms + READY_MS - now_ms();
    int64_t keys = c->conf && !c->ending ? keys_next_ms(c) : -1;
    if (keys >= 0 && (wait < 0 || keys < wait)) wait = keys;
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
    pools_free(c); /* with their probes */
    while (!weir_list_empty(&c->heap)) {
        struct watch *w = WEIR_CONTAINER(c->heap.next, struct watch, link);
        if (w->kind == WATCH_OUTPUT) weir_buf_fini(&((struct output *)(void *)w)->line);
        if (w->kind == WATCH_CLIENT) {
            weir_buf_fini(&((struct client *)(void *)w)->in);
            weir_buf_fini(&((struct client *)(void *)w)->out);
        }
        if (w->kind == WATCH_PROBE) {
            weir_wire_server_free(((struct probe *)(void *)w)->wire);
            weir_arena_fini(&((struct probe *)(void *)w)->arena);
        }
        watch_end(c, w, true);
    }
    bury(c);
    orders_free(c);
    keys_free(c);
    files_free(c);
    weir_config_drop(c->conf);
    weir_config_sources_free(&c->sources);
    weir_config_drop(c->next);
    weir_config_sources_free(&c->next_sources);
}

int weir_control_run(const struct weir_control_options *o)
{
    static struct control c;
    struct sigaction sa = {.sa_handler = on_term};
    sigset_t term, none;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    c.o = *o;
    weir_list_init(&c.heap);
    pools_init(&c);
    c.config_memfd = c.listen.fd = c.notify.fd = c.files.w.fd = -1;
    for (unsigned i = 0; i < WEIR_COUNT(c.gateways); i++) c.gateways[i] = (struct gateway){.place = i, .link.fd = -1};
    c.next_unit = 1;
    c.started_ms = now_ms();
    static const int ignored[] = {SIGPIPE, SIGHUP, SIGUSR1, SIGUSR2}; /* those are for the root part */
    for (size_t i = 0; i < WEIR_COUNT(ignored); i++) signal(ignored[i], SIG_IGN);
    sigaction(SIGTERM, &sa, NULL);
    sigprocmask(SIG_BLOCK, &term, NULL); /* it arrives only while epoll waits: never between a look at `terminated` and the wait */
    output_begin();
    c.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c.epoll < 0 || watch_add(&c, &c.root, WATCH_ROOT, o->root_fd) < 0) return 1;
    while (!terminated) {
        struct epoll_event ev[64];
        int n = epoll_pwait(c.epoll, ev, 64, next_ms(&c), &none);
        for (int i = 0; i < n; i++) dispatch(&c, ev[i].data.ptr);
        bury(&c);
        if (!c.conf || c.ending || c.adopting) continue;
        files_clock(&c);
        orders_clock(&c);
        keys_clock(&c);
        pools_turn(&c);
        gateways_turn(&c);
        announce(&c);
    }
    if (c.own_socket && c.control_path[0]) unlink(c.control_path);
    finish(&c);
    output_end();
    return 0;
}

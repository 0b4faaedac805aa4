/* SPDX-License-Identifier: MIT */
/* The app object: options, its turn, draining, signals. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/internal.h"

#define MAX_SIGNAL_APPS 16

/* ---- options ---- */

void weir_app_options_init_sized(struct weir_app_options *o, size_t size)
{
    memset(o, 0, size);
    o->size = size;
}

static int copy_options(struct weir_app_options *to, const struct weir_app_options *from)
{
    const unsigned char *tail = (const unsigned char *)from;
    size_t known = sizeof *to;
    if (from->size < offsetof(struct weir_app_options, max_conns)) return WEIR_INVALID;
    for (size_t i = known; i < from->size; i++) /* a newer program asks for what this library does not know */
        if (tail[i]) return WEIR_INVALID;
    memset(to, 0, sizeof *to);
    memcpy(to, from, from->size < known ? from->size : known);
    if ((to->threads > 0) != (to->handler != NULL) || to->threads > 4096) return WEIR_INVALID;
    if (!to->roles) to->roles = WEIR_APP_ROLE_RESPONDER;
    if (!to->max_conns) to->max_conns = 1000;
    if (!to->max_requests) to->max_requests = to->threads ? to->threads + 8 : 1000;
    if (!to->max_plain) to->max_plain = 16;
    if (!to->params_bytes) to->params_bytes = 1u << 20;
    if (!to->body_window) to->body_window = 65536;
    if (!to->output_buffer) to->output_buffer = 256u << 10;
    if (!to->drain_ms) to->drain_ms = 30000;
    return WEIR_OK;
}

/* ---- life ---- */

static int listen_start(struct weir_app *a)
{
    const char *how = getenv("WEIR_LISTEN");
    int listens = 0;
    socklen_t len = sizeof listens;
    if (a->o.listen_fd < 0) return WEIR_OK;
    if (getsockopt(a->o.listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0) { /* FC1-2.2-c, FC1-2.2-d */
        if (errno == ENOTSOCK && a->o.listen_fd == 0 && getenv("GATEWAY_INTERFACE")) return weir_app_bridge_start(a);
        return WEIR_SYSTEM;
    }
    if (!listens) {
        errno = EINVAL;
        return WEIR_SYSTEM;
    }
    a->private_listen = (a->o.flags & WEIR_APP_PRIVATE_LISTEN) || (how && strcmp(how, "private") == 0);
    if (!a->private_listen) return weir_app_acceptor_start(a);
    int flags = fcntl(a->o.listen_fd, F_GETFL);
    if (flags < 0 || fcntl(a->o.listen_fd, F_SETFL, flags | O_NONBLOCK) < 0) return WEIR_SYSTEM;
    int status = weir_loop_add(a->loop, a->o.listen_fd, (struct weir_ident){.kind = KIND_LISTEN}, true);
    a->listening = status == WEIR_OK;
    return status;
}

int weir_app_new_on(struct weir_app **out, const struct weir_app_options *o, struct weir_loop *loop)
{
    struct weir_app *a = calloc(1, sizeof *a);
    if (!a) return WEIR_NOMEM;
    int status = copy_options(&a->o, o);
    a->scratch = malloc(SCRATCH);
    if (status < 0 || !a->scratch) {
        free(a->scratch);
        free(a);
        return status < 0 ? status : WEIR_NOMEM;
    }
    a->loop = loop;
    struct weir_list *lists[] = {&a->reqs, &a->dirty, &a->events, &a->run_queue, &a->resume};
    for (size_t i = 0; i < WEIR_COUNT(lists); i++) weir_list_init(lists[i]);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->handed_lock, NULL);
    pthread_cond_init(&a->work, NULL);
    const char *addrs = a->o.server_addrs ? a->o.server_addrs : getenv("FCGI_WEB_SERVER_ADDRS"); /* FC1-3.2-b */
    if (addrs && *addrs && !(a->server_addrs = strdup(addrs))) { /* without the list everybody might connect */
        free(a->scratch);
        free(a);
        return WEIR_NOMEM;
    }
    a->accept_event = -1;
    a->posted_end = &a->posted;
    *out = a;
    return WEIR_OK;
}

int weir_app_new(struct weir_app **out, const struct weir_app_options *o)
{
    struct weir_loop *loop;
    struct weir_app *a;
    int status = weir_loop_epoll_new(&loop); /* FC1-2.2-e */
    if (status < 0) return status;
    status = weir_app_new_on(&a, o, loop);
    if (status < 0) {
        weir_loop_free(loop);
        return status;
    }
    a->own_loop = true;
    *out = a;
    return WEIR_OK;
}

/* ---- signals ---- */

static struct weir_app *_Atomic signal_apps[MAX_SIGNAL_APPS];

static void on_signal(int sig)
{
    int saved = errno;
    for (size_t i = 0; i < MAX_SIGNAL_APPS; i++) {
        struct weir_app *a = atomic_load(&signal_apps[i]);
        for (size_t k = 0; a && k < WEIR_COUNT(a->signals); k++)
            if (a->signals[k].number == sig) weir_app_drain(a);
    }
    errno = saved;
}

int weir_app_drain_on(struct weir_app *a, int sig)
{
    struct sigaction sa = {.sa_handler = on_signal}, former;
    size_t k = 0, i = 0;
    while (k < WEIR_COUNT(a->signals) && a->signals[k].number) k++;
    if (k == WEIR_COUNT(a->signals)) return WEIR_LIMIT;
    for (; i < MAX_SIGNAL_APPS; i++) {
        struct weir_app *none = NULL;
        if (atomic_load(&signal_apps[i]) == a || atomic_compare_exchange_strong(&signal_apps[i], &none, a)) break;
    }
    if (i == MAX_SIGNAL_APPS) return WEIR_LIMIT;
    a->signals[k].number = sig;
    if (sigaction(sig, &sa, &former) < 0) {
        a->signals[k].number = 0;
        return WEIR_SYSTEM;
    }
    a->signals[k].former = former;
    return WEIR_OK;
}

static void restore_signals(struct weir_app *a)
{
    for (size_t k = 0; k < WEIR_COUNT(a->signals); k++)
        if (a->signals[k].number) sigaction(a->signals[k].number, &a->signals[k].former, NULL);
    for (size_t i = 0; i < MAX_SIGNAL_APPS; i++) {
        struct weir_app *self = a;
        atomic_compare_exchange_strong(&signal_apps[i], &self, NULL);
    }
}

/* ---- work of other threads ---- */

struct posted {
    struct posted *next;
    void (*fn)(void *arg);
    void *arg;
};

int weir_app_post(struct weir_app *a, void (*fn)(void *arg), void *arg)
{
    struct posted *p = malloc(sizeof *p);
    if (!p) return WEIR_NOMEM;
    *p = (struct posted){.fn = fn, .arg = arg};
    pthread_mutex_lock(&a->handed_lock);
    *a->posted_end = p;
    a->posted_end = &p->next;
    pthread_mutex_unlock(&a->handed_lock);
    weir_loop_wake(a->loop);
    return WEIR_OK;
}

/* Not under the app's lock: they call in. What they post meanwhile is for the next time. */
static void run_posted(struct weir_app *a)
{
    pthread_mutex_lock(&a->handed_lock);
    struct posted *p = a->posted;
    a->posted = NULL;
    a->posted_end = &a->posted;
    pthread_mutex_unlock(&a->handed_lock);
    while (p) {
        struct posted *next = p->next;
        p->fn(p->arg);
        free(p);
        p = next;
    }
}

void weir_app_free(struct weir_app *a)
{
    if (!a) return;
    restore_signals(a);
    weir_app_acceptor_stop(a);
    weir_app_acceptor_take(a);
    app_lock(a); /* handlers may still run */
    for (uint32_t i = 0; i < a->conn_top; i++) weir_app_conn_close(a->conns[i]);
    app_unlock(a);
    weir_app_bridge_stop(a);
    if (threaded(a)) weir_app_threads_stop(a);
    run_posted(a);
    while (!weir_list_empty(&a->reqs)) weir_app_req_free(WEIR_CONTAINER(a->reqs.next, struct weir_app_req, all_link));
    while (a->free_reqs) {
        struct weir_app_req *r = a->free_reqs;
        a->free_reqs = r->next_free;
        weir_arena_fini(&r->arena);
        for (size_t i = 0; i < WEIR_COUNT(r->in); i++) weir_buf_fini(&r->in[i]);
        weir_buf_fini(&r->head);
        weir_buf_fini(&r->err);
        free(r);
    }
    for (uint32_t i = 0; i < a->conn_top; i++) free(a->conns[i]);
    if (a->listening) weir_loop_del(a->loop, a->o.listen_fd);
    if (a->own_loop) weir_loop_free(a->loop);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->handed_lock);
    pthread_cond_destroy(&a->work);
    free(a->conns);
    free(a->free_index);
    free(a->scratch);
    free(a->server_addrs);
    free(a);
}

int weir_app_adopt(struct weir_app *a, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (a->own_loop && (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) return WEIR_SYSTEM;
    app_lock(a);
    int status = weir_app_conn_adopt(a, fd);
    app_unlock(a);
    return status;
}

void weir_app_wake(struct weir_app *a)
{
    weir_loop_wake(a->loop);
}

void weir_app_drain(struct weir_app *a)
{
    atomic_store(&a->drain_asked, true);
    weir_loop_wake(a->loop);
}

/* ---- the turn ---- */

static void accept_some(struct weir_app *a, int most)
{
    for (int i = 0; i < most && a->listening; i++) {
        struct sockaddr_storage peer = {0};
        uint32_t len;
        int fd = weir_loop_accept(a->loop, a->o.listen_fd, &peer, &len); /* FC1-3.2-a */
        if (fd < 0) return;
        if (!weir_app_peer_allowed(a, &peer) || weir_app_conn_adopt(a, fd) < 0) weir_loop_close(a->loop, fd);
    }
}

#define FIRST_MS 500 /* for the first request of a connection that was accepted just before the end */

static void begin_drain(struct weir_app *a)
{
    a->drain_told = true;
    a->drain_until_ms = weir_loop_now_ms(a->loop) + a->o.drain_ms;
    if (a->listening) {
        accept_some(a, INT_MAX); /* what waits in a backlog of our own would be lost */
        weir_loop_del(a->loop, a->o.listen_fd);
        a->listening = false;
    }
    weir_app_acceptor_stop(a);
    weir_app_acceptor_take(a);
    for (uint32_t i = 0; i < a->conn_top; i++) {
        struct app_conn *k = a->conns[i];
        if (!k->in_use) continue;
        weir_wire_app_drain(k->wire);
        weir_app_conn_dirty(k);
    }
}

/* While it drains: connections without a request close, but for those that have not asked yet: a request may be on its way, and its
 * server could not know. An agreed one is the server's to close, who was told. */
static void push_drain(struct weir_app *a)
{
    uint64_t now = weir_loop_now_ms(a->loop);
    bool late = now >= a->drain_until_ms, first = now + a->o.drain_ms < a->drain_until_ms + FIRST_MS;
    for (uint32_t i = 0; i < a->conn_top; i++) {
        struct app_conn *k = a->conns[i];
        const void *out;
        if (!k->in_use) continue;
        bool quiet = weir_wire_app_idle(k->wire) && weir_wire_app_output(k->wire, &out) == 0;
        if (late || (quiet && !k->lingers && !weir_wire_app_agreed(k->wire) && !(k->fresh && first))) weir_app_conn_close(k);
    }
}

static void resume_reading(struct weir_app *a)
{
    struct weir_list now; /* what is added meanwhile is for the next turn */
    weir_list_init(&now);
    while (!weir_list_empty(&a->resume)) {
        struct weir_list *l = a->resume.next;
        weir_list_remove(l);
        weir_list_push_back(&now, l);
    }
    while (!weir_list_empty(&now)) {
        struct app_conn *k = WEIR_CONTAINER(now.next, struct app_conn, link);
        weir_list_remove(&k->link);
        weir_app_conn_read(k);
    }
}

static void dispatch(struct weir_app *a, const struct weir_event *ev)
{
    switch (ev->ident.kind) {
    case KIND_CONN: weir_app_conn_event(a, ev); break;
    case KIND_LISTEN: accept_some(a, 16); break;
    case KIND_IDLE: weir_app_conn_idle(a, ev); break;
    case KIND_DEADLINE: {
        struct weir_app_req *r = WEIR_CONTAINER(ev->ptr, struct weir_app_req, timer);
        if (!r->in_use || r->serial != ev->ident.index) break; /* of an older one in its place */
        r->ev_deadline = true;
        weir_app_req_post(r);
        break;
    }
    default: break;
    }
}

#define DRAIN_LOOK_MS 20 /* while it drains, connections are looked at so often */

int weir_app_fd(struct weir_app *a)
{
    return weir_loop_fd(a->loop);
}

int weir_app_wait_ms(const struct weir_app *a)
{
    uint64_t now = weir_loop_clock_us(a->loop) / 1000;
    if (!a->running || !weir_list_empty(&a->events) || !weir_list_empty(&a->resume)) return 0;
    int64_t ms = weir_wheel_next_ms(a->loop->wheel, now);
    if (a->drain_told && (ms < 0 || ms > DRAIN_LOOK_MS)) ms = DRAIN_LOOK_MS;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

int weir_app_step(struct weir_app *a, int wait_ms)
{
    struct weir_event ev[128];
    if (!a->running) { /* here, so that a fork before the first step is fine */
        a->running = true;
        int status = listen_start(a);
        if (status < 0) return status;
    }
    int64_t wait = wait_ms < 0 ? -1 : (int64_t)wait_ms * 1000;
    if (a->drain_told && (wait < 0 || wait > DRAIN_LOOK_MS * 1000)) wait = DRAIN_LOOK_MS * 1000;
    app_lock(a);
    bool work = !weir_list_empty(&a->events) || !weir_list_empty(&a->resume);
    app_unlock(a);
    int n = weir_loop_wait(a->loop, ev, (int)WEIR_COUNT(ev), work ? 0 : wait);
    app_lock(a);
    weir_app_acceptor_take(a);
    for (int i = 0; i < n; i++) dispatch(a, &ev[i]);
    resume_reading(a);
    if (atomic_load(&a->drain_asked) && !a->drain_told) begin_drain(a);
    if (a->drain_told) push_drain(a);
    weir_app_acceptor_room(a);
    app_unlock(a);
    run_posted(a);
    return WEIR_OK;
}

int weir_app_next(struct weir_app *a, struct weir_app_event *ev)
{
    while (!weir_list_empty(&a->events)) {
        struct weir_app_req *r = WEIR_CONTAINER(a->events.next, struct weir_app_req, event_link);
        if (weir_app_req_pop_event(r, ev)) return WEIR_OK;
        if (r->in_use && !weir_app_req_has_events(r)) weir_list_remove(&r->event_link);
    }
    if (a->drain_told && a->conn_count == 0 && a->req_count == 0 && !a->drained_told) {
        a->drained_told = true;
        *ev = (struct weir_app_event){.type = WEIR_APP_DRAINED}; /* FC1-7-a */
        return WEIR_OK;
    }
    return WEIR_AGAIN;
}

void weir_app_flush(struct weir_app *a)
{
    app_lock(a);
    while (!weir_list_empty(&a->dirty)) weir_app_conn_flush(WEIR_CONTAINER(a->dirty.next, struct app_conn, dirty_link));
    app_unlock(a);
}

int weir_app_run(struct weir_app *a)
{
    struct weir_app_event ev;
    if (!threaded(a)) return WEIR_INVALID;
    int status = weir_app_threads_start(a);
    while (status == WEIR_OK) {
        status = weir_app_step(a, -1);
        weir_app_flush(a);
        app_lock(a);
        bool drained = weir_app_next(a, &ev) == WEIR_OK && ev.type == WEIR_APP_DRAINED;
        app_unlock(a);
        if (drained) break;
    }
    return status;
}

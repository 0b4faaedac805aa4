/* SPDX-License-Identifier: MIT */
/* Connections of foreign web servers (nginx, HAProxy, Apache, another Weir) that call a published pool: who may connect, reading,
 * writing at the end of the turn, time. What a request means is front_req.c's. */
#include <stdlib.h>
#include <sys/socket.h>

#include "gateway/internal.h"

#define FRONT_PARAMS   (256u << 10) /* of one request; all incomplete ones of a connection: 4 x */
#define FRONT_PLAIN    100          /* requests at once on a connection without flow control: told as FCGI_MAX_REQS */
#define FRONT_REQUESTS 1000         /* and with it */
#define FRONT_OUT      (256u << 10) /* answers that wait for a web server's socket, in memory */
#define FRONT_CHOKED   (64u << 10)  /* beyond that: ends, credit, answers to management records; then nothing is read */
#define FRONT_READS    16           /* in a turn; then others have theirs */
#define TOLD_MS        1000

static struct weir_ident ident(const struct front *f)
{
    return (struct weir_ident){.kind = KIND_FRONT, .index = f->index, .epoch = f->epoch};
}

const struct weir_conf_listener *front_conf(const struct front *f)
{
    static const struct weir_conf_listener none = {.header_ms = 15000, .body_ms = 60000, .idle_ms = 1000, .send_ms = 60000};
    const struct listener *l = snapshot_listener(f->worker->snap, f->listener);
    return l && l->pool ? l->conf : &none;
}

static size_t waiting(const struct front *f)
{
    const void *p;
    return weir_wire_app_output(f->wire, &p);
}

size_t front_room(const struct front *f)
{
    size_t held = waiting(f);
    return held < FRONT_OUT ? FRONT_OUT - held : 0;
}

void front_dirty(struct front *f)
{
    if (f->in_use && weir_list_empty(&f->dirty_link)) weir_list_push_back(&f->worker->dirty_fronts, &f->dirty_link);
}

/* Nothing of this connection is read, for our own reasons: nobody on it is late. */
bool front_held_up(const struct front *f)
{
    return f->full > 0 || waiting(f) >= FRONT_OUT + FRONT_CHOKED;
}

/* ---- reading ---- */

static void wire_event(struct front *f, const struct weir_wire_event *ev)
{
    struct front_req *r = ev->user;
    switch (ev->type) {
    case WEIR_WIRE_EV_REQUEST: front_req_begins(f, ev); break;
    case WEIR_WIRE_EV_INPUT:
        if (r) front_req_input(r, ev->stream, ev->bytes);
        break;
    case WEIR_WIRE_EV_INPUT_END:
        if (r) front_req_input_ends(r, ev->stream);
        break;
    case WEIR_WIRE_EV_ROOM:
        if (r) front_req_go_on(r);
        break;
    case WEIR_WIRE_EV_ABORT:
        if (r) front_req_aborted(r);
        break;
    case WEIR_WIRE_EV_ERROR:
        log_error(f->worker, "a web server's connection ends: %s", ev->reason); /* FC1-7-d */
        f->broken = true;
        break;
    default: break;
    }
}

/* Time for the next request, or for the rest of its head; anew when the phase changes. (IOP-A8) */
static void set_phase(struct front *f)
{
    uint32_t active = weir_wire_app_active(f->wire);
    bool head = active > f->req_count || (active == 0 && !weir_wire_app_idle(f->wire));
    uint8_t phase = head ? FRONT_HEAD : active ? FRONT_BUSY : FRONT_IDLE;
    if (phase == f->phase && (f->due_ms || phase == FRONT_BUSY)) return;
    const struct weir_conf_listener *conf = front_conf(f);
    uint64_t now = weir_loop_now_ms(f->worker->loop);
    f->phase = phase;
    f->due_ms = phase == FRONT_BUSY ? 0 : now + (phase == FRONT_HEAD ? conf->header_ms : conf->idle_ms);
    if (f->due_ms && (!weir_timer_is_set(&f->timer) || f->due_ms < f->timer.due_ms)) weir_timer_set(f->worker->loop, &f->timer, ident(f), f->due_ms);
}

/* Reads what is there; false: the connection is gone. */
static bool read_some(struct front *f)
{
    struct worker *w = f->worker;
    struct weir_wire_event ev;
    for (int i = 0; i < FRONT_READS && f->readable && !front_held_up(f) && !f->broken; i++) {
        int64_t n = weir_loop_read(w->loop, f->fd, w->scratch, SCRATCH);
        if (n == WEIR_AGAIN) {
            f->readable = false;
            break;
        }
        if (n < 0) {
            front_close(f);
            return false;
        }
        if (n < SCRATCH && !f->peer_closed) f->readable = false;
        weir_wire_app_feed(f->wire, w->scratch, (size_t)n);
        while (weir_wire_app_next(f->wire, &ev) == WEIR_OK) wire_event(f, &ev);
    }
    set_phase(f);
    front_dirty(f); /* answers, credit, the rest of what is there */
    return true;
}

/* It was idle for too long. A request may be on its way on an agreed connection: its web server is told, and closes (FC 7.5). */
static void idle_ends(struct front *f, uint64_t now)
{
    if (!weir_wire_app_agreed(f->wire) || f->leaving) {
        front_close(f);
        return;
    }
    f->leaving = true;
    weir_wire_app_drain(f->wire);
    front_dirty(f);
    f->due_ms = now + front_conf(f)->idle_ms;
    weir_timer_set(f->worker->loop, &f->timer, ident(f), f->due_ms);
}

void front_event(struct worker *w, const struct weir_event *ev)
{
    if (ev->ident.index >= w->front_top) return;
    struct front *f = w->fronts[ev->ident.index];
    if (f->epoch != ev->ident.epoch || !f->in_use) return;
    uint64_t now = weir_loop_now_ms(w->loop);
    if (ev->ready & WEIR_READY_TIMER) {
        uint64_t next = f->due_ms && (!f->send_due_ms || f->due_ms < f->send_due_ms) ? f->due_ms : f->send_due_ms;
        bool late = next && next <= now && !(front_held_up(f) && next == f->due_ms);
        if (late && next == f->due_ms && f->phase == FRONT_IDLE) idle_ends(f, now);
        else if (late) front_close(f);
        else if (next) weir_timer_set(w->loop, &f->timer, ident(f), next > now ? next : now + front_conf(f)->header_ms);
        return;
    }
    if (ev->ready & WEIR_READY_WRITE) front_dirty(f);
    if (ev->ready & WEIR_READY_CLOSED) f->peer_closed = true;
    if (!(ev->ready & (WEIR_READY_READ | WEIR_READY_CLOSED))) return;
    f->readable = true;
    if (f->peer_closed && front_held_up(f)) front_close(f); /* what is not read yet has nobody who waits for it */
    else read_some(f);
}

/* ---- output ---- */

/* False: the connection is gone. */
static bool write_out(struct front *f)
{
    struct worker *w = f->worker;
    const void *p;
    size_t len, sent = 0;
    while ((len = weir_wire_app_output(f->wire, &p)) > 0) {
        struct iovec v = {(void *)(uintptr_t)p, len};
        int64_t n = weir_loop_writev(w->loop, f->fd, &v, 1, false);
        if (n == WEIR_AGAIN || n == 0) break;
        if (n < 0) {
            front_close(f);
            return false;
        }
        weir_wire_app_sent(f->wire, (size_t)n);
        sent += (size_t)n;
        if ((size_t)n < len) break;
    }
    bool want = waiting(f) > 0;
    if (!want) {
        f->send_due_ms = 0;
    } else if (sent || !f->send_due_ms) {
        f->send_due_ms = weir_loop_now_ms(w->loop) + front_conf(f)->send_ms;
        if (!weir_timer_is_set(&f->timer) || f->send_due_ms < f->timer.due_ms) weir_timer_set(w->loop, &f->timer, ident(f), f->send_due_ms);
    }
    if (want != f->want_write && weir_loop_want_write(w->loop, f->fd, ident(f), want) == WEIR_OK) f->want_write = want;
    return true;
}

static void tell_room(struct front *f)
{
    f->wants_room = false;
    for (struct weir_list *l = f->reqs.next, *next; l != &f->reqs && front_room(f); l = next) {
        struct front_req *r = WEIR_CONTAINER(l, struct front_req, link);
        next = l->next; /* no other one ends by this */
        if (r->wants_room) front_req_go_on(r);
    }
    for (const struct weir_list *l = f->reqs.next; l != &f->reqs && !f->wants_room; l = l->next)
        f->wants_room = WEIR_CONTAINER(l, struct front_req, link)->wants_room;
}

static bool is_over(const struct front *f)
{
    if (weir_wire_app_closing(f->wire)) return true; /* FC1-3.5-b: ours to close; the web server has all of it */
    if (!weir_wire_app_idle(f->wire)) return false;
    if (f->close_after) return true;
    const struct worker *w = f->worker;
    if (!w->draining || weir_wire_app_agreed(f->wire)) return false; /* an agreed one is the web server's to close: it was told */
    if (!w->hurries) return f->last; /* it may ask once more, as it could not know */
    return f->asked || weir_loop_now_ms(w->loop) >= w->hurries_ms + FIRST_MS; /* its first request may be on its way */
}

void front_flush(struct front *f)
{
    if (!f->in_use || !write_out(f)) return;
    if (f->broken) {
        front_close(f);
        return;
    }
    if (f->wants_room && waiting(f) < FRONT_OUT / 2) {
        tell_room(f);
        if (waiting(f)) front_dirty(f);
    }
    if (f->readable && !front_held_up(f)) {
        if (!read_some(f)) return;
    } else {
        set_phase(f);
    }
    if (waiting(f) == 0 && !f->readable && !f->broken && is_over(f)) front_close(f);
}

/* ---- life ---- */

static struct front *slot(struct worker *w)
{
    if (w->free_front_count) return w->fronts[w->free_front[--w->free_front_count]];
    if (w->front_top == w->front_cap) {
        uint32_t cap = w->front_cap ? w->front_cap * 2 : 16;
        struct front **fronts = realloc(w->fronts, cap * sizeof(struct front *));
        if (!fronts) return NULL;
        w->fronts = fronts;
        uint32_t *free_front = realloc(w->free_front, cap * sizeof *free_front);
        if (!free_front) return NULL;
        w->free_front = free_front;
        w->front_cap = cap;
    }
    struct front *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->index = w->front_top;
    w->fronts[w->front_top++] = f;
    return f;
}

static bool address_allowed(const struct weir_conf_listener *conf, const struct sockaddr_storage *peer) /* FC1-3.2-b */
{
    uint8_t address[16];
    if (!weir_net_of((const struct sockaddr *)peer, address)) return false;
    for (size_t i = 0; i < conf->allow_count; i++)
        if (!conf->allow[i].user && weir_net_has(&conf->allow[i].net, address)) return true;
    return false;
}

static bool allowed(const struct listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct ucred who;
    socklen_t len = sizeof who;
    if (peer->ss_family != AF_UNIX) return address_allowed(l->conf, peer);
    if (!l->user_count) return true; /* its owner, group and mode tell who may */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) return false;
    for (size_t i = 0; i < l->user_count; i++)
        if (l->users[i] == who.uid && who.uid != (uid_t)-1) return true;
    return false;
}

static bool may_enter(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener)
{
    const struct listener *l = snapshot_listener(w->snap, listener);
    char text[INET6_ADDRSTRLEN + 8];
    if (!l || !l->pool) return false;
    if (allowed(l, fd, peer)) return true;
    uint64_t now = weir_loop_now_ms(w->loop);
    if (w->barred_at_ms && now < w->barred_at_ms + TOLD_MS) return false; /* whoever tries again and again does not fill the log */
    w->barred_at_ms = now;
    weir_address_text(peer, text, sizeof text);
    log_error(w, "listener %s: a connection is refused: %s is not in its allow list", l->conf->name, peer->ss_family == AF_UNIX ? "its user" : text);
    return false;
}

static bool front_start(struct front *f)
{
    struct worker *w = f->worker;
    const struct weir_wire_limits limits = {.params_bytes = FRONT_PARAMS, .requests = FRONT_REQUESTS, .plain_requests = FRONT_PLAIN,
                                            .conns = atomic_load(&w->gw->conn_max)};
    return weir_wire_app_new(&f->wire, &limits) == WEIR_OK && weir_loop_add(w->loop, f->fd, ident(f), false) == WEIR_OK;
}

void front_accepted(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener)
{
    struct front *f = may_enter(w, fd, peer, listener) ? slot(w) : NULL;
    if (!f) {
        weir_loop_close(w->loop, fd);
        worker_uncount(w);
        return;
    }
    uint32_t index = f->index, epoch = (f->epoch + 1) & 0xffffff;
    *f = (struct front){.worker = w, .index = index, .epoch = epoch, .fd = fd, .peer = *peer, .listener = listener, .in_use = true};
    weir_list_init(&f->dirty_link);
    weir_list_init(&f->reqs);
    if (!front_start(f)) {
        front_close(f);
        return;
    }
    set_phase(f);
    if (w->draining) front_drain(f); /* it was accepted before that */
}

void front_close(struct front *f)
{
    struct worker *w = f->worker;
    if (!f->in_use) return;
    f->in_use = false;
    while (!weir_list_empty(&f->reqs)) {
        struct front_req *r = WEIR_CONTAINER(f->reqs.next, struct front_req, link);
        if (!r->status) r->status = f->broken ? 0 : 499; /* the web server left */
        front_req_free(r);
    }
    weir_timer_clear(&f->timer);
    weir_list_remove(&f->dirty_link);
    weir_wire_app_free(f->wire);
    f->wire = NULL;
    weir_loop_close(w->loop, f->fd);
    f->fd = -1;
    f->epoch = (f->epoch + 1) & 0xffffff;
    w->free_front[w->free_front_count++] = f->index;
    worker_uncount(w);
}

void front_drain(struct front *f)
{
    if (!f->in_use) return;
    weir_wire_app_drain(f->wire);
    f->readable = true; /* what it has sent already is still served */
    front_dirty(f);
}

void front_free_all(struct worker *w)
{
    for (uint32_t i = 0; i < w->front_top; i++) free(w->fronts[i]);
    free(w->fronts);
    free(w->free_front);
    while (w->free_front_reqs) {
        struct front_req *r = w->free_front_reqs;
        w->free_front_reqs = r->next_free;
        free(r);
    }
}

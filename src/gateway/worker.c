/* SPDX-License-Identifier: MIT */
/* A thread of the gateway: one loop, its turn, accepting and spreading connections. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/internal.h"

#define SPARE_BYTES  4096
#define TICK_SOON_MS 50
#define TURN_ROUNDS  4
#define CLOSE_IDLE_MOST 32  /* idle connections that make room at a time, */
#define CLOSE_IDLE_MS   1000 /* and are about as old as the oldest */

int worker_init(struct worker *w, struct gateway *gw, unsigned index)
{
    w->gw = gw;
    w->index = index;
    w->random.state = 0x1234567u + index * 7919u + (uint64_t)getpid();
    weir_list_init(&w->dirty);
    weir_list_init(&w->dirty_fronts);
    pthread_mutex_init(&w->inbox_lock, NULL);
    if (worker_seed_ids(w) < 0) return WEIR_SYSTEM;
    w->scratch = malloc(SCRATCH);
    w->plain = malloc(PLAIN);
    w->seen = seen_new(&gw->file_count);
    w->http2_memory = weir_http2_memory_new();
    if (!w->scratch || !w->plain || !w->seen || !w->http2_memory) return WEIR_NOMEM;
    int status = gw->loop_new(&w->loop, gw->loop_arg);
    if (status < 0) return status;
    const struct weir_client_options o = {.size = sizeof o, .index = index};
    const struct weir_client_place place = {.loop = w->loop, .kind = KIND_CLIENT, .quota = &gw->quota};
    return weir_client_new_on(&w->client, gw->group, &o, &place);
}

/* So many of each stay for the next requests. */
static void trim_exchanges(struct worker *w, uint32_t most)
{
    exchange_trim(w, most);
    stream_trim(w, most);
}

void worker_fini(struct worker *w)
{
    if (!w->gw) return; /* it never began */
    for (uint32_t i = 0; i < w->conn_top; i++) http_close(w->conns[i]);
    for (uint32_t i = 0; i < w->front_top; i++) front_close(w->fronts[i]);
    log_flush(w);
    weir_client_free(w->client);
    if (w->loop) weir_loop_free(w->loop); /* ends the helper behind its last job */
    trim_exchanges(w, 0);
    front_free_all(w);
    for (uint32_t i = 0; i < w->conn_top; i++) {
        weir_http1_free(w->conns[i]->parser);
        free(w->conns[i]);
    }
    if (w->snap) snapshot_drop(w->snap);
    orders_drop(w->orders);
    keys_drop(w->keys);
    for (unsigned i = 0; i < w->spare_count; i++) weir_buf_fini(&w->spare[i]);
    weir_buf_fini(&w->log_buf);
    weir_buf_fini(&w->err_buf);
    weir_buf_fini(&w->app_buf);
    free(w->conns);
    free(w->free_index);
    free(w->scratch);
    free(w->plain);
    free(w->piece);
    seen_free(w->seen);
    weir_http2_memory_free(w->http2_memory);
    compress_fini(w);
    pthread_mutex_destroy(&w->inbox_lock);
}

/* ---- buffers that idle connections do not hold ---- */

void worker_spare(struct worker *w, struct weir_buf *b)
{
    if (!b->base) return;
    if (b->cap <= SPARE_BYTES && w->spare_count < WEIR_COUNT(w->spare)) {
        b->head = b->tail = 0;
        w->spare[w->spare_count++] = *b;
        *b = (struct weir_buf){0};
    } else {
        weir_buf_fini(b);
    }
}

void worker_take_spare(struct worker *w, struct weir_buf *b)
{
    if (!b->base && w->spare_count) *b = w->spare[--w->spare_count];
}

/* ---- accepting ---- */

static bool is_open(const struct listener *l)
{
    return l->fd >= 0 && (l->default_site >= 0 || l->pool);
}

static void set_accepting(struct worker *w, bool on)
{
    if (w->accepting == on) return;
    w->accepting = on;
    for (uint32_t i = 0; i < w->snap->conf->listener_count; i++) {
        struct weir_ident id = {.kind = KIND_LISTENER, .index = i, .epoch = (uint32_t)w->snap->version & 0xffffff};
        if (!is_open(&w->snap->listeners[i])) continue;
        if (on) {
            if (weir_loop_add(w->loop, w->snap->listeners[i].fd, id, true) < 0)
                log_error(w, "cannot watch the listener %s", w->snap->listeners[i].conf->address.text);
        } else {
            weir_loop_del(w->loop, w->snap->listeners[i].fd);
        }
    }
}

/* It has asked before and waits for nothing: its client asks again by another connection. */
static bool is_idle(const struct http_conn *h)
{
    if (!h->in_use || !h->served || !h->due_ms || http_unsent(h)) return false;
    return h->h2 ? weir_http2_streams(h->h2->session) == 0 : h->state == HTTP_IDLE;
}

/* There is no room for who comes: those that have been idle for longest give theirs. */
static void close_idle(struct worker *w)
{
    uint64_t oldest = UINT64_MAX;
    unsigned closed = 0;
    for (uint32_t i = 0; i < w->conn_top; i++)
        if (is_idle(w->conns[i]) && w->conns[i]->due_ms < oldest) oldest = w->conns[i]->due_ms;
    for (uint32_t i = 0; i < w->conn_top && oldest != UINT64_MAX && closed < CLOSE_IDLE_MOST; i++) {
        struct http_conn *h = w->conns[i];
        if (!is_idle(h) || h->due_ms > oldest + CLOSE_IDLE_MS) continue;
        closed++;
        if (h->h2) http2_timer(h);
        else http_close(h);
    }
}

/* For a moment: the tick looks again. */
static void pause_accepting(struct worker *w)
{
    close_idle(w);
    set_accepting(w, false);
    weir_timer_set(w->loop, &w->tick_timer, (struct weir_ident){.kind = KIND_TICK}, weir_loop_now_ms(w->loop) + TICK_SOON_MS);
}

/* Of two random threads the lesser one: a thread alone would take all that come at once. The connection counts as its own
 * from now on. */
static struct worker *choose_worker(struct worker *w)
{
    unsigned n = w->gw->thread_count;
    struct worker *to = w;
    if (n > 1) {
        uint64_t random = weir_random_next(&w->random) >> 16;
        unsigned first = (unsigned)(random % n), second = (unsigned)((first + 1 + (random >> 16) % (n - 1)) % n);
        struct worker *a = &w->gw->workers[first], *b = &w->gw->workers[second];
        uint32_t in_a = atomic_load_explicit(&a->conn_count, memory_order_relaxed);
        uint32_t in_b = atomic_load_explicit(&b->conn_count, memory_order_relaxed);
        to = in_a < in_b || (in_a == in_b && a == w) ? a : b;
    }
    atomic_fetch_add_explicit(&to->conn_count, 1, memory_order_relaxed);
    return to;
}

void worker_uncount(struct worker *w)
{
    atomic_fetch_sub_explicit(&w->conn_count, 1, memory_order_relaxed);
    if (atomic_fetch_sub(&w->gw->conn_count, 1) == 1 && w->draining) worker_wake_all(w->gw); /* it was what they waited for */
}

/* False: it has enough to do, or ends. */
static bool hand_over(struct worker *to, const struct accepted *a)
{
    pthread_mutex_lock(&to->inbox_lock);
    bool room = !to->inbox_closed && to->inbox_count < WEIR_COUNT(to->inbox);
    if (room) to->inbox[to->inbox_count++] = *a;
    pthread_mutex_unlock(&to->inbox_lock);
    if (room) weir_loop_wake(to->loop);
    return room;
}

static void begin_conn(struct worker *w, const struct accepted *a)
{
    if (a->front) front_accepted(w, a->fd, &a->peer, a->listener);
    else http_accepted(w, a->fd, &a->peer, a->listener);
}

/* False: there is none, or no room for it. */
static bool accept_one(struct worker *w, const struct listener *l)
{
    struct accepted a = {.listener = l->id, .front = l->pool != NULL};
    if (atomic_load(&w->gw->conn_count) >= atomic_load(&w->gw->conn_max)) {
        pause_accepting(w);
        return false;
    }
    a.fd = weir_loop_accept(w->loop, l->fd, &a.peer, &a.peer_len);
    if (a.fd == WEIR_AGAIN) return false;
    if (a.fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pause_accepting(w);
        return false;
    }
    uint8_t address[16];
    if (weir_net_of((struct sockaddr *)&a.peer, address) && worker_denies(w, address)) {
        weir_loop_close(w->loop, a.fd);
        return true;
    }
    if (atomic_fetch_add(&w->gw->conn_count, 1) == 0) weir_loop_wake(w->gw->workers[0].loop); /* it tells control */
    struct worker *to = choose_worker(w);
    if (to != w && !hand_over(to, &a)) { /* it has enough to do */
        atomic_fetch_sub_explicit(&to->conn_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->conn_count, 1, memory_order_relaxed);
        to = w;
    }
    if (to == w) begin_conn(w, &a);
    return true;
}

static void accept_some(struct worker *w, const struct weir_event *ev)
{
    if (!w->accepting || ev->ident.epoch != (uint32_t)(w->snap->version & 0xffffff)) return;
    for (int i = 0; i < ACCEPT_BATCH; i++)
        if (!accept_one(w, &w->snap->listeners[ev->ident.index])) return;
}

/* This thread watches no more. Of those that came before, the kernel may have told it alone: it takes them. */
static void accept_last(struct worker *w)
{
    for (size_t i = 0; i < w->snap->conf->listener_count; i++)
        while (is_open(&w->snap->listeners[i]) && accept_one(w, &w->snap->listeners[i])) {}
}

/* Nobody hands it anything any more; false: there is something. */
static bool close_inbox(struct worker *w)
{
    pthread_mutex_lock(&w->inbox_lock);
    w->inbox_closed = w->inbox_count == 0;
    pthread_mutex_unlock(&w->inbox_lock);
    return w->inbox_closed;
}

/* ---- the snapshot ---- */

static void take_snapshot(struct worker *w)
{
    struct gateway *gw = w->gw;
    pthread_mutex_lock(&gw->lock);
    struct snapshot *s = gw->snap;
    bool changed = s != w->snap;
    if (changed) snapshot_hold(s);
    pthread_mutex_unlock(&gw->lock);
    if (!changed) return;
    if (w->snap) {
        set_accepting(w, false);
        seen_turn_over(w->seen); /* it has areas of a snapshot */
        snapshot_drop(w->snap);
    }
    w->snap = s;
    set_accepting(w, !w->draining);
}

/* Who was accepted and has not asked yet has a moment for it: the request may be on its way, and a client does not send a first
 * one again. */
static void begin_drain(struct worker *w)
{
    if (w->hurries || (w->draining && atomic_load(&w->gw->leaves))) return;
    w->draining = true;
    set_accepting(w, false);
    w->hurries = !atomic_load(&w->gw->leaves);
    w->hurries_ms = weir_loop_now_ms(w->loop);
    for (uint32_t i = 0; i < w->front_top; i++) front_drain(w->fronts[i]);
    for (uint32_t i = 0; i < w->conn_top; i++)
        if (w->conns[i]->in_use && w->conns[i]->h2) http2_leave(w->conns[i]);
    if (!w->hurries) {
        accept_last(w);
        return;
    }
    for (uint32_t i = 0; i < w->conn_top; i++) {
        struct http_conn *h = w->conns[i];
        if (!h->in_use || (h->state != HTTP_IDLE && h->state != HTTP_PROXY) || http_unsent(h)) continue;
        if (h->served) http_close(h);
        else http_arm(h, FIRST_MS);
    }
}

static void take_inbox(struct worker *w)
{
    for (;;) {
        struct accepted a;
        pthread_mutex_lock(&w->inbox_lock);
        bool some = w->inbox_count > 0;
        if (some) a = w->inbox[--w->inbox_count];
        pthread_mutex_unlock(&w->inbox_lock);
        if (!some) return;
        if (!snapshot_listener(w->snap, a.listener)) take_snapshot(w); /* whoever accepted it had a newer one */
        begin_conn(w, &a);
    }
}

static void tick(struct worker *w);

static void woken(struct worker *w)
{
    weir_client_woken(w->client);
    worker_take_keys(w);
    take_snapshot(w);
    worker_take_orders(w);
    take_inbox(w);
    if (atomic_load(&w->gw->end_asked)) begin_drain(w);
    tick(w);
}

/* Clients of HTTP/2 that were told to come again by another connection, and had time to hear it. */
static void end_idle_http2(struct worker *w)
{
    if (!w->draining || w->hurries || weir_loop_now_ms(w->loop) < w->hurries_ms + FIRST_MS) return;
    for (uint32_t i = 0; i < w->conn_top; i++) {
        struct http_conn *h = w->conns[i];
        if (h->in_use && h->h2 && weir_http2_streams(h->h2->session) == 0) http2_timer(h);
    }
}

static void tick(struct worker *w)
{
    struct weir_ident id = {.kind = KIND_TICK};
    if (w->index == 0) gateway_tick(w->gw);
    if (w->index == 0) log_tick(w);
    weir_client_tend(w->client);
    if (!w->accepting && !w->draining && atomic_load(&w->gw->conn_count) < atomic_load(&w->gw->conn_max))
        set_accepting(w, true);
    uint64_t until = atomic_load(&w->gw->drain_until_ms); /* 0: the end was asked for just now */
    if (w->draining && until && weir_loop_now_ms(w->loop) >= until) {
        for (uint32_t i = 0; i < w->conn_top; i++) http_close(w->conns[i]);
        for (uint32_t i = 0; i < w->front_top; i++) front_close(w->fronts[i]);
    }
    end_idle_http2(w);
    for (uint32_t i = 0; w->hurries && i < w->front_top; i++) /* their time for a first request may be over */
        if (w->fronts[i]->in_use) front_dirty(w->fronts[i]);
    uint32_t ms = w->hurries || (!w->accepting && !w->draining) ? TICK_SOON_MS : w->index == 0 && atomic_load(&w->gw->conn_count) ? 100 : 1000;
    weir_timer_set(w->loop, &w->tick_timer, id, weir_loop_now_ms(w->loop) + ms);
}

/* ---- the turn ---- */

struct weir_str worker_date(struct worker *w)
{
    if (w->date_at != w->loop->unix_seconds) {
        w->date_at = w->loop->unix_seconds;
        weir_http_date(w->date, w->date_at);
    }
    return weir_str(w->date, 29);
}

static void dispatch(struct worker *w, const struct weir_event *ev)
{
    if (ev->ready & WEIR_READY_WAKE) {
        woken(w);
        return;
    }
    switch (ev->ident.kind) {
    case KIND_HTTP: http_event(w, ev); break;
    case KIND_STREAM: stream_timer(ev->ptr); break;
    case KIND_LISTENER: accept_some(w, ev); break;
    case KIND_FILE: exchange_file_done(WEIR_CONTAINER(ev->ptr, struct exchange, job)); break;
    case KIND_BODY: exchange_body_stored(ev->ptr); break;
    case KIND_FRONT: front_event(w, ev); break;
    case KIND_FRONT_REQ: front_req_timer(ev->ptr); break;
    case KIND_FRONT_BODY: front_body_stored(ev->ptr); break;
    case KIND_LOG: log_flush(w); break;
    case KIND_TICK: tick(w); break;
    case KIND_LINK: gateway_main_event(w->gw, ev); break;
    case KIND_CHECK:
    case KIND_CHECK + 1:
    case KIND_CHECK + 2:
    case KIND_CHECK + 3: gateway_checks_event(w->gw, ev); break;
    default: weir_client_ready(w->client, ev); break;
    }
}

static void client_events(struct worker *w)
{
    struct weir_client_event cev;
    while (weir_client_next(w->client, &cev) == WEIR_OK) {
        const struct app_caller *caller = cev.user;
        if (cev.type == WEIR_CLIENT_STUCK) gateway_stuck(w->gw, &cev.stuck);
        else if (caller->is_front) front_client_event(w, &cev);
        else exchange_client_event(w, &cev);
    }
}

static void flush_clients(struct worker *w)
{
    struct weir_list now;
    weir_list_init(&now);
    weir_list_splice(&now, &w->dirty);
    while (!weir_list_empty(&now)) {
        struct http_conn *h = WEIR_CONTAINER(now.next, struct http_conn, dirty_link);
        weir_list_remove(&h->dirty_link);
        http_flush(h);
    }
    weir_list_splice(&now, &w->dirty_fronts);
    while (!weir_list_empty(&now)) {
        struct front *f = WEIR_CONTAINER(now.next, struct front, dirty_link);
        weir_list_remove(&f->dirty_link);
        front_flush(f);
    }
}

static bool clients_wait(const struct worker *w)
{
    return !weir_list_empty(&w->dirty) || !weir_list_empty(&w->dirty_fronts);
}

/* What the turn made leaves: first to the apps, which can begin, then to the clients. Each client once in a round: one that
 * asks or takes without end has what is left of it in the next turn, behind the others' events. */
static void end_turn(struct worker *w)
{
    for (int round = 0; round < TURN_ROUNDS; round++) {
        client_events(w);
        weir_client_flush(w->client);
        flush_clients(w);
        weir_client_flush(w->client);
        if (!weir_client_busy(w->client) && !clients_wait(w)) return;
    }
}

void worker_wake_all(struct gateway *gw)
{
    for (unsigned i = 0; i < gw->thread_count; i++)
        if (gw->workers[i].loop) weir_loop_wake(gw->workers[i].loop);
}

void worker_begin(struct worker *w)
{
    worker_take_keys(w);
    take_snapshot(w);
    worker_take_orders(w);
    tick(w);
}

void worker_turn(struct worker *w)
{
    struct weir_event ev[88]; /* a small batch, 66 descriptors: what it touches stays in the cache */
    int64_t wait = clients_wait(w) ? 0 : weir_client_next_us(w->client), check = w->index == 0 ? gateway_checks_next_us(w->gw) : -1;
    int n = weir_loop_wait(w->loop, ev, (int)WEIR_COUNT(ev), check >= 0 && (wait < 0 || check < wait) ? check : wait);
    weir_client_turn(w->client);
    for (int i = 0; i < n; i++) {
        dispatch(w, &ev[i]);
        if (ev[i].ident.kind >= KIND_CLIENT) client_events(w);
    }
    end_turn(w);
    seen_turn_over(w->seen);
    trim_exchanges(w, FREE_MOST);
    if (w->index == 0) gateway_main_turn(w->gw);
    /* connections to apps that this thread opened may be what another one's requests wait for: all end together */
    if (w->draining && atomic_load(&w->gw->conn_count) == 0 && w->ex_count == 0 && w->loop->jobs == 0) w->done = close_inbox(w);
}

void worker_run(struct worker *w)
{
    worker_begin(w);
    while (!w->done) worker_turn(w);
    weir_loop_wake(w->gw->workers[0].loop);
}

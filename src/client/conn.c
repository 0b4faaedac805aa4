/* SPDX-License-Identifier: MIT */
/* Connections to applications: opening, proving that somebody accepted them, asking for flow control, reading, batches,
 * closing. A connection belongs to one thread; only an idle one can be taken over (under its pool's lock). */
#include <errno.h>
#include <stdlib.h>

#include "client/internal.h"

/* When to look whether a connection was accepted, after it was made. */
static const uint32_t probe_us[] = {0, 200, 1000, 5000};
#define PROBE_LAST_US  20000
#define PROBE_FORK_US  2500  /* for FORK_US, where a process is started for it */
#define FORK_US        UINT64_C(15000) /* then it was not seen; twice as long each time, since what is closed stays in the backlog */
#define FORK_DOUBLES   6
#define PROBES_LONG    9     /* 0.1 s: a key has no more reason to wait */
#define BACKLOG_US     20000 /* the peer's backlog is full: try again */

void conn_set(struct conn *k, enum conn_state s)
{
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    atomic_store_explicit(&k->tag, (tag & ~UINT64_C(0xff)) | s, memory_order_relaxed);
}

void conn_give(struct conn *k, struct weir_client *to)
{
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    weir_loop_del(k->client->loop, k->fd);
    k->client = to;
    k->want_write = k->attached = false;
    atomic_store_explicit(&k->tag,
                          ((uint64_t)(tag_epoch(tag) + 1) & 0xffffff) << 16 | (uint64_t)to->index << 8 | (tag & 0xff),
                          memory_order_relaxed);
}

struct weir_ident conn_ident(const struct conn *k, enum client_kind kind)
{
    return (struct weir_ident){.kind = (uint8_t)(k->client->place.kind + kind), .index = k->index,
                               .epoch = tag_epoch(atomic_load_explicit(&k->tag, memory_order_relaxed))};
}

int conn_attach(struct conn *k)
{
    if (k->attached) return WEIR_OK;
    int status = weir_loop_add(k->client->loop, k->fd, conn_ident(k, KIND_CONN), false);
    k->attached = status == WEIR_OK;
    return status;
}

static void reserve_epoch(struct conn *k, unsigned owner, enum conn_state s)
{
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    atomic_store_explicit(&k->tag, ((uint64_t)(tag_epoch(tag) + 1) & 0xffffff) << 16 | (uint64_t)owner << 8 | s,
                          memory_order_relaxed);
}

void conn_free_now(struct conn *k)
{
    if (k->fd >= 0) {
        weir_loop_del(k->client->loop, k->fd);
        weir_loop_close(k->client->loop, k->fd);
    }
    weir_wire_server_free(k->wire);
    k->wire = NULL;
    k->fd = -1;
    group_conn_free(k->client->group, k);
}

/* ---- opening ---- */

static void requeue_pending(struct conn *k)
{
    while (!weir_list_empty(&k->pending)) {
        struct weir_client_req *r = WEIR_CONTAINER(k->pending.next, struct weir_client_req, link);
        weir_list_remove(&r->link);
        req_requeue(r);
    }
}

/* It could not be made: its place stays taken for a while, so that failing costs nothing. */
static void back_off(struct conn *k, bool failed, const char *reason)
{
    struct weir_client *c = k->client;
    bool opening = !k->shared && conn_state(k) != CONN_BACKOFF;
    if (k->fd >= 0) {
        weir_loop_del(c->loop, k->fd);
        weir_loop_close(c->loop, k->fd);
        k->fd = -1;
    }
    weir_timer_clear(&k->timer);
    weir_list_remove(&k->read_link); /* there is nothing to read any more */
    if (c->reading == k) c->reading = NULL;
    conn_set(k, CONN_BACKOFF);
    if (!failed) { /* its backlog is full, or we lack something: it is alive, this place is still being opened, and who waits for it waits */
        k->full = true;
        client_due(c, k, weir_loop_clock_us(c->loop) + BACKLOG_US);
        return;
    }
    if (k->shared && k->ep->shared[c->index] == k) k->ep->shared[c->index] = NULL;
    requeue_pending(k);
    k->full = false;
    client_due(c, k, weir_loop_clock_us(c->loop) + (UINT64_C(25000) << 6));
    uint64_t wait_us = pool_conn_failed(k->ep, c, opening, reason); /* may serve others, and this one's turn may come */
    if (conn_state(k) == CONN_BACKOFF && !weir_list_empty(&k->due_link)) client_due(c, k, weir_loop_clock_us(c->loop) + wait_us);
}

/* A php-fpm worker counts as idle, and may be ended, until a first byte came; then none is started beside it. */
static void greet(struct conn *k)
{
    struct weir_client *c = k->client;
    conn_set(k, CONN_ACTIVE);
    k->single = NULL;
    k->greeting = k->greeted = true; /* it is still being opened */
    if (weir_wire_server_ping(k->wire) < 0) {
        conn_close(k, WEIR_NOMEM, "out of memory");
        return;
    }
    k->proving = true; /* idle when it has answered */
    conn_dirty(k);
    client_due(c, k, weir_loop_clock_us(c->loop) + CONNECT_MS * UINT64_C(1000));
}

/* Nobody asked it anything yet, and it has sent something, or closed. */
static bool speaks_unasked(const struct conn *k)
{
    return !weir_list_empty(&k->read_link) || k->client->reading == k || !weir_wire_server_reusable(k->wire);
}

static void proven(struct conn *k)
{
    weir_list_remove(&k->due_link);
    if (speaks_unasked(k)) {
        back_off(k, true, "the application speaks, or closes, before it is asked");
        return;
    }
    k->unused = true;
    if (k->ep->forks && k->ep->pings && endpoint_keeps(k->ep)) greet(k);
    else pool_conn_idle(k, true);
}

static void look_accepted(struct conn *k)
{
    struct weir_client *c = k->client;
    if (weir_loop_peer(c->loop, k->fd) != 0) { /* yes, or it cannot be told */
        proven(k);
        return;
    }
    if (k->probes + 1 == WEIR_COUNT(probe_us) || k->probes == PROBES_LONG) balance_slow(k, k->probes == PROBES_LONG); /* it is behind others there */
    pthread_mutex_lock(&k->ep->pool->lock);
    bool wanted = endpoint_wanted(k->ep) && !k->ep->drain;
    uint64_t now = weir_loop_clock_us(c->loop), since = now - k->batch_since_us;
    bool missed = k->ep->forks && since >= FORK_US << (k->ep->missed < FORK_DOUBLES ? k->ep->missed : FORK_DOUBLES);
    k->ep->missed += missed;
    pthread_mutex_unlock(&k->ep->pool->lock);
    if (!wanted) { /* no byte was sent: whoever accepts it later finds its end */
        conn_close(k, WEIR_CLOSED, "not needed any more");
        return;
    }
    if (missed) {
        conn_close(k, WEIR_CLOSED, "nobody was started for it");
        return;
    }
    k->probes++;
    bool soon = k->ep->forks && since < FORK_US;
    client_due(c, k, k->probes < WEIR_COUNT(probe_us) ? k->batch_since_us + probe_us[k->probes] : now + (soon ? PROBE_FORK_US : PROBE_LAST_US));
}

static void run_pending(struct conn *k)
{
    while (!weir_list_empty(&k->pending) && weir_wire_server_active(k->wire) < weir_wire_server_limit(k->wire)) {
        struct weir_client_req *r = WEIR_CONTAINER(k->pending.next, struct weir_client_req, link);
        weir_list_remove(&r->link);
        req_run_on(r, k);
    }
}

/* Told behind this call: whoever opens it still has to put a request on it. full: as in struct conn. */
static void fails_behind(struct conn *k, bool full)
{
    k->broken = true;
    k->full = full;
    client_due(k->client, k, k->client->loop->now_us);
}

static void connected(struct conn *k)
{
    struct weir_client *c = k->client;
    weir_timer_clear(&k->timer);
    if (k->shared && !k->own && !endpoint_shared(k->ep)) { /* another thread found out meanwhile that it serves one at a time */
        fails_behind(k, true);
        return;
    }
    bool asks = k->shared && k->ep->flow; /* IOP-S10 */
    if (weir_wire_server_new(&k->wire, NULL) < 0 || (asks && weir_wire_server_ask(k->wire) < 0)) {
        weir_wire_server_free(k->wire);
        k->wire = NULL;
        fails_behind(k, true);
        return;
    }
    if (!k->shared) {
        conn_set(k, CONN_UNPROVEN);
        if (k->ep->local) {
            k->batch_since_us = weir_loop_clock_us(c->loop);
            k->probes = 0;
            client_due(c, k, k->batch_since_us);
        } else {
            proven(k);
        }
        return;
    }
    if (asks) {
        conn_set(k, CONN_ASKING);
        weir_timer_set(c->loop, &k->timer, conn_ident(k, KIND_CONN_TIMER), weir_loop_now_ms(c->loop) + ASK_MS);
        conn_dirty(k);
        conn_flush(k);
        return;
    }
    conn_set(k, CONN_ACTIVE);
    if (!k->own) weir_wire_server_allow_plain_mpx(k->wire, k->ep->requests ? k->ep->requests : 16);
    run_pending(k);
}

/* We lack something, not the peer. */
static bool ours(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

struct conn *conn_open(struct weir_client *c, struct weir_endpoint *ep, enum conn_use use)
{
    bool shared = use != USE_SINGLE;
    struct conn *k = group_conn_new(c->group);
    if (!k) {
        if (!shared) pool_conn_unmade(ep, c);
        return NULL;
    }
    k->client = c;
    __atomic_store_n(&k->ep, ep, __ATOMIC_RELAXED); /* take_from_idle */
    k->used_us = UINT64_MAX;
    k->shared = shared;
    k->own = use == USE_OWN;
    k->fd = -1;
    k->heard_us = c->loop->now_us;
    reserve_epoch(k, c->index, CONN_CONNECTING);
    if (shared) {
        pthread_mutex_lock(&ep->pool->lock);
        ep->refs++;
        pthread_mutex_unlock(&ep->pool->lock);
        if (!k->own) ep->shared[c->index] = k;
        weir_list_push_back(&c->open, &k->link);
    }
    int fd = weir_loop_connect(c->loop, &ep->addr, ep->addr_len);
    if (fd >= 0) {
        k->fd = fd;
        if (conn_attach(k) == WEIR_OK) {
            if (ep->local) {
                connected(k);
            } else if (weir_loop_want_write(c->loop, fd, conn_ident(k, KIND_CONN), true) == WEIR_OK) {
                k->want_write = true;
                weir_timer_set(c->loop, &k->timer, conn_ident(k, KIND_CONN_TIMER),
                               weir_loop_now_ms(c->loop) + CONNECT_MS);
                if (!shared) client_due(c, k, weir_loop_clock_us(c->loop) + PROBE_LAST_US); /* then who waits may go elsewhere */
            }
            return k;
        }
    }
    fails_behind(k, fd >= 0 || fd == WEIR_AGAIN || ours(errno));
    return k;
}

void conn_rest(struct weir_client *c, struct weir_endpoint *ep, uint64_t until_us)
{
    struct conn *k = c->ends ? NULL : group_conn_new(c->group);
    if (!k) return; /* the next request looks */
    k->client = c;
    __atomic_store_n(&k->ep, ep, __ATOMIC_RELAXED);
    k->shared = k->own = true; /* it holds no place */
    k->fd = -1;
    reserve_epoch(k, c->index, CONN_BACKOFF);
    pthread_mutex_lock(&ep->pool->lock);
    ep->refs++;
    pthread_mutex_unlock(&ep->pool->lock);
    weir_list_push_back(&c->open, &k->link);
    client_due(c, k, until_us);
}

/* ---- does its process live? ---- */

static void conn_ping(struct conn *k)
{
    struct weir_client *c = k->client;
    pthread_mutex_lock(&k->ep->pool->lock);
    uint64_t ms = k->ep->pool->ping_ms;
    pthread_mutex_unlock(&k->ep->pool->lock);
    int status = weir_wire_server_ping(k->wire);
    if (status < 0 && status != WEIR_INVALID) { /* INVALID: the last one has not been answered yet, but something else came */
        conn_close(k, WEIR_NOMEM, "out of memory");
        return;
    }
    k->pinged = true;
    k->proving = !k->shared; /* idle again when it has answered */
    conn_dirty(k);
    client_due(c, k, c->loop->now_us + ms * 1000);
}

static void stuck(struct conn *k)
{
    struct weir_client *c = k->client;
    int64_t peer = k->shared ? 0 : weir_loop_peer(c->loop, k->fd);
    if (c->stuck_count == c->stuck_room) {
        size_t room = c->stuck_room ? c->stuck_room * 2 : 8;
        struct weir_client_stuck *grown = realloc(c->stuck, room * sizeof *grown);
        if (grown) {
            c->stuck = grown;
            c->stuck_room = room;
        }
    }
    if (c->stuck_count < c->stuck_room) c->stuck[c->stuck_count++] = (struct weir_client_stuck){k->ep->id, peer > 0 ? (uint64_t)peer : 0};
    conn_close(k, WEIR_TIMEOUT, "the process did not answer a ping");
}

void weir_client_tend(struct weir_client *c)
{
    struct weir_list silent;
    weir_list_init(&silent);
    pool_tend(c);
    if (!atomic_load_explicit(&c->group->pings, memory_order_relaxed)) return;
    pool_take_silent(c, &silent);
    while (!weir_list_empty(&silent)) {
        struct conn *k = WEIR_CONTAINER(silent.next, struct conn, link);
        weir_list_remove(&k->link);
        conn_ping(k);
    }
    for (struct weir_list *l = c->open.next, *next; l != &c->open; l = next) {
        struct conn *k = WEIR_CONTAINER(l, struct conn, link);
        next = l->next;
        if (k->pinged || !k->wire || conn_state(k) != CONN_ACTIVE || !k->ep->pings) continue;
        pthread_mutex_lock(&k->ep->pool->lock);
        uint64_t ms = k->ep->pool->ping_ms;
        pthread_mutex_unlock(&k->ep->pool->lock);
        if (ms && c->loop->now_us >= k->heard_us + ms * 1000) conn_ping(k);
    }
}

void conn_clock(struct conn *k)
{
    weir_list_remove(&k->due_link);
    struct weir_client *c = k->client;
    switch (conn_state(k)) {
    case CONN_UNPROVEN: look_accepted(k); break;
    case CONN_CONNECTING:
        if (k->broken) back_off(k, !k->full, "cannot connect to the application");
        else if (k->probes++ < PROBES_LONG) {
            if (k->probes == 1 || k->probes == PROBES_LONG) balance_slow(k, k->probes > 1);
            client_due(c, k, weir_loop_clock_us(c->loop) + PROBE_LAST_US);
        }
        break;
    case CONN_BACKOFF: conn_close(k, WEIR_SYSTEM, "cannot connect to the application"); break;
    case CONN_ACTIVE:
        if (k->pinged) stuck(k);
        else if (k->greeting) conn_close(k, WEIR_TIMEOUT, "the application did not answer GET_VALUES");
        break;
    default: break;
    }
}

void conn_timer(struct weir_client *c, const struct weir_event *ev)
{
    struct conn *k = WEIR_CONTAINER(ev->ptr, struct conn, timer); /* never freed; perhaps another one by now */
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    if (tag_epoch(tag) != ev->ident.epoch || tag_owner(tag) != c->index || (tag & 0xff) == CONN_FREE) return;
    if (conn_state(k) == CONN_CONNECTING) {
        back_off(k, true, "the application does not answer the connect");
    } else if (conn_state(k) == CONN_ASKING) { /* FC1-4.1-f, IOP-S10 */
        conn_close(k, WEIR_TIMEOUT, "the application did not answer GET_VALUES");
    }
}

/* ---- the outcome of asking ---- */

static void becomes_single(struct conn *k)
{
    struct weir_client *c = k->client;
    struct weir_endpoint *ep = k->ep;
    pool_set_mode(ep, false, false, 0);
    if (ep->shared[c->index] == k) ep->shared[c->index] = NULL;
    pthread_mutex_lock(&ep->pool->lock);
    bool room = ep->conns < ep->workers;
    if (room) ep->conns++;
    pthread_mutex_unlock(&ep->pool->lock);
    requeue_pending(k);
    if (!room) {
        conn_set(k, CONN_ACTIVE); /* it was answered: this is no failed connect */
        conn_close(k, WEIR_CLOSED, "one connection too many");
        return;
    }
    weir_list_remove(&k->link);
    k->shared = false;
    k->unused = true;
    conn_set(k, CONN_ACTIVE); /* idle when it has been read to its end: nobody else is to take it before */
    k->single = NULL;
}

void conn_values(struct conn *k, bool agreed, uint32_t threads)
{
    k->proving = false; /* its worker is between requests */
    if (k->greeting || k->pinged) weir_list_remove(&k->due_link);
    k->pinged = false;
    if (conn_state(k) != CONN_ASKING) return;
    weir_timer_clear(&k->timer);
    if (!agreed) {
        becomes_single(k);
        return;
    }
    pool_set_mode(k->ep, true, false, weir_wire_server_limit(k->wire));
    k->absorb = threads > 0;
    conn_set(k, CONN_ACTIVE);
    run_pending(k);
}

void conn_retire(struct conn *k) /* FC1-5.4-c, IOP-S13 */
{
    struct weir_client *c = k->client;
    k->retired = true;
    if (k->ep->shared[c->index] == k) { /* the next requests get another one */
        k->ep->shared[c->index] = NULL;
        requeue_pending(k);
        pool_serve(k->ep->pool, c);
    }
    if (weir_wire_server_active(k->wire) <= k->aborted) conn_close(k, WEIR_TIMEOUT, "the application did not end an aborted request");
}

void conn_after_end(struct conn *k)
{
    struct weir_endpoint *ep = k->ep;
    struct weir_client *c = k->client;
    if (k->final && ep->shared[c->index] == k) { /* it takes nothing new: the next one goes elsewhere */
        ep->shared[c->index] = NULL;
        requeue_pending(k);
        pool_serve(ep->pool, c);
    }
    run_pending(k);
    if (k->retired && weir_wire_server_active(k->wire) <= k->aborted) {
        conn_close(k, WEIR_TIMEOUT, "the application did not end an aborted request");
        return;
    }
    if (weir_wire_server_active(k->wire) || !weir_list_empty(&k->pending)) return;
    pthread_mutex_lock(&ep->pool->lock);
    bool drain = ep->drain;
    pthread_mutex_unlock(&ep->pool->lock);
    if (drain || k->final || k->own) conn_close(k, WEIR_CLOSED, k->own ? "not needed any more" : "the application drains"); /* FC1-3.5-a */
}

/* ---- batches ---- */

void conn_dirty(struct conn *k)
{
    if (weir_list_empty(&k->dirty_link)) {
        weir_list_push_back(&k->client->dirty, &k->dirty_link);
        k->batched = 0;
        k->batch_since_us = weir_loop_clock_us(k->client->loop);
    }
    const void *p;
    bool look = ++k->batched % 4 == 0; /* at the clock */
    if (k->batched >= BATCH_REQUESTS || weir_wire_server_output(k->wire, &p) >= BATCH_BYTES ||
        (look && weir_loop_clock_us(k->client->loop) - k->batch_since_us >= BATCH_US))
        conn_flush(k);
}

static void tell_room(struct conn *k)
{
    void *user;
    if (!k->room_wanted) return;
    k->room_wanted = false;
    for (uint16_t id = weir_wire_server_next_id(k->wire, 0, &user); id;
         id = weir_wire_server_next_id(k->wire, id, &user)) {
        struct weir_client_req *r = user;
        if (!r || !r->wants_room || r->forgotten) continue;
        r->wants_room = false;
        r->tell_room = true;
        req_tell(r);
    }
}

void conn_breaks(struct conn *k)
{
    if (weir_list_empty(&k->read_link)) weir_list_push_back(&k->client->to_read, &k->read_link);
    k->broken = true;
}

void conn_flush(struct conn *k)
{
    struct weir_client *c = k->client;
    const void *p;
    size_t len;
    weir_list_remove(&k->dirty_link);
    k->batched = 0;
    if (k->fd < 0 || !k->wire) return;
    while ((len = weir_wire_server_output(k->wire, &p)) > 0) {
        struct iovec v = {(void *)(uintptr_t)p, len};
        int64_t n = weir_loop_writev(c->loop, k->fd, &v, 1, false);
        if (n == WEIR_AGAIN || n == 0) break;
        if (n < 0) {
            conn_breaks(k);
            return;
        }
        weir_wire_server_sent(k->wire, (size_t)n);
        if ((size_t)n < len) break;
    }
    bool want = weir_wire_server_output(k->wire, &p) > 0;
    if (want != k->want_write) {
        if (weir_loop_want_write(c->loop, k->fd, conn_ident(k, KIND_CONN), want) == WEIR_OK) k->want_write = want;
    }
    if (weir_wire_server_output(k->wire, &p) < OUTPUT_HIGH / 2) tell_room(k);
}

/* ---- reading ---- */

/* A peer that closes right behind the end of a request, although it was asked to keep the connection (node-fastcgi, uWSGI), takes the
 * next request with it where that is on its way. When it does so again and again, nothing is kept there any more. */
static void note_hang_up(struct conn *k)
{
    bool idle = !k->single && (!k->unused || k->greeted), lost = k->single && k->again && k->single->received == 0 && !k->ep->prove; /* php-fpm: a script that crashed */
    if (k->shared || k->client->loop->now_us > k->heard_us + HANG_UP_US || !(idle || lost)) return;
    pthread_mutex_lock(&k->ep->pool->lock);
    if (++k->ep->hang_ups >= HANG_UPS) k->ep->hangs_up = true;
    pthread_mutex_unlock(&k->ep->pool->lock);
}

/* Once may be its end, and the next one listens already; again and again it would keep us busy. */
static bool closes_unasked(const struct conn *k)
{
    pthread_mutex_lock(&k->ep->pool->lock);
    bool often = ++k->ep->unasked >= HANG_UPS;
    pthread_mutex_unlock(&k->ep->pool->lock);
    return often;
}

bool conn_read(struct conn *k)
{
    struct weir_client *c = k->client;
    if (k->read_turn != c->turns) {
        k->read_turn = c->turns;
        k->read_left = READ_TURN;
    }
    if (k->read_left == 0) { /* whoever sends without end does not keep the others waiting */
        k->lent = false;
        if (c->reading == k) c->reading = NULL;
        if (weir_list_empty(&k->read_link)) weir_list_push_back(&c->later, &k->read_link);
        return false;
    }
    int64_t n = weir_loop_read(c->loop, k->fd, c->scratch, SCRATCH);
    if (n > 0) {
        k->heard_us = c->loop->now_us;
        if (k->pinged && k->shared) { /* it lives; of one without a request only the answer counts */
            weir_list_remove(&k->due_link);
            k->pinged = false;
        }
        k->read_left -= (uint64_t)n < k->read_left ? (uint32_t)n : k->read_left;
        k->lent = n == SCRATCH || k->peer_closed;
        weir_wire_server_feed(k->wire, c->scratch, (size_t)n);
        return true;
    }
    if (n != WEIR_AGAIN) {
        if (conn_state(k) == CONN_UNPROVEN && closes_unasked(k)) {
            back_off(k, true, "the application closes its connections at once");
            return false;
        }
        note_hang_up(k);
        conn_close(k, WEIR_CLOSED, /* IOP-S7 */
                   n == WEIR_CLOSED ? "the application closed the connection before its answer was complete"
                                    : "the connection to the application broke");
    } else if (k->broken)
        conn_close(k, WEIR_CLOSED, "the connection to the application broke");
    else
        conn_end_read(k);
    return false;
}

/* All that was there has been taken. */
void conn_end_read(struct conn *k)
{
    if (k->client->reading == k) k->client->reading = NULL;
    if (k->shared || conn_state(k) != CONN_ACTIVE || k->single) return;
    if (k->proving) return; /* its request ended for the client, perhaps not for the worker: it stays busy */
    /* a single one without a request: its request ended just now, or it was idle and looked at */
    bool first = k->greeting;
    if (weir_wire_server_reusable(k->wire) && (endpoint_keeps(k->ep) || k->unused)) { /* IOP-S8 */
        k->greeting = false;
        pool_conn_idle(k, first);
    } else conn_close(k, WEIR_CLOSED, "not kept"); /* FC1-3.5-a */
}

/* Takes an idle connection that has something to tell out of the idle list: true if it is still ours. */
static bool take_from_idle(struct conn *k, uint64_t tag)
{
    struct weir_pool *p = __atomic_load_n(&k->ep, __ATOMIC_RELAXED)->pool; /* it may be another thread's by now: as the tag tells */
    pthread_mutex_lock(&p->lock);
    bool ours = atomic_load_explicit(&k->tag, memory_order_relaxed) == tag;
    if (ours) {
        weir_list_remove(&k->link);
        conn_set(k, CONN_ACTIVE);
        k->single = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    return ours;
}

void conn_event(struct weir_client *c, const struct weir_event *ev)
{
    struct conn *k = group_conn(c->group, ev->ident.index);
    if (!k) return;
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    if (tag_epoch(tag) != ev->ident.epoch || tag_owner(tag) != c->index || (tag & 0xff) == CONN_FREE) return;
    if ((tag & 0xff) == CONN_IDLE && !take_from_idle(k, tag)) return;
    if (conn_state(k) == CONN_CONNECTING) {
        if (k->broken || !(ev->ready & (WEIR_READY_WRITE | WEIR_READY_CLOSED))) return;
        int err = weir_loop_error(c->loop, k->fd);
        if (err) {
            back_off(k, true, "cannot connect to the application");
            return;
        }
        k->want_write = false;
        if (weir_loop_want_write(c->loop, k->fd, conn_ident(k, KIND_CONN), false) == WEIR_OK) connected(k);
        return;
    }
    if (ev->ready & WEIR_READY_WRITE) conn_flush(k);
    if (ev->ready & WEIR_READY_CLOSED) k->peer_closed = true;
    if (!(ev->ready & WEIR_READY_READ) || k->paused) return; /* FC1-6.1-b */
    if (weir_list_empty(&k->read_link) && c->reading != k) weir_list_push_back(&c->to_read, &k->read_link);
}

/* ---- closing ---- */

/* How an app that knows no flow control may answer the question, too (FC 2.1): with what is no record, by closing, or not at all
 * (uWSGI). An app that just ends closes as well, and one that just starts takes its time, so these two say it only when they happen
 * again and again: a plain connection would lose requests at the app's end. */
static bool no_answer(struct weir_endpoint *ep, int status)
{
    pthread_mutex_lock(&ep->pool->lock);
    if (status == WEIR_TIMEOUT) ep->unanswered++;
    bool often = status == WEIR_TIMEOUT ? ep->unanswered >= ASK_TRIES : status == WEIR_CLOSED && ep->failures >= ASK_TRIES;
    pthread_mutex_unlock(&ep->pool->lock);
    return status == WEIR_PROTOCOL || often;
}

/* Requests end with it that got no byte of an answer, and that is the peer's doing: not where it closes a connection that was to be
 * kept, nor where one takes too long, but for the one that tries whether it is well again. */
static bool no_request_answered(const struct conn *k, int status)
{
    void *user;
    bool any = false;
    if (!k->ep->pool->balance.on || (k->again && !k->shared)) return false;
    if (status != WEIR_CLOSED && status != WEIR_PROTOCOL && !(status == WEIR_TIMEOUT && k->ep->ejected)) return false;
    for (uint16_t id = weir_wire_server_next_id(k->wire, 0, &user); id; id = weir_wire_server_next_id(k->wire, id, &user)) {
        const struct weir_client_req *r = user;
        if (!r || r->forgotten || r->aborted_us) continue;
        if (r->received) return false;
        any = true;
    }
    return any;
}

void conn_close(struct conn *k, int status, const char *reason)
{
    struct weir_client *c = k->client;
    struct weir_endpoint *ep = k->ep;
    enum conn_state was = conn_state(k);
    if (was == CONN_ASKING && no_answer(ep, status)) pool_set_mode(ep, false, false, 0);
    if (was == CONN_ASKING && status == WEIR_CLOSED) { /* accepted and closed: as good as a refused connect */
        back_off(k, true, "the application closes its connections at once");
        return;
    }
    bool opening = !k->shared && (was == CONN_CONNECTING || was == CONN_UNPROVEN || (was == CONN_BACKOFF && k->full) || k->greeting);
    if (c->reading == k) c->reading = NULL;
    weir_list_remove(&k->due_link);
    weir_list_remove(&k->dirty_link);
    weir_list_remove(&k->read_link);
    weir_timer_clear(&k->timer);
    if (k->shared) {
        weir_list_remove(&k->link);
        if (ep->shared[c->index] == k) ep->shared[c->index] = NULL;
    }
    if (k->fd >= 0) {
        weir_loop_del(c->loop, k->fd);
        weir_loop_close(c->loop, k->fd);
        k->fd = -1;
    }
    reserve_epoch(k, c->index, CONN_ACTIVE); /* nobody finds it by an event any more */
    if (k->wire && no_request_answered(k, status)) balance_lost(k, reason);
    if (k->wire) {
        void *user;
        for (uint16_t id = weir_wire_server_next_id(k->wire, 0, &user); id;
             id = weir_wire_server_next_id(k->wire, id, &user)) {
            struct weir_client_req *r = user;
            if (!r) continue;
            r->conn = NULL;
            r->result.not_run = weir_wire_server_unsent(k->wire, id);
            req_conn_lost(r, status, reason);
        }
    }
    requeue_pending(k);
    bool shared = k->shared;
    conn_set(k, CONN_FREE);
    weir_wire_server_free(k->wire);
    k->wire = NULL;
    group_conn_free(c->group, k);
    pool_conn_gone(ep, c, !shared, opening);
}

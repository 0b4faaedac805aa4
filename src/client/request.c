/* SPDX-License-Identifier: MIT */
/* Requests: from begin to the end that is told, with their body, the output that nobody takes yet, their time-outs, and the
 * rule of repetition: only what was never sent, was refused, or may run twice goes to a connection again. */
#include <stdio.h>
#include <stdlib.h>

#include "client/internal.h"

/* ---- memory ---- */

static struct weir_client_req *req_new(struct weir_client *c)
{
    struct weir_client_req *r = c->free_reqs;
    bool reused = r != NULL;
    if (r) c->free_reqs = r->next_free;
    else r = malloc(sizeof *r);
    if (!r) return NULL;
    struct weir_timer timer = reused ? r->timer : (struct weir_timer){0};
    memset(r, 0, offsetof(struct weir_client_req, ran_at));
    r->ran_at[0] = 0;
    r->timer = timer;
    weir_list_init(&r->wait_all);
    weir_list_init(&r->wait_own);
    weir_list_init(&r->link);
    weir_list_init(&r->ready_link);
    weir_list_init(&r->all_link);
    weir_list_push_back(&c->reqs, &r->all_link);
    r->client = c;
    c->req_count++;
    return r;
}

void req_recycle(struct weir_client_req *r)
{
    struct weir_client *c = r->client;
    r->state = REQ_ENDED; /* its timer may stay set: it finds nothing due */
    r->forgotten = false;
    r->aborted_us = 0;
    weir_list_remove(&r->all_link);
    weir_list_remove(&r->ready_link);
    weir_list_remove(&r->link);
    if (c->lent == r) c->lent = NULL;
    weir_spill_free(r->held);
    r->held = NULL;
    c->windows -= r->window;
    r->window = 0;
    r->next_free = c->free_reqs;
    c->free_reqs = r;
    c->req_count--;
}

/* ---- slots ---- */

/* Gives its slot back; k: its connection, if that may serve the next one. */
static void leave_slot(struct weir_client_req *r, struct conn *k, bool done)
{
    struct weir_endpoint *ep = r->ep;
    if (!r->slot) return;
    weir_client_req_where(r, r->ran_at, sizeof r->ran_at);
    r->slot = false;
    r->ep = NULL;
    bool kept = done && r->conn && !r->conn->shared && r->conn->again;
    pool_release(ep, r->client, k, r->client->loop->now_us - r->started_us, done, kept);
}

void req_tell(struct weir_client_req *r)
{
    if (weir_list_empty(&r->ready_link)) weir_list_push_back(&r->client->ready, &r->ready_link);
}

/* ---- time ---- */

static bool has_credit(const struct weir_client_req *r)
{
    return r->state == REQ_RUNNING && r->conn && weir_wire_server_agreed(r->conn->wire) && !r->aborted_us;
}

/* Its app cannot go on before we do: the rest of the body has not come, or the output's receiver takes nothing. */
static bool waits_for_us(const struct weir_client_req *r)
{
    if (r->conn->paused || (r->sent < r->o.body_len + r->o.data_len && !r->wants_room)) return true;
    return r->held && has_credit(r) && (r->conn->absorb ? r->owed : weir_spill_left(r->held)) >= r->window;
}

static uint64_t earliest_ms(const struct weir_client_req *r)
{
    uint64_t due = UINT64_MAX;
    switch ((enum req_state)atomic_load(&r->state)) {
    case REQ_WAITING:
    case REQ_GRANTED: return r->forgotten ? UINT64_MAX : r->since_us / 1000 + r->queue_ms;
    case REQ_RUNNING:
        if (r->aborted_us) return r->conn->retired ? UINT64_MAX : r->aborted_us / 1000 + ABORT_MS;
        if (r->o.silent_ms && !waits_for_us(r)) due = r->heard_us / 1000 + r->o.silent_ms;
        if (r->o.request_ms && r->started_us / 1000 + r->o.request_ms < due)
            due = r->started_us / 1000 + r->o.request_ms;
        if (r->o.slow_ms && !r->slow_told && r->started_us / 1000 + r->o.slow_ms < due)
            due = r->started_us / 1000 + r->o.slow_ms;
        return due;
    default: return UINT64_MAX;
    }
}

void req_arm(struct weir_client_req *r)
{
    uint64_t due = earliest_ms(r);
    struct weir_ident id = {.kind = (uint8_t)(r->client->place.kind + KIND_REQ_TIMER)};
    if (due != UINT64_MAX && (!weir_timer_is_set(&r->timer) || due < r->timer.due_ms))
        weir_timer_set(r->client->loop, &r->timer, id, due);
}

/* The app is told to stop; the slot stays taken until it did. */
void req_stop(struct weir_client_req *r, int status, const char *reason)
{
    struct conn *k = r->conn;
    if (!k->shared) { /* on a connection of its own the close says it: what apps really notice (FC1-5.4-d, FC1-6.2-c, IOP-S13) */
        conn_close(k, status, reason);
        return;
    }
    r->aborted_us = r->client->loop->now_us;
    k->aborted++;
    if (weir_wire_server_abort(k->wire, r->id) < 0) { /* FC1-5.4-c, IOP-S13 */
        conn_close(k, status, reason);
        return;
    }
    conn_dirty(k);
    r->result.status = status;
    r->result.stage = WEIR_STAGE_RUN;
    r->result.reason = reason;
    req_arm(r);
    if (r->forgotten) return; /* nobody is there to be told */
    r->tell_end = true;
    req_tell(r);
}

static void waited_too_long(struct weir_client_req *r)
{
    struct weir_pool *p = r->pool;
    pthread_mutex_lock(&p->lock);
    bool waits = r->state == REQ_WAITING;
    if (waits) {
        pool_unwait(p, r);
        p->timed_out++;
    }
    pthread_mutex_unlock(&p->lock);
    if (!waits) { /* granted: on its way to its thread, or held by a connection that takes no more */
        if (r->in_inbox) return;
        weir_list_remove(&r->link);
        leave_slot(r, NULL, false);
    }
    req_end(r, WEIR_TIMEOUT, WEIR_STAGE_QUEUE, "no free slot within the queue's time");
}

/* Which process has it, as long as that can be told. */
static void note_peer(struct weir_client_req *r)
{
    r->result.endpoint_id = r->ep->id;
    if (r->conn->shared || !r->ep->local) return;
    int64_t inode = weir_loop_peer(r->client->loop, r->conn->fd);
    r->result.peer = inode > 0 ? (uint64_t)inode : 0;
}

void req_timer(struct weir_client_req *r)
{
    uint64_t now_ms = weir_loop_now_ms(r->client->loop);
    if (earliest_ms(r) > now_ms) {
        req_arm(r);
        return;
    }
    if (r->state == REQ_RUNNING && r->aborted_us) {
        conn_retire(r->conn); /* its handler does not hear: others are not to suffer for that */
    } else if (r->state == REQ_WAITING || r->state == REQ_GRANTED) {
        waited_too_long(r);
    } else if (r->state == REQ_RUNNING && r->o.slow_ms && !r->slow_told && r->started_us / 1000 + r->o.slow_ms <= now_ms) {
        r->slow_told = r->tell_slow = true;
        note_peer(r);
        req_tell(r);
        req_timer(r); /* what else is due */
    } else if (r->state == REQ_RUNNING) {
        note_peer(r);
        bool silent = r->o.silent_ms && !waits_for_us(r) && r->heard_us / 1000 + r->o.silent_ms <= now_ms;
        req_stop(r, WEIR_TIMEOUT, silent ? "the application was silent for too long"
                                             : "the application took longer than the request may take");
    }
}

/* ---- starting ---- */

static uint32_t capacity(struct weir_pool *p)
{
    uint32_t n = 0;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (!ep->drain) n += endpoint_shared(ep) ? ep->limit : ep->workers;
    }
    return n;
}

/* Connections that may still be opened: who waits for one of them does not queue for a slot. */
static uint32_t openable(const struct weir_pool *p)
{
    uint32_t n = p->opening;
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        const struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (!ep->drain && !endpoint_shared(ep) && ep->conns < ep->workers) n += ep->workers - ep->conns;
    }
    return n;
}

static bool queue_takes(struct weir_pool *p, const struct weir_client_req *r)
{
    if (p->waiting_count >= p->queue_count && p->waiting_count >= p->queue_count + openable(p)) return false;
    uint32_t places = capacity(p);
    if (!places || !p->service_us) return true;
    return ((uint64_t)p->waiting_count + 1) * p->service_us / places <= (uint64_t)r->queue_ms * 1000;
}

int weir_client_begin(struct weir_client *c, struct weir_pool *p, const struct weir_client_begin_options *o,
                      struct weir_client_req **out)
{
    struct weir_client_req *r = req_new(c);
    if (!r) return WEIR_NOMEM;
    if (client_copy_options(&r->o, sizeof r->o, o) < 0 || (r->o.body_len == WEIR_CLIENT_UNKNOWN && r->o.data_len)) {
        req_recycle(r);
        return WEIR_INVALID;
    }
    r->pool = p;
    r->begun_us = r->since_us = c->loop->now_us;
    bool granted = false, refused = false;
    pthread_mutex_lock(&p->lock);
    if (p->refuses) {
        p->refused++;
        pool_changed(p, false);
        pthread_mutex_unlock(&p->lock);
        req_recycle(r);
        return WEIR_REFUSED;
    }
    r->queue_ms = o->queue_ms && o->queue_ms < p->queue_ms ? o->queue_ms : p->queue_ms;
    if (p->waiting_count == 0 && pool_take(p, r, c, c->loop->now_us)) {
        r->state = REQ_GRANTED;
        granted = true;
    } else if (!queue_takes(p, r)) {
        p->refused++;
        pool_changed(p, false);
        refused = true;
    } else {
        pool_wait(p, r, false);
    }
    pthread_mutex_unlock(&p->lock);
    if (refused) {
        req_recycle(r);
        return WEIR_LIMIT;
    }
    *out = r;
    if (granted) {
        req_start(r);
        if (r->state == REQ_RUNNING && r->tell_started) { /* told by the return value */
            r->tell_started = false;
            if (!r->tell_end && !r->tell_room) weir_list_remove(&r->ready_link);
            return 1;
        }
        return 0;
    }
    req_arm(r);
    pool_serve(p, c); /* opens a connection where that helps */
    return 0;
}

void req_start(struct weir_client_req *r)
{
    struct weir_client *c = r->client;
    if (r->forgotten) { /* given up on its way here */
        struct conn *k = r->conn;
        bool fresh = k && conn_attach(k) == WEIR_OK;
        r->started_us = c->loop->now_us;
        if (k && !fresh) conn_close(k, WEIR_SYSTEM, "cannot watch the connection");
        leave_slot(r, fresh ? k : NULL, false);
        req_recycle(r);
        return;
    }
    if (!r->ep) { /* nothing of the pool serves it */
        req_end(r, r->result.status, WEIR_STAGE_CONNECT, r->result.reason);
        return;
    }
    r->started_us = r->heard_us = c->loop->now_us;
    if (r->conn) {
        struct conn *k = r->conn;
        if (conn_attach(k) < 0) {
            r->conn = NULL;
            conn_close(k, WEIR_SYSTEM, "cannot watch the connection");
            leave_slot(r, NULL, false);
            req_end(r, WEIR_SYSTEM, WEIR_STAGE_CONNECT, "cannot watch the connection");
            return;
        }
        req_run_on(r, k);
        return;
    }
    if (!endpoint_shared(r->ep)) { /* it was when the slot was granted */
        req_requeue(r);
        pool_serve(r->pool, c);
        return;
    }
    bool own = !r->ep->flow && r->o.body_len > PLAIN_MPX_BODY;
    struct conn *k = own ? NULL : r->ep->shared[c->index];
    if (!k) k = conn_open(c, r->ep, own ? USE_OWN : USE_SHARED);
    if (!k) {
        leave_slot(r, NULL, false);
        req_end(r, WEIR_NOMEM, WEIR_STAGE_CONNECT, "out of memory");
        return;
    }
    if (conn_state(k) == CONN_ACTIVE && !k->final && !k->broken &&
        weir_wire_server_active(k->wire) < weir_wire_server_limit(k->wire)) {
        req_run_on(r, k);
    } else {
        weir_list_push_back(&k->pending, &r->link);
        req_arm(r);
    }
}

/* What a request may hold of the memory for output windows: a share of what is left. */
static uint32_t window_share(const struct weir_client *c)
{
    uint64_t left = c->o.window_memory > c->windows ? c->o.window_memory - c->windows : 0;
    uint64_t share = left / WINDOW_SHARE / WINDOW_MIN * WINDOW_MIN;
    uint32_t most = c->o.hold_memory < WINDOW_MAX ? c->o.hold_memory : WINDOW_MAX;
    uint32_t least = most < WINDOW_MIN ? most : WINDOW_MIN;
    return share > most ? most : share < least ? least : (uint32_t)share;
}

static void set_window(struct weir_client_req *r, uint32_t window)
{
    r->client->windows += window;
    r->client->windows -= r->window;
    r->window = window;
}

/* Streams that are written whole end. Where END_REQUEST does not prove that the worker is free, a ping behind the request will. */
static void end_streams(struct weir_client_req *r)
{
    struct conn *k = r->conn;
    bool whole = r->sent == r->o.body_len + r->o.data_len;
    if (r->sent == r->o.body_len && weir_wire_server_write_end(k->wire, r->id, WEIR_STDIN) < 0) conn_breaks(k); /* IOP-S4, FC1-6.1-e, FC1-6.3-e */
    if (!whole) return;
    if (r->o.role == WEIR_FILTER && weir_wire_server_write_end(k->wire, r->id, WEIR_DATA) < 0) conn_breaks(k); /* FC1-6.4-b */
    if (k->shared || !k->ep->prove || !endpoint_keeps(k->ep)) return;
    k->proving = weir_wire_server_ping(k->wire) == WEIR_OK;
}

void req_run_on(struct weir_client_req *r, struct conn *k)
{
    struct weir_client *c = r->client;
    set_window(r, 0);
    if (weir_wire_server_agreed(k->wire)) set_window(r, window_share(c));
    r->tries++;
    r->result.not_run = false;
    bool keep = !k->own && (k->shared || endpoint_keeps(k->ep)); /* FC1-3.5-a */
    int status = weir_wire_server_begin(k->wire, r->o.role, keep, r->window, r->o.params, r->o.param_count, r, &r->id);
    if (status < 0) {
        r->conn = NULL;
        if (k->shared) {
            leave_slot(r, NULL, false);
        } else {
            k->single = NULL;
            leave_slot(r, k, false);
        }
        req_end(r, status, WEIR_STAGE_CONNECT, status == WEIR_INVALID ? "the parameters cannot be sent" : "cannot begin");
        return;
    }
    k->again = !k->unused;
    k->unused = false;
    k->greeted = false;
    k->used_us = UINT64_MAX;
    if (!k->shared) k->single = r;
    r->conn = k;
    r->state = REQ_RUNNING;
    r->started_us = r->heard_us = c->loop->now_us;
    r->sent = r->received = 0;
    r->owed = 0;
    r->wants_room = false;
    if (r->o.body_len == 0) end_streams(r);
    conn_dirty(k);
    req_arm(r);
    r->tell_started = true;
    req_tell(r);
}

/* ---- ending ---- */

void req_end(struct weir_client_req *r, int status, enum weir_client_stage stage, const char *reason)
{
    if (r->forgotten) {
        req_recycle(r);
        return;
    }
    if (r->state == REQ_ENDED) return;
    r->state = REQ_ENDED;
    r->conn = NULL;
    if (!r->aborted_us) {
        r->result.status = status;
        r->result.stage = stage;
        r->result.reason = reason;
        r->tell_end = true;
    }
    r->result.total_us = r->client->loop->now_us - r->begun_us;
    req_tell(r);
}

/* Back to the head of the queue; whoever calls serves the pool afterwards. Its slot is given back. */
void req_requeue(struct weir_client_req *r)
{
    struct weir_endpoint *ep = r->ep;
    struct weir_pool *p = r->pool;
    if (r->forgotten) {
        leave_slot(r, NULL, false);
        req_recycle(r);
        return;
    }
    r->conn = NULL;
    r->tell_started = r->tell_room = r->tell_slow = r->slow_told = false;
    weir_list_remove(&r->ready_link);
    pthread_mutex_lock(&p->lock);
    if (r->slot) {
        ep->active--;
        p->active--;
        ep->retried++;
        r->slot = false;
        r->ep = NULL;
        endpoint_try_free(ep);
    }
    pool_wait(p, r, true);
    pthread_mutex_unlock(&p->lock);
    req_arm(r);
}

/* Somebody waits for it, and it may still wait; nothing of its answer was seen, and its body is at hand. (IOP-S9) */
static bool may_repeat(const struct weir_client_req *r)
{
    if (r->forgotten || r->aborted_us || r->received || r->tries >= MAX_TRIES || r->o.once) return false;
    if (r->client->loop->now_us - r->since_us >= (uint64_t)r->queue_ms * 1000) return false;
    return r->sent == 0 || r->o.body_kept;
}

void req_conn_lost(struct weir_client_req *r, int status, const char *reason)
{
    bool sent_nothing = r->result.not_run;
    if (may_repeat(r) && status != WEIR_TIMEOUT && (sent_nothing || (r->o.repeatable && (status == WEIR_CLOSED || status == WEIR_PROTOCOL)))) {
        if (!sent_nothing) r->ran = true;
        if (r->pool->balance.on && r->ep) r->refused_by = r->ep->id;
        req_requeue(r);
        return;
    }
    leave_slot(r, NULL, false);
    req_end(r, status, WEIR_STAGE_RUN, reason);
}

void req_wire_end(struct weir_client_req *r, const struct weir_wire_event *ev)
{
    struct conn *k = r->conn;
    if (!k->shared) k->single = NULL;
    k->paused = false; /* whoever has it next does not wait for this one's reader */
    if (r->aborted_us) k->aborted--;
    r->result.app_status = ev->app_status;
    r->result.protocol_status = ev->protocol_status;
    if (r->ep && r->ep->ailing) balance_answered(r->ep, r->client->loop->now_us);
    if (ev->not_run && r->received == 0) { /* FC1-5.5-d, FC1-5.5-e */
        r->result.not_run = true;
        if (may_repeat(r)) {
            r->refused_by = r->ep->id;
            req_requeue(r);
            if (k->shared) pool_serve(k->ep->pool, k->client);
            return; /* single: served when the connection has been read to its end */
        }
        leave_slot(r, NULL, false);
        req_end(r, WEIR_REFUSED, WEIR_STAGE_RUN,
                ev->protocol_status == WEIR_WIRE_UNKNOWN_ROLE ? "the application does not know this role" /* FC1-5.5-f */
                                                              : "the application refused: overloaded");
        return;
    }
    leave_slot(r, NULL, true);
    if (ev->protocol_status != WEIR_WIRE_REQUEST_COMPLETE) req_end(r, WEIR_CLOSED, WEIR_STAGE_RUN, "the application broke its answer off");
    else req_end(r, WEIR_OK, WEIR_STAGE_DONE, "complete"); /* FC1-5.5-c */
}

/* ---- body and output ---- */

/* It can go on, if it waited for us: its silence counts from now. */
static void heard(struct weir_client_req *r)
{
    r->heard_us = r->client->loop->now_us;
    req_arm(r);
}

int64_t weir_client_write(struct weir_client_req *r, const void *p, size_t len)
{
    struct conn *k = r->conn;
    const void *out;
    if (r->state != REQ_RUNNING || r->aborted_us) return WEIR_CLOSED;
    if (r->tell_started) return 0; /* on another connection now: its body begins anew with STARTED */
    bool data = r->sent >= r->o.body_len; /* STDIN has ended (FC1-6.1-a, FC1-6.4-b) */
    uint64_t left = (data ? r->o.data_len : 0) + r->o.body_len - r->sent;
    if (len > left + (data ? 0 : r->o.data_len)) return WEIR_INVALID; /* FC1-6.2-b, FC1-6.4-c, IOP-S5 */
    if (len > left) len = (size_t)left;
    size_t waiting = weir_wire_server_output(k->wire, &out);
    size_t room = waiting < OUTPUT_HIGH ? OUTPUT_HIGH - waiting : 0;
    int64_t n = 0;
    if (room) {
        n = weir_wire_server_write(k->wire, r->id, data ? WEIR_DATA : WEIR_STDIN, p, len < room ? len : room);
        if (n < 0) return n;
    }
    r->sent += (uint64_t)n;
    if (n && (r->sent == r->o.body_len || r->sent == r->o.body_len + r->o.data_len)) {
        end_streams(r);
    } else if ((size_t)n < len) {
        r->wants_room = k->room_wanted = true;
    }
    if (n || r->wants_room) heard(r);
    if (n) conn_dirty(k);
    return n;
}

int weir_client_end_body(struct weir_client_req *r)
{
    if (r->state != REQ_RUNNING || r->aborted_us) return WEIR_CLOSED;
    if (r->tell_started) return WEIR_AGAIN;
    if (r->o.body_len != WEIR_CLIENT_UNKNOWN) return WEIR_INVALID;
    r->o.body_len = r->sent;
    end_streams(r);
    heard(r);
    conn_dirty(r->conn);
    return WEIR_OK;
}

/* Credit for output that was taken off the application. */
static void give_credit(struct weir_client_req *r, size_t len)
{
    struct weir_wire_server *w = r->conn->wire;
    const void *out;
    size_t before = weir_wire_server_output(w, &out);
    if (r->window < WINDOW_MAX) { /* it began with less: more as soon as there is more */
        uint32_t share = window_share(r->client);
        if (share > r->window) {
            set_window(r, share);
            weir_wire_server_set_window(w, r->id, WEIR_STDOUT, share);
        }
    }
    weir_wire_server_consumed(w, r->id, WEIR_STDOUT, len);
    heard(r);
    if (weir_wire_server_output(w, &out) > before) conn_dirty(r->conn);
}

int req_hold(struct weir_client_req *r, const char *p, size_t len)
{
    struct weir_client *c = r->client;
    struct conn *k = r->conn;
    if (!r->held) {
        struct weir_spill_limits lim = {.memory = c->o.hold_memory, .max = c->o.hold_max};
        struct weir_ident id = {.kind = (uint8_t)(c->place.kind + KIND_SPILL)};
        r->held = weir_spill_new(c->loop, c->place.quota, &lim, id);
        if (!r->held) return WEIR_NOMEM;
        weir_spill_set_user(r->held, r);
    }
    int status = weir_spill_put(r->held, p, len);
    if (status < 0 || !k) return status;
    if (k->absorb) {
        r->owed += (uint32_t)len;
        req_held_written(r);
    } else if (k->shared && !weir_wire_server_agreed(k->wire)) {
        if (weir_spill_unwritten(r->held) > PLAIN_MPX_HOLD) return WEIR_LIMIT; /* others need this connection: it does not stop */
    } else if (!k->shared && weir_spill_full(r->held)) {
        k->paused = true;
    }
    return WEIR_OK;
}

void req_held_written(struct weir_client_req *r)
{
    struct conn *k = r->conn;
    if (!k || weir_spill_full(r->held)) return;
    if (k->paused) {
        k->paused = false;
        heard(r);
        if (weir_list_empty(&k->read_link) && r->client->reading != k) weir_list_push_back(&r->client->to_read, &k->read_link);
    }
    uint32_t owed = r->owed;
    r->owed = 0;
    if (owed && has_credit(r)) give_credit(r, owed);
}

/* The disk failed: what was held cannot be given any more, so the answer is cut. */
static void lose_held(struct weir_client_req *r)
{
    static const char why[] = "held output could not be stored or read back: is the temp folder's disk full?";
    weir_spill_free(r->held);
    r->held = NULL;
    if (r->state == REQ_RUNNING && !r->aborted_us) {
        req_stop(r, WEIR_SYSTEM, why);
        return;
    }
    r->result.status = WEIR_SYSTEM;
    r->result.stage = WEIR_STAGE_RUN;
    r->result.reason = why;
    r->tell_end = true;
    req_tell(r);
}

int weir_client_peek(struct weir_client_req *r, const char **p, size_t *len)
{
    if (!r->held) return WEIR_AGAIN;
    int status = weir_spill_peek(r->held, p, len);
    if (status == WEIR_SYSTEM) lose_held(r);
    return status == WEIR_OK ? WEIR_OK : WEIR_AGAIN;
}

void weir_client_consume(struct weir_client_req *r, size_t len)
{
    struct weir_client *c = r->client;
    bool credited = false;
    if (c->lent == r) {
        WEIR_ASSERT(len <= c->lent_bytes.len);
        c->lent_bytes.ptr += len;
        c->lent_bytes.len -= len;
    } else {
        credited = r->conn && r->conn->absorb; /* when it was held */
        weir_spill_consume(r->held, len);
        if (r->tell_end && weir_spill_left(r->held) == 0) req_tell(r);
        if (r->conn && r->conn->paused) req_held_written(r);
    }
    if (len && !credited && has_credit(r)) give_credit(r, len);
}

void weir_client_req_free(struct weir_client_req *r)
{
    struct weir_pool *p = r->pool;
    struct weir_client *c = r->client;
    if (r->state == REQ_WAITING || r->state == REQ_GRANTED) {
        pthread_mutex_lock(&p->lock);
        bool waits = r->state == REQ_WAITING;
        if (waits) pool_unwait(p, r);
        bool inbox = !waits && r->in_inbox;
        if (inbox) r->forgotten = true;
        pthread_mutex_unlock(&p->lock);
        if (inbox) return; /* its thread's inbox ends it */
        if (!waits) {
            weir_list_remove(&r->link); /* it waited for a connection to be agreed */
            leave_slot(r, NULL, false);
        }
        req_recycle(r);
        return;
    }
    if (r->state == REQ_ENDED) {
        req_recycle(r);
        return;
    }
    if (c->lent == r) c->lent = NULL;
    weir_list_remove(&r->ready_link);
    bool already = r->aborted_us != 0;
    r->tell_started = r->tell_room = r->tell_output = r->tell_slow = r->tell_end = false;
    r->forgotten = true;
    weir_spill_free(r->held);
    r->held = NULL;
    if (!already) req_stop(r, WEIR_ABORTED, "given up");
    /* r may be gone now, or it is when END comes */
}

void weir_client_req_where(const struct weir_client_req *r, char *out, size_t len)
{
    const struct weir_endpoint *ep = r->ep;
    char digits[20];
    struct weir_str s = ep && !ep->pid ? weir_cstr(ep->text) : ep ? weir_str(digits, weir_u64_text(digits, ep->pid)) : weir_cstr(r->ran_at);
    if (!len) return;
    if (s.len >= len) s.len = len - 1;
    memmove(out, s.ptr, s.len);
    out[s.len] = 0;
}

void weir_client_req_result(const struct weir_client_req *r, struct weir_client_result *out)
{
    *out = r->result;
    out->tries = r->tries;
    out->not_run = (out->not_run || r->tries == 0) && !r->ran;
    out->received = r->received;
    out->queued_us = (r->started_us ? r->started_us : r->client->loop->now_us) - r->begun_us;
    if (!out->total_us) out->total_us = r->client->loop->now_us - r->begun_us;
}

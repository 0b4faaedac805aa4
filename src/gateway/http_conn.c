/* SPDX-License-Identifier: MIT */
/* HTTP connections: reading into the parser, one exchange at a time (HTTP/1) or streams (http2_conn.c), writing at the end of the
 * turn, lingering close. What an exchange means is not known here. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "gateway/internal.h"

static struct weir_ident ident(const struct http_conn *h)
{
    return (struct weir_ident){.kind = KIND_HTTP, .index = h->index, .epoch = h->epoch};
}

/* Time-outs that hold before a route is known: those of the listener's default site. */
const struct weir_conf_route *http_limits(const struct http_conn *h)
{
    static const struct weir_conf_route none = {.header_ms = 15000, .body_ms = 60000, .idle_ms = 1000, .send_ms = 60000};
    const struct snapshot *s = h->worker->snap;
    const struct listener *l = snapshot_listener(s, h->listener);
    if (!l || l->default_site < 0) return &none;
    const struct weir_conf_site *conf = s->sites[l->default_site].conf;
    return &conf->routes[conf->route_count - 1];
}

static void set_timer(struct http_conn *h)
{
    uint64_t next = h->due_ms && (!h->send_due_ms || h->due_ms < h->send_due_ms) ? h->due_ms : h->send_due_ms;
    if (next && (!weir_timer_is_set(&h->timer) || next < h->timer.due_ms)) weir_timer_set(h->worker->loop, &h->timer, ident(h), next);
}

void http_arm(struct http_conn *h, uint32_t ms)
{
    h->due_ms = ms ? weir_loop_now_ms(h->worker->loop) + ms : 0;
    set_timer(h);
}

/* What holds for the answer that is sent. */
static const struct weir_conf_route *send_limits(const struct http_conn *h)
{
    return h->ex && h->ex->route ? h->ex->route->conf : http_limits(h);
}

void http_arm_send(struct http_conn *h)
{
    uint64_t now = weir_loop_now_ms(h->worker->loop);
    if (h->send_due_ms) { /* it is looked at when that is over */
        h->pace_send.progress_ms = now;
        return;
    }
    h->send_due_ms = now + pace_begin(&h->pace_send, send_limits(h), now, pace_taken(h));
    set_timer(h);
}

/* ---- the table ---- */

static bool table_grow(struct worker *w)
{
    uint32_t cap = w->conn_cap ? w->conn_cap * 2 : 64;
    struct http_conn **conns = realloc(w->conns, cap * sizeof(struct http_conn *));
    if (!conns) return false;
    w->conns = conns;
    uint32_t *free_index = realloc(w->free_index, cap * sizeof *free_index);
    if (!free_index) return false;
    w->free_index = free_index;
    w->conn_cap = cap;
    return true;
}

static struct http_conn *conn_new(struct worker *w)
{
    struct http_conn *h;
    if (w->free_count) {
        h = w->conns[w->free_index[--w->free_count]];
    } else {
        if (w->conn_top == w->conn_cap && !table_grow(w)) return NULL;
        h = calloc(1, sizeof *h);
        if (!h) return NULL;
        if (weir_http1_new(&h->parser, NULL) < 0) {
            free(h);
            return NULL;
        }
        h->index = w->conn_top;
        w->conns[w->conn_top++] = h;
    }
    return h;
}

void http_accepted(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener)
{
    struct http_conn *h = conn_new(w);
    if (!h) {
        weir_loop_close(w->loop, fd);
        worker_uncount(w);
        return;
    }
    uint32_t index = h->index, epoch = (h->epoch + 1) & 0xffffff;
    struct weir_http1 *parser = h->parser;
    *h = (struct http_conn){.worker = w, .index = index, .epoch = epoch, .parser = parser, .fd = fd,
                            .listener = listener, .in_use = true, .state = HTTP_IDLE};
    weir_list_init(&h->dirty_link);
    weir_http1_reset(parser);
    if (peer->ss_family == AF_INET) memcpy(&h->peer.v4, peer, sizeof h->peer.v4);
    else if (peer->ss_family == AF_INET6) memcpy(&h->peer.v6, peer, sizeof h->peer.v6);
    else h->peer.family = peer->ss_family;
    const struct listener *l = snapshot_listener(w->snap, listener);
    bool tls = l && l->conf->address.scheme == WEIR_SCHEME_HTTPS && !w->gw->trace;
    if (!guards_accepted(h, l) || weir_loop_add(w->loop, fd, ident(h), false) < 0 || (tls && weir_tls_new(&h->tls, w->gw->tls) < 0)) {
        http_close(h);
        return;
    }
    http_arm(h, w->hurries ? FIRST_MS : http_limits(h)->header_ms);
}

void http_close(struct http_conn *h)
{
    struct worker *w = h->worker;
    if (!h->in_use) return;
    h->in_use = false;
    weir_timer_clear(&h->timer);
    weir_list_remove(&h->dirty_link);
    weir_loop_close(w->loop, h->fd);
    h->fd = -1;
    weir_buf_fini(&h->out);
    weir_buf_fini(&h->in);
    guards_close(h);
    h->epoch = (h->epoch + 1) & 0xffffff;
    if (h->ex) {
        struct exchange *ex = h->ex;
        h->ex = NULL;
        exchange_gone(ex);
    }
    if (h->h2) http2_end(h);
    weir_tls_free(h->tls);
    h->tls = NULL;
    w->free_index[w->free_count++] = h->index;
    worker_uncount(w);
}

void http_dirty(struct http_conn *h)
{
    if (weir_list_empty(&h->dirty_link)) weir_list_push_back(&h->worker->dirty, &h->dirty_link);
}

size_t http_unsent(const struct http_conn *h)
{
    return weir_buf_len(&h->out) + (h->tls ? weir_buf_len(weir_tls_out(h->tls)) : 0);
}

/* ---- input ---- */

static bool may_read(const struct http_conn *h)
{
    switch (h->state) {
    case HTTP_IDLE: return http_unsent(h) < OUT_HIGH && !h->close_after;
    case HTTP_PROXY:
    case HTTP_HEAD: return true;
    case HTTP_STREAMS: return http_unsent(h) < OUT_HIGH; /* who does not read our frames sends none */
    case HTTP_LINGER: return h->lingered < LINGER_STEP;
    default: return exchange_wants_body(h->ex);
    }
}

/* A message begins: its exchange holds the strings of the head. */
static bool message_begins(struct http_conn *h)
{
    WEIR_ASSERT(h->in_use);
    h->ex = exchange_new(h->worker);
    if (!h->ex) {
        http_close(h);
        return false;
    }
    h->ex->http = h;
    h->state = HTTP_HEAD;
    weir_http1_expect(h->parser, &h->ex->arena);
    http_arm(h, http_limits(h)->header_ms);
    return true;
}

/* Time for more of the body, as long as we read it: it is not the client that is late when nobody takes it. */
static void arm_body(struct http_conn *h)
{
    if (h->ex->body_done || !h->ex->route) return;
    http_arm(h, pace_body(h->ex));
}

/* One parser event; false: no more for now. */
static bool take_event(struct http_conn *h)
{
    struct weir_http_event ev;
    if (weir_http1_next(h->parser, &ev) != WEIR_OK) return false;
    switch (ev.type) {
    case WEIR_HTTP_EV_HEAD:
        h->state = HTTP_EXCHANGE;
        http_arm(h, 0);
        exchange_begin(h->ex, weir_http1_request(h->parser));
        return h->in_use && h->state == HTTP_EXCHANGE && (h->ex->body_done || exchange_wants_body(h->ex));
    case WEIR_HTTP_EV_BODY:
        exchange_body(h->ex, ev.bytes);
        if (h->in_use && h->state == HTTP_EXCHANGE) arm_body(h);
        return h->in_use && h->state == HTTP_EXCHANGE && (exchange_wants_body(h->ex) || weir_http1_complete(h->parser));
    case WEIR_HTTP_EV_END: exchange_body_end(h->ex); return false;
    case WEIR_HTTP_EV_ERROR:
        h->state = HTTP_EXCHANGE;
        exchange_refuse(h->ex, ev.status, ev.reason);
        return false;
    default: return false;
    }
}

void http_refuse(struct http_conn *h, int status, const char *why)
{
    if (!message_begins(h)) return;
    h->state = HTTP_EXCHANGE;
    exchange_refuse(h->ex, status, why);
}

/* Parses bytes; how many of them were used. */
static size_t parse(struct http_conn *h, const char *p, size_t len)
{
    uint32_t epoch = h->epoch;
    if (h->state == HTTP_IDLE) {
        if (len >= 2 && !h->blank_seen && memcmp(p, "\r\n", 2) == 0) { /* some send one behind a body [RFC 9112 2.2]: no message begins */
            h->blank_seen = true;
            return 2;
        }
        h->blank_seen = false;
        if (!message_begins(h)) return len;
    }
    weir_http1_feed(h->parser, p, len);
    while (take_event(h)) {}
    return h->epoch == epoch ? weir_http1_consumed(h->parser) : len;
}

/* The first bytes of a connection tell whether it speaks HTTP/2 [RFC 9113 3.4]: how many of them were used for that. */
static size_t find_preface(struct http_conn *h, const char *p, size_t len)
{
    size_t used = 0;
    while (used < len && h->preface < PREFACE_LEN && p[used] == http2_preface[h->preface]) {
        h->preface++;
        used++;
    }
    if (h->preface < PREFACE_LEN && used == len) return used;
    uint8_t seen = h->preface;
    uint32_t epoch = h->epoch;
    h->preface = PREFACE_OVER;
    if (seen == PREFACE_LEN && http2_begin(h) < 0) {
        http_close(h);
        return len;
    }
    if (seen) http_input(h, http2_preface, seen);
    return h->epoch == epoch ? used : len;
}

void http_input(struct http_conn *h, const char *p, size_t len)
{
    uint32_t epoch = h->epoch;
    size_t used = h->preface == PREFACE_OVER ? 0 : find_preface(h, p, len);
    if (h->epoch == epoch && h->h2) {
        http2_input(h, p + used, len - used);
        return;
    }
    while (used < len && h->epoch == epoch && h->state != HTTP_LINGER && may_read(h)) {
        size_t n = parse(h, p + used, len - used);
        used += n;
        if (n == 0) break;
    }
    if (h->epoch != epoch) return;
    if (h->state == HTTP_LINGER) h->lingered += (uint32_t)(len - used);
    else if (used < len && weir_buf_append(&h->in, p + used, len - used) < 0) http_close(h);
}

/* No more requests come. Answers that are there still go: a client may close its half and read on [RFC 9112 9.6]. */
static void end_of_input(struct http_conn *h)
{
    struct exchange *ex = h->ex;
    h->pumping = h->readable = false;
    h->peer_closed = true;
    if (http_unsent(h) == 0 || (h->state != HTTP_IDLE && h->state != HTTP_HEAD)) {
        http_close(h);
        return;
    }
    h->ex = NULL; /* a head that stays a part */
    h->state = HTTP_IDLE;
    h->close_after = true;
    http_arm(h, 0);
    if (ex) exchange_gone(ex);
    http_dirty(h);
}

/* Reads and parses as long as somebody takes it. */
static void pump(struct http_conn *h)
{
    struct worker *w = h->worker;
    uint32_t epoch = h->epoch;
    if (h->pumping) return; /* on the stack already */
    h->pumping = true;
    for (int reads = 0; h->epoch == epoch && may_read(h);) {
        if (weir_buf_len(&h->in)) {
            struct weir_buf held = h->in;
            h->in = (struct weir_buf){0};
            http_input(h, weir_buf_ptr(&held), weir_buf_len(&held));
            bool stuck = h->epoch == epoch && weir_buf_len(&h->in) == weir_buf_len(&held);
            weir_buf_fini(&held);
            if (stuck) break;
            continue;
        }
        if (h->tls && h->state != HTTP_LINGER && h->state != HTTP_PROXY) {
            enum http_tls_input step = http_tls_input(h);
            if (step == HTTP_TLS_GOES_ON) continue;
            if (step != HTTP_TLS_MORE) {
                if (step == HTTP_TLS_FAILED) http_send_now(h); /* the alert */
                if (step == HTTP_TLS_FAILED) http_close(h);
                else end_of_input(h);
                return;
            }
        }
        if (!h->readable) break;
        if (reads++ == PUMP_READS) { /* whoever sends without end does not keep the others waiting */
            h->more = true;
            http_dirty(h);
            break;
        }
        int64_t n = weir_loop_read(w->loop, h->fd, w->scratch, SCRATCH);
        if (n == WEIR_AGAIN) {
            h->readable = false;
            break;
        }
        if (n < 0) {
            end_of_input(h);
            return;
        }
        if (n < SCRATCH && !h->peer_closed) h->readable = false;
        size_t told = h->state == HTTP_PROXY ? guards_proxy_input(h, w->scratch, (size_t)n) : 0;
        if (told == (size_t)n) continue; /* all of it, or it is closed */
        if (h->tls && h->state != HTTP_LINGER) http_tls_feed(h, w->scratch + told, (size_t)n - told);
        else http_input(h, w->scratch + told, (size_t)n - told);
    }
    if (h->epoch != epoch) return;
    h->pumping = false;
    if (h->tls && weir_tls_keep(h->tls) < 0) http_close(h);
}

/* Drops input; the timer goes on with what is left, or ends it. */
static void linger_on(struct http_conn *h)
{
    uint32_t epoch = h->epoch;
    uint64_t now = weir_loop_now_ms(h->worker->loop);
    uint64_t left = h->linger_until_ms > now ? h->linger_until_ms - now : 0;
    h->lingered = 0;
    pump(h);
    if (h->epoch != epoch) return;
    if (left == 0) http_close(h);
    else http_arm(h, h->readable ? 1 : left < LINGER_IDLE_MS ? (uint32_t)left : LINGER_IDLE_MS);
}

void http_event(struct worker *w, const struct weir_event *ev)
{
    if (ev->ident.index >= w->conn_top) return;
    struct http_conn *h = w->conns[ev->ident.index];
    if (h->epoch != ev->ident.epoch || !h->in_use) return;
    if (ev->ready & WEIR_READY_TIMER) {
        http_timer(h);
        return;
    }
    uint32_t epoch = h->epoch;
    if (ev->ready & WEIR_READY_CLOSED) h->peer_closed = true;
    if (ev->ready & WEIR_READY_WRITE) http_dirty(h);
    if (ev->ready & WEIR_READY_READ) {
        h->readable = true;
        if (h->state == HTTP_LINGER) linger_on(h);
        else pump(h);
    }
    http_left(h, epoch);
}

void http_left(struct http_conn *h, uint32_t epoch)
{
    if (h->epoch != epoch || !h->in_use || !h->peer_closed || h->state != HTTP_EXCHANGE) return;
    if (http_unsent(h) == 0 && exchange_waits_for_app(h->ex)) http_close(h); /* else the answers before it go first */
}

void http_resume(struct http_conn *h)
{
    if (h->state == HTTP_EXCHANGE) arm_body(h);
    pump(h);
}

/* ---- time ---- */

void http_timer(struct http_conn *h)
{
    uint64_t now = weir_loop_now_ms(h->worker->loop);
    if (h->send_due_ms && h->send_due_ms <= now) {
        uint32_t ms = pace_look(&h->pace_send, send_limits(h), now, pace_taken(h));
        if (!ms) {
            if (h->ex) h->ex->why = "the client took its answer too slowly, or not at all";
            http_close(h);
            return;
        }
        h->send_due_ms = now + ms;
    }
    if (!h->due_ms || h->due_ms > now) { /* there was progress since */
        set_timer(h);
        return;
    }
    h->due_ms = 0;
    switch (h->state) {
    case HTTP_HEAD:
        h->state = HTTP_EXCHANGE;
        exchange_refuse(h->ex, 408, "the request head did not arrive in time");
        break;
    case HTTP_STREAMS: http2_timer(h); break;
    case HTTP_EXCHANGE:
        if (!h->ex->body_done && !h->ex->head_written)
            exchange_fail(h->ex, 408, "the request body did not arrive in time");
        else http_close(h);
        break;
    case HTTP_LINGER:
        if (h->readable) linger_on(h);
        else http_close(h);
        break;
    default: http_close(h); break;
    }
}

/* ---- output ---- */

void http_linger(struct http_conn *h)
{
    if (h->tls) weir_tls_close(h->tls);
    if (h->tls) http_send_now(h);
    bool more = h->readable || weir_buf_len(&h->in) || !weir_http1_idle(h->parser);
    if (h->peer_closed || !more) {
        http_close(h);
        return;
    }
    h->state = HTTP_LINGER;
    weir_buf_reset(&h->in, 0);
    weir_loop_shutdown_write(h->worker->loop, h->fd);
    h->linger_until_ms = weir_loop_now_ms(h->worker->loop) + LINGER_MS;
    linger_on(h);
}

void http_next(struct http_conn *h)
{
    h->ex = NULL;
    h->state = HTTP_IDLE;
    h->served = true;
    http_dirty(h);
    if (h->worker->hurries) h->close_after = true; /* else it was told that it may ask again: the next answer ends it */
    if (h->close_after) return; /* the flush ends it */
    if (!h->send_due_ms) http_arm(h, http_limits(h)->idle_ms); /* else when all is sent */
    pump(h);
}

/* Once, as much as the socket takes: bytes, WEIR_AGAIN, or another error. */
static int64_t write_some(struct http_conn *h)
{
    if (h->tls && !http_tls_seal(h)) return WEIR_NOMEM;
    struct weir_buf *out = h->tls ? weir_tls_out(h->tls) : &h->out;
    struct iovec v = {weir_buf_ptr(out), weir_buf_len(out)};
    int64_t n = weir_loop_writev(h->worker->loop, h->fd, &v, 1, false);
    if (n > 0) weir_buf_consume(out, (size_t)n);
    if (h->tls && weir_buf_len(out) == 0) weir_buf_fini(out);
    return n;
}

bool http_write_out(struct http_conn *h)
{
    if (!http_unsent(h)) return true;
    int64_t n = write_some(h), all = n;
    while (n > 0 && h->tls && http_unsent(h)) { /* it was more than is encrypted at once */
        n = write_some(h);
        if (n > 0) all += n;
    }
    if (n == WEIR_AGAIN) n = 0;
    if (n < 0) {
        http_close(h);
        return false;
    }
    n = all > 0 ? all : 0;
    h->written += (uint64_t)n;
    bool want = http_unsent(h) > 0;
    if (want && (n > 0 || !h->send_due_ms)) {
        if (h->state == HTTP_IDLE) h->due_ms = 0; /* it is not idle before it has all */
        http_arm_send(h);
    } else if (!want && h->send_due_ms) {
        h->send_due_ms = 0;
        if (h->state == HTTP_IDLE) http_arm(h, http_limits(h)->idle_ms);
    }
    if (want != h->want_write && weir_loop_want_write(h->worker->loop, h->fd, ident(h), want) == WEIR_OK)
        h->want_write = want;
    return true;
}

void http_want_write(struct http_conn *h)
{
    if (h->want_write) return;
    if (weir_loop_want_write(h->worker->loop, h->fd, ident(h), true) == WEIR_OK) h->want_write = true;
    if (!h->send_due_ms) http_arm_send(h);
}

void http_send_now(struct http_conn *h)
{
    if (http_unsent(h) && write_some(h) < 0) return; /* it is closed next anyway */
}

void http_flush(struct http_conn *h)
{
    uint32_t epoch = h->epoch;
    if (h->more) { /* also where nothing can be sent: its client may read when it has sent all */
        h->more = false;
        if (h->state == HTTP_LINGER) linger_on(h);
        else pump(h);
        if (h->epoch != epoch) return;
    }
    if (h->h2) {
        http2_flush(h);
        if (h->epoch == epoch && h->readable && h->in_use) pump(h);
        return;
    }
    if (h->ex && h->state == HTTP_EXCHANGE) exchange_commit(h->ex);
    if (h->epoch != epoch || !h->in_use || !http_write_out(h)) return;
    if (http_unsent(h) == 0) {
        worker_spare(h->worker, &h->out);
        if (h->ex && h->state == HTTP_EXCHANGE) {
            exchange_room(h->ex);
        } else if (h->state == HTTP_IDLE && h->close_after) {
            http_linger(h);
        } else if (h->state == HTTP_IDLE && (weir_buf_len(&h->in) || h->readable || h->tls)) { /* tls: it may hold records */
            pump(h);
        }
        http_left(h, epoch);
    }
}

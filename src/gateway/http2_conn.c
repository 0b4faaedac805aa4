/* SPDX-License-Identifier: MIT */
/* Connections that speak HTTP/2: their streams, each with an exchange, from which frames are pulled when the turn ends. Sockets,
 * time for the connection as a whole and the lingering close are http_conn.c's. */
#include <stdlib.h>

#include "gateway/internal.h"

#define BODY_STEP    65536
#define FLUSH_ROUNDS 8

const char http2_preface[PREFACE_LEN + 1] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

int http2_begin(struct http_conn *h)
{
    struct http2 *h2 = calloc(1, sizeof *h2);
    if (!h2) return WEIR_NOMEM;
    if (weir_http2_new(&h2->session, NULL, h->worker->http2_memory) < 0) {
        free(h2);
        return WEIR_NOMEM;
    }
    weir_list_init(&h2->dirty);
    h->h2 = h2;
    h->state = HTTP_STREAMS;
    http_dirty(h);
    return WEIR_OK;
}

/* ---- streams ---- */

static struct stream *stream_new(struct http_conn *h, struct weir_http2_stream *wire)
{
    struct worker *w = h->worker;
    struct stream *s = w->free_streams;
    if (s) {
        w->free_streams = s->next_free;
        w->free_stream_count--;
    } else {
        s = malloc(sizeof *s);
        if (!s) return NULL;
    }
    h->h2->stream_count++;
    *s = (struct stream){.conn = h, .wire = wire, .limit = UINT64_MAX};
    weir_list_init(&s->dirty_link);
    weir_http2_set_user(wire, s);
    return s;
}

/* Nothing goes on it any more: an exchange that is not over has lost its client. */
static void stream_free(struct stream *s)
{
    struct worker *w = s->conn->worker;
    struct exchange *ex = s->ex;
    s->ex = NULL;
    weir_timer_clear(&s->timer);
    weir_list_remove(&s->dirty_link);
    weir_http2_credit_others(s->wire, weir_buf_len(&s->in));
    weir_buf_fini(&s->in);
    weir_http2_set_user(s->wire, NULL);
    if (ex) exchange_gone(ex);
    s->conn->h2->stream_count--;
    s->due_ms = s->send_due_ms = 0; /* its timer may be among the events of this turn: it finds nothing to do */
    s->next_free = w->free_streams;
    w->free_streams = s;
    w->free_stream_count++;
}

void stream_trim(struct worker *w, uint32_t most)
{
    while (w->free_stream_count > most) {
        struct stream *s = w->free_streams;
        w->free_streams = s->next_free;
        w->free_stream_count--;
        free(s);
    }
}

static void set_timer(struct stream *s)
{
    uint64_t next = s->due_ms && (!s->send_due_ms || s->due_ms < s->send_due_ms) ? s->due_ms : s->send_due_ms;
    if (next && (!weir_timer_is_set(&s->timer) || next < s->timer.due_ms))
        weir_timer_set(s->conn->worker->loop, &s->timer, (struct weir_ident){.kind = KIND_STREAM}, next);
}

void stream_arm(struct stream *s, uint32_t ms)
{
    s->due_ms = ms ? weir_loop_now_ms(s->conn->worker->loop) + ms : 0;
    set_timer(s);
}

static const struct weir_conf_route *limits(const struct stream *s)
{
    return s->ex && s->ex->route ? s->ex->route->conf : http_limits(s->conn);
}

void stream_wrote(struct stream *s)
{
    uint64_t now = weir_loop_now_ms(s->conn->worker->loop);
    if (s->send_due_ms) return;
    s->send_due_ms = now + pace_begin(&s->pace, limits(s), now, weir_http2_taken(s->wire));
    set_timer(s);
}

void stream_dirty(struct stream *s)
{
    if (weir_list_empty(&s->dirty_link)) weir_list_push_back(&s->conn->h2->dirty, &s->dirty_link);
    http_dirty(s->conn);
}

void stream_over(struct stream *s)
{
    s->ex = NULL;
    s->due_ms = 0;
    weir_http2_credit_others(s->wire, weir_buf_len(&s->in));
    weir_buf_fini(&s->in);
    weir_http2_write_end(s->wire);
    stream_wrote(s); /* its end waits, too, if nothing else does */
    if (s->conn->worker->draining) http2_leave(s->conn);
    http_dirty(s->conn);
}

void stream_abort(struct stream *s)
{
    struct exchange *ex = s->ex;
    s->ex = NULL;
    weir_http2_reset(s->wire);
    http_dirty(s->conn);
    exchange_gone(ex);
}

/* What waited was taken too slowly: the client's mistake, or its wish. While the connection itself waits for its client, other streams
 * may be before this one, and that connection's own pace counts. */
static void send_late(struct stream *s)
{
    uint64_t now = weir_loop_now_ms(s->conn->worker->loop), taken = weir_http2_taken(s->wire);
    s->send_due_ms = 0;
    if (s->ex ? weir_http2_waiting(s->wire) == 0 : weir_http2_answered(s->wire)) return;
    uint32_t ms = s->conn->send_due_ms ? pace_begin(&s->pace, limits(s), now, taken) : pace_look(&s->pace, limits(s), now, taken);
    if (ms) s->send_due_ms = now + ms;
    else if (s->ex) stream_abort(s);
    else weir_http2_reset(s->wire);
    http_dirty(s->conn);
}

void stream_timer(struct weir_timer *t)
{
    struct stream *s = WEIR_CONTAINER(t, struct stream, timer);
    uint64_t now = weir_loop_now_ms(s->conn->worker->loop);
    if (s->send_due_ms && s->send_due_ms <= now) send_late(s);
    if (s->due_ms && s->due_ms <= now) {
        s->due_ms = 0;
        if (s->ex && !s->ex->body_done && !s->ex->head_written) exchange_fail(s->ex, 408, "the request body did not arrive in time");
        else if (s->ex) stream_abort(s);
        else weir_http2_stop(s->wire);
        http_dirty(s->conn);
    }
    set_timer(s);
}

/* ---- requests ---- */

static void begin(struct http_conn *h, struct weir_http2_stream *wire)
{
    struct weir_http_request *req = NULL;
    struct stream *s = stream_new(h, wire);
    struct exchange *ex = s ? exchange_new(h->worker) : NULL;
    int status;
    const char *why;
    if (!ex) {
        weir_http2_reset(wire);
        return;
    }
    http_arm(h, 0);
    h->served = true;
    ex->http = h;
    ex->stream = s;
    s->ex = ex;
    if (weir_http2_request(wire, &ex->arena, &req, &status, &why) == WEIR_OK) exchange_begin(ex, req);
    else exchange_refuse(ex, status, why);
}

/* As in arm_body of http_conn.c: the client is late only while somebody takes its body. */
static void arm_body(struct stream *s)
{
    struct exchange *ex = s->ex;
    if (ex->body_done || !ex->route) return;
    stream_arm(s, pace_body(ex));
}

static void give(struct stream *s, struct weir_str bytes)
{
    exchange_body(s->ex, bytes);
    if (!s->ex) weir_http2_credit_others(s->wire, bytes.len);
    else weir_http2_credit(s->wire, bytes.len);
    if (s->ex) arm_body(s);
}

/* Where its limit is known, and nothing else is on its way. */
static bool too_large(const struct stream *s)
{
    return s->came > s->limit && !s->ex->method_override;
}

static void on_body(struct stream *s, struct weir_str bytes)
{
    if (!s->ex) {
        weir_http2_credit_others(s->wire, bytes.len);
        return;
    }
    s->came += bytes.len;
    if (too_large(s)) {
        weir_http2_credit_others(s->wire, bytes.len);
        exchange_fail(s->ex, 413, "the request body is larger than allowed");
    } else if (weir_buf_len(&s->in) == 0 && exchange_wants_body(s->ex)) {
        give(s, bytes);
    } else if (weir_buf_append(&s->in, bytes.ptr, bytes.len) < 0) {
        weir_http2_credit_others(s->wire, bytes.len);
        stream_abort(s);
    }
}

void stream_resume(struct stream *s)
{
    if (s->pumping) return; /* on the stack already */
    if (s->ex && too_large(s)) { /* it came before its limit was known */
        exchange_fail(s->ex, 413, "the request body is larger than allowed");
        return;
    }
    s->pumping = true;
    while (s->ex && weir_buf_len(&s->in) && exchange_wants_body(s->ex)) {
        struct weir_buf held = s->in;
        size_t n = weir_buf_len(&held) < BODY_STEP ? weir_buf_len(&held) : BODY_STEP;
        s->in = (struct weir_buf){0}; /* what gives it may end the stream */
        give(s, weir_str(weir_buf_ptr(&held), n));
        weir_buf_consume(&held, n);
        if (s->ex) s->in = held;
        else {
            weir_http2_credit_others(s->wire, weir_buf_len(&held));
            weir_buf_fini(&held);
        }
    }
    s->pumping = false;
    if (s->ex && s->end_came && weir_buf_len(&s->in) == 0 && !s->ex->body_done) exchange_body_end(s->ex);
    else if (s->ex) arm_body(s);
    http_dirty(s->conn);
}

static void on_end(struct stream *s)
{
    s->end_came = true;
    if (s->ex && weir_buf_len(&s->in) == 0) exchange_body_end(s->ex);
}

static void take(struct http_conn *h, const struct weir_http2_event *ev)
{
    struct stream *s = weir_http2_user(ev->stream);
    if (ev->type == WEIR_HTTP2_EV_HEAD) {
        begin(h, ev->stream);
        return;
    }
    if (!s) { /* there was no memory for it */
        if (ev->type == WEIR_HTTP2_EV_BODY) weir_http2_credit_others(ev->stream, ev->bytes.len);
        return;
    }
    switch (ev->type) {
    case WEIR_HTTP2_EV_HEAD: break;
    case WEIR_HTTP2_EV_BODY: on_body(s, ev->bytes); break;
    case WEIR_HTTP2_EV_END: on_end(s); break;
    case WEIR_HTTP2_EV_ROOM:
        if (s->ex) exchange_room(s->ex);
        break;
    case WEIR_HTTP2_EV_ANSWERED:
        if (!s->end_came) stream_arm(s, STOP_MS);
        break;
    case WEIR_HTTP2_EV_CLOSED:
        stream_free(s);
        if (h->h2->stream_count == 0) h->due_ms = 0;
        break;
    }
}

static void take_events(struct http_conn *h)
{
    struct weir_http2_event ev;
    int status;
    while ((status = weir_http2_next(h->h2->session, &ev)) == WEIR_OK) take(h, &ev);
    if (status < 0 && status != WEIR_AGAIN) h->h2->failed = true;
    if (h->h2->stream_count == 0 && !h->due_ms) http_arm(h, weir_http2_streams(h->h2->session) ? http_limits(h)->header_ms : http_limits(h)->idle_ms);
}

void http2_input(struct http_conn *h, const char *p, size_t len)
{
    if (h->h2->failed) return;
    weir_http2_feed(h->h2->session, p, len, weir_loop_now_ms(h->worker->loop));
    take_events(h);
    http_dirty(h);
}

/* ---- output ---- */

static void commit(struct http_conn *h)
{
    struct weir_list now;
    weir_list_init(&now);
    weir_list_splice(&now, &h->h2->dirty);
    while (!weir_list_empty(&now)) {
        struct stream *s = WEIR_CONTAINER(now.next, struct stream, dirty_link);
        weir_list_remove(&s->dirty_link);
        if (s->ex) exchange_commit(s->ex);
    }
}

/* True: all that there was to send is sent. */
static bool send_frames(struct http_conn *h)
{
    for (int round = 0; round < FLUSH_ROUNDS; round++) {
        commit(h);
        if (weir_http2_pull(h->h2->session, &h->out, OUT_HIGH) < 0) {
            http_close(h);
            return false;
        }
        take_events(h);
        if (!http_write_out(h)) return false;
        weir_list_remove(&h->dirty_link);
        if (http_unsent(h)) return false; /* the socket tells when it has room */
        if (!weir_http2_wants_write(h->h2->session) && weir_list_empty(&h->h2->dirty)) return true;
    }
    http_dirty(h); /* others have their turn first */
    return false;
}

void http2_flush(struct http_conn *h)
{
    if (!send_frames(h)) return;
    worker_spare(h->worker, &h->out);
    if (!h->h2->failed && !weir_http2_over(h->h2->session)) return;
    http2_end(h);
    http_linger(h);
}

void http2_end(struct http_conn *h)
{
    struct http2 *h2 = h->h2;
    struct weir_http2_stream *wire = NULL;
    while ((wire = weir_http2_any(h2->session, wire)) != NULL)
        if (weir_http2_user(wire)) stream_free(weir_http2_user(wire));
    h->h2 = NULL;
    weir_http2_free(h2->session);
    free(h2);
}

void http2_timer(struct http_conn *h)
{
    weir_http2_leave(h->h2->session, true);
    if (h->h2->stream_count == 0) h->h2->failed = true; /* a head that stays incomplete is not waited for */
    http_dirty(h);
}

void http2_leave(struct http_conn *h)
{
    weir_http2_leave(h->h2->session, h->worker->hurries);
    http_dirty(h);
}

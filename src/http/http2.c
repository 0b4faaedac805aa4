/* SPDX-License-Identifier: MIT */
/* HTTP/2 [RFC 9113] on nghttp2, which owns frames, HPACK, windows and the states of streams. Here: its callbacks become a
 * queue of events, heads become requests under the rules of HTTP/1, content waits until nghttp2 asks for it.
 * Memory of a hostile client is bounded: input is taken in slices, a head has a limit, content beyond the window is a
 * mistake, output is pulled. Frames that cost time and bring nothing are paid from a budget; who spends it is told
 * ENHANCE_YOUR_CALM (CVE-2023-44487, CVE-2025-8671, CVE-2019-9512 to 9518). */
#include <stdlib.h>

#include "http/internal.h"

#define SLICE         4096u          /* input between two looks at the events: HPACK makes 32 KiB of fields of a few bytes */
#define FIELDS_MOST   1000u          /* of a head that is too large anyway: beyond it the stream ends */
#define CONTENT_LEAST (16u << 10)    /* content that a stream may always hold */
#define CONTENT_HIGH  (64u << 10)    /* ... while those of the connection together hold less than */
#define CONTENT_ALL   (1u << 20)
#define BUDGET        1000u          /* for frames that bring nothing; */
#define BUDGET_PER_MS 1u             /* tenths: a hundred a second come back */
enum cost { COST_FRAME = 1, COST_EMPTY = 2, COST_RESET = 5 };

struct weir_http2_stream {
    struct weir_list link;
    struct weir_http2 *conn;
    void *user;
    struct weir_buf fields;   /* of its head, until it is taken: u32 name length, u32 value length, bytes */
    struct weir_buf content;
    uint64_t taken;
    uint32_t field_count, field_bytes;
    int32_t id;
    bool too_large;           /* the head */
    bool head_last;           /* END_STREAM came with it */
    bool known;               /* HEAD is queued; */
    bool told;                /* and was given */
    bool remote_ended, ended, closed;
    bool answered;            /* the last frame of the answer left */
    bool deferred;            /* nghttp2 waits for content */
    bool wants_room;          /* somebody waits to write more */
    bool ours;                /* we break it off: not the client's doing */
};
struct weir_http2 {
    nghttp2_session *session;
    struct weir_http2_memory *memory;
    struct weir_http2_limits limits;
    struct weir_list streams;
    struct weir_http2_event *events;
    size_t event_at, event_count, event_cap;
    struct weir_http2_stream *gone; /* CLOSED was given */
    const uint8_t *p, *end;         /* lent */
    nghttp2_nv *nv;                 /* of a head that is being sent */
    size_t nv_cap;
    struct weir_buf names;
    uint64_t budget_at_ms;
    uint32_t budget;                /* in tenths */
    uint32_t stream_count;
    size_t content;                 /* of all streams */
    bool failed, left;
};

/* ---- streams and events ---- */

static struct weir_http2_stream *stream_new(struct weir_http2 *p, int32_t id)
{
    struct weir_http2_stream *s = http2_memory_zeroed(p->memory, sizeof *s);
    if (!s) return NULL;
    s->conn = p;
    s->id = id;
    s->fields = http2_memory_buf(p->memory);
    s->content = http2_memory_buf(p->memory);
    weir_list_push_back(&p->streams, &s->link);
    p->stream_count++;
    return s;
}

static void stream_free(struct weir_http2_stream *s)
{
    s->conn->content -= weir_buf_len(&s->content);
    weir_list_remove(&s->link);
    http2_memory_give_buf(s->conn->memory, &s->fields);
    http2_memory_give_buf(s->conn->memory, &s->content);
    http2_memory_give(s->conn->memory, s);
}

static int event_add(struct weir_http2 *p, enum weir_http2_event_type type, struct weir_http2_stream *s, struct weir_str bytes)
{
    if (p->event_count == p->event_cap) {
        size_t cap = p->event_cap ? p->event_cap * 2 : 16;
        struct weir_http2_event *grown = realloc(p->events, cap * sizeof *grown);
        if (!grown) return NGHTTP2_ERR_CALLBACK_FAILURE;
        p->events = grown;
        p->event_cap = cap;
    }
    p->events[p->event_count++] = (struct weir_http2_event){.type = type, .stream = s, .bytes = bytes};
    return 0;
}

static int event_add_plain(struct weir_http2_stream *s, enum weir_http2_event_type type)
{
    return event_add(s->conn, type, s, (struct weir_str){0});
}

/* A frame that costs time and brings nothing. */
static void pay(struct weir_http2 *p, enum cost cost)
{
    uint32_t tenths = (uint32_t)cost * 10;
    if (p->failed) return;
    if (p->budget >= tenths) {
        p->budget -= tenths;
        return;
    }
    p->failed = true;
    if (nghttp2_session_terminate_session(p->session, NGHTTP2_ENHANCE_YOUR_CALM) != 0) p->left = true; /* it ends without a word */
}

/* ---- from nghttp2 ---- */

static struct weir_http2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct weir_http2_stream *s = stream_new(arg, frame->hd.stream_id);
    if (!s) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, s) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
                     size_t value_len, uint8_t flags, void *arg)
{
    struct weir_http2 *p = arg;
    struct weir_http2_stream *s = stream_of(session, frame->hd.stream_id);
    uint32_t lens[2] = {(uint32_t)name_len, (uint32_t)value_len};
    (void)flags;
    if (!s || s->known) return 0; /* trailers are nobody's header fields (CVE-2025-12642) */
    s->field_bytes += lens[0] + lens[1] + 2;
    if (++s->field_count > FIELDS_MOST) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (s->field_bytes > p->limits.head || s->field_count > p->limits.headers + 4) s->too_large = true; /* 4 are pseudo fields */
    if (s->too_large && name[0] != ':') return 0;
    if (s->field_bytes > 2 * p->limits.head) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (weir_buf_append(&s->fields, lens, sizeof lens) < 0 || weir_buf_append(&s->fields, name, name_len) < 0 ||
        weir_buf_append(&s->fields, value, value_len) < 0)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return 0;
}

static int head_came(struct weir_http2_stream *s, bool last)
{
    s->known = true;
    s->head_last = last;
    return event_add_plain(s, WEIR_HTTP2_EV_HEAD);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct weir_http2 *p = arg;
    struct weir_http2_stream *s = NULL;
    bool last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        s = stream_of(session, frame->hd.stream_id);
        if (s && !s->known && head_came(s, last) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
        break;
    case NGHTTP2_DATA:
        s = stream_of(session, frame->hd.stream_id);
        if (frame->hd.length <= frame->data.padlen && !last) pay(p, COST_EMPTY);
        break;
    case NGHTTP2_RST_STREAM: pay(p, COST_RESET); return 0;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) pay(p, COST_RESET);
        return 0;
    case NGHTTP2_PING: pay(p, COST_FRAME); return 0;
    default: return 0;
    }
    if (!s || !last) return 0;
    s->remote_ended = true;
    return event_add_plain(s, WEIR_HTTP2_EV_END);
}

/* Those that nghttp2 passes over. Types that it does not know cost no more than their bytes. */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    (void)session;
    if (hd->type == NGHTTP2_PRIORITY) pay(arg, COST_FRAME);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    struct weir_http2 *p = arg;
    struct weir_http2_stream *s = stream_of(session, id);
    (void)flags;
    if (!s || !s->known) return nghttp2_session_consume(session, id, len) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    return event_add(p, WEIR_HTTP2_EV_BODY, s, weir_str((const char *)data, len));
}

static int on_invalid(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    (void)session, (void)frame, (void)error;
    pay(arg, COST_RESET);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct weir_http2 *p = arg;
    struct weir_http2_stream *s = stream_of(session, id);
    (void)code;
    if (!s) return 0;
    s->closed = true;
    p->stream_count--;
    if (s->known) return event_add_plain(s, WEIR_HTTP2_EV_CLOSED);
    stream_free(s);
    return 0;
}

/* An answer's head that it does not send would leave its stream open for ever. */
static int on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
    (void)error, (void)arg;
    if (frame->hd.type == NGHTTP2_HEADERS) (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
    return 0;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct weir_http2_stream *s = stream_of(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR && !(s && s->ours)) pay(arg, COST_RESET);
    bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (!s || !ends) return 0;
    s->answered = true;
    return s->remote_ended ? 0 : event_add_plain(s, WEIR_HTTP2_EV_ANSWERED);
}

static ssize_t read_content(nghttp2_session *session, int32_t id, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct weir_http2 *p = arg;
    struct weir_http2_stream *s = source->ptr;
    size_t len = weir_buf_len(&s->content), n = len < room ? len : room;
    (void)session, (void)id;
    if (n == 0 && !s->ended) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n) memcpy(to, weir_buf_ptr(&s->content), n);
    weir_buf_consume(&s->content, n);
    p->content -= n;
    s->taken += n;
    if (n == len) weir_buf_reset(&s->content, CONTENT_LEAST);
    if (n == len && s->ended) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!s->ended && s->wants_room && len - n < CONTENT_LEAST / 2) {
        s->wants_room = false;
        if (event_add_plain(s, WEIR_HTTP2_EV_ROOM) != 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)n;
}

/* ---- life ---- */

static int session_new(struct weir_http2 *p)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *o;
    if (nghttp2_session_callbacks_new(&cb) != 0) return WEIR_NOMEM;
    if (nghttp2_option_new(&o) != 0) {
        nghttp2_session_callbacks_del(cb);
        return WEIR_NOMEM;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_settings(o, 32);
    nghttp2_option_set_max_send_header_block_length(o, 256u << 10); /* of all that an application may send; its own limit is smaller */
    nghttp2_mem memory = http2_memory_functions(p->memory);
    int status = nghttp2_session_server_new3(&p->session, cb, p, o, p->memory ? &memory : NULL);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    if (status != 0) return WEIR_NOMEM;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, p->limits.streams},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, p->limits.window},
                                               {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, p->limits.head},
                                               {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
    if (nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, settings, WEIR_COUNT(settings)) != 0 ||
        nghttp2_session_set_local_window_size(p->session, NGHTTP2_FLAG_NONE, 0, (int32_t)p->limits.conn_window) != 0)
        return WEIR_NOMEM;
    return WEIR_OK;
}

int weir_http2_new(struct weir_http2 **out, const struct weir_http2_limits *l, struct weir_http2_memory *m)
{
    static const struct weir_http2_limits none;
    struct weir_http2 *p = calloc(1, sizeof *p);
    if (!p) return WEIR_NOMEM;
    p->memory = m;
    p->limits = l ? *l : none;
    if (!p->limits.head) p->limits.head = 32768;
    if (!p->limits.headers) p->limits.headers = 100;
    if (!p->limits.streams) p->limits.streams = 100;
    if (!p->limits.window) p->limits.window = 262144;
    if (!p->limits.conn_window) p->limits.conn_window = 1u << 20;
    p->budget = BUDGET * 10;
    weir_list_init(&p->streams);
    if (session_new(p) < 0) {
        weir_http2_free(p);
        return WEIR_NOMEM;
    }
    *out = p;
    return WEIR_OK;
}

void weir_http2_free(struct weir_http2 *p)
{
    if (!p) return;
    if (p->session) nghttp2_session_del(p->session); /* calls nobody */
    while (!weir_list_empty(&p->streams)) stream_free(WEIR_CONTAINER(p->streams.next, struct weir_http2_stream, link));
    weir_buf_fini(&p->names);
    free(p->events);
    free(p->nv);
    free(p);
}

void weir_http2_leave(struct weir_http2 *p, bool at_once)
{
    if (p->failed || (p->left && !at_once)) return;
    p->left = true;
    int status = at_once ? nghttp2_submit_goaway(p->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(p->session), NGHTTP2_NO_ERROR, NULL, 0)
                         : nghttp2_submit_shutdown_notice(p->session);
    if (status != 0) p->failed = true;
}

bool weir_http2_over(const struct weir_http2 *p)
{
    return !nghttp2_session_want_read(p->session) && !nghttp2_session_want_write(p->session);
}

uint32_t weir_http2_streams(const struct weir_http2 *p)
{
    return p->stream_count;
}

struct weir_http2_stream *weir_http2_any(const struct weir_http2 *p, const struct weir_http2_stream *s)
{
    for (const struct weir_list *l = s ? s->link.next : p->streams.next; l != &p->streams; l = l->next) {
        struct weir_http2_stream *next = WEIR_CONTAINER(l, struct weir_http2_stream, link);
        if (next->told) return next;
    }
    return NULL;
}

/* ---- in ---- */

void weir_http2_feed(struct weir_http2 *p, const void *buf, size_t len, uint64_t now_ms)
{
    uint64_t back = (now_ms - p->budget_at_ms) * BUDGET_PER_MS;
    if (p->budget_at_ms && now_ms > p->budget_at_ms) p->budget = back > BUDGET * 10 - p->budget ? BUDGET * 10 : p->budget + (uint32_t)back;
    p->budget_at_ms = now_ms;
    p->p = buf;
    p->end = p->p + len;
}

/* Is the event still one for the caller? A request that was reset before it was told of never was. */
static bool is_due(const struct weir_http2_event *ev)
{
    struct weir_http2_stream *s = ev->stream;
    if (ev->type == WEIR_HTTP2_EV_CLOSED) return s->told;
    if (!s->closed) return true;
    if (ev->type == WEIR_HTTP2_EV_BODY) nghttp2_session_consume_connection(s->conn->session, ev->bytes.len);
    return false;
}

static bool queued(struct weir_http2 *p, struct weir_http2_event *ev)
{
    while (p->event_at < p->event_count) {
        *ev = p->events[p->event_at++];
        bool due = is_due(ev);
        if (ev->type == WEIR_HTTP2_EV_HEAD && due) ev->stream->told = true;
        if (ev->type == WEIR_HTTP2_EV_CLOSED) {
            if (due) p->gone = ev->stream;
            else stream_free(ev->stream);
        }
        if (due) return true;
    }
    p->event_at = p->event_count = 0;
    return false;
}

int weir_http2_next(struct weir_http2 *p, struct weir_http2_event *ev)
{
    for (;;) {
        if (p->gone) stream_free(p->gone);
        p->gone = NULL;
        if (queued(p, ev)) return WEIR_OK;
        if (p->failed) return WEIR_PROTOCOL;
        if (p->p == p->end) return WEIR_AGAIN;
        size_t n = (size_t)(p->end - p->p);
        ssize_t used = nghttp2_session_mem_recv(p->session, p->p, n < SLICE ? n : SLICE);
        if (used < 0) p->failed = true; /* what it has to say of it is pulled */
        else p->p += used;
        if (used == 0) return WEIR_AGAIN;
    }
}

void weir_http2_credit(struct weir_http2_stream *s, size_t len)
{
    if (len == 0) return;
    nghttp2_session_consume_connection(s->conn->session, len);
    if (!s->closed) nghttp2_session_consume_stream(s->conn->session, s->id, len);
}

void weir_http2_credit_others(struct weir_http2_stream *s, size_t len)
{
    if (len) nghttp2_session_consume_connection(s->conn->session, len);
}

void weir_http2_set_user(struct weir_http2_stream *s, void *user)
{
    s->user = user;
}

void *weir_http2_user(const struct weir_http2_stream *s)
{
    return s->user;
}

/* ---- a head becomes a request ---- */

struct head {
    struct weir_http_request *r;
    struct weir_arena *arena;
    struct weir_str authority, host;
    size_t cookies, cookie_len;
    bool has_host, has_type, has_authorization;
    int status;
    const char *reason;
};

static int refuse(struct head *h, int status, const char *reason)
{
    h->status = status;
    h->reason = reason;
    return WEIR_INVALID;
}

static int pseudo(struct head *h, const struct weir_pair *f)
{
    if (weir_str_eq(f->name, WEIR_STR(":method"))) h->r->method = f->value;
    else if (weir_str_eq(f->name, WEIR_STR(":path"))) h->r->target = h->r->path_query = f->value;
    else if (weir_str_eq(f->name, WEIR_STR(":authority"))) h->authority = f->value;
    else if (!weir_str_eq(f->name, WEIR_STR(":scheme"))) return refuse(h, 400, "a pseudo field that is not known here");
    return WEIR_OK;
}

static int known_field(struct head *h, const struct weir_pair *f)
{
    uint64_t n;
    if (weir_str_eq(f->name, WEIR_STR("host"))) {
        if (h->has_host) return refuse(h, 400, "more than one Host");
        h->has_host = true;
        h->host = f->value;
    } else if (weir_str_eq(f->name, WEIR_STR("content-length"))) {
        if (h->r->content_length >= 0) return refuse(h, 400, "more than one Content-Length");
        if (weir_str_u64(f->value, INT64_MAX, &n) < 0) return refuse(h, 400, "a Content-Length that is no number");
        h->r->content_length = (int64_t)n;
    } else if (weir_str_eq(f->name, WEIR_STR("expect"))) {
        if (!weir_str_ieq(f->value, WEIR_STR("100-continue"))) return refuse(h, 417, "an expectation that is not known here");
        h->r->expect_continue = true;
    } else if (weir_str_eq(f->name, WEIR_STR("content-type"))) {
        if (h->has_type) return refuse(h, 400, "more than one Content-Type");
        h->has_type = true;
    } else if (weir_str_eq(f->name, WEIR_STR("authorization"))) {
        if (h->has_authorization) return refuse(h, 400, "more than one Authorization");
        h->has_authorization = true;
    } else if (weir_str_eq(f->name, WEIR_STR("cookie"))) {
        h->cookies++;
        h->cookie_len += f->value.len + 2;
    }
    return WEIR_OK;
}

static int add_field(struct head *h, const struct weir_pair *f)
{
    if (f->name.len && f->name.ptr[0] == ':') return pseudo(h, f);
    if (!weir_http_token(f->name)) return refuse(h, 400, "a header name that is no token");
    if (!weir_str_field(f->value)) return refuse(h, 400, "a control byte in a header value");
    h->r->headers[h->r->header_count++] = *f;
    return known_field(h, f);
}

/* Cookies that came in crumbs are one field again [RFC 9113 8.2.3]. */
static int join_cookies(struct head *h)
{
    struct weir_http_request *r = h->r;
    size_t n = 0, at = 0;
    if (h->cookies < 2) return WEIR_OK;
    char *all = weir_arena_bytes(h->arena, h->cookie_len);
    if (!all) return WEIR_NOMEM;
    struct weir_pair *first = NULL;
    for (size_t i = 0; i < r->header_count; i++) {
        struct weir_pair f = r->headers[i];
        if (!weir_str_eq(f.name, WEIR_STR("cookie"))) {
            r->headers[n++] = f;
            continue;
        }
        if (at) {
            memcpy(all + at, "; ", 2);
            at += 2;
        }
        if (f.value.len) memcpy(all + at, f.value.ptr, f.value.len);
        at += f.value.len;
        if (first) continue;
        r->headers[n] = f;
        first = &r->headers[n++];
    }
    first->value = weir_str(all, at);
    r->header_count = n;
    return WEIR_OK;
}

/* The rules of HTTP/1 for a request line and Host. */
static int check_head(struct head *h)
{
    struct weir_http_request *r = h->r;
    if (!weir_http_token(r->method)) return refuse(h, 400, "a method that is no token");
    if (r->method.len > HTTP_METHOD_MAX) return refuse(h, 501, "a method that is not known here");
    if (weir_str_eq(r->method, WEIR_STR("CONNECT"))) return refuse(h, 501, "CONNECT is not served");
    r->head = weir_str_eq(r->method, WEIR_STR("HEAD"));
    if (r->target.len > 8192) return refuse(h, 414, "the target is too long");
    if (r->target.len == 0 || !weir_str_all(r->target, WEIR_BYTE_VISIBLE)) return refuse(h, 400, "a target that is not visible ASCII");
    if (memchr(r->target.ptr, '#', r->target.len)) return refuse(h, 400, "a target with a fragment");
    bool star = weir_str_eq(r->target, WEIR_STR("*"));
    if (star && !weir_str_eq(r->method, WEIR_STR("OPTIONS"))) return refuse(h, 400, "the target * is for OPTIONS");
    if (!star && r->target.ptr[0] != '/') return refuse(h, 400, "a target that is no path");
    r->host = h->authority.len ? h->authority : h->host;
    if (r->host.len == 0) return refuse(h, 400, "neither :authority nor Host");
    if (h->has_host && h->authority.len && !weir_str_ieq(h->host, h->authority)) return refuse(h, 400, "Host is not :authority");
    if (!weir_http_authority(r->host)) return refuse(h, 400, "a Host that is not valid");
    return WEIR_OK;
}

static int read_fields(struct head *h, const char *p, const char *end)
{
    while (p < end) {
        uint32_t lens[2];
        memcpy(lens, p, sizeof lens);
        p += sizeof lens;
        struct weir_pair f = {weir_str(p, lens[0]), weir_str(p + lens[0], lens[1])};
        p += lens[0] + lens[1];
        int status = add_field(h, &f);
        if (status < 0) return status;
    }
    return WEIR_OK;
}

int weir_http2_request(struct weir_http2_stream *s, struct weir_arena *arena, struct weir_http_request **out, int *status, const char **reason)
{
    struct head h = {.arena = arena, .status = 503, .reason = "out of memory"};
    size_t len = weir_buf_len(&s->fields);
    char *bytes = weir_arena_bytes(arena, len + 1);
    h.r = weir_arena_alloc(arena, sizeof *h.r);
    struct weir_pair *headers = weir_arena_alloc(arena, (s->field_count + 1) * sizeof *headers);
    int result = WEIR_NOMEM;
    if (bytes && h.r && headers) {
        memset(h.r, 0, sizeof *h.r);
        h.r->headers = headers;
        h.r->content_length = -1;
        h.r->major = 2;
        h.r->keep_alive = true;
        memcpy(bytes, weir_buf_ptr(&s->fields), len);
        *out = h.r;
        result = s->too_large ? refuse(&h, 431, "the request head is too large") : read_fields(&h, bytes, bytes + len);
        if (result == WEIR_OK) result = check_head(&h);
        if (result == WEIR_OK) result = join_cookies(&h);
        h.r->has_body = !s->head_last; /* if only its end */
        h.r->chunked = h.r->has_body && h.r->content_length < 0;
        if (!h.r->has_body) h.r->expect_continue = false;
    }
    http2_memory_give_buf(s->conn->memory, &s->fields);
    *status = h.status;
    *reason = h.reason;
    return result;
}

/* ---- out ---- */

static bool nv_room(struct weir_http2 *p, size_t count)
{
    if (count <= p->nv_cap) return true;
    nghttp2_nv *grown = realloc(p->nv, count * sizeof *grown);
    if (!grown) return false;
    p->nv = grown;
    p->nv_cap = count;
    return true;
}

static nghttp2_nv nv_of(struct weir_str name, struct weir_str value)
{
    static const uint8_t empty[1];
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.ptr, .value = value.len ? (uint8_t *)(uintptr_t)value.ptr : (uint8_t *)(uintptr_t)empty,
                        .namelen = name.len, .valuelen = value.len, .flags = NGHTTP2_NV_FLAG_NONE};
}

/* Fields behind what p->nv has already; their names in lower case. */
static int put_fields(struct weir_http2 *p, const struct weir_pair *f, size_t count, size_t *n)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) len += f[i].name.len;
    weir_buf_reset(&p->names, 1024);
    char *to = weir_buf_room(&p->names, len + 1);
    if (!to) return WEIR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < f[i].name.len; k++) {
            char c = f[i].name.ptr[k];
            to[k] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
        }
        p->nv[(*n)++] = nv_of(weir_str(to, f[i].name.len), f[i].value);
        to += f[i].name.len;
    }
    return WEIR_OK;
}

static struct weir_str status_text(char out[3], int status)
{
    out[0] = (char)('0' + status / 100);
    out[1] = (char)('0' + status / 10 % 10);
    out[2] = (char)('0' + status % 10);
    return weir_str(out, 3);
}

int weir_http2_write_head(struct weir_http2_stream *s, const struct weir_http_response *r, bool last)
{
    struct weir_http2 *p = s->conn;
    char status[3], length[20];
    size_t len = 0, n = 0;
    if (r->status < 200 || r->status > 999 || http_check_fields(r->headers, r->header_count, &len) < 0) return WEIR_INVALID;
    if (!nv_room(p, r->header_count + 3)) return WEIR_NOMEM;
    p->nv[n++] = nv_of(WEIR_STR(":status"), status_text(status, r->status));
    if (r->date.len) p->nv[n++] = nv_of(WEIR_STR("date"), r->date);
    if (r->content_length >= 0 && r->status != 204 && r->status != 304)
        p->nv[n++] = nv_of(WEIR_STR("content-length"), weir_str(length, weir_u64_text(length, (uint64_t)r->content_length)));
    if (put_fields(p, r->headers, r->header_count, &n) < 0) return WEIR_NOMEM;
    nghttp2_data_provider content = {.source.ptr = s, .read_callback = read_content};
    s->ended = last;
    return nghttp2_submit_response(p->session, s->id, p->nv, n, last ? NULL : &content) == 0 ? WEIR_OK : WEIR_NOMEM;
}

int weir_http2_write_interim(struct weir_http2_stream *s, int status, const struct weir_pair *headers, size_t count)
{
    struct weir_http2 *p = s->conn;
    char text[3];
    size_t len = 0, n = 0;
    if (status < 100 || status > 199 || status == 101 || http_check_fields(headers, count, &len) < 0) return WEIR_INVALID;
    if (!nv_room(p, count + 1)) return WEIR_NOMEM;
    p->nv[n++] = nv_of(WEIR_STR(":status"), status_text(text, status));
    if (put_fields(p, headers, count, &n) < 0) return WEIR_NOMEM;
    return nghttp2_submit_headers(p->session, NGHTTP2_FLAG_NONE, s->id, NULL, p->nv, n, NULL) >= 0 ? WEIR_OK : WEIR_NOMEM;
}

static void go_on(struct weir_http2_stream *s)
{
    if (!s->deferred || s->closed) return;
    s->deferred = false;
    if (nghttp2_session_resume_data(s->conn->session, s->id) == NGHTTP2_ERR_NOMEM) s->conn->failed = true;
}

struct weir_buf *weir_http2_content(struct weir_http2_stream *s)
{
    return &s->content;
}

void weir_http2_added(struct weir_http2_stream *s, size_t len)
{
    s->conn->content += len;
    if (len) go_on(s);
}

size_t weir_http2_waiting(const struct weir_http2_stream *s)
{
    return weir_buf_len(&s->content);
}

size_t weir_http2_room(struct weir_http2_stream *s)
{
    size_t len = weir_buf_len(&s->content);
    size_t most = s->conn->content < CONTENT_ALL ? CONTENT_HIGH : CONTENT_LEAST;
    if (len < most) return most - len;
    s->wants_room = true;
    return 0;
}

bool weir_http2_answered(const struct weir_http2_stream *s)
{
    return s->answered || s->closed;
}

uint64_t weir_http2_taken(const struct weir_http2_stream *s)
{
    return s->taken;
}

void weir_http2_write_end(struct weir_http2_stream *s)
{
    s->ended = true;
    go_on(s);
}

void weir_http2_reset(struct weir_http2_stream *s)
{
    if (s->closed) return;
    s->ours = true;
    if (nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_INTERNAL_ERROR) != 0) s->conn->failed = true;
}

void weir_http2_stop(struct weir_http2_stream *s)
{
    if (s->closed || s->remote_ended || !s->answered) return;
    if (nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR) != 0) s->conn->failed = true;
}

bool weir_http2_wants_write(const struct weir_http2 *p)
{
    return nghttp2_session_want_write(p->session);
}

int weir_http2_pull(struct weir_http2 *p, struct weir_buf *out, size_t high)
{
    while (weir_buf_len(out) < high) {
        const uint8_t *frames;
        ssize_t n = nghttp2_session_mem_send(p->session, &frames);
        if (n < 0) return WEIR_NOMEM;
        if (n == 0) break;
        if (weir_buf_append(out, frames, (size_t)n) < 0) return WEIR_NOMEM;
    }
    return WEIR_OK;
}

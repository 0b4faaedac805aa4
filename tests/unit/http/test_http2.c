/* SPDX-License-Identifier: MIT */
/* HTTP/2: a client of nghttp2 at the other end, its bytes split in every way; heads that may not be served; limits; what costs
 * time; the way out under small windows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <nghttp2/nghttp2.h>

#include "http/http.h"

#define TEXT 65536

/* ---- a client: what it sends is gathered; what it gets is written down ---- */

struct peer {
    nghttp2_session *session;
    struct weir_buf sent;
    char got[TEXT];
    size_t body;
    const char *upload; /* of the next request */
    size_t upload_len;
};

static ssize_t on_send(nghttp2_session *s, const uint8_t *p, size_t len, int flags, void *arg)
{
    struct peer *c = arg;
    (void)s, (void)flags;
    assert_int_equal(weir_buf_append(&c->sent, p, len), WEIR_OK);
    return (ssize_t)len;
}

static void note(char got[static TEXT], const char *fmt, ...) WEIR_PRINTF(2, 3);
static void note(char got[static TEXT], const char *fmt, ...)
{
    size_t n = strlen(got);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(got + n, TEXT - n, fmt, ap);
    va_end(ap);
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    struct peer *c = arg;
    (void)s, (void)flags;
    note(c->got, " %d:%.*s=%.*s", f->hd.stream_id, (int)name_len, (const char *)name, (int)value_len, (const char *)value);
    return 0;
}

static int on_chunk(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t len, void *arg)
{
    struct peer *c = arg;
    (void)s, (void)flags, (void)p, (void)id;
    c->body += len;
    return 0;
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t code, void *arg)
{
    struct peer *c = arg;
    (void)s;
    note(c->got, " %d:closed(%u)", id, code);
    return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
    struct peer *c = arg;
    (void)s;
    if (f->hd.type == NGHTTP2_GOAWAY) note(c->got, " goaway(%u,%d)", f->goaway.error_code, f->goaway.last_stream_id);
    return 0;
}

static void peer_new(struct peer *c)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *o;
    memset(c, 0, sizeof *c);
    assert_int_equal(nghttp2_session_callbacks_new(&cb), 0);
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    assert_int_equal(nghttp2_option_new(&o), 0);
    nghttp2_option_set_no_http_messaging(o, 1); /* it may send what is wrong */
    nghttp2_option_set_peer_max_concurrent_streams(o, 100000);
    assert_int_equal(nghttp2_session_client_new2(&c->session, cb, c, o), 0);
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(cb);
    assert_int_equal(nghttp2_submit_settings(c->session, 0, NULL, 0), 0);
}

static void peer_free(struct peer *c)
{
    nghttp2_session_del(c->session);
    weir_buf_fini(&c->sent);
}

static ssize_t read_upload(nghttp2_session *s, int32_t id, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source, void *arg)
{
    struct peer *c = arg;
    size_t n = c->upload_len < room ? c->upload_len : room;
    (void)s, (void)id, (void)source;
    if (n) memcpy(to, c->upload, n);
    c->upload += n;
    c->upload_len -= n;
    if (c->upload_len == 0) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* Fields as "name=value" words, split at '|'. */
static int32_t ask(struct peer *c, const char *fields, const char *body, size_t body_len)
{
    nghttp2_nv nv[256];
    size_t n = 0;
    char *text = strdup(fields), *rest = text, *word;
    while ((word = strsep(&rest, "|")) != NULL) {
        char *eq = strchr(word + 1, '=');
        assert_non_null(eq);
        nv[n++] = (nghttp2_nv){(uint8_t *)word, (uint8_t *)eq + 1, (size_t)(eq - word), strlen(eq + 1), NGHTTP2_NV_FLAG_NONE};
    }
    nghttp2_data_provider data = {.read_callback = read_upload};
    c->upload = body;
    c->upload_len = body_len;
    int32_t id = nghttp2_submit_request(c->session, NULL, nv, n, body ? &data : NULL, NULL);
    free(text);
    assert_true(id > 0);
    return id;
}

static void flush(struct peer *c)
{
    assert_int_equal(nghttp2_session_send(c->session), 0);
}

/* ---- the server: events as text ---- */

struct server {
    struct weir_http2 *p;
    struct weir_http2_memory *memory;
    struct weir_arena a;
    char got[TEXT];
    bool answer, keep_credit;
    bool stops;                          /* ... and then */
    struct weir_http2_stream *answered;  /* the last one */
    size_t body, heads;
};

static void server_new(struct server *s, const struct weir_http2_limits *l)
{
    memset(s, 0, sizeof *s);
    weir_arena_init(&s->a, 0);
    s->memory = weir_http2_memory_new();
    assert_non_null(s->memory);
    assert_int_equal(weir_http2_new(&s->p, l, s->memory), WEIR_OK);
}

static void server_free(struct server *s)
{
    weir_http2_free(s->p);
    weir_http2_memory_free(s->memory);
    weir_arena_fini(&s->a);
}

static void on_head(struct server *s, struct weir_http2_stream *st)
{
    struct weir_http_request *r;
    int status;
    const char *why;
    s->heads++;
    weir_http2_set_user(st, s);
    if (weir_http2_request(st, &s->a, &r, &status, &why) < 0) {
        note(s->got, " %d:%s", status, why);
    } else {
        note(s->got, " %.*s %.*s host=%.*s length=%lld%s", (int)r->method.len, r->method.ptr, (int)r->target.len, r->target.ptr, (int)r->host.len, r->host.ptr,
             (long long)r->content_length, r->has_body ? " body" : "");
        for (size_t i = 0; i < r->header_count; i++)
            note(s->got, " [%.*s=%.*s]", (int)r->headers[i].name.len, r->headers[i].name.ptr, (int)r->headers[i].value.len, r->headers[i].value.ptr);
    }
    if (!s->answer) return;
    struct weir_http_response a = {.status = 200, .content_length = -1};
    assert_int_equal(weir_http2_write_head(st, &a, true), WEIR_OK);
    if (s->stops) weir_http2_stop(st); /* too early: its answer has not left */
}

/* WEIR_AGAIN, or how it failed. */
static int take_events(struct server *s)
{
    struct weir_http2_event ev;
    int status;
    while ((status = weir_http2_next(s->p, &ev)) == WEIR_OK) {
        if (ev.type == WEIR_HTTP2_EV_HEAD) on_head(s, ev.stream);
        else assert_ptr_equal(weir_http2_user(ev.stream), s);
        if (ev.type == WEIR_HTTP2_EV_BODY) s->body += ev.bytes.len;
        if (ev.type == WEIR_HTTP2_EV_BODY && !s->keep_credit) weir_http2_credit(ev.stream, ev.bytes.len);
        if (ev.type == WEIR_HTTP2_EV_ANSWERED) {
            s->answered = ev.stream;
            if (s->stops) weir_http2_stop(ev.stream);
        }
        if (ev.type == WEIR_HTTP2_EV_END) note(s->got, " end");
        if (ev.type == WEIR_HTTP2_EV_CLOSED) note(s->got, " closed");
    }
    return status;
}

static int give(struct server *s, const char *p, size_t len, size_t step, uint64_t now)
{
    int status = WEIR_AGAIN;
    for (size_t i = 0; i < len && status == WEIR_AGAIN; i += step) {
        size_t n = len - i < step ? len - i : step;
        char *exact = malloc(n);
        memcpy(exact, p + i, n);
        weir_http2_feed(s->p, exact, n, now);
        status = take_events(s);
        free(exact);
    }
    return status;
}

/* All that waits goes to the other side, until nothing does. */
static int talk(struct peer *c, struct server *s, size_t step)
{
    int status = WEIR_AGAIN;
    for (int idle = 0; idle < 2;) {
        struct weir_buf out = {0}, in;
        flush(c);
        in = c->sent;
        c->sent = (struct weir_buf){0};
        idle++;
        if (weir_buf_len(&in) && status == WEIR_AGAIN) {
            status = give(s, weir_buf_ptr(&in), weir_buf_len(&in), step, 1);
            idle = 0;
        }
        assert_int_equal(weir_http2_pull(s->p, &out, 1u << 20), WEIR_OK);
        (void)take_events(s);
        if (weir_buf_len(&out)) {
            assert_true(nghttp2_session_mem_recv(c->session, (uint8_t *)weir_buf_ptr(&out), weir_buf_len(&out)) >= 0);
            idle = 0;
        }
        weir_buf_fini(&in);
        weir_buf_fini(&out);
    }
    return status;
}

#define GET ":method=GET|:scheme=http|:authority=a.test|:path=/x"
#define POST ":method=POST|:scheme=http|:authority=a.test|:path=/x"

/* ---- tests ---- */

static void any_split_gives_the_same_events(void **state)
{
    static const char body[] = "some content of a request";
    static const size_t steps[] = {1, 2, 3, 7, 13, 64, 1000, 1u << 20};
    char first[TEXT] = "";
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(steps); i++) {
        struct peer c;
        struct server s;
        peer_new(&c);
        server_new(&s, NULL);
        s.answer = true;
        ask(&c, GET "|cookie=a=1|x-one=1|cookie=b=2|te=trailers", NULL, 0);
        flush(&c);
        ask(&c, POST "|content-length=25", body, sizeof body - 1);
        assert_int_equal(talk(&c, &s, steps[i]), WEIR_AGAIN);
        if (!first[0]) {
            memcpy(first, s.got, sizeof first);
            assert_non_null(strstr(first, " GET /x host=a.test length=-1 [cookie=a=1; b=2] [x-one=1] [te=trailers] end"));
            assert_non_null(strstr(first, " POST /x host=a.test length=25 body"));
        }
        assert_int_equal(s.body, sizeof body - 1);
        assert_int_equal(s.heads, 2);
        assert_non_null(strstr(c.got, "1::status=200"));
        assert_non_null(strstr(c.got, "3::status=200"));
        server_free(&s);
        peer_free(&c);
    }
}

static void a_head_that_may_not_be_served_is_told_with_its_status(void **state)
{
    static const struct {
        const char *fields, *event; /* event "": nothing is told, nghttp2 ends the stream */
    } cases[] = {
        {":method=G T|:scheme=http|:authority=a|:path=/", ""},
        {":method=CONNECT|:authority=a:1", "501:CONNECT is not served"},
        {":method=GET|:scheme=http|:authority=a|:path=*", ""},
        {":method=OPTIONS|:scheme=http|:authority=a|:path=*", "OPTIONS * host=a"},
        {":method=GET|:scheme=http|:authority=a|:path=x", ""},
        {":method=GET|:scheme=http|:path=/", ""},
        {":method=GET|:scheme=http|:path=/|host=b", "GET / host=b"},
        {":method=GET|:scheme=http|:authority=a|:path=/|host=b", "400:Host is not :authority"},
        {":method=GET|:scheme=http|:authority=a|:path=/|host=A", "GET / host=a"},
        {":method=GET|:scheme=http|:authority=u@a|:path=/", "400:a Host that is not valid"},
        {":method=GET|:scheme=http|:authority=a/b|:path=/", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/\xc3\xa4", "400:a target that is not visible ASCII"},
        {":method=GET|:scheme=http|:authority=a|:path=/ b", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|expect=nothing", "417:an expectation that is not known here"},
        {":method=GET|:scheme=http|:authority=a|:path=/|content-length=+1", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|content-length=1|content-length=1", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|transfer-encoding=chunked", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|connection=close", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|te=gzip", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|x y=1", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|x=1|:path=/b", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|:path=/b", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|:status=200", ""},
        {":scheme=http|:authority=a|:path=/", ""},
        {":method=GET|:scheme=http|:authority=a", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|x=a\rb", ""},
        {":method=GET|:scheme=http|:authority=a|:path=/|x=a\nb", ""},
    };
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct peer c;
        struct server s;
        peer_new(&c);
        server_new(&s, NULL);
        s.answer = true;
        ask(&c, cases[i].fields, NULL, 0);
        (void)talk(&c, &s, 1000);
        if (cases[i].event[0] ? !strstr(s.got, cases[i].event) : s.heads != 0) fail_msg("%s: %s", cases[i].fields, s.got);
        if (!cases[i].event[0] && !strstr(c.got, "closed(1)")) fail_msg("%s: the client got%s", cases[i].fields, c.got);
        server_free(&s);
        peer_free(&c);
    }
}

static void heads_have_limits(void **state)
{
    struct weir_http2_limits l = {.head = 1000, .headers = 5};
    char fields[4096];
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct peer c;
        struct server s;
        size_t n = (size_t)snprintf(fields, sizeof fields, GET);
        if (kind == 0) n += (size_t)snprintf(fields + n, sizeof fields - n, "|x=%0950d", 0);
        for (int i = 0; kind == 1 && i < 6; i++) n += (size_t)snprintf(fields + n, sizeof fields - n, "|x%d=1", i);
        for (int i = 0; kind == 2 && i < 5; i++) n += (size_t)snprintf(fields + n, sizeof fields - n, "|x%d=1", i);
        peer_new(&c);
        server_new(&s, &l);
        s.answer = true;
        ask(&c, fields, NULL, 0);
        assert_int_equal(talk(&c, &s, 100), WEIR_AGAIN);
        assert_int_equal(strstr(s.got, "431:") != NULL, kind < 2);
        server_free(&s);
        peer_free(&c);
    }
}

static void trailers_are_no_header_fields(void **state)
{
    struct peer c;
    struct server s;
    const nghttp2_nv trailer = {(uint8_t *)(uintptr_t)"x-admin", (uint8_t *)(uintptr_t)"yes", 7, 3, 0};
    const nghttp2_nv nv[] = {{(uint8_t *)(uintptr_t)":method", (uint8_t *)(uintptr_t)"POST", 7, 4, 0},
                             {(uint8_t *)(uintptr_t)":scheme", (uint8_t *)(uintptr_t)"http", 7, 4, 0},
                             {(uint8_t *)(uintptr_t)":authority", (uint8_t *)(uintptr_t)"a", 10, 1, 0},
                             {(uint8_t *)(uintptr_t)":path", (uint8_t *)(uintptr_t)"/", 5, 1, 0}};
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    int32_t id = nghttp2_submit_headers(c.session, 0, -1, NULL, nv, 4, NULL);
    flush(&c);
    assert_int_equal(nghttp2_submit_trailer(c.session, id, &trailer, 1), 0);
    assert_int_equal(talk(&c, &s, 3), WEIR_AGAIN);
    assert_string_equal(s.got, " POST / host=a length=-1 body end");
    server_free(&s);
    peer_free(&c);
}

static void content_waits_for_windows_and_tells_of_room(void **state)
{
    struct peer c;
    struct server s;
    struct weir_http2_event ev;
    struct weir_http2_stream *st = NULL;
    size_t written = 0, rooms = 1, total = 1u << 20;
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    ask(&c, GET, NULL, 0);
    flush(&c);
    weir_http2_feed(s.p, weir_buf_ptr(&c.sent), weir_buf_len(&c.sent), 1);
    while (weir_http2_next(s.p, &ev) == WEIR_OK)
        if (ev.type == WEIR_HTTP2_EV_HEAD) st = ev.stream;
    assert_non_null(st);
    weir_buf_reset(&c.sent, 0);
    struct weir_http_response a = {.status = 200, .content_length = (int64_t)total};
    assert_int_equal(weir_http2_write_head(st, &a, false), WEIR_OK);
    for (int turns = 0; c.body < total && turns < 10000; turns++) {
        struct weir_buf out = {0};
        while (rooms && written < total) { /* else nobody said that there is any */
            size_t room = weir_http2_room(st), n = total - written < room ? total - written : room;
            if (n == 0) rooms = 0;
            if (n == 0) break;
            char *p = weir_buf_room(weir_http2_content(st), n);
            memset(p, 'x', n);
            weir_buf_added(weir_http2_content(st), n);
            weir_http2_added(st, n);
            written += n;
            if (written == total) weir_http2_write_end(st);
        }
        assert_true(weir_http2_waiting(st) <= 65536);
        assert_int_equal(weir_http2_pull(s.p, &out, 30000), WEIR_OK);
        while (weir_http2_next(s.p, &ev) == WEIR_OK) rooms += ev.type == WEIR_HTTP2_EV_ROOM;
        if (weir_buf_len(&out)) assert_true(nghttp2_session_mem_recv(c.session, (uint8_t *)weir_buf_ptr(&out), weir_buf_len(&out)) >= 0);
        weir_buf_fini(&out);
        flush(&c);
        weir_http2_feed(s.p, weir_buf_ptr(&c.sent), weir_buf_len(&c.sent), 1);
        while (weir_http2_next(s.p, &ev) == WEIR_OK) rooms += ev.type == WEIR_HTTP2_EV_ROOM;
        weir_buf_reset(&c.sent, 0);
    }
    assert_int_equal(c.body, total);
    server_free(&s);
    peer_free(&c);
}

static void an_upload_stops_where_no_credit_is_given(void **state)
{
    static char big[400000];
    struct peer c;
    struct server s;
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    s.keep_credit = true;
    ask(&c, POST, big, sizeof big);
    assert_int_equal(talk(&c, &s, 5000), WEIR_AGAIN);
    assert_int_equal(s.body, 262144);
    server_free(&s);
    peer_free(&c);
}

static void an_answer_before_the_body_ends_the_stream_when_told_to_without_an_error(void **state)
{
    static char big[400000];
    (void)state;
    for (int at_once = 0; at_once < 2; at_once++) {
        struct peer c;
        struct server s;
        peer_new(&c);
        server_new(&s, NULL);
        s.answer = s.keep_credit = true;
        s.stops = at_once;
        ask(&c, POST, big, sizeof big);
        assert_int_equal(talk(&c, &s, 5000), WEIR_AGAIN);
        assert_non_null(strstr(c.got, "1::status=200"));
        if (!at_once) {
            assert_null(strstr(c.got, "closed"));
            assert_non_null(s.answered);
            weir_http2_stop(s.answered);
            assert_int_equal(talk(&c, &s, 5000), WEIR_AGAIN);
        }
        assert_non_null(strstr(c.got, "1:closed(0)"));
        assert_non_null(strstr(s.got, "closed"));
        server_free(&s);
        peer_free(&c);
    }
}

static void a_request_that_was_reset_before_it_is_seen_never_was(void **state)
{
    struct peer c;
    struct server s;
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    int32_t id = ask(&c, GET, NULL, 0);
    flush(&c);
    assert_int_equal(nghttp2_submit_rst_stream(c.session, 0, id, NGHTTP2_CANCEL), 0);
    assert_int_equal(talk(&c, &s, 1u << 20), WEIR_AGAIN);
    assert_string_equal(s.got, "");
    assert_int_equal(weir_http2_streams(s.p), 0);
    server_free(&s);
    peer_free(&c);
}

/* So often; what the client was told, and whether time brings the budget back. */
static void flood(const char *what, unsigned times, bool ends)
{
    struct peer c;
    struct server s;
    peer_new(&c);
    server_new(&s, NULL);
    for (unsigned i = 0; i < times; i++) {
        if (strcmp(what, "ping") == 0) assert_int_equal(nghttp2_submit_ping(c.session, 0, NULL), 0);
        if (strcmp(what, "settings") == 0) assert_int_equal(nghttp2_submit_settings(c.session, 0, NULL, 0), 0);
        if (strcmp(what, "reset") == 0) {
            int32_t id = ask(&c, GET, NULL, 0);
            flush(&c);
            assert_int_equal(nghttp2_submit_rst_stream(c.session, 0, id, NGHTTP2_CANCEL), 0);
        }
        if (strcmp(what, "malformed") == 0) ask(&c, GET "|x y=1", NULL, 0); /* resets that the client makes us send (CVE-2025-8671) */
        flush(&c);
    }
    int status = talk(&c, &s, 1u << 16);
    if ((status == WEIR_AGAIN) == ends || (strstr(c.got, "goaway(11") != NULL) != ends) fail_msg("%u x %s: %d,%.100s", times, what, status, c.got);
    assert_true(s.heads <= times / 50); /* a few come apart from their reset */
    server_free(&s);
    peer_free(&c);
}

static void frames_that_bring_nothing_are_paid_from_a_budget(void **state)
{
    (void)state;
    flood("ping", 500, false);
    flood("ping", 1500, true);
    flood("settings", 50, false);
    flood("settings", 300, true);
    flood("reset", 100, false);
    flood("reset", 300, true);
    flood("malformed", 60, false);
    flood("malformed", 300, true);
}

static void more_streams_than_allowed_are_refused(void **state)
{
    struct weir_http2_limits l = {.streams = 3};
    struct peer c;
    struct server s;
    (void)state;
    peer_new(&c);
    server_new(&s, &l);
    for (int i = 0; i < 5; i++) ask(&c, GET, NULL, 0);
    (void)talk(&c, &s, 50);
    assert_int_equal(s.heads, 3);
    server_free(&s);
    peer_free(&c);
}

static void who_leaves_still_answers(void **state)
{
    struct peer c;
    struct server s;
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    ask(&c, GET, NULL, 0);
    (void)talk(&c, &s, 1000);
    weir_http2_leave(s.p, false);
    (void)talk(&c, &s, 1000);
    assert_non_null(strstr(c.got, "goaway(0,2147483647)"));
    assert_false(weir_http2_over(s.p));
    weir_http2_leave(s.p, true);
    (void)talk(&c, &s, 1000);
    assert_non_null(strstr(c.got, "goaway(0,1)"));
    assert_int_equal(weir_http2_streams(s.p), 1);
    struct weir_http_response a = {.status = 200, .content_length = -1};
    assert_int_equal(weir_http2_write_head(weir_http2_any(s.p, NULL), &a, true), WEIR_OK);
    (void)talk(&c, &s, 1000);
    assert_non_null(strstr(c.got, "1::status=200"));
    assert_true(weir_http2_over(s.p));
    server_free(&s);
    peer_free(&c);
}

static void what_is_no_http2_fails_at_once(void **state)
{
    struct server s;
    (void)state;
    server_new(&s, NULL);
    assert_int_equal(give(&s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 26, 5, 1), WEIR_PROTOCOL);
    server_free(&s);
}

static void fields_that_may_not_be_sent_are_not(void **state)
{
    static const struct weir_pair bad[] = {{WEIR_CONST_STR("Connection"), WEIR_CONST_STR("x")}, {WEIR_CONST_STR("a b"), WEIR_CONST_STR("x")},
                                           {WEIR_CONST_STR("x"), WEIR_CONST_STR("a\r\nb")}, {WEIR_CONST_STR("Transfer-Encoding"), WEIR_CONST_STR("chunked")},
                                           {WEIR_CONST_STR(":status"), WEIR_CONST_STR("200")}};
    static const struct weir_pair good[] = {{WEIR_CONST_STR("X-Upper"), WEIR_CONST_STR("")}, {WEIR_CONST_STR("Set-Cookie"), WEIR_CONST_STR("a=1")}};
    struct peer c;
    struct server s;
    (void)state;
    peer_new(&c);
    server_new(&s, NULL);
    ask(&c, GET, NULL, 0);
    (void)talk(&c, &s, 1000);
    struct weir_http2_stream *st = weir_http2_any(s.p, NULL);
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_http_response r = {.status = 200, .headers = &bad[i], .header_count = 1, .content_length = -1};
        assert_int_equal(weir_http2_write_head(st, &r, true), WEIR_INVALID);
    }
    assert_int_equal(weir_http2_write_interim(st, 103, good, 1), WEIR_OK);
    struct weir_http_response r = {.status = 204, .headers = good, .header_count = 2, .content_length = 5};
    assert_int_equal(weir_http2_write_head(st, &r, true), WEIR_OK);
    (void)talk(&c, &s, 1000);
    assert_string_equal(strstr(c.got, " 1::"), " 1::status=103 1:x-upper= 1::status=204 1:x-upper= 1:set-cookie=a=1 1:closed(0)");
    server_free(&s);
    peer_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same_events),
        cmocka_unit_test(a_head_that_may_not_be_served_is_told_with_its_status),
        cmocka_unit_test(heads_have_limits),
        cmocka_unit_test(trailers_are_no_header_fields),
        cmocka_unit_test(content_waits_for_windows_and_tells_of_room),
        cmocka_unit_test(an_upload_stops_where_no_credit_is_given),
        cmocka_unit_test(an_answer_before_the_body_ends_the_stream_when_told_to_without_an_error),
        cmocka_unit_test(a_request_that_was_reset_before_it_is_seen_never_was),
        cmocka_unit_test(frames_that_bring_nothing_are_paid_from_a_budget),
        cmocka_unit_test(more_streams_than_allowed_are_refused),
        cmocka_unit_test(who_leaves_still_answers),
        cmocka_unit_test(what_is_no_http2_fails_at_once),
        cmocka_unit_test(fields_that_may_not_be_sent_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

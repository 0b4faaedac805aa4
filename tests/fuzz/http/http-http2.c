/* SPDX-License-Identifier: MIT */
/* Frames of HTTP/2 behind a preface, cut into pieces: as long as the connection lives, pieces and whole mean the same; each request is answered, so that
 * the way out is walked, too. */
#include <stdint.h>
#include <stdlib.h>

#include "http/http.h"

struct outcome {
    uint64_t hash;
    int status;
};

static void note(struct outcome *o, uint64_t v)
{
    o->hash = (o->hash ^ v) * 1099511628211u;
}

static void note_text(struct outcome *o, struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++) note(o, (uint8_t)s.ptr[i]);
    note(o, s.len);
}

static void answer(struct outcome *o, struct weir_http2_stream *s, struct weir_arena *a)
{
    struct weir_http_request *r = NULL;
    const char *why;
    int status;
    int got = weir_http2_request(s, a, &r, &status, &why);
    note(o, (uint64_t)(got + 100));
    if (got == WEIR_OK) {
        note_text(o, r->method);
        note_text(o, r->target);
        for (size_t i = 0; i < r->header_count; i++) note_text(o, r->headers[i].value);
    }
    struct weir_http_response head = {.status = got == WEIR_OK ? 200 : 400, .content_length = -1};
    if (weir_http2_write_head(s, &head, got != WEIR_OK) < 0 || got != WEIR_OK) return;
    if (weir_buf_append(weir_http2_content(s), "content", 7) < 0) abort();
    weir_http2_added(s, 7);
}

static void take(struct outcome *o, struct weir_http2 *p, struct weir_arena *a)
{
    struct weir_http2_event ev;
    while ((o->status = weir_http2_next(p, &ev)) == WEIR_OK) {
        if (ev.type == WEIR_HTTP2_EV_BODY) {
            for (size_t i = 0; i < ev.bytes.len; i++) note(o, (uint8_t)ev.bytes.ptr[i]);
            weir_http2_credit(ev.stream, ev.bytes.len);
            continue;
        }
        if (ev.type == WEIR_HTTP2_EV_HEAD) answer(o, ev.stream, a);
        if (ev.type == WEIR_HTTP2_EV_END) weir_http2_write_end(ev.stream);
    }
}

/* The answers leave when all has come: what the client resets before is not the pieces' doing. */
static struct outcome run(const uint8_t *data, size_t len, uint64_t seed)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct outcome o = {0, 0};
    struct weir_http2 *p;
    struct weir_arena a;
    struct weir_buf out = {0};
    struct weir_random r = {seed};
    weir_arena_init(&a, 0);
    if (weir_http2_new(&p, NULL, NULL) < 0) abort();
    weir_http2_feed(p, preface, sizeof preface, 1);
    take(&o, p, &a);
    for (size_t i = 0; i < len && o.status == WEIR_AGAIN;) {
        size_t n = seed ? 1 + weir_random_next(&r) % 40 : len;
        if (n > len - i) n = len - i;
        weir_http2_feed(p, data + i, n, 1);
        take(&o, p, &a);
        i += n;
    }
    if (weir_http2_pull(p, &out, 1u << 20) < 0) abort();
    int status = o.status;
    take(&o, p, &a);
    o.status = weir_http2_over(p) ? WEIR_PROTOCOL : status;
    weir_http2_free(p);
    weir_buf_fini(&out);
    weir_arena_fini(&a);
    return o;
}

/* A request that is reset in the same piece never was, in the next one it was: both are right. */
static bool has_reset(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 9 <= len;) {
        if (p[i + 3] == 3) return true;
        i += 9 + ((size_t)p[i] << 16 | (size_t)p[i + 1] << 8 | p[i + 2]);
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct outcome whole = run(data, len, 0), cut = run(data, len, 0x9e3779b97f4a7c15u);
    if (whole.status == WEIR_AGAIN && cut.status == WEIR_AGAIN && !has_reset(data, len) && whole.hash != cut.hash) abort();
    return 0;
}

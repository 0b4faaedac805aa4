/* SPDX-License-Identifier: MIT */
/* Chunked content: the parser against a second, plain reading of RFC 9112 7.1 of the whole input; and what the writer wrote
 * is what the parser reads. */
#include <stdint.h>
#include <stdlib.h>

#include "http/http.h"

static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

struct outcome {
    struct weir_buf content;
    bool ended, refused;
    size_t used; /* behind the head */
};

static void parse(struct outcome *o, const char *bytes, size_t len, uint64_t seed)
{
    struct weir_http1 *p;
    struct weir_arena a;
    struct weir_http_event ev;
    struct weir_random r = {seed};
    struct weir_buf all = {0};
    *o = (struct outcome){0};
    weir_arena_init(&a, 1u << 20);
    if (weir_http1_new(&p, NULL) < 0 || weir_buf_append(&all, head, sizeof head - 1) < 0 || weir_buf_append(&all, bytes, len) < 0) abort();
    weir_http1_expect(p, &a);
    for (size_t i = 0; i < weir_buf_len(&all) && !o->ended && !o->refused;) {
        size_t n = 1 + weir_random_next(&r) % 40;
        if (n > weir_buf_len(&all) - i) n = weir_buf_len(&all) - i;
        weir_http1_feed(p, weir_buf_ptr(&all) + i, n);
        while (!o->ended && !o->refused && weir_http1_next(p, &ev) == WEIR_OK) {
            if (ev.type == WEIR_HTTP_EV_BODY && weir_buf_append(&o->content, ev.bytes.ptr, ev.bytes.len) < 0) abort();
            o->ended = ev.type == WEIR_HTTP_EV_END;
            o->refused = ev.type == WEIR_HTTP_EV_ERROR;
        }
        i += weir_http1_consumed(p);
        if (o->ended) o->used = i - (sizeof head - 1);
    }
    weir_buf_fini(&all);
    weir_http1_free(p);
    weir_arena_fini(&a);
}

/* Without extensions and trailers: 1: complete, *at behind it; 0: not complete; -1: malformed; 2: has what this does not read. */
static int plain_reading(const char *p, size_t len, struct weir_buf *content, size_t *at)
{
    for (size_t i = 0;;) {
        uint64_t size = 0;
        size_t digits = 0;
        bool large = false;
        for (; i < len && ((p[i] >= '0' && p[i] <= '9') || ((p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f')); i++, digits++) {
            large = large || digits == 15;
            size = size * 16 + (uint64_t)(p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
        }
        if (large) return i + 1 < len && p[i] == '\r' && p[i + 1] == '\n' ? -1 : 2; /* refused when its line is complete */
        if (i < len && p[i] == ';') return 2;
        if (i < len && (p[i] != '\r' || digits == 0)) return 2; /* where it is refused differs, not whether */
        if (i + 1 < len && p[i + 1] != '\n') return -1;
        if (i + 2 > len) return 0;
        i += 2;
        if (size == 0) {
            if (i < len && p[i] != '\r') return 2;
            if (i + 1 < len && p[i + 1] != '\n') return -1;
            if (i + 2 > len) return 0;
            *at = i + 2;
            return 1;
        }
        size_t n = size < len - i ? (size_t)size : len - i;
        if (n && weir_buf_append(content, p + i, n) < 0) abort();
        i += n;
        if (n < size) return 0;
        if (i < len && p[i] != '\r') return -1;
        if (i + 1 < len && p[i + 1] != '\n') return -1;
        if (i + 2 > len) return 0;
        i += 2;
    }
}

static void same(const struct weir_buf *a, const char *p, size_t len)
{
    if (weir_buf_len(a) != len || (len && memcmp(weir_buf_ptr(a), p, len) != 0)) abort();
}

static void as_input(const char *p, size_t len, uint64_t seed)
{
    struct outcome o;
    struct weir_buf content = {0};
    size_t at = 0;
    parse(&o, p, len, seed);
    int plain = plain_reading(p, len, &content, &at);
    if (plain != 2) {
        if (o.ended != (plain == 1) || o.refused != (plain == -1)) abort();
        if (plain == 1 && o.used != at) abort();
        if (plain >= 0) same(&content, weir_buf_ptr(&o.content), weir_buf_len(&o.content));
    }
    weir_buf_fini(&content);
    weir_buf_fini(&o.content);
}

static void written_and_read(const char *p, size_t len, uint64_t seed)
{
    struct outcome o;
    struct weir_buf out = {0};
    struct weir_random r = {seed};
    for (size_t i = 0; i < len;) {
        size_t n = 1 + weir_random_next(&r) % 300;
        if (n > len - i) n = len - i;
        if (weir_http1_write_chunk(&out, p + i, n) < 0) abort();
        i += n;
    }
    if (weir_http1_write_chunk_end(&out, NULL, 0) < 0) abort();
    parse(&o, weir_buf_ptr(&out), weir_buf_len(&out), seed);
    if (!o.ended || o.used != weir_buf_len(&out)) abort();
    same(&o.content, p, len);
    weir_buf_fini(&out);
    weir_buf_fini(&o.content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1) return 0;
    as_input((const char *)data + 1, len - 1, data[0] + 1u);
    written_and_read((const char *)data + 1, len - 1, data[0] + 1u);
    return 0;
}

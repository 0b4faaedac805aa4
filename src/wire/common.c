/* SPDX-License-Identifier: MIT */
/* What both ends of a connection share: the record decoder, credit, writing records. */
#include "wire/wire_internal.h"

void weir_wire_limits(struct weir_wire_limits *out, const struct weir_wire_limits *in)
{
    static const struct weir_wire_limits none;
    *out = in ? *in : none;
    if (!out->params_bytes) out->params_bytes = 1u << 20;
    if (!out->params_count) out->params_count = 2048;
    if (!out->requests) out->requests = 1000;
    if (out->requests > 65535) out->requests = 65535;
    if (!out->plain_requests) out->plain_requests = 1;
    if (!out->reqs) out->reqs = out->plain_requests;
    if (!out->conns) out->conns = 1000;
    if (!out->window) out->window = 65536;
    if (!out->stray_records) out->stray_records = 10000;
    if (!out->idle_credits) out->idle_credits = 1000;
}

/* ---- decoder ---- */

void weir_decoder_feed(struct decoder *d, const void *buf, size_t len)
{
    d->p = buf;
    d->end = d->p + len;
}

static void skip_padding(struct decoder *d) /* FC1-3.3-d */
{
    size_t n = (size_t)(d->end - d->p);
    if (n > d->padding_left) n = d->padding_left;
    d->p += n;
    d->padding_left -= (uint32_t)n;
}

enum decode_step weir_decoder_next(struct decoder *d)
{
    if (d->in_content) {
        if (d->content_left == 0) {
            d->in_content = false;
            return DECODE_END;
        }
        size_t n = (size_t)(d->end - d->p);
        if (n == 0) return DECODE_MORE;
        if (n > d->content_left) n = d->content_left;
        d->piece = weir_str((const char *)d->p, n);
        d->p += n;
        d->content_left -= (uint32_t)n;
        return DECODE_CONTENT;
    }
    skip_padding(d);
    if (d->p == d->end) return DECODE_MORE;
    while (d->head_len < WEIR_WIRE_HEADER_LEN) {
        if (d->p == d->end) return DECODE_MORE;
        d->head[d->head_len++] = *d->p++;
    }
    weir_wire_header_read(d->head, &d->h);
    if (d->h.version != WEIR_WIRE_VERSION) return DECODE_VERSION; /* FC1-3.3-b */
    d->head_len = 0;
    d->content_left = d->h.len; /* FC1-3.3-c */
    d->padding_left = d->h.padding;
    d->in_content = true;
    return DECODE_HEADER;
}

/* ---- credit ---- */

int weir_credit_raise(struct credit_out *c, uint64_t limit, uint32_t idle_max)
{
    if (limit > LIMIT_MAX) return WEIR_PROTOCOL;
    if (++c->idle > idle_max) return WEIR_PROTOCOL;
    if (limit <= c->limit) return 0;
    c->limit = limit;
    return 1;
}

bool weir_credit_arrived(struct credit_in *c, size_t len)
{
    if (len > c->limit - c->got) return false;
    c->got += len;
    return true;
}

uint64_t weir_credit_taken(struct credit_in *c, size_t len)
{
    c->taken += len;
    WEIR_ASSERT(c->taken <= c->got);
    if (c->limit == UNLIMITED || c->ended) return 0;
    uint64_t next = c->taken + c->window;
    if (next <= c->limit || next - c->limit < (c->window + 1) / 2) return 0; /* without room it is a whole window */
    c->limit = next;
    return next;
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8) p[i] = (uint8_t)v;
}

int weir_credit_write(struct weir_buf *out, uint64_t sent, uint64_t *at, uint16_t id, uint8_t what, uint8_t flags, uint64_t limit)
{
    uint8_t c[CREDIT_LEN] = {what, flags};
    put64(c + 8, limit);
    if (*at > sent) {
        memcpy(weir_buf_ptr(out) + (*at - 1 - sent) + WEIR_WIRE_HEADER_LEN, c, sizeof c);
        return WEIR_OK;
    }
    *at = sent + weir_buf_len(out) + 1;
    int status = weir_record_write(out, WEIR_WIRE_CREDIT, id, c, sizeof c, 0);
    if (status < 0) *at = 0;
    return status;
}

void weir_credit_read(const uint8_t *p, uint8_t *what, uint8_t *flags, uint64_t *limit)
{
    *what = p[0];
    *flags = p[1];
    *limit = 0;
    for (int i = 8; i < 16; i++) *limit = *limit << 8 | p[i];
}

/* ---- records out ---- */

int weir_record_write(struct weir_buf *out, uint8_t type, uint16_t id, const void *p, size_t len, uint8_t padding)
{
    uint8_t *to = (uint8_t *)weir_buf_room(out, WEIR_WIRE_HEADER_LEN + len + padding);
    if (!to) return WEIR_NOMEM;
    weir_wire_header_write(to, type, id, (uint16_t)len, padding);
    if (len) memcpy(to + WEIR_WIRE_HEADER_LEN, p, len);
    memset(to + WEIR_WIRE_HEADER_LEN + len, 0, padding);
    weir_buf_added(out, WEIR_WIRE_HEADER_LEN + len + padding);
    return WEIR_OK;
}

int weir_stream_write(struct weir_buf *out, uint8_t type, uint16_t id, const char *p, size_t len, uint32_t record) /* FC1-3.3-l */
{
    size_t records = (len + record - 1) / record;
    if (!weir_buf_room(out, len + records * WEIR_WIRE_HEADER_LEN)) return WEIR_NOMEM;
    while (len) {
        size_t n = len < record ? len : record;
        int status = weir_record_write(out, type, id, p, n, 0);
        if (status < 0) return status;
        p += n;
        len -= n;
    }
    return WEIR_OK;
}

/* ---- the flow control value ---- */

static int flow_pair(struct weir_str pair, struct flow_value *out, unsigned *seen)
{
    size_t key = 0;
    uint64_t v;
    while (key < pair.len && pair.ptr[key] >= 'a' && pair.ptr[key] <= 'z') key++;
    if (key == 0 || key > 16 || key == pair.len || pair.ptr[key] != '=' || pair.len - key - 1 > 10) return WEIR_INVALID;
    if (weir_str_u64(weir_str(pair.ptr + key + 1, pair.len - key - 1), UINT32_MAX, &v) < 0) return WEIR_INVALID;
    struct weir_str name = weir_str(pair.ptr, key);
    if (weir_str_eq(name, WEIR_STR("window"))) {
        *seen |= 1;
        out->window = (uint32_t)v;
    } else if (weir_str_eq(name, WEIR_STR("requests"))) {
        if (v < 1 || v > 65535) return WEIR_INVALID;
        *seen |= 2;
        out->requests = (uint32_t)v;
    } else if (weir_str_eq(name, WEIR_STR("threads"))) {
        out->threads = (uint32_t)v;
    }
    return WEIR_OK;
}

static bool key_repeats(struct weir_str v, size_t at, size_t len)
{
    size_t key = 0;
    while (key < len && v.ptr[at + key] != '=') key++;
    for (size_t i = 0; i < at;) {
        size_t n = 0;
        while (i + n < at && v.ptr[i + n] != ' ') n++;
        if (n > key && v.ptr[i + key] == '=' && memcmp(v.ptr + i, v.ptr + at, key) == 0) return true;
        i += n + 1;
    }
    return false;
}

int weir_flow_value_parse(struct weir_str v, struct flow_value *out)
{
    unsigned seen = 0;
    *out = (struct flow_value){0};
    if (v.len == 0 || v.len > 127) return WEIR_INVALID;
    for (size_t at = 0; at <= v.len;) {
        size_t len = 0;
        while (at + len < v.len && v.ptr[at + len] != ' ') len++;
        if (flow_pair(weir_str(v.ptr + at, len), out, &seen) < 0 || key_repeats(v, at, len)) return WEIR_INVALID;
        at += len + 1;
    }
    return seen == 3 ? WEIR_OK : WEIR_INVALID;
}

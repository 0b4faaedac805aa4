/* SPDX-License-Identifier: MIT */
/* wire: what both ends share: records out of a split byte stream, credit of a stream, the value of FCGI_FLOW_CONTROL. */
#ifndef WEIR_WIRE_INTERNAL_H
#define WEIR_WIRE_INTERNAL_H

#include "base/base.h"
#include "weir/wire.h"

#define FLOW_NAME       "FCGI_FLOW_CONTROL"
#define CREDIT_LEN      16
#define CREDIT_FINAL    0x01
#define LIMIT_MAX       ((UINT64_C(1) << 63) - 1)
#define UNLIMITED       UINT64_MAX
#define STREAM_RECORD   16384u /* content of one record where several streams share a connection (FC 5.7) */

void weir_wire_limits(struct weir_wire_limits *out, const struct weir_wire_limits *in); /* defaults filled in */

/* ---- pairs (FC1-3.4-a, FC1-3.4-c): the one path for measuring (out NULL) and writing ---- */
static inline uint8_t *pair_length_write(uint8_t *out, size_t len)
{
    if (len < 128) { /* FC1-3.4-b */
        *out++ = (uint8_t)len;
        return out;
    }
    *out++ = (uint8_t)(0x80 | len >> 24);
    *out++ = (uint8_t)(len >> 16);
    *out++ = (uint8_t)(len >> 8);
    *out++ = (uint8_t)len;
    return out;
}
static inline size_t pair_put(uint8_t *out, struct weir_str name, struct weir_str value)
{
    if (name.len > 0x7fffffff || value.len > 0x7fffffff) return 0;
    size_t total = (name.len < 128 ? 1u : 4u) + (value.len < 128 ? 1u : 4u) + name.len + value.len;
    if (!out) return total;
    out = pair_length_write(out, name.len);
    out = pair_length_write(out, value.len);
    weir_copy(out, name.ptr, name.len);
    weir_copy(out + name.len, value.ptr, value.len);
    return total;
}

/* ---- records ---- */

enum decode_step {
    DECODE_MORE,    /* the lent bytes are used up */
    DECODE_HEADER,  /* a record begins: d->h */
    DECODE_CONTENT, /* a piece of its content: d->piece */
    DECODE_END,     /* its content is complete */
    DECODE_VERSION  /* not version 1: no recovery is possible */
};
struct decoder {
    const uint8_t *p, *end;   /* lent */
    struct weir_str piece;
    struct weir_wire_header h;
    uint32_t content_left, padding_left; /* FC1-3.3-c */
    uint8_t head[WEIR_WIRE_HEADER_LEN];
    uint8_t head_len;
    bool in_content;
};
void weir_decoder_feed(struct decoder *d, const void *buf, size_t len);
enum decode_step weir_decoder_next(struct decoder *d);
static inline bool decoder_between(const struct decoder *d) /* no byte of a record has come that is not complete */
{
    return d->head_len == 0 && !d->in_content && d->padding_left == 0;
}

/* ---- credit: totals of content bytes (FC 4, 5) ---- */

struct credit_out { /* of a stream that we send */
    uint64_t sent, limit;
    uint32_t idle; /* CREDIT in a row that came without a byte in between */
    bool starved;  /* a write was cut short: tell when the limit rises */
    bool ended, used;
};
struct credit_in { /* of a stream that we receive */
    uint64_t got, taken, limit;
    uint64_t at; /* see weir_credit_write */
    uint32_t window;
    bool ended;
};
static inline size_t credit_room(const struct credit_out *c)
{
    uint64_t left = c->limit - c->sent;
    return left > (1u << 30) ? 1u << 30 : (size_t)left;
}
/* A CREDIT arrived: 1: it raised the limit, 0: no effect, WEIR_PROTOCOL. */
int weir_credit_raise(struct credit_out *c, uint64_t limit, uint32_t idle_max);
/* len more content came: false: beyond the limit. */
bool weir_credit_arrived(struct credit_in *c, size_t len);
/* len bytes were taken: the new limit to tell, or 0: not due yet. */
uint64_t weir_credit_taken(struct credit_in *c, size_t len);
/* Writes a CREDIT record, or renews the former one of the same id and `what` if no byte of that has left: so at most one waits
 * (FC 5.6). sent: how many bytes of this output have left, in all; *at: where the former one begins, and 1; 0: none. */
WEIR_CHECK int weir_credit_write(struct weir_buf *out, uint64_t sent, uint64_t *at, uint16_t id, uint8_t what, uint8_t flags,
                                 uint64_t limit);
/* Reads the content of one (at least CREDIT_LEN bytes). */
void weir_credit_read(const uint8_t *p, uint8_t *what, uint8_t *flags, uint64_t *limit);

/* Appends stream content as records of at most `record` bytes. */
WEIR_CHECK int weir_stream_write(struct weir_buf *out, uint8_t type, uint16_t id, const char *p, size_t len, uint32_t record);
WEIR_CHECK int weir_record_write(struct weir_buf *out, uint8_t type, uint16_t id, const void *p, size_t len, uint8_t padding);

/* ---- FCGI_FLOW_CONTROL's value (FC 2.2) ---- */
struct flow_value {
    uint32_t window, requests, threads;
};
int weir_flow_value_parse(struct weir_str v, struct flow_value *out); /* WEIR_OK, WEIR_INVALID */

/* ---- the first bytes of a discrete record's content ---- */
struct small {
    uint8_t bytes[CREDIT_LEN];
    uint32_t len; /* of the content, however long */
};
static inline void small_add(struct small *s, struct weir_str piece)
{
    for (size_t i = 0; i < piece.len && s->len + i < sizeof s->bytes; i++)
        s->bytes[s->len + i] = (uint8_t)piece.ptr[i];
    s->len += (uint32_t)piece.len;
}
#endif

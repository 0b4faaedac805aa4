/* SPDX-License-Identifier: MIT */
/* http: HTTP/1.1 bytes <-> exchanges. No I/O, no clock. Strict (RFC 9110, RFC 9112): what two servers could read in two
 * ways is an error. The same events come out however the bytes are split. */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include "base/base.h"

struct weir_http_limits {    /* 0: the default in brackets */
    uint32_t line;           /* request line [8192]: beyond it 414 */
    uint32_t head;           /* whole head [65536 is the hard cap; default 32768]: 431 */
    uint32_t headers;        /* how many header fields [100]: 431 */
    uint64_t body;           /* content bytes [no limit = UINT64_MAX when 0]: 413, also for chunked */
    uint32_t chunk_line;     /* chunk-size line with its extension [256]: 400 */
    uint32_t trailers;       /* bytes of all trailers [8192]: 431 */
};

/* A request head. All strings live in the arena that was given to weir_http1_expect. */
struct weir_http_request {
    struct weir_str method, target;   /* as sent; target is origin-form, or absolute-form split: see host */
    struct weir_str host;             /* lower case not applied; from an absolute target or the Host field; validated; may be empty */
    struct weir_str path_query;       /* the origin-form part of target: begins with '/' ("*" for OPTIONS *) */
    struct weir_pair *headers;        /* in order, names as sent, values trimmed */
    size_t header_count;
    struct weir_pair *trailers;       /* after EV_END; never mixed with headers */
    size_t trailer_count;
    int64_t content_length;           /* -1: none told */
    bool has_body;                    /* content_length > 0 or chunked */
    bool chunked;
    bool keep_alive;                  /* what the client allows */
    bool expect_continue;
    bool head;                        /* method is HEAD */
    uint8_t minor;                    /* HTTP/1.minor */
};

enum weir_http_event_type {
    WEIR_HTTP_EV_HEAD = 1, /* request() is filled */
    WEIR_HTTP_EV_BODY,     /* bytes: decoded content, in the lent buffer, never empty */
    WEIR_HTTP_EV_END,      /* the message is complete (always comes, also without a body) */
    WEIR_HTTP_EV_ERROR     /* status 400, 413, 414, 431, 501, 505; reason: static text for a person. Last event */
};
struct weir_http_event {
    enum weir_http_event_type type;
    struct weir_str bytes;
    int status;
    const char *reason;
};

struct weir_http1; /* the receiving half of one connection */
int weir_http1_new(struct weir_http1 **out, const struct weir_http_limits *l); /* l is copied */
void weir_http1_free(struct weir_http1 *p);
bool weir_http1_complete(const struct weir_http1 *p); /* the next event is END, without another byte */
void weir_http1_reset(struct weir_http1 *p); /* for another connection; the limits stay */
/* Prepares for the next message of the connection: its strings go into arena, which outlives the exchange.
 * Needed before the first next() and after each EV_END; until then fed bytes wait (pipelining). */
void weir_http1_expect(struct weir_http1 *p, struct weir_arena *arena);
/* The most content the current message may have (per route), from the next EV_BODY on: beyond it EV_ERROR 413. */
void weir_http1_limit_body(struct weir_http1 *p, uint64_t bytes);
/* Lends bytes. next() gives events until WEIR_AGAIN; consumed() then tells how many of the lent bytes were used: after
 * EV_END the rest belongs to the next message and must be lent again (or kept by the caller). The caller may also stop
 * taking events (backpressure) and lend the rest later. */
void weir_http1_feed(struct weir_http1 *p, const void *buf, size_t len);
int weir_http1_next(struct weir_http1 *p, struct weir_http_event *ev); /* WEIR_OK or WEIR_AGAIN */
size_t weir_http1_consumed(const struct weir_http1 *p);
const struct weir_http_request *weir_http1_request(const struct weir_http1 *p);
/* True before the first byte of a message has come: an idle connection that may be closed without an answer. */
bool weir_http1_idle(const struct weir_http1 *p);

/* ---- writer ---- */
struct weir_http_response {
    int status;                       /* 100..599 */
    const struct weir_pair *headers;  /* names are tokens, values without CR, LF, NUL: checked; no framing fields */
    size_t header_count;
    int64_t content_length;           /* -1: not known: chunked for HTTP/1.1, close for 1.0 */
    bool head;                        /* answers HEAD: framing fields, no content */
    bool keep_alive;                  /* what we want; cleared by the writer where framing needs close */
    uint8_t minor;                    /* the request's */
    struct weir_str date;             /* value for Date (29 bytes), from weir_http_date; empty: none */
};
enum weir_http_framing { WEIR_HTTP_NONE, WEIR_HTTP_LENGTH, WEIR_HTTP_CHUNKED, WEIR_HTTP_CLOSE };
/* Appends the status line and head; tells how content has to be framed and whether the connection stays.
 * WEIR_INVALID: a field is not allowed (nothing appended), WEIR_NOMEM. */
WEIR_CHECK int weir_http1_write_head(struct weir_buf *out, const struct weir_http_response *r,
                                     enum weir_http_framing *framing, bool *keep_alive);
/* An interim response (100, 103). */
WEIR_CHECK int weir_http1_write_interim(struct weir_buf *out, int status, const struct weir_pair *headers, size_t count);
/* Frame for a chunk of len bytes whose content the caller appends itself, and then the two bytes behind it. */
#define WEIR_HTTP_CHUNK_HEAD_MAX 18
size_t weir_http1_chunk_head(char *out, uint64_t len);
WEIR_CHECK int weir_http1_write_chunk(struct weir_buf *out, const void *p, size_t len); /* head, content, CRLF; len > 0 */
WEIR_CHECK int weir_http1_write_chunk_end(struct weir_buf *out, const struct weir_pair *trailers, size_t count);
const char *weir_http_status_text(int status); /* never NULL */
void weir_http_date(char out[static 30], int64_t unix_seconds); /* IMF-fixdate and NUL [RFC 9110 5.6.7] */
WEIR_CHECK int weir_http_date_parse(struct weir_str s, int64_t *unix_seconds); /* the three forms of RFC 9110 */
/* True for a token (RFC 9110 5.6.2). */
bool weir_http_token(struct weir_str s);
/* Finds a field, ASCII case folded; NULL if absent. */
const struct weir_pair *weir_http_find(const struct weir_pair *headers, size_t count, const char *name);
#endif

/* SPDX-License-Identifier: MIT */
/* http: HTTP/1.1 and HTTP/2 bytes <-> exchanges. No I/O, no clock. Strict (RFC 9110, RFC 9112, RFC 9113): what two servers
 * could read in two ways is an error. The same events come out however the bytes are split. */
#ifndef WEIR_HTTP_H
#define WEIR_HTTP_H

#include "base/base.h"

struct weir_http_limits {    /* 0: the default in brackets */
    uint32_t line;           /* request line [8192]: beyond it 414 */
    uint32_t head;           /* whole head [65536 is the hard cap; default 32768]: 431 */
    uint32_t headers;        /* how many header fields [100]: 431 */
    uint64_t body;           /* content bytes [no limit = UINT64_MAX when 0]: 413, also for chunked */
    uint32_t chunk_line;     /* chunk-size line with its extension [256]: 400 */
    uint32_t extensions;     /* bytes of all chunk extensions [16384]: 400 */
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
    uint8_t major, minor;             /* 1.0, 1.1 or 2.0 */
};

enum weir_http_event_type {
    WEIR_HTTP_EV_HEAD = 1, /* request() is filled */
    WEIR_HTTP_EV_BODY,     /* bytes: decoded content, in the lent buffer, never empty */
    WEIR_HTTP_EV_END,      /* the message is complete (always comes, also without a body) */
    WEIR_HTTP_EV_ERROR     /* status 400, 413, 414, 417, 431, 501, 503, 505; reason: static text for a person. Last event */
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

/* ---- HTTP/2 [RFC 9113]: one connection, many streams (http2.c on nghttp2) ---- */

/* A request with its response. It lives from its HEAD event until the next weir_http2_next() behind its CLOSED event. */
struct weir_http2_stream;
enum weir_http2_event_type {
    WEIR_HTTP2_EV_HEAD = 1, /* a request: weir_http2_request() gives its head; set user */
    WEIR_HTTP2_EV_BODY,     /* bytes: content, in the lent buffer, never empty; give credit for it as it is taken */
    WEIR_HTTP2_EV_END,      /* the request is complete */
    WEIR_HTTP2_EV_ROOM,     /* content that waited has left: there is room for more */
    WEIR_HTTP2_EV_ANSWERED, /* the last frame of the answer left, before the request is complete */
    WEIR_HTTP2_EV_CLOSED    /* nothing more comes or goes on it. The last event of each stream that had HEAD */
};
struct weir_http2_event {
    enum weir_http2_event_type type;
    struct weir_http2_stream *stream;
    struct weir_str bytes;
};
struct weir_http2_limits {   /* 0: the default in brackets */
    uint32_t head;           /* bytes of all names and values [32768]: 431 */
    uint32_t headers;        /* how many header fields [100]: 431 */
    uint32_t streams;        /* at once [100]: more are refused */
    uint32_t window;         /* content of a stream that may come before credit is given [262144] */
    uint32_t conn_window;    /* ... of all streams [1048576] */
};
/* Memory that connections of one thread have in turn; it outlives them. NULL: no memory. */
struct weir_http2_memory;
struct weir_http2_memory *weir_http2_memory_new(void);
void weir_http2_memory_free(struct weir_http2_memory *m);
struct weir_http2;
/* l is copied; NULL: defaults. m NULL: each piece is malloc's. */
WEIR_CHECK int weir_http2_new(struct weir_http2 **out, const struct weir_http2_limits *l, struct weir_http2_memory *m);
void weir_http2_free(struct weir_http2 *p); /* and all streams, without events */
/* Lends bytes of the client; the connection preface is the first of them. next() gives events until WEIR_AGAIN: then all lent
 * bytes are used. WEIR_PROTOCOL: the connection has failed: what pull() still gives (GOAWAY) is sent, then it is closed.
 * now_ms: for the limits on frames that only cost time. */
void weir_http2_feed(struct weir_http2 *p, const void *buf, size_t len, uint64_t now_ms);
WEIR_CHECK int weir_http2_next(struct weir_http2 *p, struct weir_http2_event *ev); /* WEIR_OK, WEIR_AGAIN, WEIR_PROTOCOL, WEIR_NOMEM */
/* Appends frames to out until it holds about `high` bytes: WEIR_OK, WEIR_NOMEM. Events may follow. */
WEIR_CHECK int weir_http2_pull(struct weir_http2 *p, struct weir_buf *out, size_t high);
bool weir_http2_wants_write(const struct weir_http2 *p); /* pull() would give something */
uint32_t weir_http2_streams(const struct weir_http2 *p); /* that are not closed */
/* The first stream with HEAD (s: NULL), or the next one behind s; NULL: there is none. */
struct weir_http2_stream *weir_http2_any(const struct weir_http2 *p, const struct weir_http2_stream *s);
/* The client is told to ask elsewhere [RFC 9113 6.8]; what it asks all the same before it knows is still served; at_once: no more
 * than what has come. Streams that are there go on. */
void weir_http2_leave(struct weir_http2 *p, bool at_once);
bool weir_http2_over(const struct weir_http2 *p);        /* it left or failed, and nothing is left to do */

/* The head of a request, its strings in the arena: once, behind HEAD. WEIR_INVALID: it may not be served: answer *status, *reason. */
WEIR_CHECK int weir_http2_request(struct weir_http2_stream *s, struct weir_arena *arena, struct weir_http_request **out,
                                  int *status, const char **reason);
void weir_http2_set_user(struct weir_http2_stream *s, void *user);
void *weir_http2_user(const struct weir_http2_stream *s);
/* Content of len bytes was taken (or thrown away): the client may send as much again. */
void weir_http2_credit(struct weir_http2_stream *s, size_t len);
/* ... but of this stream nothing more is wanted: others may. */
void weir_http2_credit_others(struct weir_http2_stream *s, size_t len);
/* The head; last: no content follows. keep_alive, minor are not looked at. WEIR_INVALID, WEIR_NOMEM: nothing was sent. */
WEIR_CHECK int weir_http2_write_head(struct weir_http2_stream *s, const struct weir_http_response *r, bool last);
WEIR_CHECK int weir_http2_write_interim(struct weir_http2_stream *s, int status, const struct weir_pair *headers, size_t count);
/* Content: append to this buffer, at most weir_http2_room() bytes, and then say so. */
struct weir_buf *weir_http2_content(struct weir_http2_stream *s);
void weir_http2_added(struct weir_http2_stream *s, size_t len);
size_t weir_http2_room(struct weir_http2_stream *s); /* 0: ROOM tells when there is some */
uint64_t weir_http2_taken(const struct weir_http2_stream *s); /* bytes of content that left so far */
size_t weir_http2_waiting(const struct weir_http2_stream *s); /* ... that did not leave yet */
void weir_http2_write_end(struct weir_http2_stream *s); /* no more content comes */
bool weir_http2_answered(const struct weir_http2_stream *s);   /* the last frame of the answer left, or none will */
/* Behind ANSWERED: no more of the request is wanted, and its client is told so (NO_ERROR) [RFC 9113 8.1]. */
void weir_http2_stop(struct weir_http2_stream *s);
void weir_http2_reset(struct weir_http2_stream *s); /* breaks it off: INTERNAL_ERROR; CLOSED follows */

/* host[:port] that is served: a name, an IPv4 or an [IPv6] address. */
bool weir_http_authority(struct weir_str s);
/* True for a token (RFC 9110 5.6.2). */
bool weir_http_token(struct weir_str s);
/* Finds a field, ASCII case folded; NULL if absent. */
const struct weir_pair *weir_http_find(const struct weir_pair *headers, size_t count, const char *name);

/* ---- parts and codings of a representation ---- */
#define WEIR_HTTP_RANGES_MAX 16 /* more of them are none: who asks for so many wants to cost something */
struct weir_http_range {
    uint64_t first, len;
};
enum weir_http_ranges {
    WEIR_HTTP_RANGES_IGNORED, /* no bytes, not understood, or too many: the whole is the answer */
    WEIR_HTTP_RANGES_SOME,    /* disjoint, none is empty; those near to each other are one */
    WEIR_HTTP_RANGES_OUTSIDE  /* 416 */
};
/* A Range field for a representation of so many bytes [RFC 9110 14.2]. */
enum weir_http_ranges weir_http_ranges(struct weir_str value, uint64_t size, struct weir_http_range out[static WEIR_HTTP_RANGES_MAX], size_t *count);
/* Which coding the Accept-Encoding fields prefer, among equals the first one; -1: none of them, send it as it is [RFC 9110 12.5.3]. */
int weir_http_choose_coding(const struct weir_pair *headers, size_t count, const struct weir_str *codings, size_t coding_count);

/* ---- content as gzip ---- */
#define WEIR_GZIP_ROOM 64           /* the least room for weir_gzip_pull */
struct weir_gzip;                   /* about 128 KiB */
enum weir_gzip_step {
    WEIR_GZIP_MORE,                 /* more follows, and there is time */
    WEIR_GZIP_FLUSH,                /* who gets what is pulled can read all that was fed so far */
    WEIR_GZIP_END
};
int weir_gzip_new(struct weir_gzip **out, int level); /* 1: fast .. 9: small */
void weir_gzip_free(struct weir_gzip *g);
void weir_gzip_reset(struct weir_gzip *g, int level); /* for another content */
/* Lends bytes until weir_gzip_pull has given all that comes of them: it is called until it gives 0. */
void weir_gzip_feed(struct weir_gzip *g, const void *p, size_t len, enum weir_gzip_step step);
size_t weir_gzip_pull(struct weir_gzip *g, void *out, size_t room);

/* ---- what stands before the first request: the PROXY protocol, versions 1 and 2 ---- */
#define WEIR_PROXY_MAX 4096 /* bytes behind the fixed part of version 2: addresses, and what else is told of the connection */
struct weir_proxy_address {
    uint8_t address[16]; /* IPv4 mapped */
    uint16_t port;
};
struct weir_proxy { /* zeroed: nothing has come */
    struct weir_proxy_address from, to; /* when complete and known: the client, and where it connected to */
    bool known;                         /* false: the sender speaks for itself (LOCAL, UNSPEC, UNKNOWN, a unix socket) */
    bool read;                          /* all but what is passed over */
    uint8_t version;
    uint16_t have, body, skip;          /* bytes held; of version 2: behind the fixed part; still to be passed over */
    char held[108];
};
/* Takes bytes, *used of them: WEIR_OK: complete, what is left belongs to the client; WEIR_AGAIN: all used, more needed;
 * WEIR_PROTOCOL: it is no such header, *reason tells. */
WEIR_CHECK int weir_proxy_feed(struct weir_proxy *p, const void *buf, size_t len, size_t *used, const char **reason);

/* ---- who a request came from, as proxies tell it: Forwarded [RFC 7239] or X-Forwarded-For, from the last one backwards ---- */
struct weir_hop {
    bool known;                  /* it has an address; else it is "unknown" or hidden */
    struct weir_proxy_address from;
    struct weir_str proto, host; /* Forwarded: as told by the same proxy; empty: not */
};
struct weir_hops {
    const struct weir_pair *headers;
    size_t left;                 /* fields that were not begun */
    struct weir_str rest;        /* of the one that was */
    bool forwarded;
};
void weir_hops_init(struct weir_hops *h, const struct weir_pair *headers, size_t count, bool forwarded);
/* The hop before the one that was given last: WEIR_OK; WEIR_CLOSED: there is none; WEIR_PROTOCOL: what stands there is no hop (whoever
 * is behind it wrote it), and nothing further to the left can be believed. */
WEIR_CHECK int weir_hops_next(struct weir_hops *h, struct weir_hop *out);
/* The last value of a list field (X-Forwarded-Proto, X-Forwarded-Host): its nearest writer's. Empty: none. */
struct weir_str weir_last_value(const struct weir_pair *headers, size_t count, const char *name);

/* ---- credentials of Basic [RFC 7617] ---- */
/* From the value of Authorization; both lie in the arena, with a NUL behind. WEIR_INVALID: it has none (another scheme, no base64, a
 * control byte, no colon, a name over 255 or a password over 511 bytes); WEIR_NOMEM. */
WEIR_CHECK int weir_http_basic(struct weir_str value, struct weir_arena *a, struct weir_str *user, struct weir_str *password);
#endif

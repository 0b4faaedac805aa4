/* SPDX-License-Identifier: MIT */
/* FastCGI records and the connection machine of both ends: bytes and time in, events and bytes out. No I/O, no clock,
 * no thread, no callback. The same events come out however the bytes are split.
 *
 * Source: FastCGI 1.0 (M. R. Brown, 1996), rules by their ids (docs/fastcgi-rules.md; FC1-B-a: its examples); flow control: docs/flow-control.md ("FC").
 *
 * One object is one connection; it belongs to one thread at a time. Contract of both ends:
 *     feed(w, bytes)                lend the received bytes until next() has returned WEIR_AGAIN
 *     next(w, &event) == WEIR_OK    take events; ev.bytes point into the lent bytes
 *     ...write, end, consumed...    answer; encoded records gather in one contiguous output
 *     output(w, &ptr), sent(w, n)   send them
 * After WEIR_WIRE_EV_ERROR nothing more comes out and the connection is to be closed (what is already in the output may
 * still be sent). */
#ifndef WEIR_WIRE_H
#define WEIR_WIRE_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- numbers of the protocol (FC1-8-a) ---- */
#define WEIR_WIRE_VERSION 1
#define WEIR_WIRE_HEADER_LEN 8 /* FC1-8-b */
#define WEIR_WIRE_MAX_CONTENT 65535
#define WEIR_WIRE_SEND_CONTENT 65528 /* the most that we send: content + padding stays below 65536 for every peer (IOP-S3) */
enum weir_wire_type {
    WEIR_WIRE_BEGIN_REQUEST = 1,
    WEIR_WIRE_ABORT_REQUEST = 2,
    WEIR_WIRE_END_REQUEST = 3,
    WEIR_WIRE_PARAMS = 4,
    WEIR_WIRE_STDIN = 5,
    WEIR_WIRE_STDOUT = 6,
    WEIR_WIRE_STDERR = 7,
    WEIR_WIRE_DATA = 8,
    WEIR_WIRE_GET_VALUES = 9,
    WEIR_WIRE_GET_VALUES_RESULT = 10,
    WEIR_WIRE_UNKNOWN_TYPE = 11,
    WEIR_WIRE_CREDIT = 32 /* FC 4 */
};
enum weir_wire_protocol_status {
    WEIR_WIRE_REQUEST_COMPLETE = 0,
    WEIR_WIRE_CANT_MPX_CONN = 1,
    WEIR_WIRE_OVERLOADED = 2,
    WEIR_WIRE_UNKNOWN_ROLE = 3
};
#define WEIR_WIRE_KEEP_CONN 0x01
#define WEIR_WIRE_FLOW 0x80 /* FC 3 */

/* ---- codec: record header (FC1-3.1-a, FC1-3.3-a) ---- */
struct weir_wire_header {
    uint8_t version, type, padding;
    uint16_t id, len;
};
/* out: 8 bytes. The reserved byte is zero. */
WEIR_API void weir_wire_header_write(uint8_t *out, uint8_t type, uint16_t id, uint16_t len, uint8_t padding);
WEIR_API void weir_wire_header_read(const uint8_t *in, struct weir_wire_header *out);

/* ---- codec: name-value pairs (FC1-3.4-a) ---- */
/* Bytes that one pair takes; with out != NULL also writes it (the one code path for measuring and writing).
 * 0: a length above 2^31-1. */
WEIR_API size_t weir_wire_pair(uint8_t *out, struct weir_str name, struct weir_str value);
/* Takes the pair at *pos of bytes: WEIR_OK and *pos moved; WEIR_AGAIN at the end; WEIR_PROTOCOL when it runs past it. */
WEIR_API WEIR_CHECK int weir_wire_pair_next(struct weir_str bytes, size_t *pos, struct weir_pair *out);

/* ---- limits: zero means the default in brackets ---- */
struct weir_wire_limits {
    uint32_t params_bytes;   /* PARAMS of one request [1 MiB]; of all incomplete requests of a connection: 4 x */
    uint32_t params_count;   /* pairs in them [2048] */
    uint32_t requests;       /* app end: active requests on an agreed connection, announced and enforced, at most 65535 [1000] */
    uint32_t plain_requests; /* app end: the same on a plain connection [1: never multiplex] */
    uint32_t reqs;           /* app end: what FCGI_MAX_REQS answers, requests of the whole program [plain_requests] */
    uint32_t conns;          /* app end: what FCGI_MAX_CONNS answers [1000] */
    uint32_t window;         /* initial limit of each stream that we receive on an agreed connection [64 KiB] */
    uint32_t stray_records;  /* records of inactive ids in a row before the connection ends [10000] */
    uint32_t idle_credits;   /* CREDIT in a row without a byte of that stream before the connection ends [1000] */
    uint32_t threads;        /* app end: handlers wait, on so many threads: told to the server [0: event handlers] (FC 2.2) */
    uint32_t no_flow;        /* 1: do not answer FCGI_FLOW_CONTROL (app end) */
};

enum weir_wire_event_type {
    WEIR_WIRE_EV_REQUEST = 1, /* app: BEGIN and all PARAMS came; weir_wire_app_params() tells them */
    WEIR_WIRE_EV_INPUT,       /* app: bytes of STDIN or DATA. server: bytes of STDOUT or STDERR */
    WEIR_WIRE_EV_INPUT_END,   /* that stream ended (server: before END_REQUEST even if the peer left the empty record out) */
    WEIR_WIRE_EV_ROOM,        /* a stream that had no credit may send again */
    WEIR_WIRE_EV_ABORT,       /* app: ABORT_REQUEST; the request still has to be ended */
    WEIR_WIRE_EV_END,         /* server: END_REQUEST; the id is free again, user is told for the last time */
    WEIR_WIRE_EV_VALUES,      /* server: the outcome of ask() (agreed tells yes or no) or of ping() */
    WEIR_WIRE_EV_LIMIT,       /* server: the number of requests that the app takes changed; see .limit and .final */
    WEIR_WIRE_EV_ERROR        /* the peer broke the protocol; reason tells how. Last event */
};

struct weir_wire_event {
    enum weir_wire_event_type type;
    uint16_t id;
    uint8_t role;               /* REQUEST */
    uint8_t protocol_status;    /* END */
    uint8_t agreed;             /* VALUES: 1: flow control is agreed; END: 1: the mark (FC 2.4) was set */
    uint8_t final;              /* LIMIT: the app drains (FC 7.5) */
    uint8_t keep;               /* REQUEST: KEEP_CONN was set */
    uint8_t not_run;            /* END: a refusal; no application code ran (FC 7.3) */
    enum weir_stream stream;    /* INPUT, INPUT_END, ROOM */
    uint32_t app_status;        /* END */
    uint32_t param_count;       /* REQUEST: pairs in PARAMS */
    uint32_t threads;           /* VALUES, agreed: handlers that wait, on so many threads; 0: event handlers */
    uint32_t limit;             /* LIMIT */
    struct weir_str bytes;      /* INPUT: in the lent buffer, never empty */
    void *user;                 /* what set_user or begin gave; NULL if nothing */
    const char *reason;         /* ERROR: static text */
};

/* ==== the application's end: receives requests ==== */
struct weir_wire_app;
WEIR_API WEIR_CHECK int weir_wire_app_new(struct weir_wire_app **out, const struct weir_wire_limits *l); /* l copied; NULL: defaults */
WEIR_API void weir_wire_app_free(struct weir_wire_app *w);
/* Lends bytes; the former ones must be used up (next() said WEIR_AGAIN). */
WEIR_API void weir_wire_app_feed(struct weir_wire_app *w, const void *buf, size_t len);
WEIR_API WEIR_CHECK int weir_wire_app_next(struct weir_wire_app *w, struct weir_wire_event *ev); /* WEIR_OK or WEIR_AGAIN */
/* The encoded PARAMS of an active request, one malloc'd block, validated (each pair whole, no NUL in names or values,
 * no '=' in a name, no empty name). The caller may change its bytes and the one behind them. take: it becomes the caller's
 * to free(). Else it lives until the request's end. */
WEIR_API struct weir_str weir_wire_app_params(const struct weir_wire_app *w, uint16_t id);
WEIR_API struct weir_str weir_wire_app_params_take(struct weir_wire_app *w, uint16_t id);
WEIR_API void weir_wire_app_set_user(struct weir_wire_app *w, uint16_t id, void *user);
/* Queues up to len bytes of STDOUT or STDERR: as much as credit and room in the output allow (0..len), or WEIR_INVALID for
 * an inactive id or an ended stream, WEIR_CLOSED after an error, WEIR_NOMEM. A plain connection has no credit: what waits in
 * the output is the caller's to bound.
 * After 0 or less than len an EV_ROOM comes when credit came; room in the output is the caller's to watch (output()). */
WEIR_API WEIR_CHECK int64_t weir_wire_app_write(struct weir_wire_app *w, uint16_t id, enum weir_stream s, const void *buf, size_t len);
/* How much write() would take now. */
WEIR_API size_t weir_wire_app_room(const struct weir_wire_app *w, uint16_t id, enum weir_stream s);
/* Ends STDOUT or STDERR alone: the empty record. */
WEIR_API WEIR_CHECK int weir_wire_app_write_end(struct weir_wire_app *w, uint16_t id, enum weir_stream s);
/* Ends the request: the ends of its streams (what has not ended; STDERR only if used), then END_REQUEST. The id is inactive at once.
 * Another status than REQUEST_COMPLETE before anything was consumed or written is a refusal (FC 7.3); later it is a broken answer. */
WEIR_API WEIR_CHECK int weir_wire_app_end(struct weir_wire_app *w, uint16_t id, uint32_t app_status, uint8_t protocol_status);
/* The program took len bytes of an input stream (discarded ones too): credit goes back when due (FC 5.4). */
WEIR_API void weir_wire_app_consumed(struct weir_wire_app *w, uint16_t id, enum weir_stream s, size_t len);
/* Takes so many active requests from now on (FC 7.1), 0 to 65535. What the server began before it heard of less still comes:
 * run or refuse it. Before the connection is agreed it is what will be told. Plain: no effect. */
WEIR_API void weir_wire_app_limit(struct weir_wire_app *w, uint32_t requests);
/* Says FINAL on an agreed connection (FC 7.5): the server begins nothing more here. Plain: no effect on the wire. */
WEIR_API void weir_wire_app_drain(struct weir_wire_app *w);
WEIR_API size_t weir_wire_app_output(const struct weir_wire_app *w, const void **ptr); /* bytes to send now */
WEIR_API void weir_wire_app_sent(struct weir_wire_app *w, size_t len);
WEIR_API uint32_t weir_wire_app_active(const struct weir_wire_app *w);
WEIR_API int weir_wire_app_agreed(const struct weir_wire_app *w);
/* 1: the last request had no KEEP_CONN and has ended: close once the output is sent. */
WEIR_API int weir_wire_app_closing(const struct weir_wire_app *w);
/* 1: nothing of a request is begun: no partial record, no incomplete PARAMS (a good moment to close). */
WEIR_API int weir_wire_app_idle(const struct weir_wire_app *w);
/* Iterates the active requests: pass 0 first, then the last id; 0: no more. For a connection that closed. */
WEIR_API uint16_t weir_wire_app_next_id(const struct weir_wire_app *w, uint16_t after, void **user);

/* ==== the web server's end: sends requests ==== */
struct weir_wire_server;
WEIR_API WEIR_CHECK int weir_wire_server_new(struct weir_wire_server **out, const struct weir_wire_limits *l);
WEIR_API void weir_wire_server_free(struct weir_wire_server *w);
/* Asks for flow control (FC 2.1). Only with no active request. EV_VALUES follows; the time-out is the caller's:
 * on it close the connection. */
WEIR_API WEIR_CHECK int weir_wire_server_ask(struct weir_wire_server *w);
/* GET_VALUES as a ping: its EV_VALUES proves that a peer that serves one request after the other is between two. Also right
 * behind the last record of a request: answered when that is over, whatever END_REQUEST said before. */
WEIR_API WEIR_CHECK int weir_wire_server_ping(struct weir_wire_server *w);
/* Encodes BEGIN_REQUEST, PARAMS and their end straight into the output. window: initial credit for STDOUT and for STDERR,
 * each (agreed connections only). keep: KEEP_CONN (always set on an agreed connection).
 * WEIR_LIMIT: as many are active as the peer takes (plain: 1 unless allow_plain_mpx was called), or no id is free;
 * WEIR_INVALID: a pair over WEIR_WIRE_SEND_CONTENT, an empty name, a NUL, a '=' in a name; WEIR_CLOSED: after an error or FINAL;
 * WEIR_NOMEM. Nothing is written then. */
WEIR_API WEIR_CHECK int weir_wire_server_begin(struct weir_wire_server *w, enum weir_role role, int keep, uint32_t window,
                                               const struct weir_pair *params, size_t count, void *user, uint16_t *id);
/* The peer is multiplexed without credit because its pool says so: up to n active requests. */
WEIR_API void weir_wire_server_allow_plain_mpx(struct weir_wire_server *w, uint32_t n);
/* As weir_wire_app_write, for STDIN and DATA. */
WEIR_API WEIR_CHECK int64_t weir_wire_server_write(struct weir_wire_server *w, uint16_t id, enum weir_stream s, const void *buf, size_t len);
WEIR_API size_t weir_wire_server_room(const struct weir_wire_server *w, uint16_t id, enum weir_stream s);
WEIR_API WEIR_CHECK int weir_wire_server_write_end(struct weir_wire_server *w, uint16_t id, enum weir_stream s); /* the empty record */
/* ABORT_REQUEST: nothing more is sent for id; its output that still arrives is discarded and counts as taken; EV_END follows. */
WEIR_API WEIR_CHECK int weir_wire_server_abort(struct weir_wire_server *w, uint16_t id);
/* The program took len bytes of an output stream: credit goes back when due (FC 5.4). */
WEIR_API void weir_wire_server_consumed(struct weir_wire_server *w, uint16_t id, enum weir_stream s, size_t len);
/* From now on credit keeps this window open (FC 5.8); consumed(), also of 0 bytes, tells it. */
WEIR_API void weir_wire_server_set_window(struct weir_wire_server *w, uint16_t id, enum weir_stream s, uint32_t window);
WEIR_API void weir_wire_server_feed(struct weir_wire_server *w, const void *buf, size_t len);
WEIR_API WEIR_CHECK int weir_wire_server_next(struct weir_wire_server *w, struct weir_wire_event *ev);
WEIR_API size_t weir_wire_server_output(const struct weir_wire_server *w, const void **ptr);
WEIR_API void weir_wire_server_sent(struct weir_wire_server *w, size_t len);
WEIR_API uint32_t weir_wire_server_active(const struct weir_wire_server *w);
WEIR_API uint32_t weir_wire_server_limit(const struct weir_wire_server *w);  /* how many may be active: 1 on a plain one */
WEIR_API int weir_wire_server_agreed(const struct weir_wire_server *w);
/* Output that the machine still holds for a begun request is on its way (sent) or not: 1 when no byte of it was sent(). */
WEIR_API int weir_wire_server_unsent(const struct weir_wire_server *w, uint16_t id);
/* 1: the connection may serve another request: no error, no FINAL, nothing active, no partial record came, no byte is
 * unsent; and on a plain one each was begun with KEEP_CONN, its STDIN had ended before END_REQUEST, it ended as REQUEST_COMPLETE, and none
 * was aborted. */
WEIR_API int weir_wire_server_reusable(const struct weir_wire_server *w);
WEIR_API uint16_t weir_wire_server_next_id(const struct weir_wire_server *w, uint16_t after, void **user);

#ifdef __cplusplus
}
#endif
#endif

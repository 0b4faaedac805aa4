/* SPDX-License-Identifier: MIT */
/* libweir, web-server side: pools of endpoints with exact slots, one bounded queue each, connections that are kept, multiplexed with
 * flow control or taken over between threads. It knows no HTTP: parameters, body and data go in, the bytes of STDOUT and STDERR and the
 * end come out.
 *
 * A group is what threads share; each thread has one client, on a loop of its own. A pool, with its endpoints, may be used from any
 * thread; a client and its requests belong to theirs. Nothing calls back:
 *
 *     step(c, wait)                    waits for what happens, and does it
 *     next(c, &event) == WEIR_OK       take events until WEIR_AGAIN; begin, write, consume in answer
 *     flush(c)                         what this turn wrote leaves, one write for each connection
 *
 * Embedding: wait for weir_client_fd() to become readable, for at most weir_client_wait_ms(), in any loop; then step(c, 0) and the rest.
 *
 * Nothing here logs, exits or touches signals. Negative results are enum weir_status; outputs are set on success only. Option structs
 * are copied; they are filled by their _init macro and grow at the end only. Source: FastCGI 1.0; docs/flow-control.md. */
#ifndef WEIR_CLIENT_H
#define WEIR_CLIENT_H

#include <stdbool.h>

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_client_group;
struct weir_pool;
struct weir_endpoint;
struct weir_client;
struct weir_client_req;

/* ---- what threads share ---- */
/* For so many threads, 1 to 64, each with one client. WEIR_INVALID, WEIR_NOMEM. */
WEIR_API WEIR_CHECK int weir_client_group_new(struct weir_client_group **out, unsigned threads);
/* Another process takes over: connections that serve one request at a time are not kept any more, idle ones are closed at
 * once. Requests go on. Any thread; it cannot be taken back. */
WEIR_API void weir_client_group_leave(struct weir_client_group *g);
WEIR_API void weir_client_group_free(struct weir_client_group *g); /* after its clients and pools */

struct weir_pool_options {
    size_t size;            /* set by weir_pool_options_init() */
    const char *name;       /* copied */
    uint32_t queue_count;   /* requests that may wait */
    uint32_t queue_ms;      /* for how long, each */
    bool owned;             /* endpoints come and go by weir_pool_set: requests wait for them; else a failed connect to the
                               last endpoint is told to those who wait */
};
#define weir_pool_options_init(o) weir_pool_options_init_sized((o), sizeof *(o))
WEIR_API void weir_pool_options_init_sized(struct weir_pool_options *o, size_t size); /* 1000 waiting, 30 s */
WEIR_API WEIR_CHECK int weir_pool_new(struct weir_pool **out, struct weir_client_group *g, const struct weir_pool_options *o);
/* Only when no client uses it any more (checked). */
WEIR_API void weir_pool_free(struct weir_pool *p);
/* No new request comes: its endpoints drain. True when the last connection is gone, and weir_pool_get_stats told those of an owned pool:
 * then it was freed. Else ask again later. */
WEIR_API WEIR_CHECK bool weir_pool_retire(struct weir_pool *p);
/* Nothing serves it, and that will stay so for a while: who waits and who comes is refused at once. why: static; NULL: that is
 * over. Any thread. */
WEIR_API void weir_pool_refuse(struct weir_pool *p, const char *why);
/* Why it refuses now; NULL: it does not. Any thread. */
WEIR_API const char *weir_pool_refusal(struct weir_pool *p);
/* This endpoint does not serve (or does again): it gets no new request. When that is so for all, the pool refuses. One that was left
 * alone because it could not be connected to is tried at once when it is told to serve. Any thread. */
WEIR_API void weir_pool_mark(struct weir_pool *p, uint64_t id, bool down);
WEIR_API void weir_pool_set_queue(struct weir_pool *p, uint32_t count, uint32_t ms); /* any thread */
/* See weir_client_tend; 0: never. Any thread. */
WEIR_API void weir_pool_set_ping(struct weir_pool *p, uint32_t ms);
/* Kept connections that serve one request at a time, and had none for so long, are closed [0: never]. See weir_client_tend. Any thread. */
WEIR_API void weir_pool_set_idle(struct weir_pool *p, uint32_t ms);
WEIR_API const char *weir_pool_name(const struct weir_pool *p);

/* How a pool with several endpoints that is not owned uses them. A key goes to one endpoint, as long as that is up and has room (weighted
 * rendezvous hashing: when one leaves, only its keys move); without a key the less loaded of two that are drawn by weight. Backups
 * serve when no other endpoint is up. One that fails before any answer (connect: at once; a request: three in a row) is left alone for
 * eject_ms, twice as long each time, while another one is up; then one request tries it, and from its first byte of an answer on it
 * gets its share within slow_start_ms. Where none is up, each is tried again within 1.6 s. */
struct weir_pool_balance {
    size_t size;             /* set by weir_pool_balance_init() */
    uint32_t eject_ms, eject_max_ms; /* [1 s, 60 s]; 0: not longer than a failed connect rests anyway */
    uint32_t slow_start_ms;  /* [10 s]; 0: at once */
};
#define weir_pool_balance_init(o) weir_pool_balance_init_sized((o), sizeof *(o))
WEIR_API void weir_pool_balance_init_sized(struct weir_pool_balance *o, size_t size);
/* WEIR_INVALID. Any thread. */
WEIR_API WEIR_CHECK int weir_pool_set_balance(struct weir_pool *p, const struct weir_pool_balance *o);

struct weir_endpoint_options {
    uint64_t id;             /* of whoever owns the process: equal id = the same process */
    const char *address;     /* "unix:/path" or "fastcgi://ADDRESS:port" */
    uint32_t workers;        /* connections at once to a peer that serves one request on each [1] */
    uint32_t requests;       /* flow control: requests at once (0: as the peer says); plain_mpx: on each connection */
    uint32_t others;         /* slots that others who use the endpoint hold or wait for: left to them */
    bool keep;               /* connections are kept after a request */
    uint32_t pid;            /* for logs; 0: the address stands for it */
    bool prove;              /* a worker may go on after END_REQUEST: it is free when it has answered a ping */
    bool pings;              /* it is known to answer GET_VALUES */
    uint32_t ahead;          /* of `workers`: connections that are there before anybody asks, where they are kept; opened, and replaced
                                when they rested (weir_pool_set_idle), by weir_client_tend */
    bool forks;              /* processes start there for connections that wait for one, as php-fpm's with pm = ondemand. Where connections
                                are kept they are opened one after the other, with `pings` after a GET_VALUES each; and anew where
                                nobody accepts, since php-fpm looks at new ones alone */
    bool flow;               /* hint: ask for flow control */
    bool plain_mpx;          /* multiplex without credit, because the operator says so */
    bool drain;              /* nothing new; released when idle */
    uint32_t weight;         /* its part of a pool that is not owned, 1 to 256 [1] */
    bool backup;             /* serves when no other one is up */
};
/* The wanted endpoints, all of them; those that are not named any more drain. Idempotent. Any thread. Of one that is there already pid,
 * prove, pings, forks, flow and plain_mpx stay. WEIR_INVALID: an address cannot be used; WEIR_NOMEM (the others are set). */
WEIR_API WEIR_CHECK int weir_pool_set(struct weir_pool *p, const struct weir_endpoint_options *list, size_t count);

enum weir_endpoint_state {
    WEIR_ENDPOINT_UP,
    WEIR_ENDPOINT_DOWN,    /* weir_pool_mark */
    WEIR_ENDPOINT_EJECTED, /* it failed: left alone */
    WEIR_ENDPOINT_PROBED,  /* that time is over: one request tries it */
    WEIR_ENDPOINT_SLOW     /* up again, with less than its share yet */
};
struct weir_endpoint_stats {
    uint64_t id;
    char address[128];
    uint32_t conns, opening; /* that serve one request at a time; multiplexed ones are not counted */
    uint32_t busy, limit;    /* requests that hold a slot, and how many may */
    uint64_t done, failed, retried;
    bool flow, draining;
    bool gone;               /* nothing else of it is told */
    bool backup;
    uint32_t weight;
    enum weir_endpoint_state state; /* as far as the pool has looked: by its last request */
    uint64_t ejections;
    uint64_t passed_on;      /* requests that another one had because a connection to it was long in coming */
    uint64_t rests_until_us; /* EJECTED, on the clock of a client's loop */
    const char *problem;     /* EJECTED, PROBED: why; static. NULL: nothing */
};
struct weir_pool_stats {
    uint32_t queued;
    uint64_t oldest_us;      /* since when the oldest one waits; 0: none */
    uint64_t started, refused, timed_out;
    uint32_t endpoint_count; /* all; when these are more than `room`, none is written */
};
/* Any thread. The first ones are endpoints that are gone; each of these is told once. */
WEIR_API void weir_pool_get_stats(struct weir_pool *p, struct weir_pool_stats *out, struct weir_endpoint_stats *eps, size_t room);

/* ---- one thread's end ---- */
struct weir_client_options {
    size_t size;                   /* set by weir_client_options_init() */
    unsigned index;                /* of the thread in its group */
    const char *temp_dir;          /* for output that is held in files, which have no name there [/tmp] */
    uint64_t temp_max;             /* bytes of all of them [1 GiB] */
    uint32_t hold_memory;          /* output that its receiver cannot take: bytes in memory [256 KiB] */
    uint64_t hold_max;             /* and in all [1 GiB] */
    uint64_t window_memory;        /* output windows of all its requests with flow control together [64 MiB]: when they are
                                      many, each begins with less, 64 KiB down to 4 KiB */
};
#define weir_client_options_init(o) weir_client_options_init_sized((o), sizeof *(o))
WEIR_API void weir_client_options_init_sized(struct weir_client_options *o, size_t size);
/* The thread that calls it is the client's. WEIR_INVALID, WEIR_NOMEM, WEIR_SYSTEM. */
WEIR_API WEIR_CHECK int weir_client_new(struct weir_client **out, struct weir_client_group *g, const struct weir_client_options *o);
/* Aborts what runs; all its requests are gone, also those that ended and were not freed; no event follows. Other threads go on. */
WEIR_API void weir_client_free(struct weir_client *c);
/* Reads, connects, minds the clock; waits for at most wait_ms (0: not at all, -1: until something happens) unless events are there. */
WEIR_API WEIR_CHECK int weir_client_step(struct weir_client *c, int wait_ms);
WEIR_API void weir_client_flush(struct weir_client *c); /* end of the turn: batches leave */
WEIR_API void weir_client_wake(struct weir_client *c);  /* any thread: step() returns */
/* Readable when step(c, 0) has something to do (level-triggered). It stays the client's, and the same as long as that lives. */
WEIR_API int weir_client_fd(struct weir_client *c);
/* How long to wait for it at most, in ms, until step(c, 0) has something to do even so. 0: now; -1: for ever. */
WEIR_API int weir_client_wait_ms(struct weir_client *c);
/* Now and then, by each thread: connections of this thread on which nothing was heard for their pool's ping time are asked. Who does
 * not answer in the same time is told by a STUCK event. The group's first thread closes idle ones of all
 * (weir_pool_set_idle), and opens those that are to be there ahead. */
WEIR_API void weir_client_tend(struct weir_client *c);

enum weir_client_event_type {
    WEIR_CLIENT_STARTED = 1, /* it has a slot; give the body from its beginning (also after a retry) */
    WEIR_CLIENT_ROOM,        /* more body may be given */
    WEIR_CLIENT_OUTPUT,      /* STDOUT: bytes, of which consume() takes what can be taken; the rest is held. No bytes: what
                                was held can be peeked again. STDERR: bytes, whole lines or not, gone after this event */
    WEIR_CLIENT_SLOW,        /* it runs for longer than slow_ms */
    WEIR_CLIENT_STUCK,       /* no request: a process did not answer a ping: stuck tells which */
    WEIR_CLIENT_END          /* all output was consumed, or it failed: see the result. Free the request */
};
struct weir_client_stuck {
    uint64_t endpoint_id, peer; /* peer: as in the result */
};
struct weir_client_event {
    enum weir_client_event_type type;
    enum weir_stream stream;
    struct weir_client_req *req;
    void *user;
    struct weir_str bytes;
    struct weir_client_stuck stuck;
};
WEIR_API WEIR_CHECK int weir_client_next(struct weir_client *c, struct weir_client_event *ev);

struct weir_client_begin_options {
    size_t size;                    /* set by weir_client_begin_options_init() */
    enum weir_role role;
    const struct weir_pair *params; /* array and bytes are borrowed until END */
    size_t param_count;
    uint64_t body_len;              /* bytes of STDIN that will come; 0: none; WEIR_CLIENT_UNKNOWN: until weir_client_end_body() (no
                                       DATA then; many apps read no further than CONTENT_LENGTH) */
    uint64_t data_len;              /* of DATA behind them (role FILTER) */
    bool repeatable;                /* may run twice */
    bool body_kept;                 /* the body can be given from its beginning again (after STARTED) */
    uint32_t queue_ms;              /* 0: the pool's; else at most that */
    uint32_t silent_ms, request_ms; /* without a byte from the app; in all; 0: none */
    uint32_t slow_ms;               /* after it a SLOW event comes, once; 0: none */
    void *user;
    uint64_t key;                   /* requests with an equal one go to one endpoint; 0: it has none */
    bool once;                      /* begun on a connection, it goes to no other one, even if none of its bytes were sent */
};
#define WEIR_CLIENT_UNKNOWN UINT64_MAX
#define weir_client_begin_options_init(o) weir_client_begin_options_init_sized((o), sizeof *(o))
WEIR_API void weir_client_begin_options_init_sized(struct weir_client_begin_options *o, size_t size); /* a responder without a body; no time limits */
/* 1: started at once (give the body); 0: queued, STARTED follows; WEIR_LIMIT: the queue is full or too slow; WEIR_REFUSED: see
 * weir_pool_refusal; WEIR_INVALID: options that cannot be; WEIR_NOMEM. */
WEIR_API WEIR_CHECK int weir_client_begin(struct weir_client *c, struct weir_pool *p, const struct weir_client_begin_options *o,
                                 struct weir_client_req **out);
/* Takes 0..len bytes of the body, and behind body_len of them those of DATA; after fewer than len a ROOM follows, but at the end of
 * STDIN. The streams end by themselves after body_len and data_len bytes. WEIR_CLOSED: it does not run (yet, or any more);
 * WEIR_INVALID: more than was told; WEIR_NOMEM: nothing was taken, no ROOM follows: write again, or give it up. */
WEIR_API WEIR_CHECK int64_t weir_client_write(struct weir_client_req *r, const void *p, size_t len);
/* A body of unknown length ends. WEIR_AGAIN: a new STARTED is on its way, the body begins anew; WEIR_CLOSED: END is. WEIR_INVALID: its
 * length was told. */
WEIR_API WEIR_CHECK int weir_client_end_body(struct weir_client_req *r);
/* Held output, until consume, next or step: WEIR_OK, WEIR_AGAIN (being loaded, or none now). */
WEIR_API WEIR_CHECK int weir_client_peek(struct weir_client_req *r, const char **p, size_t *len);
WEIR_API void weir_client_consume(struct weir_client_req *r, size_t len);
/* Gives it up, at any time; no event follows; r is gone. Before END: the app is told (ABORT, or a closed connection). */
WEIR_API void weir_client_req_free(struct weir_client_req *r);

enum weir_client_stage { WEIR_STAGE_QUEUE, WEIR_STAGE_CONNECT, WEIR_STAGE_RUN, WEIR_STAGE_DONE };
struct weir_client_result {
    int status;                 /* WEIR_OK: END_REQUEST, REQUEST_COMPLETE; else why not */
    enum weir_client_stage stage;
    const char *reason;         /* one line for a log, static */
    uint32_t app_status;
    uint8_t protocol_status;
    bool not_run;               /* certain that no application code ran, in any try */
    uint32_t tries;
    uint64_t queued_us, total_us, received;
    uint64_t endpoint_id;       /* with TIMEOUT in the RUN stage, and SLOW: where it runs */
    uint64_t peer;              /* inode of the app's end of its connection, where one request has one: names the process; 0: not known */
};
/* Where it runs, or ran last, for a log: the process, or the address; empty: nowhere. */
WEIR_API void weir_client_req_where(const struct weir_client_req *r, char *out, size_t len);
WEIR_API void weir_client_req_result(const struct weir_client_req *r, struct weir_client_result *out);

#ifdef __cplusplus
}
#endif
#endif

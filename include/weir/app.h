/* SPDX-License-Identifier: MIT */
/* libweir, application side: serve FastCGI requests, many at once on one connection and on many, with flow control where
 * the web server speaks it. Two styles:
 *
 *   threads   options.threads = n and a handler: weir_app_run() calls it on n threads; reads and writes wait.
 *   events    options.threads = 0: weir_app_step(), weir_app_next() until WEIR_AGAIN, weir_app_flush(); nothing waits.
 *
 * Started as a plain CGI program (RFC 3875: listen_fd is 0 and no socket, and GATEWAY_INTERFACE is set) it serves that one request
 * from its environment, standard input and output in the same way, and has drained then.
 *
 * Nothing here logs, exits, or touches signals, environ or descriptors 0-2 unless an option or a call asks for it.
 * Negative results are enum weir_status; outputs are set on success only. Source: FastCGI 1.0; docs/flow-control.md. */
#ifndef WEIR_APP_H
#define WEIR_APP_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_app;     /* listening sockets, connections, requests; belongs to one thread */
struct weir_app_req; /* one request, from its event to its end; the library's memory */
typedef int weir_app_handler(struct weir_app_req *req, void *arg);

struct weir_app_options {
    size_t size;               /* set by weir_app_options_init() */
    uint32_t flags;            /* WEIR_APP_* */
    int listen_fd;             /* [0]; -1: only weir_app_adopt() */
    uint32_t threads;          /* 0: events; n: `handler` on n threads */
    weir_app_handler *handler; /* threads: returns appStatus; the request ends behind it */
    void *handler_arg;
    uint32_t max_conns;        /* connections at once [1000] */
    uint32_t max_requests;     /* requests at once [1000; threads: threads + 8]; told to servers with flow control */
    uint32_t max_plain;        /* requests at once on a connection without flow control [16]; FCGI_MAX_REQS */
    uint32_t params_bytes;     /* of one request [1 MiB] */
    uint32_t body_window;      /* input bytes of a request that are held unread [64 KiB] */
    uint32_t output_buffer;    /* bytes of a connection that wait to be sent before writes wait [256 KiB] */
    uint32_t idle_ms;          /* a connection without a request, also one with half a head, is closed after it (with flow control:
                                  the server is asked to) [0: never] */
    uint32_t drain_ms;         /* what still runs then is aborted [30000] */
    const char *server_addrs;  /* FCGI_WEB_SERVER_ADDRS: addresses that may connect by TCP; NULL: from the environment (FC1-3.2-b) */
    uint32_t roles;            /* WEIR_APP_ROLE_*: requests of other roles are refused, UNKNOWN_ROLE [responder alone] */
    uint64_t max_total;        /* after so many requests it drains by itself [0: never] */
};
#define WEIR_APP_PRIVATE_LISTEN 0x1u /* nobody else accepts on listen_fd: it may be made non-blocking. Without it (or
                                        WEIR_LISTEN=private in the environment) a thread of its own accepts */
#define WEIR_APP_ROLE_RESPONDER  0x1u
#define WEIR_APP_ROLE_AUTHORIZER 0x2u /* a status of 200 lets the request pass: headers named Variable-NAME become its parameters */
#define WEIR_APP_ROLE_FILTER     0x4u
#define weir_app_options_init(o) weir_app_options_init_sized((o), sizeof *(o))
WEIR_API void weir_app_options_init_sized(struct weir_app_options *o, size_t size);

/* Copies o. WEIR_INVALID: options that cannot be; WEIR_SYSTEM. */
WEIR_API WEIR_CHECK int weir_app_new(struct weir_app **out, const struct weir_app_options *o);
/* Ends what is open as aborted; listen_fd stays the caller's. */
WEIR_API void weir_app_free(struct weir_app *app);
/* An accepted connection; owned from success on. The app's thread. WEIR_LIMIT: max_conns are open; WEIR_NOMEM, WEIR_SYSTEM. */
WEIR_API WEIR_CHECK int weir_app_adopt(struct weir_app *app, int fd);
/* Threads style, a whole program in one call: WEIR_OK when it has drained. WEIR_INVALID: events style; WEIR_NOMEM, WEIR_SYSTEM. */
WEIR_API WEIR_CHECK int weir_app_run(struct weir_app *app);
/* The signal drains; its former action comes back in weir_app_free(). At most 4 signals. */
WEIR_API WEIR_CHECK int weir_app_drain_on(struct weir_app *app, int signal_number);
/* Any thread, also a signal handler: accept nothing new, tell the servers, finish, then WEIR_APP_DRAINED. On a listening socket that
 * other processes share, SIGURG wakes the thread that accepts; the program's own action for it comes back at once. */
WEIR_API void weir_app_drain(struct weir_app *app);
/* Any thread: step() returns. */
WEIR_API void weir_app_wake(struct weir_app *app);
/* Any thread: fn runs once, inside a later step(), where it may answer requests; what is left at weir_app_free() runs there.
 * WEIR_NOMEM: it will not. */
WEIR_API WEIR_CHECK int weir_app_post(struct weir_app *app, void (*fn)(void *arg), void *arg);

/* ---- events style ---- */
/* Reads and accepts; waits for at most wait_ms (0: not at all, -1: until something happens). WEIR_OK, also when a signal came;
 * WEIR_SYSTEM, WEIR_NOMEM: the listening socket cannot be used (first call only). */
WEIR_API WEIR_CHECK int weir_app_step(struct weir_app *app, int wait_ms);
/* For a program that waits for descriptors of its own, too: one that is readable when step(app, 0) has something to do, for poll or
 * epoll (level-triggered). It stays the app's, and the same as long as the app lives. */
WEIR_API int weir_app_fd(struct weir_app *app);
/* How long to wait for it at most, in ms, until step(app, 0) has something to do even so. 0: now; -1: for ever. */
WEIR_API int weir_app_wait_ms(const struct weir_app *app);
enum weir_app_event_type {
    WEIR_APP_REQUEST = 1, /* parameters are complete */
    WEIR_APP_INPUT,       /* bytes of `stream`, or its end, came */
    WEIR_APP_ROOM,        /* a write that was cut short may go on */
    WEIR_APP_ABORT,       /* the client or the server is gone: end it */
    WEIR_APP_DEADLINE,    /* the time of set_deadline() came */
    WEIR_APP_DRAINED      /* nothing runs any more; req is NULL */
};
struct weir_app_event {
    enum weir_app_event_type type;
    struct weir_app_req *req;
    void *user;
    enum weir_stream stream; /* INPUT: WEIR_STDIN or WEIR_DATA */
};
WEIR_API WEIR_CHECK int weir_app_next(struct weir_app *app, struct weir_app_event *ev); /* WEIR_OK, WEIR_AGAIN */
WEIR_API void weir_app_flush(struct weir_app *app); /* what the turn wrote leaves: one write for each connection */

/* ---- a request: of the app's thread; threads style: of its handler's until that returns ---- */
WEIR_API enum weir_role weir_app_req_role(const struct weir_app_req *req);
/* The last parameter of that name, NUL-terminated; NULL: absent. Lives as long as req. */
WEIR_API const char *weir_app_req_param(const struct weir_app_req *req, const char *name);
/* In order of arrival: WEIR_OK, WEIR_AGAIN behind the last. */
WEIR_API WEIR_CHECK int weir_app_req_param_at(const struct weir_app_req *req, size_t i, struct weir_pair *out);
WEIR_API int64_t weir_app_req_content_length(const struct weir_app_req *req); /* -1: not told */
WEIR_API void *weir_app_req_alloc(struct weir_app_req *req, size_t len);       /* gone with the request; NULL: memory */
WEIR_API void weir_app_req_set_user(struct weir_app_req *req, void *user);
WEIR_API void *weir_app_req_user(const struct weir_app_req *req);
/* From now; -1: none. Events: WEIR_APP_DEADLINE comes, once. Threads: from then on what would wait gives WEIR_TIMEOUT. */
WEIR_API void weir_app_req_set_deadline(struct weir_app_req *req, int64_t ms);
WEIR_API int weir_app_req_aborted(const struct weir_app_req *req);
/* WEIR_STDIN, the body, or, as a filter, WEIR_DATA, the file (behind the body: read that to its end first): bytes > 0; 0: the
 * end; WEIR_AGAIN (events only): later; WEIR_ABORTED; WEIR_TIMEOUT (threads): the deadline. */
WEIR_API WEIR_CHECK int64_t weir_app_req_read(struct weir_app_req *req, enum weir_stream s, void *buf, size_t len);
/* The response's header, before the first body byte. Without a Content-Type: text/plain. WEIR_INVALID: CR, LF, NUL, a
 * name that is no token, or too late. */
WEIR_API WEIR_CHECK int weir_app_req_status(struct weir_app_req *req, int status);
WEIR_API WEIR_CHECK int weir_app_req_header(struct weir_app_req *req, const char *name, const char *value);
/* Instead: the header is in what is written to STDOUT, and nothing is put in front of it. WEIR_INVALID: too late. */
WEIR_API WEIR_CHECK int weir_app_req_own_header(struct weir_app_req *req);
/* STDOUT (the body) or STDERR (a log): events: what fits, 0..len, the rest after WEIR_APP_ROOM; threads: waits, takes all.
 * WEIR_ABORTED, WEIR_NOMEM, WEIR_TIMEOUT (threads); WEIR_INVALID: behind weir_app_req_write_fd(). */
WEIR_API WEIR_CHECK int64_t weir_app_req_write(struct weir_app_req *req, enum weir_stream s, const void *buf, size_t len);
/* The same with a format, at most 64 KiB. Events: all, or WEIR_AGAIN and nothing; what the server does not take now is kept, and goes
 * before anything else of that stream. */
WEIR_API WEIR_CHECK int64_t weir_app_req_printf(struct weir_app_req *req, enum weir_stream s, const char *fmt, ...) WEIR_PRINTF(3, 4);
/* How many bytes weir_app_req_write() would take now without a wait. */
WEIR_API size_t weir_app_req_room(const struct weir_app_req *req, enum weir_stream s);
/* The rest of the body is len bytes (-1: up to the end) of a regular file, from offset; nothing may be written to STDOUT behind it.
 * Events: WEIR_OK; fd is dup'ed and sent as there is room, also behind weir_app_req_end(). Threads: waits until all is written.
 * A file that turns out shorter cuts the answer off: it ends with appStatus 1. WEIR_INVALID: no regular file, or too late;
 * WEIR_SYSTEM, WEIR_NOMEM; threads: WEIR_CLOSED when it is shorter, and as write. */
WEIR_API WEIR_CHECK int weir_app_req_write_fd(struct weir_app_req *req, int fd, int64_t offset, int64_t len);
/* What was written leaves now: not only at the end of the turn (events), or of the handler (threads: what is less than
 * output_buffer waits for it, so that a short answer is one write). For streams: events, long polling. Never waits. */
WEIR_API void weir_app_req_flush(struct weir_app_req *req);
/* Refuses it: overloaded; only before anything was read or written. req is gone. */
WEIR_API WEIR_CHECK int weir_app_req_refuse(struct weir_app_req *req);
/* Events: ends it (also an aborted one). req is gone. */
WEIR_API void weir_app_req_end(struct weir_app_req *req, uint32_t app_status);

#ifdef __cplusplus
}
#endif
#endif

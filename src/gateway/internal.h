/* SPDX-License-Identifier: MIT */
/* gateway: what its files share.
 * gateway.c owns the process: threads, snapshot swap, listeners, link. worker.c a thread's turn. http_conn.c HTTP
 * connections, http2_conn.c the streams of those that speak HTTP/2. exchange.c one request with its response, exchange_app.c the part of
 * it that concerns apps, app_head.c what their header says to us, reply.c its way to the client. front.c connections of foreign web servers,
 * front_req.c their requests. serve_file.c files. snapshot.c the compiled configuration. logs.c what is written.
 * http_tls.c TLS below HTTP, keys.c certificates. check.c asks servers of others whether they answer. orders.c what people ordered.
 * error_page.c what is said of requests that fail. request_id.c their ids. explain.c and trace.c tell what would be done. */
#ifndef WEIR_GATEWAY_INTERNAL_H
#define WEIR_GATEWAY_INTERNAL_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "cgi/cgi.h"
#include "client/on_loop.h"
#include "gateway/gateway.h"
#include "gateway/seen.h"
#include "gateway/trace.h"
#include "http/http.h"
#include "loop/loop.h"
#include "loop/spill.h"
#include "tls/tls.h"
#include "weir/wire.h"

#define MAX_WORKERS    64
#define SCRATCH        65536
#define PLAIN          16384        /* content of a record of TLS */
#define OUT_HIGH       (64u << 10)  /* response bytes that wait for a client's socket, in memory */
#define BODY_MEMORY    (64u << 10)  /* request body bytes in memory; more goes to a temp file */
#define STREAM_HIGH    (256u << 10) /* streamed request body that waits for the app: then the client waits */
#define MAX_REDIRECTS  5            /* local redirects of one request */
#define ACCEPT_BATCH   8
#define DRAIN_MS       30000
#define FIRST_MS       500   /* for the first request of who was accepted as we began to end */
#define FREE_MOST      256  /* exchanges, streams: of each so many are kept for the next ones */
#define STOP_MS        1000 /* then who still sends a body is told that its answer is complete: curl 7.88 loses one that NO_ERROR comes with */
#define LINGER_MS      30000 /* after the last answer input is dropped, lest a reset takes the answer from the client [RFC 9112 9.6] */
#define LINGER_IDLE_MS 5000  /* ... but no longer than this without a byte */
#define PUMP_READS     16          /* of SCRATCH bytes, by one client in its turn */
#define LINGER_STEP    (1u << 20) /* ... and so many bytes a millisecond, so that others have their turn */

enum kind {
    KIND_HTTP = 1,  /* an HTTP connection: index in its worker's table */
    KIND_STREAM,    /* timer of a stream of HTTP/2 */
    KIND_LISTENER,  /* index in the snapshot's listeners */
    KIND_FILE,      /* a job of an exchange */
    KIND_BODY,      /* a job of a request body's spill */
    KIND_FRONT,     /* a foreign web server's connection: index in its worker's table */
    KIND_FRONT_REQ, /* timer of a request on one */
    KIND_FRONT_BODY, /* a job of its body's spill */
    KIND_LINK,
    KIND_LOG,       /* timer: time to write the log */
    KIND_TICK,      /* timer: drain deadline, delayed state message */
    KIND_CLIENT,    /* .. + WEIR_CLIENT_KINDS - 1 */
    KIND_CHECK = KIND_CLIENT + WEIR_CLIENT_KINDS /* likewise, of checks */
};

/* ---- the compiled configuration ---- */

struct route {
    const struct weir_conf_route *conf;
    int root_fd;              /* O_PATH of root; -1: none, or it cannot be opened */
    struct weir_pool *pool;   /* NULL: none */
    const struct weir_conf_pool *pool_conf;
    const struct snapshot_pool *authorizer, *filter; /* NULL: none; filter: files go through it */
    bool scripts;             /* only files that exist here (or are named by `only`) are run */
    bool programs;            /* files that exist here are run as CGI programs, and nothing else is served */
    struct weir_open_area *areas; /* the root and, behind it, the folders outside where links may lead; they are the route's own */
    size_t area_count;
    bool areas_shared;        /* with a route before */
    struct weir_open_area *send_areas; /* folders of send-file, by their names; shared as areas */
    size_t send_count;
    bool send_shared;
};
struct site {
    const struct weir_conf_site *conf;
    struct route *routes;
};
struct listener {
    const struct weir_conf_listener *conf;
    int fd;                   /* owned by the snapshot */
    uint64_t id;              /* of its address: the same in the next snapshot */
    int default_site;         /* -1: no site is here */
    struct weir_pool *pool;   /* published here; NULL: none. Without both nobody is accepted */
    const struct weir_conf_pool *pool_conf;
    uid_t *users;             /* who may connect by its unix socket, where the configuration names users */
    size_t user_count;
    struct host_entry *hosts; /* open addressing, power of two */
    uint32_t host_mask;
    bool wildcards;           /* some of them are "*.example.org" */
    char address[64], port[8];
    struct weir_str server_addr, server_port;
    bool any_address;         /* bound to all: a connection tells which one it came to */
};
struct host_entry {
    struct weir_str name;
    int site;
};
struct snapshot {
    _Atomic unsigned refs;
    struct gateway *gw;
    struct weir_config *conf;
    struct site *sites;
    struct listener *listeners;
    struct snapshot_pool {
        struct gateway_pool *in; /* counted */
        const struct weir_conf_pool *conf;
    } *pools;
    uint64_t version;
};
/* fds: a listening socket for each listener of the configuration, taken over (also on failure); -1: it is not listened on. */
WEIR_CHECK int snapshot_new(struct snapshot **out, struct gateway *gw, struct weir_config *conf, const int *fds);
void snapshot_hold(struct snapshot *s);
void snapshot_drop(struct snapshot *s);
const struct listener *snapshot_listener(const struct snapshot *s, uint64_t id); /* NULL: not in this one */
const struct site *snapshot_site(const struct snapshot *s, const struct listener *l, struct weir_str host);
/* The route of a path. NULL: there are some, but none for this method. */
const struct route *site_route(const struct site *s, struct weir_str path, struct weir_str method);
const struct route *site_own_route(const struct site *s); /* what serves where no other one matches */
/* The methods of those that match, "GET, HEAD, POST"; no ptr: memory. */
struct weir_str site_allows(const struct site *s, struct weir_str path, struct weir_arena *a);
bool route_matches(const struct route *r, struct weir_str path); /* by its patterns */

/* ---- HTTP connections ---- */

struct exchange;
struct pace {                    /* pace.c: how a client sends, or takes */
    int64_t left_ms;             /* that it may still be waited for */
    uint64_t at_ms, progress_ms; /* of the last look; of the last byte */
    uint64_t bytes;              /* up to then */
    bool on, begun;              /* of a body: it is waited for; it was */
};

enum http_state {
    HTTP_PROXY,    /* whom it comes from is still to be told */
    HTTP_IDLE,     /* between messages */
    HTTP_HEAD,     /* a head is coming in */
    HTTP_EXCHANGE, /* an exchange has it */
    HTTP_STREAMS,  /* HTTP/2: streams have it */
    HTTP_LINGER    /* answered for the last time; what still comes is thrown away */
};
struct http_conn {
    struct weir_list dirty_link;
    struct worker *worker;
    struct weir_http1 *parser;
    struct http2 *h2;            /* NULL: HTTP/1 */
    struct weir_tls *tls;        /* NULL: in clear text */
    uint64_t clients;            /* the authorities that the client's certificate was asked from, by name; 0: not asked */
    struct exchange *ex;         /* of HTTP/1 */
    struct weir_buf out, in;     /* to send; read but not parsed yet (pipelined, or the app is slower) */
    struct weir_timer timer;
    uint64_t linger_until_ms;
    uint64_t due_ms, send_due_ms; /* time is up for what it has to send, to take; 0: none. The timer may be set earlier: it looks here */
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        sa_family_t family;
    } peer;
    uint64_t listener;           /* id */
    struct guard_proxy *proxied; /* what a proxy told in front of it; NULL: nothing */
    struct conn_count *counted;  /* among its client's; NULL: nobody counts them */
    struct pace pace_send;
    uint64_t written;            /* bytes into the socket */
    uint32_t index, epoch;
    int fd;
    uint32_t lingered;           /* bytes of this step */
    uint8_t state;
    uint8_t preface;             /* bytes of HTTP/2's that came; PREFACE_OVER: it is known what is spoken */
    bool want_write, readable, peer_closed, close_after, in_use, pumping, blank_seen, tls_begun;
    bool more; /* it stopped reading for the others: it goes on in its next turn */
    bool served; /* a request before: it may be closed while it is idle */
};
/* fd was counted already (in the worker's and the gateway's conn_count). */
void http_accepted(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener);
void http_event(struct worker *w, const struct weir_event *ev);
void http_left(struct http_conn *h, uint32_t epoch); /* closes it where its client left, and waited only for an app */
void http_timer(struct http_conn *h);
void http_close(struct http_conn *h);
void http_dirty(struct http_conn *h);  /* it has output, or its exchange has: looked at when the turn ends */
void http_flush(struct http_conn *h);
void http_want_write(struct http_conn *h); /* flushed again when the socket has room */
void http_send_now(struct http_conn *h); /* what is in its output, as far as the socket takes it */
bool http_write_out(struct http_conn *h); /* its output, as far as the socket takes it; false: it is closed */
void http_next(struct http_conn *h);   /* the exchange is over: the next message, or the end */
void http_linger(struct http_conn *h); /* all is sent: it closes */
void http_input(struct http_conn *h, const char *p, size_t len); /* bytes of HTTP from the client */
size_t http_unsent(const struct http_conn *h); /* bytes that wait for the socket */
void http_refuse(struct http_conn *h, int status, const char *why); /* instead of a first message */
const struct weir_conf_route *http_limits(const struct http_conn *h); /* what holds before a route is known */
void http_resume(struct http_conn *h); /* its exchange takes body again */
void http_arm(struct http_conn *h, uint32_t ms); /* time for what the client has to send; 0: none */
void http_arm_send(struct http_conn *h);         /* time for it to take what waits: anew, as it took something or begins to wait */

/* http_tls.c: TLS below HTTP */
enum http_tls_input { HTTP_TLS_GOES_ON, HTTP_TLS_MORE, HTTP_TLS_ENDED, HTTP_TLS_FAILED };
void http_tls_feed(struct http_conn *h, const char *p, size_t len); /* of the socket; lent, as to weir_tls_feed */
enum http_tls_input http_tls_input(struct http_conn *h);            /* one step with what was fed; MORE: it is used up */
WEIR_CHECK bool http_tls_seal(struct http_conn *h);                 /* encrypts of its output as much as may wait; false: memory */
WEIR_CHECK int http_tls_params(struct exchange *ex, struct weir_pair **out, size_t *count);
int http_tls_check(struct exchange *ex, const char **why); /* 0, or the status for a request that this connection may not make */

/* ---- certificates (keys.c) ---- */
struct keyring;
void gateway_keys(struct gateway *gw, int fd);  /* a memfd of control; not taken over */
void gateway_read_keys(struct gateway *gw, const struct weir_config *conf); /* by itself */
void worker_take_keys(struct worker *w);        /* the current ones, if they changed */
void keys_drop(struct keyring *r);
uint64_t keys_name(const struct weir_conf_key *k);
struct weir_tls_cert *keys_cert(const struct keyring *r, const struct weir_conf_key *k);   /* NULL: there is none that can be used */
struct weir_tls_trust *keys_trust(const struct keyring *r, const struct weir_conf_key *k);

/* HTTP/2 on a connection */
#define PREFACE_LEN  24
#define PREFACE_OVER 0xff
extern const char http2_preface[PREFACE_LEN + 1];
struct http2 {
    struct weir_http2 *session;
    struct weir_list dirty;      /* streams whose exchange has something to commit */
    uint32_t stream_count;       /* that began here */
    bool failed;                 /* the client broke the protocol: what is left is sent, then it closes */
};
struct stream {
    struct weir_list dirty_link;
    struct http_conn *conn;
    struct weir_http2_stream *wire;
    struct exchange *ex;         /* NULL: it is over, and what waits is still sent */
    struct weir_buf in;          /* body that the exchange does not take yet */
    struct weir_timer timer;
    struct stream *next_free;
    uint64_t due_ms, send_due_ms; /* as of a connection */
    uint64_t came, limit;        /* bytes of the body; the most there may be */
    struct pace pace;            /* of content that left */
    bool end_came, pumping;
};
WEIR_CHECK int http2_begin(struct http_conn *h);
void http2_input(struct http_conn *h, const char *p, size_t len);
void http2_flush(struct http_conn *h);
void http2_end(struct http_conn *h);   /* it closes: all exchanges are gone */
void http2_timer(struct http_conn *h); /* it was idle for too long */
void http2_leave(struct http_conn *h); /* this gateway ends, or another one takes over */
void stream_trim(struct worker *w, uint32_t most); /* as exchange_trim */
void stream_timer(struct weir_timer *t);
void stream_arm(struct stream *s, uint32_t ms);
void stream_resume(struct stream *s);
void stream_dirty(struct stream *s);
void stream_wrote(struct stream *s);   /* content was added */
void stream_over(struct stream *s);    /* its exchange is */
void stream_abort(struct stream *s);

/* ---- exchanges ---- */

struct app_caller { /* whose request of the client room it is */
    bool is_front;  /* of a struct front_req; else of an exchange */
};
/* Why a request was not begun (weir_client_begin) or failed, as a status of HTTP. */
int app_not_begun(int status, struct weir_pool *p, const char **why);
int app_failed(const struct weir_client_result *r);

enum answer {          /* what gives the response's content */
    ANSWER_NONE,
    ANSWER_APP,
    ANSWER_FILE,
    ANSWER_TEXT        /* written whole into the connection's output */
};
enum lookup_kind {
    LOOKUP_NONE,
    LOOKUP_FILE,
    LOOKUP_SCRIPT,
    LOOKUP_DIR_REDIRECT,
    LOOKUP_DENIED,
    LOOKUP_FAILED,
    LOOKUP_APP,    /* none of what was tried is there: the app answers */
    LOOKUP_GO,     /* likewise: last leads elsewhere */
    LOOKUP_STATUS  /* likewise: last is the answer */
};
#define LOOKUP_CODINGS 3
struct lookup {                       /* a path in the file system; made on the loop if all is cached, else by the helper */
    const struct route *route;
    struct weir_str path;             /* decoded, NUL behind */
    struct trace *trace;              /* NULL: nobody asks how it was found */
    bool cached_only;
    struct seen_files *files;         /* of this turn; NULL: it is not on the loop, or who asks wants to see each look */
    enum lookup_kind kind;
    int fd;                           /* FILE: open for reading; lookup_close() */
    struct seen *seen;                /* whose fd is; NULL: only ours */
    _Atomic uint32_t *open_count;     /* of all such files */
    int error;
    struct stat st;
    bool is_front;                    /* script is the front controller */
    const struct weir_conf_try *last; /* GO, STATUS */
    const struct exchange *of;        /* whose it is: its guards hold for files in another coding, too */
    const struct weir_open_area *folder; /* not NULL: path is a file in it, by whatever name */
    uint8_t codings[LOOKUP_CODINGS], coding_count; /* that the client takes: x.br, x.zst, x.gz will do for x */
    uint8_t coding;                   /* FILE: 0: as it is; else the number of its coding and 1 */
    size_t script_len;                /* SCRIPT: of path, or of script if that was found by try, an index or front controller */
    char script[1024];
};
enum { LOOKUP_AGAIN = 1 };
const char *lookup_ending(unsigned coding);
void lookup_close(struct lookup *l);
int lookup_run(struct lookup *l);     /* 0, or LOOKUP_AGAIN if cached_only and the answer is not in memory */

/* ---- guards: what stands between a request and its answer ---- */

struct guard_client {                 /* who asks, as far as it is known whom to believe */
    uint8_t address[16];              /* IPv4 mapped */
    uint16_t port;                    /* 0: not known */
    bool known;                       /* it has an address */
    struct weir_str scheme, host;     /* as a trusted proxy tells; empty: as the connection and the request say */
};
enum guard_state {
    GUARD_PASSED,
    GUARD_WAITS,   /* exchange_guarded goes on, or an answer */
    GUARD_ANSWERED
};

struct exchange {
    struct app_caller caller;
    struct trace *trace;              /* NULL: nobody asks what became of it */
    struct http_conn *http;           /* NULL: the client is gone, a job still runs */
    struct stream *stream;            /* of HTTP/2; else NULL */
    uint32_t serial;                  /* another one with each request */
    struct worker *worker;
    struct snapshot *snap;
    const struct listener *listener;
    const struct site *site;
    const struct route *route;
    const struct snapshot_pool *asked; /* the pool that answers, or was to */
    const struct weir_http_request *req;
    struct weir_arena arena;
    struct weir_cgi_path path;
    struct weir_job job;
    void (*job_done)(struct exchange *ex);
    struct weir_spill *body;
    struct weir_client_req *app;
    struct weir_cgi_head *head;
    struct weir_buf pend;             /* content that came before the head is written */
    struct weir_pair *fields;
    size_t field_count;
    struct weir_pair *granted;        /* parameters from an authorizer */
    size_t granted_count;
    struct weir_str user;             /* who it is, as the authorizer says: for the log */
    struct app_note *note;            /* of its last request to an app; NULL: none is known */
    struct weir_str id;               /* of this request; empty: nobody wanted to know it yet (exchange_id) */
    struct exchange *next_free;
    uint64_t begun_us, sent;          /* sent: content bytes */
    uint64_t first_us;                /* the first byte of an app's answer came; 0: none did */
    int64_t length;                   /* content length told to the client; -1: not known */
    uint64_t file_at, file_left;
    uint64_t fetch_at, fetch_left;    /* a job's */
    int status;
    enum weir_http_framing framing;
    enum answer answer;
    uint8_t redirects;
    bool body_done, started, head_done, head_written, app_done, keep_alive, redirecting, job_runs;
    bool authorizing, granting;       /* an authorizer is asked; it said yes */
    bool body_open;                   /* the app takes a body whose length is not known: its end is to be told */
    bool surplus;                     /* it sent more than its Content-Length */
    bool done, cold_checked;
    struct guard_client client;       /* guards.c */
    const struct weir_conf_auth *auth; /* whose credentials it brought, and they are right; NULL: none were asked for */
    struct weir_str auth_user;
    struct auth_try *auth_try;        /* is computed while `guarding` */
    bool guarding;
    uint64_t limited;                 /* id of the limit that counted it last; 0: none did */
    struct pace pace_body;
    const char *method_override;      /* local redirect: GET */
    const char *why;                  /* of an error: for the log */
    /* where it was sent inside (routes.c, redirects.c) */
    bool dispatched;                  /* what its route does has begun: the end of the body does not begin it */
    bool inside;                      /* by us: it may be answered by an internal route */
    bool rewritten;                   /* path is not the client's: its route replaced a prefix */
    bool intercepting;                /* an app's answer gives way to an error page when it has ended */
    int error_status;                 /* of the error whose page is looked for; 0: none */
    struct weir_str go_to;
    struct weir_pair *kept;           /* fields of that error that go out with its page */
    size_t kept_count;
    uint8_t handing;                  /* handover.c: what its app leaves to us when it has ended */
    struct weir_pair *handed;         /* fields of an app that go out with the file that it named; NULL: no app did */
    size_t handed_count;
    struct file_part {                /* of a file that goes in several parts: the text before it, and what it is */
        struct weir_str head;
        uint64_t first, len;
    } *parts;
    uint32_t part_count, part_at;
    struct weir_gzip *gzip;           /* compress.c: content goes through it; NULL: as it is */
    int64_t raw_length;               /* with gzip: what length and sent are without */
    uint64_t raw_sent;
    bool unflushed;                   /* some of it is not out yet */
    struct lookup lookup;             /* last: it is not cleared whole */
};
struct script {
    struct weir_str name, filename, path_info;
};
static inline bool exchange_is_https(const struct exchange *ex)
{
    return ex->http->tls || (ex->trace && ex->trace->https);
}
void exchange_begin(struct exchange *ex, const struct weir_http_request *req);
void exchange_body(struct exchange *ex, struct weir_str bytes);
void exchange_body_end(struct exchange *ex);
bool exchange_wants_body(const struct exchange *ex);
bool exchange_waits_for_app(const struct exchange *ex); /* nothing but the application is missing */
void exchange_client_event(struct worker *w, const struct weir_client_event *ev);
void exchange_room(struct exchange *ex);    /* the connection's output has room again */
bool exchange_commit(struct exchange *ex);  /* end of the turn: a response head that is known leaves. False: ex is gone */
void exchange_gone(struct exchange *ex);    /* the connection closed under it */
void exchange_trim(struct worker *w, uint32_t most); /* of those that are kept for the next requests; at the end of a turn */
void exchange_fail(struct exchange *ex, int status, const char *why);
void exchange_file_done(struct exchange *ex);
void exchange_body_stored(struct weir_job *job);
void exchange_finish(struct exchange *ex);
void exchange_text(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why);
/* Writes the head with ex->status, ex->fields, ex->length; false: it could not be (the connection closes). */
bool exchange_write_head(struct exchange *ex);
bool exchange_no_content(const struct exchange *ex);       /* the answer has none, whatever an app says */
/* Cuts the answer off: what was promised cannot be kept, and the client has to see that. */
void exchange_break_off(struct exchange *ex, const char *why);
bool exchange_streams_request(const struct exchange *ex);  /* its body goes to the app while it comes in */
void exchange_dispatch(struct exchange *ex);               /* its route decides */
void exchange_guarded(struct exchange *ex);                /* its guards, which took their time, let it pass */
void exchange_admitted(struct exchange *ex);               /* no authorizer stands in its way any more */
void exchange_authorize(struct exchange *ex);
WEIR_CHECK int exchange_interim(struct exchange *ex);      /* ex->head is one: to the client */
void exchange_drop_directives(struct exchange *ex);        /* X-Accel-*, X-Sendfile out of ex->fields: what was not acted on is nobody's business */
void exchange_filter(struct exchange *ex);                 /* lookup.fd goes through the route's filter */
void exchange_filter_pump(struct exchange *ex);
void exchange_run_app(struct exchange *ex, const struct script *s);
void exchange_pump_app(struct exchange *ex);               /* gives the app what it takes of body and file */
struct weir_str exchange_join(struct weir_arena *a, const char *root, struct weir_str path); /* no ptr: memory */
struct weir_str http_without_port(struct weir_str host);
struct weir_str http_protocol(const struct weir_http_request *req); /* "HTTP/1.1" */
struct exchange *exchange_new(struct worker *w);
/* routes.c */
struct weir_str exchange_method(const struct exchange *ex); /* as its route, files and apps see it */
struct weir_str exchange_address_text(struct exchange *ex, const struct sockaddr_storage *s, struct weir_str *port); /* for parameters; lives as long as ex */
bool exchange_route(struct exchange *ex);                   /* chooses it by path and method. False: there is none, and ex was answered */
/* Does the route of `path` forbid that this exchange gives it out without having asked there? front: a front controller may be
 * denied to those who name it themselves. */
bool exchange_barred(const struct exchange *ex, struct weir_str path, bool front);
/* The same, where it is to be answered now: false: it was answered. */
bool exchange_crosses(struct exchange *ex, struct weir_str path, bool front);
void exchange_redirect(struct exchange *ex);                /* as its route says */
void exchange_redirect_to(struct exchange *ex, int status, struct weir_str to);
void exchange_redirect_to_folder(struct exchange *ex);      /* the path, and a slash behind it */
/* redirects.c: to another path of the site, with or without a query. What was found so far is dropped; ex may be gone then. */
void exchange_go(struct exchange *ex, struct weir_str to);  /* as a GET, without a body; ours, so that it may enter internal routes */
void exchange_go_local(struct exchange *ex, struct weir_str to); /* likewise, but an app's */
void exchange_go_on(struct exchange *ex, struct weir_str to);    /* with method, body and, unless it has one, query: the end of a try */
bool route_goes_on(const struct route *r);                  /* its try may lead to another one */
/* A page of the site answers for an error: true, and ex is on its way there. */
bool exchange_error_page(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why);
bool exchange_intercepts(const struct exchange *ex, int status); /* an app's answer gives way to such a page */
void exchange_intercept(struct exchange *ex);                    /* now: its request has ended */
void exchange_drop_answer(struct exchange *ex);             /* all that was found or asked, but for the body */
void exchange_drop_body(struct exchange *ex);
/* handover.c */
bool exchange_takes_handover(struct exchange *ex);          /* the app's header leaves the answer to us; the fields that say so are still there */
void exchange_hand_over(struct exchange *ex);               /* now: its request has ended */
void exchange_handed_file(struct exchange *ex);             /* it was looked up */
void exchange_lookup(struct exchange *ex);                  /* lookup.path, by the route or in lookup.folder */
/* file_head.c */
void exchange_want_codings(struct exchange *ex);
void exchange_file_begin(struct exchange *ex);              /* lookup.fd is the answer */
/* compress.c: the content's way to reply_put */
void compress_begin(struct exchange *ex);      /* before the head is written, behind which it is settled */
WEIR_CHECK int compress_whole(struct exchange *ex); /* pend is all there is: its length is known then */
WEIR_CHECK int compress_put(struct exchange *ex, const char *p, size_t len);
WEIR_CHECK int compress_flush(struct exchange *ex); /* the client gets all that was put */
WEIR_CHECK int compress_last(struct exchange *ex);  /* nothing more is put */
void compress_end(struct exchange *ex);        /* it is given up, or over */
void compress_fini(struct worker *w);
void exchange_file_over(struct exchange *ex);               /* file_left is 0: the next part, or the end */
void exchange_file_pump(struct exchange *ex);
/* The request was not read whole, or not at all (ex->req may be NULL), and is not: the connection ends with the answer. */
void exchange_refuse(struct exchange *ex, int status, const char *why);

/* ---- replies: from an exchange to its client, whatever version of HTTP that speaks ---- */

WEIR_CHECK int reply_head(struct exchange *ex, const struct weir_http_response *r); /* sets framing and keep_alive */
WEIR_CHECK int reply_interim(struct exchange *ex, int status, const struct weir_pair *fields, size_t count);
size_t reply_room(struct exchange *ex);       /* bytes of content that may be put; 0: exchange_room tells when there is room again */
WEIR_CHECK int reply_put(struct exchange *ex, const char *p, size_t len); /* behind the head: content */
char *reply_reserve(struct exchange *ex, size_t len); /* likewise, for who writes it himself, whose length was told; NULL: memory */
void reply_reserved(struct exchange *ex, size_t len);
WEIR_CHECK int reply_end(struct exchange *ex); /* no more content */
void reply_over(struct http_conn *h, struct stream *s, bool keep_alive); /* the exchange has left */
void reply_abort(struct exchange *ex);        /* the client sees that its answer is cut; ex is gone */
void reply_dirty(struct exchange *ex);        /* looked at when the turn ends */
void reply_arm(struct exchange *ex, uint32_t ms); /* time for what the client has to send; 0: none */
void reply_resume(struct exchange *ex);       /* it takes body again */
void reply_limit_body(struct exchange *ex, uint64_t bytes);
bool reply_takes_files(const struct exchange *ex); /* by sendfile */

/* ---- errors: error_page.c ---- */

struct app_note {      /* what became of a request to an app */
    struct weir_client_result result;
    char where[128];   /* it ran; empty: nowhere, or it is not known */
};
void exchange_note_app(struct exchange *ex);  /* of ex->app, if there is one */
static inline bool is_our_fault(int status)   /* 501 and 505 answer what the client asked for; nothing is wrong with us */
{
    return status >= 500 && status != 501 && status != 505;
}
const char *error_advice(const struct exchange *ex, const char *why); /* what to look at; NULL: nothing to say */
void error_tell(struct exchange *ex, const char *what, const char *why); /* a line for the log: what happened to this request, and why */
/* Pages of our own, into b; false: memory. */
bool error_page(struct exchange *ex, int status, const char *why, struct weir_buf *b);
bool page_begin(struct weir_buf *b, int status, const char *title);
bool page_text(struct weir_buf *b, struct weir_str s); /* escaped */

/* ---- ids of requests ---- */

WEIR_CHECK int worker_seed_ids(struct worker *w);
bool request_id_is_plain(struct weir_str id);              /* it may stand in a log as it is */
struct weir_str exchange_id(struct exchange *ex);       /* lives as long as the exchange; never empty */
bool exchange_tells_id(const struct exchange *ex);      /* its answer has X-Request-Id */
/* guards.c. A connection was accepted: false: it is refused. It may be in HTTP_PROXY then. */
WEIR_CHECK bool guards_accepted(struct http_conn *h, const struct listener *l); /* l: its; NULL: not configured any more */
/* Bytes in HTTP_PROXY: how many were used. The connection may be closed then. */
size_t guards_proxy_input(struct http_conn *h, const char *p, size_t len);
size_t guards_headers(const struct exchange *ex, struct weir_pair *fields, size_t count, size_t room); /* what the route says of them: how many there are then */
void guards_close(struct http_conn *h);                          /* frees what it holds for the connection */
void guards_client(struct exchange *ex);                         /* the request is known: whom it comes from */
void guards_socket(const struct exchange *ex, struct sockaddr_storage *out); /* the client's address */
struct weir_str guards_host(const struct exchange *ex);          /* which host is asked for: Host, or what a trusted proxy says */
bool guards_is_https(const struct exchange *ex);                 /* the client, or the last trusted proxy, was asked by https */
void guards_describe(struct exchange *ex, struct weir_cgi_request *r); /* for parameters: client, scheme and host as they are believed */
/* At the door of ex->route, before its authorizer and its body. */
enum guard_state guards_enter(struct exchange *ex);
/* Would this request, at home in ex->route, have to pass a guard of `other` that it has not passed? Then nothing of `other` may be
 * answered by ex->route: an index, a front controller, an internal redirect that does not begin anew. */
bool guards_other(const struct exchange *ex, const struct route *other);

/* To a route whose content ex->route answers with, an index or a front controller: false: it was answered. */
WEIR_CHECK bool guards_cross(struct exchange *ex, const struct route *other);

/* limits.c: what one client may do, over all threads */
struct limits;
struct conn_count;
WEIR_CHECK int limits_new(struct limits **out);
void limits_free(struct limits *l);
/* A request: 0, or in how many microseconds it may come. */
uint64_t limits_take(struct limits *l, const struct weir_conf_limit *conf, const uint8_t address[16], uint64_t now_us);
/* A connection: NULL: there are `most` of this client (or no memory). */
struct conn_count *limits_connect(struct limits *l, uint64_t listener, const uint8_t address[16], uint32_t most);
void limits_disconnect(struct limits *l, struct conn_count *c);

/* pace.c: time until the next look; of a body: 0: it is not waited for; of an answer: 0: it is taken too slowly */
uint32_t pace_body(struct exchange *ex);
uint32_t pace_begin(struct pace *p, const struct weir_conf_route *conf, uint64_t now_ms, uint64_t bytes);
uint32_t pace_look(struct pace *p, const struct weir_conf_route *conf, uint64_t now_ms, uint64_t bytes);
uint64_t pace_taken(const struct http_conn *h); /* bytes that the client's side has confirmed */

/* auth.c: credentials, computed by a helper thread */
struct auth;
WEIR_CHECK int auth_new(struct auth **out); /* of a gateway: what was right shortly before */
void auth_free(struct auth *a);
enum guard_state auth_enter(struct exchange *ex);
#define AUTH_AT_ONCE 16 /* in each thread */
struct auth_slot {
    _Atomic bool busy;
    uint8_t address[16]; /* whose */
};

/* ---- orders of people ---- */

struct orders;
void gateway_orders(struct gateway *gw, int fd);  /* a memfd of control; not taken over */
void worker_take_orders(struct worker *w);        /* the current ones, if they changed */
void orders_drop(struct orders *o);
bool worker_denies(const struct worker *w, const uint8_t address[16]);
/* By an order or the configuration: true; text lives as long as this turn. */
bool worker_suspends(const struct worker *w, const struct weir_conf_site *site, struct weir_str *text, bool *page);

/* ---- fronts: foreign web servers ---- */

enum front_phase {
    FRONT_IDLE, /* no request */
    FRONT_HEAD, /* the parameters of one are coming in */
    FRONT_BUSY
};
struct front {
    struct weir_list dirty_link;
    struct weir_list reqs;        /* of front_req */
    struct worker *worker;
    struct weir_wire_app *wire;
    struct weir_timer timer;
    struct sockaddr_storage peer;
    uint64_t listener;            /* id */
    uint64_t due_ms, send_due_ms; /* time is up for a request, or for its whole head; to take what is sent; 0: none */
    uint32_t index, epoch;
    uint32_t req_count;           /* in reqs */
    uint32_t full;                /* requests without credit whose bodies wait for the disk: nothing is read */
    int fd;
    uint8_t phase;
    bool in_use, want_write, readable, peer_closed, broken, wants_room, close_after;
    bool leaving;                 /* it was idle for too long, and was told FINAL */
    bool asked, last;             /* a request came; one came while this gateway drains: the last one here */
};
struct front_req {
    struct app_caller caller;
    struct weir_list link;        /* front->reqs */
    struct worker *worker;
    struct front *front;
    struct snapshot *snap;
    const struct weir_conf_listener *conf; /* NULL: its listener is not configured any more */
    struct weir_pool *pool;
    const struct weir_conf_pool *pool_conf;
    char *block;                  /* the parameters' bytes */
    struct weir_pair *params;
    size_t param_count;
    struct weir_spill *body, *data; /* STDIN and DATA; NULL: nothing came */
    struct weir_client_req *app;
    struct weir_buf err;          /* STDERR that the web server has yet to take */
    struct weir_timer timer;
    struct front_req *next_free;
    uint64_t begun_us, sent, dropped, due_ms; /* due: for more of the body, or to give credit for the answer */
    uint32_t owed[2];             /* credit for STDIN and DATA that wait for the disk */
    uint32_t app_status;
    int status;                   /* of an answer of ours; 0: the app's */
    uint16_t id;
    uint8_t role, protocol_status;
    bool in_use, agreed, stdin_ended, data_ended, full, wants_room, err_sent, refused, not_run, ending;
    bool noted;                   /* what became of app, for the log: */
    struct app_note note;
};
/* fd was counted already, as in http_accepted. */
void front_accepted(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener);
void front_event(struct worker *w, const struct weir_event *ev);
const struct weir_conf_listener *front_conf(const struct front *f); /* its listener's settings now */
size_t front_room(const struct front *f);                           /* bytes of answers that its output takes */
void front_dirty(struct front *f);                                  /* it has something to write or to read: when the turn ends */
bool front_held_up(const struct front *f); /* nothing of it is read, for our own reasons: nobody on it is late */
/* front_req.c */
void front_req_begins(struct front *f, const struct weir_wire_event *ev);
void front_req_input(struct front_req *r, enum weir_stream s, struct weir_str bytes);
void front_req_input_ends(struct front_req *r, enum weir_stream s);
void front_req_go_on(struct front_req *r);   /* there is room for what waits; r may be gone then */
void front_req_aborted(struct front_req *r); /* nobody waits for it any more; it is gone */
void front_req_free(struct front_req *r);
void front_req_timer(struct weir_timer *t);
void front_body_stored(struct weir_job *job);
void front_client_event(struct worker *w, const struct weir_client_event *ev);
void front_flush(struct front *f);
void front_close(struct front *f);
void front_drain(struct front *f);    /* idle ones close, the others when they are idle */
void front_free_all(struct worker *w);
struct weir_str front_param(const struct front_req *r, const char *name); /* the first one of this name; empty: none */

/* ---- logs ---- */

struct log_sink;
WEIR_CHECK int log_sink_new(struct log_sink **out, unsigned mode); /* off; mode: of files that are made */
/* Where its lines go: a file; "-": standard output; "stderr"; NULL or "off": nowhere. WEIR_SYSTEM: as before, and errno. The first
 * thread's. */
WEIR_CHECK int log_sink_set(struct log_sink *s, const char *path);
void log_sink_drop(struct log_sink *s);
void log_access(struct exchange *ex);
bool log_wants_apps(const struct worker *w); /* what became of requests to apps (exchange_note_app) is logged */
void log_front(const struct front_req *r);
void log_app_stderr(struct worker *w, const struct weir_client_req *req, const struct snapshot_pool *pool, struct weir_str id, struct weir_str bytes); /* id: plain, of the client's request; or empty */
void log_error(struct worker *w, const char *fmt, ...) WEIR_PRINTF(2, 3);
/* Without a worker: the first thread's, never waits; before there are threads it writes to stderr itself. */
void gateway_say(struct gateway *gw, const char *fmt, ...) WEIR_PRINTF(2, 3);
void gateway_say_lines(struct gateway *gw, struct weir_str text); /* as they are */
void log_flush(struct worker *w);
void log_tick(struct worker *w);   /* the first thread, now and then: what was dropped is told */
void gateway_reopen_logs(struct gateway *gw);

/* ---- threads ---- */

struct accepted {
    int fd;
    uint32_t peer_len;
    struct sockaddr_storage peer;
    uint64_t listener;
    bool front;
};
struct worker {
    struct gateway *gw;
    unsigned index;
    pthread_t thread;
    struct weir_loop *loop;
    struct weir_client *client;
    struct snapshot *snap;            /* the current one, held */
    char *scratch;                    /* bytes that a socket just gave */
    char *plain;                      /* ... decrypted */
    struct seen_files *seen;          /* of this turn */
    char *piece;                      /* of a file on its way to an app; NULL: none yet */
    struct http_conn **conns;         /* by index */
    uint32_t conn_cap, conn_top;
    uint32_t *free_index;
    uint32_t free_count;
    struct front **fronts;            /* by index, as conns */
    uint32_t front_cap, front_top;
    uint32_t *free_front;
    uint32_t free_front_count;
    struct weir_list dirty_fronts;
    struct front_req *free_front_reqs;
    uint32_t front_req_count;
    uint64_t refused_at_ms, barred_at_ms; /* a client, or a web server, was not let in: told then */
    _Atomic uint32_t conn_count;      /* read by acceptors of other threads */
    _Atomic uint64_t requests;
    struct weir_list dirty;
    struct exchange *free_ex;
    struct stream *free_streams;
    uint32_t free_ex_count, free_stream_count;
    struct weir_http2_memory *http2_memory;
    struct weir_gzip *free_gzip[4];
    unsigned free_gzip_count, gzip_count; /* gzip_count: in use */
    uint32_t ex_count;
    struct weir_random random, id_random[2];
    pthread_mutex_t inbox_lock;
    struct accepted inbox[256];
    uint32_t inbox_count;
    bool inbox_closed;                /* under the lock, too: this thread ends */
    uint64_t hurries_ms;              /* since then */
    bool accepting, draining, hurries, done; /* hurries: it drains, and closes what is idle */
    struct weir_buf log_buf, err_buf, app_buf;
    struct weir_timer log_timer, tick_timer;
    struct weir_buf spare[256];        /* empty buffers for connections that write */
    unsigned spare_count;
    int64_t date_at;
    char date[30];
    int64_t log_time_at;
    char log_time[40];
    int64_t utc_time_at;
    char utc_time[32];
    struct orders *orders;            /* held; NULL: none */
    struct keyring *keys;             /* likewise */
    struct auth_slot auth_slots[AUTH_AT_ONCE];
};
int worker_init(struct worker *w, struct gateway *gw, unsigned index);
void worker_fini(struct worker *w);
void worker_run(struct worker *w);
void worker_begin(struct worker *w);
void worker_wake_all(struct gateway *gw);
void worker_turn(struct worker *w); /* waits once, and does all that came; w->done: it was the last one */
void worker_uncount(struct worker *w); /* a connection that was accepted is closed */
struct weir_str worker_date(struct worker *w);
void worker_spare(struct worker *w, struct weir_buf *b);      /* takes an empty buffer back */
void worker_take_spare(struct worker *w, struct weir_buf *b); /* gives one to a buf without memory */

struct gateway {
    struct weir_gateway_options o;
    unsigned thread_count;
    struct worker workers[MAX_WORKERS];
    struct weir_client_group *group;
    struct weir_spill_quota quota;
    pthread_mutex_t lock;             /* snapshot pointer, pools */
    struct snapshot *snap;
    struct weir_table pool_names;     /* of gateway_pool; the first thread's */
    struct gateway_pool {
        struct weir_table_node node;
        struct weir_pool *pool;
        struct gateway_pool *next;
        _Atomic unsigned refs;        /* of snapshots */
        bool owned;                   /* by Weir: control tells its endpoints */
        _Atomic int64_t log_second;   /* of its stderr: counted in that second, */
        _Atomic uint64_t log_lines, log_dropped;
        uint64_t told;                /* endpoint state that named it last */
        const char *refused, *refuses; /* why: control says so; the pool does so */
        struct server_seen *servers;  /* of one that is not owned: what was logged of them */
        size_t server_count;
    } *pools;                         /* the first thread's */
    int (*loop_new)(struct weir_loop **out, void *arg);
    void *loop_arg;
    _Atomic uint32_t conn_count, conn_max;
    _Atomic uint32_t file_count, file_max; /* files that are open for clients */
    _Atomic bool reload_asked, reopen_asked, term_asked, end_asked, pools_unused;
    _Atomic bool leaves;              /* the end was asked for because another gateway takes over */
    struct log_sink *access_log, *error_log, *app_log;
    uint64_t version;
    _Atomic uint64_t drain_until_ms;
    struct gateway_link *link;
    struct gateway_checks *checks;    /* check.c */
    pthread_mutex_t late_lock;
    struct late {                     /* requests that are slow or were given up, for control */
        uint64_t unit, inode;
        uint32_t flags;               /* WEIR_LINK_* */
        char text[256];
    } *late;
    size_t late_count, late_cap;
    struct orders *orders;            /* held; by lock */
    struct keyring *keys;             /* likewise */
    struct weir_tls_context *tls;     /* NULL: nobody listens with TLS yet */
    struct trace *trace;              /* NULL: it serves. Else it only explains, and asks no application */
    struct auth *auth;
    struct limits *limits;
};
WEIR_CHECK int gateway_new(struct gateway **out, int (*loop_new)(struct weir_loop **out, void *arg), void *loop_arg);
WEIR_CHECK int gateway_threads(struct gateway *gw, unsigned count); /* once, before the first snapshot */
WEIR_CHECK int gateway_start(struct gateway *gw);                   /* behind the first snapshot: workers, log */
void gateway_free(struct gateway *gw);
struct gateway_pool *gateway_pool(struct gateway *gw, const struct weir_conf_pool *conf); /* by name, made if new; counted */
void gateway_pool_drop(struct gateway *gw, struct gateway_pool *gp);                      /* any thread */
void gateway_main_event(struct gateway *gw, const struct weir_event *ev);              /* worker 0: link, tick */
void gateway_main_turn(struct gateway *gw);
void gateway_tick(struct gateway *gw);                                                 /* worker 0, now and then */
void gateway_publish(struct gateway *gw, struct snapshot *s);  /* takes s; threads change over at their next turn */
/* Accept nothing new; what runs has so long. leave: another gateway takes over: clients that are idle may ask once more, and are
 * told to come again by another connection. First thread; a second call may only hurry. */
void gateway_drain(struct gateway *gw, uint32_t ms, bool leave);
WEIR_CHECK int gateway_link_first(struct gateway *gw);         /* waits for the configuration that control sends */
WEIR_CHECK int gateway_link_start(struct gateway *gw);
void gateway_link_turn(struct gateway *gw);
void gateway_link_fini(struct gateway *gw);
void gateway_late(struct gateway *gw, struct weir_str method, struct weir_str target, const struct weir_client_result *r, bool given_up); /* any thread */
/* servers.c: pools that connect. What a pool has to know of a request: any thread. */
uint64_t server_key(const struct weir_conf_pool *conf, const struct weir_pair *params, size_t count); /* 0: it has none */
void server_retry(enum weir_conf_retry rule, struct weir_str method, struct weir_client_begin_options *b);
/* The first thread's: what changed in the pool's servers is logged. */
void gateway_servers_note(struct gateway *gw, struct gateway_pool *gp, const struct weir_endpoint_stats *eps, size_t n);
void gateway_servers_turn(struct gateway *gw);
/* check.c: the first thread's */
WEIR_CHECK int gateway_checks_new(struct gateway *gw);
void gateway_checks_set(struct gateway *gw, struct snapshot *s); /* another configuration is in use */
void gateway_checks_event(struct gateway *gw, const struct weir_event *ev);
void gateway_checks_turn(struct gateway *gw);
int64_t gateway_checks_next_us(const struct gateway *gw);
void gateway_checks_end(struct gateway *gw); /* before its worker's end */
void gateway_stuck(struct gateway *gw, const struct weir_client_stuck *s); /* any thread */
struct gateway_pool *gateway_find_pool(struct gateway *gw, const char *name, bool owned);
#endif

/* SPDX-License-Identifier: MIT */
/* app: what its files share. app.c owns the object and its turn; conn.c connections; request.c requests; output.c what they
 * answer; threads.c handler threads; bridge.c a plain CGI request. In threads style everything is under app->lock, which the loop's thread gives up only while it waits. */
#ifndef WEIR_APP_INTERNAL_H
#define WEIR_APP_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "loop/loop.h"
#include "weir/app.h"
#include "weir/wire.h"

#define SCRATCH     65536
#define FLUSH_BYTES (32u << 10)

enum { KIND_CONN = 1, KIND_LISTEN, KIND_IDLE, KIND_DEADLINE };

struct app_conn {
    struct weir_list link, dirty_link;
    struct weir_app *app;
    struct weir_wire_app *wire;
    struct weir_timer timer;
    uint32_t index, epoch;
    int fd;
    bool want_write, peer_closed, broken, in_use;
    uint32_t full_count;   /* plain requests whose input is full: it is not read */
    bool choked;           /* not read because the server takes none of our answers */
    bool fresh;            /* nothing has been asked of it yet */
    bool leaving;          /* it was idle for too long, and the server was told FINAL */
    bool input_over;       /* nothing more comes of the request whose end closes it */
    bool lingers;          /* that end is sent: what still comes is read for nobody */
    uint32_t wants_room, batched, lingered;
    uint64_t batch_since_us;
};
struct weir_app_req {
    struct weir_list all_link, event_link, run_link;
    struct weir_app *app;
    struct app_conn *conn; /* NULL: the connection is gone */
    struct weir_arena arena;
    struct weir_buf in[2];    /* STDIN, DATA */
    struct weir_buf head, err; /* what goes first on STDOUT: its header, or the rest of a text; the same of STDERR */
    struct weir_pair *params; /* their bytes are the connection's, or, when that is gone, param_block's */
    char *param_block;
    size_t param_count;
    struct weir_timer timer;
    pthread_cond_t changed; /* threads: input, room, abort */
    void *user;
    struct weir_app_req *next_free;
    uint64_t deadline_us;       /* threads; 0: none */
    int64_t file_at, file_left; /* of from_fd */
    int from_fd;                /* the rest of the body; -1: nothing */
    uint32_t serial; /* tells a timer of an older request in the same memory */
    uint32_t end_status;
    uint16_t id;
    uint8_t role;
    bool full;           /* its input, of a plain request: its connection is not read */
    bool in_use, ending; /* ending: its handler is done, its header waits for room */
    bool input_ended[2], ev_input[2]; /* as in */
    bool aborted, head_closed, head_sent, has_type, touched, flow, wants_room, has_cond;
    bool kept;           /* events: `head` or `err` wait for room, the program does not */
    bool body_over, cut; /* from_fd is or was the last of STDOUT; it could not be sent whole */
    bool ev_request, ev_room, ev_abort, ev_deadline;
};
struct weir_app {
    struct weir_app_options o;
    struct weir_loop *loop;
    bool own_loop, private_listen, listening, drain_told, drained_told, running;
    atomic_bool drain_asked;
    struct app_conn **conns;
    uint32_t conn_cap, conn_top, conn_count, req_count, fresh_count, serial;
    uint32_t *free_index;
    uint32_t free_count;
    struct weir_list reqs, dirty, events, run_queue, resume; /* resume: connections to read again */
    struct weir_app_req *free_reqs;
    char *scratch;
    char *server_addrs;
    uint64_t drain_until_ms, total; /* total: requests that were begun */
    struct posted *posted, **posted_end; /* under handed_lock */
    struct bridge *bridge;
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t *threads;
    uint32_t thread_count;
    bool stop_threads;
    pthread_t acceptor;
    bool has_acceptor;
    atomic_bool acceptor_stops;
    atomic_int accept_room; /* connections that the acceptor may take: the others are a shared backlog's */
    int accept_event;
    pthread_mutex_t handed_lock;
    int handed[64];
    uint32_t handed_count;
    struct {
        int number;
        struct sigaction former;
    } signals[4];
};

/* An app on a loop that somebody else owns (simulation). */
WEIR_CHECK int weir_app_new_on(struct weir_app **out, const struct weir_app_options *o, struct weir_loop *loop);

static inline bool threaded(const struct weir_app *a) { return a->o.threads > 0; }
static inline void app_lock(struct weir_app *a)
{
    if (threaded(a)) pthread_mutex_lock(&a->lock);
}
static inline void app_unlock(struct weir_app *a)
{
    if (threaded(a)) pthread_mutex_unlock(&a->lock);
}

int weir_app_conn_adopt(struct weir_app *a, int fd);
void weir_app_conn_event(struct weir_app *a, const struct weir_event *ev);
void weir_app_conn_idle(struct weir_app *a, const struct weir_event *ev);
void weir_app_conn_read(struct app_conn *k);
void weir_app_conn_resume(struct app_conn *k); /* is read in the next turn */
void weir_app_conn_close(struct app_conn *k);
void weir_app_conn_dirty(struct app_conn *k);
void weir_app_conn_flush(struct app_conn *k);
void weir_app_conn_tell_room(struct app_conn *k);
bool weir_app_peer_allowed(const struct weir_app *a, const struct sockaddr_storage *peer);

struct weir_app_req *weir_app_req_begin(struct app_conn *k, const struct weir_wire_event *ev);
void weir_app_req_input(struct weir_app_req *r, enum weir_stream s, struct weir_str bytes);
void weir_app_req_input_ends(struct weir_app_req *r, enum weir_stream s);
void weir_app_req_abort(struct weir_app_req *r);
void weir_app_req_post(struct weir_app_req *r); /* an event of it is to be told, or its thread looks again */
void weir_app_req_finish(struct weir_app_req *r, uint32_t app_status, uint8_t protocol_status);
void weir_app_req_free(struct weir_app_req *r);
bool weir_app_req_send_kept(struct weir_app_req *r); /* events: there is room; true: the program waits for it, too */
void weir_app_req_pump(struct weir_app_req *r); /* events: of from_fd what there is room for */
bool weir_app_req_wait(struct weir_app_req *r);
bool weir_app_req_pop_event(struct weir_app_req *r, struct weir_app_event *ev);
bool weir_app_req_has_events(const struct weir_app_req *r);
bool weir_app_req_not_full(struct weir_app_req *r); /* its input has room again: true: its connection is read again */

int weir_app_threads_start(struct weir_app *a);
void weir_app_threads_stop(struct weir_app *a);
int weir_app_acceptor_start(struct weir_app *a);
void weir_app_acceptor_stop(struct weir_app *a);
void weir_app_acceptor_take(struct weir_app *a);
void weir_app_acceptor_room(struct weir_app *a); /* how much more it may take now */

/* A thread stands for the web server of one plain CGI request. */
WEIR_CHECK int weir_app_bridge_start(struct weir_app *a);
void weir_app_bridge_stop(struct weir_app *a); /* its connection is closed */

/* Index of a request's input stream. */
static inline size_t weir_app_input(enum weir_stream s) { return s == WEIR_DATA; }
static inline uint32_t weir_app_role_bit(uint8_t role) { return 1u << (role - 1); }
#endif

/* SPDX-License-Identifier: MIT */
/* client: what its files share. pool.c owns slots and queues (under the pool's lock), conn.c connections, request.c requests,
 * client.c a thread's turn. Lock order: pool, then inbox, then the group's table. */
#ifndef WEIR_CLIENT_INTERNAL_H
#define WEIR_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "client/on_loop.h"
#include "weir/wire.h"

#define MAX_THREADS    64
#define SCRATCH        65536
#define BATCH_REQUESTS 32
#define BATCH_BYTES    (64u << 10)
#define BATCH_US       100
#define OUTPUT_HIGH    (256u << 10) /* body bytes that wait in a connection's output */
#define PLAIN_MPX_BODY (64u << 10)  /* larger bodies do not share a connection that has no credit */
#define PLAIN_MPX_HOLD (8u << 20)   /* output that waits for the disk there: beyond it the request is given up */
#define WINDOW_MAX     (64u << 10)  /* output window of a request: what it begins with, */
#define WINDOW_MIN     (4u << 10)   /* and the least, when memory is short */
#define WINDOW_SHARE   512          /* of what is left one request may take this part */
#define ABORT_MS       5000         /* END must follow an ABORT within it */
#define ASK_MS         1000
#define ASK_TRIES      3            /* connections in a row that were closed instead of an answer */
#define HANG_UP_US     1000000      /* a connection that is closed so soon behind a request was not kept, */
#define HANG_UPS       3            /* and so often in a row none will be */
#define CONNECT_MS     5000
#define STALE_US       UINT64_C(1000000) /* without a request: php-fpm would take the next one for a slow one soon */
#define TEND_US        UINT64_C(500000) /* idle connections are not looked after more often */
#define MAX_TRIES      3
#define READ_TURN      (256u << 10) /* bytes of one connection in a turn; then others are read */

enum client_kind { KIND_CONN, KIND_CONN_TIMER, KIND_REQ_TIMER, KIND_SPILL };

/* ---- connections ---- */

enum conn_state {
    CONN_FREE,
    CONN_BACKOFF,    /* no descriptor: holds its place until the endpoint is tried again */
    CONN_CONNECTING, /* TCP: under way */
    CONN_ASKING,     /* GET_VALUES is out */
    CONN_UNPROVEN,   /* connected, but perhaps only to a backlog */
    CONN_IDLE,       /* single: in its endpoint's idle list, anybody may take it under the pool's lock */
    CONN_ACTIVE,     /* single: a request runs. shared: open, with any number of requests */
};

struct conn {
    struct weir_list link;       /* idle list, or the client's list of open ones */
    struct weir_list due_link;   /* client->due: to be looked at by the clock */
    struct weir_list dirty_link; /* client->dirty: has output */
    struct weir_list read_link;  /* client->to_read */
    struct weir_list pending;    /* shared, asking: requests that wait for the outcome */
    _Atomic uint64_t tag;        /* epoch << 16 | owner << 8 | state */
    struct weir_client *client;  /* owner; changes only with the tag */
    struct weir_endpoint *ep;
    struct weir_wire_server *wire;
    struct weir_client_req *single; /* the one that runs, where only one can */
    uint32_t index;
    int fd;
    bool shared;                 /* multiplexed */
    bool own;                    /* shared, but for one request with a large body: not found by others */
    bool absorb;                 /* its handlers wait: output is taken off them also where its receiver is slow */
    bool peer_closed;            /* no further edge will tell: read to the end */
    bool room_wanted;            /* a request waits for room in the output */
    bool retired;                /* shared: a handler on it does not hear its abort; closed when nobody else is on it */
    uint32_t aborted;            /* requests on it that are to end */
    uint32_t read_left;          /* bytes that may be read in this turn */
    uint64_t read_turn;
    bool proving;                /* single: a ping is out; until its answer the worker may still run */
    bool greeting, greeted;      /* its first ping is not answered yet: it counts as being opened; it was asked, and had no request since */
    bool pinged;                 /* asked whether it lives; due_us is when it has to have answered */
    bool want_write, lent, paused, broken, final, unused, again, attached, full; /* again: this is not its first request; full: the
                                                                                    backlog was, when it was opened */
    uint32_t batched, probes;
    uint64_t batch_since_us, due_us, heard_us; /* heard: the last byte came, or it was opened */
    uint64_t used_us;            /* single: since when it has no request; UINT64_MAX: it has one, or was never idle */
    struct weir_timer timer;     /* connect, ask */
    struct conn *next_free;
};

static inline enum conn_state conn_state(const struct conn *k)
{
    return (enum conn_state)(atomic_load_explicit(&k->tag, memory_order_relaxed) & 0xff);
}
static inline uint32_t tag_epoch(uint64_t tag)
{
    return (uint32_t)(tag >> 16) & 0xffffffu;
}
static inline unsigned tag_owner(uint64_t tag)
{
    return (unsigned)(tag >> 8) & 0xff;
}
void conn_set(struct conn *k, enum conn_state s);            /* the one place that changes a state */
void conn_give(struct conn *k, struct weir_client *to);      /* idle or just freed: out of its loop, epoch up, new owner */
WEIR_CHECK int conn_attach(struct conn *k);                  /* into the owner's loop */
struct weir_ident conn_ident(const struct conn *k, enum client_kind kind);
/* Opens a connection of c to ep; a single one's place was already counted. What goes wrong is its state, told later; NULL:
 * memory. */
enum conn_use { USE_SINGLE, USE_SHARED, USE_OWN };
struct conn *conn_open(struct weir_client *c, struct weir_endpoint *ep, enum conn_use use);
/* Ends it, and the requests on it with `status` and `reason`; frees the place. */
void conn_close(struct conn *k, int status, const char *reason);
void conn_dirty(struct conn *k);
void conn_flush(struct conn *k);
void conn_breaks(struct conn *k); /* it is of no use for what follows: it closes behind what lies in our receive buffer, perhaps an answer */
void conn_event(struct weir_client *c, const struct weir_event *ev);
void conn_timer(struct weir_client *c, const struct weir_event *ev);
void conn_clock(struct conn *k);                             /* its due_us came */
/* Reads once more into the scratch and lends it to the wire machine: true if there is something to take. */
bool conn_read(struct conn *k);
void conn_end_read(struct conn *k);
void conn_values(struct conn *k, bool agreed, uint32_t threads);
void conn_free_now(struct conn *k);
void conn_retire(struct conn *k);
void conn_rest(struct weir_client *c, struct weir_endpoint *ep, uint64_t until_us); /* who waits then is looked at */
void conn_after_end(struct conn *k);                         /* shared: a place is free, or it is time to close */

/* ---- endpoints and pools ---- */

/* What another thread may still look at, by a connection that was idle when an event of it was fetched: its memory goes when
 * every thread has begun a turn since. */
struct grave {
    struct weir_list link;
    uint64_t died; /* in group->deaths */
    void (*free)(struct grave *g);
};

struct weir_endpoint {
    struct grave grave;
    struct weir_list link;
    struct weir_pool *pool;
    uint64_t id;
    struct sockaddr_storage addr;
    uint32_t addr_len;
    char text[128];
    /* under pool->lock */
    uint32_t workers, others;
    uint32_t pid;
    uint32_t ahead;    /* so many connections are there before anybody asks */
    bool drain, local, prove, pings, forks, down; /* down: it does not answer its check */
    atomic_uint requests;              /* these four are read without the lock, too */
    atomic_bool keep, flow, plain_mpx;
    atomic_bool hangs_up;              /* it keeps no connections, whatever it is asked */
    uint32_t conns;    /* single ones: open, opening or in backoff; at most workers */
    uint32_t opening;  /* of them: nobody has accepted yet, or answered where it is greeted */
    uint32_t active;   /* requests that hold a slot */
    uint32_t limit;    /* shared: how many may */
    uint32_t failures; /* connects in a row */
    uint32_t missed;     /* connections in a row for which no process was started */
    uint32_t unasked;    /* connections in a row that it closed before it was asked anything */
    uint32_t hang_ups;   /* connections in a row that were to be kept, and were closed */
    uint32_t unanswered; /* GET_VALUES in a row: nothing came */
    uint32_t refs;     /* connections */
    uint64_t down_until_us; /* connects failed: not tried again before */
    uint64_t done, failed, retried;
    /* of a pool that balances (balance.c); under pool->lock, too */
    uint32_t weight;
    bool backup;
    atomic_bool ejected; /* from its ejection until it has answered; down_until_us tells when it may be tried. Read without the lock, too */
    bool returning;      /* it came back, and nobody has looked at the clock yet */
    bool refused;        /* the ejection is for a connect */
    atomic_bool ailing;  /* something of what follows is not as in health; read without the lock, too */
    uint32_t lost;       /* requests in a row that ended without a byte of an answer */
    uint32_t level;      /* of the ejection: how often it was doubled */
    uint32_t pinned;     /* requests that wait for a connection to it */
    uint32_t place;      /* in its tier */
    uint64_t returned_us; /* 0: not within its slow start */
    uint64_t proven_us, ejections, passed_on;
    const char *problem; /* static */
    struct weir_list open_link; /* balance.unopened */
    struct weir_list idle;
    struct conn *_Atomic shared[MAX_THREADS]; /* each set by its thread only */
};

struct pool_thread {
    struct weir_list waiting;
    struct weir_endpoint *batch; /* stay here until the batch is full */
    uint32_t batch_left;
    uint64_t turn;               /* of its client, when the batch began */
};

/* Endpoints of one tier, drawn by weight in constant time (alias method). */
struct tier {
    struct weir_endpoint **list;
    uint32_t *cut, *alias; /* place i stands for itself below cut[i] of `total`, else for alias[i] */
    uint32_t count, total;
};
struct balance {
    atomic_bool on;      /* not owned, and several endpoints; read without the lock, too */
    struct weir_pool_balance o;
    struct weir_random random;
    struct tier tiers[2]; /* backups are the second one */
    uint32_t pinned;      /* of all its endpoints */
    struct weir_list unopened; /* endpoints for which more requests wait than connections are being opened */
};

struct weir_pool {
    struct grave grave;
    struct weir_list link; /* in the group */
    struct weir_client_group *group;
    char *name;
    pthread_mutex_t lock;
    struct weir_list endpoints, waiting;
    uint32_t active;     /* requests that hold a slot */
    uint32_t waiting_count, opening, queue_count, queue_ms, ping_ms, idle_ms;
    uint32_t posted;     /* granted requests in the inboxes of threads */
    bool changed;        /* since its state was last taken; then it is in the group's list */
    const char *refuses; /* nothing serves it, and that is known: answered at once; NULL: it does not */
    bool all_down;       /* no endpoint answers its check */
    struct weir_list changed_link;
    uint64_t *gone;      /* ids of endpoints that drained and are closed */
    uint32_t gone_count, gone_cap;
    uint64_t service_us; /* smoothed: how long a request holds its slot */
    uint32_t cost;       /* smoothed: of that, what one request takes of a process; in 1/16 us */
    uint64_t started, refused, timed_out;
    bool owned;
    struct balance balance;
    struct pool_thread threads[MAX_THREADS];
};

/* Takes a slot for r if one is free: 1 (r->ep, and r->conn if single), else 0. Locked. r may be another thread's: the clock is
 * the caller's. */
int pool_take(struct weir_pool *p, struct weir_client_req *r, const struct weir_client *by, uint64_t now_us);
void pool_wait(struct weir_pool *p, struct weir_client_req *r, bool front); /* locked */
void pool_unwait(struct weir_pool *p, struct weir_client_req *r);           /* locked */
/* Free slots go to who waits; opens connections while that helps. The caller holds no lock. */
void pool_serve(struct weir_pool *p, struct weir_client *c);
/* A slot of ep is free again (served for hold_us); with a connection that may serve the next one, or NULL. kept: it was answered on a
 * connection that had served before. */
void pool_release(struct weir_endpoint *ep, struct weir_client *c, struct conn *k, uint64_t hold_us, bool done, bool kept);
void pool_conn_unmade(struct weir_endpoint *ep, struct weir_client *c); /* there was no memory for one whose place was taken */
void pool_conn_gone(struct weir_endpoint *ep, struct weir_client *c, bool single, bool was_opening);
void pool_conn_idle(struct conn *k, bool was_opening); /* proven, or looked at: free for the next request */
void pool_set_mode(struct weir_endpoint *ep, bool flow, bool plain_mpx, uint32_t limit);
/* Connecting failed (opening: it was counted as such, and is no more): returns for how long (us) it is not tried again. */
uint64_t pool_conn_failed(struct weir_endpoint *ep, struct weir_client *c, bool opening, const char *reason);
void endpoint_try_free(struct weir_endpoint *ep); /* locked */
/* The first thread, now and then: what idled long enough closes, what is to be ready opens. The caller holds no lock. */
void pool_tend(struct weir_client *c);
/* Idle connections of c that are to be asked whether their process lives: taken out of their lists, not idle any more. */
void pool_take_silent(struct weir_client *c, struct weir_list *out);
void pool_take_all(struct weir_client *c, struct weir_list *out); /* the same with all of them */
void group_look(struct weir_client_group *g); /* each thread looks at its connections, and at those who wait */
void pool_changed(struct weir_pool *p, bool urgent); /* locked */
bool endpoint_shared(const struct weir_endpoint *ep);
bool endpoint_up(const struct weir_endpoint *ep, uint64_t now_us);    /* locked: it takes new requests, if it has room */
bool endpoint_ready(const struct weir_endpoint *ep);                  /* locked: there is room now */

/* ---- balance.c: pools with several endpoints that others own. All locked, but for what is said to take the lock ---- */
void balance_init(struct weir_pool *p);
void balance_fini(struct weir_pool *p);
WEIR_CHECK int balance_set(struct weir_pool *p);                      /* endpoints came, went or changed: who is drawn how often */
/* Whom r is for: ready, or with room for another connection; NULL: nobody now. */
struct weir_endpoint *balance_choose(struct weir_pool *p, const struct weir_client_req *r, uint64_t now_us);
/* The same for a request in the queue: an endpoint that is ready, or NULL, and then r may wait for one connection. stop: nothing
 * is left for those behind it. */
struct weir_endpoint *balance_queued(struct weir_pool *p, struct weir_client_req *r, uint64_t now_us, bool *stop);
struct weir_endpoint *balance_next_open(struct weir_pool *p);         /* who needs another connection; NULL: nobody */
void balance_unpin(struct weir_client_req *r);
void balance_forget(struct weir_endpoint *ep);                        /* it goes */
bool balance_wants(const struct weir_endpoint *ep);                   /* somebody waits for a connection to it, or to any */
/* It failed; true: it is left alone now until ep->down_until_us, by one who has to wake up those who wait then (conn_rest). */
WEIR_CHECK bool balance_connect_failed(struct weir_endpoint *ep, uint64_t now_us, uint64_t wait_us, const char *reason);
void balance_marked(struct weir_endpoint *ep, bool down);
void balance_lost(struct conn *k, const char *reason);                /* takes the lock: requests on it got no answer */
void balance_answered(struct weir_endpoint *ep, uint64_t now_us);     /* takes the lock; to be called where ep->ailing */
void balance_slow(struct conn *k, bool keyed);                        /* takes the lock: who waits for it may go elsewhere; keyed: those with a key, too */
bool endpoint_wanted(const struct weir_endpoint *ep); /* somebody waits for a connection to it, or one is to be there ahead. Locked */
bool endpoint_keeps(const struct weir_endpoint *ep); /* single connections, after a request */

/* ---- requests ---- */

enum req_state {
    REQ_WAITING, /* in the pool's queue */
    REQ_GRANTED, /* has a slot; on its way to its thread's inbox, or waits for a connection to be agreed */
    REQ_RUNNING, /* BEGIN is encoded */
    REQ_ENDED    /* the result stands; output may still be held */
};

struct weir_client_req {
    struct weir_list wait_all, wait_own; /* queue: all threads, ours */
    struct weir_list link;               /* conn->pending, or the inbox */
    struct weir_list all_link;           /* client->reqs */
    struct weir_list ready_link;         /* client->ready */
    struct weir_client *client;
    struct weir_pool *pool;
    struct weir_endpoint *ep;
    struct conn *conn;
    struct weir_client_begin_options o;
    struct weir_spill *held;
    struct weir_timer timer;
    struct weir_client_result result;
    uint64_t begun_us, since_us, started_us, heard_us, aborted_us, sent, received;
    uint64_t refused_by; /* id of the endpoint that refused it; others first */
    struct weir_endpoint *want; /* waiting: it will be served by a connection to this one */
    uint32_t queue_ms;
    uint32_t window;     /* of its output; counted in client->windows */
    uint32_t owed;       /* credit for held output that waits until the disk has caught up */
    uint16_t id;
    _Atomic uint8_t state; /* enum req_state; WAITING -> GRANTED by any thread under the pool's lock */
    uint8_t tries;
    bool ran; /* an earlier try may have run */
    bool forgotten, tell_started, tell_room, tell_output, tell_slow, tell_end, slow_told, wants_room, in_inbox, slot;
    struct weir_client_req *next_free;
    char ran_at[sizeof ((struct weir_endpoint *)0)->text]; /* the last endpoint, when it has left it. Last: it is not cleared whole */
};

void req_start(struct weir_client_req *r); /* it has a slot (or ep is NULL: it failed): onto a connection */
void req_run_on(struct weir_client_req *r, struct conn *k);
void req_end(struct weir_client_req *r, int status, enum weir_client_stage stage, const char *reason);
void req_requeue(struct weir_client_req *r);
void req_timer(struct weir_client_req *r);
void req_arm(struct weir_client_req *r); /* sees to a timer that is set no later than what is due; it is never cleared */
void req_tell(struct weir_client_req *r);
/* Its connection broke: repeats it where that is safe, else ends it. */
void req_conn_lost(struct weir_client_req *r, int status, const char *reason);
void req_wire_end(struct weir_client_req *r, const struct weir_wire_event *ev);
void req_stop(struct weir_client_req *r, int status, const char *reason); /* running: the app is told to stop */
WEIR_CHECK int req_hold(struct weir_client_req *r, const char *p, size_t len);
void req_held_written(struct weir_client_req *r); /* what is held is in memory or on disk: its app may go on */
void req_recycle(struct weir_client_req *r);

/* ---- a thread's client ---- */

struct weir_client {
    struct weir_client_group *group;
    struct weir_loop *loop;
    struct weir_client_options o;
    struct weir_client_place place;
    struct weir_client_own *own;                       /* NULL: it is on somebody else's loop */
    unsigned index;
    struct weir_list later; /* connections that had their share of this turn */
    uint64_t tended_us; /* idle connections were looked after */
    struct weir_list ready, dirty, due, to_read, open; /* open: connections that are not in an idle list */
    struct conn *reading;                              /* its bytes lie in scratch */
    struct weir_client_req *lent;                      /* was given bytes of scratch by the last event */
    struct weir_str lent_bytes;
    pthread_mutex_t inbox_lock;
    struct weir_list inbox;
    atomic_bool look;                                  /* endpoints began to drain: look at shared connections */
    struct weir_client_stuck *stuck;                   /* to be told */
    size_t stuck_count, stuck_room;
    struct weir_list reqs;                             /* all that are in use */
    struct weir_client_req *free_reqs;
    uint32_t req_count;
    bool ends;                                         /* it opens nothing more */
    uint64_t windows;                                  /* of all requests together */
    uint64_t turns;                                    /* of its thread */
    _Atomic uint64_t seen;                             /* group->deaths, when its turn began */
    _Atomic uint64_t turn;                             /* counts flushes; others look when they grant a slot */
    char *scratch;
};

struct weir_client_group {
    unsigned threads, cpus; /* cpus: on which this process may run */
    struct weir_client *clients[MAX_THREADS];
    pthread_mutex_t clients_lock; /* of that array; behind all others */
    pthread_mutex_t pools_lock; /* before any pool's lock */
    struct weir_list pools;
    pthread_mutex_t changed_lock; /* behind any pool's lock */
    struct weir_list changed;
    pthread_mutex_t graves_lock; /* behind any pool's lock */
    struct weir_list graves;
    _Atomic uint64_t deaths;
    atomic_bool urgent;
    atomic_bool leaves;           /* nothing is kept any more */
    atomic_bool pings;            /* some pool asks its processes */
    atomic_bool tends;            /* some pool minds how long connections are idle */
    struct weir_loop *watcher;    /* woken when a pool without a process is asked for, or an endpoint is gone */
    pthread_mutex_t lock;
    struct conn **table[256]; /* chunks of 256 */
    uint32_t conn_count;
    struct conn *free_conns;
};

void group_bury(struct weir_client_group *g, struct grave *grave, void (*free_it)(struct grave *grave));
struct conn *group_conn_new(struct weir_client_group *g);
void group_conn_free(struct weir_client_group *g, struct conn *k);
struct conn *group_conn(struct weir_client_group *g, uint32_t index);
/* An option struct as far as both the program and the library know it. WEIR_INVALID: it asks for more. */
WEIR_CHECK int client_copy_options(void *to, size_t known, const void *from);
void client_end(struct weir_client *c); /* its memory goes; its loop and files stay */
void client_post(struct weir_client *to, struct weir_client_req *r); /* any thread: granted; under its pool's lock */
void client_due(struct weir_client *c, struct conn *k, uint64_t at_us);
#endif

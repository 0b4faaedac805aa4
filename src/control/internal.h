/* SPDX-License-Identifier: MIT */
/* control: what its files share. control.c owns the loop and what comes from the root part and the gateway; pools.c how many
 * units a pool should have and what follows; units.c one unit, from its start to its end; spec.c what it is started with;
 * state.c what the gateway is told of them and tells; ready.c proves that a started unit answers; output.c lines of apps;
 * reload.c configurations and their listeners; command.c the socket. */
#ifndef WEIR_CONTROL_INTERNAL_H
#define WEIR_CONTROL_INTERNAL_H

#include <stdio.h>
#include <sys/types.h>

#include "config/config.h"
#include "control/control.h"
#include "link/link.h"
#include "loop/loop.h"
#include "supervise/proto.h"
#include "weir/wire.h"

#define BACKOFF_MS    200   /* after the first start that died before it was ready; doubled up to: */
#define BACKOFF_MAX_MS 10000
#define BREAKER       3     /* failed starts in a row: who asks is refused at once, until one succeeds */
#define SAY_AGAIN_MS  60000 /* the same trouble is told once in this time */
#define EARLY_MS      5000  /* a process that served nothing and ended within it failed to start */
#define MEMORY_MS     10000 /* how often the memory of processes is looked at, where a pool limits it */
#define GATEWAY_DRAIN_MS 600
#define RELINK_MS     1000  /* between tries to give the gateway a new link */
#define COMMAND_MAX   65536
#define REPLY_MAX     (64u << 20) /* what a client that does not read lets us keep */

enum watch_kind { WATCH_ROOT, WATCH_LINK, WATCH_OUTPUT, WATCH_PROBE, WATCH_LISTEN, WATCH_CLIENT, WATCH_NOTIFY };
struct watch { /* what epoll tells about; first member of its owner */
    struct weir_list link; /* of all that are on the heap */
    enum watch_kind kind;
    int fd;
    bool dead; /* freed at the end of the turn */
    struct watch *next_dead;
};

enum unit_state {
    UNIT_STARTING, /* ordered */
    UNIT_PROBING,  /* its process runs; not known to answer */
    UNIT_READY,    /* told to the gateway */
    UNIT_DRAINING, /* told as such; ends when idle or out of time */
    UNIT_ENDING    /* END was ordered */
};
const char *unit_state_name(enum unit_state s);

struct probe {
    struct watch w;
    struct unit *unit;
    struct weir_wire_server *wire;
    int64_t since_ms;
    int64_t closed_ms; /* it closed without an answer then; 0: not yet */
    struct weir_arena arena;    /* of a check request: */
    struct weir_cgi_head *head; /* NULL: it is none */
    int answered;
};
struct output {
    struct watch w;
    struct control *c;
    char pool[65];
    pid_t pid;
    struct weir_buf line;
};
struct unit {
    struct weir_table_node node; /* by id */
    struct weir_list link;       /* pool->units, in the order of their starts */
    struct pool *pool;
    uint64_t id, start_time, generation, settings;
    pid_t pid;
    enum unit_state state;
    char address[120]; /* unix:/path */
    struct probe *probe;
    int64_t started_ms, deadline_ms; /* deadline: of starting or draining */
    int64_t used_ms;                 /* last sign of use */
    uint32_t workers, requests, processes;
    bool flow, prove;
    uint32_t busy, unproven;         /* as the gateway says */
    uint64_t done, failed;
    bool notified, accepted, check_told; /* it said READY=1; somebody accepted: now the check request counts */
    int64_t check_ms;                /* not asked again before */
    bool released, recycle, counted; /* counted: in control->starting_count */
    int log_fd; /* read end of its output until its pid is known; -1 */
};
struct pool {
    struct weir_table_node node; /* by name */
    struct weir_list link;       /* control->pools */
    struct weir_list touch_link; /* control->touched: looked at when the turn ends */
    struct weir_timer timer;     /* looked at then */
    char *name;
    const struct weir_conf_pool *conf; /* in the snapshot that is in use; NULL: removed */
    enum weir_conf_php php;            /* which program runs it */
    struct weir_list units;
    uint64_t generation, settings;     /* settings: a hash of what processes are started with */
    uint32_t failures, restarts;
    int64_t failed_ms, due_ms;         /* the last start failed; not started before */
    int64_t said_ms, memory_ms;        /* trouble was told; memory was looked at */
    char why[160];                     /* the last start failed */
    uint32_t queued, oldest_ms;
    uint64_t started, refused, timed_out, cut;
    uint32_t least, most;              /* units, by `weir scale`; most 0: as the configuration says */
    bool refuses;                      /* the breaker is open, or it was stopped */
    bool stopped;                      /* by `weir stop` or `drain`, until it is restarted or reloaded */
    bool patient;                      /* what runs is not cut */
    bool waits;                        /* for its turn to start something */
};
struct listener_fd {
    char socket[80];
    int fd, code;
    uint64_t id;
    bool asked, answered;
};
struct client {
    struct watch w;
    struct weir_buf in;
    uid_t uid;
    struct weir_buf out;
    bool waits;    /* for the end of a reload */
    bool in_ended; /* no more orders come */
    bool broken;
};

struct control {
    struct weir_control_options o;
    int epoll;
    struct watch root, link, listen, notify;
    struct order *first_order;
    struct watch *dead;
    struct weir_list heap;
    struct weir_config *conf, *next;      /* in use; read and checked, its listeners are being opened */
    struct weir_config_sources sources, next_sources;
    bool reloading, reload_by_signal;
    int config_memfd;
    uint64_t config_version, config_sent, endpoint_version;
    bool endpoints_changed;
    struct weir_wheel *wheel;
    struct weir_list pools, touched;
    struct weir_table pool_names, unit_ids;
    uint32_t starting_count, process_count;
    struct listener_fd listeners[240];
    size_t listener_count;
    uint64_t next_listener;
    pid_t gateway_pid;
    int64_t gateway_due_ms, gateway_kill_ms, relink_due_ms;
    unsigned gateway_failures;
    uint32_t gateway_restarts;
    bool gateway_up, gateway_ready, gateway_restarting, ending, announced;
    uint64_t next_unit, threads[64], connections;
    size_t thread_count;
    char control_path[108]; /* empty: none */
    bool own_socket;        /* made here: removed here */
    int64_t started_ms;
    int adopting; /* units that the root part has yet to tell: nothing is started before */
};

int64_t now_ms(void);
void say(const char *fmt, ...) WEIR_PRINTF(1, 2); /* one line of our own, to the terminal */
int watch_add(struct control *c, struct watch *w, enum watch_kind kind, int fd);
void watch_end(struct control *c, struct watch *w, bool free_it);
void root_send(struct control *c, struct root_msg *m, const int *fds, size_t count);

/* pools.c */
void pools_init(struct control *c);
void pools_plan(struct control *c);                       /* after a new configuration */
void pools_turn(struct control *c);                       /* starts and ends what is due */
int64_t pools_next_ms(const struct control *c);           /* when something is due; -1 */
struct pool *pool_find(const struct control *c, const char *name);
struct pool *pool_new(struct control *c, const char *name);
struct pool_root { /* begins as {0} */
    size_t site, route;
};
/* The next root, as the app sees it, of a route that leads to this pool; NULL: no more. */
const char *pool_next_root(const struct control *c, const struct pool *p, struct pool_root *at);
void pool_touch(struct control *c, struct pool *p);       /* something changed: looked at in this turn */
void pool_trouble(struct control *c, struct pool *p, const char *why); /* a start failed: not again for a while */
bool pool_restart(struct control *c, const char *name);
bool pool_stop(struct control *c, const char *name, bool patient); /* patient: nothing is cut, however long it takes */
bool pool_scale(struct control *c, const char *name, uint32_t least, uint32_t most); /* most 0: as the configuration says */
void pools_free(struct control *c);
bool pools_all_ready(const struct control *c);

/* units.c */
struct unit *unit_find(const struct control *c, uint64_t id);
bool unit_start(struct control *c, struct pool *p);       /* false: failed, the pool is in trouble */
void unit_ready(struct control *c, struct unit *u, bool flow, uint32_t requests);
void unit_failed(struct control *c, struct unit *u, const char *why);
void unit_drain(struct control *c, struct unit *u);
void unit_end(struct control *c, struct unit *u, uint32_t ms);
void unit_not_starting(struct control *c, struct unit *u); /* it gives its place among the starting ones to others */
void unit_set(struct control *c, struct unit *u, enum unit_state s); /* the one place that changes a state */
void units_adopt(struct control *c, const struct root_msg *m, int log);
void units_root(struct control *c, const struct root_msg *m);
void units_looked(struct control *c, const struct root_msg *m);
void unit_drop(struct control *c, struct unit *u);

/* spec.c */
struct unit_spec {
    int memfd, config; /* of the start; a file of its own, -1: none (php-fpm's) */
    uint32_t workers, processes;
    bool prove;
    const char *why;   /* it could not be made */
};
bool spec_make(struct control *c, const struct pool *p, const char *socket, struct unit_spec *out);

/* state.c */
void state_use(struct control *c, const struct weir_link_message *m);
void state_late(struct control *c, const struct weir_link_message *m);
void state_send(struct control *c);                       /* endpoints to the gateway, if they changed */
void state_forget_gateway(struct control *c);

/* ready.c */
void probe_start(struct control *c, struct unit *u);
void probe_event(struct control *c, struct probe *p);
void probe_clock(struct control *c, struct unit *u);
void probe_end(struct control *c, struct unit *u);
WEIR_CHECK int notify_listen(struct control *c); /* for pools whose programs say when they are ready */
void notify_event(struct control *c);

/* output.c */
void output_begin(void);
void output_end(void);
FILE *output_stream(void); /* for lines of our own; never blocks */
int output_watch(struct control *c, int fd, const char *pool, pid_t pid);
void output_event(struct control *c, struct output *o);
/* Text of a stranger for a terminal or a log: UTF-8 passes, control characters (C1 too) and anything else are \xHH. */
size_t output_escape(char *out, size_t room, const char *p, size_t len);

/* command.c */
void command_listen(struct control *c);
void command_socket(struct control *c, int fd, int error); /* fd: taken; -1: error tells why */
void command_accept(struct control *c);
void command_event(struct control *c, struct client *k);
void command_reloaded(struct control *c, const char *why); /* NULL: the configuration is in use */

/* reload.c */
void reload_begin(struct control *c, int fd, bool kept, bool by_signal); /* fd: the file, opened by root, or what was kept; -1 */
void reload_goes_on(struct control *c);
void reload_listening(struct control *c, const struct root_msg *m, int fd); /* takes fd */
void reload_drop_listeners(struct control *c);
int reload_listener_fd(struct control *c, const struct weir_conf_listener *l);

/* control.c */
void gateway_restart(struct control *c);
void tell_ready(struct control *c, const char *trouble); /* the root part: all is up, or a reload ended; trouble: "" or what to add */
#endif

/* SPDX-License-Identifier: MIT */
/* control: what its files share. control.c owns the loop and what comes from the root part; gateways.c the gateways; pools.c how many
 * units a pool should have and what follows; units.c one unit, from its start to its end; spec.c what it is started with;
 * state.c what gateways are told of them and tell; ready.c proves that a started unit answers; output.c lines of apps;
 * reload.c configurations and their listeners; command.c the socket; orders.c what people ordered, and keeping it; denied.c lists of
 * addresses; files.c files that may change; roles.c who may order what. */
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
#define SCALE_MAX     1000 /* processes of a pool, by `weir scale` */
#define COMMAND_MAX   (256u << 10) /* a page of 32 KiB as JSON, each byte escaped */
#define CLIENTS_MAX   64          /* connections of people that are no admins */
#define REPLY_MAX     (64u << 20) /* what a client that does not read lets us keep */

enum watch_kind { WATCH_ROOT, WATCH_LINK, WATCH_OUTPUT, WATCH_PROBE, WATCH_LISTEN, WATCH_CLIENT, WATCH_NOTIFY, WATCH_FILES };
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
    char pool[65];
    pid_t pid;
    bool error; /* its stderr */
    struct weir_buf line;
};
struct use { /* of a unit, by one gateway */
    uint32_t busy, opening;
    uint64_t done, failed;
    bool released; /* it drains, and no connection to it is left */
};
struct pool_use {
    uint32_t queued, oldest_ms;
    uint64_t started, refused, timed_out;
};
struct unit {
    struct weir_table_node node; /* by id */
    struct weir_list link;       /* pool->units, in the order of their starts */
    struct pool *pool;
    uint64_t id, generation, settings;
    pid_t pid;
    enum unit_state state;
    char address[120]; /* unix:/path */
    struct probe *probe;
    int64_t started_ms, deadline_ms; /* deadline: of starting or draining */
    int64_t used_ms;                 /* last sign of use */
    uint32_t workers, requests, processes;
    uint32_t ahead;                  /* workers that are to be there before anybody asks */
    bool forks;                      /* it starts workers for connections that wait */
    bool flow, prove, pings;         /* pings: it answered GET_VALUES */
    uint64_t shared;                 /* inode of the pool's socket (`listen`), on which it accepts: who asks it is not known here; 0: it has its own */
    bool deaf;                       /* it was not ready when the last control ended: its READY=1 may be lost */
    uint32_t others[ROOT_GATEWAYS_MAX]; /* what gateways were told that others hold */
    struct use use[ROOT_GATEWAYS_MAX], before; /* as the gateways say; before: of those that ended */
    uint32_t busy, opening;         /* together */
    uint64_t done, failed;
    bool notified, accepted, check_told; /* it said READY=1; somebody accepted: now the check request counts */
    int64_t check_ms;                /* not asked again before */
    bool released, recycle, counted; /* counted: in control->starting_count */
    int log_fd, error_fd; /* read ends of its output until its pid is known; -1 */
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
    struct pool_use use[ROOT_GATEWAYS_MAX], before, all;
    uint64_t cut;
    uint32_t least, most;              /* units, by `weir scale`; most 0: as the configuration says */
    bool refuses;                      /* the breaker is open, or it was stopped */
    bool stopped;                      /* by `weir stop` or `drain`, until it is restarted or reloaded */
    bool patient;                      /* what runs is not cut */
    bool waits;                        /* for its turn to start something */
    uint64_t socket;                   /* inode of the one that `listen` says; 0: none is open */
    int64_t log_ms;                    /* the second of output that is counted began */
    uint64_t log_lines, log_dropped;   /* in it */
    int64_t changed_ms;                /* a file that it watches changed last; 0: it follows from none any more */
};
struct listener_fd {
    char socket[128], group[40];
    uint32_t mode;  /* of a unix socket */
    int fd, code;
    uint64_t id;
    bool asked, answered;
};
enum client_waits { WAITS_RELOAD = 1, WAITS_UPGRADE = 2 };

struct client {
    struct watch w;
    struct weir_buf in;
    uid_t uid;
    struct weir_buf out;
    unsigned waits; /* client_waits: ends that it has yet to be told */
    bool guest;     /* no admin */
    bool in_ended; /* no more orders come */
    bool broken;
};

struct suspended {
    char *site, *text; /* site: its first name when it was ordered; text may be empty */
    bool page;         /* text is HTML */
};
struct denied {
    struct weir_net net;
    int64_t until; /* seconds since 1970; 0: for good */
};
struct denied_list { /* sorted by network */
    struct denied *list;
    size_t count, room;
    int64_t next; /* not later than the first time that is over; 0: none */
};
struct orders {
    struct json_t *kept;         /* what the root part kept, until there is a configuration; NULL */
    struct suspended *suspended;
    size_t suspended_count;
    struct denied_list denied;   /* by `weir deny` */
    struct denied_list filed;    /* by the deny file */
    char path[256];              /* where suspended sites are written; empty: nowhere */
    uint64_t version;            /* of what gateways are told; from 1 */
};

#define FILES_MS 100 /* behind the last event of what changed */
enum files_kind { FILES_DENY, FILES_POOL, FILES_CONFIG };
struct files {
    struct watch w; /* inotify */
    struct weir_table folders;
    int64_t deny_ms, config_ms; /* done then; 0: nothing is to be done */
    bool full;                  /* it was told that not all are watched */
    bool asked;                 /* for the configuration, because it changed */
};

struct gateway {
    struct watch link;
    pid_t pid;              /* 0: this place is free */
    unsigned place;         /* in control->gateways, and of its numbers in units and pools */
    uint64_t config_sent, endpoints_sent, orders_sent, keys_sent; /* versions; 0: none */
    uint32_t threads_asked; /* with its first configuration from this control; 0: none was sent */
    int64_t orders_ms;                    /* they were told */
    int64_t relink_due_ms, end_due_ms;    /* end: it leaves, and has so long */
    uint64_t threads[64], connections;    /* as it says */
    size_t thread_count;
    bool reopen;            /* it has to be told to open its logs anew */
    bool ready, leaves, told; /* leaves: it only finishes what it has; told: and knows it */
    bool unknown;           /* it ran before this control: it will say whether it leaves */
    bool heard;             /* its link is read */
};

struct control {
    struct weir_control_options o;
    int epoll;
    struct watch root, listen, notify;
    struct order *first_order;
    struct watch *dead;
    struct weir_list heap;
    struct weir_config *conf, *next;      /* in use; read and checked, its listeners are being opened */
    struct weir_config_sources sources, next_sources;
    bool reloading, reload_by_signal;
    bool has_mistakes;                    /* something of the last reading is not in use */
    int config_memfd;
    uint64_t config_version, endpoint_version;
    bool endpoints_changed;
    struct weir_wheel *wheel;
    struct weir_list pools, touched;
    struct weir_list connect_pools, servers; /* servers.c */
    struct weir_table pool_names, unit_ids;
    uint32_t starting_count, process_count;
    struct listener_fd listeners[ROOT_LISTENERS_MAX];
    size_t listener_count;
    uint64_t next_listener;
    struct gateway gateways[ROOT_GATEWAYS_MAX], *serving; /* serving: NULL: none */
    int64_t gateway_due_ms;
    unsigned gateway_failures;
    uint32_t gateway_restarts;
    bool gateway_ordered, replacing, ending, announced; /* replacing: another one is to serve */
    uint64_t next_unit;
    char control_path[108]; /* empty: none */
    bool own_socket;        /* made here: removed here */
    unsigned guests;        /* connections of people that are no admins */
    int64_t started_ms;
    bool read_later; /* it was ordered before the first configuration was in use */
    bool swept;      /* what the last control left open was closed */
    int adopting; /* units, gateways and orders that the root part has yet to tell: nothing is started before */
    struct orders orders;
    struct files files;
    struct {
        struct key *list;
        size_t count, next; /* next: whose file is looked at next */
        uint64_t next_id, version;
        int64_t due_ms;     /* 0: there are none */
    } keys;
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
void pool_scale(struct control *c, struct pool *p, uint32_t least, uint32_t most); /* it is configured; most 0: as the configuration says */
/* The same for an order that is only taken up again. Settings follow it, so that workers of another number replace those there are. */
void pool_set_scale(const struct control *c, struct pool *p, uint32_t least, uint32_t most);
/* The workers of a php or cgi pool: as ordered (weir scale), else as configured. */
void pool_workers(const struct pool *p, uint32_t *least, uint32_t *most);
bool pool_is_group(const struct pool *p); /* one php-cgi with a fixed number of workers, which share its opcache; else each is a unit */
void pools_free(struct control *c);
bool pools_all_ready(const struct control *c);
void pools_say_missing(const struct control *c); /* those that are not, and are not known to fail */

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
void units_adopt_errors(struct control *c, const struct root_msg *m, int log);
void units_root(struct control *c, const struct root_msg *m);
void units_looked(struct control *c, const struct root_msg *m);
void unit_drop(struct control *c, struct unit *u);
uint32_t unit_room(const struct unit *u); /* requests at once */

/* spec.c */
struct unit_spec {
    int memfd, config; /* of the start; a file of its own, -1: none (php-fpm's) */
    uint32_t workers, processes, ahead;
    bool prove, forks;
    const char *why;   /* it could not be made */
};
bool spec_make(struct control *c, const struct pool *p, const char *socket, struct unit_spec *out);

/* state.c */
void state_use(struct control *c, struct gateway *g, const struct weir_link_message *m);
void state_late(struct control *c, const struct weir_link_message *m);
/* servers.c: pools that connect */
void servers_use(struct control *c, const struct gateway *g, const struct weir_link_pool *o);
void servers_told(struct control *c, const struct gateway *g, const struct weir_link_message *m);
void servers_forget_gateway(struct control *c, unsigned place);
void servers_trim(struct control *c);                     /* the configuration is another one */
void servers_free(struct control *c);
struct json_t;
void servers_json(const struct control *c, struct json_t *pools);
void state_send(struct control *c);                       /* endpoints to gateways, if they changed */
void state_draining(const struct control *c, struct unit *u); /* it begins to drain: who still has it? */
void state_forget_gateway(struct control *c, unsigned place);

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
int output_watch(struct control *c, int fd, const char *pool, pid_t pid, bool error); /* takes fd; error: its stderr */
void output_apps(const char *path, bool json);         /* where lines of apps go; NULL: to our stderr */
void output_reopen(void);
void output_rate_turn(struct pool *p, int64_t now);    /* tells what was dropped, when the second is over */
void output_event(struct control *c, struct output *o);

/* command.c */
void command_listen(struct control *c);
void command_socket(struct control *c, int fd, int error); /* fd: taken; -1: error tells why */
void command_mode(struct control *c);                /* of the socket: for others only where some have a role */
void command_accept(struct control *c);
void command_event(struct control *c, struct client *k);
void command_reloaded(struct control *c, const char *why); /* NULL: the configuration is in use */
void command_upgraded(struct control *c, int error, const char *what); /* 0: the root part is new, and control ends */

/* reload.c */
void reload_begin(struct control *c, int fd, bool kept, bool by_signal); /* fd: the file, opened by root, or what was kept; -1 */
void reload_goes_on(struct control *c);
void reload_listening(struct control *c, const struct root_msg *m, int fd); /* takes fd */
void reload_drop_listeners(struct control *c);
int reload_listener_fd(struct control *c, const struct weir_conf_listener *l);
/* Sockets of pools with `listen`: open now (else it was asked for, and the pool is touched when the answer comes; *code: an errno of
 * the last try); closed at once, whoever holds it; its address into an order. */
bool reload_open_socket(struct control *c, const struct weir_conf_listener *l, int *code);
void reload_close_socket(struct control *c, const struct weir_conf_listener *l);
uint64_t reload_socket(struct control *c, const struct weir_conf_listener *l); /* inode of the one that is open; 0: none */
bool reload_socket_address(struct control *c, const struct weir_conf_listener *l, struct root_msg *m);
const char *reload_unix_trouble(int error);

/* orders.c */
void orders_keep(struct control *c);         /* they changed: the root part keeps them for the next control */
void orders_kept(struct control *c, int fd); /* what the last control let it keep */
void orders_begin(struct control *c);        /* behind the first configuration */
void orders_free(struct control *c);
void orders_tell(struct control *c, struct gateway *g); /* if it does not know them */
void orders_clock(struct control *c);        /* denied addresses whose time is over */
int64_t orders_next_ms(const struct control *c); /* until the next one's is; -1: none */
/* What is answered to `weir suspend`, `resume`, `deny` and `allow`. NULL: memory. */
struct json_t *orders_suspend(struct control *c, const char *site, const char *text, bool page);
struct json_t *orders_resume(struct control *c, const char *site);
struct json_t *orders_deny(struct control *c, const char *address, int64_t seconds); /* 0: for good */
struct json_t *orders_allow(struct control *c, const char *address);
struct json_t *orders_denied_json(const struct control *c);    /* all of them */
struct json_t *orders_suspended_json(const struct control *c); /* by order or by the configuration */

/* keys.c */
void keys_ask(struct control *c, const struct weir_config *conf); /* reads all that it names */
bool keys_answered(const struct control *c, const struct weir_config *conf);
void keys_settle(struct control *c);                              /* c->conf is another one */
void keys_opened(struct control *c, const struct root_msg *m, int fd); /* takes fd */
void keys_tell(struct control *c, struct gateway *g);             /* if it does not know them */
void keys_clock(struct control *c);
int64_t keys_next_ms(const struct control *c);                    /* until the next look; -1: never */
void keys_free(struct control *c);

/* denied.c */
enum denied_change { DENIED_NEW, DENIED_CHANGED, DENIED_FULL };
enum denied_change denied_add(struct denied_list *l, const struct weir_net *net, int64_t until);
bool denied_remove(struct denied_list *l, const struct weir_net *net);
size_t denied_expire(struct denied_list *l, int64_t now); /* how many */
const struct denied *denied_covers(const struct denied_list *l, const struct weir_net *net); /* one that holds all of net; NULL */
void denied_file_begin(struct control *c); /* the configuration names it, perhaps another one than before */
void denied_file_read(struct control *c);  /* it changed */
#define DENIED_MAX 65536 /* of each list */

/* files.c */
void files_begin(struct control *c); /* behind each configuration */
void files_event(struct control *c);
void files_ask(struct control *c);   /* for the configuration, as it is now: a reload that is told in the log */
void files_clock(struct control *c);
int64_t files_next_ms(const struct control *c); /* -1: nothing is due */
void files_free(struct control *c);

/* roles.c */
struct rights {
    enum weir_conf_role_kind all, own; /* everywhere; for the pools that run as this user */
    char user[64];
};
void roles_of(const struct control *c, uid_t uid, struct rights *out);
bool roles_pool(const struct control *c, const struct rights *r, enum weir_conf_role_kind need, const char *pool);

/* command.c, for the answers of others */
struct json_t *error_json(const char *text);

/* control.c */
void logs_reopen(struct control *c);

/* gateways.c */
size_t gateways_count(const struct control *c);
void gateway_event(struct control *c, struct gateway *g);
void gateway_up(struct control *c, const struct root_msg *m, int fd); /* takes fd */
void gateway_down(struct control *c, const struct root_msg *m);
void gateway_failed(struct control *c, const struct root_msg *m);
bool gateway_is_needed(const struct weir_config *conf); /* sites, or pools behind other web servers */
const char *gateway_replace(struct control *c); /* a new one takes over, and nothing is lost; NULL, or why not */
void gateways_turn(struct control *c);
int64_t gateways_next_ms(struct control *c);

/* control.c */
void tell_ready(struct control *c, const char *trouble); /* the root part: all is up, or a reload ended; trouble: "" or what to add */
#endif

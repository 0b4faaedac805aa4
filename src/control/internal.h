/* SPDX-License-Identifier: MIT */
/* control: what its files share. control.c owns the loop and what comes from the root part and the gateway; pools.c desired
 * and actual state of pools; ready.c proves that a started unit answers; output.c lines of apps; command.c the socket. */
#ifndef WEIR_CONTROL_INTERNAL_H
#define WEIR_CONTROL_INTERNAL_H

#include <sys/types.h>

#include "config/config.h"
#include "control/control.h"
#include "link/link.h"
#include "supervise/proto.h"
#include "weir/wire.h"

#define START_MS      60000 /* a unit has to be ready by then */
#define BACKOFF_MS    200   /* after the first start that died before it was ready; doubled up to: */
#define BACKOFF_MAX_MS 10000
#define GATEWAY_DRAIN_MS 600
#define COMMAND_MAX   65536

enum watch_kind { WATCH_ROOT, WATCH_LINK, WATCH_OUTPUT, WATCH_PROBE, WATCH_LISTEN, WATCH_CLIENT };
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
};
struct output {
    struct watch w;
    struct control *c;
    char pool[65];
    pid_t pid;
    struct weir_buf line;
};
struct unit {
    struct unit *next;
    struct pool *pool;
    uint64_t id, start_time, generation;
    pid_t pid;
    enum unit_state state;
    char address[120]; /* unix:/path */
    struct probe *probe;
    int64_t started_ms, deadline_ms; /* deadline: of starting or draining */
    uint32_t workers, requests;
    bool flow;
    uint32_t busy, unproven;         /* as the gateway says */
    uint64_t done, failed;
    bool released, seen;
    int log_fd; /* read end of its output until its pid is known; -1 */
};
struct pool {
    struct pool *next;
    char *name;
    const struct weir_conf_pool *conf; /* in the snapshot that is in use; NULL: removed */
    struct unit *units;
    uint64_t generation, settings;     /* settings: a hash of what processes are started with */
    uint32_t failures, restarts;
    int64_t due_ms;                    /* not started before */
    char why[160];                     /* the last start failed */
    uint32_t queued, oldest_ms;
    uint64_t started, refused, timed_out, cut;
};
struct listener_fd {
    char socket[80];
    int fd, code;
    uint64_t id;
    bool asked, answered, wanted;
};
struct client {
    struct watch w;
    struct weir_buf in;
    uid_t uid;
};

struct control {
    struct weir_control_options o;
    int epoll;
    struct watch root, link, listen;
    struct watch *dead;
    struct weir_list heap;
    struct weir_config *conf;
    struct weir_config_sources sources;
    int config_memfd;
    uint64_t config_version, config_sent, endpoint_version, endpoint_sum;
    struct pool *pools;
    struct listener_fd listeners[240];
    size_t listener_count;
    uint64_t next_listener;
    pid_t gateway_pid;
    int64_t gateway_due_ms, gateway_kill_ms;
    unsigned gateway_failures;
    uint32_t gateway_restarts;
    bool gateway_up, gateway_ready, gateway_restarting, ending, announced;
    uint64_t next_unit, threads[64], connections;
    size_t thread_count;
    char control_path[108];
    int64_t started_ms;
    int adopting; /* units that the root part has yet to tell: nothing is started before */
};

int64_t now_ms(void);
void say(const char *fmt, ...) WEIR_PRINTF(1, 2); /* one line of our own, to the terminal */
int watch_add(struct control *c, struct watch *w, enum watch_kind kind, int fd);
void watch_end(struct control *c, struct watch *w, bool free_it);
void root_send(struct control *c, struct root_msg *m, const int *fds, size_t count);

/* pools.c */
void pools_plan(struct control *c);                       /* after a new configuration */
void pools_turn(struct control *c);                       /* starts and ends what is due */
int64_t pools_next_ms(const struct control *c);           /* when something is due; -1 */
void pools_adopt(struct control *c, const struct root_msg *m, int log);
void pools_root(struct control *c, const struct root_msg *m);
void pools_use(struct control *c, const struct weir_link_message *m);
bool pool_restart(struct control *c, const char *name);
void pools_send(struct control *c);                       /* endpoints to the gateway, if they changed */
void pools_forget_gateway(struct control *c);
void unit_ready(struct control *c, struct unit *u, bool flow, uint32_t requests);
void unit_failed(struct control *c, struct unit *u, const char *why);
void pools_free(struct control *c);
bool pools_all_ready(const struct control *c);

/* ready.c */
void probe_start(struct control *c, struct unit *u);
void probe_event(struct control *c, struct probe *p);
void probe_clock(struct control *c, struct unit *u);
void probe_end(struct control *c, struct unit *u);

/* output.c */
int output_watch(struct control *c, int fd, const char *pool, pid_t pid);
void output_event(struct control *c, struct output *o);

/* command.c */
int command_listen(struct control *c);
void command_accept(struct control *c);
void command_event(struct control *c, struct client *k);

/* control.c */
bool control_reload(struct control *c, int fd, char *why, size_t len);
void gateway_restart(struct control *c);
#endif

/* SPDX-License-Identifier: MIT */
/* link: what control and gateway say to each other over a SOCK_SEQPACKET: state, not commands. A message stays under 64 KiB
 * and is never empty; what is larger comes in parts or as a sealed memfd. Codec and framing only; both ends use it. */
#ifndef WEIR_LINK_H
#define WEIR_LINK_H

#include "base/base.h"

#define WEIR_LINK_MAX     60000
#define WEIR_LINK_FDS_MAX 250

enum weir_link_type {
    WEIR_LINK_CONFIG = 1, /* down: version; fds: memfd with packed sources, then a listening socket for each listener */
    WEIR_LINK_ENDPOINTS,  /* down: version, part, of, endpoints, pools that refuse; applied when all parts came */
    WEIR_LINK_DRAIN,      /* down: accept nothing new, finish, exit; drain_ms; flags */
    WEIR_LINK_READY,      /* up: version applied; error text if it was not; flags */
    WEIR_LINK_STATE,      /* up: version applied; use of endpoints and queues of pools, those that changed; threads' requests */
    WEIR_LINK_LATE,       /* up: a request of unit `unit` is slow, or was given up; text tells which; inode: the peer's end of
                             its connection (0: shared, or not known); flags */
    WEIR_LINK_ORDERS,     /* down: fd: a memfd with the orders below, all that hold now; comes before the first CONFIG */
    WEIR_LINK_REOPEN,     /* down: open log files anew */
    WEIR_LINK_KEYS        /* down: fd: a memfd with the certificates and keys below, all that there are; comes before the first CONFIG */
};
#define WEIR_LINK_GIVEN_UP 1u /* LATE: answered 504: end the process that hangs */
#define WEIR_LINK_STUCK    4u /* LATE: no request: a ping was not answered */
#define WEIR_LINK_LEAVES   2u /* DRAIN: another gateway takes over: idle clients may ask once more. READY: it leaves so */
struct weir_link_endpoint {
    uint64_t id;
    uint32_t pid, workers, requests;
    uint32_t ahead;  /* workers that are to be there before anybody asks */
    uint32_t others; /* slots that another gateway holds or waits for */
    bool flow, keep, drain;
    bool forks;       /* it starts workers for connections that wait (php-fpm) */
    bool pings;       /* it answers GET_VALUES */
    bool prove;       /* END_REQUEST does not prove that a worker is free: ask (php-fpm, fastcgi_finish_request) */
    char pool[65], address[112];
};
struct weir_link_use { /* of an endpoint, up */
    uint64_t id, done, failed;
    uint32_t busy, opening;
    bool gone;        /* drained, and no connection to it is left */
};
struct weir_link_refusal { /* a pool whose requests are answered 503 at once */
    bool stopped; /* because somebody said so; else its processes do not start */
    char pool[65];
};
struct weir_link_pool {
    char pool[65];
    uint32_t queued, oldest_ms;
    uint64_t started, refused, timed_out;
};
struct weir_link_server { /* of a pool that connects, up */
    char pool[65], address[112], problem[200]; /* problem: why it failed last; empty: nothing */
    uint8_t state;           /* enum weir_endpoint_state */
    bool backup;
    uint32_t weight, busy, limit;
    uint64_t done, failed, retried, ejections, passed_on, rests_ms;
};
struct weir_link_message {
    enum weir_link_type type;
    uint64_t version, unit, inode;
    uint32_t drain_ms, flags;
    uint16_t part, of;
    char text[256];
    struct weir_link_endpoint *endpoints;
    struct weir_link_use *uses;
    struct weir_link_pool *pools;
    struct weir_link_refusal *refusals;
    struct weir_link_server *servers;
    uint64_t threads[64];
    size_t endpoint_count, use_count, pool_count, refusal_count, thread_count, server_count;
    uint64_t connections;
};
/* A message's bytes; lists beyond what fits are cut at *_count of what was written (send the rest as another part). */
WEIR_CHECK int weir_link_encode(const struct weir_link_message *m, struct weir_buf *out);
/* Lists live in the arena. WEIR_PROTOCOL: no such message. */
WEIR_CHECK int weir_link_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_message *out);
/* WEIR_OK, WEIR_AGAIN (the other end does not read), WEIR_CLOSED, WEIR_SYSTEM. fds are copied by the kernel. */
WEIR_CHECK int weir_link_send(int fd, const struct weir_link_message *m, const int *fds, size_t fd_count);
/* WEIR_OK: *out filled, fds (at most WEIR_LINK_FDS_MAX, close-on-exec) are the caller's. WEIR_AGAIN, WEIR_CLOSED,
 * WEIR_PROTOCOL (a message that was cut, or is none: its fds were closed). */
WEIR_CHECK int weir_link_receive(int fd, struct weir_arena *a, struct weir_link_message *out, int *fds, size_t *fd_count);
void weir_link_close(const int *fds, size_t count); /* those that are not -1 */

/* ---- orders of people that the gateway carries out ---- */
#define WEIR_LINK_TEXT_MAX   32768 /* bytes of a page */
#define WEIR_LINK_SITES_MAX  4096
#define WEIR_LINK_DENIED_MAX 131072
struct weir_link_suspended {
    struct weir_str site; /* one of its names, lower case */
    struct weir_str text; /* plain, or HTML; may be empty */
    bool page;            /* it is HTML */
};
struct weir_link_denied {
    uint8_t address[16]; /* as in struct weir_net */
    uint8_t bits;
    int64_t until;       /* seconds since 1970; 0: for good */
};
struct weir_link_orders {
    struct weir_link_suspended *suspended;
    struct weir_link_denied *denied;
    size_t suspended_count, denied_count;
};
/* WEIR_OK, WEIR_NOMEM, WEIR_LIMIT. */
WEIR_CHECK int weir_link_orders_encode(const struct weir_link_orders *o, struct weir_buf *out);
/* Lists and texts live in the arena. WEIR_PROTOCOL: these are no orders. */
WEIR_CHECK int weir_link_orders_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_orders *out);

/* ---- certificates with their keys, authorities of clients: files that only root may open ---- */
#define WEIR_LINK_KEY_FILES 3
#define WEIR_LINK_KEY_MAX   (256u << 10) /* bytes of a file */
#define WEIR_LINK_KEYS_MAX  8192
struct weir_link_key {
    uint32_t kind;             /* enum weir_conf_key_kind */
    struct weir_str path, key; /* as the configuration says */
    struct weir_str files[WEIR_LINK_KEY_FILES]; /* what is in them; all empty: they cannot be read */
};
/* WEIR_OK, WEIR_NOMEM, WEIR_LIMIT. */
WEIR_CHECK int weir_link_keys_encode(const struct weir_link_key *list, size_t count, struct weir_buf *out);
/* The list lives in the arena, its texts in p. WEIR_PROTOCOL: these are none. */
WEIR_CHECK int weir_link_keys_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_key **out, size_t *count);

/* A sealed memfd with these bytes, or WEIR_SYSTEM. */
WEIR_CHECK int weir_link_memfd(const char *name, const void *p, size_t len);
/* Reads it whole (at most max bytes; it has to be sealed): malloc'd, the caller's. */
WEIR_CHECK int weir_link_memfd_read(int fd, size_t max, char **out, size_t *len);
#endif

/* SPDX-License-Identifier: MIT */
/* What one client may do, counted over all threads: requests in a time, connections at once. A client is an IPv4 address, or the /64 of
 * an IPv6 one. Memory is bounded.
 *
 * Requests: for each client and limit one number, the moment at which it has its whole burst again (GCRA). There are places for so
 * many; whoever finds none takes that of the client who used the least, together with what that one had used. So nobody is ever
 * believed to have used less than he did: to push one's own number out, by asking from many addresses, gains nothing. */
#include <stdlib.h>
#include <sys/random.h>

#include "gateway/internal.h"

#define CLASSES 8   /* limits whose times differ much do not share places */
#define SHARDS  8   /* of each class */
#define SETS    512
#define WAYS    8
#define CONN_SHARDS 16

struct used {
    uint64_t who;     /* keyed hash of client and limit; 0: nobody yet */
    uint64_t full_us; /* then nothing is used any more */
};
struct shard {
    pthread_mutex_t lock;
    struct used sets[SETS][WAYS];
};
struct conn_count {
    struct weir_table_node node;
    uint64_t who;
    unsigned shard;
    uint32_t count;
};
struct conn_shard {
    pthread_mutex_t lock;
    struct weir_table table; /* only clients with connections */
};
struct limits {
    struct weir_key key;
    struct shard shards[CLASSES][SHARDS];
    struct conn_shard conns[CONN_SHARDS];
};

int limits_new(struct limits **out)
{
    struct limits *l = calloc(1, sizeof *l); /* 4 MiB, of which only what is used becomes memory */
    if (!l) return WEIR_NOMEM;
    if (getrandom(&l->key, sizeof l->key, 0) != (ssize_t)sizeof l->key) {
        free(l);
        return WEIR_SYSTEM;
    }
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < SHARDS; i++) pthread_mutex_init(&l->shards[c][i].lock, NULL);
    for (int i = 0; i < CONN_SHARDS; i++) pthread_mutex_init(&l->conns[i].lock, NULL);
    *out = l;
    return WEIR_OK;
}

void limits_free(struct limits *l)
{
    if (!l) return;
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i < SHARDS; i++) pthread_mutex_destroy(&l->shards[c][i].lock);
    for (int i = 0; i < CONN_SHARDS; i++) {
        weir_table_fini(&l->conns[i].table);
        pthread_mutex_destroy(&l->conns[i].lock);
    }
    free(l);
}

/* Of a client and what is counted: nobody can choose addresses that fall together. */
static struct weir_digest who_of(const struct limits *l, const uint8_t address[16], uint64_t what)
{
    static const uint8_t v4[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    char key[24];
    memcpy(key, address, 16);
    if (memcmp(address, v4, sizeof v4) != 0) memset(key + 8, 0, 8); /* a network of one client */
    memcpy(key + 16, &what, sizeof what);
    struct weir_digest d = weir_keyed_hash(&l->key, weir_str(key, sizeof key));
    d.h[1] |= 1; /* never 0 */
    return d;
}

/* ---- requests ---- */

/* 1 s, 4 s, 16 s, ... */
static unsigned class_of(uint64_t window_us)
{
    unsigned c = 0;
    for (uint64_t us = 1000000; c + 1 < CLASSES && us < window_us; us *= 4) c++;
    return c;
}

/* The client's place, or the one of who used the least: what he used is the new one's then. */
static struct used *place_of(struct used *set, uint64_t who)
{
    struct used *least = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].who == who) return &set[i];
        if (set[i].full_us < least->full_us) least = &set[i];
    }
    least->who = who;
    return least;
}

uint64_t limits_take(struct limits *l, const struct weir_conf_limit *conf, const uint8_t address[16], uint64_t now_us)
{
    uint64_t burst_us = conf->burst * conf->interval_us, wait_us = 0;
    struct weir_digest d = who_of(l, address, conf->id);
    struct shard *s = &l->shards[class_of(burst_us)][d.h[0] % SHARDS];
    pthread_mutex_lock(&s->lock);
    struct used *u = place_of(s->sets[d.h[0] / SHARDS % SETS], d.h[1]);
    uint64_t from_us = u->full_us > now_us ? u->full_us : now_us;
    if (from_us + conf->interval_us > now_us + burst_us) wait_us = from_us + conf->interval_us - now_us - burst_us;
    else u->full_us = from_us + conf->interval_us;
    pthread_mutex_unlock(&s->lock);
    return wait_us;
}

/* ---- connections ---- */

static struct conn_count *find(const struct conn_shard *s, uint64_t who)
{
    for (struct weir_table_node *n = weir_table_find(&s->table, who); n; n = weir_table_more(n))
        if (WEIR_CONTAINER(n, struct conn_count, node)->who == who) return WEIR_CONTAINER(n, struct conn_count, node);
    return NULL;
}

static struct conn_count *add(struct conn_shard *s, unsigned shard, uint64_t who)
{
    struct conn_count *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->who = who;
    c->shard = shard;
    if (weir_table_put(&s->table, &c->node, who) == WEIR_OK) return c;
    free(c);
    return NULL;
}

struct conn_count *limits_connect(struct limits *l, uint64_t listener, const uint8_t address[16], uint32_t most)
{
    struct weir_digest d = who_of(l, address, listener);
    unsigned shard = d.h[0] % CONN_SHARDS;
    struct conn_shard *s = &l->conns[shard];
    pthread_mutex_lock(&s->lock);
    struct conn_count *c = find(s, d.h[1]);
    if (!c) c = add(s, shard, d.h[1]);
    else if (c->count >= most) c = NULL;
    if (c) c->count++;
    pthread_mutex_unlock(&s->lock);
    return c;
}

void limits_disconnect(struct limits *l, struct conn_count *c)
{
    struct conn_shard *s = &l->conns[c->shard];
    pthread_mutex_lock(&s->lock);
    bool last = --c->count == 0;
    if (last) weir_table_remove(&s->table, &c->node);
    pthread_mutex_unlock(&s->lock);
    if (last) free(c);
}

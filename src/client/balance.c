/* SPDX-License-Identifier: MIT */
/* Pools with several endpoints that others own: which one a request is for, and which of them are left alone because they fail.
 * Everything here happens under the pool's lock. A request that finds no connection at its endpoint waits for one that is opened
 * to it (it is pinned), so that weights and keys hold also where connections are not kept; a connection that is long in coming
 * sets those who wait for it free. */
#include <stdlib.h>

#include "client/internal.h"

#define LOST_MAX 3      /* requests in a row without an answer: one may be the request's own fault */
#define DRAWS    4      /* then all are looked at */
#define LEVELS   16     /* of doubling */
#define WARM     256    /* a whole share */
#define HEALTHY_US UINT64_C(60000000) /* an endpoint that was well for so long begins with the shortest time again */

/* ---- who is drawn how often ---- */

void balance_init(struct weir_pool *p)
{
    weir_pool_balance_init(&p->balance.o);
    p->balance.random.state = weir_hash(weir_cstr(p->name)) | 1;
    weir_list_init(&p->balance.unopened);
}

static void free_tier(struct tier *t)
{
    free(t->list); /* one block holds all */
    *t = (struct tier){0};
}

void balance_fini(struct weir_pool *p)
{
    free_tier(&p->balance.tiers[0]);
    free_tier(&p->balance.tiers[1]);
}

/* The places that are short of a whole share, and those that have more, in one array from both ends: each short one is filled up
 * by one that has more. */
static void share_out(struct tier *t, uint64_t *left, uint32_t *todo)
{
    uint32_t low = 0, high = t->count;
    for (uint32_t i = 0; i < t->count; i++) {
        left[i] = (uint64_t)t->list[i]->weight * t->count;
        t->cut[i] = t->total;
        t->alias[i] = i;
        if (left[i] < t->total) todo[low++] = i;
        else todo[--high] = i;
    }
    while (low > 0 && high < t->count) {
        uint32_t s = todo[--low], l = todo[high];
        t->cut[s] = (uint32_t)left[s];
        t->alias[s] = l;
        left[l] -= t->total - left[s];
        if (left[l] >= t->total) continue;
        high++;
        todo[low++] = l;
    }
}

static int build_tier(struct weir_pool *p, struct tier *t, bool backup)
{
    uint32_t n = 0;
    free_tier(t);
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        const struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        n += !ep->drain && ep->backup == backup;
    }
    if (!n) return WEIR_OK;
    char *block = malloc(n * (sizeof *t->list + sizeof *t->cut + sizeof *t->alias));
    uint64_t *left = malloc(n * (sizeof *left + sizeof(uint32_t)));
    if (!block || !left) {
        free(block);
        free(left);
        return WEIR_NOMEM;
    }
    t->list = (void *)block;
    t->cut = (void *)(block + n * sizeof *t->list);
    t->alias = t->cut + n;
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->drain || ep->backup != backup) continue;
        ep->place = t->count;
        t->list[t->count++] = ep;
        t->total += ep->weight;
    }
    share_out(t, left, (uint32_t *)(void *)(left + n));
    free(left);
    return WEIR_OK;
}

int balance_set(struct weir_pool *p)
{
    int status = WEIR_OK;
    uint32_t n = 0;
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) n += !WEIR_CONTAINER(l, struct weir_endpoint, link)->drain;
    p->balance.on = !p->owned && n > 1;
    for (int i = 0; i < 2; i++) { /* without its table all of a tier are looked at */
        int one = p->owned ? WEIR_OK : build_tier(p, &p->balance.tiers[i], i == 1);
        if (one < 0) status = one;
    }
    return status;
}

static struct weir_endpoint *draw(struct balance *b, const struct tier *t)
{
    uint64_t r = weir_random_next(&b->random);
    uint32_t i = (uint32_t)((r >> 32) * t->count >> 32), at = (uint32_t)((r & UINT32_MAX) * t->total >> 32);
    return t->list[at < t->cut[i] ? i : t->alias[i]];
}

/* ---- whom a request may go to ---- */

static bool openable(const struct weir_endpoint *ep)
{
    uint32_t promised = ep->pinned > ep->opening ? ep->pinned - ep->opening : 0;
    return !endpoint_shared(ep) && ep->conns + ep->others + promised < ep->workers;
}

/* One that failed is tried by one request alone. */
static bool on_trial(const struct weir_endpoint *ep)
{
    return ep->ejected && (ep->active || ep->pinned || ep->opening);
}

static bool fits(const struct weir_endpoint *ep, uint64_t but, uint64_t now_us)
{
    return endpoint_up(ep, now_us) && ep->id != but && !on_trial(ep) && (endpoint_ready(ep) || openable(ep));
}

/* What it gets of its share, in 1/256: less for a while after it came back. */
static uint32_t warm(struct weir_endpoint *ep, uint64_t now_us)
{
    uint64_t slow_us = (uint64_t)ep->pool->balance.o.slow_start_ms * 1000;
    if (ep->returning) {
        ep->returning = false;
        ep->returned_us = now_us;
    }
    if (!ep->returned_us) return WARM;
    uint64_t since = now_us > ep->returned_us ? now_us - ep->returned_us : 0;
    if (since >= slow_us) {
        ep->returned_us = 0;
        return WARM;
    }
    uint64_t part = since * WARM / slow_us;
    return part > WARM / 10 ? (uint32_t)part : WARM / 10;
}

static uint64_t load(const struct weir_endpoint *ep)
{
    return (uint64_t)ep->active + ep->pinned;
}

/* Drawn by weight; one that just came back is passed over as often as it is short of its share. */
static struct weir_endpoint *pick(struct balance *b, const struct tier *t, const struct weir_endpoint *other, uint64_t but, uint64_t now_us)
{
    for (int i = 0; i < DRAWS; i++) {
        struct weir_endpoint *ep = draw(b, t);
        if (ep == other || !fits(ep, but, now_us)) continue;
        uint32_t share = warm(ep, now_us);
        if (share == WARM || (weir_random_next(&b->random) >> 56) < share) return ep;
    }
    return NULL;
}

/* The least loaded one, by looking at all. */
static struct weir_endpoint *scan(struct weir_pool *p, bool backup, uint64_t but, uint64_t now_us)
{
    struct weir_endpoint *best = NULL;
    uint64_t weight = 0;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->backup != backup || !fits(ep, but, now_us)) continue;
        uint64_t w = (uint64_t)ep->weight * warm(ep, now_us);
        if (best && (load(ep) + 1) * weight >= (load(best) + 1) * w) continue;
        best = ep;
        weight = w;
    }
    return best;
}

/* The second one has it where it will not be more loaded then than the first is now: where all are idle the weights decide alone. */
static struct weir_endpoint *least_of_two(struct weir_pool *p, bool backup, uint64_t but, uint64_t now_us)
{
    struct balance *b = &p->balance;
    const struct tier *t = &b->tiers[backup];
    struct weir_endpoint *one = t->count ? pick(b, t, NULL, but, now_us) : NULL;
    if (!one) return scan(p, backup, but, now_us);
    if (load(one) == 0 || t->count < 2) return one;
    struct weir_endpoint *two = pick(b, t, one, but, now_us);
    if (!two) two = t->list[(one->place + 1) % t->count];
    if (!fits(two, but, now_us)) return one;
    uint64_t one_weight = (uint64_t)one->weight * warm(one, now_us), two_weight = (uint64_t)two->weight * warm(two, now_us);
    return (load(two) + 1) * one_weight <= load(one) * two_weight ? two : one;
}

/* All bits of key and endpoint in all bits of the outcome (the finalizer of splitmix64). */
static uint64_t mix(uint64_t v)
{
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    return v ^ v >> 31;
}

/* -ln((v + 1/2) / 2^64), to about a millionth: of the exponent, and of the rest by a series. */
static double minus_ln(uint64_t v)
{
    int zeros = v ? __builtin_clzll(v) : 63;
    double m = ((double)(v << zeros) + 0.5) * 0x1p-63, s = (m - 1) / (m + 1), q = s * s; /* 1 <= m < 2 */
    double ln_m = 2 * s * (1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q / 11)))));
    return (double)(zeros + 1) * 0.69314718055994531 - ln_m;
}

/* Weighted rendezvous: each endpoint draws its lot for the key, the shortest one wins. */
static struct weir_endpoint *by_key(struct weir_pool *p, bool backup, uint64_t key, uint64_t but, uint64_t now_us)
{
    struct weir_endpoint *best = NULL;
    double shortest = 0;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->backup != backup || !fits(ep, but, now_us)) continue;
        double lot = minus_ln(mix(key ^ mix(ep->id))) / ((double)ep->weight * (double)warm(ep, now_us));
        if (best && lot >= shortest) continue;
        best = ep;
        shortest = lot;
    }
    return best;
}

static bool any_up(const struct weir_pool *p, bool backup, uint64_t but, uint64_t now_us)
{
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        const struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->backup == backup && ep->id != but && !ep->ejected && endpoint_up(ep, now_us)) return true;
    }
    return false;
}

static struct weir_endpoint *choose_but(struct weir_pool *p, const struct weir_client_req *r, uint64_t but, uint64_t now_us)
{
    for (int backup = 0; backup < 2; backup++) {
        struct weir_endpoint *ep = r->o.key ? by_key(p, backup, r->o.key, but, now_us) : least_of_two(p, backup, but, now_us);
        if (ep || any_up(p, backup, r->tries ? but : 0, now_us)) return ep; /* one that is only slow is up */
    }
    return NULL;
}

/* Requests that become ready in one turn share a batch, where they can share a connection. */
static struct weir_endpoint *batch(struct weir_pool *p, const struct weir_client_req *r, uint64_t now_us)
{
    const struct pool_thread *t = &p->threads[r->client->index];
    if (r->o.key || t->turn != atomic_load_explicit(&r->client->turn, memory_order_relaxed) || !t->batch || !t->batch_left) return NULL;
    return endpoint_shared(t->batch) && fits(t->batch, r->refused_by, now_us) ? t->batch : NULL;
}

struct weir_endpoint *balance_choose(struct weir_pool *p, const struct weir_client_req *r, uint64_t now_us)
{
    struct weir_endpoint *ep = batch(p, r, now_us);
    if (!ep) ep = choose_but(p, r, r->refused_by, now_us);
    if (!ep && r->refused_by) ep = choose_but(p, r, 0, now_us);
    return ep;
}

/* ---- waiting for a connection ---- */

static void pin(struct weir_client_req *r, struct weir_endpoint *ep)
{
    r->want = ep;
    ep->pinned++;
    ep->pool->balance.pinned++;
}

void balance_unpin(struct weir_client_req *r)
{
    if (!r->want) return;
    r->want->pinned--;
    r->want->pool->balance.pinned--;
    r->want = NULL;
}

struct weir_endpoint *balance_queued(struct weir_pool *p, struct weir_client_req *r, uint64_t now_us, bool *stop)
{
    if (r->want && !endpoint_up(r->want, now_us)) balance_unpin(r);
    if (!r->want) {
        struct weir_endpoint *ep = balance_choose(p, r, now_us);
        if (!ep) *stop = !r->o.key;
        if (!ep || endpoint_ready(ep)) return ep;
        pin(r, ep);
    }
    if (endpoint_ready(r->want)) return r->want;
    if (r->want->opening < r->want->pinned && weir_list_empty(&r->want->open_link)) weir_list_push_back(&p->balance.unopened, &r->want->open_link);
    return NULL;
}

struct weir_endpoint *balance_next_open(struct weir_pool *p)
{
    while (!weir_list_empty(&p->balance.unopened)) {
        struct weir_endpoint *ep = WEIR_CONTAINER(p->balance.unopened.next, struct weir_endpoint, open_link);
        if (!ep->drain && ep->opening < ep->pinned && ep->conns + ep->others < ep->workers) return ep;
        weir_list_remove(&ep->open_link);
    }
    return NULL;
}

static void unpin_all(struct weir_endpoint *ep)
{
    for (struct weir_list *l = ep->pool->waiting.next; ep->pinned && l != &ep->pool->waiting; l = l->next) {
        struct weir_client_req *r = WEIR_CONTAINER(l, struct weir_client_req, wait_all);
        if (r->want == ep) balance_unpin(r);
    }
}

void balance_forget(struct weir_endpoint *ep)
{
    unpin_all(ep);
    weir_list_remove(&ep->open_link);
}

bool balance_wants(const struct weir_endpoint *ep)
{
    const struct weir_pool *p = ep->pool;
    return p->balance.on ? ep->pinned > 0 || p->waiting_count > p->balance.pinned : p->waiting_count > 0;
}

void balance_slow(struct conn *k, bool keyed)
{
    struct weir_pool *p = k->ep->pool;
    bool any = false;
    pthread_mutex_lock(&p->lock);
    for (struct weir_list *l = p->waiting.next; k->ep->pinned && l != &p->waiting; l = l->next) {
        struct weir_client_req *r = WEIR_CONTAINER(l, struct weir_client_req, wait_all);
        if (r->want != k->ep || (r->o.key && !keyed) || r->tries) continue; /* tries: it comes from another one */
        balance_unpin(r);
        r->refused_by = k->ep->id;
        k->ep->passed_on++;
        any = true;
    }
    pthread_mutex_unlock(&p->lock);
    if (any) pool_serve(p, k->client);
}

/* ---- health ---- */

static bool another_up(const struct weir_endpoint *ep, uint64_t now_us)
{
    for (const struct weir_list *l = ep->pool->endpoints.next; l != &ep->pool->endpoints; l = l->next) {
        const struct weir_endpoint *o = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (o != ep && endpoint_up(o, now_us)) return true;
    }
    return false;
}

/* Left alone: a time that doubles, and up to a quarter more, so that not all come back at the same moment. */
static void eject(struct weir_endpoint *ep, uint64_t now_us, bool refused, const char *reason)
{
    struct balance *b = &ep->pool->balance;
    uint64_t most = (uint64_t)b->o.eject_max_ms * 1000, us;
    if (!ep->ejected && now_us - ep->proven_us > HEALTHY_US) ep->level = 0;
    us = (uint64_t)b->o.eject_ms * 1000 << ep->level;
    if (us >= most) us = most;
    else if (ep->level < LEVELS) ep->level++;
    us += weir_random_next(&b->random) % (us / 4 + 1);
    ep->down_until_us = now_us + us;
    ep->ejected = true;
    ep->ailing = true;
    ep->refused = refused;
    ep->lost = 0;
    ep->ejections++;
    ep->problem = reason;
    pool_changed(ep->pool, false);
}

/* None is up: whoever comes back first serves. */
static void shorten(struct weir_pool *p, uint64_t until_us)
{
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->ejected && ep->down_until_us > until_us) ep->down_until_us = until_us;
    }
}

bool balance_connect_failed(struct weir_endpoint *ep, uint64_t now_us, uint64_t wait_us, const char *reason)
{
    if (ep->ejected && ep->down_until_us > now_us) return false; /* a connection of the same outage */
    if (ep->pool->balance.on && ep->pool->balance.o.eject_ms && another_up(ep, now_us)) {
        eject(ep, now_us, true, reason);
        return true;
    }
    ep->down_until_us = now_us + wait_us;
    ep->problem = reason;
    ep->ailing = true;
    if (ep->pool->balance.on && !another_up(ep, now_us)) shorten(ep->pool, ep->down_until_us);
    pool_changed(ep->pool, false);
    return false;
}

void balance_lost(struct conn *k, const char *reason)
{
    struct weir_endpoint *ep = k->ep;
    struct weir_pool *p = ep->pool;
    uint64_t now = weir_loop_clock_us(k->client->loop);
    pthread_mutex_lock(&p->lock);
    bool out = p->balance.on && p->balance.o.eject_ms && (++ep->lost >= LOST_MAX || ep->ejected) && endpoint_up(ep, now) && another_up(ep, now);
    if (p->balance.on) ep->ailing = true;
    if (out) eject(ep, now, false, reason);
    uint64_t until = ep->down_until_us;
    pthread_mutex_unlock(&p->lock);
    if (out) conn_rest(k->client, ep, until);
}

void balance_answered(struct weir_endpoint *ep, uint64_t now_us)
{
    struct weir_pool *p = ep->pool;
    pthread_mutex_lock(&p->lock);
    bool back = ep->ejected;
    ep->ejected = false;
    ep->ailing = false;
    ep->lost = ep->failures = 0;
    ep->problem = NULL;
    if (back) {
        ep->returned_us = ep->proven_us = now_us;
        pool_changed(p, false);
    }
    pthread_mutex_unlock(&p->lock);
}

void balance_marked(struct weir_endpoint *ep, bool down)
{
    if (!down && ep->down && ep->pool->balance.on) ep->returning = true;
    if (!down && ep->ejected && ep->refused) ep->down_until_us = 0;
}

void weir_pool_balance_init_sized(struct weir_pool_balance *o, size_t size)
{
    struct weir_pool_balance all = {.size = size, .eject_ms = 1000, .eject_max_ms = 60000, .slow_start_ms = 10000};
    memset(o, 0, size);
    memcpy(o, &all, size < sizeof all ? size : sizeof all);
}

int weir_pool_set_balance(struct weir_pool *p, const struct weir_pool_balance *o)
{
    struct weir_pool_balance known;
    int status = client_copy_options(&known, sizeof known, o);
    if (status < 0 || known.eject_max_ms < known.eject_ms) return WEIR_INVALID;
    pthread_mutex_lock(&p->lock);
    p->balance.o = known;
    pthread_mutex_unlock(&p->lock);
    return WEIR_OK;
}

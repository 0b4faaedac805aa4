/* SPDX-License-Identifier: MIT */
/* Pools: which endpoint serves whom. Owns slots and the queue; everything here happens under the pool's lock, but for what
 * is said to run after it: starting requests and opening connections, which belong to their thread. */
#include <stdlib.h>

#include "client/internal.h"

#define SLACK_US 1000 /* an older request of another thread goes first only beyond this: waking a core costs more */

bool endpoint_shared(const struct weir_endpoint *ep)
{
    return ep->flow || ep->plain_mpx;
}

bool endpoint_keeps(const struct weir_endpoint *ep) /* IOP-S12 */
{
    return ep->keep && !ep->hangs_up && !atomic_load_explicit(&ep->pool->group->leaves, memory_order_relaxed);
}

bool endpoint_wanted(const struct weir_endpoint *ep)
{
    return balance_wants(ep) || (endpoint_keeps(ep) && ep->conns + ep->others <= ep->ahead);
}

/* Single connections that are more than our part. (IOP-S12) */
static uint32_t too_many(const struct weir_endpoint *ep)
{
    uint32_t all = ep->conns + ep->others;
    return all > ep->workers ? all - ep->workers : 0;
}

/* ---- life ---- */

int weir_pool_new(struct weir_pool **out, struct weir_client_group *g, const struct weir_pool_options *o)
{
    struct weir_pool_options known;
    if (client_copy_options(&known, sizeof known, o) < 0 || !known.name) return WEIR_INVALID;
    struct weir_pool *p = calloc(1, sizeof *p);
    char *name = strdup(known.name);
    if (!p || !name) {
        free(p);
        free(name);
        return WEIR_NOMEM;
    }
    p->group = g;
    p->name = name;
    p->queue_count = known.queue_count;
    p->queue_ms = known.queue_ms;
    p->owned = known.owned;
    pthread_mutex_init(&p->lock, NULL);
    weir_list_init(&p->changed_link);
    weir_list_init(&p->endpoints);
    weir_list_init(&p->waiting);
    for (unsigned i = 0; i < g->threads; i++) weir_list_init(&p->threads[i].waiting);
    balance_init(p);
    pthread_mutex_lock(&g->pools_lock);
    weir_list_push_back(&g->pools, &p->link);
    pthread_mutex_unlock(&g->pools_lock);
    *out = p;
    return WEIR_OK;
}

static void free_endpoint(struct grave *grave)
{
    free(WEIR_CONTAINER(grave, struct weir_endpoint, grave));
}

static void free_pool(struct grave *grave)
{
    struct weir_pool *p = WEIR_CONTAINER(grave, struct weir_pool, grave);
    pthread_mutex_destroy(&p->lock);
    balance_fini(p);
    free(p->gone);
    free(p->name);
    free(p);
}

void weir_pool_free(struct weir_pool *p)
{
    WEIR_ASSERT(weir_list_empty(&p->waiting));
    pthread_mutex_lock(&p->group->pools_lock);
    weir_list_remove(&p->link);
    pthread_mutex_unlock(&p->group->pools_lock);
    pthread_mutex_lock(&p->group->changed_lock);
    weir_list_remove(&p->changed_link);
    pthread_mutex_unlock(&p->group->changed_lock);
    while (!weir_list_empty(&p->endpoints)) {
        struct weir_endpoint *ep = WEIR_CONTAINER(p->endpoints.next, struct weir_endpoint, link);
        WEIR_ASSERT(ep->refs == 0);
        weir_list_remove(&ep->link);
        group_bury(p->group, &ep->grave, free_endpoint);
    }
    group_bury(p->group, &p->grave, free_pool);
}

bool weir_pool_retire(struct weir_pool *p)
{
    if (weir_pool_set(p, NULL, 0) < 0) return false;
    pthread_mutex_lock(&p->lock);
    bool empty = weir_list_empty(&p->endpoints) && p->waiting_count == 0 && p->posted == 0 && p->gone_count == 0;
    pthread_mutex_unlock(&p->lock);
    if (empty) weir_pool_free(p);
    return empty;
}

void weir_pool_set_queue(struct weir_pool *p, uint32_t count, uint32_t ms)
{
    pthread_mutex_lock(&p->lock);
    p->queue_count = count;
    p->queue_ms = ms;
    pthread_mutex_unlock(&p->lock);
}

void weir_pool_set_ping(struct weir_pool *p, uint32_t ms)
{
    pthread_mutex_lock(&p->lock);
    p->ping_ms = ms;
    pthread_mutex_unlock(&p->lock);
    if (ms) atomic_store(&p->group->pings, true);
}

void weir_pool_set_idle(struct weir_pool *p, uint32_t ms)
{
    pthread_mutex_lock(&p->lock);
    p->idle_ms = ms;
    pthread_mutex_unlock(&p->lock);
    if (ms) atomic_store(&p->group->tends, true);
}

const char *weir_pool_name(const struct weir_pool *p)
{
    return p->name;
}

void pool_changed(struct weir_pool *p, bool urgent)
{
    struct weir_client_group *g = p->group;
    if (!p->changed) {
        p->changed = true;
        pthread_mutex_lock(&g->changed_lock);
        weir_list_push_back(&g->changed, &p->changed_link);
        pthread_mutex_unlock(&g->changed_lock);
    }
    if (!urgent || !g->watcher) return;
    atomic_store(&g->urgent, true);
    weir_loop_wake(g->watcher);
}

/* Told once by the next weir_pool_stats. */
static void note_gone(struct weir_pool *p, uint64_t id)
{
    if (!p->owned) return; /* nobody waits for it */
    if (p->gone_count == p->gone_cap) {
        uint32_t cap = p->gone_cap ? p->gone_cap * 2 : 8;
        uint64_t *grown = realloc(p->gone, cap * sizeof *grown);
        if (!grown) return; /* its owner ends it when its time is over */
        p->gone = grown;
        p->gone_cap = cap;
    }
    p->gone[p->gone_count++] = id;
    pool_changed(p, true);
}

void endpoint_try_free(struct weir_endpoint *ep)
{
    if (!ep->drain || ep->refs || ep->active) return;
    note_gone(ep->pool, ep->id);
    balance_forget(ep);
    for (unsigned i = 0; i < ep->pool->group->threads; i++)
        if (ep->pool->threads[i].batch == ep) ep->pool->threads[i].batch = NULL;
    weir_list_remove(&ep->link);
    group_bury(ep->pool->group, &ep->grave, free_endpoint);
}

static struct weir_endpoint *find_endpoint(struct weir_pool *p, uint64_t id)
{
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->id == id) return ep;
    }
    return NULL;
}

static int add_endpoint(struct weir_pool *p, const struct weir_endpoint_options *o)
{
    struct weir_endpoint *ep = calloc(1, sizeof *ep);
    if (!ep) return WEIR_NOMEM;
    size_t len = strlen(o->address);
    int status = weir_address_parse(weir_cstr(o->address), &ep->addr, &ep->addr_len);
    if (status < 0) {
        free(ep);
        return status;
    }
    if (len >= sizeof ep->text) len = sizeof ep->text - 1;
    memcpy(ep->text, o->address, len);
    ep->pool = p;
    ep->id = o->id;
    ep->local = ep->addr.ss_family == AF_UNIX;
    weir_list_init(&ep->idle);
    weir_list_init(&ep->open_link);
    weir_list_push_back(&p->endpoints, &ep->link);
    return WEIR_OK;
}

static void apply(struct weir_endpoint *ep, const struct weir_endpoint_options *o)
{
    bool was_new = ep->workers == 0;
    ep->workers = o->workers ? o->workers : 1;
    ep->others = o->others;
    ep->requests = o->requests;
    ep->keep = o->keep;
    ep->ahead = o->ahead;
    if (o->ahead) atomic_store(&ep->pool->group->tends, true);
    ep->weight = o->weight > 256 ? 256 : o->weight ? o->weight : 1;
    ep->backup = o->backup;
    if (was_new) { /* later changes are what the peer itself told */
        ep->prove = o->prove;
        ep->pings = o->pings;
        ep->forks = o->forks;
        ep->pid = o->pid;
        ep->flow = o->flow;
        ep->plain_mpx = o->plain_mpx && !o->flow;
        ep->limit = o->requests ? o->requests : 1000;
    }
    ep->drain = o->drain;
}

/* Takes an idle connection out; the caller frees it. */
static void take_one(struct weir_endpoint *ep, struct conn *k, struct weir_list *out)
{
    weir_list_remove(&k->link);
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed); /* its owner's events become stale */
    atomic_store_explicit(&k->tag, ((uint64_t)(tag_epoch(tag) + 1) & 0xffffff) << 16 | (tag & 0xff00) | CONN_FREE,
                          memory_order_relaxed);
    weir_list_push_back(out, &k->link);
    ep->conns--;
    ep->refs--;
}

/* At most so many. */
static void take_idle(struct weir_endpoint *ep, struct weir_list *out, uint32_t most)
{
    for (; most && !weir_list_empty(&ep->idle); most--) take_one(ep, WEIR_CONTAINER(ep->idle.next, struct conn, link), out);
}

/* Each thread at its shared connections, and at those who wait: they may be served now. */
void group_look(struct weir_client_group *g)
{
    pthread_mutex_lock(&g->clients_lock);
    for (unsigned i = 0; i < g->threads; i++) {
        struct weir_client *c = g->clients[i];
        if (!c) continue;
        atomic_store(&c->look, true);
        weir_loop_wake(c->loop);
    }
    pthread_mutex_unlock(&g->clients_lock);
}

/* Under the pool's lock: their owners may be ended by their threads behind it. */
static void free_all(struct weir_list *gone)
{
    while (!weir_list_empty(gone)) {
        struct conn *k = WEIR_CONTAINER(gone->next, struct conn, link);
        weir_list_remove(&k->link);
        conn_free_now(k);
    }
}

void weir_client_group_leave(struct weir_client_group *g)
{
    struct weir_list gone;
    weir_list_init(&gone);
    atomic_store(&g->leaves, true);
    pthread_mutex_lock(&g->pools_lock);
    for (struct weir_list *l = g->pools.next; l != &g->pools; l = l->next) {
        struct weir_pool *p = WEIR_CONTAINER(l, struct weir_pool, link);
        pthread_mutex_lock(&p->lock);
        for (struct weir_list *k = p->endpoints.next; k != &p->endpoints; k = k->next)
            take_idle(WEIR_CONTAINER(k, struct weir_endpoint, link), &gone, UINT32_MAX);
        free_all(&gone);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&g->pools_lock);
}

/* Locked: endpoints came, went, or were marked as down. */
static void look_for_down(struct weir_pool *p);

int weir_pool_set(struct weir_pool *p, const struct weir_endpoint_options *list, size_t count)
{
    int result = WEIR_OK;
    struct weir_list gone;
    weir_list_init(&gone);
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < count; i++) {
        struct weir_endpoint *ep = find_endpoint(p, list[i].id);
        if (!ep && list[i].drain) { /* was released already */
            note_gone(p, list[i].id);
            continue;
        }
        if (!ep) {
            int status = add_endpoint(p, &list[i]);
            if (status < 0) {
                result = status;
                continue;
            }
            ep = WEIR_CONTAINER(p->endpoints.prev, struct weir_endpoint, link);
        }
        apply(ep, &list[i]);
    }
    for (struct weir_list *l = p->endpoints.next, *next; l != &p->endpoints; l = next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        next = l->next;
        bool named = false;
        for (size_t i = 0; i < count && !named; i++) named = list[i].id == ep->id;
        if (!named) ep->drain = true;
        if (ep->drain) balance_forget(ep);
        take_idle(ep, &gone, ep->drain ? UINT32_MAX : endpoint_shared(ep) ? 0 : too_many(ep));
        if (!ep->drain) continue;
        endpoint_try_free(ep);
    }
    if (!p->owned) look_for_down(p);
    if (balance_set(p) < 0) result = WEIR_NOMEM;
    free_all(&gone);
    pthread_mutex_unlock(&p->lock);
    group_look(p->group);
    return result;
}

/* ---- choosing ---- */

static struct conn *idle_conn(struct weir_endpoint *ep, struct weir_client *for_whom)
{
    for (struct weir_list *l = ep->idle.next; l != &ep->idle; l = l->next) {
        struct conn *k = WEIR_CONTAINER(l, struct conn, link);
        if (k->client == for_whom) return k;
    }
    return weir_list_empty(&ep->idle) ? NULL : WEIR_CONTAINER(ep->idle.next, struct conn, link);
}

/* It failed, and is left alone for a while. */
static bool down(const struct weir_endpoint *ep, uint64_t now_us)
{
    return (ep->failures || ep->ejected) && ep->down_until_us > now_us;
}

bool endpoint_up(const struct weir_endpoint *ep, uint64_t now_us)
{
    return !ep->drain && !ep->down && !down(ep, now_us);
}

bool endpoint_ready(const struct weir_endpoint *ep)
{
    return endpoint_shared(ep) ? ep->active + ep->others < ep->limit : !weir_list_empty(&ep->idle);
}

static bool usable(const struct weir_endpoint *ep, uint64_t now_us)
{
    return endpoint_up(ep, now_us) && endpoint_ready(ep);
}

/* How many requests one after the other a process is given in a turn: what it does in about 100 us, so that others are not idle
 * while the batch waits for itself. */
static uint32_t batch_size(const struct weir_pool *p)
{
    uint32_t n = BATCH_US * 16 / (p->cost ? p->cost : 1);
    return n > BATCH_REQUESTS ? BATCH_REQUESTS : n ? n : 1;
}

/* Within a batch the same endpoint, then the least loaded; among equals one with a connection of this thread. One that
 * refused the request only if there is no other. */
static struct weir_endpoint *choose(struct weir_pool *p, const struct weir_client_req *r, uint64_t now_us)
{
    struct weir_client *c = r->client;
    struct pool_thread *t = &p->threads[c->index];
    uint64_t turn = atomic_load_explicit(&c->turn, memory_order_relaxed);
    struct weir_endpoint *best = NULL, *refused = NULL;
    bool best_own = false;
    if (t->turn == turn && t->batch && t->batch_left && t->batch->id != r->refused_by && usable(t->batch, now_us)) return t->batch;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (!usable(ep, now_us)) continue;
        if (ep->id == r->refused_by) {
            refused = ep;
            continue;
        }
        bool own = endpoint_shared(ep) ? ep->shared[c->index] != NULL : idle_conn(ep, c)->client == c;
        if (best && (best->active < ep->active || (best->active == ep->active && best_own >= own))) continue;
        best = ep;
        best_own = own;
    }
    if (!best) best = refused;
    t->batch = best;
    t->batch_left = batch_size(p);
    t->turn = turn;
    return best;
}

/* The batch of r's thread is at ep now, if it can be: requests of a turn share a connection. */
static void note_batch(struct weir_pool *p, const struct weir_client_req *r, struct weir_endpoint *ep)
{
    struct pool_thread *t = &p->threads[r->client->index];
    uint64_t turn = atomic_load_explicit(&r->client->turn, memory_order_relaxed);
    if (t->batch == ep && t->turn == turn && t->batch_left) return;
    t->batch = ep;
    t->batch_left = batch_size(p);
    t->turn = turn;
}

/* by: whose thread this is. Where r learns of it later, an event of its connection must not find it before. */
static void take_slot(struct weir_pool *p, struct weir_client_req *r, const struct weir_client *by, struct weir_endpoint *ep)
{
    struct pool_thread *t = &p->threads[r->client->index];
    if (p->balance.on) note_batch(p, r, ep);
    if (t->batch_left) t->batch_left--;
    r->conn = NULL;
    if (!endpoint_shared(ep)) {
        struct conn *k = idle_conn(ep, r->client);
        weir_list_remove(&k->link);
        if (k->client != r->client || by != r->client) conn_give(k, r->client);
        conn_set(k, CONN_ACTIVE);
        r->conn = k;
    }
    ep->active++;
    p->active++;
    p->started++;
    pool_changed(p, false);
    r->ep = ep;
    r->slot = true;
}

/* Idle connections that had no request since then. Locked. */
static void end_rested(struct weir_endpoint *ep, uint64_t before)
{
    struct weir_list gone;
    weir_list_init(&gone);
    for (struct weir_list *i = ep->idle.next, *next; i != &ep->idle; i = next) {
        struct conn *k = WEIR_CONTAINER(i, struct conn, link);
        next = i->next;
        if (k->used_us > before) continue;
        if (!k->unused) ep->hang_ups = 0; /* it was kept */
        take_one(ep, k, &gone);
    }
    free_all(&gone);
}

/* To php-fpm a request begins when the one before it on its connection ended: one on a connection that rested would be called slow, and
 * cut, too soon. Locked. */
static bool drop_stale(struct weir_endpoint *ep, struct weir_client *c, uint64_t now_us)
{
    if (!ep->prove || endpoint_shared(ep) || now_us < STALE_US || idle_conn(ep, c)->used_us > now_us - STALE_US) return false;
    end_rested(ep, now_us - STALE_US);
    return true;
}

int pool_take(struct weir_pool *p, struct weir_client_req *r, const struct weir_client *by, uint64_t now_us)
{
    struct weir_endpoint *ep;
    do {
        ep = p->balance.on ? balance_choose(p, r, now_us) : choose(p, r, now_us);
        if (!ep || (p->balance.on && !endpoint_ready(ep))) return 0;
    } while (drop_stale(ep, r->client, now_us));
    take_slot(p, r, by, ep);
    return 1;
}

/* ---- the queue ---- */

void pool_wait(struct weir_pool *p, struct weir_client_req *r, bool front)
{
    struct weir_list *own = &p->threads[r->client->index].waiting;
    r->state = REQ_WAITING;
    if (front) {
        weir_list_push_front(&p->waiting, &r->wait_all);
        weir_list_push_front(own, &r->wait_own);
    } else {
        weir_list_push_back(&p->waiting, &r->wait_all);
        weir_list_push_back(own, &r->wait_own);
    }
    p->waiting_count++;
    pool_changed(p, p->waiting_count == 1);
}

void pool_unwait(struct weir_pool *p, struct weir_client_req *r)
{
    balance_unpin(r);
    weir_list_remove(&r->wait_all);
    weir_list_remove(&r->wait_own);
    p->waiting_count--;
    pool_changed(p, false);
}

/* Ours if it waits about as long as the oldest of all. */
static struct weir_client_req *next_waiter(struct weir_pool *p, struct weir_client *c)
{
    struct weir_list *own = &p->threads[c->index].waiting;
    struct weir_client_req *head = WEIR_CONTAINER(p->waiting.next, struct weir_client_req, wait_all);
    if (weir_list_empty(own)) return head;
    struct weir_client_req *mine = WEIR_CONTAINER(own->next, struct weir_client_req, wait_own);
    return mine->since_us <= head->since_us + SLACK_US ? mine : head;
}

/* Idle connections of c on which nothing was heard since then. Locked. */
static void take_silent(struct weir_pool *p, const struct weir_client *c, uint64_t before, bool all, struct weir_list *out)
{
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (!all && (!ep->pings || ep->drain)) continue;
        for (struct weir_list *i = ep->idle.next, *next; i != &ep->idle; i = next) {
            struct conn *k = WEIR_CONTAINER(i, struct conn, link);
            next = i->next;
            if (k->client != c || (!all && k->heard_us > before)) continue;
            weir_list_remove(&k->link);
            conn_set(k, CONN_ACTIVE);
            k->single = NULL;
            weir_list_push_back(out, &k->link);
        }
    }
}

static void take_of_pools(struct weir_client *c, bool all, struct weir_list *out)
{
    pthread_mutex_lock(&c->group->pools_lock);
    for (struct weir_list *l = c->group->pools.next; l != &c->group->pools; l = l->next) {
        struct weir_pool *p = WEIR_CONTAINER(l, struct weir_pool, link);
        pthread_mutex_lock(&p->lock);
        uint64_t ping_us = (uint64_t)p->ping_ms * 1000;
        if (all || (ping_us && c->loop->now_us > ping_us)) take_silent(p, c, c->loop->now_us - ping_us, all, out);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&c->group->pools_lock);
}

void pool_take_silent(struct weir_client *c, struct weir_list *out)
{
    take_of_pools(c, false, out);
}

void pool_take_all(struct weir_client *c, struct weir_list *out)
{
    take_of_pools(c, true, out);
}

static bool awaits_fork(const struct weir_endpoint *ep)
{
    return ep->opening && ep->forks && endpoint_keeps(ep);
}

static struct weir_endpoint *may_open(struct weir_pool *p, uint64_t now_us)
{
    struct weir_endpoint *best = NULL;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        if (ep->drain || ep->down || endpoint_shared(ep) || ep->conns + ep->others >= ep->workers || down(ep, now_us) || awaits_fork(ep)) continue;
        if (best && ep->failures > best->failures) continue; /* one that answers first */
        if (!best || ep->failures < best->failures || ep->conns * best->workers < best->conns * ep->workers) best = ep;
    }
    return best;
}

static bool opens_ahead(const struct weir_endpoint *ep, uint64_t now_us)
{
    uint32_t all = ep->conns + ep->others;
    return all < ep->ahead && all < ep->workers && !endpoint_shared(ep) && endpoint_keeps(ep) && endpoint_up(ep, now_us) && !awaits_fork(ep);
}

/* Its place is taken; conn_open() follows, without the lock. */
static struct weir_endpoint *begin_open(struct weir_endpoint *ep)
{
    ep->conns++;
    ep->opening++;
    ep->refs++;
    ep->pool->opening++;
    return ep;
}

/* Who waits gets what is free: others are told, those of c go to `mine`. */
static void grant(struct weir_pool *p, struct weir_client *c, struct weir_client_req *r, struct weir_list *mine)
{
    pool_unwait(p, r);
    r->state = REQ_GRANTED;
    if (r->client == c) weir_list_push_back(mine, &r->link);
    else client_post(r->client, r);
}

static void grant_slot(struct weir_pool *p, struct weir_client *c, struct weir_client_req *r, struct weir_endpoint *ep, struct weir_list *mine)
{
    balance_unpin(r);
    take_slot(p, r, c, ep);
    grant(p, c, r, mine);
}

static void start_all(struct weir_list *mine)
{
    while (!weir_list_empty(mine)) {
        struct weir_client_req *r = WEIR_CONTAINER(mine->next, struct weir_client_req, link);
        weir_list_remove(&r->link);
        req_start(r);
    }
}

static void serve_balanced(struct weir_pool *p, struct weir_client *c, uint64_t now_us, struct weir_list *mine)
{
    bool stop = false;
    while (!weir_list_empty(&p->waiting)) { /* as long as the first ones can be served, ours go first where that is fair */
        struct weir_client_req *r = next_waiter(p, c);
        struct weir_endpoint *ep = balance_queued(p, r, now_us, &stop);
        if (!ep) break;
        grant_slot(p, c, r, ep, mine);
    }
    stop = stop && !p->balance.pinned;
    for (struct weir_list *l = p->waiting.next, *next; l != &p->waiting && !stop; l = next) {
        struct weir_client_req *r = WEIR_CONTAINER(l, struct weir_client_req, wait_all);
        struct weir_endpoint *ep = balance_queued(p, r, now_us, &stop);
        next = l->next;
        if (!ep) continue;
        grant_slot(p, c, r, ep, mine);
    }
}

void pool_serve(struct weir_pool *p, struct weir_client *c)
{
    struct weir_list mine;
    struct weir_endpoint *open[32];
    unsigned open_count = 0;
    uint64_t now_us = weir_loop_clock_us(c->loop); /* as fresh as that of the connections' own time */
    weir_list_init(&mine);
    pthread_mutex_lock(&p->lock);
    if (p->balance.on) serve_balanced(p, c, now_us, &mine);
    while (!p->balance.on && !weir_list_empty(&p->waiting)) {
        struct weir_client_req *r = next_waiter(p, c);
        if (!pool_take(p, r, c, now_us)) break;
        grant(p, c, r, &mine);
    }
    while (!c->ends && (p->balance.on || p->opening < p->waiting_count) && open_count < WEIR_COUNT(open)) { /* IOP-S11 */
        struct weir_endpoint *ep = p->balance.on ? balance_next_open(p) : may_open(p, now_us);
        if (!ep) break;
        open[open_count++] = begin_open(ep);
    }
    pthread_mutex_unlock(&p->lock);
    start_all(&mine);
    for (unsigned i = 0; i < open_count; i++) (void)conn_open(c, open[i], USE_SINGLE);
}

/* ---- idle connections ---- */

void pool_tend(struct weir_client *c)
{
    struct weir_endpoint *open[32];
    unsigned open_count = 0;
    uint64_t now_us = weir_loop_clock_us(c->loop);
    if (c->index != 0 || c->ends || !atomic_load_explicit(&c->group->tends, memory_order_relaxed) || now_us < c->tended_us + TEND_US) return;
    c->tended_us = now_us;
    struct weir_list *pools = &c->group->pools, *first = NULL;
    pthread_mutex_lock(&c->group->pools_lock);
    for (struct weir_list *l = pools->next; l != pools; l = l->next) {
        struct weir_pool *p = WEIR_CONTAINER(l, struct weir_pool, link);
        bool full = open_count == WEIR_COUNT(open);
        pthread_mutex_lock(&p->lock);
        uint64_t us = (uint64_t)p->idle_ms * 1000;
        for (struct weir_list *k = p->endpoints.next; k != &p->endpoints; k = k->next) {
            struct weir_endpoint *ep = WEIR_CONTAINER(k, struct weir_endpoint, link);
            if (us && now_us > us) end_rested(ep, now_us - us);
            while (open_count < WEIR_COUNT(open) && opens_ahead(ep, now_us)) open[open_count++] = begin_open(ep);
        }
        pthread_mutex_unlock(&p->lock);
        if (!full && open_count == WEIR_COUNT(open)) first = l;
    }
    if (first) { /* the next pass begins there: all have their turn */
        weir_list_remove(pools);
        weir_list_push_back(first, pools);
    }
    pthread_mutex_unlock(&c->group->pools_lock);
    for (unsigned i = 0; i < open_count; i++) (void)conn_open(c, open[i], USE_SINGLE);
}

/* ---- what happened to slots and connections ---- */

/* One connection less is being opened. */
static void opened(struct weir_endpoint *ep)
{
    WEIR_ASSERT(ep->opening > 0 && ep->pool->opening > 0);
    ep->opening--;
    ep->pool->opening--;
}

/* What a request takes of a process, from how long it was held: all that are active share the processes, and these the CPUs that we
 * may use, too. */
static void smooth(struct weir_pool *p, uint64_t hold_us)
{
    uint32_t endpoints = 0;
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints && endpoints < p->group->cpus; l = l->next) endpoints++;
    uint64_t cost = hold_us * 16 * endpoints / p->active;
    if (cost > UINT32_MAX / 2) cost = UINT32_MAX / 2;
    p->service_us = p->service_us ? p->service_us - p->service_us / 16 + hold_us / 16 : hold_us;
    p->cost = p->cost - p->cost / 16 + (uint32_t)cost / 16;
}

void pool_release(struct weir_endpoint *ep, struct weir_client *c, struct conn *k, uint64_t hold_us, bool done, bool kept)
{
    struct weir_pool *p = ep->pool;
    pthread_mutex_lock(&p->lock);
    WEIR_ASSERT(ep->active > 0 && p->active > 0);
    smooth(p, hold_us);
    ep->active--;
    p->active--;
    if (done) ep->done++;
    else ep->failed++;
    if (kept) ep->hang_ups = 0;
    pool_changed(p, false);
    bool close_it = k && (ep->drain || too_many(ep));
    if (k && !close_it) {
        conn_set(k, CONN_IDLE);
        weir_list_push_front(&ep->idle, &k->link);
    }
    bool serve = p->waiting_count > 0;
    endpoint_try_free(ep);
    pthread_mutex_unlock(&p->lock);
    if (close_it) conn_close(k, WEIR_CLOSED, "left to others");
    else if (serve) pool_serve(p, c);
}

void pool_conn_idle(struct conn *k, bool was_opening)
{
    struct weir_endpoint *ep = k->ep;
    struct weir_pool *p = ep->pool;
    struct weir_client *c = k->client;
    pthread_mutex_lock(&p->lock);
    if (was_opening) {
        opened(ep);
        ep->failures = ep->missed = ep->unasked = 0;
        if (ep->refused) ep->down_until_us = 0; /* it can be connected to: that is what it was left alone for */
    }
    if (k->used_us == UINT64_MAX) k->used_us = c->loop->now_us;
    WEIR_ASSERT(weir_list_empty(&k->read_link) && weir_list_empty(&k->dirty_link)); /* another thread may have it from here on */
    bool wanted = endpoint_keeps(ep) || balance_wants(ep);
    bool close_it = ep->drain || !wanted || (too_many(ep) && !(was_opening && p->waiting_count)); /* it was waited for: once */
    conn_set(k, close_it ? CONN_ACTIVE : CONN_IDLE); /* not opening any more */
    if (!close_it) weir_list_push_front(&ep->idle, &k->link);
    bool serve = p->waiting_count > 0, ahead = was_opening && !serve && !c->ends && opens_ahead(ep, c->loop->now_us);
    if (ahead) begin_open(ep);
    pthread_mutex_unlock(&p->lock);
    if (close_it) conn_close(k, WEIR_CLOSED, "not needed any more");
    else if (serve) pool_serve(p, c);
    if (ahead) (void)conn_open(c, ep, USE_SINGLE);
}

void pool_conn_gone(struct weir_endpoint *ep, struct weir_client *c, bool single, bool was_opening)
{
    struct weir_pool *p = ep->pool;
    pthread_mutex_lock(&p->lock);
    if (single) ep->conns--;
    if (was_opening) {
        opened(ep);
    }
    ep->refs--;
    bool serve = p->waiting_count > 0;
    endpoint_try_free(ep);
    pthread_mutex_unlock(&p->lock);
    if (serve) pool_serve(p, c);
}

/* Locked: those who wait are told that nothing serves them. Those of c go to `mine`; c NULL: each is told by its own thread. */
static void end_waiters(struct weir_pool *p, struct weir_client *c, int status, const char *reason, struct weir_list *mine)
{
    while (!weir_list_empty(&p->waiting)) {
        struct weir_client_req *r = WEIR_CONTAINER(p->waiting.next, struct weir_client_req, wait_all);
        pool_unwait(p, r);
        r->state = REQ_GRANTED;
        r->ep = NULL;
        r->result.status = status;
        r->result.reason = reason;
        if (r->client == c) weir_list_push_back(mine, &r->link);
        else client_post(r->client, r);
    }
}

void pool_conn_unmade(struct weir_endpoint *ep, struct weir_client *c)
{
    struct weir_pool *p = ep->pool;
    struct weir_list mine;
    weir_list_init(&mine);
    pthread_mutex_lock(&p->lock);
    ep->conns--;
    opened(ep);
    ep->refs--;
    if (!p->active && !p->opening) end_waiters(p, c, WEIR_NOMEM, "out of memory", &mine); /* else what ends there serves them */
    endpoint_try_free(ep);
    pthread_mutex_unlock(&p->lock);
    start_all(&mine);
}

/* Nothing of the pool can be reached, and nobody will mend it. */
static void fail_waiters(struct weir_pool *p, struct weir_client *c, const char *reason, struct weir_list *mine)
{
    uint64_t now_us = weir_loop_clock_us(c->loop);
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next)
        if (endpoint_up(WEIR_CONTAINER(l, struct weir_endpoint, link), now_us)) return;
    if (p->balance.on) end_waiters(p, c, WEIR_REFUSED, "no server of the pool is up: weir status tells what is wrong with each", mine);
    else end_waiters(p, c, WEIR_SYSTEM, reason, mine);
}

uint64_t pool_conn_failed(struct weir_endpoint *ep, struct weir_client *c, bool opening, const char *reason)
{
    struct weir_pool *p = ep->pool;
    struct weir_list mine;
    weir_list_init(&mine);
    pthread_mutex_lock(&p->lock);
    if (opening) { /* it holds its place, but nobody waits for it any more */
        opened(ep);
    }
    if (ep->failures < 6) ep->failures++;
    uint64_t wait_us = UINT64_C(25000) << ep->failures, now_us = weir_loop_clock_us(c->loop);
    bool ejected = balance_connect_failed(ep, now_us, wait_us, reason);
    uint64_t until_us = ep->down_until_us;
    if (!p->owned) fail_waiters(p, c, reason, &mine);
    pthread_mutex_unlock(&p->lock);
    if (ejected) conn_rest(c, ep, until_us);
    start_all(&mine);
    pool_serve(p, c); /* another endpoint may take who waits */
    return wait_us;
}

void pool_set_mode(struct weir_endpoint *ep, bool flow, bool plain_mpx, uint32_t limit)
{
    pthread_mutex_lock(&ep->pool->lock);
    ep->flow = flow;
    ep->plain_mpx = plain_mpx;
    if (limit && ep->requests && limit > ep->requests) limit = ep->requests;
    if (limit) ep->limit = limit;
    ep->failures = ep->unanswered = 0;
    pthread_mutex_unlock(&ep->pool->lock);
}

#define ALL_DOWN "no server of the pool answers its check"

void weir_pool_refuse(struct weir_pool *p, const char *why)
{
    pthread_mutex_lock(&p->lock);
    p->refuses = why ? why : p->all_down ? ALL_DOWN : NULL;
    if (why) end_waiters(p, NULL, WEIR_REFUSED, why, NULL);
    pthread_mutex_unlock(&p->lock);
}

const char *weir_pool_refusal(struct weir_pool *p)
{
    pthread_mutex_lock(&p->lock);
    const char *why = p->refuses;
    pthread_mutex_unlock(&p->lock);
    return why;
}

static void look_for_down(struct weir_pool *p)
{
    bool all = !weir_list_empty(&p->endpoints);
    for (const struct weir_list *l = p->endpoints.next; l != &p->endpoints && all; l = l->next) {
        const struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        all = ep->drain || ep->down;
    }
    if (all == p->all_down) return;
    p->all_down = all;
    p->refuses = all ? ALL_DOWN : NULL;
    if (all) end_waiters(p, NULL, WEIR_REFUSED, ALL_DOWN, NULL);
}

void weir_pool_mark(struct weir_pool *p, uint64_t id, bool down)
{
    pthread_mutex_lock(&p->lock);
    struct weir_endpoint *ep = find_endpoint(p, id);
    bool changed = ep && (ep->down != down || ep->ejected);
    if (ep) balance_marked(ep, down);
    if (ep) ep->down = down;
    if (changed) pool_changed(p, false);
    look_for_down(p);
    pthread_mutex_unlock(&p->lock);
    if (!down && changed) group_look(p->group);
}

/* ---- looking ---- */

static enum weir_endpoint_state state_of(const struct weir_endpoint *ep)
{
    if (ep->down) return WEIR_ENDPOINT_DOWN;
    if (ep->ejected) return ep->active || ep->pinned || ep->opening ? WEIR_ENDPOINT_PROBED : WEIR_ENDPOINT_EJECTED;
    return ep->returned_us || ep->returning ? WEIR_ENDPOINT_SLOW : WEIR_ENDPOINT_UP;
}

void weir_pool_get_stats(struct weir_pool *p, struct weir_pool_stats *out, struct weir_endpoint_stats *eps, size_t room)
{
    size_t n = 0;
    pthread_mutex_lock(&p->lock);
    size_t gone = p->gone_count, all = gone;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next) all++;
    *out = (struct weir_pool_stats){.queued = p->waiting_count, .started = p->started, .refused = p->refused,
                                    .timed_out = p->timed_out};
    if (!weir_list_empty(&p->waiting))
        out->oldest_us = WEIR_CONTAINER(p->waiting.next, struct weir_client_req, wait_all)->since_us;
    out->endpoint_count = (uint32_t)all;
    if (all > room) {
        pthread_mutex_unlock(&p->lock);
        return;
    }
    for (; n < gone; n++) eps[n] = (struct weir_endpoint_stats){.id = p->gone[n], .gone = true};
    p->gone_count = 0;
    for (struct weir_list *l = p->endpoints.next; l != &p->endpoints; l = l->next, n++) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        eps[n] = (struct weir_endpoint_stats){
            .id = ep->id, .conns = ep->conns, .opening = ep->opening, .busy = ep->active, .done = ep->done,
            .failed = ep->failed, .retried = ep->retried, .flow = ep->flow, .draining = ep->drain,
            .limit = endpoint_shared(ep) ? ep->limit : ep->workers, .backup = ep->backup, .weight = ep->weight, .ejections = ep->ejections,
            .passed_on = ep->passed_on, .state = state_of(ep), .problem = ep->problem, .rests_until_us = ep->ejected ? ep->down_until_us : 0};
        memcpy(eps[n].address, ep->text, sizeof ep->text);
    }
    pthread_mutex_unlock(&p->lock);
}

/* SPDX-License-Identifier: MIT */
/* One thread's client: its turn, its inbox, and the table of connections that threads share. */
#include <sched.h>
#include <stdlib.h>

#include "client/internal.h"

/* ---- group ---- */

static unsigned cpus_of_ours(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0) return 1;
    return (unsigned)CPU_COUNT(&set);
}

int weir_client_group_new(struct weir_client_group **out, unsigned threads)
{
    if (threads == 0 || threads > MAX_THREADS) return WEIR_INVALID;
    struct weir_client_group *g = calloc(1, sizeof *g);
    if (!g) return WEIR_NOMEM;
    g->threads = threads;
    g->cpus = cpus_of_ours();
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->pools_lock, NULL);
    pthread_mutex_init(&g->changed_lock, NULL);
    pthread_mutex_init(&g->clients_lock, NULL);
    weir_list_init(&g->pools);
    weir_list_init(&g->changed);
    pthread_mutex_init(&g->graves_lock, NULL);
    weir_list_init(&g->graves);
    *out = g;
    return WEIR_OK;
}

void group_bury(struct weir_client_group *g, struct grave *grave, void (*free_it)(struct grave *grave))
{
    pthread_mutex_lock(&g->graves_lock);
    grave->died = atomic_fetch_add(&g->deaths, 1) + 1;
    grave->free = free_it;
    weir_list_push_back(&g->graves, &grave->link);
    pthread_mutex_unlock(&g->graves_lock);
}

static void clear_graves(struct weir_client_group *g, uint64_t upto)
{
    pthread_mutex_lock(&g->graves_lock);
    while (!weir_list_empty(&g->graves)) {
        struct grave *grave = WEIR_CONTAINER(g->graves.next, struct grave, link);
        if (grave->died > upto) break;
        weir_list_remove(&grave->link);
        grave->free(grave);
    }
    pthread_mutex_unlock(&g->graves_lock);
}

/* Nobody of this thread looks at what died before. */
static void turn_begins(struct weir_client *c)
{
    struct weir_client_group *g = c->group;
    uint64_t deaths = atomic_load(&g->deaths), all = deaths;
    if (atomic_load_explicit(&c->seen, memory_order_relaxed) == deaths) return;
    atomic_store(&c->seen, deaths);
    pthread_mutex_lock(&g->clients_lock);
    for (unsigned i = 0; i < g->threads; i++) {
        uint64_t seen = g->clients[i] ? atomic_load(&g->clients[i]->seen) : deaths;
        if (seen < all) all = seen;
    }
    pthread_mutex_unlock(&g->clients_lock);
    clear_graves(g, all);
}

void weir_client_group_free(struct weir_client_group *g)
{
    if (!g) return;
    clear_graves(g, UINT64_MAX);
    pthread_mutex_destroy(&g->graves_lock);
    for (uint32_t i = 0; i < g->conn_count; i++) free(g->table[i / 256][i % 256]);
    for (size_t i = 0; i < WEIR_COUNT(g->table); i++) free(g->table[i]);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->pools_lock);
    pthread_mutex_destroy(&g->changed_lock);
    pthread_mutex_destroy(&g->clients_lock);
    free(g);
}

void weir_client_group_watch(struct weir_client_group *g, struct weir_loop *watcher)
{
    g->watcher = watcher;
}

bool weir_client_group_urgent(struct weir_client_group *g)
{
    return atomic_exchange(&g->urgent, false);
}

struct weir_pool *weir_client_group_changed(struct weir_client_group *g)
{
    struct weir_pool *p = NULL;
    pthread_mutex_lock(&g->changed_lock);
    if (!weir_list_empty(&g->changed)) {
        p = WEIR_CONTAINER(g->changed.next, struct weir_pool, changed_link);
        weir_list_remove(&p->changed_link);
    }
    pthread_mutex_unlock(&g->changed_lock);
    if (!p) return NULL;
    pthread_mutex_lock(&p->lock);
    p->changed = false;
    pthread_mutex_unlock(&p->lock);
    return p;
}

static struct conn *table_grow(struct weir_client_group *g)
{
    uint32_t i = g->conn_count;
    if (i / 256 >= WEIR_COUNT(g->table)) return NULL;
    if (!g->table[i / 256]) g->table[i / 256] = calloc(256, sizeof(struct conn *));
    struct conn *k = g->table[i / 256] ? calloc(1, sizeof *k) : NULL;
    if (!k) return NULL;
    k->index = i;
    g->table[i / 256][i % 256] = k;
    __atomic_store_n(&g->conn_count, i + 1, __ATOMIC_RELEASE);
    return k;
}

struct conn *group_conn_new(struct weir_client_group *g)
{
    pthread_mutex_lock(&g->lock);
    struct conn *k = g->free_conns;
    if (k) g->free_conns = k->next_free;
    else k = table_grow(g);
    pthread_mutex_unlock(&g->lock);
    if (!k) return NULL;
    uint32_t index = k->index;
    uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
    struct weir_list *lists[] = {&k->link, &k->due_link, &k->dirty_link, &k->read_link, &k->pending};
    for (size_t i = 0; i < WEIR_COUNT(lists); i++) weir_list_init(lists[i]);
    k->single = NULL;
    k->wire = NULL;
    k->shared = k->own = k->absorb = k->want_write = k->lent = k->paused = k->broken = k->final = k->unused = k->again = k->attached = k->peer_closed = k->room_wanted = k->proving = k->retired = k->full = k->pinged = k->greeting = k->greeted = false;
    k->aborted = 0;
    k->batched = k->probes = 0;
    k->timer = (struct weir_timer){0};
    k->index = index;
    atomic_store_explicit(&k->tag, tag, memory_order_relaxed);
    return k;
}

void group_conn_free(struct weir_client_group *g, struct conn *k)
{
    pthread_mutex_lock(&g->lock);
    k->next_free = g->free_conns;
    g->free_conns = k;
    pthread_mutex_unlock(&g->lock);
}

struct conn *group_conn(struct weir_client_group *g, uint32_t index)
{
    if (index >= __atomic_load_n(&g->conn_count, __ATOMIC_ACQUIRE)) return NULL;
    return g->table[index / 256][index % 256];
}

/* ---- life ---- */

/* One client for each thread of the group. */
static bool take_place(struct weir_client *c)
{
    struct weir_client_group *g = c->group;
    pthread_mutex_lock(&g->clients_lock);
    bool free_place = !g->clients[c->index];
    if (free_place) g->clients[c->index] = c;
    pthread_mutex_unlock(&g->clients_lock);
    return free_place;
}

int weir_client_new_on(struct weir_client **out, struct weir_client_group *g, const struct weir_client_options *o,
                       const struct weir_client_place *place)
{
    struct weir_client *c = calloc(1, sizeof *c);
    if (!c) return WEIR_NOMEM;
    int status = client_copy_options(&c->o, sizeof c->o, o);
    if (status == WEIR_OK && c->o.index >= g->threads) status = WEIR_INVALID;
    if (status == WEIR_OK && !(c->scratch = malloc(SCRATCH))) status = WEIR_NOMEM;
    if (status < 0) {
        free(c);
        return status;
    }
    c->group = g;
    c->place = *place;
    c->loop = place->loop;
    if (!c->o.hold_memory) c->o.hold_memory = 256u << 10;
    if (!c->o.hold_max) c->o.hold_max = UINT64_C(1) << 30;
    if (!c->o.window_memory) c->o.window_memory = 64u << 20;
    c->index = c->o.index;
    struct weir_list *lists[] = {&c->ready, &c->dirty, &c->due, &c->to_read, &c->later, &c->open, &c->inbox, &c->reqs};
    for (size_t i = 0; i < WEIR_COUNT(lists); i++) weir_list_init(lists[i]);
    pthread_mutex_init(&c->inbox_lock, NULL);
    if (!take_place(c)) {
        pthread_mutex_destroy(&c->inbox_lock);
        free(c->scratch);
        free(c);
        return WEIR_INVALID;
    }
    *out = c;
    return WEIR_OK;
}

/* ---- from other threads ---- */

void client_post(struct weir_client *to, struct weir_client_req *r)
{
    pthread_mutex_lock(&to->inbox_lock);
    r->in_inbox = true;
    r->pool->posted++;
    weir_list_push_back(&to->inbox, &r->link);
    pthread_mutex_unlock(&to->inbox_lock);
    weir_loop_wake(to->loop);
}

static void take_inbox(struct weir_client *c)
{
    for (;;) {
        pthread_mutex_lock(&c->inbox_lock);
        struct weir_client_req *r = NULL;
        if (!weir_list_empty(&c->inbox)) {
            r = WEIR_CONTAINER(c->inbox.next, struct weir_client_req, link);
            weir_list_remove(&r->link);
        }
        pthread_mutex_unlock(&c->inbox_lock);
        if (!r) return;
        pthread_mutex_lock(&r->pool->lock); /* what the giver wrote is seen whole */
        r->in_inbox = false;
        r->pool->posted--;
        pthread_mutex_unlock(&r->pool->lock);
        req_start(r);
    }
}

/* ---- the end ---- */

/* Its requests: what runs ends with its connection. */
static void forget_all(struct weir_client *c)
{
    for (struct weir_list *l = c->reqs.next, *next; l != &c->reqs; l = next) {
        struct weir_client_req *r = WEIR_CONTAINER(l, struct weir_client_req, all_link);
        next = l->next;
        if (r->forgotten) continue;
        weir_client_req_free(r);
        next = c->reqs.next; /* others may have gone with it */
        while (next != &c->reqs && WEIR_CONTAINER(next, struct weir_client_req, all_link)->forgotten) next = next->next;
    }
    take_inbox(c);
}

/* Idle ones first, which others could take; then nobody gives us one any more. */
static void close_all(struct weir_client *c)
{
    static const char why[] = "the web server ends";
    struct weir_list idle;
    weir_list_init(&idle);
    pool_take_all(c, &idle);
    while (!weir_list_empty(&idle)) {
        struct conn *k = WEIR_CONTAINER(idle.next, struct conn, link);
        weir_list_remove(&k->link);
        conn_close(k, WEIR_ABORTED, why);
    }
    uint32_t count = __atomic_load_n(&c->group->conn_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count; i++) {
        struct conn *k = group_conn(c->group, i);
        uint64_t tag = atomic_load_explicit(&k->tag, memory_order_relaxed);
        if (tag_owner(tag) == c->index && (tag & 0xff) != CONN_FREE) conn_close(k, WEIR_ABORTED, why);
    }
}

void client_end(struct weir_client *c)
{
    struct weir_client_group *g = c->group;
    c->ends = true;
    forget_all(c);
    close_all(c);
    pthread_mutex_lock(&g->clients_lock);
    g->clients[c->index] = NULL;
    pthread_mutex_unlock(&g->clients_lock);
    group_look(g); /* those of other threads that waited for a connection that we were opening */
    while (c->free_reqs) {
        struct weir_client_req *r = c->free_reqs;
        c->free_reqs = r->next_free;
        weir_timer_clear(&r->timer);
        free(r);
    }
    pthread_mutex_destroy(&c->inbox_lock);
    free(c->stuck);
    free(c->scratch);
    free(c);
}

/* ---- endpoints changed ---- */

/* Shared connections of those that drain close when nothing runs on them; who waits may be served. */
static void look_around(struct weir_client *c)
{
    for (struct weir_list *l = c->open.next, *next; l != &c->open; l = next) {
        struct conn *k = WEIR_CONTAINER(l, struct conn, link);
        next = l->next;
        pthread_mutex_lock(&k->ep->pool->lock);
        bool drain = k->ep->drain;
        pthread_mutex_unlock(&k->ep->pool->lock);
        if (drain && weir_list_empty(&k->pending) && (!k->wire || weir_wire_server_active(k->wire) == 0)) {
            conn_close(k, WEIR_CLOSED, "the endpoint drains");
            next = c->open.next; /* others may have gone with it */
        }
    }
    pthread_mutex_lock(&c->group->pools_lock);
    for (struct weir_list *l = c->group->pools.next; l != &c->group->pools; l = l->next)
        pool_serve(WEIR_CONTAINER(l, struct weir_pool, link), c);
    pthread_mutex_unlock(&c->group->pools_lock);
}

void weir_client_woken(struct weir_client *c)
{
    take_inbox(c);
    if (atomic_exchange(&c->look, false)) look_around(c);
}

/* ---- the clock ---- */

void client_due(struct weir_client *c, struct conn *k, uint64_t at_us)
{
    weir_list_remove(&k->due_link);
    k->due_us = at_us;
    struct weir_list *l = c->due.prev; /* sorted; what comes is mostly the latest */
    while (l != &c->due && WEIR_CONTAINER(l, struct conn, due_link)->due_us > at_us) l = l->prev;
    weir_list_push_front(l, &k->due_link);
}

bool weir_client_busy(const struct weir_client *c)
{
    if (!weir_list_empty(&c->ready) || !weir_list_empty(&c->to_read) || c->reading) return true;
    return !weir_list_empty(&c->due) && WEIR_CONTAINER(c->due.next, struct conn, due_link)->due_us <= weir_loop_clock_us(c->loop);
}

void weir_client_turn(struct weir_client *c)
{
    turn_begins(c);
    weir_list_splice(&c->to_read, &c->later);
    c->turns++;
}

int64_t weir_client_next_us(const struct weir_client *c)
{
    if (!weir_list_empty(&c->ready) || !weir_list_empty(&c->to_read) || !weir_list_empty(&c->later) || c->reading) return 0;
    if (weir_list_empty(&c->due)) return -1;
    uint64_t at = WEIR_CONTAINER(c->due.next, struct conn, due_link)->due_us;
    uint64_t now = weir_loop_clock_us(c->loop);
    return at <= now ? 0 : (int64_t)(at - now);
}

static void run_clock(struct weir_client *c)
{
    uint64_t now = c->loop->now_us;
    for (int i = 0; i < 256 && !weir_list_empty(&c->due); i++) {
        struct conn *k = WEIR_CONTAINER(c->due.next, struct conn, due_link);
        if (k->due_us > now && k->due_us > (now = weir_loop_clock_us(c->loop))) return;
        conn_clock(k);
    }
}

/* ---- the turn ---- */

void weir_client_ready(struct weir_client *c, const struct weir_event *ev)
{
    switch (ev->ident.kind - c->place.kind) {
    case KIND_CONN: conn_event(c, ev); break;
    case KIND_CONN_TIMER: conn_timer(c, ev); break;
    case KIND_REQ_TIMER: req_timer(WEIR_CONTAINER(ev->ptr, struct weir_client_req, timer)); break;
    case KIND_SPILL: {
        struct weir_spill *s = weir_spill_done(ev->ptr);
        struct weir_client_req *r = s ? weir_spill_user(s) : NULL;
        if (!r) break;
        req_held_written(r);
        r->tell_output = true;
        req_tell(r);
        break;
    }
    default: break;
    }
}

/* What the last event lent and its receiver left is held. */
static void keep_lent(struct weir_client *c)
{
    struct weir_client_req *r = c->lent;
    if (!r) return;
    c->lent = NULL;
    if (c->lent_bytes.len == 0) return;
    int status = req_hold(r, c->lent_bytes.ptr, c->lent_bytes.len);
    if (status == WEIR_OK) return;
    r->result.not_run = false;
    if (r->conn && !r->conn->shared) {
        conn_close(r->conn, status, "more output than may be held for a slow client");
    } else if (r->conn && r->state == REQ_RUNNING) {
        req_stop(r, status, "more output than may be held for a slow client");
    }
}

/* One event of a ready request; false: none. */
static bool ready_event(struct weir_client_req *r, struct weir_client_event *ev)
{
    *ev = (struct weir_client_event){.req = r, .user = r->o.user, .stream = WEIR_STDOUT};
    if (r->tell_started) {
        r->tell_started = false;
        ev->type = WEIR_CLIENT_STARTED;
    } else if (r->tell_output) {
        r->tell_output = false;
        ev->type = WEIR_CLIENT_OUTPUT;
    } else if (r->tell_room) {
        r->tell_room = false;
        ev->type = WEIR_CLIENT_ROOM;
        ev->stream = WEIR_STDIN;
    } else if (r->tell_slow) {
        r->tell_slow = false;
        ev->type = WEIR_CLIENT_SLOW;
    } else if (r->tell_end && (!r->held || weir_spill_left(r->held) == 0)) {
        r->tell_end = false;
        ev->type = WEIR_CLIENT_END;
    } else {
        return false;
    }
    return true;
}

static bool next_ready(struct weir_client *c, struct weir_client_event *ev)
{
    while (!weir_list_empty(&c->ready)) {
        struct weir_client_req *r = WEIR_CONTAINER(c->ready.next, struct weir_client_req, ready_link);
        if (ready_event(r, ev)) return true;
        weir_list_remove(&r->ready_link);
    }
    return false;
}

static bool input_event(struct weir_client *c, struct weir_client_req *r, const struct weir_wire_event *w,
                        struct weir_client_event *ev)
{
    r->heard_us = c->loop->now_us;
    if (r->forgotten || r->aborted_us) return false;
    *ev = (struct weir_client_event){.type = WEIR_CLIENT_OUTPUT, .stream = w->stream, .req = r, .user = r->o.user,
                                     .bytes = w->bytes};
    if (w->stream == WEIR_STDERR) {
        if (r->conn->shared) {
            weir_wire_server_consumed(r->conn->wire, r->id, WEIR_STDERR, w->bytes.len);
            conn_dirty(r->conn);
        }
        return true;
    }
    if (r->received == 0 && r->ep && r->ep->ailing) balance_answered(r->ep, c->loop->now_us);
    r->received += w->bytes.len;
    c->lent = r;
    c->lent_bytes = w->bytes;
    if (r->held && weir_spill_left(r->held) > 0) {
        keep_lent(c); /* behind what is held already */
        return false;
    }
    return true;
}

/* A wire event of the connection being read; true: it is one for our caller. */
static bool wire_event(struct weir_client *c, struct conn *k, const struct weir_wire_event *w,
                       struct weir_client_event *ev)
{
    struct weir_client_req *r = w->user;
    switch (w->type) {
    case WEIR_WIRE_EV_INPUT: return r && input_event(c, r, w, ev);
    case WEIR_WIRE_EV_ROOM:
        if (r && r->wants_room) {
            r->wants_room = false;
            r->tell_room = true;
            req_tell(r);
        }
        return false;
    case WEIR_WIRE_EV_END:
        if (r) req_wire_end(r, w);
        if (k->shared) conn_after_end(k);
        return false;
    case WEIR_WIRE_EV_VALUES: conn_values(k, w->agreed, w->threads); return false;
    case WEIR_WIRE_EV_LIMIT:
        k->final = w->final;
        if (!w->final) pool_set_mode(k->ep, true, false, w->limit);
        conn_after_end(k);
        return false;
    case WEIR_WIRE_EV_ERROR: conn_close(k, WEIR_PROTOCOL, w->reason); return false;
    default: return false;
    }
}

int weir_client_next(struct weir_client *c, struct weir_client_event *ev)
{
    struct weir_wire_event w;
    keep_lent(c);
    if (c->stuck_count) {
        *ev = (struct weir_client_event){.type = WEIR_CLIENT_STUCK, .stuck = c->stuck[--c->stuck_count]};
        return WEIR_OK;
    }
    for (;;) {
        if (next_ready(c, ev)) return WEIR_OK;
        struct conn *k = c->reading;
        if (k) {
            if (weir_wire_server_next(k->wire, &w) == WEIR_OK) {
                if (wire_event(c, k, &w, ev)) return WEIR_OK;
            } else if (k->lent && !k->paused) {
                if (!conn_read(k) && c->reading == k) c->reading = NULL;
            } else {
                conn_end_read(k);
            }
            continue;
        }
        if (!weir_list_empty(&c->to_read)) {
            k = WEIR_CONTAINER(c->to_read.next, struct conn, read_link);
            weir_list_remove(&k->read_link);
            c->reading = k;
            if (!k->wire || !conn_read(k)) {
                if (c->reading == k) c->reading = NULL;
            }
            continue;
        }
        if (!weir_list_empty(&c->due)) {
            run_clock(c);
            if (!weir_list_empty(&c->ready)) continue;
            if (c->stuck_count) return weir_client_next(c, ev);
        }
        return WEIR_AGAIN;
    }
}

void weir_client_flush(struct weir_client *c)
{
    atomic_store_explicit(&c->turn, c->turn + 1, memory_order_relaxed);
    while (!weir_list_empty(&c->dirty)) conn_flush(WEIR_CONTAINER(c->dirty.next, struct conn, dirty_link));
}

/* SPDX-License-Identifier: MIT */
/* What gateways are told of units (endpoints, as state) and what they tell: use, queues, requests that are late. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/internal.h"

#define STUCK_END_MS 1000 /* what a process that hangs has to end by itself */
#define PART 200 /* endpoints, or pools that refuse, in one message */

/* ---- what they tell ---- */

static void sum_unit(const struct control *c, struct unit *u)
{
    u->busy = u->opening = 0;
    u->done = u->before.done;
    u->failed = u->before.failed;
    u->released = u->state == UNIT_DRAINING;
    for (size_t i = 0; i < WEIR_COUNT(u->use); i++) {
        const struct use *o = &u->use[i];
        u->busy += o->busy;
        u->opening += o->opening;
        u->done += o->done;
        u->failed += o->failed;
        if (c->gateways[i].pid && !o->released) u->released = false;
    }
}

static void sum_pool(struct pool *p)
{
    p->all = p->before;
    for (size_t i = 0; i < WEIR_COUNT(p->use); i++) {
        const struct pool_use *o = &p->use[i];
        p->all.queued += o->queued;
        if (o->oldest_ms > p->all.oldest_ms) p->all.oldest_ms = o->oldest_ms;
        p->all.started += o->started;
        p->all.refused += o->refused;
        p->all.timed_out += o->timed_out;
    }
}

/* What others hold of a unit's slots, or wait for: one that leaves has few clients left, and they have waited longest. */
static uint32_t others(const struct control *c, const struct gateway *g, const struct unit *u)
{
    uint32_t capacity = unit_room(u), ready = 0;
    uint64_t all = 0;
    if (g->leaves) return 0;
    for (const struct weir_list *l = u->pool->units.next; l != &u->pool->units; l = l->next)
        ready += WEIR_CONTAINER(l, struct unit, link)->state == UNIT_READY;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) {
        if (!c->gateways[i].pid || i == g->place) continue;
        all += u->use[i].busy;
        if (ready && u->state == UNIT_READY) all += (u->pool->use[i].queued + ready - 1) / ready;
    }
    return all > capacity ? capacity : (uint32_t)all;
}

/* Is what gateways were told about each other not true any more? */
static bool others_changed(const struct control *c, const struct pool *p)
{
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next) {
        const struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++)
            if (c->gateways[i].pid && others(c, &c->gateways[i], u) != u->others[i]) return true;
    }
    return false;
}

static void use_of_unit(struct control *c, const struct gateway *g, const struct weir_link_use *use, int64_t now)
{
    struct unit *u = unit_find(c, use->id);
    if (!u) return;
    struct use *o = &u->use[g->place];
    pool_touch(c, u->pool);
    if (use->gone) {
        o->released = true;
        o->busy = o->opening = 0;
    } else {
        if (use->busy || o->busy || use->done != o->done) u->used_ms = now;
        *o = (struct use){.busy = use->busy, .opening = use->opening, .done = use->done, .failed = use->failed};
    }
    sum_unit(c, u);
}

void state_use(struct control *c, struct gateway *g, const struct weir_link_message *m)
{
    int64_t now = now_ms();
    for (size_t i = 0; i < m->use_count; i++) use_of_unit(c, g, &m->uses[i], now);
    for (size_t i = 0; i < m->pool_count; i++) {
        const struct weir_link_pool *o = &m->pools[i];
        struct pool *p = pool_find(c, o->pool);
        if (!p || (p->conf == NULL && weir_list_empty(&p->units))) servers_use(c, g, o);
        if (!p) continue;
        p->use[g->place] = (struct pool_use){o->queued, o->oldest_ms, o->started, o->refused, o->timed_out};
        sum_pool(p);
        pool_touch(c, p);
        if (gateways_count(c) > 1 && others_changed(c, p)) c->endpoints_changed = true;
    }
    servers_told(c, g, m);
    if (m->part != 0) return;
    g->thread_count = m->thread_count;
    memcpy(g->threads, m->threads, sizeof g->threads);
    g->connections = m->connections;
}

void state_draining(const struct control *c, struct unit *u)
{
    for (size_t i = 0; i < WEIR_COUNT(u->use); i++) u->use[i].released = false;
    sum_unit(c, u);
}

/* A request is slow: what its process does is asked. It was given up: the process that hangs ends, alone. */
void state_late(struct control *c, const struct weir_link_message *m)
{
    struct unit *u = unit_find(c, m->unit);
    if (!u) return;
    bool given_up = m->flags & (WEIR_LINK_GIVEN_UP | WEIR_LINK_STUCK);
    if (m->flags & WEIR_LINK_STUCK && !m->inode) {
        say("pool %s: process %d does not answer a ping: it is ended", u->pool->name, (int)u->pid);
        u->pool->restarts++;
        unit_end(c, u, STUCK_END_MS);
        return;
    }
    struct root_msg order = {.kind = given_up ? ROOT_KILL : ROOT_LOOK, .unit = u->id, .inode = m->inode};
    snprintf(order.tag, sizeof order.tag, "%.150s", m->text);
    const struct weir_conf_pool *o = u->pool->conf;
    if (o && o->kind == WEIR_POOL_CGI) { /* its runner was told, and ends the program; what it itself does tells nothing */
        say("pool %s: %s: %s", u->pool->name, given_up ? "answered 504, and its program is ended" : "slow", m->text);
        return;
    }
    if (!m->inode && given_up) {
        say("pool %s: answered 504: %s; process %d goes on with other requests", u->pool->name, m->text, (int)u->pid);
        return;
    }
    root_send(c, &order, NULL, 0);
}

/* It has ended: what it counted stays, what it held is free. */
void state_forget_gateway(struct control *c, unsigned place)
{
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        p->before.started += p->use[place].started;
        p->before.refused += p->use[place].refused;
        p->before.timed_out += p->use[place].timed_out;
        p->use[place] = (struct pool_use){0};
        sum_pool(p);
        for (struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
            struct unit *u = WEIR_CONTAINER(k, struct unit, link);
            u->before.done += u->use[place].done;
            u->before.failed += u->use[place].failed;
            u->use[place] = (struct use){.released = true};
            sum_unit(c, u);
        }
        pool_touch(c, p);
    }
    servers_forget_gateway(c, place);
    c->endpoints_changed = true;
}

/* ---- what they are told ---- */

struct told {
    const struct control *c;
    const struct gateway *to;
    struct weir_link_endpoint *list;
    struct weir_link_refusal *refusals;
    size_t count, room, refusal_count, refusal_room;
    bool failed;
};

static void *room_for(void *list, size_t count, size_t *room, size_t size)
{
    if (count < *room) return list;
    size_t grown = *room ? *room * 2 : 64;
    void *p = realloc(list, grown * size);
    if (p) *room = grown;
    return p;
}

static void tell_unit(struct told *t, const struct pool *p, struct unit *u)
{
    const struct weir_conf_pool *o = p->conf;
    void *list = room_for(t->list, t->count, &t->room, sizeof *t->list);
    if (!list) {
        t->failed = true;
        return;
    }
    t->list = list;
    struct weir_link_endpoint *e = &t->list[t->count++];
    u->others[t->to->place] = others(t->c, t->to, u);
    *e = (struct weir_link_endpoint){.id = u->id, .pid = (uint32_t)u->pid, .ahead = u->ahead, .forks = u->forks, .workers = u->workers ? u->workers : 1,
                                     .others = u->others[t->to->place],
                                     .requests = o && o->requests_per_process ? o->requests_per_process : u->requests, .prove = u->prove, .pings = u->pings,
                                     .flow = u->flow, .keep = !o || o->keep, .drain = u->state == UNIT_DRAINING};
    snprintf(e->pool, sizeof e->pool, "%s", p->name);
    snprintf(e->address, sizeof e->address, "%.111s", u->address);
}

static void tell_pool(struct told *t, const struct pool *p)
{
    for (const struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
        struct unit *u = WEIR_CONTAINER(k, struct unit, link);
        if (!u->shared && (u->state == UNIT_READY || u->state == UNIT_DRAINING)) tell_unit(t, p, u);
    }
    if (!p->refuses) return;
    void *list = room_for(t->refusals, t->refusal_count, &t->refusal_room, sizeof *t->refusals);
    if (!list) {
        t->failed = true;
        return;
    }
    t->refusals = list;
    t->refusals[t->refusal_count].stopped = p->stopped;
    snprintf(t->refusals[t->refusal_count++].pool, sizeof t->refusals->pool, "%s", p->name);
}

static size_t piece(size_t count, size_t from)
{
    return from >= count ? 0 : count - from < PART ? count - from : PART;
}

static bool send_all(const struct gateway *g, const struct told *t, uint64_t version)
{
    size_t most = t->count > t->refusal_count ? t->count : t->refusal_count, parts = most ? (most + PART - 1) / PART : 1;
    for (size_t i = 0; i < parts; i++) {
        size_t from = i * PART;
        struct weir_link_message m = {.type = WEIR_LINK_ENDPOINTS, .version = version, .part = (uint16_t)i, .of = (uint16_t)parts,
                                      .endpoint_count = piece(t->count, from), .refusal_count = piece(t->refusal_count, from)};
        if (m.endpoint_count) m.endpoints = t->list + from;
        if (m.refusal_count) m.refusals = t->refusals + from;
        if (weir_link_send(g->link.fd, &m, NULL, 0) < 0) return false;
    }
    return true;
}

static void send_to(const struct control *c, struct gateway *g)
{
    struct told t = {.c = c, .to = g};
    if (g->link.fd < 0 || !g->ready || g->endpoints_sent == c->endpoint_version) return;
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) tell_pool(&t, WEIR_CONTAINER(l, struct pool, link));
    if (!t.failed && send_all(g, &t, c->endpoint_version)) g->endpoints_sent = c->endpoint_version; /* else the next turn tells again */
    free(t.list);
    free(t.refusals);
}

void state_send(struct control *c)
{
    if (c->endpoints_changed || c->endpoint_version == 0) c->endpoint_version++;
    c->endpoints_changed = false;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) send_to(c, &c->gateways[i]);
}

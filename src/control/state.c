/* SPDX-License-Identifier: MIT */
/* What the gateway is told of units (endpoints, as state) and what it tells: use, queues, requests that are late. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/internal.h"

#define PART 200 /* endpoints, or pools that refuse, in one message */

/* ---- what it tells ---- */

static void use_of_unit(struct control *c, const struct weir_link_use *use, int64_t now)
{
    struct unit *u = unit_find(c, use->id);
    if (!u) return;
    pool_touch(c, u->pool);
    if (use->gone) {
        if (u->state == UNIT_DRAINING) u->released = true;
        return;
    }
    if (use->busy || u->busy || use->done != u->done) u->used_ms = now;
    u->busy = use->busy;
    u->unproven = use->unproven;
    u->done = use->done;
    u->failed = use->failed;
}

void state_use(struct control *c, const struct weir_link_message *m)
{
    int64_t now = now_ms();
    for (size_t i = 0; i < m->use_count; i++) use_of_unit(c, &m->uses[i], now);
    for (size_t i = 0; i < m->pool_count; i++) {
        struct pool *p = pool_find(c, m->pools[i].pool);
        if (!p) continue;
        p->queued = m->pools[i].queued;
        p->oldest_ms = m->pools[i].oldest_ms;
        p->started = m->pools[i].started;
        p->refused = m->pools[i].refused;
        p->timed_out = m->pools[i].timed_out;
        pool_touch(c, p);
    }
    if (m->part == 0) {
        c->thread_count = m->thread_count;
        memcpy(c->threads, m->threads, sizeof c->threads);
        c->connections = m->connections;
    }
}

/* A request is slow: what its process does is asked. It was given up: the process that hangs ends, alone. */
void state_late(struct control *c, const struct weir_link_message *m)
{
    struct unit *u = unit_find(c, m->unit);
    if (!u) return;
    bool given_up = m->flags & WEIR_LINK_GIVEN_UP;
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

void state_forget_gateway(struct control *c)
{
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        p->queued = p->oldest_ms = 0;
        for (struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
            struct unit *u = WEIR_CONTAINER(k, struct unit, link);
            u->busy = u->unproven = 0;
            if (u->state == UNIT_DRAINING) u->released = true;
        }
        pool_touch(c, p);
    }
    c->endpoints_changed = true;
}

/* ---- what it is told ---- */

struct told {
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

static void tell_unit(struct told *t, const struct pool *p, const struct unit *u)
{
    const struct weir_conf_pool *o = p->conf;
    void *list = room_for(t->list, t->count, &t->room, sizeof *t->list);
    if (!list) {
        t->failed = true;
        return;
    }
    t->list = list;
    struct weir_link_endpoint *e = &t->list[t->count++];
    *e = (struct weir_link_endpoint){.id = u->id, .pid = (uint32_t)u->pid, .start_time = u->start_time, .workers = u->workers ? u->workers : 1,
                                     .requests = o && o->requests_per_process ? o->requests_per_process : u->requests, .prove = u->prove,
                                     .flow = u->flow, .keep = !o || o->keep, .drain = u->state == UNIT_DRAINING};
    snprintf(e->pool, sizeof e->pool, "%s", p->name);
    snprintf(e->address, sizeof e->address, "%.111s", u->address);
}

static void tell_pool(struct told *t, const struct pool *p)
{
    for (const struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
        const struct unit *u = WEIR_CONTAINER(k, struct unit, link);
        if (u->state == UNIT_READY || u->state == UNIT_DRAINING) tell_unit(t, p, u);
    }
    if (!p->refuses) return;
    void *list = room_for(t->refusals, t->refusal_count, &t->refusal_room, sizeof *t->refusals);
    if (!list) {
        t->failed = true;
        return;
    }
    t->refusals = list;
    snprintf(t->refusals[t->refusal_count++].pool, sizeof t->refusals->pool, "%s", p->name);
}

static size_t piece(size_t count, size_t from)
{
    return from >= count ? 0 : count - from < PART ? count - from : PART;
}

static bool send_all(struct control *c, const struct told *t)
{
    size_t most = t->count > t->refusal_count ? t->count : t->refusal_count, parts = most ? (most + PART - 1) / PART : 1;
    c->endpoint_version++;
    for (size_t i = 0; i < parts; i++) {
        size_t from = i * PART;
        struct weir_link_message m = {.type = WEIR_LINK_ENDPOINTS, .version = c->endpoint_version, .part = (uint16_t)i, .of = (uint16_t)parts,
                                      .endpoint_count = piece(t->count, from), .refusal_count = piece(t->refusal_count, from)};
        if (m.endpoint_count) m.endpoints = t->list + from;
        if (m.refusal_count) m.refusals = t->refusals + from;
        if (weir_link_send(c->link.fd, &m, NULL, 0) < 0) return false;
    }
    return true;
}

void state_send(struct control *c)
{
    struct told t = {0};
    if (!c->endpoints_changed || c->link.fd < 0 || !c->gateway_ready) return;
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) tell_pool(&t, WEIR_CONTAINER(l, struct pool, link));
    if (!t.failed && send_all(c, &t)) c->endpoints_changed = false; /* else the next turn tells again */
    free(t.list);
    free(t.refusals);
}

/* SPDX-License-Identifier: MIT */
/* Pools that connect to servers of others: what gateways tell of them, for `weir status`. Nothing is decided here. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/internal.h"

struct server {
    struct weir_list link;
    char pool[65], address[112];
    struct weir_link_server told[ROOT_GATEWAYS_MAX]; /* by each gateway; its pool empty: nothing */
    struct weir_link_server before;                  /* counts of those that ended */
};
struct connect_pool {
    struct weir_list link;
    char name[65];
    struct pool_use use[ROOT_GATEWAYS_MAX], before;
};

static struct connect_pool *find_pool(const struct control *c, const char *name)
{
    for (struct weir_list *l = c->connect_pools.next; l != &c->connect_pools; l = l->next) {
        struct connect_pool *p = WEIR_CONTAINER(l, struct connect_pool, link);
        if (strcmp(p->name, name) == 0) return p;
    }
    return NULL;
}

static struct connect_pool *pool_of(struct control *c, const char *name)
{
    struct connect_pool *p = find_pool(c, name);
    if (p || !(p = calloc(1, sizeof *p))) return p;
    snprintf(p->name, sizeof p->name, "%s", name);
    weir_list_push_back(&c->connect_pools, &p->link);
    return p;
}

static struct server *find_server(const struct control *c, const char *pool, const char *address)
{
    for (struct weir_list *l = c->servers.next; l != &c->servers; l = l->next) {
        struct server *s = WEIR_CONTAINER(l, struct server, link);
        if (strcmp(s->pool, pool) == 0 && strcmp(s->address, address) == 0) return s;
    }
    return NULL;
}

static struct server *server_of(struct control *c, const char *pool, const char *address)
{
    struct server *s = find_server(c, pool, address);
    if (s || !(s = calloc(1, sizeof *s))) return s;
    snprintf(s->pool, sizeof s->pool, "%s", pool);
    snprintf(s->address, sizeof s->address, "%s", address);
    weir_list_push_back(&c->servers, &s->link);
    return s;
}

static const struct weir_conf_pool *conf_of(const struct control *c, const char *pool)
{
    for (size_t i = 0; i < c->conf->pool_count; i++)
        if (c->conf->pools[i].kind == WEIR_POOL_CONNECT && strcmp(c->conf->pools[i].name, pool) == 0) return &c->conf->pools[i];
    return NULL;
}

static bool configured(const struct control *c, const char *pool, const char *address)
{
    const struct weir_conf_pool *o = conf_of(c, pool);
    for (size_t i = 0; o && i < o->endpoint_count; i++) {
        char text[112]; /* as the gateway tells it */
        snprintf(text, sizeof text, "%.111s", o->endpoints[i].address);
        if (strcmp(text, address) == 0) return true;
    }
    return false;
}

void servers_use(struct control *c, const struct gateway *g, const struct weir_link_pool *o)
{
    if (!conf_of(c, o->pool)) return;
    struct connect_pool *p = pool_of(c, o->pool);
    if (p) p->use[g->place] = (struct pool_use){o->queued, o->oldest_ms, o->started, o->refused, o->timed_out};
}

void servers_told(struct control *c, const struct gateway *g, const struct weir_link_message *m)
{
    for (size_t i = 0; i < m->server_count; i++) {
        if (!configured(c, m->servers[i].pool, m->servers[i].address)) continue; /* one that drains */
        struct server *s = server_of(c, m->servers[i].pool, m->servers[i].address);
        if (s) s->told[g->place] = m->servers[i];
    }
}

static void add_counts(struct weir_link_server *to, const struct weir_link_server *s)
{
    to->done += s->done;
    to->failed += s->failed;
    to->retried += s->retried;
    to->ejections += s->ejections;
    to->passed_on += s->passed_on;
}

static void add_use(struct pool_use *to, const struct pool_use *u)
{
    to->queued += u->queued;
    if (u->oldest_ms > to->oldest_ms) to->oldest_ms = u->oldest_ms;
    to->started += u->started;
    to->refused += u->refused;
    to->timed_out += u->timed_out;
}

void servers_forget_gateway(struct control *c, unsigned place)
{
    for (struct weir_list *l = c->servers.next; l != &c->servers; l = l->next) {
        struct server *s = WEIR_CONTAINER(l, struct server, link);
        add_counts(&s->before, &s->told[place]);
        s->told[place] = (struct weir_link_server){0};
    }
    for (struct weir_list *l = c->connect_pools.next; l != &c->connect_pools; l = l->next) {
        struct connect_pool *p = WEIR_CONTAINER(l, struct connect_pool, link);
        p->use[place].queued = p->use[place].oldest_ms = 0;
        add_use(&p->before, &p->use[place]);
        p->use[place] = (struct pool_use){0};
    }
}

/* Of what is configured no more; all: of everything. */
static void forget(struct control *c, bool all)
{
    for (struct weir_list *l = c->servers.next, *next; l != &c->servers; l = next) {
        struct server *s = WEIR_CONTAINER(l, struct server, link);
        next = l->next;
        if (!all && configured(c, s->pool, s->address)) continue;
        weir_list_remove(&s->link);
        free(s);
    }
    for (struct weir_list *l = c->connect_pools.next, *next; l != &c->connect_pools; l = next) {
        struct connect_pool *p = WEIR_CONTAINER(l, struct connect_pool, link);
        next = l->next;
        if (!all && conf_of(c, p->name)) continue;
        weir_list_remove(&p->link);
        free(p);
    }
}

void servers_trim(struct control *c)
{
    forget(c, false);
}

void servers_free(struct control *c)
{
    forget(c, true);
}

/* ---- status ---- */

static json_t *server_json(const struct control *c, const struct weir_conf_pool *o, const struct weir_conf_endpoint *e)
{
    static const char *const states[] = {"up", "down", "ejected", "probed", "slow start"};
    char address[112];
    snprintf(address, sizeof address, "%.111s", e->address);
    const struct server *s = find_server(c, o->name, address);
    struct weir_link_server sum = {0};
    const struct weir_link_server *now = s && c->serving && s->told[c->serving->place].pool[0] ? &s->told[c->serving->place] : NULL;
    if (s) add_counts(&sum, &s->before);
    for (size_t i = 0; s && i < WEIR_COUNT(s->told); i++) {
        add_counts(&sum, &s->told[i]);
        sum.busy += s->told[i].busy;
    }
    json_t *j = json_pack("{s:s, s:s, s:i, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "address", e->address, "state",
                          now && now->state < WEIR_COUNT(states) ? states[now->state] : "unknown", "weight", (int)e->weight, "backup", e->backup, "busy", (int)sum.busy,
                          "limit", now ? (int)now->limit : 0, "requests", (json_int_t)sum.done, "failed", (json_int_t)sum.failed, "retried", (json_int_t)sum.retried,
                          "ejections", (json_int_t)sum.ejections, "passed_on", (json_int_t)sum.passed_on);
    if (now && now->rests_ms) json_object_set_new(j, "rests_ms", json_integer((json_int_t)now->rests_ms));
    if (now && now->problem[0]) json_object_set_new(j, "problem", json_string(now->problem));
    return j;
}

void servers_json(const struct control *c, json_t *pools)
{
    for (size_t i = 0; i < c->conf->pool_count; i++) {
        const struct weir_conf_pool *o = &c->conf->pools[i];
        if (o->kind != WEIR_POOL_CONNECT) continue;
        struct pool_use all = {0};
        const struct connect_pool *p = find_pool(c, o->name);
        if (p) add_use(&all, &p->before);
        for (size_t k = 0; p && k < WEIR_COUNT(p->use); k++) add_use(&all, &p->use[k]);
        json_t *servers = json_array();
        for (size_t k = 0; k < o->endpoint_count; k++) json_array_append_new(servers, server_json(c, o, &o->endpoints[k]));
        json_t *j = json_pack("{s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:[], s:o}", "name", o->name, "kind", "connect", "restarts", 0, "queued", (int)all.queued,
                              "oldest_ms", (int)all.oldest_ms, "requests", (json_int_t)all.started, "refused", (json_int_t)all.refused, "timed_out",
                              (json_int_t)all.timed_out, "processes", "servers", servers);
        if (o->broken) json_object_set_new(j, "problem", json_string(o->broken));
        json_array_append_new(pools, j);
    }
}

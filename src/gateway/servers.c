/* SPDX-License-Identifier: MIT */
/* Pools that connect to servers of others: the key by which a request finds its server, what may be sent twice, and the lines of
 * the error log about servers that come and go. Choosing itself is the client's (balance.c). */
#include <stdlib.h>

#include "gateway/internal.h"

struct server_seen {
    uint64_t id, ejections;
    bool out;
};

/* ---- of a request ---- */

/* NAME=VALUE; NAME=VALUE: the first one of that name. */
static struct weir_str cookie(struct weir_str all, struct weir_str name)
{
    const char *p = all.ptr, *end = p ? p + all.len : p;
    while (p < end) {
        const char *stop = memchr(p, ';', (size_t)(end - p));
        if (!stop) stop = end;
        while (p < stop && *p == ' ') p++;
        size_t len = (size_t)(stop - p);
        if (len > name.len && memcmp(p, name.ptr, name.len) == 0 && p[name.len] == '=') return weir_str(p + name.len + 1, len - name.len - 1);
        p = stop + 1;
    }
    return (struct weir_str){0};
}

uint64_t server_key(const struct weir_conf_pool *conf, const struct weir_pair *params, size_t count)
{
    struct weir_str value;
    if (conf->balance == WEIR_BALANCE_LEAST) return 0;
    if (conf->balance == WEIR_BALANCE_COOKIE) value = cookie(weir_pair_value(params, count, WEIR_STR("HTTP_COOKIE")), conf->balance_key);
    else value = weir_pair_value(params, count, conf->balance_key);
    return value.len ? weir_hash(value) | 1 : 0;
}

/* Safe methods (RFC 9110 9.2.1): they may run twice. */
static bool is_safe(struct weir_str method)
{
    static const char *const safe[] = {"GET", "HEAD", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < WEIR_COUNT(safe); i++)
        if (weir_str_eq(method, weir_cstr(safe[i]))) return true;
    return false;
}

void server_retry(enum weir_conf_retry rule, struct weir_str method, struct weir_client_begin_options *b)
{
    b->once = rule == WEIR_RETRY_NO;
    b->repeatable = rule == WEIR_RETRY_SAFE && is_safe(method);
}

/* ---- what is logged ---- */

static struct server_seen *seen(struct gateway_pool *gp, uint64_t id)
{
    for (size_t i = 0; i < gp->server_count; i++)
        if (gp->servers[i].id == id) return &gp->servers[i];
    return NULL;
}

static void note(struct gateway *gw, const struct gateway_pool *gp, struct server_seen *s, const struct weir_endpoint_stats *e)
{
    bool out = e->state == WEIR_ENDPOINT_EJECTED || e->state == WEIR_ENDPOINT_PROBED;
    uint64_t now = gw->workers[0].loop->now_us, left = e->rests_until_us > now ? e->rests_until_us - now : 0;
    if (e->ejections > s->ejections)
        log_error(&gw->workers[0], "pool %s: %s fails: %s: it gets no requests for %llu.%llu s", weir_pool_name(gp->pool), e->address, e->problem ? e->problem : "it answered again",
                  (unsigned long long)(left / 1000000), (unsigned long long)(left / 100000 % 10));
    if (!out && (s->out || e->ejections > s->ejections) && e->state != WEIR_ENDPOINT_DOWN) log_error(&gw->workers[0], "pool %s: %s serves again", weir_pool_name(gp->pool), e->address);
    s->out = out;
    s->ejections = e->ejections;
}

void gateway_servers_note(struct gateway *gw, struct gateway_pool *gp, const struct weir_endpoint_stats *eps, size_t n)
{
    struct server_seen *list = calloc(n + 1, sizeof *list);
    if (!list) return;
    for (size_t i = 0; i < n; i++) {
        const struct server_seen *was = seen(gp, eps[i].id);
        list[i] = was ? *was : (struct server_seen){.id = eps[i].id, .ejections = eps[i].ejections};
        note(gw, gp, &list[i], &eps[i]);
    }
    free(gp->servers);
    gp->servers = list;
    gp->server_count = n;
}

/* Of a gateway that runs alone; else telling control looks at what changed. */
void gateway_servers_turn(struct gateway *gw)
{
    struct weir_pool *p;
    struct weir_endpoint_stats eps[256];
    struct weir_pool_stats s;
    while (!gw->link && (p = weir_client_group_changed(gw->group))) {
        struct gateway_pool *gp = gateway_find_pool(gw, weir_pool_name(p), false);
        if (!gp || gp->pool != p) continue;
        weir_pool_get_stats(p, &s, eps, WEIR_COUNT(eps));
        if (s.endpoint_count <= WEIR_COUNT(eps)) gateway_servers_note(gw, gp, eps, s.endpoint_count);
    }
}

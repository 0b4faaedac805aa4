/* SPDX-License-Identifier: MIT */
/* Guards of a route, in the order in which they are asked: the client's address, how often it asks, its credentials. Then come the authorizer and the body, which are not
 * this file's. Who the client is, clients.c knows. */
#include "gateway/internal.h"

/* ---- addresses ---- */

/* Who has no address (a simulated connection) is nobody's neighbour: a list of allowed ones does not have it. */
static bool address_passes(const struct exchange *ex, const struct route *r)
{
    const struct weir_conf_guards *g = &r->conf->guards;
    const struct guard_client *c = &ex->client;
    if (g->deny.count && c->known && weir_nets_have(g->deny.list, g->deny.count, c->address)) return false;
    return !g->allow.count || (c->known && weir_nets_have(g->allow.list, g->allow.count, c->address));
}

/* ---- how often ---- */

/* Each limit counts a request once, however often it is sent on. False: it was answered. */
static bool limit_passes(struct exchange *ex, const struct route *r)
{
    const struct weir_conf_limit *l = r->conf->guards.limit;
    if (!l || ex->limited == l->id || ex->trace) return true;
    uint64_t wait_us = limits_take(ex->worker->gw->limits, l, ex->client.address, ex->worker->loop->now_us);
    ex->limited = l->id;
    if (!wait_us) return true;
    char *digits = weir_arena_bytes(&ex->arena, 20);
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    if (!digits || !f) {
        exchange_fail(ex, 503, "out of memory");
        return false;
    }
    *f = (struct weir_pair){WEIR_STR("Retry-After"), weir_str(digits, weir_u64_text(digits, (wait_us + 999999) / 1000000))};
    exchange_text(ex, 429, f, 1, "this client asks too often");
    return false;
}

/* ---- what answers say ---- */

size_t guards_headers(const struct exchange *ex, struct weir_pair *fields, size_t count, size_t room)
{
    const struct weir_conf_site *site = ex->site ? ex->site->conf : NULL;
    const struct weir_conf_guards *g = ex->route ? &ex->route->conf->guards : site ? &site->routes[site->route_count - 1].guards : NULL;
    for (size_t i = 0; g && i < g->header_count; i++) {
        size_t kept = 0;
        for (size_t k = 0; k < count; k++)
            if (!weir_str_ieq(fields[k].name, g->headers[i].name)) fields[kept++] = fields[k];
        count = kept;
        if (g->headers[i].value.ptr && count < room) fields[count++] = g->headers[i];
    }
    return count;
}

/* ---- explained ---- */

static void trace_address(struct exchange *ex, bool passed)
{
    const struct weir_conf_guards *g = &ex->route->conf->guards;
    char text[INET6_ADDRSTRLEN + 8];
    struct sockaddr_storage s;
    if (!g->allow.count && !g->deny.count) return;
    guards_socket(ex, &s);
    weir_address_text(&s, text, sizeof text);
    trace_guard(ex->trace, passed, g->allow.count ? "allow" : "deny", "%s %s", text, passed ? "may ask" : g->allow.count ? "is not allowed, or denied" : "is denied");
}

/* What is not known without a client is supposed to be good. */
static enum guard_state trace_others(struct exchange *ex)
{
    const struct weir_conf_guards *g = &ex->route->conf->guards;
    if (g->limit)
        trace_guard(ex->trace, true, "limit requests", "%u of one client at once, and one each %.3f s on the long run; what it asked before is not known here: the rest supposes that this is not too much",
                    g->limit->burst, (double)g->limit->interval_us / 1000000);
    if (g->auth)
        trace_guard(ex->trace, !g->auth->broken, "auth basic", "%s: %s", g->auth->file, g->auth->broken ? g->auth->broken : "a name and its password; the rest supposes that they are right");
    if (!g->auth || !g->auth->broken) return GUARD_PASSED;
    exchange_fail(ex, 500, g->auth->broken);
    return GUARD_ANSWERED;
}

/* ---- all of them ---- */

enum guard_state guards_enter(struct exchange *ex)
{
    bool passes = address_passes(ex, ex->route);
    if (ex->trace) trace_address(ex, passes);
    if (!passes) {
        exchange_fail(ex, 403, "this address may not ask for it");
        return GUARD_ANSWERED;
    }
    if (ex->trace) return trace_others(ex);
    if (!limit_passes(ex, ex->route)) return GUARD_ANSWERED;
    return auth_enter(ex);
}

bool guards_other(const struct exchange *ex, const struct route *other)
{
    const struct route *r = ex->route;
    if (other == r) return false;
    if (other->authorizer && other->authorizer != r->authorizer) return true;
    const struct weir_conf_auth *auth = other->conf->guards.auth;
    const struct weir_conf_auth *passed = ex->trace ? r->conf->guards.auth : ex->auth; /* who explains supposes the right ones */
    if (auth && !(passed && passed->users == auth->users)) return true;
    return !address_passes(ex, other);
}

bool guards_cross(struct exchange *ex, const struct route *other)
{
    if (!guards_other(ex, other)) return limit_passes(ex, other);
    exchange_fail(ex, 403, "another route decides about this file");
    return false;
}

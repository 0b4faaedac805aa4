/* SPDX-License-Identifier: MIT */
/* What is no mistake, but hardly what was meant: pools that nobody uses, listeners on which nothing answers, PHP without a root. */

#include "config/internal.h"

static void use(bool *used, int pool)
{
    if (pool >= 0) used[pool] = true;
}

static void mark_pools(const struct weir_config *c, bool *used)
{
    for (size_t i = 0; i < c->site_count; i++)
        for (size_t k = 0; k < c->sites[i].route_count; k++) {
            const struct weir_conf_route *r = &c->sites[i].routes[k];
            use(used, r->pool);
            use(used, r->authorizer);
            use(used, r->filter);
        }
    for (size_t i = 0; i < c->listener_count; i++) use(used, c->listeners[i].pool);
    for (size_t i = 0; i < c->pool_count; i++) used[i] |= c->pools[i].listen != NULL || c->pools[i].publish != NULL;
}

static void unused_pools(const struct weir_config *c, struct weir_config_report *r, struct weir_arena *a)
{
    bool *used = weir_arena_alloc(a, c->pool_count + 1);
    if (!used) return;
    memset(used, 0, c->pool_count + 1);
    mark_pools(c, used);
    for (size_t i = 0; i < c->pool_count; i++)
        if (!used[i] && !c->pools[i].same)
            config_say_at(r, WEIR_CONFIG_WARNING, &c->pools[i].place, "name it in a site or route, publish it, or remove it", "nobody uses the pool %.64s: it runs, and gets no request", c->pools[i].name);
}

static bool answers(const struct weir_config *c, int listener)
{
    if (c->listeners[listener].pool >= 0) return true;
    for (size_t i = 0; i < c->site_count; i++)
        for (size_t k = 0; k < c->sites[i].listener_count; k++)
            if (c->sites[i].listeners[k] == listener) return true;
    return false;
}

static void silent_listeners(const struct weir_config *c, struct weir_config_report *r)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (!answers(c, (int)i))
            config_say_at(r, WEIR_CONFIG_WARNING, &c->listeners[i].place, "write listen NAME in a site, or remove it", "nothing answers on %.100s: no site listens there", c->listeners[i].address.text);
}

/* Its scripts are looked for below the root, and there is none. */
static void php_without_root(const struct weir_config *c, struct weir_config_report *r)
{
    for (size_t i = 0; i < c->site_count; i++)
        for (size_t k = 0; k < c->sites[i].route_count && !c->sites[i].same; k++) {
            const struct weir_conf_route *o = &c->sites[i].routes[k];
            if (o->action == WEIR_ACTION_PHP && !o->root)
                config_say_at(r, WEIR_CONFIG_WARNING, &o->place, "write root DIR here or in the site", "php has no root: every request is answered 404");
        }
}

void config_lint(const struct weir_config *c, struct weir_config_report *r)
{
    struct weir_arena a;
    weir_arena_init(&a, 0);
    unused_pools(c, r, &a);
    silent_listeners(c, r);
    php_without_root(c, r);
    weir_arena_fini(&a);
}

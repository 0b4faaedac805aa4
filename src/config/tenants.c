/* SPDX-License-Identifier: MIT */
/* Files that belong to one user each (`tenants GLOB`): what they define is his, and what could reach beyond him is not for them. */
#include <stdio.h>
#include <string.h>

#include "config/internal.h"

bool config_tenant_of(const char *path, char *user, size_t len)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    size_t n = dot && strcmp(dot, ".conf") == 0 ? (size_t)(dot - name) : strlen(name);
    if (n == 0 || n >= len || name[0] == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') || (name[i] >= '0' && name[i] <= '9') || strchr("-_", name[i])))
            return false;
    memcpy(user, name, n);
    user[n] = 0;
    return true;
}

/* USER, or USER-anything. */
static bool is_his(struct weir_str name, const char *user)
{
    size_t n = strlen(user);
    return weir_str_prefix(name, weir_cstr(user)) && (name.len == n || name.ptr[n] == '-');
}

/* Is there a file of another user whose name stands longer at its beginning? bob-x's pools are not bob's. */
static bool is_others(const struct parser *p, struct weir_str name, const char *user)
{
    char other[CONFIG_TENANT_MAX];
    for (size_t i = 1; i < p->sources->count; i++)
        if (config_tenant_of(p->sources->list[i].name, other, sizeof other) && strlen(other) > strlen(user) && is_his(name, other)) return true;
    return false;
}

static void not_for_tenants(struct parser *p, struct node *n, const char *advice)
{
    config_say(p->report, WEIR_CONFIG_ERROR, n, 0, advice, "\"%.64s\" is not for a tenant's file", n->words[0].text.ptr);
    n->used = true;
}

static void check_pool(struct parser *p, struct node *pool, const char *user)
{
    static const struct {
        const char *name, *advice;
    } denied[] = {{"user", "it is the file's own"}, {"group", "it is the user's own"}, {"connect", "a tenant's pools run their own processes"},
                  {"publish", "write it in the main file"}, {"listen", "write it in the main file"},
                  {"watch", "folders that are watched are few, and for all"}, {"log-rate", "defaults pool of the main file tells it"}};
    if (pool->count > 1 && is_others(p, pool->words[1].text, user))
        config_say(p->report, WEIR_CONFIG_ERROR, pool, 1, "choose another name", "the pool \"%.64s\" has another tenant's name", pool->words[1].text.ptr);
    if (pool->count > 1 && !is_his(pool->words[1].text, user)) {
        char advice[128];
        snprintf(advice, sizeof advice, "name it %s, or %s-something", user, user);
        config_say(p->report, WEIR_CONFIG_ERROR, pool, 1, advice, "the pool \"%.64s\" is not %s's", pool->words[1].text.ptr, user);
    }
    for (struct node *n = pool->children; n; n = n->next) {
        for (size_t i = 0; i < WEIR_COUNT(denied); i++)
            if (!n->used && node_is(n, denied[i].name)) not_for_tenants(p, n, denied[i].advice);
    }
}

/* Of a site and of its routes. */
static void check_site(struct parser *p, struct node *block, const char *user)
{
    for (struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        if (node_is(n, "route")) check_site(p, n, user);
        else if (node_is(n, "listen")) not_for_tenants(p, n, "defaults site of the main file tells where");
        else if (node_is(n, "suspended") && n->count > 1 && config_names_file(n, 1)) not_for_tenants(p, n, "write a text: a file would be read with other rights than his");
        else if (node_is(n, "app-root")) not_for_tenants(p, n, "root is what his app sees");
        else if (node_is(n, "tls")) not_for_tenants(p, n, "the file would be opened with other rights than his: name it in the main file");
        else if ((node_is(n, "php") || node_is(n, "pool")) && n->count > 1 && !is_his(n->words[1].text, user)) {
            config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "name one of this file", "the pool \"%.64s\" is not %s's", n->words[1].text.ptr, user);
            n->used = true;
        }
    }
}

void config_check_tenant(struct parser *p, struct node *first, const struct weir_config_source *s)
{
    char user[CONFIG_TENANT_MAX];
    if (!config_tenant_of(s->name, user, sizeof user)) {
        config_say_at(p->report, WEIR_CONFIG_ERROR, &(struct weir_config_place){s->name, 1, 1}, "name it USER.conf", "the name of a tenant's file tells whose it is");
        for (struct node *n = first; n; n = n->next) n->used = true;
        return;
    }
    const char *kept = config_keep(p, weir_cstr(user));
    for (struct node *n = first; n; n = n->next) {
        if (n->used) continue;
        n->tenant = kept;
        if (node_is(n, "pool")) check_pool(p, n, user);
        else if (node_is(n, "site")) check_site(p, n, user);
        else not_for_tenants(p, n, "write it in the main file");
    }
}

void config_tenant_pool(struct parser *p, const struct node *pool)
{
    const struct node *all = p->pool[LAYER_DEFAULTS];
    if (!pool->tenant || !all) return;
    for (struct node *n = pool->children; n; n = n->next)
        for (const struct node *k = all->children; k && !n->used; k = k->next)
            if (node_is(n, "php-admin-value") && node_is(k, "php-admin-value") && weir_str_eq(n->words[1].text, k->words[1].text))
                not_for_tenants(p, n, "defaults pool of the main file sets it for all");
}

void config_tenant_root(struct parser *p, const struct node *n, const char *root)
{
    struct weir_str home = p->vars.home;
    if (!p->tenant || !root) return;
    bool inside = home.len > 1 && weir_str_prefix(weir_cstr(root), home) && (root[home.len] == '/' || root[home.len] == 0);
    if (inside) return;
    char advice[CONFIG_TENANT_MAX + 64];
    snprintf(advice, sizeof advice, home.len > 1 ? "name a folder below ~/" : "there is no user %s, or no home", p->tenant);
    config_say(p->report, WEIR_CONFIG_ERROR, n, 1, advice, "the root %.200s does not lie in the home of %s", root, p->tenant);
}

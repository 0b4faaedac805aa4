/* SPDX-License-Identifier: MIT */
/* The tree -> the snapshot: layers, exclusive groups, references. No file is touched. Defaults are here and in the manual,
 * each with its limit. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/internal.h"

struct parser {
    const struct weir_config_sources *sources;
    struct weir_config *c;
    struct weir_config_report *report;
    struct weir_arena tree;
    struct node *first, **last; /* all statements of all sources */
    struct node *default_site, *default_pool;
    size_t listener_cap;
    const char *const *own_listeners;
};

/* ---- helpers ---- */

static void *alloc(struct parser *p, size_t n)
{
    void *m = weir_arena_alloc(&p->c->arena, n ? n : 1);
    if (m) memset(m, 0, n);
    return m;
}

static const char *keep(struct parser *p, struct weir_str s)
{
    return weir_arena_str(&p->c->arena, s).ptr;
}

static struct weir_config_place place(const struct node *n)
{
    return (struct weir_config_place){n->source->name, n->words[0].line, n->words[0].column};
}

static bool is(const struct node *n, const char *name)
{
    return weir_str_eq(n->words[0].text, weir_cstr(name));
}

static void bad(struct parser *p, const struct node *n, size_t word, const char *what, const char *advice)
{
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "\"%.64s\" %s", n->words[word].text.ptr, what);
}

/* An absolute path; relative ones stand in their file's folder. */
static const char *path(struct parser *p, const struct node *n, size_t word)
{
    struct weir_str s = n->words[word].text;
    if (s.len && s.ptr[0] == '/') return keep(p, s);
    while (s.len > 2 && s.ptr[0] == '.' && s.ptr[1] == '/') s = weir_str(s.ptr + 2, s.len - 2);
    if (weir_str_eq(s, WEIR_STR("."))) return keep(p, weir_cstr(n->source->dir));
    size_t dir = strlen(n->source->dir);
    char *to = weir_arena_bytes(&p->c->arena, dir + s.len + 2);
    if (!to) return "/";
    memcpy(to, n->source->dir, dir);
    to[dir] = '/';
    memcpy(to + dir + 1, s.ptr, s.len);
    to[dir + 1 + s.len] = 0;
    return to;
}

static void get_count(struct parser *p, const struct node *n, size_t word, uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t v;
    char what[64];
    if (weir_str_u64(n->words[word].text, max, &v) == WEIR_OK && v >= min) {
        *out = (uint32_t)v;
        return;
    }
    snprintf(what, sizeof what, "is no count from %u to %u", min, max);
    bad(p, n, word, what, "write digits only");
}

static void get_time(struct parser *p, const struct node *n, size_t word, bool none, uint32_t *out)
{
    if (config_time(n->words[word].text, out, none) < 0)
        bad(p, n, word, "is no time", none ? "write digits and a unit: 500ms, 30s, 5m, 1h; or none" : "write digits and a unit: 500ms, 30s, 5m, 1h");
}

static void get_size(struct parser *p, const struct node *n, size_t word, uint64_t *out)
{
    if (config_size(n->words[word].text, out) < 0) bad(p, n, word, "is no size", "write digits and a unit: 512K, 64M, 2G");
}

static void get_flag(struct parser *p, const struct node *n, size_t word, bool *out)
{
    struct weir_str s = n->words[word].text;
    if (weir_str_eq(s, WEIR_STR("yes")) || weir_str_eq(s, WEIR_STR("on"))) *out = true;
    else if (weir_str_eq(s, WEIR_STR("no")) || weir_str_eq(s, WEIR_STR("off"))) *out = false;
    else bad(p, n, word, "is neither yes nor no", "write yes or no");
}

/* NAME VALUE into a map; an equal name is replaced. */
static void set_pair(struct parser *p, struct weir_pair **list, size_t *count, struct weir_str name, struct weir_str value)
{
    struct weir_pair *have = *list;
    for (size_t i = 0; i < *count; i++) {
        if (!weir_str_eq(have[i].name, name)) continue;
        struct weir_pair *copy = alloc(p, *count * sizeof *copy);
        if (!copy) return;
        memcpy(copy, have, *count * sizeof *copy);
        copy[i].value = value;
        *list = copy;
        return;
    }
    struct weir_pair *grown = alloc(p, (*count + 1) * sizeof *grown);
    if (!grown) return;
    if (*count) memcpy(grown, have, *count * sizeof *grown);
    grown[(*count)++] = (struct weir_pair){name, value};
    *list = grown;
}

static const char **words_from(struct parser *p, const struct node *n, size_t first)
{
    const char **list = alloc(p, (n->count - first + 1) * sizeof *list);
    for (size_t i = first; list && i < n->count; i++) list[i - first] = keep(p, n->words[i].text);
    return list;
}

/* Exclusive settings of one block: the second one is an error. */
static bool claim(struct parser *p, const struct node **holder, const struct node *n)
{
    char advice[128];
    if (*holder && !(is(*holder, "connect") && is(n, "connect"))) {
        snprintf(advice, sizeof advice, "it excludes \"%s\" in line %u; keep one", (*holder)->words[0].text.ptr,
                 (*holder)->words[0].line);
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, advice, "\"%s\" cannot stand here, too", n->words[0].text.ptr);
        return false;
    }
    *holder = n;
    return true;
}

/* ---- time blocks ---- */

struct times {
    uint32_t *request, *silent, *slow, *head, *body, *idle, *send;
};

static void read_times(struct parser *p, const struct node *block, const struct times *t)
{
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        uint32_t *to = is(n, "request") ? t->request : is(n, "silent") ? t->silent : is(n, "slow") ? t->slow
                       : is(n, "head")  ? t->head    : is(n, "body")   ? t->body   : is(n, "idle") ? t->idle
                                                                                                  : t->send;
        if (to) get_time(p, n, 1, is(n, "request") || is(n, "silent") || is(n, "slow"), to);
        else config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write it in the site or the route", "\"%s\" has no meaning for a pool", n->words[0].text.ptr);
    }
}

/* ---- pools ---- */

static void pool_defaults(struct weir_conf_pool *o)
{
    o->processes = 1;
    o->workers = o->workers_min = 4;
    o->queue_count = 1000;
    o->queue_ms = 30000;
    o->silent_ms = 60000;
    o->slow_ms = 5000;
    o->drain_ms = 30000;
    o->keep = true;
}

static bool valid_address(struct weir_str s)
{
    if (weir_str_prefix(s, WEIR_STR("unix:/"))) return s.len < 108 + 5;
    if (!weir_str_prefix(s, WEIR_STR("fastcgi://"))) return false;
    s = weir_str(s.ptr + 10, s.len - 10);
    size_t colon = s.len;
    uint64_t port;
    while (colon > 0 && s.ptr[colon - 1] != ':') colon--;
    return colon > 1 && weir_str_u64(weir_str(s.ptr + colon, s.len - colon), 65535, &port) == WEIR_OK && port > 0;
}

static bool is_numeric_host(struct weir_str s)
{
    for (size_t i = 10; i < s.len; i++)
        if (!((s.ptr[i] >= '0' && s.ptr[i] <= '9') || strchr(".:[]abcdefABCDEF", s.ptr[i]))) return false;
    return true;
}

static void read_connect(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    struct weir_conf_endpoint *list = alloc(p, (o->endpoint_count + 1) * sizeof *list);
    if (!list) return;
    if (o->endpoint_count) memcpy(list, o->endpoints, o->endpoint_count * sizeof *list);
    struct weir_conf_endpoint *e = &list[o->endpoint_count];
    *e = (struct weir_conf_endpoint){.address = keep(p, n->words[1].text), .workers = 4, .requests = 1};
    struct weir_str a = n->words[1].text;
    if (weir_str_prefix(a, WEIR_STR("fastcgis://")))
        config_say(p->report, WEIR_CONFIG_LATER, n, 1, "use fastcgi:// or unix: for now", "fastcgis: not in this version");
    else if (weir_str_prefix(a, WEIR_STR("fastcgi://")) && valid_address(a) && !is_numeric_host(a))
        config_say(p->report, WEIR_CONFIG_LATER, n, 1, "write its IP address", "host names: not in this version");
    else if (!valid_address(a)) bad(p, n, 1, "is no address", "write unix:/path or fastcgi://ADDRESS:port");
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used) continue;
        if (is(k, "workers")) get_count(p, k, 1, 1, 65535, &e->workers);
        else if (is(k, "requests")) get_count(p, k, 1, 1, 65535, &e->requests);
        else if (is(k, "flow-control")) get_flag(p, k, 1, &e->flow);
    }
    o->endpoints = list;
    o->endpoint_count++;
}

static void read_workers(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    struct weir_str s = n->words[1].text;
    uint64_t a, b;
    const char *dots = s.len > 2 ? memmem(s.ptr, s.len, "..", 2) : NULL;
    if (!dots) {
        get_count(p, n, 1, 1, 10000, &o->workers);
        o->workers_min = o->workers;
        return;
    }
    size_t at = (size_t)(dots - s.ptr);
    if (weir_str_u64(weir_str(s.ptr, at), 10000, &a) < 0 || weir_str_u64(weir_str(s.ptr + at + 2, s.len - at - 2), 10000, &b) < 0 ||
        a > b || b == 0) {
        bad(p, n, 1, "is no range of workers", "write 4, or 0..8");
        return;
    }
    config_say(p->report, WEIR_CONFIG_LATER, n, 1, "write one number for now", "a range of workers: not in this version");
    o->workers_min = (uint32_t)a;
    o->workers = (uint32_t)b;
}

static void read_run(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    o->kind = WEIR_POOL_RUN;
    o->argv = words_from(p, n, 1);
    o->argc = n->count - 1;
    if (o->argv) o->argv[0] = path(p, n, 1);
}

static bool env_name(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (i && c >= '0' && c <= '9'))) return false;
    }
    return s.len > 0;
}

static void pool_setting(struct parser *p, struct weir_conf_pool *o, const struct node *n, const struct node **what)
{
    if (is(n, "run")) {
        if (claim(p, what, n)) read_run(p, o, n);
    } else if (is(n, "php")) {
        if (!claim(p, what, n)) return;
        o->kind = WEIR_POOL_PHP;
        o->php_version = n->count > 1 ? keep(p, n->words[1].text) : NULL;
        for (const char *c = o->php_version; c && *c; c++)
            if (!((*c >= '0' && *c <= '9') || *c == '.')) {
                bad(p, n, 1, "is no PHP version", "write php 8.2, or php alone");
                break;
            }
    } else if (is(n, "connect")) {
        if (!claim(p, what, n)) return;
        o->kind = WEIR_POOL_CONNECT;
        read_connect(p, o, n);
    } else if (is(n, "user")) {
        o->user = keep(p, n->words[1].text);
    } else if (is(n, "group")) {
        o->group = keep(p, n->words[1].text);
    } else if (is(n, "processes")) {
        get_count(p, n, 1, 1, 1000, &o->processes);
    } else if (is(n, "workers")) {
        read_workers(p, o, n);
    } else if (is(n, "requests-per-process")) {
        get_count(p, n, 1, 1, 65535, &o->requests_per_process);
    } else if (is(n, "queue")) {
        get_count(p, n, 1, 0, 1000000, &o->queue_count);
        if (n->count > 2) get_time(p, n, 2, false, &o->queue_ms);
    } else if (is(n, "env")) {
        if (env_name(n->words[1].text))
            set_pair(p, &o->env, &o->env_count, weir_cstr(keep(p, n->words[1].text)), weir_cstr(keep(p, n->words[2].text)));
        else bad(p, n, 1, "is no name of a variable", "use letters, digits and _");
    } else if (is(n, "time")) {
        struct times t = {.request = &o->request_ms, .silent = &o->silent_ms, .slow = &o->slow_ms};
        read_times(p, n, &t);
    } else if (is(n, "drain")) {
        get_time(p, n, 1, false, &o->drain_ms);
    } else if (is(n, "keep")) {
        o->keep_told = true;
        o->keep = true;
        if (n->count > 1) get_flag(p, n, 1, &o->keep);
    } else if (is(n, "multiplex")) {
        get_flag(p, n, 1, &o->multiplex_plain);
    }
}

static void pool_layer(struct parser *p, struct weir_conf_pool *o, const struct node *block, const struct node **what)
{
    for (const struct node *n = block ? block->children : NULL; n; n = n->next)
        if (!n->used) pool_setting(p, o, n, what);
}

static bool valid_name(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (i && strchr("-_.", c)))) return false;
    }
    return s.len > 0 && s.len <= 64;
}

static void twice(struct parser *p, const struct node *n, size_t word, const struct weir_config_place *first)
{
    char advice[300];
    snprintf(advice, sizeof advice, "it was defined in %.200s:%u:%u; choose another name", first->file, first->line, first->column);
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "\"%.64s\" is defined twice", n->words[word].text.ptr);
}

static void read_pool(struct parser *p, const struct node *n)
{
    struct weir_config *c = p->c;
    struct weir_conf_pool *o = &c->pools[c->pool_count];
    const struct node *what = NULL, *inherited = NULL;
    if (!valid_name(n->words[1].text)) {
        bad(p, n, 1, "is no name for a pool", "use letters, digits, - _ and .");
        return;
    }
    for (size_t i = 0; i < c->pool_count; i++)
        if (weir_str_eq(n->words[1].text, weir_cstr(c->pools[i].name))) {
            twice(p, n, 1, &c->pools[i].place);
            return;
        }
    pool_defaults(o);
    o->name = keep(p, n->words[1].text);
    o->dir = keep(p, weir_cstr(n->source->dir));
    o->place = place(n);
    pool_layer(p, o, p->default_pool, &inherited);
    pool_layer(p, o, n, &what);
    if (what && inherited && !is(what, "connect")) { /* the block's own one replaces an inherited one */
        o->endpoints = NULL;
        o->endpoint_count = 0;
    }
    if (!what && !inherited) {
        bool later = false;
        for (const struct node *k = n->children; k && !later; k = k->next)
            later = k->used && (is(k, "cgi") || is(k, "use"));
        if (!later)
            config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write run PROGRAM, php, or connect ADDRESS", "the pool has nothing to run");
    }
    if (o->kind == WEIR_POOL_CONNECT && !o->keep_told) o->keep = false; /* who owns the workers decides otherwise */
    for (size_t i = 0; i < o->endpoint_count; i++) o->endpoints[i].keep = o->keep || o->endpoints[i].flow;
    c->pool_count++;
}

/* ---- listeners ---- */

static int find_listener(const struct weir_config *c, const char *text)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (strcmp(c->listeners[i].address.text, text) == 0) return (int)i;
    return -1;
}

/* One address: its listener's index, or -1. */
static int add_address(struct parser *p, const struct node *n, size_t word, const char *name)
{
    struct weir_config *c = p->c;
    struct weir_str s = n->words[word].text;
    int have = find_listener(c, s.ptr);
    if (have >= 0) return have;
    static const struct {
        const char *prefix;
        enum weir_conf_scheme scheme;
    } schemes[] = {{"http://", WEIR_SCHEME_HTTP}, {"https://", WEIR_SCHEME_HTTPS}, {"fastcgi://", WEIR_SCHEME_FASTCGI},
                   {"fastcgis://", WEIR_SCHEME_FASTCGIS}, {"fastcgi+unix:", WEIR_SCHEME_FASTCGI}};
    size_t i = 0;
    while (i < WEIR_COUNT(schemes) && !weir_str_prefix(s, weir_cstr(schemes[i].prefix))) i++;
    if (i == WEIR_COUNT(schemes)) {
        bad(p, n, word, "is no address to listen on", "write http://*:8080 or http://127.0.0.1:8080");
        return -1;
    }
    if (i != 0) {
        config_say(p->report, WEIR_CONFIG_LATER, n, word, "use http:// for now", "%.*s: not in this version",
                   (int)strcspn(schemes[i].prefix, ":"), schemes[i].prefix);
        return -1;
    }
    struct weir_str socket = weir_str(s.ptr + 7, s.len - 7);
    size_t colon = socket.len;
    uint64_t port;
    while (colon > 0 && socket.ptr[colon - 1] != ':') colon--;
    if (colon < 2 || weir_str_u64(weir_str(socket.ptr + colon, socket.len - colon), 65535, &port) < 0) {
        bad(p, n, word, "is no address to listen on", "write host and port, such as http://*:8080");
        return -1;
    }
    if (c->listener_count >= p->listener_cap) return -1;
    c->listeners[c->listener_count] = (struct weir_conf_listener){
        .name = name ? name : keep(p, s),
        .address = {.scheme = WEIR_SCHEME_HTTP, .text = keep(p, s), .socket = keep(p, socket)}, .place = place(n)};
    return (int)c->listener_count++;
}

static void read_listener(struct parser *p, const struct node *n)
{
    const char *name = keep(p, n->words[1].text);
    for (const struct node *k = n->children; k; k = k->next)
        if (!k->used && is(k, "address"))
            for (size_t i = 1; i < k->count; i++) add_address(p, k, i, name);
}

/* ---- sites and routes ---- */

static void route_defaults(struct weir_conf_route *r)
{
    static const char *index[] = {"index.php", "index.html"};
    r->pool = -1;
    r->action = WEIR_ACTION_FILES;
    r->index = index;
    r->index_count = 2;
    r->body_max = 64u << 20;
    r->header_ms = 15000;
    r->body_ms = 60000;
    r->idle_ms = 75000;
    r->send_ms = 60000;
    r->silent_ms = UINT32_MAX; /* the pool's */
    r->request_ms = UINT32_MAX;
    r->slow_ms = UINT32_MAX;
    r->stream_response = true;
    r->log = true;
}

static int pool_index(struct parser *p, const struct node *n, size_t word)
{
    struct weir_config *c = p->c;
    for (size_t i = 0; i < c->pool_count; i++)
        if (weir_str_eq(n->words[word].text, weir_cstr(c->pools[i].name))) return (int)i;
    const char *names[256], *near;
    size_t count = 0;
    for (; count < c->pool_count && count < WEIR_COUNT(names); count++) names[count] = c->pools[count].name;
    near = config_nearest(n->words[word].text, names, count);
    char advice[160];
    snprintf(advice, sizeof advice, near ? "did you mean \"%.64s\"?" : "define it: pool %.64s { ... }", near ? near : n->words[word].text.ptr);
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "no pool is named \"%.64s\"", n->words[word].text.ptr);
    return -1;
}

static void read_redirect(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    size_t at = 1;
    uint32_t status = 302;
    if (n->count > 2) {
        get_count(p, n, 1, 301, 308, &status);
        at = 2;
    }
    struct weir_str to = n->words[at].text;
    if (!weir_str_prefix(to, WEIR_STR("http://")) && !weir_str_prefix(to, WEIR_STR("https://")) && (to.len == 0 || to.ptr[0] != '/'))
        bad(p, n, at, "is no target for a redirect", "write a URL, or a path that begins with /");
    r->action = WEIR_ACTION_REDIRECT;
    r->redirect = keep(p, to);
    r->redirect_status = (int)status;
}

static void read_php(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    r->action = WEIR_ACTION_PHP;
    r->pool = pool_index(p, n, 1);
    r->only = NULL;
    r->only_count = 0;
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !is(k, "only")) continue;
        r->only = words_from(p, k, 1);
        r->only_count = k->count - 1;
        for (size_t i = 1; i < k->count; i++)
            if (k->words[i].text.len == 0 || k->words[i].text.ptr[0] != '/')
                bad(p, k, i, "is no script", "write its path from the root: /index.php");
    }
}

static void route_setting(struct parser *p, struct weir_conf_route *r, const struct node *n, const struct node **action)
{
    if (is(n, "root")) {
        r->root = path(p, n, 1);
    } else if (is(n, "app-root")) {
        r->app_root = keep(p, n->words[1].text);
    } else if (is(n, "index")) {
        r->index = words_from(p, n, 1);
        r->index_count = n->count - 1;
    } else if (is(n, "php")) {
        if (claim(p, action, n)) read_php(p, r, n);
    } else if (is(n, "pool")) {
        if (!claim(p, action, n)) return;
        r->action = WEIR_ACTION_POOL;
        r->pool = pool_index(p, n, 1);
    } else if (is(n, "files")) {
        if (claim(p, action, n)) r->action = WEIR_ACTION_FILES;
    } else if (is(n, "deny")) {
        if (claim(p, action, n)) r->action = WEIR_ACTION_DENY;
    } else if (is(n, "redirect")) {
        if (claim(p, action, n)) read_redirect(p, r, n);
    } else if (is(n, "param")) {
        struct weir_str value = n->count > 2 ? weir_cstr(keep(p, n->words[2].text)) : weir_str(NULL, 0);
        if (env_name(n->words[1].text)) set_pair(p, &r->params, &r->param_count, weir_cstr(keep(p, n->words[1].text)), value);
        else bad(p, n, 1, "is no name of a parameter", "use letters, digits and _");
    } else if (is(n, "log")) {
        get_flag(p, n, 1, &r->log);
    } else if (is(n, "queue")) {
        get_time(p, n, 1, false, &r->queue_ms);
    } else if (is(n, "time")) {
        struct times t = {&r->request_ms, &r->silent_ms, &r->slow_ms, &r->header_ms, &r->body_ms, &r->idle_ms, &r->send_ms};
        read_times(p, n, &t);
    } else if (is(n, "body")) {
        if (n->count > 1) get_size(p, n, 1, &r->body_max);
        for (const struct node *k = n->children; k; k = k->next) {
            if (k->used) continue;
            if (is(k, "max")) get_size(p, k, 1, &r->body_max);
            else if (is(k, "stream")) get_flag(p, k, 1, &r->stream_request);
        }
    }
}

static void finish_route(struct parser *p, struct weir_conf_route *r)
{
    const struct weir_conf_pool *pool = r->pool >= 0 ? &p->c->pools[r->pool] : NULL;
    if (r->silent_ms == UINT32_MAX) r->silent_ms = pool ? pool->silent_ms : 0;
    if (r->request_ms == UINT32_MAX) r->request_ms = pool ? pool->request_ms : 0;
    if (r->slow_ms == UINT32_MAX) r->slow_ms = pool ? pool->slow_ms : 0;
}

static void read_pattern(struct parser *p, const struct node *n, size_t word, struct weir_conf_pattern *out)
{
    struct weir_str s = n->words[word].text;
    if (weir_str_prefix(s, WEIR_STR("*.")) && s.len > 2) {
        out->match = WEIR_MATCH_SUFFIX;
        out->text = weir_cstr(keep(p, weir_str(s.ptr + 1, s.len - 1)));
        return;
    }
    if (s.len == 0 || s.ptr[0] != '/') bad(p, n, word, "is no pattern of a route", "write /folder/, /path, or *.ending");
    out->match = s.len && s.ptr[s.len - 1] == '/' ? WEIR_MATCH_PREFIX : WEIR_MATCH_EXACT;
    out->text = weir_cstr(keep(p, s));
}

static bool covers(const struct weir_conf_pattern *a, const struct weir_conf_pattern *b)
{
    if (a->match == b->match && weir_str_eq(a->text, b->text)) return true;
    return a->match == WEIR_MATCH_PREFIX && b->match != WEIR_MATCH_SUFFIX && weir_str_prefix(b->text, a->text);
}

static void check_reachable(struct parser *p, const struct weir_conf_site *s, size_t count, const struct node *n)
{
    const struct weir_conf_route *r = &s->routes[count];
    for (size_t i = 0; i < r->pattern_count; i++)
        for (size_t k = 0; k < count; k++)
            for (size_t m = 0; m < s->routes[k].pattern_count; m++)
                if (covers(&s->routes[k].patterns[m], &r->patterns[i])) {
                    char advice[128];
                    snprintf(advice, sizeof advice, "the route in line %u takes it first; put this one before it", s->routes[k].place.line);
                    config_say(p->report, WEIR_CONFIG_WARNING, n, i + 1, advice, "\"%.64s\" is never reached", r->patterns[i].text.ptr);
                    return;
                }
}

static void read_route(struct parser *p, struct weir_conf_site *s, const struct weir_conf_route *own, const struct node *n)
{
    struct weir_conf_route *r = &s->routes[s->route_count];
    const struct node *action = NULL;
    *r = *own;
    r->place = place(n);
    r->pattern_count = n->count - 1;
    r->patterns = alloc(p, r->pattern_count * sizeof *r->patterns);
    if (!r->patterns) return;
    for (size_t i = 1; i < n->count; i++) read_pattern(p, n, i, &r->patterns[i - 1]);
    for (const struct node *k = n->children; k; k = k->next)
        if (!k->used) route_setting(p, r, k, &action);
    if (action && !is(action, "php")) r->only_count = 0;
    check_reachable(p, s, s->route_count, n);
    s->route_count++;
}

static void site_listens(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    struct weir_config *c = p->c;
    int *list = alloc(p, (c->listener_count + n->count + p->listener_cap) * sizeof *list);
    size_t count = 0;
    if (!list) return;
    for (size_t i = 1; i < n->count; i++) {
        bool named = false;
        for (size_t k = 0; k < c->listener_count; k++) {
            if (!weir_str_eq(n->words[i].text, weir_cstr(c->listeners[k].name)) || memchr(n->words[i].text.ptr, '/', n->words[i].text.len))
                continue;
            list[count++] = (int)k;
            named = true;
        }
        if (named) continue;
        if (!memchr(n->words[i].text.ptr, ':', n->words[i].text.len)) {
            for (size_t k = 0; p->own_listeners && p->own_listeners[k]; k++)
                if (weir_str_eq(n->words[i].text, weir_cstr(p->own_listeners[k]))) named = true; /* all its addresses come later */
            if (!named)
                bad(p, n, i, "is no listener", "define it: listener NAME { address http://*:80 }, or write http://*:80");
            continue;
        }
        int index = add_address(p, n, i, NULL);
        if (index >= 0) list[count++] = index;
    }
    s->listeners = list;
    s->listener_count = count;
}

static bool valid_host(struct weir_str s)
{
    if (weir_str_eq(s, WEIR_STR("*"))) return true;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._:[]", c))) return false;
    }
    return s.len > 0;
}

static void site_names(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    struct weir_config *c = p->c;
    s->names = words_from(p, n, 1);
    s->name_count = s->names ? n->count - 1 : 0;
    for (size_t i = 0; i < s->name_count; i++) {
        char *name = weir_arena_bytes(&c->arena, n->words[i + 1].text.len + 1);
        if (!name) return;
        for (size_t k = 0; k <= n->words[i + 1].text.len; k++) {
            char ch = n->words[i + 1].text.ptr[k];
            name[k] = (char)(ch >= 'A' && ch <= 'Z' ? ch + 32 : ch);
        }
        s->names[i] = name;
        if (!valid_host(n->words[i + 1].text)) bad(p, n, i + 1, "is no host name", "write www.example.org, or * for all");
        for (size_t k = 0; k < c->site_count; k++)
            for (size_t m = 0; m < c->sites[k].name_count; m++)
                if (strcmp(c->sites[k].names[m], s->names[i]) == 0) twice(p, n, i + 1, &c->sites[k].place);
    }
}

static void site_layer(struct parser *p, struct weir_conf_site *s, struct weir_conf_route *own, const struct node *block,
                       const struct node **action, const struct node **listens)
{
    for (const struct node *k = block ? block->children : NULL; k; k = k->next) {
        if (k->used || is(k, "route")) continue;
        if (is(k, "listen")) *listens = k;
        else if (is(k, "debug")) get_flag(p, k, 1, &s->debug);
        else route_setting(p, own, k, action);
    }
}

static bool later_in(const struct node *block, const char *name)
{
    for (const struct node *k = block ? block->children : NULL; k; k = k->next)
        if (k->used && is(k, name)) return true;
    return false;
}

static void read_site(struct parser *p, const struct node *n)
{
    struct weir_config *c = p->c;
    struct weir_conf_site *s = &c->sites[c->site_count];
    struct weir_conf_route own = {0};
    const struct node *action = NULL, *inherited = NULL, *listens = NULL;
    size_t routes = 1;
    s->place = place(n);
    site_names(p, s, n);
    route_defaults(&own);
    own.place = s->place;
    site_layer(p, s, &own, p->default_site, &inherited, &listens);
    site_layer(p, s, &own, n, &action, &listens);
    if (listens) site_listens(p, s, listens);
    else if (!later_in(n, "use") && !later_in(p->default_site, "use"))
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write listen http://*:8080", "the site listens nowhere");
    for (const struct node *k = n->children; k; k = k->next) routes += is(k, "route");
    s->routes = alloc(p, routes * sizeof *s->routes);
    if (!s->routes) return;
    finish_route(p, &own);
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !is(k, "route")) continue;
        struct weir_conf_route start = own;
        start.silent_ms = start.request_ms = start.slow_ms = UINT32_MAX;
        for (const struct node *t = n->children; t; t = t->next) /* the site's own times, if it has some */
            if (!t->used && is(t, "time")) {
                struct times times = {&start.request_ms, &start.silent_ms, &start.slow_ms, &start.header_ms, &start.body_ms,
                                      &start.idle_ms, &start.send_ms};
                read_times(p, t, &times);
            }
        read_route(p, s, &start, k);
        finish_route(p, &s->routes[s->route_count - 1]);
    }
    s->routes[s->route_count++] = own;
    c->site_count++;
}

/* ---- the program ---- */

static void program_defaults(struct weir_config *c)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    c->user = "weir";
    c->gateway_user = "weir-gw";
    c->log_path = "-";
    c->temp_bytes = UINT64_C(20) << 30;
    c->memory_bytes = 256u << 20;
    c->threads = cpus > 0 && cpus < 64 ? (uint32_t)cpus : 1;
    c->connections = 16384;
}

static void read_weir(struct parser *p, const struct node *block)
{
    struct weir_config *c = p->c;
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        if (is(n, "user")) {
            c->user = keep(p, n->words[1].text);
            if (n->count > 2) c->gateway_user = keep(p, n->words[2].text);
        } else if (is(n, "threads")) {
            get_count(p, n, 1, 1, 64, &c->threads);
        } else if (is(n, "connections")) {
            get_count(p, n, 1, 1, 1000000, &c->connections);
        } else if (is(n, "control")) {
            c->control_path = path(p, n, 1);
        } else if (is(n, "log")) {
            struct weir_str s = n->words[1].text;
            c->log_path = weir_str_eq(s, WEIR_STR("off")) || weir_str_eq(s, WEIR_STR("-")) ? keep(p, s) : path(p, n, 1);
            if (n->count > 2 && !weir_str_eq(n->words[2].text, WEIR_STR("combined")))
                config_say(p->report, WEIR_CONFIG_LATER, n, 2, "use combined for now", "log formats: not in this version");
        } else if (is(n, "temp")) {
            c->temp_dir = path(p, n, 1);
            if (n->count > 2) get_size(p, n, 2, &c->temp_bytes);
        }
    }
}

/* ---- all of it ---- */

static void add_source(struct parser *p, size_t index, unsigned depth);

static void include(struct parser *p, const struct node *n, unsigned depth)
{
    bool any = false;
    const char *pattern = path(p, n, 1);
    for (size_t i = 1; i < p->sources->count; i++) {
        if (fnmatch(pattern, p->sources->list[i].name, FNM_PATHNAME) != 0) continue;
        any = true;
        add_source(p, i, depth + 1);
    }
    if (!any && !strpbrk(n->words[1].text.ptr, "*?["))
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "check its path", "the file \"%.200s\" cannot be read", n->words[1].text.ptr);
}

static void add_source(struct parser *p, size_t index, unsigned depth)
{
    struct node *tree = config_tree(&p->sources->list[index], &p->tree, p->report);
    config_check_names(tree, BLOCK_TOP, p->report);
    for (struct node *n = tree, *next; n; n = next) {
        next = n->next;
        if (n->used) continue;
        if (is(n, "include")) {
            if (depth == 0) include(p, n, depth);
            else config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write it in the main file", "an included file cannot include");
            continue;
        }
        n->next = NULL;
        *p->last = n;
        p->last = &n->next;
    }
}

static void gather_defaults(struct parser *p)
{
    for (struct node *n = p->first; n; n = n->next) {
        if (!is(n, "defaults")) continue;
        bool pool = weir_str_eq(n->words[1].text, WEIR_STR("pool"));
        struct node **to = pool ? &p->default_pool : &p->default_site;
        if (*to) {
            struct weir_config_place first = place(*to);
            twice(p, n, 1, &first);
        } else {
            *to = n;
        }
    }
}

static bool allocate(struct parser *p)
{
    size_t sites = 0, pools = 0, addresses = 0;
    for (const struct node *n = p->first; n; n = n->next) {
        sites += is(n, "site");
        pools += is(n, "pool");
        for (const struct node *k = n->children; k; k = k->next)
            if (is(k, "listen") || is(k, "address")) addresses += k->count;
    }
    p->listener_cap = addresses + 1;
    p->c->sites = alloc(p, (sites + 1) * sizeof *p->c->sites);
    p->c->pools = alloc(p, (pools + 1) * sizeof *p->c->pools);
    p->c->listeners = alloc(p, p->listener_cap * sizeof *p->c->listeners);
    return p->c->sites && p->c->pools && p->c->listeners;
}

static void read_all(struct parser *p)
{
    const struct node *weir = NULL;
    size_t listeners = 0;
    for (const struct node *n = p->first; n; n = n->next) listeners += is(n, "listener");
    const char **names = alloc(p, (listeners + 1) * sizeof *names);
    if (!names) return;
    listeners = 0;
    for (const struct node *n = p->first; n; n = n->next) {
        if (is(n, "weir")) {
            if (weir) {
                struct weir_config_place first = place(weir);
                twice(p, n, 0, &first);
            }
            weir = n;
            read_weir(p, n);
        } else if (is(n, "listener")) {
            names[listeners++] = keep(p, n->words[1].text);
            read_listener(p, n);
        } else if (is(n, "pool")) {
            read_pool(p, n);
        }
    }
    p->own_listeners = names;
    for (const struct node *n = p->first; n; n = n->next)
        if (is(n, "site")) read_site(p, n);
}

static void free_config(struct weir_config *c)
{
    weir_arena_fini(&c->arena);
    free(c);
}

int weir_config_parse(const struct weir_config_sources *s, struct weir_config **out, struct weir_config_report *report)
{
    struct parser p = {.sources = s, .report = report, .last = NULL};
    p.last = &p.first;
    size_t errors = report->errors;
    p.c = calloc(1, sizeof *p.c);
    if (!p.c) return WEIR_NOMEM;
    p.c->refs = 1;
    program_defaults(p.c);
    if (s->count) add_source(&p, 0, 0);
    bool fine = allocate(&p);
    if (fine) {
        gather_defaults(&p);
        read_all(&p);
    }
    /* places name files: they must outlive the tree and the sources */
    for (size_t i = 0; fine && i < p.c->pool_count; i++) p.c->pools[i].place.file = keep(&p, weir_cstr(p.c->pools[i].place.file));
    for (size_t i = 0; fine && i < p.c->site_count; i++) p.c->sites[i].place.file = keep(&p, weir_cstr(p.c->sites[i].place.file));
    for (size_t i = 0; fine && i < p.c->listener_count; i++)
        p.c->listeners[i].place.file = keep(&p, weir_cstr(p.c->listeners[i].place.file));
    weir_arena_fini(&p.tree);
    if (!fine || report->errors > errors) {
        free_config(p.c);
        return fine ? WEIR_INVALID : WEIR_NOMEM;
    }
    *out = p.c;
    return WEIR_OK;
}

struct weir_config *weir_config_hold(struct weir_config *c)
{
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void weir_config_drop(struct weir_config *c)
{
    if (c && __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) == 0) free_config(c);
}

void weir_config_report_init(struct weir_config_report *r)
{
    *r = (struct weir_config_report){0};
    weir_arena_init(&r->arena, 4u << 20);
}

void weir_config_report_fini(struct weir_config_report *r)
{
    weir_arena_fini(&r->arena);
}

void weir_config_report_print(const struct weir_config_report *r, FILE *to)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct weir_config_message *m = &r->list[i];
        fprintf(to, "weir: %s:%u:%u: %s%s%s%s\n", m->file, m->line, m->column,
                m->level == WEIR_CONFIG_WARNING ? "warning: " : "", m->text, m->advice[0] ? ": " : "", m->advice);
    }
    if (r->errors + r->later > MAX_MESSAGES) fprintf(to, "weir: and more of them\n");
}

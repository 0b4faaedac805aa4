/* SPDX-License-Identifier: MIT */
/* Sites and their routes. Layers: built in, defaults, the site; a route starts from its site. */
#include <stdio.h>

#include "config/internal.h"

/* ---- sites and routes ---- */

static void route_start(struct weir_conf_route *r)
{
    *r = (struct weir_conf_route){.pool = -1, .authorizer = -1, .filter = -1, .action = WEIR_ACTION_FILES, .retry = WEIR_RETRY_UNSET};
    config_route_start(r);
    r->silent_ms = r->request_ms = r->slow_ms = UINT32_MAX; /* the pool's */
}

/* A pool that may stand in a file of which nothing can be used: whoever asks is told so, and no other site suffers. */
static int missing_pool(struct parser *p, const struct node *n, size_t word)
{
    struct weir_config *c = p->c;
    struct weir_conf_pool *o = &c->pools[c->pool_count];
    *o = (struct weir_conf_pool){.name = config_keep(p, n->words[word].text), .kind = WEIR_POOL_RUN, .dir = "/", .queue_ms = 30000,
                                 .place = config_place(p, n), .broken = "the file that defines it has mistakes"};
    config_say(p->report, WEIR_CONFIG_WARNING, n, word, "it is answered 503", "no pool is named \"%.64s\"", n->words[word].text.ptr);
    config_remember(p, &p->pool_names, o->name, n, word, c->pool_count);
    return (int)c->pool_count++;
}

static int pool_index(struct parser *p, const struct node *n, size_t word)
{
    struct weir_config *c = p->c;
    const struct named *have = config_named(&p->pool_names, n->words[word].text);
    if (have && p->tenant && (!have->at->tenant || strcmp(have->at->tenant, p->tenant) != 0)) {
        config_say(p->report, WEIR_CONFIG_ERROR, n, word, "name one of this file", "the pool \"%.64s\" is not %s's", n->words[word].text.ptr, p->tenant);
        return -1;
    }
    if (have && c->pools[have->index].listen) /* who of its processes is busy with other web servers' requests is not known */
        config_say(p->report, WEIR_CONFIG_ERROR, n, word, "use a listener and publish, or a pool of its own", "the pool \"%.64s\" shares its socket with other web servers (listen)",
                   n->words[word].text.ptr);
    if (have) return (int)have->index;
    if (p->any_lost && c->pool_count < p->pool_cap) return missing_pool(p, n, word);
    const char *names[256], *near;
    size_t count = 0;
    for (; count < c->pool_count && count < WEIR_COUNT(names); count++) names[count] = c->pools[count].name;
    near = config_nearest(n->words[word].text, names, count);
    char advice[160];
    snprintf(advice, sizeof advice, near ? "did you mean \"%.64s\"?" : "define it: pool %.64s { ... }", near ? near : n->words[word].text.ptr);
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "no pool is named \"%.64s\"", n->words[word].text.ptr);
    return -1;
}

/* A pool of another role than responder. */
static int role_pool(struct parser *p, const struct node *n)
{
    int index = pool_index(p, n, 1);
    const struct weir_conf_pool *o = index >= 0 ? &p->c->pools[index] : NULL;
    bool script = n->count > 2;
    if (o && o->kind == WEIR_POOL_PHP && node_is(n, "filter"))
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "name a pool that runs a filter", "the pool \"%.64s\" runs PHP, which reads no DATA", o->name);
    else if (o && o->kind == WEIR_POOL_PHP && !script)
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "name it behind the pool: authorizer POOL /path/check.php", "the pool \"%.64s\" runs PHP, and no script decides", o->name);
    if (!o || o->kind != WEIR_POOL_CGI) return index;
    config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "name a pool that runs FastCGI programs", "the pool \"%.64s\" runs CGI programs: those know no roles", o->name);
    return -1;
}

static void read_php(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    r->action = WEIR_ACTION_PHP;
    r->pool = pool_index(p, n, 1);
    r->only = NULL;
    r->only_count = 0;
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !node_is(k, "only")) continue;
        config_words(p, k, 1, &r->only, &r->only_count);
        for (size_t i = 1; i < k->count; i++)
            if (k->words[i].text.len == 0 || k->words[i].text.ptr[0] != '/')
                config_bad(p, k, i, "is no script", "write its path from the root: /index.php");
    }
}

static void read_stream(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    r->stream_unknown = weir_str_eq(n->words[1].text, WEIR_STR("always"));
    if (r->stream_unknown) r->stream_request = true;
    else config_get_flag(p, n, 1, &r->stream_request);
}

static void route_setting(struct parser *p, struct weir_conf_route *r, const struct node *n, const struct node **action)
{
    if (config_read_guard(p, &r->guards, n)) return;
    if (node_is(n, "root")) {
        r->root = config_path(p, n, 1);
        config_tenant_root(p, n, r->root);
    } else if (node_is(n, "app-root")) {
        r->app_root = config_text(p, n, 1).ptr;
    } else if (node_is(n, "index")) {
        config_words(p, n, 1, &r->index, &r->index_count);
        config_check_index(p, n);
    } else if (node_is(n, "php")) {
        if (config_claim(p, action, n)) read_php(p, r, n);
    } else if (node_is(n, "pool")) {
        if (!config_claim(p, action, n)) return;
        r->action = WEIR_ACTION_POOL;
        r->pool = pool_index(p, n, 1);
    } else if (node_is(n, "files")) {
        if (!config_claim(p, action, n)) return;
        config_read_files(p, r, n);
    } else if (node_is(n, "filter")) {
        if (!config_claim(p, action, n)) return;
        r->action = WEIR_ACTION_FILES;
        r->filter = role_pool(p, n);
    } else if (node_is(n, "authorizer")) {
        bool none = config_word_is(n, 1, "no");
        r->authorizer = none ? -1 : role_pool(p, n);
        r->authorizer_script = n->count > 2 ? config_path(p, n, 2) : NULL;
    } else if (node_is(n, "deny")) {
        if (config_claim(p, action, n)) r->action = WEIR_ACTION_DENY;
    } else if (node_is(n, "redirect")) {
        if (config_claim(p, action, n)) config_read_redirect(p, r, n);
    } else if (node_is(n, "param")) {
        struct weir_str value = n->count > 2 ? config_text(p, n, 2) : weir_str(NULL, 0);
        if (config_env_name(n->words[1].text)) config_set_pair(p, &r->params, &r->param_count, weir_cstr(config_keep(p, n->words[1].text)), value);
        else config_bad(p, n, 1, "is no name of a parameter", "use letters, digits and _");
    } else if (node_is(n, "log")) {
        config_get_flag(p, n, 1, &r->log);
    } else if (node_is(n, "request-id")) {
        for (const struct node *k = n->children; k; k = k->next)
            if (!k->used) config_get_flag(p, k, 1, node_is(k, "from-client") ? &r->id_from_client : &r->id_to_client);
    } else if (node_is(n, "queue")) {
        config_get_time(p, n, 1, false, &r->queue_ms);
    } else if (node_is(n, "retry")) {
        config_get_retry(p, n, &r->retry);
    } else if (node_is(n, "time")) {
        struct config_times t = {&r->request_ms, &r->silent_ms, &r->slow_ms, &r->header_ms, &r->body_ms, &r->idle_ms, &r->send_ms};
        config_times(p, n, &t);
    } else if (node_is(n, "body")) {
        if (n->count > 1) config_get_size(p, n, 1, &r->body_max);
        for (const struct node *k = n->children; k; k = k->next) {
            if (k->used) continue;
            if (node_is(k, "max")) config_get_size(p, k, 1, &r->body_max);
            else if (node_is(k, "stream")) read_stream(p, r, k);
        }
    } else {
        config_route_setting(p, r, n);
    }
}

static void finish_route(struct parser *p, struct weir_conf_route *r)
{
    if (r->action != WEIR_ACTION_FILES) r->filter = -1;
    int asked = r->filter >= 0 ? r->filter : r->pool;
    struct weir_conf_pool *pool = asked >= 0 ? &p->c->pools[asked] : NULL;
    bool php = r->action == WEIR_ACTION_PHP || (pool && pool->kind == WEIR_POOL_PHP);
    if (php && r->stream_unknown)
        config_say_at(p->report, WEIR_CONFIG_ERROR, &r->place, "write stream yes: PHP reads no further than CONTENT_LENGTH", "a body of unknown length cannot stream to PHP");
    if (r->silent_ms == UINT32_MAX) r->silent_ms = pool ? pool->silent_ms : 0;
    if (r->request_ms == UINT32_MAX) r->request_ms = pool ? pool->request_ms : 0;
    if (pool && (!r->request_ms || (pool->longest_ms && r->request_ms > pool->longest_ms))) pool->longest_ms = r->request_ms;
    if (r->slow_ms == UINT32_MAX) r->slow_ms = pool ? pool->slow_ms : 0;
    if (r->retry == WEIR_RETRY_UNSET) r->retry = pool ? pool->retry : WEIR_RETRY_CONNECT;
}

static bool has(const struct node *block, const char *name)
{
    for (const struct node *k = block ? block->children : NULL; k; k = k->next)
        if (node_is(k, name)) return true;
    return false;
}

static void read_pattern(struct parser *p, const struct node *n, size_t word, struct weir_conf_pattern *out)
{
    struct weir_str s = n->words[word].text;
    if (weir_str_prefix(s, WEIR_STR("*.")) && s.len > 2) {
        out->match = WEIR_MATCH_SUFFIX;
        out->text = weir_cstr(config_keep(p, weir_str(s.ptr + 1, s.len - 1)));
        return;
    }
    if (s.len == 0 || s.ptr[0] != '/') config_bad(p, n, word, "is no pattern of a route", "write /folder/, /path, or *.ending");
    out->match = s.len && s.ptr[s.len - 1] == '/' ? WEIR_MATCH_PREFIX : WEIR_MATCH_EXACT;
    out->text = weir_cstr(config_keep(p, s));
}

static bool covers(const struct weir_conf_pattern *a, const struct weir_conf_pattern *b)
{
    if (a->match == b->match && weir_str_eq(a->text, b->text)) return true;
    return a->match == WEIR_MATCH_PREFIX && b->match != WEIR_MATCH_SUFFIX && weir_str_prefix(b->text, a->text);
}

/* Does a take every method that b takes? */
static bool takes_all(const struct weir_conf_route *a, const struct weir_conf_route *b)
{
    if (b->method_count == 0) return a->method_count == 0;
    for (size_t i = 0; i < b->method_count; i++)
        if (!weir_conf_route_takes(a, weir_cstr(b->methods[i]))) return false;
    return true;
}

static void check_reachable(struct parser *p, const struct weir_conf_site *s, size_t count, const struct node *n)
{
    const struct weir_conf_route *r = &s->routes[count];
    for (size_t i = 0; i < r->pattern_count; i++)
        for (size_t k = 0; k < count; k++)
            for (size_t m = 0; m < s->routes[k].pattern_count; m++)
                if (covers(&s->routes[k].patterns[m], &r->patterns[i]) && takes_all(&s->routes[k], r)) {
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
    r->place = config_place(p, n);
    r->pattern_count = config_route_patterns(n);
    r->patterns = config_alloc(p, r->pattern_count * sizeof *r->patterns);
    if (!r->patterns) return;
    for (size_t i = 1; i <= r->pattern_count; i++) read_pattern(p, n, i, &r->patterns[i - 1]);
    config_route_methods(p, r, n);
    for (const struct node *k = n->children; k; k = k->next)
        if (!k->used) route_setting(p, r, k, &action);
    if (action && !node_is(action, "php")) r->only_count = 0;
    if (action && !has(n, "try")) r->try_count = 0; /* what the site tries leads to what the site does */
    config_check_route(p, r, n);
    check_reachable(p, s, s->route_count, n);
    s->route_count++;
}

static bool is_listener(const struct weir_conf_listener *l, struct weir_str word)
{
    return weir_str_eq(word, weir_cstr(l->name)) && !memchr(word.ptr, '/', word.len);
}

static void site_listens(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    struct weir_config *c = p->c;
    size_t most = s->listener_count + n->count;
    for (size_t i = 1; i < n->count; i++)
        for (size_t k = 0; k < c->listener_count; k++) most += is_listener(&c->listeners[k], n->words[i].text);
    int *list = config_alloc(p, most * sizeof *list);
    size_t count = 0;
    if (!list) return;
    for (size_t i = 1 + config_appends(n); i < n->count; i++) {
        bool named = false;
        for (size_t k = 0; k < c->listener_count; k++) {
            if (!is_listener(&c->listeners[k], n->words[i].text)) continue;
            if (!config_is_http(&c->listeners[k]) && !named)
                config_bad(p, n, i, "is a listener for FastCGI", "a pool takes it: publish NAME; a site needs http://");
            list[count++] = (int)k;
            named = true;
        }
        if (named) continue;
        if (!memchr(n->words[i].text.ptr, ':', n->words[i].text.len)) {
            if (!config_is_listener(p, n->words[i].text)) /* else all its addresses come later */
                config_bad(p, n, i, "is no listener", "define it: listener NAME { address http://*:80 }, or write http://*:80");
            continue;
        }
        int index = config_add_address(p, n, i, NULL);
        if (index >= 0) list[count++] = index;
    }
    if (config_appends(n)) {
        memmove(list + s->listener_count, list, count * sizeof *list);
        if (s->listener_count) memcpy(list, s->listeners, s->listener_count * sizeof *list);
        count += s->listener_count;
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

/* One name of a site, in lower case; two sites cannot have it. */
static void add_name(struct parser *p, struct weir_conf_site *s, const struct node *n, size_t word, struct weir_str text)
{
    char *name = weir_arena_bytes(&p->c->arena, text.len + 1);
    if (!name) return;
    for (size_t k = 0; k < text.len; k++) name[k] = (char)(text.ptr[k] >= 'A' && text.ptr[k] <= 'Z' ? text.ptr[k] + 32 : text.ptr[k]);
    name[text.len] = 0;
    s->names[s->name_count++] = name;
    const struct named *first = config_named(&p->host_names, weir_cstr(name));
    if (first && first->index < p->c->site_count) config_taken(p, n, word, first);
    if (!first) config_remember(p, &p->host_names, name, n, word, p->c->site_count);
}

static void site_names(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    s->names = config_alloc(p, 2 * n->count * sizeof *s->names);
    if (!s->names) return;
    for (size_t i = 1; i < n->count; i++) {
        struct weir_str text = n->words[i].text;
        bool wild = config_wildcard(text);
        if (!valid_host(wild ? weir_str(text.ptr + 2, text.len - 2) : text) || (wild && memchr(text.ptr + 1, '*', text.len - 1)))
            config_bad(p, n, i, "is no host name", "write www.example.org, *.example.org, or * for all");
        if (wild && text.ptr[0] == '.') { /* itself, and all below it */
            char *below = weir_arena_bytes(&p->c->arena, text.len + 2);
            if (!below) return;
            below[0] = '*';
            memcpy(below + 1, text.ptr, text.len + 1);
            add_name(p, s, n, i, weir_str(text.ptr + 1, text.len - 1));
            text = weir_str(below, text.len + 1);
        }
        add_name(p, s, n, i, text);
    }
}

bool config_names_file(const struct node *n, size_t word)
{
    struct weir_str s = n->words[word].text;
    return weir_str_prefix(s, WEIR_STR("/")) || weir_str_prefix(s, WEIR_STR("./")) || weir_str_prefix(s, WEIR_STR("../")) || weir_str_prefix(s, WEIR_STR("~/"));
}

static void read_page(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    const char *path = config_path(p, n, 1);
    const struct weir_config_source *page = config_find_beside(p->sources, PAGE_SOURCE, path);
    s->suspended_page = true;
    if (page)
        s->suspended = weir_arena_str(&p->c->arena, weir_str(page->text, page->len));
    else
        config_say(p->report, WEIR_CONFIG_WARNING, n, 1, "the site is suspended all the same, with a page of Weir's own",
                   "the page \"%.200s\" cannot be read, or is larger than %d KiB", path, WEIR_CONFIG_PAGE_MAX / 1024);
}

static void read_suspended(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    bool no = config_word_is(n, 1, "no");
    s->is_suspended = !no; /* no: although the defaults say so */
    s->suspended_page = false;
    s->suspended = (struct weir_str){0};
    if (no) return;
    if (config_names_file(n, 1)) read_page(p, s, n);
    else s->suspended = config_text(p, n, 1);
    if (s->suspended.len > WEIR_CONFIG_PAGE_MAX) config_bad(p, n, 1, "is too long for a text", "write it into a file, at most 32 KiB");
}

/* The same files are one key, whoever names them. */
static int key_index(struct parser *p, const struct node *n, enum weir_conf_key_kind kind, const char *path, const char *key)
{
    struct weir_config *c = p->c;
    uint64_t hash = weir_hash(weir_cstr(path));
    for (size_t i = 0; i < c->key_count; i++) {
        const struct weir_conf_key *k = &c->keys[i];
        if (k->hash == hash && k->kind == kind && strcmp(k->path, path) == 0 && (k->key ? key && strcmp(k->key, key) == 0 : !key)) return (int)i;
    }
    if (c->key_count >= p->key_cap) return -1;
    c->keys[c->key_count] = (struct weir_conf_key){.kind = kind, .path = path, .key = key, .hash = hash, .place = config_place(p, n)};
    return (int)c->key_count++;
}

static void read_tls(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    s->clients = -1;
    s->tls = key_index(p, n, WEIR_KEY_PAIR, config_path(p, n, 1), n->count > 2 ? config_path(p, n, 2) : NULL);
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !node_is(k, "clients")) continue;
        bool optional = k->count > 2 && weir_str_eq(k->words[2].text, WEIR_STR("optional"));
        if (k->count > 2 && !optional) config_bad(p, k, 2, "is not known here", "write clients FILE, or clients FILE optional");
        s->clients = key_index(p, k, WEIR_KEY_CLIENTS, config_path(p, k, 1), NULL);
        s->clients_required = !optional;
    }
}

/* The port of its first https:// listener; 0: it has none. */
static uint16_t https_port(const struct weir_config *c, const struct weir_conf_site *s)
{
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct weir_conf_address *a = &c->listeners[s->listeners[i]].address;
        uint64_t port;
        if (a->scheme == WEIR_SCHEME_HTTPS && weir_str_u64(weir_cstr(strrchr(a->socket, ':') + 1), 65535, &port) == WEIR_OK) return (uint16_t)port;
    }
    return 0;
}

/* Certificates of a site without one of its own: NAME.pem and NAME.key in the folder of a listener of it. */
static void find_certificates(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    const char *folder = NULL;
    for (size_t i = 0; i < s->listener_count && !folder; i++) folder = p->c->listeners[s->listeners[i]].certificates;
    if (!folder || s->tls >= 0) return;
    s->name_tls = config_alloc(p, s->name_count * sizeof *s->name_tls);
    for (size_t i = 0; s->name_tls && i < s->name_count; i++) {
        char path[4096];
        bool any = strcmp(s->names[i], "*") == 0;
        int len = any ? -1 : snprintf(path, sizeof path, "%s/%s", folder, s->names[i]);
        s->name_tls[i] = len < 0 || len >= (int)sizeof path ? -1 : key_index(p, n, WEIR_KEY_PAIR, config_keep(p, weir_str(path, (size_t)len)), NULL);
    }
}

/* A site with a certificate and no https:// listener, or the reverse. */
static void check_tls(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    uint16_t https = https_port(p->c, s);
    s->https_port = (s->tls >= 0 || s->name_tls) && !s->clear_text ? https : 0;
    if (https && s->tls < 0 && !s->name_tls)
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write tls DIR (fullchain.pem and privkey.pem in it), or tls CERTIFICATE KEY", "this site listens on https:// and has no certificate");
    if (!https && s->tls >= 0) config_say(p->report, WEIR_CONFIG_WARNING, n, 0, "write listen https://*:443", "the site has a certificate, and no https:// listener uses it");
}

static void read_https(struct parser *p, struct weir_conf_site *s, const struct node *n)
{
    bool alone = true;
    config_get_flag(p, n, 1, &alone);
    s->clear_text = !alone;
}

static void site_layer(struct parser *p, struct weir_conf_site *s, struct weir_conf_route *own, const struct node *block,
                       const struct node **action)
{
    for (const struct node *k = block ? block->children : NULL; k; k = k->next) {
        if (k->used || node_is(k, "route")) continue;
        if (node_is(k, "listen")) site_listens(p, s, k);
        else if (node_is(k, "suspended")) read_suspended(p, s, k);
        else if (node_is(k, "tls")) read_tls(p, s, k);
        else if (node_is(k, "https")) read_https(p, s, k);
        else if (node_is(k, "debug")) config_get_flag(p, k, 1, &s->debug);
        else route_setting(p, own, k, action);
    }
}

void config_site_vars(struct parser *p, const struct node *n)
{
    memset(&p->vars, 0, sizeof p->vars);
    p->vars.name = n->words[1].text;
    p->tenant = n->tenant;
    if (!n->tenant) return;
    p->vars.user = weir_cstr(n->tenant);
    config_set_home(p);
}

/* The times that are the pool's unless the site tells its own. */
static void site_times(struct parser *p, const struct node *block, struct weir_conf_route *r)
{
    for (const struct node *t = block ? block->children : NULL; t; t = t->next) {
        if (t->used || !node_is(t, "time")) continue;
        struct config_times times = {&r->request_ms, &r->silent_ms, &r->slow_ms, &r->header_ms, &r->body_ms, &r->idle_ms, &r->send_ms};
        config_times(p, t, &times);
    }
}

void config_read_site(struct parser *p, const struct node *n)
{
    struct weir_config *c = p->c;
    struct weir_conf_site *s = &c->sites[c->site_count];
    struct weir_conf_route own;
    const struct node *action = NULL, *inherited = NULL;
    size_t routes = 1;
    config_site_vars(p, n);
    s->place = config_place(p, n);
    s->tls = s->clients = -1;
    s->same = n->source->same && !p->all_new;
    site_names(p, s, n);
    route_start(&own);
    own.place = s->place;
    for (int i = 0; i < LAYERS; i++) site_layer(p, s, &own, p->site[i], &inherited);
    site_layer(p, s, &own, n, &action);
    if (action && !has(n, "try")) own.try_count = 0;
    config_check_route(p, &own, n);
    if (!has(n, "listen") && !s->listener_count && !has(p->site[LAYER_DEFAULTS], "listen") && !has(n, "use") && !has(p->site[LAYER_DEFAULTS], "use"))
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write listen http://*:8080", "the site listens nowhere");
    find_certificates(p, s, n);
    check_tls(p, s, n);
    for (const struct node *k = n->children; k; k = k->next) routes += node_is(k, "route");
    s->routes = config_alloc(p, routes * sizeof *s->routes);
    if (!s->routes) return;
    struct weir_conf_route start = own; /* its times of the app are its own pool's, or the site's if that tells some */
    start.silent_ms = start.request_ms = start.slow_ms = UINT32_MAX;
    for (int i = 0; i < LAYERS; i++) site_times(p, p->site[i], &start);
    site_times(p, n, &start);
    finish_route(p, &own);
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !node_is(k, "route")) continue;
        size_t before = s->route_count;
        read_route(p, s, &start, k);
        if (s->route_count > before) finish_route(p, &s->routes[before]);
    }
    s->routes[s->route_count++] = own;
    c->site_count++;
}

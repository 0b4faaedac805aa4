/* SPDX-License-Identifier: MIT */
/* Pools: what runs, for whom, how many. Layers: built in, defaults, the block. */
#include <stdio.h>

#include <signal.h>

#include "config/internal.h"

/* N, or A..B: by demand. */
static void read_range(struct parser *p, const struct node *n, uint32_t max, uint32_t *least, uint32_t *most)
{
    struct weir_str s = n->words[1].text;
    uint64_t a, b;
    const char *dots = s.len > 2 ? memmem(s.ptr, s.len, "..", 2) : NULL;
    if (!dots) {
        config_count(p, n, 1, 1, max, most);
        *least = *most;
        return;
    }
    size_t at = (size_t)(dots - s.ptr);
    if (weir_str_u64(weir_str(s.ptr, at), max, &a) < 0 || weir_str_u64(weir_str(s.ptr + at + 2, s.len - at - 2), max, &b) < 0 || a > b || b == 0) {
        config_bad(p, n, 1, "is no number and no range", "write 4, or 0..8");
        return;
    }
    *least = (uint32_t)a;
    *most = (uint32_t)b;
}

static void read_php(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    o->kind = WEIR_POOL_PHP;
    o->php_version = NULL;
    o->php = WEIR_PHP_ANY;
    for (size_t i = 1; i < n->count; i++) {
        struct weir_str s = n->words[i].text;
        bool number = s.len > 0;
        for (size_t k = 0; k < s.len; k++) number = number && ((s.ptr[k] >= '0' && s.ptr[k] <= '9') || s.ptr[k] == '.');
        if (weir_str_eq(s, WEIR_STR("fpm")) && o->php == WEIR_PHP_ANY) o->php = WEIR_PHP_FPM;
        else if (weir_str_eq(s, WEIR_STR("cgi")) && o->php == WEIR_PHP_ANY) o->php = WEIR_PHP_CGI;
        else if (number && !o->php_version) o->php_version = config_keep(p, s);
        else config_bad(p, n, i, "is no PHP version", "write php 8.2, or php alone; fpm or cgi behind it names the program");
    }
}

static void read_signal(struct parser *p, const struct node *n, int *out)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {{"TERM", SIGTERM}, {"QUIT", SIGQUIT}, {"INT", SIGINT}, {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};
    for (size_t i = 0; i < WEIR_COUNT(known); i++)
        if (weir_str_eq(n->words[1].text, weir_cstr(known[i].name))) *out = known[i].number;
    if (!*out) config_bad(p, n, 1, "is no signal for the end", "write TERM, QUIT, INT, HUP, USR1 or USR2");
}

/* Who accepts is the kernel's choice: nobody here knows how many are busy, or whom a request is given to. */
static void check_listen(struct parser *p, const struct weir_conf_pool *o, const struct node *n)
{
    const char *what = o->kind == WEIR_POOL_CONNECT ? "a pool that others own (connect) has no socket of ours"
                       : o->publish ? "publish and listen exclude each other"
                       : o->kind == WEIR_POOL_CGI ? "a cgi pool has no socket that web servers share: publish it"
                       : o->processes_min != o->processes || o->workers_min != o->workers || o->spare ? "processes that share a socket with web servers are a fixed number"
                       : o->ready_path ? "which process answers a request on a shared socket cannot be told: ready accept or notify"
                       : NULL;
    if (o->listen && what) config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "see weir.conf(5), or use a listener and publish", "%s", what);
}

static void read_ready(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    struct weir_str s = n->words[1].text;
    o->ready_path = NULL;
    o->notify = weir_str_eq(s, WEIR_STR("notify"));
    if (s.len && s.ptr[0] == '/') o->ready_path = config_text(p, n, 1).ptr;
    else if (!o->notify && !weir_str_eq(s, WEIR_STR("accept"))) config_bad(p, n, 1, "is no kind of readiness", "write accept, notify, or a path to ask for");
}

static void read_watch(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    size_t first = 1 + config_appends(n), have = config_appends(n) ? o->watch_count : 0;
    const char **all = config_alloc(p, (have + n->count) * sizeof *all);
    if (!all) return;
    if (have) memcpy(all, o->watch, have * sizeof *all);
    for (size_t i = first; i < n->count; i++) all[have++] = config_path(p, n, i);
    o->watch = all;
    o->watch_count = have;
}

static void read_recycle(struct parser *p, struct weir_conf_pool *o, const struct node *block)
{
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        if (node_is(n, "requests")) config_count(p, n, 1, 1, 1000000000, &o->recycle_requests);
        else if (node_is(n, "age")) config_get_time(p, n, 1, true, &o->recycle_ms);
        else config_get_size(p, n, 1, &o->recycle_bytes);
    }
}

/* Names of PHP's settings, and values that end with their line. */
static void read_php_value(struct parser *p, const struct node *n, struct weir_pair **list, size_t *count)
{
    struct weir_str name = n->words[1].text, value = config_text(p, n, 2);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.')) {
            config_bad(p, n, 1, "is no name of a PHP setting", "see php.ini");
            return;
        }
    }
    bool single = value.len && memchr(value.ptr, '\'', value.len) != NULL;
    for (size_t i = 0; single && i < value.len; i++)
        if (strchr("\"\\$", value.ptr[i])) { /* PHP's files can quote it neither way */
            config_bad(p, n, 2, "cannot be written into PHP's configuration", "use only one kind of quotes, and no \\ or $ beside '");
            return;
        }
    config_set_pair(p, list, count, weir_cstr(config_keep(p, name)), value);
}

/* run PROGRAM ARG...; cgi, likewise, or without a program. */
static void read_program(struct parser *p, struct weir_conf_pool *o, const struct node *n, enum weir_conf_pool_kind kind)
{
    o->kind = kind;
    o->argc = 0;
    if (n->count < 2) return;
    config_words(p, n, 1, &o->argv, &o->argc);
    if (o->argc) o->argv[0] = config_path(p, n, 1);
}

static void pool_setting(struct parser *p, struct weir_conf_pool *o, const struct node *n, const struct node **what)
{
    if (config_server_setting(p, o, n)) return;
    if (node_is(n, "run")) {
        if (config_claim(p, what, n)) read_program(p, o, n, WEIR_POOL_RUN);
    } else if (node_is(n, "cgi")) {
        if (config_claim(p, what, n)) read_program(p, o, n, WEIR_POOL_CGI);
    } else if (node_is(n, "php")) {
        if (config_claim(p, what, n)) read_php(p, o, n);
    } else if (node_is(n, "connect")) {
        if (!config_claim(p, what, n)) return;
        o->kind = WEIR_POOL_CONNECT;
        config_read_connect(p, o, n);
    } else if (node_is(n, "user")) {
        o->user = config_text(p, n, 1).ptr;
    } else if (node_is(n, "group")) {
        o->group = config_text(p, n, 1).ptr;
    } else if (node_is(n, "processes")) {
        read_range(p, n, 1000, &o->processes_min, &o->processes);
    } else if (node_is(n, "workers")) {
        read_range(p, n, 1000, &o->workers_min, &o->workers);
    } else if (node_is(n, "spare")) {
        config_count(p, n, 1, 0, 1000, &o->spare);
    } else if (node_is(n, "ready")) {
        read_ready(p, o, n);
    } else if (node_is(n, "recycle")) {
        read_recycle(p, o, n);
    } else if (node_is(n, "php-value")) {
        read_php_value(p, n, &o->php_values, &o->php_value_count);
    } else if (node_is(n, "php-admin-value")) {
        read_php_value(p, n, &o->php_admin_values, &o->php_admin_value_count);
    } else if (node_is(n, "requests-per-process")) {
        config_count(p, n, 1, 1, 65535, &o->requests_per_process);
    } else if (node_is(n, "queue")) {
        config_count(p, n, 1, 0, 1000000, &o->queue_count);
        if (n->count > 2) config_get_time(p, n, 2, false, &o->queue_ms);
    } else if (node_is(n, "env")) {
        if (config_env_name(n->words[1].text))
            config_set_pair(p, &o->env, &o->env_count, weir_cstr(config_keep(p, n->words[1].text)), config_text(p, n, 2));
        else config_bad(p, n, 1, "is no name of a variable", "use letters, digits and _");
        if (o->env_count > WEIR_CONF_ENV_MAX) {
            config_bad(p, n, 1, "is one variable too many", "a pool has at most 1000: let the program read a file");
            o->env_count = WEIR_CONF_ENV_MAX;
        }
    } else if (node_is(n, "time")) {
        struct config_times t = {.request = &o->request_ms, .silent = &o->silent_ms, .slow = &o->slow_ms, .idle = &o->idle_ms, .start = &o->start_ms, .ping = &o->ping_ms};
        config_times(p, n, &t);
    } else if (node_is(n, "log-rate")) {
        config_count(p, n, 1, 0, 1000000, &o->log_rate);
    } else if (node_is(n, "watch")) {
        read_watch(p, o, n);
    } else if (node_is(n, "listen")) {
        config_pool_listen(p, o, n);
    } else if (node_is(n, "stop-signal")) {
        read_signal(p, n, &o->stop_signal);
    } else if (node_is(n, "drain")) {
        config_get_time(p, n, 1, false, &o->drain_ms);
    } else if (node_is(n, "keep")) {
        o->keep_told = true;
        o->keep = true;
        if (n->count > 1) config_get_flag(p, n, 1, &o->keep);
    } else if (node_is(n, "publish")) {
        o->publish = config_keep(p, n->words[1].text);
        o->publish_place = (struct weir_config_place){config_place(p, n).file, n->words[1].line, n->words[1].column};
    } else if (node_is(n, "multiplex")) {
        config_get_flag(p, n, 1, &o->multiplex_plain);
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

/* The value of `user` in a block, NULL: none. */
static const struct node *user_of(const struct node *block)
{
    for (const struct node *n = block ? block->children : NULL; n; n = n->next)
        if (!n->used && node_is(n, "user")) return n;
    return NULL;
}

void config_pool_vars(struct parser *p, const struct node *n)
{
    const struct node *user = user_of(n);
    for (int i = LAYERS - 1; i >= 0 && !user; i--) user = user_of(p->pool[i]);
    memset(&p->vars, 0, sizeof p->vars);
    p->vars.name = n->words[1].text;
    p->tenant = n->tenant;
    if (n->tenant) p->vars.user = weir_cstr(n->tenant);
    else if (user) p->vars.user = config_text(p, user, 1); /* it may hold $name */
    config_set_home(p);
}

void config_set_home(struct parser *p)
{
    size_t at;
    if (p->vars.user.ptr && config_find_home(p->sources, p->vars.user, &at)) p->vars.home = weir_cstr(p->sources->homes[at].home);
}

void config_read_pool(struct parser *p, const struct node *n)
{
    struct weir_config *c = p->c;
    struct weir_conf_pool *o = &c->pools[c->pool_count];
    const struct node *what = NULL, *inherited = NULL;
    if (!valid_name(n->words[1].text)) {
        config_bad(p, n, 1, "is no name for a pool", "use letters, digits, - _ and .");
        return;
    }
    const struct named *first = config_named(&p->pool_names, n->words[1].text);
    if (first) {
        config_taken(p, n, 1, first);
        return;
    }
    config_pool_vars(p, n);
    o->name = config_keep(p, n->words[1].text);
    o->dir = config_keep(p, weir_cstr(n->source->dir));
    o->place = config_place(p, n);
    o->same = n->source->same && !p->all_new;
    o->files = 1024; /* select() in old programs */
    config_tenant_pool(p, n);
    for (int i = 0; i < LAYERS; i++) pool_layer(p, o, p->pool[i], &inherited);
    struct weir_conf_endpoint *below = o->endpoints;
    size_t below_count = o->endpoint_count;
    o->endpoints = NULL;
    o->endpoint_count = 0;
    pool_layer(p, o, n, &what);
    if (n->tenant) {
        o->user = n->tenant;
        o->group = NULL;
    }
    if (!what) { /* its own one replaces an inherited one */
        o->endpoints = below;
        o->endpoint_count = below_count;
    }
    if (!what && !inherited) {
        bool later = false;
        for (const struct node *k = n->children; k && !later; k = k->next)
            later = k->used && node_is(k, "use");
        if (!later)
            config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write run PROGRAM, php, cgi, or connect ADDRESS", "the pool has nothing to run");
    }
    check_listen(p, o, n);
    config_check_servers(p, o, n);
    if (o->kind == WEIR_POOL_CGI && o->notify)
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write ready accept, or ready /PATH", "the programs of a cgi pool run for one request each: none can say that it is ready");
    for (const struct node *k = n->children; k && o->kind == WEIR_POOL_CONNECT; k = k->next)
        if (!k->used && node_is(k, "watch")) config_say(p->report, WEIR_CONFIG_ERROR, k, 0, "remove it", "others restart what \"connect\" names: \"watch\" has no meaning here");
    if (!o->keep_told) o->keep = o->kind != WEIR_POOL_CONNECT; /* who owns the workers decides otherwise */
    for (size_t i = 0; i < o->endpoint_count; i++) o->endpoints[i].keep = o->keep || o->endpoints[i].flow;
    o->longest_ms = o->request_ms;
    config_remember(p, &p->pool_names, o->name, n, 1, c->pool_count++);
}

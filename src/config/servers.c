/* SPDX-License-Identifier: MIT */
/* Servers that others own (connect): their addresses, which of them a request is for, what becomes of one that fails, and what
 * may be sent twice. */
#include <stdio.h>

#include "config/internal.h"

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

void config_read_connect(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    struct weir_conf_endpoint *list = config_alloc(p, (o->endpoint_count + 1) * sizeof *list);
    if (!list) return;
    if (o->endpoint_count) memcpy(list, o->endpoints, o->endpoint_count * sizeof *list);
    struct weir_conf_endpoint *e = &list[o->endpoint_count];
    *e = (struct weir_conf_endpoint){.address = config_text(p, n, 1).ptr, .workers = 4, .requests = 1, .weight = 1};
    struct weir_str a = n->words[1].text;
    if (weir_str_prefix(a, WEIR_STR("fastcgis://")))
        config_say(p->report, WEIR_CONFIG_LATER, n, 1, "use fastcgi:// or unix: for now", "fastcgis: not in this version");
    else if (weir_str_prefix(a, WEIR_STR("fastcgi://")) && valid_address(a) && !is_numeric_host(a))
        config_say(p->report, WEIR_CONFIG_LATER, n, 1, "write its IP address", "host names: not in this version");
    else if (!valid_address(a)) config_bad(p, n, 1, "is no address", "write unix:/path or fastcgi://ADDRESS:port");
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used) continue;
        if (node_is(k, "workers")) config_count(p, k, 1, 1, 65535, &e->workers);
        else if (node_is(k, "requests")) config_count(p, k, 1, 1, 65535, &e->requests);
        else if (node_is(k, "flow-control")) config_get_flag(p, k, 1, &e->flow);
        else if (node_is(k, "weight")) config_count(p, k, 1, 1, 256, &e->weight);
        else if (node_is(k, "backup")) config_get_flag(p, k, 1, &e->backup);
    }
    o->endpoints = list;
    o->endpoint_count++;
}

/* ---- which one a request is for ---- */

/* The parameter in which apps see a header of the request. */
static const char *header_param(struct parser *p, const struct node *n, size_t word)
{
    struct weir_str s = n->words[word].text;
    if (weir_str_ieq(s, WEIR_STR("content-type"))) return "CONTENT_TYPE";
    if (weir_str_ieq(s, WEIR_STR("content-length"))) return "CONTENT_LENGTH";
    char *name = config_alloc(p, s.len + 6);
    if (!name) return "";
    memcpy(name, "HTTP_", 5);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c >= 'a' && c <= 'z') c = (char)(c - 'a' + 'A');
        else if (c == '-') c = '_';
        else if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))) {
            config_bad(p, n, word, "is no name of a header", "use letters, digits and -");
            return "";
        }
        name[5 + i] = c;
    }
    return name;
}

static void read_balance(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    static const struct {
        const char *key, *param;
    } keys[] = {{"uri", "REQUEST_URI"}, {"host", "HTTP_HOST"}, {"client", "REMOTE_ADDR"}};
    bool hash = weir_str_eq(n->words[1].text, WEIR_STR("hash"));
    o->balance = WEIR_BALANCE_LEAST;
    o->balance_key = (struct weir_str){0};
    if (!hash && (!weir_str_eq(n->words[1].text, WEIR_STR("least")) || n->count > 2)) {
        config_bad(p, n, 1, "is no way to choose a server", "write least, or hash with uri, host, client, header NAME or cookie NAME");
        return;
    }
    if (!hash) return;
    o->balance = WEIR_BALANCE_PARAM;
    for (size_t i = 0; n->count == 3 && i < WEIR_COUNT(keys); i++)
        if (weir_str_eq(n->words[2].text, weir_cstr(keys[i].key))) o->balance_key = weir_cstr(keys[i].param);
    if (n->count == 4 && weir_str_eq(n->words[2].text, WEIR_STR("header"))) o->balance_key = weir_cstr(header_param(p, n, 3));
    if (n->count == 4 && weir_str_eq(n->words[2].text, WEIR_STR("cookie"))) {
        o->balance = WEIR_BALANCE_COOKIE;
        o->balance_key = config_text(p, n, 3);
    }
    if (!o->balance_key.ptr) config_bad(p, n, n->count > 2 ? 2 : 1, n->count > 2 ? "is no key" : "needs a key", "write uri, host, client, header NAME or cookie NAME");
}

void config_get_retry(struct parser *p, const struct node *n, enum weir_conf_retry *out)
{
    static const char *const words[] = {[WEIR_RETRY_CONNECT] = "connect", [WEIR_RETRY_SAFE] = "safe", [WEIR_RETRY_NO] = "no"};
    for (unsigned i = 0; i < WEIR_COUNT(words); i++) {
        if (!weir_str_eq(n->words[1].text, weir_cstr(words[i]))) continue;
        *out = (enum weir_conf_retry)i;
        return;
    }
    config_bad(p, n, 1, "is no rule of repetition", "write connect, safe or no");
}

/* ---- what becomes of one that fails ---- */

static void read_check(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    o->check = config_text(p, n, 1).ptr;
    o->check_ms = 5000;
    o->check_fall = 2;
    o->check_rise = 1;
    if (o->check[0] != '/') config_bad(p, n, 1, "is no path", "write what to ask for, such as /ping");
    if (n->count > 2) config_get_time(p, n, 2, false, &o->check_ms);
    if (o->check_ms < 100) config_bad(p, n, 2, "is too often", "write at least 100ms");
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used) continue;
        if (node_is(k, "fall")) config_count(p, k, 1, 1, 100, &o->check_fall);
        else if (node_is(k, "rise")) config_count(p, k, 1, 1, 100, &o->check_rise);
    }
}

/* eject TIME [MOST] | no */
static void read_eject(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    o->eject_ms = 0;
    o->eject_max_ms = 60000;
    if (n->count == 2 && weir_str_eq(n->words[1].text, WEIR_STR("no"))) return;
    config_get_time(p, n, 1, false, &o->eject_ms);
    if (n->count > 2) config_get_time(p, n, 2, false, &o->eject_max_ms);
    else if (o->eject_max_ms < o->eject_ms) o->eject_max_ms = o->eject_ms;
    if (o->eject_max_ms < o->eject_ms) config_bad(p, n, 2, "is shorter than the first time", "write the longest time behind it, as in eject 1s 60s");
}

bool config_server_setting(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    if (node_is(n, "balance")) read_balance(p, o, n);
    else if (node_is(n, "check")) read_check(p, o, n);
    else if (node_is(n, "eject")) read_eject(p, o, n);
    else if (node_is(n, "retry")) config_get_retry(p, n, &o->retry);
    else if (node_is(n, "slow-start")) config_get_time(p, n, 1, true, &o->slow_start_ms);
    else return false;
    return true;
}

void config_check_servers(struct parser *p, struct weir_conf_pool *o, const struct node *pool)
{
    static const char *const only[] = {"balance", "eject", "slow-start"};
    bool primary = false;
    if (o->kind != WEIR_POOL_CONNECT) {
        if (o->check) config_say(p->report, WEIR_CONFIG_ERROR, pool, 0, "write ready /PATH for its start, time { ping TIME } for later", "check is for servers that others own (connect)");
        for (const struct node *k = pool->children; k; k = k->next)
            for (size_t i = 0; i < WEIR_COUNT(only); i++)
                if (!k->used && node_is(k, only[i])) config_say(p->report, WEIR_CONFIG_ERROR, k, 0, "remove it", "\"%s\" is for servers that others own (connect)", only[i]);
        return;
    }
    for (size_t i = 0; i < o->endpoint_count; i++) {
        primary = primary || !o->endpoints[i].backup;
        for (size_t j = 0; j < i; j++)
            if (strcmp(o->endpoints[i].address, o->endpoints[j].address) == 0)
                config_say(p->report, WEIR_CONFIG_ERROR, pool, 0, "name it once, with more workers or a weight", "%s stands twice in the pool", o->endpoints[i].address);
    }
    if (!primary && o->endpoint_count) config_say(p->report, WEIR_CONFIG_ERROR, pool, 0, "leave one of them without backup", "all servers of the pool are backups");
}

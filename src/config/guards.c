/* SPDX-License-Identifier: MIT */
/* Guards: who may ask, how often, whom to believe about who it is. What they mean at run time is the gateway's. */
#include <stdio.h>

#include "config/internal.h"

/* ---- addresses ---- */

/* Words first .. last - 1 are networks, behind those of the list if it is appended to. */
static void read_nets(struct parser *p, struct weir_conf_nets *nets, const struct node *n, size_t first, size_t last)
{
    size_t have = config_appends(n) ? nets->count : 0;
    struct weir_net *list = config_alloc(p, (have + last) * sizeof *list);
    if (!list) return;
    if (have) memcpy(list, nets->list, have * sizeof *list);
    for (size_t i = first + config_appends(n); i < last; i++) {
        if (weir_net_parse(n->words[i].text, &list[have]) == WEIR_OK) have++;
        else config_bad(p, n, i, "is neither an address nor a network", "write 10.0.0.1, 10.0.0.0/24, ::1 or fd00::/8");
    }
    *nets = (struct weir_conf_nets){list, have};
}

static void read_allow(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    if (n->count == 2 && config_word_is(n, 1, "all")) g->allow = (struct weir_conf_nets){0};
    else if (n->count == 2 && config_word_is(n, 1, "none")) config_bad(p, n, 1, "allows nobody", "write deny, without words: every request is answered 403");
    else read_nets(p, &g->allow, n, 1, n->count);
}

static void read_deny(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    if (n->count == 2 && config_word_is(n, 1, "none")) g->deny = (struct weir_conf_nets){0};
    else if (n->count == 2 && config_word_is(n, 1, "all")) config_bad(p, n, 1, "denies everybody", "write deny, without words; or allow ADDRESS, which denies all others");
    else read_nets(p, &g->deny, n, 1, n->count);
}

/* ---- how often ---- */

/* COUNT/s, COUNT/m or COUNT/h: one in so many microseconds. */
static bool read_rate(struct weir_str s, uint32_t *count, uint64_t *interval_us)
{
    static const struct {
        const char *unit;
        uint64_t us;
    } units[] = {{"/s", 1000000}, {"/m", 60000000}, {"/h", UINT64_C(3600000000)}};
    uint64_t v;
    for (size_t i = 0; i < WEIR_COUNT(units); i++) {
        if (!weir_str_suffix(s, weir_cstr(units[i].unit)) || weir_str_u64(weir_str(s.ptr, s.len - 2), 1000000, &v) < 0 || v == 0) continue;
        *count = (uint32_t)v;
        *interval_us = units[i].us / v;
        return *interval_us > 0;
    }
    return false;
}

/* A site's own, also where the defaults say it; so is a route's. */
static uint64_t limit_id(const struct parser *p, const struct node *n)
{
    char text[64];
    snprintf(text, sizeof text, "%u:%u", n->words[0].line, n->words[0].column);
    return weir_hash_u64(weir_hash(p->vars.name) ^ weir_hash_u64(weir_hash(weir_cstr(n->source->name)) ^ weir_hash(weir_cstr(text))));
}

static void read_limit(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    g->limit = NULL;
    if (n->count == 2 && config_word_is(n, 1, "no")) return;
    if (!config_word_is(n, 1, "requests")) {
        config_bad(p, n, 1, "is nothing to limit here", config_word_is(n, 1, "connections") ? "write limit connections in a listener" : "write limit requests 10/s, or limit no");
        return;
    }
    struct weir_conf_limit *l = config_alloc(p, sizeof *l);
    if (!l) return;
    l->id = limit_id(p, n);
    if (n->count < 3 || !read_rate(n->words[2].text, &l->burst, &l->interval_us)) {
        config_bad(p, n, n->count < 3 ? 1 : 2, n->count < 3 ? "needs a rate" : "is no rate", "write COUNT/s, COUNT/m or COUNT/h: limit requests 10/s");
        return;
    }
    if (n->count == 5 && config_word_is(n, 3, "burst")) config_count(p, n, 4, 1, 1000000, &l->burst);
    else if (n->count > 3) config_bad(p, n, 3, "is not known here", "write burst COUNT: so many at once");
    g->limit = l;
}

/* ---- what every answer says ---- */

/* What frames a message, or belongs to one connection, is the gateway's alone. */
static bool is_own_header(struct weir_str name)
{
    static const char *const own[] = {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "trailer", "te", "date", "proxy-connection", "status"};
    for (size_t i = 0; i < WEIR_COUNT(own); i++)
        if (weir_str_ieq(name, weir_cstr(own[i]))) return true;
    return false;
}

static void set_header(struct parser *p, struct weir_conf_guards *g, struct weir_str name, struct weir_str value)
{
    struct weir_pair *list = config_alloc(p, (g->header_count + 1) * sizeof *list);
    size_t at = 0;
    if (!list) return;
    if (g->header_count) memcpy(list, g->headers, g->header_count * sizeof *list);
    while (at < g->header_count && !weir_str_ieq(list[at].name, name)) at++;
    list[at] = (struct weir_pair){name, value};
    g->header_count += at == g->header_count;
    g->headers = list;
}

static void read_header(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    struct weir_str name = n->words[1].text, value = n->count > 2 ? config_text(p, n, 2) : weir_str(NULL, 0);
    if (!name.len || !weir_str_all(name, WEIR_BYTE_TOKEN)) config_bad(p, n, 1, "is no name of a header", "write header NAME VALUE");
    else if (is_own_header(name)) config_bad(p, n, 1, "is not for the configuration", "remove it: the gateway writes it itself");
    else if (n->count > 2 && (!value.len || value.len > 4096 || !weir_str_field(value))) config_bad(p, n, 2, "is no value of a header", "write up to 4096 bytes without control bytes; header NAME alone removes it");
    else set_header(p, g, weir_cstr(config_keep(p, name)), value);
    if (g->header_count > WEIR_CONFIG_HEADERS_MAX) config_bad(p, n, 1, "is one header too many", "at most 20 are set or removed");
}

/* ---- how fast ---- */

static void read_min_rate(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    if (config_word_is(n, 1, "none")) {
        g->min_rate = 0;
        if (n->count > 2) config_bad(p, n, 2, "has no meaning here", "write min-rate none");
        return;
    }
    config_get_size(p, n, 1, &g->min_rate);
    if (g->min_rate == 0 || g->min_rate > 1u << 30) config_bad(p, n, 1, "is no rate", "write bytes a second: min-rate 500B; or none");
    if (n->count > 2) config_get_time(p, n, 2, false, &g->min_rate_ms);
}

bool config_read_guard(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    if (node_is(n, "allow")) read_allow(p, g, n);
    else if (node_is(n, "deny") && n->count > 1) read_deny(p, g, n);
    else if (node_is(n, "auth")) config_read_auth(p, g, n);
    else if (node_is(n, "limit")) read_limit(p, g, n);
    else if (node_is(n, "header")) read_header(p, g, n);
    else if (node_is(n, "min-rate")) read_min_rate(p, g, n);
    else return false;
    return true;
}

/* ---- proxies ---- */

/* A network that holds everybody lets every client say who it is. */
static void check_believed(struct parser *p, const struct node *n, const struct weir_conf_nets *nets)
{
    for (size_t i = 0; i < nets->count; i++)
        if (weir_net_everybody(&nets->list[i]))
            config_say(p->report, WEIR_CONFIG_WARNING, n, 0, "name the proxies alone", "every client may say whose address it has");
}

void config_read_trust(struct parser *p, struct weir_conf_trust *t, const struct node *n)
{
    size_t last = n->count - 1;
    bool forwarded = config_word_is(n, last, "forwarded"), told = forwarded || config_word_is(n, last, "x-forwarded-for");
    *t = (struct weir_conf_trust){.forwarded = forwarded};
    if (last == 1 && config_word_is(n, 1, "none")) t->nets.list = config_alloc(p, sizeof *t->nets.list); /* although all the others trust somebody */
    else if (told && last == 1) config_bad(p, n, 1, "is no address", "write whom to trust before it: trust 10.0.0.0/8 forwarded");
    else read_nets(p, &t->nets, n, 1, told ? last : n->count);
    check_believed(p, n, &t->nets);
}

void config_read_http_listener(struct parser *p, const struct node *block, struct weir_conf_listener *l)
{
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used || node_is(n, "address")) continue;
        if (node_is(n, "proxy-protocol")) {
            if (n->count == 2 && config_word_is(n, 1, "no")) continue;
            read_nets(p, &l->proxies, n, 1, n->count);
            check_believed(p, n, &l->proxies);
        } else if (node_is(n, "certificates")) {
            l->certificates = config_path(p, n, 1);
        } else if (node_is(n, "trust")) {
            config_read_trust(p, &l->trust, n);
        } else if (node_is(n, "limit")) {
            if (config_word_is(n, 1, "connections")) config_count(p, n, 2, 1, 1000000, &l->conns_max);
            else config_bad(p, n, 1, "is nothing to limit here", "write limit connections COUNT; limit requests belongs in a site or route");
        } else {
            config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "remove it, or write a FastCGI address", "\"%s\" is for listeners of FastCGI", n->words[0].text.ptr);
        }
    }
}

/* SPDX-License-Identifier: MIT */
/* Listeners: addresses of sites, and those of FastCGI fronts with who may connect there and which pool is behind them. */

#include "config/internal.h"

#define UNIX_PATH_MAX 107

static int find_listener(const struct weir_config *c, const char *text)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (strcmp(c->listeners[i].address.text, text) == 0) return (int)i;
    return -1;
}

bool config_is_http(const struct weir_conf_listener *l)
{
    return l->address.scheme == WEIR_SCHEME_HTTP || l->address.scheme == WEIR_SCHEME_HTTPS;
}

/* ---- addresses ---- */

static const struct scheme {
    const char *prefix, *name;
    enum weir_conf_scheme scheme;
} schemes[] = {{"http://", "http", WEIR_SCHEME_HTTP},
               {"https://", "https", WEIR_SCHEME_HTTPS},
               {"fastcgi://", "fastcgi", WEIR_SCHEME_FASTCGI},
               {"fastcgis://", "fastcgis", WEIR_SCHEME_FASTCGIS},
               {"fastcgi+unix:", "fastcgi+unix", WEIR_SCHEME_FASTCGI}};

static bool host_and_port(struct weir_str s)
{
    size_t colon = s.len;
    uint64_t port;
    while (colon > 0 && s.ptr[colon - 1] != ':') colon--;
    return colon >= 2 && weir_str_u64(weir_str(s.ptr + colon, s.len - colon), 65535, &port) == WEIR_OK;
}

/* What weir_address_parse takes; NULL: told as a mistake. */
static const char *socket_of(struct parser *p, const struct node *n, size_t word, const struct scheme *k)
{
    struct weir_str s = n->words[word].text, rest = weir_str(s.ptr + strlen(k->prefix), s.len - strlen(k->prefix));
    if (strcmp(k->name, "fastcgi+unix") == 0) {
        if (rest.len && rest.ptr[0] == '/' && rest.ptr[rest.len - 1] != '/' && rest.len <= UNIX_PATH_MAX)
            return config_keep(p, weir_str(s.ptr + 8, s.len - 8)); /* behind "fastcgi+": unix:/path */
        config_bad(p, n, word, "is no address to listen on", "write a whole path of at most 107 bytes: fastcgi+unix:/run/weir/app.sock");
        return NULL;
    }
    if (host_and_port(rest)) return config_keep(p, rest);
    config_bad(p, n, word, "is no address to listen on",
               k->scheme == WEIR_SCHEME_FASTCGI ? "write address and port, such as fastcgi://10.0.0.2:9000" : "write host and port, such as http://*:8080");
    return NULL;
}

int config_add_address(struct parser *p, const struct node *n, size_t word, const char *name)
{
    struct weir_config *c = p->c;
    struct weir_str s = n->words[word].text;
    size_t i = 0;
    while (i < WEIR_COUNT(schemes) && !weir_str_prefix(s, weir_cstr(schemes[i].prefix))) i++;
    if (i == WEIR_COUNT(schemes)) {
        config_bad(p, n, word, "is no address to listen on", "write http://*:8080 or http://127.0.0.1:8080");
        return -1;
    }
    const struct scheme *k = &schemes[i];
    if (k->scheme == WEIR_SCHEME_FASTCGIS) {
        config_say(p->report, WEIR_CONFIG_LATER, n, word, "use fastcgi:// or fastcgi+unix: for now", "%s: not in this version", k->name);
        return -1;
    }
    if (k->scheme == WEIR_SCHEME_FASTCGI && !name) {
        config_bad(p, n, word, "is for FastCGI", "write it in a listener, and publish a pool there; a site needs http://");
        return -1;
    }
    int have = find_listener(c, s.ptr);
    for (size_t j = 0; j < c->shared_count && k->scheme == WEIR_SCHEME_FASTCGI; j++)
        if (strcmp(c->shared[j].address.socket, s.ptr + strlen("fastcgi+")) == 0) config_twice(p, n, word, &c->shared[j].place);
    if (have >= 0 && k->scheme == WEIR_SCHEME_FASTCGI) config_twice(p, n, word, &c->listeners[have].place);
    if (have >= 0) return have;
    const char *socket = socket_of(p, n, word, k);
    if (!socket || c->listener_count >= p->listener_cap) return -1;
    c->listeners[c->listener_count] = (struct weir_conf_listener){
        .name = name ? name : config_keep(p, s), .pool = -1,
        .address = {.scheme = k->scheme, .text = config_keep(p, s), .socket = socket}, .place = config_place(p, n)};
    return (int)c->listener_count++;
}

/* ---- who may connect ---- */

/* ADDRESS or ADDRESS/BITS, or the name of a user. */
static bool read_allow(struct parser *p, struct weir_str s, struct weir_conf_allow *out)
{
    *out = (struct weir_conf_allow){0};
    if (weir_net_parse(s, &out->net) == WEIR_OK) return true;
    if (s.len == 0) return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i && ((c >= '0' && c <= '9') || c == '-' || c == '.'))) return false;
    }
    out->user = config_keep(p, s);
    return out->user != NULL;
}

static void read_allows(struct parser *p, const struct node *n, struct weir_conf_listener *l)
{
    l->allow = config_alloc(p, (n->count - 1) * sizeof *l->allow);
    for (size_t i = 1; l->allow && i < n->count; i++) {
        if (read_allow(p, n->words[i].text, &l->allow[l->allow_count])) l->allow_count++;
        else config_bad(p, n, i, "is neither an address nor a user", "write 10.0.0.1, 10.0.0.0/24, fd00::/8, or a user such as www-data");
    }
}

static void read_mode(struct parser *p, const struct node *n, size_t word, uint32_t *mode)
{
    struct weir_str s = n->words[word].text;
    uint32_t v = 0;
    bool fine = s.len >= 3 && s.len <= 4;
    for (size_t i = 0; fine && i < s.len; i++) {
        fine = s.ptr[i] >= '0' && s.ptr[i] <= '7';
        v = v * 8 + (uint32_t)(s.ptr[i] - '0');
    }
    if (fine && (v & ~0666u) == 0) *mode = v;
    else config_bad(p, n, word, "is no mode of a socket", "write 0660: read and write, for owner, group and others");
}

static bool is_unix(const struct weir_conf_listener *l)
{
    return strncmp(l->address.socket, "unix:", 5) == 0;
}

static bool covers_loopback(const struct weir_conf_allow *a)
{
    static const uint8_t v6[16] = {[15] = 1}, v4[16] = {[10] = 0xff, 0xff, 127, [15] = 1};
    static const struct weir_net all = {.address = {[10] = 0xff, 0xff, 127}, .bits = 104};
    return !a->user && (weir_net_has(&a->net, v6) || weir_net_has(&a->net, v4) || (a->net.bits >= 104 && weir_net_has(&all, a->net.address)));
}

/* Is this machine's own traffic let in? Then every user of it is. */
static bool on_loopback(const struct weir_conf_listener *l)
{
    const char *s = l->address.socket;
    if (strncmp(s, "127.", 4) == 0 || strncmp(s, "[::1]", 5) == 0) return true;
    for (size_t i = 0; i < l->allow_count; i++)
        if (covers_loopback(&l->allow[i])) return true;
    return false;
}

static void check_front(struct parser *p, const struct node *n, const struct weir_conf_listener *l)
{
    size_t addresses = 0;
    for (size_t i = 0; i < l->allow_count; i++) addresses += l->allow[i].user == NULL;
    if (!is_unix(l) && !addresses)
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "write allow ADDRESS, such as allow 10.0.0.1 10.0.1.0/24",
                   "Weir never listens for FastCGI on TCP without an allow list");
}

/* Settings of a FastCGI front into all its addresses. */
static void read_front(struct parser *p, const struct node *block, size_t first)
{
    struct weir_config *c = p->c;
    struct weir_conf_listener o = {.mode = 0660, .body_max = 64u << 20, .header_ms = 15000, .body_ms = 60000, .idle_ms = 120000, .send_ms = 60000};
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        if (node_is(n, "allow")) read_allows(p, n, &o);
        else if (node_is(n, "group")) o.group = config_text(p, n, 1).ptr;
        else if (node_is(n, "mode")) read_mode(p, n, 1, &o.mode);
        else if (node_is(n, "body")) config_get_size(p, n, 1, &o.body_max);
        else if (node_is(n, "proxy-protocol") || node_is(n, "trust") || node_is(n, "limit"))
            config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "remove it: web servers connect here, not their clients", "\"%s\" is for listeners of http", n->words[0].text.ptr);
        else if (node_is(n, "time")) config_times(p, n, &(struct config_times){.head = &o.header_ms, .body = &o.body_ms, .idle = &o.idle_ms, .send = &o.send_ms});
    }
    for (size_t i = first; i < c->listener_count; i++) {
        struct weir_conf_listener *l = &c->listeners[i];
        o.name = l->name;
        o.address = l->address;
        o.place = l->place;
        o.pool = -1;
        *l = o;
        check_front(p, block, l);
    }
}

/* Settings of an http listener into all its addresses. One that another listener has is that one's. */
static void read_http(struct parser *p, const struct node *block, const char *name, size_t first)
{
    struct weir_config *c = p->c;
    struct weir_conf_listener o = {0};
    bool any = false;
    config_read_http_listener(p, block, &o);
    for (const struct node *k = block->children; k; k = k->next) any |= !k->used && !node_is(k, "address");
    for (const struct node *k = block->children; any && k; k = k->next)
        for (size_t i = 1; !k->used && node_is(k, "address") && i < k->count; i++) {
            int at = find_listener(c, k->words[i].text.ptr);
            if (at >= 0 && strcmp(c->listeners[at].name, name) != 0) config_twice(p, k, i, &c->listeners[at].place);
        }
    for (size_t i = first; i < c->listener_count; i++) {
        struct weir_conf_listener *l = &c->listeners[i];
        l->proxies = o.proxies;
        l->trust = o.trust;
        l->conns_max = o.conns_max;
        l->certificates = o.certificates;
    }
}

void config_read_listener(struct parser *p, const struct node *n)
{
    struct weir_config *c = p->c;
    const char *name = config_keep(p, n->words[1].text);
    size_t first = c->listener_count;
    bool http = false, fastcgi = false;
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used || !node_is(k, "address")) continue;
        for (size_t i = 1; i < k->count; i++) {
            int at = config_add_address(p, k, i, name);
            if (at < 0) continue;
            if (config_is_http(&c->listeners[at])) http = true;
            else fastcgi = true;
        }
    }
    if (http && fastcgi)
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "write two listeners", "http and FastCGI need listeners of their own");
    else if (fastcgi)
        read_front(p, n, first);
    if (http && !fastcgi) read_http(p, n, name, first);
}

void config_pool_listen(struct parser *p, struct weir_conf_pool *o, const struct node *n)
{
    struct weir_config *c = p->c;
    struct weir_str path = n->words[1].text;
    if (!weir_str_prefix(path, WEIR_STR("unix:/")) || path.ptr[path.len - 1] == '/' || path.len > UNIX_PATH_MAX + 5) {
        config_bad(p, n, 1, "is no address for a pool", "write a whole path of at most 107 bytes: unix:/run/weir/app.sock");
        return;
    }
    for (size_t i = 0; i < c->shared_count; i++)
        if (weir_str_eq(path, weir_cstr(c->shared[i].address.socket))) {
            config_twice(p, n, 1, &c->shared[i].place);
            return;
        }
    struct weir_conf_listener *l = &c->shared[c->shared_count++];
    const char *text = config_keep(p, path);
    *l = (struct weir_conf_listener){.name = text, .pool = -1, .mode = 0660, .backlog = 511, .place = config_place(p, n),
                                     .address = {.scheme = WEIR_SCHEME_FASTCGI, .text = text, .socket = text}};
    for (size_t i = 2; i < n->count; i += 2) {
        struct weir_str what = n->words[i].text;
        if (i + 1 == n->count) config_bad(p, n, i, "needs a value", "write group NAME, mode 0660 or backlog 511");
        else if (weir_str_eq(what, WEIR_STR("group"))) l->group = config_text(p, n, i + 1).ptr;
        else if (weir_str_eq(what, WEIR_STR("mode"))) read_mode(p, n, i + 1, &l->mode);
        else if (weir_str_eq(what, WEIR_STR("backlog"))) config_count(p, n, i + 1, 1, 65535, &l->backlog);
        else config_bad(p, n, i, "is not known here", "write group NAME, mode 0660 or backlog 511");
    }
    o->listen = l;
}

bool config_is_listener(const struct parser *p, struct weir_str name)
{
    for (size_t k = 0; p->own_listeners && p->own_listeners[k]; k++)
        if (weir_str_eq(name, weir_cstr(p->own_listeners[k]))) return true;
    return false;
}

/* ---- pools behind them ---- */

static void publish(struct parser *p, int pool)
{
    struct weir_config *c = p->c;
    const struct weir_conf_pool *o = &c->pools[pool];
    if (!config_is_listener(p, weir_cstr(o->publish))) {
        config_say_at(p->report, WEIR_CONFIG_ERROR, &o->publish_place, "define it: listener NAME { address fastcgi+unix:/path }", "no listener is named \"%.64s\"", o->publish);
        return;
    }
    for (size_t i = 0; i < c->listener_count; i++) {
        struct weir_conf_listener *l = &c->listeners[i];
        if (strcmp(l->name, o->publish) != 0 || strchr(o->publish, '/')) continue;
        if (config_is_http(l)) {
            config_say_at(p->report, WEIR_CONFIG_ERROR, &o->publish_place, "pools are published on fastcgi+unix: or fastcgi:// addresses; http:// needs a site",
                          "the listener \"%.64s\" is for http", o->publish);
            return;
        }
        if (l->pool >= 0) {
            config_say_at(p->report, WEIR_CONFIG_ERROR, &o->publish_place, "give each pool a listener of its own",
                          "pool %.64s is published on \"%.64s\" already", c->pools[l->pool].name, o->publish);
            return;
        }
        l->pool = pool;
    }
}

static bool several_users(const struct weir_config *c)
{
    const struct weir_conf_pool *first = NULL;
    for (size_t i = 0; i < c->pool_count; i++) {
        const struct weir_conf_pool *o = &c->pools[i];
        if (o->kind == WEIR_POOL_CONNECT) continue;
        if (first && strcmp(first->user ? first->user : "", o->user ? o->user : "") != 0) return true;
        first = o;
    }
    return false;
}

void config_publish(struct parser *p)
{
    struct weir_config *c = p->c;
    for (size_t i = 0; i < c->pool_count; i++)
        if (c->pools[i].publish) publish(p, (int)i);
    bool many = several_users(c);
    for (size_t i = 0; i < c->listener_count; i++) {
        const struct weir_conf_listener *l = &c->listeners[i];
        if (config_is_http(l)) continue;
        if (l->pool < 0) config_say_at(p->report, WEIR_CONFIG_ERROR, &l->place, "write publish NAME in a pool", "nothing is behind the listener \"%.64s\"", l->name);
        if (many && !is_unix(l) && on_loopback(l))
            config_say_at(p->report, WEIR_CONFIG_ERROR, &l->place, "use fastcgi+unix:, whose group and mode tell who may",
                   "Weir does not listen for FastCGI on loopback while pools have several users: each could call the others' apps");
    }
}

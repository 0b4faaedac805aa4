/* SPDX-License-Identifier: MIT */
/* The compiled configuration: opened roots, pools by pointer, sites by host name. Immutable and counted: an exchange holds
 * the one that it began with. */
#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/internal.h"

static uint32_t hash_name(struct weir_str s)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < s.len; i++) h = (h ^ (uint32_t)tolower((unsigned char)s.ptr[i])) * 16777619u;
    return h;
}

static void add_host(struct listener *l, struct weir_str name, int site)
{
    uint32_t i = hash_name(name) & l->host_mask;
    while (l->hosts[i].name.ptr) {
        if (weir_str_ieq(l->hosts[i].name, name)) return; /* the first one of the file wins; check tells */
        i = (i + 1) & l->host_mask;
    }
    l->hosts[i] = (struct host_entry){name, site};
}

static bool serves(const struct weir_conf_site *site, int listener)
{
    for (size_t i = 0; i < site->listener_count; i++)
        if (site->listeners[i] == listener) return true;
    return false;
}

/* Users that may connect to a front's unix socket, by their numbers now. One that does not exist admits nobody. */
static int find_users(struct listener *l)
{
    const struct weir_conf_listener *conf = l->conf;
    size_t named = 0;
    l->users = calloc(conf->allow_count + 1, sizeof *l->users);
    if (!l->users) return WEIR_NOMEM;
    for (size_t i = 0; i < conf->allow_count; i++) {
        if (!conf->allow[i].user) continue;
        const struct passwd *pw = getpwnam(conf->allow[i].user);
        l->users[named++] = pw ? pw->pw_uid : (uid_t)-1;
    }
    l->user_count = named;
    return WEIR_OK;
}

static int listener_init(struct listener *l, const struct weir_config *conf, int index, int fd)
{
    size_t names = 0;
    l->conf = &conf->listeners[index];
    l->fd = fd;
    l->id = weir_hash(weir_cstr(l->conf->address.socket));
    l->default_site = -1;
    if (find_users(l) < 0) return WEIR_NOMEM;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    if (fd < 0 ? weir_address_parse(weir_cstr(l->conf->address.socket), &at, &len) < 0 : getsockname(fd, (struct sockaddr *)&at, &len) < 0) at.ss_family = AF_UNSPEC;
    const struct sockaddr_in *v4 = (const void *)&at;
    const struct sockaddr_in6 *v6 = (const void *)&at;
    l->any_address = at.ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)
                     : at.ss_family == AF_INET && v4->sin_addr.s_addr == INADDR_ANY;
    l->server_port = weir_str(l->port, weir_u64_text(l->port, weir_address_text(&at, l->address, sizeof l->address)));
    l->server_addr = weir_cstr(l->address);
    for (size_t i = 0; i < conf->site_count; i++)
        if (serves(&conf->sites[i], index)) names += conf->sites[i].name_count;
    uint32_t cap = 4;
    while (cap < names * 2) cap *= 2;
    l->hosts = calloc(cap, sizeof *l->hosts);
    if (!l->hosts) return WEIR_NOMEM;
    l->host_mask = cap - 1;
    for (size_t i = 0; i < conf->site_count; i++) {
        const struct weir_conf_site *site = &conf->sites[i];
        if (!serves(site, index)) continue;
        if (l->default_site < 0) l->default_site = (int)i; /* the first site of a listener, as nginx does it */
        for (size_t k = 0; k < site->name_count; k++) add_host(l, weir_cstr(site->names[k]), (int)i);
    }
    return WEIR_OK;
}

static int site_init(struct snapshot *s, struct site *site, const struct weir_conf_site *conf)
{
    site->conf = conf;
    site->routes = calloc(conf->route_count, sizeof *site->routes);
    if (!site->routes) return WEIR_NOMEM;
    for (size_t i = 0; i < conf->route_count; i++) {
        struct route *r = &site->routes[i];
        r->conf = &conf->routes[i];
        r->root_fd = -1;
        if (r->conf->pool >= 0) {
            r->pool = s->pools[r->conf->pool].in->pool;
            r->pool_conf = s->pools[r->conf->pool].conf;
        }
        if (r->conf->authorizer >= 0) r->authorizer = &s->pools[r->conf->authorizer];
        if (r->conf->filter >= 0) r->filter = &s->pools[r->conf->filter];
        r->scripts = r->conf->action == WEIR_ACTION_PHP || (r->conf->action == WEIR_ACTION_POOL && r->pool_conf && r->pool_conf->kind == WEIR_POOL_PHP);
        for (size_t k = 0; k < r->conf->pattern_count && r->conf->action == WEIR_ACTION_POOL && r->conf->root && !r->conf->app_root; k++)
            if (weir_str_eq(r->conf->patterns[k].text, WEIR_STR(".php"))) r->scripts = true; /* never a file that only looks like one */
        r->programs = r->conf->action == WEIR_ACTION_POOL && r->pool_conf && r->pool_conf->kind == WEIR_POOL_CGI && !r->pool_conf->argc;
        if (r->programs) r->scripts = false;
        if (!r->conf->root) continue;
        for (size_t k = 0; k < i && r->root_fd < 0; k++) /* routes share their site's root */
            if (site->routes[k].conf->root == r->conf->root) r->root_fd = site->routes[k].root_fd;
        if (r->root_fd < 0) r->root_fd = weir_open_dir(r->conf->root);
    }
    return WEIR_OK;
}

static void snapshot_free(struct snapshot *s)
{
    for (size_t i = 0; s->sites && i < s->conf->site_count; i++) {
        struct site *site = &s->sites[i];
        for (size_t k = 0; site->routes && k < site->conf->route_count; k++) {
            bool shared = false;
            for (size_t m = 0; m < k && !shared; m++) shared = site->routes[m].root_fd == site->routes[k].root_fd;
            if (!shared && site->routes[k].root_fd >= 0) close(site->routes[k].root_fd);
        }
        free(site->routes);
    }
    for (size_t i = 0; s->listeners && i < s->conf->listener_count; i++) {
        if (s->listeners[i].fd >= 0) close(s->listeners[i].fd);
        free(s->listeners[i].hosts);
        free(s->listeners[i].users);
    }
    for (size_t i = 0; s->pools && i < s->conf->pool_count; i++)
        if (s->pools[i].in) gateway_pool_drop(s->gw, s->pools[i].in);
    free(s->sites);
    free(s->listeners);
    free(s->pools);
    weir_config_drop(s->conf);
    free(s);
}

int snapshot_new(struct snapshot **out, struct gateway *gw, struct weir_config *conf, const int *fds)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s) {
        for (size_t i = 0; i < conf->listener_count; i++) close(fds[i]);
        return WEIR_NOMEM;
    }
    s->refs = 1;
    s->gw = gw;
    s->conf = weir_config_hold(conf);
    s->version = ++gw->version;
    bool bad = false;
    for (size_t i = 0; i < conf->listener_count && !gw->tls; i++)
        bad = conf->listeners[i].address.scheme == WEIR_SCHEME_HTTPS && weir_tls_context_new(&gw->tls) < 0;
    s->listeners = calloc(conf->listener_count + 1, sizeof *s->listeners);
    s->sites = calloc(conf->site_count + 1, sizeof *s->sites);
    s->pools = calloc(conf->pool_count + 1, sizeof *s->pools);
    bad = bad || !s->listeners || !s->sites || !s->pools;
    for (size_t i = 0; i < conf->listener_count; i++) {
        if (bad || listener_init(&s->listeners[i], conf, (int)i, fds[i]) < 0) bad = true;
        if (!s->listeners) close(fds[i]);
        else s->listeners[i].fd = fds[i];
    }
    for (size_t i = 0; !bad && i < conf->pool_count; i++) {
        s->pools[i].conf = &conf->pools[i];
        s->pools[i].in = gateway_pool(gw, &conf->pools[i]);
        if (!s->pools[i].in) bad = true;
    }
    for (size_t i = 0; !bad && i < conf->listener_count; i++) {
        int pool = conf->listeners[i].pool;
        if (pool < 0) continue;
        s->listeners[i].pool = s->pools[pool].in->pool;
        s->listeners[i].pool_conf = s->pools[pool].conf;
    }
    for (size_t i = 0; !bad && i < conf->site_count; i++)
        if (site_init(s, &s->sites[i], &conf->sites[i]) < 0) bad = true;
    if (bad) {
        snapshot_free(s);
        return WEIR_NOMEM;
    }
    *out = s;
    return WEIR_OK;
}

void snapshot_hold(struct snapshot *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void snapshot_drop(struct snapshot *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) snapshot_free(s);
}

const struct listener *snapshot_listener(const struct snapshot *s, uint64_t id)
{
    for (size_t i = 0; i < s->conf->listener_count; i++)
        if (s->listeners[i].id == id) return &s->listeners[i];
    return NULL;
}

const struct site *snapshot_site(const struct snapshot *s, const struct listener *l, struct weir_str host)
{
    uint32_t i = hash_name(host) & l->host_mask;
    for (; l->hosts[i].name.ptr; i = (i + 1) & l->host_mask)
        if (weir_str_ieq(l->hosts[i].name, host)) return &s->sites[l->hosts[i].site];
    return l->default_site < 0 ? NULL : &s->sites[l->default_site];
}

/* One path; of a script also what stands behind it: PATH_INFO does not make it another one. */
static bool exact(struct weir_str path, struct weir_str text)
{
    if (weir_str_eq(path, text)) return true;
    return weir_str_suffix(text, WEIR_STR(".php")) && weir_str_prefix(path, text) && path.ptr[text.len] == '/';
}

static bool matches(const struct weir_conf_pattern *m, struct weir_str path)
{
    switch (m->match) {
    case WEIR_MATCH_EXACT: return exact(path, m->text);
    case WEIR_MATCH_SUFFIX: return weir_cgi_split_next(path, m->text, 0) > 0;
    case WEIR_MATCH_PREFIX: /* whole segments: "/api/" matches "/api", too */
        return weir_str_prefix(path, m->text) ||
               (path.len + 1 == m->text.len && path.len > 0 && weir_str_prefix(m->text, path));
    }
    return false;
}

bool route_matches(const struct route *r, struct weir_str path)
{
    for (size_t i = 0; i < r->conf->pattern_count; i++)
        if (matches(&r->conf->patterns[i], path)) return true;
    return r->conf->pattern_count == 0;
}

const struct route *site_route(const struct site *s, struct weir_str path)
{
    for (size_t i = 0; i + 1 < s->conf->route_count; i++)
        if (route_matches(&s->routes[i], path)) return &s->routes[i];
    return &s->routes[s->conf->route_count - 1]; /* the site's own */
}

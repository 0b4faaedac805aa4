/* SPDX-License-Identifier: MIT */
/* The compiled configuration: opened roots, pools by pointer, sites by host name. Immutable and counted: an exchange holds
 * the one that it began with. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
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
        for (size_t k = 0; k < site->name_count; k++) {
            add_host(l, weir_cstr(site->names[k]), (int)i);
            if (site->names[k][0] == '*' && site->names[k][1] == '.') l->wildcards = true;
        }
    }
    return WEIR_OK;
}

/* The path of an open folder, without links; NULL: not known. For the caller to free. */
static char *path_of(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    return n > 1 && n < (ssize_t)sizeof path && path[0] == '/' ? strndup(path, (size_t)n) : NULL;
}

/* Each folder stands there by its path, and once more as it is written, if that leads over links. One that cannot be opened is
 * left out. */
static void add_area(struct route *r, const char *written)
{
    int fd = weir_open_dir(written);
    char *path = fd < 0 ? NULL : path_of(fd);
    if (!path) {
        if (fd >= 0) close(fd);
        return;
    }
    r->areas[r->area_count++] = (struct weir_open_area){fd, path};
    size_t n = strlen(written);
    while (n > 1 && written[n - 1] == '/') n--;
    if (weir_str_eq(weir_cstr(path), weir_str(written, n))) return;
    path = strndup(written, n);
    int same = path ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (same < 0) free(path);
    else r->areas[r->area_count++] = (struct weir_open_area){same, path};
}

static int find_areas(const struct site *site, size_t index)
{
    struct route *r = &site->routes[index];
    for (size_t k = 0; k < index; k++) {
        const struct route *o = &site->routes[k];
        if (o->root_fd != r->root_fd || o->conf->links != r->conf->links || !o->areas) continue;
        r->areas = o->areas;
        r->area_count = o->area_count;
        r->areas_shared = true;
        return WEIR_OK;
    }
    r->areas = calloc(1 + 2 * r->conf->link_count, sizeof *r->areas);
    if (!r->areas) return WEIR_NOMEM;
    r->areas[0] = (struct weir_open_area){.fd = r->root_fd};
    r->area_count = 1;
    if (r->conf->link_count) r->areas[0].path = path_of(r->root_fd);
    for (size_t i = 0; i < r->conf->link_count; i++) add_area(r, r->conf->links[i]);
    return WEIR_OK;
}

/* Those that cannot be opened are left out: nothing in them is sent. */
static int find_send_areas(const struct site *site, size_t index)
{
    struct route *r = &site->routes[index];
    for (size_t k = 0; k < index && r->conf->send_file_count; k++) {
        const struct route *o = &site->routes[k];
        if (o->conf->send_files != r->conf->send_files) continue;
        r->send_areas = o->send_areas;
        r->send_count = o->send_count;
        r->send_shared = true;
        return WEIR_OK;
    }
    r->send_areas = calloc(r->conf->send_file_count + 1, sizeof *r->send_areas);
    if (!r->send_areas) return WEIR_NOMEM;
    for (size_t i = 0; i < r->conf->send_file_count; i++) {
        size_t n = strlen(r->conf->send_files[i]);
        while (n > 1 && r->conf->send_files[i][n - 1] == '/') n--;
        int fd = weir_open_dir(r->conf->send_files[i]);
        char *path = fd < 0 ? NULL : strndup(r->conf->send_files[i], n);
        if (path) r->send_areas[r->send_count++] = (struct weir_open_area){fd, path};
        else if (fd >= 0) close(fd);
    }
    return WEIR_OK;
}

static void drop_areas(struct route *r)
{
    for (size_t i = 0; !r->send_shared && i < r->send_count; i++) {
        close(r->send_areas[i].fd);
        free((char *)(uintptr_t)r->send_areas[i].path);
    }
    if (!r->send_shared) free(r->send_areas);
    for (size_t i = 0; !r->areas_shared && i < r->area_count; i++) {
        if (i) close(r->areas[i].fd);
        free((char *)(uintptr_t)r->areas[i].path);
    }
    if (!r->areas_shared) free(r->areas);
}

static int site_init(struct snapshot *s, struct site *site, const struct weir_conf_site *conf)
{
    site->conf = conf;
    site->routes = calloc(conf->route_count, sizeof *site->routes);
    if (!site->routes) return WEIR_NOMEM;
    for (size_t i = 0; i < conf->route_count; i++) site->routes[i].root_fd = -1;
    for (size_t i = 0; i < conf->route_count; i++) {
        struct route *r = &site->routes[i];
        r->conf = &conf->routes[i];
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
        if (find_send_areas(site, i) < 0) return WEIR_NOMEM;
        if (!r->conf->root) continue;
        for (size_t k = 0; k < i && r->root_fd < 0; k++) /* routes share their site's root */
            if (site->routes[k].conf->root == r->conf->root) r->root_fd = site->routes[k].root_fd;
        if (r->root_fd < 0) r->root_fd = weir_open_dir(r->conf->root);
        if (r->root_fd >= 0 && find_areas(site, i) < 0) return WEIR_NOMEM;
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
        for (size_t k = 0; site->routes && k < site->conf->route_count; k++) drop_areas(&site->routes[k]);
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

static int find_host(const struct listener *l, struct weir_str name)
{
    uint32_t i = hash_name(name) & l->host_mask;
    for (; l->hosts[i].name.ptr; i = (i + 1) & l->host_mask)
        if (weir_str_ieq(l->hosts[i].name, name)) return l->hosts[i].site;
    return -1;
}

/* A name itself, else the longest "*.rest" that it ends in, else the listener's first site. */
const struct site *snapshot_site(const struct snapshot *s, const struct listener *l, struct weir_str host)
{
    char name[256] = "*";
    if (host.len && host.ptr[host.len - 1] == '.') host.len--; /* the root of the DNS */
    int site = find_host(l, host);
    for (size_t i = 1; site < 0 && l->wildcards && host.len < sizeof name && i < host.len; i++) {
        if (host.ptr[i] != '.') continue;
        memcpy(name + 1, host.ptr + i, host.len - i);
        site = find_host(l, weir_str(name, 1 + host.len - i));
    }
    if (site < 0) site = l->default_site;
    return site < 0 ? NULL : &s->sites[site];
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

const struct route *site_own_route(const struct site *s)
{
    return &s->routes[s->conf->route_count - 1];
}

const struct route *site_route(const struct site *s, struct weir_str path, struct weir_str method)
{
    bool other = false; /* what a route of the path leaves over is not the site's own: that may lack its guards */
    for (size_t i = 0; i + 1 < s->conf->route_count; i++) {
        const struct weir_conf_route *r = &s->conf->routes[i];
        if (!route_matches(&s->routes[i], path)) continue;
        if (weir_conf_route_takes(r, method)) return &s->routes[i];
        other = true;
    }
    return other ? NULL : site_own_route(s);
}

static bool listed(const char *list, size_t len, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n <= len; i++)
        if (memcmp(list + i, name, n) == 0 && (i == 0 || list[i - 1] == ' ') && (i + n == len || list[i + n] == ',')) return true;
    return false;
}

static size_t add_method(char *list, size_t len, size_t cap, const char *name)
{
    size_t n = strlen(name);
    if (listed(list, len, name) || len + n + 2 > cap) return len;
    if (len) {
        memcpy(list + len, ", ", 2);
        len += 2;
    }
    memcpy(list + len, name, n);
    return len + n;
}

struct weir_str site_allows(const struct site *s, struct weir_str path, struct weir_arena *a)
{
    enum { CAP = 512 };
    char *list = weir_arena_bytes(a, CAP);
    size_t len = 0;
    for (size_t i = 0; list && i + 1 < s->conf->route_count; i++) {
        const struct weir_conf_route *r = &s->conf->routes[i];
        for (size_t k = 0; route_matches(&s->routes[i], path) && k < r->method_count; k++) {
            len = add_method(list, len, CAP, r->methods[k]);
            if (strcmp(r->methods[k], "GET") == 0) len = add_method(list, len, CAP, "HEAD");
        }
    }
    return weir_str(list, len);
}

/* SPDX-License-Identifier: MIT */
/* The one table of names: which block knows which setting, how many words it takes, which of them this version does not
 * build yet. And values: sizes, times. */
#include <stdio.h>

#include "config/internal.h"

#define SR (BLOCK_SITE | BLOCK_ROUTE)
#define ANY 255

static const struct setting settings[] = {
    /* top */
    {BLOCK_TOP, "weir", 0, 0, BLOCK_WEIR, .needs_block = true},
    {BLOCK_TOP, "site", 1, ANY, BLOCK_SITE, .many = true, .needs_block = true},
    {BLOCK_TOP, "pool", 1, 1, BLOCK_POOL, .many = true, .needs_block = true},
    {BLOCK_TOP, "listener", 1, 1, BLOCK_LISTENER, .many = true, .needs_block = true},
    {BLOCK_TOP, "defaults", 1, 1, BLOCK_NONE, .many = true, .needs_block = true},
    {BLOCK_TOP, "include", 1, 1, BLOCK_NONE, .many = true},
    {BLOCK_TOP, "tenants", 1, 1, BLOCK_NONE, .many = true},
    {BLOCK_TOP, "ceiling", 1, 1, BLOCK_CEILING, .many = true, .later = true},
    /* weir */
    {BLOCK_WEIR, "user", 1, 2, BLOCK_NONE},
    {BLOCK_WEIR, "threads", 1, 1, BLOCK_NONE},
    {BLOCK_WEIR, "connections", 1, 1, BLOCK_NONE},
    {BLOCK_WEIR, "control", 1, 1, BLOCK_CONTROL, .path = 1},
    {BLOCK_WEIR, "log", 1, 2, BLOCK_NONE},
    {BLOCK_WEIR, "app-log", 1, 2, BLOCK_NONE},
    {BLOCK_WEIR, "temp", 1, 2, BLOCK_NONE, .path = 1},
    {BLOCK_WEIR, "processes", 1, 1, BLOCK_NONE},
    {BLOCK_WEIR, "starting", 1, 1, BLOCK_NONE},
    {BLOCK_WEIR, "drain", 1, 1, BLOCK_NONE},
    {BLOCK_WEIR, "status", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_WEIR, "deny-file", 1, 1, BLOCK_NONE, .path = 1},
    {BLOCK_WEIR | BLOCK_LISTENER, "trust", 1, ANY, BLOCK_NONE},
    {BLOCK_CONTROL, "read", 1, ANY, BLOCK_NONE},
    {BLOCK_CONTROL, "operate", 1, ANY, BLOCK_NONE},
    {BLOCK_CONTROL, "admin", 1, ANY, BLOCK_NONE},
    /* listener */
    {BLOCK_LISTENER, "address", 1, ANY, BLOCK_NONE},
    {BLOCK_LISTENER, "certificates", 1, 1, BLOCK_NONE, .path = 1},
    {BLOCK_LISTENER, "proxy-protocol", 1, ANY, BLOCK_NONE},
    {BLOCK_LISTENER, "limit", 2, 2, BLOCK_NONE},
    {BLOCK_LISTENER, "peer-tls", 0, 0, BLOCK_PEER_TLS, .later = true},
    {BLOCK_LISTENER, "allow", 1, ANY, BLOCK_NONE},
    {BLOCK_LISTENER, "group", 1, 1, BLOCK_NONE},
    {BLOCK_LISTENER, "mode", 1, 1, BLOCK_NONE},
    {BLOCK_LISTENER, "body", 1, 1, BLOCK_NONE},
    {BLOCK_LISTENER, "time", 0, 0, BLOCK_TIME, .needs_block = true},
    {BLOCK_PEER_TLS, "ca", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_PEER_TLS, "certificate", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_PEER_TLS, "name", 1, 1, BLOCK_NONE, .later = true},
    /* site and route */
    {BLOCK_SITE, "listen", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {BLOCK_SITE, "route", 1, ANY, BLOCK_ROUTE, .many = true, .needs_block = true},
    {BLOCK_SITE, "debug", 1, 1, BLOCK_NONE},
    {BLOCK_SITE, "tls", 1, 2, BLOCK_TLS, .path = 1},
    {BLOCK_TLS, "clients", 1, 2, BLOCK_NONE, .path = 1},
    {BLOCK_SITE, "https", 1, 1, BLOCK_NONE},
    {BLOCK_SITE, "suspended", 1, 1, BLOCK_NONE},
    {SR, "root", 1, 1, BLOCK_NONE, .path = 1},
    {SR, "app-root", 1, 1, BLOCK_NONE},
    {SR, "index", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {SR, "php", 1, 1, BLOCK_PHP, .how = HOW_GROUP_ROUTE},
    {SR, "pool", 1, 1, BLOCK_NONE, .how = HOW_GROUP_ROUTE},
    {SR, "files", 0, 0, BLOCK_FILES, .how = HOW_GROUP_ROUTE},
    {SR, "filter", 1, 1, BLOCK_NONE, .how = HOW_GROUP_ROUTE},
    {SR, "authorizer", 1, 2, BLOCK_NONE},
    {SR, "redirect", 1, 2, BLOCK_NONE, .how = HOW_GROUP_ROUTE},
    {SR, "deny", 0, 0, BLOCK_NONE, .how = HOW_GROUP_ROUTE, .bare = true},
    {SR, "deny", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {SR, "allow", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {SR, "auth", 1, 3, BLOCK_AUTH, .path = 2},
    {BLOCK_AUTH, "forward", 1, 1, BLOCK_NONE},
    {SR, "limit", 1, 4, BLOCK_NONE},
    {SR, "header", 1, 2, BLOCK_NONE, .many = true, .how = HOW_MAP, .folded = true},
    {SR, "min-rate", 1, 2, BLOCK_NONE},
    {SR, "param", 1, 2, BLOCK_NONE, .many = true, .how = HOW_MAP},
    {SR, "log", 1, 1, BLOCK_NONE},
    {SR, "request-id", 0, 0, BLOCK_REQUEST_ID, .needs_block = true, .how = HOW_BLOCK},
    {BLOCK_REQUEST_ID, "from-client", 1, 1, BLOCK_NONE},
    {BLOCK_REQUEST_ID, "to-client", 1, 1, BLOCK_NONE},
    {SR, "queue", 1, 1, BLOCK_NONE},
    {SR, "retry", 1, 1, BLOCK_NONE},
    {SR, "body", 0, 1, BLOCK_BODY},
    {SR, "time", 0, 0, BLOCK_TIME, .needs_block = true, .how = HOW_BLOCK},
    {SR, "try", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {SR, "error", 2, ANY, BLOCK_NONE, .many = true, .how = HOW_ALL},
    {SR, "intercept-errors", 1, 1, BLOCK_NONE},
    {SR, "compress", 0, 1, BLOCK_COMPRESS},
    {BLOCK_COMPRESS, "types", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {BLOCK_COMPRESS, "min", 1, 1, BLOCK_NONE},
    {BLOCK_COMPRESS, "level", 1, 1, BLOCK_NONE},
    {SR, "precompressed", 1, 1, BLOCK_NONE},
    {SR, "send-file", 1, ANY, BLOCK_NONE, .how = HOW_LIST, .path = 1},
    {SR, "accel-redirect", 1, 1, BLOCK_NONE},
    {SR, "links", 1, ANY, BLOCK_NONE, .how = HOW_LIST, .path = 1},
    {BLOCK_ROUTE, "internal", 0, 1, BLOCK_NONE},
    {BLOCK_ROUTE, "strip", 1, 1, BLOCK_NONE},
    {BLOCK_ROUTE, "rewrite", 2, 2, BLOCK_NONE},
    {BLOCK_PHP, "only", 1, ANY, BLOCK_NONE},
    {BLOCK_FILES, "cache", 1, 2, BLOCK_NONE},
    {BLOCK_BODY, "max", 1, 1, BLOCK_NONE},
    {BLOCK_BODY, "stream", 1, 1, BLOCK_NONE},
    /* pool */
    {BLOCK_POOL, "run", 1, ANY, BLOCK_NONE, .how = HOW_GROUP_POOL, .path = 1},
    {BLOCK_POOL, "php", 0, 2, BLOCK_NONE, .how = HOW_GROUP_POOL},
    {BLOCK_POOL, "cgi", 0, ANY, BLOCK_NONE, .how = HOW_GROUP_POOL, .path = 1},
    {BLOCK_POOL, "connect", 1, 1, BLOCK_CONNECT, .many = true, .how = HOW_GROUP_POOL},
    {BLOCK_POOL, "user", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "group", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "processes", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "spare", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "ready", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "workers", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "requests-per-process", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "queue", 1, 2, BLOCK_NONE},
    {BLOCK_POOL, "env", 2, 2, BLOCK_NONE, .many = true, .how = HOW_MAP},
    {BLOCK_POOL, "time", 0, 0, BLOCK_TIME, .needs_block = true, .how = HOW_BLOCK},
    {BLOCK_POOL, "drain", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "keep", 0, 1, BLOCK_NONE},
    {BLOCK_POOL, "multiplex", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "log-rate", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "limits", 0, 0, BLOCK_LIMITS, .later = true, .how = HOW_BLOCK},
    {BLOCK_POOL, "recycle", 0, 0, BLOCK_RECYCLE, .needs_block = true, .how = HOW_BLOCK},
    {BLOCK_POOL, "env-file", 1, 1, BLOCK_NONE, .later = true, .path = 1},
    {BLOCK_POOL, "php-value", 2, 2, BLOCK_NONE, .many = true, .how = HOW_MAP},
    {BLOCK_POOL, "php-admin-value", 2, 2, BLOCK_NONE, .many = true, .how = HOW_MAP},
    {BLOCK_POOL, "mail", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_POOL, "read", 1, ANY, BLOCK_NONE, .later = true, .how = HOW_LIST},
    {BLOCK_POOL, "write", 1, ANY, BLOCK_NONE, .later = true, .how = HOW_LIST},
    {BLOCK_POOL, "network", 1, ANY, BLOCK_NONE, .later = true, .how = HOW_LIST},
    {BLOCK_POOL, "watch", 1, ANY, BLOCK_NONE, .how = HOW_LIST},
    {BLOCK_POOL, "publish", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "listen", 1, 7, BLOCK_NONE},
    {BLOCK_POOL, "stop-signal", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "check", 1, 2, BLOCK_CHECK},
    {BLOCK_CHECK, "fall", 1, 1, BLOCK_NONE},
    {BLOCK_CHECK, "rise", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "retry", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "balance", 1, 3, BLOCK_NONE},
    {BLOCK_POOL, "eject", 1, 2, BLOCK_NONE},
    {BLOCK_POOL, "slow-start", 1, 1, BLOCK_NONE},
    {BLOCK_POOL, "root", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_POOL, "peer-tls", 0, 0, BLOCK_PEER_TLS, .later = true},
    {BLOCK_CONNECT, "workers", 1, 1, BLOCK_NONE},
    {BLOCK_CONNECT, "requests", 1, 1, BLOCK_NONE},
    {BLOCK_CONNECT, "flow-control", 1, 1, BLOCK_NONE},
    {BLOCK_CONNECT, "weight", 1, 1, BLOCK_NONE},
    {BLOCK_CONNECT, "backup", 1, 1, BLOCK_NONE},
    {BLOCK_CONNECT, "zone", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_LIMITS | BLOCK_CEILING, "memory", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_LIMITS, "cpu", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_LIMITS, "tasks", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_LIMITS, "files", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_RECYCLE, "requests", 1, 1, BLOCK_NONE},
    {BLOCK_RECYCLE, "age", 1, 1, BLOCK_NONE},
    {BLOCK_RECYCLE, "memory", 1, 1, BLOCK_NONE},
    {BLOCK_CEILING, "workers", 1, 1, BLOCK_NONE, .later = true},
    {BLOCK_CEILING, "limits", 0, 0, BLOCK_LIMITS, .later = true},
    {BLOCK_CEILING, "time", 0, 0, BLOCK_TIME, .later = true},
    {BLOCK_CEILING, "allow", 1, ANY, BLOCK_NONE, .later = true},
    {BLOCK_TIME, "request", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "silent", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "slow", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "start", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "ping", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "head", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "body", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "idle", 1, 1, BLOCK_NONE},
    {BLOCK_TIME, "send", 1, 1, BLOCK_NONE},
    /* presets: only inside defaults and the blocks that take one */
    {BLOCK_POOL | SR, "use", 1, ANY, BLOCK_NONE, .later = true},
};

const struct setting *config_setting(enum block in, struct weir_str name)
{
    for (size_t i = 0; i < WEIR_COUNT(settings); i++)
        if (settings[i].in & in && weir_str_eq(name, weir_cstr(settings[i].name))) return &settings[i];
    return NULL;
}

/* ---- the nearest name ---- */

static unsigned distance(struct weir_str a, struct weir_str b)
{
    unsigned row[33];
    if (a.len > 32 || b.len > 32) return 99;
    for (size_t k = 0; k <= b.len; k++) row[k] = (unsigned)k;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t k = 1; k <= b.len; k++) {
            unsigned best = diagonal + (a.ptr[i - 1] != b.ptr[k - 1]);
            diagonal = row[k];
            if (row[k] + 1 < best) best = row[k] + 1;
            if (row[k - 1] + 1 < best) best = row[k - 1] + 1;
            row[k] = best;
        }
    }
    return row[b.len];
}

const char *config_nearest(struct weir_str name, const char *const *list, size_t count)
{
    const char *best = NULL;
    unsigned least = name.len <= 3 ? 2 : 3; /* farther ones only confuse */
    for (size_t i = 0; i < count; i++) {
        unsigned d = distance(name, weir_cstr(list[i]));
        if (d < least) {
            least = d;
            best = list[i];
        }
    }
    return best;
}

const struct setting *config_setting_of(enum block in, const struct node *n)
{
    const struct setting *s = config_setting(in, n->words[0].text);
    if (!s || !s->bare || n->count == 1) return s;
    for (const struct setting *more = s + 1; more < settings + WEIR_COUNT(settings); more++)
        if (more->in & in && weir_str_eq(n->words[0].text, weir_cstr(more->name))) return more;
    return s;
}

const char *config_nearest_setting(enum block in, struct weir_str name)
{
    const char *list[WEIR_COUNT(settings)];
    size_t n = 0;
    for (size_t i = 0; i < WEIR_COUNT(settings); i++)
        if (settings[i].in & in) list[n++] = settings[i].name;
    return config_nearest(name, list, n);
}

/* ---- checking a tree against the table ---- */

static const char *block_name(enum block b)
{
    switch (b) {
    case BLOCK_TOP: return "the file";
    case BLOCK_WEIR: return "weir";
    case BLOCK_LISTENER: return "listener";
    case BLOCK_SITE: return "site";
    case BLOCK_ROUTE: return "route";
    case BLOCK_POOL: return "pool";
    case BLOCK_TIME: return "time";
    case BLOCK_LIMITS: return "limits";
    case BLOCK_CONNECT: return "connect";
    case BLOCK_PHP: return "php";
    case BLOCK_FILES: return "files";
    case BLOCK_PEER_TLS: return "peer-tls";
    case BLOCK_CONTROL: return "control";
    case BLOCK_CEILING: return "ceiling";
    case BLOCK_RECYCLE: return "recycle";
    case BLOCK_BODY: return "body";
    case BLOCK_COMPRESS: return "compress";
    case BLOCK_TLS: return "tls";
    case BLOCK_REQUEST_ID: return "request-id";
    case BLOCK_CHECK: return "check";
    case BLOCK_AUTH: return "auth";
    default: return "this block";
    }
}

/* What nginx and PHP-FPM call it (docs/from-nginx.md). */
static const char *translated(struct weir_str name)
{
    static const char *const words[][2] = {
        {"access_log", "write log FILE in weir { }"}, {"add_header", "write header NAME VALUE"}, {"alias", "write root DIR and strip PREFIX in the route"},
        {"auth_basic", "write auth basic FILE REALM"}, {"client_max_body_size", "write body SIZE"}, {"error_log", "write app-log FILE in weir { }"},
        {"error_page", "write error STATUS PATH"}, {"events", "threads and connections stand in weir { }"}, {"expires", "write files { cache TIME }"},
        {"fastcgi_param", "write param NAME VALUE"}, {"fastcgi_pass", "write pool NAME, or php NAME, and a pool of that name with connect ADDRESS"},
        {"fastcgi_read_timeout", "write time { silent TIME } in the pool"}, {"gzip", "write compress yes"}, {"gzip_static", "write precompressed yes"},
        {"http", "sites stand in the file itself"}, {"location", "write route PATTERN { ... }"}, {"pm", "write workers N, or workers A..B"},
        {"pm.max_children", "write workers N"}, {"pm.max_requests", "write recycle { requests N }"}, {"php_admin_value", "write php-admin-value NAME VALUE"},
        {"php_value", "write php-value NAME VALUE"}, {"proxy_pass", "Weir speaks FastCGI to its applications: write pool NAME"}, {"return", "write redirect STATUS URL, or deny"},
        {"server", "write site NAME { ... }"}, {"server_name", "the names stand behind site: site a.test www.a.test { ... }"}, {"ssl_certificate", "write tls CERTIFICATE KEY"},
        {"ssl_certificate_key", "write tls CERTIFICATE KEY"}, {"try_files", "write try, or nothing: php POOL does it"}, {"upstream", "write pool NAME { connect ADDRESS }"},
        {"worker_connections", "write connections N in weir { }"}, {"worker_processes", "write threads N in weir { }"}};
    for (size_t i = 0; i < WEIR_COUNT(words); i++)
        if (weir_str_eq(name, weir_cstr(words[i][0]))) return words[i][1];
    return NULL;
}

static void unknown(struct node *n, enum block in, struct weir_config_report *r)
{
    char advice[128] = "see weir.conf(5)";
    const char *near = config_nearest_setting(in, n->words[0].text), *known = translated(n->words[0].text);
    if (known) snprintf(advice, sizeof advice, "%s", known);
    else if (near) snprintf(advice, sizeof advice, "did you mean \"%s\"?", near);
    config_say(r, WEIR_CONFIG_ERROR, n, 0, advice, "unknown name \"%.64s\" in %s", n->words[0].text.ptr, block_name(in));
}

static void check_repeats(struct node *first, struct node *n, const struct setting *s, struct weir_config_report *r)
{
    char advice[160];
    if (s->many) return;
    for (struct node *o = first; o != n; o = o->next) {
        if (!weir_str_eq(o->words[0].text, n->words[0].text)) continue;
        snprintf(advice, sizeof advice, "the first one is in line %u; keep one", o->words[0].line);
        config_say(r, WEIR_CONFIG_ERROR, n, 0, advice, "\"%s\" stands twice in one block", s->name);
        n->used = true;
        return;
    }
}

static enum block sub_block(const struct node *n, const struct setting *s)
{
    if (strcmp(s->name, "defaults") != 0) return s->sub;
    if (n->count > 1 && weir_str_eq(n->words[1].text, WEIR_STR("pool"))) return BLOCK_POOL;
    if (n->count > 1 && weir_str_eq(n->words[1].text, WEIR_STR("site"))) return BLOCK_SITE;
    return BLOCK_NONE;
}

void config_check_names(struct node *first, enum block in, struct weir_config_report *r)
{
    for (struct node *n = first; n; n = n->next) {
        const struct setting *s = config_setting_of(in, n);
        if (!s) {
            n->used = true; /* nothing more is said of it */
            unknown(n, in, r);
            continue;
        }
        size_t words = n->count - 1 - (s->how == HOW_LIST && config_appends(n));
        if (s->later) {
            config_say(r, WEIR_CONFIG_LATER, n, 0, "remove it, or wait for a later version", "%s: not in this version", s->name);
            n->used = true;
        }
        if (words < s->min || (s->max != ANY && words > s->max)) {
            config_say(r, WEIR_CONFIG_ERROR, n, words < s->min ? n->count - 1 : (size_t)s->max + 1, "see weir.conf(5)",
                       words < s->min ? "\"%s\" needs a value" : "\"%s\" has too many values", s->name);
            n->used = true;
            continue;
        }
        check_repeats(first, n, s, r);
        enum block sub = sub_block(n, s);
        if (n->has_block && sub == BLOCK_NONE) {
            config_say(r, WEIR_CONFIG_ERROR, n, n->count - 1,
                       strcmp(s->name, "defaults") == 0 ? "write defaults pool { ... } or defaults site { ... }" : "remove the block",
                       "\"%s\" takes no block", s->name);
            n->used = true;
            continue;
        }
        if (s->needs_block && !n->has_block) {
            config_say(r, WEIR_CONFIG_ERROR, n, n->count - 1, "write { ... } behind it", "\"%s\" needs a block", s->name);
            n->used = true;
            continue;
        }
        if (n->has_block) config_check_names(n->children, sub, r);
    }
}

/* ---- values ---- */

static size_t leading_digits(struct weir_str s, uint64_t max, uint64_t *v)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9') n++;
    return n && weir_str_u64(weir_str(s.ptr, n), max, v) == WEIR_OK ? n : 0;
}

int config_size(struct weir_str s, uint64_t *out)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"B", 0}, {"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}};
    uint64_t v;
    size_t n = leading_digits(s, UINT64_C(1) << 20, &v);
    struct weir_str unit = weir_str(s.ptr + n, s.len - n);
    for (size_t i = 0; n && i < WEIR_COUNT(units); i++) {
        if (!weir_str_eq(unit, weir_cstr(units[i].unit))) continue;
        *out = v << units[i].shift;
        return WEIR_OK;
    }
    return WEIR_INVALID;
}

int config_time(struct weir_str s, uint32_t *out_ms, bool none)
{
    static const struct {
        const char *unit;
        uint32_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t v;
    if (none && weir_str_eq(s, WEIR_STR("none"))) {
        *out_ms = 0;
        return WEIR_OK;
    }
    size_t n = leading_digits(s, 1u << 30, &v);
    struct weir_str unit = weir_str(s.ptr + n, s.len - n);
    for (size_t i = 0; n && i < WEIR_COUNT(units); i++) {
        if (!weir_str_eq(unit, weir_cstr(units[i].unit))) continue;
        if (v * units[i].ms > UINT64_C(2000000000) || v == 0) return WEIR_INVALID;
        *out_ms = (uint32_t)(v * units[i].ms);
        return WEIR_OK;
    }
    return WEIR_INVALID;
}

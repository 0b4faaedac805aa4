/* SPDX-License-Identifier: MIT */
/* Which route serves an exchange, by the same bytes that guards, files and apps see; and what its route alone answers: redirects. */
#include "gateway/internal.h"

struct weir_str exchange_method(const struct exchange *ex)
{
    return ex->method_override ? weir_cstr(ex->method_override) : ex->req->method;
}

/* ---- the route ---- */

static void refuse_method(struct exchange *ex)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    struct weir_str list = site_allows(ex->site, ex->path.path, &ex->arena);
    ex->route = site_own_route(ex->site);
    if (!f || !list.ptr) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    *f = (struct weir_pair){WEIR_STR("Allow"), list};
    exchange_text(ex, 405, f, 1, "this path does not take that method");
}

/* The prefix that the route replaces. Its path may be the prefix without the slash. */
static bool rewrite(struct exchange *ex)
{
    struct weir_str from = ex->route->conf->rewrite_from, to = ex->route->conf->rewrite_to, path = ex->path.path;
    bool bare = path.len + 1 == from.len && weir_str_prefix(from, path);
    ex->rewritten = false;
    if (!from.ptr || (!bare && !weir_str_prefix(path, from))) return true;
    struct weir_str rest = bare ? weir_str(path.ptr, 0) : weir_str(path.ptr + from.len, path.len - from.len);
    if (bare && to.len > 1) to.len--; /* the folder without its slash, here as well */
    char *p = weir_arena_bytes(&ex->arena, to.len + rest.len + 1);
    if (!p) return false;
    memcpy(p, to.ptr, to.len);
    if (rest.len) memcpy(p + to.len, rest.ptr, rest.len);
    p[to.len + rest.len] = 0;
    ex->path.path = weir_str(p, to.len + rest.len);
    ex->rewritten = true;
    return true;
}

/* "/x" where "/x/" is the root of its route's files: links in a page of it would lead beside it. */
static bool lacks_slash(const struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    return conf->rewrite_from.ptr && conf->rewrite_to.len == 1 && (conf->action == WEIR_ACTION_FILES || conf->action == WEIR_ACTION_PHP) &&
           ex->path.path.len + 1 == conf->rewrite_from.len && weir_str_prefix(conf->rewrite_from, ex->path.path);
}

bool exchange_route(struct exchange *ex)
{
    ex->route = site_route(ex->site, ex->path.path, exchange_method(ex));
    if (ex->trace) trace_route(ex);
    if (!ex->route) {
        refuse_method(ex);
        return false;
    }
    if (ex->route->conf->internal && !ex->inside) {
        if (ex->trace) trace_guard(ex->trace, false, "internal", "no client gets to this route");
        ex->route = site_own_route(ex->site);
        exchange_fail(ex, 404, "no such file");
        return false;
    }
    if (lacks_slash(ex)) {
        exchange_redirect_to_folder(ex);
        return false;
    }
    if (rewrite(ex)) return true;
    exchange_fail(ex, 503, "out of memory");
    return false;
}

static bool same_root(const struct route *a, const struct route *b)
{
    const char *x = a->conf->root, *y = b->conf->root;
    return x && y && strcmp(x, y) == 0;
}

bool exchange_barred(const struct exchange *ex, struct weir_str path, bool front)
{
    const struct route *own = site_route(ex->site, path, exchange_method(ex)), *r = ex->route;
    if (own == r) return false;
    if (!own) return !front;
    if (ex->rewritten && !same_root(own, r)) return false; /* another file, which only has the same name */
    if (guards_other(ex, own)) return true;
    if (ex->rewritten && own->conf->internal && !ex->inside) return true;
    return !front && ((own->filter && own->filter != r->filter) || own->conf->action == WEIR_ACTION_DENY);
}

bool exchange_crosses(struct exchange *ex, struct weir_str path, bool front)
{
    if (exchange_barred(ex, path, front)) {
        exchange_fail(ex, 403, "another route decides about this file");
        return false;
    }
    const struct route *own = site_route(ex->site, path, exchange_method(ex));
    if (!own || own == ex->route || (ex->rewritten && !same_root(own, ex->route))) return true;
    return guards_cross(ex, own); /* it may count requests */
}

/* ---- redirects ---- */

/* A decoded path as it stands in a URL. */
static size_t escape_path(char *out, struct weir_str path)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-._~!$&'()*+,;=:@/", c));
        if (plain) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = digits[c >> 4];
        out[n++] = digits[c & 15];
    }
    return n;
}

void exchange_redirect_to(struct exchange *ex, int status, struct weir_str to)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    if (!f) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    *f = (struct weir_pair){WEIR_STR("Location"), to};
    exchange_text(ex, status, f, 1, NULL);
}

/* What follows of the path behind what the route matched, without a slash before it. */
static struct weir_str rest_of_path(const struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    struct weir_str path = ex->path.path;
    for (size_t i = 0; i < conf->pattern_count; i++) {
        struct weir_str text = conf->patterns[i].text;
        if (conf->patterns[i].match != WEIR_MATCH_PREFIX) continue;
        if (weir_str_prefix(path, text)) return weir_str(path.ptr + text.len, path.len - text.len);
        if (path.len + 1 == text.len && weir_str_prefix(text, path)) return weir_str(path.ptr + path.len, 0);
    }
    return weir_str(path.ptr + 1, path.len - 1);
}

void exchange_redirect(struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    struct weir_str to = weir_cstr(conf->redirect), rest = rest_of_path(ex), query = ex->path.query;
    if (conf->redirect_star < 0) {
        exchange_redirect_to(ex, conf->redirect_status, to);
        return;
    }
    size_t at = (size_t)conf->redirect_star;
    char *p = weir_arena_bytes(&ex->arena, to.len + 3 * rest.len + 1 + query.len);
    if (!p) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    memcpy(p, to.ptr, at);
    size_t len = at + escape_path(p + at, rest);
    memcpy(p + len, to.ptr + at + 1, to.len - at - 1);
    len += to.len - at - 1;
    if (ex->path.has_query && !memchr(to.ptr, '?', to.len) && weir_str_all(query, WEIR_BYTE_VISIBLE)) {
        p[len++] = '?';
        memcpy(p + len, query.ptr, query.len);
        len += query.len;
    }
    exchange_redirect_to(ex, conf->redirect_status, weir_str(p, len));
}

/* The folder's own URL ends in a slash: the path as the client wrote it, and its query. */
static void client_folder(struct exchange *ex)
{
    struct weir_str raw = ex->req->path_query;
    const char *q = memchr(raw.ptr, '?', raw.len);
    size_t n = q ? (size_t)(q - raw.ptr) : raw.len;
    char *p = weir_arena_bytes(&ex->arena, raw.len + 2);
    if (!p) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    size_t lead = 0; /* "//host" would be another site's URL */
    while (lead + 1 < n && raw.ptr[lead + 1] == '/') lead++;
    size_t len = n - lead;
    memcpy(p, raw.ptr + lead, len);
    p[len++] = '/';
    memcpy(p + len, raw.ptr + n, raw.len - n);
    exchange_redirect_to(ex, 301, weir_str(p, len + raw.len - n));
}

void exchange_redirect_to_folder(struct exchange *ex)
{
    struct weir_str path = ex->path.path;
    if (!ex->redirects) {
        client_folder(ex);
        return;
    }
    if (ex->route->conf->internal || ex->rewritten) { /* no URL leads there */
        exchange_fail(ex, 404, "no such file");
        return;
    }
    char *p = weir_arena_bytes(&ex->arena, 3 * path.len + 1);
    if (!p) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    size_t len = escape_path(p, path);
    p[len++] = '/';
    exchange_redirect_to(ex, 301, weir_str(p, len));
}

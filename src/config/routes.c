/* SPDX-License-Identifier: MIT */
/* What a route matches beside its patterns, and where it leads: methods, try, prefixes, redirects, error pages, links. */
#include <stdio.h>

#include "config/internal.h"

/* ---- words ---- */

/* A path of the site: begins with a slash, and no segment of it leads elsewhere. */
static bool is_path(struct weir_str s)
{
    if (s.len == 0 || s.ptr[0] != '/') return false;
    for (size_t i = 0; i < s.len; i++) {
        struct weir_str rest = weir_str(s.ptr + i, s.len - i);
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == '\\') return false;
        if (weir_str_prefix(rest, WEIR_STR("//")) || weir_str_prefix(rest, WEIR_STR("/./")) || weir_str_prefix(rest, WEIR_STR("/../"))) return false;
    }
    return !weir_str_suffix(s, WEIR_STR("/.")) && !weir_str_suffix(s, WEIR_STR("/.."));
}

/* Where its one * stands; s.len: it has none. */
static size_t star(struct parser *p, const struct node *n, size_t word, struct weir_str s)
{
    const char *at = memchr(s.ptr, '*', s.len);
    size_t i = at ? (size_t)(at - s.ptr) : s.len;
    if (i < s.len && memchr(at + 1, '*', s.len - i - 1)) config_bad(p, n, word, "has more than one *", "write one");
    return i;
}

/* ---- methods ---- */

size_t config_route_patterns(const struct node *n)
{
    size_t i = 1;
    while (i < n->count && !config_word_is(n, i, "method")) i++;
    return i - 1;
}

void config_route_methods(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    size_t first = config_route_patterns(n) + 2;
    if (first > n->count) return;
    if (first == 2) config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "write route /path/ method GET { }", "the route has no pattern");
    if (first == n->count) config_say(p->report, WEIR_CONFIG_ERROR, n, n->count - 1, "write their names behind it: method GET POST", "\"method\" names none");
    r->methods = config_alloc(p, (n->count - first + 1) * sizeof *r->methods);
    if (!r->methods) return;
    for (size_t i = first; i < n->count; i++) {
        struct weir_str s = n->words[i].text;
        for (size_t k = 0; k < s.len; k++)
            if (s.ptr[k] < 'A' || s.ptr[k] > 'Z') {
                config_bad(p, n, i, "is no method", "write GET, POST, PUT, PATCH, DELETE ... in capitals");
                break;
            }
        r->methods[r->method_count++] = config_keep(p, s);
    }
}

bool weir_conf_route_takes(const struct weir_conf_route *r, struct weir_str method)
{
    for (size_t i = 0; i < r->method_count; i++) {
        if (weir_str_eq(method, weir_cstr(r->methods[i]))) return true;
        if (strcmp(r->methods[i], "GET") == 0 && weir_str_eq(method, WEIR_STR("HEAD"))) return true;
    }
    return r->method_count == 0;
}

/* ---- try ---- */

static void read_status(struct parser *p, const struct node *n, size_t word, struct weir_conf_try *t)
{
    struct weir_str s = n->words[word].text;
    uint64_t v;
    t->kind = WEIR_TRY_STATUS;
    if (weir_str_u64(weir_str(s.ptr + 1, s.len - 1), 599, &v) < 0 || v < 400) config_bad(p, n, word, "is no status of an error", "write =404");
    else t->status = (int)v;
    if (word + 1 < n->count) config_bad(p, n, word, "ends the list", "put it last");
}

static void read_candidate(struct parser *p, const struct node *n, size_t word, struct weir_conf_try *t)
{
    struct weir_str s = config_text(p, n, word);
    if (s.len && s.ptr[0] == '=') {
        read_status(p, n, word, t);
        return;
    }
    size_t at = star(p, n, word, s);
    t->star = at < s.len;
    t->before = at == 0 ? WEIR_STR("/") : weir_str(s.ptr, at);
    if (t->star) t->after = weir_str(s.ptr + at + 1, s.len - at - 1);
    t->kind = t->star || word + 1 < n->count ? WEIR_TRY_FILE : WEIR_TRY_GO;
    if (!is_path(t->before) || (t->star && t->before.ptr[t->before.len - 1] != '/') || (t->after.len > 1 && t->after.ptr[0] == '/' && !is_path(t->after)))
        config_bad(p, n, word, "is nothing to try", "write * (the path), *.html, */ (a folder), /file, or =404");
}

static void read_try(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    size_t first = 1 + config_appends(n), have = config_appends(n) ? r->try_count : 0;
    struct weir_conf_try *list = config_alloc(p, (have + n->count) * sizeof *list);
    if (!list) return;
    if (have) memcpy(list, r->tries, have * sizeof *list);
    if (have && list[have - 1].kind != WEIR_TRY_FILE) config_bad(p, n, first, "comes behind the end of the inherited list", "write the whole list");
    for (size_t i = first; i < n->count; i++) read_candidate(p, n, i, &list[have++]);
    r->tries = list;
    r->try_count = have;
}

/* ---- prefixes ---- */

static struct weir_str with_slash(struct parser *p, struct weir_str s)
{
    char *to;
    if (s.len && s.ptr[s.len - 1] == '/') return s;
    to = weir_arena_bytes(&p->c->arena, s.len + 2);
    if (!to) return WEIR_STR("/");
    memcpy(to, s.ptr, s.len);
    to[s.len] = '/';
    to[s.len + 1] = 0;
    return weir_str(to, s.len + 1);
}

static void read_rewrite(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    if (r->rewrite_from.ptr) {
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "keep one of them", "\"strip\" and \"rewrite\" stand in one route");
        return;
    }
    struct weir_str from = config_text(p, n, 1), to = n->count > 2 ? config_text(p, n, 2) : WEIR_STR("/");
    if (!is_path(from)) config_bad(p, n, 1, "is no prefix of a path", "write /prefix/");
    if (!is_path(to)) config_bad(p, n, 2, "is no prefix of a path", "write /prefix/, or / for none");
    r->rewrite_from = with_slash(p, from);
    r->rewrite_to = with_slash(p, to);
}

/* ---- redirects ---- */

static void read_redirect_status(struct parser *p, const struct node *n, int *status)
{
    static const int known[] = {301, 302, 303, 307, 308};
    uint64_t v = 0;
    if (weir_str_u64(n->words[1].text, 999, &v) == WEIR_OK)
        for (size_t i = 0; i < WEIR_COUNT(known); i++)
            if ((int)v == known[i]) {
                *status = known[i];
                return;
            }
    config_bad(p, n, 1, "is no status of a redirect", "write 301, 302, 303, 307 or 308");
}

/* How long the host of a URL reaches: what stands for the rest of a path must not become a part of it. */
static size_t end_of_host(struct weir_str to)
{
    size_t i = weir_str_prefix(to, WEIR_STR("http://")) ? 7 : weir_str_prefix(to, WEIR_STR("https://")) ? 8 : 0;
    while (i < to.len && to.ptr[i] != '/') i++;
    return i;
}

void config_read_redirect(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    size_t at = n->count > 2 ? 2 : 1;
    r->action = WEIR_ACTION_REDIRECT;
    r->redirect_status = 302;
    if (at == 2) read_redirect_status(p, n, &r->redirect_status);
    struct weir_str to = config_text(p, n, at);
    bool url = weir_str_prefix(to, WEIR_STR("http://")) || weir_str_prefix(to, WEIR_STR("https://"));
    if (!url && (to.len == 0 || to.ptr[0] != '/')) config_bad(p, n, at, "is no target for a redirect", "write a URL, or a path that begins with /");
    if (!weir_str_field(to) || memchr(to.ptr, ' ', to.len)) config_bad(p, n, at, "is no target for a redirect", "write it with % escapes");
    size_t s = star(p, n, at, to);
    r->redirect = to.ptr;
    r->redirect_star = s < to.len ? (int64_t)s : -1;
    if (s < to.len && s <= end_of_host(to)) config_bad(p, n, at, "lets the path choose the host", "write a slash before the *");
}

/* ---- error pages ---- */

static void set_error(struct parser *p, struct weir_conf_route *r, int status, const char *target)
{
    struct weir_conf_error *list = config_alloc(p, (r->error_count + 1) * sizeof *list);
    size_t n = 0;
    if (!list) return;
    for (size_t i = 0; i < r->error_count; i++)
        if (r->errors[i].status != status) list[n++] = r->errors[i];
    if (target) list[n++] = (struct weir_conf_error){status, target};
    r->errors = list;
    r->error_count = n;
}

static void read_error(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    size_t last = n->count - 1;
    bool none = config_word_is(n, last, "no");
    struct weir_str to = config_text(p, n, last);
    if (!none && !is_path(to)) config_bad(p, n, last, "is no page", "write its path on this site: /404.html; or no");
    for (size_t i = 1; i < last; i++) {
        uint64_t v;
        if (weir_str_u64(n->words[i].text, 599, &v) < 0 || v < 400) config_bad(p, n, i, "is no status of an error", "write one from 400 to 599");
        else set_error(p, r, (int)v, none ? NULL : to.ptr);
    }
}

/* ---- links ---- */

static void read_folders(struct parser *p, const struct node *n, const char ***list, size_t *count)
{
    size_t first = 1 + config_appends(n), have = config_appends(n) ? *count : 0;
    const char **grown = config_alloc(p, (have + n->count) * sizeof *grown);
    if (!grown) return;
    if (have) memcpy(grown, *list, have * sizeof *grown);
    for (size_t i = first; i < n->count; i++) {
        grown[have] = config_path(p, n, i);
        if (strcmp(grown[have], "/") == 0) config_bad(p, n, i, "would be all there is", "name a folder");
        config_tenant_root(p, n, grown[have++]);
    }
    *list = grown;
    *count = have;
}

/* ---- files ---- */

/* Seconds: digits and s, m, h, d, w or y. */
static bool age(struct weir_str s, uint64_t *out)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}, {'y', 31536000}};
    uint64_t v;
    if (s.len < 2 || weir_str_u64(weir_str(s.ptr, s.len - 1), 1000000, &v) < 0) return false;
    for (size_t i = 0; i < WEIR_COUNT(units); i++)
        if (units[i].unit == s.ptr[s.len - 1]) {
            *out = v * units[i].seconds;
            return *out > 0 && *out <= UINT32_MAX;
        }
    return false;
}

static void read_cache(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    char text[64] = "";
    uint64_t seconds;
    bool immutable = n->count > 2;
    if (config_word_is(n, 1, "no")) snprintf(text, sizeof text, "no-cache");
    else if (age(n->words[1].text, &seconds)) snprintf(text, sizeof text, "max-age=%llu%s", (unsigned long long)seconds, immutable ? ", immutable" : "");
    else config_bad(p, n, 1, "is no time", "write digits and a unit: 10m, 1d, 1y; or no");
    if (immutable && (!config_word_is(n, 2, "immutable") || config_word_is(n, 1, "no"))) config_bad(p, n, 2, "has no meaning here", "write cache 1y immutable");
    r->cache = config_keep(p, weir_cstr(text));
}

void config_read_files(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    r->action = WEIR_ACTION_FILES;
    r->filter = -1;
    r->cache = NULL;
    for (const struct node *k = n->children; k; k = k->next)
        if (!k->used && node_is(k, "cache")) read_cache(p, r, k);
}

/* ---- compression ---- */

static const char *types[] = {"text/html", "text/css", "text/plain", "text/javascript", "application/javascript", "application/json", "application/ld+json",
                              "application/manifest+json", "application/xml", "text/xml", "application/rss+xml", "application/atom+xml", "image/svg+xml",
                              "text/markdown", "text/csv", "application/wasm"};

void config_route_start(struct weir_conf_route *r)
{
    r->redirect_star = -1;
    r->compress_level = 5;
    r->compress_min = 1024;
    r->compress_types = types;
    r->compress_type_count = WEIR_COUNT(types);
}

static void read_types(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    config_words(p, n, 1, &r->compress_types, &r->compress_type_count);
    for (size_t i = 1 + config_appends(n); i < n->count; i++) {
        struct weir_str s = n->words[i].text;
        const char *slash = memchr(s.ptr, '/', s.len), *at = memchr(s.ptr, '*', s.len);
        if (!slash || slash == s.ptr || slash + 1 == s.ptr + s.len || (at && at + 1 != s.ptr + s.len)) config_bad(p, n, i, "is no media type", "write text/html, or text/*");
    }
}

static void read_compress(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    uint32_t level = (uint32_t)r->compress_level;
    r->compress = true;
    if (n->count > 1) config_get_flag(p, n, 1, &r->compress);
    for (const struct node *k = n->children; k; k = k->next) {
        if (k->used) continue;
        if (node_is(k, "types")) read_types(p, r, k);
        else if (node_is(k, "min")) config_get_size(p, k, 1, &r->compress_min);
        else if (node_is(k, "level")) config_count(p, k, 1, 1, 9, &level);
    }
    r->compress_level = (int)level;
}

bool config_route_setting(struct parser *p, struct weir_conf_route *r, const struct node *n)
{
    if (node_is(n, "try")) read_try(p, r, n);
    else if (node_is(n, "strip") || node_is(n, "rewrite")) read_rewrite(p, r, n);
    else if (node_is(n, "error")) read_error(p, r, n);
    else if (node_is(n, "links")) read_folders(p, n, &r->links, &r->link_count);
    else if (node_is(n, "send-file")) read_folders(p, n, &r->send_files, &r->send_file_count);
    else if (node_is(n, "accel-redirect")) config_get_flag(p, n, 1, &r->accel_redirect);
    else if (node_is(n, "compress")) read_compress(p, r, n);
    else if (node_is(n, "precompressed")) config_get_flag(p, n, 1, &r->precompressed);
    else if (node_is(n, "intercept-errors")) config_get_flag(p, n, 1, &r->intercept_errors);
    else if (node_is(n, "internal") && n->count > 1) config_get_flag(p, n, 1, &r->internal);
    else if (node_is(n, "internal")) r->internal = true;
    else return false;
    return true;
}

/* A name in the folder, or below it: what leads out of it could have a guard that the folder lacks. */
void config_check_index(struct parser *p, const struct node *n)
{
    for (size_t i = 1 + config_appends(n); i < n->count; i++) {
        struct weir_str s = n->words[i].text;
        char path[300];
        int len = snprintf(path, sizeof path, "/%.*s", (int)s.len, s.ptr);
        if (s.len == 0 || len >= (int)sizeof path || !is_path(weir_cstr(path))) config_bad(p, n, i, "is no name of an index", "write index.html");
    }
}

/* What holds only together with the rest of the route. */
void config_check_route(struct parser *p, const struct weir_conf_route *r, const struct node *block)
{
    const struct node *n = block->children;
    for (; n; n = n->next) {
        if (n->used) continue;
        if (node_is(n, "try") && !r->root) config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write root DIR", "\"try\" looks for files, and there is no root");
        if (node_is(n, "try") && (r->action == WEIR_ACTION_REDIRECT || r->action == WEIR_ACTION_DENY || r->filter >= 0))
            config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "it goes with files, php and pool", "\"try\" has no meaning here");
        if (!node_is(n, "redirect") || r->redirect_star < 0) continue;
        for (size_t i = 0; i < r->pattern_count; i++)
            if (r->patterns[i].match != WEIR_MATCH_PREFIX)
                config_say(p->report, WEIR_CONFIG_ERROR, n, n->count - 1, "it goes with patterns that end in /", "* stands for the rest of the path, and \"%.64s\" leaves none",
                           r->patterns[i].text.ptr);
    }
}

/* ---- names of hosts ---- */

/* "*.example.org" is any name below it; ".example.org" that, and example.org itself. */
bool config_wildcard(struct weir_str s)
{
    return s.len > 2 && (weir_str_prefix(s, WEIR_STR("*.")) || (s.ptr[0] == '.' && s.ptr[1] != '.'));
}

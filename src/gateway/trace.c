/* SPDX-License-Identifier: MIT */
/* trace: see trace.h. It only notes: nothing here decides. */
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "gateway/internal.h"

static const char *keep(struct trace *t, struct weir_str s)
{
    struct weir_str copy = weir_arena_str(&t->to->arena, s);
    if (!copy.ptr) t->nomem = true;
    return copy.ptr ? copy.ptr : "";
}

static struct weir_explain_step *add_step(struct trace *t)
{
    struct weir_explanation *e = t->to;
    if (e->step_count == e->step_cap) {
        size_t cap = e->step_cap ? e->step_cap * 2 : 32;
        struct weir_explain_step *more = weir_arena_alloc(&e->arena, cap * sizeof *more);
        if (!more) {
            t->nomem = true;
            return NULL;
        }
        if (e->step_count) memcpy(more, e->steps, e->step_count * sizeof *more);
        e->steps = more;
        e->step_cap = cap;
    }
    return &e->steps[e->step_count++];
}

static void step(struct trace *t, enum weir_explain_kind kind, bool good, struct weir_str what, const struct weir_config_place *place, const char *fmt, va_list ap) WEIR_PRINTF(6, 0);
static void step(struct trace *t, enum weir_explain_kind kind, bool good, struct weir_str what, const struct weir_config_place *place, const char *fmt, va_list ap)
{
    char why[512];
    vsnprintf(why, sizeof why, fmt, ap);
    const struct weir_explain_step *last = t->to->step_count ? &t->to->steps[t->to->step_count - 1] : NULL;
    if (last && last->kind == kind && last->good == good && weir_str_eq(weir_cstr(last->what), what) && strcmp(last->why, why) == 0) return; /* looked at twice */
    struct weir_explain_step *s = add_step(t);
    if (!s) return;
    *s = (struct weir_explain_step){.kind = kind, .good = good, .what = keep(t, what), .why = keep(t, weir_cstr(why))};
    if (place) s->place = *place;
}

void trace_step(struct trace *t, enum weir_explain_kind kind, bool good, struct weir_str what, const struct weir_config_place *place, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    step(t, kind, good, what, place, fmt, ap);
    va_end(ap);
}

void trace_guard(struct trace *t, bool passed, const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    step(t, WEIR_EXPLAIN_GUARD, passed, weir_cstr(name), NULL, fmt, ap);
    va_end(ap);
}

/* ---- site and route ---- */

static const char *site_why(const struct exchange *ex)
{
    const struct weir_conf_site *conf = ex->site->conf;
    struct weir_str host = http_without_port(ex->req->host);
    for (size_t i = 0; i < conf->name_count; i++)
        if (weir_str_ieq(weir_cstr(conf->names[i]), host)) return "it has the request's host name";
    for (size_t i = 0; i < conf->name_count; i++)
        if (conf->names[i][0] == '*' && conf->names[i][1] == '.' && host.len >= strlen(conf->names[i]) &&
            weir_str_ieq(weir_str(host.ptr + host.len + 1 - strlen(conf->names[i]), strlen(conf->names[i]) - 1), weir_cstr(conf->names[i] + 1)))
            return "its wildcard takes the request's host name";
    return "no site of this listener has the request's host name: the first one answers";
}

void trace_site(const struct exchange *ex)
{
    struct weir_explanation *e = ex->trace->to;
    e->listener = ex->listener->conf;
    e->site = ex->site->conf;
    e->site_why = site_why(ex);
}

/* "/api/ *.fcgi", or what stands for a site's own settings. */
static const char *patterns(struct trace *t, const struct weir_conf_route *r)
{
    char text[512];
    size_t n = 0;
    text[0] = 0;
    for (size_t i = 0; i < r->pattern_count && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s%s", i ? " " : "", r->patterns[i].match == WEIR_MATCH_SUFFIX ? "*" : "", r->patterns[i].text.ptr);
    return r->pattern_count ? keep(t, weir_cstr(text)) : "the site's own";
}

static const char *why_not(const struct weir_conf_route *r)
{
    if (r->pattern_count != 1) return "none of its patterns takes the path";
    switch (r->patterns[0].match) {
    case WEIR_MATCH_PREFIX: return "the path does not begin with it";
    case WEIR_MATCH_SUFFIX: return "no name in the path ends in it";
    case WEIR_MATCH_EXACT: return "the path is another one";
    }
    return "";
}

/* The gateway opened it when it took the configuration; why it could not is asked anew. */
static void note_root(struct trace *t, const struct route *r)
{
    t->to->root_problem = NULL;
    if (!r->conf->root || r->root_fd >= 0) return;
    int fd = weir_open_dir(r->conf->root);
    t->to->root_problem = fd < 0 ? keep(t, weir_cstr(strerror(errno))) : "it could not be opened";
    if (fd >= 0) close(fd);
}

void trace_route(const struct exchange *ex)
{
    struct trace *t = ex->trace;
    const struct site *site = ex->site;
    const struct route *own = &site->routes[site->conf->route_count - 1], *end = ex->route ? ex->route : own;
    if (t->to->route) /* an error page, `try`, or a redirect of an app's */
        trace_step(t, WEIR_EXPLAIN_ROUTE, true, ex->path.path, NULL, "the request goes there within the site");
    for (const struct route *r = site->routes; r < end; r++)
        trace_step(t, WEIR_EXPLAIN_ROUTE, false, weir_cstr(patterns(t, r->conf)), &r->conf->place, "%s",
                   route_matches(r, ex->path.path) ? "it takes the path, but not this method" : why_not(r->conf));
    if (!ex->route) return;
    t->to->route = ex->route->conf;
    trace_step(t, WEIR_EXPLAIN_ROUTE, true, weir_cstr(patterns(t, ex->route->conf)), &ex->route->conf->place, "%s",
               ex->route != own ? "it takes the path" : site->conf->route_count > 1 ? "no route before it takes the path" : "the site has no routes");
    note_root(t, ex->route);
}

/* ---- files ---- */

void trace_file(struct trace *t, struct weir_str path, bool known, bool is_dir, int error)
{
    const char *why = known ? "a file" : is_dir ? "a folder" : error == ENOENT || error == ENOTDIR ? "is not there" :
                      error == EACCES || error == EPERM ? "may not be read, or leads out of the root by a link" :
                      error == EXDEV || error == ELOOP ? "leads out of the root, or by a link that is not trusted" : error ? strerror(error) : "no regular file";
    trace_step(t, WEIR_EXPLAIN_FILE, known || is_dir, path, NULL, "%s", why);
}

/* ---- applications ---- */

static const char tls_protocol[] = "TLSv1.3", tls_cipher[] = "TLS_AES_256_GCM_SHA384", tls_unknown[] = "?", tls_verify[] = "SUCCESS";

size_t trace_tls_params(const struct exchange *ex, struct weir_pair out[static 8])
{
    static const char *const client[] = {"SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN", "SSL_CLIENT_M_SERIAL", "SSL_CLIENT_FINGERPRINT"};
    size_t n = 0;
    out[n++] = (struct weir_pair){WEIR_STR("SSL_PROTOCOL"), weir_cstr(tls_protocol)};
    out[n++] = (struct weir_pair){WEIR_STR("SSL_CIPHER"), weir_cstr(tls_cipher)};
    if (ex->site->conf->clients < 0) return n;
    out[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_VERIFY"), weir_cstr(tls_verify)};
    for (size_t i = 0; i < WEIR_COUNT(client); i++) out[n++] = (struct weir_pair){weir_cstr(client[i]), weir_cstr(tls_unknown)};
    return n;
}

/* An id that a header of the request gave. */
static bool is_client_id(const struct weir_cgi_request *r, struct weir_str id)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (r->headers[i].value.ptr == id.ptr) return true;
    return false;
}

/* Is it the value that the client's connection gives? Also what the configuration sets has such a name. */
static bool is_guess(const struct trace *t, const struct weir_cgi_request *r, struct weir_str value)
{
    if (value.ptr == r->remote_port.ptr || value.ptr == tls_protocol || value.ptr == tls_cipher || value.ptr == tls_unknown || value.ptr == tls_verify) return true;
    if (value.ptr == r->request_id.ptr) return !is_client_id(r, value);
    if (value.ptr == r->remote_addr.ptr) return !t->from_known;
    return value.ptr == t->server_addr.ptr && !t->local_known;
}

void trace_asked(const struct exchange *ex, const struct snapshot_pool *pool, enum weir_explain_role role, const struct weir_cgi_request *r,
                 const struct weir_pair *params, size_t count)
{
    struct trace *t = ex->trace;
    struct weir_explanation *e = t->to;
    if (role == WEIR_EXPLAIN_AUTHORIZER)
        trace_guard(t, true, "authorizer", "the pool %s is asked first; what it answers is not known here: the rest supposes that it lets the request pass", pool->conf->name);
    if (e->asked_count == WEIR_EXPLAIN_ASKED_MAX) return;
    struct weir_explain_asked *a = &e->asked[e->asked_count++];
    *a = (struct weir_explain_asked){.role = role, .pool = pool->conf, .params = weir_arena_alloc(&e->arena, (count + 1) * sizeof *a->params)};
    if (!a->params) {
        t->nomem = true;
        return;
    }
    for (size_t i = 0; i < count; i++)
        a->params[a->param_count++] = (struct weir_explain_param){.name = weir_str(keep(t, params[i].name), params[i].name.len),
                                                                  .value = weir_str(keep(t, params[i].value), params[i].value.len),
                                                                  .known = !is_guess(t, r, params[i].value)};
}

void trace_answer(const struct exchange *ex, int status, const char *why)
{
    struct weir_explanation *e = ex->trace->to;
    e->status = status;
    e->why = why ? keep(ex->trace, weir_cstr(why)) : NULL;
}

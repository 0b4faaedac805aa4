/* SPDX-License-Identifier: MIT */
/* Redirects that no client sees: to the end of a `try`, to an error page, to where an app sends a request. Each chooses its route
 * anew, whose guards are asked again; so many of them are followed, and an error on the way to an error page ends it. */
#include "gateway/internal.h"

/* ---- dropping what was found so far ---- */

void exchange_drop_answer(struct exchange *ex)
{
    if (ex->app) weir_client_req_free(ex->app);
    ex->app = NULL;
    ex->redirecting = ex->intercepting = ex->authorizing = ex->granting = ex->started = ex->head_done = ex->app_done = false;
    compress_end(ex);
    ex->guarding = false;
    ex->auth_try = NULL;
    ex->answer = ANSWER_NONE;
    ex->asked = NULL;
    ex->fields = NULL;
    ex->field_count = 0;
    ex->length = -1;
    lookup_close(&ex->lookup);
    ex->lookup.script[0] = 0;
    ex->lookup.folder = NULL;
    ex->handing = 0;
    ex->cold_checked = false;
    weir_buf_reset(&ex->pend, 4096);
}

void exchange_drop_body(struct exchange *ex)
{
    weir_spill_free(ex->body);
    ex->body = NULL;
    reply_arm(ex, 0); /* what answers does not wait for it */
}

/* ---- going ---- */

static bool parse_target(struct exchange *ex, struct weir_str to, bool apps)
{
    const char *why;
    if (++ex->redirects > MAX_REDIRECTS) {
        exchange_fail(ex, apps ? 502 : 500, apps ? "the application redirects in a circle" : "this site redirects in a circle");
        return false;
    }
    if (weir_cgi_path_parse(to, &ex->arena, &ex->path, &why) < 0) {
        exchange_fail(ex, apps ? 502 : 500, apps ? "the application redirects to a path that is not valid" : "an internal redirect leads to a path that is not valid");
        return false;
    }
    return true;
}

static void go_as_get(struct exchange *ex, bool apps)
{
    exchange_drop_answer(ex);
    exchange_drop_body(ex);
    ex->granted_count = 0;
    ex->method_override = ex->req->head ? "HEAD" : "GET";
    if (!parse_target(ex, ex->go_to, apps) || !exchange_route(ex) || guards_enter(ex) != GUARD_PASSED) return;
    if (ex->route->authorizer) exchange_authorize(ex);
    else exchange_dispatch(ex);
}

static void go_inside(struct exchange *ex)
{
    ex->inside = true;
    go_as_get(ex, false);
}

static void go_local(struct exchange *ex)
{
    ex->inside = false;
    go_as_get(ex, true);
}

/* A helper that still reads this exchange's file is waited for. */
static void go(struct exchange *ex, void (*how)(struct exchange *ex))
{
    if (ex->job_runs) ex->job_done = how;
    else how(ex);
}

void exchange_go(struct exchange *ex, struct weir_str to)
{
    ex->go_to = to;
    go(ex, go_inside);
}

void exchange_go_local(struct exchange *ex, struct weir_str to)
{
    ex->go_to = to;
    go(ex, go_local);
}

bool route_goes_on(const struct route *r)
{
    return r->conf->try_count && r->conf->tries[r->conf->try_count - 1].kind == WEIR_TRY_GO;
}

void exchange_go_on(struct exchange *ex, struct weir_str to)
{
    const struct route *from = ex->route;
    struct weir_str path = ex->path.path, query = ex->path.query;
    bool has_query = ex->path.has_query;
    exchange_drop_answer(ex);
    if (!parse_target(ex, to, false)) return;
    if (!ex->path.has_query) {
        ex->path.query = query;
        ex->path.has_query = has_query;
    }
    ex->inside = true;
    if (!exchange_route(ex)) return;
    if (ex->route == from && weir_str_eq(ex->path.path, path)) { /* it is here already */
        exchange_fail(ex, 404, "no such file, and what try leads to does not exist either");
        return;
    }
    if (ex->body && weir_spill_size(ex->body) > ex->route->conf->body_max) {
        exchange_fail(ex, 413, "the request body is larger than this site takes");
        return;
    }
    if (ex->route != from && guards_enter(ex) != GUARD_PASSED) return;
    if (ex->route->authorizer && ex->route->authorizer != from->authorizer) {
        exchange_authorize(ex);
        return;
    }
    if (!ex->route->authorizer) ex->granted_count = 0;
    exchange_dispatch(ex);
}

/* ---- error pages ---- */

static const char *page_of(const struct exchange *ex, int status)
{
    const struct weir_conf_route *conf = ex->route ? ex->route->conf : NULL;
    for (size_t i = 0; conf && i < conf->error_count; i++)
        if (conf->errors[i].status == status) return conf->errors[i].target;
    return NULL;
}

bool exchange_error_page(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why)
{
    const char *page = status >= 400 && !ex->error_status && ex->req ? page_of(ex, status) : NULL;
    struct weir_pair *kept = page ? weir_arena_alloc(&ex->arena, (extra_count + 1) * sizeof *kept) : NULL;
    if (!kept) return false;
    if (extra_count) memcpy(kept, extra, extra_count * sizeof *kept);
    ex->kept = kept;
    ex->kept_count = extra_count;
    ex->error_status = status;
    ex->why = why;
    ex->handed = NULL;
    ex->handed_count = 0;
    if (ex->trace) trace_answer(ex, status, why);
    exchange_go(ex, weir_cstr(page));
    return true;
}

bool exchange_intercepts(const struct exchange *ex, int status)
{
    return ex->route->conf->intercept_errors && !ex->authorizing && !ex->error_status && status >= 400 && page_of(ex, status);
}

/* Fields without which a client could not go on. */
static bool is_kept(struct weir_str name)
{
    return weir_str_ieq(name, WEIR_STR("WWW-Authenticate")) || weir_str_ieq(name, WEIR_STR("Retry-After")) || weir_str_ieq(name, WEIR_STR("Allow"));
}

void exchange_intercept(struct exchange *ex)
{
    size_t n = 0;
    for (size_t i = 0; i < ex->field_count; i++)
        if (is_kept(ex->fields[i].name)) ex->fields[n++] = ex->fields[i];
    if (!exchange_error_page(ex, ex->status, ex->fields, n, "the application's answer")) exchange_fail(ex, 503, "out of memory");
}

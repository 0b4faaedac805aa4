/* SPDX-License-Identifier: MIT */
/* One request with its response: its life, its route, answers of our own. What goes to an app and comes from it is exchange_app.c's,
 * files are serve_file.c's, reading and writing the client's bytes http_conn.c's. */
#include <stdlib.h>

#include "gateway/internal.h"

/* ---- life ---- */

struct exchange *exchange_new(struct worker *w)
{
    struct exchange *ex = w->free_ex;
    if (ex) {
        w->free_ex = ex->next_free;
        w->free_ex_count--;
    } else {
        ex = malloc(sizeof *ex);
        if (!ex) return NULL;
        weir_arena_init(&ex->arena, 1u << 20);
        ex->pend = (struct weir_buf){0};
        ex->serial = 0;
    }
    struct weir_arena arena = ex->arena;
    struct weir_buf pend = ex->pend;
    uint32_t serial = ex->serial + 1;
    memset(ex, 0, offsetof(struct exchange, lookup));
    memset(&ex->lookup, 0, offsetof(struct lookup, script) + 1); /* the rest of it is a text's room */
    ex->arena = arena;
    ex->pend = pend;
    ex->serial = serial;
    ex->worker = w;
    ex->length = -1;
    ex->lookup.fd = -1;
    ex->begun_us = w->loop->now_us;
    ex->trace = ex->lookup.trace = w->gw->trace;
    w->ex_count++;
    return ex;
}

static void recycle(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (ex->app) weir_client_req_free(ex->app);
    weir_spill_free(ex->body);
    compress_end(ex);
    lookup_close(&ex->lookup);
    if (ex->snap) snapshot_drop(ex->snap);
    w->ex_count--;
    weir_arena_reset(&ex->arena);
    weir_buf_reset(&ex->pend, 4096);
    ex->next_free = w->free_ex;
    w->free_ex = ex; /* until the turn is over: who has it on the stack finds its serial changed, or http NULL */
    w->free_ex_count++;
}

void exchange_trim(struct worker *w, uint32_t most)
{
    while (w->free_ex_count > most) {
        struct exchange *ex = w->free_ex;
        w->free_ex = ex->next_free;
        w->free_ex_count--;
        weir_arena_fini(&ex->arena);
        weir_buf_fini(&ex->pend);
        free(ex);
    }
}

/* Its connection goes on, or away, without it. */
static void leave(struct exchange *ex)
{
    ex->http = NULL;
    ex->stream = NULL;
    if (!ex->job_runs) recycle(ex); /* else the job's end does it */
}

void exchange_gone(struct exchange *ex)
{
    if (ex->app) {
        if (log_wants_apps(ex->worker)) exchange_note_app(ex);
        weir_client_req_free(ex->app);
        ex->app = NULL;
    }
    if (ex->req && !ex->done) {
        if (!ex->head_written) ex->status = 499; /* the client left before an answer (IOP-S13) */
        log_access(ex);
    }
    leave(ex);
}

void exchange_finish(struct exchange *ex)
{
    struct http_conn *h = ex->http;
    struct stream *s = ex->stream;
    bool keep_alive = ex->keep_alive;
    ex->done = true;
    log_access(ex);
    atomic_fetch_add_explicit(&ex->worker->requests, 1, memory_order_relaxed);
    leave(ex);
    reply_over(h, s, keep_alive);
}

void exchange_break_off(struct exchange *ex, const char *why)
{
    ex->why = why;
    exchange_note_app(ex);
    bool whole = ex->stream && (exchange_no_content(ex) || ex->length == 0); /* its head was all of it: the client has it */
    error_tell(ex, whole ? "answered, but then" : "answer cut off", why);
    if (whole) {
        exchange_finish(ex);
        return;
    }
    ex->done = true;
    log_access(ex);
    reply_abort(ex);
}

/* ---- heads ---- */

static const struct weir_pair server_field = {{"Server", 6}, {"weir", 4}};

bool exchange_write_head(struct exchange *ex)
{
    struct weir_pair fields[128];
    size_t n = 0;
    fields[n++] = server_field;
    for (size_t i = 0; i < ex->field_count && n < WEIR_COUNT(fields); i++) fields[n++] = ex->fields[i];
    for (size_t i = 0; ex->error_status && i < ex->kept_count && n < WEIR_COUNT(fields); i++) fields[n++] = ex->kept[i];
    if (n < WEIR_COUNT(fields) && exchange_tells_id(ex)) fields[n++] = (struct weir_pair){WEIR_STR("X-Request-Id"), exchange_id(ex)};
    n = guards_headers(ex, fields, n, WEIR_COUNT(fields));
    struct weir_http_response r = {.status = ex->status, .headers = fields, .header_count = n,
                                   .content_length = ex->length, .head = ex->req && ex->req->head,
                                   .keep_alive = ex->keep_alive && !ex->worker->draining,
                                   .minor = ex->req ? ex->req->minor : 1, .date = worker_date(ex->worker)};
    if (reply_head(ex, &r) < 0) return false;
    ex->head_written = true;
    reply_dirty(ex);
    return true;
}

bool exchange_no_content(const struct exchange *ex)
{
    return (ex->req && ex->req->head) || ex->status == 204 || ex->status == 304;
}

/* A whole answer of our own: HTML that lives until this returns. */
static void send_page(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why, struct weir_str page)
{
    struct weir_pair *fields = weir_arena_alloc(&ex->arena, sizeof *fields * (extra_count + 1));
    if (!fields) {
        reply_abort(ex);
        return;
    }
    fields[0] = (struct weir_pair){WEIR_STR("Content-Type"), WEIR_STR("text/html; charset=utf-8")};
    for (size_t i = 0; i < extra_count; i++) fields[i + 1] = extra[i];
    ex->status = status;
    ex->why = why;
    ex->answer = ANSWER_TEXT;
    if (ex->trace) trace_answer(ex, status, why);
    ex->fields = fields;
    ex->field_count = extra_count + 1;
    ex->length = status == 304 || status == 204 ? -1 : (int64_t)page.len;
    if (!ex->body_done) ex->keep_alive = false; /* the rest of the body is not read */
    if (!exchange_write_head(ex) || (!exchange_no_content(ex) && reply_put(ex, page.ptr, page.len) < 0)) {
        reply_abort(ex);
        return;
    }
    exchange_finish(ex);
}

void exchange_text(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why)
{
    if (ex->error_status) { /* its page cannot be had: the error itself is told */
        status = ex->error_status;
        extra = ex->kept;
        extra_count = ex->kept_count;
        why = ex->why;
        ex->error_status = 0;
    } else if (exchange_error_page(ex, status, extra, extra_count, why)) {
        return;
    }
    struct weir_buf page = {0};
    if (error_page(ex, status, why, &page)) send_page(ex, status, extra, extra_count, why, weir_str(weir_buf_ptr(&page), weir_buf_len(&page)));
    else reply_abort(ex);
    weir_buf_fini(&page);
}

static bool put(struct weir_buf *b, struct weir_str s)
{
    return weir_buf_append(b, s.ptr, s.len) == WEIR_OK;
}

/* The page of a suspended site: its own, or ours around its text. */
static void suspended(struct exchange *ex, struct weir_str text, bool page)
{
    static const struct weir_pair retry = {{"Retry-After", 11}, {"3600", 4}};
    struct weir_buf b = {0};
    if (page && text.len) {
        send_page(ex, 503, &retry, 1, "the site is suspended", text);
        return;
    }
    if (!text.len || page) text = WEIR_STR("Please come back later.");
    bool fine = page_begin(&b, 503, "Suspended") && put(&b, WEIR_STR("<h1>This site is suspended</h1>\n<p>")) && page_text(&b, text);
    if (fine && put(&b, WEIR_STR("</p></html>\n")))
        send_page(ex, 503, &retry, 1, "the site is suspended", weir_str(weir_buf_ptr(&b), weir_buf_len(&b)));
    else reply_abort(ex);
    weir_buf_fini(&b);
}

void exchange_fail(struct exchange *ex, int status, const char *why)
{
    static const struct weir_pair retry = {{"Retry-After", 11}, {"1", 1}};
    exchange_note_app(ex);
    if (ex->app) {
        weir_client_req_free(ex->app);
        ex->app = NULL;
    }
    if (ex->head_written) {
        exchange_break_off(ex, why);
        return;
    }
    if (status == 400) ex->keep_alive = false; /* whoever sends that is not to be trusted with a second message */
    if (is_our_fault(status)) {
        char what[12];
        snprintf(what, sizeof what, "%d", status);
        error_tell(ex, what, why);
    }
    weir_buf_reset(&ex->pend, 4096);
    exchange_text(ex, status, &retry, status == 503, why);
}

void exchange_refuse(struct exchange *ex, int status, const char *why)
{
    ex->keep_alive = false;
    exchange_fail(ex, status, why);
}

/* ---- the request ---- */

struct weir_str http_without_port(struct weir_str host)
{
    if (host.len == 0) return host;
    if (host.ptr[0] == '[') {
        const char *end = memchr(host.ptr, ']', host.len);
        return end ? weir_str(host.ptr, (size_t)(end - host.ptr) + 1) : host;
    }
    const char *colon = memchr(host.ptr, ':', host.len);
    return colon ? weir_str(host.ptr, (size_t)(colon - host.ptr)) : host;
}

struct weir_str http_protocol(const struct weir_http_request *req)
{
    if (req->major == 2) return WEIR_STR("HTTP/2.0");
    return req->minor ? WEIR_STR("HTTP/1.1") : WEIR_STR("HTTP/1.0");
}

static bool is_method(const struct exchange *ex, const char *name)
{
    return weir_str_eq(exchange_method(ex), weir_cstr(name));
}

static bool reads_app(const struct exchange *ex)
{
    enum weir_conf_action a = ex->route->conf->action;
    return a == WEIR_ACTION_POOL || a == WEIR_ACTION_PHP || ex->route->filter || route_goes_on(ex->route);
}

bool exchange_streams_request(const struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    if (!conf->stream_request || !reads_app(ex) || ex->route->filter || route_goes_on(ex->route)) return false;
    return ex->req->content_length > 0 || (ex->req->chunked && conf->stream_unknown);
}

/* Is the answer known without the body? A small one is read all the same, so that the connection stays. */
static bool decides_at_head(const struct exchange *ex)
{
    const struct weir_http_request *req = ex->req;
    bool small = !req->expect_continue && req->content_length >= 0 && req->content_length <= (int64_t)BODY_MEMORY;
    return !small && (!reads_app(ex) || !(ex->route->pool || ex->route->filter || route_goes_on(ex->route)) || is_method(ex, "TRACE"));
}

/* The body is read from here on, or the answer given without it. */
static void take_body(struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    if (decides_at_head(ex)) {
        exchange_dispatch(ex);
        return;
    }
    reply_limit_body(ex, conf->body_max);
    bool stream = exchange_streams_request(ex);
    struct weir_spill_limits lim = {.memory = stream ? STREAM_HIGH * 2 : BODY_MEMORY, .max = conf->body_max,
                                    .rewindable = !stream};
    ex->body = weir_spill_new(ex->worker->loop, &ex->worker->gw->quota, &lim, (struct weir_ident){.kind = KIND_BODY});
    if (!ex->body) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    weir_spill_set_user(ex->body, ex);
    reply_arm(ex, pace_body(ex));
    if (ex->req->expect_continue) {
        if (reply_interim(ex, 100, NULL, 0) < 0) {
            reply_abort(ex);
            return;
        }
    }
    if (stream || (ex->trace && !ex->req->chunked)) exchange_dispatch(ex); /* what it would be sent does not wait for the body */
}

/* What a certificate authority asks for by http:// [RFC 8555 8.3]: without it there may be no certificate. A token, and no path that
 * leads elsewhere. */
static bool is_challenge(struct weir_str path_query)
{
    static const struct weir_str folder = WEIR_CONST_STR("/.well-known/acme-challenge/");
    if (!weir_str_prefix(path_query, folder)) return false;
    for (size_t i = folder.len; i < path_query.len; i++) {
        char c = path_query.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_')) return false;
    }
    return true;
}

/* A site with a certificate is not served in clear text. */
static void redirect_to_https(struct exchange *ex)
{
    struct weir_str host = http_without_port(guards_host(ex)), path = ex->req->path_query;
    char port[8];
    bool star = path.len == 1 && path.ptr[0] == '*', same = is_method(ex, "GET") || is_method(ex, "HEAD");
    uint16_t number = ex->site->conf->https_port;
    if (host.len == 0 || star) {
        exchange_fail(ex, 403, "this site is served by https:// alone");
        return;
    }
    size_t port_len = number == 443 ? 0 : 1 + weir_u64_text(port + 1, number), len = 8 + host.len + port_len + path.len;
    port[0] = ':';
    char *to = weir_arena_bytes(&ex->arena, len);
    if (!to) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    memcpy(to, "https://", 8);
    memcpy(to + 8, host.ptr, host.len);
    memcpy(to + 8 + host.len, port, port_len);
    memcpy(to + 8 + host.len + port_len, path.ptr, path.len);
    exchange_redirect_to(ex, same ? 301 : 308, weir_str(to, len));
}

static bool refuses_body(struct exchange *ex)
{
    const struct weir_http_request *req = ex->req;
    if (!req->has_body || req->content_length < 0 || (uint64_t)req->content_length <= ex->route->conf->body_max) return false;
    exchange_fail(ex, 413, "the request body is larger than this site takes");
    return true;
}

void exchange_begin(struct exchange *ex, const struct weir_http_request *req)
{
    const struct http_conn *h = ex->http;
    const char *why;
    ex->req = req;
    ex->keep_alive = req->keep_alive;
    ex->body_done = !req->has_body;
    ex->snap = ex->worker->snap;
    snapshot_hold(ex->snap);
    ex->listener = snapshot_listener(ex->snap, h->listener);
    guards_client(ex);
    if (ex->client.known && worker_denies(ex->worker, ex->client.address)) { /* accepted before the order, or behind a proxy */
        ex->keep_alive = false;
        exchange_fail(ex, 403, "this address is denied");
        return;
    }
    if (!ex->listener) { /* a reload took its listener away */
        ex->keep_alive = false;
        exchange_fail(ex, 503, "this listener is not configured any more");
        return;
    }
    ex->site = snapshot_site(ex->snap, ex->listener, http_without_port(guards_host(ex)));
    if (!ex->site) {
        exchange_fail(ex, 404, "no site of that name is here");
        return;
    }
    if (ex->trace) trace_site(ex);
    int refused = http_tls_check(ex, &why);
    if (refused) {
        exchange_fail(ex, refused, why);
        return;
    }
    if (ex->site->conf->https_port && !guards_is_https(ex) && !is_challenge(req->path_query)) {
        redirect_to_https(ex);
        return;
    }
    struct weir_str text;
    bool page;
    if (worker_suspends(ex->worker, ex->site->conf, &text, &page)) {
        suspended(ex, text, page);
        return;
    }
    if (req->path_query.len == 1 && req->path_query.ptr[0] == '*') {
        exchange_text(ex, 204, NULL, 0, NULL);
        return;
    }
    int status = weir_cgi_path_parse(req->path_query, &ex->arena, &ex->path, &why);
    if (status < 0) {
        exchange_fail(ex, status == WEIR_NOMEM ? 503 : 400, status == WEIR_NOMEM ? "out of memory" : why);
        return;
    }
    if (ex->site->conf->broken) {
        exchange_fail(ex, 503, ex->site->conf->broken);
        return;
    }
    if (!exchange_route(ex)) return;
    if (guards_enter(ex) != GUARD_PASSED) return;
    if (refuses_body(ex)) return;
    if (ex->route->authorizer) exchange_authorize(ex);
    else if (req->has_body) take_body(ex); /* else exchange_body_end follows at once */
}

void exchange_guarded(struct exchange *ex)
{
    if (!ex->body_done && !ex->method_override && refuses_body(ex)) return;
    if (ex->route->authorizer) exchange_authorize(ex);
    else exchange_admitted(ex);
}

void exchange_admitted(struct exchange *ex)
{
    uint32_t serial = ex->serial;
    if (ex->body_done || ex->method_override) exchange_dispatch(ex);
    else take_body(ex);
    if (ex->serial == serial && ex->http && exchange_wants_body(ex)) reply_resume(ex);
}

bool exchange_wants_body(const struct exchange *ex)
{
    if (ex->body_done || ex->done || !ex->body) return false;
    if (weir_spill_full(ex->body)) return false;
    return !exchange_streams_request(ex) || weir_spill_left(ex->body) < STREAM_HIGH;
}

bool exchange_waits_for_app(const struct exchange *ex)
{
    return ex->answer != ANSWER_FILE && !ex->job_runs && !exchange_wants_body(ex);
}

void exchange_body(struct exchange *ex, struct weir_str bytes)
{
    int status = weir_spill_put(ex->body, bytes.ptr, bytes.len);
    if (status == WEIR_LIMIT) exchange_fail(ex, 503, "no room for the request body");
    else if (status < 0) exchange_fail(ex, 500, "the request body could not be stored");
    else if (ex->started) exchange_pump_app(ex);
}

void exchange_body_end(struct exchange *ex)
{
    ex->body_done = true;
    reply_arm(ex, 0);
    if (ex->authorizing || ex->guarding || ex->method_override) return; /* it goes on when that is known; it went elsewhere without its body */
    if (!ex->dispatched) exchange_dispatch(ex);
    else if (ex->body && exchange_streams_request(ex)) exchange_pump_app(ex);
}

void exchange_body_stored(struct weir_job *job)
{
    struct weir_spill *s = weir_spill_done(job);
    struct exchange *ex = s ? weir_spill_user(s) : NULL;
    if (!ex || !ex->http) return;
    if (!ex->body_done && weir_spill_failed(s)) { /* nothing more is read where the tail is full: say it here */
        exchange_fail(ex, 500, "the request body could not be stored");
        return;
    }
    if (ex->started) exchange_pump_app(ex);
    if (ex->http && !ex->body_done && exchange_wants_body(ex)) reply_resume(ex);
}

/* ---- routes ---- */

static bool starts_with_segment(struct weir_str path, struct weir_str prefix)
{
    return weir_str_prefix(path, prefix) || (prefix.len == path.len + 1 && weir_str_prefix(prefix, path));
}

/* SCRIPT_NAME and PATH_INFO for an app that is no file: what the route matched, and what follows. */
static void split_by_route(struct exchange *ex, struct script *s)
{
    const struct weir_conf_route *conf = ex->route->conf;
    struct weir_str path = ex->path.path;
    size_t cut = 0;
    for (size_t i = 0; i < conf->pattern_count && !ex->rewritten; i++) {
        const struct weir_conf_pattern *m = &conf->patterns[i];
        if (m->match == WEIR_MATCH_EXACT && weir_str_eq(path, m->text)) cut = path.len;
        else if (m->match == WEIR_MATCH_SUFFIX && weir_cgi_split_next(path, m->text, 0)) cut = weir_cgi_split_next(path, m->text, 0);
        else if (m->match == WEIR_MATCH_PREFIX && starts_with_segment(path, m->text)) cut = m->text.len - 1;
        else continue;
        break;
    }
    if (cut > path.len) cut = path.len;
    s->name = weir_str(path.ptr, cut);
    s->path_info = weir_str(path.ptr + cut, path.len - cut);
    const char *root = conf->app_root ? conf->app_root : conf->root;
    if (root && cut) s->filename = exchange_join(&ex->arena, root, s->name);
}

static void run_script(struct exchange *ex)
{
    struct lookup *l = &ex->lookup;
    struct script s = {0};
    const char *root = ex->route->conf->app_root ? ex->route->conf->app_root : ex->route->conf->root;
    if (l->script[0]) {
        s.name = weir_arena_str(&ex->arena, weir_cstr(l->script));
    } else {
        s.name = weir_str(ex->path.path.ptr, l->script_len);
        s.path_info = weir_str(ex->path.path.ptr + l->script_len, ex->path.path.len - l->script_len);
    }
    if (ex->route->programs && ex->rewritten && !exchange_crosses(ex, s.name, false)) return;
    if (ex->route->programs && !ex->rewritten && site_route(ex->site, s.name, exchange_method(ex)) != ex->route) { /* PATH_INFO behind it makes no other program of it */
        exchange_fail(ex, 403, "another route decides about this program");
        return;
    }
    s.filename = root ? exchange_join(&ex->arena, root, s.name) : (struct weir_str){0};
    if (!s.name.ptr || (root && !s.filename.ptr)) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    exchange_run_app(ex, &s);
}

/* What try, an index or the front controller stands for has a route of its own, which may guard it, and so does what a rewritten
 * path names: true: it did, and that is answered. */
static bool other_route_guards(struct exchange *ex)
{
    const struct lookup *l = &ex->lookup;
    if ((!l->script[0] && !ex->rewritten) || (l->kind != LOOKUP_FILE && l->kind != LOOKUP_SCRIPT)) return false;
    return !exchange_crosses(ex, l->script[0] ? weir_cstr(l->script) : ex->path.path, l->is_front);
}

static void run_app(struct exchange *ex)
{
    struct script s = {0};
    split_by_route(ex, &s);
    exchange_run_app(ex, &s);
}

/* A connection of HTTP/2 may hold a hundred, and is one connection. */
static bool too_many_files(const struct exchange *ex)
{
    const struct gateway *gw = ex->worker->gw;
    return ex->lookup.fd >= 0 && atomic_load_explicit(&gw->file_count, memory_order_relaxed) > atomic_load_explicit(&gw->file_max, memory_order_relaxed);
}

static void looked_up(struct exchange *ex)
{
    if (too_many_files(ex)) {
        lookup_close(&ex->lookup);
        exchange_fail(ex, 503, "too many files are open at once");
        return;
    }
    if (ex->lookup.folder) {
        exchange_handed_file(ex);
        return;
    }
    if (other_route_guards(ex)) return;
    switch (ex->lookup.kind) {
    case LOOKUP_FILE:
        if (ex->route->filter) exchange_filter(ex);
        else exchange_file_begin(ex);
        break;
    case LOOKUP_SCRIPT: run_script(ex); break;
    case LOOKUP_DIR_REDIRECT: exchange_redirect_to_folder(ex); break;
    case LOOKUP_GO: exchange_go_on(ex, ex->lookup.last->before); break;
    case LOOKUP_STATUS: exchange_fail(ex, ex->lookup.last->status, "nothing of what this site tries is there"); break;
    case LOOKUP_APP: run_app(ex); break;
    case LOOKUP_DENIED: exchange_fail(ex, 403, "this file may not be read"); break;
    case LOOKUP_FAILED: exchange_fail(ex, 500, "the file could not be opened"); break;
    case LOOKUP_NONE:
        exchange_fail(ex, 404, ex->route->programs ? "no such program" : ex->route->scripts ? "no such file, and no index.php answers for it" : "no such file");
        break;
    }
}

static void run_lookup(struct weir_job *job)
{
    struct exchange *ex = WEIR_CONTAINER(job, struct exchange, job);
    ex->lookup.cached_only = false;
    ex->lookup.files = NULL;
    if (lookup_run(&ex->lookup) != 0) ex->lookup.kind = LOOKUP_FAILED;
}

void exchange_lookup(struct exchange *ex)
{
    WEIR_ASSERT(!ex->job_runs); /* one job, one lookup: it would end twice */
    ex->lookup.of = ex;
    ex->lookup.route = ex->route;
    ex->lookup.open_count = &ex->worker->gw->file_count;
    ex->lookup.cached_only = !ex->trace; /* who explains may wait */
    ex->lookup.files = ex->trace ? NULL : ex->worker->seen;
    ex->lookup.kind = LOOKUP_NONE;
    if (lookup_run(&ex->lookup) == 0) {
        looked_up(ex);
        return;
    }
    ex->job = (struct weir_job){.run = run_lookup, .ident = {.kind = KIND_FILE}};
    ex->job_done = looked_up;
    ex->job_runs = true;
    weir_loop_job(ex->worker->loop, &ex->job);
}

static void find_file(struct exchange *ex)
{
    ex->lookup.folder = NULL;
    ex->lookup.path = ex->path.path;
    exchange_want_codings(ex);
    if (ex->route->root_fd < 0) exchange_fail(ex, ex->route->conf->root ? 503 : 404, ex->route->conf->root ? "the root cannot be opened" : "no such file");
    else exchange_lookup(ex);
}

void exchange_file_done(struct exchange *ex)
{
    ex->job_runs = false;
    if (!ex->http) {
        recycle(ex);
        return;
    }
    struct http_conn *h = ex->http;
    uint32_t epoch = h->epoch;
    ex->job_done(ex);
    http_left(h, epoch); /* its client may have gone meanwhile */
}

void exchange_dispatch(struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    ex->dispatched = true;
    if (is_method(ex, "TRACE")) {
        exchange_fail(ex, 405, "TRACE is not served");
        return;
    }
    switch (conf->action) {
    case WEIR_ACTION_DENY: exchange_fail(ex, 403, "this path is not served"); return;
    case WEIR_ACTION_REDIRECT: exchange_redirect(ex); return;
    case WEIR_ACTION_FILES:
    case WEIR_ACTION_PHP: find_file(ex); return;
    case WEIR_ACTION_POOL:
        if (ex->route->scripts || ex->route->programs || conf->try_count) find_file(ex);
        else run_app(ex);
        return;
    }
}

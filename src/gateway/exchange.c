/* SPDX-License-Identifier: MIT */
/* One request with its response: which route, what the app is sent, how its answer becomes HTTP. Reading and writing the
 * client's bytes is http_conn.c's, files are serve_file.c's. */
#include <stdlib.h>

#include "gateway/internal.h"

static void dispatch(struct exchange *ex);
static void pump_app(struct exchange *ex);

/* ---- life ---- */

struct exchange *exchange_new(struct worker *w)
{
    struct exchange *ex = w->free_ex;
    if (ex) {
        w->free_ex = ex->next_free;
    } else {
        ex = malloc(sizeof *ex);
        if (!ex) return NULL;
        weir_arena_init(&ex->arena, 1u << 20);
        ex->pend = (struct weir_buf){0};
    }
    struct weir_arena arena = ex->arena;
    struct weir_buf pend = ex->pend;
    memset(ex, 0, offsetof(struct exchange, lookup));
    ex->lookup.script[0] = 0;
    ex->arena = arena;
    ex->pend = pend;
    ex->worker = w;
    ex->length = -1;
    ex->lookup.fd = -1;
    ex->begun_us = w->loop->now_us;
    w->ex_count++;
    return ex;
}

static void recycle(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (ex->app) weir_client_req_free(ex->app);
    weir_spill_free(ex->body);
    if (ex->lookup.fd >= 0) weir_loop_close(w->loop, ex->lookup.fd);
    if (ex->snap) snapshot_drop(ex->snap);
    weir_arena_reset(&ex->arena);
    weir_buf_reset(&ex->pend, 4096);
    ex->next_free = w->free_ex;
    w->free_ex = ex;
    w->ex_count--;
}

/* Its connection goes on, or away, without it. */
static void leave(struct exchange *ex)
{
    ex->http = NULL;
    if (!ex->job_runs) recycle(ex); /* else the job's end does it */
}

void exchange_gone(struct exchange *ex)
{
    if (ex->app) {
        weir_client_req_free(ex->app);
        ex->app = NULL;
    }
    if (ex->req && !ex->done) {
        if (!ex->head_written) ex->status = 499; /* the client left before an answer */
        log_access(ex);
    }
    leave(ex);
}

void exchange_finish(struct exchange *ex)
{
    struct http_conn *h = ex->http;
    ex->done = true;
    log_access(ex);
    atomic_fetch_add_explicit(&ex->worker->requests, 1, memory_order_relaxed);
    if (!ex->keep_alive) h->close_after = true;
    http_arm(h, 0);
    if (weir_buf_len(&h->out) == 0) h->send_due_ms = 0;
    leave(ex);
    http_next(h);
}

/* Cuts the answer off: what was promised cannot be kept, and the client has to see that. */
static void break_off(struct exchange *ex, const char *why)
{
    struct http_conn *h = ex->http;
    ex->why = why;
    log_error(ex->worker, "%s: answer cut off: %s", ex->route && ex->route->pool ? weir_pool_name(ex->route->pool) : "-",
              why);
    ex->done = true;
    log_access(ex);
    http_send_now(h);
    http_close(h);
}

/* ---- heads ---- */

static const struct weir_pair server_field = {{"Server", 6}, {"weir", 4}};

bool exchange_write_head(struct exchange *ex)
{
    struct http_conn *h = ex->http;
    struct weir_pair fields[128];
    size_t n = 0;
    fields[n++] = server_field;
    for (size_t i = 0; i < ex->field_count && n < WEIR_COUNT(fields); i++) fields[n++] = ex->fields[i];
    struct weir_http_response r = {.status = ex->status, .headers = fields, .header_count = n,
                                   .content_length = ex->length, .head = ex->req && ex->req->head,
                                   .keep_alive = ex->keep_alive && !h->worker->draining,
                                   .minor = ex->req ? ex->req->minor : 1, .date = worker_date(ex->worker)};
    worker_take_spare(ex->worker, &h->out);
    if (weir_http1_write_head(&h->out, &r, &ex->framing, &ex->keep_alive) < 0) return false;
    ex->head_written = true;
    http_dirty(h);
    return true;
}

static bool no_content(const struct exchange *ex)
{
    return (ex->req && ex->req->head) || ex->status == 204 || ex->status == 304;
}

/* 501 and 505 answer what the client asked for; nothing is wrong with us. */
static bool is_our_fault(int status)
{
    return status >= 500 && status != 501 && status != 505;
}

/* A whole answer of our own: HTML that lives until this returns. */
static void send_page(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why, struct weir_str page)
{
    struct http_conn *h = ex->http;
    struct weir_pair *fields = weir_arena_alloc(&ex->arena, sizeof *fields * (extra_count + 1));
    if (!fields) {
        http_close(h);
        return;
    }
    fields[0] = (struct weir_pair){WEIR_STR("Content-Type"), WEIR_STR("text/html; charset=utf-8")};
    for (size_t i = 0; i < extra_count; i++) fields[i + 1] = extra[i];
    ex->status = status;
    ex->why = why;
    ex->answer = ANSWER_TEXT;
    ex->fields = fields;
    ex->field_count = extra_count + 1;
    ex->length = status == 304 || status == 204 ? -1 : (int64_t)page.len;
    if (!ex->body_done) ex->keep_alive = false; /* the rest of the body is not read */
    if (!exchange_write_head(ex)) {
        http_close(h);
        return;
    }
    if (!no_content(ex)) {
        if (weir_buf_append(&h->out, page.ptr, page.len) < 0) {
            http_close(h);
            return;
        }
        ex->sent = page.len;
    }
    exchange_finish(ex);
}

static const char page_head[] = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>%d %s</title>\n"
                                "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;"
                                "color-scheme:light dark}p{opacity:.75}</style>\n";

void exchange_text(struct exchange *ex, int status, const struct weir_pair *extra, size_t extra_count, const char *why)
{
    bool tell = why && (!is_our_fault(status) || (ex->site && ex->site->conf->debug));
    const char *text = weir_http_status_text(status);
    char page[768];
    int len = snprintf(page, sizeof page, page_head, status, text);
    if (len >= 0) len += snprintf(page + len, sizeof page - (size_t)len, "<h1>%d %s</h1>\n<p>%s%s</p></html>\n", status, text, tell ? why : "", tell ? "." : "");
    if (len < 0) len = 0;
    if (len >= (int)sizeof page) len = (int)sizeof page - 1;
    send_page(ex, status, extra, extra_count, why, weir_str(page, (size_t)len));
}

static const char *entity_of(char c)
{
    return c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : NULL;
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
    char head[512];
    if (page && text.len) {
        send_page(ex, 503, &retry, 1, "the site is suspended", text);
        return;
    }
    if (!text.len || page) text = WEIR_STR("Please come back later.");
    int len = snprintf(head, sizeof head, page_head, 503, "Suspended");
    bool fine = put(&b, weir_str(head, (size_t)len)) && put(&b, WEIR_STR("<h1>This site is suspended</h1>\n<p>"));
    for (size_t i = 0; i < text.len && fine; i++) {
        const char *e = entity_of(text.ptr[i]);
        fine = put(&b, e ? weir_cstr(e) : weir_str(text.ptr + i, 1));
    }
    if (fine && put(&b, WEIR_STR("</p></html>\n")))
        send_page(ex, 503, &retry, 1, "the site is suspended", weir_str(weir_buf_ptr(&b), weir_buf_len(&b)));
    else http_close(ex->http);
    weir_buf_fini(&b);
}

void exchange_fail(struct exchange *ex, int status, const char *why)
{
    static const struct weir_pair retry = {{"Retry-After", 11}, {"1", 1}};
    if (ex->app) {
        weir_client_req_free(ex->app);
        ex->app = NULL;
    }
    if (ex->head_written) {
        break_off(ex, why);
        return;
    }
    if (status == 400) ex->keep_alive = false; /* whoever sends that is not to be trusted with a second message */
    if (is_our_fault(status))
        log_error(ex->worker, "%s: %d for %.*s: %s", ex->route && ex->route->pool ? weir_pool_name(ex->route->pool) : "-",
                  status, ex->req ? (int)(ex->req->target.len < 200 ? ex->req->target.len : 200) : 0,
                  ex->req ? ex->req->target.ptr : "", why);
    weir_buf_reset(&ex->pend, 4096);
    exchange_text(ex, status, &retry, status == 503, why);
}

void exchange_refuse(struct http_conn *h, int status, const char *why)
{
    struct exchange *ex = h->ex;
    if (h->state == HTTP_HEAD) { /* nothing of the request is known: the parser's half of it is not used */
        h->state = HTTP_EXCHANGE;
        ex->req = NULL;
    }
    ex->keep_alive = false;
    exchange_fail(ex, status, why);
}

/* ---- the request ---- */

static struct weir_str without_port(struct weir_str host)
{
    if (host.len == 0) return host;
    if (host.ptr[0] == '[') {
        const char *end = memchr(host.ptr, ']', host.len);
        return end ? weir_str(host.ptr, (size_t)(end - host.ptr) + 1) : host;
    }
    const char *colon = memchr(host.ptr, ':', host.len);
    return colon ? weir_str(host.ptr, (size_t)(colon - host.ptr)) : host;
}

static bool is_method(const struct exchange *ex, const char *name)
{
    if (ex->method_override) return strcmp(ex->method_override, name) == 0;
    return weir_str_eq(ex->req->method, weir_cstr(name));
}

static bool reads_app(const struct exchange *ex)
{
    enum weir_conf_action a = ex->route->conf->action;
    return a == WEIR_ACTION_POOL || a == WEIR_ACTION_PHP;
}

static bool streams_request(const struct exchange *ex)
{
    return ex->route->conf->stream_request && reads_app(ex) && ex->req->content_length > 0;
}

/* Is the answer known without the body? A small one is read all the same, so that the connection stays. */
static bool decides_at_head(const struct exchange *ex)
{
    const struct weir_http_request *req = ex->req;
    bool small = !req->expect_continue && req->content_length >= 0 && req->content_length <= (int64_t)BODY_MEMORY;
    return !small && (!reads_app(ex) || !ex->route->pool || is_method(ex, "TRACE"));
}

void exchange_begin(struct http_conn *h, const struct weir_http_request *req, struct exchange *ex)
{
    const char *why;
    ex->req = req;
    ex->keep_alive = req->keep_alive;
    ex->body_done = !req->has_body;
    ex->snap = h->worker->snap;
    snapshot_hold(ex->snap);
    ex->listener = snapshot_listener(ex->snap, h->listener);
    if (worker_denies(h->worker, (const struct sockaddr *)&h->peer)) { /* it was accepted before the order */
        ex->keep_alive = false;
        exchange_fail(ex, 403, "this address is denied");
        return;
    }
    if (!ex->listener) { /* a reload took its listener away */
        ex->keep_alive = false;
        exchange_fail(ex, 503, "this listener is not configured any more");
        return;
    }
    ex->site = snapshot_site(ex->snap, ex->listener, without_port(req->host));
    if (!ex->site) {
        exchange_fail(ex, 404, "no site of that name is here");
        return;
    }
    struct weir_str text;
    bool page;
    if (worker_suspends(h->worker, ex->site->conf, &text, &page)) {
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
    ex->route = site_route(ex->site, ex->path.path);
    if (ex->site->conf->broken) {
        exchange_fail(ex, 503, ex->site->conf->broken);
        return;
    }
    const struct weir_conf_route *conf = ex->route->conf;
    if (!req->has_body) return; /* exchange_body_end follows at once */
    if (req->content_length >= 0 && (uint64_t)req->content_length > conf->body_max) {
        exchange_fail(ex, 413, "the request body is larger than this site takes");
        return;
    }
    if (decides_at_head(ex)) {
        dispatch(ex);
        return;
    }
    weir_http1_limit_body(h->parser, conf->body_max);
    http_arm(h, conf->body_ms);
    bool stream = streams_request(ex);
    struct weir_spill_limits lim = {.memory = stream ? STREAM_HIGH * 2 : BODY_MEMORY, .max = conf->body_max,
                                    .rewindable = !stream};
    ex->body = weir_spill_new(ex->worker->loop, &ex->worker->gw->quota, &lim, (struct weir_ident){.kind = KIND_BODY});
    if (!ex->body) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    weir_spill_set_user(ex->body, ex);
    if (req->expect_continue) {
        worker_take_spare(ex->worker, &h->out);
        if (weir_http1_write_interim(&h->out, 100, NULL, 0) < 0) {
            http_close(h);
            return;
        }
        http_dirty(h);
    }
    if (stream) dispatch(ex);
}

bool exchange_wants_body(const struct exchange *ex)
{
    if (ex->body_done || ex->done || !ex->body) return false;
    if (weir_spill_full(ex->body)) return false;
    return !streams_request(ex) || weir_spill_left(ex->body) < STREAM_HIGH;
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
    else if (ex->started) pump_app(ex);
}

void exchange_body_end(struct exchange *ex)
{
    ex->body_done = true;
    http_arm(ex->http, 0);
    if (ex->body && streams_request(ex)) pump_app(ex);
    else dispatch(ex);
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
    if (ex->started) pump_app(ex);
    if (ex->http && !ex->body_done && exchange_wants_body(ex)) http_resume(ex->http);
}

/* ---- to the app ---- */

static void pump_app(struct exchange *ex)
{
    const char *p;
    size_t len;
    while (ex->app && ex->body) {
        int status = weir_spill_peek(ex->body, &p, &len);
        if (status == WEIR_SYSTEM) {
            exchange_fail(ex, 500, "the request body could not be read back");
            return;
        }
        if (status != WEIR_OK) break;
        int64_t n = weir_client_write(ex->app, p, len);
        if (n == WEIR_NOMEM) {
            exchange_fail(ex, 503, "out of memory");
            return;
        }
        if (n < 0) break; /* its end is told by an event */
        weir_spill_consume(ex->body, (size_t)n);
        if ((size_t)n < len) break;
    }
    if (ex->http && !ex->body_done && ex->http->in_use && exchange_wants_body(ex)) http_resume(ex->http);
}

struct script {
    struct weir_str name, filename, path_info;
};

static struct weir_str join(struct weir_arena *a, const char *root, struct weir_str path)
{
    size_t n = strlen(root);
    while (n && root[n - 1] == '/') n--;
    char *p = weir_arena_bytes(a, n + path.len + 1);
    if (!p) return (struct weir_str){0};
    memcpy(p, root, n);
    memcpy(p + n, path.ptr, path.len);
    p[n + path.len] = 0;
    return weir_str(p, n + path.len);
}

static struct weir_str address_text(struct weir_arena *a, const struct sockaddr_storage *s, struct weir_str *port)
{
    char text[INET6_ADDRSTRLEN + 8], digits[20];
    uint16_t n = weir_address_text(s, text, sizeof text);
    *port = weir_arena_str(a, weir_str(digits, weir_u64_text(digits, n)));
    return weir_arena_str(a, weir_cstr(text));
}

static void fill_addresses(struct exchange *ex, struct weir_cgi_request *r)
{
    struct http_conn *h = ex->http;
    struct sockaddr_storage peer = {0};
    memcpy(&peer, &h->peer, sizeof h->peer);
    r->remote_addr = address_text(&ex->arena, &peer, &r->remote_port);
    const struct listener *l = ex->listener;
    r->server_addr = l->server_addr;
    r->server_port = l->server_port;
    if (!l->any_address) return;
    struct sockaddr_storage local = {0};
    socklen_t len = sizeof local;
    if (getsockname(h->fd, (struct sockaddr *)&local, &len) == 0)
        r->server_addr = address_text(&ex->arena, &local, &r->server_port);
}

static int start_app(struct exchange *ex, const struct script *s)
{
    const struct weir_conf_route *conf = ex->route->conf;
    const struct weir_http_request *req = ex->req;
    struct weir_str host = without_port(req->host);
    const char *root = conf->app_root ? conf->app_root : conf->root;
    struct weir_cgi_request r = {
        .method = ex->method_override ? weir_cstr(ex->method_override) : req->method,
        .protocol = req->minor ? WEIR_STR("HTTP/1.1") : WEIR_STR("HTTP/1.0"),
        .request_uri = req->path_query, .query = ex->path.query, .document_uri = ex->path.path,
        .document_root = root ? weir_cstr(root) : (struct weir_str){0},
        .script_name = s->name, .script_filename = s->filename, .path_info = s->path_info,
        .server_name = host.len ? host : WEIR_STR("_"), .scheme = WEIR_STR("http"), .redirect_status = WEIR_STR("200"),
        .content_length = ex->body ? (int64_t)(ex->body_done ? weir_spill_size(ex->body)
                                                             : (uint64_t)req->content_length) : -1,
        .headers = req->headers, .header_count = req->header_count, .host = req->host,
        .extra = conf->params, .extra_count = conf->param_count};
    fill_addresses(ex, &r);
    struct weir_client_begin b = {.role = WEIR_RESPONDER, .queue_ms = conf->queue_ms, .silent_ms = conf->silent_ms,
                                  .request_ms = conf->request_ms, .user = &ex->caller,
                                  .body_len = r.content_length > 0 ? (uint64_t)r.content_length : 0};
    struct weir_pair *pairs;
    int status = weir_cgi_params(&r, &ex->arena, &pairs, &b.param_count);
    if (status < 0) return status;
    b.params = pairs;
    b.body_kept = !streams_request(ex);
    b.slow_ms = conf->slow_ms;
    ex->answer = ANSWER_APP;
    ex->head_done = ex->app_done = false;
    ex->head = weir_cgi_head_new(&ex->arena, NULL);
    if (!ex->head) return WEIR_NOMEM;
    return weir_client_begin(ex->worker->client, ex->route->pool, &b, &ex->app);
}

int app_not_begun(int status, struct weir_pool *p, const char **why)
{
    switch (status) {
    case WEIR_LIMIT: *why = "the pool's queue is full"; return 503;
    case WEIR_REFUSED:
        *why = weir_pool_refusal(p);
        if (!*why) *why = "the pool takes no requests";
        return 503;
    case WEIR_INVALID: *why = "a parameter of the request is too large for FastCGI"; return 431;
    default: *why = "out of memory"; return 503;
    }
}

static void run_app(struct exchange *ex, const struct script *s)
{
    const char *why;
    if (!ex->route->pool) {
        exchange_fail(ex, 503, ex->route->pool_conf && ex->route->pool_conf->broken ? ex->route->pool_conf->broken
                                                                                      : "no pool serves this route");
        return;
    }
    int status = start_app(ex, s);
    if (status < 0) {
        int code = app_not_begun(status, ex->route->pool, &why);
        exchange_fail(ex, code, why);
    } else if (status == 1) {
        ex->started = true;
        pump_app(ex);
    }
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
    for (size_t i = 0; i < conf->pattern_count; i++) {
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
    if (root && cut) s->filename = join(&ex->arena, root, s->name);
}

static void redirect(struct exchange *ex, int status, struct weir_str to)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    if (!f) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    *f = (struct weir_pair){WEIR_STR("Location"), to};
    exchange_text(ex, status, f, 1, NULL);
}

/* The folder's own URL ends in a slash: the path as the client wrote it, and its query. */
static void redirect_to_folder(struct exchange *ex)
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
    redirect(ex, 301, weir_str(p, len + raw.len - n));
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
    if (ex->route->programs && site_route(ex->site, s.name) != ex->route) { /* PATH_INFO behind it makes no other program of it */
        exchange_fail(ex, 403, "another route decides about this program");
        return;
    }
    s.filename = root ? join(&ex->arena, root, s.name) : (struct weir_str){0};
    if (!s.name.ptr || (root && !s.filename.ptr)) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    run_app(ex, &s);
}

static void looked_up(struct exchange *ex)
{
    switch (ex->lookup.kind) {
    case LOOKUP_FILE: exchange_file_begin(ex); break;
    case LOOKUP_SCRIPT: run_script(ex); break;
    case LOOKUP_DIR_REDIRECT: redirect_to_folder(ex); break;
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
    if (lookup_run(&ex->lookup) != 0) ex->lookup.kind = LOOKUP_FAILED;
}

static void find_file(struct exchange *ex)
{
    ex->lookup.route = ex->route;
    ex->lookup.path = ex->path.path;
    ex->lookup.cached_only = true;
    ex->lookup.kind = LOOKUP_NONE;
    if (ex->route->root_fd < 0) {
        exchange_fail(ex, ex->route->conf->root ? 503 : 404, ex->route->conf->root ? "the root cannot be opened" : "no such file");
        return;
    }
    if (lookup_run(&ex->lookup) == 0) {
        looked_up(ex);
        return;
    }
    ex->job.run = run_lookup;
    ex->job.ident = (struct weir_ident){.kind = KIND_FILE};
    ex->job_done = looked_up;
    ex->job_runs = true;
    weir_loop_job(ex->worker->loop, &ex->job);
}

void exchange_file_done(struct exchange *ex)
{
    ex->job_runs = false;
    if (!ex->http) {
        recycle(ex);
        return;
    }
    ex->job_done(ex);
}

static void dispatch(struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    struct script s = {0};
    if (is_method(ex, "TRACE")) {
        exchange_fail(ex, 405, "TRACE is not served");
        return;
    }
    switch (conf->action) {
    case WEIR_ACTION_DENY: exchange_fail(ex, 403, "this path is not served"); return;
    case WEIR_ACTION_REDIRECT: redirect(ex, conf->redirect_status ? conf->redirect_status : 302, weir_cstr(conf->redirect)); return;
    case WEIR_ACTION_FILES:
    case WEIR_ACTION_PHP: find_file(ex); return;
    case WEIR_ACTION_POOL:
        if (ex->route->scripts || ex->route->programs) {
            find_file(ex);
            return;
        }
        split_by_route(ex, &s);
        run_app(ex, &s);
        return;
    }
}

/* ---- from the app ---- */

static void local_redirect(struct exchange *ex)
{
    const struct weir_cgi_response *r = weir_cgi_head_response(ex->head);
    struct weir_str to = r->location;
    const char *why;
    weir_client_req_free(ex->app);
    ex->app = NULL;
    ex->redirecting = ex->started = ex->head_done = false;
    ex->answer = ANSWER_NONE;
    weir_spill_free(ex->body);
    ex->body = NULL;
    http_arm(ex->http, 0); /* what the redirected request answers does not wait for it */
    ex->method_override = ex->req->head ? "HEAD" : "GET";
    weir_buf_reset(&ex->pend, 4096);
    if (++ex->redirects > MAX_REDIRECTS) {
        exchange_fail(ex, 502, "the application redirects in a circle");
        return;
    }
    if (weir_cgi_path_parse(to, &ex->arena, &ex->path, &why) < 0) {
        exchange_fail(ex, 502, "the application redirects to a path that is not valid");
        return;
    }
    ex->route = site_route(ex->site, ex->path.path);
    dispatch(ex);
}

/* Content into the connection's output, framed. */
static int put_content(struct exchange *ex, const char *p, size_t len)
{
    struct weir_buf *out = &ex->http->out;
    worker_take_spare(ex->worker, out);
    int status = ex->framing == WEIR_HTTP_CHUNKED ? weir_http1_write_chunk(out, p, len) : weir_buf_append(out, p, len);
    if (status == WEIR_OK) ex->sent += len;
    return status;
}

/* Content for the client: how much of it is taken now, or WEIR_NOMEM. */
static int64_t content(struct exchange *ex, const char *p, size_t len)
{
    struct http_conn *h = ex->http;
    if (no_content(ex)) return (int64_t)len;
    size_t take = len;
    if (ex->length >= 0 && ex->head_written && take > (uint64_t)ex->length - ex->sent) {
        take = (size_t)((uint64_t)ex->length - ex->sent);
        if (take == 0) return (int64_t)len; /* more than it said: cut */
    }
    struct weir_buf *to = ex->head_written ? &h->out : &ex->pend;
    size_t held = weir_buf_len(to);
    size_t room = held < OUT_HIGH ? OUT_HIGH - held : 0;
    if (take > room) take = room;
    if (take == 0) return 0;
    if ((ex->head_written ? put_content(ex, p, take) : weir_buf_append(to, p, take)) < 0) return WEIR_NOMEM;
    http_dirty(h);
    return (int64_t)take;
}

static bool head_is_ready(struct exchange *ex)
{
    const struct weir_cgi_response *r = weir_cgi_head_response(ex->head);
    ex->head_done = true;
    if (r->kind == WEIR_CGI_LOCAL_REDIRECT) {
        ex->redirecting = true;
        return true;
    }
    ex->status = r->status;
    ex->fields = r->headers;
    ex->field_count = r->header_count;
    ex->length = r->content_length;
    http_dirty(ex->http);
    return true;
}

static void app_output(struct exchange *ex, const char *p, size_t len, struct weir_client_req *req)
{
    size_t taken = 0;
    if (!ex->head_done) {
        const char *why;
        int status = weir_cgi_head_feed(ex->head, p, len, &taken, &why);
        if (status == WEIR_PROTOCOL || status == WEIR_LIMIT) {
            exchange_fail(ex, 502, why);
            return;
        }
        if (status == WEIR_NOMEM) {
            exchange_fail(ex, 503, "out of memory");
            return;
        }
        if (status == WEIR_OK) head_is_ready(ex);
    }
    if (ex->redirecting) {
        taken = len;
    } else if (ex->head_done && taken < len) {
        int64_t n = content(ex, p + taken, len - taken);
        if (n < 0) {
            exchange_fail(ex, 503, "out of memory");
            return;
        }
        taken += (size_t)n;
    }
    weir_client_consume(req, taken);
}

/* Takes what is held for a client that was slow. */
static void pull(struct exchange *ex)
{
    const char *p;
    size_t len;
    while (ex->http && ex->app && weir_buf_len(&ex->http->out) < OUT_HIGH && weir_buf_len(&ex->pend) < OUT_HIGH &&
           weir_client_peek(ex->app, &p, &len) == WEIR_OK)
        app_output(ex, p, len, ex->app);
}

/* What came before the head was written follows it; a length that the app promised is kept to. */
static int move_pend(struct exchange *ex)
{
    size_t len = weir_buf_len(&ex->pend);
    if (ex->length >= 0 && len > (uint64_t)ex->length) len = (size_t)ex->length;
    int status = len && !no_content(ex) ? put_content(ex, weir_buf_ptr(&ex->pend), len) : WEIR_OK;
    weir_buf_reset(&ex->pend, 4096);
    return status;
}

void exchange_commit(struct exchange *ex)
{
    if (!ex->head_done || ex->head_written || ex->redirecting || ex->answer != ANSWER_APP) return;
    if (ex->app_done && ex->length < 0 && !no_content(ex)) ex->length = (int64_t)weir_buf_len(&ex->pend);
    if (!ex->body_done) ex->keep_alive = false;
    if (!exchange_write_head(ex)) {
        exchange_fail(ex, 502, "the application's header cannot be sent");
        return;
    }
    if (move_pend(ex) < 0) break_off(ex, "out of memory");
}

static void complete(struct exchange *ex)
{
    struct http_conn *h = ex->http;
    if (!no_content(ex) && ex->length >= 0 && ex->sent < (uint64_t)ex->length) {
        break_off(ex, "the application sent less than its Content-Length");
        return;
    }
    if (ex->framing == WEIR_HTTP_CHUNKED && !no_content(ex) && weir_http1_write_chunk_end(&h->out, NULL, 0) < 0) {
        break_off(ex, "out of memory");
        return;
    }
    http_dirty(h);
    exchange_finish(ex);
}

int app_failed(const struct weir_client_result *r)
{
    switch (r->status) {
    case WEIR_LIMIT: return r->stage == WEIR_STAGE_QUEUE ? 503 : 502;
    case WEIR_TIMEOUT: return r->stage == WEIR_STAGE_QUEUE ? 503 : 504;
    case WEIR_REFUSED: return r->protocol_status == 3 ? 500 : 503;
    case WEIR_NOMEM: return 503;
    case WEIR_INVALID: return 431;
    default: return 502;
    }
}

static void app_ended(struct exchange *ex, struct weir_client_req *req)
{
    struct weir_client_result r;
    weir_client_req_result(req, &r);
    if (r.status != WEIR_OK) {
        if (r.status == WEIR_TIMEOUT && r.stage == WEIR_STAGE_RUN) gateway_late(ex->worker->gw, ex->req->method, ex->req->target, &r, true);
        ex->head_done = ex->head_written;
        exchange_fail(ex, app_failed(&r), r.reason);
        return;
    }
    if (ex->redirecting) {
        local_redirect(ex);
        return;
    }
    weir_client_req_free(req);
    ex->app = NULL;
    if (!ex->head_done) {
        exchange_fail(ex, 502, "the application ended before its header was complete");
        return;
    }
    ex->app_done = true;
    if (!ex->head_written) {
        struct http_conn *h = ex->http;
        uint32_t epoch = h->epoch;
        exchange_commit(ex);
        if (h->epoch != epoch || h->ex != ex || !ex->head_written) return;
    }
    complete(ex);
}

void exchange_client_event(struct worker *w, const struct weir_client_event *ev)
{
    struct exchange *ex = WEIR_CONTAINER(ev->user, struct exchange, caller);
    switch (ev->type) {
    case WEIR_CLIENT_STARTED:
        ex->started = true;
        if (ex->body && ex->body_done && !streams_request(ex)) weir_spill_rewind(ex->body);
        pump_app(ex);
        break;
    case WEIR_CLIENT_ROOM: pump_app(ex); break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDERR) log_app_stderr(w, ev->req, &ex->snap->pools[ex->route->conf->pool], ev->bytes);
        else if (ev->bytes.len) app_output(ex, ev->bytes.ptr, ev->bytes.len, ev->req);
        else pull(ex);
        break;
    case WEIR_CLIENT_SLOW: {
        struct weir_client_result r;
        weir_client_req_result(ev->req, &r);
        gateway_late(w->gw, ex->req->method, ex->req->target, &r, false);
        break;
    }
    case WEIR_CLIENT_STUCK: break; /* of no request */
    case WEIR_CLIENT_END: app_ended(ex, ev->req); break;
    }
}

void exchange_room(struct exchange *ex)
{
    if (ex->answer == ANSWER_FILE) exchange_file_pump(ex);
    else if (ex->app && ex->started) pull(ex);
}

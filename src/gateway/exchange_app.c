/* SPDX-License-Identifier: MIT */
/* What an exchange has to do with apps: what they are sent, whom they let pass (authorizers), how their answers become HTTP. */
#include <stdlib.h>

#include "gateway/internal.h"

/* ---- to the app ---- */

/* The body, as far as the app takes it. False: no more now. */
static bool pump_body(struct exchange *ex)
{
    const char *p;
    size_t len;
    while (ex->app && ex->body) {
        int status = weir_spill_peek(ex->body, &p, &len);
        if (status == WEIR_CLOSED && ex->body_open && ex->body_done && weir_client_end_body(ex->app) == WEIR_OK) ex->body_open = false;
        if (status == WEIR_SYSTEM) {
            exchange_fail(ex, 500, "the request body could not be read back");
            return false;
        }
        if (status != WEIR_OK) break;
        int64_t n = weir_client_write(ex->app, p, len);
        if (n == WEIR_NOMEM) {
            exchange_fail(ex, 503, "out of memory");
            return false;
        }
        if (n < 0) return false; /* its end is told by an event */
        weir_spill_consume(ex->body, (size_t)n);
        if ((size_t)n < len) return false;
    }
    return true;
}

void exchange_pump_app(struct exchange *ex)
{
    if (ex->authorizing) return;
    bool all = pump_body(ex);
    if (all && ex->app && ex->route->filter && ex->body_done && (!ex->body || weir_spill_left(ex->body) == 0)) exchange_filter_pump(ex);
    if (ex->http && !ex->body_done && exchange_wants_body(ex)) reply_resume(ex);
}

struct weir_str exchange_join(struct weir_arena *a, const char *root, struct weir_str path)
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

struct weir_str exchange_address_text(struct exchange *ex, const struct sockaddr_storage *s, struct weir_str *port)
{
    char text[INET6_ADDRSTRLEN + 8], digits[20];
    uint16_t n = weir_address_text(s, text, sizeof text);
    *port = weir_arena_str(&ex->arena, weir_str(digits, weir_u64_text(digits, n)));
    return weir_arena_str(&ex->arena, weir_cstr(text));
}

static void fill_addresses(struct exchange *ex, struct weir_cgi_request *r)
{
    const struct http_conn *h = ex->http;
    struct sockaddr_storage peer;
    guards_socket(ex, &peer);
    r->remote_addr = exchange_address_text(ex, &peer, &r->remote_port);
    const struct listener *l = ex->listener;
    r->server_addr = l->server_addr;
    r->server_port = l->server_port;
    if (!l->any_address) return;
    if (ex->trace) {
        r->server_addr = ex->trace->server_addr;
        return;
    }
    struct sockaddr_storage local = {0};
    socklen_t len = sizeof local;
    if (getsockname(h->fd, (struct sockaddr *)&local, &len) == 0)
        r->server_addr = exchange_address_text(ex, &local, &r->server_port);
}

/* As Apache tells it: the status of the error whose page is wanted. */
static struct weir_str redirect_status(struct exchange *ex)
{
    char digits[20];
    if (!ex->error_status) return WEIR_STR("200");
    return weir_arena_str(&ex->arena, weir_str(digits, weir_u64_text(digits, (uint64_t)ex->error_status)));
}

/* What every role is told of the request. */
static void describe(struct exchange *ex, struct weir_cgi_request *r)
{
    const struct weir_conf_route *conf = ex->route->conf;
    const struct weir_http_request *req = ex->req;
    const char *root = conf->app_root ? conf->app_root : conf->root;
    struct weir_str host = http_without_port(req->host);
    *r = (struct weir_cgi_request){
        .method = exchange_method(ex),
        .protocol = http_protocol(req),
        .request_uri = req->path_query, .query = ex->path.query, .document_uri = ex->path.path,
        .document_root = root ? weir_cstr(root) : (struct weir_str){0},
        .server_name = host.len ? host : WEIR_STR("_"), .scheme = exchange_is_https(ex) ? WEIR_STR("https") : WEIR_STR("http"), .redirect_status = redirect_status(ex),
        .content_length = -1, .headers = req->headers, .header_count = req->header_count, .host = req->host,
        .request_id = exchange_id(ex), .extra = conf->params, .extra_count = conf->param_count};
    fill_addresses(ex, r);
    guards_describe(ex, r);
}

/* It would be asked now: WOULD_ASK, or why not. */
enum { WOULD_ASK = 2 };
static int only_explain(struct exchange *ex, const struct snapshot_pool *pool, const struct weir_cgi_request *r, const struct weir_client_begin_options *b)
{
    ex->asked = pool;
    trace_asked(ex, pool, b->role == WEIR_AUTHORIZER ? WEIR_EXPLAIN_AUTHORIZER : b->role == WEIR_FILTER ? WEIR_EXPLAIN_FILTER : WEIR_EXPLAIN_RESPONDER, r, b->params, b->param_count);
    return weir_pool_refusal(pool->in->pool) ? WEIR_REFUSED : WOULD_ASK;
}

/* Parameters in front of those that r has: the later one of a name is sent. */
static int add_params(struct exchange *ex, struct weir_cgi_request *r, const struct weir_pair *more, size_t count)
{
    if (!count) return WEIR_OK;
    struct weir_pair *all = weir_arena_alloc(&ex->arena, (count + r->extra_count) * sizeof *all);
    if (!all) return WEIR_NOMEM;
    memcpy(all, more, count * sizeof *all);
    if (r->extra_count) memcpy(all + count, r->extra, r->extra_count * sizeof *all);
    r->extra = all;
    r->extra_count += count;
    return WEIR_OK;
}

/* Asks a pool: as weir_client_begin. */
static int ask(struct exchange *ex, const struct snapshot_pool *pool, struct weir_cgi_request *r, struct weir_client_begin_options *b)
{
    struct weir_pair *pairs, *tls;
    size_t tls_count;
    if (exchange_is_https(ex) && (http_tls_params(ex, &tls, &tls_count) < 0 || add_params(ex, r, tls, tls_count) < 0)) return WEIR_NOMEM;
    int status = weir_cgi_params(r, &ex->arena, &pairs, &b->param_count);
    if (status < 0) return status;
    b->params = pairs;
    b->user = &ex->caller;
    if (ex->trace) return only_explain(ex, pool, r, b);
    b->key = server_key(pool->conf, pairs, b->param_count);
    ex->asked = pool;
    ex->note = NULL;
    ex->answer = ANSWER_APP;
    ex->head_done = ex->app_done = ex->started = false;
    ex->head = weir_cgi_head_new(&ex->arena, NULL);
    if (!ex->head) return WEIR_NOMEM;
    return weir_client_begin(ex->worker->client, pool->in->pool, b, &ex->app);
}

static uint64_t body_length(const struct exchange *ex)
{
    if (ex->body_done) return weir_spill_size(ex->body);
    return ex->req->content_length < 0 ? WEIR_CLIENT_UNKNOWN : (uint64_t)ex->req->content_length;
}

static int start_app(struct exchange *ex, const struct script *s)
{
    const struct weir_conf_route *conf = ex->route->conf;
    struct weir_client_begin_options b = {.size = sizeof b, .role = WEIR_RESPONDER, .queue_ms = conf->queue_ms, .silent_ms = conf->silent_ms,
                                  .request_ms = conf->request_ms, .slow_ms = conf->slow_ms,
                                  .body_kept = !exchange_streams_request(ex)};
    struct weir_cgi_request r;
    describe(ex, &r);
    server_retry(conf->retry, r.method, &b);
    r.script_name = s->name;
    r.script_filename = s->filename;
    r.path_info = s->path_info;
    if (ex->body) {
        b.body_len = body_length(ex);
        ex->body_open = b.body_len == WEIR_CLIENT_UNKNOWN;
        r.content_length = ex->body_open ? -1 : (int64_t)b.body_len; /* FC1-6.2-b, IOP-S5 */
    } else if (ex->req->content_length == 0 && !ex->method_override) {
        r.content_length = 0; /* it said so: some look for it */
    }
    if (add_params(ex, &r, ex->granted, ex->granted_count) < 0) return WEIR_NOMEM;
    return ask(ex, &ex->snap->pools[conf->pool], &r, &b);
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

static void authorized(struct exchange *ex);

/* What could not be asked is answered; what has begun is given its body. */
static void begun(struct exchange *ex, int status)
{
    const char *why;
    if (status < 0) {
        int code = app_not_begun(status, ex->asked ? ex->asked->in->pool : NULL, &why);
        exchange_fail(ex, code, why);
    } else if (status == WOULD_ASK) {
        if (ex->authorizing) authorized(ex); /* else nothing more would be known */
        else exchange_text(ex, 200, NULL, 0, NULL);
    } else if (status == 1) {
        ex->started = true;
        exchange_pump_app(ex);
    }
}

void exchange_run_app(struct exchange *ex, const struct script *s)
{
    if (ex->route->pool) {
        begun(ex, start_app(ex, s));
        return;
    }
    exchange_fail(ex, 503, ex->route->pool_conf && ex->route->pool_conf->broken ? ex->route->pool_conf->broken : "no pool serves this route");
}

/* ---- authorizer ---- */

void exchange_authorize(struct exchange *ex)
{
    const struct snapshot_pool *pool = ex->route->authorizer;
    const struct weir_conf_pool *conf = pool->conf;
    struct weir_client_begin_options b = {.size = sizeof b, .role = WEIR_AUTHORIZER, .queue_ms = ex->route->conf->queue_ms, .silent_ms = conf->silent_ms,
                                  .request_ms = conf->request_ms, .slow_ms = conf->slow_ms, .repeatable = true, .body_kept = true};
    struct weir_cgi_request r;
    describe(ex, &r);
    r.authorizer = true; /* FC1-6.3-a */
    if (ex->route->conf->authorizer_script) r.script_filename = weir_cstr(ex->route->conf->authorizer_script);
    ex->authorizing = true;
    ex->granted_count = 0;
    begun(ex, ask(ex, pool, &r, &b));
}

#define VARIABLE_LEN 9

static bool is_variable(struct weir_str name)
{
    return name.len > VARIABLE_LEN && weir_str_ieq(weir_str(name.ptr, VARIABLE_LEN), WEIR_STR("Variable-"));
}

/* Each header Variable-NAME becomes the parameter NAME of who answers the request. (FC1-6.3-b) */
static int take_variables(struct exchange *ex, const struct weir_cgi_response *r)
{
    ex->granted = weir_arena_alloc(&ex->arena, (r->header_count + 1) * sizeof *ex->granted);
    ex->granted_count = 0;
    if (!ex->granted) return WEIR_NOMEM;
    for (size_t i = 0; i < r->header_count; i++) {
        struct weir_str name = r->headers[i].name;
        if (!is_variable(name)) continue;
        name = weir_str(name.ptr + VARIABLE_LEN, name.len - VARIABLE_LEN);
        ex->granted[ex->granted_count++] = (struct weir_pair){name, r->headers[i].value};
        if (weir_str_eq(name, WEIR_STR("REMOTE_USER"))) ex->user = r->headers[i].value;
    }
    return WEIR_OK;
}

/* It said no: what it grants is nobody's business. (FC1-6.3-c) */
static void drop_variables(struct exchange *ex)
{
    size_t n = 0;
    for (size_t i = 0; i < ex->field_count; i++)
        if (!is_variable(ex->fields[i].name)) ex->fields[n++] = ex->fields[i];
    ex->field_count = n;
}

/* It said yes: the request itself begins. */
static void authorized(struct exchange *ex)
{
    ex->authorizing = ex->granting = ex->started = ex->head_done = false;
    ex->answer = ANSWER_NONE;
    ex->asked = NULL;
    weir_buf_reset(&ex->pend, 4096);
    exchange_admitted(ex);
}

/* ---- filter ---- */

static int start_filter(struct exchange *ex)
{
    const struct snapshot_pool *pool = ex->route->filter;
    const struct lookup *l = &ex->lookup;
    ex->file_at = 0; /* it may be the second one, behind a redirect */
    ex->cold_checked = false;
    char digits[20];
    struct weir_pair *told = weir_arena_alloc(&ex->arena, 2 * sizeof *told);
    struct weir_cgi_request r;
    describe(ex, &r);
    r.script_name = l->script[0] ? weir_arena_str(&ex->arena, weir_cstr(l->script)) : ex->path.path;
    r.script_filename = exchange_join(&ex->arena, r.document_root.ptr, r.script_name);
    if (!told || !r.script_filename.ptr || !r.script_name.ptr) return WEIR_NOMEM;
    uint64_t modified = l->st.st_mtim.tv_sec > 0 ? (uint64_t)l->st.st_mtim.tv_sec : 0;
    told[0] = (struct weir_pair){WEIR_STR("FCGI_DATA_LAST_MOD"), weir_arena_str(&ex->arena, weir_str(digits, weir_u64_text(digits, modified)))}; /* FC1-6.4-a */
    told[1] = (struct weir_pair){WEIR_STR("FCGI_DATA_LENGTH"), weir_arena_str(&ex->arena, weir_str(digits, weir_u64_text(digits, (uint64_t)l->st.st_size)))};
    if (!told[0].value.ptr || !told[1].value.ptr) return WEIR_NOMEM;
    const struct weir_conf_route *conf = ex->route->conf;
    struct weir_client_begin_options b = {.size = sizeof b, .role = WEIR_FILTER, .queue_ms = conf->queue_ms, .silent_ms = conf->silent_ms, .request_ms = conf->request_ms,
                                  .slow_ms = conf->slow_ms, .body_kept = true, .data_len = (uint64_t)l->st.st_size}; /* FC1-6.4-c */
    server_retry(conf->retry, r.method, &b);
    if (ex->body) {
        b.body_len = body_length(ex);
        r.content_length = (int64_t)b.body_len;
    }
    if (add_params(ex, &r, ex->granted, ex->granted_count) < 0 || add_params(ex, &r, told, 2) < 0) return WEIR_NOMEM;
    return ask(ex, pool, &r, &b);
}

void exchange_filter(struct exchange *ex)
{
    begun(ex, start_filter(ex));
}

/* ---- from the app ---- */

static size_t content_room(struct exchange *ex)
{
    size_t held = weir_buf_len(&ex->pend);
    if (ex->head_written) return reply_room(ex);
    return held < OUT_HIGH ? OUT_HIGH - held : 0;
}

/* How much is missing of the length that the app told; UINT64_MAX: it told none. */
static uint64_t missing(const struct exchange *ex)
{
    int64_t length = ex->gzip ? ex->raw_length : ex->length;
    return length < 0 ? UINT64_MAX : (uint64_t)length - (ex->gzip ? ex->raw_sent : ex->sent);
}

/* Content for the client: how much of it is taken now, or WEIR_NOMEM. */
static int64_t content(struct exchange *ex, const char *p, size_t len)
{
    size_t done = 0;
    if (exchange_no_content(ex)) return (int64_t)len;
    while (done < len) {
        size_t take = len - done;
        if (ex->head_written && take > missing(ex)) {
            take = (size_t)missing(ex);
            ex->surplus = true;
            if (take == 0) return (int64_t)len; /* more than it said: cut */
        }
        size_t room = content_room(ex); /* 0: it is told when there is some again, so it has to be asked */
        if (take > room) take = room;
        if (take == 0) break;
        if ((ex->head_written ? compress_put(ex, p + done, take) : weir_buf_append(&ex->pend, p + done, take)) < 0) return WEIR_NOMEM;
        done += take;
        reply_dirty(ex);
    }
    return (int64_t)done;
}

static int head_is_ready(struct exchange *ex)
{
    const struct weir_cgi_response *r = weir_cgi_head_response(ex->head);
    if (ex->authorizing && r->kind == WEIR_CGI_DOCUMENT && r->status == 200) {
        ex->granting = true;
        return take_variables(ex, r);
    }
    if (ex->authorizing && ex->error_status) return WEIR_REFUSED;
    ex->head_done = true;
    if (r->kind == WEIR_CGI_LOCAL_REDIRECT) {
        ex->redirecting = true;
        return WEIR_OK;
    }
    ex->intercepting = ex->redirecting = exchange_intercepts(ex, r->status); /* what it says is dropped, as behind a redirect */
    ex->status = ex->error_status ? ex->error_status : r->status;
    ex->fields = r->headers;
    ex->field_count = r->header_count;
    ex->length = r->status == 205 ? 0 : r->content_length; /* 205 has no content [RFC 9110 15.3.6] */
    if (exchange_takes_handover(ex)) ex->redirecting = true;
    exchange_drop_directives(ex);
    if (ex->authorizing) drop_variables(ex);
    reply_dirty(ex);
    return WEIR_OK;
}

/* Bytes of the header, and of interim ones in front of it: true unless it ended the exchange. */
static bool take_head(struct exchange *ex, const char *p, size_t len, size_t *taken)
{
    const char *why = "the application's header cannot be sent";
    size_t used;
    int status;
    while ((status = weir_cgi_head_feed(ex->head, p + *taken, len - *taken, &used, &why)) == WEIR_OK) {
        *taken += used;
        if (weir_cgi_head_response(ex->head)->kind != WEIR_CGI_INTERIM) {
            status = head_is_ready(ex);
            break;
        }
        status = exchange_interim(ex);
        if (status < 0) break;
        weir_cgi_head_next(ex->head);
    }
    if (status == WEIR_REFUSED) {
        exchange_fail(ex, 403, "the error page is not for everybody");
        return false;
    }
    if (status == WEIR_AGAIN) *taken = len;
    if (status == WEIR_OK || status == WEIR_AGAIN) return true;
    exchange_fail(ex, status == WEIR_NOMEM ? 503 : 502, status == WEIR_NOMEM ? "out of memory" : why);
    return false;
}

static void app_output(struct exchange *ex, const char *p, size_t len, struct weir_client_req *req)
{
    size_t taken = 0;
    if (!ex->first_us && !ex->authorizing) ex->first_us = ex->worker->loop->now_us;
    if (!ex->head_done && !ex->granting && !take_head(ex, p, len, &taken)) return;
    if (ex->redirecting || ex->granting) { /* FC1-6.3-b */
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
    while (ex->http && ex->app && content_room(ex) > 0 &&
           weir_client_peek(ex->app, &p, &len) == WEIR_OK)
        app_output(ex, p, len, ex->app);
}

/* What came before the head was written follows it; a length that the app promised is kept to. */
static int move_pend(struct exchange *ex)
{
    size_t len = weir_buf_len(&ex->pend);
    if (len > missing(ex)) {
        len = (size_t)missing(ex);
        ex->surplus = true;
    }
    int status = len && !exchange_no_content(ex) ? compress_put(ex, weir_buf_ptr(&ex->pend), len) : WEIR_OK;
    weir_buf_reset(&ex->pend, 4096);
    return status;
}

static const char short_of_length[] = "the application sent less than its Content-Length";

bool exchange_commit(struct exchange *ex)
{
    if (ex->answer == ANSWER_APP && ex->head_written && compress_flush(ex) < 0) { /* the app pauses: what it said is not held back */
        exchange_break_off(ex, "out of memory");
        return false;
    }
    if (!ex->head_done || ex->head_written || ex->redirecting || ex->answer != ANSWER_APP) return true;
    if (ex->app_done && ex->length < 0 && !exchange_no_content(ex)) ex->length = (int64_t)weir_buf_len(&ex->pend);
    if (ex->app_done && ex->length >= 0 && !exchange_no_content(ex) && weir_buf_len(&ex->pend) < (uint64_t)ex->length) {
        exchange_fail(ex, 502, short_of_length); /* nothing of it has left */
        return false;
    }
    compress_begin(ex);
    if (ex->app_done && compress_whole(ex) < 0) {
        exchange_fail(ex, 503, "out of memory");
        return false;
    }
    if (!ex->body_done) ex->keep_alive = false;
    if (!exchange_write_head(ex)) {
        exchange_fail(ex, 502, "the application's header cannot be sent");
        return false;
    }
    bool held = weir_buf_len(&ex->pend) >= OUT_HIGH; /* and perhaps more, elsewhere */
    if (move_pend(ex) < 0) {
        exchange_break_off(ex, "out of memory");
        return false;
    }
    if (held && !ex->app_done && reply_room(ex) > 0) exchange_room(ex);
    return true;
}

static void complete(struct exchange *ex)
{
    if (!exchange_no_content(ex) && missing(ex) != UINT64_MAX && missing(ex) > 0) {
        exchange_break_off(ex, short_of_length);
        return;
    }
    if (ex->surplus) log_error(ex->worker, "%s: the application sent more than its Content-Length: cut", weir_pool_name(ex->asked->in->pool));
    if (compress_last(ex) < 0 || reply_end(ex) < 0) {
        exchange_break_off(ex, "out of memory");
        return;
    }
    reply_dirty(ex);
    exchange_finish(ex);
}

int app_failed(const struct weir_client_result *r)
{
    switch (r->status) {
    case WEIR_LIMIT: return r->stage == WEIR_STAGE_QUEUE ? 503 : 502;
    case WEIR_TIMEOUT: return r->stage == WEIR_STAGE_QUEUE ? 503 : 504;
    case WEIR_REFUSED: return r->protocol_status == 3 ? 500 : 503; /* FC1-5.5-e, FC1-5.5-f */
    case WEIR_NOMEM: return 503;
    case WEIR_INVALID: return 431; /* IOP-S2 */
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
    if (log_wants_apps(ex->worker)) exchange_note_app(ex);
    if (ex->intercepting) {
        exchange_intercept(ex);
        return;
    }
    if (ex->handing) {
        exchange_hand_over(ex);
        return;
    }
    if (ex->redirecting) {
        exchange_go_local(ex, weir_cgi_head_response(ex->head)->location);
        return;
    }
    weir_client_req_free(req);
    ex->app = NULL;
    if (ex->granting) {
        authorized(ex);
        return;
    }
    if (!ex->head_done) {
        exchange_fail(ex, 502, "the application ended before its header was complete"); /* IOP-S7 */
        return;
    }
    ex->app_done = true;
    if (exchange_commit(ex)) complete(ex);
}

void exchange_client_event(struct worker *w, const struct weir_client_event *ev)
{
    struct exchange *ex = WEIR_CONTAINER(ev->user, struct exchange, caller);
    switch (ev->type) {
    case WEIR_CLIENT_STARTED:
        ex->started = true;
        if (ex->authorizing) break;
        if (ex->body && ex->body_done && !exchange_streams_request(ex)) weir_spill_rewind(ex->body);
        ex->file_at = 0;
        exchange_pump_app(ex);
        break;
    case WEIR_CLIENT_ROOM: exchange_pump_app(ex); break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDERR) log_app_stderr(w, ev->req, ex->asked, exchange_id(ex), ev->bytes); /* FC1-7-c, FC1-6.1-c */
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

/* SPDX-License-Identifier: MIT */
/* Requests of foreign web servers: FastCGI comes in and goes on to the pool's queue as it is. Parameters, streams and statuses are
 * carried, never understood: but for lines of the log, nothing here knows HTTP; what Weir itself has to say (no room, no answer in
 * time) is said as an app would, because web servers look at nothing else.
 *
 * A request takes a slot when its body is whole. Before that it is refused only behind the end of its body, too: a web server that is
 * answered while it still sends takes that for a failure. */
#include <stdlib.h>

#include "gateway/internal.h"

#define FRONT_ERR  (64u << 10)         /* STDERR that waits for the web server; more goes to our log */
#define FRONT_DROP (UINT64_C(1) << 30) /* of a body that is refused: then the connection ends */

static void answer(struct front_req *r);
static void fail(struct front_req *r, int status, const char *why, bool not_run);
static void finish(struct front_req *r, uint32_t app_status, uint8_t protocol_status);

/* ---- memory and time ---- */

static struct front_req *req_new(struct front *f, const struct weir_wire_event *ev)
{
    struct worker *w = f->worker;
    struct front_req *r = w->free_front_reqs;
    if (r) w->free_front_reqs = r->next_free;
    else r = calloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (struct front_req){.caller = {.is_front = true}, .worker = w, .front = f, .id = ev->id, .role = ev->role, .agreed = ev->agreed,
                            .begun_us = w->loop->now_us, .in_use = true};
    weir_list_push_back(&f->reqs, &r->link);
    f->req_count++;
    w->front_req_count++;
    return r;
}

/* Its body does not hold the connection up any more. */
static void not_full(struct front_req *r)
{
    if (!r->full) return;
    r->full = false;
    if (--r->front->full == 0) front_dirty(r->front);
}

static void drop_body(struct front_req *r)
{
    not_full(r);
    weir_spill_free(r->body);
    weir_spill_free(r->data);
    r->body = r->data = NULL;
}

static void drop_app(struct front_req *r)
{
    if (r->app && log_wants_apps(r->worker)) {
        weir_client_req_result(r->app, &r->note.result);
        weir_client_req_where(r->app, r->note.where, sizeof r->note.where);
        r->noted = true;
    }
    if (r->app) weir_client_req_free(r->app);
    r->app = NULL;
}

void front_req_free(struct front_req *r)
{
    struct worker *w = r->worker;
    drop_app(r);
    log_front(r);
    atomic_fetch_add_explicit(&w->requests, 1, memory_order_relaxed);
    drop_body(r);
    weir_timer_clear(&r->timer);
    weir_list_remove(&r->link);
    r->front->req_count--;
    if (r->snap) snapshot_drop(r->snap);
    free(r->block);
    free(r->params);
    weir_buf_fini(&r->err);
    r->in_use = false; /* an event of its timer may be under way */
    r->next_free = w->free_front_reqs;
    w->free_front_reqs = r;
    w->front_req_count--;
}

static void arm(struct front_req *r, uint32_t ms)
{
    struct weir_loop *l = r->worker->loop;
    r->due_ms = ms ? weir_loop_now_ms(l) + ms : 0;
    if (ms && (!weir_timer_is_set(&r->timer) || r->due_ms < r->timer.due_ms))
        weir_timer_set(l, &r->timer, (struct weir_ident){.kind = KIND_FRONT_REQ}, r->due_ms);
}

static bool input_ended(const struct front_req *r)
{
    if (r->role == WEIR_AUTHORIZER) return true; /* it has no streams (FC1-6.3-e) */
    return r->stdin_ended && (r->role != WEIR_FILTER || r->data_ended);
}

void front_req_timer(struct weir_timer *t)
{
    struct front_req *r = WEIR_CONTAINER(t, struct front_req, timer);
    if (!r->in_use || !r->due_ms) return;
    uint64_t now = weir_loop_now_ms(r->worker->loop);
    if (r->due_ms > now) { /* there was progress since */
        arm(r, (uint32_t)(r->due_ms - now));
    } else if (input_ended(r)) {
        fail(r, 504, "the web server gives no credit for the answer", false);
    } else if (front_held_up(r->front)) {
        arm(r, front_conf(r->front)->body_ms);
    } else {
        if (!r->refused) r->status = 408;
        r->not_run = false;
        answer(r);
    }
}

struct weir_str front_param(const struct front_req *r, const char *name)
{
    return weir_pair_value(r->params, r->param_count, weir_cstr(name));
}

/* ---- what is said to the web server ---- */

/* Takes 0..len bytes of STDOUT or STDERR. */
static size_t give(struct front_req *r, enum weir_stream s, const char *p, size_t len)
{
    struct front *f = r->front;
    size_t room = front_room(f);
    int64_t n = 0;
    if (room) {
        n = weir_wire_app_write(f->wire, r->id, s, p, len < room ? len : room);
        if (n < 0) {
            f->broken = true; /* memory, or the peer's mistake: the flush ends it */
            front_dirty(f);
            return len;
        }
    }
    bool no_credit = (size_t)n < len && weir_wire_app_room(f->wire, r->id, s) == 0;
    if ((size_t)n < len && !no_credit) r->wants_room = f->wants_room = true;
    if (no_credit && (n || !r->due_ms)) arm(r, front_conf(f)->send_ms);
    else if (!no_credit && input_ended(r)) r->due_ms = 0;
    if (n) front_dirty(f);
    return (size_t)n;
}

static void give_err(struct front_req *r, struct weir_str bytes)
{
    if (weir_buf_len(&r->err) == 0) {
        size_t n = give(r, WEIR_STDERR, bytes.ptr, bytes.len);
        if (n) r->err_sent = true;
        bytes = weir_str(bytes.ptr + n, bytes.len - n);
    }
    if (!bytes.len) return;
    size_t room = FRONT_ERR - weir_buf_len(&r->err), take = bytes.len < room ? bytes.len : room;
    if (weir_buf_append(&r->err, bytes.ptr, take) < 0) take = 0;
    if (take == bytes.len) return;
    struct weir_str id = front_param(r, "REQUEST_ID");
    if (!request_id_is_plain(id)) id.len = 0;
    log_app_stderr(r->worker, r->app, &r->snap->pools[r->pool_conf - r->snap->conf->pools], id, weir_str(bytes.ptr + take, bytes.len - take));
}

static void give_out(struct front_req *r, struct weir_str bytes)
{
    size_t n = give(r, WEIR_STDOUT, bytes.ptr, bytes.len);
    r->sent += n;
    weir_client_consume(r->app, n);
}

/* What waits for room goes on. r may be gone. */
void front_req_go_on(struct front_req *r)
{
    const char *p;
    size_t len;
    r->wants_room = false;
    while (weir_buf_len(&r->err)) {
        size_t n = give(r, WEIR_STDERR, weir_buf_ptr(&r->err), weir_buf_len(&r->err));
        if (!n) break;
        r->err_sent = true;
        weir_buf_consume(&r->err, n);
    }
    while (r->app && front_room(r->front) && weir_client_peek(r->app, &p, &len) == WEIR_OK) {
        size_t n = give(r, WEIR_STDOUT, p, len);
        r->sent += n;
        weir_client_consume(r->app, n);
        if (n < len) break;
    }
    if (r->app && !front_room(r->front)) r->wants_room = r->front->wants_room = true; /* perhaps for what is held */
    if (r->ending && weir_buf_len(&r->err) == 0) finish(r, r->app_status, r->protocol_status);
}

/* END_REQUEST. */
static void finish(struct front_req *r, uint32_t app_status, uint8_t protocol_status)
{
    struct front *f = r->front;
    if (weir_wire_app_end(f->wire, r->id, app_status, protocol_status) < 0) f->broken = true;
    front_req_free(r);
    front_dirty(f);
}

/* What Weir says in the app's place. Who speaks flow control knows what a refusal is, and may ask another one. (FC1-5.5-e) */
static void answer(struct front_req *r)
{
    char page[400];
    const char *text = weir_http_status_text(r->status);
    drop_body(r);
    if (r->agreed && r->not_run && !r->err_sent) {
        finish(r, 0, WEIR_WIRE_OVERLOADED);
        return;
    }
    int n = snprintf(page, sizeof page, "Status: %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n\r\n%d %s\n",
                     r->status, text, r->status == 503 ? "Retry-After: 1\r\n" : "", strlen(text) + 5, r->status, text);
    if (n > 0 && weir_wire_app_write(r->front->wire, r->id, WEIR_STDOUT, page, (size_t)n) < 0) r->front->broken = true;
    finish(r, 0, WEIR_WIRE_REQUEST_COMPLETE);
}

/* The answer was begun and cannot be ended, and the web server has to see that: it does by the end of the connection; where others
 * share it, by an END_REQUEST that says anything but complete. */
static void cut(struct front_req *r)
{
    struct front *f = r->front;
    r->status = 0;
    drop_body(r);
    if (!r->agreed && weir_wire_app_active(f->wire) == 1) {
        f->broken = true;
        front_dirty(f);
        return;
    }
    finish(r, 1, WEIR_WIRE_OVERLOADED);
}

/* not_run: it is certain that no code of the app ran. */
static void fail(struct front_req *r, int status, const char *why, bool not_run)
{
    struct weir_str uri = front_param(r, "REQUEST_URI");
    if (r->refused || r->front->broken) return;
    if (status >= 500)
        log_error(r->worker, "%s: %s%d for %.*s: %s", r->pool ? weir_pool_name(r->pool) : "-", r->sent ? "answer cut off: " : "", status,
                  (int)(uri.len < 200 ? uri.len : 200), uri.ptr ? uri.ptr : "", why);
    drop_app(r);
    r->status = status;
    r->not_run = not_run && status == 503;
    if (r->sent) {
        cut(r);
    } else if (r->agreed || input_ended(r)) {
        answer(r);
    } else {
        r->refused = true;
        drop_body(r);
    }
}

/* ---- to the pool ---- */

static void pump_from(struct front_req *r, struct weir_spill *s)
{
    const char *p;
    size_t len;
    while (s && r->app) {
        int status = weir_spill_peek(s, &p, &len);
        if (status == WEIR_SYSTEM) {
            fail(r, 500, "the request body could not be read back", false);
            return;
        }
        if (status != WEIR_OK) return;
        int64_t n = weir_client_write(r->app, p, len);
        if (n == WEIR_NOMEM) {
            fail(r, 503, "out of memory", false);
            return;
        }
        if (n < 0) return; /* its end is told by an event */
        weir_spill_consume(s, (size_t)n);
        if ((size_t)n < len) return;
    }
}

/* r may have ended then. */
static void pump(struct front_req *r)
{
    if (r->body && weir_spill_left(r->body)) pump_from(r, r->body);
    if (r->in_use && (!r->body || weir_spill_left(r->body) == 0)) pump_from(r, r->data);
}

/* The request is whole: into the pool's queue. */
static void begin(struct front_req *r)
{
    const struct weir_conf_pool *conf = r->pool_conf;
    struct weir_client_begin_options b = {.size = sizeof b, .role = (enum weir_role)r->role, .params = r->params, .param_count = r->param_count, .body_kept = true,
                                  .body_len = r->body ? weir_spill_size(r->body) : 0, .data_len = r->data ? weir_spill_size(r->data) : 0,
                                  .silent_ms = conf->silent_ms, .request_ms = conf->request_ms, .slow_ms = conf->slow_ms, .user = &r->caller};
    const char *why;
    b.key = server_key(conf, r->params, r->param_count);
    server_retry(conf->retry, front_param(r, "REQUEST_METHOD"), &b);
    r->due_ms = 0;
    not_full(r);
    int status = weir_client_begin(r->worker->client, r->pool, &b, &r->app);
    if (status < 0) {
        r->app = NULL;
        int code = app_not_begun(status, r->pool, &why);
        fail(r, code, why, true);
    } else if (status == 1) {
        pump(r);
    }
}

/* ---- from the web server ---- */

static bool take_params(struct front_req *r, uint32_t count)
{
    struct weir_str block = weir_wire_app_params_take(r->front->wire, r->id);
    size_t at = 0;
    r->block = (char *)(uintptr_t)block.ptr;
    r->params = malloc((count + 1) * sizeof *r->params);
    if (!r->params) return false;
    while (r->param_count < count && weir_wire_pair_next(block, &at, &r->params[r->param_count]) == WEIR_OK) r->param_count++;
    return true;
}

static bool too_large(const struct front_req *r)
{
    uint64_t len;
    return weir_str_u64(front_param(r, "CONTENT_LENGTH"), UINT64_MAX, &len) == WEIR_OK && len > r->conf->body_max;
}

void front_req_begins(struct front *f, const struct weir_wire_event *ev)
{
    struct worker *w = f->worker;
    struct front_req *r = req_new(f, ev);
    f->phase = FRONT_BUSY;
    f->due_ms = 0;
    f->asked = true;
    f->last = w->draining;
    if (!r) {
        if (weir_wire_app_end(f->wire, ev->id, 0, WEIR_WIRE_OVERLOADED) < 0) f->broken = true;
        return;
    }
    weir_wire_app_set_user(f->wire, r->id, r);
    const struct listener *l = snapshot_listener(w->snap, f->listener);
    bool memory = take_params(r, ev->param_count);
    if (l && l->pool) {
        r->snap = w->snap;
        snapshot_hold(r->snap);
        r->conf = l->conf;
        r->pool = l->pool;
        r->pool_conf = l->pool_conf;
    }
    arm(r, front_conf(f)->body_ms);
    if (!r->conf) { /* a reload took its listener away */
        f->close_after = true;
        fail(r, 503, "this listener is not configured any more", true);
    } else if (!memory) {
        fail(r, 503, "out of memory", true);
    } else if (r->pool_conf->broken) {
        fail(r, 503, r->pool_conf->broken, true);
    } else if (w->front_req_count > atomic_load(&w->gw->conn_max)) {
        fail(r, 503, "there are more requests than connections may be", true);
    } else if (too_large(r)) {
        fail(r, 413, "the request body is larger than this listener takes", true);
    } else if (input_ended(r)) {
        begin(r);
    }
}

static int keep_input(struct front_req *r, enum weir_stream s, struct weir_str bytes)
{
    struct weir_spill **to = s == WEIR_DATA ? &r->data : &r->body;
    if (!*to) {
        struct weir_spill_limits lim = {.memory = BODY_MEMORY, .max = r->conf->body_max, .rewindable = true};
        *to = weir_spill_new(r->worker->loop, &r->worker->gw->quota, &lim, (struct weir_ident){.kind = KIND_FRONT_BODY});
        if (!*to) return WEIR_NOMEM;
        weir_spill_set_user(*to, r);
    }
    return weir_spill_put(*to, bytes.ptr, bytes.len);
}

void front_req_input(struct front_req *r, enum weir_stream s, struct weir_str bytes)
{
    struct front *f = r->front;
    struct weir_spill *kept = s == WEIR_DATA ? r->data : r->body;
    bool wanted = s == WEIR_STDIN ? r->role != WEIR_AUTHORIZER : r->role == WEIR_FILTER;
    if (!wanted || r->refused) {
        r->dropped += bytes.len;
        if (r->dropped > FRONT_DROP) f->broken = true;
        weir_wire_app_consumed(f->wire, r->id, s, bytes.len);
        if (wanted) arm(r, front_conf(f)->body_ms);
        return;
    }
    bool large = bytes.len > r->conf->body_max - (kept ? weir_spill_size(kept) : 0);
    int status = keep_input(r, s, bytes);
    if (status == WEIR_OK) {
        kept = s == WEIR_DATA ? r->data : r->body;
        bool full = weir_spill_full(kept);
        if (r->agreed && full) r->owed[s == WEIR_DATA] += (uint32_t)bytes.len;
        else weir_wire_app_consumed(f->wire, r->id, s, bytes.len);
        if (full && !r->agreed && !r->full) {
            r->full = true;
            f->full++;
        }
        arm(r, front_conf(f)->body_ms);
        return;
    }
    weir_wire_app_consumed(f->wire, r->id, s, bytes.len);
    if (large) fail(r, 413, "the request body is larger than this listener takes", true);
    else if (status == WEIR_SYSTEM) fail(r, 500, "the request body could not be stored", true);
    else fail(r, 503, status == WEIR_LIMIT ? "no room for the request body" : "out of memory", true);
}

void front_req_input_ends(struct front_req *r, enum weir_stream s)
{
    bool before = input_ended(r);
    if (s == WEIR_STDIN) r->stdin_ended = true;
    if (s == WEIR_DATA) r->data_ended = true;
    if (before || !input_ended(r)) return;
    if (r->refused) answer(r);
    else begin(r);
}

void front_body_stored(struct weir_job *job)
{
    static const enum weir_stream streams[] = {WEIR_STDIN, WEIR_DATA};
    struct weir_spill *s = weir_spill_done(job);
    struct front_req *r = s ? weir_spill_user(s) : NULL;
    if (!r) return;
    if (r->app) {
        pump(r);
        return;
    }
    if (weir_spill_failed(s)) { /* nothing more is read where the tail is full: say it here */
        fail(r, 500, "the request body could not be stored", true);
        return;
    }
    if (weir_spill_full(s)) return;
    not_full(r);
    uint32_t *owed = &r->owed[s == r->data];
    if (*owed) weir_wire_app_consumed(r->front->wire, r->id, streams[s == r->data], *owed);
    *owed = 0;
    front_dirty(r->front);
}

/* Nobody waits for it any more. (FC1-5.4-a) */
void front_req_aborted(struct front_req *r)
{
    drop_app(r);
    r->status = 499;
    finish(r, 0, WEIR_WIRE_REQUEST_COMPLETE);
}

/* ---- from the pool ---- */

static void app_ended(struct front_req *r, struct weir_client_req *req)
{
    struct weir_client_result o;
    weir_client_req_result(req, &o);
    if (o.status == WEIR_OK) {
        drop_app(r);
        drop_body(r);
        r->app_status = o.app_status;
        r->protocol_status = o.protocol_status;
        r->ending = true;
        front_req_go_on(r);
        return;
    }
    if (o.status == WEIR_REFUSED && o.protocol_status == WEIR_WIRE_UNKNOWN_ROLE && !r->sent) {
        drop_app(r);
        finish(r, o.app_status, o.protocol_status);
        return;
    }
    if (o.status == WEIR_TIMEOUT && o.stage == WEIR_STAGE_RUN)
        gateway_late(r->worker->gw, front_param(r, "REQUEST_METHOD"), front_param(r, "REQUEST_URI"), &o, true);
    fail(r, app_failed(&o), o.reason, o.stage != WEIR_STAGE_RUN || o.not_run);
}

void front_client_event(struct worker *w, const struct weir_client_event *ev)
{
    struct front_req *r = WEIR_CONTAINER(ev->user, struct front_req, caller);
    switch (ev->type) {
    case WEIR_CLIENT_STARTED:
        if (r->body) weir_spill_rewind(r->body);
        if (r->data) weir_spill_rewind(r->data);
        pump(r);
        break;
    case WEIR_CLIENT_ROOM: pump(r); break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDERR) give_err(r, ev->bytes);
        else if (ev->bytes.len) give_out(r, ev->bytes);
        else front_req_go_on(r);
        break;
    case WEIR_CLIENT_SLOW: {
        struct weir_client_result o;
        weir_client_req_result(ev->req, &o);
        gateway_late(w->gw, front_param(r, "REQUEST_METHOD"), front_param(r, "REQUEST_URI"), &o, false);
        break;
    }
    case WEIR_CLIENT_STUCK: break; /* of no request */
    case WEIR_CLIENT_END: app_ended(r, ev->req); break;
    }
}

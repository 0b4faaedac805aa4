/* SPDX-License-Identifier: MIT */
/* Foreign web servers (nginx, HAProxy, Apache, another Weir) that call a published pool: FastCGI comes in and goes on to the pool's
 * queue as it is. Parameters, streams and statuses are carried, never understood: but for lines of the log, nothing here knows HTTP;
 * what Weir itself has to say (no room, no answer in time) is said as an app would, because web servers look at nothing else.
 *
 * A request takes a slot when its body is whole. Before that it is refused only behind the end of its body, too: a web server that is
 * answered while it still sends takes that for a failure. */
#include <stdlib.h>
#include <sys/socket.h>

#include "gateway/internal.h"

#define FRONT_PARAMS   (256u << 10) /* of one request; all incomplete ones of a connection: 4 x */
#define FRONT_PLAIN    100          /* requests at once on a connection without flow control: told as FCGI_MAX_REQS */
#define FRONT_REQUESTS 1000         /* and with it */
#define FRONT_OUT      (256u << 10) /* answers that wait for a web server's socket, in memory */
#define FRONT_CHOKED   (64u << 10)  /* beyond that: ends, credit, answers to management records; then nothing is read */
#define FRONT_ERR      (64u << 10)  /* STDERR that waits for the web server; more goes to our log */
#define FRONT_DROP     (UINT64_C(1) << 30) /* of a body that is refused: then the connection ends */
#define FRONT_READS    16           /* in a turn; then others have theirs */
#define TOLD_MS        1000

static void answer(struct front_req *r);
static void fail(struct front_req *r, int status, const char *why, bool not_run);
static void finish(struct front_req *r, uint32_t app_status, uint8_t protocol_status);

static struct weir_ident ident(const struct front *f)
{
    return (struct weir_ident){.kind = KIND_FRONT, .index = f->index, .epoch = f->epoch};
}

static const struct weir_conf_listener *conf_of(const struct front *f)
{
    static const struct weir_conf_listener none = {.header_ms = 15000, .body_ms = 60000, .idle_ms = 1000, .send_ms = 60000};
    const struct listener *l = snapshot_listener(f->worker->snap, f->listener);
    return l && l->pool ? l->conf : &none;
}

static size_t waiting(const struct front *f)
{
    const void *p;
    return weir_wire_app_output(f->wire, &p);
}

static void dirty(struct front *f)
{
    if (f->in_use && weir_list_empty(&f->dirty_link)) weir_list_push_back(&f->worker->dirty_fronts, &f->dirty_link);
}

/* ---- requests: memory and time ---- */

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
    if (--r->front->full == 0) dirty(r->front);
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
    if (r->app) weir_client_req_free(r->app);
    r->app = NULL;
}

static void req_free(struct front_req *r)
{
    struct worker *w = r->worker;
    log_front(r);
    atomic_fetch_add_explicit(&w->requests, 1, memory_order_relaxed);
    drop_app(r);
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
    if (r->role == WEIR_AUTHORIZER) return true; /* it has no streams [FastCGI 1.0 6.3] */
    return r->stdin_ended && (r->role != WEIR_FILTER || r->data_ended);
}

/* Nothing of this connection is read, for our own reasons: nobody on it is late. */
static bool held_up(const struct front *f)
{
    return f->full > 0 || waiting(f) >= FRONT_OUT + FRONT_CHOKED;
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
    } else if (held_up(r->front)) {
        arm(r, conf_of(r->front)->body_ms);
    } else {
        if (!r->refused) r->status = 408;
        r->not_run = false;
        answer(r);
    }
}

struct weir_str front_param(const struct front_req *r, const char *name)
{
    for (size_t i = 0; i < r->param_count; i++)
        if (weir_str_eq(r->params[i].name, weir_cstr(name))) return r->params[i].value;
    return (struct weir_str){0};
}

/* ---- what is said to the web server ---- */

/* Takes 0..len bytes of STDOUT or STDERR. */
static size_t give(struct front_req *r, enum weir_stream s, const char *p, size_t len)
{
    struct front *f = r->front;
    size_t held = waiting(f), room = held < FRONT_OUT ? FRONT_OUT - held : 0;
    int64_t n = 0;
    if (room) {
        n = weir_wire_app_write(f->wire, r->id, s, p, len < room ? len : room);
        if (n < 0) {
            f->broken = true; /* memory, or the peer's mistake: the flush ends it */
            dirty(f);
            return len;
        }
    }
    bool no_credit = (size_t)n < len && weir_wire_app_room(f->wire, r->id, s) == 0;
    if ((size_t)n < len && !no_credit) r->wants_room = f->wants_room = true;
    if (no_credit && (n || !r->due_ms)) arm(r, conf_of(f)->send_ms);
    else if (!no_credit && input_ended(r)) r->due_ms = 0;
    if (n) dirty(f);
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
    if (take < bytes.len) log_app_stderr(r->worker, r->app, weir_pool_name(r->pool), weir_str(bytes.ptr + take, bytes.len - take));
}

static void give_out(struct front_req *r, struct weir_str bytes)
{
    size_t n = give(r, WEIR_STDOUT, bytes.ptr, bytes.len);
    r->sent += n;
    weir_client_consume(r->app, n);
}

/* What waits for room goes on. r may be gone. */
static void go_on(struct front_req *r)
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
    while (r->app && waiting(r->front) < FRONT_OUT && weir_client_peek(r->app, &p, &len) == WEIR_OK) {
        size_t n = give(r, WEIR_STDOUT, p, len);
        r->sent += n;
        weir_client_consume(r->app, n);
        if (n < len) break;
    }
    if (r->app && waiting(r->front) >= FRONT_OUT) r->wants_room = r->front->wants_room = true; /* perhaps for what is held */
    if (r->ending && weir_buf_len(&r->err) == 0) finish(r, r->app_status, r->protocol_status);
}

/* END_REQUEST. */
static void finish(struct front_req *r, uint32_t app_status, uint8_t protocol_status)
{
    struct front *f = r->front;
    if (weir_wire_app_end(f->wire, r->id, app_status, protocol_status) < 0) f->broken = true;
    req_free(r);
    dirty(f);
}

/* What Weir says in the app's place. Who speaks flow control knows what a refusal is, and may ask another one. */
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
        dirty(f);
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
    struct weir_client_begin b = {.role = (enum weir_role)r->role, .params = r->params, .param_count = r->param_count, .body_kept = true,
                                  .body_len = r->body ? weir_spill_size(r->body) : 0, .data_len = r->data ? weir_spill_size(r->data) : 0,
                                  .silent_ms = conf->silent_ms, .request_ms = conf->request_ms, .slow_ms = conf->slow_ms, .user = &r->caller};
    const char *why;
    r->due_ms = 0;
    not_full(r);
    int status = weir_client_begin(r->worker->client, r->pool, &b, &r->app);
    if (status < 0) {
        r->app = NULL;
        int code = app_not_begun(status, &why);
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

static void req_begins(struct front *f, const struct weir_wire_event *ev)
{
    struct worker *w = f->worker;
    struct front_req *r = req_new(f, ev);
    f->phase = FRONT_BUSY;
    f->due_ms = 0;
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
    arm(r, conf_of(f)->body_ms);
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

static void input(struct front_req *r, enum weir_stream s, struct weir_str bytes)
{
    struct front *f = r->front;
    struct weir_spill *kept = s == WEIR_DATA ? r->data : r->body;
    bool wanted = s == WEIR_STDIN ? r->role != WEIR_AUTHORIZER : r->role == WEIR_FILTER;
    if (!wanted || r->refused) {
        r->dropped += bytes.len;
        if (r->dropped > FRONT_DROP) f->broken = true;
        weir_wire_app_consumed(f->wire, r->id, s, bytes.len);
        if (wanted) arm(r, conf_of(f)->body_ms);
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
        arm(r, conf_of(f)->body_ms);
        return;
    }
    weir_wire_app_consumed(f->wire, r->id, s, bytes.len);
    if (large) fail(r, 413, "the request body is larger than this listener takes", true);
    else if (status == WEIR_SYSTEM) fail(r, 500, "the request body could not be stored", true);
    else fail(r, 503, status == WEIR_LIMIT ? "no room for the request body" : "out of memory", true);
}

static void input_ends(struct front_req *r, enum weir_stream s)
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
    dirty(r->front);
}

/* Nobody waits for it any more. */
static void aborted(struct front_req *r)
{
    drop_app(r);
    r->status = 499;
    finish(r, 0, WEIR_WIRE_REQUEST_COMPLETE);
}

static void wire_event(struct front *f, const struct weir_wire_event *ev)
{
    struct front_req *r = ev->user;
    switch (ev->type) {
    case WEIR_WIRE_EV_REQUEST: req_begins(f, ev); break;
    case WEIR_WIRE_EV_INPUT:
        if (r) input(r, ev->stream, ev->bytes);
        break;
    case WEIR_WIRE_EV_INPUT_END:
        if (r) input_ends(r, ev->stream);
        break;
    case WEIR_WIRE_EV_ROOM:
        if (r) go_on(r);
        break;
    case WEIR_WIRE_EV_ABORT:
        if (r) aborted(r);
        break;
    case WEIR_WIRE_EV_ERROR:
        log_error(f->worker, "a web server's connection ends: %s", ev->reason);
        f->broken = true;
        break;
    default: break;
    }
}

/* Time for the next request, or for the rest of its head; anew when the phase changes. */
static void set_phase(struct front *f)
{
    uint32_t active = weir_wire_app_active(f->wire);
    bool head = active > f->req_count || (active == 0 && !weir_wire_app_idle(f->wire));
    uint8_t phase = head ? FRONT_HEAD : active ? FRONT_BUSY : FRONT_IDLE;
    if (phase == f->phase && (f->due_ms || phase == FRONT_BUSY)) return;
    const struct weir_conf_listener *conf = conf_of(f);
    uint64_t now = weir_loop_now_ms(f->worker->loop);
    f->phase = phase;
    f->due_ms = phase == FRONT_BUSY ? 0 : now + (phase == FRONT_HEAD ? conf->header_ms : conf->idle_ms);
    if (f->due_ms && (!weir_timer_is_set(&f->timer) || f->due_ms < f->timer.due_ms)) weir_timer_set(f->worker->loop, &f->timer, ident(f), f->due_ms);
}

/* Reads what is there; false: the connection is gone. */
static bool read_some(struct front *f)
{
    struct worker *w = f->worker;
    struct weir_wire_event ev;
    for (int i = 0; i < FRONT_READS && f->readable && !held_up(f) && !f->broken; i++) {
        int64_t n = weir_loop_read(w->loop, f->fd, w->scratch, SCRATCH);
        if (n == WEIR_AGAIN) {
            f->readable = false;
            break;
        }
        if (n < 0) {
            front_close(f);
            return false;
        }
        if (n < SCRATCH && !f->peer_closed) f->readable = false;
        weir_wire_app_feed(f->wire, w->scratch, (size_t)n);
        while (weir_wire_app_next(f->wire, &ev) == WEIR_OK) wire_event(f, &ev);
    }
    set_phase(f);
    dirty(f); /* answers, credit, the rest of what is there */
    return true;
}

void front_event(struct worker *w, const struct weir_event *ev)
{
    if (ev->ident.index >= w->front_top) return;
    struct front *f = w->fronts[ev->ident.index];
    if (f->epoch != ev->ident.epoch || !f->in_use) return;
    uint64_t now = weir_loop_now_ms(w->loop);
    if (ev->ready & WEIR_READY_TIMER) {
        uint64_t next = f->due_ms && (!f->send_due_ms || f->due_ms < f->send_due_ms) ? f->due_ms : f->send_due_ms;
        if (next && next <= now && !(held_up(f) && next == f->due_ms)) front_close(f);
        else if (next) weir_timer_set(w->loop, &f->timer, ident(f), next > now ? next : now + conf_of(f)->header_ms);
        return;
    }
    if (ev->ready & WEIR_READY_WRITE) dirty(f);
    if (ev->ready & WEIR_READY_CLOSED) f->peer_closed = true;
    if (!(ev->ready & (WEIR_READY_READ | WEIR_READY_CLOSED))) return;
    f->readable = true;
    if (f->peer_closed && held_up(f)) front_close(f); /* what is not read yet has nobody who waits for it */
    else read_some(f);
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
        go_on(r);
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
        else go_on(r);
        break;
    case WEIR_CLIENT_SLOW: {
        struct weir_client_result o;
        weir_client_req_result(ev->req, &o);
        gateway_late(w->gw, front_param(r, "REQUEST_METHOD"), front_param(r, "REQUEST_URI"), &o, false);
        break;
    }
    case WEIR_CLIENT_END: app_ended(r, ev->req); break;
    }
}

/* ---- output ---- */

/* False: the connection is gone. */
static bool write_out(struct front *f)
{
    struct worker *w = f->worker;
    const void *p;
    size_t len, sent = 0;
    while ((len = weir_wire_app_output(f->wire, &p)) > 0) {
        struct iovec v = {(void *)(uintptr_t)p, len};
        int64_t n = weir_loop_writev(w->loop, f->fd, &v, 1, false);
        if (n == WEIR_AGAIN || n == 0) break;
        if (n < 0) {
            front_close(f);
            return false;
        }
        weir_wire_app_sent(f->wire, (size_t)n);
        sent += (size_t)n;
        if ((size_t)n < len) break;
    }
    bool want = waiting(f) > 0;
    if (!want) {
        f->send_due_ms = 0;
    } else if (sent || !f->send_due_ms) {
        f->send_due_ms = weir_loop_now_ms(w->loop) + conf_of(f)->send_ms;
        if (!weir_timer_is_set(&f->timer) || f->send_due_ms < f->timer.due_ms) weir_timer_set(w->loop, &f->timer, ident(f), f->send_due_ms);
    }
    if (want != f->want_write && weir_loop_want_write(w->loop, f->fd, ident(f), want) == WEIR_OK) f->want_write = want;
    return true;
}

static void tell_room(struct front *f)
{
    f->wants_room = false;
    for (struct weir_list *l = f->reqs.next, *next; l != &f->reqs && waiting(f) < FRONT_OUT; l = next) {
        struct front_req *r = WEIR_CONTAINER(l, struct front_req, link);
        next = l->next; /* no other one ends by this */
        if (r->wants_room) go_on(r);
    }
    for (const struct weir_list *l = f->reqs.next; l != &f->reqs && !f->wants_room; l = l->next)
        f->wants_room = WEIR_CONTAINER(l, struct front_req, link)->wants_room;
}

static bool is_over(const struct front *f)
{
    if (weir_wire_app_closing(f->wire)) return true; /* [FastCGI 1.0 3.5]: ours to close; the web server has all of it */
    if (!weir_wire_app_idle(f->wire)) return false;
    if (f->close_after) return true;
    return f->worker->draining && !weir_wire_app_agreed(f->wire); /* an agreed one is the web server's to close: it was told */
}

void front_flush(struct front *f)
{
    if (!f->in_use || !write_out(f)) return;
    if (f->broken) {
        front_close(f);
        return;
    }
    if (f->wants_room && waiting(f) < FRONT_OUT / 2) {
        tell_room(f);
        if (waiting(f)) dirty(f);
    }
    if (f->readable && !held_up(f)) {
        if (!read_some(f)) return;
    } else {
        set_phase(f);
    }
    if (waiting(f) == 0 && !f->readable && !f->broken && is_over(f)) front_close(f);
}

/* ---- life ---- */

static struct front *slot(struct worker *w)
{
    if (w->free_front_count) return w->fronts[w->free_front[--w->free_front_count]];
    if (w->front_top == w->front_cap) {
        uint32_t cap = w->front_cap ? w->front_cap * 2 : 16;
        struct front **fronts = realloc(w->fronts, cap * sizeof(struct front *));
        if (!fronts) return NULL;
        w->fronts = fronts;
        uint32_t *free_front = realloc(w->free_front, cap * sizeof *free_front);
        if (!free_front) return NULL;
        w->free_front = free_front;
        w->front_cap = cap;
    }
    struct front *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->index = w->front_top;
    w->fronts[w->front_top++] = f;
    return f;
}

static bool same_network(const struct weir_conf_allow *a, const uint8_t *address)
{
    size_t whole = a->bits / 8, rest = a->bits % 8;
    if (memcmp(a->address, address, whole) != 0) return false;
    return rest == 0 || ((a->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

static bool address_allowed(const struct weir_conf_listener *conf, const struct sockaddr_storage *peer)
{
    const struct sockaddr_in *v4 = (const void *)peer;
    const struct sockaddr_in6 *v6 = (const void *)peer;
    const uint8_t *address = (const void *)&v4->sin_addr;
    bool is_v6 = peer->ss_family == AF_INET6;
    if (is_v6) {
        address = v6->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) { /* IPv4, by a socket for both */
            address += 12;
            is_v6 = false;
        }
    } else if (peer->ss_family != AF_INET) {
        return false;
    }
    for (size_t i = 0; i < conf->allow_count; i++)
        if (!conf->allow[i].user && conf->allow[i].v6 == is_v6 && same_network(&conf->allow[i], address)) return true;
    return false;
}

static bool allowed(const struct listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct ucred who;
    socklen_t len = sizeof who;
    if (peer->ss_family != AF_UNIX) return address_allowed(l->conf, peer);
    if (!l->user_count) return true; /* its owner, group and mode tell who may */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) return false;
    for (size_t i = 0; i < l->user_count; i++)
        if (l->users[i] == who.uid && who.uid != (uid_t)-1) return true;
    return false;
}

static bool may_enter(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener)
{
    const struct listener *l = snapshot_listener(w->snap, listener);
    char text[INET6_ADDRSTRLEN + 8];
    if (!l || !l->pool) return false;
    if (allowed(l, fd, peer)) return true;
    uint64_t now = weir_loop_now_ms(w->loop);
    if (w->refused_at_ms && now < w->refused_at_ms + TOLD_MS) return false; /* whoever tries again and again does not fill the log */
    w->refused_at_ms = now;
    weir_address_text(peer, text, sizeof text);
    log_error(w, "listener %s: a connection is refused: %s is not in its allow list", l->conf->name, peer->ss_family == AF_UNIX ? "its user" : text);
    return false;
}

static bool front_start(struct front *f)
{
    struct worker *w = f->worker;
    const struct weir_wire_limits limits = {.params_bytes = FRONT_PARAMS, .requests = FRONT_REQUESTS, .plain_requests = FRONT_PLAIN,
                                            .conns = atomic_load(&w->gw->conn_max)};
    return weir_wire_app_new(&f->wire, &limits) == WEIR_OK && weir_loop_add(w->loop, f->fd, ident(f), false) == WEIR_OK;
}

void front_accepted(struct worker *w, int fd, const struct sockaddr_storage *peer, uint64_t listener)
{
    struct front *f = may_enter(w, fd, peer, listener) ? slot(w) : NULL;
    if (!f) {
        weir_loop_close(w->loop, fd);
        worker_uncount(w);
        return;
    }
    uint32_t index = f->index, epoch = (f->epoch + 1) & 0xffffff;
    *f = (struct front){.worker = w, .index = index, .epoch = epoch, .fd = fd, .peer = *peer, .listener = listener, .in_use = true};
    weir_list_init(&f->dirty_link);
    weir_list_init(&f->reqs);
    if (!front_start(f)) {
        front_close(f);
        return;
    }
    set_phase(f);
    if (w->draining) front_drain(f); /* it was accepted before that */
}

void front_close(struct front *f)
{
    struct worker *w = f->worker;
    if (!f->in_use) return;
    f->in_use = false;
    while (!weir_list_empty(&f->reqs)) {
        struct front_req *r = WEIR_CONTAINER(f->reqs.next, struct front_req, link);
        if (!r->status) r->status = f->broken ? 0 : 499; /* the web server left */
        req_free(r);
    }
    weir_timer_clear(&f->timer);
    weir_list_remove(&f->dirty_link);
    weir_wire_app_free(f->wire);
    f->wire = NULL;
    weir_loop_close(w->loop, f->fd);
    f->fd = -1;
    f->epoch = (f->epoch + 1) & 0xffffff;
    w->free_front[w->free_front_count++] = f->index;
    worker_uncount(w);
}

void front_drain(struct front *f)
{
    if (!f->in_use) return;
    weir_wire_app_drain(f->wire);
    f->readable = true; /* what it has sent already is still served */
    dirty(f);
}

void front_free_all(struct worker *w)
{
    for (uint32_t i = 0; i < w->front_top; i++) free(w->fronts[i]);
    free(w->fronts);
    free(w->free_front);
    while (w->free_front_reqs) {
        struct front_req *r = w->free_front_reqs;
        w->free_front_reqs = r->next_free;
        free(r);
    }
}

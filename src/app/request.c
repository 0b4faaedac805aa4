/* SPDX-License-Identifier: MIT */
/* Requests: parameters, body, header, output, end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "app/internal.h"

#define PRINTF_MAX 65536
#define FLUSH_REQUESTS 16
#define FLUSH_US 100

/* ---- life ---- */

static struct weir_app_req *req_new(struct weir_app *a)
{
    struct weir_app_req *r = a->free_reqs;
    struct weir_arena arena = {0};
    struct weir_buf in = {0}, head = {0};
    if (r) {
        a->free_reqs = r->next_free;
        arena = r->arena;
        in = r->in;
        head = r->head;
    } else {
        r = malloc(sizeof *r);
        if (!r) return NULL;
    }
    memset(r, 0, sizeof *r);
    r->arena = arena;
    r->in = in;
    r->head = head;
    r->app = a;
    r->in_use = true;
    r->serial = ++a->serial;
    weir_list_push_back(&a->reqs, &r->all_link);
    weir_list_init(&r->event_link);
    weir_list_init(&r->run_link);
    if (threaded(a)) r->has_cond = pthread_cond_init(&r->changed, NULL) == 0;
    a->req_count++;
    return r;
}

void weir_app_req_free(struct weir_app_req *r)
{
    struct weir_app *a = r->app;
    weir_timer_clear(&r->timer);
    r->in_use = false;
    weir_list_remove(&r->all_link);
    weir_list_remove(&r->event_link);
    weir_list_remove(&r->run_link);
    if (r->has_cond) pthread_cond_destroy(&r->changed);
    free(r->param_block);
    weir_arena_reset(&r->arena);
    weir_buf_reset(&r->in, 4096);
    weir_buf_reset(&r->head, 1024);
    r->next_free = a->free_reqs;
    a->free_reqs = r;
    a->req_count--;
}

/* The block of pairs becomes an array of NUL-terminated names and values, in place: each pair's two lengths or more give way
 * to the end of the former value and, the name moved by one, to the end of the name. */
static bool decode_params(struct weir_app_req *r, struct weir_str block, uint32_t count)
{
    struct weir_pair p;
    char *text = (char *)(uintptr_t)block.ptr;
    size_t pos = 0, end = 0;
    r->params = weir_arena_alloc(&r->arena, (count + 1) * sizeof *r->params);
    if (!r->params) return false;
    while (weir_wire_pair_next(block, &pos, &p) == WEIR_OK) {
        char *name = text + (p.name.ptr - block.ptr) - 1;
        if (end) text[end] = 0;
        memmove(name, name + 1, p.name.len);
        name[p.name.len] = 0;
        r->params[r->param_count++] = (struct weir_pair){weir_str(name, p.name.len), p.value};
        end = pos;
    }
    if (end) text[end] = 0; /* the byte behind them */
    return true;
}

static void turn_away(struct app_conn *k, const struct weir_wire_event *ev)
{
    static const char busy[] = "Status: 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\n\r\nbusy\n";
    uint8_t status = WEIR_WIRE_OVERLOADED;
    if (!ev->agreed) { /* common servers know no OVERLOADED */
        if (weir_wire_app_write(k->wire, ev->id, WEIR_STDOUT, busy, sizeof busy - 1) > 0) status = WEIR_WIRE_REQUEST_COMPLETE;
    }
    if (weir_wire_app_end(k->wire, ev->id, 0, status) < 0) k->broken = true;
    weir_app_conn_dirty(k);
}

struct weir_app_req *weir_app_req_begin(struct app_conn *k, const struct weir_wire_event *ev)
{
    struct weir_app *a = k->app;
    struct weir_app_req *r = a->req_count < a->o.max_requests ? req_new(a) : NULL;
    if (!r || !decode_params(r, weir_wire_app_params(k->wire, ev->id), ev->param_count)) {
        if (r) weir_app_req_free(r);
        turn_away(k, ev);
        return NULL;
    }
    r->conn = k;
    r->id = ev->id;
    r->role = ev->role;
    r->flow = ev->agreed;
    r->ev_request = true;
    weir_wire_app_set_user(k->wire, ev->id, r);
    if (threaded(a)) {
        weir_list_push_back(&a->run_queue, &r->run_link);
        pthread_cond_signal(&a->work);
    } else {
        weir_app_req_post(r);
    }
    return r;
}

void weir_app_req_post(struct weir_app_req *r)
{
    if (threaded(r->app)) {
        if (r->has_cond) pthread_cond_broadcast(&r->changed);
    } else if (weir_list_empty(&r->event_link)) {
        weir_list_push_back(&r->app->events, &r->event_link);
    }
}

void weir_app_req_abort(struct weir_app_req *r)
{
    if (r->aborted) return;
    r->aborted = true;
    r->input_ended = true;
    r->ev_abort = true;
    weir_app_req_post(r);
}

void weir_app_req_input(struct weir_app_req *r, struct weir_str bytes)
{
    if (weir_buf_append(&r->in, bytes.ptr, bytes.len) < 0) {
        weir_app_req_abort(r);
        return;
    }
    /* without credit the socket is all that can hold the server back */
    if (!r->flow && weir_buf_len(&r->in) >= r->app->o.body_window) r->conn->stalled = true;
    r->ev_input = true;
    weir_app_req_post(r);
}

bool weir_app_req_pop_event(struct weir_app_req *r, struct weir_app_event *ev)
{
    *ev = (struct weir_app_event){.req = r, .user = r->user};
    if (r->ending) { /* the program knows it no more */
        weir_app_req_finish(r, r->end_status, WEIR_WIRE_REQUEST_COMPLETE);
        return false;
    }
    if (r->ev_request) {
        r->ev_request = false;
        ev->type = WEIR_APP_REQUEST;
    } else if (r->ev_abort) {
        r->ev_abort = r->ev_input = r->ev_room = false;
        ev->type = WEIR_APP_ABORT;
    } else if (r->ev_input) {
        r->ev_input = false;
        ev->type = WEIR_APP_INPUT;
    } else if (r->ev_room) {
        r->ev_room = false;
        ev->type = WEIR_APP_ROOM;
    } else if (r->ev_deadline) {
        r->ev_deadline = false;
        ev->type = WEIR_APP_DEADLINE;
    } else {
        return false;
    }
    return true;
}

/* ---- looking ---- */

enum weir_role weir_app_req_role(const struct weir_app_req *r)
{
    return (enum weir_role)r->role;
}

const char *weir_app_req_param(const struct weir_app_req *r, const char *name)
{
    struct weir_str want = weir_cstr(name);
    for (size_t i = r->param_count; i > 0; i--)
        if (weir_str_eq(r->params[i - 1].name, want)) return r->params[i - 1].value.ptr;
    return NULL;
}

int weir_app_req_param_at(const struct weir_app_req *r, size_t i, struct weir_pair *out)
{
    if (i >= r->param_count) return WEIR_AGAIN;
    *out = r->params[i];
    return WEIR_OK;
}

int64_t weir_app_req_content_length(const struct weir_app_req *r)
{
    const char *s = weir_app_req_param(r, "CONTENT_LENGTH");
    uint64_t n;
    return s && weir_str_u64(weir_cstr(s), INT64_MAX, &n) == WEIR_OK ? (int64_t)n : -1;
}

void *weir_app_req_alloc(struct weir_app_req *r, size_t len)
{
    return weir_arena_alloc(&r->arena, len);
}

void weir_app_req_set_user(struct weir_app_req *r, void *user)
{
    r->user = user;
}

void *weir_app_req_user(const struct weir_app_req *r)
{
    return r->user;
}

void weir_app_req_set_deadline(struct weir_app_req *r, int64_t ms)
{
    struct weir_loop *l = r->app->loop;
    if (ms < 0) weir_timer_clear(&r->timer);
    else weir_timer_set(l, &r->timer, (struct weir_ident){.kind = KIND_DEADLINE, .index = r->serial}, weir_loop_clock_us(l) / 1000 + (uint64_t)ms);
}

int weir_app_req_aborted(const struct weir_app_req *r)
{
    app_lock(r->app);
    int aborted = r->aborted;
    app_unlock(r->app);
    return aborted;
}

/* ---- body ---- */

static int64_t read_locked(struct weir_app_req *r, void *buf, size_t len)
{
    r->touched = true;
    while (threaded(r->app) && weir_buf_len(&r->in) == 0 && !r->input_ended) pthread_cond_wait(&r->changed, &r->app->lock);
    size_t held = weir_buf_len(&r->in);
    if (r->aborted) return WEIR_ABORTED;
    if (held == 0) return r->input_ended ? 0 : WEIR_AGAIN;
    if (len > held) len = held;
    memcpy(buf, weir_buf_ptr(&r->in), len);
    weir_buf_consume(&r->in, len);
    struct app_conn *k = r->conn;
    if (!k) return (int64_t)len;
    const void *out;
    size_t before = weir_wire_app_output(k->wire, &out);
    weir_wire_app_consumed(k->wire, r->id, WEIR_STDIN, len);
    bool wake = false;
    if (weir_wire_app_output(k->wire, &out) > before) {
        weir_app_conn_dirty(k);
        wake = true;
    }
    if (k->stalled && weir_buf_len(&r->in) < r->app->o.body_window / 2) {
        k->stalled = false;
        wake = true;
        weir_app_conn_resume(k);
    }
    if (wake && threaded(r->app)) weir_loop_wake(r->app->loop);
    return (int64_t)len;
}

int64_t weir_app_req_read(struct weir_app_req *r, void *buf, size_t len)
{
    app_lock(r->app);
    int64_t n = len ? read_locked(r, buf, len) : 0;
    app_unlock(r->app);
    return n;
}

/* ---- header ---- */

int weir_app_req_header(struct weir_app_req *r, const char *name, const char *value)
{
    struct weir_str n = weir_cstr(name), v = weir_cstr(value);
    if (r->head_sent || r->head_ended || n.len == 0 || !weir_str_all(n, WEIR_BYTE_TOKEN) || !weir_str_field(v)) return WEIR_INVALID;
    char *p = weir_buf_room(&r->head, n.len + v.len + 4); /* whole or not at all */
    if (!p) return WEIR_NOMEM;
    if (weir_str_ieq(n, WEIR_STR("Content-Type")) || weir_str_ieq(n, WEIR_STR("Location"))) r->has_type = true;
    memcpy(p, n.ptr, n.len);
    memcpy(p + n.len, ": ", 2);
    memcpy(p + n.len + 2, v.ptr, v.len);
    memcpy(p + n.len + 2 + v.len, "\r\n", 2);
    weir_buf_added(&r->head, n.len + v.len + 4);
    return WEIR_OK;
}

int weir_app_req_status(struct weir_app_req *r, int status)
{
    char line[24];
    if (r->head_sent || r->head_ended || status < 200 || status > 599) return WEIR_INVALID;
    if (status == 200) return WEIR_OK;
    int n = snprintf(line, sizeof line, "Status: %d\r\n", status);
    return weir_buf_append(&r->head, line, (size_t)n);
}

int weir_app_req_own_header(struct weir_app_req *r)
{
    if (r->head_sent || weir_buf_len(&r->head)) return WEIR_INVALID;
    r->head_sent = true;
    return WEIR_OK;
}

/* The header goes out whole, in front of the first body byte: true when it is out. */
static int send_head(struct weir_app_req *r)
{
    static const char type[] = "Content-Type: text/plain; charset=utf-8\r\n";
    if (r->head_sent) return WEIR_OK;
    if (!r->head_ended) { /* in an earlier try, if there was no room */
        if (!r->has_type && weir_buf_append(&r->head, type, sizeof type - 1) < 0) return WEIR_NOMEM;
        r->has_type = true;
        if (weir_buf_append(&r->head, "\r\n", 2) < 0) return WEIR_NOMEM;
        r->head_ended = true;
    }
    int64_t n = weir_wire_app_write(r->conn->wire, r->id, WEIR_STDOUT, weir_buf_ptr(&r->head), weir_buf_len(&r->head));
    if (n < 0) return (int)n;
    weir_buf_consume(&r->head, (size_t)n);
    if (weir_buf_len(&r->head)) return WEIR_AGAIN; /* a tiny window */
    r->head_sent = true;
    return WEIR_OK;
}

/* ---- output ---- */

static int64_t write_some(struct weir_app_req *r, enum weir_stream s, const char *p, size_t len)
{
    struct app_conn *k = r->conn;
    const void *out;
    if (r->aborted || !k) return WEIR_ABORTED;
    size_t waiting = weir_wire_app_output(k->wire, &out);
    if (waiting >= r->app->o.output_buffer) {
        r->wants_room = true;
        k->wants_room++;
        return 0;
    }
    int status = s == WEIR_STDOUT ? send_head(r) : WEIR_OK;
    weir_app_conn_dirty(k);
    if (status == WEIR_AGAIN) return 0;
    if (status < 0) return status;
    size_t room = r->app->o.output_buffer - waiting;
    int64_t n = weir_wire_app_write(k->wire, r->id, s, p, len < room ? len : room);
    if (n >= 0 && (size_t)n < len) {
        r->wants_room = true;
        k->wants_room++;
    }
    if (!threaded(r->app) && weir_wire_app_output(k->wire, &out) >= FLUSH_BYTES && waiting < FLUSH_BYTES) weir_app_conn_flush(k);
    return n;
}

static int64_t write_all(struct weir_app_req *r, enum weir_stream s, const char *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        int64_t n = write_some(r, s, p + done, len - done);
        if (n < 0) return n;
        done += (size_t)n;
        if (done == len) break;
        r->ev_room = false;
        weir_loop_wake(r->app->loop);
        while (!r->ev_room && !r->aborted) pthread_cond_wait(&r->changed, &r->app->lock);
    }
    return (int64_t)len;
}

int64_t weir_app_req_write(struct weir_app_req *r, enum weir_stream s, const void *buf, size_t len)
{
    if (s != WEIR_STDOUT && s != WEIR_STDERR) return WEIR_INVALID;
    app_lock(r->app);
    r->touched = true;
    int64_t n = threaded(r->app) ? write_all(r, s, buf, len) : write_some(r, s, buf, len);
    app_unlock(r->app);
    return n;
}

int64_t weir_app_req_printf(struct weir_app_req *r, enum weir_stream s, const char *fmt, ...)
{
    char small[1024], *text = small;
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (len < 0 || len > PRINTF_MAX) return WEIR_INVALID;
    if ((size_t)len >= sizeof small) {
        text = malloc((size_t)len + 1);
        if (!text) return WEIR_NOMEM;
        va_start(ap, fmt);
        vsnprintf(text, (size_t)len + 1, fmt, ap);
        va_end(ap);
    }
    int64_t n = WEIR_AGAIN;
    const void *out;
    size_t need = (size_t)len + weir_buf_len(&r->head) + 64;
    bool room = threaded(r->app) || !r->conn || r->aborted ||
                (weir_wire_app_room(r->conn->wire, r->id, s) >= need && weir_wire_app_output(r->conn->wire, &out) + need <= r->app->o.output_buffer);
    if (room) n = weir_app_req_write(r, s, text, (size_t)len);
    else if (weir_wire_app_write(r->conn->wire, r->id, s, text, 0) == 0) { /* marks the want of room */
        r->wants_room = true;
        r->conn->wants_room++;
    }
    if (text != small) free(text);
    return n == 0 && len > 0 ? WEIR_AGAIN : n;
}

void weir_app_req_flush(struct weir_app_req *r)
{
    app_lock(r->app);
    if (r->conn && !r->aborted && send_head(r) >= 0) {
        weir_app_conn_dirty(r->conn);
        if (threaded(r->app)) weir_loop_wake(r->app->loop);
        else weir_app_conn_flush(r->conn);
    }
    app_unlock(r->app);
}

/* ---- the end ---- */

/* The header may still wait for room in a tiny window: WEIR_AGAIN, then it is asked again. */
static int finish_head(struct weir_app_req *r)
{
    int status;
    while ((status = send_head(r)) == WEIR_AGAIN) {
        r->wants_room = true;
        r->conn->wants_room++;
        weir_app_conn_dirty(r->conn);
        if (!threaded(r->app)) return status;
        r->ev_room = false;
        weir_loop_wake(r->app->loop);
        while (!r->ev_room && !r->aborted) pthread_cond_wait(&r->changed, &r->app->lock);
        if (r->aborted || !r->conn) return WEIR_ABORTED;
    }
    return status;
}

/* Answers of a turn leave together, but one does not wait long for the others (DESIGN section 4, flush). */
static void flush_when_due(struct app_conn *k)
{
    weir_app_conn_dirty(k);
    if (threaded(k->app)) return;
    if (++k->batched >= FLUSH_REQUESTS || weir_loop_clock_us(k->app->loop) - k->batch_since_us >= FLUSH_US) weir_app_conn_flush(k);
}

void weir_app_req_finish(struct weir_app_req *r, uint32_t app_status, uint8_t protocol_status)
{
    int status = WEIR_OK;
    if (r->conn && protocol_status == WEIR_WIRE_REQUEST_COMPLETE && !r->aborted) status = finish_head(r);
    if (status == WEIR_AGAIN) {
        r->ending = true;
        r->end_status = app_status;
        return;
    }
    struct app_conn *k = r->conn;
    if (k) {
        if (status < 0 && !app_status) app_status = 1;
        if (weir_wire_app_end(k->wire, r->id, app_status, protocol_status) < 0) k->broken = true;
        if (k->stalled) {
            k->stalled = false;
            weir_app_conn_resume(k);
        }
    }
    weir_app_req_free(r);
    if (k) flush_when_due(k);
}

int weir_app_req_refuse(struct weir_app_req *r)
{
    struct weir_app *a = r->app;
    if (r->touched || threaded(a)) return WEIR_INVALID;
    weir_app_req_finish(r, 0, WEIR_WIRE_OVERLOADED);
    return WEIR_OK;
}

void weir_app_req_end(struct weir_app_req *r, uint32_t app_status)
{
    if (threaded(r->app)) return; /* the handler's return does it */
    weir_app_req_finish(r, app_status, WEIR_WIRE_REQUEST_COMPLETE);
}

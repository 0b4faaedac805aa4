/* SPDX-License-Identifier: MIT */
/* Requests: their life, parameters, input. What they answer: output.c. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "app/internal.h"

/* ---- life ---- */

/* It waits by the clock of deadlines. */
static bool cond_new(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int bad = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return !bad;
}

static struct weir_app_req *req_new(struct weir_app *a)
{
    struct weir_app_req *r = a->free_reqs;
    struct weir_arena arena = {0};
    struct weir_buf in[2] = {{0}}, head = {0}, err = {0};
    if (r) {
        a->free_reqs = r->next_free;
        arena = r->arena;
        memcpy(in, r->in, sizeof in);
        head = r->head;
        err = r->err;
    } else {
        r = malloc(sizeof *r);
        if (!r) return NULL;
    }
    memset(r, 0, sizeof *r);
    r->arena = arena;
    memcpy(r->in, in, sizeof in);
    r->head = head;
    r->err = err;
    r->from_fd = -1;
    r->app = a;
    r->in_use = true;
    r->serial = ++a->serial;
    weir_list_push_back(&a->reqs, &r->all_link);
    weir_list_init(&r->event_link);
    weir_list_init(&r->run_link);
    if (threaded(a)) r->has_cond = cond_new(&r->changed);
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
    for (size_t i = 0; i < WEIR_COUNT(r->in); i++) weir_buf_reset(&r->in[i], 4096);
    if (r->from_fd >= 0) close(r->from_fd);
    weir_buf_reset(&r->head, 1024);
    weir_buf_reset(&r->err, 1024);
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
    if (!ev->agreed) { /* common servers know no OVERLOADED (FC1-5.5-e) */
        if (weir_wire_app_write(k->wire, ev->id, WEIR_STDOUT, busy, sizeof busy - 1) > 0) status = WEIR_WIRE_REQUEST_COMPLETE;
    }
    if (weir_wire_app_end(k->wire, ev->id, 0, status) < 0) k->broken = true;
    weir_app_conn_dirty(k);
}

struct weir_app_req *weir_app_req_begin(struct app_conn *k, const struct weir_wire_event *ev)
{
    struct weir_app *a = k->app;
    if (!(a->o.roles & weir_app_role_bit(ev->role))) {
        if (weir_wire_app_end(k->wire, ev->id, 0, WEIR_WIRE_UNKNOWN_ROLE) < 0) k->broken = true; /* FC1-5.5-f */
        weir_app_conn_dirty(k);
        return NULL;
    }
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
    r->ev_request = true; /* FC1-6.2-d */
    r->input_ended[weir_app_input(WEIR_DATA)] = r->role != WEIR_FILTER; /* FC1-6.3-e */
    weir_wire_app_set_user(k->wire, ev->id, r);
    if (++a->total == a->o.max_total) atomic_store(&a->drain_asked, true); /* seen at the end of this turn */
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
    for (size_t i = 0; i < WEIR_COUNT(r->in); i++) r->input_ended[i] = true; /* FC1-5.4-e */
    r->ev_abort = true;
    weir_app_req_post(r);
}

static size_t unread(const struct weir_app_req *r)
{
    return weir_buf_len(&r->in[0]) + weir_buf_len(&r->in[1]);
}

void weir_app_req_input(struct weir_app_req *r, enum weir_stream s, struct weir_str bytes)
{
    size_t i = weir_app_input(s);
    if (weir_buf_append(&r->in[i], bytes.ptr, bytes.len) < 0) {
        weir_app_req_abort(r);
        return;
    }
    /* without credit the socket is all that can hold the server back */
    if (!r->flow && !r->full && unread(r) >= r->app->o.body_window) {
        r->full = true;
        r->conn->full_count++;
    }
    r->ev_input[i] = true;
    weir_app_req_post(r);
}

void weir_app_req_input_ends(struct weir_app_req *r, enum weir_stream s)
{
    size_t i = weir_app_input(s);
    r->input_ended[i] = r->ev_input[i] = true;
    weir_app_req_post(r);
}

bool weir_app_req_has_events(const struct weir_app_req *r)
{
    if (r->ending) return r->from_fd >= 0 && r->ev_room;
    return r->ev_request || r->ev_abort || r->ev_input[0] || r->ev_input[1] || r->ev_room || r->ev_deadline;
}

bool weir_app_req_pop_event(struct weir_app_req *r, struct weir_app_event *ev)
{
    *ev = (struct weir_app_event){.req = r, .user = r->user};
    if (r->ending) { /* the program knows it no more */
        r->ev_room = false;
        if (r->from_fd >= 0) weir_app_req_pump(r);
        if (r->from_fd < 0) weir_app_req_finish(r, r->end_status, WEIR_WIRE_REQUEST_COMPLETE);
        return false;
    }
    if (r->ev_request) {
        r->ev_request = false;
        ev->type = WEIR_APP_REQUEST;
    } else if (r->ev_abort) {
        r->ev_abort = r->ev_input[0] = r->ev_input[1] = r->ev_room = false;
        ev->type = WEIR_APP_ABORT; /* FC1-5.4-a */
    } else if (r->ev_input[0] || r->ev_input[1]) {
        ev->stream = r->ev_input[0] ? WEIR_STDIN : WEIR_DATA; /* FC1-6.4-d */
        r->ev_input[weir_app_input(ev->stream)] = false;
        ev->type = WEIR_APP_INPUT;
    } else if (r->ev_room) {
        r->ev_room = false;
        if (r->from_fd >= 0) { /* the program waits for nothing */
            weir_app_req_pump(r);
            return false;
        }
        if (!weir_app_req_send_kept(r)) return false;
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
    for (size_t i = r->param_count; i > 0; i--) /* FC1-5.2-a */
        if (weir_str_eq(r->params[i - 1].name, want)) return r->params[i - 1].value.ptr;
    return NULL;
}

int weir_app_req_param_at(const struct weir_app_req *r, size_t i, struct weir_pair *out)
{
    if (i >= r->param_count) return WEIR_AGAIN;
    *out = r->params[i];
    return WEIR_OK;
}

int64_t weir_app_req_content_length(const struct weir_app_req *r) /* FC1-6.2-f, FC1-6.4-f */
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

/* The wheel is the loop's, which waits without the lock: handlers on threads mind their own time. */
void weir_app_req_set_deadline(struct weir_app_req *r, int64_t ms)
{
    struct weir_loop *l = r->app->loop;
    uint64_t at_us = weir_loop_clock_us(l) + (ms < 0 ? 0 : (uint64_t)ms * 1000);
    if (threaded(r->app)) {
        app_lock(r->app);
        r->deadline_us = ms < 0 ? 0 : at_us;
        app_unlock(r->app);
    } else if (ms < 0) {
        weir_timer_clear(&r->timer);
    } else {
        weir_timer_set(l, &r->timer, (struct weir_ident){.kind = KIND_DEADLINE, .index = r->serial}, at_us / 1000);
    }
}

int weir_app_req_aborted(const struct weir_app_req *r)
{
    app_lock(r->app);
    int aborted = r->aborted;
    app_unlock(r->app);
    return aborted;
}

/* ---- input ---- */

/* Threads: until something of it changes. False: its deadline has come. */
bool weir_app_req_wait(struct weir_app_req *r)
{
    if (!r->deadline_us) {
        pthread_cond_wait(&r->changed, &r->app->lock);
        return true;
    }
    if (weir_loop_clock_us(r->app->loop) >= r->deadline_us) return false;
    struct timespec at = {.tv_sec = (time_t)(r->deadline_us / 1000000), .tv_nsec = (long)(r->deadline_us % 1000000) * 1000};
    pthread_cond_timedwait(&r->changed, &r->app->lock, &at);
    return true;
}

bool weir_app_req_not_full(struct weir_app_req *r)
{
    struct app_conn *k = r->conn;
    if (!r->full) return false;
    r->full = false;
    if (--k->full_count) return false;
    weir_app_conn_resume(k);
    return true;
}

/* The program took len bytes: the server may send more. */
static void taken(struct weir_app_req *r, enum weir_stream s, size_t len)
{
    struct app_conn *k = r->conn;
    const void *out;
    size_t before = weir_wire_app_output(k->wire, &out);
    weir_wire_app_consumed(k->wire, r->id, s, len);
    bool wake = false;
    if (weir_wire_app_output(k->wire, &out) > before) {
        weir_app_conn_dirty(k);
        wake = true;
    }
    if (r->full && unread(r) < r->app->o.body_window / 2) wake = weir_app_req_not_full(r) || wake;
    if (wake && threaded(r->app)) weir_loop_wake(r->app->loop);
}

static int64_t read_locked(struct weir_app_req *r, enum weir_stream s, void *buf, size_t len)
{
    size_t i = weir_app_input(s);
    struct weir_buf *in = &r->in[i];
    r->touched = true;
    while (threaded(r->app) && weir_buf_len(in) == 0 && !r->input_ended[i])
        if (!weir_app_req_wait(r)) return WEIR_TIMEOUT;
    size_t held = weir_buf_len(in);
    if (r->aborted) return WEIR_ABORTED;
    if (held == 0) return r->input_ended[i] ? 0 : WEIR_AGAIN;
    if (len > held) len = held;
    memcpy(buf, weir_buf_ptr(in), len);
    weir_buf_consume(in, len);
    if (r->conn) taken(r, s, len);
    return (int64_t)len;
}

int64_t weir_app_req_read(struct weir_app_req *r, enum weir_stream s, void *buf, size_t len)
{
    if (s != WEIR_STDIN && s != WEIR_DATA) return WEIR_INVALID;
    app_lock(r->app);
    int64_t n = len ? read_locked(r, s, buf, len) : 0;
    app_unlock(r->app);
    return n;
}

/* SPDX-License-Identifier: MIT */
/* The web-server side and the application side, as they are, over a simulated transport: splits, delays, aborts, resets, all
 * by a seed. Every request ends exactly once, runs at most once unless it may be repeated, what arrives is what was sent, and
 * no slot is lost. A failing seed is printed; `test-sim SEED [COUNT]` repeats it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/on_loop.h"
#include "sim_app.h"

enum { REQUESTS = 120 };
struct task {
    struct sim_task app;
    struct weir_client_req *req;
    uint64_t body_sent, answer_got, unread;
    unsigned ends;
    bool begun, gone, refused;
};
struct world {
    struct sim net;
    struct weir_loop *client_loop;
    struct sim_app app;
    struct weir_client_group *group;
    struct weir_pool *pool;
    struct weir_client *client;
    struct weir_spill_quota quota;
    struct task t[REQUESTS];
    struct weir_endpoint_options endpoint;
    uint64_t seed;
    bool flow, disturbed;
};

static _Noreturn void fail(const struct world *w, const char *what, size_t i)
{
    const struct task *t = &w->t[i];
    fprintf(stderr, "seed %" PRIu64 ": %s (request %zu: runs %u, ends %u, body %" PRIu64 "/%" PRIu64 "/%" PRIu64 ", answer %" PRIu64 "/%" PRIu64 "/%" PRIu64 ")\n",
            w->seed, what, i, t->app.runs, t->ends, t->app.body_got, t->body_sent, t->app.body, t->answer_got, t->app.answer_sent, t->app.answer);
    abort();
}

/* ---- the application ---- */

static struct sim_task *task_of(void *arg, size_t id)
{
    return &((struct world *)arg)->t[id % REQUESTS].app;
}

static _Noreturn void app_fails(void *arg, const char *what, size_t id)
{
    fail(arg, what, id);
}

/* ---- the web server ---- */

static void give_body(struct world *w, struct task *t)
{
    char buf[2000];
    size_t id = (size_t)(t - w->t);
    while (t->body_sent < t->app.body) {
        size_t len = t->app.body - t->body_sent < sizeof buf ? (size_t)(t->app.body - t->body_sent) : sizeof buf;
        for (size_t k = 0; k < len; k++) buf[k] = sim_byte(id, t->body_sent + k);
        int64_t n = weir_client_write(t->req, buf, len);
        if (n < 0) return;
        t->body_sent += (uint64_t)n;
        if ((size_t)n < len) return;
    }
}

/* The header of 3 lines at most is skipped by its blank line; then bytes are compared. */
static size_t check_answer(struct world *w, struct task *t, const char *p, size_t len)
{
    size_t id = (size_t)(t - w->t);
    if (t->app.runs == 0 && (w->endpoint.id > 1 || w->disturbed)) t->refused = true; /* a plain connection is told of overload in words; what a broken one had goes on for a while */
    for (size_t k = 0; k < len && !t->refused; k++) {
        if (t->unread < 2) { /* newlines in a row, CR looked over */
            if (p[k] == '\n') t->unread++;
            else if (p[k] != '\r') t->unread = 0;
            continue;
        }
        if (p[k] != sim_byte(id, t->answer_got)) fail(w, "an answer byte is wrong", id);
        t->answer_got++;
    }
    return len;
}

static void finished(struct world *w, struct task *t)
{
    struct weir_client_result r;
    size_t id = (size_t)(t - w->t);
    weir_client_req_result(t->req, &r);
    t->ends++;
    if (r.status == WEIR_OK && !t->refused && t->answer_got != t->app.answer) fail(w, "complete, but not all of the answer came", id);
    if (r.status == WEIR_REFUSED && w->endpoint.id > 1) t->refused = true; /* two generations are one app here: it may be too much */
    if (r.status != WEIR_OK && !w->disturbed && !t->refused) fail(w, r.reason, id);
    if (r.not_run && r.status != WEIR_OK && t->app.runs) fail(w, "told that it did not run, but it did", id);
    weir_client_req_free(t->req);
    t->req = NULL;
}

static void client_events(struct world *w)
{
    struct weir_client_event ev;
    while (weir_client_next(w->client, &ev) == WEIR_OK) {
        struct task *t = ev.user;
        const char *p;
        size_t len;
        switch (ev.type) {
        case WEIR_CLIENT_STARTED:
            t->body_sent = 0;
            give_body(w, t);
            break;
        case WEIR_CLIENT_ROOM: give_body(w, t); break;
        case WEIR_CLIENT_OUTPUT:
            if (ev.stream == WEIR_STDERR) break;
            if (ev.bytes.len) { /* sometimes only a part is taken: the rest is held */
                size_t take = weir_random_next(&w->net.random) % 3 ? ev.bytes.len : weir_random_next(&w->net.random) % (ev.bytes.len + 1);
                weir_client_consume(t->req, check_answer(w, t, ev.bytes.ptr, take));
            } else if (weir_client_peek(t->req, &p, &len) == WEIR_OK) {
                weir_client_consume(t->req, check_answer(w, t, p, len));
            }
            break;
        case WEIR_CLIENT_STUCK: break;
        case WEIR_CLIENT_SLOW: break;
        case WEIR_CLIENT_END: finished(w, t); break;
        }
    }
}

static void client_turn(struct world *w)
{
    struct weir_event ev[64];
    int n = weir_loop_wait(w->client_loop, ev, 64, 0);
    weir_client_turn(w->client);
    for (int i = 0; i < n; i++) {
        if (ev[i].ready & WEIR_READY_WAKE) weir_client_woken(w->client);
        else weir_client_ready(w->client, &ev[i]);
        client_events(w);
    }
    client_events(w);
    for (size_t i = 0; i < REQUESTS; i++) { /* slow readers take what is held */
        const char *p;
        size_t len;
        if (!w->t[i].req || weir_random_next(&w->net.random) % 8) continue;
        while (w->t[i].req && weir_client_peek(w->t[i].req, &p, &len) == WEIR_OK) weir_client_consume(w->t[i].req, check_answer(w, &w->t[i], p, len));
    }
    client_events(w);
    weir_client_flush(w->client);
}

static void begin_one(struct world *w, size_t i)
{
    struct task *t = &w->t[i];
    static char names[REQUESTS][8];
    static struct weir_pair params[REQUESTS];
    snprintf(names[i], sizeof names[i], "%zu", i);
    params[i] = (struct weir_pair){WEIR_STR("QUERY_STRING"), weir_cstr(names[i])};
    struct weir_client_begin_options o = {.size = sizeof o, .role = WEIR_RESPONDER, .params = &params[i], .param_count = 1, .body_len = t->app.body, .user = t};
    int status = weir_client_begin(w->client, w->pool, &o, &t->req);
    t->begun = true;
    if (status < 0) fail(w, "begin", i);
    if (status == 1) give_body(w, t);
    weir_client_flush(w->client);
}

/* ---- one run ---- */

static void start(struct world *w, uint64_t seed)
{
    *w = (struct world){.seed = seed, .net = {.random = {seed * 0x9e3779b97f4a7c15u + 1}, .now_us = 1000000}, .quota = {.dir = "/tmp", .max = 1u << 30}};
    struct weir_random *r = &w->net.random;
    w->flow = weir_random_next(r) % 3 != 0;
    w->disturbed = weir_random_next(r) % 2;
    w->client_loop = sim_loop_new(&w->net);
    w->app = (struct sim_app){.task = task_of, .fail = app_fails, .arg = w};
    sim_app_start(&w->app, &w->net, "/sim", 20);
    if (weir_client_group_new(&w->group, 1) < 0) abort();
    struct weir_pool_options po = {.size = sizeof po, .name = "p", .queue_count = 1000, .queue_ms = 3600000, .owned = true};
    if (weir_pool_new(&w->pool, w->group, &po) < 0) abort();
    const struct weir_client_place place = {.loop = w->client_loop, .kind = 10, .quota = &w->quota};
    struct weir_client_options co = {.size = sizeof co, .hold_memory = weir_random_next(r) % 2 ? 3000 : 100000,
                                     .window_memory = weir_random_next(r) % 2 ? 5000000 : 0};
    if (weir_client_new_on(&w->client, w->group, &co, &place) < 0) abort();
    struct weir_endpoint_options eo = {.id = 1, .address = "unix:/sim", .workers = 4, .keep = weir_random_next(r) % 4 != 0, .flow = w->flow,
                                       .plain_mpx = weir_random_next(r) % 2, .requests = 16};
    w->endpoint = eo;
    if (weir_pool_set(w->pool, &eo, 1) < 0) abort();
    for (size_t i = 0; i < REQUESTS; i++) {
        struct task *t = &w->t[i];
        t->app.body = sim_below(&w->net, 1, 3, 30000);
        t->app.answer = sim_below(&w->net, 300, 5, 40000);
        t->app.delay = weir_random_next(r) % 4 == 0;
        t->app.early = t->app.body && weir_random_next(r) % 6 == 0;
    }
}

/* As a restart of the app does it: another process at the same address, the old one drains. */
static void next_generation(struct world *w)
{
    struct weir_endpoint_options both[2] = {w->endpoint, w->endpoint};
    both[0].drain = true;
    both[1].id = ++w->endpoint.id;
    if (weir_pool_set(w->pool, both, 2) < 0) abort();
}

static bool all_over(const struct world *w)
{
    for (size_t i = 0; i < REQUESTS; i++)
        if (!w->t[i].begun || (!w->t[i].ends && !w->t[i].gone)) return false;
    return true;
}

static void finish(struct world *w)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        const struct task *t = &w->t[i];
        if (t->ends + t->gone != 1) fail(w, "it did not end exactly once", i);
        if (t->app.runs > 1) fail(w, "it ran twice", i);
        if (!w->disturbed && t->app.runs != !t->refused) fail(w, "it did not run", i);
    }
    for (int i = 0; i < 20000 && !(sim_quiet(&w->net) && i > 300); i++) { /* aborted ones end in the app, too */
        sim_move(&w->net);
        sim_clock(&w->net, 5000);
        sim_app_turn(&w->app);
        client_turn(w);
    }
    static struct weir_endpoint_stats eps[10000];
    struct weir_pool_stats s;
    weir_pool_get_stats(w->pool, &s, eps, 10000);
    for (size_t i = 0; i < s.endpoint_count; i++)
        if (!eps[i].gone && (eps[i].busy || eps[i].opening || (eps[i].draining && eps[i].conns))) fail(w, "a slot was lost", i);
    if (s.queued) fail(w, "a request waits for ever", 0);
    if (sim_app_busy(&w->app)) fail(w, "the app still has a request", 0);
    weir_client_free(w->client);
    weir_pool_free(w->pool);
    weir_client_group_free(w->group);
    sim_app_end(&w->app);
    weir_loop_free(w->client_loop);
    for (int i = 0; i < SIM_SOCKETS; i++) {
        weir_buf_fini(&w->net.s[i].in);
        weir_buf_fini(&w->net.s[i].wire);
    }
}

static uint64_t run(uint64_t seed)
{
    static struct world w;
    size_t next = 0;
    start(&w, seed);
    struct weir_random *r = &w.net.random;
    for (unsigned steps = 0; !all_over(&w); steps++) {
        if (steps > 2000000) {
            for (size_t i = 0; i < REQUESTS; i++)
                if (w.t[i].begun && !w.t[i].ends && !w.t[i].gone) fail(&w, "it never ends", i);
            fail(&w, "it never ends", 0);
        }
        switch (weir_random_next(r) % 8) {
        case 0:
            if (next < REQUESTS) begin_one(&w, next++);
            break;
        case 1: sim_app_turn(&w.app); break;
        case 2: client_turn(&w); break;
        case 3: sim_clock(&w.net, weir_random_next(r) % 3000); break;
        case 4:
            if (weir_random_next(r) % 500 == 0) next_generation(&w);
            if (w.disturbed && weir_random_next(r) % 400 == 0) sim_reset(&w.net);
            if (w.disturbed && weir_random_next(r) % 60 == 0) { /* a client leaves */
                struct task *t = &w.t[weir_random_next(r) % REQUESTS];
                if (!t->req) break;
                weir_client_req_free(t->req);
                t->req = NULL;
                t->gone = true;
                weir_client_flush(w.client);
            }
            break;
        default: sim_move(&w.net); break;
        }
    }
    finish(&w);
    return w.net.events;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : UINT64_MAX;
    uint64_t events = 0, first = seed;
    for (; count > 0 && (argc > 1 || events < 100000); count--) events += run(seed++);
    printf("seeds %" PRIu64 " to %" PRIu64 ", %" PRIu64 " events\n", first, seed - 1, events);
    return 0;
}

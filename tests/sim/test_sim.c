/* SPDX-License-Identifier: MIT */
/* The web-server side and the application side, as they are, over a simulated transport: splits, delays, aborts, resets, all
 * by a seed; beside them, on the same sides, an application and a web server that keep no rule. Every request ends exactly once,
 * runs at most once unless it may be repeated, what arrives is what was sent, memory stays bounded, no slot is lost, and what the
 * connections carry keeps the rules of flow control (sim_tap).
 *
 *     test-sim EVENTS        seeds from 1 on, until so many events; each kind of thing has to have happened
 *     test-sim --seeds N [FIRST]
 *     test-sim --seed SEED   one alone: a failing seed is printed */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/internal.h"
#include "sim_app.h"
#include "sim_hostile.h"
#include "sim_tap.h"

enum { REQUESTS = 120, BAD_REQUESTS = 10, KEPT = 300 /* below it a body can be given again */ };
struct task {
    struct sim_task app;
    struct weir_client_req *req;
    uint64_t body_sent, answer_got, unread;
    unsigned ends;
    bool begun, gone, refused, told_refused; /* told_refused: at least once */
};
struct world {
    struct sim net;
    struct weir_loop *client_loop;
    struct sim_app app, next_app; /* next: the one that takes over when app drains */
    struct sim_task shared;       /* all requests of the hostile web server */
    struct sim_tap *tap;
    struct sim_bad_app_peer *bad_app;
    struct sim_bad_server_peer *bad_server;
    enum sim_bad_app bad_app_kind;
    enum sim_bad_server bad_server_kind;
    struct bad_task {
        struct weir_client_req *req;
        uint64_t body, body_sent;
        unsigned ends;
    } bad[BAD_REQUESTS];
    struct weir_client_group *group;
    struct weir_pool *pool, *bad_pool;
    struct weir_client *client;
    struct weir_spill_quota quota;
    struct task t[REQUESTS];
    struct weir_endpoint_options endpoint;
    uint64_t seed;
    bool flow, disturbed, crowded, drains, begun_drain, bad_serves; /* crowded: others take places of the app */
};

static _Noreturn void fail(const struct world *w, const char *what, size_t i)
{
    const struct task *t = &w->t[i];
    fprintf(stderr, "%s%s%s%s\n", w->bad_app ? "app: " : "", w->bad_app ? sim_bad_app_names[w->bad_app_kind] : "", w->bad_server ? "; web server: " : "",
            w->bad_server ? sim_bad_server_names[w->bad_server_kind] : "");
    fprintf(stderr, "seed %" PRIu64 ": %s (request %zu: runs %u, ends %u, body %" PRIu64 "/%" PRIu64 "/%" PRIu64 ", answer %" PRIu64 "/%" PRIu64 "/%" PRIu64 ")\n",
            w->seed, what, i, t->app.runs, t->ends, t->app.body_got, t->body_sent, t->app.body, t->answer_got, t->app.answer_sent, t->app.answer);
    abort();
}

/* What was seen in all runs. */
static struct {
    uint64_t by_tap[SEEN_COUNT], bad_apps[APP_KINDS], bad_servers[SERVER_KINDS], both_full, refused_and_run, refused_for_good, drained, crowded,
        gone, bad_ends;
} seen;

static _Noreturn void tap_fails(void *arg, const char *what)
{
    fail(arg, what, 0);
}

/* ---- the application ---- */

static struct sim_task *task_of(void *arg, size_t id)
{
    struct world *w = arg;
    return id < REQUESTS ? &w->t[id].app : &w->shared;
}

static _Noreturn void app_fails(void *arg, const char *what, size_t id)
{
    fail(arg, what, id % REQUESTS);
}

/* P6: what one side keeps for the other is bounded, whatever that does. */
static void look_at_client(struct world *w)
{
    const void *out;
    for (struct weir_list *l = w->client->open.next; l != &w->client->open; l = l->next) {
        const struct conn *k = WEIR_CONTAINER(l, struct conn, link);
        if (k->wire && weir_wire_server_output(k->wire, &out) > OUTPUT_HIGH + (64u << 10)) fail(w, "P6: the client's output grows", 0);
    }
}

static void app_turns(struct world *w)
{
    sim_app_turn(&w->app);
    if (w->begun_drain) sim_app_turn(&w->next_app);
    if (sim_app_grows(&w->app) || (w->begun_drain && sim_app_grows(&w->next_app))) fail(w, "P6: the app's memory grows", 0);
    if (w->bad_app) sim_bad_app_turn(w->bad_app);
    if (w->bad_server) sim_bad_server_turn(w->bad_server);
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
    if (t->app.runs == 0 && (w->endpoint.id > 1 || w->disturbed || w->crowded)) t->refused = true; /* a plain connection is told of overload in words; what a broken one had goes on for a while */
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
    if (r.status == WEIR_REFUSED && t->app.runs) fail(w, "refused, but it ran", id);
    seen.refused_and_run += t->told_refused && t->app.runs == 1;
    if (r.status == WEIR_REFUSED && (w->endpoint.id > 1 || w->crowded || t->told_refused)) { /* two generations are one app here: it may be too much */
        t->refused = true;
        seen.refused_for_good++;
    }
    if (r.status != WEIR_OK && !w->disturbed && !t->refused) fail(w, r.reason, id);
    if (r.not_run && r.status != WEIR_OK && t->app.runs) fail(w, "told that it did not run, but it did", id);
    weir_client_req_free(t->req);
    t->req = NULL;
}

/* Those of the pool whose application keeps no rule: they end, somehow, once. */
static void bad_event(struct world *w, struct bad_task *t, const struct weir_client_event *ev)
{
    static const char body[1000];
    switch (ev->type) {
    case WEIR_CLIENT_STARTED: t->body_sent = 0; /* fallthrough */
    case WEIR_CLIENT_ROOM:
        while (t->body_sent < t->body) {
            size_t len = t->body - t->body_sent < sizeof body ? (size_t)(t->body - t->body_sent) : sizeof body;
            int64_t n = weir_client_write(t->req, body, len);
            if (n > 0) t->body_sent += (uint64_t)n;
            if (n < (int64_t)len) break;
        }
        break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDOUT && ev->bytes.len) weir_client_consume(t->req, ev->bytes.len);
        break;
    case WEIR_CLIENT_END:
        if (++t->ends > 1) fail(w, "a request to a hostile app ended twice", 0);
        seen.bad_ends++;
        struct weir_client_result result;
        weir_client_req_result(t->req, &result);
        if (w->bad_serves && !w->disturbed && result.status != WEIR_OK) fail(w, result.reason, 0);
        weir_client_req_free(t->req);
        t->req = NULL;
        break;
    default: break;
    }
}

static void client_events(struct world *w)
{
    struct weir_client_event ev;
    while (weir_client_next(w->client, &ev) == WEIR_OK) {
        struct task *t = ev.user;
        if ((void *)t >= (void *)w->bad && (void *)t < (void *)(w->bad + BAD_REQUESTS)) {
            bad_event(w, ev.user, &ev);
            continue;
        }
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
    look_at_client(w);
}

static void begin_bad(struct world *w, size_t i)
{
    struct bad_task *t = &w->bad[i];
    struct weir_client_begin_options o = {.size = sizeof o, .role = WEIR_RESPONDER, .body_len = t->body, .silent_ms = w->bad_serves ? 0 : 400, .request_ms = w->bad_serves ? 0 : 3000, .user = t};
    int status = weir_client_begin(w->client, w->bad_pool, &o, &t->req);
    if (status < 0) { /* that is an end, too */
        t->ends++;
        return;
    }
    if (status == 1) bad_event(w, t, &(struct weir_client_event){.type = WEIR_CLIENT_STARTED});
    weir_client_flush(w->client);
}

static void begin_one(struct world *w, size_t i)
{
    struct task *t = &w->t[i];
    static char names[REQUESTS][8];
    static struct weir_pair params[REQUESTS];
    snprintf(names[i], sizeof names[i], "%zu", i);
    params[i] = (struct weir_pair){WEIR_STR("QUERY_STRING"), weir_cstr(names[i])};
    struct weir_client_begin_options o = {.size = sizeof o, .role = WEIR_RESPONDER, .params = &params[i], .param_count = 1, .body_len = t->app.body,
                                          .body_kept = t->app.body < KEPT, .user = t};
    int status = weir_client_begin(w->client, w->pool, &o, &t->req);
    t->begun = true;
    if (status < 0) fail(w, "begin", i);
    if (status == 1) give_body(w, t);
    weir_client_flush(w->client);
}

/* ---- one run ---- */

static void start_hostile(struct world *w)
{
    struct weir_random *r = &w->net.random;
    w->bad_app_kind = (enum sim_bad_app)(w->seed % APP_KINDS);
    w->bad_serves = sim_bad_app_serves(w->bad_app_kind);
    struct weir_pool_options po = {.size = sizeof po, .name = "bad", .queue_count = 100, .queue_ms = w->bad_serves ? 3600000 : 4000, .owned = true};
    struct weir_endpoint_options eo = {.id = 1, .address = "unix:/bad", .workers = 3, .keep = true, .flow = true, .requests = 8};
    w->shared = (struct sim_task){.answer = 6000, .any = true};
    if (weir_pool_new(&w->bad_pool, w->group, &po) < 0) abort();
    if (w->seed % 5) {
        w->bad_app = sim_bad_app_new(&w->net, "/bad", w->bad_app_kind);
        if (weir_pool_set(w->bad_pool, &eo, 1) < 0) abort();
    }
    for (size_t i = 0; i < BAD_REQUESTS; i++) w->bad[i].body = weir_random_next(r) % 2 ? 0 : weir_random_next(r) % 5000;
    w->crowded = w->seed % 3 != 0;
}

static void start_bad_server(struct world *w)
{
    static const char id[] = "1000";
    w->bad_server_kind = (enum sim_bad_server)(w->seed % SERVER_KINDS);
    w->shared.early = w->bad_server_kind == SERVER_OVERRUN; /* what is read at once gives credit at once */
    w->bad_server = sim_bad_server_new(&w->net, "/sim", w->bad_server_kind, id);
    seen.crowded++;
}

/* The app is told to end; another one takes over, at another address. */
static void drain(struct world *w)
{
    struct weir_endpoint_options both[2] = {w->endpoint, w->endpoint};
    w->next_app = (struct sim_app){.task = task_of, .fail = app_fails, .arg = w};
    sim_app_start(&w->next_app, &w->net, "/next", 20);
    sim_app_drain(&w->app);
    w->begun_drain = true;
    both[1].id = w->endpoint.id + 1000;
    both[1].address = "unix:/next";
    if (weir_pool_set(w->pool, both, 2) < 0) abort();
}

static void start(struct world *w, uint64_t seed)
{
    *w = (struct world){.seed = seed, .net = {.random = {seed * 0x9e3779b97f4a7c15u + 1}, .now_us = 1000000}, .quota = {.dir = "/tmp", .max = 1u << 30}};
    struct weir_random *r = &w->net.random;
    w->flow = weir_random_next(r) % 3 != 0;
    w->disturbed = weir_random_next(r) % 2;
    w->tap = sim_tap_new(tap_fails, w, seen.by_tap);
    w->net.tap = w->tap;
    if (weir_random_next(r) % 3 == 0) w->net.capacity = 200 + weir_random_next(r) % 3000;
    w->client_loop = sim_loop_new(&w->net);
    w->app = (struct sim_app){.task = task_of, .fail = app_fails, .arg = w, .idle_ms = w->flow && seed % 4 == 1 ? 25 : 0};
    sim_app_start(&w->app, &w->net, "/sim", 20);
    if (weir_client_group_new(&w->group, 1) < 0) abort();
    struct weir_pool_options po = {.size = sizeof po, .name = "p", .queue_count = 1000, .queue_ms = 3600000, .owned = true};
    if (weir_pool_new(&w->pool, w->group, &po) < 0) abort();
    const struct weir_client_place place = {.loop = w->client_loop, .kind = 10, .quota = &w->quota};
    struct weir_client_options co = {.size = sizeof co, .hold_memory = weir_random_next(r) % 2 ? 3000 : 100000,
                                     .window_memory = weir_random_next(r) % 2 ? 5000000 : 0};
    w->drains = w->flow && weir_random_next(r) % 3 == 0;
    start_hostile(w);
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
        if (weir_random_next(r) % 15 == 0) t->app.refuse = 1 + (unsigned)(weir_random_next(r) % 3);
        t->told_refused = t->app.refuse > 0;
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
    for (size_t i = 0; i < BAD_REQUESTS; i++)
        if (w->bad[i].req) return false;
    return true;
}

static void finish(struct world *w)
{
    for (size_t i = 0; i < REQUESTS; i++) {
        const struct task *t = &w->t[i];
        if (t->ends + t->gone != 1) fail(w, "it did not end exactly once", i);
        if (t->app.runs > 1) fail(w, "it ran twice", i);
        if (!w->disturbed && t->app.runs != !t->refused) fail(w, "it did not run", i);
        seen.gone += t->gone;
    }
    bool must_close = w->bad_server && sim_bad_server_must_close(w->bad_server_kind);
    for (int i = 0; i < 40000; i++) { /* aborted ones end in the app, too */
        if (sim_quiet(&w->net) && i > 600 && (!must_close || sim_bad_server_closed(w->bad_server))) break;
        if (w->bad_server && !must_close && i == 200) sim_bad_server_leave(w->bad_server);
        sim_move(&w->net);
        sim_clock(&w->net, 5000);
        app_turns(w);
        client_turn(w);
    }
    static struct weir_endpoint_stats eps[10000];
    struct weir_pool_stats s;
    weir_pool_get_stats(w->pool, &s, eps, 10000);
    for (size_t i = 0; i < s.endpoint_count; i++)
        if (!eps[i].gone && (eps[i].busy || eps[i].opening || (eps[i].draining && eps[i].conns))) fail(w, "a slot was lost", i);
    if (s.queued) fail(w, "a request waits for ever", 0);
    if (sim_app_busy(&w->app) || (w->begun_drain && sim_app_busy(&w->next_app))) fail(w, "the app still has a request", 0);
    if (w->begun_drain && !w->app.drained && !w->disturbed) fail(w, "P5: the app does not come to its end", 0);
    seen.drained += w->begun_drain && w->app.drained;
    weir_pool_get_stats(w->bad_pool, &s, eps, 10000);
    for (size_t i = 0; i < s.endpoint_count; i++)
        if (!eps[i].gone && eps[i].busy) fail(w, "a slot of a hostile app was lost", i);
    bool done = w->bad_app && sim_bad_app_done(w->bad_app);
    if (done && sim_bad_app_denies(w->bad_app_kind) && s.endpoint_count && eps[0].flow) fail(w, "the wrong hint stays", 0);
    if (done) seen.bad_apps[w->bad_app_kind]++;
    if (w->bad_server) {
        seen.bad_servers[w->bad_server_kind]++;
        if (must_close && !sim_bad_server_closed(w->bad_server)) fail(w, sim_bad_server_names[w->bad_server_kind], 0);
        sim_bad_server_free(w->bad_server);
    }
    seen.both_full += w->net.both_full;
    weir_client_free(w->client);
    weir_pool_free(w->pool);
    weir_pool_free(w->bad_pool);
    weir_client_group_free(w->group);
    sim_app_end(&w->app);
    if (w->begun_drain) sim_app_end(&w->next_app);
    if (w->bad_app) sim_bad_app_free(w->bad_app);
    weir_loop_free(w->client_loop);
    sim_tap_free(w->tap);
    for (int i = 0; i < SIM_SOCKETS; i++) {
        weir_buf_fini(&w->net.s[i].in);
        weir_buf_fini(&w->net.s[i].wire);
    }
}

static uint64_t run(uint64_t seed)
{
    static struct world w;
    size_t next = 0, next_bad = 0;
    start(&w, seed);
    struct weir_random *r = &w.net.random;
    for (unsigned steps = 0; !all_over(&w); steps++) {
        if (steps > 2000000) {
            for (size_t i = 0; i < REQUESTS; i++)
                if (w.t[i].begun && !w.t[i].ends && !w.t[i].gone) fail(&w, "it never ends", i);
            fail(&w, w.bad_app ? sim_bad_app_names[w.bad_app_kind] : "it never ends", 0);
        }
        switch (weir_random_next(r) % 8) {
        case 0:
            if (next < REQUESTS) begin_one(&w, next++);
            if (w.bad_app && next_bad < BAD_REQUESTS && weir_random_next(r) % 8 == 0) begin_bad(&w, next_bad++);
            if (w.crowded && !w.bad_server && next > 10) start_bad_server(&w);
            if (w.drains && !w.begun_drain && next > REQUESTS / 2) drain(&w);
            break;
        case 1: app_turns(&w); break;
        case 2: client_turn(&w); break;
        case 3: sim_clock(&w.net, weir_random_next(r) % 3000); break;
        case 4:
            if (!w.drains && weir_random_next(r) % 500 == 0) next_generation(&w);
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


/* ---- many runs ---- */

static char seed_line[64];

static void on_abort(int sig) /* also a check in the code under test, or a sanitizer */
{
    (void)sig;
    ssize_t n = write(2, seed_line, strlen(seed_line));
    (void)n;
}

static bool tell(const char *what, uint64_t count, bool must)
{
    printf("  %-34s %8" PRIu64 "\n", what, count);
    if (must && !count) fprintf(stderr, "never happened: %s\n", what);
    return !must || count;
}

/* The simulation is not to stop covering something unnoticed. */
static bool tell_seen(bool must)
{
    bool all = true;
    for (int i = 0; i < SEEN_COUNT; i++) all &= tell(sim_seen_names[i], seen.by_tap[i], must);
    all &= tell("requests that others ran", seen.refused_and_run, must);
    all &= tell("requests refused for good", seen.refused_for_good, must);
    all &= tell("apps drained to their end", seen.drained, must);
    all &= tell("writes with both directions full", seen.both_full, must);
    all &= tell("requests given up", seen.gone, must);
    all &= tell("ends by hostile apps", seen.bad_ends, must);
    for (int i = 0; i < APP_KINDS; i++) {
        char text[64];
        snprintf(text, sizeof text, "app: %s", sim_bad_app_names[i]);
        all &= tell(text, seen.bad_apps[i], must);
    }
    for (int i = 0; i < SERVER_KINDS; i++) {
        char text[64];
        snprintf(text, sizeof text, "web server: %s", sim_bad_server_names[i]);
        all &= tell(text, seen.bad_servers[i], must);
    }
    return all;
}

int main(int argc, char **argv)
{
    bool one = argc == 3 && strcmp(argv[1], "--seed") == 0, some = argc >= 3 && strcmp(argv[1], "--seeds") == 0;
    if (argc < 2 || (argv[1][0] == '-' && !one && !some)) {
        fprintf(stderr, "usage: test-sim EVENTS | --seeds N [FIRST] | --seed SEED\n");
        return 2;
    }
    signal(SIGABRT, on_abort);
    uint64_t number = strtoull(argv[one || some ? 2 : 1], NULL, 10), events = 0;
    uint64_t first = one ? number : some && argc > 3 ? strtoull(argv[3], NULL, 10) : 1, seed = first;
    do {
        snprintf(seed_line, sizeof seed_line, "again: test-sim --seed %" PRIu64 "\n", seed);
        uint64_t had = run(seed++);
        events += had;
        if (one) printf("seed %" PRIu64 ": %" PRIu64 " events\n", number, had);
    } while (!one && (some ? seed < first + number : events < number));
    printf("seeds %" PRIu64 " to %" PRIu64 ", %" PRIu64 " events\n", first, seed - 1, events);
    return tell_seen(!one && !some) ? 0 : 1;
}

/* SPDX-License-Identifier: MIT */
/* The whole way of a request over a simulated transport: browsers, the gateway with two threads, three application processes,
 * all as they are; for some seeds the gateway stands in front of itself, as another web server. Bytes are split and late by a seed; browsers pipeline, read slowly and leave; connections break; the clock
 * jumps; a server of several is not there, or dies, and comes back; the configuration is read again. Every answer is the one that was asked for, whole, in order, and each request runs at
 * most once; nothing is left behind. A failing seed is printed; `test-sim-gateway SEED [COUNT]` repeats it. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "sim_app.h"
#include "sim_fault.h"

enum { BROWSERS = 10, WISHES = 8, APPS = 3, FILE_LEN = 50000, KEPT = 64 << 10, HELD = 256 << 10, WAITING = 1 << 20 /* of a body, of an answer: in memory; for its file */ };
enum wish_kind { GET_APP, HEAD_APP, POST_LENGTH, POST_CHUNKED, GET_FILE, BAD };

struct wish {
    struct sim_task app;
    enum wish_kind kind;
    const char *route;
    bool sent, over, expect;
    unsigned answers;
    int status;
};
enum reading { READ_HEAD, READ_LENGTH, READ_CHUNK_LINE, READ_CHUNK, READ_CHUNK_END, READ_CLOSE, READ_DROP /* what comes, if anything */ };
struct browser {
    struct wish wishes[WISHES];
    size_t sending, reading;      /* the next to send; the one whose answer comes */
    struct weir_buf out, in;
    int fd;
    enum reading state;
    uint64_t left, got;
    bool close_told, done;
};
struct world {
    struct sim net;
    struct weir_loop *loop;       /* of the browsers */
    struct gateway *gw;
    struct sim_app apps[APPS];
    struct browser b[BROWSERS];
    uint64_t seed;
    bool disturbed, no_temp; /* bodies find no room for a file */
    bool slow;               /* the helper begins when the first body is all there, */
    bool fronted;            /* apps stand behind fronts of the gateway itself */
    bool away;               /* the second app is not there */
    int listeners[3];        /* web, the fronts */
    bool late;               /* or after 8 s, and until then the second browser takes nothing of a long answer */
};
static char folder[] = "/tmp/weir-sim-XXXXXX";
static int errors = 2;

static _Noreturn void fail(const struct world *w, const char *what, size_t id)
{
    const struct browser *b = &w->b[id / WISHES % BROWSERS];
    const struct wish *x = &b->wishes[id % WISHES];
    dprintf(errors, "seed %" PRIu64 "%s: %s (browser %zu, wish %zu of kind %d on %s: status %d, answers %u, runs %u, got %" PRIu64 " of %" PRIu64 "; body of %" PRIu64 ")\n", w->seed,
            w->disturbed ? ", disturbed" : w->no_temp ? ", no temp" : "", what, id / WISHES, id % WISHES, x->kind, x->route, x->status, x->answers, x->app.runs, b->got, x->app.answer, x->app.body);
    abort();
}

static _Noreturn void app_fails(void *arg, const char *what, size_t id)
{
    fail(arg, what, id);
}

static struct sim_task *task_of(void *arg, size_t id)
{
    struct world *w = arg;
    return &w->b[id / WISHES % BROWSERS].wishes[id % WISHES].app;
}

static size_t wish_id(const struct world *w, const struct browser *b, size_t i)
{
    return (size_t)(b - w->b) * WISHES + i;
}

/* ---- what a browser sends ---- */

static void put(struct browser *b, const char *p, size_t len)
{
    if (weir_buf_append(&b->out, p, len) < 0) abort();
}

static void put_text(struct browser *b, const char *fmt, ...) WEIR_PRINTF(2, 3);
static void put_text(struct browser *b, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put(b, text, (size_t)n);
}

static void put_body(struct world *w, struct browser *b, struct wish *x, size_t id)
{
    char bytes[700];
    for (uint64_t at = 0; at < x->app.body;) {
        size_t n = 1 + weir_random_next(&w->net.random) % sizeof bytes;
        if (n > x->app.body - at) n = (size_t)(x->app.body - at);
        for (size_t k = 0; k < n; k++) bytes[k] = sim_byte(id, at + k);
        if (x->kind == POST_CHUNKED) put_text(b, "%zx\r\n", n);
        put(b, bytes, n);
        if (x->kind == POST_CHUNKED) put(b, "\r\n", 2);
        at += n;
    }
    if (x->kind == POST_CHUNKED) put(b, "0\r\n\r\n", 5);
}

static void send_wish(struct world *w, struct browser *b)
{
    size_t id = wish_id(w, b, b->sending);
    struct wish *x = &b->wishes[b->sending++];
    x->sent = true;
    switch (x->kind) {
    case GET_APP: put_text(b, "GET %s?%zu HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", x->route, id); break;
    case HEAD_APP: put_text(b, "HEAD %s?%zu HTTP/1.1\r\nHost: a\r\n\r\n", x->route, id); break;
    case GET_FILE: put_text(b, "GET /f.txt HTTP/1.1\r\nhost: a\r\n\r\n"); break;
    case BAD: put_text(b, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"); break;
    default:
        put_text(b, "POST %s?%zu HTTP/1.1\r\nHost: a\r\n", x->route, id);
        if (x->expect) put_text(b, "Expect: 100-continue\r\n");
        if (x->kind == POST_LENGTH) put_text(b, "Content-Length: %" PRIu64 "\r\n\r\n", x->app.body);
        else put_text(b, "Transfer-Encoding: chunked\r\n\r\n");
        put_body(w, b, x, id);
    }
}

/* ---- what it reads: a reading of HTTP/1.1 that is not the gateway's ---- */

static char *field(char *head, const char *name)
{
    char *p = strcasestr(head, name);
    return p ? p + strlen(name) : NULL;
}

/* They cannot be stored: 500, or the end of an answer that began before that was known. */
static bool may_lose_bytes(const struct world *w, const struct wish *x)
{
    return w->no_temp && (x->app.body > KEPT || x->app.answer > KEPT + HELD);
}

static void wish_over(struct world *w, struct browser *b)
{
    struct wish *x = &b->wishes[b->reading];
    size_t id = wish_id(w, b, b->reading);
    x->answers++;
    x->over = true;
    bool has_content = x->status == 200 && x->kind != HEAD_APP;
    if (has_content && b->got != (x->kind == GET_FILE ? FILE_LEN : x->app.answer)) fail(w, "the answer is not whole", id);
    if (!w->disturbed && !(may_lose_bytes(w, x) && x->status == 500) && x->status != (x->kind == BAD ? 400 : 200)) fail(w, "the status is wrong", id);
    if (x->status == 200 && x->kind != GET_FILE && x->app.runs != 1) fail(w, "answered, but not run once", id);
    b->reading++;
    b->state = READ_HEAD;
    b->got = 0;
    if (b->close_told) b->state = READ_CLOSE;
}

/* True: the head was there. */
static bool take_head(struct world *w, struct browser *b)
{
    char head[4096];
    size_t len = weir_buf_len(&b->in);
    const char *end = len ? memmem(weir_buf_ptr(&b->in), len, "\r\n\r\n", 4) : NULL;
    if (!end) return false;
    size_t n = (size_t)(end - weir_buf_ptr(&b->in)) + 4;
    size_t id = wish_id(w, b, b->reading);
    if (b->reading >= b->sending) fail(w, "an answer that nobody asked for", id);
    struct wish *x = &b->wishes[b->reading];
    if (n >= sizeof head) fail(w, "a head that is too long", id);
    memcpy(head, weir_buf_ptr(&b->in), n);
    head[n] = 0;
    weir_buf_consume(&b->in, n);
    if (strncmp(head, "HTTP/1.1 ", 9) != 0) fail(w, "this is no answer", id);
    x->status = atoi(head + 9);
    if (x->status == 100) {
        if (!x->expect) fail(w, "100 without Expect", id);
        return true;
    }
    const char *got_id = field(head, "X-Id: "), *length = field(head, "Content-Length: "), *chunked = field(head, "Transfer-Encoding: chunked");
    if (x->status == 200 && x->kind != GET_FILE && (!got_id || strtoul(got_id, NULL, 10) != id)) fail(w, "another request's answer", id);
    if (length && chunked) fail(w, "two framings", id);
    b->close_told = field(head, "Connection: close") != NULL;
    b->got = 0;
    b->left = length ? strtoull(length, NULL, 10) : 0;
    bool headless = x->status == 408 || (x->status == 503 && b->close_told); /* perhaps for want of a head: then HEAD is not known */
    if ((x->kind == HEAD_APP && !headless) || (length && b->left == 0)) wish_over(w, b);
    else if (length) b->state = x->kind == HEAD_APP ? READ_DROP : READ_LENGTH;
    else if (chunked) b->state = READ_CHUNK_LINE;
    else fail(w, "an answer without framing", id);
    return true;
}

static void take_content(struct world *w, struct browser *b, size_t n)
{
    const struct wish *x = &b->wishes[b->reading];
    size_t id = wish_id(w, b, b->reading);
    for (size_t k = 0; x->status == 200 && k < n; k++)
        if (weir_buf_ptr(&b->in)[k] != sim_byte(x->kind == GET_FILE ? 0 : id, b->got + k)) fail(w, "an answer byte is wrong", id);
    weir_buf_consume(&b->in, n);
    b->got += n;
    b->left -= n;
}

/* One step of reading; false: more bytes are needed. */
static bool read_step(struct world *w, struct browser *b)
{
    size_t have = weir_buf_len(&b->in), id = wish_id(w, b, b->reading);
    const char *p = have ? weir_buf_ptr(&b->in) : "";
    if (b->state == READ_HEAD) return take_head(w, b);
    if (have == 0) return false;
    if (b->state == READ_DROP) {
        weir_buf_consume(&b->in, have);
        return false;
    }
    if (b->state == READ_CLOSE) fail(w, "bytes behind the last answer", id);
    if (b->state == READ_LENGTH || b->state == READ_CHUNK) {
        take_content(w, b, have < b->left ? have : (size_t)b->left);
        if (b->left) return false;
        if (b->state == READ_LENGTH) wish_over(w, b);
        else b->state = READ_CHUNK_END;
        return true;
    }
    const char *line = memmem(p, have, "\r\n", 2);
    if (!line) return false;
    if (b->state == READ_CHUNK_END) {
        if (line != p) fail(w, "no line end behind a chunk", id);
        weir_buf_consume(&b->in, 2);
        b->state = READ_CHUNK_LINE;
        return true;
    }
    b->left = strtoull(p, NULL, 16);
    if (b->left == 0) { /* no trailers are sent: the blank line follows */
        if (have < (size_t)(line - p) + 4) return false;
        weir_buf_consume(&b->in, (size_t)(line - p) + 4);
        wish_over(w, b);
        return true;
    }
    weir_buf_consume(&b->in, (size_t)(line - p) + 2);
    b->state = READ_CHUNK;
    return true;
}

/* ---- a browser's life ---- */

static void leave(struct world *w, struct browser *b)
{
    weir_loop_close(w->loop, b->fd);
    b->fd = -1;
    b->done = true;
}

static void connection_ended(struct world *w, struct browser *b)
{
    bool all = b->reading == WISHES || b->close_told;
    if (!all && !w->disturbed && !may_lose_bytes(w, &b->wishes[b->reading])) fail(w, "the connection closed before all was answered", wish_id(w, b, b->reading));
    leave(w, b);
}

static void browser_turn(struct world *w, struct browser *b)
{
    struct weir_random *r = &w->net.random;
    char bytes[8000];
    if (b->done) return;
    if (b->fd < 0) {
        b->fd = sim_dial(&w->net, "web");
        if (b->fd < 0 || weir_loop_add(w->loop, b->fd, (struct weir_ident){.kind = 1}, false) < 0) return;
    }
    bool pipelines = weir_random_next(r) % 4 == 0 && !w->slow; /* the next request would wake what sleeps */
    if (b->sending < WISHES && !b->close_told && (b->sending == b->reading || pipelines)) send_wish(w, b);
    size_t len = weir_buf_len(&b->out);
    if (len) {
        struct iovec v = {weir_buf_ptr(&b->out), 1 + weir_random_next(r) % len};
        int64_t n = weir_loop_writev(w->loop, b->fd, &v, 1, false);
        if (n > 0) weir_buf_consume(&b->out, (size_t)n);
        else if (n == WEIR_SYSTEM) weir_buf_reset(&b->out, 0); /* what was answered before lies there to be read */
    }
    if (w->late && b == &w->b[1] && w->net.helpers_stopped) return;
    if (weir_random_next(r) % 3 == 0) return; /* reads when it likes to */
    int64_t n = weir_loop_read(w->loop, b->fd, bytes, 1 + weir_random_next(r) % sizeof bytes);
    if (n > 0) {
        if (weir_buf_append(&b->in, bytes, (size_t)n) < 0) abort();
        while (read_step(w, b)) {}
    } else if (n == WEIR_CLOSED) {
        connection_ended(w, b);
        return;
    }
    if (b->reading == WISHES) leave(w, b);
}

/* ---- the gateway ---- */

static int new_loop(struct weir_loop **out, void *arg)
{
    *out = sim_loop_new(arg);
    return WEIR_OK;
}

/* fronted: the pools are published, and the site reaches them as a foreign web server would. */
static size_t write_config(const struct world *w, char *text, size_t len)
{
    /* the plain pool has a second server, and whom requests are for is decided in several ways */
    static const char *const ways[] = {"", "balance hash uri; ", "slow-start none; eject 20ms 40ms; ", "eject no; "};
    const char *second = w->seed % 2 ? "connect unix:/app1 { workers 2; requests 8; weight 3 }; " : "", *way = ways[w->seed / 2 % 4];
    static const char times[] = "time { head 1h; body 1h; idle 100s; send 1h }";
    const char *keep = w->seed % 3 ? "yes" : "no", *mpx = w->seed % 5 ? "no" : "yes";
    char fronts[1024] = "";
    if (w->fronted)
        snprintf(fronts, sizeof fronts,
                 "listener f0 { address fastcgi+unix:/front0; %s }\nlistener f2 { address fastcgi+unix:/front2; %s }\n"
                 "pool up { connect unix:/front0 { flow-control yes; workers 4 }; queue 1000 1h }\n"
                 "pool plainup { connect unix:/front2 { workers 3; requests 8 }; keep %s; multiplex %s; queue 1000 1h }\n", times, times, keep, w->seed % 2 ? "yes" : "no");
    int n = snprintf(text, len,
                     "weir { log off; threads 2; temp %s }\n%s"
                     "site a { listen http://127.0.0.1:1; root %s; route /app/ { pool %s }; route /plain/ { pool %s }\n"
                     "route /stream/ { pool %s; body { stream yes } } }\n"
                     "pool app { connect unix:/app0 { flow-control yes; workers 4 }; connect unix:/app1 { flow-control yes; workers 4 }; %squeue 1000 1h; %s }\n"
                     "pool plain { connect unix:/app2 { workers 3; requests 8 }; %s%skeep %s; multiplex %s; queue 1000 1h; %s }\n",
                     w->no_temp ? "/nowhere" : "/tmp", fronts, folder, w->fronted ? "up" : "app", w->fronted ? "plainup" : "plain", w->fronted ? "up" : "app",
                     way, w->fronted ? "publish f0" : "", second, second[0] ? way : "slow-start 1s; ", keep, mpx, w->fronted ? "publish f2" : "");
    if (n < 0 || (size_t)n >= len) abort();
    return (size_t)n;
}

static void configure(struct world *w)
{
    char text[4096], name[] = "sim.conf", dir[] = "/";
    struct weir_config_source one = {name, text, write_config(w, text, sizeof text), dir};
    struct weir_config_sources src = {.list = &one, .count = 1};
    struct weir_config_report report;
    struct weir_config *conf = NULL;
    struct snapshot *s;
    int fds[3];
    weir_config_report_init(&report);
    if (weir_config_parse(&src, &conf, &report) < 0) fail(w, report.list[0].text, 0);
    for (size_t i = 0; i < conf->listener_count; i++) {
        const char *at = conf->listeners[i].address.socket;
        fds[i] = strcmp(at, "unix:/front0") == 0 ? w->listeners[1] : strcmp(at, "unix:/front2") == 0 ? w->listeners[2] : w->listeners[0];
    }
    if (gateway_threads(w->gw, conf->threads) < 0 || snapshot_new(&s, w->gw, conf, fds) < 0) abort();
    weir_config_drop(conf);
    gateway_publish(w->gw, s);
    weir_config_report_fini(&report);
}

/* ---- one run ---- */

static void make_wishes(struct world *w)
{
    static const char *const routes[] = {"/app/", "/plain/", "/stream/"};
    struct weir_random *r = &w->net.random;
    for (size_t i = 0; i < BROWSERS * WISHES; i++) {
        struct wish *x = &w->b[i / WISHES].wishes[i % WISHES];
        x->kind = weir_random_next(r) % 40 == 0 ? BAD : (enum wish_kind)(weir_random_next(r) % BAD);
        x->route = routes[weir_random_next(r) % 3];
        x->expect = weir_random_next(r) % 4 == 0;
        x->app.answer = sim_below(&w->net, 300, 5, 90000);
        x->app.sized = weir_random_next(r) % 3 == 0;
        x->app.delay = weir_random_next(r) % 4 == 0;
        if (x->kind == POST_LENGTH || x->kind == POST_CHUNKED) {
            x->app.body = sim_below(&w->net, 3000, 4, 150000);
            if (w->slow || w->late) x->app.body %= 3000;
            else if (weir_random_next(r) % 20 == 0) x->app.body = KEPT + WAITING + weir_random_next(r) % 12000; /* about what waits for a slow helper */
            x->app.early = x->app.body && weir_random_next(r) % 8 == 0;
        }
    }
    if (w->late) w->b[1].wishes[0] = (struct wish){.kind = GET_APP, .route = "/plain/", .app.answer = KEPT + HELD + WAITING + weir_random_next(r) % 60000};
    if (!w->slow) return;
    /* all of the body comes before the helper stores anything: its last bytes may be what makes the room full */
    struct wish *x = &w->b[0].wishes[0];
    *x = (struct wish){.kind = POST_LENGTH, .route = routes[weir_random_next(r) % 2], .app.answer = 100, .app.body = KEPT + WAITING + weir_random_next(r) % 40000};
}

static void start(struct world *w, uint64_t seed)
{
    static const char *const names[APPS] = {"/app0", "/app1", "/app2"};
    *w = (struct world){.seed = seed, .net = {.random = {seed * 0x9e3779b97f4a7c15u + 1}, .now_us = 1000000}};
    w->disturbed = weir_random_next(&w->net.random) % 2;
    sim_fault_seed(seed, weir_random_next(&w->net.random) % 6 ? 0 : w->disturbed ? 7 : 0);
    w->no_temp = weir_random_next(&w->net.random) % 8 == 0;
    w->slow = seed % 8 == 5;
    w->late = seed % 8 == 3;
    w->fronted = seed % 4 == 0;
    w->net.helpers_stopped = w->slow || w->late;
    w->loop = sim_loop_new(&w->net);
    make_wishes(w);
    for (size_t i = 0; i < APPS; i++) {
        w->apps[i] = (struct sim_app){.task = task_of, .fail = app_fails, .arg = w};
        sim_app_start(&w->apps[i], &w->net, names[i], 20);
    }
    for (size_t i = 0; i < BROWSERS; i++) w->b[i].fd = -1;
    w->away = seed % 3 == 1;
    sim_die(&w->net, "/app1", w->away);
    if (gateway_new(&w->gw, new_loop, &w->net) < 0) abort();
    w->listeners[0] = sim_listen(&w->net, "web");
    if (w->fronted) {
        w->listeners[1] = sim_listen(&w->net, "/front0");
        w->listeners[2] = sim_listen(&w->net, "/front2");
    }
    configure(w);
    if (gateway_start(w->gw) < 0) abort();
    for (unsigned i = 0; i < w->gw->thread_count; i++) worker_begin(&w->gw->workers[i]);
}

static void disturb(struct world *w)
{
    struct weir_random *r = &w->net.random;
    struct browser *b = &w->b[weir_random_next(r) % BROWSERS];
    switch (weir_random_next(r) % 1200) {
    case 0: sim_reset(&w->net); break;
    case 1: sim_clock(&w->net, 20000000); break;
    case 2:
        if (!b->done && b->fd >= 0) leave(w, b);
        break;
    case 3: b->done = true; break; /* it does nothing any more, and does not say so */
    case 4:
        w->away = !w->away;
        sim_die(&w->net, "/app1", w->away);
        break;
    default: break;
    }
}

static bool helpers_begin(const struct world *w)
{
    const struct browser *b = &w->b[0];
    if (w->late) return w->net.now_us > 8000000;
    return b->done || w->net.now_us > 12000000 || (b->sending && b->fd >= 0 && weir_buf_len(&b->out) == 0 && sim_taken(&w->net, b->fd));
}

static bool all_done(const struct world *w)
{
    for (size_t i = 0; i < BROWSERS; i++)
        if (!w->b[i].done) return false;
    return true;
}

static void gateway_turn(struct world *w, unsigned thread)
{
    sim_fault_set(true);
    worker_turn(&w->gw->workers[thread]);
    sim_fault_set(false);
}

static void everybody_turns(struct world *w)
{
    for (size_t i = 0; i < APPS; i++) sim_app_turn(&w->apps[i]);
    for (unsigned i = 0; i < w->gw->thread_count; i++)
        if (!w->gw->workers[i].done) gateway_turn(w, i);
}

static void tell_rest(const struct world *w)
{
    for (const struct gateway_pool *gp = w->gw->pools; gp; gp = gp->next) {
        struct weir_pool_stats s;
        struct weir_endpoint_stats eps[2];
        weir_pool_get_stats(gp->pool, &s, eps, 2);
        dprintf(errors, "pool %s: queued %u, busy %u %u\n", weir_pool_name(gp->pool), (unsigned)s.queued, (unsigned)eps[0].busy, s.endpoint_count > 1 ? (unsigned)eps[1].busy : 0);
    }
    for (size_t i = 0; i < APPS; i++) dprintf(errors, "app %zu: %u requests\n", i, sim_app_busy(&w->apps[i]));
    dprintf(errors, "gateway: %u connections\n", (unsigned)atomic_load(&w->gw->conn_count));
}

static bool at_rest(const struct world *w)
{
    for (const struct gateway_pool *gp = w->gw->pools; gp; gp = gp->next) {
        struct weir_pool_stats s;
        struct weir_endpoint_stats eps[2];
        weir_pool_get_stats(gp->pool, &s, eps, 2);
        if (s.queued || eps[0].busy || (s.endpoint_count > 1 && eps[1].busy)) return false;
    }
    for (size_t i = 0; i < APPS; i++)
        if (sim_app_busy(&w->apps[i])) return false;
    return atomic_load(&w->gw->conn_count) == 0;
}

static void finish(struct world *w)
{
    w->net.helpers_stopped = false;
    for (size_t i = 0; i < BROWSERS * WISHES; i++) {
        const struct wish *x = &w->b[i / WISHES].wishes[i % WISHES];
        if (x->answers > 1) fail(w, "answered twice", i);
        if (x->app.runs > 1) fail(w, "it ran twice", i);
        if (!x->sent && x->app.runs) fail(w, "it ran without being sent", i);
    }
    for (int i = 0; !at_rest(w); i++) {
        if (i > 100000) {
            tell_rest(w);
            fail(w, "a slot, a request or a connection was left", 0);
        }
        sim_move(&w->net);
        sim_clock(&w->net, 5000);
        everybody_turns(w);
    }
    gateway_drain(w->gw, 1000, w->seed % 2);
    for (int i = 0; !w->gw->workers[0].done || !w->gw->workers[1].done; i++) {
        if (i > 10000) fail(w, "the gateway does not end", 0);
        everybody_turns(w);
        sim_clock(&w->net, 5000);
    }
    gateway_free(w->gw);
    for (size_t i = 0; i < APPS; i++) sim_app_end(&w->apps[i]);
    weir_loop_free(w->loop);
    for (size_t i = 0; i < BROWSERS; i++) {
        weir_buf_fini(&w->b[i].in);
        weir_buf_fini(&w->b[i].out);
    }
    for (int i = 0; i < SIM_SOCKETS; i++) {
        weir_buf_fini(&w->net.s[i].in);
        weir_buf_fini(&w->net.s[i].wire);
    }
}

static uint64_t run(uint64_t seed)
{
    static struct world w;
    start(&w, seed);
    struct weir_random *r = &w.net.random;
    for (unsigned steps = 0; !all_done(&w); steps++) {
        if (steps > 4000000) {
            for (size_t i = 0; i < BROWSERS; i++)
                if (!w.b[i].done) fail(&w, "it is never answered", wish_id(&w, &w.b[i], w.b[i].reading % WISHES));
        }
        if (w.disturbed) disturb(&w);
        if (w.net.helpers_stopped && helpers_begin(&w)) w.net.helpers_stopped = false;
        switch (weir_random_next(r) % 10) {
        case 0: sim_app_turn(&w.apps[weir_random_next(r) % APPS]); break;
        case 1:
            if (w.slow && weir_random_next(r) % 8) break; /* it finds much when it comes */
            gateway_turn(&w, weir_random_next(r) % 2);
            break;
        case 2: sim_clock(&w.net, weir_random_next(r) % 3000); break;
        case 3:
            if (weir_random_next(r) % 2000 == 0) configure(&w);
            if (w.away && !w.disturbed && weir_random_next(r) % 3000 == 0) { /* nobody notices that it was away */
                w.away = false;
                sim_die(&w.net, "/app1", false);
            }
            break;
        case 4:
        case 5: browser_turn(&w, &w.b[weir_random_next(r) % BROWSERS]); break;
        default: sim_move(&w.net); break;
        }
    }
    finish(&w);
    return w.net.events;
}

static void make_folder(void)
{
    char path[64];
    if (!mkdtemp(folder)) abort();
    snprintf(path, sizeof path, "%s/f.txt", folder);
    FILE *f = fopen(path, "w");
    for (size_t i = 0; f && i < FILE_LEN; i++) fputc(sim_byte(0, i), f);
    if (!f || fclose(f) != 0) abort();
}

static void remove_folder(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/f.txt", folder);
    unlink(path);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : UINT64_MAX;
    uint64_t events = 0, first = seed;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    errors = fcntl(2, F_DUPFD_CLOEXEC, 3);
    if (null < 0 || errors < 0 || (!getenv("SIM_LOG") && dup2(null, 2) < 0)) return 1; /* the gateway's own log is not read */
    close(null);
    make_folder();
    for (; count > 0 && (argc > 1 || events < 100000); count--) events += run(seed++);
    remove_folder();
    printf("seeds %" PRIu64 " to %" PRIu64 ", %" PRIu64 " events, %" PRIu64 " allocations refused\n", first, seed - 1, events, sim_fault_count());
    return 0;
}

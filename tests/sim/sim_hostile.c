/* SPDX-License-Identifier: MIT */
/* sim_hostile: see sim_hostile.h. */
#include "sim_hostile.h"
#include "sim_tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "weir/wire.h"

/* ---- bytes ---- */

static void put(struct weir_buf *b, const void *p, size_t len)
{
    if (weir_buf_append(b, p, len) < 0) abort();
}

static void record(struct weir_buf *b, uint8_t type, uint16_t id, const void *p, size_t len)
{
    uint8_t head[8];
    weir_wire_header_write(head, type, id, (uint16_t)len, 0);
    put(b, head, 8);
    put(b, p, len);
}

static void credit(struct weir_buf *b, uint16_t id, uint8_t what, uint8_t flags, uint64_t limit, size_t len)
{
    uint8_t c[16] = {what, flags};
    for (int i = 0; i < 8; i++) c[8 + i] = (uint8_t)(limit >> (56 - 8 * i));
    record(b, WEIR_WIRE_CREDIT, id, c, len);
}

static void value(struct weir_buf *b, const char *text)
{
    uint8_t c[200];
    size_t len = weir_wire_pair(c, WEIR_STR("FCGI_FLOW_CONTROL"), weir_cstr(text));
    record(b, WEIR_WIRE_GET_VALUES_RESULT, 0, c, len);
}

static void noise(struct weir_buf *b, struct sim *net, size_t len)
{
    while (len--) put(b, &(uint8_t){(uint8_t)(weir_random_next(&net->random) >> 24)}, 1);
}

static const char filler[65528];

/* What it has to send leaves as far as there is room; false: the other end is gone. */
static bool flushes(struct weir_loop *l, int fd, struct weir_buf *b)
{
    while (weir_buf_len(b)) {
        struct iovec v = {weir_buf_ptr(b), weir_buf_len(b)};
        int64_t n = weir_loop_writev(l, fd, &v, 1, false);
        if (n == WEIR_AGAIN || n == 0) return true;
        if (n < 0) return false;
        weir_buf_consume(b, (size_t)n);
    }
    return true;
}

/* ---- applications ---- */

const char *const sim_bad_app_names[APP_KINDS] = {
    "never answers", "closes at once", "does not know it", "answers UNKNOWN_TYPE", "answers a bad value", "answers another record",
    "sends garbage", "answers late", "answers twice", "overruns", "floods with credit", "short CREDIT", "huge CREDIT",
    "floods with strays", "ends twice", "output after its end", "a record of a server", "odd credit", "refuses", "FINAL at once",
    "takes no request for a while", "reads nothing", "flips bytes", "dies"};

enum { BAD_CONNS = 48 };
struct bad_conn {
    struct weir_wire_app *wire;
    struct weir_buf out;
    uint64_t due_us;
    uint32_t skip; /* of the question, which was answered by hand */
    int fd;
    bool used, asked;
};
struct sim_bad_app_peer {
    struct sim *net;
    struct weir_loop *loop;
    struct bad_conn c[BAD_CONNS];
    int listener;
    enum sim_bad_app kind;
    bool done;
};

struct sim_bad_app_peer *sim_bad_app_new(struct sim *net, const char *name, enum sim_bad_app kind)
{
    struct sim_bad_app_peer *p = calloc(1, sizeof *p);
    if (!p) abort();
    p->net = net;
    p->loop = sim_loop_new(net);
    p->listener = sim_listen(net, name);
    p->kind = kind;
    return p;
}

static void drop(struct sim_bad_app_peer *p, struct bad_conn *c)
{
    weir_loop_close(p->loop, c->fd);
    weir_wire_app_free(c->wire);
    weir_buf_fini(&c->out);
    c->used = false;
}

static void accepts(struct sim_bad_app_peer *p)
{
    const struct weir_wire_limits limits = {.requests = 4, .window = 1000, .plain_requests = 1,
                                            .no_flow = p->kind >= APP_UNAWARE && p->kind <= APP_OTHER_RECORD};
    for (int i = 0; i < BAD_CONNS; i++) {
        struct bad_conn *c = &p->c[i];
        struct sockaddr_storage peer;
        uint32_t len;
        if (c->used) continue;
        int fd = weir_loop_accept(p->loop, p->listener, &peer, &len);
        if (fd < 0) return;
        *c = (struct bad_conn){.fd = fd, .used = true};
        if (p->net->tap) sim_tap_hostile(p->net->tap, fd);
        if (p->net->tap && (p->kind == APP_GARBAGE || p->kind == APP_FLIPS_BYTES)) sim_tap_blind(p->net->tap, fd);
        if (weir_wire_app_new(&c->wire, &limits) < 0) abort();
        if (p->kind == APP_FINAL_AT_ONCE) weir_wire_app_drain(c->wire);
        if (p->kind == APP_TAKES_NONE) weir_wire_app_limit(c->wire, 0);
        c->due_us = p->net->now_us + (p->kind == APP_LATE ? 1200000 : 300000);
    }
}

/* Its mistake, instead of or before the answer; false: no answer. */
static bool errs(struct sim_bad_app_peer *p, struct bad_conn *c, uint16_t id)
{
    struct weir_buf *b = &c->out;
    bool agreed = weir_wire_app_agreed(c->wire);
    if (!agreed && p->kind >= APP_OVERRUN && p->kind != APP_FLIPS_BYTES) return true;
    p->done = true;
    switch (p->kind) {
    case APP_OVERRUN:
        record(b, WEIR_WIRE_STDOUT, id, filler, sizeof filler);
        record(b, WEIR_WIRE_STDOUT, id, filler, sizeof filler);
        return true;
    case APP_CREDIT_FLOOD:
        for (int i = 0; i < 1100; i++) credit(b, id, WEIR_WIRE_STDIN, 0, 1, 16);
        return true;
    case APP_SHORT_CREDIT: credit(b, id, WEIR_WIRE_STDIN, 0, 1, 15); return true;
    case APP_HUGE_CREDIT: credit(b, id, WEIR_WIRE_STDIN, 0, UINT64_MAX, 16); return true;
    case APP_STRAY_FLOOD:
        for (int i = 0; i < 10100; i++) record(b, WEIR_WIRE_STDOUT, 9999, "", 0);
        return true;
    case APP_END_TWICE:
        record(b, WEIR_WIRE_END_REQUEST, id, filler, 8);
        record(b, WEIR_WIRE_END_REQUEST, id, filler, 8);
        return false;
    case APP_OUTPUT_AFTER_END:
        record(b, WEIR_WIRE_STDOUT, id, "", 0);
        record(b, WEIR_WIRE_STDOUT, id, "x", 1);
        return true;
    case APP_WRONG_TYPE: record(b, WEIR_WIRE_PARAMS, id, "", 0); return true;
    case APP_ODD_CREDIT: /* all of it is to be ignored */
        credit(b, id, 77, 0xff, 1, 16);
        credit(b, 555, WEIR_WIRE_STDIN, 0, 1, 16);
        credit(b, 0, WEIR_WIRE_STDIN, 0, 1, 16);
        record(b, 99, 0, "xx", 2);
        value(b, "window=1 requests=1");
        return true;
    case APP_REFUSES:
        if (weir_wire_app_end(c->wire, id, 0, WEIR_WIRE_OVERLOADED) < 0) abort();
        return false;
    default: return true;
    }
}

static void answers(struct sim_bad_app_peer *p, struct bad_conn *c)
{
    static const char text[] = "Content-Type: text/plain\r\n\r\nok";
    struct weir_wire_event ev;
    const void *out;
    while (weir_wire_app_next(c->wire, &ev) == WEIR_OK) {
        if (ev.type == WEIR_WIRE_EV_INPUT) weir_wire_app_consumed(c->wire, ev.id, ev.stream, ev.bytes.len);
        if (ev.type == WEIR_WIRE_EV_ABORT) (void)!weir_wire_app_end(c->wire, ev.id, 0, 0);
        if (ev.type != WEIR_WIRE_EV_REQUEST || !errs(p, c, ev.id)) continue;
        (void)!weir_wire_app_write(c->wire, ev.id, WEIR_STDOUT, text, sizeof text - 1);
        (void)!weir_wire_app_end(c->wire, ev.id, 0, 0);
    }
    size_t n = weir_wire_app_output(c->wire, &out);
    size_t at = weir_buf_len(&c->out);
    put(&c->out, out, n);
    if (p->kind == APP_FLIPS_BYTES)
        for (char *b = weir_buf_ptr(&c->out) + at; n--; b++)
            if (weir_random_next(&p->net->random) % 100 == 0) *b = (char)weir_random_next(&p->net->random);
    weir_wire_app_sent(c->wire, weir_wire_app_output(c->wire, &out));
}

/* What it says to the first bytes, by hand; false: the connection is closed. */
static bool first_answer(struct sim_bad_app_peer *p, struct bad_conn *c, const uint8_t *bytes)
{
    static const uint8_t unknown[8] = {WEIR_WIRE_GET_VALUES};
    bool question = bytes[1] == WEIR_WIRE_GET_VALUES;
    c->asked = true;
    if (p->kind == APP_CLOSES) {
        p->done = true;
        return false;
    }
    if (!question) return true;
    if (p->kind <= APP_LATE || p->kind == APP_TWICE) p->done = true;
    if (p->kind == APP_UNKNOWN_TYPE) record(&c->out, WEIR_WIRE_UNKNOWN_TYPE, 0, unknown, 8);
    else if (p->kind == APP_BAD_VALUE) value(&c->out, "window=1000");
    else if (p->kind == APP_OTHER_RECORD) record(&c->out, WEIR_WIRE_STDOUT, 1, "x", 1);
    else if (p->kind == APP_TWICE) value(&c->out, "window=1000 requests=4");
    if (p->kind >= APP_UNKNOWN_TYPE && p->kind <= APP_OTHER_RECORD) c->skip = 8 + 19 + 8;
    return true;
}

static bool reads(struct sim_bad_app_peer *p, struct bad_conn *c)
{
    static uint8_t buf[70000];
    if (p->kind == APP_READS_NOTHING && p->done) return true;
    int64_t n = weir_loop_read(p->loop, c->fd, buf, sizeof buf);
    if (n == WEIR_AGAIN) return true;
    if (n <= 0) return false;
    if (!c->asked && n >= 2 && !first_answer(p, c, buf)) return false;
    if (p->kind == APP_SILENT || (p->kind == APP_LATE && p->net->now_us < c->due_us)) return true;
    if (p->kind == APP_GARBAGE) {
        noise(&c->out, p->net, 300);
        return true;
    }
    size_t skip = c->skip < (size_t)n ? c->skip : (size_t)n;
    c->skip -= (uint32_t)skip;
    weir_wire_app_feed(c->wire, buf + skip, (size_t)n - skip);
    answers(p, c);
    if (p->kind == APP_READS_NOTHING && weir_wire_app_agreed(c->wire)) p->done = true;
    return true;
}

void sim_bad_app_turn(struct sim_bad_app_peer *p)
{
    accepts(p);
    for (int i = 0; i < BAD_CONNS; i++) {
        struct bad_conn *c = &p->c[i];
        if (!c->used) continue;
        if (p->kind == APP_TAKES_NONE && p->net->now_us >= c->due_us) {
            if (weir_wire_app_agreed(c->wire)) p->done = true;
            weir_wire_app_limit(c->wire, 4);
            answers(p, c);
        }
        if (p->kind == APP_LATE && c->asked && c->due_us <= p->net->now_us && c->due_us) {
            c->due_us = p->net->now_us + 1500000; /* once more, too late */
            value(&c->out, "window=1000 requests=4");
        }
        bool dies = p->kind == APP_DIES && weir_wire_app_active(c->wire) && weir_random_next(&p->net->random) % 3 == 0;
        p->done |= dies;
        if (!reads(p, c) || !flushes(p->loop, c->fd, &c->out) || dies) drop(p, c);
    }
}

bool sim_bad_app_serves(enum sim_bad_app kind)
{
    return (kind >= APP_UNAWARE && kind <= APP_OTHER_RECORD) || kind == APP_TWICE || kind == APP_ODD_CREDIT || kind == APP_TAKES_NONE;
}

bool sim_bad_app_denies(enum sim_bad_app kind)
{
    return kind <= APP_LATE;
}

bool sim_bad_app_done(const struct sim_bad_app_peer *p)
{
    return p->done;
}

void sim_bad_app_free(struct sim_bad_app_peer *p)
{
    for (int i = 0; i < BAD_CONNS; i++)
        if (p->c[i].used) drop(p, &p->c[i]);
    weir_loop_free(p->loop);
    free(p);
}

/* ---- web servers ---- */

const char *const sim_bad_server_names[SERVER_KINDS] = {
    "garbage", "flips bytes", "overruns", "floods with credit", "begins an id twice", "begins too many", "body after its end",
    "body before PARAMS end", "mixes plain and flagged", "another version", "short CREDIT", "huge CREDIT", "floods with strays", "begins id 0",
    "aborts in a loop", "floods with GET_VALUES", "endless PARAMS", "half a record", "reads nothing"};

struct sim_bad_server_peer {
    struct sim *net;
    struct weir_loop *loop;
    struct weir_buf out;
    int fd;
    enum sim_bad_server kind;
    bool closed;
};

bool sim_bad_server_must_close(enum sim_bad_server kind)
{
    return kind == SERVER_GARBAGE || (kind >= SERVER_OVERRUN && kind <= SERVER_BEGINS_0);
}

static void ask(struct weir_buf *b)
{
    uint8_t c[19];
    (void)weir_wire_pair(c, WEIR_STR("FCGI_FLOW_CONTROL"), WEIR_STR(""));
    record(b, WEIR_WIRE_GET_VALUES, 0, c, sizeof c);
}

static void begin(struct weir_buf *b, uint16_t id, uint8_t flags, uint8_t version, const char *task)
{
    const uint8_t c[8] = {0, 1, flags, version, 0, 0, 0, 100};
    uint8_t params[64];
    size_t len = task ? weir_wire_pair(params, WEIR_STR("QUERY_STRING"), weir_cstr(task)) : 0;
    record(b, WEIR_WIRE_BEGIN_REQUEST, id, c, 8);
    if (!task) return;
    record(b, WEIR_WIRE_PARAMS, id, params, len);
    record(b, WEIR_WIRE_PARAMS, id, "", 0);
}

static void script(struct sim_bad_server_peer *p, const char *task)
{
    struct weir_buf *b = &p->out;
    size_t begun;
    if (p->kind == SERVER_GARBAGE) {
        put(b, "\2", 1);
        noise(b, p->net, 500);
        return;
    }
    ask(b);
    if (p->kind != SERVER_BEGINS_0 && p->kind != SERVER_OTHER_VERSION && p->kind != SERVER_STRAY_FLOOD) begin(b, 1, 0x81, 1, p->kind == SERVER_BODY_BEFORE_PARAMS ? NULL : task);
    switch (p->kind) {
    case SERVER_FLIPS_BYTES:
        for (uint16_t id = 2; id < 6; id++) begin(b, id, 0x81, 1, task);
        begun = weir_buf_len(b); /* behind it: its requests are not to become those of others */
        for (int i = 0; i < 30; i++) record(b, WEIR_WIRE_STDIN, (uint16_t)(1 + i % 5), filler, 50);
        for (size_t i = begun, n = weir_buf_len(b); i < n; i++)
            if (weir_random_next(&p->net->random) % 150 == 0) weir_buf_ptr(b)[i] = (char)weir_random_next(&p->net->random);
        break;
    case SERVER_OVERRUN:
    case SERVER_READS_NOTHING: /* overruns only in the first of them */
        record(b, WEIR_WIRE_STDIN, 1, filler, 2000);
        if (p->kind == SERVER_OVERRUN) record(b, WEIR_WIRE_STDIN, 1, filler, 2001);
        break;
    case SERVER_CREDIT_FLOOD:
        for (int i = 0; i < 1100; i++) credit(b, 1, WEIR_WIRE_STDERR, 0, 1, 16);
        break;
    case SERVER_BEGINS_TWICE: begin(b, 1, 0x81, 1, task); break;
    case SERVER_TOO_MANY:
        for (uint16_t id = 2; id < 100; id++) begin(b, id, 0x81, 1, NULL);
        break;
    case SERVER_BODY_AFTER_END:
        record(b, WEIR_WIRE_STDIN, 1, "", 0);
        record(b, WEIR_WIRE_STDIN, 1, "x", 1);
        break;
    case SERVER_BODY_BEFORE_PARAMS: record(b, WEIR_WIRE_STDIN, 1, "x", 1); break;
    case SERVER_MIXES: begin(b, 2, 0x01, 0, task); break;
    case SERVER_OTHER_VERSION: begin(b, 1, 0x81, 2, task); break;
    case SERVER_SHORT_CREDIT: credit(b, 1, WEIR_WIRE_STDOUT, 0, 1, 3); break;
    case SERVER_HUGE_CREDIT: credit(b, 1, WEIR_WIRE_STDOUT, 0, UINT64_C(1) << 63, 16); break;
    case SERVER_STRAY_FLOOD:
        for (int i = 0; i < 10100; i++) record(b, WEIR_WIRE_STDIN, 7, "", 0);
        break;
    case SERVER_BEGINS_0: begin(b, 0, 0x81, 1, task); break;
    case SERVER_ABORT_LOOP:
        for (int i = 0; i < 300; i++) {
            record(b, WEIR_WIRE_ABORT_REQUEST, 1, "", 0);
            record(b, WEIR_WIRE_ABORT_REQUEST, 2, "", 0);
        }
        break;
    case SERVER_VALUES_FLOOD:
        for (int i = 0; i < 9000; i++) ask(b);
        break;
    case SERVER_ENDLESS_PARAMS:
        begin(b, 2, 0x81, 1, NULL);
        for (int i = 0; i < 40; i++) record(b, WEIR_WIRE_PARAMS, 2, filler, 65528);
        break;
    case SERVER_HALF_A_RECORD: put(b, "\1\5\0\1\0\1", 6); break;
    default: break;
    }
}

struct sim_bad_server_peer *sim_bad_server_new(struct sim *net, const char *name, enum sim_bad_server kind, const char *task)
{
    struct sim_bad_server_peer *p = calloc(1, sizeof *p);
    if (!p) abort();
    p->net = net;
    p->loop = sim_loop_new(net);
    p->kind = kind;
    p->fd = sim_dial(net, name);
    p->closed = p->fd < 0;
    if (p->fd >= 0 && net->tap) sim_tap_hostile(net->tap, p->fd);
    script(p, task);
    return p;
}

void sim_bad_server_leave(struct sim_bad_server_peer *p)
{
    if (p->fd >= 0) weir_loop_close(p->loop, p->fd);
    p->fd = -1;
}

void sim_bad_server_turn(struct sim_bad_server_peer *p)
{
    char buf[5000];
    int64_t n;
    if (p->fd < 0) return;
    bool deaf = p->kind == SERVER_READS_NOTHING || p->kind == SERVER_VALUES_FLOOD;
    while (!deaf && (n = weir_loop_read(p->loop, p->fd, buf, sizeof buf)) != WEIR_AGAIN) {
        if (n > 0) continue;
        p->closed = true;
        sim_bad_server_leave(p);
        return;
    }
    if (flushes(p->loop, p->fd, &p->out)) return;
    p->closed = true;
    sim_bad_server_leave(p);
}

bool sim_bad_server_closed(const struct sim_bad_server_peer *p)
{
    return p->closed;
}

void sim_bad_server_free(struct sim_bad_server_peer *p)
{
    sim_bad_server_leave(p);
    weir_buf_fini(&p->out);
    weir_loop_free(p->loop);
    free(p);
}

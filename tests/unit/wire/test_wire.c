/* SPDX-License-Identifier: MIT */
/* wire: vectors, every split, both ends against each other with credit, the errors of a hostile peer. */
#include "wire_text.h"

static void a_simple_request_is_read_however_it_is_split(void **state)
{
    (void)state;
    app_events(BEGIN PARAMS_A1 PARAMS_END "01 05 00 01 00 03 05 00 61 62 63 00 00 00 00 00" STDIN_END,
               ";REQUEST(1,0,1,0,0,);INPUT(1,5)abc;INPUT_END(1,5,1,0,0,)", "");
}

/* FC1-3.3-d, IOP-S6 */
static void padding_of_any_size_stands_on_any_record(void **state)
{
    (void)state;
    static char text[4096];
    size_t n = (size_t)snprintf(text, sizeof text, "01 01 00 01 00 08 ff 00 00 01 01 00 00 00 00 00 ");
    for (int i = 0; i < 255; i++) n += (size_t)snprintf(text + n, sizeof text - n, "00");
    n += (size_t)snprintf(text + n, sizeof text - n, "%s 01 04 00 01 00 00 07 00 00000000000000 01 05 00 01 00 00 01 00 00", PARAMS_A1);
    app_events(text, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)", "");
}

/* FC1-4.1-b, FC1-4.1-c, FC1-4.2-a, IOP-A9 */
static void management_records_are_answered(void **state)
{
    (void)state;
    app_events(ASK, "", AGREED);
    app_events("01 09 00 00 00 30 08 00 0e 00 \"FCGI_MAX_CONNS\" 0d 00 \"FCGI_MAX_REQS\" 0f 00 \"FCGI_MPXS_CONNS\" 0000000000000000", "",
               "01 0a 00 00 00 36 00 00 0e 04 \"FCGI_MAX_CONNS1000\" 0d 01 \"FCGI_MAX_REQS1\" 0f 01 \"FCGI_MPXS_CONNS0\"");
    app_events("01 64 00 00 00 03 01 00 \"abc\" 00", "", "01 0b 00 00 00 08 00 00 64 00 00 00 00 00 00 00");
}

/* FC1-5.5-a, FC1-5.5-d, FC1-5.5-f, FC1-5.4-b, IOP-A5 */
static void refusals_carry_their_status(void **state)
{
    (void)state;
    app_events("01 01 00 01 00 08 00 00 00 09 01 00 00 00 00 00", "", "01 03 00 01 00 08 00 00 00 00 00 00 03 46 43 01");
    app_events(BEGIN "01 01 00 02 00 08 00 00 00 01 01 00 00 00 00 00" "01 04 00 02 00 00 00 00", "", "01 03 00 02 00 08 00 00 00 00 00 00 01 46 43 01");
    app_events(BEGIN "01 02 00 01 00 00 00 00", "", "01 03 00 01 00 08 00 00 00 00 00 00 00 46 43 01"); /* ABORT before PARAMS end */
}

/* FC1-3.3-b, FC1-3.3-g, FC1-3.3-k, FC1-3.3-l, FC1-3.3-m, FC1-3.4-d, FC1-5.2-b, FC1-6.1-a, IOP-A3 */
static void mistakes_of_a_server_end_the_connection_with_a_reason(void **state)
{
    (void)state;
    app_events("02 01 00 01 00 08 00 00 00 01 01 00 00 00 00 00", ";ERROR(0,0,0,0,0,a record that is not version 1)", NULL);
    app_events(BEGIN BEGIN, ";ERROR(0,0,0,0,0,BEGIN_REQUEST for an active id)", NULL);
    app_events("01 01 00 00 00 08 00 00 00 01 01 00 00 00 00 00", ";ERROR(0,0,0,0,0,BEGIN_REQUEST with id 0)", NULL);
    app_events("01 01 00 01 00 07 00 00 00 01 01 00 00 00 00", ";ERROR(0,0,0,0,0,BEGIN_REQUEST with a content that is not 8 bytes)", NULL);
    app_events(BEGIN "01 05 00 01 00 01 00 00 61", ";ERROR(0,0,0,0,0,a body before the end of PARAMS)", NULL);
    app_events(BEGIN "01 04 00 01 00 03 00 00 05 01 41" PARAMS_END, ";ERROR(0,0,0,0,0,PARAMS that are no name-value pairs)", NULL);
    app_events(BEGIN "01 04 00 01 00 04 00 00 01 01 3d 31" PARAMS_END, ";ERROR(0,0,0,0,0,PARAMS that are no name-value pairs)", NULL);
    app_events(BEGIN "01 04 00 01 00 04 00 00 01 01 41 00" PARAMS_END, ";ERROR(0,0,0,0,0,PARAMS that are no name-value pairs)", NULL);
    app_events(BEGIN PARAMS_END STDIN_END "01 05 00 01 00 01 00 00 61",
               ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,);ERROR(0,0,0,0,0,content after the end of its stream)", NULL);
    app_events(ASK BEGIN_FLOW PARAMS_END "01 20 00 01 00 08 00 00 06 00 00 00 00 00 00 00",
               ";REQUEST(1,0,1,0,10,);ERROR(0,0,0,0,0,CREDIT that is too short)", NULL);
    app_events(ASK BEGIN_FLOW PARAMS_END "01 20 00 01 00 10 00 00 06 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00",
               ";REQUEST(1,0,1,0,10,);ERROR(0,0,0,0,0,credit that is not valid)", NULL);
}

/* FC1-3.3-h, FC1-5.4-e */
static void records_of_inactive_requests_are_ignored(void **state)
{
    (void)state;
    app_events("01 05 00 07 00 03 00 00 \"abc\" 01 02 00 09 00 00 00 00" BEGIN PARAMS_END, ";REQUEST(1,0,1,0,0,)", "");
    app_events(BEGIN PARAMS_END "01 02 00 01 00 00 00 00 01 02 00 01 00 00 00 00", ";REQUEST(1,0,1,0,0,);ABORT(1,0,1,0,0,)", "");
}

/* FC1-3.4-b, FC1-3.4-d */
static void pairs_straddle_records_and_use_long_lengths(void **state)
{
    (void)state;
    uint8_t in[512];
    size_t len = hex(BEGIN "01 04 00 01 00 05 00 00 80 00 00 01 80" "01 04 00 01 00 05 00 00 00 00 01 41 31" PARAMS_END, in);
    struct weir_wire_app *w;
    struct weir_pair p;
    struct log l = {.last = 0};
    size_t pos = 0;
    assert_int_equal(weir_wire_app_new(&w, NULL), WEIR_OK);
    for (size_t i = 0; i < len; i++) feed_app(w, in + i, 1, &l);
    struct weir_str all = weir_wire_app_params(w, 1);
    assert_int_equal(weir_wire_pair_next(all, &pos, &p), WEIR_OK);
    assert_true(weir_str_eq(p.name, WEIR_STR("A")) && weir_str_eq(p.value, WEIR_STR("1")));
    assert_int_equal(weir_wire_pair_next(all, &pos, &p), WEIR_AGAIN);
    weir_wire_app_free(w);
}

/* ---- the server's end ---- */

/* FC1-3.3-l, FC1-3.3-m, FC1-3.3-o, FC1-5.5-g, FC1-A-a, IOP-S6, IOP-S7 */
static void answers_of_real_peers_are_read(void **state)
{
    (void)state;
    /* php: no STDOUT end, garbage in END's reserved bytes */
    server_events("01 06 00 01 00 02 06 00 \"hi\" 000000000000 01 03 00 01 00 08 00 00 00 00 00 05 00 00 69 6c",
                  ";INPUT(1,6)hi;INPUT_END(1,6,0,0,0,);END(1,0,0,5,0,)", false);
    server_events("01 07 00 01 00 01 00 00 \"e\" 01 06 00 01 00 00 00 00 01 03 00 01 00 08 00 00 00 00 00 00 02 46 43 01",
                  ";INPUT(1,7)e;INPUT_END(1,6,0,0,0,);END(1,0,0,0,210,)", false);
    server_events("01 06 00 05 00 01 00 00 \"x\" 01 0a 00 00 00 00 00 00", "", false);
    server_events("01 03 00 01 00 04 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,END_REQUEST with a content that is not 8 bytes)", false);
    server_events("01 06 00 01 00 00 00 00 01 06 00 01 00 01 00 00 61",
                  ";INPUT_END(1,6,0,0,0,);ERROR(0,0,0,0,0,output after the end of its stream)", false);
    server_events("01 04 00 01 00 00 00 00", ";ERROR(0,0,0,0,0,a record that an application may not send)", false);
}

/* FC1-4.1-f, FC1-4.2-b */
static void asking_has_a_clear_outcome(void **state)
{
    (void)state;
    server_events(AGREED, ";VALUES(0,0,0,0,10,)", true);
    server_events("01 0a 00 00 00 00 00 00", ";VALUES(0,0,0,0,0,)", true);
    server_events("01 0b 00 00 00 08 00 00 09 00 00 00 00 00 00 00", ";VALUES(0,0,0,0,0,)", true);
    static const char *const bad[] = {"window=1", "requests=1 requests=1 window=1", "window=1 requests=0", "window=1  requests=1", "window=x requests=1",
                                      "window=1 requests=1 ", "window=1 requests=1 window=2", "window=99999999999 requests=1", "Window=1 requests=1"};
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        char text[256];
        snprintf(text, sizeof text, "01 0a 00 00 00 %02zx 00 00 11 %02zx \"FCGI_FLOW_CONTROL%s\"", 19 + strlen(bad[i]), strlen(bad[i]), bad[i]);
        server_events(text, ";VALUES(0,0,0,0,0,)", true);
    }
    server_events("01 0a 00 00 00 2e 00 00 11 1b \"FCGI_FLOW_CONTROLwindow=1 later=7 requests=9\"", ";VALUES(0,0,0,0,10,)", true);
}

/* FC1-5.1-a, FC1-5.2-a, FC1-6.1-a, IOP-S1, IOP-S3 */
static void the_bytes_of_a_request_are_exact(void **state)
{
    (void)state;
    struct weir_wire_server *w;
    const struct weir_pair p = {WEIR_STR("A"), WEIR_STR("1")};
    uint8_t want[256];
    const void *out;
    uint16_t id;
    assert_int_equal(weir_wire_server_new(&w, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &p, 1, NULL, &id), WEIR_OK);
    assert_int_equal(weir_wire_server_write(w, id, WEIR_STDIN, "abc", 3), 3);
    assert_int_equal(weir_wire_server_write_end(w, id, WEIR_STDIN), WEIR_OK);
    size_t len = hex(BEGIN "01 04 00 01 00 04 00 00 01 01 41 31" PARAMS_END "01 05 00 01 00 03 00 00 \"abc\"" STDIN_END, want);
    assert_int_equal(weir_wire_server_output(w, &out), len);
    assert_memory_equal(out, want, len);
    assert_true(weir_wire_server_unsent(w, id));
    weir_wire_server_sent(w, 1);
    assert_false(weir_wire_server_unsent(w, id));
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &p, 1, NULL, &id), WEIR_LIMIT);
    weir_wire_server_free(w);
}

/* IOP-S2 */
static void a_pair_is_never_split_over_records(void **state)
{
    (void)state;
    static char big[40000];
    struct weir_wire_server *w;
    struct weir_wire_header h;
    uint16_t id;
    const void *out;
    memset(big, 'v', sizeof big);
    const struct weir_pair p[] = {{WEIR_STR("A"), {big, sizeof big}}, {WEIR_STR("B"), {big, sizeof big}}};
    const struct weir_pair too_large = {WEIR_STR("A"), {big, 65530}};
    assert_int_equal(weir_wire_server_new(&w, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, p, 2, NULL, &id), WEIR_OK);
    size_t len = weir_wire_server_output(w, &out), at = 16;
    const uint8_t *b = out;
    weir_wire_header_read(b + at, &h);
    assert_int_equal(h.len, sizeof big + 6);
    at += 8u + h.len;
    weir_wire_header_read(b + at, &h);
    assert_int_equal(h.len, sizeof big + 6);
    assert_int_equal(at + 8 + h.len + 8, len);
    weir_wire_server_free(w);
    assert_int_equal(weir_wire_server_new(&w, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &too_large, 1, NULL, &id), WEIR_INVALID);
    assert_int_equal(weir_wire_server_output(w, &out), 0);
    weir_wire_server_free(w);
}

/* ---- both ends against each other ---- */

enum { REQUESTS = 40 };
struct flow {
    uint64_t in_left, in_sent, in_got, out_left, out_sent, out_got; /* body and answer bytes */
    uint16_t id;
    bool begun, running, app_ended, ended, aborted;
};
struct pair {
    struct weir_wire_app *a;
    struct weir_wire_server *s;
    struct weir_random r;
    struct flow f[REQUESTS];
    uint64_t unread_out[REQUESTS]; /* received, not consumed */
};

static uint8_t byte_at(size_t flow, uint64_t i)
{
    return (uint8_t)(flow * 31 + i * 7);
}

static void check_bytes(size_t flow, uint64_t from, struct weir_str b)
{
    for (size_t i = 0; i < b.len; i++) assert_int_equal((uint8_t)b.ptr[i], byte_at(flow, from + i));
}

static void app_takes(struct pair *p, size_t max)
{
    const void *out;
    struct weir_wire_event ev;
    size_t n = weir_wire_server_output(p->s, &out);
    if (n > max) n = max;
    uint8_t *copy = malloc(n + 1);
    if (n) memcpy(copy, out, n);
    weir_wire_server_sent(p->s, n);
    weir_wire_app_feed(p->a, copy, n);
    while (weir_wire_app_next(p->a, &ev) == WEIR_OK) {
        struct flow *f = ev.user;
        switch (ev.type) {
        case WEIR_WIRE_EV_REQUEST:
            for (size_t i = 0; i < REQUESTS; i++)
                if (p->f[i].begun && !p->f[i].ended && p->f[i].id == ev.id) {
                    weir_wire_app_set_user(p->a, ev.id, &p->f[i]);
                    p->f[i].running = true;
                }
            break;
        case WEIR_WIRE_EV_INPUT:
            check_bytes((size_t)(f - p->f), f->in_got, ev.bytes);
            f->in_got += ev.bytes.len;
            assert_true(f->in_got <= f->in_sent);
            weir_wire_app_consumed(p->a, ev.id, ev.stream, ev.bytes.len);
            break;
        case WEIR_WIRE_EV_ABORT:
            assert_int_equal(weir_wire_app_end(p->a, ev.id, 0, 0), WEIR_OK);
            f->app_ended = true;
            break;
        case WEIR_WIRE_EV_ERROR: fail_msg("%s", ev.reason); break;
        default: break;
        }
    }
    free(copy);
}

static void server_takes(struct pair *p, size_t max, unsigned *done)
{
    const void *out;
    struct weir_wire_event ev;
    size_t n = weir_wire_app_output(p->a, &out);
    if (n > max) n = max;
    uint8_t *copy = malloc(n + 1);
    if (n) memcpy(copy, out, n);
    weir_wire_app_sent(p->a, n);
    weir_wire_server_feed(p->s, copy, n);
    while (weir_wire_server_next(p->s, &ev) == WEIR_OK) {
        struct flow *f = ev.user;
        size_t i = f ? (size_t)(f - p->f) : 0;
        switch (ev.type) {
        case WEIR_WIRE_EV_INPUT:
            check_bytes(i, f->out_got, ev.bytes);
            f->out_got += ev.bytes.len;
            p->unread_out[i] += ev.bytes.len;
            assert_in_range(p->unread_out[i], 0, 4096); /* never beyond the window that was given */
            break;
        case WEIR_WIRE_EV_END:
            f->ended = true;
            if (!f->aborted) {
                assert_int_equal(f->out_got, f->out_sent);
                assert_int_equal(f->out_left, 0);
                assert_int_equal(f->in_got, f->in_sent);
            }
            ++*done;
            break;
        case WEIR_WIRE_EV_ERROR: fail_msg("%s", ev.reason); break;
        default: break;
        }
    }
    free(copy);
}

static void some_step(struct pair *p, unsigned *done, unsigned *begun)
{
    uint8_t buf[5000];
    size_t i = weir_random_next(&p->r) % REQUESTS, len = weir_random_next(&p->r) % sizeof buf;
    struct flow *f = &p->f[i];
    switch (weir_random_next(&p->r) % 7) {
    case 0:
        if (f->begun || weir_wire_server_active(p->s) >= weir_wire_server_limit(p->s)) break;
        assert_int_equal(weir_wire_server_begin(p->s, WEIR_RESPONDER, 1, 4096, NULL, 0, f, &f->id), WEIR_OK);
        f->begun = true;
        ++*begun;
        if (f->in_left == 0) assert_int_equal(weir_wire_server_write_end(p->s, f->id, WEIR_STDIN), WEIR_OK);
        break;
    case 1: /* body */
        if (!f->begun || f->ended || f->aborted || f->in_left == 0) break;
        if (len > f->in_left) len = (size_t)f->in_left;
        for (size_t k = 0; k < len; k++) buf[k] = byte_at(i, f->in_sent + k);
        {
            int64_t n = weir_wire_server_write(p->s, f->id, WEIR_STDIN, buf, len);
            assert_true(n >= 0);
            f->in_sent += (uint64_t)n;
            f->in_left -= (uint64_t)n;
            if (n > 0 && f->in_left == 0) assert_int_equal(weir_wire_server_write_end(p->s, f->id, WEIR_STDIN), WEIR_OK);
        }
        break;
    case 2: /* answer */
        if (!f->running || f->app_ended) break;
        if (len > f->out_left) len = (size_t)f->out_left;
        for (size_t k = 0; k < len; k++) buf[k] = byte_at(i, f->out_sent + k);
        {
            int64_t n = weir_wire_app_write(p->a, f->id, WEIR_STDOUT, buf, len);
            assert_true(n >= 0);
            f->out_sent += (uint64_t)n;
            f->out_left -= (uint64_t)n;
        }
        if (f->out_left == 0 && f->in_left == 0 && f->in_got == f->in_sent) {
            assert_int_equal(weir_wire_app_end(p->a, f->id, 7, 0), WEIR_OK);
            f->app_ended = true;
        }
        break;
    case 3: /* the receiver of the answer takes some */
        if (!p->unread_out[i] || f->ended || f->aborted) break;
        if (len > p->unread_out[i]) len = (size_t)p->unread_out[i];
        weir_wire_server_consumed(p->s, f->id, WEIR_STDOUT, len);
        p->unread_out[i] -= len;
        break;
    case 4:
        if (!f->begun || f->ended || f->aborted || weir_random_next(&p->r) % 200) break;
        assert_int_equal(weir_wire_server_abort(p->s, f->id), WEIR_OK);
        f->aborted = true;
        break;
    case 5: app_takes(p, 1 + weir_random_next(&p->r) % 3000); break;
    default: server_takes(p, 1 + weir_random_next(&p->r) % 3000, done); break;
    }
}

/* FC1-3.3-i, FC1-3.3-n, FC1-5.3-a, FC1-5.3-b */
static void everything_arrives_within_its_credit_whatever_the_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        const struct weir_wire_limits limits = {.window = 3000, .requests = 9};
        struct pair p = {.r = {seed * 104729}};
        unsigned done = 0, begun = 0;
        assert_int_equal(weir_wire_app_new(&p.a, &limits), WEIR_OK);
        assert_int_equal(weir_wire_server_new(&p.s, NULL), WEIR_OK);
        assert_int_equal(weir_wire_server_ask(p.s), WEIR_OK);
        app_takes(&p, SIZE_MAX);
        server_takes(&p, SIZE_MAX, &done);
        assert_true(weir_wire_server_agreed(p.s));
        assert_int_equal(weir_wire_server_limit(p.s), 9);
        for (size_t i = 0; i < REQUESTS; i++) {
            p.f[i].in_left = weir_random_next(&p.r) % 20000;
            p.f[i].out_left = weir_random_next(&p.r) % 20000;
        }
        unsigned steps = 0;
        while (done < REQUESTS && steps++ < 3000000) some_step(&p, &done, &begun);
        if (done != REQUESTS) fail_msg("seed %llu: %u of %u requests ended", (unsigned long long)seed, done, begun);
        assert_int_equal(weir_wire_app_active(p.a), 0);
        assert_int_equal(weir_wire_server_active(p.s), 0);
        weir_wire_app_free(p.a);
        weir_wire_server_free(p.s);
    }
}

static void drain_lets_run_what_runs_and_begins_nothing(void **state)
{
    (void)state;
    struct pair p = {.r = {1}};
    unsigned done = 0;
    uint16_t id;
    assert_int_equal(weir_wire_app_new(&p.a, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_new(&p.s, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_ask(p.s), WEIR_OK);
    app_takes(&p, SIZE_MAX);
    server_takes(&p, SIZE_MAX, &done);
    p.f[0].begun = true;
    assert_int_equal(weir_wire_server_begin(p.s, WEIR_RESPONDER, 1, 4096, NULL, 0, &p.f[0], &p.f[0].id), WEIR_OK);
    weir_wire_app_drain(p.a); /* crosses BEGIN */
    server_takes(&p, SIZE_MAX, &done);
    assert_int_equal(weir_wire_server_begin(p.s, WEIR_RESPONDER, 1, 4096, NULL, 0, NULL, &id), WEIR_CLOSED);
    app_takes(&p, SIZE_MAX);
    assert_true(p.f[0].running);
    assert_int_equal(weir_wire_app_end(p.a, p.f[0].id, 0, 0), WEIR_OK);
    server_takes(&p, SIZE_MAX, &done);
    assert_int_equal(done, 1);
    assert_false(weir_wire_server_reusable(p.s));
    weir_wire_app_free(p.a);
    weir_wire_server_free(p.s);
}

/* ---- what waits to be sent, refusals, the number of requests ---- */

static void app_gives(struct weir_wire_app *w, const char *want) /* all of its output, which leaves */
{
    uint8_t bytes[4096];
    const void *out;
    size_t len = hex(want, bytes), have = weir_wire_app_output(w, &out);
    assert_int_equal(have, len);
    if (len) assert_memory_equal(out, bytes, len);
    weir_wire_app_sent(w, have);
}

static struct weir_wire_app *agreed_app(const struct weir_wire_limits *limits, struct log *l)
{
    uint8_t bytes[64];
    const void *out;
    struct weir_wire_app *w;
    assert_int_equal(weir_wire_app_new(&w, limits), WEIR_OK);
    feed_app(w, bytes, hex(ASK, bytes), l);
    weir_wire_app_sent(w, weir_wire_app_output(w, &out));
    return w;
}

static void take(struct weir_wire_app *w, const char *bytes)
{
    static struct log l;
    uint8_t in[4096];
    l = (struct log){.last = 0};
    feed_app(w, in, hex(bytes, in), &l);
}

static void credit_that_waits_to_be_sent_is_renewed(void **state)
{
    (void)state;
    const struct weir_wire_limits limits = {.window = 4};
    const void *out;
    struct log l = {.last = 0};
    struct weir_wire_app *w = agreed_app(&limits, &l);
    take(w, BEGIN_FLOW PARAMS_END "01 05 00 01 00 02 00 00 \"ab\"");
    take(w, "01 05 00 01 00 02 00 00 \"cd\""); /* taken, too */
    assert_int_equal(weir_wire_app_output(w, &out), 24);
    weir_wire_app_sent(w, 1); /* it leaves: the next one is another record */
    take(w, "01 05 00 01 00 02 00 00 \"ef\"");
    app_gives(w, "20 00 01 00 10 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 08"
                 "01 20 00 01 00 10 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 0a");
    weir_wire_app_free(w);
}

static void an_end_that_comes_after_the_program_did_something_is_no_refusal(void **state)
{
    (void)state;
    struct log l = {.last = 0};
    struct weir_wire_app *w = agreed_app(NULL, &l);
    take(w, BEGIN_FLOW PARAMS_END "01 05 00 01 00 01 00 00 61"); /* the log of this test consumes */
    assert_int_equal(weir_wire_app_end(w, 1, 0, WEIR_WIRE_OVERLOADED), WEIR_OK);
    app_gives(w, "01 06 00 01 00 00 00 00 01 03 00 01 00 08 00 00 00 00 00 00 02 46 43 01");
    take(w, BEGIN_FLOW PARAMS_END);
    assert_int_equal(weir_wire_app_end(w, 1, 0, WEIR_WIRE_OVERLOADED), WEIR_OK);
    app_gives(w, "01 03 00 01 00 08 00 00 00 00 00 00 02 46 43 01");
    weir_wire_app_free(w);
}

static void nothing_is_credited_after_an_abort(void **state)
{
    (void)state;
    const struct weir_wire_limits limits = {.window = 4};
    struct log l = {.last = 0};
    struct weir_wire_app *w = agreed_app(&limits, &l);
    take(w, BEGIN_FLOW PARAMS_END "01 02 00 01 00 00 00 00 01 05 00 01 00 04 00 00 \"abcd\"");
    weir_wire_app_consumed(w, 1, WEIR_STDIN, 4);
    app_gives(w, "");
    weir_wire_app_free(w);
}

static void the_app_changes_how_many_requests_it_takes(void **state)
{
    (void)state;
    const struct weir_wire_limits limits = {.requests = 2};
    struct log l = {.last = 0};
    struct weir_wire_app *w = agreed_app(&limits, &l);
    weir_wire_app_limit(w, 1);
    app_gives(w, "01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01");
    weir_wire_app_limit(w, 1); /* nothing new */
    app_gives(w, "");
    weir_wire_app_limit(w, 70000);
    weir_wire_app_limit(w, 3); /* the one that waits is renewed */
    app_gives(w, "01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03");
    weir_wire_app_limit(w, 0);
    weir_wire_app_drain(w);
    weir_wire_app_limit(w, 5); /* FINAL is final */
    app_gives(w, "01 20 00 00 00 10 00 00 01 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    take(w, BEGIN_FLOW "01 01 00 02 00 08 00 00 00 01 81 01 00 00 40 00" "01 01 00 03 00 08 00 00 00 01 81 01 00 00 40 00");
    assert_int_equal(weir_wire_app_active(w), 3); /* they crossed it */
    weir_wire_app_free(w);
    app_events(ASK BEGIN_FLOW, "", AGREED);

    assert_int_equal(weir_wire_app_new(&w, &limits), WEIR_OK); /* before it was asked */
    weir_wire_app_limit(w, 0);
    take(w, ASK);
    app_gives(w, "01 0a 00 00 00 2a 00 00 11 17 \"FCGI_FLOW_CONTROLwindow=65536 requests=2\""
                 "01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    weir_wire_app_free(w);
}

/* The server's end, agreed with window=3, with one begun request whose output window is 4. */
static struct weir_wire_server *agreed_server(uint16_t *id)
{
    uint8_t in[256];
    struct weir_wire_server *w;
    struct weir_wire_event ev;
    const void *out;
    assert_int_equal(weir_wire_server_new(&w, NULL), WEIR_OK);
    assert_int_equal(weir_wire_server_ask(w), WEIR_OK);
    weir_wire_server_feed(w, in, hex("01 0a 00 00 00 29 00 00 11 16 \"FCGI_FLOW_CONTROLwindow=3 requests=9999\"", in));
    assert_int_equal(weir_wire_server_next(w, &ev), WEIR_OK);
    assert_int_equal(weir_wire_server_next(w, &ev), WEIR_AGAIN);
    assert_true(weir_wire_server_agreed(w));
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 4, NULL, 0, NULL, id), WEIR_OK);
    weir_wire_server_sent(w, weir_wire_server_output(w, &out));
    return w;
}

static void server_hears(const char *bytes, const char *events)
{
    uint8_t in[1024];
    uint16_t id;
    struct weir_wire_event ev;
    struct log l = {.last = 0};
    struct weir_wire_server *w = agreed_server(&id);
    weir_wire_server_feed(w, in, hex(bytes, in));
    while (weir_wire_server_next(w, &ev) == WEIR_OK) {
        note(&l, &ev);
        if (ev.type == WEIR_WIRE_EV_END) assert_int_equal(ev.not_run, strstr(bytes, "05 00") == NULL && ev.protocol_status);
    }
    assert_string_equal(l.text, events);
    weir_wire_server_free(w);
}

static void a_refusal_is_the_only_record_of_its_request(void **state)
{
    (void)state;
    server_hears("01 03 00 01 00 08 00 00 00 00 00 00 02 46 43 01", ";END(1,0,0,0,210,)");
    server_hears("01 20 00 01 00 10 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 09" /* credit: it took something */
                 "01 03 00 01 00 08 00 00 00 00 00 00 02 46 43 01", ";END(1,0,0,0,210,)");
}

static void mistakes_of_an_app_end_the_connection_with_a_reason(void **state)
{
    (void)state;
    server_hears("01 06 00 01 00 05 00 00 \"abcde\"", ";ERROR(0,0,0,0,0,output beyond the credit)");
    server_hears("01 20 00 01 00 0f 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,CREDIT that is too short)");
    server_hears("01 20 00 00 00 0f 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,CREDIT that is too short)");
    server_hears("01 20 00 01 00 10 00 00 05 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,credit that is not valid)");
    server_hears("01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 80 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,credit that is not valid)");
}

static void the_number_of_requests_and_final_are_taken_from_credit_on_id_0(void **state)
{
    (void)state;
    server_hears("01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", ";LIMIT(0,0,0,0,65535,)"); /* no more than ids */
    server_hears("01 20 00 00 00 10 00 00 01 01 00 00 00 00 00 00 00 00 00 00 00 00 00 07" /* FINAL is 0, and final */
                 "01 20 00 00 00 10 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 07", ";LIMIT(0,0,0,0,0,)");
    server_hears("01 20 00 00 00 10 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 07", ""); /* not on id 0 */
}

static void a_window_of_0_is_opened_when_there_is_room(void **state)
{
    (void)state;
    uint8_t want[64];
    const void *out;
    uint16_t id;
    struct weir_wire_server *w = agreed_server(&id);
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, NULL, 0, NULL, &id), WEIR_OK);
    weir_wire_server_sent(w, weir_wire_server_output(w, &out));
    weir_wire_server_set_window(w, id, WEIR_STDOUT, 256);
    weir_wire_server_consumed(w, id, WEIR_STDOUT, 0);
    size_t len = hex("01 20 00 02 00 10 00 00 06 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00", want);
    assert_int_equal(weir_wire_server_output(w, &out), len);
    assert_memory_equal(out, want, len);
    weir_wire_server_free(w);
}

static void one_output_stream_may_end_before_the_request(void **state)
{
    const struct weir_wire_limits limits = {.no_flow = 1, .reqs = 12, .conns = 34};
    uint8_t in[256], want[256];
    struct weir_wire_app *w;
    struct log l = {.last = 0};
    const void *out;
    (void)state;
    assert_int_equal(weir_wire_app_new(&w, &limits), WEIR_OK);
    assert_int_equal(weir_wire_app_write_end(w, 1, WEIR_STDERR), WEIR_INVALID);
    feed_app(w, in, hex(BEGIN PARAMS_END "01 09 00 00 00 1f 00 00 0e 00 \"FCGI_MAX_CONNS\" 0d 00 \"FCGI_MAX_REQS\"", in), &l);
    assert_int_equal(weir_wire_app_write(w, 1, WEIR_STDERR, "e", 1), 1);
    assert_int_equal(weir_wire_app_write_end(w, 1, WEIR_STDERR), WEIR_OK);
    assert_int_equal(weir_wire_app_write_end(w, 1, WEIR_STDERR), WEIR_INVALID);
    assert_int_equal(weir_wire_app_write(w, 1, WEIR_STDERR, "e", 1), WEIR_INVALID);
    assert_int_equal(weir_wire_app_write(w, 1, WEIR_STDOUT, "o", 1), 1);
    assert_int_equal(weir_wire_app_write_end(w, 1, WEIR_STDOUT), WEIR_OK);
    assert_int_equal(weir_wire_app_end(w, 1, 5, 0), WEIR_OK);
    size_t len = hex("01 0a 00 00 00 23 00 00 0e 02 \"FCGI_MAX_CONNS34\" 0d 02 \"FCGI_MAX_REQS12\" 01 07 00 01 00 01 00 00 \"e\" 01 07 00 01 00 00 00 00"
                     "01 06 00 01 00 01 00 00 \"o\" 01 06 00 01 00 00 00 00 01 03 00 01 00 08 00 00 00 00 00 05 00 00 00 00", want);
    assert_int_equal(weir_wire_app_output(w, &out), len);
    assert_memory_equal(out, want, len);
    weir_wire_app_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_that_waits_to_be_sent_is_renewed), cmocka_unit_test(an_end_that_comes_after_the_program_did_something_is_no_refusal),
        cmocka_unit_test(nothing_is_credited_after_an_abort), cmocka_unit_test(the_app_changes_how_many_requests_it_takes),
        cmocka_unit_test(a_refusal_is_the_only_record_of_its_request), cmocka_unit_test(mistakes_of_an_app_end_the_connection_with_a_reason),
        cmocka_unit_test(the_number_of_requests_and_final_are_taken_from_credit_on_id_0), cmocka_unit_test(a_window_of_0_is_opened_when_there_is_room),
        cmocka_unit_test(a_simple_request_is_read_however_it_is_split), cmocka_unit_test(management_records_are_answered),
        cmocka_unit_test(padding_of_any_size_stands_on_any_record),
        cmocka_unit_test(refusals_carry_their_status), cmocka_unit_test(mistakes_of_a_server_end_the_connection_with_a_reason),
        cmocka_unit_test(records_of_inactive_requests_are_ignored), cmocka_unit_test(pairs_straddle_records_and_use_long_lengths),
        cmocka_unit_test(answers_of_real_peers_are_read), cmocka_unit_test(asking_has_a_clear_outcome),
        cmocka_unit_test(the_bytes_of_a_request_are_exact), cmocka_unit_test(a_pair_is_never_split_over_records),
        cmocka_unit_test(everything_arrives_within_its_credit_whatever_the_order), cmocka_unit_test(drain_lets_run_what_runs_and_begins_nothing),
        cmocka_unit_test(one_output_stream_may_end_before_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

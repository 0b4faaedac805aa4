/* SPDX-License-Identifier: MIT */
/* wire: the rules of FastCGI 1.0 one by one; their ids are those of docs/fastcgi-rules.md. */
#include "wire_text.h"

#define BEGIN_2    "01 01 00 02 00 08 00 00  00 01 01 00 00 00 00 00"
#define BEGIN_LAST "01 01 00 01 00 08 00 00  00 01 00 00 00 00 00 00" /* without KEEP_CONN */
#define OUT_END    "01 06 00 01 00 00 00 00"
#define END_0      "01 03 00 01 00 08 00 00  00 00 00 00 00 00 00 00"
#define MARKED     "46 43 01" /* what we put into END's reserved bytes */

/* ---- one end, step by step ---- */

struct app {
    struct weir_wire_app *w;
    struct log l;
};

static struct app app_new(const struct weir_wire_limits *l)
{
    struct app a = {.l = {.last = 0}};
    assert_int_equal(weir_wire_app_new(&a.w, l), WEIR_OK);
    return a;
}

/* These bytes give these events. */
static void app_gets(struct app *a, const char *bytes, const char *events)
{
    uint8_t in[4096];
    size_t len = hex(bytes, in);
    a->l = (struct log){.last = 0};
    feed_app(a->w, in, len, &a->l);
    assert_string_equal(a->l.text, events);
}

static void app_says(struct app *a, const char *bytes)
{
    uint8_t want[4096];
    const void *out;
    size_t len = hex(bytes, want);
    assert_int_equal(weir_wire_app_output(a->w, &out), len);
    if (len) assert_memory_equal(out, want, len);
    weir_wire_app_sent(a->w, len);
}

static struct weir_wire_server *server_new(const struct weir_wire_limits *l)
{
    struct weir_wire_server *w;
    assert_int_equal(weir_wire_server_new(&w, l), WEIR_OK);
    return w;
}

static void server_says(struct weir_wire_server *w, const char *bytes)
{
    uint8_t want[4096];
    const void *out;
    size_t len = hex(bytes, want);
    assert_int_equal(weir_wire_server_output(w, &out), len);
    if (len) assert_memory_equal(out, want, len);
    weir_wire_server_sent(w, len);
}

static void server_gets(struct weir_wire_server *w, const char *bytes, const char *events)
{
    uint8_t in[4096];
    struct log l = {.last = 0};
    struct weir_wire_event ev;
    weir_wire_server_feed(w, in, hex(bytes, in));
    while (weir_wire_server_next(w, &ev) == WEIR_OK) note(&l, &ev);
    assert_string_equal(l.text, events);
}

static uint16_t begins(struct weir_wire_server *w, int keep)
{
    uint16_t id;
    const void *out;
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, keep, 0, NULL, 0, NULL, &id), WEIR_OK);
    weir_wire_server_sent(w, weir_wire_server_output(w, &out));
    return id;
}

/* ---- codec ---- */

/* FC1-8-a, FC1-8-b */
static void the_numbers_are_those_of_the_specification(void **state)
{
    (void)state;
    static const int is[] = {WEIR_WIRE_BEGIN_REQUEST, WEIR_WIRE_ABORT_REQUEST, WEIR_WIRE_END_REQUEST, WEIR_WIRE_PARAMS, WEIR_WIRE_STDIN, WEIR_WIRE_STDOUT,
                             WEIR_WIRE_STDERR, WEIR_WIRE_DATA, WEIR_WIRE_GET_VALUES, WEIR_WIRE_GET_VALUES_RESULT, WEIR_WIRE_UNKNOWN_TYPE};
    for (int i = 0; i < (int)WEIR_COUNT(is); i++) assert_int_equal(is[i], i + 1);
    assert_int_equal(WEIR_STDIN, WEIR_WIRE_STDIN);
    assert_int_equal(WEIR_STDOUT, WEIR_WIRE_STDOUT);
    assert_int_equal(WEIR_STDERR, WEIR_WIRE_STDERR);
    assert_int_equal(WEIR_DATA, WEIR_WIRE_DATA);
    assert_int_equal(WEIR_RESPONDER * 100 + WEIR_AUTHORIZER * 10 + WEIR_FILTER, 123);
    assert_int_equal(WEIR_WIRE_REQUEST_COMPLETE * 1000 + WEIR_WIRE_CANT_MPX_CONN * 100 + WEIR_WIRE_OVERLOADED * 10 + WEIR_WIRE_UNKNOWN_ROLE, 123);
    assert_int_equal(WEIR_WIRE_VERSION, 1);
    assert_int_equal(WEIR_WIRE_HEADER_LEN, 8);
    assert_int_equal(WEIR_WIRE_MAX_CONTENT, 65535);
    assert_int_equal(WEIR_WIRE_KEEP_CONN, 1);
}

/* FC1-3.1-a, FC1-3.3-a, FC1-3.3-f */
static void a_header_is_eight_bytes_with_the_highest_first(void **state)
{
    (void)state;
    uint8_t out[8], in[8];
    struct weir_wire_header h;
    hex("01 04 a1 b2 c3 d4 e5 00", in);
    weir_wire_header_write(out, WEIR_WIRE_PARAMS, 0xa1b2, 0xc3d4, 0xe5);
    assert_memory_equal(out, in, 8);
    in[7] = 0xff; /* reserved */
    weir_wire_header_read(in, &h);
    assert_int_equal(h.version, 1);
    assert_int_equal(h.type, 4);
    assert_int_equal(h.id, 0xa1b2);
    assert_int_equal(h.len, 0xc3d4);
    assert_int_equal(h.padding, 0xe5);
    app_events("01 01 00 01 00 08 00 ff 00 01 01 00 00 00 00 00" PARAMS_END, ";REQUEST(1,0,1,0,0,)", "");
}

/* FC1-3.3-c, FC1-3.3-d: content and padding together have more than 16 bits */
static void the_largest_record_is_taken_whole(void **state)
{
    (void)state;
    struct app a = app_new(NULL);
    size_t len = WEIR_WIRE_HEADER_LEN + 65535 + 255, got = 0;
    uint8_t *in = calloc(1, len);
    struct weir_wire_event ev;
    app_gets(&a, BEGIN PARAMS_END, ";REQUEST(1,0,1,0,0,)");
    weir_wire_header_write(in, WEIR_WIRE_STDIN, 1, 65535, 255);
    weir_wire_app_feed(a.w, in, len);
    while (weir_wire_app_next(a.w, &ev) == WEIR_OK) {
        assert_int_equal(ev.type, WEIR_WIRE_EV_INPUT);
        got += ev.bytes.len;
    }
    assert_int_equal(got, 65535);
    app_gets(&a, STDIN_END, ";INPUT_END(1,5,1,0,0,)");
    weir_wire_app_free(a.w);
    free(in);
}

/* FC1-3.4-a, FC1-3.4-b, FC1-3.4-c */
static void pairs_have_one_or_four_bytes_for_each_length_and_any_value(void **state)
{
    (void)state;
    static const size_t lens[] = {0, 1, 127, 128, 255, 256, 65536, 70000};
    char *bytes = malloc(70000);
    uint8_t *out = malloc(2 * 70000 + 8);
    for (size_t i = 0; i < 70000; i++) bytes[i] = (char)(i * 7); /* NULs, too */
    for (size_t n = 0; n < WEIR_COUNT(lens); n++) {
        for (size_t v = 0; v < WEIR_COUNT(lens); v++) {
            struct weir_str name = weir_str(bytes, lens[n]), value = weir_str(bytes, lens[v]);
            struct weir_pair p;
            size_t pos = 0, heads = (lens[n] < 128 ? 1u : 4u) + (lens[v] < 128 ? 1u : 4u), len = heads + lens[n] + lens[v];
            assert_int_equal(weir_wire_pair(NULL, name, value), len);
            assert_int_equal(weir_wire_pair(out, name, value), len);
            if (lens[n] < 128) assert_int_equal(out[0], lens[n]);
            else assert_int_equal((uint32_t)out[0] << 24 | (uint32_t)out[1] << 16 | (uint32_t)out[2] << 8 | out[3], 0x80000000u | lens[n]);
            struct weir_str all = weir_str((char *)out, len);
            assert_int_equal(weir_wire_pair_next(all, &pos, &p), WEIR_OK);
            assert_true(weir_str_eq(p.name, name) && weir_str_eq(p.value, value));
            assert_int_equal(weir_wire_pair_next(all, &pos, &p), WEIR_AGAIN);
            for (size_t cut = 1; cut < heads && cut < len; cut++) { /* it ends within its lengths */
                pos = 0;
                assert_int_equal(weir_wire_pair_next(weir_str((char *)out, cut), &pos, &p), WEIR_PROTOCOL);
            }
        }
    }
    assert_int_equal(weir_wire_pair(NULL, weir_str(bytes, 0x80000000u), WEIR_STR("")), 0);
    assert_int_equal(weir_wire_pair(NULL, weir_str(bytes, 0x7fffffffu), WEIR_STR("")), 0x7fffffffu + 5u);
    free(bytes);
    free(out);
}

/* ---- the application's end ---- */

/* FC1-3.3-g, FC1-3.3-h, FC1-5.4-e, FC1-5.5-b */
static void an_id_lives_from_begin_to_end_and_what_comes_behind_it_is_ignored(void **state)
{
    (void)state;
    struct app a = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END "01 05 00 01 00 01 00 00 61", ";REQUEST(1,0,1,0,0,);INPUT(1,5)a");
    assert_int_equal(weir_wire_app_active(a.w), 1);
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    assert_int_equal(weir_wire_app_active(a.w), 0);
    app_gets(&a, "01 05 00 01 00 01 00 00 62" STDIN_END "01 02 00 01 00 00 00 00 01 02 00 01 00 00 00 00" PARAMS_A1, "");
    app_says(&a, OUT_END "01 03 00 01 00 08 00 00 00 00 00 00 00" MARKED);
    app_gets(&a, BEGIN PARAMS_A1 PARAMS_END STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)");
    weir_wire_app_free(a.w);
}

/* FC1-3.3-h, FC1-3.3-o */
static void too_many_records_of_inactive_ids_end_a_connection(void **state)
{
    (void)state;
    const struct weir_wire_limits l = {.stray_records = 2};
    struct app a = app_new(&l);
    app_gets(&a, STDIN_END STDIN_END, "");
    app_gets(&a, STDIN_END, ";ERROR(0,0,0,0,0,too many records of inactive requests)");
    weir_wire_app_free(a.w);
    struct weir_wire_server *w = server_new(&l);
    server_gets(w, OUT_END END_0, "");
    server_gets(w, OUT_END, ";ERROR(0,0,0,0,0,too many records of inactive requests)");
    weir_wire_server_free(w);
}

/* IOP-A4, FC1-5.5-b: the body looks like a request, and its end comes with the next one in one piece */
static void a_body_that_nobody_read_is_skipped_by_records(void **state)
{
    (void)state;
    struct app a = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END "01 05 00 01 00 48 03 00" BEGIN_2, ";REQUEST(1,0,1,0,0,);INPUT(1,5)\1\1");
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    app_gets(&a, BEGIN_2 BEGIN_2 "01 04 00 02 00 00 00 00" "0000000000000000 0000000000000000" "000000" STDIN_END BEGIN PARAMS_END, ";REQUEST(1,0,1,0,0,)");
    weir_wire_app_free(a.w);
}

/* FC1-3.3-n, FC1-B-a: example 4 */
static void requests_may_be_interleaved(void **state)
{
    (void)state;
    const struct weir_wire_limits l = {.plain_requests = 2};
    struct app a = app_new(&l);
    app_gets(&a, BEGIN PARAMS_A1 PARAMS_END BEGIN_2 "01 04 00 02 00 04 00 00 01 01 42 32" STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)");
    assert_int_equal(weir_wire_app_write(a.w, 1, WEIR_STDOUT, "a", 1), 1);
    app_gets(&a, "01 04 00 02 00 00 00 00 01 05 00 02 00 00 00 00", ";REQUEST(2,0,1,0,0,);INPUT_END(2,5,1,0,0,)");
    assert_int_equal(weir_wire_app_write(a.w, 2, WEIR_STDOUT, "b", 1), 1);
    assert_int_equal(weir_wire_app_end(a.w, 2, 0, 0), WEIR_OK);
    assert_int_equal(weir_wire_app_write(a.w, 1, WEIR_STDOUT, "c", 1), 1);
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    app_says(&a, "01 06 00 01 00 01 00 00 61  01 06 00 02 00 01 00 00 62  01 06 00 02 00 00 00 00  01 03 00 02 00 08 00 00 00 00 00 00 00" MARKED
                 "01 06 00 01 00 01 00 00 63" OUT_END "01 03 00 01 00 08 00 00 00 00 00 00 00" MARKED);
    weir_wire_app_free(a.w);
}

/* FC1-3.3-j */
static void an_id_is_its_connections_own(void **state)
{
    (void)state;
    struct app a = app_new(NULL), b = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END, ";REQUEST(1,0,1,0,0,)");
    app_gets(&b, STDIN_END, "");
    app_gets(&b, BEGIN PARAMS_END STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)");
    assert_int_equal(weir_wire_app_end(b.w, 1, 0, 0), WEIR_OK);
    app_gets(&a, STDIN_END, ";INPUT_END(1,5,1,0,0,)");
    weir_wire_app_free(a.w);
    weir_wire_app_free(b.w);
}

/* FC1-4.1-b, FC1-4.1-c, FC1-4.1-d, FC1-4.2-a, IOP-A1, IOP-A9 */
static void management_records_may_come_within_a_stream(void **state)
{
    (void)state;
    const struct weir_wire_limits l = {.plain_requests = 7, .conns = 12};
    struct app a = app_new(&l);
    app_gets(&a, BEGIN "01 04 00 01 00 01 00 00 01", "");
    app_says(&a, "");
    app_gets(&a, "01 09 00 00 00 45 00 00 01 00 58 0e 00 \"FCGI_MAX_CONNS\" 0d 00 \"FCGI_MAX_REQS\" 01 00 59 0d 00 \"FCGI_MAX_REQS\" 0f 00 \"FCGI_MPXS_CONNS\"", "");
    app_says(&a, "01 0a 00 00 00 34 00 00 0e 02 \"FCGI_MAX_CONNS12\" 0d 01 \"FCGI_MAX_REQS7\" 0f 01 \"FCGI_MPXS_CONNS1\"");
    app_gets(&a, "01 09 00 00 00 00 00 00", "");
    app_says(&a, "01 0a 00 00 00 00 00 00");
    app_gets(&a, "01 0c 00 00 00 10 02 00" BEGIN_2 "00 00", "");
    app_says(&a, "01 0b 00 00 00 08 00 00 0c 00 00 00 00 00 00 00");
    app_gets(&a, "01 04 00 01 00 03 00 00 01 41 31" PARAMS_END "01 05 00 01 00 01 00 00 61 01 ff 00 00 00 00 00 00 01 05 00 01 00 01 00 00 62", ";REQUEST(1,0,1,0,0,);INPUT(1,5)ab");
    app_says(&a, "01 0b 00 00 00 08 00 00 ff 00 00 00 00 00 00 00");
    weir_wire_app_free(a.w);
}

/* FC1-5.1-a, FC1-5.1-b */
static void unknown_flags_and_reserved_bytes_mean_nothing(void **state)
{
    (void)state;
    app_events("01 01 01 02 00 08 00 00 00 03 7f ff ff ff ff ff 01 04 01 02 00 00 00 00", ";REQUEST(258,0,3,0,0,)", "");
    app_events("01 01 00 01 00 08 00 00 00 02 ff ff ff ff ff ff" PARAMS_END, ";REQUEST(1,0,2,0,0,)", "");
}

/* FC1-A-a, FC1-3.3-k */
static void what_only_an_application_sends_is_nothing_to_one(void **state)
{
    (void)state;
    app_events(BEGIN PARAMS_END "01 06 00 01 00 01 00 00 78" END_0 "01 0a 00 01 00 01 00 00 78 01 0c 00 01 00 01 00 00 78" STDIN_END,
               ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)", "");
    app_events("01 05 00 00 00 01 00 00 61", "", "01 0b 00 00 00 08 00 00 05 00 00 00 00 00 00 00");
}

/* FC1-5.2-b, FC1-6.1-f */
static void parameters_that_no_environment_can_hold_end_the_connection(void **state)
{
    (void)state;
    static const char *const bad[] = {"01 01 3d 31", "01 01 00 31", "01 01 41 00", "00 01 31 41", "02 00 41 3d"};
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        char text[256];
        snprintf(text, sizeof text, BEGIN "01 04 00 01 00 04 00 00 %s" PARAMS_END, bad[i]);
        app_events(text, ";ERROR(0,0,0,0,0,PARAMS that are no name-value pairs)", NULL);
    }
}

/* FC1-5.3-a, FC1-5.3-b, FC1-5.5-a, FC1-6.1-d, FC1-6.1-e, IOP-A2, FC1-B-a: examples 1 to 3 */
static void an_answer_ends_its_streams_and_then_itself(void **state)
{
    (void)state;
    struct app a = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)");
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    app_says(&a, OUT_END "01 03 00 01 00 08 00 00 00 00 00 00 00" MARKED); /* no STDERR at all */
    app_gets(&a, BEGIN PARAMS_END "01 05 00 01 00 03 00 00 01 0d 7f" STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT(1,5)\x01\x0d\x7f;INPUT_END(1,5,1,0,0,)");
    assert_int_equal(weir_wire_app_write(a.w, 1, WEIR_STDOUT, "\0\xff", 2), 2);
    assert_int_equal(weir_wire_app_write(a.w, 1, WEIR_STDERR, "e", 1), 1);
    assert_int_equal(weir_wire_app_write(a.w, 1, WEIR_STDOUT, "\n", 1), 1);
    assert_int_equal(weir_wire_app_end(a.w, 1, 0xfedcba98, 0), WEIR_OK);
    app_says(&a, "01 06 00 01 00 02 00 00 00 ff 01 07 00 01 00 01 00 00 65 01 06 00 01 00 01 00 00 0a 01 07 00 01 00 00 00 00" OUT_END
                 "01 03 00 01 00 08 00 00 fe dc ba 98 00" MARKED);
    weir_wire_app_free(a.w);
}

/* FC1-3.3-l */
static void a_stream_is_the_same_however_it_is_divided(void **state)
{
    (void)state;
    app_events(BEGIN "01 04 00 01 00 01 00 00 01 01 04 00 01 00 03 00 00 01 41 31" PARAMS_END "01 05 00 01 00 01 01 00 61 00 01 05 00 01 00 02 00 00 62 63" STDIN_END,
               ";REQUEST(1,0,1,0,0,);INPUT(1,5)abc;INPUT_END(1,5,1,0,0,)", "");
    server_events("01 06 00 01 00 01 00 00 61 01 06 00 01 00 02 00 00 62 63" OUT_END END_0, ";INPUT(1,6)abc;INPUT_END(1,6,0,0,0,);END(1,0,0,0,0,)", false);
}

/* FC1-5.4-a, FC1-5.4-b, FC1-5.4-e */
static void an_abort_is_answered_by_the_program(void **state)
{
    (void)state;
    struct app a = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END "01 05 00 01 00 01 00 00 61 01 02 00 01 00 00 00 00 01 05 00 01 00 01 00 00 62" STDIN_END "01 02 00 01 00 00 00 00",
             ";REQUEST(1,0,1,0,0,);INPUT(1,5)a;ABORT(1,0,1,0,0,)");
    app_says(&a, ""); /* not by us */
    assert_int_equal(weir_wire_app_end(a.w, 1, 5, 0), WEIR_OK);
    app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 05 00" MARKED);
    app_gets(&a, BEGIN PARAMS_A1 "01 02 00 01 00 00 00 00" PARAMS_END, ""); /* nothing runs */
    app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 00 00" MARKED);
    weir_wire_app_free(a.w);
}

/* FC1-3.5-b, FC1-3.5-c, FC1-5.5-d, FC1-5.5-f, IOP-A5 */
static void without_keep_conn_the_last_end_closes(void **state)
{
    (void)state;
    const struct weir_wire_limits two = {.plain_requests = 2};
    struct app a = app_new(NULL);
    app_gets(&a, BEGIN PARAMS_END, ";REQUEST(1,0,1,0,0,)");
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    assert_false(weir_wire_app_closing(a.w));
    app_gets(&a, BEGIN_LAST PARAMS_END, ";REQUEST(1,0,1,0,0,)");
    assert_false(weir_wire_app_closing(a.w));
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    assert_true(weir_wire_app_closing(a.w));
    weir_wire_app_free(a.w);

    a = app_new(&two); /* among others */
    app_gets(&a, BEGIN_2 "01 04 00 02 00 00 00 00" BEGIN_LAST PARAMS_END, ";REQUEST(2,0,1,0,0,);REQUEST(1,0,1,0,0,)");
    assert_int_equal(weir_wire_app_end(a.w, 1, 0, 0), WEIR_OK);
    assert_false(weir_wire_app_closing(a.w));
    app_says(&a, OUT_END "01 03 00 01 00 08 00 00 00 00 00 00 00" MARKED);
    app_gets(&a, BEGIN PARAMS_A1, ""); /* nothing new */
    app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 00 01" MARKED);
    assert_int_equal(weir_wire_app_end(a.w, 2, 0, 0), WEIR_OK);
    assert_true(weir_wire_app_closing(a.w));
    weir_wire_app_free(a.w);

    a = app_new(NULL); /* refused: a role */
    app_gets(&a, "01 01 00 01 00 08 00 00 00 04 00 00 00 00 00 00" PARAMS_A1, "");
    app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 00 03" MARKED);
    assert_true(weir_wire_app_closing(a.w));
    weir_wire_app_free(a.w);

    a = app_new(NULL); /* refused: a second one */
    app_gets(&a, BEGIN_2 "01 04 00 02 00 00 00 00" BEGIN_LAST PARAMS_A1 PARAMS_END STDIN_END, ";REQUEST(2,0,1,0,0,)");
    app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 00 01" MARKED);
    assert_false(weir_wire_app_closing(a.w));
    assert_int_equal(weir_wire_app_end(a.w, 2, 0, 0), WEIR_OK);
    assert_true(weir_wire_app_closing(a.w));
    weir_wire_app_free(a.w);
}

/* FC1-5.5-e, IOP-A5, IOP-A8 */
static void too_many_parameters_are_refused_and_their_rest_is_skipped(void **state)
{
    (void)state;
    const struct weir_wire_limits bytes = {.params_bytes = 7}, pairs = {.params_count = 1};
    const struct weir_wire_limits *const limits[] = {&bytes, &pairs};
    for (size_t i = 0; i < 2; i++) {
        struct app a = app_new(limits[i]);
        app_gets(&a, BEGIN PARAMS_A1 PARAMS_A1 PARAMS_END STDIN_END, "");
        app_says(&a, "01 03 00 01 00 08 00 00 00 00 00 00 02" MARKED);
        app_gets(&a, BEGIN PARAMS_A1 PARAMS_END STDIN_END, ";REQUEST(1,0,1,0,0,);INPUT_END(1,5,1,0,0,)");
        weir_wire_app_free(a.w);
    }
}

/* ---- the web server's end ---- */

/* FC1-4.1-a, FC1-4.1-f, FC1-3.3-e, FC1-3.3-k, FC1-4.2-b, IOP-S3, IOP-S6, IOP-S10 */
static void a_question_is_one_name_padded_and_one_at_a_time(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    assert_int_equal(weir_wire_server_ask(w), WEIR_OK);
    server_says(w, ASK);
    assert_int_equal(weir_wire_server_ask(w), WEIR_INVALID);
    assert_int_equal(weir_wire_server_ping(w), WEIR_INVALID);
    server_gets(w, "01 0a 00 00 00 00 00 00", ";VALUES(0,0,0,0,0,)");
    server_gets(w, "01 0a 00 00 00 00 00 00 01 0b 00 00 00 08 00 00 09 00 00 00 00 00 00 00 01 06 00 00 00 01 00 00 78", ""); /* unasked */
    assert_int_equal(weir_wire_server_ping(w), WEIR_OK);
    server_says(w, "01 09 00 00 00 11 08 00 0f 00 \"FCGI_MPXS_CONNS\" 00 00 00 00 00 00 00 00");
    server_gets(w, "01 0a 00 00 00 12 00 00 0f 01 \"FCGI_MPXS_CONNS0\"", ";VALUES(0,0,0,0,0,)");
    weir_wire_server_free(w);
}

/* FC1-5.1-a, FC1-5.1-b, FC1-6.1-a, FC1-6.1-e, FC1-6.4-b, IOP-S1 */
static void each_role_begins_with_its_number_and_at_least_ends_its_streams(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    uint16_t id;
    assert_int_equal(weir_wire_server_begin(w, WEIR_FILTER, 0, 9, NULL, 0, NULL, &id), WEIR_OK);
    assert_int_equal(weir_wire_server_write_end(w, id, WEIR_STDIN), WEIR_OK);
    assert_int_equal(weir_wire_server_write(w, id, WEIR_DATA, "d", 1), 1);
    assert_int_equal(weir_wire_server_write_end(w, id, WEIR_DATA), WEIR_OK);
    server_says(w, "01 01 00 01 00 08 00 00 00 03 00 00 00 00 00 00" PARAMS_END STDIN_END "01 08 00 01 00 01 00 00 64 01 08 00 01 00 00 00 00");
    server_gets(w, END_0, ";INPUT_END(1,6,0,0,0,);END(1,0,0,0,0,)");
    assert_int_equal(weir_wire_server_begin(w, WEIR_AUTHORIZER, 1, 9, NULL, 0, NULL, &id), WEIR_OK);
    server_says(w, "01 01 00 01 00 08 00 00 00 02 01 00 00 00 00 00" PARAMS_END);
    weir_wire_server_free(w);
}

/* FC1-5.3-a, IOP-S3 */
static void content_is_sent_in_records_that_every_peer_takes(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    const size_t len = 2 * WEIR_WIRE_SEND_CONTENT + 3;
    char *body = malloc(len);
    struct weir_wire_header h;
    const void *out;
    size_t got = 0;
    for (size_t i = 0; i < len; i++) body[i] = (char)(i * 31 >> 3);
    uint16_t id = begins(w, 1);
    assert_int_equal(weir_wire_server_write(w, id, WEIR_STDIN, body, len), len);
    size_t all = weir_wire_server_output(w, &out);
    for (const uint8_t *p = out, *end = p + all; p < end; p += WEIR_WIRE_HEADER_LEN + h.len) {
        weir_wire_header_read(p, &h);
        assert_int_equal(h.type, WEIR_WIRE_STDIN);
        assert_in_range(h.len, 1, WEIR_WIRE_SEND_CONTENT);
        assert_int_equal(h.padding, 0);
        assert_memory_equal(p + WEIR_WIRE_HEADER_LEN, body + got, h.len);
        got += h.len;
    }
    assert_int_equal(got, len);
    weir_wire_server_free(w);
    free(body);
}

/* FC1-3.3-i, IOP-S1 */
static void ids_begin_with_one_and_are_used_again(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    weir_wire_server_allow_plain_mpx(w, 300);
    for (uint16_t i = 1; i <= 300; i++) assert_int_equal(begins(w, 1), i);
    server_gets(w, "01 03 00 07 00 08 00 00 00 00 00 00 00 00 00 00 01 03 01 00 00 08 00 00 00 00 00 00 00 00 00 00",
                ";INPUT_END(7,6,0,0,0,);END(7,0,0,0,0,);INPUT_END(256,6,0,0,0,);END(256,0,0,0,0,)");
    unsigned two = begins(w, 1);
    two += begins(w, 1);
    assert_int_equal(two, 7 + 256);
    weir_wire_server_free(w);
}

/* FC1-5.4-c, FC1-5.4-e */
static void behind_an_abort_nothing_is_sent(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    uint16_t id = begins(w, 1);
    assert_int_equal(weir_wire_server_abort(w, id), WEIR_OK);
    assert_int_equal(weir_wire_server_abort(w, id), WEIR_OK);
    assert_int_equal(weir_wire_server_write(w, id, WEIR_STDIN, "a", 1), WEIR_INVALID);
    assert_int_equal(weir_wire_server_write_end(w, id, WEIR_STDIN), WEIR_INVALID);
    server_says(w, "01 02 00 01 00 00 00 00");
    server_gets(w, "01 06 00 01 00 01 00 00 61 01 07 00 01 00 01 00 00 61" OUT_END END_0, ";END(1,0,0,0,0,)");
    assert_int_equal(weir_wire_server_abort(w, id), WEIR_INVALID); /* its END has come */
    server_says(w, "");
    weir_wire_server_free(w);
}

/* IOP-S8, FC1-5.5-b */
static void a_connection_is_used_again_only_if_both_ends_are_done_with_it(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        bool keep, body_ends, aborts, reusable;
    } t[] = {
        {OUT_END END_0, true, true, false, true},
        {END_0, true, true, false, true},
        {OUT_END END_0, false, true, false, false},
        {OUT_END END_0, true, false, false, false},
        {"01 03 00 01 00 08 00 00 00 00 00 00 02 00 00 00", true, true, false, false},
        {END_0, true, true, true, false},
        {OUT_END, true, true, false, false},
        {END_0 "01", true, true, false, false}, /* bytes behind it */
        {"01 03 00 01 00 08 02 00 00 00 00 00 00 00 00 00 00", true, true, false, false}, /* its padding is not there yet */
        {"01 03 00 01 00 08 02 00 00 00 00 00 00 00 00 00 00 00", true, true, false, true},
    };
    for (size_t i = 0; i < WEIR_COUNT(t); i++) {
        struct weir_wire_server *w = server_new(NULL);
        uint8_t in[256];
        struct weir_wire_event ev;
        const void *out;
        assert_true(weir_wire_server_reusable(w));
        uint16_t id = begins(w, t[i].keep);
        if (t[i].body_ends) assert_int_equal(weir_wire_server_write_end(w, id, WEIR_STDIN), WEIR_OK);
        if (t[i].aborts) assert_int_equal(weir_wire_server_abort(w, id), WEIR_OK);
        weir_wire_server_sent(w, weir_wire_server_output(w, &out));
        assert_false(weir_wire_server_reusable(w));
        weir_wire_server_feed(w, in, hex(t[i].answer, in));
        while (weir_wire_server_next(w, &ev) == WEIR_OK) assert_int_not_equal(ev.type, WEIR_WIRE_EV_ERROR);
        assert_int_equal(weir_wire_server_reusable(w), t[i].reusable);
        weir_wire_server_free(w);
    }
}

/* FC1-6.1-f: at every place of short and long ones */
static void pairs_that_no_environment_can_hold_are_not_sent(void **state)
{
    (void)state;
    struct weir_wire_server *w = server_new(NULL);
    char text[40];
    uint16_t id;
    const void *out;
    for (size_t len = 1; len < sizeof text; len++) {
        for (size_t at = 0; at < len; at++) {
            struct weir_pair name = {weir_str(text, len), WEIR_STR("v")}, value = {WEIR_STR("N"), weir_str(text, len)};
            memset(text, 'x', sizeof text);
            text[at] = 0;
            assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &name, 1, NULL, &id), WEIR_INVALID);
            assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &value, 1, NULL, &id), WEIR_INVALID);
            text[at] = '=';
            assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &name, 1, NULL, &id), WEIR_INVALID);
            assert_int_equal(weir_wire_server_output(w, &out), 0);
            struct weir_wire_server *fine = server_new(NULL);
            assert_int_equal(weir_wire_server_begin(fine, WEIR_RESPONDER, 1, 0, &value, 1, NULL, &id), WEIR_OK);
            text[at] = '\x80';
            name.value = WEIR_STR("");
            weir_wire_server_allow_plain_mpx(fine, 2);
            assert_int_equal(weir_wire_server_begin(fine, WEIR_RESPONDER, 1, 0, &name, 1, NULL, &id), WEIR_OK);
            weir_wire_server_free(fine);
        }
    }
    const struct weir_pair nameless = {WEIR_STR(""), WEIR_STR("v")};
    assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, &nameless, 1, NULL, &id), WEIR_INVALID);
    weir_wire_server_free(w);
}

/* FC1-5.5-a, FC1-5.5-c, FC1-5.5-d, FC1-5.5-e, FC1-5.5-f, FC1-5.5-g */
static void the_statuses_of_an_end_are_told(void **state)
{
    (void)state;
    for (unsigned status = 0; status <= 4; status++) {
        for (unsigned answered = 0; answered < 2; answered++) {
            struct weir_wire_server *w = server_new(NULL);
            struct weir_wire_event ev;
            uint8_t in[64];
            size_t n = answered ? hex("01 06 00 01 00 01 00 00 78", in) : 0;
            begins(w, 1);
            n += hex("01 03 00 01 00 08 00 00 fe dc ba 98 00 aa bb cc", in + n);
            in[n - 4] = (uint8_t)status;
            weir_wire_server_feed(w, in, n);
            do assert_int_equal(weir_wire_server_next(w, &ev), WEIR_OK);
            while (ev.type != WEIR_WIRE_EV_END);
            assert_int_equal(ev.app_status, 0xfedcba98);
            assert_int_equal(ev.protocol_status, status);
            assert_int_equal(ev.not_run, status >= 1 && status <= 3 && !answered);
            assert_false(ev.agreed);
            assert_int_equal(weir_wire_server_active(w), 0);
            weir_wire_server_free(w);
        }
    }
}

/* FC1-6.1-c, FC1-3.3-m, FC1-3.3-b, IOP-S6, IOP-S7 */
static void streams_of_an_answer_are_read_apart_and_mistakes_end_it(void **state)
{
    (void)state;
    server_events("01 06 00 01 00 02 00 00 \"ab\" 01 07 00 01 00 01 00 00 \"e\" 01 06 00 01 00 01 00 00 \"c\" 01 07 00 01 00 00 00 00" OUT_END END_0,
                  ";INPUT(1,6)ab;INPUT(1,7)e;INPUT(1,6)c;INPUT_END(1,7,0,0,0,);INPUT_END(1,6,0,0,0,);END(1,0,0,0,0,)", false);
    server_events("01 03 00 01 00 09 00 00 00 00 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,END_REQUEST with a content that is not 8 bytes)", false);
    server_events("00 03 00 01 00 08 00 00 00 00 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,a record that is not version 1)", false);
    app_events("01 01 00 01 00 09 00 00 00 01 01 00 00 00 00 00 00", ";ERROR(0,0,0,0,0,BEGIN_REQUEST with a content that is not 8 bytes)", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_numbers_are_those_of_the_specification),
        cmocka_unit_test(a_header_is_eight_bytes_with_the_highest_first),
        cmocka_unit_test(the_largest_record_is_taken_whole),
        cmocka_unit_test(pairs_have_one_or_four_bytes_for_each_length_and_any_value),
        cmocka_unit_test(an_id_lives_from_begin_to_end_and_what_comes_behind_it_is_ignored),
        cmocka_unit_test(too_many_records_of_inactive_ids_end_a_connection),
        cmocka_unit_test(a_body_that_nobody_read_is_skipped_by_records),
        cmocka_unit_test(requests_may_be_interleaved),
        cmocka_unit_test(an_id_is_its_connections_own),
        cmocka_unit_test(management_records_may_come_within_a_stream),
        cmocka_unit_test(unknown_flags_and_reserved_bytes_mean_nothing),
        cmocka_unit_test(what_only_an_application_sends_is_nothing_to_one),
        cmocka_unit_test(parameters_that_no_environment_can_hold_end_the_connection),
        cmocka_unit_test(an_answer_ends_its_streams_and_then_itself),
        cmocka_unit_test(a_stream_is_the_same_however_it_is_divided),
        cmocka_unit_test(an_abort_is_answered_by_the_program),
        cmocka_unit_test(without_keep_conn_the_last_end_closes),
        cmocka_unit_test(too_many_parameters_are_refused_and_their_rest_is_skipped),
        cmocka_unit_test(a_question_is_one_name_padded_and_one_at_a_time),
        cmocka_unit_test(each_role_begins_with_its_number_and_at_least_ends_its_streams),
        cmocka_unit_test(content_is_sent_in_records_that_every_peer_takes),
        cmocka_unit_test(ids_begin_with_one_and_are_used_again),
        cmocka_unit_test(behind_an_abort_nothing_is_sent),
        cmocka_unit_test(a_connection_is_used_again_only_if_both_ends_are_done_with_it),
        cmocka_unit_test(pairs_that_no_environment_can_hold_are_not_sent),
        cmocka_unit_test(the_statuses_of_an_end_are_told),
        cmocka_unit_test(streams_of_an_answer_are_read_apart_and_mistakes_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

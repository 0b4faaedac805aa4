/* SPDX-License-Identifier: MIT */
/* libweir's application side by its public functions, a web server's end of a socket pair in front of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "weir/app.h"
#include "weir/wire.h"

#define BIG 1500000

struct test {
    struct weir_app *app;
    struct weir_wire_server *server;
    int fd;
    char *out;
    size_t out_len;
    int ended, protocol_status, closed;
    uint32_t app_status;
    uint16_t id;
};

static void start(struct test *t, struct weir_app_options *o)
{
    int ends[2];
    *t = (struct test){.protocol_status = -1};
    o->listen_fd = -1;
    assert_int_equal(weir_app_new(&t->app, o), WEIR_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(weir_app_adopt(t->app, ends[1]), WEIR_OK);
    t->fd = ends[0];
    assert_int_equal(weir_wire_server_new(&t->server, NULL), WEIR_OK);
    t->out = malloc(BIG * 2);
    assert_non_null(t->out);
}

static void stop(struct test *t)
{
    weir_app_free(t->app);
    weir_wire_server_free(t->server);
    close(t->fd);
    free(t->out);
}

static void ask(struct test *t, enum weir_role role)
{
    struct weir_pair p = {{"PATH_INFO", 9}, {"/x", 2}};
    assert_int_equal(weir_wire_server_begin(t->server, role, 1, 0, &p, 1, NULL, &t->id), WEIR_OK);
}

static void body(struct test *t, enum weir_stream s, const char *text)
{
    int64_t n = weir_wire_server_write(t->server, t->id, s, text, strlen(text));
    assert_int_equal(n, (int64_t)strlen(text));
    assert_int_equal(weir_wire_server_write_end(t->server, t->id, s), WEIR_OK);
}

/* What can be sent is sent, what has come is taken. */
static void exchange(struct test *t)
{
    char piece[65536];
    struct weir_wire_event ev;
    const void *p;
    size_t len = weir_wire_server_output(t->server, &p);
    ssize_t n = len ? send(t->fd, p, len, MSG_NOSIGNAL) : 0;
    if (n > 0) weir_wire_server_sent(t->server, (size_t)n);
    while ((n = recv(t->fd, piece, sizeof piece, 0)) > 0) {
        weir_wire_server_feed(t->server, piece, (size_t)n);
        while (weir_wire_server_next(t->server, &ev) == WEIR_OK) {
            if (ev.type == WEIR_WIRE_EV_INPUT && ev.stream == WEIR_STDOUT) {
                memcpy(t->out + t->out_len, ev.bytes.ptr, ev.bytes.len);
                t->out_len += ev.bytes.len;
            } else if (ev.type == WEIR_WIRE_EV_END) {
                t->ended++;
                t->app_status = ev.app_status;
                t->protocol_status = ev.protocol_status;
            }
        }
    }
    t->closed |= n == 0;
}

/* One turn of both ends; the app's event, if there is one. */
static bool turn(struct test *t, struct weir_app_event *ev)
{
    exchange(t);
    assert_int_equal(weir_app_step(t->app, 0), WEIR_OK);
    bool some = weir_app_next(t->app, ev) == WEIR_OK;
    weir_app_flush(t->app);
    exchange(t);
    return some;
}

static struct weir_app_req *until(struct test *t, enum weir_app_event_type type)
{
    struct weir_app_event ev;
    for (int i = 0; i < 1000000; i++)
        if (turn(t, &ev) && ev.type == type) return ev.req;
    fail_msg("no event %d", (int)type);
    return NULL;
}

/* A request with flow control, and this window for its output. */
static struct weir_app_req *agreed(struct test *t, uint32_t window)
{
    struct weir_app_event ev;
    struct weir_pair p = {{"PATH_INFO", 9}, {"/x", 2}};
    assert_int_equal(weir_wire_server_ask(t->server), WEIR_OK);
    for (int i = 0; i < 1000 && !weir_wire_server_agreed(t->server); i++) (void)turn(t, &ev);
    assert_true(weir_wire_server_agreed(t->server));
    assert_int_equal(weir_wire_server_begin(t->server, WEIR_RESPONDER, 1, window, &p, 1, NULL, &t->id), WEIR_OK);
    return until(t, WEIR_APP_REQUEST);
}

static void until_end(struct test *t)
{
    struct weir_app_event ev;
    int i = 0;
    for (exchange(t); !t->ended && i < 1000000; exchange(t), i++) (void)turn(t, &ev); /* the app may have sent it already */
    assert_int_equal(t->ended, 1);
}

static const char *answer(struct test *t)
{
    t->out[t->out_len] = 0;
    const char *end = strstr(t->out, "\r\n\r\n");
    return end ? end + 4 : t->out;
}

/* ---- roles ---- */

/* FC1-5.5-f, IOP-A5 */
static void a_role_that_the_program_does_not_speak_is_refused(void **state)
{
    (void)state;
    static const enum weir_role others[] = {WEIR_AUTHORIZER, WEIR_FILTER};
    for (size_t i = 0; i < 2; i++) {
        struct weir_app_options o;
        struct test t;
        weir_app_options_init(&o);
        start(&t, &o);
        ask(&t, others[i]);
        until_end(&t);
        assert_int_equal(t.protocol_status, WEIR_WIRE_UNKNOWN_ROLE);
        assert_int_equal(t.out_len, 0);
        stop(&t);
    }
}

/* FC1-6.4-b, FC1-6.4-e */
static void a_filter_reads_the_body_and_then_the_file(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    char buf[64];
    weir_app_options_init(&o);
    o.roles = WEIR_APP_ROLE_FILTER;
    start(&t, &o);
    ask(&t, WEIR_FILTER);
    struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
    assert_int_equal(weir_app_req_role(r), WEIR_FILTER);
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), WEIR_AGAIN);
    body(&t, WEIR_STDIN, "body");
    body(&t, WEIR_DATA, "file");
    until(&t, WEIR_APP_INPUT);
    until(&t, WEIR_APP_INPUT);
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, buf, 3), 3);
    assert_memory_equal(buf, "bod", 3);
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), 4);
    assert_memory_equal(buf, "file", 4);
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, buf, sizeof buf), 1);
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, buf, sizeof buf), 0);
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), 0);
    assert_int_equal(weir_app_req_read(r, WEIR_STDOUT, buf, sizeof buf), WEIR_INVALID);
    weir_app_req_end(r, 7);
    until_end(&t);
    assert_int_equal(t.app_status, 7);
    stop(&t);
}

static void a_responder_has_no_data(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    char buf[64];
    weir_app_options_init(&o);
    start(&t, &o);
    ask(&t, WEIR_RESPONDER);
    body(&t, WEIR_STDIN, "");
    struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), 0);
    weir_app_req_end(r, 0);
    until_end(&t);
    stop(&t);
}

/* ---- output ---- */

static int file_of(size_t len)
{
    char name[] = "/tmp/weir-test-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    char *bytes = malloc(len);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) bytes[i] = (char)(i * 2654435761u >> 24);
    assert_int_equal(write(fd, bytes, len), len);
    free(bytes);
    return fd;
}

static void check_file(struct test *t, size_t from, size_t len)
{
    const char *got = answer(t);
    assert_int_equal(t->out_len - (size_t)(got - t->out), len);
    for (size_t i = 0; i < len; i++)
        if (got[i] != (char)((from + i) * 2654435761u >> 24)) fail_msg("byte %zu", i);
}

static void a_file_is_the_rest_of_a_body_that_ends_behind_it(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    weir_app_options_init(&o);
    o.output_buffer = 70000;
    start(&t, &o);
    ask(&t, WEIR_RESPONDER);
    struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
    int fd = file_of(BIG), ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(weir_app_req_write_fd(r, ends[0], 0, 10), WEIR_INVALID);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(weir_app_req_write_fd(r, fd, 5, -1), WEIR_OK);
    close(fd);
    assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, "x", 1), WEIR_INVALID);
    assert_int_equal(weir_app_req_write_fd(r, 0, 0, 1) < 0, 1);
    weir_app_req_end(r, 0);
    until_end(&t);
    assert_int_equal(t.app_status, 0);
    check_file(&t, 5, BIG - 5);
    stop(&t);
}

static void a_file_that_is_shorter_than_was_said_is_no_success(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    weir_app_options_init(&o);
    start(&t, &o);
    ask(&t, WEIR_RESPONDER);
    struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
    int fd = file_of(1000);
    assert_int_equal(weir_app_req_write_fd(r, fd, 0, 2000), WEIR_OK);
    close(fd);
    weir_app_req_end(r, 0);
    until_end(&t);
    assert_int_equal(t.app_status, 1);
    check_file(&t, 0, 1000);
    stop(&t);
}

static void room_tells_what_a_write_takes(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    static char bytes[200000];
    weir_app_options_init(&o);
    o.output_buffer = 100000;
    start(&t, &o);
    ask(&t, WEIR_RESPONDER);
    struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
    assert_int_equal(weir_app_req_own_header(r), WEIR_OK);
    assert_int_equal(weir_app_req_room(r, WEIR_STDOUT), 100000);
    int64_t n = weir_app_req_write(r, WEIR_STDOUT, bytes, sizeof bytes);
    assert_int_equal(n, 100000);
    weir_app_req_end(r, 0);
    until_end(&t);
    assert_int_equal(t.out_len, 100000);
    stop(&t);
}

static void a_writer_without_credit_is_left_alone_until_some_comes(void **state)
{
    (void)state;
    static char bytes[5000];
    struct weir_app_options o;
    struct weir_app_event ev;
    struct test t;
    weir_app_options_init(&o);
    start(&t, &o);
    struct weir_app_req *r = agreed(&t, 1000);
    assert_int_equal(weir_app_req_own_header(r), WEIR_OK);
    assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, bytes, sizeof bytes), 1000);
    assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, bytes, sizeof bytes), 0);
    for (int i = 0; i < 50; i++) assert_false(turn(&t, &ev)); /* it would spin */
    assert_int_equal(t.out_len, 1000);
    weir_wire_server_consumed(t.server, t.id, WEIR_STDOUT, 1000);
    assert_ptr_equal(until(&t, WEIR_APP_ROOM), r);
    assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, bytes, 10), 10);
    weir_app_req_end(r, 0);
    until_end(&t);
    assert_int_equal(t.out_len, 1010);
    stop(&t);
}

/* Room for what is kept, and the deadline, in one turn: the program waits for the second one only. */
static void a_deadline_that_comes_with_room_for_what_is_kept_is_told(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct weir_app_event ev;
    struct test t;
    weir_app_options_init(&o);
    start(&t, &o);
    struct weir_app_req *r = agreed(&t, 100);
    assert_int_equal(weir_app_req_own_header(r), WEIR_OK);
    assert_true(weir_app_req_printf(r, WEIR_STDOUT, "%05000d", 1) >= 0);
    weir_app_req_set_deadline(r, 5);
    assert_false(turn(&t, &ev));
    usleep(20000);
    weir_wire_server_consumed(t.server, t.id, WEIR_STDOUT, 100);
    exchange(&t);
    assert_int_equal(weir_app_step(t.app, 0), WEIR_OK);
    bool told = false;
    while (weir_app_next(t.app, &ev) == WEIR_OK) told |= ev.type == WEIR_APP_DEADLINE;
    assert_true(told);
    stop(&t);
}

/* Where one connection carries plain requests, what one of them leaves unread is bounded, whatever others read. */
static void the_body_that_nobody_reads_is_bounded_beside_one_that_is_read(void **state)
{
    (void)state;
    static char bytes[32768];
    struct weir_app_options o;
    struct weir_app_event ev;
    struct test t;
    struct weir_app_req *reqs[2];
    struct weir_pair p = {{"PATH_INFO", 9}, {"/x", 2}};
    uint16_t ids[2];
    weir_app_options_init(&o);
    o.body_window = 65536;
    start(&t, &o);
    weir_wire_server_allow_plain_mpx(t.server, 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(weir_wire_server_begin(t.server, WEIR_RESPONDER, 1, 0, &p, 1, NULL, &ids[i]), WEIR_OK);
        reqs[i] = until(&t, WEIR_APP_REQUEST);
    }
    for (int i = 0; i < 100; i++) {
        (void)!weir_wire_server_write(t.server, ids[0], WEIR_STDIN, bytes, sizeof bytes);
        (void)!weir_wire_server_write(t.server, ids[1], WEIR_STDIN, bytes, sizeof bytes);
        for (int k = 0; k < 4; k++) (void)turn(&t, &ev);
        while (weir_app_req_read(reqs[1], WEIR_STDIN, bytes, sizeof bytes) > 0) {}
    }
    int64_t n, all = 0;
    while ((n = weir_app_req_read(reqs[0], WEIR_STDIN, bytes, sizeof bytes)) > 0) all += n;
    assert_in_range(all, 65536, 65536 * 3);
    stop(&t);
}

/* ---- life ---- */

static void after_its_last_request_it_drains(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    weir_app_options_init(&o);
    o.max_total = 2;
    start(&t, &o);
    for (int i = 0; i < 2; i++) {
        t.ended = 0;
        ask(&t, WEIR_RESPONDER);
        body(&t, WEIR_STDIN, "");
        struct weir_app_req *r = until(&t, WEIR_APP_REQUEST);
        assert_false(t.closed);
        assert_true(weir_app_req_printf(r, WEIR_STDOUT, "%d", i) > 0);
        weir_app_req_end(r, 0);
        until_end(&t);
    }
    until(&t, WEIR_APP_DRAINED);
    exchange(&t);
    assert_true(t.closed);
    stop(&t);
}

struct note {
    struct weir_app_req *req;
    struct weir_app *app;
    int ran;
};

static void answer_it(void *arg)
{
    struct note *n = arg;
    n->ran++;
    if (!n->req) return;
    assert_true(weir_app_req_printf(n->req, WEIR_STDOUT, "made elsewhere") > 0);
    weir_app_req_end(n->req, 0);
    n->req = NULL;
}

static void *elsewhere(void *arg)
{
    struct note *n = arg;
    assert_int_equal(weir_app_post(n->app, answer_it, n), WEIR_OK);
    return NULL;
}

static void an_answer_that_another_thread_made_comes_back_by_post(void **state)
{
    (void)state;
    struct weir_app_options o;
    struct test t;
    pthread_t thread;
    weir_app_options_init(&o);
    start(&t, &o);
    ask(&t, WEIR_RESPONDER);
    struct note n = {.req = until(&t, WEIR_APP_REQUEST), .app = t.app};
    assert_int_equal(pthread_create(&thread, NULL, elsewhere, &n), 0);
    until_end(&t);
    assert_string_equal(answer(&t), "made elsewhere");
    pthread_join(thread, NULL);
    assert_int_equal(weir_app_post(t.app, answer_it, &n), WEIR_OK);
    stop(&t);
    assert_int_equal(n.ran, 2); /* what is left runs at the end */
}

/* ---- threads ---- */

struct seen {
    int64_t read, file;
    int calls;
};

static int waits_too_long(struct weir_app_req *req, void *arg)
{
    struct seen *s = arg;
    char byte;
    s->calls++;
    weir_app_req_set_deadline(req, 1);
    s->read = weir_app_req_read(req, WEIR_STDIN, &byte, 1);
    if (weir_app_req_status(req, 504) < 0) return 9;
    return weir_app_req_printf(req, WEIR_STDOUT, "late") == 4 ? 3 : 4;
}

static int sends_file(struct weir_app_req *req, void *arg)
{
    struct seen *s = arg;
    int fd = file_of(BIG);
    s->file = weir_app_req_write_fd(req, fd, 1, -1);
    close(fd);
    return weir_app_req_write(req, WEIR_STDOUT, "x", 1) == WEIR_INVALID ? 0 : 1;
}

static void *run(void *app)
{
    assert_int_equal(weir_app_run(app), WEIR_OK);
    return NULL;
}

static void with_threads(weir_app_handler *handler, struct seen *seen, struct test *t)
{
    struct weir_app_options o;
    pthread_t thread;
    weir_app_options_init(&o);
    o.threads = 2;
    o.handler = handler;
    o.handler_arg = seen;
    start(t, &o);
    assert_int_equal(pthread_create(&thread, NULL, run, t->app), 0);
    ask(t, WEIR_RESPONDER);
    while (!t->ended) {
        exchange(t);
        usleep(200);
    }
    weir_app_drain(t->app);
    pthread_join(thread, NULL);
}

/* FC1-6.2-d, FC1-6.2-e */
static void a_handler_that_waits_is_told_its_deadline(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct test t;
    with_threads(waits_too_long, &seen, &t);
    assert_int_equal(seen.read, WEIR_TIMEOUT);
    assert_int_equal(t.app_status, 3);
    assert_string_equal(answer(&t), "late");
    stop(&t);
}

static void a_handler_sends_a_file_and_waits_for_its_reader(void **state)
{
    (void)state;
    struct seen seen = {.file = -99};
    struct test t;
    with_threads(sends_file, &seen, &t);
    assert_int_equal(seen.file, WEIR_OK);
    assert_int_equal(t.app_status, 0);
    check_file(&t, 1, BIG - 1);
    stop(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_role_that_the_program_does_not_speak_is_refused),
        cmocka_unit_test(a_filter_reads_the_body_and_then_the_file),
        cmocka_unit_test(a_responder_has_no_data),
        cmocka_unit_test(a_file_is_the_rest_of_a_body_that_ends_behind_it),
        cmocka_unit_test(a_file_that_is_shorter_than_was_said_is_no_success),
        cmocka_unit_test(room_tells_what_a_write_takes),
        cmocka_unit_test(a_writer_without_credit_is_left_alone_until_some_comes),
        cmocka_unit_test(a_deadline_that_comes_with_room_for_what_is_kept_is_told),
        cmocka_unit_test(the_body_that_nobody_reads_is_bounded_beside_one_that_is_read),
        cmocka_unit_test(after_its_last_request_it_drains),
        cmocka_unit_test(an_answer_that_another_thread_made_comes_back_by_post),
        cmocka_unit_test(a_handler_that_waits_is_told_its_deadline),
        cmocka_unit_test(a_handler_sends_a_file_and_waits_for_its_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

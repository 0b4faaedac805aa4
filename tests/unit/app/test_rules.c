/* SPDX-License-Identifier: MIT */
/* libweir's application side: the rules of FastCGI 1.0 that concern processes, sockets and programs; ids of docs/fastcgi-rules.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "weir/app.h"
#include "weir/wire.h"

/* ---- a web server's end, by hand ---- */

/* False: the other end has closed. */
static bool may_put(int fd, uint8_t type, uint16_t id, const void *content, size_t len)
{
    static uint8_t r[WEIR_WIRE_HEADER_LEN + WEIR_WIRE_MAX_CONTENT];
    weir_wire_header_write(r, type, id, (uint16_t)len, 0);
    if (len) memcpy(r + WEIR_WIRE_HEADER_LEN, content, len);
    ssize_t n = send(fd, r, WEIR_WIRE_HEADER_LEN + len, MSG_NOSIGNAL);
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
    assert_int_equal(n, WEIR_WIRE_HEADER_LEN + len);
    return true;
}

static void put(int fd, uint8_t type, uint16_t id, const void *content, size_t len)
{
    assert_true(may_put(fd, type, id, content, len));
}

static void begin(int fd, uint16_t id, uint8_t role, uint8_t flags)
{
    const uint8_t c[8] = {0, role, flags};
    put(fd, WEIR_WIRE_BEGIN_REQUEST, id, c, sizeof c);
}

static void ask(int fd, uint16_t id, uint8_t role, uint8_t flags)
{
    begin(fd, id, role, flags);
    put(fd, WEIR_WIRE_PARAMS, id, "\1\1A1\1\1B2\1\1A3\16\2CONTENT_LENGTH10", 30);
    put(fd, WEIR_WIRE_PARAMS, id, NULL, 0);
}

static struct weir_app *app_new(struct weir_app_options *o)
{
    struct weir_app *a;
    assert_int_equal(weir_app_new(&a, o), WEIR_OK);
    return a;
}

static struct weir_app_options options(void)
{
    struct weir_app_options o;
    weir_app_options_init(&o);
    o.listen_fd = -1;
    o.roles = 7;
    return o;
}

/* The next event of this app; NULL: none within so many turns of at most 1 ms. */
static struct weir_app_req *next(struct weir_app *a, enum weir_app_event_type type, int turns)
{
    struct weir_app_event ev;
    for (int i = 0; i < turns; i++) {
        assert_int_equal(weir_app_step(a, 1), WEIR_OK);
        while (weir_app_next(a, &ev) == WEIR_OK)
            if (ev.type == type) return ev.req;
        weir_app_flush(a);
    }
    return NULL;
}

static int adopted(struct weir_app *a)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(weir_app_adopt(a, ends[1]), WEIR_OK);
    return ends[0];
}

/* All that comes for some turns; -1: it was closed, before or behind. */
static ssize_t heard(struct weir_app *a, int fd, uint8_t *out, size_t room)
{
    size_t len = 0;
    for (int i = 0; i < 20; i++) {
        assert_null(next(a, WEIR_APP_REQUEST, 1));
        ssize_t n = recv(fd, out + len, room - len, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return len ? (ssize_t)len : -1;
        if (n > 0) len += (size_t)n;
    }
    return (ssize_t)len;
}

static bool is_closed(struct weir_app *a, int fd)
{
    uint8_t none[64];
    return heard(a, fd, none, sizeof none) == -1;
}

/* The protocolStatus of the END_REQUEST of id; appStatus to *app. */
static int end_of(struct weir_app *a, int fd, uint16_t id, uint32_t *app)
{
    static uint8_t in[65536];
    ssize_t n = heard(a, fd, in, sizeof in);
    for (ssize_t at = 0; at + 16 <= n;) {
        struct weir_wire_header h;
        weir_wire_header_read(in + at, &h);
        const uint8_t *c = in + at + 8;
        if (h.type == WEIR_WIRE_END_REQUEST && h.id == id) {
            *app = (uint32_t)c[0] << 24 | (uint32_t)c[1] << 16 | (uint32_t)c[2] << 8 | c[3];
            return c[4];
        }
        at += 8 + h.len + h.padding;
    }
    return -1;
}

/* ---- listening ---- */

static int listener(int family, struct sockaddr_storage *at, socklen_t *len)
{
    int fd = socket(family, SOCK_STREAM, 0);
    *at = (struct sockaddr_storage){.ss_family = (sa_family_t)family};
    *len = family == AF_UNIX ? sizeof(sa_family_t) : family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (family == AF_INET) ((struct sockaddr_in *)at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)at, *len), 0); /* unix: a name of the kernel's choice */
    assert_int_equal(listen(fd, 10), 0);
    *len = sizeof *at;
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, len), 0);
    return fd;
}

static int dial(const struct sockaddr_storage *to, socklen_t len, const char *from)
{
    int fd = socket(to->ss_family, SOCK_STREAM, 0);
    if (from) {
        struct sockaddr_in at = {.sin_family = AF_INET};
        inet_pton(AF_INET, from, &at.sin_addr);
        assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    }
    assert_int_equal(connect(fd, (const struct sockaddr *)to, len), 0);
    return fd;
}

/* Is whoever comes from there served? */
static bool lets_in(struct weir_app *a, const struct sockaddr_storage *at, socklen_t len, const char *from)
{
    static const uint8_t keep_not[8] = {0, WEIR_RESPONDER};
    int fd = dial(at, len, from);
    if (may_put(fd, WEIR_WIRE_BEGIN_REQUEST, 1, keep_not, sizeof keep_not)) (void)may_put(fd, WEIR_WIRE_PARAMS, 1, NULL, 0);
    struct weir_app_req *r = NULL;
    bool closed = false;
    for (int i = 0; i < 1000 && !r && !closed; i++) {
        char byte;
        r = next(a, WEIR_APP_REQUEST, 1);
        ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
        closed = n == 0 || (n < 0 && errno == ECONNRESET); /* without a word */
    }
    assert_true(r || closed);
    if (r) {
        uint32_t status;
        weir_app_req_end(r, 0);
        assert_int_equal(end_of(a, fd, 1, &status), WEIR_WIRE_REQUEST_COMPLETE);
    }
    close(fd);
    return r != NULL;
}

/* FC1-2.2-d, FC1-3.2-a, FC1-3.2-b, FC1-3.2-c, FC1-3.5-d: each way to accept, one connection behind the other */
static void who_may_connect_is_in_the_list_of_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *list, *from;
        int family;
        bool in_env, served;
    } t[] = {
        {NULL, "127.0.0.1", AF_INET, false, true},
        {"127.0.0.1", "127.0.0.1", AF_INET, false, true},
        {"127.0.0.1", "127.0.0.2", AF_INET, false, false},
        {"10.0.0.1, 127.0.0.2", "127.0.0.2", AF_INET, true, true},
        {"10.0.0.1,127.0.0.2", "127.0.0.3", AF_INET, true, false},
        {"127.0.0.12", "127.0.0.1", AF_INET, true, false},
        {"localhost", "127.0.0.1", AF_INET, true, false},
        {"", "127.0.0.1", AF_INET, true, true},
        {"10.0.0.1", NULL, AF_UNIX, true, true},
    };
    for (size_t i = 0; i < 2 * sizeof t / sizeof t[0]; i++) {
        size_t k = i / 2;
        struct weir_app_options o = options();
        struct sockaddr_storage at;
        socklen_t len;
        o.listen_fd = listener(t[k].family, &at, &len);
        o.flags = i % 2 ? WEIR_APP_PRIVATE_LISTEN : 0;
        if (t[k].in_env) setenv("FCGI_WEB_SERVER_ADDRS", t[k].list, 1);
        else o.server_addrs = t[k].list;
        struct weir_app *a = app_new(&o);
        unsetenv("FCGI_WEB_SERVER_ADDRS");
        for (int n = 0; n < 2; n++)
            if (lets_in(a, &at, len, t[k].from) != t[k].served) fail_msg("%s from %s", t[k].list ? t[k].list : "-", t[k].from ? t[k].from : "-");
        weir_app_free(a);
        close(o.listen_fd);
    }
}

/* FC1-2.2-e: it prints to 1 and 2, which were closed when it began */
static void a_program_without_standard_output_says_nothing_into_a_connection(void **state)
{
    (void)state;
    int ends[2], status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct weir_app_options o = options();
        struct weir_app *a;
        close(1);
        close(2);
        if (weir_app_new(&a, &o) < 0) _exit(2);
        int fd = dup(ends[1]); /* as accept() would make it */
        if (fd < 3 || weir_app_adopt(a, fd) < 0) _exit(3);
        struct weir_app_req *r = NULL;
        struct weir_app_event ev;
        while (!r) {
            if (weir_app_step(a, 1000) < 0) _exit(4);
            if (weir_app_next(a, &ev) == WEIR_OK) r = ev.req;
        }
        for (int out = 1; out <= 2; out++)
            if (write(out, "Oops!\n", 6) == 6) _exit(5);
        weir_app_req_end(r, 7);
        weir_app_flush(a);
        _exit(0);
    }
    close(ends[1]);
    ask(ends[0], 1, WEIR_RESPONDER, 1);
    uint8_t in[256];
    size_t len = 0;
    for (ssize_t n; (n = recv(ends[0], in + len, sizeof in - len, 0)) > 0;) len += (size_t)n;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(in[1], WEIR_WIRE_STDOUT);
    assert_int_equal(in[len - 16 + 1], WEIR_WIRE_END_REQUEST);
    assert_int_equal(in[len - 8 + 3], 7);
    assert_null(memmem(in, len, "Oops", 4));
    close(ends[0]);
}

/* FC1-3.2-d, FC1-3.3-j, FC1-3.3-n */
static void connections_are_served_at_once_up_to_their_limit(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    o.max_conns = 2;
    struct weir_app *a = app_new(&o);
    int one = adopted(a), two = adopted(a), more[2];
    uint32_t status;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, more), 0);
    assert_int_equal(weir_app_adopt(a, more[1]), WEIR_LIMIT);
    ask(one, 1, WEIR_RESPONDER, 1);
    struct weir_app_req *first = next(a, WEIR_APP_REQUEST, 1000);
    ask(two, 1, WEIR_RESPONDER, 1); /* the same id */
    struct weir_app_req *second = next(a, WEIR_APP_REQUEST, 1000);
    assert_true(first && second && first != second);
    weir_app_req_end(second, 2);
    assert_int_equal(end_of(a, two, 1, &status), 0);
    assert_int_equal(status, 2);
    weir_app_req_end(first, 1);
    assert_int_equal(end_of(a, one, 1, &status), 0);
    assert_int_equal(status, 1);
    weir_app_free(a);
    close(one);
    close(two);
    close(more[0]);
    close(more[1]);
}

/* ---- connections ---- */

/* FC1-4.1-e */
static void values_are_told_without_the_program(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    uint8_t in[64];
    put(fd, WEIR_WIRE_GET_VALUES, 0, "\15\0FCGI_MAX_REQS", 15);
    assert_int_equal(heard(a, fd, in, sizeof in), 8 + 17); /* which sees no request */
    assert_memory_equal(in + 8, "\15\2FCGI_MAX_REQS16", 17);
    weir_app_free(a);
    close(fd);
}

/* FC1-3.5-b, FC1-3.5-c, FC1-6.2-d, FC1-6.1-b */
static void keep_conn_tells_who_closes_and_no_body_is_waited_for(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    uint32_t status;
    for (uint8_t keep = 1; keep <= 1; keep--) {
        ask(fd, 1, WEIR_RESPONDER, keep);
        struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
        assert_non_null(r);
        assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, "x", 1), 1);
        weir_app_req_end(r, 0);
        assert_int_equal(end_of(a, fd, 1, &status), 0);
        put(fd, WEIR_WIRE_STDIN, 1, NULL, 0);
        assert_int_equal(is_closed(a, fd), !keep);
    }
    weir_app_free(a);
    close(fd);
}

/* IOP-A6: over TCP, where a close on unread bytes destroys what the other end has not read yet */
static void an_answer_before_the_end_of_the_body_arrives_whole(void **state)
{
    (void)state;
    enum { ANSWER = 200000, BODY = 60000 };
    static char bytes[ANSWER];
    struct weir_app_options o = options();
    struct sockaddr_storage at;
    socklen_t len;
    o.listen_fd = listener(AF_INET, &at, &len);
    o.flags = WEIR_APP_PRIVATE_LISTEN;
    struct weir_app *a = app_new(&o);
    int fd = dial(&at, len, NULL);
    ask(fd, 1, WEIR_RESPONDER, 0);
    put(fd, WEIR_WIRE_STDIN, 1, bytes, 10);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    assert_non_null(r);
    assert_int_equal(weir_app_req_write(r, WEIR_STDOUT, bytes, ANSWER), ANSWER);
    weir_app_req_end(r, 0);
    weir_app_flush(a);
    size_t got = 0;
    for (int i = 0; i < 20; i++) { /* the server goes on with its body, and then reads */
        put(fd, WEIR_WIRE_STDIN, 1, bytes, BODY);
        assert_null(next(a, WEIR_APP_REQUEST, 1));
    }
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) fail_msg("%s after %zu bytes", strerror(errno), got);
        if (n == 0) break;
        if (n > 0) got += (size_t)n;
        assert_null(next(a, WEIR_APP_REQUEST, 1));
    }
    assert_true(got > ANSWER);
    size_t more = 0;
    while (more < 64u << 20) { /* but not for ever */
        ssize_t n = send(fd, bytes, BODY, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) break;
        if (n > 0) more += (size_t)n;
        assert_null(next(a, WEIR_APP_REQUEST, 1));
    }
    assert_true(more < 64u << 20);
    weir_app_free(a);
    close(fd);
    close(o.listen_fd);
}

/* IOP-A7, IOP-A3, FC1-6.2-f */
static void the_end_of_a_connection_is_an_abort_and_half_a_head_is_nothing(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    char byte;
    int half = adopted(a), whole = adopted(a);
    begin(half, 1, WEIR_RESPONDER, 1);
    put(half, WEIR_WIRE_PARAMS, 1, "\1\1A1", 4);
    shutdown(half, SHUT_WR);
    assert_true(is_closed(a, half)); /* and no request was seen */
    ask(whole, 1, WEIR_RESPONDER, 1);
    put(whole, WEIR_WIRE_STDIN, 1, "some", 4);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    assert_non_null(r);
    close(whole);
    assert_ptr_equal(next(a, WEIR_APP_ABORT, 1000), r);
    assert_true(weir_app_req_aborted(r));
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, &byte, 1), WEIR_ABORTED);
    weir_app_req_end(r, 1);
    weir_app_free(a);
    close(half);
}

/* IOP-A8, FC1-3.5-c */
static void a_connection_that_asks_nothing_or_half_is_closed_in_time(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    o.idle_ms = 50;
    struct weir_app *a = app_new(&o);
    int idle = adopted(a), half = adopted(a), busy = adopted(a);
    ask(busy, 1, WEIR_RESPONDER, 1); /* all of it before the app looks */
    begin(busy, 2, WEIR_RESPONDER, 1);
    begin(half, 1, WEIR_RESPONDER, 1);
    put(half, WEIR_WIRE_PARAMS, 1, "\1\1A1", 4);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    assert_non_null(r);
    while (!is_closed(a, idle)) {} /* else the test's time ends it */
    while (!is_closed(a, half)) {}
    assert_false(is_closed(a, busy));
    weir_app_req_end(r, 0);
    weir_app_free(a);
    close(idle);
    close(half);
    close(busy);
}

/* ---- requests ---- */

/* FC1-5.4-a, FC1-5.4-b */
static void a_program_that_is_told_of_an_abort_ends_it_by_its_own_status(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    uint8_t in[64];
    uint32_t status;
    ask(fd, 1, WEIR_RESPONDER, 1);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    put(fd, WEIR_WIRE_ABORT_REQUEST, 1, NULL, 0);
    assert_ptr_equal(next(a, WEIR_APP_ABORT, 1000), r);
    assert_int_equal(heard(a, fd, in, sizeof in), 0); /* not before the program says so */
    weir_app_req_end(r, 42);
    assert_int_equal(end_of(a, fd, 1, &status), WEIR_WIRE_REQUEST_COMPLETE);
    assert_int_equal(status, 42);
    weir_app_free(a);
    close(fd);
}

/* FC1-5.5-e, IOP-A5 */
static void what_is_too_much_is_told_in_words_and_the_others_run(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    o.max_requests = 1;
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    uint8_t in[512];
    uint32_t status;
    ask(fd, 1, WEIR_RESPONDER, 1);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    ask(fd, 2, WEIR_RESPONDER, 1);
    ssize_t n = heard(a, fd, in, sizeof in);
    assert_true(n > 16 && memmem(in, (size_t)n, "Status: 503", 11));
    weir_app_req_end(r, 0);
    assert_int_equal(end_of(a, fd, 1, &status), WEIR_WIRE_REQUEST_COMPLETE);
    weir_app_free(a);
    close(fd);
}

/* FC1-5.2-a, FC1-6.2-f, FC1-6.4-f: 3 bytes of a body of 10 */
static void a_program_can_see_what_was_sent_and_what_is_missing(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    struct weir_pair p;
    char buf[16];
    ask(fd, 1, WEIR_FILTER, 1);
    put(fd, WEIR_WIRE_STDIN, 1, "abc", 3);
    put(fd, WEIR_WIRE_STDIN, 1, NULL, 0);
    put(fd, WEIR_WIRE_DATA, 1, "d", 1);
    put(fd, WEIR_WIRE_DATA, 1, NULL, 0);
    struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
    assert_string_equal(weir_app_req_param(r, "A"), "3"); /* the last one */
    static const char *const values[] = {"1", "2", "3", "10"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(weir_app_req_param_at(r, i, &p), WEIR_OK);
        assert_string_equal(p.value.ptr, values[i]);
    }
    assert_int_equal(weir_app_req_param_at(r, 4, &p), WEIR_AGAIN);
    assert_int_equal(weir_app_req_content_length(r), 10);
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, buf, sizeof buf), 3);
    assert_int_equal(weir_app_req_read(r, WEIR_STDIN, buf, sizeof buf), 0); /* its end, no abort */
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), 1);
    assert_int_equal(weir_app_req_read(r, WEIR_DATA, buf, sizeof buf), 0);
    weir_app_req_end(r, 0);
    weir_app_free(a);
    close(fd);
}

/* FC1-6.3-e, FC1-6.4-d */
static void no_role_waits_for_more_than_its_parameters(void **state)
{
    (void)state;
    struct weir_app_options o = options();
    struct weir_app *a = app_new(&o);
    int fd = adopted(a);
    uint32_t status;
    for (uint8_t role = WEIR_RESPONDER; role <= WEIR_FILTER; role++) {
        ask(fd, role, role, 1);
        struct weir_app_req *r = next(a, WEIR_APP_REQUEST, 1000);
        assert_int_equal(weir_app_req_role(r), role);
        assert_int_equal(weir_app_req_write(r, WEIR_STDERR, "e", 1), 1);
        weir_app_req_end(r, role);
        assert_int_equal(end_of(a, fd, role, &status), 0);
        assert_int_equal(status, role);
        put(fd, WEIR_WIRE_STDIN, role, NULL, 0);
    }
    weir_app_free(a);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_may_connect_is_in_the_list_of_addresses),
        cmocka_unit_test(a_program_without_standard_output_says_nothing_into_a_connection),
        cmocka_unit_test(connections_are_served_at_once_up_to_their_limit),
        cmocka_unit_test(values_are_told_without_the_program),
        cmocka_unit_test(keep_conn_tells_who_closes_and_no_body_is_waited_for),
        cmocka_unit_test(an_answer_before_the_end_of_the_body_arrives_whole),
        cmocka_unit_test(the_end_of_a_connection_is_an_abort_and_half_a_head_is_nothing),
        cmocka_unit_test(a_connection_that_asks_nothing_or_half_is_closed_in_time),
        cmocka_unit_test(a_program_that_is_told_of_an_abort_ends_it_by_its_own_status),
        cmocka_unit_test(what_is_too_much_is_told_in_words_and_the_others_run),
        cmocka_unit_test(a_program_can_see_what_was_sent_and_what_is_missing),
        cmocka_unit_test(no_role_waits_for_more_than_its_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* http: good and bad messages, each however it is split; limits; the writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "http/http.h"

/* All events of the bytes, fed in steps, as text. */
static void run(const char *bytes, size_t len, size_t step, char *out, size_t room, const struct weir_http_limits *lim)
{
    struct weir_http1 *p;
    struct weir_arena a;
    struct weir_http_event ev;
    size_t n = 0, from = 0;
    char held[65536];
    size_t held_len = 0;
    bool body = false;
    weir_arena_init(&a, 1u << 20);
    assert_int_equal(weir_http1_new(&p, lim), WEIR_OK);
    weir_http1_expect(p, &a);
    out[0] = 0;
    while (from < len) {
        size_t take = len - from < step ? len - from : step;
        assert_true(held_len + take <= sizeof held);
        memcpy(held + held_len, bytes + from, take);
        held_len += take;
        from += take;
        for (bool more = true; more;) {
            more = false;
            char *exact = malloc(held_len + 1);
            memcpy(exact, held, held_len);
            weir_http1_feed(p, exact, held_len);
            while (weir_http1_next(p, &ev) == WEIR_OK) {
                const struct weir_http_request *r = weir_http1_request(p);
                if (ev.type == WEIR_HTTP_EV_BODY) {
                    n += (size_t)snprintf(out + n, room - n, "%s%.*s", body ? "" : " body:", (int)ev.bytes.len, ev.bytes.ptr);
                    body = true;
                    continue;
                }
                body = false;
                if (ev.type == WEIR_HTTP_EV_ERROR) n += (size_t)snprintf(out + n, room - n, " %d %s", ev.status, ev.reason);
                if (ev.type == WEIR_HTTP_EV_HEAD)
                    n += (size_t)snprintf(out + n, room - n, " %.*s %.*s host=%.*s fields=%zu length=%lld keep=%d%s", (int)r->method.len, r->method.ptr,
                                          (int)r->path_query.len, r->path_query.ptr, (int)r->host.len, r->host.ptr ? r->host.ptr : "",
                                          r->header_count, (long long)r->content_length, r->keep_alive, r->expect_continue ? " expect" : "");
                if (ev.type == WEIR_HTTP_EV_END) {
                    n += (size_t)snprintf(out + n, room - n, " end%s", r->trailer_count ? "+trailer" : "");
                    weir_http1_expect(p, &a);
                    break;
                }
            }
            size_t used = weir_http1_consumed(p);
            more = used > 0 && used < held_len && ev.type == WEIR_HTTP_EV_END;
            memmove(held, held + used, held_len - used);
            held_len -= used;
            free(exact);
        }
    }
    weir_http1_free(p);
    weir_arena_fini(&a);
}

static void same_for_all_splits(const char *bytes, size_t len, const char *want)
{
    char got[4096];
    for (size_t step = len; step >= 1; step = step > 9 ? step / 2 : step - 1) {
        run(bytes, len, step, got, sizeof got, NULL);
        assert_string_equal(got, want);
    }
}

#define H "Host: a\r\n"
static const struct {
    const char *bytes, *events;
} cases[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", " GET / host=a fields=1 length=-1 keep=1 end"},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", " GET / host=a fields=1 length=-1 keep=1 end"},
    {"GET /x?y HTTP/1.0\r\n\r\n", " GET /x?y host= fields=0 length=-1 keep=0 end"},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", " GET / host= fields=1 length=-1 keep=1 end"},
    {"GET / HTTP/1.1\r\n" H "Connection: x, close\r\n\r\n", " GET / host=a fields=2 length=-1 keep=0 end"},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\n" H "\r\n",
     " POST / host=a fields=2 length=5 keep=1 body:hello end GET /2 host=a fields=1 length=-1 keep=1 end"},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
     " POST / host=a fields=2 length=-1 keep=1 body:abc0123456789 end+trailer"},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nExpect: 100-continue\r\n\r\nx", " POST / host=a fields=3 length=1 keep=1 expect body:x end"},
    {"GET http://b:80/p?q HTTP/1.1\r\n" H "\r\n", " GET /p?q host=b:80 fields=1 length=-1 keep=1 end"},
    {"GET http://b?q HTTP/1.1\r\n" H "\r\n", " GET /?q host=b fields=1 length=-1 keep=1 end"},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", " OPTIONS * host=a fields=1 length=-1 keep=1 end"},
    {"GET / HTTP/1.1\r\n" H "X:\t a b \t\r\n\r\n", " GET / host=a fields=2 length=-1 keep=1 end"},
    {"GET / HTTP/1.1\nHost: a\n\n", " 400 a line that ends in LF without CR"},
    {"GET / HTTP/1.1\r\n" H "A: b\rc\r\n\r\n", " 400 a bare CR"},
    {"GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", " 400 a folded header line"},
    {"GET / HTTP/1.1\r\n" H "A : b\r\n\r\n", " 400 a blank before the colon"},
    {"GET / HTTP/1.1\r\n" H ": b\r\n\r\n", " 400 a header name that is no token"},
    {"GET / HTTP/1.1\r\n" H "A\r\n\r\n", " 400 a header line without a colon"},
    {"GET / HTTP/1.1\r\n" H "A: \x01\r\n\r\n", " 400 a control byte in a header value"},
    {"GET / HTTP/1.1\r\n\r\n", " 400 HTTP/1.1 without Host"},
    {"GET / HTTP/1.1\r\n" H H "\r\n", " 400 more than one Host"},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", " 400 a Host that is not valid"},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", " 400 more than one Content-Length"},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\n", " 400 a Content-Length that is no number"},
    {"GET / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", " 400 a Content-Length that is no number"},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", " 400 a Content-Length that is no number"},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", " 400 Content-Length beside Transfer-Encoding"},
    {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", " 400 Transfer-Encoding in HTTP/1.0"},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", " 501 a transfer coding that is not known here"},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n", " 400 a coding behind chunked"},
    {"GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked,\r\n\r\n", " 400 a Transfer-Encoding that does not end"},
    {"GET / HTTP/1.1\r\n" H "Expect: x\r\n\r\n", " 417 an expectation that is not known here"},
    {"GET  / HTTP/1.1\r\n", " 400 a target that is not visible ASCII"},
    {"GET /\x80 HTTP/1.1\r\n", " 400 a target that is not visible ASCII"},
    {"GET / HTTP/1.1 \r\n", " 400 not an HTTP version"},
    {"GET / http/1.1\r\n", " 400 not an HTTP version"},
    {"GET / HTTP/2.0\r\n", " 505 only HTTP/1.0 and HTTP/1.1 are spoken here"},
    {"GET /\r\n", " 400 a request line without a version"},
    {"G@T / HTTP/1.1\r\n", " 400 a method that is no token"},
    {"CONNECT a:1 HTTP/1.1\r\n", " 501 CONNECT is not served"},
    {"GET * HTTP/1.1\r\n", " 400 the target * is for OPTIONS"},
    {"GET x HTTP/1.1\r\n", " 400 a target that is neither a path nor a URL"},
    {"\r\n\r\n", " 400 empty lines instead of a request"},
    {"GET /a#b HTTP/1.1\r\n", " 400 a target with a fragment"},
    {"GET http://u@a/ HTTP/1.1\r\n", " 400 a URL without a valid host"},
    {"GET / HTTP/1.1\r\n" H "Authorization: a\r\nAuthorization: a\r\n\r\n", " 400 more than one Authorization"},
    {"GET / HTTP/1.1\r\n" H "Content-Type: a\r\nContent-Type: b\r\n\r\n", " 400 more than one Content-Type"},
    {"garbage\r\n", " 400 not an HTTP request line"},
};
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD " POST / host=a fields=2 length=-1 keep=1"
static const struct {
    const char *body, *events;
} chunks[] = {
    {"x\r\n", " 400 a chunk without a size"}, {"1 \r\n", " 400 a chunk size that is no number"}, {"\r\n", " 400 a chunk without a size"},
    {"-1\r\n", " 400 a chunk without a size"}, {"0x1\r\n", " 400 a chunk size that is no number"},
    {"1111111111111111\r\n", " 400 a chunk size that is too large"}, {"1\nx", " 400 a line that ends in LF without CR"},
    {"1\r\nxy\r\n", " body:x 400 a chunk that is longer than its size"}, {"1;\x01\r\n", " 400 a control byte in a chunk extension"},
    {"1;a=\"\r\n", " 400 a chunk extension that does not end"}, {"1;a=\"\\\"\r\n", " 400 a chunk extension that does not end"},
    {"0\r\nContent-Length: 1\r\n", " 400 a trailer that belongs into the head"}, {"0\r\nhost: b\r\n", " 400 a trailer that belongs into the head"},
    {"0\r\nTransfer-encoding: chunked\r\n", " 400 a trailer that belongs into the head"},
    {"0\r\n a: b\r\n", " 400 a folded header line"}, {"0\r\na b: c\r\n", " 400 a header name that is no token"},
};

static void messages_mean_the_same_however_they_are_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) same_for_all_splits(cases[i].bytes, strlen(cases[i].bytes), cases[i].events);
}

static void bad_chunks_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(chunks); i++) {
        char bytes[512], events[512];
        snprintf(bytes, sizeof bytes, CHUNKED "%s", chunks[i].body);
        snprintf(events, sizeof events, CHUNKED_HEAD "%s", chunks[i].events);
        same_for_all_splits(bytes, strlen(bytes), events);
    }
}

static void a_nul_is_refused(void **state)
{
    (void)state;
    static const char nul[] = "GET / HTTP/1.1\r\n" H "A: \0\r\n\r\n";
    same_for_all_splits(nul, sizeof nul - 1, " 400 a control byte in a header value");
}

static void limits_hold_exactly(void **state)
{
    (void)state;
    const struct weir_http_limits lim = {.line = 20, .head = 60, .headers = 2, .body = 4};
    char got[1024];
    static const struct {
        const char *bytes, *events;
    } t[] = {
        {"GET /1234 HTTP/1.1\r\n" H "\r\n", " GET /1234 host=a fields=1 length=-1 keep=1 end"},
        {"GET /12345 HTTP/1.1\r\n" H "\r\n", " 414 the request line is too long"},
        {"GET / HTTP/1.1\r\n" H "A: b\r\n\r\n", " GET / host=a fields=2 length=-1 keep=1 end"},
        {"GET / HTTP/1.1\r\n" H "A: b\r\nC: d\r\n\r\n", " 431 too many header fields"},
        {"GET / HTTP/1.1\r\n" H "A: 012345678901234567890123456789012345678901\r\n\r\n", " 431 the request head is too large"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nabcd", " POST / host=a fields=2 length=4 keep=1 body:abcd end"},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nabcde", " POST / host=a fields=2 length=5 keep=1 413 the request body is larger than allowed"},
        {CHUNKED "5\r\nabcde\r\n", CHUNKED_HEAD " 413 the request body is larger than allowed"},
    };
    for (size_t i = 0; i < WEIR_COUNT(t); i++) {
        const struct weir_http_limits *l = &lim;
        struct weir_http_limits wide = lim;
        if (strstr(t[i].bytes, "Transfer") || strstr(t[i].bytes, "0123")) wide.head = strstr(t[i].bytes, "Transfer") ? 100 : 60, l = &wide;
        run(t[i].bytes, strlen(t[i].bytes), 1, got, sizeof got, l);
        assert_string_equal(got, t[i].events);
    }
}

static void chunk_extensions_have_a_limit_for_all_of_them(void **state)
{
    (void)state;
    const struct weir_http_limits lim = {.extensions = 12};
    char got[1024];
    run(CHUNKED "1;aa\r\nx\r\n1;aa\r\nx\r\n1;aa\r\nx\r\n1;aa\r\nx\r\n", strlen(CHUNKED) + 36, 5, got, sizeof got, &lim);
    assert_string_equal(got, CHUNKED_HEAD " body:xxxx");
    run(CHUNKED "1;aa\r\nx\r\n1;aa\r\nx\r\n1;aa\r\nx\r\n1;aa\r\nx\r\n1;a\r\n", strlen(CHUNKED) + 41, 5, got, sizeof got, &lim);
    assert_string_equal(got, CHUNKED_HEAD " body:xxxx 400 too many chunk extensions");
}

static void an_authority_is_a_host_and_perhaps_a_port(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a.b", "a.", "a-b_c~d", "A:80", "a:", "a:0", "a:65535", "127.0.0.1", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]", "xn--a"};
    static const char *const bad[] = {"", ".", ".a", "a..b", "a:b", "a:65536", "a:000080", "a:-1", "a:80:80", ":80", "u@a", "a b", "a/b", "a?b", "a#b", "a%2fb",
                                      "a,b", "a;b", "a\\b", "::1", "[::1", "::1]", "[::1]x", "[::1]:x", "[]", "[a]", "[::1%25eth0]", "[v1.a]", "\xc3\xa4", "a\tb"};
    for (size_t i = 0; i < WEIR_COUNT(good); i++) assert_true(weir_http_authority(weir_cstr(good[i])));
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) assert_false(weir_http_authority(weir_cstr(bad[i])));
    char name[257];
    memset(name, 'a', sizeof name);
    assert_true(weir_http_authority(weir_str(name, 255)));
    assert_false(weir_http_authority(weir_str(name, 256)));
}

static void heads_are_written_with_their_framing(void **state)
{
    (void)state;
    struct weir_buf b = {0};
    enum weir_http_framing f;
    bool keep;
    const struct weir_pair type = {WEIR_STR("A"), WEIR_STR("b")}, split = {WEIR_STR("A"), WEIR_STR("b\r\nC: d")}, own = {WEIR_STR("Content-length"), WEIR_STR("1")};
    struct weir_http_response r = {.status = 200, .headers = &type, .header_count = 1, .content_length = 5, .keep_alive = true, .minor = 1};
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_OK);
    assert_int_equal(weir_buf_append(&b, "", 1), WEIR_OK);
    assert_string_equal(weir_buf_ptr(&b), "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n");
    assert_true(f == WEIR_HTTP_LENGTH && keep);
    weir_buf_reset(&b, 4096);
    r.content_length = -1;
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_OK);
    assert_true(f == WEIR_HTTP_CHUNKED && keep);
    r.minor = 0;
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_OK);
    assert_true(f == WEIR_HTTP_CLOSE && !keep);
    r.status = 304;
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_OK);
    assert_true(f == WEIR_HTTP_NONE);
    r.headers = &split;
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_INVALID);
    r.headers = &own;
    assert_int_equal(weir_http1_write_head(&b, &r, &f, &keep), WEIR_INVALID);
    weir_buf_fini(&b);
}

static void dates_go_and_come(void **state)
{
    (void)state;
    char text[30];
    int64_t t;
    weir_http_date(text, 784111777);
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    static const char *const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(weir_http_date_parse(weir_cstr(forms[i]), &t), WEIR_OK);
        assert_int_equal(t, 784111777);
    }
    for (int64_t day = 0; day < 400 * 366; day += 13) {
        weir_http_date(text, day * 86400 + 3661);
        assert_int_equal(weir_http_date_parse(weir_cstr(text), &t), WEIR_OK);
        assert_int_equal(t, day * 86400 + 3661);
    }
    assert_int_equal(weir_http_date_parse(WEIR_STR("yesterday"), &t), WEIR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_mean_the_same_however_they_are_split), cmocka_unit_test(bad_chunks_are_refused), cmocka_unit_test(a_nul_is_refused),
        cmocka_unit_test(limits_hold_exactly), cmocka_unit_test(an_authority_is_a_host_and_perhaps_a_port),
        cmocka_unit_test(chunk_extensions_have_a_limit_for_all_of_them),
        cmocka_unit_test(heads_are_written_with_their_framing), cmocka_unit_test(dates_go_and_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

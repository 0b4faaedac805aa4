/* SPDX-License-Identifier: MIT */
/* cgi: paths, parameters, and what an app may say in its header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "cgi/cgi.h"

static void paths_are_decoded_once_and_resolved(void **state)
{
    (void)state;
    static const struct {
        const char *target, *path; /* path NULL: refused */
    } t[] = {{"/", "/"}, {"/a/b", "/a/b"}, {"/a//b/", "/a/b/"}, {"/a/./b/../c", "/a/c"}, {"/%41%2e", "/A."}, {"/a?b%00", "/a"},
             {"/a/..", "/"}, {"/a/%2e%2e/b", "/b"}, {"/%252e", "/%2e"}, {"/\xc3\xa9", "/\xc3\xa9"}, {"/..", NULL}, {"/a/../..", NULL},
             {"/%2e%2e/x", NULL}, {"/%00", NULL}, {"/%0a", NULL}, {"/%7f", NULL}, {"/%2f", NULL}, {"/%5c", NULL}, {"/\\", NULL}, {"/%", NULL},
             {"/%4", NULL}, {"/%zz", NULL}, {"a", NULL}, {"", NULL}};
    for (size_t i = 0; i < WEIR_COUNT(t); i++) {
        struct weir_arena a;
        struct weir_cgi_path p;
        const char *why;
        weir_arena_init(&a, 0);
        int status = weir_cgi_path_parse(weir_cstr(t[i].target), &a, &p, &why);
        assert_int_equal(status, t[i].path ? WEIR_OK : WEIR_INVALID);
        if (t[i].path) assert_string_equal(p.path.ptr, t[i].path);
        weir_arena_fini(&a);
    }
}

static void scripts_are_split_on_bytes(void **state)
{
    (void)state;
    struct weir_str php = WEIR_STR(".php");
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.php"), php, 0), 6);
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.php/x.php"), php, 0), 6);
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.php/x.php"), php, 6), 12);
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.php/x.php"), php, 12), 0);
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.phpx"), php, 0), 0);
    assert_int_equal(weir_cgi_split_next(WEIR_STR("/a.PHP"), php, 0), 0);
    assert_int_equal(weir_cgi_split_next(WEIR_STR(".ph"), php, 0), 0);
}

static const char *find(const struct weir_pair *p, size_t n, const char *name)
{
    static char value[256];
    const char *found = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!weir_str_eq(p[i].name, weir_cstr(name))) continue;
        assert_null(found); /* each name once */
        snprintf(value, sizeof value, "%.*s", (int)p[i].value.len, p[i].value.ptr ? p[i].value.ptr : "");
        found = value;
    }
    return found;
}

/* FC1-6.2-a, FC1-6.3-a */
static void parameters_are_what_rfc_3875_says_and_no_client_can_forge_them(void **state)
{
    (void)state;
    const struct weir_pair headers[] = {
        {WEIR_STR("Host"), WEIR_STR("a")}, {WEIR_STR("X-A"), WEIR_STR("1")}, {WEIR_STR("x-a"), WEIR_STR("2")}, {WEIR_STR("Cookie"), WEIR_STR("a=b")},
        {WEIR_STR("cookie"), WEIR_STR("c=d")}, {WEIR_STR("Proxy"), WEIR_STR("evil")}, {WEIR_STR("X_A"), WEIR_STR("evil")},
        {WEIR_STR("X.A"), WEIR_STR("evil")}, {WEIR_STR("Content-Type"), WEIR_STR("t/x")}, {WEIR_STR("Content-Length"), WEIR_STR("99")},
        {WEIR_STR("Transfer-Encoding"), WEIR_STR("chunked")}, {WEIR_STR("Connection"), WEIR_STR("x")}, {WEIR_STR("Authorization"), WEIR_STR("z")}};
    const struct weir_pair extra[] = {{WEIR_STR("APP"), WEIR_STR("1")}, {WEIR_STR("SERVER_SOFTWARE"), {NULL, 0}}, {WEIR_STR("HTTP_HOST"), WEIR_STR("b")}};
    struct weir_cgi_request r = {.method = WEIR_STR("POST"), .protocol = WEIR_STR("HTTP/1.1"), .request_uri = WEIR_STR("/s%20/x?q"), .query = WEIR_STR("q"),
                                 .document_uri = WEIR_STR("/s /x"), .document_root = WEIR_STR("/srv"), .script_name = WEIR_STR("/s "),
                                 .script_filename = WEIR_STR("/srv/s "), .path_info = WEIR_STR("/x"), .scheme = WEIR_STR("https"), .content_length = 7,
                                 .headers = headers, .header_count = WEIR_COUNT(headers), .extra = extra, .extra_count = 3};
    struct weir_arena a;
    struct weir_pair *p;
    size_t n;
    weir_arena_init(&a, 0);
    assert_int_equal(weir_cgi_params(&r, &a, &p, &n), WEIR_OK);
    assert_string_equal(find(p, n, "REQUEST_METHOD"), "POST");
    assert_string_equal(find(p, n, "CONTENT_LENGTH"), "7");
    assert_string_equal(find(p, n, "CONTENT_TYPE"), "t/x");
    assert_string_equal(find(p, n, "PATH_INFO"), "/x");
    assert_string_equal(find(p, n, "PATH_TRANSLATED"), "/srv/x");
    assert_string_equal(find(p, n, "HTTPS"), "on");
    assert_string_equal(find(p, n, "HTTP_X_A"), "1, 2");
    assert_string_equal(find(p, n, "HTTP_COOKIE"), "a=b; c=d");
    assert_string_equal(find(p, n, "HTTP_AUTHORIZATION"), "z");
    assert_string_equal(find(p, n, "HTTP_HOST"), "b");
    assert_string_equal(find(p, n, "APP"), "1");
    static const char *const never[] = {"HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "SERVER_SOFTWARE"};
    for (size_t i = 0; i < WEIR_COUNT(never); i++) assert_null(find(p, n, never[i]));
    r.path_info = weir_str(NULL, 0);
    r.content_length = -1;
    assert_int_equal(weir_cgi_params(&r, &a, &p, &n), WEIR_OK);
    assert_null(find(p, n, "PATH_INFO"));
    assert_null(find(p, n, "CONTENT_LENGTH"));
    assert_null(find(p, n, "REQUEST_ID"));
    r.request_id = WEIR_STR("abc");
    r.path_info = WEIR_STR("/x");
    r.content_length = 7;
    r.authorizer = true;
    assert_int_equal(weir_cgi_params(&r, &a, &p, &n), WEIR_OK);
    static const char *const no_authorizers[] = {"CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME", "HTTP_CONTENT_LENGTH"};
    for (size_t i = 0; i < WEIR_COUNT(no_authorizers); i++) assert_null(find(p, n, no_authorizers[i]));
    assert_string_equal(find(p, n, "REQUEST_METHOD"), "POST");
    assert_string_equal(find(p, n, "REQUEST_ID"), "abc");
    weir_arena_fini(&a);
}

/* FC1-6.1-h */
static void heads_mean_the_same_however_they_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status; /* 0: refused */
        enum weir_cgi_kind kind;
        size_t fields;
        long long length;
    } t[] = {
        {"Content-Type: a/b\r\n\r\nrest", 200, WEIR_CGI_DOCUMENT, 1, -1}, {"Content-Type: a/b\n\nrest", 200, WEIR_CGI_DOCUMENT, 1, -1},
        {"Status: 404 Not Found\r\nA: b\r\n\r\nrest", 404, WEIR_CGI_DOCUMENT, 1, -1}, {"Status: 201\r\n\r\nrest", 201, WEIR_CGI_DOCUMENT, 0, -1},
        {"Location: /x?y\r\n\r\nrest", 200, WEIR_CGI_LOCAL_REDIRECT, 1, -1}, {"Location: http://a/\r\n\r\nrest", 302, WEIR_CGI_CLIENT_REDIRECT, 1, -1},
        {"Location: //a/\r\n\r\nrest", 302, WEIR_CGI_CLIENT_REDIRECT, 1, -1}, {"Location: /x\r\nSet-Cookie: a\r\n\r\nrest", 302, WEIR_CGI_CLIENT_REDIRECT, 2, -1},
        {"Status: 301\r\nLocation: /x\r\n\r\nrest", 301, WEIR_CGI_CLIENT_REDIRECT, 1, -1},
        {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nA: b\r\n\r\nrest", 200, WEIR_CGI_DOCUMENT, 1, 4},
        {"\r\nrest", 0}, {"A b: c\r\n\r\n", 0}, {"A : c\r\n\r\n", 0}, {"A: b\r\n c\r\n\r\n", 0}, {"A: b\rc\r\n\r\n", 0}, {"A: \x01\r\n\r\n", 0}, {": b\r\n\r\n", 0},
        {"HTTP/1.1 200 OK\r\n\r\n", 0}, {"Status: 20\r\n\r\n", 0}, {"Status: 2000\r\n\r\n", 0}, {"Status: 99\r\n\r\n", 0}, {"Status: 101\r\n\r\n", 0}, {"Status: 103\r\nLink: </a>; rel=preload\r\n\r\nrest", 103, WEIR_CGI_INTERIM, 1, -1},
        {"Status: 100\r\nContent-Length: 5\r\nLocation: /x\r\n\r\nrest", 100, WEIR_CGI_INTERIM, 1, -1}, {"Status: 600\r\n\r\n", 0},
        {"Status: 200\r\nStatus: 200\r\n\r\n", 0}, {"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 0}, {"Content-Length: x\r\n\r\n", 0},
        {"Content-Length: 99999999999999999999\r\n\r\n", 0}, {"Location: /a\r\nLocation: /b\r\n\r\n", 0},
    };
    for (size_t i = 0; i < WEIR_COUNT(t); i++) {
        size_t len = strlen(t[i].bytes);
        for (size_t step = 1; step <= len; step++) {
            struct weir_arena a;
            const char *why = NULL;
            size_t used = 0, at = 0;
            int status = WEIR_AGAIN;
            weir_arena_init(&a, 0);
            struct weir_cgi_head *h = weir_cgi_head_new(&a, NULL);
            while (status == WEIR_AGAIN && at < len) {
                size_t n = len - at < step ? len - at : step;
                status = weir_cgi_head_feed(h, t[i].bytes + at, n, &used, &why);
                at += status == WEIR_OK ? used : n;
            }
            assert_int_equal(status, t[i].status ? WEIR_OK : WEIR_PROTOCOL);
            if (t[i].status) {
                const struct weir_cgi_response *r = weir_cgi_head_response(h);
                assert_string_equal(t[i].bytes + at, "rest");
                assert_int_equal(r->status, t[i].status);
                assert_int_equal(r->kind, t[i].kind);
                assert_int_equal(r->header_count, t[i].fields);
                assert_int_equal(r->content_length, t[i].length);
            } else {
                assert_non_null(why);
            }
            weir_arena_fini(&a);
        }
    }
}

static void interim_answers_come_before_the_final_one(void **state)
{
    (void)state;
    static const char bytes[] = "Status: 103 Early Hints\r\nLink: a\r\n\r\nStatus: 102\n\nContent-Type: a/b\r\nStatus: 404\r\n\r\nrest";
    const size_t len = sizeof bytes - 1;
    for (size_t step = 1; step <= len; step++) {
        struct weir_arena a;
        const char *why;
        size_t used = 0, at = 0, seen = 0;
        int statuses[3], status = WEIR_AGAIN;
        weir_arena_init(&a, 0);
        struct weir_cgi_head *h = weir_cgi_head_new(&a, NULL);
        while (at < len && seen < 3) {
            size_t n = len - at < step ? len - at : step;
            status = weir_cgi_head_feed(h, bytes + at, n, &used, &why);
            at += used;
            if (status == WEIR_AGAIN) continue;
            assert_int_equal(status, WEIR_OK);
            statuses[seen++] = weir_cgi_head_response(h)->status;
            assert_int_equal(weir_cgi_head_response(h)->header_count, seen != 2);
            if (seen < 3) weir_cgi_head_next(h);
        }
        assert_int_equal(seen, 3);
        assert_true(statuses[0] == 103 && statuses[1] == 102 && statuses[2] == 404);
        assert_string_equal(bytes + at, "rest");
        h = weir_cgi_head_new(&a, NULL);
        for (at = 0, status = WEIR_AGAIN; status == WEIR_AGAIN; at += used) {
            status = weir_cgi_head_feed_final(h, bytes + at, len - at < step ? len - at : step, &used, &why);
            assert_true(used > 0);
        }
        assert_int_equal(status, WEIR_OK);
        assert_int_equal(weir_cgi_head_response(h)->status, 404);
        assert_string_equal(bytes + at, "rest");
        weir_arena_fini(&a);
    }
}

static void interim_answers_have_limits(void **state)
{
    (void)state;
    const struct weir_cgi_head_limits lim = {.bytes = 40};
    struct weir_arena a;
    const char *why;
    size_t used;
    char many[9 * 15 + 1] = "", few[] = "Status: 103\n\nStatus: 103\n\nA: 12345678901";
    for (int i = 0; i < 9; i++) memcpy(many + i * 15, "Status: 103\r\n\r\n", 15);
    weir_arena_init(&a, 0);
    assert_int_equal(weir_cgi_head_feed_final(weir_cgi_head_new(&a, NULL), many, 8 * 15, &used, &why), WEIR_AGAIN);
    assert_int_equal(weir_cgi_head_feed_final(weir_cgi_head_new(&a, NULL), many, 9 * 15, &used, &why), WEIR_PROTOCOL);
    assert_string_equal(why, "the application sent too many interim answers");
    assert_int_equal(weir_cgi_head_feed_final(weir_cgi_head_new(&a, &lim), few, 40, &used, &why), WEIR_AGAIN);
    assert_int_equal(weir_cgi_head_feed_final(weir_cgi_head_new(&a, &lim), few, 41, &used, &why), WEIR_LIMIT);
    weir_arena_fini(&a);
}

static void the_limits_of_a_head_hold(void **state)
{
    (void)state;
    const struct weir_cgi_head_limits lim = {.bytes = 16, .fields = 1};
    struct weir_arena a;
    const char *why;
    size_t used;
    weir_arena_init(&a, 0);
    assert_int_equal(weir_cgi_head_feed(weir_cgi_head_new(&a, &lim), "A: 12345678901\r\n\r\n", 18, &used, &why), WEIR_LIMIT);
    assert_int_equal(weir_cgi_head_feed(weir_cgi_head_new(&a, &lim), "A: b\nC: d\n\n", 11, &used, &why), WEIR_LIMIT);
    assert_int_equal(weir_cgi_head_feed(weir_cgi_head_new(&a, &lim), "A: 1234567890\n\n", 15, &used, &why), WEIR_OK);
    weir_arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_decoded_once_and_resolved), cmocka_unit_test(scripts_are_split_on_bytes),
        cmocka_unit_test(parameters_are_what_rfc_3875_says_and_no_client_can_forge_them),
        cmocka_unit_test(heads_mean_the_same_however_they_are_split), cmocka_unit_test(the_limits_of_a_head_hold),
        cmocka_unit_test(interim_answers_come_before_the_final_one), cmocka_unit_test(interim_answers_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

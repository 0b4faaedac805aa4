/* SPDX-License-Identifier: MIT */
/* http: what is told of a client by others: the PROXY protocol, Forwarded, X-Forwarded-For; and by himself: credentials. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/http.h"

/* ---- the PROXY protocol ---- */

static const char *text_of(const struct weir_proxy_address *a, char *out)
{
    struct weir_net n = {.bits = 128};
    char text[WEIR_NET_TEXT];
    memcpy(n.address, a->address, 16);
    weir_net_text(&n, text);
    snprintf(out, 80, "%s %u", text, a->port);
    return out;
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define ADDRESSES4 "\x0a\x00\x00\x01\xc0\x00\x02\x09\x04\xd2\x00\x50"
#define ADDRESS6 "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07"
#define BYTES(s) {s, sizeof(s) - 1}

static const struct {
    struct weir_str bytes;
    const char *from, *to; /* NULL: the sender speaks for itself */
} fine[] = {
    {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 1234 80\r\n"), "10.0.0.1 1234", "192.0.2.9 80"},
    {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n"), "255.255.255.255 65535", "255.255.255.255 0"},
    {BYTES("PROXY TCP6 2001:db8::7 ::1 1 443\r\n"), "2001:db8::7 1", "::1 443"},
    {BYTES("PROXY TCP6 ::ffff:10.0.0.1 ::1 1 443\r\n"), "10.0.0.1 1", "::1 443"},
    {BYTES("PROXY UNKNOWN\r\n"), NULL, NULL},
    {BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"), NULL, NULL},
    {BYTES(V2 "\x21\x11\x00\x0c" ADDRESSES4), "10.0.0.1 1234", "192.0.2.9 80"},
    {BYTES(V2 "\x21\x11\x00\x13" ADDRESSES4 "\x03\x00\x04" "crc!"), "10.0.0.1 1234", "192.0.2.9 80"},
    {BYTES(V2 "\x21\x11\x00\x14" ADDRESSES4 "\x20\x00\x05\x01\x00\x00\x00\x00"), "10.0.0.1 1234", "192.0.2.9 80"}, /* of TLS */
    {BYTES(V2 "\x21\x21\x00\x24" ADDRESS6 ADDRESS6 "\x00\x01\x01\xbb"), "2001:db8::7 1", "2001:db8::7 443"},
    {BYTES(V2 "\x20\x00\x00\x00"), NULL, NULL},
    {BYTES(V2 "\x20\x11\x00\x0c" ADDRESSES4), NULL, NULL}, /* LOCAL: what follows says nothing */
    {BYTES(V2 "\x21\x00\x00\x03" "abc"), NULL, NULL},
    {BYTES(V2 "\x21\x12\x00\x0c" ADDRESSES4), NULL, NULL}, /* UDP */
    {BYTES(V2 "\x21\x31\x00\x04" "path"), NULL, NULL},
};

static void a_proxy_header_means_the_same_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(fine); i++) {
        struct weir_str b = fine[i].bytes;
        for (size_t cut = 0; cut <= b.len; cut++) { /* with the first byte of a request behind it */
            struct weir_proxy p = {0};
            char *all = malloc(b.len + 1), text[80];
            const char *why;
            size_t used = 0, more = 0;
            memcpy(all, b.ptr, b.len);
            all[b.len] = 'G';
            int status = weir_proxy_feed(&p, all, cut, &used, &why);
            assert_int_equal(used, cut);
            if (cut < b.len) {
                assert_int_equal(status, WEIR_AGAIN);
                status = weir_proxy_feed(&p, all + cut, b.len + 1 - cut, &more, &why);
            }
            assert_int_equal(status, WEIR_OK);
            assert_int_equal(used + more, b.len);
            assert_int_equal(p.known, fine[i].from != NULL);
            if (p.known) assert_string_equal(text_of(&p.from, text), fine[i].from);
            if (p.known) assert_string_equal(text_of(&p.to, text), fine[i].to);
            free(all);
        }
    }
}

static void what_is_no_proxy_header_is_refused_by_its_first_wrong_byte(void **state)
{
    (void)state;
    static const struct {
        struct weir_str bytes;
        size_t at; /* the byte that is too much, from 1 */
    } bad[] = {
        {BYTES("GET / HTTP/1.1\r\n"), 1},
        {BYTES("PUT / HTTP/1.1\r\n"), 2},
        {BYTES("\r\n\r\nx"), 5},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 1234 80\n"), 38},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 1234 80\rG"), 39},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 1234 80 \r\n"), 40},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 1234\r\n"), 36},
        {BYTES("PROXY TCP4  10.0.0.1 192.0.2.9 1234 80\r\n"), 40},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 01234 80\r\n"), 40},
        {BYTES("PROXY TCP4 10.0.0.1 192.0.2.9 65536 80\r\n"), 40},
        {BYTES("PROXY TCP4 10.0.0.256 192.0.2.9 1 80\r\n"), 38},
        {BYTES("PROXY TCP4 ::1 ::1 1 80\r\n"), 25},
        {BYTES("PROXY TCP6 10.0.0.1 ::1 1 80\r\n"), 30},
        {BYTES("PROXY TCP5 10.0.0.1 ::1 1 80\r\n"), 30},
        {BYTES("PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), 107},
        {BYTES(V2 "\x11\x11\x00\x0c"), 16},
        {BYTES(V2 "\x22\x11\x00\x0c"), 16},
        {BYTES(V2 "\x21\x11\x00\x0b"), 16},
        {BYTES(V2 "\x21\x21\x00\x23"), 16},
        {BYTES(V2 "\x21\x11\x10\x01"), 16},
        {BYTES(V2 "\x20\x00\xff\xff"), 16},
    };
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_proxy p = {0}, whole = {0};
        const char *why = NULL;
        size_t used;
        for (size_t k = 0; k < bad[i].bytes.len; k++) {
            int status = weir_proxy_feed(&p, bad[i].bytes.ptr + k, 1, &used, &why);
            assert_int_equal(status, k + 1 < bad[i].at ? WEIR_AGAIN : WEIR_PROTOCOL);
            if (status != WEIR_AGAIN) break;
        }
        assert_non_null(why);
        assert_int_equal(weir_proxy_feed(&whole, bad[i].bytes.ptr, bad[i].bytes.len, &used, &why), WEIR_PROTOCOL);
    }
}

/* ---- hops ---- */

/* All hops from the right: "ADDRESS PORT;proto;host|...", a ? for a hidden one, ! where it cannot be read. */
static void hops(const char *const *values, size_t count, bool forwarded, char *out)
{
    struct weir_pair fields[4];
    struct weir_hops h;
    struct weir_hop hop;
    int status;
    for (size_t i = 0; i < count; i++) fields[i] = (struct weir_pair){forwarded ? WEIR_STR("forwarded") : WEIR_STR("X-Forwarded-For"), weir_cstr(values[i])};
    weir_hops_init(&h, fields, count, forwarded);
    out[0] = 0;
    while ((status = weir_hops_next(&h, &hop)) == WEIR_OK) {
        char text[80];
        out += sprintf(out, "%s", hop.known ? text_of(&hop.from, text) : "?");
        if (hop.proto.len) out += sprintf(out, ";%.*s", (int)hop.proto.len, hop.proto.ptr);
        if (hop.host.len) out += sprintf(out, ";%.*s", (int)hop.host.len, hop.host.ptr);
        out += sprintf(out, "|");
    }
    sprintf(out, "%s", status == WEIR_CLOSED ? "" : "!");
}

static void hops_are_read_from_the_right(void **state)
{
    (void)state;
    static const struct {
        bool forwarded;
        const char *values[2], *want;
    } cases[] = {
        {false, {"1.2.3.4"}, "1.2.3.4 0|"},
        {false, {"1.2.3.4, 5.6.7.8:99"}, "5.6.7.8 99|1.2.3.4 0|"},
        {false, {"1.1.1.1", "2.2.2.2,3.3.3.3"}, "3.3.3.3 0|2.2.2.2 0|1.1.1.1 0|"},
        {false, {"2001:db8::1, [2001:db8::2], [2001:db8::3]:8"}, "2001:db8::3 8|2001:db8::2 0|2001:db8::1 0|"},
        {false, {"unknown, 1.2.3.4"}, "1.2.3.4 0|?|"},
        {false, {"<script>, \", 1.2.3.4"}, "1.2.3.4 0|!"},
        {false, {"1.2.3.4,"}, "!"},
        {false, {"_hidden"}, "!"},
        {false, {"1.2.3.4:"}, "!"},
        {false, {"1.2.3.4:99999"}, "!"},
        {false, {"[1.2.3.4]"}, "!"},
        {false, {"1.2.3.4 5.6.7.8"}, "!"},
        {false, {""}, ""},
        {true, {"for=1.2.3.4"}, "1.2.3.4 0|"},
        {true, {"for=\"[2001:db8:cafe::17]:4711\""}, "2001:db8:cafe::17 4711|"},
        {true, {"for=192.0.2.43, For=\"[2001:db8::7]\"; Proto=https;by=203.0.113.43;host=\"a.test:8\""}, "2001:db8::7 0;https;a.test:8|192.0.2.43 0|"},
        {true, {"for=_a1.b-c", "for=unknown;proto=http"}, "?;http|?|"},
        {true, {"proto=https"}, "?;https|"},
        {true, {"for=\"1.2.3.4:_port\""}, "1.2.3.4 0|"},
        {true, {"for=\"a, for=6.6.6.6, for=1.2.3.4"}, "1.2.3.4 0|6.6.6.6 0|!"}, /* a quote that a stranger opens swallows nothing */
        {true, {"x=\"a, b\";for=1.2.3.4"}, "1.2.3.4 0|"},
        {true, {"x=\",,,,,,,,,,,,\";for=1.2.3.4"}, "!"},
        {true, {"for=2001:db8::1"}, "!"},
        {true, {"for=1.2.3.4;for=5.6.7.8"}, "!"},
        {true, {"for=1.2.3.4;"}, "1.2.3.4 0|"},
        {true, {"for"}, "!"},
        {true, {"for="}, "!"},
        {true, {"for=\"1.2.3.4\\\"\""}, "!"},
        {true, {"for=1.2.3.4 by=x"}, "!"},
        {true, {",for=1.2.3.4"}, "1.2.3.4 0|"},
        {true, {"for=1.2.3.4,"}, "!"},
    };
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        char out[600];
        hops(cases[i].values, cases[i].values[1] ? 2 : 1, cases[i].forwarded, out);
        assert_string_equal(out, cases[i].want);
    }
}

static void the_last_value_of_a_list_is_its_nearest_writers(void **state)
{
    (void)state;
    const struct weir_pair fields[] = {{WEIR_CONST_STR("X-Forwarded-Proto"), WEIR_CONST_STR("http")}, {WEIR_CONST_STR("x-forwarded-proto"), WEIR_CONST_STR("http , https ")}};
    assert_true(weir_str_eq(weir_last_value(fields, 2, "X-Forwarded-Proto"), WEIR_STR("https")));
    assert_int_equal(weir_last_value(fields, 2, "X-Forwarded-Host").len, 0);
}

/* ---- credentials ---- */

static void credentials_are_taken_whole_or_not_at_all(void **state)
{
    (void)state;
    static const struct {
        const char *value, *user, *password; /* user NULL: refused */
    } cases[] = {
        {"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin", "open sesame"},
        {"basic   dGVzdDoxMjPCow==", "test", "123\xc2\xa3"},
        {"BASIC Og==", "", ""},
        {"Basic YTo=", "a", ""},
        {"Basic YTpiOmM=", "a", "b:c"},
        {"Basic", NULL, NULL},
        {"Basic ", NULL, NULL},
        {"BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==", NULL, NULL},
        {"Bearer YTpiOmM=", NULL, NULL},
        {"Basic YTpiOmM", NULL, NULL},
        {"Basic YTpiOmN=", NULL, NULL},      /* bits beside the last byte */
        {"Basic YTpi OmM=", NULL, NULL},
        {"Basic YTpiOmM= ", NULL, NULL},
        {"Basic YQ==", NULL, NULL},          /* no colon */
        {"Basic YToA", NULL, NULL},          /* a NUL */
        {"Basic YQo6Yg==", NULL, NULL},      /* a newline */
        {"Basic ====", NULL, NULL},
        {"Basic YTo=YTo=", NULL, NULL},
        {"Basic YT-_", NULL, NULL},
    };
    struct weir_arena a;
    weir_arena_init(&a, 0);
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_str user, password;
        int status = weir_http_basic(weir_cstr(cases[i].value), &a, &user, &password);
        assert_int_equal(status, cases[i].user ? WEIR_OK : WEIR_INVALID);
        if (status == WEIR_OK) assert_true(weir_str_eq(user, weir_cstr(cases[i].user)) && weir_str_eq(password, weir_cstr(cases[i].password)));
    }
    char long_one[2000] = "Basic ";
    for (size_t i = 6; i < sizeof long_one - 4; i++) long_one[i] = 'A';
    struct weir_str user, password;
    assert_int_equal(weir_http_basic(weir_str(long_one, 1998), &a, &user, &password), WEIR_INVALID);
    weir_arena_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_proxy_header_means_the_same_however_it_is_cut), cmocka_unit_test(what_is_no_proxy_header_is_refused_by_its_first_wrong_byte),
        cmocka_unit_test(hops_are_read_from_the_right), cmocka_unit_test(the_last_value_of_a_list_is_its_nearest_writers),
        cmocka_unit_test(credentials_are_taken_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

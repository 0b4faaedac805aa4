/* SPDX-License-Identifier: MIT */
/* Parts that clients ask for, and codings that they take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/http.h"

/* "0+5 10+1" for the ranges, "ignored" or "outside". */
static const char *ranges(const char *field, uint64_t size)
{
    static char text[512];
    struct weir_http_range list[WEIR_HTTP_RANGES_MAX];
    size_t count = 99, n = 0;
    enum weir_http_ranges kind = weir_http_ranges(weir_cstr(field), size, list, &count);
    if (kind == WEIR_HTTP_RANGES_IGNORED) return "ignored";
    if (kind == WEIR_HTTP_RANGES_OUTSIDE) return "outside";
    for (size_t i = 0; i < count; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%llu+%llu", i ? " " : "", (unsigned long long)list[i].first, (unsigned long long)list[i].len);
    return text;
}

static void ranges_are_read_as_rfc_9110_says(void **state)
{
    (void)state;
    static const struct {
        const char *field;
        uint64_t size;
        const char *want;
    } all[] = {
        {"bytes=0-499", 10000, "0+500"}, {"bytes=500-999", 10000, "500+500"}, {"bytes=-500", 10000, "9500+500"}, {"bytes=9500-", 10000, "9500+500"},
        {"bytes=0-0,-1", 10000, "0+1 9999+1"}, {"bytes= 0-0 , , 4000-4001\t", 10000, "0+1 4000+2"}, {"BYTES=0-0", 10000, "0+1"},
        {"bytes=0-", 1, "0+1"}, {"bytes=-20000", 10000, "0+10000"}, {"bytes=9999-20000", 10000, "9999+1"}, {"bytes=0-99999999999999999999999", 10, "0+10"},
        {"bytes=-99999999999999999999999", 10, "0+10"},
        {"bytes=10000-", 10000, "outside"}, {"bytes=99999999999999999999999-", 10, "outside"}, {"bytes=-0", 10000, "outside"}, {"bytes=0-", 0, "outside"}, {"bytes=-5", 0, "outside"},
        {"bytes=10-11,0-1", 10, "0+2"}, /* one of them is there */
        {"bytes=5-1", 10, "ignored"}, {"bytes=a-1", 10, "ignored"}, {"bytes=1-b", 10, "ignored"}, {"bytes=", 10, "ignored"}, {"bytes=,", 10, "ignored"}, {"bytes=-", 10, "ignored"},
        {"bytes=1", 10, "ignored"}, {"bytes", 10, "ignored"}, {"", 10, "ignored"}, {"items=0-1", 10, "ignored"}, {"bytes=0-1;x", 10, "ignored"}, {"bytes=0-1 2-3", 10, "ignored"},
        {"bytes=+1-2", 10, "ignored"}, {"bytes=1--2", 10, "ignored"}, {"bytes =0-1", 10, "ignored"}, {"bytes=0-1,x", 10, "ignored"},
    };
    for (size_t i = 0; i < WEIR_COUNT(all); i++)
        if (strcmp(ranges(all[i].field, all[i].size), all[i].want) != 0) fail_msg("%s: %s", all[i].field, ranges(all[i].field, all[i].size));
}

static void ranges_that_touch_are_one_and_the_others_keep_their_order(void **state)
{
    (void)state;
    static const char *const all[][2] = {
        {"bytes=0-9,5-20", "0+21"}, {"bytes=5-20,0-9", "0+21"}, {"bytes=0-9,10-19", "0+20"}, {"bytes=0-9,60-69", "0+70"}, {"bytes=0-9,1000-1009", "0+10 1000+10"},
        {"bytes=1000-1009,0-9", "1000+10 0+10"}, {"bytes=0-9,1000-1009,2000-2009,0-2009", "0+2010"}, {"bytes=1000-1099,0-99,100-999", "0+1100"},
        {"bytes=5000-5009,0-9,3000-3009,0-9,-1", "5000+10 0+10 3000+10 9999+1"}, {"bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", "0+1"},
        {"bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", "ignored"},
        {"bytes=2000-2009,1000-1009,3000-3009,1005-3000", "1000+2010"},
    };
    for (size_t i = 0; i < WEIR_COUNT(all); i++)
        if (strcmp(ranges(all[i][0], 10000), all[i][1]) != 0) fail_msg("%s: %s", all[i][0], ranges(all[i][0], 10000));
}

static void the_coding_is_the_one_that_a_client_prefers(void **state)
{
    (void)state;
    static const struct weir_str have[] = {WEIR_CONST_STR("br"), WEIR_CONST_STR("gzip")};
    static const struct {
        const char *accept;
        int want;
    } all[] = {
        {"gzip", 1}, {"br", 0}, {"gzip, br", 0}, {"gzip, br;q=0.9", 1}, {"br;q=0.5,gzip;q=0.501", 1}, {"GZip", 1}, {"*", 0}, {"*;q=0.1, br;q=0", 1}, {"deflate, zstd", -1},
        {"", -1}, {"gzip;q=0", -1}, {"gzip;q=0.000", -1}, {"gzip;q=0.001", 1}, {"gzip; q=1.0", 1}, {"gzip;Q=0", -1}, {"identity, gzip;q=0.5", -1}, {"identity;q=0.5, gzip;q=0.5", 1},
        {"identity;q=0, gzip", 1}, {"gzip;q=x", -1}, {"gzip;q=", -1}, {"gzip;x=y", 1}, {"gzipx", -1}, {" gzip ;q=1 , br;q=0 ", 1}, {"*;q=0, gzip", 1}, {"gzip;q=2", -1}, {",,", -1},
    };
    for (size_t i = 0; i < WEIR_COUNT(all); i++) {
        struct weir_pair f[] = {{WEIR_STR("Accept"), WEIR_STR("br")}, {WEIR_STR("accept-encoding"), weir_cstr(all[i].accept)}};
        int got = weir_http_choose_coding(f, 2, have, 2);
        if (got != all[i].want) fail_msg("%s: %d", all[i].accept, got);
    }
    struct weir_pair two[] = {{WEIR_STR("Accept-Encoding"), WEIR_STR("deflate")}, {WEIR_STR("Accept-Encoding"), WEIR_STR("gzip")}};
    assert_int_equal(weir_http_choose_coding(two, 2, have, 2), 1);
    assert_int_equal(weir_http_choose_coding(NULL, 0, have, 2), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_read_as_rfc_9110_says), cmocka_unit_test(ranges_that_touch_are_one_and_the_others_keep_their_order),
        cmocka_unit_test(the_coding_is_the_one_that_a_client_prefers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* What goes in comes out of zlib's reader, however it is cut, and all of it at a flush. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include <cmocka.h>

#include "http/http.h"

#define SIZE 300000

static char text[SIZE], got[SIZE + 1];

static void pull_all(struct weir_gzip *g, struct weir_buf *out, size_t room)
{
    char piece[20000];
    size_t n;
    while ((n = weir_gzip_pull(g, piece, room)) > 0) assert_int_equal(weir_buf_append(out, piece, n), WEIR_OK);
}

/* How many bytes a reader knows of what came so far; *ended: that is all there is. */
static size_t readable(const struct weir_buf *b, bool *ended)
{
    z_stream z = {0};
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_in = (Bytef *)weir_buf_ptr(b);
    z.avail_in = (uInt)weir_buf_len(b);
    z.next_out = (Bytef *)got;
    z.avail_out = sizeof got;
    int status = inflate(&z, Z_SYNC_FLUSH);
    assert_true(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR);
    size_t n = sizeof got - z.avail_out;
    *ended = status == Z_STREAM_END;
    if (*ended) assert_int_equal(z.avail_in, 0);
    inflateEnd(&z);
    return n;
}

static void fill(unsigned kind)
{
    struct weir_random r = {kind + 1};
    for (size_t i = 0; i < SIZE; i++) text[i] = (char)(kind == 0 ? 'x' : kind == 1 ? "abcdefgh"[weir_random_next(&r) % 8] : (char)weir_random_next(&r));
}

static void what_goes_in_comes_out(void **state)
{
    (void)state;
    struct weir_gzip *g;
    static const size_t steps[] = {1, 977, 65536, SIZE}, rooms[] = {WEIR_GZIP_ROOM, 4096, 20000};
    assert_int_equal(weir_gzip_new(&g, 5), WEIR_OK);
    for (unsigned kind = 0; kind < 3; kind++)
        for (size_t s = kind ? 1 : 0; s < WEIR_COUNT(steps); s++)
            for (size_t r = 0; r < WEIR_COUNT(rooms); r++) {
                struct weir_buf out = {0};
                bool ended;
                fill(kind);
                for (size_t at = 0; at < SIZE; at += steps[s]) {
                    size_t n = SIZE - at < steps[s] ? SIZE - at : steps[s];
                    weir_gzip_feed(g, text + at, n, WEIR_GZIP_MORE);
                    pull_all(g, &out, rooms[r]);
                }
                weir_gzip_feed(g, NULL, 0, WEIR_GZIP_END);
                pull_all(g, &out, rooms[r]);
                assert_int_equal(readable(&out, &ended), SIZE);
                assert_true(ended);
                assert_memory_equal(got, text, SIZE);
                if (kind == 0) assert_true(weir_buf_len(&out) < 2000);
                weir_buf_fini(&out);
                weir_gzip_reset(g, 1 + (int)(s * 2));
            }
    weir_gzip_free(g);
}

static void a_flush_makes_all_of_it_readable(void **state)
{
    (void)state;
    struct weir_gzip *g;
    struct weir_buf out = {0};
    bool ended;
    fill(1);
    assert_int_equal(weir_gzip_new(&g, 9), WEIR_OK);
    for (size_t at = 0, n = 1; at + n <= SIZE; at += n, n = n * 2 + 1) {
        weir_gzip_feed(g, text + at, n, WEIR_GZIP_MORE);
        pull_all(g, &out, WEIR_GZIP_ROOM);
        weir_gzip_feed(g, NULL, 0, WEIR_GZIP_FLUSH);
        pull_all(g, &out, n % 3 ? WEIR_GZIP_ROOM : 20000);
        assert_int_equal(readable(&out, &ended), at + n);
        assert_false(ended);
        assert_memory_equal(got, text, at + n);
    }
    weir_gzip_feed(g, NULL, 0, WEIR_GZIP_FLUSH); /* there is nothing new */
    pull_all(g, &out, WEIR_GZIP_ROOM);
    weir_gzip_feed(g, NULL, 0, WEIR_GZIP_END);
    pull_all(g, &out, WEIR_GZIP_ROOM);
    readable(&out, &ended);
    assert_true(ended);
    weir_buf_fini(&out);
    weir_gzip_free(g);
}

static void nothing_is_a_content_too(void **state)
{
    (void)state;
    struct weir_gzip *g;
    struct weir_buf out = {0};
    bool ended;
    assert_int_equal(weir_gzip_new(&g, 5), WEIR_OK);
    weir_gzip_feed(g, NULL, 0, WEIR_GZIP_MORE);
    pull_all(g, &out, 4096);
    assert_int_equal(weir_buf_len(&out), 0);
    weir_gzip_feed(g, NULL, 0, WEIR_GZIP_END);
    pull_all(g, &out, 4096);
    assert_int_equal(readable(&out, &ended), 0);
    assert_true(ended);
    weir_buf_fini(&out);
    weir_gzip_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out), cmocka_unit_test(a_flush_makes_all_of_it_readable), cmocka_unit_test(nothing_is_a_content_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

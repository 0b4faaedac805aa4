/* SPDX-License-Identifier: MIT */
/* Memory and containers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base.h"

struct thing {
    struct weir_table_node node;
    uint64_t key;
};

static struct thing *find(const struct weir_table *t, uint64_t key, uint64_t hash)
{
    for (struct weir_table_node *n = weir_table_find(t, hash); n; n = weir_table_more(n)) {
        struct thing *o = WEIR_CONTAINER(n, struct thing, node);
        if (o->key == key) return o;
    }
    return NULL;
}

static void a_table_finds_what_was_put_and_not_what_was_removed(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct weir_table t = {0};
    struct thing *all = calloc(COUNT, sizeof *all);
    assert_null(weir_table_find(&t, 1));
    for (uint64_t i = 0; i < COUNT; i++) {
        all[i].key = i;
        assert_int_equal(weir_table_put(&t, &all[i].node, weir_hash_u64(i / 3)), WEIR_OK); /* three have each hash */
    }
    assert_int_equal(t.count, COUNT);
    for (uint64_t i = 0; i < COUNT; i += 2) weir_table_remove(&t, &all[i].node);
    for (uint64_t i = 0; i < COUNT; i++) assert_ptr_equal(find(&t, i, weir_hash_u64(i / 3)), i % 2 ? &all[i] : NULL);
    assert_int_equal(t.count, COUNT / 2);
    weir_table_fini(&t);
    free(all);
}

static void numbers_are_read_whole_or_not_at_all(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t max, value;
        int status;
    } cases[] = {{"0", 9, 0, WEIR_OK}, {"18446744073709551615", UINT64_MAX, UINT64_MAX, WEIR_OK}, {"18446744073709551616", UINT64_MAX, 0, WEIR_INVALID},
                 {"10", 9, 0, WEIR_INVALID}, {"", 9, 0, WEIR_INVALID}, {"-1", 9, 0, WEIR_INVALID}, {"1 ", 9, 0, WEIR_INVALID}, {"+1", 9, 0, WEIR_INVALID}};
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        uint64_t v = 0;
        assert_int_equal(weir_str_u64(weir_cstr(cases[i].text), cases[i].max, &v), cases[i].status);
        if (cases[i].status == WEIR_OK) assert_int_equal(v, cases[i].value);
    }
    for (uint64_t v = 1; v; v = v > UINT64_MAX / 7 ? 0 : v * 7) {
        char text[20], again[32];
        size_t n = weir_u64_text(text, v);
        snprintf(again, sizeof again, "%llu", (unsigned long long)v);
        assert_int_equal(n, strlen(again));
        assert_memory_equal(text, again, n);
    }
}

static void a_buffer_gives_back_what_it_was_given(void **state)
{
    (void)state;
    struct weir_buf b = {0};
    struct weir_random r = {7};
    uint64_t put = 0, taken = 0;
    for (int i = 0; i < 20000; i++) {
        unsigned char bytes[100];
        size_t n = weir_random_next(&r) % sizeof bytes;
        for (size_t k = 0; k < n; k++) bytes[k] = (unsigned char)((put + k) % 251);
        assert_int_equal(weir_buf_append(&b, bytes, n), WEIR_OK);
        put += n;
        size_t take = weir_random_next(&r) % (weir_buf_len(&b) + 1);
        for (size_t k = 0; k < take; k++) assert_int_equal((unsigned char)weir_buf_ptr(&b)[k], (taken + k) % 251);
        weir_buf_consume(&b, take);
        taken += take;
    }
    assert_int_equal(weir_buf_len(&b), put - taken);
    weir_buf_fini(&b);
}

static void an_arena_keeps_to_its_limit(void **state)
{
    (void)state;
    struct weir_arena a;
    weir_arena_init(&a, 100000);
    size_t got = 0;
    while (weir_arena_alloc(&a, 1000)) got++;
    assert_in_range(got, 50, 100);
    weir_arena_reset(&a);
    assert_non_null(weir_arena_alloc(&a, 1000));
    assert_null(weir_arena_alloc(&a, 200000));
    weir_arena_fini(&a);
}

static void text_of_strangers_is_escaped_and_nothing_of_it_is_lost(void **state)
{
    (void)state;
    static const struct {
        const char *in, *text, *json;
    } cases[] = {{"a \xc3\xa4\t\"\\", "a \xc3\xa4\t\"\\", "a \xc3\xa4\\u0009\\\"\\\\"}, {"\x1b[31m\x7f", "\\x1b[31m\\x7f", "\\u001b[31m\\u007f"},
                 {"\xff\xc3", "\\xff\\xc3", "\\\\xff\\\\xc3"}, {"\xc2\x9b", "\\xc2\\x9b", "\\\\xc2\\\\x9b"}, {"\xed\xa0\x80", "\\xed\\xa0\\x80", "\\\\xed\\\\xa0\\\\x80"},
                 {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}, {"", "", ""}};
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        char out[128];
        out[weir_text_escape(out, sizeof out - 1, cases[i].in, strlen(cases[i].in))] = 0;
        assert_string_equal(out, cases[i].text);
        out[weir_json_escape(out, sizeof out - 1, cases[i].in, strlen(cases[i].in))] = 0;
        assert_string_equal(out, cases[i].json);
    }
    for (size_t room = 0; room < 40; room++) { /* it ends before the room does */
        char *out = malloc(room + 1);
        assert_in_range(weir_text_escape(out, room, "\x01\x02\xc3\xa4\xff", 5), 0, room);
        assert_in_range(weir_json_escape(out, room, "\x01\x02\xc3\xa4\xff", 5), 0, room);
        free(out);
    }
}

/* The vectors of SipHash's reference for 128 bits: key 00 01 .. 0f, text 00 01 .. */
static void a_keyed_hash_is_siphash(void **state)
{
    (void)state;
    const struct weir_key key = {{0x0706050403020100u, 0x0f0e0d0c0b0a0908u}};
    static const uint64_t want[][2] = {{0xe6a825ba047f81a3u, 0x930255c71472f66du}, {0x44af996bd8c187dau, 0x45fc229b11597634u}};
    char text[64];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)i;
    for (size_t i = 0; i < WEIR_COUNT(want); i++) {
        struct weir_digest d = weir_keyed_hash(&key, weir_str(text, i));
        assert_true(d.h[0] == want[i][0] && d.h[1] == want[i][1]);
    }
    for (size_t i = 0; i < sizeof text; i++)
        for (size_t k = 0; k < i; k++) {
            struct weir_digest a = weir_keyed_hash(&key, weir_str(text, i)), b = weir_keyed_hash(&key, weir_str(text, k));
            assert_false(weir_same_secret(&a, &b, sizeof a));
            assert_true(weir_same_secret(&a, &a, sizeof a));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_finds_what_was_put_and_not_what_was_removed), cmocka_unit_test(numbers_are_read_whole_or_not_at_all),
        cmocka_unit_test(a_buffer_gives_back_what_it_was_given), cmocka_unit_test(an_arena_keeps_to_its_limit),
        cmocka_unit_test(text_of_strangers_is_escaped_and_nothing_of_it_is_lost), cmocka_unit_test(a_keyed_hash_is_siphash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

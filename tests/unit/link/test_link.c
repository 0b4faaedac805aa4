/* SPDX-License-Identifier: MIT */
/* What control and gateway say to each other: it comes back as it was, and nothing that was cut or altered is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "link/link.h"

static void full_message(struct weir_link_message *m)
{
    static struct weir_link_endpoint e[2] = {
        {.id = 7, .ahead = 8, .forks = true, .pid = 9, .workers = 10, .requests = 11, .flow = true, .prove = true, .pool = "p", .address = "unix:/x"},
        {.id = UINT64_MAX, .keep = true, .drain = true, .pool = "q", .address = ""}};
    static struct weir_link_use u[1] = {{.id = 3, .done = 4, .failed = 5, .busy = 6, .opening = 7, .gone = true}};
    static struct weir_link_pool p[1] = {{.pool = "p", .queued = 1, .oldest_ms = 2, .started = 3, .refused = 4, .timed_out = 5}};
    static struct weir_link_refusal r[1] = {{.pool = "broken", .stopped = true}};
    static struct weir_link_server s[1] = {{.pool = "c", .address = "unix:/s", .problem = "why", .state = 2, .backup = true, .weight = 3, .busy = 4, .limit = 5,
                                            .done = 6, .failed = 7, .retried = 8, .ejections = 9, .rests_ms = 10, .passed_on = 11}};
    *m = (struct weir_link_message){.servers = s, .server_count = 1, .type = WEIR_LINK_STATE, .version = 42, .part = 1, .of = 2, .drain_ms = 600, .connections = 77, .unit = 12,
                                    .inode = 13, .flags = 1, .endpoints = e, .endpoint_count = 2, .uses = u, .use_count = 1, .pools = p,
                                    .pool_count = 1, .refusals = r, .refusal_count = 1, .threads = {5, 6}, .thread_count = 2, .text = "text"};
}

/* A full message, encoded. */
static void encode_full(struct weir_buf *b)
{
    struct weir_link_message in;
    full_message(&in);
    *b = (struct weir_buf){0};
    assert_int_equal(weir_link_encode(&in, b), WEIR_OK);
}

static void a_message_comes_back_as_it_was(void **state)
{
    (void)state;
    struct weir_link_message m;
    struct weir_buf b;
    struct weir_arena a;
    encode_full(&b);
    weir_arena_init(&a, 0);
    assert_int_equal(weir_link_decode(weir_buf_ptr(&b), weir_buf_len(&b), &a, &m), WEIR_OK);
    assert_int_equal(m.version, 42);
    assert_int_equal(m.unit, 12);
    assert_int_equal(m.inode, 13);
    assert_int_equal(m.flags, 1);
    assert_int_equal(m.connections, 77);
    assert_int_equal(m.endpoint_count, 2);
    assert_true(m.endpoints[0].flow && m.endpoints[0].prove && !m.endpoints[0].keep && !m.endpoints[0].drain);
    assert_true(m.endpoints[0].ahead == 8 && m.endpoints[0].forks && !m.endpoints[1].forks);
    assert_true(m.endpoints[1].keep && m.endpoints[1].drain && m.endpoints[1].id == UINT64_MAX);
    assert_string_equal(m.endpoints[0].address, "unix:/x");
    assert_true(m.uses[0].gone && m.uses[0].busy == 6 && m.uses[0].opening == 7);
    assert_int_equal(m.pools[0].timed_out, 5);
    assert_string_equal(m.refusals[0].pool, "broken");
    assert_true(m.refusals[0].stopped);
    assert_int_equal(m.threads[1], 6);
    assert_int_equal(m.server_count, 1);
    const struct weir_link_server *s = &m.servers[0];
    assert_true(s->state == 2 && s->backup && s->weight == 3 && s->busy == 4 && s->limit == 5 && s->done == 6 && s->failed == 7 && s->retried == 8);
    assert_true(s->ejections == 9 && s->rests_ms == 10 && s->passed_on == 11);
    assert_string_equal(s->pool, "c");
    assert_string_equal(s->address, "unix:/s");
    assert_string_equal(s->problem, "why");
    assert_string_equal(m.text, "text");
    weir_buf_fini(&b);
    weir_arena_fini(&a);
}

static void a_message_that_was_cut_or_lengthened_is_refused(void **state)
{
    (void)state;
    struct weir_link_message m;
    struct weir_buf b;
    struct weir_arena a;
    encode_full(&b);
    weir_arena_init(&a, 0);
    size_t len = weir_buf_len(&b);
    for (size_t cut = 0; cut < len; cut++) assert_int_equal(weir_link_decode(weir_buf_ptr(&b), cut, &a, &m), WEIR_PROTOCOL);
    assert_int_equal(weir_buf_append(&b, "x", 1), WEIR_OK);
    assert_int_equal(weir_link_decode(weir_buf_ptr(&b), len + 1, &a, &m), WEIR_PROTOCOL);
    weir_buf_fini(&b);
    weir_arena_fini(&a);
}

static void altered_bytes_harm_nobody(void **state)
{
    (void)state;
    struct weir_link_message m;
    struct weir_buf b;
    struct weir_random r = {3};
    encode_full(&b);
    for (int i = 0; i < 20000; i++) {
        struct weir_arena a;
        char *copy = malloc(weir_buf_len(&b));
        memcpy(copy, weir_buf_ptr(&b), weir_buf_len(&b));
        for (int k = 0; k < 3; k++) copy[weir_random_next(&r) % weir_buf_len(&b)] = (char)weir_random_next(&r);
        weir_arena_init(&a, 4u << 20);
        int status = weir_link_decode(copy, weir_buf_len(&b), &a, &m);
        assert_true(status == WEIR_OK || status == WEIR_PROTOCOL);
        weir_arena_fini(&a);
        free(copy);
    }
    weir_buf_fini(&b);
}

static void encode_orders(struct weir_buf *b)
{
    static struct weir_link_suspended s[] = {{WEIR_CONST_STR("a.test"), WEIR_CONST_STR("<p>x"), true}, {WEIR_CONST_STR("*"), {"", 0}, false}};
    static struct weir_link_denied d[] = {{.address = {1, 2, 3}, .bits = 24, .until = 5}, {.bits = 128, .until = INT64_MAX}};
    const struct weir_link_orders o = {s, d, 2, 2};
    *b = (struct weir_buf){0};
    assert_int_equal(weir_link_orders_encode(&o, b), WEIR_OK);
}

static void orders_come_back_as_they_were_and_nothing_that_was_cut_is_believed(void **state)
{
    (void)state;
    struct weir_link_orders o;
    struct weir_buf b;
    struct weir_arena a;
    encode_orders(&b);
    weir_arena_init(&a, 0);
    size_t len = weir_buf_len(&b);
    assert_int_equal(weir_link_orders_decode(weir_buf_ptr(&b), len, &a, &o), WEIR_OK);
    assert_int_equal(o.suspended_count, 2);
    assert_true(weir_str_eq(o.suspended[0].site, WEIR_STR("a.test")) && weir_str_eq(o.suspended[0].text, WEIR_STR("<p>x")) && o.suspended[0].page);
    assert_true(weir_str_eq(o.suspended[1].site, WEIR_STR("*")) && o.suspended[1].text.len == 0 && !o.suspended[1].page);
    assert_int_equal(o.denied_count, 2);
    assert_true(o.denied[0].address[1] == 2 && o.denied[0].bits == 24 && o.denied[0].until == 5);
    assert_true(o.denied[1].bits == 128 && o.denied[1].until == INT64_MAX);
    for (size_t cut = 0; cut < len; cut++) assert_int_equal(weir_link_orders_decode(weir_buf_ptr(&b), cut, &a, &o), WEIR_PROTOCOL);
    assert_int_equal(weir_buf_append(&b, "x", 1), WEIR_OK);
    assert_int_equal(weir_link_orders_decode(weir_buf_ptr(&b), len + 1, &a, &o), WEIR_PROTOCOL);
    weir_buf_fini(&b);
    weir_arena_fini(&a);
}

static void altered_orders_harm_nobody_and_their_limits_hold(void **state)
{
    (void)state;
    struct weir_link_orders o = {.denied_count = WEIR_LINK_DENIED_MAX + 1};
    struct weir_buf b = {0};
    struct weir_random r = {4};
    assert_int_equal(weir_link_orders_encode(&o, &b), WEIR_LIMIT);
    o = (struct weir_link_orders){.suspended_count = WEIR_LINK_SITES_MAX + 1};
    assert_int_equal(weir_link_orders_encode(&o, &b), WEIR_LIMIT);
    encode_orders(&b);
    for (int i = 0; i < 20000; i++) {
        struct weir_arena a;
        size_t len = weir_buf_len(&b);
        char *copy = malloc(len);
        memcpy(copy, weir_buf_ptr(&b), len);
        for (int k = 0; k < 3; k++) copy[weir_random_next(&r) % len] = (char)weir_random_next(&r);
        weir_arena_init(&a, 1u << 20);
        int status = weir_link_orders_decode(copy, len, &a, &o);
        assert_true(status == WEIR_OK || status == WEIR_PROTOCOL);
        weir_arena_fini(&a);
        free(copy);
    }
    weir_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_back_as_it_was), cmocka_unit_test(a_message_that_was_cut_or_lengthened_is_refused),
        cmocka_unit_test(altered_bytes_harm_nobody), cmocka_unit_test(orders_come_back_as_they_were_and_nothing_that_was_cut_is_believed),
        cmocka_unit_test(altered_orders_harm_nobody_and_their_limits_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

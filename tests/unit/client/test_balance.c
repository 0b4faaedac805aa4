/* SPDX-License-Identifier: MIT */
/* Which of several endpoints a request is for, and when one that fails is left alone: the rules alone, on a clock that the test
 * turns. Random numbers come from the pool's name: each run draws the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "client/internal.h"

#define ENDS 5
#define SECOND UINT64_C(1000000)

struct farm {
    struct weir_client_group *group;
    struct weir_pool *pool;
    struct weir_client client; /* only its number and its turn are looked at */
    struct weir_client_req req;
    struct weir_endpoint *ep[ENDS];
    uint64_t now;
};

static void set(struct farm *f, const uint32_t *weights, unsigned count, unsigned backups)
{
    struct weir_endpoint_options e[ENDS];
    char address[ENDS][32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(address[i], sizeof address[i], "unix:/nowhere/%u", i);
        e[i] = (struct weir_endpoint_options){.id = i + 1, .address = address[i], .workers = 1, .requests = 1000, .flow = true, .weight = weights[i],
                                              .backup = i + backups >= count};
    }
    assert_int_equal(weir_pool_set(f->pool, e, count), WEIR_OK);
    memset(f->ep, 0, sizeof f->ep);
    for (struct weir_list *l = f->pool->endpoints.next; l != &f->pool->endpoints; l = l->next) {
        struct weir_endpoint *ep = WEIR_CONTAINER(l, struct weir_endpoint, link);
        f->ep[ep->id - 1] = ep;
    }
}

static void start(struct farm *f, const uint32_t *weights, unsigned count, unsigned backups)
{
    struct weir_pool_options o;
    *f = (struct farm){.now = 1000 * SECOND};
    weir_pool_options_init(&o);
    o.name = "farm";
    assert_int_equal(weir_client_group_new(&f->group, 1), WEIR_OK);
    assert_int_equal(weir_pool_new(&f->pool, f->group, &o), WEIR_OK);
    f->req.client = &f->client;
    set(f, weights, count, backups);
}

static void stop(struct farm *f)
{
    weir_pool_free(f->pool);
    weir_client_group_free(f->group);
}

/* Places of the chosen ones; each is over before the next. */
static void draw_many(struct farm *f, unsigned n, unsigned *seen)
{
    memset(seen, 0, ENDS * sizeof *seen);
    for (unsigned i = 0; i < n; i++) {
        const struct weir_endpoint *ep = balance_choose(f->pool, &f->req, f->now);
        assert_non_null(ep);
        seen[ep->id - 1]++;
    }
}

static void about(unsigned got, unsigned n, double part)
{
    double expected = n * part, off = got > expected ? got - expected : expected - got;
    assert_true(off * off <= 36 * n * part * (1 - part) + 1); /* six standard deviations */
}

static void weights_alone_decide_where_nothing_waits(void **state)
{
    (void)state;
    static const uint32_t sets[][ENDS] = {{1, 1, 1, 1, 1}, {3, 1, 1, 1, 1}, {256, 1, 100, 7, 7}, {1, 2, 3, 4, 5}, {5, 5, 1, 256, 256}};
    for (size_t s = 0; s < WEIR_COUNT(sets); s++)
        for (unsigned count = 2; count <= ENDS; count++) {
            struct farm f;
            unsigned seen[ENDS], total = 0;
            start(&f, sets[s], count, 0);
            draw_many(&f, 20000, seen);
            for (unsigned i = 0; i < count; i++) total += sets[s][i];
            for (unsigned i = 0; i < count; i++) about(seen[i], 20000, (double)sets[s][i] / total);
            stop(&f);
        }
}

static void load_follows_the_weights_when_requests_last(void **state)
{
    (void)state;
    static const uint32_t weights[ENDS] = {4, 2, 1, 1, 2};
    struct farm f;
    start(&f, weights, ENDS, 0);
    for (unsigned i = 0; i < 1000; i++) balance_choose(f.pool, &f.req, f.now)->active++;
    for (unsigned i = 0; i < ENDS; i++) assert_in_range(f.ep[i]->active, 85 * weights[i], 115 * weights[i]);
    for (unsigned i = 0; i < ENDS; i++) f.ep[i]->active = 0;
    f.ep[0]->active = 50; /* it hangs: others have the rest */
    for (unsigned i = 0; i < 60; i++) balance_choose(f.pool, &f.req, f.now)->active++;
    assert_in_range(f.ep[0]->active, 50, 56);
    stop(&f);
}

static void two_are_never_more_than_one_apart(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1};
    struct farm f;
    start(&f, weights, 2, 0);
    for (unsigned i = 1; i <= 500; i++) {
        balance_choose(f.pool, &f.req, f.now)->active++;
        assert_in_range(f.ep[0]->active, i / 2, (i + 1) / 2);
    }
    stop(&f);
}

static void home_of(struct farm *f, unsigned keys, uint64_t *home)
{
    for (unsigned i = 0; i < keys; i++) {
        f->req.o.key = weir_hash_u64(i + 1);
        home[i] = balance_choose(f->pool, &f->req, f->now)->id;
    }
    f->req.o.key = 0;
}

static void a_key_moves_only_when_its_endpoint_leaves(void **state)
{
    (void)state;
    enum { KEYS = 4000 };
    static const uint32_t weights[ENDS] = {1, 1, 2, 1, 3};
    static uint64_t before[KEYS], after[KEYS];
    unsigned part[ENDS] = {0};
    struct farm f;
    start(&f, weights, ENDS, 0);
    home_of(&f, KEYS, before);
    for (unsigned i = 0; i < KEYS; i++) part[before[i] - 1]++;
    for (unsigned i = 0; i < ENDS; i++) about(part[i], KEYS, weights[i] / 8.0);
    f.ep[2]->down = true; /* so by its check */
    home_of(&f, KEYS, after);
    for (unsigned i = 0; i < KEYS; i++) assert_true(before[i] == 3 ? after[i] != 3 : after[i] == before[i]);
    f.ep[2]->down = false;
    f.ep[4]->active = 1000; /* it has no room: its keys overflow */
    home_of(&f, KEYS, after);
    for (unsigned i = 0; i < KEYS; i++) assert_true(before[i] == 5 ? after[i] != 5 : after[i] == before[i]);
    f.ep[4]->active = 0;
    set(&f, weights, ENDS - 1, 0); /* the last one leaves for good */
    home_of(&f, KEYS, after);
    for (unsigned i = 0; i < KEYS; i++) assert_true(before[i] == 5 ? after[i] != 5 : after[i] == before[i]);
    stop(&f);
}

static void backups_serve_when_no_other_one_is_up(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1, 1};
    struct farm f;
    unsigned seen[ENDS];
    start(&f, weights, 3, 1);
    draw_many(&f, 1000, seen);
    assert_int_equal(seen[2], 0);
    f.ep[0]->active = f.ep[1]->active = 1000; /* both are full, but up */
    assert_null(balance_choose(f.pool, &f.req, f.now));
    f.ep[0]->down = f.ep[1]->down = true;
    draw_many(&f, 100, seen);
    assert_int_equal(seen[2], 100);
    f.req.o.key = 7;
    draw_many(&f, 100, seen);
    assert_int_equal(seen[2], 100);
    stop(&f);
}

/* As pool_conn_failed does it. */
static bool refused(struct farm *f, unsigned i)
{
    f->ep[i]->failures++;
    return balance_connect_failed(f->ep[i], f->now, 50000, "refused");
}

static void ejections_double_and_begin_anew_after_a_minute_of_health(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1};
    struct farm f;
    start(&f, weights, 2, 0);
    for (uint64_t round = 0, base = SECOND; round < 10; round++) {
        assert_true(refused(&f, 0));
        uint64_t us = f.ep[0]->down_until_us - f.now;
        assert_in_range(us, base, base + base / 4);
        assert_false(refused(&f, 0)); /* another connection of the same outage */
        assert_int_equal(f.ep[0]->down_until_us - f.now, us);
        for (int i = 0; i < 100; i++) assert_ptr_equal(balance_choose(f.pool, &f.req, f.now), f.ep[1]);
        f.now = f.ep[0]->down_until_us;
        base = base * 2 > 60 * SECOND ? 60 * SECOND : base * 2;
    }
    assert_int_equal(f.ep[0]->ejections, 10);
    balance_answered(f.ep[0], f.now);
    f.now += 30 * SECOND; /* not long enough */
    assert_true(refused(&f, 0));
    assert_true(f.ep[0]->down_until_us - f.now >= 60 * SECOND);
    f.now = f.ep[0]->down_until_us;
    balance_answered(f.ep[0], f.now);
    f.now += 61 * SECOND;
    assert_true(refused(&f, 0));
    assert_in_range(f.ep[0]->down_until_us - f.now, SECOND, SECOND * 5 / 4);
    stop(&f);
}

static void the_last_one_is_not_ejected_and_then_all_are_tried_soon(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1, 1};
    struct farm f;
    start(&f, weights, 3, 0);
    assert_true(refused(&f, 0));
    assert_true(refused(&f, 1));
    assert_false(refused(&f, 2));
    assert_false(f.ep[2]->ejected);
    for (int i = 0; i < 3; i++) assert_true(f.ep[i]->down_until_us <= f.now + 50000);
    assert_null(balance_choose(f.pool, &f.req, f.now));
    f.now += 50000;
    assert_non_null(balance_choose(f.pool, &f.req, f.now));
    stop(&f);
    start(&f, weights, 1, 0); /* alone: as if there was no ejection */
    for (int i = 0; i < 5; i++) {
        assert_false(refused(&f, 0));
        assert_int_equal(f.ep[0]->down_until_us, f.now + 50000);
        f.now += 50000;
    }
    assert_int_equal(f.ep[0]->ejections, 0);
    stop(&f);
}

static void one_request_tries_it_and_its_share_grows_when_it_answered(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1};
    struct farm f;
    unsigned seen[ENDS];
    start(&f, weights, 2, 0);
    assert_true(refused(&f, 0));
    f.now = f.ep[0]->down_until_us;
    struct weir_endpoint *ep = NULL;
    for (int i = 0; i < 1000 && ep != f.ep[0]; i++) ep = balance_choose(f.pool, &f.req, f.now);
    assert_ptr_equal(ep, f.ep[0]);
    ep->active++;
    f.ep[1]->active = 20; /* whatever the others have to do */
    for (int i = 0; i < 1000; i++) assert_ptr_equal(balance_choose(f.pool, &f.req, f.now), f.ep[1]);
    f.ep[1]->active = 0;
    balance_answered(ep, f.now);
    ep->active--;
    static const double shares[] = {0.1, 0.25, 0.5, 0.75, 1, 1};
    static const uint64_t at[] = {0, 2500, 5000, 7500, 10000, 20000};
    uint64_t back = f.now;
    for (size_t i = 0; i < WEIR_COUNT(at); i++) {
        f.now = back + at[i] * 1000;
        draw_many(&f, 20000, seen);
        /* passed over, it is drawn anew: two equal ones, one with the share s, get s to 1 */
        double s = shares[i], part = s / (1 + s);
        assert_in_range(seen[0], (unsigned)(20000 * part * 0.9), (unsigned)(20000 * part * 1.1) + 1);
    }
    stop(&f);
}

static void a_word_of_the_check_ends_an_ejection_for_a_connect_alone(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1};
    struct farm f;
    start(&f, weights, 2, 0);
    assert_true(refused(&f, 0));
    assert_false(endpoint_up(f.ep[0], f.now));
    weir_pool_mark(f.pool, 1, false);
    assert_true(endpoint_up(f.ep[0], f.now));
    f.ep[0]->refused = false; /* now it is for requests without an answer: a check proves nothing there */
    f.ep[0]->down_until_us = f.now + SECOND;
    weir_pool_mark(f.pool, 1, false);
    assert_false(endpoint_up(f.ep[0], f.now));
    stop(&f);
}

static void times_that_cannot_be_are_told_and_no_ejection_is_an_option(void **state)
{
    (void)state;
    static const uint32_t weights[] = {1, 1};
    struct farm f;
    struct weir_pool_balance b;
    start(&f, weights, 2, 0);
    weir_pool_balance_init(&b);
    b.eject_ms = b.eject_max_ms + 1;
    assert_int_equal(weir_pool_set_balance(f.pool, &b), WEIR_INVALID);
    b.eject_ms = 0;
    assert_int_equal(weir_pool_set_balance(f.pool, &b), WEIR_OK);
    assert_false(refused(&f, 0));
    assert_int_equal(f.ep[0]->down_until_us, f.now + 50000);
    assert_false(f.ep[0]->ejected);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_alone_decide_where_nothing_waits),
        cmocka_unit_test(load_follows_the_weights_when_requests_last),
        cmocka_unit_test(two_are_never_more_than_one_apart),
        cmocka_unit_test(a_key_moves_only_when_its_endpoint_leaves),
        cmocka_unit_test(backups_serve_when_no_other_one_is_up),
        cmocka_unit_test(ejections_double_and_begin_anew_after_a_minute_of_health),
        cmocka_unit_test(the_last_one_is_not_ejected_and_then_all_are_tried_soon),
        cmocka_unit_test(one_request_tries_it_and_its_share_grows_when_it_answered),
        cmocka_unit_test(a_word_of_the_check_ends_an_ejection_for_a_connect_alone),
        cmocka_unit_test(times_that_cannot_be_are_told_and_no_ejection_is_an_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

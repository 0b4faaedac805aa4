/* SPDX-License-Identifier: MIT */
/* gateway: what one client may do, whoever else asks; how slow it may be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gateway/internal.h"

static void address_of(const char *text, uint8_t out[16])
{
    struct weir_net n;
    assert_int_equal(weir_net_parse(weir_cstr(text), &n), WEIR_OK);
    memcpy(out, n.address, 16);
}

static void a_client_has_its_burst_and_then_its_rate(void **state)
{
    struct limits *l;
    const struct weir_conf_limit ten = {.id = 7, .interval_us = 100000, .burst = 3};
    uint8_t a[16], b[16];
    uint64_t now = 5000000;
    (void)state;
    assert_int_equal(limits_new(&l), WEIR_OK);
    address_of("192.0.2.1", a);
    address_of("192.0.2.2", b);
    for (int i = 0; i < 3; i++) assert_int_equal(limits_take(l, &ten, a, now), 0);
    assert_int_equal(limits_take(l, &ten, a, now), 100000);
    assert_int_equal(limits_take(l, &ten, a, now + 40000), 60000); /* what is refused costs nothing */
    assert_int_equal(limits_take(l, &ten, b, now), 0);
    assert_int_equal(limits_take(l, &ten, a, now + 100000), 0);
    assert_int_equal(limits_take(l, &ten, a, now + 100000), 100000);
    now += 10000000; /* nobody saves up more than a burst */
    for (int i = 0; i < 3; i++) assert_int_equal(limits_take(l, &ten, a, now), 0);
    assert_int_not_equal(limits_take(l, &ten, a, now), 0);
    limits_free(l);
}

static void a_network_of_ipv6_is_one_client_and_a_limit_counts_for_itself(void **state)
{
    struct limits *l;
    struct weir_conf_limit one = {.id = 1, .interval_us = 1000000, .burst = 1}, two = {.id = 2, .interval_us = 1000000, .burst = 1};
    uint8_t a[16], same[16], other[16], mapped[16];
    (void)state;
    assert_int_equal(limits_new(&l), WEIR_OK);
    address_of("2001:db8:0:1::1", a);
    address_of("2001:db8:0:1:ffff:ffff:ffff:ffff", same);
    address_of("2001:db8:0:2::1", other);
    address_of("192.0.2.1", mapped);
    assert_int_equal(limits_take(l, &one, a, 1), 0);
    assert_int_not_equal(limits_take(l, &one, same, 1), 0);
    assert_int_equal(limits_take(l, &one, other, 1), 0);
    assert_int_equal(limits_take(l, &two, same, 1), 0);
    assert_int_equal(limits_take(l, &one, mapped, 1), 0);
    limits_free(l);
}

/* More addresses than there are places push nobody's number out. */
static void who_has_used_up_his_burst_gains_nothing_by_other_addresses(void **state)
{
    struct limits *l;
    const struct weir_conf_limit slow = {.id = 3, .interval_us = 60000000, .burst = 5};
    uint8_t a[16], other[16];
    uint64_t now = 1;
    unsigned refused = 0, many = 0;
    (void)state;
    assert_int_equal(limits_new(&l), WEIR_OK);
    address_of("2001:db8:ffff::1", a);
    address_of("2001:db8::1", other);
    for (int i = 0; i < 5; i++) assert_int_equal(limits_take(l, &slow, a, now), 0);
    for (uint32_t i = 0; i < 400000; i++) { /* all of them within the time that it has to wait */
        memcpy(other + 4, &i, sizeof i);
        if (limits_take(l, &slow, other, now)) refused++;
        if (i % 1000 == 0 && limits_take(l, &slow, a, now) == 0) many++;
    }
    assert_int_equal(many, 0);
    assert_int_not_equal(limits_take(l, &slow, a, now), 0);
    assert_in_range(refused, 1, 399999); /* when there are too many of them they pay for each other */
    now += UINT64_C(3600) * 1000000; /* and then it is over for all */
    for (int i = 0; i < 5; i++) assert_int_equal(limits_take(l, &slow, a, now), 0);
    limits_free(l);
}

static void connections_are_counted_until_they_close(void **state)
{
    struct limits *l;
    struct conn_count *c[3];
    uint8_t a[16], b[16];
    (void)state;
    assert_int_equal(limits_new(&l), WEIR_OK);
    address_of("192.0.2.1", a);
    address_of("192.0.2.2", b);
    for (int i = 0; i < 3; i++) assert_non_null(c[i] = limits_connect(l, 1, a, 3));
    assert_null(limits_connect(l, 1, a, 3));
    struct conn_count *elsewhere = limits_connect(l, 2, a, 3), *others = limits_connect(l, 1, b, 3);
    assert_true(elsewhere && others);
    limits_disconnect(l, c[1]);
    assert_non_null(c[1] = limits_connect(l, 1, a, 3));
    assert_null(limits_connect(l, 1, a, 3));
    for (int i = 0; i < 3; i++) limits_disconnect(l, c[i]);
    limits_disconnect(l, elsewhere);
    limits_disconnect(l, others);
    assert_non_null(c[0] = limits_connect(l, 1, a, 1));
    limits_disconnect(l, c[0]);
    limits_free(l);
}

/* An answer that is taken at so many bytes a second, looked at when pace says: after how long it is too slow; 0: not within an hour. */
static uint64_t given_up(const struct weir_conf_route *conf, uint64_t per_second, uint64_t stops_at_ms)
{
    struct pace p;
    uint64_t now = 1000, next = now + pace_begin(&p, conf, now, 0);
    while (next < 3600000) {
        uint64_t taken_ms = next - 1000 < stops_at_ms ? next - 1000 : stops_at_ms;
        uint32_t ms = pace_look(&p, conf, next, taken_ms * per_second / 1000);
        if (!ms) return next - 1000;
        next += ms;
    }
    return 0;
}

static void an_answer_has_to_be_taken_at_the_least_rate(void **state)
{
    struct weir_conf_route conf = {.send_ms = 60000, .guards = {.min_rate = 500, .min_rate_ms = 20000}};
    (void)state;
    assert_in_range(given_up(&conf, 0, UINT64_MAX), 20000, 20001);
    assert_in_range(given_up(&conf, 5, UINT64_MAX), 20000, 21000);
    assert_in_range(given_up(&conf, 400, UINT64_MAX), 60000, 200000);
    assert_int_equal(given_up(&conf, 510, UINT64_MAX), 0);
    assert_int_equal(given_up(&conf, 1000000, UINT64_MAX), 0);
    assert_in_range(given_up(&conf, 1000000, 100000), 160000, 220000); /* it took all that it got, and then nothing for `send` */
    conf.guards.min_rate = 0;
    assert_int_equal(given_up(&conf, 1, UINT64_MAX), 0);
    assert_in_range(given_up(&conf, 0, UINT64_MAX), 60000, 60001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_has_its_burst_and_then_its_rate), cmocka_unit_test(a_network_of_ipv6_is_one_client_and_a_limit_counts_for_itself),
        cmocka_unit_test(who_has_used_up_his_burst_gains_nothing_by_other_addresses), cmocka_unit_test(connections_are_counted_until_they_close),
        cmocka_unit_test(an_answer_has_to_be_taken_at_the_least_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

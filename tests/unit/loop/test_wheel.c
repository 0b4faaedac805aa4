/* SPDX-License-Identifier: MIT */
/* The timer wheel against a plain list of deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "loop/loop.h"

enum { TIMERS = 300 };

static void no_timer_fires_early_late_or_twice(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct weir_random r = {seed * 7919};
        uint64_t now = weir_random_next(&r) % 100000;
        struct weir_loop l = {.wheel = weir_wheel_new(now)};
        struct weir_timer t[TIMERS] = {0};
        for (int step = 0; step < 3000; step++) {
            unsigned i = (unsigned)(weir_random_next(&r) % TIMERS);
            static const uint64_t spans[] = {1, 5, 300, 5000, 70000, 3000000, 90000000};
            uint64_t delta = weir_random_next(&r) % spans[weir_random_next(&r) % WEIR_COUNT(spans)];
            if (weir_random_next(&r) % 4 == 0) weir_timer_clear(&t[i]);
            else weir_timer_set(&l, &t[i], (struct weir_ident){.kind = 1, .index = i}, now + delta);
            uint64_t soonest = UINT64_MAX;
            for (unsigned k = 0; k < TIMERS; k++)
                if (weir_timer_is_set(&t[k]) && t[k].due_ms < soonest) soonest = t[k].due_ms;
            int64_t next = weir_wheel_next_ms(l.wheel, now);
            if (soonest == UINT64_MAX) {
                assert_true(next >= -1);
            } else {
                assert_true(next >= 0); /* may be early, never late */
                assert_true(now + (uint64_t)next <= (soonest > now ? soonest : now));
            }
            if (weir_random_next(&r) % 3 == 0 && next >= 0) now += (uint64_t)next;
            else now += weir_random_next(&r) % spans[weir_random_next(&r) % 5];
            bool was_due[TIMERS];
            for (unsigned k = 0; k < TIMERS; k++) was_due[k] = weir_timer_is_set(&t[k]) && t[k].due_ms <= now;
            struct weir_event ev[16];
            int n;
            do {
                n = weir_wheel_expire(l.wheel, now, ev, 16);
                for (int k = 0; k < n; k++) {
                    assert_true(was_due[ev[k].ident.index]);
                    was_due[ev[k].ident.index] = false;
                    assert_ptr_equal(ev[k].ptr, &t[ev[k].ident.index]);
                }
            } while (n);
            for (unsigned k = 0; k < TIMERS; k++) assert_false(was_due[k]);
        }
        weir_wheel_free(l.wheel);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_timer_fires_early_late_or_twice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* A body store larger than memory: what comes out is what went in, and the disk holds no more than the reader is behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "loop/spill.h"

#define MIB (1u << 20)

struct store {
    struct weir_loop *loop;
    struct weir_spill_quota quota;
    struct weir_spill *spill;
    uint64_t put, got;
};

static void make(struct store *t, uint64_t max, bool rewindable, uint64_t quota)
{
    struct weir_spill_limits lim = {.memory = 65536, .max = max, .rewindable = rewindable};
    *t = (struct store){.quota = {.dir = "/tmp", .max = quota}};
    assert_int_equal(weir_loop_epoll_new(&t->loop), WEIR_OK);
    t->spill = weir_spill_new(t->loop, &t->quota, &lim, (struct weir_ident){.kind = 1});
    assert_non_null(t->spill);
}

static char byte_at(uint64_t i)
{
    return (char)(i * 2654435761u >> 24);
}

static int put(struct store *t, size_t len)
{
    static char bytes[65536];
    for (size_t i = 0; i < len; i++) bytes[i] = byte_at(t->put + i);
    int status = weir_spill_put(t->spill, bytes, len);
    if (status == WEIR_OK) t->put += len;
    return status;
}

/* The end of one job, or nothing if none runs. */
static void turn(struct store *t)
{
    struct weir_event ev[16];
    if (t->loop->jobs == 0) return;
    int n = weir_loop_wait(t->loop, ev, 16, -1);
    for (int i = 0; i < n; i++)
        if (ev[i].ready & WEIR_READY_JOB) (void)weir_spill_done(ev[i].ptr);
}

/* Up to len bytes; how many. */
static uint64_t take(struct store *t, uint64_t len)
{
    uint64_t taken = 0;
    while (taken < len) {
        const char *p;
        size_t n;
        int status = weir_spill_peek(t->spill, &p, &n);
        if (status == WEIR_CLOSED) break;
        if (status == WEIR_AGAIN) {
            turn(t);
            continue;
        }
        assert_int_equal(status, WEIR_OK);
        if (n > len - taken) n = (size_t)(len - taken);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], byte_at(t->got + i));
        weir_spill_consume(t->spill, n);
        t->got += n;
        taken += n;
    }
    return taken;
}

static void end(struct store *t)
{
    while (t->loop->jobs) turn(t);
    weir_spill_free(t->spill);
    weir_loop_free(t->loop);
    assert_int_equal(t->quota.used, 0);
}

static void a_reader_that_follows_keeps_the_file_small(void **state)
{
    struct store t;
    uint64_t most = 0;
    (void)state;
    make(&t, 8 * MIB, false, 8 * MIB);
    while (t.put < 64 * MIB) {
        while (weir_spill_full(t.spill)) turn(&t);
        assert_int_equal(put(&t, 65536), WEIR_OK);
        if (t.put - t.got > 2 * MIB) take(&t, 65536);
        if (t.quota.used > most) most = t.quota.used;
    }
    take(&t, UINT64_MAX);
    assert_int_equal(t.got, t.put);
    assert_in_range(most, MIB, 6 * MIB);
    end(&t);
}

static void full_near_its_limit_until_something_was_read(void **state)
{
    struct store t;
    (void)state;
    make(&t, 8 * MIB, false, 100 * MIB);
    while (t.put < 20 * MIB && (!weir_spill_full(t.spill) || t.loop->jobs)) {
        if (weir_spill_full(t.spill)) turn(&t);
        else assert_int_equal(put(&t, 65536), WEIR_OK);
    }
    assert_in_range(t.put, 6 * MIB, 8 * MIB);
    while (weir_spill_full(t.spill)) assert_int_not_equal(take(&t, 65536), 0);
    assert_int_equal(put(&t, 65536), WEIR_OK);
    take(&t, UINT64_MAX);
    assert_int_equal(t.got, t.put);
    assert_false(weir_spill_full(t.spill));
    end(&t);
}

static void the_limit_and_the_quota_are_kept(void **state)
{
    struct store t;
    (void)state;
    make(&t, 4 * MIB, true, 100 * MIB);
    while (put(&t, 65536) == WEIR_OK) {}
    assert_int_equal(t.put, 4 * MIB);
    assert_int_equal(put(&t, 1), WEIR_LIMIT);
    end(&t);
    make(&t, 100 * MIB, true, 3 * MIB);
    while (put(&t, 65536) == WEIR_OK) {}
    assert_int_equal(t.put, 3 * MIB);
    end(&t);
}

static void what_may_be_rewound_is_kept_whole(void **state)
{
    struct store t;
    (void)state;
    make(&t, 100 * MIB, true, 100 * MIB);
    while (t.put < 5 * MIB) assert_int_equal(put(&t, 65536), WEIR_OK);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(take(&t, UINT64_MAX), 5 * MIB);
        assert_int_equal(t.quota.used, 5 * MIB);
        weir_spill_rewind(t.spill);
        t.got = 0;
    }
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_that_follows_keeps_the_file_small),
        cmocka_unit_test(full_near_its_limit_until_something_was_read),
        cmocka_unit_test(the_limit_and_the_quota_are_kept),
        cmocka_unit_test(what_may_be_rewound_is_kept_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

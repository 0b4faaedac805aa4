/* SPDX-License-Identifier: MIT */
/* What a turn has seen: for whom it is found, and when its descriptors close. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "gateway/seen.h"

static const struct weir_open_area here, there;
static _Atomic uint32_t open_count;

static int file(const char *text, struct stat *st)
{
    char name[] = "/tmp/weir-test-seen-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fstat(fd, st), 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void a_look_counts_for_its_turn_and_for_the_same_question(void **state)
{
    (void)state;
    struct seen_files *f = seen_new(&open_count);
    struct stat st = {.st_size = 7};
    assert_null(seen_find(f, &here, WEIR_STR("/a"), false));
    assert_non_null(seen_put(f, &here, WEIR_STR("/a"), false, 0, -1, &st));
    assert_non_null(seen_put(f, &here, WEIR_STR("/b"), true, ENOENT, -1, &st));
    struct seen *s = seen_find(f, &here, WEIR_STR("/a"), false);
    assert_non_null(s);
    assert_int_equal(s->st.st_size, 7);
    assert_int_equal(seen_find(f, &here, WEIR_STR("/b"), true)->error, ENOENT);
    assert_null(seen_find(f, &there, WEIR_STR("/a"), false));
    assert_null(seen_find(f, &here, WEIR_STR("/a"), true));
    assert_null(seen_find(f, &here, WEIR_STR("/a/"), false));
    seen_turn_over(f);
    assert_null(seen_find(f, &here, WEIR_STR("/a"), false));
    assert_null(seen_find(f, &here, WEIR_STR("/b"), true));
    seen_free(f);
}

static void a_descriptor_closes_behind_its_turn_and_its_holders(void **state)
{
    (void)state;
    struct seen_files *f = seen_new(&open_count);
    struct stat st;
    int first = file("first", &st), second = file("second", &st), third = file("third", &st);
    assert_non_null(seen_put(f, &here, WEIR_STR("/first"), true, 0, first, &st));
    struct seen *held = seen_put(f, &here, WEIR_STR("/second"), true, 0, second, &st);
    open_count = 3;
    seen_hold(held);
    seen_hold(held);
    struct seen *brief = seen_put(f, &here, WEIR_STR("/third"), true, 0, third, &st);
    seen_hold(brief);
    seen_drop(brief);
    assert_true(is_open(third)); /* somebody may ask again */
    seen_turn_over(f);
    assert_false(is_open(first));
    assert_false(is_open(third));
    assert_true(is_open(second));
    assert_null(seen_find(f, &here, WEIR_STR("/second"), true));
    seen_drop(held);
    seen_turn_over(f);
    assert_true(is_open(second));
    seen_drop(held);
    assert_false(is_open(second));
    seen_free(f);
    assert_int_equal(open_count, 0);
}

static void without_room_the_descriptor_stays_the_callers(void **state)
{
    (void)state;
    struct seen_files *f = seen_new(&open_count);
    struct stat st;
    int fd = file("x", &st), kept = 0;
    char name[300];
    memset(name, 'n', sizeof name);
    assert_null(seen_put(f, &here, weir_str(name, sizeof name), true, 0, fd, &st));
    struct seen *held[1000], *s;
    for (int i = 0; i < 1000; i++) {
        int n = snprintf(name, sizeof name, "/%d", i);
        if (!(s = seen_put(f, &here, weir_str(name, (size_t)n), true, 0, dup(fd), &st))) continue;
        seen_hold(s);
        held[kept++] = s;
    }
    assert_in_range(kept, 16, 64);
    seen_turn_over(f);
    int more = 0;
    for (int i = 0; i < 1000; i++) { /* what is held is not given away */
        int n = snprintf(name, sizeof name, "/%d", i);
        more += seen_put(f, &here, weir_str(name, (size_t)n), false, 0, -1, &st) != NULL;
    }
    assert_in_range(more, 0, 64 - kept);
    for (int i = 0; i < kept; i++) {
        assert_true(is_open(held[i]->fd));
        seen_drop(held[i]);
        assert_int_equal(held[i]->fd, -1);
    }
    assert_true(is_open(fd));
    close(fd);
    seen_free(f);
}

static void content_is_held_for_the_second_who_asks_and_of_small_files(void **state)
{
    (void)state;
    struct seen_files *f = seen_new(&open_count);
    struct stat st;
    int fd = file("content", &st);
    struct seen *s = seen_put(f, &here, WEIR_STR("/c"), true, 0, fd, &st);
    assert_null(seen_content(s).ptr);
    assert_ptr_equal(seen_find(f, &here, WEIR_STR("/c"), true), s);
    assert_true(weir_str_eq(seen_content(s), WEIR_STR("content")));
    assert_ptr_equal(seen_content(s).ptr, seen_content(s).ptr);
    seen_hold(s);
    seen_turn_over(f);
    assert_null(seen_content(s).ptr);
    seen_drop(s);
    st.st_size = SEEN_CONTENT_MAX + 1;
    s = seen_put(f, &here, WEIR_STR("/large"), true, 0, file("larger in name only", &(struct stat){0}), &st);
    assert_ptr_equal(seen_find(f, &here, WEIR_STR("/large"), true), s);
    assert_null(seen_content(s).ptr);
    st.st_size = 100; /* it became shorter */
    s = seen_put(f, &here, WEIR_STR("/short"), true, 0, file("short", &(struct stat){0}), &st);
    assert_ptr_equal(seen_find(f, &here, WEIR_STR("/short"), true), s);
    assert_null(seen_content(s).ptr);
    seen_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_look_counts_for_its_turn_and_for_the_same_question),
        cmocka_unit_test(a_descriptor_closes_behind_its_turn_and_its_holders),
        cmocka_unit_test(without_room_the_descriptor_stays_the_callers),
        cmocka_unit_test(content_is_held_for_the_second_who_asks_and_of_small_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Links below a root, and from there into folders that were named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop.h"

static char top[64];

static const char *at(const char *name)
{
    static char path[2][256];
    static unsigned turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", top, name);
    return path[turn];
}

static void file(const char *name)
{
    int fd = open(at(name), O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, name, strlen(name)), strlen(name));
    close(fd);
}

static void folder(const char *name)
{
    assert_int_equal(mkdir(at(name), 0755), 0);
}

static void to(const char *name, const char *target)
{
    assert_int_equal(symlink(target, at(name)), 0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/weir-open-XXXXXX");
    if (!mkdtemp(top)) return -1;
    folder("app");
    folder("app/root");
    folder("app/root/sub");
    folder("shared");
    folder("shared/deep");
    folder("other");
    file("app/root/a");
    file("shared/b");
    file("shared/deep/c");
    file("other/secret");
    to("app/root/in", "a");
    to("app/root/up", "../../shared/b");
    to("app/root/sub/up", "../../../shared/b");
    to("app/root/folder", "../../shared");
    to("app/root/absolute", at("shared/b"));
    to("app/root/passwd", "/etc/passwd");
    to("app/root/other", "../../other/secret");
    to("app/root/loop", "loop");
    to("app/root/parent", "../..");
    to("shared/back", "../other/secret");
    to("shared/round", "../app/root/a");
    to("shared-link", "shared");
    to("app/root/by-link", "../../shared-link/b");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", top);
    return system(command);
}

static int folder_fd(const char *name)
{
    int fd = open(at(name), O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* The file that path names, as its text; "" if it cannot be opened. */
static const char *opened(const struct weir_open_area *areas, size_t count, const char *path)
{
    static char text[64];
    int fd = weir_open_linked(areas, count, path, O_RDONLY);
    if (fd < 0) return "";
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void without_areas_links_stay_below_the_root(void **state)
{
    (void)state;
    struct weir_open_area root = {folder_fd("app/root"), NULL};
    assert_string_equal(opened(&root, 1, "a"), "app/root/a");
    assert_string_equal(opened(&root, 1, "in"), "app/root/a");
    static const char *const out[] = {"up", "sub/up", "folder/b", "absolute", "passwd", "other", "loop", "parent/shared/b", "../a"};
    for (size_t i = 0; i < WEIR_COUNT(out); i++) assert_string_equal(opened(&root, 1, out[i]), "");
    close(root.fd);
}

static void links_lead_into_the_folders_that_are_named(void **state)
{
    (void)state;
    char root[128], shared[128];
    snprintf(root, sizeof root, "%s", at("app/root"));
    snprintf(shared, sizeof shared, "%s", at("shared"));
    struct weir_open_area areas[] = {{folder_fd("app/root"), root}, {folder_fd("shared"), shared}};
    assert_string_equal(opened(areas, 2, "a"), "app/root/a");
    assert_string_equal(opened(areas, 2, "in"), "app/root/a");
    assert_string_equal(opened(areas, 2, "up"), "shared/b");
    assert_string_equal(opened(areas, 2, "sub/up"), "shared/b");
    assert_string_equal(opened(areas, 2, "absolute"), "shared/b");
    assert_string_equal(opened(areas, 2, "folder/b"), "shared/b");
    assert_string_equal(opened(areas, 2, "folder/deep/c"), "shared/deep/c");
    assert_string_equal(opened(areas, 2, "folder/round"), "app/root/a"); /* and back */
    static const char *const out[] = {"passwd", "other", "loop", "folder/back", "folder/../other/secret", "parent/other/secret", "by-link"};
    for (size_t i = 0; i < WEIR_COUNT(out); i++) assert_string_equal(opened(areas, 2, out[i]), "");
    areas[1].path = at("shared-link"); /* as it is written, too */
    assert_string_equal(opened(areas, 2, "by-link"), "shared/b");
    close(areas[0].fd);
    close(areas[1].fd);
}

static void a_link_of_another_owner_leads_nowhere(void **state)
{
    (void)state;
    if (geteuid() != 0) skip();
    char root[128], shared[128];
    snprintf(root, sizeof root, "%s", at("app/root"));
    snprintf(shared, sizeof shared, "%s", at("shared"));
    struct weir_open_area areas[] = {{folder_fd("app/root"), root}, {folder_fd("shared"), shared}};
    assert_int_equal(lchown(at("app/root/up"), 1234, 1234), 0);
    assert_int_equal(lchown(at("app/root/folder"), 1234, 1234), 0);
    assert_string_equal(opened(areas, 2, "up"), "");
    assert_int_equal(errno, EACCES);
    assert_string_equal(opened(areas, 2, "folder/b"), "");
    assert_int_equal(lchown(at("app/root/up"), 0, 0), 0);
    assert_int_equal(lchown(at("app/root/folder"), 0, 0), 0);
    assert_string_equal(opened(areas, 2, "folder/b"), "shared/b");
    close(areas[0].fd);
    close(areas[1].fd);
}

static void no_descriptor_is_left(void **state)
{
    (void)state;
    char root[128], shared[128];
    snprintf(root, sizeof root, "%s", at("app/root"));
    snprintf(shared, sizeof shared, "%s", at("shared"));
    struct weir_open_area areas[] = {{folder_fd("app/root"), root}, {folder_fd("shared"), shared}};
    int before = dup(0);
    close(before);
    static const char *const all[] = {"up", "sub/up", "absolute", "folder/deep/c", "folder/round", "passwd", "folder/back", "sub/../sub/up", "parent/other/secret"};
    for (size_t i = 0; i < WEIR_COUNT(all); i++) (void)opened(areas, 2, all[i]);
    int after = dup(0);
    close(after);
    assert_int_equal(before, after);
    close(areas[0].fd);
    close(areas[1].fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_areas_links_stay_below_the_root), cmocka_unit_test(links_lead_into_the_folders_that_are_named),
        cmocka_unit_test(a_link_of_another_owner_leads_nowhere), cmocka_unit_test(no_descriptor_is_left),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* SPDX-License-Identifier: MIT */
/* Networks: what is one, how it is written, whose address belongs to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "loop/loop.h"

static void networks_are_read_and_written_in_one_form(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"192.0.2.1", "192.0.2.1"}, {"192.0.2.77/24", "192.0.2.0/24"}, {"192.0.2.1/32", "192.0.2.1"}, {"10.255.0.1/9", "10.128.0.0/9"},
        {"0.0.0.0/0", "0.0.0.0/0"}, {"2001:db8::1", "2001:db8::1"}, {"2001:DB8:ffff::/33", "2001:db8:8000::/33"}, {"::/0", "::/0"},
        {"::ffff:192.0.2.1", "192.0.2.1"}, {"::ffff:192.0.2.1/120", "192.0.2.0/24"}};
    for (size_t i = 0; i < WEIR_COUNT(pairs); i++) {
        struct weir_net n;
        char text[WEIR_NET_TEXT];
        assert_int_equal(weir_net_parse(weir_cstr(pairs[i][0]), &n), WEIR_OK);
        weir_net_text(&n, text);
        assert_string_equal(text, pairs[i][1]);
    }
}

static void what_is_no_network_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "/", "/8", "1.2.3", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/8 ", " 1.2.3.4", "1.2.3.256", "::1/129", "::g", "1.2.3.4/8/8",
                                      "[::1]", "localhost", "1.2.3.4:80", "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"};
    for (size_t i = 0; i < WEIR_COUNT(bad); i++) {
        struct weir_net n;
        assert_int_equal(weir_net_parse(weir_cstr(bad[i]), &n), WEIR_INVALID);
    }
    struct weir_net n;
    assert_int_equal(weir_net_parse(weir_str("1.2.3.4\0", 8), &n), WEIR_INVALID);
}

static void both_families_of_a_connection_give_one_address(void **state)
{
    (void)state;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    struct sockaddr local = {.sa_family = AF_UNIX};
    uint8_t a[16], b[16];
    v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(v6.sin6_addr.s6_addr + 12, &v4.sin_addr, 4);
    assert_true(weir_net_of((struct sockaddr *)&v4, a) && weir_net_of((struct sockaddr *)&v6, b));
    assert_memory_equal(a, b, 16);
    assert_false(weir_net_of(&local, a));
    weir_net_mask(b, 0);
    for (int i = 0; i < 16; i++) assert_int_equal(b[i], 0);
}

static void an_address_is_in_a_network_or_not(void **state)
{
    (void)state;
    static const struct {
        const char *net, *address;
        bool in;
    } cases[] = {{"10.0.0.0/8", "10.255.0.1", true}, {"10.0.0.0/8", "11.0.0.0", false}, {"10.0.0.0/9", "10.127.9.9", true}, {"10.0.0.0/9", "10.128.0.0", false},
                 {"0.0.0.0/0", "1.2.3.4", true}, {"0.0.0.0/0", "::1", false}, {"::/0", "1.2.3.4", false}, {"::ffff:0:0/96", "1.2.3.4", true}, {"::/0", "2001:db8::1", true}, {"2001:db8::/33", "2001:db8:7fff::", true},
                 {"2001:db8::/33", "2001:db8:8000::", false}, {"1.2.3.4", "1.2.3.4", true}, {"1.2.3.4", "1.2.3.5", false}};
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct weir_net n, a;
        struct sockaddr_storage s;
        uint8_t back[16];
        assert_int_equal(weir_net_parse(weir_cstr(cases[i].net), &n), WEIR_OK);
        assert_int_equal(weir_net_parse(weir_cstr(cases[i].address), &a), WEIR_OK);
        assert_int_equal(weir_net_has(&n, a.address), cases[i].in);
        weir_net_socket(a.address, 80, &s);
        assert_true(weir_net_of((struct sockaddr *)&s, back));
        assert_memory_equal(a.address, back, 16);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(networks_are_read_and_written_in_one_form), cmocka_unit_test(what_is_no_network_is_refused),
                                       cmocka_unit_test(both_families_of_a_connection_give_one_address), cmocka_unit_test(an_address_is_in_a_network_or_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* libfcgi when memory is refused: each allocation of a conversation in turn. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "script.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static int counted, refused = -1; /* the allocation that fails, -1: none */

static bool refuse(void)
{
    return counted++ == refused;
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : __real_calloc(n, size);
}

/* Two requests, with a body and output beyond the buffers: what came back. */
static char *converse(size_t *len, int *status)
{
    static const uint8_t one[] = "\1\1\0\1\0\10\0\0\0\1\1\0\0\0\0\0" "\1\4\0\1\0\4\0\0\1\1ab" "\1\4\0\1\0\0\0\0" "\1\5\0\1\0\3\0\0xyz" "\1\5\0\1\0\0\0\0";
    static const uint8_t ask[] = "\1\11\0\0\0\17\0\0\15\0FCGI_MAX_REQS";
    static char out[SCRIPT_ROOM];
    FCGX_Request r;
    int s[2], big = 1 << 20;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    assert_int_equal(write(s[1], ask, sizeof ask - 1), sizeof ask - 1);
    for (int i = 0; i < 2; i++) assert_int_equal(write(s[1], one, sizeof one - 1), sizeof one - 1);
    shutdown(s[1], SHUT_WR);
    FCGX_InitRequest(&r, -1, 0);
    r.ipcFd = s[0];
    *len = 0;
    while ((*status = FCGX_Accept_r(&r)) == 0) {
        char body[16];
        int n = FCGX_GetStr(body, sizeof body, r.in);
        FCGX_PutStr(body, n, r.out);
        FCGX_FPrintF(r.out, "%*d", 20000, 7);
        FCGX_FPrintF(r.err, "%s", "said");
        FCGX_Finish_r(&r);
        script_collect(s[1], out, len);
    }
    script_collect(s[1], out, len);
    close(s[1]);
    return out;
}

static int ends_of(const char *out, size_t len)
{
    static const char end[] = "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0";
    int count = 0;
    for (const char *p = out; (p = memmem(p, len - (size_t)(p - out), end, sizeof end)); p++) count++;
    return count;
}

static void each_refused_allocation_is_an_error_and_no_answer_is_called_whole_that_is_not(void **state)
{
    size_t len, whole;
    int status, total;
    (void)state;
    FCGX_Init();
    counted = 0;
    char *out = converse(&whole, &status);
    total = counted;
    assert_int_equal(ends_of(out, whole), 2);
    assert_int_equal(status, -EBADF); /* the end: there is no listening socket */
    assert_true(total > 10);
    for (int i = 0; i < total; i++) {
        counted = 0;
        refused = i;
        out = converse(&len, &status);
        refused = -1;
        assert_true(status == -ENOMEM || status == -EBADF);
        if (ends_of(out, len) == 2 && len != whole) fail_msg("allocation %d of %d: a part of an answer was called whole", i, total);
        out = converse(&len, &status); /* and then all is well again */
        assert_int_equal(len, whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_refused_allocation_is_an_error_and_no_answer_is_called_whole_that_is_not),
    };
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

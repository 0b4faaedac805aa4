/* SPDX-License-Identifier: MIT */
/* libfcgi: requests on any split of their bytes, streams that programs make, limits of the stream functions. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "fcgios.h"
#include "script.h"

/* ---- input ---- */

struct input {
    uint8_t bytes[8192];
    size_t len;
};

static void put_record(struct input *in, int type, int id, const void *p, size_t len, size_t padding)
{
    uint8_t header[8] = {1, (uint8_t)type, (uint8_t)(id >> 8), (uint8_t)id, (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)padding, 0};
    assert_true(in->len + 8 + len + padding <= sizeof in->bytes);
    memcpy(in->bytes + in->len, header, 8);
    if (len) memcpy(in->bytes + in->len + 8, p, len);
    memset(in->bytes + in->len + 8 + len, 0xaa, padding);
    in->len += 8 + len + padding;
}

static void put_begin(struct input *in, int id, int role, int keep, const char *what)
{
    const uint8_t body[8] = {0, (uint8_t)role, (uint8_t)keep};
    uint8_t pair[300];
    size_t n = strlen(what);
    put_record(in, FCGI_BEGIN_REQUEST, id, body, 8, 3);
    pair[0] = (uint8_t)n;
    pair[1] = 1;
    memcpy(pair + 2, what, n);
    pair[2 + n] = 'v';
    memcpy(pair + 3 + n, "\x05\x80\x00\x00\x03OTHERxyz", 13);
    put_record(in, FCGI_PARAMS, id, pair, 5 + n, 1); /* the second pair straddles records */
    put_record(in, FCGI_PARAMS, id, pair + 5 + n, 11, 0);
    put_record(in, FCGI_PARAMS, id, NULL, 0, 7);
}

static void put_body(struct input *in, int type, int id, const char *text)
{
    size_t half = strlen(text) / 2;
    if (half) put_record(in, type, id, text, half, 2);
    put_record(in, type, id, text + half, strlen(text) - half, 0);
    put_record(in, type, id, NULL, 0, 5);
}

/* All that a web server may say on one connection, one request after the other. */
static void make_conversation(struct input *in)
{
    in->len = 0;
    put_record(in, FCGI_GET_VALUES, 0, "\x0f\0FCGI_MPXS_CONNS\x0d\0FCGI_MAX_REQS", 32, 0);
    put_begin(in, 1, FCGI_RESPONDER, 1, "l");
    put_body(in, FCGI_STDIN, 1, "one line\nand another\nrest");
    put_begin(in, 300, FCGI_RESPONDER, 1, "c");
    put_record(in, 99, 0, "unknown", 7, 1);
    put_begin(in, 4, FCGI_RESPONDER, 1, "s"); /* a second one beside it: refused */
    put_record(in, FCGI_STDIN, 77, NULL, 0, 0);
    put_body(in, FCGI_STDIN, 300, "by characters");
    put_begin(in, 1, FCGI_FILTER, 1, "sx");
    put_body(in, FCGI_STDIN, 1, "input");
    put_body(in, FCGI_DATA, 1, "file");
    put_begin(in, 2, FCGI_RESPONDER, 1, "nobody reads it");
    put_body(in, FCGI_STDIN, 2, "\1\1\0\3\0\10\0\0 a body of records");
    put_begin(in, 3, 9, 1, "no role");
    put_begin(in, 5, FCGI_RESPONDER, 1, "se");
    put_record(in, FCGI_STDIN, 5, "par", 3, 0);
    put_record(in, FCGI_ABORT_REQUEST, 5, NULL, 0, 0);
    put_record(in, FCGI_STDIN, 5, "late", 4, 0);
    put_begin(in, 6, FCGI_RESPONDER, 1, "f"); /* given up by the program */
    put_body(in, FCGI_STDIN, 6, "forgotten");
    put_begin(in, 7, FCGI_AUTHORIZER, 0, "loex");
    put_body(in, FCGI_STDIN, 7, "last\n");
    put_begin(in, 8, FCGI_RESPONDER, 1, "never served");
}

/* ---- splits ---- */

static size_t all_at_once(void *arg, size_t at, size_t len)
{
    (void)arg;
    return len - at;
}

static size_t split_once(void *arg, size_t at, size_t len)
{
    size_t where = *(size_t *)arg;
    return at < where ? where - at : len - at;
}

static size_t split_often(void *arg, size_t at, size_t len)
{
    size_t n = 1 + weir_random_next(arg) % 40;
    return n < len - at ? n : len - at;
}

static size_t one_byte(void *arg, size_t at, size_t len)
{
    (void)arg, (void)at, (void)len;
    return 1;
}

static void assert_same(const struct input *in, next_piece_fn next, void *arg, const char *want, size_t want_len)
{
    size_t len;
    char *out = script_run(in->bytes, in->len, next, arg, &len);
    assert_int_equal(len, want_len);
    assert_memory_equal(out, want, len);
    free(out);
}

static bool contains(const char *out, size_t len, const char *text)
{
    return memmem(out, len, text, strlen(text)) != NULL;
}

static void any_split_of_the_input_gives_the_same_output(void **state)
{
    struct input in;
    size_t len;
    (void)state;
    make_conversation(&in);
    char *out = script_run(in.bytes, in.len, all_at_once, NULL, &len);
    const char *const seen[] = {"one line\nand another\nrest", "[FCGI_ROLE=RESPONDER][c=v][OTHER=xyz]by characters", "[FCGI_ROLE=FILTER]", "input|data:file",
                                "[nobody reads it=v]", "par", "error -3\n", "[FCGI_ROLE=AUTHORIZER]", "FCGI_MPXS_CONNS0"};
    const char *const unseen[] = {"late", "a body of records", "forgotten", "never served", "unknown"};
    for (size_t i = 0; i < WEIR_COUNT(seen); i++)
        if (!contains(out, len, seen[i])) fail_msg("not in the output: %s", seen[i]);
    for (size_t i = 0; i < WEIR_COUNT(unseen); i++)
        if (contains(out, len, unseen[i])) fail_msg("in the output: %s", unseen[i]);
    for (size_t at = 1; at < in.len; at++) assert_same(&in, split_once, &at, out, len);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct weir_random r = {seed};
        assert_same(&in, split_often, &r, out, len);
    }
    assert_same(&in, one_byte, NULL, out, len);
    free(out);
}

static void a_cut_at_any_place_runs_no_request_without_all_of_its_parameters(void **state)
{
    struct input in = {.len = 0};
    (void)state;
    put_begin(&in, 1, FCGI_RESPONDER, 1, "l");
    for (size_t cut = 0; cut < in.len; cut++) {
        size_t len;
        char *out = script_run(in.bytes, cut, all_at_once, NULL, &len);
        if (contains(out, len, "FCGI_ROLE") != (cut >= in.len - 7)) fail_msg("cut at %zu of %zu", cut, in.len); /* 7: padding */
        free(out);
    }
}

static void the_end_tells_status_and_streams_in_order(void **state)
{
    static const uint8_t want[] = {1, 7, 0, 9, 0, 8, 0, 0, 'e', 'r', 'r', 'o', 'r', ' ', '0', '\n', 1, 7, 0, 9, 0, 0, 0, 0};
    static const uint8_t end[] = {1, 6, 0, 9, 0, 0, 0, 0, 1, 3, 0, 9, 0, 8, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0};
    struct input in = {.len = 0};
    size_t len;
    (void)state;
    put_begin(&in, 9, FCGI_RESPONDER, 0, "sex");
    put_body(&in, FCGI_STDIN, 9, "");
    char *out = script_run(in.bytes, in.len, all_at_once, NULL, &len);
    assert_true(len > sizeof want + sizeof end);
    assert_memory_equal(out, want, sizeof want); /* STDERR and its end come first */
    assert_memory_equal(out + len - sizeof end, end, sizeof end);
    free(out);
}

/* ---- streams of a program's own ---- */

static struct {
    unsigned char buf[16];
    char all[4096];
    size_t len;
    int closed;
} sink;

static void sink_empty(FCGX_Stream *s, int do_close)
{
    size_t n = (size_t)(s->wrNext - sink.buf);
    memcpy(sink.all + sink.len, sink.buf, n);
    sink.len += n;
    sink.closed += do_close;
    s->wrNext = sink.buf;
}

static FCGX_Stream make_sink(void)
{
    memset(&sink, 0, sizeof sink);
    return (FCGX_Stream){.wrNext = sink.buf, .stop = sink.buf + sizeof sink.buf, .rdNext = sink.buf + sizeof sink.buf, .emptyBuffProc = sink_empty};
}

static void streams_that_a_program_makes_work_by_their_fields(void **state)
{
    FCGX_Stream s = make_sink();
    (void)state;
    assert_int_equal(FCGX_PutStr("0123456789abcdefXYZ", 19, &s), 19);
    assert_int_equal(FCGX_PutChar(0x1ff, &s), 0xff);
    assert_int_equal(FCGX_FPrintF(&s, "%s-%*d", "a text that is longer than the buffer", 20, 7), 58);
    assert_int_equal(FCGX_PutS("", &s), 0);
    assert_int_equal(FCGX_FFlush(&s), 0);
    assert_int_equal(FCGX_FClose(&s), 0);
    assert_int_equal(FCGX_FClose(&s), 0);
    assert_int_equal(sink.closed, 1);
    assert_int_equal(sink.len, 19 + 1 + 58);
    assert_memory_equal(sink.all, "0123456789abcdefXYZ\xff" "a text that is longer than the buffer-                   7", sink.len);
    assert_int_equal(FCGX_PutChar('x', &s), EOF);
    assert_int_equal(FCGX_PutStr("x", 1, &s), EOF);
    assert_int_equal(FCGX_FPrintF(&s, "%d", 1), EOF);
    FCGX_SetExitStatus(1, &s); /* of no request: nothing happens */
    assert_int_equal(FCGX_StartFilterData(&s), -1);
    assert_int_equal(FCGX_GetError(&s), FCGX_CALL_SEQ_ERROR);
    FCGX_ClearError(&s);
    assert_int_equal(FCGX_GetError(&s), 0);
}

static int source_left;

static void source_fill(FCGX_Stream *s)
{
    static unsigned char bytes[8];
    if (source_left-- <= 0) {
        s->isClosed = 1;
        return;
    }
    memcpy(bytes, "ab\ncdefg", 8);
    s->rdNext = bytes;
    s->stop = s->wrNext = bytes + sizeof bytes;
}

static void readers_give_lines_bytes_and_one_step_back(void **state)
{
    FCGX_Stream s = {.isReader = 1, .fillBuffProc = source_fill};
    char buf[32];
    (void)state;
    source_left = 2;
    assert_int_equal(FCGX_UnGetChar('x', &s), EOF); /* nothing came yet */
    assert_string_equal(FCGX_GetLine(buf, sizeof buf, &s), "ab\n");
    assert_int_equal(FCGX_GetChar(&s), 'c');
    assert_int_equal(FCGX_UnGetChar('C', &s), 'C');
    assert_int_equal(FCGX_GetChar(&s), 'C');
    assert_string_equal(FCGX_GetLine(buf, 1, &s), "");
    assert_null(FCGX_GetLine(buf, 0, &s));
    assert_string_equal(FCGX_GetLine(buf, 4, &s), "def");
    assert_int_equal(FCGX_GetStr(buf, 0, &s), 0);
    assert_int_equal(FCGX_GetStr(buf, -5, &s), 0);
    assert_int_equal(FCGX_GetStr(buf, 30, &s), 9);
    assert_memory_equal(buf, "gab\ncdefg", 9);
    assert_int_equal(FCGX_HasSeenEOF(&s), EOF);
    assert_int_equal(FCGX_GetChar(&s), EOF);
    assert_int_equal(FCGX_UnGetChar('x', &s), EOF);
    assert_null(FCGX_GetLine(buf, sizeof buf, &s));
    assert_int_equal(FCGX_PutChar('x', &s), EOF);
    assert_int_equal(FCGX_PutStr("x", INT_MIN, &s), EOF);
}

static void a_writer_on_a_descriptor_makes_records_and_an_end(void **state)
{
    static const uint8_t want[] = "\1\4\1\54\0\30\0\0" "012345678901234567890123" "\1\4\1\54\0\2\0\0" "45" "\1\4\1\54\0\0\0\0";
    uint8_t got[sizeof want];
    int p[2];
    (void)state;
    assert_int_equal(pipe(p), 0);
    FCGX_Stream *s = FCGX_CreateWriter(p[1], 300, 1, FCGI_PARAMS); /* 32 bytes at least, 8 of them for the header */
    assert_non_null(s);
    assert_int_equal(FCGX_PutS("01234567890123456789012345", s), 26);
    assert_int_equal(FCGX_FClose(s), 0);
    FCGX_FreeStream(&s);
    assert_null(s);
    FCGX_FreeStream(&s);
    assert_int_equal(read(p[0], got, sizeof got), sizeof want - 1);
    assert_memory_equal(got, want, sizeof want - 1);
    close(p[0]);
    close(p[1]);
}

static void a_peer_that_is_gone_is_an_error_of_the_writer(void **state)
{
    int s[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    FCGX_Stream *w = FCGX_CreateWriter(s[0], 1, 64, FCGI_STDOUT);
    assert_non_null(w);
    close(s[1]);
    assert_int_equal(FCGX_PutS("x", w), 1);
    assert_int_equal(FCGX_FFlush(w), EOF);
    assert_int_equal(FCGX_GetError(w), EPIPE);
    assert_int_equal(FCGX_PutS("x", w), EOF);
    FCGX_FreeStream(&w);
    close(s[0]);
}

/* ---- the rest ---- */

static void calls_without_a_request_or_in_the_wrong_order_are_answered(void **state)
{
    FCGX_Request r;
    char a[] = "A=1", ab[] = "AB=2", again[] = "A=3", *envp[] = {a, ab, again, NULL};
    (void)state;
    FCGX_InitRequest(&r, -1, 0);
    assert_int_equal(r.ipcFd, -1);
    FCGX_Finish_r(NULL);
    FCGX_Free(NULL, 1);
    FCGX_Finish_r(&r);
    FCGX_Free(&r, 1);
    assert_int_equal(FCGX_Detach(&r), -1);
    assert_int_equal(FCGX_Attach(&r), 0);
    assert_int_equal(FCGX_FClose(NULL), 0);
    FCGX_Init();
    assert_int_equal(FCGX_Accept_r(&r), -EBADF);
    assert_string_equal(FCGX_GetParam("A", envp), "1");
    assert_string_equal(FCGX_GetParam("AB", envp), "2");
    assert_null(FCGX_GetParam("B", envp));
    assert_null(FCGX_GetParam(NULL, envp));
    assert_null(FCGX_GetParam("A", NULL));
}

static void addresses_that_cannot_be_used_are_errors_and_files_stay(void **state)
{
    char path[] = "/tmp/weir-libfcgi-XXXXXX", text[64], longer[300];
    int file = mkstemp(path);
    (void)state;
    assert_true(file >= 0);
    assert_int_equal(FCGX_OpenSocket(path, 5), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(access(path, F_OK), 0);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(FCGX_OpenSocket(longer, 5), -1);
    assert_int_equal(FCGX_OpenSocket("/no/such/folder/s", 5), -1);
    assert_int_equal(FCGX_OpenSocket("", 5), -1);
    assert_int_equal(FCGX_OpenSocket("no.such.host.invalid:9", 5), -1);
    unlink(path);
    for (int i = 0; i < 2; i++) { /* a socket that was left is replaced */
        int fd = FCGX_OpenSocket(path, 5);
        assert_true(fd >= 0);
        assert_true(OS_IsFcgi(fd));
        int c = OS_FcgiConnect(path);
        assert_true(c >= 0);
        assert_false(OS_IsFcgi(c));
        OS_Close(c, 0);
        OS_Close(fd, 0);
    }
    unlink(path);
    close(file);
    for (int port = 20000, fd = -1; fd < 0 && port < 20100; port++) {
        snprintf(text, sizeof text, "[::1]:%d", port);
        fd = FCGX_OpenSocket(text, 5);
        if (fd < 0 && errno == EADDRNOTAVAIL) break; /* no IPv6 here */
        if (fd < 0) continue;
        int c = OS_FcgiConnect(text);
        assert_true(c >= 0);
        OS_Close(c, 0);
        OS_Close(fd, 0);
    }
}

static struct {
    int fd[2], got, wrote, rounds;
    char buf[8];
} io;

static void on_written(ClientData data, int len)
{
    assert_ptr_equal(data, &io);
    io.wrote += len;
}

static void on_read(ClientData data, int len)
{
    io.got += len;
    if (++io.rounds < 3) assert_int_equal(OS_AsyncRead(io.fd[0], 0, io.buf, 2, on_read, data), 0);
}

static void ordered_reads_and_writes_are_done_when_the_descriptor_is_ready(void **state)
{
    char text[] = "abcdef";
    struct timeval soon = {.tv_usec = 1000};
    (void)state;
    OS_LibInit(NULL);
    assert_int_equal(pipe(io.fd), 0);
    assert_int_equal(dup2(io.fd[0], 1500), 1500); /* no limit as select()'s */
    close(io.fd[0]);
    io.fd[0] = 1500;
    assert_int_equal(OS_AsyncRead(io.fd[0], 0, io.buf, 2, on_read, &io), 0);
    assert_int_equal(OS_DoIo(&soon), 0);
    assert_int_equal(io.got, 0);
    assert_int_equal(OS_AsyncWrite(io.fd[1], 0, text, 6, on_written, &io), 0);
    for (int i = 0; i < 4; i++) assert_int_equal(OS_DoIo(&soon), 0);
    assert_int_equal(io.wrote, 6);
    assert_int_equal(io.got, 6);
    assert_int_equal(OS_AsyncRead(io.fd[0], 0, io.buf, 2, on_read, &io), 0);
    OS_Close(io.fd[0], 0); /* forgets it */
    assert_int_equal(OS_DoIo(&soon), 0);
    assert_int_equal(io.rounds, 3);
    assert_int_equal(OS_AsyncRead(-1, 0, io.buf, 2, on_read, &io), -1);
    close(io.fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_of_the_input_gives_the_same_output),
        cmocka_unit_test(a_cut_at_any_place_runs_no_request_without_all_of_its_parameters),
        cmocka_unit_test(the_end_tells_status_and_streams_in_order),
        cmocka_unit_test(streams_that_a_program_makes_work_by_their_fields),
        cmocka_unit_test(readers_give_lines_bytes_and_one_step_back),
        cmocka_unit_test(a_writer_on_a_descriptor_makes_records_and_an_end),
        cmocka_unit_test(a_peer_that_is_gone_is_an_error_of_the_writer),
        cmocka_unit_test(calls_without_a_request_or_in_the_wrong_order_are_answered),
        cmocka_unit_test(addresses_that_cannot_be_used_are_errors_and_files_stay),
        cmocka_unit_test(ordered_reads_and_writes_are_done_when_the_descriptor_is_ready),
    };
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

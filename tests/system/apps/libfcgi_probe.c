/* SPDX-License-Identifier: MIT */
/* A libfcgi program whose requests say what it does: QUERY_STRING is words separated by '&', done one after the other. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "fcgiapp.h"
#include "fcgios.h"

static FCGX_Request r;

static void read_body(long most)
{
    static char bytes[1 << 20];
    long got = 0;
    int n = 1;
    while (got < most && n > 0) {
        long want = most - got < (long)sizeof bytes - got ? most - got : (long)sizeof bytes - got;
        n = FCGX_GetStr(bytes + got, (int)want, r.in);
        got += n;
    }
    FCGX_FPrintF(r.out, "read %ld error %d: ", got, FCGX_GetError(r.in));
    FCGX_PutStr(bytes, (int)(got < 200 ? got : 200), r.out);
    FCGX_PutS("\n", r.out);
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0666);
    if (fd >= 0) close(fd);
}

static void wait_for(const char *path)
{
    while (access(path, F_OK) != 0) poll(NULL, 0, 5);
}

#define SAY(...) FCGX_FPrintF(r.out, "=%d\n", FCGX_FPrintF(r.out, __VA_ARGS__))
static void print_format(int which)
{
    static char *none;
    static const char *const wide = "%120d", *const negative = "%*d", *const text = "%200s", *const exponent = "%200.3e";
    switch (which) {
    case 0: SAY(wide, 7); break;
    case 1: SAY(negative, -300, 7); break;
    case 2: SAY(text, "x"); break;
    case 3: SAY(exponent, 1.5); break;
    case 4: SAY("%s", none ? none : (char *)NULL); break;
    case 5: SAY("%zu", (size_t)5); break;
    case 6: SAY("%jd", (intmax_t)-5); break;
    case 7: SAY("%hhd", 300); break;
    case 8: SAY("%lf", 1.5); break;
    case 9: SAY("%a", 1.0); break;
    case 10: SAY("%td", (ptrdiff_t)-3); break;
    case 11: SAY("%ls", L"wide"); break;
    case 12: SAY("%F", 2.5); break;
    case 13: SAY("%lld %hd %5.2f %-4d| %c %x %% %10.3s|", -1099511627776LL, 4464, 3.14159, 42, 'z', 255u, "abcdef"); break;
    default: break;
    }
}

static void put_much(long n)
{
    static char piece[100000];
    memset(piece, 'x', sizeof piece);
    for (long k; n > 0; n -= k) {
        k = n < (long)sizeof piece ? n : (long)sizeof piece;
        if (FCGX_PutStr(piece, (int)k, r.out) < 0) break;
    }
}

static void close_early(void)
{
    FCGX_FClose(r.out);
    FCGX_FClose(r.err);
}

static int is(const char *word, const char *name, const char **value)
{
    size_t len = strlen(name);
    if (strncmp(word, name, len) != 0 || (word[len] != 0 && word[len] != '=')) return 0;
    *value = word[len] ? word + len + 1 : "";
    return 1;
}

static void carry_out(const char *word)
{
    const char *v;
    if (is(word, "env", &v))
        for (char **e = r.envp; *e; e++) FCGX_FPrintF(r.out, "%s\n", *e);
    else if (is(word, "read", &v)) read_body(*v ? atol(v) : 1 << 20);
    else if (is(word, "status", &v)) FCGX_SetExitStatus(atoi(v), r.out);
    else if (is(word, "err", &v)) FCGX_FPrintF(r.err, "%s\n", v);
    else if (is(word, "flush", &v)) FCGX_FFlush(r.out);
    else if (is(word, "touch", &v)) touch(v);
    else if (is(word, "wait", &v)) wait_for(v);
    else if (is(word, "printf", &v)) print_format(atoi(v));
    else if (is(word, "putstr", &v)) FCGX_FPrintF(r.out, "putstr %d\n", FCGX_PutStr("abc", atoi(v), r.out));
    else if (is(word, "close", &v)) close_early();
    else if (is(word, "much", &v)) put_much(atol(v));
    else if (is(word, "nonblocking", &v)) fcntl(r.ipcFd, F_SETFL, O_NONBLOCK);
    else if (is(word, "nothing", &v)) FCGX_FPrintF(r.out, "nothing\n");
}

/* probe [begin-anew]: after the end of accepting once more. */
int main(int argc, char **argv)
{
    int again = argc > 1 && strcmp(argv[1], "begin-anew") == 0;
    FCGX_Init();
    do {
        int status;
        FCGX_InitRequest(&r, 0, 0);
        while ((status = FCGX_Accept_r(&r)) == 0) {
            const char *query = FCGX_GetParam("QUERY_STRING", r.envp);
            char words[4096], *rest = words;
            snprintf(words, sizeof words, "%s", query ? query : "");
            for (char *word; (word = strsep(&rest, "&"));) carry_out(word);
            FCGX_Finish_r(&r);
        }
        dprintf(STDERR_FILENO, "accept %d\n", status);
        OS_LibShutdown();
        OS_LibInit(NULL);
    } while (again--);
    return 0;
}

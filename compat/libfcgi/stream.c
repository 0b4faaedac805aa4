/* SPDX-License-Identifier: MIT */
/* FCGX_Stream's functions. They work on the public fields and the two function pointers alone. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* The first one counts. */
void stream_error(FCGX_Stream *s, int code)
{
    if (s->FCGI_errno == 0) s->FCGI_errno = code;
    s->isClosed = 1;
}

static size_t room(const FCGX_Stream *s) /* for writing */
{
    return (size_t)(s->stop - s->wrNext);
}

static size_t waiting(const FCGX_Stream *s) /* for reading */
{
    return (size_t)(s->stop - s->rdNext);
}

/* ---- reading ---- */

/* There are bytes to read, after waiting for them: false: the end. */
static bool refill(FCGX_Stream *s)
{
    if (s->isClosed || !s->isReader) return false;
    if (waiting(s)) return true;
    s->fillBuffProc(s);
    if (s->isClosed) return false;
    s->stopUnget = s->rdNext;
    return waiting(s) != 0;
}

int FCGX_GetChar(FCGX_Stream *s)
{
    return refill(s) ? *s->rdNext++ : EOF;
}

int FCGX_UnGetChar(int c, FCGX_Stream *s)
{
    if (c == EOF || s->isClosed || !s->isReader || s->rdNext == s->stopUnget) return EOF;
    *--s->rdNext = (unsigned char)c;
    return c;
}

int FCGX_GetStr(char *str, int n, FCGX_Stream *s)
{
    size_t got = 0, want = n > 0 ? (size_t)n : 0;
    while (got < want && refill(s)) {
        size_t k = waiting(s) < want - got ? waiting(s) : want - got;
        memcpy(str + got, s->rdNext, k);
        s->rdNext += k;
        got += k;
    }
    return (int)got;
}

char *FCGX_GetLine(char *str, int n, FCGX_Stream *s)
{
    size_t got = 0;
    if (n < 1) return NULL;
    while (got < (size_t)n - 1 && refill(s)) {
        size_t k = waiting(s) < (size_t)n - 1 - got ? waiting(s) : (size_t)n - 1 - got;
        const unsigned char *newline = memchr(s->rdNext, '\n', k);
        if (newline) k = (size_t)(newline - s->rdNext) + 1;
        memcpy(str + got, s->rdNext, k);
        s->rdNext += k;
        got += k;
        if (newline) break;
    }
    if (got == 0 && n > 1) return NULL;
    str[got] = 0;
    return str;
}

int FCGX_HasSeenEOF(FCGX_Stream *s)
{
    return s->isClosed ? EOF : 0;
}

/* ---- writing ---- */

int FCGX_PutChar(int c, FCGX_Stream *s)
{
    if (!room(s)) {
        if (s->isClosed || s->isReader) return EOF;
        s->emptyBuffProc(s, 0);
        if (s->isClosed || !room(s)) return EOF;
    }
    return *s->wrNext++ = (unsigned char)c;
}

int FCGX_PutStr(const char *str, int n, FCGX_Stream *s)
{
    if (n < 0) return EOF;
    size_t left = (size_t)n;
    if (left > room(s) && write_through(s, str, left)) return s->isClosed ? EOF : n;
    for (;;) {
        size_t k = left < room(s) ? left : room(s);
        if (k) memcpy(s->wrNext, str, k);
        s->wrNext += k;
        str += k;
        left -= k;
        if (left == 0) return n;
        if (s->isClosed || s->isReader) return EOF;
        s->emptyBuffProc(s, 0);
        if (s->isClosed) return EOF;
    }
}

int FCGX_PutS(const char *str, FCGX_Stream *s)
{
    size_t len = strlen(str);
    return len > INT_MAX ? EOF : FCGX_PutStr(str, (int)len, s);
}

int FCGX_FFlush(FCGX_Stream *s)
{
    if (s->isClosed || s->isReader) return 0;
    s->emptyBuffProc(s, 0);
    return s->isClosed ? EOF : 0;
}

/* ---- printf ---- */

/* First into the room that is left; what does not fit is made once more in memory of its size. */
int FCGX_VFPrintF(FCGX_Stream *s, const char *format, va_list arg)
{
    va_list again;
    if (s->isReader || (s->isClosed && !room(s))) return EOF;
    va_copy(again, arg);
    int n = vsnprintf((char *)s->wrNext, room(s), format, arg);
    if (n >= 0 && (size_t)n < room(s)) {
        s->wrNext += n;
    } else if (n >= 0) {
        char *text = malloc((size_t)n + 1);
        if (!text) stream_error(s, ENOMEM);
        else vsnprintf(text, (size_t)n + 1, format, again);
        if (!text || FCGX_PutStr(text, n, s) < 0) n = EOF;
        free(text);
    }
    va_end(again);
    return n < 0 ? EOF : n;
}

int FCGX_FPrintF(FCGX_Stream *s, const char *format, ...)
{
    va_list arg;
    va_start(arg, format);
    int n = FCGX_VFPrintF(s, format, arg);
    va_end(arg);
    return n;
}

/* ---- both ---- */

int FCGX_FClose(FCGX_Stream *s)
{
    if (!s) return 0;
    if (!s->wasFCloseCalled) {
        if (!s->isReader) s->emptyBuffProc(s, 1);
        s->wasFCloseCalled = 1;
        s->isClosed = 1;
        if (s->isReader) s->wrNext = s->stop = s->rdNext;
        else s->rdNext = s->stop = s->wrNext;
    }
    return s->FCGI_errno == 0 ? 0 : EOF;
}

int FCGX_GetError(FCGX_Stream *s)
{
    return s->FCGI_errno;
}

void FCGX_ClearError(FCGX_Stream *s)
{
    s->FCGI_errno = 0;
}

void FCGX_FreeStream(FCGX_Stream **s)
{
    if (!s || !*s) return;
    free(*s);
    *s = NULL;
}

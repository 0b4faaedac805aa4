// SPDX-License-Identifier: MIT
// fcgio.h: a stream buffer between C++ streams and a request's streams.
#include "fcgio.h"

#include <climits>
#include <cstdio>

// ---- life ----

void fcgi_streambuf::init(FCGX_Stream *stream, char_type *space, std::streamsize size)
{
    fcgx = stream;
    buf = 0;
    bufsize = 0;
    if (stream && stream->isReader) {
        setg(0, 0, 0);
    }
    setbuf(space, size);
}

fcgi_streambuf::fcgi_streambuf(FCGX_Stream *stream, char *space, int size)
{
    init(stream, space, size);
}

fcgi_streambuf::fcgi_streambuf(char_type *space, std::streamsize size)
{
    init(0, space, size);
}

fcgi_streambuf::fcgi_streambuf(FCGX_Stream *stream)
{
    init(stream, 0, 0);
}

fcgi_streambuf::~fcgi_streambuf(void)
{
    overflow(EOF);
}

int fcgi_streambuf::attach(FCGX_Stream *stream)
{
    int status = overflow(EOF) == EOF ? -1 : 0;
    fcgx = stream;
    reset();
    return status;
}

// The buffer is empty, for both directions.
void fcgi_streambuf::reset(void)
{
    setg(buf, buf, buf);
    setp(buf, buf + bufsize);
}

std::streambuf *fcgi_streambuf::setbuf(char_type *space, std::streamsize size)
{
    if (buf) return 0; // one that is in use stays
    if (!space || size <= 0) {
        reset();
        return this;
    }
    buf = space;
    bufsize = size;
    reset();
    return this;
}

// ---- writing ----

// What is buffered goes to the stream, and c behind it: EOF when that fails.
int fcgi_streambuf::overflow(int c)
{
    const std::streamsize waiting = pptr() ? pptr() - pbase() : 0;
    if (bufsize && waiting > 0) {
        const std::streamsize n = fcgx ? FCGX_PutStr(pbase(), int(waiting), fcgx) : -1;
        if (n != waiting) return EOF;
        setp(buf, buf + bufsize);
    }
    if (c == EOF) return 0;
    if (!fcgx) return EOF;
    if (bufsize) return sputc(traits_type::to_char_type(c));
    return FCGX_PutChar(c, fcgx);
}

std::streamsize fcgi_streambuf::xsputn(const char_type *s, std::streamsize n)
{
    if (bufsize) return std::streambuf::xsputn(s, n);
    std::streamsize put = 0;
    while (fcgx && put < n) {
        const int piece = n - put > INT_MAX ? INT_MAX : int(n - put);
        if (FCGX_PutStr(s + put, piece, fcgx) < 0) break;
        put += piece;
    }
    return put;
}

int fcgi_streambuf::sync()
{
    if (overflow(EOF) == EOF) return -1;
    return fcgx && FCGX_FFlush(fcgx) ? -1 : 0;
}

// ---- reading ----

int fcgi_streambuf::uflow()
{
    if (!bufsize) return fcgx ? FCGX_GetChar(fcgx) : EOF;
    const int c = underflow();
    if (c != EOF) gbump(1);
    return c;
}

int fcgi_streambuf::underflow()
{
    if (!fcgx) return EOF;
    if (!bufsize) { // a look at the next one: it goes back
        const int c = FCGX_GetChar(fcgx);
        if (c != EOF) FCGX_UnGetChar(c, fcgx);
        return c;
    }
    if (gptr() < egptr()) return traits_type::to_int_type(*gptr());
    const int n = FCGX_GetStr(buf, bufsize > INT_MAX ? INT_MAX : int(bufsize), fcgx);
    if (n <= 0) return EOF;
    setg(buf, buf, buf + n);
    return traits_type::to_int_type(*gptr());
}

std::streamsize fcgi_streambuf::xsgetn(char_type *s, std::streamsize n)
{
    if (bufsize) return std::streambuf::xsgetn(s, n);
    std::streamsize got = 0;
    while (fcgx && got < n) {
        const int piece = n - got > INT_MAX ? INT_MAX : int(n - got);
        const int k = FCGX_GetStr(s + got, piece, fcgx);
        got += k;
        if (k < piece) break;
    }
    return got;
}

// ---- deprecated classes ----

fcgi_istream::fcgi_istream(FCGX_Stream *stream) : std::istream(0), fcgi_strmbuf(stream)
{
    rdbuf(&fcgi_strmbuf);
}

void fcgi_istream::attach(FCGX_Stream *stream)
{
    fcgi_strmbuf.attach(stream);
    clear();
}

fcgi_ostream::fcgi_ostream(FCGX_Stream *stream) : std::ostream(0), fcgi_strmbuf(stream)
{
    rdbuf(&fcgi_strmbuf);
}

void fcgi_ostream::attach(FCGX_Stream *stream)
{
    fcgi_strmbuf.attach(stream);
    clear();
}

/* SPDX-License-Identifier: MIT */
/* A C++ stream buffer on a stream of fcgiapp.h: std::cout.rdbuf(&buf), or a std::ostream of its own. */
#ifndef FCGIO_H
#define FCGIO_H

#include <iostream>

#include "fcgi_config.h"
#include "fcgiapp.h"

#ifndef DLLAPI
#define DLLAPI
#endif

#if !HAVE_STREAMBUF_CHAR_TYPE
typedef char char_type;
#endif

/* Without a buffer of its own (the default) each character goes straight to the request's stream, and peek(), unget() and
 * putback() reach no further than that stream lets them. With one, output has to be flushed, or the object destroyed, before the
 * next request is accepted. */
class DLLAPI fcgi_streambuf : public std::streambuf
{
public:
    fcgi_streambuf(FCGX_Stream *fcgx, char *buf, int len);
    fcgi_streambuf(char_type *buf, std::streamsize len);
    fcgi_streambuf(FCGX_Stream *fcgx = 0);
    ~fcgi_streambuf(void); /* hands the rest to the request's stream, which is not flushed */

    int attach(FCGX_Stream *fcgx); /* from now on this stream; what waits is handed to the former one. 0, or -1: that failed */

protected:
    virtual int overflow(int);
    virtual int sync(); /* flushes the request's stream, too */
    virtual int uflow();
    virtual int underflow();
    virtual std::streambuf *setbuf(char_type *buf, std::streamsize len);
    virtual std::streamsize xsgetn(char_type *s, std::streamsize n);
    virtual std::streamsize xsputn(const char_type *s, std::streamsize n);

private:
    FCGX_Stream *fcgx;
    char_type *buf;
    std::streamsize bufsize;

    void init(FCGX_Stream *fcgx, char_type *buf, std::streamsize bufsize);
    void reset(void);
};

/* Deprecated: a std::istream on a fcgi_streambuf does the same. */
class DLLAPI fcgi_istream : public std::istream
{
public:
    fcgi_istream(FCGX_Stream *fcgx = 0);
    ~fcgi_istream(void) {}
    virtual void attach(FCGX_Stream *fcgx);

private:
    fcgi_streambuf fcgi_strmbuf;
};

/* Deprecated. */
class DLLAPI fcgi_ostream : public std::ostream
{
public:
    fcgi_ostream(FCGX_Stream *fcgx = 0);
    ~fcgi_ostream(void) {}
    virtual void attach(FCGX_Stream *fcgx);

private:
    fcgi_streambuf fcgi_strmbuf;
};

#endif

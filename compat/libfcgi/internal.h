/* SPDX-License-Identifier: MIT */
/* libfcgi: what its files share. A request stands on weir/wire.h's connection machine, kept behind FCGX_Request.paramsPtr: it owns
 * the bytes that were read, so nothing of a kept connection is lost or taken for something else between two requests.
 *
 * The caller's thread waits, on the caller's descriptor (FCGX_Request.ipcFd is looked up each time: programs set it). */
#ifndef LIBFCGI_INTERNAL_H
#define LIBFCGI_INTERNAL_H

#include <sys/types.h>

#include "base/base.h"
#include "fcgiapp.h"
#include "weir/wire.h"

enum { IN_BYTES = 8192, OUT_BYTES = 8192, ERR_BYTES = 512 };

/* The connection of a FCGX_Request, and the request on it. The name is fcgiapp.h's. */
struct Params {
    struct weir_wire_app *wire;
    char **envp;       /* of the request: its texts are role, and in text */
    char *text;
    char role[24];
    int fd;            /* the connection that the machine belongs to */
    ino_t inode;       /* of fd, when bytes wait for the next request (unread) */
    bool unread;       /* bytes were lent that next() has not used up */
    bool open;         /* the request has not been ended */
    bool corked;       /* more output follows at once */
    bool stdin_ended, data_ended;
    int in_error;      /* why nothing more is read: an errno, or FCGX_PROTOCOL_ERROR */
    int out_error;     /* why nothing more is sent */
    unsigned char bytes[IN_BYTES];
};

/* A stream with its buffer: FCGX_Stream.data points here. */
struct owned_stream {
    FCGX_Stream s; /* first: FCGX_FreeStream() frees both */
    FCGX_Request *request; /* NULL: of FCGX_CreateWriter() */
    size_t size;
    uint16_t id; /* the rest: of FCGX_CreateWriter() */
    uint8_t type;
    int fd;
    bool used; /* content was sent */
    unsigned char bytes[];
};

/* ---- conn.c ---- */
/* The connection of r->ipcFd, made if there is none. NULL: no memory. */
struct Params *conn_of(FCGX_Request *r);
void conn_free(FCGX_Request *r);
void conn_remember(FCGX_Request *r); /* between two requests: which connection the bytes that wait belong to */
/* The next event: WEIR_OK; WEIR_CLOSED: the connection ended or broke; WEIR_AGAIN: a signal came while nothing of a request had
 * come (errno EINTR). Answers to the web server are sent before it waits. */
WEIR_CHECK int conn_next(FCGX_Request *r, struct weir_wire_event *ev);
/* Sends what the machine has to send: 0, or an error for FCGI_errno. */
WEIR_CHECK int conn_flush(FCGX_Request *r);
/* All of it, whatever signals come: 0 or an errno. */
WEIR_CHECK int send_all(int fd, const void *p, size_t len);
/* What FCGI_MAX_REQS and FCGI_MAX_CONNS answer: how many requests this process was seen to take at once. */
uint32_t conn_peak(void);
void conn_wants(int count); /* +1, -1: a thread waits for a connection */

/* ---- request_stream.c ---- */
FCGX_Stream *reader_new(FCGX_Request *r);
FCGX_Stream *writer_new(FCGX_Request *r, uint8_t type, size_t size);
/* Sends the buffer and len more bytes without copying them: 1: done, or failed (the stream tells); 0: not a stream of a request. */
int write_through(FCGX_Stream *s, const char *p, size_t len);
struct owned_stream *owned(FCGX_Stream *s); /* NULL: made by the program */

/* ---- stream.c ---- */
int FCGX_VFPrintF(FCGX_Stream *s, const char *format, va_list arg) WEIR_PRINTF(2, 0); /* programs are not warned by our headers */
int FCGX_FPrintF(FCGX_Stream *s, const char *format, ...) WEIR_PRINTF(2, 3);
void stream_error(FCGX_Stream *s, int code);

/* ---- wait.c ---- */
bool shutdown_pending(void);
void wait_init(void);
void wait_reset(void);
/* accept() and read() that a pending shutdown ends, also one that comes just before they begin: -1 with EINTR. */
int wait_accept(int listener);
ssize_t wait_read(int fd, void *buf, size_t len);

/* ---- os.c ---- */
extern int keeper_ms; /* LIBFCGI_IS_AF_UNIX_KEEPER_POLL_TIMEOUT */
void async_forget(int fd);
#endif

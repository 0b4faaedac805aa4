/* SPDX-License-Identifier: MIT */
/* The streams of a request: FCGX_Stream's two function pointers on the machine. A reader's fields point into the bytes that were
 * read; a writer has a buffer, whose content the machine takes when it is full or flushed. */
#include <errno.h>
#include <stdlib.h>

#include "fastcgi.h"
#include "internal.h"

static void fill(FCGX_Stream *s);
static void empty(FCGX_Stream *s, int do_close);

struct owned_stream *owned(FCGX_Stream *s)
{
    bool ours = s && (s->fillBuffProc == fill || s->emptyBuffProc == empty);
    return ours ? s->data : NULL;
}

/* ---- reading ---- */

/* 1: the reader has bytes, or its end; 0: go on. */
static int take_event(FCGX_Stream *s, const struct weir_wire_event *ev)
{
    struct owned_stream *in = s->data;
    struct Params *c = in->request->paramsPtr;
    bool is_data = ev->stream == WEIR_DATA, wanted = ev->stream == (enum weir_stream)in->type;
    switch (ev->type) {
    case WEIR_WIRE_EV_INPUT:
        weir_wire_app_consumed(c->wire, ev->id, ev->stream, ev->bytes.len);
        if (!wanted) { /* the file before the end of the input, or to no filter */
            stream_error(s, FCGX_PROTOCOL_ERROR);
            return 1;
        }
        s->rdNext = s->stopUnget = (unsigned char *)(uintptr_t)ev->bytes.ptr;
        s->stop = s->wrNext = s->rdNext + ev->bytes.len;
        return 1;
    case WEIR_WIRE_EV_INPUT_END:
        if (is_data) c->data_ended = true;
        else c->stdin_ended = true;
        if (wanted) s->isClosed = 1;
        return wanted;
    case WEIR_WIRE_EV_ABORT: stream_error(s, FCGX_PROTOCOL_ERROR); return 1;
    default: return 0;
    }
}

static void fill(FCGX_Stream *s)
{
    struct owned_stream *in = s->data;
    struct Params *c = in->request->paramsPtr;
    struct weir_wire_event ev;
    s->rdNext = s->stop = s->wrNext = s->stopUnget = c->bytes;
    if (in->type == WEIR_WIRE_DATA ? c->data_ended : c->stdin_ended) {
        s->isClosed = 1;
        return;
    }
    if (!c->open) { /* both writers were closed: the request is over, what follows is the next one's */
        stream_error(s, FCGX_CALL_SEQ_ERROR);
        return;
    }
    do {
        if (conn_next(in->request, &ev) < 0) {
            stream_error(s, c->in_error ? c->in_error : FCGX_PROTOCOL_ERROR);
            return;
        }
    } while (!take_event(s, &ev));
}

static struct owned_stream *stream_new(FCGX_Request *r, uint8_t type, size_t size)
{
    struct owned_stream *o = malloc(sizeof *o + size);
    if (!o) return NULL;
    *o = (struct owned_stream){.request = r, .size = size, .type = type, .fd = -1};
    o->s.data = o;
    o->s.rdNext = o->s.wrNext = o->s.stop = o->s.stopUnget = o->bytes;
    return o;
}

FCGX_Stream *reader_new(FCGX_Request *r)
{
    struct owned_stream *o = stream_new(r, WEIR_WIRE_STDIN, 0);
    if (!o) return NULL;
    o->s.isReader = 1;
    o->s.fillBuffProc = fill;
    return &o->s;
}

int FCGX_StartFilterData(FCGX_Stream *s)
{
    struct owned_stream *in = owned(s);
    if (!in || !in->request || in->request->role != FCGI_FILTER || !s->isReader || !s->isClosed || s->wasFCloseCalled ||
        s->FCGI_errno || in->type != WEIR_WIRE_STDIN) {
        if (s) stream_error(s, FCGX_CALL_SEQ_ERROR);
        return -1;
    }
    in->type = WEIR_WIRE_DATA;
    s->isClosed = 0;
    return 0;
}

/* ---- writing to a request ---- */

/* Hands bytes to the machine: 0, or an error for FCGI_errno. */
static int hand_over(struct owned_stream *out, const void *p, size_t len)
{
    FCGX_Request *r = out->request;
    struct Params *c = r->paramsPtr;
    if (c->out_error) return c->out_error;
    if (!c->open) return FCGX_CALL_SEQ_ERROR;
    if (len == 0) return 0;
    int64_t n = weir_wire_app_write(c->wire, (uint16_t)r->requestId, (enum weir_stream)out->type, p, len);
    out->used = true;
    if (n == (int64_t)len) return 0;
    return n == WEIR_NOMEM ? ENOMEM : FCGX_PROTOCOL_ERROR;
}

/* The end of this stream, or of the request behind the last one. */
static int hand_over_end(struct owned_stream *out)
{
    FCGX_Request *r = out->request;
    struct Params *c = r->paramsPtr;
    uint16_t id = (uint16_t)r->requestId;
    int status = WEIR_OK;
    if (--r->nWriters == 0) {
        status = weir_wire_app_end(c->wire, id, (uint32_t)r->appStatus, WEIR_WIRE_REQUEST_COMPLETE);
        c->open = false;
    } else if (out->type == WEIR_WIRE_STDOUT || out->used) {
        status = weir_wire_app_write_end(c->wire, id, (enum weir_stream)out->type);
    }
    return status == WEIR_NOMEM ? ENOMEM : status < 0 ? FCGX_PROTOCOL_ERROR : 0;
}

static int to_request(struct owned_stream *out, const void *p, size_t len, int do_close)
{
    struct Params *c = out->request->paramsPtr;
    int error = out->s.FCGI_errno > 0 ? out->s.FCGI_errno : hand_over(out, p, len); /* behind lost output there is no end */
    if (error == 0 && do_close) error = hand_over_end(out);
    return error == 0 && !c->corked ? conn_flush(out->request) : error;
}

/* ---- writing to a descriptor: FCGX_CreateWriter() ---- */

static int to_descriptor(struct owned_stream *out, const void *p, size_t len, int do_close)
{
    uint8_t record[2 * WEIR_WIRE_HEADER_LEN];
    int error = 0;
    if (len) {
        weir_wire_header_write(record, out->type, out->id, (uint16_t)len, 0);
        error = send_all(out->fd, record, WEIR_WIRE_HEADER_LEN);
        if (!error) error = send_all(out->fd, p, len);
    }
    if (error || !do_close) return error;
    weir_wire_header_write(record, out->type, out->id, 0, 0);
    return send_all(out->fd, record, WEIR_WIRE_HEADER_LEN);
}

/* ---- writers ---- */

static void wrote(FCGX_Stream *s, int error)
{
    struct owned_stream *out = s->data;
    s->wrNext = out->bytes;
    if (error == 0) return;
    if (out->request && error != FCGX_CALL_SEQ_ERROR) out->request->paramsPtr->out_error = error; /* no END_REQUEST that says all is well */
    s->rdNext = s->stop = s->wrNext; /* nothing more fits */
    stream_error(s, error);
}

static void empty(FCGX_Stream *s, int do_close)
{
    struct owned_stream *out = s->data;
    size_t len = (size_t)(s->wrNext - out->bytes);
    wrote(s, out->request ? to_request(out, out->bytes, len, do_close) : to_descriptor(out, out->bytes, len, do_close));
}

int write_through(FCGX_Stream *s, const char *p, size_t len)
{
    struct owned_stream *out = s->emptyBuffProc == empty ? s->data : NULL;
    if (!out || !out->request || len < out->size || s->isClosed) return 0;
    size_t waiting = (size_t)(s->wrNext - out->bytes);
    int error = hand_over(out, out->bytes, waiting);
    while (error == 0 && len) {
        size_t n = len > WEIR_WIRE_SEND_CONTENT ? WEIR_WIRE_SEND_CONTENT : len;
        error = to_request(out, p, n, 0);
        p += n;
        len -= n;
    }
    wrote(s, error);
    return 1;
}

static FCGX_Stream *writer(struct owned_stream *o)
{
    if (!o) return NULL;
    o->s.stop = o->s.rdNext = o->bytes + o->size;
    o->s.emptyBuffProc = empty;
    return &o->s;
}

FCGX_Stream *writer_new(FCGX_Request *r, uint8_t type, size_t size)
{
    return writer(stream_new(r, type, size));
}

FCGX_Stream *FCGX_CreateWriter(int fd, int id, int size, int type)
{
    size_t room = size < 32 ? 32 : size > 65536 ? 65536 : ((size_t)size + 7) & ~(size_t)7;
    struct owned_stream *o = stream_new(NULL, (uint8_t)type, room - WEIR_WIRE_HEADER_LEN);
    if (!o) return NULL;
    o->fd = fd;
    o->id = (uint16_t)id;
    return writer(o);
}

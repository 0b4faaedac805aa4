/* SPDX-License-Identifier: MIT */
/* The connection of a request: bytes between its descriptor and the machine. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { PARAMS_BYTES = 16 << 20, PARAMS_COUNT = 65536 };

static int wanting, peak = 1; /* changed atomically: threads have requests of their own */

void conn_wants(int count)
{
    int now = __atomic_add_fetch(&wanting, count, __ATOMIC_RELAXED), seen = __atomic_load_n(&peak, __ATOMIC_RELAXED);
    while (now > seen && !__atomic_compare_exchange_n(&peak, &seen, now, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
}

uint32_t conn_peak(void)
{
    return (uint32_t)__atomic_load_n(&peak, __ATOMIC_RELAXED);
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* The program closed the connection itself, and has another one now. */
static bool is_another(const struct Params *c, int fd)
{
    if (c->fd != fd) return true;
    return (c->unread || !weir_wire_app_idle(c->wire)) && c->inode != inode_of(fd);
}

void conn_remember(FCGX_Request *r)
{
    struct Params *c = r->paramsPtr;
    if (c->unread || !weir_wire_app_idle(c->wire)) c->inode = inode_of(r->ipcFd);
}

static struct Params *conn_new(int fd)
{
    uint32_t concurrent = conn_peak();
    /* A thread that waits for one server cannot be held longer by records than by silence: strays are not counted. */
    const struct weir_wire_limits limits = {.params_bytes = PARAMS_BYTES, .params_count = PARAMS_COUNT, .plain_requests = 1,
                                            .reqs = concurrent, .conns = concurrent, .stray_records = UINT32_MAX, .no_flow = 1};
    struct Params *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->fd = fd;
    if (weir_wire_app_new(&c->wire, &limits) == WEIR_OK) return c;
    free(c);
    return NULL;
}

struct Params *conn_of(FCGX_Request *r)
{
    if (r->paramsPtr && is_another(r->paramsPtr, r->ipcFd)) conn_free(r);
    if (!r->paramsPtr) {
        r->paramsPtr = conn_new(r->ipcFd);
        if (r->paramsPtr) conn_wants(1);
    }
    return r->paramsPtr;
}

void conn_free(FCGX_Request *r)
{
    struct Params *c = r->paramsPtr;
    if (!c) return;
    weir_wire_app_free(c->wire);
    free(c->envp);
    free(c->text);
    free(c);
    r->paramsPtr = NULL;
    conn_wants(-1);
}

/* The program made the descriptor nonblocking: we wait all the same. */
static bool waited(int fd, short what)
{
    struct pollfd p = {.fd = fd, .events = what};
    if (errno == EINTR) return true;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
    return poll(&p, 1, -1) >= 0 || errno == EINTR;
}

int send_all(int fd, const void *p, size_t len)
{
    const char *at = p;
    while (len) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && !waited(fd, POLLOUT)) return errno ? errno : EIO;
        if (n < 0) continue;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int conn_flush(FCGX_Request *r)
{
    struct Params *c = r->paramsPtr;
    const void *p;
    size_t len = weir_wire_app_output(c->wire, &p);
    if (len && !c->out_error) c->out_error = send_all(r->ipcFd, p, len);
    weir_wire_app_sent(c->wire, len);
    return c->out_error;
}

static int receive(FCGX_Request *r)
{
    struct Params *c = r->paramsPtr;
    ssize_t n;
    do {
        bool idle = weir_wire_app_idle(c->wire);
        n = idle ? wait_read(r->ipcFd, c->bytes, sizeof c->bytes) : read(r->ipcFd, c->bytes, sizeof c->bytes);
        if (n < 0 && errno == EINTR && idle) return WEIR_AGAIN;
    } while (n < 0 && waited(r->ipcFd, POLLIN));
    if (n <= 0) { /* it may still read what we send */
        c->in_error = n < 0 ? errno : FCGX_PROTOCOL_ERROR;
        return WEIR_CLOSED;
    }
    weir_wire_app_feed(c->wire, c->bytes, (size_t)n);
    c->unread = true;
    return WEIR_OK;
}

int conn_next(FCGX_Request *r, struct weir_wire_event *ev)
{
    struct Params *c = r->paramsPtr;
    for (;;) {
        int status = weir_wire_app_next(c->wire, ev);
        if (status == WEIR_AGAIN) c->unread = false;
        (void)!conn_flush(r);
        if (status == WEIR_OK) break;
        if (c->out_error && !c->open) return WEIR_CLOSED;
        if (c->in_error || weir_wire_app_closing(c->wire)) return WEIR_CLOSED;
        status = receive(r);
        if (status < 0) return status;
    }
    if (ev->type != WEIR_WIRE_EV_ERROR) return WEIR_OK;
    c->in_error = FCGX_PROTOCOL_ERROR;
    return WEIR_CLOSED;
}

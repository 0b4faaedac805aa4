/* SPDX-License-Identifier: MIT */
/* Requests: accepting, finishing, and what may be asked about them. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "fastcgi.h"
#include "fcgios.h"
#include "internal.h"

enum { NOT_INITIALIZED = -9998, SHUT_DOWN = -9999 };

static FCGX_Request the_request; /* of FCGX_Accept() */
static const char *web_server_addrs;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized;
static int is_cgi = -1; /* not known yet */

/* ---- the library ---- */

int FCGX_Init(void)
{
    pthread_mutex_lock(&init_lock);
    if (!initialized) {
        const char *addrs = getenv("FCGI_WEB_SERVER_ADDRS");
        web_server_addrs = addrs ? strdup(addrs) : NULL; /* FCGI_Accept() replaces the environment */
        if (addrs && !web_server_addrs) {
            pthread_mutex_unlock(&init_lock);
            return ENOMEM;
        }
        FCGX_InitRequest(&the_request, FCGI_LISTENSOCK_FILENO, 0);
        OS_LibInit(NULL);
        __atomic_store_n(&initialized, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&init_lock);
    return 0;
}

int FCGX_IsCGI(void)
{
    if (is_cgi < 0) {
        (void)FCGX_Init(); /* without memory: FCGX_Accept() tells */
        is_cgi = !OS_IsFcgi(FCGI_LISTENSOCK_FILENO);
    }
    return is_cgi;
}

int FCGX_OpenSocket(const char *path, int backlog)
{
    int fd = OS_CreateLocalIpcFd(path, backlog);
    if (fd == FCGI_LISTENSOCK_FILENO && is_cgi == 1) is_cgi = 0;
    return fd;
}

void FCGX_ShutdownPending(void)
{
    OS_ShutdownPending();
}

/* ---- life of a request ---- */

int FCGX_InitRequest(FCGX_Request *r, int sock, int flags)
{
    memset(r, 0, sizeof *r);
    r->listen_sock = sock;
    r->flags = flags;
    r->ipcFd = -1;
    return 0;
}

/* The block of pairs becomes NAME=VALUE texts in place: each name moves down by one, over the lengths that stood before it. */
static int decode_params(struct Params *c, struct weir_str block, uint32_t count)
{
    struct weir_pair p;
    size_t pos = 0, end = 0, n = 0;
    c->text = (char *)(uintptr_t)block.ptr;
    c->envp = malloc((count + 2u) * sizeof *c->envp);
    if (!c->envp) return WEIR_NOMEM;
    c->envp[n++] = c->role;
    while (weir_wire_pair_next(block, &pos, &p) == WEIR_OK) {
        char *name = c->text + (p.name.ptr - block.ptr) - 1;
        if (end) c->text[end] = 0;
        memmove(name, name + 1, p.name.len);
        name[p.name.len] = '=';
        if (p.value.len) memmove(name + p.name.len + 1, p.value.ptr, p.value.len);
        end = pos;
        c->envp[n++] = name;
    }
    if (end) c->text[end] = 0; /* the byte behind them is ours, too */
    c->envp[n] = NULL;
    return WEIR_OK;
}

static int start(FCGX_Request *r, const struct weir_wire_event *ev)
{
    static const char *const roles[] = {"RESPONDER", "AUTHORIZER", "FILTER"};
    struct Params *c = r->paramsPtr;
    c->open = true;
    c->stdin_ended = c->data_ended = false;
    snprintf(c->role, sizeof c->role, "FCGI_ROLE=%s", roles[ev->role - 1]);
    r->requestId = ev->id;
    r->role = ev->role;
    r->keepConnection = ev->keep;
    r->isBeginProcessed = 1;
    r->appStatus = 0;
    if (decode_params(c, weir_wire_app_params_take(c->wire, ev->id), ev->param_count) < 0) return WEIR_NOMEM;
    r->in = reader_new(r);
    r->out = writer_new(r, WEIR_WIRE_STDOUT, OUT_BYTES);
    r->err = writer_new(r, WEIR_WIRE_STDERR, ERR_BYTES);
    if (!r->in || !r->out || !r->err) return WEIR_NOMEM;
    r->nWriters = 2;
    r->envp = c->envp;
    return WEIR_OK;
}

/* The next request of the connection: WEIR_OK, or why there is none. */
static int begin(FCGX_Request *r)
{
    struct weir_wire_event ev;
    r->isBeginProcessed = 0;
    if (!conn_of(r)) return WEIR_NOMEM;
    for (;;) {
        int status = conn_next(r, &ev);
        if (status < 0) return status;
        if (ev.type == WEIR_WIRE_EV_REQUEST) return start(r, &ev);
    }
}

/* A connection: 0, or what FCGX_Accept_r() returns. */
static int connect_next(FCGX_Request *r)
{
    conn_wants(1);
    r->ipcFd = OS_Accept(r->listen_sock, r->flags & FCGI_FAIL_ACCEPT_ON_INTR, web_server_addrs);
    int error = errno;
    conn_wants(-1);
    if (r->ipcFd >= 0) return 0;
    return error > 0 ? -error : SHUT_DOWN;
}

/* A shutdown between two requests: the peer is told, and has nothing of ours left to read that would be worth waiting for. */
static void leave_idle(FCGX_Request *r)
{
    if (!r->detached) shutdown(r->ipcFd, SHUT_WR);
    r->detached = 1;
}

int FCGX_Accept_r(FCGX_Request *r)
{
    if (!__atomic_load_n(&initialized, __ATOMIC_ACQUIRE)) return NOT_INITIALIZED;
    FCGX_Finish_r(r);
    for (;;) {
        int status = r->ipcFd < 0 ? connect_next(r) : 0;
        if (status < 0) return status;
        status = begin(r);
        if (status == WEIR_OK) return 0;
        if (status == WEIR_AGAIN && !shutdown_pending()) { /* a signal: the connection stays for the next call */
            if (r->flags & FCGI_FAIL_ACCEPT_ON_INTR) return -EINTR;
            continue;
        }
        if (status == WEIR_AGAIN) leave_idle(r);
        FCGX_Free(r, 1);
        if (status == WEIR_NOMEM) return -ENOMEM;
    }
}

void FCGX_Finish_r(FCGX_Request *r)
{
    if (!r) return;
    int close = !r->keepConnection;
    if (r->in) {
        struct Params *c = r->paramsPtr;
        if (c) c->corked = true; /* the ends of both and of the request in one write */
        close |= FCGX_FClose(r->err);
        if (c) c->corked = false;
        close |= FCGX_FClose(r->out);
        if (c && c->open) close = 1; /* the program freed a stream: the end cannot be told otherwise */
    } else if (!r->paramsPtr && r->ipcFd >= 0) {
        close = 0; /* no request was on it yet: the program set it */
    }
    if (r->paramsPtr && (r->paramsPtr->in_error || r->paramsPtr->out_error)) close = 1;
    FCGX_Free(r, close);
}

/* The request is given up: what the machine would tell of its end is not sent. */
static void forget_request(FCGX_Request *r)
{
    struct Params *c = r->paramsPtr;
    const void *p;
    if (c->open) {
        (void)!weir_wire_app_end(c->wire, (uint16_t)r->requestId, 0, WEIR_WIRE_REQUEST_COMPLETE);
        weir_wire_app_sent(c->wire, weir_wire_app_output(c->wire, &p));
        c->open = false;
    }
    free(c->envp);
    free(c->text);
    c->envp = NULL;
    c->text = NULL;
}

void FCGX_Free(FCGX_Request *r, int close)
{
    if (!r) return;
    FCGX_FreeStream(&r->in);
    FCGX_FreeStream(&r->out);
    FCGX_FreeStream(&r->err);
    r->envp = NULL;
    r->nWriters = 0;
    if (r->paramsPtr) forget_request(r);
    if (close || r->ipcFd < 0) conn_free(r);
    if (r->paramsPtr) conn_remember(r);
    if (!close) return;
    OS_IpcClose(r->ipcFd, !r->detached);
    r->ipcFd = -1;
    r->detached = 0;
}

int FCGX_Attach(FCGX_Request *r)
{
    r->detached = 0;
    return 0;
}

int FCGX_Detach(FCGX_Request *r)
{
    if (r->ipcFd <= 0) return -1;
    r->detached = 1;
    return 0;
}

/* ---- the library's own request ---- */

int FCGX_Accept(FCGX_Stream **in, FCGX_Stream **out, FCGX_Stream **err, FCGX_ParamArray *envp)
{
    int status = FCGX_Init();
    if (status != 0) return status;
    status = FCGX_Accept_r(&the_request);
    *in = the_request.in;
    *out = the_request.out;
    *err = the_request.err;
    *envp = the_request.envp;
    return status;
}

void FCGX_Finish(void)
{
    FCGX_Finish_r(&the_request);
}

/* ---- what belongs to a request ---- */

void FCGX_SetExitStatus(int status, FCGX_Stream *stream)
{
    struct owned_stream *o = owned(stream);
    if (o && o->request) o->request->appStatus = status;
}

char *FCGX_GetParam(const char *name, FCGX_ParamArray envp)
{
    if (!name || !envp) return NULL;
    size_t len = strlen(name);
    for (; *envp; envp++)
        if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=') return *envp + len + 1;
    return NULL;
}

/* SPDX-License-Identifier: MIT */
/* FastCGI programs: requests, their streams and parameters. Names, values and layouts are those of libfcgi 2.4, so that programs
 * compiled for either library run on the other.
 *
 * One FCGX_Request is one place to serve requests in, and belongs to one thread at a time; a program with threads has one for
 * each. FCGX_Accept() and FCGX_Finish() use one that is the library's own: one thread only. */
#ifndef _FCGIAPP_H
#define _FCGIAPP_H

#include <stdarg.h>

#ifndef DLLAPI
#define DLLAPI
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What FCGX_GetError() tells besides the values of errno. */
#define FCGX_UNSUPPORTED_VERSION (-2)
#define FCGX_PROTOCOL_ERROR      (-3)
#define FCGX_PARAMS_ERROR        (-4)
#define FCGX_CALL_SEQ_ERROR      (-5)

/* A stream. The functions below work on these fields alone, so a program may make one of its own. */
typedef struct FCGX_Stream {
    unsigned char *rdNext;    /* reader: the next byte; writer: equals stop */
    unsigned char *wrNext;    /* writer: the next free byte; reader: equals stop */
    unsigned char *stop;      /* behind the last byte */
    unsigned char *stopUnget; /* reader: how far FCGX_UnGetChar() goes back */
    int isReader;
    int isClosed;             /* the end was seen, or an error */
    int wasFCloseCalled;
    int FCGI_errno;           /* the first error */
    void (*fillBuffProc)(struct FCGX_Stream *stream);
    void (*emptyBuffProc)(struct FCGX_Stream *stream, int doClose);
    void *data;
} FCGX_Stream;

/* "NAME=value" texts, NULL behind the last; FCGI_ROLE=... is the first, then what the web server sent, in its order. They may be
 * changed, and live until the request is finished. */
typedef char **FCGX_ParamArray;

/* A flag of FCGX_InitRequest(): FCGX_Accept_r() returns -EINTR when a signal comes while it waits. */
#define FCGI_FAIL_ACCEPT_ON_INTR 1

/* Made by the program, set up by FCGX_InitRequest(). Its size is fixed. */
typedef struct FCGX_Request {
    int requestId; /* valid while a request is served */
    int role;      /* FCGI_RESPONDER, FCGI_AUTHORIZER, FCGI_FILTER */
    FCGX_Stream *in;
    FCGX_Stream *out;
    FCGX_Stream *err;
    char **envp;

    /* For reading only, but for ipcFd, which may be set to a connection before FCGX_Accept_r(). */
    struct Params *paramsPtr; /* the library's own */
    int ipcFd;                /* the connection; < 0: none */
    int isBeginProcessed;
    int keepConnection; /* the web server closes it, not we */
    int appStatus;
    int nWriters; /* of out and err, how many are open */
    int flags;
    int listen_sock;
    int detached;
} FCGX_Request;

/* ---- control ---- */

/* 1: the program was started as CGI: descriptor 0 is no listening socket. */
DLLAPI int FCGX_IsCGI(void);
/* Once before the first FCGX_Accept_r(). 0; an errno. Any thread, any number of times. */
DLLAPI int FCGX_Init(void);
/* A listening socket for a path or HOST:PORT (see OS_CreateLocalIpcFd). -1 with errno. */
DLLAPI int FCGX_OpenSocket(const char *path, int backlog);
/* sock: the listening socket, 0 for the one that the program was started with. 0. */
DLLAPI int FCGX_InitRequest(FCGX_Request *request, int sock, int flags);
/* Finishes the former request, waits for the next. 0; -errno; -9998 without FCGX_Init(); -9999 when a shutdown is pending. */
DLLAPI int FCGX_Accept_r(FCGX_Request *request);
/* Sends what is left and the end. in, out, err and envp are gone then. */
DLLAPI void FCGX_Finish_r(FCGX_Request *request);
/* Gives all up without sending anything; close: the connection as well. */
DLLAPI void FCGX_Free(FCGX_Request *request, int close);
/* The same with the library's own request. */
DLLAPI int FCGX_Accept(FCGX_Stream **in, FCGX_Stream **out, FCGX_Stream **err, FCGX_ParamArray *envp);
DLLAPI void FCGX_Finish(void);
/* A filter has read all of its input: from now on the stream gives the file. 0, or -1 with the stream's error. */
DLLAPI int FCGX_StartFilterData(FCGX_Stream *stream);
/* What END_REQUEST tells of the request that this stream belongs to [0]. */
DLLAPI void FCGX_SetExitStatus(int status, FCGX_Stream *stream);
/* Accepting ends. May be called in a signal handler. */
DLLAPI void FCGX_ShutdownPending(void);
/* Detached: closing the connection does not tell the peer the end, since a child process goes on with it. -1: no connection. */
DLLAPI int FCGX_Attach(FCGX_Request *r);
DLLAPI int FCGX_Detach(FCGX_Request *r);

/* The first of that name, or NULL. */
DLLAPI char *FCGX_GetParam(const char *name, FCGX_ParamArray envp);

/* ---- reading ---- */

/* The next byte, or EOF (-1). */
DLLAPI int FCGX_GetChar(FCGX_Stream *stream);
/* Steps back by a byte. EOF when it cannot: at the start of what came last, and at the end. */
DLLAPI int FCGX_UnGetChar(int c, FCGX_Stream *stream);
/* Waits for n bytes. Less than n: the end, or an error. */
DLLAPI int FCGX_GetStr(char *str, int n, FCGX_Stream *stream);
/* As fgets(). */
DLLAPI char *FCGX_GetLine(char *str, int n, FCGX_Stream *stream);
/* EOF (-1) when the end was seen, else 0. */
DLLAPI int FCGX_HasSeenEOF(FCGX_Stream *stream);

/* ---- writing: -1 (EOF) on an error ---- */

DLLAPI int FCGX_PutChar(int c, FCGX_Stream *stream);
DLLAPI int FCGX_PutStr(const char *str, int n, FCGX_Stream *stream); /* n */
DLLAPI int FCGX_PutS(const char *str, FCGX_Stream *stream);          /* how many bytes; no newline is added */
/* As printf() of the C library. */
DLLAPI int FCGX_FPrintF(FCGX_Stream *stream, const char *format, ...);
DLLAPI int FCGX_VFPrintF(FCGX_Stream *stream, const char *format, va_list arg);
/* Sends what is buffered. */
DLLAPI int FCGX_FFlush(FCGX_Stream *stream);

/* ---- both ---- */

/* A writer's rest and end are sent; END_REQUEST behind the last writer. 0, or EOF if the stream ever had an error. */
DLLAPI int FCGX_FClose(FCGX_Stream *stream);
DLLAPI int FCGX_GetError(FCGX_Stream *stream);
DLLAPI void FCGX_ClearError(FCGX_Stream *stream); /* the code only: the stream stays closed */
/* Writes records of one type and id to a descriptor, with a buffer of bufflen bytes. NULL: no memory. */
DLLAPI FCGX_Stream *FCGX_CreateWriter(int socket, int requestId, int bufflen, int streamType);
/* Frees a stream of FCGX_CreateWriter(), sends nothing. */
DLLAPI void FCGX_FreeStream(FCGX_Stream **stream);

#ifdef __cplusplus
}
#endif
#endif

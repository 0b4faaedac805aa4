/* SPDX-License-Identifier: MIT */
/* A libfcgi program on one connection that is a packet socket: each piece of input is one read() of the library's, so that any
 * split can be tried. */
#ifndef TESTS_LIBFCGI_SCRIPT_H
#define TESTS_LIBFCGI_SCRIPT_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fastcgi.h"
#include "fcgiapp.h"

/* What a request does is told by its first parameter after the role. */
static inline void script_serve(FCGX_Request *r)
{
    const char *what = r->envp[1] ? r->envp[1] : "";
    char line[64];
    for (char **e = r->envp; *e; e++) FCGX_FPrintF(r->out, "[%s]", *e);
    if (strchr(what, 'l')) {
        while (FCGX_GetLine(line, sizeof line, r->in)) FCGX_PutS(line, r->out);
    } else if (strchr(what, 'c')) {
        int c = FCGX_GetChar(r->in);
        if (c != EOF && FCGX_UnGetChar(c, r->in) == c) c = FCGX_GetChar(r->in);
        for (; c != EOF; c = FCGX_GetChar(r->in)) FCGX_PutChar(c, r->out);
    } else if (strchr(what, 's')) {
        int n;
        while ((n = FCGX_GetStr(line, 7, r->in)) > 0) FCGX_PutStr(line, n, r->out);
    } /* else nobody reads it */
    if (r->role == FCGI_FILTER && FCGX_StartFilterData(r->in) == 0) {
        int c;
        FCGX_PutS("|data:", r->out);
        while ((c = FCGX_GetChar(r->in)) != EOF) FCGX_PutChar(c, r->out);
    }
    if (strchr(what, 'e')) FCGX_FPrintF(r->err, "error %d\n", FCGX_GetError(r->in));
    if (strchr(what, 'x')) FCGX_SetExitStatus(258, r->err);
    if (strchr(what, 'o')) FCGX_FClose(r->out);
    if (strchr(what, 'f')) FCGX_Free(r, 0);
}

/* ---- the web server's end ---- */

typedef size_t (*next_piece_fn)(void *arg, size_t at, size_t len);

struct script_sender {
    const uint8_t *in;
    size_t at, len, piece;
    next_piece_fn next_piece;
    void *arg;
    int fd;
};

/* Sends pieces, until there is no room for more (flags: MSG_DONTWAIT). */
static inline bool script_send(struct script_sender *s, int flags)
{
    while (s->at < s->len) {
        if (s->piece == 0) s->piece = s->next_piece(s->arg, s->at, s->len);
        if (send(s->fd, s->in + s->at, s->piece, MSG_NOSIGNAL | flags) < 0) return errno != EAGAIN;
        s->at += s->piece;
        s->piece = 0;
    }
    shutdown(s->fd, SHUT_WR);
    return true;
}

/* The socket takes few pieces at a time: a thread sends the others. */
static inline void *script_send_rest(void *arg)
{
    (void)script_send(arg, 0);
    return NULL;
}

enum { SCRIPT_ROOM = 1 << 20 };

/* Takes what was answered. A reset tells that input was not read, before the output is given. */
static inline void script_collect(int fd, char *out, size_t *len)
{
    for (ssize_t n; (n = recv(fd, out + *len, SCRIPT_ROOM - *len, MSG_DONTWAIT)) > 0 || (n < 0 && errno == ECONNRESET);)
        if (n > 0) *len += (size_t)n;
}

/* Serves all requests of the input, which comes in the pieces that next_piece() tells. All that was answered, malloc'd. */
static inline char *script_run(const uint8_t *in, size_t len, next_piece_fn next_piece, void *arg, size_t *out_len)
{
    int s[2];
    char *out = malloc(SCRIPT_ROOM);
    pthread_t thread;
    FCGX_Request r;
    *out_len = 0;
    setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "0", 1); /* nobody sends the rest of a body */
    FCGX_Init();
    if (!out || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s) < 0) return out;
    struct script_sender sender = {.in = in, .len = len, .next_piece = next_piece, .arg = arg, .fd = s[1]};
    bool sending = !script_send(&sender, MSG_DONTWAIT) && pthread_create(&thread, NULL, script_send_rest, &sender) == 0;
    FCGX_InitRequest(&r, -1, 0); /* no listening socket: accepting ends with the connection */
    r.ipcFd = s[0];
    while (FCGX_Accept_r(&r) == 0) {
        script_serve(&r);
        script_collect(s[1], out, out_len);
    }
    if (sending) pthread_join(thread, NULL);
    script_collect(s[1], out, out_len);
    close(s[1]);
    return out;
}
#endif

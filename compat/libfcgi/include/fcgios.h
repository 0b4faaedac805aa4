/* SPDX-License-Identifier: MIT */
/* Sockets, waiting and child processes, as the functions above them and the cgi-fcgi program use them.
 * None of them ends the process: they return -1 with errno. */
#ifndef _FCGIOS_H
#define _FCGIOS_H

#include "fcgi_config.h"

#include <errno.h>
#include <stddef.h>
#include <sys/time.h>
#include <sys/types.h>

#ifndef DLLAPI
#define DLLAPI
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define OS_Errno         errno
#define OS_SetErrno(err) errno = (err)

/* No longer used; a struct timeval's initializer. */
#define READABLE_UNIX_FD_DROP_DEAD_TIMEVAL 2, 0

#ifndef STDIN_FILENO
#define STDIN_FILENO 0
#endif
#ifndef STDOUT_FILENO
#define STDOUT_FILENO 1
#endif
#ifndef STDERR_FILENO
#define STDERR_FILENO 2
#endif
#ifndef MAXPATHLEN
#define MAXPATHLEN 1024
#endif
#ifndef X_OK
#define X_OK 0x01
#endif
#ifndef _CLIENTDATA
#define _CLIENTDATA
typedef void *ClientData;
#endif

/* Called once with what read() or write() returned. */
typedef void (*OS_AsyncProc)(ClientData clientData, int len);

/* Signals (SIGTERM and SIGUSR1 end accepting, SIGPIPE is harmless; only where the program left the default) and the time-outs of
 * the environment. 0. stdioFds is not used. After OS_LibShutdown() it begins anew, without a pending shutdown. */
DLLAPI int OS_LibInit(int stdioFds[3]);
DLLAPI void OS_LibShutdown(void);

/* A listening socket for a path, HOST:PORT, [IPV6]:PORT, *:PORT or :PORT. */
DLLAPI int OS_CreateLocalIpcFd(const char *bindPath, int backlog);
/* A connection to such an address; no host means this one. */
DLLAPI int OS_FcgiConnect(char *bindPath);

/* read() and write() that are repeated when a signal came in between. */
DLLAPI int OS_Read(int fd, char *buf, size_t len);
DLLAPI int OS_Write(int fd, char *buf, size_t len);

/* Runs a program with listenFd as its descriptor 0, and 1 and 2 closed. */
DLLAPI int OS_SpawnChild(char *execPath, int listenFd);

/* One read or write each, done in OS_DoIo() when the descriptor is ready. offset is not used. */
DLLAPI int OS_AsyncReadStdin(void *buf, int len, OS_AsyncProc procPtr, ClientData clientData);
DLLAPI int OS_AsyncRead(int fd, int offset, void *buf, int len, OS_AsyncProc procPtr, ClientData clientData);
DLLAPI int OS_AsyncWrite(int fd, int offset, void *buf, int len, OS_AsyncProc procPtr, ClientData clientData);
DLLAPI int OS_DoIo(struct timeval *tmo);

/* shutdown != 0: first tells the peer the end and reads what it still sends, for LIBFCGI_OS_CLOSE_POLL_TIMEOUT ms [2000] in all,
 * so that the peer reads our last bytes before it sees a reset. */
DLLAPI int OS_Close(int fd, int shutdown);
DLLAPI int OS_IpcClose(int ipcFd, int shutdown);
DLLAPI int OS_CloseRead(int fd);

/* The next connection of a listening socket, or -1: errno is 0 when a shutdown was already pending, EINTR when one came meanwhile
 * (or any signal, with fail_on_intr). webServerAddrs: only peers of these addresses, separated by commas; NULL: all. */
DLLAPI int OS_Accept(int listen_sock, int fail_on_intr, const char *webServerAddrs);

/* 1: the descriptor is a listening socket. */
DLLAPI int OS_IsFcgi(int sock);
DLLAPI void OS_SetFlags(int fd, int flags);
DLLAPI void OS_ShutdownPending(void);

#ifdef __cplusplus
}
#endif
#endif

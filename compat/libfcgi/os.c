/* SPDX-License-Identifier: MIT */
/* fcgios.h: sockets and descriptors. Nothing here prints, or ends the process. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fcgios.h"
#include "internal.h"

enum { DEFAULT_TIMEOUT_MS = 2000 };

static int close_ms = DEFAULT_TIMEOUT_MS; /* LIBFCGI_OS_CLOSE_POLL_TIMEOUT */
int keeper_ms = DEFAULT_TIMEOUT_MS;
static bool initialized;

static int ms_of(const char *name)
{
    const char *text = getenv(name);
    return text ? (int)strtol(text, NULL, 10) : DEFAULT_TIMEOUT_MS;
}

int OS_LibInit(int stdio_fds[3])
{
    (void)stdio_fds;
    if (initialized) return 0;
    close_ms = ms_of("LIBFCGI_OS_CLOSE_POLL_TIMEOUT");
    keeper_ms = ms_of("LIBFCGI_IS_AF_UNIX_KEEPER_POLL_TIMEOUT");
    wait_init();
    initialized = true;
    return 0;
}

void OS_LibShutdown(void)
{
    if (!initialized) return;
    wait_reset();
    initialized = false;
}

/* ---- addresses ---- */

/* HOST:PORT: 1, the host in host (empty: any); 0: a path; -1: none. */
static int split_address(const char *text, char *host, size_t size, const char **port)
{
    const char *end = *text == '[' ? strchr(text, ']') : text - 1;
    const char *colon = end ? strchr(end + 1, ':') : NULL;
    if (!colon || strtol(colon + 1, NULL, 10) <= 0 || (*text == '[' && colon != end + 1)) return 0;
    struct weir_str name = *text == '[' ? weir_str(text + 1, (size_t)(end - text) - 1) : weir_str(text, (size_t)(colon - text));
    if (weir_str_eq(name, WEIR_STR("*"))) name.len = 0;
    if (name.len >= size) return -1;
    weir_copy(host, name.ptr, name.len);
    host[name.len] = 0;
    *port = colon + 1;
    return 1;
}

struct address {
    struct sockaddr_storage a;
    socklen_t len;
};

static int resolve(const char *host, const char *port, bool passive, struct address *out)
{
    struct addrinfo want = {.ai_family = host && strchr(host, ':') ? AF_INET6 : AF_INET, .ai_socktype = SOCK_STREAM,
                            .ai_flags = passive ? AI_PASSIVE : 0}, *found = NULL;
    if (getaddrinfo(host, port, &want, &found) != 0 || !found) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    memcpy(&out->a, found->ai_addr, found->ai_addrlen);
    out->len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int read_address(const char *text, bool passive, struct address *out)
{
    char host[256];
    const char *port;
    memset(out, 0, sizeof *out);
    int kind = text && *text ? split_address(text, host, sizeof host, &port) : -1;
    if (kind > 0) return resolve(*host ? host : passive ? NULL : "127.0.0.1", port, passive, out);
    struct sockaddr_un *un = (struct sockaddr_un *)&out->a;
    size_t len = kind == 0 ? strlen(text) : 0;
    if (kind < 0 || len >= sizeof un->sun_path) {
        errno = kind < 0 ? EINVAL : ENAMETOOLONG;
        return -1;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, text, len + 1);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return 0;
}

static int close_with_error(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Another program's socket that was left; what is no socket stays, and bind() says so. */
static void remove_old(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path);
}

int OS_CreateLocalIpcFd(const char *path, int backlog)
{
    struct address at;
    int on = 1;
    if (read_address(path, true, &at) < 0) return -1;
    int fd = socket(at.a.ss_family, SOCK_STREAM, 0); /* children inherit it: that is how programs are started */
    if (fd < 0) return -1;
    if (at.a.ss_family == AF_UNIX) remove_old(path);
    else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) return close_with_error(fd);
    if (bind(fd, (struct sockaddr *)&at.a, at.len) < 0 || listen(fd, backlog) < 0) return close_with_error(fd);
    return fd;
}

int OS_FcgiConnect(char *path)
{
    struct address to;
    if (read_address(path, false, &to) < 0) return -1;
    int fd = socket(to.a.ss_family, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&to.a, to.len) < 0) return close_with_error(fd);
    return fd;
}

/* ---- descriptors ---- */

int OS_Read(int fd, char *buf, size_t len)
{
    ssize_t n;
    do n = read(fd, buf, len > INT32_MAX ? INT32_MAX : len);
    while (n < 0 && errno == EINTR);
    return (int)n;
}

int OS_Write(int fd, char *buf, size_t len)
{
    ssize_t n;
    do n = write(fd, buf, len > INT32_MAX ? INT32_MAX : len);
    while (n < 0 && errno == EINTR);
    return (int)n;
}

void OS_SetFlags(int fd, int flags)
{
    int now = fcntl(fd, F_GETFL);
    if (now >= 0) fcntl(fd, F_SETFL, now | flags);
}

int OS_IsFcgi(int sock)
{
    int listens = 0;
    socklen_t len = sizeof listens;
    return getsockopt(sock, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Until the peer's end, or close_ms in all: a peer that sends a byte now and then holds nobody. */
static void drain(int fd)
{
    char ignored[4096];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t end = now_ms() + close_ms;
    for (;;) {
        int64_t left = end - now_ms();
        int n = poll(&p, 1, close_ms < 0 ? -1 : left > 0 ? (int)left : 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0 || read(fd, ignored, sizeof ignored) <= 0) return;
        if (close_ms >= 0 && left <= 0) return;
    }
}

int OS_Close(int fd, int shutdown_first)
{
    if (fd < 0) return 0;
    async_forget(fd);
    if (shutdown_first && shutdown(fd, SHUT_WR) == 0) drain(fd);
    return close(fd);
}

int OS_IpcClose(int fd, int shutdown_first)
{
    return OS_Close(fd, shutdown_first);
}

int OS_CloseRead(int fd)
{
    return shutdown(fd, SHUT_RD);
}

int OS_SpawnChild(char *path, int listener)
{
    pid_t pid = fork();
    if (pid != 0) return pid < 0 ? -1 : 0;
    close(0);
    if (listener != 0) {
        dup2(listener, 0);
        close(listener);
    }
    close(1);
    close(2);
    execl(path, path, (char *)NULL);
    _exit(errno & 0xff);
}

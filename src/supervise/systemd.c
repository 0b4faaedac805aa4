/* SPDX-License-Identifier: MIT */
/* The service manager: what it is told (the protocol of sd_notify) and what it gives: listening sockets of a socket unit, or
 * those of ours that it kept while we were gone. A message is one datagram; one that cannot be sent now is sent later, a newer
 * state in place of an older one. Without NOTIFY_SOCKET nobody is told anything. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "supervise/internal.h"

#define FIRST_GIVEN 3     /* the first socket that it gives */
#define BEAT_MS     15000 /* without a watchdog */

static struct {
    int fd; /* -1: nobody is told */
    struct sockaddr_un to;
    socklen_t to_len;
    pid_t pid; /* that it started */
    int64_t beat_ms;
    bool watchdog;
    char state[400]; /* not sent yet; empty: none */
} manager = {.fd = -1, .beat_ms = BEAT_MS};

/* 0, or an errno. */
static int send_text(const char *text, int fd)
{
    struct iovec v = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr h = {.msg_name = &manager.to, .msg_namelen = manager.to_len, .msg_iov = &v, .msg_iovlen = 1};
    return manager.fd < 0 ? 0 : send_with_fd(manager.fd, &h, fd);
}

static bool is_busy(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ECONNREFUSED; /* refused: it begins anew just now */
}

/* ---- what we were started with ---- */

static void find_manager(const char *path)
{
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof manager.to.sun_path || (path[0] != '/' && path[0] != '@')) return;
    manager.to.sun_family = AF_UNIX;
    memcpy(manager.to.sun_path, path, len);
    manager.to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
    if (path[0] == '@') manager.to.sun_path[0] = 0; /* an abstract name */
    manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static long long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || text[0] < '0' || text[0] > '9') return 0;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    return errno || *end ? 0 : n;
}

void systemd_begin(void)
{
    manager.pid = getpid();
    find_manager(getenv("NOTIFY_SOCKET"));
    long long usec = number_of("WATCHDOG_USEC"), pid = number_of("WATCHDOG_PID");
    if (manager.fd < 0 || usec < 20000 || (pid && pid != manager.pid)) return;
    manager.watchdog = true;
    manager.beat_ms = usec / 2000 < BEAT_MS ? usec / 2000 : BEAT_MS;
}

/* The name by which it keeps our copy: no colons may be in it. */
static void name_of(const struct held *h, char *out, size_t len)
{
    char host[INET6_ADDRSTRLEN] = "";
    struct sockaddr_storage at;
    memset(&at, 0, sizeof at);
    memcpy(&at, h->address, h->len < sizeof at ? h->len : sizeof at);
    const struct sockaddr_in *four = (const void *)&at;
    const struct sockaddr_in6 *six = (const void *)&at;
    if (at.ss_family == AF_INET) inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
    else inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
    for (char *p = host; *p; p++)
        if (*p == ':') *p = '.';
    snprintf(out, len, "weir-%s-%u-%u", host, ntohs(six->sin6_port), at.ss_family == AF_INET6 ? six->sin6_scope_id : 0); /* ports lie at the same place */
}

/* A TCP socket that listens becomes h; false: it is none. */
static bool take_given(int fd, struct held *h)
{
    int type = 0, listens = 0, one = 1;
    socklen_t type_len = sizeof type, listens_len = sizeof listens;
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    memset(&at, 0, sizeof at);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 || type != SOCK_STREAM) return false;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) < 0 || !listens) return false;
    if (getsockname(fd, (struct sockaddr *)&at, &len) < 0 || len > sizeof h->address) return false;
    if (at.ss_family != AF_INET && at.ss_family != AF_INET6) return false;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return false;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *h = (struct held){.fd = fd, .len = len, .given = true, .stored = true}; /* whoever gave it has it */
    memcpy(h->address, &at, len);
    return true;
}

static void unstore(const char *name)
{
    char text[300];
    snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%.200s", name);
    if (send_text(text, -1) != 0) errno = 0; /* it sees itself that nobody listens there any more */
}

size_t systemd_take(struct held *list, size_t room)
{
    long long count = number_of("LISTEN_PID") == manager.pid ? number_of("LISTEN_FDS") : 0;
    const char *names = getenv("LISTEN_FDNAMES");
    size_t taken = 0;
    for (int fd = FIRST_GIVEN; fd < FIRST_GIVEN + count && fcntl(fd, F_GETFD) == 0; fd++) { /* one that is closed by exec is ours */
        size_t len = names ? strcspn(names, ":") : 0;
        char name[200];
        snprintf(name, sizeof name, "%.*s", len < sizeof name ? (int)len : 0, names ? names : "");
        if (names) names += len + (names[len] == ':');
        if (taken < room && take_given(fd, &list[taken])) {
            char ours[100];
            name_of(&list[taken], ours, sizeof ours);
            list[taken++].kept = strcmp(name, ours) == 0;
            continue;
        }
        complain("weir-supervise: descriptor %d (%s) of the service manager is no listening TCP socket: it is closed\n", fd, name);
        close(fd);
        if (strncmp(name, "weir-", 5) == 0) unstore(name);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return taken;
}

/* ---- listening sockets that it keeps ---- */

void systemd_store(struct held *h)
{
    char name[100], text[140];
    if (h->stored) return;
    name_of(h, name, sizeof name);
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", name);
    h->stored = !is_busy(send_text(text, h->fd));
}

void systemd_unstore(const struct held *h)
{
    char name[100];
    name_of(h, name, sizeof name);
    unstore(name);
}

bool systemd_drop_given(struct held *list, size_t *count, uint16_t port)
{
    size_t before = *count;
    for (size_t i = 0; i < *count;) {
        const struct sockaddr_in *at = (const void *)list[i].address;
        char name[100];
        if (!list[i].given || (port && at->sin_port != port)) {
            i++;
            continue;
        }
        name_of(&list[i], name, sizeof name);
        complain("weir-supervise: no listener wants the socket %s of the service manager: it is closed\n", name);
        if (list[i].kept) {
            unstore(name);
            shutdown(list[i].fd, SHUT_RDWR); /* its copy may live a moment longer: the address is free now */
        }
        close(list[i].fd);
        list[i] = list[--*count];
    }
    return *count < before;
}

/* ---- states ---- */

static void tell_state(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell_state(const char *fmt, ...)
{
    va_list ap;
    if (manager.fd < 0) return;
    va_start(ap, fmt);
    vsnprintf(manager.state, sizeof manager.state, fmt, ap);
    va_end(ap);
    if (!is_busy(send_text(manager.state, -1))) manager.state[0] = 0;
}

void systemd_ready(const char *status)
{
    char line[200], pid[40] = "";
    snprintf(line, sizeof line, "%s", status);
    line[strcspn(line, "\n")] = 0; /* a line of a message is a field of its own */
    if (getpid() == manager.pid) snprintf(pid, sizeof pid, "MAINPID=%d\n", (int)manager.pid);
    tell_state("READY=1\n%sSTATUS=%s", pid, line);
}

void systemd_reloading(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    tell_state("RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading the configuration again", (long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
}

void systemd_stopping(void)
{
    tell_state("STOPPING=1\nSTATUS=ending");
}

void systemd_alive(void)
{
    if (manager.watchdog && send_text("WATCHDOG=1", -1) != 0) errno = 0; /* the next one comes soon */
}

int64_t systemd_beat_ms(void)
{
    return manager.beat_ms;
}

bool systemd_again(struct held *list, size_t count)
{
    bool behind = false;
    if (manager.fd < 0) return false;
    if (manager.state[0] && !is_busy(send_text(manager.state, -1))) manager.state[0] = 0;
    for (size_t i = 0; i < count; i++) {
        systemd_store(&list[i]);
        behind |= !list[i].stored;
    }
    return behind || manager.state[0];
}

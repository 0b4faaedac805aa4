/* SPDX-License-Identifier: MIT */
/* OS_Accept(): which connections become requests. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgios.h"
#include "internal.h"

enum { PAUSE_MS = 50, PATIENCE_MS = 5000 }; /* while descriptors or memory are short */

/* An IPv6 address that stands for an IPv4 one is that. */
static int text_of(const struct sockaddr_storage *a, char *out, socklen_t size)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in *four = (const struct sockaddr_in *)a;
    if (a->ss_family == AF_INET) return inet_ntop(AF_INET, &four->sin_addr, out, size) != NULL;
    if (a->ss_family != AF_INET6) return 0;
    if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) return inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, out, size) != NULL;
    return inet_ntop(AF_INET6, &six->sin6_addr, out, size) != NULL;
}

/* One address of the list, however it is written (::1, 0:0::1), is the peer's. */
static bool same_address(struct weir_str entry, const char *peer)
{
    char text[64], canonical[INET6_ADDRSTRLEN];
    struct in6_addr a;
    if (entry.len == 0 || entry.len >= sizeof text) return false;
    memcpy(text, entry.ptr, entry.len);
    text[entry.len] = 0;
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(family, text, &a) != 1 || !inet_ntop(family, &a, canonical, sizeof canonical)) return false;
    return strcmp(canonical, peer) == 0;
}

/* [FastCGI 1.0, 3.2]: with a list, a peer that is not in it is turned away, one without an address as well. */
static bool is_welcome(const struct sockaddr_storage *a, const char *addrs)
{
    char peer[INET6_ADDRSTRLEN];
    if (!addrs) return true;
    if (!text_of(a, peer, sizeof peer)) return false;
    while (*addrs) {
        size_t len = strcspn(addrs, ", ");
        if (same_address(weir_str(addrs, len), peer)) return true;
        addrs += len + (addrs[len] != 0);
    }
    return false;
}

/* A unix connection on which nothing comes holds this thread no longer than that. */
static bool speaks(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do n = poll(&p, 1, keeper_ms);
    while (n < 0 && errno == EINTR); /* whoever was accepted is served */
    return n > 0;
}

static bool take(int fd, const char *addrs)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    int on = 1;
    if (getpeername(fd, (struct sockaddr *)&a, &len) < 0 || !is_welcome(&a, addrs)) return false;
    if (a.ss_family == AF_UNIX) return speaks(fd);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return true;
}

/* The connection failed before it was ours: the next one. */
static bool lost_on_the_way(int error)
{
    return error == ECONNABORTED || error == EPROTO || error == ECONNRESET || error == ETIMEDOUT || error == EHOSTUNREACH ||
           error == ENETUNREACH || error == ENETDOWN || error == EHOSTDOWN || error == ENONET || error == EPERM;
}

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

int OS_Accept(int listener, int fail_on_intr, const char *addrs)
{
    int patience = PATIENCE_MS;
    while (!shutdown_pending()) {
        int fd = wait_accept(listener);
        if (fd >= 0) {
            if (take(fd, addrs)) return fd;
            close(fd);
            continue;
        }
        int error = errno;
        if (error == EINTR && !fail_on_intr && !shutdown_pending()) continue;
        if (lost_on_the_way(error)) continue;
        if (!is_shortage(error) || (patience -= PAUSE_MS) < 0) {
            errno = error;
            return -1;
        }
        poll(NULL, 0, PAUSE_MS);
    }
    errno = 0;
    return -1;
}

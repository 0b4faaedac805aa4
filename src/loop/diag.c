/* SPDX-License-Identifier: MIT */
/* Asks the kernel (sock_diag(7), unix) whether a connection was accepted: the inode of its peer is 0 until then. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop_internal.h"

int weir_open_unix_diag(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    return fd < 0 ? WEIR_SYSTEM : fd;
}

static int send_question(int netlink, uint32_t inode)
{
    struct {
        struct nlmsghdr head;
        struct unix_diag_req req;
    } q = {.head = {.nlmsg_len = sizeof q, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
           .req = {.sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_ino = inode,
                   .udiag_show = UDIAG_SHOW_PEER, .udiag_cookie = {~0u, ~0u}}};
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    ssize_t n;
    do {
        n = sendto(netlink, &q, sizeof q, 0, (struct sockaddr *)&to, sizeof to);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof q ? WEIR_OK : WEIR_SYSTEM;
}

/* From one answer. */
static int64_t read_answer(char *buf, size_t len, uint32_t inode)
{
    struct nlmsghdr *head = (void *)buf;
    if (!NLMSG_OK(head, len) || head->nlmsg_type != SOCK_DIAG_BY_FAMILY) return WEIR_INVALID;
    struct unix_diag_msg *m = NLMSG_DATA(head);
    if (head->nlmsg_len < NLMSG_LENGTH(sizeof *m) || m->udiag_ino != inode) return WEIR_INVALID;
    size_t left = head->nlmsg_len - NLMSG_LENGTH(sizeof *m);
    struct rtattr *attr = (void *)(m + 1);
    for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
        uint32_t peer;
        if (attr->rta_type != UNIX_DIAG_PEER || RTA_PAYLOAD(attr) < sizeof peer) continue;
        memcpy(&peer, RTA_DATA(attr), sizeof peer);
        return peer;
    }
    return WEIR_CLOSED; /* reading tells how */
}

int64_t weir_unix_diag_peer(int netlink, int fd)
{
    struct stat st;
    struct sockaddr_storage name;
    socklen_t name_len = sizeof name;
    _Alignas(struct nlmsghdr) char buf[512];
    if (netlink < 0) return WEIR_INVALID;
    if (getsockname(fd, (struct sockaddr *)&name, &name_len) < 0 || name.ss_family != AF_UNIX) return WEIR_INVALID;
    if (fstat(fd, &st) < 0 || send_question(netlink, (uint32_t)st.st_ino) < 0) return WEIR_INVALID;
    ssize_t n;
    do {
        n = recv(netlink, buf, sizeof buf, 0);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? read_answer(buf, (size_t)n, (uint32_t)st.st_ino) : WEIR_INVALID;
}

bool weir_unix_diag_works(int netlink)
{
    int pair[2];
    if (netlink < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return false;
    bool works = weir_unix_diag_peer(netlink, pair[0]) > 0;
    close(pair[0]);
    close(pair[1]);
    return works;
}

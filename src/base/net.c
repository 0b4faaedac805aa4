/* SPDX-License-Identifier: MIT */
/* Networks: an address with the number of its bits that count. IPv4 is held as IPv6 (::ffff:a.b.c.d), so that one kind of
 * connection and one kind of order is enough. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/base.h"

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool weir_net_v4(const uint8_t address[16])
{
    return memcmp(address, v4_prefix, sizeof v4_prefix) == 0;
}

void weir_net_mask(uint8_t address[16], unsigned bits)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned here = bits > i * 8 ? bits - i * 8 : 0;
        if (here < 8) address[i] = (uint8_t)(address[i] & ~(0xffu >> here));
    }
}

int weir_net_parse(struct weir_str text, struct weir_net *out)
{
    char host[INET6_ADDRSTRLEN];
    const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
    size_t len = slash ? (size_t)(slash - text.ptr) : text.len;
    uint64_t bits = 128;
    struct weir_net n = {0};
    if (len == 0 || len >= sizeof host || memchr(text.ptr, 0, len)) return WEIR_INVALID;
    memcpy(host, text.ptr, len);
    host[len] = 0;
    bool v4 = inet_pton(AF_INET, host, n.address + 12) == 1;
    if (v4) memcpy(n.address, v4_prefix, sizeof v4_prefix);
    else if (inet_pton(AF_INET6, host, n.address) != 1) return WEIR_INVALID;
    if (slash && weir_str_u64(weir_str(slash + 1, text.len - len - 1), v4 ? 32 : 128, &bits) < 0) return WEIR_INVALID;
    n.bits = (uint8_t)(slash && v4 ? bits + 96 : bits);
    weir_net_mask(n.address, n.bits);
    *out = n;
    return WEIR_OK;
}

void weir_net_text(const struct weir_net *n, char out[WEIR_NET_TEXT])
{
    char host[INET6_ADDRSTRLEN];
    bool v4 = weir_net_v4(n->address) && n->bits >= 96;
    unsigned most = v4 ? 32 : 128, bits = v4 ? n->bits - 96u : n->bits;
    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? n->address + 12 : n->address, host, sizeof host);
    if (bits == most) snprintf(out, WEIR_NET_TEXT, "%s", host);
    else snprintf(out, WEIR_NET_TEXT, "%s/%u", host, bits);
}

bool weir_net_of(const struct sockaddr *a, uint8_t address[16])
{
    if (a->sa_family == AF_INET) {
        memcpy(address, v4_prefix, sizeof v4_prefix);
        memcpy(address + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
        return true;
    }
    if (a->sa_family != AF_INET6) return false;
    memcpy(address, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    return true;
}

bool weir_net_has(const struct weir_net *n, const uint8_t address[16])
{
    unsigned whole = n->bits / 8, rest = n->bits % 8;
    if (n->bits < 96 && weir_net_v4(address)) return false;
    if (memcmp(n->address, address, whole) != 0) return false;
    return rest == 0 || ((n->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

bool weir_net_everybody(const struct weir_net *n)
{
    return n->bits == 0 || (n->bits == 96 && weir_net_v4(n->address));
}

bool weir_nets_have(const struct weir_net *list, size_t count, const uint8_t address[16])
{
    for (size_t i = 0; i < count; i++)
        if (weir_net_has(&list[i], address)) return true;
    return false;
}

void weir_net_socket(const uint8_t address[16], uint16_t port, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (weir_net_v4(address)) {
        struct sockaddr_in *v4 = (void *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, address + 12, 4);
    } else {
        struct sockaddr_in6 *v6 = (void *)out;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        memcpy(&v6->sin6_addr, address, 16);
    }
}

/* SPDX-License-Identifier: MIT */
/* The PROXY protocol (haproxy.org, proxy-protocol.txt): who a connection really came from, told in front of its first byte by the proxy
 * that took it. Version 1 is a line, version 2 is binary. Of what version 2 can tell beyond addresses nothing is used. Whether
 * the sender may say so is the caller's to know. */
#include <arpa/inet.h>

#include "http/http.h"

#define FIXED     16  /* bytes of version 2 before its addresses */
#define LINE_MAX_ 107 /* of version 1, with CR LF */

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* ---- version 1 ---- */

/* The word up to the next blank or the end; false: it is empty. */
static bool next_word(struct weir_str *line, struct weir_str *word)
{
    const char *blank = line->len ? memchr(line->ptr, ' ', line->len) : NULL;
    size_t len = blank ? (size_t)(blank - line->ptr) : line->len;
    *word = weir_str(line->ptr, len);
    *line = weir_str(line->ptr + len + (blank != NULL), line->len - len - (blank != NULL));
    return len > 0;
}

static bool read_address(struct weir_str s, bool v6, struct weir_proxy_address *out)
{
    char text[INET6_ADDRSTRLEN];
    if (s.len >= sizeof text || memchr(s.ptr, 0, s.len)) return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    if (!v6) memcpy(out->address, mapped, sizeof mapped);
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? out->address : out->address + 12) == 1;
}

static bool read_port(struct weir_str s, uint16_t *out)
{
    uint64_t v;
    if (s.len > 5 || (s.len > 1 && s.ptr[0] == '0') || weir_str_u64(s, 65535, &v) < 0) return false;
    *out = (uint16_t)v;
    return true;
}

/* line: without CR LF. */
static int read_line(struct weir_proxy *p, struct weir_str line, const char **reason)
{
    struct weir_str word, from, to, from_port, to_port;
    *reason = "a PROXY line that is not valid";
    if (!next_word(&line, &word) || !weir_str_eq(word, WEIR_STR("PROXY")) || !next_word(&line, &word)) return WEIR_PROTOCOL;
    if (weir_str_eq(word, WEIR_STR("UNKNOWN"))) return WEIR_OK; /* whatever follows is nobody's business */
    bool v6 = weir_str_eq(word, WEIR_STR("TCP6"));
    if (!v6 && !weir_str_eq(word, WEIR_STR("TCP4"))) return WEIR_PROTOCOL;
    bool all = next_word(&line, &from) && next_word(&line, &to) && next_word(&line, &from_port) && next_word(&line, &to_port);
    if (!all || to_port.ptr + to_port.len != line.ptr || !read_address(from, v6, &p->from) || !read_address(to, v6, &p->to) ||
        !read_port(from_port, &p->from.port) || !read_port(to_port, &p->to.port))
        return WEIR_PROTOCOL;
    p->known = true;
    return WEIR_OK;
}

/* A byte of version 1. */
static int take_of_line(struct weir_proxy *p, char c, const char **reason)
{
    bool after_cr = p->have && p->held[p->have - 1] == '\r';
    if (after_cr != (c == '\n')) {
        *reason = "a PROXY line without its end";
        return WEIR_PROTOCOL;
    }
    p->held[p->have++] = c;
    if (after_cr) return read_line(p, weir_str(p->held, p->have - 2u), reason);
    if (p->have < LINE_MAX_) return WEIR_AGAIN;
    *reason = "a PROXY line that is too long";
    return WEIR_PROTOCOL;
}

/* ---- version 2 ---- */

static uint16_t number(const char *p)
{
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* Bytes of addresses that follow the fixed part; the rest is passed over. */
static unsigned address_bytes(const struct weir_proxy *p)
{
    unsigned char command = (unsigned char)p->held[12] & 15, family = (unsigned char)p->held[13];
    return command == 0 ? 0 : family == 0x11 ? 12 : family == 0x21 ? 36 : 0;
}

/* The fixed part is there. */
static int read_fixed(struct weir_proxy *p, const char **reason)
{
    unsigned char command = (unsigned char)p->held[12];
    p->body = number(p->held + 14);
    *reason = "a PROXY header of an unknown version or command";
    if (command != 0x20 && command != 0x21) return WEIR_PROTOCOL;
    *reason = "a PROXY header that is too long";
    if (p->body > WEIR_PROXY_MAX) return WEIR_PROTOCOL;
    *reason = "a PROXY header without room for its addresses";
    if (p->body < address_bytes(p)) return WEIR_PROTOCOL;
    p->skip = (uint16_t)(p->body - address_bytes(p));
    return WEIR_OK;
}

static void read_addresses(struct weir_proxy *p)
{
    const char *at = p->held + FIXED;
    if (address_bytes(p) == 0) return;
    bool v6 = address_bytes(p) == 36;
    size_t len = v6 ? 16 : 4;
    uint8_t *from = p->from.address, *to = p->to.address;
    if (!v6) {
        memcpy(from, mapped, sizeof mapped);
        memcpy(to, mapped, sizeof mapped);
    }
    memcpy(from + 16 - len, at, len);
    memcpy(to + 16 - len, at + len, len);
    p->from.port = number(at + 2 * len);
    p->to.port = number(at + 2 * len + 2);
    p->known = true;
}

/* A byte of version 2, up to its addresses. WEIR_OK: they are complete. */
static int take_of_binary(struct weir_proxy *p, char c, const char **reason)
{
    if (p->have < sizeof signature && c != signature[p->have]) {
        *reason = "no PROXY header";
        return WEIR_PROTOCOL;
    }
    p->held[p->have++] = c;
    if (p->have == FIXED) {
        int status = read_fixed(p, reason);
        if (status < 0) return status;
    }
    if (p->have < FIXED || p->have < FIXED + address_bytes(p)) return WEIR_AGAIN;
    read_addresses(p);
    return WEIR_OK;
}

/* ---- both ---- */

static int take(struct weir_proxy *p, char c, const char **reason)
{
    static const char word[6] = "PROXY ";
    if (p->have == 0) p->version = c == word[0] ? 1 : 2;
    if (p->version == 2) return take_of_binary(p, c, reason);
    if (p->have >= sizeof word || c == word[p->have]) return take_of_line(p, c, reason);
    *reason = "no PROXY header";
    return WEIR_PROTOCOL;
}

int weir_proxy_feed(struct weir_proxy *p, const void *buf, size_t len, size_t *used, const char **reason)
{
    const char *c = buf;
    *used = 0;
    while (!p->read) {
        if (*used == len) return WEIR_AGAIN;
        int status = take(p, c[(*used)++], reason);
        if (status == WEIR_OK) p->read = true;
        else if (status != WEIR_AGAIN) return status;
    }
    size_t more = len - *used < p->skip ? len - *used : p->skip;
    p->skip = (uint16_t)(p->skip - more);
    *used += more;
    return p->skip ? WEIR_AGAIN : WEIR_OK;
}

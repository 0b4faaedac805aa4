/* SPDX-License-Identifier: MIT */
/* Whom a request is for: host[:port] of a Host field or of a URL [RFC 9110 4.2, 7.2; RFC 3986 3.2.2]. Narrower than the grammar: what
 * servers decode, cut or map to folders in different ways is refused (userinfo, %XX, sub-delims, zones, empty labels). */
#include "http/http.h"

#define NAME_MAX_LEN 255

static bool is_port(struct weir_str s)
{
    uint64_t n;
    return s.len == 0 || (s.len <= 5 && weir_str_u64(s, 65535, &n) == WEIR_OK); /* "host:" is host [RFC 3986 6.2.3] */
}

/* What stands between brackets: an IPv6 address, as far as its bytes tell. */
static bool is_ip_literal(struct weir_str s)
{
    size_t colons = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c == ':') colons++;
        else if (c != '.' && !(weir_byte_class[c] & WEIR_BYTE_HEX)) return false;
    }
    return s.len <= 45 && colons >= 2 && colons <= 7;
}

static bool is_name(struct weir_str s)
{
    if (s.len == 0 || s.len > NAME_MAX_LEN || s.ptr[0] == '.') return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '.' && i + 1 < s.len && s.ptr[i + 1] == '.') return false;
        if (c == ':' || c == '[' || c == ']' || c == '%' || !(weir_byte_class[(unsigned char)c] & WEIR_BYTE_HOST)) return false;
    }
    return true;
}

bool weir_http_authority(struct weir_str s)
{
    if (s.len && s.ptr[0] == '[') {
        const char *end = memchr(s.ptr, ']', s.len);
        if (!end) return false;
        size_t n = (size_t)(end - s.ptr) + 1;
        struct weir_str rest = weir_str(s.ptr + n, s.len - n);
        if (!is_ip_literal(weir_str(s.ptr + 1, n - 2))) return false;
        return rest.len == 0 || (rest.ptr[0] == ':' && is_port(weir_str(rest.ptr + 1, rest.len - 1)));
    }
    const char *colon = s.len ? memchr(s.ptr, ':', s.len) : NULL;
    size_t n = colon ? (size_t)(colon - s.ptr) : s.len;
    return is_name(weir_str(s.ptr, n)) && (!colon || is_port(weir_str(colon + 1, s.len - n - 1)));
}

/* SPDX-License-Identifier: MIT */
/* The credentials of Basic [RFC 7617]: base64 of NAME:PASSWORD. */
#include "http/http.h"

#define USER_MAX     255
#define PASSWORD_MAX 511

/* -1: none of base64. */
static int digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Canonical: whole groups, or padded ones; what padding leaves over is zero. */
static bool decode(struct weir_str s, char *out, size_t *len)
{
    size_t pad = 0;
    while (pad < 2 && s.len > pad && s.ptr[s.len - 1 - pad] == '=') pad++;
    if (s.len % 4 || s.len == 0) return false;
    uint32_t bits = 0;
    *len = 0;
    for (size_t i = 0; i < s.len - pad; i++) {
        int d = digit(s.ptr[i]);
        if (d < 0) return false;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 == 3) {
            out[(*len)++] = (char)(bits >> 16);
            out[(*len)++] = (char)(bits >> 8);
            out[(*len)++] = (char)bits;
            bits = 0;
        }
    }
    if (pad == 2) {
        if (bits & 15) return false;
        out[(*len)++] = (char)(bits >> 4);
    } else if (pad == 1) {
        if (bits & 3) return false;
        out[(*len)++] = (char)(bits >> 10);
        out[(*len)++] = (char)(bits >> 2);
    }
    return true;
}

int weir_http_basic(struct weir_str value, struct weir_arena *a, struct weir_str *user, struct weir_str *password)
{
    static const char scheme[] = "basic";
    size_t at = sizeof scheme - 1, len;
    if (value.len <= at || !weir_str_ieq(weir_str(value.ptr, at), weir_cstr(scheme)) || value.ptr[at] != ' ') return WEIR_INVALID;
    while (at < value.len && value.ptr[at] == ' ') at++;
    struct weir_str coded = weir_str(value.ptr + at, value.len - at);
    if (coded.len > (USER_MAX + PASSWORD_MAX + 1) / 3 * 4 + 4) return WEIR_INVALID;
    char *plain = weir_arena_bytes(a, coded.len / 4 * 3 + 4);
    if (!plain) return WEIR_NOMEM;
    if (!decode(coded, plain, &len)) return WEIR_INVALID;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)plain[i] < 32 || plain[i] == 127) return WEIR_INVALID; /* RFC 7617 2 */
    plain[len] = 0;
    char *colon = memchr(plain, ':', len);
    if (!colon || colon - plain > USER_MAX || len - (size_t)(colon - plain) - 1 > PASSWORD_MAX) return WEIR_INVALID;
    *colon = 0;
    *user = weir_str(plain, (size_t)(colon - plain));
    *password = weir_str(colon + 1, len - user->len - 1);
    return WEIR_OK;
}

/* SPDX-License-Identifier: MIT */
/* base: checks and string helpers. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void weir_check_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "weir: internal check failed: %s (%s:%d)\n", cond, file, line);
    abort();
}

const char *weir_strerror(int status)
{
    switch (status) {
    case WEIR_OK: return "ok";
    case WEIR_AGAIN: return "not now";
    case WEIR_CLOSED: return "closed by the peer";
    case WEIR_ABORTED: return "aborted";
    case WEIR_LIMIT: return "limit reached";
    case WEIR_NOMEM: return "out of memory";
    case WEIR_INVALID: return "invalid argument";
    case WEIR_PROTOCOL: return "protocol error";
    case WEIR_TIMEOUT: return "timed out";
    case WEIR_REFUSED: return "refused";
    case WEIR_SYSTEM: return "system error";
    default: return status >= 0 ? "ok" : "unknown status";
    }
}

/* ---- classes of bytes ---- */

#define V (WEIR_BYTE_VISIBLE | WEIR_BYTE_FIELD)
#define P (V | WEIR_BYTE_PLAIN)
#define T (P | WEIR_BYTE_TOKEN)
#define H WEIR_BYTE_HOST
#define X WEIR_BYTE_HEX
__extension__ const uint8_t weir_byte_class[256] = {
    ['\t'] = WEIR_BYTE_FIELD, [' '] = WEIR_BYTE_FIELD | WEIR_BYTE_PLAIN, [128 ... 255] = WEIR_BYTE_FIELD,
    ['"'] = V, ['\\'] = V,
    ['('] = P, [')'] = P, [','] = P, ['/'] = P, [';'] = P, ['<'] = P, ['='] = P, ['>'] = P, ['?'] = P, ['@'] = P, ['{'] = P, ['}'] = P,
    [':'] = P | H, ['['] = P | H, [']'] = P | H,
    ['!'] = T, ['#'] = T, ['$'] = T, ['&'] = T, ['\''] = T, ['*'] = T, ['+'] = T, ['^'] = T, ['`'] = T, ['|'] = T,
    ['-'] = T | H, ['.'] = T | H, ['_'] = T | H, ['~'] = T | H, ['%'] = T | H,
    ['0' ... '9'] = T | H | X, ['a' ... 'f'] = T | H | X, ['A' ... 'F'] = T | H | X, ['g' ... 'z'] = T | H, ['G' ... 'Z'] = T | H};
#undef V
#undef P
#undef T
#undef H
#undef X

/* A byte of x is below n (n <= 128): not 0. */
static uint64_t below(uint64_t x, uint64_t n)
{
    const uint64_t ones = UINT64_MAX / 255;
    return (x - ones * n) & ~x & ones * 128;
}

bool weir_str_field(struct weir_str s)
{
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t x;
        memcpy(&x, s.ptr + i, 8);
        if (below(x, 0x20) | below(x ^ UINT64_MAX / 255 * 0x7f, 1)) break; /* perhaps a tab */
    }
    return i == s.len || weir_str_all(weir_str(s.ptr + i, s.len - i), WEIR_BYTE_FIELD);
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

bool weir_str_ieq_slow(struct weir_str a, struct weir_str b)
{
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i])) return false;
    return true;
}

bool weir_str_prefix(struct weir_str s, struct weir_str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

bool weir_str_suffix(struct weir_str s, struct weir_str suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

int weir_str_u64(struct weir_str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (s.len == 0) return WEIR_INVALID;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') return WEIR_INVALID;
        uint64_t digit = (uint64_t)(s.ptr[i] - '0');
        if (digit > max || v > (max - digit) / 10) return WEIR_INVALID;
        v = v * 10 + digit;
    }
    *out = v;
    return WEIR_OK;
}

size_t weir_u64_text(char *out, uint64_t v)
{
    char tmp[20];
    size_t n = 0;
    do {
        tmp[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    for (size_t i = 0; i < n; i++) out[i] = tmp[n - 1 - i];
    return n;
}

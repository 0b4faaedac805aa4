/* SPDX-License-Identifier: MIT */
/* Text of strangers: which bytes are a printable character of UTF-8, and how the others are written in logs. */
#include "base/base.h"

size_t weir_utf8_printable(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) return p[0] == '\t' || (p[0] >= 0x20 && p[0] != 0x7f);
    size_t n = p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* C1, overlong, surrogates, beyond Unicode */
    return n;
}

static size_t put_hex(char *out, const char *before, unsigned char byte)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = strlen(before);
    memcpy(out, before, n);
    out[n] = hex[byte >> 4];
    out[n + 1] = hex[byte & 15];
    return n + 2;
}

size_t weir_text_escape(char *out, size_t room, const char *p, size_t len)
{
    size_t at = 0;
    for (size_t i = 0; i < len && at + 5 < room;) {
        size_t n = weir_utf8_printable(p + i, len - i);
        if (n) memcpy(out + at, p + i, n);
        at += n ? n : put_hex(out + at, "\\x", (unsigned char)p[i]);
        i += n ? n : 1;
    }
    return at;
}

size_t weir_json_escape(char *out, size_t room, const char *p, size_t len)
{
    size_t at = 0;
    for (size_t i = 0; i < len && at + 7 < room;) {
        unsigned char c = (unsigned char)p[i];
        size_t n = weir_utf8_printable(p + i, len - i);
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            at += put_hex(out + at, "\\u00", c);
        } else if (n) {
            memcpy(out + at, p + i, n);
            at += n;
        } else {
            at += put_hex(out + at, "\\\\x", c);
        }
        i += n ? n : 1;
    }
    return at;
}

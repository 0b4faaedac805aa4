/* SPDX-License-Identifier: MIT */
/* URL paths: decoded once, resolved, split into script and PATH_INFO. Bytes, never locale or Unicode. */
#include "cgi/cgi.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Decodes in to out (as long as in at most); the length, or -1 with a reason. */
static int64_t decode(struct weir_str in, char *out, const char **reason)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        bool escaped = c == '%';
        if (escaped) {
            int hi = i + 1 < in.len ? hex(in.ptr[i + 1]) : -1, lo = i + 2 < in.len ? hex(in.ptr[i + 2]) : -1;
            if (hi < 0 || lo < 0) {
                *reason = "a path with a bad % escape";
                return -1;
            }
            c = (unsigned char)(hi << 4 | lo);
            i += 2;
        }
        if (c < 0x20 || c == 0x7f) {
            *reason = "a path with a control byte";
            return -1;
        }
        if ((escaped && c == '/') || c == '\\') { /* what servers and scripts read differently */
            *reason = c == '/' ? "a path with an encoded slash" : "a path with a backslash";
            return -1;
        }
        out[n++] = (char)c;
    }
    return (int64_t)n;
}

/* Resolves "." and ".." and drops empty segments, in place: the length, or -1: above the root. */
static int64_t resolve(char *p, size_t len)
{
    size_t out = 0, i = 0;
    while (i < len) {
        while (i < len && p[i] == '/') i++;
        size_t from = i;
        while (i < len && p[i] != '/') i++;
        size_t n = i - from;
        bool last = i == len;
        bool dot = n == 1 && p[from] == '.', dots = n == 2 && p[from] == '.' && p[from + 1] == '.';
        if (dots) {
            if (out == 0) return -1;
            while (out > 0 && p[out - 1] != '/') out--;
            out--;
        }
        if (dot || dots || n == 0) {
            if (last) p[out++] = '/'; /* a folder */
            continue;
        }
        p[out] = '/';
        memmove(p + out + 1, p + from, n);
        out += n + 1;
    }
    if (out == 0) p[out++] = '/';
    return (int64_t)out;
}

int weir_cgi_path_parse(struct weir_str target, struct weir_arena *a, struct weir_cgi_path *out, const char **reason)
{
    *reason = "a path that does not begin with a slash";
    if (target.len == 0 || target.ptr[0] != '/') return WEIR_INVALID;
    const char *q = memchr(target.ptr, '?', target.len);
    size_t n = q ? (size_t)(q - target.ptr) : target.len;
    char *path = weir_arena_bytes(a, n + 2);
    if (!path) return WEIR_NOMEM;
    int64_t len = decode(weir_str(target.ptr, n), path, reason);
    if (len < 0) return WEIR_INVALID;
    len = resolve(path, (size_t)len);
    if (len < 0) {
        *reason = "a path that leads above the root";
        return WEIR_INVALID;
    }
    path[len] = 0;
    out->path = weir_str(path, (size_t)len);
    out->has_query = q != NULL;
    out->query = q ? weir_str(q + 1, target.len - n - 1) : weir_str(target.ptr + target.len, 0);
    return WEIR_OK;
}

size_t weir_cgi_split_next(struct weir_str path, struct weir_str suffix, size_t pos)
{
    if (suffix.len == 0 || path.len < suffix.len) return 0;
    size_t end = pos + 1 > suffix.len ? pos + 1 : suffix.len;
    for (; end <= path.len; end++) {
        if (end < path.len && path.ptr[end] != '/') continue;
        if (memcmp(path.ptr + end - suffix.len, suffix.ptr, suffix.len) == 0) return end;
    }
    return 0;
}

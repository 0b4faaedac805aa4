/* SPDX-License-Identifier: MIT */
/* Range fields: what comes out is disjoint, not empty and inside, and holds just what a plain reading of the field asks for. */
#include <stdint.h>
#include <stdlib.h>

#include "http/http.h"

#define SIZE 4096

/* Marks what one range asks for; false: it is none. */
static bool mark(const char *p, size_t len, uint8_t asked[static SIZE])
{
    char text[64], *end;
    while (len && (*p == ' ' || *p == '\t')) p++, len--;
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t')) len--;
    if (len == 0) return true;
    if (len >= 20) return false; /* what is longer is not compared */
    memcpy(text, p, len);
    text[len] = 0;
    if (strspn(text, "0123456789-") != len) return false;
    if (text[0] == '-') {
        if (len == 1 || text[1] == '-') return false;
        uint64_t n = strtoull(text + 1, &end, 10);
        if (*end) return false;
        for (uint64_t i = 0; i < n && i < SIZE; i++) asked[SIZE - 1 - i] = 1;
        return true;
    }
    uint64_t first = strtoull(text, &end, 10), last = UINT64_MAX;
    if (*end++ != '-') return false;
    if (*end && (*end == '-' || (last = strtoull(end, &end, 10)) < first || *end)) return false;
    for (uint64_t i = first; i <= last && i < SIZE; i++) asked[i] = 1;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char unit[] = "bytes=";
    struct weir_http_range list[WEIR_HTTP_RANGES_MAX];
    uint8_t asked[SIZE] = {0}, given[SIZE] = {0};
    size_t count, total = 0;
    char *field = malloc(sizeof unit - 1 + len);
    if (!field) abort();
    memcpy(field, unit, sizeof unit - 1);
    if (len) memcpy(field + sizeof unit - 1, data, len);
    enum weir_http_ranges kind = weir_http_ranges(weir_str(field, sizeof unit - 1 + len), SIZE, list, &count);
    for (size_t i = 0; kind == WEIR_HTTP_RANGES_SOME && i < count; i++) {
        if (list[i].len == 0 || list[i].first >= SIZE || list[i].len > SIZE - list[i].first) abort();
        for (uint64_t k = list[i].first; k < list[i].first + list[i].len; k++)
            if (given[k]++) abort();
        total += (size_t)list[i].len;
    }
    if (kind == WEIR_HTTP_RANGES_SOME && (count == 0 || total > SIZE)) abort();
    bool plain = true;
    for (size_t at = 0; at <= len && plain;) {
        size_t n = 0;
        while (at + n < len && data[at + n] != ',') n++;
        plain = mark((const char *)data + at, n, asked);
        at += n + 1;
    }
    for (size_t i = 0; plain && kind == WEIR_HTTP_RANGES_SOME && i < SIZE; i++)
        if (asked[i] && !given[i]) abort();
    for (size_t i = 0; plain && kind == WEIR_HTTP_RANGES_OUTSIDE && i < SIZE; i++)
        if (asked[i]) abort();
    free(field);
    return 0;
}

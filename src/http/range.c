/* SPDX-License-Identifier: MIT */
/* What a client asks of a representation beside its path: parts of it [RFC 9110 14], and a coding [RFC 9110 12.5.3]. */
#include "http/http.h"

#define GAP 80 /* ranges so near to each other are one: a part of its own would take more */

static struct weir_str trimmed(struct weir_str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) s = weir_str(s.ptr + 1, s.len - 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) s.len--;
    return s;
}

/* Takes what stands before the next separator; false: nothing is left. */
static bool next_item(struct weir_str *rest, char separator, struct weir_str *item)
{
    if (!rest->ptr) return false;
    const char *end = rest->len ? memchr(rest->ptr, separator, rest->len) : NULL;
    size_t n = end ? (size_t)(end - rest->ptr) : rest->len;
    *item = trimmed(weir_str(rest->ptr, n));
    *rest = end ? weir_str(end + 1, rest->len - n - 1) : weir_str(NULL, 0);
    return true;
}

/* ---- ranges ---- */

/* Digits alone; what is too large is as large as can be. */
static bool position(struct weir_str s, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9') return false;
        unsigned digit = (unsigned)(s.ptr[i] - '0');
        v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *out = v;
    return s.len > 0;
}

/* "0-4", "5-", "-3": false if it is none. An empty range lies outside. */
static bool read_range(struct weir_str s, uint64_t size, struct weir_http_range *out)
{
    const char *dash = memchr(s.ptr, '-', s.len);
    uint64_t first, last;
    if (!dash) return false;
    struct weir_str a = weir_str(s.ptr, (size_t)(dash - s.ptr)), b = weir_str(dash + 1, s.len - a.len - 1);
    *out = (struct weir_http_range){0};
    if (a.len == 0) { /* the last so many bytes */
        if (!position(b, &last)) return false;
        if (last > size) last = size;
        *out = (struct weir_http_range){size - last, last};
        return true;
    }
    if (!position(a, &first) || (b.len && !position(b, &last))) return false;
    if (b.len == 0) last = UINT64_MAX;
    if (last < first) return false;
    if (first >= size) return true;
    if (last >= size) last = size - 1;
    *out = (struct weir_http_range){first, last - first + 1};
    return true;
}

static bool touch(struct weir_http_range a, struct weir_http_range b)
{
    return a.first <= b.first + b.len + GAP && b.first <= a.first + a.len + GAP;
}

/* Two that touch become one, where the first of them stood: how many there are then. */
static size_t join_two(struct weir_http_range *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = i + 1; k < count; k++) {
            if (!touch(list[i], list[k])) continue;
            uint64_t a = list[i].first + list[i].len, b = list[k].first + list[k].len, end = a > b ? a : b;
            if (list[k].first < list[i].first) list[i].first = list[k].first;
            list[i].len = end - list[i].first;
            memmove(&list[k], &list[k + 1], (count - k - 1) * sizeof *list);
            return count - 1;
        }
    return count;
}

/* The others keep their order [RFC 9110 15.3.7.2]. */
static size_t coalesce(struct weir_http_range *list, size_t count)
{
    for (size_t before = count + 1; count < before;) {
        before = count;
        count = join_two(list, count);
    }
    return count;
}

enum weir_http_ranges weir_http_ranges(struct weir_str value, uint64_t size, struct weir_http_range out[static WEIR_HTTP_RANGES_MAX], size_t *count)
{
    struct weir_http_range r;
    struct weir_str item, rest = value;
    size_t asked = 0;
    *count = 0;
    if (value.len < 6 || !weir_str_ieq(weir_str(value.ptr, 6), WEIR_STR("bytes="))) return WEIR_HTTP_RANGES_IGNORED;
    rest = weir_str(value.ptr + 6, value.len - 6);
    while (next_item(&rest, ',', &item)) {
        if (item.len == 0) continue;
        if (++asked > WEIR_HTTP_RANGES_MAX || !read_range(item, size, &r)) return WEIR_HTTP_RANGES_IGNORED;
        if (r.len) out[(*count)++] = r;
    }
    *count = coalesce(out, *count);
    if (asked == 0) return WEIR_HTTP_RANGES_IGNORED;
    return *count ? WEIR_HTTP_RANGES_SOME : WEIR_HTTP_RANGES_OUTSIDE;
}

/* ---- codings ---- */

/* "q=0.5" -> 500; anything that is no weight counts as none. */
static unsigned weight(struct weir_str s)
{
    unsigned v = 0, scale = 1000;
    if (s.len < 3 || (s.ptr[0] | 0x20) != 'q' || s.ptr[1] != '=') return 0;
    if (s.ptr[2] != '0' && s.ptr[2] != '1') return 0;
    v = s.ptr[2] == '1' ? 1000 : 0;
    for (size_t i = 4; i < s.len && i < 7 && s.ptr[3] == '.' && s.ptr[i] >= '0' && s.ptr[i] <= '9'; i++) {
        scale /= 10;
        v += (unsigned)(s.ptr[i] - '0') * scale;
    }
    return v > 1000 ? 1000 : v;
}

/* How much a list wants it, in thousandths; -1: it is not named. star: what it says of all others. */
static int wanted(struct weir_str list, struct weir_str coding, int *star)
{
    struct weir_str item, name, parameter;
    while (next_item(&list, ',', &item)) {
        unsigned q = 1000;
        if (!next_item(&item, ';', &name)) continue;
        while (next_item(&item, ';', &parameter))
            if (parameter.len && (parameter.ptr[0] | 0x20) == 'q') q = weight(parameter);
        if (weir_str_ieq(name, coding)) return (int)q;
        if (weir_str_eq(name, WEIR_STR("*"))) *star = (int)q;
    }
    return -1;
}

static int of_all(const struct weir_pair *headers, size_t count, struct weir_str coding, int *star)
{
    int most = -1;
    for (size_t i = 0; i < count; i++) {
        if (!weir_str_ieq(headers[i].name, WEIR_STR("Accept-Encoding"))) continue;
        int q = wanted(headers[i].value, coding, star);
        if (q > most) most = q;
    }
    return most;
}

int weir_http_choose_coding(const struct weir_pair *headers, size_t count, const struct weir_str *codings, size_t coding_count)
{
    int best = -1, star = 0, most = of_all(headers, count, WEIR_STR("identity"), &star);
    for (size_t i = 0; i < coding_count; i++) {
        star = 0;
        int q = of_all(headers, count, codings[i], &star);
        if (q < 0) q = star;
        if (q <= 0 || q < most || (q == most && best >= 0)) continue;
        most = q;
        best = (int)i;
    }
    return best;
}

/* SPDX-License-Identifier: MIT */
/* The sending half of HTTP/1.x [RFC 9112]: heads with their framing, chunks, dates, status texts. */
#include <stdio.h>

#include "http/internal.h"

const char *weir_http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {{100, "Continue"}, {101, "Switching Protocols"}, {103, "Early Hints"}, {200, "OK"}, {201, "Created"},
                 {202, "Accepted"}, {203, "Non-Authoritative Information"}, {204, "No Content"}, {205, "Reset Content"},
                 {206, "Partial Content"}, {300, "Multiple Choices"}, {301, "Moved Permanently"}, {302, "Found"},
                 {303, "See Other"}, {304, "Not Modified"}, {307, "Temporary Redirect"}, {308, "Permanent Redirect"},
                 {400, "Bad Request"}, {401, "Unauthorized"}, {402, "Payment Required"}, {403, "Forbidden"},
                 {404, "Not Found"}, {405, "Method Not Allowed"}, {406, "Not Acceptable"},
                 {407, "Proxy Authentication Required"}, {408, "Request Timeout"}, {409, "Conflict"}, {410, "Gone"},
                 {411, "Length Required"}, {412, "Precondition Failed"}, {413, "Content Too Large"},
                 {414, "URI Too Long"}, {415, "Unsupported Media Type"}, {416, "Range Not Satisfiable"},
                 {417, "Expectation Failed"}, {421, "Misdirected Request"}, {422, "Unprocessable Content"},
                 {423, "Locked"}, {424, "Failed Dependency"}, {425, "Too Early"}, {426, "Upgrade Required"},
                 {428, "Precondition Required"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
                 {451, "Unavailable For Legal Reasons"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
                 {502, "Bad Gateway"}, {503, "Service Unavailable"}, {504, "Gateway Timeout"},
                 {505, "HTTP Version Not Supported"}, {507, "Insufficient Storage"}, {508, "Loop Detected"},
                 {511, "Network Authentication Required"}};
    for (size_t i = 0; i < WEIR_COUNT(texts); i++)
        if (texts[i].status == status) return texts[i].text;
    return "Unknown";
}

/* Fields that the writer itself sets. */
static bool is_framing(struct weir_str name)
{
    switch (name.len) {
    case 7: return weir_str_ieq(name, WEIR_STR("upgrade")) || weir_str_ieq(name, WEIR_STR("trailer"));
    case 10: return weir_str_ieq(name, WEIR_STR("connection")) || weir_str_ieq(name, WEIR_STR("keep-alive"));
    case 14: return weir_str_ieq(name, WEIR_STR("content-length"));
    case 17: return weir_str_ieq(name, WEIR_STR("transfer-encoding"));
    default: return false;
    }
}

int http_check_fields(const struct weir_pair *f, size_t count, size_t *len)
{
    for (size_t i = 0; i < count; i++) {
        if (!weir_http_token(f[i].name) || !weir_str_field(f[i].value) || is_framing(f[i].name)) return WEIR_INVALID;
        *len += f[i].name.len + f[i].value.len + 4;
    }
    return WEIR_OK;
}

static char *put(char *p, const char *s, size_t len)
{
    weir_copy(p, s, len);
    return p + len;
}
#define PUT(p, literal) put((p), (literal), sizeof(literal) - 1)

static char *put_fields(char *p, const struct weir_pair *f, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        p = put(p, f[i].name.ptr, f[i].name.len);
        p = PUT(p, ": ");
        if (f[i].value.len) p = put(p, f[i].value.ptr, f[i].value.len);
        p = PUT(p, "\r\n");
    }
    return p;
}

static char *put_status(char *p, int status)
{
    const char *text = weir_http_status_text(status);
    p = PUT(p, "HTTP/1.1 ");
    *p++ = (char)('0' + status / 100);
    *p++ = (char)('0' + status / 10 % 10);
    *p++ = (char)('0' + status % 10);
    *p++ = ' ';
    p = put(p, text, strlen(text));
    return PUT(p, "\r\n");
}

static enum weir_http_framing choose_framing(const struct weir_http_response *r)
{
    if (r->status < 200 || r->status == 204 || r->status == 304) return WEIR_HTTP_NONE;
    if (r->content_length >= 0) return WEIR_HTTP_LENGTH;
    return r->minor ? WEIR_HTTP_CHUNKED : WEIR_HTTP_CLOSE;
}

int weir_http1_write_head(struct weir_buf *out, const struct weir_http_response *r, enum weir_http_framing *framing,
                          bool *keep_alive)
{
    size_t len = 256 + r->date.len;
    if (r->status < 200 || r->status > 999 || http_check_fields(r->headers, r->header_count, &len) < 0) return WEIR_INVALID;
    char *begin = weir_buf_room(out, len), *p = begin;
    if (!p) return WEIR_NOMEM;
    enum weir_http_framing f = choose_framing(r);
    bool keep = r->keep_alive && f != WEIR_HTTP_CLOSE;
    p = put_status(p, r->status);
    if (r->date.len) {
        p = PUT(p, "Date: ");
        p = put(p, r->date.ptr, r->date.len);
        p = PUT(p, "\r\n");
    }
    p = put_fields(p, r->headers, r->header_count);
    if (f == WEIR_HTTP_LENGTH) {
        p = PUT(p, "Content-Length: ");
        p += weir_u64_text(p, (uint64_t)r->content_length);
        p = PUT(p, "\r\n");
    } else if (f == WEIR_HTTP_CHUNKED) {
        p = PUT(p, "Transfer-Encoding: chunked\r\n");
    }
    if (!keep) p = PUT(p, "Connection: close\r\n");
    else if (r->minor == 0) p = PUT(p, "Connection: keep-alive\r\n");
    p = PUT(p, "\r\n");
    weir_buf_added(out, (size_t)(p - begin));
    *framing = r->head ? WEIR_HTTP_NONE : f;
    *keep_alive = keep;
    return WEIR_OK;
}

int weir_http1_write_interim(struct weir_buf *out, int status, const struct weir_pair *headers, size_t count)
{
    size_t len = 64;
    if (status < 100 || status > 199 || http_check_fields(headers, count, &len) < 0) return WEIR_INVALID;
    char *begin = weir_buf_room(out, len), *p = begin;
    if (!p) return WEIR_NOMEM;
    p = put_status(p, status);
    p = put_fields(p, headers, count);
    p = PUT(p, "\r\n");
    weir_buf_added(out, (size_t)(p - begin));
    return WEIR_OK;
}

size_t weir_http1_chunk_head(char *out, uint64_t len)
{
    char digits[16];
    size_t n = 0, i = 0;
    do {
        digits[n++] = "0123456789abcdef"[len & 15];
        len >>= 4;
    } while (len);
    while (n) out[i++] = digits[--n];
    out[i++] = '\r';
    out[i++] = '\n';
    return i;
}

int weir_http1_write_chunk(struct weir_buf *out, const void *content, size_t len)
{
    char *begin = weir_buf_room(out, len + WEIR_HTTP_CHUNK_HEAD_MAX + 2), *p = begin;
    if (!p) return WEIR_NOMEM;
    p += weir_http1_chunk_head(p, len);
    p = put(p, content, len);
    p = PUT(p, "\r\n");
    weir_buf_added(out, (size_t)(p - begin));
    return WEIR_OK;
}

int weir_http1_write_chunk_end(struct weir_buf *out, const struct weir_pair *trailers, size_t count)
{
    size_t len = 16;
    if (http_check_fields(trailers, count, &len) < 0) return WEIR_INVALID;
    char *begin = weir_buf_room(out, len), *p = begin;
    if (!p) return WEIR_NOMEM;
    p = PUT(p, "0\r\n");
    p = put_fields(p, trailers, count);
    p = PUT(p, "\r\n");
    weir_buf_added(out, (size_t)(p - begin));
    return WEIR_OK;
}

/* ---- dates [RFC 9110 5.6.7] ---- */

static const char days[] = "SunMonTueWedThuFriSat";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar. */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (m + (m > 2 ? -3u : 9u)) + 2) / 5 + d - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

static void two(char *p, unsigned v)
{
    p[0] = (char)('0' + v / 10 % 10);
    p[1] = (char)('0' + v % 10);
}

void weir_http_date(char out[static 30], int64_t t)
{
    if (t < 0) t = 0;
    if (t > INT64_C(253402300799)) t = INT64_C(253402300799);
    int64_t day = t / 86400;
    unsigned rest = (unsigned)(t % 86400), weekday = (unsigned)((day + 4) % 7);
    int64_t z = day + 719468, era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    unsigned d = doy - (153 * mp + 2) / 5 + 1, m = mp + (mp < 10 ? 3 : -9u);
    unsigned y = (unsigned)(yoe + era * 400) + (m <= 2);
    memcpy(out, "Sun, 00 Jan 0000 00:00:00 GMT", 30);
    memcpy(out, days + weekday * 3, 3);
    two(out + 5, d);
    memcpy(out + 8, months + (m - 1) * 3, 3);
    two(out + 12, y / 100);
    two(out + 14, y % 100);
    two(out + 17, rest / 3600);
    two(out + 20, rest / 60 % 60);
    two(out + 23, rest % 60);
}

static bool digits_at(const char *p, size_t n, unsigned *v)
{
    *v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        *v = *v * 10 + (unsigned)(p[i] - '0');
    }
    return true;
}

static bool month_at(const char *p, unsigned *m)
{
    for (*m = 1; *m <= 12; ++*m)
        if (memcmp(months + (*m - 1) * 3, p, 3) == 0) return true;
    return false;
}

static bool time_at(const char *p, unsigned *h, unsigned *m, unsigned *s)
{
    return digits_at(p, 2, h) && p[2] == ':' && digits_at(p + 3, 2, m) && p[5] == ':' && digits_at(p + 6, 2, s) &&
           *h < 24 && *m < 60 && *s < 61;
}

int weir_http_date_parse(struct weir_str s, int64_t *out)
{
    unsigned y = 0, mo = 0, d = 0, h = 0, mi = 0, se = 0;
    const char *comma = s.len ? memchr(s.ptr, ',', s.len) : NULL;
    bool ok = false;
    if (s.len == 29 && s.ptr[3] == ',') { /* Sun, 06 Nov 1994 08:49:37 GMT */
        ok = digits_at(s.ptr + 5, 2, &d) && month_at(s.ptr + 8, &mo) && digits_at(s.ptr + 12, 4, &y) &&
             time_at(s.ptr + 17, &h, &mi, &se) && memcmp(s.ptr + 25, " GMT", 4) == 0;
    } else if (comma && s.len - (size_t)(comma - s.ptr) == 24) { /* Sunday, 06-Nov-94 08:49:37 GMT */
        const char *p = comma + 2;
        ok = digits_at(p, 2, &d) && month_at(p + 3, &mo) && digits_at(p + 7, 2, &y) && time_at(p + 10, &h, &mi, &se) &&
             memcmp(p + 18, " GMT", 4) == 0;
        y += y < 70 ? 2000 : 1900;
    } else if (s.len == 24) { /* Sun Nov  6 08:49:37 1994 */
        char day[2] = {s.ptr[8] == ' ' ? '0' : s.ptr[8], s.ptr[9]};
        ok = month_at(s.ptr + 4, &mo) && digits_at(day, 2, &d) && time_at(s.ptr + 11, &h, &mi, &se) &&
             digits_at(s.ptr + 20, 4, &y);
    }
    if (!ok || d < 1 || d > 31) return WEIR_INVALID;
    *out = days_from_civil((int64_t)y, mo, d) * 86400 + (int64_t)h * 3600 + (int64_t)mi * 60 + (int64_t)se;
    return WEIR_OK;
}

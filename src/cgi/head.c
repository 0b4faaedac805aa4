/* SPDX-License-Identifier: MIT */
/* The header of an app's answer [RFC 3875 6], byte by byte as it comes. An app is as little trusted as a client: nothing
 * that could split or reframe the response passes. */
#include "cgi/cgi.h"

#define INTERIM_MAX 8 /* interim answers before the final one */

struct weir_cgi_head {
    struct weir_arena *arena;
    struct weir_cgi_response r;
    char *line;
    uint32_t len, cap, bytes, max_bytes, max_fields;
    uint32_t field_cap;
    uint32_t interim_count;
    bool has_status, has_length, has_location, only_location, any;
    struct weir_str location;
};

struct weir_cgi_head *weir_cgi_head_new(struct weir_arena *a, const struct weir_cgi_head_limits *l)
{
    struct weir_cgi_head *h = weir_arena_alloc(a, sizeof *h);
    if (!h) return NULL;
    *h = (struct weir_cgi_head){.arena = a, .max_bytes = l && l->bytes ? l->bytes : 65536,
                                .max_fields = l && l->fields ? l->fields : 100, .only_location = true};
    h->r.content_length = -1;
    return h;
}

const struct weir_cgi_response *weir_cgi_head_response(const struct weir_cgi_head *h)
{
    return &h->r;
}

/* The gateway frames the message and owns the connection. */
static bool not_passed(struct weir_str name)
{
    static const struct weir_str drop[] = {
        WEIR_CONST_STR("connection"), WEIR_CONST_STR("keep-alive"), WEIR_CONST_STR("transfer-encoding"), WEIR_CONST_STR("te"),
        WEIR_CONST_STR("trailer"), WEIR_CONST_STR("upgrade"), WEIR_CONST_STR("proxy-connection"),
        WEIR_CONST_STR("proxy-authenticate"), WEIR_CONST_STR("proxy-authentication-info"), WEIR_CONST_STR("date"),
        WEIR_CONST_STR("server")};
    for (size_t i = 0; i < WEIR_COUNT(drop); i++)
        if (weir_str_ieq(name, drop[i])) return true;
    return false;
}

static int on_status(struct weir_cgi_head *h, struct weir_str v, const char **reason)
{
    uint64_t n;
    if (h->has_status) {
        *reason = "the application sent more than one Status";
        return WEIR_PROTOCOL;
    }
    h->has_status = true;
    if (v.len < 3 || weir_str_u64(weir_str(v.ptr, 3), 999, &n) < 0 || (v.len > 3 && v.ptr[3] != ' ')) {
        *reason = "the application sent a Status that is no three digits";
        return WEIR_PROTOCOL;
    }
    if (n < 100 || n > 599 || n == 101) {
        *reason = n == 101 ? "the application wants to switch protocols" : "the application sent a Status out of range";
        return WEIR_PROTOCOL;
    }
    h->r.status = (int)n;
    return WEIR_OK;
}

static int on_length(struct weir_cgi_head *h, struct weir_str v, const char **reason)
{
    uint64_t n;
    if (h->has_length || weir_str_u64(v, INT64_MAX, &n) < 0) {
        *reason = h->has_length ? "the application sent more than one Content-Length"
                                : "the application sent a Content-Length that is no number";
        return WEIR_PROTOCOL;
    }
    h->has_length = true;
    h->r.content_length = (int64_t)n;
    return WEIR_OK;
}

static int add_field(struct weir_cgi_head *h, struct weir_pair f, const char **reason)
{
    if (h->r.header_count == h->max_fields) {
        *reason = "the application sent too many header fields";
        return WEIR_LIMIT;
    }
    if (h->r.header_count == h->field_cap) {
        uint32_t cap = h->field_cap ? h->field_cap * 2 : 8;
        struct weir_pair *p = weir_arena_alloc(h->arena, cap * sizeof *p);
        if (!p) return WEIR_NOMEM;
        if (h->r.header_count) memcpy(p, h->r.headers, h->r.header_count * sizeof *p);
        h->r.headers = p;
        h->field_cap = cap;
        h->line = NULL; /* lines go on elsewhere */
        h->cap = 0;
    }
    h->r.headers[h->r.header_count++] = f;
    return WEIR_OK;
}

static int on_field(struct weir_cgi_head *h, struct weir_pair f, const char **reason)
{
    h->any = true;
    if (weir_str_ieq(f.name, WEIR_STR("status"))) {
        h->only_location = false;
        return on_status(h, f.value, reason);
    }
    if (weir_str_ieq(f.name, WEIR_STR("content-length"))) return on_length(h, f.value, reason);
    if (weir_str_ieq(f.name, WEIR_STR("location"))) {
        if (h->has_location) {
            *reason = "the application sent more than one Location";
            return WEIR_PROTOCOL;
        }
        h->has_location = true;
        h->location = f.value;
        return add_field(h, f, reason);
    }
    h->only_location = false;
    return not_passed(f.name) ? WEIR_OK : add_field(h, f, reason);
}

static int on_line(struct weir_cgi_head *h, struct weir_str line, const char **reason)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t') {
        *reason = "the application sent a folded header line";
        return WEIR_PROTOCOL;
    }
    if (!h->any && weir_str_prefix(line, WEIR_STR("HTTP/"))) { /* FC1-6.1-h */
        *reason = "the application sent an HTTP status line instead of a CGI header";
        return WEIR_PROTOCOL;
    }
    if (!colon || colon == line.ptr) {
        *reason = "the application sent a header line without a name and a colon";
        return WEIR_PROTOCOL;
    }
    struct weir_pair f = {weir_str(line.ptr, (size_t)(colon - line.ptr)),
                          weir_str(colon + 1, line.len - (size_t)(colon - line.ptr) - 1)};
    if (!weir_str_all(f.name, WEIR_BYTE_TOKEN)) {
        *reason = "the application sent a header name that is no token";
        return WEIR_PROTOCOL;
    }
    if (!weir_str_field(f.value)) {
        *reason = "the application sent a control byte in a header value";
        return WEIR_PROTOCOL;
    }
    while (f.value.len && (f.value.ptr[0] == ' ' || f.value.ptr[0] == '\t'))
        f.value = weir_str(f.value.ptr + 1, f.value.len - 1);
    while (f.value.len && (f.value.ptr[f.value.len - 1] == ' ' || f.value.ptr[f.value.len - 1] == '\t')) f.value.len--;
    return on_field(h, f, reason);
}

static int interim(struct weir_cgi_head *h, const char **reason)
{
    if (++h->interim_count > INTERIM_MAX) {
        *reason = "the application sent too many interim answers";
        return WEIR_PROTOCOL;
    }
    h->r.kind = WEIR_CGI_INTERIM;
    h->r.content_length = -1; /* it has no content [RFC 9110 15.2] */
    return WEIR_OK;
}

/* What the complete header means [RFC 3875 6.2]. */
static int complete(struct weir_cgi_head *h, const char **reason)
{
    if (!h->any) {
        *reason = "the application sent an empty header";
        return WEIR_PROTOCOL;
    }
    if (h->has_status && h->r.status < 200) return interim(h, reason);
    bool path = h->has_location && h->location.len && h->location.ptr[0] == '/' &&
                (h->location.len == 1 || h->location.ptr[1] != '/');
    if (path && h->only_location && !h->has_length) {
        h->r.kind = WEIR_CGI_LOCAL_REDIRECT;
        h->r.location = h->location;
        h->r.status = 200;
        return WEIR_OK;
    }
    if (h->has_location) {
        h->r.kind = WEIR_CGI_CLIENT_REDIRECT;
        h->r.location = h->location;
    }
    if (!h->has_status) h->r.status = h->has_location ? 302 : 200;
    return WEIR_OK;
}

static bool append(struct weir_cgi_head *h, const char *p, size_t n)
{
    if (h->len + n > h->cap) {
        uint32_t cap = (uint32_t)(h->len + n) * 2;
        if (cap < 256) cap = 256;
        char *line = weir_arena_bytes(h->arena, cap);
        if (!line) return false;
        if (h->len) memcpy(line, h->line, h->len);
        h->line = line;
        h->cap = cap;
    }
    memcpy(h->line + h->len, p, n);
    h->len += (uint32_t)n;
    return true;
}

int weir_cgi_head_feed(struct weir_cgi_head *h, const void *buf, size_t len, size_t *used, const char **reason)
{
    const char *p = buf, *end = p + len;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl ? (size_t)(nl - p) + 1 : (size_t)(end - p);
        if (n > h->max_bytes - h->bytes) {
            *reason = "the application sent a header that is too large";
            return WEIR_LIMIT;
        }
        if (!append(h, p, n)) return WEIR_NOMEM;
        h->bytes += (uint32_t)n;
        p += n;
        if (!nl) break;
        struct weir_str line = weir_str(h->line, h->len - 1);
        if (line.len && line.ptr[line.len - 1] == '\r') line.len--;
        h->line += h->len; /* what was said stays where it is */
        h->cap -= h->len;
        h->len = 0;
        int status = line.len ? on_line(h, line, reason) : complete(h, reason);
        if (status < 0) return status;
        if (line.len == 0) {
            *used = (size_t)(p - (const char *)buf);
            return WEIR_OK;
        }
    }
    *used = len;
    return WEIR_AGAIN;
}

void weir_cgi_head_next(struct weir_cgi_head *h)
{
    WEIR_ASSERT(h->r.kind == WEIR_CGI_INTERIM);
    h->r = (struct weir_cgi_response){.content_length = -1};
    h->field_cap = 0;
    h->has_status = h->has_length = h->has_location = h->any = false;
    h->only_location = true;
}

int weir_cgi_head_feed_final(struct weir_cgi_head *h, const void *buf, size_t len, size_t *used, const char **reason)
{
    const char *p = buf;
    size_t at = 0, n = 0;
    for (;;) {
        int status = weir_cgi_head_feed(h, p + at, len - at, &n, reason);
        if (status != WEIR_OK && status != WEIR_AGAIN) return status;
        at += n;
        *used = at;
        if (status == WEIR_AGAIN || h->r.kind != WEIR_CGI_INTERIM) return status;
        weir_cgi_head_next(h);
    }
}

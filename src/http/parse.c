/* SPDX-License-Identifier: MIT */
/* The receiving half of an HTTP/1.x connection [RFC 9112]. A head is collected line by line into the exchange's arena and
 * each line is judged as soon as it is complete; content passes through without a copy. Whatever two parsers could read in
 * two ways is refused. */
#include <stdlib.h>

#include "http/internal.h"

enum state { WAITING, REQUEST_LINE, FIELDS, HEAD_DONE, BODY_LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, TRAILERS, END, DEAD };

struct weir_http1 {
    struct weir_http_limits limits;
    struct weir_arena *arena;
    const char *p, *begin, *end; /* lent */
    struct message *m;
    uint64_t left;      /* of the content, or of this chunk */
    uint64_t body_seen;
    uint64_t body_max;
    uint8_t state;
    bool told, blank_seen;
};

/* What a head is while it comes in; in the arena. */
struct message {
    struct weir_http_request req;
    char *line;         /* the line that is being collected */
    uint32_t line_len, line_cap;
    uint32_t head_bytes, trailer_bytes, extension_bytes;
    uint32_t header_cap, trailer_cap;
    bool has_host, has_te, has_cl, has_connection_close, has_connection_keep, has_type, has_authorization, chunked_last;
    int error;
    const char *reason;
};

bool weir_http_token(struct weir_str s)
{
    return s.len > 0 && weir_str_all(s, WEIR_BYTE_TOKEN);
}

const struct weir_pair *weir_http_find(const struct weir_pair *headers, size_t count, const char *name)
{
    struct weir_str want = weir_cstr(name);
    for (size_t i = 0; i < count; i++)
        if (weir_str_ieq(headers[i].name, want)) return &headers[i];
    return NULL;
}

/* ---- life ---- */

int weir_http1_new(struct weir_http1 **out, const struct weir_http_limits *l)
{
    static const struct weir_http_limits none;
    struct weir_http1 *p = calloc(1, sizeof *p);
    if (!p) return WEIR_NOMEM;
    p->limits = l ? *l : none;
    if (!p->limits.line) p->limits.line = 8192;
    if (!p->limits.head) p->limits.head = 32768;
    if (p->limits.head > 65536) p->limits.head = 65536;
    if (!p->limits.headers) p->limits.headers = 100;
    if (!p->limits.body) p->limits.body = UINT64_MAX;
    if (!p->limits.chunk_line) p->limits.chunk_line = 256;
    if (!p->limits.extensions) p->limits.extensions = 16384;
    if (!p->limits.trailers) p->limits.trailers = 8192;
    *out = p;
    return WEIR_OK;
}

void weir_http1_free(struct weir_http1 *p)
{
    free(p);
}

void weir_http1_reset(struct weir_http1 *p)
{
    struct weir_http_limits limits = p->limits;
    *p = (struct weir_http1){.limits = limits};
}

void weir_http1_expect(struct weir_http1 *p, struct weir_arena *arena)
{
    if (p->state == DEAD) return;
    p->arena = arena;
    p->m = NULL;
    p->state = REQUEST_LINE;
    p->body_max = p->limits.body;
    p->body_seen = 0;
    p->blank_seen = false;
}

void weir_http1_limit_body(struct weir_http1 *p, uint64_t bytes)
{
    p->body_max = bytes;
}

void weir_http1_feed(struct weir_http1 *p, const void *buf, size_t len)
{
    p->p = p->begin = buf;
    p->end = p->p + len;
}

size_t weir_http1_consumed(const struct weir_http1 *p)
{
    return (size_t)(p->p - p->begin);
}

const struct weir_http_request *weir_http1_request(const struct weir_http1 *p)
{
    return &p->m->req;
}

bool weir_http1_idle(const struct weir_http1 *p)
{
    return p->state == WAITING || p->state == END || (p->state == REQUEST_LINE && !p->m);
}

/* ---- lines ---- */

static int refuse(struct weir_http1 *p, int status, const char *reason)
{
    p->m->error = status;
    p->m->reason = reason;
    p->state = DEAD;
    return WEIR_INVALID;
}

static bool message_new(struct weir_http1 *p)
{
    p->m = weir_arena_alloc(p->arena, sizeof *p->m);
    if (!p->m) return false;
    memset(p->m, 0, sizeof *p->m);
    p->m->req.content_length = -1;
    p->m->req.major = 1;
    return true;
}

static bool line_append(struct weir_http1 *p, const char *from, size_t len)
{
    struct message *m = p->m;
    if (m->line_len + len > m->line_cap) {
        uint32_t cap = (uint32_t)(m->line_len + len) * 2 + 64;
        if (cap < 1024) cap = 1024; /* most heads fit into one piece */
        char *line = weir_arena_bytes(p->arena, cap);
        if (!line) return false;
        if (m->line_len) memcpy(line, m->line, m->line_len);
        m->line = line;
        m->line_cap = cap;
    }
    memcpy(m->line + m->line_len, from, len);
    m->line_len += (uint32_t)len;
    return true;
}

/* Takes a line up to its CRLF: 1: *out is it (without CRLF; in the arena), 0: more is needed, negative: refused.
 * limit counts the line with its end. */
static int take_line(struct weir_http1 *p, uint32_t limit, int too_long, const char *too_long_reason, struct weir_str *out)
{
    struct message *m = p->m;
    const char *nl = memchr(p->p, '\n', (size_t)(p->end - p->p));
    size_t n = nl ? (size_t)(nl - p->p) + 1 : (size_t)(p->end - p->p);
    if (m->line_len + n > limit) {
        p->p += n;
        return refuse(p, too_long, too_long_reason);
    }
    if (!line_append(p, p->p, n)) return refuse(p, 503, "out of memory");
    p->p += n;
    /* a CR that is not before LF, wherever the split falls */
    const char *cr = memchr(m->line, '\r', m->line_len);
    if (cr && cr + 1 < m->line + m->line_len && cr + 2 != m->line + m->line_len) return refuse(p, 400, "a bare CR");
    if (cr && cr + 1 < m->line + m->line_len && cr[1] != '\n') return refuse(p, 400, "a bare CR");
    if (!nl) return 0;
    if (!cr) return refuse(p, 400, "a line that ends in LF without CR");
    *out = weir_str(m->line, m->line_len - 2);
    m->line += m->line_len; /* the next line follows in the same room */
    m->line_cap -= m->line_len;
    m->line_len = 0;
    return 1;
}

/* ---- request line [RFC 9112 3] ---- */

static int split_target(struct weir_http1 *p)
{
    struct weir_http_request *r = &p->m->req;
    struct weir_str t = r->target;
    bool options = weir_str_eq(r->method, WEIR_STR("OPTIONS"));
    if (weir_str_eq(r->method, WEIR_STR("CONNECT"))) return refuse(p, 501, "CONNECT is not served");
    if (t.ptr[0] == '/') {
        r->path_query = t;
        return WEIR_OK;
    }
    if (t.len == 1 && t.ptr[0] == '*') {
        if (!options) return refuse(p, 400, "the target * is for OPTIONS");
        r->path_query = t;
        return WEIR_OK;
    }
    size_t scheme = 0;
    if (t.len > 7 && weir_str_ieq(weir_str(t.ptr, 7), WEIR_STR("http://"))) scheme = 7;
    else if (t.len > 8 && weir_str_ieq(weir_str(t.ptr, 8), WEIR_STR("https://"))) scheme = 8;
    if (!scheme) return refuse(p, 400, "a target that is neither a path nor a URL");
    size_t end = scheme;
    while (end < t.len && t.ptr[end] != '/' && t.ptr[end] != '?') end++;
    r->host = weir_str(t.ptr + scheme, end - scheme);
    if (!weir_http_authority(r->host)) return refuse(p, 400, "a URL without a valid host");
    if (end < t.len && t.ptr[end] == '/') {
        r->path_query = weir_str(t.ptr + end, t.len - end);
        return WEIR_OK;
    }
    char *path = weir_arena_bytes(p->arena, t.len - end + 1); /* "http://host?query" means "/?query" */
    if (!path) return refuse(p, 503, "out of memory");
    path[0] = '/';
    memcpy(path + 1, t.ptr + end, t.len - end);
    r->path_query = weir_str(path, t.len - end + 1);
    return WEIR_OK;
}

static int request_line(struct weir_http1 *p, struct weir_str line)
{
    struct weir_http_request *r = &p->m->req;
    const char *sp = memchr(line.ptr, ' ', line.len);
    if (!sp) return refuse(p, 400, "not an HTTP request line");
    r->method = weir_str(line.ptr, (size_t)(sp - line.ptr));
    if (!weir_http_token(r->method)) return refuse(p, 400, "a method that is no token");
    if (r->method.len > HTTP_METHOD_MAX) return refuse(p, 501, "a method that is not known here"); /* [RFC 9110 9.1, 15.6.2] */
    struct weir_str rest = weir_str(sp + 1, line.len - r->method.len - 1);
    const char *sp2 = memchr(rest.ptr, ' ', rest.len);
    if (!sp2) return refuse(p, 400, "a request line without a version");
    r->target = weir_str(rest.ptr, (size_t)(sp2 - rest.ptr));
    struct weir_str version = weir_str(sp2 + 1, rest.len - r->target.len - 1);
    if (r->target.len == 0 || !weir_str_all(r->target, WEIR_BYTE_VISIBLE)) return refuse(p, 400, "a target that is not visible ASCII");
    if (memchr(r->target.ptr, '#', r->target.len)) return refuse(p, 400, "a target with a fragment"); /* [RFC 9112 3.2] */
    if (version.len != 8 || memcmp(version.ptr, "HTTP/", 5) != 0 || version.ptr[6] != '.' || version.ptr[5] < '0' ||
        version.ptr[5] > '9' || version.ptr[7] < '0' || version.ptr[7] > '9')
        return refuse(p, 400, "not an HTTP version");
    if (version.ptr[5] != '1') return refuse(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    r->minor = version.ptr[7] == '0' ? 0 : 1;
    r->head = weir_str_eq(r->method, WEIR_STR("HEAD"));
    return split_target(p);
}

/* ---- fields [RFC 9112 5, 6] ---- */

static struct weir_str trim(struct weir_str s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) s = weir_str(s.ptr + 1, s.len - 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) s.len--;
    return s;
}

static int split_field(struct weir_http1 *p, struct weir_str line, struct weir_pair *f)
{
    if (line.ptr[0] == ' ' || line.ptr[0] == '\t') return refuse(p, 400, "a folded header line");
    const char *colon = memchr(line.ptr, ':', line.len);
    if (!colon) return refuse(p, 400, "a header line without a colon");
    f->name = weir_str(line.ptr, (size_t)(colon - line.ptr));
    if (f->name.len && (colon[-1] == ' ' || colon[-1] == '\t')) return refuse(p, 400, "a blank before the colon");
    if (!weir_http_token(f->name)) return refuse(p, 400, "a header name that is no token");
    f->value = weir_str(colon + 1, line.len - f->name.len - 1);
    if (!weir_str_field(f->value)) return refuse(p, 400, "a control byte in a header value");
    f->value = trim(f->value);
    return WEIR_OK;
}

/* The next element of a comma list; false: none. */
static bool list_next(struct weir_str *rest, struct weir_str *item)
{
    if (rest->len == 0) return false;
    const char *comma = memchr(rest->ptr, ',', rest->len);
    size_t n = comma ? (size_t)(comma - rest->ptr) : rest->len;
    *item = trim(weir_str(rest->ptr, n));
    *rest = comma ? weir_str(comma + 1, rest->len - n - 1) : weir_str(rest->ptr + n, 0);
    return true;
}

static int on_content_length(struct weir_http1 *p, struct weir_str value)
{
    uint64_t n;
    if (p->m->has_cl) return refuse(p, 400, "more than one Content-Length");
    p->m->has_cl = true;
    if (weir_str_u64(value, INT64_MAX, &n) < 0) return refuse(p, 400, "a Content-Length that is no number");
    p->m->req.content_length = (int64_t)n;
    return WEIR_OK;
}

static int on_transfer_encoding(struct weir_http1 *p, struct weir_str value)
{
    struct weir_str item;
    p->m->has_te = true;
    if (value.len == 0) return refuse(p, 400, "an empty Transfer-Encoding");
    if (value.ptr[value.len - 1] == ',') return refuse(p, 400, "a Transfer-Encoding that does not end");
    while (list_next(&value, &item)) {
        if (p->m->chunked_last) return refuse(p, 400, "a coding behind chunked");
        if (!weir_str_ieq(item, WEIR_STR("chunked"))) return refuse(p, 501, "a transfer coding that is not known here");
        p->m->chunked_last = true;
    }
    return WEIR_OK;
}

static void on_connection(struct weir_http1 *p, struct weir_str value)
{
    struct weir_str item;
    while (list_next(&value, &item)) {
        if (weir_str_ieq(item, WEIR_STR("close"))) p->m->has_connection_close = true;
        if (weir_str_ieq(item, WEIR_STR("keep-alive"))) p->m->has_connection_keep = true;
    }
}

static int on_host(struct weir_http1 *p, struct weir_str value)
{
    if (p->m->has_host) return refuse(p, 400, "more than one Host");
    p->m->has_host = true;
    if (value.len && !weir_http_authority(value)) return refuse(p, 400, "a Host that is not valid");
    if (p->m->req.host.len == 0) p->m->req.host = value; /* an absolute target wins [RFC 9112 3.2.2] */
    return WEIR_OK;
}

/* Where one would read the first one and another the last, or both. */
static int only_one(struct weir_http1 *p, bool *has, const char *reason)
{
    if (*has) return refuse(p, 400, reason);
    *has = true;
    return WEIR_OK;
}

static int known_field(struct weir_http1 *p, const struct weir_pair *f)
{
    switch (f->name.len) {
    case 4:
        if (weir_str_ieq(f->name, WEIR_STR("host"))) return on_host(p, f->value);
        break;
    case 6:
        if (!weir_str_ieq(f->name, WEIR_STR("expect"))) break;
        if (!weir_str_ieq(f->value, WEIR_STR("100-continue"))) return refuse(p, 417, "an expectation that is not known here");
        p->m->req.expect_continue = true;
        break;
    case 10:
        if (weir_str_ieq(f->name, WEIR_STR("connection"))) on_connection(p, f->value);
        break;
    case 12:
        if (weir_str_ieq(f->name, WEIR_STR("content-type"))) return only_one(p, &p->m->has_type, "more than one Content-Type");
        break;
    case 13:
        if (weir_str_ieq(f->name, WEIR_STR("authorization"))) return only_one(p, &p->m->has_authorization, "more than one Authorization");
        break;
    case 14:
        if (weir_str_ieq(f->name, WEIR_STR("content-length"))) return on_content_length(p, f->value);
        break;
    case 17:
        if (weir_str_ieq(f->name, WEIR_STR("transfer-encoding"))) return on_transfer_encoding(p, f->value);
        break;
    default: break;
    }
    return WEIR_OK;
}

static int add_pair(struct weir_http1 *p, struct weir_pair **list, size_t *count, uint32_t *cap, const struct weir_pair *f)
{
    if (*count == *cap) {
        uint32_t grown = *cap ? *cap * 2 : 16;
        struct weir_pair *n = weir_arena_alloc(p->arena, grown * sizeof *n);
        if (!n) return refuse(p, 503, "out of memory");
        if (*count) memcpy(n, *list, *count * sizeof *n);
        *list = n;
        *cap = grown;
    }
    (*list)[(*count)++] = *f;
    return WEIR_OK;
}

/* What the whole head means [RFC 9112 6.3, 9.3]. */
static int head_complete(struct weir_http1 *p)
{
    struct message *m = p->m;
    struct weir_http_request *r = &m->req;
    if (r->minor == 1 && !m->has_host) return refuse(p, 400, "HTTP/1.1 without Host");
    if (m->has_te && r->minor == 0) return refuse(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (m->has_te && m->has_cl) return refuse(p, 400, "Content-Length beside Transfer-Encoding");
    r->chunked = m->has_te;
    r->has_body = r->chunked || r->content_length > 0;
    r->keep_alive = r->minor == 1 ? !m->has_connection_close : m->has_connection_keep && !m->has_connection_close;
    if (r->minor == 0 || !r->has_body) r->expect_continue = false;
    p->state = HEAD_DONE;
    return WEIR_OK;
}

static int field_line(struct weir_http1 *p, struct weir_str line)
{
    struct message *m = p->m;
    struct weir_pair f;
    if (line.len == 0) return head_complete(p);
    if (m->req.header_count >= p->limits.headers) return refuse(p, 431, "too many header fields");
    if (split_field(p, line, &f) < 0 || known_field(p, &f) < 0) return WEIR_INVALID;
    return add_pair(p, &m->req.headers, &m->req.header_count, &m->header_cap, &f);
}

/* One step of the head: 1: go on, 0: more is needed, negative: refused. */
static int head_step(struct weir_http1 *p)
{
    struct weir_str line;
    if (p->p == p->end) return 0;
    if (!p->m && !message_new(p)) return WEIR_NOMEM;
    struct message *m = p->m;
    uint32_t left = p->limits.head - m->head_bytes;
    bool first = p->state == REQUEST_LINE;
    uint32_t limit = first && p->limits.line < left ? p->limits.line : left;
    int status = take_line(p, limit, first ? 414 : 431, first ? "the request line is too long" : "the request head is too large",
                           &line);
    if (status <= 0) return status;
    m->head_bytes += (uint32_t)line.len + 2;
    if (!first) return field_line(p, line) < 0 ? WEIR_INVALID : 1;
    if (line.len == 0) { /* one empty line before a request is tolerated [RFC 9112 2.2] */
        if (p->blank_seen) return refuse(p, 400, "empty lines instead of a request");
        p->blank_seen = true;
        return 1;
    }
    p->state = FIELDS;
    return request_line(p, line) < 0 ? WEIR_INVALID : 1;
}

/* ---- content [RFC 9112 7] ---- */

/* Its quoted strings end within it: somebody could look for their end behind the line. */
static bool is_extension(struct weir_str s)
{
    bool quoted = false;
    if (s.len && s.ptr[0] != ';') return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"') quoted = !quoted;
        else if (s.ptr[i] == '\\' && quoted) i++;
    }
    return !quoted;
}

static int chunk_size(struct weir_http1 *p, struct weir_str line)
{
    uint64_t n = 0;
    size_t i = 0;
    for (; i < line.len && weir_byte_class[(unsigned char)line.ptr[i]] & WEIR_BYTE_HEX; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if (i == 15) return refuse(p, 400, "a chunk size that is too large");
        n = n << 4 | (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (i == 0) return refuse(p, 400, "a chunk without a size");
    struct weir_str ext = weir_str(line.ptr + i, line.len - i);
    if (ext.len && ext.ptr[0] != ';') return refuse(p, 400, "a chunk size that is no number");
    if (!is_extension(ext)) return refuse(p, 400, "a chunk extension that does not end");
    if (!weir_str_field(ext)) return refuse(p, 400, "a control byte in a chunk extension");
    p->m->extension_bytes += (uint32_t)ext.len; /* tiny chunks with long extensions cost more than they bring */
    if (p->m->extension_bytes > p->limits.extensions) return refuse(p, 400, "too many chunk extensions");
    if (n > p->body_max - p->body_seen) return refuse(p, 413, "the request body is larger than allowed");
    p->left = n;
    p->state = n ? CHUNK_DATA : TRAILERS;
    return WEIR_OK;
}

/* What says where a message ends or whom it is for stands in its head [RFC 9110 6.5.1]. */
static bool is_head_only(struct weir_str name)
{
    return weir_str_ieq(name, WEIR_STR("content-length")) || weir_str_ieq(name, WEIR_STR("transfer-encoding")) ||
           weir_str_ieq(name, WEIR_STR("host"));
}

static int trailer_line(struct weir_http1 *p, struct weir_str line)
{
    struct message *m = p->m;
    struct weir_pair f;
    if (line.len == 0) {
        p->state = END;
        return WEIR_OK;
    }
    m->trailer_bytes += (uint32_t)line.len + 2;
    if (m->req.trailer_count >= p->limits.headers) return refuse(p, 431, "too many trailers");
    if (split_field(p, line, &f) < 0) return WEIR_INVALID;
    if (is_head_only(f.name)) return refuse(p, 400, "a trailer that belongs into the head");
    return add_pair(p, &m->req.trailers, &m->req.trailer_count, &m->trailer_cap, &f);
}

static bool content_event(struct weir_http1 *p, struct weir_http_event *ev)
{
    size_t n = (size_t)(p->end - p->p);
    if (n > p->left) n = (size_t)p->left;
    if (n == 0) return false;
    *ev = (struct weir_http_event){.type = WEIR_HTTP_EV_BODY, .bytes = weir_str(p->p, n)};
    p->p += n;
    p->left -= n;
    p->body_seen += n;
    if (p->left == 0) p->state = p->m->req.chunked ? CHUNK_CRLF : END;
    return true;
}

static int crlf_step(struct weir_http1 *p)
{
    /* the two bytes may come apart: line_len counts what was seen */
    while (p->p < p->end && p->m->line_len < 2) {
        if (*p->p != "\r\n"[p->m->line_len]) return refuse(p, 400, "a chunk that is longer than its size");
        p->p++;
        p->m->line_len++;
    }
    if (p->m->line_len < 2) return 0;
    p->m->line_len = 0;
    p->state = CHUNK_SIZE;
    return 1;
}

static int line_step(struct weir_http1 *p)
{
    struct weir_str line;
    bool size = p->state == CHUNK_SIZE;
    uint32_t limit = size ? p->limits.chunk_line : p->limits.trailers - p->m->trailer_bytes;
    if (p->p == p->end) return 0;
    int status = take_line(p, limit, size ? 400 : 431, size ? "a chunk line that is too long" : "the trailers are too large",
                           &line);
    if (status <= 0) return status;
    if (!size) return trailer_line(p, line) < 0 ? WEIR_INVALID : 1;
    status = chunk_size(p, line) < 0 ? WEIR_INVALID : 1;
    /* chunk lines are not kept: their room is used again, so that many chunks cost no memory */
    p->m->line -= line.len + 2;
    p->m->line_cap += (uint32_t)line.len + 2;
    return status;
}

static void after_head(struct weir_http1 *p)
{
    struct weir_http_request *r = &p->m->req;
    p->m->line_len = 0;
    if (r->chunked) {
        p->state = CHUNK_SIZE;
    } else if (r->content_length > 0) {
        p->left = (uint64_t)r->content_length;
        p->state = BODY_LENGTH;
    } else {
        p->state = END;
    }
}

bool weir_http1_complete(const struct weir_http1 *p)
{
    return p->state == END;
}

int weir_http1_next(struct weir_http1 *p, struct weir_http_event *ev)
{
    static const char memory[] = "out of memory";
    for (;;) {
        int status = 1;
        switch (p->state) {
        case WAITING: return WEIR_AGAIN;
        case REQUEST_LINE:
        case FIELDS: status = head_step(p); break;
        case HEAD_DONE:
            *ev = (struct weir_http_event){.type = WEIR_HTTP_EV_HEAD};
            after_head(p);
            return WEIR_OK;
        case BODY_LENGTH:
            if (p->left > p->body_max - p->body_seen) {
                status = refuse(p, 413, "the request body is larger than allowed");
                break;
            }
            return content_event(p, ev) ? WEIR_OK : WEIR_AGAIN;
        case CHUNK_DATA: return content_event(p, ev) ? WEIR_OK : WEIR_AGAIN;
        case CHUNK_CRLF: status = crlf_step(p); break;
        case CHUNK_SIZE:
        case TRAILERS: status = line_step(p); break;
        case END:
            *ev = (struct weir_http_event){.type = WEIR_HTTP_EV_END};
            p->state = WAITING;
            return WEIR_OK;
        default: return WEIR_AGAIN;
        }
        if (status == 0) return WEIR_AGAIN;
        if (status > 0) continue;
        p->state = DEAD;
        *ev = (struct weir_http_event){.type = WEIR_HTTP_EV_ERROR, .status = p->m ? p->m->error : 503,
                                       .reason = p->m ? p->m->reason : memory};
        return WEIR_OK;
    }
}

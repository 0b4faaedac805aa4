/* SPDX-License-Identifier: MIT */
/* A request -> its parameters [RFC 3875 4.1 and what PHP and libfcgi programs expect]. What a client sends can only become
 * HTTP_*, CONTENT_TYPE and CONTENT_LENGTH; names that an app could confuse with others do not pass. */
#include "cgi/cgi.h"

#define MAX_FIXED 32

struct list {
    struct weir_pair *pairs;
    size_t count;
};

static void add(struct list *l, struct weir_str name, struct weir_str value)
{
    l->pairs[l->count++] = (struct weir_pair){name, value};
}

static void add_if(struct list *l, struct weir_str name, struct weir_str value)
{
    if (value.len) add(l, name, value);
}

/* ---- header fields ---- */

/* Fields that are told otherwise, or concern the connection alone (RFC 9110 7.6.1). */
static bool not_passed(struct weir_str name)
{
    static const struct weir_str drop[] = {
        WEIR_CONST_STR("proxy"), WEIR_CONST_STR("te"), WEIR_CONST_STR("upgrade"), WEIR_CONST_STR("trailer"), WEIR_CONST_STR("connection"), WEIR_CONST_STR("keep-alive"), WEIR_CONST_STR("http2-settings"),
        WEIR_CONST_STR("content-length"), WEIR_CONST_STR("content-type"), WEIR_CONST_STR("transfer-encoding"), WEIR_CONST_STR("proxy-connection"),
        WEIR_CONST_STR("proxy-authorization"), WEIR_CONST_STR("proxy-authenticate"), WEIR_CONST_STR("expect")};
    for (size_t i = 0; i < WEIR_COUNT(drop); i++)
        if (weir_str_ieq(drop[i], name)) return true;
    return false;
}

/* What a byte of a field's name becomes; 0: the field is not passed (PHP folds '.', ' ' and '_' into one name). */
static const char name_byte[256] = {
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5', ['6'] = '6', ['7'] = '7', ['8'] = '8', ['9'] = '9',
    ['A'] = 'A', ['B'] = 'B', ['C'] = 'C', ['D'] = 'D', ['E'] = 'E', ['F'] = 'F', ['G'] = 'G', ['H'] = 'H', ['I'] = 'I', ['J'] = 'J',
    ['K'] = 'K', ['L'] = 'L', ['M'] = 'M', ['N'] = 'N', ['O'] = 'O', ['P'] = 'P', ['Q'] = 'Q', ['R'] = 'R', ['S'] = 'S', ['T'] = 'T',
    ['U'] = 'U', ['V'] = 'V', ['W'] = 'W', ['X'] = 'X', ['Y'] = 'Y', ['Z'] = 'Z',
    ['a'] = 'A', ['b'] = 'B', ['c'] = 'C', ['d'] = 'D', ['e'] = 'E', ['f'] = 'F', ['g'] = 'G', ['h'] = 'H', ['i'] = 'I', ['j'] = 'J',
    ['k'] = 'K', ['l'] = 'L', ['m'] = 'M', ['n'] = 'N', ['o'] = 'O', ['p'] = 'P', ['q'] = 'Q', ['r'] = 'R', ['s'] = 'S', ['t'] = 'T',
    ['u'] = 'U', ['v'] = 'V', ['w'] = 'W', ['x'] = 'X', ['y'] = 'Y', ['z'] = 'Z', ['-'] = '_'};

/* HTTP_NAME, or an empty string: the field is not passed. */
static struct weir_str http_name(struct weir_str name, struct weir_arena *a, bool *failed)
{
    char *p = weir_arena_bytes(a, name.len + 5);
    bool odd = false;
    if (!p) {
        *failed = true;
        return weir_str(NULL, 0);
    }
    memcpy(p, "HTTP_", 5);
    for (size_t i = 0; i < name.len; i++) {
        p[5 + i] = name_byte[(unsigned char)name.ptr[i]];
        odd |= !p[5 + i];
    }
    return odd ? weir_str(NULL, 0) : weir_str(p, name.len + 5);
}

static size_t power_of_two(size_t n)
{
    size_t p = 64;
    while (p < n) p *= 2;
    return p;
}

/* Joins a repeated field: ", ", cookies "; ". own: it was joined before, into room for a power of two of bytes: so many equal names cost
 * no more than a few times what they are. */
static bool join(struct weir_pair *have, struct weir_str value, struct weir_arena *a, bool *own)
{
    bool cookie = weir_str_eq(have->name, WEIR_STR("HTTP_COOKIE"));
    size_t need = have->value.len + value.len + 2;
    char *p = (char *)(uintptr_t)have->value.ptr;
    if (!*own || need > power_of_two(have->value.len)) {
        p = weir_arena_bytes(a, power_of_two(need));
        if (!p) return false;
        if (have->value.len) memcpy(p, have->value.ptr, have->value.len);
        *own = true;
    }
    memcpy(p + have->value.len, cookie ? "; " : ", ", 2);
    if (value.len) memcpy(p + have->value.len + 2, value.ptr, value.len);
    have->value = weir_str(p, need);
    return true;
}

static int add_headers(struct list *l, const struct weir_cgi_request *r, struct weir_arena *a)
{
    size_t first = l->count;
    bool *own = weir_arena_alloc(a, r->header_count + 1);
    if (!own) return WEIR_NOMEM;
    memset(own, 0, r->header_count + 1);
    for (size_t i = 0; i < r->header_count; i++) {
        bool failed = false, joined = false;
        struct weir_str value = r->headers[i].value;
        if (r->host.len && weir_str_ieq(r->headers[i].name, WEIR_STR("host"))) continue; /* added below */
        if (r->no_authorization && weir_str_ieq(r->headers[i].name, WEIR_STR("authorization"))) continue;
        if (not_passed(r->headers[i].name) || !weir_str_field(value)) continue;
        struct weir_str name = http_name(r->headers[i].name, a, &failed);
        if (failed) return WEIR_NOMEM;
        if (!name.len) continue;
        for (size_t k = first; k < l->count && !joined; k++) {
            if (!weir_str_eq(l->pairs[k].name, name)) continue;
            if (!join(&l->pairs[k], value, a, &own[k - first])) return WEIR_NOMEM;
            joined = true;
        }
        if (!joined) add(l, name, value);
    }
    return WEIR_OK;
}

static struct weir_str content_type(const struct weir_cgi_request *r)
{
    for (size_t i = 0; i < r->header_count; i++)
        if (weir_str_ieq(r->headers[i].name, WEIR_STR("content-type"))) return r->headers[i].value;
    return weir_str(NULL, 0);
}

/* ---- the configuration's own ---- */

static void apply_extra(struct list *l, const struct weir_pair *extra, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t k = 0;
        while (k < l->count && !weir_str_eq(l->pairs[k].name, extra[i].name)) k++;
        if (!extra[i].value.ptr) { /* removed */
            if (k < l->count) {
                memmove(&l->pairs[k], &l->pairs[k + 1], (l->count - k - 1) * sizeof l->pairs[0]);
                l->count--;
            }
        } else if (k < l->count) {
            l->pairs[k].value = extra[i].value;
        } else {
            add(l, extra[i].name, extra[i].value);
        }
    }
}

static struct weir_str concat(struct weir_arena *a, struct weir_str x, struct weir_str y)
{
    char *p = weir_arena_bytes(a, x.len + y.len);
    if (!p) return weir_str(NULL, 0);
    if (x.len) memcpy(p, x.ptr, x.len);
    if (y.len) memcpy(p + x.len, y.ptr, y.len);
    return weir_str(p, x.len + y.len);
}

int weir_cgi_params(const struct weir_cgi_request *r, struct weir_arena *a, struct weir_pair **out, size_t *count) /* FC1-6.2-a */
{
    struct list l = {0};
    l.pairs = weir_arena_alloc(a, (MAX_FIXED + r->header_count + r->extra_count) * sizeof *l.pairs);
    if (!l.pairs) return WEIR_NOMEM;
    add(&l, WEIR_STR("GATEWAY_INTERFACE"), WEIR_STR("CGI/1.1"));
    add(&l, WEIR_STR("SERVER_SOFTWARE"), WEIR_STR("weir/" WEIR_VERSION));
    add(&l, WEIR_STR("REQUEST_METHOD"), r->method);
    if (!r->authorizer) add(&l, WEIR_STR("SCRIPT_NAME"), r->script_name); /* FC1-6.3-a */
    add_if(&l, WEIR_STR("SCRIPT_FILENAME"), r->script_filename);
    add(&l, WEIR_STR("QUERY_STRING"), r->query);
    add(&l, WEIR_STR("REQUEST_URI"), r->request_uri);
    add(&l, WEIR_STR("DOCUMENT_URI"), r->document_uri);
    add_if(&l, WEIR_STR("DOCUMENT_ROOT"), r->document_root);
    if (r->path_info.len && !r->authorizer) {
        add(&l, WEIR_STR("PATH_INFO"), r->path_info);
        if (r->document_root.len) {
            struct weir_str translated = concat(a, r->document_root, r->path_info);
            if (!translated.ptr) return WEIR_NOMEM;
            add(&l, WEIR_STR("PATH_TRANSLATED"), translated);
        }
    }
    if (r->content_length >= 0 && !r->authorizer) {
        char *digits = weir_arena_bytes(a, 20);
        if (!digits) return WEIR_NOMEM;
        add(&l, WEIR_STR("CONTENT_LENGTH"), weir_str(digits, weir_u64_text(digits, (uint64_t)r->content_length)));
    }
    struct weir_str type = content_type(r);
    if (type.len && weir_str_field(type)) add(&l, WEIR_STR("CONTENT_TYPE"), type);
    add(&l, WEIR_STR("SERVER_PROTOCOL"), r->protocol);
    add(&l, WEIR_STR("REQUEST_SCHEME"), r->scheme);
    if (weir_str_eq(r->scheme, WEIR_STR("https"))) add(&l, WEIR_STR("HTTPS"), WEIR_STR("on"));
    add(&l, WEIR_STR("SERVER_NAME"), r->server_name);
    add(&l, WEIR_STR("SERVER_PORT"), r->server_port);
    add(&l, WEIR_STR("SERVER_ADDR"), r->server_addr);
    add(&l, WEIR_STR("REMOTE_ADDR"), r->remote_addr);
    add(&l, WEIR_STR("REMOTE_PORT"), r->remote_port);
    add_if(&l, WEIR_STR("REMOTE_USER"), r->remote_user);
    add_if(&l, WEIR_STR("AUTH_TYPE"), r->auth_type);
    add_if(&l, WEIR_STR("REDIRECT_STATUS"), r->redirect_status);
    add_if(&l, WEIR_STR("REQUEST_ID"), r->request_id);
    if (r->host.len) add(&l, WEIR_STR("HTTP_HOST"), r->host);
    int status = add_headers(&l, r, a);
    if (status < 0) return status;
    apply_extra(&l, r->extra, r->extra_count);
    *out = l.pairs;
    *count = l.count;
    return WEIR_OK;
}

struct weir_cgi_request weir_cgi_check_request(const char *path, const char *root, const char *file, bool script)
{
    return (struct weir_cgi_request){.method = WEIR_STR("GET"), .protocol = WEIR_STR("HTTP/1.1"), .request_uri = weir_cstr(path),
                                     .document_uri = weir_cstr(path), .script_name = script ? weir_cstr(path) : WEIR_STR(""),
                                     .script_filename = weir_cstr(file), .path_info = script ? WEIR_STR("") : weir_cstr(path),
                                     .document_root = weir_cstr(root), .server_name = WEIR_STR("localhost"),
                                     .server_addr = WEIR_STR("127.0.0.1"), .server_port = WEIR_STR("80"), .remote_addr = WEIR_STR("127.0.0.1"),
                                     .remote_port = WEIR_STR("0"), .scheme = WEIR_STR("http"), .redirect_status = WEIR_STR("200"),
                                     .content_length = -1};
}

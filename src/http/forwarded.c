/* SPDX-License-Identifier: MIT */
/* Forwarded [RFC 7239] and X-Forwarded-For, read from the right: each proxy appends what it saw. What stands left of a trusted proxy's
 * own words is a stranger's text, which cannot make them unreadable. Whom to trust is the caller's to know. */
#include <arpa/inet.h>

#include "http/http.h"

#define QUOTED_MAX 8 /* commas in quoted text of one element */

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct weir_str trim(struct weir_str s)
{
    while (s.len && blank(s.ptr[0])) s = weir_str(s.ptr + 1, s.len - 1);
    while (s.len && blank(s.ptr[s.len - 1])) s.len--;
    return s;
}

/* ---- nodes: addresses with or without a port ---- */

static bool parse_address(struct weir_str s, bool v6, uint8_t address[16])
{
    char text[INET6_ADDRSTRLEN];
    if (s.len == 0 || s.len >= sizeof text || memchr(s.ptr, 0, s.len)) return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    if (!v6) memcpy(address, mapped, sizeof mapped);
    return inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? address : address + 12) == 1;
}

static bool obfuscated(struct weir_str s)
{
    for (size_t i = 1; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) return false;
    }
    return s.len > 1 && s.ptr[0] == '_';
}

/* ":PORT", or nothing; a hidden port is none. */
static bool parse_port(struct weir_str s, uint16_t *port)
{
    uint64_t v;
    *port = 0;
    if (s.len == 0) return true;
    if (s.ptr[0] != ':' || s.len == 1) return false;
    s = weir_str(s.ptr + 1, s.len - 1);
    if (obfuscated(s)) return true;
    if (s.len > 5 || weir_str_u64(s, 65535, &v) < 0) return false;
    *port = (uint16_t)v;
    return true;
}

/* bare: an IPv6 address may stand without brackets, and nobody is hidden. */
static bool parse_node(struct weir_str s, bool bare, struct weir_hop *out)
{
    struct weir_proxy_address *to = &out->from;
    out->known = true;
    if (s.len && s.ptr[0] == '[') {
        const char *end = memchr(s.ptr, ']', s.len);
        size_t len = end ? (size_t)(end - s.ptr) : 0;
        return end && parse_address(weir_str(s.ptr + 1, len - 1), true, to->address) && parse_port(weir_str(end + 1, s.len - len - 1), &to->port);
    }
    if (bare && parse_address(s, true, to->address)) return true;
    const char *colon = s.len ? memchr(s.ptr, ':', s.len) : NULL;
    struct weir_str name = weir_str(s.ptr, colon ? (size_t)(colon - s.ptr) : s.len);
    if (!parse_port(weir_str(s.ptr + name.len, s.len - name.len), &to->port)) return false;
    if (parse_address(name, false, to->address)) return true;
    out->known = false;
    return weir_str_ieq(name, WEIR_STR("unknown")) || (!bare && obfuscated(name));
}

/* ---- an element of Forwarded ---- */

/* A token or a quoted string without escapes, from the beginning of s on. */
static bool take_value(struct weir_str *s, struct weir_str *value)
{
    size_t len = 0;
    if (s->len && s->ptr[0] == '"') {
        for (len = 1; len < s->len && s->ptr[len] != '"'; len++)
            if (s->ptr[len] == '\\' || !(weir_byte_class[(unsigned char)s->ptr[len]] & WEIR_BYTE_FIELD)) return false;
        if (len == s->len) return false;
        *value = weir_str(s->ptr + 1, len - 1);
        len++;
    } else {
        while (len < s->len && weir_byte_class[(unsigned char)s->ptr[len]] & WEIR_BYTE_TOKEN) len++;
        if (len == 0) return false;
        *value = weir_str(s->ptr, len);
    }
    *s = weir_str(s->ptr + len, s->len - len);
    return true;
}

struct element {
    struct weir_str node, by, proto, host;
};

/* A name stands once [RFC 7239 4]. */
static bool keep(struct element *e, struct weir_str name, struct weir_str value)
{
    struct weir_str *to = weir_str_ieq(name, WEIR_STR("for")) ? &e->node : weir_str_ieq(name, WEIR_STR("by")) ? &e->by
                          : weir_str_ieq(name, WEIR_STR("proto")) ? &e->proto : weir_str_ieq(name, WEIR_STR("host")) ? &e->host : NULL;
    if (!to) return true; /* an extension */
    if (to->ptr) return false;
    *to = value;
    return true;
}

static bool parse_element(struct weir_str s, struct weir_hop *out)
{
    struct element e = {0};
    *out = (struct weir_hop){0};
    while (s.len) {
        size_t name = 0;
        struct weir_str value;
        while (name < s.len && weir_byte_class[(unsigned char)s.ptr[name]] & WEIR_BYTE_TOKEN) name++;
        struct weir_str field = weir_str(s.ptr, name);
        if (name == 0 || name == s.len || s.ptr[name] != '=') return false;
        s = weir_str(s.ptr + name + 1, s.len - name - 1);
        if (!take_value(&s, &value) || !keep(&e, field, value)) return false;
        s = trim(s);
        if (s.len == 0) break;
        if (s.ptr[0] != ';') return false;
        s = trim(weir_str(s.ptr + 1, s.len - 1));
    }
    out->proto = e.proto;
    out->host = e.host;
    if (!e.node.ptr) return e.by.ptr || e.proto.ptr || e.host.ptr;
    return parse_node(e.node, false, out);
}

/* ---- from the right ---- */

void weir_hops_init(struct weir_hops *h, const struct weir_pair *headers, size_t count, bool forwarded)
{
    *h = (struct weir_hops){.headers = headers, .left = count, .forwarded = forwarded};
}

/* The last field that was not begun. */
static bool next_field(struct weir_hops *h)
{
    struct weir_str name = h->forwarded ? WEIR_STR("forwarded") : WEIR_STR("x-forwarded-for");
    while (h->left) {
        const struct weir_pair *f = &h->headers[--h->left];
        if (!weir_str_ieq(f->name, name)) continue;
        h->rest = trim(f->value);
        if (h->rest.len) return true;
    }
    return false;
}

static size_t comma_before(struct weir_str s, size_t at)
{
    while (at > 0 && s.ptr[at - 1] != ',') at--;
    return at; /* behind the comma; 0: there is none */
}

int weir_hops_next(struct weir_hops *h, struct weir_hop *out)
{
    if (!h->rest.len && !next_field(h)) return WEIR_CLOSED;
    size_t at = h->rest.len;
    for (int commas = 0;; commas++) { /* one may be quoted: then the element begins before it */
        at = comma_before(h->rest, at);
        struct weir_str one = trim(weir_str(h->rest.ptr + at, h->rest.len - at));
        *out = (struct weir_hop){0};
        if (one.len && (h->forwarded ? parse_element(one, out) : parse_node(one, true, out))) {
            h->rest = trim(weir_str(h->rest.ptr, at ? at - 1 : 0));
            return WEIR_OK;
        }
        if (at == 0 || !h->forwarded || commas == QUOTED_MAX) return WEIR_PROTOCOL;
        at--;
    }
}

struct weir_str weir_last_value(const struct weir_pair *headers, size_t count, const char *name)
{
    while (count) {
        const struct weir_pair *f = &headers[--count];
        if (!weir_str_ieq(f->name, weir_cstr(name))) continue;
        size_t at = comma_before(f->value, f->value.len);
        return trim(weir_str(f->value.ptr + at, f->value.len - at));
    }
    return weir_str(NULL, 0);
}

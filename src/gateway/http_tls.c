/* SPDX-License-Identifier: MIT */
/* The TLS layer of a connection: bytes of the socket become bytes of HTTP, and back; the name that a client asks for chooses the
 * certificate. */
#include "gateway/internal.h"

#define HANDSHAKE 0x16 /* first byte of a record that begins TLS */

/* The site's own; else from its listener's folder that of the name, or of another name of the site that may cover both. */
static struct weir_tls_cert *certificate(const struct worker *w, const struct weir_conf_site *site, struct weir_str name)
{
    const struct weir_conf_key *keys = w->snap->conf->keys;
    struct weir_tls_cert *cert = NULL;
    if (site->tls >= 0) return keys_cert(w->keys, &keys[site->tls]);
    for (size_t i = 0; site->name_tls && i < site->name_count; i++) {
        struct weir_tls_cert *one = site->name_tls[i] >= 0 ? keys_cert(w->keys, &keys[site->name_tls[i]]) : NULL;
        bool own = weir_str_ieq(weir_cstr(site->names[i]), name);
        if (one && (!cert || own || (!weir_tls_cert_covers(cert, name) && weir_tls_cert_covers(one, name)))) cert = one;
        if (one && own) break;
    }
    return cert;
}

/* Whom the client wants: a site of its listener, and that site's certificate. */
static void choose(struct http_conn *h)
{
    const struct worker *w = h->worker;
    const struct listener *l = snapshot_listener(w->snap, h->listener);
    const struct site *site = l && l->default_site >= 0 ? snapshot_site(w->snap, l, weir_tls_server_name(h->tls)) : NULL;
    const struct weir_conf_key *keys = w->snap->conf->keys;
    struct weir_tls_cert *cert = site ? certificate(w, site->conf, weir_tls_server_name(h->tls)) : NULL;
    struct weir_tls_trust *trust = NULL;
    bool asks = site && site->conf->clients >= 0;
    if (asks) trust = keys_trust(w->keys, &keys[site->conf->clients]);
    if (!cert || (asks && !trust) || weir_tls_choose(h->tls, cert, trust) < 0) {
        weir_tls_refuse(h->tls);
        return;
    }
    h->clients = asks ? keys_name(&keys[site->conf->clients]) : 0;
}

static void ready(struct http_conn *h)
{
    h->preface = PREFACE_OVER; /* ALPN told what is spoken */
    if (weir_tls_is_http2(h->tls) && http2_begin(h) < 0) http_close(h);
}

void http_tls_feed(struct http_conn *h, const char *p, size_t len)
{
    bool first = !h->tls_begun;
    h->tls_begun = true;
    if (!first || p[0] == HANDSHAKE) {
        weir_tls_feed(h->tls, p, len);
        return;
    }
    weir_tls_free(h->tls); /* a browser that was sent to http://...:443 is told so */
    h->tls = NULL;
    h->preface = PREFACE_OVER;
    http_refuse(h, 400, "this port speaks TLS: the address begins with https://");
}

enum http_tls_input http_tls_input(struct http_conn *h)
{
    enum weir_tls_event ev;
    int64_t n = weir_tls_read(h->tls, h->worker->plain, PLAIN, &ev);
    size_t out = weir_buf_len(weir_tls_out(h->tls));
    if (out) http_dirty(h);
    if (out > 4 * OUT_HIGH) return HTTP_TLS_FAILED; /* what TLS itself answers, and nobody takes */
    if (n > 0) {
        http_input(h, h->worker->plain, (size_t)n);
    } else if (n == 0) {
        if (ev == WEIR_TLS_HELLO) choose(h);
        else ready(h);
    } else if (n == WEIR_AGAIN) {
        return HTTP_TLS_MORE;
    } else {
        return n == WEIR_CLOSED ? HTTP_TLS_ENDED : HTTP_TLS_FAILED;
    }
    return HTTP_TLS_GOES_ON;
}

bool http_tls_seal(struct http_conn *h)
{
    struct weir_buf *out = weir_tls_out(h->tls);
    size_t len = weir_buf_len(&h->out), held = weir_buf_len(out);
    if (len == 0 || held >= OUT_HIGH) return true;
    int64_t n = weir_tls_write(h->tls, weir_buf_ptr(&h->out), len < OUT_HIGH ? len : OUT_HIGH);
    if (n < 0) return false;
    weir_buf_consume(&h->out, (size_t)n);
    return true;
}

int http_tls_params(struct exchange *ex, struct weir_pair **out, size_t *count)
{
    struct weir_arena *a = &ex->arena;
    const struct weir_tls *t = ex->http->tls;
    struct weir_tls_client client;
    struct weir_pair *p = weir_arena_alloc(a, 8 * sizeof *p);
    size_t n = 0;
    if (!p) return WEIR_NOMEM;
    if (ex->trace) {
        *count = trace_tls_params(ex, p);
        *out = p;
        return WEIR_OK;
    }
    p[n++] = (struct weir_pair){WEIR_STR("SSL_PROTOCOL"), weir_cstr(weir_tls_protocol(t))};
    p[n++] = (struct weir_pair){WEIR_STR("SSL_CIPHER"), weir_cstr(weir_tls_cipher(t))};
    if (ex->http->clients) {
        if (weir_tls_client(t, a, &client) < 0) return WEIR_NOMEM;
        p[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_VERIFY"), client.verify};
        if (client.subject.len) {
            p[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_S_DN"), client.subject};
            p[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_I_DN"), client.issuer};
            p[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_M_SERIAL"), client.serial};
            p[n++] = (struct weir_pair){WEIR_STR("SSL_CLIENT_FINGERPRINT"), client.fingerprint};
        }
    }
    *out = p;
    *count = n;
    return WEIR_OK;
}

/* Does the connection suit the site of the request? Its client may have shown another site's certificate, or none. */
int http_tls_check(struct exchange *ex, const char **why)
{
    const struct weir_conf_site *site = ex->site->conf;
    const struct http_conn *h = ex->http;
    uint64_t wanted = site->clients >= 0 ? keys_name(&ex->snap->conf->keys[site->clients]) : 0;
    struct weir_tls_client client;
    if (wanted == 0 && h->clients == 0) return 0;
    if (ex->trace && ex->trace->https) {
        trace_guard(ex->trace, true, "client certificate", "%s; which one the client shows is not known here: the rest supposes a good one", site->clients_required ? "one is required" : "one is asked for");
        return 0;
    }
    *why = "a client certificate is required";
    if (!h->tls) return site->clients_required ? 403 : 0;
    if (wanted != h->clients) {
        *why = "this connection was made for another site";
        return 421;
    }
    if (!site->clients_required) return 0;
    if (weir_tls_client(h->tls, &ex->arena, &client) < 0) return 503;
    return weir_str_eq(client.verify, WEIR_STR("SUCCESS")) ? 0 : 403;
}

/* SPDX-License-Identifier: MIT */
/* Who a connection and a request come from: the socket, the PROXY protocol in front of the first request, and what trusted proxies tell
 * in Forwarded or X-Forwarded-For. Everything else that knows a client's address (limits, allow and deny, logs, parameters) asks here. */
#include <stdlib.h>
#include <sys/socket.h>

#include "gateway/internal.h"

#define HOPS_MAX 32    /* trusted proxies one behind the other */
#define TOLD_MS  10000 /* who is refused is told so often in the log */

struct guard_proxy {
    struct weir_proxy parser;
};

/* ---- connections ---- */

/* Who is refused again and again does not fill the log. */
static void tell_refused(struct http_conn *h, const char *listener, const char *why)
{
    struct worker *w = h->worker;
    uint64_t now = weir_loop_now_ms(w->loop);
    char text[INET6_ADDRSTRLEN + 8];
    struct sockaddr_storage peer = {0};
    if (w->refused_at_ms && now < w->refused_at_ms + TOLD_MS) return;
    w->refused_at_ms = now;
    memcpy(&peer, &h->peer, sizeof h->peer);
    weir_address_text(&peer, text, sizeof text);
    log_error(w, "listener %s: a connection of %s is refused: %s", listener, text, why);
}

static const struct weir_conf_trust *trust_of(const struct snapshot *s, const struct listener *l)
{
    return l && l->conf->trust.nets.list ? &l->conf->trust : &s->conf->trust;
}

/* Among those of its client, whose address is known now. A trusted proxy's carry many clients. False: there are too many. */
static bool count_connection(struct http_conn *h, const struct listener *l)
{
    static const char too_many[] = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    struct worker *w = h->worker;
    const struct weir_conf_trust *t = trust_of(w->snap, l);
    uint8_t address[16];
    if (!l || !l->conf->conns_max || !weir_net_of((const struct sockaddr *)&h->peer, address) || weir_nets_have(t->nets.list, t->nets.count, address)) return true;
    h->counted = limits_connect(w->gw->limits, h->listener, address, l->conf->conns_max);
    if (h->counted) return true;
    struct iovec v = {(void *)(uintptr_t)too_many, sizeof too_many - 1};
    if (l->conf->address.scheme == WEIR_SCHEME_HTTP && weir_loop_writev(w->loop, h->fd, &v, 1, false) >= 0) weir_loop_shutdown_write(w->loop, h->fd);
    return false;
}

bool guards_accepted(struct http_conn *h, const struct listener *l)
{
    const struct weir_conf_nets *proxies = l ? &l->conf->proxies : NULL;
    uint8_t address[16];
    if (h->worker->gw->trace) return true; /* its address is the one that is asked about */
    if (!proxies || !proxies->count) return count_connection(h, l);
    if (!weir_net_of((const struct sockaddr *)&h->peer, address) || !weir_nets_have(proxies->list, proxies->count, address)) {
        tell_refused(h, l->conf->name, "its proxy-protocol does not name that address");
        return false;
    }
    h->proxied = calloc(1, sizeof *h->proxied);
    h->state = HTTP_PROXY;
    return h->proxied != NULL;
}

static void set_peer(struct http_conn *h, const struct weir_proxy_address *from)
{
    struct sockaddr_storage s;
    weir_net_socket(from->address, from->port, &s);
    memcpy(&h->peer, &s, sizeof h->peer);
}

size_t guards_proxy_input(struct http_conn *h, const char *p, size_t len)
{
    struct weir_proxy *parser = &h->proxied->parser;
    const char *why = "";
    size_t used;
    int status = weir_proxy_feed(parser, p, len, &used, &why);
    if (status == WEIR_AGAIN) return len;
    if (status < 0) {
        const struct listener *l = snapshot_listener(h->worker->snap, h->listener);
        tell_refused(h, l ? l->conf->name : "-", why);
        http_close(h);
        return len;
    }
    h->state = HTTP_IDLE;
    if (!parser->known) return used;
    set_peer(h, &parser->from);
    bool denied = worker_denies(h->worker, parser->from.address);
    if (!denied && count_connection(h, snapshot_listener(h->worker->snap, h->listener))) return used;
    http_close(h);
    return len; /* nothing behind it is a request */
}

void guards_close(struct http_conn *h)
{
    free(h->proxied);
    h->proxied = NULL;
    if (h->counted) limits_disconnect(h->worker->gw->limits, h->counted);
    h->counted = NULL;
}

/* ---- requests ---- */

static bool trusted(const struct weir_conf_trust *t, const struct guard_client *c)
{
    return c->known && weir_nets_have(t->nets.list, t->nets.count, c->address);
}

static void set_scheme(struct guard_client *c, struct weir_str proto)
{
    if (weir_str_ieq(proto, WEIR_STR("https"))) c->scheme = WEIR_STR("https");
    else if (weir_str_ieq(proto, WEIR_STR("http"))) c->scheme = WEIR_STR("http");
}

/* From the nearest proxy on to the first address that is not one of a trusted proxy. What it is told of scheme and host is taken from
 * the same words. */
static void follow(struct guard_client *c, const struct weir_conf_trust *t, const struct weir_http_request *req)
{
    struct weir_hops hops;
    struct weir_hop hop;
    weir_hops_init(&hops, req->headers, req->header_count, t->forwarded);
    for (int i = 0; i < HOPS_MAX && trusted(t, c) && weir_hops_next(&hops, &hop) == WEIR_OK; i++) {
        if (t->forwarded) {
            c->scheme = c->host = (struct weir_str){0};
            set_scheme(c, hop.proto);
            if (weir_http_authority(hop.host)) c->host = hop.host;
        }
        if (!hop.known) break; /* hidden: the proxy stands for it */
        memcpy(c->address, hop.from.address, sizeof c->address);
        c->port = hop.from.port;
    }
    if (t->forwarded) return;
    struct weir_str host = weir_last_value(req->headers, req->header_count, "X-Forwarded-Host");
    set_scheme(c, weir_last_value(req->headers, req->header_count, "X-Forwarded-Proto"));
    if (weir_http_authority(host)) c->host = host;
}

void guards_client(struct exchange *ex)
{
    struct guard_client *c = &ex->client;
    const struct http_conn *h = ex->http;
    const struct weir_conf_trust *t = trust_of(ex->snap, ex->listener);
    c->known = weir_net_of((const struct sockaddr *)&h->peer, c->address);
    c->port = h->peer.family == AF_INET ? ntohs(h->peer.v4.sin_port) : h->peer.family == AF_INET6 ? ntohs(h->peer.v6.sin6_port) : 0;
    if (t->nets.count && trusted(t, c)) follow(c, t, ex->req);
}

void guards_socket(const struct exchange *ex, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (ex->client.known) weir_net_socket(ex->client.address, ex->client.port, out);
    else memcpy(out, &ex->http->peer, sizeof ex->http->peer);
}

struct weir_str guards_host(const struct exchange *ex)
{
    return ex->client.host.len ? ex->client.host : ex->req->host;
}

bool guards_is_https(const struct exchange *ex)
{
    return ex->client.scheme.len ? weir_str_eq(ex->client.scheme, WEIR_STR("https")) : exchange_is_https(ex);
}

/* ---- parameters ---- */

/* The port in host[:port], or the scheme's. */
static struct weir_str port_of(struct weir_str host, bool https)
{
    size_t name = http_without_port(host).len;
    if (host.len > name + 1) return weir_str(host.ptr + name + 1, host.len - name - 1);
    return https ? WEIR_STR("443") : WEIR_STR("80");
}

void guards_describe(struct exchange *ex, struct weir_cgi_request *r)
{
    const struct guard_client *c = &ex->client;
    const struct guard_proxy *proxied = ex->http->proxied;
    if (ex->auth) {
        r->remote_user = ex->auth_user;
        r->auth_type = WEIR_STR("Basic");
        r->no_authorization = !ex->auth->forward;
    }
    if (proxied && proxied->parser.known) {
        struct sockaddr_storage to;
        weir_net_socket(proxied->parser.to.address, proxied->parser.to.port, &to);
        r->server_addr = exchange_address_text(ex, &to, &r->server_port);
    }
    if (c->host.len) {
        struct weir_str name = http_without_port(c->host);
        r->host = c->host;
        if (name.len) r->server_name = name;
    }
    if (!c->scheme.len) return;
    r->scheme = c->scheme; /* the port is the one that the client asked for, as far as that is told */
    r->server_port = port_of(r->host, guards_is_https(ex));
}

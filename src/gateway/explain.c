/* SPDX-License-Identifier: MIT */
/* explain: a gateway with one thread that listens nowhere gets one connection, by a socket pair, with the request that is asked about. What
 * it notes on the way, and the head of what it answers, is the explanation. */
#include "gateway/explain.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/internal.h"

#define PATIENCE_MS 20000 /* for an answer that needs no application: disks may be slow */
#define HEAD_MAX    (64u << 10)

struct url {
    bool https;
    struct weir_str authority, host; /* host: without port and brackets */
    uint16_t port;
    struct weir_str target;          /* path and query; may be empty */
};
struct dry_run {
    const struct weir_explain_options *o;
    struct weir_explanation *e;
    struct trace trace;
    struct url url;
    struct gateway *gw;
    struct snapshot *snap;
    struct weir_buf request, answer;
    int fd;                          /* the client's end */
    bool chunked;
};

/* ---- what is asked ---- */

static bool one_line(struct weir_str s)
{
    return !s.len || (!memchr(s.ptr, '\r', s.len) && !memchr(s.ptr, '\n', s.len) && !memchr(s.ptr, 0, s.len));
}

static struct weir_str after(struct weir_str s, size_t n)
{
    return weir_str(s.ptr + n, s.len - n);
}

static const char *read_authority(struct url *u)
{
    struct weir_str a = u->authority;
    uint64_t port = u->https ? 443 : 80;
    size_t end = a.len;
    if (a.len == 0) return "the URL has no host";
    if (memchr(a.ptr, '@', a.len)) return "a URL with a user is not sent like that: write -H \"Authorization: ...\"";
    u->host = http_without_port(a);
    if (u->host.len < a.len) {
        end = u->host.len;
        if (a.ptr[end] != ':' || weir_str_u64(after(a, end + 1), 65535, &port) < 0 || port == 0) return "the URL's port is no number";
    }
    if (u->host.len >= 2 && u->host.ptr[0] == '[') u->host = weir_str(u->host.ptr + 1, u->host.len - 2);
    u->port = (uint16_t)port;
    return NULL;
}

static const char *read_url(const char *text, struct url *u)
{
    struct weir_str s = weir_cstr(text);
    if (!one_line(s)) return "the URL has more than one line";
    u->https = weir_str_prefix(s, WEIR_STR("https://"));
    if (u->https) s = after(s, 8);
    else if (weir_str_prefix(s, WEIR_STR("http://"))) s = after(s, 7);
    size_t n = strcspn(s.ptr, "/?#");
    u->authority = weir_str(s.ptr, n);
    s = after(s, n);
    u->target = weir_str(s.ptr, strcspn(s.ptr, "#")); /* a fragment never leaves a browser */
    return read_authority(u);
}

static bool append(struct weir_buf *b, struct weir_str s)
{
    return weir_buf_append(b, s.ptr, s.len) == WEIR_OK;
}

/* The bytes that a client would send. */
static int write_request(struct dry_run *d, const char **problem)
{
    const struct weir_explain_options *o = d->o;
    struct weir_buf *b = &d->request;
    bool host = false, fine = true;
    *problem = "the method is no word";
    if (!weir_http_token(weir_cstr(o->method))) return WEIR_INVALID;
    fine &= append(b, weir_cstr(o->method)) && append(b, WEIR_STR(" "));
    if (!d->url.target.len || d->url.target.ptr[0] != '/') fine &= append(b, WEIR_STR("/"));
    fine &= append(b, d->url.target) && append(b, WEIR_STR(" HTTP/1.1\r\n"));
    for (size_t i = 0; i < o->header_count; i++) {
        const struct weir_pair *h = &o->headers[i];
        *problem = "a header is no name and value";
        if (!weir_http_token(h->name) || !one_line(h->value)) return WEIR_INVALID;
        host |= weir_str_ieq(h->name, WEIR_STR("Host"));
        d->chunked |= weir_str_ieq(h->name, WEIR_STR("Transfer-Encoding"));
        fine &= append(b, h->name) && append(b, WEIR_STR(": ")) && append(b, h->value) && append(b, WEIR_STR("\r\n"));
    }
    if (!host) fine &= append(b, WEIR_STR("Host: ")) && append(b, d->url.authority) && append(b, WEIR_STR("\r\n"));
    fine &= append(b, WEIR_STR("\r\n"));
    if (d->chunked) fine &= append(b, WEIR_STR("0\r\n\r\n"));
    return fine ? WEIR_OK : WEIR_NOMEM;
}

/* ---- whom it reaches ---- */

static bool ends_in(struct weir_str s, struct weir_str end)
{
    return s.len > end.len && weir_str_ieq(weir_str(s.ptr + s.len - end.len, end.len), end);
}

static bool names_host(const struct weir_conf_site *s, int listener, struct weir_str host)
{
    bool here = false;
    for (size_t i = 0; i < s->listener_count; i++) here |= s->listeners[i] == listener;
    for (size_t i = 0; here && i < s->name_count; i++)
        if (weir_str_ieq(weir_cstr(s->names[i]), host) || (s->names[i][0] == '*' && s->names[i][1] == '.' && ends_in(host, weir_cstr(s->names[i] + 1)))) return true;
    return false;
}

/* How well a listener fits: its address is the URL's, it has the site, it takes any address. -1: not at all. */
static int fits(const struct dry_run *d, int index)
{
    const struct weir_config *c = d->o->conf;
    const struct listener *l = &d->snap->listeners[index];
    uint64_t port;
    uint8_t wanted[16];
    struct weir_net net;
    bool literal = weir_net_parse(d->url.host, &net) == WEIR_OK;
    int rank = 0;
    if (c->listeners[index].pool >= 0 || c->listeners[index].address.scheme != (d->url.https ? WEIR_SCHEME_HTTPS : WEIR_SCHEME_HTTP)) return -1;
    if (weir_str_u64(l->server_port, 65535, &port) < 0 || port != d->url.port || l->default_site < 0) return -1;
    for (size_t i = 0; i < c->site_count; i++)
        if (names_host(&c->sites[i], index, d->url.host)) rank = 2;
    if (!literal || l->any_address) return rank + l->any_address;
    struct weir_net at;
    if (weir_net_parse(l->server_addr, &at) < 0) return -1;
    memcpy(wanted, net.address, sizeof wanted);
    return memcmp(at.address, wanted, sizeof wanted) == 0 ? 4 : -1;
}

static int choose_listener(const struct dry_run *d)
{
    int best = -1, rank = -1;
    for (size_t i = 0; i < d->o->conf->listener_count; i++) {
        int here = fits(d, (int)i);
        if (here <= rank) continue;
        rank = here;
        best = (int)i;
    }
    return best;
}

static int client_address(const struct dry_run *d, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (void *)out;
    struct sockaddr_in6 *v6 = (void *)out;
    const char *text = d->o->from ? d->o->from : "127.0.0.1";
    *out = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) out->ss_family = AF_INET6;
    else return WEIR_INVALID;
    return WEIR_OK;
}

/* ---- the run ---- */

static int start(struct dry_run *d)
{
    struct weir_config *conf = d->o->conf;
    int *fds = malloc((conf->listener_count + 1) * sizeof *fds);
    for (size_t i = 0; fds && i < conf->listener_count; i++) fds[i] = -1;
    int status = fds ? gateway_threads(d->gw, 1) : WEIR_NOMEM;
    if (status == WEIR_OK) status = snapshot_new(&d->snap, d->gw, conf, fds);
    free(fds);
    if (status < 0) return status;
    d->gw->snap = d->snap;
    d->gw->trace = &d->trace;
    d->gw->quota.dir = strdup("/tmp");
    d->gw->quota.max = conf->temp_bytes;
    for (size_t i = 0; i < conf->pool_count; i++)
        if (conf->pools[i].broken) weir_pool_refuse(d->snap->pools[i].in->pool, conf->pools[i].broken);
    return worker_init(&d->gw->workers[0], d->gw, 0);
}

static int connect_client(struct dry_run *d, const struct listener *l, const struct sockaddr_storage *peer)
{
    struct worker *w = &d->gw->workers[0];
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) return WEIR_SYSTEM;
    d->fd = fds[0];
    worker_begin(w);
    atomic_fetch_add(&d->gw->conn_count, 1);
    atomic_fetch_add(&w->conn_count, 1);
    http_accepted(w, fds[1], peer, l->id);
    return WEIR_OK;
}

/* The length of the whole head of the last answer, with interim ones before it skipped; 0: it is not all there. */
static size_t head_length(struct weir_buf *b)
{
    for (;;) {
        char *p = weir_buf_ptr(b), *end = weir_buf_len(b) ? memmem(p, weir_buf_len(b), "\r\n\r\n", 4) : NULL;
        if (!end) return 0;
        size_t len = (size_t)(end - p) + 4;
        if (len < 12 || p[9] != '1') return len;
        weir_buf_consume(b, len);
    }
}

static int take_answer(struct dry_run *d)
{
    struct worker *w = &d->gw->workers[0];
    uint64_t until = weir_loop_now_ms(w->loop) + PATIENCE_MS;
    bool ended = false;
    while (!ended && !head_length(&d->answer) && weir_buf_len(&d->answer) < HEAD_MAX && weir_loop_now_ms(w->loop) < until) {
        if (weir_buf_len(&d->request)) {
            ssize_t n = send(d->fd, weir_buf_ptr(&d->request), weir_buf_len(&d->request), MSG_NOSIGNAL);
            if (n > 0) weir_buf_consume(&d->request, (size_t)n);
            else if (errno != EAGAIN) weir_buf_reset(&d->request, 0); /* it has heard enough */
        }
        worker_turn(w);
        char *to = weir_buf_room(&d->answer, 4096);
        if (!to) return WEIR_NOMEM;
        ssize_t n = read(d->fd, to, 4096);
        if (n > 0) weir_buf_added(&d->answer, (size_t)n);
        ended = n == 0 || (n < 0 && errno != EAGAIN);
    }
    return WEIR_OK;
}

/* Status and fields of the answer that came. */
static int read_answer(struct dry_run *d)
{
    struct weir_explanation *e = d->e;
    size_t len = head_length(&d->answer), lines = 0;
    if (!len) {
        e->why = e->why ? e->why : "no answer came";
        return WEIR_OK;
    }
    struct weir_str head = weir_arena_str(&e->arena, weir_str(weir_buf_ptr(&d->answer), len));
    for (size_t i = 0; i < head.len; i++) lines += head.ptr && head.ptr[i] == '\n';
    e->fields = weir_arena_alloc(&e->arena, (lines + 1) * sizeof *e->fields);
    if (!head.ptr || !e->fields) return WEIR_NOMEM;
    e->status = atoi(head.ptr + 9);
    for (const char *p = strstr(head.ptr, "\r\n") + 2; *p && *p != '\r'; p = strstr(p, "\r\n") + 2) {
        const char *colon = strchr(p, ':'), *end = strstr(p, "\r\n");
        if (colon && colon < end) e->fields[e->field_count++] = (struct weir_pair){weir_str(p, (size_t)(colon - p)), weir_str(colon + 2, (size_t)(end - colon - 2))};
    }
    return WEIR_OK;
}

/* A script of a cgi pool that nobody may run: its runner answers 403. */
static bool is_no_program(const struct weir_explain_asked *a)
{
    struct stat st;
    if (a->pool->kind != WEIR_POOL_CGI || a->pool->argc) return false;
    for (size_t i = 0; i < a->param_count; i++)
        if (weir_str_eq(a->params[i].name, WEIR_STR("SCRIPT_FILENAME"))) return stat(a->params[i].value.ptr, &st) == 0 && !(st.st_mode & 0111);
    return false;
}

/* An answer of ours below 400 serves, and so does one that an application would give. */
static void judge(struct weir_explanation *e)
{
    const struct weir_explain_asked *last = e->asked_count ? &e->asked[e->asked_count - 1] : NULL;
    bool app = last && last->role != WEIR_EXPLAIN_AUTHORIZER && e->status == 200 && !e->why;
    if (app && is_no_program(last)) {
        e->status = 403;
        e->field_count = 0;
        e->why = "the script is not executable: chmod +x";
        app = false;
    }
    e->served = app || (e->status >= 200 && e->status < 400);
    if (!app) return;
    e->status = 0; /* the application's */
    e->field_count = 0;
}

static int run(struct dry_run *d, const char **problem)
{
    struct sockaddr_storage peer;
    int status = client_address(d, &peer);
    if (status < 0) {
        *problem = "the client's address is neither IPv4 nor IPv6";
        return status;
    }
    status = write_request(d, problem);
    if (status == WEIR_OK) status = start(d);
    if (status < 0) return status;
    int listener = choose_listener(d);
    if (listener < 0) {
        d->e->why = "nothing listens there";
        return WEIR_OK;
    }
    const struct listener *l = &d->snap->listeners[listener];
    d->e->listener = l->conf;
    struct weir_net net;
    d->trace.local_known = !l->any_address || weir_net_parse(d->url.host, &net) == WEIR_OK;
    d->trace.server_addr = d->trace.local_known && l->any_address ? d->url.host : l->any_address ? WEIR_STR("127.0.0.1") : l->server_addr;
    d->trace.https = d->url.https;
    status = connect_client(d, l, &peer);
    if (status == WEIR_OK) status = take_answer(d);
    if (status == WEIR_OK) status = read_answer(d);
    if (status == WEIR_OK && d->trace.nomem) status = WEIR_NOMEM;
    judge(d->e);
    return status;
}

static int loop_new(struct weir_loop **out, void *arg)
{
    (void)arg;
    return weir_loop_epoll_new(out);
}

int weir_gateway_explain(const struct weir_explain_options *o, struct weir_explanation *out, const char **problem)
{
    struct dry_run d = {.o = o, .e = out, .trace = {.to = out, .from_known = o->from != NULL}, .fd = -1};
    *out = (struct weir_explanation){0};
    weir_arena_init(&out->arena, 0);
    *problem = read_url(o->url, &d.url);
    if (*problem) return WEIR_INVALID;
    int status = gateway_new(&d.gw, loop_new, NULL);
    if (status == WEIR_OK) status = run(&d, problem);
    if (d.gw) gateway_free(d.gw);
    if (d.fd >= 0) close(d.fd);
    weir_buf_fini(&d.request);
    weir_buf_fini(&d.answer);
    return status;
}

void weir_explanation_free(struct weir_explanation *e)
{
    weir_arena_fini(&e->arena);
}

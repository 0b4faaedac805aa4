/* SPDX-License-Identifier: MIT */
/* Connections of web servers: all that is there is read, its records become events, what is answered in a turn leaves in
 * one write. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "app/internal.h"

#define CHOKED (64u << 10) /* answers to management records, ends and credit that a server leaves unread */
#define LINGER_MS    1000
#define LINGER_BYTES (4u << 20)

static struct weir_ident ident(const struct app_conn *k, uint8_t kind)
{
    return (struct weir_ident){.kind = kind, .index = k->index, .epoch = k->epoch};
}

/* ---- who may connect: FCGI_WEB_SERVER_ADDRS (FC1-3.2-b), IPv6 too ---- */

static bool same_address(const struct sockaddr_storage *peer, const char *text, size_t len)
{
    char one[INET6_ADDRSTRLEN], name[INET6_ADDRSTRLEN + 8];
    struct in_addr v4;
    struct in6_addr v6;
    weir_address_text(peer, name, sizeof name); /* a mapped IPv4 address reads as IPv4 */
    while (len && *text == ' ') text++, len--;
    while (len && text[len - 1] == ' ') len--;
    if (len >= sizeof one) return false;
    memcpy(one, text, len);
    one[len] = 0;
    struct in_addr p4;
    struct in6_addr p6;
    if (inet_pton(AF_INET, one, &v4) == 1) return inet_pton(AF_INET, name, &p4) == 1 && p4.s_addr == v4.s_addr;
    if (inet_pton(AF_INET6, one, &v6) == 1) return inet_pton(AF_INET6, name, &p6) == 1 && memcmp(&p6, &v6, sizeof v6) == 0;
    return false;
}

bool weir_app_peer_allowed(const struct weir_app *a, const struct sockaddr_storage *peer)
{
    if (!a->server_addrs || (peer->ss_family != AF_INET && peer->ss_family != AF_INET6)) return true; /* FC1-3.2-c */
    for (const char *p = a->server_addrs; *p;) {
        size_t n = strcspn(p, ",");
        if (same_address(peer, p, n)) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

/* ---- life ---- */

static struct app_conn *slot(struct weir_app *a)
{
    if (a->free_count) return a->conns[a->free_index[--a->free_count]];
    if (a->conn_top == a->conn_cap) {
        uint32_t cap = a->conn_cap ? a->conn_cap * 2 : 16;
        struct app_conn **conns = realloc(a->conns, cap * sizeof(struct app_conn *));
        if (!conns) return NULL;
        a->conns = conns;
        uint32_t *free_index = realloc(a->free_index, cap * sizeof *free_index);
        if (!free_index) return NULL;
        a->free_index = free_index;
        a->conn_cap = cap;
    }
    struct app_conn *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->index = a->conn_top;
    a->conns[a->conn_top++] = k;
    return k;
}

/* No request has all of its parameters. */
static bool is_idle(const struct app_conn *k)
{
    return weir_wire_app_active(k->wire) == 0 || weir_wire_app_next_id(k->wire, 0, NULL) == 0;
}

static void arm_idle(struct app_conn *k)
{
    struct weir_app *a = k->app;
    uint32_t ms = k->leaving ? a->o.drain_ms : a->o.idle_ms;
    if (a->o.idle_ms && is_idle(k))
        weir_timer_set(a->loop, &k->timer, ident(k, KIND_IDLE), weir_loop_now_ms(a->loop) + ms);
    else weir_timer_clear(&k->timer);
}

int weir_app_conn_adopt(struct weir_app *a, int fd)
{
    const struct weir_wire_limits limits = {.params_bytes = a->o.params_bytes, .requests = a->o.max_requests,
                                            .plain_requests = a->o.max_plain, .conns = a->o.max_conns,
                                            .window = a->o.body_window, .threads = a->o.threads};
    struct app_conn *k = a->conn_count < a->o.max_conns ? slot(a) : NULL; /* FC1-3.2-d */
    if (!k) return WEIR_LIMIT;
    uint32_t index = k->index, epoch = (k->epoch + 1) & 0xffffff;
    *k = (struct app_conn){.app = a, .index = index, .epoch = epoch, .fd = fd, .in_use = true};
    weir_list_init(&k->link);
    weir_list_init(&k->dirty_link);
    int status = weir_wire_app_new(&k->wire, &limits);
    if (status == WEIR_OK) status = weir_loop_add(a->loop, fd, ident(k, KIND_CONN), false);
    if (status < 0) {
        weir_wire_app_free(k->wire);
        k->in_use = false;
        a->free_index[a->free_count++] = index;
        return status;
    }
    a->conn_count++;
    a->fresh_count++;
    k->fresh = true;
    arm_idle(k);
    return WEIR_OK;
}

static void not_fresh(struct app_conn *k)
{
    if (!k->fresh) return;
    k->fresh = false;
    k->app->fresh_count--;
}

void weir_app_conn_close(struct app_conn *k)
{
    struct weir_app *a = k->app;
    void *user;
    if (!k->in_use) return;
    not_fresh(k);
    k->in_use = false;
    weir_timer_clear(&k->timer);
    weir_list_remove(&k->dirty_link);
    weir_list_remove(&k->link);
    for (uint16_t id = weir_wire_app_next_id(k->wire, 0, &user); id; id = weir_wire_app_next_id(k->wire, id, &user)) {
        struct weir_app_req *r = user;
        if (!r) continue;
        r->conn = NULL;
        r->param_block = (char *)(uintptr_t)weir_wire_app_params_take(k->wire, id).ptr;
        weir_app_req_abort(r); /* IOP-A7 */
    }
    weir_wire_app_free(k->wire);
    k->wire = NULL;
    weir_loop_del(a->loop, k->fd);
    weir_loop_close(a->loop, k->fd);
    k->epoch = (k->epoch + 1) & 0xffffff;
    a->free_index[a->free_count++] = k->index;
    a->conn_count--; /* FC1-3.5-d */
}

void weir_app_conn_idle(struct weir_app *a, const struct weir_event *ev)
{
    struct app_conn *k = a->conns[ev->ident.index];
    if (!k->in_use || k->epoch != ev->ident.epoch || !is_idle(k)) return;
    if (!weir_wire_app_agreed(k->wire) || k->leaving) {
        weir_app_conn_close(k); /* IOP-A8, FC1-3.5-c */
        return;
    }
    k->leaving = true; /* a request may be on its way: the server is told, and closes (FC 7.5); if not, we do after drain_ms */
    weir_wire_app_drain(k->wire);
    weir_app_conn_dirty(k);
    arm_idle(k);
}

/* ---- reading ---- */

/* Events of what was read; false: the connection is gone. */
static bool take(struct app_conn *k)
{
    struct weir_wire_event ev;
    not_fresh(k);
    while (weir_wire_app_next(k->wire, &ev) == WEIR_OK) {
        struct weir_app_req *r = ev.user;
        switch (ev.type) {
        case WEIR_WIRE_EV_REQUEST:
            weir_timer_clear(&k->timer);
            weir_app_req_begin(k, &ev);
            break;
        case WEIR_WIRE_EV_INPUT:
            if (r && (ev.stream == WEIR_STDIN || r->role == WEIR_FILTER)) weir_app_req_input(r, ev.stream, ev.bytes);
            else weir_wire_app_consumed(k->wire, ev.id, ev.stream, ev.bytes.len); /* nobody reads it */
            break;
        case WEIR_WIRE_EV_INPUT_END:
            if (r && (ev.stream == WEIR_STDIN || r->role == WEIR_FILTER)) weir_app_req_input_ends(r, ev.stream);
            break;
        case WEIR_WIRE_EV_ROOM:
            if (!r) break;
            r->ev_room = true;
            weir_app_req_post(r);
            break;
        case WEIR_WIRE_EV_ABORT:
            if (r) weir_app_req_abort(r);
            break;
        case WEIR_WIRE_EV_ERROR: weir_app_conn_close(k); return false; /* FC1-7-d */
        default: break;
        }
    }
    weir_app_conn_dirty(k); /* answers to GET_VALUES, credit, refusals */
    return true;
}

/* A close while the server still sends could take the end of the answer with it (a TCP reset): we say that nothing follows, and read
 * for a while what still comes. */
static void linger(struct app_conn *k)
{
    struct weir_app *a = k->app;
    k->lingers = true;
    weir_loop_shutdown_write(a->loop, k->fd);
    weir_timer_set(a->loop, &k->timer, ident(k, KIND_IDLE), weir_loop_now_ms(a->loop) + LINGER_MS);
    weir_app_conn_resume(k);
}

static void linger_on(struct app_conn *k)
{
    struct weir_app *a = k->app;
    for (int i = 0; i < 16; i++) {
        int64_t n = weir_loop_read(a->loop, k->fd, a->scratch, SCRATCH);
        if (n == WEIR_AGAIN) return;
        if (n < 0 || (k->lingered += (uint32_t)n) > LINGER_BYTES) {
            weir_app_conn_close(k);
            return;
        }
    }
    weir_app_conn_resume(k);
}

/* Reads what is there; when the peer has closed, to the end: what came before the close still counts. */
void weir_app_conn_read(struct app_conn *k)
{
    struct weir_app *a = k->app;
    if (k->lingers) {
        linger_on(k);
        return;
    }
    for (int i = 0; i < 16; i++) {
        const void *out;
        if (k->full_count) return;
        if (weir_wire_app_output(k->wire, &out) >= a->o.output_buffer + CHOKED) { /* what requests write is bounded elsewhere */
            k->choked = true;
            return;
        }
        int64_t n = weir_loop_read(a->loop, k->fd, a->scratch, SCRATCH);
        if (n == WEIR_AGAIN) return;
        if (n < 0) {
            weir_app_conn_close(k);
            return;
        }
        weir_wire_app_feed(k->wire, a->scratch, (size_t)n);
        if (!take(k) || (n < SCRATCH && !k->peer_closed)) return;
    }
    weir_app_conn_resume(k); /* others have their turn; no edge will tell of the rest */
}

void weir_app_conn_resume(struct app_conn *k)
{
    weir_list_remove(&k->link);
    weir_list_push_back(&k->app->resume, &k->link);
}

void weir_app_conn_event(struct weir_app *a, const struct weir_event *ev)
{
    if (ev->ident.index >= a->conn_top) return;
    struct app_conn *k = a->conns[ev->ident.index];
    if (!k->in_use || k->epoch != ev->ident.epoch) return;
    uint32_t epoch = k->epoch;
    if (ev->ready & WEIR_READY_CLOSED) k->peer_closed = true;
    if (ev->ready & WEIR_READY_WRITE) weir_app_conn_flush(k);
    if (k->epoch == epoch && k->in_use && ev->ready & (WEIR_READY_READ | WEIR_READY_CLOSED)) weir_app_conn_read(k);
}

/* ---- writing ---- */

void weir_app_conn_dirty(struct app_conn *k)
{
    if (!k->in_use || !weir_list_empty(&k->dirty_link)) return;
    k->batch_since_us = weir_loop_clock_us(k->app->loop);
    weir_list_push_back(&k->app->dirty, &k->dirty_link);
}

void weir_app_conn_tell_room(struct app_conn *k)
{
    void *user;
    if (!k->wants_room) return;
    k->wants_room = 0;
    for (uint16_t id = weir_wire_app_next_id(k->wire, 0, &user); id; id = weir_wire_app_next_id(k->wire, id, &user)) {
        struct weir_app_req *r = user;
        if (!r || !r->wants_room) continue;
        r->wants_room = false;
        r->ev_room = true;
        weir_app_req_post(r);
    }
}

void weir_app_conn_flush(struct app_conn *k)
{
    struct weir_app *a = k->app;
    const void *p;
    size_t len;
    weir_list_remove(&k->dirty_link);
    if (k->lingers) return;
    if (k->broken) { /* an end could not be written: the server has to see that */
        weir_app_conn_close(k);
        return;
    }
    while ((len = weir_wire_app_output(k->wire, &p)) > 0) {
        struct iovec v = {(void *)(uintptr_t)p, len};
        int64_t n = weir_loop_writev(a->loop, k->fd, &v, 1, false);
        if (n == WEIR_AGAIN || n == 0) break;
        if (n < 0) {
            weir_app_conn_close(k);
            return;
        }
        weir_wire_app_sent(k->wire, (size_t)n);
        if ((size_t)n < len) break;
    }
    len = weir_wire_app_output(k->wire, &p);
    bool want = len > 0;
    if (want != k->want_write && weir_loop_want_write(a->loop, k->fd, ident(k, KIND_CONN), want) == WEIR_OK) k->want_write = want;
    k->batched = 0;
    if (k->choked && len < a->o.output_buffer) {
        k->choked = false;
        weir_app_conn_resume(k);
    }
    if (len < a->o.output_buffer / 2) weir_app_conn_tell_room(k);
    if (len) return;
    if (weir_wire_app_closing(k->wire)) { /* FC1-3.5-b: ours to close; the server has all of it */
        if (k->input_over) weir_app_conn_close(k);
        else linger(k); /* IOP-A6 */
        return;
    }
    arm_idle(k);
}

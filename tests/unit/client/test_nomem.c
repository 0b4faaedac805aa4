/* SPDX-License-Identifier: MIT */
/* The client when memory is refused: each allocation of a conversation in turn, then all behind one. Each request that began ends once,
 * nothing waits for ever, and the next conversation is whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "peer.h"
#include "weir/client.h"

#define REQUESTS 5
#define TURNS    400 /* of 50 ms at most: nothing takes so long */
#define EACH     (-1)

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

/* Of the client's thread; the app of the test has what it wants. */
static _Thread_local bool counting;
static _Thread_local int counted, first, last;

static bool refuse(void)
{
    if (!counting) return false;
    int i = counted++;
    return i >= first && i <= last;
}

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return refuse() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return refuse() ? NULL : __real_realloc(p, n);
}

/* ---- one conversation ---- */

struct ask {
    struct weir_client_req *req;
    struct weir_pair params[3];
    uint64_t body_len, given, got;
    int ended, status;
};

struct site {
    struct weir_client_group *group;
    struct weir_client *client;
    struct weir_pool *pool;
};

#define BODY 40000

static void give(struct ask *a)
{
    static const char piece[BODY];
    while (a->given < a->body_len) {
        int64_t n = weir_client_write(a->req, piece, (size_t)(a->body_len - a->given));
        if (n == WEIR_NOMEM) { /* nothing follows */
            weir_client_req_free(a->req);
            a->ended++;
            a->status = WEIR_NOMEM;
        }
        if (n <= 0) return; /* ROOM, or END, follows */
        a->given += (uint64_t)n;
    }
}

static void on_event(const struct weir_client_event *ev)
{
    struct ask *a = ev->user;
    struct weir_client_result result;
    switch (ev->type) {
    case WEIR_CLIENT_STARTED: a->given = 0; give(a); break;
    case WEIR_CLIENT_ROOM: give(a); break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream != WEIR_STDOUT) break;
        a->got += ev->bytes.len;
        weir_client_consume(a->req, ev->bytes.len);
        break;
    case WEIR_CLIENT_END:
        weir_client_req_result(a->req, &result);
        a->ended++;
        a->status = result.status;
        weir_client_req_free(a->req);
        break;
    default: break;
    }
}

static int open_site(struct site *s, const struct weir_endpoint_options *list, size_t count, bool owned)
{
    struct weir_client_options c;
    struct weir_pool_options p;
    weir_client_options_init(&c);
    weir_pool_options_init(&p);
    p.name = "test";
    p.owned = owned;
    p.queue_ms = last == INT32_MAX ? 100 : 10000; /* for so long they wait for what has no memory any more */
    int status = weir_client_group_new(&s->group, 1);
    if (status == WEIR_OK) status = weir_client_new(&s->client, s->group, &c);
    if (status == WEIR_OK) status = weir_pool_new(&s->pool, s->group, &p);
    if (status == WEIR_OK) status = weir_pool_set(s->pool, list, count);
    return status;
}

static void close_site(struct site *s)
{
    if (s->client) weir_client_free(s->client);
    if (s->pool) weir_pool_free(s->pool);
    if (s->group) weir_client_group_free(s->group);
}

static void begin_with(struct site *s, struct ask *a, const char *path, uint64_t body_len, size_t long_len)
{
    static char lot[1024];
    struct weir_client_begin_options o;
    weir_client_begin_options_init(&o);
    memset(lot, 'x', sizeof lot);
    a->params[0] = (struct weir_pair){{"REQUEST_METHOD", 14}, {"POST", 4}};
    a->params[1] = (struct weir_pair){{"PATH_INFO", 9}, {path, strlen(path)}};
    a->params[2] = (struct weir_pair){{"LONG", 4}, {lot, long_len}};
    o.params = a->params;
    o.param_count = 3;
    o.body_len = a->body_len = body_len;
    o.silent_ms = 10000; /* sooner than the test gives up */
    o.user = a;
    int how = weir_client_begin(s->client, s->pool, &o, &a->req);
    if (how == 1) give(a);
    if (how < 0) a->ended = 1, a->status = how;
}

static int ended(const struct ask *asks)
{
    int n = 0;
    for (int i = 0; i < REQUESTS; i++) n += asks[i].ended;
    return n;
}

/* How many requests were answered. */
static int converse(const struct weir_endpoint_options *list, size_t count, bool owned)
{
    struct site s = {0};
    struct ask asks[REQUESTS] = {0};
    int good = 0;
    if (open_site(&s, list, count, owned) == WEIR_OK) {
        struct weir_client_event ev;
        for (int i = 0; i < REQUESTS; i++) begin_with(&s, &asks[i], i % 2 ? "/big/200000" : "/count", BODY, 0);
        for (int t = 0; t < TURNS && ended(asks) < REQUESTS; t++) {
            int stepped = weir_client_step(s.client, 50);
            assert_true(stepped == WEIR_OK || stepped == WEIR_NOMEM);
            while (weir_client_next(s.client, &ev) == WEIR_OK) on_event(&ev);
            weir_client_flush(s.client);
        }
        counting = false; /* what is asserted may say something */
        for (int i = 0; i < REQUESTS; i++) {
            if (asks[i].ended != 1) fail_msg("refused %d..%d: request %d ended %d times", first, last, i, asks[i].ended);
            if (asks[i].status == WEIR_OK && i % 2) assert_true(asks[i].got > 200000);
            good += asks[i].status == WEIR_OK;
        }
        counting = true;
    }
    close_site(&s);
    return good;
}

static int try_with(int from, int to, const struct weir_endpoint_options *list, size_t count, bool owned)
{
    first = from;
    last = to;
    counted = 0;
    counting = true;
    int good = converse(list, count, owned);
    counting = false;
    return good;
}

static void refuse_in_turn(struct weir_endpoint_options *list, size_t count, bool owned)
{
    assert_int_equal(try_with(EACH, EACH, list, count, owned), REQUESTS);
    int all = counted;
    assert_in_range(all, 5, 5000);
    for (int i = 0; i < all; i++) (void)try_with(i, i, list, count, owned);
    for (int i = 0; i < all; i++) (void)try_with(i, INT32_MAX, list, count, owned);
    assert_int_equal(try_with(EACH, EACH, list, count, owned), REQUESTS);
}

/* A head that fills its buffer to within the 8 bytes of the end behind it: whatever has no place, no request waits for it. */
static void the_end_of_a_body(void **state)
{
    (void)state;
    struct peer p;
    peer_start(&p, 0, WEIR_APP_ROLE_RESPONDER);
    struct weir_endpoint_options e = {.id = 1, .address = p.address, .workers = 1, .keep = true};
    for (size_t len = 380; len < 480; len += 4) {
        bool all = false;
        for (int i = 0; !all; i++) {
            struct site s = {0};
            struct ask a = {0};
            struct weir_client_event ev;
            first = last = i;
            counted = 0;
            counting = true;
            if (open_site(&s, &e, 1, true) == WEIR_OK) {
                begin_with(&s, &a, "/count", 0, len);
                for (int t = 0; t < TURNS && !a.ended; t++) {
                    assert_true(weir_client_step(s.client, 50) <= WEIR_OK);
                    while (weir_client_next(s.client, &ev) == WEIR_OK) on_event(&ev);
                    weir_client_flush(s.client);
                }
                assert_int_equal(a.ended, 1);
                assert_int_not_equal(a.status, WEIR_TIMEOUT);
            }
            close_site(&s);
            counting = false;
            all = counted <= i;
        }
    }
    peer_stop(&p);
}

static void one_request_on_a_connection(void **state)
{
    (void)state;
    struct peer p;
    peer_start(&p, 0, WEIR_APP_ROLE_RESPONDER);
    struct weir_endpoint_options e = {.id = 1, .address = p.address, .workers = 2, .keep = true};
    refuse_in_turn(&e, 1, true);
    peer_stop(&p);
}

static void flow_control(void **state)
{
    (void)state;
    struct peer p;
    peer_start(&p, 0, WEIR_APP_ROLE_RESPONDER);
    struct weir_endpoint_options e = {.id = 1, .address = p.address, .workers = 1, .requests = 3, .keep = true, .flow = true};
    refuse_in_turn(&e, 1, true);
    peer_stop(&p);
}

static void several_servers(void **state)
{
    (void)state;
    struct peer p, q;
    peer_start(&p, 0, WEIR_APP_ROLE_RESPONDER);
    peer_start(&q, 0, WEIR_APP_ROLE_RESPONDER);
    struct weir_endpoint_options e[] = {{.id = 1, .address = p.address, .workers = 1, .keep = true}, {.id = 2, .address = q.address, .workers = 1}};
    refuse_in_turn(e, 2, false);
    peer_stop(&p);
    peer_stop(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_end_of_a_body), cmocka_unit_test(one_request_on_a_connection), cmocka_unit_test(flow_control), cmocka_unit_test(several_servers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

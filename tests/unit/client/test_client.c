/* SPDX-License-Identifier: MIT */
/* libweir's web-server side by its public functions, on its own loop, against apps of libweir on other threads (peer.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/on_loop.h"
#include "peer.h"
#include "weir/client.h"

#define ALL_ROLES  (WEIR_APP_ROLE_RESPONDER | WEIR_APP_ROLE_AUTHORIZER | WEIR_APP_ROLE_FILTER)
#define TURN_MS    20000 /* nothing takes so long: a turn that waits for so much has missed something */
#define NO_SUCH    "unix:/nonexistent/weir.sock"
#define COUNT(a)   (sizeof(a) / sizeof((a)[0]))

/* ---- one request, as its events tell it ---- */

struct ask {
    struct weir_client_req *req;
    struct weir_client_begin_options o;
    struct weir_pair params[2];
    struct weir_client_result result;
    int started, slow, ended;
    bool keeps_reading, slow_reader; /* slow_reader: takes nothing of what events bring */
    uint64_t given;                  /* of the body and the data */
    uint64_t all;                    /* of a body of unknown length */
    char out[256], err[64];
    uint64_t out_len, err_len;
    bool wrong; /* a byte is not pattern()'s */
};

struct site {
    struct weir_client_group *group;
    struct weir_client *client;
    struct weir_pool *pool;
    struct weir_loop *loop; /* of ours; NULL: the client has its own one */
};

static void path_of(struct ask *a, const char *path)
{
    memset(a, 0, sizeof *a);
    weir_client_begin_options_init(&a->o);
    a->params[0] = (struct weir_pair){{"REQUEST_METHOD", 14}, {"POST", 4}};
    a->params[1] = (struct weir_pair){{"PATH_INFO", 9}, {path, strlen(path)}};
    a->o.params = a->params;
    a->o.param_count = 2;
    a->o.user = a;
}

static int begin(struct site *s, struct ask *a)
{
    int how = weir_client_begin(s->client, s->pool, &a->o, &a->req);
    if (how == 1) a->started++;
    return how;
}

static void give(struct ask *a)
{
    char piece[7000];
    uint64_t all = a->o.body_len == WEIR_CLIENT_UNKNOWN ? a->all : a->o.body_len + a->o.data_len;
    while (a->given < all) {
        size_t len = all - a->given < sizeof piece ? (size_t)(all - a->given) : sizeof piece;
        for (size_t i = 0; i < len; i++) piece[i] = pattern(a->given + i);
        int64_t n = weir_client_write(a->req, piece, len);
        assert_true(n >= 0 && n <= (int64_t)len);
        a->given += (uint64_t)n;
        bool at_end_of_stdin = a->given == a->o.body_len;
        if ((size_t)n < len && !at_end_of_stdin) return; /* ROOM follows */
    }
    if (a->o.body_len == WEIR_CLIENT_UNKNOWN) assert_int_equal(weir_client_end_body(a->req), WEIR_OK);
}

static void keep(char *to, size_t room, uint64_t *len, const char *p, size_t n)
{
    for (size_t i = 0; i < n && *len + i + 1 < room; i++) to[*len + i] = p[i];
    *len += n;
}

static void got(struct ask *a, const char *p, size_t n)
{
    for (size_t i = 0; i < n && a->keeps_reading; i++) a->wrong |= p[i] != pattern(a->out_len + i);
    keep(a->out, sizeof a->out, &a->out_len, p, n);
}

static void on_event(const struct weir_client_event *ev)
{
    struct ask *a = ev->user;
    switch (ev->type) {
    case WEIR_CLIENT_STARTED:
        a->started++;
        a->given = 0;
        give(a);
        break;
    case WEIR_CLIENT_ROOM: give(a); break;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDERR) {
            keep(a->err, sizeof a->err, &a->err_len, ev->bytes.ptr, ev->bytes.len);
        } else if (!a->slow_reader && ev->bytes.len) {
            got(a, ev->bytes.ptr, ev->bytes.len);
            weir_client_consume(a->req, ev->bytes.len);
        }
        break;
    case WEIR_CLIENT_SLOW: a->slow++; break;
    case WEIR_CLIENT_END:
        a->ended++;
        weir_client_req_result(a->req, &a->result);
        weir_client_req_free(a->req);
        a->req = NULL;
        break;
    default: fail_msg("event %d", (int)ev->type);
    }
}

static void take_events(struct site *s)
{
    struct weir_client_event ev;
    while (weir_client_next(s->client, &ev) == WEIR_OK) on_event(&ev);
}

/* As the gateway does it: the client's events are taken behind each one of the loop. */
static void loop_turn(struct site *s, int wait_ms)
{
    struct weir_event ev[88];
    int64_t due = weir_client_next_us(s->client), wait = (int64_t)wait_ms * 1000;
    int n = weir_loop_wait(s->loop, ev, (int)COUNT(ev), due >= 0 && due < wait ? due : wait);
    weir_client_turn(s->client);
    for (int i = 0; i < n; i++) {
        if (ev[i].ready & WEIR_READY_WAKE) weir_client_woken(s->client);
        else weir_client_ready(s->client, &ev[i]);
        take_events(s);
    }
}

static void turn(struct site *s, int wait_ms)
{
    if (s->loop) loop_turn(s, wait_ms);
    else assert_int_equal(weir_client_step(s->client, wait_ms), WEIR_OK);
    take_events(s);
    weir_client_flush(s->client);
}

/* ---- a client, a pool, and its endpoints ---- */

static void site_start(struct site *s, const struct weir_pool_options *po, const struct weir_client_options *co)
{
    struct weir_client_options c;
    struct weir_pool_options p;
    weir_client_options_init(&c);
    weir_pool_options_init(&p);
    p.name = "test";
    s->loop = NULL;
    assert_int_equal(weir_client_group_new(&s->group, 1), WEIR_OK);
    assert_int_equal(weir_client_new(&s->client, s->group, co ? co : &c), WEIR_OK);
    assert_int_equal(weir_pool_new(&s->pool, s->group, po ? po : &p), WEIR_OK);
}

static void site_stop(struct site *s)
{
    weir_client_free(s->client);
    weir_pool_free(s->pool);
    weir_client_group_free(s->group);
}

static struct weir_endpoint_options endpoint(const char *address, uint32_t workers, uint32_t requests)
{
    return (struct weir_endpoint_options){.id = 1, .address = address, .workers = workers, .requests = requests, .keep = true, .flow = requests > 0};
}

static void serve_by(struct site *s, const char *address, uint32_t workers, uint32_t requests)
{
    struct weir_endpoint_options e = endpoint(address, workers, requests);
    assert_int_equal(weir_pool_set(s->pool, &e, 1), WEIR_OK);
}

static void until_ended(struct site *s, struct ask *a)
{
    while (!a->ended) turn(s, TURN_MS);
}

/* begin, body, to the end. */
static void run(struct site *s, struct ask *a)
{
    int how = begin(s, a);
    assert_in_range(how, 0, 1);
    if (how == 1) give(a);
    weir_client_flush(s->client);
    until_ended(s, a);
}

static void run_path(struct site *s, struct ask *a, const char *path)
{
    path_of(a, path);
    run(s, a);
}

static void until_running(struct site *s, struct peer *p, int count)
{
    for (int i = 0; i < 20000 && atomic_load(&p->running) != count; i++) turn(s, 1);
    assert_int_equal(atomic_load(&p->running), count);
}

static void until_counted(struct site *s, atomic_int *counter, int count)
{
    for (int i = 0; i < 20000 && atomic_load(counter) != count; i++) turn(s, 1);
    assert_int_equal(atomic_load(counter), count);
}

static struct weir_pool_stats stats_of(struct site *s, struct weir_endpoint_stats *ep)
{
    struct weir_pool_stats all;
    struct weir_endpoint_stats eps[8];
    memset(eps, 0, sizeof eps);
    weir_pool_get_stats(s->pool, &all, eps, COUNT(eps));
    if (ep) *ep = eps[0];
    return all;
}

/* ---- requests ---- */

static void a_plain_request(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    struct weir_endpoint_stats ep;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 100);
    run_path(&s, &a, "/hello");
    assert_int_equal(a.ended, 1);
    assert_int_equal(a.started, 1);
    assert_non_null(strstr(a.out, "\r\n\r\nhello"));
    assert_int_equal(a.result.status, WEIR_OK);
    assert_int_equal(a.result.stage, WEIR_STAGE_DONE);
    assert_int_equal(a.result.app_status, 7);
    assert_int_equal(a.result.tries, 1);
    assert_int_equal(a.result.received, a.out_len);
    assert_false(a.result.not_run);
    assert_int_equal(stats_of(&s, &ep).started, 1);
    assert_int_equal(ep.done, 1);
    assert_true(ep.flow);
    run_path(&s, &a, "/logs");
    assert_non_null(strstr(a.out, "\r\n\r\ndone"));
    assert_string_equal(a.err, "oops");
    site_stop(&s);
    peer_stop(&p);
}

static void many_at_once_share_one_connection(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a[100];
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 200);
    for (size_t i = 0; i < COUNT(a); i++) {
        path_of(&a[i], "/hold");
        assert_in_range(begin(&s, &a[i]), 0, 1);
    }
    until_running(&s, &p, COUNT(a));
    assert_int_equal(atomic_load(&p.accepted), 1);
    for (size_t i = 0; i < COUNT(a); i++) weir_client_req_free(a[i].req);
    until_counted(&s, &p.aborts, COUNT(a));
    run_path(&s, &a[0], "/hello");
    assert_int_equal(a[0].result.status, WEIR_OK);
    assert_int_equal(atomic_load(&p.accepted), 1);
    site_stop(&s);
    peer_stop(&p);
}

static void without_flow_control_each_runs_on_a_connection_of_its_own(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a[9];
    struct weir_endpoint_stats ep;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 3, 0);
    for (size_t i = 0; i < COUNT(a); i++) {
        path_of(&a[i], "/late");
        assert_in_range(begin(&s, &a[i]), 0, 1);
    }
    for (size_t i = 0; i < COUNT(a); i++) until_ended(&s, &a[i]);
    for (size_t i = 0; i < COUNT(a); i++) assert_int_equal(a[i].result.status, WEIR_OK);
    assert_int_equal(atomic_load(&p.most), 3);
    assert_int_equal(atomic_load(&p.accepted), 3);
    (void)stats_of(&s, &ep);
    assert_int_equal(ep.conns, 3);
    assert_int_equal(ep.limit, 3);
    assert_false(ep.flow);
    site_stop(&s);
    peer_stop(&p);
}

static void ask_count(struct site *s, uint64_t len, bool known)
{
    struct ask a;
    char expected[64];
    uint64_t sum = 0;
    path_of(&a, "/count");
    a.o.body_len = known ? len : WEIR_CLIENT_UNKNOWN;
    a.all = len;
    run(s, &a);
    for (uint64_t i = 0; i < len; i++) sum = sum_of(sum, (char[]){pattern(i)}, 1);
    snprintf(expected, sizeof expected, "%llu %llu", (unsigned long long)len, (unsigned long long)sum);
    assert_int_equal(a.result.status, WEIR_OK);
    assert_string_equal(strstr(a.out, "\r\n\r\n") + 4, expected);
}

static void bodies_of_known_and_of_unknown_length(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 6999, 7000, 65536, 65537, 3000000};
    for (uint32_t requests = 0; requests <= 100; requests += 100) { /* plain, and with flow control */
        struct peer p;
        struct site s;
        peer_start(&p, 0, ALL_ROLES);
        site_start(&s, NULL, NULL);
        serve_by(&s, p.address, 1, requests);
        for (size_t i = 0; i < COUNT(sizes); i++)
            for (int known = 0; known < 2; known++) ask_count(&s, sizes[i], known);
        site_stop(&s);
        peer_stop(&p);
    }
}

static void the_end_of_a_body_is_told_only_where_it_is_not_known(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 0);
    run_path(&s, &a, "/hello"); /* the next one starts at once */
    path_of(&a, "/count");
    a.o.body_len = 5;
    assert_int_equal(begin(&s, &a), 1);
    assert_int_equal(weir_client_end_body(a.req), WEIR_INVALID);
    assert_int_equal(weir_client_write(a.req, "123456", 6), WEIR_INVALID);
    assert_int_equal(weir_client_write(a.req, "12345", 5), 5);
    weir_client_flush(s.client);
    until_ended(&s, &a);
    assert_string_equal(strstr(a.out, "\r\n\r\n5 ") ? "5" : a.out, "5");
    path_of(&a, "/count");
    a.o.body_len = WEIR_CLIENT_UNKNOWN;
    a.o.data_len = 1;
    assert_int_equal(begin(&s, &a), WEIR_INVALID);
    site_stop(&s);
    peer_stop(&p);
}

static void a_filter_gets_body_and_data(void **state)
{
    (void)state;
    static const uint64_t sizes[][2] = {{0, 0}, {0, 300000}, {10, 0}, {10, 20}, {200000, 300000}, {65536, 65536}};
    struct peer p;
    struct site s;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 100);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct ask a;
        unsigned long long n[2], sum[2];
        uint64_t expected[2] = {0, 0};
        path_of(&a, "/filter");
        a.o.role = WEIR_FILTER;
        a.o.body_len = sizes[i][0];
        a.o.data_len = sizes[i][1];
        run(&s, &a);
        assert_int_equal(a.result.status, WEIR_OK);
        assert_int_equal(sscanf(strstr(a.out, "\r\n\r\n") + 4, "%llu %llu %llu %llu", &n[0], &sum[0], &n[1], &sum[1]), 4);
        for (uint64_t k = 0; k < sizes[i][0] + sizes[i][1]; k++)
            expected[k >= sizes[i][0]] = sum_of(expected[k >= sizes[i][0]], (char[]){pattern(k)}, 1);
        for (size_t k = 0; k < 2; k++) {
            assert_int_equal(n[k], sizes[i][k]);
            assert_int_equal(sum[k], expected[k]);
        }
    }
    site_stop(&s);
    peer_stop(&p);
}

static void an_authorizer_answers_with_variables(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/hello");
    a.o.role = WEIR_AUTHORIZER;
    run(&s, &a);
    assert_int_equal(a.result.status, WEIR_OK);
    assert_non_null(strstr(a.out, "Variable-USER: alice\r\n"));
    site_stop(&s);
    peer_stop(&p);
}

static void a_role_that_the_app_does_not_speak_is_refused(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, WEIR_APP_ROLE_RESPONDER);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/hello");
    a.o.role = WEIR_FILTER;
    run(&s, &a);
    assert_int_equal(a.result.status, WEIR_REFUSED);
    assert_int_equal(a.result.protocol_status, 3);
    assert_true(a.result.not_run);
    assert_int_equal(atomic_load(&p.requests), 0);
    site_stop(&s);
    peer_stop(&p);
}

/* ---- giving up, and time ---- */

static void a_request_that_is_given_up_is_aborted(void **state)
{
    (void)state;
    for (uint32_t requests = 0; requests <= 100; requests += 100) {
        struct peer p;
        struct site s;
        struct ask a, b;
        peer_start(&p, 0, ALL_ROLES);
        site_start(&s, NULL, NULL);
        serve_by(&s, p.address, 1, requests);
        path_of(&a, "/hold");
        assert_in_range(begin(&s, &a), 0, 1);
        until_running(&s, &p, 1);
        weir_client_req_free(a.req);
        until_counted(&s, &p.aborts, 1);
        assert_int_equal(a.ended, 0);
        run_path(&s, &b, "/hello");
        assert_int_equal(b.result.status, WEIR_OK);
        assert_int_equal(atomic_load(&p.accepted), requests ? 1 : 2); /* a plain one is aborted by the close */
        site_stop(&s);
        peer_stop(&p);
    }
}

static void silence_and_the_whole_time_have_limits(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/hold");
    a.o.silent_ms = 60;
    run(&s, &a);
    assert_int_equal(a.result.status, WEIR_TIMEOUT);
    assert_int_equal(a.result.stage, WEIR_STAGE_RUN);
    assert_int_equal(a.result.endpoint_id, 1);
    assert_in_range(a.result.total_us, 59000, 19000000);
    assert_non_null(strstr(a.result.reason, "silent"));
    path_of(&a, "/drip"); /* never silent for so long */
    a.o.silent_ms = 10000;
    a.o.request_ms = 150;
    a.o.slow_ms = 50;
    run(&s, &a);
    assert_int_equal(a.result.status, WEIR_TIMEOUT);
    assert_non_null(strstr(a.result.reason, "longer"));
    assert_int_equal(a.slow, 1);
    assert_true(a.out_len > 0);
    until_counted(&s, &p.aborts, 2);
    site_stop(&s);
    peer_stop(&p);
}

static void a_body_that_does_not_come_is_not_the_apps_silence(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 0);
    run_path(&s, &a, "/hello");
    path_of(&a, "/count");
    a.o.body_len = 2;
    a.o.silent_ms = 30;
    assert_int_equal(begin(&s, &a), 1);
    weir_client_flush(s.client);
    for (int i = 0; i < 10; i++) turn(&s, 20);
    assert_int_equal(a.ended, 0);
    give(&a);
    weir_client_flush(s.client);
    until_ended(&s, &a);
    assert_int_equal(a.result.status, WEIR_OK);
    site_stop(&s);
    peer_stop(&p);
}

/* ---- queue, endpoints, refusals ---- */

static void a_queue_has_places_and_time(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a, b, c, d;
    struct weir_pool_options o;
    weir_pool_options_init(&o);
    o.name = "small";
    o.queue_count = 1;
    o.queue_ms = 20000;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, &o, NULL);
    assert_string_equal(weir_pool_name(s.pool), "small");
    serve_by(&s, p.address, 1, 1);
    path_of(&a, "/hold");
    assert_in_range(begin(&s, &a), 0, 1);
    until_running(&s, &p, 1);
    path_of(&b, "/hello");
    b.o.queue_ms = 80;
    assert_int_equal(begin(&s, &b), 0);
    path_of(&c, "/hello");
    assert_int_equal(begin(&s, &c), WEIR_LIMIT);
    assert_int_equal(stats_of(&s, NULL).queued, 1);
    until_ended(&s, &b);
    assert_int_equal(b.result.status, WEIR_TIMEOUT);
    assert_int_equal(b.result.stage, WEIR_STAGE_QUEUE);
    assert_int_equal(b.result.tries, 0);
    assert_true(b.result.not_run);
    assert_int_equal(b.started, 0);
    assert_int_equal(stats_of(&s, NULL).refused, 1);
    assert_int_equal(stats_of(&s, NULL).timed_out, 1);
    weir_pool_set_queue(s.pool, 2, 20000);
    path_of(&c, "/hello");
    path_of(&d, "/hello");
    assert_int_equal(begin(&s, &c), 0);
    assert_int_equal(begin(&s, &d), 0);
    weir_client_req_free(a.req); /* its slot goes to who waits */
    until_ended(&s, &c);
    until_ended(&s, &d);
    assert_int_equal(c.result.status, WEIR_OK);
    assert_int_equal(d.result.status, WEIR_OK);
    site_stop(&s);
    peer_stop(&p);
}

static void an_endpoint_that_does_not_exist(void **state)
{
    (void)state;
    for (uint32_t requests = 0; requests <= 100; requests += 100) {
        struct site s;
        struct ask a;
        site_start(&s, NULL, NULL);
        serve_by(&s, NO_SUCH, 1, requests);
        path_of(&a, "/hello");
        a.o.queue_ms = 300; /* with flow control it is asked again until then */
        run(&s, &a);
        assert_true(a.result.status == WEIR_SYSTEM || a.result.status == WEIR_TIMEOUT);
        assert_int_not_equal(a.result.stage, WEIR_STAGE_RUN);
        assert_true(a.result.not_run);
        assert_int_equal(a.result.tries, 0);
        site_stop(&s);
    }
}

static void addresses_that_cannot_be_are_told(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "unix:", "fastcgi://127.0.0.1", "fastcgi://127.0.0.1:70000", "fastcgi://host:1"};
    struct peer p;
    struct site s;
    struct ask a;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct weir_endpoint_options e[2] = {endpoint(wrong[i], 1, 1), endpoint(p.address, 1, 1)};
        e[0].id = 2;
        assert_int_equal(weir_pool_set(s.pool, e, 2), WEIR_INVALID);
    }
    run_path(&s, &a, "/hello"); /* the other one is set */
    assert_int_equal(a.result.status, WEIR_OK);
    site_stop(&s);
    peer_stop(&p);
}

static void a_pool_refuses_as_long_as_it_is_told_to(void **state)
{
    (void)state;
    static const char why[] = "it is being repaired";
    struct peer p;
    struct site s;
    struct ask a, b, c;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 1);
    path_of(&a, "/hold");
    assert_in_range(begin(&s, &a), 0, 1);
    until_running(&s, &p, 1);
    path_of(&b, "/hello");
    assert_int_equal(begin(&s, &b), 0);
    assert_null(weir_pool_refusal(s.pool));
    weir_pool_refuse(s.pool, why);
    assert_ptr_equal(weir_pool_refusal(s.pool), why);
    until_ended(&s, &b);
    assert_int_equal(b.result.status, WEIR_REFUSED);
    assert_ptr_equal(b.result.reason, why);
    assert_true(b.result.not_run);
    path_of(&c, "/hello");
    assert_int_equal(begin(&s, &c), WEIR_REFUSED);
    assert_int_equal(a.ended, 0); /* what runs goes on */
    weir_pool_refuse(s.pool, NULL);
    weir_client_req_free(a.req);
    run_path(&s, &c, "/hello");
    assert_int_equal(c.result.status, WEIR_OK);
    weir_pool_mark(s.pool, 1, true); /* the only one */
    path_of(&c, "/hello");
    assert_int_equal(begin(&s, &c), WEIR_REFUSED);
    weir_pool_mark(s.pool, 1, false);
    run_path(&s, &c, "/hello");
    assert_int_equal(c.result.status, WEIR_OK);
    site_stop(&s);
    peer_stop(&p);
}

static void what_one_app_refuses_another_may_take(void **state)
{
    (void)state;
    struct peer refuses, takes;
    struct site s;
    int retried = 0;
    peer_start(&refuses, 0, WEIR_APP_ROLE_FILTER); /* a responder's request it refuses */
    peer_start(&takes, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    struct weir_endpoint_options e[2] = {endpoint(refuses.address, 1, 10), endpoint(takes.address, 1, 10)};
    e[1].id = 2;
    assert_int_equal(weir_pool_set(s.pool, e, 2), WEIR_OK);
    for (int i = 0; i < 10; i++) {
        struct ask a;
        run_path(&s, &a, "/hello");
        assert_int_equal(a.result.status, WEIR_OK);
        assert_in_range(a.result.tries, 1, 2);
        assert_int_equal(a.started, a.result.tries);
        assert_false(a.result.not_run);
        retried += a.result.tries == 2;
    }
    assert_true(retried > 0);
    assert_int_equal(atomic_load(&takes.requests), 10);
    site_stop(&s);
    peer_stop(&refuses);
    peer_stop(&takes);
}

/* An application that reads the request and closes. */
struct breaker {
    int fd;
    struct sockaddr_un at;
    atomic_int asked;
    pthread_t thread;
};

static void *break_all(void *arg)
{
    struct breaker *b = arg;
    char piece[4096];
    for (;;) {
        int fd = accept(b->fd, NULL, NULL);
        if (fd < 0) return NULL;
        if (read(fd, piece, sizeof piece) > 0) atomic_fetch_add(&b->asked, 1);
        close(fd);
    }
}

static void only_what_may_run_twice_is_repeated(void **state)
{
    (void)state;
    struct breaker b = {.at = {.sun_family = AF_UNIX}};
    struct site s;
    char address[sizeof b.at.sun_path + 8];
    snprintf(b.at.sun_path, sizeof b.at.sun_path, "/tmp/weir-test-client-%d", (int)getpid());
    snprintf(address, sizeof address, "unix:%s", b.at.sun_path);
    b.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(b.fd, (struct sockaddr *)&b.at, sizeof b.at), 0);
    assert_int_equal(listen(b.fd, 10), 0);
    assert_int_equal(pthread_create(&b.thread, NULL, break_all, &b), 0);
    site_start(&s, NULL, NULL);
    serve_by(&s, address, 1, 0);
    for (int repeatable = 0; repeatable < 2; repeatable++) {
        struct ask a;
        path_of(&a, "/hello");
        a.o.repeatable = repeatable;
        run(&s, &a);
        assert_int_equal(a.result.status, WEIR_CLOSED);
        assert_int_equal(a.result.stage, WEIR_STAGE_RUN);
        assert_int_equal(a.result.tries, repeatable ? 3 : 1);
        assert_int_equal(atomic_load(&b.asked), repeatable ? 4 : 1);
        assert_false(a.result.not_run);
    }
    site_stop(&s);
    shutdown(b.fd, SHUT_RDWR);
    pthread_join(b.thread, NULL);
    close(b.fd);
    unlink(b.at.sun_path);
}

/* Connections rest and end, in all pools at once, and few are opened in one go: those of the first pools not for ever before the others. */
static void every_pool_has_its_connections_ahead(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct weir_pool *pools[40];
    bool seen[COUNT(pools)] = {0};
    size_t all = 0;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    for (size_t i = 0; i < COUNT(pools); i++) {
        struct weir_pool_options o;
        struct weir_endpoint_options e = endpoint(p.address, 1, 0);
        weir_pool_options_init(&o);
        o.name = "ahead";
        o.owned = true;
        e.ahead = 1;
        assert_int_equal(weir_pool_new(&pools[i], s.group, &o), WEIR_OK);
        weir_pool_set_idle(pools[i], 1);
        assert_int_equal(weir_pool_set(pools[i], &e, 1), WEIR_OK);
    }
    for (int t = 0; t < 20000 && all < COUNT(pools); t++) {
        weir_client_tend(s.client);
        turn(&s, 1);
        for (size_t i = 0; i < COUNT(pools); i++) {
            struct weir_pool_stats stats;
            struct weir_endpoint_stats ep = {0};
            weir_pool_get_stats(pools[i], &stats, &ep, 1);
            all += ep.conns && !seen[i];
            seen[i] |= ep.conns > 0;
        }
    }
    assert_int_equal(all, COUNT(pools));
    weir_client_free(s.client);
    for (size_t i = 0; i < COUNT(pools); i++) weir_pool_free(pools[i]);
    weir_pool_free(s.pool);
    weir_client_group_free(s.group);
    peer_stop(&p);
}

/* Without a descriptor for one more connection, whoever waits has the next one that is free, and the server is not to blame. */
static void without_descriptors_the_connections_that_are_there_serve(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a, b;
    struct rlimit before, none;
    struct weir_endpoint_stats ep;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 2, 0);
    run_path(&s, &a, "/hello");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0);
    close(next);
    none = (struct rlimit){(rlim_t)next, before.rlim_max};
    path_of(&a, "/late");
    path_of(&b, "/hello");
    assert_int_equal(begin(&s, &a), 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(begin(&s, &b), 0);
    until_ended(&s, &a);
    until_ended(&s, &b);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(a.result.status, WEIR_OK);
    assert_int_equal(b.result.status, WEIR_OK);
    assert_int_equal(stats_of(&s, &ep).queued, 0);
    assert_int_equal(ep.state, WEIR_ENDPOINT_UP);
    assert_int_equal(ep.failed, 0);
    site_stop(&s);
    peer_stop(&p);
}

/* ---- output that nobody takes yet ---- */

static void take_held(struct site *s, struct ask *a, size_t most)
{
    const char *p;
    size_t len;
    while (!a->ended) {
        turn(s, 1);
        if (a->ended || weir_client_peek(a->req, &p, &len) < 0) continue;
        assert_true(len > 0);
        if (len > most) len = most;
        got(a, p, len);
        weir_client_consume(a->req, len);
    }
}

static void a_slow_reader_takes_what_is_held(void **state)
{
    (void)state;
    for (uint32_t threads = 0; threads <= 2; threads += 2) { /* handlers that wait are relieved: by files */
        struct peer p;
        struct site s;
        struct ask a, b;
        struct weir_client_options o;
        weir_client_options_init(&o);
        o.hold_memory = 32768;
        peer_start(&p, threads, ALL_ROLES);
        site_start(&s, NULL, &o);
        serve_by(&s, p.address, 1, 100);
        path_of(&a, "/big/2000000");
        a.slow_reader = true;
        assert_in_range(begin(&s, &a), 0, 1);
        run_path(&s, &b, "/hello"); /* nobody waits for the slow one */
        assert_int_equal(b.result.status, WEIR_OK);
        assert_int_equal(a.ended, 0);
        until_running(&s, &p, threads ? 0 : 1);
        take_held(&s, &a, 9999);
        assert_int_equal(a.result.status, WEIR_OK);
        assert_int_equal(a.out_len, a.result.received);
        assert_true(a.out_len > 2000000 && a.out_len < 2000200); /* with the header */
        site_stop(&s);
        peer_stop(&p);
    }
}

static void what_is_held_is_in_order(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    struct weir_client_options o;
    const char *at, *end;
    size_t len, head = 0;
    weir_client_options_init(&o);
    o.hold_memory = 16384;
    peer_start(&p, 2, ALL_ROLES);
    site_start(&s, NULL, &o);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/big/500000");
    a.slow_reader = true;
    assert_in_range(begin(&s, &a), 0, 1);
    while (!head) {
        turn(&s, 1);
        if (weir_client_peek(a.req, &at, &len) < 0 || !(end = memmem(at, len, "\r\n\r\n", 4))) continue;
        head = (size_t)(end - at) + 4;
        weir_client_consume(a.req, head);
    }
    a.keeps_reading = true; /* and looks at each byte */
    take_held(&s, &a, 7777);
    assert_false(a.wrong);
    assert_int_equal(a.out_len, 500000);
    site_stop(&s);
    peer_stop(&p);
}

static void more_than_may_be_held_is_cut(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    struct weir_client_options o;
    weir_client_options_init(&o);
    o.hold_memory = 16384;
    o.hold_max = 300000;
    peer_start(&p, 2, ALL_ROLES);
    site_start(&s, NULL, &o);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/big/2000000");
    a.slow_reader = true;
    assert_in_range(begin(&s, &a), 0, 1);
    until_counted(&s, &p.requests, 1);
    until_running(&s, &p, 0); /* it was told */
    take_held(&s, &a, 100000);
    assert_int_equal(a.result.status, WEIR_LIMIT);
    site_stop(&s);
    peer_stop(&p);
}

static void a_text_by_printf_may_be_larger_than_the_window(void **state)
{
    (void)state;
    static const char *const paths[] = {"/print/100", "/print/5000", "/print/65536", "/complain/65536"};
    for (uint32_t threads = 0; threads <= 2; threads += 2) {
        struct peer p;
        struct site s;
        struct weir_client_options o;
        weir_client_options_init(&o);
        o.window_memory = 1; /* 4 KiB for each */
        peer_start(&p, threads, ALL_ROLES);
        site_start(&s, NULL, &o);
        serve_by(&s, p.address, 1, 100);
        for (size_t i = 0; i < COUNT(paths); i++) {
            struct ask a;
            path_of(&a, paths[i]);
            a.o.silent_ms = 3000;
            run(&s, &a);
            assert_int_equal(a.result.status, WEIR_OK);
            assert_int_equal(a.result.app_status, 0);
            uint64_t size = strtoul(strchr(paths[i] + 1, '/') + 1, NULL, 10);
            if (i < 3) assert_in_range(a.out_len, size + 20, size + 80); /* the header */
            else assert_int_equal(a.err_len, size);
        }
        site_stop(&s);
        peer_stop(&p);
    }
}

static void what_printf_keeps_goes_by_itself_and_in_order(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a;
    struct weir_client_options o;
    const char *at;
    char all[30000];
    size_t len, got_len = 0;
    weir_client_options_init(&o);
    o.window_memory = 1;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, &o);
    serve_by(&s, p.address, 1, 100);
    path_of(&a, "/kept");
    a.slow_reader = true;
    assert_in_range(begin(&s, &a), 0, 1);
    while (!a.ended) {
        turn(&s, 1);
        if (a.ended || weir_client_peek(a.req, &at, &len) < 0) continue;
        assert_true(got_len + len < sizeof all);
        memcpy(all + got_len, at, len);
        got_len += len;
        weir_client_consume(a.req, len);
    }
    all[got_len] = 0;
    assert_int_equal(a.result.status, WEIR_OK);
    assert_int_equal(a.result.app_status, 0); /* no ROOM came that the program had not waited for */
    at = strstr(all, "\r\n\r\n") + 4;
    assert_int_equal(strlen(at), 20003);
    assert_int_equal(strspn(at, " "), 19999);
    assert_string_equal(at + 19999, "1end");
    site_stop(&s);
    peer_stop(&p);
}

/* ---- loops and threads ---- */

static void *wakes(void *arg)
{
    struct site *s = arg;
    usleep(20000);
    weir_client_wake(s->client);
    return NULL;
}

static void another_thread_wakes_it(void **state)
{
    (void)state;
    struct site s;
    pthread_t t;
    struct weir_client_event ev;
    site_start(&s, NULL, NULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pthread_create(&t, NULL, wakes, &s), 0);
        assert_int_equal(weir_client_step(s.client, -1), WEIR_OK);
        assert_int_equal(weir_client_next(s.client, &ev), WEIR_AGAIN);
        weir_client_flush(s.client);
        pthread_join(t, NULL);
    }
    assert_int_equal(pthread_create(&t, NULL, wakes, &s), 0);
    struct pollfd f = {.fd = weir_client_fd(s.client), .events = POLLIN};
    assert_int_equal(poll(&f, 1, TURN_MS), 1);
    pthread_join(t, NULL);
    site_stop(&s);
}

static void foreign_loop(struct site *s, struct ask *a, size_t count)
{
    size_t ended = 0;
    while (ended < count) {
        int wait = weir_client_wait_ms(s->client);
        assert_true(wait >= -1);
        struct pollfd f = {.fd = weir_client_fd(s->client), .events = POLLIN};
        int n = poll(&f, 1, wait < 0 || wait > TURN_MS ? TURN_MS : wait);
        assert_true(n > 0 || (wait >= 0 && wait < TURN_MS)); /* else there was nothing to wait for */
        turn(s, 0);
        ended = 0;
        for (size_t i = 0; i < count; i++) ended += (size_t)a[i].ended;
    }
}

static void it_lives_in_a_foreign_loop(void **state)
{
    (void)state;
    for (uint32_t requests = 0; requests <= 100; requests += 100) {
        struct peer p;
        struct site s;
        struct ask a[5];
        peer_start(&p, 0, ALL_ROLES);
        site_start(&s, NULL, NULL);
        serve_by(&s, p.address, 4, requests);
        path_of(&a[0], "/late");
        path_of(&a[1], "/count");
        path_of(&a[2], "/big/3000000");
        path_of(&a[3], "/hold");
        path_of(&a[4], "/hello");
        a[1].o.body_len = 2000000;
        a[3].o.silent_ms = 100;
        for (size_t i = 0; i < COUNT(a); i++) {
            int how = begin(&s, &a[i]);
            assert_in_range(how, 0, 1);
            if (how == 1) give(&a[i]);
        }
        weir_client_flush(s.client);
        foreign_loop(&s, a, COUNT(a));
        for (size_t i = 0; i < COUNT(a); i++) assert_int_equal(a[i].result.status, i == 3 ? WEIR_TIMEOUT : WEIR_OK);
        site_stop(&s);
        peer_stop(&p);
    }
}

#define THREADS 4
#define EACH    150

struct worker {
    struct site site;
    unsigned index;
    pthread_t thread;
    int fine;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct weir_client_options o;
    struct ask a[8];
    int begun = 0, ended = 0;
    weir_client_options_init(&o);
    o.index = w->index;
    if (weir_client_new(&w->site.client, w->site.group, &o) < 0) return NULL;
    for (size_t i = 0; i < COUNT(a); i++) a[i].req = NULL;
    while (ended < EACH) {
        for (size_t i = 0; i < COUNT(a) && begun < EACH; i++) {
            if (a[i].req) continue;
            path_of(&a[i], begun % 10 == 9 ? "/count" : "/hello");
            if (begun++ % 10 == 9) a[i].o.body_len = 100000;
            int how = begin(&w->site, &a[i]);
            if (how < 0) return NULL;
            if (how == 1) give(&a[i]);
        }
        weir_client_flush(w->site.client);
        turn(&w->site, TURN_MS);
        for (size_t i = 0; i < COUNT(a); i++) {
            if (!a[i].ended) continue;
            a[i].ended = 0;
            ended++;
            w->fine += a[i].result.status == WEIR_OK;
        }
    }
    weir_client_free(w->site.client); /* others go on */
    return NULL;
}

static void threads_of_a_group_share_a_pool(void **state)
{
    (void)state;
    for (uint32_t requests = 0; requests <= 100; requests += 100) {
        struct peer p;
        struct worker w[THREADS];
        struct weir_client_group *g;
        struct weir_pool *pool;
        struct weir_pool_options o;
        struct weir_endpoint_options e;
        peer_start(&p, 0, ALL_ROLES);
        weir_pool_options_init(&o);
        o.name = "shared";
        assert_int_equal(weir_client_group_new(&g, THREADS), WEIR_OK);
        assert_int_equal(weir_pool_new(&pool, g, &o), WEIR_OK);
        e = endpoint(p.address, 3, requests);
        assert_int_equal(weir_pool_set(pool, &e, 1), WEIR_OK);
        for (unsigned i = 0; i < THREADS; i++) {
            w[i] = (struct worker){.site = {.group = g, .pool = pool}, .index = i};
            assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
        }
        for (int i = 0; i < 50; i++) { /* meanwhile, from another thread */
            assert_int_equal(weir_pool_set(pool, &e, 1), WEIR_OK);
            weir_pool_mark(pool, 2, i % 2);
        }
        for (unsigned i = 0; i < THREADS; i++) pthread_join(w[i].thread, NULL);
        for (unsigned i = 0; i < THREADS; i++) assert_int_equal(w[i].fine, EACH);
        assert_int_equal(atomic_load(&p.requests), THREADS * EACH);
        if (!requests) assert_in_range(atomic_load(&p.most), 1, 3);
        weir_pool_free(pool);
        weir_client_group_free(g);
        peer_stop(&p);
    }
}

/* STDOUT and END_REQUEST of request 1, as a raw application writes them. */
static const uint8_t answer[] = "\1\6\0\1\0\16\0\0Status: 200\r\n\r" "\1\6\0\1\0\1\0\0\n" "\1\3\0\1\0\10\0\0\0\0\0\0\0\0\0";

/* An application that answers one request on a connection, keeps it, and closes it when it is told to. */
struct keeper {
    int fd;
    struct sockaddr_un at;
    char address[128];
    atomic_int answered, close_order, closed;
    pthread_t thread;
};

static void *keep_and_close(void *arg)
{
    struct keeper *k = arg;
    char piece[4096];
    for (;;) {
        int fd = accept(k->fd, NULL, NULL);
        if (fd < 0) return NULL;
        if (read(fd, piece, sizeof piece) > 0 && write(fd, answer, sizeof answer) == sizeof answer) atomic_fetch_add(&k->answered, 1);
        while (atomic_load(&k->close_order) == atomic_load(&k->closed)) usleep(1000);
        close(fd);
        atomic_fetch_add(&k->closed, 1);
    }
}

static void keeper_start(struct keeper *k)
{
    *k = (struct keeper){.at = {.sun_family = AF_UNIX}};
    snprintf(k->at.sun_path, sizeof k->at.sun_path, "/tmp/weir-test-keeper-%d", (int)getpid());
    snprintf(k->address, sizeof k->address, "unix:%s", k->at.sun_path);
    k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(k->fd, (struct sockaddr *)&k->at, sizeof k->at), 0);
    assert_int_equal(listen(k->fd, 10), 0);
    assert_int_equal(pthread_create(&k->thread, NULL, keep_and_close, k), 0);
}

/* One thread gives a request of another one a connection that this other one has; it closes before it knows of it. */
static void a_connection_that_closes_while_its_request_is_on_the_way(void **state)
{
    (void)state;
    struct keeper keeper;
    struct peer p;
    struct site one = {0}, two = {0};
    struct ask first, busy, waiting;
    struct weir_client_options co;
    struct weir_pool_options po;
    weir_client_options_init(&co);
    weir_pool_options_init(&po);
    po.name = "test";
    po.owned = true;
    keeper_start(&keeper);
    peer_start(&p, 0, ALL_ROLES);
    assert_int_equal(weir_client_group_new(&one.group, 2), WEIR_OK);
    assert_int_equal(weir_client_new(&one.client, one.group, &co), WEIR_OK);
    co.index = 1;
    assert_int_equal(weir_loop_epoll_new(&two.loop), WEIR_OK);
    struct weir_spill_quota quota = {.dir = "/tmp", .max = 1 << 20};
    struct weir_client_place place = {.loop = two.loop, .kind = 1, .quota = &quota};
    assert_int_equal(weir_client_new_on(&two.client, one.group, &co, &place), WEIR_OK);
    assert_int_equal(weir_pool_new(&one.pool, one.group, &po), WEIR_OK);
    two.group = one.group;
    two.pool = one.pool;
    struct weir_endpoint_options e[] = {endpoint(keeper.address, 1, 0), endpoint(p.address, 1, 0)};
    e[1].id = 2;
    assert_int_equal(weir_pool_set(one.pool, e, 2), WEIR_OK);
    weir_pool_mark(one.pool, 2, true);
    run_path(&two, &first, "/hello");
    assert_int_equal(first.result.status, WEIR_OK);
    weir_pool_mark(one.pool, 2, false);
    weir_pool_mark(one.pool, 1, true);
    path_of(&busy, "/hold");
    assert_in_range(begin(&two, &busy), 0, 1);
    until_running(&two, &p, 1);
    path_of(&waiting, "/hello");
    assert_int_equal(begin(&two, &waiting), 0);
    weir_pool_mark(one.pool, 1, false);
    turn(&one, 0); /* gives it the connection of the first one */
    assert_int_equal(stats_of(&one, NULL).queued, 0);
    atomic_fetch_add(&keeper.close_order, 1);
    while (!atomic_load(&keeper.closed)) usleep(1000);
    until_ended(&two, &waiting);
    assert_int_equal(waiting.result.status, WEIR_OK); /* none of its bytes had been sent: on another connection */
    for (int i = 0; i < 20000 && atomic_load(&keeper.answered) < 2; i++) usleep(1000); /* counted behind its answer */
    assert_int_equal(atomic_load(&keeper.answered), 2);
    weir_client_req_free(busy.req);
    weir_client_free(two.client);
    weir_loop_free(two.loop);
    site_stop(&one);
    atomic_fetch_add(&keeper.close_order, 1);
    shutdown(keeper.fd, SHUT_RDWR);
    pthread_join(keeper.thread, NULL);
    close(keeper.fd);
    unlink(keeper.at.sun_path);
    peer_stop(&p);
}

/* Two clients of a group, each a thread's, on the same pool. */
static void two_start(struct site *one, struct site *two, const struct weir_endpoint_options *e)
{
    struct weir_client_options co;
    struct weir_pool_options po;
    weir_client_options_init(&co);
    weir_pool_options_init(&po);
    po.name = "test";
    *one = *two = (struct site){0};
    assert_int_equal(weir_client_group_new(&one->group, 2), WEIR_OK);
    assert_int_equal(weir_client_new(&one->client, one->group, &co), WEIR_OK);
    co.index = 1;
    assert_int_equal(weir_client_new(&two->client, one->group, &co), WEIR_OK);
    assert_int_equal(weir_pool_new(&one->pool, one->group, &po), WEIR_OK);
    two->group = one->group;
    two->pool = one->pool;
    assert_int_equal(weir_pool_set(one->pool, e, 1), WEIR_OK);
}

static int listen_on(int family, char address[static 128])
{
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(u.sun_path, sizeof u.sun_path, "/tmp/weir-test-raw-%d", (int)getpid());
    assert_int_equal(family == AF_UNIX ? bind(fd, (struct sockaddr *)&u, sizeof u) : bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 10), 0);
    if (family == AF_UNIX) {
        snprintf(address, 128, "unix:%s", u.sun_path);
    } else {
        getsockname(fd, (struct sockaddr *)&in, &len);
        snprintf(address, 128, "fastcgi://127.0.0.1:%u", ntohs(in.sin_port));
    }
    return fd;
}

static int accepted(struct site *s, int listener)
{
    int fd = -1;
    for (int i = 0; i < 20000 && fd < 0; i++) {
        turn(s, 1);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    assert_true(fd >= 0);
    return fd;
}

/* It is not read on while it is said to be idle, nor given to another thread. */
static void an_app_that_speaks_before_it_is_asked_is_left_alone(void **state)
{
    (void)state;
    static uint8_t record[65536] = {1, 6, 0, 1, 0xff, 0xf8};
    char address[128];
    struct site one, two;
    struct ask a, b;
    struct weir_endpoint_stats ep;
    int listener = listen_on(AF_UNIX, address), room = 1 << 20;
    struct weir_endpoint_options e = endpoint(address, 1, 0);
    two_start(&one, &two, &e);
    path_of(&a, "/a");
    path_of(&b, "/b");
    b.o.queue_ms = 300;
    assert_int_equal(begin(&one, &a), 0);
    assert_int_equal(begin(&two, &b), 0);
    weir_client_req_free(a.req);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    for (int i = 0; i < 5; i++) (void)!write(fd, record, sizeof record);
    turn(&one, 0);
    turn(&one, 0);
    while (!b.ended) {
        turn(&two, 1);
        turn(&one, 1);
    }
    assert_int_not_equal(b.result.status, WEIR_OK);
    (void)stats_of(&one, &ep);
    assert_in_range(ep.conns, 0, 1);
    close(fd);
    weir_client_free(two.client);
    site_stop(&one);
    close(listener);
    unlink(address + 5);
}

/* What is no answer to a ping proves nothing of a connection without a request. */
static void a_process_that_answers_a_ping_with_something_else_is_told(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {1, 11, 0, 0, 0, 8, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0};
    char address[128], piece[4096];
    struct site s;
    struct ask a;
    int listener = listen_on(AF_UNIX, address), stuck = 0;
    struct weir_endpoint_options e = endpoint(address, 1, 0);
    e.pings = true;
    site_start(&s, NULL, NULL);
    assert_int_equal(weir_pool_set(s.pool, &e, 1), WEIR_OK);
    weir_pool_set_ping(s.pool, 50);
    path_of(&a, "/a");
    assert_int_equal(begin(&s, &a), 0);
    int fd = accepted(&s, listener);
    while (read(fd, piece, sizeof piece) <= 0) turn(&s, 1);
    assert_int_equal(write(fd, answer, sizeof answer), sizeof answer);
    until_ended(&s, &a);
    for (int i = 0; i < 20000 && read(fd, piece, sizeof piece) <= 0; i++) {
        weir_client_tend(s.client);
        turn(&s, 1);
    }
    assert_int_equal(piece[1], 9); /* GET_VALUES */
    assert_int_equal(write(fd, unknown, sizeof unknown), sizeof unknown);
    for (int i = 0; i < 5000 && !stuck; i++) {
        struct weir_client_event ev;
        weir_client_tend(s.client);
        assert_int_equal(weir_client_step(s.client, 1), WEIR_OK);
        while (weir_client_next(s.client, &ev) == WEIR_OK) stuck += ev.type == WEIR_CLIENT_STUCK;
        weir_client_flush(s.client);
    }
    assert_int_equal(stuck, 1);
    close(fd);
    site_stop(&s);
    close(listener);
    unlink(address + 5);
}

/* One thread learns that the peer knows no flow control while another one still connects. */
static void a_hint_that_is_found_wrong_meanwhile_multiplexes_nothing(void **state)
{
    (void)state;
    static const uint8_t no[] = {1, 10, 0, 0, 0, 0, 0, 0};
    char address[128], piece[4096];
    struct site one, two;
    struct ask a, b[2];
    int listener = listen_on(AF_INET, address);
    struct weir_endpoint_options e = endpoint(address, 1, 10);
    two_start(&one, &two, &e);
    path_of(&a, "/a");
    assert_in_range(begin(&one, &a), 0, 1);
    int first = accepted(&one, listener);
    for (int i = 0; i < 2; i++) {
        path_of(&b[i], "/b");
        assert_in_range(begin(&two, &b[i]), 0, 1);
    }
    turn(&one, 1);
    assert_int_equal(write(first, no, sizeof no), sizeof no);
    struct weir_endpoint_stats ep = {.flow = true};
    for (int i = 0; i < 20000 && ep.flow; i++) {
        turn(&one, 1);
        (void)stats_of(&one, &ep);
    }
    int second = accepted(&two, listener);
    ssize_t n = -1;
    for (int i = 0; i < 20000 && (n = read(second, piece, sizeof piece)) < 0; i++) turn(&two, 1);
    assert_int_equal(n, 0); /* it is closed, and nothing was asked on it */
    for (int i = 0; i < 2; i++) weir_client_req_free(b[i].req);
    weir_client_req_free(a.req);
    weir_client_free(two.client);
    site_stop(&one);
    close(first);
    close(second);
    close(listener);
}

/* ---- the end ---- */

static void a_client_that_goes_takes_its_requests_along(void **state)
{
    (void)state;
    for (uint32_t requests = 0; requests <= 1; requests++) {
        struct peer p;
        struct site s;
        struct ask running, held, waiting[3];
        peer_start(&p, 0, ALL_ROLES);
        site_start(&s, NULL, NULL);
        serve_by(&s, p.address, 1, requests);
        path_of(&held, "/big/3000"); /* over, but not taken */
        held.slow_reader = true;
        assert_in_range(begin(&s, &held), 0, 1);
        until_counted(&s, &p.requests, 1);
        until_running(&s, &p, 0);
        for (int i = 0; i < 5; i++) turn(&s, 5);
        path_of(&running, "/hold");
        assert_in_range(begin(&s, &running), 0, 1);
        until_running(&s, &p, 1);
        for (size_t i = 0; i < COUNT(waiting); i++) {
            path_of(&waiting[i], "/hello");
            assert_int_equal(begin(&s, &waiting[i]), 0);
        }
        assert_int_equal(stats_of(&s, NULL).queued, COUNT(waiting));
        weir_client_free(s.client);
        assert_int_equal(stats_of(&s, NULL).queued, 0);
        for (int i = 0; i < 20000 && !atomic_load(&p.aborts); i++) usleep(1000);
        assert_int_equal(atomic_load(&p.aborts), 1);
        assert_int_equal(atomic_load(&p.requests), 2);
        weir_pool_free(s.pool);
        weir_client_group_free(s.group);
        peer_stop(&p);
    }
}

static void an_endpoint_that_is_not_named_any_more_drains(void **state)
{
    (void)state;
    struct peer one, two;
    struct site s;
    struct ask a, b;
    peer_start(&one, 0, ALL_ROLES);
    peer_start(&two, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, one.address, 1, 10);
    path_of(&a, "/late");
    assert_in_range(begin(&s, &a), 0, 1);
    until_counted(&s, &one.requests, 1);
    struct weir_endpoint_options e = endpoint(two.address, 1, 10);
    e.id = 2;
    assert_int_equal(weir_pool_set(s.pool, &e, 1), WEIR_OK);
    run_path(&s, &b, "/hello");
    until_ended(&s, &a);
    assert_int_equal(a.result.status, WEIR_OK);
    assert_int_equal(b.result.status, WEIR_OK);
    assert_int_equal(atomic_load(&one.requests), 1);
    assert_int_equal(atomic_load(&two.requests), 1);
    while (stats_of(&s, NULL).endpoint_count != 1) turn(&s, 5);
    while (!weir_pool_retire(s.pool)) turn(&s, 5); /* freed with it */
    weir_client_free(s.client);
    weir_client_group_free(s.group);
    peer_stop(&one);
    peer_stop(&two);
}

static void an_app_that_drains_is_asked_nothing_more(void **state)
{
    (void)state;
    struct peer p;
    struct site s;
    struct ask a, b;
    peer_start(&p, 0, ALL_ROLES);
    site_start(&s, NULL, NULL);
    serve_by(&s, p.address, 1, 10);
    path_of(&a, "/late");
    assert_in_range(begin(&s, &a), 0, 1);
    until_running(&s, &p, 1);
    weir_app_drain(p.app);
    until_ended(&s, &a);
    assert_int_equal(a.result.status, WEIR_OK); /* it finishes */
    unlink(p.path); /* as whoever starts the next one would */
    path_of(&b, "/hello");
    b.o.queue_ms = 200;
    run(&s, &b);
    assert_int_not_equal(b.result.status, WEIR_OK);
    assert_int_equal(atomic_load(&p.requests), 1);
    peer_stop(&p); /* it has drained although the client is still there */
    site_stop(&s);
}

static void options_that_cannot_be(void **state)
{
    (void)state;
    struct weir_client_group *g;
    struct weir_client *c, *second;
    struct weir_pool *p;
    struct weir_client_options co;
    struct weir_pool_options po;
    assert_int_equal(weir_client_group_new(&g, 0), WEIR_INVALID);
    assert_int_equal(weir_client_group_new(&g, 65), WEIR_INVALID);
    assert_int_equal(weir_client_group_new(&g, 1), WEIR_OK);
    weir_pool_options_init(&po);
    assert_int_equal(weir_pool_new(&p, g, &po), WEIR_INVALID); /* no name */
    weir_client_options_init(&co);
    co.index = 1;
    assert_int_equal(weir_client_new(&c, g, &co), WEIR_INVALID);
    co.index = 0;
    assert_int_equal(weir_client_new(&c, g, &co), WEIR_OK);
    assert_int_equal(weir_client_new(&second, g, &co), WEIR_INVALID); /* one for each thread */
    weir_client_free(c);
    assert_int_equal(weir_client_new(&c, g, &co), WEIR_OK);
    weir_client_free(c);
    weir_client_free(NULL);
    weir_client_group_free(g);
}

static void every_status_has_a_text(void **state)
{
    (void)state;
    for (int i = 0; i >= -10; i--) {
        assert_non_null(weir_strerror(i));
        for (int k = 0; k > i; k--) assert_string_not_equal(weir_strerror(i), weir_strerror(k));
    }
    assert_non_null(weir_strerror(-1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request),
        cmocka_unit_test(many_at_once_share_one_connection),
        cmocka_unit_test(without_flow_control_each_runs_on_a_connection_of_its_own),
        cmocka_unit_test(bodies_of_known_and_of_unknown_length),
        cmocka_unit_test(the_end_of_a_body_is_told_only_where_it_is_not_known),
        cmocka_unit_test(a_filter_gets_body_and_data),
        cmocka_unit_test(an_authorizer_answers_with_variables),
        cmocka_unit_test(a_role_that_the_app_does_not_speak_is_refused),
        cmocka_unit_test(a_request_that_is_given_up_is_aborted),
        cmocka_unit_test(silence_and_the_whole_time_have_limits),
        cmocka_unit_test(a_body_that_does_not_come_is_not_the_apps_silence),
        cmocka_unit_test(a_queue_has_places_and_time),
        cmocka_unit_test(an_endpoint_that_does_not_exist),
        cmocka_unit_test(addresses_that_cannot_be_are_told),
        cmocka_unit_test(a_pool_refuses_as_long_as_it_is_told_to),
        cmocka_unit_test(what_one_app_refuses_another_may_take),
        cmocka_unit_test(only_what_may_run_twice_is_repeated),
        cmocka_unit_test(every_pool_has_its_connections_ahead),
        cmocka_unit_test(without_descriptors_the_connections_that_are_there_serve),
        cmocka_unit_test(a_slow_reader_takes_what_is_held),
        cmocka_unit_test(what_is_held_is_in_order),
        cmocka_unit_test(more_than_may_be_held_is_cut),
        cmocka_unit_test(a_text_by_printf_may_be_larger_than_the_window),
        cmocka_unit_test(what_printf_keeps_goes_by_itself_and_in_order),
        cmocka_unit_test(another_thread_wakes_it),
        cmocka_unit_test(it_lives_in_a_foreign_loop),
        cmocka_unit_test(threads_of_a_group_share_a_pool),
        cmocka_unit_test(a_connection_that_closes_while_its_request_is_on_the_way),
        cmocka_unit_test(an_app_that_speaks_before_it_is_asked_is_left_alone),
        cmocka_unit_test(a_process_that_answers_a_ping_with_something_else_is_told),
        cmocka_unit_test(a_hint_that_is_found_wrong_meanwhile_multiplexes_nothing),
        cmocka_unit_test(a_client_that_goes_takes_its_requests_along),
        cmocka_unit_test(an_endpoint_that_is_not_named_any_more_drains),
        cmocka_unit_test(an_app_that_drains_is_asked_nothing_more),
        cmocka_unit_test(options_that_cannot_be),
        cmocka_unit_test(every_status_has_a_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"

struct visit {
    char path[32];
    uint64_t done, n[2], sum[2];
};

static void must(bool fine)
{
    if (fine) return;
    perror("peer");
    abort();
}

static void comes(struct peer *p)
{
    int now = atomic_fetch_add(&p->running, 1) + 1, most = atomic_load(&p->most);
    atomic_fetch_add(&p->requests, 1);
    while (now > most && !atomic_compare_exchange_weak(&p->most, &most, now)) {}
}

static void goes(struct peer *p)
{
    atomic_fetch_sub(&p->running, 1);
}

/* 1: the stream has ended; 0: later; negative: it cannot. */
static int64_t take(struct weir_app_req *req, struct visit *v, enum weir_stream s)
{
    char buf[10000];
    int64_t n;
    size_t i = s == WEIR_DATA;
    while ((n = weir_app_req_read(req, s, buf, sizeof buf)) > 0) {
        v->n[i] += (uint64_t)n;
        v->sum[i] = sum_of(v->sum[i], buf, (size_t)n);
    }
    return n == 0 ? 1 : n == WEIR_AGAIN ? 0 : n;
}

static int64_t big(struct weir_app_req *req, struct visit *v, uint64_t all)
{
    char buf[10000];
    while (v->done < all) {
        size_t len = all - v->done < sizeof buf ? (size_t)(all - v->done) : sizeof buf;
        for (size_t i = 0; i < len; i++) buf[i] = pattern(v->done + i);
        int64_t n = weir_app_req_write(req, WEIR_STDOUT, buf, len);
        if (n <= 0) return n;
        v->done += (uint64_t)n;
    }
    return 1;
}

/* 1: done; 0: an event will go on; negative: failed. */
static int64_t go_on(struct peer *p, struct weir_app_req *req, struct visit *v, enum weir_app_event_type type)
{
    int64_t n = 1;
    if (strcmp(v->path, "/late") == 0) {
        if (p->handlers) nanosleep(&(struct timespec){0, 30000000}, NULL);
        else if (type == WEIR_APP_REQUEST) weir_app_req_set_deadline(req, 30);
        if (!p->handlers && type != WEIR_APP_DEADLINE) return 0;
        return weir_app_req_printf(req, WEIR_STDOUT, "late");
    }
    if (strcmp(v->path, "/drip") == 0) {
        weir_app_req_set_deadline(req, 10);
        return weir_app_req_write(req, WEIR_STDOUT, "x", 1) < 0 ? -1 : 0;
    }
    if (strcmp(v->path, "/hold") == 0) return 0;
    if (strncmp(v->path, "/big/", 5) == 0) return big(req, v, strtoull(v->path + 5, NULL, 10));
    if (strncmp(v->path, "/print/", 7) == 0) {
        n = weir_app_req_printf(req, WEIR_STDOUT, "%*d", atoi(v->path + 7), 1);
        return n == WEIR_AGAIN ? 0 : n;
    }
    if (strcmp(v->path, "/kept") == 0) { /* ROOM was not waited for */
        if (type == WEIR_APP_REQUEST) weir_app_req_set_deadline(req, 50);
        if (type == WEIR_APP_REQUEST) return weir_app_req_printf(req, WEIR_STDOUT, "%*d", 20000, 1) == 20000 ? 0 : -1;
        return type == WEIR_APP_DEADLINE ? weir_app_req_printf(req, WEIR_STDOUT, "end") : type == WEIR_APP_ROOM ? -1 : 0;
    }
    if (strncmp(v->path, "/complain/", 10) == 0) {
        n = weir_app_req_printf(req, WEIR_STDERR, "%*d", atoi(v->path + 10), 1);
        return n == WEIR_AGAIN ? 0 : n;
    }
    if (strcmp(v->path, "/logs") == 0) {
        if (weir_app_req_write(req, WEIR_STDERR, "oops", 4) != 4) return -1;
        return weir_app_req_write(req, WEIR_STDOUT, "done", 4);
    }
    if (strcmp(v->path, "/count") == 0) {
        n = take(req, v, WEIR_STDIN);
        return n <= 0 ? n : weir_app_req_printf(req, WEIR_STDOUT, "%" PRIu64 " %" PRIu64, v->n[0], v->sum[0]);
    }
    if (strcmp(v->path, "/filter") == 0) {
        n = take(req, v, WEIR_STDIN);
        if (n > 0) n = take(req, v, WEIR_DATA);
        return n <= 0 ? n : weir_app_req_printf(req, WEIR_STDOUT, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, v->n[0], v->sum[0], v->n[1], v->sum[1]);
    }
    if (weir_app_req_role(req) == WEIR_AUTHORIZER && weir_app_req_header(req, "Variable-USER", "alice") < 0) return -1;
    return weir_app_req_printf(req, WEIR_STDOUT, "hello");
}

static void note_path(const struct weir_app_req *req, struct visit *v)
{
    const char *path = weir_app_req_param(req, "PATH_INFO");
    *v = (struct visit){.done = 0};
    snprintf(v->path, sizeof v->path, "%s", path ? path : "");
}

static uint32_t app_status(const struct visit *v, int64_t how)
{
    return how < 0 ? 1 : strcmp(v->path, "/hello") == 0 ? 7 : 0;
}

static void on_event(struct peer *p, const struct weir_app_event *ev)
{
    struct visit *v = ev->user;
    if (ev->type == WEIR_APP_REQUEST) {
        v = weir_app_req_alloc(ev->req, sizeof *v);
        must(v);
        note_path(ev->req, v);
        weir_app_req_set_user(ev->req, v);
        comes(p);
        if (strcmp(v->path, "/refuse") == 0) {
            goes(p);
            must(weir_app_req_refuse(ev->req) == WEIR_OK);
            return;
        }
    }
    if (ev->type == WEIR_APP_ABORT) {
        atomic_fetch_add(&p->aborts, 1);
        goes(p);
        weir_app_req_end(ev->req, 0);
        return;
    }
    int64_t how = go_on(p, ev->req, v, ev->type);
    if (how == 0) return;
    uint32_t status = app_status(v, how);
    goes(p);
    weir_app_req_end(ev->req, status);
}

static int handle(struct weir_app_req *req, void *arg)
{
    struct peer *p = arg;
    struct visit v;
    note_path(req, &v);
    comes(p);
    int64_t how = go_on(p, req, &v, WEIR_APP_REQUEST);
    goes(p);
    return (int)app_status(&v, how);
}

static void *run_handlers(void *arg)
{
    struct peer *p = arg;
    must(weir_app_run(p->app) == WEIR_OK);
    return NULL;
}

static void *run_events(void *arg)
{
    struct peer *p = arg;
    struct weir_app_event ev = {.type = WEIR_APP_REQUEST};
    struct pollfd f[2] = {{.fd = p->listen_fd, .events = POLLIN}, {.fd = weir_app_fd(p->app), .events = POLLIN}};
    while (ev.type != WEIR_APP_DRAINED) {
        must(poll(f, 2, weir_app_wait_ms(p->app)) >= 0 || errno == EINTR);
        int fd = f[0].revents ? accept(p->listen_fd, NULL, NULL) : -1;
        if (fd >= 0) {
            atomic_fetch_add(&p->accepted, 1);
            must(weir_app_adopt(p->app, fd) == WEIR_OK);
        }
        must(weir_app_step(p->app, 0) == WEIR_OK);
        while (weir_app_next(p->app, &ev) == WEIR_OK && ev.type != WEIR_APP_DRAINED) on_event(p, &ev);
        weir_app_flush(p->app);
    }
    return NULL;
}

void peer_start(struct peer *p, uint32_t threads, uint32_t roles)
{
    static int number;
    struct weir_app_options o;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memset(p, 0, sizeof *p);
    p->handlers = threads > 0;
    snprintf(p->path, sizeof p->path, "/tmp/weir-test-client-%d-%d", (int)getpid(), ++number);
    snprintf(p->address, sizeof p->address, "unix:%s", p->path);
    memcpy(to.sun_path, p->path, sizeof p->path);
    p->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (threads ? 0 : SOCK_NONBLOCK), 0);
    must(p->listen_fd >= 0 && bind(p->listen_fd, (struct sockaddr *)&to, sizeof to) == 0 && listen(p->listen_fd, 100) == 0);
    weir_app_options_init(&o);
    o.roles = roles;
    o.threads = threads;
    o.handler = threads ? handle : NULL;
    o.handler_arg = p;
    o.listen_fd = threads ? p->listen_fd : -1;
    must(weir_app_new(&p->app, &o) == WEIR_OK);
    must(pthread_create(&p->thread, NULL, threads ? run_handlers : run_events, p) == 0);
}

void peer_stop(struct peer *p)
{
    weir_app_drain(p->app);
    pthread_join(p->thread, NULL);
    weir_app_free(p->app);
    close(p->listen_fd);
    unlink(p->path);
}

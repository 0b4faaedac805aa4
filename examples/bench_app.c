/* SPDX-License-Identifier: MIT */
/* The app of the benchmarks, events style: /hello (100 bytes), /sleep/MS, /work/MICROSECONDS (burns CPU), /big/BYTES,
 * /discard (reads the body), /hold (reads nothing and does not answer). Anything else answers as /hello. argv[1]: requests at once. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weir/app.h>

struct visit {
    enum { HELLO, SLEEP, WORK, BIG, DISCARD, HOLD } kind;
    uint64_t n, done;
};

static const char hundred[] = "Hello from the application. This line has exactly one hundred bytes, as each peer's answer here does\n";

static int number_after(const char *path, const char *prefix, uint64_t *n)
{
    size_t len = strlen(prefix);
    if (strncmp(path, prefix, len) != 0) return 0;
    *n = strtoull(path + len, NULL, 10);
    return 1;
}

static struct visit classify(const char *path)
{
    struct visit v = {.kind = HELLO};
    if (!path) return v;
    if (number_after(path, "/sleep/", &v.n)) v.kind = SLEEP;
    else if (number_after(path, "/work/", &v.n)) v.kind = WORK;
    else if (number_after(path, "/big/", &v.n)) v.kind = BIG;
    else if (strcmp(path, "/discard") == 0) v.kind = DISCARD;
    else if (strcmp(path, "/hold") == 0) v.kind = HOLD;
    return v;
}

static void burn(uint64_t us)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    do {
        clock_gettime(CLOCK_MONOTONIC, &b);
    } while ((uint64_t)(b.tv_sec - a.tv_sec) * 1000000u + (uint64_t)(b.tv_nsec - a.tv_nsec) / 1000u + 1 <= us);
}

static int hello(struct weir_app_req *req)
{
    return weir_app_req_write(req, WEIR_STDOUT, hundred, 100) == 100;
}

static int big(struct weir_app_req *req, struct visit *v)
{
    static char block[65536];
    while (v->done < v->n) {
        uint64_t left = v->n - v->done;
        int64_t n = weir_app_req_write(req, WEIR_STDOUT, block, left < sizeof block ? (size_t)left : sizeof block);
        if (n <= 0) return n < 0;
        v->done += (uint64_t)n;
    }
    return 1;
}

static int discard(struct weir_app_req *req, struct visit *v)
{
    char buf[65536];
    int64_t n;
    while ((n = weir_app_req_read(req, WEIR_STDIN, buf, sizeof buf)) > 0) v->done += (uint64_t)n;
    return n == WEIR_AGAIN ? 0 : weir_app_req_printf(req, WEIR_STDOUT, "%" PRIu64 "\n", v->done) != WEIR_AGAIN;
}

static int go_on(struct weir_app_req *req, struct visit *v, enum weir_app_event_type type)
{
    switch (v->kind) {
    case SLEEP:
        if (type == WEIR_APP_DEADLINE) return hello(req);
        if (type == WEIR_APP_REQUEST) weir_app_req_set_deadline(req, (int64_t)v->n);
        return 0;
    case WORK: burn(v->n); return hello(req);
    case BIG: return big(req, v);
    case DISCARD: return discard(req, v);
    case HOLD: return 0;
    default: return hello(req);
    }
}

static void on_event(const struct weir_app_event *ev)
{
    struct visit *v = ev->user;
    if (ev->type == WEIR_APP_REQUEST) {
        v = weir_app_req_alloc(ev->req, sizeof *v);
        if (!v) {
            weir_app_req_end(ev->req, 1);
            return;
        }
        *v = classify(weir_app_req_param(ev->req, "REQUEST_URI"));
        weir_app_req_set_user(ev->req, v);
    }
    if (ev->type == WEIR_APP_ABORT || go_on(ev->req, v, ev->type)) weir_app_req_end(ev->req, 0);
}

int main(int argc, char **argv)
{
    struct weir_app_options options;
    struct weir_app_event ev = {0};
    struct weir_app *app;
    weir_app_options_init(&options);
    if (argc > 1) options.max_requests = (uint32_t)strtoul(argv[1], NULL, 10);
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0) return 1;
    while (weir_app_step(app, -1) == WEIR_OK) {
        while (weir_app_next(app, &ev) == WEIR_OK && ev.type != WEIR_APP_DRAINED) on_event(&ev);
        weir_app_flush(app);
        if (ev.type == WEIR_APP_DRAINED) break;
    }
    weir_app_free(app);
    return 0;
}

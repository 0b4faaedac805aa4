/* SPDX-License-Identifier: MIT */
/* The app of the demo site, in events style: one thread, any number of requests at once. Nothing in it waits: a request that
 * has to wait keeps its place in a struct and goes on at its next event. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <weir/app.h>

enum page { HELLO, SLOW, UPLOAD, STREAM, ENVIRONMENT, NOT_FOUND };

struct visit { /* lives in the request's memory */
    enum page page;
    uint64_t bytes;
    uint32_t sum; /* Adler-32 of the upload */
    unsigned line;
};

static enum page page_of(const struct weir_app_req *req)
{
    static const struct {
        const char *path;
        enum page page;
    } pages[] = {{"/hello", HELLO}, {"/slow", SLOW}, {"/upload", UPLOAD}, {"/stream", STREAM}, {"/env", ENVIRONMENT}};
    const char *path = weir_app_req_param(req, "PATH_INFO");
    for (size_t i = 0; path && i < sizeof pages / sizeof pages[0]; i++)
        if (strcmp(path, pages[i].path) == 0) return pages[i].page;
    return NOT_FOUND;
}

static void add_to_sum(struct visit *v, const unsigned char *p, size_t len)
{
    uint32_t a = v->sum & 0xffff, b = v->sum >> 16;
    for (size_t i = 0; i < len; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    v->sum = b << 16 | a;
}

/* Reads what has come: true at the end of the body. */
static int read_upload(struct weir_app_req *req, struct visit *v)
{
    unsigned char buf[16384];
    int64_t n;
    while ((n = weir_app_req_read(req, WEIR_STDIN, buf, sizeof buf)) > 0) {
        v->bytes += (uint64_t)n;
        add_to_sum(v, buf, (size_t)n);
    }
    return n == 0;
}

static void print_environment(struct weir_app_req *req)
{
    struct weir_pair p;
    for (size_t i = 0; weir_app_req_param_at(req, i, &p) == WEIR_OK; i++)
        if (weir_app_req_printf(req, WEIR_STDOUT, "%s=%s\n", p.name.ptr, p.value.ptr) < 0) return;
}

/* Goes on with a request; true when it is done. */
static int go_on(struct weir_app_req *req, struct visit *v, int deadline)
{
    switch (v->page) {
    case HELLO: return weir_app_req_printf(req, WEIR_STDOUT, "Hello from a C program that has been running all the time.\n") != 0;
    case SLOW:
        if (!deadline) {
            weir_app_req_set_deadline(req, 100);
            return 0;
        }
        return weir_app_req_printf(req, WEIR_STDOUT, "This took 100 ms, and nobody else had to wait.\n") != 0;
    case UPLOAD:
        if (!read_upload(req, v)) return 0;
        return weir_app_req_printf(req, WEIR_STDOUT, "%" PRIu64 " bytes, Adler-32 %08" PRIx32 "\n", v->bytes, v->sum) != 0;
    case STREAM:
        if (v->line == 10) return 1;
        if (weir_app_req_printf(req, WEIR_STDOUT, "line %u of 10\n", v->line + 1) == WEIR_AGAIN) return 0;
        v->line++;
        weir_app_req_set_deadline(req, 200);
        return 0;
    case ENVIRONMENT: print_environment(req); return 1;
    default: break;
    }
    if (weir_app_req_status(req, 404) < 0) return 1;
    return weir_app_req_printf(req, WEIR_STDOUT, "There is no such page in this app.\n") != 0;
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
        *v = (struct visit){.page = page_of(ev->req), .sum = 1};
        weir_app_req_set_user(ev->req, v);
    }
    if (ev->type == WEIR_APP_ABORT || go_on(ev->req, v, ev->type == WEIR_APP_DEADLINE)) weir_app_req_end(ev->req, 0);
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app_event ev = {0};
    struct weir_app *app;
    weir_app_options_init(&options);
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0) return 1;
    while (weir_app_step(app, -1) == WEIR_OK) {
        while (weir_app_next(app, &ev) == WEIR_OK && ev.type != WEIR_APP_DRAINED) on_event(&ev);
        weir_app_flush(app);
        if (ev.type == WEIR_APP_DRAINED) break;
    }
    weir_app_free(app);
    return 0;
}

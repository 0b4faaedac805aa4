/* SPDX-License-Identifier: MIT */
/* sim_app: see sim_app.h. */
#include "sim_app.h"

#include <stdio.h>
#include <stdlib.h>

#include "app/internal.h"

char sim_byte(size_t id, uint64_t i)
{
    return (char)('a' + (id * 7 + i * 3) % 26);
}

static size_t id_of(const struct weir_app_req *req)
{
    const char *q = weir_app_req_param(req, "QUERY_STRING");
    return q ? (size_t)strtoul(q, NULL, 10) : 0;
}

static void begins(struct sim_app *a, struct weir_app_req *req, struct sim_task *t, size_t id)
{
    char text[24];
    t->runs++;
    t->body_got = t->answer_sent = 0;
    if (t->delay) weir_app_req_set_deadline(req, 5);
    snprintf(text, sizeof text, "%zu", id);
    if (weir_app_req_header(req, "X-Id", text) < 0) a->fail(a->arg, "header", id);
    snprintf(text, sizeof text, "%llu", (unsigned long long)t->answer);
    if (t->sized && weir_app_req_header(req, "Content-Length", text) < 0) a->fail(a->arg, "header", id);
}

/* 1: all of the body was read; 0: more comes. */
static int reads(struct sim_app *a, struct weir_app_req *req, struct sim_task *t, size_t id)
{
    char buf[3000];
    int64_t n = 0;
    while (!t->early && (n = weir_app_req_read(req, WEIR_STDIN, buf, sizeof buf)) > 0) {
        for (int64_t k = 0; k < n; k++)
            if (!t->any && buf[k] != sim_byte(id, t->body_got + (uint64_t)k)) a->fail(a->arg, "a body byte is wrong", id);
        t->body_got += (uint64_t)n;
    }
    if (n == 0 && !t->early && !t->any && t->body_got != t->body) a->fail(a->arg, "the body ended early", id);
    return n != WEIR_AGAIN;
}

static int answers(struct weir_app_req *req, struct sim_task *t, size_t id)
{
    char buf[3000];
    while (t->answer_sent < t->answer) {
        size_t len = t->answer - t->answer_sent < sizeof buf ? (size_t)(t->answer - t->answer_sent) : sizeof buf;
        for (size_t k = 0; k < len; k++) buf[k] = sim_byte(id, t->answer_sent + k);
        int64_t n = weir_app_req_write(req, WEIR_STDOUT, buf, len);
        if (n < 0) return 1;
        t->answer_sent += (uint64_t)n;
        if ((size_t)n < len) return 0; /* ROOM comes */
    }
    return 1;
}

static void goes_on(struct sim_app *a, const struct weir_app_event *ev)
{
    size_t id = id_of(ev->req);
    struct sim_task *t = a->task(a->arg, id);
    if (ev->type == WEIR_APP_REQUEST && t->refuse) {
        t->refuse--;
        if (weir_app_req_refuse(ev->req) < 0) a->fail(a->arg, "refuse", id);
        return;
    }
    if (ev->type == WEIR_APP_REQUEST) begins(a, ev->req, t, id);
    if (ev->type == WEIR_APP_ABORT) {
        weir_app_req_end(ev->req, 1);
        return;
    }
    if (t->delay && ev->type != WEIR_APP_DEADLINE) return;
    t->delay = false;
    if (reads(a, ev->req, t, id) && answers(ev->req, t, id)) weir_app_req_end(ev->req, 0);
}

void sim_app_start(struct sim_app *a, struct sim *net, const char *name, uint32_t max_requests)
{
    struct weir_app_options o;
    weir_app_options_init(&o);
    o.flags = WEIR_APP_PRIVATE_LISTEN;
    o.listen_fd = sim_listen(net, name);
    o.max_requests = max_requests;
    o.body_window = 2000;
    o.drain_ms = 3600000;
    o.idle_ms = a->idle_ms;
    a->loop = sim_loop_new(net);
    if (weir_app_new_on(&a->app, &o, a->loop) < 0) abort();
    if (weir_loop_add(a->loop, o.listen_fd, (struct weir_ident){.kind = KIND_LISTEN}, true) < 0) abort();
    a->app->running = a->app->listening = true;
}

void sim_app_turn(struct sim_app *a)
{
    struct weir_app_event ev;
    if (weir_app_step(a->app, 0) < 0) a->fail(a->arg, "app step", 0);
    while (weir_app_next(a->app, &ev) == WEIR_OK)
        if (ev.type != WEIR_APP_DRAINED) goes_on(a, &ev);
        else a->drained = true;
    weir_app_flush(a->app);
}

void sim_app_drain(struct sim_app *a)
{
    weir_app_drain(a->app);
}

bool sim_app_grows(const struct sim_app *a)
{
    const void *out;
    const struct weir_app_options *o = &a->app->o;
    for (uint32_t i = 0; i < a->app->conn_top; i++) {
        const struct app_conn *k = a->app->conns[i];
        if (k->in_use && weir_wire_app_output(k->wire, &out) > o->output_buffer + (64u << 10) + 2 * SCRATCH) return true;
    }
    for (struct weir_list *l = a->app->reqs.next; l != &a->app->reqs; l = l->next) {
        const struct weir_app_req *r = WEIR_CONTAINER(l, struct weir_app_req, all_link);
        if (weir_buf_len(&r->in[0]) + weir_buf_len(&r->in[1]) > o->body_window + (r->flow ? 0u : SCRATCH)) return true;
    }
    return false;
}

unsigned sim_app_busy(const struct sim_app *a)
{
    return a->app->req_count;
}

void sim_app_end(struct sim_app *a)
{
    a->app->listening = false;
    weir_app_free(a->app);
    weir_loop_free(a->loop);
}

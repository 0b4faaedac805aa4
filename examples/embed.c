/* SPDX-License-Identifier: MIT */
/* An app inside a program that has a loop of its own: here poll() and a timer that moves a counter five times a second. To the loop
 * the app is one descriptor more, one time more to wake up at, and a few calls in each turn. A request is told where the counter
 * stands; /next waits for its next move. Ends at SIGTERM, when the last request has its answer. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <weir/app.h>

#define TICK_MS     200
#define WAITERS_MAX 100

static struct weir_app_req *waiters[WAITERS_MAX]; /* of the counter's next move */
static size_t waiter_count;
static unsigned counter;

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void answer(struct weir_app_req *req)
{
    int64_t n = weir_app_req_printf(req, WEIR_STDOUT, "%u\n", counter);
    weir_app_req_end(req, n < 0);
}

static void forget(const struct weir_app_req *req)
{
    for (size_t i = 0; i < waiter_count; i++)
        if (waiters[i] == req) waiters[i--] = waiters[--waiter_count];
}

static void tick(void)
{
    counter++;
    while (waiter_count) answer(waiters[--waiter_count]);
}

static void on_event(const struct weir_app_event *ev)
{
    if (ev->type == WEIR_APP_REQUEST) {
        const char *path = weir_app_req_param(ev->req, "PATH_INFO");
        if (path && strcmp(path, "/next") == 0 && waiter_count < WAITERS_MAX) waiters[waiter_count++] = ev->req;
        else answer(ev->req);
    } else if (ev->type == WEIR_APP_ABORT) {
        forget(ev->req);
        weir_app_req_end(ev->req, 0);
    }
}

/* The foreign loop. A program would have descriptors of its own in f, too. */
static int run(struct weir_app *app)
{
    struct pollfd f[1] = {{.fd = weir_app_fd(app), .events = POLLIN}};
    struct weir_app_event ev = {.type = WEIR_APP_REQUEST};
    int64_t tick_at = now_ms() + TICK_MS;
    int status = weir_app_step(app, 0); /* the first one begins to listen */
    while (status == WEIR_OK && ev.type != WEIR_APP_DRAINED) {
        int64_t left = tick_at - now_ms();
        int wait = left < 0 ? 0 : (int)left, apps = weir_app_wait_ms(app);
        (void)poll(f, 1, apps >= 0 && apps < wait ? apps : wait); /* a signal ends it, too: the turn looks at all */
        if (now_ms() >= tick_at) {
            tick();
            tick_at += TICK_MS;
        }
        status = weir_app_step(app, 0);
        while (weir_app_next(app, &ev) == WEIR_OK && ev.type != WEIR_APP_DRAINED) on_event(&ev);
        weir_app_flush(app); /* also what the timer answered */
    }
    return status;
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    int status = weir_app_new(&app, &options);
    if (status == WEIR_OK) {
        status = weir_app_drain_on(app, SIGTERM);
        if (status == WEIR_OK) status = run(app);
        weir_app_free(app);
    }
    if (status < 0) fprintf(stderr, "embed: %s\n", weir_strerror(status));
    return status < 0;
}

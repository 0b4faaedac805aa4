/* SPDX-License-Identifier: MIT */
/* `weir-cgi`: options, and the turn: what happened to pipes and processes, then what the server sent, then what is due. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "runner/runner.h"

int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- watching ---- */

void watch_set(struct runner *r, struct watch *w, bool on)
{
    struct epoll_event ev = {.events = w->kind == PIPE_IN ? EPOLLOUT : EPOLLIN, .data.ptr = w};
    if (w->fd < 0 || w->on == on) return;
    if (epoll_ctl(r->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, w->fd, &ev) == 0) w->on = on;
}

void watch_close(struct watch *w)
{
    if (w->fd < 0) return;
    if (w->on) epoll_ctl(w->job->runner->epoll, EPOLL_CTL_DEL, w->fd, NULL);
    close(w->fd);
    w->fd = -1;
    w->on = false;
}

/* ---- the turn ---- */

static int64_t next_due(const struct runner *r)
{
    int64_t due = INT64_MAX;
    for (const struct weir_list *l = r->jobs.next; l != &r->jobs; l = l->next) {
        const struct job *j = WEIR_CONTAINER(l, struct job, link);
        if (j->due_ms < due) due = j->due_ms;
    }
    return due;
}

static int wait_ms(const struct runner *r)
{
    int ms = weir_app_wait_ms(r->app);
    int64_t due = next_due(r), left = due - now_ms();
    if (due == INT64_MAX) return ms;
    if (left < 0) left = 0;
    if (left > 60000) left = 60000;
    return ms < 0 || left < ms ? (int)left : ms;
}

/* False: the app has drained. */
static bool app_events(struct runner *r)
{
    struct weir_app_event ev;
    while (weir_app_next(r->app, &ev) == WEIR_OK) {
        if (ev.type == WEIR_APP_DRAINED) return false;
        if (ev.type == WEIR_APP_REQUEST) job_begin(r, ev.req);
        else if (ev.user) job_app_event(ev.user, &ev);
    }
    return true;
}

static void clocks(struct runner *r)
{
    int64_t now = now_ms();
    for (struct weir_list *l = r->jobs.next, *next; l != &r->jobs; l = next) {
        next = l->next;
        job_clock(WEIR_CONTAINER(l, struct job, link), now);
    }
}

/* 1: goes on; 0: drained; -1: it cannot serve. */
static int turn(struct runner *r)
{
    struct epoll_event ev[64];
    int n = epoll_wait(r->epoll, ev, (int)WEIR_COUNT(ev), wait_ms(r));
    for (int i = 0; i < n; i++)
        if (ev[i].data.ptr) job_event(ev[i].data.ptr);
    if (weir_app_step(r->app, 0) < 0) return -1;
    bool more = app_events(r);
    clocks(r);
    jobs_start(r);
    weir_app_flush(r->app);
    jobs_bury(r);
    return more;
}

/* Behind the last request: programs that still run have the usual time. */
static void end_programs(struct runner *r)
{
    for (struct weir_list *l = r->jobs.next, *next; l != &r->jobs; l = next) {
        next = l->next;
        job_stop(WEIR_CONTAINER(l, struct job, link));
    }
    while (!weir_list_empty(&r->jobs) && turn(r) >= 0) {}
}

/* ---- start ---- */

enum { KEY_ROOT = 'r', KEY_WORKERS = 'w', KEY_BEHIND = 'b', KEY_FILES = 'f' };
static const struct argp_option options[] = {
    {"workers", KEY_WORKERS, "COUNT", 0, "programs at once [4]", 0},
    {"root", KEY_ROOT, "DIR", 0, "without PROGRAM: scripts below it may be run; several times for several", 0},
    {"behind", KEY_BEHIND, "MS", 0, "a program that goes on behind its answer is ended after so long [never]", 0},
    {"files", KEY_FILES, "COUNT", 0, "files that a program may have open [as many as we]", 0},
    {0}};

static uint32_t number(const char *arg, uint32_t least, uint32_t most, struct argp_state *state)
{
    uint64_t v;
    if (weir_str_u64(weir_cstr(arg), most, &v) < 0 || v < least) argp_error(state, "%s is no number from %u to %u", arg, least, most);
    return (uint32_t)v;
}

static void add_root(struct runner *r, const char *arg, struct argp_state *state)
{
    size_t n = strlen(arg);
    const char **grown = realloc(r->roots, (r->root_count + 1) * sizeof *grown);
    if (arg[0] != '/') argp_error(state, "%s is no absolute path", arg);
    if (!grown) argp_failure(state, 1, ENOMEM, "%s", arg);
    while (n && arg[n - 1] == '/') n--;
    r->roots = grown;
    r->roots[r->root_count] = strndup(arg, n);
    if (!r->roots[r->root_count++]) argp_failure(state, 1, ENOMEM, "%s", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct runner *r = state->input;
    switch (key) {
    case KEY_WORKERS: r->workers = number(arg, 1, 1000, state); return 0;
    case KEY_BEHIND: r->behind_ms = number(arg, 0, 2000000000, state); return 0;
    case KEY_FILES: r->files = number(arg, 8, 1u << 20, state); return 0;
    case KEY_ROOT: add_root(r, arg, state); return 0;
    case ARGP_KEY_ARGS:
        r->program = state->argv + state->next;
        if (r->program[0][0] != '/') argp_error(state, "%s is no absolute path", r->program[0]);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Descriptors 0-2 are taken, so that no pipe of ours becomes one of them. */
static bool hold_standard(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (fd >= 0 && fd <= 2) fcntl(fd, F_SETFD, 0);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
    return fd > 2;
}

static int app_new(struct runner *r)
{
    struct weir_app_options o;
    struct epoll_event ev = {.events = EPOLLIN}; /* data.ptr NULL: the app's */
    weir_app_options_init(&o);
    o.max_requests = r->workers;
    if (weir_app_new(&r->app, &o) < 0 || weir_app_drain_on(r->app, SIGTERM) < 0 || weir_app_drain_on(r->app, SIGINT) < 0) return -1;
    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, weir_app_fd(r->app), &ev);
}

int main(int argc, char **argv)
{
    static char *none[] = {NULL};
    static const struct argp argp = {options, parse, "[PROGRAM [ARG...]]",
                                     "Serves FastCGI requests on descriptor 0 by plain CGI programs, one process for each.\v"
                                     "Without PROGRAM the request's SCRIPT_FILENAME is run. Weir starts this for pools with cgi; "
                                     "any FastCGI server can.", NULL, NULL, NULL};
    struct runner r = {.workers = 4, .program = none, .epoll = -1};
    int status = 1;
    argp_err_exit_status = 2;
    argp_program_version = "weir-cgi " WEIR_VERSION;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &r);
    weir_list_init(&r.jobs);
    weir_list_init(&r.waiting);
    signal(SIGPIPE, SIG_IGN); /* a program may close its standard input */
    signal(SIGCHLD, SIG_DFL); /* ignored, it would take the statuses of programs away */
    if (hold_standard() && environment_base(&r) == WEIR_OK && (r.epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0 && app_new(&r) == 0)
        while ((status = turn(&r)) > 0) {}
    if (status != 0) fprintf(stderr, "weir-cgi: descriptor 0 is no listening socket, or there is no memory: %s\n", strerror(errno));
    else end_programs(&r);
    weir_app_free(r.app);
    if (r.epoll >= 0) close(r.epoll);
    for (size_t i = 0; i < r.root_count; i++) free((char *)(uintptr_t)r.roots[i]);
    free(r.roots);
    free(r.environment);
    return status ? 1 : 0;
}

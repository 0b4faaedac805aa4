/* SPDX-License-Identifier: MIT */
/* One program: pipes to it and from it, its process group, the request that it answers. Nothing here waits: what the program or the
 * server does not take is held, at most one pipe's worth each, and then nothing more is read of the other side. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/runner.h"

#define PIECE    65536 /* read at once, and held at most */
#define LINE_MAX_BYTES 8192 /* a longer line of messages is told in pieces */
#define EXIT_MS  50    /* from the end of the output to the end of the process: what takes longer goes on behind its answer */
#define NEVER    INT64_MAX

/* ---- answers of our own ---- */

static const char *text_of(int status)
{
    switch (status) {
    case 403: return "The program may not be run.\n";
    case 404: return "There is no such program.\n";
    case 501: return "Only requests for an answer are served here.\n";
    case 503: return "The program cannot be started now.\n";
    default: return "The program cannot be started.\n";
    }
}

/* Ends the request with an error of our own; the reason is for the log, not for the client. (FC1-7-c) */
static void answer(struct weir_app_req *req, int status, const char *what, const char *why)
{
    bool told = weir_app_req_printf(req, WEIR_STDERR, "weir-cgi: %s%s%s\n", what, *what ? ": " : "", why) >= 0;
    told = weir_app_req_status(req, status) == WEIR_OK && told;
    if (status == 503) told = weir_app_req_header(req, "Retry-After", "1") == WEIR_OK && told;
    told = weir_app_req_printf(req, WEIR_STDOUT, "%s", text_of(status)) >= 0 && told;
    weir_app_req_end(req, told ? 127 : 126);
}

/* A script is the client's choice, the program of the command line is not: that it is missing is our fault. */
static void answer_start_failed(struct weir_app_req *req, bool script, const struct child *c)
{
    int e = c->error, status = 502;
    bool missing = e == ENOENT || e == ENOTDIR;
    const char *why = strerror(e), *what = c->in_folder || !c->dir ? c->path : c->dir;
    if (e == EAGAIN || e == ENOMEM || e == EMFILE || e == ENFILE) {
        status = 503;
    } else if (e == EACCES) {
        if (script) status = 403;
        if (c->in_folder) why = "it, or its interpreter, is not executable for the pool's user";
    } else if (c->in_folder && missing && access(c->path, F_OK) == 0) {
        why = "the interpreter in its first line does not exist";
    } else if (missing) {
        if (script) status = 404;
    } else if (e == ENOEXEC) {
        why = "neither a script with #! in its first line nor a program for this machine";
    }
    answer(req, status, what, why);
}

/* ---- watching ---- */

/* What each pipe waits for now. */
static void watch_pipes(struct job *j)
{
    watch_set(j->runner, &j->in, weir_buf_len(&j->body) > 0);
    watch_set(j->runner, &j->out, weir_buf_len(&j->held) == 0);
    watch_set(j->runner, &j->err, weir_buf_len(&j->lines) < LINE_MAX_BYTES);
}

static void close_pipes(struct job *j)
{
    watch_close(&j->in);
    watch_close(&j->out);
    watch_close(&j->err);
}

static void job_free(struct job *j)
{
    struct runner *r = j->runner;
    close_pipes(j);
    watch_close(&j->end);
    weir_list_remove(&j->link);
    j->next_dead = r->dead;
    r->dead = j;
}

void jobs_bury(struct runner *r)
{
    while (r->dead) {
        struct job *j = r->dead;
        r->dead = j->next_dead;
        weir_buf_fini(&j->body);
        weir_buf_fini(&j->held);
        weir_buf_fini(&j->lines);
        free(j->path);
        free(j);
    }
}

/* ---- the end of a process group ---- */

/* Nothing of the group is left behind this: its first process, a zombie or dying, kept its number ours. */
static void group_end(struct job *j)
{
    kill(-j->pid, SIGKILL);
    waitpid(j->pid, NULL, 0);
    if (j->state == JOB_LINGERS) j->runner->lingering--;
    job_free(j);
}

void job_stop(struct job *j)
{
    if (j->state != JOB_RUNS) return;
    close_pipes(j);
    j->state = JOB_TOLD;
    j->due_ms = now_ms() + TERM_MS;
    kill(-j->pid, SIGTERM);
    kill(-j->pid, SIGCONT); /* who is stopped hears nothing */
}

/* Its request is over, whatever the program does. */
static void abandon(struct job *j)
{
    if (j->req) weir_app_req_end(j->req, 1);
    j->req = NULL;
    if (j->state == JOB_RUNS) job_stop(j);
    else if (j->state == JOB_WAITS || j->state == JOB_EXITED) job_free(j);
}

static void too_many_linger(struct runner *r)
{
    for (struct weir_list *l = r->jobs.next; l != &r->jobs; l = l->next) {
        struct job *j = WEIR_CONTAINER(l, struct job, link);
        if (j->state != JOB_LINGERS) continue;
        group_end(j);
        return;
    }
}

/* ---- from the program ---- */

/* Our own standard error; lost where nobody reads it, for nobody here waits. */
static void say(const char *p, size_t len)
{
    while (len) {
        struct pollfd out = {.fd = 2, .events = POLLOUT};
        ssize_t n = poll(&out, 1, 0) > 0 && out.revents & POLLOUT ? write(2, p, len < 4096 ? len : 4096) : -1;
        if (n <= 0) return;
        p += n;
        len -= (size_t)n;
    }
}

/* What is held goes to the server as far as it takes it. False: the request is gone. */
static bool give(struct job *j, enum weir_stream s, struct weir_buf *b, size_t len)
{
    int64_t n = len ? weir_app_req_write(j->req, s, weir_buf_ptr(b), len) : 0;
    if (n < 0) return false;
    weir_buf_consume(b, (size_t)n);
    return true;
}

/* Whole lines, but for one that is too long, or the last. */
static bool give_lines(struct job *j)
{
    size_t len = weir_buf_len(&j->lines);
    const char *end = len ? memrchr(weir_buf_ptr(&j->lines), '\n', len) : NULL;
    if (j->err.fd >= 0 && len < LINE_MAX_BYTES) len = end ? (size_t)(end + 1 - weir_buf_ptr(&j->lines)) : 0;
    if (j->req) return give(j, WEIR_STDERR, &j->lines, len);
    if (len) say(weir_buf_ptr(&j->lines), len);
    weir_buf_consume(&j->lines, len);
    return true;
}

/* Reads once. left: how much of it is the program's, once it ended. False: memory. */
static bool take(struct job *j, struct watch *w, struct weir_buf *to, int *left)
{
    size_t want = j->state == JOB_EXITED && *left < PIECE ? (size_t)*left : PIECE;
    char *p = want ? weir_buf_room(to, want) : NULL;
    if (want && !p) return false;
    ssize_t n = want ? read(w->fd, p, want) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) {
        watch_close(w);
        return true;
    }
    weir_buf_added(to, (size_t)n);
    if (j->state == JOB_EXITED && (*left -= (int)n) <= 0) watch_close(w);
    return true;
}

/* Its process and its output have ended: the request does. */
static bool end_if_done(struct job *j)
{
    bool sent = j->out.fd < 0 && weir_buf_len(&j->held) == 0;
    if (j->state == JOB_EXITED && sent && j->err.fd < 0 && weir_buf_len(&j->lines) == 0) {
        weir_app_req_end(j->req, (uint32_t)j->status); /* FC1-6.2-e */
        job_free(j);
        return true;
    }
    if (j->state == JOB_RUNS && sent && j->req && j->due_ms == NEVER) j->due_ms = now_ms() + EXIT_MS;
    return false;
}

/* Sends what is held, ends what has ended, waits for the rest. */
static void go_on(struct job *j)
{
    bool fine = (!j->req || give(j, WEIR_STDOUT, &j->held, weir_buf_len(&j->held))) && give_lines(j);
    if (!fine) {
        abandon(j);
        return;
    }
    if (!end_if_done(j)) watch_pipes(j);
}

static void from_program(struct job *j, struct watch *w)
{
    bool fine = w == &j->out ? take(j, w, &j->held, &j->left_out) : take(j, w, &j->lines, &j->left_err);
    if (weir_buf_len(&j->held)) j->answered = true;
    if (fine) go_on(j);
    else abandon(j);
}

/* ---- to the program ---- */

/* Writes what is held: false when the pipe is full or gone. */
static bool write_body(struct job *j)
{
    while (weir_buf_len(&j->body)) {
        ssize_t n = j->in.fd < 0 ? -1 : write(j->in.fd, weir_buf_ptr(&j->body), weir_buf_len(&j->body));
        if (n < 0 && errno == EINTR && j->in.fd >= 0) continue;
        if (n < 0 && errno == EAGAIN && j->in.fd >= 0) return false;
        if (n < 0) { /* it reads no more: the rest is read for nobody, so that nothing waits for it */
            watch_close(&j->in);
            weir_buf_reset(&j->body, 0);
            return true;
        }
        weir_buf_consume(&j->body, (size_t)n);
    }
    return true;
}

static void to_program(struct job *j)
{
    while (j->req && write_body(j)) {
        char *p = weir_buf_room(&j->body, PIECE);
        int64_t n = p ? weir_app_req_read(j->req, WEIR_STDIN, p, PIECE) : WEIR_NOMEM;
        if (n == WEIR_AGAIN) break;
        if (n == 0) {
            watch_close(&j->in); /* the end of its standard input */
            break;
        }
        if (n < 0) {
            abandon(j);
            return;
        }
        weir_buf_added(&j->body, (size_t)n);
    }
    watch_pipes(j);
}

/* ---- the process ---- */

static void tell_end(struct job *j, int status)
{
    char text[256] = "";
    j->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (WIFSIGNALED(status)) snprintf(text, sizeof text, "weir-cgi: %.180s was ended by signal %d\n", j->path, WTERMSIG(status));
    else if (!j->answered && !j->left_out) snprintf(text, sizeof text, "weir-cgi: %.180s ended with status %d and wrote nothing\n", j->path, j->status);
    if (weir_buf_append(&j->lines, text, strlen(text)) < 0) return; /* the gateway's own message is enough */
}

static int bytes_in(const struct watch *w)
{
    int n = 0;
    return w->fd >= 0 && ioctl(w->fd, FIONREAD, &n) == 0 ? n : 0;
}

/* What is in its pipes now is its last word: others that hold them (a daemon that it left behind) do not keep the request. */
static void exited(struct job *j)
{
    int status;
    if (waitpid(j->pid, &status, 0) != j->pid) status = 0;
    j->state = JOB_EXITED;
    j->due_ms = NEVER;
    j->left_out = bytes_in(&j->out);
    j->left_err = bytes_in(&j->err);
    watch_close(&j->in);
    if (!j->left_out) watch_close(&j->out);
    for (int before = 0; j->left_err != before && j->err.fd >= 0;) {
        before = j->left_err;
        if (!take(j, &j->err, &j->lines, &j->left_err)) break;
    }
    watch_close(&j->err);
    tell_end(j, status);
    if (j->req) {
        go_on(j);
        return;
    }
    give_lines(j);
    job_free(j);
}

static void process_ended(struct job *j)
{
    struct runner *r = j->runner;
    siginfo_t si = {0};
    if (waitid(P_PID, (id_t)j->pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0) return;
    watch_close(&j->end);
    r->running--;
    if (j->state == JOB_RUNS) {
        exited(j);
    } else if (j->state == JOB_KILLED) {
        group_end(j);
    } else {
        j->state = JOB_LINGERS;
        if (++r->lingering > LINGER_MAX) too_many_linger(r);
    }
}

/* ---- start ---- */

struct ends { /* of the three pipes */
    int ours[3], theirs[3];
};

static void close_ends(int *list)
{
    for (int i = 0; i < 3; i++)
        if (list[i] >= 0) close(list[i]);
}

static bool make_pipes(struct ends *e)
{
    *e = (struct ends){{-1, -1, -1}, {-1, -1, -1}};
    for (int i = 0; i < 3; i++) {
        int p[2];
        if (pipe2(p, O_CLOEXEC) < 0) return false;
        e->ours[i] = p[i == 0];
        e->theirs[i] = p[i != 0];
        if (fcntl(e->ours[i], F_SETFL, O_NONBLOCK) < 0) return false; /* of our end alone */
    }
    return true;
}

static char *folder_of(struct weir_app_req *req, const char *path)
{
    size_t n = (size_t)(strrchr(path, '/') - path);
    char *dir = weir_app_req_alloc(req, n + 2);
    if (!dir) return NULL;
    memcpy(dir, path, n ? n : 1); /* "/x" lies in "/" */
    dir[n ? n : 1] = 0;
    return dir;
}

/* The process; -1 with c->error. */
static pid_t start_process(struct job *j, struct child *c, struct ends *e)
{
    const struct runner *r = j->runner;
    char *own[] = {j->path, NULL};
    *c = (struct child){.path = j->path, .dir = folder_of(j->req, j->path), .argv = r->program[0] ? r->program : own,
                        .envp = environment_of(r, j->req, j->path), .files = r->files, .error = ENOMEM};
    if (!c->dir || !c->envp) return -1;
    bool fine = make_pipes(e);
    c->error = errno;
    if (!fine) return -1;
    c->in = e->theirs[0];
    c->out = e->theirs[1];
    c->err = e->theirs[2];
    pid_t pid = spawn(c);
    if (pid < 0) return -1;
    j->end.fd = (int)syscall(SYS_pidfd_open, pid, 0u);
    if (j->end.fd >= 0) return pid;
    c->error = errno;
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return -1;
}

static void job_start(struct job *j)
{
    struct runner *r = j->runner;
    struct child c;
    struct ends e = {{-1, -1, -1}, {-1, -1, -1}};
    pid_t pid = start_process(j, &c, &e);
    close_ends(e.theirs);
    if (pid < 0) {
        close_ends(e.ours);
        answer_start_failed(j->req, !r->program[0], &c);
        j->req = NULL;
        job_free(j);
        return;
    }
    j->pid = pid;
    j->in.fd = e.ours[0];
    j->out.fd = e.ours[1];
    j->err.fd = e.ours[2];
    j->state = JOB_RUNS;
    r->running++;
    weir_list_remove(&j->link);
    weir_list_push_back(&r->jobs, &j->link);
    watch_set(r, &j->end, true);
    if (weir_app_req_own_header(j->req) < 0) abandon(j);
    else to_program(j);
}

void jobs_start(struct runner *r)
{
    while (r->running < r->workers && !weir_list_empty(&r->waiting)) job_start(WEIR_CONTAINER(r->waiting.next, struct job, link));
}

/* Below one of our roots, and no way out of it. */
static bool is_below_roots(const struct runner *r, const char *path)
{
    struct weir_str s = weir_cstr(path);
    if (strstr(path, "/../") || strstr(path, "/./") || weir_str_suffix(s, WEIR_STR("/..")) || weir_str_suffix(s, WEIR_STR("/."))) return false;
    for (size_t i = 0; i < r->root_count; i++) {
        struct weir_str root = weir_cstr(r->roots[i]);
        if (weir_str_prefix(s, root) && s.len > root.len && s.ptr[root.len] == '/') return true;
    }
    return false;
}

void job_begin(struct runner *r, struct weir_app_req *req)
{
    const char *path = r->program[0] ? r->program[0] : weir_app_req_param(req, "SCRIPT_FILENAME");
    if (weir_app_req_role(req) != WEIR_RESPONDER) {
        answer(req, 501, "", "a CGI program can neither authorize nor filter");
        return;
    }
    if (!path || path[0] != '/' || strlen(path) >= PATH_MAX) {
        answer(req, 404, "", "the request names no program: SCRIPT_FILENAME is no absolute path");
        return;
    }
    if (!r->program[0] && !is_below_roots(r, path)) {
        answer(req, 403, path, "it lies below no root of this pool");
        return;
    }
    struct job *j = calloc(1, sizeof *j);
    char *copy = j ? strdup(path) : NULL;
    if (!copy) {
        free(j);
        answer(req, 503, path, "out of memory");
        return;
    }
    *j = (struct job){.runner = r, .req = req, .path = copy, .due_ms = NEVER};
    j->in = (struct watch){.kind = PIPE_IN, .fd = -1, .job = j};
    j->out = (struct watch){.kind = PIPE_OUT, .fd = -1, .job = j};
    j->err = (struct watch){.kind = PIPE_ERR, .fd = -1, .job = j};
    j->end = (struct watch){.kind = PIPE_END, .fd = -1, .job = j};
    weir_app_req_set_user(req, j);
    weir_list_push_back(&r->waiting, &j->link);
}

/* ---- events ---- */

void job_app_event(struct job *j, const struct weir_app_event *ev)
{
    if (ev->type == WEIR_APP_ABORT) abandon(j);
    else if (j->state == JOB_WAITS) return; /* its body is read when it runs */
    else if (ev->type == WEIR_APP_INPUT) to_program(j);
    else if (ev->type == WEIR_APP_ROOM) go_on(j);
}

void job_event(struct watch *w)
{
    struct job *j = w->job;
    if (w->fd < 0) return; /* closed in this turn */
    switch (w->kind) {
    case PIPE_IN: to_program(j); break;
    case PIPE_OUT:
    case PIPE_ERR: from_program(j, w); break;
    case PIPE_END: process_ended(j); break;
    case PIPE_APP: break;
    }
}

void job_clock(struct job *j, int64_t now)
{
    if (now < j->due_ms) return;
    j->due_ms = NEVER;
    switch (j->state) {
    case JOB_RUNS:
        if (!j->req) { /* it went on behind its answer for too long */
            job_stop(j);
            break;
        }
        weir_app_req_end(j->req, 0); /* the answer is whole; what the program still does is its own */
        j->req = NULL;
        watch_close(&j->in);
        if (j->runner->behind_ms) j->due_ms = now + j->runner->behind_ms;
        go_on(j);
        break;
    case JOB_TOLD:
        j->state = JOB_KILLED;
        kill(-j->pid, SIGKILL);
        break;
    case JOB_LINGERS: group_end(j); break;
    default: break;
    }
}

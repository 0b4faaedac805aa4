/* SPDX-License-Identifier: MIT */
/* What the gateway writes: access log, stderr of requests, errors; how a line looks is log_line.c's. Lines gather in the worker and leave
 * through the helper thread; a helper that is behind by 4 MiB costs lines, never time, and their number is told. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "gateway/log_line.h"

#define GATHER     (16u << 10)
#define BEHIND_MAX (4u << 20)
#define DELAY_MS   100
#define LINE_COST  1024  /* bytes of an app's line that count as one */
#define APP_PIECE  4096  /* of a line, as control's */
#define APP_LINE_MAX (APP_PIECE * 6 + 512)
#define ERROR_PIECE 900  /* of a line in the error log */
#define ERROR_MAX  2048  /* of a line of our own there */
#define OURS       WEIR_STR("weir gateway: ")

struct log_sink {
    _Atomic unsigned refs;
    _Atomic uint32_t behind; /* bytes handed to helpers and not written yet */
    _Atomic uint64_t lost;   /* lines */
    _Atomic bool on;         /* lines are wanted */
    int fd;                  /* one number for its life: another file takes its place */
    unsigned mode;           /* of a file that is made */
    char *path;              /* the first thread's; NULL: off */
};

int log_sink_new(struct log_sink **out, unsigned mode)
{
    struct log_sink *s = calloc(1, sizeof *s);
    if (!s) return WEIR_NOMEM;
    s->refs = 1;
    s->mode = mode;
    s->fd = weir_open_append("/dev/null", mode);
    if (s->fd < 0) {
        free(s);
        return WEIR_SYSTEM;
    }
    *out = s;
    return WEIR_OK;
}

void log_sink_drop(struct log_sink *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    close(s->fd);
    free(s->path);
    free(s);
}

static bool is_on(const struct log_sink *s)
{
    return s && atomic_load_explicit(&s->on, memory_order_relaxed);
}

/* What a helper writes just now still goes to the old file. */
static int sink_open(struct log_sink *s, const char *path)
{
    int fd = strcmp(path, "-") == 0 ? dup(STDOUT_FILENO) : strcmp(path, "stderr") == 0 ? dup(STDERR_FILENO) : weir_open_append(path, s->mode);
    if (fd < 0) return WEIR_SYSTEM;
    int status = dup3(fd, s->fd, O_CLOEXEC) < 0 ? WEIR_SYSTEM : WEIR_OK, saved = errno;
    close(fd);
    errno = saved;
    return status;
}

int log_sink_set(struct log_sink *s, const char *path)
{
    if (!path || strcmp(path, "off") == 0) {
        atomic_store(&s->on, false);
        free(s->path);
        s->path = NULL;
        return WEIR_OK;
    }
    if (s->path && strcmp(s->path, path) == 0) return WEIR_OK;
    if (sink_open(s, path) < 0) return WEIR_SYSTEM;
    free(s->path);
    s->path = strdup(path);
    atomic_store(&s->on, true);
    return WEIR_OK;
}

static void sink_reopen(struct gateway *gw, struct log_sink *s)
{
    if (!s || !s->path || s->path[0] != '/' || sink_open(s, s->path) == WEIR_OK) return;
    gateway_say(gw, "cannot open %s: %s: the old file stays in use", s->path, strerror(errno));
}

void gateway_reopen_logs(struct gateway *gw)
{
    sink_reopen(gw, gw->access_log);
    sink_reopen(gw, gw->app_log);
}

/* ---- leaving ---- */

struct write_job {
    struct weir_job job;
    struct log_sink *sink;
    struct weir_buf bytes;
};

static void run_write(struct weir_job *job)
{
    struct write_job *w = WEIR_CONTAINER(job, struct write_job, job);
    weir_write_log(w->sink->fd, weir_buf_ptr(&w->bytes), weir_buf_len(&w->bytes));
    atomic_fetch_sub(&w->sink->behind, (uint32_t)weir_buf_len(&w->bytes));
}

static void free_write(struct weir_job *job)
{
    struct write_job *w = WEIR_CONTAINER(job, struct write_job, job);
    log_sink_drop(w->sink);
    weir_buf_fini(&w->bytes);
    free(w);
}

static void hand_over(struct worker *w, struct weir_buf *b, struct log_sink *sink)
{
    size_t len = weir_buf_len(b);
    if (!len) return;
    struct write_job *j = NULL;
    if (sink && atomic_load(&sink->behind) < BEHIND_MAX) j = calloc(1, sizeof *j);
    if (!j) {
        uint64_t lines = 0;
        for (size_t i = 0; i < len; i++) lines += weir_buf_ptr(b)[i] == '\n';
        if (sink) atomic_fetch_add(&sink->lost, lines);
        weir_buf_reset(b, GATHER * 2);
        return;
    }
    atomic_fetch_add(&sink->behind, (uint32_t)len);
    atomic_fetch_add(&sink->refs, 1);
    j->sink = sink;
    j->bytes = *b;
    *b = (struct weir_buf){0};
    j->job.run = run_write;
    j->job.done = free_write;
    j->job.lane = WEIR_LANE_OTHERS;
    weir_loop_job(w->loop, &j->job);
}

void log_flush(struct worker *w)
{
    struct log_sink *sink = w->gw->access_log, *errors = w->gw->error_log, *apps = w->gw->app_log;
    weir_timer_clear(&w->log_timer);
    if (apps) {
        uint64_t lost = atomic_exchange(&apps->lost, 0);
        if (lost) log_error(w, "the app log is too slow: %llu lines were lost", (unsigned long long)lost);
        hand_over(w, &w->app_buf, apps);
    }
    if (sink) {
        uint64_t lost = atomic_exchange(&sink->lost, 0);
        if (lost) log_error(w, "the access log is too slow: %llu lines were lost", (unsigned long long)lost);
        hand_over(w, &w->log_buf, sink);
    }
    if (errors && atomic_load(&errors->behind) < BEHIND_MAX / 2) {
        uint64_t lost = atomic_exchange(&errors->lost, 0);
        if (lost) log_error(w, "whoever reads this is too slow: %llu lines were lost", (unsigned long long)lost);
    }
    hand_over(w, &w->err_buf, errors);
}

static void arm(struct worker *w)
{
    struct weir_ident id = {.kind = KIND_LOG};
    if (!weir_timer_is_set(&w->log_timer))
        weir_timer_set(w->loop, &w->log_timer, id, weir_loop_now_ms(w->loop) + DELAY_MS);
}

/* ---- lines ---- */

static void access_line(struct worker *w, const struct access_line *l)
{
    char *to = weir_buf_room(&w->log_buf, LOG_JSON_MAX);
    if (!to) return;
    weir_buf_added(&w->log_buf, log_access_line(w, to, l));
    if (weir_buf_len(&w->log_buf) >= GATHER) log_flush(w);
    else arm(w);
}

static struct weir_str field(const struct exchange *ex, const char *name)
{
    const struct weir_pair *f = ex->req ? weir_http_find(ex->req->headers, ex->req->header_count, name) : NULL;
    return f ? f->value : WEIR_STR("-");
}

static struct weir_str peer_text(const struct exchange *ex, char *out, size_t len)
{
    struct sockaddr_storage peer;
    if (!ex->http) return WEIR_STR("-");
    guards_socket(ex, &peer);
    weir_address_text(&peer, out, len);
    return weir_cstr(out);
}

static void of_app(struct access_line *l, const struct weir_client_result *r, const char *where)
{
    l->queue_us = (int64_t)r->queued_us;
    l->tries = r->tries;
    l->endpoint = weir_cstr(where);
}

bool log_wants_apps(const struct worker *w)
{
    return is_on(w->gw->access_log);
}

void log_access(struct exchange *ex)
{
    struct worker *w = ex->worker;
    char peer[INET6_ADDRSTRLEN + 8];
    if (!is_on(w->gw->access_log) || (ex->route && !ex->route->conf->log)) return;
    struct access_line l = {.peer = peer_text(ex, peer, sizeof peer), .id = exchange_id(ex), .queue_us = -1, .first_us = -1, .came = ex->body ? weir_spill_size(ex->body) : 0, .status = ex->status, .sent = ex->sent, .us = w->loop->now_us - ex->begun_us,
                            .referer = field(ex, "Referer"), .agent = field(ex, "User-Agent"), .why = ex->why ? weir_cstr(ex->why) : WEIR_STR(""),
                            .pool = ex->asked ? weir_cstr(ex->asked->conf->name) : ex->route && ex->route->pool_conf ? weir_cstr(ex->route->pool_conf->name) : WEIR_STR("-"),
                            .user = ex->user,
                            .site = ex->site && ex->site->conf->name_count ? weir_cstr(ex->site->conf->names[0]) : WEIR_STR("")};
    if (ex->req) {
        l.method = ex->req->method;
        l.target = ex->req->target;
        l.host = guards_host(ex);
        l.protocol = http_protocol(ex->req);
    }
    if (ex->note) of_app(&l, &ex->note->result, ex->note->where);
    if (ex->first_us) l.first_us = (int64_t)(ex->first_us - ex->begun_us);
    access_line(w, &l);
}

static struct weir_str param(const struct front_req *r, const char *name)
{
    struct weir_str s = front_param(r, name);
    return s.len ? s : WEIR_STR("-");
}

void log_front(const struct front_req *r)
{
    struct worker *w = r->worker;
    char peer[INET6_ADDRSTRLEN + 8] = "-";
    if (!is_on(w->gw->access_log)) return;
    if (r->front && r->front->peer.ss_family != AF_UNIX) weir_address_text(&r->front->peer, peer, sizeof peer);
    struct access_line l = {.peer = weir_cstr(peer), .id = front_param(r, "REQUEST_ID"), .queue_us = -1, .first_us = -1, .came = r->body ? weir_spill_size(r->body) : 0, .method = param(r, "REQUEST_METHOD"), .target = param(r, "REQUEST_URI"),
                            .protocol = param(r, "SERVER_PROTOCOL"), .host = param(r, "HTTP_HOST"), .status = r->status, .sent = r->sent, .us = w->loop->now_us - r->begun_us,
                            .referer = param(r, "HTTP_REFERER"), .agent = param(r, "HTTP_USER_AGENT"),
                            .pool = r->pool_conf ? weir_cstr(r->pool_conf->name) : WEIR_STR("-")};
    if (r->noted) of_app(&l, &r->note.result, r->note.where);
    access_line(w, &l);
}

WEIR_PRINTF(2, 0) static struct weir_str format(char line[static ERROR_MAX], const char *fmt, va_list ap)
{
    int n = vsnprintf(line, ERROR_MAX, fmt, ap);
    return weir_str(line, n < 0 ? 0 : n < ERROR_MAX ? (size_t)n : ERROR_MAX - 1);
}

static void error_line(struct worker *w, struct weir_str head, struct weir_str line)
{
    char *to = weir_buf_room(&w->err_buf, LOG_LINE_MAX);
    if (!to) return;
    char *p = log_text(to, to + LOG_LINE_MAX - 1, head);
    p = log_escaped(p, to + LOG_LINE_MAX - 1, line);
    *p++ = '\n';
    weir_buf_added(&w->err_buf, (size_t)(p - to));
    arm(w);
}

/* ---- stderr of requests ---- */

static void tell_dropped(struct worker *w, struct gateway_pool *gp)
{
    uint64_t dropped = atomic_exchange_explicit(&gp->log_dropped, 0, memory_order_relaxed);
    if (dropped) log_error(w, "pool %s: %llu lines of its requests' stderr were dropped: too many in a second", weir_pool_name(gp->pool), (unsigned long long)dropped);
}

/* So many lines a second of each pool, on all threads together; a long one counts as several. */
static bool may_log(struct worker *w, const struct snapshot_pool *pool, size_t len)
{
    struct gateway_pool *gp = pool->in;
    uint32_t rate = pool->conf->log_rate;
    int64_t now = w->loop->unix_seconds;
    if (!rate) return true;
    if (atomic_exchange_explicit(&gp->log_second, now, memory_order_relaxed) != now) {
        atomic_store_explicit(&gp->log_lines, 0, memory_order_relaxed);
        tell_dropped(w, gp);
    }
    if (atomic_fetch_add_explicit(&gp->log_lines, 1 + len / LINE_COST, memory_order_relaxed) < rate) return true;
    atomic_fetch_add_explicit(&gp->log_dropped, 1, memory_order_relaxed);
    return false;
}

void log_tick(struct worker *w)
{
    for (struct gateway_pool *gp = w->gw->pools; gp; gp = gp->next)
        if (atomic_load_explicit(&gp->log_dropped, memory_order_relaxed) && atomic_load_explicit(&gp->log_second, memory_order_relaxed) != w->loop->unix_seconds)
            tell_dropped(w, gp);
}

/* In the form that control writes, too. goes_on: a long line's next piece follows. */
static void app_line(struct worker *w, const char *pool, const char *where, struct weir_str id, struct weir_str line, bool goes_on)
{
    bool json = w->snap->conf->app_log_json, pid = where[0] >= '0' && where[0] <= '9' && !strpbrk(where, ".:");
    char *to = weir_buf_room(&w->app_buf, APP_LINE_MAX);
    if (!to) return;
    char *p = to;
    const char *end = to + APP_LINE_MAX - 32;
    if (json) {
        p = log_json_text(p, end, WEIR_STR("{\"time\":\""), log_utc_time(w));
        p = log_json_text(p, end, WEIR_STR(",\"pool\":\""), weir_cstr(pool));
        p = pid ? log_text(log_text(p, end, WEIR_STR(",\"pid\":")), end, weir_cstr(where)) : log_json_text(p, end, WEIR_STR(",\"at\":\""), weir_cstr(where));
        if (id.len) p = log_json_text(p, end, WEIR_STR(",\"id\":\""), id);
        p = log_json_text(p, end, WEIR_STR(",\"stream\":\"request\",\"line\":\""), line);
        p += sprintf(p, goes_on ? ",\"goes_on\":true}" : "}");
    } else {
        p += snprintf(p, 400, "%s [%.64s %.110s request%s%.*s] ", log_utc_time(w).ptr, pool, where[0] ? where : "-", id.len ? " " : "", (int)id.len, id.ptr);
        p += weir_text_escape(p, (size_t)(end - p), line.ptr, line.len);
    }
    *p++ = '\n';
    weir_buf_added(&w->app_buf, (size_t)(p - to));
    arm(w);
}

void log_app_stderr(struct worker *w, const struct weir_client_req *req, const struct snapshot_pool *pool, struct weir_str id, struct weir_str bytes)
{
    char head[400], where[128] = "";
    weir_client_req_where(req, where, sizeof where);
    int n = snprintf(head, sizeof head, "[%s %s%s%.*s] ", pool->conf->name, where[0] ? where : "-", id.len ? " " : "", (int)id.len, id.ptr);
    struct weir_str prefix = weir_str(head, n > 0 ? (size_t)n : 0);
    if (prefix.len >= sizeof head) prefix.len = sizeof head - 1;
    size_t most = is_on(w->gw->app_log) ? APP_PIECE : ERROR_PIECE;
    while (bytes.len) { /* a line each, a long one in pieces */
        const char *nl = memchr(bytes.ptr, '\n', bytes.len);
        size_t all = nl ? (size_t)(nl - bytes.ptr) : bytes.len, len = all < most ? all : most;
        struct weir_str line = weir_str(bytes.ptr, len);
        if (line.len && may_log(w, pool, line.len)) {
            if (is_on(w->gw->app_log)) app_line(w, pool->conf->name, where, id, line, len < all);
            else error_line(w, prefix, line);
        }
        len += nl && len == all;
        bytes.ptr += len;
        bytes.len -= len;
        if (weir_buf_len(&w->err_buf) >= GATHER || weir_buf_len(&w->app_buf) >= GATHER) log_flush(w);
    }
}

void log_error(struct worker *w, const char *fmt, ...)
{
    char line[ERROR_MAX];
    va_list ap;
    va_start(ap, fmt);
    struct weir_str text = format(line, fmt, ap);
    va_end(ap);
    error_line(w, OURS, text);
}

/* ---- what the first thread has to say, also before there are lines ---- */

static void say(struct gateway *gw, struct weir_str head, struct weir_str line)
{
    struct worker *first = &gw->workers[0];
    if (first->loop) error_line(first, head, line);
    else {
        char text[ERROR_MAX * 4];
        int len = (int)weir_text_escape(text, sizeof text, line.ptr, line.len);
        fprintf(stderr, "%.*s%.*s\n", (int)head.len, head.ptr, len, text);
    }
}

void gateway_say(struct gateway *gw, const char *fmt, ...)
{
    char line[ERROR_MAX];
    va_list ap;
    va_start(ap, fmt);
    struct weir_str text = format(line, fmt, ap);
    va_end(ap);
    say(gw, OURS, text);
}

void gateway_say_lines(struct gateway *gw, struct weir_str text)
{
    while (text.len) {
        const char *nl = memchr(text.ptr, '\n', text.len);
        size_t len = nl ? (size_t)(nl - text.ptr) : text.len;
        say(gw, WEIR_STR(""), weir_str(text.ptr, len));
        len += nl != NULL;
        text.ptr += len;
        text.len -= len;
    }
}

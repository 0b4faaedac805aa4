/* SPDX-License-Identifier: MIT */
/* What apps write to their stdout and stderr: line by line to our stderr, or to the app log of the configuration, with time, pool,
 * pid and stream beside it and control bytes escaped. So many lines a second of each pool; what is beyond is counted and told. A
 * thread writes them, another one our own lines: whoever does not read them (a stopped terminal, a full pipe) stops nobody. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "control/internal.h"

#define LINE_BYTES 4096
#define LINE_COST  1024       /* bytes of a line that count as one */
#define WAIT_MAX   (4u << 20) /* bytes of lines that wait; more are lost, and counted */
#define END_MS     200        /* what waits at the end has this long */

struct writer {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    struct weir_buf waiting;
    uint64_t lost;
    bool runs, ends;
    int fd;
};
static struct writer terminal = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .fd = STDERR_FILENO};
static struct writer app_log = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .fd = -1};
static FILE *stream;
static struct { /* the app log that the configuration names */
    char *path;
    bool json, used; /* used: lines go there */
} apps;

/* ---- the writers ---- */

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    struct weir_buf now = {0};
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!weir_buf_len(&w->waiting) && !w->lost && !w->ends) pthread_cond_wait(&w->more, &w->lock);
        if (!weir_buf_len(&w->waiting) && !w->lost) break;
        struct weir_buf taken = w->waiting;
        uint64_t lost = w->lost;
        w->waiting = now;
        w->lost = 0;
        pthread_mutex_unlock(&w->lock);
        weir_write_log(w->fd, weir_buf_ptr(&taken), weir_buf_len(&taken));
        if (lost) {
            char line[96];
            int n = snprintf(line, sizeof line, "weir: %llu pieces of log were lost: their reader is too slow\n", (unsigned long long)lost);
            weir_write_log(STDERR_FILENO, line, (size_t)n);
        }
        weir_buf_reset(&taken, 65536);
        now = taken;
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    weir_buf_fini(&now);
    return NULL;
}

static void put(struct writer *w, const char *p, size_t len)
{
    pthread_mutex_lock(&w->lock);
    bool direct = !w->runs;
    if (!direct && (weir_buf_len(&w->waiting) + len > WAIT_MAX || weir_buf_append(&w->waiting, p, len) < 0)) w->lost++;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    if (direct) weir_write_log(w->fd, p, len);
}

static void writer_begin(struct writer *w)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are the main thread's */
    w->runs = pthread_create(&w->thread, NULL, writer_main, w) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* False: it hangs with its reader, and ends with the process. */
static bool writer_end(struct writer *w, const struct timespec *until)
{
    if (!w->runs) return true;
    pthread_mutex_lock(&w->lock);
    w->ends = true;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    if (pthread_timedjoin_np(w->thread, NULL, until) != 0) return false;
    weir_buf_fini(&w->waiting);
    return true;
}

static ssize_t stream_write(void *cookie, const char *p, size_t len)
{
    (void)cookie;
    put(&terminal, p, len);
    return (ssize_t)len;
}

FILE *output_stream(void)
{
    return stream ? stream : stderr;
}

void output_begin(void)
{
    stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = stream_write});
    if (stream) setvbuf(stream, NULL, _IOLBF, BUFSIZ);
    writer_begin(&terminal);
}

void output_end(void)
{
    struct timespec until;
    if (stream) fflush(stream);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += END_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    if (writer_end(&app_log, &until) && app_log.fd >= 0) close(app_log.fd);
    free(apps.path);
    if (!writer_end(&terminal, &until)) return;
    if (stream) fclose(stream);
    stream = NULL;
}

/* ---- the app log ---- */

/* Opened under the number that the thread writes to: what it writes just now still goes to the old one. */
static bool open_app_log(void)
{
    int fd = weir_open_append(apps.path, 0660);
    if (fd < 0) {
        say("cannot open the app log %s: %s: %s. Its folder must be writable by the user that control runs as (weir { user CONTROL GATEWAY } [weir weir-gw])",
            apps.path, strerror(errno), apps.used ? "the old file stays in use" : "lines of apps come here");
        return false;
    }
    if (app_log.fd < 0) {
        app_log.fd = fd;
        writer_begin(&app_log);
        return true;
    }
    bool fine = dup3(fd, app_log.fd, O_CLOEXEC) >= 0;
    close(fd);
    return fine;
}

void output_apps(const char *path, bool json)
{
    bool same = path && apps.path && strcmp(path, apps.path) == 0;
    apps.json = json;
    if (same && apps.used) return;
    free(apps.path);
    apps.path = path ? strdup(path) : NULL;
    apps.used = false;
    apps.used = apps.path && open_app_log();
}

void output_reopen(void)
{
    if (apps.path && open_app_log()) apps.used = true;
}

/* ---- lines of apps ---- */

int output_watch(struct control *c, int fd, const char *pool, pid_t pid, bool error)
{
    struct output *o = calloc(1, sizeof *o);
    if (!o) {
        close(fd);
        return WEIR_NOMEM;
    }
    o->pid = pid;
    o->error = error;
    snprintf(o->pool, sizeof o->pool, "%s", pool);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return watch_add(c, &o->w, WATCH_OUTPUT, fd);
}

static size_t put_time(char *out, size_t room)
{
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, room, "%Y-%m-%dT%H:%M:%S", &tm);
    return n + (size_t)snprintf(out + n, room - n, ".%03ldZ", ts.tv_nsec / 1000000);
}

/* In the form of the app log: time, pool, pid, stream, and what was said. */
static void put_app(const char *pool, pid_t pid, const char *from, const char *p, size_t len, bool goes_on)
{
    char out[LINE_BYTES * 6 + 256];
    size_t n = 0, room = sizeof out - 32;
    if (apps.json) n += (size_t)snprintf(out, sizeof out, "{\"time\":\"");
    n += put_time(out + n, sizeof out - n);
    n += (size_t)snprintf(out + n, sizeof out - n, apps.json ? "\",\"pool\":\"%s\",\"pid\":%d,\"stream\":\"%s\",\"line\":\"" : " [%s %d %s] ", pool, (int)pid, from);
    n += apps.json ? weir_json_escape(out + n, room - n, p, len) : weir_text_escape(out + n, room - n, p, len);
    if (apps.json) n += (size_t)snprintf(out + n, sizeof out - n, goes_on ? "\",\"goes_on\":true}" : "\"}");
    out[n++] = '\n';
    put(&app_log, out, n);
}

/* goes_on: the line was longer, and the rest follows. */
static void put_line(const struct output *o, const char *p, size_t len, bool goes_on)
{
    char out[LINE_BYTES * 4 + 128];
    if (len && p[len - 1] == '\r' && !goes_on) len--;
    if (apps.used) {
        put_app(o->pool, o->pid, o->error ? "stderr" : "stdout", p, len, goes_on);
        return;
    }
    size_t n = (size_t)snprintf(out, sizeof out, "[%s %d] ", o->pool, (int)o->pid);
    n += weir_text_escape(out + n, sizeof out - n - 1, p, len);
    out[n++] = '\n';
    put(&terminal, out, n);
}

/* ---- so many lines a second ---- */

void output_rate_turn(struct pool *p, int64_t now)
{
    char text[160];
    if (now - p->log_ms < 1000) return;
    if (p->log_dropped) {
        snprintf(text, sizeof text, "%llu lines of its output were dropped: it wrote more than %u in a second", (unsigned long long)p->log_dropped,
                 p->conf ? p->conf->log_rate : 0);
        say("pool %s: %s", p->name, text);
        if (apps.used) put_app(p->name, 0, "weir", text, strlen(text), false);
    }
    p->log_ms = now;
    p->log_lines = p->log_dropped = 0;
}

/* A long line counts as several. */
static bool may_log(struct control *c, const struct output *o, size_t len)
{
    struct pool *p = pool_find(c, o->pool);
    if (!p || !p->conf || !p->conf->log_rate) return true;
    output_rate_turn(p, now_ms());
    if (p->log_lines >= p->conf->log_rate) {
        if (!p->log_dropped++) pool_touch(c, p); /* its turn tells it when the second is over */
        return false;
    }
    p->log_lines += 1 + len / LINE_COST;
    return true;
}

static void take_lines(struct control *c, struct output *o, bool end)
{
    for (;;) {
        char *p = weir_buf_ptr(&o->line);
        size_t len = weir_buf_len(&o->line);
        char *nl = len ? memchr(p, '\n', len) : NULL;
        size_t n = nl ? (size_t)(nl - p) : len;
        if (!nl && len < LINE_BYTES && !(end && len)) return;
        if (n > LINE_BYTES) n = LINE_BYTES; /* a longer line comes in pieces */
        bool goes_on = !nl || (size_t)(nl - p) > n;
        if (may_log(c, o, n)) put_line(o, p, n, goes_on && !(end && n == len));
        weir_buf_consume(&o->line, n + (nl && p[n] == '\n'));
    }
}

void output_event(struct control *c, struct output *o)
{
    for (int i = 0; i < 16; i++) { /* others have their turn, too */
        char *to = weir_buf_room(&o->line, LINE_BYTES);
        ssize_t n = to ? read(o->w.fd, to, LINE_BYTES) : 0;
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n <= 0) {
            take_lines(c, o, true);
            weir_buf_fini(&o->line);
            watch_end(c, &o->w, true);
            return;
        }
        weir_buf_added(&o->line, (size_t)n);
        take_lines(c, o, false);
    }
}

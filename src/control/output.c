/* SPDX-License-Identifier: MIT */
/* What apps write to their stdout and stderr: line by line to ours, with pool and pid in front, control bytes escaped. A thread
 * writes it, and our own lines: whoever does not read them (a stopped terminal, a full pipe) stops nobody. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/internal.h"

#define LINE_BYTES 4096
#define WAIT_MAX   (4u << 20) /* bytes of lines that wait; more are lost, and counted */
#define END_MS     200        /* what waits at the end has this long */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    struct weir_buf waiting;
    uint64_t lost;
    bool runs, ends;
    FILE *stream;
} writer = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

/* ---- the writer ---- */

static void *writer_main(void *arg)
{
    struct weir_buf now = {0};
    pthread_mutex_lock(&writer.lock);
    for (;;) {
        while (!weir_buf_len(&writer.waiting) && !writer.lost && !writer.ends) pthread_cond_wait(&writer.more, &writer.lock);
        if (!weir_buf_len(&writer.waiting) && !writer.lost) break;
        struct weir_buf taken = writer.waiting;
        uint64_t lost = writer.lost;
        writer.waiting = now;
        writer.lost = 0;
        pthread_mutex_unlock(&writer.lock);
        weir_write_log(STDERR_FILENO, weir_buf_ptr(&taken), weir_buf_len(&taken));
        if (lost) {
            char line[96];
            int n = snprintf(line, sizeof line, "weir: %llu pieces of log were lost: their reader is too slow\n", (unsigned long long)lost);
            weir_write_log(STDERR_FILENO, line, (size_t)n);
        }
        weir_buf_reset(&taken, 65536);
        now = taken;
        pthread_mutex_lock(&writer.lock);
    }
    pthread_mutex_unlock(&writer.lock);
    weir_buf_fini(&now);
    return arg;
}

static void put(const char *p, size_t len)
{
    pthread_mutex_lock(&writer.lock);
    bool direct = !writer.runs;
    if (!direct && (weir_buf_len(&writer.waiting) + len > WAIT_MAX || weir_buf_append(&writer.waiting, p, len) < 0)) writer.lost++;
    pthread_cond_signal(&writer.more);
    pthread_mutex_unlock(&writer.lock);
    if (direct) weir_write_log(STDERR_FILENO, p, len);
}

static ssize_t stream_write(void *cookie, const char *p, size_t len)
{
    (void)cookie;
    put(p, len);
    return (ssize_t)len;
}

FILE *output_stream(void)
{
    return writer.stream ? writer.stream : stderr;
}

void output_begin(void)
{
    sigset_t all, old;
    writer.stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = stream_write});
    if (writer.stream) setvbuf(writer.stream, NULL, _IOLBF, BUFSIZ);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are the main thread's */
    writer.runs = pthread_create(&writer.thread, NULL, writer_main, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void output_end(void)
{
    struct timespec until;
    if (writer.stream) fflush(writer.stream);
    if (!writer.runs) return;
    pthread_mutex_lock(&writer.lock);
    writer.ends = true;
    pthread_cond_signal(&writer.more);
    pthread_mutex_unlock(&writer.lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += END_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    if (pthread_timedjoin_np(writer.thread, NULL, &until) != 0) return; /* it hangs with its reader, and ends with the process */
    if (writer.stream) fclose(writer.stream);
    writer.stream = NULL;
    weir_buf_fini(&writer.waiting);
}

/* ---- lines of apps ---- */

int output_watch(struct control *c, int fd, const char *pool, pid_t pid)
{
    struct output *o = calloc(1, sizeof *o);
    if (!o) {
        close(fd);
        return WEIR_NOMEM;
    }
    o->c = c;
    o->pid = pid;
    snprintf(o->pool, sizeof o->pool, "%s", pool);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return watch_add(c, &o->w, WATCH_OUTPUT, fd);
}

/* Length of the printable character at p, 0: none. */
static size_t printable(const unsigned char *p, size_t len)
{
    if (p[0] < 0x80) return p[0] == '\t' || (p[0] >= 0x20 && p[0] != 0x7f);
    size_t n = p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (n == 0 || n > len) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* C1, overlong, surrogates, beyond Unicode */
    return n;
}

size_t output_escape(char *out, size_t room, const char *p, size_t len)
{
    size_t at = 0;
    for (size_t i = 0; i < len && at + 5 < room;) {
        size_t n = printable((const unsigned char *)p + i, len - i);
        if (n) memcpy(out + at, p + i, n);
        at += n ? n : (size_t)snprintf(out + at, 5, "\\x%02x", (unsigned char)p[i]);
        i += n ? n : 1;
    }
    return at;
}

static void put_line(const struct output *o, const char *p, size_t len)
{
    char out[LINE_BYTES * 4 + 128];
    size_t n = (size_t)snprintf(out, sizeof out, "[%s %d] ", o->pool, (int)o->pid);
    if (len && p[len - 1] == '\r') len--;
    n += output_escape(out + n, sizeof out - n - 1, p, len);
    out[n++] = '\n';
    put(out, n);
}

static void take_lines(struct output *o, bool end)
{
    for (;;) {
        char *p = weir_buf_ptr(&o->line);
        size_t len = weir_buf_len(&o->line);
        char *nl = len ? memchr(p, '\n', len) : NULL;
        size_t n = nl ? (size_t)(nl - p) : len;
        if (!nl && len < LINE_BYTES && !(end && len)) return;
        if (n > LINE_BYTES) n = LINE_BYTES; /* a longer line comes in pieces */
        put_line(o, p, n);
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
            take_lines(o, true);
            weir_buf_fini(&o->line);
            watch_end(c, &o->w, true);
            return;
        }
        weir_buf_added(&o->line, (size_t)n);
        take_lines(o, false);
    }
}

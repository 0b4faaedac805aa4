/* SPDX-License-Identifier: MIT */
/* What apps write to their stdout and stderr: line by line to ours, with pool and pid in front, control bytes escaped. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/internal.h"

#define LINE_BYTES 4096

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
    if (write(STDERR_FILENO, out, n) < 0) return; /* a terminal that is gone must not stop us */
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

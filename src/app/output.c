/* SPDX-License-Identifier: MIT */
/* What a request answers: its header, what is written, the rest of a body from a file, its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/internal.h"

#define PRINTF_MAX 65536
#define FLUSH_REQUESTS 16
#define FLUSH_US 100

/* ---- header ---- */

int weir_app_req_header(struct weir_app_req *r, const char *name, const char *value)
{
    struct weir_str n = weir_cstr(name), v = weir_cstr(value);
    if (r->head_sent || r->head_closed || n.len == 0 || !weir_str_all(n, WEIR_BYTE_TOKEN) || !weir_str_field(v)) return WEIR_INVALID;
    char *p = weir_buf_room(&r->head, n.len + v.len + 4); /* whole or not at all */
    if (!p) return WEIR_NOMEM;
    if (weir_str_ieq(n, WEIR_STR("Content-Type")) || weir_str_ieq(n, WEIR_STR("Location"))) r->has_type = true;
    memcpy(p, n.ptr, n.len);
    memcpy(p + n.len, ": ", 2);
    memcpy(p + n.len + 2, v.ptr, v.len);
    memcpy(p + n.len + 2 + v.len, "\r\n", 2);
    weir_buf_added(&r->head, n.len + v.len + 4);
    return WEIR_OK;
}

int weir_app_req_status(struct weir_app_req *r, int status)
{
    char line[24];
    if (r->head_sent || r->head_closed || status < 200 || status > 599) return WEIR_INVALID;
    if (status == 200) return WEIR_OK;
    int n = snprintf(line, sizeof line, "Status: %d\r\n", status);
    return weir_buf_append(&r->head, line, (size_t)n);
}

int weir_app_req_own_header(struct weir_app_req *r)
{
    if (r->head_sent || weir_buf_len(&r->head)) return WEIR_INVALID;
    r->head_sent = true;
    return WEIR_OK;
}

/* What goes first: WEIR_AGAIN as long as it has not gone. */
static int send_first(struct weir_app_req *r, enum weir_stream s, struct weir_buf *b)
{
    int64_t n = weir_wire_app_write(r->conn->wire, r->id, s, weir_buf_ptr(b), weir_buf_len(b));
    if (n < 0) return (int)n;
    weir_buf_consume(b, (size_t)n);
    return weir_buf_len(b) ? WEIR_AGAIN : WEIR_OK; /* a tiny window */
}

/* The header goes out in front of the first body byte. (FC1-6.1-h) */
static int send_head(struct weir_app_req *r)
{
    static const char type[] = "Content-Type: text/plain; charset=utf-8\r\n";
    if (r->head_sent) return WEIR_OK;
    if (!r->head_closed) { /* else a part of it went in an earlier try */
        if (!r->has_type && weir_buf_append(&r->head, type, sizeof type - 1) < 0) return WEIR_NOMEM;
        r->has_type = true;
        if (weir_buf_append(&r->head, "\r\n", 2) < 0) return WEIR_NOMEM;
        r->head_closed = true;
    }
    int status = send_first(r, WEIR_STDOUT, &r->head);
    r->head_sent = status == WEIR_OK;
    return status;
}

static int send_kept(struct weir_app_req *r, enum weir_stream s)
{
    if (s == WEIR_STDOUT) return send_head(r);
    return weir_buf_len(&r->err) ? send_first(r, s, &r->err) : WEIR_OK;
}

/* ---- output ---- */

/* Tells when the connection's output has room again. Where it is credit that is missing, the wire machine tells when some came. */
static void want_room(struct weir_app_req *r)
{
    r->wants_room = true;
    r->conn->wants_room++;
}

static int64_t write_some(struct weir_app_req *r, enum weir_stream s, const char *p, size_t len)
{
    struct app_conn *k = r->conn;
    const void *out;
    if (r->aborted || !k) return WEIR_ABORTED;
    size_t waiting = weir_wire_app_output(k->wire, &out);
    if (waiting >= r->app->o.output_buffer) {
        want_room(r);
        return 0;
    }
    int status = send_kept(r, s);
    weir_app_conn_dirty(k);
    if (status == WEIR_AGAIN) return 0;
    if (status < 0) return status;
    size_t room = r->app->o.output_buffer - waiting;
    int64_t n = weir_wire_app_write(k->wire, r->id, s, p, len < room ? len : room);
    if (n >= 0 && (size_t)n == room && room < len) want_room(r);
    if (!threaded(r->app) && weir_wire_app_output(k->wire, &out) >= FLUSH_BYTES && waiting < FLUSH_BYTES) weir_app_conn_flush(k);
    return n;
}

/* Threads. False: the deadline came first. */
static bool wait_for_room(struct weir_app_req *r)
{
    r->ev_room = false;
    weir_loop_wake(r->app->loop);
    while (!r->ev_room && !r->aborted)
        if (!weir_app_req_wait(r)) return false;
    return true;
}

static int64_t write_all(struct weir_app_req *r, enum weir_stream s, const char *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        int64_t n = write_some(r, s, p + done, len - done);
        if (n < 0) return n;
        done += (size_t)n;
        if (done == len) break;
        if (!wait_for_room(r)) return WEIR_TIMEOUT;
    }
    return (int64_t)len;
}

int64_t weir_app_req_write(struct weir_app_req *r, enum weir_stream s, const void *buf, size_t len)
{
    if ((s != WEIR_STDOUT && s != WEIR_STDERR) || (s == WEIR_STDOUT && r->body_over)) return WEIR_INVALID; /* FC1-7-c */
    app_lock(r->app);
    r->touched = true;
    int64_t n = threaded(r->app) ? write_all(r, s, buf, len) : write_some(r, s, buf, len);
    if (n >= 0 && (size_t)n < len) r->kept = false;
    app_unlock(r->app);
    return n;
}

/* Events: a text that is larger than what there is room for, perhaps than the whole window. What does not go now goes first later. */
static int64_t write_text(struct weir_app_req *r, enum weir_stream s, const char *text, size_t len)
{
    struct weir_buf *rest = s == WEIR_STDOUT ? &r->head : &r->err;
    const void *out;
    if ((s != WEIR_STDOUT && s != WEIR_STDERR) || (s == WEIR_STDOUT && r->body_over)) return WEIR_INVALID;
    r->touched = true;
    int status = send_kept(r, s);
    weir_app_conn_dirty(r->conn);
    if (status < 0 && status != WEIR_AGAIN) return status;
    bool full = weir_wire_app_output(r->conn->wire, &out) >= r->app->o.output_buffer, credit = weir_wire_app_room(r->conn->wire, r->id, s) > 0;
    if (status == WEIR_AGAIN || full || !credit) {
        if (full) want_room(r);
        else if (!credit && write_some(r, s, text, 1) != 0) return WEIR_AGAIN; /* takes nothing, and marks the want of credit */
        r->kept = false;
        return WEIR_AGAIN;
    }
    char *to = weir_buf_room(rest, len);
    if (!to) return WEIR_NOMEM;
    int64_t n = write_some(r, s, text, len);
    if (n < 0 || (size_t)n == len) return n;
    memcpy(to, text + n, len - (size_t)n);
    weir_buf_added(rest, len - (size_t)n);
    if (s == WEIR_STDOUT) {
        r->head_closed = r->has_type = true;
        r->head_sent = false;
    }
    r->kept = true;
    return (int64_t)len;
}

bool weir_app_req_send_kept(struct weir_app_req *r)
{
    bool kept = r->kept;
    if (!r->conn || r->aborted || (!weir_buf_len(&r->err) && !(r->head_closed && weir_buf_len(&r->head)))) return true;
    int err = send_kept(r, WEIR_STDERR), out = r->head_closed ? send_kept(r, WEIR_STDOUT) : WEIR_OK;
    weir_app_conn_dirty(r->conn);
    if (err == WEIR_AGAIN || out == WEIR_AGAIN) return false;
    r->kept = false;
    return !kept;
}

int64_t weir_app_req_printf(struct weir_app_req *r, enum weir_stream s, const char *fmt, ...)
{
    char small[1024], *text = small;
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (len < 0 || len > PRINTF_MAX) return WEIR_INVALID;
    if ((size_t)len >= sizeof small) {
        text = malloc((size_t)len + 1);
        if (!text) return WEIR_NOMEM;
        va_start(ap, fmt);
        vsnprintf(text, (size_t)len + 1, fmt, ap);
        va_end(ap);
    }
    bool waits = threaded(r->app) || !r->conn || r->aborted;
    int64_t n = waits ? weir_app_req_write(r, s, text, (size_t)len) : write_text(r, s, text, (size_t)len);
    if (text != small) free(text);
    return n;
}

void weir_app_req_flush(struct weir_app_req *r)
{
    app_lock(r->app);
    int status = r->conn && !r->aborted ? send_head(r) : WEIR_ABORTED;
    if (status == WEIR_OK || status == WEIR_AGAIN) { /* a part of it may go */
        weir_app_conn_dirty(r->conn);
        if (threaded(r->app)) weir_loop_wake(r->app->loop);
        else weir_app_conn_flush(r->conn);
    }
    app_unlock(r->app);
}

size_t weir_app_req_room(const struct weir_app_req *r, enum weir_stream s)
{
    const void *out;
    size_t room = 0;
    app_lock(r->app);
    if (r->conn && !r->aborted) {
        size_t waiting = weir_wire_app_output(r->conn->wire, &out), most = r->app->o.output_buffer;
        room = weir_wire_app_room(r->conn->wire, r->id, s);
        if (room > most) room = most;
        room = room > waiting ? room - waiting : 0;
    }
    app_unlock(r->app);
    return room;
}

/* ---- the rest of the body from a file ---- */

/* Events: as much as there is room for. */
void weir_app_req_pump(struct weir_app_req *r)
{
    char *piece = r->app->scratch;
    while (r->file_left > 0 && !r->aborted) {
        ssize_t n = pread(r->from_fd, piece, r->file_left < SCRATCH ? (size_t)r->file_left : SCRATCH, r->file_at);
        if (n < 0 && errno == EINTR) continue;
        int64_t sent = n > 0 ? write_some(r, WEIR_STDOUT, piece, (size_t)n) : WEIR_CLOSED;
        if (sent < 0) {
            r->cut = true;
            break;
        }
        r->file_at += sent;
        r->file_left -= sent;
        if (sent < n) return; /* ROOM comes */
    }
    close(r->from_fd);
    r->from_fd = -1;
}

/* Threads: all of it. */
static int copy_file(struct weir_app_req *r, int fd, int64_t at, int64_t left)
{
    char piece[16384];
    while (left > 0) {
        ssize_t n = pread(fd, piece, left < (int64_t)sizeof piece ? (size_t)left : sizeof piece, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            r->cut = true;
            return n < 0 ? WEIR_SYSTEM : WEIR_CLOSED;
        }
        int64_t sent = weir_app_req_write(r, WEIR_STDOUT, piece, (size_t)n);
        if (sent < 0) return (int)sent;
        at += n;
        left -= n;
    }
    r->body_over = true;
    return WEIR_OK;
}

int weir_app_req_write_fd(struct weir_app_req *r, int fd, int64_t offset, int64_t len)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return WEIR_SYSTEM;
    if (!S_ISREG(st.st_mode) || offset < 0 || r->body_over) return WEIR_INVALID;
    if (len < 0) len = st.st_size > offset ? st.st_size - offset : 0;
    r->touched = true;
    if (threaded(r->app)) return copy_file(r, fd, offset, len);
    if (r->aborted) return WEIR_ABORTED;
    r->from_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (r->from_fd < 0) return WEIR_SYSTEM;
    r->file_at = offset;
    r->file_left = len;
    r->body_over = true;
    weir_app_req_pump(r);
    return WEIR_OK;
}

/* ---- the end ---- */

/* The header may still wait for room in a tiny window: WEIR_AGAIN, then it is asked again. */
static int finish_head(struct weir_app_req *r)
{
    int status;
    while ((status = send_kept(r, WEIR_STDERR)) == WEIR_AGAIN || (status == WEIR_OK && (status = send_head(r)) == WEIR_AGAIN)) {
        weir_app_conn_dirty(r->conn);
        if (!threaded(r->app)) return status;
        if (!wait_for_room(r)) return WEIR_TIMEOUT;
        if (r->aborted || !r->conn) return WEIR_ABORTED;
    }
    return status;
}

/* Answers of a turn leave together, but one does not wait long for the others (DESIGN section 4, flush). */
static void flush_when_due(struct app_conn *k)
{
    weir_app_conn_dirty(k);
    if (threaded(k->app)) return;
    if (++k->batched >= FLUSH_REQUESTS || weir_loop_clock_us(k->app->loop) - k->batch_since_us >= FLUSH_US) weir_app_conn_flush(k);
}

void weir_app_req_finish(struct weir_app_req *r, uint32_t app_status, uint8_t protocol_status)
{
    int status = WEIR_OK;
    if (r->conn && protocol_status == WEIR_WIRE_REQUEST_COMPLETE && !r->aborted) status = r->from_fd >= 0 ? WEIR_AGAIN : finish_head(r);
    if (status == WEIR_AGAIN) {
        r->ending = true;
        r->end_status = app_status;
        return;
    }
    struct app_conn *k = r->conn;
    if (k) {
        if ((status < 0 || r->cut) && !app_status) app_status = 1;
        if (weir_wire_app_end(k->wire, r->id, app_status, protocol_status) < 0) k->broken = true; /* FC1-5.4-a, FC1-6.2-e, FC1-6.4-e */
        k->input_over = weir_wire_app_closing(k->wire) && r->input_ended[0] && r->input_ended[1];
        (void)weir_app_req_not_full(r);
    }
    weir_app_req_free(r);
    if (k) flush_when_due(k);
}

int weir_app_req_refuse(struct weir_app_req *r)
{
    struct weir_app *a = r->app;
    if (r->touched || threaded(a)) return WEIR_INVALID;
    weir_app_req_finish(r, 0, WEIR_WIRE_OVERLOADED);
    return WEIR_OK;
}

void weir_app_req_end(struct weir_app_req *r, uint32_t app_status)
{
    if (threaded(r->app)) return; /* the handler's return does it */
    weir_app_req_finish(r, app_status, WEIR_WIRE_REQUEST_COMPLETE);
}

/* SPDX-License-Identifier: MIT */
/* log_line: see log_line.h. */
#include "gateway/log_line.h"

#include <time.h>

#include "gateway/internal.h"

char *log_text(char *to, const char *end, struct weir_str s)
{
    size_t n = s.len < (size_t)(end - to) ? s.len : (size_t)(end - to);
    if (n) weir_copy(to, s.ptr, n);
    return to + n;
}

char *log_escaped(char *to, const char *end, struct weir_str s)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < s.len && to + 4 < end; i++) {
        size_t run = i;
        while (run < s.len && weir_byte_class[(unsigned char)s.ptr[run]] & WEIR_BYTE_PLAIN) run++;
        if (run > i) {
            to = log_text(to, end - 4, weir_str(s.ptr + i, run - i));
            i = run - 1;
            continue;
        }
        *to++ = '\\';
        *to++ = 'x';
        *to++ = hex[(unsigned char)s.ptr[i] >> 4];
        *to++ = hex[(unsigned char)s.ptr[i] & 15];
    }
    return to;
}

static char *number(char *to, const char *end, uint64_t v)
{
    return end - to >= 20 ? to + weir_u64_text(to, v) : to;
}

static struct weir_str log_time(struct worker *w)
{
    if (w->log_time_at != w->loop->unix_seconds) {
        struct tm tm;
        time_t t = (time_t)w->loop->unix_seconds;
        w->log_time_at = w->loop->unix_seconds;
        localtime_r(&t, &tm);
        strftime(w->log_time, sizeof w->log_time, "%d/%b/%Y:%H:%M:%S %z", &tm);
    }
    return weir_cstr(w->log_time);
}

struct weir_str log_utc_time(struct worker *w)
{
    if (w->utc_time_at != w->loop->unix_seconds) {
        struct tm tm;
        time_t t = (time_t)w->loop->unix_seconds;
        w->utc_time_at = w->loop->unix_seconds;
        gmtime_r(&t, &tm);
        strftime(w->utc_time, sizeof w->utc_time, "%Y-%m-%dT%H:%M:%SZ", &tm);
    }
    return weir_cstr(w->utc_time);
}

static struct weir_str at_most(struct weir_str s, size_t len)
{
    return weir_str(s.ptr, s.len < len ? s.len : len);
}

/* ---- JSON ---- */

char *log_json_text(char *to, const char *end, struct weir_str name, struct weir_str value)
{
    to = log_text(to, end, name);
    to += weir_json_escape(to, (size_t)(end - to), value.ptr, value.len);
    return log_text(to, end, WEIR_STR("\""));
}

static char *json_number(char *to, const char *end, struct weir_str name, uint64_t v)
{
    return number(log_text(to, end, name), end, v);
}

/* Of what is there; "-" is nothing. */
static char *json_some(char *to, const char *end, struct weir_str name, struct weir_str value, size_t most)
{
    return value.len && !weir_str_eq(value, WEIR_STR("-")) ? log_json_text(to, end, name, at_most(value, most)) : to;
}

/* One object; the room is enough for all of it, whatever the client sent. */
static size_t json_line(struct worker *w, char *to, const struct access_line *l)
{
    char *p = to;
    const char *end = to + LOG_JSON_MAX - 16;
    p = log_json_text(p, end, WEIR_STR("{\"time\":\""), log_utc_time(w));
    p = json_some(p, end, WEIR_STR(",\"id\":\""), l->id, 128);
    p = json_some(p, end, WEIR_STR(",\"address\":\""), l->peer, 64);
    p = json_some(p, end, WEIR_STR(",\"user\":\""), l->user, 64);
    p = json_some(p, end, WEIR_STR(",\"method\":\""), l->method, 32);
    p = json_some(p, end, WEIR_STR(",\"target\":\""), l->target, 600);
    p = json_some(p, end, WEIR_STR(",\"protocol\":\""), l->protocol, 20);
    p = json_some(p, end, WEIR_STR(",\"host\":\""), l->host, 255);
    p = json_some(p, end, WEIR_STR(",\"site\":\""), l->site, 255);
    if (l->status) p = json_number(p, end, WEIR_STR(",\"status\":"), (uint64_t)l->status);
    p = json_number(p, end, WEIR_STR(",\"bytes\":"), l->sent);
    p = json_number(p, end, WEIR_STR(",\"bytes_in\":"), l->came);
    p = json_number(p, end, WEIR_STR(",\"us\":"), l->us);
    if (l->queue_us >= 0) p = json_number(p, end, WEIR_STR(",\"queue_us\":"), (uint64_t)l->queue_us);
    if (l->first_us >= 0) p = json_number(p, end, WEIR_STR(",\"first_us\":"), (uint64_t)l->first_us);
    p = json_some(p, end, WEIR_STR(",\"pool\":\""), l->pool, 64);
    p = json_some(p, end, WEIR_STR(",\"endpoint\":\""), l->endpoint, 128);
    if (l->tries) p = json_number(p, end, WEIR_STR(",\"tries\":"), l->tries);
    p = json_some(p, end, WEIR_STR(",\"referer\":\""), l->referer, 200);
    p = json_some(p, end, WEIR_STR(",\"agent\":\""), l->agent, 200);
    p = json_some(p, end, WEIR_STR(",\"why\":\""), l->why, 200);
    *p++ = '}';
    *p++ = '\n';
    return (size_t)(p - to);
}

/* ---- combined, with what the configuration adds to it ---- */

static char *word(char *to, const char *end, struct weir_str s, size_t most)
{
    to = log_text(to, end, WEIR_STR(" "));
    return s.len ? log_escaped(to, end, at_most(s, most)) : log_text(to, end, WEIR_STR("-"));
}

static char *quoted(char *to, const char *end, struct weir_str s, size_t most)
{
    to = log_text(to, end, WEIR_STR(" \""));
    to = log_escaped(to, end, at_most(s, most));
    return log_text(to, end, WEIR_STR("\""));
}

static char *count(char *to, const char *end, int64_t n)
{
    to = log_text(to, end, WEIR_STR(" "));
    return n < 0 ? log_text(to, end, WEIR_STR("-")) : number(to, end, (uint64_t)n);
}

/* [SITE] [MICROSECONDS QUEUE FIRST] [POOL ENDPOINT TRIES] [BYTES-IN] [ID] */
static char *added(char *p, const char *end, unsigned format, const struct access_line *l)
{
    if (format & WEIR_LOG_SITE) p = word(p, end, l->site, 255);
    if (format & WEIR_LOG_TIME) {
        p = count(p, end, (int64_t)l->us);
        p = count(p, end, l->queue_us);
        p = count(p, end, l->first_us);
    }
    if (format & WEIR_LOG_POOL) {
        p = word(p, end, l->pool, 64);
        p = word(p, end, l->endpoint, 128);
        p = count(p, end, l->tries ? (int64_t)l->tries : -1);
    }
    if (format & WEIR_LOG_BYTES) p = count(p, end, (int64_t)l->came);
    if (format & WEIR_LOG_ID) p = word(p, end, l->id, 128);
    return p;
}

/* ADDRESS - USER [TIME] "METHOD TARGET HTTP/1.x" STATUS BYTES "REFERER" "AGENT" */
static size_t combined_line(struct worker *w, char *to, unsigned format, const struct access_line *l)
{
    char *p = to;
    const char *end = to + LOG_JSON_MAX - 16;
    p = log_text(p, end, l->peer);
    p = log_text(p, end, WEIR_STR(" -"));
    p = word(p, end, l->user, 64);
    p = log_text(p, end, WEIR_STR(" ["));
    p = log_text(p, end, log_time(w));
    p = log_text(p, end, WEIR_STR("] \""));
    if (l->method.len) {
        p = log_escaped(p, end, at_most(l->method, 100));
        p = word(p, end, l->target, 600);
        p = word(p, end, l->protocol, 20);
    } else {
        p = log_text(p, end, WEIR_STR("-"));
    }
    p = log_text(p, end, WEIR_STR("\""));
    p = count(p, end, l->status ? l->status : -1);
    p = count(p, end, (int64_t)l->sent);
    p = quoted(p, end, l->referer, 200);
    p = quoted(p, end, l->agent, 200);
    p = added(p, end, format, l);
    *p++ = '\n';
    return (size_t)(p - to);
}

size_t log_access_line(struct worker *w, char *to, const struct access_line *l)
{
    unsigned format = w->snap->conf->log_format;
    return format & WEIR_LOG_JSON ? json_line(w, to, l) : combined_line(w, to, format, l);
}

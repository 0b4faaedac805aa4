/* SPDX-License-Identifier: MIT */
/* Content that is compressed on its way to the client: whether, and by what of the worker's states. The bytes themselves are made by
 * http/gzip.c. */
#include <stdio.h>

#include "gateway/internal.h"

#define STATES_MAX    128           /* of one thread, 128 KiB each: beyond it content goes as it is */
#define FILE_MAX_SIZE (16u << 20)   /* of a file: larger ones are for `precompressed` */
#define PIECE         16384

/* ---- whether ---- */

static bool listed(struct weir_str list, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n <= list.len; i++) {
        bool begins = i == 0 || list.ptr[i - 1] == ',' || list.ptr[i - 1] == ' ' || list.ptr[i - 1] == '\t';
        bool ends = i + n == list.len || strchr(", \t=;", list.ptr[i + n]);
        if (begins && ends && weir_str_ieq(weir_str(list.ptr + i, n), weir_cstr(name))) return true;
    }
    return false;
}

static bool forbids(const struct weir_pair *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (weir_str_ieq(fields[i].name, WEIR_STR("Cache-Control")) && listed(fields[i].value, "no-transform")) return true;
    return false;
}

static bool has_type(const struct weir_conf_route *conf, struct weir_str type)
{
    size_t n = 0;
    while (n < type.len && type.ptr[n] != ';' && type.ptr[n] != ' ') n++;
    type.len = n;
    for (size_t i = 0; i < conf->compress_type_count; i++) {
        struct weir_str t = weir_cstr(conf->compress_types[i]);
        bool all = t.len > 1 && t.ptr[t.len - 1] == '*'; /* text/ and a star */
        if (all ? type.len >= t.len && weir_str_ieq(weir_str(type.ptr, t.len - 1), weir_str(t.ptr, t.len - 1)) : weir_str_ieq(type, t)) return true;
    }
    return false;
}

/* Content of this kind would be compressed for who takes it. */
static bool is_fit(const struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    const struct weir_pair *type = weir_http_find(ex->fields, ex->field_count, "Content-Type");
    if (ex->status < 200 || ex->status == 204 || ex->status == 206 || ex->status == 304 || !type || !has_type(conf, type->value)) return false;
    if (ex->length >= 0 && (uint64_t)ex->length < conf->compress_min) return false;
    if (ex->answer == ANSWER_FILE && ex->length > (int64_t)FILE_MAX_SIZE) return false;
    if (weir_http_find(ex->fields, ex->field_count, "Content-Encoding") || weir_http_find(ex->fields, ex->field_count, "Content-Range")) return false;
    return !forbids(ex->fields, ex->field_count);
}

static bool is_asked_for(const struct exchange *ex)
{
    static const struct weir_str gzip = WEIR_CONST_STR("gzip");
    const struct weir_http_request *req = ex->req;
    return !req->head && (req->major == 2 || req->minor > 0) && !forbids(req->headers, req->header_count) &&
           weir_http_choose_coding(req->headers, req->header_count, &gzip, 1) == 0;
}

/* ---- states ---- */

static struct weir_gzip *take_state(struct worker *w, int level)
{
    struct weir_gzip *g;
    if (w->gzip_count >= STATES_MAX) return NULL;
    if (w->free_gzip_count) {
        g = w->free_gzip[--w->free_gzip_count];
        weir_gzip_reset(g, level);
    } else if (weir_gzip_new(&g, level) < 0) {
        return NULL;
    }
    w->gzip_count++;
    return g;
}

void compress_end(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (!ex->gzip) return;
    if (w->free_gzip_count < WEIR_COUNT(w->free_gzip)) w->free_gzip[w->free_gzip_count++] = ex->gzip;
    else weir_gzip_free(ex->gzip);
    w->gzip_count--;
    ex->gzip = NULL;
    ex->unflushed = false;
}

void compress_fini(struct worker *w)
{
    while (w->free_gzip_count) weir_gzip_free(w->free_gzip[--w->free_gzip_count]);
}

/* ---- the header ---- */

static bool varies(const struct exchange *ex)
{
    for (size_t i = 0; i < ex->field_count; i++)
        if (weir_str_ieq(ex->fields[i].name, WEIR_STR("Vary")) && (listed(ex->fields[i].value, "Accept-Encoding") || listed(ex->fields[i].value, "*"))) return true;
    return false;
}

/* It is the same in meaning, no longer byte by byte [RFC 9110 8.8.1]. */
static struct weir_str weak(struct exchange *ex, struct weir_str etag)
{
    if (weir_str_prefix(etag, WEIR_STR("W/"))) return etag;
    char *p = weir_arena_bytes(&ex->arena, etag.len + 2);
    if (!p) return weir_str(NULL, 0);
    memcpy(p, "W/", 2);
    memcpy(p + 2, etag.ptr, etag.len);
    return weir_str(p, etag.len + 2);
}

/* The fields of compressed content; false: no memory, and nothing has changed. */
static bool change_fields(struct exchange *ex, bool coded)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, (ex->field_count + 2) * sizeof *f);
    size_t n = 0;
    if (!f) return false;
    for (size_t i = 0; i < ex->field_count; i++) {
        f[n] = ex->fields[i];
        if (coded && weir_str_ieq(f[n].name, WEIR_STR("Accept-Ranges"))) continue;
        if (coded && weir_str_ieq(f[n].name, WEIR_STR("ETag"))) {
            f[n].value = weak(ex, f[n].value);
            if (!f[n].value.ptr) return false;
        }
        n++;
    }
    if (!varies(ex)) f[n++] = (struct weir_pair){WEIR_STR("Vary"), WEIR_STR("Accept-Encoding")};
    if (coded) f[n++] = (struct weir_pair){WEIR_STR("Content-Encoding"), WEIR_STR("gzip")};
    ex->fields = f;
    ex->field_count = n;
    return true;
}

void compress_begin(struct exchange *ex)
{
    if (ex->gzip || !ex->route || !ex->route->conf->compress) return;
    if (ex->status == 304) { /* as the answer that it stands for [RFC 9110 15.4.5] */
        (void)change_fields(ex, false);
        return;
    }
    if (!is_fit(ex)) return;
    if (is_asked_for(ex)) ex->gzip = take_state(ex->worker, ex->route->conf->compress_level);
    if (!change_fields(ex, ex->gzip != NULL)) compress_end(ex);
    if (!ex->gzip) return;
    ex->raw_length = ex->length;
    ex->raw_sent = 0;
    ex->length = -1;
}

/* ---- the content ---- */

static int run(struct exchange *ex, const char *p, size_t len, enum weir_gzip_step step, struct weir_buf *into)
{
    char piece[PIECE];
    size_t n;
    weir_gzip_feed(ex->gzip, p, len, step);
    while ((n = weir_gzip_pull(ex->gzip, piece, sizeof piece)) > 0)
        if ((into ? weir_buf_append(into, piece, n) : reply_put(ex, piece, n)) < 0) return WEIR_NOMEM;
    ex->raw_sent += len;
    ex->unflushed = step == WEIR_GZIP_MORE && (len > 0 || ex->unflushed);
    return WEIR_OK;
}

int compress_put(struct exchange *ex, const char *p, size_t len)
{
    return ex->gzip ? run(ex, p, len, WEIR_GZIP_MORE, NULL) : reply_put(ex, p, len);
}

int compress_flush(struct exchange *ex)
{
    return ex->gzip && ex->unflushed ? run(ex, NULL, 0, WEIR_GZIP_FLUSH, NULL) : WEIR_OK;
}

int compress_last(struct exchange *ex)
{
    int status = ex->gzip ? run(ex, NULL, 0, WEIR_GZIP_END, NULL) : WEIR_OK;
    compress_end(ex);
    return status;
}

int compress_whole(struct exchange *ex)
{
    struct weir_buf out = {0};
    size_t len = weir_buf_len(&ex->pend);
    if (!ex->gzip || (ex->raw_length >= 0 && len < (uint64_t)ex->raw_length)) return WEIR_OK; /* it is cut off, and not ended */
    if (ex->raw_length >= 0) len = (size_t)ex->raw_length;
    int status = run(ex, weir_buf_ptr(&ex->pend), len, WEIR_GZIP_END, &out);
    if (status == WEIR_OK) {
        weir_buf_fini(&ex->pend);
        ex->pend = out;
        ex->length = (int64_t)weir_buf_len(&out);
        compress_end(ex);
    } else {
        weir_buf_fini(&out);
    }
    return status;
}

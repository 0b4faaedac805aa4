/* SPDX-License-Identifier: MIT */
/* What the answer with a file says: whether it is sent at all, which parts of it, in which coding, and its fields. How its bytes get
 * to the client is serve_file.c's. */
#include <stdio.h>

#include "gateway/internal.h"
#include "gateway/static.h"

static const struct weir_str codings[LOOKUP_CODINGS] = {WEIR_CONST_STR("br"), WEIR_CONST_STR("zstd"), WEIR_CONST_STR("gzip")};
static const char *const endings[LOOKUP_CODINGS] = {".br", ".zst", ".gz"};

const char *lookup_ending(unsigned coding)
{
    return endings[coding];
}

/* Those that the client takes, the one that it prefers first. */
void exchange_want_codings(struct exchange *ex)
{
    struct lookup *l = &ex->lookup;
    struct weir_str left[LOOKUP_CODINGS];
    unsigned number[LOOKUP_CODINGS], count = LOOKUP_CODINGS;
    l->coding_count = 0;
    if (!ex->route->conf->precompressed || ex->route->filter || ex->error_status) return;
    for (unsigned i = 0; i < LOOKUP_CODINGS; i++) {
        left[i] = codings[i];
        number[i] = i;
    }
    int best;
    while (count && (best = weir_http_choose_coding(ex->req->headers, ex->req->header_count, left, count)) >= 0) {
        l->codings[l->coding_count++] = (uint8_t)number[best];
        count--;
        for (unsigned i = (unsigned)best; i < count; i++) {
            left[i] = left[i + 1];
            number[i] = number[i + 1];
        }
    }
}

/* ---- fields ---- */

struct fields {
    struct exchange *ex;
    struct weir_pair *list;
    size_t count;
};

static void add(struct fields *f, struct weir_str name, struct weir_str value)
{
    f->list[f->count++] = (struct weir_pair){name, value};
}

/* A copy in the arena; nothing is added without memory. */
static void add_text(struct fields *f, struct weir_str name, const char *value)
{
    struct weir_str copy = weir_arena_str(&f->ex->arena, weir_cstr(value));
    if (copy.ptr) add(f, name, copy);
}

/* What an app said of the file that it handed over, but for what we know better. */
static void add_handed(struct fields *f)
{
    static const struct weir_str ours[] = {WEIR_CONST_STR("Content-Type"), WEIR_CONST_STR("ETag"), WEIR_CONST_STR("Last-Modified"), WEIR_CONST_STR("Accept-Ranges"), WEIR_CONST_STR("Content-Range")};
    const struct exchange *ex = f->ex;
    for (size_t i = 0; i < ex->handed_count; i++) {
        bool is_ours = false;
        for (size_t k = 0; k < WEIR_COUNT(ours); k++) is_ours = is_ours || weir_str_ieq(ex->handed[i].name, ours[k]);
        if (!is_ours) f->list[f->count++] = ex->handed[i];
    }
}

static bool is_part(const struct exchange *ex)
{
    return ex->status == 206;
}

/* type: of the whole; of several parts the answer's own one. */
static bool describe(struct exchange *ex, const char *etag, struct weir_str type)
{
    struct fields f = {ex, weir_arena_alloc(&ex->arena, (ex->handed_count + 8) * sizeof *f.list), 0};
    const struct weir_conf_route *conf = ex->route->conf;
    char date[30];
    if (!f.list) return false;
    weir_http_date(date, ex->lookup.st.st_mtim.tv_sec);
    add_handed(&f);
    if (!ex->error_status) {
        add_text(&f, WEIR_STR("Last-Modified"), date);
        add_text(&f, WEIR_STR("ETag"), etag);
        if (conf->cache && !ex->handed) add(&f, WEIR_STR("Cache-Control"), weir_cstr(conf->cache));
        if (conf->precompressed && !ex->lookup.folder) add(&f, WEIR_STR("Vary"), WEIR_STR("Accept-Encoding"));
    }
    if (ex->status != 304) {
        add(&f, WEIR_STR("Content-Type"), type);
        if (ex->lookup.coding) add(&f, WEIR_STR("Content-Encoding"), codings[ex->lookup.coding - 1]);
        if (ex->status == 200) add(&f, WEIR_STR("Accept-Ranges"), WEIR_STR("bytes"));
    }
    if (is_part(ex) && !ex->part_count) {
        char text[80];
        snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)ex->file_at, (unsigned long long)(ex->file_at + ex->file_left - 1),
                 (unsigned long long)ex->lookup.st.st_size);
        add_text(&f, WEIR_STR("Content-Range"), text);
    }
    ex->fields = f.list;
    ex->field_count = f.count;
    return true;
}

static struct weir_str content_type(struct exchange *ex)
{
    struct weir_str path = ex->lookup.script[0] ? weir_cstr(ex->lookup.script) : ex->lookup.path, type = weir_static_type(path);
    for (size_t i = 0; i < ex->handed_count; i++)
        if (weir_str_ieq(ex->handed[i].name, WEIR_STR("Content-Type"))) type = ex->handed[i].value;
    return type;
}

/* ---- parts ---- */

#define BOUNDARY 20

/* The text before a part, or behind the last one (r NULL). False: no memory. */
static bool add_part(struct exchange *ex, const char *boundary, struct weir_str type, const struct weir_http_range *r)
{
    size_t room = 160 + BOUNDARY + type.len;
    char *p = weir_arena_bytes(&ex->arena, room);
    if (!p) return false;
    int n = r ? snprintf(p, room, "%s--%s\r\nContent-Type: %.*s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n", ex->part_count ? "\r\n" : "", boundary, (int)type.len, type.ptr,
                         (unsigned long long)r->first, (unsigned long long)(r->first + r->len - 1), (unsigned long long)ex->lookup.st.st_size)
              : snprintf(p, room, "\r\n--%s--\r\n", boundary);
    struct file_part *part = &ex->parts[ex->part_count++];
    *part = (struct file_part){.head = weir_str(p, (size_t)n), .first = r ? r->first : 0, .len = r ? r->len : 0};
    ex->length += (int64_t)(part->head.len + part->len);
    return true;
}

/* multipart/byteranges [RFC 9110 14.6]; the answer's type. No ptr: no memory. */
static struct weir_str several(struct exchange *ex, const struct weir_http_range *list, size_t count, struct weir_str type)
{
    static const char before[] = "multipart/byteranges; boundary=";
    char *own = weir_arena_bytes(&ex->arena, sizeof before + BOUNDARY);
    ex->parts = weir_arena_alloc(&ex->arena, (count + 1) * sizeof *ex->parts);
    if (!own || !ex->parts) return weir_str(NULL, 0);
    snprintf(own, sizeof before + BOUNDARY, "%s%020llu", before, (unsigned long long)weir_random_next(&ex->worker->random));
    ex->length = 0;
    for (size_t i = 0; i < count; i++)
        if (!add_part(ex, own + sizeof before - 1, type, &list[i])) return weir_str(NULL, 0);
    if (!add_part(ex, own + sizeof before - 1, type, NULL)) return weir_str(NULL, 0);
    return weir_str(own, sizeof before - 1 + BOUNDARY);
}

/* The file is still the one of which the client has the other parts [RFC 9110 13.1.5]. */
static bool is_same(const struct exchange *ex, const char *etag)
{
    const struct weir_pair *f = weir_http_find(ex->req->headers, ex->req->header_count, "If-Range");
    int64_t t;
    if (!f) return true;
    if (f->value.len && (f->value.ptr[0] == '"' || f->value.ptr[0] == 'W')) return weir_str_eq(f->value, weir_cstr(etag));
    return weir_http_date_parse(f->value, &t) == WEIR_OK && t == ex->lookup.st.st_mtim.tv_sec;
}

static void outside(struct exchange *ex)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    char text[40];
    snprintf(text, sizeof text, "bytes */%llu", (unsigned long long)ex->lookup.st.st_size);
    struct weir_str value = weir_arena_str(&ex->arena, weir_cstr(text));
    if (!f || !value.ptr) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    *f = (struct weir_pair){WEIR_STR("Content-Range"), value};
    exchange_text(ex, 416, f, 1, "the file has no such part");
}

/* Which parts go; type is the answer's then. False: it was answered. */
static bool choose_parts(struct exchange *ex, const char *etag, struct weir_str *type)
{
    const struct weir_pair *f = weir_http_find(ex->req->headers, ex->req->header_count, "Range");
    struct weir_http_range list[WEIR_HTTP_RANGES_MAX];
    size_t count;
    if (!f || ex->status != 200 || ex->req->head || !is_same(ex, etag)) return true;
    switch (weir_http_ranges(f->value, (uint64_t)ex->lookup.st.st_size, list, &count)) {
    case WEIR_HTTP_RANGES_IGNORED: return true;
    case WEIR_HTTP_RANGES_OUTSIDE: outside(ex); return false;
    case WEIR_HTTP_RANGES_SOME: break;
    }
    ex->status = 206;
    if (count == 1) {
        ex->file_at = list[0].first;
        ex->file_left = list[0].len;
        ex->length = (int64_t)list[0].len;
        return true;
    }
    ex->file_left = 0;
    *type = several(ex, list, count, *type);
    if (type->ptr) return true;
    exchange_fail(ex, 503, "out of memory");
    return false;
}

void exchange_file_over(struct exchange *ex)
{
    if (ex->part_at == ex->part_count) {
        if (compress_last(ex) < 0 || reply_end(ex) < 0) reply_abort(ex);
        else exchange_finish(ex);
        return;
    }
    const struct file_part *p = &ex->parts[ex->part_at++];
    if (reply_put(ex, p->head.ptr, p->head.len) < 0) {
        reply_abort(ex);
        return;
    }
    ex->file_at = p->first;
    ex->file_left = p->len;
    ex->cold_checked = false;
    exchange_file_pump(ex);
}

/* ---- the answer ---- */

/* Another one for each coding: they are other bytes. */
static void make_etag(const struct exchange *ex, char etag[static WEIR_STATIC_ETAG_MAX])
{
    weir_static_etag(&ex->lookup.st, etag);
    size_t n = strlen(etag);
    if (!ex->lookup.coding) return;
    snprintf(etag + n - 1, WEIR_STATIC_ETAG_MAX - n + 1, "-%s\"", codings[ex->lookup.coding - 1].ptr);
}

static int choose_status(const struct exchange *ex, const char *etag)
{
    if (ex->error_status) return ex->error_status;
    if (ex->handed && ex->status != 200) return ex->status; /* an app's, and no answer to a condition */
    return weir_static_condition(ex->req->headers, ex->req->header_count, &ex->lookup.st, etag);
}

void exchange_file_begin(struct exchange *ex)
{
    static const struct weir_pair allow = {{"Allow", 5}, {"GET, HEAD", 9}};
    struct weir_str method = exchange_method(ex), type = content_type(ex);
    char etag[WEIR_STATIC_ETAG_MAX];
    if (!weir_str_eq(method, WEIR_STR("GET")) && !weir_str_eq(method, WEIR_STR("HEAD"))) {
        exchange_text(ex, 405, &allow, 1, "this file can only be read");
        return;
    }
    make_etag(ex, etag);
    ex->status = choose_status(ex, etag);
    if (ex->status == 412 && !ex->error_status) {
        exchange_fail(ex, 412, "the file is not the one that was asked for");
        return;
    }
    ex->length = ex->status == 304 ? -1 : (int64_t)ex->lookup.st.st_size;
    ex->file_at = 0;
    ex->file_left = ex->status == 304 || ex->req->head ? 0 : (uint64_t)ex->lookup.st.st_size;
    ex->part_count = ex->part_at = 0;
    if (!choose_parts(ex, etag, &type)) return;
    if (!describe(ex, etag, type)) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    ex->answer = ANSWER_FILE;
    compress_begin(ex);
    if (!ex->body_done) ex->keep_alive = false;
    if (!exchange_write_head(ex)) {
        reply_abort(ex);
        return;
    }
    exchange_file_pump(ex);
}

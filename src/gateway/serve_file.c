/* SPDX-License-Identifier: MIT */
/* Files: finding what a path means below a root, and sending it. What is not in the page cache or the dentry cache is
 * fetched by the helper thread: the loop never waits for a disk. Which names are never served, types and conditions are
 * static.c's. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "gateway/static.h"

#define INLINE_MAX SEEN_CONTENT_MAX /* smaller files ride in the same write as their head */
#define GZIP_STEP  (256u << 10) /* of a file that is compressed, in one turn */
#define WARM_STEP  (1u << 20)  /* how much is looked at, or fetched, ahead of a sendfile */

/* ---- lookup ---- */

static int open_path(struct lookup *l, struct weir_str path, int flags)
{
    char rel[4096];
    while (path.len && path.ptr[0] == '/') path = weir_str(path.ptr + 1, path.len - 1);
    if (path.len >= sizeof rel) {
        errno = ENAMETOOLONG;
        return WEIR_SYSTEM;
    }
    memcpy(rel, path.ptr, path.len);
    rel[path.len] = 0;
    flags |= l->cached_only ? WEIR_OPEN_CACHED : 0;
    return l->folder ? weir_open_linked(l->folder, 1, rel, flags) : weir_open_linked(l->route->areas, l->route->area_count, rel, flags);
}

/* What is at a path. */
struct sight {
    int error;         /* errno */
    int fd;            /* if it was opened */
    struct seen *seen; /* held with fd; NULL: fd is ours alone */
    struct stat st;
};

static struct sight look(struct lookup *l, struct weir_str path, int flags)
{
    struct sight s = {.fd = open_path(l, path, flags)};
    if (s.fd < 0 || fstat(s.fd, &s.st) < 0) s.error = errno;
    if (s.fd >= 0 && (s.error || flags & O_PATH)) {
        close(s.fd);
        s.fd = -1;
    }
    if (s.fd >= 0) atomic_fetch_add_explicit(l->open_count, 1, memory_order_relaxed);
    return s;
}

/* As somebody saw it in this turn, or by a look. */
static struct sight see(struct lookup *l, struct weir_str path, bool opens)
{
    const struct weir_open_area *areas = l->folder ? l->folder : l->route->areas;
    struct seen *seen = l->files ? seen_find(l->files, areas, path, opens) : NULL;
    struct sight s;
    if (seen) {
        s = (struct sight){.error = seen->error, .fd = seen->fd, .st = seen->st};
    } else {
        s = look(l, path, opens ? O_RDONLY | O_NONBLOCK | O_NOCTTY : O_PATH);
        if (l->files && s.error != EAGAIN) seen = seen_put(l->files, areas, path, opens, s.error, s.fd, &s.st);
    }
    if (!seen || s.fd < 0) return s;
    s.seen = seen;
    seen_hold(seen);
    return s;
}

static void unsee(struct lookup *l, const struct sight *s)
{
    if (s->seen) {
        seen_drop(s->seen);
    } else if (s->fd >= 0) {
        close(s->fd);
        atomic_fetch_sub_explicit(l->open_count, 1, memory_order_relaxed);
    }
}

void lookup_close(struct lookup *l)
{
    unsee(l, &(struct sight){.fd = l->fd, .seen = l->seen});
    l->fd = -1;
    l->seen = NULL;
}

static bool is_unknown(const struct lookup *l, const struct sight *s)
{
    return s->error == EAGAIN && l->cached_only;
}

/* YES: a regular file, l->st filled. UNKNOWN: not without the disk. */
enum { KNOWN_NO, KNOWN_YES, UNKNOWN };
static int stat_path(struct lookup *l, struct weir_str path, bool *is_dir)
{
    struct sight s = see(l, path, false);
    bool is_file = !s.error && S_ISREG(s.st.st_mode);
    *is_dir = !s.error && S_ISDIR(s.st.st_mode);
    if (!s.error) l->st = s.st;
    if (l->trace) trace_file(l->trace, path, is_file, *is_dir, s.error);
    if (is_unknown(l, &s)) return UNKNOWN;
    return is_file ? KNOWN_YES : KNOWN_NO;
}

static bool set_script(struct lookup *l, struct weir_str base, const char *name)
{
    while (*name == '/') name++;
    int n = snprintf(l->script, sizeof l->script, "%.*s%s%s", (int)base.len, base.ptr,
                     base.len && base.ptr[base.len - 1] == '/' ? "" : "/", name);
    return n > 0 && (size_t)n < sizeof l->script;
}

static bool only(const struct lookup *l, struct weir_str script, bool *listed)
{
    const struct weir_conf_route *conf = l->route->conf;
    *listed = false;
    for (size_t i = 0; i < conf->only_count; i++)
        if (weir_str_eq(weir_cstr(conf->only[i]), script)) *listed = true;
    if (l->trace && conf->only_count) trace_step(l->trace, WEIR_EXPLAIN_FILE, *listed, script, NULL, *listed ? "named by only: it need not exist here" : "not named by only");
    return conf->only_count == 0 || *listed;
}

/* The script of a path: the first prefix in .php that is a file here (or is named by `only`). */
static int find_script(struct lookup *l)
{
    bool is_dir, listed;
    for (size_t n = 0; (n = weir_cgi_split_next(l->path, WEIR_STR(".php"), n)) > 0;) {
        struct weir_str script = weir_str(l->path.ptr, n);
        if (!only(l, script, &listed)) continue;
        int known = listed ? KNOWN_YES : stat_path(l, script, &is_dir);
        if (known == UNKNOWN) return LOOKUP_AGAIN;
        if (known == KNOWN_NO && !is_dir && l->route->conf->only_count == 0) break; /* nothing is below it: a path of many parts costs one look */
        if (known == KNOWN_NO) continue;
        l->kind = LOOKUP_SCRIPT;
        l->script_len = n;
        l->script[0] = 0;
        return 0;
    }
    return 0;
}

static void take(struct lookup *l, const struct sight *s)
{
    l->fd = s->fd;
    l->seen = s->seen;
    l->st = s->st;
}

/* A file in a coding that the client takes lies beside the one that is open: that is sent instead, unless it is older. */
static int prefer_coded(struct lookup *l, struct weir_str path)
{
    char name[4096];
    for (unsigned i = 0; i < l->coding_count; i++) {
        int n = snprintf(name, sizeof name, "%.*s%s", (int)path.len, path.ptr, lookup_ending(l->codings[i]));
        if (n >= (int)sizeof name || exchange_barred(l->of, weir_cstr(name), false)) continue;
        struct sight s = see(l, weir_cstr(name), true);
        if (is_unknown(l, &s)) {
            lookup_close(l);
            return LOOKUP_AGAIN;
        }
        if (s.error || !S_ISREG(s.st.st_mode) || s.st.st_mtim.tv_sec < l->st.st_mtim.tv_sec) {
            unsee(l, &s);
            continue;
        }
        lookup_close(l);
        take(l, &s);
        l->coding = (uint8_t)(l->codings[i] + 1);
        break;
    }
    return 0;
}

static int open_regular(struct lookup *l, struct weir_str path)
{
    struct sight s = see(l, path, true);
    if (is_unknown(l, &s)) return LOOKUP_AGAIN;
    l->error = s.error;
    if (s.error == EACCES || s.error == EPERM || s.error == EXDEV || s.error == ELOOP) l->kind = LOOKUP_DENIED;
    else if (s.error && s.error != ENOENT && s.error != ENOTDIR && s.error != ENAMETOOLONG) l->kind = LOOKUP_FAILED;
    if (s.error) return 0;
    l->st = s.st;
    if (!S_ISREG(s.st.st_mode)) {
        unsee(l, &s);
        return 0;
    }
    take(l, &s);
    if (prefer_coded(l, path)) return LOOKUP_AGAIN;
    l->kind = LOOKUP_FILE;
    return 0;
}

static int open_file(struct lookup *l, struct weir_str path)
{
    if (!l->trace) return weir_static_forbidden(path) ? 0 : open_regular(l, path);
    l->error = 0;
    l->st = (struct stat){0};
    int again = weir_static_forbidden(path) ? 0 : open_regular(l, path);
    if (weir_static_forbidden(path)) trace_step(l->trace, WEIR_EXPLAIN_FILE, false, path, NULL, "a name that is never served as a file");
    else trace_file(l->trace, path, l->kind == LOOKUP_FILE, l->kind != LOOKUP_FILE && !l->error && S_ISDIR(l->st.st_mode), l->error);
    return again;
}

static int find_index(struct lookup *l, struct weir_str folder)
{
    const struct weir_conf_route *conf = l->route->conf;
    for (size_t i = 0; i < conf->index_count && l->kind == LOOKUP_NONE; i++) {
        bool is_dir, listed;
        bool script = weir_str_suffix(weir_cstr(conf->index[i]), WEIR_STR(".php"));
        if (script && !l->route->scripts) continue;
        if (!set_script(l, folder, conf->index[i])) continue;
        struct weir_str path = weir_cstr(l->script);
        if (script) {
            if (!only(l, path, &listed)) continue;
            int known = listed ? KNOWN_YES : stat_path(l, path, &is_dir);
            if (known == UNKNOWN) return LOOKUP_AGAIN;
            if (known == KNOWN_YES) l->kind = LOOKUP_SCRIPT;
        } else {
            int again = open_file(l, path);
            if (again) return again;
        }
    }
    if (l->kind != LOOKUP_SCRIPT && l->kind != LOOKUP_FILE) l->script[0] = 0;
    return 0;
}

/* What exists nowhere goes to /index.php of the root. */
static int front_controller(struct lookup *l)
{
    const struct weir_conf_route *conf = l->route->conf;
    bool is_dir;
    if (!l->route->scripts) return 0;
    if (!set_script(l, WEIR_STR("/"), conf->only_count ? conf->only[0] : "index.php")) return 0;
    l->is_front = true;
    int known = conf->only_count ? KNOWN_YES : stat_path(l, weir_cstr(l->script), &is_dir);
    if (known == UNKNOWN) return LOOKUP_AGAIN;
    if (known == KNOWN_YES) l->kind = LOOKUP_SCRIPT;
    else l->script[0] = 0;
    return 0;
}

/* May a program's path end here, by the patterns of its route? */
static bool may_be_program(const struct lookup *l, struct weir_str path)
{
    const struct weir_conf_route *conf = l->route->conf;
    if (l->of && l->of->rewritten) return true; /* they are about the client's path */
    for (size_t i = 0; i < conf->pattern_count; i++) {
        const struct weir_conf_pattern *m = &conf->patterns[i];
        if (m->match == WEIR_MATCH_EXACT && weir_str_eq(path, m->text)) return true;
        if (m->match == WEIR_MATCH_SUFFIX && weir_str_suffix(path, m->text)) return true;
        if (m->match == WEIR_MATCH_PREFIX && weir_str_prefix(path, m->text)) return true;
    }
    return conf->pattern_count == 0;
}

/* The program of a path: the first of its beginnings that is a file here; the rest is PATH_INFO. */
static int find_program(struct lookup *l)
{
    bool is_dir;
    for (size_t n = 2; n <= l->path.len; n++) {
        if (n < l->path.len && l->path.ptr[n] != '/') continue;
        struct weir_str program = weir_str(l->path.ptr, n);
        if (program.ptr[n - 1] == '/' || weir_static_hidden(program) || !may_be_program(l, program)) continue;
        int known = stat_path(l, program, &is_dir);
        if (known == UNKNOWN) return LOOKUP_AGAIN;
        if (known == KNOWN_NO && !is_dir) break; /* as in find_script */
        if (known == KNOWN_NO) continue;
        l->kind = LOOKUP_SCRIPT;
        l->script_len = n;
        break;
    }
    return 0;
}

/* The path itself: a script, a file, a folder that has an index. */
static int find_path(struct lookup *l)
{
    bool is_dir;
    int again = 0;
    if (l->route->scripts) again = find_script(l);
    if (again || l->kind != LOOKUP_NONE) return again;
    bool slash = l->path.ptr[l->path.len - 1] == '/';
    if (!slash) again = open_file(l, l->path);
    if (again || l->kind != LOOKUP_NONE) return again;
    int known = stat_path(l, l->path, &is_dir);
    if (known == UNKNOWN) return LOOKUP_AGAIN;
    if (!is_dir || weir_static_forbidden(l->path)) return 0;
    if (slash) return find_index(l, l->path);
    l->kind = LOOKUP_DIR_REDIRECT;
    return 0;
}

/* ---- try ---- */

static char *put_piece(char *at, const char *end, struct weir_str s)
{
    for (size_t i = 0; i < s.len && at < end; i++)
        if (s.ptr[i] != '/' || at[-1] != '/') *at++ = s.ptr[i]; /* no empty names: the path may end in a slash */
    return at;
}

/* The word with the path put in, into `out`. False: too long. */
static bool candidate(const struct lookup *l, const struct weir_conf_try *t, char *out, size_t size)
{
    char *end = out + size - 1, *at = out;
    *at++ = '/';
    at = put_piece(at, end, t->before);
    if (t->star) at = put_piece(at, end, l->path);
    at = put_piece(at, end, t->after);
    *at = 0;
    return at < end;
}

static int try_script(struct lookup *l, struct weir_str path)
{
    bool is_dir, listed;
    if (!weir_str_suffix(path, WEIR_STR(".php")) || !only(l, path, &listed)) return 0;
    int known = listed ? KNOWN_YES : stat_path(l, path, &is_dir);
    if (known == UNKNOWN) return LOOKUP_AGAIN;
    if (known == KNOWN_YES) l->kind = LOOKUP_SCRIPT;
    return 0;
}

static int try_folder(struct lookup *l, struct weir_str path)
{
    bool is_dir;
    int known = stat_path(l, path, &is_dir);
    if (known == UNKNOWN) return LOOKUP_AGAIN;
    if (!is_dir || weir_static_forbidden(path)) return 0;
    if (path.len == l->path.len + 1 && weir_str_prefix(path, l->path)) l->kind = LOOKUP_DIR_REDIRECT;
    else return find_index(l, path);
    return 0;
}

static int try_one(struct lookup *l, const struct weir_conf_try *t)
{
    char text[sizeof l->script];
    int again = 0;
    if (!candidate(l, t, text, sizeof text)) return 0;
    struct weir_str path = weir_cstr(text);
    bool folder = path.ptr[path.len - 1] == '/';
    if (weir_str_eq(path, l->path)) { /* PATH_INFO may stand behind a script */
        if (l->route->scripts) again = find_script(l);
        if (again || l->kind != LOOKUP_NONE) return again;
        return folder ? try_folder(l, path) : open_file(l, l->path);
    }
    if (folder) return try_folder(l, path);
    if (l->route->scripts) again = try_script(l, path);
    if (!again && l->kind == LOOKUP_NONE) again = open_file(l, path);
    if (!again && (l->kind == LOOKUP_FILE || l->kind == LOOKUP_SCRIPT)) memcpy(l->script, text, path.len + 1);
    return again;
}

static int run_tries(struct lookup *l)
{
    const struct weir_conf_route *conf = l->route->conf;
    for (size_t i = 0; i < conf->try_count; i++) {
        l->last = &conf->tries[i];
        if (l->last->kind != WEIR_TRY_FILE) {
            l->kind = l->last->kind == WEIR_TRY_GO ? LOOKUP_GO : LOOKUP_STATUS;
            return 0;
        }
        int again = try_one(l, l->last);
        if (again || l->kind != LOOKUP_NONE) return again;
    }
    if (conf->action != WEIR_ACTION_POOL || l->route->scripts) return front_controller(l);
    l->kind = LOOKUP_APP;
    return 0;
}

int lookup_run(struct lookup *l)
{
    l->kind = LOOKUP_NONE;
    l->is_front = false;
    l->script[0] = 0;
    l->coding = 0;
    if (l->folder) return open_regular(l, l->path);
    if (l->route->programs) return find_program(l);
    if (l->route->conf->try_count) return run_tries(l);
    int again = find_path(l);
    return again || l->kind != LOOKUP_NONE ? again : front_controller(l);
}

/* ---- sending ---- */

static void warm(struct weir_job *job)
{
    struct exchange *ex = WEIR_CONTAINER(job, struct exchange, job);
    char *buf = malloc(128u << 10);
    uint64_t left = ex->fetch_left, at = ex->fetch_at;
    while (buf && left) {
        ssize_t n = pread(ex->lookup.fd, buf, left < (128u << 10) ? left : (128u << 10), (off_t)at);
        if (n <= 0) break;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    free(buf);
}

static void warmed(struct exchange *ex)
{
    ex->cold_checked = true;
    exchange_file_pump(ex);
}

/* One byte at both ends of the next step is in the page cache: then the rest nearly always is. */
static bool is_warm(const struct exchange *ex)
{
    char c;
    struct iovec v = {&c, 1};
    uint64_t step = ex->file_left < WARM_STEP ? ex->file_left : WARM_STEP;
    return preadv2(ex->lookup.fd, &v, 1, (off_t)ex->file_at, RWF_NOWAIT) == 1 &&
           preadv2(ex->lookup.fd, &v, 1, (off_t)(ex->file_at + step - 1), RWF_NOWAIT) == 1;
}

enum piece {
    PIECE_SENT,
    PIECE_COLD, /* the disk has to be asked for it */
    PIECE_NONE  /* there is no memory, or the file became shorter */
};

/* Reads the next piece into v, if it is in memory or was fetched: bytes > 0, or *none tells. */
static ssize_t read_piece(struct exchange *ex, struct iovec *v, enum piece *none)
{
    struct weir_str all = ex->lookup.seen ? seen_content(ex->lookup.seen) : weir_str(NULL, 0);
    if (all.ptr) { /* file_at + iov_len is in the file, as it was then */
        memcpy(v->iov_base, all.ptr + ex->file_at, v->iov_len);
        return (ssize_t)v->iov_len;
    }
    ssize_t n = preadv2(ex->lookup.fd, v, 1, (off_t)ex->file_at, ex->cold_checked ? 0 : RWF_NOWAIT);
    *none = n < 0 && !ex->cold_checked ? PIECE_COLD : PIECE_NONE;
    return n;
}

static enum piece piece_sent(struct exchange *ex, size_t n)
{
    ex->cold_checked = false;
    ex->file_at += n;
    ex->file_left -= n;
    return PIECE_SENT;
}

/* The next piece, as far as there is room for it. */
static enum piece send_copy(struct exchange *ex)
{
    size_t room = reply_room(ex);
    struct iovec v = {NULL, ex->file_left < room ? ex->file_left : room};
    enum piece none;
    if (v.iov_len == 0 || (v.iov_base = reply_reserve(ex, v.iov_len)) == NULL) return PIECE_NONE;
    ssize_t n = read_piece(ex, &v, &none);
    if (n <= 0) return none;
    reply_reserved(ex, (size_t)n);
    return piece_sent(ex, (size_t)n);
}

/* So many bytes from file_at on. */
static void fetch(struct exchange *ex, uint64_t left, void (*then)(struct exchange *ex))
{
    WEIR_ASSERT(!ex->job_runs);
    ex->job = (struct weir_job){.run = warm, .ident = {.kind = KIND_FILE}};
    ex->job_done = then;
    ex->fetch_at = ex->file_at;
    ex->fetch_left = left < WARM_STEP ? left : WARM_STEP;
    ex->job_runs = true;
    weir_loop_job(ex->worker->loop, &ex->job);
}

static char *piece_of(struct worker *w)
{
    if (!w->piece) w->piece = malloc(SCRATCH); /* not scratch: what was read may lie there yet */
    return w->piece;
}

/* Likewise, compressed. */
static enum piece send_compressed(struct exchange *ex)
{
    size_t room = reply_room(ex), step = ex->file_left < room ? (size_t)ex->file_left : room;
    struct iovec v = {piece_of(ex->worker), step < SCRATCH ? step : SCRATCH};
    enum piece none;
    if (!v.iov_base) return PIECE_NONE;
    ssize_t n = read_piece(ex, &v, &none);
    if (n <= 0) return none;
    return compress_put(ex, v.iov_base, (size_t)n) < 0 ? PIECE_NONE : piece_sent(ex, (size_t)n);
}

/* A file that the client gets through our memory: framed, encrypted or compressed. */
static void pump_copies(struct exchange *ex)
{
    uint64_t stop = ex->gzip && ex->file_left > GZIP_STEP ? ex->file_left - GZIP_STEP : 0;
    while (ex->file_left > stop && reply_room(ex) > 0) {
        enum piece p = ex->gzip ? send_compressed(ex) : send_copy(ex);
        if (p == PIECE_SENT) continue;
        if (p == PIECE_COLD) fetch(ex, ex->file_left, warmed);
        else reply_abort(ex);
        return;
    }
    if (ex->file_left == 0) exchange_file_over(ex);
    else if (ex->file_left <= stop) fetch(ex, 1, warmed); /* others have their turn first */
}

void exchange_file_pump(struct exchange *ex)
{
    struct http_conn *h = ex->http;
    uint64_t budget = 4 * WARM_STEP; /* of one turn */
    if (ex->job_runs) return;
    if (!reply_takes_files(ex) || ex->gzip) {
        pump_copies(ex);
        return;
    }
    if (ex->file_left && ex->file_left <= INLINE_MAX && send_copy(ex) == PIECE_SENT && ex->file_left == 0) {
        exchange_file_over(ex);
        return;
    }
    if (weir_buf_len(&h->out)) { /* the head first; the flush comes back here */
        if (ex->file_left == 0) exchange_file_over(ex);
        else http_dirty(h);
        return;
    }
    while (ex->file_left && budget) {
        uint64_t step = ex->file_left < WARM_STEP ? ex->file_left : WARM_STEP;
        if (!ex->cold_checked && !is_warm(ex)) {
            fetch(ex, ex->file_left, warmed);
            return;
        }
        int64_t n = weir_loop_sendfile(ex->worker->loop, h->fd, ex->lookup.fd, (int64_t)ex->file_at, step);
        if (n == WEIR_AGAIN) {
            http_want_write(h);
            return;
        }
        if (n <= 0) { /* the client left, or the file became shorter: what was promised cannot be kept */
            http_close(h);
            return;
        }
        ex->cold_checked = false;
        h->written += (uint64_t)n;
        ex->file_at += (uint64_t)n;
        ex->file_left -= (uint64_t)n;
        ex->sent += (uint64_t)n;
        budget -= (uint64_t)n < budget ? (uint64_t)n : budget;
        if (h->send_due_ms) http_arm_send(h);
    }
    if (ex->file_left) http_dirty(h); /* others have their turn first */
    else exchange_file_over(ex);
}

/* ---- to a filter ---- */

static void filter_warmed(struct exchange *ex)
{
    ex->cold_checked = true;
    exchange_pump_app(ex);
}

void exchange_filter_pump(struct exchange *ex)
{
    char *piece = piece_of(ex->worker);
    uint64_t size = (uint64_t)ex->lookup.st.st_size;
    if (!piece) {
        exchange_fail(ex, 503, "out of memory");
        return;
    }
    while (ex->app && !ex->job_runs && ex->file_at < size) {
        struct iovec v = {piece, size - ex->file_at < SCRATCH ? (size_t)(size - ex->file_at) : SCRATCH};
        ssize_t n = preadv2(ex->lookup.fd, &v, 1, (off_t)ex->file_at, ex->cold_checked ? 0 : RWF_NOWAIT);
        if (n < 0 && !ex->cold_checked) {
            fetch(ex, size - ex->file_at, filter_warmed);
            return;
        }
        ex->cold_checked = false;
        if (n <= 0) {
            exchange_fail(ex, 500, n < 0 ? "the file could not be read" : "the file became shorter while it was sent");
            return;
        }
        int64_t taken = weir_client_write(ex->app, piece, (size_t)n);
        if (taken == WEIR_NOMEM) exchange_fail(ex, 503, "out of memory");
        if (taken < 0) return; /* its end is told by an event */
        ex->file_at += (uint64_t)taken;
        if (taken < n) return;
    }
}

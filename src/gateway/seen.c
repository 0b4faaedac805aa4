/* SPDX-License-Identifier: MIT */
/* seen: see seen.h. */
#include "gateway/seen.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOTS   64
#define PROBES  4
#define CONTENT (256u << 10) /* of all files of a turn */

struct seen_files {
    _Atomic uint32_t *open_count;
    uint64_t turn;
    unsigned used_count;
    uint8_t used[SLOTS]; /* of this turn */
    char *content;
    size_t content_len;
    struct seen slots[SLOTS];
};

struct seen_files *seen_new(_Atomic uint32_t *open_count)
{
    struct seen_files *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->turn = 1;
    f->open_count = open_count;
    for (size_t i = 0; i < SLOTS; i++) f->slots[i] = (struct seen){.of = f, .fd = -1};
    return f;
}

void seen_free(struct seen_files *f)
{
    if (!f) return;
    seen_turn_over(f);
    free(f->content);
    free(f);
}

static uint64_t hash_of(const struct weir_open_area *areas, struct weir_str path, bool opens)
{
    return weir_hash(path) ^ weir_hash_u64((uint64_t)(uintptr_t)areas + opens);
}

struct seen *seen_find(struct seen_files *f, const struct weir_open_area *areas, struct weir_str path, bool opens)
{
    if (f->used_count == 0 || path.len > sizeof f->slots[0].path) return NULL;
    uint64_t hash = hash_of(areas, path, opens);
    for (size_t i = 0; i < PROBES; i++) {
        struct seen *s = &f->slots[(hash + i) % SLOTS];
        if (s->turn != f->turn || s->hash != hash || s->areas != areas || s->opens != opens || !weir_str_eq(weir_str(s->path, s->path_len), path)) continue;
        s->more++;
        return s;
    }
    return NULL;
}

struct seen *seen_put(struct seen_files *f, const struct weir_open_area *areas, struct weir_str path, bool opens, int error, int fd, const struct stat *st)
{
    if (path.len > sizeof f->slots[0].path) return NULL;
    uint64_t hash = hash_of(areas, path, opens);
    for (size_t i = 0; i < PROBES; i++) {
        struct seen *s = &f->slots[(hash + i) % SLOTS];
        if (s->turn == f->turn || s->holders) continue;
        s->turn = f->turn;
        s->hash = hash;
        s->areas = areas;
        s->more = 0;
        s->opens = opens;
        s->error = error;
        s->fd = fd;
        if (!error) s->st = *st;
        s->content = weir_str(NULL, 0);
        s->path_len = path.len;
        memcpy(s->path, path.ptr, path.len);
        f->used[f->used_count++] = (uint8_t)(s - f->slots);
        return s;
    }
    return NULL;
}

static void let_go(struct seen *s)
{
    if (s->holders || s->fd < 0) return;
    close(s->fd);
    s->fd = -1;
    atomic_fetch_sub_explicit(s->of->open_count, 1, memory_order_relaxed);
}

void seen_hold(struct seen *s)
{
    s->holders++;
}

void seen_drop(struct seen *s)
{
    s->holders--;
    if (s->turn != s->of->turn) let_go(s);
}

struct weir_str seen_content(struct seen *s)
{
    struct seen_files *f = s->of;
    if (s->turn != f->turn || s->more == 0 || s->st.st_size > SEEN_CONTENT_MAX) return weir_str(NULL, 0);
    if (s->content.ptr) return s->content;
    struct iovec v = {.iov_len = (size_t)s->st.st_size};
    if (f->content_len + v.iov_len > CONTENT) return weir_str(NULL, 0);
    if (!f->content) f->content = malloc(CONTENT);
    if (!f->content) return weir_str(NULL, 0);
    v.iov_base = f->content + f->content_len;
    if (preadv2(s->fd, &v, 1, 0, RWF_NOWAIT) != (ssize_t)v.iov_len) return weir_str(NULL, 0);
    f->content_len += v.iov_len;
    s->content = weir_str(v.iov_base, v.iov_len);
    return s->content;
}

void seen_turn_over(struct seen_files *f)
{
    f->turn++; /* first: who drops one from now on closes it */
    for (; f->used_count; f->used_count--) let_go(&f->slots[f->used[f->used_count - 1]]);
    f->content_len = 0;
}

/* SPDX-License-Identifier: MIT */
/* spill: see spill.h. Invariants: [freed, flushed) is in the file; [flushed, size) is in `tail` (and in `writing` while a job
 * runs); without a file all that is kept is in `tail`, which begins at offset tail_at. One job at a time; each also gives the
 * blocks back that were read for good, so that a long answer takes no more disk than its client is behind. */
#include "loop/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define WRITE_STEP (256u << 10)
#define READ_STEP  (128u << 10)
#define TAIL_MAX   (1u << 20)
#define SPACE_LEFT (2u << 20) /* with less than this it is full, if reading makes room */
#define FREE_STEP  (1u << 20) /* the file is given back in these pieces */

enum job_kind { NONE, WRITE, READ };

struct weir_spill {
    struct weir_job job;
    struct weir_loop *loop;
    struct weir_spill_quota *quota;
    struct weir_spill_limits limits;
    struct weir_buf tail, writing, chunk;
    uint64_t tail_at;          /* offset of the first byte of tail */
    uint64_t flushed, size, at;
    uint64_t read_at;          /* of the READ that runs */
    uint64_t chunk_at;         /* offset of chunk's first byte */
    uint64_t charged;          /* of the quota */
    uint64_t freed, free_to;   /* of the file: given back up to here; to be, by the job that runs */
    int file;                  /* -1: none yet */
    enum job_kind running;
    _Atomic int error;         /* errno of a failed job, set by the helper */
    bool no_holes;             /* the file system makes none: told by the job */
    bool dead, to_file, kept_whole;
    void *user;
};

struct weir_spill *weir_spill_new(struct weir_loop *l, struct weir_spill_quota *q, const struct weir_spill_limits *lim,
                                  struct weir_ident id)
{
    struct weir_spill *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->loop = l;
    s->quota = q;
    s->limits = *lim;
    s->file = -1;
    s->job.ident = id;
    return s;
}

static void destroy(struct weir_spill *s)
{
    if (s->file >= 0) close(s->file);
    atomic_fetch_sub(&s->quota->used, s->charged);
    weir_buf_fini(&s->tail);
    weir_buf_fini(&s->writing);
    weir_buf_fini(&s->chunk);
    free(s);
}

void weir_spill_free(struct weir_spill *s)
{
    if (!s) return;
    if (s->running != NONE) s->dead = true;
    else destroy(s);
}

/* ---- on the helper thread ---- */

static void run_write(struct weir_spill *s)
{
    if (s->file < 0) s->file = weir_open_temp(s->quota->dir);
    if (s->file < 0) {
        s->error = errno;
        return;
    }
    const char *p = weir_buf_ptr(&s->writing);
    size_t left = weir_buf_len(&s->writing);
    uint64_t at = s->flushed;
    while (left) {
        ssize_t n = pwrite(s->file, p, left, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            s->error = n < 0 ? errno : ENOSPC;
            return;
        }
        p += n;
        at += (uint64_t)n;
        left -= (size_t)n;
    }
}

static void run_read(struct weir_spill *s)
{
    uint64_t want = s->flushed - s->read_at;
    if (want > READ_STEP) want = READ_STEP;
    weir_buf_reset(&s->chunk, READ_STEP);
    char *to = weir_buf_room(&s->chunk, (size_t)want);
    ssize_t n = -1;
    if (to) {
        do {
            n = pread(s->file, to, (size_t)want, (off_t)s->read_at);
        } while (n < 0 && errno == EINTR);
    } else {
        errno = ENOMEM;
    }
    if (n <= 0) {
        s->error = n < 0 ? errno : EIO;
        return;
    }
    weir_buf_added(&s->chunk, (size_t)n);
    s->chunk_at = s->read_at;
}

static void run(struct weir_job *job)
{
    struct weir_spill *s = WEIR_CONTAINER(job, struct weir_spill, job);
    if (s->running == WRITE) run_write(s);
    else run_read(s);
    if (s->free_to <= s->freed || s->file < 0) return;
    s->no_holes = fallocate(s->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)s->freed, (off_t)(s->free_to - s->freed)) < 0;
}

/* ---- on the owner's thread ---- */

static void start(struct weir_spill *s, enum job_kind kind)
{
    s->running = kind;
    s->read_at = s->at; /* the owner may move on meanwhile */
    s->free_to = s->limits.rewindable || s->kept_whole ? 0 : s->at / FREE_STEP * FREE_STEP;
    s->job.run = run;
    weir_loop_job(s->loop, &s->job);
}

static void write_more(struct weir_spill *s)
{
    if (!s->to_file || s->running != NONE || s->error || weir_buf_len(&s->tail) == 0) return;
    bool reader_waits = s->at >= s->flushed;
    if (!reader_waits && weir_buf_len(&s->tail) < WRITE_STEP && s->file >= 0) return;
    struct weir_buf spare = s->writing;
    s->writing = s->tail;
    s->tail = spare;
    weir_buf_reset(&s->tail, WRITE_STEP);
    start(s, WRITE);
}

static int charge(struct weir_spill *s, uint64_t len)
{
    if (atomic_fetch_add(&s->quota->used, len) + len > s->quota->max) {
        atomic_fetch_sub(&s->quota->used, len);
        return WEIR_LIMIT;
    }
    s->charged += len;
    return WEIR_OK;
}

static uint64_t first_kept(const struct weir_spill *s)
{
    return s->to_file ? s->freed : s->tail_at;
}

int weir_spill_put(struct weir_spill *s, const void *p, size_t len)
{
    if (s->error) {
        errno = s->error;
        return WEIR_SYSTEM;
    }
    if (len > s->limits.max - (s->size - first_kept(s))) return WEIR_LIMIT;
    uint64_t held = weir_buf_len(&s->tail);
    if (s->to_file || held + len > s->limits.memory) {
        if (charge(s, s->to_file ? len : held + len) < 0) return WEIR_LIMIT;
        if (!s->to_file) { /* the file begins where the kept bytes begin: offsets below tail_at stay a hole */
            s->to_file = true;
            s->flushed = s->freed = s->tail_at;
        }
    }
    if (weir_buf_append(&s->tail, p, len) < 0) return WEIR_NOMEM;
    s->size += len;
    write_more(s);
    return WEIR_OK;
}

bool weir_spill_full(const struct weir_spill *s)
{
    if (!s->to_file) return false;
    if (weir_buf_len(&s->tail) >= TAIL_MAX) return true;
    if (s->limits.rewindable || s->kept_whole || s->size - s->at <= TAIL_MAX) return false; /* reading makes no room, or all was read */
    return s->size - s->freed + SPACE_LEFT > s->limits.max || s->quota->used + SPACE_LEFT > s->quota->max;
}

bool weir_spill_failed(const struct weir_spill *s)
{
    return s->error != 0;
}

uint64_t weir_spill_unwritten(const struct weir_spill *s)
{
    return s->to_file ? s->size - s->flushed : 0;
}

int weir_spill_peek(struct weir_spill *s, const char **p, size_t *len)
{
    if (s->error) {
        errno = s->error;
        return WEIR_SYSTEM;
    }
    if (s->at == s->size) return WEIR_CLOSED;
    if (!s->to_file) {
        *p = weir_buf_ptr(&s->tail) + (s->at - s->tail_at);
        *len = (size_t)(s->size - s->at);
        return WEIR_OK;
    }
    if (s->running == READ) return WEIR_AGAIN;
    uint64_t chunk_end = s->chunk_at + weir_buf_len(&s->chunk);
    if (s->at >= s->chunk_at && s->at < chunk_end) {
        *p = weir_buf_ptr(&s->chunk) + (s->at - s->chunk_at);
        *len = (size_t)(chunk_end - s->at);
        return WEIR_OK;
    }
    if (s->running == NONE) {
        if (s->at < s->flushed) start(s, READ);
        else write_more(s);
    }
    return WEIR_AGAIN;
}

void weir_spill_consume(struct weir_spill *s, size_t len)
{
    WEIR_ASSERT(len <= s->size - s->at);
    s->at += len;
    if (!s->to_file && !s->limits.rewindable) {
        weir_buf_consume(&s->tail, len);
        s->tail_at = s->at;
    }
}

void weir_spill_rewind(struct weir_spill *s)
{
    WEIR_ASSERT(s->limits.rewindable);
    s->at = 0;
}

void weir_spill_set_user(struct weir_spill *s, void *user)
{
    s->user = user;
}

void *weir_spill_user(const struct weir_spill *s)
{
    return s->user;
}

uint64_t weir_spill_size(const struct weir_spill *s)
{
    return s->size;
}

uint64_t weir_spill_left(const struct weir_spill *s)
{
    return s->size - s->at;
}

struct weir_spill *weir_spill_done(struct weir_job *job)
{
    struct weir_spill *s = WEIR_CONTAINER(job, struct weir_spill, job);
    enum job_kind was = s->running;
    s->running = NONE;
    if (s->free_to > s->freed && s->no_holes) {
        s->kept_whole = true;
    } else if (s->free_to > s->freed && s->file >= 0) {
        uint64_t n = s->free_to - s->freed;
        s->freed = s->free_to;
        s->charged -= n;
        atomic_fetch_sub(&s->quota->used, n);
    }
    if (was == WRITE && !s->error) {
        s->flushed += weir_buf_len(&s->writing);
        weir_buf_reset(&s->writing, WRITE_STEP);
    }
    if (s->dead) {
        destroy(s);
        return NULL;
    }
    write_more(s);
    return s;
}

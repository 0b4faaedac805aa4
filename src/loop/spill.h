/* SPDX-License-Identifier: MIT */
/* spill: a byte store for a body that may be larger than memory should hold: memory first, then an unlinked temp file that
 * the helper thread writes and reads. Bytes are put at the end and read from a cursor; the cursor can be rewound while
 * nothing was forgotten. Belongs to one thread. */
#ifndef WEIR_SPILL_H
#define WEIR_SPILL_H

#include <stdatomic.h>

#include "loop/loop.h"

/* What all spills of a gateway share; outlives them. */
struct weir_spill_quota {
    const char *dir;
    _Atomic uint64_t max;     /* bytes in temp files together */
    _Atomic uint64_t used;
};

struct weir_spill_limits {
    uint32_t memory;   /* bytes held before the file is used */
    uint64_t max;      /* bytes that are kept at once: in all, if rewindable, else those not yet read */
    bool rewindable;   /* what was read is kept */
};

struct weir_spill;
/* id: the ident of its JOB events; the owner calls weir_spill_done with them. */
struct weir_spill *weir_spill_new(struct weir_loop *l, struct weir_spill_quota *q, const struct weir_spill_limits *lim,
                                  struct weir_ident id);
/* Freed now, or, while a job runs, when that has ended (its event is swallowed by weir_spill_done). */
void weir_spill_free(struct weir_spill *s);
/* Takes all of it: WEIR_OK; WEIR_LIMIT: over max or the quota; WEIR_SYSTEM: the disk failed; WEIR_NOMEM. */
WEIR_CHECK int weir_spill_put(struct weir_spill *s, const void *p, size_t len);
/* True when more than 1 MiB waits to be written, or the limit or the quota is near and reading makes room: better take no more
 * for now. Looked at again when a job has ended and when something was consumed. */
bool weir_spill_full(const struct weir_spill *s);
bool weir_spill_failed(const struct weir_spill *s); /* a read or write of its file failed: all that follows gives WEIR_SYSTEM */
uint64_t weir_spill_unwritten(const struct weir_spill *s); /* bytes that wait in memory for the file */
/* Bytes at the cursor: WEIR_OK (len > 0), WEIR_AGAIN: being loaded (an event follows), WEIR_CLOSED: none are left,
 * WEIR_SYSTEM: the disk failed. Valid until the next call. */
WEIR_CHECK int weir_spill_peek(struct weir_spill *s, const char **p, size_t *len);
void weir_spill_consume(struct weir_spill *s, size_t len);
void weir_spill_rewind(struct weir_spill *s);
uint64_t weir_spill_size(const struct weir_spill *s); /* put in all */
uint64_t weir_spill_left(const struct weir_spill *s); /* behind the cursor */
void weir_spill_set_user(struct weir_spill *s, void *user);
void *weir_spill_user(const struct weir_spill *s);
/* A JOB event's ptr. Returns the spill (now readable or writable again), or NULL when it had been freed. */
struct weir_spill *weir_spill_done(struct weir_job *job);
#endif

/* SPDX-License-Identifier: MIT */
/* loop: readiness, timers, sockets and the file helper thread of one thread. An interface: `weir_loop_epoll_new` is the real
 * one, `tests/sim` has a simulated one. Nothing calls up: wait() returns (kind, index, epoch, ready bits), the thread's turn
 * dispatches by a plain switch. Every file, socket and netlink descriptor of the gateway is made through here: this is the
 * one place that Landlock and seccomp will guard.
 *
 * Readiness is edge-triggered but for listeners: read and write until WEIR_AGAIN or, for reads, less than asked. A socket
 * that was registered reports READ (and CLOSED); WRITE only while asked for by weir_loop_want_write.
 * One thread each, except weir_loop_wake. */
#ifndef WEIR_LOOP_H
#define WEIR_LOOP_H

#include <sys/types.h>
#include <sys/uio.h>

#include "base/base.h"

struct sockaddr_storage;

/* What an event is about: kind (0..255) and index are the owner's, epoch tells stale events of a reused index. */
struct weir_ident {
    uint32_t index;
    uint32_t epoch; /* 24 bits */
    uint8_t kind;
};
enum weir_ready {
    WEIR_READY_READ = 1,
    WEIR_READY_WRITE = 2,
    WEIR_READY_CLOSED = 4, /* the peer closed its side, or an error: read and write tell which */
    WEIR_READY_TIMER = 8,
    WEIR_READY_WAKE = 16,  /* weir_loop_wake was called; ident is zero */
    WEIR_READY_JOB = 32    /* a job of this ident is done */
};
struct weir_event {
    struct weir_ident ident;
    uint32_t ready;
    void *ptr; /* TIMER: the struct weir_timer; JOB: the struct weir_job */
};

/* In its owner's object; zeroed = not set. */
struct weir_timer {
    struct weir_list node;
    uint64_t due_ms;
    struct weir_ident ident;
};

enum weir_lane {
    WEIR_LANE_FILES,
    WEIR_LANE_OTHERS, /* what may wait for somebody else: a log's reader */
    WEIR_LANE_WORK,   /* what computes for long: hashes of passwords */
    WEIR_LANES
};

/* Work for a helper thread: run() there, then a JOB event here (none when ident.kind is 0: then done() is called on
 * the helper, which must free the job). */
struct weir_job {
    void (*run)(struct weir_job *job);
    void (*done)(struct weir_job *job); /* only for ident.kind == 0; may be NULL */
    struct weir_ident ident;
    struct weir_job *next;
    uint8_t lane; /* enum weir_lane: each has a thread of its own */
};

struct weir_loop;
struct weir_loop_ops {
    void (*free)(struct weir_loop *l);
    int (*wait)(struct weir_loop *l, struct weir_event *ev, int max, int64_t timeout_us);
    void (*wake)(struct weir_loop *l);
    uint64_t (*clock_us)(struct weir_loop *l);
    int (*add)(struct weir_loop *l, int fd, struct weir_ident id, bool listener);
    int (*want_write)(struct weir_loop *l, int fd, struct weir_ident id, bool on);
    int (*del)(struct weir_loop *l, int fd);
    int64_t (*read)(struct weir_loop *l, int fd, void *buf, size_t len);
    int64_t (*write)(struct weir_loop *l, int fd, const struct iovec *v, int count, bool more);
    int64_t (*sendfile)(struct weir_loop *l, int fd, int file, int64_t offset, size_t len);
    int (*accept)(struct weir_loop *l, int fd, struct sockaddr_storage *peer, uint32_t *peer_len);
    int (*connect)(struct weir_loop *l, const struct sockaddr_storage *to, uint32_t len);
    int (*error)(struct weir_loop *l, int fd);
    int64_t (*peer)(struct weir_loop *l, int fd);
    void (*shutdown_write)(struct weir_loop *l, int fd);
    void (*close)(struct weir_loop *l, int fd);
    void (*job)(struct weir_loop *l, struct weir_job *job);
    int (*fd)(struct weir_loop *l); /* NULL: it has none */
    int64_t (*unsent)(struct weir_loop *l, int fd); /* NULL: cannot be told */
};
struct weir_loop {
    const struct weir_loop_ops *ops;
    uint64_t now_us;      /* monotonic, sampled when wait() returns */
    int64_t unix_seconds; /* wall clock, the same moment */
    struct weir_wheel *wheel;
    uint32_t jobs;        /* whose JOB event has not come yet */
    bool knows_peers;     /* weir_loop_peer works for unix sockets */
};

int weir_loop_epoll_new(struct weir_loop **out); /* WEIR_OK, WEIR_SYSTEM, WEIR_NOMEM */

static inline void weir_loop_free(struct weir_loop *l) { l->ops->free(l); }
/* Waits for events: the number of events (0 on time-out), at most max. timeout_us < 0: until something happens. Timers of
 * the loop are seen to; due ones are events. */
static inline int weir_loop_wait(struct weir_loop *l, struct weir_event *ev, int max, int64_t timeout_us)
{
    return l->ops->wait(l, ev, max, timeout_us);
}
/* For whoever waits elsewhere: readable when wait() has a descriptor or a wake-up to tell of. WEIR_INVALID: none (simulation). */
static inline int weir_loop_fd(struct weir_loop *l) { return l->ops->fd ? l->ops->fd(l) : WEIR_INVALID; }
/* Any thread: makes wait() return with a WAKE event; several merge. */
static inline void weir_loop_wake(struct weir_loop *l) { l->ops->wake(l); }
/* A fresh reading of the clock behind now_us. */
static inline uint64_t weir_loop_clock_us(struct weir_loop *l) { return l->ops->clock_us(l); }
/* Registers fd. listener: level-triggered and exclusive, READ only. */
WEIR_CHECK static inline int weir_loop_add(struct weir_loop *l, int fd, struct weir_ident id, bool listener)
{
    return l->ops->add(l, fd, id, listener);
}
WEIR_CHECK static inline int weir_loop_want_write(struct weir_loop *l, int fd, struct weir_ident id, bool on)
{
    return l->ops->want_write(l, fd, id, on);
}
/* Any thread may take a descriptor out of another's loop; events that were already fetched are told by their epoch. */
static inline int weir_loop_del(struct weir_loop *l, int fd) { return l->ops->del(l, fd); }
/* Bytes > 0; WEIR_CLOSED: end of file; WEIR_AGAIN; WEIR_SYSTEM: errno. */
WEIR_CHECK static inline int64_t weir_loop_read(struct weir_loop *l, int fd, void *buf, size_t len)
{
    return l->ops->read(l, fd, buf, len);
}
/* Bytes >= 0 written; WEIR_AGAIN; WEIR_SYSTEM: errno (never SIGPIPE). more: MSG_MORE. */
WEIR_CHECK static inline int64_t weir_loop_writev(struct weir_loop *l, int fd, const struct iovec *v, int count, bool more)
{
    return l->ops->write(l, fd, v, count, more);
}
WEIR_CHECK static inline int64_t weir_loop_sendfile(struct weir_loop *l, int fd, int file, int64_t offset, size_t len)
{
    return l->ops->sendfile(l, fd, file, offset, len);
}
/* A non-blocking, close-on-exec descriptor, or WEIR_AGAIN, WEIR_SYSTEM. TCP: TCP_NODELAY is set. */
WEIR_CHECK static inline int weir_loop_accept(struct weir_loop *l, int fd, struct sockaddr_storage *peer, uint32_t *peer_len)
{
    return l->ops->accept(l, fd, peer, peer_len);
}
/* A descriptor whose connect is done or under way (then WRITE tells; register it and want_write), or WEIR_AGAIN (unix:
 * backlog full), WEIR_SYSTEM. */
WEIR_CHECK static inline int weir_loop_connect(struct weir_loop *l, const struct sockaddr_storage *to, uint32_t len)
{
    return l->ops->connect(l, to, len);
}
/* SO_ERROR of a connect under way: 0 or an errno; clears it. */
static inline int weir_loop_error(struct weir_loop *l, int fd) { return l->ops->error(l, fd); }
/* The inode of the other end of our unix connection, once somebody accepted it (it names the process that holds it); 0: it
 * waits in a backlog; WEIR_CLOSED: the other end is gone; WEIR_INVALID: cannot be told here (TCP, no unix_diag). DESIGN
 * section 4, "Slots tell the truth". */
static inline int64_t weir_loop_peer(struct weir_loop *l, int fd) { return l->ops->peer(l, fd); }
/* Bytes written to a socket that its peer did not confirm yet; -1: cannot be told. */
static inline int64_t weir_loop_unsent(struct weir_loop *l, int fd) { return l->ops->unsent ? l->ops->unsent(l, fd) : -1; }
static inline void weir_loop_shutdown_write(struct weir_loop *l, int fd) { l->ops->shutdown_write(l, fd); }
static inline void weir_loop_close(struct weir_loop *l, int fd) { l->ops->close(l, fd); }
/* Hands work to the helper thread; never blocks. The job is the caller's memory until its event. */
static inline void weir_loop_job(struct weir_loop *l, struct weir_job *job)
{
    l->jobs += job->ident.kind != 0;
    l->ops->job(l, job);
}

static inline uint64_t weir_loop_now_ms(const struct weir_loop *l) { return l->now_us / 1000; }

/* ---- timers: a hierarchical wheel, 1 ms ---- */
/* Sets or moves it; due in the past fires in the next wait(). */
void weir_timer_set(struct weir_loop *l, struct weir_timer *t, struct weir_ident id, uint64_t due_ms);
void weir_timer_clear(struct weir_timer *t);
static inline bool weir_timer_is_set(const struct weir_timer *t) { return t->node.next != NULL; }
/* The wheel by itself: for implementations of the loop, and for whoever has no loop but timers. */
void weir_wheel_set(struct weir_wheel *w, struct weir_timer *t, struct weir_ident id, uint64_t due_ms);
struct weir_wheel *weir_wheel_new(uint64_t now_ms);
void weir_wheel_free(struct weir_wheel *w);
/* Takes up to max due timers (cleared) as events; the rest at the next call. */
int weir_wheel_expire(struct weir_wheel *w, uint64_t now_ms, struct weir_event *ev, int max);
int64_t weir_wheel_next_ms(const struct weir_wheel *w, uint64_t now_ms); /* until something is due at the earliest; -1: nothing */

/* ---- the one place where descriptors are made (open.c) ---- */
#define WEIR_OPEN_CACHED (1 << 30) /* only if no disk has to be asked; else WEIR_SYSTEM with EAGAIN (needs Linux 5.12) */
/* A file below areas[0]: RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS; on ELOOP a walk follows a link only if its owner is its target's
 * owner and the target stays below that area, or is below one of the others: absolute, or by "..". An area's path: of its folder,
 * absolute and without a slash at its end; NULL for the first one: its links stay inside. path is relative, no leading '/'. fd or
 * WEIR_SYSTEM. */
struct weir_open_area {
    int fd;
    const char *path;
};
WEIR_CHECK int weir_open_linked(const struct weir_open_area *areas, size_t count, const char *path, int flags);
WEIR_CHECK int weir_open_dir(const char *path);                    /* O_PATH | O_DIRECTORY; the root of a site */
WEIR_CHECK int weir_open_append(const char *path, unsigned mode);  /* a log file; made with just this mode, if it is not there */
/* Waits until all is written, for a thread that may; gives up on errors: a full disk, a closed pipe, a terminal that is gone stop nobody. */
void weir_write_log(int fd, const char *p, size_t len);
WEIR_CHECK int weir_open_temp(const char *dir);                    /* unlinked, mode 0600 (O_TMPFILE, else a random name removed) */
/* A listening socket; backlog 4096. unix: a dead socket at the path is removed first; mode 0600. */
WEIR_CHECK int weir_open_listener(const struct sockaddr_storage *at, uint32_t len, int *error);
/* Ends it for everybody who holds it, and removes a unix one's name; fd stays the caller's to close. */
void weir_close_listener(const struct sockaddr_storage *at, uint32_t len, int fd);
int weir_open_unix_diag(void);                                     /* netlink for accepted(); WEIR_SYSTEM where absent */
int64_t weir_unix_diag_peer(int netlink, int fd); /* weir_loop_peer by it; one question at a time */
/* "unix:/path", "fastcgi://ADDRESS:port", "ADDRESS:port", "[v6]:port", "*:port" -> sockaddr. WEIR_INVALID. */
WEIR_CHECK int weir_address_parse(struct weir_str text, struct sockaddr_storage *out, uint32_t *len);
/* Writes the numeric host to out; returns the port (0 for unix). */
uint16_t weir_address_text(const struct sockaddr_storage *a, char *out, size_t out_len);
#endif

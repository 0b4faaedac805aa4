/* SPDX-License-Identifier: MIT */
/* The loop on epoll, with its helper threads. Edge-triggered; the wake-up eventfd is never read.
 * A wake-up costs a system call only while the owner sleeps, here or by our descriptor. */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "loop/loop_internal.h"

#define BATCH     512
#define KIND_WAKE 255u
/* The kernel holds no more that it could not send yet for a peer that reads slowly: on loopback it would take megabytes of each, and
 * filling them costs the other peers of the thread their time. */
#define UNSENT_BYTES (128 << 10)

struct lane { /* a helper thread and what it has to do, in order */
    struct epoll_loop *loop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct weir_job *first, **last;
    bool started, stop;
};

struct epoll_loop {
    struct weir_loop base;
    int epoll, event, diag;
    atomic_int pending, sleeping;
    atomic_bool jobs_done, waits_elsewhere;
    struct lane lanes[WEIR_LANES];
    pthread_mutex_t done_lock;
    struct weir_job *done_first, **done_last;
    struct epoll_event fetched[BATCH];
};

static struct epoll_loop *self(struct weir_loop *l)
{
    return WEIR_CONTAINER(l, struct epoll_loop, base);
}

static uint64_t pack(struct weir_ident id)
{
    return (uint64_t)id.kind << 56 | (uint64_t)(id.epoch & 0xffffffu) << 32 | id.index;
}

static struct weir_ident unpack(uint64_t v)
{
    return (struct weir_ident){.kind = (uint8_t)(v >> 56), .epoch = (uint32_t)(v >> 32) & 0xffffffu,
                               .index = (uint32_t)v};
}

static uint64_t ep_clock_us(struct weir_loop *l)
{
    struct timespec ts;
    (void)l;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void sample_clock(struct weir_loop *l)
{
    struct timespec ts;
    l->now_us = ep_clock_us(l);
    clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    l->unix_seconds = ts.tv_sec;
}

/* ---- helper threads ---- */

static void finish(struct epoll_loop *e, struct weir_job *job)
{
    if (job->ident.kind == 0) {
        if (job->done) job->done(job);
        return;
    }
    pthread_mutex_lock(&e->done_lock);
    job->next = NULL;
    *e->done_last = job;
    e->done_last = &job->next;
    atomic_store(&e->jobs_done, true);
    pthread_mutex_unlock(&e->done_lock);
    weir_loop_wake(&e->base);
}

static void *lane_main(void *arg)
{
    struct lane *h = arg;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->first && !h->stop) pthread_cond_wait(&h->more, &h->lock);
        struct weir_job *job = h->first;
        if (!job) break; /* stopped, and all is done */
        h->first = job->next;
        if (!h->first) h->last = &h->first;
        pthread_mutex_unlock(&h->lock);
        job->run(job);
        finish(h->loop, job);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void ep_job(struct weir_loop *l, struct weir_job *job)
{
    struct epoll_loop *e = self(l);
    struct lane *h = &e->lanes[job->lane];
    pthread_mutex_lock(&h->lock);
    if (!h->started) h->started = pthread_create(&h->thread, NULL, lane_main, h) == 0;
    bool started = h->started;
    if (started) {
        job->next = NULL;
        *h->last = job;
        h->last = &job->next;
        pthread_cond_signal(&h->more);
    }
    pthread_mutex_unlock(&h->lock);
    if (started) return;
    job->run(job); /* no thread is to be had: here; slow, but nothing is lost */
    finish(e, job);
}

static void lane_init(struct lane *h, struct epoll_loop *e)
{
    h->loop = e;
    h->last = &h->first;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more, NULL);
}

/* Behind its last job. */
static void lane_fini(struct lane *h)
{
    if (h->started) {
        pthread_mutex_lock(&h->lock);
        h->stop = true;
        pthread_cond_signal(&h->more);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->thread, NULL);
    }
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->more);
}

static int take_done(struct epoll_loop *e, struct weir_event *ev, int max)
{
    int n = 0;
    if (!atomic_load_explicit(&e->jobs_done, memory_order_relaxed)) return 0;
    pthread_mutex_lock(&e->done_lock);
    while (n < max && e->done_first) {
        struct weir_job *job = e->done_first;
        e->done_first = job->next;
        e->base.jobs--;
        ev[n++] = (struct weir_event){.ident = job->ident, .ready = WEIR_READY_JOB, .ptr = job};
    }
    if (!e->done_first) {
        e->done_last = &e->done_first;
        atomic_store(&e->jobs_done, false);
    }
    pthread_mutex_unlock(&e->done_lock);
    return n;
}

/* ---- waiting ---- */

static int sleep_for(struct epoll_loop *e, int max, int64_t timeout_us)
{
    if (timeout_us <= 0 || timeout_us % 1000 == 0) {
        int64_t ms = timeout_us < 0 ? -1 : timeout_us / 1000;
        return epoll_wait(e->epoll, e->fetched, max, ms > 1 << 30 ? 1 << 30 : (int)ms);
    }
    struct timespec ts = {.tv_sec = timeout_us / 1000000, .tv_nsec = timeout_us % 1000000 * 1000};
    return epoll_pwait2(e->epoll, e->fetched, max, &ts, NULL);
}

static int ep_wait(struct weir_loop *l, struct weir_event *ev, int max, int64_t timeout_us)
{
    struct epoll_loop *e = self(l);
    if (max > BATCH) max = BATCH;
    WEIR_ASSERT(max >= 8);
    int rest = max / 8, fds = max - 2 * rest; /* many ready descriptors do not keep jobs and timers waiting */
    int64_t timer_ms = weir_wheel_next_ms(l->wheel, l->now_us / 1000);
    if (timer_ms >= 0 && (timeout_us < 0 || timer_ms * 1000 < timeout_us)) timeout_us = timer_ms * 1000;
    if (timeout_us != 0) {
        atomic_store(&e->sleeping, 1);
        if (atomic_load(&e->pending)) timeout_us = 0;
    }
    if (atomic_load_explicit(&e->jobs_done, memory_order_relaxed)) timeout_us = 0;
    int got = sleep_for(e, fds, timeout_us);
    atomic_store_explicit(&e->sleeping, 0, memory_order_relaxed);
    sample_clock(l);
    if (got < 0) got = 0; /* EINTR: the caller looks at what its signals set */

    int n = 0;
    for (int i = 0; i < got; i++) {
        uint32_t bits = e->fetched[i].events;
        struct weir_ident id = unpack(e->fetched[i].data.u64);
        if (id.kind == KIND_WAKE) continue;
        uint32_t ready = 0;
        if (bits & EPOLLIN) ready |= WEIR_READY_READ;
        if (bits & EPOLLOUT) ready |= WEIR_READY_WRITE;
        if (bits & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) ready |= WEIR_READY_CLOSED | WEIR_READY_READ;
        ev[n++] = (struct weir_event){.ident = id, .ready = ready};
    }
    if (atomic_load_explicit(&e->pending, memory_order_relaxed) && atomic_exchange(&e->pending, 0))
        ev[n++] = (struct weir_event){.ready = WEIR_READY_WAKE};
    n += take_done(e, ev + n, max - n - rest);
    n += weir_wheel_expire(l->wheel, l->now_us / 1000, ev + n, max - n);
    return n;
}

static void ep_wake(struct weir_loop *l)
{
    struct epoll_loop *e = self(l);
    atomic_store(&e->pending, 1);
    if (atomic_load(&e->sleeping) || atomic_load_explicit(&e->waits_elsewhere, memory_order_relaxed)) {
        uint64_t one = 1;
        if (write(e->event, &one, sizeof one) < 0) return; /* the counter is full: it is readable anyway */
    }
}

static int ep_fd(struct weir_loop *l)
{
    struct epoll_loop *e = self(l);
    atomic_store(&e->waits_elsewhere, true); /* nobody knows when the owner sleeps */
    return e->epoll;
}

/* ---- descriptors ---- */

static int control(struct epoll_loop *e, int op, int fd, uint32_t events, struct weir_ident id)
{
    struct epoll_event ev = {.events = events, .data.u64 = pack(id)};
    return epoll_ctl(e->epoll, op, fd, &ev) == 0 ? WEIR_OK : WEIR_SYSTEM;
}

static int ep_add(struct weir_loop *l, int fd, struct weir_ident id, bool listener)
{
    uint32_t events = listener ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN | EPOLLRDHUP | EPOLLET;
    return control(self(l), EPOLL_CTL_ADD, fd, events, id);
}

static int ep_want_write(struct weir_loop *l, int fd, struct weir_ident id, bool on)
{
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (on ? (uint32_t)EPOLLOUT : 0u);
    return control(self(l), EPOLL_CTL_MOD, fd, events, id);
}

static int ep_del(struct weir_loop *l, int fd)
{
    return epoll_ctl(self(l)->epoll, EPOLL_CTL_DEL, fd, NULL) == 0 ? WEIR_OK : WEIR_SYSTEM;
}

static int64_t failure(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK ? WEIR_AGAIN : WEIR_SYSTEM;
}

static int64_t ep_read(struct weir_loop *l, int fd, void *buf, size_t len)
{
    (void)l;
    ssize_t n;
    do {
        n = recv(fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) return n;
    return n == 0 ? WEIR_CLOSED : failure();
}

static int64_t ep_write(struct weir_loop *l, int fd, const struct iovec *v, int count, bool more)
{
    (void)l;
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    ssize_t n;
    do {
        if (count == 1) {
            n = send(fd, v->iov_base, v->iov_len, flags);
        } else {
            struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = (size_t)count};
            n = sendmsg(fd, &m, flags);
        }
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : failure();
}

static int64_t ep_sendfile(struct weir_loop *l, int fd, int file, int64_t offset, size_t len)
{
    (void)l;
    off_t at = offset;
    ssize_t n;
    do {
        n = sendfile(fd, file, &at, len);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : failure();
}

static int ep_accept(struct weir_loop *l, int fd, struct sockaddr_storage *peer, uint32_t *peer_len)
{
    (void)l;
    socklen_t len = sizeof *peer;
    int conn;
    do {
        conn = accept4(fd, (struct sockaddr *)peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (conn < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (conn < 0) return (int)failure();
    *peer_len = len;
    if (peer->ss_family != AF_UNIX) {
        int one = 1, unsent = UNSENT_BYTES;
        setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(conn, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    }
    return conn;
}

static int ep_connect(struct weir_loop *l, const struct sockaddr_storage *to, uint32_t len)
{
    (void)l;
    int fd = socket(to->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return WEIR_SYSTEM;
    if (to->ss_family != AF_UNIX) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (connect(fd, (const struct sockaddr *)to, len) == 0 || errno == EINPROGRESS || errno == EINTR) return fd;
    int status = (int)failure(), saved = errno;
    close(fd);
    errno = saved;
    return status;
}

static int ep_error(struct weir_loop *l, int fd)
{
    (void)l;
    int err = 0;
    socklen_t len = sizeof err;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : errno;
}

static int64_t ep_peer(struct weir_loop *l, int fd)
{
    return weir_unix_diag_peer(self(l)->diag, fd);
}

static int64_t ep_unsent(struct weir_loop *l, int fd)
{
    int n;
    (void)l;
    return ioctl(fd, SIOCOUTQ, &n) < 0 ? -1 : n;
}

static void ep_shutdown_write(struct weir_loop *l, int fd)
{
    (void)l;
    shutdown(fd, SHUT_WR);
}

static void ep_close(struct weir_loop *l, int fd)
{
    (void)l;
    close(fd);
}

static void ep_free(struct weir_loop *l)
{
    struct epoll_loop *e = self(l);
    for (size_t i = 0; i < WEIR_COUNT(e->lanes); i++) lane_fini(&e->lanes[i]);
    pthread_mutex_destroy(&e->done_lock);
    if (e->epoll >= 0) close(e->epoll);
    if (e->event >= 0) close(e->event);
    if (e->diag >= 0) close(e->diag);
    weir_wheel_free(l->wheel);
    free(e);
}

static const struct weir_loop_ops ops = {
    .free = ep_free, .wait = ep_wait, .wake = ep_wake, .clock_us = ep_clock_us, .add = ep_add, .want_write = ep_want_write, .del = ep_del,
    .read = ep_read, .write = ep_write, .sendfile = ep_sendfile, .accept = ep_accept, .connect = ep_connect,
    .error = ep_error, .peer = ep_peer, .shutdown_write = ep_shutdown_write, .close = ep_close, .job = ep_job,
    .fd = ep_fd, .unsent = ep_unsent,
};

int weir_loop_epoll_new(struct weir_loop **out)
{
    struct epoll_loop *e = calloc(1, sizeof *e);
    if (!e) return WEIR_NOMEM;
    e->base.ops = &ops;
    for (size_t i = 0; i < WEIR_COUNT(e->lanes); i++) lane_init(&e->lanes[i], e);
    pthread_mutex_init(&e->done_lock, NULL);
    e->done_last = &e->done_first;
    sample_clock(&e->base);
    e->base.wheel = weir_wheel_new(e->base.now_us / 1000);
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    e->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->diag = weir_open_unix_diag();
    e->base.knows_peers = weir_unix_diag_works(e->diag);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = pack((struct weir_ident){.kind = KIND_WAKE})};
    if (!e->base.wheel || e->epoll < 0 || e->event < 0 ||
        epoll_ctl(e->epoll, EPOLL_CTL_ADD, e->event, &ev) < 0) {
        int status = e->base.wheel ? WEIR_SYSTEM : WEIR_NOMEM, saved = errno;
        ep_free(&e->base);
        errno = saved;
        return status;
    }
    *out = &e->base;
    return WEIR_OK;
}

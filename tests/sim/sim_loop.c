/* SPDX-License-Identifier: MIT */
/* sim_loop: see sim_loop.h. */
#include "sim_loop.h"
#include "sim_fault.h"
#include "sim_tap.h"

#include <errno.h>
#include <stdlib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CAPACITY 20000 /* bytes under way in one direction, */
#define RECEIVE  30000 /* and those that arrived and are not read */

struct sim_loop {
    struct weir_loop base;
    struct sim *w;
    bool woken;
    struct weir_job *jobs, *done; /* of the helper, in order; its work done */
    uint64_t job_due_us;         /* when the first is done */
};

static struct sim_loop *self(struct weir_loop *l)
{
    return WEIR_CONTAINER(l, struct sim_loop, base);
}

static struct sim_socket *sock(struct weir_loop *l, int fd)
{
    fd -= SIM_FD;
    WEIR_ASSERT(fd >= 0 && fd < SIM_SOCKETS && self(l)->w->s[fd].used);
    return &self(l)->w->s[fd];
}

static size_t capacity(const struct sim *w)
{
    return w->capacity ? w->capacity : CAPACITY;
}

static int socket_new(struct sim *w)
{
    for (int i = 1; i < SIM_SOCKETS; i++) {
        if (w->s[i].used) continue;
        w->s[i] = (struct sim_socket){.used = true, .peer = -1};
        return i;
    }
    return -1;
}

static void append(struct weir_job **list, struct weir_job *job)
{
    while (*list) list = &(*list)->next;
    job->next = NULL;
    *list = job;
}

static void job_takes_time(struct sim_loop *l)
{
    l->job_due_us = l->w->now_us + sim_below(l->w, 5000, 8, 3000000);
}

static void run_jobs(struct sim_loop *l, bool all)
{
    while (l->jobs && (all || (!l->w->helpers_stopped && l->job_due_us <= l->w->now_us))) {
        struct weir_job *job = l->jobs;
        bool answer = job->ident.kind != 0;
        l->jobs = job->next;
        job->run(job);
        if (answer) append(&l->done, job);
        else if (job->done) job->done(job);
        job_takes_time(l);
    }
}

static void sm_free(struct weir_loop *l)
{
    run_jobs(self(l), true);
    weir_wheel_free(l->wheel);
    free(self(l));
}

static int sm_wait(struct weir_loop *l, struct weir_event *ev, int max, int64_t timeout_us)
{
    struct sim *w = self(l)->w;
    int n = 0;
    (void)timeout_us; /* the driver turns the clock */
    l->now_us = w->now_us;
    l->unix_seconds = (int64_t)(w->now_us / 1000000);
    run_jobs(self(l), false);
    if (self(l)->woken) {
        self(l)->woken = false;
        ev[n++] = (struct weir_event){.ready = WEIR_READY_WAKE};
    }
    while (self(l)->done && n < max - 2) {
        struct weir_job *j = self(l)->done;
        self(l)->done = j->next;
        l->jobs--;
        ev[n++] = (struct weir_event){.ident = j->ident, .ready = WEIR_READY_JOB, .ptr = j};
    }
    for (int i = 1; i < SIM_SOCKETS && n < max - 1; i++) {
        struct sim_socket *s = &w->s[i];
        if (!s->used || !s->registered || s->loop != l) continue;
        if (s->listener && s->backlog_count) s->edges |= WEIR_READY_READ;
        uint32_t edges = s->edges & (s->want_write ? ~0u : ~(uint32_t)WEIR_READY_WRITE);
        if (!edges) continue;
        s->edges = 0;
        ev[n++] = (struct weir_event){.ident = s->ident, .ready = edges};
    }
    n += weir_wheel_expire(l->wheel, w->now_us / 1000, ev + n, max - n);
    return n;
}

static void sm_wake(struct weir_loop *l)
{
    self(l)->woken = true;
}

static uint64_t sm_clock(struct weir_loop *l)
{
    return self(l)->w->now_us;
}

static int sm_add(struct weir_loop *l, int fd, struct weir_ident id, bool listener)
{
    struct sim_socket *s = sock(l, fd);
    s->loop = l;
    s->ident = id;
    s->registered = true;
    s->listener = listener || s->listener;
    if (weir_buf_len(&s->in)) s->edges |= WEIR_READY_READ; /* as epoll tells at once what is there */
    if (s->peer_closed && weir_buf_len(&s->wire) == 0) s->edges |= WEIR_READY_READ | WEIR_READY_CLOSED;
    return WEIR_OK;
}

static int sm_want_write(struct weir_loop *l, int fd, struct weir_ident id, bool on)
{
    struct sim_socket *s = sock(l, fd);
    s->ident = id;
    s->want_write = on;
    if (on && (s->peer < 0 || weir_buf_len(&self(l)->w->s[s->peer].wire) < capacity(self(l)->w))) s->edges |= WEIR_READY_WRITE;
    return WEIR_OK;
}

static int sm_del(struct weir_loop *l, int fd)
{
    sock(l, fd)->registered = false;
    return WEIR_OK;
}

static int64_t sm_read(struct weir_loop *l, int fd, void *buf, size_t len)
{
    struct sim_socket *s = sock(l, fd);
    size_t n = weir_buf_len(&s->in);
    self(l)->w->events++;
    if (n == 0) return s->peer_closed && weir_buf_len(&s->wire) == 0 ? WEIR_CLOSED : WEIR_AGAIN;
    if (n > len) n = len;
    memcpy(buf, weir_buf_ptr(&s->in), n);
    weir_buf_consume(&s->in, n);
    return (int64_t)n;
}

static int64_t sm_write(struct weir_loop *l, int fd, const struct iovec *v, int count, bool more)
{
    struct sim *w = self(l)->w;
    struct sim_socket *s = sock(l, fd);
    int64_t total = 0;
    (void)more;
    w->events++;
    if (s->peer < 0 && weir_buf_len(&s->wire)) { /* its close has not arrived yet: what is sent now is lost */
        for (int i = 0; i < count; i++) total += (int64_t)v[i].iov_len;
        return total;
    }
    if (s->peer < 0) {
        errno = EPIPE;
        return WEIR_SYSTEM;
    }
    struct weir_buf *to = &w->s[s->peer].wire;
    bool faults = sim_fault_set(false);
    for (int i = 0; i < count; i++) {
        size_t room = weir_buf_len(to) < capacity(w) ? capacity(w) - weir_buf_len(to) : 0;
        size_t n = v[i].iov_len < room ? v[i].iov_len : room;
        if (weir_buf_append(to, v[i].iov_base, n) < 0) abort();
        if (w->tap) sim_tap_written(w->tap, fd - SIM_FD, v[i].iov_base, n);
        total += (int64_t)n;
        if (n == v[i].iov_len) continue;
        if (weir_buf_len(&s->wire) >= capacity(w)) w->both_full++;
        break;
    }
    sim_fault_set(faults);
    return total ? total : WEIR_AGAIN;
}

static int64_t sm_sendfile(struct weir_loop *l, int fd, int file, int64_t offset, size_t len)
{
    char buf[4096];
    ssize_t n = pread(file, buf, len < sizeof buf ? len : sizeof buf, offset);
    struct iovec v = {buf, n > 0 ? (size_t)n : 0};
    return n > 0 ? sm_write(l, fd, &v, 1, false) : n;
}

static int sm_accept(struct weir_loop *l, int fd, struct sockaddr_storage *peer, uint32_t *peer_len)
{
    struct sim_socket *s = sock(l, fd);
    if (s->backlog_count == 0) return WEIR_AGAIN;
    int conn = s->backlog[0];
    memmove(s->backlog, s->backlog + 1, (size_t)--s->backlog_count * sizeof s->backlog[0]);
    memset(peer, 0, sizeof *peer);
    peer->ss_family = s->tcp ? AF_INET : AF_UNIX;
    *peer_len = sizeof *peer;
    struct sim *w = self(l)->w;
    if (w->s[conn].peer >= 0) w->s[w->s[conn].peer].accepted = true;
    return conn + SIM_FD;
}

int sim_dial(struct sim *w, const char *name)
{
    for (int i = 1; i < SIM_SOCKETS; i++) {
        struct sim_socket *s = &w->s[i];
        if (!s->used || !s->listener || s->dead || strcmp(s->name, name) != 0) continue;
        if (s->backlog_count == (int)WEIR_COUNT(s->backlog)) {
            errno = EAGAIN;
            return -1;
        }
        int a = socket_new(w), b = socket_new(w);
        if (a < 0 || b < 0) abort();
        w->s[a].peer = b;
        w->s[b].peer = a;
        w->s[b].of = i;
        w->s[a].tcp = w->s[b].tcp = s->tcp;
        s->backlog[s->backlog_count++] = b;
        if (w->tap) sim_tap_opened(w->tap, a, b);
        return a + SIM_FD;
    }
    errno = ECONNREFUSED;
    return -1;
}

static int sm_connect(struct weir_loop *l, const struct sockaddr_storage *to, uint32_t len)
{
    const struct sockaddr_un *u = (const void *)to;
    (void)len;
    int fd = sim_dial(self(l)->w, u->sun_path);
    return fd >= 0 ? fd : errno == EAGAIN ? WEIR_AGAIN : WEIR_SYSTEM;
}

static int sm_error(struct weir_loop *l, int fd)
{
    (void)l, (void)fd;
    return 0;
}

static int64_t sm_peer(struct weir_loop *l, int fd)
{
    return sock(l, fd)->accepted ? sock(l, fd)->peer + 1 : 0;
}

static void cut(struct sim *w, int fd)
{
    struct sim_socket *s = &w->s[fd];
    if (s->peer < 0) return;
    struct sim_socket *p = &w->s[s->peer];
    p->peer = -1;
    p->peer_closed = true;
    if (p->want_write) p->edges |= WEIR_READY_WRITE; /* nobody is there whom it could wait for */
    if (weir_buf_len(&p->wire) == 0) p->edges |= WEIR_READY_READ | WEIR_READY_CLOSED;
    s->peer = -1;
}

static void sm_shutdown(struct weir_loop *l, int fd)
{
    const struct sim_socket *s = sock(l, fd);
    if (s->peer < 0) return;
    struct sim_socket *p = &self(l)->w->s[s->peer];
    p->peer_closed = true;
    if (weir_buf_len(&p->wire) == 0) p->edges |= WEIR_READY_READ | WEIR_READY_CLOSED;
}

static void sm_close(struct weir_loop *l, int fd)
{
    struct sim *w = self(l)->w;
    if (fd < SIM_FD) {
        close(fd);
        return;
    }
    struct sim_socket *s = sock(l, fd);
    if (w->tap) sim_tap_closed(w->tap, fd - SIM_FD, s->peer >= 0);
    if (s->tcp && s->peer >= 0 && (weir_buf_len(&s->in) || weir_buf_len(&s->wire))) weir_buf_reset(&w->s[s->peer].wire, 0);
    cut(w, fd - SIM_FD);
    weir_buf_fini(&s->in);
    weir_buf_fini(&s->wire);
    s->used = s->registered = false;
}

static void sm_job(struct weir_loop *l, struct weir_job *job)
{
    if (!self(l)->jobs) job_takes_time(self(l));
    append(&self(l)->jobs, job);
}

static const struct weir_loop_ops ops = {
    .free = sm_free, .wait = sm_wait, .wake = sm_wake, .clock_us = sm_clock, .add = sm_add, .want_write = sm_want_write, .del = sm_del,
    .read = sm_read, .write = sm_write, .sendfile = sm_sendfile, .accept = sm_accept, .connect = sm_connect, .error = sm_error,
    .peer = sm_peer, .shutdown_write = sm_shutdown, .close = sm_close, .job = sm_job,
};

struct weir_loop *sim_loop_new(struct sim *w)
{
    struct sim_loop *l = calloc(1, sizeof *l);
    if (!l) abort();
    l->base.ops = &ops;
    l->base.now_us = w->now_us;
    l->base.wheel = weir_wheel_new(w->now_us / 1000);
    l->w = w;
    return &l->base;
}

int sim_listen(struct sim *w, const char *name)
{
    int i = socket_new(w);
    w->s[i].listener = true;
    w->s[i].name = name;
    w->s[i].tcp = name[0] != '/';
    return i + SIM_FD;
}

void sim_move(struct sim *w)
{
    int start = (int)(weir_random_next(&w->random) % SIM_SOCKETS);
    for (int k = 0; k < SIM_SOCKETS; k++) {
        struct sim_socket *s = &w->s[(start + k) % SIM_SOCKETS];
        size_t n = s->used ? weir_buf_len(&s->wire) : 0;
        if (n == 0 || weir_buf_len(&s->in) >= RECEIVE) continue;
        size_t take = 1 + sim_below(w, 3000, 4, 9);
        if (take > n) take = n;
        if (weir_buf_append(&s->in, weir_buf_ptr(&s->wire), take) < 0) abort();
        if (w->tap) sim_tap_delivered(w->tap, (int)(s - w->s), weir_buf_ptr(&s->wire), take);
        weir_buf_consume(&s->wire, take);
        s->edges |= WEIR_READY_READ;
        w->events++;
        if (s->peer >= 0 && w->s[s->peer].want_write) w->s[s->peer].edges |= WEIR_READY_WRITE;
        if (s->peer_closed && weir_buf_len(&s->wire) == 0) s->edges |= WEIR_READY_CLOSED;
        return;
    }
}

bool sim_taken(const struct sim *w, int fd)
{
    int peer = w->s[fd - SIM_FD].peer;
    return peer < 0 || (weir_buf_len(&w->s[peer].in) == 0 && weir_buf_len(&w->s[peer].wire) == 0);
}

static void break_it(struct sim *w, int i)
{
    struct sim_socket *s = &w->s[i];
    if (w->tap) sim_tap_reset(w->tap, i);
    weir_buf_reset(&s->wire, 0); /* what was under way is lost */
    weir_buf_reset(&w->s[s->peer].wire, 0);
    cut(w, i);
    s->peer_closed = true;
    s->edges |= WEIR_READY_READ | WEIR_READY_CLOSED;
    w->events++;
}

void sim_die(struct sim *w, const char *name, bool dead)
{
    for (int i = 1; i < SIM_SOCKETS; i++) {
        if (!w->s[i].used || !w->s[i].listener || strcmp(w->s[i].name, name) != 0) continue;
        w->s[i].dead = dead;
        for (int k = 1; dead && k < SIM_SOCKETS; k++)
            if (w->s[k].used && w->s[k].of == i && w->s[k].peer >= 0) break_it(w, k);
    }
}

void sim_reset(struct sim *w)
{
    int start = (int)(weir_random_next(&w->random) % SIM_SOCKETS);
    for (int k = 0; k < SIM_SOCKETS; k++) {
        int i = (start + k) % SIM_SOCKETS;
        struct sim_socket *s = &w->s[i];
        if (!s->used || s->listener || s->peer < 0) continue;
        break_it(w, i);
        return;
    }
}

uint64_t sim_below(struct sim *w, uint64_t usual, unsigned odds, uint64_t rare)
{
    bool is_rare = weir_random_next(&w->random) % odds == 0;
    return weir_random_next(&w->random) % (is_rare ? rare : usual);
}

void sim_clock(struct sim *w, uint64_t us)
{
    w->now_us += us;
}

bool sim_quiet(const struct sim *w)
{
    for (int i = 1; i < SIM_SOCKETS; i++)
        if (w->s[i].used && (weir_buf_len(&w->s[i].wire) || w->s[i].edges || w->s[i].backlog_count)) return false;
    return true;
}

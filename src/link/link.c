/* SPDX-License-Identifier: MIT */
/* link: see link.h. Little-endian fixed fields; strings with a length byte; every read through one bounded cursor. */
#include "link/link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- writing ---- */

static int put(struct weir_buf *b, const void *p, size_t n)
{
    return weir_buf_append(b, p, n);
}
static int put_u64(struct weir_buf *b, uint64_t v)
{
    return put(b, &v, sizeof v);
}
static int put_text(struct weir_buf *b, const char *s)
{
    size_t n = strlen(s);
    uint8_t len = (uint8_t)(n > 255 ? 255 : n);
    int status = put(b, &len, 1);
    return status < 0 ? status : put(b, s, len);
}

static int put_endpoint(struct weir_buf *b, const struct weir_link_endpoint *e)
{
    uint64_t flags = (uint64_t)e->flow | (uint64_t)e->keep << 1 | (uint64_t)e->drain << 2 | (uint64_t)e->prove << 3 | (uint64_t)e->pings << 4 | (uint64_t)e->forks << 5;
    const uint64_t v[] = {e->id, e->ahead, e->pid, e->workers, e->requests, flags, e->others};
    if (put(b, v, sizeof v) < 0 || put_text(b, e->pool) < 0) return WEIR_NOMEM;
    return put_text(b, e->address);
}

static int put_server(struct weir_buf *b, const struct weir_link_server *s)
{
    const uint64_t v[] = {(uint64_t)s->state | (uint64_t)s->backup << 8 | (uint64_t)s->weight << 32, (uint64_t)s->busy | (uint64_t)s->limit << 32,
                          s->done, s->failed, s->retried, s->ejections, s->passed_on, s->rests_ms};
    if (put(b, v, sizeof v) < 0 || put_text(b, s->pool) < 0 || put_text(b, s->address) < 0) return WEIR_NOMEM;
    return put_text(b, s->problem);
}

int weir_link_encode(const struct weir_link_message *m, struct weir_buf *b)
{
    const uint64_t head[] = {m->type, m->version, (uint64_t)m->part | (uint64_t)m->of << 16 | (uint64_t)m->drain_ms << 32,
                             m->endpoint_count, m->use_count, m->pool_count, m->refusal_count, m->thread_count, m->connections,
                             m->unit, m->inode, m->flags, m->server_count};
    if (put(b, head, sizeof head) < 0 || put_text(b, m->text) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < m->endpoint_count; i++)
        if (put_endpoint(b, &m->endpoints[i]) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < m->use_count; i++) {
        const struct weir_link_use *u = &m->uses[i];
        const uint64_t v[] = {u->id, u->done, u->failed, (uint64_t)u->busy | (uint64_t)u->gone << 32, u->opening};
        if (put(b, v, sizeof v) < 0) return WEIR_NOMEM;
    }
    for (size_t i = 0; i < m->pool_count; i++) {
        const struct weir_link_pool *o = &m->pools[i];
        const uint64_t v[] = {o->queued, o->oldest_ms, o->started, o->refused, o->timed_out};
        if (put_text(b, o->pool) < 0 || put(b, v, sizeof v) < 0) return WEIR_NOMEM;
    }
    for (size_t i = 0; i < m->refusal_count; i++)
        if (put(b, &m->refusals[i].stopped, 1) < 0 || put_text(b, m->refusals[i].pool) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < m->thread_count; i++)
        if (put_u64(b, m->threads[i]) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < m->server_count; i++)
        if (put_server(b, &m->servers[i]) < 0) return WEIR_NOMEM;
    return weir_buf_len(b) <= WEIR_LINK_MAX ? WEIR_OK : WEIR_LIMIT;
}

/* ---- reading ---- */

struct cursor {
    const char *p, *end;
    bool bad;
};

static void get(struct cursor *c, void *to, size_t n)
{
    if ((size_t)(c->end - c->p) < n) {
        c->bad = true;
        memset(to, 0, n);
        return;
    }
    memcpy(to, c->p, n);
    c->p += n;
}

static void get_text(struct cursor *c, char *to, size_t room)
{
    uint8_t len;
    get(c, &len, 1);
    if (c->bad || (size_t)(c->end - c->p) < len || len >= room) {
        c->bad = true;
        to[0] = 0;
        return;
    }
    memcpy(to, c->p, len);
    to[len] = 0;
    if (memchr(to, 0, len)) c->bad = true;
    c->p += len;
}

/* A list of n entries of at least min bytes each can be in what is left. */
static void *list(struct cursor *c, struct weir_arena *a, uint64_t n, size_t min, size_t size)
{
    if (n > (uint64_t)(c->end - c->p) / min) {
        c->bad = true;
        return NULL;
    }
    void *p = weir_arena_alloc(a, (size_t)n * size + 1);
    if (!p) c->bad = true;
    return p;
}

static void get_lists(struct cursor *c, struct weir_arena *a, struct weir_link_message *m, const uint64_t *counts)
{
    m->endpoints = list(c, a, counts[0], 58, sizeof *m->endpoints);
    for (; !c->bad && m->endpoint_count < counts[0]; m->endpoint_count++) {
        struct weir_link_endpoint *e = &m->endpoints[m->endpoint_count];
        uint64_t v[7];
        get(c, v, sizeof v);
        *e = (struct weir_link_endpoint){.id = v[0], .ahead = (uint32_t)v[1], .pid = (uint32_t)v[2], .workers = (uint32_t)v[3],
                                         .requests = (uint32_t)v[4], .others = (uint32_t)v[6], .flow = v[5] & 1, .keep = v[5] >> 1 & 1, .drain = v[5] >> 2 & 1, .prove = v[5] >> 3 & 1, .pings = v[5] >> 4 & 1, .forks = v[5] >> 5 & 1};
        get_text(c, e->pool, sizeof e->pool);
        get_text(c, e->address, sizeof e->address);
    }
    m->uses = list(c, a, counts[1], 40, sizeof *m->uses);
    for (; !c->bad && m->use_count < counts[1]; m->use_count++) {
        uint64_t v[5];
        get(c, v, sizeof v);
        m->uses[m->use_count] = (struct weir_link_use){.id = v[0], .done = v[1], .failed = v[2], .busy = (uint32_t)v[3], .gone = v[3] >> 32 & 1, .opening = (uint32_t)v[4]};
    }
    m->pools = list(c, a, counts[2], 41, sizeof *m->pools);
    for (; !c->bad && m->pool_count < counts[2]; m->pool_count++) {
        struct weir_link_pool *o = &m->pools[m->pool_count];
        uint64_t v[5];
        get_text(c, o->pool, sizeof o->pool);
        get(c, v, sizeof v);
        o->queued = (uint32_t)v[0];
        o->oldest_ms = (uint32_t)v[1];
        o->started = v[2];
        o->refused = v[3];
        o->timed_out = v[4];
    }
    m->refusals = list(c, a, counts[3], 2, sizeof *m->refusals);
    for (; !c->bad && m->refusal_count < counts[3]; m->refusal_count++) {
        struct weir_link_refusal *o = &m->refusals[m->refusal_count];
        uint8_t stopped;
        get(c, &stopped, 1);
        o->stopped = stopped & 1;
        get_text(c, o->pool, sizeof o->pool);
    }
    if (counts[4] > WEIR_COUNT(m->threads)) c->bad = true;
    for (; !c->bad && m->thread_count < counts[4]; m->thread_count++) get(c, &m->threads[m->thread_count], 8);
}

static void get_servers(struct cursor *c, struct weir_arena *a, struct weir_link_message *m, uint64_t count)
{
    m->servers = list(c, a, count, 67, sizeof *m->servers);
    for (; !c->bad && m->server_count < count; m->server_count++) {
        struct weir_link_server *s = &m->servers[m->server_count];
        uint64_t v[8];
        get(c, v, sizeof v);
        *s = (struct weir_link_server){.state = (uint8_t)v[0], .backup = v[0] >> 8 & 1, .weight = (uint32_t)(v[0] >> 32), .busy = (uint32_t)v[1],
                                       .limit = (uint32_t)(v[1] >> 32), .done = v[2], .failed = v[3], .retried = v[4], .ejections = v[5],
                                       .passed_on = v[6], .rests_ms = v[7]};
        get_text(c, s->pool, sizeof s->pool);
        get_text(c, s->address, sizeof s->address);
        get_text(c, s->problem, sizeof s->problem);
    }
}

int weir_link_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_message *m)
{
    struct cursor c = {p, (const char *)p + len, false};
    uint64_t head[13];
    memset(m, 0, sizeof *m);
    get(&c, head, sizeof head);
    get_text(&c, m->text, sizeof m->text);
    if (c.bad || head[0] < WEIR_LINK_CONFIG || head[0] > WEIR_LINK_KEYS) return WEIR_PROTOCOL;
    m->type = (enum weir_link_type)head[0];
    m->version = head[1];
    m->part = (uint16_t)head[2];
    m->of = (uint16_t)(head[2] >> 16);
    m->drain_ms = (uint32_t)(head[2] >> 32);
    m->connections = head[8];
    m->unit = head[9];
    m->inode = head[10];
    m->flags = (uint32_t)head[11];
    get_lists(&c, a, m, head + 3);
    get_servers(&c, a, m, head[12]);
    return c.bad || c.p != c.end ? WEIR_PROTOCOL : WEIR_OK;
}

/* ---- the socket ---- */

int weir_link_send(int fd, const struct weir_link_message *m, const int *fds, size_t fd_count)
{
    struct weir_buf b = {0};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * WEIR_LINK_FDS_MAX)];
    } control;
    if (fd_count > WEIR_LINK_FDS_MAX) return WEIR_LIMIT;
    int status = weir_link_encode(m, &b);
    if (status < 0) {
        weir_buf_fini(&b);
        return status;
    }
    struct iovec v = {weir_buf_ptr(&b), weir_buf_len(&b)};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
    if (fd_count) {
        memset(&control, 0, sizeof control);
        h.msg_control = control.room;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    ssize_t n;
    do {
        n = sendmsg(fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    weir_buf_fini(&b);
    if (n >= 0) return WEIR_OK;
    if (errno == EAGAIN) return WEIR_AGAIN;
    return errno == EPIPE || errno == ECONNRESET ? WEIR_CLOSED : WEIR_SYSTEM;
}

int weir_link_receive(int fd, struct weir_arena *a, struct weir_link_message *out, int *fds, size_t *fd_count)
{
    static _Thread_local char buf[WEIR_LINK_MAX + 1];
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int) * WEIR_LINK_FDS_MAX)];
    } control;
    struct iovec v = {buf, sizeof buf};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t n;
    *fd_count = 0;
    do {
        n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN ? WEIR_AGAIN : errno == ECONNRESET ? WEIR_CLOSED : WEIR_SYSTEM;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && *fd_count < WEIR_LINK_FDS_MAX; i++)
            memcpy(&fds[(*fd_count)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    if (n == 0) return WEIR_CLOSED;
    int status = h.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? WEIR_PROTOCOL : weir_link_decode(buf, (size_t)n, a, out);
    if (status < 0) {
        weir_link_close(fds, *fd_count);
        *fd_count = 0;
    }
    return status;
}

void weir_link_close(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0) close(fds[i]);
}

int weir_link_memfd(const char *name, const void *p, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return WEIR_SYSTEM;
    const char *at = p;
    while (len) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            close(fd);
            return WEIR_SYSTEM;
        }
        at += n;
        len -= (size_t)n;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
        close(fd);
        return WEIR_SYSTEM;
    }
    return fd;
}

int weir_link_memfd_read(int fd, size_t max, char **out, size_t *len)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return WEIR_INVALID;
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size > max) return WEIR_LIMIT;
    char *p = malloc((size_t)st.st_size + 1);
    if (!p) return WEIR_NOMEM;
    ssize_t n = pread(fd, p, (size_t)st.st_size, 0);
    if (n != st.st_size) {
        free(p);
        return WEIR_SYSTEM;
    }
    p[n] = 0;
    *out = p;
    *len = (size_t)n;
    return WEIR_OK;
}

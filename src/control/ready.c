/* SPDX-License-Identifier: MIT */
/* Readiness. A worker accepted a connection: asked with GET_VALUES, which every library answers or closes on; what it answers
 * tells whether flow control is spoken. Who accepts and stays silent is ready, too. A pool may ask for more: that the program
 * says READY=1 first (sd_notify), or that a request is answered below 400. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cgi/cgi.h"
#include "control/internal.h"
#include "loop/loop.h"

#define CLOSED_MS 100  /* it closed and still lives then: it does not like GET_VALUES */
#define SILENT_MS 1000 /* accepted, and no answer to GET_VALUES: it does not know it */
#define AGAIN_MS  200  /* between two check requests */
#define LIVED_MS  500  /* of a process whose socket others share */

void probe_end(struct control *c, struct unit *u)
{
    struct probe *p = u->probe;
    if (!p) return;
    u->probe = NULL;
    weir_wire_server_free(p->wire);
    p->wire = NULL;
    weir_arena_fini(&p->arena);
    watch_end(c, &p->w, true);
}

/* ---- a connection ---- */

static bool flush(struct probe *p)
{
    const void *bytes;
    size_t len = weir_wire_server_output(p->wire, &bytes);
    ssize_t n = len ? send(p->w.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (n > 0) weir_wire_server_sent(p->wire, (size_t)n);
    return (size_t)n == len; /* it is short, and the socket is new */
}

static struct probe *connect_to(struct control *c, struct unit *u)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct probe *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    snprintf(a.sun_path, sizeof a.sun_path, "%.107s", u->address + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 || weir_wire_server_new(&p->wire, NULL) < 0) {
        if (fd >= 0) close(fd);
        free(p);
        return NULL; /* the clock tries again */
    }
    weir_arena_init(&p->arena, 256u << 10);
    p->unit = u;
    p->since_ms = now_ms();
    u->probe = p;
    if (watch_add(c, &p->w, WATCH_PROBE, fd) == WEIR_OK) return p;
    weir_wire_server_free(p->wire);
    free(p);
    u->probe = NULL;
    return NULL;
}

void probe_start(struct control *c, struct unit *u)
{
    const struct weir_conf_pool *o = u->pool->conf;
    if (o && o->notify && !u->notified) return; /* it says when */
    if (u->shared) return;
    struct probe *p = connect_to(c, u);
    if (p && (weir_wire_server_ask(p->wire) < 0 || !flush(p))) probe_end(c, u);
}

/* ---- the check request ---- */

static void check_start(struct control *c, struct unit *u)
{
    struct pool_root first = {0};
    const char *path = u->pool->conf->ready_path, *root = pool_next_root(c, u->pool, &first);
    const struct weir_conf_pool *o = u->pool->conf;
    bool script = o->kind == WEIR_POOL_PHP || (o->kind == WEIR_POOL_CGI && !o->argc);
    char file[4096] = "";
    struct weir_pair *pairs;
    size_t count;
    uint16_t id;
    struct probe *p = connect_to(c, u);
    if (!p) return;
    if (script && root) snprintf(file, sizeof file, "%s%s", root, path);
    struct weir_cgi_request r = weir_cgi_check_request(path, root ? root : "", file, script);
    p->head = weir_cgi_head_new(&p->arena, NULL);
    bool fine = p->head && weir_cgi_params(&r, &p->arena, &pairs, &count) == WEIR_OK &&
                weir_wire_server_begin(p->wire, WEIR_RESPONDER, 0, 0, pairs, count, NULL, &id) == WEIR_OK &&
                weir_wire_server_write_end(p->wire, id, WEIR_STDIN) == WEIR_OK && flush(p);
    if (!fine) probe_end(c, u);
}

static void checked(struct control *c, struct unit *u, int status)
{
    bool fine = status >= 200 && status < 400;
    probe_end(c, u);
    u->check_ms = now_ms() + AGAIN_MS;
    if (fine) unit_ready(c, u, u->flow, u->requests);
    else if (!u->check_told) say("pool %s: process %d answers %d to %s: not ready yet", u->pool->name, (int)u->pid, status, u->pool->conf->ready_path);
    if (!fine) u->check_told = true;
}

/* ---- events ---- */

static void conclude(struct control *c, struct unit *u, bool flow, uint32_t requests)
{
    probe_end(c, u);
    if (!u->pool->conf || !u->pool->conf->ready_path) {
        unit_ready(c, u, flow, requests);
        return;
    }
    u->flow = flow;
    u->requests = requests;
    u->accepted = true; /* now it has to answer */
    check_start(c, u);
}

static void check_event(struct probe *p, const struct weir_wire_event *ev)
{
    const char *why;
    size_t used;
    if (ev->type == WEIR_WIRE_EV_INPUT && ev->stream == WEIR_STDOUT && !p->answered) {
        int status = weir_cgi_head_feed_final(p->head, ev->bytes.ptr, ev->bytes.len, &used, &why);
        if (status == WEIR_OK) p->answered = weir_cgi_head_response(p->head)->status;
        else if (status < 0 && status != WEIR_AGAIN) p->answered = 502;
    }
}

void probe_event(struct control *c, struct probe *p)
{
    char buf[4096];
    struct weir_wire_event ev;
    struct unit *u = p->unit;
    ssize_t n = recv(p->w.fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 && p->head) {
        checked(c, u, p->answered ? p->answered : 502);
        return;
    }
    if (n <= 0) { /* it accepted and closed, or it died: the next moments tell */
        p->closed_ms = now_ms();
        epoll_ctl(c->epoll, EPOLL_CTL_DEL, p->w.fd, NULL);
        return;
    }
    weir_wire_server_feed(p->wire, buf, (size_t)n);
    while (weir_wire_server_next(p->wire, &ev) == WEIR_OK) {
        if (p->head) check_event(p, &ev);
        if (p->head && (ev.type == WEIR_WIRE_EV_END || ev.type == WEIR_WIRE_EV_ERROR)) {
            checked(c, u, p->answered ? p->answered : 502);
            return;
        }
        if (ev.type == WEIR_WIRE_EV_VALUES || ev.type == WEIR_WIRE_EV_ERROR) {
            bool agreed = ev.type == WEIR_WIRE_EV_VALUES && ev.agreed;
            u->pings = ev.type == WEIR_WIRE_EV_VALUES;
            conclude(c, u, agreed, agreed ? weir_wire_server_limit(p->wire) : 0);
            return;
        }
    }
}

void probe_clock(struct control *c, struct unit *u)
{
    static int diag = -2;
    struct probe *p = u->probe;
    if (u->shared) { /* whoever would accept us there need not be this one: it lives, or it says so */
        if (u->pool->conf && u->pool->conf->notify ? u->notified : now_ms() - u->started_ms >= LIVED_MS) unit_ready(c, u, false, 0);
        return;
    }
    if (diag == -2) diag = weir_open_unix_diag();
    if (!p && u->accepted) {
        if (now_ms() >= u->check_ms) check_start(c, u);
    } else if (!p) {
        probe_start(c, u);
    } else if (p->head) { /* it may take its time */
    } else if (p->closed_ms) {
        if (now_ms() - p->closed_ms >= CLOSED_MS) conclude(c, u, false, 0);
    } else if (now_ms() - p->since_ms >= SILENT_MS && weir_unix_diag_peer(diag, p->w.fd) != 0) {
        conclude(c, u, false, 0);
    }
}

/* ---- READY=1 ---- */

int notify_listen(struct control *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int on = 1;
    if (c->notify.fd >= 0) return WEIR_OK;
    snprintf(a.sun_path, sizeof a.sun_path, "%.64s/control/notify", c->o.run_dir);
    unlink(a.sun_path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(a.sun_path, 0666) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
        if (fd >= 0) close(fd);
        return WEIR_SYSTEM;
    }
    return watch_add(c, &c->notify, WATCH_NOTIFY, fd);
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *end = strrchr(text, ')');
    return end && sscanf(end + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

/* Of whom this process is, or comes from. */
static struct unit *unit_of(const struct control *c, pid_t pid)
{
    for (int depth = 0; pid > 1 && depth < 32; depth++, pid = parent_of(pid))
        for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
            const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
            for (struct weir_list *k = p->units.next; k != &p->units; k = k->next)
                if (WEIR_CONTAINER(k, struct unit, link)->pid == pid) return WEIR_CONTAINER(k, struct unit, link);
        }
    return NULL;
}

static bool says_ready(const char *text)
{
    for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (strncmp(p, "READY=1", 7) == 0 && (p[7] == 0 || p[7] == '\n')) return true;
    return false;
}

void notify_event(struct control *c)
{
    char text[1024];
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } ctl;
    struct iovec v = {text, sizeof text - 1};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.room, .msg_controllen = sizeof ctl.room};
    ssize_t n = recvmsg(c->notify.fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *k = n > 0 ? CMSG_FIRSTHDR(&h) : NULL;
    struct ucred who;
    if (!k || k->cmsg_level != SOL_SOCKET || k->cmsg_type != SCM_CREDENTIALS) return;
    memcpy(&who, CMSG_DATA(k), sizeof who);
    text[n] = 0;
    struct unit *u = says_ready(text) ? unit_of(c, who.pid) : NULL;
    if (!u || u->notified) return;
    u->notified = true;
    if (u->state == UNIT_PROBING && !u->probe) probe_start(c, u);
    pool_touch(c, u->pool);
}

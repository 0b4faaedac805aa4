/* SPDX-License-Identifier: MIT */
/* The control socket: one JSON object a line in, one out. Only root, the user who runs Weir, and control's own user may
 * speak; the gateway's user may not (roles come later). */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/internal.h"

static void no_socket(struct control *c, int error)
{
    if (error == EADDRINUSE)
        say("another weir has the control socket %s: this one has none (weir { control PATH } names another)", c->control_path);
    else
        say("cannot make the control socket %s: %s: weir status and its like do not work. Its folder must be writable by the user that control "
            "runs as (weir { user CONTROL GATEWAY } [weir weir-gw])", c->control_path, strerror(error));
    c->control_path[0] = 0; /* it serves without */
}

void command_socket(struct control *c, int fd, int error)
{
    if (fd < 0) {
        no_socket(c, error);
        return;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (watch_add(c, &c->listen, WATCH_LISTEN, fd) < 0) no_socket(c, errno);
}

/* A path that the configuration names, or /tmp: made here. 0, or an errno. */
static int make_socket(struct control *c, int *out)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", c->control_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    bool taken = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 || errno == EAGAIN;
    close(fd);
    if (taken) return EADDRINUSE;
    if (lstat(c->control_path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(c->control_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t old = umask(0177);
    int bad = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0 ? errno : 0;
    umask(old);
    if (bad && fd >= 0) close(fd);
    if (!bad) *out = fd;
    return bad;
}

void command_listen(struct control *c)
{
    int fd = -1;
    if (c->conf->control_path) {
        snprintf(c->control_path, sizeof c->control_path, "%s", c->conf->control_path);
    } else if (c->o.privileged) {
        snprintf(c->control_path, sizeof c->control_path, "/run/weir/control.sock");
        root_send(c, &(struct root_msg){.kind = ROOT_CONTROL_SOCKET}, NULL, 0);
        return; /* it comes with LISTENING */
    } else {
        snprintf(c->control_path, sizeof c->control_path, "/tmp/weir-%d.sock", (int)geteuid());
    }
    int bad = make_socket(c, &fd);
    command_socket(c, fd, bad);
    c->own_socket = c->control_path[0] != 0;
}

void command_accept(struct control *c)
{
    int fd = accept4(c->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct ucred who;
    socklen_t len = sizeof who;
    if (fd < 0) return;
    struct client *k = calloc(1, sizeof *k);
    bool may = k && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && (who.uid == 0 || who.uid == geteuid());
    if (!may) {
        static const char no[] = "{\"error\":\"you may not do that: run it as root\"}\n";
        if (send(fd, no, sizeof no - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) errno = 0;
        close(fd);
        free(k);
        return;
    }
    k->uid = who.uid;
    if (watch_add(c, &k->w, WATCH_CLIENT, fd) < 0) free(k);
}

/* ---- status ---- */

static json_t *unit_json(const struct unit *u)
{
    json_t *o = json_pack("{s:i, s:s, s:s, s:b, s:i, s:i, s:i, s:I, s:I, s:I}", "pid", (int)u->pid, "state", unit_state_name(u->state),
                          "address", u->address, "flow_control", u->flow, "workers", (int)u->workers, "busy", (int)u->busy, "unproven",
                          (int)u->unproven, "requests", (json_int_t)u->done, "failed", (json_int_t)u->failed, "age_ms",
                          (json_int_t)(now_ms() - u->started_ms));
    if (u->flow) json_object_set_new(o, "at_once", json_integer(u->requests));
    return o;
}

static const char *kind_name(const struct weir_conf_pool *o)
{
    if (!o) return "removed";
    return o->kind == WEIR_POOL_PHP ? "php" : "run";
}

static json_t *pool_json(const struct pool *p)
{
    json_t *units = json_array();
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next) json_array_append_new(units, unit_json(WEIR_CONTAINER(l, struct unit, link)));
    json_t *o = json_pack("{s:s, s:s, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:o}", "name", p->name, "kind", kind_name(p->conf), "generation",
                          (json_int_t)p->generation, "restarts", (int)p->restarts, "queued", (int)p->queued, "oldest_ms", (int)p->oldest_ms,
                          "requests", (json_int_t)p->started, "refused", (json_int_t)p->refused, "timed_out", (json_int_t)p->timed_out,
                          "cut", (json_int_t)p->cut, "processes", units);
    if (p->why[0]) json_object_set_new(o, "problem", json_string(p->why));
    else if (p->conf && p->conf->broken) json_object_set_new(o, "problem", json_string(p->conf->broken));
    if (p->stopped) json_object_set_new(o, "stopped", json_true());
    if (p->refuses) json_object_set_new(o, "refuses", json_true());
    if (p->most) { /* until the next reload */
        char range[32];
        snprintf(range, sizeof range, p->least == p->most ? "%u" : "%u..%u", p->least, p->most);
        json_object_set_new(o, "scaled", json_string(range));
    }
    return o;
}

static json_t *status_json(const struct control *c)
{
    json_t *pools = json_array(), *threads = json_array(), *listen = json_array();
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) json_array_append_new(pools, pool_json(WEIR_CONTAINER(l, struct pool, link)));
    for (size_t i = 0; i < c->thread_count; i++) json_array_append_new(threads, json_pack("{s:I}", "requests", (json_int_t)c->threads[i]));
    for (size_t i = 0; i < c->conf->listener_count; i++) json_array_append_new(listen, json_string(c->conf->listeners[i].address.text));
    json_t *gateway = json_pack("{s:i, s:b, s:i, s:I, s:o}", "pid", (int)c->gateway_pid, "ready", c->gateway_ready, "restarts",
                                (int)c->gateway_restarts, "connections", (json_int_t)c->connections, "threads", threads);
    return json_pack("{s:s, s:i, s:i, s:I, s:I, s:o, s:o, s:o}", "version", WEIR_VERSION, "control_pid", (int)getpid(), "root_pid", (int)getppid(),
                     "uptime_ms", (json_int_t)(now_ms() - c->started_ms), "configuration", (json_int_t)c->config_version, "listen", listen,
                     "gateway", gateway, "pools", pools);
}

/* ---- orders ---- */

static json_t *error_json(const char *text)
{
    char safe[8192 * 4]; /* JSON is UTF-8; what a file or a client said need not be */
    size_t n = strlen(text), at = 0;
    for (size_t i = 0, end; i < n; i = end + 1) { /* line ends stay */
        const char *nl = strchr(text + i, '\n');
        end = nl ? (size_t)(nl - text) : n;
        at += output_escape(safe + at, sizeof safe - at - 1, text + i, end - i);
        if (nl && at + 1 < sizeof safe) safe[at++] = '\n';
    }
    safe[at] = 0;
    return json_pack("{s:s}", "error", safe);
}

static json_t *no_pool(const char *what)
{
    char text[160];
    snprintf(text, sizeof text, what ? "there is no pool %.64s that Weir owns" : "which pool?", what);
    return error_json(text);
}

static json_t *restart(struct control *c, const char *what)
{
    if (!what) return error_json("restart what? name a pool, or gateway");
    if (strcmp(what, "gateway") == 0) {
        if (!c->gateway_pid) return error_json("no gateway runs");
        gateway_restart(c);
        return json_pack("{s:s}", "ok", "the gateway restarts");
    }
    if (pool_restart(c, what)) return json_pack("{s:s}", "ok", "new processes start; the old ones leave when they are idle");
    return no_pool(what);
}

static json_t *scale(struct control *c, const char *what, json_t *order)
{
    json_int_t least = json_integer_value(json_object_get(order, "least")), most = json_integer_value(json_object_get(order, "most"));
    if (least < 0 || most < 1 || least > most || most > 1000) return error_json("a number of processes is 1 to 1000, or a range such as 0..8");
    if (!what || !pool_scale(c, what, (uint32_t)least, (uint32_t)most)) return no_pool(what);
    return json_pack("{s:s}", "ok", "it holds until the next reload");
}

/* NULL: it comes later. */
static json_t *answer(struct control *c, struct client *k, json_t *order)
{
    const char *name = json_string_value(json_object_get(order, "command"));
    if (!name) return error_json("an order without a command");
    if (strcmp(name, "status") == 0) return status_json(c);
    if (strcmp(name, "restart") == 0) return restart(c, json_string_value(json_object_get(order, "name")));
    if (strcmp(name, "reload") == 0) {
        k->waits = true;
        root_send(c, &(struct root_msg){.kind = ROOT_READ}, NULL, 0); /* its file may be root's alone */
        return NULL;
    }
    const char *what = json_string_value(json_object_get(order, "name"));
    if (strcmp(name, "scale") == 0) return scale(c, what, order);
    if (strcmp(name, "stop") == 0 || strcmp(name, "drain") == 0) {
        if (!what || !pool_stop(c, what, name[0] == 'd')) return no_pool(what);
        return json_pack("{s:s}", "ok", "nothing new is taken, what runs may end; weir restart starts it again");
    }
    return error_json("a command that is not known");
}

/* Sends what it takes now; the rest when it has room. False: it is gone. */
static bool flush(struct control *c, struct client *k)
{
    while (weir_buf_len(&k->out)) {
        ssize_t n = send(k->w.fd, weir_buf_ptr(&k->out), weir_buf_len(&k->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) return false;
        if (n <= 0) break;
        weir_buf_consume(&k->out, (size_t)n);
    }
    struct epoll_event ev = {.events = (k->in_ended ? 0u : (uint32_t)EPOLLIN) | (weir_buf_len(&k->out) ? (uint32_t)EPOLLOUT : 0u), .data.ptr = &k->w};
    epoll_ctl(c->epoll, EPOLL_CTL_MOD, k->w.fd, &ev);
    return true;
}

static void reply(struct control *c, struct client *k, json_t *o)
{
    static const char failed[] = "{\"error\":\"out of memory\"}";
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    const char *answer = text ? text : failed;
    if (weir_buf_append(&k->out, answer, strlen(answer)) < 0 || weir_buf_append(&k->out, "\n", 1) < 0) k->broken = true;
    if (!flush(c, k)) k->broken = true;
    free(text);
    json_decref(o);
}

void command_reloaded(struct control *c, const char *why)
{
    for (struct weir_list *l = c->heap.next; l != &c->heap; l = l->next) {
        struct watch *w = WEIR_CONTAINER(l, struct watch, link);
        struct client *k = (struct client *)(void *)w;
        if (w->kind != WATCH_CLIENT || w->dead || !k->waits) continue;
        k->waits = false;
        reply(c, k, why ? error_json(why) : json_pack("{s:s}", "ok", "the configuration was read again"));
    }
}

static void client_end(struct control *c, struct client *k)
{
    weir_buf_fini(&k->in);
    weir_buf_fini(&k->out);
    watch_end(c, &k->w, true);
}

void command_event(struct control *c, struct client *k)
{
    if (k->broken || !flush(c, k) || weir_buf_len(&k->out) > REPLY_MAX) {
        client_end(c, k);
        return;
    }
    if (k->in_ended) {
        if (!k->waits && weir_buf_len(&k->out) == 0) client_end(c, k);
        return;
    }
    char *to = weir_buf_room(&k->in, 4096);
    ssize_t n = to ? recv(k->w.fd, to, 4096, MSG_DONTWAIT) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n == 0 && (k->waits || weir_buf_len(&k->out))) { /* it only has no more orders */
        k->in_ended = true;
        if (!flush(c, k)) client_end(c, k);
        return;
    }
    if (n <= 0 || weir_buf_len(&k->in) > COMMAND_MAX) {
        client_end(c, k);
        return;
    }
    weir_buf_added(&k->in, (size_t)n);
    for (;;) {
        char *p = weir_buf_ptr(&k->in), *nl = weir_buf_len(&k->in) ? memchr(p, '\n', weir_buf_len(&k->in)) : NULL;
        if (!nl) return;
        json_error_t err;
        json_t *order = json_loadb(p, (size_t)(nl - p), 0, &err);
        json_t *o = order ? answer(c, k, order) : error_json("this is no JSON");
        if (o || !k->waits) reply(c, k, o);
        json_decref(order);
        weir_buf_consume(&k->in, (size_t)(nl - p) + 1);
    }
}

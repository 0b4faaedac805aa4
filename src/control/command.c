/* SPDX-License-Identifier: MIT */
/* The control socket: one JSON object a line in, one out. Who may speak there, and order what, roles.c tells from the
 * credentials of whoever connected; they are looked at with each order. */
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
    command_mode(c);
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
    if (lstat(c->control_path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) return EEXIST; /* somebody's file */
        unlink(c->control_path);
    }
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
        snprintf(c->control_path, sizeof c->control_path, "%s", WEIR_CONTROL_SOCKET);
        root_send(c, &(struct root_msg){.kind = ROOT_CONTROL_SOCKET}, NULL, 0);
        return; /* it comes with LISTENING */
    } else {
        snprintf(c->control_path, sizeof c->control_path, WEIR_CONTROL_SOCKET_OF_USER, (int)geteuid());
    }
    int bad = make_socket(c, &fd);
    command_socket(c, fd, bad);
    c->own_socket = c->control_path[0] != 0;
}

void command_mode(struct control *c)
{
    char path[32];
    struct stat st;
    if (!c->control_path[0]) return;
    int fd = open(c->control_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid()) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (chmod(path, c->conf->role_count ? 0666 : 0600) < 0) say("the mode of %s cannot be changed: %s", c->control_path, strerror(errno));
    }
    if (fd >= 0) close(fd);
}

static void refuse(int fd, const char *why)
{
    char line[160];
    int n = snprintf(line, sizeof line, "{\"error\":\"%s\"}\n", why);
    if (send(fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) errno = 0;
    close(fd);
}

void command_accept(struct control *c)
{
    int fd = accept4(c->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct ucred who;
    struct rights may = {0};
    socklen_t len = sizeof who;
    if (fd < 0) return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0) roles_of(c, who.uid, &may);
    if (may.all == WEIR_ROLE_NONE && may.own == WEIR_ROLE_NONE) {
        refuse(fd, "you may not do that: run it as root, or let weir { control PATH { read operate admin } } name you");
        return;
    }
    bool guest = may.all < WEIR_ROLE_ADMIN;
    struct client *k = guest && c->guests >= CLIENTS_MAX ? NULL : calloc(1, sizeof *k);
    if (!k) {
        refuse(fd, "too many others ask: try again");
        return;
    }
    k->uid = who.uid;
    k->guest = guest;
    c->guests += guest;
    if (watch_add(c, &k->w, WATCH_CLIENT, fd) == 0) return;
    c->guests -= guest;
    free(k);
}

/* ---- status ---- */

static json_t *unit_json(const struct unit *u)
{
    json_t *o = json_pack("{s:i, s:s, s:I, s:s, s:b, s:i, s:i, s:i, s:I, s:I, s:I}", "pid", (int)u->pid, "state", unit_state_name(u->state),
                          "generation", (json_int_t)u->generation, "address", u->address, "flow_control", u->flow, "workers", (int)u->workers, "busy", (int)u->busy, "opening",
                          (int)u->opening, "requests", (json_int_t)u->done, "failed", (json_int_t)u->failed, "age_ms",
                          (json_int_t)(now_ms() - u->started_ms));
    if (u->flow) json_object_set_new(o, "at_once", json_integer(u->requests));
    return o;
}

static const char *kind_name(const struct weir_conf_pool *o)
{
    if (!o) return "removed";
    return o->kind == WEIR_POOL_PHP ? "php" : o->kind == WEIR_POOL_CGI ? "cgi" : "run";
}

static json_t *pool_json(const struct pool *p)
{
    json_t *units = json_array();
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next) json_array_append_new(units, unit_json(WEIR_CONTAINER(l, struct unit, link)));
    json_t *o = json_pack("{s:s, s:s, s:I, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:o}", "name", p->name, "kind", kind_name(p->conf), "generation",
                          (json_int_t)p->generation, "restarts", (int)p->restarts, "queued", (int)p->all.queued, "oldest_ms", (int)p->all.oldest_ms,
                          "requests", (json_int_t)p->all.started, "refused", (json_int_t)p->all.refused, "timed_out", (json_int_t)p->all.timed_out,
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

static json_t *pools_json(const struct control *c, const struct rights *may)
{
    json_t *pools = json_array();
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (roles_pool(c, may, WEIR_ROLE_READ, p->name)) json_array_append_new(pools, pool_json(p));
    }
    if (may->all >= WEIR_ROLE_READ) servers_json(c, pools); /* they are no tenant's */
    return pools;
}

static json_t *status_json(const struct control *c, const struct rights *may)
{
    json_t *pools = pools_json(c, may), *threads, *listen, *others;
    if (may->all < WEIR_ROLE_READ) /* of the rest an owner of pools sees nothing */
        return json_pack("{s:s, s:I, s:I, s:o}", "version", WEIR_VERSION, "uptime_ms", (json_int_t)(now_ms() - c->started_ms), "configuration",
                         (json_int_t)c->config_version, "pools", pools);
    threads = json_array();
    listen = json_array();
    others = json_array();
    for (size_t i = 0; c->serving && i < c->serving->thread_count; i++)
        json_array_append_new(threads, json_pack("{s:I}", "requests", (json_int_t)c->serving->threads[i]));
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) {
        const struct gateway *g = &c->gateways[i];
        if (g->pid && g != c->serving)
            json_array_append_new(others, json_pack("{s:i, s:s, s:I}", "pid", (int)g->pid, "state", g->leaves ? "leaving" : "starting", "connections",
                                                    (json_int_t)g->connections));
    }
    for (size_t i = 0; i < c->conf->listener_count; i++) json_array_append_new(listen, json_string(c->conf->listeners[i].address.text));
    json_t *gateway = json_pack("{s:i, s:b, s:i, s:I, s:o, s:o}", "pid", c->serving ? (int)c->serving->pid : 0, "ready",
                                c->serving && c->serving->ready, "restarts", (int)c->gateway_restarts, "connections",
                                (json_int_t)(c->serving ? c->serving->connections : 0), "threads", threads, "others", others);
    return json_pack("{s:s, s:i, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:I}", "version", WEIR_VERSION, "control_pid", (int)getpid(), "root_pid", (int)getppid(),
                     "uptime_ms", (json_int_t)(now_ms() - c->started_ms), "configuration", (json_int_t)c->config_version, "listen", listen,
                     "gateway", gateway, "pools", pools, "suspended", orders_suspended_json(c), "denied",
                     (json_int_t)(c->orders.denied.count + c->orders.filed.count));
}

/* ---- orders ---- */

json_t *error_json(const char *text)
{
    char safe[8192 * 4]; /* JSON is UTF-8; what a file or a client said need not be */
    size_t n = strlen(text), at = 0;
    for (size_t i = 0, end; i < n; i = end + 1) { /* line ends stay */
        const char *nl = strchr(text + i, '\n');
        end = nl ? (size_t)(nl - text) : n;
        at += weir_text_escape(safe + at, sizeof safe - at - 1, text + i, end - i);
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
        const char *why = gateway_replace(c);
        return why ? error_json(why) : json_pack("{s:s}", "ok", "a new gateway takes over; the old one finishes what it has");
    }
    if (pool_restart(c, what)) return json_pack("{s:s}", "ok", "new processes start; the old ones leave when they are idle");
    return no_pool(what);
}

static json_t *scale(struct control *c, const struct rights *may, const char *what, json_t *order)
{
    json_int_t least = json_integer_value(json_object_get(order, "least")), most = json_integer_value(json_object_get(order, "most"));
    if (least < 0 || most < 1 || least > most || most > SCALE_MAX) return error_json("a number of processes or workers is 1 to 1000, or a range such as 0..8");
    struct pool *p = what ? pool_find(c, what) : NULL;
    if (!p || !p->conf) return no_pool(what);
    uint32_t own = p->conf->kind == WEIR_POOL_RUN ? p->conf->processes : p->conf->workers;
    if (own && may->all < WEIR_ROLE_OPERATE && most > own) return error_json("its configuration allows no more: ask who operates the machine");
    if (p->conf->listen && least != most) return error_json("processes that share a socket with web servers are a fixed number");
    if (pool_is_group(p) && least != most) return error_json("a php-cgi group has a fixed number of workers");
    pool_scale(c, p, (uint32_t)least, (uint32_t)most);
    return json_pack("{s:s}", "ok", "it holds until the next reload");
}

static json_t *reload(struct control *c, struct client *k)
{
    k->waits |= WAITS_RELOAD;
    root_send(c, &(struct root_msg){.kind = ROOT_READ}, NULL, 0); /* its file may be root's alone */
    return NULL;
}

static json_t *stop(struct control *c, const char *what, bool patient)
{
    if (!what || !pool_stop(c, what, patient)) return no_pool(what);
    return json_pack("{s:s}", "ok", "nothing new is taken, what runs may end; weir restart starts it again");
}

enum command { STATUS, RELOAD, RESTART, SCALE, STOP, DRAIN, SUSPEND, RESUME, DENY, ALLOW, REOPEN, UPGRADE };
static const struct {
    const char *name;
    enum weir_conf_role_kind need;
    bool of_pool; /* the pool's owner may, too */
} commands[] = {[STATUS] = {"status", WEIR_ROLE_READ, true}, [RELOAD] = {"reload", WEIR_ROLE_ADMIN, false}, [RESTART] = {"restart", WEIR_ROLE_OPERATE, true},
                [SCALE] = {"scale", WEIR_ROLE_OPERATE, true}, [STOP] = {"stop", WEIR_ROLE_OPERATE, true}, [DRAIN] = {"drain", WEIR_ROLE_OPERATE, true},
                [SUSPEND] = {"suspend", WEIR_ROLE_OPERATE, false}, [RESUME] = {"resume", WEIR_ROLE_OPERATE, false}, [DENY] = {"deny", WEIR_ROLE_READ, false},
                [ALLOW] = {"allow", WEIR_ROLE_OPERATE, false}, [REOPEN] = {"reopen", WEIR_ROLE_ADMIN, false},
                [UPGRADE] = {"upgrade", WEIR_ROLE_ADMIN, false}};

static bool allowed(const struct control *c, const struct rights *may, size_t i, const char *what)
{
    enum weir_conf_role_kind need = commands[i].need;
    if (i == RESTART && what && strcmp(what, "gateway") == 0) return may->all == WEIR_ROLE_ADMIN;
    if (i == DENY && what) need = WEIR_ROLE_OPERATE;
    if (may->all >= need) return true;
    return commands[i].of_pool && (i == STATUS ? may->own >= need : roles_pool(c, may, need, what));
}

static json_t *not_allowed(const struct rights *may, size_t i, const char *what)
{
    char text[256];
    if (commands[i].of_pool && may->own >= commands[i].need && what) snprintf(text, sizeof text, "there is no pool %.64s of yours", what);
    else snprintf(text, sizeof text, "you may not do that: weir { control PATH { %s } } has to name you",
                  commands[i].need == WEIR_ROLE_ADMIN || (i == RESTART && may->all >= WEIR_ROLE_OPERATE) ? "admin" : commands[i].need == WEIR_ROLE_OPERATE || i == DENY ? "operate" : "read");
    return error_json(text);
}

/* NULL: it comes later. */
static json_t *carry_out(struct control *c, struct client *k, const struct rights *may, enum command what_to_do, const char *what, json_t *order)
{
    switch (what_to_do) {
    case STATUS: return status_json(c, may);
    case RELOAD: return reload(c, k);
    case RESTART: return restart(c, what);
    case SCALE: return scale(c, may, what, order);
    case STOP: return stop(c, what, false);
    case DRAIN: return stop(c, what, true);
    case SUSPEND: return orders_suspend(c, what, json_string_value(json_object_get(order, "text")), json_is_true(json_object_get(order, "page")));
    case RESUME: return orders_resume(c, what);
    case DENY: return what ? orders_deny(c, what, json_integer_value(json_object_get(order, "seconds"))) : orders_denied_json(c);
    case ALLOW: return orders_allow(c, what);
    case REOPEN: logs_reopen(c); return json_pack("{s:s}", "ok", "log files are opened anew");
    case UPGRADE:
        k->waits |= WAITS_UPGRADE;
        root_send(c, &(struct root_msg){.kind = ROOT_UPGRADE}, NULL, 0);
        return NULL;
    }
    return NULL;
}

/* Who ordered what, and why it was not done, or not whole; not those that only look (reload and upgrade tell later how they went). */
static void note_order(const struct client *k, enum command i, const char *what, const json_t *order, const json_t *answer)
{
    json_int_t least = json_integer_value(json_object_get(order, "least")), most = json_integer_value(json_object_get(order, "most"));
    const char *bad = answer ? json_string_value(json_object_get(answer, "error")) : NULL;
    char more[64] = "";
    if (i == STATUS || (i == DENY && !what)) return;
    json_int_t seconds = json_integer_value(json_object_get(order, "seconds"));
    if (i == SCALE) snprintf(more, sizeof more, least == most ? " to %lld" : " to %lld..%lld", (long long)least, (long long)most);
    if (i == DENY && seconds) snprintf(more, sizeof more, " for %lld s", (long long)seconds);
    say("uid %u orders: %s%s%.200s%s%s%.300s", (unsigned)k->uid, commands[i].name, what ? " " : "", what ? what : "", more, bad ? ": " : "", bad ? bad : "");
}

static json_t *answer(struct control *c, struct client *k, json_t *order)
{
    const char *name = json_string_value(json_object_get(order, "command")), *what = json_string_value(json_object_get(order, "name"));
    struct rights may;
    size_t i = 0;
    if (!name) return error_json("an order without a command");
    while (i < WEIR_COUNT(commands) && strcmp(commands[i].name, name) != 0) i++;
    if (i == WEIR_COUNT(commands)) return error_json("a command that is not known");
    roles_of(c, k->uid, &may);
    if (!allowed(c, &may, i, what)) return not_allowed(&may, i, what);
    json_t *o = carry_out(c, k, &may, (enum command)i, what, order);
    note_order(k, (enum command)i, what, order, o);
    return o;
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

/* Those who wait for this are answered. why: an error; else ok. */
static void answer_waiting(struct control *c, enum client_waits what, const char *why, const char *ok)
{
    for (struct weir_list *l = c->heap.next; l != &c->heap; l = l->next) {
        struct watch *w = WEIR_CONTAINER(l, struct watch, link);
        struct client *k = (struct client *)(void *)w;
        if (w->kind != WATCH_CLIENT || w->dead || !(k->waits & what)) continue;
        k->waits &= ~(unsigned)what;
        reply(c, k, why ? error_json(why) : json_pack("{s:s}", "ok", ok));
    }
}

void command_reloaded(struct control *c, const char *why)
{
    answer_waiting(c, WAITS_RELOAD, why, c->has_mistakes ? "the configuration was read again, and parts of it are not in use: they have mistakes; see the log, or weir check"
                                                         : "the configuration was read again");
}

void command_upgraded(struct control *c, int error, const char *what)
{
    char why[256];
    if (error) {
        snprintf(why, sizeof why, "cannot %.128s: %s; all goes on as before", what, strerror(error));
        say("no upgrade: %s", why);
        tell_ready(c, "");
    }
    answer_waiting(c, WAITS_UPGRADE, error ? why : NULL, "the new version runs; the gateway follows");
}

static void client_end(struct control *c, struct client *k)
{
    weir_buf_fini(&k->in);
    weir_buf_fini(&k->out);
    c->guests -= k->guest;
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

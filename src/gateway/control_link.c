/* SPDX-License-Identifier: MIT */
/* The gateway's end of the link to control, on the first thread: configurations and endpoints come down as state, use goes
 * up on change. When control is started anew, the root part hands over another link. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "link/link.h"

#define STATE_GAP_US 100000 /* at most ten state messages a second, but for what cannot wait */
#define PART_MAX     256    /* endpoints in one message */
#define SERVERS_MAX  96     /* servers of pools that connect, likewise */
#define LATE_MAX     65536  /* requests that control has not been told of; given up ones, */
#define SLOW_MAX     64     /* and slow ones */

struct gateway_link {
    int fd, root_fd;
    struct weir_link_endpoint *gathered; /* parts of the coming endpoint state */
    size_t gathered_count;
    uint64_t gathering, version, config_version;
    uint64_t sent_at_us;                 /* the last state message */
    uint64_t connections;                /* told then */
    bool all;                            /* tell of all pools, and at once */
    struct weir_link_use *gone;          /* endpoints of no pool of ours; told with the next state */
    size_t gone_count;
};

static struct weir_ident link_ident(uint32_t index)
{
    return (struct weir_ident){.kind = KIND_LINK, .index = index};
}

static void say_ready(struct gateway *gw, uint64_t version, const char *error)
{
    struct weir_link_message m = {.type = WEIR_LINK_READY, .version = version, .flags = atomic_load(&gw->leaves) ? WEIR_LINK_LEAVES : 0};
    if (error) snprintf(m.text, sizeof m.text, "%s", error);
    if (weir_link_send(gw->link->fd, &m, NULL, 0) < 0) return; /* its end is noticed by reading */
}

/* ---- configuration ---- */

static int config_of(int memfd, struct weir_config **out)
{
    struct weir_config_sources src = {0};
    struct weir_config_report report;
    char *bytes = NULL;
    size_t len;
    int status = weir_link_memfd_read(memfd, 64u << 20, &bytes, &len);
    if (status == WEIR_OK) status = weir_config_unpack(bytes, len, &src);
    weir_config_report_init(&report);
    if (status == WEIR_OK) status = weir_config_parse(&src, out, &report);
    weir_config_report_fini(&report);
    weir_config_sources_free(&src);
    free(bytes);
    return status;
}

static int on_config(struct gateway *gw, const struct weir_link_message *m, int *fds, size_t count)
{
    struct weir_config *conf = NULL;
    struct snapshot *s = NULL;
    if (count < 1 || config_of(fds[0], &conf) < 0 || conf->listener_count != count - 1) {
        weir_link_close(fds, count);
        if (conf) weir_config_drop(conf);
        say_ready(gw, m->version, "the configuration that control sent cannot be used");
        return WEIR_INVALID;
    }
    close(fds[0]);
    if (gateway_threads(gw, conf->threads) < 0) {
        weir_link_close(fds + 1, count - 1);
        weir_config_drop(conf);
        return WEIR_NOMEM;
    }
    int status = snapshot_new(&s, gw, conf, fds + 1);
    weir_config_drop(conf);
    if (status == WEIR_OK) gateway_publish(gw, s);
    gw->link->config_version = m->version;
    say_ready(gw, m->version, status < 0 ? "out of memory" : NULL);
    return status;
}

/* ---- endpoints ---- */

/* Endpoints of one pool, which follow each other. */
static void apply_pool(struct gateway *gw, struct gateway_pool *gp, const struct weir_link_endpoint *all, size_t count)
{
    struct weir_endpoint_options *list = calloc(count + 1, sizeof *list);
    if (!list) return;
    for (size_t i = 0; i < count; i++)
        list[i] = (struct weir_endpoint_options){.id = all[i].id, .address = all[i].address, .workers = all[i].workers,
                                                 .requests = all[i].requests, .others = all[i].others, .keep = all[i].keep, .flow = all[i].flow,
                                                 .prove = all[i].prove, .pings = all[i].pings, .ahead = all[i].ahead, .forks = all[i].forks, .pid = all[i].pid, .drain = all[i].drain};
    if (weir_pool_set(gp->pool, list, count) < 0) gateway_say(gw, "pool %s: an address cannot be used", weir_pool_name(gp->pool));
    free(list);
}

/* Endpoints of a pool that is not here: what drains is gone already. */
static void forget_unknown(struct gateway_link *l, const struct weir_link_endpoint *all, size_t count)
{
    struct weir_link_use *grown = realloc(l->gone, (l->gone_count + count) * sizeof *grown);
    if (!grown) return;
    l->gone = grown;
    for (size_t i = 0; i < count; i++)
        if (all[i].drain) l->gone[l->gone_count++] = (struct weir_link_use){.id = all[i].id, .gone = true};
}

static void apply_endpoints(struct gateway *gw, const struct weir_link_endpoint *all, size_t count)
{
    struct gateway_link *l = gw->link;
    for (size_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && strcmp(all[i].pool, all[i + n].pool) == 0; n++) {}
        struct gateway_pool *gp = gateway_find_pool(gw, all[i].pool, true);
        if (!gp) {
            forget_unknown(l, all + i, n);
            continue;
        }
        gp->told = l->version;
        apply_pool(gw, gp, all + i, n);
    }
    for (struct gateway_pool *gp = gw->pools; gp; gp = gp->next)
        if (gp->owned && gp->told != l->version) {
            if (gp->told) apply_pool(gw, gp, NULL, 0);
            gp->told = 0;
        }
}

static void apply_refusals(struct gateway *gw, const struct weir_link_message *m)
{
    if (m->part == 0)
        for (struct gateway_pool *gp = gw->pools; gp; gp = gp->next) gp->refused = NULL;
    for (size_t i = 0; i < m->refusal_count; i++) {
        struct gateway_pool *gp = gateway_find_pool(gw, m->refusals[i].pool, true);
        if (gp) gp->refused = m->refusals[i].stopped ? "the pool is stopped" : "the pool's processes do not start";
    }
    if (m->part + 1 != m->of) return;
    for (struct gateway_pool *gp = gw->pools; gp; gp = gp->next) {
        if (gp->refused != gp->refuses) weir_pool_refuse(gp->pool, gp->refused);
        gp->refuses = gp->refused;
    }
}

static void on_endpoints(struct gateway *gw, const struct weir_link_message *m)
{
    struct gateway_link *l = gw->link;
    if (m->part == 0 || m->version != l->gathering) l->gathered_count = 0;
    l->gathering = m->version;
    struct weir_link_endpoint *all = realloc(l->gathered, (l->gathered_count + m->endpoint_count + 1) * sizeof *all);
    if (!all) return;
    l->gathered = all;
    if (m->endpoint_count) memcpy(all + l->gathered_count, m->endpoints, m->endpoint_count * sizeof *all);
    l->gathered_count += m->endpoint_count;
    apply_refusals(gw, m);
    if (m->part + 1 != m->of) return;
    l->version = m->version;
    apply_endpoints(gw, all, l->gathered_count);
    l->gathered_count = 0;
    if (l->gone_count) l->all = true; /* somebody waits for that */
}

/* ---- receiving ---- */

static void lose(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
    if (l->root_fd < 0) atomic_store(&gw->term_asked, true); /* nobody will give another one */
}

static void receive(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    struct weir_arena a;
    weir_arena_init(&a, 4u << 20);
    while (l->fd >= 0) {
        struct weir_link_message m;
        int fds[WEIR_LINK_FDS_MAX];
        size_t count;
        int status = weir_link_receive(l->fd, &a, &m, fds, &count);
        if (status == WEIR_AGAIN) break;
        if (status < 0) {
            lose(gw);
            break;
        }
        if (m.type == WEIR_LINK_CONFIG) {
            if (on_config(gw, &m, fds, count) < 0) gateway_say(gw, "the old configuration stays in use");
            count = 0;
        } else if (m.type == WEIR_LINK_ENDPOINTS) {
            on_endpoints(gw, &m);
        } else if (m.type == WEIR_LINK_DRAIN) {
            gateway_drain(gw, m.drain_ms, m.flags & WEIR_LINK_LEAVES);
        } else if (m.type == WEIR_LINK_REOPEN) {
            atomic_store(&gw->reopen_asked, true);
        } else if (m.type == WEIR_LINK_KEYS && count == 1) {
            gateway_keys(gw, fds[0]);
        } else if (m.type == WEIR_LINK_ORDERS && count == 1) {
            gateway_orders(gw, fds[0]);
        }
        weir_link_close(fds, count);
        weir_arena_reset(&a);
    }
    weir_arena_fini(&a);
}

/* The root part says nothing but: here is a new link. False: that was all. */
static bool receive_root(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    char byte;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec v = {&byte, 1};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t n = recvmsg(l->root_fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) return true;
    if (n < 0 && errno == EAGAIN) return false;
    if (n <= 0) { /* the root part is gone: so are we */
        close(l->root_fd);
        l->root_fd = -1;
        gateway_drain(gw, 0, false);
        return false;
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    if (!c || c->cmsg_type != SCM_RIGHTS) return true; /* no descriptor was free: it comes again */
    if (l->fd >= 0) close(l->fd);
    memcpy(&l->fd, CMSG_DATA(c), sizeof l->fd);
    if (weir_loop_add(gw->workers[0].loop, l->fd, link_ident(0), false) < 0) lose(gw);
    say_ready(gw, l->config_version, NULL);
    l->all = true;
    return true;
}

void gateway_main_event(struct gateway *gw, const struct weir_event *ev)
{
    if (!gw->link) return;
    if (ev->ident.index == 0 && gw->link->fd >= 0) receive(gw);
    else if (ev->ident.index == 1)
        while (gw->link->root_fd >= 0 && receive_root(gw)) {} /* of several the last one is the living one's */
}

/* ---- state ---- */

struct gathered {
    struct weir_link_use *uses;
    struct weir_link_pool *pools;
    struct weir_link_server *servers;
    size_t use_count, pool_count, server_count;
};

static bool put_servers(struct gathered *g, const struct weir_pool *p, const struct weir_endpoint_stats *eps, size_t n, uint64_t now_us)
{
    struct weir_link_server *grown = realloc(g->servers, (g->server_count + n + 1) * sizeof *grown);
    if (!grown) return false;
    g->servers = grown;
    for (size_t i = 0; i < n; i++) {
        const struct weir_endpoint_stats *e = &eps[i];
        struct weir_link_server *s = &grown[g->server_count++];
        *s = (struct weir_link_server){.state = (uint8_t)e->state, .backup = e->backup, .weight = e->weight, .busy = e->busy, .limit = e->limit, .done = e->done,
                                       .failed = e->failed, .retried = e->retried, .ejections = e->ejections, .passed_on = e->passed_on,
                                       .rests_ms = e->rests_until_us > now_us ? (e->rests_until_us - now_us) / 1000 : 0};
        snprintf(s->pool, sizeof s->pool, "%s", weir_pool_name(p));
        snprintf(s->address, sizeof s->address, "%.111s", e->address);
        snprintf(s->problem, sizeof s->problem, "%s", e->problem ? e->problem : "");
    }
    return true;
}

static bool put_pool(struct gathered *g, const struct weir_pool *p, bool connects, const struct weir_pool_stats *s, const struct weir_endpoint_stats *eps,
                     size_t n, uint64_t now_us)
{
    struct weir_link_pool *pools = realloc(g->pools, (g->pool_count + 1) * sizeof *pools);
    if (!pools) return false;
    g->pools = pools;
    struct weir_link_use *uses = realloc(g->uses, (g->use_count + n + 1) * sizeof *uses);
    if (!uses) return false;
    g->uses = uses;
    struct weir_link_pool *o = &pools[g->pool_count++];
    *o = (struct weir_link_pool){.queued = s->queued, .started = s->started, .refused = s->refused, .timed_out = s->timed_out,
                                 .oldest_ms = s->oldest_us && s->oldest_us < now_us ? (uint32_t)((now_us - s->oldest_us) / 1000) : 0};
    snprintf(o->pool, sizeof o->pool, "%s", weir_pool_name(p));
    if (connects) return put_servers(g, p, eps, n, now_us);
    for (size_t i = 0; i < n; i++)
        uses[g->use_count++] = (struct weir_link_use){.id = eps[i].id, .done = eps[i].done, .failed = eps[i].failed, .gone = eps[i].gone,
                                                      .busy = eps[i].busy, .opening = eps[i].opening};
    return true;
}

static bool gather_pool(struct gateway *gw, struct weir_pool *p, struct gathered *g, uint64_t now_us)
{
    struct gateway_pool *gp = gateway_find_pool(gw, weir_pool_name(p), false);
    bool connects = gp && gp->pool == p;
    struct weir_endpoint_stats few[64], *eps = few;
    struct weir_pool_stats s;
    size_t room = WEIR_COUNT(few), n;
    weir_pool_get_stats(p, &s, eps, room);
    while ((n = s.endpoint_count) > room) { /* rarely so many, and now there may be one more */
        if (eps != few) free(eps);
        room = n + 8;
        eps = malloc(room * sizeof *eps);
        if (!eps) return false;
        weir_pool_get_stats(p, &s, eps, room);
    }
    bool fine = put_pool(g, p, connects, &s, eps, n, now_us);
    if (connects) gateway_servers_note(gw, gp, eps, n);
    if (eps != few) free(eps);
    return fine;
}

static bool send_state(struct gateway *gw, const struct gathered *g)
{
    struct gateway_link *l = gw->link;
    size_t parts = (g->use_count + PART_MAX - 1) / PART_MAX, pool_parts = (g->pool_count + PART_MAX - 1) / PART_MAX;
    if (pool_parts > parts) parts = pool_parts;
    if (parts == 0) parts = 1;
    size_t all = parts + (g->server_count + SERVERS_MAX - 1) / SERVERS_MAX;
    for (size_t i = 0; i < parts; i++) {
        struct weir_link_message m = {.type = WEIR_LINK_STATE, .version = l->version, .part = (uint16_t)i, .of = (uint16_t)all,
                                      .connections = atomic_load(&gw->conn_count)};
        size_t from = i * PART_MAX;
        m.uses = g->uses ? g->uses + (from < g->use_count ? from : g->use_count) : NULL;
        m.use_count = from < g->use_count ? g->use_count - from : 0;
        if (m.use_count > PART_MAX) m.use_count = PART_MAX;
        m.pools = g->pools ? g->pools + (from < g->pool_count ? from : g->pool_count) : NULL;
        m.pool_count = from < g->pool_count ? g->pool_count - from : 0;
        if (m.pool_count > PART_MAX) m.pool_count = PART_MAX;
        for (; i == 0 && m.thread_count < gw->thread_count; m.thread_count++)
            m.threads[m.thread_count] = atomic_load_explicit(&gw->workers[m.thread_count].requests, memory_order_relaxed);
        if (weir_link_send(l->fd, &m, NULL, 0) < 0) return false;
    }
    for (size_t i = parts; i < all; i++) {
        size_t from = (i - parts) * SERVERS_MAX, left = g->server_count - from;
        struct weir_link_message m = {.type = WEIR_LINK_STATE, .version = l->version, .part = (uint16_t)i, .of = (uint16_t)all, .servers = g->servers + from,
                                      .server_count = left < SERVERS_MAX ? left : SERVERS_MAX};
        if (weir_link_send(l->fd, &m, NULL, 0) < 0) return false;
    }
    return true;
}

/* What changed since the last time; when control did not hear that, all. */
static void tell_state(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    struct gathered g = {.uses = l->gone, .use_count = l->gone_count};
    struct weir_pool *p;
    bool fine = true;
    uint64_t now = gw->workers[0].loop->now_us, connections = atomic_load(&gw->conn_count);
    while ((p = weir_client_group_changed(gw->group)))
        if (!l->all) fine = gather_pool(gw, p, &g, now) && fine;
    for (struct gateway_pool *gp = gw->pools; gp && l->all; gp = gp->next) fine = gather_pool(gw, gp->pool, &g, now) && fine;
    l->gone = NULL;
    l->gone_count = 0;
    if (!g.pool_count && !g.use_count && connections == l->connections && !l->all) {
        free(g.uses);
        return;
    }
    l->connections = connections;
    l->sent_at_us = now;
    l->all = !send_state(gw, &g) || !fine;
    free(g.uses);
    free(g.pools);
    free(g.servers);
}

/* ---- requests that are late ---- */

static void put_late(struct gateway *gw, const struct late *o)
{
    if (!gw->link || !o->unit) return;
    pthread_mutex_lock(&gw->late_lock);
    if (gw->late_count == gw->late_cap && gw->late_cap < LATE_MAX) {
        size_t cap = gw->late_cap ? gw->late_cap * 2 : 16;
        struct late *grown = realloc(gw->late, cap * sizeof *grown);
        if (grown) {
            gw->late = grown;
            gw->late_cap = cap;
        }
    }
    /* one that hangs is to be ended: only slow ones give way, which say nothing new when there are so many */
    if (gw->late_count < gw->late_cap && (o->flags || gw->late_count < SLOW_MAX)) gw->late[gw->late_count++] = *o;
    pthread_mutex_unlock(&gw->late_lock);
    weir_loop_wake(gw->workers[0].loop);
}

void gateway_late(struct gateway *gw, struct weir_str method, struct weir_str target, const struct weir_client_result *r, bool given_up)
{
    struct late o = {.unit = r->endpoint_id, .inode = r->peer, .flags = given_up ? WEIR_LINK_GIVEN_UP : 0};
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%llu.%llu", (unsigned long long)(r->total_us / 1000000), (unsigned long long)(r->total_us / 100000 % 10));
    snprintf(o.text, sizeof o.text, "%.*s %.*s (%s s)", (int)(method.len < 16 ? method.len : 16), method.ptr,
             (int)(target.len < 180 ? target.len : 180), target.ptr, seconds);
    put_late(gw, &o);
}

void gateway_stuck(struct gateway *gw, const struct weir_client_stuck *s)
{
    put_late(gw, &(struct late){.unit = s->endpoint_id, .inode = s->peer, .flags = WEIR_LINK_STUCK});
}

static void tell_late(struct gateway *gw)
{
    size_t told = 0;
    pthread_mutex_lock(&gw->late_lock);
    for (; told < gw->late_count; told++) {
        const struct late *o = &gw->late[told];
        struct weir_link_message m = {.type = WEIR_LINK_LATE, .unit = o->unit, .inode = o->inode, .flags = o->flags};
        memcpy(m.text, o->text, sizeof m.text);
        if (weir_link_send(gw->link->fd, &m, NULL, 0) < 0) break; /* it is behind: the next turn goes on */
    }
    gw->late_count -= told;
    if (told) memmove(gw->late, gw->late + told, gw->late_count * sizeof *gw->late);
    pthread_mutex_unlock(&gw->late_lock);
}

void gateway_link_turn(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    uint64_t now = gw->workers[0].loop->now_us;
    if (!l || l->fd < 0) return;
    tell_late(gw);
    bool urgent = weir_client_group_urgent(gw->group);
    if (l->all || urgent || now - l->sent_at_us >= STATE_GAP_US) tell_state(gw);
}

/* ---- life ---- */

int gateway_link_first(struct gateway *gw)
{
    gw->link = calloc(1, sizeof *gw->link);
    if (!gw->link) return WEIR_NOMEM;
    gw->link->fd = gw->o.link_fd;
    gw->link->root_fd = gw->o.root_fd;
    while (!gw->snap && gw->link->fd >= 0) { /* control sends the configuration first */
        struct pollfd p = {.fd = gw->link->fd, .events = POLLIN};
        if (poll(&p, 1, 30000) <= 0) return WEIR_TIMEOUT;
        receive(gw);
    }
    return gw->snap ? WEIR_OK : WEIR_CLOSED;
}

int gateway_link_start(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    if (!l) return WEIR_OK;
    l->all = true;
    if (l->fd >= 0 && weir_loop_add(gw->workers[0].loop, l->fd, link_ident(0), false) < 0) return WEIR_SYSTEM;
    if (l->root_fd >= 0 && weir_loop_add(gw->workers[0].loop, l->root_fd, link_ident(1), false) < 0) return WEIR_SYSTEM;
    return WEIR_OK;
}

void gateway_link_fini(struct gateway *gw)
{
    if (!gw->link) return;
    if (gw->link->fd >= 0) close(gw->link->fd);
    if (gw->link->root_fd >= 0) close(gw->link->root_fd);
    free(gw->link->gathered);
    free(gw->link);
}

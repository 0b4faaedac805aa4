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

struct gateway_link {
    int fd, root_fd;
    struct weir_link_endpoint *gathered; /* parts of the coming endpoint state */
    size_t gathered_count;
    uint64_t gathering, version, config_version;
    uint64_t sent_at_us, sum;            /* of the last state message */
    uint32_t queued;                     /* pools that had a queue then */
    bool has_first;
    uint64_t conf_version;
};

static struct weir_ident link_ident(uint32_t index)
{
    return (struct weir_ident){.kind = KIND_LINK, .index = index};
}

static void say_ready(struct gateway *gw, uint64_t version, const char *error)
{
    struct weir_link_message m = {.type = WEIR_LINK_READY, .version = version};
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

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) close(fds[i]);
}

static int on_config(struct gateway *gw, const struct weir_link_message *m, int *fds, size_t count)
{
    struct weir_config *conf = NULL;
    struct snapshot *s = NULL;
    if (count < 1 || config_of(fds[0], &conf) < 0 || conf->listener_count != count - 1) {
        close_all(fds, count);
        if (conf) weir_config_drop(conf);
        say_ready(gw, m->version, "the configuration that control sent cannot be used");
        return WEIR_INVALID;
    }
    close(fds[0]);
    if (gateway_threads(gw, conf->threads) < 0) {
        close_all(fds + 1, count - 1);
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

static void apply_pool(struct gateway_pool *gp, const struct weir_link_endpoint *all, size_t count)
{
    struct weir_endpoint_options *list = calloc(count + 1, sizeof *list);
    size_t n = 0;
    if (!list) return;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].pool, weir_pool_name(gp->pool)) != 0) continue;
        list[n++] = (struct weir_endpoint_options){.id = all[i].id, .address = all[i].address, .workers = all[i].workers,
                                                   .requests = all[i].requests, .keep = all[i].keep, .flow = all[i].flow,
                                                   .drain = all[i].drain};
    }
    if (weir_pool_set(gp->pool, list, n) < 0) fprintf(stderr, "weir gateway: pool %s: an address cannot be used\n", weir_pool_name(gp->pool));
    free(list);
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
    if (m->part + 1 != m->of) return;
    for (struct gateway_pool *gp = gw->pools; gp; gp = gp->next)
        if (gp->owned) apply_pool(gp, all, l->gathered_count);
    l->version = m->version;
    l->gathered_count = 0;
    l->sum = 0; /* answer soon */
    l->sent_at_us = 0;
}

/* ---- receiving ---- */

static void lose(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
    if (l->root_fd < 0) atomic_store(&gw->end_asked, true); /* nobody will give another one */
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
            if (on_config(gw, &m, fds, count) < 0) fprintf(stderr, "weir gateway: the old configuration stays in use\n");
            count = 0;
        } else if (m.type == WEIR_LINK_ENDPOINTS) {
            on_endpoints(gw, &m);
        } else if (m.type == WEIR_LINK_DRAIN) {
            gateway_drain(gw, m.drain_ms);
        }
        close_all(fds, count);
        weir_arena_reset(&a);
    }
    weir_arena_fini(&a);
}

/* The root part says nothing but: here is a new link. */
static void receive_root(struct gateway *gw)
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
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&h) : NULL;
    if (!c || c->cmsg_type != SCM_RIGHTS) { /* the root part is gone: so are we */
        close(l->root_fd);
        l->root_fd = -1;
        gateway_drain(gw, 0);
        return;
    }
    if (l->fd >= 0) close(l->fd);
    memcpy(&l->fd, CMSG_DATA(c), sizeof l->fd);
    if (weir_loop_add(gw->workers[0].loop, l->fd, link_ident(0), false) < 0) lose(gw);
    say_ready(gw, l->config_version, NULL);
    l->sum = 0;
}

void gateway_main_event(struct gateway *gw, const struct weir_event *ev)
{
    if (!gw->link) return;
    if (ev->ident.index == 0 && gw->link->fd >= 0) receive(gw);
    else if (ev->ident.index == 1 && gw->link->root_fd >= 0) receive_root(gw);
}

/* ---- state ---- */

struct gathered {
    struct weir_link_use *uses;
    struct weir_link_pool *pools;
    size_t use_count, pool_count;
    uint64_t sum;
    uint32_t queued;
};

static bool gather_pool(struct gateway_pool *gp, struct gathered *g, uint64_t now_us)
{
    struct weir_endpoint_stats eps[128];
    struct weir_pool_stats s;
    weir_pool_stats(gp->pool, &s, eps, WEIR_COUNT(eps));
    size_t n = s.endpoint_count < WEIR_COUNT(eps) ? s.endpoint_count : WEIR_COUNT(eps);
    struct weir_link_pool *pools = realloc(g->pools, (g->pool_count + 1) * sizeof *pools);
    if (!pools) return false;
    g->pools = pools;
    struct weir_link_use *uses = realloc(g->uses, (g->use_count + n + 1) * sizeof *uses);
    if (!uses) return false;
    g->uses = uses;
    struct weir_link_pool *o = &pools[g->pool_count++];
    *o = (struct weir_link_pool){.queued = s.queued, .started = s.started, .refused = s.refused, .timed_out = s.timed_out,
                                 .oldest_ms = s.oldest_us ? (uint32_t)((now_us - s.oldest_us) / 1000) : 0};
    snprintf(o->pool, sizeof o->pool, "%s", weir_pool_name(gp->pool));
    g->sum = g->sum * 31 + s.queued + s.started * 7 + s.endpoint_count;
    g->queued += s.queued > 0;
    for (size_t i = 0; i < n; i++) {
        uses[g->use_count++] = (struct weir_link_use){.id = eps[i].id, .done = eps[i].done, .failed = eps[i].failed,
                                                      .busy = eps[i].busy, .unproven = eps[i].opening};
        g->sum = g->sum * 31 + eps[i].id + eps[i].busy * 3 + eps[i].opening * 5 + eps[i].done;
    }
    return true;
}

static void send_state(struct gateway *gw, const struct gathered *g)
{
    struct gateway_link *l = gw->link;
    size_t parts = (g->use_count + PART_MAX - 1) / PART_MAX, pool_parts = (g->pool_count + PART_MAX - 1) / PART_MAX;
    if (pool_parts > parts) parts = pool_parts;
    if (parts == 0) parts = 1;
    for (size_t i = 0; i < parts; i++) {
        struct weir_link_message m = {.type = WEIR_LINK_STATE, .version = l->version, .part = (uint16_t)i, .of = (uint16_t)parts,
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
        if (weir_link_send(l->fd, &m, NULL, 0) == WEIR_AGAIN) return; /* control is slow: the next one tells all again */
    }
}

void gateway_link_turn(struct gateway *gw)
{
    struct gateway_link *l = gw->link;
    uint64_t now = gw->workers[0].loop->now_us;
    if (!l || l->fd < 0 || now - l->sent_at_us < STATE_GAP_US) return;
    struct gathered g = {0};
    bool fine = true;
    l->sent_at_us = now;
    for (struct gateway_pool *gp = gw->pools; gp && fine; gp = gp->next) fine = gather_pool(gp, &g, now);
    if (fine && g.sum != l->sum) {
        l->sum = g.sum;
        send_state(gw, &g);
    }
    free(g.uses);
    free(g.pools);
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

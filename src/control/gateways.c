/* SPDX-License-Identifier: MIT */
/* The gateways that run: one serves; while it is replaced there are older ones, which finish what they have. Starting, links,
 * the change from one to the next, ends. What they are told of units, and tell, is state.c's. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/internal.h"

#define AGAIN_MS  20   /* between tries to tell what did not fit into a link */
#define LOST_MS   100  /* until one that has none asks for its link */
#define RELINK_MS 1000 /* between tries to give a gateway a new link */
#define LEFT_MS   5000 /* beyond its time an older one has this long */

static struct gateway *find(struct control *c, pid_t pid)
{
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++)
        if (c->gateways[i].pid == pid) return &c->gateways[i];
    return NULL;
}

size_t gateways_count(const struct control *c)
{
    size_t n = 0;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) n += c->gateways[i].pid != 0;
    return n;
}

/* The next one: it runs, and does not serve yet. */
static struct gateway *coming(struct control *c)
{
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++)
        if (c->gateways[i].pid && !c->gateways[i].leaves && !c->gateways[i].unknown && &c->gateways[i] != c->serving) return &c->gateways[i];
    return NULL;
}

static bool any_unknown(const struct control *c)
{
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++)
        if (c->gateways[i].unknown) return true;
    return false;
}

bool gateway_is_needed(const struct weir_config *conf)
{
    return conf->site_count > 0 || conf->listener_count > 0;
}

/* ---- its link ---- */

static void send_config(struct control *c, struct gateway *g)
{
    struct weir_link_message m = {.type = WEIR_LINK_CONFIG, .version = c->config_version};
    int fds[WEIR_LINK_FDS_MAX];
    size_t n = 0;
    if (g->link.fd < 0 || g->leaves || g->config_sent == c->config_version) return;
    fds[n++] = c->config_memfd;
    for (size_t i = 0; i < c->conf->listener_count && n < WEIR_COUNT(fds); i++) fds[n++] = reload_listener_fd(c, &c->conf->listeners[i]);
    if (weir_link_send(g->link.fd, &m, fds, n) != WEIR_OK) return;
    g->config_sent = c->config_version;
    if (!g->threads_asked) g->threads_asked = c->conf->threads; /* their number is fixed for its life */
}

static void lose_link(struct control *c, struct gateway *g)
{
    watch_end(c, &g->link, false);
    g->ready = false;
    g->config_sent = g->endpoints_sent = g->keys_sent = 0;
    g->relink_due_ms = now_ms() + LOST_MS; /* it goes on with what it knows; where it has ended, DOWN tells that next */
}

static void on_ready(struct control *c, struct gateway *g, const struct weir_link_message *m)
{
    if (m->text[0]) say("gateway: %s", m->text);
    if (m->text[0] && g != c->serving && !g->leaves) { /* it cannot serve: whoever does goes on */
        root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY_END, .pid = g->pid, .flags = 1}, NULL, 0);
        return;
    }
    g->ready = true;
    g->unknown = false;
    g->told = m->flags & WEIR_LINK_LEAVES;
    g->leaves = g->leaves || g->told;
    g->endpoints_sent = 0;
    c->gateway_failures = 0;
    if (!c->serving && !g->leaves) c->serving = g;
    if (!m->text[0] && m->version == c->config_version) reload_drop_listeners(c);
}

void gateway_event(struct control *c, struct gateway *g)
{
    struct weir_arena a;
    weir_arena_init(&a, 4u << 20);
    for (int i = 0; i < 64; i++) { /* others have their turn; epoll tells of the rest */
        struct weir_link_message m;
        int fds[WEIR_LINK_FDS_MAX];
        size_t count;
        int status = weir_link_receive(g->link.fd, &a, &m, fds, &count);
        if (status == WEIR_AGAIN) break;
        if (status < 0) {
            if (status == WEIR_PROTOCOL && !g->leaves) { /* of another version: it finishes what it has */
                g->leaves = true;
                g->unknown = false;
                if (c->serving == g) c->serving = NULL;
                root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY_END, .pid = g->pid}, NULL, 0);
            }
            lose_link(c, g);
            break;
        }
        weir_link_close(fds, count); /* a gateway has none to give */
        if (m.type == WEIR_LINK_READY) on_ready(c, g, &m);
        else if (m.type == WEIR_LINK_LATE) state_late(c, &m);
        else if (m.type == WEIR_LINK_STATE) state_use(c, g, &m);
        weir_arena_reset(&a);
    }
    weir_arena_fini(&a);
}

/* What it tells is about pools and units: those of a control that was started anew are there by its first turn. */
static void hear(struct control *c, struct gateway *g)
{
    if (watch_add(c, &g->link, WATCH_LINK, g->link.fd) < 0) g->relink_due_ms = now_ms() + LOST_MS;
    else g->heard = true;
}

/* ---- what the root part tells ---- */

void gateway_up(struct control *c, const struct root_msg *m, int fd)
{
    struct gateway *g = find(c, m->pid);
    if (!g) g = find(c, 0);
    if (!(m->flags & 1)) c->gateway_ordered = false;
    if (!g) { /* the root part has no more than we have */
        if (fd >= 0) close(fd);
        return;
    }
    if (g->link.fd >= 0) watch_end(c, &g->link, false);
    if (!g->pid) {
        unsigned place = (unsigned)(g - c->gateways);
        *g = (struct gateway){.pid = m->pid, .place = place, .link.fd = -1};
    }
    g->config_sent = g->endpoints_sent = g->orders_sent = g->keys_sent = 0;
    g->ready = false;
    if (m->flags & 1 && g != c->serving && !g->leaves) g->unknown = true;
    g->link.fd = fd;
    g->heard = false;
    if (fd < 0) g->relink_due_ms = now_ms() + LOST_MS;
}

void gateway_down(struct control *c, const struct root_msg *m)
{
    struct gateway *g = find(c, m->pid);
    if (!g) return;
    bool meant = g->leaves, served = g == c->serving, unknown = g->unknown;
    if (g->link.fd >= 0) watch_end(c, &g->link, false);
    state_forget_gateway(c, g->place);
    *g = (struct gateway){.place = g->place, .link.fd = -1};
    if (served) c->serving = NULL;
    if (c->ending || meant) return;
    if (unknown && (c->serving || any_unknown(c))) return; /* it was leaving, and had no time to say so */
    c->gateway_failures++;
    unsigned n = c->gateway_failures > 1 ? c->gateway_failures - 1 : 0;
    if (!served && c->serving) {
        say("the new gateway ended before it was ready (wait status %d): the old one goes on", m->code);
        c->replacing = false;
        return;
    }
    c->gateway_restarts++;
    say("the gateway ended (wait status %d): a new one starts", m->code);
    c->gateway_due_ms = now_ms() + (n ? (int64_t)100 << (n < 6 ? n : 6) : 0);
}

void gateway_failed(struct control *c, const struct root_msg *m)
{
    say("the gateway cannot start: %s: %s", m->text, strerror(m->code));
    c->gateway_ordered = c->replacing = false;
    c->gateway_due_ms = now_ms() + 1000;
}

/* ---- replacing it ---- */

const char *gateway_replace(struct control *c)
{
    if (!c->serving) return "no gateway serves now";
    if (c->replacing) return NULL; /* it is under way */
    if (gateways_count(c) == WEIR_COUNT(c->gateways)) return "older gateways still have requests: wait, or end one of them by its pid (weir status)";
    c->replacing = true;
    return NULL;
}

/* It is told until it was heard. */
static void tell_leave(struct control *c, struct gateway *g)
{
    struct weir_link_message m = {.type = WEIR_LINK_DRAIN, .drain_ms = c->conf->drain_ms, .flags = WEIR_LINK_LEAVES};
    if (!g->leaves || g->told || !g->ready || g->link.fd < 0) return;
    g->told = weir_link_send(g->link.fd, &m, NULL, 0) == WEIR_OK;
}

static void tell_reopen(struct gateway *g)
{
    struct weir_link_message m = {.type = WEIR_LINK_REOPEN};
    if (!g->reopen || g->link.fd < 0) return;
    g->reopen = weir_link_send(g->link.fd, &m, NULL, 0) == WEIR_AGAIN;
}

/* The next one knows all that it needs: it serves. */
static void change(struct control *c, struct gateway *next)
{
    struct gateway *old = c->serving;
    c->serving = next;
    c->replacing = false;
    c->gateway_restarts++;
    c->endpoints_changed = true;
    if (!old) return;
    old->leaves = true;
    old->end_due_ms = now_ms() + c->conf->drain_ms + LEFT_MS;
    say("the gateway is process %d now; process %d finishes what it has", (int)next->pid, (int)old->pid);
}

void gateways_turn(struct control *c)
{
    struct gateway *next = coming(c);
    int64_t now = now_ms();
    if (c->ending) return;
    if (next && next->ready && next->endpoints_sent) change(c, next);
    if (c->serving && c->serving->threads_asked && c->serving->threads_asked != c->conf->threads) (void)gateway_replace(c); /* as soon as there is a place */
    bool wanted = gateway_is_needed(c->conf) && (!c->serving || c->replacing) && !coming(c) && !any_unknown(c) && !c->gateway_ordered;
    if (wanted && now >= c->gateway_due_ms) {
        c->gateway_ordered = true;
        root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY}, NULL, 0);
    }
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) {
        struct gateway *g = &c->gateways[i];
        if (!g->pid) continue;
        if (g->link.fd >= 0 && !g->heard) hear(c, g);
        if (g->end_due_ms && now >= g->end_due_ms) {
            g->end_due_ms = 0;
            root_send(c, &(struct root_msg){.kind = ROOT_GATEWAY_END, .pid = g->pid, .flags = 1}, NULL, 0);
        }
        if (g->link.fd < 0 && now >= g->relink_due_ms) {
            g->relink_due_ms = now + RELINK_MS;
            root_send(c, &(struct root_msg){.kind = ROOT_RELINK, .pid = g->pid}, NULL, 0);
        }
        keys_tell(c, g);
        orders_tell(c, g); /* before the configuration: nobody is served against an order */
        send_config(c, g);
        tell_reopen(g);
        tell_leave(c, g);
    }
}

/* A full link did not take all that it is to be told. */
static bool is_behind(const struct control *c, const struct gateway *g)
{
    if (g->link.fd < 0) return false;
    return g->reopen || (g->leaves && !g->told && g->ready) || g->keys_sent != c->keys.version || (!g->leaves && g->config_sent != c->config_version) || (g->ready && g->endpoints_sent != c->endpoint_version);
}

int64_t gateways_next_ms(struct control *c)
{
    int64_t at = INT64_MAX, again = now_ms() + AGAIN_MS;
    if (gateway_is_needed(c->conf) && !c->serving && !coming(c) && !any_unknown(c) && !c->gateway_ordered) at = c->gateway_due_ms;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) {
        const struct gateway *g = &c->gateways[i];
        if (!g->pid) continue;
        if (g->end_due_ms && g->end_due_ms < at) at = g->end_due_ms;
        if (g->link.fd < 0 && g->relink_due_ms < at) at = g->relink_due_ms;
        if (is_behind(c, g) && at > again) at = again;
    }
    int64_t now = now_ms();
    return at == INT64_MAX ? -1 : at > now ? at - now : 0;
}

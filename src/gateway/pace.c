/* SPDX-License-Identifier: MIT */
/* The least rate at which a client sends its body and takes its answer, so that nobody holds a connection by a byte now and then. Only
 * time counts in which nothing but the client is missing: not that of an app that sends nothing (events, long polling), nor of one that
 * takes nothing of a body. A client has some time to begin with; each byte adds what it may take at that rate, up to what a gap may be. */
#include "gateway/internal.h"

/* What is left, behind so many bytes in the time since the last look. */
static void spend(struct pace *p, const struct weir_conf_guards *g, uint32_t gap_ms, uint64_t now_ms, uint64_t bytes)
{
    int64_t most = gap_ms > g->min_rate_ms ? gap_ms : g->min_rate_ms;
    int64_t more = bytes < (UINT64_C(1) << 40) ? (int64_t)(bytes * 1000 / g->min_rate) : most;
    p->left_ms += (more < most ? more : most) - (int64_t)(now_ms - p->at_ms);
    if (p->left_ms > most) p->left_ms = most;
    p->at_ms = now_ms;
}

static uint32_t sooner(uint32_t gap_ms, const struct pace *p)
{
    return p->left_ms <= 0 ? 1 : p->left_ms < gap_ms ? (uint32_t)p->left_ms : gap_ms;
}

/* ---- bodies ---- */

uint32_t pace_body(struct exchange *ex)
{
    const struct weir_conf_route *conf = ex->route->conf;
    const struct weir_conf_guards *g = &conf->guards;
    struct pace *p = &ex->pace_body;
    bool wanted = exchange_wants_body(ex);
    uint64_t now_ms = weir_loop_now_ms(ex->worker->loop), size = ex->body ? weir_spill_size(ex->body) : 0;
    if (!g->min_rate) return wanted ? conf->body_ms : 0;
    if (!p->on) p->at_ms = now_ms; /* nobody waited for it */
    if (!p->begun) p->left_ms = g->min_rate_ms;
    spend(p, g, conf->body_ms, now_ms, size - p->bytes);
    p->bytes = size;
    p->begun = true;
    p->on = wanted;
    return wanted ? sooner(conf->body_ms, p) : 0;
}

/* ---- answers ---- */

uint32_t pace_begin(struct pace *p, const struct weir_conf_route *conf, uint64_t now_ms, uint64_t bytes)
{
    const struct weir_conf_guards *g = &conf->guards;
    *p = (struct pace){.left_ms = g->min_rate_ms, .at_ms = now_ms, .progress_ms = now_ms, .bytes = bytes};
    return g->min_rate ? sooner(conf->send_ms, p) : conf->send_ms;
}

uint32_t pace_look(struct pace *p, const struct weir_conf_route *conf, uint64_t now_ms, uint64_t bytes)
{
    const struct weir_conf_guards *g = &conf->guards;
    uint64_t more = bytes > p->bytes ? bytes - p->bytes : 0;
    if (more) p->progress_ms = now_ms;
    p->bytes = bytes;
    if (g->min_rate) spend(p, g, conf->send_ms, now_ms, more);
    uint64_t idle_ms = now_ms - p->progress_ms;
    if (idle_ms >= conf->send_ms || (g->min_rate && p->left_ms <= 0)) return 0;
    uint32_t gap_ms = conf->send_ms - (uint32_t)idle_ms;
    return g->min_rate ? sooner(gap_ms, p) : gap_ms;
}

uint64_t pace_taken(const struct http_conn *h)
{
    int64_t unsent = weir_loop_unsent(h->worker->loop, h->fd);
    return unsent > 0 && (uint64_t)unsent < h->written ? h->written - (uint64_t)unsent : h->written;
}

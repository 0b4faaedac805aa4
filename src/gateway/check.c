/* SPDX-License-Identifier: MIT */
/* Checks of servers that others own (`connect` with `check PATH TIME`): each is asked by a request of its own, on a connection of
 * its own. One that fails `fall` times in a row gets no requests until it answered `rise` times in a row; when all of a pool fail,
 * the pool refuses. First thread only. */
#include <stdlib.h>

#include "gateway/internal.h"

#define PATIENCE_MS 5000  /* for the answer, or as long as the time between two checks, if that is less */

struct check {
    struct check *next;
    struct gateway_pool *of; /* counted by us */
    struct weir_pool *pool;  /* our own, with this server alone */
    const char *path;        /* ours, as address */
    const char *root, *address;
    uint64_t id;             /* of the server in its pool */
    uint64_t due_ms;
    uint32_t every_ms, fall, rise, row; /* row: answers in a row that are not as its state says */
    struct weir_client_req *req;
    struct weir_cgi_head *head;
    struct weir_arena arena;
    int status;              /* of the answer; 0: none yet */
    bool down, wanted;       /* wanted: the configuration in use names it; else it goes when its connection is closed */
};
struct gateway_checks {
    struct weir_client_group *group;
    struct weir_client *client;
    struct check *first;
};

static struct check *find(struct gateway_checks *g, const struct gateway_pool *of, const char *address)
{
    for (struct check *k = g->first; k; k = k->next)
        if (k->of == of && strcmp(k->address, address) == 0) return k;
    return NULL;
}

/* Behind its pool. */
static void free_check(struct gateway *gw, struct check *k)
{
    weir_arena_fini(&k->arena);
    gateway_pool_drop(gw, k->of);
    free((char *)(uintptr_t)k->path);
    free((char *)(uintptr_t)k->root);
    free((char *)(uintptr_t)k->address);
    free(k);
}

static void stop(struct check *k)
{
    if (k->req) weir_client_req_free(k->req);
    k->req = NULL;
    if (k->down) weir_pool_mark(k->of->pool, k->id, false);
    k->down = false;
}

/* Those that are not wanted any more, and have no connection left. */
static void sweep(struct gateway *gw)
{
    for (struct check **at = &gw->checks->first; *at;) {
        struct check *k = *at;
        if (k->wanted || !weir_pool_retire(k->pool)) {
            at = &k->next;
            continue;
        }
        *at = k->next;
        free_check(gw, k);
    }
}

/* ---- what is checked ---- */

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* The root of the first route that leads to the pool, as the app sees it: a script is asked for below it. */
static const char *root_of(const struct weir_config *conf, int pool)
{
    for (size_t i = 0; i < conf->site_count; i++)
        for (size_t r = 0; r < conf->sites[i].route_count; r++) {
            const struct weir_conf_route *o = &conf->sites[i].routes[r];
            if (o->pool == pool && (o->app_root || o->root)) return o->app_root ? o->app_root : o->root;
        }
    return NULL;
}

static void add(struct gateway *gw, struct gateway_pool *of, const struct weir_conf_pool *conf, const struct weir_conf_endpoint *e, const char *root)
{
    struct gateway_checks *g = gw->checks;
    struct check *k = find(g, of, e->address);
    if (k && same_text(k->path, conf->check) && same_text(k->root, root)) {
        k->wanted = true;
        k->every_ms = conf->check_ms;
        k->fall = conf->check_fall;
        k->rise = conf->check_rise;
        return;
    }
    struct weir_pool_options o = {.size = sizeof o, .name = conf->name, .queue_count = 1, .queue_ms = conf->check_ms < PATIENCE_MS ? conf->check_ms : PATIENCE_MS};
    struct weir_endpoint_options one = {.id = 1, .address = e->address, .workers = 1};
    k = calloc(1, sizeof *k);
    if (!k) return;
    weir_arena_init(&k->arena, 256u << 10);
    *k = (struct check){.of = of, .id = weir_hash(weir_cstr(e->address)), .every_ms = conf->check_ms, .fall = conf->check_fall, .rise = conf->check_rise, .wanted = true, .path = strdup(conf->check),
                        .root = strdup(root ? root : ""), .address = strdup(e->address), .arena = k->arena};
    atomic_fetch_add(&of->refs, 1);
    if (!k->path || !k->root || !k->address || weir_pool_new(&k->pool, g->group, &o) < 0) {
        free_check(gw, k);
        return;
    }
    if (weir_pool_set(k->pool, &one, 1) < 0) k->wanted = false; /* its address cannot be used: that was told */
    k->next = g->first;
    g->first = k;
}

void gateway_checks_set(struct gateway *gw, struct snapshot *s)
{
    struct gateway_checks *g = gw->checks;
    if (!g) return;
    for (struct check *k = g->first; k; k = k->next) k->wanted = false;
    for (size_t i = 0; i < s->conf->pool_count; i++) {
        const struct weir_conf_pool *conf = &s->conf->pools[i];
        for (size_t e = 0; conf->check && e < conf->endpoint_count; e++) add(gw, s->pools[i].in, conf, &conf->endpoints[e], root_of(s->conf, (int)i));
    }
    for (struct check *k = g->first; k; k = k->next)
        if (!k->wanted) stop(k);
}

/* ---- one check ---- */

static void begin(struct gateway *gw, struct check *k)
{
    struct weir_pair *pairs;
    size_t count;
    char file[4096];
    uint32_t ms = k->every_ms < PATIENCE_MS ? k->every_ms : PATIENCE_MS;
    weir_arena_reset(&k->arena);
    k->status = 0;
    k->head = weir_cgi_head_new(&k->arena, NULL);
    snprintf(file, sizeof file, "%s%s", k->root, k->path);
    struct weir_cgi_request r = weir_cgi_check_request(k->path, k->root, file, true);
    struct weir_client_begin_options b = {.size = sizeof b, .role = WEIR_RESPONDER, .request_ms = ms, .queue_ms = ms, .user = k};
    if (!k->head || weir_cgi_params(&r, &k->arena, &pairs, &count) < 0) { /* no memory: another time */
        k->due_ms = weir_loop_now_ms(gw->workers[0].loop) + k->every_ms;
        return;
    }
    b.params = pairs;
    b.param_count = count;
    int status = weir_client_begin(gw->checks->client, k->pool, &b, &k->req);
    if (status < 0) {
        k->req = NULL;
        k->due_ms = weir_loop_now_ms(gw->workers[0].loop) + k->every_ms;
    }
}

static void ended(struct gateway *gw, struct check *k, const char *why)
{
    char text[96];
    bool fine = k->status >= 200 && k->status < 400;
    if (k->req) weir_client_req_free(k->req);
    k->req = NULL;
    k->due_ms = weir_loop_now_ms(gw->workers[0].loop) + k->every_ms;
    if (!fine && !why) {
        snprintf(text, sizeof text, "the answer is %d", k->status);
        why = text;
    }
    k->row = fine == k->down ? k->row + 1 : 0;
    bool turns = k->row >= (k->down ? k->rise : k->fall);
    if (!turns && !k->down && fine) weir_pool_mark(k->of->pool, k->id, false); /* it may be left alone because nobody could connect */
    if (!turns) return;
    bool down = !k->down;
    k->down = down;
    k->row = 0;
    weir_pool_mark(k->of->pool, k->id, down);
    if (down) log_error(&gw->workers[0], "pool %s: %s fails its check %s: %s: it gets no requests", weir_pool_name(k->of->pool), k->address, k->path, why);
    else log_error(&gw->workers[0], "pool %s: %s answers its check again", weir_pool_name(k->of->pool), k->address);
}

static void on_event(struct gateway *gw, const struct weir_client_event *ev)
{
    struct check *k = ev->user;
    size_t used;
    const char *why, *bytes = ev->bytes.ptr;
    size_t len = ev->bytes.len;
    struct weir_client_result r;
    if (ev->type == WEIR_CLIENT_OUTPUT && ev->stream == WEIR_STDOUT) {
        if (!len && weir_client_peek(ev->req, &bytes, &len) != WEIR_OK) return;
        if (!k->status) {
            int status = weir_cgi_head_feed_final(k->head, bytes, len, &used, &why);
            if (status == WEIR_OK) k->status = weir_cgi_head_response(k->head)->status;
            else if (status != WEIR_AGAIN) k->status = 502;
        }
        weir_client_consume(ev->req, len);
    } else if (ev->type == WEIR_CLIENT_END) {
        weir_client_req_result(ev->req, &r);
        ended(gw, k, r.status < 0 ? r.reason : k->status ? NULL : "there is no answer");
    }
}

/* ---- the turn ---- */

void gateway_checks_event(struct gateway *gw, const struct weir_event *ev)
{
    if (gw->checks) weir_client_ready(gw->checks->client, ev);
}

void gateway_checks_turn(struct gateway *gw)
{
    struct gateway_checks *g = gw->checks;
    struct weir_client_event ev;
    if (!g || !g->first) return;
    uint64_t now = weir_loop_now_ms(gw->workers[0].loop);
    weir_client_turn(g->client);
    weir_client_woken(g->client);
    for (struct check *k = g->first; k; k = k->next)
        if (k->wanted && !k->req && now >= k->due_ms && !gw->workers[0].draining) begin(gw, k);
    while (weir_client_next(g->client, &ev) == WEIR_OK) on_event(gw, &ev);
    weir_client_flush(g->client);
    sweep(gw);
}

int64_t gateway_checks_next_us(const struct gateway *gw)
{
    const struct gateway_checks *g = gw->checks;
    if (gw->workers[0].draining) return -1;
    int64_t wait = g && g->first ? weir_client_next_us(g->client) : -1;
    uint64_t now = weir_loop_now_ms(gw->workers[0].loop);
    for (const struct check *k = g ? g->first : NULL; k; k = k->next) {
        if (k->req || !k->wanted) continue;
        int64_t left = k->due_ms > now ? (int64_t)(k->due_ms - now) * 1000 : 0;
        if (wait < 0 || left < wait) wait = left;
    }
    return wait;
}

int gateway_checks_new(struct gateway *gw)
{
    struct gateway_checks *g = calloc(1, sizeof *g);
    const struct weir_client_options o = {.size = sizeof o};
    const struct weir_client_place place = {.loop = gw->workers[0].loop, .kind = KIND_CHECK, .quota = &gw->quota};
    if (!g || weir_client_group_new(&g->group, 1) < 0 || weir_client_new_on(&g->client, g->group, &o, &place) < 0) {
        if (g) weir_client_group_free(g->group);
        free(g);
        return WEIR_NOMEM;
    }
    gw->checks = g;
    return WEIR_OK;
}

void gateway_checks_end(struct gateway *gw)
{
    struct gateway_checks *g = gw->checks;
    if (!g) return;
    for (struct check *k = g->first; k; k = k->next) stop(k);
    weir_client_free(g->client);
    while (g->first) {
        struct check *k = g->first;
        g->first = k->next;
        weir_pool_free(k->pool);
        free_check(gw, k);
    }
    weir_client_group_free(g->group);
    free(g);
    gw->checks = NULL;
}

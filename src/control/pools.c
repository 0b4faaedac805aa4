/* SPDX-License-Identifier: MIT */
/* How many units a pool should have, by its settings and by what is asked of it, and what follows: starts, drains, ends. A unit
 * is one private socket with what serves it: a process, a php-fpm master, a php-cgi group. A new generation is ready before the
 * old one drains. A pool is looked at when something of it changed or a time of it is due; an idle one costs nothing. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/internal.h"

void pools_init(struct control *c)
{
    weir_list_init(&c->pools);
    weir_list_init(&c->touched);
    weir_list_init(&c->connect_pools);
    weir_list_init(&c->servers);
    c->wheel = weir_wheel_new((uint64_t)now_ms());
    if (!c->wheel) abort();
}

struct pool *pool_find(const struct control *c, const char *name)
{
    for (struct weir_table_node *n = weir_table_find(&c->pool_names, weir_hash(weir_cstr(name))); n; n = weir_table_more(n)) {
        struct pool *p = WEIR_CONTAINER(n, struct pool, node);
        if (strcmp(p->name, name) == 0) return p;
    }
    return NULL;
}

struct pool *pool_new(struct control *c, const char *name)
{
    struct pool *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strdup(name)) || weir_table_put(&c->pool_names, &p->node, weir_hash(weir_cstr(name))) < 0) {
        if (p) free(p->name);
        free(p);
        return NULL;
    }
    weir_list_init(&p->units);
    weir_list_init(&p->touch_link);
    weir_list_push_back(&c->pools, &p->link);
    return p;
}

static void pool_free(struct control *c, struct pool *p)
{
    weir_timer_clear(&p->timer);
    weir_list_remove(&p->touch_link);
    weir_list_remove(&p->link);
    weir_table_remove(&c->pool_names, &p->node);
    free(p->name);
    free(p);
}

const char *pool_next_root(const struct control *c, const struct pool *p, struct pool_root *at)
{
    for (; at->site < c->conf->site_count; at->site++, at->route = 0) {
        const struct weir_conf_site *s = &c->conf->sites[at->site];
        while (at->route < s->route_count) {
            const struct weir_conf_route *r = &s->routes[at->route++];
            const char *root = r->app_root ? r->app_root : r->root;
            if (root && r->pool >= 0 && strcmp(c->conf->pools[r->pool].name, p->name) == 0) return root;
        }
    }
    return NULL;
}

void pool_touch(struct control *c, struct pool *p)
{
    if (weir_list_empty(&p->touch_link)) weir_list_push_back(&c->touched, &p->touch_link);
}

/* ---- what is wanted ---- */

static uint64_t mix(uint64_t h, const char *s)
{
    return (h ^ weir_hash(weir_cstr(s ? s : ""))) * 1099511628211u;
}

static uint64_t mix_pairs(uint64_t h, const struct weir_pair *list, size_t count)
{
    for (size_t i = 0; i < count; i++) h = mix(mix(h, list[i].name.ptr), list[i].value.ptr);
    return mix(h, NULL);
}

bool pool_is_group(const struct pool *p)
{
    return p->conf->kind == WEIR_POOL_PHP && p->php != WEIR_PHP_FPM && p->conf->workers_min == p->conf->workers;
}

/* One unit has all the workers: a php-fpm master, a php-cgi group, or a weir-cgi. */
static bool is_one_unit(const struct pool *p)
{
    return p->conf->kind == WEIR_POOL_CGI || (p->conf->kind == WEIR_POOL_PHP && p->php == WEIR_PHP_FPM) || pool_is_group(p);
}

void pool_workers(const struct pool *p, uint32_t *least, uint32_t *most)
{
    bool ordered = p->most && is_one_unit(p);
    *least = ordered ? p->least : p->conf->workers_min;
    *most = ordered ? p->most : p->conf->workers;
}

/* Of what processes are started with: equal settings keep their processes over a reload. */
static uint64_t settings_of(const struct control *c, const struct pool *p, const struct weir_conf_pool *o)
{
    char numbers[256];
    uint64_t h = 0;
    bool php = o->kind == WEIR_POOL_PHP, cgi = o->kind == WEIR_POOL_CGI;
    uint32_t least, workers;
    pool_workers(p, &least, &workers);
    h = mix(h, php ? "php" : cgi ? "cgi" : "run");
    for (size_t i = 0; i < o->argc; i++) h = mix(h, o->argv[i]);
    h = mix(mix(mix(mix(h, o->php_version), o->dir), o->user), o->group);
    snprintf(numbers, sizeof numbers, "%u %u %u %u %d %d %u %u %u %u %u", php || cgi ? workers : 0, php ? least : 0, o->requests_per_process, o->keep,
             o->php, o->notify, o->files, php ? o->slow_ms : 0, php ? o->recycle_requests : 0, php ? o->longest_ms : cgi ? o->request_ms : 0, php ? o->idle_ms : 0);
    h = mix(mix(h, numbers), o->ready_path);
    if (o->listen) h = mix(h, o->listen->address.socket);
    h = mix_pairs(h, o->env, o->env_count);
    h = mix_pairs(h, o->php_values, o->php_value_count);
    struct pool_root at = {0}; /* php-cgi is told the folders for which its admin values hold; weir-cgi where scripts lie */
    bool roots = (php && p->php != WEIR_PHP_FPM && o->php_admin_value_count) || (cgi && !o->argc);
    for (const char *root; roots && (root = pool_next_root(c, p, &at));) h = mix(h, root);
    return mix_pairs(h, o->php_admin_values, o->php_admin_value_count);
}

static bool owned(const struct weir_conf_pool *o)
{
    return o->kind != WEIR_POOL_CONNECT;
}

struct php_answer {
    const char *version;
    enum weir_conf_php which, is;
};

static void no_trouble(struct pool *p)
{
    p->failures = 0;
    p->due_ms = 0;
    p->why[0] = 0;
}

/* Which program runs a php pool; the last answer is kept, since mostly all pools ask the same. */
static enum weir_conf_php php_of(const struct weir_conf_pool *o, struct php_answer *last)
{
    const char *version = o->php_version ? o->php_version : "";
    char program[64];
    if (o->kind != WEIR_POOL_PHP) return WEIR_PHP_ANY;
    if (!last->version || last->which != o->php || strcmp(last->version, version) != 0)
        *last = (struct php_answer){version, o->php, weir_config_php(o->php, o->php_version, program, sizeof program)};
    return last->is;
}

void pools_plan(struct control *c)
{
    struct php_answer last = {0};
    bool notifies = false;
    servers_trim(c);
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        p->conf = NULL;
        p->stopped = p->patient = false;
        p->least = p->most = 0;
        pool_touch(c, p);
    }
    for (size_t i = 0; i < c->conf->pool_count; i++) {
        const struct weir_conf_pool *o = &c->conf->pools[i];
        if (!owned(o)) continue;
        struct pool *p = pool_find(c, o->name);
        if (!p) p = pool_new(c, o->name);
        if (!p) continue;
        p->conf = o;
        notifies |= o->notify;
        p->php = php_of(o, &last);
        uint64_t settings = settings_of(c, p, o);
        pool_touch(c, p);
        if (p->settings == settings) continue;
        if (p->settings) p->generation++; /* else it is new; what was adopted before may be just that */
        p->settings = settings;
        no_trouble(p);
    }
    c->endpoints_changed = true;
    if (notifies && notify_listen(c) < 0) say("READY=1 cannot be heard: %s", strerror(errno));
}

/* The least and the most units that a pool may have. */
static void bounds(const struct pool *p, uint32_t *least, uint32_t *most)
{
    const struct weir_conf_pool *o = p->conf;
    *least = *most = 0;
    if (!o || o->broken || p->stopped) return;
    if (is_one_unit(p)) {
        pool_workers(p, least, most);
        *least = *least > 0;
        *most = 1;
    } else if (p->most) {
        *least = p->least;
        *most = p->most;
    } else if (o->kind == WEIR_POOL_RUN) {
        *least = o->processes_min;
        *most = o->processes;
    } else {
        *least = o->workers_min;
        *most = o->workers;
    }
}

struct count {
    uint32_t current, ready, starting; /* of this generation, and not to be recycled */
    uint32_t busy, room;               /* requests that run, also on old ones; what a unit takes at once */
};

static bool is_old(const struct pool *p, const struct unit *u)
{
    if (u->shared && p->socket && u->shared != p->socket) return true; /* it listens where nobody comes any more */
    return u->generation != p->generation || u->settings != p->settings || u->recycle;
}

static struct count count_units(const struct pool *p)
{
    struct count n = {0};
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next) {
        const struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        n.busy += u->busy;
        if (u->state >= UNIT_DRAINING || is_old(p, u)) continue;
        n.current++;
        n.ready += u->state == UNIT_READY;
        n.starting += u->state < UNIT_READY;
        uint32_t room = unit_room(u);
        if (room > n.room) n.room = room;
    }
    return n;
}

/* How many units there should be now: enough for what runs and waits, and the spare ones. */
static uint32_t wanted(const struct pool *p, const struct count *n)
{
    uint32_t least, most;
    bounds(p, &least, &most);
    if (!most) return 0;
    uint64_t room = n->room ? n->room : 1, need = ((uint64_t)n->busy + p->all.queued + room - 1) / room;
    if (!need && p->failures >= BREAKER) need = 1; /* nobody can ask while it refuses: it is tried all the same */
    if (need || least) need += p->conf->spare;
    return need < least ? least : need > most ? most : (uint32_t)need;
}

/* ---- trouble ---- */

/* One that is to be replaced serves, too. */
static bool serves(const struct pool *p)
{
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next)
        if (WEIR_CONTAINER(l, struct unit, link)->state == UNIT_READY) return true;
    return false;
}

static void set_refuses(struct control *c, struct pool *p)
{
    bool refuses = p->stopped || (p->conf && p->conf->broken) || (p->failures >= BREAKER && !serves(p));
    if (refuses == p->refuses) return;
    p->refuses = refuses;
    c->endpoints_changed = true;
}

/* Another process that ended in the same way is the same trouble. */
static bool same_but_numbers(const char *a, const char *b)
{
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            while (isdigit((unsigned char)*a)) a++;
            while (isdigit((unsigned char)*b)) b++;
        } else if (*a++ != *b++) {
            return false;
        }
    }
    return *a == *b;
}

void pool_trouble(struct control *c, struct pool *p, const char *why)
{
    bool news = !same_but_numbers(p->why, why) || p->failures < BREAKER;
    snprintf(p->why, sizeof p->why, "%s", why);
    if (p->failures < 16) p->failures++;
    int64_t wait = (int64_t)BACKOFF_MS << (p->failures < 7 ? p->failures - 1 : 6), now = now_ms();
    if (wait > BACKOFF_MAX_MS) wait = BACKOFF_MAX_MS;
    p->failed_ms = now;
    p->due_ms = now + wait;
    if (news || now - p->said_ms >= SAY_AGAIN_MS) {
        p->said_ms = now;
        say("pool %s: %s; tried again in %lld ms%s", p->name, why, (long long)wait, p->failures == BREAKER && !serves(p) ? ", and every request is answered 503 until it starts" : "");
    }
    pool_touch(c, p);
}

/* ---- the turn ---- */

/* All pools together are at their limit: one idle process of another pool makes room, the one that was used longest ago. */
static bool make_room(struct control *c, const struct pool *for_whom, uint32_t needed)
{
    struct unit *oldest = NULL;
    uint32_t leaving = 0;
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        struct count n = count_units(p);
        uint32_t least, most;
        bounds(p, &least, &most);
        for (struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
            struct unit *u = WEIR_CONTAINER(k, struct unit, link);
            bool leaves = u->state == UNIT_ENDING || (u->state == UNIT_DRAINING && (u->released || !u->busy));
            if (leaves && (leaving += u->processes) >= needed) return true;
            if (p == for_whom || u->state != UNIT_READY || u->busy || n.current <= least) continue;
            if (!oldest || u->used_ms < oldest->used_ms) oldest = u;
        }
    }
    if (oldest) unit_drain(c, oldest);
    return oldest != NULL;
}

/* How much one more unit would count. */
static uint32_t processes_of(const struct pool *p)
{
    uint32_t least, workers;
    pool_workers(p, &least, &workers);
    return is_one_unit(p) ? workers + 1 : 1;
}

/* What old units of all pools have: they go when the new ones are there, and until then they serve. */
static uint32_t replaced(const struct control *c)
{
    uint32_t n = 0;
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        for (const struct weir_list *k = p->units.next; k != &p->units; k = k->next) {
            const struct unit *u = WEIR_CONTAINER(k, struct unit, link);
            if (is_old(p, u)) n += u->processes;
        }
    }
    return n;
}

/* May a unit be started now, or does the pool wait for others? */
static bool may_start(struct control *c, struct pool *p, uint32_t starting)
{
    p->waits = true;
    if (c->starting_count >= c->conf->starting) return false;
    if (starting >= 1 && starting >= c->conf->starting - c->conf->starting / 4) return false; /* some places are for others */
    uint32_t after = c->process_count + processes_of(p);
    if (after > c->conf->processes) {
        if (make_room(c, p, after - c->conf->processes)) return false;
        if (after > c->conf->processes + replaced(c)) {
            if (now_ms() - p->said_ms >= SAY_AGAIN_MS) {
                p->said_ms = now_ms();
                say("pool %s: all pools together have %u processes, as many as weir { processes } allows, and none is idle", p->name, c->process_count);
            }
            return false;
        }
    }
    p->waits = false;
    return true;
}

/* Has the pool the socket that it shares with web servers, if it is to have one? */
static bool has_socket(struct control *c, struct pool *p)
{
    const struct weir_conf_listener *l = p->conf ? p->conf->listen : NULL;
    char why[200];
    int code;
    if (!l) return true;
    if (p->stopped) {
        reload_close_socket(c, l); /* connect is refused at once */
        return false;
    }
    if (now_ms() < p->due_ms) return false;
    if (reload_open_socket(c, l, &code)) return true;
    if (!code) return false;
    snprintf(why, sizeof why, "cannot listen on %.100s: %s", l->address.text, reload_unix_trouble(code));
    pool_trouble(c, p, why);
    return false;
}

static void start_some(struct control *c, struct pool *p, struct count *n, uint32_t want)
{
    /* As many at a time as run already: a burst doubles, it does not explode. A fixed number is started at once. */
    uint32_t least, most;
    bounds(p, &least, &most);
    uint32_t at_once = n->ready > 1 ? n->ready : 1;
    if (at_once < least) at_once = least;
    if (p->failures) at_once = 1;
    p->waits = false;
    while (n->current < want && n->starting < at_once && now_ms() >= p->due_ms) {
        if (!may_start(c, p, n->starting) || !unit_start(c, p)) return;
        n->current++;
        n->starting++;
    }
}

static bool outlived(const struct pool *p, const struct unit *u, int64_t now)
{
    const struct weir_conf_pool *o = p->conf;
    if (!o || u->state != UNIT_READY) return false;
    if (o->recycle_ms && now - u->started_ms >= (int64_t)o->recycle_ms) return true;
    /* not all at once: up to a tenth more, by its id */
    uint64_t limit = o->recycle_requests + (uint64_t)o->recycle_requests * (weir_hash_u64(u->id) % 100) / 1000;
    return o->kind != WEIR_POOL_PHP && limit && u->done >= limit;
}

/* Resident bytes of a process and, for a group, of its workers: the largest one. */
static uint64_t memory_of(pid_t pid)
{
    char path[64];
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*u %llu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * 4096;
}

static uint64_t largest_of(const struct unit *u)
{
    char path[96], list[4096];
    uint64_t most = memory_of(u->pid);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)u->pid, (int)u->pid);
    bool workers = u->processes > 1 && u->pool->conf && u->pool->conf->kind != WEIR_POOL_CGI; /* a CGI program ends by itself */
    FILE *f = workers ? fopen(path, "re") : NULL;
    size_t n = f ? fread(list, 1, sizeof list - 1, f) : 0;
    if (f) fclose(f);
    list[n] = 0;
    for (char *p = list, *end; *p; p = end) {
        uint64_t bytes = memory_of((pid_t)strtol(p, &end, 10));
        if (end == p) break;
        if (bytes > most) most = bytes;
    }
    return most;
}

static void look_at_memory(struct pool *p, int64_t now)
{
    uint64_t limit = p->conf ? p->conf->recycle_bytes : 0;
    if (!limit || now - p->memory_ms < MEMORY_MS) return;
    p->memory_ms = now;
    for (struct weir_list *l = p->units.next; l != &p->units; l = l->next) {
        struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        uint64_t bytes = u->state == UNIT_READY && !u->recycle ? largest_of(u) : 0;
        if (bytes <= limit) continue;
        say("pool %s: process %d has grown to %llu MiB: replaced", p->name, (int)u->pid, (unsigned long long)(bytes >> 20));
        u->recycle = true;
    }
}

static void recycle_some(struct pool *p, int64_t now)
{
    for (struct weir_list *l = p->units.next; l != &p->units; l = l->next) {
        struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        if (!u->recycle && outlived(p, u, now)) u->recycle = true;
    }
    look_at_memory(p, now);
}

/* Of this generation, more than are wanted, and unused for a while: the newest first, the old ones are warm. */
static void shrink(struct control *c, struct pool *p, struct count *n, uint32_t want, int64_t now)
{
    uint32_t least, most;
    bounds(p, &least, &most);
    for (struct weir_list *l = p->units.prev, *prev; l != &p->units && n->current > want; l = prev) {
        struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        prev = l->prev;
        if (u->state > UNIT_READY || is_old(p, u)) continue;
        bool at_once = n->current > most; /* scaled down, stopped, removed */
        bool idle = p->conf && u->state == UNIT_READY && !u->busy && now - u->used_ms >= (int64_t)p->conf->idle_ms;
        if (!at_once && !idle) continue;
        unit_drain(c, u);
        n->current--;
    }
}

static const char *not_ready(const struct pool *p, const struct unit *u)
{
    if (p->conf && p->conf->notify && !u->notified) return "it was not ready in time: it did not say READY=1 (sd_notify)";
    if (p->conf && p->conf->ready_path && u->accepted) return "it was not ready in time: the request of its ready PATH was not answered below 400";
    return "it was not ready in time: it has to accept connections on descriptor 0, its listening socket";
}

static void look_at_unit(struct control *c, struct pool *p, struct unit *u, bool complete, int64_t now)
{
    if (u->state < UNIT_DRAINING && is_old(p, u) && complete) unit_drain(c, u);
    if (u->state == UNIT_DRAINING && (u->released || (now >= u->deadline_ms && !p->patient))) {
        if (!u->released && u->busy) {
            p->cut += u->busy;
            say("pool %s: process %d did not finish in time: %u requests were cut", p->name, (int)u->pid, u->busy);
        }
        unit_end(c, u, 5000);
    } else if (u->state == UNIT_STARTING && now >= u->deadline_ms) {
        unit_failed(c, u, "it could not be started in time");
    } else if (u->state == UNIT_PROBING) {
        if (now - u->started_ms >= EARLY_MS) unit_not_starting(c, u); /* others do not wait for one that hangs */
        if (u->deaf && p->conf && p->conf->notify && !u->notified) {
            say("pool %s: process %d may have said READY=1 while control was away: it starts anew", p->name, (int)u->pid);
            unit_end(c, u, 5000);
        } else if (now >= u->deadline_ms) unit_failed(c, u, not_ready(p, u));
        else probe_clock(c, u);
    }
}

/* When time alone changes something of the pool; INT64_MAX: never. */
static int64_t next_look(const struct pool *p, const struct count *n, uint32_t want, int64_t now)
{
    int64_t at = INT64_MAX;
#define SOONER(t) do { if ((t) < at) at = (t); } while (0)
    if (n->current < want && p->due_ms > now) SOONER(p->due_ms);
    if (p->changed_ms) SOONER(p->changed_ms + FILES_MS);
    if (p->log_dropped) SOONER(p->log_ms + 1000);
    if (p->waits) SOONER(now + 100);
    if (p->failures && p->failures < BREAKER && n->ready >= want) SOONER(p->failed_ms + EARLY_MS);
    for (const struct weir_list *l = p->units.next; l != &p->units; l = l->next) {
        const struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        if (u->state == UNIT_STARTING) SOONER(u->deadline_ms);
        if (u->state == UNIT_PROBING) SOONER(now + 20);
        if (u->state == UNIT_DRAINING && !u->released && !p->patient) SOONER(u->deadline_ms);
        if (u->state != UNIT_READY || !p->conf) continue;
        if (p->failures && !is_old(p, u) && u->started_ms > p->failed_ms) SOONER(u->started_ms + EARLY_MS);
        if (n->current > want && !u->busy) SOONER(u->used_ms + (int64_t)p->conf->idle_ms);
        if (p->conf->recycle_ms && !u->recycle) SOONER(u->started_ms + (int64_t)p->conf->recycle_ms);
        if (p->conf->recycle_bytes && !u->recycle && u->used_ms > p->memory_ms) SOONER(p->memory_ms + MEMORY_MS);
    }
#undef SOONER
    return at;
}

/* One that started since serves, or stays: the trouble is over. Those from before it prove nothing, but for a while in which no
 * more are wanted. */
static void forget_trouble(struct pool *p, bool complete, int64_t now)
{
    bool over = complete && p->failures < BREAKER && now - p->failed_ms >= EARLY_MS;
    for (const struct weir_list *l = p->units.next; l != &p->units && p->failures && !over; l = l->next) {
        const struct unit *u = WEIR_CONTAINER(l, struct unit, link);
        over = u->state == UNIT_READY && !is_old(p, u) && u->started_ms > p->failed_ms && (u->done || now - u->started_ms >= EARLY_MS);
    }
    if (!over) return;
    no_trouble(p);
}

/* What it watches changed, and nothing more has for a moment. */
static void follow_change(struct pool *p, int64_t now)
{
    if (!p->changed_ms || now < p->changed_ms + FILES_MS) return;
    p->changed_ms = 0;
    if (!p->conf || p->stopped) return;
    say("pool %s: its files changed: it restarts", p->name);
    p->generation++;
    no_trouble(p);
}

static void pool_turn(struct control *c, struct pool *p)
{
    int64_t now = now_ms();
    follow_change(p, now);
    if (p->log_dropped) output_rate_turn(p, now);
    if (p->conf && p->conf->listen) p->socket = reload_socket(c, p->conf->listen);
    recycle_some(p, now);
    struct count n = count_units(p);
    uint32_t want = wanted(p, &n);
    bool complete = n.ready >= want; /* what replaces the old ones is there */
    if (p->failures) forget_trouble(p, complete, now);
    for (struct weir_list *l = p->units.next, *next; l != &p->units; l = next) {
        next = l->next;
        look_at_unit(c, p, WEIR_CONTAINER(l, struct unit, link), complete, now);
    }
    if (n.current > want) shrink(c, p, &n, want, now);
    if (has_socket(c, p) && n.current < want) start_some(c, p, &n, want);
    set_refuses(c, p);
    int64_t at = next_look(p, &n, want, now);
    if (at == INT64_MAX) weir_timer_clear(&p->timer);
    else weir_wheel_set(c->wheel, &p->timer, (struct weir_ident){0}, (uint64_t)(at > now ? at : now + 1));
}

void pools_turn(struct control *c)
{
    struct weir_event due[32];
    if (c->ending || !c->conf) return;
    for (int n; (n = weir_wheel_expire(c->wheel, (uint64_t)now_ms(), due, (int)WEIR_COUNT(due))) > 0;)
        for (int i = 0; i < n; i++) pool_touch(c, WEIR_CONTAINER(due[i].ptr, struct pool, timer));
    while (!weir_list_empty(&c->touched)) {
        struct pool *p = WEIR_CONTAINER(c->touched.next, struct pool, touch_link);
        weir_list_remove(&p->touch_link);
        pool_turn(c, p);
        if (!p->conf && weir_list_empty(&p->units)) pool_free(c, p);
    }
    state_send(c);
}

int64_t pools_next_ms(const struct control *c)
{
    return weir_list_empty(&c->touched) ? weir_wheel_next_ms(c->wheel, (uint64_t)now_ms()) : 0;
}

/* ---- orders ---- */

bool pool_restart(struct control *c, const char *name)
{
    struct pool *p = pool_find(c, name);
    if (!p || !p->conf) return false;
    p->generation++;
    no_trouble(p);
    p->stopped = p->patient = false;
    pool_touch(c, p);
    orders_keep(c);
    return true;
}

bool pool_stop(struct control *c, const char *name, bool patient)
{
    struct pool *p = pool_find(c, name);
    if (!p || !p->conf) return false;
    p->stopped = true;
    p->patient = patient;
    pool_touch(c, p);
    orders_keep(c);
    return true;
}

void pool_set_scale(const struct control *c, struct pool *p, uint32_t least, uint32_t most)
{
    p->least = least;
    p->most = most;
    if (p->settings) p->settings = settings_of(c, p, p->conf);
}

void pool_scale(struct control *c, struct pool *p, uint32_t least, uint32_t most)
{
    pool_set_scale(c, p, least, most);
    pool_touch(c, p);
    orders_keep(c);
}

/* It has what it is to have, or is known to fail. */
static bool is_settled(const struct pool *p)
{
    uint32_t least, most;
    bounds(p, &least, &most);
    return count_units(p).ready >= least || p->failures;
}

bool pools_all_ready(const struct control *c)
{
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next)
        if (!is_settled(WEIR_CONTAINER(l, struct pool, link))) return false;
    return true;
}

void pools_say_missing(const struct control *c)
{
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (!is_settled(p)) say("pool %s: not ready yet%s: the others serve", p->name, p->waits ? ", it waits for others to start or to end" : "");
    }
}

void pools_free(struct control *c)
{
    while (!weir_list_empty(&c->pools)) {
        struct pool *p = WEIR_CONTAINER(c->pools.next, struct pool, link);
        while (!weir_list_empty(&p->units)) unit_drop(c, WEIR_CONTAINER(p->units.next, struct unit, link));
        pool_free(c, p);
    }
    servers_free(c);
    weir_table_fini(&c->pool_names);
    weir_table_fini(&c->unit_ids);
    weir_wheel_free(c->wheel);
}

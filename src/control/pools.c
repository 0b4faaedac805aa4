/* SPDX-License-Identifier: MIT */
/* Pools: the wanted state (configuration) and the actual one (units). A unit is one private socket with what serves it: a
 * process, or a php-cgi group. Units of one generation are started together; a new generation is ready before the old one
 * drains. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/internal.h"

const char *unit_state_name(enum unit_state s)
{
    static const char *const names[] = {"starting", "probing", "ready", "draining", "ending"};
    return names[s];
}

/* ---- what is wanted ---- */

static uint64_t mix(uint64_t h, const char *s)
{
    for (; s && *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return (h ^ 0xff) * 1099511628211u;
}

/* Equal settings keep their processes over a reload. */
static uint64_t settings_of(const struct weir_conf_pool *o)
{
    char numbers[96];
    uint64_t h = 14695981039346656037u;
    h = mix(h, o->kind == WEIR_POOL_PHP ? "php" : "run");
    for (size_t i = 0; i < o->argc; i++) h = mix(h, o->argv[i]);
    h = mix(mix(mix(mix(h, o->php_version), o->dir), o->user), o->group);
    snprintf(numbers, sizeof numbers, "%u %u %u", o->workers, o->requests_per_process, o->keep);
    h = mix(h, numbers);
    for (size_t i = 0; i < o->env_count; i++) h = mix(mix(h, o->env[i].name.ptr), o->env[i].value.ptr);
    return h;
}

static bool owned(const struct weir_conf_pool *o)
{
    return o->kind == WEIR_POOL_RUN || o->kind == WEIR_POOL_PHP;
}

static struct pool *find(struct control *c, const char *name)
{
    for (struct pool *p = c->pools; p; p = p->next)
        if (strcmp(p->name, name) == 0) return p;
    return NULL;
}

static struct pool *pool_new(struct control *c, const char *name)
{
    struct pool *p = calloc(1, sizeof *p), **at = &c->pools;
    if (!p || !(p->name = strdup(name))) {
        free(p);
        return NULL;
    }
    while (*at) at = &(*at)->next;
    *at = p;
    return p;
}

void pools_plan(struct control *c)
{
    for (struct pool *p = c->pools; p; p = p->next) p->conf = NULL;
    for (size_t i = 0; i < c->conf->pool_count; i++) {
        const struct weir_conf_pool *o = &c->conf->pools[i];
        if (!owned(o)) continue;
        struct pool *p = find(c, o->name);
        if (!p) p = pool_new(c, o->name);
        if (!p) continue;
        uint64_t settings = settings_of(o);
        p->conf = o;
        if (p->settings != settings) {
            p->settings = settings;
            p->generation++;
            p->failures = 0;
            p->due_ms = 0;
        }
    }
}

/* ---- starting ---- */

static bool put(struct weir_buf *b, const char *name, const char *value)
{
    size_t n = name ? strlen(name) : 0;
    if (n && (weir_buf_append(b, name, n) < 0 || weir_buf_append(b, "=", 1) < 0)) return false;
    return weir_buf_append(b, value, strlen(value) + 1) == WEIR_OK;
}

struct env {
    const char *name, *value;
};

/* The clean base environment, what the kind of program needs, then the pool's own: later ones win. */
static size_t environment(const struct weir_conf_pool *o, struct env *list, size_t room, const struct passwd *pw, char *children)
{
    size_t n = 0;
    list[n++] = (struct env){"PATH", "/usr/local/bin:/usr/bin:/bin"};
    list[n++] = (struct env){"LANG", "C.UTF-8"};
    list[n++] = (struct env){"HOME", pw ? pw->pw_dir : "/"};
    list[n++] = (struct env){"USER", pw ? pw->pw_name : "nobody"};
    list[n++] = (struct env){"LOGNAME", pw ? pw->pw_name : "nobody"};
    list[n++] = (struct env){"TMPDIR", "/tmp"};
    list[n++] = (struct env){"WEIR_LISTEN", "private"};
    if (o->kind == WEIR_POOL_PHP) {
        list[n++] = (struct env){"PHP_FCGI_CHILDREN", children};
        list[n++] = (struct env){"PHP_FCGI_MAX_REQUESTS", "0"}; /* Weir recycles: a worker that leaves by itself loses requests */
    }
    for (size_t i = 0; i < o->env_count; i++) {
        size_t k = 0;
        while (k < n && strcmp(list[k].name, o->env[i].name.ptr) != 0) k++;
        if (k == room) continue;
        if (k == n) n++;
        list[k] = (struct env){o->env[i].name.ptr, o->env[i].value.ptr};
    }
    return n;
}

static int spec_memfd(const struct weir_conf_pool *o, const struct passwd *pw)
{
    struct env env[256];
    char children[16], program[64];
    const char *php[] = {program};
    const char *const *argv = o->argv;
    size_t argc = o->argc;
    struct weir_buf b = {0};
    snprintf(children, sizeof children, "%u", o->workers);
    if (o->kind == WEIR_POOL_PHP) {
        if (!weir_config_php(o->php_version, program, sizeof program)) {
            errno = ENOENT;
            return -1;
        }
        argv = php;
        argc = 1;
    }
    size_t envc = environment(o, env, WEIR_COUNT(env), pw, children);
    struct root_spec head = {.version = ROOT_PROTO_VERSION, .argc = (uint32_t)argc, .envc = (uint32_t)envc, .files = 1024};
    bool fine = weir_buf_append(&b, &head, sizeof head) == WEIR_OK && put(&b, NULL, o->dir);
    for (size_t i = 0; fine && i < argc; i++) fine = put(&b, NULL, argv[i]);
    for (size_t i = 0; fine && i < envc; i++) fine = put(&b, env[i].name, env[i].value);
    int fd = fine ? weir_link_memfd("weir-start", weir_buf_ptr(&b), weir_buf_len(&b)) : -1;
    weir_buf_fini(&b);
    return fd;
}

static void close_pair(int *p)
{
    for (int i = 0; i < 2; i++)
        if (p[i] >= 0) close(p[i]);
}

static void start_failed(struct pool *p, const char *why)
{
    snprintf(p->why, sizeof p->why, "%s", why);
    if (p->failures < 16) p->failures++;
    int64_t wait = (int64_t)BACKOFF_MS << (p->failures < 7 ? p->failures - 1 : 6);
    if (wait > BACKOFF_MAX_MS) wait = BACKOFF_MAX_MS;
    p->due_ms = now_ms() + wait;
    say("pool %s: %s; tried again in %lld ms", p->name, why, (long long)wait);
}

/* What a later control has to know of a unit; the root part keeps it for us. */
static void write_tag(char tag[ROOT_TAG_MAX], const char *name, uint64_t generation, uint64_t settings, const struct unit *ready)
{
    snprintf(tag, ROOT_TAG_MAX, "%.64s %llu %llu %d %d %u", name, (unsigned long long)generation, (unsigned long long)settings, ready != NULL,
             ready && ready->flow, ready ? ready->requests : 0);
}

static void start_unit(struct control *c, struct pool *p)
{
    const struct weir_conf_pool *o = p->conf;
    struct root_msg m = {.kind = ROOT_START, .unit = c->next_unit++};
    struct passwd *pw = o->user ? getpwnam(o->user) : getpwuid(geteuid());
    int out[2] = {-1, -1};
    int memfd = spec_memfd(o, pw);
    struct unit *u = calloc(1, sizeof *u);
    if (memfd < 0 || !u || pipe2(out, O_CLOEXEC) < 0) {
        start_failed(p, memfd < 0 && errno == ENOENT ? "php-cgi is not installed" : "out of descriptors or memory");
        if (memfd >= 0) close(memfd);
        close_pair(out);
        free(u);
        return;
    }
    snprintf(m.name, sizeof m.name, "%.40s.%llu", p->name, (unsigned long long)m.unit);
    if (c->o.privileged && o->user) snprintf(m.user, sizeof m.user, "%s", o->user);
    if (c->o.privileged && o->group) snprintf(m.group, sizeof m.group, "%s", o->group);
    write_tag(m.tag, p->name, p->generation, p->settings, NULL);
    const int fds[] = {memfd, out[1], out[1], out[0]};
    root_send(c, &m, fds, 4);
    close(memfd);
    close(out[1]);
    u->pool = p;
    u->id = m.unit;
    u->generation = p->generation;
    u->state = UNIT_STARTING;
    u->started_ms = now_ms();
    u->deadline_ms = u->started_ms + START_MS;
    u->workers = o->kind == WEIR_POOL_PHP ? o->workers : 1;
    u->next = p->units;
    p->units = u;
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    u->log_fd = out[0];
}

/* ---- what the root part tells ---- */

static struct unit *find_unit(struct control *c, uint64_t id)
{
    for (struct pool *p = c->pools; p; p = p->next)
        for (struct unit *u = p->units; u; u = u->next)
            if (u->id == id) return u;
    return NULL;
}

static void drop_unit(struct control *c, struct unit *u)
{
    struct unit **at = &u->pool->units;
    probe_end(c, u);
    while (*at != u) at = &(*at)->next;
    *at = u->next;
    if (u->log_fd >= 0) close(u->log_fd);
    free(u);
}

static void end_unit(struct control *c, struct unit *u, uint32_t ms)
{
    struct root_msg m = {.kind = ROOT_END, .unit = u->id, .ms = ms};
    if (u->state == UNIT_ENDING) return;
    probe_end(c, u);
    u->state = UNIT_ENDING;
    root_send(c, &m, NULL, 0);
}

void unit_failed(struct control *c, struct unit *u, const char *why)
{
    start_failed(u->pool, why);
    end_unit(c, u, 500);
}

void unit_ready(struct control *c, struct unit *u, bool flow, uint32_t requests)
{
    struct root_msg m = {.kind = ROOT_TAG, .unit = u->id};
    u->state = UNIT_READY;
    u->flow = flow;
    u->requests = requests;
    u->pool->failures = 0;
    u->pool->why[0] = 0;
    write_tag(m.tag, u->pool->name, u->generation, u->pool->settings, u);
    root_send(c, &m, NULL, 0);
}

static void unit_exited(struct control *c, struct unit *u, int status)
{
    struct pool *p = u->pool;
    char why[128];
    bool early = u->state == UNIT_STARTING || u->state == UNIT_PROBING;
    bool meant = u->state == UNIT_DRAINING || u->state == UNIT_ENDING;
    if (WIFSIGNALED(status)) snprintf(why, sizeof why, "process %d was ended by signal %d", (int)u->pid, WTERMSIG(status));
    else snprintf(why, sizeof why, "process %d ended with status %d", (int)u->pid, WEXITSTATUS(status));
    if (u->log_fd >= 0) { /* its last lines */
        output_watch(c, u->log_fd, p->name, u->pid);
        u->log_fd = -1;
    }
    drop_unit(c, u);
    if (c->ending || meant) return;
    p->restarts++;
    if (early) {
        char text[160];
        snprintf(text, sizeof text, "%s before it was ready", why);
        start_failed(p, text);
    } else {
        say("pool %s: %s; a new one starts", p->name, why);
    }
}

void pools_root(struct control *c, const struct root_msg *m)
{
    struct unit *u = find_unit(c, m->unit);
    char why[256];
    if (!u) return;
    switch (m->kind) {
    case ROOT_STARTED:
        u->pid = m->pid;
        u->start_time = m->start_time;
        snprintf(u->address, sizeof u->address, "unix:%.107s", m->text);
        if (u->log_fd >= 0) output_watch(c, u->log_fd, u->pool->name, u->pid);
        u->log_fd = -1;
        if (u->state == UNIT_STARTING) {
            u->state = UNIT_PROBING;
            probe_start(c, u);
        }
        break;
    case ROOT_FAILED:
        snprintf(why, sizeof why, "cannot %.100s: %s", m->text, strerror(m->code));
        if (u->pool->conf && u->pool->conf->kind == WEIR_POOL_RUN && u->pool->conf->argc && strstr(m->text, "program"))
            snprintf(why, sizeof why, "cannot start %.100s: %s", u->pool->conf->argv[0], strerror(m->code));
        start_failed(u->pool, why);
        drop_unit(c, u);
        break;
    case ROOT_EXITED: unit_exited(c, u, m->code); break;
    default: break;
    }
}

void pools_adopt(struct control *c, const struct root_msg *m, int log)
{
    char name[ROOT_TAG_MAX];
    unsigned long long generation, settings;
    int ready, flow;
    unsigned requests;
    struct unit *u = calloc(1, sizeof *u);
    if (m->unit >= c->next_unit) c->next_unit = m->unit + 1;
    if (!u || sscanf(m->tag, "%159s %llu %llu %d %d %u", name, &generation, &settings, &ready, &flow, &requests) != 6) {
        free(u);
        if (log >= 0) close(log);
        return;
    }
    struct pool *p = find(c, name);
    if (!p) p = pool_new(c, name);
    if (!p) {
        free(u);
        return;
    }
    bool same = p->settings == settings;
    if (same && generation > p->generation) p->generation = generation;
    u->pool = p;
    u->id = m->unit;
    u->pid = m->pid;
    u->start_time = m->start_time;
    u->generation = same ? generation : 0; /* else of settings that are no more */
    u->log_fd = -1;
    u->started_ms = now_ms();
    u->deadline_ms = u->started_ms + START_MS;
    u->state = ready ? UNIT_READY : UNIT_PROBING;
    u->flow = flow != 0;
    u->requests = requests;
    snprintf(u->address, sizeof u->address, "unix:%.107s", m->text);
    u->next = p->units;
    p->units = u;
    if (log >= 0) output_watch(c, log, name, u->pid);
}

/* ---- what the gateway tells ---- */

void pools_use(struct control *c, const struct weir_link_message *m)
{
    if (m->part == 0)
        for (struct pool *p = c->pools; p; p = p->next)
            for (struct unit *u = p->units; u; u = u->next) u->seen = false;
    for (size_t i = 0; i < m->use_count; i++) {
        struct unit *u = find_unit(c, m->uses[i].id);
        if (!u) continue;
        u->seen = true;
        u->busy = m->uses[i].busy;
        u->unproven = m->uses[i].unproven;
        u->done = m->uses[i].done;
        u->failed = m->uses[i].failed;
    }
    for (size_t i = 0; i < m->pool_count; i++) {
        struct pool *p = find(c, m->pools[i].pool);
        if (!p) continue;
        p->queued = m->pools[i].queued;
        p->oldest_ms = m->pools[i].oldest_ms;
        p->started = m->pools[i].started;
        p->refused = m->pools[i].refused;
        p->timed_out = m->pools[i].timed_out;
    }
    if (m->part == 0) {
        c->thread_count = m->thread_count;
        memcpy(c->threads, m->threads, sizeof c->threads);
        c->connections = m->connections;
    }
    if (m->part + 1 != m->of || m->version != c->endpoint_version) return;
    for (struct pool *p = c->pools; p; p = p->next) /* drained and not named any more: released */
        for (struct unit *u = p->units; u; u = u->next)
            if (u->state == UNIT_DRAINING && !u->seen) u->released = true;
}

void pools_forget_gateway(struct control *c)
{
    for (struct pool *p = c->pools; p; p = p->next)
        for (struct unit *u = p->units; u; u = u->next) {
            u->busy = u->unproven = 0;
            if (u->state == UNIT_DRAINING) u->released = true;
        }
    c->endpoint_sum = 0;
}

/* ---- endpoints to the gateway ---- */

static bool told(const struct unit *u)
{
    return u->state == UNIT_READY || u->state == UNIT_DRAINING;
}

static void send_endpoints(struct control *c, const struct weir_link_endpoint *list, size_t count)
{
    size_t parts = count / 200 + 1;
    c->endpoint_version++;
    for (size_t i = 0; i < parts; i++) {
        size_t from = i * 200, n = count - from < 200 ? count - from : 200;
        struct weir_link_message m = {.type = WEIR_LINK_ENDPOINTS, .version = c->endpoint_version, .part = (uint16_t)i,
                                      .of = (uint16_t)parts, .endpoint_count = n};
        m.endpoints = (struct weir_link_endpoint *)(uintptr_t)(list + from);
        if (weir_link_send(c->link.fd, &m, NULL, 0) < 0) c->endpoint_sum = 0; /* told again */
    }
}

static uint32_t workers_of(const struct unit *u)
{
    if (u->workers) return u->workers;
    const struct weir_conf_pool *o = u->pool->conf; /* adopted: as the settings say that it was started with */
    return o && o->kind == WEIR_POOL_PHP ? o->workers : 1;
}

void pools_send(struct control *c)
{
    size_t count = 0, n = 0;
    uint64_t sum = 1;
    if (c->link.fd < 0 || !c->gateway_ready) return;
    for (struct pool *p = c->pools; p; p = p->next)
        for (struct unit *u = p->units; u; u = u->next) {
            if (!told(u)) continue;
            count++;
            sum = (sum * 31 + u->id) * 31 + u->state;
        }
    if (sum == c->endpoint_sum) return;
    struct weir_link_endpoint *list = calloc(count + 1, sizeof *list);
    if (!list) return;
    for (struct pool *p = c->pools; p; p = p->next)
        for (struct unit *u = p->units; u; u = u->next) {
            if (!told(u)) continue;
            struct weir_link_endpoint *e = &list[n++];
            const struct weir_conf_pool *o = p->conf;
            *e = (struct weir_link_endpoint){.id = u->id, .pid = (uint32_t)u->pid, .start_time = u->start_time, .workers = workers_of(u),
                                             .requests = o && o->requests_per_process ? o->requests_per_process : u->requests,
                                             .flow = u->flow, .keep = !o || o->keep, .drain = u->state == UNIT_DRAINING};
            snprintf(e->pool, sizeof e->pool, "%s", p->name);
            snprintf(e->address, sizeof e->address, "%.111s", u->address);
        }
    c->endpoint_sum = sum;
    send_endpoints(c, list, count);
    free(list);
}

/* ---- the turn ---- */

static uint32_t wanted_units(const struct pool *p)
{
    if (!p->conf || p->conf->broken) return 0;
    return p->conf->kind == WEIR_POOL_PHP ? 1 : p->conf->processes;
}

static void drain(struct control *c, struct unit *u, const struct pool *p)
{
    if (u->state == UNIT_STARTING) return; /* its keeper answers first */
    if (u->state == UNIT_PROBING) {
        end_unit(c, u, 500);
        return;
    }
    u->state = UNIT_DRAINING;
    u->released = c->link.fd < 0;
    u->deadline_ms = now_ms() + (p->conf ? p->conf->drain_ms : 30000);
}

static void pool_turn(struct control *c, struct pool *p)
{
    uint32_t current = 0, ready = 0, want = wanted_units(p);
    for (struct unit *u = p->units; u; u = u->next) {
        if (u->generation != p->generation || u->state >= UNIT_DRAINING) continue;
        current++;
        ready += u->state == UNIT_READY;
    }
    bool complete = ready >= want;
    for (struct unit *u = p->units, *next; u; u = next) {
        next = u->next;
        bool old = u->generation != p->generation;
        if (u->state < UNIT_DRAINING && ((old && complete) || want == 0 || (!old && current > want))) {
            if (!old) current--;
            drain(c, u, p);
        } else if (u->state == UNIT_DRAINING && (u->released || now_ms() >= u->deadline_ms)) {
            if (!u->released) {
                p->cut += u->busy;
                say("pool %s: process %d did not finish in time: %u requests were cut", p->name, (int)u->pid, u->busy);
            }
            end_unit(c, u, 5000);
        } else if (u->state == UNIT_PROBING) {
            if (now_ms() >= u->deadline_ms) unit_failed(c, u, "it was not ready in time");
            else probe_clock(c, u);
        }
    }
    while (current < want && now_ms() >= p->due_ms) {
        uint32_t failures = p->failures;
        start_unit(c, p);
        if (p->failures != failures) break;
        current++;
        if (p->failures) break; /* after a failure one at a time */
    }
}

void pools_turn(struct control *c)
{
    if (c->ending || !c->conf) return;
    for (struct pool **at = &c->pools; *at;) {
        struct pool *p = *at;
        pool_turn(c, p);
        if (!p->conf && !p->units) {
            *at = p->next;
            free(p->name);
            free(p);
            continue;
        }
        at = &p->next;
    }
    pools_send(c);
}

int64_t pools_next_ms(const struct control *c)
{
    int64_t best = INT64_MAX, now = now_ms();
    for (const struct pool *p = c->pools; p; p = p->next) {
        uint32_t current = 0;
        for (const struct unit *u = p->units; u; u = u->next) {
            if (u->state == UNIT_PROBING && now + 20 < best) best = now + 20;
            if (u->state == UNIT_DRAINING && u->deadline_ms < best) best = u->deadline_ms;
            current += u->generation == p->generation && u->state < UNIT_DRAINING;
        }
        if (current < wanted_units(p) && p->due_ms < best) best = p->due_ms;
    }
    if (best == INT64_MAX) return -1;
    return best <= now ? 0 : best - now;
}

bool pool_restart(struct control *c, const char *name)
{
    struct pool *p = find(c, name);
    if (!p || !p->conf) return false;
    p->generation++;
    p->failures = 0;
    p->due_ms = 0;
    return true;
}

bool pools_all_ready(const struct control *c)
{
    for (const struct pool *p = c->pools; p; p = p->next) {
        uint32_t ready = 0;
        for (const struct unit *u = p->units; u; u = u->next) ready += u->state == UNIT_READY;
        if (ready < wanted_units(p) && !p->failures) return false;
    }
    return true;
}

void pools_free(struct control *c)
{
    while (c->pools) {
        struct pool *p = c->pools;
        c->pools = p->next;
        while (p->units) {
            struct unit *u = p->units;
            p->units = u->next;
            if (u->log_fd >= 0) close(u->log_fd);
            free(u);
        }
        free(p->name);
        free(p);
    }
}

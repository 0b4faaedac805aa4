/* SPDX-License-Identifier: MIT */
/* One unit, from the order to start it to its end; and what the root part tells of units. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/internal.h"

static const char *const names[] = {"starting", "probing", "ready", "draining", "ending"};

const char *unit_state_name(enum unit_state s)
{
    return names[s];
}

struct unit *unit_find(const struct control *c, uint64_t id)
{
    for (struct weir_table_node *n = weir_table_find(&c->unit_ids, weir_hash_u64(id)); n; n = weir_table_more(n)) {
        struct unit *u = WEIR_CONTAINER(n, struct unit, node);
        if (u->id == id) return u;
    }
    return NULL;
}

/* Those that wait for a place among the starting ones, or below the limit of all. */
static void touch_waiting(struct control *c)
{
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (p->waits) pool_touch(c, p);
    }
}

static void count_starting(struct control *c, struct unit *u, bool starting)
{
    if (u->counted == starting) return;
    u->counted = starting;
    if (starting) {
        c->starting_count++;
    } else {
        c->starting_count--;
        touch_waiting(c);
    }
}

void unit_set(struct control *c, struct unit *u, enum unit_state s)
{
    u->state = s;
    count_starting(c, u, s < UNIT_READY);
    c->endpoints_changed = true;
    pool_touch(c, u->pool);
}

void unit_not_starting(struct control *c, struct unit *u)
{
    count_starting(c, u, false);
}

/* ---- from start to end ---- */

/* A new one in its pool; NULL: memory. */
static struct unit *unit_new(struct control *c, struct pool *p, uint64_t id)
{
    struct unit *u = calloc(1, sizeof *u);
    if (!u || weir_table_put(&c->unit_ids, &u->node, weir_hash_u64(id)) < 0) {
        free(u);
        return NULL;
    }
    u->pool = p;
    u->id = id;
    u->log_fd = u->error_fd = -1;
    u->started_ms = u->used_ms = now_ms();
    u->deadline_ms = u->started_ms + (p->conf ? p->conf->start_ms : 60000);
    weir_list_push_back(&p->units, &u->link);
    return u;
}

uint32_t unit_room(const struct unit *u)
{
    const struct weir_conf_pool *o = u->pool->conf;
    uint32_t at_once = o && o->requests_per_process ? o->requests_per_process : u->requests;
    return u->flow && at_once ? at_once : u->workers ? u->workers : 1;
}

void unit_drop(struct control *c, struct unit *u)
{
    probe_end(c, u);
    count_starting(c, u, false);
    c->process_count -= u->processes;
    c->endpoints_changed = true;
    weir_list_remove(&u->link);
    weir_table_remove(&c->unit_ids, &u->node);
    weir_link_close((int[]){u->log_fd, u->error_fd}, 2);
    pool_touch(c, u->pool);
    touch_waiting(c);
    free(u);
}

/* What a later control has to know of a unit; the root part keeps it for us. */
static void write_tag(char tag[ROOT_TAG_MAX], const struct unit *u)
{
    snprintf(tag, ROOT_TAG_MAX, "%.64s %llu %llu %d %d %d %d %llu %u %u %u %u %d", u->pool->name, (unsigned long long)u->generation,
             (unsigned long long)u->settings, u->state == UNIT_READY, u->flow, u->prove, u->pings, (unsigned long long)u->shared, u->requests, u->workers, u->processes, u->ahead, u->forks);
}

/* For its stdout and its stderr: -1 in all where one cannot be made. */
static bool make_pipes(int out[2], int err[2])
{
    out[0] = out[1] = err[0] = err[1] = -1;
    if (pipe2(out, O_CLOEXEC) < 0) return false;
    if (pipe2(err, O_CLOEXEC) < 0) {
        weir_link_close(out, 2);
        out[0] = out[1] = -1;
        return false;
    }
    fchmod(out[1], 0666);
    fchmod(err[1], 0666); /* php-fpm opens it by name for its slow log */
    fcntl(out[0], F_SETFL, O_NONBLOCK);
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    return true;
}

bool unit_start(struct control *c, struct pool *p)
{
    const struct weir_conf_pool *o = p->conf;
    struct root_msg m = {.kind = ROOT_START, .unit = c->next_unit++};
    struct unit_spec spec;
    char socket[120];
    int out[2], err[2];
    snprintf(m.name, sizeof m.name, "%.40s.%llu", p->name, (unsigned long long)m.unit);
    snprintf(socket, sizeof socket, "%.40s/pool/%.56s.sock", c->o.run_dir, m.name);
    if (!spec_make(c, p, socket, &spec)) {
        pool_trouble(c, p, spec.why);
        return false;
    }
    struct unit *u = make_pipes(out, err) ? unit_new(c, p, m.unit) : NULL;
    if (!u) {
        pool_trouble(c, p, "out of descriptors or memory");
        weir_link_close((int[]){spec.memfd, spec.config, out[0], out[1], err[0], err[1]}, 6);
        return false;
    }
    u->generation = p->generation;
    u->settings = p->settings;
    u->workers = spec.workers;
    u->processes = spec.processes;
    u->prove = spec.prove;
    u->ahead = spec.ahead;
    u->forks = spec.forks;
    c->process_count += u->processes;
    if (c->o.privileged && o->user) snprintf(m.user, sizeof m.user, "%s", o->user);
    if (c->o.privileged && o->group) snprintf(m.group, sizeof m.group, "%s", o->group);
    u->shared = o->listen ? reload_socket(c, o->listen) : 0;
    if (o->listen && !u->shared) u->shared = 1; /* it is gone by now */
    write_tag(m.tag, u);
    if (u->shared && !reload_socket_address(c, o->listen, &m)) m.address_len = sizeof m.address; /* it is gone: the root part says so */
    const int fds[] = {spec.memfd, out[1], err[1], out[0], err[0], spec.config};
    root_send(c, &m, fds, spec.config >= 0 ? 6 : 5);
    weir_link_close((int[]){spec.memfd, spec.config, out[1], err[1]}, 4);
    u->log_fd = out[0];
    u->error_fd = err[0];
    unit_set(c, u, UNIT_STARTING);
    return true;
}

void unit_end(struct control *c, struct unit *u, uint32_t ms)
{
    const struct weir_conf_pool *o = u->pool->conf;
    int sig = o ? o->stop_signal : 0;
    if (!sig && u->shared && u->pool->php == WEIR_PHP_FPM) sig = SIGQUIT; /* its workers finish what they have */
    struct root_msg m = {.kind = ROOT_END, .unit = u->id, .ms = ms, .code = sig};
    if (u->state == UNIT_ENDING) return;
    probe_end(c, u);
    unit_set(c, u, UNIT_ENDING);
    root_send(c, &m, NULL, 0);
}

void unit_drain(struct control *c, struct unit *u)
{
    if (u->state == UNIT_STARTING || u->state >= UNIT_DRAINING) return; /* of a start its keeper answers first */
    if (u->state == UNIT_PROBING) {
        unit_end(c, u, 500);
        return;
    }
    uint32_t ms = u->pool->conf ? u->pool->conf->drain_ms : 30000;
    if (u->shared) { /* it alone knows what it has */
        unit_end(c, u, ms);
        return;
    }
    u->deadline_ms = now_ms() + ms;
    unit_set(c, u, UNIT_DRAINING);
    state_draining(c, u);
}

void unit_failed(struct control *c, struct unit *u, const char *why)
{
    pool_trouble(c, u->pool, why);
    unit_end(c, u, 500);
}

void unit_ready(struct control *c, struct unit *u, bool flow, uint32_t requests)
{
    struct root_msg m = {.kind = ROOT_TAG, .unit = u->id};
    struct pool *p = u->pool;
    u->flow = flow;
    u->requests = requests;
    u->used_ms = now_ms();
    unit_set(c, u, UNIT_READY);
    if (p->failures >= BREAKER) say("pool %s: process %d is ready", p->name, (int)u->pid);
    write_tag(m.tag, u);
    root_send(c, &m, NULL, 0);
}

/* Its pid is known, or nothing more of it will be. */
static void watch_output(struct control *c, struct unit *u)
{
    if (u->log_fd >= 0) output_watch(c, u->log_fd, u->pool->name, u->pid, false);
    if (u->error_fd >= 0) output_watch(c, u->error_fd, u->pool->name, u->pid, true);
    u->log_fd = u->error_fd = -1;
}

/* The first process of a unit ended, and not because it was told to. (FC1-7-a) */
static void tell_end(struct control *c, struct unit *u, int status)
{
    struct pool *p = u->pool;
    char why[128];
    bool unready = u->state < UNIT_READY;
    bool early = unready || (!u->done && now_ms() - u->started_ms < EARLY_MS);
    if (c->ending || u->state >= UNIT_DRAINING) return;
    if (WIFSIGNALED(status)) snprintf(why, sizeof why, "process %d was ended by signal %d", (int)u->pid, WTERMSIG(status));
    else snprintf(why, sizeof why, "process %d ended with status %d", (int)u->pid, WEXITSTATUS(status));
    p->restarts++;
    if (!early) {
        say("pool %s: %s; a new one starts", p->name, why);
        return;
    }
    char text[160];
    snprintf(text, sizeof text, "%s before it %s", why, unready ? "was ready" : "finished a request");
    pool_trouble(c, p, text);
}

static void unit_exited(struct control *c, struct unit *u, int status)
{
    tell_end(c, u, status);
    watch_output(c, u); /* its last lines */
    unit_drop(c, u);
}

/* ---- what the root part tells ---- */

void units_root(struct control *c, const struct root_msg *m)
{
    struct unit *u = unit_find(c, m->unit);
    char why[256];
    if (!u) return;
    switch (m->kind) {
    case ROOT_STARTED:
        u->pid = m->pid;
        snprintf(u->address, sizeof u->address, "unix:%.107s", m->text);
        watch_output(c, u);
        if (u->state != UNIT_STARTING) break;
        unit_set(c, u, UNIT_PROBING);
        probe_start(c, u);
        break;
    case ROOT_FAILED:
        snprintf(why, sizeof why, "cannot %.100s: %s", m->text, strerror(m->code));
        if (u->pool->conf && u->pool->conf->kind == WEIR_POOL_RUN && u->pool->conf->argc && strstr(m->text, "program"))
            snprintf(why, sizeof why, "cannot start %.100s: %s", u->pool->conf->argv[0], strerror(m->code));
        if (u->pool->conf && u->pool->conf->user && m->code == ENOENT && strcmp(m->text, "use this user") == 0)
            snprintf(why, sizeof why, "there is no user %.100s", u->pool->conf->user);
        pool_trouble(c, u->pool, why);
        unit_drop(c, u);
        break;
    case ROOT_LOST: /* its workers finish what runs, a new one starts beside them */
        tell_end(c, u, m->code);
        unit_drain(c, u);
        break;
    case ROOT_EXITED: unit_exited(c, u, m->code); break;
    default: break;
    }
}

void units_looked(struct control *c, const struct root_msg *m)
{
    const struct unit *u = unit_find(c, m->unit);
    const char *pool = u ? u->pool->name : "-";
    if (m->flags & 1 && !m->tag[0]) say("pool %s: process %d does not answer a ping and is ended: %s", pool, (int)m->pid, m->text);
    else if (m->flags & 1) say("pool %s: answered 504: %s; process %d hangs and is ended: %s", pool, m->tag, (int)m->pid, m->text);
    else if (m->pid) say("pool %s: slow: %s; process %d: %s", pool, m->tag, (int)m->pid, m->text);
    else if (m->tag[0]) say("pool %s: answered 504: %s; nothing works on it any more", pool, m->tag);
}

void units_adopt(struct control *c, const struct root_msg *m, int log)
{
    char name[ROOT_TAG_MAX];
    unsigned long long generation, settings, shared;
    int ready, flow, prove, pings, forks;
    unsigned requests, workers, processes, ahead;
    bool fine = sscanf(m->tag, "%159s %llu %llu %d %d %d %d %llu %u %u %u %u %d", name, &generation, &settings, &ready, &flow, &prove, &pings, &shared, &requests, &workers, &processes,
                       &ahead, &forks) == 13;
    if (m->unit >= c->next_unit) c->next_unit = m->unit + 1;
    struct pool *p = fine ? pool_find(c, name) : NULL;
    if (fine && !p) p = pool_new(c, name);
    struct unit *u = p ? unit_new(c, p, m->unit) : NULL;
    if (!u) {
        if (log >= 0) close(log);
        return;
    }
    if (generation > p->generation) p->generation = generation;
    u->pid = m->pid;
    u->generation = generation;
    u->settings = settings;
    u->flow = flow != 0;
    u->prove = prove != 0;
    u->pings = pings != 0;
    u->shared = shared;
    u->requests = requests;
    u->workers = workers;
    u->processes = processes;
    u->ahead = ahead;
    u->forks = forks != 0;
    c->process_count += processes;
    snprintf(u->address, sizeof u->address, "unix:%.107s", m->text);
    unit_set(c, u, m->flags & 1 ? UNIT_ENDING : ready ? UNIT_READY : UNIT_PROBING);
    if (log >= 0) output_watch(c, log, name, u->pid, false);
    u->deaf = u->state == UNIT_PROBING;
    if (!(m->flags & 2)) return;
    unit_drain(c, u);
    u->released = c->conf && !gateway_is_needed(c->conf); /* a gateway that runs has not been told of yet */
}

void units_adopt_errors(struct control *c, const struct root_msg *m, int log)
{
    const struct unit *u = unit_find(c, m->unit);
    if (u && log >= 0) output_watch(c, log, u->pool->name, u->pid, true);
    else if (log >= 0) close(log);
}

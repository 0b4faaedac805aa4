/* SPDX-License-Identifier: MIT */
/* The gateway's process: threads, the swap of snapshots, pools that outlive them, signals, the end. What control tells is
 * control_link.c's of this room. */
#include "gateway/gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gateway/internal.h"

static struct gateway *running; /* for the signal handler */

static void on_signal(int sig)
{
    int saved = errno;
    if (sig == SIGHUP) atomic_store(&running->reload_asked, true);
    else if (sig == SIGUSR1) atomic_store(&running->reopen_asked, true);
    else atomic_store(&running->term_asked, true);
    weir_loop_wake(running->workers[0].loop);
    errno = saved;
}

/* ---- pools ---- */

static void set_connect_endpoints(struct gateway *gw, struct weir_pool *p, const struct weir_conf_pool *conf)
{
    struct weir_endpoint_options *list = calloc(conf->endpoint_count + 1, sizeof *list);
    if (!list) return;
    for (size_t i = 0; i < conf->endpoint_count; i++) {
        const struct weir_conf_endpoint *e = &conf->endpoints[i];
        list[i] = (struct weir_endpoint_options){.id = weir_hash(weir_cstr(e->address)), /* by address: a reload keeps what did not change */
                                                 .address = e->address, .workers = e->workers, .requests = e->flow ? 0 : e->requests,
                                                 .keep = e->keep, .flow = e->flow, .plain_mpx = conf->multiplex_plain,
                                                 .weight = e->weight, .backup = e->backup};
    }
    struct weir_pool_balance b = {.size = sizeof b, .eject_ms = conf->eject_ms, .eject_max_ms = conf->eject_max_ms, .slow_start_ms = conf->slow_start_ms};
    if (weir_pool_set_balance(p, &b) < 0 || weir_pool_set(p, list, conf->endpoint_count) < 0)
        gateway_say(gw, "pool %s: an address cannot be used", conf->name);
    free(list);
}

struct gateway_pool *gateway_find_pool(struct gateway *gw, const char *name, bool owned)
{
    for (struct weir_table_node *n = weir_table_find(&gw->pool_names, weir_hash(weir_cstr(name))); n; n = weir_table_more(n)) {
        struct gateway_pool *gp = WEIR_CONTAINER(n, struct gateway_pool, node);
        if (gp->owned == owned && strcmp(weir_pool_name(gp->pool), name) == 0) return gp;
    }
    return NULL;
}

struct gateway_pool *gateway_pool(struct gateway *gw, const struct weir_conf_pool *conf)
{
    bool owned = conf->kind != WEIR_POOL_CONNECT;
    struct gateway_pool *gp = gateway_find_pool(gw, conf->name, owned);
    if (!gp) {
        struct weir_pool_options o = {.size = sizeof o, .name = conf->name, .queue_count = conf->queue_count, .queue_ms = conf->queue_ms,
                                      .owned = owned};
        gp = calloc(1, sizeof *gp);
        if (!gp || weir_pool_new(&gp->pool, gw->group, &o) < 0) {
            free(gp);
            return NULL;
        }
        if (weir_table_put(&gw->pool_names, &gp->node, weir_hash(weir_cstr(conf->name))) < 0) {
            weir_pool_free(gp->pool);
            free(gp);
            return NULL;
        }
        gp->owned = owned;
        gp->next = gw->pools;
        gw->pools = gp;
    }
    atomic_fetch_add(&gp->refs, 1);
    weir_pool_set_queue(gp->pool, conf->queue_count, conf->queue_ms);
    if (owned) weir_pool_set_ping(gp->pool, conf->ping_ms);
    weir_pool_set_idle(gp->pool, conf->kind == WEIR_POOL_PHP || !owned ? conf->idle_ms : 0); /* php-fpm never ends a worker with a connection, or cuts it in the end */
    if (!owned) set_connect_endpoints(gw, gp->pool, conf);
    return gp;
}

void gateway_pool_drop(struct gateway *gw, struct gateway_pool *gp)
{
    if (atomic_fetch_sub(&gp->refs, 1) != 1) return;
    atomic_store(&gw->pools_unused, true); /* seen by the next tick */
}

/* Pools that no snapshot names any more go when their last connection is closed. */
void gateway_tick(struct gateway *gw)
{
    bool left = false;
    if (!atomic_exchange(&gw->pools_unused, false)) return;
    for (struct gateway_pool **at = &gw->pools; *at;) {
        struct gateway_pool *gp = *at;
        if (atomic_load(&gp->refs) > 0) {
            at = &gp->next;
        } else if (weir_pool_retire(gp->pool)) {
            *at = gp->next;
            weir_table_remove(&gw->pool_names, &gp->node);
            free(gp->servers);
            free(gp);
        } else {
            left = true;
            at = &gp->next;
        }
    }
    if (left) atomic_store(&gw->pools_unused, true);
}

/* ---- snapshots ---- */

/* Connections that the descriptors allow; the rest is for files that are on their way to clients, an eighth at least, and some are kept
 * for apps and logs. (Of 20,000 the default number of connections has enough.) */
static void share_descriptors(struct gateway *gw, uint32_t wanted)
{
    struct rlimit r;
    uint64_t all = getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur > INT32_MAX ? INT32_MAX : r.rlim_cur;
    uint64_t rest = all - (all / 8 < 1024 ? all / 8 : 1024), most = rest - rest / 8;
    if (wanted > most)
        gateway_say(gw, "%llu open files are allowed: at most %llu connections, not %u", (unsigned long long)all, (unsigned long long)most, wanted);
    uint32_t count = wanted > most ? (uint32_t)most : wanted;
    atomic_store(&gw->file_max, (uint32_t)rest - count);
    atomic_store(&gw->conn_max, count);
}

static void set_logs(struct gateway *gw, const struct weir_config *conf)
{
    if (log_sink_set(gw->access_log, conf->log_path) < 0)
        gateway_say(gw, "cannot open the access log %s: %s: its folder must be writable by the gateway's user "
                        "(weir { user CONTROL GATEWAY } [weir weir-gw])", conf->log_path, strerror(errno));
    if (log_sink_set(gw->app_log, conf->app_log) < 0)
        gateway_say(gw, "cannot open the app log %s: %s: it must be writable by the gateway's group", conf->app_log, strerror(errno));
}

void gateway_publish(struct gateway *gw, struct snapshot *s)
{
    pthread_mutex_lock(&gw->lock);
    struct snapshot *old = gw->snap;
    gw->snap = s;
    pthread_mutex_unlock(&gw->lock);
    share_descriptors(gw, s->conf->connections);
    atomic_store(&gw->quota.max, s->conf->temp_bytes);
    gateway_checks_set(gw, s);
    if (gw->access_log) set_logs(gw, s->conf); /* else the start does it */
    if (old) snapshot_drop(old);
    worker_wake_all(gw);
}

/* Group and mode of a front's socket; 0, or an errno. */
static int set_rights(const struct weir_conf_listener *l, const struct sockaddr_storage *at)
{
    const struct sockaddr_un *u = (const void *)at;
    const struct group *gr = l->group ? getgrnam(l->group) : NULL;
    if (at->ss_family != AF_UNIX) return 0;
    if (l->group && !gr) return ESRCH;
    if (gr && lchown(u->sun_path, (uid_t)-1, gr->gr_gid) < 0) return errno;
    return fchmodat(AT_FDCWD, u->sun_path, l->mode, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
}

static const char *listen_trouble(int error, bool local)
{
    if (error == ESRCH) return "there is no such group: create it with groupadd, or name another";
    if (error != EADDRINUSE) return strerror(error);
    return local ? "another program answers there, or what is there is no socket: choose another path"
                 : "the port is in use: stop the other program or choose another port";
}

/* A listening socket of our own, or a copy of the one that the running snapshot has for the same address. */
static int listener_fd(struct gateway *gw, const struct weir_conf_listener *l)
{
    struct sockaddr_storage at;
    uint32_t len;
    int error = 0, fd = -1;
    if (weir_address_parse(weir_cstr(l->address.socket), &at, &len) < 0) {
        gateway_say(gw, "%s:%u:%u: the address %s cannot be used", l->place.file, l->place.line,
                l->place.column, l->address.text);
        return -1;
    }
    for (size_t i = 0; gw->snap && i < gw->snap->conf->listener_count && fd < 0; i++)
        if (strcmp(gw->snap->conf->listeners[i].address.socket, l->address.socket) == 0) fd = dup(gw->snap->listeners[i].fd);
    bool had = fd >= 0;
    if (!had) fd = weir_open_listener(&at, len, &error);
    if (fd >= 0) error = set_rights(l, &at);
    if (!error) return fd;
    gateway_say(gw, "%s:%u:%u: cannot listen on %s: %s", l->place.file, l->place.line, l->place.column,
            l->address.text, listen_trouble(error, at.ss_family == AF_UNIX));
    if (fd >= 0 && !had) weir_close_listener(&at, len, fd);
    if (fd >= 0) close(fd);
    return -1;
}

static bool listens(const struct snapshot *s, const char *socket)
{
    for (size_t i = 0; s && i < s->conf->listener_count; i++)
        if (strcmp(s->conf->listeners[i].address.socket, socket) == 0) return true;
    return false;
}

/* One that `kept` has no use for. */
static void end_listener(const struct snapshot *kept, const struct weir_conf_listener *l, int fd)
{
    struct sockaddr_storage at;
    uint32_t len;
    if (!listens(kept, l->address.socket) && weir_address_parse(weir_cstr(l->address.socket), &at, &len) == WEIR_OK) weir_close_listener(&at, len, fd);
}

/* Sockets that we made ourselves, and that the next snapshot has no use for (NULL: there is none). */
static void end_listeners(struct gateway *gw, const struct snapshot *next)
{
    const struct snapshot *was = gw->snap;
    for (size_t i = 0; was && gw->o.config_path && i < was->conf->listener_count; i++)
        end_listener(next, &was->conf->listeners[i], was->listeners[i].fd);
}

/* What is not built, and pools that need a supervisor, are refused: a setting that does nothing is worse than none. */
static bool may_serve(struct gateway *gw, const struct weir_config *conf, const struct weir_config_report *report)
{
    bool fine = report->later == 0;
    if (conf->deny_file) {
        gateway_say(gw, "the gateway alone reads no deny file (%s): remove it, or start weir serve", conf->deny_file);
        fine = false;
    }
    for (size_t i = 0; i < conf->pool_count; i++) {
        const struct weir_conf_pool *o = &conf->pools[i];
        if (o->kind == WEIR_POOL_CONNECT) continue;
        gateway_say(gw, "%s:%u:%u: the gateway alone runs no processes: use connect ADDRESS, or start weir serve", o->place.file,
                o->place.line, o->place.column);
        fine = false;
    }
    return fine;
}

static void say_report(struct gateway *gw, const struct weir_config_report *report)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return;
    weir_config_report_print(report, f);
    if (fclose(f) == 0) gateway_say_lines(gw, weir_str(text, len));
    free(text);
}

static int load_file(struct gateway *gw)
{
    struct weir_config_sources src = {0};
    struct weir_config_report report;
    struct weir_config *conf = NULL;
    struct snapshot *s = NULL;
    int status = WEIR_INVALID;
    weir_config_report_init(&report);
    if (weir_config_read(gw->o.config_path, &src, &report) == WEIR_OK && weir_config_parse(&src, &conf, &report) == WEIR_OK && may_serve(gw, conf, &report)) {
        int *fds = gateway_threads(gw, conf->threads) == WEIR_OK ? calloc(conf->listener_count + 1, sizeof *fds) : NULL;
        size_t n = 0;
        for (; fds && n < conf->listener_count; n++)
            if ((fds[n] = listener_fd(gw, &conf->listeners[n])) < 0) break;
        if (fds && n == conf->listener_count) {
            gateway_read_keys(gw, conf);
            status = snapshot_new(&s, gw, conf, fds);
        } else {
            while (fds && n > 0) {
                n--;
                end_listener(gw->snap, &conf->listeners[n], fds[n]);
                close(fds[n]);
            }
        }
        free(fds);
    }
    say_report(gw, &report);
    weir_config_report_fini(&report);
    weir_config_sources_free(&src);
    if (conf) weir_config_drop(conf);
    if (status == WEIR_OK) {
        end_listeners(gw, s);
        gateway_publish(gw, s);
    }
    return status;
}

/* ---- threads ---- */

static void *thread_main(void *arg)
{
    worker_run(arg);
    return NULL;
}

static void start_threads(struct gateway *gw)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals are the first thread's */
    for (unsigned i = 1; i < gw->thread_count; i++) {
        if (pthread_create(&gw->workers[i].thread, NULL, thread_main, &gw->workers[i]) != 0) {
            gateway_say(gw, "cannot start a thread");
            gw->thread_count = i;
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void raise_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

void gateway_main_turn(struct gateway *gw)
{
    if (atomic_exchange(&gw->reload_asked, false) && gw->o.config_path) {
        bool fine = load_file(gw) == WEIR_OK;
        gateway_say(gw, "%s", fine ? "configuration read again" : "the old configuration stays in use");
    }
    if (atomic_exchange(&gw->reopen_asked, false)) gateway_reopen_logs(gw);
    if (atomic_exchange(&gw->term_asked, false)) gateway_drain(gw, DRAIN_MS, false);
    gateway_link_turn(gw);
    gateway_servers_turn(gw);
    gateway_checks_turn(gw);
}

void gateway_drain(struct gateway *gw, uint32_t ms, bool leave)
{
    uint64_t until = weir_loop_now_ms(gw->workers[0].loop) + ms + 1, before = atomic_load(&gw->drain_until_ms);
    if (before && leave) return;
    if (leave) weir_client_group_leave(gw->group);
    atomic_store(&gw->leaves, leave);
    if (!before || until < before) atomic_store(&gw->drain_until_ms, until);
    atomic_store(&gw->end_asked, true);
    worker_wake_all(gw);
}

/* ---- life ---- */

static void install_signals(struct gateway *gw)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    running = gw;
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigaction(SIGTERM, &dfl, NULL);
    sigaction(SIGINT, &dfl, NULL);
    sigaction(SIGHUP, &dfl, NULL);
    signal(SIGUSR1, SIG_IGN); /* nothing is left to open */
}

int gateway_new(struct gateway **out, int (*loop_new)(struct weir_loop **out, void *arg), void *loop_arg)
{
    struct gateway *gw = calloc(1, sizeof *gw);
    if (!gw) return WEIR_NOMEM;
    if (auth_new(&gw->auth) < 0 || limits_new(&gw->limits) < 0) {
        auth_free(gw->auth);
        free(gw);
        return WEIR_NOMEM;
    }
    gw->loop_new = loop_new;
    gw->loop_arg = loop_arg;
    atomic_store(&gw->file_max, UINT32_MAX); /* until it serves */
    pthread_mutex_init(&gw->lock, NULL);
    pthread_mutex_init(&gw->late_lock, NULL);
    *out = gw;
    return WEIR_OK;
}

int gateway_threads(struct gateway *gw, unsigned count)
{
    if (gw->group) return WEIR_OK; /* their number is fixed for the life of the process */
    gw->thread_count = count < MAX_WORKERS ? count : MAX_WORKERS;
    return weir_client_group_new(&gw->group, gw->thread_count);
}

void gateway_free(struct gateway *gw)
{
    gateway_checks_end(gw);
    for (unsigned i = 0; i < gw->thread_count; i++) worker_fini(&gw->workers[i]);
    end_listeners(gw, NULL);
    if (gw->snap) snapshot_drop(gw->snap);
    while (gw->pools) {
        struct gateway_pool *gp = gw->pools;
        gw->pools = gp->next;
        weir_pool_free(gp->pool);
        free(gp->servers);
        free(gp);
    }
    gateway_link_fini(gw);
    limits_free(gw->limits);
    auth_free(gw->auth);
    orders_drop(gw->orders);
    keys_drop(gw->keys);
    weir_tls_context_free(gw->tls);
    weir_client_group_free(gw->group);
    free((void *)(uintptr_t)gw->quota.dir);
    log_sink_drop(gw->access_log);
    log_sink_drop(gw->app_log);
    log_sink_drop(gw->error_log);
    weir_table_fini(&gw->pool_names);
    pthread_mutex_destroy(&gw->lock);
    pthread_mutex_destroy(&gw->late_lock);
    free(gw->late);
    free(gw);
}

static const char *temp_dir(const struct weir_config *conf)
{
    if (conf->temp_dir) return strdup(conf->temp_dir);
    return strdup(access("/var/lib/weir/tmp", W_OK) == 0 ? "/var/lib/weir/tmp" : "/tmp");
}

int gateway_start(struct gateway *gw)
{
    struct weir_config *conf = gw->snap->conf;
    gw->quota.dir = temp_dir(conf);
    if (log_sink_new(&gw->access_log, 0640) < 0 || log_sink_new(&gw->app_log, 0660) < 0 || log_sink_new(&gw->error_log, 0) < 0) return WEIR_SYSTEM;
    if (log_sink_set(gw->error_log, "stderr") < 0) return WEIR_SYSTEM;
    set_logs(gw, conf);
    for (unsigned i = 0; i < gw->thread_count; i++) {
        int status = worker_init(&gw->workers[i], gw, i);
        if (status < 0) return status;
    }
    if (gateway_checks_new(gw) < 0) return WEIR_NOMEM;
    gateway_checks_set(gw, gw->snap);
    weir_client_group_watch(gw->group, gw->workers[0].loop);
    if (!gw->workers[0].loop->knows_peers)
        gateway_say(gw, "this kernel does not tell whether an app accepted a connection (unix_diag): a request that is given up "
                        "while it waits in a backlog may still run");
    return WEIR_OK;
}

static int epoll_loop(struct weir_loop **out, void *arg)
{
    (void)arg;
    return weir_loop_epoll_new(out);
}

int weir_gateway_run(const struct weir_gateway_options *o)
{
    struct gateway *gw;
    if (gateway_new(&gw, epoll_loop, NULL) < 0) return 1;
    gw->o = *o;
    raise_files();
    int status = o->config_path ? load_file(gw) : gateway_link_first(gw);
    if (status < 0 || gateway_start(gw) < 0) {
        gateway_free(gw);
        return 1;
    }
    install_signals(gw);
    if (gateway_link_start(gw) < 0) gateway_say(gw, "control cannot be heard");
    start_threads(gw);
    worker_run(&gw->workers[0]);
    for (unsigned i = 1; i < gw->thread_count; i++) pthread_join(gw->workers[i].thread, NULL);
    reset_signals();
    gateway_free(gw);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What a unit is started with: program, arguments, environment, and the file that php-fpm reads. */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"

struct env {
    const char *name, *value;
};
struct environment {
    struct env list[WEIR_CONF_ENV_MAX + 16]; /* and what Weir itself sets */
    size_t count;
};

static void set(struct environment *e, const char *name, const char *value)
{
    size_t i = 0;
    while (i < e->count && strcmp(e->list[i].name, name) != 0) i++;
    WEIR_ASSERT(i < WEIR_COUNT(e->list));
    if (i == e->count) e->count++;
    e->list[i] = (struct env){name, value};
}

/* The clean base environment, what Weir itself has to say, and the pool's own: later ones win. (FC1-2.3-a) */
static void base_environment(struct environment *e, const struct weir_conf_pool *o)
{
    const struct passwd *pw = o->user ? getpwnam(o->user) : getpwuid(geteuid());
    static char home[256], user[64];
    snprintf(home, sizeof home, "%s", pw ? pw->pw_dir : "/");
    snprintf(user, sizeof user, "%s", pw ? pw->pw_name : "nobody");
    set(e, "PATH", "/usr/local/bin:/usr/bin:/bin");
    set(e, "LANG", "C.UTF-8");
    set(e, "HOME", home);
    set(e, "USER", user);
    set(e, "LOGNAME", user);
    set(e, "TMPDIR", "/tmp");
}

static void own_environment(struct environment *e, const struct weir_conf_pool *o)
{
    for (size_t i = 0; i < o->env_count; i++) set(e, o->env[i].name.ptr, o->env[i].value.ptr);
}

/* ---- the memfd ---- */

static bool put(struct weir_buf *b, const char *name, const char *value)
{
    size_t n = name ? strlen(name) : 0;
    if (n && (weir_buf_append(b, name, n) < 0 || weir_buf_append(b, "=", 1) < 0)) return false;
    return weir_buf_append(b, value, strlen(value) + 1) == WEIR_OK;
}

static int write_spec(const struct weir_conf_pool *o, const char *const *argv, size_t argc, const struct environment *e, uint32_t flags)
{
    struct weir_buf b = {0};
    struct root_spec head = {.version = ROOT_PROTO_VERSION, .argc = (uint32_t)argc, .envc = (uint32_t)e->count, .files = o->files, .flags = flags};
    bool fine = weir_buf_append(&b, &head, sizeof head) == WEIR_OK && put(&b, NULL, o->dir);
    for (size_t i = 0; fine && i < argc; i++) fine = put(&b, NULL, argv[i]);
    for (size_t i = 0; fine && i < e->count; i++) fine = put(&b, e->list[i].name, e->list[i].value);
    int fd = fine ? weir_link_memfd("weir-start", weir_buf_ptr(&b), weir_buf_len(&b)) : -1;
    weir_buf_fini(&b);
    return fd;
}

/* ---- php-fpm ---- */

/* A file without one of its lines may be valid, and lack a wall. */
struct lines {
    FILE *f;
    bool bad;
};

static void WEIR_PRINTF(2, 3) line(struct lines *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    l->bad |= vfprintf(l->f, fmt, ap) < 0;
    va_end(ap);
}

/* A line of php-fpm's file (kind[name] = value), or without kind of an ini file; config refuses what cannot be quoted. */
static void write_value(struct lines *l, const char *kind, const struct weir_pair *v)
{
    char quote = strchr(v->value.ptr, '\'') ? '"' : '\'';
    line(l, "%s%s%s%s = %c%s%c\n", kind ? kind : "", kind ? "[" : "", v->name.ptr, kind ? "]" : "", quote, v->value.ptr, quote);
}

static void write_values(struct lines *l, const char *kind, const struct weir_pair *list, size_t count)
{
    for (size_t i = 0; i < count; i++) write_value(l, kind, &list[i]);
}

static unsigned seconds(uint32_t ms)
{
    return ms ? (ms + 999) / 1000 : 0;
}

/* A file that the pool's user can open by /proc/self/fd. */
static int write_fpm_file(const struct weir_conf_pool *o, const char *socket, uint32_t least, uint32_t most)
{
    char *text = NULL;
    size_t len = 0;
    struct lines l = {.f = open_memstream(&text, &len)};
    if (!l.f) return -1;
    line(&l, "[global]\nerror_log = /proc/self/fd/2\nlog_level = warning\nlog_limit = 8192\ndaemonize = no\n");
    if (o->listen) line(&l, "process_control_timeout = %us\n", seconds(o->drain_ms));
    line(&l, "[%s]\nlisten = %s\n", o->name, socket);
    if (least == most) line(&l, "pm = static\n");
    else line(&l, "pm = ondemand\npm.process_idle_timeout = %us\n", o->keep ? 1 : seconds(o->idle_ms)); /* the gateway minds kept connections */
    line(&l, "pm.max_children = %u\ncatch_workers_output = yes\ndecorate_workers_output = no\nclear_env = no\n", most);
    if (o->recycle_requests) line(&l, "pm.max_requests = %u\n", o->recycle_requests);
    if (o->longest_ms) /* behind our own 504, also where the script goes on behind its answer; not a worker whose connection rests: that
                          counts, too, and the gateway closes it after `idle` and a second */
        line(&l, "request_terminate_timeout = %us\nrequest_terminate_timeout_track_finished = yes\n",
            seconds(o->longest_ms) + 5 + (o->keep ? seconds(o->idle_ms) + 2 : 0));
    if (o->slow_ms) line(&l, "slowlog = /proc/self/fd/2\nrequest_slowlog_timeout = %us\n", seconds(o->slow_ms));
    write_values(&l, "php_value", o->php_values, o->php_value_count);
    write_values(&l, "php_admin_value", o->php_admin_values, o->php_admin_value_count);
    l.bad |= fclose(l.f) != 0;
    int fd = l.bad ? -1 : weir_link_memfd("weir-fpm", text, len);
    free(text);
    return fd;
}

static bool make_fpm(const struct pool *p, const char *socket, const char *program, struct unit_spec *out)
{
    const struct weir_conf_pool *o = p->conf;
    struct environment e = {.count = 0};
    char sockets[160];
    const char *argv[] = {program, "-F", "-y", "/proc/self/fd/4"};
    snprintf(sockets, sizeof sockets, "%s=3", socket);
    base_environment(&e, o);
    own_environment(&e, o);
    set(&e, "FPM_SOCKETS", sockets);
    uint32_t least, most;
    pool_workers(p, &least, &most);
    out->config = write_fpm_file(o, socket, least, most);
    out->memfd = write_spec(o, argv, WEIR_COUNT(argv), &e, ROOT_SPEC_FPM | ROOT_SPEC_GROUP);
    out->workers = most;
    out->processes = most + 1;
    out->prove = true;
    out->forks = least < most;
    out->ahead = out->forks ? least : 0;
    return out->memfd >= 0 && out->config >= 0;
}

/* ---- php-cgi ---- */

/* Settings that scripts cannot raise: an ini file whose sections hold below the roots that this pool serves. */
static bool write_ini(const struct control *c, const struct pool *p, const char *dir)
{
    const struct weir_conf_pool *o = p->conf;
    char path[200], made[204]; /* in place at once: a process that starts just now reads it whole */
    snprintf(path, sizeof path, "%s/weir.ini", dir);
    snprintf(made, sizeof made, "%s.new", path);
    if (mkdir(dir, 0755) < 0 && errno != EEXIST) return false;
    struct lines l = {.f = fopen(made, "we")};
    if (!l.f) return false;
    write_values(&l, NULL, o->php_values, o->php_value_count);
    struct pool_root at = {0};
    for (const char *root; o->php_admin_value_count && (root = pool_next_root(c, p, &at));) {
        line(&l, "[PATH=%s]\n", root);
        write_values(&l, NULL, o->php_admin_values, o->php_admin_value_count);
    }
    l.bad |= fclose(l.f) != 0;
    return !l.bad && rename(made, path) == 0;
}

static bool make_php_cgi(const struct control *c, const struct pool *p, const char *program, struct unit_spec *out)
{
    const struct weir_conf_pool *o = p->conf;
    struct environment e = {.count = 0};
    char children[16], scan[200], dir[160];
    const char *argv[] = {program};
    bool group = pool_is_group(p);
    uint32_t least, most;
    pool_workers(p, &least, &most);
    snprintf(children, sizeof children, "%u", most);
    base_environment(&e, o);
    if (o->php_value_count || o->php_admin_value_count) {
        snprintf(dir, sizeof dir, "%.64s/control/ini.%.64s", c->o.run_dir, o->name);
        snprintf(scan, sizeof scan, ":%s", dir);
        if (!write_ini(c, p, dir)) return false;
        set(&e, "PHP_INI_SCAN_DIR", scan);
    }
    own_environment(&e, o);
    if (group) set(&e, "PHP_FCGI_CHILDREN", children);
    set(&e, "PHP_FCGI_MAX_REQUESTS", "0"); /* Weir recycles: a worker that leaves by itself loses requests */
    out->memfd = write_spec(o, argv, 1, &e, group ? ROOT_SPEC_GROUP : 0);
    out->workers = group ? most : 1;
    out->processes = group ? most + 1 : 1;
    return out->memfd >= 0;
}

/* ---- any program ---- */

static bool make_run(struct control *c, const struct pool *p, struct unit_spec *out)
{
    const struct weir_conf_pool *o = p->conf;
    struct environment e = {.count = 0};
    char notify[160];
    base_environment(&e, o);
    if (!o->listen) set(&e, "WEIR_LISTEN", "private");
    if (o->notify) {
        if (notify_listen(c) < 0) return false;
        snprintf(notify, sizeof notify, "%.64s/control/notify", c->o.run_dir);
        set(&e, "NOTIFY_SOCKET", notify);
    }
    own_environment(&e, o);
    out->memfd = write_spec(o, o->argv, o->argc, &e, 0); /* FC1-2.1-a */
    out->workers = out->processes = 1;
    return out->memfd >= 0;
}

/* ---- plain CGI programs ---- */

#define CGI_FILES 5u /* descriptors of a program in its runner: three pipes, the process, and a connection of its own */
#define CGI_SPARE 64u

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The roots of the routes that lead here, each once. False: out of memory. */
static bool roots_of(const struct control *c, const struct pool *p, const char ***list, size_t *count)
{
    struct pool_root at = {0};
    size_t all = 0, n = 0;
    while (pool_next_root(c, p, &at)) all++;
    const char **roots = calloc(all + 1, sizeof *roots);
    if (!roots) return false;
    at = (struct pool_root){0};
    for (size_t i = 0; i < all; i++) roots[i] = pool_next_root(c, p, &at);
    qsort(roots, all, sizeof *roots, compare_text);
    for (size_t i = 0; i < all; i++)
        if (n == 0 || strcmp(roots[n - 1], roots[i]) != 0) roots[n++] = roots[i];
    *list = roots;
    *count = n;
    return true;
}

static bool make_cgi(const struct control *c, const struct pool *p, const char *runner, struct unit_spec *out)
{
    struct weir_conf_pool mine = *p->conf; /* of the runner; programs have the pool's own number of files */
    struct environment e = {.count = 0};
    char workers[16], files[16], behind[16];
    const char *const first[] = {runner, "--workers", workers, "--files", files, "--behind", behind}, **roots = NULL;
    uint32_t least;
    size_t argc = WEIR_COUNT(first), root_count = 0;
    if (!mine.argc && !roots_of(c, p, &roots, &root_count)) return false;
    const char **argv = calloc(argc + root_count * 2 + 1 + mine.argc, sizeof *argv);
    if (!argv) {
        free(roots);
        return false;
    }
    memcpy(argv, first, sizeof first);
    pool_workers(p, &least, &mine.workers);
    snprintf(workers, sizeof workers, "%u", mine.workers);
    snprintf(files, sizeof files, "%u", mine.files);
    snprintf(behind, sizeof behind, "%u", mine.request_ms);
    mine.files = mine.workers * CGI_FILES + CGI_SPARE;
    for (size_t i = 0; i < root_count; i++) {
        argv[argc++] = "--root";
        argv[argc++] = roots[i];
    }
    argv[argc++] = "--";
    for (size_t i = 0; i < mine.argc; i++) argv[argc++] = mine.argv[i];
    base_environment(&e, p->conf);
    set(&e, "WEIR_LISTEN", "private");
    own_environment(&e, p->conf);
    out->memfd = write_spec(&mine, argv, argc, &e, 0);
    free(argv);
    free(roots);
    out->workers = 1;
    out->processes = mine.workers + 1;
    return out->memfd >= 0;
}

bool spec_make(struct control *c, const struct pool *p, const char *socket, struct unit_spec *out)
{
    const struct weir_conf_pool *o = p->conf;
    char program[64];
    bool fine;
    *out = (struct unit_spec){.memfd = -1, .config = -1, .why = "out of descriptors or memory"};
    if (o->kind == WEIR_POOL_RUN) {
        fine = make_run(c, p, out);
    } else if (o->kind == WEIR_POOL_CGI) {
        char runner[PATH_MAX];
        if (!weir_config_own_program("weir-cgi", runner, sizeof runner)) {
            out->why = "weir-cgi does not lie beside weir";
            return false;
        }
        fine = make_cgi(c, p, runner, out);
    } else {
        enum weir_conf_php php = weir_config_php(o->php, o->php_version, program, sizeof program);
        if (php == WEIR_PHP_ANY) {
            static char why[96];
            const char *version = o->php_version ? o->php_version : "";
            snprintf(why, sizeof why, o->php == WEIR_PHP_CGI ? "php-cgi%.20s is not installed" : "neither php-fpm%.20s nor php-cgi%.20s is installed", version, version);
            out->why = why;
            return false;
        }
        fine = php == WEIR_PHP_FPM ? make_fpm(p, socket, program, out) : make_php_cgi(c, p, program, out);
    }
    if (fine) return true;
    weir_link_close((int[]){out->memfd, out->config}, 2);
    return false;
}

/* SPDX-License-Identifier: MIT */
/* Files that may change while Weir runs, by inotify on their folders: the deny file, the configuration, what pools watch. All
 * watches are made anew with each configuration. What follows from a change is done a moment after the last event. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"

#define FOLDERS_MAX 4096 /* that are watched */
#define DEPTH_MAX   32
#define EVENTS      (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB | IN_ONLYDIR)

struct user { /* whom a change in this folder concerns */
    enum files_kind kind;
    char pool[65];
    char *name; /* of the one file; NULL: all of the folder, and of folders in it */
    struct user *next;
};
struct folder {
    struct weir_table_node node; /* by wd */
    int wd;
    char *path;
    struct user *users;
};

static struct folder *find(const struct files *f, int wd)
{
    for (struct weir_table_node *n = weir_table_find(&f->folders, weir_hash_u64((uint64_t)wd)); n; n = weir_table_more(n))
        if (WEIR_CONTAINER(n, struct folder, node)->wd == wd) return WEIR_CONTAINER(n, struct folder, node);
    return NULL;
}

static void forget(struct files *f, struct folder *d)
{
    weir_table_remove(&f->folders, &d->node);
    for (struct user *u = d->users, *next; u; u = next) {
        next = u->next;
        free(u->name);
        free(u);
    }
    free(d->path);
    free(d);
}

static void forget_all(struct files *f)
{
    for (size_t i = 0; f->folders.slots && i <= f->folders.mask; i++)
        while (f->folders.slots[i]) forget(f, WEIR_CONTAINER(f->folders.slots[i], struct folder, node));
}

/* ---- watching ---- */

static struct folder *watch_folder(struct control *c, const char *path)
{
    struct files *f = &c->files;
    if (f->w.fd < 0) return NULL;
    int wd = inotify_add_watch(f->w.fd, path, EVENTS);
    if (wd < 0) {
        if (!f->full || errno != ENOSPC) say("changes in %s are not seen: %s", path, errno == ENOSPC ? "this machine watches no more folders (sysctl fs.inotify.max_user_watches)" : strerror(errno));
        f->full |= errno == ENOSPC;
        return NULL;
    }
    struct folder *d = find(f, wd);
    if (d) return d;
    if (f->folders.count >= FOLDERS_MAX) {
        inotify_rm_watch(f->w.fd, wd);
        if (!f->full) say("%d folders are watched: changes in %s and others are not seen: name fewer of them", FOLDERS_MAX, path);
        f->full = true;
        return NULL;
    }
    d = calloc(1, sizeof *d);
    if (d) d->wd = wd;
    if (d && (d->path = strdup(path)) && weir_table_put(&f->folders, &d->node, weir_hash_u64((uint64_t)wd)) == WEIR_OK) return d;
    inotify_rm_watch(f->w.fd, wd);
    if (d) free(d->path);
    free(d);
    return NULL;
}

static void add_user(struct folder *d, enum files_kind kind, const char *pool, const char *name)
{
    for (const struct user *u = d->users; u; u = u->next)
        if (u->kind == kind && strcmp(u->pool, pool) == 0 && (!u->name) == (!name) && (!name || strcmp(u->name, name) == 0)) return;
    struct user *u = calloc(1, sizeof *u);
    if (!u || (name && !(u->name = strdup(name)))) {
        free(u);
        return;
    }
    u->kind = kind;
    snprintf(u->pool, sizeof u->pool, "%s", pool);
    u->next = d->users;
    d->users = u;
}

/* What editors and programs leave beside what people write. */
static bool is_noise(const char *name)
{
    size_t n = strlen(name);
    static const char *const endings[] = {"~", ".tmp", ".swp", ".pyc", ".part"}, *const names[] = {"4913", "__pycache__", "node_modules"};
    if (n == 0 || name[0] == '.' || name[0] == '#') return true;
    for (size_t i = 0; i < WEIR_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) return true;
    for (size_t i = 0; i < WEIR_COUNT(endings); i++)
        if (n >= strlen(endings[i]) && strcmp(name + n - strlen(endings[i]), endings[i]) == 0) return true;
    return false;
}

static bool is_folder(const char *path, bool follow)
{
    struct stat st;
    return (follow ? stat(path, &st) : lstat(path, &st)) == 0 && S_ISDIR(st.st_mode);
}

static void watch_tree(struct control *c, const char *path, const char *pool, unsigned depth)
{
    struct folder *d = depth < DEPTH_MAX ? watch_folder(c, path) : NULL;
    DIR *list = d ? opendir(path) : NULL;
    if (d) add_user(d, FILES_POOL, pool, NULL);
    for (struct dirent *e; list && (e = readdir(list));) {
        char sub[PATH_MAX];
        if (is_noise(e->d_name) || snprintf(sub, sizeof sub, "%s/%s", path, e->d_name) >= (int)sizeof sub) continue;
        if (e->d_type == DT_DIR || (e->d_type == DT_UNKNOWN && is_folder(sub, false))) watch_tree(c, sub, pool, depth + 1);
    }
    if (list) closedir(list);
}

/* One file, also if it comes only later. */
static void watch_file(struct control *c, const char *path, enum files_kind kind, const char *pool)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (!slash || snprintf(folder, sizeof folder, "%.*s", slash == path ? 1 : (int)(slash - path), path) >= (int)sizeof folder) return;
    struct folder *d = watch_folder(c, folder);
    if (d) add_user(d, kind, pool, slash + 1);
}

/* ---- with each configuration ---- */

static bool is_watched(const struct control *c, const struct weir_conf_pool *o)
{
    return o->kind != WEIR_POOL_CONNECT && (o->watch_count || c->o.watch);
}

/* Of a file of users; NULL: it is another one. */
static const char *users_path(const struct weir_config_source *s)
{
    size_t n = strlen(WEIR_CONFIG_USERS);
    return strncmp(s->name, WEIR_CONFIG_USERS, n) == 0 ? s->name + n : NULL;
}

/* Who changes a password expects it to hold: they are read again with the configuration. */
static void watch_users(struct control *c)
{
    for (size_t i = 0; i < c->sources.count; i++) {
        const char *path = users_path(&c->sources.list[i]);
        if (path) watch_file(c, path, FILES_CONFIG, "");
    }
}

static bool anything(const struct control *c)
{
    bool any = c->conf->deny_file || c->o.watch;
    for (size_t i = 0; i < c->sources.count && !any; i++) any = users_path(&c->sources.list[i]) != NULL;
    for (size_t i = 0; i < c->conf->pool_count && !any; i++) any = is_watched(c, &c->conf->pools[i]);
    return any;
}

/* Its program, and the files among its arguments: a script. */
static void watch_program(struct control *c, const struct weir_conf_pool *o)
{
    for (size_t i = 0; o->kind == WEIR_POOL_RUN && i < o->argc; i++) {
        char path[PATH_MAX];
        struct stat st;
        int n = o->argv[i][0] == '/' ? snprintf(path, sizeof path, "%s", o->argv[i]) : snprintf(path, sizeof path, "%s/%s", o->dir, o->argv[i]);
        if (n >= (int)sizeof path || (i && (stat(path, &st) < 0 || !S_ISREG(st.st_mode)))) continue;
        watch_file(c, path, FILES_POOL, o->name);
    }
}

static void watch_pool(struct control *c, const struct weir_conf_pool *o)
{
    if (!is_watched(c, o)) return;
    watch_program(c, o);
    for (size_t i = 0; i < o->watch_count; i++) {
        watch_file(c, o->watch[i], FILES_POOL, o->name); /* also a folder: it may be replaced as a whole */
        if (is_folder(o->watch[i], true)) watch_tree(c, o->watch[i], o->name, 0);
    }
}

/* Of a folder that is served: its apps come and go. */
static void watch_config(struct control *c)
{
    struct folder *d = c->o.dir ? watch_folder(c, c->o.dir) : NULL;
    if (d) add_user(d, FILES_CONFIG, "", NULL);
    for (size_t i = 0; i < c->sources.count && !c->o.dir; i++)
        if (c->sources.list[i].name[0] == '/') watch_file(c, c->sources.list[i].name, FILES_CONFIG, "");
}

void files_begin(struct control *c)
{
    struct files *f = &c->files;
    if (f->w.fd >= 0) watch_end(c, &f->w, false);
    forget_all(f);
    f->full = false;
    f->deny_ms = f->config_ms = 0;
    if (!anything(c)) return;
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0 || watch_add(c, &f->w, WATCH_FILES, fd) < 0) {
        say("changes of files are not seen: %s", strerror(errno));
        return;
    }
    if (c->conf->deny_file) watch_file(c, c->conf->deny_file, FILES_DENY, "");
    for (size_t i = 0; i < c->conf->pool_count; i++) watch_pool(c, &c->conf->pools[i]);
    watch_users(c);
    if (c->o.watch) watch_config(c);
}

void files_free(struct control *c)
{
    if (c->files.w.fd >= 0) watch_end(c, &c->files.w, false);
    forget_all(&c->files);
    weir_table_fini(&c->files.folders);
}

/* ---- events ---- */

static void pool_changed(struct control *c, struct pool *p)
{
    p->changed_ms = now_ms();
    pool_touch(c, p);
}

static bool is_app(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".fcgi") == 0;
}

/* bits: of the event. */
static void on_change(struct control *c, const struct user *u, const char *name, uint32_t bits)
{
    struct pool *p = u->kind == FILES_POOL ? pool_find(c, u->pool) : NULL;
    if (p) pool_changed(c, p);
    if (u->kind == FILES_DENY) c->files.deny_ms = now_ms() + FILES_MS;
    if (u->kind != FILES_CONFIG) return;
    char pool[NAME_MAX + 1];
    snprintf(pool, sizeof pool, "%s", name);
    if (is_app(name)) pool[strlen(name) - 5] = 0;
    bool there = pool_find(c, pool) != NULL;
    if (u->name || (is_app(name) && (!there || bits & (IN_DELETE | IN_MOVED_FROM)))) c->files.config_ms = now_ms() + FILES_MS;
}

/* Something was lost: all may have changed. */
static void on_overflow(struct control *c)
{
    c->files.deny_ms = c->conf->deny_file ? now_ms() + FILES_MS : 0;
    for (size_t i = 0; i < c->sources.count; i++)
        if (users_path(&c->sources.list[i])) c->files.config_ms = now_ms() + FILES_MS;
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (p->conf && is_watched(c, p->conf)) pool_changed(c, p);
    }
}

static void on_new_folder(struct control *c, const struct folder *d, const char *name)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", d->path, name) >= (int)sizeof path || !is_folder(path, false)) return;
    for (const struct user *u = d->users; u; u = u->next)
        if (u->kind == FILES_POOL && (u->name ? strcmp(u->name, name) == 0 : !is_noise(name))) watch_tree(c, path, u->pool, 0);
}

static void take_event(struct control *c, const struct inotify_event *ev)
{
    struct folder *d = find(&c->files, ev->wd);
    const char *name = ev->len ? ev->name : "";
    if (!d) return;
    if (ev->mask & IN_IGNORED) { /* it was removed */
        forget(&c->files, d);
        return;
    }
    if (ev->mask & IN_ISDIR && ev->mask & (IN_CREATE | IN_MOVED_TO)) on_new_folder(c, d, name);
    if (ev->mask & IN_CREATE && !(ev->mask & IN_ISDIR)) return; /* it says more when it is closed */
    for (const struct user *u = d->users; u; u = u->next) {
        bool served = u->kind == FILES_CONFIG && !u->name;
        if (ev->mask & IN_ATTRIB && !served) continue; /* a program may be copied first, and become one then */
        if (u->name ? strcmp(u->name, name) == 0 : !is_noise(name)) on_change(c, u, name, ev->mask);
    }
}

void files_event(struct control *c)
{
    union {
        struct inotify_event ev;
        char bytes[16384];
    } buf;
    ssize_t n = read(c->files.w.fd, buf.bytes, sizeof buf.bytes);
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *ev = (const void *)(buf.bytes + at);
        if (ev->mask & IN_Q_OVERFLOW) on_overflow(c);
        else take_event(c, ev);
        at += (ssize_t)(sizeof *ev + ev->len);
    }
}

void files_ask(struct control *c)
{
    c->files.asked = true;
    root_send(c, &(struct root_msg){.kind = ROOT_READ}, NULL, 0); /* its file may be root's alone */
}

static void read_config(struct control *c)
{
    c->files.config_ms = 0;
    if (c->o.dir) {
        reload_begin(c, -1, false, true);
        return;
    }
    files_ask(c);
}

void files_clock(struct control *c)
{
    if (c->files.config_ms && now_ms() >= c->files.config_ms) read_config(c);
    if (c->files.deny_ms && now_ms() >= c->files.deny_ms) {
        c->files.deny_ms = 0;
        denied_file_read(c);
    }
}

int64_t files_next_ms(const struct control *c)
{
    int64_t at = c->files.deny_ms, left;
    if (c->files.config_ms && (!at || c->files.config_ms < at)) at = c->files.config_ms;
    if (!at) return -1;
    left = at - now_ms();
    return left > 0 ? left : 0;
}

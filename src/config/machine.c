/* SPDX-License-Identifier: MIT */
/* Checks of a configuration against this machine: users, programs, folders, rights. */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/internal.h"

/* Is the group one of the user's, by the machine's files? */
static bool in_group(const struct passwd *pw, gid_t gid)
{
    gid_t list[256];
    int count = (int)WEIR_COUNT(list);
    if (pw->pw_gid == gid) return true;
    if (getgrouplist(pw->pw_name, pw->pw_gid, list, &count) < 0) count = (int)WEIR_COUNT(list);
    for (int i = 0; i < count; i++)
        if (list[i] == gid) return true;
    return false;
}

/* May this user? bits: of S_IRWXO. By mode bits. */
static bool may(const struct passwd *pw, const struct stat *st, mode_t bits)
{
    mode_t group = st->st_mode >> 3 & bits, others = st->st_mode & bits;
    if (st->st_uid == pw->pw_uid) return (st->st_mode >> 6 & bits) == bits;
    return (group != others && in_group(pw, st->st_gid) ? group : others) == bits; /* equal: the groups need not be known */
}

/* May this user pass through every folder above (and into) path? Tells the first one that bars it. */
static bool may_enter(const char *path, const struct passwd *pw, char *bar, size_t bar_len)
{
    for (size_t i = 1; i <= strlen(path); i++) {
        struct stat st;
        if (path[i] != '/' && path[i] != 0) continue;
        snprintf(bar, bar_len, "%.*s", (int)i, path);
        if (stat(bar, &st) < 0) return errno != EACCES;
        if (S_ISDIR(st.st_mode) && !may(pw, &st, S_IXOTH)) return false;
    }
    return true;
}

static void check_enter(struct weir_config_report *r, enum weir_config_level level, const struct weir_config_place *at, const char *path, const struct passwd *pw)
{
    char bar[PATH_MAX];
    if (!pw || pw->pw_uid == 0) return;
    if (!may_enter(path, pw, bar, sizeof bar))
        config_say_at(r, level, at, "open it with chmod o+x, or move what is in it", "the user %s cannot enter the folder %s", pw->pw_name, bar);
}

static bool php_program(const char *pattern, const char *version, char *out, size_t len)
{
    static const char *const installed[] = {"8.4", "8.3", "8.2", "8.1", "8.0", "7.4"};
    for (size_t i = 0; !version && i < WEIR_COUNT(installed); i++) {
        snprintf(out, len, "%s%s", pattern, installed[i]);
        if (access(out, X_OK) == 0) return true;
    }
    snprintf(out, len, "%s%s", pattern, version ? version : "");
    return access(out, X_OK) == 0;
}

enum weir_conf_php weir_config_php(enum weir_conf_php which, const char *version, char *out, size_t len)
{
    if (which != WEIR_PHP_CGI && php_program("/usr/sbin/php-fpm", version, out, len)) return WEIR_PHP_FPM;
    if (which != WEIR_PHP_FPM && php_program("/usr/bin/php-cgi", version, out, len)) return WEIR_PHP_CGI;
    return WEIR_PHP_ANY;
}

bool weir_config_own_program(const char *name, char *out, size_t len)
{
    static const char *const places[] = {"../supervise", "../runner", "../libexec/weir", "."};
    char self[PATH_MAX], path[PATH_MAX * 2], found[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = 0;
    char *slash = strrchr(self, '/');
    if (slash) *slash = 0;
    for (size_t i = 0; slash && i < WEIR_COUNT(places); i++) {
        snprintf(path, sizeof path, "%s/%s/%s", self, places[i], name);
        if (access(path, X_OK) == 0 && realpath(path, found)) return snprintf(out, len, "%s", found) < (int)len;
    }
    return false;
}

/* Where a program may be that is not there: one without its path is taken to lie in `dir`. */
static const char *elsewhere(const char *path, const char *dir, char *advice, size_t room)
{
    static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/bin"};
    const char *name = strrchr(path, '/');
    char at[PATH_MAX];
    bool bare = name && dir && strlen(dir) == (size_t)(name - path) && strncmp(dir, path, strlen(dir)) == 0;
    for (size_t i = 0; bare && i < WEIR_COUNT(dirs); i++) {
        snprintf(at, sizeof at, "%s%s", dirs[i], name);
        if (access(at, X_OK) < 0) continue;
        snprintf(advice, room, "programs are not searched for: write its whole path, such as %.24s%.64s", dirs[i], name);
        return advice;
    }
    return "check its path";
}

static void check_pool(const struct weir_conf_pool *o, bool as_root, struct weir_config_report *r)
{
    char program[64], runner[PATH_MAX], advice[192];
    if (o->kind == WEIR_POOL_CONNECT || (o->kind == WEIR_POOL_RUN && !o->argc)) return;
    struct passwd *pw = o->user ? getpwnam(o->user) : NULL;
    if (o->user && !pw) config_say_at(r, WEIR_CONFIG_ERROR, &o->place, "create it with useradd, or name another", "pool %s: there is no user %s", o->name, o->user);
    if (!o->user && as_root)
        config_say_at(r, WEIR_CONFIG_ERROR, &o->place, "write user NAME in it", "pool %s runs programs as root", o->name);
    if (pw && pw->pw_uid == 0 && as_root)
        config_say_at(r, WEIR_CONFIG_ERROR, &o->place, "name a user with few rights", "pool %s runs programs as root", o->name);
    if (o->kind == WEIR_POOL_PHP) {
        if (weir_config_php(o->php, o->php_version, program, sizeof program) == WEIR_PHP_ANY) {
            const char *what = o->php == WEIR_PHP_CGI ? "php-cgi" : "php-fpm";
            snprintf(advice, sizeof advice, "apt-get install php%s%s", o->php_version ? o->php_version : "", what + 3);
            config_say_at(r, WEIR_CONFIG_ERROR, &o->place, advice, "pool %s: %s%s is not installed", o->name, what, o->php_version ? o->php_version : "");
        }
        return;
    }
    if (o->kind == WEIR_POOL_CGI && !weir_config_own_program("weir-cgi", runner, sizeof runner))
        config_say_at(r, WEIR_CONFIG_ERROR, &o->place, "install it from the same build", "pool %s: weir-cgi does not lie beside weir", o->name);
    struct stat st;
    if (!o->argc) return; /* what requests name is seen when they come */
    if (stat(o->argv[0], &st) < 0)
        config_say_at(r, WEIR_CONFIG_ERROR, &o->place, elsewhere(o->argv[0], o->dir, advice, sizeof advice), "pool %s: there is no program %s", o->name, o->argv[0]);
    else if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
        config_say_at(r, WEIR_CONFIG_ERROR, &o->place, "make it executable with chmod +x", "pool %s: %s is not executable", o->name, o->argv[0]);
    else if (as_root) check_enter(r, WEIR_CONFIG_ERROR, &o->place, o->argv[0], pw);
}

static bool loopback(const char *address)
{
    return strncmp(address, "fastcgi://127.", 14) == 0 || strncmp(address, "fastcgi://[::1]", 15) == 0;
}

/* A server that others own: may the gateway speak to it? One that is not there may come. */
static void check_endpoint(const struct weir_conf_pool *o, const char *address, const struct passwd *gateway, struct weir_config_report *r)
{
    struct stat st;
    char advice[192];
    if (strncmp(address, "fastcgi://", 10) == 0 && !loopback(address))
        config_say_at(r, WEIR_CONFIG_WARNING, &o->place, "whoever is on the way can read and change it", "pool %s: %s is plain text off this machine", o->name, address);
    if (strncmp(address, "unix:/", 6) != 0 || !gateway->pw_uid || stat(address + 5, &st) < 0) return;
    const struct group *gr = st.st_mode & S_IWGRP ? getgrgid(st.st_gid) : NULL;
    if (!S_ISSOCK(st.st_mode)) {
        config_say_at(r, WEIR_CONFIG_WARNING, &o->place, "check the path", "pool %s: %s is no socket", o->name, address + 5);
    } else if (may(gateway, &st, S_IWOTH)) {
        check_enter(r, WEIR_CONFIG_WARNING, &o->place, address + 5, gateway);
    } else {
        snprintf(advice, sizeof advice, gr ? "usermod -a -G %.64s %.64s, and restart weir" : "whoever makes it decides about its mode", gr ? gr->gr_name : "", gateway->pw_name);
        config_say_at(r, WEIR_CONFIG_WARNING, &o->place, advice, "pool %s: the user %s may not connect to %s", o->name, gateway->pw_name, address + 5);
    }
}

static void check_listener(const struct weir_conf_listener *l, struct weir_config_report *r)
{
    if (l->group && !getgrnam(l->group))
        config_say_at(r, WEIR_CONFIG_ERROR, &l->place, "create it with groupadd, or name another", "listener %s: there is no group %s", l->name, l->group);
    for (size_t i = 0; i < l->allow_count; i++)
        if (l->allow[i].user && !getpwnam(l->allow[i].user))
            config_say_at(r, WEIR_CONFIG_ERROR, &l->place, "create it with useradd, or name another", "listener %s: there is no user %s", l->name, l->allow[i].user);
}

static void check_role(const struct weir_conf_role *o, struct weir_config_report *r)
{
    char advice[96];
    bool group = getgrnam(o->name) != NULL;
    if (o->who == WEIR_WHO_OWNER || (o->who == WEIR_WHO_GROUP ? group : getpwnam(o->name) != NULL)) return;
    snprintf(advice, sizeof advice, o->who == WEIR_WHO_USER && group ? "write %%%.40s for the group" : "check the name", o->name);
    config_say_at(r, WEIR_CONFIG_WARNING, &o->place, advice, "there is no %s %.40s", o->who == WEIR_WHO_GROUP ? "group" : "user", o->name);
}

/* Folders that a route names. who: opens them. */
static void check_folders(const struct weir_config_place *at, const char *const *list, size_t count, const char *what, const struct passwd *who, struct weir_config_report *r)
{
    struct stat st;
    for (size_t i = 0; i < count; i++) {
        if (stat(list[i], &st) < 0 || !S_ISDIR(st.st_mode)) config_say_at(r, WEIR_CONFIG_WARNING, at, "create it, or check the path", "%s: %s is no folder", what, list[i]);
        else check_enter(r, WEIR_CONFIG_WARNING, at, list[i], who);
    }
}

/* Can `who` (root: whoever runs this) write the log, or make it? */
static void check_log(const struct weir_config *c, const char *what, const char *path, const struct passwd *who, struct weir_config_report *r)
{
    char folder[PATH_MAX], advice[192];
    struct stat st;
    if (!path || path[0] != '/') return;
    size_t len = (size_t)(strrchr(path, '/') - path);
    snprintf(folder, sizeof folder, "%.*s", len ? (int)len : 1, path);
    const char *at = path;
    mode_t bits = S_IWOTH;
    if (stat(path, &st) < 0) {
        if (errno == EACCES) return; /* not for us to see */
        at = folder;
        bits |= S_IXOTH;
    }
    bool there = at == path || stat(folder, &st) == 0;
    if (!there || (at == folder && !S_ISDIR(st.st_mode))) {
        snprintf(advice, sizeof advice, "create it: install -d%s%.64s %.100s", who->pw_uid ? " -o " : "", who->pw_uid ? who->pw_name : "", folder);
        config_say_at(r, WEIR_CONFIG_WARNING, &c->place, advice, "%s %.500s: there is no folder %.500s", what, path, folder);
    } else if (who->pw_uid ? !may(who, &st, bits) : access(at, W_OK) < 0) {
        config_say_at(r, WEIR_CONFIG_WARNING, &c->place, "name a folder that it may write", "%s %.500s: %.64s may not write %.500s", what, path,
            who->pw_uid ? who->pw_name : "this user", at);
    } else {
        check_enter(r, WEIR_CONFIG_WARNING, &c->place, folder, who);
    }
}

static bool is_there(const char *path)
{
    struct stat st;
    return !path[0] || stat(path, &st) == 0 || errno == EACCES;
}

static void check_key(const struct weir_conf_key *k, struct weir_config_report *report)
{
    char files[2][WEIR_CONFIG_KEY_FILES][4096];
    size_t sets = weir_config_key_files(k, files);
    for (size_t i = 0; i < sets; i++)
        if (is_there(files[i][0]) && is_there(files[i][1])) return;
    if (sets == 1) config_say_at(report, WEIR_CONFIG_ERROR, &k->place, "check the path", "there is no file %.500s", files[0][is_there(files[0][0])]);
    else if (sets) config_say_at(report, WEIR_CONFIG_ERROR, &k->place, "check the path, or write both: tls CERTIFICATE KEY", "there is neither %.500s nor %.500s, or not its key", files[0][0], files[1][0]);
}

void weir_config_check_keys(const struct weir_config *c, struct weir_config_report *report)
{
    for (size_t i = 0; i < c->key_count; i++) {
        bool named = false; /* else a listener's folder may have it */
        for (size_t k = 0; k < c->site_count && !named; k++) named = c->sites[k].tls == (int)i || c->sites[k].clients == (int)i;
        if (named) check_key(&c->keys[i], report);
    }
}

static bool check_root(const struct weir_conf_route *r, struct weir_config_report *report)
{
    struct stat st;
    int bad = stat(r->root, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    if (bad)
        config_say_at(report, WEIR_CONFIG_ERROR, &r->place, bad == EACCES ? "open it with chmod o+x" : "create it, or check the path",
            bad == EACCES ? "the root %s may not be looked into" : "the root %s is no folder", r->root);
    return !bad;
}

/* Of a site's number k: a root, and not the one that the route before it has, too. */
static bool brings_root(const struct weir_conf_site *s, size_t k)
{
    return s->routes[k].root && (k == 0 || s->routes[k - 1].root != s->routes[k].root);
}

static const struct weir_conf_site *site_named(const struct weir_config *c, const char *name)
{
    for (size_t i = 0; i < c->site_count; i++)
        if (c->sites[i].name_count && strcmp(c->sites[i].names[0], name) == 0) return &c->sites[i];
    return NULL;
}

static bool has_root(const struct weir_conf_site *s, const char *root)
{
    for (size_t k = 0; k < s->route_count; k++)
        if (s->routes[k].root && strcmp(s->routes[k].root, root) == 0) return true;
    return false;
}

bool weir_config_check_roots(const struct weir_config *c, const struct weir_config *before, const char *main_file, struct weir_config_report *report)
{
    bool fine = true;
    for (size_t i = 0; i < c->site_count; i++) {
        const struct weir_conf_site *s = &c->sites[i];
        if (s->same) continue;
        const struct weir_conf_site *old = s->name_count ? site_named(before, s->names[0]) : NULL;
        for (size_t k = 0; k < s->route_count; k++) {
            const struct weir_conf_route *r = &s->routes[k];
            if (!brings_root(s, k)) continue;
            bool counts = old ? !has_root(old, r->root) : strcmp(r->place.file, main_file) == 0;
            if (counts && !check_root(r, report)) fine = false;
        }
    }
    return fine;
}

/* getpwnam's own one does not last. Nobody, or not there: root. */
static void keep_user(struct passwd *out, char name[static 64], const char *of)
{
    const struct passwd *pw = of ? getpwnam(of) : NULL;
    *out = (struct passwd){.pw_name = name};
    if (!pw) return;
    out->pw_uid = pw->pw_uid;
    out->pw_gid = pw->pw_gid;
    snprintf(name, 64, "%s", pw->pw_name);
}

void weir_config_check_machine(const struct weir_config *c, bool as_root, struct weir_config_report *report)
{
    char names[2][64] = {"", ""};
    struct passwd control, gateway;
    keep_user(&control, names[0], as_root ? c->user : NULL);
    keep_user(&gateway, names[1], as_root ? c->gateway_user : NULL);
    const char *const own[] = {c->user, c->gateway_user};
    for (size_t i = 0; as_root && i < WEIR_COUNT(own); i++) {
        const struct passwd *pw = getpwnam(own[i]);
        if (!pw || pw->pw_uid == 0)
            config_say_at(report, WEIR_CONFIG_ERROR, &c->place, "create it with useradd --system, or name another in weir { user CONTROL GATEWAY }",
                pw ? "%s is root" : "there is no user %s for Weir itself", own[i]);
    }
    for (size_t i = 0; i < c->role_count; i++) check_role(&c->roles[i], report);
    struct rlimit limit;
    for (size_t i = 0; i < c->pool_count; i++) {
        const struct weir_conf_pool *o = &c->pools[i];
        if (o->same) continue;
        check_pool(o, as_root, report);
        for (size_t k = 0; k < o->endpoint_count; k++) check_endpoint(o, o->endpoints[k].address, &gateway, report);
    }
    check_log(c, "log", c->log_path, &gateway, report);
    check_log(c, "app-log", c->app_log, &control, report);
    for (size_t i = 0; i < c->listener_count; i++) check_listener(&c->listeners[i], report);
    for (size_t i = 0; i < c->site_count; i++) {
        const struct weir_conf_site *s = &c->sites[i];
        for (size_t k = 0; k < s->route_count && !s->same; k++) {
            const char *root = s->routes[k].root;
            const struct weir_conf_pool *o = s->routes[k].pool >= 0 ? &c->pools[s->routes[k].pool] : NULL;
            if (o && o->kind == WEIR_POOL_CGI && !o->argc && !root)
                config_say_at(report, WEIR_CONFIG_ERROR, &s->routes[k].place, "write root DIR here or in the site, or name the program in the pool",
                    "pool %s runs what lies below the root, and there is none", o->name);
            if (s->routes[k].filter >= 0 && !root)
                config_say_at(report, WEIR_CONFIG_ERROR, &s->routes[k].place, "write root DIR here or in the site",
                    "files go through pool %s, and there is no root with files", c->pools[s->routes[k].filter].name);
            if (k == 0 || s->routes[k - 1].links != s->routes[k].links) check_folders(&s->routes[k].place, s->routes[k].links, s->routes[k].link_count, "links", &gateway, report);
            if (k == 0 || s->routes[k - 1].send_files != s->routes[k].send_files) check_folders(&s->routes[k].place, s->routes[k].send_files, s->routes[k].send_file_count, "send-file", &gateway, report);
            if (brings_root(s, k) && check_root(&s->routes[k], report)) check_enter(report, WEIR_CONFIG_ERROR, &s->routes[k].place, root, &gateway);
        }
    }
    config_lint(c, report);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max != RLIM_INFINITY && c->connections + 256u > limit.rlim_max) {
        config_say_at(report, WEIR_CONFIG_WARNING, &c->place, "raise LimitNOFILE, or lower connections", "only %llu open files are allowed, fewer than the connections", (unsigned long long)limit.rlim_max);
    }
}

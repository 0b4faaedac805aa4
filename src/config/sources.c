/* SPDX-License-Identifier: MIT */
/* Sources: the texts of a configuration, from files, from a folder (weir serve DIR), or out of one block of bytes. The only
 * file of config that reads files. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config/internal.h"

void weir_config_sources_free(struct weir_config_sources *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->list[i].name);
        free(s->list[i].text);
        free(s->list[i].dir);
        free(s->list[i].problem);
    }
    for (size_t i = 0; i < s->home_count; i++) {
        free(s->homes[i].user);
        free(s->homes[i].home);
    }
    free(s->list);
    free(s->homes);
    *s = (struct weir_config_sources){0};
}

void weir_config_source_lose(struct weir_config_source *s)
{
    if (s->text) s->text[0] = 0;
    s->len = 0;
    free(s->problem);
    s->problem = NULL;
    s->lost = true;
}

/* ---- files ---- */

struct reading {
    const struct weir_config_sources *old; /* NULL: none */
    size_t at, found;                      /* in old: the next one is expected there; how many were found */
    struct weir_config_sources *out;
    char parent[PATH_MAX], real[PATH_MAX]; /* the last folder, and where it really is */
    bool tenants; /* the files that are read now are tenants' */
};

static char *dir_of(const char *name)
{
    char full[PATH_MAX];
    if (!realpath(name, full)) {
        if (name[0] == '/') snprintf(full, sizeof full, "%s", name);
        else if (!getcwd(full, sizeof full - 1)) return strdup("/");
        else return strdup(full);
    }
    char *slash = strrchr(full, '/');
    if (slash && slash != full) *slash = 0;
    else full[1] = 0;
    return strdup(full);
}

/* The same, where the file itself is no link: its folder is looked up once for all files in it. */
static char *dir_of_plain(struct reading *rd, const char *name)
{
    const char *slash = strrchr(name, '/');
    size_t len = slash ? (size_t)(slash - name) : 0;
    if (!len || len >= sizeof rd->parent) return dir_of(name);
    if (strncmp(rd->parent, name, len) != 0 || rd->parent[len]) {
        memcpy(rd->parent, name, len);
        rd->parent[len] = 0;
        if (!realpath(rd->parent, rd->real)) {
            rd->parent[0] = 0;
            return dir_of(name);
        }
    }
    return strdup(rd->real);
}

/* Takes text and dir, and gives the new source; NULL: memory. */
static struct weir_config_source *add(struct weir_config_sources *s, const char *name, char *dir, char *text, size_t len)
{
    struct weir_config_source *list = s->list;
    if ((s->count & (s->count - 1)) == 0) list = realloc(s->list, (s->count ? s->count * 2 : 1) * sizeof *list); /* 1, 2, 4, 8, ... */
    if (list) s->list = list;
    char *copy = list && dir && text ? strdup(name) : NULL;
    if (!copy) {
        free(dir);
        free(text);
        return NULL;
    }
    struct weir_config_source *o = &s->list[s->count++];
    *o = (struct weir_config_source){.name = copy, .dir = dir, .text = text, .len = len};
    return o;
}

static int cannot(struct weir_config_report *r, const char *name, const char *why)
{
    config_say_at(r, WEIR_CONFIG_ERROR, &(struct weir_config_place){name, 1, 1}, "check the path and its rights", "cannot be read: %s", why);
    return WEIR_SYSTEM;
}

/* All of a file; NULL: *why tells why not. */
static char *text_of(int fd, const struct stat *st, size_t *len, const char **why)
{
    if (!S_ISREG(st->st_mode)) {
        *why = "it is no regular file";
        return NULL;
    }
    if (st->st_size > (off_t)MAX_FILE) {
        *why = "it is larger than 1 MiB";
        return NULL;
    }
    char *text = malloc((size_t)st->st_size + 1);
    *why = "out of memory";
    *len = 0;
    while (text && *len < (size_t)st->st_size) {
        ssize_t n = pread(fd, text + *len, (size_t)st->st_size - *len, (off_t)*len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            *why = strerror(errno);
            free(text);
            return NULL;
        }
        if (n == 0) break;
        *len += (size_t)n;
    }
    if (text) text[*len] = 0;
    return text;
}

static int read_main(int fd, const char *name, struct weir_config_sources *out, struct weir_config_report *r)
{
    struct stat st;
    size_t len;
    const char *why;
    if (fstat(fd, &st) < 0) return cannot(r, name, strerror(errno));
    char *text = text_of(fd, &st, &len, &why);
    if (!text) return cannot(r, name, why);
    return add(out, name, dir_of(name), text, len) ? WEIR_OK : WEIR_NOMEM;
}

#define SETTLED_NS 1000000000 /* what changed so shortly before it was read may have changed again, with the same times */

static int64_t ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct weir_config_identity identity(const struct stat *st)
{
    struct timespec now;
    struct weir_config_identity id = {.device = st->st_dev, .inode = st->st_ino, .size = (uint64_t)st->st_size,
                                      .changed_ns = ns_of(st->st_ctim), .modified_ns = ns_of(st->st_mtim)};
    clock_gettime(CLOCK_REALTIME, &now);
    if (ns_of(now) - id.changed_ns < SETTLED_NS) id.inode = 0;
    return id;
}

static bool same_file(const struct weir_config_identity *id, const struct stat *st)
{
    return id->inode && id->inode == st->st_ino && id->device == st->st_dev && id->size == (uint64_t)st->st_size &&
           id->changed_ns == ns_of(st->st_ctim) && id->modified_ns == ns_of(st->st_mtim);
}

static const struct weir_config_source *old_source(struct reading *rd, const char *name)
{
    for (size_t i = 0, count = rd->old ? rd->old->count : 0; i < count; i++, rd->at++) { /* mostly in the same order */
        const struct weir_config_source *o = &rd->old->list[rd->at < count ? rd->at : (rd->at = 0)];
        if (strcmp(o->name, name) != 0) continue;
        rd->at++;
        rd->found++;
        return o;
    }
    return NULL;
}

static char *copy_of(const char *text, size_t len)
{
    char *to = malloc(len + 1);
    if (!to) return NULL;
    memcpy(to, text, len);
    to[len] = 0;
    return to;
}

/* A file that is there and cannot be read: parsing tells it, at its place. */
static int add_problem(struct reading *rd, const char *name, const char *why)
{
    struct weir_config_source *o = add(rd->out, name, dir_of(name), calloc(1, 1), 0);
    if (o) o->problem = strdup(why);
    return o && o->problem ? WEIR_OK : WEIR_NOMEM;
}

/* NULL, or why a tenant's file is not taken: whoever owns it could have written it. */
static const char *not_his(const char *name, const struct stat *st, char *out, size_t len)
{
    char user[CONFIG_TENANT_MAX];
    const struct passwd *pw = config_tenant_of(name, user, sizeof user) ? getpwnam(user) : NULL;
    if (!pw || st->st_uid == 0 || st->st_uid == geteuid() || st->st_uid == pw->pw_uid) return NULL;
    snprintf(out, len, "it belongs to neither root nor %s", user);
    return out;
}

static int read_again(struct reading *rd, const char *name, const struct weir_config_source *old, bool plain)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hold us */
    struct stat st;
    size_t len;
    const char *why = NULL;
    char *text = NULL, owner[128];
    if (fd < 0 || fstat(fd, &st) < 0) why = strerror(errno);
    else if (!rd->tenants || !(why = not_his(name, &st, owner, sizeof owner))) text = text_of(fd, &st, &len, &why);
    if (fd >= 0) close(fd);
    if (!text) return add_problem(rd, name, why);
    struct weir_config_source *o = add(rd->out, name, plain ? dir_of_plain(rd, name) : dir_of(name), text, len);
    if (!o) return WEIR_NOMEM;
    o->id = identity(&st);
    o->same = old && !old->lost && old->len == len && memcmp(old->text, text, len) == 0 && strcmp(old->dir, o->dir) == 0;
    return WEIR_OK;
}

static int read_one(struct reading *rd, const char *name)
{
    struct stat st;
    const struct weir_config_source *old = old_source(rd, name);
    bool there = lstat(name, &st) == 0, plain = there && !S_ISLNK(st.st_mode);
    if (there && !plain) there = stat(name, &st) == 0; /* where the link leads */
    if (!old || !there || !same_file(&old->id, &st)) return read_again(rd, name, old, plain);
    struct weir_config_source *o = add(rd->out, name, plain ? dir_of_plain(rd, name) : dir_of(name), copy_of(old->text, old->len), old->len);
    if (!o) return WEIR_NOMEM;
    o->id = old->id;
    o->same = strcmp(old->dir, o->dir) == 0;
    return WEIR_OK;
}

static int glob_error; /* a folder that is there and cannot be read: nobody may take it for an empty one */

static int on_glob_error(const char *path, int error)
{
    (void)path;
    if (error == ENOENT || error == ENOTDIR) return 0;
    glob_error = error;
    return 1;
}

static int read_pattern(struct reading *rd, const struct node *n, struct weir_config_report *r)
{
    char pattern[PATH_MAX];
    glob_t g;
    const char *w = n->words[1].text.ptr;
    int status = WEIR_OK;
    if (w[0] == '/') snprintf(pattern, sizeof pattern, "%s", w);
    else snprintf(pattern, sizeof pattern, "%s/%s", n->source->dir, strncmp(w, "./", 2) == 0 ? w + 2 : w);
    int found = glob(pattern, 0, on_glob_error, &g);
    if (found == GLOB_NOSPACE) return WEIR_NOMEM;
    if (found == GLOB_ABORTED) {
        config_say(r, WEIR_CONFIG_ERROR, n, 1, "check the rights of the folder", "\"%.200s\" cannot be looked up: %s", w, strerror(glob_error));
        return WEIR_SYSTEM;
    }
    if (found != 0) return WEIR_OK;
    for (size_t i = 0; i < g.gl_pathc && status == WEIR_OK; i++) status = read_one(rd, g.gl_pathv[i]);
    globfree(&g);
    return status;
}

static bool is_beside(const struct weir_config_source *s)
{
    return strncmp(s->name, PAGE_SOURCE, strlen(PAGE_SOURCE)) == 0 || strncmp(s->name, WEIR_CONFIG_USERS, strlen(WEIR_CONFIG_USERS)) == 0;
}

static void compare_main(const struct reading *rd)
{
    size_t files = 0;
    if (!rd->old || !rd->old->count) return;
    const struct weir_config_source *a = &rd->old->list[0];
    struct weir_config_source *b = &rd->out->list[0];
    b->same = a->len == b->len && memcmp(a->text, b->text, a->len) == 0 && strcmp(a->dir, b->dir) == 0;
    for (size_t i = 0; i < rd->old->count; i++) files += !is_beside(&rd->old->list[i]);
    rd->out->changed = !b->same || rd->found + 1 != files;
}

/* The files that the main one includes, in the order of their names. */
static int read_includes(const struct weir_config_sources *old, struct weir_config_sources *out, struct weir_config_report *r)
{
    struct reading rd = {.old = old, .out = out, .at = 1};
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct weir_arena tree = {0};
    struct weir_config_source main_source = out->list[0];
    int status = WEIR_OK;
    weir_config_report_init(&quiet);
    for (struct node *n = config_tree(&main_source, &tree, &quiet); n && status == WEIR_OK; n = n->next) {
        rd.tenants = node_is(n, "tenants");
        if (n->count == 2 && (rd.tenants || node_is(n, "include"))) status = read_pattern(&rd, n, r);
    }
    if (status == WEIR_OK) compare_main(&rd);
    weir_arena_fini(&tree);
    weir_config_report_fini(&quiet);
    return status;
}

/* ---- homes ---- */

bool config_find_home(const struct weir_config_sources *s, struct weir_str user, size_t *at)
{
    size_t from = 0, to = s->home_count;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        int order = strcmp(s->homes[mid].user, user.ptr);
        if (order == 0) {
            *at = mid;
            return true;
        }
        if (order < 0) from = mid + 1;
        else to = mid;
    }
    *at = from;
    return false;
}

/* Takes user and home. They stand in the order of the users. */
static int add_home(struct weir_config_sources *s, char *user, char *home)
{
    size_t at;
    bool twice = user && config_find_home(s, weir_cstr(user), &at);
    struct weir_config_home *grown = user && home && !twice ? realloc(s->homes, (s->home_count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(user);
        free(home);
        return twice ? WEIR_OK : WEIR_NOMEM;
    }
    s->homes = grown;
    memmove(grown + at + 1, grown + at, (s->home_count - at) * sizeof *grown);
    grown[at] = (struct weir_config_home){user, home};
    s->home_count++;
    return WEIR_OK;
}

int weir_config_take_homes(struct weir_config_sources *s, const struct weir_config_sources *old)
{
    int status = WEIR_OK;
    for (size_t i = 0; i < old->home_count && status == WEIR_OK; i++) status = add_home(s, strdup(old->homes[i].user), strdup(old->homes[i].home));
    return status;
}

static bool asks_for_homes(const struct weir_config_sources *s)
{
    for (size_t i = 0; i < s->count; i++)
        if ((i == 0 && memmem(s->list[i].text, s->list[i].len, "tenants", 7)) || memmem(s->list[i].text, s->list[i].len, "$home", 5) || memmem(s->list[i].text, s->list[i].len, "~/", 2)) return true;
    return false;
}

static int read_home(const struct weir_config_sources *old, struct weir_config_sources *s, const struct node *n, struct weir_str user)
{
    size_t at;
    if (!user.ptr || config_find_home(s, user, &at)) return WEIR_OK;
    if (old && n->source->same && config_find_home(old, user, &at)) return add_home(s, strdup(user.ptr), strdup(old->homes[at].home));
    const struct passwd *pw = getpwnam(user.ptr);
    return pw ? add_home(s, strdup(user.ptr), strdup(pw->pw_dir)) : WEIR_OK;
}

/* The homes of the pools' users, so that parsing touches no file. */
static int read_homes(const struct weir_config_sources *old, struct weir_config_sources *s)
{
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct parser p = {0};
    int status = WEIR_OK;
    if (!asks_for_homes(s)) return status;
    weir_config_report_init(&quiet);
    if (!config_gather(&p, s, &quiet)) status = WEIR_NOMEM;
    for (const struct node *n = p.first; n && status == WEIR_OK; n = n->next) {
        if (n->tenant) {
            status = read_home(old, s, n, weir_cstr(n->tenant));
        } else if (node_is(n, "pool")) {
            config_pool_vars(&p, n);
            status = read_home(old, s, n, p.vars.user);
        }
    }
    config_parser_fini(&p);
    weir_config_drop(p.c);
    weir_config_report_fini(&quiet);
    return status;
}

/* ---- pages of suspended sites, and files of users: texts beside the others, so that the gateway needs no right to read them ---- */

const struct weir_config_source *config_find_beside(const struct weir_config_sources *s, const char *kind, const char *path)
{
    size_t n = strlen(kind);
    for (size_t i = 1; i < s->count; i++) /* the first one is the main file */
        if (strncmp(s->list[i].name, kind, n) == 0 && strcmp(s->list[i].name + n, path) == 0) return &s->list[i];
    return NULL;
}

/* tenant: whose file it has to be; NULL: whoever may. */
static int read_beside(struct weir_config_sources *s, const char *kind, const char *path, off_t most, const char *tenant)
{
    char name[PATH_MAX + 8];
    struct stat st;
    char *text = NULL;
    ssize_t len = -1;
    const struct passwd *owner = tenant ? getpwnam(tenant) : NULL;
    snprintf(name, sizeof name, "%s%s", kind, path);
    if (config_find_beside(s, kind, path)) return WEIR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool usable = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= most && (!tenant || (owner && st.st_uid == owner->pw_uid));
    if (usable && (text = malloc((size_t)st.st_size + 1)))
        len = pread(fd, text, (size_t)st.st_size, 0);
    if (fd >= 0) close(fd);
    if (len < 0) { /* told when it is parsed */
        free(text);
        return WEIR_OK;
    }
    text[len] = 0;
    return add(s, name, strdup("/"), text, (size_t)len) ? WEIR_OK : WEIR_NOMEM;
}

static int read_pages_of(struct parser *p, struct weir_config_sources *s, const struct node *block)
{
    int status = WEIR_OK;
    for (const struct node *k = block->children; k && status == WEIR_OK; k = k->next) {
        if (k->used) continue;
        if (k->count == 2 && node_is(k, "suspended") && config_names_file(k, 1)) status = read_beside(s, PAGE_SOURCE, config_path(p, k, 1), WEIR_CONFIG_PAGE_MAX, NULL);
        else if (config_names_users(k)) status = read_beside(s, WEIR_CONFIG_USERS, config_path(p, k, 2), MAX_FILE, p->tenant);
        else if (node_is(k, "route")) status = read_pages_of(p, s, k);
    }
    return status;
}

static int read_pages(struct weir_config_sources *s)
{
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct parser p = {0};
    int status = WEIR_OK;
    bool any = false;
    for (size_t i = 0; i < s->count && !any; i++) any = memmem(s->list[i].text, s->list[i].len, "suspended", 9) || memmem(s->list[i].text, s->list[i].len, "basic", 5);
    if (!any) return status;
    weir_config_report_init(&quiet);
    struct weir_config_sources now = *s; /* its list grows under the parser */
    now.list = malloc(s->count * sizeof *now.list);
    if (now.list) memcpy(now.list, s->list, s->count * sizeof *now.list);
    if (!now.list || !config_gather(&p, &now, &quiet)) status = WEIR_NOMEM;
    for (const struct node *n = p.first; n && status == WEIR_OK; n = n->next) {
        if (!node_is(n, "site")) continue;
        config_site_vars(&p, n);
        for (int i = 0; i < LAYERS && status == WEIR_OK; i++)
            if (p.site[i]) status = read_pages_of(&p, s, p.site[i]);
        if (status == WEIR_OK) status = read_pages_of(&p, s, n);
    }
    config_parser_fini(&p);
    weir_config_drop(p.c);
    weir_config_report_fini(&quiet);
    free(now.list);
    return status;
}

int weir_config_read_fd(int fd, const char *path, const struct weir_config_sources *old, struct weir_config_sources *out,
                        struct weir_config_report *report)
{
    int own = fd < 0 ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd < 0 && own < 0) return cannot(report, path, strerror(errno));
    int status = read_main(fd < 0 ? own : fd, path, out, report);
    if (own >= 0) close(own);
    if (status == WEIR_OK) status = read_includes(old, out, report);
    if (status == WEIR_OK) status = read_homes(old, out);
    if (status == WEIR_OK) status = read_pages(out);
    return report->errors ? WEIR_INVALID : status;
}

void weir_config_users(int fd, struct weir_config_users *out)
{
    struct weir_config_sources src = {0};
    struct weir_config_report quiet; /* control tells its mistakes */
    struct parser p = {0};
    snprintf(out->control, sizeof out->control, "weir");
    snprintf(out->gateway, sizeof out->gateway, "weir-gw");
    weir_config_report_init(&quiet);
    if (read_main(fd, "weir.conf", &src, &quiet) == WEIR_OK && config_gather(&p, &src, &quiet)) {
        for (const struct node *n = p.first; n; n = n->next) {
            if (!node_is(n, "weir")) continue;
            for (const struct node *k = n->children; k; k = k->next) {
                if (k->used || !node_is(k, "user")) continue;
                snprintf(out->control, sizeof out->control, "%s", k->words[1].text.ptr);
                if (k->count > 2) snprintf(out->gateway, sizeof out->gateway, "%s", k->words[2].text.ptr);
            }
        }
    }
    config_parser_fini(&p);
    weir_config_drop(p.c);
    weir_config_sources_free(&src);
    weir_config_report_fini(&quiet);
}

int weir_config_read(const char *path, struct weir_config_sources *out, struct weir_config_report *report)
{
    return weir_config_read_fd(-1, path, NULL, out, report);
}

/* ---- weir serve DIR ---- */

static bool found_php;

static int look_php(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)st;
    if (f->level > 3) return 2; /* FTW_SKIP_SUBTREE */
    const char *dot = strrchr(path, '.');
    if (type == FTW_F && dot && strcmp(dot, ".php") == 0) {
        found_php = true;
        return 1; /* FTW_STOP */
    }
    return 0;
}

static void quote(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', f);
        fputc(*s, f);
    }
    fputc('"', f);
}

static void write_apps(FILE *f, const char *dir, const char *user, bool pools)
{
    char pattern[PATH_MAX];
    glob_t g;
    snprintf(pattern, sizeof pattern, "%s/*.fcgi", dir);
    if (glob(pattern, 0, NULL, &g) != 0) return;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        struct stat st;
        const char *name = strrchr(g.gl_pathv[i], '/') + 1;
        int base = (int)(strlen(name) - 5);
        if (stat(g.gl_pathv[i], &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & 0111) || base < 1) continue;
        if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != strlen(name)) continue;
        if (pools) {
            fprintf(f, "pool %.*s {\n    run ", base, name);
            quote(f, g.gl_pathv[i]);
            fputc('\n', f);
            if (user) fprintf(f, "    user %s\n", user);
            fprintf(f, "}\n");
        } else {
            fprintf(f, "    route /%s /%s/ /%.*s/ { pool %.*s }\n", name, name, base, name, base, name);
        }
    }
    globfree(&g);
}

int weir_config_for_dir(const char *dir, const char *listen, const char *user, struct weir_config_sources *out,
                        struct weir_config_report *report)
{
    char full[PATH_MAX], name[PATH_MAX + 16];
    char *text = NULL;
    size_t len = 0;
    struct stat st;
    snprintf(name, sizeof name, "(serve %s)", dir);
    if (!realpath(dir, full) || stat(full, &st) < 0 || !S_ISDIR(st.st_mode)) return cannot(report, dir, "it is no folder that can be entered");
    FILE *f = open_memstream(&text, &len);
    if (!f) return WEIR_NOMEM;
    found_php = false;
    nftw(full, look_php, 16, FTW_PHYS | FTW_ACTIONRETVAL);
    char program[64];
    if (found_php && weir_config_php(WEIR_PHP_ANY, NULL, program, sizeof program) == WEIR_PHP_ANY) {
        fprintf(stderr, "weir: %s has PHP scripts, and neither php-fpm nor php-cgi is installed: they are not served\n", full);
        found_php = false;
    }
    fprintf(f, "site localhost {\n    listen %s\n    debug yes\n    root ", listen);
    quote(f, full);
    fputc('\n', f);
    if (found_php) fprintf(f, "    php php\n");
    write_apps(f, full, user, false);
    fprintf(f, "}\n");
    if (found_php) fprintf(f, "pool php {\n    php\n%s%s%s}\n", user ? "    user " : "", user ? user : "", user ? "\n" : "");
    write_apps(f, full, user, true);
    fclose(f);
    return add(out, name, strdup(full), text, len) ? WEIR_OK : WEIR_NOMEM;
}

/* ---- one block of bytes ---- */

static int pack_count(struct weir_buf *b, size_t n)
{
    uint32_t count = (uint32_t)n;
    return weir_buf_append(b, &count, sizeof count);
}

static int pack_bytes(struct weir_buf *b, const char *p, size_t len)
{
    int status = pack_count(b, len);
    return status < 0 ? status : weir_buf_append(b, p, len);
}

static int pack_text(struct weir_buf *b, const char *s)
{
    return pack_bytes(b, s, strlen(s));
}

int weir_config_pack(const struct weir_config_sources *s, struct weir_buf *out)
{
    int bad = pack_count(out, s->count);
    for (size_t i = 0; !bad && i < s->count; i++)
        bad = pack_text(out, s->list[i].name) | pack_text(out, s->list[i].dir) | pack_bytes(out, s->list[i].text, s->list[i].len) |
              pack_count(out, s->list[i].lost);
    if (!bad) bad = pack_count(out, s->home_count);
    for (size_t i = 0; !bad && i < s->home_count; i++) bad = pack_text(out, s->homes[i].user) | pack_text(out, s->homes[i].home);
    return bad ? WEIR_NOMEM : WEIR_OK;
}

static bool unpack_count(struct weir_str *in, uint32_t *n)
{
    if (in->len < sizeof *n) return false;
    memcpy(n, in->ptr, sizeof *n);
    *in = weir_str(in->ptr + sizeof *n, in->len - sizeof *n);
    return true;
}

static char *unpack_bytes(struct weir_str *in, size_t *len)
{
    uint32_t n;
    if (!unpack_count(in, &n) || n > in->len) return NULL;
    char *out = malloc((size_t)n + 1);
    if (!out) return NULL;
    memcpy(out, in->ptr, n);
    out[n] = 0;
    *in = weir_str(in->ptr + n, in->len - n);
    *len = n;
    return out;
}

static int unpack_source(struct weir_str *in, struct weir_config_sources *out)
{
    size_t n, text_len = 0;
    uint32_t lost;
    char *name = unpack_bytes(in, &n), *dir = name ? unpack_bytes(in, &n) : NULL;
    char *text = dir ? unpack_bytes(in, &text_len) : NULL;
    struct weir_config_source *o = NULL;
    if (text && unpack_count(in, &lost)) {
        o = add(out, name, dir, text, text_len);
        dir = text = NULL;
    }
    if (o) o->lost = lost;
    free(name);
    free(dir);
    free(text);
    return o ? WEIR_OK : WEIR_PROTOCOL;
}

static int unpack_all(struct weir_str in, struct weir_config_sources *out)
{
    uint32_t count;
    size_t n;
    int status = WEIR_OK;
    if (!unpack_count(&in, &count)) return WEIR_PROTOCOL;
    for (; count && status == WEIR_OK; count--) status = unpack_source(&in, out);
    if (status < 0 || !unpack_count(&in, &count)) return WEIR_PROTOCOL;
    for (; count && status == WEIR_OK; count--) {
        char *user = unpack_bytes(&in, &n);
        status = add_home(out, user, user ? unpack_bytes(&in, &n) : NULL);
    }
    return status == WEIR_OK && in.len == 0 ? WEIR_OK : WEIR_PROTOCOL;
}

int weir_config_unpack(const void *bytes, size_t len, struct weir_config_sources *out)
{
    int status = unpack_all(weir_str(bytes, len), out);
    if (status < 0) weir_config_sources_free(out);
    return status;
}

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
#include <unistd.h>

#include "config/internal.h"

void weir_config_sources_free(struct weir_config_sources *s)
{
    for (size_t i = 0; i < s->count; i++) {
        free(s->list[i].name);
        free(s->list[i].text);
        free(s->list[i].dir);
    }
    for (size_t i = 0; i < s->home_count; i++) {
        free(s->homes[i].user);
        free(s->homes[i].home);
    }
    free(s->list);
    free(s->homes);
    *s = (struct weir_config_sources){0};
}

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

/* Takes text. */
static int add(struct weir_config_sources *s, const char *name, const char *dir, char *text, size_t len)
{
    struct weir_config_source *list = realloc(s->list, (s->count + 1) * sizeof *list);
    if (!list) {
        free(text);
        return WEIR_NOMEM;
    }
    s->list = list;
    struct weir_config_source *o = &list[s->count++];
    *o = (struct weir_config_source){.name = strdup(name), .dir = dir ? strdup(dir) : dir_of(name), .text = text, .len = len};
    return o->name && o->dir ? WEIR_OK : WEIR_NOMEM;
}

static int cannot(struct weir_config_report *r, const char *name, const char *why)
{
    char text[256];
    snprintf(text, sizeof text, "cannot be read: %s", why);
    config_say_at(r, WEIR_CONFIG_ERROR, name, 1, 1, "check the path and its rights", text);
    return WEIR_SYSTEM;
}

static int read_fd(int fd, const char *name, struct weir_config_sources *out, struct weir_config_report *r)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return cannot(r, name, strerror(errno));
    if (!S_ISREG(st.st_mode)) return cannot(r, name, "it is no regular file");
    if (st.st_size > (off_t)MAX_FILE) return cannot(r, name, "it is larger than 1 MiB");
    char *text = malloc((size_t)st.st_size + 1);
    size_t len = 0;
    if (!text) return WEIR_NOMEM;
    while (len < (size_t)st.st_size) {
        ssize_t n = pread(fd, text + len, (size_t)st.st_size - len, (off_t)len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        len += (size_t)n;
    }
    text[len] = 0;
    return add(out, name, NULL, text, len);
}

static int read_one(const char *name, struct weir_config_sources *out, struct weir_config_report *r)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hold us */
    if (fd < 0) return cannot(r, name, strerror(errno));
    int status = read_fd(fd, name, out, r);
    close(fd);
    return status;
}

/* The files that the main one includes, in the order of their names. */
static int read_includes(struct weir_config_sources *out, struct weir_config_report *r)
{
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct weir_arena tree = {0};
    int status = WEIR_OK;
    weir_config_report_init(&quiet);
    struct weir_config_source main_source = out->list[0];
    for (struct node *n = config_tree(&main_source, &tree, &quiet); n && status != WEIR_NOMEM; n = n->next) {
        char pattern[PATH_MAX];
        glob_t g;
        if (n->count != 2 || !weir_str_eq(n->words[0].text, WEIR_STR("include"))) continue;
        const char *w = n->words[1].text.ptr;
        if (w[0] == '/') snprintf(pattern, sizeof pattern, "%s", w);
        else snprintf(pattern, sizeof pattern, "%s/%s", main_source.dir, strncmp(w, "./", 2) == 0 ? w + 2 : w);
        if (glob(pattern, 0, NULL, &g) != 0) continue;
        for (size_t i = 0; i < g.gl_pathc; i++) (void)read_one(g.gl_pathv[i], out, r);
        globfree(&g);
    }
    weir_arena_fini(&tree);
    weir_config_report_fini(&quiet);
    return status;
}

/* ---- homes ---- */

/* Takes user and home. */
static int add_home(struct weir_config_sources *s, char *user, char *home)
{
    struct weir_config_home *grown = user && home ? realloc(s->homes, (s->home_count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(user);
        free(home);
        return WEIR_NOMEM;
    }
    s->homes = grown;
    s->homes[s->home_count++] = (struct weir_config_home){user, home};
    return WEIR_OK;
}

static bool has_home(const struct weir_config_sources *s, const char *user)
{
    for (size_t i = 0; i < s->home_count; i++)
        if (strcmp(s->homes[i].user, user) == 0) return true;
    return false;
}

static bool asks_for_homes(const struct weir_config_sources *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (memmem(s->list[i].text, s->list[i].len, "$home", 5) || memmem(s->list[i].text, s->list[i].len, "~/", 2)) return true;
    return false;
}

/* The homes of the pools' users, so that parsing touches no file. */
static int read_homes(struct weir_config_sources *s)
{
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct parser p = {0};
    int status = WEIR_OK;
    if (!asks_for_homes(s)) return status;
    weir_config_report_init(&quiet);
    if (!config_gather(&p, s, &quiet)) status = WEIR_NOMEM;
    for (const struct node *n = p.first; n && status == WEIR_OK; n = n->next) {
        if (!node_is(n, "pool")) continue;
        config_pool_vars(&p, n);
        const char *user = p.vars.user.ptr;
        if (!user || has_home(s, user)) continue;
        const struct passwd *pw = getpwnam(user);
        if (pw) status = add_home(s, strdup(user), strdup(pw->pw_dir));
    }
    weir_arena_fini(&p.tree);
    weir_config_drop(p.c);
    weir_config_report_fini(&quiet);
    return status;
}

/* ---- pages of suspended sites: texts beside the others, so that the gateway needs no right to read them ---- */

static int read_page(struct weir_config_sources *s, const char *path)
{
    char name[PATH_MAX + 8];
    struct stat st;
    char *text = NULL;
    ssize_t len = -1;
    snprintf(name, sizeof name, PAGE_SOURCE "%s", path);
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->list[i].name, name) == 0) return WEIR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= WEIR_CONFIG_PAGE_MAX && (text = malloc((size_t)st.st_size + 1)))
        len = pread(fd, text, (size_t)st.st_size, 0);
    if (fd >= 0) close(fd);
    if (len < 0) { /* told when it is parsed */
        free(text);
        return WEIR_OK;
    }
    text[len] = 0;
    return add(s, name, "/", text, (size_t)len);
}

static int read_pages_of(struct parser *p, struct weir_config_sources *s, const struct node *block)
{
    for (const struct node *k = block->children; k; k = k->next) {
        if (k->used || k->count != 2 || !node_is(k, "suspended") || !config_names_file(k, 1)) continue;
        if (read_page(s, config_path(p, k, 1)) < 0) return WEIR_NOMEM;
    }
    return WEIR_OK;
}

static int read_pages(struct weir_config_sources *s)
{
    struct weir_config_report quiet; /* its mistakes are told when it is parsed */
    struct parser p = {0};
    int status = WEIR_OK;
    bool any = false;
    for (size_t i = 0; i < s->count && !any; i++) any = memmem(s->list[i].text, s->list[i].len, "suspended", 9) != NULL;
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
    weir_arena_fini(&p.tree);
    weir_config_drop(p.c);
    weir_config_report_fini(&quiet);
    free(now.list);
    return status;
}

int weir_config_read_fd(int fd, const char *path, struct weir_config_sources *out, struct weir_config_report *report)
{
    int status = read_fd(fd, path, out, report);
    if (status == WEIR_OK) status = read_includes(out, report);
    if (status == WEIR_OK) status = read_homes(out);
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
    if (read_fd(fd, "weir.conf", &src, &quiet) == WEIR_OK && config_gather(&p, &src, &quiet)) {
        for (const struct node *n = p.first; n; n = n->next) {
            if (!node_is(n, "weir")) continue;
            for (const struct node *k = n->children; k; k = k->next) {
                if (k->used || !node_is(k, "user")) continue;
                snprintf(out->control, sizeof out->control, "%s", k->words[1].text.ptr);
                if (k->count > 2) snprintf(out->gateway, sizeof out->gateway, "%s", k->words[2].text.ptr);
            }
        }
    }
    weir_arena_fini(&p.tree);
    weir_config_drop(p.c);
    weir_config_sources_free(&src);
    weir_config_report_fini(&quiet);
}

int weir_config_read(const char *path, struct weir_config_sources *out, struct weir_config_report *report)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return cannot(report, path, strerror(errno));
    int status = weir_config_read_fd(fd, path, out, report);
    close(fd);
    return status;
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
    return add(out, name, full, text, len);
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
        bad = pack_text(out, s->list[i].name) | pack_text(out, s->list[i].dir) | pack_bytes(out, s->list[i].text, s->list[i].len);
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
    char *name = unpack_bytes(in, &n), *dir = name ? unpack_bytes(in, &n) : NULL;
    char *text = dir ? unpack_bytes(in, &text_len) : NULL;
    int status = text ? add(out, name, dir, text, text_len) : WEIR_PROTOCOL;
    free(name);
    free(dir);
    return status;
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

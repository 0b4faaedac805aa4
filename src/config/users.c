/* SPDX-License-Identifier: MIT */
/* auth basic FILE [REALM]: the users of an htpasswd file, NAME:HASH a line, as far as crypt(3) can compute their hashes and they are
 * worth it. The text of the file stands among the sources. Messages name users and kinds of hashes, never a hash. */
#include <stdlib.h>

#include "config/internal.h"

#define HASH_MAX 384
#define NAME_MAX_ 255

struct users_file { /* each is read once, however many sites name it */
    const char *path;
    const struct weir_conf_user *list;
    size_t count;
    const char *broken;
    struct users_file *next;
};

bool config_names_users(const struct node *n)
{
    return node_is(n, "auth") && n->count > 2 && weir_str_eq(n->words[1].text, WEIR_STR("basic"));
}

/* ---- lines ---- */

/* NULL: crypt knows it; else what it is. */
static const char *why_not(struct weir_str hash)
{
    static const char *const known[] = {"$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$gy$"};
    static const struct {
        const char *begin, *what;
    } others[] = {{"$apr1$", "apr1 (MD5), which crypt does not know"}, {"$1$", "MD5, which is too weak"}, {"{SHA}", "unsalted SHA-1, which is too weak"},
                  {"{SSHA}", "SHA-1, which is too weak"}, {"{PLAIN}", "the password itself"}};
    for (size_t i = 0; i < WEIR_COUNT(known); i++)
        if (weir_str_prefix(hash, weir_cstr(known[i]))) return hash.len <= HASH_MAX && weir_str_all(hash, WEIR_BYTE_VISIBLE) ? NULL : "damaged";
    for (size_t i = 0; i < WEIR_COUNT(others); i++)
        if (weir_str_prefix(hash, weir_cstr(others[i].begin))) return others[i].what;
    return "DES, or no hash at all";
}

struct lines {
    struct parser *p;
    const char *path;
    struct weir_conf_user *list;
    size_t count;
    unsigned line;
};

static void take_line(struct lines *l, struct weir_str s)
{
    char name[4 * 64 + 1];
    l->line++;
    if (s.len && s.ptr[s.len - 1] == '\r') s.len--;
    if (s.len == 0 || s.ptr[0] == '#') return;
    struct weir_config_place at = {l->path, l->line, 1};
    const char *colon = memchr(s.ptr, ':', s.len);
    size_t len = colon ? (size_t)(colon - s.ptr) : 0;
    if (len == 0 || len > NAME_MAX_ || memchr(s.ptr, 0, s.len)) {
        config_say_at(l->p->report, WEIR_CONFIG_WARNING, &at, "write NAME:HASH, by htpasswd -B FILE NAME", "no user and hash: the line is passed over");
        return;
    }
    struct weir_str hash = weir_str(colon + 1, s.len - len - 1);
    const char *end = memchr(hash.ptr, ':', hash.len); /* what follows is a comment */
    if (end) hash.len = (size_t)(end - hash.ptr);
    const char *why = why_not(hash);
    if (!why) {
        l->list[l->count++] = (struct weir_conf_user){config_keep(l->p, weir_str(s.ptr, len)), config_keep(l->p, hash), l->line};
        return;
    }
    name[weir_text_escape(name, sizeof name - 1, s.ptr, len < 64 ? len : 64)] = 0;
    config_say_at(l->p->report, WEIR_CONFIG_WARNING, &at, "make it anew: htpasswd -B FILE NAME, or mkpasswd -m yescrypt", "the user %s cannot log in: the hash is %s", name, why);
}

static int compare(const void *a, const void *b)
{
    const struct weir_conf_user *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

/* In order; of a name that stands several times the first, as other servers have it. */
static size_t sort(struct weir_conf_user *list, size_t count)
{
    size_t kept = 0;
    if (count) qsort(list, count, sizeof *list, compare);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(list[i].name, list[kept - 1].name) != 0) list[kept++] = list[i];
    return kept;
}

/* ---- files ---- */

static void read_lines(struct parser *p, struct users_file *f, const struct weir_config_source *s)
{
    struct lines l = {.p = p, .path = f->path};
    size_t most = 1;
    for (size_t i = 0; i < s->len; i++) most += s->text[i] == '\n';
    l.list = config_alloc(p, most * sizeof *l.list);
    for (struct weir_str rest = weir_str(s->text, s->len); l.list && rest.len;) {
        const char *nl = memchr(rest.ptr, '\n', rest.len);
        size_t len = nl ? (size_t)(nl - rest.ptr) : rest.len;
        take_line(&l, weir_str(rest.ptr, len));
        len += nl != NULL;
        rest = weir_str(rest.ptr + len, rest.len - len);
    }
    f->count = l.list ? sort(l.list, l.count) : 0;
    f->list = l.list;
    if (!f->list) f->broken = "out of memory";
}

static struct users_file *file_of(struct parser *p, const char *path)
{
    for (struct users_file *f = p->users; f; f = f->next)
        if (strcmp(f->path, path) == 0) return f;
    struct users_file *f = weir_arena_alloc(&p->tree, sizeof *f);
    const struct weir_config_source *s = config_find_beside(p->sources, WEIR_CONFIG_USERS, path);
    if (!f) return NULL;
    *f = (struct users_file){.path = path, .next = p->users};
    p->users = f;
    if (s) read_lines(p, f, s);
    else f->broken = "the file of users cannot be read";
    return f;
}

void config_read_auth(struct parser *p, struct weir_conf_guards *g, const struct node *n)
{
    g->auth = NULL;
    if (n->count == 2 && config_word_is(n, 1, "no")) return;
    if (!config_names_users(n)) {
        config_bad(p, n, 1, "is no way to ask who it is", "write auth basic FILE, or auth no");
        return;
    }
    struct weir_conf_auth *a = config_alloc(p, sizeof *a);
    const char *path = config_path(p, n, 2);
    struct users_file *f = file_of(p, path);
    if (!a || !f) return;
    struct weir_str realm = n->count > 3 ? config_text(p, n, 3) : p->vars.name.ptr ? weir_cstr(config_keep(p, p->vars.name)) : WEIR_STR("weir");
    *a = (struct weir_conf_auth){.file = path, .realm = realm.ptr, .users = f->list, .user_count = f->count, .broken = f->broken};
    for (size_t i = 0; i < realm.len; i++)
        if ((unsigned char)realm.ptr[i] < 32 || realm.ptr[i] == 127 || realm.ptr[i] == '"' || realm.ptr[i] == '\\') {
            config_bad(p, n, 3, "is no name of a realm", "write it without quotes, \\ and control bytes");
            break;
        }
    for (const struct node *k = n->children; k; k = k->next)
        if (!k->used && node_is(k, "forward")) config_get_flag(p, k, 1, &a->forward);
    if (f->broken)
        config_say(p->report, WEIR_CONFIG_WARNING, n, 2, p->tenant ? "it has to belong to the tenant, and be readable; nobody gets in" : "check the path and its rights: nobody gets in",
                   "the file of users \"%.200s\" cannot be read, or is larger than 1 MiB", path);
    g->auth = a;
}

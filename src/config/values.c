/* SPDX-License-Identifier: MIT */
/* Values of settings: words with their variables, paths, counts, times, sizes, lists and maps; what is wrong with one is told
 * at its place. */
#include <stdio.h>

#include "config/internal.h"

void *config_alloc(struct parser *p, size_t n)
{
    void *m = weir_arena_alloc(&p->c->arena, n ? n : 1);
    if (m) memset(m, 0, n);
    return m;
}

const char *config_keep(struct parser *p, struct weir_str s)
{
    return weir_arena_str(&p->c->arena, s).ptr;
}

struct weir_config_place config_place(struct parser *p, const struct node *n)
{
    if (p->place_source != n->source) { /* places outlive the sources */
        p->place_source = n->source;
        p->place_file = config_keep(p, weir_cstr(n->source->name));
    }
    return (struct weir_config_place){p->place_file, n->words[0].line, n->words[0].column};
}

bool node_is(const struct node *n, const char *name)
{
    return weir_str_eq(n->words[0].text, weir_cstr(name));
}

bool config_word_is(const struct node *n, size_t word, const char *text)
{
    return weir_str_eq(n->words[word].text, weir_cstr(text)) && !n->words[word].quoted;
}

void config_bad(struct parser *p, const struct node *n, size_t word, const char *what, const char *advice)
{
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "\"%.64s\" %s", n->words[word].text.ptr, what);
}

/* ---- variables ---- */

/* The variable that begins at s ("$name ..."): its length, 0 for none. */
static size_t variable(const struct parser *p, struct weir_str s, struct weir_str *value)
{
    const struct {
        struct weir_str name, value;
    } all[] = {{WEIR_STR("$name"), p->vars.name}, {WEIR_STR("$user"), p->vars.user}, {WEIR_STR("$home"), p->vars.home}, {WEIR_STR("$$"), WEIR_STR("$")}};
    for (size_t i = 0; i < WEIR_COUNT(all); i++) {
        if (!weir_str_prefix(s, all[i].name)) continue;
        *value = all[i].value;
        return all[i].name.len;
    }
    return 0;
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '{';
}

/* What stands for the sign at s, told as a mistake if it is none of ours; returns how many bytes of s it replaces. */
static size_t replace(struct parser *p, const struct node *n, size_t word, struct weir_str s, struct weir_str *value)
{
    size_t len = variable(p, s, value);
    bool more = len > 2 && s.len > len && letter(s.ptr[len]); /* $names is another one */
    if (len && !more) {
        if (!value->ptr) config_say(p->report, WEIR_CONFIG_ERROR, n, word, "write it out", "%.*s is not known here", (int)len, s.ptr);
        return len;
    }
    if (s.len > 1 && letter(s.ptr[1]))
        config_say(p->report, WEIR_CONFIG_ERROR, n, word, "only $name, $user and $home are replaced; write $$ for a dollar sign",
                   "\"%.64s\" has an unknown variable", n->words[word].text.ptr);
    *value = weir_str(s.ptr, 1);
    return 1;
}

struct weir_str config_text(struct parser *p, const struct node *n, size_t word)
{
    struct weir_str s = n->words[word].text;
    struct weir_buf out = {0};
    if (!s.len || !memchr(s.ptr, '$', s.len)) return weir_cstr(config_keep(p, s));
    for (size_t i = 0; i < s.len;) {
        struct weir_str piece = weir_str(s.ptr + i, 1);
        i += s.ptr[i] == '$' ? replace(p, n, word, weir_str(s.ptr + i, s.len - i), &piece) : 1;
        if (piece.len && weir_buf_append(&out, piece.ptr, piece.len) < 0) break;
    }
    const char *kept = config_keep(p, weir_buf_len(&out) ? weir_str(weir_buf_ptr(&out), weir_buf_len(&out)) : WEIR_STR(""));
    weir_buf_fini(&out);
    return weir_cstr(kept);
}

/* dir/rest in the snapshot's arena. */
static const char *join(struct parser *p, struct weir_str dir, struct weir_str rest)
{
    char *to = weir_arena_bytes(&p->c->arena, dir.len + rest.len + 2);
    if (!to) return "/";
    memcpy(to, dir.ptr, dir.len);
    to[dir.len] = '/';
    memcpy(to + dir.len + 1, rest.ptr, rest.len);
    to[dir.len + 1 + rest.len] = 0;
    return to;
}

/* An absolute path without "." and "..", as `cd` writes it: php-fpm and open_basedir compare paths as text. */
static const char *plain(struct parser *p, const char *path)
{
    size_t len = strlen(path), n = 0;
    if (!strstr(path, "/.")) return path;
    char *to = weir_arena_bytes(&p->c->arena, len + 2);
    if (!to) return "/";
    for (const char *at = path; *at;) {
        size_t name = strcspn(at + 1, "/");
        if (name == 2 && at[1] == '.' && at[2] == '.') {
            while (n && to[--n] != '/') {}
        } else if (name != 1 || at[1] != '.') {
            memcpy(to + n, at, name + 1);
            n += name + 1;
        }
        at += name + 1;
    }
    if (n == 0) to[n++] = '/';
    to[n] = 0;
    return to;
}

const char *config_path(struct parser *p, const struct node *n, size_t word)
{
    struct weir_str s = config_text(p, n, word);
    if (!s.ptr) return "/";
    if (s.len && s.ptr[0] == '/') return plain(p, s.ptr);
    if (weir_str_prefix(s, WEIR_STR("~/"))) {
        if (p->vars.home.ptr) return plain(p, join(p, p->vars.home, weir_str(s.ptr + 2, s.len - 2)));
        config_say(p->report, WEIR_CONFIG_ERROR, n, word, "write the path out", "~ is not known here");
        return "/";
    }
    return plain(p, join(p, weir_cstr(n->source->dir), s));
}

/* ---- counts, times, sizes ---- */

void config_count(struct parser *p, const struct node *n, size_t word, uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t v;
    char what[64];
    if (weir_str_u64(n->words[word].text, max, &v) == WEIR_OK && v >= min) {
        *out = (uint32_t)v;
        return;
    }
    snprintf(what, sizeof what, "is no count from %u to %u", min, max);
    config_bad(p, n, word, what, "write digits only");
}

void config_get_time(struct parser *p, const struct node *n, size_t word, bool none, uint32_t *out)
{
    if (config_time(n->words[word].text, out, none) < 0)
        config_bad(p, n, word, "is no time", none ? "write digits and a unit: 500ms, 30s, 5m, 1h; or none" : "write digits and a unit: 500ms, 30s, 5m, 1h");
}

void config_get_size(struct parser *p, const struct node *n, size_t word, uint64_t *out)
{
    if (config_size(n->words[word].text, out) < 0) config_bad(p, n, word, "is no size", "write digits and a unit: 512K, 64M, 2G");
}

void config_get_flag(struct parser *p, const struct node *n, size_t word, bool *out)
{
    struct weir_str s = n->words[word].text;
    if (weir_str_eq(s, WEIR_STR("yes")) || weir_str_eq(s, WEIR_STR("on"))) *out = true;
    else if (weir_str_eq(s, WEIR_STR("no")) || weir_str_eq(s, WEIR_STR("off"))) *out = false;
    else config_bad(p, n, word, "is neither yes nor no", "write yes or no");
}

void config_set_pair(struct parser *p, struct weir_pair **list, size_t *count, struct weir_str name, struct weir_str value)
{
    struct weir_pair *have = *list;
    for (size_t i = 0; i < *count; i++) {
        if (!weir_str_eq(have[i].name, name)) continue;
        struct weir_pair *copy = config_alloc(p, *count * sizeof *copy);
        if (!copy) return;
        memcpy(copy, have, *count * sizeof *copy);
        copy[i].value = value;
        *list = copy;
        return;
    }
    struct weir_pair *grown = config_alloc(p, (*count + 1) * sizeof *grown);
    if (!grown) return;
    if (*count) memcpy(grown, have, *count * sizeof *grown);
    grown[(*count)++] = (struct weir_pair){name, value};
    *list = grown;
}

bool config_appends(const struct node *n)
{
    return n->count > 2 && config_word_is(n, 1, "+");
}

void config_words(struct parser *p, const struct node *n, size_t first, const char ***list, size_t *count)
{
    bool append = config_appends(n);
    size_t have = append ? *count : 0;
    const char **grown = config_alloc(p, (have + n->count) * sizeof *grown);
    if (!grown) return;
    if (have) memcpy(grown, *list, have * sizeof *grown);
    for (size_t i = first + append; i < n->count; i++) grown[have++] = config_text(p, n, i).ptr;
    *list = grown;
    *count = have;
}

bool config_claim(struct parser *p, const struct node **holder, const struct node *n)
{
    char advice[128];
    if (*holder && !(node_is(*holder, "connect") && node_is(n, "connect"))) {
        snprintf(advice, sizeof advice, "it excludes \"%s\" in line %u; keep one", (*holder)->words[0].text.ptr,
                 (*holder)->words[0].line);
        config_say(p->report, WEIR_CONFIG_ERROR, n, 0, advice, "\"%s\" cannot stand here, too", n->words[0].text.ptr);
        return false;
    }
    *holder = n;
    return true;
}

/* ---- time blocks ---- */

void config_times(struct parser *p, const struct node *block, const struct config_times *t)
{
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        uint32_t *to = node_is(n, "request") ? t->request
                       : node_is(n, "silent") ? t->silent
                       : node_is(n, "slow")   ? t->slow
                       : node_is(n, "head")   ? t->head
                       : node_is(n, "body")   ? t->body
                       : node_is(n, "idle")   ? t->idle
                       : node_is(n, "start")  ? t->start
                       : node_is(n, "ping")   ? t->ping
                                              : t->send;
        if (to) config_get_time(p, n, 1, node_is(n, "request") || node_is(n, "silent") || node_is(n, "slow") || node_is(n, "ping"), to);
        else config_say(p->report, WEIR_CONFIG_ERROR, n, 0, t->send ? "write it in the pool" : "write it in the site or the route",
                        "\"%s\" has no meaning for a %s", n->words[0].text.ptr, !t->send ? "pool" : t->silent ? "site" : "listener");
    }
}

/* ---- names ---- */

void config_twice(struct parser *p, const struct node *n, size_t word, const struct weir_config_place *first)
{
    char advice[300];
    snprintf(advice, sizeof advice, "it was defined in %.200s:%u:%u; choose another name", first->file, first->line, first->column);
    config_say(p->report, WEIR_CONFIG_ERROR, n, word, advice, "\"%.64s\" is defined twice", n->words[word].text.ptr);
}

bool config_env_name(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (i && c >= '0' && c <= '9'))) return false;
    }
    return s.len > 0;
}

/* SPDX-License-Identifier: MIT */
/* `check --effective`: the layers of one block laid over each other, each setting with the place that tells it. Works on
 * statements, by the rules of the table of names; what they mean is pools.c's and sites.c's. */
#include <stdio.h>
#include <stdlib.h>

#include "config/internal.h"

#define ENTRIES_MAX 1024

struct entry {
    const struct node *n;
    const struct setting *s;
    const struct node *in; /* the block that it stands in ("time"); NULL: the pool or site itself */
};
struct layers {
    struct parser *p;
    struct entry e[ENTRIES_MAX];
    size_t count;
};

/* Does what the upper layer says make an entry of a lower one void? */
static bool overrides(const struct node *n, const struct setting *s, const struct entry *e)
{
    switch (s->how) {
    case HOW_GROUP_POOL:
    case HOW_GROUP_ROUTE: return e->s->how == s->how;
    case HOW_LIST: return e->s == s && !config_appends(n);
    case HOW_MAP: return e->s == s && (s->folded ? weir_str_ieq : weir_str_eq)(e->n->words[1].text, n->words[1].text);
    case HOW_ALL: return false;
    default: return e->s == s;
    }
}

static void put(struct layers *l, const struct node *n, const struct setting *s, const struct node *in)
{
    if (l->count < ENTRIES_MAX) l->e[l->count++] = (struct entry){n, s, in};
}

static void forget_overridden(struct layers *l, size_t below, const struct node *n, const struct setting *s, const struct node *in)
{
    for (size_t i = 0; i < below; i++) {
        struct entry *e = &l->e[i];
        bool same_block = !e->in == !in && (!in || weir_str_eq(e->in->words[0].text, in->words[0].text));
        if (e->n && same_block && overrides(n, s, e)) e->n = NULL;
    }
}

static void lay(struct layers *l, enum block in, const struct node *first, const struct node *parent)
{
    size_t below = l->count;
    for (const struct node *n = first; n; n = n->next) {
        const struct setting *s = config_setting_of(in, n);
        if (!s || (n->used && !s->later)) continue; /* a mistake, told elsewhere */
        if (s->how == HOW_BLOCK) {
            lay(l, s->sub, n->children, n);
            continue;
        }
        forget_overridden(l, below, n, s, parent);
        put(l, n, s, parent);
    }
}

/* ---- as text ---- */

static bool plain(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (strchr(" \t;{}\"#", s.ptr[i])) return false;
    return s.len > 0;
}

static void write_word(FILE *f, struct weir_str s)
{
    if (plain(s)) {
        fprintf(f, "%.*s", (int)s.len, s.ptr);
        return;
    }
    fputc('"', f);
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"' || s.ptr[i] == '\\') fputc('\\', f);
        fputc(s.ptr[i], f);
    }
    fputc('"', f);
}

static void write_statement(struct parser *p, FILE *f, const struct node *n, const struct setting *s)
{
    write_word(f, n->words[0].text);
    for (size_t i = 1; i < n->count; i++) {
        fputc(' ', f);
        write_word(f, s && s->path == i && s->path ? weir_cstr(config_path(p, n, i)) : config_text(p, n, i));
    }
    if (!n->has_block) return;
    fputs(" { ", f);
    for (const struct node *k = n->children; k; k = k->next) {
        write_statement(p, f, k, s ? config_setting(s->sub, k->words[0].text) : NULL);
        fputs(k->next ? "; " : " ", f);
    }
    fputc('}', f);
}

static bool add(struct layers *l, struct weir_config_effective_list *out, const struct entry *e)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return false;
    if (e->in) fprintf(f, "%s ", e->in->words[0].text.ptr);
    write_statement(l->p, f, e->n, e->s);
    fclose(f);
    struct weir_config_effective *o = &out->list[out->count++];
    *o = (struct weir_config_effective){.place = config_place(l->p, e->n)};
    o->text = (char *)(uintptr_t)weir_arena_str(&out->arena, weir_str(text, len)).ptr;
    o->place.file = weir_arena_str(&out->arena, weir_cstr(o->place.file)).ptr;
    free(text);
    return o->text && o->place.file;
}

static int write_all(struct layers *l, struct weir_config_effective_list *out, const char *keep)
{
    bool keep_told = !keep;
    weir_arena_init(&out->arena, 0);
    out->list = weir_arena_alloc(&out->arena, (l->count + 1) * sizeof *out->list);
    if (!out->list) return WEIR_NOMEM;
    for (size_t i = 0; i < l->count; i++) {
        if (!l->e[i].n) continue;
        if (node_is(l->e[i].n, "keep")) keep_told = true;
        if (!add(l, out, &l->e[i])) return WEIR_NOMEM;
    }
    if (!keep_told) /* depends on what runs: no layer says it */
        out->list[out->count++] = (struct weir_config_effective){.text = (char *)(uintptr_t)keep, .place = {"built-in", 1, 1}};
    return WEIR_OK;
}

/* ---- which block ---- */

static const struct node *find(const struct parser *p, const char *kind, struct weir_str name)
{
    for (const struct node *n = p->first; n; n = n->next) {
        if (!node_is(n, kind)) continue;
        if (strcmp(kind, "weir") == 0) return n;
        for (size_t i = 1; i < n->count; i++)
            if (weir_str_ieq(n->words[i].text, name)) return n;
    }
    return NULL;
}

static bool connects(const struct layers *l)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->e[i].n && node_is(l->e[i].n, "connect")) return true;
    return false;
}

static int of_name(struct layers *l, struct weir_str name, struct weir_config_effective_list *out)
{
    struct parser *p = l->p;
    const struct node *n;
    const char *keep = NULL;
    if ((n = find(p, "pool", name))) {
        out->kind = "pool";
        config_pool_vars(p, n);
        for (int i = 0; i < LAYERS; i++) lay(l, BLOCK_POOL, p->pool[i] ? p->pool[i]->children : NULL, NULL);
        lay(l, BLOCK_POOL, n->children, NULL);
        keep = connects(l) ? "keep no" : "keep yes";
    } else if ((n = find(p, "site", name))) {
        out->kind = "site";
        config_site_vars(p, n);
        for (int i = 0; i < LAYERS; i++) lay(l, BLOCK_SITE, p->site[i] ? p->site[i]->children : NULL, NULL);
        lay(l, BLOCK_SITE, n->children, NULL);
    } else if (weir_str_eq(name, WEIR_STR("weir"))) {
        out->kind = "weir";
        lay(l, BLOCK_WEIR, p->program->children, NULL);
        n = find(p, "weir", name);
        if (n) lay(l, BLOCK_WEIR, n->children, NULL);
    } else {
        return WEIR_INVALID;
    }
    return write_all(l, out, keep);
}

int weir_config_effective(const struct weir_config_sources *s, const char *name, struct weir_config_effective_list *out,
                          struct weir_config_report *report)
{
    struct parser p = {0};
    struct layers *l = calloc(1, sizeof *l);
    *out = (struct weir_config_effective_list){0};
    int status = l && config_gather(&p, s, report) ? WEIR_OK : WEIR_NOMEM;
    if (status == WEIR_OK) {
        l->p = &p;
        status = of_name(l, weir_cstr(name), out);
    }
    free(l);
    config_parser_fini(&p);
    weir_config_drop(p.c);
    return status;
}

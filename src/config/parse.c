/* SPDX-License-Identifier: MIT */
/* Sources -> the snapshot: includes, what lies below every block, the program's own block. No file is touched. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/internal.h"

/* ---- what lies below everything, written as anybody would write it ---- */

static const char built_in[] =
    "defaults pool {\n"
    "    processes 1; workers 4; spare 0; queue 1000 30s; drain 30s; multiplex no; ready accept; log-rate 2000\n"
    "    balance least; retry connect; eject 1s 60s; slow-start 10s\n"
    "    time { request none; silent 60s; slow 5s; start 60s; idle 10s; ping none }\n"
    "}\n"
    "defaults site {\n"
    "    index index.php index.html; body 64M { stream no }; log yes; debug no; min-rate 500B 20s\n"
    "    time { head 15s; body 60s; idle 75s; send 60s }\n"
    "}\n"
    "weir { user weir weir-gw; threads %u; connections 16384; processes 2000; starting 8; drain 1h; log - }\n";
#define TEMP_BYTES (UINT64_C(20) << 30) /* temp's size, where only its folder is told, or nothing */

static bool read_built_in(struct parser *p)
{
    static char name[] = "built-in", dir[] = "/";
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct weir_config_source *s = weir_arena_alloc(&p->tree, sizeof *s);
    char *text = weir_arena_bytes(&p->tree, sizeof built_in + 16);
    if (!s || !text) return false;
    int len = snprintf(text, sizeof built_in + 16, built_in, cpus < 1 ? 1u : cpus > 64 ? 64u : (unsigned)cpus);
    *s = (struct weir_config_source){.name = name, .dir = dir, .text = text, .len = (size_t)len};
    for (struct node *n = config_tree(s, &p->tree, p->report); n; n = n->next) {
        if (node_is(n, "weir")) p->program = n;
        else if (weir_str_eq(n->words[1].text, WEIR_STR("pool"))) p->pool[LAYER_BUILT_IN] = n;
        else p->site[LAYER_BUILT_IN] = n;
    }
    return p->program && p->pool[LAYER_BUILT_IN] && p->site[LAYER_BUILT_IN];
}

/* ---- the program ---- */

static bool valid_word(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'a' && s.ptr[i] <= 'z') || (s.ptr[i] >= 'A' && s.ptr[i] <= 'Z') || (s.ptr[i] >= '0' && s.ptr[i] <= '9') || strchr("_-.$", s.ptr[i])))
            return false;
    return s.len > 0;
}

static void read_role(struct parser *p, const struct node *n, size_t word, enum weir_conf_role_kind role)
{
    struct weir_config *c = p->c;
    struct weir_str s = n->words[word].text;
    struct weir_conf_role *o = &c->roles[c->role_count];
    bool owner = weir_str_eq(s, WEIR_STR("@pool-owner")), group = weir_str_prefix(s, WEIR_STR("%"));
    if (owner && role == WEIR_ROLE_ADMIN) {
        config_bad(p, n, word, "cannot be admin", "write it behind read or operate: it is for his own pools");
        return;
    }
    if (group) s = weir_str(s.ptr + 1, s.len - 1);
    if (!owner && !valid_word(s)) {
        config_bad(p, n, word, "names nobody", "write a user, %group, or @pool-owner");
        return;
    }
    *o = (struct weir_conf_role){.role = role, .who = owner ? WEIR_WHO_OWNER : group ? WEIR_WHO_GROUP : WEIR_WHO_USER, .name = config_keep(p, s),
                                 .place = config_place(p, n)};
    c->role_count++;
}

static void read_control(struct parser *p, const struct node *block)
{
    size_t words = 0;
    p->c->control_path = config_path(p, block, 1);
    for (const struct node *n = block->children; n; n = n->next) words += n->count;
    p->c->role_count = 0;
    p->c->roles = config_alloc(p, (words + 1) * sizeof *p->c->roles);
    for (const struct node *n = block->children; n && p->c->roles; n = n->next) {
        if (n->used) continue;
        enum weir_conf_role_kind role = node_is(n, "read") ? WEIR_ROLE_READ : node_is(n, "operate") ? WEIR_ROLE_OPERATE : WEIR_ROLE_ADMIN;
        for (size_t i = 1; i < n->count; i++) read_role(p, n, i, role);
    }
}

/* json, or combined with +WORD behind it. */
static unsigned log_format(struct parser *p, const struct node *n, size_t word)
{
    static const struct {
        struct weir_str word;
        unsigned part;
    } parts[] = {{WEIR_CONST_STR("site"), WEIR_LOG_SITE}, {WEIR_CONST_STR("time"), WEIR_LOG_TIME}, {WEIR_CONST_STR("pool"), WEIR_LOG_POOL},
                 {WEIR_CONST_STR("bytes"), WEIR_LOG_BYTES}, {WEIR_CONST_STR("id"), WEIR_LOG_ID}};
    struct weir_str s = n->words[word].text;
    unsigned format = 0;
    bool fine = weir_str_prefix(s, WEIR_STR("combined"));
    if (weir_str_eq(s, WEIR_STR("json"))) return WEIR_LOG_JSON;
    for (size_t at = strlen("combined"); fine && at < s.len;) {
        size_t end = at + 1, i = 0;
        while (end < s.len && s.ptr[end] != '+') end++;
        while (i < WEIR_COUNT(parts) && !weir_str_eq(parts[i].word, weir_str(s.ptr + at + 1, end - at - 1))) i++;
        fine = s.ptr[at] == '+' && i < WEIR_COUNT(parts) && !(format & parts[i].part);
        if (fine) format |= parts[i].part;
        at = end;
    }
    if (!fine) config_bad(p, n, word, "is no format of the access log", "write json, or combined with +site, +time, +pool, +bytes, +id behind it");
    return format;
}

static void read_weir(struct parser *p, const struct node *block)
{
    struct weir_config *c = p->c;
    c->temp_bytes = TEMP_BYTES;
    for (const struct node *n = block->children; n; n = n->next) {
        if (n->used) continue;
        if (node_is(n, "user")) {
            c->user = config_text(p, n, 1).ptr;
            if (n->count > 2) c->gateway_user = config_text(p, n, 2).ptr;
        } else if (node_is(n, "threads")) {
            config_count(p, n, 1, 1, 64, &c->threads);
        } else if (node_is(n, "connections")) {
            config_count(p, n, 1, 1, 1000000, &c->connections);
        } else if (node_is(n, "processes")) {
            config_count(p, n, 1, 1, 4000, &c->processes);
        } else if (node_is(n, "starting")) {
            config_count(p, n, 1, 1, 1000, &c->starting);
        } else if (node_is(n, "drain")) {
            config_get_time(p, n, 1, false, &c->drain_ms);
        } else if (node_is(n, "control")) {
            read_control(p, n);
        } else if (node_is(n, "deny-file")) {
            c->deny_file = config_path(p, n, 1);
        } else if (node_is(n, "trust")) {
            config_read_trust(p, &c->trust, n);
        } else if (node_is(n, "log")) {
            struct weir_str s = n->words[1].text;
            c->log_path = weir_str_eq(s, WEIR_STR("off")) || weir_str_eq(s, WEIR_STR("-")) ? config_keep(p, s) : config_path(p, n, 1);
            c->log_format = n->count > 2 ? log_format(p, n, 2) : WEIR_LOG_TIME | WEIR_LOG_POOL | WEIR_LOG_ID;
        } else if (node_is(n, "app-log")) {
            c->app_log = weir_str_eq(n->words[1].text, WEIR_STR("-")) ? NULL : config_path(p, n, 1);
            c->app_log_json = n->count > 2 && weir_str_eq(n->words[2].text, WEIR_STR("json"));
            if (n->count > 2 && !c->app_log_json && !weir_str_eq(n->words[2].text, WEIR_STR("text"))) config_bad(p, n, 2, "is no format", "write text or json");
            if (!c->app_log && n->count > 2) config_bad(p, n, 2, "has no meaning here", "name a file, or leave it out");
        } else if (node_is(n, "temp")) {
            c->temp_dir = config_path(p, n, 1);
            if (n->count > 2) config_get_size(p, n, 2, &c->temp_bytes);
        }
    }
}

/* ---- all of it ---- */

static void add_source(struct parser *p, size_t index, unsigned depth, bool tenant);

static void include(struct parser *p, const struct node *n, unsigned depth)
{
    bool any = false;
    const char *pattern = config_path(p, n, 1);
    for (size_t i = 1; i < p->sources->count; i++) {
        if (fnmatch(pattern, p->sources->list[i].name, FNM_PATHNAME) != 0) continue;
        any = true;
        add_source(p, i, depth + 1, node_is(n, "tenants"));
    }
    if (!any && !strpbrk(n->words[1].text.ptr, "*?["))
        config_say(p->report, WEIR_CONFIG_ERROR, n, 1, "check its path", "the file \"%.200s\" cannot be read", n->words[1].text.ptr);
}

static void add_source(struct parser *p, size_t index, unsigned depth, bool tenant)
{
    const struct weir_config_source *s = &p->sources->list[index];
    if (s->problem)
        config_say_at(p->report, WEIR_CONFIG_ERROR, &(struct weir_config_place){s->name, 1, 1}, "check the path and its rights", "cannot be read: %s", s->problem);
    p->any_lost |= s->lost;
    struct node *tree = config_tree(s, &p->tree, p->report);
    config_check_names(tree, BLOCK_TOP, p->report);
    if (tenant) config_check_tenant(p, tree, s);
    for (struct node *n = tree, *next; n; n = next) {
        next = n->next;
        if (n->used) continue;
        if (node_is(n, "include") || node_is(n, "tenants")) {
            if (depth == 0) include(p, n, depth);
            else config_say(p->report, WEIR_CONFIG_ERROR, n, 0, "write it in the main file", "an included file cannot include");
            continue;
        }
        n->next = NULL;
        *p->last = n;
        p->last = &n->next;
    }
}

static void gather_defaults(struct parser *p)
{
    for (struct node *n = p->first; n; n = n->next) {
        if (!node_is(n, "defaults")) continue;
        p->all_new |= !n->source->same;
        bool pool = weir_str_eq(n->words[1].text, WEIR_STR("pool"));
        struct node **to = pool ? &p->pool[LAYER_DEFAULTS] : &p->site[LAYER_DEFAULTS];
        if (*to) {
            struct weir_config_place first = config_place(p, *to);
            config_twice(p, n, 1, &first);
        } else {
            *to = n;
        }
    }
}

bool config_gather(struct parser *p, const struct weir_config_sources *s, struct weir_config_report *report)
{
    p->sources = s;
    p->report = report;
    p->last = &p->first;
    p->all_new = s->changed;
    p->c = calloc(1, sizeof *p->c);
    if (!p->c || !read_built_in(p)) return false;
    p->c->refs = 1;
    if (s->count) add_source(p, 0, 0, false);
    gather_defaults(p);
    return true;
}

/* ---- names ---- */

const struct named *config_named(const struct weir_table *t, struct weir_str name)
{
    for (struct weir_table_node *n = weir_table_find(t, weir_hash(name)); n; n = weir_table_more(n)) {
        const struct named *o = WEIR_CONTAINER(n, struct named, node);
        if (weir_str_eq(name, weir_cstr(o->name))) return o;
    }
    return NULL;
}

void config_remember(struct parser *p, struct weir_table *t, const char *name, const struct node *n, size_t word, size_t index)
{
    struct named *o = weir_arena_alloc(&p->tree, sizeof *o);
    if (!o) return;
    o->name = name;
    o->at = n;
    o->word = word;
    o->index = index;
    (void)!weir_table_put(t, &o->node, weir_hash(weir_cstr(name)));
}

void config_taken(struct parser *p, const struct node *n, size_t word, const struct named *first)
{
    const struct node *blamed = n, *other = first->at;
    if (n->source->same && !other->source->same) {
        blamed = other;
        other = n;
        word = first->word;
    }
    const struct weir_config_place place = {other->source->name, other->words[0].line, other->words[0].column};
    config_twice(p, blamed, word, &place);
}

void config_parser_fini(struct parser *p)
{
    weir_table_fini(&p->pool_names);
    weir_table_fini(&p->host_names);
    weir_arena_fini(&p->tree);
}

static bool allocate(struct parser *p)
{
    size_t sites = 0, names = 0, pools = 0, addresses = 0, missing = 0;
    for (const struct node *n = p->first; n; n = n->next) {
        bool site = node_is(n, "site");
        sites += site;
        if (site) names += n->count;
        pools += node_is(n, "pool");
        missing += site;
        for (const struct node *k = n->children; k; k = k->next) {
            if (node_is(k, "listen") || node_is(k, "address")) addresses += k->count;
            missing += site && node_is(k, "route");
        }
    }
    if (p->any_lost) pools += missing; /* each can name one that is not there */
    p->pool_cap = pools;
    p->listener_cap = addresses + 1;
    p->key_cap = 2 * sites + names + 2;
    p->c->keys = config_alloc(p, p->key_cap * sizeof *p->c->keys);
    p->c->sites = config_alloc(p, (sites + 1) * sizeof *p->c->sites);
    p->c->pools = config_alloc(p, (pools + 1) * sizeof *p->c->pools);
    p->c->shared = config_alloc(p, (pools + 1) * sizeof *p->c->shared);
    p->c->listeners = config_alloc(p, p->listener_cap * sizeof *p->c->listeners);
    return p->c->keys && p->c->sites && p->c->pools && p->c->shared && p->c->listeners;
}

static void read_all(struct parser *p)
{
    const struct node *weir = NULL;
    size_t listeners = 0;
    for (const struct node *n = p->first; n; n = n->next) listeners += node_is(n, "listener");
    const char **names = config_alloc(p, (listeners + 1) * sizeof *names);
    if (!names) return;
    listeners = 0;
    read_weir(p, p->program);
    p->c->place = (struct weir_config_place){config_keep(p, weir_cstr(p->sources->count ? p->sources->list[0].name : "weir")), 1, 1};
    for (const struct node *n = p->first; n; n = n->next) {
        if (node_is(n, "weir")) {
            if (weir) {
                struct weir_config_place first = config_place(p, weir);
                config_twice(p, n, 0, &first);
            }
            weir = n;
            p->c->place = config_place(p, n);
            read_weir(p, n);
        } else if (node_is(n, "listener")) {
            names[listeners++] = config_keep(p, n->words[1].text);
            config_read_listener(p, n);
        } else if (node_is(n, "pool")) {
            config_read_pool(p, n);
        }
    }
    p->own_listeners = names;
    config_publish(p);
    for (const struct node *n = p->first; n; n = n->next)
        if (node_is(n, "site")) config_read_site(p, n);
}

static void free_config(struct weir_config *c)
{
    weir_arena_fini(&c->arena);
    free(c);
}

int weir_config_parse(const struct weir_config_sources *s, struct weir_config **out, struct weir_config_report *report)
{
    struct parser p = {0};
    size_t errors = report->errors;
    bool fine = config_gather(&p, s, report) && allocate(&p);
    if (fine) read_all(&p);
    config_parser_fini(&p);
    if (!fine || report->errors > errors) {
        if (p.c) free_config(p.c);
        return fine ? WEIR_INVALID : WEIR_NOMEM;
    }
    *out = p.c;
    return WEIR_OK;
}

struct weir_config *weir_config_hold(struct weir_config *c)
{
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void weir_config_drop(struct weir_config *c)
{
    if (c && __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) == 0) free_config(c);
}

void weir_config_report_init(struct weir_config_report *r)
{
    *r = (struct weir_config_report){0};
    weir_arena_init(&r->arena, 4u << 20);
}

void weir_config_report_fini(struct weir_config_report *r)
{
    weir_arena_fini(&r->arena);
}

bool weir_config_has_mistakes(const struct weir_config_report *r, const char *file)
{
    for (size_t i = 0; i < r->bad_count; i++)
        if (strcmp(r->bad[i], file) == 0) return true;
    return false;
}

void weir_config_report_print(const struct weir_config_report *r, FILE *to)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct weir_config_message *m = &r->list[i];
        fprintf(to, "weir: %s:%u:%u: %s%s%s%s\n", m->file, m->line, m->column,
                m->level == WEIR_CONFIG_WARNING ? "warning: " : "", m->text, m->advice[0] ? ": " : "", m->advice);
    }
    if (r->dropped) fprintf(to, "weir: and %zu more of them\n", r->dropped);
}

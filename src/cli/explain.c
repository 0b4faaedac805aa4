/* SPDX-License-Identifier: MIT */
/* `weir explain`: what would be done with a request, and why: found out by the gateway's own code, printed here. */
#include "gateway/explain.h"

#include <argp.h>
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"

#define HEADERS_MAX 100
#define KEY_FROM    256

struct explain {
    struct weir_explain_options o;
    struct weir_pair headers[HEADERS_MAX];
    const char *file;
    bool json;
    char user[64]; /* whose rights files were looked at with */
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT "]", 0},
    {"method", 'X', "METHOD", 0, "the request's method [GET]", 0},
    {"header", 'H', "'NAME: VALUE'", 0, "a header of the request, several times for several", 0},
    {"from", KEY_FROM, "ADDRESS", 0, "the client's address [127.0.0.1]", 0},
    {"json", 'j', NULL, 0, "print as JSON", 0},
    {0}};

static bool read_header(struct explain *x, const char *text)
{
    const char *colon = strchr(text, ':'), *value = colon ? colon + 1 : NULL;
    if (!colon || x->o.header_count == HEADERS_MAX) return false;
    while (*value == ' ' || *value == '\t') value++;
    x->headers[x->o.header_count++] = (struct weir_pair){weir_str(text, (size_t)(colon - text)), weir_cstr(value)};
    return true;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct explain *x = state->input;
    if (key == 'c') x->file = arg;
    else if (key == 'X') x->o.method = arg;
    else if (key == 'j') x->json = true;
    else if (key == KEY_FROM) x->o.from = arg;
    else if (key == ARGP_KEY_ARG && !x->o.url) x->o.url = arg;
    else if (key == ARGP_KEY_ARG || (key == ARGP_KEY_END && !x->o.url)) argp_usage(state);
    else if (key == 'H' && !read_header(x, arg)) argp_error(state, "%s is no header: write 'Name: value'", arg);
    else if (key != 'H' && key != ARGP_KEY_END) return ARGP_ERR_UNKNOWN;
    return 0;
}

/* Root may read more than the gateway: what counts is what the gateway sees. */
static void become_gateway(struct explain *x)
{
    const struct passwd *own = getpwuid(geteuid()), *gw;
    snprintf(x->user, sizeof x->user, "%.60s", own ? own->pw_name : "?");
    if (geteuid() != 0 || !(gw = getpwnam(x->o.conf->gateway_user))) return;
    if (initgroups(gw->pw_name, gw->pw_gid) < 0 || setgid(gw->pw_gid) < 0 || setuid(gw->pw_uid) < 0) return;
    snprintf(x->user, sizeof x->user, "%.60s", gw->pw_name);
}

/* ---- text ---- */

static void put(struct weir_str s)
{
    char out[1024];
    for (size_t at = 0; at < s.len; at += sizeof out / 4) {
        size_t n = s.len - at < sizeof out / 4 ? s.len - at : sizeof out / 4;
        fwrite(out, 1, weir_text_escape(out, sizeof out, s.ptr + at, n), stdout);
    }
}

static void put_place(const struct weir_config_place *p)
{
    if (p->line) printf("  (%s:%u:%u)", p->file, p->line, p->column);
}

static const char *kind_of(const struct weir_conf_pool *p)
{
    switch (p->kind) {
    case WEIR_POOL_RUN: return "run";
    case WEIR_POOL_PHP: return "php";
    case WEIR_POOL_CGI: return "cgi";
    case WEIR_POOL_CONNECT: return "connect";
    }
    return "";
}

static const char *const roles[] = {"authorizer", "responder", "filter"};

static void put_steps(const struct weir_explanation *e, enum weir_explain_kind kind, const char *title)
{
    static const char *const good[] = {"yes", "pass", "yes"}, *const bad[] = {"no", "refuse", "no"};
    for (size_t i = 0; i < e->step_count; i++) {
        const struct weir_explain_step *s = &e->steps[i];
        if (s->kind != kind) continue;
        printf("%-10s", title);
        put(weir_cstr(s->what));
        printf(": %s, ", s->good ? good[kind] : bad[kind]);
        put(weir_cstr(s->why));
        put_place(&s->place);
        putchar('\n');
        title = "";
    }
}

static const char *const balances[] = {"the least busy of two is asked", "by hash of the parameter ", "by hash of the cookie "};

static void put_pool(const struct weir_conf_pool *p)
{
    printf("%-10s%s: %s", "pool", p->name, kind_of(p));
    for (size_t i = 0; i < p->argc; i++) printf(" %s", p->argv[i]);
    put_place(&p->place);
    putchar('\n');
    for (size_t i = 0; i < p->endpoint_count; i++) {
        const struct weir_conf_endpoint *o = &p->endpoints[i];
        printf("%-10s%s: workers %u", i ? "" : "endpoints", o->address, o->workers);
        if (o->weight > 1) printf(", weight %u", o->weight);
        puts(o->backup ? ", backup" : "");
    }
    if (p->endpoint_count > 1) printf("%-10s%s%.*s\n", "", balances[p->balance], (int)p->balance_key.len, p->balance_key.ptr ? p->balance_key.ptr : "");
    if (p->broken) printf("%-10s%s\n", "", p->broken);
}

static void put_asked(const struct weir_explain_asked *a)
{
    put_pool(a->pool);
    for (size_t i = 0; i < a->param_count; i++) {
        if (!weir_str_eq(a->params[i].name, WEIR_STR("SCRIPT_FILENAME"))) continue;
        printf("%-10s", "script");
        put(a->params[i].value);
        putchar('\n');
    }
    printf("parameters, role %s\n", roles[a->role]);
    for (size_t i = 0; i < a->param_count; i++) {
        fputs("    ", stdout);
        put(a->params[i].name);
        putchar('=');
        put(a->params[i].value);
        puts(a->params[i].known ? "" : "        # supposed: a client's request decides");
    }
}

static void put_answer(const struct weir_explanation *e)
{
    printf("%-10s", "answer");
    if (e->status) printf("%d", e->status);
    else fputs(e->served ? "what the application says" : "none", stdout);
    if (e->why) printf(": %s", e->why);
    putchar('\n');
    for (size_t i = 0; i < e->field_count; i++) {
        fputs("    ", stdout);
        put(e->fields[i].name);
        fputs(": ", stdout);
        put(e->fields[i].value);
        putchar('\n');
    }
}

static void print_text(const struct explain *x, const struct weir_explanation *e)
{
    printf("%-10s%s ", "request", x->o.method);
    put(weir_cstr(x->o.url));
    putchar('\n');
    if (e->listener) {
        printf("%-10s%s", "listener", e->listener->address.text);
        put_place(&e->listener->place);
        putchar('\n');
    } else {
        printf("%-10snone:", "listener");
        for (size_t i = 0; i < x->o.conf->listener_count; i++) printf("%s %s", i ? "," : " the configuration has", x->o.conf->listeners[i].address.text);
        putchar('\n');
    }
    if (e->site) {
        printf("%-10s%s: %s", "site", e->site->name_count ? e->site->names[0] : "*", e->site_why);
        put_place(&e->site->place);
        putchar('\n');
    }
    put_steps(e, WEIR_EXPLAIN_ROUTE, "routes");
    put_steps(e, WEIR_EXPLAIN_GUARD, "guards");
    if (e->route && e->route->root) {
        printf("%-10s%s", "root", e->route->root);
        if (e->root_problem) printf(": cannot be opened by %s: %s", x->user, e->root_problem);
        putchar('\n');
    }
    put_steps(e, WEIR_EXPLAIN_FILE, "files");
    for (size_t i = 0; i < e->asked_count; i++) put_asked(&e->asked[i]);
    put_answer(e);
}

/* ---- JSON ---- */

/* As it is where it is UTF-8; else with \xHH for what is not, and all its bytes beside it. */
static void set_text(json_t *o, const char *key, struct weir_str s)
{
    json_t *text = json_stringn(s.ptr ? s.ptr : "", s.len);
    if (text) {
        json_object_set_new(o, key, text);
        return;
    }
    char name[64], *out = malloc(s.len * 4 + 1);
    if (!out) return;
    json_object_set_new(o, key, json_stringn(out, weir_text_escape(out, s.len * 4, s.ptr, s.len)));
    for (size_t i = 0; i < s.len; i++) sprintf(out + i * 2, "%02x", (unsigned char)s.ptr[i]);
    snprintf(name, sizeof name, "%s_hex", key);
    json_object_set_new(o, name, json_stringn(out, s.len * 2));
    free(out);
}

static void set_place(json_t *o, const struct weir_config_place *p)
{
    if (!p->line) return;
    set_text(o, "file", weir_cstr(p->file));
    json_object_set_new(o, "line", json_integer(p->line));
    json_object_set_new(o, "column", json_integer(p->column));
}

static json_t *json_steps(const struct weir_explanation *e, enum weir_explain_kind kind, const char *name, const char *good)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->step_count; i++) {
        const struct weir_explain_step *s = &e->steps[i];
        if (s->kind != kind) continue;
        json_t *o = json_object();
        set_text(o, name, weir_cstr(s->what));
        json_object_set_new(o, good, json_boolean(s->good));
        set_text(o, "why", weir_cstr(s->why));
        set_place(o, &s->place);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *json_pairs(const struct weir_pair *f, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *o = json_object();
        set_text(o, "name", f[i].name);
        set_text(o, "value", f[i].value);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *json_asked(const struct weir_explain_asked *a)
{
    json_t *o = json_object(), *endpoints = json_array(), *params = json_array();
    json_object_set_new(o, "role", json_string(roles[a->role]));
    set_text(o, "pool", weir_cstr(a->pool->name));
    json_object_set_new(o, "kind", json_string(kind_of(a->pool)));
    set_place(o, &a->pool->place);
    for (size_t i = 0; i < a->pool->endpoint_count; i++) {
        const struct weir_conf_endpoint *e = &a->pool->endpoints[i];
        json_t *one = json_object();
        set_text(one, "address", weir_cstr(e->address));
        json_object_set_new(one, "workers", json_integer(e->workers));
        json_object_set_new(one, "weight", json_integer(e->weight));
        json_object_set_new(one, "backup", json_boolean(e->backup));
        json_array_append_new(endpoints, one);
    }
    json_object_set_new(o, "endpoints", endpoints);
    for (size_t i = 0; i < a->param_count; i++) {
        json_t *p = json_object();
        set_text(p, "name", a->params[i].name);
        set_text(p, "value", a->params[i].value);
        json_object_set_new(p, "known", json_boolean(a->params[i].known));
        json_array_append_new(params, p);
    }
    json_object_set_new(o, "params", params);
    return o;
}

static json_t *json_named(const char *name, const struct weir_config_place *place)
{
    json_t *o = json_object();
    set_text(o, "name", weir_cstr(name));
    set_place(o, place);
    return o;
}

static void print_json(const struct explain *x, const struct weir_explanation *e)
{
    json_t *all = json_object(), *asked = json_array(), *answer = json_object();
    set_text(all, "method", weir_cstr(x->o.method));
    set_text(all, "url", weir_cstr(x->o.url));
    if (e->listener) json_object_set_new(all, "listener", json_named(e->listener->address.text, &e->listener->place));
    if (e->site) {
        json_t *site = json_named(e->site->name_count ? e->site->names[0] : "*", &e->site->place);
        json_object_set_new(site, "why", json_string(e->site_why));
        json_object_set_new(all, "site", site);
    }
    json_object_set_new(all, "routes", json_steps(e, WEIR_EXPLAIN_ROUTE, "route", "matches"));
    json_object_set_new(all, "guards", json_steps(e, WEIR_EXPLAIN_GUARD, "guard", "passes"));
    if (e->route && e->route->root) {
        json_t *root = json_object();
        set_text(root, "path", weir_cstr(e->route->root));
        set_text(root, "user", weir_cstr(x->user));
        if (e->root_problem) set_text(root, "problem", weir_cstr(e->root_problem));
        json_object_set_new(all, "root", root);
    }
    json_object_set_new(all, "files", json_steps(e, WEIR_EXPLAIN_FILE, "path", "exists"));
    for (size_t i = 0; i < e->asked_count; i++) json_array_append_new(asked, json_asked(&e->asked[i]));
    json_object_set_new(all, "asked", asked);
    json_object_set_new(answer, "by", json_string(e->status || !e->served ? "weir" : "application"));
    if (e->status) json_object_set_new(answer, "status", json_integer(e->status));
    if (e->why) set_text(answer, "reason", weir_cstr(e->why));
    json_object_set_new(answer, "headers", json_pairs(e->fields, e->field_count));
    json_object_set_new(all, "answer", answer);
    json_object_set_new(all, "served", json_boolean(e->served));
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

/* ---- the command ---- */

/* Nothing of an included file with mistakes is used, as when Weir starts. False: none of them is to blame. */
static bool drop_bad(struct weir_config_sources *src, const struct weir_config_report *r)
{
    bool dropped = false;
    if (!src->count || weir_config_has_mistakes(r, src->list[0].name)) return false;
    for (size_t i = 1; i < src->count; i++) {
        struct weir_config_source *s = &src->list[i];
        if (s->lost || !weir_config_has_mistakes(r, s->name)) continue;
        weir_config_source_lose(s);
        dropped = true;
    }
    return dropped;
}

/* Tells the mistakes. False: the configuration cannot be used. */
static bool read_config(struct explain *x, struct weir_config_sources *src)
{
    struct weir_config_report report;
    bool again = true, fine = false;
    weir_config_report_init(&report);
    int status = weir_config_read(x->file, src, &report);
    while (status == WEIR_OK && again) {
        status = weir_config_parse(src, &x->o.conf, &report);
        fine = status == WEIR_OK && report.errors == 0 && report.later == 0;
        again = !fine && drop_bad(src, &report);
        if (!again) break;
        weir_config_report_print(&report, stderr);
        weir_config_report_fini(&report);
        weir_config_report_init(&report);
        weir_config_drop(x->o.conf);
        x->o.conf = NULL;
        status = WEIR_OK;
    }
    if (!fine) weir_config_report_print(&report, stderr);
    weir_config_report_fini(&report);
    return fine && x->o.conf;
}

static int explain(struct explain *x)
{
    struct weir_explanation e;
    const char *problem = NULL;
    become_gateway(x);
    int status = weir_gateway_explain(&x->o, &e, &problem), exit_status = 2;
    if (status < 0) {
        fprintf(stderr, "weir: %s\n", status == WEIR_INVALID && problem ? problem : status == WEIR_SYSTEM ? strerror(errno) : weir_strerror(status));
    } else {
        if (x->json) print_json(x, &e);
        else print_text(x, &e);
        exit_status = e.served ? 0 : 1;
    }
    weir_explanation_free(&e);
    return exit_status;
}

int weir_cmd_explain(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "URL",
                                     "Tells what would be done with a request, and why: listener, site, routes, guards, files, pool, and every "
                                     "FastCGI parameter.\vNobody is asked: no application, no other server, not the running weir. As root, files are "
                                     "looked at with the rights of the gateway's user. The exit status is 0 if the request would be served, 1 if it "
                                     "would be refused, 2 for wrong usage or a configuration with mistakes.", NULL, NULL, NULL};
    struct explain x = {.file = WEIR_CONFIG_DEFAULT, .o = {.method = "GET"}};
    struct weir_config_sources src = {0};
    int status = 2;
    x.o.headers = x.headers;
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &x);
    if (read_config(&x, &src)) status = explain(&x);
    weir_config_drop(x.o.conf);
    weir_config_sources_free(&src);
    return status;
}

/* SPDX-License-Identifier: MIT */
/* `weir check`: every mistake of a configuration, in one run. */
#include <argp.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "config/config.h"

struct check {
    const char *file, *effective;
    bool json;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT "]", 0},
    {"effective", 'e', "NAME", 0, "print each value of this pool or site (or weir, the program's own), with its place", 0},
    {"json", 'j', NULL, 0, "print as JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct check *o = state->input;
    if (key == 'c' || key == ARGP_KEY_ARG) o->file = arg;
    else if (key == 'e') o->effective = arg;
    else if (key == 'j') o->json = true;
    else return ARGP_ERR_UNKNOWN;
    (void)state;
    return 0;
}

static void print_json(const struct weir_config_report *r)
{
    static const char *const levels[] = {"error", "warning", "later"};
    json_t *list = json_array();
    for (size_t i = 0; i < r->count; i++) {
        const struct weir_config_message *m = &r->list[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i, s:s, s:s}", "level", levels[m->level], "file", m->file, "line",
                                              (int)m->line, "column", (int)m->column, "message", m->text, "advice", m->advice));
    }
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static void print_effective_json(const struct weir_config_effective_list *e, const char *name)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->count; i++) {
        const struct weir_config_effective *o = &e->list[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "setting", o->text, "file", o->place.file, "line", (int)o->place.line,
                                              "column", (int)o->place.column));
    }
    json_t *all = json_pack("{s:s, s:s, s:o}", "kind", e->kind, "name", name, "settings", list);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

static void print_effective(const struct weir_config_effective_list *e, const char *name)
{
    int width = 0;
    for (size_t i = 0; i < e->count; i++) {
        int n = (int)strlen(e->list[i].text);
        if (n > width && n <= 48) width = n;
    }
    printf("%s%s%s {\n", e->kind, strcmp(e->kind, "weir") == 0 ? "" : " ", strcmp(e->kind, "weir") == 0 ? "" : name);
    for (size_t i = 0; i < e->count; i++) {
        const struct weir_config_effective *o = &e->list[i];
        if (strcmp(o->place.file, "built-in") == 0) printf("    %-*s  # built-in\n", width, o->text);
        else printf("    %-*s  # %s:%u:%u\n", width, o->text, o->place.file, o->place.line, o->place.column);
    }
    puts("}");
}

static int effective(const struct check *o, const struct weir_config_sources *src, struct weir_config_report *report)
{
    struct weir_config_effective_list e;
    int status = weir_config_effective(src, o->effective, &e, report);
    if (status == WEIR_INVALID) fprintf(stderr, "weir: %s has no pool and no site \"%s\"\n", o->file, o->effective);
    else if (status < 0) fprintf(stderr, "weir: %s\n", weir_strerror(status));
    else if (o->json) print_effective_json(&e, o->effective);
    else print_effective(&e, o->effective);
    weir_arena_fini(&e.arena);
    return status < 0 || report->errors;
}

int weir_cmd_check(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "[FILE]",
                                     "Finds the mistakes of a configuration: syntax, names, values, references, and what "
                                     "this machine lacks (users, programs, folders, rights).\vThe exit status is 0 if nothing is wrong, 1 if "
                                     "there is any mistake (where only a pool cannot be started on this machine, weir serve runs without it).", NULL, NULL, NULL};
    struct check o = {.file = WEIR_CONFIG_DEFAULT};
    struct weir_config_sources src = {0};
    struct weir_config_report report;
    struct weir_config *conf = NULL;
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    weir_config_report_init(&report);
    if (o.effective) {
        int status = 1;
        if (weir_config_read(o.file, &src, &report) == WEIR_OK) status = effective(&o, &src, &report);
        weir_config_report_print(&report, stderr);
        weir_config_sources_free(&src);
        weir_config_report_fini(&report);
        return status;
    }
    if (weir_config_read(o.file, &src, &report) == WEIR_OK && weir_config_parse(&src, &conf, &report) == WEIR_OK) {
        weir_config_check_machine(conf, geteuid() == 0, &report);
        weir_config_check_keys(conf, &report);
    }
    if (o.json) print_json(&report);
    else weir_config_report_print(&report, stderr);
    bool fine = report.errors == 0 && report.later == 0;
    if (fine && !o.json)
        printf("%s: fine (%zu sites, %zu pools)\n", o.file, conf ? conf->site_count : 0, conf ? conf->pool_count : 0);
    weir_config_drop(conf);
    weir_config_sources_free(&src);
    weir_config_report_fini(&report);
    return fine ? 0 : 1;
}

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
    const char *file;
    bool json;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT "]", 0},
    {"json", 'j', NULL, 0, "print the messages as JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct check *o = state->input;
    if (key == 'c' || key == ARGP_KEY_ARG) o->file = arg;
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

int weir_cmd_check(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "[FILE]",
                                     "Finds the mistakes of a configuration: syntax, names, values, references, and what "
                                     "this machine lacks (users, programs, folders).\vThe exit status is 0 if weir would "
                                     "start with it, 1 if not.", NULL, NULL, NULL};
    struct check o = {.file = WEIR_CONFIG_DEFAULT};
    struct weir_config_sources src = {0};
    struct weir_config_report report;
    struct weir_config *conf = NULL;
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    weir_config_report_init(&report);
    if (weir_config_read(o.file, &src, &report) == WEIR_OK && weir_config_parse(&src, &conf, &report) == WEIR_OK)
        weir_config_check_machine(conf, geteuid() == 0, &report);
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

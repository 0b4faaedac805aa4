/* SPDX-License-Identifier: MIT */
/* `weir suspend`, `resume`, `deny`, `allow`: orders about sites and addresses. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/ask.h"
#include "cli/cli.h"
#include "config/config.h"
#include "weir/weir.h"

struct words {
    const char *socket, *name, *message, *page, *time;
    bool json, list;
};
enum { OPT_FOR = 256, OPT_LIST, OPT_PAGE };

static const struct argp_option common[] = {
    {"socket", 's', "PATH", 0, "the control socket [" WEIR_CONTROL_SOCKET " as root]", 0}, {"json", 'j', NULL, 0, "print the answer as JSON", 0}, {0}};
static const struct argp_option of_suspend[] = {
    {"message", 'm', "TEXT", 0, "what visitors read [Please come back later.]", 0}, {"page", OPT_PAGE, "FILE", 0, "a page of HTML instead, at most 32 KiB", 0}, {0}};
static const struct argp_option of_deny[] = {
    {"for", OPT_FOR, "TIME", 0, "30s, 10m, 1h, 7d [until it is allowed, or Weir ends]", 0}, {"list", OPT_LIST, NULL, 0, "show what is denied", 0}, {0}};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    struct words *w = state->input;
    if (key == 's') w->socket = arg;
    else if (key == 'j') w->json = true;
    else return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct words *w = state->input;
    if (key == ARGP_KEY_INIT) state->child_inputs[0] = w;
    else if (key == 'm') w->message = arg;
    else if (key == OPT_PAGE) w->page = arg;
    else if (key == OPT_FOR) w->time = arg;
    else if (key == OPT_LIST) w->list = true;
    else if (key == ARGP_KEY_ARG && !w->name) w->name = arg;
    else if (key == ARGP_KEY_ARG) argp_usage(state);
    else if (key == ARGP_KEY_END && !w->name && !w->list) argp_usage(state);
    else return ARGP_ERR_UNKNOWN;
    return 0;
}

static void read_words(int argc, char **argv, const struct argp_option *options, const char *args, const char *doc, struct words *w)
{
    static const struct argp below = {common, parse_common, NULL, NULL, NULL, NULL, NULL};
    static const struct argp_child children[] = {{&below, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, args, doc, children, NULL, NULL};
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, w);
}

/* A page, NUL behind it; NULL, and why was said. */
static char *read_page(const char *path)
{
    static char text[WEIR_CONFIG_PAGE_MAX + 2];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, WEIR_CONFIG_PAGE_MAX + 1, f) : 0;
    const char *why = !f || ferror(f) ? strerror(errno) : n > WEIR_CONFIG_PAGE_MAX ? "it is larger than 32 KiB" : memchr(text, 0, n) ? "it is no text" : NULL;
    if (f) fclose(f);
    if (why) fprintf(stderr, "weir: %s: %s\n", path, why);
    text[n] = 0;
    return why ? NULL : text;
}

int weir_cmd_suspend(int argc, char **argv)
{
    struct words w = {0};
    read_words(argc, argv, of_suspend, "SITE", "Answers every request of a site 503 with a page that says so, until `weir resume SITE`; also over restarts. Its apps go on.", &w);
    if (w.message && w.page) {
        fputs("weir: give a message or a page, not both\n", stderr);
        return 2;
    }
    const char *text = w.page ? read_page(w.page) : w.message ? w.message : "";
    if (!text) return 1;
    json_t *q = json_pack("{s:s, s:s, s:s, s:b}", "command", "suspend", "name", w.name, "text", text, "page", w.page != NULL);
    return weir_print_answer(weir_ask(w.socket, q), w.json, NULL);
}

int weir_cmd_resume(int argc, char **argv)
{
    struct words w = {0};
    read_words(argc, argv, NULL, "SITE", "Lets a suspended site serve again.", &w);
    return weir_print_answer(weir_ask(w.socket, json_pack("{s:s, s:s}", "command", "resume", "name", w.name)), w.json, NULL);
}

/* Seconds of "1h"; 0: no time. */
static long long seconds_of(const char *text)
{
    char *end;
    static const struct {
        const char *unit;
        long long seconds;
    } units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    errno = 0;
    long long n = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof units[0] && !errno && n > 0 && n < 1000000000; i++)
        if (strcmp(end, units[i].unit) == 0) return n * units[i].seconds;
    return 0;
}

static void print_denied(const json_t *a)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(a, "denied"), i, o)
    {
        const json_t *left = json_object_get(o, "seconds");
        printf("%-40s %s", json_string_value(json_object_get(o, "address")), strcmp(json_string_value(json_object_get(o, "by")), "file") == 0 ? "deny file" : "order");
        if (left) printf(", %lld s left", (long long)json_integer_value(left));
        putchar('\n');
    }
}

int weir_cmd_deny(int argc, char **argv)
{
    struct words w = {0};
    read_words(argc, argv, of_deny, "ADDRESS[/BITS]\n--list", "Closes connections from an address or a network at once, IPv4 or IPv6; those that are open are refused with their next request.", &w);
    long long seconds = w.time ? seconds_of(w.time) : 0;
    if ((w.time && !seconds) || (w.list && (w.name || w.time))) {
        fprintf(stderr, w.list ? "weir: --list stands alone\n" : "weir: \"%s\" is no time: write 30s, 10m, 1h, 7d\n", w.time);
        return 2;
    }
    json_t *q = json_pack("{s:s, s:s*, s:I}", "command", "deny", "name", w.name, "seconds", (json_int_t)seconds);
    return weir_print_answer(weir_ask(w.socket, q), w.json, print_denied);
}

int weir_cmd_allow(int argc, char **argv)
{
    struct words w = {0};
    read_words(argc, argv, NULL, "ADDRESS[/BITS]", "Takes back what `weir deny` ordered.", &w);
    return weir_print_answer(weir_ask(w.socket, json_pack("{s:s, s:s}", "command", "allow", "name", w.name)), w.json, NULL);
}

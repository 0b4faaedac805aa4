/* SPDX-License-Identifier: MIT */
/* `weir`: finds the subcommand. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "weir/weir.h"

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "run everything: web server, FastCGI server, apps (a folder or a file)", weir_cmd_serve},
    {"gateway", "run the web server alone, for apps that others own", weir_cmd_gateway},
    {"supervise", "run the FastCGI server alone, without a web server", weir_cmd_supervise},
    {"check", "find mistakes in a configuration", weir_cmd_check},
    {"explain", "tell what would be done with a request, and why", weir_cmd_explain},
    {"status", "show pools, processes and queues of the running weir", weir_cmd_status},
    {"reload", "read the configuration again", weir_cmd_reload},
    {"restart", "restart a pool, or the gateway", weir_cmd_restart},
    {"scale", "change how many processes, or workers, a pool has, until the next reload", weir_cmd_scale},
    {"stop", "end a pool; its requests are answered 503", weir_cmd_stop},
    {"drain", "end a pool and cut nothing", weir_cmd_drain},
    {"suspend", "answer a site's requests with a page that says so", weir_cmd_suspend},
    {"resume", "let a suspended site serve again", weir_cmd_resume},
    {"deny", "close connections from an address or a network", weir_cmd_deny},
    {"allow", "take a denied address back", weir_cmd_allow},
    {"reopen", "open log files anew, after a rotation", weir_cmd_reopen},
    {"upgrade", "become the version that is installed now, and lose nothing", weir_cmd_upgrade},
    {"call", "send one request to a FastCGI application", weir_cmd_call},
    {"control", NULL, weir_cmd_control},
};
#define COUNT (sizeof commands / sizeof commands[0])

static void help(FILE *to)
{
    fputs("Usage: weir COMMAND [OPTION...]\n\n"
          "Weir is FastCGI, whole: persistent application processes, the web server that\n"
          "sends them requests, and the tools for both.\n\n", to);
    for (size_t i = 0; i < COUNT; i++)
        if (commands[i].what) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].what);
    fputs("\n`weir COMMAND --help` tells more, and so do weir(1) and weir.conf(5).\n", to);
}

static const char *nearest(const char *word)
{
    for (size_t i = 0; i < COUNT; i++) /* the same beginning is near enough for a handful of names */
        if (commands[i].what && strncmp(commands[i].name, word, 2) == 0) return commands[i].name;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("weir " WEIR_VERSION);
        return 0;
    }
    for (size_t i = 0; i < COUNT; i++) {
        char name[32]; /* as usage and errors show it */
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        snprintf(name, sizeof name, "weir %s", commands[i].name);
        argv[1] = name;
        return commands[i].run(argc - 1, argv + 1);
    }
    const char *near = nearest(argv[1]);
    fprintf(stderr, "weir: there is no command \"%s\"%s%s%s; see weir --help\n", argv[1], near ? ": did you mean \"" : "",
            near ? near : "", near ? "\"?" : "");
    return 2;
}

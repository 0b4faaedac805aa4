/* SPDX-License-Identifier: MIT */
/* `weir gateway`: the web server, alone or as a child of the root part (then WEIR_LINK and WEIR_ROOT name its descriptors). */
#include "gateway/gateway.h"

#include <argp.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "cli/cli.h"

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT "]", 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct weir_gateway_options *o = state->input;
    if (key == 'c') o->config_path = arg;
    else if (key == ARGP_KEY_ARG) argp_usage(state);
    else return ARGP_ERR_UNKNOWN;
    return 0;
}

static int fd_from(const char *name)
{
    const char *s = getenv(name);
    int fd = s ? atoi(s) : -1;
    unsetenv(name);
    return fd >= 3 ? fd : -1;
}

int weir_cmd_gateway(int argc, char **argv)
{
    static const struct argp argp = {options, parse, NULL,
                                     "Runs the web server alone: sites and files, with apps that others own "
                                     "(pools with connect).\vSIGHUP reads the configuration again, SIGTERM ends it when what runs has ended.",
                                     NULL, NULL, NULL};
    struct weir_gateway_options o = {.link_fd = fd_from("WEIR_LINK"), .root_fd = fd_from("WEIR_ROOT")};
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (o.link_fd < 0 && !o.config_path) o.config_path = WEIR_CONFIG_DEFAULT;
    return weir_gateway_run(&o);
}

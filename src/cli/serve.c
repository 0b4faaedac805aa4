/* SPDX-License-Identifier: MIT */
/* `weir serve` and `weir supervise`: find the root part beside this program and become it; `weir control` is its child. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "config/config.h"
#include "control/control.h"
#include "weir/weir.h"

struct serve {
    const char *config, *dir, *listen;
    bool no_sites, watch;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT " if no folder is named]", 0},
    {"listen", 'l', "URL", 0, "for a folder: where to listen [http://127.0.0.1:8080]", 0},
    {"watch", 'w', NULL, 0, "restart a pool when its program changes, reload when the configuration does", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct serve *o = state->input;
    switch (key) {
    case 'c': o->config = arg; return 0;
    case 'l': o->listen = arg; return 0;
    case 'w': o->watch = true; return 0;
    case ARGP_KEY_ARG:
        if (o->dir || o->no_sites) argp_usage(state);
        o->dir = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->dir && o->config) argp_error(state, "name a folder or a configuration, not both");
        if (o->listen && !o->dir) argp_error(state, "--listen is for a folder: a configuration says it itself");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Whom control and gateway run as. The file is read by a child without rights: root parses no configuration. */
static bool find_users(const char *config, struct weir_config_users *out)
{
    int fd = open(config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), p[2];
    if (fd < 0 || pipe2(p, O_CLOEXEC) < 0) {
        fprintf(stderr, "weir: %s: %s\n", config, strerror(errno));
        if (fd >= 0) close(fd);
        return false;
    }
    pid_t child = fork();
    if (child == 0) {
        struct weir_config_users users;
        memset(&users, 0, sizeof users);
        if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)) _exit(1);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        weir_config_users(fd, &users);
        _exit(write(p[1], &users, sizeof users) == (ssize_t)sizeof users ? 0 : 1);
    }
    close(fd);
    close(p[1]);
    ssize_t n = child > 0 ? read(p[0], out, sizeof *out) : -1;
    close(p[0]);
    if (child > 0) waitpid(child, NULL, 0);
    bool fine = n == (ssize_t)sizeof *out && memchr(out->control, 0, sizeof out->control) && memchr(out->gateway, 0, sizeof out->gateway);
    if (!fine) fprintf(stderr, "weir: %s could not be read\n", config);
    return fine;
}

static int become_root_part(const struct serve *o)
{
    char self[PATH_MAX], config[PATH_MAX], dir[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) {
        fprintf(stderr, "weir: cannot read /proc/self/exe: %s: /proc has to be mounted\n", strerror(errno));
        return 1;
    }
    self[n] = 0;
    char supervise[PATH_MAX];
    if (!weir_config_own_program("weir-supervise", supervise, sizeof supervise)) {
        fprintf(stderr, "weir: weir-supervise is not installed beside %s\n", self);
        return 1;
    }
    const char *argv[20];
    struct weir_config_users users;
    int argc = 0;
    argv[argc++] = supervise;
    argv[argc++] = "--weir";
    argv[argc++] = self;
    if (!o->dir) {
        const char *name = o->config ? o->config : WEIR_CONFIG_DEFAULT;
        if (!realpath(name, config)) {
            fprintf(stderr, "weir: %s: %s\n", name, strerror(errno));
            return 1;
        }
        if (!find_users(config, &users)) return 1;
        argv[argc++] = "--user";
        argv[argc++] = users.control;
        argv[argc++] = "--gateway-user";
        argv[argc++] = users.gateway;
        argv[argc++] = "--config";
        argv[argc++] = config;
        argv[argc++] = "--";
        argv[argc++] = "--config";
        argv[argc++] = config;
    } else {
        if (!realpath(o->dir, dir)) {
            fprintf(stderr, "weir: %s: %s\n", o->dir, strerror(errno));
            return 1;
        }
        argv[argc++] = "--";
        argv[argc++] = "--dir";
        argv[argc++] = dir;
        argv[argc++] = "--listen";
        argv[argc++] = o->listen ? o->listen : "http://127.0.0.1:8080";
    }
    if (o->no_sites) argv[argc++] = "--no-sites";
    if (o->watch) argv[argc++] = "--watch";
    argv[argc] = NULL;
    execv(supervise, (char **)(uintptr_t)argv);
    fprintf(stderr, "weir: %s: %s\n", supervise, strerror(errno));
    return 1;
}

int weir_cmd_serve(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "[DIR]",
                                     "Runs everything in the foreground: the web server, the FastCGI server and its "
                                     "application processes.\vA folder needs no configuration: its files, *.php if "
                                     "php-fpm or php-cgi is installed, executable *.fcgi as persistent apps. Ctrl-C ends it all.",
                                     NULL, NULL, NULL};
    struct serve o = {0};
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    return become_root_part(&o);
}

int weir_cmd_supervise(int argc, char **argv)
{
    static const struct argp_option only[] = {{"config", 'c', "FILE", 0, "the configuration [" WEIR_CONFIG_DEFAULT "]", 0},
                                             {"watch", 'w', NULL, 0, "restart a pool when its program changes, reload when the configuration does", 0},
                                             {0}};
    static const struct argp argp = {only, parse, NULL, "Runs the FastCGI server without a web server: the pools of the configuration.",
                                     NULL, NULL, NULL};
    struct serve o = {.no_sites = true};
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    return become_root_part(&o);
}

int weir_cmd_control(int argc, char **argv)
{
    const char *fd = getenv("WEIR_ROOT"), *dir = getenv("WEIR_DIR"), *privileged = getenv("WEIR_PRIVILEGED"), *state = getenv("WEIR_STATE");
    struct weir_control_options o = {.run_dir = dir};
    if (!fd || !dir) {
        fputs("weir control is started by weir-supervise\n", stderr);
        return 2;
    }
    o.state_dir = state && state[0] == '/' ? state : NULL;
    o.root_fd = atoi(fd);
    o.privileged = privileged && privileged[0] == '1';
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) o.config_path = argv[++i];
        else if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) o.dir = argv[++i];
        else if (strcmp(argv[i], "--listen") == 0 && i + 1 < argc) o.listen = argv[++i];
        else if (strcmp(argv[i], "--no-sites") == 0) o.no_sites = 1;
        else if (strcmp(argv[i], "--watch") == 0) o.watch = 1;
    }
    return weir_control_run(&o);
}

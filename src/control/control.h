/* SPDX-License-Identifier: MIT */
/* control: configuration, desired and actual state, generations, the control socket, the output of apps. It may crash: the
 * root part starts it anew and tells it what runs. */
#ifndef WEIR_CONTROL_H
#define WEIR_CONTROL_H

struct weir_control_options {
    int root_fd;              /* to the root part */
    const char *run_dir;
    int privileged;           /* the root part is root */
    const char *config_path;  /* as the user named it; NULL: a folder is served */
    const char *dir, *listen; /* weir serve DIR */
    int no_sites;             /* weir supervise */
    int watch;                /* pools restart when their programs change, and the configuration is read again when it does */
    const char *state_dir;    /* for what outlives everything; NULL: there is none */
};
/* Runs until the root part ends it: the exit status. */
int weir_control_run(const struct weir_control_options *o);
#endif

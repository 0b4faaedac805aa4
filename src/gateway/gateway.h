/* SPDX-License-Identifier: MIT */
/* gateway: the web server. Ties http, cgi and client together: sites, routes, files, logs. This header is all that the
 * command line needs. */
#ifndef WEIR_GATEWAY_H
#define WEIR_GATEWAY_H

#include "config/config.h"

struct weir_gateway_options {
    const char *config_path; /* standalone: this file; NULL: control tells by the link */
    int link_fd;             /* to control; -1: standalone */
    int root_fd;             /* on which the root part hands over a new link; -1 */
};
/* Runs until it was told to end: the exit status. Standalone: SIGTERM and SIGINT drain, SIGHUP reads the file again. */
int weir_gateway_run(const struct weir_gateway_options *o);
#endif

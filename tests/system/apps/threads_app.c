/* SPDX-License-Identifier: MIT */
/* For the system tests: handlers that wait, on four threads. /big/BYTES writes so many, /sleep/MS sleeps, anything else
 * is a short line. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weir/app.h>

static int handle(struct weir_app_req *req, void *arg)
{
    static char block[65536];
    const char *path = weir_app_req_param(req, "PATH_INFO");
    (void)arg;
    if (path && strncmp(path, "/sleep/", 7) == 0) {
        long ms = strtol(path + 7, NULL, 10);
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    }
    if (!path || strncmp(path, "/big/", 5) != 0) return weir_app_req_printf(req, WEIR_STDOUT, "short\n") < 0;
    for (size_t left = strtoul(path + 5, NULL, 10); left;) {
        size_t n = left < sizeof block ? left : sizeof block;
        if (weir_app_req_write(req, WEIR_STDOUT, block, n) < 0) return 1;
        left -= n;
    }
    return 0;
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 4;
    options.handler = handle;
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0 || weir_app_run(app) < 0) return 1;
    weir_app_free(app);
    return 0;
}

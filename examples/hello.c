/* SPDX-License-Identifier: MIT */
/* The smallest app, in the style where handlers may block: each of 8 threads serves one request at a time. */
#include <signal.h>
#include <stdio.h>

#include <weir/app.h>

static int hello(struct weir_app_req *req, void *arg)
{
    const char *name = weir_app_req_param(req, "QUERY_STRING");
    (void)arg;
    return weir_app_req_printf(req, WEIR_STDOUT, "Hello, %s!\n", name && *name ? name : "world") < 0;
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 8;
    options.handler = hello;
    int status = weir_app_new(&app, &options);
    if (status == WEIR_OK) {
        status = weir_app_drain_on(app, SIGTERM);
        if (status == WEIR_OK) status = weir_app_run(app);
        weir_app_free(app);
    }
    if (status < 0) fprintf(stderr, "hello: %s\n", weir_strerror(status));
    return status < 0;
}

/* SPDX-License-Identifier: MIT */
/* An authorizer: it is asked before each request of a site, and lets those pass that bring a known token:
 *
 *     Authorization: Bearer TOKEN
 *
 * Status 200 passes; what its headers Variable-NAME say becomes parameters of the request. Any other status, with its headers and its
 * body, is the answer to the client. An authorizer gets neither the body nor CONTENT_LENGTH. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <weir/app.h>

static const struct {
    const char *token, *user;
} known[] = {{"open-sesame", "alibaba"}, {"cassim-forgot", "cassim"}};

static const char *user_of(const struct weir_app_req *req)
{
    const char *said = weir_app_req_param(req, "HTTP_AUTHORIZATION");
    if (!said || strncmp(said, "Bearer ", 7) != 0) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(said + 7, known[i].token) == 0) return known[i].user;
    return NULL;
}

static int refuse(struct weir_app_req *req)
{
    if (weir_app_req_status(req, 401) < 0) return 1;
    if (weir_app_req_header(req, "WWW-Authenticate", "Bearer realm=\"the cave\"") < 0) return 1;
    return weir_app_req_printf(req, WEIR_STDOUT, "The cave stays closed.\n") < 0;
}

static int authorize(struct weir_app_req *req, void *arg)
{
    const char *user = user_of(req);
    (void)arg;
    if (!user) return refuse(req);
    if (weir_app_req_header(req, "Variable-REMOTE_USER", user) < 0) return 1;
    return weir_app_req_header(req, "Variable-AUTH_TYPE", "Bearer") < 0;
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 4;
    options.handler = authorize;
    options.roles = WEIR_APP_ROLE_AUTHORIZER; /* requests of other roles are refused */
    int status = weir_app_new(&app, &options);
    if (status == WEIR_OK) {
        status = weir_app_drain_on(app, SIGTERM);
        if (status == WEIR_OK) status = weir_app_run(app);
        weir_app_free(app);
    }
    if (status < 0) fprintf(stderr, "authorizer: %s\n", weir_strerror(status));
    return status < 0;
}

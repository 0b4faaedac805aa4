/* SPDX-License-Identifier: MIT */
/* For the system tests: an app of all three roles. As authorizer it decides by the query: yes, no, login, redirect, broken, silent, die,
 * or by X-User: who that is passes. As filter it writes the file in capitals behind a line about what it got. As responder it tells its
 * parameters and how many bytes of body came. */
#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <weir/app.h>

static const char *param(struct weir_app_req *req, const char *name)
{
    const char *value = weir_app_req_param(req, name);
    return value ? value : "";
}

static int grant(struct weir_app_req *req, const char *user)
{
    int bad = weir_app_req_header(req, "Variable-REMOTE_USER", user) < 0 || weir_app_req_header(req, "variable-AUTH_METHOD", "by hand") < 0 ||
              weir_app_req_header(req, "Variable-HAS_SCRIPT_NAME", weir_app_req_param(req, "SCRIPT_NAME") ? "yes" : "no") < 0 ||
              weir_app_req_header(req, "Variable-HAS_CONTENT_LENGTH", weir_app_req_param(req, "CONTENT_LENGTH") ? "yes" : "no") < 0 ||
              weir_app_req_header(req, "X-Other", "is dropped") < 0;
    return bad || weir_app_req_printf(req, WEIR_STDOUT, "this is dropped, too\n") < 0;
}

static int refuse(struct weir_app_req *req, int status, const char *name, const char *value)
{
    int bad = weir_app_req_status(req, status) < 0 || weir_app_req_header(req, "Variable-SECRET", "no client sees it") < 0 ||
              (name && weir_app_req_header(req, name, value) < 0);
    return bad || weir_app_req_printf(req, WEIR_STDOUT, "status %d\n", status) < 0;
}

static int authorize(struct weir_app_req *req)
{
    const char *how = param(req, "QUERY_STRING"), *user = param(req, "HTTP_X_USER");
    if (weir_app_req_printf(req, WEIR_STDERR, "asked for %s\n", param(req, "REQUEST_URI")) < 0) return 1;
    if (strcmp(how, "no") == 0) return refuse(req, 403, NULL, NULL);
    if (strcmp(how, "login") == 0) return refuse(req, 401, "WWW-Authenticate", "Basic realm=\"x\"");
    if (strcmp(how, "redirect") == 0) return refuse(req, 302, "Location", "http://login.test/");
    if (strcmp(how, "inside") == 0) return weir_app_req_header(req, "Location", "/open/login?yes") < 0;
    if (strcmp(how, "broken") == 0) {
        static const char nothing[] = "no header\n\n";
        return weir_app_req_own_header(req) < 0 || weir_app_req_write(req, WEIR_STDOUT, nothing, sizeof nothing - 1) < 0;
    }
    while (strcmp(how, "silent") == 0 && !weir_app_req_aborted(req)) nanosleep(&(struct timespec){0, 5000000}, NULL);
    if (strcmp(how, "die") == 0) abort();
    return grant(req, *user ? user : "alice");
}

static int filter(struct weir_app_req *req)
{
    char buf[16384];
    int64_t n, body = 0;
    while ((n = weir_app_req_read(req, WEIR_STDIN, buf, sizeof buf)) > 0) body += n;
    if (n < 0) return 1;
    if (strcmp(param(req, "HTTP_X_USER"), "to") == 0 && strcmp(param(req, "SCRIPT_NAME"), "/t.txt") != 0) { /* behind a part of the file */
        return weir_app_req_read(req, WEIR_DATA, buf, sizeof buf) < 0 || weir_app_req_header(req, "Location", "/t.txt?yes") < 0;
    }
    int bad = weir_app_req_printf(req, WEIR_STDOUT, "%s %s %s %s body %" PRId64 "\n", param(req, "SCRIPT_NAME"), param(req, "FCGI_DATA_LENGTH"),
                                  param(req, "FCGI_DATA_LAST_MOD"), param(req, "REMOTE_USER"), body) < 0;
    if (bad || strcmp(param(req, "QUERY_STRING"), "cached") == 0) return bad; /* it does not need the file */
    while ((n = weir_app_req_read(req, WEIR_DATA, buf, sizeof buf)) > 0) {
        for (int64_t i = 0; i < n; i++) buf[i] = (char)toupper((unsigned char)buf[i]);
        if (weir_app_req_write(req, WEIR_STDOUT, buf, (size_t)n) < 0) return 1;
    }
    return n < 0;
}

static int respond(struct weir_app_req *req)
{
    char buf[16384];
    int64_t n, body = 0;
    struct weir_pair p;
    while ((n = weir_app_req_read(req, WEIR_STDIN, buf, sizeof buf)) > 0) body += n;
    if (n < 0) return 1;
    for (size_t i = 0; weir_app_req_param_at(req, i, &p) == WEIR_OK; i++)
        if (weir_app_req_printf(req, WEIR_STDOUT, "%s=%s\n", p.name.ptr, p.value.ptr) < 0) return 1;
    return weir_app_req_printf(req, WEIR_STDOUT, "body %" PRId64 "\n", body) < 0;
}

static int handle(struct weir_app_req *req, void *arg)
{
    (void)arg;
    switch (weir_app_req_role(req)) {
    case WEIR_AUTHORIZER: return authorize(req);
    case WEIR_FILTER: return filter(req);
    default: return respond(req);
    }
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 4;
    options.handler = handle;
    options.roles = WEIR_APP_ROLE_RESPONDER | WEIR_APP_ROLE_AUTHORIZER | WEIR_APP_ROLE_FILTER;
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0 || weir_app_run(app) < 0) return 1;
    weir_app_free(app);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* The program of the interoperability matrix (tests/system/interop) on libweir, a responder and an
 * authorizer: its query says what it does. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <weir/app.h>

static const char *param(const struct weir_app_req *req, const char *name)
{
    const char *value = weir_app_req_param(req, name);
    return value ? value : "";
}

/* What follows WORD in the query, NULL if it begins otherwise. */
static const char *told(const struct weir_app_req *req, const char *word)
{
    const char *query = param(req, "QUERY_STRING");
    return strncmp(query, word, strlen(word)) == 0 ? query + strlen(word) : NULL;
}

static void touch(const char *path)
{
    FILE *f = fopen(path, "w");
    if (f) fclose(f);
}

static int write_all(struct weir_app_req *req, const void *data, size_t len)
{
    return weir_app_req_write(req, WEIR_STDOUT, data, len) < 0;
}

static int get(struct weir_app_req *req)
{
    return weir_app_req_status(req, 203) < 0 ||
           weir_app_req_header(req, "X-Matrix", "from the program") < 0 ||
           weir_app_req_printf(
               req, WEIR_STDOUT,
               "REQUEST_METHOD=%s\nQUERY_STRING=%s\nHTTP_X_MATRIX=%s\nMATRIX_USER=%s\n",
               param(req, "REQUEST_METHOD"), param(req, "QUERY_STRING"),
               param(req, "HTTP_X_MATRIX"), param(req, "MATRIX_USER")) < 0;
}

/* The whole body, then it again: not every server reads an answer while it sends. */
static int echo(struct weir_app_req *req)
{
    size_t len = 0, room = 1 << 20;
    char *body = malloc(room), *more;
    int64_t n = -1;
    while (body && (n = weir_app_req_read(req, WEIR_STDIN, body + len, room - len)) > 0) {
        len += (size_t)n;
        if (len < room) continue;
        more = realloc(body, room *= 2);
        if (!more) break;
        body = more;
    }
    int failed = n != 0 || write_all(req, body, len);
    free(body);
    return failed;
}

static int big(struct weir_app_req *req)
{
    char block[1024];
    for (size_t i = 0; i < sizeof block; i++) block[i] = "0123456789abcdef"[i % 16];
    for (int i = 0; i < 1024; i++)
        if (write_all(req, block, sizeof block)) return 1;
    return 0;
}

/* Writes until nobody takes it. */
static int until_gone(struct weir_app_req *req, const char *noticed)
{
    static char block[16384];
    for (int i = 0; i < 2000; i++) {
        if (write_all(req, block, sizeof block)) {
            touch(noticed);
            return 1;
        }
        weir_app_req_flush(req);
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    return 1;
}

static void wait_until_exists(const char *path)
{
    for (int i = 0; i < 4000 && access(path, F_OK) != 0; i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
}

static int authorize(struct weir_app_req *req)
{
    if (strcmp(param(req, "HTTP_X_MATRIX"), "let me in") == 0)
        return weir_app_req_status(req, 200) < 0 ||
               weir_app_req_header(req, "Variable-MATRIX_USER", "ada") < 0;
    return weir_app_req_status(req, 403) < 0 ||
           weir_app_req_printf(req, WEIR_STDOUT, "not you\n") < 0;
}

static int respond(struct weir_app_req *req)
{
    const char *rest;
    if (strcmp(param(req, "REQUEST_METHOD"), "POST") == 0) return echo(req);
    if (told(req, "big")) return big(req);
    if ((rest = told(req, "gone="))) return until_gone(req, rest);
    if ((rest = told(req, "hold="))) wait_until_exists(rest);
    if ((rest = told(req, "err=")) && weir_app_req_printf(req, WEIR_STDERR, "%s\n", rest) < 0)
        return 1;
    return get(req);
}

static int handle(struct weir_app_req *req, void *arg)
{
    (void)arg;
    return weir_app_req_role(req) == WEIR_AUTHORIZER ? authorize(req) : respond(req);
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 8;
    options.handler = handle;
    options.roles = WEIR_APP_ROLE_RESPONDER | WEIR_APP_ROLE_AUTHORIZER | WEIR_APP_ROLE_FILTER;
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0 ||
        weir_app_run(app) < 0)
        return 1;
    weir_app_free(app);
    return 0;
}

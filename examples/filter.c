/* SPDX-License-Identifier: MIT */
/* A filter: the server opens the file, the filter makes the answer of it; here with a number in front of each line. It also runs as a
 * responder that numbers the lines of the request's body. The text is worked on as it comes: a file of any size takes 32 KiB. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <weir/app.h>

struct numbering {
    struct weir_app_req *req;
    unsigned long line;
    int inside; /* a line has begun */
};

/* Zero, or a status: nobody takes the answer any more. */
static int64_t put(struct numbering *n, const char *p, size_t len)
{
    while (len) {
        const char *newline = memchr(p, '\n', len);
        size_t part = newline ? (size_t)(newline - p) + 1 : len;
        if (!n->inside) {
            int64_t number = weir_app_req_printf(n->req, WEIR_STDOUT, "%6lu  ", ++n->line);
            if (number < 0) return number;
        }
        int64_t written = weir_app_req_write(n->req, WEIR_STDOUT, p, part);
        if (written < 0) return written;
        n->inside = newline == NULL;
        p += part;
        len -= part;
    }
    return 0;
}

static int number_lines(struct weir_app_req *req, void *arg)
{
    struct numbering n = {req, 0, 0};
    char piece[16384];
    int64_t len;
    (void)arg;
    if (weir_app_req_role(req) == WEIR_FILTER) { /* the body comes first, and is to be read to its end before the file */
        do len = weir_app_req_read(req, WEIR_STDIN, piece, sizeof piece);
        while (len > 0);
        if (len < 0) return 1;
    }
    enum weir_stream text = weir_app_req_role(req) == WEIR_FILTER ? WEIR_DATA : WEIR_STDIN;
    while ((len = weir_app_req_read(req, text, piece, sizeof piece)) > 0)
        if (put(&n, piece, (size_t)len) < 0) return 1;
    return len < 0;
}

int main(void)
{
    struct weir_app_options options;
    struct weir_app *app;
    weir_app_options_init(&options);
    options.threads = 4;
    options.handler = number_lines;
    options.roles = WEIR_APP_ROLE_FILTER | WEIR_APP_ROLE_RESPONDER;
    int status = weir_app_new(&app, &options);
    if (status == WEIR_OK) {
        status = weir_app_drain_on(app, SIGTERM);
        if (status == WEIR_OK) status = weir_app_run(app);
        weir_app_free(app);
    }
    if (status < 0) fprintf(stderr, "filter: %s\n", weir_strerror(status));
    return status < 0;
}

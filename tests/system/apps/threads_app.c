/* SPDX-License-Identifier: MIT */
/* For the system tests: handlers that wait, on four threads. /big/BYTES writes so many, /sleep/MS sleeps, /ticks/COUNT/MS
 * writes a line each MS, /once/MS notes the id of the query in the file WEIR_TEST_IDS, sleeps, and answers the id and how
 * many bytes of body came; anything else is a short line. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <weir/app.h>

static void wait_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static int big(struct weir_app_req *req, size_t left)
{
    static char block[65536];
    while (left) {
        size_t n = left < sizeof block ? left : sizeof block;
        if (weir_app_req_write(req, WEIR_STDOUT, block, n) < 0) return 1;
        left -= n;
    }
    return 0;
}

static int ticks(struct weir_app_req *req, const char *how)
{
    char *end;
    long count = strtol(how, &end, 10), ms = *end ? strtol(end + 1, NULL, 10) : 0;
    if (weir_app_req_header(req, "Content-Type", "text/event-stream") < 0) return 1;
    for (long i = 0; i < count; i++) {
        if (weir_app_req_printf(req, WEIR_STDOUT, "data: %ld\n\n", i) < 0) return 1;
        weir_app_req_flush(req);
        wait_ms(ms);
    }
    return 0;
}

static int once(struct weir_app_req *req, long ms)
{
    char line[160], body[4096];
    const char *ids = getenv("WEIR_TEST_IDS"), *query = weir_app_req_param(req, "QUERY_STRING");
    int64_t n, all = 0;
    int len = snprintf(line, sizeof line, "%.128s %d\n", query ? query : "", (int)getpid());
    int fd = ids ? open(ids, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd < 0 || write(fd, line, (size_t)len) != len) return 1;
    close(fd);
    while ((n = weir_app_req_read(req, WEIR_STDIN, body, sizeof body)) > 0) all += n;
    wait_ms(ms);
    return n < 0 || weir_app_req_printf(req, WEIR_STDOUT, "%.128s %lld\n", query ? query : "", (long long)all) < 0;
}

static int handle(struct weir_app_req *req, void *arg)
{
    const char *path = weir_app_req_param(req, "PATH_INFO");
    (void)arg;
    if (path && strncmp(path, "/once/", 6) == 0) return once(req, strtol(path + 6, NULL, 10));
    if (path && strncmp(path, "/ticks/", 7) == 0) return ticks(req, path + 7);
    if (path && strncmp(path, "/big/", 5) == 0) return big(req, strtoul(path + 5, NULL, 10));
    if (path && strncmp(path, "/sleep/", 7) == 0) wait_ms(strtol(path + 7, NULL, 10));
    return weir_app_req_printf(req, WEIR_STDOUT, "short\n") < 0;
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

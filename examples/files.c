/* SPDX-License-Identifier: MIT */
/* Answers whose body is a file, in events style: weir_app_req_write_fd() takes the descriptor, the library reads and sends as the client
 * takes it, and the program thinks of the request no more. QUERY_STRING may say FIRST-LAST, a range of bytes.
 *
 *     files DIRECTORY      PATH_INFO is the name of a file in it */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <weir/app.h>

static int fail(struct weir_app_req *req, int status, const char *why)
{
    if (weir_app_req_status(req, status) < 0) return 1;
    return weir_app_req_printf(req, WEIR_STDOUT, "%s\n", why) < 0;
}

/* One name, no folder: nothing above or below the directory. */
static int open_named(int dir, const char *path)
{
    if (!path || path[0] != '/' || path[1] == '.' || strchr(path + 1, '/')) return -1;
    return openat(dir, path + 1, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

static int send_file(struct weir_app_req *req, int fd)
{
    const char *range = weir_app_req_param(req, "QUERY_STRING");
    char length[24];
    int64_t first = 0, last;
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return fail(req, 403, "That is no file.");
    last = st.st_size - 1;
    if (range && *range && (sscanf(range, "%" SCNd64 "-%" SCNd64, &first, &last) != 2 || first < 0 || last >= st.st_size || first > last))
        return fail(req, 416, "There is no such range.");
    snprintf(length, sizeof length, "%" PRId64, last - first + 1);
    if (weir_app_req_header(req, "Content-Type", "application/octet-stream") < 0) return 1;
    if (weir_app_req_header(req, "Content-Length", length) < 0) return 1;
    return weir_app_req_write_fd(req, fd, first, last - first + 1) < 0;
}

static int answer(struct weir_app_req *req, int dir)
{
    int fd = open_named(dir, weir_app_req_param(req, "PATH_INFO"));
    if (fd < 0) return fail(req, 404, "There is no such file.");
    int bad = send_file(req, fd);
    close(fd); /* the library has its own of it */
    return bad;
}

int main(int argc, char **argv)
{
    struct weir_app_options options;
    struct weir_app_event ev = {.type = WEIR_APP_REQUEST};
    struct weir_app *app;
    int dir = argc == 2 ? open(argv[1], O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0) {
        fprintf(stderr, "usage: files DIRECTORY\n");
        return 2;
    }
    weir_app_options_init(&options);
    if (weir_app_new(&app, &options) < 0 || weir_app_drain_on(app, SIGTERM) < 0) return 1;
    while (ev.type != WEIR_APP_DRAINED && weir_app_step(app, -1) == WEIR_OK) {
        while (weir_app_next(app, &ev) == WEIR_OK && ev.type != WEIR_APP_DRAINED) {
            if (ev.type == WEIR_APP_REQUEST) weir_app_req_end(ev.req, (uint32_t)answer(ev.req, dir)); /* the file goes on behind it */
            else if (ev.type == WEIR_APP_ABORT) weir_app_req_end(ev.req, 0);
        }
        weir_app_flush(app);
    }
    weir_app_free(app);
    return ev.type != WEIR_APP_DRAINED;
}

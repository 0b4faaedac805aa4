/* SPDX-License-Identifier: MIT */
/* A program that was started as plain CGI (RFC 3875): a thread stands for its web server. It turns the environment and standard input
 * into one FastCGI request on a socket pair, whose other end is a connection like any other, and writes the answer to standard
 * output and standard error. It blocks in nothing but the write of these. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app/internal.h"

#define PIECE 16384

extern char **environ;

struct bridge {
    struct weir_app *app;
    struct weir_wire_server *wire;
    pthread_t thread;
    uint64_t left; /* of standard input: CONTENT_LENGTH bytes are the body, and no end of file may follow them */
    int fd;
    uint16_t id;
    bool ended;
};

/* Every variable is a parameter. */
static struct weir_pair *environment(size_t *count)
{
    size_t n = 0;
    while (environ && environ[n]) n++;
    struct weir_pair *pairs = calloc(n + 1, sizeof *pairs);
    *count = 0;
    for (size_t i = 0; pairs && i < n; i++) {
        const char *name = environ[i], *is = strchr(name, '=');
        if (is && is != name) pairs[(*count)++] = (struct weir_pair){weir_str(name, (size_t)(is - name)), weir_cstr(is + 1)};
    }
    return pairs;
}

static int begin(struct bridge *b)
{
    const char *length = getenv("CONTENT_LENGTH"), *role = getenv("FCGI_ROLE");
    size_t count;
    struct weir_pair *pairs = environment(&count);
    if (!pairs) return WEIR_NOMEM;
    if (!length || weir_str_u64(weir_cstr(length), INT64_MAX, &b->left) < 0) b->left = 0;
    bool authorizer = role && strcmp(role, "AUTHORIZER") == 0;
    int status = weir_wire_server_begin(b->wire, authorizer ? WEIR_AUTHORIZER : WEIR_RESPONDER, 0, 0, pairs, count, NULL, &b->id);
    free(pairs);
    if (status == WEIR_OK && b->left == 0) status = weir_wire_server_write_end(b->wire, b->id, WEIR_STDIN);
    return status;
}

static void write_all(int fd, struct weir_str s)
{
    while (s.len) {
        ssize_t n = write(fd, s.ptr, s.len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return; /* nobody reads it; the program goes on to its end, as a CGI program that ignores SIGPIPE */
        s = weir_str(s.ptr + n, s.len - (size_t)n);
    }
}

/* False: the connection is over. */
static bool send_some(struct bridge *b)
{
    const void *p;
    size_t len = weir_wire_server_output(b->wire, &p);
    ssize_t n = len ? send(b->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    weir_wire_server_sent(b->wire, (size_t)n);
    return true;
}

static bool receive_some(struct bridge *b)
{
    char piece[PIECE];
    struct weir_wire_event ev;
    ssize_t n = recv(b->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    weir_wire_server_feed(b->wire, piece, (size_t)n);
    while (weir_wire_server_next(b->wire, &ev) == WEIR_OK) {
        if (ev.type == WEIR_WIRE_EV_INPUT) write_all(ev.stream == WEIR_STDERR ? 2 : 1, ev.bytes);
        if (ev.type == WEIR_WIRE_EV_END || ev.type == WEIR_WIRE_EV_ERROR) b->ended = true;
    }
    return !b->ended;
}

/* A body that ends early is told as it is: its stream ends. */
static bool read_body(struct bridge *b)
{
    char piece[PIECE];
    ssize_t n = read(0, piece, b->left < sizeof piece ? (size_t)b->left : sizeof piece);
    if (n < 0 && errno == EINTR) return true;
    if (n > 0 && weir_wire_server_write(b->wire, b->id, WEIR_STDIN, piece, (size_t)n) != n) return false;
    b->left = n > 0 ? b->left - (uint64_t)n : 0;
    return b->left > 0 || weir_wire_server_write_end(b->wire, b->id, WEIR_STDIN) == WEIR_OK;
}

static bool goes_on(struct bridge *b)
{
    const void *p;
    bool full = weir_wire_server_output(b->wire, &p) > 0;
    struct pollfd f[2] = {{.fd = b->fd, .events = (short)(full ? POLLIN | POLLOUT : POLLIN)},
                          {.fd = b->left && !full ? 0 : -1, .events = POLLIN}};
    if (poll(f, 2, -1) < 0) return errno == EINTR;
    if (f[0].revents & POLLOUT && !send_some(b)) return false;
    if (f[0].revents & (POLLIN | POLLHUP | POLLERR) && !receive_some(b)) return false;
    return !f[1].revents || read_body(b);
}

static void *bridge_main(void *arg)
{
    struct bridge *b = arg;
    sigset_t all;
    sigfillset(&all); /* the program's signals are its own threads' */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (goes_on(b)) {}
    shutdown(b->fd, SHUT_RDWR);
    weir_app_drain(b->app);
    return NULL;
}

int weir_app_bridge_start(struct weir_app *a)
{
    int ends[2] = {-1, -1}, status = WEIR_NOMEM;
    struct bridge *b = calloc(1, sizeof *b);
    if (!b) return WEIR_NOMEM;
    b->app = a;
    status = weir_wire_server_new(&b->wire, NULL);
    if (status == WEIR_OK) status = begin(b);
    if (status == WEIR_OK && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) status = WEIR_SYSTEM;
    if (status == WEIR_OK) {
        b->fd = ends[0];
        status = weir_app_adopt(a, ends[1]);
        if (status == WEIR_OK) ends[1] = -1;
    }
    if (status == WEIR_OK && pthread_create(&b->thread, NULL, bridge_main, b) != 0) status = WEIR_SYSTEM;
    if (status == WEIR_OK) {
        a->bridge = b;
        return WEIR_OK;
    }
    for (size_t i = 0; i < 2; i++)
        if (ends[i] >= 0) close(ends[i]);
    weir_wire_server_free(b->wire);
    free(b);
    return status;
}

void weir_app_bridge_stop(struct weir_app *a)
{
    struct bridge *b = a->bridge;
    if (!b) return;
    pthread_join(b->thread, NULL);
    close(b->fd);
    weir_wire_server_free(b->wire);
    free(b);
}

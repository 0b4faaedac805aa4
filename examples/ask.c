/* SPDX-License-Identifier: MIT */
/* Where a web server stands: asks an app COUNT times at once, from within a foreign poll() loop, and prints the status, bytes and time
 * of each answer. What comes on standard input is the body of the last request, as it comes, its length not known before.
 *
 *     ask unix:/run/app.sock /path COUNT < body */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/client.h>

struct answer {
    struct weir_client_req *req;
    unsigned number;
    int streams;   /* its body is standard input */
    char head[16]; /* its first bytes: "Status: 404", if it is not 200 */
    size_t bytes;
};

static struct weir_client_req *taker; /* of standard input; NULL: not yet, or not any more */
static char body[16384];
static size_t body_at, body_len;
static int input_ended;

/* What was read goes out; then more is read, when poll() says so. */
static void give_body(void)
{
    if (!taker) return;
    if (body_at < body_len) {
        int64_t n = weir_client_write(taker, body + body_at, body_len - body_at);
        if (n > 0) body_at += (size_t)n; /* the rest after ROOM; negative: the answer is there already */
    }
    if (body_at == body_len && input_ended && weir_client_end_body(taker) != WEIR_AGAIN) taker = NULL;
}

static void read_input(void)
{
    ssize_t n = read(STDIN_FILENO, body, sizeof body);
    body_at = 0;
    body_len = n > 0 ? (size_t)n : 0;
    input_ended = n <= 0;
    give_body();
}

static void started(const struct answer *a)
{
    if (a->streams) taker = a->req;
    give_body();
}

static int print(const struct answer *a)
{
    struct weir_client_result r;
    weir_client_req_result(a->req, &r);
    int status = r.status < 0 ? 0 : strncmp(a->head, "Status: ", 8) == 0 ? atoi(a->head + 8) : 200;
    printf("%u: %d, %zu bytes, %.1f ms%s%s\n", a->number, status, a->bytes, (double)r.total_us / 1000, r.status < 0 ? ": " : "",
           r.status < 0 ? r.reason : "");
    return r.status < 0;
}

/* True: a request has ended. */
static int on_event(const struct weir_client_event *ev, int *failed)
{
    struct answer *a = ev->user;
    switch (ev->type) {
    case WEIR_CLIENT_STARTED: started(a); return 0;
    case WEIR_CLIENT_ROOM: give_body(); return 0;
    case WEIR_CLIENT_OUTPUT:
        if (ev->stream == WEIR_STDERR) {
            fwrite(ev->bytes.ptr, 1, ev->bytes.len, stderr);
        } else {
            for (size_t i = 0; i < ev->bytes.len && a->bytes + i < sizeof a->head - 1; i++) a->head[a->bytes + i] = ev->bytes.ptr[i];
            a->bytes += ev->bytes.len;
            weir_client_consume(ev->req, ev->bytes.len); /* all of it: nothing is held */
        }
        return 0;
    case WEIR_CLIENT_END:
        *failed |= print(a);
        if (taker == ev->req) taker = NULL;
        weir_client_req_free(ev->req);
        return 1;
    default: return 0;
    }
}

static int run(struct weir_client *c, unsigned count)
{
    struct weir_client_event ev;
    int failed = 0;
    while (count) {
        int hungry = taker && !input_ended && body_at == body_len;
        struct pollfd f[2] = {{.fd = weir_client_fd(c), .events = POLLIN}, {.fd = hungry ? STDIN_FILENO : -1, .events = POLLIN}};
        (void)poll(f, 2, weir_client_wait_ms(c));
        if (f[1].revents) read_input();
        if (weir_client_step(c, 0) < 0) return 1;
        while (weir_client_next(c, &ev) == WEIR_OK) count -= (unsigned)on_event(&ev, &failed);
        weir_client_flush(c);
    }
    return failed;
}

/* Parameters are borrowed until the last END: they live as long as run(). */
static int ask(struct weir_client *c, struct weir_pool *p, const char *path, struct answer *answers, unsigned count)
{
    const struct weir_pair params[] = {{{"REQUEST_METHOD", 14}, {"POST", 4}}, {{"PATH_INFO", 9}, {path, strlen(path)}}};
    struct weir_client_begin_options o;
    weir_client_begin_options_init(&o);
    o.params = params;
    o.param_count = 2;
    o.silent_ms = 10000;
    for (unsigned i = 0; i < count; i++) {
        struct answer *a = &answers[i];
        *a = (struct answer){.number = i + 1, .streams = i + 1 == count};
        o.user = a;
        o.body_len = a->streams ? WEIR_CLIENT_UNKNOWN : 0;
        int status = weir_client_begin(c, p, &o, &a->req);
        if (status < 0) return status;
        if (status == 1) started(a); /* else an event tells */
    }
    weir_client_flush(c);
    return run(c, count);
}

int main(int argc, char **argv)
{
    struct weir_client_group *group;
    struct weir_client *client;
    struct weir_pool *pool;
    struct weir_client_options co;
    struct weir_pool_options po;
    unsigned count = argc == 4 ? (unsigned)atoi(argv[3]) : 0;
    if (count < 1 || count > 1000) {
        fprintf(stderr, "usage: ask ADDRESS PATH COUNT\n");
        return 2;
    }
    const struct weir_endpoint_options app = {.id = 1, .address = argv[1], .workers = 4, .keep = true, .flow = true};
    struct answer *answers = calloc(count, sizeof *answers);
    setvbuf(stdout, NULL, _IOLBF, 0); /* each answer is told when it is there */
    weir_client_options_init(&co);
    weir_pool_options_init(&po);
    po.name = argv[1];
    if (!answers || weir_client_group_new(&group, 1) < 0 || weir_client_new(&client, group, &co) < 0 || weir_pool_new(&pool, group, &po) < 0) return 1;
    int status = weir_pool_set(pool, &app, 1);
    if (status == WEIR_OK) status = ask(client, pool, argv[2], answers, count);
    if (status < 0) fprintf(stderr, "ask: %s: %s\n", argv[1], weir_strerror(status));
    weir_client_free(client);
    weir_pool_free(pool);
    weir_client_group_free(group);
    free(answers);
    return status != 0;
}

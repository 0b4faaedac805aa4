/* SPDX-License-Identifier: MIT */
/* A load generator for what wrk does not measure. One thread, epoll, HTTP/1.1 with kept connections.
 *   load PORT PATH --connections N --seconds S                closed loop: answers of each client
 *   load ... --rate R                                         open loop: R requests a second at random times (the same ones in
 *                                                             each run), whatever the server does; each counts from when it was due
 *   load ... --read-rate B                                    each client reads B bytes a second
 * Prints one line of JSON. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum reading { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, LAST_CRLF };
struct client {
    int fd;
    int busy;
    enum reading state;
    int ok;
    uint64_t left, due_us, answers;
    uint64_t read_bytes, began_us;
    char line[8192];
    size_t len;
    struct client *next_idle;
};

static struct {
    int port, connections, seconds;
    double rate;
    uint64_t read_rate;
} o;
static char request[1024];
static struct client *clients, *idle_clients, **idle_last = &idle_clients;
static int epoll;
static uint32_t *times; /* us */
static size_t time_count, time_cap;
static uint64_t done, errors;

static uint64_t now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void set_idle(struct client *c)
{
    c->busy = 0;
    c->next_idle = NULL;
    *idle_last = c;
    idle_last = &c->next_idle;
}

static struct client *take_idle(void)
{
    struct client *c = idle_clients;
    idle_clients = c->next_idle;
    if (!idle_clients) idle_last = &idle_clients;
    return c;
}

static void open_client(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, small = 4096;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (o.read_rate) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = {.events = o.read_rate ? 0 : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0) fail("epoll");
    c->state = HEAD;
    c->len = 0;
}

static void send_request(struct client *c, uint64_t due)
{
    c->busy = 1;
    c->due_us = due;
    c->began_us = now_us();
    c->read_bytes = 0;
    size_t len = strlen(request);
    if (send(c->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len) { /* a small request always fits, or the peer is gone */
        errors++;
        close(c->fd);
        open_client(c);
        set_idle(c);
    }
}

static void answered(struct client *c, uint64_t now)
{
    uint64_t took = now - c->due_us;
    c->answers++;
    done++;
    if (!c->ok) errors++;
    if (time_count < time_cap) times[time_count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
    c->state = HEAD;
    c->len = 0;
    set_idle(c);
}

static const char *find_field(const char *head, const char *name)
{
    for (const char *p = strchr(head, '\n'); p; p = strchr(p + 1, '\n'))
        if (strncasecmp(p + 1, name, strlen(name)) == 0) return p + 1 + strlen(name);
    return NULL;
}

/* A line or the head is complete in c->line: what comes next. 1: the answer is complete. */
static int on_text(struct client *c)
{
    c->line[c->len] = 0;
    switch (c->state) {
    case HEAD: {
        if (c->len < 4 || memcmp(c->line + c->len - 4, "\r\n\r\n", 4) != 0) return 0;
        c->ok = strncmp(c->line, "HTTP/1.1 200", 12) == 0;
        const char *length = find_field(c->line, "Content-Length:");
        c->len = 0;
        if (length) {
            c->left = strtoull(length, NULL, 10);
            c->state = LENGTH;
            return c->left == 0;
        }
        c->state = CHUNK_SIZE;
        return 0;
    }
    case CHUNK_SIZE:
        if (c->len < 2 || c->line[c->len - 1] != '\n') return 0;
        c->left = strtoull(c->line, NULL, 16);
        c->state = c->left ? CHUNK_DATA : LAST_CRLF;
        c->len = 0;
        return 0;
    case CHUNK_CRLF:
    case LAST_CRLF:
        if (c->len < 2) return 0;
        c->len = 0;
        if (c->state == LAST_CRLF) return 1;
        c->state = CHUNK_SIZE;
        return 0;
    default: return 0;
    }
}

/* 1: an answer is complete. */
static int take(struct client *c, const char *p, size_t n)
{
    while (n) {
        if (c->state == LENGTH || c->state == CHUNK_DATA) {
            size_t k = n < c->left ? n : (size_t)c->left;
            p += k;
            n -= k;
            c->left -= k;
            if (c->left) continue;
            if (c->state == LENGTH) return 1;
            c->state = CHUNK_CRLF;
            continue;
        }
        if (c->len + 1 >= sizeof c->line) {
            fprintf(stderr, "load: an answer's head is too long\n");
            exit(1);
        }
        c->line[c->len++] = *p++;
        n--;
        if (on_text(c)) return 1;
    }
    return 0;
}

static void readable(struct client *c, size_t most)
{
    static char buf[65536];
    ssize_t n = recv(c->fd, buf, most < sizeof buf ? most : sizeof buf, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (c->busy) errors++;
        close(c->fd);
        open_client(c);
        if (c->busy) set_idle(c);
        return;
    }
    c->read_bytes += (uint64_t)n;
    if (take(c, buf, (size_t)n)) answered(c, now_us());
}

/* Each client takes what its rate allows by now. */
static void read_slowly(uint64_t now)
{
    for (int i = 0; i < o.connections; i++) {
        struct client *c = &clients[i];
        uint64_t allowed = (now - c->began_us) * o.read_rate / 1000000u;
        if (c->busy && allowed > c->read_bytes + 200) readable(c, (size_t)(allowed - c->read_bytes));
    }
}

/* The time until the next request is due: exponential. */
static double gap_us(void)
{
    static uint64_t x = 0x9e3779b97f4a7c15u;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    double u = (double)(x * 0x2545f4914f6cdd1du >> 11) / 9007199254740992.0;
    return -log(1 - u) * 1e6 / o.rate;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double p)
{
    if (!time_count) return 0;
    size_t i = (size_t)(p / 100 * (double)time_count);
    return times[i < time_count ? i : time_count - 1] / 1000.0;
}

static void run(void)
{
    uint64_t start = now_us(), end = start + (uint64_t)o.seconds * 1000000u;
    double due = (double)start;
    struct epoll_event ev[256];
    for (uint64_t now = start; now < end; now = now_us()) {
        if (o.rate == 0) {
            for (int i = 0; i < o.connections && idle_clients; i++) send_request(take_idle(), now_us());
        } else {
            for (; idle_clients && (uint64_t)due <= now; due += gap_us()) send_request(take_idle(), (uint64_t)due);
        }
        uint64_t next = o.rate > 0 ? (uint64_t)due : now + 10000;
        if (!idle_clients || o.read_rate) next = now + 10000;
        struct timespec wait = {.tv_nsec = next > now ? (long)(next - now) * 1000 : 0};
        int n = epoll_pwait2(epoll, ev, 256, &wait, NULL);
        for (int i = 0; i < n && !o.read_rate; i++) readable(ev[i].data.ptr, 65536);
        if (o.read_rate) read_slowly(now_us());
    }
}

static void report(void)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < o.connections; i++) {
        if (clients[i].answers < least) least = clients[i].answers;
        if (clients[i].answers > most) most = clients[i].answers;
    }
    qsort(times, time_count, sizeof *times, compare);
    printf("{\"requests\": %llu, \"errors\": %llu, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"least\": %llu, \"most\": %llu}\n",
           (unsigned long long)done, (unsigned long long)errors, percentile(50), percentile(99), percentile(100),
           (unsigned long long)least, (unsigned long long)most);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: load PORT PATH [--connections N] [--seconds S] [--rate R] [--read-rate B]\n");
        return 2;
    }
    o.port = atoi(argv[1]);
    o.connections = 64;
    o.seconds = 5;
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--connections") == 0) o.connections = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--seconds") == 0) o.seconds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--rate") == 0) o.rate = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--read-rate") == 0) o.read_rate = strtoull(argv[i + 1], NULL, 10);
        else {
            fprintf(stderr, "load: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", argv[2]);
    struct rlimit lim = {.rlim_cur = (rlim_t)o.connections + 100, .rlim_max = (rlim_t)o.connections + 100};
    struct rlimit have;
    if (getrlimit(RLIMIT_NOFILE, &have) == 0 && have.rlim_cur < lim.rlim_cur) setrlimit(RLIMIT_NOFILE, &lim);
    time_cap = 20000000;
    times = malloc(time_cap * sizeof *times); /* touched as it fills */
    clients = calloc((size_t)o.connections, sizeof *clients);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!times || !clients || epoll < 0) fail("start");
    for (int i = 0; i < o.connections; i++) {
        open_client(&clients[i]);
        set_idle(&clients[i]);
    }
    run();
    report();
    return 0;
}

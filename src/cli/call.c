/* SPDX-License-Identifier: MIT */
/* `weir call`: one request to a FastCGI application, what curl is for HTTP; and a health probe by its exit status. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgi/cgi.h"
#include "cli/cli.h"
#include "loop/loop.h"
#include "weir/wire.h"

#define BODY_MAX   (64u << 20)
#define PARAMS_MAX 512
enum { FINE = 0, BAD_ANSWER = 1, USAGE = 2, NO_ANSWER = 3 };

struct call {
    const char *address;
    struct weir_pair params[PARAMS_MAX];
    size_t count;
    enum weir_role role;
    int timeout_ms;
    bool json;
    struct weir_buf body, out, err;
    size_t sent;
    uint32_t app_status;
    uint8_t protocol_status;
    bool ended;
    const char *problem;
};

static const struct argp_option options[] = {
    {"role", 'r', "ROLE", 0, "responder, authorizer or filter [responder]", 0},
    {"timeout", 't', "SECONDS", 0, "give up after so long [10]", 0},
    {"json", 'j', NULL, 0, "print one object: status, headers, body, stderr", 0},
    {0}};

static void set(struct call *c, const char *name, size_t name_len, const char *value)
{
    struct weir_str n = weir_str(name, name_len);
    size_t i = 0;
    while (i < c->count && !weir_str_eq(c->params[i].name, n)) i++;
    if (i == PARAMS_MAX) argp_failure(NULL, 2, 0, "more than %d parameters", PARAMS_MAX);
    if (i == c->count) c->count++;
    c->params[i] = (struct weir_pair){n, weir_cstr(value)};
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct call *c = state->input;
    char *eq;
    switch (key) {
    case 'r':
        if (strcmp(arg, "responder") == 0) c->role = WEIR_RESPONDER;
        else if (strcmp(arg, "authorizer") == 0) c->role = WEIR_AUTHORIZER;
        else if (strcmp(arg, "filter") == 0) c->role = WEIR_FILTER;
        else argp_error(state, "there is no role \"%s\"", arg);
        return 0;
    case 't':
        c->timeout_ms = atoi(arg) * 1000;
        if (c->timeout_ms <= 0) argp_error(state, "the time-out is a number of seconds");
        return 0;
    case 'j': c->json = true; return 0;
    case ARGP_KEY_ARG:
        eq = strchr(arg, '=');
        if (!c->address) c->address = arg;
        else if (eq && eq != arg) set(c, arg, (size_t)(eq - arg), eq + 1);
        else argp_error(state, "\"%s\" is no NAME=VALUE", arg);
        return 0;
    case ARGP_KEY_END:
        if (!c->address) argp_error(state, "name an address: unix:/path or ADDRESS:port");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static bool has(const struct call *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (weir_str_eq(c->params[i].name, weir_cstr(name))) return true;
    return false;
}

static void preset(struct call *c, const char *name, const char *value)
{
    if (!has(c, name)) set(c, name, strlen(name), value);
}

/* A body only where somebody gives one: a pipe or a file, not a terminal. */
static int read_body(struct call *c)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) return FINE;
    for (;;) {
        char *to = weir_buf_room(&c->body, 65536);
        ssize_t n = to ? read(STDIN_FILENO, to, 65536) : -1;
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? USAGE : FINE;
        weir_buf_added(&c->body, (size_t)n);
        if (weir_buf_len(&c->body) > BODY_MAX) {
            fprintf(stderr, "weir: the body is larger than 64 MiB\n");
            return USAGE;
        }
    }
}

static void presets(struct call *c, char *length)
{
    size_t len = weir_buf_len(&c->body);
    length[weir_u64_text(length, len)] = 0;
    preset(c, "GATEWAY_INTERFACE", "CGI/1.1");
    preset(c, "SERVER_SOFTWARE", "weir/" WEIR_VERSION);
    preset(c, "SERVER_PROTOCOL", "HTTP/1.1");
    preset(c, "REQUEST_METHOD", len ? "POST" : "GET");
    preset(c, "SCRIPT_NAME", "/");
    preset(c, "REQUEST_URI", "/");
    preset(c, "QUERY_STRING", "");
    preset(c, "SERVER_NAME", "localhost");
    preset(c, "SERVER_PORT", "80");
    preset(c, "REMOTE_ADDR", "127.0.0.1");
    preset(c, "REMOTE_PORT", "0");
    preset(c, "REDIRECT_STATUS", "200");
    if (len) preset(c, "CONTENT_LENGTH", length);
    if (len) preset(c, "CONTENT_TYPE", "application/octet-stream");
}

static int64_t clock_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int open_connection(const struct call *c)
{
    struct sockaddr_storage to;
    uint32_t len;
    if (weir_address_parse(weir_cstr(c->address), &to, &len) < 0) {
        fprintf(stderr, "weir: \"%s\" is no address: write unix:/path or ADDRESS:port\n", c->address);
        return -USAGE;
    }
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {c->timeout_ms / 1000, c->timeout_ms % 1000 * 1000}; /* a full backlog would hold us for ever */
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, len) < 0) {
        fprintf(stderr, "weir: cannot connect to %s: %s\n", c->address, errno == EAGAIN || errno == EINPROGRESS ? "nobody accepts in time" : strerror(errno));
        if (fd >= 0) close(fd);
        return -NO_ANSWER;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void take_events(struct call *c, struct weir_wire_server *w)
{
    struct weir_wire_event ev;
    while (weir_wire_server_next(w, &ev) == WEIR_OK) {
        if (ev.type == WEIR_WIRE_EV_INPUT) {
            if (weir_buf_append(ev.stream == WEIR_STDERR ? &c->err : &c->out, ev.bytes.ptr, ev.bytes.len) < 0) c->problem = "out of memory";
        } else if (ev.type == WEIR_WIRE_EV_END) {
            c->ended = true;
            c->app_status = ev.app_status;
            c->protocol_status = ev.protocol_status;
        } else if (ev.type == WEIR_WIRE_EV_ERROR) {
            c->problem = ev.reason;
        }
    }
}

/* A filter gets an empty file behind the body. */
static bool end_input(const struct call *c, struct weir_wire_server *w, uint16_t id)
{
    return weir_wire_server_write_end(w, id, WEIR_STDIN) == WEIR_OK && (c->role != WEIR_FILTER || weir_wire_server_write_end(w, id, WEIR_DATA) == WEIR_OK);
}

static void give_body(struct call *c, struct weir_wire_server *w, uint16_t id)
{
    const void *out;
    size_t left = weir_buf_len(&c->body) - c->sent;
    if (!left || c->ended || weir_wire_server_output(w, &out) > 65536) return;
    int64_t n = weir_wire_server_write(w, id, WEIR_STDIN, weir_buf_ptr(&c->body) + c->sent, left < 65536 ? left : 65536);
    if (n <= 0) return;
    c->sent += (size_t)n;
    if (c->sent == weir_buf_len(&c->body) && !end_input(c, w, id)) c->problem = "out of memory";
}

/* Reads while it writes: an app may answer before it has read all. */
static void converse(struct call *c, struct weir_wire_server *w, int fd, uint16_t id)
{
    int64_t until = clock_us() + (int64_t)c->timeout_ms * 1000;
    while (!c->ended && !c->problem) {
        const void *out;
        char buf[65536];
        give_body(c, w, id);
        size_t len = weir_wire_server_output(w, &out);
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (len ? POLLOUT : 0))};
        int64_t left = until - clock_us();
        if (left <= 0 || poll(&p, 1, (int)(left / 1000) + 1) == 0) {
            c->problem = "no complete answer in time";
            return;
        }
        if (p.revents & POLLOUT) {
            ssize_t n = send(fd, out, len, MSG_NOSIGNAL);
            if (n > 0) weir_wire_server_sent(w, (size_t)n);
        }
        if (!(p.revents & (POLLIN | POLLHUP | POLLERR))) continue;
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) {
            c->problem = "the application closed the connection before END_REQUEST";
            return;
        }
        weir_wire_server_feed(w, buf, (size_t)n);
        take_events(c, w);
    }
}

static json_t *text_json(const char *p, size_t len)
{
    json_t *s = json_stringn(len ? p : "", len); /* NULL if it is not UTF-8 */
    if (s) return s;
    char *hex = malloc(len * 2 + 1);
    for (size_t i = 0; hex && i < len; i++) snprintf(hex + i * 2, 3, "%02x", (unsigned char)p[i]);
    s = hex ? json_pack("{s:s}", "hex", hex) : json_null();
    free(hex);
    return s;
}

static void print_json(const struct call *c, const struct weir_cgi_response *r, size_t head, int64_t us)
{
    json_t *headers = json_array();
    for (size_t i = 0; r && i < r->header_count; i++)
        json_array_append_new(headers, json_pack("[o, o]", text_json(r->headers[i].name.ptr, r->headers[i].name.len),
                                                 text_json(r->headers[i].value.ptr, r->headers[i].value.len)));
    json_t *o = json_pack("{s:i, s:o, s:o, s:o, s:I, s:i, s:I}", "status", r ? r->status : 0, "headers", headers, "body",
                          text_json(weir_buf_ptr(&c->out) + head, weir_buf_len(&c->out) - head), "stderr",
                          text_json(weir_buf_ptr(&c->err), weir_buf_len(&c->err)), "app_status", (json_int_t)c->app_status,
                          "protocol_status", (int)c->protocol_status, "time_us", (json_int_t)us);
    if (c->problem) json_object_set_new(o, "problem", json_string(c->problem));
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static void put_all(const struct weir_buf *b, FILE *to)
{
    if (weir_buf_len(b)) fwrite(weir_buf_ptr(b), 1, weir_buf_len(b), to);
    fflush(to);
}

static int report(struct call *c, int64_t us)
{
    struct weir_arena a;
    const char *why = NULL;
    size_t used = 0;
    weir_arena_init(&a, 0);
    struct weir_cgi_head *head = weir_cgi_head_new(&a, NULL);
    int status = head ? weir_cgi_head_feed_final(head, weir_buf_ptr(&c->out), weir_buf_len(&c->out), &used, &why) : WEIR_NOMEM;
    const struct weir_cgi_response *r = status == WEIR_OK ? weir_cgi_head_response(head) : NULL;
    static const char *const refusals[] = {NULL, "refused: it serves one request on a connection", "refused: overloaded", "refused: it does not know this role"};
    if (!c->problem && c->protocol_status) c->problem = c->protocol_status < 4 ? refusals[c->protocol_status] : "an unknown protocol status";
    if (!c->problem && !r && c->role == WEIR_RESPONDER) c->problem = why ? why : "the answer has no complete header";
    if (c->json) {
        print_json(c, r, r ? used : 0, us);
    } else {
        put_all(&c->out, stdout);
        put_all(&c->err, stderr);
        if (c->problem) fprintf(stderr, "weir: %s\n", c->problem);
    }
    int result = !c->ended ? NO_ANSWER : c->problem || (r && r->status >= 400) || c->app_status ? BAD_ANSWER : FINE;
    weir_arena_fini(&a);
    return result;
}

int weir_cmd_call(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "ADDRESS [NAME=VALUE...]",
                                     "Sends one request to a FastCGI application and prints its answer.\v"
                                     "ADDRESS is unix:/path or ADDRESS:port. What comes on standard input, if that is a pipe or a file, is the body. "
                                     "A PHP worker needs SCRIPT_FILENAME=/path/to/script.php.\n\n"
                                     "The exit status is 0 for a complete answer below 400, 1 for any other answer, 2 for wrong usage, "
                                     "3 if no complete answer came.", NULL, NULL, NULL};
    struct call c = {.role = WEIR_RESPONDER, .timeout_ms = 10000};
    struct weir_wire_server *w = NULL;
    char length[24];
    uint16_t id;
    argp_err_exit_status = USAGE;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    int result = read_body(&c);
    if (result) return result;
    presets(&c, length);
    int fd = open_connection(&c);
    if (fd < 0) return -fd;
    int64_t begin = clock_us();
    result = NO_ANSWER;
    if (weir_wire_server_new(&w, NULL) < 0) {
        fprintf(stderr, "weir: out of memory\n");
    } else if (weir_wire_server_begin(w, c.role, 0, 0, c.params, c.count, NULL, &id) < 0 ||
               (weir_buf_len(&c.body) == 0 && !end_input(&c, w, id))) {
        fprintf(stderr, "weir: a parameter is larger than FastCGI can carry\n");
        result = USAGE;
    } else {
        converse(&c, w, fd, id);
        result = report(&c, clock_us() - begin);
    }
    weir_wire_server_free(w);
    close(fd);
    weir_buf_fini(&c.body);
    weir_buf_fini(&c.out);
    weir_buf_fini(&c.err);
    return result;
}

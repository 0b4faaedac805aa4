/* SPDX-License-Identifier: MIT */
/* Asking the running weir; `weir status`, `reload`, `restart`, `scale`, `stop`, `drain`, `reopen`, `upgrade`: orders to the control socket of the running weir. */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base.h"
#include "cli/ask.h"
#include "cli/cli.h"
#include "weir/weir.h"

struct order {
    const char *socket, *name, *number;
    bool json;
    unsigned least, most; /* scale */
};

static const struct argp_option options[] = {
    {"socket", 's', "PATH", 0, "the control socket [" WEIR_CONTROL_SOCKET " as root]", 0},
    {"json", 'j', NULL, 0, "print the answer as JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct order *o = state->input;
    if (key == 's') o->socket = arg;
    else if (key == 'j') o->json = true;
    else if (key == ARGP_KEY_ARG && !o->name) o->name = arg;
    else if (key == ARGP_KEY_ARG && !o->number) o->number = arg;
    else if (key == ARGP_KEY_ARG) argp_usage(state);
    else return ARGP_ERR_UNKNOWN;
    return 0;
}

static int try_socket(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* By default: one's own weir, else the machine's, which may know us. */
static int connect_to(const char *path)
{
    char own[64];
    const char *usual = WEIR_CONTROL_SOCKET;
    snprintf(own, sizeof own, WEIR_CONTROL_SOCKET_OF_USER, (int)geteuid());
    bool guess = !path && geteuid() != 0;
    if (!path) path = guess ? own : usual;
    int fd = try_socket(path);
    if (fd < 0 && guess && errno == ENOENT && access(usual, F_OK) == 0) fd = try_socket(path = usual);
    if (fd < 0) fprintf(stderr, "weir: no weir answers at %s: %s\n", path, strerror(errno));
    return fd;
}

json_t *weir_ask(const char *socket, json_t *order)
{
    json_error_t err;
    if (!order) fprintf(stderr, "weir: names and texts have to be UTF-8\n");
    char *text = order ? json_dumps(order, JSON_COMPACT) : NULL;
    json_decref(order);
    int fd = text ? connect_to(socket) : -1;
    if (fd < 0) {
        free(text);
        return NULL;
    }
    size_t len = strlen(text), sent = 0;
    text[len++] = '\n'; /* where its NUL was */
    for (ssize_t n = 0; sent < len && n >= 0; sent += n > 0 ? (size_t)n : 0) n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
    free(text);
    shutdown(fd, SHUT_WR);
    FILE *f = fdopen(fd, "r"); /* also where not all was taken: it may say why */
    json_t *answer = f ? json_loadf(f, JSON_DISABLE_EOF_CHECK, &err) : NULL;
    if (f) fclose(f);
    else close(fd);
    if (!answer) fprintf(stderr, "weir: the running weir did not answer\n");
    return answer;
}

static const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static long long num(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void print_server(const json_t *s)
{
    printf("  %s %s", str(s, "address"), str(s, "state"));
    if (num(s, "rests_ms")) printf(" for %lld.%lld s", num(s, "rests_ms") / 1000, num(s, "rests_ms") / 100 % 10);
    printf("%s, weight %lld, busy %lld of %lld, served %lld, failed %lld, retried %lld, passed on %lld, ejected %lld times", json_is_true(json_object_get(s, "backup")) ? ", backup" : "", num(s, "weight"),
           num(s, "busy"), num(s, "limit"), num(s, "requests"), num(s, "failed"), num(s, "retried"), num(s, "passed_on"),
           num(s, "ejections"));
    printf(str(s, "problem")[0] ? ": %s\n" : "%s\n", str(s, "problem"));
}

static void print_status(const json_t *s)
{
    size_t i, k;
    json_t *pool, *unit, *site;
    const json_t *g = json_object_get(s, "gateway");
    printf("weir %s, up %lld s, configuration %lld\n", str(s, "version"), num(s, "uptime_ms") / 1000, num(s, "configuration"));
    if (num(g, "pid"))
        printf("gateway %lld: %s, %lld connections, %lld restarts\n", num(g, "pid"), json_is_true(json_object_get(g, "ready")) ? "ready" : "starting",
               num(g, "connections"), num(g, "restarts"));
    json_array_foreach(json_object_get(g, "others"), i, unit)
        printf("gateway %lld: %s, %lld connections\n", num(unit, "pid"), str(unit, "state"), num(unit, "connections"));
    if (num(s, "denied")) printf("denied: %lld addresses (weir deny --list)\n", num(s, "denied"));
    json_array_foreach(json_object_get(s, "suspended"), i, site)
        printf("site %s: suspended by %s%s\n", str(site, "site"), strcmp(str(site, "by"), "order") == 0 ? "an order, until it is resumed" : "its configuration",
               json_is_true(json_object_get(site, "configured")) ? "" : "; it is not configured now");
    json_array_foreach(json_object_get(s, "pools"), i, pool)
    {
        printf("pool %s (%s%s%s%s%s): %lld requests, %lld waiting, %lld refused, %lld restarts\n", str(pool, "name"), str(pool, "kind"),
               json_is_true(json_object_get(pool, "stopped")) ? ", stopped until a restart or reload" : "",
               str(pool, "scaled")[0] ? ", scaled to " : "", str(pool, "scaled"), str(pool, "scaled")[0] ? " until a reload" : "",
               num(pool, "requests"), num(pool, "queued"), num(pool, "refused") + num(pool, "timed_out"), num(pool, "restarts"));
        if (str(pool, "problem")[0]) printf("  problem: %s\n", str(pool, "problem"));
        json_array_foreach(json_object_get(pool, "processes"), k, unit)
            printf("  %-8lld %-9s busy %lld of %lld, served %lld%s\n", num(unit, "pid"), str(unit, "state"), num(unit, "busy"),
                   num(unit, "at_once") ? num(unit, "at_once") : num(unit, "workers"), num(unit, "requests"),
                   json_is_true(json_object_get(unit, "flow_control")) ? ", flow control" : "");
        json_array_foreach(json_object_get(pool, "servers"), k, unit) print_server(unit);
    }
}

int weir_print_answer(json_t *a, bool json, void (*print)(const json_t *answer))
{
    if (!a) return 1;
    const char *error = json_string_value(json_object_get(a, "error"));
    if (json) {
        json_dumpf(a, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (error) {
        fprintf(stderr, "%s%s%s", strncmp(error, "weir:", 5) == 0 ? "" : "weir: ", error, error[0] && error[strlen(error) - 1] == '\n' ? "" : "\n");
    } else if (json_object_get(a, "ok")) {
        puts(str(a, "ok"));
    } else if (print) {
        print(a);
    }
    int status = error ? 1 : 0;
    json_decref(a);
    return status;
}

static int run(struct order *o, const char *command)
{
    json_t *q = json_pack("{s:s, s:s*}", "command", command, "name", o->name);
    if (o->number) {
        json_object_set_new(q, "least", json_integer(o->least));
        json_object_set_new(q, "most", json_integer(o->most));
    }
    return weir_print_answer(weir_ask(o->socket, q), o->json, print_status);
}

/* N or A..B. */
static bool read_range(struct order *o)
{
    char more;
    if (sscanf(o->number, "%u..%u%c", &o->least, &o->most, &more) == 2) return o->least <= o->most;
    o->least = 0;
    if (sscanf(o->number, "%u%c", &o->most, &more) != 1) return false;
    o->least = o->most;
    return true;
}

/* what: how many words it needs, and what they are. */
static int command(int argc, char **argv, const char *args, const char *doc, const char *name, int words)
{
    const struct argp argp = {options, parse, args, doc, NULL, NULL, NULL};
    struct order o = {0};
    argp_err_exit_status = 2;
    argp_program_version = "weir " WEIR_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if ((words > 0 && !o.name) || (words > 1 && !o.number) || (words < 2 && o.number) || (words < 1 && o.name)) {
        fprintf(stderr, "weir: it is: weir %s%s%s\n", name, args ? " " : "", args ? args : "");
        return 2;
    }
    if (o.number && !read_range(&o)) {
        fprintf(stderr, "weir: \"%s\" is no number of processes: write 4, or 0..8\n", o.number);
        return 2;
    }
    return run(&o, name);
}

int weir_cmd_status(int argc, char **argv)
{
    return command(argc, argv, NULL, "Shows pools, processes and queues of the running weir.", "status", 0);
}

int weir_cmd_reload(int argc, char **argv)
{
    return command(argc, argv, NULL, "Makes the running weir read its configuration again. With mistakes in the main file the old one stays in use; an included file or a pool with mistakes keeps its last good version.", "reload", 0);
}

int weir_cmd_restart(int argc, char **argv)
{
    return command(argc, argv, "POOL|gateway", "Starts new processes of a pool and lets the old ones finish; or a new gateway, while the old one finishes what it has.", "restart", 1);
}

int weir_cmd_scale(int argc, char **argv)
{
    return command(argc, argv, "POOL N|A..B", "Changes how many processes a pool has, or workers of a php or cgi pool, until the next reload.", "scale", 2);
}

int weir_cmd_stop(int argc, char **argv)
{
    return command(argc, argv, "POOL", "Ends a pool: its requests are answered 503, those that run may finish for as long as `drain` says.", "stop", 1);
}

int weir_cmd_drain(int argc, char **argv)
{
    return command(argc, argv, "POOL", "Ends a pool as stop does, but cuts nothing: it waits for what runs, however long.", "drain", 1);
}

int weir_cmd_reopen(int argc, char **argv)
{
    return command(argc, argv, NULL, "Opens log files anew, after they were moved away. SIGUSR1 to the root part does the same.", "reopen", 0);
}

int weir_cmd_upgrade(int argc, char **argv)
{
    return command(argc, argv, NULL,
                   "Makes the running weir become the version that is installed now: the root part in place, then control, then the gateway. "
                   "Applications go on, no request is lost. If the new version cannot take over, all stays as it is.",
                   "upgrade", 0);
}

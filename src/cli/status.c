/* SPDX-License-Identifier: MIT */
/* `weir status`, `reload`, `restart`, `scale`, `stop`, `drain`, `upgrade`: orders to the control socket of the running weir. */
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "weir/weir.h"

struct order {
    const char *socket, *name, *number;
    bool json;
    unsigned least, most; /* scale */
};

static const struct argp_option options[] = {
    {"socket", 's', "PATH", 0, "the control socket [/run/weir/control.sock as root]", 0},
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

static int connect_to(const struct order *o)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char own[64];
    snprintf(own, sizeof own, "/tmp/weir-%d.sock", (int)geteuid());
    const char *path = o->socket ? o->socket : geteuid() == 0 ? "/run/weir/control.sock" : own;
    if (strlen(path) >= sizeof a.sun_path) {
        fprintf(stderr, "weir: the path of the socket is too long\n");
        return -1;
    }
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    fprintf(stderr, "weir: no weir answers at %s: %s\n", path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

static json_t *ask(const struct order *o, const char *command)
{
    int fd = connect_to(o);
    json_error_t err;
    if (fd < 0) return NULL;
    json_t *q = json_pack("{s:s, s:s*}", "command", command, "name", o->name);
    if (o->number) {
        json_object_set_new(q, "least", json_integer(o->least));
        json_object_set_new(q, "most", json_integer(o->most));
    }
    char *text = json_dumps(q, JSON_COMPACT);
    json_decref(q);
    bool sent = text && send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0 && send(fd, "\n", 1, MSG_NOSIGNAL) == 1;
    free(text);
    shutdown(fd, SHUT_WR);
    FILE *f = sent ? fdopen(fd, "r") : NULL;
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

static void print_status(const json_t *s)
{
    size_t i, k;
    json_t *pool, *unit;
    const json_t *g = json_object_get(s, "gateway");
    printf("weir %s, up %lld s, configuration %lld\n", str(s, "version"), num(s, "uptime_ms") / 1000, num(s, "configuration"));
    if (num(g, "pid"))
        printf("gateway %lld: %s, %lld connections, %lld restarts\n", num(g, "pid"), json_is_true(json_object_get(g, "ready")) ? "ready" : "starting",
               num(g, "connections"), num(g, "restarts"));
    json_array_foreach(json_object_get(g, "others"), i, unit)
        printf("gateway %lld: %s, %lld connections\n", num(unit, "pid"), str(unit, "state"), num(unit, "connections"));
    json_array_foreach(json_object_get(s, "pools"), i, pool)
    {
        printf("pool %s (%s%s%s%s): %lld requests, %lld waiting, %lld refused, %lld restarts\n", str(pool, "name"), str(pool, "kind"),
               json_is_true(json_object_get(pool, "stopped")) ? ", stopped" : "", str(pool, "scaled")[0] ? ", scaled to " : "", str(pool, "scaled"),
               num(pool, "requests"), num(pool, "queued"), num(pool, "refused") + num(pool, "timed_out"), num(pool, "restarts"));
        if (str(pool, "problem")[0]) printf("  problem: %s\n", str(pool, "problem"));
        json_array_foreach(json_object_get(pool, "processes"), k, unit)
            printf("  %-8lld %-9s busy %lld, served %lld%s\n", num(unit, "pid"), str(unit, "state"), num(unit, "busy"), num(unit, "requests"),
                   json_is_true(json_object_get(unit, "flow_control")) ? ", flow control" : "");
    }
}

static int run(struct order *o, const char *command)
{
    json_t *a = ask(o, command);
    if (!a) return 1;
    const char *error = json_string_value(json_object_get(a, "error"));
    int status = error ? 1 : 0;
    if (o->json) {
        json_dumpf(a, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (error) {
        fprintf(stderr, "%s%s%s", strncmp(error, "weir:", 5) == 0 ? "" : "weir: ", error, error[0] && error[strlen(error) - 1] == '\n' ? "" : "\n");
    } else if (json_object_get(a, "ok")) {
        puts(str(a, "ok"));
    } else {
        print_status(a);
    }
    json_decref(a);
    return status;
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
    return command(argc, argv, NULL, "Makes the running weir read its configuration again. With mistakes in it the old one stays in use.", "reload", 0);
}

int weir_cmd_restart(int argc, char **argv)
{
    return command(argc, argv, "POOL|gateway", "Starts new processes of a pool and lets the old ones finish; or a new gateway, while the old one finishes what it has.", "restart", 1);
}

int weir_cmd_scale(int argc, char **argv)
{
    return command(argc, argv, "POOL N|A..B", "Changes how many processes a pool has, until the next reload.", "scale", 2);
}

int weir_cmd_stop(int argc, char **argv)
{
    return command(argc, argv, "POOL", "Ends a pool: its requests are answered 503, those that run may finish for as long as `drain` says.", "stop", 1);
}

int weir_cmd_drain(int argc, char **argv)
{
    return command(argc, argv, "POOL", "Ends a pool as stop does, but cuts nothing: it waits for what runs, however long.", "drain", 1);
}

int weir_cmd_upgrade(int argc, char **argv)
{
    return command(argc, argv, NULL,
                   "Makes the running weir become the version that is installed now: the root part in place, then control, then the gateway. "
                   "Applications go on, no request is lost. If the new version cannot take over, all stays as it is.",
                   "upgrade", 0);
}

/* SPDX-License-Identifier: MIT */
/* The examples of docs/flow-control.md, section 11, against both ends: what a program does is done, each record that is shown has to
 * be the next output of its end, byte for byte, and goes to the other one; nothing else may come out. Whole records and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "weir/wire.h"

static const char *document;

static struct {
    struct weir_wire_limits limits;
    struct weir_wire_app *app;
    struct weir_wire_server *server;
    const char *app_error, *server_error;
    int not_run[16]; /* by id: 1: END was a refusal, 0: it was not; -1: none came */
    unsigned line;
    bool byte_by_byte;
} now;

static _Noreturn void wrong(const char *what, const char *text)
{
    fail_msg("%s:%u: %s: %s", document, now.line, what, text);
    abort();
}

/* ---- both ends ---- */

static void start(void)
{
    if (now.app) return;
    if (weir_wire_app_new(&now.app, &now.limits) < 0 || weir_wire_server_new(&now.server, NULL) < 0) abort();
    memset(now.not_run, -1, sizeof now.not_run);
}

static void app_reads(const uint8_t *p, size_t len)
{
    struct weir_wire_event ev;
    weir_wire_app_feed(now.app, p, len);
    while (weir_wire_app_next(now.app, &ev) == WEIR_OK)
        if (ev.type == WEIR_WIRE_EV_ERROR) now.app_error = ev.reason;
}

static void server_reads(const uint8_t *p, size_t len)
{
    struct weir_wire_event ev;
    weir_wire_server_feed(now.server, p, len);
    while (weir_wire_server_next(now.server, &ev) == WEIR_OK) {
        if (ev.type == WEIR_WIRE_EV_ERROR) now.server_error = ev.reason;
        if (ev.type == WEIR_WIRE_EV_END) now.not_run[ev.id] = ev.not_run;
    }
}

static void goes(bool to_app, const uint8_t *p, size_t len)
{
    for (size_t i = 0, n = now.byte_by_byte ? 1 : len; i < len; i += n) (to_app ? app_reads : server_reads)(p + i, n);
}

static void agree(void)
{
    const void *p;
    start();
    assert_int_equal(weir_wire_server_ask(now.server), WEIR_OK);
    size_t n = weir_wire_server_output(now.server, &p);
    goes(true, p, n);
    weir_wire_server_sent(now.server, n);
    n = weir_wire_app_output(now.app, &p);
    goes(false, p, n);
    weir_wire_app_sent(now.app, n);
    assert_true(weir_wire_server_agreed(now.server));
}

static void finish(void) /* a block ends */
{
    const void *p;
    if (now.app_error || now.server_error) wrong("an error that is not told", now.app_error ? now.app_error : now.server_error);
    if (now.app && weir_wire_app_output(now.app, &p)) wrong("a record that is not shown", "A>S");
    if (now.server && weir_wire_server_output(now.server, &p)) wrong("a record that is not shown", "S>A");
    weir_wire_app_free(now.app);
    weir_wire_server_free(now.server);
    now.app = NULL;
    now.server = NULL;
    now.limits = (struct weir_wire_limits){0};
}

/* ---- records ---- */

static const char *const type_names[] = {"", "BEGIN_REQUEST", "ABORT_REQUEST", "END_REQUEST", "PARAMS", "STDIN", "STDOUT", "STDERR", "DATA",
                                         "GET_VALUES", "GET_VALUES_RESULT", "UNKNOWN_TYPE"};

static const char *type_name(uint8_t type)
{
    return type == WEIR_WIRE_CREDIT ? "CREDIT" : type < WEIR_COUNT(type_names) ? type_names[type] : "?";
}

static size_t hex(const char *s, uint8_t *out)
{
    size_t n = 0;
    unsigned v;
    for (; *s && *s != '\n'; s++) {
        if (*s == ' ') continue;
        if (*s == '"') {
            for (s++; *s != '"'; s++) out[n++] = (uint8_t)*s;
            continue;
        }
        if (sscanf(s, "%2x", &v) != 1) wrong("no hexadecimal number", s);
        out[n++] = (uint8_t)v;
        s++;
    }
    return n;
}

struct shown {
    char head[256];
    uint8_t bytes[1024];
    size_t len;
    bool given, to_app, is;
};

static void record(const struct shown *r)
{
    struct weir_wire_header h;
    char name[32];
    unsigned id;
    const void *p;
    if (!r->is) return;
    start();
    if (sscanf(r->head, "%31s %u", name, &id) != 2 || r->len < 8) wrong("no record", r->head);
    weir_wire_header_read(r->bytes, &h);
    if (strcmp(type_name(h.type), name) != 0 || h.id != id || 8u + h.len + h.padding != r->len) wrong("the bytes are another record", r->head);
    if (!r->given) {
        size_t n = r->to_app ? weir_wire_server_output(now.server, &p) : weir_wire_app_output(now.app, &p);
        if (n < r->len || memcmp(p, r->bytes, r->len) != 0) wrong("this is not what comes out", r->head);
        if (r->to_app) weir_wire_server_sent(now.server, r->len);
        else weir_wire_app_sent(now.app, r->len);
    }
    goes(r->to_app, r->bytes, r->len);
}

/* ---- what the programs do ---- */

static enum weir_stream stream(const char *name)
{
    for (unsigned i = WEIR_STDIN; i <= WEIR_DATA; i++)
        if (strcmp(type_names[i], name) == 0) return (enum weir_stream)i;
    wrong("no stream", name);
}

static void begins(const char *line)
{
    unsigned want, window;
    char pair[64] = "", *value;
    uint16_t id;
    if (sscanf(line, "S begin %u window %u %63s", &want, &window, pair) < 2) wrong("no step", line);
    struct weir_pair p = {{NULL, 0}, {NULL, 0}};
    if ((value = strchr(pair, '='))) {
        *value++ = 0;
        p = (struct weir_pair){weir_cstr(pair), weir_cstr(value)};
    }
    int status = weir_wire_server_begin(now.server, WEIR_RESPONDER, 1, window, &p, value != NULL, NULL, &id);
    if (status < 0 || id != want) wrong("cannot begin", line);
}

static void writes(const char *line)
{
    char who, name[16], text[128];
    unsigned id;
    long long takes;
    if (sscanf(line, "%c write %u %15s \"%127[^\"]\" takes %lld", &who, &id, name, text, &takes) != 5) wrong("no step", line);
    int64_t n = who == 'S' ? weir_wire_server_write(now.server, (uint16_t)id, stream(name), text, strlen(text))
                           : weir_wire_app_write(now.app, (uint16_t)id, stream(name), text, strlen(text));
    if (n != takes) wrong("it takes another number of bytes", line);
}

static void takes(const char *line)
{
    char who, name[16];
    unsigned id, n;
    if (sscanf(line, "%c take %u %15s %u", &who, &id, name, &n) != 4) wrong("no step", line);
    if (who == 'S') weir_wire_server_consumed(now.server, (uint16_t)id, stream(name), n);
    else weir_wire_app_consumed(now.app, (uint16_t)id, stream(name), n);
}

static void fails(const char *line)
{
    const char **error = line[0] == 'S' ? &now.server_error : &now.app_error;
    if (!*error || strcmp(*error, line + strlen("S fails ")) != 0) wrong(*error ? *error : "no error", line);
    *error = NULL;
}

static bool is(const char *line, const char *step)
{
    return strncmp(line, step, strlen(step)) == 0;
}

static void step(const char *line)
{
    unsigned n = 0, status = 0;
    uint16_t id;
    char name[16];
    if (sscanf(line, "A limits window %u requests %u", &now.limits.window, &now.limits.requests) == 2) return;
    if (is(line, "A unaware")) {
        now.limits.no_flow = 1;
        return;
    }
    start();
    bool ok = true;
    if (is(line, "agree")) agree();
    else if (is(line, "S ask")) ok = weir_wire_server_ask(now.server) == WEIR_OK;
    else if (is(line, "S begin")) begins(line);
    else if (is(line, "S cannot begin")) ok = weir_wire_server_begin(now.server, WEIR_RESPONDER, 1, 1, NULL, 0, NULL, &id) < 0;
    else if (is(line, "S write") || is(line, "A write")) writes(line);
    else if (is(line, "S take") || is(line, "A take")) takes(line);
    else if (is(line, "S fails") || is(line, "A fails")) fails(line);
    else if (is(line, "A drain")) weir_wire_app_drain(now.app);
    else if (is(line, "S closes")) ok = weir_wire_server_active(now.server) == 0 && weir_wire_app_idle(now.app);
    else if (sscanf(line, "S end %u %15s", &n, name) == 2) ok = weir_wire_server_write_end(now.server, (uint16_t)n, stream(name)) == WEIR_OK;
    else if (sscanf(line, "S abort %u", &n) == 1) ok = weir_wire_server_abort(now.server, (uint16_t)n) == WEIR_OK;
    else if (sscanf(line, "S refused %u", &n) == 1) ok = n < WEIR_COUNT(now.not_run) && now.not_run[n] == 1;
    else if (sscanf(line, "A limit %u", &n) == 1) weir_wire_app_limit(now.app, n);
    else if (sscanf(line, "A finish %u status %u", &n, &status) == 2) ok = weir_wire_app_end(now.app, (uint16_t)n, status, 0) == WEIR_OK;
    else if (sscanf(line, "A refuse %u", &n) == 1) ok = weir_wire_app_end(now.app, (uint16_t)n, 0, WEIR_WIRE_OVERLOADED) == WEIR_OK;
    else wrong("no step", line);
    if (!ok) wrong("it does not happen", line);
}

/* ---- the document ---- */

static void block_line(struct shown *r, const char *line)
{
    if (line[0] == ' ') {
        if (!r->is) wrong("bytes of no record", line);
        r->len += hex(line, r->bytes + r->len);
        return;
    }
    record(r);
    r->is = false;
    bool given = is(line, "given ");
    const char *head = given ? line + strlen("given ") : line;
    if (!is(head, "S>A ") && !is(head, "A>S ")) {
        step(line);
        return;
    }
    *r = (struct shown){.given = given, .to_app = head[0] == 'S', .is = true};
    snprintf(r->head, sizeof r->head, "%s", head + 4);
}

static void read_document(bool byte_by_byte)
{
    static struct shown r;
    char line[1024];
    unsigned blocks = 0;
    bool inside = false;
    FILE *f = fopen(document, "r");
    if (!f) fail_msg("cannot read %s", document);
    memset(&now, 0, sizeof now);
    now.byte_by_byte = byte_by_byte;
    while (fgets(line, sizeof line, f)) {
        now.line++;
        line[strcspn(line, "\n")] = 0;
        if (inside && strcmp(line, "```") == 0) {
            record(&r);
            r.is = inside = false;
            finish();
        } else if (inside) {
            block_line(&r, line);
        } else if (strcmp(line, "```wire") == 0) {
            inside = true;
            blocks++;
        }
    }
    fclose(f);
    assert_false(inside);
    assert_int_equal(blocks, 9); /* the section is there, whole */
}

static void the_examples_are_what_both_ends_do(void **state)
{
    (void)state;
    read_document(false);
}

static void the_examples_hold_byte_by_byte(void **state)
{
    (void)state;
    read_document(true);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_examples_are_what_both_ends_do), cmocka_unit_test(the_examples_hold_byte_by_byte)};
    if (argc != 2) {
        fprintf(stderr, "usage: test-examples docs/flow-control.md\n");
        return 2;
    }
    document = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}

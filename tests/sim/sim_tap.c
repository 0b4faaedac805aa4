/* SPDX-License-Identifier: MIT */
/* sim_tap: see sim_tap.h. */
#include "sim_tap.h"

#include <stdlib.h>
#include <string.h>

#include "weir/wire.h"

enum { IDS = 600 };
const char *const sim_seen_names[SEEN_COUNT] = {"agreed", "not agreed", "credit", "full windows", "number of requests changed", "FINAL",
                                                "BEGIN that crossed FINAL", "refusals", "aborts", "ids used again", "ends before the body", "connections cut"};

struct stream {
    uint64_t sent, limit;
};
struct id {
    struct stream in, data, out, err; /* STDIN, DATA, STDOUT, STDERR */
    bool begun, read, ended, flagged, answered, used_before, input_ended; /* written, delivered BEGIN; written END */
};
struct reader { /* records out of pieces; content beyond what is looked at is counted only */
    uint8_t bytes[80];
    uint32_t have, left; /* left: content and padding that are skipped */
};
struct end { /* what this end wrote, what reached it */
    struct reader written, delivered;
    bool hostile, lost;
};
struct conn {
    struct end server, app;
    struct id *ids;
    uint32_t window, highest, active; /* active: BEGIN written, END not delivered */
    int ends; /* that are open */
    bool asked, agreed_written, agreed, final_written;
};
struct sim_tap {
    void (*fail)(void *arg, const char *what);
    void *arg;
    uint64_t *seen;
    struct conn conns[SIM_SOCKETS];
    int conn_of[SIM_SOCKETS]; /* 0: none, else 1 + conn, negative: its app's end */
};

struct sim_tap *sim_tap_new(void (*fail)(void *arg, const char *what), void *arg, uint64_t seen[SEEN_COUNT])
{
    struct sim_tap *t = calloc(1, sizeof *t);
    if (!t) abort();
    t->fail = fail;
    t->arg = arg;
    t->seen = seen;
    return t;
}

void sim_tap_free(struct sim_tap *t)
{
    for (int i = 0; t && i < SIM_SOCKETS; i++) free(t->conns[i].ids);
    free(t);
}

static struct conn *find(struct sim_tap *t, int socket, bool *app)
{
    int c = t->conn_of[socket];
    *app = c < 0;
    return c == 0 ? NULL : &t->conns[(c < 0 ? -c : c) - 1];
}

void sim_tap_opened(struct sim_tap *t, int a, int b)
{
    int i = 0;
    while (t->conns[i].ends) i++;
    struct conn *c = &t->conns[i];
    struct id *ids = c->ids;
    if (!ids) ids = calloc(IDS, sizeof *ids);
    if (!ids) abort();
    memset(ids, 0, IDS * sizeof *ids);
    *c = (struct conn){.ids = ids, .ends = 2, .highest = 1};
    t->conn_of[a] = i + 1;
    t->conn_of[b] = -(i + 1);
}

void sim_tap_hostile(struct sim_tap *t, int fd)
{
    bool app;
    struct conn *c = find(t, fd - SIM_FD, &app);
    if (c) *(app ? &c->app.hostile : &c->server.hostile) = true;
}

void sim_tap_blind(struct sim_tap *t, int fd)
{
    bool app;
    struct conn *c = find(t, fd - SIM_FD, &app);
    if (c) c->server.lost = c->app.lost = true;
}

void sim_tap_reset(struct sim_tap *t, int socket)
{
    bool app;
    struct conn *c = find(t, socket, &app);
    if (c) c->server.lost = c->app.lost = true;
    t->seen[SEEN_ODD]++;
}

/* P5: an app that said FINAL closes only when each BEGIN that was written had its END. */
void sim_tap_closed(struct sim_tap *t, int socket, bool first)
{
    bool app;
    struct conn *c = find(t, socket, &app);
    t->conn_of[socket] = 0;
    if (!c) return;
    c->ends--;
    if (!app || !first || !c->agreed_written || c->app.lost || c->server.hostile || c->app.hostile) return;
    for (int i = 0; i < IDS; i++)
        if (c->ids[i].begun && !c->ids[i].ended) t->fail(t->arg, "P5: the app closed an agreed connection under a request");
}

/* ---- what one record means ---- */

static uint64_t number(const uint8_t *p, int len)
{
    uint64_t v = 0;
    for (int i = 0; i < len; i++) v = v << 8 | p[i];
    return v;
}

static struct stream *stream_of(struct id *r, uint8_t type)
{
    switch (type) {
    case WEIR_WIRE_STDIN: return &r->in;
    case WEIR_WIRE_DATA: return &r->data;
    case WEIR_WIRE_STDOUT: return &r->out;
    case WEIR_WIRE_STDERR: return &r->err;
    default: return NULL;
    }
}

static void sends(struct sim_tap *t, struct conn *c, struct id *r, const struct weir_wire_header *h)
{
    struct stream *s = stream_of(r, h->type);
    s->sent += h->len;
    if (!c->agreed_written || !r->flagged) return;
    if (s->sent > s->limit) t->fail(t->arg, "P1: more content than credit had arrived for");
    if (s->sent == s->limit && h->len) t->seen[SEEN_WAITED_FOR_CREDIT]++;
}

static void server_wrote(struct sim_tap *t, struct conn *c, const struct weir_wire_header *h, const uint8_t *b)
{
    struct id *r = h->id < IDS ? &c->ids[h->id] : NULL;
    if (c->server.hostile) return;
    if (!r) t->fail(t->arg, "P2: a high id although low ones are free");
    switch (h->type) {
    case WEIR_WIRE_BEGIN_REQUEST:
        if (r->begun && !c->app.hostile) t->fail(t->arg, "P2: BEGIN of an id whose END has not arrived");
        if (!c->agreed && (b[2] > 1 || b[3] || number(b + 4, 4))) t->fail(t->arg, "P7: a plain BEGIN is not that of FastCGI 1.0");
        if (c->agreed && b[2] != 0x81) t->fail(t->arg, "an agreed BEGIN without its flags");
        t->seen[SEEN_REUSED_ID] += r->used_before;
        t->seen[SEEN_CROSSED_FINAL] += c->final_written;
        *r = (struct id){.begun = true, .flagged = c->agreed, .used_before = true};
        r->in.limit = r->data.limit = c->window;
        r->out.limit = r->err.limit = number(b + 4, 4);
        if (++c->active > c->highest && c->agreed && !c->app.hostile) t->fail(t->arg, "P1: more requests than were ever allowed");
        break;
    case WEIR_WIRE_ABORT_REQUEST: t->seen[SEEN_ABORT]++; break;
    case WEIR_WIRE_CREDIT:
        if (!c->agreed) t->fail(t->arg, "P7: CREDIT on a plain connection");
        if (!r->used_before) t->fail(t->arg, "P2: CREDIT for a request that was never begun"); /* late is right */
        break;
    case WEIR_WIRE_GET_VALUES: c->asked = true; break;
    case WEIR_WIRE_STDIN:
    case WEIR_WIRE_DATA:
        if (!r->used_before) t->fail(t->arg, "P2: input for a request that was never begun");
        sends(t, c, r, h);
        r->input_ended |= h->len == 0;
        break;
    default: break;
    }
}

static void app_wrote(struct sim_tap *t, struct conn *c, const struct weir_wire_header *h, const uint8_t *b)
{
    struct id *r = h->id < IDS ? &c->ids[h->id] : NULL;
    if (c->app.hostile) return;
    if (h->type == WEIR_WIRE_GET_VALUES_RESULT && h->len > 20 && memcmp(b + 2, "FCGI_FLOW_CONTROL", 17) == 0) {
        if (!c->asked && !c->server.hostile) t->fail(t->arg, "P7: the name is told without a question");
        c->agreed_written = true;
    }
    if (h->type == WEIR_WIRE_CREDIT && !c->agreed_written) t->fail(t->arg, "P7: CREDIT on a plain connection");
    if (h->id == 0) {
        if (h->type == WEIR_WIRE_CREDIT && b[1] & 1) c->final_written = true;
        return;
    }
    if (c->server.hostile) return;
    if (!r || !r->read || r->ended) t->fail(t->arg, "P2: a record of a request that the app does not have");
    if (stream_of(r, h->type)) sends(t, c, r, h);
    if (h->type != WEIR_WIRE_END_REQUEST) {
        r->answered = true;
        return;
    }
    r->ended = true;
    t->seen[SEEN_REFUSAL] += b[4] != 0 && !r->answered;
    t->seen[SEEN_EARLY_END] += !r->input_ended;
}

static void reached_app(struct conn *c, const struct weir_wire_header *h, const uint8_t *b)
{
    struct id *r = h->id < IDS ? &c->ids[h->id] : NULL;
    if (!r) return;
    if (h->type == WEIR_WIRE_BEGIN_REQUEST) r->read = true;
    struct stream *s = h->type == WEIR_WIRE_CREDIT && h->len >= 16 ? stream_of(r, b[0]) : NULL;
    if (s && number(b + 8, 8) > s->limit) s->limit = number(b + 8, 8);
}

static void reached_server(struct sim_tap *t, struct conn *c, const struct weir_wire_header *h, const uint8_t *b, uint32_t have)
{
    struct id *r = h->id < IDS ? &c->ids[h->id] : NULL;
    if (h->type == WEIR_WIRE_GET_VALUES_RESULT && !c->agreed) {
        char text[81] = {0};
        memcpy(text, b, have < 80 ? have : 80);
        const char *window = h->len > 20 ? strstr(text + 2, "window=") : NULL, *requests = window ? strstr(window, "requests=") : NULL;
        t->seen[requests ? SEEN_AGREED : SEEN_DENIED]++;
        if (!requests) return;
        c->agreed = true;
        c->window = (uint32_t)strtoul(window + 7, NULL, 10);
        c->highest = (uint32_t)strtoul(requests + 9, NULL, 10);
    } else if (h->type == WEIR_WIRE_CREDIT && h->len >= 16) {
        uint64_t limit = number(b + 8, 8);
        t->seen[SEEN_CREDIT]++;
        if (h->id == 0) {
            t->seen[b[1] & 1 ? SEEN_FINAL : SEEN_LIMIT]++;
            if (limit > c->highest) c->highest = limit > 65535 ? 65535 : (uint32_t)limit;
        } else if (r && stream_of(r, b[0]) && limit > stream_of(r, b[0])->limit) {
            stream_of(r, b[0])->limit = limit;
        }
    } else if (h->type == WEIR_WIRE_END_REQUEST && r && r->begun) {
        r->begun = r->read = false;
        c->active--;
    }
}

/* ---- records out of pieces ---- */

static void record(struct sim_tap *t, struct conn *c, struct reader *rd)
{
    struct weir_wire_header h;
    const uint8_t *b = rd->bytes + 8;
    weir_wire_header_read(rd->bytes, &h);
    if (rd == &c->server.written) server_wrote(t, c, &h, b);
    else if (rd == &c->app.written) app_wrote(t, c, &h, b);
    else if (rd == &c->app.delivered) reached_app(c, &h, b);
    else reached_server(t, c, &h, b, rd->have - 8);
}

static void reads(struct sim_tap *t, struct conn *c, struct reader *rd, const uint8_t *p, size_t len)
{
    while (len) {
        if (rd->left) {
            size_t n = rd->left < len ? rd->left : len;
            rd->left -= (uint32_t)n;
            p += n;
            len -= n;
            continue;
        }
        rd->bytes[rd->have++] = *p++;
        len--;
        if (rd->have < 8) continue;
        uint32_t content = (uint32_t)(rd->bytes[4] << 8 | rd->bytes[5]), look = content < 72 ? content : 72;
        if (rd->have - 8 < look) continue;
        rd->left = content - look + rd->bytes[6];
        record(t, c, rd);
        memset(rd, 0, offsetof(struct reader, left));
    }
}

void sim_tap_written(struct sim_tap *t, int from, const void *p, size_t len)
{
    bool app;
    struct conn *c = find(t, from, &app);
    if (c && !c->server.lost) reads(t, c, app ? &c->app.written : &c->server.written, p, len);
}

void sim_tap_delivered(struct sim_tap *t, int to, const void *p, size_t len)
{
    bool app;
    struct conn *c = find(t, to, &app);
    if (c && !c->server.lost) reads(t, c, app ? &c->app.delivered : &c->server.delivered, p, len);
}

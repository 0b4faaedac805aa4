/* SPDX-License-Identifier: MIT */
/* Model check of flow control (docs/flow-control.md, section 12): every order of steps of two wire machines, as they are, in
 * small worlds: a few requests, windows of a few bytes, two channels. Depth first; a state that was seen is not entered again.
 *
 * All memory of both machines and of the world lies in one block (the linker sends their malloc here), so that a state is
 * copied and put back as bytes. What is judged is judged from outside: from the records that go by and from what the two
 * programs were told, never from the machines' own counts.
 *
 *     test-model [--quick]  nothing may be found
 *     test-model P<n>       the first thing found has to break that property */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "weir/wire.h"

enum { REQUESTS = 3, CHANNEL = 256, STAGE = 512, HEAP = 40000, BLOCKS = 64, DEPTH = 400 };

/* ---- the worlds ---- */

struct world {
    const char *name;
    unsigned requests, capacity;   /* requests of the web server; `requests` of the app */
    uint32_t app_window, server_window;
    unsigned body, answer;         /* bytes of each request */
    unsigned channel;              /* bytes that one direction carries */
    bool asks, unaware;            /* the server has a hint; the app does not know the extension */
    bool aborts, drains, refuses, late, limits; /* what may happen at any time; late: OVERLOADED after it ran */
    bool bytewise;                 /* programs take and give one byte at a time */
    bool others;                   /* DATA and STDERR instead of STDIN and STDOUT */
    bool large;                    /* left out by --quick */
};
static const struct world worlds[] = {
    {"one request, DATA and STDERR", 1, 1, 2, 2, 3, 3, 64, .asks = true, .aborts = true, .others = true},
    {"an app that does not know it", 2, 1, 2, 2, 2, 3, 64, .asks = true, .unaware = true, .refuses = true},
    {"a server that does not know it", 2, 1, 2, 2, 2, 3, 64, .aborts = true, .drains = true},
    {"three, two at once", 3, 2, 1, 1, 0, 1, 128, .asks = true},
    {"two at once, refused", 2, 2, 1, 1, 0, 1, 128, .asks = true, .refuses = true, .late = true, .drains = true},
    {"one request, byte by byte", 1, 1, 3, 3, 5, 4, 64, .asks = true, .bytewise = true},
    {"one request", 1, 1, 2, 2, 3, 3, 64, .asks = true, .aborts = true, .drains = true, .refuses = true, .late = true},
    {"a narrow channel", 1, 1, 2, 2, 3, 2, 11, .asks = true, .large = true},
    {"two at once", 2, 2, 1, 1, 2, 1, 128, .asks = true, .large = true},
    {"two at once, aborted", 2, 2, 1, 1, 0, 2, 128, .asks = true, .aborts = true, .drains = true, .large = true},
    {"the number of requests changes", 2, 2, 1, 1, 0, 1, 64, .asks = true, .limits = true, .drains = true},
    {"one after the other on one id", 2, 1, 1, 1, 1, 1, 128, .asks = true, .aborts = true, .refuses = true},
};

/* ---- the state ---- */

struct request {
    uint16_t id;
    uint8_t body_sent, body_got, body_taken, answer_sent, answer_got, answer_taken;
    uint64_t body_limit, answer_limit;   /* what the sender of that stream has been told */
    bool begun, aborted, over;           /* the web server's view */
    bool known, ran, told_abort, ended;  /* the app's; ran: its program did something for it */
    bool body_waits, answer_waits;       /* cut short: to be told when there is room */
    bool begin_read, params_read;        /* they went by */
    uint8_t runs, ends;
};
struct tap { /* the record that goes by */
    uint8_t bytes[STAGE];
    uint32_t len;
};
struct channel {
    uint8_t bytes[CHANNEL];
    uint32_t len, cut; /* cut: bytes of the record that left only in part */
    struct tap tap;
};
struct block {
    uint32_t at, len;
    bool used;
};
static struct state {
    struct weir_wire_app *app;
    struct weir_wire_server *server;
    struct request r[REQUESTS];
    struct channel to_app, to_server;
    uint32_t limit; /* requests, that the server has been told */
    uint32_t freed; /* the order in which ids became free */
    uint32_t changes; /* of that number, by the app */
    bool asked, agreed, final, drained, lowered, closed, app_closed;
    uint32_t block_count, heap_used;
    struct block blocks[BLOCKS];
    uint8_t stage[STAGE];
    _Alignas(16) uint8_t heap[HEAP];
} now;
static const struct world *w;
static const char *expected;
static bool byte_by_byte, patient; /* patient: an app that reads its body before it ends */
static uint64_t states, steps, kinds[32];
static char path[DEPTH][24];
static unsigned depth;

static _Noreturn void found(const char *property, const char *what)
{
    if (byte_by_byte) property = "P8"; /* at once it was right */
    bool wanted = expected && strcmp(expected, property) == 0;
    if (!wanted) {
        printf("%s is broken: %s\nin the world \"%s\", after:", property, what, w->name);
        for (unsigned i = 0; i < depth; i++) printf(" %s%s", path[i], i + 1 < depth ? "," : "\n");
    } else {
        printf("%s: %s (in \"%s\", %llu states)\n", property, what, w->name, (unsigned long long)states);
    }
    fflush(stdout);
    _Exit(wanted ? 0 : 1);
}

/* ---- memory of the machines ---- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

/* The lowest free block of that size. Zeroed when it becomes free. */
static void *heap_new(size_t n)
{
    uint32_t len = (uint32_t)(n + 15) & ~15u;
    for (uint32_t i = 0; i < now.block_count; i++) {
        struct block *b = &now.blocks[i];
        if (b->used || b->len != len) continue;
        b->used = true;
        return now.heap + b->at;
    }
    if (now.block_count == BLOCKS || now.heap_used + len > HEAP) abort();
    struct block *b = &now.blocks[now.block_count++];
    *b = (struct block){.at = now.heap_used, .len = len, .used = true};
    now.heap_used += len;
    return now.heap + b->at;
}

static struct block *block_of(const void *p)
{
    for (uint32_t i = 0; i < now.block_count; i++)
        if (now.heap + now.blocks[i].at == (const uint8_t *)p) return &now.blocks[i];
    return NULL;
}

void *__wrap_malloc(size_t n)
{
    return heap_new(n);
}

void *__wrap_calloc(size_t count, size_t n)
{
    return heap_new(count * n);
}

void *__wrap_realloc(void *p, size_t n)
{
    uint8_t *to = heap_new(n);
    const struct block *b = block_of(p);
    if (b) memcpy(to, p, b->len < n ? b->len : n);
    __wrap_free(p);
    return to;
}

void __wrap_free(void *p)
{
    struct block *b = p ? block_of(p) : NULL;
    if (!b) return;
    memset(p, 0, b->len);
    b->used = false;
}

/* ---- what a request is ---- */

static enum weir_stream body_stream(void)
{
    return w->others ? WEIR_DATA : WEIR_STDIN;
}

static enum weir_stream answer_stream(void)
{
    return w->others ? WEIR_STDERR : WEIR_STDOUT;
}

static uint8_t code(const struct request *r) /* each byte of its streams, and its app_status */
{
    return (uint8_t)('A' + (r - now.r));
}

static struct request *active_with(uint16_t id)
{
    for (unsigned i = 0; i < w->requests; i++)
        if (now.r[i].begun && !now.r[i].over && now.r[i].id == id) return &now.r[i];
    return NULL;
}

/* Whose records the app reads on this id: what the server began since may still be on its way. */
static struct request *read_with(uint16_t id)
{
    for (unsigned i = w->requests; i > 0; i--)
        if (now.r[i - 1].begin_read && now.r[i - 1].id == id) return &now.r[i - 1];
    return NULL;
}

static struct request *begun_with(uint16_t id)
{
    for (unsigned i = 0; i < w->requests; i++)
        if (now.r[i].begun && !now.r[i].begin_read && now.r[i].id == id) return &now.r[i];
    return NULL;
}

static unsigned active(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w->requests; i++) n += now.r[i].begun && !now.r[i].over;
    return n;
}

/* ---- copies and hashes of a state ---- */

static size_t state_len(void)
{
    return offsetof(struct state, heap) + now.heap_used;
}

static void restore(const void *saved)
{
    uint32_t used = now.heap_used;
    memcpy(&now, saved, offsetof(struct state, heap));
    memcpy(now.heap, (const uint8_t *)saved + offsetof(struct state, heap), now.heap_used);
    if (used > now.heap_used) memset(now.heap + now.heap_used, 0, used - now.heap_used);
}

static uint64_t mix(uint64_t h, const void *p, size_t len)
{
    const uint8_t *b = p;
    uint64_t v;
    for (; len >= 8; len -= 8, b += 8) {
        memcpy(&v, b, 8);
        h = (h ^ v) * 0x9fb21c651e98df25u;
        h ^= h >> 32;
    }
    for (; len; len--, b++) h = (h ^ *b) * 0x100000001b3u;
    return h ^ h >> 29;
}

/* What both programs know, what waits to be sent and what is under way, and all that the machines tell when they are asked: their
 * own counts follow from that. (Their memory as it lies differs where nothing else does: offsets in buffers, bytes sent in all.) */
static uint64_t state_hash(void)
{
    const void *p;
    uint64_t h = mix(1, &now, offsetof(struct state, to_app));
    const struct channel *c[] = {&now.to_app, &now.to_server};
    for (int i = 0; i < 2; i++) {
        h = mix(h, c[i]->bytes, c[i]->len);
        h = mix(h, c[i]->tap.bytes, c[i]->tap.len);
        uint32_t n[] = {c[i]->len, c[i]->cut, c[i]->tap.len};
        h = mix(h, n, sizeof n);
    }
    bool flags[] = {now.asked, now.agreed, now.final, now.drained, now.lowered, now.closed, now.app_closed};
    h = mix(h, flags, sizeof flags);
    h = mix(h, &now.limit, sizeof now.limit);
    size_t n = weir_wire_app_output(now.app, &p);
    h = mix(h, p, n);
    n = weir_wire_server_output(now.server, &p);
    h = mix(h, p, n);
    for (unsigned i = 0; i < w->requests; i++) {
        size_t room[] = {weir_wire_server_room(now.server, now.r[i].id, body_stream()), weir_wire_app_room(now.app, now.r[i].id, answer_stream())};
        h = mix(h, room, sizeof room);
    }
    uint32_t told[] = {now.changes, weir_wire_app_active(now.app), weir_wire_server_active(now.server), weir_wire_server_limit(now.server),
                       (uint32_t)weir_wire_app_idle(now.app), now.freed};
    h = mix(h, told, sizeof told);
    return h ? h : 1;
}

static uint64_t *seen;
static size_t seen_mask, seen_count;

static bool seen_before(uint64_t h)
{
    if (!seen || seen_count * 2 > seen_mask) {
        uint64_t *old = seen;
        size_t old_len = seen ? seen_mask + 1 : 0;
        seen_mask = old_len ? old_len * 2 - 1 : (1u << 16) - 1;
        seen = __real_calloc(seen_mask + 1, sizeof *seen);
        if (!seen) abort();
        for (size_t i = 0; i < old_len; i++) {
            size_t at = old[i] & seen_mask;
            while (seen[at]) at = (at + 1) & seen_mask;
            if (old[i]) seen[at] = old[i];
        }
        __real_free(old);
    }
    size_t at = h & seen_mask;
    for (; seen[at]; at = (at + 1) & seen_mask)
        if (seen[at] == h) return true;
    seen[at] = h;
    seen_count++;
    return false;
}

/* ---- records that go by ---- */

static uint64_t number(const uint8_t *p, int len)
{
    uint64_t v = 0;
    for (int i = 0; i < len; i++) v = v << 8 | p[i];
    return v;
}

static void plain_only(uint8_t type, const uint8_t *c, uint16_t len, bool from_server)
{
    bool flow_name = len >= 19 && memcmp(c + 2, "FCGI_FLOW_CONTROL", 17) == 0;
    if (type > 11) found("P7", "a record of the extension to a peer that does not know it");
    if (from_server && type == WEIR_WIRE_BEGIN_REQUEST && (c[2] > 1 || c[3] || number(c + 4, 4)))
        found("P7", "BEGIN_REQUEST with more than FastCGI 1.0 has in it");
    if (!from_server && type == WEIR_WIRE_GET_VALUES_RESULT && flow_name) found("P7", "the name in the answer of an app that does not know it");
    if (from_server && type == WEIR_WIRE_GET_VALUES && !w->asks) found("P7", "a question without a hint");
}

static void told_requests(const uint8_t *c, uint16_t len)
{
    static const char key[] = " requests=";
    for (uint16_t i = 0; i + sizeof key <= len; i++)
        if (memcmp(c + i, key, sizeof key - 1) == 0) now.limit = c[i + sizeof key - 1] - '0';
}

static void credit_goes_by(uint16_t id, const uint8_t *c, bool from_server)
{
    uint64_t limit = number(c + 8, 8);
    if (id == 0) {
        if (c[1] & 1) now.final = true;
        now.limit = now.final ? 0 : (uint32_t)limit;
        return;
    }
    struct request *r = from_server ? read_with(id) : active_with(id);
    if (!r || (from_server && r->ended)) return; /* late */
    uint64_t taken = from_server ? r->answer_taken : r->body_taken;
    uint32_t window = from_server ? w->server_window : w->app_window;
    if (c[0] != (uint8_t)(from_server ? answer_stream() : body_stream())) found("P2", "credit for a stream that nothing was taken of");
    if (limit > taken + window) found("P2", "credit that another request earned");
    uint64_t *known = from_server ? &r->answer_limit : &r->body_limit;
    if (limit > *known) *known = limit;
}

static void goes_by(const uint8_t *b, bool from_server)
{
    struct weir_wire_header h;
    weir_wire_header_read(b, &h);
    const uint8_t *c = b + WEIR_WIRE_HEADER_LEN;
    struct request *r = from_server ? read_with(h.id) : active_with(h.id);
    if (!w->asks || w->unaware) plain_only(h.type, c, h.len, from_server);
    if (h.type == WEIR_WIRE_GET_VALUES_RESULT && !w->unaware) told_requests(c, h.len);
    if (h.type == WEIR_WIRE_CREDIT) credit_goes_by(h.id, c, from_server);
    if (from_server && h.type == WEIR_WIRE_BEGIN_REQUEST) {
        if (!(r = begun_with(h.id))) found("P2", "a BEGIN that nobody sent");
        r->begin_read = true;
        r->answer_limit = c[2] & 0x80 ? number(c + 4, 4) : UINT64_MAX;
    }
    if (from_server && h.type == WEIR_WIRE_PARAMS && h.len == 0 && r) r->params_read = true;
    if (!from_server && h.type == WEIR_WIRE_END_REQUEST && r && c[3] != code(r) && c[4] == 0 && !r->aborted)
        found("P2", "the end of another request");
}

static void tap_takes(struct channel *ch, const uint8_t *p, size_t len, bool from_server)
{
    struct tap *t = &ch->tap;
    for (size_t i = 0; i < len; i++) {
        if (t->len == sizeof t->bytes) abort();
        t->bytes[t->len++] = p[i];
        if (t->len < 8 || t->len < 8u + (unsigned)(t->bytes[4] << 8 | t->bytes[5]) + t->bytes[6]) continue;
        goes_by(t->bytes, from_server);
        t->len = 0;
    }
}

/* P6: what a machine has not sent yet. */
static void look_at_output(const uint8_t *p, size_t len, size_t cut)
{
    uint8_t credits[REQUESTS + 2][12] = {{0}}, others[REQUESTS + 2][12] = {{0}};
    for (size_t at = cut; at + 8 <= len;) {
        struct weir_wire_header h;
        weir_wire_header_read(p + at, &h);
        if (h.id > REQUESTS) found("P2", "a record of an id that nobody has");
        if (h.type == WEIR_WIRE_CREDIT && ++credits[h.id][p[at + 8]] > 1) found("P6", "two CREDIT of one stream wait to be sent");
        if (h.type == WEIR_WIRE_BEGIN_REQUEST) memset(others[h.id], 0, sizeof others[h.id]); /* what an older one left may lie before */
        if (h.type < 4 && ++others[h.id][h.type] > 1) found("P6", "two BEGIN, ABORT or END of one request wait to be sent");
        at += 8u + h.len + h.padding;
    }
}

/* ---- the two programs ---- */

static uint64_t heard; /* hash of the events of a delivery, however they were split */
static bool check_splits;

static void note(const struct weir_wire_event *ev)
{
    uint32_t v[] = {ev->type, ev->id, ev->stream, ev->app_status, ev->protocol_status, ev->agreed, ev->final, ev->not_run, ev->limit};
    static uint32_t last[3];
    bool same = ev->type == WEIR_WIRE_EV_INPUT && last[0] == v[0] && last[1] == v[1] && last[2] == v[2] && heard != 0;
    if (!same) heard = mix(heard + 1, v, sizeof v);
    for (size_t i = 0; i < ev->bytes.len; i++) heard = mix(heard, ev->bytes.ptr + i, 1);
    memcpy(last, v, sizeof last);
}

static struct request *request_of(const struct weir_wire_event *ev)
{
    struct request *r = ev->user;
    if (!r) found("P2", "an event that names no request");
    if (r->id != ev->id) found("P2", "an event with another id than its request has");
    for (size_t i = 0; i < ev->bytes.len; i++)
        if ((uint8_t)ev->bytes.ptr[i] != code(r)) found("P2", "a byte of another request");
    return r;
}

static void app_hears(void)
{
    struct weir_wire_event ev;
    while (weir_wire_app_next(now.app, &ev) == WEIR_OK) {
        struct request *r = ev.type == WEIR_WIRE_EV_REQUEST ? active_with(ev.id) : NULL;
        note(&ev);
        switch (ev.type) {
        case WEIR_WIRE_EV_REQUEST:
            if (!r) found("P2", "a request that nobody began");
            if (++r->runs > 1) found("P3", "the app was told of a request twice");
            r->known = true;
            weir_wire_app_set_user(now.app, ev.id, r);
            break;
        case WEIR_WIRE_EV_INPUT:
            r = request_of(&ev);
            r->body_got += (uint8_t)ev.bytes.len;
            if (now.agreed && (uint32_t)r->body_got - r->body_taken > w->app_window) found("P6", "the app holds more than its window");
            break;
        case WEIR_WIRE_EV_INPUT_END: request_of(&ev); break;
        case WEIR_WIRE_EV_ROOM: request_of(&ev)->answer_waits = false; break;
        case WEIR_WIRE_EV_ABORT: request_of(&ev)->told_abort = true; break;
        default: found("P3", ev.reason ? ev.reason : "an event that an app does not get");
        }
    }
}

static void request_ends(struct request *r, const struct weir_wire_event *ev)
{
    if (++r->ends > 1) found("P3", "a request ended twice");
    r->over = true;
    now.freed = now.freed << 2 | r->id;
    if (ev->not_run && r->ran) found("P3", "told that it did not run, but it did");
    if (ev->protocol_status == WEIR_WIRE_REQUEST_COMPLETE && !r->aborted) {
        if (!r->ran) found("P3", "complete, but it did not run");
        if (r->answer_got != w->answer) found("P3", "complete, but not all of its answer came");
    }
}

static void server_hears(void)
{
    struct weir_wire_event ev;
    while (weir_wire_server_next(now.server, &ev) == WEIR_OK) {
        struct request *r;
        note(&ev);
        switch (ev.type) {
        case WEIR_WIRE_EV_VALUES:
            now.asked = false;
            now.agreed = ev.agreed;
            if (ev.agreed == w->unaware) found("P7", "a wrong outcome of the question");
            break;
        case WEIR_WIRE_EV_INPUT:
            r = request_of(&ev);
            r->answer_got += (uint8_t)ev.bytes.len;
            if (now.agreed && (uint32_t)r->answer_got - r->answer_taken > w->server_window) found("P6", "the server holds more than its window");
            break;
        case WEIR_WIRE_EV_INPUT_END: request_of(&ev); break;
        case WEIR_WIRE_EV_ROOM: request_of(&ev)->body_waits = false; break;
        case WEIR_WIRE_EV_END: request_ends(request_of(&ev), &ev); break;
        case WEIR_WIRE_EV_LIMIT: break;
        default: found("P3", ev.reason ? ev.reason : "an event that a server does not get");
        }
    }
}

/* ---- steps: each returns false if it cannot be taken now ---- */

enum step {
    BEGIN, GIVE_BODY, TAKE_ANSWER, ABORT, TAKE_BODY, GIVE_ANSWER, END, REFUSE, REFUSE_LATE, /* of a request */
    DRAIN, LOWER, RAISE, CLOSE, SEND_TO_APP, SEND_TO_SERVER, REACH_APP, REACH_SERVER, STEPS
};
static const char *const step_names[] = {"begin", "body", "take answer", "abort", "take body", "answer", "end", "refuse", "refuse late",
                                         "drain", "lower", "raise", "close", "to app", "to server", "app reads", "server reads"};

static bool begins(struct request *r)
{
    unsigned i = (unsigned)(r - now.r), before = active();
    uint16_t id;
    if (r->begun || now.asked || now.closed || (i > 0 && !now.r[i - 1].begun)) return false;
    int status = weir_wire_server_begin(now.server, w->others ? WEIR_FILTER : WEIR_RESPONDER, 1, w->server_window, NULL, 0, r, &id);
    if (status == WEIR_OK && now.final) found("P5", "a request was begun after FINAL had come");
    if (status == WEIR_OK && before >= now.limit) found("P1", "more requests were begun than the app takes");
    if (status != WEIR_OK) {
        if (!now.final && before < now.limit) found("P4", "a request cannot be begun although there is room");
        return false;
    }
    if (active_with(id)) found("P2", "an id was used again while its request is active");
    *r = (struct request){.id = id, .begun = true, .body_limit = now.agreed ? w->app_window : UINT64_MAX};
    if (w->others && weir_wire_server_write_end(now.server, id, WEIR_STDIN) < 0) abort();
    if (w->body == 0 && weir_wire_server_write_end(now.server, id, body_stream()) < 0) abort();
    return true;
}

static bool gives_body(struct request *r)
{
    uint8_t bytes[16];
    if (!r->begun || r->over || r->aborted || r->body_sent == w->body || r->body_waits) return false;
    size_t len = w->bytewise ? 1 : w->body - r->body_sent;
    memset(bytes, code(r), len);
    int64_t n = weir_wire_server_write(now.server, r->id, body_stream(), bytes, len);
    if (n < 0) abort();
    r->body_sent += (uint8_t)n;
    r->body_waits = (size_t)n < len;
    if (r->body_sent > r->body_limit) found("P1", "the server sends more than its credit");
    if (r->body_sent == w->body && weir_wire_server_write_end(now.server, r->id, body_stream()) < 0) abort();
    return true;
}

static bool takes_answer(struct request *r)
{
    unsigned len = w->bytewise ? r->answer_got > r->answer_taken : (unsigned)(r->answer_got - r->answer_taken);
    if (!r->begun || r->over || r->aborted || len == 0) return false;
    r->answer_taken += (uint8_t)len;
    weir_wire_server_consumed(now.server, r->id, answer_stream(), len);
    return true;
}

static bool aborts(struct request *r)
{
    if (!w->aborts || !r->begun || r->over || r->aborted) return false;
    r->aborted = true;
    if (weir_wire_server_abort(now.server, r->id) < 0) abort();
    return true;
}

static bool takes_body(struct request *r)
{
    unsigned len = w->bytewise ? r->body_got > r->body_taken : (unsigned)(r->body_got - r->body_taken);
    if (!r->known || r->ended || len == 0) return false;
    r->ran = true;
    r->body_taken += (uint8_t)len;
    weir_wire_app_consumed(now.app, r->id, body_stream(), len);
    return true;
}

static bool gives_answer(struct request *r)
{
    uint8_t bytes[16];
    if (!r->known || r->ended || r->told_abort || r->answer_sent == w->answer || r->answer_waits) return false;
    size_t len = w->bytewise ? 1 : w->answer - r->answer_sent;
    memset(bytes, code(r), len);
    r->ran = true;
    int64_t n = weir_wire_app_write(now.app, r->id, answer_stream(), bytes, len);
    if (n < 0) abort();
    r->answer_sent += (uint8_t)n;
    r->answer_waits = (size_t)n < len;
    if (r->answer_sent > r->answer_limit) found("P1", "the app sends more than its credit");
    return true;
}

static bool end_with(struct request *r, uint8_t status)
{
    r->ended = true;
    if (weir_wire_app_end(now.app, r->id, code(r), status) < 0) found("P3", "a request cannot be ended");
    return true;
}

static bool ends(struct request *r)
{
    if (!r->known || r->ended || (r->answer_sent < w->answer && !r->told_abort)) return false;
    if (patient && r->body_taken < w->body && !r->told_abort) return false;
    r->ran = true;
    return end_with(r, WEIR_WIRE_REQUEST_COMPLETE);
}

static bool refuses(struct request *r)
{
    return w->refuses && r->known && !r->ended && !r->ran && end_with(r, WEIR_WIRE_OVERLOADED);
}

static bool refuses_late(struct request *r)
{
    return w->late && r->known && !r->ended && r->ran && end_with(r, WEIR_WIRE_OVERLOADED);
}

static bool sends(struct channel *c, size_t (*output)(const void **p), void (*sent)(size_t))
{
    const void *p;
    size_t len = output(&p), room = w->channel - c->len;
    if (len == 0 || room == 0) return false;
    if (len > room) len = room;
    memcpy(c->bytes + c->len, p, len);
    c->len += (uint32_t)len;
    if (c->cut >= len) {
        c->cut -= (uint32_t)len;
    } else { /* where the record ends that is cut now */
        size_t at = c->cut;
        while (at < len) {
            uint8_t head[8] = {0};
            size_t have = output(&p) - at;
            memcpy(head, (const uint8_t *)p + at, have < 8 ? have : 8);
            at += 8u + (unsigned)(head[4] << 8 | head[5]) + head[6];
        }
        c->cut = (uint32_t)(at - len);
    }
    sent(len);
    return true;
}

static size_t server_output(const void **p)
{
    return weir_wire_server_output(now.server, p);
}

static void server_sent(size_t len)
{
    weir_wire_server_sent(now.server, len);
}

static size_t app_output(const void **p)
{
    return weir_wire_app_output(now.app, p);
}

static void app_sent(size_t len)
{
    weir_wire_app_sent(now.app, len);
}

static void feed(bool app, const uint8_t *p, size_t len)
{
    memcpy(now.stage, p, len);
    tap_takes(app ? &now.to_app : &now.to_server, p, len, app);
    if (app) {
        weir_wire_app_feed(now.app, now.stage, len);
        app_hears();
        weir_wire_app_feed(now.app, now.stage, 0);
    } else {
        weir_wire_server_feed(now.server, now.stage, len);
        server_hears();
        weir_wire_server_feed(now.server, now.stage, 0);
    }
}

/* What both sides say behind these bytes, given at once or one by one. */
static uint64_t told(bool app, const uint8_t *p, size_t len, size_t piece)
{
    const void *out;
    heard = 0;
    for (size_t i = 0; i < len; i += piece) feed(app, p + i, len - i < piece ? len - i : piece);
    size_t n = weir_wire_app_output(now.app, &out);
    uint64_t h = mix(heard, out, n);
    n = weir_wire_server_output(now.server, &out);
    h = mix(h, out, n);
    return mix(h, now.r, sizeof now.r);
}

/* One record, or as much of it as there is. */
static bool reaches(struct channel *c, bool app)
{
    static struct state before; /* never nested */
    uint8_t bytes[CHANNEL];
    if (c->len == 0) return false;
    size_t rest = c->tap.len, len = c->len;
    if (rest == 0 && len >= 8) {
        size_t whole = 8u + (unsigned)(c->bytes[4] << 8 | c->bytes[5]) + c->bytes[6];
        if (whole < len) len = whole;
    } else if (rest >= 8) {
        size_t whole = 8u + (unsigned)(c->tap.bytes[4] << 8 | c->tap.bytes[5]) + c->tap.bytes[6] - rest;
        if (whole < len) len = whole;
    } else if (rest && len > 8 - rest) {
        len = 8 - rest;
    }
    memcpy(bytes, c->bytes, len);
    memmove(c->bytes, c->bytes + len, c->len - len);
    c->len -= (uint32_t)len;
    if (!check_splits || len == 1) {
        (void)told(app, bytes, len, len);
        return true;
    }
    memcpy(&before, &now, state_len());
    uint64_t at_once = told(app, bytes, len, len);
    restore(&before);
    byte_by_byte = true;
    if (told(app, bytes, len, 1) != at_once) found("P8", "the same bytes mean something else when they come one by one");
    byte_by_byte = false;
    return true;
}

/* The server closes when it was told FINAL and nothing is active; the app reads to the end before it does. */
static bool closes(void)
{
    const void *p;
    if (!now.final || active() || now.closed || weir_wire_server_output(now.server, &p)) return false;
    now.closed = true;
    return true;
}

static bool take_step(enum step s, struct request *r)
{
    switch (s) {
    case BEGIN: return begins(r);
    case GIVE_BODY: return gives_body(r);
    case TAKE_ANSWER: return takes_answer(r);
    case ABORT: return aborts(r);
    case TAKE_BODY: return takes_body(r);
    case GIVE_ANSWER: return gives_answer(r);
    case END: return ends(r);
    case REFUSE: return refuses(r);
    case REFUSE_LATE: return refuses_late(r);
    case DRAIN:
        if (!w->drains || now.drained) return false;
        now.drained = true;
        weir_wire_app_drain(now.app);
        return true;
    case LOWER:
    case RAISE:
        if (!w->limits || now.drained || now.changes == 2 || now.lowered == (s == LOWER)) return false;
        now.changes++;
        now.lowered = s == LOWER;
        weir_wire_app_limit(now.app, s == LOWER ? w->capacity - 1 : w->capacity);
        return true;
    case CLOSE: return closes();
    case SEND_TO_APP: return sends(&now.to_app, server_output, server_sent);
    case SEND_TO_SERVER: return sends(&now.to_server, app_output, app_sent);
    case REACH_APP: return reaches(&now.to_app, true);
    default: return reaches(&now.to_server, false);
    }
}

/* ---- what holds in every state ---- */

static void look_for_lost(void)
{
    for (unsigned i = 0; i < w->requests; i++) {
        const struct request *r = &now.r[i];
        if (r->params_read && !r->known && !r->over)
            found(now.drained ? "P5" : "P3", "the app read a BEGIN and knows nothing of it");
    }
}

static void look(void)
{
    const void *p;
    size_t len = weir_wire_server_output(now.server, &p);
    look_at_output(p, len, now.to_app.cut);
    len = weir_wire_app_output(now.app, &p);
    look_at_output(p, len, now.to_server.cut);
    look_for_lost();
    if (now.closed && now.to_app.len == 0 && !now.app_closed) { /* end of file */
        now.app_closed = true;
        if (weir_wire_app_active(now.app) || !weir_wire_app_idle(now.app)) found("P5", "the connection was closed under a request");
    }
}

/* P4: with nobody at work for one request, on either side, all others still end. */
static void others_can_end(const struct request *stalled)
{
    static const enum step order[] = {BEGIN, GIVE_BODY, TAKE_BODY, GIVE_ANSWER, TAKE_ANSWER, END};
    static const enum step moves[] = {SEND_TO_APP, REACH_APP, SEND_TO_SERVER, REACH_SERVER};
    bool moved = true;
    patient = true;
    for (unsigned turns = 0; moved; turns++) {
        moved = false;
        if (turns > 1000) found("P4", "the world does not come to rest");
        for (size_t k = 0; k < WEIR_COUNT(moves); k++)
            while (take_step(moves[k], NULL)) moved = true;
        for (unsigned i = 0; i < w->requests; i++) {
            if (&now.r[i] == stalled) continue;
            for (size_t k = 0; k < WEIR_COUNT(order); k++)
                if (take_step(order[k], &now.r[i])) moved = true;
        }
    }
    patient = false;
    look_for_lost();
    for (unsigned i = 0; i < w->requests; i++)
        if (&now.r[i] != stalled && now.r[i].begun && !now.r[i].over)
            found("P4", stalled ? "a request cannot end while another one is stalled" : "a request cannot end");
}

/* ---- the search ---- */

static struct {
    uint8_t *bytes;
    size_t room;
} stack[DEPTH];

static void save(unsigned at)
{
    size_t len = state_len();
    if (stack[at].room < len) {
        __real_free(stack[at].bytes);
        stack[at].room = len + 2048;
        stack[at].bytes = __real_malloc(stack[at].room);
        if (!stack[at].bytes) abort();
    }
    memcpy(stack[at].bytes, &now, len);
}

static void explore(void)
{
    if (depth + 1 >= DEPTH) abort();
    look();
    if (seen_before(state_hash())) return;
    states++;
    save(depth);
    check_splits = false;
    for (unsigned i = 0; i <= w->requests; i++) {
        if (i < w->requests && (w->requests == 1 || !now.r[i].begun || now.r[i].over)) continue;
        others_can_end(i < w->requests ? &now.r[i] : NULL);
        restore(stack[depth].bytes);
    }
    check_splits = true;
    for (int s = 0; s < STEPS; s++) {
        for (unsigned i = 0; i < (s < DRAIN ? w->requests : 1); i++) {
            if (!take_step((enum step)s, &now.r[i])) continue;
            steps++;
            kinds[s]++;
            if (s < DRAIN) snprintf(path[depth], sizeof path[depth], "%s %u", step_names[s], i);
            else snprintf(path[depth], sizeof path[depth], "%s", step_names[s]);
            depth++;
            explore();
            depth--;
            restore(stack[depth].bytes);
        }
    }
}

static void run(const struct world *world)
{
    const struct weir_wire_limits limits = {.requests = world->capacity, .window = world->app_window, .no_flow = world->unaware};
    w = world;
    memset(&now, 0, sizeof now);
    memset(seen, 0, seen ? (seen_mask + 1) * sizeof *seen : 0);
    seen_count = 0;
    uint64_t states_before = states, steps_before = steps;
    if (weir_wire_app_new(&now.app, &limits) < 0 || weir_wire_server_new(&now.server, NULL) < 0) abort();
    now.limit = 1;
    if (w->asks) {
        if (weir_wire_server_ask(now.server) < 0) abort();
        now.asked = true;
    }
    explore();
    printf("%-34s %8llu states %9llu steps\n", w->name, (unsigned long long)(states - states_before), (unsigned long long)(steps - steps_before));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    expected = argc > 1 && !quick ? argv[1] : NULL;
    setvbuf(stdout, NULL, _IOLBF, 4096);
    for (size_t i = 0; i < WEIR_COUNT(worlds); i++)
        if (!quick || !worlds[i].large) run(&worlds[i]);
    for (int s = 0; s < STEPS; s++)
        if (kinds[s] == 0) {
            printf("the step \"%s\" was never taken\n", step_names[s]);
            return 1;
        }
    printf("%llu states, %llu steps\n", (unsigned long long)states, (unsigned long long)steps);
    return expected != NULL; /* it should have found something */
}

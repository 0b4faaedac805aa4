/* SPDX-License-Identifier: MIT */
/* The world of the model check: a web server's program and an application's, each on its wire machine, two channels, and what is
 * judged when a record goes by or an event is told. */
#include "model.h"

/* ---- what a request is ---- */

enum weir_stream body_stream(void)
{
    return w->others ? WEIR_DATA : WEIR_STDIN;
}

enum weir_stream answer_stream(void)
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

/* ---- the two programs ---- */

static uint64_t heard; /* hash of the events of a delivery, however they were split */

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

bool take_step(enum step s, struct request *r)
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

/* SPDX-License-Identifier: MIT */
/* The web server's end of a connection: requests -> records, records -> their output. It owns the ids: one that is free again
 * is used before a new one, so that they stay small and both sides can index by them (FC1-3.3-i, IOP-S1). */
#include <stdlib.h>

#include "wire/wire_internal.h"

enum { OUT_STDIN, OUT_DATA, OUT_COUNT };
enum { IN_STDOUT, IN_STDERR, IN_COUNT };

struct request {
    void *user;
    struct credit_out out[OUT_COUNT];
    struct credit_in in[IN_COUNT];
    uint64_t begin_at; /* offset of its BEGIN in all that was ever put out */
    bool active, aborted, answered;
};

enum asked { ASK_NONE, ASK_FLOW, ASK_PING };
enum content { SKIP, SMALL, STREAM, VALUES };

struct weir_wire_server {
    struct decoder d;
    struct weir_wire_limits limits;
    struct weir_buf out, values;
    struct request *requests; /* index id - 1 (FC1-3.3-j) */
    uint16_t *free_ids;       /* stack */
    uint32_t cap, top, free_count;
    struct small small;
    struct weir_wire_event pending; /* the second event of one record */
    enum content content;
    enum asked asked;
    uint64_t sent;            /* bytes that left, in all */
    uint32_t active, limit, peer_window, stray;
    const char *error;
    bool has_pending, agreed, final, spoiled, told_error;
};

int weir_wire_server_new(struct weir_wire_server **out, const struct weir_wire_limits *l)
{
    struct weir_wire_server *w = calloc(1, sizeof *w);
    if (!w) return WEIR_NOMEM;
    weir_wire_limits(&w->limits, l);
    w->limit = 1;
    *out = w;
    return WEIR_OK;
}

void weir_wire_server_free(struct weir_wire_server *w)
{
    if (!w) return;
    weir_buf_fini(&w->out);
    weir_buf_fini(&w->values);
    free(w->requests);
    free(w->free_ids);
    free(w);
}

static int fail(struct weir_wire_server *w, const char *reason)
{
    if (!w->error) w->error = reason;
    return WEIR_PROTOCOL;
}

static struct request *find(const struct weir_wire_server *w, uint16_t id)
{
    if (id == 0 || id > w->top || !w->requests[id - 1].active) return NULL;
    return &w->requests[id - 1];
}

/* ---- ids ---- */

static bool grow(struct weir_wire_server *w)
{
    uint32_t cap = w->cap ? w->cap * 2 : 4;
    if (w->cap >= 65535) return false;
    if (cap > 65535) cap = 65535;
    struct request *requests = realloc(w->requests, cap * sizeof *requests);
    if (!requests) return false;
    w->requests = requests;
    uint16_t *ids = realloc(w->free_ids, cap * sizeof *ids);
    if (!ids) return false;
    w->free_ids = ids;
    w->cap = cap;
    return true;
}

static uint16_t take_id(struct weir_wire_server *w)
{
    if (w->free_count) return w->free_ids[--w->free_count]; /* FC1-3.3-i */
    if (w->top == w->cap && !grow(w)) return 0;
    return (uint16_t)++w->top;
}

static void free_id(struct weir_wire_server *w, uint16_t id)
{
    w->free_ids[w->free_count++] = id;
}

/* ---- asking ---- */

static int get_values(struct weir_wire_server *w, const char *name, enum asked asked)
{
    uint8_t content[64];
    if (w->error) return WEIR_CLOSED;
    if ((w->active && asked == ASK_FLOW) || w->asked != ASK_NONE) return WEIR_INVALID; /* FC1-4.1-f */
    size_t len = weir_wire_pair(content, weir_cstr(name), WEIR_STR("")); /* FC1-4.1-a */
    int status = weir_record_write(&w->out, WEIR_WIRE_GET_VALUES, 0, content, len, 8); /* FC 2.1: padded for libfcgi (FC1-3.3-e, IOP-S3, IOP-S10) */
    if (status == WEIR_OK) w->asked = asked;
    return status;
}

int weir_wire_server_ask(struct weir_wire_server *w)
{
    return get_values(w, FLOW_NAME, ASK_FLOW);
}

int weir_wire_server_ping(struct weir_wire_server *w)
{
    return get_values(w, "FCGI_MPXS_CONNS", ASK_PING);
}

void weir_wire_server_allow_plain_mpx(struct weir_wire_server *w, uint32_t n)
{
    if (w->agreed) return;
    w->limit = n > 65535 ? 65535 : n ? n : 1;
}

/* ---- beginning ---- */

/* Bit 7 of some byte is set if v has a byte that is 0. */
static inline uint64_t zero_byte(uint64_t v)
{
    return (v - UINT64_C(0x0101010101010101)) & ~v & UINT64_C(0x8080808080808080);
}

/* Has s a NUL, or a byte of `other`, which is eight times the same one? */
static inline bool holds(struct weir_str s, uint64_t other)
{
    uint64_t found = 0, v;
    if (s.len < 8) {
        for (size_t i = 0; i < s.len; i++) found |= s.ptr[i] == 0 || s.ptr[i] == (char)other;
        return found != 0;
    }
    for (size_t i = 0;; i = i + 16 <= s.len ? i + 8 : s.len - 8) { /* the last piece may overlap the one before */
        memcpy(&v, s.ptr + i, 8);
        found |= zero_byte(v) | zero_byte(v ^ other);
        if (i + 8 == s.len) return found != 0;
    }
}

/* What an environment can hold (FC1-6.1-f): an app would end the connection, and with it the requests beside this one. */
static inline bool sendable(const struct weir_pair *p)
{
    return p->name.len > 0 && !holds(p->name, UINT64_C(0x0101010101010101) * '=') && !holds(p->value, 0);
}

/* PARAMS in as few records as possible, no pair in two of them (IOP-S2), and the empty record (FC1-6.1-e). The same code measures (out NULL) and
 * writes. Returns the bytes; 0: a pair cannot be sent. */
static inline __attribute__((always_inline)) size_t encode_params(uint8_t *out, uint16_t id, const struct weir_pair *params, size_t count)
{
    size_t record = 0, at = WEIR_WIRE_HEADER_LEN; /* where the current record begins; the next byte */
    for (size_t i = 0; i < count; i++) {
        size_t n = pair_put(NULL, params[i].name, params[i].value);
        if (n == 0 || n > WEIR_WIRE_SEND_CONTENT || (!out && !sendable(&params[i]))) return 0;
        if (at + n - record - WEIR_WIRE_HEADER_LEN > WEIR_WIRE_SEND_CONTENT) {
            if (out) weir_wire_header_write(out + record, WEIR_WIRE_PARAMS, id, (uint16_t)(at - record - WEIR_WIRE_HEADER_LEN), 0);
            record = at;
            at += WEIR_WIRE_HEADER_LEN;
        }
        if (out) (void)pair_put(out + at, params[i].name, params[i].value);
        at += n;
    }
    if (count) {
        if (out) weir_wire_header_write(out + record, WEIR_WIRE_PARAMS, id, (uint16_t)(at - record - WEIR_WIRE_HEADER_LEN), 0);
        record = at;
        at += WEIR_WIRE_HEADER_LEN;
    }
    if (out) weir_wire_header_write(out + record, WEIR_WIRE_PARAMS, id, 0, 0);
    return at;
}

static void init_request(struct weir_wire_server *w, struct request *r, uint32_t window, void *user)
{
    *r = (struct request){.user = user, .active = true, .begin_at = w->sent + weir_buf_len(&w->out)};
    for (int i = 0; i < OUT_COUNT; i++) r->out[i].limit = w->agreed ? w->peer_window : UNLIMITED;
    for (int i = 0; i < IN_COUNT; i++) {
        r->in[i].window = window;
        r->in[i].limit = w->agreed ? window : UNLIMITED;
    }
}

int weir_wire_server_begin(struct weir_wire_server *w, enum weir_role role, int keep, uint32_t window,
                           const struct weir_pair *params, size_t count, void *user, uint16_t *id)
{
    if (w->error || w->final) return WEIR_CLOSED;
    if (w->asked == ASK_FLOW || w->active >= w->limit) return WEIR_LIMIT; /* FC1-3.3-n; a ping is no reason to wait */
    size_t params_len = encode_params(NULL, 0, params, count);
    if (params_len == 0) return WEIR_INVALID;
    uint8_t *out = (uint8_t *)weir_buf_room(&w->out, 16 + params_len);
    if (!out) return WEIR_NOMEM;
    uint16_t r_id = take_id(w);
    if (!r_id) return WEIR_LIMIT;
    init_request(w, &w->requests[r_id - 1], window, user);
    weir_wire_header_write(out, WEIR_WIRE_BEGIN_REQUEST, r_id, 8, 0);
    memset(out + 8, 0, 8); /* FC1-5.1-a, FC1-5.1-b */
    out[8] = (uint8_t)((unsigned)role >> 8);
    out[9] = (uint8_t)role;
    out[10] = keep || w->agreed ? WEIR_WIRE_KEEP_CONN : 0;
    if (w->agreed) { /* FC 3 */
        out[10] |= WEIR_WIRE_FLOW;
        out[11] = 1;
        out[12] = (uint8_t)(window >> 24);
        out[13] = (uint8_t)(window >> 16);
        out[14] = (uint8_t)(window >> 8);
        out[15] = (uint8_t)window;
    }
    size_t written = encode_params(out + 16, r_id, params, count); /* FC1-6.1-a, IOP-S1 */
    WEIR_ASSERT(written == params_len);
    weir_buf_added(&w->out, 16 + params_len);
    if (!(out[10] & WEIR_WIRE_KEEP_CONN)) w->spoiled = true; /* the app closes it (IOP-S8) */
    w->active++;
    *id = r_id;
    return WEIR_OK;
}

/* ---- the request's streams ---- */

static struct credit_out *out_stream(struct request *r, enum weir_stream s)
{
    return &r->out[s == WEIR_DATA ? OUT_DATA : OUT_STDIN];
}

static struct request *writable(const struct weir_wire_server *w, uint16_t id, enum weir_stream s)
{
    struct request *r = find(w, id);
    if (!r || r->aborted || (s != WEIR_STDIN && s != WEIR_DATA) || out_stream(r, s)->ended) return NULL; /* FC1-5.4-e */
    return r;
}

size_t weir_wire_server_room(const struct weir_wire_server *w, uint16_t id, enum weir_stream s)
{
    struct request *r = writable(w, id, s);
    return r && !w->error ? credit_room(out_stream(r, s)) : 0;
}

int64_t weir_wire_server_write(struct weir_wire_server *w, uint16_t id, enum weir_stream s, const void *buf, size_t len)
{
    struct request *r = writable(w, id, s);
    if (w->error) return WEIR_CLOSED;
    if (!r) return WEIR_INVALID;
    struct credit_out *out = out_stream(r, s);
    size_t n = credit_room(out);
    if (n < len) out->starved = true;
    else n = len;
    if (n == 0) return 0;
    uint32_t record = w->active > 1 ? STREAM_RECORD : WEIR_WIRE_SEND_CONTENT; /* IOP-S3 */
    if (weir_stream_write(&w->out, (uint8_t)s, id, buf, n, record) < 0) return WEIR_NOMEM; /* FC1-5.3-a */
    out->sent += n;
    out->idle = 0;
    return (int64_t)n;
}

int weir_wire_server_write_end(struct weir_wire_server *w, uint16_t id, enum weir_stream s)
{
    struct request *r = writable(w, id, s);
    if (w->error) return WEIR_CLOSED;
    if (!r) return WEIR_INVALID;
    int status = weir_record_write(&w->out, (uint8_t)s, id, NULL, 0, 0); /* FC1-6.1-e */
    if (status == WEIR_OK) out_stream(r, s)->ended = true;
    return status;
}

int weir_wire_server_abort(struct weir_wire_server *w, uint16_t id)
{
    struct request *r = find(w, id);
    if (w->error) return WEIR_CLOSED;
    if (!r) return WEIR_INVALID;
    if (r->aborted) return WEIR_OK;
    int status = weir_record_write(&w->out, WEIR_WIRE_ABORT_REQUEST, id, NULL, 0, 0); /* FC1-5.4-c */
    if (status == WEIR_OK) r->aborted = true;
    return status;
}

void weir_wire_server_consumed(struct weir_wire_server *w, uint16_t id, enum weir_stream s, size_t len)
{
    struct request *r = find(w, id);
    if (w->error || !r || r->aborted || !w->agreed) return;
    struct credit_in *in = &r->in[s == WEIR_STDERR ? IN_STDERR : IN_STDOUT];
    uint64_t limit = weir_credit_taken(in, len);
    if (limit && weir_credit_write(&w->out, w->sent, &in->at, id, (uint8_t)s, 0, limit) < 0) (void)fail(w, "out of memory");
}

void weir_wire_server_set_window(struct weir_wire_server *w, uint16_t id, enum weir_stream s, uint32_t window)
{
    struct request *r = find(w, id);
    if (r) r->in[s == WEIR_STDERR ? IN_STDERR : IN_STDOUT].window = window;
}

/* ---- records in ---- */

static int on_header(struct weir_wire_server *w)
{
    struct weir_wire_header *h = &w->d.h;
    w->small.len = 0;
    w->content = SKIP;
    if (h->id == 0) {
        if (h->type == WEIR_WIRE_GET_VALUES_RESULT && w->asked != ASK_NONE) {
            w->content = VALUES;
            weir_buf_reset(&w->values, 4096);
        } else if (h->type == WEIR_WIRE_CREDIT && w->agreed) {
            if (h->len < CREDIT_LEN) return fail(w, "CREDIT that is too short");
            w->content = SMALL;
        }
        return WEIR_OK; /* what was not asked for is skipped (FC1-3.3-k, FC1-4.2-b, IOP-S6) */
    }
    struct request *r = find(w, h->id);
    if (!r) { /* of a request that ended: ignored (FC1-3.3-o, IOP-S6) */
        if (++w->stray > w->limits.stray_records) return fail(w, "too many records of inactive requests");
        if (!w->agreed) w->spoiled = true; /* whoever sends that does not know where a request ends (IOP-S8) */
        return WEIR_OK;
    }
    w->stray = 0;
    switch (h->type) {
    case WEIR_WIRE_STDOUT:
    case WEIR_WIRE_STDERR:
        if (r->in[h->type == WEIR_WIRE_STDERR].ended) return fail(w, "output after the end of its stream"); /* FC1-3.3-l, IOP-S7 */
        r->answered = true;
        w->content = STREAM;
        return WEIR_OK;
    case WEIR_WIRE_END_REQUEST:
        if (h->len != 8) return fail(w, "END_REQUEST with a content that is not 8 bytes"); /* FC1-3.3-m */
        w->content = SMALL;
        return WEIR_OK;
    case WEIR_WIRE_CREDIT:
        if (!w->agreed) return WEIR_OK;
        if (h->len < CREDIT_LEN) return fail(w, "CREDIT that is too short");
        r->answered = true; /* FC 7.3: nothing of the request comes before a refusal */
        w->content = SMALL;
        return WEIR_OK;
    default: return fail(w, "a record that an application may not send"); /* FC1-A-a */
    }
}

static int on_stream(struct weir_wire_server *w, struct weir_wire_event *ev) /* FC1-5.3-b, FC1-6.1-c */
{
    struct request *r = find(w, w->d.h.id);
    if (!r) return WEIR_OK;
    struct credit_in *in = &r->in[w->d.h.type == WEIR_WIRE_STDERR ? IN_STDERR : IN_STDOUT];
    if (!weir_credit_arrived(in, w->d.piece.len)) return fail(w, "output beyond the credit");
    if (r->aborted) return WEIR_OK;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_INPUT, .id = w->d.h.id,
                                   .stream = (enum weir_stream)w->d.h.type, .bytes = w->d.piece, .user = r->user};
    return 1;
}

static int on_stream_end(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    struct request *r = find(w, w->d.h.id);
    if (!r || w->d.h.len != 0) return WEIR_OK;
    r->in[w->d.h.type == WEIR_WIRE_STDERR ? IN_STDERR : IN_STDOUT].ended = true;
    if (r->aborted) return WEIR_OK;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_INPUT_END, .id = w->d.h.id,
                                   .stream = (enum weir_stream)w->d.h.type, .user = r->user};
    return 1;
}

static int on_end_request(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    struct request *r = find(w, w->d.h.id);
    if (!r) return WEIR_OK;
    const uint8_t *c = w->small.bytes;
    struct weir_wire_event end = {.type = WEIR_WIRE_EV_END, .id = w->d.h.id, .protocol_status = c[4], .user = r->user};
    end.app_status = (uint32_t)c[0] << 24 | (uint32_t)c[1] << 16 | (uint32_t)c[2] << 8 | c[3]; /* FC1-5.5-a */
    end.agreed = memcmp(c + 5, "FC\1", 3) == 0; /* FC1-5.5-g */
    bool refusal = c[4] >= WEIR_WIRE_CANT_MPX_CONN && c[4] <= WEIR_WIRE_UNKNOWN_ROLE; /* FC1-5.5-d, FC1-5.5-e, FC1-5.5-f */
    end.not_run = refusal && !r->answered;
    if (!w->agreed && (!r->out[OUT_STDIN].ended || c[4] != WEIR_WIRE_REQUEST_COMPLETE || r->aborted)) w->spoiled = true; /* IOP-S8, FC1-5.5-b */
    bool tell_end = !r->in[IN_STDOUT].ended && !r->aborted && !refusal; /* IOP-S6 */
    r->active = false;
    w->active--;
    if (!tell_end) {
        free_id(w, end.id);
        *ev = end;
        return 1;
    }
    w->pending = end;
    w->has_pending = true;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_INPUT_END, .id = end.id, .stream = WEIR_STDOUT, .user = end.user};
    return 1;
}

static int on_credit(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    uint8_t what, flags;
    uint64_t limit;
    weir_credit_read(w->small.bytes, &what, &flags, &limit);
    if (w->d.h.id == 0) { /* FC 7 */
        if (what != WEIR_WIRE_BEGIN_REQUEST || w->final) return WEIR_OK;
        if (limit > LIMIT_MAX) return fail(w, "credit that is not valid");
        w->final = (flags & CREDIT_FINAL) != 0;
        w->limit = w->final ? 0 : limit > 65535 ? 65535 : (uint32_t)limit;
        *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_LIMIT, .limit = w->limit, .final = w->final};
        return 1;
    }
    struct request *r = find(w, w->d.h.id);
    if (!r || (what != WEIR_WIRE_STDIN && what != WEIR_WIRE_DATA)) return WEIR_OK;
    struct credit_out *out = out_stream(r, (enum weir_stream)what);
    int raised = weir_credit_raise(out, limit, w->limits.idle_credits);
    if (raised < 0) return fail(w, "credit that is not valid");
    if (!raised || !out->starved || r->aborted) return WEIR_OK;
    out->starved = false;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_ROOM, .id = w->d.h.id, .stream = (enum weir_stream)what,
                                   .user = r->user};
    return 1;
}

static int outcome(struct weir_wire_server *w, bool agreed, struct weir_wire_event *ev)
{
    w->asked = ASK_NONE;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_VALUES, .agreed = agreed};
    return 1;
}

static int on_values(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    struct weir_str all = weir_str(weir_buf_ptr(&w->values), weir_buf_len(&w->values));
    struct weir_pair p;
    size_t pos = 0;
    if (w->asked == ASK_PING) return outcome(w, w->agreed, ev);
    while (weir_wire_pair_next(all, &pos, &p) == WEIR_OK) {
        struct flow_value v;
        if (!weir_str_eq(p.name, WEIR_STR(FLOW_NAME))) continue;
        if (weir_flow_value_parse(p.value, &v) < 0) break;
        w->agreed = true;
        w->peer_window = v.window;
        w->limit = v.requests;
        (void)outcome(w, true, ev);
        ev->threads = v.threads;
        return 1;
    }
    return outcome(w, false, ev);
}

static int on_end(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    if (w->content == VALUES) return on_values(w, ev);
    if (w->asked == ASK_FLOW) return outcome(w, false, ev); /* any other record: negative (FC1-4.1-f, FC1-4.2-b) */
    if (w->content == SKIP) return WEIR_OK;
    switch (w->d.h.type) {
    case WEIR_WIRE_STDOUT:
    case WEIR_WIRE_STDERR: return on_stream_end(w, ev);
    case WEIR_WIRE_END_REQUEST: return on_end_request(w, ev);
    case WEIR_WIRE_CREDIT: return on_credit(w, ev);
    default: return WEIR_OK;
    }
}

static int on_content(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    switch (w->content) {
    case SMALL: small_add(&w->small, w->d.piece); return WEIR_OK;
    case STREAM: return on_stream(w, ev);
    case VALUES:
        return weir_buf_append(&w->values, w->d.piece.ptr, w->d.piece.len) < 0 ? fail(w, "out of memory") : WEIR_OK;
    default: return WEIR_OK;
    }
}

void weir_wire_server_feed(struct weir_wire_server *w, const void *buf, size_t len)
{
    weir_decoder_feed(&w->d, buf, len);
}

int weir_wire_server_next(struct weir_wire_server *w, struct weir_wire_event *ev)
{
    if (w->has_pending) {
        w->has_pending = false;
        free_id(w, w->pending.id); /* not before its end is told */
        *ev = w->pending;
        return WEIR_OK;
    }
    while (!w->error) {
        int status;
        switch (weir_decoder_next(&w->d)) {
        case DECODE_MORE: return WEIR_AGAIN;
        case DECODE_HEADER: status = on_header(w); break;
        case DECODE_CONTENT: status = on_content(w, ev); break;
        case DECODE_END: status = on_end(w, ev); break;
        default: status = fail(w, "a record that is not version 1"); break;
        }
        if (status == 1) return WEIR_OK;
    }
    if (w->told_error) return WEIR_AGAIN;
    w->told_error = true;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_ERROR, .reason = w->error};
    return WEIR_OK;
}

/* ---- looking ---- */

size_t weir_wire_server_output(const struct weir_wire_server *w, const void **ptr)
{
    *ptr = weir_buf_ptr(&w->out);
    return weir_buf_len(&w->out);
}

void weir_wire_server_sent(struct weir_wire_server *w, size_t len)
{
    w->sent += len;
    weir_buf_consume(&w->out, len);
    if (weir_buf_len(&w->out) == 0) weir_buf_reset(&w->out, 65536);
}

uint32_t weir_wire_server_active(const struct weir_wire_server *w)
{
    return w->active;
}

uint32_t weir_wire_server_limit(const struct weir_wire_server *w)
{
    return w->limit;
}

int weir_wire_server_agreed(const struct weir_wire_server *w)
{
    return w->agreed;
}

int weir_wire_server_unsent(const struct weir_wire_server *w, uint16_t id)
{
    struct request *r = find(w, id);
    return r && w->sent <= r->begin_at;
}

int weir_wire_server_reusable(const struct weir_wire_server *w) /* IOP-S8 */
{
    return !w->error && !w->final && !w->spoiled && !w->has_pending && w->active == 0 && w->asked == ASK_NONE &&
           decoder_between(&w->d) && w->d.p == w->d.end && weir_buf_len(&w->out) == 0;
}

uint16_t weir_wire_server_next_id(const struct weir_wire_server *w, uint16_t after, void **user)
{
    for (uint32_t id = after + 1u; id <= w->top; id++) {
        struct request *r = find(w, (uint16_t)id);
        if (!r) continue;
        if (user) *user = r->user;
        return (uint16_t)id;
    }
    return 0;
}

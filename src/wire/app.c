/* SPDX-License-Identifier: MIT */
/* The application's end of a connection: records -> requests, answers -> records. Rules of FastCGI 1.0 by their ids, flow control
 * (FC n). Ids of a hostile server cost memory only for active requests: the table has two levels. */
#include <stdlib.h>

#include "wire/wire_internal.h"

enum { IN_STDIN, IN_DATA, IN_COUNT };
enum { OUT_STDOUT, OUT_STDERR, OUT_COUNT };

struct request {
    struct request *next_free;
    void *user;
    struct weir_buf params;
    struct credit_in in[IN_COUNT];
    struct credit_out out[OUT_COUNT];
    uint16_t id;
    uint8_t role;
    bool keep, flow, running, aborted;
};

enum mode { MODE_NONE, MODE_PLAIN, MODE_FLOW };
enum content { SKIP, SMALL, PARAMS, STREAM, VALUES };

struct weir_wire_app {
    struct decoder d;
    struct weir_wire_limits limits;
    struct weir_buf out, values;
    struct request **table[256]; /* FC1-3.3-j */
    struct request *free_requests;
    struct request *cur; /* of the record that comes in */
    struct small small;
    enum content content;
    enum mode mode;
    uint64_t params_held; /* bytes of incomplete PARAMS */
    uint64_t sent;        /* bytes that left, in all */
    uint64_t limit_at;    /* see weir_credit_write */
    uint32_t active, stray;
    uint32_t limit, highest; /* active requests on an agreed connection: told last; ever told */
    const char *error;
    bool agreed, no_more, finished, drained, told_error;
};

int weir_wire_app_new(struct weir_wire_app **out, const struct weir_wire_limits *l)
{
    struct weir_wire_app *w = calloc(1, sizeof *w);
    if (!w) return WEIR_NOMEM;
    weir_wire_limits(&w->limits, l);
    w->limit = w->limits.requests;
    *out = w;
    return WEIR_OK;
}

static void free_request(struct request *r)
{
    weir_buf_fini(&r->params);
    free(r);
}

void weir_wire_app_free(struct weir_wire_app *w)
{
    if (!w) return;
    for (size_t i = 0; i < WEIR_COUNT(w->table); i++) {
        for (size_t k = 0; w->table[i] && k < 256; k++)
            if (w->table[i][k]) free_request(w->table[i][k]);
        free(w->table[i]);
    }
    while (w->free_requests) {
        struct request *r = w->free_requests;
        w->free_requests = r->next_free;
        free_request(r);
    }
    weir_buf_fini(&w->out);
    weir_buf_fini(&w->values);
    free(w);
}

static struct request *find(const struct weir_wire_app *w, uint16_t id)
{
    struct request **chunk = w->table[id >> 8];
    return chunk ? chunk[id & 0xff] : NULL;
}

static struct request *activate(struct weir_wire_app *w, uint16_t id) /* FC1-3.3-g */
{
    struct request **chunk = w->table[id >> 8];
    if (!chunk) chunk = w->table[id >> 8] = calloc(256, sizeof(struct request *));
    struct request *r = w->free_requests;
    if (!chunk) return NULL;
    bool reused = r != NULL;
    if (r) w->free_requests = r->next_free;
    else r = malloc(sizeof *r);
    if (!r) return NULL;
    struct weir_buf params = reused ? r->params : (struct weir_buf){0};
    *r = (struct request){.id = id, .params = params};
    chunk[id & 0xff] = r;
    w->active++;
    return r;
}

static void deactivate(struct weir_wire_app *w, struct request *r)
{
    if (!r->running) w->params_held -= weir_buf_len(&r->params);
    if (w->cur == r) {
        w->cur = NULL;
        w->content = SKIP; /* what still comes of this record is nobody's */
    }
    if (!r->keep) w->finished = true; /* FC1-3.5-b, FC1-3.5-c */
    w->table[r->id >> 8][r->id & 0xff] = NULL;
    weir_buf_reset(&r->params, 4096);
    r->next_free = w->free_requests;
    w->free_requests = r;
    w->active--;
}

static int fail(struct weir_wire_app *w, const char *reason)
{
    if (!w->error) w->error = reason;
    return WEIR_PROTOCOL;
}

/* ---- END_REQUEST (FC1-5.5-a) ---- */

static int write_end(struct weir_wire_app *w, uint16_t id, uint32_t app_status, uint8_t protocol_status)
{
    uint8_t c[8] = {(uint8_t)(app_status >> 24), (uint8_t)(app_status >> 16), (uint8_t)(app_status >> 8),
                    (uint8_t)app_status, protocol_status, 0, 0, 0};
    if (!w->limits.no_flow) memcpy(c + 5, "FC\1", 3); /* FC 2.4 (FC1-5.5-g) */
    return weir_record_write(&w->out, WEIR_WIRE_END_REQUEST, id, c, sizeof c, 0);
}

static int refuse(struct weir_wire_app *w, uint16_t id, uint8_t protocol_status)
{
    return write_end(w, id, 0, protocol_status) < 0 ? fail(w, "out of memory") : WEIR_OK;
}

/* ---- records in: headers ---- */

/* FC 2.1.4: flagged requests need an agreed connection that is kept, and no plain ones beside them. */
static int choose_mode(struct weir_wire_app *w, uint8_t flags, bool *flow) /* FC1-5.1-b */
{
    *flow = false;
    if (flags & WEIR_WIRE_FLOW && !w->limits.no_flow) {
        if (w->small.bytes[3] != 1 && w->agreed) return fail(w, "unknown version of flow control");
        *flow = w->agreed && (flags & WEIR_WIRE_KEEP_CONN);
    }
    enum mode mode = *flow ? MODE_FLOW : MODE_PLAIN;
    bool odd = (flags & WEIR_WIRE_FLOW) && !*flow && !w->limits.no_flow;
    if (w->active && (odd || (w->mode != MODE_NONE && w->mode != mode)))
        return fail(w, "requests with and without flow control on one connection");
    w->mode = mode;
    return WEIR_OK;
}

static void init_streams(struct weir_wire_app *w, struct request *r)
{
    const uint8_t *c = w->small.bytes;
    uint32_t window = (uint32_t)c[4] << 24 | (uint32_t)c[5] << 16 | (uint32_t)c[6] << 8 | c[7];
    for (int i = 0; i < IN_COUNT; i++) {
        r->in[i].window = w->limits.window;
        r->in[i].limit = r->flow ? w->limits.window : UNLIMITED;
    }
    for (int i = 0; i < OUT_COUNT; i++) r->out[i].limit = r->flow ? window : UNLIMITED;
}

static int on_begin(struct weir_wire_app *w)
{
    const uint8_t *c = w->small.bytes;
    uint16_t id = w->d.h.id, role = (uint16_t)(c[0] << 8 | c[1]);
    bool flow;
    if (id == 0) return fail(w, "BEGIN_REQUEST with id 0"); /* FC1-3.3-k */
    if (w->small.len != 8) return fail(w, "BEGIN_REQUEST with a content that is not 8 bytes"); /* FC1-3.3-m, FC1-5.1-a */
    if (find(w, id)) return fail(w, "BEGIN_REQUEST for an active id"); /* FC1-3.3-g */
    if (choose_mode(w, c[2], &flow) < 0) return WEIR_PROTOCOL;
    if (flow && w->active >= w->highest) return fail(w, "more requests than were ever allowed");
    uint8_t refusal = 0;
    if (!flow && (w->active >= w->limits.plain_requests || w->no_more)) refusal = WEIR_WIRE_CANT_MPX_CONN; /* FC1-5.5-d, IOP-A5 */
    else if (role < 1 || role > 3) refusal = WEIR_WIRE_UNKNOWN_ROLE; /* FC1-5.5-f */
    if (refusal) {
        if (!(c[2] & WEIR_WIRE_KEEP_CONN)) w->no_more = w->finished = true;
        return refuse(w, id, refusal);
    }
    struct request *r = activate(w, id);
    if (!r) return fail(w, "out of memory");
    r->role = (uint8_t)role;
    r->keep = (c[2] & WEIR_WIRE_KEEP_CONN) != 0;
    r->flow = flow;
    if (!r->keep) w->no_more = true; /* FC1-3.5-b: ours to close behind it */
    init_streams(w, r);
    return WEIR_OK;
}

static struct credit_in *in_stream(struct request *r, uint8_t type)
{
    return &r->in[type == WEIR_WIRE_DATA ? IN_DATA : IN_STDIN];
}

static int stray_record(struct weir_wire_app *w)
{
    w->content = SKIP;
    if (++w->stray > w->limits.stray_records) return fail(w, "too many records of inactive requests");
    return WEIR_OK;
}

static int on_application_header(struct weir_wire_app *w)
{
    struct weir_wire_header *h = &w->d.h;
    if (h->type == WEIR_WIRE_BEGIN_REQUEST) {
        w->content = SMALL;
        return WEIR_OK;
    }
    struct request *r = find(w, h->id);
    if (!r) return stray_record(w); /* ignored while inactive (FC1-3.3-h) */
    w->stray = 0;
    w->cur = r; /* FC1-3.3-n */
    switch (h->type) {
    case WEIR_WIRE_PARAMS:
        if (r->running) return fail(w, "PARAMS after their end");
        w->content = PARAMS;
        return WEIR_OK;
    case WEIR_WIRE_STDIN:
    case WEIR_WIRE_DATA:
        if (!r->running) return fail(w, "a body before the end of PARAMS"); /* FC1-6.1-a, IOP-A3 */
        if (in_stream(r, h->type)->ended) return fail(w, "content after the end of its stream"); /* FC1-3.3-l */
        w->content = STREAM;
        return WEIR_OK;
    case WEIR_WIRE_CREDIT:
        if (r->flow && h->len < CREDIT_LEN) return fail(w, "CREDIT that is too short");
        w->content = SMALL;
        return WEIR_OK;
    case WEIR_WIRE_ABORT_REQUEST: w->content = SMALL; return WEIR_OK;
    default: w->content = SKIP; return WEIR_OK; /* nothing is said about unknown application records: ignored (FC1-A-a) */
    }
}

static int on_header(struct weir_wire_app *w)
{
    w->small.len = 0;
    w->cur = NULL;
    if (w->d.h.id != 0) return on_application_header(w);
    if (w->d.h.type == WEIR_WIRE_BEGIN_REQUEST) return fail(w, "BEGIN_REQUEST with id 0");
    w->content = w->d.h.type == WEIR_WIRE_GET_VALUES ? VALUES : SKIP; /* FC1-3.3-k, FC1-4.1-d */
    weir_buf_reset(&w->values, 4096);
    return WEIR_OK;
}

/* ---- records in: content ---- */

static int on_params(struct weir_wire_app *w) /* FC1-5.2-a, FC1-3.4-d */
{
    struct request *r = w->cur;
    struct weir_str piece = w->d.piece;
    if (weir_buf_len(&r->params) + piece.len > w->limits.params_bytes ||
        w->params_held + piece.len > 4 * (uint64_t)w->limits.params_bytes) { /* IOP-A8 */
        uint16_t id = r->id;
        deactivate(w, r);
        return refuse(w, id, WEIR_WIRE_OVERLOADED); /* FC1-5.5-e, IOP-A5 */
    }
    if (weir_buf_append(&r->params, piece.ptr, piece.len) < 0) return fail(w, "out of memory");
    w->params_held += piece.len;
    return WEIR_OK;
}

static int on_stream(struct weir_wire_app *w, struct weir_wire_event *ev) /* FC1-5.3-a */
{
    struct request *r = w->cur;
    struct credit_in *in = in_stream(r, w->d.h.type);
    if (!weir_credit_arrived(in, w->d.piece.len)) return fail(w, "content beyond the credit");
    if (r->aborted) return WEIR_OK; /* FC 6: discarded */
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_INPUT, .id = r->id, .role = r->role,
                                   .stream = (enum weir_stream)w->d.h.type, .bytes = w->d.piece, .user = r->user};
    return 1;
}

/* ---- records in: complete ---- */

/* Each pair whole (FC1-3.4-d); what no environment can carry is refused (FC1-5.2-b, FC1-6.1-f). */
static int check_params(const struct weir_wire_app *w, const struct request *r, uint32_t *count)
{
    struct weir_str all = weir_str(weir_buf_ptr(&r->params), weir_buf_len(&r->params));
    struct weir_pair p;
    size_t pos = 0;
    int status;
    *count = 0;
    while ((status = weir_wire_pair_next(all, &pos, &p)) == WEIR_OK) {
        bool odd = p.name.len == 0;
        if (++*count > w->limits.params_count) return WEIR_LIMIT; /* IOP-A8 */
        for (size_t i = 0; i < p.name.len; i++) odd |= p.name.ptr[i] == 0 || p.name.ptr[i] == '=';
        if (odd || (p.value.len && memchr(p.value.ptr, 0, p.value.len))) return WEIR_INVALID;
    }
    return status == WEIR_AGAIN ? WEIR_OK : status;
}

static int on_params_end(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    struct request *r = w->cur;
    uint32_t count;
    int status = check_params(w, r, &count);
    if (status == WEIR_LIMIT) {
        uint16_t id = r->id;
        deactivate(w, r);
        return refuse(w, id, WEIR_WIRE_OVERLOADED);
    }
    if (status < 0) return fail(w, "PARAMS that are no name-value pairs");
    if (!weir_buf_room(&r->params, 1)) return fail(w, "out of memory"); /* the byte behind them is the program's, too */
    w->params_held -= weir_buf_len(&r->params);
    r->running = true; /* IOP-A3, FC1-6.1-b */
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_REQUEST, .id = r->id, .role = r->role, .keep = r->keep,
                                   .agreed = r->flow, .param_count = count};
    return 1;
}

static int on_stream_end(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    struct request *r = w->cur;
    in_stream(r, w->d.h.type)->ended = true;
    if (r->aborted) return WEIR_OK;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_INPUT_END, .id = r->id, .role = r->role,
                                   .stream = (enum weir_stream)w->d.h.type, .user = r->user};
    return 1;
}

static int on_abort(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    struct request *r = w->cur;
    if (r->aborted) return WEIR_OK; /* FC1-5.4-e */
    if (!r->running) { /* nobody knows it yet (FC1-5.4-b) */
        uint16_t id = r->id;
        deactivate(w, r);
        return refuse(w, id, WEIR_WIRE_REQUEST_COMPLETE);
    }
    r->aborted = true;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_ABORT, .id = r->id, .role = r->role, .user = r->user};
    return 1;
}

static int on_credit(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    struct request *r = w->cur;
    uint8_t what, flags;
    uint64_t limit;
    if (!r->flow) return WEIR_OK;
    weir_credit_read(w->small.bytes, &what, &flags, &limit);
    if (what != WEIR_WIRE_STDOUT && what != WEIR_WIRE_STDERR) return WEIR_OK;
    struct credit_out *out = &r->out[what == WEIR_WIRE_STDERR ? OUT_STDERR : OUT_STDOUT];
    int raised = weir_credit_raise(out, limit, w->limits.idle_credits);
    if (raised < 0) return fail(w, "credit that is not valid");
    if (!raised || !out->starved || r->aborted) return WEIR_OK;
    out->starved = false;
    *ev = (struct weir_wire_event){.type = WEIR_WIRE_EV_ROOM, .id = r->id, .role = r->role,
                                   .stream = (enum weir_stream)what, .user = r->user};
    return 1;
}

static void tell_limit(struct weir_wire_app *w) /* IOP-A1 */
{
    uint8_t flags = w->drained ? CREDIT_FINAL : 0;
    if (weir_credit_write(&w->out, w->sent, &w->limit_at, 0, WEIR_WIRE_BEGIN_REQUEST, flags, w->limit) < 0)
        (void)fail(w, "out of memory");
    else if (w->limit > w->highest) w->highest = w->limit;
}

/* Each known name once, in one record, and the program has no part in it (FC1-4.1-b, FC1-4.1-e). */
static int answer_values(struct weir_wire_app *w)
{
    static const char *const names[] = {"FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS", FLOW_NAME};
    struct weir_str asked = weir_str(weir_buf_ptr(&w->values), weir_buf_len(&w->values));
    uint8_t content[512];
    size_t len = 0, pos = 0;
    unsigned seen = 0;
    bool was_agreed = w->agreed;
    struct weir_pair p;
    while (weir_wire_pair_next(asked, &pos, &p) == WEIR_OK) {
        for (unsigned i = 0; i < WEIR_COUNT(names); i++) {
            char value[128];
            size_t n;
            if (seen >> i & 1 || !weir_str_eq(p.name, weir_cstr(names[i]))) continue;
            if (i == 3 && w->limits.no_flow) continue;
            seen |= 1u << i;
            if (i == 0) n = weir_u64_text(value, w->limits.conns); /* FC1-4.1-c */
            else if (i == 1) n = weir_u64_text(value, w->limits.reqs);
            else if (i == 2) n = weir_u64_text(value, w->limits.plain_requests > 1);
            else {
                memcpy(value, "window=", 7);
                n = 7 + weir_u64_text(value + 7, w->limits.window);
                memcpy(value + n, " requests=", 10);
                n += 10;
                n += weir_u64_text(value + n, was_agreed || w->limit == 0 ? w->limits.requests : w->limit);
                if (w->limits.threads) {
                    memcpy(value + n, " threads=", 9);
                    n += 9;
                    n += weir_u64_text(value + n, w->limits.threads);
                }
                w->agreed = true;
            }
            len += weir_wire_pair(content + len, p.name, weir_str(value, n));
        }
    }
    weir_buf_reset(&w->values, 4096);
    int status = weir_record_write(&w->out, WEIR_WIRE_GET_VALUES_RESULT, 0, content, len, 0);
    if (status < 0) return fail(w, "out of memory");
    if (!w->agreed || was_agreed) return WEIR_OK;
    w->highest = w->limit ? w->limit : w->limits.requests;
    if (w->limit == 0) tell_limit(w); /* it takes none, or began to drain, before it was asked */
    return w->error ? WEIR_PROTOCOL : WEIR_OK;
}

static int on_management_end(struct weir_wire_app *w) /* IOP-A9 */
{
    if (w->content == VALUES) return answer_values(w);
    if (w->d.h.type == WEIR_WIRE_CREDIT && w->agreed) return WEIR_OK;
    uint8_t c[8] = {w->d.h.type}; /* FC1-4.2-a */
    return weir_record_write(&w->out, WEIR_WIRE_UNKNOWN_TYPE, 0, c, sizeof c, 0) < 0 ? fail(w, "out of memory") : WEIR_OK;
}

static int on_end(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    if (w->d.h.id == 0) return on_management_end(w);
    if (w->d.h.type == WEIR_WIRE_BEGIN_REQUEST && w->content == SMALL) return on_begin(w);
    if (!w->cur || w->content == SKIP) return WEIR_OK; /* IOP-A4, FC1-5.5-b */
    switch (w->d.h.type) {
    case WEIR_WIRE_PARAMS: return w->d.h.len == 0 ? on_params_end(w, ev) : WEIR_OK;
    case WEIR_WIRE_STDIN:
    case WEIR_WIRE_DATA: return w->d.h.len == 0 ? on_stream_end(w, ev) : WEIR_OK;
    case WEIR_WIRE_ABORT_REQUEST: return on_abort(w, ev);
    case WEIR_WIRE_CREDIT: return on_credit(w, ev);
    default: return WEIR_OK;
    }
}

static int on_content(struct weir_wire_app *w, struct weir_wire_event *ev)
{
    switch (w->content) {
    case SMALL: small_add(&w->small, w->d.piece); return WEIR_OK;
    case PARAMS: return on_params(w);
    case STREAM: return on_stream(w, ev);
    case VALUES:
        return weir_buf_append(&w->values, w->d.piece.ptr, w->d.piece.len) < 0 ? fail(w, "out of memory") : WEIR_OK;
    default: return WEIR_OK;
    }
}

void weir_wire_app_feed(struct weir_wire_app *w, const void *buf, size_t len)
{
    weir_decoder_feed(&w->d, buf, len);
}

int weir_wire_app_next(struct weir_wire_app *w, struct weir_wire_event *ev)
{
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

/* ---- what the program does ---- */

struct weir_str weir_wire_app_params(const struct weir_wire_app *w, uint16_t id)
{
    struct request *r = find(w, id);
    if (!r || !r->running) return weir_str(NULL, 0);
    return weir_str(weir_buf_ptr(&r->params), weir_buf_len(&r->params));
}

struct weir_str weir_wire_app_params_take(struct weir_wire_app *w, uint16_t id)
{
    struct weir_str s = weir_wire_app_params(w, id);
    if (s.ptr) find(w, id)->params = (struct weir_buf){0}; /* head is 0: nothing was taken from it */
    return s;
}

void weir_wire_app_set_user(struct weir_wire_app *w, uint16_t id, void *user)
{
    struct request *r = find(w, id);
    if (r) r->user = user;
}

static struct credit_out *out_stream(struct request *r, enum weir_stream s)
{
    return &r->out[s == WEIR_STDERR ? OUT_STDERR : OUT_STDOUT];
}

static struct request *writable(const struct weir_wire_app *w, uint16_t id, enum weir_stream s)
{
    struct request *r = find(w, id);
    if (w->error || !r || !r->running || (s != WEIR_STDOUT && s != WEIR_STDERR)) return NULL;
    return out_stream(r, s)->ended ? NULL : r;
}

size_t weir_wire_app_room(const struct weir_wire_app *w, uint16_t id, enum weir_stream s)
{
    struct request *r = writable(w, id, s);
    return r ? credit_room(out_stream(r, s)) : 0;
}

int64_t weir_wire_app_write(struct weir_wire_app *w, uint16_t id, enum weir_stream s, const void *buf, size_t len)
{
    struct request *r = writable(w, id, s);
    if (w->error) return WEIR_CLOSED;
    if (!r) return WEIR_INVALID;
    struct credit_out *out = out_stream(r, s);
    size_t n = credit_room(out);
    if (n < len) out->starved = true;
    else n = len;
    if (n == 0) return 0;
    uint32_t record = w->active > 1 ? STREAM_RECORD : WEIR_WIRE_SEND_CONTENT;
    if (weir_stream_write(&w->out, (uint8_t)s, id, buf, n, record) < 0) return WEIR_NOMEM; /* FC1-5.3-b */
    out->sent += n;
    out->idle = 0;
    out->used = true;
    return (int64_t)n;
}

int weir_wire_app_write_end(struct weir_wire_app *w, uint16_t id, enum weir_stream s)
{
    struct request *r = writable(w, id, s);
    if (w->error) return WEIR_CLOSED;
    if (!r) return WEIR_INVALID;
    int status = weir_record_write(&w->out, (uint8_t)s, id, NULL, 0, 0);
    if (status == WEIR_OK) out_stream(r, s)->ended = true;
    return status;
}

/* The program took or gave something. */
static bool touched(const struct request *r)
{
    bool yes = false;
    for (int i = 0; i < IN_COUNT; i++) yes |= r->in[i].taken > 0;
    for (int i = 0; i < OUT_COUNT; i++) yes |= r->out[i].used || r->out[i].ended;
    return yes;
}

int weir_wire_app_end(struct weir_wire_app *w, uint16_t id, uint32_t app_status, uint8_t protocol_status)
{
    struct request *r = find(w, id);
    if (w->error) return WEIR_CLOSED;
    if (!r || !r->running) return WEIR_INVALID;
    if (!weir_buf_room(&w->out, 64)) return WEIR_NOMEM;
    int status = WEIR_OK;
    bool complete = protocol_status == WEIR_WIRE_REQUEST_COMPLETE; /* FC1-5.5-c */
    bool ends = complete ? !r->aborted : touched(r); /* FC 7.3: alone, another status says that nothing ran */
    if (ends) { /* FC1-6.1-e */
        const struct credit_out *err = &r->out[OUT_STDERR];
        if (err->used && !err->ended) status = weir_record_write(&w->out, WEIR_WIRE_STDERR, id, NULL, 0, 0); /* FC1-6.1-d, IOP-A2 */
        if (status == WEIR_OK && !r->out[OUT_STDOUT].ended) status = weir_record_write(&w->out, WEIR_WIRE_STDOUT, id, NULL, 0, 0);
    }
    if (status == WEIR_OK) status = write_end(w, id, app_status, protocol_status);
    deactivate(w, r);
    return status;
}

void weir_wire_app_consumed(struct weir_wire_app *w, uint16_t id, enum weir_stream s, size_t len)
{
    struct request *r = find(w, id);
    if (w->error || !r) return;
    struct credit_in *in = in_stream(r, (uint8_t)s);
    uint64_t limit = weir_credit_taken(in, len);
    if (limit && !r->aborted && weir_credit_write(&w->out, w->sent, &in->at, id, (uint8_t)s, 0, limit) < 0) (void)fail(w, "out of memory");
}

void weir_wire_app_drain(struct weir_wire_app *w)
{
    if (w->error || w->drained) return;
    w->drained = true;
    w->limit = 0;
    if (w->agreed) tell_limit(w);
}

void weir_wire_app_limit(struct weir_wire_app *w, uint32_t requests)
{
    if (requests > 65535) requests = 65535;
    if (w->error || w->drained || requests == w->limit) return;
    w->limit = requests;
    if (w->agreed) tell_limit(w);
}

size_t weir_wire_app_output(const struct weir_wire_app *w, const void **ptr)
{
    *ptr = weir_buf_ptr(&w->out);
    return weir_buf_len(&w->out);
}

void weir_wire_app_sent(struct weir_wire_app *w, size_t len)
{
    w->sent += len;
    weir_buf_consume(&w->out, len);
    if (weir_buf_len(&w->out) == 0) weir_buf_reset(&w->out, 65536);
}

uint32_t weir_wire_app_active(const struct weir_wire_app *w)
{
    return w->active;
}

int weir_wire_app_agreed(const struct weir_wire_app *w)
{
    return w->agreed;
}

int weir_wire_app_closing(const struct weir_wire_app *w)
{
    return w->finished && w->active == 0; /* FC1-3.5-b */
}

int weir_wire_app_idle(const struct weir_wire_app *w)
{
    return w->active == 0 && decoder_between(&w->d);
}

uint16_t weir_wire_app_next_id(const struct weir_wire_app *w, uint16_t after, void **user)
{
    for (uint32_t id = after + 1u; id < 65536; id++) {
        if (!w->table[id >> 8]) {
            id |= 0xff;
            continue;
        }
        struct request *r = w->table[id >> 8][id & 0xff];
        if (!r || !r->running) continue;
        if (user) *user = r->user;
        return (uint16_t)id;
    }
    return 0;
}

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
#include "model.h"

#include <stdio.h>

enum { DEPTH = 400 };

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
    {"the number of requests changes", 2, 2, 1, 1, 0, 1, 64, .asks = true, .limits = true, .drains = true, .large = true},
    {"no request for a while", 1, 1, 1, 1, 0, 1, 64, .asks = true, .limits = true, .drains = true},
    {"one after the other on one id", 2, 1, 1, 1, 1, 1, 128, .asks = true, .aborts = true, .refuses = true, .large = true},
};

/* ---- the state ---- */

struct state now;
const struct world *w;
bool byte_by_byte, patient, check_splits;
static const char *expected;
static uint64_t states, steps, kinds[STEPS];
static char path[DEPTH][24];
static unsigned depth;
static const char *const step_names[] = {"begin", "body", "take answer", "abort", "take body", "answer", "end", "refuse", "refuse late",
                                         "drain", "lower", "raise", "close", "to app", "to server", "app reads", "server reads"};

_Noreturn void found(const char *property, const char *what)
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

/* ---- copies and hashes of a state ---- */

size_t state_len(void)
{
    return offsetof(struct state, heap) + now.heap_used;
}

void restore(const void *saved)
{
    uint32_t used = now.heap_used;
    memcpy(&now, saved, offsetof(struct state, heap));
    memcpy(now.heap, (const uint8_t *)saved + offsetof(struct state, heap), now.heap_used);
    if (used > now.heap_used) memset(now.heap + now.heap_used, 0, used - now.heap_used);
}

uint64_t mix(uint64_t h, const void *p, size_t len)
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

/* ---- what holds in every state ---- */

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
    if (seen) memset(seen, 0, (seen_mask + 1) * sizeof *seen);
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

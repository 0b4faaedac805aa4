/* SPDX-License-Identifier: MIT */
/* The timer wheel of a loop: four levels, 1 ms, 256 ms, 16 s, 17 min. Setting and clearing are O(1); a timer moves down at
 * most three times. Bitmaps of used slots are lazy: a bit may be set for a slot that was emptied since. */
#include <stdlib.h>

#include "loop/loop.h"

#define LEVELS     4
#define SLOTS      64
#define SLOTS_0    256
#define MAX_DELTA  ((uint64_t)SLOTS_0 * SLOTS * SLOTS * SLOTS - 1)

struct weir_wheel {
    uint64_t now; /* every slot before it is empty */
    uint64_t used_0[SLOTS_0 / 64];
    uint64_t used[LEVELS]; /* [0] unused */
    struct weir_list slot_0[SLOTS_0];
    struct weir_list slot[LEVELS][SLOTS];
    struct weir_list due; /* taken from their slot, not handed out yet */
};

static unsigned level_shift(unsigned level)
{
    return 8 + 6 * (level - 1);
}

struct weir_wheel *weir_wheel_new(uint64_t now_ms)
{
    struct weir_wheel *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->now = now_ms;
    for (unsigned i = 0; i < SLOTS_0; i++) weir_list_init(&w->slot_0[i]);
    for (unsigned l = 1; l < LEVELS; l++)
        for (unsigned i = 0; i < SLOTS; i++) weir_list_init(&w->slot[l][i]);
    weir_list_init(&w->due);
    return w;
}

void weir_wheel_free(struct weir_wheel *w)
{
    free(w);
}

static void place(struct weir_wheel *w, struct weir_timer *t)
{
    uint64_t due = t->due_ms;
    if (due < w->now) {
        weir_list_push_back(&w->due, &t->node);
        return;
    }
    uint64_t delta = due - w->now;
    if (delta > MAX_DELTA) {
        delta = MAX_DELTA; /* parked in the farthest slot, placed again when that comes round */
        due = w->now + delta;
    }
    if (delta < SLOTS_0) {
        unsigned i = (unsigned)(due % SLOTS_0);
        w->used_0[i / 64] |= UINT64_C(1) << (i % 64);
        weir_list_push_back(&w->slot_0[i], &t->node);
        return;
    }
    unsigned level = 1;
    while (level < LEVELS - 1 && (delta >> level_shift(level)) >= SLOTS) level++;
    unsigned i = (unsigned)((due >> level_shift(level)) % SLOTS);
    w->used[level] |= UINT64_C(1) << i;
    weir_list_push_back(&w->slot[level][i], &t->node);
}

void weir_wheel_set(struct weir_wheel *w, struct weir_timer *t, struct weir_ident id, uint64_t due_ms)
{
    weir_timer_clear(t);
    t->ident = id;
    t->due_ms = due_ms;
    place(w, t);
}

void weir_timer_set(struct weir_loop *l, struct weir_timer *t, struct weir_ident id, uint64_t due_ms)
{
    weir_wheel_set(l->wheel, t, id, due_ms);
}

void weir_timer_clear(struct weir_timer *t)
{
    if (!t->node.next) return;
    weir_list_remove(&t->node);
    t->node.next = t->node.prev = NULL;
}

static void cascade(struct weir_wheel *w, unsigned level)
{
    unsigned i = (unsigned)((w->now >> level_shift(level)) % SLOTS);
    struct weir_list moved;
    weir_list_init(&moved);
    weir_list_splice(&moved, &w->slot[level][i]);
    w->used[level] &= ~(UINT64_C(1) << i);
    while (!weir_list_empty(&moved)) {
        struct weir_timer *t = WEIR_CONTAINER(moved.next, struct weir_timer, node);
        weir_list_remove(&t->node);
        place(w, t);
    }
}

/* The first used slot of level 0 from `from` up to the end of this turn of the wheel, or SLOTS_0. */
static unsigned next_used_0(const struct weir_wheel *w, unsigned from)
{
    for (unsigned word = from / 64; word < SLOTS_0 / 64; word++) {
        uint64_t bits = w->used_0[word];
        if (word == from / 64) bits &= ~UINT64_C(0) << (from % 64);
        if (bits) return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return SLOTS_0;
}

/* Moves the wheel behind now_ms: what became due goes to `due`. */
static void advance(struct weir_wheel *w, uint64_t now_ms)
{
    while (w->now <= now_ms) {
        unsigned at = (unsigned)(w->now % SLOTS_0);
        if (at == 0) { /* a turn of level 0 begins */
            for (unsigned level = 1; level < LEVELS; level++) {
                cascade(w, level);
                if ((w->now >> level_shift(level)) % SLOTS) break;
            }
        }
        unsigned used = next_used_0(w, at);
        uint64_t to = w->now + (used - at); /* the next used slot, or the next turn */
        if (to > now_ms) {
            w->now = now_ms + 1;
            return;
        }
        w->now = to;
        if (used == SLOTS_0) continue;
        weir_list_splice(&w->due, &w->slot_0[used]);
        w->used_0[used / 64] &= ~(UINT64_C(1) << (used % 64));
        w->now++;
    }
}

int weir_wheel_expire(struct weir_wheel *w, uint64_t now_ms, struct weir_event *ev, int max)
{
    int n = 0;
    if (w->now <= now_ms) advance(w, now_ms);
    while (n < max && !weir_list_empty(&w->due)) {
        struct weir_timer *t = WEIR_CONTAINER(w->due.next, struct weir_timer, node);
        weir_timer_clear(t);
        if (t->due_ms > now_ms) { /* was parked */
            place(w, t);
            continue;
        }
        ev[n++] = (struct weir_event){.ident = t->ident, .ready = WEIR_READY_TIMER, .ptr = t};
    }
    return n;
}

int64_t weir_wheel_next_ms(const struct weir_wheel *w, uint64_t now_ms)
{
    uint64_t best = UINT64_MAX;
    if (!weir_list_empty(&w->due)) return 0;
    for (unsigned k = 0; k < SLOTS_0; k++) { /* at most 4 words are looked at by next_used_0's jumps */
        unsigned from = (unsigned)((w->now + k) % SLOTS_0);
        unsigned used = next_used_0(w, from);
        if (used < SLOTS_0) {
            best = w->now + k + (used - from);
            break;
        }
        k += SLOTS_0 - from - 1;
    }
    for (unsigned level = 1; level < LEVELS; level++) {
        if (!w->used[level]) continue;
        uint64_t base = w->now >> level_shift(level);
        for (unsigned k = 0; k <= SLOTS; k++) {
            /* the current slot was cascaded unless now stands right on its start */
            if (k == 0 && (w->now & ((UINT64_C(1) << level_shift(level)) - 1))) continue;
            if (w->used[level] >> ((base + k) % SLOTS) & 1) {
                uint64_t at = (base + k) << level_shift(level);
                if (at < best) best = at;
                break;
            }
        }
    }
    if (best == UINT64_MAX) return -1;
    return best <= now_ms ? 0 : (int64_t)(best - now_ms);
}

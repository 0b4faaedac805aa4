/* SPDX-License-Identifier: MIT */
/* Orders of people, as control tells them: sites that are suspended, addresses that are denied. Immutable and counted; each
 * thread holds the current ones and asks them without a lock. */
#include <stdlib.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "link/link.h"

#define MEMFD_MAX (160u << 20) /* all suspended sites and denied networks at their limits */

struct orders {
    _Atomic unsigned refs;
    struct weir_arena arena;
    struct weir_link_orders told;  /* suspended: sorted by site */
    const struct weir_link_denied **slots; /* open addressing by network */
    size_t mask;
    uint8_t lengths[129];          /* prefix lengths that occur */
    size_t length_count;
};

static size_t slot_of(const struct orders *o, const uint8_t *address, uint8_t bits)
{
    uint64_t half[2];
    memcpy(half, address, 16);
    return (size_t)(weir_hash_u64(half[0] ^ weir_hash_u64(half[1] + bits))) & o->mask;
}

static bool index_denied(struct orders *o)
{
    bool occurs[129] = {false};
    size_t cap = 8;
    while (cap < o->told.denied_count * 2) cap *= 2;
    o->slots = weir_arena_alloc(&o->arena, cap * sizeof(struct weir_link_denied *));
    if (!o->slots) return false;
    memset(o->slots, 0, cap * sizeof(struct weir_link_denied *));
    o->mask = cap - 1;
    for (size_t i = 0; i < o->told.denied_count; i++) {
        struct weir_link_denied *d = &o->told.denied[i];
        weir_net_mask(d->address, d->bits);
        size_t at = slot_of(o, d->address, d->bits);
        while (o->slots[at]) at = (at + 1) & o->mask;
        o->slots[at] = d;
        if (!occurs[d->bits]) o->lengths[o->length_count++] = d->bits;
        occurs[d->bits] = true;
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct weir_link_suspended *x = a, *y = b;
    size_t n = x->site.len < y->site.len ? x->site.len : y->site.len;
    int order = memcmp(x->site.ptr, y->site.ptr, n);
    return order ? order : (x->site.len > y->site.len) - (x->site.len < y->site.len);
}

static void orders_free(struct orders *o)
{
    weir_arena_fini(&o->arena);
    free(o);
}

void orders_drop(struct orders *o)
{
    if (o && atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) == 1) orders_free(o);
}

static int orders_read(int fd, struct orders **out)
{
    char *bytes = NULL;
    size_t len;
    struct orders *o = calloc(1, sizeof *o);
    int status = o ? weir_link_memfd_read(fd, MEMFD_MAX, &bytes, &len) : WEIR_NOMEM;
    if (o) {
        weir_arena_init(&o->arena, 0);
        o->refs = 1;
    }
    if (status == WEIR_OK) status = weir_link_orders_decode(bytes, len, &o->arena, &o->told);
    if (status == WEIR_OK && !index_denied(o)) status = WEIR_NOMEM;
    free(bytes);
    if (status < 0) {
        if (o) orders_free(o);
        return status;
    }
    if (o->told.suspended_count) qsort(o->told.suspended, o->told.suspended_count, sizeof *o->told.suspended, compare);
    *out = o;
    return WEIR_OK;
}

void gateway_orders(struct gateway *gw, int fd)
{
    struct orders *o = NULL;
    if (orders_read(fd, &o) < 0) {
        gateway_say(gw, "the orders that control sent cannot be used: the old ones hold");
        return;
    }
    pthread_mutex_lock(&gw->lock);
    struct orders *old = gw->orders;
    gw->orders = o;
    pthread_mutex_unlock(&gw->lock);
    orders_drop(old);
    worker_wake_all(gw);
}

void worker_take_orders(struct worker *w)
{
    struct gateway *gw = w->gw;
    pthread_mutex_lock(&gw->lock);
    struct orders *o = gw->orders, *old = NULL;
    if (o != w->orders) {
        if (o) atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
        old = w->orders;
        w->orders = o;
    }
    pthread_mutex_unlock(&gw->lock);
    orders_drop(old);
}

bool worker_denies(const struct worker *w, const uint8_t address[16])
{
    const struct orders *o = w->orders;
    uint8_t masked[16];
    if (!o) return false;
    for (size_t i = 0; i < o->length_count; i++) {
        uint8_t bits = o->lengths[i];
        if (bits < 96 && weir_net_v4(address)) continue; /* of IPv6 alone */
        memcpy(masked, address, 16);
        weir_net_mask(masked, bits);
        for (size_t at = slot_of(o, masked, bits); o->slots[at]; at = (at + 1) & o->mask) {
            const struct weir_link_denied *d = o->slots[at];
            if (d->bits == bits && memcmp(d->address, masked, 16) == 0 && (!d->until || d->until > w->loop->unix_seconds)) return true;
        }
    }
    return false;
}

bool worker_suspends(const struct worker *w, const struct weir_conf_site *site, struct weir_str *text, bool *page)
{
    const struct orders *o = w->orders;
    for (size_t i = 0; o && o->told.suspended_count && i < site->name_count; i++) {
        const struct weir_link_suspended key = {.site = weir_cstr(site->names[i])};
        const struct weir_link_suspended *s = bsearch(&key, o->told.suspended, o->told.suspended_count, sizeof key, compare);
        if (!s) continue;
        *text = s->text;
        *page = s->page;
        return true;
    }
    *text = site->suspended;
    *page = site->suspended_page;
    return site->is_suspended;
}

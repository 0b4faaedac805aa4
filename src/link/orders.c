/* SPDX-License-Identifier: MIT */
/* link: orders as bytes. Two counts; then for each suspended site two lengths with a flag, its name and its text; then for each
 * denied network its time, its bits, its address. Little-endian. */
#include "link/link.h"

#define SITE_MAX 255
#define DENIED_BYTES 25

int weir_link_orders_encode(const struct weir_link_orders *o, struct weir_buf *out)
{
    const uint32_t counts[] = {(uint32_t)o->suspended_count, (uint32_t)o->denied_count};
    if (o->suspended_count > WEIR_LINK_SITES_MAX || o->denied_count > WEIR_LINK_DENIED_MAX) return WEIR_LIMIT;
    if (weir_buf_append(out, counts, sizeof counts) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < o->suspended_count; i++) {
        const struct weir_link_suspended *s = &o->suspended[i];
        const uint32_t head[] = {(uint32_t)s->site.len | (s->page ? 1u << 16 : 0u), (uint32_t)s->text.len};
        if (s->site.len == 0 || s->site.len > SITE_MAX || s->text.len > WEIR_LINK_TEXT_MAX) return WEIR_LIMIT;
        if (weir_buf_append(out, head, sizeof head) < 0 || weir_buf_append(out, s->site.ptr, s->site.len) < 0) return WEIR_NOMEM;
        if (s->text.len && weir_buf_append(out, s->text.ptr, s->text.len) < 0) return WEIR_NOMEM;
    }
    char *to = o->denied_count ? weir_buf_room(out, o->denied_count * DENIED_BYTES) : NULL;
    if (o->denied_count && !to) return WEIR_NOMEM;
    for (size_t i = 0; i < o->denied_count; i++, to += DENIED_BYTES) {
        const struct weir_link_denied *d = &o->denied[i];
        memcpy(to, &d->until, 8);
        memcpy(to + 8, &d->bits, 1);
        memcpy(to + 9, d->address, 16);
    }
    weir_buf_added(out, o->denied_count * DENIED_BYTES);
    return WEIR_OK;
}

static bool take(struct weir_str *in, void *to, size_t n)
{
    if (in->len < n) return false;
    memcpy(to, in->ptr, n);
    *in = weir_str(in->ptr + n, in->len - n);
    return true;
}

static bool take_text(struct weir_str *in, struct weir_arena *a, size_t n, struct weir_str *out)
{
    if (in->len < n) return false;
    *out = weir_arena_str(a, weir_str(in->ptr, n));
    *in = weir_str(in->ptr + n, in->len - n);
    return out->ptr != NULL;
}

static bool take_suspended(struct weir_str *in, struct weir_arena *a, struct weir_link_suspended *s)
{
    uint32_t head[2];
    if (!take(in, head, sizeof head) || head[0] >> 17) return false;
    size_t name = head[0] & 0xffff;
    s->page = head[0] >> 16 & 1;
    return name && name <= SITE_MAX && head[1] <= WEIR_LINK_TEXT_MAX && take_text(in, a, name, &s->site) && take_text(in, a, head[1], &s->text);
}

static bool take_denied(struct weir_str *in, struct weir_link_denied *d)
{
    return take(in, &d->until, 8) && take(in, &d->bits, 1) && take(in, d->address, 16) && d->bits <= 128 && d->until >= 0;
}

int weir_link_orders_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_orders *out)
{
    struct weir_str in = weir_str(p, len);
    uint32_t counts[2];
    struct weir_link_orders o = {0};
    if (!take(&in, counts, sizeof counts) || counts[0] > WEIR_LINK_SITES_MAX || counts[1] > WEIR_LINK_DENIED_MAX) return WEIR_PROTOCOL;
    if (counts[0] > in.len / 9 || counts[1] > in.len / DENIED_BYTES) return WEIR_PROTOCOL; /* nothing is allocated for them */
    o.suspended = weir_arena_alloc(a, counts[0] * sizeof *o.suspended + 1);
    o.denied = weir_arena_alloc(a, counts[1] * sizeof *o.denied + 1);
    if (!o.suspended || !o.denied) return WEIR_NOMEM;
    for (; o.suspended_count < counts[0]; o.suspended_count++)
        if (!take_suspended(&in, a, &o.suspended[o.suspended_count])) return WEIR_PROTOCOL;
    for (; o.denied_count < counts[1]; o.denied_count++)
        if (!take_denied(&in, &o.denied[o.denied_count])) return WEIR_PROTOCOL;
    if (in.len) return WEIR_PROTOCOL;
    *out = o;
    return WEIR_OK;
}

/* SPDX-License-Identifier: MIT */
/* buf: contiguous byte queue. Taking from the head moves an offset; room is made by sliding before growing. */
#include <stdlib.h>

#include "base/base.h"

#define MAX_BYTES (1u << 30)

void weir_buf_fini(struct weir_buf *b)
{
    free(b->base);
    *b = (struct weir_buf){0};
}

char *weir_buf_room(struct weir_buf *b, size_t len)
{
    if (len <= b->cap - b->tail && b->base) return b->base + b->tail;
    size_t held = weir_buf_len(b);
    if (len > MAX_BYTES || held + len > MAX_BYTES) return NULL;
    if (b->base && held + len <= b->cap && held <= b->cap / 2) {
        memmove(b->base, b->base + b->head, held);
    } else {
        size_t cap = b->cap ? b->cap : 512;
        while (cap < held + len) cap *= 2;
        char *p = malloc(cap);
        if (!p) return NULL;
        if (held) memcpy(p, b->base + b->head, held);
        free(b->base);
        b->base = p;
        b->cap = (uint32_t)cap;
    }
    b->head = 0;
    b->tail = (uint32_t)held;
    return b->base + b->tail;
}

int weir_buf_append(struct weir_buf *b, const void *p, size_t len)
{
    if (len == 0) return WEIR_OK;
    char *to = weir_buf_room(b, len);
    if (!to) return WEIR_NOMEM;
    memcpy(to, p, len);
    weir_buf_added(b, len);
    return WEIR_OK;
}

void weir_buf_consume(struct weir_buf *b, size_t len)
{
    WEIR_ASSERT(len <= weir_buf_len(b));
    b->head += (uint32_t)len;
    if (b->head == b->tail) b->head = b->tail = 0;
}

void weir_buf_reset(struct weir_buf *b, size_t keep)
{
    b->head = b->tail = 0;
    if (b->cap > keep) weir_buf_fini(b);
}

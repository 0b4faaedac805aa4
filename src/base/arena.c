/* SPDX-License-Identifier: MIT */
/* arena: blocks in a chain, newest first; one block is kept over a reset. */
#include <stdlib.h>

#include "base/base.h"

#define FIRST_BLOCK 4096u
#define KEEP_BLOCK 8192u

struct weir_arena_block {
    struct weir_arena_block *older;
    size_t size; /* bytes behind the header */
};
#define HEADER ((sizeof(struct weir_arena_block) + 15u) & ~(size_t)15u)

void weir_arena_init(struct weir_arena *a, size_t limit)
{
    *a = (struct weir_arena){.limit = limit};
}

static void free_chain(struct weir_arena_block *b)
{
    while (b) {
        struct weir_arena_block *older = b->older;
        free(b);
        b = older;
    }
}

void weir_arena_fini(struct weir_arena *a)
{
    free_chain(a->head);
    weir_arena_init(a, a->limit);
}

void weir_arena_reset(struct weir_arena *a)
{
    struct weir_arena_block *b = a->head;
    if (!b) return;
    struct weir_arena_block *older = b->older;
    if (b->size > KEEP_BLOCK) {
        weir_arena_fini(a);
        return;
    }
    free_chain(older);
    b->older = NULL;
    a->next = (char *)b + HEADER;
    a->end = a->next + b->size;
    a->total = HEADER + b->size;
}

static bool grow(struct weir_arena *a, size_t len)
{
    size_t size = a->head ? a->head->size : FIRST_BLOCK - HEADER;
    if (a->head && size < 65536) size = size * 2 + HEADER;
    if (len > (SIZE_MAX >> 2)) return false;
    if (size < len) size = (len + 4095u) & ~(size_t)4095u;
    if (a->limit && a->total + HEADER + size > a->limit) {
        size = len;
        if (a->total + HEADER + size > a->limit) return false;
    }
    struct weir_arena_block *b = malloc(HEADER + size);
    if (!b) return false;
    b->older = a->head;
    b->size = size;
    a->head = b;
    a->next = (char *)b + HEADER;
    a->end = a->next + size;
    a->total += HEADER + size;
    return true;
}

char *weir_arena_bytes(struct weir_arena *a, size_t len)
{
    if ((size_t)(a->end - a->next) < len && !grow(a, len)) return NULL;
    if (!a->next && !grow(a, len)) return NULL;
    char *p = a->next;
    a->next += len;
    return p;
}

void *weir_arena_alloc(struct weir_arena *a, size_t len)
{
    size_t skip = (size_t)(-(uintptr_t)a->next & 15u);
    if (a->next && skip <= (size_t)(a->end - a->next)) a->next += skip;
    else if (a->next) a->next = a->end;
    return weir_arena_bytes(a, len);
}

struct weir_str weir_arena_str(struct weir_arena *a, struct weir_str s)
{
    char *p = s.len < SIZE_MAX ? weir_arena_bytes(a, s.len + 1) : NULL;
    if (!p) return (struct weir_str){NULL, 0};
    if (s.len) memcpy(p, s.ptr, s.len);
    p[s.len] = 0;
    return weir_str(p, s.len);
}

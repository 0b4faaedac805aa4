/* SPDX-License-Identifier: MIT */
/* Hash table of nodes that lie in their owners' objects; chains, doubled when full. */
#include <stdlib.h>

#include "base/base.h"

uint64_t weir_hash(struct weir_str s)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a, its high bits mixed in */
    for (size_t i = 0; i < s.len; i++) h = (h ^ (unsigned char)s.ptr[i]) * 1099511628211u;
    return h ^ h >> 32;
}

uint64_t weir_hash_u64(uint64_t v)
{
    v *= 0x9e3779b97f4a7c15u;
    return v ^ v >> 32;
}

static bool grow(struct weir_table *t)
{
    uint32_t size = t->slots ? (t->mask + 1) * 2 : 16;
    struct weir_table_node **slots = calloc(size, sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; t->slots && i <= t->mask; i++) {
        for (struct weir_table_node *n = t->slots[i], *next; n; n = next) {
            next = n->next;
            n->next = slots[n->hash & (size - 1)];
            slots[n->hash & (size - 1)] = n;
        }
    }
    free(t->slots);
    t->slots = slots;
    t->mask = size - 1;
    return true;
}

int weir_table_put(struct weir_table *t, struct weir_table_node *n, uint64_t hash)
{
    if ((!t->slots || t->count > t->mask) && !grow(t) && !t->slots) return WEIR_NOMEM; /* a full one only gets slower */
    struct weir_table_node **slot = &t->slots[hash & t->mask];
    n->hash = hash;
    n->next = *slot;
    *slot = n;
    t->count++;
    return WEIR_OK;
}

static struct weir_table_node *with_hash(struct weir_table_node *n, uint64_t hash)
{
    while (n && n->hash != hash) n = n->next;
    return n;
}

struct weir_table_node *weir_table_find(const struct weir_table *t, uint64_t hash)
{
    return t->slots ? with_hash(t->slots[hash & t->mask], hash) : NULL;
}

struct weir_table_node *weir_table_more(const struct weir_table_node *n)
{
    return with_hash(n->next, n->hash);
}

void weir_table_remove(struct weir_table *t, struct weir_table_node *n)
{
    struct weir_table_node **at = &t->slots[n->hash & t->mask];
    while (*at != n) at = &(*at)->next;
    *at = n->next;
    t->count--;
}

void weir_table_fini(struct weir_table *t)
{
    free(t->slots);
    *t = (struct weir_table){0};
}

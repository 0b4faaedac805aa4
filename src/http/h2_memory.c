/* SPDX-License-Identifier: MIT */
/* Free lists for nghttp2, which asks for a dozen small pieces with each stream and gives them back with it, and for what we hold of a
 * stream. Each piece knows its class; what is too large for a class is malloc's. Of one thread. */
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>

#include "http/internal.h"

#define CLASSES 5            /* of 64, 128, 256, 512 and 1024 bytes */
#define KEPT    (256u << 10) /* bytes in the lists together */
#define BUF_MAX 2048         /* a larger buffer is not kept */

struct piece {
    union {
        struct piece *next; /* in its list */
        size_t class;       /* in use; CLASSES: malloc's own */
    };
    alignas(max_align_t) char bytes[];
};
struct weir_http2_memory {
    struct piece *lists[CLASSES];
    size_t kept;
    struct weir_buf bufs[64]; /* empty */
    size_t buf_count;
};

static size_t room_of(size_t class)
{
    return (size_t)64 << class;
}

static void *take(size_t size, void *arg)
{
    struct weir_http2_memory *m = arg;
    size_t class = 0;
    while (class < CLASSES && room_of(class) < size) class++;
    struct piece *p = class < CLASSES ? m->lists[class] : NULL;
    if (p) {
        m->lists[class] = p->next;
        m->kept -= room_of(class);
    } else if (size > SIZE_MAX - sizeof *p || !(p = malloc(sizeof *p + (class < CLASSES ? room_of(class) : size)))) {
        return NULL;
    }
    p->class = class;
    return p->bytes;
}

static struct piece *piece_of(void *bytes)
{
    return (struct piece *)(void *)((char *)bytes - offsetof(struct piece, bytes));
}

static void give(void *bytes, void *arg)
{
    struct weir_http2_memory *m = arg;
    if (!bytes) return;
    struct piece *p = piece_of(bytes);
    size_t class = p->class;
#ifndef __SANITIZE_ADDRESS__ /* which wants to see each piece end */
    if (class < CLASSES && m->kept + room_of(class) <= KEPT) {
        p->next = m->lists[class];
        m->lists[class] = p;
        m->kept += room_of(class);
        return;
    }
#endif
    (void)class, (void)m;
    free(p);
}

static void *take_zeroed(size_t count, size_t size, void *arg)
{
    void *bytes = size && count > SIZE_MAX / size ? NULL : take(count * size, arg);
    if (bytes) memset(bytes, 0, count * size);
    return bytes;
}

static void *change(void *bytes, size_t size, void *arg)
{
    if (!bytes) return take(size, arg);
    struct piece *p = piece_of(bytes);
    if (p->class == CLASSES) {
        if (size > SIZE_MAX - sizeof *p || !(p = realloc(p, sizeof *p + size))) return NULL;
        return p->bytes;
    }
    size_t room = room_of(p->class);
    if (size <= room) return bytes;
    void *grown = take(size, arg);
    if (!grown) return NULL;
    memcpy(grown, bytes, room);
    give(bytes, arg);
    return grown;
}

struct weir_http2_memory *weir_http2_memory_new(void)
{
    return calloc(1, sizeof(struct weir_http2_memory));
}

void weir_http2_memory_free(struct weir_http2_memory *m)
{
    if (!m) return;
    for (size_t i = 0; i < CLASSES; i++) {
        while (m->lists[i]) {
            struct piece *p = m->lists[i];
            m->lists[i] = p->next;
            free(p);
        }
    }
    while (m->buf_count) weir_buf_fini(&m->bufs[--m->buf_count]);
    free(m);
}

struct weir_buf http2_memory_buf(struct weir_http2_memory *m)
{
    return m && m->buf_count ? m->bufs[--m->buf_count] : (struct weir_buf){0};
}

void http2_memory_give_buf(struct weir_http2_memory *m, struct weir_buf *b)
{
    weir_buf_reset(b, BUF_MAX);
    if (m && b->base && m->buf_count < WEIR_COUNT(m->bufs)) {
        m->bufs[m->buf_count++] = *b;
        *b = (struct weir_buf){0};
    }
    weir_buf_fini(b);
}

void *http2_memory_zeroed(struct weir_http2_memory *m, size_t size)
{
    return m ? take_zeroed(1, size, m) : calloc(1, size);
}

void http2_memory_give(struct weir_http2_memory *m, void *bytes)
{
    if (m) give(bytes, m);
    else free(bytes);
}

nghttp2_mem http2_memory_functions(struct weir_http2_memory *m)
{
    return (nghttp2_mem){.mem_user_data = m, .malloc = take, .free = give, .calloc = take_zeroed, .realloc = change};
}

/* SPDX-License-Identifier: MIT */
/* base: memory and containers that every room shares. Knows nobody, does no I/O, reads no clock.
 * Owns: checks, string helpers, escaping, arena, byte buffer, intrusive list and table. */
#ifndef WEIR_BASE_H
#define WEIR_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "weir/weir.h"

/* A check that stays on in release builds: for mistakes of our own, never for a peer's bytes. */
#define WEIR_ASSERT(cond)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) weir_check_failed(#cond, __FILE__, __LINE__);            \
    } while (0)
_Noreturn void weir_check_failed(const char *cond, const char *file, int line);

#define WEIR_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(uintptr_t)(ptr)-offsetof(type, member)))
#define WEIR_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- strings: pointer and length, never owning ---- */
#define WEIR_STR(literal) ((struct weir_str){(literal), sizeof(literal) - 1})
#define WEIR_CONST_STR(literal) {(literal), sizeof(literal) - 1} /* in an initializer of static storage */
static inline struct weir_str weir_str(const char *ptr, size_t len)
{
    return (struct weir_str){ptr, len};
}
static inline struct weir_str weir_cstr(const char *s)
{
    return (struct weir_str){s, s ? strlen(s) : 0};
}
static inline bool weir_str_eq(struct weir_str a, struct weir_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
/* Of the first pair of this name; ptr NULL: there is none. */
static inline struct weir_str weir_pair_value(const struct weir_pair *list, size_t count, struct weir_str name)
{
    for (size_t i = 0; i < count; i++)
        if (weir_str_eq(list[i].name, name)) return list[i].value;
    return (struct weir_str){0};
}
bool weir_str_ieq_slow(struct weir_str a, struct weir_str b);
/* ASCII case folded. */
static inline bool weir_str_ieq(struct weir_str a, struct weir_str b)
{
    if (a.len != b.len) return false;
    return a.len == 0 || ((a.ptr[0] | 0x20) == (b.ptr[0] | 0x20) && weir_str_ieq_slow(a, b));
}
bool weir_str_prefix(struct weir_str s, struct weir_str prefix);   /* bytes */
bool weir_str_suffix(struct weir_str s, struct weir_str suffix);   /* bytes */
/* All of s is decimal digits and fits: 0, else WEIR_INVALID. No sign, no blanks. */
WEIR_CHECK int weir_str_u64(struct weir_str s, uint64_t max, uint64_t *out);
/* Writes v in decimal to out (room for 20), returns the length. */
size_t weir_u64_text(char *out, uint64_t v);

/* ---- classes of bytes (RFC 9110 5.6.2, RFC 3986) ---- */
enum weir_byte {
    WEIR_BYTE_TOKEN = 1,
    WEIR_BYTE_VISIBLE = 2, /* 0x21..0x7e */
    WEIR_BYTE_FIELD = 4,   /* a field value: tab, 0x20.., not 0x7f; obs-text is content to us */
    WEIR_BYTE_HEX = 8,
    WEIR_BYTE_HOST = 16,   /* host[:port] */
    WEIR_BYTE_PLAIN = 32   /* 0x20..0x7e but for quote and backslash: stands for itself in a log */
};
extern const uint8_t weir_byte_class[256];
static inline bool weir_str_all(struct weir_str s, uint8_t k)
{
    uint8_t have = k;
    for (size_t i = 0; i < s.len; i++) have &= weir_byte_class[(unsigned char)s.ptr[i]];
    return have & k;
}
/* All of it may stand in a field value (WEIR_BYTE_FIELD), eight bytes at a time. Empty: yes. */
bool weir_str_field(struct weir_str s);

/* memcpy for what is mostly short: names, numbers, small values. */
static inline void weir_copy(void *to, const void *from, size_t len)
{
    char *t = to;
    const char *f = from;
    if (len > 32) {
        memcpy(t, f, len);
    } else if (len >= 16) { /* two pieces that may overlap */
        memcpy(t, f, 16);
        memcpy(t + len - 16, f + len - 16, 16);
    } else if (len >= 8) {
        memcpy(t, f, 8);
        memcpy(t + len - 8, f + len - 8, 8);
    } else if (len >= 4) {
        memcpy(t, f, 4);
        memcpy(t + len - 4, f + len - 4, 4);
    } else {
        for (size_t i = 0; i < len; i++) t[i] = f[i];
    }
}

/* ---- text of strangers, for logs and terminals ---- */
/* Length of the printable character of UTF-8 that begins at p (a tab is one), 0: there is none. len > 0. */
size_t weir_utf8_printable(const char *p, size_t len);
/* UTF-8 passes; control characters (C1 too) and bytes that are none are \xHH. What has no room is cut; how many were written. */
size_t weir_text_escape(char *out, size_t room, const char *p, size_t len);
/* The inside of a string of JSON: valid for any bytes; control characters are \u00HH, bytes that are no UTF-8 the text \xHH. A
 * byte takes at most 6. */
size_t weir_json_escape(char *out, size_t room, const char *p, size_t len);

/* ---- arena: bump allocation, freed at once ---- */
struct weir_arena_block;
struct weir_arena {
    struct weir_arena_block *head; /* newest block */
    char *next, *end;              /* free room in it */
    size_t total;                  /* bytes taken from malloc */
    size_t limit;                  /* at most this many, 0: no limit */
};
void weir_arena_init(struct weir_arena *a, size_t limit);
void weir_arena_fini(struct weir_arena *a);
/* Empties it; the first block (at most 8 KiB) is kept for the next user. */
void weir_arena_reset(struct weir_arena *a);
/* 16-byte aligned, uninitialised; NULL when memory or the limit ends. */
void *weir_arena_alloc(struct weir_arena *a, size_t len);
/* Unaligned bytes. */
char *weir_arena_bytes(struct weir_arena *a, size_t len);
/* Copy with a NUL behind it; ptr NULL on failure. */
struct weir_str weir_arena_str(struct weir_arena *a, struct weir_str s);

/* ---- buf: a growable byte queue, contiguous; append at the tail, take from the head ---- */
struct weir_buf {
    char *base;
    uint32_t head, tail, cap; /* bytes base[head..tail) are held */
};
static inline size_t weir_buf_len(const struct weir_buf *b)
{
    return b->tail - b->head;
}
static inline char *weir_buf_ptr(const struct weir_buf *b)
{
    return b->base + b->head;
}
void weir_buf_fini(struct weir_buf *b);  /* frees; a zeroed struct is a valid empty buf */
/* Room for len more bytes at the tail; returns where to write, or NULL (memory, or over 1 GiB).
 * weir_buf_added tells how many were written. */
char *weir_buf_room(struct weir_buf *b, size_t len);
static inline void weir_buf_added(struct weir_buf *b, size_t len)
{
    b->tail += (uint32_t)len;
}
WEIR_CHECK int weir_buf_append(struct weir_buf *b, const void *p, size_t len); /* 0 or WEIR_NOMEM */
void weir_buf_consume(struct weir_buf *b, size_t len);
/* Empties it and gives memory above keep bytes back. */
void weir_buf_reset(struct weir_buf *b, size_t keep);

/* ---- list: intrusive, doubly linked, circular ---- */
struct weir_list {
    struct weir_list *prev, *next;
};
static inline void weir_list_init(struct weir_list *l)
{
    l->prev = l->next = l;
}
static inline bool weir_list_empty(const struct weir_list *l)
{
    return l->next == l;
}
static inline void weir_list_push_back(struct weir_list *head, struct weir_list *n)
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}
static inline void weir_list_push_front(struct weir_list *head, struct weir_list *n)
{
    n->next = head->next;
    n->prev = head;
    head->next->prev = n;
    head->next = n;
}
/* Safe on a node that is in no list (initialised). */
static inline void weir_list_remove(struct weir_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    weir_list_init(n);
}
/* All of `from` behind what is in `to`; from is empty then. */
static inline void weir_list_splice(struct weir_list *to, struct weir_list *from)
{
    if (weir_list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    weir_list_init(from);
}

/* ---- table: intrusive hash table; several nodes may have one hash, the owner compares keys ---- */
struct weir_table_node {
    struct weir_table_node *next;
    uint64_t hash;
};
struct weir_table { /* zeroed = empty */
    struct weir_table_node **slots;
    uint32_t mask, count;
};
uint64_t weir_hash(struct weir_str s);
uint64_t weir_hash_u64(uint64_t v);
WEIR_CHECK int weir_table_put(struct weir_table *t, struct weir_table_node *n, uint64_t hash); /* WEIR_OK, WEIR_NOMEM */
struct weir_table_node *weir_table_find(const struct weir_table *t, uint64_t hash);            /* the first with that hash */
struct weir_table_node *weir_table_more(const struct weir_table_node *n);                      /* the next with its hash */
void weir_table_remove(struct weir_table *t, struct weir_table_node *n);                       /* it must be in it */
void weir_table_fini(struct weir_table *t);

/* ---- where the running weir takes orders, unless its configuration says otherwise ---- */
#define WEIR_CONTROL_SOCKET         "/run/weir/control.sock" /* with root's rights */
#define WEIR_CONTROL_SOCKET_OF_USER "/tmp/weir-%d.sock"      /* the user's id */

/* ---- networks ---- */
struct weir_net {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d; what is beyond bits is 0 */
    uint8_t bits;        /* 0 to 128; IPv4: 96 and more. A network of less holds IPv6 alone: ::/0 says nothing about IPv4 */
};
#define WEIR_NET_TEXT 56
struct sockaddr;
struct sockaddr_storage;
/* "192.0.2.1", "192.0.2.0/24", "2001:db8::/32"; bits beyond the prefix are dropped. WEIR_INVALID. */
WEIR_CHECK int weir_net_parse(struct weir_str text, struct weir_net *out);
void weir_net_text(const struct weir_net *n, char out[WEIR_NET_TEXT]);
void weir_net_mask(uint8_t address[16], unsigned bits); /* clears what is beyond bits */
bool weir_net_of(const struct sockaddr *a, uint8_t address[16]); /* false: neither IPv4 nor IPv6 */
bool weir_net_v4(const uint8_t address[16]);
bool weir_net_everybody(const struct weir_net *n); /* all addresses of IPv4, or of IPv6 */
/* Is the address one of the network; of one of them? */
bool weir_net_has(const struct weir_net *n, const uint8_t address[16]);
bool weir_nets_have(const struct weir_net *list, size_t count, const uint8_t address[16]);
/* A socket's address from such bytes (IPv4 where they are mapped). */
void weir_net_socket(const uint8_t address[16], uint16_t port, struct sockaddr_storage *out);

/* ---- keyed hash: SipHash-2-4 with 128 bits. Who does not know the key can neither find a collision nor tell where a value falls ---- */
struct weir_key {
    uint64_t k[2];
};
struct weir_digest {
    uint64_t h[2];
};
struct weir_digest weir_keyed_hash(const struct weir_key *key, struct weir_str s);
bool weir_same_secret(const void *a, const void *b, size_t len); /* in the same time for any two of len bytes */

/* ---- random numbers for spreading and seeds, not for secrets: xorshift64* ---- */
struct weir_random {
    uint64_t state;
};
static inline uint64_t weir_random_next(struct weir_random *r)
{
    uint64_t x = r->state ? r->state : 0x9e3779b97f4a7c15u;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * 0x2545f4914f6cdd1du;
}
#endif

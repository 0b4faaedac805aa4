/* SPDX-License-Identifier: MIT */
/* SipHash-2-4 (Aumasson and Bernstein) with 128 bits: a pseudorandom function, where a table or a cache is in reach of strangers. */
#include "base/base.h"

struct state {
    uint64_t v[4];
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void rounds(struct state *s, unsigned count)
{
    uint64_t *v = s->v;
    for (unsigned i = 0; i < count; i++) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static uint64_t word(const unsigned char *p, size_t len)
{
    uint64_t w = 0;
    for (size_t i = 0; i < len; i++) w |= (uint64_t)p[i] << (8 * i);
    return w;
}

static void mix(struct state *s, uint64_t w)
{
    s->v[3] ^= w;
    rounds(s, 2);
    s->v[0] ^= w;
}

struct weir_digest weir_keyed_hash(const struct weir_key *key, struct weir_str str)
{
    struct state s = {{key->k[0] ^ 0x736f6d6570736575u, key->k[1] ^ 0x646f72616e646f6du ^ 0xee, key->k[0] ^ 0x6c7967656e657261u,
                       key->k[1] ^ 0x7465646279746573u}};
    const unsigned char *p = (const unsigned char *)str.ptr;
    size_t whole = str.len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) mix(&s, word(p + i, 8));
    mix(&s, word(whole < str.len ? p + whole : NULL, str.len - whole) | (uint64_t)str.len << 56);
    s.v[2] ^= 0xee;
    rounds(&s, 4);
    struct weir_digest d = {{s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3], 0}};
    s.v[1] ^= 0xdd;
    rounds(&s, 4);
    d.h[1] = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    return d;
}

bool weir_same_secret(const void *a, const void *b, size_t len)
{
    const volatile unsigned char *x = a, *y = b;
    unsigned char differ = 0;
    for (size_t i = 0; i < len; i++) differ |= x[i] ^ y[i];
    return differ == 0;
}

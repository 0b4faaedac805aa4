/* SPDX-License-Identifier: MIT */
/* Requests, cut into pieces as the first byte says: whatever comes, pieces and whole mean the same. */
#include <stdint.h>
#include <stdlib.h>

#include "http/http.h"

struct outcome {
    uint64_t hash;
    unsigned events;
};

static void note(struct outcome *o, uint64_t v)
{
    o->hash = (o->hash ^ v) * 1099511628211u;
}

static struct outcome run(const uint8_t *data, size_t len, uint64_t seed)
{
    struct outcome o = {0, 0};
    struct weir_http1 *p;
    struct weir_arena a;
    struct weir_http_event ev;
    struct weir_random r = {seed};
    weir_arena_init(&a, 1u << 20);
    if (weir_http1_new(&p, NULL) < 0) abort();
    weir_http1_expect(p, &a);
    for (size_t i = 0; i < len;) {
        size_t n = seed ? 1 + weir_random_next(&r) % 20 : len;
        if (n > len - i) n = len - i;
        weir_http1_feed(p, data + i, n);
        while (weir_http1_next(p, &ev) == WEIR_OK) {
            if (ev.type == WEIR_HTTP_EV_BODY) {
                for (size_t k = 0; k < ev.bytes.len; k++) note(&o, (uint8_t)ev.bytes.ptr[k]);
                continue;
            }
            o.events++;
            note(&o, (uint64_t)ev.type * 1000 + (uint64_t)ev.status);
            if (ev.type == WEIR_HTTP_EV_END) weir_http1_expect(p, &a);
        }
        size_t used = weir_http1_consumed(p);
        if (used == 0) break;
        i += used;
    }
    weir_http1_free(p);
    weir_arena_fini(&a);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1) return 0;
    struct outcome whole = run(data + 1, len - 1, 0), pieces = run(data + 1, len - 1, data[0] + 1u);
    if (whole.hash != pieces.hash || whole.events != pieces.events) abort();
    return 0;
}

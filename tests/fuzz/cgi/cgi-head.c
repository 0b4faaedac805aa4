/* SPDX-License-Identifier: MIT */
/* An app's header, with interim ones before it, in two pieces, and the same in one. */
#include <stdint.h>
#include <stdlib.h>

#include "cgi/cgi.h"

static int feed(const uint8_t *p, size_t len, size_t cut, size_t *content)
{
    struct weir_arena a;
    const char *why;
    size_t used = 0;
    weir_arena_init(&a, 1u << 20);
    struct weir_cgi_head *h = weir_cgi_head_new(&a, NULL);
    int status = weir_cgi_head_feed_final(h, p, cut, &used, &why);
    size_t at = used;
    if (status == WEIR_AGAIN) {
        status = weir_cgi_head_feed_final(h, p + cut, len - cut, &used, &why);
        at = cut + used;
    }
    if (status == WEIR_OK) {
        const struct weir_cgi_response *r = weir_cgi_head_response(h);
        for (size_t i = 0; i < r->header_count; i++)
            for (size_t k = 0; k < r->headers[i].value.len; k++)
                if (r->headers[i].value.ptr[k] == '\n' || r->headers[i].value.ptr[k] == '\r' || r->headers[i].value.ptr[k] == 0) abort();
    }
    *content = status == WEIR_OK ? at : 0;
    weir_arena_fini(&a);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t a, b;
    if (len < 2) return 0;
    size_t cut = data[0] % len;
    if (feed(data + 1, len - 1, cut, &a) != feed(data + 1, len - 1, len - 1, &b) || a != b) abort();
    return 0;
}

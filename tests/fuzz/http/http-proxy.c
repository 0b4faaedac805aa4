/* SPDX-License-Identifier: MIT */
/* What stands before a connection's first request, whole and byte by byte; and the same bytes as fields that tell where a request came
 * from, and as credentials. */
#include <stdint.h>
#include <stdlib.h>

#include "http/http.h"

static void header(const char *p, size_t len)
{
    struct weir_proxy whole = {0}, pieces = {0};
    const char *why;
    size_t used, one, all = 0;
    int a = weir_proxy_feed(&whole, p, len, &used, &why), b = WEIR_AGAIN;
    while (all < len && b == WEIR_AGAIN) {
        b = weir_proxy_feed(&pieces, p + all, 1, &one, &why);
        all += one;
    }
    if (a != b || (a != WEIR_PROTOCOL && used != all)) abort();
    if (a == WEIR_OK && (whole.known != pieces.known || memcmp(&whole.from, &pieces.from, sizeof whole.from) != 0)) abort();
}

static void told(const char *p, size_t len, bool forwarded)
{
    struct weir_pair f = {forwarded ? WEIR_STR("Forwarded") : WEIR_STR("X-Forwarded-For"), weir_str(p, len)};
    struct weir_hops h;
    struct weir_hop hop;
    weir_hops_init(&h, &f, 1, forwarded);
    for (size_t n = 0; weir_hops_next(&h, &hop) == WEIR_OK; n++)
        if (n > len) abort();
}

static void credentials(const char *p, size_t len)
{
    struct weir_arena a;
    struct weir_str user, password;
    weir_arena_init(&a, 0);
    if (weir_http_basic(weir_str(p, len), &a, &user, &password) == WEIR_OK && (user.ptr[user.len] || password.ptr[password.len])) abort();
    weir_arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *p = malloc(len + 1); /* of just this size: what reads beyond is seen */
    if (!p) return 0;
    if (len) memcpy(p, data, len);
    p[len] = 0;
    if (len) header(p, len);
    told(p, len, true);
    told(p, len, false);
    credentials(p, len);
    free(p);
    return 0;
}

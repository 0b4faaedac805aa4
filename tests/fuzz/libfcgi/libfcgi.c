/* SPDX-License-Identifier: MIT */
/* Hostile bytes into libfcgi, with a program that answers. The first byte steers how they are split. */
#include "../../unit/libfcgi/script.h"
#include "base/base.h"

static size_t piece(void *arg, size_t at, size_t len)
{
    size_t n = 1 + weir_random_next(arg) % 300;
    return n < len - at ? n : len - at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1) return 0;
    struct weir_random r = {data[0] + 1u};
    size_t got;
    free(script_run(data + 1, len - 1, piece, &r, &got));
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* Paths: what is accepted begins with a slash, has no "..", no NUL, and splits inside itself. */
#include <stdint.h>
#include <stdlib.h>

#include "cgi/cgi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct weir_arena a;
    struct weir_cgi_path p;
    const char *why;
    weir_arena_init(&a, 1u << 20);
    if (weir_cgi_path_parse(weir_str((const char *)data, len), &a, &p, &why) == WEIR_OK) {
        if (p.path.ptr[0] != '/' || memchr(p.path.ptr, 0, p.path.len)) abort();
        if (memmem(p.path.ptr, p.path.len, "/../", 4) || weir_str_suffix(p.path, WEIR_STR("/.."))) abort();
        for (size_t n = 0; (n = weir_cgi_split_next(p.path, WEIR_STR(".php"), n)) > 0;)
            if (n > p.path.len) abort();
    }
    weir_arena_fini(&a);
    return 0;
}

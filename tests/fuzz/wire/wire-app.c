/* SPDX-License-Identifier: MIT */
/* Hostile bytes into the application's end, with a program that answers. The first byte steers splits and answers. */
#include <stdint.h>
#include <stdlib.h>

#include "base/base.h"
#include "weir/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct weir_wire_limits limits = {.params_bytes = 4096, .requests = 5, .plain_requests = 3, .window = 100, .stray_records = 50, .idle_credits = 50};
    struct weir_wire_app *w;
    struct weir_wire_event ev;
    const void *out;
    if (len < 1 || weir_wire_app_new(&w, &limits) < 0) return 0;
    struct weir_random r = {data[0] + 1u};
    for (size_t i = 1; i < len;) {
        size_t n = 1 + weir_random_next(&r) % 64;
        if (n > len - i) n = len - i;
        weir_wire_app_feed(w, data + i, n);
        i += n;
        while (weir_wire_app_next(w, &ev) == WEIR_OK) {
            uint64_t choice = weir_random_next(&r) % 8;
            if (ev.type == WEIR_WIRE_EV_ERROR) break;
            if (ev.type == WEIR_WIRE_EV_INPUT && choice) weir_wire_app_consumed(w, ev.id, ev.stream, ev.bytes.len);
            if (choice < 4) (void)!weir_wire_app_write(w, ev.id, WEIR_STDOUT, data, len < 70 ? len : 70);
            if (choice == 4) (void)!weir_wire_app_end(w, ev.id, 1, 0);
            if (choice == 5) (void)!weir_wire_app_write(w, ev.id, WEIR_STDERR, data, 1);
            if (choice == 6) weir_wire_app_limit(w, data[0] % 7);
        }
        size_t have = weir_wire_app_output(w, &out);
        weir_wire_app_sent(w, have / 2);
    }
    weir_wire_app_free(w);
    return 0;
}

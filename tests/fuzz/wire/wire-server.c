/* SPDX-License-Identifier: MIT */
/* Hostile bytes into the web server's end, with requests under way. */
#include <stdint.h>
#include <stdlib.h>

#include "base/base.h"
#include "weir/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct weir_wire_limits limits = {.stray_records = 50, .idle_credits = 50};
    const struct weir_pair p = {WEIR_STR("A"), WEIR_STR("b")};
    struct weir_wire_server *w;
    struct weir_wire_event ev;
    const void *out;
    uint16_t id;
    if (len < 2 || weir_wire_server_new(&w, &limits) < 0) return 0;
    struct weir_random r = {data[0] + 1u};
    if (data[1] & 1) (void)!weir_wire_server_ask(w);
    else if (data[1] & 2) weir_wire_server_allow_plain_mpx(w, 4);
    for (size_t i = 2; i < len;) {
        size_t n = 1 + weir_random_next(&r) % 64;
        if (n > len - i) n = len - i;
        if (weir_random_next(&r) % 3 == 0 && weir_wire_server_begin(w, WEIR_RESPONDER, 1, 200, &p, 1, NULL, &id) == WEIR_OK) {
            (void)!weir_wire_server_write(w, id, WEIR_STDIN, data, len < 300 ? len : 300);
            if (weir_random_next(&r) % 2) (void)!weir_wire_server_write_end(w, id, WEIR_STDIN);
            if (weir_random_next(&r) % 8 == 0) (void)!weir_wire_server_abort(w, id);
        }
        weir_wire_server_feed(w, data + i, n);
        i += n;
        while (weir_wire_server_next(w, &ev) == WEIR_OK) {
            if (ev.type == WEIR_WIRE_EV_ERROR) break;
            if (ev.type == WEIR_WIRE_EV_INPUT) weir_wire_server_consumed(w, ev.id, ev.stream, ev.bytes.len);
        }
        weir_wire_server_sent(w, weir_wire_server_output(w, &out) / 2);
        (void)weir_wire_server_reusable(w);
    }
    weir_wire_server_free(w);
    return 0;
}

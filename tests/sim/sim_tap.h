/* SPDX-License-Identifier: MIT */
/* Reads along on the connections of a simulation and judges flow control from outside: by the records that were written, and
 * those that had arrived before at the one who wrote (docs/flow-control.md, section 12). A connection on which a hostile peer sits
 * is judged on the other end only. */
#ifndef WEIR_SIM_TAP_H
#define WEIR_SIM_TAP_H

#include "sim_loop.h"

enum sim_seen { SEEN_AGREED, SEEN_DENIED, SEEN_CREDIT, SEEN_WAITED_FOR_CREDIT, SEEN_LIMIT, SEEN_FINAL, SEEN_CROSSED_FINAL, SEEN_REFUSAL,
                SEEN_ABORT, SEEN_REUSED_ID, SEEN_EARLY_END, SEEN_ODD, SEEN_COUNT };
extern const char *const sim_seen_names[SEEN_COUNT];

struct sim_tap;
struct sim_tap *sim_tap_new(void (*fail)(void *arg, const char *what), void *arg, uint64_t seen[SEEN_COUNT]);
void sim_tap_free(struct sim_tap *t);
void sim_tap_hostile(struct sim_tap *t, int fd); /* who has this end keeps no rule */
void sim_tap_blind(struct sim_tap *t, int fd);   /* what it says is not even what it seems: this connection is not judged */
/* From the loop; a and b are sockets, not descriptors: the dialler's, the listener's. */
void sim_tap_opened(struct sim_tap *t, int a, int b);
void sim_tap_closed(struct sim_tap *t, int socket, bool first); /* first: the other end was open */
void sim_tap_reset(struct sim_tap *t, int socket); /* bytes were lost */
void sim_tap_written(struct sim_tap *t, int from, const void *p, size_t len);
void sim_tap_delivered(struct sim_tap *t, int to, const void *p, size_t len);
#endif

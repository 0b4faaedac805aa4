/* SPDX-License-Identifier: MIT */
/* client: for programs of this house that share one loop between a client and their own work. weir/client.h is the rest.
 * The thread hands loop events in (weir_client_ready), pulls client events out (weir_client_next) until WEIR_AGAIN, and flushes at the
 * end of its turn. */
#ifndef WEIR_CLIENT_ON_LOOP_H
#define WEIR_CLIENT_ON_LOOP_H

#include "loop/loop.h"
#include "loop/spill.h"
#include "weir/client.h"

#define WEIR_CLIENT_KINDS 4
struct weir_client_place {
    struct weir_loop *loop;
    uint8_t kind;                   /* idents of this client use kind .. kind + WEIR_CLIENT_KINDS - 1 */
    struct weir_spill_quota *quota; /* of files; those of the options are not looked at */
};
WEIR_CHECK int weir_client_new_on(struct weir_client **out, struct weir_client_group *g, const struct weir_client_options *o,
                                  const struct weir_client_place *place);
void weir_client_ready(struct weir_client *c, const struct weir_event *ev); /* a loop event of our kinds */
void weir_client_woken(struct weir_client *c);                              /* after a WAKE event */
void weir_client_turn(struct weir_client *c);                               /* a turn begins: behind the loop's wait */
bool weir_client_busy(const struct weir_client *c);                         /* there is more to do in this turn */
int64_t weir_client_next_us(const struct weir_client *c);                   /* until work is due that no timer tells; -1 */

/* This loop is woken when what a supervisor has to know at once has changed: requests wait in a pool, an endpoint is gone. */
void weir_client_group_watch(struct weir_client_group *g, struct weir_loop *watcher);
bool weir_client_group_urgent(struct weir_client_group *g); /* the watcher was woken for that since the last call */
/* A pool whose state changed since it was last returned here, or NULL: for weir_pool_stats. Any thread. */
struct weir_pool *weir_client_group_changed(struct weir_client_group *g);
#endif

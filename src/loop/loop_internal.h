/* SPDX-License-Identifier: MIT */
/* loop: what its files share. */
#ifndef WEIR_LOOP_INTERNAL_H
#define WEIR_LOOP_INTERNAL_H

#include "loop/loop.h"

/* weir_loop_peer by a netlink socket from weir_open_unix_diag; one question at a time. */
int64_t weir_unix_diag_peer(int netlink, int fd);
bool weir_unix_diag_works(int netlink); /* asked about a pair of ours */
#endif

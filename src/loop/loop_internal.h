/* SPDX-License-Identifier: MIT */
/* loop: what its files share. */
#ifndef WEIR_LOOP_INTERNAL_H
#define WEIR_LOOP_INTERNAL_H

#include "loop/loop.h"

/* weir_loop_accepted by a netlink socket from weir_open_unix_diag; one question at a time. */
int weir_unix_diag_accepted(int netlink, int fd);
#endif

/* SPDX-License-Identifier: MIT */
/* loop: what its files share. */
#ifndef WEIR_LOOP_INTERNAL_H
#define WEIR_LOOP_INTERNAL_H

#include "loop/loop.h"

bool weir_unix_diag_works(int netlink); /* asked about a pair of ours */
#endif

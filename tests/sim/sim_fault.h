/* SPDX-License-Identifier: MIT */
/* Memory that runs out: while it is on, an allocation of the linked code fails once in so many, by a seed (GNU ld's --wrap). */
#ifndef WEIR_SIM_FAULT_H
#define WEIR_SIM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

void sim_fault_seed(uint64_t seed, unsigned odds); /* odds 0: never */
bool sim_fault_set(bool on); /* what it was */
uint64_t sim_fault_count(void); /* allocations that failed so far */
#endif

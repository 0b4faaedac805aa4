/* SPDX-License-Identifier: MIT */
/* sim_fault: see sim_fault.h. */
#include "sim_fault.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/base.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__wrap_realloc(void *p, size_t n);

static struct weir_random source;
static unsigned one_in;
static bool on;
static uint64_t failures;

void sim_fault_seed(uint64_t seed, unsigned odds)
{
    source = (struct weir_random){seed};
    one_in = odds;
}

bool sim_fault_set(bool to)
{
    bool was = on;
    on = to;
    return was;
}

uint64_t sim_fault_count(void)
{
    return failures;
}

static bool fails(void)
{
    if (!on || !one_in || weir_random_next(&source) % one_in) return false;
    failures++;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t count, size_t n)
{
    return fails() ? NULL : __real_calloc(count, n);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

/* SPDX-License-Identifier: MIT */
/* The application that the tests of the client ask: an app of libweir on a thread of its own, in events style on a foreign poll loop, or
 * with handler threads. What it does is told by PATH_INFO:
 *
 *   /hello       "hello", appStatus 7                 /count    "N S": bytes and sum of the body
 *   /late        "late", 30 ms later                  /filter   "N S N S": of the body, of the data
 *   /hold        nothing, until it is aborted         /drip     a byte every 10 ms, until it is aborted
 *   /big/BYTES   so many bytes of pattern()           /refuse   refuses it
 *   /print/BYTES a text of so many bytes by printf    /complain/BYTES  the same on STDERR
 *   /logs        "oops" on STDERR, "done" on STDOUT   /kept     20000 bytes by printf, 50 ms later "end" */
#ifndef PEER_H
#define PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "weir/app.h"

struct peer {
    struct weir_app *app;
    pthread_t thread;
    int listen_fd;
    bool handlers;
    char path[64], address[80];
    atomic_int accepted, requests, aborts, running, most;
};

void peer_start(struct peer *p, uint32_t threads, uint32_t roles);
void peer_stop(struct peer *p);

static inline char pattern(uint64_t at)
{
    return (char)('a' + at % 23 + (at >> 12) % 3);
}
static inline uint64_t sum_of(uint64_t sum, const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) sum = (sum * 31 + (unsigned char)p[i]) & 0xffffffff;
    return sum;
}
#endif

/* SPDX-License-Identifier: MIT */
/* The second implementation of the loop: sockets in memory, a clock that the test turns, everything by a seed. Bytes that one
 * side wrote arrive at the other in pieces, late, when sim_move says so; a close arrives behind them. A TCP socket that is
 * closed with unread input loses what it sent and what had not arrived, as the kernel's reset does. Descriptors from SIM_FD on
 * are simulated, lower ones (files) are the kernel's. */
#ifndef WEIR_SIM_LOOP_H
#define WEIR_SIM_LOOP_H

#include "loop/loop.h"

#define SIM_SOCKETS 512
#define SIM_FD      1000000

struct sim_socket {
    struct weir_buf in, wire;   /* arrived; on its way to us */
    struct weir_loop *loop;     /* registered there */
    struct weir_ident ident;
    int peer;                   /* -1: gone */
    uint32_t edges;             /* ready bits not told yet */
    bool used, listener, registered, want_write, peer_closed, accepted;
    const char *name;           /* of a listener: the path of a unix socket, or something else for TCP */
    bool tcp, dead;             /* dead: a listener that refuses */
    int of;                     /* of the end that accepts: its listener */
    int backlog[64];
    int backlog_count;
};
struct sim_tap;
struct sim {
    struct sim_socket s[SIM_SOCKETS];
    struct weir_random random;
    uint64_t now_us;
    bool helpers_stopped;
    size_t capacity;      /* bytes under way in one direction; 0: many */
    uint64_t both_full;   /* a write was cut short on a connection that is full in the other direction, too */
    struct sim_tap *tap;  /* sees what connections carry; NULL: nobody does */
    uint64_t events; /* moves, reads and writes: how much was done */
};
struct weir_loop *sim_loop_new(struct sim *w);
int sim_listen(struct sim *w, const char *name); /* a listening socket; "/a" is reached as unix:/a, "web" is TCP */
int sim_dial(struct sim *w, const char *name);   /* a client's end; -1: refused */
void sim_move(struct sim *w);                 /* some bytes arrive somewhere */
bool sim_taken(const struct sim *w, int fd);   /* all that was written to fd was read at the other end */
void sim_reset(struct sim *w);                /* some connection breaks */
void sim_die(struct sim *w, const char *name, bool dead); /* a server: its connections break, new ones are refused; or it is back */
uint64_t sim_below(struct sim *w, uint64_t usual, unsigned odds, uint64_t rare); /* a random number below usual; once in odds below rare */
void sim_clock(struct sim *w, uint64_t us);
bool sim_quiet(const struct sim *w);          /* nothing is on its way */
#endif

/* SPDX-License-Identifier: MIT */
/* Model check: what its files share. model.c owns the search, the memory of a state and what holds in each; world.c what the two
 * programs and the channels between them do, and what is judged on the way. */
#ifndef WEIR_MODEL_H
#define WEIR_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "weir/wire.h"

enum { REQUESTS = 3, CHANNEL = 256, STAGE = 512, HEAP = 40000, BLOCKS = 64 };

struct world {
    const char *name;
    unsigned requests, capacity;   /* requests of the web server; `requests` of the app */
    uint32_t app_window, server_window;
    unsigned body, answer;         /* bytes of each request */
    unsigned channel;              /* bytes that one direction carries */
    bool asks, unaware;            /* the server has a hint; the app does not know the extension */
    bool aborts, drains, refuses, late, limits; /* what may happen at any time; late: OVERLOADED after it ran */
    bool bytewise;                 /* programs take and give one byte at a time */
    bool others;                   /* DATA and STDERR instead of STDIN and STDOUT */
    bool large;                    /* left out by --quick */
};

struct request {
    uint16_t id;
    uint8_t body_sent, body_got, body_taken, answer_sent, answer_got, answer_taken;
    uint64_t body_limit, answer_limit;   /* what the sender of that stream has been told */
    bool begun, aborted, over;           /* the web server's view */
    bool known, ran, told_abort, ended;  /* the app's; ran: its program did something for it */
    bool body_waits, answer_waits;       /* cut short: to be told when there is room */
    bool begin_read, params_read;        /* they went by */
    uint8_t runs, ends;
};
struct tap { /* the record that goes by */
    uint8_t bytes[STAGE];
    uint32_t len;
};
struct channel {
    uint8_t bytes[CHANNEL];
    uint32_t len, cut; /* cut: bytes of the record that left only in part */
    struct tap tap;
};
struct block {
    uint32_t at, len;
    bool used;
};
struct state {
    struct weir_wire_app *app;
    struct weir_wire_server *server;
    struct request r[REQUESTS];
    struct channel to_app, to_server;
    uint32_t limit; /* requests, that the server has been told */
    uint32_t freed; /* the order in which ids became free */
    uint32_t changes; /* of that number, by the app */
    bool asked, agreed, final, drained, lowered, closed, app_closed;
    uint32_t block_count, heap_used;
    struct block blocks[BLOCKS];
    uint8_t stage[STAGE];
    _Alignas(16) uint8_t heap[HEAP];
};
enum step {
    BEGIN, GIVE_BODY, TAKE_ANSWER, ABORT, TAKE_BODY, GIVE_ANSWER, END, REFUSE, REFUSE_LATE, /* of a request */
    DRAIN, LOWER, RAISE, CLOSE, SEND_TO_APP, SEND_TO_SERVER, REACH_APP, REACH_SERVER, STEPS
};
extern struct state now;
extern const struct world *w;                    /* the one that is explored */
extern bool byte_by_byte, patient, check_splits; /* the last records are given again in pieces; an app reads its body before it ends;
                                                    records are to be given in pieces, too */

/* A property is broken: ends the program. */
_Noreturn void found(const char *property, const char *what);
void restore(const void *saved); /* the state as save left it */
size_t state_len(void);          /* bytes of `now` that count */
uint64_t mix(uint64_t h, const void *p, size_t len);

enum weir_stream body_stream(void);
enum weir_stream answer_stream(void);
bool take_step(enum step s, struct request *r); /* false: it cannot be taken now. r: where it is a request's */
#endif

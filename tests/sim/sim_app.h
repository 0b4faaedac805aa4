/* SPDX-License-Identifier: MIT */
/* The application of the simulations: libweir on a simulated loop. It reads a body whose bytes it knows, and answers with bytes
 * that the other side knows; what each request is to do lies in its task, named by QUERY_STRING. */
#ifndef WEIR_SIM_APP_H
#define WEIR_SIM_APP_H

#include "sim_loop.h"

struct sim_task {
    uint64_t body, answer;                       /* lengths */
    uint64_t body_got, answer_sent;              /* of the last run */
    unsigned runs;
    bool delay, early;                           /* answers 5 ms later; answers without reading the body */
    bool sized;                                  /* tells its Content-Length */
    bool any;                                    /* of a hostile server: nothing about its body is known */
    unsigned refuse;                             /* it is refused so often before it runs */
};
struct weir_app;
struct sim_app {
    struct weir_loop *loop;
    struct weir_app *app;
    struct sim_task *(*task)(void *arg, size_t id);
    void (*fail)(void *arg, const char *what, size_t id); /* does not return */
    void *arg;
    bool drained;                                /* DRAINED was told */
    uint32_t idle_ms;                            /* to be set before it starts */
};
char sim_byte(size_t id, uint64_t i); /* of body and answer of request id */
void sim_app_start(struct sim_app *a, struct sim *net, const char *name, uint32_t max_requests);
void sim_app_turn(struct sim_app *a);
void sim_app_drain(struct sim_app *a);
bool sim_app_grows(const struct sim_app *a); /* more is kept for a web server than may be */
unsigned sim_app_busy(const struct sim_app *a); /* requests that it has */
void sim_app_end(struct sim_app *a);
#endif

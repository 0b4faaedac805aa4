/* SPDX-License-Identifier: MIT */
/* Peers that keep no rule, one mistake each: applications that a web server has a wrong hint for or that break the protocol, and web
 * servers that break it. What they do is decided by the seed. */
#ifndef WEIR_SIM_HOSTILE_H
#define WEIR_SIM_HOSTILE_H

#include "sim_loop.h"

enum sim_bad_app {
    /* wrong hints */
    APP_SILENT, APP_CLOSES, APP_UNAWARE, APP_UNKNOWN_TYPE, APP_BAD_VALUE, APP_OTHER_RECORD, APP_GARBAGE, APP_LATE, APP_TWICE,
    /* it knows the extension, and breaks it */
    APP_OVERRUN, APP_CREDIT_FLOOD, APP_SHORT_CREDIT, APP_HUGE_CREDIT, APP_STRAY_FLOOD, APP_END_TWICE, APP_OUTPUT_AFTER_END, APP_WRONG_TYPE,
    APP_ODD_CREDIT, APP_REFUSES, APP_FINAL_AT_ONCE, APP_TAKES_NONE, APP_READS_NOTHING, APP_FLIPS_BYTES, APP_DIES, APP_KINDS
};
extern const char *const sim_bad_app_names[APP_KINDS];
struct sim_bad_app_peer;
struct sim_bad_app_peer *sim_bad_app_new(struct sim *net, const char *name, enum sim_bad_app kind);
void sim_bad_app_turn(struct sim_bad_app_peer *p);
bool sim_bad_app_serves(enum sim_bad_app kind);  /* in spite of it each request is answered */
bool sim_bad_app_denies(enum sim_bad_app kind);  /* the hint is wrong: the web server has to drop it */
bool sim_bad_app_done(const struct sim_bad_app_peer *p); /* its mistake was made at least once */
void sim_bad_app_free(struct sim_bad_app_peer *p);

enum sim_bad_server {
    SERVER_GARBAGE, SERVER_FLIPS_BYTES, SERVER_OVERRUN, SERVER_CREDIT_FLOOD, SERVER_BEGINS_TWICE, SERVER_TOO_MANY, SERVER_BODY_AFTER_END,
    SERVER_BODY_BEFORE_PARAMS, SERVER_MIXES, SERVER_OTHER_VERSION, SERVER_SHORT_CREDIT, SERVER_HUGE_CREDIT, SERVER_STRAY_FLOOD, SERVER_BEGINS_0,
    SERVER_ABORT_LOOP, SERVER_VALUES_FLOOD, SERVER_ENDLESS_PARAMS, SERVER_HALF_A_RECORD, SERVER_READS_NOTHING, SERVER_KINDS
};
extern const char *const sim_bad_server_names[SERVER_KINDS];
struct sim_bad_server_peer;
/* task: what QUERY_STRING its requests have. */
struct sim_bad_server_peer *sim_bad_server_new(struct sim *net, const char *name, enum sim_bad_server kind, const char *task);
void sim_bad_server_turn(struct sim_bad_server_peer *p);
bool sim_bad_server_must_close(enum sim_bad_server kind); /* the app has to */
bool sim_bad_server_closed(const struct sim_bad_server_peer *p); /* the app did */
void sim_bad_server_leave(struct sim_bad_server_peer *p);
void sim_bad_server_free(struct sim_bad_server_peer *p);
#endif

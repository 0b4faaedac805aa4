/* SPDX-License-Identifier: MIT */
/* explain: what the gateway would do with a request, found out by the gateway's own code without serving anybody. One exchange runs
 * as it would, but no application is asked: what it would be sent is noted instead. This header is all that the command line needs. */
#ifndef WEIR_GATEWAY_EXPLAIN_H
#define WEIR_GATEWAY_EXPLAIN_H

#include "config/config.h"

struct weir_explain_options {
    struct weir_config *conf;
    const char *method, *url;    /* url: http://host[:port]/path, or host/path */
    const struct weir_pair *headers;
    size_t header_count;
    const char *from;            /* the client's address; NULL: 127.0.0.1 is assumed */
};

enum weir_explain_kind { WEIR_EXPLAIN_ROUTE, WEIR_EXPLAIN_GUARD, WEIR_EXPLAIN_FILE };
struct weir_explain_step {       /* in the order in which they were taken */
    enum weir_explain_kind kind;
    bool good;                   /* it matched; it lets pass; it is there */
    const char *what;            /* patterns of a route; a guard's name; a path below the root */
    const char *why;
    struct weir_config_place place; /* line 0: none */
};
struct weir_explain_param {
    struct weir_str name, value;
    bool known;                  /* false: the value is a guess, a real client decides */
};
enum weir_explain_role { WEIR_EXPLAIN_AUTHORIZER, WEIR_EXPLAIN_RESPONDER, WEIR_EXPLAIN_FILTER };
struct weir_explain_asked {      /* an application that would be sent the request */
    enum weir_explain_role role;
    const struct weir_conf_pool *pool;
    struct weir_explain_param *params;
    size_t param_count;
};
#define WEIR_EXPLAIN_ASKED_MAX 8
struct weir_explanation {        /* strings live as long as it and the configuration do */
    struct weir_arena arena;
    const struct weir_conf_listener *listener; /* NULL: nothing listens there */
    const struct weir_conf_site *site;         /* NULL: none is found */
    const char *site_why;
    const struct weir_conf_route *route;       /* the last one that was chosen; NULL: it did not come so far */
    const char *root_problem;    /* why its root cannot be looked into; NULL: it can, or it has none */
    struct weir_explain_step *steps;
    size_t step_count, step_cap;
    struct weir_explain_asked asked[WEIR_EXPLAIN_ASKED_MAX];
    size_t asked_count;
    int status;                  /* of the answer; 0: none would come, or the application gives it */
    const char *why;             /* NULL: there is nothing to say */
    struct weir_pair *fields;    /* of an answer that is the gateway's own */
    size_t field_count;
    bool served;                 /* it is answered as the site means it, and not refused */
};
/* WEIR_OK, WEIR_INVALID: url, method, header or address cannot be used (*problem), WEIR_NOMEM, WEIR_SYSTEM. out is freed also on failure. */
WEIR_CHECK int weir_gateway_explain(const struct weir_explain_options *o, struct weir_explanation *out, const char **problem);
void weir_explanation_free(struct weir_explanation *e);
#endif

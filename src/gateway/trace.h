/* SPDX-License-Identifier: MIT */
/* trace: notes of the way of a request, for `weir explain`. Exchanges and lookups of a gateway that serves have none (NULL), and whoever
 * decides something about a request notes it only `if (ex->trace)`. */
#ifndef WEIR_GATEWAY_TRACE_H
#define WEIR_GATEWAY_TRACE_H

#include "gateway/explain.h"

struct exchange;
struct lookup;
struct snapshot_pool;
struct weir_cgi_request;
struct trace {
    struct weir_explanation *to;
    struct weir_str server_addr; /* where the client would have connected to */
    bool from_known, local_known;
    bool https;                  /* as if by TLS, which nobody spoke */
    bool nomem;
};
/* One step; why by a format. */
void trace_step(struct trace *t, enum weir_explain_kind kind, bool good, struct weir_str what, const struct weir_config_place *place,
                const char *fmt, ...) WEIR_PRINTF(6, 7);
/* A guard let the request pass, or not: trace_guard(ex->trace, passed, "allow", "10.0.0.1 is in 10.0.0.0/8"). */
void trace_guard(struct trace *t, bool passed, const char *name, const char *fmt, ...) WEIR_PRINTF(4, 5);
void trace_site(const struct exchange *ex);   /* listener and site are known */
void trace_route(const struct exchange *ex);  /* the route is chosen: which ones were tried before */
/* A file was looked at: known: it is a regular file; else a folder, or not there by error. */
void trace_file(struct trace *t, struct weir_str path, bool known, bool is_dir, int error);
/* An application would be sent these parameters now. */
void trace_asked(const struct exchange *ex, const struct snapshot_pool *pool, enum weir_explain_role role, const struct weir_cgi_request *r,
                 const struct weir_pair *params, size_t count);
size_t trace_tls_params(const struct exchange *ex, struct weir_pair out[static 8]); /* those that TLS gives, with values that are guesses */
void trace_answer(const struct exchange *ex, int status, const char *why); /* the gateway answers by itself */
#endif

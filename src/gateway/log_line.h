/* SPDX-License-Identifier: MIT */
/* How lines of logs look. What a stranger sent is escaped, and no line is longer than its room. */
#ifndef WEIR_GATEWAY_LOG_LINE_H
#define WEIR_GATEWAY_LOG_LINE_H

#include "base/base.h"

#define LOG_LINE_MAX 4096
#define LOG_JSON_MAX 13312 /* a line of JSON, or of the access log: each byte of a stranger may take 6 */

struct worker;
/* Each appends to `to`, not beyond `end`, and returns the new end. */
char *log_text(char *to, const char *end, struct weir_str s);
char *log_escaped(char *to, const char *end, struct weir_str s); /* control bytes, quotes, backslashes and bytes above 0x7e as \xHH */
char *log_json_text(char *to, const char *end, struct weir_str name, struct weir_str value); /* name: up to the quote that begins the value */
struct weir_str log_utc_time(struct worker *w);

struct access_line {
    struct weir_str peer, method, target, protocol; /* method empty: nothing of the request is known */
    struct weir_str referer, agent, pool, host, site, why, user, id, endpoint;
    int status;                                     /* 0: the app's, which we did not look at */
    uint32_t tries;
    uint64_t came, sent, us;                        /* bytes of the request's body, and of the answer's; time in all */
    int64_t queue_us, first_us;                     /* of an app: until it had it; until its first byte came; -1: there was none */
};
/* As weir { log } says, into LOG_JSON_MAX bytes: the length. */
size_t log_access_line(struct worker *w, char *to, const struct access_line *l);
#endif

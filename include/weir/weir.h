/* SPDX-License-Identifier: MIT */
/* What every public header of libweir shares: status codes, byte strings, roles, streams.
 * C99 and C++11 clean. Nothing here needs more than libc. */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define WEIR_API __attribute__((visibility("default")))
#define WEIR_CHECK __attribute__((warn_unused_result))
#define WEIR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define WEIR_API
#define WEIR_CHECK
#define WEIR_PRINTF(f, a)
#endif

#define WEIR_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* Every call that can fail returns one of these (negative) or a value >= 0. Outputs are set on success only. */
enum weir_status {
    WEIR_OK = 0,
    WEIR_AGAIN = -1,    /* nothing now; more input, room or time is needed */
    WEIR_CLOSED = -2,   /* the peer closed */
    WEIR_ABORTED = -3,  /* the request was given up by the other side */
    WEIR_LIMIT = -4,    /* a configured limit was reached */
    WEIR_NOMEM = -5,    /* memory was refused */
    WEIR_INVALID = -6,  /* an argument cannot be used */
    WEIR_PROTOCOL = -7, /* the peer broke the protocol */
    WEIR_TIMEOUT = -8,
    WEIR_REFUSED = -9, /* refused before any code ran */
    WEIR_SYSTEM = -10  /* a system call failed: errno tells */
};

/* A short text for a status, never NULL. Any thread. */
WEIR_API const char *weir_strerror(int status);

/* Bytes, not NUL-terminated unless said. */
struct weir_str {
    const char *ptr;
    size_t len;
};

struct weir_pair {
    struct weir_str name, value;
};

/* Roles (FC1-8-a). */
enum weir_role { WEIR_RESPONDER = 1, WEIR_AUTHORIZER = 2, WEIR_FILTER = 3 };

/* The streams of a request, numbered as their record types (FC1-8-a). */
enum weir_stream { WEIR_STDIN = 5, WEIR_STDOUT = 6, WEIR_STDERR = 7, WEIR_DATA = 8 };

#ifdef __cplusplus
}
#endif
#endif

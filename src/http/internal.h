/* SPDX-License-Identifier: MIT */
/* http: what its files share. */
#ifndef WEIR_HTTP_INTERNAL_H
#define WEIR_HTTP_INTERNAL_H

#include "http/http.h"

#define HTTP_METHOD_MAX 32

/* Fields of an answer may be sent: names are tokens, no control bytes, no framing. Adds their bytes to *len. */
WEIR_CHECK int http_check_fields(const struct weir_pair *f, size_t count, size_t *len);
#endif

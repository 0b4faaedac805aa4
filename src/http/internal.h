/* SPDX-License-Identifier: MIT */
/* http: what its files share. */
#ifndef WEIR_HTTP_INTERNAL_H
#define WEIR_HTTP_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "http/http.h"

#define HTTP_METHOD_MAX 32

/* Fields of an answer may be sent: names are tokens, no control bytes, no framing. Adds their bytes to *len. */
WEIR_CHECK int http_check_fields(const struct weir_pair *f, size_t count, size_t *len);
/* m NULL: malloc. */
void *http2_memory_zeroed(struct weir_http2_memory *m, size_t size);
void http2_memory_give(struct weir_http2_memory *m, void *bytes);
struct weir_buf http2_memory_buf(struct weir_http2_memory *m); /* empty, perhaps with memory */
void http2_memory_give_buf(struct weir_http2_memory *m, struct weir_buf *b);
nghttp2_mem http2_memory_functions(struct weir_http2_memory *m);
#endif

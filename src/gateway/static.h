/* SPDX-License-Identifier: MIT */
/* static: the part of file serving that needs no file: types, names that are never served, validators and conditions. */
#ifndef WEIR_GATEWAY_STATIC_H
#define WEIR_GATEWAY_STATIC_H

#include <sys/stat.h>

#include "base/base.h"

#define WEIR_STATIC_ETAG_MAX 64
/* Media type by the name's ending; never empty. */
struct weir_str weir_static_type(struct weir_str path);
/* Names that are never given out: beginning with a dot (but /.well-known/), programs, backups. path is decoded. */
bool weir_static_forbidden(struct weir_str path);
/* A name in it begins with a dot (but /.well-known/). */
bool weir_static_hidden(struct weir_str path);
void weir_static_etag(const struct stat *st, char out[static WEIR_STATIC_ETAG_MAX]);
/* 200, 304 or 412 for a GET or HEAD [RFC 9110 13.2.2]. */
int weir_static_condition(const struct weir_pair *headers, size_t count, const struct stat *st, const char *etag);
#endif

/* SPDX-License-Identifier: MIT */
/* tls: what its files share. */
#ifndef WEIR_TLS_INTERNAL_H
#define WEIR_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "tls/tls.h"

struct weir_tls_cert {
    _Atomic unsigned refs;
    X509 *leaf;
    STACK_OF(X509) *chain; /* behind the leaf */
    EVP_PKEY *key;
    unsigned char *staple;
    size_t staple_len;
    int64_t expires;
};
struct weir_tls_trust {
    _Atomic unsigned refs;
    X509_STORE *store;
    STACK_OF(X509_NAME) *names; /* told to clients */
    unsigned char digest[32];   /* of the PEM */
};
/* what, and OpenSSL's reason behind it. */
void tls_why(char why[static WEIR_TLS_WHY_MAX], const char *what);
#endif

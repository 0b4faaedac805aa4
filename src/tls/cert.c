/* SPDX-License-Identifier: MIT */
/* Certificates and authorities from PEM. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tls/internal.h"

void tls_why(char why[static WEIR_TLS_WHY_MAX], const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    snprintf(why, WEIR_TLS_WHY_MAX, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
    ERR_clear_error();
}

static BIO *bytes(struct weir_str s)
{
    return s.len && s.len < INT32_MAX ? BIO_new_mem_buf(s.ptr, (int)s.len) : NULL;
}

/* A key with a password cannot be used: nobody is there to ask. */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

static int read_chain(struct weir_tls_cert *c, struct weir_str pem)
{
    BIO *b = bytes(pem);
    X509 *x;
    c->chain = sk_X509_new_null();
    while (b && c->chain && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)) != NULL) {
        if (!c->leaf) {
            c->leaf = x;
        } else if (!sk_X509_push(c->chain, x)) {
            X509_free(x);
            break;
        }
    }
    BIO_free(b);
    if (!c->leaf) return WEIR_INVALID;
    ERR_clear_error(); /* the end of the text */
    return WEIR_OK;
}

static int read_key(struct weir_tls_cert *c, struct weir_str pem)
{
    BIO *b = bytes(pem);
    c->key = b ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;
    BIO_free(b);
    return c->key ? WEIR_OK : WEIR_INVALID;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

int weir_tls_cert_new(struct weir_tls_cert **out, struct weir_str chain, struct weir_str key, struct weir_str staple, char why[static WEIR_TLS_WHY_MAX])
{
    struct weir_tls_cert *c = calloc(1, sizeof *c);
    ERR_clear_error();
    if (!c) {
        snprintf(why, WEIR_TLS_WHY_MAX, "out of memory");
        return WEIR_NOMEM;
    }
    atomic_init(&c->refs, 1);
    int status = WEIR_INVALID;
    if (read_chain(c, chain) < 0) tls_why(why, "the certificate is no PEM");
    else if (read_key(c, key) < 0) tls_why(why, "the key cannot be used (PEM, without a password)");
    else if (!X509_check_private_key(c->leaf, c->key)) tls_why(why, "the key is not the certificate's");
    else status = WEIR_OK;
    if (status == WEIR_OK && staple.len) {
        c->staple = malloc(staple.len);
        if (c->staple) memcpy(c->staple, staple.ptr, staple.len);
        c->staple_len = c->staple ? staple.len : 0;
    }
    if (status < 0) {
        weir_tls_cert_drop(c);
        return status;
    }
    c->expires = seconds_of(X509_get0_notAfter(c->leaf));
    *out = c;
    return WEIR_OK;
}

struct weir_tls_cert *weir_tls_cert_hold(struct weir_tls_cert *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void weir_tls_cert_drop(struct weir_tls_cert *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    X509_free(c->leaf);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    free(c->staple);
    free(c);
}

bool weir_tls_cert_covers(const struct weir_tls_cert *c, struct weir_str host)
{
    return host.len && X509_check_host(c->leaf, host.ptr, host.len, 0, NULL) == 1;
}

int64_t weir_tls_cert_expires(const struct weir_tls_cert *c)
{
    return c->expires;
}

/* ---- authorities ---- */

int weir_tls_trust_new(struct weir_tls_trust **out, struct weir_str pem, char why[static WEIR_TLS_WHY_MAX])
{
    struct weir_tls_trust *t = calloc(1, sizeof *t);
    BIO *b = bytes(pem);
    X509 *x;
    size_t count = 0;
    ERR_clear_error();
    if (t) {
        atomic_init(&t->refs, 1);
        t->store = X509_STORE_new();
        t->names = sk_X509_NAME_new_null();
    }
    while (b && t && t->store && t->names && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)) != NULL) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(x));
        if (X509_STORE_add_cert(t->store, x) && name && sk_X509_NAME_push(t->names, name)) count++;
        else X509_NAME_free(name);
        X509_free(x);
    }
    BIO_free(b);
    if (count && !EVP_Digest(pem.ptr, pem.len, t->digest, NULL, EVP_sha256(), NULL)) count = 0;
    if (count == 0) {
        tls_why(why, "there is no certificate in it");
        weir_tls_trust_drop(t);
        return WEIR_INVALID;
    }
    ERR_clear_error();
    *out = t;
    return WEIR_OK;
}

struct weir_tls_trust *weir_tls_trust_hold(struct weir_tls_trust *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void weir_tls_trust_drop(struct weir_tls_trust *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    X509_STORE_free(t->store);
    sk_X509_NAME_pop_free(t->names, X509_NAME_free);
    free(t);
}

/* SPDX-License-Identifier: MIT */
/* tls: bytes <-> bytes on OpenSSL 3, the server's side of TLS 1.2 and 1.3. No I/O. Nothing calls up: a connection tells by an
 * event whom the client asks for, and goes on when a certificate was chosen. */
#ifndef WEIR_TLS_H
#define WEIR_TLS_H

#include "base/base.h"

#define WEIR_TLS_WHY_MAX 200

/* What all connections of a process share: versions, ciphers, the keys of session tickets. Any thread may use it. */
struct weir_tls_context;
WEIR_CHECK int weir_tls_context_new(struct weir_tls_context **out);
void weir_tls_context_free(struct weir_tls_context *c);

/* A certificate with its chain and key; counted, never changed, any thread. */
struct weir_tls_cert;
/* chain, key: PEM; the key without a password. staple: an OCSP response (DER), or empty. WEIR_INVALID: *why tells what is wrong. */
WEIR_CHECK int weir_tls_cert_new(struct weir_tls_cert **out, struct weir_str chain, struct weir_str key, struct weir_str staple,
                                 char why[static WEIR_TLS_WHY_MAX]);
struct weir_tls_cert *weir_tls_cert_hold(struct weir_tls_cert *c);
void weir_tls_cert_drop(struct weir_tls_cert *c);
bool weir_tls_cert_covers(const struct weir_tls_cert *c, struct weir_str host); /* it is for this name */
int64_t weir_tls_cert_expires(const struct weir_tls_cert *c);                   /* seconds since 1970 */

/* The authorities whose client certificates are good; counted. */
struct weir_tls_trust;
WEIR_CHECK int weir_tls_trust_new(struct weir_tls_trust **out, struct weir_str pem, char why[static WEIR_TLS_WHY_MAX]);
struct weir_tls_trust *weir_tls_trust_hold(struct weir_tls_trust *t);
void weir_tls_trust_drop(struct weir_tls_trust *t);

/* ---- one connection ---- */
struct weir_tls;
WEIR_CHECK int weir_tls_new(struct weir_tls **out, struct weir_tls_context *c);
void weir_tls_free(struct weir_tls *t);

/* Lends bytes from the client; what read() did not use has to be kept before the buffer is used again. */
void weir_tls_feed(struct weir_tls *t, const void *p, size_t len);
WEIR_CHECK int weir_tls_keep(struct weir_tls *t);
enum weir_tls_event {
    WEIR_TLS_HELLO = 1, /* the client tells whom it wants: choose, or refuse; until then read() is WEIR_AGAIN */
    WEIR_TLS_READY      /* the handshake is done */
};
/* Content: bytes > 0. 0: *ev came. WEIR_AGAIN: more has to be fed. WEIR_CLOSED: the client sends no more. WEIR_PROTOCOL: it is
 * no TLS, or was refused: an alert may be in out(). Output of the handshake may come with each of them. */
int64_t weir_tls_read(struct weir_tls *t, void *buf, size_t len, enum weir_tls_event *ev);
/* Behind READY: encrypts into out(): how many bytes were taken (all, but for memory), WEIR_NOMEM. */
int64_t weir_tls_write(struct weir_tls *t, const void *p, size_t len);
struct weir_buf *weir_tls_out(struct weir_tls *t); /* for the client: send and consume */
void weir_tls_close(struct weir_tls *t);           /* close_notify into out() */

struct weir_str weir_tls_server_name(const struct weir_tls *t); /* as the client sent it; empty: none. From HELLO on */
/* trust: the client is asked for a certificate of these authorities; NULL: not. */
WEIR_CHECK int weir_tls_choose(struct weir_tls *t, struct weir_tls_cert *cert, const struct weir_tls_trust *trust);
void weir_tls_refuse(struct weir_tls *t); /* nobody of that name is here: the alert unrecognized_name */

/* Behind READY. */
bool weir_tls_is_http2(const struct weir_tls *t);       /* by ALPN */
const char *weir_tls_protocol(const struct weir_tls *t); /* "TLSv1.3" */
const char *weir_tls_cipher(const struct weir_tls *t);
bool weir_tls_resumed(const struct weir_tls *t);
struct weir_tls_client {      /* its certificate; strings in the arena */
    struct weir_str verify;   /* "NONE", "SUCCESS", "FAILED:reason" */
    struct weir_str subject, issuer, serial, fingerprint; /* RFC 2253 names; hexadecimal; SHA-256 in lower case. Empty: none */
};
WEIR_CHECK int weir_tls_client(const struct weir_tls *t, struct weir_arena *a, struct weir_tls_client *out);
#endif

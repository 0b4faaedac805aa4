/* SPDX-License-Identifier: MIT */
/* Connections. OpenSSL reads from what was lent and writes into a buffer, by a BIO of our own, so that an idle connection holds
 * neither. TLS 1.2 with forward secrecy and AEAD, and TLS 1.3; no renegotiation, no compression, no early data. */
#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "tls/internal.h"

#define CIPHERS_12 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define CIPHERS_13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define TICKETS    1
#define LATE_MAX   64 /* handshake messages behind the handshake: of a new key for each some hundred GB, and no more */

struct weir_tls_context {
    SSL_CTX *ctx;
    BIO_METHOD *bio;
};
enum hello { HELLO_WAITED, HELLO_TOLD, HELLO_ANSWERED, HELLO_REFUSED };
struct weir_tls {
    SSL *ssl;
    const char *p, *end;    /* lent */
    struct weir_buf held;   /* kept of what was lent */
    struct weir_buf out;
    struct weir_tls_cert *cert; /* held while the handshake runs: its staple */
    uint8_t hello;
    bool ready, failed, closed;
    uint8_t late;           /* messages of the handshake that came behind it */
};

/* ---- bytes ---- */

static int bio_read(BIO *b, char *to, size_t len, size_t *done)
{
    struct weir_tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t held = weir_buf_len(&t->held), n = held ? held : (size_t)(t->end - t->p);
    if (n > len) n = len;
    if (n == 0) {
        BIO_set_retry_read(b);
        *done = 0;
        return 0;
    }
    memcpy(to, held ? weir_buf_ptr(&t->held) : t->p, n);
    if (held) weir_buf_consume(&t->held, n);
    else t->p += n;
    *done = n;
    return 1;
}

static int bio_write(BIO *b, const char *p, size_t len, size_t *done)
{
    struct weir_tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (weir_buf_append(&t->out, p, len) < 0) return 0;
    *done = len;
    return 1;
}

static long bio_ctrl(BIO *b, int command, long number, void *arg)
{
    (void)b, (void)number, (void)arg;
    return command == BIO_CTRL_FLUSH;
}

/* ---- what all share ---- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    (void)ssl, (void)arg;
    unsigned char *choice;
    if (SSL_select_next_proto(&choice, out_len, ours, sizeof ours - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301 3.2 */
    *out = choice;
    return SSL_TLSEXT_ERR_OK;
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
    struct weir_tls *t = SSL_get_app_data(ssl);
    (void)arg;
    if (t->hello == HELLO_ANSWERED) return SSL_CLIENT_HELLO_SUCCESS;
    if (t->hello != HELLO_REFUSED) return SSL_CLIENT_HELLO_RETRY;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_CLIENT_HELLO_ERROR;
}

static int on_status_request(SSL *ssl, void *arg)
{
    const struct weir_tls *t = SSL_get_app_data(ssl);
    (void)arg;
    if (!t->cert || !t->cert->staple_len) return SSL_TLSEXT_ERR_NOACK;
    unsigned char *copy = OPENSSL_memdup(t->cert->staple, t->cert->staple_len);
    if (!copy || !SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)t->cert->staple_len)) {
        OPENSSL_free(copy);
        return SSL_TLSEXT_ERR_NOACK;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* Each of them costs a derivation of keys, or an alert, and OpenSSL takes them without end. */
static void on_message(int sent, int version, int type, const void *p, size_t len, SSL *ssl, void *arg)
{
    struct weir_tls *t = SSL_get_app_data(ssl);
    (void)version, (void)p, (void)len, (void)arg;
    if (t && t->ready && !sent && type == SSL3_RT_HANDSHAKE && t->late <= LATE_MAX) t->late++;
}

/* Whether a client's certificate is good is told, not enforced here: who serves it decides. */
static int on_verify(int good, X509_STORE_CTX *store)
{
    (void)good, (void)store;
    return 1;
}

static bool set_up(SSL_CTX *ctx)
{
    static const unsigned char id[] = "weir";
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets alone */
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
    SSL_CTX_set_tlsext_status_cb(ctx, on_status_request);
    SSL_CTX_set_msg_callback(ctx, on_message);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) && SSL_CTX_set_cipher_list(ctx, CIPHERS_12) && SSL_CTX_set_ciphersuites(ctx, CIPHERS_13) &&
           SSL_CTX_set_num_tickets(ctx, TICKETS) && SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1);
}

int weir_tls_context_new(struct weir_tls_context **out)
{
    struct weir_tls_context *c = calloc(1, sizeof *c);
    if (!c) return WEIR_NOMEM;
    c->ctx = SSL_CTX_new(TLS_server_method());
    c->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir");
    if (!c->ctx || !c->bio || !set_up(c->ctx)) {
        ERR_clear_error();
        weir_tls_context_free(c);
        return WEIR_NOMEM;
    }
    BIO_meth_set_read_ex(c->bio, bio_read);
    BIO_meth_set_write_ex(c->bio, bio_write);
    BIO_meth_set_ctrl(c->bio, bio_ctrl);
    *out = c;
    return WEIR_OK;
}

void weir_tls_context_free(struct weir_tls_context *c)
{
    if (!c) return;
    SSL_CTX_free(c->ctx);
    BIO_meth_free(c->bio);
    free(c);
}

/* ---- one connection ---- */

int weir_tls_new(struct weir_tls **out, struct weir_tls_context *c)
{
    struct weir_tls *t = calloc(1, sizeof *t);
    if (!t) return WEIR_NOMEM;
    t->ssl = SSL_new(c->ctx);
    BIO *b = BIO_new(c->bio);
    if (!t->ssl || !b || !SSL_set_app_data(t->ssl, t)) {
        BIO_free(b);
        weir_tls_free(t);
        ERR_clear_error();
        return WEIR_NOMEM;
    }
    BIO_set_data(b, t);
    BIO_set_init(b, 1);
    SSL_set_bio(t->ssl, b, b);
    SSL_set_accept_state(t->ssl);
    *out = t;
    return WEIR_OK;
}

void weir_tls_free(struct weir_tls *t)
{
    if (!t) return;
    SSL_free(t->ssl);
    weir_tls_cert_drop(t->cert);
    weir_buf_fini(&t->held);
    weir_buf_fini(&t->out);
    free(t);
}

void weir_tls_feed(struct weir_tls *t, const void *p, size_t len)
{
    t->p = p;
    t->end = t->p + len;
}

int weir_tls_keep(struct weir_tls *t)
{
    size_t n = (size_t)(t->end - t->p);
    int status = n ? weir_buf_append(&t->held, t->p, n) : WEIR_OK;
    t->p = t->end = NULL;
    if (weir_buf_len(&t->held) == 0) weir_buf_fini(&t->held);
    return status;
}

struct weir_buf *weir_tls_out(struct weir_tls *t)
{
    return &t->out;
}

/* SSL_get_error() looks at them. Clearing an empty queue costs more than a look. */
static void forget_errors(void)
{
    if (ERR_peek_error()) ERR_clear_error();
}

/* What SSL_do_handshake or SSL_read did not do. */
static int64_t result(struct weir_tls *t, int returned, enum weir_tls_event *ev)
{
    switch (SSL_get_error(t->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return WEIR_AGAIN;
    case SSL_ERROR_ZERO_RETURN: return WEIR_CLOSED;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
        if (t->hello == HELLO_TOLD) return WEIR_AGAIN;
        t->hello = HELLO_TOLD;
        *ev = WEIR_TLS_HELLO;
        return 0;
    default:
        t->failed = true;
        ERR_clear_error();
        return WEIR_PROTOCOL;
    }
}

int64_t weir_tls_read(struct weir_tls *t, void *buf, size_t len, enum weir_tls_event *ev)
{
    size_t n = 0;
    if (t->failed) return WEIR_PROTOCOL;
    forget_errors();
    if (!t->ready) {
        int status = SSL_do_handshake(t->ssl);
        if (status != 1) return result(t, status, ev);
        t->ready = true;
        weir_tls_cert_drop(t->cert);
        t->cert = NULL;
        *ev = WEIR_TLS_READY;
        return 0;
    }
    if (t->p == t->end && weir_buf_len(&t->held) == 0 && !SSL_has_pending(t->ssl)) return WEIR_AGAIN; /* it would say so, at some length */
    int status = SSL_read_ex(t->ssl, buf, len, &n);
    if (t->late > LATE_MAX) {
        t->failed = true;
        ERR_clear_error();
        return WEIR_PROTOCOL;
    }
    return status == 1 ? (int64_t)n : result(t, status, ev);
}

int64_t weir_tls_write(struct weir_tls *t, const void *p, size_t len)
{
    size_t done = 0, n;
    forget_errors();
    while (done < len && !t->failed && SSL_write_ex(t->ssl, (const char *)p + done, len - done, &n) == 1) done += n;
    if (done == len) return (int64_t)done;
    t->failed = true; /* of a record that was begun */
    ERR_clear_error();
    return WEIR_NOMEM;
}

void weir_tls_close(struct weir_tls *t)
{
    if (!t->ready || t->failed || t->closed) return;
    t->closed = true;
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}

/* ---- whom the client wants ---- */

/* The name of the extension server_name, of its one host_name entry [RFC 6066 3]. */
struct weir_str weir_tls_server_name(const struct weir_tls *t)
{
    const unsigned char *e;
    size_t len;
    if (t->ready) return weir_cstr(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name));
    if (t->hello != HELLO_TOLD || !SSL_client_hello_get0_ext(t->ssl, TLSEXT_TYPE_server_name, &e, &len)) return (struct weir_str){0};
    if (len < 5 || e[2] != TLSEXT_NAMETYPE_host_name) return (struct weir_str){0};
    size_t list = (size_t)e[0] << 8 | e[1], name = (size_t)e[3] << 8 | e[4];
    if (list + 2 != len || name + 5 > len || memchr(e + 5, 0, name)) return (struct weir_str){0};
    return weir_str((const char *)e + 5, name);
}

/* Sessions of one policy are not taken up under another [RFC 8446 8.1]: who has to show a certificate shows it. */
static bool set_trust(struct weir_tls *t, const struct weir_tls_trust *trust)
{
    if (!trust) return true;
    STACK_OF(X509_NAME) *names = SSL_dup_CA_list(trust->names);
    if (!names || !SSL_set1_verify_cert_store(t->ssl, trust->store) || !SSL_set_session_id_context(t->ssl, trust->digest, sizeof trust->digest)) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return false;
    }
    SSL_set_client_CA_list(t->ssl, names);
    SSL_set_verify(t->ssl, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, on_verify);
    return true;
}

int weir_tls_choose(struct weir_tls *t, struct weir_tls_cert *cert, const struct weir_tls_trust *trust)
{
    ERR_clear_error();
    if (SSL_use_cert_and_key(t->ssl, cert->leaf, cert->key, cert->chain, 1) != 1 || !set_trust(t, trust)) {
        ERR_clear_error();
        t->hello = HELLO_REFUSED;
        return WEIR_NOMEM;
    }
    weir_tls_cert_drop(t->cert);
    t->cert = weir_tls_cert_hold(cert);
    t->hello = HELLO_ANSWERED;
    return WEIR_OK;
}

void weir_tls_refuse(struct weir_tls *t)
{
    t->hello = HELLO_REFUSED;
}

/* ---- what came of it ---- */

bool weir_tls_is_http2(const struct weir_tls *t)
{
    const unsigned char *p;
    unsigned len;
    SSL_get0_alpn_selected(t->ssl, &p, &len);
    return len == 2 && memcmp(p, "h2", 2) == 0;
}

const char *weir_tls_protocol(const struct weir_tls *t)
{
    return SSL_get_version(t->ssl);
}

const char *weir_tls_cipher(const struct weir_tls *t)
{
    return SSL_get_cipher_name(t->ssl);
}

bool weir_tls_resumed(const struct weir_tls *t)
{
    return SSL_session_reused(t->ssl);
}

/* ---- the client's certificate ---- */

static struct weir_str name_text(struct weir_arena *a, const X509_NAME *name)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    struct weir_str s = {0};
    if (b && X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        long len = BIO_get_mem_data(b, &p);
        if (len >= 0) s = weir_arena_str(a, weir_str(p, (size_t)len));
    }
    BIO_free(b);
    return s;
}

static struct weir_str hex(struct weir_arena *a, const unsigned char *p, size_t len, const char *digits)
{
    char *to = weir_arena_bytes(a, len * 2 + 1);
    for (size_t i = 0; to && i < len; i++) {
        to[2 * i] = digits[p[i] >> 4];
        to[2 * i + 1] = digits[p[i] & 15];
    }
    return weir_str(to, to ? len * 2 : 0);
}

int weir_tls_client(const struct weir_tls *t, struct weir_arena *a, struct weir_tls_client *out)
{
    X509 *x = SSL_get0_peer_certificate(t->ssl);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    *out = (struct weir_tls_client){.verify = WEIR_STR("NONE")};
    if (!x) return WEIR_OK;
    long verdict = SSL_get_verify_result(t->ssl);
    if (verdict == X509_V_OK) {
        out->verify = WEIR_STR("SUCCESS");
    } else {
        const char *text = X509_verify_cert_error_string(verdict);
        size_t len = strlen(text);
        char *p = weir_arena_bytes(a, len + 8);
        if (!p) return WEIR_NOMEM;
        memcpy(p, "FAILED:", 7);
        memcpy(p + 7, text, len);
        out->verify = weir_str(p, len + 7);
    }
    const ASN1_INTEGER *serial = X509_get0_serialNumber(x);
    out->subject = name_text(a, X509_get_subject_name(x));
    out->issuer = name_text(a, X509_get_issuer_name(x));
    out->serial = hex(a, ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial), "0123456789ABCDEF");
    if (X509_digest(x, EVP_sha256(), digest, &digest_len)) out->fingerprint = hex(a, digest, digest_len, "0123456789abcdef");
    return out->subject.ptr && out->issuer.ptr && out->serial.ptr && out->fingerprint.ptr ? WEIR_OK : WEIR_NOMEM;
}

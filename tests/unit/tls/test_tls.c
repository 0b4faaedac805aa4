/* SPDX-License-Identifier: MIT */
/* tls: a client of OpenSSL at the other end, the bytes split in every way; names, sessions, client certificates; what is no TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls/tls.h"

/* ---- certificates, made here ---- */

struct pem {
    char cert[8192], key[8192];
    X509 *x;
    EVP_PKEY *k;
};

static void text_of(BIO *b, char *out, size_t room)
{
    int n = BIO_read(b, out, (int)room - 1);
    assert_true(n > 0);
    out[n] = 0;
    BIO_free(b);
}

/* issuer NULL: signed by itself. */
static void pem_new(struct pem *p, const char *name, const struct pem *issuer)
{
    char alt[256];
    p->k = EVP_EC_gen("P-256");
    p->x = X509_new();
    assert_true(p->k && p->x);
    X509_set_version(p->x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(p->x), 0x1234);
    X509_gmtime_adj(X509_getm_notBefore(p->x), -60);
    X509_gmtime_adj(X509_getm_notAfter(p->x), 3600);
    X509_set_pubkey(p->x, p->k);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(p->x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(p->x, X509_get_subject_name(issuer ? issuer->x : p->x));
    snprintf(alt, sizeof alt, "DNS:%s,DNS:*.%s", name, name);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
    assert_non_null(e);
    X509_add_ext(p->x, e, -1);
    X509_EXTENSION_free(e);
    e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, issuer ? "CA:FALSE" : "CA:TRUE");
    assert_non_null(e);
    X509_add_ext(p->x, e, -1);
    X509_EXTENSION_free(e);
    assert_true(X509_sign(p->x, issuer ? issuer->k : p->k, EVP_sha256()) > 0);
    BIO *b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, p->x);
    text_of(b, p->cert, sizeof p->cert);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(b, p->k, NULL, NULL, 0, NULL, NULL);
    text_of(b, p->key, sizeof p->key);
}

static void pem_free(struct pem *p)
{
    X509_free(p->x);
    EVP_PKEY_free(p->k);
}

static struct pem a_test, b_test;

static struct weir_tls_cert *cert_of(const struct pem *p, struct weir_str staple)
{
    struct weir_tls_cert *c = NULL;
    char why[WEIR_TLS_WHY_MAX];
    assert_int_equal(weir_tls_cert_new(&c, weir_cstr(p->cert), weir_cstr(p->key), staple, why), WEIR_OK);
    return c;
}

/* ---- a connection of two ends ---- */

struct both {
    SSL_CTX *ctx;
    SSL *client;
    BIO *in, *out; /* of the client */
    struct weir_tls_context *context;
    struct weir_tls *server;
    struct weir_tls_cert *cert;   /* for everybody; NULL: nobody is here */
    struct weir_tls_trust *trust;
    size_t step;
    char name[64], got[200000];
    size_t got_len;
    bool ready, ended, failed;
};

static void both_new(struct both *b, size_t step)
{
    memset(b, 0, sizeof *b);
    b->step = step;
    b->ctx = SSL_CTX_new(TLS_client_method());
    assert_int_equal(weir_tls_context_new(&b->context), WEIR_OK);
}

static void both_begin(struct both *b, const char *name)
{
    b->client = SSL_new(b->ctx);
    b->in = BIO_new(BIO_s_mem());
    b->out = BIO_new(BIO_s_mem());
    SSL_set_bio(b->client, b->in, b->out);
    SSL_set_connect_state(b->client);
    if (name) SSL_ctrl(b->client, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)name);
    assert_int_equal(weir_tls_new(&b->server, b->context), WEIR_OK);
    b->ready = b->ended = b->failed = false;
    b->got_len = 0;
}

static void both_end(struct both *b)
{
    SSL_free(b->client);
    weir_tls_free(b->server);
}

static void both_free(struct both *b)
{
    SSL_CTX_free(b->ctx);
    weir_tls_context_free(b->context);
    weir_tls_cert_drop(b->cert);
    weir_tls_trust_drop(b->trust);
}

static void read_all(struct both *b)
{
    enum weir_tls_event ev;
    char buf[333];
    int64_t n;
    while ((n = weir_tls_read(b->server, buf, sizeof buf, &ev)) >= 0) {
        if (n > 0) {
            assert_true(b->got_len + (size_t)n <= sizeof b->got);
            memcpy(b->got + b->got_len, buf, (size_t)n);
            b->got_len += (size_t)n;
        } else if (ev == WEIR_TLS_READY) {
            assert_false(b->ready);
            b->ready = true;
        } else {
            struct weir_str name = weir_tls_server_name(b->server);
            snprintf(b->name, sizeof b->name, "%.*s", (int)name.len, name.ptr ? name.ptr : "");
            if (!b->cert) weir_tls_refuse(b->server);
            else assert_int_equal(weir_tls_choose(b->server, b->cert, b->trust), WEIR_OK);
        }
    }
    if (n == WEIR_CLOSED) b->ended = true;
    if (n == WEIR_PROTOCOL) b->failed = true;
}

/* Until neither has anything to say. */
static void talk(struct both *b)
{
    for (int idle = 0; idle < 2; idle++) {
        char *p, buf[65536];
        size_t n;
        int got;
        if (!SSL_is_init_finished(b->client)) SSL_do_handshake(b->client);
        long len = BIO_get_mem_data(b->out, &p);
        if (len > 0) idle = 0;
        for (long i = 0; i < len; i += (long)b->step) {
            size_t take = (size_t)(len - i) < b->step ? (size_t)(len - i) : b->step;
            char *exact = malloc(take);
            memcpy(exact, p + i, take);
            weir_tls_feed(b->server, exact, take);
            read_all(b);
            assert_int_equal(weir_tls_keep(b->server), WEIR_OK);
            free(exact);
        }
        BIO_reset(b->out);
        struct weir_buf *out = weir_tls_out(b->server);
        if (weir_buf_len(out)) {
            idle = 0;
            BIO_write(b->in, weir_buf_ptr(out), (int)weir_buf_len(out));
            weir_buf_consume(out, weir_buf_len(out));
        }
        while (SSL_is_init_finished(b->client) && (got = SSL_read(b->client, buf, sizeof buf)) > 0) n = (size_t)got;
        (void)n;
    }
}

/* ---- tests ---- */

static void any_split_gives_the_same_content(void **state)
{
    static const size_t steps[] = {1, 2, 5, 17, 1000, 1u << 20};
    static char big[100000];
    (void)state;
    for (size_t i = 0; i < sizeof big; i++) big[i] = (char)(i * 7 + i / 256);
    for (int version = 0; version < 2; version++)
        for (size_t i = 0; i < WEIR_COUNT(steps); i++) {
            struct both b;
            both_new(&b, steps[i]);
            b.cert = cert_of(&a_test, (struct weir_str){0});
            SSL_CTX_set_max_proto_version(b.ctx, version ? TLS1_3_VERSION : TLS1_2_VERSION);
            both_begin(&b, "www.A.test");
            talk(&b);
            assert_true(b.ready);
            assert_string_equal(b.name, "www.A.test");
            assert_string_equal(weir_tls_protocol(b.server), version ? "TLSv1.3" : "TLSv1.2");
            assert_int_equal(SSL_write(b.client, big, sizeof big), sizeof big);
            talk(&b);
            assert_int_equal(b.got_len, sizeof big);
            assert_memory_equal(b.got, big, sizeof big);
            SSL_shutdown(b.client);
            talk(&b);
            assert_true(b.ended && !b.failed);
            both_end(&b);
            both_free(&b);
        }
}

static void answers_of_any_size_arrive(void **state)
{
    static const size_t sizes[] = {1, 16384, 16385, 200000};
    static char big[200000], back[200000];
    (void)state;
    memset(big, 'x', sizeof big);
    struct both b;
    both_new(&b, 4096);
    b.cert = cert_of(&a_test, (struct weir_str){0});
    both_begin(&b, "a.test");
    talk(&b);
    for (size_t i = 0; i < WEIR_COUNT(sizes); i++) {
        size_t n = 0;
        assert_int_equal(weir_tls_write(b.server, big, sizes[i]), (int64_t)sizes[i]);
        struct weir_buf *out = weir_tls_out(b.server);
        BIO_write(b.in, weir_buf_ptr(out), (int)weir_buf_len(out));
        weir_buf_consume(out, weir_buf_len(out));
        for (int got; (got = SSL_read(b.client, back, sizeof back)) > 0;) n += (size_t)got;
        assert_int_equal(n, sizes[i]);
    }
    weir_tls_close(b.server);
    struct weir_buf *out = weir_tls_out(b.server);
    BIO_write(b.in, weir_buf_ptr(out), (int)weir_buf_len(out));
    assert_int_equal(SSL_get_error(b.client, SSL_read(b.client, back, 1)), SSL_ERROR_ZERO_RETURN);
    both_end(&b);
    both_free(&b);
}

static void the_protocol_is_agreed_by_alpn(void **state)
{
    static const struct {
        const char *offer;
        size_t len;
        bool h2, fails;
    } cases[] = {{"\x02h2\x08http/1.1", 12, true, false}, {"\x08http/1.1\x02h2", 12, true, false}, {"\x08http/1.1", 9, false, false}, {NULL, 0, false, false}, {"\x03" "foo", 4, false, true}};
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(cases); i++) {
        struct both b;
        both_new(&b, 1000);
        b.cert = cert_of(&a_test, (struct weir_str){0});
        if (cases[i].offer) SSL_CTX_set_alpn_protos(b.ctx, (const unsigned char *)cases[i].offer, (unsigned)cases[i].len);
        both_begin(&b, "a.test");
        talk(&b);
        assert_int_equal(b.failed, cases[i].fails);
        if (!b.failed) assert_int_equal(weir_tls_is_http2(b.server), cases[i].h2);
        both_end(&b);
        both_free(&b);
    }
}

static void only_strong_versions_and_ciphers_are_spoken(void **state)
{
    static const char *const weak[] = {"AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"};
    (void)state;
    for (size_t i = 0; i <= WEIR_COUNT(weak); i++) {
        struct both b;
        both_new(&b, 1000);
        b.cert = cert_of(&a_test, (struct weir_str){0});
        SSL_CTX_set_security_level(b.ctx, 0);
        SSL_CTX_set_max_proto_version(b.ctx, i < WEIR_COUNT(weak) ? TLS1_2_VERSION : TLS1_1_VERSION);
        if (i < WEIR_COUNT(weak)) assert_int_equal(SSL_CTX_set_cipher_list(b.ctx, weak[i]), 1);
        both_begin(&b, "a.test");
        talk(&b);
        assert_true(b.failed && !b.ready);
        both_end(&b);
        both_free(&b);
    }
}

static void nobody_of_that_name_is_an_alert(void **state)
{
    struct both b;
    (void)state;
    both_new(&b, 100);
    both_begin(&b, "c.test");
    talk(&b);
    assert_true(b.failed);
    assert_string_equal(b.name, "c.test");
    both_end(&b);
    both_begin(&b, NULL);
    talk(&b);
    assert_true(b.failed);
    assert_string_equal(b.name, "");
    both_end(&b);
    both_free(&b);
}

static SSL_SESSION *kept;
static int keep_session(SSL *s, SSL_SESSION *session)
{
    (void)s;
    SSL_SESSION_free(kept);
    kept = session;
    return 1;
}

static void a_session_is_taken_up_again_and_not_under_another_policy(void **state)
{
    char why[WEIR_TLS_WHY_MAX];
    (void)state;
    for (int version = 0; version < 2; version++) {
        struct both b;
        both_new(&b, 1000);
        b.cert = cert_of(&a_test, (struct weir_str){0});
        SSL_CTX_set_session_cache_mode(b.ctx, SSL_SESS_CACHE_CLIENT);
        SSL_CTX_sess_set_new_cb(b.ctx, keep_session);
        SSL_CTX_set_max_proto_version(b.ctx, version ? TLS1_3_VERSION : TLS1_2_VERSION);
        for (int i = 0; i < 3; i++) {
            if (i == 2) assert_int_equal(weir_tls_trust_new(&b.trust, weir_cstr(b_test.cert), why), WEIR_OK);
            both_begin(&b, "a.test");
            if (kept && i) SSL_set_session(b.client, kept);
            talk(&b);
            if (i < 2) assert_true(b.ready); /* a session of another policy ends the handshake, or a whole one is made */
            if (b.ready) assert_int_equal(weir_tls_resumed(b.server), i == 1);
            SSL_shutdown(b.client);
            both_end(&b);
        }
        SSL_SESSION_free(kept);
        kept = NULL;
        both_free(&b);
    }
}

static void a_client_certificate_is_judged_and_told(void **state)
{
    struct pem ca, alice, other;
    char why[WEIR_TLS_WHY_MAX];
    (void)state;
    pem_new(&ca, "ca", NULL);
    pem_new(&alice, "alice", &ca);
    pem_new(&other, "other", NULL);
    for (int who = 0; who < 3; who++) {
        struct both b;
        struct weir_arena a;
        struct weir_tls_client c;
        weir_arena_init(&a, 0);
        both_new(&b, 1000);
        b.cert = cert_of(&a_test, (struct weir_str){0});
        assert_int_equal(weir_tls_trust_new(&b.trust, weir_cstr(ca.cert), why), WEIR_OK);
        const struct pem *p = who == 1 ? &alice : who == 2 ? &other : NULL;
        if (p) assert_true(SSL_CTX_use_certificate(b.ctx, p->x) == 1 && SSL_CTX_use_PrivateKey(b.ctx, p->k) == 1);
        both_begin(&b, "a.test");
        talk(&b);
        assert_true(b.ready);
        assert_int_equal(weir_tls_client(b.server, &a, &c), WEIR_OK);
        if (who == 0) assert_true(weir_str_eq(c.verify, WEIR_STR("NONE")) && c.subject.len == 0);
        if (who == 1) assert_true(weir_str_eq(c.verify, WEIR_STR("SUCCESS")) && weir_str_eq(c.subject, WEIR_STR("CN=alice")) && weir_str_eq(c.issuer, WEIR_STR("CN=ca")) && weir_str_eq(c.serial, WEIR_STR("1234")) && c.fingerprint.len == 64);
        if (who == 2) assert_true(weir_str_prefix(c.verify, WEIR_STR("FAILED:")) && weir_str_eq(c.subject, WEIR_STR("CN=other")));
        both_end(&b);
        both_free(&b);
        weir_arena_fini(&a);
    }
    pem_free(&ca);
    pem_free(&alice);
    pem_free(&other);
}

static int on_staple(SSL *s, void *arg)
{
    const unsigned char *p;
    long n = SSL_get_tlsext_status_ocsp_resp(s, &p);
    snprintf(arg, 32, "%.*s", n > 0 ? (int)n : 0, n > 0 ? (const char *)p : "");
    return 1;
}

static void a_staple_is_given_to_who_asks(void **state)
{
    struct both b;
    char got[32] = "";
    (void)state;
    both_new(&b, 1000);
    b.cert = cert_of(&a_test, WEIR_STR("response"));
    SSL_CTX_set_tlsext_status_cb(b.ctx, on_staple);
    SSL_CTX_set_tlsext_status_arg(b.ctx, got);
    both_begin(&b, "a.test");
    SSL_set_tlsext_status_type(b.client, TLSEXT_STATUSTYPE_ocsp);
    talk(&b);
    assert_true(b.ready);
    assert_string_equal(got, "response");
    both_end(&b);
    both_free(&b);
}

static void what_is_no_tls_fails_and_fails_again(void **state)
{
    enum weir_tls_event ev;
    char buf[100];
    struct weir_tls_context *c;
    struct weir_tls *t;
    (void)state;
    assert_int_equal(weir_tls_context_new(&c), WEIR_OK);
    assert_int_equal(weir_tls_new(&t, c), WEIR_OK);
    weir_tls_feed(t, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_int_equal(weir_tls_read(t, buf, sizeof buf, &ev), WEIR_PROTOCOL);
    assert_int_equal(weir_tls_read(t, buf, sizeof buf, &ev), WEIR_PROTOCOL);
    weir_tls_close(t);
    weir_tls_free(t);
    weir_tls_context_free(c);
}

static void certificates_that_cannot_be_used_tell_why(void **state)
{
    char why[WEIR_TLS_WHY_MAX];
    struct weir_tls_cert *c = NULL;
    struct weir_tls_trust *t = NULL;
    const struct weir_str none = {0};
    (void)state;
    assert_int_equal(weir_tls_cert_new(&c, WEIR_STR("x"), weir_cstr(a_test.key), none, why), WEIR_INVALID);
    assert_non_null(strstr(why, "the certificate is no PEM"));
    assert_int_equal(weir_tls_cert_new(&c, none, none, none, why), WEIR_INVALID);
    assert_int_equal(weir_tls_cert_new(&c, weir_cstr(a_test.cert), WEIR_STR("x"), none, why), WEIR_INVALID);
    assert_non_null(strstr(why, "the key cannot be used"));
    assert_int_equal(weir_tls_cert_new(&c, weir_cstr(a_test.cert), weir_cstr(b_test.key), none, why), WEIR_INVALID);
    assert_non_null(strstr(why, "the key is not the certificate's"));
    assert_int_equal(weir_tls_trust_new(&t, weir_cstr(a_test.key), why), WEIR_INVALID);
    assert_null(c);
    c = cert_of(&a_test, none);
    assert_true(weir_tls_cert_covers(c, WEIR_STR("a.test")) && weir_tls_cert_covers(c, WEIR_STR("x.a.test")) && !weir_tls_cert_covers(c, WEIR_STR("b.test")) && !weir_tls_cert_covers(c, none));
    assert_true(weir_tls_cert_expires(c) > 1700000000);
    weir_tls_cert_drop(c);
}

static int set_up(void **state)
{
    (void)state;
    pem_new(&a_test, "a.test", NULL);
    pem_new(&b_test, "b.test", NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pem_free(&a_test);
    pem_free(&b_test);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same_content),
        cmocka_unit_test(answers_of_any_size_arrive),
        cmocka_unit_test(the_protocol_is_agreed_by_alpn),
        cmocka_unit_test(only_strong_versions_and_ciphers_are_spoken),
        cmocka_unit_test(nobody_of_that_name_is_an_alert),
        cmocka_unit_test(a_session_is_taken_up_again_and_not_under_another_policy),
        cmocka_unit_test(a_client_certificate_is_judged_and_told),
        cmocka_unit_test(a_staple_is_given_to_who_asks),
        cmocka_unit_test(what_is_no_tls_fails_and_fails_again),
        cmocka_unit_test(certificates_that_cannot_be_used_tell_why),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

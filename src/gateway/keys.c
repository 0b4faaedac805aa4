/* SPDX-License-Identifier: MIT */
/* Certificates and client authorities that sites name, by their paths: a ring, immutable and counted; each thread holds the current
 * one. Control sends the files' bytes when it read them, and again when they changed; a gateway without control reads them itself.
 * What cannot be used leaves the old one in use. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "link/link.h"

#define MEMFD_MAX (1u << 30)

struct entry {
    uint64_t name, bytes;         /* hashes: of its paths, of what is in its files */
    struct weir_tls_cert *cert;   /* one of them; NULL both: it cannot be used */
    struct weir_tls_trust *trust;
};
struct keyring {
    _Atomic unsigned refs;
    size_t count;
    struct entry list[]; /* sorted by name */
};

static uint64_t name_of(uint32_t kind, struct weir_str path, struct weir_str key)
{
    return weir_hash(path) * 3 + weir_hash(key) * 7 + kind;
}

uint64_t keys_name(const struct weir_conf_key *k)
{
    return name_of(k->kind, weir_cstr(k->path), weir_cstr(k->key));
}

static const struct entry *find(const struct keyring *r, uint64_t name)
{
    size_t low = 0, high = r ? r->count : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (r->list[mid].name == name) return &r->list[mid];
        if (r->list[mid].name < name) low = mid + 1;
        else high = mid;
    }
    return NULL;
}

struct weir_tls_cert *keys_cert(const struct keyring *r, const struct weir_conf_key *k)
{
    const struct entry *e = find(r, keys_name(k));
    return e ? e->cert : NULL;
}

struct weir_tls_trust *keys_trust(const struct keyring *r, const struct weir_conf_key *k)
{
    const struct entry *e = find(r, keys_name(k));
    return e ? e->trust : NULL;
}

void keys_drop(struct keyring *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < r->count; i++) {
        weir_tls_cert_drop(r->list[i].cert);
        weir_tls_trust_drop(r->list[i].trust);
    }
    free(r);
}

/* What the files say, or what they said before. */
static void make(struct gateway *gw, struct entry *e, const struct weir_link_key *k)
{
    char why[WEIR_TLS_WHY_MAX];
    const struct entry *was = find(gw->keys, name_of(k->kind, k->path, k->key));
    bool pair = k->kind == WEIR_KEY_PAIR;
    *e = (struct entry){.name = name_of(k->kind, k->path, k->key)};
    for (int i = 0; i < WEIR_LINK_KEY_FILES; i++) e->bytes = weir_hash_u64(e->bytes) + (k->files[i].len ? weir_hash(k->files[i]) : 0);
    bool same = was && was->bytes == e->bytes;
    if (!same && k->files[0].len) {
        int status = pair ? weir_tls_cert_new(&e->cert, k->files[0], k->files[1], k->files[2], why) : weir_tls_trust_new(&e->trust, k->files[0], why);
        if (status == WEIR_OK) return;
        bool stays = was && (was->cert || was->trust);
        gateway_say(gw, "%.*s: %s%s", (int)k->path.len, k->path.ptr, why, stays ? ": the old one stays in use" : ": handshakes that need it fail");
    }
    if (was && was->cert) e->cert = weir_tls_cert_hold(was->cert);
    if (was && was->trust) e->trust = weir_tls_trust_hold(was->trust);
}

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->name > y->name) - (x->name < y->name);
}

static int keyring_new(struct gateway *gw, struct keyring **out, const struct weir_link_key *list, size_t count)
{
    struct keyring *r = calloc(1, sizeof *r + count * sizeof *r->list);
    if (!r) return WEIR_NOMEM;
    atomic_init(&r->refs, 1);
    r->count = count;
    for (size_t i = 0; i < count; i++) make(gw, &r->list[i], &list[i]);
    if (count) qsort(r->list, count, sizeof *r->list, compare);
    *out = r;
    return WEIR_OK;
}

static void publish(struct gateway *gw, struct keyring *r)
{
    pthread_mutex_lock(&gw->lock);
    struct keyring *old = gw->keys;
    gw->keys = r;
    pthread_mutex_unlock(&gw->lock);
    keys_drop(old);
    worker_wake_all(gw);
}

void worker_take_keys(struct worker *w)
{
    struct gateway *gw = w->gw;
    pthread_mutex_lock(&gw->lock);
    struct keyring *r = gw->keys, *old = NULL;
    if (r != w->keys) {
        if (r) atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
        old = w->keys;
        w->keys = r;
    }
    pthread_mutex_unlock(&gw->lock);
    keys_drop(old);
}

/* ---- from control ---- */

void gateway_keys(struct gateway *gw, int fd)
{
    struct weir_arena a;
    struct weir_link_key *list;
    struct keyring *r = NULL;
    char *bytes = NULL;
    size_t len = 0, count;
    weir_arena_init(&a, 0);
    int status = weir_link_memfd_read(fd, MEMFD_MAX, &bytes, &len);
    if (status == WEIR_OK) status = weir_link_keys_decode(bytes, len, &a, &list, &count);
    if (status == WEIR_OK) status = keyring_new(gw, &r, list, count);
    if (status == WEIR_OK) publish(gw, r);
    else gateway_say(gw, "the certificates that control sent cannot be used: the old ones stay in use");
    if (bytes) explicit_bzero(bytes, len);
    free(bytes);
    weir_arena_fini(&a);
}

/* ---- without control ---- */

/* All of a file, in the arena; ptr NULL: errno. */
static struct weir_str read_file(struct weir_arena *a, const char *path)
{
    struct stat st;
    struct weir_str s = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return s;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)WEIR_LINK_KEY_MAX) {
        errno = EINVAL;
    } else {
        char *p = weir_arena_bytes(a, (size_t)st.st_size + 1);
        ssize_t n = p ? pread(fd, p, (size_t)st.st_size, 0) : -1;
        if (n >= 0) s = weir_str(p, (size_t)n);
    }
    close(fd);
    return s;
}

static void read_key(struct gateway *gw, struct weir_arena *a, const struct weir_conf_key *k, struct weir_link_key *out)
{
    char files[2][WEIR_CONFIG_KEY_FILES][4096];
    size_t sets = weir_config_key_files(k, files);
    *out = (struct weir_link_key){.kind = k->kind, .path = weir_cstr(k->path), .key = weir_cstr(k->key)};
    for (size_t i = 0; i < sets && !out->files[0].ptr; i++) {
        for (int f = 0; f < WEIR_CONFIG_KEY_FILES; f++) {
            if (!files[i][f][0]) continue;
            out->files[f] = read_file(a, files[i][f]);
            if (out->files[f].ptr || f == 2) continue;
            bool other = errno == ENOENT || errno == ENOTDIR;
            if (!other || i + 1 == sets)
                gateway_say(gw, "%s:%u:%u: %s: %s", k->place.file, k->place.line, k->place.column, files[i][f], strerror(errno));
            out->files[0] = out->files[1] = (struct weir_str){0};
            break;
        }
    }
}

void gateway_read_keys(struct gateway *gw, const struct weir_config *conf)
{
    struct weir_arena a;
    struct keyring *r = NULL;
    weir_arena_init(&a, 0);
    struct weir_link_key *list = weir_arena_alloc(&a, (conf->key_count + 1) * sizeof *list);
    for (size_t i = 0; list && i < conf->key_count; i++) read_key(gw, &a, &conf->keys[i], &list[i]);
    if (list && keyring_new(gw, &r, list, conf->key_count) == WEIR_OK) publish(gw, r);
    weir_arena_fini(&a);
}

/* SPDX-License-Identifier: MIT */
/* Certificates with their keys, and authorities of clients: the root part reads their files, the gateway understands them; here is
 * who needs which, and what was in them last. They are read again now and then, so that a renewed certificate is used without an
 * order. Only bytes pass: nothing of them is parsed here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/internal.h"

#define AGAIN_MS   5000 /* between two looks for changes, */
#define AGAIN_MOST 200  /* at so many of them: the others' turn comes with the next look */
#define BYTES_MAX  ((size_t)ROOT_OPEN_FILES * (ROOT_OPEN_MAX + 4))

struct key {
    struct weir_conf_key conf; /* its texts are our own */
    uint64_t id;
    char *bytes;               /* as the root part gave them: lengths, then files; NULL: they cannot be read */
    size_t len;
    int told;                  /* the trouble that was told of last */
    bool asked, answered;      /* for the first time */
    bool wanted;
};

static struct key *find(const struct control *c, const struct weir_conf_key *k)
{
    for (size_t i = 0; i < c->keys.count; i++) {
        const struct weir_conf_key *o = &c->keys.list[i].conf;
        if (o->hash == k->hash && o->kind == k->kind && strcmp(o->path, k->path) == 0 && strcmp(o->key ? o->key : "", k->key ? k->key : "") == 0) return &c->keys.list[i];
    }
    return NULL;
}

static void drop(struct key *k)
{
    free((void *)(uintptr_t)k->conf.path);
    free((void *)(uintptr_t)k->conf.key);
    free((void *)(uintptr_t)k->conf.place.file);
    if (k->bytes) explicit_bzero(k->bytes, k->len);
    free(k->bytes);
}

static struct key *add(struct control *c, const struct weir_conf_key *conf)
{
    struct key *grown = realloc(c->keys.list, (c->keys.count + 1) * sizeof *grown);
    if (!grown) return NULL;
    c->keys.list = grown;
    struct key k = {.conf = *conf, .id = ++c->keys.next_id};
    k.conf.path = strdup(conf->path);
    k.conf.key = conf->key ? strdup(conf->key) : NULL;
    k.conf.place.file = strdup(conf->place.file);
    if (!k.conf.path || (conf->key && !k.conf.key) || !k.conf.place.file) {
        drop(&k);
        return NULL;
    }
    c->keys.list[c->keys.count] = k;
    return &c->keys.list[c->keys.count++];
}

static void ask(struct control *c, struct key *k)
{
    static char files[2][WEIR_CONFIG_KEY_FILES][4096];
    struct root_msg m = {.kind = ROOT_OPEN, .unit = k->id};
    struct weir_buf names = {0};
    size_t sets = weir_config_key_files(&k->conf, files);
    bool fine = sets > 0;
    for (size_t i = 0; i < sets; i++)
        for (int f = 0; f < WEIR_CONFIG_KEY_FILES && fine; f++) fine = weir_buf_append(&names, files[i][f], strlen(files[i][f]) + 1) == WEIR_OK;
    int fd = fine ? weir_link_memfd("weir-names", weir_buf_ptr(&names), weir_buf_len(&names)) : -1;
    weir_buf_fini(&names);
    k->asked = true;
    if (fd < 0) {
        k->answered = true; /* asked again with the next look */
        return;
    }
    root_send(c, &m, &fd, 1);
    close(fd);
}

void keys_ask(struct control *c, const struct weir_config *conf)
{
    for (size_t i = 0; i < conf->key_count; i++) {
        struct key *k = find(c, &conf->keys[i]);
        if (!k) k = add(c, &conf->keys[i]);
        if (!k) continue; /* its handshakes fail, and the next look tries again */
        if (k->asked && !k->answered) continue;
        k->answered = false; /* a reload reads all of them again */
        ask(c, k);
    }
}

bool keys_answered(const struct control *c, const struct weir_config *conf)
{
    for (size_t i = 0; i < conf->key_count; i++) {
        const struct key *k = find(c, &conf->keys[i]);
        if (k && !k->answered) return false;
    }
    return true;
}

void keys_settle(struct control *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->keys.count; i++) c->keys.list[i].wanted = false;
    for (size_t i = 0; i < c->conf->key_count; i++) {
        struct key *k = find(c, &c->conf->keys[i]);
        if (k) k->wanted = true;
    }
    for (size_t i = 0; i < c->keys.count; i++) {
        if (c->keys.list[i].wanted) c->keys.list[n++] = c->keys.list[i];
        else drop(&c->keys.list[i]);
    }
    c->keys.count = n;
    c->keys.version++;
    c->keys.due_ms = n ? now_ms() + AGAIN_MS : 0;
}

static void trouble(struct key *k, const struct root_msg *m)
{
    if (k->told == m->code) return;
    k->told = m->code;
    char text[sizeof m->text + 1] = "";
    memcpy(text, m->text, sizeof m->text);
    say("%s:%u:%u: %s%s: %s%s", k->conf.place.file, k->conf.place.line, k->conf.place.column, strlen(text) < sizeof m->text - 1 ? "" : "...", text,
        m->code == EBADMSG ? "this is no PEM" : strerror(m->code), k->bytes ? ": what was read before stays in use" : "");
}

void keys_opened(struct control *c, const struct root_msg *m, int fd)
{
    struct key *k = NULL;
    char *bytes = NULL;
    size_t len = 0;
    for (size_t i = 0; i < c->keys.count && !k; i++)
        if (c->keys.list[i].id == m->unit) k = &c->keys.list[i];
    if (k && fd >= 0 && weir_link_memfd_read(fd, BYTES_MAX, &bytes, &len) < 0) bytes = NULL;
    if (fd >= 0) close(fd);
    if (!k) {
        free(bytes);
        return;
    }
    bool first = !k->answered, same = bytes && k->bytes && len == k->len && memcmp(bytes, k->bytes, len) == 0;
    k->answered = true;
    if (m->code) trouble(k, m);
    if (!bytes || same) {
        if (bytes) k->told = 0;
        free(bytes);
    } else {
        if (k->bytes) explicit_bzero(k->bytes, k->len);
        free(k->bytes);
        k->bytes = bytes;
        k->len = len;
        k->told = 0;
        if (!first) say("%s was read again", k->conf.path);
        if (!c->reloading) c->keys.version++;
    }
    reload_goes_on(c);
}

/* ---- to the gateways ---- */

/* False: what the root part gave is not what it says. */
static bool describe(const struct key *k, struct weir_link_key *out)
{
    uint32_t lens[ROOT_OPEN_FILES];
    *out = (struct weir_link_key){.kind = k->conf.kind, .path = weir_cstr(k->conf.path), .key = weir_cstr(k->conf.key)};
    if (!k->bytes || k->len < sizeof lens) return !k->bytes;
    memcpy(lens, k->bytes, sizeof lens);
    size_t at = sizeof lens;
    for (int i = 0; i < ROOT_OPEN_FILES; i++) {
        if (lens[i] > k->len - at) return false;
        out->files[i] = weir_str(k->bytes + at, lens[i]);
        at += lens[i];
    }
    return true;
}

void keys_tell(struct control *c, struct gateway *g)
{
    struct weir_link_message m = {.type = WEIR_LINK_KEYS};
    struct weir_buf b = {0};
    size_t n = 0;
    if (g->link.fd < 0 || g->keys_sent == c->keys.version) return;
    struct weir_link_key *list = calloc(c->keys.count + 1, sizeof *list);
    for (size_t i = 0; list && i < c->keys.count; i++) n += describe(&c->keys.list[i], &list[n]);
    int fd = list && weir_link_keys_encode(list, n, &b) == WEIR_OK ? weir_link_memfd("weir-keys", weir_buf_ptr(&b), weir_buf_len(&b)) : -1;
    free(list);
    if (weir_buf_len(&b)) explicit_bzero(weir_buf_ptr(&b), weir_buf_len(&b));
    weir_buf_fini(&b);
    if (fd < 0) return; /* the next turn tries again */
    if (weir_link_send(g->link.fd, &m, &fd, 1) == WEIR_OK) g->keys_sent = c->keys.version;
    close(fd);
}

/* ---- time ---- */

void keys_clock(struct control *c)
{
    if (!c->keys.due_ms || now_ms() < c->keys.due_ms || c->reloading) return;
    c->keys.due_ms = now_ms() + AGAIN_MS;
    for (size_t n = 0; n < AGAIN_MOST && n < c->keys.count; n++) ask(c, &c->keys.list[c->keys.next++ % c->keys.count]);
}

int64_t keys_next_ms(const struct control *c)
{
    int64_t now = now_ms();
    return !c->keys.due_ms ? -1 : c->keys.due_ms > now ? c->keys.due_ms - now : 0;
}

void keys_free(struct control *c)
{
    for (size_t i = 0; i < c->keys.count; i++) drop(&c->keys.list[i]);
    free(c->keys.list);
}

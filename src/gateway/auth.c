/* SPDX-License-Identifier: MIT */
/* Basic authentication [RFC 7617]. Hashes of passwords take long on purpose: a helper thread computes them, few at once, and what was
 * right is remembered for a while by a keyed hash of it. A name that nobody has costs the same time as one of the file. */
#include <crypt.h>
#include <stdlib.h>
#include <sys/random.h>

#include "gateway/internal.h"

#define SETS      256
#define WAYS      4
#define RIGHT_MS  300000 /* that credentials are remembered */
#define OF_CLIENT 2      /* computed at once for one address, in each thread */

struct remembered {
    struct weir_digest digest;
    uint64_t until_ms;
};
struct auth {
    struct weir_key key;
    pthread_mutex_t lock;
    struct remembered right[SETS][WAYS];
};
struct auth_try {
    struct weir_str user;
    char *password;
    size_t password_len;
    const char *setting; /* of the snapshot; or of nobody */
    struct auth_slot *slot;
    struct weir_digest digest;
    bool known, right;
};

int auth_new(struct auth **out)
{
    struct auth *a = calloc(1, sizeof *a);
    if (!a) return WEIR_NOMEM;
    if (getrandom(&a->key, sizeof a->key, 0) != (ssize_t)sizeof a->key) {
        free(a);
        return WEIR_SYSTEM;
    }
    pthread_mutex_init(&a->lock, NULL);
    *out = a;
    return WEIR_OK;
}

void auth_free(struct auth *a)
{
    if (!a) return;
    pthread_mutex_destroy(&a->lock);
    explicit_bzero(a, sizeof *a);
    free(a);
}

/* ---- what was right ---- */

static bool is_remembered(struct auth *a, const struct weir_digest *d, uint64_t now_ms)
{
    bool found = false;
    pthread_mutex_lock(&a->lock);
    const struct remembered *set = a->right[d->h[0] % SETS];
    for (int i = 0; i < WAYS; i++) found |= weir_same_secret(&set[i].digest, d, sizeof *d) & (set[i].until_ms > now_ms);
    pthread_mutex_unlock(&a->lock);
    return found;
}

static void remember(struct auth *a, const struct weir_digest *d, uint64_t now_ms)
{
    pthread_mutex_lock(&a->lock);
    struct remembered *set = a->right[d->h[0] % SETS], *to = set;
    for (int i = 1; i < WAYS; i++)
        if (set[i].until_ms < to->until_ms) to = &set[i];
    *to = (struct remembered){*d, now_ms + RIGHT_MS};
    pthread_mutex_unlock(&a->lock);
}

/* Of name, password and stored hash: who changes the file forgets with it. */
static int digest_of(struct exchange *ex, struct weir_str user, struct weir_str password, const char *hash, struct weir_digest *out)
{
    size_t len = user.len + password.len + strlen(hash) + 2;
    char *all = weir_arena_bytes(&ex->arena, len);
    if (!all) return WEIR_NOMEM;
    memcpy(all, user.ptr, user.len + 1); /* with the NUL */
    memcpy(all + user.len + 1, password.ptr, password.len + 1);
    memcpy(all + user.len + password.len + 2, hash, strlen(hash));
    *out = weir_keyed_hash(&ex->worker->gw->auth->key, weir_str(all, len));
    explicit_bzero(all, len);
    return WEIR_OK;
}

/* ---- users ---- */

static const struct weir_conf_user *find_user(const struct weir_conf_auth *conf, const char *name)
{
    size_t from = 0, to = conf->user_count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = strcmp(conf->users[middle].name, name);
        if (order == 0) return &conf->users[middle];
        if (order < 0) from = middle + 1;
        else to = middle;
    }
    return NULL;
}

/* Somebody's hash for a name that nobody has: always the same one's, which takes as long as one of the file does. */
static const char *decoy(const struct auth *a, const struct weir_conf_auth *conf, struct weir_str name)
{
    if (!conf->user_count) return "$6$nobodyisinthisfile";
    return conf->users[weir_keyed_hash(&a->key, name).h[0] % conf->user_count].hash;
}

/* ---- answers ---- */

static enum guard_state challenge(struct exchange *ex, const struct weir_conf_auth *conf, const char *why)
{
    struct weir_pair *f = weir_arena_alloc(&ex->arena, sizeof *f);
    char *value = weir_arena_bytes(&ex->arena, strlen(conf->realm) + 48);
    if (!f || !value) {
        exchange_fail(ex, 503, "out of memory");
        return GUARD_ANSWERED;
    }
    int len = snprintf(value, strlen(conf->realm) + 48, "Basic realm=\"%s\", charset=\"UTF-8\"", conf->realm);
    *f = (struct weir_pair){WEIR_STR("WWW-Authenticate"), weir_str(value, (size_t)len)};
    exchange_text(ex, 401, f, 1, why);
    return GUARD_ANSWERED;
}

static void grant(struct exchange *ex, const struct weir_conf_auth *conf, struct weir_str user)
{
    ex->auth = conf;
    ex->auth_user = ex->user = user;
}

/* ---- the computation ---- */

static void run_try(struct weir_job *job)
{
    struct exchange *ex = WEIR_CONTAINER(job, struct exchange, job);
    struct auth_try *t = ex->auth_try;
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *hash = data ? crypt_rn(t->password, t->setting, data, sizeof *data) : NULL; /* crypt_r is what sanitizers stand in for */
    size_t len = strlen(t->setting);
    t->right = hash && strlen(hash) == len && weir_same_secret(hash, t->setting, len) && t->known;
    if (data) explicit_bzero(data, sizeof *data);
    free(data);
    explicit_bzero(t->password, t->password_len);
    atomic_store(&t->slot->busy, false);
}

static void tried(struct exchange *ex)
{
    struct worker *w = ex->worker;
    const struct auth_try *t = ex->auth_try;
    const struct weir_conf_auth *conf = ex->route->conf->guards.auth;
    ex->guarding = false;
    ex->auth_try = NULL;
    if (t->right) remember(w->gw->auth, &t->digest, weir_loop_now_ms(w->loop));
    if (ex->http->peer_closed && !ex->stream) { /* nobody waits for the answer any more */
        http_close(ex->http);
    } else if (t->right) {
        grant(ex, conf, t->user);
        exchange_guarded(ex);
    } else {
        challenge(ex, conf, "the name or the password is wrong");
    }
}

/* NULL: too many are computed; own: already so many of this address. */
static struct auth_slot *take_slot(struct worker *w, const uint8_t address[16], bool *own)
{
    struct auth_slot *free_one = NULL;
    unsigned of_client = 0;
    for (unsigned i = 0; i < AUTH_AT_ONCE; i++) {
        struct auth_slot *s = &w->auth_slots[i];
        if (!atomic_load(&s->busy)) free_one = s;
        else of_client += memcmp(s->address, address, 16) == 0;
    }
    *own = of_client >= OF_CLIENT;
    if (*own || !free_one) return NULL;
    atomic_store(&free_one->busy, true);
    memcpy(free_one->address, address, 16);
    return free_one;
}

static enum guard_state busy(struct exchange *ex, bool own)
{
    static const struct weir_pair retry = {{"Retry-After", 11}, {"1", 1}};
    if (own) exchange_text(ex, 429, &retry, 1, "too many passwords at once");
    else exchange_fail(ex, 503, "too many passwords are checked just now");
    return GUARD_ANSWERED;
}

static enum guard_state start_try(struct exchange *ex, struct auth_try *t)
{
    bool own;
    t->slot = take_slot(ex->worker, ex->client.address, &own);
    if (!t->slot) {
        explicit_bzero(t->password, t->password_len);
        return busy(ex, own);
    }
    ex->auth_try = t;
    ex->guarding = ex->job_runs = true;
    ex->job = (struct weir_job){.run = run_try, .ident = {.kind = KIND_FILE}, .lane = WEIR_LANE_WORK};
    ex->job_done = tried;
    weir_loop_job(ex->worker->loop, &ex->job);
    return GUARD_WAITS;
}

/* ---- the door ---- */

/* There is one such field at most: else it was no request. */
static int read_credentials(struct exchange *ex, struct weir_str *user, struct weir_str *password)
{
    const struct weir_pair *f = weir_http_find(ex->req->headers, ex->req->header_count, "authorization");
    return f ? weir_http_basic(f->value, &ex->arena, user, password) : WEIR_INVALID;
}

enum guard_state auth_enter(struct exchange *ex)
{
    const struct weir_conf_auth *conf = ex->route->conf->guards.auth;
    struct auth *a = ex->worker->gw->auth;
    struct weir_str user, password;
    ex->auth = NULL;
    if (!conf) return GUARD_PASSED;
    int status = read_credentials(ex, &user, &password);
    if (status == WEIR_INVALID) return challenge(ex, conf, "it asks for a name and a password");
    struct auth_try *t = status == WEIR_OK ? weir_arena_alloc(&ex->arena, sizeof *t) : NULL;
    if (!t || conf->broken) {
        exchange_fail(ex, t ? 500 : 503, t ? conf->broken : "out of memory");
        return GUARD_ANSWERED;
    }
    const struct weir_conf_user *known = find_user(conf, user.ptr);
    *t = (struct auth_try){.user = user, .password = (char *)(uintptr_t)password.ptr, .password_len = password.len, .known = known,
                           .setting = known ? known->hash : decoy(a, conf, user)};
    if (digest_of(ex, user, password, t->setting, &t->digest) < 0) {
        exchange_fail(ex, 503, "out of memory");
        return GUARD_ANSWERED;
    }
    if (known && is_remembered(a, &t->digest, weir_loop_now_ms(ex->worker->loop))) {
        explicit_bzero(t->password, t->password_len);
        grant(ex, conf, user);
        return GUARD_PASSED;
    }
    return start_try(ex, t);
}

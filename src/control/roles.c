/* SPDX-License-Identifier: MIT */
/* Who may order what, by the credentials of whoever connected. root, and the user who runs Weir, may all; the gateway's user
 * nothing; others what `weir { control PATH { read operate admin } }` says of their user, or of a group of theirs. */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"

#define GROUPS_MAX 1024

/* Those that run, and the one that the configuration names. */
static bool is_gateway(const struct control *c, uid_t uid)
{
    char path[40];
    struct stat st;
    if (!c->o.privileged || uid == 0) return false;
    const struct passwd *pw = getpwnam(c->conf->gateway_user);
    if (pw && pw->pw_uid == uid) return true;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++) {
        snprintf(path, sizeof path, "/proc/%d", (int)c->gateways[i].pid);
        if (c->gateways[i].pid > 0 && stat(path, &st) == 0 && st.st_uid == uid) return true;
    }
    return false;
}

/* Is it one of this user's groups? */
static bool is_member(const char *group, const gid_t *groups, int count)
{
    const struct group *gr = getgrnam(group);
    for (int i = 0; gr && i < count; i++)
        if (groups[i] == gr->gr_gid) return true;
    return false;
}

static bool owns_any(const struct control *c, const char *user)
{
    for (size_t i = 0; i < c->conf->pool_count; i++)
        if (c->conf->pools[i].user && strcmp(c->conf->pools[i].user, user) == 0) return true;
    return false;
}

static void by_configuration(const struct control *c, struct rights *r, const gid_t *groups, int count)
{
    bool owner = owns_any(c, r->user);
    for (size_t i = 0; i < c->conf->role_count; i++) {
        const struct weir_conf_role *o = &c->conf->roles[i];
        if (o->who == WEIR_WHO_OWNER) {
            if (owner && o->role > r->own) r->own = o->role;
            continue;
        }
        bool it = o->who == WEIR_WHO_GROUP ? is_member(o->name, groups, count) : strcmp(o->name, r->user) == 0;
        if (it && o->role > r->all) r->all = o->role;
    }
}

void roles_of(const struct control *c, uid_t uid, struct rights *out)
{
    gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    *out = (struct rights){0};
    if (is_gateway(c, uid)) return;
    if (uid == 0 || uid == geteuid()) {
        out->all = WEIR_ROLE_ADMIN;
        return;
    }
    const struct passwd *pw = c->conf->role_count ? getpwuid(uid) : NULL;
    if (!pw) return;
    snprintf(out->user, sizeof out->user, "%s", pw->pw_name);
    if (getgrouplist(out->user, pw->pw_gid, groups, &count) < 0) count = GROUPS_MAX; /* of more only these count */
    by_configuration(c, out, groups, count);
}

bool roles_pool(const struct control *c, const struct rights *r, enum weir_conf_role_kind need, const char *pool)
{
    if (r->all >= need) return true;
    const struct pool *p = pool ? pool_find(c, pool) : NULL;
    return r->own >= need && p && p->conf && p->conf->user && strcmp(p->conf->user, r->user) == 0;
}

/* SPDX-License-Identifier: MIT */
/* What a program is told: the request's parameters [RFC 3875 4.1], and below them nothing but our own environment, which is the
 * pool's. What the pool says stays as it says: no parameter replaces it. */
#include <stdlib.h>

#include "runner/runner.h"

extern char **environ;

static struct weir_str name_of(const char *pair)
{
    return weir_str(pair, strcspn(pair, "="));
}

/* Meant for us, not for programs. */
static bool is_ours(struct weir_str name)
{
    static const struct weir_str list[] = {WEIR_CONST_STR("WEIR_LISTEN"), WEIR_CONST_STR("FCGI_WEB_SERVER_ADDRS"), WEIR_CONST_STR("NOTIFY_SOCKET"),
                                           WEIR_CONST_STR("LISTEN_FDS"), WEIR_CONST_STR("LISTEN_PID"), WEIR_CONST_STR("LISTEN_FDNAMES")};
    for (size_t i = 0; i < WEIR_COUNT(list); i++)
        if (weir_str_eq(name, list[i])) return true;
    return false;
}

int environment_base(struct runner *r)
{
    size_t n = 0;
    while (environ && environ[n]) n++;
    r->environment = calloc(n + 1, sizeof *r->environment);
    if (!r->environment) return WEIR_NOMEM;
    for (size_t i = 0; i < n; i++)
        if (!is_ours(name_of(environ[i]))) r->environment[r->environment_count++] = environ[i];
    return WEIR_OK;
}

static bool pool_says(const struct runner *r, struct weir_str name)
{
    for (size_t i = 0; i < r->environment_count; i++)
        if (weir_str_eq(name_of(r->environment[i]), name)) return true;
    return false;
}

/* With these, whoever speaks FastCGI with us would choose the code that runs: the loader, libc, shells and interpreters ask for them.
 * Proxy is a client's word for HTTP_PROXY (httpoxy). */
static bool is_dangerous(struct weir_str name)
{
    static const struct weir_str whole[] = {
        WEIR_CONST_STR("HTTP_PROXY"), WEIR_CONST_STR("PATH"), WEIR_CONST_STR("IFS"), WEIR_CONST_STR("ENV"), WEIR_CONST_STR("PS4"), WEIR_CONST_STR("SHELLOPTS"),
        WEIR_CONST_STR("GCONV_PATH"), WEIR_CONST_STR("GLIBC_TUNABLES"), WEIR_CONST_STR("LOCPATH"), WEIR_CONST_STR("NLSPATH"), WEIR_CONST_STR("PHPRC"),
        WEIR_CONST_STR("PHP_INI_SCAN_DIR"), WEIR_CONST_STR("TCLLIBPATH"), WEIR_CONST_STR("_JAVA_OPTIONS"), WEIR_CONST_STR("CLASSPATH"), WEIR_CONST_STR("ZDOTDIR"),
        WEIR_CONST_STR("GIT_EXEC_PATH")};
    static const struct weir_str first[] = {WEIR_CONST_STR("LD_"), WEIR_CONST_STR("BASH"), WEIR_CONST_STR("PERL"), WEIR_CONST_STR("PYTHON"), WEIR_CONST_STR("RUBY"),
                                            WEIR_CONST_STR("GEM_"), WEIR_CONST_STR("NODE_"), WEIR_CONST_STR("LUA_"), WEIR_CONST_STR("JAVA_"), WEIR_CONST_STR("JDK_"),
                                            WEIR_CONST_STR("OPENSSL_"), WEIR_CONST_STR("GIT_CONFIG")};
    for (size_t i = 0; i < WEIR_COUNT(whole); i++)
        if (weir_str_eq(name, whole[i])) return true;
    for (size_t i = 0; i < WEIR_COUNT(first); i++)
        if (weir_str_prefix(name, first[i])) return true;
    return false;
}

/* [A-Za-z_][A-Za-z0-9_]*: bash takes others for functions. */
static bool is_name(struct weir_str name)
{
    bool good = name.len > 0 && !(name.ptr[0] >= '0' && name.ptr[0] <= '9');
    for (size_t i = 0; i < name.len && good; i++) {
        char c = name.ptr[i];
        good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    }
    return good;
}

/* May a parameter become a variable? */
static bool passes(const struct runner *r, const struct weir_pair *p)
{
    if (!is_name(p->name) || (p->value.len && memchr(p->value.ptr, 0, p->value.len))) return false;
    return !is_dangerous(p->name) && !is_ours(p->name) && !pool_says(r, p->name);
}

static char *pair_text(struct weir_app_req *req, struct weir_str name, struct weir_str value) /* FC1-6.1-g */
{
    char *text = weir_app_req_alloc(req, name.len + value.len + 2);
    if (!text) return NULL;
    memcpy(text, name.ptr, name.len);
    text[name.len] = '=';
    if (value.len) memcpy(text + name.len + 1, value.ptr, value.len);
    text[name.len + 1 + value.len] = 0;
    return text;
}

/* Ours instead of the request's. */
static bool is_fixed(struct weir_str name)
{
    return weir_str_eq(name, WEIR_STR("GATEWAY_INTERFACE")) || weir_str_eq(name, WEIR_STR("SCRIPT_FILENAME"));
}

char **environment_of(const struct runner *r, struct weir_app_req *req, const char *script)
{
    const struct weir_pair fixed[] = {{WEIR_STR("GATEWAY_INTERFACE"), WEIR_STR("CGI/1.1")}, {WEIR_STR("SCRIPT_FILENAME"), weir_cstr(script)}};
    struct weir_pair p;
    size_t count = 0, at = 0;
    while (weir_app_req_param_at(req, count, &p) == WEIR_OK) count++;
    char **list = weir_app_req_alloc(req, (r->environment_count + count + WEIR_COUNT(fixed) + 1) * sizeof *list);
    if (!list) return NULL;
    for (size_t i = 0; i < r->environment_count; i++) list[at++] = r->environment[i];
    for (size_t i = 0; i < WEIR_COUNT(fixed); i++)
        if (!pool_says(r, fixed[i].name) && !(list[at++] = pair_text(req, fixed[i].name, fixed[i].value))) return NULL;
    for (size_t i = count; i > 0; i--) { /* of one name the last counts: getenv() takes the first */
        if (weir_app_req_param_at(req, i - 1, &p) != WEIR_OK || is_fixed(p.name) || !passes(r, &p)) continue;
        if (!(list[at++] = pair_text(req, p.name, p.value))) return NULL;
    }
    list[at] = NULL;
    return list;
}

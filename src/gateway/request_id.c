/* SPDX-License-Identifier: MIT */
/* Ids of requests: one for each, made when somebody wants to know it: 128 random bits that no other request has, no secret. A client's own
 * one stands for it only where the route says so. */
#include <sys/random.h>

#include "gateway/internal.h"

#define CLIENT_MAX 128 /* bytes of an id that a client (a proxy in front) gives */

int worker_seed_ids(struct worker *w)
{
    uint64_t seed[WEIR_COUNT(w->id_random)];
    if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed) return WEIR_SYSTEM;
    for (size_t i = 0; i < WEIR_COUNT(seed); i++) w->id_random[i].state = seed[i];
    return WEIR_OK;
}

/* Letters, digits and what ids of proxies have beside them: nothing that has a meaning in a log, a page or a shell. */
bool request_id_is_plain(struct weir_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool word = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!word && (c == 0 || !strchr("._-:=+/@", c))) return false;
    }
    return s.len > 0 && s.len <= CLIENT_MAX;
}

static struct weir_str of_client(const struct exchange *ex)
{
    if (!ex->req || !ex->route || !ex->route->conf->id_from_client) return (struct weir_str){0};
    const struct weir_pair *f = weir_http_find(ex->req->headers, ex->req->header_count, "X-Request-Id");
    return f && request_id_is_plain(f->value) ? f->value : (struct weir_str){0};
}

static char *hex(char *to, uint64_t v)
{
    for (int shift = 60; shift >= 0; shift -= 4) *to++ = "0123456789abcdef"[v >> shift & 15];
    return to;
}

struct weir_str exchange_id(struct exchange *ex)
{
    if (ex->id.len) return ex->id;
    ex->id = of_client(ex);
    if (ex->id.len) return ex->id;
    struct worker *w = ex->worker;
    char *p = weir_arena_bytes(&ex->arena, 32);
    if (!p) return WEIR_STR("-");
    hex(hex(p, weir_random_next(&w->id_random[0])), weir_random_next(&w->id_random[1]));
    return ex->id = weir_str(p, 32);
}

bool exchange_tells_id(const struct exchange *ex)
{
    bool error = ex->answer == ANSWER_TEXT && ex->status >= 400, told = ex->route && ex->route->conf->id_to_client;
    return (error || told) && !weir_http_find(ex->fields, ex->field_count, "X-Request-Id");
}

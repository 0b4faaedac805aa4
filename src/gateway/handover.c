/* SPDX-License-Identifier: MIT */
/* Answers that an app leaves to the gateway: X-Sendfile names a file below a folder of `send-file`, X-Accel-Redirect another path of
 * the site, which may be an internal one. Only apps that their route trusts are heard; no client sees either field. */
#include <fcntl.h>
#include <unistd.h>

#include "gateway/internal.h"

enum { HAND_NONE, HAND_FILE, HAND_PATH };

static int kind_of(struct weir_str name)
{
    if (weir_str_ieq(name, WEIR_STR("X-Sendfile"))) return HAND_FILE;
    if (weir_str_ieq(name, WEIR_STR("X-Accel-Redirect"))) return HAND_PATH;
    return HAND_NONE;
}

static bool trusted(const struct exchange *ex, int kind)
{
    const struct weir_conf_route *conf = ex->route->conf;
    if (ex->authorizing || ex->error_status) return false;
    return kind == HAND_FILE ? conf->send_file_count > 0 : conf->accel_redirect;
}

bool exchange_takes_handover(struct exchange *ex)
{
    ex->handing = HAND_NONE;
    for (size_t i = 0; i < ex->field_count; i++) {
        int kind = kind_of(ex->fields[i].name);
        if (kind == HAND_NONE) continue;
        if (!trusted(ex, kind)) {
            log_error(ex->worker, "%s: %s is ignored: its route does not allow it (%s)", ex->asked ? weir_pool_name(ex->asked->in->pool) : "-",
                      kind == HAND_FILE ? "X-Sendfile" : "X-Accel-Redirect", kind == HAND_FILE ? "send-file" : "accel-redirect");
        } else if (ex->handing == HAND_NONE) {
            ex->handing = (uint8_t)kind;
            ex->go_to = ex->fields[i].value;
        }
    }
    return ex->handing != HAND_NONE;
}

/* ---- X-Accel-Redirect ---- */

/* What nginx lets through, too: the rest describes an answer that is none any more. */
static bool goes_along(struct weir_str name)
{
    static const struct weir_str list[] = {WEIR_CONST_STR("Content-Type"), WEIR_CONST_STR("Content-Disposition"), WEIR_CONST_STR("Content-Language"), WEIR_CONST_STR("Set-Cookie"),
                                           WEIR_CONST_STR("Cache-Control"), WEIR_CONST_STR("Expires")};
    for (size_t i = 0; i < WEIR_COUNT(list); i++)
        if (weir_str_ieq(name, list[i])) return true;
    return false;
}

static void hand_path(struct exchange *ex)
{
    size_t n = 0;
    for (size_t i = 0; i < ex->handed_count; i++)
        if (goes_along(ex->handed[i].name)) ex->handed[n++] = ex->handed[i];
    ex->handed_count = n;
    ex->status = 200;
    exchange_go(ex, ex->go_to);
}

/* ---- X-Sendfile ---- */

/* The folder that the path lies in, the longest one if there are several; rest is relative to it. NULL: none. */
static const struct weir_open_area *folder_of(const struct route *r, struct weir_str path, struct weir_str *rest)
{
    const struct weir_open_area *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < r->send_count; i++) {
        struct weir_str dir = weir_cstr(r->send_areas[i].path);
        if (dir.len <= most || path.len <= dir.len || !weir_str_prefix(path, dir) || path.ptr[dir.len] != '/') continue;
        best = &r->send_areas[i];
        most = dir.len;
    }
    if (best) *rest = weir_str(path.ptr + most, path.len - most);
    return best;
}

static void hand_file(struct exchange *ex)
{
    struct weir_str path = weir_arena_str(&ex->arena, ex->go_to), rest;
    const struct weir_open_area *folder = path.ptr ? folder_of(ex->route, path, &rest) : NULL;
    int status = ex->status;
    exchange_drop_answer(ex);
    exchange_drop_body(ex);
    ex->status = status;
    ex->method_override = ex->req->head ? "HEAD" : "GET"; /* the app has done what else there was */
    if (!folder) {
        log_error(ex->worker, "X-Sendfile: %.*s does not lie in a folder of send-file", (int)(path.len < 200 ? path.len : 200), path.ptr);
        exchange_fail(ex, 404, "no such file");
        return;
    }
    ex->lookup.folder = folder;
    ex->lookup.path = rest;
    ex->lookup.coding_count = 0; /* the app names the very file */
    exchange_lookup(ex);
}

void exchange_handed_file(struct exchange *ex)
{
    const struct lookup *l = &ex->lookup;
    if (l->kind == LOOKUP_FILE) {
        exchange_file_begin(ex);
        return;
    }
    log_error(ex->worker, "X-Sendfile: %s%s: no such file, or it may not be read", l->folder->path, l->path.ptr);
    exchange_fail(ex, 404, "no such file");
}

static void hand(struct exchange *ex)
{
    int kind = ex->handing;
    ex->handing = HAND_NONE;
    ex->handed = ex->fields;
    ex->handed_count = ex->field_count;
    if (kind == HAND_FILE) hand_file(ex);
    else hand_path(ex);
}

void exchange_hand_over(struct exchange *ex)
{
    if (ex->job_runs) ex->job_done = hand; /* of a filter that did not wait for its file */
    else hand(ex);
}

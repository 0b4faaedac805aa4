/* SPDX-License-Identifier: MIT */
/* What people ordered while Weir runs: pools that were stopped, drained or scaled. The root part keeps it as one JSON text, for
 * the control that follows when this one is killed. How pools are driven lasts until the next reload. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/internal.h"

#define KEPT_MAX (64u << 20) /* bytes of what the root part keeps */

/* ---- as JSON ---- */

static json_t *pools_to_json(const struct control *c)
{
    json_t *list = json_array();
    for (const struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        const struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (!p->stopped && !p->most) continue;
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:I, s:I}", "name", p->name, "stopped", p->stopped, "patient", p->patient, "least",
                                              (json_int_t)p->least, "most", (json_int_t)p->most));
    }
    return list;
}

static void pools_from_json(struct control *c, const json_t *list)
{
    size_t i;
    json_t *o;
    json_array_foreach(list, i, o)
    {
        const char *name = json_string_value(json_object_get(o, "name"));
        struct pool *p = name ? pool_find(c, name) : NULL;
        json_int_t least = json_integer_value(json_object_get(o, "least")), most = json_integer_value(json_object_get(o, "most"));
        if (!p || !p->conf) continue;
        p->stopped = json_is_true(json_object_get(o, "stopped"));
        p->patient = json_is_true(json_object_get(o, "patient"));
        if (least >= 0 && most >= least && most <= SCALE_MAX) {
            p->least = (uint32_t)least;
            p->most = (uint32_t)most;
        }
        pool_touch(c, p);
    }
}

/* ---- kept by the root part ---- */

void orders_keep(struct control *c)
{
    json_t *all = json_pack("{s:o}", "pools", pools_to_json(c));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    int fd = text ? weir_link_memfd("weir-orders", text, strlen(text)) : -1;
    if (fd >= 0) {
        root_send(c, &(struct root_msg){.kind = ROOT_KEEP_ORDERS}, &fd, 1);
        close(fd);
    } else {
        say("out of memory or descriptors: a control that has to be started anew will not know this order");
    }
    free(text);
    json_decref(all);
}

static void use_kept(struct control *c)
{
    if (!c->orders.kept || !c->conf) return;
    pools_from_json(c, json_object_get(c->orders.kept, "pools"));
    json_decref(c->orders.kept);
    c->orders.kept = NULL;
}

void orders_kept(struct control *c, int fd)
{
    char *text = NULL;
    size_t len;
    json_error_t err;
    if (fd < 0 || weir_link_memfd_read(fd, KEPT_MAX, &text, &len) < 0) return;
    c->orders.kept = json_loadb(text, len, 0, &err);
    free(text);
    use_kept(c);
}

void orders_begin(struct control *c)
{
    use_kept(c);
}

void orders_free(struct control *c)
{
    json_decref(c->orders.kept);
    c->orders.kept = NULL;
}

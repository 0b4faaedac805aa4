/* SPDX-License-Identifier: MIT */
/* What people ordered while Weir runs: pools that were stopped, drained or scaled; sites that are suspended; addresses that are
 * denied. The root part keeps all of it in one memfd, for the control that follows when this one is killed. How pools are
 * driven lasts until the next reload, a denied address until its time is over or the end, a suspended site until it is resumed:
 * a file of control's own carries that over the end of everything. The gateway is told the sites and the addresses, as state. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/internal.h"

#define KEPT_MAX  (64u << 20) /* bytes of what the root part keeps */
#define FILE_MAX  (16u << 20) /* bytes of our file */
#define MANY      4096        /* denied addresses: more are told once in */
#define MANY_MS   100
#define PAGES_MAX (8u << 20)  /* bytes of all pages together */

/* ---- pools ---- */

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
        if (least >= 0 && most >= least && most <= SCALE_MAX) pool_set_scale(c, p, (uint32_t)least, (uint32_t)most);
        pool_touch(c, p);
    }
}

/* ---- sites ---- */

static const struct weir_conf_site *find_site(const struct control *c, const char *name)
{
    for (size_t i = 0; i < c->conf->site_count; i++)
        for (size_t k = 0; k < c->conf->sites[i].name_count; k++)
            if (weir_str_ieq(weir_cstr(c->conf->sites[i].names[k]), weir_cstr(name))) return &c->conf->sites[i];
    return NULL;
}

static bool has_name(const struct weir_conf_site *s, const char *name)
{
    for (size_t i = 0; s && i < s->name_count; i++)
        if (strcmp(s->names[i], name) == 0) return true;
    return false;
}

/* The order for this site, or for one of that name that is not configured now; suspended_count: none. */
static size_t find_suspended(const struct control *c, const struct weir_conf_site *site, const char *name)
{
    size_t i = 0;
    while (i < c->orders.suspended_count && strcmp(c->orders.suspended[i].site, name) != 0 && !has_name(site, c->orders.suspended[i].site)) i++;
    return i;
}

static void forget_suspended(struct control *c, size_t i)
{
    struct orders *o = &c->orders;
    free(o->suspended[i].site);
    free(o->suspended[i].text);
    o->suspended[i] = o->suspended[--o->suspended_count];
}

/* In the place of number i, or behind the last one. NULL, or why not: then all is as before. */
static const char *put_suspended(struct control *c, size_t i, const char *site, const char *text, bool page)
{
    struct orders *o = &c->orders;
    size_t pages = strlen(text);
    for (size_t k = 0; k < o->suspended_count; k++) pages += k != i ? strlen(o->suspended[k].text) : 0;
    if (strlen(text) > WEIR_CONFIG_PAGE_MAX) return "a page has at most 32 KiB";
    if (!site[0] || strlen(site) > 255) return "this is no name of a site";
    if (i == WEIR_LINK_SITES_MAX || pages > PAGES_MAX) return "too many sites are suspended";
    struct suspended *grown = realloc(o->suspended, (o->suspended_count + 1) * sizeof *grown);
    if (!grown) return "out of memory";
    o->suspended = grown;
    struct suspended s = {.site = strdup(site), .text = strdup(text), .page = page};
    if (!s.site || !s.text) {
        free(s.site);
        free(s.text);
        return "out of memory";
    }
    if (i < o->suspended_count) forget_suspended(c, i);
    o->suspended[o->suspended_count++] = s;
    return NULL;
}

static json_t *suspended_to_json(const struct control *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->orders.suspended_count; i++) {
        const struct suspended *s = &c->orders.suspended[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "site", s->site, "text", s->text, "page", s->page));
    }
    return list;
}

static void suspended_from_json(struct control *c, const json_t *list)
{
    size_t i;
    json_t *o;
    while (c->orders.suspended_count) forget_suspended(c, 0);
    json_array_foreach(list, i, o)
    {
        const char *site = json_string_value(json_object_get(o, "site")), *text = json_string_value(json_object_get(o, "text"));
        if (!site || !text || find_suspended(c, NULL, site) < c->orders.suspended_count) continue;
        const char *why = put_suspended(c, c->orders.suspended_count, site, text, json_is_true(json_object_get(o, "page")));
        if (why) say("the order to suspend %.64s is not used: %s", site, why);
    }
}

/* ---- our file ---- */

static const char *what_is_served(const struct control *c)
{
    return c->o.dir ? c->o.dir : c->o.config_path ? c->o.config_path : "";
}

static void name_file(struct control *c)
{
    char name[101];
    const char *of = what_is_served(c);
    if (!c->o.state_dir) return;
    while (*of == '/') of++;
    size_t n = 0;
    for (; of[n] && n + 1 < sizeof name; n++) name[n] = (char)(of[n] == '/' || (unsigned char)of[n] < 0x21 ? '-' : of[n]);
    name[n] = 0;
    int len = snprintf(c->orders.path, sizeof c->orders.path, "%.120s/%s-%08x.json", c->o.state_dir, name,
                       (unsigned)weir_hash(weir_cstr(what_is_served(c))));
    if (len < 0 || len >= (int)sizeof c->orders.path) c->orders.path[0] = 0;
}

static void read_file(struct control *c)
{
    struct stat st;
    json_error_t err;
    int fd = c->orders.path[0] ? open(c->orders.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY) : -1;
    if (fd < 0) {
        if (c->orders.path[0] && errno != ENOENT) say("%s cannot be read: %s: which sites are suspended is not known", c->orders.path, strerror(errno));
        return;
    }
    bool fine = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)FILE_MAX;
    json_t *all = fine ? json_loadfd(fd, 0, &err) : NULL;
    close(fd);
    const json_t *list = json_object_get(all, "suspended");
    if (!json_is_array(list)) say("%s holds no orders of ours: which sites are suspended is not known; it is written anew with the next order", c->orders.path);
    else suspended_from_json(c, list);
    json_decref(all);
    if (c->orders.suspended_count) say("%zu suspended sites, from %s", c->orders.suspended_count, c->orders.path);
}

static bool write_all(int fd, const char *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* Without root nobody has made it. */
static void make_folders(const char *path)
{
    char part[sizeof((struct orders *)0)->path];
    for (size_t n = 1; path[n]; n++) {
        if (path[n] != '/') continue;
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        mkdir(part, 0700);
    }
}

/* By a new file that takes its place. 0, or an errno. */
static int write_file(const struct control *c)
{
    char next[sizeof c->orders.path + 8];
    if (!c->orders.path[0]) return ENOENT;
    if (!c->orders.suspended_count) return unlink(c->orders.path) == 0 || errno == ENOENT ? 0 : errno;
    json_t *all = json_pack("{s:s, s:o}", "of", what_is_served(c), "suspended", suspended_to_json(c));
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (!text) return ENOMEM;
    snprintf(next, sizeof next, "%s.new", c->orders.path);
    make_folders(next);
    unlink(next);
    int fd = open(next, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), bad = fd < 0 ? errno : 0;
    if (!bad && !write_all(fd, text, strlen(text))) bad = errno;
    if (fd >= 0) close(fd);
    if (!bad && rename(next, c->orders.path) < 0) bad = errno;
    if (bad && fd >= 0) unlink(next);
    free(text);
    return bad;
}

/* ---- addresses ---- */

static struct weir_link_denied link_denied(const struct denied *d)
{
    struct weir_link_denied o = {.bits = d->net.bits, .until = d->until};
    memcpy(o.address, d->net.address, sizeof o.address);
    return o;
}

/* In the form that the gateway is told them: there may be many. */
static int pack_denied(const struct denied_list *l, struct weir_buf *out)
{
    struct weir_link_orders all = {.denied = calloc(l->count + 1, sizeof *all.denied)};
    if (!all.denied) return WEIR_NOMEM;
    for (; all.denied_count < l->count; all.denied_count++) all.denied[all.denied_count] = link_denied(&l->list[all.denied_count]);
    int status = weir_link_orders_encode(&all, out);
    free(all.denied);
    return status;
}

static void unpack_denied(struct denied_list *l, struct weir_str bytes)
{
    struct weir_link_orders all = {0};
    struct weir_arena a;
    weir_arena_init(&a, 0);
    l->count = 0;
    int status = weir_link_orders_decode(bytes.ptr, bytes.len, &a, &all);
    for (size_t i = 0; status == WEIR_OK && i < all.denied_count; i++) {
        struct weir_net net = {.bits = all.denied[i].bits};
        memcpy(net.address, all.denied[i].address, sizeof net.address);
        denied_add(l, &net, all.denied[i].until);
    }
    weir_arena_fini(&a);
}

/* ---- kept by the root part: the length of a text of JSON, the text, and the denied addresses ---- */

static int pack_all(const struct control *c, struct weir_buf *out)
{
    json_t *all = json_pack("{s:o, s:o}", "pools", pools_to_json(c), "suspended", suspended_to_json(c));
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    uint32_t len = text ? (uint32_t)strlen(text) : 0;
    int status = text && weir_buf_append(out, &len, sizeof len) == 0 && weir_buf_append(out, text, len) == 0 ? WEIR_OK : WEIR_NOMEM;
    if (status == WEIR_OK) status = pack_denied(&c->orders.denied, out);
    free(text);
    json_decref(all);
    return status;
}

void orders_keep(struct control *c)
{
    struct weir_buf b = {0};
    int fd = pack_all(c, &b) == WEIR_OK ? weir_link_memfd("weir-orders", weir_buf_ptr(&b), weir_buf_len(&b)) : -1;
    weir_buf_fini(&b);
    if (fd < 0) {
        say("out of memory or descriptors: a control that has to be started anew will not know this order");
        return;
    }
    root_send(c, &(struct root_msg){.kind = ROOT_KEEP_ORDERS}, &fd, 1);
    close(fd);
}

static void use_kept(struct control *c)
{
    const json_t *all = c->orders.kept;
    if (!all || !c->conf) return;
    pools_from_json(c, json_object_get(all, "pools"));
    suspended_from_json(c, json_object_get(all, "suspended"));
    json_decref(c->orders.kept);
    c->orders.kept = NULL;
    c->orders.version++;
}

void orders_kept(struct control *c, int fd)
{
    char *bytes = NULL;
    size_t len;
    uint32_t text = 0;
    json_error_t err;
    if (fd < 0 || weir_link_memfd_read(fd, KEPT_MAX, &bytes, &len) < 0) return;
    if (len >= sizeof text) memcpy(&text, bytes, sizeof text);
    if (len >= sizeof text && text <= len - sizeof text) {
        c->orders.kept = json_loadb(bytes + sizeof text, text, 0, &err);
        unpack_denied(&c->orders.denied, weir_str(bytes + sizeof text + text, len - sizeof text - text));
    }
    free(bytes);
    use_kept(c);
}

void orders_begin(struct control *c)
{
    name_file(c);
    c->orders.version++;
    if (c->orders.kept) use_kept(c);
    else read_file(c);
}

void orders_free(struct control *c)
{
    struct orders *o = &c->orders;
    while (o->suspended_count) forget_suspended(c, 0);
    free(o->suspended);
    free(o->denied.list);
    free(o->filed.list);
    json_decref(o->kept);
    *o = (struct orders){0};
}

/* ---- the gateway ---- */

static int pack(const struct orders *o, struct weir_buf *out)
{
    struct weir_link_orders all = {0};
    all.suspended = calloc(o->suspended_count + 1, sizeof *all.suspended);
    all.denied = calloc(o->denied.count + o->filed.count + 1, sizeof *all.denied);
    int status = all.suspended && all.denied ? WEIR_OK : WEIR_NOMEM;
    for (size_t i = 0; status == WEIR_OK && i < o->suspended_count; i++)
        all.suspended[all.suspended_count++] = (struct weir_link_suspended){.site = weir_cstr(o->suspended[i].site), .text = weir_cstr(o->suspended[i].text),
                                                                            .page = o->suspended[i].page};
    for (size_t i = 0; status == WEIR_OK && i < o->denied.count + o->filed.count; i++) {
        const struct denied *d = i < o->denied.count ? &o->denied.list[i] : &o->filed.list[i - o->denied.count];
        all.denied[all.denied_count++] = link_denied(d);
    }
    if (status == WEIR_OK) status = weir_link_orders_encode(&all, out);
    free(all.suspended);
    free(all.denied);
    return status;
}

void orders_tell(struct control *c, struct gateway *g)
{
    struct weir_buf b = {0};
    struct weir_link_message m = {.type = WEIR_LINK_ORDERS};
    if (g->link.fd < 0 || g->orders_sent == c->orders.version) return;
    size_t count = c->orders.denied.count + c->orders.filed.count;
    if (g->orders_sent && count > MANY && now_ms() - g->orders_ms < MANY_MS) return; /* it has that many to sort in */
    int fd = pack(&c->orders, &b) == WEIR_OK ? weir_link_memfd("weir-orders", weir_buf_ptr(&b), weir_buf_len(&b)) : -1;
    weir_buf_fini(&b);
    if (fd < 0) return; /* the next turn tries again */
    if (weir_link_send(g->link.fd, &m, &fd, 1) == WEIR_OK) g->orders_sent = c->orders.version;
    g->orders_ms = now_ms();
    close(fd);
}

/* What was ordered holds: for the gateway, and for a control that follows. */
static void changed(struct control *c)
{
    c->orders.version++;
    orders_keep(c);
}

/* ---- time ---- */

void orders_clock(struct control *c)
{
    if (denied_expire(&c->orders.denied, (int64_t)time(NULL))) changed(c);
}

int64_t orders_next_ms(const struct control *c)
{
    int64_t now = (int64_t)time(NULL), next = c->orders.denied.next;
    for (size_t i = 0; i < WEIR_COUNT(c->gateways); i++)
        if (c->gateways[i].link.fd >= 0 && c->gateways[i].orders_sent != c->orders.version) return 50;
    if (!next) return -1;
    return next <= now ? 0 : next - now > 3600 ? 3600000 : (next - now) * 1000;
}

/* ---- answers ---- */

static json_t *ok(const char *text)
{
    return json_pack("{s:s}", "ok", text);
}

/* The order holds; where it is not kept, that is said. */
static json_t *written(const struct control *c, const char *text)
{
    char out[400];
    int bad = write_file(c);
    if (!bad) return ok(text);
    snprintf(out, sizeof out, "%s; but it is forgotten at the next start: %.200s: %s", text, c->orders.path[0] ? c->orders.path : "no folder for it", strerror(bad));
    return ok(out);
}

json_t *orders_suspend(struct control *c, const char *name, const char *text, bool page)
{
    char why[400];
    const struct weir_conf_site *site = name ? find_site(c, name) : NULL;
    if (!site) {
        snprintf(why, sizeof why, name ? "there is no site %.200s" : "which site?", name);
        return error_json(why);
    }
    size_t i = find_suspended(c, site, site->names[0]);
    const char *bad = put_suspended(c, i, site->names[0], text ? text : "", page);
    if (bad) return error_json(bad);
    changed(c);
    return written(c, "its requests are answered 503 until it is resumed; its apps go on");
}

json_t *orders_resume(struct control *c, const char *name)
{
    char why[400];
    if (!name) return error_json("which site?");
    const struct weir_conf_site *site = find_site(c, name);
    size_t i = find_suspended(c, site, site ? site->names[0] : name);
    if (i < c->orders.suspended_count) {
        forget_suspended(c, i);
        changed(c);
        if (!site || !site->is_suspended) return written(c, "it serves again");
        write_file(c);
    }
    if (site && site->is_suspended) {
        snprintf(why, sizeof why, "%.64s is suspended by its configuration (%.200s:%u): remove it there and reload", site->names[0], site->place.file, site->place.line);
        return error_json(why);
    }
    snprintf(why, sizeof why, site ? "%.200s is not suspended" : "there is no site %.200s", name);
    return error_json(why);
}

json_t *orders_suspended_json(const struct control *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->orders.suspended_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "site", c->orders.suspended[i].site, "by", "order", "configured",
                                              find_site(c, c->orders.suspended[i].site) != NULL));
    for (size_t i = 0; i < c->conf->site_count; i++) {
        const struct weir_conf_site *s = &c->conf->sites[i];
        if (s->is_suspended && find_suspended(c, s, s->names[0]) == c->orders.suspended_count)
            json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "site", s->names[0], "by", "configuration", "configured", true));
    }
    return list;
}

json_t *orders_deny(struct control *c, const char *address, int64_t seconds)
{
    struct weir_net net;
    char text[WEIR_NET_TEXT], out[160], time_text[64] = "";
    if (weir_net_parse(weir_cstr(address), &net) < 0) return error_json("this is no address: write 192.0.2.1, 192.0.2.0/24, or 2001:db8::/32");
    if (weir_net_everybody(&net)) return error_json("that would be everybody");
    if (seconds < 0 || seconds > INT32_MAX) return error_json("a time is at most 24000 days");
    enum denied_change what = denied_add(&c->orders.denied, &net, seconds ? (int64_t)time(NULL) + seconds : 0);
    if (what == DENIED_FULL) return error_json("65536 addresses are denied already: deny networks, or allow some again");
    changed(c);
    weir_net_text(&net, text);
    if (seconds) snprintf(time_text, sizeof time_text, " for %lld s", (long long)seconds);
    snprintf(out, sizeof out, "%s is denied%s%s", text, time_text, what == DENIED_CHANGED ? ", no longer as it was before" : "");
    return ok(out);
}

json_t *orders_allow(struct control *c, const char *address)
{
    struct weir_net net;
    char text[WEIR_NET_TEXT], by[WEIR_NET_TEXT], out[240];
    if (!address || weir_net_parse(weir_cstr(address), &net) < 0) return error_json("this is no address: write 192.0.2.1, 192.0.2.0/24, or 2001:db8::/32");
    weir_net_text(&net, text);
    bool removed = denied_remove(&c->orders.denied, &net);
    if (removed) changed(c);
    const struct denied *order = denied_covers(&c->orders.denied, &net), *filed = denied_covers(&c->orders.filed, &net);
    if (!order && !filed) {
        snprintf(out, sizeof out, removed ? "%s is allowed again" : "%s is not denied", text);
        return removed ? ok(out) : error_json(out);
    }
    weir_net_text(order ? &order->net : &filed->net, by);
    snprintf(out, sizeof out, "%s is %sdenied by %s%s%s", text, removed ? "still " : "", by, order ? "" : " in the deny file ", order ? "" : c->conf->deny_file ? c->conf->deny_file : "");
    return error_json(out);
}

static void list_json(json_t *to, const struct denied_list *l, const char *by)
{
    int64_t now = (int64_t)time(NULL);
    for (size_t i = 0; i < l->count; i++) {
        char text[WEIR_NET_TEXT];
        const struct denied *d = &l->list[i];
        weir_net_text(&d->net, text);
        json_t *o = json_pack("{s:s, s:s}", "address", text, "by", by);
        if (d->until) json_object_set_new(o, "seconds", json_integer(d->until > now ? d->until - now : 0));
        json_array_append_new(to, o);
    }
}

json_t *orders_denied_json(const struct control *c)
{
    json_t *list = json_array();
    list_json(list, &c->orders.denied, "order");
    list_json(list, &c->orders.filed, "file");
    return json_pack("{s:o}", "denied", list);
}

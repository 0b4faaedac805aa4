/* SPDX-License-Identifier: MIT */
/* Configurations: read, checked, its listeners opened, and only then taken. Whatever fails before that, the one in use stays.
 * What is wrong with one included file, or with what this machine lacks for one pool, stops only that. */
#include <errno.h>
#include <malloc.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"

#define MEND_TRIES 8 /* an old version that is taken back can contradict a new one elsewhere */

/* ---- listeners ---- */

static struct listener_fd *listener_for(struct control *c, const struct weir_conf_listener *l)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (strcmp(c->listeners[i].socket, l->address.socket) == 0) return &c->listeners[i];
    if (c->listener_count == WEIR_COUNT(c->listeners)) return NULL;
    struct listener_fd *f = &c->listeners[c->listener_count++];
    *f = (struct listener_fd){.fd = -1, .id = ++c->next_listener};
    snprintf(f->socket, sizeof f->socket, "%s", l->address.socket);
    return f;
}

/* All that a configuration opens: for the gateway, and sockets of pools. */
static size_t count_of(const struct weir_config *conf)
{
    return conf->listener_count + conf->shared_count;
}

static const struct weir_conf_listener *listener_of(const struct weir_config *conf, size_t i)
{
    return i < conf->listener_count ? &conf->listeners[i] : &conf->shared[i - conf->listener_count];
}

int reload_listener_fd(struct control *c, const struct weir_conf_listener *l)
{
    struct listener_fd *f = listener_for(c, l);
    return f ? f->fd : -1;
}

static bool address_of(const struct listener_fd *f, struct root_msg *m)
{
    struct sockaddr_storage at;
    if (weir_address_parse(weir_cstr(f->socket), &at, &m->address_len) < 0) return false;
    memcpy(m->address, &at, sizeof m->address < sizeof at ? sizeof m->address : sizeof at);
    return true;
}

static bool named(const struct weir_config *conf, const struct listener_fd *f)
{
    for (size_t i = 0; conf && i < count_of(conf); i++)
        if (strcmp(listener_of(conf, i)->address.socket, f->socket) == 0) return true;
    return false;
}

/* Nobody is accepted there any more. */
static void close_listener(struct control *c, struct listener_fd *f)
{
    struct root_msg m = {.kind = ROOT_UNLISTEN};
    if (f->fd < 0) return;
    close(f->fd);
    f->fd = -1;
    f->asked = false;
    if (address_of(f, &m)) root_send(c, &m, NULL, 0);
}

/* What neither the configuration in use nor the coming one names is closed. */
void reload_drop_listeners(struct control *c)
{
    if (c->conf && !c->swept) { /* and what the last control left open when it ended */
        c->swept = true;
        root_send(c, &(struct root_msg){.kind = ROOT_UNLISTEN}, NULL, 0);
    }
    for (size_t i = 0; i < c->listener_count;) {
        struct listener_fd *f = &c->listeners[i];
        if (!f->answered || named(c->conf, f) || named(c->next, f)) {
            i++;
            continue;
        }
        close_listener(c, f);
        *f = c->listeners[--c->listener_count];
    }
}

/* A unix socket is asked for again each time: its rights are to be others, or somebody removed its name. */
static void ask_for(struct control *c, struct listener_fd *f, const struct weir_conf_listener *l)
{
    struct root_msg m = {.kind = ROOT_LISTEN, .unit = f->id, .flags = l->mode, .ms = l->backlog};
    const char *group = l->group ? l->group : "";
    if ((f->fd >= 0 && !l->mode) || (f->asked && !f->answered && f->mode == l->mode && strcmp(f->group, group) == 0)) return;
    snprintf(f->group, sizeof f->group, "%s", group);
    memcpy(m.group, f->group, sizeof m.group);
    f->mode = l->mode;
    f->asked = true;
    f->answered = false;
    if (address_of(f, &m)) {
        root_send(c, &m, NULL, 0);
        return;
    }
    f->answered = true;
    f->code = EINVAL;
}

/* A pool that waits for its socket. */
static void touch_those_on(struct control *c, const struct listener_fd *f)
{
    for (struct weir_list *l = c->pools.next; l != &c->pools; l = l->next) {
        struct pool *p = WEIR_CONTAINER(l, struct pool, link);
        if (p->conf && p->conf->listen && strcmp(p->conf->listen->address.socket, f->socket) == 0) pool_touch(c, p);
    }
}

/* It was stopped: nobody is accepted until it starts again. */
void reload_close_socket(struct control *c, const struct weir_conf_listener *l)
{
    struct listener_fd *f = listener_for(c, l);
    if (f) close_listener(c, f);
}

bool reload_open_socket(struct control *c, const struct weir_conf_listener *l, int *code)
{
    struct listener_fd *f = listener_for(c, l);
    *code = f && f->answered ? f->code : 0;
    if (!f || f->fd >= 0) return f != NULL;
    if (!f->asked || f->answered) ask_for(c, f, l);
    return false;
}

bool reload_socket_address(struct control *c, const struct weir_conf_listener *l, struct root_msg *m)
{
    const struct listener_fd *f = listener_for(c, l);
    return f && f->fd >= 0 && address_of(f, m);
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 ? st.st_ino : 0;
}

uint64_t reload_socket(struct control *c, const struct weir_conf_listener *l)
{
    const struct listener_fd *f = listener_for(c, l);
    return f ? inode_of(f->fd) : 0;
}

void reload_listening(struct control *c, const struct root_msg *m, int fd)
{
    for (size_t i = 0; i < c->listener_count; i++) {
        struct listener_fd *f = &c->listeners[i];
        if (f->id != m->unit) continue;
        f->answered = true;
        if (f->fd >= 0 && fd >= 0 && inode_of(f->fd) != inode_of(fd) && named(c->conf, f)) c->config_version++; /* the gateway is given the new one */
        f->code = m->code;
        if (fd >= 0 && f->fd >= 0) close(f->fd);
        if (fd >= 0) f->fd = fd;
        touch_those_on(c, f);
        reload_goes_on(c);
        return;
    }
    if (fd >= 0) close(fd);
}

/* ---- texts ---- */

static void text_of(const struct weir_config_report *r, char *why, size_t len)
{
    FILE *f = fmemopen(why, len, "w");
    if (!f) return;
    weir_config_report_print(r, f);
    fclose(f);
}

/* Lines for the log; words in them are strangers'. */
static void tell(const char *text)
{
    char line[4096];
    for (const char *p = text, *end; *p; p = *end ? end + 1 : end) {
        end = strchrnul(p, '\n');
        size_t n = weir_text_escape(line, sizeof line - 1, p, (size_t)(end - p));
        line[n] = 0;
        fprintf(output_stream(), "%s\n", line);
    }
}

static void tell_all(const struct weir_config_report *r)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f) return;
    weir_config_report_print(r, f);
    if (fclose(f) == 0) tell(text);
    free(text);
}

/* Users are settled when the root part starts. */
static void check_users(const struct control *c, const struct weir_config *conf)
{
    const struct passwd *pw = c->o.privileged ? getpwuid(geteuid()) : NULL;
    if (pw && !c->o.dir && strcmp(pw->pw_name, conf->user) != 0)
        say("control runs as %s, the configuration says %s: it holds from the next start on", pw->pw_name, conf->user);
    if (conf->control_path && c->control_path[0] && strcmp(conf->control_path, c->control_path) != 0)
        say("the control socket is %s, the configuration says %s: it holds from the next start on", c->control_path, conf->control_path);
}

/* ---- the end of it ---- */

static void forget_next(struct control *c)
{
    weir_config_drop(c->next);
    weir_config_sources_free(&c->next_sources);
    c->next = NULL;
    c->reloading = false;
}

static void fail(struct control *c, const char *why)
{
    bool first = c->conf == NULL;
    forget_next(c);
    if (!first) keys_settle(c);
    for (size_t i = 0; !first && i < count_of(c->conf); i++) { /* with the rights that the one in use tells */
        struct listener_fd *f = listener_for(c, listener_of(c->conf, i));
        if (f) ask_for(c, f, listener_of(c->conf, i));
    }
    reload_drop_listeners(c);
    command_reloaded(c, why);
    if (first || c->reload_by_signal) tell(why);
    if (!first && c->reload_by_signal) say("the old configuration stays in use");
    if (first) { /* nothing runs yet: there is nothing to keep */
        c->ending = true;
        root_send(c, &(struct root_msg){.kind = ROOT_STOP, .code = 1}, NULL, 0);
    }
    tell_ready(c, "; the last reload failed: the old configuration stays in use");
    c->reload_by_signal = false;
}

static int pack(const struct weir_config_sources *src)
{
    struct weir_buf packed = {0};
    int fd = weir_config_pack(src, &packed) == WEIR_OK ? weir_link_memfd("weir-config", weir_buf_ptr(&packed), weir_buf_len(&packed)) : -1;
    weir_buf_fini(&packed);
    return fd;
}

static void take(struct control *c)
{
    struct weir_config *old = c->conf;
    bool first = old == NULL;
    int memfd = pack(&c->next_sources);
    if (memfd < 0) {
        fail(c, "weir: out of descriptors or memory\n");
        return;
    }
    if (c->config_memfd >= 0) close(c->config_memfd);
    c->config_memfd = memfd;
    weir_config_sources_free(&c->sources);
    c->sources = c->next_sources;
    c->next_sources = (struct weir_config_sources){0};
    c->conf = c->next;
    c->next = NULL;
    c->reloading = false;
    c->config_version++;
    keys_settle(c);
    check_users(c, c->conf);
    pools_plan(c);
    weir_config_drop(old);
    malloc_trim(0); /* two configurations were there at once */
    root_send(c, &(struct root_msg){.kind = ROOT_KEEP}, &memfd, 1); /* for the next control: what is in use */
    if (gateways_count(c) == 0) reload_drop_listeners(c); /* else when the gateway does not need them any more */
    if (first) orders_begin(c);
    else orders_keep(c); /* how pools are driven lasts until here */
    output_apps(c->conf->app_log, c->conf->app_log_json);
    denied_file_begin(c);
    files_begin(c);
    if (first || !c->control_path[0]) command_listen(c); /* what was in its way may be gone */
    else command_mode(c);
    if (c->reload_by_signal) say("the configuration was read again");
    c->reload_by_signal = false;
    tell_ready(c, "");
    command_reloaded(c, NULL);
    if (c->read_later) {
        c->read_later = false;
        files_ask(c);
    }
}

const char *reload_unix_trouble(int code)
{
    switch (code) {
    case EADDRINUSE: return "another program answers there: stop it, or choose another path";
    case ENOTSOCK: return "what is there is no socket: remove it, or choose another path";
    case ELOOP: return "a name on the way is a link, or no folder: write the path without links";
    case EPERM: return "others than root may change a folder on the way: choose one such as /run/weir";
    case ESRCH: return "there is no such group: create it with groupadd, or name another";
    case ENOENT: return "its folder does not exist: create it";
    default: return strerror(code);
    }
}

/* The listeners of the coming configuration are there, or one of them cannot be. */
void reload_goes_on(struct control *c)
{
    if (!c->reloading) return;
    for (size_t i = 0; i < count_of(c->next); i++) {
        const struct listener_fd *f = listener_for(c, listener_of(c->next, i));
        if (f && !f->answered) return;
    }
    if (!keys_answered(c, c->next)) return;
    for (size_t i = 0; i < c->next->listener_count; i++) {
        const struct weir_conf_listener *l = &c->next->listeners[i];
        const struct listener_fd *f = listener_for(c, l);
        char why[512];
        if (f && f->fd >= 0 && (!f->code || !c->conf)) continue; /* a control that was started anew takes what is there */
        snprintf(why, sizeof why, "weir: %s:%u:%u: cannot listen on %s: %s\n", l->place.file, l->place.line, l->place.column, l->address.text,
                 !f                        ? "there are too many listeners"
                 : strncmp(f->socket, "unix:", 5) == 0 ? reload_unix_trouble(f->code)
                 : f->code == EADDRINUSE   ? "the port is in use: stop the other program, or choose another port"
                 : f->code == EACCES       ? "only root may use this port: choose one above 1023"
                 : f->code == EADDRNOTAVAIL ? "this machine does not have that address"
                                           : strerror(f->code));
        fail(c, why);
        return;
    }
    take(c);
}

/* ---- the beginning ---- */

static const char *dir_user(const struct control *c, char *out, size_t len)
{
    struct stat st;
    if (!c->o.privileged || stat(c->o.dir, &st) < 0) return NULL;
    struct passwd *pw = st.st_uid ? getpwuid(st.st_uid) : NULL;
    snprintf(out, len, "%s", pw ? pw->pw_name : "weir-demo");
    return out;
}

static int read_sources(struct control *c, int fd, bool kept, struct weir_config_report *report)
{
    char user[64], *bytes = NULL;
    size_t len;
    if (kept) {
        int status = weir_link_memfd_read(fd, 64u << 20, &bytes, &len);
        if (status == WEIR_OK) status = weir_config_unpack(bytes, len, &c->next_sources);
        free(bytes);
        return status;
    }
    if (c->o.dir) return weir_config_for_dir(c->o.dir, c->o.listen, dir_user(c, user, sizeof user), &c->next_sources, report);
    return weir_config_read_fd(fd, c->o.config_path, &c->sources, &c->next_sources, report);
}

static const struct weir_config_source *source_of(const struct weir_config_sources *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->list[i].name, name) == 0) return &s->list[i];
    return NULL;
}

/* Its last good version stands for an included file with mistakes, or nothing does. */
static bool mend_source(struct control *c, struct weir_config_source *s)
{
    const struct weir_config_source *old = source_of(&c->sources, s->name);
    bool usable = old && !old->lost && (s->problem || old->len != s->len || memcmp(old->text, s->text, s->len) != 0);
    if (s->lost) return false;
    char *text = usable ? malloc(old->len + 1) : NULL;
    if (usable && (!text || weir_config_take_homes(&c->next_sources, &c->sources) < 0)) {
        free(text);
        return false;
    }
    weir_config_source_lose(s);
    if (usable) {
        memcpy(text, old->text, old->len + 1);
        free(s->text);
        s->text = text;
        s->len = old->len;
    }
    s->lost = !usable;
    s->same = usable;
    s->id = (struct weir_config_identity){0}; /* what is wrong may be mended elsewhere: it is read again */
    c->has_mistakes = true;
    say("%s has mistakes: %s", s->name, usable ? "its last good version stays in use" : "nothing of it is used");
    return true;
}

/* True: another try is worth it. The main file is all or nothing. */
static bool mend_includes(struct control *c, const struct weir_config_report *r)
{
    struct weir_config_sources *s = &c->next_sources;
    bool mended = false;
    if (s->count == 0 || weir_config_has_mistakes(r, s->list[0].name)) return false;
    for (size_t i = 1; i < s->count; i++)
        if (weir_config_has_mistakes(r, s->list[i].name)) mended |= mend_source(c, &s->list[i]);
    return mended;
}

void reload_begin(struct control *c, int fd, bool kept, bool by_signal)
{
    struct weir_config_report report;
    char why[8192] = "";
    if (c->reloading) forget_next(c);
    c->reload_by_signal = by_signal;
    c->has_mistakes = false;
    weir_config_report_init(&report);
    int status = read_sources(c, fd, kept, &report);
    for (int tries = 0; status == WEIR_OK && tries < MEND_TRIES; tries++) {
        status = weir_config_parse(&c->next_sources, &c->next, &report);
        if (status == WEIR_OK && report.later == 0 && (!c->conf || weir_config_check_roots(c->next, c->conf, c->next_sources.list[0].name, &report))) break;
        text_of(&report, why, sizeof why);
        if (!mend_includes(c, &report)) {
            status = WEIR_INVALID;
            break;
        }
        tell_all(&report);
        why[0] = 0;
        weir_config_drop(c->next);
        c->next = NULL;
        weir_config_report_fini(&report);
        weir_config_report_init(&report);
        status = WEIR_OK;
    }
    if (c->next && status == WEIR_OK) {
        weir_config_check_machine(c->next, c->o.privileged, &report);
        if (report.errors) c->has_mistakes = true;
        tell_all(&report);
    } else if (!why[0]) {
        text_of(&report, why, sizeof why);
    }
    weir_config_report_fini(&report);
    if (status < 0 || !c->next) {
        fail(c, why[0] ? why : "weir: the configuration cannot be read\n");
        return;
    }
    for (size_t i = 0; c->o.no_sites && i < c->next->listener_count; i++)
        if (c->next->listeners[i].pool >= 0) say("listener %s is not open: that needs weir serve", c->next->listeners[i].name);
    if (c->o.no_sites) c->next->site_count = c->next->listener_count = 0;
    c->reloading = true;
    keys_ask(c, c->next);
    for (size_t i = 0; i < count_of(c->next); i++) {
        struct listener_fd *f = listener_for(c, listener_of(c->next, i));
        if (f) ask_for(c, f, listener_of(c->next, i));
    }
    reload_goes_on(c);
}

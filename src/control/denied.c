/* SPDX-License-Identifier: MIT */
/* Lists of denied networks, and the deny file: addresses one a line, read again when it changes. A line that is no address is
 * told and skipped; a file that cannot be read, or is too large, leaves the list as it was. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/internal.h"

#define DENY_FILE_MAX (8u << 20) /* bytes */
#define BAD_TOLD      5          /* lines with mistakes that are named */

/* ---- lists ---- */

static int compare(const struct weir_net *a, const struct weir_net *b)
{
    int order = memcmp(a->address, b->address, sizeof a->address);
    return order ? order : (int)a->bits - (int)b->bits;
}

/* Where it is, or belongs. */
static size_t place(const struct denied_list *l, const struct weir_net *net, bool *there)
{
    size_t low = 0, high = l->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&l->list[middle].net, net) < 0) low = middle + 1;
        else high = middle;
    }
    *there = low < l->count && compare(&l->list[low].net, net) == 0;
    return low;
}

enum denied_change denied_add(struct denied_list *l, const struct weir_net *net, int64_t until)
{
    bool there;
    size_t at = place(l, net, &there);
    if (until && (!l->next || until < l->next)) l->next = until;
    if (there) {
        l->list[at].until = until;
        return DENIED_CHANGED;
    }
    if (l->count == DENIED_MAX) return DENIED_FULL;
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        struct denied *grown = realloc(l->list, room * sizeof *grown);
        if (!grown) return DENIED_FULL;
        l->list = grown;
        l->room = room;
    }
    memmove(l->list + at + 1, l->list + at, (l->count - at) * sizeof *l->list);
    l->list[at] = (struct denied){.net = *net, .until = until};
    l->count++;
    return DENIED_NEW;
}

bool denied_remove(struct denied_list *l, const struct weir_net *net)
{
    bool there;
    size_t at = place(l, net, &there);
    if (!there) return false;
    l->count--;
    memmove(l->list + at, l->list + at + 1, (l->count - at) * sizeof *l->list);
    return true;
}

size_t denied_expire(struct denied_list *l, int64_t now)
{
    size_t kept = 0, before = l->count;
    if (!l->next || l->next > now) return 0;
    l->next = 0;
    for (size_t i = 0; i < before; i++) {
        int64_t until = l->list[i].until;
        if (until && until <= now) continue;
        if (until && (!l->next || until < l->next)) l->next = until;
        l->list[kept++] = l->list[i];
    }
    l->count = kept;
    return before - kept;
}

const struct denied *denied_covers(const struct denied_list *l, const struct weir_net *net)
{
    int least = net->bits >= 96 && weir_net_v4(net->address) ? 96 : 0;
    for (int bits = net->bits; bits >= least; bits--) {
        struct weir_net wider = {.bits = (uint8_t)bits};
        bool there;
        memcpy(wider.address, net->address, sizeof wider.address);
        weir_net_mask(wider.address, wider.bits);
        size_t at = place(l, &wider, &there);
        if (there) return &l->list[at];
    }
    return NULL;
}

/* ---- the deny file ---- */

struct reading {
    const char *path;
    struct denied_list list;
    size_t line, bad, more; /* more: beyond the limit */
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void read_line(struct reading *r, struct weir_str s)
{
    struct weir_net net;
    size_t len = 0;
    r->line++;
    while (s.len && blank(s.ptr[0])) s = weir_str(s.ptr + 1, s.len - 1);
    while (len < s.len && !blank(s.ptr[len]) && s.ptr[len] != '#') len++;
    size_t rest = len;
    while (rest < s.len && blank(s.ptr[rest])) rest++;
    if (len == 0 && (s.len == 0 || s.ptr[0] == '#')) return;
    bool alone = rest == s.len || s.ptr[rest] == '#';
    if (alone && weir_net_parse(weir_str(s.ptr, len), &net) == WEIR_OK && !weir_net_everybody(&net)) {
        if (denied_add(&r->list, &net, 0) == DENIED_FULL) r->more++;
        return;
    }
    if (r->bad++ < BAD_TOLD) say("%s:%zu: \"%.*s\" is no address and no network: the line is skipped", r->path, r->line, (int)(s.len < 60 ? s.len : 60), s.ptr);
}

static void read_text(struct reading *r, struct weir_str s)
{
    while (s.len) {
        const char *nl = memchr(s.ptr, '\n', s.len);
        size_t len = nl ? (size_t)(nl - s.ptr) : s.len;
        read_line(r, weir_str(s.ptr, len));
        len += nl != NULL;
        s = weir_str(s.ptr + len, s.len - len);
    }
    if (r->bad > BAD_TOLD) say("%s: %zu lines are skipped in all", r->path, r->bad);
    if (r->more) say("%s: %zu addresses are beyond %d and not denied: write networks", r->path, r->more, DENIED_MAX);
}

/* The file's bytes, malloc'd, or NULL and errno. */
static char *read_whole(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return NULL;
    int bad = fstat(fd, &st) < 0 ? errno : !S_ISREG(st.st_mode) ? EINVAL : st.st_size > (off_t)DENY_FILE_MAX ? EFBIG : 0;
    char *text = bad ? NULL : malloc((size_t)st.st_size + 1);
    ssize_t n = text ? pread(fd, text, (size_t)st.st_size, 0) : -1;
    if (text && n < 0) bad = errno;
    close(fd);
    if (n >= 0) {
        *len = (size_t)n;
        return text;
    }
    free(text);
    errno = bad ? bad : ENOMEM;
    return NULL;
}

void denied_file_read(struct control *c)
{
    struct reading r = {.path = c->conf->deny_file};
    size_t len;
    char *text = r.path ? read_whole(r.path, &len) : NULL;
    if (r.path && !text) {
        say("the deny file %s cannot be read: %s: %zu addresses of before stay denied", r.path, strerror(errno), c->orders.filed.count);
        return;
    }
    if (text) read_text(&r, weir_str(text, len));
    free(text);
    struct denied_list *old = &c->orders.filed;
    bool same = r.list.count == old->count && (!old->count || memcmp(r.list.list, old->list, old->count * sizeof *old->list) == 0);
    free(old->list);
    *old = r.list;
    if (same) return;
    c->orders.version++;
    if (r.path) say("%s: %zu addresses are denied", r.path, old->count);
}

void denied_file_begin(struct control *c)
{
    if (c->conf->deny_file || c->orders.filed.count) denied_file_read(c);
}

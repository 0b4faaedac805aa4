/* SPDX-License-Identifier: MIT */
/* The one place where descriptors of files and listening sockets are made. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "loop/loop_internal.h"

#define MAX_DEPTH 64 /* folders below the root */
#define MAX_LINKS 16
#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

static int openat2_beneath(int dir_fd, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)((flags & ~WEIR_OPEN_CACHED) | O_CLOEXEC),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    if (flags & WEIR_OPEN_CACHED) how.resolve |= RESOLVE_CACHED;
    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
}

/* ---- the walk that follows trusted links ---- */

struct walk {
    const struct weir_open_area *areas, *base; /* base: the one whose folder is fds[0] */
    size_t area_count;
    int fds[MAX_DEPTH]; /* fds[0] is borrowed, the last one where we are */
    int depth;
    int links;
    char rest[4096]; /* path still to go */
    int owner_count; /* links whose target we are on the way to */
    struct {
        uid_t uid;
        size_t rest_len; /* the target is reached when rest is this short */
    } owners[MAX_LINKS];
};

static void walk_end(struct walk *w)
{
    while (w->depth > 1) close(w->fds[--w->depth]);
}

static int walk_fail(struct walk *w, int err)
{
    walk_end(w);
    errno = err;
    return WEIR_SYSTEM;
}

/* Every link whose target is reached here must belong to the target's owner. */
static bool owners_agree(struct walk *w, uid_t uid)
{
    size_t len = strlen(w->rest);
    while (w->owner_count && w->owners[w->owner_count - 1].rest_len >= len)
        if (w->owners[--w->owner_count].uid != uid) return false;
    return true;
}

/* Puts the link's text in front of the rest. */
static int follow(struct walk *w, int link_fd, uid_t uid)
{
    char target[2048], joined[sizeof w->rest];
    ssize_t n = readlinkat(link_fd, "", target, sizeof target - 1);
    if (n <= 0) return errno ? errno : EINVAL;
    target[n] = 0;
    if (++w->links > MAX_LINKS || w->owner_count >= MAX_LINKS) return ELOOP;
    size_t rest_len = strlen(w->rest);
    if (snprintf(joined, sizeof joined, "%s%s%s", target, rest_len ? "/" : "", w->rest) >= (int)sizeof joined)
        return ENAMETOOLONG;
    w->owners[w->owner_count].uid = uid;
    w->owners[w->owner_count++].rest_len = rest_len;
    memcpy(w->rest, joined, strlen(joined) + 1);
    return 0;
}

/* Takes the first name of the rest; empty names and "." vanish. */
static bool next_name(struct walk *w, char name[256])
{
    char *p = w->rest + strspn(w->rest, "/");
    size_t n = strcspn(p, "/");
    if (n == 0 || n > 255) {
        name[0] = 0;
        if (n == 0) w->rest[0] = 0;
        return n == 0;
    }
    memcpy(name, p, n);
    name[n] = 0;
    p += n;
    p += strspn(p, "/");
    memmove(w->rest, p, strlen(p) + 1);
    return true;
}

/* ---- from one area into another ---- */

/* "/a/b" and "c" -> "/a/b/c"; ".." takes the last name away. False: too long. */
static bool step(char *at, size_t size, const char *name)
{
    size_t n = strlen(at);
    if (strcmp(name, ".") == 0) return true;
    if (strcmp(name, "..") == 0) {
        while (n && at[n - 1] != '/') n--;
        at[n ? n - 1 : 0] = 0;
        return true;
    }
    return snprintf(at + n, size - n, "/%s", name) < (int)(size - n);
}

static const struct weir_open_area *area_at(const struct walk *w, const char *path)
{
    for (size_t i = 0; i < w->area_count; i++)
        if (w->areas[i].path && strcmp(w->areas[i].path, path) == 0) return &w->areas[i];
    return NULL;
}

/* The rest is followed as a text, from a folder outside, until it comes to an area: what lies between is not looked at. An errno. */
static int enter(struct walk *w, char at[static 4096])
{
    char name[256];
    struct stat st;
    const struct weir_open_area *area;
    if (w->area_count < 2) return EXDEV;
    while (!(area = area_at(w, at))) {
        if (!w->rest[0]) return EXDEV;
        if (!next_name(w, name) || (name[0] && !step(at, 4096, name))) return ENAMETOOLONG;
    }
    walk_end(w);
    w->base = area;
    w->fds[0] = area->fd;
    if (fstat(area->fd, &st) < 0) return EIO;
    return owners_agree(w, st.st_uid) ? 0 : EACCES;
}

/* To the folder above the area in which we are. */
static int leave(struct walk *w)
{
    char from[4096];
    if (!w->base->path || snprintf(from, sizeof from, "%s", w->base->path) >= (int)sizeof from || !step(from, sizeof from, "..")) return EXDEV;
    return enter(w, from);
}

/* To where a link leads that begins at the root of all. */
static int jump(struct walk *w)
{
    char from[4096] = "";
    return enter(w, from);
}

static int walk_open(const struct weir_open_area *areas, size_t count, const char *path, int flags)
{
    struct walk w = {.areas = areas, .area_count = count, .base = areas, .depth = 1};
    char name[256];
    struct stat st;
    w.fds[0] = areas[0].fd;
    if (snprintf(w.rest, sizeof w.rest, "%s", path) >= (int)sizeof w.rest) return walk_fail(&w, ENAMETOOLONG);
    for (;;) {
        if (!next_name(&w, name)) return walk_fail(&w, ENAMETOOLONG);
        int here = w.fds[w.depth - 1];
        if (name[0] == 0) { /* the end is a folder that we hold by O_PATH */
            if (fstat(here, &st) < 0) return walk_fail(&w, errno);
            if (!owners_agree(&w, st.st_uid)) return walk_fail(&w, EACCES);
            int fd = openat(here, ".", flags | O_CLOEXEC | O_NOFOLLOW);
            if (fd < 0) return walk_fail(&w, errno);
            walk_end(&w);
            return fd;
        }
        if (strcmp(name, ".") == 0) continue;
        if (strcmp(name, "..") == 0) {
            if (w.depth == 1) {
                int err = leave(&w);
                if (err) return walk_fail(&w, err);
                continue;
            }
            close(w.fds[--w.depth]);
            if (fstat(w.fds[w.depth - 1], &st) < 0 || !owners_agree(&w, st.st_uid)) return walk_fail(&w, EACCES);
            continue;
        }
        int fd = openat(here, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) return walk_fail(&w, errno);
        if (fstat(fd, &st) < 0) {
            close(fd);
            return walk_fail(&w, EIO);
        }
        if (S_ISLNK(st.st_mode)) {
            int err = follow(&w, fd, st.st_uid);
            close(fd);
            if (!err && w.rest[0] == '/') err = jump(&w);
            if (err) return walk_fail(&w, err);
            continue;
        }
        if (!owners_agree(&w, st.st_uid)) {
            close(fd);
            return walk_fail(&w, EACCES);
        }
        if (S_ISDIR(st.st_mode)) {
            if (w.depth >= MAX_DEPTH) {
                close(fd);
                return walk_fail(&w, ELOOP);
            }
            w.fds[w.depth++] = fd;
            continue;
        }
        close(fd);
        if (w.rest[0]) return walk_fail(&w, ENOTDIR);
        fd = openat(here, name, flags | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) return walk_fail(&w, errno);
        struct stat now;
        if (fstat(fd, &now) < 0 || now.st_ino != st.st_ino || now.st_dev != st.st_dev) { /* swapped meanwhile */
            close(fd);
            return walk_fail(&w, EACCES);
        }
        walk_end(&w);
        return fd;
    }
}

int weir_open_linked(const struct weir_open_area *areas, size_t count, const char *path, int flags)
{
    if (path[0] == '/') {
        errno = EXDEV;
        return WEIR_SYSTEM;
    }
    if (path[0] == 0) path = ".";
    int fd = openat2_beneath(areas[0].fd, path, flags);
    if (fd >= 0) return fd;
    if (errno != ELOOP && errno != ENOSYS) return WEIR_SYSTEM;
    if (flags & WEIR_OPEN_CACHED) { /* the walk may wait for the disk */
        errno = EAGAIN;
        return WEIR_SYSTEM;
    }
    return walk_open(areas, count, path, flags);
}

/* Is the folder that is open here whose all links on the way to it are: its owner's, or root's? */
static bool links_are_trusted(const struct walk *w, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return false;
    for (int i = 0; i < w->owner_count; i++)
        if (w->owners[i].uid != 0 && w->owners[i].uid != st.st_uid) return false;
    return true;
}

/* The next name of the rest, from the folder `here`: its descriptor, `here` again behind a link, or -1. `here` is closed if it is left. */
static int go_down(struct walk *w, int here, const char *name)
{
    struct stat st;
    int fd = openat(here, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), bad = fd < 0 ? errno : fstat(fd, &st) < 0 ? errno : 0;
    bool link = !bad && S_ISLNK(st.st_mode);
    if (link) bad = follow(w, fd, st.st_uid);
    else if (!bad && !S_ISDIR(st.st_mode)) bad = ENOTDIR;
    if ((link || bad) && fd >= 0) close(fd);
    if (link && !bad && w->rest[0] != '/') return here;
    close(here);
    if (link && !bad) return open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    errno = bad;
    return bad ? -1 : fd;
}

/* Nobody serves another one's files by making a link of his own folder, or of one on the way to it: each link is looked at where it is
 * followed. */
int weir_open_dir(const char *path)
{
    struct walk w = {.depth = 0};
    char name[256];
    if (snprintf(w.rest, sizeof w.rest, "%s", path) >= (int)sizeof w.rest) {
        errno = ENAMETOOLONG;
        return WEIR_SYSTEM;
    }
    int here = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    while (here >= 0 && w.rest[0]) {
        if (next_name(&w, name)) {
            if (name[0]) here = go_down(&w, here, name);
            continue;
        }
        close(here);
        errno = ENAMETOOLONG;
        here = -1;
    }
    if (here < 0) return WEIR_SYSTEM;
    if (links_are_trusted(&w, here)) return here;
    close(here);
    errno = EACCES;
    return WEIR_SYSTEM;
}

int weir_open_append(const char *path, unsigned mode)
{
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
    for (int tries = 0; tries < 2; tries++) { /* again, if another one made it just now */
        int fd = open(path, flags);
        if (fd >= 0 || errno != ENOENT) return fd < 0 ? WEIR_SYSTEM : fd;
        fd = open(path, flags | O_CREAT | O_EXCL, mode);
        if (fd >= 0) fchmod(fd, mode); /* whatever the umask */
        if (fd >= 0 || errno != EEXIST) return fd < 0 ? WEIR_SYSTEM : fd;
    }
    return WEIR_SYSTEM;
}

int weir_open_temp(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    for (int tries = 0; tries < 16; tries++) {
        uint64_t r;
        char path[4096];
        if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r) return WEIR_SYSTEM;
        if (snprintf(path, sizeof path, "%s/weir-%016llx", dir, (unsigned long long)r) >= (int)sizeof path) break;
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            unlink(path);
            return fd;
        }
        if (errno != EEXIST) break;
    }
    return WEIR_SYSTEM;
}

/* ---- listening sockets ---- */

/* A socket file nobody listens on is removed, one that answers is left alone. */
static void remove_dead_socket(const struct sockaddr_storage *at, uint32_t len)
{
    const struct sockaddr_un *u = (const void *)at;
    struct stat st;
    if (lstat(u->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    if (connect(fd, (const struct sockaddr *)at, len) < 0 && errno == ECONNREFUSED) unlink(u->sun_path);
    close(fd);
}

int weir_open_listener(const struct sockaddr_storage *at, uint32_t len, int *error)
{
    int one = 1, zero = 0;
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *error = errno;
        return WEIR_SYSTEM;
    }
    if (at->ss_family == AF_UNIX) {
        remove_dead_socket(at, len);
        fchmod(fd, 0600); /* nobody connects before its owner has set what it is to be */
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (at->ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    }
    if (bind(fd, (const struct sockaddr *)at, len) < 0 || listen(fd, 4096) < 0) {
        *error = errno;
        close(fd);
        return WEIR_SYSTEM;
    }
    return fd;
}

void weir_close_listener(const struct sockaddr_storage *at, uint32_t len, int fd)
{
    shutdown(fd, SHUT_RDWR); /* whoever still holds it */
    if (at->ss_family == AF_UNIX) remove_dead_socket(at, len);
}

/* ---- addresses ---- */

static int parse_unix(struct weir_str path, struct sockaddr_storage *out, uint32_t *len)
{
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    if (path.len == 0 || path.len >= sizeof u.sun_path || memchr(path.ptr, 0, path.len)) return WEIR_INVALID;
    memcpy(u.sun_path, path.ptr, path.len);
    memcpy(out, &u, sizeof u);
    *len = (uint32_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    return WEIR_OK;
}

int weir_address_parse(struct weir_str text, struct sockaddr_storage *out, uint32_t *len) /* FC1-2.2-d */
{
    memset(out, 0, sizeof *out);
    if (weir_str_prefix(text, WEIR_STR("unix:")))
        return parse_unix(weir_str(text.ptr + 5, text.len - 5), out, len);
    if (weir_str_prefix(text, WEIR_STR("fastcgi://"))) text = weir_str(text.ptr + 10, text.len - 10);
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':') colon--;
    uint64_t port;
    if (colon == 0 || weir_str_u64(weir_str(text.ptr + colon, text.len - colon), 65535, &port) < 0) return WEIR_INVALID;
    struct weir_str host = weir_str(text.ptr, colon - 1);
    bool bracket = host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
    if (bracket) host = weir_str(host.ptr + 1, host.len - 2);
    char name[INET6_ADDRSTRLEN];
    if (host.len >= sizeof name) return WEIR_INVALID;
    memcpy(name, host.ptr, host.len);
    name[host.len] = 0;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (strcmp(name, "*") == 0) {
        /* both families where the machine has them: the caller binds :: with V6ONLY off, or 0.0.0.0 */
        int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (probe >= 0) {
            struct sockaddr_in6 any = {.sin6_family = AF_INET6};
            bool usable = bind(probe, (struct sockaddr *)&any, sizeof any) == 0;
            close(probe);
            if (usable) {
                memcpy(out, &v6, sizeof v6);
                *len = sizeof v6;
                return WEIR_OK;
            }
        }
        memcpy(out, &v4, sizeof v4);
        *len = sizeof v4;
        return WEIR_OK;
    }
    if (!bracket && inet_pton(AF_INET, name, &v4.sin_addr) == 1) {
        memcpy(out, &v4, sizeof v4);
        *len = sizeof v4;
        return WEIR_OK;
    }
    if (bracket && inet_pton(AF_INET6, name, &v6.sin6_addr) == 1) {
        memcpy(out, &v6, sizeof v6);
        *len = sizeof v6;
        return WEIR_OK;
    }
    return WEIR_INVALID;
}

/* Every request asks for two of these: inet_ntop goes through printf. */
static void v4_text(const void *address, char *out, size_t out_len)
{
    const uint8_t *b = address;
    char text[INET_ADDRSTRLEN];
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        n += weir_u64_text(text + n, b[i]);
        if (i < 3) text[n++] = '.';
    }
    if (n >= out_len) n = out_len - 1;
    memcpy(out, text, n);
    out[n] = 0;
}

uint16_t weir_address_text(const struct sockaddr_storage *a, char *out, size_t out_len)
{
    out[0] = 0;
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)a;
        v4_text(&v4->sin_addr, out, out_len);
        return ntohs(v4->sin_port);
    }
    if (a->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)a;
        if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
            v4_text(&v6->sin6_addr.s6_addr[12], out, out_len);
        else
            inet_ntop(AF_INET6, &v6->sin6_addr, out, (socklen_t)out_len);
        return ntohs(v6->sin6_port);
    }
    snprintf(out, out_len, "unix:");
    return 0;
}

void weir_write_log(int fd, const char *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        p += n;
        len -= (size_t)n;
    }
}

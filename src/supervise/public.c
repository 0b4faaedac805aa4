/* SPDX-License-Identifier: MIT */
/* Listening sockets in the file system that foreign web servers connect to. Control says where; so nothing here follows a link, leaves
 * the folders that only root changes, or removes anything but a socket that nobody answers on. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervise/internal.h"

/* Only root (or we ourselves) may change what is in it; in a sticky one nobody touches what is another's. */
static int check_folder(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return errno;
    if (geteuid() != 0) return 0; /* no rights to abuse */
    if (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH) && !(st.st_mode & S_ISVTX))) return EPERM;
    return 0;
}

/* The folder of an absolute path, by its names, none of them a link: a descriptor and the last name, or -errno. */
static int open_folder(const char *path, char *name, size_t len)
{
    char part[128];
    const char *p = path;
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), bad = fd < 0 ? errno : 0;
    if (*p != '/') bad = EINVAL;
    while (!bad) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if (n == 0 || n >= sizeof part || n >= len) bad = EINVAL;
        if (!bad) bad = check_folder(fd);
        if (bad) break;
        memcpy(part, p, n);
        part[n] = 0;
        if (strcmp(part, ".") == 0 || strcmp(part, "..") == 0) bad = EINVAL;
        if (!bad && p[n] == 0) {
            memcpy(name, part, n + 1);
            return fd;
        }
        int next = bad ? -1 : openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (!bad && next < 0) bad = errno == ENOTDIR ? ELOOP : errno; /* a link, or no folder */
        close(fd);
        fd = next;
        p += n;
    }
    if (fd >= 0) close(fd);
    return -bad;
}

/* By its path: nobody but us can change where that leads. */
static int address_of(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    return snprintf(out->sun_path, sizeof out->sun_path, "%s", path) < (int)sizeof out->sun_path ? 0 : ENAMETOOLONG;
}

/* Removes a socket that nobody answers on. 0: nothing is there now; EADDRINUSE: somebody answers; ENOTSOCK: it is something else. */
static int remove_dead(int dir, const char *name, const struct sockaddr_un *at)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) return errno == ENOENT ? 0 : errno;
    if (!S_ISSOCK(st.st_mode)) return ENOTSOCK;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    int bad = connect(fd, (const struct sockaddr *)at, sizeof *at) < 0 ? errno : EADDRINUSE;
    close(fd);
    if (bad != ECONNREFUSED) return bad == ENOENT ? 0 : EADDRINUSE; /* EAGAIN: its backlog is full; EPROTOTYPE: a datagram socket */
    return unlinkat(dir, name, 0) < 0 && errno != ENOENT ? errno : 0;
}

/* Owner, group and mode of the socket of this name, if it is the one that we made: somebody else may have put his there since. */
static int set_rights(int dir, const char *name, const struct identity *owner, gid_t gid, mode_t mode, const struct held_name *made)
{
    char path[40];
    struct stat st;
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), bad = 0;
    if (fd < 0) return errno;
    if (fstat(fd, &st) < 0) bad = errno;
    else if (!S_ISSOCK(st.st_mode)) bad = ENOTSOCK;
    else if (st.st_dev != made->device || st.st_ino != made->inode) bad = EADDRINUSE;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!bad && fchownat(fd, "", geteuid() == 0 ? owner->uid : (uid_t)-1, gid, AT_EMPTY_PATH) < 0) bad = errno == EPERM ? EACCES : errno; /* not our group */
    if (!bad && chmod(path, mode) < 0) bad = errno;
    close(fd);
    return bad;
}

static int group_of(const char *group, gid_t usual, gid_t *out)
{
    *out = geteuid() == 0 ? usual : (gid_t)-1;
    if (!group[0]) return 0;
    errno = 0;
    const struct group *gr = getgrnam(group);
    if (!gr) return errno ? errno : ESRCH;
    *out = gr->gr_gid;
    return 0;
}

int public_socket(const char *path, const struct identity *owner, const char *group, mode_t mode, struct held_name *made)
{
    struct stat st;
    char name[108];
    struct sockaddr_un at;
    gid_t gid;
    int bad = group_of(group, owner->gid, &gid);
    if (bad) return -bad;
    int dir = open_folder(path, name, sizeof name);
    if (dir < 0) return dir;
    bad = address_of(path, &at);
    if (!bad) bad = remove_dead(dir, name, &at);
    int fd = bad ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!bad && fd < 0) bad = errno;
    if (!bad && fchmod(fd, 0600) < 0) bad = errno; /* nobody connects before its owner is set */
    bool bound = !bad && bind(fd, (const struct sockaddr *)&at, sizeof at) == 0;
    if (!bad && !bound) bad = errno;
    if (!bad && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) bad = errno; /* only we change the folder, or what is ours in it */
    if (!bad && (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())) bad = EADDRINUSE;
    if (!bad) *made = (struct held_name){st.st_dev, st.st_ino};
    if (!bad) bad = set_rights(dir, name, owner, gid, mode, made);
    if (!bad && listen(fd, 4096) < 0) bad = errno;
    if (bad && bound) unlinkat(dir, name, 0);
    if (bad && fd >= 0) close(fd);
    close(dir);
    return bad ? -bad : fd;
}

int public_socket_rights(const char *path, const struct identity *owner, const char *group, mode_t mode, const struct held_name *made)
{
    char name[108];
    gid_t gid;
    int bad = group_of(group, owner->gid, &gid);
    int dir = bad ? -1 : open_folder(path, name, sizeof name);
    if (!bad && dir < 0) return -dir;
    if (!bad) bad = set_rights(dir, name, owner, gid, mode, made);
    if (dir >= 0) close(dir);
    return bad;
}

void public_socket_end(const char *path)
{
    char name[108];
    struct sockaddr_un at;
    int dir = open_folder(path, name, sizeof name);
    if (dir < 0) return;
    if (address_of(path, &at) == 0) (void)remove_dead(dir, name, &at); /* another one's that took its place answers */
    close(dir);
}

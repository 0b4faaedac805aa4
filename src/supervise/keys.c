/* SPDX-License-Identifier: MIT */
/* Certificates and keys, which control and the gateway may not open. Control says which files; so only what looks like one of these is
 * handed out, by its bytes: nobody gets a descriptor of a file that is root's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervise/internal.h"

#define NAMES_MAX 32768

struct file {
    char *bytes;
    uint32_t len;
};

/* PEM, or an OCSP response in DER: a sequence of more than 127 bytes. */
static bool may_be_given(const struct file *f, bool pem)
{
    if (pem) return memmem(f->bytes, f->len, "-----BEGIN ", 11) != NULL;
    return f->len > 4 && (unsigned char)f->bytes[0] == 0x30 && (unsigned char)f->bytes[1] > 0x80;
}

static int read_file(const char *path, bool pem, struct file *out)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), bad = 0;
    if (fd < 0) return errno;
    if (fstat(fd, &st) < 0) bad = errno;
    else if (!S_ISREG(st.st_mode)) bad = EINVAL;
    else if (st.st_size > (off_t)ROOT_OPEN_MAX) bad = EFBIG;
    else if (!(out->bytes = malloc((size_t)st.st_size + 1))) bad = ENOMEM;
    ssize_t n = bad ? 0 : pread(fd, out->bytes, (size_t)st.st_size, 0);
    if (n < 0) bad = errno;
    else out->len = (uint32_t)n;
    close(fd);
    return bad ? bad : may_be_given(out, pem) ? 0 : EBADMSG;
}

static void drop(struct file *files)
{
    for (int i = 0; i < ROOT_OPEN_FILES; i++) {
        if (files[i].bytes) explicit_bzero(files[i].bytes, files[i].len);
        free(files[i].bytes);
        files[i] = (struct file){0};
    }
}

/* 0, or an errno, and *about: the name. */
static int read_set(char *const *names, struct file *files, const char **about)
{
    for (int i = 0; i < ROOT_OPEN_FILES; i++) {
        bool last = i == ROOT_OPEN_FILES - 1;
        if (!names[i][0]) continue;
        *about = names[i];
        int bad = names[i][0] == '/' ? read_file(names[i], !last, &files[i]) : EINVAL;
        if (bad && last) files[i].len = 0; /* it need not be there */
        else if (bad) return bad;
    }
    return 0;
}

static int pack(const struct file *files)
{
    int fd = memfd_create("weir-keys", MFD_CLOEXEC | MFD_ALLOW_SEALING), bad = fd < 0 ? errno : 0;
    uint32_t lens[ROOT_OPEN_FILES];
    for (int i = 0; i < ROOT_OPEN_FILES; i++) lens[i] = files[i].len;
    if (!bad && write(fd, lens, sizeof lens) != (ssize_t)sizeof lens) bad = EIO;
    for (int i = 0; i < ROOT_OPEN_FILES && !bad; i++)
        if (files[i].len && write(fd, files[i].bytes, files[i].len) != (ssize_t)files[i].len) bad = EIO;
    if (!bad && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) bad = errno;
    if (bad && fd >= 0) close(fd);
    return bad ? -bad : fd;
}

/* The names of an order: how many; all of them end. */
static size_t read_names(int memfd, char *room, char **names)
{
    off_t size = sealed_size(memfd, 1, NAMES_MAX);
    size_t n = 0;
    if (size < 0 || pread(memfd, room, (size_t)size, 0) != size || room[size - 1]) return 0;
    for (char *p = room; p < room + size && n < ROOT_OPEN_SETS * ROOT_OPEN_FILES; p += strlen(p) + 1) names[n++] = p;
    return n;
}

void open_keys(struct root *r, const struct root_msg *m, int memfd)
{
    static char room[NAMES_MAX];
    char *names[ROOT_OPEN_SETS * ROOT_OPEN_FILES];
    struct file files[ROOT_OPEN_FILES] = {{0}};
    struct root_msg answer = {.kind = ROOT_OPENED, .unit = m->unit, .code = EINVAL};
    size_t count = read_names(memfd, room, names);
    const char *about = "";
    int fd = -1;
    for (size_t i = 0; i + ROOT_OPEN_FILES <= count; i += ROOT_OPEN_FILES) {
        answer.code = read_set(names + i, files, &about);
        bool another = i + ROOT_OPEN_FILES < count && (answer.code == ENOENT || answer.code == ENOTDIR) && about == names[i];
        if (!another) break;
        drop(files);
    }
    if (!answer.code) fd = pack(files);
    if (fd < -1) answer.code = -fd;
    drop(files);
    if (answer.code) {
        size_t len = strlen(about), most = sizeof answer.text - 1;
        memcpy(answer.text, about + (len > most ? len - most : 0), (len > most ? most : len) + 1);
    }
    tell(r, answer, fd);
    if (fd >= 0) close(fd);
}

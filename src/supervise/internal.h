/* SPDX-License-Identifier: MIT */
/* supervise: what the files of the root part share. libc only; one thread; no configuration, no JSON, no network bytes, no
 * output of apps. root.c: the loop; unit.c: starting what runs; public.c: sockets for web
 * servers; keeper.c: the process above each unit. */
#ifndef WEIR_SUPERVISE_INTERNAL_H
#define WEIR_SUPERVISE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "supervise/proto.h"

struct identity { /* whom a process becomes */
    uid_t uid;
    gid_t gid;
    char name[40];
    bool change; /* false: stays who we are */
};
struct unit {
    uint64_t id;
    pid_t keeper, pid;
    uint64_t start_time;
    int channel; /* to the keeper */
    int log;     /* read end of its output, for a new control */
    int status;
    bool ending, told;
    char name[72], tag[ROOT_TAG_MAX], path[108];
};

/* ---- unit.c ---- */
int identity_of(const char *user, const char *group, struct identity *out); /* 0, or an errno */
/* A private listening socket at path, reachable by the gateway's group: a descriptor, or -errno. */
int private_socket(const char *path, const struct identity *owner, gid_t gateway);
/* The control socket: a descriptor, or -errno; -EADDRINUSE: another weir answers there. */
int control_socket(const char *path, const struct identity *owner);
/* Becomes this identity for good; 0, or an errno and *step. */
int become(const struct identity *who, const char **step);
void close_from(int first);
void reset_signals(void);
uint64_t start_time_of(pid_t pid);
/* What is in the memfd of a start; all strings are checked to end. */
struct spec {
    char *bytes;
    const char *dir;
    char **argv, **envp;
    uint32_t files, flags;
};
int spec_read(int memfd, struct spec *out); /* 0, or an errno */
void spec_free(struct spec *s);

/* ---- public.c ---- */
/* A listening socket for others at an absolute path, owned by `owner` and this group (empty: owner's): a descriptor, or -errno:
 * EADDRINUSE: somebody answers there; ENOTSOCK: something that is no socket is there; ELOOP: a name on the way is a link, or no
 * folder; EPERM: somebody else may change a folder on the way; ESRCH: no such group. */
int public_socket(const char *path, const struct identity *owner, const char *group, mode_t mode);
/* Of one that listens: 0, or an errno. */
int public_socket_rights(const char *path, const struct identity *owner, const char *group, mode_t mode);
/* Removes its name, when nobody listens on it any more (it was shut down). */
void public_socket_end(const char *path);

/* ---- keeper.c ---- */
struct keeper_msg { /* keeper -> root, and root -> keeper */
    uint32_t kind;  /* KEEPER_* */
    int32_t pid, code;
    uint32_t ms;
    uint64_t start_time, inode;
    char text[128], tag[ROOT_TAG_MAX];
};
enum { KEEPER_STARTED = 1, KEEPER_FAILED, KEEPER_EXITED, KEEPER_END, KEEPER_LOOK, KEEPER_KILL, KEEPER_LOOKED };
struct keeper_start {
    int channel, listener, out, err;
    int file; /* -1: none */
    struct spec spec;
    struct identity who;
};
/* Runs in a fork of the root part; never returns. */
_Noreturn void keeper_run(const struct keeper_start *s);
/* ---- look.c ---- */
struct process {
    pid_t pid, parent;
    bool below;
};
size_t read_below(pid_t top, struct process **out); /* all descendants of top; *out is the caller's to free */
/* The descendant of this process that holds this socket; 0: none. */
pid_t holder_of(uint64_t inode);
/* What it does, as far as the kernel tells: state, system call, where it waits. */
void describe_process(pid_t pid, char *out, size_t len);

/* ---- keeper.c ---- */
/* Kills every descendant of this process (children and, by reparenting, theirs) until none is left; sig first. */
void kill_descendants(int sig, unsigned ms);
#endif

/* SPDX-License-Identifier: MIT */
/* supervise: what the files of the root part share. libc only; one thread; no configuration, no JSON, no network bytes, no
 * output of apps. root.c: the loop; unit.c: starting what runs; keeper.c: the process above each unit; systemd.c: the service
 * manager; container.c: being the first process of a container. */
#ifndef WEIR_SUPERVISE_INTERNAL_H
#define WEIR_SUPERVISE_INTERNAL_H

#include <signal.h>
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

struct held { /* a listening socket for HTTP */
    int fd;
    uint32_t len;
    bool given;  /* by the service manager, and no listener has asked for it yet */
    bool kept;   /* given, and once opened by us: nobody else needs it */
    bool stored; /* the service manager has a copy, or there is none */
    _Alignas(struct sockaddr_storage) unsigned char address[128];
};

/* ---- root.c ---- */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* a line of ours: lost where nobody reads */

/* ---- systemd.c ---- */
void systemd_begin(void); /* as the process that it started, before anything is opened */
/* The TCP sockets that it gave, into list: how many. Anything else is closed. The environment says nothing of them any more. */
size_t systemd_take(struct held *list, size_t room);
void systemd_store(struct held *h); /* it keeps a copy over our death */
void systemd_unstore(const struct held *h);
/* Closes what it gave and nobody asked for, on this port (as the network has it) or, with 0, on all: true if there was any. */
bool systemd_drop_given(struct held *list, size_t *count, uint16_t port);
void systemd_ready(const char *status);
void systemd_reloading(void);
void systemd_stopping(void);
void systemd_alive(void);       /* if it watches us */
int64_t systemd_beat_ms(void);  /* how often it has to hear that */
/* What it could not take before is sent; true: there is still something. */
bool systemd_again(struct held *list, size_t count);

/* ---- container.c ---- */
/* As pid 1 the caller goes on in a child; we pass on the signals of set, reap, and exit as it does. False: no fork. */
bool container_begin(const sigset_t *set);
bool container_proc(void); /* /proc shows our own pid namespace; false: it was told */
/* Has this root what it takes to become these? False: it was told what is missing. */
bool container_rights(const struct identity *control, const struct identity *gateway);

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

/* SPDX-License-Identifier: MIT */
/* supervise: what the files of the root part share. libc only; one thread; no configuration, no JSON, no network bytes, no
 * output of apps. root.c: the loop; keys.c: certificates and keys; unit.c: starting what runs; look.c: what /proc tells; public.c: sockets for web servers; keeper.c: the process above
 * each unit; upgrade.c: the next version; systemd.c: the service manager; container.c: being the first process of a container. */
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
    gid_t groups[256];
    int group_count;
    bool change; /* false: stays who we are */
};
struct unit {
    uint64_t id;
    pid_t keeper, pid;
    int channel; /* to the keeper */
    int log, log_errors; /* read ends of its output, for a new control */
    int status;
    bool ending, told;
    bool lost; /* its first process ended before its workers */
    char name[72], tag[ROOT_TAG_MAX], path[108];
};


/* ---- root.c ---- */
struct held_name { /* which file a socket's name is */
    uint64_t device, inode;
};
struct held { /* a listening socket for others than apps */
    int fd;
    uint32_t len;
    struct held_name made; /* of one in the file system */
    bool given;  /* by the service manager, and no listener has asked for it yet */
    bool kept;   /* given, and once opened by us: nobody else needs it */
    bool stored; /* the service manager has a copy, or there is none */
    bool asked;  /* by the control that runs */
    _Alignas(struct sockaddr_storage) unsigned char address[128];
};

struct gateway { /* one serves; older ones finish what they have */
    pid_t pid;
    int channel;
};

struct waiting { /* a message that control has not taken yet */
    struct waiting *next;
    struct root_msg m;
    int fd;
};

struct root {
    const char *weir, *config;
    char **control_args;
    struct identity control_who, gateway_who;
    gid_t gateway_gid;
    char dir[64], name[24]; /* of our sockets; its last part */
    int base;               /* the folder above it */
    int signals, control, control_socket, kept, kept_orders;
    struct waiting *first_waiting, **last_waiting;
    size_t waiting_count;
    pid_t control_pid;
    struct gateway gateways[ROOT_GATEWAYS_MAX];
    size_t gateway_count;
    struct unit *units[ROOT_UNITS_MAX];
    size_t unit_count;
    struct held listeners[ROOT_LISTENERS_MAX];
    size_t listener_count;
    int64_t control_started_ms, control_due_ms, end_at_ms, keepers_at_ms, beat_at_ms;
    unsigned control_failures, interrupts, silent; /* silent: beats without an answer of control */
    int exit_code;
    char **argv;        /* of this process */
    char self[4096];    /* its program, as a path: what an upgrade starts */
    bool upgraded;      /* control and gateway are to follow */
    int lock;           /* of our folder, as long as we live; -1 */
    bool is_root, ending, control_stopped, answered, ready, manager_behind, units_told;
    bool read_later;    /* it was ordered (SIGHUP) while there was no control */
};
int64_t now_ms(void);
/* A message to control: sent, or kept until it takes it; fd stays the caller's. */
void tell(struct root *r, struct root_msg m, int fd);
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

/* ---- upgrade.c ---- */
/* Becomes the program that lies at r->self now, with all that this process holds. It returns only if that cannot be: told to
 * control, and all is as before. */
void upgrade(struct root *r);
/* In the new program: takes over what is in the memfd. False: it is not understood. */
bool upgrade_resume(struct root *r, int memfd);
/* The same, to find out whether it would be understood; nothing is touched. */
bool upgrade_check(int memfd);
/* It is not: becomes the old program (descriptor old) again. It returns only if not even that can be. */
void upgrade_back(struct root *r, int memfd, int old);

/* ---- run_dir.c ---- */
bool run_dir_make(struct root *r); /* what others left there is removed; false: errno */
void run_dir_remove(const struct root *r);

/* ---- unit.c ---- */
int identity_of(const char *user, const char *group, struct identity *out); /* 0, or an errno */
/* A private listening socket at path, reachable by the gateway's group: a descriptor, or -errno. */
int private_socket(const char *path, const struct identity *owner, gid_t gateway);
/* The control socket: a descriptor, or -errno; -EADDRINUSE: another weir answers there. */
int control_socket(const char *path, const struct identity *owner);
/* Becomes this identity for good; 0, or an errno and *step. */
int become(const struct identity *who, const char **step);
/* Sends h, with fd (-1: none) beside it; never waits. 0, or an errno. */
int send_with_fd(int to, struct msghdr *h, int fd);
void close_from(int first);
void reset_signals(void);
/* The folder for what control keeps over the end of everything, made where root has to make it; empty: there is none. */
void state_dir(bool is_root, const struct identity *control, char *out, size_t len);
/* What is in the memfd of a start; all strings are checked to end. */
struct spec {
    char *bytes;
    const char *dir;
    char **argv, **envp;
    uint32_t files, flags;
};
int spec_read(int memfd, struct spec *out); /* 0, or an errno */
/* Bytes of a memfd that nobody can change any more; -1: it is none, or shorter or longer than that. */
off_t sealed_size(int memfd, off_t least, off_t most);
void spec_free(struct spec *s);

/* ---- keys.c ---- */
void open_keys(struct root *r, const struct root_msg *m, int memfd);

/* ---- public.c ---- */
/* A listening socket for others at an absolute path, owned by `owner` and this group (empty: owner's): a descriptor, or -errno:
 * EADDRINUSE: somebody answers there; ENOTSOCK: something that is no socket is there; ELOOP: a name on the way is a link, or no
 * folder; EPERM: somebody else may change a folder on the way; ESRCH: no such group. */
int public_socket(const char *path, const struct identity *owner, const char *group, mode_t mode, struct held_name *made);
/* Of one that listens: 0, or an errno. */
int public_socket_rights(const char *path, const struct identity *owner, const char *group, mode_t mode, const struct held_name *made);
/* Removes its name, when nobody listens on it any more (it was shut down). */
void public_socket_end(const char *path);

/* ---- keeper.c ---- */
struct keeper_msg { /* keeper -> root, and root -> keeper */
    uint32_t kind;  /* KEEPER_* */
    int32_t pid, code;
    uint32_t ms;
    uint64_t inode;
    char text[128], tag[ROOT_TAG_MAX];
};
enum { KEEPER_STARTED = 1, KEEPER_FAILED, KEEPER_EXITED, KEEPER_END, KEEPER_LOOK, KEEPER_KILL, KEEPER_LOOKED, KEEPER_LOST };
struct keeper_start {
    int channel, listener, out, err;
    int file; /* -1: none */
    bool shared; /* web servers accept clients for the listener, too: it is not ours to end */
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

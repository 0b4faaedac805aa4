/* SPDX-License-Identifier: MIT */
/* What the root part and control say to each other: messages of one fixed size over a SOCK_SEQPACKET, descriptors beside
 * them, large content (arguments, environment) as a sealed memfd. The root part believes nothing that is not checked. */
#ifndef WEIR_SUPERVISE_PROTO_H
#define WEIR_SUPERVISE_PROTO_H

#include <stdint.h>

#define ROOT_PROTO_VERSION 7
#define ROOT_TAG_MAX       160
#define ROOT_SPEC_MAX      (1u << 20) /* bytes of a memfd */
#define ROOT_FDS_MAX       6         /* of a message */
#define ROOT_UNITS_MAX     4096
#define ROOT_LISTENERS_MAX 240
#define ROOT_GATEWAYS_MAX  4
#define ROOT_OPEN_FILES    3
#define ROOT_OPEN_SETS     2
#define ROOT_OPEN_MAX      (256u << 10) /* bytes of a file */

enum root_kind {
    /* control -> root */
    ROOT_LISTEN = 1, /* address: bind it, or give the one that is held already; answer LISTENING with its descriptor. A unix socket
                        (front): group (empty: the gateway's) and, in flags, mode; set anew on one that is held; made anew
                        if its name is gone; ms: its backlog (0: a long one) */
    ROOT_START,      /* unit, name, user, group, tag; fds: memfd, stdout, stderr to write, both to read, a file for the program
                        (ROOT_SPEC_FPM); answer STARTED or FAILED */
    ROOT_END,        /* unit, ms, code: end it by this signal (0: TERM), kill what is left after ms; answer EXITED */
    ROOT_GATEWAY,    /* start one more gateway; answer GATEWAY_UP with its link, or FAILED, unit 0 */
    ROOT_GATEWAY_END, /* pid; flags: 1: at once, else it finishes what it has */
    ROOT_RELINK,     /* pid: a new link to this gateway; answer GATEWAY_UP, if it runs */
    ROOT_TAG,        /* unit, tag: control's new note about it */
    ROOT_STOP,       /* end everything; code: the exit status */
    ROOT_READ,       /* open the configuration file (it may be root's alone); answer READ_AGAIN */
    ROOT_KEEP,       /* fd: the configuration that is in use now, as control packed it; given back in HELLO */
    ROOT_CONTROL_SOCKET, /* the control socket at its usual place, below a folder that only root changes; answer LISTENING, unit 0 */
    ROOT_LOOK,       /* unit, inode, tag: what does the process do that holds this socket (0: the first one)? answer LOOKED */
    ROOT_KILL,       /* unit, inode, tag: end the process that holds this socket, if one of the unit still does; answer LOOKED */
    ROOT_UNLISTEN,   /* address: nobody is accepted there any more; the socket is closed. Without one: all that this control did not
                        ask for (LISTEN) */
    ROOT_UPGRADE,    /* become the program that is installed now; answer UPGRADED */
    /* root -> control */
    ROOT_HELLO,      /* flags: 1: has root's rights, 2: fd is what was kept, 4: the gateway is to be replaced by its new version;
                        code: how many ROOT_UNIT, ROOT_UNIT_ERRORS and ROOT_ORDERS follow, ms: and behind them ROOT_GATEWAY_UP;
                        fd: else the configuration file, if there is one. First message */
    ROOT_UNIT,       /* after a restart of control: a unit that lives; tag, pid, name; flags: 1: it ends, 2: it is LOST;
                        fd: its stdout */
    ROOT_LISTENING,
    ROOT_STARTED,    /* unit, pid, text: the path of its socket */
    ROOT_FAILED,     /* unit (or 0: the gateway), code: errno, text: what failed */
    ROOT_EXITED,     /* unit, code: wait status of its first process; nothing of it is left */
    ROOT_LOST,       /* unit, code: wait status of the first process of a group (ROOT_SPEC_GROUP); its workers finish what runs, and
                        nobody is accepted any more; EXITED follows */
    ROOT_LOOKED,     /* unit, pid (0: none), text, tag as it was asked, flags: 1: it was told to end */
    ROOT_GATEWAY_UP, /* pid; fd: control's end of the link (none: ask again); flags: 1: it ran before */
    ROOT_GATEWAY_DOWN, /* pid, code: its wait status */
    ROOT_READ_AGAIN, /* flags: 1: by SIGHUP; fd: the configuration file, opened again */
    ROOT_ENDING,     /* everything ends now */
    ROOT_UPGRADED,   /* code: 0: this is the new root part, and control is to end, so that its new version starts; else an errno,
                        text: what failed; all is as before */
    /* control -> root */
    ROOT_KEEP_ORDERS, /* fd: what people ordered at run time, as control packed it; given back behind HELLO by ORDERS */
    /* root -> control */
    ROOT_ORDERS,     /* fd: what KEEP_ORDERS gave */
    ROOT_UNIT_ERRORS, /* behind each ROOT_UNIT: unit; fd: its stderr */
    ROOT_REOPEN,     /* SIGUSR1: open log files anew */
    /* both ways */
    ROOT_PING = 100, /* root -> control: are you there? control answers the same at once */
    /* control -> root */
    ROOT_OPEN,       /* unit; fd: a memfd with sets of ROOT_OPEN_FILES names, each with a NUL: a certificate, its key, an OCSP response. The first set
                        of which the first file is there is opened; "" is no file, and the last need not be there; answer OPENED */
    /* root -> control */
    ROOT_OPENED,     /* unit; fd: a memfd: ROOT_OPEN_FILES lengths (uint32_t), then what is in the files; code: else an errno, text: the end of the
                        name that it is about */
    /* control -> root */
    ROOT_READY       /* all is up, or a reload ended; text: a line for people, told to the service manager */
};

struct root_msg {
    uint32_t version, kind;
    uint64_t unit;
    uint64_t inode;
    int32_t pid, code;
    uint32_t ms, flags;
    char name[72];  /* of the unit's socket: pool and number; [A-Za-z0-9._-] */
    char user[40], group[40];
    char text[128];
    char tag[ROOT_TAG_MAX]; /* control's own; given back as it was */
    unsigned char address[128];
    uint32_t address_len;
    uint32_t reserved; /* 0 */
};

/* The memfd of ROOT_START: this, then NUL-terminated strings: folder, arguments, environment. */
struct root_spec {
    uint32_t version, argc, envc, files; /* files: soft RLIMIT_NOFILE */
    uint32_t flags;
};
#define ROOT_SPEC_FPM 1u /* the listening socket is fd 3, the program's file fd 4; fd 0 is /dev/null */
#define ROOT_SPEC_GROUP 2u /* its workers serve by themselves: they need not end with the first process */
#endif

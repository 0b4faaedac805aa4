/* SPDX-License-Identifier: MIT */
/* weir-cgi: FastCGI requests become plain CGI programs [RFC 3875], one process each. What its files share: main.c the options and
 * the turn; job.c one program, from its request to the end of its process; spawn.c the child; environ.c what it is told.
 *
 * A job is a process, not a request: the request may end before it (the client left, the program closed its output and goes on).
 * At most `workers` processes run at once, whatever their requests do. The server is told the same number as our capacity, so
 * that requests wait in its queue; one that comes while a program still goes on behind its answer waits here. */
#ifndef WEIR_RUNNER_H
#define WEIR_RUNNER_H

#include <pthread.h>
#include <sys/types.h>

#include "base/base.h"
#include "weir/app.h"

#define TERM_MS    2000 /* between TERM and KILL of a process group */
#define LINGER_MAX 64   /* groups whose first process ended and whose others have the rest of that time */

struct runner {
    struct weir_app *app;
    int epoll;
    char **program;        /* and its arguments, NULL behind them; program[0] NULL: SCRIPT_FILENAME says which */
    const char **roots;    /* folders, absolute: only what lies below one is run as a script */
    size_t root_count;
    uint32_t workers;      /* processes at once */
    uint32_t files;        /* soft RLIMIT_NOFILE of programs; 0: ours */
    int64_t behind_ms;     /* what a program may go on behind its request; 0: as long as it wants */
    char **environment;    /* of all programs: ours without what is meant for us */
    size_t environment_count;
    struct weir_list jobs;    /* that have a process, in the order of their starts */
    struct weir_list waiting; /* that have none yet */
    uint32_t running, lingering;
    struct job *dead;      /* freed at the end of the turn: events of it may still come in this one */
};

enum pipe_kind { PIPE_APP, PIPE_IN, PIPE_OUT, PIPE_ERR, PIPE_END }; /* APP: not a job's */
struct watch { /* a descriptor, and what epoll tells of it */
    enum pipe_kind kind;
    int fd;         /* -1: closed */
    bool on;
    struct job *job;
};
enum job_state {
    JOB_WAITS,  /* for a place among the running ones */
    JOB_RUNS,
    JOB_EXITED, /* its process ended; what it wrote is still on its way */
    JOB_TOLD,   /* its group got TERM */
    JOB_KILLED, /* and KILL */
    JOB_LINGERS /* told, and its first process ended; others of the group may still run */
};
struct job {
    struct weir_list link;
    struct runner *runner;
    struct weir_app_req *req; /* NULL: it has ended */
    enum job_state state;
    char *path;               /* of the program; the job's */
    pid_t pid;                /* also the group's: a zombie until the group is done with, so that the number stays ours */
    struct watch in, out, err, end;
    struct weir_buf body, held, lines; /* for the program; its output, its messages: what nobody took yet */
    int left_out, left_err;   /* EXITED: bytes that were in its pipes: what others add is not the program's */
    int64_t due_ms;           /* INT64_MAX: none */
    int status;               /* EXITED: its exit status, or 128 and its signal */
    bool answered;            /* it wrote something */
    struct job *next_dead;
};

int64_t now_ms(void);

/* main.c */
void watch_set(struct runner *r, struct watch *w, bool on);
void watch_close(struct watch *w);

/* job.c */
void job_begin(struct runner *r, struct weir_app_req *req); /* a request came */
void job_app_event(struct job *j, const struct weir_app_event *ev);
void job_event(struct watch *w);
void job_clock(struct job *j, int64_t now);
void job_stop(struct job *j);                               /* TERM, then KILL; its request has ended */
void jobs_start(struct runner *r);                          /* as many of the waiting ones as may run */
void jobs_bury(struct runner *r);                           /* at the end of a turn */

/* spawn.c */
struct child {
    const char *path, *dir;
    char *const *argv, *const *envp;
    int in, out, err;
    uint32_t files;
    volatile int error;     /* errno of what failed; 0: it runs */
    volatile bool in_folder; /* what failed was the exec */
};
/* pid, or -1 with error set: nothing was started. */
pid_t spawn(struct child *c);

/* environ.c */
WEIR_CHECK int environment_base(struct runner *r);
/* NAME=VALUE strings, NULL behind them, in the request's memory; NULL: memory. */
char **environment_of(const struct runner *r, struct weir_app_req *req, const char *script);
#endif

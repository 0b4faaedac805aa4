/* SPDX-License-Identifier: MIT */
/* The keeper of a unit: child subreaper, asleep until its process ends, the root part orders the end, or the root part is
 * gone. Whatever way: nothing that came out of the unit is left behind it, however it forked. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "supervise/internal.h"

/* ---- who is below us ---- */

struct process {
    pid_t pid, parent;
};

static size_t read_processes(struct process **out)
{
    size_t n = 0, cap = 0;
    struct process *list = NULL;
    DIR *d = opendir("/proc");
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[300], buf[512];
        int pid = atoi(e->d_name), parent;
        if (pid <= 0) continue;
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
        if (fd >= 0) close(fd);
        if (len <= 0) continue;
        buf[len] = 0;
        char *end = strrchr(buf, ')'); /* the name may hold anything */
        if (!end || sscanf(end + 1, " %*c %d", &parent) != 1) continue;
        if (n == cap) {
            cap = cap ? cap * 2 : 256;
            struct process *grown = realloc(list, cap * sizeof *grown);
            if (!grown) break;
            list = grown;
        }
        list[n++] = (struct process){pid, parent};
    }
    closedir(d);
    *out = list;
    return n;
}

static bool below(const struct process *list, size_t n, pid_t pid, pid_t top)
{
    for (int depth = 0; depth < 512 && pid > 1; depth++) {
        size_t i = 0;
        while (i < n && list[i].pid != pid) i++;
        if (i == n) return false;
        if (list[i].parent == top) return true;
        pid = list[i].parent;
    }
    return false;
}

/* Signals all of them once: how many there were. */
static size_t signal_all(int sig)
{
    struct process *list = NULL;
    size_t n = read_processes(&list), hit = 0;
    pid_t self = getpid();
    for (size_t i = 0; i < n; i++)
        if (below(list, n, list[i].pid, self) && kill(list[i].pid, sig) == 0) hit++;
    free(list);
    return hit;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Reaps all that ended; the status of `first` goes to *status. True: no child is left. */
static bool reap(pid_t first, int *status)
{
    for (;;) {
        int st;
        pid_t pid = waitpid(-1, &st, WNOHANG);
        if (pid < 0) return errno == ECHILD;
        if (pid == 0) return false;
        if (pid == first && status) *status = st;
    }
}

static void wait_children(pid_t first, int *status, int64_t until)
{
    while (!reap(first, status)) {
        int64_t left = until - now_ms();
        if (left <= 0) return;
        sigset_t set;
        struct timespec ts = {left / 1000, left % 1000 * 1000000};
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        sigtimedwait(&set, NULL, &ts);
    }
}

static void end_all(int sig, unsigned ms, pid_t first, int *status)
{
    if (sig && signal_all(sig)) wait_children(first, status, now_ms() + (int64_t)ms);
    for (int round = 0; round < 1000 && !reap(first, status); round++) { /* forks may outrun a round */
        signal_all(SIGKILL);
        wait_children(first, status, now_ms() + 20);
    }
}

void kill_descendants(int sig, unsigned ms)
{
    end_all(sig, ms, 0, NULL);
}

/* ---- the process ---- */

static void say(int channel, struct keeper_msg m)
{
    if (send(channel, &m, sizeof m, MSG_NOSIGNAL) < 0) return; /* the root part is gone: noticed by reading */
}

static void limit_files(uint32_t files)
{
    struct rlimit r;
    if (!files || getrlimit(RLIMIT_NOFILE, &r) < 0) return;
    r.rlim_cur = files < r.rlim_max ? files : r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* In the child: never returns. What goes wrong is written to `report`. */
static _Noreturn void run_process(const struct keeper_start *s, int report, pid_t keeper)
{
    const char *step = "set up the descriptors";
    struct keeper_msg m = {.kind = KEEPER_FAILED};
    int flags = fcntl(s->listener, F_GETFL);
    reset_signals();
    setsid();
    umask(022);
    limit_files(s->spec.files);
    /* O_NONBLOCK is a property of the socket that all who have it share; stock programs end on it */
    if (flags >= 0) fcntl(s->listener, F_SETFL, flags & ~O_NONBLOCK);
    int high_report = fcntl(report, F_DUPFD_CLOEXEC, 10), l = fcntl(s->listener, F_DUPFD, 10);
    int out = fcntl(s->out, F_DUPFD, 10), err = fcntl(s->err, F_DUPFD, 10);
    int code = 0;
    if (high_report < 0 || l < 0 || out < 0 || err < 0 || dup2(l, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) code = errno;
    if (!code) {
        int kept = dup2(high_report, 3) == 3 && fcntl(3, F_SETFD, FD_CLOEXEC) == 0 ? 3 : high_report;
        close_from(4);
        high_report = kept;
        code = become(&s->who, &step);
    }
    if (!code) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the second line only: the keeper is the first */
        if (getppid() != keeper) _exit(1);
        step = "enter the folder";
        if (chdir(s->spec.dir) < 0) code = errno;
    }
    if (!code) {
        step = "start the program";
        execve(s->spec.argv[0], s->spec.argv, s->spec.envp);
        code = errno;
    }
    m.code = code;
    snprintf(m.text, sizeof m.text, "%s", step);
    if (write(high_report, &m, sizeof m) < 0) _exit(126);
    _exit(126);
}

static pid_t start_process(const struct keeper_start *s)
{
    int report[2];
    struct keeper_msg m = {.kind = KEEPER_FAILED, .code = 0};
    pid_t keeper = getpid();
    if (pipe2(report, O_CLOEXEC) < 0) return -1;
    pid_t pid = fork();
    if (pid == 0) run_process(s, report[1], keeper);
    close(report[1]);
    ssize_t n;
    do {
        n = pid > 0 ? read(report[0], &m, sizeof m) : -1; /* ends when the exec succeeds */
    } while (n < 0 && errno == EINTR && pid > 0);
    close(report[0]);
    if (pid > 0 && n == 0) {
        say(s->channel, (struct keeper_msg){.kind = KEEPER_STARTED, .pid = pid, .start_time = start_time_of(pid)});
        return pid;
    }
    if (n != (ssize_t)sizeof m) {
        m.code = errno;
        snprintf(m.text, sizeof m.text, "fork");
    }
    if (pid > 0) waitpid(pid, NULL, 0);
    say(s->channel, m);
    return -1;
}

/* Until it ends or has to: the grace time (ms) if it was told, -1: the root part is gone, -2: it ended by itself. */
static int64_t watch(const struct keeper_start *s, pid_t pid, int *status, int signals)
{
    bool gone = false;
    for (;;) {
        struct pollfd p[2] = {{.fd = s->channel, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR) return -1;
        if (p[1].revents) {
            struct signalfd_siginfo si;
            while (read(signals, &si, sizeof si) > 0) {}
            for (;;) {
                int st;
                pid_t w = waitpid(-1, &st, WNOHANG);
                if (w <= 0) break;
                if (w != pid) continue;
                *status = st;
                gone = true;
            }
            if (gone) return -2;
        }
        if (p[0].revents) {
            struct keeper_msg m;
            ssize_t n = recv(s->channel, &m, sizeof m, MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (n != (ssize_t)sizeof m) return -1;
            if (m.kind == KEEPER_END) return m.ms;
        }
    }
}

_Noreturn void keeper_run(const struct keeper_start *s)
{
    sigset_t set;
    int status = 0;
    signal(SIGTERM, SIG_IGN); /* only the root part, or its end, ends a keeper */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "weir-keeper");
    setsid();
    int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    pid_t pid = start_process(s);
    close(s->out);
    close(s->err);
    if (pid < 0) _exit(1);
    int64_t grace = watch(s, pid, &status, signals);
    /* Nobody is served any more: connect is refused at once, whoever still holds the socket. */
    shutdown(s->listener, SHUT_RDWR);
    end_all(SIGTERM, grace >= 0 ? (unsigned)grace : 500, pid, &status);
    say(s->channel, (struct keeper_msg){.kind = KEEPER_EXITED, .pid = pid, .code = status});
    _exit(0);
}

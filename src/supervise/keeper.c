/* SPDX-License-Identifier: MIT */
/* The keeper of a unit: child subreaper, asleep until its process ends, the root part orders the end, or the root part is
 * gone. Whatever way: nothing that came out of the unit is left behind it, however it forked. */
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

/* ---- ending everything below us ---- */

/* Signals all of them once: how many there were. A pid is ours to signal as long as it has not been reaped, and who is below us
 * is reaped by us, or by a parent that is below us, too. */
static size_t signal_all(int sig)
{
    struct process *list = NULL;
    size_t n = read_below(getpid(), &list), hit = 0;
    for (size_t i = 0; i < n; i++)
        if (kill(list[i].pid, sig) == 0) hit++;
    free(list);
    return hit;
}

/* Stops everything, until nothing new appears: what is stopped cannot fork. */
static void stop_all(void)
{
    size_t before = 0, now;
    for (int round = 0; round < 100 && (now = signal_all(SIGSTOP)) > before; round++) before = now;
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
    if (sig && signal_all(sig)) wait_children(first, status, now_ms() + (int64_t)ms); /* FC1-7-b */
    for (int round = 0; !reap(first, status); round++) { /* forks may outrun a round */
        if (round > 0) stop_all();
        signal_all(SIGKILL);
        wait_children(first, status, now_ms() + 20);
    }
}

void kill_descendants(int sig, unsigned ms)
{
    end_all(sig, ms, 0, NULL);
}

/* ---- the process ---- */

#define START_MS 10000 /* from the fork to the exec */

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

/* 0-2, what the program is given above them, and the report behind that; nothing else stays open. (FC1-2.2-a, FC1-2.2-b) */
static int arrange_descriptors(const struct keeper_start *s, int *report)
{
    bool fpm = s->spec.flags & ROOT_SPEC_FPM;
    int in = fpm ? open("/dev/null", O_RDWR) : s->listener;
    const int from[] = {in, s->out, s->err, s->listener, s->file};
    const int count = fpm ? 5 : 3;
    int high[5];
    for (int i = 0; i < count; i++)
        if ((high[i] = fcntl(from[i], F_DUPFD, 20)) < 0) return errno;
    for (int i = 0; i < count; i++)
        if (dup2(high[i], i) < 0) return errno;
    if (dup2(*report, count) < 0 || fcntl(count, F_SETFD, FD_CLOEXEC) < 0) return errno;
    *report = count;
    close_from(count + 1);
    return 0;
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
    int high_report = fcntl(report, F_DUPFD_CLOEXEC, 10);
    int code = high_report < 0 ? errno : arrange_descriptors(s, &high_report);
    if (!code) code = become(&s->who, &step); /* FC1-2.4-a */
    if (!code) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the second line only: the keeper is the first */
        if (getppid() != keeper) _exit(1);
        step = "enter the folder";
        if (chdir(s->spec.dir) < 0) code = errno;
    }
    if (!code) {
        step = "start the program";
        execve(s->spec.argv[0], s->spec.argv, s->spec.envp); /* FC1-2.1-b */
        code = errno;
    }
    m.code = code;
    snprintf(m.text, sizeof m.text, "%s", step);
    if (write(high_report, &m, sizeof m) < 0) _exit(126);
    _exit(126);
}

/* What the child says of itself: nothing when the exec succeeds. One that cannot go on (stopped by another of its user, a folder that
 * does not answer), or is not wanted any more, is killed. */
static ssize_t read_report(int channel, int report, pid_t pid, struct keeper_msg *m)
{
    struct pollfd p[2] = {{.fd = report, .events = POLLIN}, {.fd = channel, .events = POLLIN}};
    for (int64_t until = now_ms() + START_MS, left; (left = until - now_ms()) > 0;) {
        if (poll(p, 2, (int)left) <= 0) continue;
        if (p[0].revents) return read(report, m, sizeof *m);
        struct keeper_msg order;
        ssize_t n = recv(channel, &order, sizeof order, MSG_DONTWAIT);
        if (n < 0 || (n == (ssize_t)sizeof order && order.kind != KEEPER_END)) continue; /* nothing else can be done yet */
        break;
    }
    kill(pid, SIGKILL);
    *m = (struct keeper_msg){.kind = KEEPER_FAILED, .code = ETIMEDOUT, .text = "start the program"};
    return (ssize_t)sizeof *m;
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
    ssize_t n = pid > 0 ? read_report(s->channel, report[0], pid, &m) : -1;
    close(report[0]);
    if (pid > 0 && n == 0) {
        say(s->channel, (struct keeper_msg){.kind = KEEPER_STARTED, .pid = pid});
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

/* ---- a process that hangs ---- */

#define DOOMED_MS 1000 /* between TERM and KILL */
static struct doomed {
    uint64_t inode;
    int64_t at_ms;
} *doomed;
static size_t doomed_count, doomed_room;

static void doom(uint64_t inode, pid_t pid)
{
    if (doomed_count == doomed_room) {
        size_t room = doomed_room ? doomed_room * 2 : 16;
        struct doomed *grown = realloc(doomed, room * sizeof *grown);
        if (!grown) {
            kill(pid, SIGKILL); /* no time for manners */
            return;
        }
        doomed = grown;
        doomed_room = room;
    }
    kill(pid, SIGTERM);
    doomed[doomed_count++] = (struct doomed){inode, now_ms() + DOOMED_MS};
}

/* It was told to end, and still holds the connection of the request that was given up. */
static void kill_doomed(void)
{
    for (size_t i = 0; i < doomed_count;) {
        if (doomed[i].at_ms > now_ms()) {
            i++;
            continue;
        }
        pid_t pid = holder_of(doomed[i].inode);
        if (pid > 0) kill(pid, SIGKILL);
        doomed[i] = doomed[--doomed_count];
    }
}

static int doomed_wait(void)
{
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < doomed_count; i++)
        if (doomed[i].at_ms < first) first = doomed[i].at_ms;
    if (!doomed_count) return -1;
    return first > now_ms() ? (int)(first - now_ms()) : 0;
}

static void look(const struct keeper_start *s, const struct keeper_msg *m, pid_t first)
{
    struct keeper_msg answer = {.kind = KEEPER_LOOKED};
    bool ends = m->kind == KEEPER_KILL;
    pid_t pid = m->inode ? holder_of(m->inode) : ends ? 0 : first;
    memcpy(answer.tag, m->tag, sizeof answer.tag);
    answer.pid = pid;
    if (pid > 0) describe_process(pid, answer.text, sizeof answer.text);
    if (pid > 0 && ends) {
        answer.code = 1;
        doom(m->inode, pid);
    }
    say(s->channel, answer);
}

/* Reaps what ended; *gone: the first process did. False: nothing is left below. */
static bool reap_watched(pid_t pid, int *status, bool *gone)
{
    for (;;) {
        int st;
        pid_t w = waitpid(-1, &st, WNOHANG);
        if (w <= 0) return w == 0 || errno != ECHILD;
        if (w != pid) continue;
        *status = st;
        *gone = true;
    }
}

static int end_signal = SIGTERM; /* or what the pool's programs like better */

/* Until it ends or has to: the grace time (ms) if it was told, -1: the root part is gone, -2: it ended by itself. */
static int64_t watch(const struct keeper_start *s, pid_t pid, int *status, int signals)
{
    bool gone = false, lost = false;
    for (;;) {
        struct pollfd p[2] = {{.fd = s->channel, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        if (poll(p, 2, doomed_wait()) < 0 && errno != EINTR) return -1;
        kill_doomed();
        if (p[1].revents) {
            struct signalfd_siginfo si;
            while (read(signals, &si, sizeof si) > 0) {}
            bool left = reap_watched(pid, status, &gone);
            if (gone && (!left || !(s->spec.flags & ROOT_SPEC_GROUP))) return -2;
            if (gone && !lost) { /* its workers have requests: they finish them, and the root part orders the end */
                lost = true;
                if (!s->shared) shutdown(s->listener, SHUT_RDWR);
                say(s->channel, (struct keeper_msg){.kind = KEEPER_LOST, .pid = pid, .code = *status});
            }
        }
        if (p[0].revents) {
            struct keeper_msg m;
            ssize_t n = recv(s->channel, &m, sizeof m, MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (n != (ssize_t)sizeof m) return -1;
            if (m.kind == KEEPER_END) {
                if (m.code > 0) end_signal = m.code;
                return m.ms;
            }
            if (m.kind == KEEPER_LOOK || m.kind == KEEPER_KILL) look(s, &m, pid);
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
    if (s->file >= 0) close(s->file);
    if (pid < 0) _exit(1);
    int64_t grace = watch(s, pid, &status, signals);
    /* Nobody is served any more: connect is refused at once, whoever still holds the socket. */
    if (!s->shared) shutdown(s->listener, SHUT_RDWR);
    end_all(end_signal, grace >= 0 ? (unsigned)grace : 500, pid, &status);
    say(s->channel, (struct keeper_msg){.kind = KEEPER_EXITED, .pid = pid, .code = status});
    _exit(0);
}

/* SPDX-License-Identifier: MIT */
/* The child: from a copy of us to a program that has nothing of ours. It shares our memory until its exec (vfork): what fails there
 * is told by a plain variable, and the size of our memory costs nothing. It may only make system calls. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/runner.h"

static void limit_files(uint32_t files)
{
    struct rlimit l;
    if (!files || getrlimit(RLIMIT_NOFILE, &l) < 0) return;
    l.rlim_cur = files < l.rlim_max ? files : l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
}

/* All signals are blocked here until none is caught or ignored any more: no handler of ours runs in the child. */
static void reset_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int s = 1; s < NSIG; s++) sigaction(s, &dfl, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void become(struct child *c)
{
    bool fine = setpgid(0, 0) == 0 && dup2(c->in, 0) == 0 && dup2(c->out, 1) == 1 && dup2(c->err, 2) == 2 &&
                syscall(SYS_close_range, 3u, ~0u, 0u) == 0;
    if (fine) {
        limit_files(c->files);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* the second line only: what ends us ends all that came of us */
        reset_signals();
        fine = chdir(c->dir) == 0;
    }
    if (fine) {
        c->in_folder = true;
        execve(c->path, c->argv, c->envp);
    }
    c->error = errno;
    _exit(127);
}

pid_t spawn(struct child *c)
{
    sigset_t all, before;
    c->error = 0;
    c->in_folder = false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = vfork();
    if (pid == 0) become(c);
    if (pid < 0) c->error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid > 0 && c->error) waitpid(pid, NULL, 0);
    return c->error ? -1 : pid;
}

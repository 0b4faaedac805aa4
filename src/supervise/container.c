/* SPDX-License-Identifier: MIT */
/* Where we are the first process of a container: its duties are another process's than the root part's, so that strangers
 * (what was started in the container from outside) are reaped, and only what came out of our own units is killed. And what a
 * root with less than root's rights lacks is told before anything starts. */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervise/internal.h"

/* The root part's own group: the terminal's Ctrl-C comes to us alone, and goes on from here. */
static _Noreturn void be_init(pid_t child, const sigset_t *set)
{
    close_from(3);
    for (;;) {
        siginfo_t si;
        int status;
        if (sigwaitinfo(set, &si) < 0) continue;
        if (si.si_signo != SIGCHLD) {
            kill(child, si.si_signo);
            continue;
        }
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == child) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)); /* the kernel ends the rest */
    }
}

bool container_begin(const sigset_t *set)
{
    if (getpid() != 1) return true;
    pid_t child = fork();
    if (child > 0) be_init(child, set);
    if (child < 0) return false;
    setpgid(0, 0);
    if (getenv("WATCHDOG_PID")) { /* that is us now, also behind an exec */
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("WATCHDOG_PID", pid, 1);
    }
    return true;
}

/* ---- what it needs ---- */

/* Without it, or with another namespace's, nobody could be found who is to be ended. */
bool container_proc(void)
{
    char self[32] = "", own[32];
    snprintf(own, sizeof own, "%d", (int)getpid());
    if (readlink("/proc/self", self, sizeof self - 1) > 0 && strcmp(self, own) == 0) return true;
    fprintf(stderr, "weir: /proc has to be mounted, and be of the pid namespace that weir runs in\n");
    return false;
}

static bool has_capabilities(void)
{
    static const struct {
        unsigned bit;
        const char *name;
    } needed[] = {{CAP_CHOWN, "CHOWN"}, {CAP_DAC_OVERRIDE, "DAC_OVERRIDE"}, {CAP_FOWNER, "FOWNER"}, {CAP_KILL, "KILL"}, {CAP_SETGID, "SETGID"}, {CAP_SETUID, "SETUID"}};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    char missing[100] = "";
    memset(data, 0, sizeof data);
    if (syscall(SYS_capget, &head, data) < 0) return true; /* it will be seen */
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (data[0].effective & (1u << needed[i].bit)) continue;
        size_t at = strlen(missing);
        snprintf(missing + at, sizeof missing - at, " %s", needed[i].name);
    }
    if (!missing[0]) return true;
    fprintf(stderr, "weir: this root lacks the capabilities%s: add them to the container or unit, or start weir as another user, who then owns all of it\n", missing);
    return false;
}

/* A child tries to become them: the id may have no place in our user namespace. */
static bool can_become(const struct identity *who)
{
    const char *step = "start a process";
    int status = -1;
    pid_t child = fork();
    if (child == 0) _exit(become(who, &step));
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status)) status = -1;
    else if (WEXITSTATUS(status) == 0) return true;
    fprintf(stderr, "weir: cannot become the user %s (%d): %s: map that id into the user namespace, or start weir as a user who is not root\n", who->name,
            (int)who->uid, status < 0 ? "it did not start" : strerror(WEXITSTATUS(status)));
    return false;
}

bool container_rights(const struct identity *control, const struct identity *gateway)
{
    return has_capabilities() && can_become(control) && can_become(gateway);
}

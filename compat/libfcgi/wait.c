/* SPDX-License-Identifier: MIT */
/* Waiting for a web server, and the shutdown that ends it.
 *
 * A signal may come between a look at the flag and the system call that then waits for ever. Reading has ppoll() against that.
 * Accepting has nothing (the listening socket is shared: it stays blocking, and what poll() saw may be taken by another process),
 * so it waits on a descriptor of its own for the same socket, and the handler puts a socket that cannot accept in its place.
 * The kernel hands a signal to one thread: the handler passes it on to the others that wait. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgios.h"
#include "internal.h"

struct waiter {
    struct waiter *next;
    pthread_t thread;
    int fd; /* its own descriptor of the listening socket, -1: it reads */
};

static int pending; /* changed atomically */
static struct waiter *waiters;
static volatile char waiters_lock; /* held with all signals blocked: the handler may take it */

static void block(sigset_t *old)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, old);
}

static void restore(const sigset_t *old)
{
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

static void lock(void)
{
    while (__atomic_test_and_set(&waiters_lock, __ATOMIC_ACQUIRE)) sched_yield();
}

static void unlock(void)
{
    __atomic_clear(&waiters_lock, __ATOMIC_RELEASE);
}

static void enter(struct waiter *w, int fd)
{
    *w = (struct waiter){.thread = pthread_self(), .fd = fd};
    lock();
    w->next = waiters;
    waiters = w;
    unlock();
}

static void leave(const struct waiter *w)
{
    lock();
    struct waiter **at = &waiters;
    while (*at && *at != w) at = &(*at)->next;
    if (*at) *at = w->next;
    unlock();
}

/* ---- the shutdown ---- */

bool shutdown_pending(void)
{
    return __atomic_load_n(&pending, __ATOMIC_RELAXED) != 0;
}

/* sig: passed on to the other threads that wait; 0: none. Async-signal-safe. */
static void shut_down(int sig)
{
    int saved = errno, dead;
    sigset_t old;
    block(&old);
    lock();
    bool first = __atomic_exchange_n(&pending, 1, __ATOMIC_RELAXED) == 0;
    dead = first ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    for (struct waiter *w = waiters; first && w; w = w->next) {
        if (w->fd >= 0 && dead >= 0) dup3(dead, w->fd, O_CLOEXEC);
        if (sig && !pthread_equal(w->thread, pthread_self())) pthread_kill(w->thread, sig);
    }
    if (dead >= 0) close(dead);
    unlock();
    restore(&old);
    errno = saved;
}

static void on_shutdown(int sig)
{
    shut_down(sig);
}

static void on_nothing(int sig)
{
    (void)sig;
}

void OS_ShutdownPending(void)
{
    shut_down(0);
}

/* What the program set for itself, ignoring too, stays. No SA_RESTART: accepting ends. */
static void handle(int sig, void (*handler)(int))
{
    struct sigaction a;
    if (sigaction(sig, NULL, &a) < 0 || a.sa_flags & SA_SIGINFO || a.sa_handler != SIG_DFL) return;
    a = (struct sigaction){.sa_handler = handler};
    sigfillset(&a.sa_mask);
    sigaction(sig, &a, NULL);
}

static void in_child(void) /* the threads that waited are not in it */
{
    waiters = NULL;
    unlock();
}

void wait_init(void)
{
    static bool registered;
    handle(SIGPIPE, on_nothing);
    handle(SIGUSR1, on_shutdown);
    handle(SIGTERM, on_shutdown);
    if (!registered) registered = pthread_atfork(NULL, NULL, in_child) == 0;
}

void wait_reset(void)
{
    __atomic_store_n(&pending, 0, __ATOMIC_RELAXED);
}

/* ---- waiting ---- */

int wait_accept(int listener)
{
    struct waiter w;
    sigset_t old;
    int own = fcntl(listener, F_DUPFD_CLOEXEC, 0);
    if (own < 0 && errno == EBADF) return -1;
    block(&old);
    enter(&w, own);
    restore(&old);
    int fd = -1, error = EINTR;
    if (!shutdown_pending()) {
        fd = accept4(own < 0 ? listener : own, NULL, NULL, SOCK_CLOEXEC); /* < 0: no descriptor was free */
        error = errno;
    }
    block(&old);
    leave(&w);
    restore(&old);
    if (own >= 0) close(own);
    errno = fd < 0 && shutdown_pending() ? EINTR : error;
    return fd;
}

ssize_t wait_read(int fd, void *buf, size_t len)
{
    static const struct timespec now = {0, 0};
    struct waiter w;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    sigset_t old;
    block(&old);
    enter(&w, -1);
    int n = ppoll(&p, 1, shutdown_pending() ? &now : NULL, &old); /* what came before the shutdown is still served */
    int error = n < 0 ? errno : EINTR;
    leave(&w);
    restore(&old);
    if (n > 0) return read(fd, buf, len);
    errno = error;
    return -1;
}

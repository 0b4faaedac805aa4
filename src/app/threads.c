/* SPDX-License-Identifier: MIT */
/* Threads: handlers that may block, and the acceptor for a listening socket that others share (it must stay blocking). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "app/internal.h"

static void *handler_main(void *arg)
{
    struct weir_app *a = arg;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (weir_list_empty(&a->run_queue) && !a->stop_threads) pthread_cond_wait(&a->work, &a->lock);
        if (weir_list_empty(&a->run_queue)) break;
        struct weir_app_req *r = WEIR_CONTAINER(a->run_queue.next, struct weir_app_req, run_link);
        weir_list_remove(&r->run_link);
        int status = 1;
        if (!r->aborted) {
            pthread_mutex_unlock(&a->lock);
            status = a->o.handler(r, a->o.handler_arg);
            pthread_mutex_lock(&a->lock);
        }
        weir_app_req_finish(r, (uint32_t)status, WEIR_WIRE_REQUEST_COMPLETE); /* FC1-6.2-e */
        weir_loop_wake(a->loop);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

int weir_app_threads_start(struct weir_app *a)
{
    a->threads = calloc(a->o.threads, sizeof *a->threads);
    if (!a->threads) return WEIR_NOMEM;
    for (; a->thread_count < a->o.threads; a->thread_count++)
        if (pthread_create(&a->threads[a->thread_count], NULL, handler_main, a) != 0) return WEIR_SYSTEM;
    return WEIR_OK;
}

void weir_app_threads_stop(struct weir_app *a)
{
    pthread_mutex_lock(&a->lock);
    a->stop_threads = true;
    pthread_cond_broadcast(&a->work);
    pthread_mutex_unlock(&a->lock);
    for (uint32_t i = 0; i < a->thread_count; i++) pthread_join(a->threads[i], NULL);
    free(a->threads);
    a->threads = NULL;
    a->thread_count = 0;
}

/* ---- acceptor ---- */

#define WAKE_SIGNAL SIGURG /* programs have to expect it at any time, and it does nothing to those that do not ask for it */
#define WAKE_AGAIN_NS 1000000

/* Takes a connection only while there is room for it: what we leave in the backlog another process may take, or we later. */
static void take_one(struct weir_app *a)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    int fd = accept4(a->o.listen_fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC); /* may wait: another was faster (FC1-3.2-a) */
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) usleep(10000);
        return;
    }
    bool taken = false;
    pthread_mutex_lock(&a->handed_lock);
    if (a->handed_count < WEIR_COUNT(a->handed) && weir_app_peer_allowed(a, &peer)) {
        a->handed[a->handed_count++] = fd;
        taken = true;
    }
    pthread_mutex_unlock(&a->handed_lock);
    if (taken) atomic_fetch_sub(&a->accept_room, 1);
    else close(fd);
    weir_loop_wake(a->loop);
}

static void *acceptor_main(void *arg)
{
    struct weir_app *a = arg;
    sigset_t others;
    sigfillset(&others); /* the program's signals are its own threads' */
    sigdelset(&others, WAKE_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &others, NULL);
    while (!atomic_load(&a->acceptor_stops)) {
        struct pollfd p[2] = {{.fd = a->accept_event, .events = POLLIN},
                              {.fd = atomic_load(&a->accept_room) > 0 ? a->o.listen_fd : -1, .events = POLLIN}};
        uint64_t count;
        if (poll(p, 2, -1) < 0 && errno != EINTR) return NULL;
        if (p[0].revents && read(a->accept_event, &count, sizeof count) < 0 && errno != EAGAIN) return NULL;
        if (p[1].revents & (POLLERR | POLLNVAL)) return NULL;
        if (p[1].revents) take_one(a);
    }
    return NULL;
}

static void wake_acceptor(struct weir_app *a)
{
    uint64_t one = 1;
    if (write(a->accept_event, &one, sizeof one) < 0) return; /* it is awake */
}

void weir_app_acceptor_room(struct weir_app *a)
{
    if (!a->has_acceptor) return;
    pthread_mutex_lock(&a->handed_lock);
    int64_t taken = (int64_t)a->handed_count + a->fresh_count;
    int64_t conns = (int64_t)a->o.max_conns - a->conn_count - a->handed_count, reqs = (int64_t)a->o.max_requests - a->req_count - taken;
    int64_t room = conns < reqs ? conns : reqs, hand = (int64_t)WEIR_COUNT(a->handed) - a->handed_count;
    if (hand < room) room = hand;
    int before = atomic_exchange(&a->accept_room, room > 0 ? (int)room : 0);
    pthread_mutex_unlock(&a->handed_lock);
    if (before <= 0 && room > 0) wake_acceptor(a);
}

int weir_app_acceptor_start(struct weir_app *a)
{
    a->accept_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (a->accept_event < 0) return WEIR_SYSTEM;
    if (pthread_create(&a->acceptor, NULL, acceptor_main, a) != 0) {
        close(a->accept_event);
        return WEIR_SYSTEM;
    }
    a->has_acceptor = true;
    weir_app_acceptor_room(a);
    return WEIR_OK;
}

static void nothing(int sig)
{
    (void)sig;
}

/* An accept that waits is interrupted by a signal to its thread, again until the thread has seen it. Not cancelled: a cancelled
 * accept may have taken a connection already, which is lost then. */
static void join_acceptor(struct weir_app *a)
{
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER; /* the handler is the process's */
    struct sigaction sa = {.sa_handler = nothing}, former;
    struct timespec until;
    pthread_mutex_lock(&one_at_a_time);
    sigaction(WAKE_SIGNAL, &sa, &former);
    do {
        pthread_kill(a->acceptor, WAKE_SIGNAL);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WAKE_AGAIN_NS;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    } while (pthread_timedjoin_np(a->acceptor, NULL, &until) != 0);
    sigaction(WAKE_SIGNAL, &former, NULL);
    pthread_mutex_unlock(&one_at_a_time);
}

void weir_app_acceptor_stop(struct weir_app *a)
{
    if (!a->has_acceptor) return;
    atomic_store(&a->acceptor_stops, true);
    wake_acceptor(a);
    join_acceptor(a);
    close(a->accept_event);
    a->has_acceptor = false;
}

void weir_app_acceptor_take(struct weir_app *a)
{
    if (!a->has_acceptor && !a->handed_count) return;
    for (;;) {
        pthread_mutex_lock(&a->handed_lock);
        int fd = a->handed_count ? a->handed[--a->handed_count] : -1;
        pthread_mutex_unlock(&a->handed_lock);
        if (fd < 0) return;
        if (weir_app_conn_adopt(a, fd) < 0) close(fd);
    }
}

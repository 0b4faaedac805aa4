/* SPDX-License-Identifier: MIT */
/* Threads: handlers that may block, and the acceptor for a listening socket that others share (it must stay blocking). */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
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
            r->in_thread = true;
            pthread_mutex_unlock(&a->lock);
            status = a->o.handler(r, a->o.handler_arg);
            pthread_mutex_lock(&a->lock);
        }
        weir_app_req_finish(r, (uint32_t)status, WEIR_WIRE_REQUEST_COMPLETE);
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

static void *acceptor_main(void *arg)
{
    struct weir_app *a = arg;
    for (;;) {
        struct sockaddr_storage peer = {0};
        socklen_t len = sizeof peer;
        int fd = accept4(a->o.listen_fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK) return NULL;
            if (errno == EMFILE || errno == ENFILE) usleep(10000);
            continue;
        }
        int cancel;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
        bool taken = false;
        pthread_mutex_lock(&a->handed_lock);
        if (a->handed_count < WEIR_COUNT(a->handed) && weir_app_peer_allowed(a, &peer)) {
            a->handed[a->handed_count++] = fd;
            taken = true;
        }
        pthread_mutex_unlock(&a->handed_lock);
        if (!taken) close(fd);
        weir_loop_wake(a->loop);
        pthread_setcancelstate(cancel, NULL);
    }
}

int weir_app_acceptor_start(struct weir_app *a)
{
    if (pthread_create(&a->acceptor, NULL, acceptor_main, a) != 0) return WEIR_SYSTEM;
    a->has_acceptor = true;
    return WEIR_OK;
}

void weir_app_acceptor_stop(struct weir_app *a)
{
    if (!a->has_acceptor) return;
    pthread_cancel(a->acceptor);
    pthread_join(a->acceptor, NULL);
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

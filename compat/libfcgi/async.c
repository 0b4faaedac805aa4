/* SPDX-License-Identifier: MIT */
/* OS_Async*() and OS_DoIo(): one read and one write may wait for each descriptor. One thread only. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "fcgios.h"
#include "internal.h"

struct job {
    OS_AsyncProc done; /* NULL: free */
    ClientData data;
    void *buf;
    int fd, len;
    bool writes;
};

static struct job *jobs;
static struct pollfd *polled; /* as many as jobs */
static size_t job_count;

static struct job *place(int fd, bool writes)
{
    struct job *unused = NULL;
    for (size_t i = 0; i < job_count; i++) {
        if (!jobs[i].done) unused = &jobs[i];
        else if (jobs[i].fd == fd && jobs[i].writes == writes) return &jobs[i];
    }
    if (unused) return unused;
    struct pollfd *p = realloc(polled, (job_count + 1) * sizeof *p);
    if (p) polled = p;
    struct job *j = p ? realloc(jobs, (job_count + 1) * sizeof *j) : NULL;
    if (!j) return NULL;
    jobs = j;
    return &jobs[job_count++];
}

static int order(int fd, bool writes, void *buf, int len, OS_AsyncProc done, ClientData data)
{
    struct job *j = fd < 0 || len < 0 || !done ? NULL : place(fd, writes);
    if (!j) {
        errno = fd < 0 || len < 0 || !done ? EINVAL : ENOMEM;
        return -1;
    }
    *j = (struct job){.done = done, .data = data, .buf = buf, .fd = fd, .len = len, .writes = writes};
    return 0;
}

int OS_AsyncReadStdin(void *buf, int len, OS_AsyncProc done, ClientData data)
{
    return order(STDIN_FILENO, false, buf, len, done, data);
}

int OS_AsyncRead(int fd, int offset, void *buf, int len, OS_AsyncProc done, ClientData data)
{
    (void)offset;
    return order(fd, false, buf, len, done, data);
}

int OS_AsyncWrite(int fd, int offset, void *buf, int len, OS_AsyncProc done, ClientData data)
{
    (void)offset;
    return order(fd, true, buf, len, done, data);
}

void async_forget(int fd)
{
    for (size_t i = 0; i < job_count; i++)
        if (jobs[i].fd == fd) jobs[i].done = NULL;
}

/* The place is free before the program hears of it: it may order the next one there, or close the descriptor. */
static void carry_out(struct job *at)
{
    struct job j = *at;
    at->done = NULL;
    int n = j.writes ? OS_Write(j.fd, j.buf, (size_t)j.len) : OS_Read(j.fd, j.buf, (size_t)j.len);
    j.done(j.data, n);
}

int OS_DoIo(struct timeval *tmo)
{
    int ms = tmo ? (int)(tmo->tv_sec * 1000 + (tmo->tv_usec + 999) / 1000) : -1;
    size_t count = job_count;
    for (size_t i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = jobs[i].done ? jobs[i].fd : -1, .events = jobs[i].writes ? POLLOUT : POLLIN};
    int n = poll(polled, count, ms);
    if (n <= 0) return n < 0 && errno != EINTR ? -1 : 0;
    for (size_t i = 0; i < count; i++) {
        short events = polled[i].revents;
        bool writes = polled[i].events == POLLOUT;
        if (events && jobs[i].done && jobs[i].fd == polled[i].fd && jobs[i].writes == writes) carry_out(&jobs[i]);
    }
    return 0;
}

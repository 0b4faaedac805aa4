/* SPDX-License-Identifier: MIT */
/* Preloaded: accepting gets SIGTERM just before it begins, the moment between a look at a flag and the system call. */
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

int accept(int fd, void *addr, void *len);
int accept4(int fd, void *addr, void *len, int flags);

__attribute__((visibility("default"))) int accept4(int fd, void *addr, void *len, int flags)
{
    raise(SIGTERM);
    return (int)syscall(SYS_accept4, fd, addr, len, flags);
}

__attribute__((visibility("default"))) int accept(int fd, void *addr, void *len)
{
    return accept4(fd, addr, len, 0);
}

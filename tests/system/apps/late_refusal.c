/* SPDX-License-Identifier: MIT */
/* For the system tests: a "new version" of the root part that says that it understands, and then cannot go on after all. */
#include <stdlib.h>
#include <string.h>

#include "supervise/internal.h"

void tell(struct root *r, struct root_msg m, int fd)
{
    (void)r, (void)m, (void)fd;
}

void systemd_reloading(void)
{
}

int main(int argc, char **argv)
{
    static struct root r;
    int state = -1, old = -1;
    r.argv = argv;
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--understands") == 0) return 0;
        if (strcmp(argv[i], "--resume") == 0) state = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--back") == 0) old = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--self") == 0) memcpy(r.self, argv[i + 1], strlen(argv[i + 1]));
    }
    upgrade_back(&r, state, old);
    return 1;
}

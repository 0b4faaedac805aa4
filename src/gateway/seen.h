/* SPDX-License-Identifier: MIT */
/* What one turn of a thread has seen of the file system: which paths are there, and files that are open. Requests of the same turn are
 * answered by the same look; the next turn looks anew, so nobody gets a file that is older than the turn in which he is answered. Of
 * one thread; it does not know what a path means. */
#ifndef WEIR_GATEWAY_SEEN_H
#define WEIR_GATEWAY_SEEN_H

#include <sys/stat.h>

#include "base/base.h"
#include "loop/loop.h"

#define SEEN_CONTENT_MAX (32u << 10) /* of a file whose bytes are held for the turn */

struct seen_files;
struct seen {
    struct seen_files *of;
    uint64_t turn, hash;
    const struct weir_open_area *areas;
    unsigned holders;       /* of fd, over turns */
    unsigned more;          /* so many asked after the first */
    bool opens;             /* open for reading; else it was only looked at */
    int error;              /* errno; 0: st tells */
    int fd;                 /* opens and no error; else -1 */
    struct stat st;
    struct weir_str content;
    size_t path_len;
    char path[200];         /* a longer one is not noted */
};

struct seen_files *seen_new(_Atomic uint32_t *open_count); /* counted down with each fd that closes. NULL: no memory */
void seen_free(struct seen_files *f);
/* Of this turn; NULL: nobody looked. */
struct seen *seen_find(struct seen_files *f, const struct weir_open_area *areas, struct weir_str path, bool opens);
/* Takes fd. NULL: there is no room, and fd is the caller's. */
struct seen *seen_put(struct seen_files *f, const struct weir_open_area *areas, struct weir_str path, bool opens, int error, int fd, const struct stat *st);
/* The file stays open until as many have dropped it. */
void seen_hold(struct seen *s);
void seen_drop(struct seen *s);
/* All of a small file that several ask for in this turn, if it is in the page cache; else no ptr: read it. */
struct weir_str seen_content(struct seen *s);
/* Also when areas may be freed. */
void seen_turn_over(struct seen_files *f);

#endif

/* SPDX-License-Identifier: MIT */
/* Content as gzip [RFC 1952] while it comes: bytes in, bytes out, and on request all that came so far is out. */
#include <stdlib.h>
#include <zlib.h>

#include "http/http.h"

/* A window of 16 KiB and 2^7 * 512 bytes of tables: 128 KiB together, half of zlib's default, for some per cent of the size. */
#define WINDOW_BITS 14
#define GZIP_FRAME  16
#define MEMORY      7

struct weir_gzip {
    z_stream z;
    int flush;
    bool done; /* all that was fed is taken, and as far out as was asked for */
};

int weir_gzip_new(struct weir_gzip **out, int level)
{
    struct weir_gzip *g = calloc(1, sizeof *g);
    if (!g) return WEIR_NOMEM;
    g->done = true;
    if (deflateInit2(&g->z, level, Z_DEFLATED, WINDOW_BITS + GZIP_FRAME, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(g);
        return WEIR_NOMEM;
    }
    *out = g;
    return WEIR_OK;
}

void weir_gzip_free(struct weir_gzip *g)
{
    if (!g) return;
    deflateEnd(&g->z);
    free(g);
}

void weir_gzip_reset(struct weir_gzip *g, int level)
{
    WEIR_ASSERT(deflateReset(&g->z) == Z_OK);
    WEIR_ASSERT(deflateParams(&g->z, level, Z_DEFAULT_STRATEGY) == Z_OK);
    g->done = true;
}

void weir_gzip_feed(struct weir_gzip *g, const void *p, size_t len, enum weir_gzip_step step)
{
    WEIR_ASSERT(g->done && len <= UINT32_MAX);
    g->z.next_in = (Bytef *)(uintptr_t)p;
    g->z.avail_in = (uInt)len;
    g->flush = step == WEIR_GZIP_END ? Z_FINISH : step == WEIR_GZIP_FLUSH ? Z_SYNC_FLUSH : Z_NO_FLUSH;
    g->done = len == 0 && step == WEIR_GZIP_MORE;
}

size_t weir_gzip_pull(struct weir_gzip *g, void *out, size_t room)
{
    WEIR_ASSERT(room >= WEIR_GZIP_ROOM && room <= UINT32_MAX);
    if (g->done) return 0;
    g->z.next_out = out;
    g->z.avail_out = (uInt)room;
    int status = deflate(&g->z, g->flush);
    WEIR_ASSERT(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR); /* the last: there was nothing to do */
    g->done = g->flush == Z_FINISH ? status == Z_STREAM_END : g->z.avail_out > 0;
    return room - g->z.avail_out;
}

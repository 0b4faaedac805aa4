/* SPDX-License-Identifier: MIT */
/* A client for programs without a loop of this house: it owns one, and a quota for its files. And the defaults of option structs. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"

#define KIND_FIRST 1

struct weir_client_own {
    struct weir_spill_quota quota;
    char *dir;
};

void weir_pool_options_init_sized(struct weir_pool_options *o, size_t size)
{
    memset(o, 0, size);
    o->size = size;
    o->queue_count = 1000;
    o->queue_ms = 30000;
}

void weir_client_options_init_sized(struct weir_client_options *o, size_t size)
{
    memset(o, 0, size);
    o->size = size;
}

void weir_client_begin_options_init_sized(struct weir_client_begin_options *o, size_t size)
{
    memset(o, 0, size);
    o->size = size;
    o->role = WEIR_RESPONDER;
}

int client_copy_options(void *to, size_t known, const void *from)
{
    const unsigned char *tail = from;
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size) return WEIR_INVALID;
    for (size_t i = known; i < size; i++) /* a newer program asks for what this library does not know */
        if (tail[i]) return WEIR_INVALID;
    memset(to, 0, known);
    memcpy(to, from, size < known ? size : known);
    return WEIR_OK;
}

static void own_free(struct weir_client_own *own)
{
    if (!own) return;
    free(own->dir);
    free(own);
}

int weir_client_new(struct weir_client **out, struct weir_client_group *g, const struct weir_client_options *o)
{
    struct weir_client_options known;
    struct weir_client_place place = {.kind = KIND_FIRST};
    int status = client_copy_options(&known, sizeof known, o);
    if (status < 0) return status;
    struct weir_client_own *own = calloc(1, sizeof *own);
    if (own) own->dir = strdup(known.temp_dir ? known.temp_dir : "/tmp");
    if (!own || !own->dir) {
        own_free(own);
        return WEIR_NOMEM;
    }
    own->quota = (struct weir_spill_quota){.dir = own->dir, .max = known.temp_max ? known.temp_max : UINT64_C(1) << 30};
    place.quota = &own->quota;
    status = weir_loop_epoll_new(&place.loop);
    if (status == WEIR_OK) {
        status = weir_client_new_on(out, g, o, &place);
        if (status == WEIR_OK) {
            (*out)->own = own;
            return WEIR_OK;
        }
        weir_loop_free(place.loop);
    }
    own_free(own);
    return status;
}

void weir_client_free(struct weir_client *c)
{
    if (!c) return;
    struct weir_client_own *own = c->own;
    struct weir_loop *loop = c->place.loop;
    client_end(c);
    while (own && loop->jobs) { /* files that are written just now end with their job */
        struct weir_event ev[8];
        int n = weir_loop_wait(loop, ev, (int)WEIR_COUNT(ev), -1);
        for (int i = 0; i < n; i++)
            if (ev[i].ident.kind == KIND_FIRST + KIND_SPILL) (void)weir_spill_done(ev[i].ptr);
    }
    if (own) weir_loop_free(loop);
    own_free(own);
}

void weir_client_wake(struct weir_client *c)
{
    weir_loop_wake(c->loop);
}

int weir_client_fd(struct weir_client *c)
{
    return weir_loop_fd(c->loop);
}

static int64_t due_us(struct weir_client *c)
{
    return weir_client_busy(c) || c->stuck_count ? 0 : weir_client_next_us(c);
}

int weir_client_wait_ms(struct weir_client *c)
{
    int64_t us = due_us(c), timer = weir_wheel_next_ms(c->loop->wheel, weir_loop_clock_us(c->loop) / 1000);
    int64_t ms = us < 0 ? -1 : (us + 999) / 1000;
    if (timer >= 0 && (ms < 0 || timer < ms)) ms = timer;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

int weir_client_step(struct weir_client *c, int wait_ms)
{
    struct weir_event ev[88];
    int64_t wait = wait_ms < 0 ? -1 : (int64_t)wait_ms * 1000, due = due_us(c);
    if (due >= 0 && (wait < 0 || due < wait)) wait = due;
    int n = weir_loop_wait(c->loop, ev, (int)WEIR_COUNT(ev), wait);
    weir_client_turn(c);
    for (int i = 0; i < n; i++) {
        if (ev[i].ready & WEIR_READY_WAKE) weir_client_woken(c);
        else weir_client_ready(c, &ev[i]);
    }
    return WEIR_OK;
}

/* SPDX-License-Identifier: MIT */
/* Readiness: a unit is ready when one of its workers accepted a connection. Asked with GET_VALUES, which every library
 * answers or closes on; what it answers tells whether flow control is spoken. Who accepts and stays silent is ready, too. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/internal.h"
#include "loop/loop_internal.h"

#define SILENT_MS 1000 /* accepted, and no answer to GET_VALUES: it does not know it */

void probe_end(struct control *c, struct unit *u)
{
    struct probe *p = u->probe;
    if (!p) return;
    u->probe = NULL;
    weir_wire_server_free(p->wire);
    p->wire = NULL;
    watch_end(c, &p->w, true);
}

static void conclude(struct control *c, struct unit *u, bool flow, uint32_t requests)
{
    probe_end(c, u);
    unit_ready(c, u, flow, requests);
}

void probe_start(struct control *c, struct unit *u)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct probe *p = calloc(1, sizeof *p);
    const void *bytes;
    if (!p) return;
    snprintf(a.sun_path, sizeof a.sun_path, "%.107s", u->address + 5);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 || weir_wire_server_new(&p->wire, NULL) < 0 ||
        weir_wire_server_ask(p->wire) < 0) {
        if (fd >= 0) close(fd);
        weir_wire_server_free(p->wire);
        free(p);
        return; /* the clock tries again */
    }
    p->unit = u;
    p->since_ms = now_ms();
    u->probe = p;
    size_t len = weir_wire_server_output(p->wire, &bytes);
    if (send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len) weir_wire_server_sent(p->wire, len);
    if (watch_add(c, &p->w, WATCH_PROBE, fd) < 0) u->probe = NULL;
}

void probe_event(struct control *c, struct probe *p)
{
    char buf[4096];
    struct weir_wire_event ev;
    struct unit *u = p->unit;
    ssize_t n = recv(p->w.fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { /* it accepted and closed, or it died: its exit tells */
        conclude(c, u, false, 0);
        return;
    }
    weir_wire_server_feed(p->wire, buf, (size_t)n);
    while (weir_wire_server_next(p->wire, &ev) == WEIR_OK) {
        if (ev.type == WEIR_WIRE_EV_VALUES) {
            conclude(c, u, ev.agreed, ev.agreed ? weir_wire_server_limit(p->wire) : 0);
            return;
        }
        if (ev.type == WEIR_WIRE_EV_ERROR) {
            conclude(c, u, false, 0);
            return;
        }
    }
}

void probe_clock(struct control *c, struct unit *u)
{
    static int diag = -2;
    if (diag == -2) diag = weir_open_unix_diag();
    if (!u->probe) {
        probe_start(c, u);
        return;
    }
    if (now_ms() - u->probe->since_ms < SILENT_MS) return;
    if (weir_unix_diag_accepted(diag, u->probe->w.fd) != 0) conclude(c, u, false, 0);
}

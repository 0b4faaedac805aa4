/* SPDX-License-Identifier: MIT */
/* Records as text: bytes in hex, events as a line, equal for every split of the bytes. */
#ifndef WEIR_WIRE_TEXT_H
#define WEIR_WIRE_TEXT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"
#include "weir/wire.h"

static size_t hex(const char *s, uint8_t *out)
{
    size_t n = 0;
    unsigned v;
    for (; *s; s++) {
        if (*s == ' ' || *s == '\n') continue;
        if (*s == '"') { /* text as it is */
            for (s++; *s != '"'; s++) out[n++] = (uint8_t)*s;
            continue;
        }
        assert_int_equal(sscanf(s, "%2x", &v), 1);
        out[n++] = (uint8_t)v;
        s++;
    }
    return n;
}

struct log {
    char text[8192];
    size_t len;
    enum weir_wire_event_type last;
};

/* Pieces of one stream in a row are one entry, so that splits do not show. */
static void note(struct log *l, const struct weir_wire_event *ev)
{
    static const char *const names[] = {"?", "REQUEST", "INPUT", "INPUT_END", "ROOM", "ABORT", "END", "VALUES", "LIMIT", "ERROR"};
    char *p = l->text + l->len;
    size_t room = sizeof l->text - l->len;
    int n;
    if (ev->type == WEIR_WIRE_EV_INPUT) {
        char head[64];
        snprintf(head, sizeof head, "INPUT(%u,%u)", ev->id, (unsigned)ev->stream);
        const char *before = strrchr(l->text, ';');
        bool more = l->last == WEIR_WIRE_EV_INPUT && before && strncmp(before + 1, head, strlen(head)) == 0;
        n = snprintf(p, room, "%s%s%.*s", more ? "" : ";", more ? "" : head, (int)ev->bytes.len, ev->bytes.ptr);
    } else {
        n = snprintf(p, room, ";%s(%u,%u,%u,%u,%u,%s)", names[ev->type], ev->id, (unsigned)ev->stream, ev->role, ev->app_status,
                     ev->protocol_status * 100u + ev->agreed * 10u + ev->limit, ev->reason ? ev->reason : "");
    }
    assert_in_range(n, 0, room - 1);
    l->len += (size_t)n;
    l->last = ev->type;
}

static void feed_app(struct weir_wire_app *w, const uint8_t *p, size_t len, struct log *l)
{
    struct weir_wire_event ev;
    uint8_t *exact = malloc(len ? len : 1); /* so that AddressSanitizer sees an over-read */
    memcpy(exact, p, len);
    weir_wire_app_feed(w, exact, len);
    while (weir_wire_app_next(w, &ev) == WEIR_OK) {
        note(l, &ev);
        if (ev.type == WEIR_WIRE_EV_INPUT) weir_wire_app_consumed(w, ev.id, ev.stream, ev.bytes.len);
    }
    free(exact);
}

/* The events of these bytes and, behind them, what was put out; equal for every split. */
static void app_events(const char *bytes, const char *events, const char *output)
{
    uint8_t in[4096], want[4096];
    size_t len = hex(bytes, in), want_len = output ? hex(output, want) : 0;
    for (size_t step = len; step >= 1; step = step > 7 ? step / 2 : step - 1) {
        struct weir_wire_app *w;
        struct log l = {.last = 0};
        const void *out;
        assert_int_equal(weir_wire_app_new(&w, NULL), WEIR_OK);
        for (size_t i = 0; i < len; i += step) feed_app(w, in + i, len - i < step ? len - i : step, &l);
        assert_string_equal(l.text, events);
        if (output) {
            assert_int_equal(weir_wire_app_output(w, &out), want_len);
            assert_memory_equal(out, want, want_len);
        }
        weir_wire_app_free(w);
    }
}

#define BEGIN      "01 01 00 01 00 08 00 00  00 01 01 00 00 00 00 00"
#define PARAMS_A1  "01 04 00 01 00 04 04 00  01 01 41 31 00 00 00 00"
#define PARAMS_END "01 04 00 01 00 00 00 00"
#define STDIN_END  "01 05 00 01 00 00 00 00"
#define ASK        "01 09 00 00 00 13 08 00  11 00 \"FCGI_FLOW_CONTROL\" 00 00 00 00 00 00 00 00"
#define AGREED     "01 0a 00 00 00 2d 00 00  11 1a \"FCGI_FLOW_CONTROLwindow=65536 requests=1000\""
#define BEGIN_FLOW "01 01 00 01 00 08 00 00  00 01 81 01 00 00 40 00"

static void server_events(const char *bytes, const char *events, bool ask)
{
    uint8_t in[4096];
    size_t len = hex(bytes, in);
    for (size_t step = len; step >= 1; step = step > 7 ? step / 2 : step - 1) {
        struct weir_wire_server *w;
        struct log l = {.last = 0};
        uint16_t id;
        assert_int_equal(weir_wire_server_new(&w, NULL), WEIR_OK);
        if (ask) assert_int_equal(weir_wire_server_ask(w), WEIR_OK);
        else assert_int_equal(weir_wire_server_begin(w, WEIR_RESPONDER, 1, 0, NULL, 0, NULL, &id), WEIR_OK);
        for (size_t i = 0; i < len; i += step) {
            struct weir_wire_event ev;
            size_t n = len - i < step ? len - i : step;
            uint8_t *exact = malloc(n);
            memcpy(exact, in + i, n);
            weir_wire_server_feed(w, exact, n);
            while (weir_wire_server_next(w, &ev) == WEIR_OK) note(&l, &ev);
            free(exact);
        }
        assert_string_equal(l.text, events);
        weir_wire_server_free(w);
    }
}
#endif

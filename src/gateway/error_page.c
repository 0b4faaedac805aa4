/* SPDX-License-Identifier: MIT */
/* What is said of a request that cannot be served: the page for the client, the line for the log, and what to look at. The client reads
 * details only where the site says `debug yes`; what he did wrong himself is told to him anyway. */
#include <inttypes.h>

#include "gateway/internal.h"

/* ---- what became of its request to an app ---- */

void exchange_note_app(struct exchange *ex)
{
    struct app_note *n = ex->app ? weir_arena_alloc(&ex->arena, sizeof *n) : NULL;
    if (!n) return;
    weir_client_req_result(ex->app, &n->result);
    weir_client_req_where(ex->app, n->where, sizeof n->where);
    ex->note = n;
}

/* Where the app is: the one that it ran at, or the only one there is. */
static const char *endpoint_of(const struct exchange *ex)
{
    const struct weir_conf_pool *conf = ex->asked ? ex->asked->conf : NULL;
    if (ex->note && ex->note->where[0]) return ex->note->where;
    return conf && conf->endpoint_count == 1 ? conf->endpoints[0].address : "";
}

/* ---- what to look at ---- */

static const struct {
    const char *why; /* it begins with this */
    const char *owned, *others; /* advice, where Weir runs the processes; where others do (NULL: the same) */
} advices[] = {
    {"the pool's queue is full", "all its processes are busy: see weir status, and raise workers or processes, or queue", "all its workers are busy: raise workers of connect, as far as the server has them, or queue"},
    {"no free slot within the queue's time", "all its processes are busy: see weir status, and raise workers or processes, or queue", "all its workers are busy: raise workers of connect, as far as the server has them, or queue"},
    {"the application was silent for too long", "see in the log what it does, or raise time { silent }", NULL},
    {"the application took longer than the request may take", "see in the log what it does, or raise time { request }", NULL},
    {"cannot connect to the application", "see weir status for its processes", "is it running, and may the gateway's user open its socket?"},
    {"the application does not answer the connect", "see weir status for its processes", "is it running, and does a firewall let the connection through?"},
    {"the application closed the connection before", "it crashed, or was ended: its last lines are in the log", "it crashed, was ended, or closes kept connections: see its own log, and keep no"},
    {"the connection to the application broke", "it crashed, or was ended: its last lines are in the log", "it crashed, was ended, or closes kept connections: see its own log, and keep no"},
    {"the application broke its answer off", "it failed on the way: its last lines are in the log", "it failed on the way: see its own log"},
    {"the application ended before its header was complete", "it printed no header, or died: its last lines are in the log", "it printed no header, or died: see its own log"},
    {"the application closes its connections at once", "does it speak FastCGI? see its lines in the log", "does FastCGI answer at this address?"},
    {"the application refused: overloaded", "it takes fewer requests at once than the pool sends it: lower requests-per-process", "it takes fewer requests at once than the pool sends it: lower requests of connect"},
    {"the application does not know this role", "name a pool whose program speaks this role", NULL},
    {"the application sent", "its header is to be: Content-Type: text/html, further lines, an empty line", NULL},
    {"the application's header cannot be sent", "a field in it has a name or a value that HTTP does not know", NULL},
    {"the application redirects", "see where its Location leads", NULL},
    {"the pool is stopped", "weir restart POOL starts it again", NULL},
    {"the pool's processes do not start", "the log says why; weir restart POOL tries again", NULL},
    {"no server of the pool answers its check", "the log says why each one failed", NULL},
    {"no room for the request body", "weir { temp } is full, or too small for all bodies at once", NULL},
    {"the request body could not be", "is the disk of weir { temp } full?", NULL},
    {"the root cannot be opened", "the gateway's user has to be let in: weir check tells which folder bars it", NULL},
    {"out of memory", "the machine, or the gateway's limit, has no more", NULL},
};

const char *error_advice(const struct exchange *ex, const char *why)
{
    bool others = ex->asked && ex->asked->conf->kind == WEIR_POOL_CONNECT;
    for (size_t i = 0; why && i < WEIR_COUNT(advices); i++)
        if (weir_str_prefix(weir_cstr(why), weir_cstr(advices[i].why))) return others && advices[i].others ? advices[i].others : advices[i].owned;
    return NULL;
}

/* ---- the log ---- */

void error_tell(struct exchange *ex, const char *what, const char *why)
{
    const char *pool = ex->asked ? weir_pool_name(ex->asked->in->pool) : "-", *at = endpoint_of(ex), *advice = error_advice(ex, why);
    char spent[96] = "";
    struct weir_str target = ex->req ? ex->req->target : (struct weir_str){0}, id = exchange_id(ex);
    if (ex->note)
        snprintf(spent, sizeof spent, ", after %" PRIu64 " ms (%" PRIu64 " ms of them in the queue)%s", ex->note->result.total_us / 1000, ex->note->result.queued_us / 1000,
                 ex->note->result.tries > 1 ? ", not the first try" : "");
    log_error(ex->worker, "%s: %s for %.*s: %s%s%s%s%s%s, request %.*s", pool, what, (int)(target.len < 200 ? target.len : 200), target.ptr ? target.ptr : "", why,
              at[0] ? ", at " : "", at, spent, advice ? ": " : "", advice ? advice : "", (int)id.len, id.ptr);
}

/* ---- the page ---- */

static bool put(struct weir_buf *b, const char *s)
{
    return weir_buf_append(b, s, strlen(s)) == WEIR_OK;
}

bool page_text(struct weir_buf *b, struct weir_str s)
{
    bool fine = true;
    for (size_t i = 0; i < s.len && fine; i++) {
        char c = s.ptr[i];
        const char *entity = c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : NULL;
        fine = entity ? put(b, entity) : weir_buf_append(b, &c, 1) == WEIR_OK;
    }
    return fine;
}

bool page_begin(struct weir_buf *b, int status, const char *title)
{
    char head[224];
    snprintf(head, sizeof head, "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>%d %.60s</title>\n", status, title);
    return put(b, head) &&
           put(b, "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}"
                  "h1{font-size:1.6em}p::first-letter{text-transform:uppercase}p,dl{opacity:.8}dl{display:grid;grid-template-columns:max-content 1fr;gap:.3em 1.2em}dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}"
                  ".id{font-size:.85em;opacity:.7}</style>\n");
}

/* To whoever cannot change it. */
static const char *plain_words(int status)
{
    switch (status) {
    case 500: return "Something in this server does not work as it should.";
    case 502: return "The application behind this page did not answer as it should.";
    case 503: return "The application behind this page is busy, or not there just now. Please try again in a moment.";
    case 504: return "The application behind this page took too long to answer.";
    default: return "";
    }
}

static bool put_row(struct weir_buf *b, const char *name, const char *value)
{
    if (!value || !value[0]) return true;
    return put(b, "<dt>") && put(b, name) && put(b, "<dd>") && page_text(b, weir_cstr(value)) && put(b, "\n");
}

static const char *stage_of(const struct app_note *n)
{
    switch (n->result.stage) {
    case WEIR_STAGE_QUEUE: return "waiting in the pool's queue";
    case WEIR_STAGE_CONNECT: return "connecting";
    case WEIR_STAGE_RUN: return "running";
    case WEIR_STAGE_DONE: return "answering";
    }
    return "";
}

static bool put_details(struct weir_buf *b, const struct exchange *ex, const char *why)
{
    const struct app_note *n = ex->note;
    const char *at = endpoint_of(ex);
    char spent[96] = "", tries[16] = "";
    if (n) snprintf(spent, sizeof spent, "%" PRIu64 " ms, %" PRIu64 " ms of them in the queue", n->result.total_us / 1000, n->result.queued_us / 1000);
    if (n && n->result.tries > 1) snprintf(tries, sizeof tries, "%u", n->result.tries);
    return put(b, "<dl>\n") && put_row(b, "Pool", ex->asked ? weir_pool_name(ex->asked->in->pool) : NULL) && put_row(b, at[0] >= '0' && at[0] <= '9' ? "Process" : "Endpoint", at) &&
           put_row(b, "Stage", n ? stage_of(n) : NULL) && put_row(b, "Tries", tries) && put_row(b, "Time", spent) && put_row(b, "Check", error_advice(ex, why)) && put(b, "</dl>\n");
}

bool error_page(struct exchange *ex, int status, const char *why, struct weir_buf *b)
{
    const char *text = weir_http_status_text(status);
    bool ours = is_our_fault(status), debug = ex->site && ex->site->conf->debug, tell = why && (!ours || debug);
    char number[8];
    snprintf(number, sizeof number, "%d ", status);
    bool fine = page_begin(b, status, text) && put(b, "<h1>") && put(b, number) && put(b, text) && put(b, "</h1>\n<p>");
    fine = fine && page_text(b, weir_cstr(tell ? why : plain_words(status))) && put(b, tell ? ".</p>\n" : "</p>\n");
    if (ours && debug) fine = fine && put_details(b, ex, why);
    if (status >= 400) fine = fine && put(b, "<p class=\"id\">Request ") && page_text(b, exchange_id(ex)) && put(b, "</p>");
    return fine && put(b, "</html>\n");
}

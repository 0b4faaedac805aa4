/* SPDX-License-Identifier: MIT */
/* The way of an answer from an exchange to its client: into the connection's output, framed (HTTP/1), or into a stream (HTTP/2).
 * What is answered is not known here. */
#include "gateway/internal.h"

int reply_head(struct exchange *ex, const struct weir_http_response *r)
{
    struct http_conn *h = ex->http;
    if (!ex->stream) {
        worker_take_spare(ex->worker, &h->out);
        return weir_http1_write_head(&h->out, r, &ex->framing, &ex->keep_alive);
    }
    bool last = (exchange_no_content(ex) || r->content_length == 0) && (ex->answer != ANSWER_APP || ex->app_done); /* an app goes on behind it */
    ex->framing = last ? WEIR_HTTP_NONE : WEIR_HTTP_LENGTH;
    return weir_http2_write_head(ex->stream->wire, r, last);
}

int reply_interim(struct exchange *ex, int status, const struct weir_pair *fields, size_t count)
{
    reply_dirty(ex);
    if (ex->stream) return weir_http2_write_interim(ex->stream->wire, status, fields, count);
    worker_take_spare(ex->worker, &ex->http->out);
    return weir_http1_write_interim(&ex->http->out, status, fields, count);
}

size_t reply_room(struct exchange *ex)
{
    if (ex->stream) return weir_http2_room(ex->stream->wire);
    size_t held = weir_buf_len(&ex->http->out);
    return held < OUT_HIGH ? OUT_HIGH - held : 0;
}

static struct weir_buf *output(struct exchange *ex)
{
    if (ex->stream) return weir_http2_content(ex->stream->wire);
    worker_take_spare(ex->worker, &ex->http->out);
    return &ex->http->out;
}

static void added(struct exchange *ex, size_t len)
{
    ex->sent += len;
    if (ex->stream) {
        weir_http2_added(ex->stream->wire, len);
        stream_wrote(ex->stream);
    }
    http_dirty(ex->http);
}

int reply_put(struct exchange *ex, const char *p, size_t len)
{
    struct weir_buf *out = output(ex);
    int status = ex->framing == WEIR_HTTP_CHUNKED ? weir_http1_write_chunk(out, p, len) : weir_buf_append(out, p, len);
    if (status == WEIR_OK) added(ex, len);
    return status;
}

char *reply_reserve(struct exchange *ex, size_t len)
{
    return weir_buf_room(output(ex), len);
}

void reply_reserved(struct exchange *ex, size_t len)
{
    weir_buf_added(output(ex), len);
    added(ex, len);
}

int reply_end(struct exchange *ex)
{
    if (ex->framing != WEIR_HTTP_CHUNKED || exchange_no_content(ex)) return WEIR_OK; /* a stream ends as it is over */
    return weir_http1_write_chunk_end(&ex->http->out, NULL, 0);
}

void reply_over(struct http_conn *h, struct stream *s, bool keep_alive)
{
    if (s) {
        stream_over(s);
        return;
    }
    if (!keep_alive) h->close_after = true;
    http_arm(h, 0);
    if (http_unsent(h) == 0) h->send_due_ms = 0;
    http_next(h);
}

void reply_abort(struct exchange *ex)
{
    if (ex->stream) {
        stream_abort(ex->stream);
        return;
    }
    http_send_now(ex->http);
    if (ex->framing == WEIR_HTTP_CLOSE) { /* an end in order would make it look whole: some proxies would even keep it */
        static const struct linger none = {.l_onoff = 1};
        (void)setsockopt(ex->http->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    http_close(ex->http);
}

void reply_dirty(struct exchange *ex)
{
    if (ex->stream) stream_dirty(ex->stream);
    else http_dirty(ex->http);
}

void reply_arm(struct exchange *ex, uint32_t ms)
{
    if (ex->stream) stream_arm(ex->stream, ms);
    else http_arm(ex->http, ms);
}

void reply_resume(struct exchange *ex)
{
    if (!ex->http->in_use) return;
    if (ex->stream) stream_resume(ex->stream);
    else http_resume(ex->http);
}

void reply_limit_body(struct exchange *ex, uint64_t bytes)
{
    if (ex->stream) ex->stream->limit = bytes;
    else weir_http1_limit_body(ex->http->parser, bytes);
}

bool reply_takes_files(const struct exchange *ex)
{
    return !ex->stream && !ex->http->tls;
}

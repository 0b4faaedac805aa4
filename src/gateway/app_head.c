/* SPDX-License-Identifier: MIT */
/* What an app's header says besides the answer itself: interim answers on its way, fields that are meant for the web server and
 * never for the client. */
#include "gateway/internal.h"

/* A client of HTTP/1.0 knows none [RFC 9110 15.2], who asks an authorizer does not ask for its hints, and 100 is the gateway's own to
 * say: it takes the body. */
int exchange_interim(struct exchange *ex)
{
    const struct weir_cgi_response *r = weir_cgi_head_response(ex->head);
    if (ex->authorizing || (ex->req->major < 2 && !ex->req->minor) || r->status == 100) return WEIR_OK;
    ex->fields = r->headers;
    ex->field_count = r->header_count;
    exchange_drop_directives(ex);
    int status = reply_interim(ex, r->status, ex->fields, ex->field_count);
    ex->field_count = 0;
    return status;
}

static bool is_directive(struct weir_str name)
{
    static const struct weir_str accel = WEIR_CONST_STR("x-accel-");
    if (name.len < 10 || (name.ptr[0] | 0x20) != 'x') return false;
    return (name.len > accel.len && weir_str_ieq(weir_str(name.ptr, accel.len), accel)) || weir_str_ieq(name, WEIR_STR("x-sendfile")) ||
           weir_str_ieq(name, WEIR_STR("x-lighttpd-send-file"));
}

void exchange_drop_directives(struct exchange *ex)
{
    size_t n = 0;
    for (size_t i = 0; i < ex->field_count; i++)
        if (!is_directive(ex->fields[i].name)) ex->fields[n++] = ex->fields[i];
    ex->field_count = n;
}

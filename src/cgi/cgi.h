/* SPDX-License-Identifier: MIT */
/* cgi: RFC 3875 for the web-server side: an HTTP request -> parameters; the app's header -> a response; path splitting.
 * Knows base only. No I/O: whoever calls decides which files exist. */
#ifndef WEIR_CGI_H
#define WEIR_CGI_H

#include "base/base.h"

/* ---- paths ---- */
struct weir_cgi_path {
    struct weir_str path;  /* decoded once, "." ".." and "//" resolved, begins with '/', a NUL behind it */
    struct weir_str query; /* raw, without '?'; empty if none */
    bool has_query;
};
/* From the origin-form request target. WEIR_INVALID with *reason: bad %-escape, NUL, control bytes (0x01-0x1f, 0x7f), an
 * encoded '/' (%2f) or '\\'..., ".." above the root; WEIR_NOMEM. Strings live in the arena. */
WEIR_CHECK int weir_cgi_path_parse(struct weir_str target, struct weir_arena *a, struct weir_cgi_path *out, const char **reason);
/* Candidates for script + PATH_INFO: where a prefix of path ends in suffix (".php": ASCII bytes, case kept) and is followed
 * by '/' or the end. pos: 0 first, then the last result; returns the length of the script part, 0: no more.
 * The caller takes the first candidate that is a regular file below the root. */
size_t weir_cgi_split_next(struct weir_str path, struct weir_str suffix, size_t pos);

/* ---- parameters ---- */
struct weir_cgi_request {
    struct weir_str method, protocol;         /* "HTTP/1.1" */
    struct weir_str request_uri;              /* original target: undecoded, with the query */
    struct weir_str query;                    /* raw */
    struct weir_str document_uri;             /* decoded path incl. PATH_INFO */
    struct weir_str document_root;            /* as the app sees it; empty: not sent */
    struct weir_str script_name;              /* decoded URL path of the script; may be empty */
    struct weir_str script_filename;          /* file path as the app sees it; empty: not sent */
    struct weir_str path_info;                /* decoded; empty: neither PATH_INFO nor PATH_TRANSLATED are sent */
    struct weir_str server_name, server_port, server_addr, remote_addr, remote_port, scheme; /* scheme: http, https */
    struct weir_str remote_user, auth_type;   /* empty: not sent */
    struct weir_str request_id;               /* empty: not sent */
    struct weir_str redirect_status;          /* "200"; empty: not sent */
    int64_t content_length;                   /* -1: no body: CONTENT_LENGTH is not sent */
    bool no_authorization;                    /* that field is not passed */
    bool authorizer;                          /* for one: no CONTENT_LENGTH, PATH_INFO, PATH_TRANSLATED, SCRIPT_NAME (FC1-6.3-a) */
    struct weir_str host;                     /* whom the request is for: stands for the Host field's value (RFC 9112 3.2.2); may be empty */
    const struct weir_pair *headers;          /* the request's fields, names as sent */
    size_t header_count;
    const struct weir_pair *extra;            /* the configuration's param: sets NAME, or removes it (value.ptr NULL) */
    size_t extra_count;
};
/* The list in the arena, in a stable order, each name once. Fields with a name outside [A-Za-z0-9-], Proxy, the hop-by-hop
 * ones, Content-Length and Content-Type (it becomes CONTENT_TYPE) are not passed as HTTP_*; equal names are joined with
 * ", " (Cookie "; "). Client fields can only become HTTP_*. [RFC 3875 4.1; research fastcgi-1.0.md 18] WEIR_NOMEM. */
WEIR_CHECK int weir_cgi_params(const struct weir_cgi_request *r, struct weir_arena *a, struct weir_pair **out, size_t *count);

/* A GET of our own, to see whether an app answers. path: what is asked for; root, file: may be empty; script: path is a script's
 * name, file its file; else it is PATH_INFO. Borrows all of them. */
struct weir_cgi_request weir_cgi_check_request(const char *path, const char *root, const char *file, bool script);

/* ---- the app's answer ---- */
enum weir_cgi_kind {
    WEIR_CGI_DOCUMENT,
    WEIR_CGI_LOCAL_REDIRECT,
    WEIR_CGI_CLIENT_REDIRECT,
    WEIR_CGI_INTERIM /* Status 1xx (103: Early Hints): a header of its own, and behind it the next one */
};
struct weir_cgi_response {
    enum weir_cgi_kind kind;
    int status;                    /* Status, else 302 with an absolute Location, else 200 */
    struct weir_str location;      /* LOCAL_REDIRECT: path and query to go to */
    struct weir_pair *headers;     /* for the client: Location included, without Status, framing and hop-by-hop fields */
    size_t header_count;
    int64_t content_length;        /* -1: not told by the app */
};
struct weir_cgi_head; /* incremental parser of one answer's header, in an arena */
struct weir_cgi_head_limits { uint32_t bytes, fields; }; /* 0: 65536, 100 */
/* NULL: memory. Everything lives in the arena. */
struct weir_cgi_head *weir_cgi_head_new(struct weir_arena *a, const struct weir_cgi_head_limits *l);
/* Takes STDOUT bytes: WEIR_OK: the header is complete, *used bytes of p belong to it, the rest is content;
 * WEIR_AGAIN: all used, more needed; WEIR_PROTOCOL or WEIR_LIMIT: *reason tells (a 502). */
WEIR_CHECK int weir_cgi_head_feed(struct weir_cgi_head *h, const void *p, size_t len, size_t *used, const char **reason);
const struct weir_cgi_response *weir_cgi_head_response(const struct weir_cgi_head *h);
/* Behind an INTERIM answer: the next header is taken. The limit of bytes is for all of them; more than 8 are refused. */
void weir_cgi_head_next(struct weir_cgi_head *h);
/* As weir_cgi_head_feed, for whoever passes no interim answers on. */
WEIR_CHECK int weir_cgi_head_feed_final(struct weir_cgi_head *h, const void *p, size_t len, size_t *used, const char **reason);
#endif

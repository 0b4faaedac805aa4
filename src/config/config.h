/* SPDX-License-Identifier: MIT */
/* config: words and blocks -> an immutable, counted snapshot that gateway and control share the meaning of.
 * Reading sources (I/O) is apart from parsing (pure): control reads files and hands the texts to the gateway. */
#ifndef WEIR_CONFIG_H
#define WEIR_CONFIG_H

#include "base/base.h"

/* ---- sources: named texts; the first is the main file ---- */
struct weir_config_source {
    char *name; /* path as messages show it; relative paths in it are resolved against its folder */
    char *text;
    size_t len;
    char *dir;  /* absolute folder for relative paths */
    char *problem; /* why it could not be read; NULL: it was */
    bool lost;  /* nothing of it is used: pools that others name may be missing */
    bool same;  /* its text is as at the last reading */
    struct weir_config_identity { /* of the file that was read; inode 0: not known, it is read again */
        uint64_t device, inode, size;
        int64_t changed_ns, modified_ns;
    } id;
};
struct weir_config_home { /* of a user whose pool says $home or ~/ */
    char *user, *home;
};
struct weir_config_sources {
    struct weir_config_source *list;
    size_t count;
    struct weir_config_home *homes;
    size_t home_count;
    bool changed; /* what lies below all of them may not be as at the last reading: the main file, or one that is gone */
};

/* ---- messages: all of them, with file, line, column (from 1) ---- */
enum weir_config_level { WEIR_CONFIG_ERROR, WEIR_CONFIG_WARNING, WEIR_CONFIG_LATER }; /* LATER: known, not in this version */
struct weir_config_message {
    enum weir_config_level level;
    const char *file;
    unsigned line, column;
    const char *text;   /* "unknown name "pol" in site" */
    const char *advice; /* "did you mean "pool"?"; may be empty */
};
struct weir_config_report {
    struct weir_config_message *list;
    size_t count, errors, later;
    size_t of_file, dropped; /* messages in a row about one file; those that found no room */
    const char **bad;   /* files with errors or LATER, each once; also those whose messages found no room */
    size_t bad_count;
    struct weir_arena arena;
};

/* ---- the snapshot; all strings NUL-terminated, in its arena; unset numbers already hold their defaults ---- */
struct weir_config_place { const char *file; unsigned line, column; };

enum weir_conf_scheme { WEIR_SCHEME_HTTP, WEIR_SCHEME_HTTPS, WEIR_SCHEME_FASTCGI, WEIR_SCHEME_FASTCGIS };
struct weir_conf_address {
    enum weir_conf_scheme scheme;
    const char *text;   /* as written: http, host and port */
    const char *socket; /* for weir_address_parse */
};
/* ---- guards: who may ask, how often, and what every answer says ---- */
struct weir_conf_nets {
    const struct weir_net *list;
    size_t count;
};
struct weir_conf_trust {
    struct weir_conf_nets nets; /* of proxies that are believed; no list: nothing is said, an empty one: nobody is */
    bool forwarded;             /* what they tell by Forwarded; else by X-Forwarded-* */
};
struct weir_conf_user {
    const char *name, *hash; /* hash: for crypt(3) */
    unsigned line;
};
struct weir_conf_auth { /* Basic */
    const char *file, *realm;
    const struct weir_conf_user *users; /* by name; the same list where the file is the same */
    size_t user_count;
    bool forward;            /* Authorization goes to the app, too */
    const char *broken;      /* not NULL: the file cannot be used, the reason: nobody gets in */
};
struct weir_conf_limit { /* requests of one client */
    uint64_t id;             /* of the site or route that says it: each counts for itself */
    uint64_t interval_us;    /* one each, on the long run */
    uint32_t burst;          /* at once */
};
#define WEIR_CONFIG_HEADERS_MAX 20
struct weir_conf_guards {
    struct weir_conf_nets allow, deny; /* allow: none: all. Who is in deny is refused, whatever allow says */
    const struct weir_conf_auth *auth; /* NULL: none */
    const struct weir_conf_limit *limit; /* NULL: none */
    struct weir_pair *headers;         /* of every answer; value.ptr NULL: removed */
    size_t header_count;
    uint64_t min_rate;                 /* bytes a second that a client sends of its body, takes of its answer; 0: none */
    uint32_t min_rate_ms;              /* that it has before it is looked at */
};
#define WEIR_CONFIG_USERS "users " /* a source of this name and a path holds users and their hashes: no statements */
struct weir_conf_allow {
    const char *user; /* who connects by a unix socket; NULL: an address */
    struct weir_net net;
};
struct weir_conf_listener {
    const char *name; /* a site's own `listen` makes one listener for each address, named by its text; shared by equal text */
    struct weir_conf_address address;
    struct weir_config_place place;
    /* of a FastCGI one: */
    int pool;                 /* that is published there; -1: http */
    const char *group;        /* of its unix socket; NULL: the gateway's */
    uint32_t mode;            /* of it [0660] */
    uint32_t backlog;         /* of a pool's socket [511] */
    struct weir_conf_allow *allow;
    size_t allow_count;
    uint64_t body_max;        /* STDIN and DATA of a request, each [64 MiB] */
    const char *certificates; /* of an http one: folder with NAME.pem and NAME.key of its sites; NULL: none */
    uint32_t header_ms, body_ms, idle_ms, send_ms; /* PARAMS whole; a gap in the body; without a request; without taking */
    /* of an http one: */
    struct weir_conf_nets proxies; /* that tell the client's address by the PROXY protocol; if there are some, nobody else may connect */
    struct weir_conf_trust trust;  /* nothing said: as all */
    uint32_t conns_max;            /* of one client; 0: no limit */
};

/* Files that the root part opens, for who may not: a certificate with its key, or authorities for clients' certificates. */
enum weir_conf_key_kind { WEIR_KEY_PAIR, WEIR_KEY_CLIENTS };
struct weir_conf_key {
    enum weir_conf_key_kind kind;
    const char *path;         /* absolute. PAIR: of the certificate; without key: a folder with fullchain.pem and privkey.pem, or
                                 what stands before .pem and .key */
    const char *key;          /* PAIR: of its key; NULL: see path */
    uint64_t hash;            /* of path: not equal where that is not */
    struct weir_config_place place; /* of the first one that names it */
};
#define WEIR_CONFIG_KEY_FILES 3 /* certificate, key, OCSP response (need not be there) */
/* The sets of files that it can be, in the order of trial, the first that is there: how many sets (at most 2); "" is no file. */
size_t weir_config_key_files(const struct weir_conf_key *k, char out[2][WEIR_CONFIG_KEY_FILES][4096]);

#define WEIR_CONFIG_PAGE_MAX 32768 /* bytes of a suspended site's text or page */
enum weir_conf_action { WEIR_ACTION_FILES, WEIR_ACTION_PHP, WEIR_ACTION_POOL, WEIR_ACTION_REDIRECT, WEIR_ACTION_DENY };
/* What may be sent to another server or process, if no answer comes. */
enum weir_conf_retry { WEIR_RETRY_CONNECT /* what was not sent, or was refused */, WEIR_RETRY_SAFE /* and safe methods */, WEIR_RETRY_NO, WEIR_RETRY_UNSET };
enum weir_conf_match { WEIR_MATCH_PREFIX, WEIR_MATCH_SUFFIX, WEIR_MATCH_EXACT };
struct weir_conf_pattern {
    enum weir_conf_match match;
    struct weir_str text; /* "/api/", ".fcgi" (of "*.fcgi"), "/x" */
};
enum weir_conf_try_kind {
    WEIR_TRY_FILE,  /* a file or, with a slash at its end, a folder */
    WEIR_TRY_GO,    /* the last word: the request goes there */
    WEIR_TRY_STATUS
};
struct weir_conf_try { /* before, the path without its first slash if it has a star, after */
    enum weir_conf_try_kind kind;
    struct weir_str before, after;
    bool star;
    int status;
};
struct weir_conf_error {
    int status;
    const char *target;       /* a path of the site, perhaps with a query */
};
struct weir_conf_route {
    struct weir_conf_pattern *patterns; /* none: the site's own settings, the last route of a site */
    size_t pattern_count;
    const char **methods;     /* that it takes; none: all. HEAD goes with GET */
    size_t method_count;
    bool internal;            /* no client gets here, only error pages, try and X-Accel-Redirect */
    struct weir_conf_try *tries; /* what is looked for before the action decides */
    size_t try_count;
    struct weir_str rewrite_from, rewrite_to; /* prefix that is replaced, and by what: both end in a slash; ptr NULL: none */
    struct weir_conf_error *errors; /* a status once */
    size_t error_count;
    bool intercept_errors;    /* also of an app's own answers */
    const char **links;       /* absolute: folders outside the root where links may lead */
    size_t link_count;
    const char *cache;        /* value of Cache-Control for files; NULL: none */
    bool precompressed;       /* x.br, x.zst, x.gz beside x are sent for it */
    const char **send_files;  /* absolute: folders whose files an app may name by X-Sendfile */
    size_t send_file_count;
    bool compress;            /* content of these types goes as gzip to who takes it */
    int compress_level;       /* 1..9 [5] */
    uint64_t compress_min;    /* shorter content goes as it is [1 KiB] */
    const char **compress_types; /* "text/html", "text/" and a star */
    size_t compress_type_count;
    bool accel_redirect;      /* its app may send requests to other routes by X-Accel-Redirect */
    enum weir_conf_action action;
    int pool;                 /* index into pools; -1 */
    int authorizer;           /* pool that is asked first; -1: none */
    const char *authorizer_script; /* its SCRIPT_FILENAME, absolute; NULL: not sent */
    int filter;               /* FILES: pool through which they go; -1: none */
    const char *redirect;     /* target */
    int64_t redirect_star;    /* where in it the rest of the path stands; -1: nowhere */
    int redirect_status;      /* 302 unless told */
    const char **only;        /* php POOL { only /index.php }: scripts that need not exist here */
    size_t only_count;
    const char *root;         /* absolute; NULL: none */
    const char *app_root;     /* as the app sees it; NULL: root */
    const char **index;       /* "index.php" (php routes), "index.html" */
    size_t index_count;
    struct weir_pair *params; /* param NAME VALUE; value.ptr NULL: removed */
    size_t param_count;
    uint64_t body_max;        /* bytes; default 64 MiB */
    uint32_t queue_ms;        /* 0: the pool's */
    uint32_t header_ms, body_ms, idle_ms, send_ms; /* client's head 15 s?, body gap 60 s, keep-alive 75 s, send gap 60 s */
    uint32_t request_ms, silent_ms, slow_ms;       /* of the app; 0: none */
    bool stream_request;      /* body { stream yes }: it goes to the app while it comes in */
    bool stream_unknown;      /* body { stream always }: also one whose length is not known; the app gets no CONTENT_LENGTH */
    enum weir_conf_retry retry;
    bool log;
    bool id_from_client, id_to_client; /* request-id: X-Request-Id is taken from the client; every answer has it */
    struct weir_conf_guards guards;
    struct weir_config_place place;
};
struct weir_conf_site {
    const char **names;       /* lower case; "*.example.org": all below it; "*" or none: default for its listeners */
    size_t name_count;
    int *listeners;           /* indexes */
    size_t listener_count;
    struct weir_conf_route *routes; /* in the order written; the last one is the site's own and matches all */
    size_t route_count;
    bool debug;
    int tls;                  /* index into keys; -1: no certificate of its own: */
    int *name_tls;            /* then one for each name, from its listener's folder, -1: none; NULL: there is no folder */
    int clients;              /* likewise: authorities of clients' certificates; -1: none are asked for */
    uint16_t https_port;      /* of its https:// listener, if it has a certificate: http:// is redirected there; 0: it is not */
    bool clear_text;          /* although it has a certificate, http:// is served, too */
    bool clients_required;    /* 403 for who shows none, or one that is not good */
    bool is_suspended;        /* every request is answered 503, with: */
    bool suspended_page;      /* text is HTML, of a file; else plain */
    struct weir_str suspended; /* may be empty */
    const char *broken;       /* not NULL: this site is disabled, the reason (answers 503) */
    bool same;                /* as a pool's */
    struct weir_config_place place;
};
struct weir_conf_endpoint {
    const char *address;      /* "unix:/path" or "fastcgi://ADDRESS:port" */
    uint32_t workers;         /* how many connections at once; default 4 */
    uint32_t requests;        /* requests on each connection of a peer without flow control; 1 */
    bool keep;                /* keep connections of a plain peer */
    bool flow;                /* hint: ask for flow control */
    uint32_t weight;          /* 1 to 256 */
    bool backup;              /* used when no other one is up */
};
enum weir_conf_balance { WEIR_BALANCE_LEAST, WEIR_BALANCE_PARAM, WEIR_BALANCE_COOKIE };
enum weir_conf_php { WEIR_PHP_ANY, WEIR_PHP_FPM, WEIR_PHP_CGI };
enum weir_conf_pool_kind { WEIR_POOL_RUN, WEIR_POOL_PHP, WEIR_POOL_CGI, WEIR_POOL_CONNECT };
struct weir_conf_pool {
    const char *name;
    enum weir_conf_pool_kind kind;
    const char **argv;        /* RUN, CGI: program and arguments, argv[0] absolute; CGI, empty: the script that a request names;
                                 PHP: empty (control finds php-cgi) */
    size_t argc;
    const char *php_version;  /* "8.2"; NULL: what is installed */
    const char *dir;          /* working directory: absolute folder of the file */
    const char *user, *group; /* NULL: the caller's own (not root) */
    enum weir_conf_php php;   /* PHP: which program [FPM if it is installed, else CGI] */
    uint32_t processes_min, processes; /* RUN: how many [1]; A..B: by demand; 0: the first request starts one */
    uint32_t workers_min, workers;     /* PHP: workers, CGI: programs at once [4]; A..B: by demand */
    uint32_t spare;           /* idle ones that are kept beside the busy ones, up to the most [0] */
    uint32_t requests_per_process; /* RUN: 0: learn it from the app */
    uint32_t queue_count, queue_ms;       /* 1000, 30000 */
    uint32_t request_ms, silent_ms, slow_ms; /* 0 none, 60000, 5000 */
    uint32_t longest_ms;      /* request_ms of it and of all routes that lead to it; 0: one has none */
    uint32_t drain_ms;        /* 30000: end of a generation */
    uint32_t idle_ms, start_ms; /* a process above the least, and a connection to php or connect, ends after so long without a request; a start
                                   that takes longer failed */
    const char *check;        /* connect: each server is asked for this path; NULL: not */
    uint32_t check_ms;        /* so often [5 s] */
    uint32_t check_fall, check_rise; /* so many in a row, and it is down; up [2, 1] */
    enum weir_conf_retry retry;
    enum weir_conf_balance balance; /* connect: by what a server is chosen */
    struct weir_str balance_key;    /* PARAM: the parameter whose value is the key; COOKIE: its name */
    uint32_t eject_ms, eject_max_ms; /* connect: how long a server that fails is left alone; 0: it is not */
    uint32_t slow_start_ms;
    uint32_t ping_ms;         /* a process that was not heard of for so long is asked, and has so long to answer [0: never] */
    uint32_t recycle_requests, recycle_ms; /* of a process; 0: never */
    uint64_t recycle_bytes;
    uint32_t files;           /* soft RLIMIT_NOFILE [1024] */
    uint32_t log_rate;        /* lines of its output in a second; 0: no limit [2000] */
    const char **watch;       /* absolute: files and folders; when one changes, the pool restarts */
    size_t watch_count;
    const char *ready_path;   /* ready when a GET of this path is answered below 400; NULL: when a worker accepted */
    bool notify;              /* ready when it says READY=1 (sd_notify) */
    struct weir_pair *php_values, *php_admin_values;
    size_t php_value_count, php_admin_value_count;
    bool keep, keep_told;     /* connections of plain peers are kept: yes for pools that Weir starts */
    bool multiplex_plain;     /* peer without credit is multiplexed because the pool says so */
    struct weir_pair *env;    /* env NAME VALUE, names unique */
    size_t env_count;
    struct weir_conf_endpoint *endpoints; /* CONNECT */
    size_t endpoint_count;
    const char *publish;      /* listener; NULL: none */
    const struct weir_conf_listener *listen; /* the socket that its processes share with web servers; NULL: private ones */
    int stop_signal;          /* what a process is told to end by [SIGTERM] */
    struct weir_config_place publish_place;
    const char *broken;       /* not NULL: it cannot run, the reason */
    bool same;                /* all that it is made of is as it was: the machine was looked at then */
    struct weir_config_place place;
};
enum weir_conf_role_kind { WEIR_ROLE_NONE, WEIR_ROLE_READ, WEIR_ROLE_OPERATE, WEIR_ROLE_ADMIN }; /* each may what those before it may */
enum weir_conf_who { WEIR_WHO_USER, WEIR_WHO_GROUP, WEIR_WHO_OWNER };
struct weir_conf_role {
    enum weir_conf_role_kind role;
    enum weir_conf_who who;
    const char *name;         /* of the user or group; OWNER: the user of a pool, for that pool */
    struct weir_config_place place;
};
enum { /* JSON, with all there is to say, or the combined format and behind it: */
    WEIR_LOG_JSON = 1,
    WEIR_LOG_SITE = 2,  /* the site's first name */
    WEIR_LOG_TIME = 4,  /* microseconds: in all, in the pool's queue, until an app's first byte */
    WEIR_LOG_POOL = 8,  /* pool, process or address, tries */
    WEIR_LOG_BYTES = 16, /* of the request's body */
    WEIR_LOG_ID = 32    /* of the request */
};
#define WEIR_CONF_ENV_MAX 1000 /* variables of a pool */
struct weir_config {
    struct weir_arena arena;
    unsigned refs;            /* atomic */
    struct weir_config_place place; /* of `weir`, else of the configuration itself */
    const char *user, *gateway_user;   /* weir, weir-gw */
    const char *control_path; /* control socket [WEIR_CONTROL_SOCKET as root, else WEIR_CONTROL_SOCKET_OF_USER] */
    struct weir_conf_role *roles; /* who else may drive it; root and the user who runs Weir may all */
    size_t role_count;
    struct weir_conf_trust trust; /* on listeners without their own */
    const char *deny_file;    /* addresses whose connections are closed; NULL: none */
    const char *log_path;     /* access log; "-" or NULL: the terminal (serve); "off" */
    unsigned log_format;      /* of its lines: WEIR_LOG_*; 0: combined alone */
    const char *app_log;      /* lines of apps; NULL: beside our own */
    bool app_log_json;
    const char *temp_dir;     /* spill files [/var/lib/weir/tmp, else /tmp] */
    uint64_t temp_bytes;      /* all spill files together [20 GiB] */
    uint32_t threads;         /* gateway [number of CPUs] */
    uint32_t processes;       /* of all pools together [2000] */
    uint32_t starting;        /* that start at the same time [8] */
    uint32_t drain_ms;        /* what a gateway that was replaced has to finish [1 h] */
    uint32_t connections;     /* connections of clients at once [16384, bounded by RLIMIT_NOFILE] */
    struct weir_conf_listener *listeners;
    size_t listener_count;
    struct weir_conf_listener *shared; /* sockets of pools with `listen`: not for the gateway */
    size_t shared_count;
    struct weir_conf_site *sites;
    size_t site_count;
    struct weir_conf_pool *pools;
    size_t pool_count;
    struct weir_conf_key *keys;
    size_t key_count;
};

/* A text of `old` is taken back into s: the homes that it asks for, too. */
WEIR_CHECK int weir_config_take_homes(struct weir_config_sources *s, const struct weir_config_sources *old);
/* Reads the main file and, as told by it, includes and tenants. errors go into the report. */
WEIR_CHECK int weir_config_read(const char *path, struct weir_config_sources *out, struct weir_config_report *report);
/* The same from an open descriptor (control: opened by the root part; -1: it is opened here) whose name is path. What `old` has of
 * an included file that did not change since is taken from there (NULL: there is none). An included file that cannot be read is
 * a source with a problem, which is told when it is parsed. */
WEIR_CHECK int weir_config_read_fd(int fd, const char *path, const struct weir_config_sources *old, struct weir_config_sources *out,
                                   struct weir_config_report *report);
/* Whom control and gateway run as, by `weir { user }` of the main file that fd holds; the defaults if it says nothing or cannot
 * be read. For a process without rights: root believes the two names, not the file. */
#define WEIR_CONFIG_USER_MAX 40
struct weir_config_users {
    char control[WEIR_CONFIG_USER_MAX], gateway[WEIR_CONFIG_USER_MAX];
};
void weir_config_users(int fd, struct weir_config_users *out);
/* The sources of `weir serve DIR`, made in memory. */
/* user: of its pools; NULL: nobody else's. */
WEIR_CHECK int weir_config_for_dir(const char *dir, const char *listen, const char *user, struct weir_config_sources *out,
                                   struct weir_config_report *report);
/* The program of a php pool: which of the two it is to be (ANY: php-fpm, else php-cgi) and of which version (NULL: the newest one
 * installed). The one that it is, or ANY: there is none. */
enum weir_conf_php weir_config_php(enum weir_conf_php which, const char *version, char *out, size_t len);
/* A program of our own that lies beside the running one, in a build or an installation ("weir-supervise"). */
bool weir_config_own_program(const char *name, char *out, size_t len);
/* One block of bytes that holds all sources (for a memfd), and back. */
WEIR_CHECK int weir_config_pack(const struct weir_config_sources *s, struct weir_buf *out);
WEIR_CHECK int weir_config_unpack(const void *p, size_t len, struct weir_config_sources *out);
void weir_config_sources_free(struct weir_config_sources *s);
/* Nothing of an included file is used any more. */
void weir_config_source_lose(struct weir_config_source *s);
/* The report tells an error of this file. */
bool weir_config_has_mistakes(const struct weir_config_report *r, const char *file);
/* Pure: no file is touched. NULL in *out on any ERROR of the main file (LATER alone is no error here: it is for check). */
WEIR_CHECK int weir_config_parse(const struct weir_config_sources *s, struct weir_config **out, struct weir_config_report *report);
/* What `check --effective` prints: each setting of the pool or site `name` (or of "weir") with its value and its place. */
struct weir_config_effective {
    char *text;               /* "workers 4", "route /x/ { pool a }"; variables replaced, paths absolute */
    struct weir_config_place place; /* file "built-in": no file says it */
};
struct weir_config_effective_list {
    const char *kind;         /* "pool", "site", "weir" */
    struct weir_config_effective *list;
    size_t count;
    struct weir_arena arena;
};
/* WEIR_INVALID: no such name. */
WEIR_CHECK int weir_config_effective(const struct weir_config_sources *s, const char *name, struct weir_config_effective_list *out,
                                     struct weir_config_report *report);
/* Certificates that sites name are there: errors. What may not be looked at is passed over. (Who serves tells by himself.) */
void weir_config_check_keys(const struct weir_config *c, struct weir_config_report *report);
/* Of a reload, for what must not take the place of what works: a root that is no folder, of a site that had another one before, or
 * that main_file adds. False: there is one, told as an error. */
WEIR_CHECK bool weir_config_check_roots(const struct weir_config *c, const struct weir_config *before, const char *main_file, struct weir_config_report *report);
/* The checks that look at the machine: users, programs, roots, RLIMIT_NOFILE; not again for what is `same`. Adds to the report. */
void weir_config_check_machine(const struct weir_config *c, bool as_root, struct weir_config_report *report);
/* Does the route take requests of this method? HEAD goes with GET. */
bool weir_conf_route_takes(const struct weir_conf_route *r, struct weir_str method);
struct weir_config *weir_config_hold(struct weir_config *c);
void weir_config_drop(struct weir_config *c);
void weir_config_report_init(struct weir_config_report *r);
void weir_config_report_fini(struct weir_config_report *r);
/* "weir: FILE:LINE:COLUMN: what is wrong: what to do" for each, to a stdio stream. */
struct _IO_FILE;
void weir_config_report_print(const struct weir_config_report *r, struct _IO_FILE *to);
#endif

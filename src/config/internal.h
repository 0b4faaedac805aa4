/* SPDX-License-Identifier: MIT */
/* config: what its files share: the tree that the reader makes, messages, the table of names. */
#ifndef WEIR_CONFIG_INTERNAL_H
#define WEIR_CONFIG_INTERNAL_H

#include "config/config.h"

#define MAX_FILE  (1u << 20) /* bytes of one file */
#define MAX_DEPTH 8          /* blocks in blocks */
#define MAX_WORDS 256        /* of one statement */
#define MAX_MESSAGES 2000
#define MAX_OF_FILE  100     /* messages in a row: the mistakes of one file leave room for those of others */

struct word {
    struct weir_str text; /* NUL behind it; in the tree's arena */
    unsigned line, column;
    bool quoted;
};
struct node { /* a statement, with its block */
    struct word *words;
    size_t count;
    struct node *children, *next;
    const struct weir_config_source *source;
    const char *tenant; /* of a site or pool: whose file it stands in; NULL: nobody's */
    bool has_block, used;
};
/* All statements of a source, NULL if none; errors go into the report (reading goes on behind them). */
struct node *config_tree(const struct weir_config_source *s, struct weir_arena *a, struct weir_config_report *r);

void config_say(struct weir_config_report *r, enum weir_config_level level, const struct node *n, size_t word,
                const char *advice, const char *fmt, ...) WEIR_PRINTF(6, 7);
void config_say_at(struct weir_config_report *r, enum weir_config_level level, const struct weir_config_place *at,
                   const char *advice, const char *fmt, ...) WEIR_PRINTF(5, 6);

enum block {
    BLOCK_TOP = 1,
    BLOCK_WEIR = 2,
    BLOCK_LISTENER = 4,
    BLOCK_SITE = 8,
    BLOCK_ROUTE = 16,
    BLOCK_POOL = 32,
    BLOCK_TIME = 64,
    BLOCK_LIMITS = 128,
    BLOCK_CONNECT = 256,
    BLOCK_PHP = 512,
    BLOCK_FILES = 1024,
    BLOCK_PEER_TLS = 2048,
    BLOCK_CONTROL = 4096,
    BLOCK_CEILING = 8192,
    BLOCK_RECYCLE = 16384,
    BLOCK_BODY = 32768,
    BLOCK_COMPRESS = 1 << 26,
    BLOCK_TLS = 65536,
    BLOCK_REQUEST_ID = 1 << 24,
    BLOCK_CHECK = 131072,
    BLOCK_AUTH = 1 << 25,
    BLOCK_NONE = 0
};
enum how { /* a layer above meets what a layer below said */
    HOW_REPLACE,
    HOW_LIST,  /* replaces; NAME + word ... appends */
    HOW_MAP,   /* merges by its first word */
    HOW_ALL,   /* all of them hold, for each word the last one */
    HOW_BLOCK, /* what stands in its block merges by name */
    HOW_GROUP_POOL, HOW_GROUP_ROUTE /* of such a group one can stand; a block's own one replaces an inherited one */
};
struct setting {
    unsigned in;          /* blocks that know it */
    const char *name;
    uint8_t min, max;     /* words behind the name; 255: any number */
    enum block sub;       /* the block that it may open */
    enum how how;
    bool many;            /* may stand several times */
    bool later;           /* known, but not in this version */
    bool needs_block;
    bool folded;          /* its first word means the same in capitals */
    uint8_t path;         /* which of its words is one; 0: none */
    bool bare;            /* this is what it means without words; with some it is the next one of its name */
};
const struct setting *config_setting(enum block in, struct weir_str name);
const struct setting *config_setting_of(enum block in, const struct node *n); /* the same name may mean another thing with and without words */
const char *config_nearest_setting(enum block in, struct weir_str name);   /* NULL: nothing is near */
const char *config_nearest(struct weir_str name, const char *const *list, size_t count);
/* Checks names, number of words and repetition of a block's statements, and of the blocks inside: true if it may be used. */
void config_check_names(struct node *first, enum block in, struct weir_config_report *r);

/* Values: WEIR_OK or WEIR_INVALID. */
int config_size(struct weir_str s, uint64_t *out);               /* bytes: digits and B, K, M, G, T */
int config_time(struct weir_str s, uint32_t *out_ms, bool none); /* ms, s, m, h, d; none: the word "none" is 0 */

/* ---- parsing: values.c; pools.c and sites.c read their blocks; parse.c puts it together ---- */
enum { LAYER_BUILT_IN, LAYER_DEFAULTS, LAYERS };
struct parser {
    const struct weir_config_sources *sources;
    struct weir_config *c;
    struct weir_config_report *report;
    struct weir_arena tree;
    struct node *first, **last; /* all statements of all sources */
    struct node *site[LAYERS], *pool[LAYERS]; /* what lies below every site and pool; NULL: nothing */
    struct node *program;       /* weir { }, built in */
    const struct weir_config_source *place_source; /* whose name is kept as */
    const char *place_file;
    size_t listener_cap, key_cap;
    struct weir_table pool_names, host_names; /* of struct named */
    size_t pool_cap;
    bool any_lost, all_new;     /* of the sources: one is lost; what lies below all pools may have changed */
    const char *const *own_listeners;
    struct { /* $name, $user, $home of the block that is read; ptr NULL: it has none */
        struct weir_str name, user, home;
    } vars;
    const char *tenant; /* of the block that is read; NULL: it is not a tenant's */
    struct users_file *users; /* files of users that were read */
};
struct named {
    struct weir_table_node node;
    const char *name;
    const struct node *at;   /* where; and which word */
    size_t word, index;      /* index: of the pool or site */
};
/* NULL: nobody was remembered by this name. */
const struct named *config_named(const struct weir_table *t, struct weir_str name);
void config_remember(struct parser *p, struct weir_table *t, const char *name, const struct node *n, size_t word, size_t index);
/* The name at n is another one's already. The newer one of two files is to blame: what runs is not harmed by what comes. */
void config_taken(struct parser *p, const struct node *n, size_t word, const struct named *first);
void config_parser_fini(struct parser *p); /* all but the configuration */
/* The place of a user among the homes: found, or where it would be put in. */
bool config_find_home(const struct weir_config_sources *s, struct weir_str user, size_t *at);
/* Reads sources and defaults into the parser; the statements stand in p->first. False: out of memory. */
WEIR_CHECK bool config_gather(struct parser *p, const struct weir_config_sources *s, struct weir_config_report *report);
void *config_alloc(struct parser *p, size_t n); /* zeroed, in the snapshot's arena */
const char *config_keep(struct parser *p, struct weir_str s);
struct weir_config_place config_place(struct parser *p, const struct node *n);
bool node_is(const struct node *n, const char *name);
bool config_word_is(const struct node *n, size_t word, const char *text); /* and it is not quoted */
void config_bad(struct parser *p, const struct node *n, size_t word, const char *what, const char *advice);
/* A word with its variables replaced, NUL behind it. */
struct weir_str config_text(struct parser *p, const struct node *n, size_t word);
/* An absolute path; relative ones stand in their file's folder, ~/ in the user's. */
const char *config_path(struct parser *p, const struct node *n, size_t word);
void config_count(struct parser *p, const struct node *n, size_t word, uint32_t min, uint32_t max, uint32_t *out);
void config_get_time(struct parser *p, const struct node *n, size_t word, bool none, uint32_t *out);
void config_get_size(struct parser *p, const struct node *n, size_t word, uint64_t *out);
void config_get_flag(struct parser *p, const struct node *n, size_t word, bool *out);
/* NAME VALUE into a map; an equal name is replaced. */
void config_set_pair(struct parser *p, struct weir_pair **list, size_t *count, struct weir_str name, struct weir_str value);
/* Words from `first` on: a new list, or behind the old one if they begin with a lone +. */
void config_words(struct parser *p, const struct node *n, size_t first, const char ***list, size_t *count);
bool config_appends(const struct node *n); /* NAME + word ... */
/* Exclusive settings of one block: the second one is an error. */
bool config_claim(struct parser *p, const struct node **holder, const struct node *n);
struct config_times {
    uint32_t *request, *silent, *slow, *head, *body, *idle, *send, *start, *ping;
};
void config_times(struct parser *p, const struct node *block, const struct config_times *t);
/* servers.c: what a pool does with several servers. False: n is none of its settings. */
bool config_server_setting(struct parser *p, struct weir_conf_pool *o, const struct node *n);
void config_read_connect(struct parser *p, struct weir_conf_pool *o, const struct node *n);
void config_check_servers(struct parser *p, struct weir_conf_pool *o, const struct node *pool); /* when all of it is known */
void config_get_retry(struct parser *p, const struct node *n, enum weir_conf_retry *out);
void config_twice(struct parser *p, const struct node *n, size_t word, const struct weir_config_place *first);
bool config_env_name(struct weir_str s);
/* A word that names a file: /x, ./x, ../x, ~/x. Its page stands among the sources, as this name and the path. */
bool config_names_file(const struct node *n, size_t word);
#define PAGE_SOURCE "page "
/* sources.c: the text that stands beside the others as this kind and path; NULL: it could not be read. */
const struct weir_config_source *config_find_beside(const struct weir_config_sources *s, const char *kind, const char *path);
/* guards.c: who may ask, and how often. True: the setting of a site or route was one of them. */
bool config_read_guard(struct parser *p, struct weir_conf_guards *g, const struct node *n);
/* users.c: auth basic FILE ... */
void config_read_auth(struct parser *p, struct weir_conf_guards *g, const struct node *n);
bool config_names_users(const struct node *n); /* the statement names such a file, in its third word */
void config_read_trust(struct parser *p, struct weir_conf_trust *t, const struct node *n);
void config_read_http_listener(struct parser *p, const struct node *block, struct weir_conf_listener *l); /* what stands in it beside its addresses */
void config_read_pool(struct parser *p, const struct node *n);
void config_pool_vars(struct parser *p, const struct node *n); /* of this block */
#define CONFIG_TENANT_MAX 40
/* The user whose file this is, by its name: USER.conf. False: it names none. */
bool config_tenant_of(const char *path, char *user, size_t len);
/* tenants.c: a file that belongs to one user. Marks what it defines as his, and tells what it may not say. */
void config_check_tenant(struct parser *p, struct node *first, const struct weir_config_source *s);
void config_tenant_pool(struct parser *p, const struct node *pool); /* php-admin-values of all stay as they are */
void config_tenant_root(struct parser *p, const struct node *n, const char *root); /* it has to lie in his home */
void config_set_home(struct parser *p); /* of vars.user */
void config_site_vars(struct parser *p, const struct node *n);
void config_pool_listen(struct parser *p, struct weir_conf_pool *o, const struct node *n); /* listen unix:/PATH ... */
void config_read_listener(struct parser *p, const struct node *n);
/* One address of a listener, or (name NULL) of a site's listen: its index, or -1. */
int config_add_address(struct parser *p, const struct node *n, size_t word, const char *name);
bool config_is_listener(const struct parser *p, struct weir_str name); /* defined, perhaps with addresses of a later version */
bool config_is_http(const struct weir_conf_listener *l);                 /* http:// or https:// */
void config_publish(struct parser *p);                                 /* pools onto their listeners, when all are known */
void config_read_site(struct parser *p, const struct node *n);
void config_lint(const struct weir_config *c, struct weir_config_report *r); /* warnings: what can hardly be meant */
/* routes.c */
size_t config_route_patterns(const struct node *n);  /* how many words of a route's head are patterns */
void config_route_methods(struct parser *p, struct weir_conf_route *r, const struct node *n);
void config_read_redirect(struct parser *p, struct weir_conf_route *r, const struct node *n);
bool config_route_setting(struct parser *p, struct weir_conf_route *r, const struct node *n); /* false: not one of its */
void config_check_route(struct parser *p, const struct weir_conf_route *r, const struct node *block);
void config_route_start(struct weir_conf_route *r);  /* what no layer says */
void config_read_files(struct parser *p, struct weir_conf_route *r, const struct node *n);   /* files { } */
void config_check_index(struct parser *p, const struct node *n);
bool config_wildcard(struct weir_str s);             /* *.example.org or .example.org */
#endif

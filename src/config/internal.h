/* SPDX-License-Identifier: MIT */
/* config: what its files share: the tree that the reader makes, messages, the table of names. */
#ifndef WEIR_CONFIG_INTERNAL_H
#define WEIR_CONFIG_INTERNAL_H

#include "config/config.h"

#define MAX_FILE  (1u << 20) /* bytes of one file */
#define MAX_DEPTH 8          /* blocks in blocks */
#define MAX_WORDS 256        /* of one statement */
#define MAX_MESSAGES 200

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
    bool has_block, used;
};
/* All statements of a source, NULL if none; errors go into the report (reading goes on behind them). */
struct node *config_tree(const struct weir_config_source *s, struct weir_arena *a, struct weir_config_report *r);

void config_say(struct weir_config_report *r, enum weir_config_level level, const struct node *n, size_t word,
                const char *advice, const char *fmt, ...) WEIR_PRINTF(6, 7);
void config_say_at(struct weir_config_report *r, enum weir_config_level level, const char *file, unsigned line,
                   unsigned column, const char *advice, const char *text);

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
    BLOCK_NONE = 0
};
struct setting {
    unsigned in;          /* blocks that know it */
    const char *name;
    uint8_t min, max;     /* words behind the name; 255: any number */
    enum block sub;       /* the block that it may open */
    bool many;            /* may stand several times */
    bool later;           /* known, but not in this version */
    bool needs_block;
};
const struct setting *config_setting(enum block in, struct weir_str name);
const char *config_nearest_setting(enum block in, struct weir_str name);   /* NULL: nothing is near */
const char *config_nearest(struct weir_str name, const char *const *list, size_t count);
/* Checks names, number of words and repetition of a block's statements, and of the blocks inside: true if it may be used. */
void config_check_names(struct node *first, enum block in, struct weir_config_report *r);
const struct setting *config_settings(size_t *count);

/* Values: 0, or a message in *why. */
int config_size(struct weir_str s, uint64_t *out);               /* bytes: digits and B, K, M, G, T */
int config_time(struct weir_str s, uint32_t *out_ms, bool none); /* ms, s, m, h, d; none: the word "none" is 0 */
#endif

/* SPDX-License-Identifier: MIT */
/* Words and blocks: `word word ... { ... }`, ended by a newline or `;`. Text -> tree; meaning is parse.c's. After a mistake
 * reading goes on at the next statement, so that all mistakes of a file are told in one run. */
#include <stdarg.h>
#include <stdio.h>

#include "config/internal.h"

struct reader {
    const struct weir_config_source *source;
    struct weir_arena *arena;
    struct weir_config_report *report;
    const char *p, *end;
    unsigned line, column;
    unsigned depth;
};

static void remember_bad(struct weir_config_report *r, const char *file)
{
    for (size_t i = r->bad_count; i-- > 0;) /* mostly the last one */
        if (strcmp(r->bad[i], file) == 0) return;
    if (r->bad_count % 64 == 0) {
        const char **list = weir_arena_alloc(&r->arena, (r->bad_count + 64) * sizeof *list);
        if (!list) return;
        if (r->bad_count) memcpy(list, r->bad, r->bad_count * sizeof *list);
        r->bad = list;
    }
    const char *name = weir_arena_str(&r->arena, weir_cstr(file)).ptr;
    if (name) r->bad[r->bad_count++] = name;
}

static void add_message(struct weir_config_report *r, enum weir_config_level level, const struct weir_config_place *at, const char *advice, const char *text)
{
    if (level == WEIR_CONFIG_ERROR) r->errors++;
    if (level == WEIR_CONFIG_LATER) r->later++;
    if (level != WEIR_CONFIG_WARNING) remember_bad(r, at->file);
    r->of_file = r->count && strcmp(r->list[r->count - 1].file, at->file) == 0 ? r->of_file + 1 : 1;
    if (r->count >= MAX_MESSAGES || r->of_file > MAX_OF_FILE) {
        r->dropped++;
        return;
    }
    if (r->count == 0 || (r->count >= 16 && (r->count & (r->count - 1)) == 0)) { /* full: 16, 32, ... */
        struct weir_config_message *list = weir_arena_alloc(&r->arena, (r->count ? r->count * 2 : 16) * sizeof *list);
        if (!list) return;
        if (r->count) memcpy(list, r->list, r->count * sizeof *list);
        r->list = list;
    }
    struct weir_config_message *m = &r->list[r->count];
    *m = (struct weir_config_message){.level = level, .line = at->line, .column = at->column};
    m->file = weir_arena_str(&r->arena, weir_cstr(at->file)).ptr;
    m->text = weir_arena_str(&r->arena, weir_cstr(text)).ptr;
    m->advice = weir_arena_str(&r->arena, weir_cstr(advice ? advice : "")).ptr;
    if (m->file && m->text && m->advice) r->count++;
}

void config_say(struct weir_config_report *r, enum weir_config_level level, const struct node *n, size_t word,
                const char *advice, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const struct word *w = &n->words[word < n->count ? word : n->count - 1];
    add_message(r, level, &(struct weir_config_place){n->source->name, w->line, w->column}, advice, text);
}

void config_say_at(struct weir_config_report *r, enum weir_config_level level, const struct weir_config_place *at, const char *advice, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add_message(r, level, at, advice, text);
}

static void say(struct reader *r, const char *text, const char *advice)
{
    add_message(r->report, WEIR_CONFIG_ERROR, &(struct weir_config_place){r->source->name, r->line, r->column}, advice, text);
}

static void step(struct reader *r)
{
    if (*r->p == '\n') {
        r->line++;
        r->column = 1;
    } else if (((unsigned char)*r->p & 0xc0) != 0x80) { /* columns count characters */
        r->column++;
    }
    r->p++;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* To where a word, a sign, or the end of the line is; comments go. */
static void skip(struct reader *r)
{
    while (r->p < r->end && blank(*r->p)) step(r);
    if (r->p < r->end && *r->p == '#')
        while (r->p < r->end && *r->p != '\n') step(r);
}

static bool ends_word(char c)
{
    return blank(c) || c == '\n' || c == ';' || c == '{' || c == '}';
}

static bool put(struct reader *r, char *to, size_t *n, char c)
{
    if ((unsigned char)c < 0x20 || c == 0x7f) {
        say(r, "a control byte", "remove it");
        return false;
    }
    to[(*n)++] = c;
    return true;
}

/* No control byte is in it. */
static bool plain(const char *p, size_t len)
{
    bool fine = true;
    for (size_t i = 0; i < len; i++) fine = fine && (unsigned char)p[i] >= 0x20 && p[i] != 0x7f;
    return fine;
}

/* A word, quoted or not; false: it was not valid. */
static bool read_word(struct reader *r, struct word *w)
{
    *w = (struct word){.line = r->line, .column = r->column, .quoted = *r->p == '"'};
    size_t most = 0, n = 0;
    if (w->quoted) while (r->p + most + 1 < r->end && r->p[most] != '\n') most++;
    else while (r->p + most < r->end && !ends_word(r->p[most])) most++;
    char *to = weir_arena_bytes(r->arena, most + 2);
    bool fine = to != NULL;
    if (!fine) {
        say(r, "out of memory", "");
        r->p = r->end;
        return false;
    }
    if (!w->quoted && plain(r->p, most)) {
        memcpy(to, r->p, most);
        for (; n < most; n++) r->column += ((unsigned char)to[n] & 0xc0) != 0x80;
        r->p += most;
    } else if (!w->quoted) {
        while (r->p < r->end && !ends_word(*r->p)) {
            fine = put(r, to, &n, *r->p) && fine;
            step(r);
        }
    } else {
        step(r);
        while (r->p < r->end && *r->p != '"' && *r->p != '\n') {
            if (*r->p == '\\' && r->p + 1 < r->end && (r->p[1] == '"' || r->p[1] == '\\')) step(r);
            fine = put(r, to, &n, *r->p) && fine;
            step(r);
        }
        if (r->p == r->end || *r->p != '"') {
            say(r, "a quoted word without its end", "close it with \" on the same line");
            fine = false;
        } else {
            step(r);
            if (r->p < r->end && !ends_word(*r->p)) {
                say(r, "text right behind a closing quote", "put a blank between them");
                fine = false;
            }
        }
    }
    to[n] = 0;
    w->text = weir_str(to, n);
    return fine;
}

static struct node *read_block(struct reader *r, bool inner);

static struct node *read_statement(struct reader *r)
{
    struct word words[MAX_WORDS];
    struct node *n = weir_arena_alloc(r->arena, sizeof *n);
    bool fine = n != NULL;
    size_t count = 0;
    while (r->p < r->end && !(*r->p == '\n' || *r->p == ';' || *r->p == '{' || *r->p == '}')) {
        struct word w;
        if (!read_word(r, &w)) fine = false;
        if (count < MAX_WORDS) words[count++] = w;
        else if (count++ == MAX_WORDS) say(r, "too many words in one statement", "split it");
        skip(r);
    }
    if (count > MAX_WORDS) fine = false;
    if (count > MAX_WORDS) count = MAX_WORDS;
    if (!n) return NULL;
    *n = (struct node){.count = count, .source = r->source};
    n->words = weir_arena_alloc(r->arena, (count + 1) * sizeof *words);
    if (!n->words) return NULL;
    memcpy(n->words, words, count * sizeof *words);
    if (r->p < r->end && *r->p == '{') {
        if (count == 0) {
            say(r, "a block without a name", "write what it is for before the {");
            fine = false;
        }
        unsigned line = r->line, column = r->column;
        step(r);
        n->has_block = true;
        if (++r->depth > MAX_DEPTH) {
            say(r, "blocks are nested too deep", "");
            r->p = r->end;
            return NULL;
        }
        n->children = read_block(r, true);
        r->depth--;
        if (r->p < r->end && *r->p == '}') {
            step(r);
        } else {
            config_say_at(r->report, WEIR_CONFIG_ERROR, &(struct weir_config_place){r->source->name, line, column}, "close it with }",
                          "a block without its end");
            fine = false;
        }
    }
    return fine && count ? n : NULL;
}

static struct node *read_block(struct reader *r, bool inner)
{
    struct node *first = NULL, **last = &first;
    for (;;) {
        skip(r);
        if (r->p >= r->end) return first;
        if (*r->p == '\n' || *r->p == ';') {
            step(r);
            continue;
        }
        if (*r->p == '}') {
            if (inner) return first;
            say(r, "a } without a block", "remove it, or open the block with {");
            step(r);
            continue;
        }
        struct node *n = read_statement(r);
        if (!n) continue;
        *last = n;
        last = &n->next;
    }
}

struct node *config_tree(const struct weir_config_source *s, struct weir_arena *a, struct weir_config_report *report)
{
    struct reader r = {.source = s, .arena = a, .report = report, .p = s->text, .end = s->text + s->len, .line = 1,
                       .column = 1};
    if (s->len > MAX_FILE) {
        say(&r, "the file is larger than 1 MiB", "this is no configuration");
        return NULL;
    }
    if (s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0) r.p += 3; /* a byte order mark says nothing */
    return read_block(&r, false);
}

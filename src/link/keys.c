/* SPDX-License-Identifier: MIT */
/* link: certificates and keys as bytes. A count; then for each a kind, the lengths of its texts, and these. Little-endian. */
#include "link/link.h"

enum { TEXTS = 2 + WEIR_LINK_KEY_FILES };

static void texts_of(const struct weir_link_key *k, struct weir_str out[TEXTS])
{
    out[0] = k->path;
    out[1] = k->key;
    for (int i = 0; i < WEIR_LINK_KEY_FILES; i++) out[2 + i] = k->files[i];
}

int weir_link_keys_encode(const struct weir_link_key *list, size_t count, struct weir_buf *out)
{
    const uint32_t n = (uint32_t)count;
    if (count > WEIR_LINK_KEYS_MAX) return WEIR_LIMIT;
    if (weir_buf_append(out, &n, sizeof n) < 0) return WEIR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        struct weir_str texts[TEXTS];
        uint32_t head[1 + TEXTS] = {list[i].kind};
        texts_of(&list[i], texts);
        for (int k = 0; k < TEXTS; k++) {
            if (texts[k].len > WEIR_LINK_KEY_MAX) return WEIR_LIMIT;
            head[1 + k] = (uint32_t)texts[k].len;
        }
        if (weir_buf_append(out, head, sizeof head) < 0) return WEIR_NOMEM;
        for (int k = 0; k < TEXTS; k++)
            if (texts[k].len && weir_buf_append(out, texts[k].ptr, texts[k].len) < 0) return WEIR_NOMEM;
    }
    return WEIR_OK;
}

int weir_link_keys_decode(const void *p, size_t len, struct weir_arena *a, struct weir_link_key **out, size_t *count)
{
    const char *at = p, *end = at + len;
    uint32_t n, head[1 + TEXTS];
    if (len < sizeof n) return WEIR_PROTOCOL;
    memcpy(&n, at, sizeof n);
    at += sizeof n;
    if (n > WEIR_LINK_KEYS_MAX || n > (size_t)(end - at) / sizeof head) return WEIR_PROTOCOL; /* nothing is allocated for them */
    struct weir_link_key *list = weir_arena_alloc(a, n * sizeof *list + 1);
    if (!list) return WEIR_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        struct weir_str texts[TEXTS];
        if ((size_t)(end - at) < sizeof head) return WEIR_PROTOCOL;
        memcpy(head, at, sizeof head);
        at += sizeof head;
        for (int k = 0; k < TEXTS; k++) {
            if (head[1 + k] > (size_t)(end - at)) return WEIR_PROTOCOL;
            texts[k] = weir_str(at, head[1 + k]);
            at += head[1 + k];
        }
        list[i] = (struct weir_link_key){.kind = head[0], .path = texts[0], .key = texts[1]};
        for (int k = 0; k < WEIR_LINK_KEY_FILES; k++) list[i].files[k] = texts[2 + k];
    }
    if (at != end) return WEIR_PROTOCOL;
    *out = list;
    *count = n;
    return WEIR_OK;
}

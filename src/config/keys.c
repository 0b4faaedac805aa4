/* SPDX-License-Identifier: MIT */
/* Which files a certificate and its key are. Pure: whoever may opens them. */
#include <stdio.h>

#include "config/config.h"

typedef char set[WEIR_CONFIG_KEY_FILES][4096];

static bool put(char out[4096], const char *path, const char *more)
{
    return snprintf(out, 4096, "%s%s", path, more) < 4096;
}

size_t weir_config_key_files(const struct weir_conf_key *k, set out[2])
{
    for (int i = 0; i < WEIR_CONFIG_KEY_FILES; i++) out[0][i][0] = out[1][i][0] = 0;
    if (k->kind == WEIR_KEY_CLIENTS) return put(out[0][0], k->path, "");
    if (k->key) return put(out[0][0], k->path, "") && put(out[0][1], k->key, "") && put(out[0][2], k->path, ".ocsp");
    bool folder = put(out[0][0], k->path, "/fullchain.pem") && put(out[0][1], k->path, "/privkey.pem") && put(out[0][2], k->path, "/ocsp.der");
    bool stem = put(out[1][0], k->path, ".pem") && put(out[1][1], k->path, ".key") && put(out[1][2], k->path, ".ocsp");
    return folder && stem ? 2 : 0;
}

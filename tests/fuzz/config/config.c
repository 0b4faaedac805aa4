/* SPDX-License-Identifier: MIT */
/* Any text as a configuration: it ends, and every message has a place in it. */
#include <stdint.h>
#include <stdlib.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char name[] = "f", dir[] = "/";
    char *text = malloc(len + 1);
    if (!text) return 0;
    if (len) memcpy(text, data, len);
    text[len] = 0;
    struct weir_config_source one = {.name = name, .text = text, .len = len, .dir = dir};
    struct weir_config_sources s = {&one, 1};
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    int status = weir_config_parse(&s, &c, &r);
    if ((status == WEIR_OK) != (c != NULL)) abort();
    for (size_t i = 0; i < r.count; i++)
        if (r.list[i].line < 1 || r.list[i].line > len + 1 || r.list[i].column < 1 || r.list[i].column > len + 1) abort();
    weir_config_drop(c);
    weir_config_report_fini(&r);
    free(text);
    return 0;
}

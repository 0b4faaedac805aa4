/* SPDX-License-Identifier: MIT */
/* Runs a libFuzzer target over every file of the folders given: a fuzz corpus as a test. With no folder: one empty input. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int one(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return 1;
    static uint8_t buf[1 << 20];
    size_t len = fread(buf, 1, sizeof buf, f);
    fclose(f);
    uint8_t *exact = malloc(len ? len : 1); /* exact size, so that AddressSanitizer sees an over-read */
    if (!exact) return 1;
    for (size_t i = 0; i < len; i++) exact[i] = buf[i];
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            fprintf(stderr, "replay: cannot open %s\n", argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(d));) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (one(path)) return 1;
            count++;
        }
        closedir(d);
    }
    printf("replayed %u inputs\n", count);
    return 0;
}

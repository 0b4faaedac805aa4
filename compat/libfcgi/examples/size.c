/* SPDX-License-Identifier: MIT */
/* As many bytes as the query says. */
#include <stdlib.h>

#include "fcgi_stdio.h"

int main(void)
{
    char line[100];
    for (unsigned i = 0; i < sizeof line; i++) line[i] = i == sizeof line - 1 ? '\n' : 'x';
    while (FCGI_Accept() >= 0) {
        const char *query = getenv("QUERY_STRING");
        long left = query ? strtol(query, NULL, 10) : 0;
        printf("Content-Type: application/octet-stream\r\nContent-Length: %ld\r\n\r\n", left);
        for (; left > 0; left -= (long)sizeof line)
            if (fwrite(line, 1, left < (long)sizeof line ? (size_t)left : sizeof line, stdout) == 0) break;
    }
    return 0;
}

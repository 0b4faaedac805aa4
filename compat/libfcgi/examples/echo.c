/* SPDX-License-Identifier: MIT */
/* A program with the words of stdio.h: it tells the request's parameters and its body. Also runs as plain CGI. */
#include <stdlib.h>

#include "fcgi_stdio.h"

extern char **environ;

int main(void)
{
    unsigned count = 0;
    while (FCGI_Accept() >= 0) {
        const char *length = getenv("CONTENT_LENGTH");
        long left = length ? strtol(length, NULL, 10) : 0;
        int c;
        printf("Content-Type: text/plain\r\n\r\nrequest %u\n", ++count);
        for (char **e = environ; *e; e++) puts(*e);
        printf("body:");
        while (left-- > 0 && (c = getchar()) != EOF) putchar(c);
        putchar('\n');
        if (ferror(stdin)) fprintf(stderr, "the body was cut off\n");
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* The filter role: the file that the web server sends, with its letters in upper case. */
#include <ctype.h>
#include <stdlib.h>

#include "fcgi_stdio.h"

int main(void)
{
    while (FCGI_Accept() >= 0) {
        int c;
        long input = 0;
        while (getchar() != EOF) input++;
        if (FCGI_StartFilterData() < 0) {
            printf("Status: 500 Not a filter's request\r\n\r\n");
            continue;
        }
        printf("Content-Type: text/plain\r\nX-Input: %ld\r\n\r\n", input);
        while ((c = getchar()) != EOF) putchar(toupper(c));
        FCGI_SetExitStatus(7);
    }
    return 0;
}

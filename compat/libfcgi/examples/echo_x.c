/* SPDX-License-Identifier: MIT */
/* The same with the streams of fcgiapp.h: the environment stays the process's own. */
#include "fcgiapp.h"

int main(void)
{
    FCGX_Stream *in, *out, *err;
    FCGX_ParamArray envp;
    unsigned count = 0;
    while (FCGX_Accept(&in, &out, &err, &envp) >= 0) {
        char piece[4096];
        int n;
        FCGX_FPrintF(out, "Content-Type: text/plain\r\n\r\nrequest %u\n", ++count);
        for (char **e = envp; *e; e++) FCGX_FPrintF(out, "%s\n", *e);
        FCGX_PutS("body:", out);
        while ((n = FCGX_GetStr(piece, sizeof piece, in)) > 0) FCGX_PutStr(piece, n, out);
        FCGX_PutS("\n", out);
        if (FCGX_GetError(in)) FCGX_FPrintF(err, "the body was cut off: %d\n", FCGX_GetError(in));
    }
    return 0;
}

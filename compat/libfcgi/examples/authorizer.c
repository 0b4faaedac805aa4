/* SPDX-License-Identifier: MIT */
/* The authorizer role: status 200 lets a request pass, and Variable- lines are added to its parameters; anything else is the answer. */
#include <string.h>

#include "fcgiapp.h"

int main(void)
{
    FCGX_Stream *in, *out, *err;
    FCGX_ParamArray envp;
    while (FCGX_Accept(&in, &out, &err, &envp) >= 0) {
        const char *role = FCGX_GetParam("FCGI_ROLE", envp), *user = FCGX_GetParam("HTTP_X_USER", envp);
        if (!role || strcmp(role, "AUTHORIZER") != 0) FCGX_PutS("Status: 500 Not an authorizer's request\r\n\r\n", out);
        else if (user && *user) FCGX_FPrintF(out, "Status: 200 OK\r\nVariable-AUTH_USER: %s\r\n\r\n", user);
        else FCGX_PutS("Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nwho are you?\n", out);
    }
    return 0;
}

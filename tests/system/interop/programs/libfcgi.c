/* SPDX-License-Identifier: MIT */
#include <fcgiapp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FCGX_Request r;

static const char *param(const char *name)
{
    const char *value = FCGX_GetParam(name, r.envp);
    return value ? value : "";
}

static const char *told(const char *word)
{
    const char *query = param("QUERY_STRING");
    return strncmp(query, word, strlen(word)) == 0 ? query + strlen(word) : NULL;
}

static void header(const char *more)
{
    FCGX_FPrintF(r.out, "Content-Type: application/octet-stream\r\n%s\r\n", more);
}

static void get(void)
{
    header("Status: 203 Other\r\nX-Matrix: from the program\r\n");
    FCGX_FPrintF(r.out, "REQUEST_METHOD=%s\nQUERY_STRING=%s\n", param("REQUEST_METHOD"),
                 param("QUERY_STRING"));
    FCGX_FPrintF(r.out, "HTTP_X_MATRIX=%s\nMATRIX_USER=%s\n", param("HTTP_X_MATRIX"),
                 param("MATRIX_USER"));
}

static size_t body(char **all)
{
    size_t len = 0, room = 1 << 24;
    int n;
    *all = malloc(room);
    while ((n = FCGX_GetStr(*all + len, (int)(room - len), r.in)) > 0) len += (size_t)n;
    return len;
}

static void echo(void)
{
    char *all;
    size_t len = body(&all);
    header("");
    FCGX_PutStr(all, (int)len, r.out);
    free(all);
}

static void big(void)
{
    header("");
    for (int i = 0; i < 65536; i++) FCGX_PutStr("0123456789abcdef", 16, r.out);
}

static void until_gone(const char *noticed)
{
    static char block[16384];
    header("");
    for (int i = 0; i < 2000; i++) {
        if (FCGX_PutStr(block, sizeof block, r.out) < 0 || FCGX_FFlush(r.out) < 0) {
            fclose(fopen(noticed, "w"));
            return;
        }
        usleep(10000);
    }
}

static void wait_until_exists(const char *path)
{
    for (int i = 0; i < 4000 && access(path, F_OK) != 0; i++) usleep(5000);
}

static void authorize(void)
{
    if (strcmp(param("HTTP_X_MATRIX"), "let me in") == 0) {
        FCGX_FPrintF(r.out, "Status: 200\r\nVariable-MATRIX_USER: ada\r\n\r\n");
        return;
    }
    header("Status: 403 No\r\n");
    FCGX_FPrintF(r.out, "not you\n");
}

static void filter(void)
{
    char *in, *data;
    size_t in_len = body(&in);
    FCGX_StartFilterData(r.in);
    size_t len = body(&data);
    header("");
    FCGX_PutStr(in, (int)in_len, r.out);
    FCGX_PutStr(data, (int)len, r.out);
    free(in);
    free(data);
}

static void respond(void)
{
    const char *rest;
    if (strcmp(param("REQUEST_METHOD"), "POST") == 0)
        echo();
    else if (told("big"))
        big();
    else if ((rest = told("gone=")))
        until_gone(rest);
    else {
        if ((rest = told("hold="))) wait_until_exists(rest);
        if ((rest = told("err="))) FCGX_FPrintF(r.err, "%s\n", rest);
        get();
    }
}

int main(void)
{
    FCGX_Init();
    FCGX_InitRequest(&r, 0, 0);
    while (FCGX_Accept_r(&r) >= 0) {
        if (strcmp(param("FCGI_ROLE"), "AUTHORIZER") == 0)
            authorize();
        else if (strcmp(param("FCGI_ROLE"), "FILTER") == 0)
            filter();
        else
            respond();
        FCGX_Finish_r(&r);
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* Several requests at a time: each thread has a FCGX_Request of its own. Nothing has to be locked. */
#include <pthread.h>
#include <stdint.h>

#include "fcgiapp.h"

enum { THREADS = 8 };

static void *serve(void *arg)
{
    int number = (int)(intptr_t)arg;
    unsigned count = 0;
    FCGX_Request r;
    FCGX_InitRequest(&r, 0, 0);
    while (FCGX_Accept_r(&r) >= 0) {
        const char *query = FCGX_GetParam("QUERY_STRING", r.envp);
        char piece[4096];
        long body = 0;
        int n;
        while ((n = FCGX_GetStr(piece, sizeof piece, r.in)) > 0) body += n;
        FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\nthread %d request %u query %s body %ld\n", number, ++count,
                     query ? query : "none", body);
        FCGX_Finish_r(&r);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    FCGX_Init();
    for (intptr_t i = 1; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, serve, (void *)i) != 0) return 1;
    serve(NULL);
    for (int i = 1; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}

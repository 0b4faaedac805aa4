/* SPDX-License-Identifier: MIT */
/* fcgi_stdio.h: each call goes to a file of the C library or to a stream of the request. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define NO_FCGI_DEFINES
#include "fcgi_stdio.h"
#include "internal.h"

extern char **environ;

/* Programs are not warned by our headers. */
int FCGI_vfprintf(FCGI_FILE *fp, const char *format, va_list ap) WEIR_PRINTF(2, 0);
int FCGI_vprintf(const char *format, va_list ap) WEIR_PRINTF(1, 0);
int FCGI_fprintf(FCGI_FILE *fp, const char *format, ...) WEIR_PRINTF(2, 3);
int FCGI_printf(const char *format, ...) WEIR_PRINTF(1, 2);

FCGI_FILE _fcgi_sF[3]; /* programs hold it by copy relocation: its size is part of the ABI */

static bool accepted, as_cgi;
static char **own_environ; /* the process's own, while a request's is in its place */

/* ---- requests ---- */

static int accept_cgi(void)
{
    FILE *const files[] = {stdin, stdout, stderr};
    if (as_cgi) return EOF;
    as_cgi = true;
    for (int i = 0; i < 3; i++) _fcgi_sF[i] = (FCGI_FILE){files[i], NULL};
    return 0;
}

static void finish_at_exit(void)
{
    FCGI_Finish();
}

int FCGI_Accept(void)
{
    FCGX_Stream *in, *out, *err;
    char **envp;
    if (!accepted) {
        accepted = true;
        if (FCGX_IsCGI()) return accept_cgi();
        atexit(finish_at_exit);
    } else if (as_cgi) {
        return EOF;
    }
    FCGI_Finish();
    int status = FCGX_Accept(&in, &out, &err, &envp);
    if (status < 0) return status;
    _fcgi_sF[0] = (FCGI_FILE){NULL, in};
    _fcgi_sF[1] = (FCGI_FILE){NULL, out};
    _fcgi_sF[2] = (FCGI_FILE){NULL, err};
    own_environ = environ;
    environ = envp;
    return 0;
}

void FCGI_Finish(void)
{
    if (!accepted || as_cgi) return;
    FCGX_Finish();
    for (int i = 0; i < 3; i++) _fcgi_sF[i] = (FCGI_FILE){NULL, NULL};
    if (own_environ) environ = own_environ;
    own_environ = NULL;
}

int FCGI_StartFilterData(void)
{
    return _fcgi_sF[0].fcgx_stream ? FCGX_StartFilterData(_fcgi_sF[0].fcgx_stream) : -1;
}

void FCGI_SetExitStatus(int status)
{
    if (_fcgi_sF[0].fcgx_stream) FCGX_SetExitStatus(status, _fcgi_sF[0].fcgx_stream);
}

/* ---- files ---- */

static FCGI_FILE *wrapped(FILE *f)
{
    if (!f) return NULL;
    FCGI_FILE *fp = malloc(sizeof *fp);
    if (fp) *fp = (FCGI_FILE){f, NULL};
    else fclose(f);
    return fp;
}

/* One that fopen() and the like made; the three of the request are not. */
static void unwrap(FCGI_FILE *fp)
{
    if (fp < _fcgi_sF || fp >= _fcgi_sF + 3) free(fp);
    else *fp = (FCGI_FILE){NULL, NULL};
}

FCGI_FILE *FCGI_fopen(const char *path, const char *mode)
{
    return wrapped(fopen(path, mode));
}

FCGI_FILE *FCGI_fdopen(int fd, const char *mode)
{
    return wrapped(fdopen(fd, mode));
}

FCGI_FILE *FCGI_tmpfile(void)
{
    return wrapped(tmpfile());
}

FCGI_FILE *FCGI_popen(const char *cmd, const char *type)
{
    FILE *f = popen(cmd, type);
    FCGI_FILE *fp = f ? malloc(sizeof *fp) : NULL;
    if (fp) *fp = (FCGI_FILE){f, NULL};
    else if (f) pclose(f);
    return fp;
}

int FCGI_fclose(FCGI_FILE *fp)
{
    int n = fp->stdio_stream ? fclose(fp->stdio_stream) : fp->fcgx_stream ? FCGX_FClose(fp->fcgx_stream) : EOF;
    if (fp->stdio_stream) unwrap(fp);
    return n;
}

int FCGI_pclose(FCGI_FILE *fp)
{
    if (!fp->stdio_stream) return EOF;
    int n = pclose(fp->stdio_stream);
    unwrap(fp);
    return n;
}

int FCGI_fflush(FCGI_FILE *fp)
{
    if (!fp) {
        int n = fflush(NULL);
        for (int i = 1; i < 3; i++)
            if (_fcgi_sF[i].fcgx_stream && FCGX_FFlush(_fcgi_sF[i].fcgx_stream) < 0) n = EOF;
        return n;
    }
    if (fp->stdio_stream) return fflush(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_FFlush(fp->fcgx_stream) : EOF;
}

FCGI_FILE *FCGI_freopen(const char *path, const char *mode, FCGI_FILE *fp)
{
    FILE *f = NULL;
    if (fp->stdio_stream) {
        f = freopen(path, mode, fp->stdio_stream);
    } else if (fp->fcgx_stream) {
        (void)FCGX_FClose(fp->fcgx_stream);
        f = fopen(path, mode);
    }
    fp->stdio_stream = f;
    if (f) fp->fcgx_stream = NULL;
    return f ? fp : NULL;
}

int FCGI_setvbuf(FCGI_FILE *fp, char *buf, int mode, size_t size)
{
    return fp->stdio_stream ? setvbuf(fp->stdio_stream, buf, mode, size) : -1;
}

void FCGI_setbuf(FCGI_FILE *fp, char *buf)
{
    if (fp->stdio_stream) setbuf(fp->stdio_stream, buf);
}

/* ---- positions: a request's streams have none ---- */

static int no_position(void)
{
    errno = ESPIPE;
    return -1;
}

int FCGI_fseek(FCGI_FILE *fp, long offset, int whence)
{
    return fp->stdio_stream ? fseek(fp->stdio_stream, offset, whence) : no_position();
}

int FCGI_ftell(FCGI_FILE *fp)
{
    long at = fp->stdio_stream ? ftell(fp->stdio_stream) : no_position();
    if (at <= INT_MAX) return (int)at;
    errno = EOVERFLOW;
    return -1;
}

void FCGI_rewind(FCGI_FILE *fp)
{
    if (fp->stdio_stream) rewind(fp->stdio_stream);
    else (void)no_position();
}

int FCGI_fgetpos(FCGI_FILE *fp, fpos_t *pos)
{
    return fp->stdio_stream ? fgetpos(fp->stdio_stream, pos) : no_position();
}

int FCGI_fsetpos(FCGI_FILE *fp, const fpos_t *pos)
{
    return fp->stdio_stream ? fsetpos(fp->stdio_stream, pos) : no_position();
}

int FCGI_fileno(FCGI_FILE *fp)
{
    return fp->stdio_stream ? fileno(fp->stdio_stream) : -1;
}

/* ---- reading ---- */

int FCGI_fgetc(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fgetc(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetChar(fp->fcgx_stream) : EOF;
}

int FCGI_getchar(void)
{
    return FCGI_fgetc(FCGI_stdin);
}

int FCGI_ungetc(int c, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return ungetc(c, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_UnGetChar(c, fp->fcgx_stream) : EOF;
}

char *FCGI_fgets(char *str, int size, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fgets(str, size, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetLine(str, size, fp->fcgx_stream) : NULL;
}

/* Has no bound, as C89 says: for programs that were compiled with it. */
char *FCGI_gets(char *str)
{
    char *at = str;
    int c;
    while ((c = FCGI_getchar()) != EOF && c != '\n') *at++ = (char)c;
    if (c == EOF && at == str) return NULL;
    *at = 0;
    return str;
}

size_t FCGI_fread(void *ptr, size_t size, size_t nmemb, FCGI_FILE *fp)
{
    size_t total, got = 0;
    if (fp->stdio_stream) return fread(ptr, size, nmemb, fp->stdio_stream);
    if (!fp->fcgx_stream) return (size_t)EOF;
    if (size == 0 || __builtin_mul_overflow(size, nmemb, &total)) return 0;
    while (got < total) {
        int want = total - got > INT_MAX ? INT_MAX : (int)(total - got);
        int n = FCGX_GetStr((char *)ptr + got, want, fp->fcgx_stream);
        got += (size_t)n;
        if (n < want) break;
    }
    return got / size;
}

/* ---- writing ---- */

int FCGI_fputc(int c, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fputc(c, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_PutChar(c, fp->fcgx_stream) : EOF;
}

int FCGI_putchar(int c)
{
    return FCGI_fputc(c, FCGI_stdout);
}

int FCGI_fputs(const char *str, FCGI_FILE *fp)
{
    if (fp->stdio_stream) return fputs(str, fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_PutS(str, fp->fcgx_stream) : EOF;
}

int FCGI_puts(const char *str)
{
    if (_fcgi_sF[1].stdio_stream) return puts(str);
    if (!_fcgi_sF[1].fcgx_stream) return EOF;
    int n = FCGX_PutS(str, _fcgi_sF[1].fcgx_stream);
    return n < 0 || FCGX_PutChar('\n', _fcgi_sF[1].fcgx_stream) < 0 ? EOF : 0;
}

size_t FCGI_fwrite(void *ptr, size_t size, size_t nmemb, FCGI_FILE *fp)
{
    size_t total, put = 0;
    if (fp->stdio_stream) return fwrite(ptr, size, nmemb, fp->stdio_stream);
    if (!fp->fcgx_stream) return (size_t)EOF;
    if (size == 0 || __builtin_mul_overflow(size, nmemb, &total)) return 0;
    while (put < total) {
        int n = FCGX_PutStr((char *)ptr + put, total - put > INT_MAX ? INT_MAX : (int)(total - put), fp->fcgx_stream);
        if (n < 0) break;
        put += (size_t)n;
    }
    return put / size;
}

int FCGI_vfprintf(FCGI_FILE *fp, const char *format, va_list ap)
{
    if (fp->stdio_stream) return vfprintf(fp->stdio_stream, format, ap);
    return fp->fcgx_stream ? FCGX_VFPrintF(fp->fcgx_stream, format, ap) : EOF;
}

int FCGI_vprintf(const char *format, va_list ap)
{
    return FCGI_vfprintf(FCGI_stdout, format, ap);
}

int FCGI_fprintf(FCGI_FILE *fp, const char *format, ...)
{
    va_list ap;
    if (!fp->stdio_stream && !fp->fcgx_stream) return 0;
    va_start(ap, format);
    int n = FCGI_vfprintf(fp, format, ap);
    va_end(ap);
    return n;
}

int FCGI_printf(const char *format, ...)
{
    va_list ap;
    if (!_fcgi_sF[1].stdio_stream && !_fcgi_sF[1].fcgx_stream) return 0;
    va_start(ap, format);
    int n = FCGI_vfprintf(FCGI_stdout, format, ap);
    va_end(ap);
    return n;
}

void FCGI_perror(const char *str)
{
    const char *what = strerror(errno);
    FCGI_fputs(str && *str ? str : "", FCGI_stderr);
    if (str && *str) FCGI_fputs(": ", FCGI_stderr);
    FCGI_fputs(what, FCGI_stderr);
    FCGI_fputc('\n', FCGI_stderr);
}

/* ---- states ---- */

int FCGI_feof(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return feof(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_HasSeenEOF(fp->fcgx_stream) : -1;
}

int FCGI_ferror(FCGI_FILE *fp)
{
    if (fp->stdio_stream) return ferror(fp->stdio_stream);
    return fp->fcgx_stream ? FCGX_GetError(fp->fcgx_stream) : -1;
}

void FCGI_clearerr(FCGI_FILE *fp)
{
    if (fp->stdio_stream) clearerr(fp->stdio_stream);
    else if (fp->fcgx_stream) FCGX_ClearError(fp->fcgx_stream);
}

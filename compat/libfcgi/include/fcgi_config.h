/* SPDX-License-Identifier: MIT */
/* What the system has, for programs that read it from here: it is installed because fcgios.h and fcgio.h include it. */
#ifndef FCGI_CONFIG_H
#define FCGI_CONFIG_H

#ifndef HAVE_SYS_TIME_H
#define HAVE_SYS_TIME_H 1
#endif
#ifndef HAVE_SYS_TYPES_H
#define HAVE_SYS_TYPES_H 1
#endif
#ifndef HAVE_SYS_SOCKET_H
#define HAVE_SYS_SOCKET_H 1
#endif
#ifndef HAVE_SYS_PARAM_H
#define HAVE_SYS_PARAM_H 1
#endif
#ifndef HAVE_UNISTD_H
#define HAVE_UNISTD_H 1
#endif
#ifndef HAVE_LIMITS_H
#define HAVE_LIMITS_H 1
#endif
#ifndef HAVE_NETDB_H
#define HAVE_NETDB_H 1
#endif
#ifndef HAVE_NETINET_IN_H
#define HAVE_NETINET_IN_H 1
#endif
#ifndef HAVE_ARPA_INET_H
#define HAVE_ARPA_INET_H 1
#endif
#ifndef HAVE_STRERROR
#define HAVE_STRERROR 1
#endif
#ifndef HAVE_FPOS
#define HAVE_FPOS 1 /* fpos_t: FCGI_fgetpos and FCGI_fsetpos */
#endif
#ifndef HAVE_FILENO_PROTO
#define HAVE_FILENO_PROTO 1
#endif
#ifndef HAVE_STREAMBUF_CHAR_TYPE
#define HAVE_STREAMBUF_CHAR_TYPE 1 /* std::streambuf has char_type: fcgio.h defines none */
#endif

#endif

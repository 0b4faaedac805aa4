/* SPDX-License-Identifier: MIT */
/* config: mistakes with their place and advice, layers, and the project's examples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "config/config.h"

static int parse(const char *text, size_t len, struct weir_config **c, struct weir_config_report *r)
{
    char name[] = "w.conf", dir[] = "/conf";
    char *copy = malloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = 0;
    struct weir_config_source one = {.name = name, .text = copy, .len = len, .dir = dir};
    struct weir_config_sources s = {.list = &one, .count = 1};
    int status = weir_config_parse(&s, c, r);
    free(copy);
    return status;
}

#define OK_SITE "site a { listen http://*:1; root /r }\n"
static const struct {
    const char *text, *message; /* LINE:COLUMN: text: advice */
} mistakes[] = {
    {"sit a { }", "1:1: unknown name \"sit\" in the file: did you mean \"site\"?"},
    {"site a { lisen http://*:1 }", "1:10: unknown name \"lisen\" in site: did you mean \"listen\"?"},
    {"# c\n\n  pool p { rum x }", "3:12: unknown name \"rum\" in pool: did you mean \"run\"?"},
    {"site a { root /r }", "1:1: the site listens nowhere: write listen http://*:8080"},
    {"site a { listen 80 }", "1:17: \"80\" is no listener: define it: listener NAME { address http://*:80 }, or write http://*:80"},
    {"site a { listen http:80 }", "1:17: \"http:80\" is no address to listen on: write http://*:8080 or http://127.0.0.1:8080"},
    {"site a { listen http://*:x }", "1:17: \"http://*:x\" is no address to listen on: write host and port, such as http://*:8080"},
    {"site a { listen http://*:1; pool b }", "1:34: no pool is named \"b\": define it: pool b { ... }"},
    {"site a { listen http://*:1; pool shob }\npool shop { php }", "1:34: no pool is named \"shob\": did you mean \"shop\"?"},
    {"pool p { }", "1:1: the pool has nothing to run: write run PROGRAM, php, cgi, or connect ADDRESS"},
    {"pool p { php; run x }", "1:15: \"run\" cannot stand here, too: it excludes \"php\" in line 1; keep one"},
    {"pool p { php; php }", "1:15: \"php\" stands twice in one block: the first one is in line 1; keep one"},
    {"pool p { php }\npool p { php }", "2:6: \"p\" is defined twice: it was defined in w.conf:1:1; choose another name"},
    {OK_SITE "site a { listen http://*:1; root /r }", "2:6: \"a\" is defined twice: it was defined in w.conf:1:1; choose another name"},
    {"pool p { php; workers x }", "1:23: \"x\" is no count from 1 to 1000: write digits only"},
    {"pool p { php; workers 0 }", "1:23: \"0\" is no count from 1 to 1000: write digits only"},
    {"pool p { php; workers 010x }", "1:23: \"010x\" is no count from 1 to 1000: write digits only"},
    {"pool p { php; queue 5 3 }", "1:23: \"3\" is no time: write digits and a unit: 500ms, 30s, 5m, 1h"},
    {"pool p { php; queue 5 0s }", "1:23: \"0s\" is no time: write digits and a unit: 500ms, 30s, 5m, 1h"},
    {"pool p { php; time { silent 5x } }", "1:29: \"5x\" is no time: write digits and a unit: 500ms, 30s, 5m, 1h; or none"},
    {"pool p { php; time 5s }", "1:20: \"time\" has too many values: see weir.conf(5)"},
    {"pool p { connect x }", "1:18: \"x\" is no address: write unix:/path or fastcgi://ADDRESS:port"},
    {"pool p { connect unix:/a { worker 3 } }", "1:28: unknown name \"worker\" in connect: did you mean \"workers\"?"},
    {"pool p { php; env A }", "1:19: \"env\" needs a value: see weir.conf(5)"},
    {"pool p { php; env A=B c }", "1:19: \"A=B\" is no name of a variable: use letters, digits and _"},
    {"pool p { php x }", "1:14: \"x\" is no PHP version: write php 8.2, or php alone; fpm or cgi behind it names the program"},
    {"pool a/b { php }", "1:6: \"a/b\" is no name for a pool: use letters, digits, - _ and ."},
    {"pool p { php", "1:8: a block without its end: close it with }"},
    {"}", "1:1: a } without a block: remove it, or open the block with {"},
    {"site \"a", "1:8: a quoted word without its end: close it with \" on the same line"},
    {"site \"a\"b { }", "1:9: text right behind a closing quote: put a blank between them"},
    {"pool p { php \x01 }", "1:14: a control byte: remove it"},
    {"pool p", "1:6: \"pool\" needs a block: write { ... } behind it"},
    {"pool p { user a { } }", "1:15: \"user\" takes no block: remove the block"},
    {"site a { listen http://*:1; debug maybe }", "1:35: \"maybe\" is neither yes nor no: write yes or no"},
    {"site a { listen http://*:1; body 5 }", "1:34: \"5\" is no size: write digits and a unit: 512K, 64M, 2G"},
    {"site a { listen http://*:1; body { stream maybe } }", "1:43: \"maybe\" is neither yes nor no: write yes or no"},
    {"site a { listen http://*:1; root /r; php p; body { stream always } }\npool p { php }",
     "1:1: a body of unknown length cannot stream to PHP: write stream yes: PHP reads no further than CONTENT_LENGTH"},
    {"site a { listen http://*:1; route /x { pool p; body { stream always } } }\npool p { php }",
     "1:29: a body of unknown length cannot stream to PHP: write stream yes: PHP reads no further than CONTENT_LENGTH"},
    {"site a { listen http://*:1; route x { deny } }", "1:35: \"x\" is no pattern of a route: write /folder/, /path, or *.ending"},
    {"site a { listen http://*:1; route /x { deny; files } }", "1:46: \"files\" cannot stand here, too: it excludes \"deny\" in line 1; keep one"},
    {"site a { listen http://*:1; redirect x }", "1:38: \"x\" is no target for a redirect: write a URL, or a path that begins with /"},
    {"site a { listen http://*:1; redirect 999 /x }", "1:38: \"999\" is no status of a redirect: write 301, 302, 303, 307 or 308"},
    {"site a { listen http://*:1; redirect 304 /x }", "1:38: \"304\" is no status of a redirect: write 301, 302, 303, 307 or 308"},
    {"site a { listen http://*:1; redirect https://b.example* }", "1:38: \"https://b.example*\" lets the path choose the host: write a slash before the *"},
    {"site a { listen http://*:1; redirect *x }", "1:38: \"*x\" is no target for a redirect: write a URL, or a path that begins with /"},
    {"site a { listen http://*:1; redirect /*/* }", "1:38: \"/*/*\" has more than one *: write one"},
    {"site a { listen http://*:1; route /x { redirect /y/* } }", "1:49: * stands for the rest of the path, and \"/x\" leaves none: it goes with patterns that end in /"},
    {"site a { listen http://*:1; route /x/ method { deny } }", "1:39: \"method\" names none: write their names behind it: method GET POST"},
    {"site a { listen http://*:1; route method GET { deny } }", "1:35: the route has no pattern: write route /path/ method GET { }"},
    {"site a { listen http://*:1; route /x/ method get { deny } }", "1:46: \"get\" is no method: write GET, POST, PUT, PATCH, DELETE ... in capitals"},
    {"site a { listen http://*:1; route /x/ method GET { deny }; route /x/y method HEAD { deny } }",
     "1:66: \"/x/y\" is never reached: the route in line 1 takes it first; put this one before it"},
    {"site a { listen http://*:1; try * =404 }", "1:29: \"try\" looks for files, and there is no root: write root DIR"},
    {"site a { listen http://*:1; root /r; try * =200 }", "1:44: \"=200\" is no status of an error: write =404"},
    {"site a { listen http://*:1; root /r; try =404 * }", "1:42: \"=404\" ends the list: put it last"},
    {"site a { listen http://*:1; root /r; try x* }", "1:42: \"x*\" is nothing to try: write * (the path), *.html, */ (a folder), /file, or =404"},
    {"site a { listen http://*:1; root /r; try /a/../b }", "1:42: \"/a/../b\" is nothing to try: write * (the path), *.html, */ (a folder), /file, or =404"},
    {"site a { listen http://*:1; root /r; route /x/ { deny; try * } }", "1:56: \"try\" has no meaning here: it goes with files, php and pool"},
    {"site a { listen http://*:1; error 200 /x }", "1:35: \"200\" is no status of an error: write one from 400 to 599"},
    {"site a { listen http://*:1; error 404 x }", "1:39: \"x\" is no page: write its path on this site: /404.html; or no"},
    {"site a { listen http://*:1; route /x/ { strip /x; rewrite /x /y } }", "1:51: \"strip\" and \"rewrite\" stand in one route: keep one of them"},
    {"site a { listen http://*:1; route /x/ { strip x } }", "1:47: \"x\" is no prefix of a path: write /prefix/"},
    {"site a { listen http://*:1; links / }", "1:35: \"/\" would be all there is: name a folder"},
    {"site a { listen http://*:1; index ../x.html }", "1:35: \"../x.html\" is no name of an index: write index.html"},
    {"site a { listen http://*:1; files { cache 5 } }", "1:43: \"5\" is no time: write digits and a unit: 10m, 1d, 1y; or no"},
    {"site a { listen http://*:1; files { cache 200y } }", "1:43: \"200y\" is no time: write digits and a unit: 10m, 1d, 1y; or no"},
    {"site a { listen http://*:1; files { cache 1y forever } }", "1:46: \"forever\" has no meaning here: write cache 1y immutable"},
    {"site a { listen http://*:1; compress yes { types html } }", "1:50: \"html\" is no media type: write text/html, or text/*"},
    {"site a { listen http://*:1; compress yes { types */html } }", "1:50: \"*/html\" is no media type: write text/html, or text/*"},
    {"site a { listen http://*:1; compress yes { level 10 } }", "1:50: \"10\" is no count from 1 to 9: write digits only"},
    {"site a { listen http://*:1; compress maybe }", "1:38: \"maybe\" is neither yes nor no: write yes or no"},
    {"site a { listen http://*:1; internal }", "1:29: unknown name \"internal\" in site: see weir.conf(5)"},
    {"site *.*.org { listen http://*:1 }", "1:6: \"*.*.org\" is no host name: write www.example.org, *.example.org, or * for all"},
    {"site x*.org { listen http://*:1 }", "1:6: \"x*.org\" is no host name: write www.example.org, *.example.org, or * for all"},
    {"site .example.org { listen http://*:1 }\nsite *.example.org { listen http://*:1 }", "2:6: \"*.example.org\" is defined twice: it was defined in w.conf:1:1; choose another name"},
    {"site a_b/c { listen http://*:1 }", "1:6: \"a_b/c\" is no host name: write www.example.org, *.example.org, or * for all"},
    {"defaults thing { }", "1:10: \"defaults\" takes no block: write defaults pool { ... } or defaults site { ... }"},
    {"site a { listen http://*:1; root /r; route /a/ { deny }; route /a/b { files } }",
     "1:64: \"/a/b\" is never reached: the route in line 1 takes it first; put this one before it"},
    {"weir { control /s { admin @pool-owner } }", "1:27: \"@pool-owner\" cannot be admin: write it behind read or operate: it is for his own pools"},
    {"weir { control /s { read a/b } }", "1:26: \"a/b\" names nobody: write a user, %group, or @pool-owner"},
    {"weir { log /l jsonn }", "1:15: \"jsonn\" is no format of the access log: write json, or combined with +site, +time, +pool, +bytes, +id behind it"},
    {"weir { log /l combined+ }", "1:15: \"combined+\" is no format of the access log: write json, or combined with +site, +time, +pool, +bytes, +id behind it"},
    {"weir { log /l combined+id+id }", "1:15: \"combined+id+id\" is no format of the access log: write json, or combined with +site, +time, +pool, +bytes, +id behind it"},
    {"weir { log /l combinedtime }", "1:15: \"combinedtime\" is no format of the access log: write json, or combined with +site, +time, +pool, +bytes, +id behind it"},
    {"site a { listen http://*:1; request-id { from-client maybe } }", "1:54: \"maybe\" is neither yes nor no: write yes or no"},
    {"site a { listen http://*:1; allow 10.0.0.0/33 }", "1:35: \"10.0.0.0/33\" is neither an address nor a network: write 10.0.0.1, 10.0.0.0/24, ::1 or fd00::/8"},
    {"site a { listen http://*:1; allow none }", "1:35: \"none\" allows nobody: write deny, without words: every request is answered 403"},
    {"site a { listen http://*:1; deny all }", "1:34: \"all\" denies everybody: write deny, without words; or allow ADDRESS, which denies all others"},
    {"site a { listen http://*:1; deny 10.0.0.1; deny }", "1:44: \"deny\" stands twice in one block: the first one is in line 1; keep one"},
    {"listener l { address http://*:1; proxy-protocol yes }", "1:49: \"yes\" is neither an address nor a network: write 10.0.0.1, 10.0.0.0/24, ::1 or fd00::/8"},
    {"listener l { address http://*:1; proxy-protocol 0.0.0.0/0 }", "1:34: every client may say whose address it has: name the proxies alone"},
    {"listener l { address http://*:1; mode 0660 }", "1:34: \"mode\" is for listeners of FastCGI: remove it, or write a FastCGI address"},
    {"listener l { address http://*:1 }\nlistener m { address http://*:1; trust ::1 }", "2:22: \"http://*:1\" is defined twice: it was defined in w.conf:1:14; choose another name"},
    {"listener l { address fastcgi://10.0.0.2:9; allow 10.0.0.3; trust ::1 }", "1:60: \"trust\" is for listeners of http: remove it: web servers connect here, not their clients"},
    {"site a { listen http://*:1; auth digest /x }", "1:34: \"digest\" is no way to ask who it is: write auth basic FILE, or auth no"},
    {"site a { listen http://*:1; auth basic }", "1:34: \"basic\" is no way to ask who it is: write auth basic FILE, or auth no"},
    {"site a { listen http://*:1; auth basic u \"a\\\"b\" }", "1:42: \"a\"b\" is no name of a realm: write it without quotes, \\ and control bytes"},
    {"site a { listen http://*:1; auth basic users }", "1:40: the file of users \"/conf/users\" cannot be read, or is larger than 1 MiB: check the path and its rights: nobody gets in"},
    {"site a { listen http://*:1; limit requests }", "1:35: \"requests\" needs a rate: write COUNT/s, COUNT/m or COUNT/h: limit requests 10/s"},
    {"site a { listen http://*:1; limit requests 10 }", "1:44: \"10\" is no rate: write COUNT/s, COUNT/m or COUNT/h: limit requests 10/s"},
    {"site a { listen http://*:1; limit requests 0/s }", "1:44: \"0/s\" is no rate: write COUNT/s, COUNT/m or COUNT/h: limit requests 10/s"},
    {"site a { listen http://*:1; limit requests 1/s 5 }", "1:48: \"5\" is not known here: write burst COUNT: so many at once"},
    {"site a { listen http://*:1; limit requests 1/s burst 0 }", "1:54: \"0\" is no count from 1 to 1000000: write digits only"},
    {"site a { listen http://*:1; limit connections 5 }", "1:35: \"connections\" is nothing to limit here: write limit connections in a listener"},
    {"listener l { address http://*:1; limit requests 5 }", "1:40: \"requests\" is nothing to limit here: write limit connections COUNT; limit requests belongs in a site or route"},
    {"listener l { address fastcgi://10.0.0.2:9; allow 10.0.0.3; limit connections 5 }", "1:60: \"limit\" is for listeners of http: remove it: web servers connect here, not their clients"},
    {"site a { listen http://*:1; header \"A B\" c }", "1:36: \"A B\" is no name of a header: write header NAME VALUE"},
    {"site a { listen http://*:1; header content-length 5 }", "1:36: \"content-length\" is not for the configuration: remove it: the gateway writes it itself"},
    {"site a { listen http://*:1; header A \"\" }", "1:38: \"\" is no value of a header: write up to 4096 bytes without control bytes; header NAME alone removes it"},
    {"site a { listen http://*:1; min-rate 5 }", "1:38: \"5\" is no size: write digits and a unit: 512K, 64M, 2G"},
    {"site a { listen http://*:1; min-rate 0B }", "1:38: \"0B\" is no rate: write bytes a second: min-rate 500B; or none"},
    {"site a { listen http://*:1; min-rate none 5s }", "1:43: \"5s\" has no meaning here: write min-rate none"},
    {"weir { trust forwarded }", "1:14: \"forwarded\" is no address: write whom to trust before it: trust 10.0.0.0/8 forwarded"},
    {"weir { trust ::/0 }", "1:8: every client may say whose address it has: name the proxies alone"},
    {"weir { trust 10.0.0.0/8 x }", "1:25: \"x\" is neither an address nor a network: write 10.0.0.1, 10.0.0.0/24, ::1 or fd00::/8"},
    {"weir { app-log /l xml }", "1:19: \"xml\" is no format: write text or json"},
    {"weir { app-log - json }", "1:18: \"json\" has no meaning here: name a file, or leave it out"},
    {"pool p { connect unix:/a; watch x }", "1:27: others restart what \"connect\" names: \"watch\" has no meaning here: remove it"},
    {"pool p { php; log-rate many }", "1:24: \"many\" is no count from 0 to 1000000: write digits only"},
    {"site a { listen http://*:1; suspended ./nothing.html }",
     "1:39: the page \"/conf/nothing.html\" cannot be read, or is larger than 32 KiB: the site is suspended all the same, with a page of Weir's own"},
    {"include nothing.conf", "1:9: the file \"nothing.conf\" cannot be read: check its path"},
    {"pool a { run ./x $nme }", "1:18: \"$nme\" has an unknown variable: only $name, $user and $home are replaced; write $$ for a dollar sign"},
    {"pool a { php; php-value x \"a'$\" }", "1:27: \"a'$\" cannot be written into PHP's configuration: use only one kind of quotes, and no \\ or $ beside '"},
    {"pool a { run ./x; ready soon }", "1:25: \"soon\" is no kind of readiness: write accept, notify, or a path to ask for"},
    {"pool a { run ./x; processes 3..2 }", "1:29: \"3..2\" is no number and no range: write 4, or 0..8"},
    {"pool a { run ./x $user }", "1:18: $user is not known here: write it out"},
    {"site a { listen http://*:1; root ~/x }", "1:34: ~ is not known here: write the path out"},
    {"site a { listen + }", "1:17: \"+\" is no listener: define it: listener NAME { address http://*:80 }, or write http://*:80"},
#define P "pool p { php; publish f }\n"
    {P "listener f { address fastcgi://*:9 }", "2:10: Weir never listens for FastCGI on TCP without an allow list: write allow ADDRESS, such as allow 10.0.0.1 10.0.1.0/24"},
    {P "listener f { address fastcgi://*:9; allow www-data }", "2:10: Weir never listens for FastCGI on TCP without an allow list: write allow ADDRESS, such as allow 10.0.0.1 10.0.1.0/24"},
    {P "listener f { address fastcgi+unix:a.sock }", "2:22: \"fastcgi+unix:a.sock\" is no address to listen on: write a whole path of at most 107 bytes: fastcgi+unix:/run/weir/app.sock"},
    {P "listener f { address fastcgi://10.0.0.1 }", "2:22: \"fastcgi://10.0.0.1\" is no address to listen on: write address and port, such as fastcgi://10.0.0.2:9000"},
    {P "listener f { address fastcgi+unix:/a; mode 0777 }", "2:44: \"0777\" is no mode of a socket: write 0660: read and write, for owner, group and others"},
    {P "listener f { address fastcgi+unix:/a; allow 10.0.0.0/33 }", "2:45: \"10.0.0.0/33\" is neither an address nor a user: write 10.0.0.1, 10.0.0.0/24, fd00::/8, or a user such as www-data"},
    {P "listener f { address fastcgi+unix:/a; time { silent 5s } }", "2:46: \"silent\" has no meaning for a listener: write it in the pool"},
    {P "listener f { address fastcgi+unix:/a http://*:1 }", "2:10: http and FastCGI need listeners of their own: write two listeners"},
    {P "listener f { address http://*:1 }", "1:23: the listener \"f\" is for http: pools are published on fastcgi+unix: or fastcgi:// addresses; http:// needs a site"},
    {"listener f { address http://*:1; group g }", "1:34: \"group\" is for listeners of FastCGI: remove it, or write a FastCGI address"},
    {P, "1:23: no listener is named \"f\": define it: listener NAME { address fastcgi+unix:/path }"},
    {P "pool q { php; publish f }\nlistener f { address fastcgi+unix:/a }", "2:23: pool p is published on \"f\" already: give each pool a listener of its own"},
    {"listener f { address fastcgi+unix:/a }", "1:14: nothing is behind the listener \"f\": write publish NAME in a pool"},
    {P "listener f { address fastcgi+unix:/a }\nlistener g { address fastcgi+unix:/a }", "3:22: \"fastcgi+unix:/a\" is defined twice: it was defined in w.conf:2:14; choose another name"},
    {P "listener f { address fastcgi+unix:/a }\nsite a { listen f; root /r }", "3:17: \"f\" is a listener for FastCGI: a pool takes it: publish NAME; a site needs http://"},
    {"site a { listen fastcgi+unix:/a; root /r }", "1:17: \"fastcgi+unix:/a\" is for FastCGI: write it in a listener, and publish a pool there; a site needs http://"},
#define MANY "pool p { php; user a; publish f }\npool q { php; user b }\n"
#define LOOPBACK "Weir does not listen for FastCGI on loopback while pools have several users: each could call the others' apps: use fastcgi+unix:, whose group and mode tell who may"
    {MANY "listener f { address fastcgi://127.0.0.1:9; allow 127.0.0.1 }", "3:14: " LOOPBACK},
    {MANY "listener f { address fastcgi://*:9; allow 0.0.0.0/0 }", "3:14: " LOOPBACK},
    {MANY "listener f { address fastcgi://*:9; allow 10.0.0.1 ::1 }", "3:14: " LOOPBACK},
    {"pool p { connect unix:/a { weight 257 } }", "1:35: \"257\" is no count from 1 to 256: write digits only"},
    {"pool p { connect unix:/a { backup yes }; connect unix:/b { backup yes } }", "1:1: all servers of the pool are backups: leave one of them without backup"},
    {"pool p { connect unix:/a; connect unix:/a }", "1:1: unix:/a stands twice in the pool: name it once, with more workers or a weight"},
    {"pool p { connect unix:/a; balance most }", "1:35: \"most\" is no way to choose a server: write least, or hash with uri, host, client, header NAME or cookie NAME"},
    {"pool p { connect unix:/a; balance least uri }", "1:35: \"least\" is no way to choose a server: write least, or hash with uri, host, client, header NAME or cookie NAME"},
    {"pool p { connect unix:/a; balance hash }", "1:35: \"hash\" needs a key: write uri, host, client, header NAME or cookie NAME"},
    {"pool p { connect unix:/a; balance hash path }", "1:40: \"path\" is no key: write uri, host, client, header NAME or cookie NAME"},
    {"pool p { connect unix:/a; balance hash header \"a b\" }", "1:47: \"a b\" is no name of a header: use letters, digits and -"},
    {"pool p { connect unix:/a; retry always }", "1:33: \"always\" is no rule of repetition: write connect, safe or no"},
    {"site s { listen http://*:1; retry twice }", "1:35: \"twice\" is no rule of repetition: write connect, safe or no"},
    {"pool p { connect unix:/a; eject 9s 3s }", "1:36: \"3s\" is shorter than the first time: write the longest time behind it, as in eject 1s 60s"},
    {"pool p { php; slow-start 3s }", "1:15: \"slow-start\" is for servers that others own (connect): remove it"},
    {"pool p { connect unix:/a; check x }", "1:33: \"x\" is no path: write what to ask for, such as /ping"},
    {"pool p { connect unix:/a; check /x 1s { fall 0 } }", "1:46: \"0\" is no count from 1 to 100: write digits only"},
    {"pool p { connect unix:/a { zone b } }", "1:28: zone: not in this version: remove it, or wait for a later version"},
    {"weir { threads 0 }", "1:16: \"0\" is no count from 1 to 64: write digits only"},
};

static void each_mistake_is_told_with_its_place_and_what_to_do(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIR_COUNT(mistakes); i++) {
        struct weir_config *c = NULL;
        struct weir_config_report r;
        char got[1024] = "(nothing)";
        weir_config_report_init(&r);
        int status = parse(mistakes[i].text, strlen(mistakes[i].text), &c, &r);
        assert_true(status == WEIR_OK || r.errors);
        for (size_t k = 0; k < r.count; k++) {
            const struct weir_config_message *m = &r.list[k];
            snprintf(got, sizeof got, "%u:%u: %s%s%s", m->line, m->column, m->text, m->advice[0] ? ": " : "", m->advice);
            if (strcmp(got, mistakes[i].message) == 0) break;
        }
        assert_string_equal(got, mistakes[i].message);
        weir_config_drop(c);
        weir_config_report_fini(&r);
    }
}

static void all_mistakes_of_a_file_are_told_at_once(void **state)
{
    (void)state;
    static const char text[] = "sit a { }\npool p { rum x }\nsite b { listen http://*:1; pool q; debug perhaps }\n}\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_INVALID);
    assert_in_range(r.errors, 5, 6);
    weir_config_report_fini(&r);
}

static void layers_lists_and_maps_follow_their_rules(void **state)
{
    (void)state;
    static const char text[] =
        "defaults pool { user all; env A 1; env B 2; queue 7 3s }\n"
        "defaults site { listen http://*:81; debug yes }\n"
        "pool p { run ./x arg; env B 3; queue 9 }   # a comment\n"
        "pool e { connect unix:/s { workers 3 }; connect fastcgi://127.0.0.1:9 }\n"
        "site A.Example \"b\" { root web; param X 1; route /f/ *.x { files; param Y 2 }; route /p { pool p; time { silent 2s } }; time { silent 9s } }\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    const struct weir_conf_pool *p = &c->pools[0];
    assert_string_equal(p->argv[0], "/conf/x");
    assert_string_equal(p->argv[1], "arg");
    assert_string_equal(p->user, "all");
    assert_int_equal(p->queue_count, 9);
    assert_int_equal(p->queue_ms, 3000);
    assert_int_equal(p->env_count, 2);
    assert_string_equal(p->env[1].value.ptr, "3");
    assert_int_equal(c->pools[1].endpoint_count, 2);
    assert_int_equal(c->pools[1].endpoints[0].workers, 3);
    const struct weir_conf_site *s = &c->sites[0];
    assert_string_equal(s->names[0], "a.example");
    assert_true(s->debug);
    assert_int_equal(s->route_count, 3);
    assert_string_equal(s->routes[0].root, "/conf/web");
    assert_int_equal(s->routes[0].pattern_count, 2);
    assert_int_equal(s->routes[0].param_count, 2);
    assert_int_equal(s->routes[2].param_count, 1);
    assert_int_equal(s->routes[1].silent_ms, 2000);
    assert_int_equal(s->routes[2].silent_ms, 9000);
    assert_int_equal(c->listeners[s->listeners[0]].address.scheme, WEIR_SCHEME_HTTP);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void a_front_has_who_may_connect_and_the_pool_behind_it(void **state)
{
    (void)state;
    static const char text[] =
        "pool p { php; publish f }\npool q { run ./q; user x; publish g }\n"
        "listener f { address fastcgi+unix:/run/weir/p.sock; group www-data; mode 0666; allow www-data 10.1.0.0/16; body 1G; time { head 1s; body 2s; idle 3s; send 4s } }\n"
        "listener g { address fastcgi://10.0.0.2:9000 fastcgi://[fd00::2]:9000; allow 10.0.0.0/24 fd00::/8 }\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_int_equal(c->listener_count, 3);
    const struct weir_conf_listener *f = &c->listeners[0], *g = &c->listeners[2];
    assert_string_equal(f->address.socket, "unix:/run/weir/p.sock");
    assert_string_equal(f->group, "www-data");
    assert_int_equal(f->mode, 0666);
    assert_int_equal(f->allow_count, 2);
    assert_string_equal(f->allow[0].user, "www-data");
    assert_null(f->allow[1].user);
    assert_int_equal(f->allow[1].net.bits, 96 + 16);
    assert_int_equal(f->body_max, UINT64_C(1) << 30);
    assert_int_equal(f->header_ms, 1000);
    assert_int_equal(f->body_ms, 2000);
    assert_int_equal(f->idle_ms, 3000);
    assert_int_equal(f->send_ms, 4000);
    assert_int_equal(f->pool, 0);
    assert_string_equal(g->address.socket, "[fd00::2]:9000");
    assert_int_equal(g->pool, 1);
    assert_int_equal(g->mode, 0660);
    assert_int_equal(g->allow[1].net.bits, 8);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void variables_are_the_blocks_own_and_lists_can_be_appended_to(void **state)
{
    (void)state;
    static const char text[] =
        "defaults pool { user u-$name; env HOME_OF $home }\n"
        "defaults site { listen http://*:81; index a b }\n"
        "pool p { run ~/bin/$name \"$$x $5 $user\" }\n"
        "pool q { user other; run ./q }\n"
        "site s { index + c; listen + http://*:82; root /srv/$name; pool p }\n"
        "site t { index d; pool q }\n";
    char user[] = "u-p", home[] = "/home/p", name[] = "x.conf", dir[] = "/conf";
    struct weir_config_home homes[] = {{user, home}};
    struct weir_config_source one = {name, (char *)(uintptr_t)text, sizeof text - 1, dir};
    struct weir_config_sources src = {.list = &one, .count = 1, .homes = homes, .home_count = 1};
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_INVALID); /* the home of q's user is not known */
    assert_int_equal(r.errors, 1);
    weir_config_report_fini(&r);
    weir_config_report_init(&r);
    src.homes = (struct weir_config_home[]){{(char[]){"other"}, (char[]){"/home/o"}}, {user, home}};
    src.home_count = 2;
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_OK);
    assert_string_equal(c->pools[0].user, "u-p");
    assert_string_equal(c->pools[0].argv[0], "/home/p/bin/p");
    assert_string_equal(c->pools[0].argv[1], "$x $5 u-p");
    assert_string_equal(c->pools[0].env[0].value.ptr, "/home/p");
    assert_string_equal(c->pools[1].user, "other");
    assert_string_equal(c->pools[1].env[0].value.ptr, "/home/o");
    const struct weir_conf_site *s = &c->sites[0], *t = &c->sites[1];
    const struct weir_conf_route *own = &s->routes[s->route_count - 1];
    assert_int_equal(own->index_count, 3);
    assert_string_equal(own->index[2], "c");
    assert_int_equal(s->listener_count, 2);
    assert_string_equal(own->root, "/srv/s");
    assert_int_equal(t->routes[t->route_count - 1].index_count, 1);
    assert_int_equal(t->listener_count, 1);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void effective_settings_tell_their_places(void **state)
{
    (void)state;
    static const char text[] =
        "defaults pool { user u; env A 1; env B 2; time { silent 9s }; run ./old }\n"
        "pool p { env B 3; time { request 8s }; php }\n";
    static const struct {
        const char *text;
        unsigned line;
    } expect[] = {{"processes 1", 0}, {"workers 4", 0}, {"spare 0", 0}, {"queue 1000 30s", 0}, {"drain 30s", 0}, {"multiplex no", 0}, {"ready accept", 0}, {"log-rate 2000", 0},
                  {"balance least", 0}, {"retry connect", 0}, {"eject 1s 60s", 0}, {"slow-start 10s", 0}, {"time slow 5s", 0}, {"time start 60s", 0}, {"time idle 10s", 0}, {"time ping none", 0},
                  {"user u", 1}, {"env A 1", 1}, {"time silent 9s", 1}, {"env B 3", 2}, {"time request 8s", 2}, {"php", 2}, {"keep yes", 0}};
    char name[] = "x.conf", dir[] = "/conf";
    struct weir_config_source one = {name, (char *)(uintptr_t)text, sizeof text - 1, dir};
    struct weir_config_sources src = {.list = &one, .count = 1};
    struct weir_config_effective_list e;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_effective(&src, "p", &e, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_int_equal(e.count, WEIR_COUNT(expect));
    for (size_t i = 0; i < e.count; i++) {
        assert_string_equal(e.list[i].text, expect[i].text);
        assert_string_equal(e.list[i].place.file, expect[i].line ? "x.conf" : "built-in");
        if (expect[i].line) assert_int_equal(e.list[i].place.line, expect[i].line);
    }
    weir_arena_fini(&e.arena);
    assert_int_equal(weir_config_effective(&src, "none", &e, &r), WEIR_INVALID);
    weir_config_report_fini(&r);
}

static void how_it_is_driven_is_read(void **state)
{
    (void)state;
    static const char text[] = "weir { log /l json; app-log a.log json; deny-file d; control /s { read %adm bob; operate @pool-owner; admin ops } }\n"
                               "defaults site { suspended gone; listen http://*:1 }\n"
                               "defaults pool { watch /x }\n"
                               "site a { suspended \"Call us\" }\nsite b { suspended no }\nsite c { }\nsite d { suspended \"no\" }\n"
                               "pool p { php; watch + src; log-rate 0 }\npool q { php; watch one two }\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_true(c->log_format == WEIR_LOG_JSON && c->app_log_json);
    assert_string_equal(c->app_log, "/conf/a.log");
    assert_string_equal(c->deny_file, "/conf/d");
    assert_int_equal(c->role_count, 4);
    assert_true(c->roles[0].role == WEIR_ROLE_READ && c->roles[0].who == WEIR_WHO_GROUP && strcmp(c->roles[0].name, "adm") == 0);
    assert_true(c->roles[1].role == WEIR_ROLE_READ && c->roles[1].who == WEIR_WHO_USER && strcmp(c->roles[1].name, "bob") == 0);
    assert_true(c->roles[2].role == WEIR_ROLE_OPERATE && c->roles[2].who == WEIR_WHO_OWNER);
    assert_true(c->roles[3].role == WEIR_ROLE_ADMIN && strcmp(c->roles[3].name, "ops") == 0);
    static const char *const texts[] = {"Call us", NULL, "gone", "no"};
    for (size_t i = 0; i < WEIR_COUNT(texts); i++) {
        assert_int_equal(c->sites[i].is_suspended, texts[i] != NULL);
        if (texts[i]) assert_true(weir_str_eq(c->sites[i].suspended, weir_cstr(texts[i])));
    }
    assert_int_equal(c->pools[0].watch_count, 2);
    assert_string_equal(c->pools[0].watch[0], "/x");
    assert_string_equal(c->pools[0].watch[1], "/conf/src");
    assert_int_equal(c->pools[0].log_rate, 0);
    assert_int_equal(c->pools[1].watch_count, 2);
    assert_string_equal(c->pools[1].watch[1], "/conf/two");
    assert_int_equal(c->pools[1].log_rate, 2000);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void what_routes_match_and_where_they_lead_is_read(void **state)
{
    (void)state;
    const char *text = "site .a.org { listen http://*:1; root /r; try * *.html */ =410; error 502 503 /sorry.html; error 404 /404.html\n"
                       "route /api/ /v2 method GET POST { strip /api; error 502 no }\n"
                       "route /old/ { redirect 308 https://b.org/x/*?y }\n"
                       "route /spa/ { try /spa/cache/*.html * /spa/index.html; rewrite /spa/ /app; links /srv/shared/; intercept-errors yes }\n"
                       "route /files/ { files }\n"
                       "route /in/ { internal; error 503 /in.html; compress { types + text/x-own; min 2K }; files { cache 2w immutable } }\n"
                       "route /out/ { send-file /srv/a/ b; accel-redirect yes; precompressed on; compress no; files { cache no } } }\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, strlen(text), &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    const struct weir_conf_site *s = &c->sites[0];
    assert_int_equal(s->name_count, 2);
    assert_string_equal(s->names[0], "a.org");
    assert_string_equal(s->names[1], "*.a.org");
    const struct weir_conf_route *api = &s->routes[0], *old = &s->routes[1], *spa = &s->routes[2], *files = &s->routes[3], *in = &s->routes[4], *out = &s->routes[5], *own = &s->routes[6];
    assert_int_equal(api->pattern_count, 2);
    assert_int_equal(api->method_count, 2);
    assert_string_equal(api->methods[1], "POST");
    assert_string_equal(api->rewrite_from.ptr, "/api/");
    assert_string_equal(api->rewrite_to.ptr, "/");
    assert_int_equal(api->error_count, 2); /* 503 and 404 of the site */
    assert_int_equal(api->try_count, 4);
    assert_int_equal(old->redirect_status, 308);
    assert_int_equal(old->redirect_star, 16);
    assert_int_equal(old->try_count, 0); /* it has an action of its own */
    assert_int_equal(spa->try_count, 3);
    assert_int_equal(spa->tries[0].kind, WEIR_TRY_FILE);
    assert_true(spa->tries[0].star && weir_str_eq(spa->tries[0].before, WEIR_STR("/spa/cache/")) && weir_str_eq(spa->tries[0].after, WEIR_STR(".html")));
    assert_true(spa->tries[1].star && weir_str_eq(spa->tries[1].before, WEIR_STR("/")) && spa->tries[1].after.len == 0);
    assert_int_equal(spa->tries[2].kind, WEIR_TRY_GO);
    assert_string_equal(spa->rewrite_to.ptr, "/app/");
    assert_string_equal(spa->links[0], "/srv/shared/");
    assert_true(spa->intercept_errors && !own->intercept_errors && !spa->internal && in->internal);
    assert_int_equal(files->try_count, 0);
    assert_int_equal(in->error_count, 3);
    assert_true(in->compress && in->compress_min == 2048 && in->compress_level == 5 && in->compress_type_count == own->compress_type_count + 1);
    assert_string_equal(in->cache, "max-age=1209600, immutable");
    assert_true(!out->compress && out->precompressed && out->accel_redirect && out->send_file_count == 2 && !own->compress && !own->cache);
    assert_string_equal(out->send_files[1], "/conf/b");
    assert_string_equal(out->cache, "no-cache");
    assert_int_equal(own->tries[3].kind, WEIR_TRY_STATUS);
    assert_int_equal(own->tries[3].status, 410);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void what_a_pool_does_with_several_servers_is_read(void **state)
{
    (void)state;
    static const char text[] = "defaults pool { retry safe; eject 2s }\n"
                               "site s { listen http://*:1; root /r; pool a; route /x/ { retry no }; route /y/ { pool b } }\n"
                               "pool a { connect unix:/a { weight 3 }; connect unix:/b { backup yes }; balance hash header X-User-Id; check /ping 1s { fall 4; rise 2 }; slow-start none }\n"
                               "pool b { connect unix:/a; balance hash cookie sid; eject no; retry connect; check /ping }\n"
                               "pool c { connect unix:/a; balance hash uri }\n";
    struct weir_config *c = NULL;
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    const struct weir_conf_pool *a = &c->pools[0], *b = &c->pools[1];
    assert_true(a->endpoints[0].weight == 3 && !a->endpoints[0].backup && a->endpoints[1].weight == 1 && a->endpoints[1].backup);
    assert_true(a->balance == WEIR_BALANCE_PARAM && weir_str_eq(a->balance_key, WEIR_STR("HTTP_X_USER_ID")));
    assert_true(a->check_fall == 4 && a->check_rise == 2 && a->check_ms == 1000 && a->slow_start_ms == 0);
    assert_true(a->eject_ms == 2000 && a->eject_max_ms == 60000);
    assert_true(b->balance == WEIR_BALANCE_COOKIE && weir_str_eq(b->balance_key, WEIR_STR("sid")));
    assert_true(b->eject_ms == 0 && b->slow_start_ms == 10000 && b->check_fall == 2 && b->check_rise == 1);
    assert_true(weir_str_eq(c->pools[2].balance_key, WEIR_STR("REQUEST_URI")));
    const struct weir_conf_site *s = &c->sites[0];
    assert_int_equal(s->routes[0].retry, WEIR_RETRY_NO);      /* its own */
    assert_int_equal(s->routes[1].retry, WEIR_RETRY_CONNECT); /* its pool's */
    assert_int_equal(s->routes[2].retry, WEIR_RETRY_SAFE);    /* its pool's, of the defaults */
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void guards_of_a_site_hold_in_its_routes_until_they_say_otherwise(void **state)
{
    static const char text[] = "weir { trust 10.0.0.0/8 forwarded }\nlistener l { address http://*:1; proxy-protocol 10.0.0.1 ::1 }\nlistener m { address http://*:2; trust none; proxy-protocol no }\n"
                               "defaults site { deny 192.0.2.1 }\n"
                               "site a { listen l m; root /r; allow 10.0.0.0/8\nroute /a { allow all }\nroute /b { allow + ::1; deny none }\nroute /c { deny }\nroute /d { deny + 192.0.2.2 } }\n";
    struct weir_config_report r;
    struct weir_config *c = NULL;
    (void)state;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_true(c->trust.forwarded && c->trust.nets.count == 1);
    assert_true(c->listeners[0].proxies.count == 2 && !c->listeners[0].trust.nets.list);
    assert_true(c->listeners[1].proxies.count == 0 && c->listeners[1].trust.nets.list && !c->listeners[1].trust.nets.count);
    const struct weir_conf_route *t = c->sites[0].routes;
    static const size_t want[][2] = {{0, 1}, {2, 0}, {1, 1}, {1, 2}, {1, 1}};
    for (size_t i = 0; i < WEIR_COUNT(want); i++) {
        assert_int_equal(t[i].guards.allow.count, want[i][0]);
        assert_int_equal(t[i].guards.deny.count, want[i][1]);
    }
    assert_true(t[2].action == WEIR_ACTION_DENY && t[3].action == WEIR_ACTION_FILES);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void limits_headers_and_rates_are_read_and_inherited(void **state)
{
    static const char text[] = "listener l { address http://*:1; limit connections 20 }\n"
                               "defaults site { limit requests 10/s; header X-One 1; header Server; header x-two 2 }\n"
                               "site a { listen l; root /r; header x-ONE one\nroute /a { limit requests 100/m burst 5; min-rate 2K 5s; header X-Three 3 }\nroute /b { limit no; min-rate none } }\n"
                               "site b { listen l; root /r }\n";
    struct weir_config_report r;
    struct weir_config *c = NULL;
    (void)state;
    weir_config_report_init(&r);
    assert_int_equal(parse(text, sizeof text - 1, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_int_equal(c->listeners[0].conns_max, 20);
    const struct weir_conf_guards *own = &c->sites[0].routes[2].guards, *a = &c->sites[0].routes[0].guards, *b = &c->sites[0].routes[1].guards, *other = &c->sites[1].routes[0].guards;
    assert_true(own->limit->interval_us == 100000 && own->limit->burst == 10);
    assert_true(a->limit->interval_us == 600000 && a->limit->burst == 5 && !b->limit);
    assert_true(own->limit->id != a->limit->id && own->limit->id != other->limit->id);
    assert_true(own->min_rate == 500 && own->min_rate_ms == 20000 && a->min_rate == 2048 && a->min_rate_ms == 5000 && b->min_rate == 0);
    assert_true(own->header_count == 3 && a->header_count == 4 && other->header_count == 3);
    assert_string_equal(own->headers[0].value.ptr, "one");
    assert_string_equal(own->headers[0].name.ptr, "x-ONE");
    assert_null(own->headers[1].value.ptr);
    assert_string_equal(other->headers[0].value.ptr, "1");
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void users_whom_crypt_knows_are_taken_and_the_others_named(void **state)
{
    static const char *const expect[] = {
        "/u:2:1: the user bob cannot log in: the hash is apr1 (MD5), which crypt does not know: make it anew: htpasswd -B FILE NAME, or mkpasswd -m yescrypt",
        "/u:3:1: the user carl cannot log in: the hash is unsalted SHA-1, which is too weak: make it anew: htpasswd -B FILE NAME, or mkpasswd -m yescrypt",
        "/u:4:1: the user dora cannot log in: the hash is DES, or no hash at all: make it anew: htpasswd -B FILE NAME, or mkpasswd -m yescrypt",
        "/u:5:1: no user and hash: the line is passed over: write NAME:HASH, by htpasswd -B FILE NAME",
        "/u:11:1: the user e\\x1bvil cannot log in: the hash is damaged: make it anew: htpasswd -B FILE NAME, or mkpasswd -m yescrypt",
    };
    static const char main_text[] = "site a { listen http://*:1; root /r; auth basic /u\nroute /x { auth basic /u \"My $name\" { forward yes } }\nroute /y { auth no } }\nsite b { listen http://*:1; root /r; auth basic /u }\n";
    static const char users[] = "zoe:$2y$05$abc\nbob:$apr1$x$SECRET\ncarl:{SHA}SECRET\ndora:SECRET\nnobody\n\n# comment:$6$a$b\nanna:$6$a$b:comment\r\nanna:$6$second$b\nmax:$y$j9T$x$y\ne\x1bvil:$6$a b$SECRET\nlast:$5$a$b";
    char main_name[] = "w.conf", dir[] = "/", name[] = WEIR_CONFIG_USERS "/u";
    struct weir_config_source list[] = {{.name = main_name, .text = (char *)(uintptr_t)main_text, .len = sizeof main_text - 1, .dir = dir},
                                        {.name = name, .text = (char *)(uintptr_t)users, .len = sizeof users - 1, .dir = dir}};
    struct weir_config_sources src = {list, 2, NULL, 0, false};
    struct weir_config_report r;
    struct weir_config *c = NULL;
    (void)state;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_OK);
    assert_int_equal(r.count, WEIR_COUNT(expect));
    for (size_t i = 0; i < r.count; i++) {
        char got[600];
        snprintf(got, sizeof got, "%s:%u:%u: %s: %s", r.list[i].file, r.list[i].line, r.list[i].column, r.list[i].text, r.list[i].advice);
        assert_string_equal(got, expect[i]);
        assert_int_equal(r.list[i].level, WEIR_CONFIG_WARNING);
    }
    const struct weir_conf_auth *a = c->sites[0].routes[2].guards.auth, *x = c->sites[0].routes[0].guards.auth;
    static const char *const names[] = {"anna", "last", "max", "zoe"};
    assert_int_equal(a->user_count, WEIR_COUNT(names));
    for (size_t i = 0; i < WEIR_COUNT(names); i++) assert_string_equal(a->users[i].name, names[i]);
    assert_string_equal(a->users[0].hash, "$6$a$b");
    assert_string_equal(a->realm, "a");
    assert_string_equal(x->realm, "My a");
    assert_true(x->forward && !a->forward && x->users == a->users && c->sites[1].routes[0].guards.auth->users == a->users);
    assert_null(c->sites[0].routes[1].guards.auth);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

/* What this version answers "not in this version" to: the list shrinks with each version. */
static const struct {
    const char *file, *later;
} examples[] = {
    {"01-wordpress-tls.conf", "limits memory"},
    {"02-three-tenants.conf", "status use limits memory env-file mail"},
    {"03-laravel-container.conf", "host"},
    {"04-c-app.conf", "limits memory files write network"},
    {"05-cgit.conf", "read"},
    {"06-existing-fpm.conf", ""},
    {"07-behind-nginx.conf", ""},
    {"08-farm-app.conf", "peer-tls ca certificate name root fastcgis"},
    {"08-farm-gateway.conf", "zone zone peer-tls ca certificate name fastcgis fastcgis"},
    {"09-development.conf", ""},
    {"ceiling.conf", "ceiling workers limits memory cpu tasks time allow"},
    {"tenants/alice.conf", "limits memory env-file"},
    {"tenants/bob.conf", "mail"},
    {"tenants/carol.conf", ""},
};

static void the_examples_have_no_mistake_but_what_later_versions_build(void **state)
{
    (void)state;
    const char *folder = getenv("EXAMPLES");
    assert_non_null(folder);
    for (size_t i = 0; i < WEIR_COUNT(examples); i++) {
        char path[512], got[1024] = "";
        struct weir_config_sources src = {0};
        struct weir_config_report r;
        struct weir_config *c = NULL;
        bool tenant = strncmp(examples[i].file, "tenants/", 8) == 0;
        snprintf(path, sizeof path, "%s/%s", folder, examples[i].file);
        weir_config_report_init(&r);
        assert_int_equal(weir_config_read(path, &src, &r), WEIR_OK);
        int status = weir_config_parse(&src, &c, &r);
        assert_true(tenant || strstr(examples[i].file, "tenants") || status == WEIR_OK);
        for (size_t k = 0; k < r.count; k++) {
            const struct weir_config_message *m = &r.list[k];
            if (m->level != WEIR_CONFIG_LATER) {
                /* a tenant's file alone lacks what the main file gives it */
                bool lacks = (tenant || strstr(m->file, "/tenants/")) && (strstr(m->text, "in the home of") || strstr(m->text, "listens nowhere") || strstr(m->text, "nothing to run") || strstr(m->text, "~ is not known"));
                if (!lacks) fail_msg("%s:%u:%u: %s", examples[i].file, m->line, m->column, m->text);
                continue;
            }
            size_t n = strlen(got);
            snprintf(got + n, sizeof got - n, "%s%.*s", n ? " " : "", (int)strcspn(m->text, ": "), m->text);
        }
        if (strcmp(got, examples[i].later) != 0) fail_msg("%s: %s", examples[i].file, got);
        weir_config_drop(c);
        weir_config_sources_free(&src);
        weir_config_report_fini(&r);
    }
}

static void a_tenants_file_is_his_alone(void **state)
{
    static const char *const expect[] = {
        "1:1: \"weir\" is not for a tenant's file: write it in the main file",
        "2:6: the pool \"bobs\" is not bob's: name it bob, or bob-something",
        "3:12: \"user\" is not for a tenant's file: it is the file's own",
        "3:23: \"connect\" is not for a tenant's file: a tenant's pools run their own processes",
        "4:26: the pool \"alice\" is not bob's: name one of this file",
        "4:33: \"listen\" is not for a tenant's file: defaults site of the main file tells where",
        "3:40: \"php-admin-value\" is not for a tenant's file: defaults pool of the main file sets it for all",
        "5:15: the root /etc does not lie in the home of bob: name a folder below ~/",
        "7:33: \"suspended\" is not for a tenant's file: write a text: a file would be read with other rights than his",
        "8:14: \"watch\" is not for a tenant's file: folders that are watched are few, and for all",
        "8:26: \"log-rate\" is not for a tenant's file: defaults pool of the main file tells it",
        "6:15: the root /home/alice does not lie in the home of bob: name a folder below ~/",
    };
    static const char main_text[] = "tenants t/*.conf; defaults site { listen http://*:80 }; defaults pool { php; php-admin-value a 1 }";
    static const char text[] = "weir { threads 2 }\npool bobs { }\npool bob { user root; connect unix:/x; php-admin-value a 2 }\n"
                               "site a { root ~/www; php alice; listen http://*:81 }\nsite b { root /etc }\nsite c { root /home/bob/../alice }\n"
                               "site d { root ~/www; php bob-2; suspended /etc/passwd }\npool bob-2 { watch /etc; log-rate 0 }\nsite e { root ~/www; suspended away }\n";
    char main_name[] = "/conf/weir.conf", dir[] = "/conf", name[] = "/conf/t/bob.conf", sub[] = "/conf/t", user[] = "bob", home[] = "/home/bob";
    struct weir_config_source list[] = {{.name = main_name, .text = (char *)(uintptr_t)main_text, .len = sizeof main_text - 1, .dir = dir},
                                        {.name = name, .text = (char *)(uintptr_t)text, .len = sizeof text - 1, .dir = sub}};
    struct weir_config_home homes[] = {{user, home}};
    struct weir_config_sources src = {list, 2, homes, 1, false};
    struct weir_config_report r;
    struct weir_config *c = NULL;
    (void)state;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_INVALID);
    for (size_t i = 0; i < WEIR_COUNT(expect); i++) {
        bool found = false;
        char got[256];
        for (size_t k = 0; k < r.count && !found; k++) {
            snprintf(got, sizeof got, "%u:%u: %s: %s", r.list[k].line, r.list[k].column, r.list[k].text, r.list[k].advice);
            found = strcmp(got, expect[i]) == 0 && strcmp(r.list[k].file, name) == 0;
        }
        if (!found) fail_msg("not told: %s", expect[i]);
    }
    assert_int_equal(r.count, WEIR_COUNT(expect));
    weir_config_report_fini(&r);
    static const char good[] = "site d { root ~/www; php bob-2 }\npool bob-2 { }\n";
    list[1].text = (char *)(uintptr_t)good;
    list[1].len = sizeof good - 1;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_OK);
    assert_int_equal(r.count, 0);
    assert_string_equal(c->pools[0].user, "bob");
    assert_string_equal(c->sites[0].routes[0].root, "/home/bob/www");
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

static void sources_survive_packing(void **state)
{
    (void)state;
    char n1[] = "a", t1[] = "site", d1[] = "/x", n2[] = "b", t2[] = "", d2[] = "/";
    struct weir_config_source list[] = {{.name = n1, .text = t1, .len = 4, .dir = d1}, {.name = n2, .text = t2, .dir = d2, .lost = true}};
    struct weir_config_home homes[] = {{n1, d1}};
    struct weir_config_sources s = {list, 2, homes, 1}, back = {0};
    struct weir_buf b = {0};
    assert_int_equal(weir_config_pack(&s, &b), WEIR_OK);
    for (size_t cut = 0; cut < weir_buf_len(&b); cut++) {
        struct weir_config_sources part = {0};
        assert_int_equal(weir_config_unpack(weir_buf_ptr(&b), cut, &part), WEIR_PROTOCOL);
        assert_int_equal(part.count, 0);
    }
    assert_int_equal(weir_config_unpack(weir_buf_ptr(&b), weir_buf_len(&b), &back), WEIR_OK);
    assert_int_equal(back.count, 2);
    assert_string_equal(back.list[0].text, "site");
    assert_string_equal(back.list[1].dir, "/");
    assert_true(back.list[1].lost && !back.list[0].lost);
    assert_int_equal(back.home_count, 1);
    assert_string_equal(back.homes[0].home, "/x");
    weir_config_sources_free(&back);
    weir_buf_fini(&b);
}

/* ---- included files ---- */

static char place[] = "/tmp/weir-config-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", place, name);
    return path;
}

static void write_file(const char *name, const char *text, size_t len)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    fclose(f);
}

static void read_folder(const struct weir_config_sources *old, struct weir_config_sources *out, int want)
{
    struct weir_config_report r;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_read_fd(-1, in_folder("main"), old, out, &r), want);
    weir_config_report_fini(&r);
}

static int make_folder(void **state)
{
    (void)state;
    static const char text[] = "include *.conf\npool main { run ./x }\n";
    if (!mkdtemp(place)) return -1;
    write_file("main", text, sizeof text - 1);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", place);
    return system(command);
}

/* As if it had been old enough when it was read. */
static void know(struct weir_config_source *s)
{
    struct stat st;
    assert_int_equal(stat(s->name, &st), 0);
    s->id = (struct weir_config_identity){.device = st.st_dev, .inode = st.st_ino, .size = (uint64_t)st.st_size,
                                          .changed_ns = st.st_ctim.tv_sec * INT64_C(1000000000) + st.st_ctim.tv_nsec,
                                          .modified_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec};
}

static void a_link_is_known_by_what_it_leads_to(void **state)
{
    (void)state;
    struct weir_config_sources one = {0}, two = {0}, three = {0};
    char dir[256];
    assert_int_equal(mkdir(in_folder("there"), 0700), 0);
    assert_non_null(realpath(in_folder("there"), dir));
    write_file("there/x", "pool a { run ./a }\n", 19);
    assert_int_equal(symlink("there/x", in_folder("l.conf")), 0);
    read_folder(NULL, &one, WEIR_OK);
    know(&one.list[1]);
    one.list[1].text[5] = 'A';
    read_folder(&one, &two, WEIR_OK);
    assert_string_equal(two.list[1].text, "pool A { run ./a }\n");
    assert_string_equal(two.list[1].dir, dir);
    write_file("there/x", "pool a { run ./b }\n", 19);
    read_folder(&two, &three, WEIR_OK);
    assert_string_equal(three.list[1].text, "pool a { run ./b }\n");
    assert_int_equal(unlink(in_folder("l.conf")), 0);
    weir_config_sources_free(&one);
    weir_config_sources_free(&two);
    weir_config_sources_free(&three);
}

static void an_included_file_is_read_again_only_when_it_changed(void **state)
{
    (void)state;
    struct weir_config_sources one = {0}, two = {0}, three = {0};
    write_file("a.conf", "pool a { run ./a }\n", 19);
    write_file("b.conf", "pool b { run ./b }\n", 19);
    read_folder(NULL, &one, WEIR_OK);
    assert_int_equal(one.count, 3);
    assert_false(one.list[1].same);
    assert_int_equal(one.list[1].id.inode, 0); /* it is too young to be known by its times */
    know(&one.list[1]);
    know(&one.list[2]);
    one.list[1].text[5] = 'A'; /* what is kept is taken: the file is not read */
    write_file("b.conf", "pool b { run ./c }\n", 19);
    read_folder(&one, &two, WEIR_OK);
    assert_string_equal(two.list[1].text, "pool A { run ./a }\n");
    assert_true(two.list[1].same);
    assert_string_equal(two.list[2].text, "pool b { run ./c }\n");
    assert_false(two.list[2].same);
    assert_true(two.list[0].same);
    assert_int_equal(unlink(in_folder("b.conf")), 0); /* what a file said that is gone may have held for all */
    read_folder(&two, &three, WEIR_OK);
    assert_int_equal(three.count, 2);
    assert_true(three.changed && !two.changed);
    assert_int_equal(unlink(in_folder("a.conf")), 0);
    weir_config_sources_free(&one);
    weir_config_sources_free(&two);
    weir_config_sources_free(&three);
}

static void the_newer_one_of_two_files_is_to_blame(void **state)
{
    (void)state;
    char n1[] = "/c/main", n2[] = "/c/a.conf", n3[] = "/c/b.conf", d[] = "/c";
    char main_text[] = "include *.conf\n", pool[] = "pool p { run ./x }\n", site[] = "pool q { run ./x }\nsite h { listen http://*:80; pool q }\n";
    struct weir_config_source list[] = {{.name = n1, .text = main_text, .len = sizeof main_text - 1, .dir = d, .same = true},
                                        {.name = n2, .dir = d}, {.name = n3, .dir = d}};
    struct weir_config_sources src = {.list = list, .count = 3};
    for (int i = 0; i < 8; i++) {
        struct weir_config_report r;
        struct weir_config *c = NULL;
        char *text = i & 4 ? site : pool;
        list[1].text = list[2].text = text;
        list[1].len = list[2].len = strlen(text);
        list[1].same = i & 1;
        list[2].same = i & 2;
        weir_config_report_init(&r);
        assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_INVALID);
        assert_int_equal(r.bad_count, 1);
        assert_string_equal(r.bad[0], (i & 3) == 2 ? n2 : n3); /* the first one stands, unless it alone is new */
        weir_config_report_fini(&r);
    }
}

static void what_cannot_be_read_is_its_own_mistake(void **state)
{
    (void)state;
    struct weir_config_sources src = {0};
    struct weir_config_report r;
    struct weir_config *c = NULL;
    char *large = calloc(1, (1u << 20) + 1);
    assert_non_null(large);
    write_file("large.conf", large, (1u << 20) + 1);
    free(large);
    assert_int_equal(mkfifo(in_folder("fifo.conf"), 0600), 0);
    assert_int_equal(mkdir(in_folder("folder.conf"), 0700), 0);
    assert_int_equal(symlink("nowhere", in_folder("link.conf")), 0);
    write_file("good.conf", "pool good { run ./a }\n", 22);
    read_folder(NULL, &src, WEIR_OK);
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_INVALID);
    assert_int_equal(r.count, 4);
    assert_int_equal(r.bad_count, 4);
    for (size_t i = 0; i < 4; i++) assert_non_null(strstr(r.list[i].text, "cannot be read: "));
    weir_config_report_fini(&r);
    weir_config_sources_free(&src);
    static const char *const names[] = {"large.conf", "fifo.conf", "link.conf", "good.conf"};
    for (size_t i = 0; i < WEIR_COUNT(names); i++) assert_int_equal(unlink(in_folder(names[i])), 0);
    assert_int_equal(rmdir(in_folder("folder.conf")), 0);
}

static void a_pool_of_a_lost_file_is_missing_and_nothing_else(void **state)
{
    (void)state;
    char main_text[] = "site s { listen http://*:80; pool gone; route /x/ { pool here } }\npool here { run ./x }\ninclude x.conf\n";
    char n1[] = "/c/main", n2[] = "/c/x.conf", d[] = "/c", empty[] = "";
    struct weir_config_source list[] = {{.name = n1, .text = main_text, .len = sizeof main_text - 1, .dir = d}, {.name = n2, .text = empty, .dir = d}};
    struct weir_config_sources src = {.list = list, .count = 2};
    struct weir_config_report r;
    struct weir_config *c = NULL;
    weir_config_report_init(&r);
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_INVALID);
    weir_config_report_fini(&r);
    weir_config_report_init(&r);
    list[1].lost = true;
    assert_int_equal(weir_config_parse(&src, &c, &r), WEIR_OK);
    assert_int_equal(c->pool_count, 2);
    const struct weir_conf_site *s = &c->sites[0];
    assert_non_null(c->pools[s->routes[1].pool].broken);
    assert_null(c->pools[s->routes[0].pool].broken);
    weir_config_drop(c);
    weir_config_report_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_mistake_is_told_with_its_place_and_what_to_do), cmocka_unit_test(all_mistakes_of_a_file_are_told_at_once),
        cmocka_unit_test(what_a_pool_does_with_several_servers_is_read),
        cmocka_unit_test(layers_lists_and_maps_follow_their_rules), cmocka_unit_test(how_it_is_driven_is_read), cmocka_unit_test(guards_of_a_site_hold_in_its_routes_until_they_say_otherwise), cmocka_unit_test(users_whom_crypt_knows_are_taken_and_the_others_named), cmocka_unit_test(limits_headers_and_rates_are_read_and_inherited), cmocka_unit_test(the_examples_have_no_mistake_but_what_later_versions_build), cmocka_unit_test(what_routes_match_and_where_they_lead_is_read),
        cmocka_unit_test(a_front_has_who_may_connect_and_the_pool_behind_it),
        cmocka_unit_test(variables_are_the_blocks_own_and_lists_can_be_appended_to), cmocka_unit_test(effective_settings_tell_their_places),
        cmocka_unit_test(a_tenants_file_is_his_alone),
        cmocka_unit_test(sources_survive_packing), cmocka_unit_test(an_included_file_is_read_again_only_when_it_changed),
        cmocka_unit_test(a_link_is_known_by_what_it_leads_to),
        cmocka_unit_test(the_newer_one_of_two_files_is_to_blame), cmocka_unit_test(what_cannot_be_read_is_its_own_mistake), cmocka_unit_test(a_pool_of_a_lost_file_is_missing_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* SPDX-License-Identifier: MIT */
/* static: see static.h. */
#include "gateway/static.h"

#include "http/http.h"

#define CHARSET "; charset=utf-8"

static const struct {
    const char *ending, *type;
} types[] = {
    {"html", "text/html" CHARSET}, {"htm", "text/html" CHARSET}, {"css", "text/css" CHARSET},
    {"js", "text/javascript" CHARSET}, {"mjs", "text/javascript" CHARSET}, {"json", "application/json"},
    {"map", "application/json"}, {"webmanifest", "application/manifest+json"}, {"jsonld", "application/ld+json"},
    {"xml", "text/xml" CHARSET}, {"xhtml", "application/xhtml+xml"}, {"rss", "application/rss+xml"},
    {"atom", "application/atom+xml"}, {"txt", "text/plain" CHARSET}, {"text", "text/plain" CHARSET},
    {"log", "text/plain" CHARSET}, {"md", "text/markdown" CHARSET}, {"csv", "text/csv" CHARSET},
    {"tsv", "text/tab-separated-values" CHARSET}, {"ics", "text/calendar" CHARSET}, {"vcf", "text/vcard" CHARSET},
    {"vtt", "text/vtt" CHARSET}, {"yaml", "application/yaml"}, {"yml", "application/yaml"}, {"toml", "application/toml"},
    {"svg", "image/svg+xml"}, {"svgz", "image/svg+xml"}, {"png", "image/png"}, {"jpg", "image/jpeg"},
    {"jpeg", "image/jpeg"}, {"gif", "image/gif"}, {"webp", "image/webp"}, {"avif", "image/avif"},
    {"apng", "image/apng"}, {"bmp", "image/bmp"}, {"ico", "image/vnd.microsoft.icon"}, {"tif", "image/tiff"},
    {"tiff", "image/tiff"}, {"heic", "image/heic"}, {"jxl", "image/jxl"}, {"woff", "font/woff"}, {"woff2", "font/woff2"},
    {"ttf", "font/ttf"}, {"otf", "font/otf"}, {"eot", "application/vnd.ms-fontobject"}, {"mp3", "audio/mpeg"},
    {"m4a", "audio/mp4"}, {"aac", "audio/aac"}, {"ogg", "audio/ogg"}, {"oga", "audio/ogg"}, {"opus", "audio/ogg"},
    {"wav", "audio/wav"}, {"flac", "audio/flac"}, {"weba", "audio/webm"}, {"mid", "audio/midi"}, {"mp4", "video/mp4"},
    {"m4v", "video/mp4"}, {"webm", "video/webm"}, {"ogv", "video/ogg"}, {"mov", "video/quicktime"},
    {"avi", "video/x-msvideo"}, {"mkv", "video/x-matroska"}, {"mpeg", "video/mpeg"}, {"ts", "video/mp2t"},
    {"m3u8", "application/vnd.apple.mpegurl"}, {"pdf", "application/pdf"}, {"ps", "application/postscript"},
    {"rtf", "application/rtf"}, {"epub", "application/epub+zip"}, {"zip", "application/zip"},
    {"gz", "application/gzip"}, {"tgz", "application/gzip"}, {"bz2", "application/x-bzip2"}, {"xz", "application/x-xz"},
    {"zst", "application/zstd"}, {"7z", "application/x-7z-compressed"}, {"rar", "application/vnd.rar"},
    {"tar", "application/x-tar"}, {"jar", "application/java-archive"}, {"wasm", "application/wasm"},
    {"doc", "application/msword"}, {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
    {"xls", "application/vnd.ms-excel"}, {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
    {"ppt", "application/vnd.ms-powerpoint"},
    {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
    {"odt", "application/vnd.oasis.opendocument.text"}, {"ods", "application/vnd.oasis.opendocument.spreadsheet"},
    {"odp", "application/vnd.oasis.opendocument.presentation"}, {"geojson", "application/geo+json"},
    {"kml", "application/vnd.google-earth.kml+xml"}, {"gpx", "application/gpx+xml"},
    {"deb", "application/vnd.debian.binary-package"}, {"apk", "application/vnd.android.package-archive"},
};

static struct weir_str last_name(struct weir_str path)
{
    size_t at = path.len;
    while (at > 0 && path.ptr[at - 1] != '/') at--;
    return weir_str(path.ptr + at, path.len - at);
}

/* Behind its last dot; empty: there is none. */
static struct weir_str ending_of(struct weir_str name)
{
    size_t dot = name.len;
    while (dot > 0 && name.ptr[dot - 1] != '.') dot--;
    return dot > 0 ? weir_str(name.ptr + dot, name.len - dot) : weir_str(NULL, 0);
}

/* known: in lower case. */
static bool is_ending(struct weir_str ending, const char *known)
{
    return ending.len && (ending.ptr[0] | 0x20) == known[0] && weir_str_ieq(ending, weir_cstr(known));
}

struct weir_str weir_static_type(struct weir_str path)
{
    struct weir_str ending = ending_of(last_name(path));
    for (size_t i = 0; i < WEIR_COUNT(types); i++)
        if (is_ending(ending, types[i].ending)) return weir_cstr(types[i].type);
    return WEIR_STR("application/octet-stream");
}

/* Programs under any spelling of their ending, also in the middle ("x.php.txt" is a text, "x.php" is not), and backups. */
static bool forbidden_name(struct weir_str name)
{
    static const char *const barred[] = {"php", "phtml", "phar", "phps", "pht", "php3", "php4", "php5", "php6", "php7", "php8", "fcgi",
                                           "cgi", "bak", "old", "orig", "save", "swp", "swo", "tmp"};
    struct weir_str ending = ending_of(name);
    for (size_t i = 0; i < WEIR_COUNT(barred); i++)
        if (is_ending(ending, barred[i])) return true;
    if (weir_str_suffix(name, WEIR_STR("~"))) return true;
    return name.len > 1 && name.ptr[0] == '#' && name.ptr[name.len - 1] == '#';
}

bool weir_static_hidden(struct weir_str path)
{
    size_t i = 0;
    bool first = true;
    while (i < path.len) {
        while (i < path.len && path.ptr[i] == '/') i++;
        size_t from = i;
        while (i < path.len && path.ptr[i] != '/') i++;
        struct weir_str segment = weir_str(path.ptr + from, i - from);
        if (segment.len && segment.ptr[0] == '.' && !(first && weir_str_eq(segment, WEIR_STR(".well-known")))) return true;
        first = false;
    }
    return false;
}

bool weir_static_forbidden(struct weir_str path)
{
    return weir_static_hidden(path) || forbidden_name(last_name(path));
}

static char *put_hex(char *to, uint64_t v, unsigned least)
{
    unsigned n = least;
    while (n < 16 && v >> (4 * n)) n++;
    while (n--) *to++ = "0123456789abcdef"[v >> (4 * n) & 15];
    return to;
}

void weir_static_etag(const struct stat *st, char out[static WEIR_STATIC_ETAG_MAX])
{
    char *p = out;
    *p++ = '"';
    p = put_hex(p, (uint64_t)st->st_size, 1);
    *p++ = '-';
    p = put_hex(p, (uint64_t)st->st_mtim.tv_sec, 1);
    p = put_hex(p, (uint64_t)st->st_mtim.tv_nsec, 8);
    *p++ = '"';
    *p = 0;
}

/* Is etag in the list? weak: W/ is looked over [RFC 9110 8.8.3.2]. */
static bool etag_listed(struct weir_str list, const char *etag, bool weak)
{
    size_t n = strlen(etag);
    if (list.len == 1 && list.ptr[0] == '*') return true;
    for (size_t i = 0; i < list.len;) {
        while (i < list.len && (list.ptr[i] == ' ' || list.ptr[i] == '\t' || list.ptr[i] == ',')) i++;
        bool is_weak = i + 2 < list.len && list.ptr[i] == 'W' && list.ptr[i + 1] == '/';
        if (is_weak) i += 2;
        if (i >= list.len || list.ptr[i] != '"') return false;
        size_t from = i++;
        while (i < list.len && list.ptr[i] != '"') i++;
        if (i == list.len) return false;
        i++;
        if ((weak || !is_weak) && i - from == n && memcmp(list.ptr + from, etag, n) == 0) return true;
    }
    return false;
}

int weir_static_condition(const struct weir_pair *headers, size_t count, const struct stat *st, const char *etag)
{
    const struct weir_pair *match = weir_http_find(headers, count, "If-Match");
    const struct weir_pair *unmodified = weir_http_find(headers, count, "If-Unmodified-Since");
    const struct weir_pair *none = weir_http_find(headers, count, "If-None-Match");
    const struct weir_pair *modified = weir_http_find(headers, count, "If-Modified-Since");
    int64_t t;
    if (match) {
        if (!etag_listed(match->value, etag, false)) return 412;
    } else if (unmodified && weir_http_date_parse(unmodified->value, &t) == WEIR_OK && st->st_mtim.tv_sec > t) {
        return 412;
    }
    if (none) return etag_listed(none->value, etag, true) ? 304 : 200;
    if (modified && weir_http_date_parse(modified->value, &t) == WEIR_OK && st->st_mtim.tv_sec <= t) return 304;
    return 200;
}

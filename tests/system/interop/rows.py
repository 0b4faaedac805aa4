# SPDX-License-Identifier: MIT
"""The matrix: its columns, its rows, and why a cell is empty. A reason that can be looked at comes with the check that looks."""
import contextlib
import re
import subprocess
import tempfile
from collections import namedtuple

import behind
import checks
import fronts

COLUMNS = {"get": checks.get, "post10m": checks.post10m, "answer1m": checks.answer1m, "stderr": checks.stderr, "abort": checks.abort, "keep": checks.keep,
           "mpx": checks.mpx, "values": checks.values_asked, "auth": checks.auth, "filter": checks.filter_}

# `fact`: what shows that the reason still holds, or None.
Absent = namedtuple("Absent", "reason fact")
# `checks`: those of COLUMNS that are another one here. `version`: a command whose output has it.
Row = namedtuple("Row", "name side start absent version checks", defaults=[{}])

# ---- in front ----

NO_KEEP = Absent("opens a connection for each request", checks.keep_never)
NO_MPX = Absent("one request at a time on a connection", checks.mpx_never)
NO_VALUES = Absent("never sends GET_VALUES", checks.values_never_asked)
NO_AUTH = Absent("web server without the authorizer role", None)
NO_FILTER = Absent("no web server here has the filter role", None)
UNSEEN = Absent("runs the program itself, so that nothing is between them to look: see its other row", None)
NO_STDERR = Absent("Caddy 2.6 drops STDERR, also with capture_stderr (caddy #5515, mended in 2.7)", None)

PLAIN = {"mpx": NO_MPX, "values": NO_VALUES, "auth": NO_AUTH, "filter": NO_FILTER}
FRONTS = {
    "nginx": (fronts.nginx, PLAIN, "nginx -v"),
    "lighttpd": (fronts.lighttpd, {"keep": NO_KEEP, "mpx": NO_MPX, "values": NO_VALUES, "filter": NO_FILTER}, "lighttpd -v"),
    "Apache mod_proxy_fcgi": (fronts.mod_proxy_fcgi, PLAIN, "apache2 -v"),
    "Apache mod_fcgid": (fronts.mod_fcgid_passing_on, {"keep": NO_KEEP, "mpx": NO_MPX, "values": NO_VALUES, "filter": NO_FILTER},
                         "dpkg-query -W -f ${Version} libapache2-mod-fcgid"),
    "HAProxy": (fronts.haproxy, {"auth": NO_AUTH, "filter": NO_FILTER}, "haproxy -v"),
    "Caddy": (fronts.caddy, {**PLAIN, "keep": NO_KEEP, "stderr": NO_STDERR}, "caddy version"),
    "h2o": (fronts.h2o, PLAIN, "h2o --version"),
}


def front_rows():
    for name, (start, absent, version) in FRONTS.items():
        guarded = None if "auth" in absent else "/private/x"
        for program, label in ((fronts.libweir, "libweir"), (fronts.weir_front, "Weir")):
            row = Row(f"{name} > {label}", "in front", in_front(start, program, guarded), absent, version)
            if row.name == "Apache mod_fcgid > libweir":
                row = row._replace(start=in_front(fronts.mod_fcgid, program, guarded), absent={**absent, "keep": UNSEEN, "mpx": UNSEEN, "values": UNSEEN})
            yield row


def in_front(start, program, guarded):
    @contextlib.contextmanager
    def run():
        with tempfile.TemporaryDirectory(prefix="weir-matrix-", dir="/tmp") as folder, fronts.in_front(start, program, folder, guarded) as chain:
            yield chain
    return run


# ---- behind ----

SERIAL = Absent("one request at a time: its answer to GET_VALUES says so", None)
CLOSES = Absent("closes its connections, whatever FCGI_KEEP_CONN says", checks.closes)
SINGLE = Absent("one request for each connection", None)
BREAKS = Absent("says that it multiplexes, and closes the connection when one of its requests ends", checks.closes_under_others)
SILENT = Absent("does not answer GET_VALUES", None)
DIES = Absent("its process ends with an error when it is asked by GET_VALUES", checks.ends_when_asked)
BUFFERS = Absent("sends its answer when it is complete: a client that left is not noticed", None)
NO_API = Absent("the library has no way to write to STDERR", None)
NO_ROLE = Absent("responder only: the role is not looked at", None)

LONE = {"mpx": SERIAL}
REFUSES = {column: Absent("responder only: the library refuses the role", checks.unknown_role(role)) for column, role in (("auth", 2), ("filter", 3))}
IGNORES = {"auth": NO_ROLE, "filter": NO_ROLE}
PHP = "workers 1; php-value post_max_size 16M;"
UWSGI = "run /usr/bin/uwsgi --plugin python3 --protocol fastcgi --die-on-term --need-app --disable-logging --buffer-size 65535 --wsgi-file DIR/wsgi.py"


def behind_rows():
    def row(name, start, absent, version, says=None, own=True):
        """`says`: what it answers when it is asked whether it multiplexes. `own`: Weir can run it as a pool of its own."""
        return Row(name, "behind", lambda: behind.behind(*start, multiplexes="mpx" not in absent, keeps="keep" not in absent, own=own), absent, version,
                   {"values": checks.values_say(says)})
    yield row("php-cgi", ("php 8.2 cgi", behind.php_script, PHP), {**LONE, **IGNORES}, "php-cgi -v", False)
    yield row("php-fpm", ("php 8.2 fpm", behind.php_script, PHP), {**LONE, **IGNORES}, "php-fpm8.2 -v", False)
    yield row("libfcgi", ("run ./libfcgi", behind.c_program), LONE, "dpkg-query -W -f ${Version} libfcgi-dev", False)
    yield row("FCGI.pm", ("run ./fcgi.pl", behind.copied("fcgi.pl")), LONE, "dpkg-query -W -f ${Version} libfcgi-perl", False)
    yield row("ruby-fcgi", ("run ./fcgi.rb", behind.copied("fcgi.rb")),
              {"abort": BUFFERS, "keep": CLOSES, "mpx": SINGLE, "values": DIES, **IGNORES}, "dpkg-query -W -f ${Version} ruby-fcgi", own=False)
    yield row("Go net/http/fcgi", ("run ./matrix", behind.go_program), {"stderr": NO_API, **REFUSES}, "go version", True)
    yield row("node-fastcgi", ("run ./matrix.js", behind.node_program), {"keep": CLOSES, "mpx": BREAKS}, f"node -p require('{behind.NPM}/node-fastcgi/package.json').version", True)
    yield row("uWSGI + python3", (UWSGI, behind.copied("wsgi.py")), {"keep": CLOSES, "mpx": SINGLE, "values": SILENT, **IGNORES}, "uwsgi --version")
    yield row("Net::Async::FastCGI", ("run ./async.pl", behind.copied("async.pl")), REFUSES, "dpkg-query -W -f ${Version} libnet-async-fastcgi-perl", True)


ROWS = [*front_rows(), *behind_rows()]


def check_of(row, column):
    """What to run for a cell; None: it is empty, and nothing shows it."""
    return row.absent[column].fact if column in row.absent else row.checks.get(column, COLUMNS[column])


def version_of(row):
    r = subprocess.run(row.version.split(" "), capture_output=True, text=True, timeout=30)
    return re.search(r"\d+(\.\d+)+\S*", r.stdout + r.stderr).group(0)

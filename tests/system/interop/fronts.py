# SPDX-License-Identifier: MIT
"""Other people's web servers in front of libweir: each function is a context manager that runs one before the unix socket at `path`,
with its log and all else in `folder`, and gives its port."""
import contextlib
import os

import recorder
import tap
from chain import Chain, text_of
from tap import Tap, listening
from test_front import nginx as nginx_server
from weirlib import HAPROXY, TEST_APPS, USER, Weir, can_connect, free_port, program

APP = os.path.join(TEST_APPS, "matrix_app")


@contextlib.contextmanager
def server(folder, args, text, more=(), env=None):
    """A server on a configuration, which is the last of its arguments."""
    port = free_port()
    conf = os.path.join(folder, "conf")
    with open(conf, "w") as f:
        f.write(text.replace("FOLDER", folder).replace("PORT", str(port)))
    with open(os.path.join(folder, "out"), "wb") as out, \
            program([*args, conf, *more], can_connect(("127.0.0.1", port)), log=out, env={**os.environ, **(env or {})}):
        yield port


def nginx(folder, path):
    return nginx_server(folder, path)


LIGHTTPD = """
server.document-root = "FOLDER"
server.bind = "127.0.0.1"
server.port = PORT
server.errorlog = "FOLDER/error.log"
server.upload-dirs = ( "FOLDER" )
server.stream-response-body = 1
server.modules = ( "mod_fastcgi" )
fastcgi.server = (
    "/private/" => (( "socket" => "SOCKET", "mode" => "authorizer", "check-local" => "disable" )),
    "/" => (( "socket" => "SOCKET", "check-local" => "disable" ))
)
"""


def lighttpd(folder, path):
    return server(folder, ["/usr/sbin/lighttpd", "-D", "-f"], LIGHTTPD.replace("SOCKET", path))


APACHE = """
ServerRoot FOLDER
DefaultRuntimeDir FOLDER
PidFile FOLDER/pid
ErrorLog FOLDER/error.log
ServerName localhost
Listen 127.0.0.1:PORT
User www-data
Group www-data
DocumentRoot FOLDER
StartServers 1
ServerLimit 1
ThreadsPerChild 16
MaxRequestWorkers 16
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
""".replace("MODULES", "/usr/lib/apache2/modules")
PROXY = APACHE + """
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_fcgi_module MODULES/mod_proxy_fcgi.so
ProxyPass "/" "unix:SOCKET|fcgi://localhost/" enablereuse=on
""".replace("MODULES", "/usr/lib/apache2/modules")
FCGID = APACHE + """
LoadModule fcgid_module MODULES/mod_fcgid.so
FcgidIPCDir FOLDER
FcgidProcessTableFile FOLDER/fcgid_shm
FcgidMaxRequestLen 50000000
FcgidMinProcessesPerClass 0
FcgidMaxProcessesPerClass 4
FcgidWrapper "RUN" virtual
SetHandler fcgid-script
<Directory FOLDER>
    Options +ExecCGI
</Directory>
<Location /private/>
    FcgidAccessChecker "RUN"
</Location>
""".replace("MODULES", "/usr/lib/apache2/modules")


def apache(folder, text):
    return server(folder, ["/usr/sbin/apache2", "-X", "-f"], text)


def mod_proxy_fcgi(folder, path):
    return apache(folder, PROXY.replace("SOCKET", path))


def mod_fcgid(folder, _):
    """It runs programs itself."""
    return apache(folder, FCGID.replace("RUN", APP))


def mod_fcgid_passing_on(folder, path):
    """The program that it runs passes on to the socket."""
    for module in (tap, recorder):
        with open(module.__file__) as f, open(os.path.join(folder, os.path.basename(module.__file__)), "w") as copy:
            copy.write(f.read())
    return apache(folder, FCGID.replace("RUN", f"/usr/bin/python3 {folder}/tap.py {path}"))


def haproxy(folder, path):
    text = HAPROXY.replace("global\n", "global\n    nbthread 1\n").format(port="PORT", socket=path, server="maxconn 100 pool-max-conn 1\n    http-reuse always",
                          more="option get-values\n    option max-reqs 100\n    log-stderr stdout format raw local0")
    return server(folder, ["/usr/sbin/haproxy", "-db", "-f"], text)


CADDY = """
{
    admin off
    auto_https off
}
http://127.0.0.1:PORT {
    reverse_proxy unix/SOCKET {
        transport fastcgi {
            capture_stderr
            root /
        }
    }
}
"""


def caddy(folder, path):
    home = {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
    return server(folder, ["/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config"], CADDY.replace("SOCKET", path), env=home)


H2O = """
num-threads: 1
USER
pid-file: FOLDER/pid
error-log: FOLDER/error.log
temp-buffer-path: FOLDER
fastcgi.timeout.keepalive: 5000
hosts:
  default:
    listen: {host: 127.0.0.1, port: PORT}
    paths:
      "/":
        fastcgi.connect: {port: SOCKET, type: unix}
"""


def h2o(folder, path):
    return server(folder, ["/usr/bin/h2o", "-m", "worker", "-c"], H2O.replace("SOCKET", path).replace("USER", "user: root" if USER else ""))


@contextlib.contextmanager
def libweir(folder):
    """The program alone, on a socket."""
    path = os.path.join(folder, "app.sock")
    with listening(path) as s, program([APP], stdin=s.fileno()):
        yield path


@contextlib.contextmanager
def weir_front(_):
    """The same, run by Weir and published at its FastCGI front."""
    config = f"listener front {{ address fastcgi+unix:DIR/front.sock; mode 0666 }}\npool app {{ run {APP}; {USER} processes 2; publish front; time {{ silent 20s }} }}\n"
    with Weir(config) as w:
        yield w.dir + "/front.sock"


@contextlib.contextmanager
def in_front(start, program_of, folder, guarded=None):
    os.chmod(folder, 0o777)
    with program_of(folder) as target, Tap(os.path.join(folder, "tap.sock"), target) as t, start(folder, os.path.join(folder, "tap.sock")) as port:
        yield Chain(port, "/matrix", t, lambda: "".join(text_of(os.path.join(folder, f)) for f in ("nginx.err", "error.log", "out")), folder, guarded=guarded)

# SPDX-License-Identifier: MIT
"""Weir and its peers, started pinned to core 0 (or not at all pinned), and the CPU time that their processes take."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BODY = "Hello from the application. This line has exactly one hundred bytes, as each peer's answer here does\n"[:100]
LIBFCGI = r"""
/* libfcgi: argv[1] threads; argv[2] microseconds of work for each request */
#include <fcgiapp.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
static long work;
static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000 + t.tv_nsec / 1000; }
static void *serve(void *a) {
    FCGX_Request r;
    FCGX_InitRequest(&r, 0, 0);
    while (FCGX_Accept_r(&r) >= 0) {
        for (long end = now() + work; work && now() < end;) {}
        FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%s", "BODY");
        FCGX_Finish_r(&r);
    }
    return a;
}
int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 80;
    work = argc > 2 ? atol(argv[2]) : 0;
    FCGX_Init();
    for (pthread_t t; threads > 1; threads--) pthread_create(&t, 0, serve, 0);
    serve(0);
}
"""
LONG_HEAD = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.9,de;q=0.8", "Accept-Encoding": "gzip, deflate, br", "Cache-Control": "no-cache", "Pragma": "no-cache",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; visitor=9876543210", "Referer": "http://127.0.0.1/some/page?with=query",
    "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Upgrade-Insecure-Requests": "1"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_us(pids):
    total = 0
    for p in pids:
        try:
            with open(f"/proc/{p}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total * 1e6 / os.sysconf("SC_CLK_TCK")


def processes():
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    yield int(p), f.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                pass


class Stack:
    """One way to serve. pinned: to core 0; the load generators run on core 1."""

    def __init__(self, name, d, pinned=True):
        self.name, self.dir, self.port, self.running, self.pinned, self.sockets = name, d, free_port(), [], pinned, []

    def start(self, args, **kw):
        pin = ["taskset", "-c", "0"] if self.pinned else []
        p = subprocess.Popen([*pin, *args], stdin=kw.pop("stdin", subprocess.DEVNULL), stdout=subprocess.DEVNULL,
                             stderr=open(os.path.join(self.dir, re.sub(r"\W", "_", self.name) + ".log"), "ab"), **kw)
        self.running.append(p)

    def ready(self, path="/hello.php"):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                    s.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
                    if s.recv(100).startswith(b"HTTP/1.1 200"):
                        return self
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"{self.name} does not answer")

    def stop(self):
        for p in self.running:
            p.send_signal(signal.SIGINT if self.name.startswith("weir") else signal.SIGTERM)
        for p in self.running:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
        self.running = []

    def status(self):
        """What weir says of itself."""
        out = subprocess.run([self.weir, "status", "--json", "--socket", self.control], capture_output=True, text=True, check=True).stdout
        return json.loads(out)


def new_folder():
    import tempfile
    d = tempfile.mkdtemp(prefix="weir-bench-", dir="/tmp")
    os.chmod(d, 0o777)
    os.mkdir(d + "/public")
    os.chmod(d + "/public", 0o755)
    with open(d + "/public/hello.php", "w") as f:
        f.write(f"<?php header('Content-Type: text/plain'); echo \"{BODY}\";")
    with open(d + "/public/big.php", "w") as f:
        f.write("<?php header('Content-Type: text/plain'); echo str_repeat('x', 1 << 20);")
    return d


def weir(build, d, name, pool, log=False, threads=1, pinned=True, site="", program=""):
    """pool: the words of one pool block; site, program: more of those blocks."""
    s = Stack(name, d, pinned)
    s.weir, s.control = os.path.join(build, "src/cli/weir"), f"{d}/c-{s.port}.sock"
    conf = os.path.join(d, f"weir-{s.port}.conf")
    action = "php" if pool.startswith("php") else "pool"
    with open(conf, "w") as f:
        f.write(f"weir {{ threads {threads}; log {d + '/weir.access' if log else 'off'}; control {s.control}; temp {d}; {program} }}\n"
                f"site a {{ listen http://127.0.0.1:{s.port}; root {d}/public; {action} app; {site} }}\npool app {{ {pool} }}\n")
    s.start([s.weir, "serve", "-c", conf])
    return s


def certificate(d):
    if not os.path.exists(d + "/a.pem"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=a",
                        "-addext", "subjectAltName=DNS:a", "-keyout", d + "/a.key", "-out", d + "/a.pem"], check=True, capture_output=True)
    with open(d + "/public/small.txt", "w") as f:
        f.write(BODY)
    return d + "/a"


def with_tls(d, build):
    """The same small file from Weir, nginx and h2o: `tls_port` speaks HTTP/1.1 and HTTP/2 by TLS, `port` HTTP in clear text (Weir and h2o: HTTP/2, too)."""
    path, ports = certificate(d), [free_port() for _ in range(3)]
    ours = weir(build, d, "weir", "run " + bench_app(build, d, 1)[4:], site=f"route /small.txt {{ files }}")
    ours.stop()
    conf = f"{d}/weir-{ours.port}.conf"
    with open(conf) as f:
        text = f.read().replace("site a {", f"listener s {{ address https://127.0.0.1:{ports[0]} }}\nsite s {{ listen s; root {d}/public; tls {path} }}\nsite a {{")
    with open(conf, "w") as f:
        f.write(text)
    ours.start([ours.weir, "serve", "-c", conf])
    theirs = nginx(d, False, f"listen 127.0.0.1:{ports[1]} ssl http2 backlog=4096; ssl_certificate {path}.pem; ssl_certificate_key {path}.key; root {d}/public; location / {{ }}",
                   name="nginx")
    h2o = Stack("h2o", d)
    with open(f"{d}/h2o.conf", "w") as f:
        f.write(f"num-threads: 1\nuser: root\nhosts:\n  default:\n    listen:\n      port: {h2o.port}\n      host: 127.0.0.1\n    paths:\n      /:\n        file.dir: {d}/public\n"
                f"  a:\n    listen:\n      port: {ports[2]}\n      host: 127.0.0.1\n      ssl:\n        certificate-file: {path}.pem\n        key-file: {path}.key\n"
                f"    paths:\n      /:\n        file.dir: {d}/public\n")
    h2o.start(["/usr/bin/h2o", "-c", f"{d}/h2o.conf"])
    for s, p in zip((ours, theirs, h2o), ports):
        s.tls_port = p
    return ours, theirs, h2o


def bench_app(build, d, count, args=""):
    """The pool of `count` processes of our app; a program of its own name for each, to tell them apart."""
    path = f"{d}/bench_app_{count}_{free_port()}"
    shutil.copy(os.path.join(build, "examples/bench_app"), path)
    return f"run {path} {args}; user weir-demo; processes {count}"


def nginx(d, log, server, http="", name="nginx", pinned=True):
    s = Stack(name, d, pinned)
    base = f"{d}/nginx-{s.port}"
    temp = "".join(f"{k}_temp_path {base}-{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(base + ".conf", "w") as f:
        f.write(f"user root; worker_processes 1; daemon off; pid {base}.pid; error_log {base}.err; events {{ worker_connections 20000; }}\n"
                f"http {{ access_log {d + '/nginx.access' if log else 'off'}; keepalive_requests 1000000000; {temp} {http}\n"
                f"server {{ listen 127.0.0.1:{s.port} backlog=4096; {server} }} }}\n")
    s.start(["/usr/sbin/nginx", "-c", base + ".conf"])
    return s


def nginx_return(d, log=False):
    return nginx(d, log, f"location / {{ return 200 \"{BODY}\"; }}", name="nginx return 200")


def libfcgi_program(d):
    path = f"{d}/libfcgi_app"
    if not os.path.exists(path):
        subprocess.run(["gcc", "-O2", "-x", "c", "-", "-o", path, "-lfcgi", "-lpthread"], input=LIBFCGI.replace("BODY", BODY).encode(), check=True)
    return path


def nginx_libfcgi(d, log=False, keep=0, count=1, threads=80, work=0, name=None):
    """nginx in front of `count` libfcgi processes that share a socket. keep: connections that nginx keeps."""
    return nginx_app(d, [libfcgi_program(d), str(threads), str(work)], log, keep, count, name or "nginx + libfcgi" + (", kept connections" if keep else ""))


def nginx_app(d, args, log, keep, count, name):
    sock = f"{d}/app-{free_port()}.sock"
    params = "include /etc/nginx/fastcgi_params; fastcgi_pass app; " + ("fastcgi_keep_conn on;" if keep else "")
    s = nginx(d, log, f"location / {{ {params} }}", f"upstream app {{ server unix:{sock}; {f'keepalive {keep};' if keep else ''} }}",
              name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sock)
        os.chmod(sock, 0o777)
        listener.listen(4096)
        for _ in range(count):
            s.start(args, stdin=listener.fileno())
    return s


def tree(pid):
    kids = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                with open(f"/proc/{p}/stat") as f:
                    kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(p))
            except OSError:
                pass
    todo, out = [pid], []
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def group_pids(stack):
    """Web and app processes below what this stack started."""
    web, app = [], []
    lines = dict(processes())
    for p in stack.running:
        for pid in tree(p.pid):
            line = lines.get(pid, "")
            if re.search(r"weir gateway|nginx|h2o", line):
                web.append(pid)
            elif re.search(r"bench_app|libfcgi_app|php-cgi", line):
                app.append(pid)
    return {"web": web, "app": app}



#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The loss oracle: clients with unique ids ask without a pause while Weir is reloaded, restarted, scaled and upgraded.

Each request has an id. The app notes it in a file as its first act (one write with O_APPEND); the answer tells the id and how
long the body was. Each id must be answered exactly once (200, its own id, its whole body) and stand exactly once in the file;
an event stream that was open before a gateway or root part was replaced must go on to its end.

Clients: GET and POST, connections that are kept as long as the server keeps them, new ones for each request, bodies sent slowly,
answers read slowly; apps: a libweir one (multiplexed), php-fpm, and one that serves one request at a time (FCGI.pm).
"""
import argparse
import asyncio
import collections
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

PHP = ("<?php file_put_contents($_SERVER['WEIR_TEST_IDS'], $_SERVER['QUERY_STRING'] . ' ' . getmypid() . \"\\n\", FILE_APPEND);"
       "$n = strlen(file_get_contents('php://input')); usleep(rand(1, 20) * 1000); echo $_SERVER['QUERY_STRING'], ' ', $n, \"\\n\";")
PERL = """#!/usr/bin/perl
use FCGI;
my ($r, $ids) = (FCGI::Request(), $ENV{WEIR_TEST_IDS});
while ($r->Accept() >= 0) {
    open(my $f, '>>', $ids); syswrite($f, "$ENV{QUERY_STRING} $$\\n"); close($f);
    my $n = 0; my $b; while (read(STDIN, $b, 65536)) { $n += length($b); }
    select(undef, undef, undef, rand(0.02));
    print "Content-Type: text/plain\\r\\n\\r\\n$ENV{QUERY_STRING} $n\\n";
}
"""
CONFIG = """
site a {{ listen http://127.0.0.1:PORT; root public
    route /app/ {{ pool app }}
    route /php/ {{ php php }}
    route /perl/ {{ pool perl }}
}}
defaults pool {{ {user} env WEIR_TEST_IDS DIR/run/keep-ids; queue 1000 30s }}
pool app {{ run ./threads_app; processes 2; env VERSION {app} }}
pool php {{ php; workers 3; env VERSION {php} }}
pool perl {{ run ./one.pl; processes 3; env VERSION {perl} }}
{extra}
"""


class Oracle:
    def __init__(self, weir, clients, seed):
        self.weir, self.random, self.clients = weir, random.Random(seed), clients
        self.next_id = 0
        self.answered, self.good = {}, set()
        self.bad = []
        self.stop = False
        self.why = ""
        self.kinds = collections.Counter()
        self.longest = 0

    def fail(self, rid, what):
        self.bad.append(f"{rid} ({self.why}): {what}")

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.weir.port)

    async def answer(self, reader, rid, length, slow):
        """The body, and whether the connection is kept."""
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if slow:
            await asyncio.sleep(self.random.random() * 0.1)
        m = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if m:
            body = await reader.readexactly(int(m.group(1)))
        elif re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            body = b""
            while True:
                n = int(await reader.readline(), 16)
                body += await reader.readexactly(n)
                await reader.readline()
                if not n:
                    break
        else:
            body = await reader.read()
        if status != 200 or body != f"id={rid} {length}\n".encode():
            self.fail(rid, f"{status} {body[:100]!r}")
        elif rid in self.answered:
            self.fail(rid, "answered twice")
        else:
            self.good.add(rid)
        self.answered[rid] = True
        return not re.search(rb"(?i)\r\nconnection: *close", head) and (m or b"chunked" in head)

    async def one(self, conn, app, kind):
        r = self.random
        self.next_id += 1
        rid = f"{app}{self.next_id}"
        length = r.choice([0, 10, 5000, 100000]) if kind != "get" else 0
        path = {"app": f"/app/once/{r.randint(0, 20)}", "php": "/php/w.php", "perl": "/perl/x"}[app]
        reader, writer = conn
        head = f"{'POST' if kind != 'get' else 'GET'} {path}?id={rid} HTTP/1.1\r\nHost: a\r\n"
        if kind != "get":
            head += f"Content-Length: {length}\r\n"
        if kind == "new":
            head += "Connection: close\r\n"
        begun = time.monotonic()
        self.kinds[app + " " + kind] += 1
        try:
            writer.write(head.encode() + b"\r\n")
            for at in range(0, length, 20000):
                writer.write(b"x" * min(20000, length - at))
                await writer.drain()
                if kind == "slow":
                    await asyncio.sleep(r.random() * 0.05)
            return await asyncio.wait_for(self.answer(reader, rid, length, kind == "slow"), 60)
        except (OSError, EOFError, asyncio.TimeoutError, ValueError) as e:
            self.fail(rid, repr(e))
            return False
        finally:
            self.longest = max(self.longest, time.monotonic() - begun)

    async def client(self, app, kind):
        conn = None
        while not self.stop:
            try:
                conn = conn or await self.connect()
            except OSError as e:
                self.fail("-", f"connect: {e!r}")
                continue
            if not await self.one(conn, app, kind):
                conn[1].close()
                conn = None
            elif self.random.random() < 0.3:
                await asyncio.sleep(self.random.random() * 0.3)
        if conn:
            conn[1].close()

    async def stream(self, count):
        """An event stream that others are not to break: all of its lines came."""
        reader, writer = await self.connect()
        writer.write(f"GET /app/ticks/{count}/20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        try:
            body = await asyncio.wait_for(reader.read(), 120)
            if body.count(b"data: ") != count or not body.endswith(b"0\r\n\r\n"):
                self.fail("stream", f"{body.count(b'data: ')} of {count} events")
        except (OSError, asyncio.TimeoutError) as e:
            self.fail("stream", repr(e))
        writer.close()

    async def run(self, operations, apps=("app", "php", "perl"), patience=50):
        tasks = [asyncio.create_task(self.client(app, kind)) for app in apps for kind in ("get", "post", "new", "slow")
                 for _ in range(self.clients)]
        loop = asyncio.get_running_loop()
        for name, times, operate in operations:
            self.why = name
            for i in range(times):
                before = self.next_id
                stream = asyncio.create_task(self.stream(50)) if "upgrade" in name and i % 5 == 0 else None
                if stream:
                    await asyncio.sleep(0.1)
                try:
                    await loop.run_in_executor(None, operate, i)
                except AssertionError as e:
                    self.fail(name, f"time {i}: {e}")
                while self.next_id < before + 20 * self.clients:
                    await asyncio.sleep(0.01)
                if stream:
                    await stream
                if len(self.bad) > patience:
                    break
        self.stop = True
        await asyncio.gather(*tasks)


def operations(weir, times, wait_for, user):
    """name, how often, what: each returns when what it asked for has come about."""
    version = {"app": 0, "php": 0, "perl": 0}
    extra = [0]

    def command(*args):
        r = weir.command(*args)
        assert r.returncode == 0, (args, r.stdout, r.stderr)

    def pool_pids(name):
        p = weir.pool(name)
        return {u["pid"] for u in p["processes"] if u["state"] == "ready"} if p else set()

    def all_new(name, before):
        wait_for(lambda: pool_pids(name) and not pool_pids(name) & before)

    def configure():
        weir.configure(CONFIG.format(user=user, extra="".join(f"pool x{i} {{ connect unix:/none }}\n" for i in range(extra[0] % 3)), **version))
        command("reload")

    def pool_reload(i):
        name = ("app", "php", "perl")[i % 3]
        before = pool_pids(name)
        version[name] += 1
        configure()
        all_new(name, before)

    def rolling(i):
        name = ("app", "php", "perl")[i % 3]
        before = pool_pids(name)
        command("restart", name)
        all_new(name, before)

    def scale(i):
        name, n = ("app", "perl")[i % 2], 1 + (i // 2) % 3 + (i % 2) * 2
        command("scale", name, str(n))
        wait_for(lambda: len(pool_pids(name)) == n)

    def gateway_reload(i):
        extra[0] += 1
        configure()

    def gateway_upgrade(i):
        before = weir.gateway()
        wait_for(lambda: len(weir.status()["gateway"]["others"]) < 3, 60)
        command("restart", "gateway")
        wait_for(lambda: weir.gateway() not in (None, before))

    def root_upgrade(i):
        before, old = weir.gateway(), weir.status()["control_pid"]
        wait_for(lambda: len(weir.status()["gateway"]["others"]) < 3, 60)
        command("upgrade")
        wait_for(lambda: (weir.status() or {"control_pid": old})["control_pid"] != old)
        wait_for(lambda: weir.gateway() not in (None, before))

    return [("pool reload", times, pool_reload), ("rolling restart", times, rolling), ("scale", times, scale), ("gateway reload", times, gateway_reload),
            ("gateway upgrade", times, gateway_upgrade), ("supervisor upgrade", times, root_upgrade)]


NGINX = """
worker_processes 2; daemon off; pid {d}/nginx.pid; error_log {d}/nginx.err; user weir-demo;
events {{ worker_connections 500; }}
http {{
    access_log off; client_body_temp_path {d}/n1; proxy_temp_path {d}/n2; fastcgi_temp_path {d}/n3; uwsgi_temp_path {d}/n4; scgi_temp_path {d}/n5;
    server {{ listen 127.0.0.1:{port}; location / {{ include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME {d}/w.php;
        fastcgi_param WEIR_TEST_IDS {d}/ids; fastcgi_pass unix:{d}/fpm.sock; }} }}
}}
"""
FPM = """[global]
error_log = {d}/fpm.log
pid = {d}/fpm.pid
daemonize = no
{global}
[www]
user = weir-demo
listen = {d}/fpm.sock
listen.owner = weir-demo
pm = static
pm.max_children = 4
"""


class Peer:
    """PHP-FPM behind nginx, as most run PHP today."""

    def __init__(self, port, more):
        import subprocess
        import tempfile
        self.dir, self.port = tempfile.mkdtemp(prefix="weir-peer-", dir="/tmp"), port
        os.chmod(self.dir, 0o777)
        for name, text in (("nginx.conf", NGINX.format(d=self.dir, port=port)), ("fpm.conf", FPM.format(d=self.dir, **{"global": more})),
                           ("w.php", PHP.replace("rand(1, 20)", "20")), ("ids", "")):
            with open(os.path.join(self.dir, name), "w") as f:
                f.write(text)
        os.chmod(os.path.join(self.dir, "ids"), 0o666)
        self.fpm = subprocess.Popen(["/usr/sbin/php-fpm8.2", "-F", "-y", self.dir + "/fpm.conf"], stderr=subprocess.DEVNULL)
        self.nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", self.dir + "/nginx.conf"], stderr=subprocess.DEVNULL)

    def end(self):
        import shutil
        for p in (self.nginx, self.fpm):
            p.terminate()
            p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def compare(o, free_port, wait_for, can_connect):
    """The same oracle for its reload (SIGUSR2), as it comes and with process_control_timeout."""
    import signal
    for title, more in (("as it comes", ""), ("process_control_timeout 10s", "process_control_timeout = 10s")):
        peer = Peer(free_port(), more)
        try:
            wait_for(lambda: os.path.exists(peer.dir + "/fpm.sock") and can_connect(("127.0.0.1", peer.port))(), 30)
            oracle = Oracle(peer, o.clients * 2, o.seed)

            def workers():
                with open(f"/proc/{peer.fpm.pid}/task/{peer.fpm.pid}/children") as f:
                    return set(f.read().split())

            def reload(_i):
                before = workers()
                peer.fpm.send_signal(signal.SIGUSR2)
                wait_for(lambda: len(workers()) >= 4 and not workers() & before, 30)

            asyncio.run(oracle.run([("php-fpm SIGUSR2", o.times, reload)], ("php",), 1 << 30))
            ran = collections.Counter()
            with open(peer.dir + "/ids") as f:
                for line in f:
                    ran[line.split()[0][3:]] += 1
            lost = len({b.split()[0] for b in oracle.bad})
            print(f"peer: nginx and php-fpm 8.2, {title}: {o.times} x SIGUSR2: {oracle.next_id} requests, {lost} failed; "
                  f"{sum(1 for rid in ran if rid not in oracle.good)} of those that ran were not answered, {sum(1 for n in ran.values() if n > 1)} ran twice")
        finally:
            peer.end()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--times", type=int, default=50, help="each operation so often")
    p.add_argument("--clients", type=int, default=2, help="of each kind for each app")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", help="one operation")
    p.add_argument("--peer", action="store_true", help="the same for php-fpm behind nginx, instead")
    o = p.parse_args()
    os.environ["WEIR_BUILD"] = os.path.abspath(o.build)
    from weirlib import TEST_APPS, USER, Weir, can_connect, free_port, wait_for
    import shutil
    if o.peer:
        compare(o, free_port, wait_for, can_connect)
        return 0
    user = USER
    with Weir(CONFIG.format(user=user, extra="", app=0, php=0, perl=0), {"public/php/w.php": PHP, "one.pl": PERL}, wait=False) as w:
        shutil.copy(os.path.join(TEST_APPS, "threads_app"), w.dir)
        path = w.run_dir + "/keep-ids"
        open(path, "w").close()
        os.chmod(path, 0o666)
        wait_for(lambda: "ready. Ctrl-C" in w.log(), 60)
        oracle = Oracle(w, o.clients, o.seed)
        begun = time.monotonic()
        ops = [x for x in operations(w, o.times, wait_for, user) if not o.only or x[0] == o.only]
        asyncio.run(oracle.run(ops))
        took = time.monotonic() - begun
        ran = collections.Counter()
        with open(path) as f:
            for line in f:
                ran[line.split()[0][3:]] += 1
        bad = oracle.bad
        bad += [f"{rid} ran {n} times" for rid, n in ran.items() if n != 1]
        bad += [f"{rid} was answered and never ran" for rid in oracle.answered if rid not in ran]
        bad += [f"{rid} ran and was never answered" for rid in ran if rid not in oracle.answered]
        log = w.log()
    print(f"loss: {o.times} x {', '.join(x[0] for x in ops)}: {len(oracle.answered)} requests in {took:.0f} s, {len(bad)} failures; "
          f"the longest request took {oracle.longest:.2f} s; " + ", ".join(f"{k} {v}" for k, v in sorted(oracle.kinds.items())))
    for b in bad[:30]:
        print("  " + b)
    if bad:
        print(log[-3000:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

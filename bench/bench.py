#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What Weir costs beside its peers: servers on core 0, wrk on core 1, interleaved rounds, medians of CPU µs per request of each
process group. `make bench`; BENCH="--rounds 3 --seconds 4 --case small" narrows it. Results: build-bench/bench/results.{json,md}."""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BODY = "Hello from the application. This line has exactly one hundred bytes, as each peer's answer here does\n"[:100]
LIBFCGI = r"""
#include <fcgiapp.h>
#include <pthread.h>
static void *serve(void *a) {
    FCGX_Request r;
    FCGX_InitRequest(&r, 0, 0);
    while (FCGX_Accept_r(&r) >= 0) {
        FCGX_FPrintF(r.out, "Content-Type: text/plain\r\n\r\n%s", "BODY");
        FCGX_Finish_r(&r);
    }
    return a;
}
int main(void) {
    pthread_t t[80];
    FCGX_Init();
    for (int i = 0; i < 80; i++) pthread_create(&t[i], 0, serve, 0);
    for (int i = 0; i < 80; i++) pthread_join(t[i], 0);
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
    """One way to serve, started pinned to core 0."""

    def __init__(self, name, d):
        self.name, self.dir, self.port, self.running = name, d, free_port(), []

    def start(self, args, **kw):
        p = subprocess.Popen(["taskset", "-c", "0", *args], stdin=kw.pop("stdin", subprocess.DEVNULL), stdout=subprocess.DEVNULL,
                             stderr=open(os.path.join(self.dir, self.name.replace("/", "_") + ".log"), "ab"), **kw)
        self.running.append(p)

    def ready(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                    s.sendall(b"GET /hello.php HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    if s.recv(100).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"{self.name} does not answer")

    def stop(self):
        for p in self.running:
            p.send_signal(signal.SIGINT if "weir" in self.name else signal.SIGTERM)
        for p in self.running:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
        self.running = []


def nginx(d, name, port, server, log, extra=""):
    conf = os.path.join(d, name + ".conf")
    temp = "".join(f"{k}_temp_path {d}/{name}-{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(conf, "w") as f:
        f.write(f"user root; worker_processes 1; daemon off; pid {d}/{name}.pid; error_log {d}/{name}.err; events {{ worker_connections 20000; }}\n"
                f"http {{ access_log {d + '/' + name + '.access' if log else 'off'}; keepalive_requests 1000000000; {temp} {extra}\n"
                f"server {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}\n")
    return ["/usr/sbin/nginx", "-c", conf]


def make_stacks(build, d, log):
    weir = os.path.join(build, "src/cli/weir")
    stacks = []

    def weir_stack(name, pools):
        s = Stack(name, d)
        conf = os.path.join(d, re.sub(r"\W", "_", name) + ".conf")
        with open(conf, "w") as f:
            f.write(f"weir {{ threads 1; log {d + '/weir.access' if log else 'off'}; control {d}/c-{s.port}.sock }}\n"
                    f"site a {{ listen http://127.0.0.1:{s.port}; root {d}/public; {pools} }}\n")
        s.start([weir, "serve", "-c", conf])
        stacks.append(s)

    s = Stack("nginx return 200", d)
    s.start(nginx(d, "n-return", s.port, f"location / {{ return 200 \"{BODY}\"; }}", log))
    stacks.append(s)
    for processes_count in (1, 4):
        app = f"bench_app_{processes_count}"
        shutil.copy(os.path.join(build, "examples/bench_app"), os.path.join(d, app))
        weir_stack(f"weir + libweir app, {processes_count} process{'es' if processes_count > 1 else ''}",
                   f"pool app }}\npool app {{ run {d}/{app}; user weir-demo; processes {processes_count}")
    weir_stack("weir + php-cgi", "php php }\npool php { php; user weir-demo; workers 4")
    subprocess.run(["gcc", "-O2", "-x", "c", "-", "-o", f"{d}/libfcgi_app", "-lfcgi", "-lpthread"], input=LIBFCGI.replace("BODY", BODY).encode(), check=True)
    for keep in (False, True):
        s = Stack("nginx + libfcgi" + (", kept connections" if keep else ""), d)
        sock = f"{d}/libfcgi-{int(keep)}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(sock)
        os.chmod(sock, 0o777)
        listener.listen(4096)
        s.start([f"{d}/libfcgi_app"], stdin=listener.fileno())
        listener.close()
        params = "include /etc/nginx/fastcgi_params; fastcgi_pass app; " + ("fastcgi_keep_conn on;" if keep else "")
        s.start(nginx(d, f"n-fcgi-{int(keep)}", s.port, f"location / {{ {params} }}", log,
                      f"upstream app {{ server unix:{sock}; {'keepalive 64;' if keep else ''} }}"))
        stacks.append(s)
    return stacks


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
            if re.search(r"weir gateway|nginx", line):
                web.append(pid)
            elif re.search(r"bench_app|libfcgi_app|php-cgi", line):
                app.append(pid)
    return {"web": web, "app": app}


def wrk(stack, connections, seconds, head):
    args = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for k, v in (LONG_HEAD if head == "browser" else {}).items():
        args += ["-H", f"{k}: {v}"]
    groups = group_pids(stack)
    before = {g: cpu_us(p) for g, p in groups.items()}
    out = subprocess.run(args + [f"http://127.0.0.1:{stack.port}/hello.php"], capture_output=True, text=True).stdout
    used = {g: cpu_us(p) - before[g] for g, p in groups.items()}
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*", out)

    def ms(percent):
        m = re.search(percent + r"%\s+([\d.]+)(us|ms|s)", out)
        return float(m.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[m.group(2)]
    return {"web": used["web"] / requests, "app": used["app"] / requests, "rps": requests / seconds, "p50": ms("50"), "p99": ms("99"),
            "bad": bad.group(0) if bad else ""}


def syscalls(stack, seconds=2):
    """System calls per request of web and app, by strace in a run of its own."""
    result = {}
    for g, pids in group_pids(stack).items():
        if not pids:
            continue
        args = ["strace", "-c", "-f", "-o", os.path.join(stack.dir, "strace")]
        for p in pids:
            args += ["-p", str(p)]
        tracer = subprocess.Popen(args, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        out = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", f"http://127.0.0.1:{stack.port}/hello.php"], capture_output=True, text=True).stdout
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        with open(os.path.join(stack.dir, "strace")) as f:
            total = [line.split() for line in f if line.rstrip().endswith("total")]
        result[g] = int(total[0][3]) / requests if total else None  # % time, seconds, usecs/call, calls
    return result


def idle_memory(stack, count=10000):
    """Resident bytes of the gateway for each idle keep-alive connection."""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000, max(count + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))

    def rss():
        total = 0
        for p in group_pids(stack)["web"]:
            with open(f"/proc/{p}/statm") as f:
                total += int(f.read().split()[1]) * 4096
        return total
    before, conns = rss(), []
    for i in range(count):
        s = socket.socket()
        s.bind((f"127.0.0.{2 + i % 200}", 0))
        s.connect(("127.0.0.1", stack.port))
        s.sendall(b"GET /hello.php HTTP/1.1\r\nHost: a\r\n\r\n")
        s.recv(1000)
        conns.append(s)
    after = rss()
    for s in conns:
        s.close()
    return (after - before) / count


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=4)
    p.add_argument("--case", default="all", choices=["all", "small", "idle", "syscalls"])
    o = p.parse_args()
    out_dir = os.path.join(o.build, "bench")
    os.makedirs(out_dir, exist_ok=True)
    lines, results = [], {}

    def tell(line):
        print(line, flush=True)
        lines.append(line)
    for log in (False, True):
        d = tempfile.mkdtemp(prefix="weir-bench-", dir="/tmp")
        os.chmod(d, 0o777)
        os.mkdir(d + "/public")
        os.chmod(d + "/public", 0o755)
        with open(d + "/public/hello.php", "w") as f:
            f.write(f"<?php header('Content-Type: text/plain'); echo \"{BODY}\";")
        stacks = make_stacks(os.path.abspath(o.build), d, log)
        try:
            for s in stacks:
                s.ready()
            if o.case in ("all", "small"):
                for connections in (64, 512):
                    for head in ("short", "browser"):
                        runs = {s.name: [] for s in stacks}
                        for _ in range(o.rounds):
                            for s in stacks:
                                runs[s.name].append(wrk(s, connections, o.seconds, head))
                        base = statistics.median(r["web"] + r["app"] for r in runs["nginx return 200"])
                        kept = statistics.median(r["web"] + r["app"] for r in runs["nginx + libfcgi, kept connections"])
                        tell(f"\nc={connections}, {head} head, access log {'on' if log else 'off'}: CPU µs per request, medians of {o.rounds}\n")
                        tell("| stack | web | app | sum | x return | x nginx kept | req/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|---|")
                        for name, r in runs.items():
                            m = {k: statistics.median(x[k] for x in r) for k in ("web", "app", "rps", "p50", "p99")}
                            bad = next((x["bad"] for x in r if x["bad"]), "")
                            total = m["web"] + m["app"]
                            tell(f"| {name} | {m['web']:.2f} | {m['app']:.2f} | {total:.2f} | {total / base:.2f} | {total / kept:.2f} | {m['rps']:.0f} |"
                                 f" {m['p50']:.2f} | {m['p99']:.2f} |{' does not count: ' + bad if bad else ''}")
                            results[f"{name}/{connections}/{head}/{'log' if log else 'nolog'}"] = dict(m, bad=bad)
            weir = next(s for s in stacks if s.name == "weir + libweir app, 1 process")
            if not log and o.case in ("all", "syscalls"):
                for s in (stacks[0], weir):
                    calls = syscalls(s)
                    tell(f"system calls per request at c=64, {s.name}: " + ", ".join(f"{g} {n:.2f}" for g, n in calls.items() if n is not None))
                    results[f"syscalls/{s.name}"] = calls
            if not log and o.case in ("all", "idle"):
                for s in (stacks[0], weir):
                    n = idle_memory(s)
                    tell(f"10,000 idle connections, {s.name}: {n:.0f} bytes resident each")
                    results[f"idle/{s.name}"] = n
        finally:
            for s in stacks:
                s.stop()
            shutil.rmtree(d, ignore_errors=True)
    with open(os.path.join(out_dir, "results.json"), "w") as f:
        json.dump(results, f, indent=1)
    with open(os.path.join(out_dir, "results.md"), "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

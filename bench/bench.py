#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What Weir costs beside its peers: servers on core 0, load on core 1, interleaved rounds, medians. CPU µs per request of each process
group is the figure to steer by. `make bench`; BENCH="--rounds 3 --seconds 4 --case small" narrows it. Results: build-bench/bench/results.{json,md}."""
import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

import stacks
sys.path.insert(0, os.path.join(stacks.ROOT, "tests/system"))
from stage import staged
from stacks import LONG_HEAD, cpu_us, group_pids

ROOT = stacks.ROOT


class Results:
    """What is told, and kept for the files."""

    def __init__(self):
        self.lines, self.values, self.goals = [], {}, []

    def tell(self, line):
        print(line, flush=True)
        self.lines.append(line)

    def goal(self, name, value, limit, least=False):
        met = value >= limit if least else value <= limit
        self.values[name] = value
        self.goals.append((name, value, limit, met))
        self.tell(f"{name}: {value:.2f} (goal {'>=' if least else '<='} {limit}: {'met' if met else 'MISSED'})")

    def write(self, folder):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "results.json"), "w") as f:
            json.dump({"values": self.values, "goals": [dict(zip(("name", "value", "limit", "met"), g)) for g in self.goals]}, f, indent=1)
        with open(os.path.join(folder, "results.md"), "w") as f:
            f.write("\n".join(self.lines) + "\n")


# ---- load ----

def wrk(stack, connections, seconds, head, path="/hello.php"):
    args = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for k, v in (LONG_HEAD if head == "browser" else {}).items():
        args += ["-H", f"{k}: {v}"]
    groups = group_pids(stack)
    before = {g: cpu_us(p) for g, p in groups.items()}
    out = subprocess.run(args + [f"http://127.0.0.1:{stack.port}{path}"], capture_output=True, text=True).stdout
    used = {g: cpu_us(p) - before[g] for g, p in groups.items()}
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*", out)

    def ms(percent):
        m = re.search(percent + r"%\s+([\d.]+)(us|ms|s)", out)
        return float(m.group(1)) * {"us": 0.001, "ms": 1, "s": 1000}[m.group(2)]
    return {"requests": requests, "web": used["web"] / requests, "app": used["app"] / requests, "rps": requests / seconds, "p50": ms("50"), "p99": ms("99"),
            "bad": bad.group(0) if bad else ""}


def load_program(build):
    path = os.path.join(build, "bench", "load")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-o", path, os.path.join(ROOT, "bench/load.c"), "-lm"], check=True)
    return path


def load_args(build, stack, path, seconds, pinned=True, **options):
    args = ["taskset", "-c", "1"] if pinned else []
    args += [os.path.join(build, "bench", "load"), str(stack.port), path, "--seconds", str(seconds)]
    for k, v in options.items():
        args += ["--" + k.replace("_", "-"), str(v)]
    return args


def load(build, stack, path, seconds, pinned=True, **options):
    """bench/load.c: its figures, and the CPU µs per request of web and app."""
    groups = group_pids(stack)
    before = {g: cpu_us(p) for g, p in groups.items()}
    out = json.loads(subprocess.run(load_args(build, stack, path, seconds, pinned, **options), capture_output=True, text=True, check=True).stdout)
    for g, p in groups.items():
        out[g] = (cpu_us(p) - before[g]) / max(out["requests"], 1)
    return out


def median(runs, key):
    return statistics.median(r[key] for r in runs)


# ---- cases ----

def small_stacks(o, d, log):
    ours = [stacks.weir(o.build, d, f"weir + libweir app, {n} process{'es' if n > 1 else ''}", stacks.bench_app(o.build, d, n), log) for n in (1, 4)]
    return [stacks.nginx_return(d, log), *ours, stacks.weir(o.build, d, "weir + php-cgi", "php cgi; user weir-demo; workers 4", log),
            stacks.nginx_libfcgi(d, log), stacks.nginx_libfcgi(d, log, keep=64)]


def small(o, out, d, log):
    """Small answers, kept client connections, the peers side by side. Each round starts its servers anew: how one of them lies in memory
    moves its figures by a tenth, for as long as it lives."""
    settings = [(connections, head) for connections in (64, 512) for head in ("short", "browser")]
    runs = {s: {} for s in settings}
    for _ in range(o.rounds):
        all_stacks = small_stacks(o, d, log)
        try:
            for s in all_stacks:
                s.ready()
            for connections, head in settings:
                for s in all_stacks:
                    runs[connections, head].setdefault(s.name, []).append(wrk(s, connections, o.seconds, head))
        finally:
            for s in all_stacks:
                s.stop()
    for connections, head in settings:
        tell_small(o, out, f"c={connections}, {head} head, access log {'on' if log else 'off'}", runs[connections, head])


def tell_small(o, out, setting, runs):
    total = {name: median(r, "web") + median(r, "app") for name, r in runs.items()}
    base, kept = total["nginx return 200"], total["nginx + libfcgi, kept connections"]
    out.tell(f"\n{setting}: CPU µs per request, medians of {o.rounds}\n")
    out.tell("| stack | web | app | sum | x return | x nginx kept | req/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|---|")
    for name, r in runs.items():
        m = {k: median(r, k) for k in ("web", "app", "rps", "p50", "p99")}
        bad = next((x["bad"] for x in r if x["bad"]), "")
        out.tell(f"| {name} | {m['web']:.2f} | {m['app']:.2f} | {total[name]:.2f} | {total[name] / base:.2f} | {total[name] / kept:.2f} |"
                 f" {m['rps']:.0f} | {m['p50']:.2f} | {m['p99']:.2f} |{' does not count: ' + bad if bad else ''}")
        out.values[f"{name}/{setting}"] = dict(m, bad=bad)
    out.tell("")
    for name in runs:
        if "libweir" not in name:
            continue
        out.goal(f"{name}, {setting}, x nginx return 200", total[name] / base, 1.35)
        out.goal(f"{name}, {setting}, x nginx kept", total[name] / kept, 0.4)


def count_calls(pids, run):
    """System calls of these processes while run() lasts, counted by the kernel's tracepoint (strace slows what it counts)."""
    tracer = subprocess.Popen(["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids))], stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    requests = run()
    tracer.send_signal(2)
    return int(re.search(r"^(\d+),", tracer.communicate()[1], re.M).group(1)) / requests


def syscalls(o, out, d, log):
    if log:
        return
    for s in (stacks.nginx_return(d), stacks.weir(o.build, d, "weir + libweir app", stacks.bench_app(o.build, d, 1))):
        try:
            s.ready()
            for group, pids in group_pids(s).items():
                if not pids:
                    continue
                n = statistics.median(count_calls(pids, lambda: wrk(s, 64, o.seconds, "short")["requests"]) for _ in range(o.rounds))
                name = f"system calls per request, c=64, {s.name}, {group}"
                if s.name.startswith("weir"):
                    out.goal(name, n, 2.5 if group == "web" else 0.4)
                else:
                    out.tell(f"{name}: {n:.2f}")
                    out.values[name] = n
        finally:
            s.stop()


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



def idle(o, out, d, log):
    if log:
        return
    for s in (stacks.nginx_return(d), stacks.weir(o.build, d, "weir + libweir app", stacks.bench_app(o.build, d, 1))):
        try:
            n = idle_memory(s.ready())
            name = f"10,000 idle connections, bytes resident each, {s.name}"
            if s.name.startswith("weir"):
                out.goal(name, n, 512)
            else:
                out.tell(f"{name}: {n:.0f}")
        finally:
            s.stop()


def handler(o, out, d, log):
    """A handler of 200 µs: p99 at 2,000 requests a second (random arrivals) beside nginx with as many handler processes."""
    if log:
        return
    for n in (1, 4):
        pair = [stacks.weir(o.build, d, f"weir + libweir app, {n}", stacks.bench_app(o.build, d, n)),
                stacks.nginx_libfcgi(d, count=n, threads=1, work=200, name=f"nginx + libfcgi, {n}"),
                stacks.nginx_libfcgi(d, keep=n, count=n, threads=1, work=200, name=f"nginx + libfcgi, {n}, kept")]
        try:
            runs = {s.name: [] for s in pair}
            for s in pair:
                s.ready("/work/200")
            for _ in range(o.rounds):
                for s in pair:
                    runs[s.name].append(load(o.build, s, "/work/200", o.seconds, connections=128, rate=2000))
            out.tell(f"\n200 µs handler, 2,000 requests a second, {n} handler process{'es' if n > 1 else ''}\n\n| stack | p50 ms | p99 ms | web µs | app µs | errors |\n|---|---|---|---|---|---|")
            for name, r in runs.items():
                out.tell(f"| {name} | {median(r, 'p50'):.2f} | {median(r, 'p99'):.2f} | {median(r, 'web'):.1f} | {median(r, 'app'):.1f} | {sum(x['errors'] for x in r)} |")
                out.values[f"handler/{name}"] = {"p50": median(r, "p50"), "p99": median(r, "p99")}
            out.tell("")
            out.goal(f"200 µs handler, {n}: p99 of weir x nginx", median(runs[pair[0].name], "p99") / median(runs[pair[1].name], "p99"), 1.0)
        finally:
            for s in pair:
                s.stop()


def two_threads(o, out, d, log):
    """One thread and two, not pinned, at 60 % of what one can do."""
    if log:
        return
    one, two = (stacks.weir(o.build, d, f"weir, {n} thread{'s' if n > 1 else ''}", stacks.bench_app(o.build, d, 1), threads=n, pinned=False) for n in (1, 2))
    try:
        for s in (one, two):
            s.ready()
        most = max(load(o.build, one, "/hello", o.seconds, pinned=False, connections=64)["requests"] / o.seconds for _ in range(2))
        runs = {s.name: [] for s in (one, two)}
        spread = []
        for _ in range(o.rounds):
            for s in (one, two):
                before = [t["requests"] for t in s.status()["gateway"]["threads"]]
                runs[s.name].append(load(o.build, s, "/hello", o.seconds, pinned=False, connections=64, rate=most * 0.6))
                time.sleep(1.2)  # the gateway reports by the second
                served = [t["requests"] - b for t, b in zip(s.status()["gateway"]["threads"], before)]
                if s is two:
                    spread.append((max(served) - min(served)) / max(served))
        out.tell(f"\n60 % of one thread's maximum ({most * 0.6:.0f} requests a second), not pinned\n\n| stack | gateway µs | app µs | p50 ms | p99 ms |\n|---|---|---|---|---|")
        for name, r in runs.items():
            out.tell(f"| {name} | {median(r, 'web'):.2f} | {median(r, 'app'):.2f} | {median(r, 'p50'):.2f} | {median(r, 'p99'):.2f} |")
        out.tell("")
        sums = [median(runs[s.name], "web") + median(runs[s.name], "app") for s in (one, two)]
        out.goal("CPU per request, two threads x one", sums[1] / sums[0], 1.15)
        out.goal("(max-min)/max of requests per thread", statistics.median(spread), 0.15)
    finally:
        one.stop()
        two.stop()


def fair(o, out, d, log):
    """64 clients on 4 workers that serve one request at a time."""
    if log:
        return
    program = stacks.libfcgi_program(d)
    table = [(stacks.weir(o.build, d, "weir + php-cgi", "php cgi; user weir-demo; workers 4"), True),
             (stacks.weir(o.build, d, "weir + libfcgi, 4 processes", f"run {program} 1; user weir-demo; processes 4"), True),
             (stacks.nginx_libfcgi(d, keep=64, count=4, threads=1, name="nginx + libfcgi, 4 processes, kept"), False)]
    try:
        out.tell("")
        for s, ours in table:
            r = load(o.build, s.ready(), "/hello.php", 2 * o.seconds, connections=64)
            name = f"64 clients on 4 workers, least / most answers, {s.name}"
            if ours:
                out.goal(name, r["least"] / max(r["most"], 1), 0.95, least=True)
            else:
                out.tell(f"{name}: {r['least']} / {r['most']}")
    finally:
        for s, _ in table:
            s.stop()


def slow(o, out, d, log):
    """64 clients that read 1 KB/s of a 1 MB page, and a 65th."""
    if log:
        return
    s = stacks.weir(o.build, d, "weir + php-cgi", "php cgi; user weir-demo; workers 4")
    try:
        s.ready()
        quiet, busy = [], []
        for _ in range(o.rounds):
            quiet.append(load(o.build, s, "/hello.php", o.seconds, connections=1))
            readers = subprocess.Popen(load_args(o.build, s, "/big.php", 2 * o.seconds + 2, connections=64, read_rate=1024), stdout=subprocess.DEVNULL)
            time.sleep(1)
            busy.append(load(o.build, s, "/hello.php", o.seconds, connections=1))
            readers.wait()
        out.tell(f"\na 65th client beside 64 that read 1 KB/s: p99 {median(busy, 'p99'):.2f} ms, without them {median(quiet, 'p99'):.2f} ms")
        out.goal("p99 of the 65th client, x quiet", median(busy, "p99") / median(quiet, "p99"), 2.0)
    finally:
        s.stop()


ATTACKS = {"slow heads": ("/hello", ["-H", "-i", "5", "-t", "GET"]), "slow bodies": ("/hello", ["-B", "-i", "5", "-s", "100000", "-t", "POST"]),
           "slow reading": ("/big.bin", ["-X", "-w", "1", "-y", "50", "-z", "5", "-n", "1", "-k", "3"]), "ranges": ("/big.bin", ["-R", "-a", "1", "-b", "3000", "-t", "GET"])}


def attacked(o, out, d, log):
    """slowhttptest with 1,000 connections in its four ways, and a client that asks as people do."""
    if log:
        return
    with open(d + "/public/big.bin", "wb") as f:
        f.write(bytes(3 << 20))
    s = stacks.weir(o.build, d, "weir", stacks.bench_app(o.build, d, 1), site="route /big.bin { files }")
    try:
        s.ready("/hello")
        out.tell("\n1,000 connections of slowhttptest and one more client, in ms\n\n| | p50 quiet | p50 | p99 quiet | p99 | most connections | errors |\n|---|---|---|---|---|---|---|")
        ratios = {}
        for name, (path, args) in ATTACKS.items():
            quiet, busy, most = [], [], 0
            for _ in range(o.rounds):
                quiet.append(load(o.build, s, "/hello", o.seconds, connections=1, rate=500))
                # it gives way to the client on their core: what that client waits for is the server
                p = subprocess.Popen(["taskset", "-c", "1", "chrt", "--idle", "0", "slowhttptest", "-c", "1000", "-r", "1000", "-l", str(o.seconds + 4), *args, "-u", f"http://127.0.0.1:{s.port}{path}"], stdout=subprocess.DEVNULL)
                end = time.monotonic() + 3
                while time.monotonic() < end and most < 1000:
                    most = max(most, s.status()["gateway"]["connections"])
                    time.sleep(0.1)
                busy.append(load(o.build, s, "/hello", o.seconds, connections=1, rate=500))
                p.terminate()
                p.wait()
                while s.status()["gateway"]["connections"]:
                    time.sleep(0.1)
            out.tell(f"| {name} | {median(quiet, 'p50'):.2f} | {median(busy, 'p50'):.2f} | {median(quiet, 'p99'):.2f} | {median(busy, 'p99'):.2f} | {most} | {sum(r['errors'] for r in busy)} |")
            ratios[name] = median(busy, "p99") / median(quiet, "p99")
        out.tell("")
        for name, ratio in ratios.items():
            out.goal(f"{name}: p99 of the other client, x quiet", ratio, 2.0)
    finally:
        s.stop()


def peak_mb(pids):
    total = 0
    for p in pids:
        with open(f"/proc/{p}/status") as f:
            total += int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1))
    return total / 1024


def app_connections(s):
    """Connections that the app has accepted, as the kernel tells: connected unix sockets with the name of its listening one."""
    app = group_pids(s)["app"][0]
    inodes = {os.readlink(f"/proc/{app}/fd/{f}")[8:-1] for f in os.listdir(f"/proc/{app}/fd")}
    with open("/proc/net/unix") as f:
        sockets = [line.split() for line in f]
    return sum(len(x) == 8 and x[6] in inodes and x[5] == "03" for x in sockets)


class Uploader:
    """A client that sends a body of 1 GB as fast as it is taken, for as long as the block lasts."""

    def __init__(self, port, path):
        self.sent, self.socket = 0, socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n".encode())
        self.thread = threading.Thread(target=self.run)

    def run(self):
        block = b"u" * 65536
        try:
            while True:
                self.sent += self.socket.send(block)
        except OSError:
            pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *why):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def stalled(o, out, d, log):
    """98 clients on one connection to one process, with and without one that reads 1 KB/s of 1 GB and one whose upload nobody reads."""
    if log:
        return
    s = stacks.weir(o.build, d, "weir + libweir app", stacks.bench_app(o.build, d, 1), site="body { max 4G; stream yes }")
    try:
        s.ready()
        quiet, busy = [], []
        for _ in range(o.rounds):
            quiet.append(load(o.build, s, "/hello", o.seconds, connections=98))
            reader = subprocess.Popen(load_args(o.build, s, "/big/1000000000", 2 * o.seconds + 2, connections=1, read_rate=1024), stdout=subprocess.DEVNULL)
            with Uploader(s.port, "/hold"):
                time.sleep(1)
                busy.append(load(o.build, s, "/hello", o.seconds, connections=98))
                connections = app_connections(s)
            reader.wait()
        memory = {g: peak_mb(p) for g, p in group_pids(s).items()}
        out.tell(f"\n98 clients beside a reader of 1 KB/s and an upload that nobody reads, {connections} connection(s) to the app: p99 {median(busy, 'p99'):.2f} ms, without them"
                 f" {median(quiet, 'p99'):.2f} ms; errors {sum(r['errors'] for r in busy)}")
        out.goal("connections to the app", connections, 1)
        out.goal("p99 of 98 beside two stalled ones, x without them", median(busy, "p99") / median(quiet, "p99"), 1.5)
        for group, mb in memory.items():
            out.goal(f"MB resident at most beside stalled streams, {group}", mb, 64)
    finally:
        s.stop()


def in_flight(o, out, d, log):
    """10,000 requests at once on one connection to one process."""
    if log:
        return
    s = stacks.weir(o.build, d, "weir + libweir app", stacks.bench_app(o.build, d, 1, "20000") + "; queue 20000 60s", program="connections 20000")
    try:
        s.ready()
        r = load(o.build, s, "/sleep/4000", 9, connections=10000)
        connections = app_connections(s)
        memory = {g: peak_mb(p) for g, p in group_pids(s).items()}
        out.tell(f"\n10,000 requests of 4 s at once, {connections} connection(s) to the app: {r['requests']} answers in 9 s, {r['errors']} errors, p99 {r['p99']:.0f} ms")
        out.goal("connections to the app, 10,000 in flight", connections, 1)
        out.goal("answers of 10,000 at once", min(r["requests"], 10000) if not r["errors"] else 0, 10000, least=True)
        out.goal("MB resident at most with 10,000 in flight, app", memory["app"], 100)
        out.goal("MB resident at most with 10,000 in flight, gateway", memory["web"], 100)
    finally:
        s.stop()


def library(o, out, d, log):
    """What the library itself costs: the app's side behind the same nginx, beside libfcgi, and behind our gateway."""
    if log:
        return
    program = f"{d}/bench_app_shared"
    shutil.copy(os.path.join(o.build, "examples/bench_app"), program)
    table = [stacks.nginx_libfcgi(d, keep=64, threads=80), stacks.nginx_app(d, [program], False, 64, 1, "nginx + libweir, kept connections"),
             stacks.weir(o.build, d, "weir + libweir app", stacks.bench_app(o.build, d, 1))]
    try:
        runs = {s.name: [] for s in table}
        for s in table:
            s.ready()
        for _ in range(o.rounds):
            for s in table:
                runs[s.name].append(wrk(s, 64, o.seconds, "short"))
        libfcgi, libweir, gateway = (median(runs[s.name], "app") for s in table)
        out.tell(f"\napp-side CPU µs per request, c=64: libfcgi behind nginx {libfcgi:.2f}, libweir behind the same nginx {libweir:.2f}, libweir behind weir {gateway:.2f}")
        out.goal("libweir behind nginx, x libfcgi", libweir / libfcgi, 0.5)
        out.goal("libweir behind weir, µs", gateway, 1.5)
    finally:
        for s in table:
            s.stop()


def h2load(s, url, seconds, *args):
    """Answers per CPU second of the server."""
    pids = group_pids(s)["web"]
    before = cpu_us(pids)
    out = subprocess.run(["taskset", "-c", "1", "h2load", f"-D{seconds}", "-t1", *args, url], capture_output=True, text=True).stdout
    done, failed = re.search(r"(\d+) succeeded, (\d+) failed", out).groups()
    return {"per_second": int(done) / ((cpu_us(pids) - before) / 1e6), "failed": int(failed)}


def secure(o, out, d, log):
    """A small file by TLS and by HTTP/2, from Weir, nginx and h2o: answers per CPU second."""
    if log:
        return
    table = stacks.with_tls(d, o.build)
    kinds = {"HTTP/1.1 and TLS, c=64": ["--h1", "-c64"], "HTTP/2 and TLS, c=16 m=16": ["-c16", "-m16"], "HTTP/2 and TLS, c=64 m=1": ["-c64", "-m1"]}
    try:
        runs = {(k, s.name): [] for k in kinds for s in table}
        for s in table:
            s.ready("/small.txt")
        for _ in range(o.rounds):
            for k, args in kinds.items():
                for s in table:
                    runs[k, s.name].append(h2load(s, f"https://127.0.0.1:{s.tls_port}/small.txt", o.seconds, *args))
        out.tell("\na small file: answers per CPU second of the server\n\n| | " + " | ".join(s.name for s in table) + " |\n|---" * 1 + "|---" * len(table) + "|")
        for k in kinds:
            m = {s.name: median(runs[k, s.name], "per_second") for s in table}
            failed = sum(r["failed"] for s in table for r in runs[k, s.name])
            out.tell(f"| {k} | " + " | ".join(f"{v:.0f}" for v in m.values()) + " |" + (f" {failed} failed" if failed else ""))
            out.values[k] = m
        out.tell("")
        for k in kinds:
            m = out.values[k]
            for peer in ("nginx", "h2o"):
                out.goal(f"{k}: answers per CPU second, x {peer}", m["weir"] / m[peer], 1.0, least=True)
    finally:
        for s in table:
            s.stop()


CASES = {f.__name__: f for f in (small, syscalls, idle, handler, two_threads, fair, slow, attacked, stalled, in_flight, library, secure)}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=4)
    p.add_argument("--case", default="all", choices=["all", *CASES])
    o = p.parse_args()
    folder = os.path.abspath(o.build)
    o.build = staged(folder)
    load_program(o.build)
    out = Results()
    for log in (False, True):
        d = stacks.new_folder()
        try:
            for name, case in CASES.items():
                if o.case in ("all", name):
                    case(o, out, d, log)
        finally:
            shutil.rmtree(d, ignore_errors=True)
    missed = [g for g in out.goals if not g[3]]
    out.tell(f"\n{len(out.goals) - len(missed)} goals met, {len(missed)} missed")
    out.write(os.path.join(folder, "bench"))


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Very many pools: one included file with a pool and its site for each, on demand, nearly all of them idle. Prints what the
root part and control keep in memory, the CPU that they take while nobody asks, and what a reload costs that changes one file:
control's CPU time, the gateway's, and the requests that were served meanwhile."""
import argparse
import http.client
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from clients import Clients


PHP = "php\n    workers 0..2\n    php-admin-value memory_limit 64M"


def pool_text(name, port, user, more="", what=None):
    what = what or f"run ../demo {name}\n    processes 0..1"
    return (f"pool {name} {{\n    {what}\n    {user}\n    time {{ idle 1h }}\n    {more}\n}}\n"
            f"site {name}.test {{\n    listen http://127.0.0.1:{port}\n    pool {name}\n}}\n")


def name_of(i):
    return f"p{i:04d}"


def write_pools(weir, count, user, what=None):
    for i in range(count):
        weir.write(f"pools/{name_of(i)}.conf", pool_text(name_of(i), weir.port, user, what=what))


MAIN = "site main {{ listen http://127.0.0.1:PORT; pool main }}\npool main {{ run ./demo; {user} }}\ninclude pools/*.conf\n"


def memory(pid):
    """Resident bytes, and those bytes with shared pages told in parts."""
    rss = pss = 0
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            if line.startswith("Rss:"):
                rss = int(line.split()[1]) * 1024
            if line.startswith("Pss:"):
                pss = int(line.split()[1]) * 1024
    return rss, pss


def cpu_ns(pid):
    """What the threads of a process have run, to the nanosecond."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Latency(Clients):
    """Clients on kept connections: how long each request took."""

    def __init__(self, weir, clients=4):
        super().__init__(*[self.run] * clients)
        self.weir, self.times, self.bad = weir, [], []

    def run(self):
        c = http.client.HTTPConnection("127.0.0.1", self.weir.port, timeout=60)
        while not self.stop.is_set():
            begin = time.monotonic()
            c.request("GET", "/hello", headers={"Host": "main"})
            r = c.getresponse()
            r.read()
            self.times.append(time.monotonic() - begin)
            if r.status != 200:
                self.bad.append(r.status)
            time.sleep(0.002)

    def percentile(self, share):
        times = sorted(self.times)
        return times[min(len(times) - 1, int(len(times) * share))] * 1000


def reload_cost(weir, change):
    """CPU milliseconds of control, of the root part, of the gateway, and wall milliseconds of the command."""
    s = weir.status()
    pids = (s["control_pid"], weir.process.pid, s["gateway"]["pid"])
    version = s["configuration"]
    change()
    before = [cpu_ns(p) for p in pids]
    begin = time.monotonic()
    r = weir.command("reload")
    took = time.monotonic() - begin
    assert r.returncode == 0, r.stderr
    while weir.get("/hello", host="main").status != 200 or cpu_ns(pids[2]) - before[2] < 1000:
        time.sleep(0.01)
    time.sleep(0.3)  # the gateway takes it meanwhile
    after = [cpu_ns(p) for p in pids]
    assert weir.status()["configuration"] == version + 1
    return [(b - a) / 1e6 for a, b in zip(before, after)] + [took * 1000]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--pools", type=int, default=2000)
    p.add_argument("--idle", type=float, default=10)
    p.add_argument("--php", action="store_true")
    o = p.parse_args()
    what = PHP if o.php else None
    os.environ["WEIR_BUILD"] = os.path.abspath(o.build)
    from weirlib import USER, Weir, wait_for
    begin = time.monotonic()
    with Weir(MAIN.format(user=USER), prepare=lambda w: write_pools(w, o.pools, USER, what)) as w:
        print(f"pools: {o.pools}, ready after {time.monotonic() - begin:.2f} s")
        control, gateway = w.status()["control_pid"], w.gateway()
        for name, pid in (("root part", w.process.pid), ("control", control), ("gateway", gateway)):
            rss, pss = memory(pid)
            print(f"  {name}: {rss / 2**20:.1f} MiB resident, {pss / 2**20:.1f} MiB of its own part, CPU until now {cpu_ns(pid) / 1e6:.0f} ms")
        pids = (w.process.pid, control)
        before = [cpu_ns(x) for x in pids], [ticks(x) for x in pids]
        time.sleep(o.idle)
        print(f"  idle for {o.idle:.0f} s: {[ticks(x) - b for x, b in zip(pids, before[1])]} ticks, "
              f"{[(cpu_ns(x) - b) // 1000 for x, b in zip(pids, before[0])]} µs of CPU (root part, control)")
        with Latency(w) as calm:
            time.sleep(2)
        print(f"  requests without a reload: p50 {calm.percentile(.5):.1f} ms, p99 {calm.percentile(.99):.1f} ms, worst {calm.percentile(1):.1f} ms")
        print("  reload of none: control {:.1f} ms, root part {:.1f} ms, gateway {:.1f} ms CPU; the command took {:.0f} ms".format(*reload_cost(w, lambda: None)))
        for i in range(3):
            costs = reload_cost(w, lambda: w.write(f"pools/{name_of(6)}.conf", pool_text(name_of(6), w.port, USER, f"env ROUND {i}", what)))
            print("  reload of one: control {:.1f} ms, root part {:.1f} ms, gateway {:.1f} ms CPU; the command took {:.0f} ms".format(*costs))
        with Latency(w) as load:
            for i in range(5):
                costs = reload_cost(w, lambda: w.write(f"pools/{name_of(7)}.conf", pool_text(name_of(7), w.port, USER, f"env ROUND {i}", what)))
                print("  reload of one: control {:.1f} ms, root part {:.1f} ms, gateway {:.1f} ms CPU (with load); the command took {:.0f} ms".format(*costs))
        print(f"  requests during the reloads: p50 {load.percentile(.5):.1f} ms, p99 {load.percentile(.99):.1f} ms, worst {load.percentile(1):.1f} ms, failed {len(load.bad)}")
        wait_for(lambda: w.get("/hello", host="main").status == 200)
        for name, pid in (("root part", w.process.pid), ("control", control), ("gateway", gateway)):
            print(f"  {name} after the reloads: {memory(pid)[0] / 2**20:.1f} MiB resident")
    return 0


if __name__ == "__main__":
    sys.exit(main())

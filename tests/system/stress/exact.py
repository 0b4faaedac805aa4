#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Exactness under stress: seeded aborts and time-outs, two gateway threads, one php-cgi group of 4. Inside the app the number
of running scripts is counted (flock): it never exceeds 4. Each request is answered or was aborted by its client; none is
forgotten. Prints one line; exit status 1 on a violation."""
import argparse
import asyncio
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
SCRIPT = """<?php
$f = fopen($_SERVER['DOCUMENT_ROOT'] . '/../run/keep-count', 'r+');
function change($f, $by) {
    flock($f, LOCK_EX); rewind($f); $x = explode(' ', fgets($f)); $n = (int)$x[0] + $by; $max = max((int)$x[1], $n);
    rewind($f); fwrite($f, sprintf("%06d %06d %06d\\n", $n, $max, (int)$x[2] + ($by > 0))); fflush($f); flock($f, LOCK_UN);
}
ignore_user_abort(true);
change($f, 1); usleep((int)$_GET['us']); change($f, -1); echo 'ok';
"""


async def one(port, r, results):
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        results.append("refused")
        return
    us = 700000 if r.random() < 0.01 else r.randint(100, 8000)
    writer.write(f"GET /w.php?us={us} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    try:
        if r.random() < 0.2:
            await asyncio.sleep(r.random() * 0.02)
            results.append("aborted")
        else:
            data = await asyncio.wait_for(reader.read(), 60)
            results.append(data[9:12].decode() or "closed")
    except asyncio.TimeoutError:
        results.append("forgotten")
    except OSError:
        results.append("closed")
    writer.close()


async def clients(port, seed, count, at_once):
    r = random.Random(seed)
    results, running = [], set()
    for _ in range(count):
        running.add(asyncio.create_task(one(port, random.Random(r.random()), results)))
        if len(running) >= at_once:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(running)
    return results


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--requests", type=int, default=3000)
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    os.environ["WEIR_BUILD"] = os.path.abspath(o.build)
    from weirlib import USER, Weir, wait_for
    config = f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php; workers 4; queue 1000 50s; time {{ request 500ms }}; {USER} }}"
    with Weir(config, {"public/w.php": SCRIPT}) as w:
        path = w.run_dir + "/keep-count"
        with open(path, "w") as f:
            f.write("000000 000000 000000\n")
        os.chmod(path, 0o666)
        results = asyncio.run(clients(w.port, o.seed, o.requests, 80))
        wait_for(lambda: open(path).read().startswith("000000"))
        _, most, runs = open(path).read().split()
        log = w.log()
    kinds = {k: results.count(k) for k in sorted(set(results))}
    bad = int(most) > 4 or len(results) != o.requests or kinds.get("forgotten") or kinds.get("closed") or "Sanitizer" in log
    print(f"exact: seed {o.seed}, {o.requests} requests, {int(runs)} runs, at most {int(most)} at once: {kinds}{': VIOLATION' if bad else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

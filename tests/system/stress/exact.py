#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Exactness under stress: seeded aborts and time-outs, two gateway threads, one group of 4 PHP workers. Inside the app the
number of running scripts is counted (flock): it never exceeds 4. Each request is answered with 200 or 504, or was aborted by its
client; none is forgotten. Prints one line; exit status 1 on a violation."""
import argparse
import asyncio
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
SCRIPT = """<?php
$dir = $_SERVER['DOCUMENT_ROOT'] . '/../run';
for ($i = 0; $i < 8; $i++) {  // the first free lock: whoever is killed gives it back
    $f = fopen("$dir/keep-lock$i", 'c');
    if (flock($f, LOCK_EX | LOCK_NB)) break;
}
file_put_contents("$dir/keep-count", ($i + 1) . "\\n", FILE_APPEND);
ignore_user_abort(true);
usleep((int)$_GET['us']); echo 'ok';
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
    p.add_argument("--php", default="cgi")
    o = p.parse_args()
    os.environ["WEIR_BUILD"] = os.path.abspath(o.build)
    from weirlib import USER, Weir
    config = f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php {o.php}; workers 4; queue 1000 200s; time {{ request 500ms }}; {USER} }}"
    with Weir(config, {"public/w.php": SCRIPT}) as w:
        path = w.run_dir + "/keep-count"
        open(path, "w").close()
        os.chmod(path, 0o666)
        for i in range(8):
            open(f"{w.run_dir}/keep-lock{i}", "w").close()
            os.chmod(f"{w.run_dir}/keep-lock{i}", 0o666)
        results = asyncio.run(clients(w.port, o.seed, o.requests, 80))
        at_once = [int(n) for n in open(path).read().split()]
        log = w.log()
    most, runs = max(at_once), len(at_once)
    kinds = {k: results.count(k) for k in sorted(set(results))}
    bad = most > 4 or len(results) != o.requests or set(kinds) - {"200", "504", "aborted"} or not kinds.get("504") or "Sanitizer" in log
    print(f"exact: php {o.php}, seed {o.seed}, {o.requests} requests, {runs} runs, at most {most} at once: {kinds}{': VIOLATION' if bad else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

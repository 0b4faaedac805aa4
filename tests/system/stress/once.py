#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Once or not at all: seeded rounds of client aborts, 504s and kill -9 of the gateway against php-cgi.

Each request has an id; the script appends "id start-time" to a file (one write with O_APPEND) as its first act. What can be
judged from outside:
  * no id stands twice: nothing was repeated;
  * an id whose request was given up (client closed, 504 told, gateway killed) while every worker was certainly busy with an
    older request, and that was therefore never accepted, must not stand there. "Certainly busy": the workers are held by
    sleeping requests whose own answers came later than the giving up.
Prints one line; exit status 1 on a violation, with the seed.
"""
import argparse
import os
import random
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))


def connect(port):
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.01)


def send(port, rid, ms):
    s = connect(port)
    s.sendall(f"GET /w.php?id={rid}&ms={ms} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return s


def answer(s):
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            data += piece
    except OSError:
        pass
    s.close()
    return data[9:12].decode() if data.startswith(b"HTTP/1.1") else "closed"


def executed(path):
    """How often each id ran."""
    counts = {}
    with open(path) as f:
        for line in f:
            rid = line.split()[0]
            counts[rid] = counts.get(rid, 0) + 1
    return counts


def one_round(weir, seed, ids, wait_for, workers):
    """Returns the ids that must not run."""
    r = random.Random(seed)
    kind = r.choice(["abort", "timeout", "kill"])
    never = set()

    def new():
        ids[0] += 1
        return f"{kind}{seed}x{ids[0]}"
    path = weir.run_dir + "/keep-ids"
    holders = [new() for _ in range(workers)]
    held = [send(weir.port, rid, 120) for rid in holders]
    wait_for(lambda: all(executed(path).get(h) for h in holders))  # every worker is inside a holder now
    extra = [(rid, send(weir.port, rid, 1)) for rid in (new() for _ in range(r.randint(1, 6)))]
    if kind == "kill":
        os.kill(weir.gateway_pid, signal.SIGKILL)
        given_up = []  # who sees its connection closed; what had not been accepted yet is the next gateway's
    elif kind == "abort":
        given_up = []
        for rid, s in extra:
            if r.random() < 0.7:
                s.close()
                given_up.append(rid)
    else:
        given_up = []
    # The holders sleep 120 ms: whatever was given up before the first of them can have ended was never accepted.
    told = time.time()
    results = [answer(s) for s in held]
    with open(path) as f:
        starts = {line.split()[0]: float(line.split()[1]) for line in f}
    answers = {rid: answer(s) for rid, s in extra if s.fileno() >= 0}
    if kind == "kill":
        given_up = [rid for rid, a in answers.items() if a == "closed"]
    if told < min(starts[h] for h in holders) + 0.115:
        never.update(given_up)
    if kind == "kill":
        weir.gateway_pid = wait_for(lambda: (lambda g: g if g != weir.gateway_pid else 0)(weir.gateway()))
    elif kind == "abort":
        assert all(x == "200" for x in results), results
    else:  # 504: one that hangs is given up, its worker is held until it ends
        rid = new()
        assert answer(send(weir.port, rid, 700)) == "504"
    return never


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--rounds", type=int, default=60)
    p.add_argument("--seed", type=int, default=1)
    o = p.parse_args()
    os.environ["WEIR_BUILD"] = os.path.abspath(o.build)
    from weirlib import USER, Weir, wait_for
    script = ("<?php file_put_contents($_SERVER['DOCUMENT_ROOT'] . '/../run/keep-ids', $_GET['id'] . ' ' . sprintf('%.4f', microtime(true)) . \"\\n\", FILE_APPEND);"
              "usleep((int)$_GET['ms'] * 1000); echo 'ok';")
    config = f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php cgi; workers 2; queue 100 20s; time {{ request 500ms }}; {USER} }}"
    bad, never = [], set()
    with Weir(config, {"public/w.php": script}) as w:
        path = w.run_dir + "/keep-ids"
        open(path, "w").close()
        os.chmod(path, 0o666)
        w.gateway_pid = w.gateway()
        ids = [0]
        for seed in range(o.seed, o.seed + o.rounds):
            try:
                never |= one_round(w, seed, ids, wait_for, 2)
            except AssertionError as e:
                bad.append(f"seed {seed}: {e}")
                break
        counts = executed(path)
        bad += [f"{rid} ran {n} times" for rid, n in counts.items() if n > 1]
        bad += [f"{rid} ran after it was given up" for rid in never if rid in counts]
    if len(never) < o.rounds // 4:
        bad.append(f"only {len(never)} requests were given up in time to judge")
    print(f"once: {o.rounds} rounds, {ids[0]} requests, {len(never)} given up before a worker took them: {len(bad)} violations")
    for b in bad[:20]:
        print("  " + b)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

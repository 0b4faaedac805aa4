# SPDX-License-Identifier: MIT
"""Many requests at once."""
import asyncio
import os

import pytest
from weirlib import SLOW, USER, Weir, wait_for


async def one(port, path, results):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    results.append(data.split(b" ", 2)[1] if data else b"closed")
    writer.close()


def ask(port, path, count, watch=None):
    async def main():
        results = []
        tasks = [asyncio.create_task(one(port, path, results)) for _ in range(count)]
        while not all(t.done() for t in tasks):
            if watch:
                watch()
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
        return results
    return asyncio.run(main())


def unix_connections(path):
    with open("/proc/net/unix") as f:
        return sum(1 for line in f if line.rstrip().endswith(path) and line.split()[5] == "03")


@pytest.mark.nosan
def test_a_thousand_slow_requests_share_one_process_and_a_connection_for_each_thread():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; pool p }}\npool p {{ run ./demo; {USER} }}") as w:
        peak = [0]
        address = w.pool("p")["processes"][0]["address"][5:]

        def watch():
            peak[0] = max(peak[0], unix_connections(address))
        w.configure(f"site a {{ listen http://127.0.0.1:PORT; route /app/ {{ pool p }} }}\npool p {{ run ./demo; {USER} }}")
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/app/hello").status == 200)
        results = ask(w.port, "/app/slow", 1000, watch)
        assert results.count(b"200") == 1000
        assert 1 <= peak[0] <= 2
        assert len(w.pids("p")) == 1


@pytest.mark.nosan
def test_a_thousand_requests_wait_for_four_php_workers_and_none_fails():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php cgi; workers 4; queue 1000 60s; {USER} }}",
              {"public/s.php": "<?php usleep(100000); echo 1;"}) as w:
        peak = [0]
        address = w.pool("p")["processes"][0]["address"][5:]

        def watch():
            peak[0] = max(peak[0], unix_connections(address))
        results = ask(w.port, "/s.php", 1000, watch)
        assert results.count(b"200") == 1000
        assert 1 <= peak[0] <= 4


@pytest.mark.threads
def test_a_full_queue_answers_503_at_once_and_a_client_that_leaves_is_taken_out():
    with Weir(f"site a {{ listen http://127.0.0.1:PORT; root public; php p }}\npool p {{ php; workers 1; queue 5 20s; {USER} }}",
              {"public/s.php": "<?php usleep((int)$_GET['ms'] * 1000); echo 1;"}) as w:
        results = ask(w.port, "/s.php?ms=500", 30)
        assert results.count(b"503") >= 20 and results.count(b"200") >= 1
        with w.connect() as busy, w.connect() as waiting:
            busy.sendall(b"GET /s.php?ms=%d HTTP/1.1\r\nHost: a\r\n\r\n" % (1000 * SLOW))
            wait_for(lambda: w.load("p") == (1, 0))
            waiting.sendall(b"GET /s.php?ms=500 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: w.pool("p")["queued"] == 1)
            waiting.close()
            wait_for(lambda: w.pool("p")["queued"] == 0)
            assert busy.recv(1000).startswith(b"HTTP/1.1 200")

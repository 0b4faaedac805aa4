# SPDX-License-Identifier: MIT
"""Very many pools, each in a file of its own: what they cost while nobody asks, what a reload of one of them touches, and
whom the broken ones harm. The figures are printed; tests/system/stress/pools.py prints more of them."""
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from weirlib import IS_ROOT, SLOW, USER, WEIR, Weir, wait_for

pytestmark = pytest.mark.alone

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "stress"))
import pools as many

COUNT = 2000 if SLOW == 1 else 200


@pytest.fixture(scope="module")
def weir():
    with Weir(many.MAIN.format(user=USER), prepare=lambda w: many.write_pools(w, COUNT, USER)) as w:
        yield w


def asks(weir, i):
    return weir.get("/hello", host=many.name_of(i) + ".test").status


def pids(weir, which):
    found = {p["name"]: [u["pid"] for u in p["processes"] if u["state"] == "ready"] for p in weir.status()["pools"]}
    return [found[many.name_of(i)] for i in which]


def test_idle_pools_cost_little_memory_and_no_cpu(weir):
    both = (weir.process.pid, weir.status()["control_pid"])
    assert len(weir.status()["pools"]) == COUNT + 1
    resident = [many.memory(p) for p in both]
    before, seconds = [many.ticks(p) for p in both], 5 if SLOW == 1 else 2
    time.sleep(seconds)  # what is measured is that nothing happens
    used = [many.ticks(p) - b for p, b in zip(both, before)]
    print(f"{COUNT} pools: root part and control {[f'{r / 2**20:.1f} MiB' for r, _ in resident]} resident, {used} ticks in {seconds} s")
    if SLOW == 1:
        assert sum(r for r, _ in resident) <= 64 << 20
        assert sum(used) <= 1


def test_a_reload_that_changes_one_pool_starts_and_ends_only_that_one(weir):
    running = [3, 30, 77, 150, COUNT - 1]
    for i in running:
        assert asks(weir, i) == 200
    before = pids(weir, running)
    assert all(len(p) == 1 for p in before)
    costs = [many.reload_cost(weir, lambda: None)]  # those that were young at the start are read once more
    for n in range(3):
        costs.append(many.reload_cost(weir, lambda: weir.write(f"pools/{many.name_of(77)}.conf",
                                                               many.pool_text(many.name_of(77), weir.port, USER, f"env ROUND {n}"))))
    print(f"{COUNT} pools: a reload took control {[round(c[0], 1) for c in costs]} ms of CPU, the gateway {[round(c[2], 1) for c in costs]} ms")
    assert asks(weir, 77) == 200
    wait_for(lambda: pids(weir, [77])[0] and pids(weir, [77])[0] != before[2])
    after = pids(weir, running)
    assert [a for k, a in enumerate(after) if k != 2] == [b for k, b in enumerate(before) if k != 2]
    started = [p["name"] for p in weir.status()["pools"] if p["processes"]]
    assert set(started) == {many.name_of(i) for i in running} | {"main"}
    if SLOW == 1:
        assert min(c[0] for c in costs) < 100  # 20 to 40 ms where the machine is ours; it was 110 to 260
        resident = sum(many.memory(p)[0] for p in (weir.process.pid, weir.status()["control_pid"]))
        print(f"after the reloads {resident / 2**20:.1f} MiB")
        assert resident <= 64 << 20


def site(name, pool):
    return f"site {name}.test {{ listen http://127.0.0.1:PORT; pool {pool} }}\n"


MACHINE = {  # right as texts; the machine lacks something
    "no-user": "pool NAME { run ../demo; user nobody-here }\n" + site("NAME", "NAME"),
    "no-program": f"pool NAME {{ run ../nothing; {USER} }}\n" + site("NAME", "NAME"),
    "folder-as-program": f"pool NAME {{ run ../public; {USER} }}\n" + site("NAME", "NAME"),
    "no-php": f"pool NAME {{ php 9.9; {USER} }}\n" + site("NAME", "NAME"),
}
TEXTS = {
    "syntax": "pool NAME { run ../demo\n",
    "duplicate": f"pool p0001 {{ run ../demo; {USER} }}\n",
    "duplicate-host": f"pool NAME {{ run ../demo; {USER} }}\n" + site("p0002", "NAME"),
    "nul": "pool NAME { run ../demo \0 }\n",
    "latin1": b"pool \xe9\xfc { run ../demo }\n",
    "unknown-word": "pool NAME { runn ../demo }\n",
    "unknown-words": "".join(f"pool NAME{i} {{ runn{i} ../demo }}\n" for i in range(300)),
    "include": "include *.conf\n",
    "deep": "pool NAME " + "{ time " * 20 + "}" * 20 + "\n",
    "many-words": "pool NAME { run ../demo " + "x " * 1000 + "}\n",
    "nothing-to-run": "pool NAME { }\n",
    "two-programs": "pool NAME { run ../demo; connect unix:/x }\n",
    "no-pool": site("NAME", "no-such-pool"),
    "second-weir": "weir { threads 1 }\n",
    "no-number": "pool NAME { run ../demo; processes many }\n",
    "large": b"# nothing\n" * 1_000_000,
}


def write_broken(weir, letter):
    """One file of each kind: their names. Their letter says whether they are read before the good ones or behind them."""
    names = []
    for kind, text in (TEXTS | MACHINE).items():
        name = f"{letter}-{kind}"
        if isinstance(text, str):
            text = text.replace("NAME", name).replace("PORT", str(weir.port))
        names.append(weir.write(f"pools/{name}.conf", text))
    at = os.path.join(weir.dir, "pools", letter + "-")
    os.mkfifo(at + "fifo.conf")
    os.mkdir(at + "folder.conf")
    os.symlink("nowhere.conf", at + "dangling.conf")
    os.symlink("m-loop.conf", at + "loop.conf")
    os.symlink("/dev/zero", at + "device.conf")
    weir.write(f"pools/{letter}-unreadable.conf", "pool secret { run ../demo }\n", 0)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(at + "socket.conf")
    return names + [at + k + ".conf" for k in ("fifo", "folder", "dangling", "loop", "device", "socket")] + [at + "unreadable.conf"] * IS_ROOT


def remove_broken(weir):
    for name in os.listdir(weir.dir + "/pools"):
        if name[:2] in ("m-", "z-"):
            path = os.path.join(weir.dir, "pools", name)
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def of_machine(path):
    return any(path.endswith(f"-{kind}.conf") for kind in MACHINE)


def look_at_broken(weir, names, letter):
    """None of them runs; who asks for one is told so; the log names each."""
    for kind in MACHINE:
        if kind == "no-user" and not IS_ROOT:
            continue
        wait_for(lambda: weir.pool(f"{letter}-{kind}").get("problem"))
        if kind != "no-php":
            wait_for(lambda: weir.get("/hello", host=f"{letter}-{kind}.test").status == 503)
    assert not [n for n in ("secret", letter + "-unknown-word", letter + "-unknown-words7") if weir.pool(n)]
    log = weir.log()
    assert not [n for n in names if not of_machine(n) and f"{n} has mistakes" not in log]


def test_broken_files_stop_nobody_else_at_a_reload(weir):
    running = [1, 2, 3, COUNT - 2]
    for i in running:
        assert asks(weir, i) == 200
    before = pids(weir, running)
    names = write_broken(weir, "m")
    try:
        weir.write(f"pools/{many.name_of(3)}.conf", "pool p0003 { rum ../demo }\n")  # it runs, and goes on
        assert weir.command("reload").returncode == 0
        assert all(asks(weir, i) == 200 for i in running)
        assert pids(weir, running) == before
        look_at_broken(weir, names, "m")
        r = subprocess.run([WEIR, "check", "-c", weir.config], capture_output=True, text=True, errors="replace", timeout=60)
        assert r.returncode == 1
    finally:
        remove_broken(weir)
        weir.write(f"pools/{many.name_of(3)}.conf", many.pool_text(many.name_of(3), weir.port, USER))
    assert weir.command("reload").returncode == 0
    assert pids(weir, running) == before


def test_broken_files_stop_nobody_else_at_a_cold_start():
    names = []

    def prepare(w):
        many.write_pools(w, COUNT, USER)
        names.extend(write_broken(w, "z"))
    with Weir(many.MAIN.format(user=USER), prepare=prepare) as w:
        for i in (0, 1, 2, COUNT - 1):
            assert asks(w, i) == 200
        look_at_broken(w, names, "z")
        assert len([p for p in w.status()["pools"] if p["name"].startswith("p")]) == COUNT


def test_check_tells_what_is_wrong_with_each_broken_file():
    def told(w):
        r = subprocess.run([WEIR, "check", "-c", w.config], capture_output=True, text=True, errors="replace", timeout=60)
        assert r.returncode == 1
        return {line.split(":")[1].strip() for line in r.stderr.splitlines()}
    with Weir(many.MAIN.format(user=USER), prepare=lambda w: many.write_pools(w, 5, USER)) as w:
        names = [n for n in write_broken(w, "z") if "unreadable" not in n]  # root reads all
        assert {n for n in names if not of_machine(n)} - told(w) == set()
        for name in os.listdir(w.dir + "/pools"):  # what the machine lacks is told of texts that are right
            path = os.path.join(w.dir, "pools", name)
            if name[:2] in ("m-", "z-") and not of_machine(path):
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        assert {n for n in names if of_machine(n)} - told(w) == set()


def test_who_claims_the_names_of_another_file_harms_only_himself():
    with Weir(many.MAIN.format(user=USER), prepare=lambda w: many.write_pools(w, 5, USER)) as w:
        assert asks(w, 3) == 200 and asks(w, 4) == 200
        before = pids(w, [3, 4])
        claims = "".join(many.pool_text(many.name_of(i), w.port, USER, "env STOLEN yes") for i in (3, 4))
        w.write("pools/a.conf", claims)  # it is read before them
        w.write("pools/p0003.conf", "pool p0003 { rum ../demo }\n")  # and one of them has a mistake just now
        for _ in range(2):
            r = w.command("reload")
            assert r.returncode == 0 and "they have mistakes" in r.stdout
            assert asks(w, 3) == 200 and asks(w, 4) == 200 and pids(w, [3, 4]) == before
        assert f"{w.dir}/pools/a.conf has mistakes: nothing of it is used" in w.log()
        os.unlink(w.dir + "/pools/p0003.conf")  # now the name is free
        w.write("pools/a.conf", many.pool_text("p0003", w.port, USER, "env STOLEN yes"))
        r = w.command("reload")
        assert r.returncode == 0 and "mistakes" not in r.stdout
        wait_for(lambda: asks(w, 3) == 200 and pids(w, [3])[0] not in ([], before[0]))
        assert pids(w, [4]) == before[1:]


@pytest.mark.skipif(not IS_ROOT, reason="takes a right away from another user")
def test_a_folder_of_files_that_cannot_be_read_is_not_an_empty_one():
    with Weir(many.MAIN.format(user=USER), prepare=lambda w: many.write_pools(w, 5, USER)) as w:
        assert asks(w, 3) == 200
        os.chmod(w.dir + "/pools", 0o700)
        r = w.command("reload")
        assert r.returncode == 1 and "cannot be looked up: Permission denied" in r.stderr
        os.chmod(w.dir + "/pools", 0o755)
        assert asks(w, 3) == 200 and asks(w, 4) == 200


def test_a_site_that_needs_a_pool_of_a_lost_file_is_told_503_and_no_other_is():
    text = ("site a.test { listen http://127.0.0.1:PORT; pool gone; route /here/ { pool main } }\n"
            f"site b.test {{ listen http://127.0.0.1:PORT; pool main }}\npool main {{ run ./demo; {USER} }}\ninclude pools/*.conf\n")
    with Weir(text, {"pools/gone.conf": "pool gone { rum ../demo }\n"}) as w:
        assert w.get("/hello", host="b.test").status == 200 and w.get("/here/hello", host="a.test").status == 200
        begin = time.monotonic()
        assert w.get("/hello", host="a.test").status == 503
        assert time.monotonic() - begin < 5 * SLOW
        assert "mistakes" in w.pool("gone")["problem"]
        w.write("pools/gone.conf", f"pool gone {{ run ../demo; {USER} }}\n")
        assert w.command("reload").returncode == 0
        wait_for(lambda: w.get("/hello", host="a.test").status == 200)

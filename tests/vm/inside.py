# SPDX-License-Identifier: MIT
"""Runs in the machine that tests/vm/run boots: the unit as an administrator uses it. Prints PASS or FAIL for each test."""
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
import traceback

CONFIG = """
weir { log off; threads 2 }
site a.test {
    listen http://127.0.0.1:8080
    pool demo
}
pool demo { run /srv/app/demo; user app; processes 2 }
pool slow { run /srv/app/slow; user app }
"""
SLOW = "#!/bin/sh\nsetsid sleep 10000 &\nsleep 3\nexec /srv/app/demo\n"  # is ready late, and leaves something behind it


def configure(text):
    with open("/etc/weir/weir.conf", "w") as f:
        f.write(text)


def run(*args, check=True):
    r = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert not check or r.returncode == 0, f"{args}: {r.stdout}{r.stderr}"
    return r


def show(name):
    return run("systemctl", "show", "-P", name, "weir").stdout.strip()


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def ask(s):
    """One request on this connection, to its end: the status, 0 if there was no answer."""
    s.settimeout(60)
    try:
        s.sendall(b"GET /hello HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    except OSError:
        return 0
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def get(port=8080):
    with socket.create_connection(("127.0.0.1", port)) as s:
        return ask(s)


def processes():
    """Who runs in the unit."""
    group = show("ControlGroup")
    found = []
    for at, _, files in os.walk("/sys/fs/cgroup" + group) if group else ():
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError), open(os.path.join(at, "cgroup.procs")) as f:
                found += [int(p) for p in f.read().split()]
    return found


def named(name):
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{p}/cmdline") as f:
            if name in f.read().replace("\0", " "):
                found.append(int(p))
    return found


def test_users_and_folders_come_from_the_installed_files():
    run("ldconfig")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create")
    run("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "app")
    run("runuser", "-u", "weir-gw", "--", "test", "-w", "/var/lib/weir/tmp")
    run("runuser", "-u", "weir-gw", "--", "test", "-w", "/var/log/weir")
    assert os.path.exists("/sys/fs/cgroup/cgroup.controllers"), "no cgroup v2"


def test_a_start_returns_when_all_is_up():
    configure(CONFIG)
    with open("/srv/app/slow", "w") as f:
        f.write(SLOW)
    os.chmod("/srv/app/slow", 0o755)
    begin = time.monotonic()
    run("systemctl", "enable", "--now", "weir")
    assert get() == 200
    assert time.monotonic() - begin > 3, "it did not wait for the slow pool"
    assert len(re.findall(r"\bready\b", run("weir", "status").stdout)) >= 3, run("weir", "status").stdout
    assert show("ActiveState") == "active" and show("StatusText") == "sites: 1, pools: 2", show("StatusText")
    assert show("NFileDescriptorStore") == "1"


def test_a_reload_is_waited_for_and_tells_why_it_failed():
    main = show("MainPID")
    configure(CONFIG.replace("8080", "8081"))
    run("systemctl", "reload", "weir")
    assert get(8081) == 200 and show("NFileDescriptorStore") == "1"
    configure(CONFIG + "nonsense\n")
    assert run("systemctl", "reload", "weir", check=False).returncode != 0
    assert get(8081) == 200 and "failed" in show("StatusText")
    configure(CONFIG)
    run("systemctl", "kill", "-s", "HUP", "--kill-who=main", "weir")
    wait_for(lambda: show("StatusText") == "sites: 1, pools: 2" and show("ActiveState") == "active")
    assert get() == 200 and show("MainPID") == main and show("NRestarts") == "0"


def test_a_killed_root_part_refuses_nobody():
    for _ in range(5):
        before, main = processes(), int(show("MainPID"))
        count = int(show("NRestarts"))
        os.kill(main, signal.SIGKILL)
        clients = []
        for _ in range(50):  # before anybody is there again, and after
            clients.append(socket.create_connection(("127.0.0.1", 8080)))
            time.sleep(0.02)
        answers = [ask(s) for s in clients]
        # the first ones may still have come to the web server that was ending
        cut = answers.count(0)
        print(f"     connections in the gap: {len(answers)}, answered: {answers.count(200)}, cut: {cut}", flush=True)
        assert answers.count(200) + cut == 50 and answers[-1] == 200 and answers.count(200) > 20
        wait_for(lambda: show("ActiveState") == "active" and int(show("NRestarts")) == count + 1)
        assert not set(before) & set(processes()) and get() == 200


def test_a_root_part_that_hangs_is_replaced():
    os.makedirs("/etc/systemd/system/weir.service.d", exist_ok=True)
    with open("/etc/systemd/system/weir.service.d/test.conf", "w") as f:
        f.write("[Service]\nWatchdogSec=6\n[Unit]\nStartLimitIntervalSec=0\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "weir")
    count = int(show("NRestarts"))
    os.kill(int(show("MainPID")), signal.SIGSTOP)
    wait_for(lambda: int(show("NRestarts")) == count + 1 and show("ActiveState") == "active", 90)
    assert get() == 200


def test_a_control_that_hangs_is_replaced_alone():
    main, count = show("MainPID"), show("NRestarts")
    control = next(p for p in named("weir control") if p in processes())
    apps = named("/srv/app/demo")
    os.kill(control, signal.SIGSTOP)
    wait_for(lambda: not os.path.exists(f"/proc/{control}"))
    wait_for(lambda: run("weir", "status", check=False).returncode == 0)
    assert named("/srv/app/demo") == apps and show("MainPID") == main and show("NRestarts") == count
    time.sleep(8)  # longer than the watchdog waits
    assert show("NRestarts") == count and get() == 200


def test_twenty_restarts_under_load():
    counts, cut, stop, lock = {}, [], threading.Event(), threading.Lock()

    def client():
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 8080), timeout=60) as s:
                    begin = time.monotonic()
                    status = ask(s)
                    if status == 0:
                        cut.append(round(time.monotonic() - begin, 3))
            except ConnectionRefusedError:
                status = "refused"
            except OSError as e:
                status = repr(e)
            with lock:
                counts[status] = counts.get(status, 0) + 1
    # without the pool that is slow on purpose
    configure(CONFIG.replace("pool slow", "# "))
    run("systemctl", "restart", "weir")
    clients = [threading.Thread(target=client) for _ in range(4)]
    for c in clients:
        c.start()
    begin = time.monotonic()
    for _ in range(20):
        run("systemctl", "restart", "weir")
        assert get() == 200
    took = time.monotonic() - begin
    stop.set()
    for c in clients:
        c.join()
    print(f"     20 restarts in {took:.1f} s: {counts}; cut after so many seconds: {cut}", flush=True)
    assert counts.get(200, 0) > 20 and set(counts) == {200}, counts


def test_a_stop_leaves_nothing():
    configure(CONFIG)
    run("systemctl", "restart", "weir")
    before = processes()
    assert len(before) >= 9 and named("sleep 10000")
    begin = time.monotonic()
    run("systemctl", "stop", "weir")
    took = time.monotonic() - begin
    assert show("ActiveState") == "inactive" and show("Result") == "success"
    assert not [p for p in before if os.path.exists(f"/proc/{p}")] and not named("weir-supervise") and not named("/srv/app") and not named("sleep 10000")
    assert not os.path.exists("/sys/fs/cgroup/system.slice/weir.service") and show("NFileDescriptorStore") == "0"
    try:
        socket.create_connection(("127.0.0.1", 8080)).close()
        raise AssertionError("somebody still listens")
    except ConnectionRefusedError:
        pass
    for folder in ("/run/weir", "/var/lib/weir/tmp", "/var/log/weir"):
        assert not os.listdir(folder), os.listdir(folder)
    assert not [f for f in os.listdir("/tmp") if "weir" in f]
    print(f"     the stop took {took:.1f} s", flush=True)


def test_a_start_that_fails_says_why_and_is_not_repeated():
    configure(CONFIG + "nonsense\n")
    assert run("systemctl", "start", "weir", check=False).returncode != 0
    assert show("ActiveState") == "failed" and show("ExecMainStatus") == "1"
    assert "nonsense" in run("journalctl", "-u", "weir", "-n", "20", "--no-pager").stdout
    run("systemctl", "reset-failed", "weir")


def test_a_socket_unit_holds_the_port():
    configure(CONFIG.replace("http://127.0.0.1:8080", "http://*:80"))
    os.rename("/srv/test/weir.socket", "/etc/systemd/system/weir.socket")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "weir.socket")
    with socket.create_connection(("127.0.0.1", 80)) as early:  # which starts it
        assert ask(early) == 200
    wait_for(lambda: show("ActiveState") == "active")
    assert show("NFileDescriptorStore") == "0", "it was stored though the socket unit has it"
    run("systemctl", "restart", "weir")
    assert get(80) == 200
    run("systemctl", "stop", "weir.socket", "weir")


def main():
    with open("/srv/test/only") as f:
        only = f.read().split()
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for i, (name, test) in enumerate(tests):
        if i > 1 and only and not any(name[5:].startswith(o) for o in only):
            continue
        begin = time.monotonic()
        try:
            test()
            print(f"PASS {name[5:].replace('_', ' ')} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as e:  # the others have their turn
            print(f"FAIL {name[5:].replace('_', ' ')}: {e}\n{traceback.format_exc()}", flush=True)
            print(run("journalctl", "-u", "weir", "-n", "40", "--no-pager", "-o", "short-monotonic", check=False).stdout, flush=True)
    print("DONE", flush=True)


main()

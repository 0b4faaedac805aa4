# SPDX-License-Identifier: MIT
"""Driving it: what people order while it runs, what of it lasts, and who may order it."""
import os
import signal

import pytest
from weirlib import USER, Weir, alive, wait_for

CONFIG = f"""
site a.test {{ listen http://127.0.0.1:PORT; root public; route /app/ {{ pool demo }} }}
site b.test www.b.test {{ listen http://127.0.0.1:PORT; route /app/ {{ pool demo }}; route / {{ pool more }} }}
pool demo {{ run ./demo; {USER} processes 1 }}
pool more {{ run ./hello; {USER} processes 1 }}
"""


@pytest.fixture
def weir():
    with Weir(CONFIG, {"public/index.html": "<p>here</p>"}) as w:
        yield w


def kill_control(weir):
    """Returns when another one has taken over and the gateway hears it."""
    control = weir.status()["control_pid"]
    os.kill(control, signal.SIGKILL)
    wait_for(lambda: (weir.status() or {"control_pid": control})["control_pid"] != control and weir.gateway())


def test_how_pools_are_driven_outlives_a_killed_control_and_ends_with_a_reload(weir):
    assert weir.command("stop", "more").returncode == 0 and weir.command("scale", "demo", "2").returncode == 0
    wait_for(lambda: len(weir.pids("demo")) == 2 and not weir.pool("more")["processes"])
    demo = weir.pids("demo")
    kill_control(weir)
    assert weir.pids("demo") == demo and not weir.pool("more")["processes"]
    assert weir.pool("more")["stopped"] and weir.pool("demo")["scaled"] == "2"
    wait_for(lambda: weir.get("/", host="b.test").status == 503)
    kill_control(weir)
    assert weir.pool("more")["stopped"] and weir.pool("demo")["scaled"] == "2"
    text = weir.command("status").stdout
    assert "stopped until a restart or reload" in text and "scaled to 2 until a reload" in text
    assert weir.command("reload").returncode == 0
    wait_for(lambda: len(weir.pids("demo")) == 1 and weir.pids("more"))
    kill_control(weir)
    assert len(weir.pids("demo")) == 1 and weir.pids("more") and "stopped" not in weir.pool("more")


def test_a_restart_undoes_a_drain_also_for_the_next_control(weir):
    pid = weir.pids("more")[0]
    assert weir.command("drain", "more").returncode == 0
    wait_for(lambda: not alive(pid))
    assert weir.command("restart", "more").returncode == 0
    wait_for(lambda: weir.pids("more"))
    kill_control(weir)
    assert weir.pids("more") and "stopped" not in weir.pool("more")

# SPDX-License-Identifier: MIT
"""Short runs of the stress programs."""
import os
import subprocess

import pytest
from weirlib import BUILD

pytestmark = pytest.mark.nosan

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stress")


def run(name, *args):
    r = subprocess.run(["/usr/bin/python3", os.path.join(HERE, name), "--build", BUILD, *args], capture_output=True, text=True, timeout=300)
    print(r.stdout, r.stderr)
    assert r.returncode == 0, r.stdout + r.stderr[-3000:]


def test_no_request_runs_twice_or_after_it_was_given_up():
    run("once.py", "--rounds", "60" if "san" not in os.path.basename(BUILD) else "15")


@pytest.mark.parametrize("php", ["cgi", "fpm"])
def test_the_capacity_of_a_group_is_never_exceeded_and_no_request_is_forgotten(php):
    run("exact.py", "--php", php, "--requests", "2000" if "san" not in os.path.basename(BUILD) else "800")

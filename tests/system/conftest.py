# SPDX-License-Identifier: MIT
import collections
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(__file__))


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # begun by a shell's &: what we start would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "alone: needs the machine for itself, or ends all processes of a user")
    config.addinivalue_line("markers", "threads: run in the TSan build too: several threads of the gateway or of an app touch the same things")
    config.addinivalue_line("markers", "nosan: not run in sanitizer builds (it measures, loads the machine, or runs what others run there)")
    config.addinivalue_line("markers", "table: a long list of cases: sanitizer builds run one in 24; of other tests' cases, every third")


def pytest_collection_modifyitems(config, items):
    if "san" not in os.path.basename(os.environ.get("WEIR_BUILD", "")):
        return
    kept, dropped, seen = [], [], collections.Counter()
    for item in items:
        table = item.get_closest_marker("table")
        name = "table" if table else item.nodeid.split("[")[0]
        (dropped if seen[name] % (24 if table else 3) else kept).append(item)
        seen[name] += 1
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept

# SPDX-License-Identifier: MIT
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: needs the machine for itself, or ends all processes of a user")
    config.addinivalue_line("markers", "threads: run in the TSan build too: several threads of the gateway or of an app touch the same things")
    config.addinivalue_line("markers", "nosan: not run in sanitizer builds (it measures, or loads the machine)")
    config.addinivalue_line("markers", "table: a long list of cases: sanitizer builds run one in 24")


def pytest_collection_modifyitems(config, items):
    if "san" not in os.path.basename(os.environ.get("WEIR_BUILD", "")):
        return
    number, kept, dropped = 0, [], []
    for item in items:
        if item.get_closest_marker("table"):
            number += 1
        (dropped if item.get_closest_marker("table") and number % 24 else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept

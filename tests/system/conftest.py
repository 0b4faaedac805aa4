# SPDX-License-Identifier: MIT
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: needs the machine for itself, or ends all processes of a user")
    config.addinivalue_line("markers", "notsan: not run in the TSan build (nothing in it has threads)")
    config.addinivalue_line("markers", "nosan: not run in sanitizer builds (it measures, or loads the machine)")

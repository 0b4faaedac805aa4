# SPDX-License-Identifier: MIT
"""Threads of a test that ask until it has seen enough."""
import threading


class Clients:
    """Threads that run until the block behind `with` ends; run() looks at self.stop."""

    def __init__(self, *runs):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=run) for run in runs]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *why):
        self.stop.set()
        for t in self.threads:
            t.join()

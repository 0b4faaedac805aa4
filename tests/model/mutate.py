#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""mutate.py IN OUT OLD NEW: a copy of a source file with one mistake. OLD has to be there exactly once: a mutant that does not fit
its source any more fails the build."""
import sys

source, out, old, new = sys.argv[1:]
with open(source) as f:
    text = f.read()
if text.count(old) != 1:
    sys.exit(f"mutate.py: {source}: {text.count(old)} times, not once: {old}")
with open(out, "w") as f:
    f.write(text.replace(old, new))

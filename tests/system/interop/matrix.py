#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Prints the interoperability matrix:  matrix.py [--json] [WORD...]   (rows whose name has a WORD)"""
import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from rows import COLUMNS, ROWS, check_of, version_of  # noqa: E402

AT_ONCE = 3


def cell(row, column, chain):
    """`ok`, `-`, or why not."""
    check = check_of(row, column)
    try:
        if check:
            check(chain)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return "-" if column in row.absent else "ok"


def ran(row):
    """Its cells; all of them say why if it does not start, or leaves something behind."""
    try:
        with row.start() as chain:
            cells = {column: cell(row, column, chain) for column in COLUMNS}
    except Exception as e:
        cells = dict.fromkeys(COLUMNS, f"{type(e).__name__}: {e}")
    return {"name": row.name, "side": row.side, "version": version_of(row), "cells": cells, "reasons": {c: a.reason for c, a in row.absent.items()}}


def word(value):
    return value if value in ("ok", "-") else "FAIL"


def failures(results):
    return [(r["name"], c, why) for r in results for c, why in r["cells"].items() if word(why) == "FAIL"]


def table(results, side):
    width = max(len(r["name"]) for r in results)
    lines = [side.ljust(width) + "  " + "  ".join(c.ljust(8) for c in COLUMNS) + "  version"]
    for r in results:
        if r["side"] == side:
            lines.append(r["name"].ljust(width) + "  " + "  ".join(word(v).ljust(8) for v in r["cells"].values()) + "  " + r["version"])
    return "\n".join(lines)


def legend(results):
    """Each reason once, with the peers that it stands for."""
    said = {}
    for r in results:
        for column, reason in r["reasons"].items():
            said.setdefault((column, reason), []).append(r["name"])
    return "\n".join(f"- {column}: {reason} ({', '.join(merged(names))})" for (column, reason), names in sorted(said.items(), key=lambda s: list(COLUMNS).index(s[0][0])))


def merged(names):
    """A peer that is there with both ways is named once."""
    peers = [name.split(" > ")[0] for name in names]
    return dict.fromkeys(peer if peers.count(peer) > 1 else name for peer, name in zip(peers, names))


def printed(results):
    parts = [table(results, side) for side in ("in front", "behind") if any(r["side"] == side for r in results)]
    parts.append(legend(results))
    said = {}
    for name, column, why in failures(results):  # one that does not start says so once
        said.setdefault((name, why), []).append(column)
    parts += [f"FAIL {name}, {' '.join(columns)}: {why}" for (name, why), columns in said.items()]
    return "\n\n".join(parts)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--json", action="store_true")
    p.add_argument("words", nargs="*")
    args = p.parse_args()
    rows = [r for r in ROWS if not args.words or any(w.lower() in r.name.lower() for w in args.words)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(ran, rows))
    print(json.dumps(results, indent=1) if args.json else printed(results))
    return 1 if failures(results) else 0


if __name__ == "__main__":
    sys.exit(main())

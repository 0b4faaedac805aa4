# SPDX-License-Identifier: MIT
"""The table of docs/comparison.md: every row is there, with a word about Weir, and the settings that it names exist."""
import os
import re

import pytest
from weirlib import ROOT

pytestmark = pytest.mark.nosan
ROWS = {"A": 20, "B": 20, "C": 19, "D": 15, "E": 11, "F": 12}


def cells(line):
    return [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows():
    with open(os.path.join(ROOT, "docs/comparison.md")) as f:
        return [cells(line) for line in f if re.match(r"\| [A-F]\d+ \|", line)]


def test_every_row_has_a_verdict_of_weir():
    assert [r[0] for r in rows()] == [f"{letter}{i + 1}" for letter, n in ROWS.items() for i in range(n)]
    assert [r[0] for r in rows() if len(r) < 9 or len(r[2]) < 2 or r[2] in ("n/c", "?", "TODO")] == []


def test_a_no_tells_its_reason():
    assert [r[0] for r in rows() if re.match(r"no\b", r[2]) and not re.match(r"no(:|, see )", r[2])] == []


def test_tables_are_tables():
    with open(os.path.join(ROOT, "docs/comparison.md")) as f:
        tables = [t.splitlines() for t in re.findall(r"(?:^\|.*\n)+", f.read(), flags=re.M)]
    assert len(tables) == 6
    for t in tables:
        assert {len(cells(line)) for line in t} == {len(cells(t[0]))} and cells(t[0])[2] == "Weir"

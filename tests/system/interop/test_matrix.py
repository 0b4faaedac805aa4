# SPDX-License-Identifier: MIT
"""Other people's web servers in front of Weir and libweir, and other people's programs behind Weir: `make matrix` prints the same."""
import pytest
from rows import COLUMNS, ROWS, check_of

pytestmark = pytest.mark.nosan


@pytest.fixture(scope="module")
def running():
    """Starts a row when its first cell is asked for, and ends it when another row's is."""
    now = {}

    def start(row):
        if row.name not in now:
            stop(now)
            now[row.name] = None
            run = row.start()
            now[row.name] = run, run.__enter__()
        assert now[row.name], "it did not start for an earlier cell"
        return now[row.name][1]
    yield start
    stop(now)


def stop(now):
    for name in list(now):
        run = now.pop(name)
        if run:
            run[0].__exit__(None, None, None)


CELLS = [pytest.param(row, column, id=f"{row.name} {column}", marks=pytest.mark.xdist_group(row.name))
         for row in ROWS for column in COLUMNS if check_of(row, column)]


@pytest.mark.parametrize("row, column", CELLS)
def test_a_cell_of_the_matrix_holds(row, column, running):
    check_of(row, column)(running(row))

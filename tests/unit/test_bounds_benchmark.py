"""The simulation of the gate's bounds: what it counts is what a loop counts, and every cell runs."""

import json
import math

import numpy as np
import pytest

from privacy import bounds, limits
from tests.benchmarks import bounds as benchmark


def test_draws_with_the_same_counts_are_judged_once_and_each_is_counted():
    columns = np.random.default_rng(0).integers(0, 4, (2, 500))
    asked = []

    def errs(one, other):
        asked.append((one, other))
        return one > other

    assert benchmark.counted(errs, *columns) == (columns[0] > columns[1]).sum()
    assert len(asked) == len(set(asked)) == 16


def test_the_error_of_a_bound_is_that_of_its_closed_form():
    """Of one kind alone: the bound lies above the recall where so many or more are found as have that probability at most."""
    [row] = benchmark.search_power(np.random.default_rng(0), 40_000, recall=0.9, kinds=1, attempt=1)
    level = (1 - limits.confidence(1)) / 2
    lows = [bounds.share_lower(found, benchmark.PLANTED, level) for found in range(benchmark.PLANTED + 1)]
    too_high = [found for found, low in enumerate(lows) if low > 0.9]
    expected = sum(math.comb(100, found) * 0.9**found * 0.1 ** (100 - found) for found in too_high)
    assert row.errors / row.draws == pytest.approx(expected, abs=4 * math.sqrt(expected / row.draws))


def test_a_flagged_set_never_leaves_and_a_weak_search_lets_none_out():
    assert benchmark.passed(0, 100, 1500, 1, None)[0]
    assert not benchmark.passed(1, 100, 1500, 1, None)[0]
    assert not benchmark.passed(0, 85, 1500, 1, None)[0]
    assert not benchmark.passed(0, 100, 1500, 2, 0.5)[0], "an earlier release's search counts"


@pytest.mark.slow
def test_every_cell_runs_and_the_table_says_what_was_drawn(tmp_path, capsys):
    benchmark.main(["--draws", "40", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "bounds.json").read_text())["rows"]
    assert len({(row["bound"], row["at"]) for row in rows}) == len(rows)
    assert all(0 <= row["errors"] <= row["draws"] for row in rows)
    printed = capsys.readouterr().out
    assert all(f"| {row['bound']} | {row['at']} |" in printed for row in rows)

"""Whole runs with `auto` beside fixed lengths: which settings they get, and what is said of them."""

import pytest

from pipeline import fit_recipe
from tests.benchmarks import auto_runs


def row(length: str, seed: int, apart: float | None, copies: int = 0, cohort: str = "c") -> auto_runs.Row:
    found = None if apart is None else {"value": apart, "high": apart + 0.1}
    more = {"undecided": 1} | ({"verdict": "inconclusive"} if length == "auto" else {})
    return {"cohort": cohort, "seed": seed, "length": length, "images": 100 + seed, "copies": copies, "difference": found} | more


def test_auto_is_compared_with_the_nearest_fixed_length_that_copied_nobody_in_any_seed():
    rows = [row("auto", 0, 0.10), row("auto", 1, 0.20), row("0.5", 0, 0.3), row("0.5", 1, 0.3)]
    rows += [row("1", 0, 0.09), row("1", 1, 0.17), row("4", 0, 0.01), row("4", 1, 0.01, copies=2)]
    (said,) = auto_runs.findings(rows)
    assert "no copy flagged in any seed" in said
    assert "than × 1 by +0.020 (standard error 0.010)" in said
    (said,) = auto_runs.findings([row("auto", 0, 0.1, copies=1), row("1", 0, None)])
    assert "COPIES FLAGGED" in said
    assert "no fixed length" in said


def test_seeds_of_a_length_are_one_point_and_auto_comes_first():
    rows = [row("2", 0, 0.3), row("auto", 1, 0.2), row("auto", 0, None), row("auto", 2, 0.4)]
    auto, fixed = auto_runs.points_of(rows)
    assert (auto["length"], auto["seeds"], auto["images"]) == ("auto", 3, [100, 101, 102])
    assert auto["above_floor"] == pytest.approx(0.3)
    assert auto["verdicts"] == ["inconclusive"] * 3
    assert (auto["copies"], auto["undecided"]) == ([0] * 3, [1] * 3), "an image that may be a copy is told apart from copies"
    earlier = [{key: value for key, value in one.items() if key != "undecided"} for one in rows]
    assert auto_runs.points_of(earlier)[0]["undecided"] == ["among them"] * 3, "records from before they were told apart are shown too"
    assert (auto["highest"], fixed["verdicts"]) == (pytest.approx(0.5), [])


def test_a_fixed_length_is_a_multiple_of_what_auto_kept_with_what_else_it_chose():
    options = auto_runs.parse(["--config", "pneumoniamnist"])
    auto = auto_runs.settings_of(options, 3, "auto", None)
    assert (auto.seed, auto.train.unfitted, auto.train.decay) == (3, ("images", "widths", "dropout", "augment"), 0)
    kept = {"images": 1001, "fitted": {"widths": [64, 128], "dropout": 0.21, "augment": 0.4}}
    fixed = auto_runs.settings_of(options, 3, "0.5", kept).train
    assert (fixed.images, fixed.widths, fixed.dropout, fixed.augment, fixed.decay) == (500, (64, 128), 0.21, 0.4, 0.3)


@pytest.mark.parametrize(("words", "ceiling"), [([], fit_recipe.REPEATS), (["--ceiling", "123"], 123), (["--tiny"], 20)])
def test_a_run_is_made_under_the_ceiling_that_is_asked_for(monkeypatch, tmp_path, words, ceiling):
    class Made(Exception):
        pass

    def run(*given, **named):
        raise Made(fit_recipe.REPEATS)

    monkeypatch.setattr(auto_runs, "run_stages", run)
    before = fit_recipe.REPEATS
    with pytest.raises(Made, match=f"^{ceiling}$"):
        auto_runs.measure(auto_runs.parse([*words, "--config", "quickstart", "--runs", str(tmp_path)]), 0, "auto", None)
    assert before == fit_recipe.REPEATS


def test_another_ceiling_is_measured_beside_what_its_cohort_was_measured_with_and_in_a_folder_of_its_own(monkeypatch, tmp_path):
    made = []

    def measure(options, seed, length, auto):
        made.append((options.name, options.ceiling, seed))
        return {"cohort": options.name, "seed": seed, "length": length, "images": 1, "copies": 0, "undecided": 0, "difference": None}

    monkeypatch.setattr(auto_runs, "measure", measure)
    words = ["--config", "quickstart", "--seeds", "3", "--out", str(tmp_path)]
    for more in ([], ["--ceiling", "8000"], ["--ceiling", "8000"]):
        auto_runs.make(auto_runs.parse([*words, *more]))
    assert made == [("quickstart", fit_recipe.REPEATS, 3), ("quickstart, ceiling 8000", 8000, 3)]

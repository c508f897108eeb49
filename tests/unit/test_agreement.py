"""The benchmark that measures a run's judged numbers again."""

import json

import pytest
from release_run import EVALUATION, STRESS, config, decide, make_context

from evaluation import plateau
from pipeline import evaluate, runtime, stress
from pipeline.release.report import render_report
from pipeline.release.results import Results
from tests.benchmarks.agreement import compare, judged, measure_again, measures


def test_the_judged_numbers_are_those_that_the_report_shows_with_an_interval(tmp_path):
    ctx = make_context(tmp_path / "run")
    page = render_report(Results.load(config(), ctx.folder, decide("fail") | {"digests": {"images": {}, "pixels": ""}}, ctx.records), {})
    found = judged({"evaluate": EVALUATION, "stress": STRESS}, page)
    assert ("evaluate", "utility", "arms", "real", "auc") in found
    assert ("evaluate", "utility", "differences", "real+synthetic", "per_class", "nodule", "sensitivity") in found
    assert ("stress", "mean_drop", "auc") in found
    assert not any("calibration_error" in path or "worst" in path for path in found), "a spread is no interval"
    assert judged({"evaluate": EVALUATION}, "<p>nothing</p>") == {}


def one(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 9}


@pytest.mark.parametrize(
    ("second", "within", "bonferroni"),
    [(0.5, True, True), (0.6, True, True), (0.61, False, True), (0.66, False, False), (0.395, False, True), (None, False, False)],
)
def test_a_number_is_held_to_its_interval_and_to_the_wider_one_of_all_of_them(second, within, bonferroni):
    """Of ten numbers the level is 99.5 %: bounds 2.807 / 1.960 times as far away."""
    first = {("a", str(i)): one(0.5, 0.4, 0.6) for i in range(10)}
    again = {"a": {str(i): one(0.5, 0.4, 0.6) for i in range(10)}}
    again["a"]["0"]["value"] = second
    rows = compare(first, again)
    assert (rows[0]["within"], rows[0]["within_bonferroni"]) == (within, bonferroni)
    assert all(row["within"] for row in rows[1:])


@pytest.mark.parametrize(
    ("first", "second", "strictly", "within"),
    [((0.998, 0.97, 0.99996), 1.0, False, True), ((0.9, 0.8, 0.998), 1.0, False, False), ((-0.01, -0.0302, 0.01), -0.0304, False, True)],
)
def test_a_number_is_compared_as_the_report_shows_it(first, second, strictly, within):
    [row] = compare({("a",): one(*first)}, {"a": one(second, 0, 1)})
    assert (row["strictly_within"], row["within"]) == (strictly, within)


def test_a_number_that_is_not_there_again_is_outside():
    rows = compare({("a", "b"): one(0.5, 0.4, 0.6)}, {"a": {"b": {"unfit": "could not be trained"}}})
    assert (rows[0]["second"], rows[0]["within"], rows[0]["within_bonferroni"]) == (None, False, False)
    assert [path for path, _ in measures({"a": [{"b": one(0, 0, 1)}, {"value": 1}]})] == [("a", "0", "b")]


def test_it_trains_three_times_as_long_under_other_seeds_and_leaves_the_division_of_val(tmp_path, monkeypatch):
    seen = []

    def stage(ctx):
        name = ctx.out.name
        drawn = [runtime.derive_seed(ctx.config.seed, purpose) for purpose in ("val", name)]
        seen.append((name, ctx.config.evaluate.classifier_images, (plateau.PATIENCE, plateau.LEAST), drawn, ctx.folder("ingest")))
        (ctx.out / {"evaluate": "evaluation.json", "stress": "stress.json"}[name]).write_text('{"n": 1}')
        return {}

    for module in (evaluate, stress):
        monkeypatch.setattr(module, "run", stage)
    settings, usual = config(), (plateau.PATIENCE, plateau.LEAST)
    arms = {"real": {"curve": [[2048, 0.9], [4096, 0.2]]}, "real+synthetic": {"curve": [[2048, 0.8], [8192, 0.1]]}}
    (tmp_path / "run" / "evaluate").mkdir(parents=True)
    (tmp_path / "run" / "evaluate" / "evaluation.json").write_text(json.dumps({"training": {"arms": arms}}))
    assert measure_again(settings, tmp_path / "run", tmp_path / "again", 1) == {"evaluate": {"n": 1}, "stress": {"n": 1}}
    assert [name for name, *_ in seen] == ["evaluate", "stress"]
    for name, images, waited, (val, own), ingest in seen:
        assert images == 3 * settings.evaluate.classifier_images
        assert waited == (3 * usual[0], 3 * 8192), "three times what the longest training saw"
        assert val == runtime.derive_seed(settings.seed, "val")
        assert own != runtime.derive_seed(settings.seed, name)
        assert ingest == tmp_path / "run" / "ingest"
    assert usual == (plateau.PATIENCE, plateau.LEAST)

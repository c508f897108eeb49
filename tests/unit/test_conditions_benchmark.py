"""The benchmark of conditions: its judges on phantoms whose truth is known, and the set of fourteen findings."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.intervals import Interval
from pipeline.config import IngestConfig
from pipeline.ingest.readers import medmnist
from tests.benchmarks import chestmnist_phantoms, conditions, rendered


@pytest.fixture(scope="module")
def bank():
    return rendered.Rendered.draw(60, 0, 32)


@pytest.fixture
def knowing(bank, monkeypatch):
    """A judge that knows the images of the bank."""
    monkeypatch.setattr(rendered, "NEAREST", 1)
    return rendered.Fit(bank)


def test_the_fitted_renderer_tells_what_an_image_of_its_own_shows(bank, knowing):
    known = bank.marks >= 0
    np.testing.assert_array_equal(knowing.marks(bank.images)[known], bank.marks[known] == 1)
    rows = bank.marks[:, 1] == 1
    np.testing.assert_allclose(knowing.severity(bank.images[rows], "effusion"), bank.severity[rows])


def test_errors_and_shares_are_those_of_the_truth_for_a_judge_that_knows_it(bank, knowing):
    its = conditions.errors(knowing, bank, {})
    assert all(one["sensitivity"].value == one["specificity"].value == 1 for one in its.values())
    assert its["nodule"]["sensitivity"].n == (bank.marks[:, 2] == 1).sum()
    present = conditions.share(knowing, its, bank.images, "effusion", True)["corrected"]
    absent = conditions.share(knowing, its, bank.images, "effusion", False)["corrected"]
    assert present.value == pytest.approx((bank.marks[:, 1] == 1).mean())
    assert absent.value == pytest.approx(1 - present.value)
    assert absent.low < absent.value < absent.high


def test_a_side_is_that_of_the_images_which_show_the_finding(bank, knowing):
    its = conditions.errors(knowing, bank, {})
    told = conditions.sided(knowing, its, bank.images, "effusion", "left")
    has = bank.marks[:, 1] == 1
    assert told["present"]["called"].value == pytest.approx(has.mean())
    assert (told["side"]["called"].value, told["side"]["called"].n) == (pytest.approx((bank.marks[has, 4] == 1).mean()), has.sum())
    none = conditions.sided(knowing, its, bank.images[~has], "effusion", "right")
    assert none["present"]["called"].value == 0
    assert none["side"] == {}, "nothing that is shown has a side"


def test_severity_and_size_are_graded_where_the_finding_shows(bank, knowing):
    true = rendered.Rendered.severe("effusion", conditions.SEVERITIES, 3, 5, 32)
    assert true.severity.tolist() == np.repeat(conditions.SEVERITIES, 3).tolist()
    assert (true.marks[:, 1] == 1).all()
    exact, sets = rendered.Fit(true), list(np.split(true.images, 5))
    told = conditions.graded(exact, "effusion", sets)
    assert (told["size_error"].value, told["size_error"].n) == (pytest.approx(0), 15)
    assert told["severity_rank"].value == pytest.approx(1)
    # What is more severe than asked is too large by its share of what severity adds.
    assert conditions.graded(exact, "effusion", [sets[4]] * 5)["size_error"].value == pytest.approx(
        np.mean([(0.9 - one) * 85 / (50 + 85 * one) for one in conditions.SEVERITIES])
    )
    normal = bank.images[(bank.marks[:, :4] == 0).all(axis=1)][:4]
    empty = conditions.graded(knowing, "effusion", [normal] * 5)
    assert empty["size_error"].n == 0
    assert np.isnan(empty["severity_rank"].value)


def test_rank_correlation_has_an_interval_that_narrows_with_more_images():
    asked = np.repeat(conditions.SEVERITIES, 40)
    noise = np.random.default_rng(0).normal(size=len(asked))
    few, many = conditions.rank((asked + noise)[::10], asked[::10]), conditions.rank(asked + noise, asked)
    assert few.high - few.low > many.high - many.low
    assert many.low < many.value < many.high < 1
    assert np.isnan(conditions.rank(noise, np.ones(len(noise))).value)


def test_severity_is_learned_as_the_steps_that_it_exceeds(bank):
    marks = bank.labelled().findings
    first = 5 + rendered.STEPS  # of effusion
    has = bank.marks[:, 1] == 1
    steps = marks[:, first : first + rendered.STEPS]
    assert (steps[~has] == -1).all()
    np.testing.assert_allclose(steps[has].mean(axis=1), bank.severity[has], atol=0.5 / rendered.STEPS + 1e-9)


def test_what_is_held_out_is_all_that_has_it(bank):
    asked = {"findings": ["nodule"], "attributes": {"side": "left", "sex": "F"}}
    rows = conditions._has(bank, asked)
    kept = bank.take(~rows)
    assert 0 < rows.sum() < (bank.marks[:, 2] == 1).sum()
    assert not ((kept.marks[:, 2] == 1) & (kept.marks[:, 4] == 1) & (kept.sex == "F")).any()
    assert len(kept.cohort()) == (~rows).sum()


def test_each_aim_is_told_with_its_verdict_and_what_cannot_be_told_is_left_out(bank, knowing):
    its = conditions.errors(knowing, bank, {})
    certain, unsure, never = Interval(0.99, 0.97, 1, 400), Interval(0.9, 0.85, 0.94, 400), Interval(0.2, 0.1, 0.3, 400)
    found = {"present": {}, "absent": {}, "both": {}, "one_without": {}, "side": {}, "size": {}, "unseen": {}}
    found["present"] = {"a": {"corrected": certain}, "b": {"corrected": unsure}, "c": {"corrected": never}, "d": {}}
    found["unseen"] = {"x + y": {"y": {"corrected": certain}}}
    said = conditions.lines(found, its)
    verdicts = {line.split("|")[1].strip(): line.split("|")[4].strip() for line in said}
    assert [verdicts.get(f"present: {name}") for name in "abcd"] == ["reached", "open", "not reached", None]
    assert verdicts["never seen together: x + y: y"] == "reached"


def test_the_network_marks_what_it_finds_more_likely_than_not(bank):
    judge = object.__new__(rendered.Network)
    p = np.linspace(0, 1, 2 * (rendered.MARKS + 4 * rendered.STEPS)).reshape(2, -1)
    judge.classifier = SimpleNamespace(predict=lambda images: p[: len(images)])
    np.testing.assert_array_equal(judge.marks(bank.images[:2]), p[:, :5] > 0.5)
    np.testing.assert_allclose(judge.severity(bank.images[:2], "effusion"), p[:, 13:21].mean(axis=1))


def test_sharpened_images_have_more_of_the_finest_contrast_and_the_same_flat_ones(bank):
    flat = np.full((2, 1, 32, 32), 200, np.uint8)
    np.testing.assert_array_equal(conditions.sharpened(flat), flat)

    def fine(images):
        return np.std(np.diff(images.astype(float), n=2, axis=-1))

    assert 1.1 < fine(conditions.sharpened(bank.images)) / fine(bank.images) < 1.25


def test_errors_on_sharper_renderings_stand_beside(bank, knowing):
    its = conditions.errors(knowing, bank, {})
    called = knowing.marks(conditions.sharpened(bank.images))[:, 0]
    assert its["cardiomegaly"]["sharper"]["sensitivity"].value == called[bank.marks[:, 0] == 1].mean()


@pytest.mark.slow
def test_it_trains_and_tells_every_aim_at_the_smallest_size(tmp_path, monkeypatch, capsys):
    small = ("train.images=128", "train.widths=[16,32]", "train.batch=32", "generate.steps=2")
    settings = [part for one in small for part in ("--set", one)]
    monkeypatch.setattr(conditions, "SCALES", (3.0,))
    monkeypatch.setattr(
        "sys.argv",
        ["conditions", "--patients", "240", "--count", "4", "--judged", "60", "--ceiling", "640", "--out", str(tmp_path), *settings],
    )
    conditions.main()
    said = capsys.readouterr().out
    assert all(f"judge, {name}: specificity" in said for name in rendered.FINDINGS)  # other lines need a judge better than chance
    assert all(f"\n{name}\n" in said for name in ("network", "renderer"))
    found = json.loads((tmp_path / "conditions.json").read_text())
    assert found["training"]["left_out"] > 0
    # Of so few patients other pairs are unseen too.
    assert set(found["network"]["unseen"]) >= {"cardiomegaly + pneumothorax", "nodule left F"}
    assert len(found["network"]["unseen"].keys() | found["network"]["both"].keys()) == 6 + 1
    assert (tmp_path / "conditions.png").is_file()


def test_fourteen_findings_are_read_as_chestmnist_is(tmp_path: Path):
    path = chestmnist_phantoms.write(tmp_path, 40)
    found = medmnist.read(IngestConfig(source="medmnist", dataset="chestmnist", path=tmp_path), path)
    assert found.findings.shape[1] == len(chestmnist_phantoms.FOURTEEN) == 14
    assert set(np.unique(found.findings)) == {0, 1}
    assert set(found.split) == {"train", "val", "test"}

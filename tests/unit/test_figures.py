"""Every figure is shown from one place, to the same digits: in the report, the data card, ``show`` and the stages' summaries."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from release_run import AUDIT, CLASSES, EVALUATION, STRESS, change, config, decide, make_context
from rich.console import Console

from pipeline import artifacts
from pipeline.release.cards import data_card, render_card
from pipeline.release.figures import Judged, audit_figures, evaluation_figures, recipe_figures, sentences, stress_figures, summary
from pipeline.release.report import change_table, render_report, tiles, worst_drops
from pipeline.release.results import Results, interval, number, standing
from pipeline.show import show

NUMBER = r"−?\d[\d,]*(?:\.\d+)?"
INTERVAL = re.compile(rf"({NUMBER}) \((?:spread )?({NUMBER}) to ({NUMBER})\)")
FIGURES = (*audit_figures(AUDIT), *evaluation_figures(EVALUATION), *stress_figures(STRESS))


def leaves(tree: Any) -> Iterator[dict[str, Any]]:
    """Every measure of a stage's JSON."""
    if isinstance(tree, dict) and "value" in tree:
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from leaves(value)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ctx = make_context(tmp_path_factory.mktemp("figures") / "run")
    gate = decide("pass") | {"digests": {"images": "0" * 64, "weights": None, "pixels": "1" * 64, "rows": "2" * 64}, "attempt": 1}
    results = Results.load(config(), ctx.folder, gate, ctx.records)
    artifacts.write_json(ctx.out / "gate.json", gate)
    artifacts.publish(ctx.out, {}, summary={"verdict": "pass"}, seconds=1.0)
    stream = io.StringIO()
    show(ctx.run, Console(file=stream, width=220))
    found = {
        "report": render_report(results, {}),
        "card": render_card(data_card(results, dict.fromkeys(CLASSES, 8))),
        "show": stream.getvalue(),
    }
    plain = {name: html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)) for name, text in found.items()}
    return plain | {"summary": "\n".join(summary(FIGURES).values())}


@pytest.mark.parametrize("name", ["report", "card", "show", "summary"])
def test_every_interval_that_is_shown_is_a_measure_of_the_run_to_the_same_digits(documents: dict[str, str], name: str) -> None:
    known = {interval(leaf) for tree in (AUDIT, EVALUATION, STRESS, {"checks": decide("pass")["checks"]}) for leaf in leaves(tree)}
    shown = {match[0] for match in INTERVAL.finditer(documents[name])}
    assert shown
    assert shown <= known, shown - known


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_every_judged_figure_is_shown_everywhere_with_the_same_text(documents: dict[str, str], figure: Judged) -> None:
    private = figure in audit_figures(AUDIT)
    for name in ("report", "show", "summary") if private else ("report", "card", "show", "summary"):
        text = " ".join(documents[name].split())
        bounds = figure.text.partition(" (")[2].rstrip(")")
        assert figure.value in text, name
        assert bounds in text, name


@pytest.mark.parametrize("arm", ["real+synthetic", "synthetic"])
def test_a_sentence_for_each_class_says_what_changed_or_that_no_change_could_be_shown(documents: dict[str, str], arm: str) -> None:
    found = sentences(EVALUATION, [arm])
    assert len(found) == len(CLASSES)
    what = {"real+synthetic": "Adding 2,000 synthetic images", "synthetic": "Training on 2,000 synthetic images instead of the real ones"}[
        arm
    ]
    assert all(line.startswith(what) for line in found)
    of_class = {name: next(line for line in found if name in line) for name in CLASSES}
    of = EVALUATION["utility"]["differences"][arm]["per_class"]
    assert of_class["nodule"] == f"{what} changed sensitivity for nodule by {interval(of['nodule']['sensitivity'])}."
    assert "no change of sensitivity for normal could be shown" in of_class["normal"]
    assert "too few test patients" in of_class["pneumothorax"]
    if arm == "real+synthetic":  # an interval of its own beside zero, one of many
        assert "does not stand among all that were compared" in of_class["effusion"]
    for name in ("report", "card", "show") if arm == "real+synthetic" else ("report",):
        text = " ".join(documents[name].split())
        assert all(" ".join(line.split()) in text for line in found), name


def test_a_class_without_a_threshold_is_not_said_to_lack_test_patients() -> None:
    """The threshold of a sensitivity is set on held-out images; with too few of them the AUC is compared none the less."""
    none = {"value": None, "low": None, "high": None, "n": 0, "p": None, "stands": False}
    facts = {"nodule": {"auc": change(0.02, 0.01), "sensitivity": none}, "other": {"auc": none, "sensitivity": none}}
    found = sentences({"utility": {"synthetic": 500, "differences": {"real+synthetic": {"per_class": facts}}}})
    assert "held-out images without nodule" in found[0]
    assert "too few test patients with or without other" in found[1]


@pytest.mark.parametrize(
    ("measure", "shown"),
    [
        ({"value": None, "low": 0.0, "high": 1.0, "n": 0}, "–"),
        ({"value": None, "low": None, "high": None, "n": 0}, "–"),
        ({"value": 0.0, "low": 0.0, "high": 0.0, "n": 1300}, "0"),
        ({"value": 0.0123, "low": 0.0123, "high": 0.0123, "n": 1300}, "0.012"),
        ({"value": 0.95, "low": None, "high": None, "n": 3}, "0.950 (too few for an interval)"),
        ({"value": 480, "low": None, "high": None, "n": 480}, "480"),
        ({"value": 0.0, "low": 0.0, "high": 0.004, "n": 1300}, "0 (0 to 0.0040)"),
    ],
)
def test_no_value_is_a_dash_a_count_stands_alone_and_an_estimate_without_an_interval_says_so(measure: dict[str, Any], shown: str) -> None:
    assert interval(measure) == shown


def test_a_figure_of_an_unfit_judge_is_its_reason_said_once() -> None:
    reason = "could not be trained on so few images"
    fidelity = {"unfit": reason, "two_sample": {"unfit": reason}}
    found = evaluation_figures(EVALUATION | {"fidelity": fidelity, "label_fidelity": {"macro": {"unfit": reason}, "per_class": {}}})
    assert [figure.text for figure in found].count(reason) == 1
    blind = stress_figures({"unfit": reason})
    assert [(figure.key, figure.text) for figure in blind] == [("classifier", reason)]
    [still] = evaluation_figures({"label_fidelity": {"macro": {"unfit": "was still learning"}}})
    assert still.text == "its classifier was still learning"
    assert evaluation_figures({}) == audit_figures({}) == stress_figures({}) == sentences({}) == []


@pytest.mark.parametrize(
    ("gate", "cohort", "said"),
    [
        ({"attempt": 1}, {}, "First attempt on this cohort"),
        ({"attempt": 4}, {}, "Attempt 4 on a known cohort"),
        ({"attempt": None, "replication": True}, {}, "Replication"),
        ({"attempt": None}, {"replication": True}, "Replication"),
        ({}, {}, "First attempt"),
    ],
)
def test_figures_of_a_known_cohort_confirm_nothing(tmp_path: Path, gate: dict[str, Any], cohort: dict[str, Any], said: str) -> None:
    ctx = make_context(tmp_path / "run")
    base = Results.load(config(), ctx.folder, decide("inconclusive") | {"digests": {"images": {}, "pixels": ""}}, ctx.records)
    found = replace(base, gate={**base.gate, **gate}, cohort={**base.cohort, **cohort})
    assert standing(found).startswith(said)
    assert ("confirm nothing" in standing(found)) == (not said.startswith("First"))
    assert said in render_report(found, {})


def test_the_worst_corruption_is_one_that_stands_or_none() -> None:
    assert worst_drops(STRESS) == ["Bias field, severity 5: AUC lower by 0.375 (0.335 to 0.415)."]
    assert "No corruption was shown" in worst_drops(STRESS | {"worst": []})[0]
    assert worst_drops({}) == []
    assert [figure.key for figure in stress_figures(STRESS | {"worst": []})] == ["mean_drop_auc"]


def test_subgroups_that_are_too_small_have_a_row_without_figures() -> None:
    rows = change_table(EVALUATION["utility"]["subgroups"])
    assert rows[0] == ("Sex F", "nodule", "real and synthetic images", "0.021 (0.001 to 0.041)", "0.082 (0.012 to 0.152) *")
    assert rows[1] == ("Sex M", "nodule", "fewer than 11 patients with or without it", "–", "–")


@pytest.mark.parametrize("value", [0.0016, 0.0123, -0.0004, 0.5, 0.0, 1.0, 12.3456])
def test_a_tile_has_the_digits_of_the_interval_beside_it(tmp_path: Path, value: float) -> None:
    ctx = make_context(tmp_path / "run")
    measure = change(value, 0.0301)
    evaluation = EVALUATION | {"utility": EVALUATION["utility"] | {"differences": {"real+synthetic": {"auc": measure}}}}
    found = replace(Results.load(config(), ctx.folder, decide("pass"), ctx.records), evaluation=evaluation)
    shown, note = next((shown, note) for name, shown, note in tiles(found) if name == "AUC, synthetic images added")
    assert f"{shown} ({note.rpartition('; ')[2]})" == interval(measure)


def test_the_tile_of_a_judge_that_was_not_fit_gives_the_reason_and_no_interval(tmp_path: Path) -> None:
    ctx = make_context(tmp_path / "run")
    reason = "the encoder could not be trained on so few images: AUC 0.62 (0.40 to 0.80)"
    evaluation = EVALUATION | {"fidelity": EVALUATION["fidelity"] | {"frechet": {"ratio": {"unfit": reason}}}}
    found = replace(Results.load(config(), ctx.folder, decide("pass"), ctx.records), evaluation=evaluation)
    assert ("Fréchet distance ÷ floor", "–", reason) in tiles(found)


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.0, "0"), (3e-9, "under 0.000001"), (-3e-9, "above −0.000001"), (-0.0004, "−0.00040"), (-2, "−2")]
)
def test_what_is_next_to_nothing_is_told_as_such_on_either_side_of_zero(value: float, shown: str) -> None:
    assert number(value) == shown


def test_no_bound_of_an_interval_is_a_negative_zero() -> None:
    assert interval({"value": -0.0001, "low": -0.0004, "high": 0.0301, "n": 400}) == "0.000 (0.000 to 0.030)"


def test_a_length_that_is_still_open_is_told_as_a_bound_and_an_ended_one_by_what_ended_it() -> None:
    recipe = {"fitted": {"images": 8000}, "reasons": {"images": "about 10 minutes"}}
    [open_] = recipe_figures(recipe)
    assert (open_.name, open_.text) == ("images in training (at most: about 10 minutes; less where the losses part)", "8,000")
    [ended] = recipe_figures(recipe | {"chosen": {"images": 4000, "why": "they parted"}})
    assert (ended.name, ended.text) == ("images in training (they parted)", "4,000")
    [timed] = recipe_figures(recipe | {"probe": {"minutes": 10}})
    assert timed.name == "images in training (about 10 minutes)"

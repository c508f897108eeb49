"""The data card: one model, its schema, and its Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from release_run import AUDIT, CLASSES, config, decide, make_context

from pipeline.release.cards import DataCard, data_card, dataset_card, render_card, template
from pipeline.release.results import Results, counted, interval, limitations, number
from privacy import limits


def results(run: Path) -> Results:
    ctx = make_context(run)
    digests = {"images": "0" * 64, "weights": "3" * 64, "pixels": "1" * 64, "rows": "2" * 64}
    gate = decide("pass") | {"digests": digests, "attempt": 2}
    return Results.load(config(), ctx.folder, gate, ctx.records)


def test_shipped_schema_is_that_of_the_model() -> None:
    assert json.loads(template("data_card.schema.json")) == DataCard.model_json_schema()


def test_card_states_verdict_power_figures_and_counts(tmp_path: Path) -> None:
    card = data_card(results(tmp_path), dict.fromkeys(CLASSES, 8))
    text = render_card(card)
    assert DataCard.model_validate_json(card.model_dump_json()) == card
    assert card.images == 40
    assert card.attempt == 2
    assert "| JPEG of quality 15 (not certified) | 0.710 (0.670 to 0.750) |" in text
    assert "| nodule | 8 |" in text
    assert "−0.030 (−0.048 to −0.012)" in text
    assert f"attempt 2 on this cohort, version {limits.GATE_VERSION} of the gate" in text
    assert "Embedded" not in text
    assert "A parametric phantom" in text
    assert all(check.name != "membership_weights" for check in card.checks), "a check of the weights is no part of the images' card"


def test_markdown_cannot_be_broken_by_what_it_quotes(tmp_path: Path) -> None:
    card = data_card(results(tmp_path), {"a|b\n# title": 1, "<script>": 2})
    text = render_card(card)
    assert "\n# title" not in text
    assert r"a\|b # title" in text
    assert r"\<script\>" in text


def test_card_of_an_unpassed_cohort_is_impossible(tmp_path: Path) -> None:
    found = results(tmp_path)
    failed = replace(found, gate=found.gate | {"images": {"verdict": "fail", "reasons": []}})
    with pytest.raises(ValidationError):
        data_card(failed, {"a": 1})


def test_limitations_name_what_was_measured_as_weak(tmp_path: Path) -> None:
    found = "\n".join(limitations(results(tmp_path)))
    assert "JPEG of quality 15" in found
    assert "“unchanged”" not in found
    assert found.count("No verdict certifies copies that were changed in other ways") == 1
    assert "“nodule”" in found
    assert "“normal”" not in found
    assert "AUC difference −0.030" in found
    assert "two-sample" in found
    by_image = replace(results(tmp_path), audit=AUDIT | {"unit": "image"}, gate={})
    assert any("by image, not by patient" in line for line in limitations(by_image))


def test_named_datasets_have_cards_and_other_names_none() -> None:
    assert all(dataset_card(name) for name in ("phantom", "breastmnist", "pneumoniamnist"))
    assert dataset_card("nosuchset") is None
    assert dataset_card("../secrets") is None


def test_figures_show_as_many_places_as_they_need() -> None:
    assert interval({"value": 0.0, "low": 0.0, "high": 0.0015, "n": 2000}) == "0 (0 to 0.0015)"
    assert interval({"value": 0.93456, "low": 0.9, "high": 1.0, "n": 5}) == "0.935 (0.900 to 1)"
    assert interval({"value": None, "low": None, "high": None, "n": 0}) == interval(None) == number(None) == "–"
    assert interval({"value": -0.0002, "low": -0.1, "high": 0.1, "n": 9}) == "0.000 (−0.100 to 0.100)"
    assert interval({"value": 0.5, "low": None, "high": None, "n": 3}) == "0.500 (too few for an interval)"
    assert number(12345) == "12,345"
    assert number(-0.03) == interval(-0.03) == "−0.030"
    assert number(0.00001) == "0.000010"
    assert number(1.2e-7) == "under 0.000001"
    assert number(150.25) == "150.2"
    assert (counted(1, "class", "classes"), counted(2000, "class", "classes")) == ("1 class", "2,000 classes")

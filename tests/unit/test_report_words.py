"""What the report says: its first screen, its names, numbers and sentences, as a reader who is no programmer takes them."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cohort_runs import ingest, pictures
from release_run import AUDIT, EVALUATION
from test_report import results

from pipeline import artifacts
from pipeline.release.cards import actions, data_card
from pipeline.release.page import check_page
from pipeline.release.report import render_report
from pipeline.release.results import Results, interval
from pipeline.release.words import setting, title
from privacy import kinds, limits


def first_screen(verdict: str, **gate: Any) -> str:
    """The banner's words, on single spaces."""
    found = results(verdict)
    page = render_report(Results(**{**vars(found), "gate": {**found.gate, **gate}}), {})
    return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(page).partition('class="banner')[2].partition("</section>")[0]).split())


def test_the_first_screen_says_what_a_pass_certifies_and_what_not() -> None:
    said = first_screen("pass")
    assert "These images may leave" in said
    assert "At most 0.25% of the images are copies of training images, of at most 2 patients" in said
    assert "at least 88.6% of those planted on purpose" in said
    assert "on 550 patients whom the generator never saw" in said
    assert "whether a certain person was in the training set: that was not shown" in said
    assert "4 kinds of them were tried, and the search finds fewest of “JPEG of quality 15”, 71 of 100" in said
    assert "they stay with the patients' data" in said


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_without_a_pass_nothing_is_certified(verdict: str) -> None:
    said = first_screen(verdict)
    assert "What this certifies" not in said
    assert "treat them as patient data" in said.lower() or "treat the images as patient data" in said.lower()


def test_a_verdict_by_image_says_nothing_of_patients() -> None:
    assert "Anything about patients" in first_screen("pass", unit="image")
    assert "Anything about patients" not in first_screen("pass")


def test_no_key_of_the_results_is_shown_as_it_is() -> None:
    page = render_report(results("pass"), {})
    texts = " ".join(re.sub(r"<[^>]+>", " ", page.partition("</style>")[2].partition("Provenance")[0]).split())
    assert not re.findall(r"\b[a-z]+_[a-z_]+\b", texts.replace("audit_share", ""))


def test_every_term_of_the_glossary_is_explained_once() -> None:
    page = render_report(results("pass"), {})
    for term in ("Floor", "Required kind", "Leading run", "Familywise"):
        assert page.count(f"<dt>{term}</dt>") == 1


@pytest.mark.parametrize("pixels", [28, 64])
def test_the_glossary_names_the_kinds_that_the_gate_requires_at_this_size(pixels: int) -> None:
    page = render_report(results("pass", audit=AUDIT | {"pixels": pixels}), {})
    meaning = page.partition("<dt>Required kind</dt>")[2].partition("</dd>")[0]
    assert meaning.endswith(": " + ", ".join(map(kinds.name, limits.required_kinds(pixels))) + ".")


def test_what_could_not_be_measured_leaves_no_gaps_in_sentences() -> None:
    unfit = {"unfit": "was still learning after 256 images, its ceiling"}
    labels = {"per_class": dict.fromkeys(EVALUATION["classes"], unfit)}
    evaluation = EVALUATION | {"fidelity": {"encoder": unfit} | unfit, "utility": unfit, "label_fidelity": labels}
    found = results("pass", evaluation=evaluation, stress={"classifier": "small"} | unfit)
    page = render_report(found, {})
    check_page(page, found.gate, {})
    blocks = re.sub(r"</?(?:b|code)>", "", page.partition("</style>")[2])
    said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", blocks)).split())
    assert not re.search(r" [.;:,] | of \.|: ;|\(\)", said)
    assert said.count("normal, cardiomegaly, effusion, nodule, pneumothorax: not measured") == 1
    assert "encoder was still" not in said


def test_de_identification_is_told_of_the_files_that_there_were(tmp_path: Path) -> None:
    """Of pictures neither the report nor the card speaks of DICOM's attributes, or of columns in which nothing stands."""
    ingest(pictures(tmp_path / "in"), tmp_path / "run")
    found = results("pass", deidentification=artifacts.read_object(tmp_path / "run" / "ingest" / "deidentification.json"))
    said = actions(found)
    assert said[0].startswith("Of a picture only its pixels are kept")
    assert said[-1] == (
        "Columns kept of every image: id, patient, split, modality, intensity_low, intensity_high, duplicate_group, values."
    )
    page = html.unescape(render_report(found, {}))
    check_page(render_report(found, {}), found.gate, {})
    assert all(one in page for one in said)
    assert "Patient ID" not in page
    gate = {**found.gate, "digests": {**found.gate["digests"], "rows": "0" * 64}}
    assert data_card(replace(found, gate=gate), {"normal": 4}, 4).deidentification == said


def test_bounds_on_one_side_say_so() -> None:
    assert interval({"value": 0.979, "low": 0.841, "high": None}) == "0.979 (at least 0.841)"
    assert interval({"value": 0.0, "low": None, "high": 0.0047}) == "0 (at most 0.0047)"
    assert interval({"value": 0.979, "low": None, "high": None}) == "0.979"


def test_settings_of_another_source_are_not_listed() -> None:
    found = results("pass")
    assert "phantom_patients" in found.settings["ingest"]
    own = found.config.ingest.model_copy(update={"source": "pictures", "path": Path("x"), "classes": ("a", "b")})
    found = replace(found, config=found.config.model_copy(update={"ingest": own}))
    assert "phantom_patients" not in found.settings["ingest"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "yes"),
        (None, "–"),
        ([], "–"),
        ({}, "–"),
        ([0.004, 160.0], "0.004, 160"),
        (60000, "60,000"),
        ({"a": 2}, "a: 2"),
        ("edm", "edm"),
    ],
)
def test_settings_are_written_for_people(value: Any, written: str) -> None:
    assert setting(value) == written


def test_names_within_a_path_keep_their_capitals() -> None:
    assert title("two_sample · imagenet").endswith(" · ImageNet features")
    assert title("two_sample · cnn").endswith(" · small network")
    assert title("membership_weights · auc").endswith(" · AUC")
    assert title("jpeg") == "JPEG"

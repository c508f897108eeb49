"""The report: one page without addresses or scripts, escaped, whole under missing figures, and without raster unless passed."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from release_run import AUDIT, EVALUATION, STRESS, config, decide, measure

from evaluation.utility import LEAST_PATIENTS
from pipeline.config import Asked
from pipeline.release.cards import data_card
from pipeline.release.curve import distance_curve, noise_curve
from pipeline.release.figures import audit_figures
from pipeline.release.findings_page import findings_table
from pipeline.release.page import check_page
from pipeline.release.plots import change_plot, legend, power_plot, whiskers
from pipeline.release.report import against_floor, class_table, heat_table, measures, prevalence_table, render_report
from pipeline.release.results import Results, limitations, planted, planted_copies

SAMPLES = {"normal": [b"\x89PNG fake"]}
VOID = {"meta", "img", "br", "hr", "line", "circle", "rect", "path"}


def results(verdict: str, **changed: Any) -> Results:
    gate = decide(verdict) | {"attempt": 3, "digests": {"images": "ab" * 32, "weights": None, "pixels": "cd" * 32}}
    record = {
        "seconds": 12.0,
        "finished": "2026-01-02",
        "hardware": {"machine": "x86_64", "cpus": 2},
        "digest": "ef" * 32,
        "packages": {"torch": "2"},
    }
    parts: dict[str, Any] = {
        "cohort": {"classes": EVALUATION["classes"]},
        "deidentification": {"actions": ["Removed <all> else."]},
        "model": {"parameters": 10},
        "audit": AUDIT,
        "evaluation": EVALUATION,
        "stress": STRESS,
    }
    return Results(config(), gate, {"generate": record, "ingest": record}, **(parts | changed))


class Balance(HTMLParser):
    """Checks that every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert (self.open.pop() if self.open else None) == tag


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_page_is_well_formed_and_self_contained(verdict: str) -> None:
    page = render_report(results(verdict), SAMPLES)
    assert Balance(page).open == []
    assert "<script" not in page
    assert re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page) is None
    assert re.search(r"https?://(?!www\.w3\.org/2000/svg)", page) is None
    assert "@import" not in page


def test_the_curve_of_the_training_is_drawn_in_a_reports_own_notation() -> None:
    moments = [{"images": 1000 * 2**k, "train": [0.5 / (k + 1)] * 4, "val": [0.6 / (k + 1)] * 4} for k in range(4)]
    recipe = {
        "curve": moments,
        "chosen": {"images": 4000, "why": "the ceiling was reached"},
        "fitted": {"images": 8000, "widths": [48, 96]},
        "reasons": {"widths": "32 pixels"},
    }
    with_, without = results("fail", recipe=recipe), results("fail", recipe={})
    page = render_report(with_, {})
    check_page(page, with_.gate, {})
    assert Balance(page).open == []
    drawn = page.count('<line class="whisker"') - render_report(without, {}).count('<line class="whisker"')
    assert drawn == 2 * (len(moments) - 1)
    assert "<td>channels of the network (32 pixels)</td><td>48, 96</td>" in page
    assert "<td>images in training (the ceiling was reached)</td><td>4,000</td>" in page
    assert "by length of training" not in render_report(without, {})


def test_raster_is_shown_on_pass_only() -> None:
    assert "data:image/png" in render_report(results("pass"), SAMPLES)
    for verdict in ("fail", "inconclusive"):
        page = render_report(results(verdict), SAMPLES)
        assert "<img" not in page
        assert "data:" not in page
        assert "<image" not in page
        assert "url(" not in page


def test_banner_gives_verdict_reasons_need_and_attempt() -> None:
    page = render_report(results("inconclusive"), {})
    assert "The evidence does not suffice to let the images leave" in page
    assert "calibrated on 146 sealed patients" in page
    assert "300 sealed patients are needed and 146 are there" in page
    assert "Attempt on this cohort <b>3</b>" in page
    assert "What would settle it" in page
    assert "What would settle it" not in render_report(results("pass"), {})


def test_text_is_escaped() -> None:
    page = render_report(results("pass", cohort={"title": "<script>alert(1)</script>"}), {'"><svg onload=x>': [b"x"]})
    assert "<script" not in page
    assert "<svg onload" not in page
    assert "Chest phantom &lt;demo&gt; cohort" in page


@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_missing_results_leave_dashes_not_errors(verdict: str) -> None:
    empty: dict[str, Any] = {key: {} for key in ("cohort", "deidentification", "model", "audit", "evaluation", "stress")}
    page = render_report(results(verdict, **empty), {})
    assert Balance(page).open == []
    assert "Not measured." in page
    none = {"value": None, "low": None, "high": None, "n": 0}
    odd = {"audit": {"power": [{"kind": "flip"}, {}], "membership": {"auc": none}, "copies": {"rate": None}}}
    odd |= {"evaluation": {"fidelity": {"frechet": {"synthetic": none}}, "utility": {"arms": {"real": {"auc": none}}}}}
    odd |= {"stress": {"corruptions": {"blur": [], "noise": [{"severity": 1, "auc": none}]}, "clean": {}}}
    assert Balance(render_report(results(verdict, **odd), {})).open == []


def test_local_paths_of_the_source_are_not_published(tmp_path: Path) -> None:
    secret = config().model_copy(
        update={
            "ingest": config().ingest.model_copy(
                update={"path": Path("/srv/mueller_anna"), "labels": "mueller.csv", "text_encoder": Path("/srv/mueller_anna/bert")}
            )
        }
    )
    models = {name: f"/srv/mueller_anna/{name}" for name in ("model", "against")}
    files = {name: Path(f"/srv/mueller_anna/{name}.yaml") for name in ("contract", "against_contract", "rules")}
    secret = secret.model_copy(update={"stress": config().stress.model_copy(update=models | files)})
    found = results("pass")
    page = render_report(Results(**{**vars(found), "config": secret}), {})
    assert "mueller" not in page


def test_prompts_of_a_plan_are_not_published() -> None:
    """They may repeat a report; those that may be told stand in the rows."""
    plan = (Asked(findings=("normal",), text="small sternotomy", without_text="zebra", count=3),)
    config_ = config().model_copy(update={"generate": config().generate.model_copy(update={"plan": plan})})
    page = render_report(Results(**{**vars(results("pass")), "config": config_}), {})
    assert "sternotomy" not in page
    assert "zebra" not in page


def test_a_listed_value_that_few_training_patients_have_is_not_published() -> None:
    """The model knows the values of enough of them; of a list that it was not told of nobody has counted."""
    listed = {"severity": "number", "ward": ("general", "witness protection"), "note": ("secret",)}
    config_ = config().model_copy(update={"ingest": config().ingest.model_copy(update={"attributes": listed})})
    told = [{"name": "severity", "values": [], "knots": [0.0, 1.0]}, {"name": "ward", "values": ["general", "paediatric"], "knots": []}]
    found = results("pass", model={"conditions": {"attributes": told}})
    page = render_report(Results(**{**vars(found), "config": config_}), {})
    assert "severity: number, ward: general, paediatric, note: values of a list" in page
    assert "witness" not in page
    assert "secret" not in page


def test_what_was_never_seen_together_is_told_apart() -> None:
    sides = {"per_class": {"effusion": {"auc": measure(0.9)}}, "auc": measure(0.91), "micro_auc": measure(0.92)}
    unseen = {"per_class": {"effusion": {"auc": measure(0.6)}}, "auc": measure(0.61), "micro_auc": measure(0.62)}
    found = {"judge": sides, "findings": {"label_fidelity": sides}, "n": {"unseen": 40}}
    heading, effusion, *_ = findings_table(found)
    assert (len(heading), len(effusion)) == (5, 5)
    found["findings"]["label_fidelity_unseen"] = unseen
    heading, effusion, macro, micro = findings_table(found)
    assert "never seen together" in heading[-1]
    assert [row[-1].split()[0] for row in (effusion, macro, micro)] == ["0.600", "0.610", "0.620"]
    assert [row[-2].split()[0] for row in (effusion, macro, micro)] == ["0.900", "0.910", "0.920"]
    told = results("pass", evaluation=EVALUATION | found)
    assert "40 images of what too few training patients had together" in " ".join(limitations(told))
    assert not any("had together" in line for line in limitations(results("pass")))
    assert heading[-1] in render_report(told, {})


def test_what_a_dash_among_findings_that_come_together_means_is_said() -> None:
    judged = {"per_class": {name: {"auc": measure(0.9)} for name in ("a", "b")}, "auc": measure(0.9), "micro_auc": measure(0.9)}
    shares = {"real": [[1.0, None], [0.2, 1.0]], "synthetic": [[1.0, 0.5], [None, 1.0]]}
    found = {"judge": judged, "findings": {"label_fidelity": judged, "together": shares}, "classes": ["a", "b"]}
    page = render_report(results("pass", evaluation=EVALUATION | found), {})
    assert "<td>– · 50%</td>" in page
    assert "A dash stands where fewer than 11 training patients had both" in page
    assert LEAST_PATIENTS == 11


def test_weights_whose_images_fail_are_never_said_to_be_shareable() -> None:
    page = render_report(results("fail"), {})
    assert "may be shared" not in page
    assert "weights failed: they stay" in page


def test_plots_span_their_intervals() -> None:
    plot = whiskers({"a": {"value": 0.61, "low": 0.55, "high": 0.67}, "b": {"value": None}})
    assert plot is not None
    assert [row.label for row in plot.rows] == ["A"]
    assert plot.low <= 0.55
    assert plot.high >= 0.67
    assert plot.x(plot.low) == 0
    assert plot.x(plot.high) == 1
    assert plot.x((plot.low + plot.high) / 2) == pytest.approx(0.5)
    flat = whiskers({"a": {"value": 0.5, "low": 0.5, "high": 0.5}})
    assert flat is not None
    assert flat.low < flat.high
    power = power_plot(AUDIT["power"])
    assert power is not None
    assert (power.low, power.high) == (0, 1)
    assert len(power.rows) == len(AUDIT["power"])
    assert power_plot(None) is None


def test_utility_is_a_forest_of_differences_around_none() -> None:
    plot = change_plot(EVALUATION["utility"])
    assert plot is not None
    measured = sum(
        facts["auc"]["value"] is not None for of in EVALUATION["utility"]["differences"].values() for facts in of["per_class"].values()
    )
    assert len(plot.rows) == 2 + measured
    assert plot.reference == 0
    assert plot.low < 0 < plot.high
    first = plot.rows[0]
    assert (first.label, first.value, first.tone) == ("all classes", -0.03, "synthetic")
    assert legend(EVALUATION["utility"]) == [("synthetic", "synthetic images alone"), ("realsynthetic", "real and synthetic images")]
    assert change_plot(None) is None
    page = render_report(results("pass"), {})
    assert "Differences to classifiers trained on real images" in page


def test_tables_find_every_measure_whatever_the_keys() -> None:
    tree = {"a": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}, "deep": {"er": {"value": 1, "n": 2}}, "list": [1], "count": 1234}
    assert list(measures(tree)) == [("a", "0.500 (0.400 to 0.600)", "9"), ("deep · er", "1", "2"), ("count", "1,234", "")]
    names = [row[0] for row in against_floor(EVALUATION["fidelity"])]
    assert names[:3] == ["frechet", "kid", "two_sample"]
    assert "prdc · coverage" in names
    assert len(names) == 7


def test_classes_too_small_to_measure_are_named_with_the_reason() -> None:
    table = class_table(EVALUATION["fidelity"]["per_class"])
    assert table["omitted"] == {"pneumothorax": "22 images a side, fewer than 50"}
    assert "pneumothorax" not in table["rows"]
    assert class_table({"nodule": {"two_sample": {"synthetic": None, "floor": None}}})["columns"] == [], "a row of dashes says nothing"
    shown = dict(zip(table["columns"], table["rows"]["nodule"], strict=True))
    assert shown["frechet"] == ("6.000 (5.600 to 6.400)", "1.700 (1.680 to 1.720)")
    assert "22 images a side" in render_report(results("pass"), {})


def test_labels_that_are_too_long_for_a_plot_keep_what_tells_them_apart() -> None:
    names = ["nodule", *(f"Enlarged cardiomediastinum with effusion, {side} side" for side in ("left", "right")), "肺" * 30, "W" * 60]
    plot = whiskers({name: measure(0.5) for name in names})
    shown = [row.short for row in plot.rows]
    assert shown[0] == "Nodule"
    assert shown[1] == "Enlarged card…on, left side"
    assert len(set(shown)) == len(names)
    assert max(map(len, shown)) <= 28
    assert len(shown[3]) <= 14  # as wide as two Latin letters each


def test_what_gives_the_images_away_is_told_where_it_was_looked_for() -> None:
    told = [{"feature": "black pixels", "synthetic": "more", "auc": {"value": 0.74, "low": 0.7, "high": 0.78, "n": 796}}]
    heading = "What gives the synthetic images away"
    for found, cell in (
        (told, "<td>more black pixels</td><td>0.740 (0.700 to 0.780)</td>"),
        ([], "was shown to tell them from real ones"),
        (None, None),
    ):
        with_ = results("pass")
        with_.evaluation["fidelity"] = EVALUATION["fidelity"] | {"two_sample": EVALUATION["fidelity"]["two_sample"] | {"giveaways": found}}
        page = render_report(with_, {})
        check_page(page, with_.gate, {})
        assert (heading in page, cell is None or cell in page) == (found is not None, True)


def test_prevalence_table_gives_ppv_at_each_prevalence() -> None:
    table = prevalence_table(STRESS["prevalence"])
    assert table["factors"] == [0.1, 0.5, 2.0]
    assert table["rows"]["nodule"][2] == ("0.300 (0.200 to 0.400)", "0.080")


def test_heat_grows_with_the_drop() -> None:
    table = heat_table(STRESS)
    assert table["severities"] == [1, 2, 3, 4, 5]
    assert [heat for _, heat in table["rows"]["jpeg"]] == [0] * 5
    assert [text for text, _ in table["rows"]["gaussian_noise"]] == ["0.890", "0.840", "0.790 *", "0.740 *", "0.690 *"]
    bias = [heat for _, heat in table["rows"]["bias_field"]]
    assert bias == sorted(bias)
    assert bias[-1] == 7


def test_a_rise_that_stands_has_no_star_which_says_that_a_drop_was_shown() -> None:
    steps = [
        {"severity": severity, "auc": measure(0.8 + by, 0.02, 100), "auc_drop": measure(-by, 0.02, 100) | {"stands": True}}
        for severity, by in ((1, 0.1), (2, -0.1))
    ]
    table = heat_table({"corruption_reference": {"auc": measure(0.8, 0.02, 100)}, "corruptions": {"contrast": steps}})
    assert [text for text, _ in table["rows"]["contrast"]] == ["0.900", "0.700 *"]


def test_required_kinds_come_first_and_the_others_are_called_not_certified() -> None:
    weak = [row | {"recall": measure(0.6, 0.1, 100)} if row["kind"] in ("shift", "flip") else row for row in AUDIT["power"]]
    found = results("pass", audit=AUDIT | {"power": weak})
    required, others = planted_copies(found.audit)
    assert [row["kind"] for row in required] == ["flip", "shift", "blur", "identity", "intensity"]
    assert [row["kind"] for row in others] == ["jpeg_15", "crop", "noise_strong", "rot90"]
    lines = [line for line in limitations(found) if "copies" in line.lower()]
    assert lines[0].lower().startswith("copies of required kinds could have been missed")
    assert "“mirrored” 0.600 (0.500 to 0.700), “moved” 0.600 (0.500 to 0.700)." in lines[0]
    assert lines[1].startswith(
        "No verdict certifies copies that were changed in other ways, of which the search finds: “JPEG of quality 15” 0.710 ("
    )
    assert len(lines) == 2
    assert all(name in lines[1] for name in ("cropped", "strong noise", "turned by quarters"))
    many = [{"kind": f"kind_{i}", "recall": measure(0.1 * i, 0.01, 100)} for i in range(8)]
    (line,) = [line for line in limitations(results("pass", audit=AUDIT | {"power": many})) if "No verdict certifies" in line]
    assert "“kind 4”" in line
    assert "“kind 5”" not in line
    assert line.endswith("; and 3 other kinds more often.")
    figures = {figure.key: figure for figure in audit_figures(found.audit)}
    assert "required" in figures["weakest_recall"].name
    assert "mirrored" in figures["weakest_recall"].name
    assert "not certified (JPEG of quality 15)" in figures["uncertified_recall"].name
    found.gate["digests"]["rows"] = "ef" * 32
    names = [figure.name for figure in data_card(found, dict.fromkeys(EVALUATION["classes"], 8)).power]
    assert names[:2] == ["mirrored", "moved"]
    assert names[5:] == [f"{name} (not certified)" for name in ("JPEG of quality 15", "cropped", "strong noise", "turned by quarters")]
    page = render_report(found, {})
    assert page.index("The kinds that the verdict rests on") < page.index("which no verdict certifies")


def test_kinds_that_larger_images_require_are_required_there() -> None:
    rows = [{"kind": "jpeg_50", "strength": None, "recall": measure(0.9)}]
    assert planted_copies({"pixels": 64, "power": rows}) == (rows, [])
    assert planted_copies({"pixels": 32, "power": rows}) == ([], rows)
    assert planted_copies({}) == ([], [])


def test_planted_copies_of_several_strengths_each_have_their_name():
    assert planted({"kind": "flip", "strength": None}) == "mirrored"
    assert planted({"kind": "regenerated", "strength": 0.25}) == "made anew from noise 0.25"


def test_every_region_that_may_scroll_takes_the_focus_and_has_a_name() -> None:
    page = render_report(results("pass"), SAMPLES)
    regions = re.findall(r'<div class="scroll"[^>]*>', page)
    assert len(regions) > 8
    assert all(re.search(r'tabindex="0" role="region" aria-label="[A-Z][^"]+"', region) for region in regions)


def test_distances_and_losses_are_drawn_in_a_reports_own_notation() -> None:
    counts = {"edges": [0.0, 0.1, 0.2, 0.3], "train": [0, 6, 2], "audit": [1, 5, 2]}
    validation = {"levels": [0.2, 0.5, 1.0], "train": [0.6, 0.4, 0.3], "val": [0.7, 0.5, 0.3]}
    copies = AUDIT["copies"] | {"distances": counts}
    found = results("fail", audit=AUDIT | {"copies": copies}, model={"validation": validation})
    page = render_report(found, {})
    check_page(page, found.gate, {})
    for words in (
        ">nearest training image<",
        ">nearest sealed image<",
        "The dashed line is the distance below",
        "by level of noise",
    ):
        assert words in page
    drawn = distance_curve(found.audit)
    assert drawn is not None
    (_, _, points), _ = drawn.lines
    assert points[2:4] == ((1 / 3, pytest.approx(0.75 / 0.8)), (2 / 3, pytest.approx(0.75 / 0.8)))
    assert drawn.chosen == pytest.approx(0.03 / 0.3)
    losses = noise_curve(found.model)
    assert losses is not None
    assert [label for _, label in losses.across] == ["0.2", "0.5", "1"]
    assert [x for x, _ in losses.lines[0][2]] == pytest.approx([0, math.log(2.5) / math.log(5), 1])
    assert distance_curve({}) is None
    assert noise_curve({"validation": {"levels": [1.0], "train": [1.0], "val": [1.0]}}) is None

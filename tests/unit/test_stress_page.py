"""What the page of a stress test says of the test's own power, and of markers."""

import json
import re

import pytest
from stress_result import stress_result

from pipeline.models import page, power

SHARE = {"value": 0.75, "low": 0.5, "high": 0.9, "n": 4}


def measured(version: int) -> str:
    rows = [
        {"defect": "sound", "dose": 0.0, "n": 12, "by shifts": SHARE},
        {"defect": "marker", "dose": 0.85, "n": 4, "by shifts": SHARE},
    ]
    return json.dumps({"version": version, "conditions": "4 networks.", "rows": rows})


def test_power_that_was_not_measured_is_said_not_to_be() -> None:
    assert "has not been measured yet" in power.valid(None, 2)["missing"]
    assert "measured for its version 1, and not for 2" in power.valid(measured(1), 2)["missing"]
    assert power.table(power.valid(None, 2)) == []


def test_measured_power_is_told_by_what_was_planted_with_the_sound_ones_last() -> None:
    found = power.valid(measured(2), 2)
    [planted, sound] = power.table(found)
    assert planted == ("a site's letter as a shortcut, on 85% of the findings in training", found["rows"][1])
    assert "false alarm" in sound[0]


def test_the_headline_counts_victims_and_false_alarms_with_shares_and_intervals() -> None:
    """Clopper and Pearson's intervals of 3 of 4 and 9 of 12."""
    said = power.headline(power.valid(measured(2), 2))
    assert said == (
        "It found, of 4 classifiers with planted defects 3, a share of 0.750 (0.194 to 0.994), by real shifts; "
        "of 12 classifiers that are sound 9, a share of 0.750 (0.428 to 0.945), by real shifts."
    )
    assert power.headline(power.valid(None, 2)) == ""


def test_the_page_tells_first_how_far_synthetic_cases_rank_classifiers_as_real_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = {"value": 0.81, "low": 0.69, "high": 0.89, "n": 52}
    few = {"value": 0.5, "low": None, "high": None, "n": 4}
    found = json.loads(measured(2)) | {"ranking": {"all": rank, "defective": few}}
    monkeypatch.setattr(power, "measured", lambda version: power.valid(json.dumps(found), version))
    first = page.render(stress_result(), 3).partition("</section>")[0].partition("<details>")[0]
    assert "over all 52 classifiers 0.810 (0.690 to 0.890); over the 4 that are not sound 0.500 (too few for an interval)." in first
    assert "4 networks." in first


def test_the_page_says_what_the_measured_test_had_and_this_one_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 36 defects some were found by synthetic cases, and some by a sex that is missed: without either they would not be."""
    monkeypatch.setattr(power, "measured", lambda version: power.valid(measured(2), version))
    gap = {"column": "sex", "value": "F", "class": "normal", "sensitivity": SHARE, "gap": SHARE | {"stands": False}}
    whole = stress_result() | {"gaps": [gap]}
    assert power.unlike(whole) == []
    for change, said in (
        ({"modality": "CT"}, "of images of modality CT, under other shifts and without markers, it says nothing"),
        ({"modality": ""}, "of images whose modality is not known"),
        ({"synthetic": {}}, "No synthetic cases were asked here"),
        ({"gaps": []}, "a sex that is missed more often, this test would not have found"),
    ):
        [line] = power.unlike(whole | change)
        assert said in line
        assert line in page.render(whole | change, 3).partition("</section>")[0].partition("<details>")[0]
    monkeypatch.setattr(power, "measured", lambda version: power.valid(None, version))
    assert "No synthetic cases were asked here" not in page.render(whole | {"synthetic": {}}, 3)


@pytest.mark.parametrize("rank", [{}, {"ranking": {}}, {"ranking": {"all": {"value": None, "low": None, "high": None, "n": 9}}}])
def test_a_ranking_that_was_not_measured_is_said_not_to_be(rank: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(measured(2)) | rank
    for text in (json.dumps(found), None):
        monkeypatch.setattr(power, "measured", lambda version, text=text: power.valid(text, version))
        first = page.render(stress_result(), 3).partition("</section>")[0]
        assert "How far the order of classifiers on synthetic cases foretells their order on real ones was not measured." in first


def test_of_each_class_the_letter_is_told_that_stands_or_moves_it_most() -> None:
    def row(name: str, severity: int, value: float, stands: bool) -> dict[str, object]:
        return {"class": name, "severity": severity, "change": {"value": value, "stands": stands}}

    rows = [row("a", 1, 0.01, False), row("a", 5, 0.3, False), row("b", 2, 0.2, True), row("b", 3, 0.4, False), row("a", 3, -0.1, False)]
    found = page.strongest_markers({"marker": rows})
    assert [(one["class"], one["severity"]) for one in found] == [("b", 2), ("a", 5)]
    assert page.strongest_markers({}) == []


@pytest.mark.parametrize("several", [False, True])
def test_the_page_says_by_what_its_tables_are_tested_together(several: bool) -> None:
    """Sensitivity, markers and gaps are tables over findings; areas, harm and two models have one row a shift."""
    text = page.render(stress_result() | {"several": several}, 3)
    assert text.count("together (Holm within a finding, Bonferroni over the findings)") == (3 if several else 0)
    assert text.count("together (Holm)") == (2 if several else 5)


def test_no_number_of_the_page_stands_without_its_interval_and_its_n() -> None:
    """In a table, a cell with three decimals has an interval beside or below it, or its column says that there is none."""
    result = stress_result()
    rows = result["harm"]["conditions"]
    result["harm"]["conditions"] = [row | {"stands": True} for row in rows * 2]
    text = page.render(result, 3)
    bare = set()
    for table in re.findall(r"<table.*?</table>", text, re.DOTALL):
        head = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table)
        for row in re.findall(r"<tr>(<td.*?)</tr>", table, re.DOTALL):
            cells = re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
            bare |= {head[k] for k, cell in enumerate(cells) if head and re.search(r"\d\.\d{3}", cell) and " to " not in cell} - (
                {head[1]} if "without an interval" in cells[0] else set()
            )
    assert bare == {"Calibration error, without an interval"}
    assert "here are the first 20 of 40" in text
    assert "Images: Acquisition portable bedside unit 400, upright 400." in text
    assert text.count("420 images") >= 6


def test_a_page_of_too_few_cases_has_no_comparison_and_no_area() -> None:
    result = stress_result() | {"several": True}
    clean = {key: of for key, of in result["clean"].items() if key != "auc"}
    shifted = ("reference", "corruptions", "mean_drop", "worst", "sensitivities", "harm", "calibration", "marker", "synthetic")
    few = {key: of for key, of in result.items() if key not in shifted}
    text = page.render(few | {"fit": {"answer": "not enough data", "why": "too few"}, "clean": clean, "compared": []}, 4)
    assert "on the same cases" not in text
    assert "AUC, mean of" not in text
    assert "AUC, mean of findings" in page.render(result, 3)

"""The gate: three verdicts, from bounds, that anybody reaches again from the checks, with reasons that say what would do."""

import copy
import json

import pytest

from evaluation.intervals import clopper_pearson_lower, clopper_pearson_upper
from pipeline.config import load_config
from pipeline.errors import InputError
from pipeline.stages import check_settings
from privacy import gate

RECALL = clopper_pearson_lower(495, 500)


def interval(value: float, low: float, high: float, n: int = 1000) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


def upper(flagged: int, n: int) -> float:
    return clopper_pearson_upper(flagged, n) / RECALL


@pytest.fixture
def report():
    return {
        "unit": "patient",
        "n": {"train": 1300, "audit": 1300, "synthetic": 1000, "holdout_units": 600},
        "copies": {
            "flagged": 0,
            "rate": interval(0, 0, upper(0, 1000)),
            "threshold": 0.03,
            "leading_run": 1,
            "run_p": 0.5,
            "recall_low": RECALL,
        },
        "power": [
            {"kind": "identity", "core": True, "planted": 500, "found": 495},
            {"kind": "jpeg_15", "core": False, "planted": 100, "found": 3},
        ],
        "membership": {"auc": interval(0.52, 0.50, 0.54), "control_auc": interval(0.5, 0.47, 0.53)},
    }


def decide(report, max_copy_rate=None):
    return gate.decide(gate.checks(report, max_copy_rate))


def find(report, name, subject="images"):
    return next(check for check in gate.checks(report) if (check["name"], check["subject"]) == (name, subject))


def changed(report, change):
    report = copy.deepcopy(report)
    for section, values in change.items():
        report[section].update(values)
    return report


def test_an_honest_set_with_power_passes(report):
    judged = decide(report)
    assert judged["verdict"] == judged["images"]["verdict"] == "pass"
    assert judged["unit"] == "patient"
    assert judged["needed"] == []


def test_the_checks_are_named_as_everybody_names_them(report):
    names = [(check["name"], check["subject"]) for check in gate.checks(report)]
    images = ["copies", "repeats", "membership_images", "power", "holdout"]
    assert names == [(name, "images") for name in images] + [(name, "weights") for name in ("membership_weights", "split_bias", "power")]


@pytest.mark.parametrize(
    ("change", "verdict", "name"),
    [
        ({"copies": {"flagged": 1, "rate": interval(0.001, 0, 0.006)}}, "fail", "copies"),
        ({"copies": {"run_p": 0.009, "leading_run": 9}}, "fail", "copies"),
        ({"copies": {"rate": interval(0, 0, 0.0051)}}, "inconclusive", "copies"),
        ({"copies": {"recall_low": 0.79}}, "inconclusive", "power"),
        ({"n": {"holdout_units": 299}}, "inconclusive", "holdout"),
    ],
)
def test_each_check_can_turn_the_verdict(report, change, verdict, name):
    report = changed(report, change)
    assert decide(report)["verdict"] == verdict
    assert find(report, name)["verdict"] == verdict
    assert find(report, name)["reason"] in decide(report)["images"]["reasons"]


def test_a_copy_outweighs_missing_power(report):
    report["copies"].update(flagged=3, recall_low=0.1)
    assert decide(report)["verdict"] == "fail"


def test_both_signs_of_copies_are_told(report):
    report["copies"].update(flagged=3, run_p=0.001, leading_run=17)
    (reason,) = decide(report)["images"]["reasons"]
    assert "3 of 1000 synthetic images are copies" in reason
    assert "The 17 patients nearest" in reason


def test_inconclusive_says_how_many_images_would_do(report):
    report["n"].update(train=364, audit=182, holdout_units=182, synthetic=400)
    report["copies"].update(rate=interval(0, 0, 0.0078, 400), recall_low=0.96)
    needed = " ".join(decide(report)["needed"])
    assert "900 patients" in needed
    # 1 - 0.05^(1/N) = 0.005 · 0.96 at N = 623
    assert "623 synthetic images" in needed


def test_what_nothing_measures_is_not_judged_and_counts_only_where_the_gate_needs_it(report):
    for name in ("repeats", "membership_images"):
        check = find(report, name)
        assert (check["verdict"], check["n"], check["value"]) == ("not judged", 0, None)
    assert decide(report)["verdict"] == "pass"
    report["power"] = [row for row in report["power"] if not row["core"]]
    assert find(report, "power")["verdict"] == "not judged"
    assert decide(report)["verdict"] == "inconclusive"
    assert "power was not measured" in decide(report)["images"]["reasons"][0]


def test_weights_never_pass_without_measured_power_and_fail_on_evidence(report):
    assert decide(report)["weights"]["verdict"] == "inconclusive"
    assert "power on these weights was not measured" in decide(report)["weights"]["reasons"][0]
    report["membership"]["auc"] = interval(0.7, 0.66, 0.74)
    assert decide(report)["weights"]["verdict"] == "fail"
    assert decide(report)["verdict"] == "pass"


def test_weights_that_are_not_there_are_not_judged(report):
    del report["membership"]
    assert decide(report)["weights"]["verdict"] == "not judged"
    assert decide(report)["verdict"] == "pass"


def test_a_replication_never_passes(report):
    checks = gate.checks(report)
    for subject in ("images", "weights"):
        judged = gate.decide(checks, replication=True)[subject]
        assert judged["verdict"] == "inconclusive"
        assert gate.REPLICATION in judged["reasons"]
    report["copies"].update(flagged=1)
    judged = gate.decide(gate.checks(report), replication=True)
    assert judged["verdict"] == "fail"
    assert judged["images"]["reasons"][1:] == [gate.REPLICATION]


def test_without_a_holdout_nothing_is_certified_and_it_is_said(report):
    report["n"].update(audit=0, holdout_units=0)
    report["copies"].update(leading_run=700, run_p=1.0, recall_low=0.0, rate=interval(0, 0, 1))
    report["power"] = []
    judged = decide(report)
    assert judged["verdict"] == "inconclusive"
    assert "none are there" in judged["needed"][0]
    assert gate.contradictions(gate.checks(report)) == []


def test_an_attack_without_an_interval_is_not_judged(report):
    report["membership"]["auc"] = interval(0.7, None, None)
    assert find(report, "membership_weights", "weights")["verdict"] == "not judged"
    assert decide(report)["weights"]["verdict"] == "inconclusive"


def test_sides_that_differ_by_themselves_leave_the_weights_undecided(report):
    report["membership"]["control_auc"] = interval(0.6, 0.55, 0.65)
    assert find(report, "split_bias", "weights")["verdict"] == "inconclusive"


def test_the_verdict_follows_from_checks_that_went_through_json(report):
    checks = gate.checks(report)
    assert gate.decide(json.loads(json.dumps(checks))) == gate.decide(checks)
    assert gate.contradictions(checks) == []


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "pass"},
        {"reason": "Trust me."},
        {"meaning": "x"},
        {"flagged": 0, "value": 0},
        {"threshold": 0.9},
        {"threshold": 0},
        {"run_threshold": 0},
        {"run_p": -1},
        {"run_p": float("nan")},
        {"n": True},
        {"n": -1},
        {"n": 1.5},
        {"high": None},
        {"high": "0"},
        {"low": 0.9, "high": 0.1},
        {"unit": "site"},
        {"further": 1},
        {"name": "copy"},
        {"subject": "weights"},
    ],
)
def test_a_check_that_does_not_follow_from_its_numbers_is_no_verdict(report, change):
    report["copies"].update(flagged=2, rate=interval(0.002, 0, 0.008))
    checks = gate.checks(report)
    checks[0] |= change
    with pytest.raises(ValueError, match="check"):
        gate.decide(checks)


@pytest.mark.parametrize("strange", [[], [1, 2], [{}], [None] * 8, [[["name", "copies"]]]])
def test_strange_checks_are_no_verdict(strange):
    with pytest.raises(ValueError, match="checks"):
        gate.decide(strange)


def test_units_that_differ_are_no_verdict(report):
    checks = gate.checks(report)
    checks[4] = gate.judged("holdout", "images", checks[4] | {"unit": "image"})
    with pytest.raises(ValueError, match="different units"):
        gate.decide(checks)


@pytest.mark.parametrize("change", [{"high": 0.001}, {"low": 0.0001}, {"flagged": 1}, {"leading_run": 0}])
def test_bounds_that_do_not_follow_from_counts_are_contradictions(report, change):
    checks = gate.checks(report)
    checks[0] = gate.judged("copies", "images", checks[0] | change)
    assert gate.contradictions(checks)


def test_a_recall_that_does_not_follow_from_its_counts_is_a_contradiction(report):
    report["copies"]["recall_low"] = 0.985
    assert len(gate.contradictions(gate.checks(report))) == 2


def test_a_configuration_may_tighten_the_gate_and_not_loosen_it(report):
    assert decide(report, 0.001)["verdict"] == "inconclusive"
    for lax in (0.02, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="only be tightened"):
            gate.checks(report, lax)


def test_a_laxer_bound_is_refused_where_a_run_is_planned():
    check_settings(load_config("quickstart", ["release.max_copy_rate=0.001"]))
    with pytest.raises(InputError, match=r"release\.max_copy_rate.*tightened"):
        check_settings(load_config("quickstart", ["release.max_copy_rate=0.02"]))

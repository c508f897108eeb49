"""The gate: three verdicts, from bounds, with reasons that say what would do."""

import copy

import pytest

from pipeline.errors import InputError
from pipeline.release import gate


def interval(value: float, low: float, high: float, n: int = 1000) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.fixture
def report():
    return {
        "unit": "patient",
        "n": {"train": 1300, "audit": 1300, "synthetic": 1000, "holdout_units": 600},
        "copies": {
            "flagged": 0,
            "rate": interval(0, 0, 0.0031),
            "threshold": 0.03,
            "leading_run": 1,
            "run_p": 0.5,
            "recall_low": 0.96,
        },
        "power": [
            {"transform": "identity", "core": True, "planted": 100, "found": 99},
            {"transform": "jpeg_15", "core": False, "planted": 100, "found": 3},
        ],
        "membership": {"auc": interval(0.52, 0.50, 0.54), "control_auc": interval(0.5, 0.47, 0.53)},
    }


def test_an_honest_set_with_power_passes(report):
    judged = gate.decide(report)
    assert judged["verdict"] == "pass"
    assert judged["needed"] == []
    assert {check["name"] for check in judged["checks"]} >= {"copies", "leading run", "search power", "holdout", "copy rate", "membership"}


@pytest.mark.parametrize(
    ("change", "verdict", "name"),
    [
        ({"copies": {"flagged": 1, "rate": interval(0.001, 0, 0.006)}}, "fail", "copies"),
        ({"copies": {"run_p": 0.009, "leading_run": 9}}, "fail", "leading run"),
        ({"copies": {"recall_low": 0.79}}, "inconclusive", "search power"),
        ({"n": {"holdout_units": 299}}, "inconclusive", "holdout"),
        ({"copies": {"rate": interval(0, 0, 0.0051)}}, "inconclusive", "copy rate"),
    ],
)
def test_each_check_can_turn_the_verdict(report, change, verdict, name):
    changed = copy.deepcopy(report)
    for section, values in change.items():
        changed[section].update(values)
    judged = gate.decide(changed)
    assert judged["verdict"] == verdict
    assert next(check for check in judged["checks"] if check["name"] == name)["verdict"] == verdict


def test_a_copy_outweighs_missing_power(report):
    report["copies"].update(flagged=3, recall_low=0.1)
    assert gate.decide(report)["verdict"] == "fail"


def test_inconclusive_says_how_many_images_would_do(report):
    report["n"].update(train=364, audit=182, holdout_units=182, synthetic=400)
    report["copies"]["rate"] = interval(0, 0, 0.0078)
    needed = " ".join(gate.decide(report)["needed"])
    assert "900 patients" in needed
    # 1 - 0.05^(1/N) = 0.005 · 0.96 at N = 623
    assert "623 synthetic images" in needed


def test_weights_never_pass_without_measured_power_and_fail_on_evidence(report):
    assert gate.decide(report)["weights"]["verdict"] == "inconclusive"
    report["membership"]["auc"] = interval(0.7, 0.66, 0.74)
    judged = gate.decide(report)
    assert judged["weights"]["verdict"] == "fail"
    assert judged["verdict"] == "pass"


def test_a_configuration_may_tighten_the_gate_and_not_loosen_it(report):
    assert gate.decide(report, 0.001)["verdict"] == "inconclusive"
    with pytest.raises(InputError, match="only be tightened"):
        gate.decide(report, 0.02)

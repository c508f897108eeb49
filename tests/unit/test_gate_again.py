"""A verdict that anybody reaches again from the checks of a ``gate.json``, and that nobody reaches from others."""

import json

import numpy as np
import pytest
from gate_reports import decide, find, foreign, honest, interval, shadows

from privacy import gate
from privacy.judgements import DRAWN, judged


@pytest.fixture
def report():
    return honest()


@pytest.mark.parametrize("attacked", [False, True])
def test_the_verdict_follows_from_checks_that_went_through_json(report, attacked):
    if attacked:
        report["shadows"] = shadows()
        report["one_run"] = {"images": {"pairs": 500, "guesses": 100, "correct": 52, "epsilon_low": 0.0}}
    for attempt in (1, 7):
        checks = gate.checks(report, attempt=attempt, earlier_recall=0.9, earlier_attempt=3)
        assert gate.decide(json.loads(json.dumps(checks)), attempt=attempt) == gate.decide(checks, attempt=attempt)
        assert gate.contradictions(json.loads(json.dumps(checks))) == []


@pytest.mark.parametrize(
    "change",
    [
        *({"verdict": "pass"}, {"reason": "Trust me."}, {"meaning": "x"}, {"flagged": 0, "value": 0}),
        *({"threshold": 0.9}, {"threshold": 0}, {"run_threshold": 0}, {"exposed_threshold": 9}),
        *({"run_p": -1}, {"run_p": float("nan")}, {"n": True}, {"n": -1}, {"n": 1.5}, {"n": 9999}),
        *({"high": None}, {"high": "0"}, {"low": 0.9, "high": 0.1}, {"exposed": -1}, {"recall": 2}),
        *({"earlier_recall": "0.9"}, {"earlier_attempt": 1}, {"earlier_recall": 0.9, "earlier_attempt": 0}),
        *({"confidence": None}, {"confidence": 2}),
        *({"unit": "site"}, {"further": 1}, {"name": "copy"}, {"subject": "weights"}),
    ],
)
def test_a_check_that_does_not_follow_from_its_numbers_is_no_verdict(report, change):
    report["copies"].update(flagged=2)
    checks = gate.checks(report)
    checks[0] |= change
    with pytest.raises(ValueError, match="check"):
        gate.decide(checks)


@pytest.mark.parametrize(
    "change",
    [
        {"worst": "jpeg_15"},
        {"required": {"identity": [99, 100]}},
        {"required": None},
        {"others": {"blur 3": [1, 100]}},
        {"others": {"Jane Roe": [1, 100]}},
        {"others": {"a": [2, 1]}},
        {"others": {"a": [0, 0]}},
        {"others": [1]},
        {"pixels": 64},
        {"pixels": "64"},
    ],
)
def test_a_power_check_that_does_not_follow_from_its_numbers_is_no_verdict(report, change):
    checks = gate.checks(report)
    with pytest.raises(ValueError, match="power"):
        gate.decide([checks[0], checks[1], checks[2], checks[3] | change, *checks[4:]])


@pytest.mark.parametrize(
    "change",
    [
        {"trainings": 3},
        {"trainings": 0},
        {"tpr": None},
        {"tpr": interval(0.1, 0.2, 0.3)},
        {"loss": {"value": 0.5}},
        {"one_run": {"pairs": 1, "guesses": 2, "correct": 3}},
        {"one_run": {"pairs": 3, "guesses": 2, "correct": 1, "note": "Jane Roe"}},
        {"threshold": 0.6},
    ],
)
def test_a_membership_check_that_does_not_follow_from_its_numbers_is_no_verdict(report, change):
    report["shadows"] = shadows()
    checks = gate.checks(report)
    place = next(number for number, check in enumerate(checks) if check["name"] == "membership_weights")
    checks[place] = checks[place] | change
    with pytest.raises(ValueError, match="membership"):
        gate.decide(checks)


@pytest.mark.parametrize("strange", [[], [1, 2], [{}], [None] * 8, [[["name", "copies"]]]])
def test_strange_checks_are_no_verdict(strange):
    with pytest.raises(ValueError, match="checks"):
        gate.decide(strange)


def test_units_that_differ_are_no_verdict(report):
    checks = gate.checks(report)
    checks[4] = judged("holdout", "images", checks[4] | {"unit": "image"})
    with pytest.raises(ValueError, match="different units"):
        gate.decide(checks)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (0, {"high": 0.001}),
        (0, {"exposed": 0}),
        (0, {"flagged": 1}),
        (0, {"undecided": 1, "twins": 1}),
        (0, {"leading_run": 0}),
        (0, {"n": 1400}),
        (0, {"recall": 0.99}),
        (0, {"earlier_recall": 0.5}),
        (0, {"earlier_recall": 0.99, "earlier_attempt": 9}),
        (1, {"repeats": 3, "value": 0.002, "low": 0.002, "high": 0.002}),
        (1, {"constants": 3}),
        (3, {"low": 0.97}),
        (3, {"value": 0.98}),
        (3, {"n": 400}),
        (3, {"worst": "shift"}),
    ],
)
def test_bounds_that_do_not_follow_from_counts_are_contradictions(report, place, change):
    checks = gate.checks(report)
    checks[place] = judged(checks[place]["name"], "images", checks[place] | change)
    assert gate.contradictions(checks)


def test_a_bound_that_is_off_by_a_thousandth_is_a_contradiction(report):
    checks = gate.checks(report)
    checks[0] = judged("copies", "images", checks[0] | {"high": 1.001 * checks[0]["high"]})
    assert gate.contradictions(checks)


def test_a_holdout_of_more_patients_than_images_is_no_verdict(report):
    report["n"].update(audit=299, holdout_units=300)
    with pytest.raises(ValueError, match="a number that is none"):
        gate.checks(report)


# What is measured, and what is published of it.


def measured(report, rng):
    """The same with intervals of many digits, by where the report has them."""
    report["shadows"] = shadows()
    places = [(report["shadows"][subject], key) for subject in ("images", "weights") for key in ("auc", "tpr_at_1pct_fpr")]
    for owner, key in (*places, (report["membership"], "auc"), (report, "split_bias")):
        low, value, high = np.sort(rng.random(3)).tolist()
        owner[key] = interval(value, low, high)
    return report


def published(report):
    """Each measured interval beside the one of the checks."""
    weights, images = find(report, "membership_weights", "weights"), find(report, "membership_images")
    found = report["shadows"]
    yield from ((found[name]["auc"], check) for name, check in (("images", images), ("weights", weights)))
    yield from ((found[name]["tpr_at_1pct_fpr"], check["tpr"]) for name, check in (("images", images), ("weights", weights)))
    yield report["membership"]["auc"], weights["loss"]
    yield report["split_bias"], find(report, "split_bias", "weights")


def test_intervals_are_published_to_four_places_and_grow(report):
    rng = np.random.default_rng(0)
    for _ in range(50):
        for exact, shown in published(measured(report, rng)):
            assert all(round(shown[key], 4) == shown[key] for key in ("value", "low", "high"))
            assert exact["low"] - 1e-4 < shown["low"] <= exact["low"]
            assert exact["high"] <= shown["high"] < exact["high"] + 1e-4
            assert abs(shown["value"] - exact["value"]) <= 0.5e-4 + 1e-12


def test_two_measurements_that_differ_beyond_the_fourth_place_are_published_alike(report):
    one, other = (honest() | {"membership": {"auc": interval(0.52 + far, 0.50003 + far, 0.54007 + far)}} for far in (0.0, 1.7e-5))
    assert gate.checks(one) == gate.checks(other)
    rounded = honest() | {"membership": {"auc": interval(0.52, 0.5, 0.5401)}}
    assert gate.checks(rounded) == gate.checks(one), "what is rounded stays as it is"


def test_the_judgement_reads_what_is_published(report):
    """A bound that is too high in a place that is not published is too high."""
    report["shadows"] = shadows()
    report["shadows"]["weights"]["auc"] = interval(0.53, 0.51, 0.5499)
    assert decide(report)["weights"]["verdict"] == "pass"
    report["shadows"]["weights"]["auc"] = interval(0.53, 0.51, 0.5500001)
    assert decide(report)["weights"]["verdict"] == "inconclusive"


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e300, -0.1, 1.1, "0.5", True])
@pytest.mark.parametrize("end", ["value", "low", "high"])
@pytest.mark.parametrize("place", ["auc", "tpr", "loss", "bias", "foreign bias"])
def test_a_bound_that_is_no_share_is_no_verdict(report, odd, end, place):
    report["shadows"] = shadows()
    found = report["shadows"]["weights"]
    by_place = {"auc": found["auc"], "tpr": found["tpr_at_1pct_fpr"], "loss": report["membership"]["auc"]}
    by_place.get(place, report["split_bias"])[end] = odd
    with pytest.raises(ValueError, match="a number that is none"):
        gate.checks(foreign(report, DRAWN[1]) if place == "foreign bias" else report)


@pytest.mark.parametrize(
    ("count", "odd"),
    [
        ("flagged", -1),
        ("undecided", 1),
        ("undecided", -1),
        ("twins", None),
        *((count, odd) for count in ("run_p", "leading_run") for odd in (float("nan"), -1, 1.5, None, "9")),
    ],
)
def test_a_count_of_the_search_that_is_none_is_no_verdict(report, count, odd):
    report["copies"][count] = odd
    with pytest.raises(ValueError, match="a number that is none"):
        gate.checks(report)

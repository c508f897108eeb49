"""What is said of a classifier of several findings, from made-up probabilities of which the truth is known."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evaluation import foreign
from evaluation import rules as accept
from evaluation.data import Labelled
from evaluation.foreign import Answers, compared, labels_only
from evaluation.foreign_findings import answered, estimates, fit, judged, of_finding, pairs
from evaluation.intervals import to_json

NAMES = ("effusion", "nodule", "mass")
BLUR = ("blur", 5)


@pytest.fixture(scope="module")
def cases() -> Labelled:
    """400 images of 200 patients; every tenth nodule is unknown, and nobody has a mass."""
    rng = np.random.default_rng(0)
    findings = (rng.random((400, 3)) < [0.4, 0.3, 0]).astype(np.int8)
    findings[::10, 1] = -1
    return labels_only(findings, np.arange(400) // 2, {"sex": np.where(np.arange(400) // 2 % 2, "F", "M")})


@pytest.fixture(scope="module")
def answers(cases: Labelled) -> Answers:
    """Women's effusions are missed; under blur every other nodule is surely absent; noise does nothing."""
    rng = np.random.default_rng(1)
    p = 1 / (1 + np.exp(-(4 * (cases.findings == 1) - 2 + rng.normal(0, 1, (400, 3)))))
    p[np.flatnonzero((cases.findings[:, 0] == 1) & (cases.attributes["sex"] == "F"))[::2], 0] = 0.1
    struck = p.copy()
    struck[np.flatnonzero(cases.findings[:, 1] == 1)[::2], 1] = 0.001
    return Answers(p, {BLUR: struck, ("noise", 1): p.copy()})


def test_a_finding_is_asked_about_where_it_is_known(answers: Answers, cases: Labelled) -> None:
    own, known, rows = of_finding(answers, cases, 1)
    np.testing.assert_array_equal(rows, np.flatnonzero(np.arange(400) % 10))
    np.testing.assert_array_equal(known.labels, cases.findings[rows, 1])
    np.testing.assert_allclose(own.clean, np.stack([1 - answers.clean[rows, 1], answers.clean[rows, 1]], axis=1))
    together, every = pairs(answers, cases)
    assert len(every) == len(together.shifted[BLUR]) == 3 * 400 - 40
    assert set(np.unique(every.groups)) == set(np.unique(cases.groups))


def test_one_half_is_present_and_the_float_below_it_is_not(cases: Labelled) -> None:
    p = np.full((400, 3), 0.5)
    p[1::2] = np.nextafter(0.5, 0)
    own, known, rows = of_finding(Answers(p, {}), cases, 1)
    np.testing.assert_array_equal(own.clean.argmax(axis=1), rows % 2 == 0)
    np.testing.assert_array_equal(own.clean[:, 1], p[rows, 1])
    found = judged(Answers(p, {}), cases, NAMES)["clean"]
    assert found["per_class_recall"]["nodule"].value == pytest.approx((rows % 2 == 0)[known.labels == 1].mean())
    assert found["per_class_specificity"]["nodule"].value == pytest.approx((rows % 2 == 1)[known.labels == 0].mean())
    assert pairs(Answers(p, {}), cases)[0].clean.argmax(axis=1).sum() == (p >= 0.5)[cases.findings >= 0].sum()


def test_a_shift_that_hides_one_finding_is_shown_of_that_one_alone(answers: Answers, cases: Labelled) -> None:
    found = judged(answers, cases, NAMES)
    struck = found["sensitivities"]["nodule"][0]
    nodule = cases.findings[:, 1] == 1
    lost = (answers.clean[nodule, 1] >= 0.5).mean() - (answers.shifted[BLUR][nodule, 1] >= 0.5).mean()
    assert (struck["shift"], struck["drop"].stands) == ("blur", True)
    assert struck["drop"].by.value == pytest.approx(lost)
    assert not any(row["drop"].stands for row in found["sensitivities"]["effusion"])
    assert found["sensitivities"]["mass"] == {"few": 11}
    assert found["worst"][0]["corruption"] == "blur"
    assert found["harm"]["conditions"][0]["shift"] == "blur", "an absent nodule is said with confidence"
    json.dumps(to_json(found), allow_nan=False)


def test_the_mean_area_is_over_the_findings_that_some_have(answers: Answers, cases: Labelled) -> None:
    areas = []
    for finding in (0, 1):
        known = cases.findings[:, finding] >= 0
        areas.append(roc_auc_score(cases.findings[known, finding], answers.clean[known, finding]))
    assert judged(answers, cases, NAMES)["clean"]["auc"].value == pytest.approx(np.mean(areas))


def test_who_is_missed_is_tested_over_all_findings_together(answers: Answers, cases: Labelled) -> None:
    rows = judged(answers, cases, NAMES)["gaps"]
    women = next(row for row in rows if (row["class"], row["value"]) == ("effusion", "F"))
    assert women["gap"].stands
    own, known, _ = of_finding(answers, cases, 0)
    alone = next(row for row in foreign.gaps(own.clean, known, ("", "effusion")) if (row["class"], row["value"]) == ("effusion", "F"))
    assert women["gap"].p == pytest.approx(min(1, 3 * alone["gap"].p))
    assert {row["class"] for row in rows} == {"effusion", "nodule"}


def test_a_model_is_fit_by_its_mean_area(answers: Answers, cases: Labelled) -> None:
    assert fit(answers.clean, cases, NAMES).answer == "yes"
    assert fit(np.random.default_rng(2).random((400, 3)), cases, NAMES).answer == "no"
    nobody = dataclasses.replace(cases, findings=np.zeros((400, 3), np.int8))
    assert fit(answers.clean, nobody, NAMES).answer == "not enough data"


def test_rules_ask_about_one_finding_or_about_all_pairs(answers: Answers, cases: Labelled) -> None:
    lines = ["sensitivity(nodule) >= 0.8 at blur 5", "specificity(nodule) >= 0.8 at blur 5", "accuracy >= 0.8", "auc(mass) >= 0.5"]
    rules = [accept.parsed(line, NAMES, ("blur",), against=False) for line in lines]
    found = answered(rules, answers, cases, NAMES, None)
    assert [one.answer for one in found] == ["no", "yes", "yes", "not enough data"]
    together, every = pairs(answers, cases)
    assert found[2].measured.value == pytest.approx(((together.clean[:, 1] >= 0.5) == every.labels).mean())


def test_two_models_are_compared_by_their_mean_area(answers: Answers, cases: Labelled) -> None:
    chance = np.random.default_rng(3).random((400, 3))
    first = compared(answers, Answers(chance, {key: chance for key in answers.shifted}), cases, estimates)[0]
    assert first["gain"].stands
    assert first["gain"].by.value == pytest.approx(first["auc"].value - first["against"].value)


def test_two_models_are_not_compared_on_too_few_cases(answers: Answers, cases: Labelled) -> None:
    few = cases.take(np.arange(12))
    one = Answers(answers.clean[:12], {})
    assert fit(one.clean, few, NAMES).answer == "not enough data"
    assert compared(one, one, few, estimates) == []

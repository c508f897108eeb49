"""Arms compared with a control: against scikit-learn and naive versions, and what is said of differences that stand or do not."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from evaluation import utility as ut
from evaluation.comparisons import difference, holm, p_value
from evaluation.data import Labelled
from evaluation.intervals import Spread, to_json
from evaluation.metrics import auc, macro_auc, macro_auc_estimate, share_estimate

NAMES = ("a", "b", "c")


def labels_and_scores(rng: np.random.Generator, n: int, seeds: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 3
    logits = rng.normal(size=(seeds, n, 3)) + signal * np.eye(3)[labels]
    p = np.exp(logits)
    return labels.astype(np.int64), p / p.sum(axis=2, keepdims=True)


def as_test(labels: np.ndarray, **attributes: np.ndarray) -> Labelled:
    images = np.zeros((len(labels), 1, 1, 1), np.float32)
    return Labelled.of_classes(images, labels, np.arange(len(labels)) // 3, 3, attributes)


def judged(arms: dict[str, np.ndarray], labels: np.ndarray, **attributes: np.ndarray) -> dict:
    """Thresholds are set on the test images themselves."""
    test = as_test(labels, **attributes)
    return ut.utility({arm: ut.Scored(p, p) for arm, p in arms.items()}, test, test, NAMES, synthetic=500)


def test_values_are_means_over_seeds_and_intervals_hold_them() -> None:
    labels, p = labels_and_scores(np.random.default_rng(0), 240, 3, 1.5)
    found = judged({"real": p}, labels)
    arm = found["arms"]["real"]
    predicted = p.argmax(axis=2)
    assert arm["auc"].value == pytest.approx(np.mean([macro_auc(one, labels) for one in p]))
    assert arm["accuracy"].value == pytest.approx((predicted == labels).mean())
    assert arm["brier"].value == pytest.approx(np.mean((p - np.eye(3)[labels]) ** 2) * 3 / 2)
    assert arm["per_class"]["b"]["recall"].value == pytest.approx((predicted[:, labels == 1] == 1).mean())
    assert arm["per_class"]["b"]["recall"].n == 80
    for interval in (arm["auc"], arm["accuracy"], arm["balanced_accuracy"], arm["brier"]):
        assert interval.low < interval.value < interval.high
    assert isinstance(arm["calibration_error"], Spread), "no interval: it is not unbiased"
    assert (found["seeds"], found["n_test"], found["control"]) == (3, 240, "real")
    json.dumps(to_json(found), allow_nan=False)


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_at_a_specificity_is_that_of_the_roc_curve(seed: int) -> None:
    labels, p = labels_and_scores(np.random.default_rng(seed), 300, 1, 1.0)
    found = judged({"real": p}, labels)["arms"]["real"]["per_class"]["a"]
    false, true, _ = roc_curve(labels == 0, p[0, :, 0], drop_intermediate=False)
    assert found["sensitivity"].value == pytest.approx(true[false <= 0.1 + 1e-9].max())
    assert found["specificity"].value == pytest.approx(0.9)


def test_thresholds_are_set_on_other_patients_and_for_each_training() -> None:
    labels, p = labels_and_scores(np.random.default_rng(1), 300, 2, 1.0)
    scale = np.array([1.0, 0.2])[:, None, None]  # the second training's scores are lower throughout
    scored = ut.Scored(p[:, :150] * scale, p[:, 150:] * scale)
    choose, test = as_test(labels[:150]), as_test(labels[150:])
    called = scored.called(choose, 1)
    assert called is not None
    for one in range(2):
        negatives = scored.choose[one, labels[:150] != 1, 1]
        above = scored.test[one, called[one], 1].min()
        assert (negatives >= above).mean() <= 0.1 + 1e-9
        assert (negatives > scored.test[one, ~called[one], 1].max()).mean() >= 0.1 - 0.02
    assert 0.3 < called.mean(axis=1).max() / called.mean(axis=1).min() < 3
    few = as_test(labels[:27])
    assert ut.Scored(p[:, :27], p[:, 27:]).called(few, 0) is None, "18 negatives set no threshold"
    found = ut.utility({"real": ut.Scored(p[:, :27], p[:, 150:])}, few, test, NAMES, synthetic=1)
    assert math.isnan(found["arms"]["real"]["per_class"]["a"]["sensitivity"].value)


def test_a_difference_is_paired_by_patient_and_seed_and_tested_with_all_others() -> None:
    rng = np.random.default_rng(2)
    labels, p = labels_and_scores(rng, 240, 3, 1.0)
    almost, worse = p + rng.normal(0, 1e-3, p.shape), labels_and_scores(rng, 240, 3, 0.1)[1]
    found = judged({"real": p, "real+synthetic": almost, "synthetic": worse}, labels)
    same, arm = found["differences"]["real+synthetic"]["auc"], found["arms"]["real"]["auc"]
    assert same.by.low <= 0 <= same.by.high
    assert same.by.high - same.by.low < 0.3 * (arm.high - arm.low)
    assert not same.stands
    assert found["differences"]["synthetic"]["auc"].by.high < 0
    groups = np.arange(240) // 3
    pairs = [(macro_auc_estimate(x, labels, groups), macro_auc_estimate(p, labels, groups)) for x in (almost, worse)]
    assert [found["differences"][arm]["auc"].by for arm in ("real+synthetic", "synthetic")] == [difference(*pair) for pair in pairs]
    adjusted = holm([p_value(*pair) for pair in pairs])
    assert [found["differences"][arm]["auc"].p for arm in ("real+synthetic", "synthetic")] == pytest.approx(adjusted)


def test_a_change_of_one_class_is_found_in_that_class() -> None:
    rng = np.random.default_rng(3)
    labels, p = labels_and_scores(rng, 450, 3, 0.5)
    better = p.copy()
    better[:, labels == 2, 2] += 0.6
    found = judged({"real": p, "real+synthetic": better}, labels)["differences"]["real+synthetic"]["per_class"]
    assert found["c"]["sensitivity"].stands
    assert found["c"]["sensitivity"].by.low > 0.2
    assert found["c"]["auc"].stands
    assert not found["a"]["sensitivity"].stands
    assert found["a"]["sensitivity"].by.value == 0


def test_arms_that_differ_by_chance_alone_are_rarely_called_different() -> None:
    """Nine differences of sensitivity a time; alone, each would be called so in up to one of twenty."""
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(60):
        labels, p = labels_and_scores(rng, 120, 3, 1.0)
        others = {arm: labels_and_scores(rng, 120, 3, 1.0)[1] for arm in ("real+augmentation", "real+synthetic", "synthetic")}
        found = judged({"real": p, **others}, labels)["differences"]
        wrong += any(facts["sensitivity"].stands for arm in found.values() for facts in arm["per_class"].values())
    assert wrong <= 7  # of Binomial(60, .05), 8 or more have a probability of .01


def test_the_luck_of_training_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    labels, steady = labels_and_scores(rng, 300, 1, 1.5)
    steady = np.repeat(steady, 3, axis=0)
    moody = np.stack([labels_and_scores(rng, 300, 1, signal)[1][0] for signal in (0.5, 1.5, 2.5)])
    found = judged({"real": steady, "synthetic": moody}, labels)
    widths = {arm: values["auc"].high - values["auc"].low for arm, values in found["arms"].items()}
    assert widths["synthetic"] > 2 * widths["real"]


def test_subgroups_are_compared_by_class_and_small_ones_left_out() -> None:
    rng = np.random.default_rng(5)
    labels, p = labels_and_scores(rng, 360, 2, 0.5)
    sex = np.where(np.arange(360) < 180, "F", "M")
    sex[:30] = "X"  # ten patients
    sex[-3:] = ""  # unknown
    better = p.copy()
    rows = (sex == "F") & (labels == 1)
    better[:, rows, 1] += 0.9
    found = judged({"real": p, "real+synthetic": better}, labels, sex=sex, site=np.full(360, "one"))
    of_sex = found["subgroups"]["sex"]
    assert set(of_sex) == {"F", "M"}, "a value of ten patients is not named"
    assert set(found["subgroups"]) == {"sex"}, "a column with one value is no subgroup"
    change = of_sex["F"]["b"]["real+synthetic"]
    assert change["sensitivity"].stands
    assert change["auc"].by.value == pytest.approx(
        np.mean([auc(x[:, 1], labels[sex == "F"] == 1) for x in better[:, sex == "F"]])
        - np.mean([auc(x[:, 1], labels[sex == "F"] == 1) for x in p[:, sex == "F"]])
    )
    assert not of_sex["M"]["b"]["real+synthetic"]["sensitivity"].stands
    json.dumps(to_json(found), allow_nan=False)


@pytest.mark.parametrize("patients", [3, 10])
def test_a_class_of_few_patients_is_not_compared_and_costs_the_others_nothing(patients: int) -> None:
    rng = np.random.default_rng(6)
    labels = np.r_[np.arange(200) % 2, np.full(patients, 2)].astype(np.int64)
    p = rng.dirichlet(np.ones(3), (2, len(labels)))
    other = rng.dirichlet(np.ones(3), (2, len(labels)))
    test = Labelled.of_classes(np.zeros((len(labels), 1, 1, 1), np.float32), labels, np.arange(len(labels)), 3)
    found = ut.utility({"real": ut.Scored(p, p), "synthetic": ut.Scored(other, other)}, test, test, NAMES, synthetic=9)
    of = found["differences"]["synthetic"]["per_class"]
    assert math.isnan(of["c"]["sensitivity"].by.low)
    assert math.isnan(of["c"]["sensitivity"].p)
    alone = []
    for k in (0, 1):
        hits = [ut.Scored(x, x).called(test, k)[:, labels == k] for x in (other, p)]
        alone.append(p_value(*(share_estimate(one, np.flatnonzero(labels == k)) for one in hits)))
    assert [of[name]["sensitivity"].p for name in "ab"] == pytest.approx(holm(alone))


def test_findings_are_compared_on_the_images_of_which_they_are_known() -> None:
    """As two classes, absent and present, on those images alone; a finding of few patients is not compared."""
    rng = np.random.default_rng(8)
    marks = (rng.random((400, 3)) < (0.4, 0.2, 0.01)).astype(np.int8)
    marks[rng.random((400, 3)) < 0.2] = -1
    marks[:, 2] = np.arange(400) < 10
    images = Labelled(np.zeros((400, 1, 1, 1), np.float32), marks, np.arange(400))
    p = 1 / (1 + np.exp(-(marks + rng.normal(size=(2, 3, 400, 3)))))  # by arm and training
    scored = {arm: ut.Scored(one[:, :200], one[:, 200:]) for arm, one in zip(("real", "real+synthetic"), p)}
    choose, test = images.take(slice(0, 200)), images.take(slice(200, 400))
    found = ut.by_class(scored, choose, test, NAMES)
    held, known = choose.findings[:, 1] >= 0, test.findings[:, 1] >= 0
    two = {
        arm: ut.Scored(*(np.stack([1 - q[..., 1], q[..., 1]], axis=-1) for q in (one.choose[:, held], one.test[:, known])))
        for arm, one in scored.items()
    }
    sides = (part.findings[rows, 1].astype(np.int64) for part, rows in ((choose, held), (test, known)))
    alone = ut.by_class(
        two, *(Labelled.of_classes(np.zeros((len(y), 1, 1, 1), np.float32), y, np.arange(len(y)), 2) for y in sides), ("absent", "b")
    )
    assert found.arms["real"]["b"] == alone.arms["real"]["b"]
    assert found.differences["real+synthetic"]["b"]["sensitivity"].by == alone.differences["real+synthetic"]["b"]["sensitivity"].by
    assert math.isnan(found.differences["real+synthetic"]["c"]["auc"].by.value)

import json

import numpy as np
import pytest

from evaluation import utility as ut
from evaluation.data import Labelled
from evaluation.intervals import to_json
from evaluation.metrics import macro_auc


def labels_and_scores(rng: np.random.Generator, n: int, seeds: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 3
    logits = rng.normal(size=(seeds, n, 3)) + signal * np.eye(3)[labels]
    p = np.exp(logits)
    return labels.astype(np.int64), p / p.sum(axis=2, keepdims=True)


def as_test(labels: np.ndarray) -> Labelled:
    return Labelled.of_classes(np.zeros((len(labels), 1, 1, 1), np.float32), labels, np.arange(len(labels)) // 3, 3)


def test_values_are_means_over_seeds_and_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    labels, p = labels_and_scores(rng, 240, 3, 1.5)
    found = ut.utility({"real": p}, as_test(labels), ("a", "b", "c"), rng, 200)
    arm = found["arms"]["real"]
    predicted = p.argmax(axis=2)
    assert arm["auc"].value == pytest.approx(np.mean([macro_auc(one, labels) for one in p]))
    assert arm["accuracy"].value == pytest.approx((predicted == labels).mean())
    assert arm["per_class"]["b"]["recall"].value == pytest.approx((predicted[:, labels == 1] == 1).mean())
    assert arm["per_class"]["b"]["recall"].n == 80
    for interval in (arm["auc"], arm["accuracy"], arm["balanced_accuracy"]):
        assert interval.low < interval.value < interval.high
    json.dumps(to_json(found), allow_nan=False)


def test_paired_difference_is_zero_for_equal_arms_and_far_tighter_than_the_arms_themselves() -> None:
    rng = np.random.default_rng(1)
    labels, p = labels_and_scores(rng, 240, 1, 1.0)
    almost = p + rng.normal(0, 1e-3, p.shape)
    paired = ut.utility({"real": p, "synthetic": almost}, as_test(labels), ("a", "b", "c"), rng, 300)
    difference, arm = paired["paired_auc"]["synthetic-real"], paired["arms"]["real"]["auc"]
    assert difference.low <= 0 <= difference.high
    assert difference.high - difference.low < 0.2 * (arm.high - arm.low)


def test_a_worse_arm_is_found_worse() -> None:
    rng = np.random.default_rng(2)
    labels, good = labels_and_scores(rng, 300, 3, 2.5)
    _, poor = labels_and_scores(rng, 300, 3, 0.5)
    found = ut.utility({"real": good, "synthetic": poor}, as_test(labels), ("a", "b", "c"), rng, 300)
    assert found["paired_auc"]["synthetic-real"].high < 0


def test_the_luck_of_training_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    labels, steady = labels_and_scores(rng, 300, 1, 1.5)
    steady = np.repeat(steady, 3, axis=0)
    moody = np.stack([labels_and_scores(rng, 300, 1, signal)[1][0] for signal in (0.5, 1.5, 2.5)])
    found = ut.utility({"real": steady, "synthetic": moody}, as_test(labels), ("a", "b", "c"), rng, 400)
    widths = {arm: values["auc"].high - values["auc"].low for arm, values in found["arms"].items()}
    assert widths["synthetic"] > 2 * widths["real"]

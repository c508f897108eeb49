import json
import math

import numpy as np
import pytest

from evaluation import judges
from evaluation.data import Labelled, halve
from evaluation.intervals import Interval, Spread, interval, to_json
from evaluation.metrics import balanced_accuracy_estimate

NAMES = ("common", "other", "rare")


def cohort(labels: np.ndarray, per_patient: int = 1) -> Labelled:
    return Labelled.of_classes(np.zeros((len(labels), 1, 1, 1), np.float32), labels, np.arange(len(labels)) // per_patient, 3)


def said(labels: np.ndarray, signal: tuple[float, float, float], seeds: int = 3) -> np.ndarray:
    """Probabilities of a judge that sees each class with its signal."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(seeds, len(labels), 3)) + np.eye(3)[labels] * np.array(signal)[labels][:, None]
    p = np.exp(logits)
    return p / p.sum(axis=2, keepdims=True)


LABELS = np.repeat([0, 1, 2], [120, 80, 30]).astype(np.int64)


def test_a_judge_that_names_real_images_is_fit_and_its_numbers_stand() -> None:
    judge = judges.fitness(said(LABELS, (4, 4, 4)), cohort(LABELS), NAMES)
    assert judge.unfit is None
    assert set(judge.class_unfit.values()) == {None}
    made = np.repeat([0, 1, 2], 50).astype(np.int64)
    found = judges.label_fidelity(judge, said(made, (4, 4, 4)), made, NAMES)
    assert found["macro"].value > 0.9
    assert found["macro"].value == pytest.approx(np.mean([one.value for one in found["per_class"].values()]))
    assert found["macro_over"] == list(NAMES)
    assert found["real"]["rare"].n == 30
    json.dumps(to_json(found | judge.to_dict()), allow_nan=False)


@pytest.mark.parametrize("rare", [1, 4])
def test_a_class_of_few_test_patients_is_left_out_of_the_mean_and_takes_no_interval_from_the_others(rare: int) -> None:
    """A cohort is not to be called unlearnable since its rarest class has one patient in the test split."""
    few = np.repeat([0, 1, 2], [120, 80, rare]).astype(np.int64)
    p = said(few, (4, 4, 4))
    judge = judges.fitness(p, cohort(few), NAMES)
    assert judge.unfit is None
    assert judge.to_dict()["auc_over"] == ["common", "other"]
    assert judge.auc.value == pytest.approx((judge.class_auc["common"].value + judge.class_auc["other"].value) / 2)
    assert judge.auc.low < judge.auc.value < judge.auc.high
    assert judge.class_unfit["common"] is judge.class_unfit["other"] is None
    assert judge.class_unfit["rare"] == "could not be scored on so few patients"
    balanced = interval(balanced_accuracy_estimate(p.argmax(axis=2), few, np.arange(len(few)), 3))
    assert balanced.value == pytest.approx((judge.recall["common"].value + judge.recall["other"].value) / 2)
    assert (math.isfinite(balanced.low), balanced.n) == (True, 200)


def test_a_judge_at_chance_says_a_sentence_instead_of_every_number() -> None:
    judge = judges.fitness(said(LABELS, (0, 0, 0)), cohort(LABELS), NAMES)
    assert judge.unfit is not None
    assert "could not be trained on so few images" in judge.unfit
    found = judges.label_fidelity(judge, said(LABELS, (4, 4, 4)), LABELS, NAMES)
    assert found["macro"] == {"unfit": judge.unfit}
    assert all(set(one) == {"unfit"} for one in found["per_class"].values())
    assert to_json(judge.to_dict())["unfit"] == judge.unfit


def test_a_class_that_the_judge_never_names_is_unfit_by_itself() -> None:
    p = said(LABELS, (4, 4, 4))
    p[:, :, 2] /= 1e3  # still ranks it well, and never names it
    judge = judges.fitness(p / p.sum(axis=2, keepdims=True), cohort(LABELS), NAMES)
    assert judge.class_auc["rare"].value > 0.9
    assert judge.unfit is None
    assert "of this class" in str(judge.class_unfit["rare"])
    made = np.repeat([0, 1, 2], 50).astype(np.int64)
    found = judges.label_fidelity(judge, said(made, (4, 4, 4)), made, NAMES)
    assert "unfit" in found["per_class"]["rare"]
    assert isinstance(found["per_class"]["common"], Interval)
    assert found["macro_over"] == ["common", "other"]


@pytest.mark.parametrize(
    ("value", "low", "fit"),
    [(0.95, 0.9, True), (0.7, 0.6, True), (0.69, 0.68, False), (0.9, 0.45, False), (0.9, math.nan, False), (math.nan, math.nan, False)],
)
def test_the_rule_of_fitness(value: float, low: float, fit: bool) -> None:
    assert (judges.unfit(Interval(value, low, 1.0, 10)) is None) == fit


def test_few_patients_make_no_judge_however_many_images_they_have() -> None:
    labels = np.repeat([0, 1, 2], 40).astype(np.int64)
    judge = judges.fitness(said(labels, (9, 9, 9)), cohort(labels, per_patient=10), NAMES)
    assert judge.unfit == "could not be scored on so few patients"


@pytest.mark.parametrize("seed", range(5))
def test_val_is_divided_by_patient_with_every_class_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    labels = (rng.random(len(groups)) < 0.05).astype(np.int64) * 2
    labels[groups < 6], labels[groups > 57] = 2, 1
    val = Labelled.of_classes(np.zeros((len(groups), 1, 1, 1), np.float32), labels, groups, 3)
    learn, choose = val.halves(seed)
    assert not set(learn.groups) & set(choose.groups)
    assert len(learn) + len(choose) == len(val)
    assert abs(len(np.unique(learn.groups)) - len(np.unique(choose.groups))) < 20
    for part in (learn, choose):
        assert set(part.labels) == {0, 1, 2}
    assert (val.halves(seed)[0].groups == learn.groups).all()


def test_halves_without_kinds_are_equal_to_within_the_largest_group() -> None:
    groups = np.repeat(np.arange(40), np.arange(40) % 5 + 1)
    half = halve(groups, np.random.default_rng(0))
    assert abs((half == 0).sum() - (half == 1).sum()) <= 5
    one = Labelled.of_classes(np.zeros((2, 1, 1, 1), np.float32), np.zeros(2, np.int64), np.zeros(2), 1)
    assert sorted(len(part) for part in one.halves(0)) == [0, 2]


def test_a_spread_is_no_interval() -> None:
    spread = Spread.of([1.0, 2.0, 3.0, math.nan], 50)
    assert spread.value == 2
    assert spread.to_dict() == {"value": 2.0, "spread": [spread.low, spread.high], "repeats": 3, "n": 50}
    assert to_json({"a": Spread.of([], 3)})["a"]["value"] is None

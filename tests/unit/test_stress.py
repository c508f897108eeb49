import dataclasses
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation import stress
from evaluation.corruptions import CORRUPTIONS
from evaluation.data import Labelled
from evaluation.intervals import to_json
from evaluation.metrics import macro_auc

NAMES = ("dark", "middle", "bright")


def cohort(n: int, rng: np.random.Generator) -> Labelled:
    """The class is the mean brightness."""
    labels = rng.choice(3, n, p=[0.6, 0.3, 0.1]).astype(np.int64)
    images = rng.normal(0, 0.1, (n, 1, 16, 16)) + 0.5 * (labels - 1)[:, None, None, None]
    return Labelled.of_classes(images.clip(-1, 1).astype(np.float32), labels, np.arange(n) // 2, int(labels.max()) + 1)


def by_brightness(images: NDArray[np.float32]) -> NDArray[np.float64]:
    mean = images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None]
    p = np.exp(-8 * (mean - np.array([-0.5, 0, 0.5])) ** 2)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def test_set() -> Labelled:
    return cohort(300, np.random.default_rng(0))


def test_the_table_finds_what_breaks_a_brightness_classifier_and_what_does_not(test_set: Labelled) -> None:
    found = stress.corruption_table(by_brightness, test_set, np.random.default_rng(1), max_images=120)
    assert found["n"] == 120
    assert set(found["corruptions"]) == set(CORRUPTIONS)
    assert [row["severity"] for row in found["corruptions"]["jpeg"]] == [1, 2, 3, 4, 5]
    assert found["reference"]["balanced_accuracy"].value > 0.95
    assert found["corruptions"]["brightness_up"][4]["balanced_accuracy"].high < 0.7
    assert found["corruptions"]["gaussian_blur"][4]["balanced_accuracy"].value > 0.95
    drops = [row["auc_drop"] for row in found["worst"]]
    assert len(drops) == 5 <= found["shown"]
    assert all(drop.stands and drop.by.low > 0 for drop in drops)
    values = [drop.by.value for drop in drops]
    assert values == sorted(values, reverse=True)
    assert found["worst"][0]["corruption"] != "gaussian_blur"
    rows = [row["auc"].value for rows in found["corruptions"].values() for row in rows]
    assert found["mean_drop"]["auc"].value == pytest.approx(found["reference"]["auc"].value - np.mean(rows))
    assert 0 < found["mean_drop"]["auc"].low < found["mean_drop"]["auc"].value
    json.dumps(to_json(found), allow_nan=False)


def test_the_subset_keeps_rare_classes_whole() -> None:
    labels = np.repeat([0, 1, 2], [200, 80, 15])
    chosen = labels[stress.balanced_subset(labels, 100, np.random.default_rng(0))]
    assert np.bincount(chosen).tolist() in ([43, 42, 15], [42, 43, 15])
    assert len(stress.balanced_subset(labels, 1000, np.random.default_rng(0))) == 295


def test_clean_metrics_are_those_of_the_whole_test_set(test_set: Labelled) -> None:
    p = by_brightness(test_set.images) + np.random.default_rng(0).uniform(0, 0.5, (300, 3))
    found = stress.clean(p, test_set, NAMES)
    assert found["auc"].value == pytest.approx(macro_auc(p, test_set.labels))
    recall = (p.argmax(axis=1)[test_set.labels == 2] == 2).mean()
    assert found["per_class_recall"]["bright"].value == pytest.approx(recall)


def test_a_subgroup_on_which_the_classifier_fails_stands_out_and_small_ones_are_left_out(test_set: Labelled) -> None:
    p = by_brightness(test_set.images)
    site = np.where(np.arange(300) < 150, "a", "b")
    site[:14] = "tiny"  # seven patients
    p[site == "b"] = np.random.default_rng(0).dirichlet(np.ones(3), int((site == "b").sum()))
    found = stress.subgroups(p, dataclasses.replace(test_set, attributes={"site": site}))
    assert set(found["site"]) == {"a", "b"}
    assert found["site"]["a"]["auc"].low > found["site"]["b"]["auc"].high
    counted = [k for k in range(3) if len(np.unique(test_set.groups[(site == "a") & (test_set.labels == k)])) >= 11]
    assert found["site"]["a"]["n"] == np.isin(test_set.labels[site == "a"], counted).sum()
    assert found["site"]["a"]["classes"] == len(counted)


def test_predictive_value_follows_bayes_where_a_class_is_rarer_or_more_common(test_set: Labelled) -> None:
    rng = np.random.default_rng(2)
    p = by_brightness(test_set.images)
    p[rng.random(300) < 0.2] = rng.dirichlet(np.ones(3), 1)
    found = stress.changed_prevalence(p, test_set, NAMES)
    called, true = p.argmax(axis=1) == 2, test_set.labels == 2
    rare, same, common = found["bright"]
    assert same["prevalence"] == pytest.approx(true.mean())
    assert same["ppv"].value == pytest.approx(true[called].mean())
    assert rare["sensitivity"].value == pytest.approx(called[true].mean())
    assert rare["specificity"].value == pytest.approx((~called[~true]).mean())
    assert rare["ppv"].value < same["ppv"].value < common["ppv"].value
    assert [row["factor"] for row in found["dark"]] == [0.1, 1.0]
    json.dumps(to_json(found), allow_nan=False)


def test_a_classifier_that_nothing_harms_has_no_worst_corruption(test_set: Labelled) -> None:
    """Its scores hang on chance alone, so that the largest of 90 drops is chance, too."""
    rng = np.random.default_rng(5)
    found = stress.corruption_table(lambda images: rng.dirichlet(np.ones(3), len(images)), test_set, np.random.default_rng(1))
    drops = [row["auc_drop"].by.value for rows in found["corruptions"].values() for row in rows]
    assert max(drops) > 0.04, "a table of points would name one"
    assert found["worst"] == []
    assert found["shown"] == 0


def test_several_trainings_are_judged_one_by_one(test_set: Labelled) -> None:
    rng = np.random.default_rng(4)
    stack = by_brightness(test_set.images) + rng.uniform(0, 1, (3, 300, 3))
    found = stress.clean(stack, test_set, NAMES)
    assert found["auc"].value == pytest.approx(np.mean([macro_auc(p, test_set.labels) for p in stack]))
    assert found["auc"].value != pytest.approx(macro_auc(stack.mean(axis=0), test_set.labels), abs=1e-3)
    one, several = (stress.changed_prevalence(p, test_set, NAMES)["bright"][1]["sensitivity"] for p in (stack[0], stack))
    recalls = [(p.argmax(axis=1)[test_set.labels == 2] == 2).mean() for p in stack]
    assert (one.value, several.value) == pytest.approx((recalls[0], np.mean(recalls)))
    table = stress.corruption_table(lambda images: np.stack([by_brightness(images)] * 2), test_set, rng, max_images=60)
    assert table["reference"]["balanced_accuracy"].value > 0.9

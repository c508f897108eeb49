import numpy as np
import pytest

from evaluation import arms
from evaluation.data import Labelled
from evaluation.metrics import macro_auc
from evaluation.training import Trained


def some(labels: list[int]) -> Labelled:
    n = len(labels)
    return Labelled.of_classes(np.zeros((n, 1, 1, 1), np.float32), np.array(labels, np.int64), np.arange(n), 3)


REAL, MADE = some([0] * 10 + [1] * 5 + [2]), some([0, 1, 1, 2, 2, 2])


def shares(arm: str) -> tuple[np.ndarray, np.ndarray]:
    """What share of all that is drawn comes from each class of the real and of the synthetic images."""
    weights = arms.recipe(arm, REAL, MADE).weights / arms.recipe(arm, REAL, MADE).weights.sum()
    return tuple(np.bincount(part.labels, w, 3) for part, w in ((REAL, weights[:16]), (MADE, weights[16:])))  # type: ignore[return-value]


@pytest.mark.parametrize("arm", [arm for arm in arms.FULL if arm != "real unweighted"])
def test_every_arm_draws_all_classes_equally_often(arm: str) -> None:
    real, made = shares(arm)
    np.testing.assert_allclose(real + made, 1 / 3)


@pytest.mark.parametrize(("arm", "ratio"), arms.RATIOS.items())
def test_the_ratio_holds_within_each_class(arm: str, ratio: float) -> None:
    real, made = shares(arm)
    np.testing.assert_allclose(made / real, ratio)


def test_arms_take_their_own_images_only() -> None:
    assert not shares("real")[1].any()
    assert not shares("real+augmentation")[1].any()
    assert arms.recipe("real+augmentation", REAL, MADE).augment
    assert not shares("synthetic")[0].any()
    np.testing.assert_allclose(shares("real unweighted")[0], np.array([10, 5, 1]) / 16)
    rare = shares("real+synthetic rare")[1]
    assert rare[2] == pytest.approx(1 / 6)
    assert not rare[:2].any()
    both = arms.recipe("synthetic then real", REAL, MADE)
    assert both.before is not None
    assert not both.before[:16].any()
    assert not both.weights[16:].any()
    with pytest.raises(ValueError, match="no arm"):
        arms.recipe("other", REAL, MADE)


def test_a_class_that_only_one_side_has_is_drawn_from_it() -> None:
    real, made = some([0, 0, 1]), some([1, 2])
    weights = arms.recipe("real+synthetic", real, made).weights
    np.testing.assert_allclose(weights, [0.5, 0.5, 0.5, 0.5, 1])


def flipped(n: int, sign: int, rng: np.random.Generator) -> Labelled:
    labels = (np.arange(n) % 2).astype(np.int64)
    images = rng.normal(0, 0.2, (n, 1, 8, 8)) + 0.5 * sign * (2 * labels - 1)[:, None, None, None]
    return Labelled.of_classes(images.clip(-1, 1).astype(np.float32), labels, np.arange(n), 2)


def test_arms_learn_what_they_draw_and_have_equal_compute() -> None:
    rng = np.random.default_rng(4)
    test = flipped(60, 1, rng)
    # The synthetic images carry the opposite labels, and the held-out images side with neither.
    choose = Labelled(test.images * 0, test.findings, test.groups)
    trained = arms.train_arms(
        flipped(64, 1, rng),
        flipped(64, -1, rng),
        choose,
        arms=("real", "synthetic", "synthetic then real"),
        seeds=2,
        kind="small",
        ceiling=640,
        rng=rng,
        device="cpu",
    )
    score = {arm: np.mean([macro_auc(one.classifier.predict(test.images), test.labels) for one in found]) for arm, found in trained.items()}
    assert [len(found) for found in trained.values()] == [2, 2, 2]
    assert score["real"] > 0.95
    assert score["synthetic"] < 0.05
    assert len({one.curve[-1][0] for found in trained.values() for one in found}) == 1


def test_the_course_is_the_mean_of_the_curves_that_were_still_going() -> None:
    one, other = (Trained(None, curve, 64, True) for curve in (((64, 1.0), (128, 0.5)), ((64, 0.5),)))  # type: ignore[arg-type]
    assert arms.course([one, other]) == {"images": [64, 64], "plateau": [True, True], "curve": [[64, 0.75], [128, 0.5]]}

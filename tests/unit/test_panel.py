import json

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation import panel as pn
from evaluation import training
from evaluation.data import Labelled
from evaluation.intervals import Interval, to_json
from evaluation.metrics import Estimate, auc
from evaluation.plain_features import plain_features

NAMES = ("a", "b")


def cohort(rng: np.random.Generator, n: int, offset: float = 0.0, rare: float = 0.3, per_patient: int = 2) -> Labelled:
    labels = np.sort(rng.random(n) < rare).astype(np.int64)
    noise = rng.normal(0, 0.2, (n, 1, 8, 8))
    images = (noise + offset * np.sign(np.indices((8, 8)).sum(axis=0) % 2 - 0.5) + 0.2 * labels[:, None, None, None]).clip(-1, 1)
    exact = np.rint((images + 1) * 127.5) / 127.5 - 1
    return Labelled.of_classes(exact.astype(np.float32), labels, np.arange(n) // per_patient, 2)


def look(audit: Labelled, made: Labelled, ceiling: int = 64, splits: int = 2, seed: int = 0, **spaces: object) -> dict:
    chosen = {"plain": plain_features} | spaces
    rng = np.random.default_rng(seed)
    return pn.panel(audit, made, NAMES, spaces=chosen, splits=splits, ceiling=ceiling, rng=rng, device="cpu")  # type: ignore[arg-type]


def test_the_panel_sees_a_difference_that_an_untrained_network_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.LEARNING_RATE, "small", 0.0)
    rng = np.random.default_rng(0)
    found = look(cohort(rng, 300), cohort(rng, 200, 0.15, per_patient=1), imagenet="not installed")
    assert "unfit" in found["judges"]["cnn"]
    assert found["judges"]["imagenet"] == {"skipped": "not installed"}
    assert found["judges"]["plain"]["control"].value > 0.95
    assert found["synthetic"].value > 0.95
    assert found["floor"].low < 0.5 < found["floor"].high
    assert found["difference"].value == pytest.approx(found["synthetic"].value - found["floor"].value)
    assert found["verdict"] == "not reached"
    assert found["per_class"]["a"]["verdict"] == "not reached"
    assert found["per_class"]["b"]["synthetic"].low > 0.8
    json.dumps(to_json(found), allow_nan=False)


def test_the_same_distribution_lies_at_its_floor() -> None:
    rng = np.random.default_rng(1)
    found = look(cohort(rng, 300), cohort(rng, 300, per_patient=1))
    assert found["difference"].low < 0 < found["difference"].high
    assert found["verdict"] == "not resolvable"
    assert found["standard_error"] > pn.RESOLVED


def test_each_class_has_the_largest_n_there_is() -> None:
    rng = np.random.default_rng(2)
    audit = cohort(rng, 400, rare=0.2)
    labels = np.repeat([0, 1], [30, 500])
    made = Labelled.of_classes(rng.uniform(-1, 1, (530, 1, 8, 8)).astype(np.float32), labels, np.arange(530), 2)
    found = look(audit, made)
    assert found["per_class"]["a"]["n"] == 30
    assert 30 <= found["per_class"]["b"]["n"] <= (audit.labels == 1).sum() // 2
    assert found["n"] == sum(facts["n"] for facts in found["per_class"].values())


def test_a_class_without_synthetic_images_has_no_number_and_does_no_harm() -> None:
    rng = np.random.default_rng(3)
    made = cohort(rng, 100, rare=0.0, per_patient=1)
    found = to_json(look(cohort(rng, 200), made, splits=1))
    assert found["per_class"]["b"]["n"] == 0
    assert found["per_class"]["b"]["synthetic"]["value"] is None
    assert found["synthetic"]["value"] is not None


@pytest.mark.parametrize("n", [1, 2, 9, 18])
def test_a_handful_of_patients_is_refused_in_words(n: int) -> None:
    rng = np.random.default_rng(n)
    found = look(cohort(rng, n), cohort(rng, 50), splits=1)
    assert "could not be trained on so few images" in found["unfit"]
    assert "synthetic" not in found


def test_no_patient_is_scored_by_a_judge_that_saw_it() -> None:
    rng = np.random.default_rng(5)
    audit, made = cohort(rng, 120), cohort(rng, 80, per_patient=1)
    a, b, chosen = pn._halving(audit, made, NAMES, rng)
    assert not set(audit.groups[a]) & set(audit.groups[b])
    assert (np.bincount(audit.labels[a]) == np.bincount(made.labels[chosen])).all()
    pool = pn._pool(audit, made)
    pair = pn.Pair(b, a)
    fold = pn._folds(pair, pool.groups, 5, rng)
    for group in np.unique(pool.groups[pair.rows]):
        assert len(set(fold[pool.groups[pair.rows] == group])) == 1
    # The pool's own patients, and those of the planted images, are the sealed ones.
    assert (pool.groups[-len(audit) :] == pool.groups[: len(audit)]).all()


def test_the_best_judge_is_chosen_in_each_split_on_either_side_alike() -> None:
    rng = np.random.default_rng(6)
    audit, made = cohort(rng, 120, per_patient=1), cohort(rng, 80, per_patient=1)
    pool = pn._pool(audit, made)
    universe = pool.take(np.arange(200))
    pair = pn.Pair(np.arange(120, 170), np.arange(50))
    fold = pn._folds(pair, pool.groups, 2, rng)
    judges = [pn.Scored(pair, rng.normal(size=100) + signal * pair.positive, fold) for signal in (0.0, 1.0)]
    best = pn._best([judges, judges[::-1]], universe, np.arange(200) >= 120, None)
    by_fold = [auc(judges[1].scores[fold == f], pair.positive[fold == f]) for f in (0, 1)]
    assert best.value == pytest.approx(np.mean(by_fold))
    assert best.influence.sum() == pytest.approx(0, abs=1e-12)
    assert not best.influence[170:].any()
    assert not best.influence[50:120].any()


def estimate(value: float, spread: float) -> Estimate:
    influence = np.resize([spread, -spread], 200)
    return Estimate(np.array([value]), influence, np.repeat([0, 1], 100), np.arange(200), lambda truth: 1e-4, 200)


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(0.52, 5e-4, "reached"), (0.56, 5e-4, "not resolvable"), (0.9, 5e-4, "not reached"), (0.52, 4e-3, "not resolvable")],
)
def test_reached_needs_the_upper_bound_within_the_aim(value: float, spread: float, verdict: str) -> None:
    found = pn.verdict(estimate(value, spread), estimate(0.5, 0.0))
    assert isinstance(found["difference"], Interval)
    if verdict == "not resolvable" and spread < 1e-3:
        verdict = "reached" if found["difference"].high <= pn.AIM else "not reached"
    assert found["verdict"] == verdict


@pytest.mark.parametrize("kind", ["fine", "smooth", "flat"])
def test_what_is_planted_is_seen_in_fine_and_in_smooth_images(kind: str) -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.3, (2, 60, 1, 16, 16))
    smooth = noise.cumsum(axis=3).cumsum(axis=4) / 12
    x: NDArray[np.float32] = {"fine": noise, "smooth": smooth, "flat": noise * 0 - 0.5}[kind].clip(-1, 1).astype(np.float32)
    exact = (np.rint((x + 1) * 127.5) / 127.5 - 1).astype(np.float32)
    moved = pn.planted(exact[0], rng)
    assert moved.shape == exact[0].shape
    assert abs(moved).max() <= 1
    features = [plain_features(part) for part in (exact[1], moved)]
    apart = max(auc(np.concatenate([one[:, d] for one in features]), np.arange(120) < 60) for d in range(features[0].shape[1]))
    assert apart > 0.75

"""What a run's model is asked for beside real cases, with a stand-in for the model: which kinds, of whom, and when they count."""

import types
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.hypotheses import Judges
from evaluation.intervals import Interval
from evaluation.judges import Fitness
from pipeline.models import kinds, of_run
from pipeline.models.of_run import OfRun
from pipeline.progress import Reporter, silent

NAMES = ("ill", "healthy", "other")  # the model's order
FULL = Interval(0.9, 0.8, 1.0, 50)
FIT = Fitness(FULL, NAMES, dict.fromkeys(NAMES, FULL), dict.fromkeys(NAMES, FULL), None, dict.fromkeys(NAMES))
SIDE = 16


class Maker:
    """Makes healthy images dark and ill ones bright; a counterfactual needs a level of noise."""

    classes, side, channels = ("healthy", "ill"), SIDE, 1

    def images(self, label: int, count: int, seed: int) -> NDArray[np.uint8]:
        return np.full((count, 1, SIDE, SIDE), 50 + 150 * label, np.uint8)

    def between(self, one: int, other: int, weight: float, count: int, seed: int) -> NDArray[np.uint8]:
        return np.full((count, 1, SIDE, SIDE), 50 + 150 * (one + weight * (other - one)), np.float64).clip(0, 255).astype(np.uint8)

    def counterfactuals(self, images: NDArray[np.float32], own: int, other: int, depth: float, weight: float) -> NDArray[np.uint8]:
        moved = images + (1.2 * (other - own) if depth >= self.least else 0)
        return ((moved.clip(-1, 1) + 1) * 127.5).astype(np.uint8)

    least = 1.0


class Bright:
    """A judge: ill above the middle grey."""

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        ill = images.mean(axis=(1, 2, 3)) > 0
        return np.stack([ill, ~ill, np.zeros(len(ill))], axis=1).astype(float)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> OfRun:
    """Fifty patients with two images each, 60 healthy and 40 ill."""
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [60, 40])
    patients = np.arange(100) // 2
    own = rng.integers(0, 40, (50, 1, SIDE, SIDE))[patients]
    images = (np.where(labels == 1, 20, 170)[:, None, None, None] + own).astype(np.uint8)
    monkeypatch.setattr(of_run, "OwnGenerator", lambda run, device: Maker())
    monkeypatch.setattr(of_run, "resized", lambda real, test, side, channels: images)
    test = Labelled.of_classes(np.zeros((100, 1, 1, 1), np.uint8), labels, patients, 3)
    return OfRun(types.SimpleNamespace(name="run"), None, test, NAMES)  # type: ignore[arg-type]


def made(run: OfRun, tmp_path: Any) -> dict[str, kinds.Kind]:
    judges = Judges((Bright(),), FIT)  # type: ignore[arg-type]
    return {kind.name: kind for kind in run.kinds(judges, Reporter(tmp_path / "log.jsonl", silent()))}


def test_every_class_is_made_as_often_and_severities_lie_between_the_common_class_and_the_others(run: OfRun, tmp_path: Any) -> None:
    found = made(run, tmp_path)
    every = found["every class alike"]
    np.testing.assert_array_equal(np.bincount(every.labels, minlength=3), [of_run.EACH, of_run.EACH, 0])
    low, high = found["healthy to ill, 0.25"], found["healthy to ill, 1.5"]
    assert (set(low.labels), set(high.labels)) == ({1}, {0}), "places among the model's classes"
    assert low.small.mean() < high.small.mean()
    assert low.small.shape == (of_run.STEP, 1, kinds.SIDE, kinds.SIDE)
    assert next(iter(high.own(np.array([3])))).shape == (1, SIDE, SIDE)


def test_counterfactuals_are_of_one_image_a_patient_and_keep_the_patient(run: OfRun, tmp_path: Any) -> None:
    found = made(run, tmp_path)
    ill = found["healthy given ill"]
    assert len(ill.labels) == of_run.CHANGED
    assert ill.fit.all()
    assert (ill.facts["changed"].value, ill.facts["same_patient"].value) == (1, 1)
    assert (ill.facts["among"], ill.facts["few"]) == (50, True)
    assert [title for title, _ in run.pairs] == ["real healthy", "healthy given ill", "real ill", "ill given healthy"]


def test_where_no_change_will_do_nothing_counts_as_changed(run: OfRun, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Maker, "least", 9.0)
    assert made(run, tmp_path)["healthy given ill"].facts["changed"].value == 0

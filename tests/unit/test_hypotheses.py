"""Synthetic cases: which are asked, by judges of which it is known what they can tell."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from foreign_models import CLASSES, brightness_images

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judges, hypotheses, learned, sure
from evaluation.intervals import Interval
from evaluation.judges import Fitness

FULL = Interval(0.9, 0.8, 1.0, 50)
FIT = Fitness(FULL, dict.fromkeys(CLASSES, FULL), dict.fromkeys(CLASSES, FULL), None, dict.fromkeys(CLASSES))


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Calls an image bright above a level."""

    level: float

    def predict(self, images: Any) -> Any:
        bright = images.mean(axis=(1, 2, 3)) > self.level
        return np.stack([~bright, bright], axis=1).astype(float)


def test_a_case_is_asked_where_every_judge_names_its_label() -> None:
    images = np.linspace(-0.9, 0.9, 19)[:, None, None, None] * np.ones((1, 1, 4, 4))
    labels = (np.arange(19) > 9).astype(np.int64)
    judges = Judges((Threshold(-0.35), Threshold(0.35)), FIT)  # type: ignore[arg-type]
    kept = sure(judges, images.astype(np.float32), labels, CLASSES)
    np.testing.assert_array_equal(np.flatnonzero(kept), [*range(6), *range(13, 19)])
    wrong = sure(judges, images.astype(np.float32), 1 - labels, CLASSES)
    assert not wrong.any(), "labels that the images do not have"


def test_what_the_model_misses_is_counted_among_the_kept_alone() -> None:
    labels = np.repeat([0, 1], [10, 20])
    kept = np.ones(30, bool)
    kept[[0, 1, 29]] = False
    p = np.eye(2)[labels[kept]]
    p[-9:] = [1, 0]  # bright ones that it calls dark
    found = hypotheses(Judges((), FIT), kept, p, labels, CLASSES)
    assert (found["images"], found["kept"]) == (30, 27)
    assert {name: (one["images"], one["kept"]) for name, one in found["classes"].items()} == {"dark": (10, 8), "bright": (20, 19)}
    assert found["classes"]["bright"]["sensitivity"].value == pytest.approx(10 / 19)
    assert found["classes"]["dark"]["sensitivity"].value == 1
    assert "hypothesis" in found["note"]


def test_nothing_is_asked_of_a_class_that_the_judges_are_unfit_for() -> None:
    blind = dataclasses.replace(FIT, class_unfit={"dark": None, "bright": "could not be trained on so few images"})
    images, labels = brightness_images(20)
    judges = Judges((Threshold(0.0),), blind)  # type: ignore[arg-type]
    kept = sure(judges, to_unit(images), labels, CLASSES)
    assert not kept[labels == 1].any()
    found = hypotheses(judges, kept, np.eye(2)[labels[kept]], labels, CLASSES)
    assert "a judge could not be trained" in found["classes"]["bright"]["unfit"]
    assert math.isnan(found["classes"]["bright"]["sensitivity"].value)


def test_judges_that_were_still_learning_are_sure_of_nothing() -> None:
    images, labels = brightness_images(80, shape=(16, 16))
    real = Labelled.of_classes(images, labels, np.arange(80) // 2, 2)
    judges = learned(real, CLASSES, seeds=1, ceiling=640, rng=np.random.default_rng(0), device="cpu")
    assert len(judges.networks) == 2
    assert judges.fitness.unfit is not None
    assert "was still learning" in judges.fitness.unfit
    assert not sure(judges, real.unit, labels, CLASSES).any()

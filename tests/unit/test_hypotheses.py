"""Synthetic cases: which are asked, by judges of which it is known what they can tell."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from foreign_models import CLASSES, brightness_images

from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judgement, Judges, Space, hypotheses, judgement, learned, told
from evaluation.intervals import Interval
from evaluation.judges import Fitness

FULL = Interval(0.9, 0.8, 1.0, 50)
FIT = Fitness(FULL, CLASSES, dict.fromkeys(CLASSES, FULL), dict.fromkeys(CLASSES, FULL), None, dict.fromkeys(CLASSES))


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
    kept = judgement(judges, images.astype(np.float32), labels, CLASSES).sure
    np.testing.assert_array_equal(np.flatnonzero(kept), [*range(6), *range(13, 19)])
    wrong = judgement(judges, images.astype(np.float32), 1 - labels, CLASSES)
    assert not wrong.sure.any(), "labels that the images do not have"


def test_what_the_model_misses_is_counted_among_the_kept_alone() -> None:
    labels = np.repeat([0, 1], [10, 20])
    kept = np.ones(30, bool)
    kept[[0, 1, 29]] = False
    p = np.eye(2)[labels[kept]]
    p[-9:] = [1, 0]  # bright ones that it calls dark
    distance = np.where(np.arange(30) < 15, 0.3, 0.95)
    found = hypotheses(Judges((), FIT), Judgement(kept, np.ones(30), distance), kept, p, labels, CLASSES)
    assert (found["images"], found["kept"]) == (30, 27)
    assert {name: (one["images"], one["kept"]) for name, one in found["classes"].items()} == {"dark": (10, 8), "bright": (20, 19)}
    assert found["classes"]["bright"]["sensitivity"].value == pytest.approx(10 / 19)
    assert found["classes"]["dark"]["sensitivity"].value == 1
    assert found["right"].value == pytest.approx(18 / 27)
    assert (found["low_density"]["kept"], found["low_density"]["right"].value) == (14, pytest.approx(5 / 14))
    whole = told(Judges((), FIT), {"as given": found})
    assert "hypothesis" in whole["note"]
    assert whole["sets"][0]["name"] == "as given"


def test_nothing_is_asked_of_a_class_that_the_judges_are_unfit_for() -> None:
    blind = dataclasses.replace(FIT, class_unfit={"dark": None, "bright": "could not be trained on so few images"})
    images, labels = brightness_images(20)
    judges = Judges((Threshold(0.0),), blind)  # type: ignore[arg-type]
    judged = judgement(judges, to_unit(images), labels, CLASSES)
    assert not judged.sure[labels == 1].any()
    found = hypotheses(judges, judged, judged.sure, np.eye(2)[labels[judged.sure]], labels, CLASSES)
    assert "a judge could not be trained" in found["classes"]["bright"]["unfit"]
    assert math.isnan(found["classes"]["bright"]["sensitivity"].value)


def test_judges_that_were_still_learning_are_sure_of_nothing() -> None:
    images, labels = brightness_images(80, shape=(16, 16))
    real = Labelled.of_classes(images, labels, np.arange(80) // 2, 2)
    judges = learned(real, CLASSES, seeds=1, ceiling=640, rng=np.random.default_rng(0), device="cpu")
    assert len(judges.networks) == 2
    assert judges.fitness.unfit is not None
    assert "was still learning" in judges.fitness.unfit
    judged = judgement(judges, real.unit, labels, CLASSES)
    assert not judged.sure.any()
    assert (judged.fidelity > 0).all()
    assert np.isfinite(judged.distance).all()


def test_a_distance_is_ranked_among_those_of_real_cases_of_different_patients() -> None:
    """Patients stand at 0, 1, 3 and 6, each with two images at one place: nearest others are 1, 1, 2 and 3 away."""
    places = np.repeat([0.0, 1.0, 3.0, 6.0], 2)[:, None]
    space = Space.of(places.astype(np.float32), np.repeat(np.arange(4), 2))
    at = np.array([[0.0], [2.2], [4.6], [30.0]], np.float32)  # 0, 0.8, 1.4 and 24 from the nearest
    np.testing.assert_array_equal(space.rank(at), [0, 0, 0.5, 1])
    assert space.rank(np.zeros((0, 1), np.float32)).shape == (0,)


def test_fidelity_is_the_mean_probability_of_the_label() -> None:
    images = np.full((3, 1, 4, 4), 0.5, np.float32)
    judges = Judges((Threshold(0.4), Threshold(0.6)), FIT)  # type: ignore[arg-type]
    judged = judgement(judges, images, np.array([1, 1, 0]), CLASSES)
    np.testing.assert_array_equal(judged.fidelity, [0.5, 0.5, 0.5])
    assert np.isnan(judged.distance).all()

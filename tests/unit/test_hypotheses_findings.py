"""Synthetic cases of several findings: which are asked about which, by judges of which it is known what they can tell."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from evaluation.data import Labelled
from evaluation.hypotheses import Judgement
from evaluation.hypotheses_findings import Judges, hypotheses, judgement, learned, told
from evaluation.intervals import Interval

NAMES = ("left", "right")
AREAS = dict.fromkeys(NAMES, Interval(0.9, 0.8, 1.0, 50))


@dataclasses.dataclass(frozen=True)
class Halves:
    """Calls a half bright above a level."""

    level: float

    def predict(self, images: Any) -> Any:
        sides = np.stack([images[..., :2].mean(axis=(1, 2, 3)), images[..., 2:].mean(axis=(1, 2, 3))], axis=1)
        return np.where(sides > self.level, 0.9, 0.2)


def judges(*levels: float, **unfit: str) -> Judges:
    return Judges(tuple(map(Halves, levels)), AREAS, {name: unfit.get(name) for name in NAMES})  # type: ignore[arg-type]


def images(*sides: tuple[float, float]) -> np.ndarray:
    return np.stack([np.repeat([left, right], 2) * np.ones((1, 4, 4)) for left, right in sides]).astype(np.float32)


def test_a_finding_is_asked_about_where_every_judge_sees_what_its_label_says() -> None:
    shown = images((0.9, -0.9), (0.0, -0.9), (0.9, 0.9), (-0.9, 0.9))
    marks = np.array([[1, 0], [1, 0], [0, 1], [0, -1]], np.int8)
    judged = judgement(judges(-0.3, 0.3), shown, marks, NAMES)
    np.testing.assert_array_equal(judged.sure, [[True, True], [False, True], [False, True], [True, False]])
    np.testing.assert_allclose(judged.fidelity[:3], [[0.9, 0.8], [0.55, 0.8], [0.1, 0.9]])
    assert math.isnan(judged.fidelity[3, 1]), "of what is unknown nothing is said"


def test_nothing_is_asked_of_a_finding_that_the_judges_are_unfit_for() -> None:
    marks = np.array([[1, 1], [1, 1]], np.int8)
    blind = judges(0.0, right="could not be trained on so few images")
    judged = judgement(blind, images((0.9, 0.9), (0.9, 0.9)), marks, NAMES)
    assert judged.sure.tolist() == [[True, False]] * 2
    found = hypotheses(blind, judged, np.full((2, 2), 0.9), marks, NAMES)["classes"]["right"]
    assert "a judge could not be trained" in found["unfit"]
    assert found["kept"] == 0
    assert told(blind, {})["judges"]["per_class"]["right"]["unfit"] == "could not be trained on so few images"


def test_what_the_model_misses_is_counted_by_finding_among_the_sure_pairs() -> None:
    marks = np.repeat(np.array([[1, 0], [0, 1]], np.int8), 20, axis=0)
    sure = np.ones((40, 2), bool)
    sure[:5, 0] = sure[20:30, 1] = False
    p = np.where(marks == 1, 0.8, 0.1)
    p[5:8, 0] = 0.3  # left ones that it misses
    p[0, 0] = 0.0  # and one that nobody is sure of
    p[20:22, 0] = 0.7  # left ones that it makes up
    distance = np.where(np.arange(40) < 20, 0.95, 0.2)
    found = hypotheses(judges(), Judgement(sure, np.ones((40, 2)), distance), p, marks, NAMES)
    left = found["classes"]["left"]
    assert (left["images"], left["kept"], left["kept_without"]) == (20, 15, 20)
    assert left["sensitivity"].value == pytest.approx(12 / 15)
    assert left["specificity"].value == pytest.approx(18 / 20)
    assert found["classes"]["right"]["sensitivity"].value == 1
    assert (found["kept"], found["right"].value) == (65, pytest.approx(60 / 65))
    assert (found["low_density"]["kept"], found["low_density"]["right"].value) == (35, pytest.approx(32 / 35))


def test_two_findings_of_an_image_are_no_two_images() -> None:
    """The interval over pairs is as wide as that over images whose pairs are right or wrong together."""
    marks, sure = np.ones((30, 2), np.int8), np.ones((30, 2), bool)
    p = np.where(np.arange(30)[:, None] % 3, 0.9, 0.1) * np.ones((1, 2))
    both = hypotheses(judges(), Judgement(sure, np.ones((30, 2)), np.zeros(30)), p, marks, NAMES)
    one = both["classes"]["left"]["sensitivity"]
    assert both["right"].high - both["right"].low == pytest.approx(one.high - one.low, rel=0.05)


def test_judges_that_were_still_learning_are_sure_of_nothing() -> None:
    rng = np.random.default_rng(0)
    marks = rng.integers(0, 2, (60, 2)).astype(np.int8)
    real = Labelled(rng.integers(0, 255, (60, 1, 16, 16), dtype=np.uint8), marks, np.arange(60) // 2)
    found = learned(real, NAMES, seeds=1, ceiling=640, rng=np.random.default_rng(0), device="cpu")
    assert len(found.networks) == len(found.spaces) == 2
    assert all("was still learning" in str(why) for why in found.unfit.values())
    judged = judgement(found, real.unit, marks, NAMES)
    assert not judged.sure.any()
    assert np.isfinite(judged.distance).all()

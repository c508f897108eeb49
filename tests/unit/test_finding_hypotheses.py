"""Synthetic cases of several findings: each is asked about where the judges see what was asked for, and only there."""

import numpy as np
import pytest

from evaluation import finding_hypotheses
from evaluation.data import Labelled, to_unit
from evaluation.finding_hypotheses import FindingJudges, hypotheses, judgement, learned
from evaluation.hypotheses import Halves
from evaluation.intervals import Interval

NAMES = ("left", "right", "both")
MARKS = np.array([[1, 0, -1], [1, 1, 1], [0, 0, 0], [-1, 1, 0]], np.int8)
SEEN = np.array([[0.9, 0.2, 0.9], [0.8, 0.4, 0.7], [0.1, 0.3, 0.2], [0.6, 0.9, 0.9]])


class Sees:
    """A judge that says what it is given."""

    def __init__(self, p):
        self.p = p

    def predict(self, images):
        return self.p


def judges(*p, unfit=None):
    area = Interval(0.9, 0.8, 1, 100)
    halves = Halves(tuple(Sees(one) for one in p), np.zeros((1, 0, 3)), (), None)
    return FindingJudges(halves, dict.fromkeys(NAMES, area), dict.fromkeys(NAMES) | (unfit or {}))


def test_a_finding_is_sure_where_all_judges_say_what_was_asked_for():
    other = SEEN.copy()
    other[0, 0] = 0.4  # one of two does not see it
    judged = judgement(judges(SEEN, other, unfit={"both": "reason"}), np.zeros((4, 1, 8, 8), np.float32), MARKS)
    assert judged.sure.tolist() == [[False, True, False], [True, False, False], [True, True, False], [False, True, False]]
    assert judged.fidelity[0] == pytest.approx(((0.9 + 0.4) / 2 + 0.8) / 2)


def test_what_the_model_misses_and_what_it_sees_for_nothing_are_told_by_finding():
    its = judges(SEEN)
    judged = judgement(its, np.zeros((4, 1, 8, 8), np.float32), MARKS)
    p = np.array([[0.5, 0.5, 0], [0.2, 0, 0.8], [0, 0, 0], [0, 0.9, 0]])
    found = hypotheses(its, judged, p, MARKS, NAMES)
    left, right = found["classes"]["left"], found["classes"]["right"]
    # One half is present, as everywhere in the stress test.
    assert (left["images"], left["kept"], left["sensitivity"].value) == (2, 2, 0.5)
    assert (left["absent"]["kept"], left["absent"]["specificity"].value) == (1, 1)
    assert (right["images"], right["kept"], right["sensitivity"].value) == (2, 1, 1)
    assert (right["absent"]["kept"], right["absent"]["specificity"].value) == (2, 0.5)
    assert (found["images"], found["kept"]) == (4, judged.sure.sum())
    told = finding_hypotheses.told(its, "as given", found)
    assert told["sets"][0]["name"] == "as given"
    assert set(told["judges"]["per_class"]) == set(NAMES)


def test_judges_learn_each_finding_from_the_images_of_which_it_is_known():
    rng = np.random.default_rng(0)
    marks = rng.integers(0, 2, (240, 2)).astype(np.int8)
    images = rng.normal(90 + 60 * np.repeat(marks, 8, axis=1)[:, None, None], 15, (240, 1, 16, 16)).clip(0, 255).astype(np.uint8)
    known = np.where(rng.random(marks.shape) < 0.2, -1, marks).astype(np.int8)
    settings = {"seeds": 1, "ceiling": 3200, "rng": np.random.default_rng(1), "device": "cpu"}
    its = learned(Labelled(images, known, np.arange(240) // 2), NAMES[:2], **settings)
    assert min(one.value for one in its.auc.values()) > 0.95
    assert all("was still learning" in one for one in its.unfit.values()), "nothing counts of what has not reached its plateau"
    fit = FindingJudges(its.halves, its.auc, dict.fromkeys(NAMES[:2]))
    judged = judgement(fit, to_unit(images[:40]), marks[:40])
    assert judged.sure.mean() > 0.8
    wrong = judgement(fit, to_unit(images[:40]), 1 - marks[:40])
    assert wrong.sure.mean() < 0.1
    assert ((judged.distance >= 0) & (judged.distance <= 1)).all()

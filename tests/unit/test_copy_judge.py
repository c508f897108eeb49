"""What the copy search's distances mean: thresholds, twins, and whom they are measured between; on distances that are given."""

from dataclasses import dataclass

import numpy as np
import pytest

from evaluation.data import Labelled
from privacy import copies, copy_report, limits, tail
from privacy.copy_report import Judge
from privacy.copy_score import CopyScore
from privacy.repeats import Repeats

N = 200
"""Images of the set that is judged."""
LEVEL = limits.FALSE_ALARMS["copies"] / N
CHANCE = ((np.arange(400) + 0.5) / 400) ** (1 / 8)
"""Distances to strangers, as in eight dimensions."""


@dataclass
class Found:
    """A search that has found these candidates already."""

    references: np.ndarray
    found: copies.Candidates | None = None

    def candidates(self, queries, *among, itself=None, report=None):
        return self.found


def matches(distance) -> copies.Matches:
    return copies.Matches(np.zeros(len(distance), int), np.asarray(distance, float))


def measured(larger: float = 4.0, *, score: CopyScore | None = None) -> Judge:
    """A judge in a cohort without twins."""
    judge, measures = Judge(Found(np.zeros((6, 1, 1, 1))), score, (), LEVEL, larger), 2 if score is None else 3
    return judge.calibrated([CHANCE] * measures, [matches(np.ones(10))] * measures)


@pytest.mark.parametrize("score", [None, CopyScore(np.ones((1, 2)), np.zeros(1))])
def test_an_image_is_near_where_its_p_value_is_below_its_share_of_the_false_alarms(score):
    """One comparison's probability, as often as there are measures, and as train has more images than the sealed side."""
    judge, measures = measured(score=score), 2 if score is None else 3
    assert judge.probability == pytest.approx(LEVEL / measures / 4)
    for place, threshold in enumerate(judge.thresholds):
        at = [np.full(2, 1.0) for _ in range(measures)]
        at[place] = np.array([threshold * (1 - 1e-9), threshold * (1 + 1e-6)])
        found = [matches(one) for one in at]
        assert judge.near(found).tolist() == [True, False]
        assert judge.p_values(found) == pytest.approx([LEVEL, LEVEL], rel=1e-3)


def test_images_that_are_the_same_are_near_whatever_calibrates_the_search():
    judge = measured(1e200)  # no distance is so improbable
    far = np.ones(2)
    assert judge.near([matches(far), matches([copy_report.IDENTICAL / 2, copy_report.IDENTICAL * 2])]).tolist() == [True, False]


def with_twins(judge: Judge, twins: int, sealed: int = 100) -> Judge:
    """The same of a cohort in which so many sealed images have a twin, by their distance alone, at half its threshold."""
    distance = np.ones(sealed)
    distance[:twins] = judge.thresholds[1] / 2
    return judge.calibrated([CHANCE] * 2, [matches(np.ones(sealed)), matches(distance)])


def test_what_any_measure_takes_for_a_copy_is_a_twin():
    assert np.flatnonzero(with_twins(measured(), 2).twins >= 0).tolist() == [0, 1]
    assert (with_twins(measured(), 0).twins == -1).all()
    assert with_twins(measured(), 0).twin_tails == ()


def test_near_images_are_called_copies_beyond_the_number_that_twins_explain_at_half_the_false_alarms():
    judge = with_twins(measured(), 2)
    error = limits.FALSE_ALARMS["copies"] / 2
    enough = next(near for near in range(1, N) if tail.beyond_twins(near, N, 2, 100) < error)
    assert enough > 3
    for count, called in ((enough - 1, 0), (enough, enough)):
        distance = np.ones(N)
        distance[:count] = judge.thresholds[1] * 0.9
        found = [matches(np.ones(N)), matches(distance)]
        assert judge.near(found).sum() == count
        assert judge.flagged(found, np.ones(N, bool)).sum() == called
    repeated = np.arange(N) > 0
    assert judge.flagged(found, repeated & (np.arange(N) != 1)).sum() == 0, "an image that repeats another is not counted twice"


def test_an_image_nearer_than_twins_are_is_called_a_copy_at_half_the_false_alarms():
    """By the ratio, by which no twin is near. By the distance two twins tell of no nearer ones, so that only what is the same is one."""
    judge = with_twins(measured(), 2)
    limit = judge.twin_tails[0].threshold(judge.probability / 2)
    ratio, distance = np.ones(N), np.ones(N)
    ratio[:2] = limit * (1 - 1e-9), limit * (1 + 1e-6)
    distance[2:4] = copy_report.IDENTICAL / 2, copy_report.IDENTICAL * 2
    found = [matches(ratio), matches(distance)]
    assert np.flatnonzero(judge.near(found)).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(judge.flagged(found, np.ones(N, bool))).tolist() == [0, 2]


def test_a_sealed_image_is_compared_with_train_and_other_sealed_patients_and_each_pair_once():
    """References: two of train, then four sealed ones of the patients a, a, b, b."""
    index = np.array([[0, 3, 4], [1, 2, 5], [2, 5, 0], [3, 4, 1]])
    distance = np.array([[0.5, 0.1, 0.2], [0.5, 0.1, 0.2], [0.3, 0.1, 0.4], [0.3, 0.1, 0.4]])
    found = copies.Candidates(index, distance, distance, np.zeros((4, 3, 2), np.float32))
    judge = Judge(Found(np.zeros((6, 1, 1, 1)), found), None, (), LEVEL, 1.0)
    for one in judge.of_real(np.array([7, 7, 9, 9]), 2):
        assert one.index.tolist() == [0, 1, 2, 3], "neither the same patient's other image nor a later one, which looks for this itself"
        assert one.distance.tolist() == [0.5, 0.5, 0.3, 0.3]


def test_training_patients_lead_where_synthetic_images_are_nearer_to_them_than_to_any_sealed_one():
    """Six patients of train, six sealed: each synthetic image has one candidate of either side."""
    side = np.arange(6)
    apart = np.stack([np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.9]), np.array([0.8, 0.5, 0.8, 0.8, 0.8, 0.8])], axis=1)
    found = copies.Candidates(np.stack([side, 6 + side], axis=1), apart, np.ones((6, 2)), np.zeros((6, 2, 2), np.float32))
    judge = Judge(Found(np.zeros((12, 1, 1, 1))), None, measured().tails, LEVEL, 1.0)
    none = np.zeros(6, bool)
    said = copy_report.reported(judge, found, side, side, Repeats(side, none, none), 0, [])
    assert said.run.length == 4
    assert said.run.p_value == pytest.approx(6 / 12 * 5 / 11 * 4 / 10 * 3 / 9)
    assert not (said.flagged & said.undecided).any()
    assert said.audit_distance.tolist() == apart[:, 1].tolist()


def search_of(train: int, sealed: int, repeated: int = 0, each: int = 1, planted: int = 1) -> copy_report.CopyReport:
    """Thirty images of noise, and the last of them again, searched among others of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (100, 1, 16, 16), dtype=np.uint8)
    part = lambda start, n: Labelled.of_classes(pixels[start:][:n], np.zeros(n, int), np.arange(n) // each, 1)  # noqa: E731
    pixels[1], pixels[30] = pixels[0], pixels[5]  # one that repeats another of train, and one sealed that repeats one of train
    made = np.concatenate([pixels[60:90], np.repeat(pixels[89:90], repeated, axis=0)])
    return copy_report.find_copies(part(0, train), part(30, sealed), made, planted=planted, rng=np.random.default_rng(0), device="cpu")


@pytest.fixture
def nothing_planted(monkeypatch):
    monkeypatch.setattr(copy_report, "KINDS", ())


@pytest.mark.parametrize("sealed", [copy_report.CALIBRATION - 1, copy_report.CALIBRATION])
def test_fewer_sealed_images_than_make_a_tail_calibrate_nothing(nothing_planted, sealed):
    assert (search_of(30, sealed).ratio_threshold > 0) == (sealed >= copy_report.CALIBRATION)


def test_a_set_is_judged_by_its_distinct_images_and_by_how_many_times_as_large_train_is(nothing_planted, monkeypatch):
    seen, right = [], Judge.calibrated
    monkeypatch.setattr(Judge, "calibrated", lambda self, *given: seen.append((self, given[0])) or right(self, *given))
    found = search_of(30, 25, repeated=8)
    [(judge, apart)] = seen
    assert len(found.flagged) == 38
    assert found.audit_repeats == 1, "what sealed images do by themselves"
    assert judge.level == pytest.approx(limits.FALSE_ALARMS["copies"] / 30)
    assert judge.larger == pytest.approx(30 / 25)
    assert [len(one) for one in apart] == [30, 30], "an image that is given again and again says no more of how near chance comes"


def test_one_image_of_a_patient_is_looked_for_among_the_others_as_if_it_were_not_there(nothing_planted):
    [row] = search_of(30, 25, each=3, planted=20).power
    assert (row["kind"], row["planted"]) == ("same_patient", 10), "ten patients have three images each, and are asked for once"
    assert row["found"] == 0, "their other images are noise as well, and no nearer than anybody's"

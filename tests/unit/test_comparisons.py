"""Differences: paired, of different patients, and tested together."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from evaluation import comparisons, metrics
from evaluation import intervals as iv


def test_differences_that_are_read_together_are_tested_together() -> None:
    rng = np.random.default_rng(6)
    groups = np.arange(200)
    base = metrics.share_estimate(rng.random(200) < 0.5, groups)
    pairs = {share: (metrics.share_estimate(rng.random(200) < share, groups), base) for share in (0.5, 0.62, 0.9)}
    found = comparisons.changes(pairs)
    assert [found[share].by for share in pairs] == [comparisons.difference(*pair) for pair in pairs.values()]
    assert [found[share].p for share in pairs] == pytest.approx(comparisons.holm([comparisons.p_value(*pair) for pair in pairs.values()]))
    assert found[0.9].stands
    alone = comparisons.changes({0.62: pairs[0.62]})
    assert alone[0.62].p < found[0.62].p
    assert comparisons.changes({}) == {}


def test_a_difference_is_paired_and_keeps_a_width_where_nothing_differs() -> None:
    rng = np.random.default_rng(4)
    positive = np.arange(120) < 60
    scores = rng.normal(size=120) + positive
    one, almost = (metrics.auc_estimate(values, positive, np.arange(120)) for values in (scores, scores + 0.02 * rng.normal(size=120)))
    paired, alone = comparisons.difference(one, almost), iv.interval(one)
    assert paired.low < 0 < paired.high
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    same = comparisons.difference(one, one)
    assert same.value == 0
    assert 0.005 < same.high == -same.low
    assert comparisons.p_value(one, one) == 1


def test_a_p_value_is_the_level_at_which_the_interval_begins_to_hold_no_difference() -> None:
    rng = np.random.default_rng(0)
    hits, alone = rng.random((3, 60)) < np.array([[0.9], [0.85], [0.95]]), np.arange(60)
    one, other = metrics.share_estimate(hits, alone), metrics.share_estimate(hits & (rng.random((3, 60)) < 0.6), alone)
    for p, of in ((comparisons.p_value(one, other), comparisons.difference), (comparisons.p_apart(one, other), comparisons.apart)):
        assert 0 < p < 0.2
        assert of(one, other, 1 - 0.99 * p).low < 0 < of(one, other, 1 - 1.01 * p).low


def test_three_trainings_that_lie_close_together_by_luck_are_not_taken_for_well_known() -> None:
    """Half of an interval is what patients and trainings have alone, squared and added: t with 399 and with two degrees of freedom."""
    rng = np.random.default_rng(7)
    hits = rng.random((3, 400)) < np.array([[0.80], [0.82], [0.84]])
    one = metrics.share_estimate(hits, np.arange(400))
    other = metrics.share_estimate(np.zeros((3, 400)), np.arange(400))
    patients = t.ppf(0.975, 399) * hits.mean(axis=0).std(ddof=1) / math.sqrt(400)
    trainings = t.ppf(0.975, 2) * hits.mean(axis=1).std(ddof=1) / math.sqrt(3)
    found = comparisons.difference(one, other)
    assert found.high - found.value == pytest.approx(math.hypot(patients, trainings), rel=0.01)


def test_shares_of_different_patients_are_apart_by_newcombes_method() -> None:
    """Eleven of eleven in a subgroup, 90 of 100 of the others: that it is missed a tenth more often is not excluded."""
    others, own = (metrics.share_estimate(np.arange(n) < hits, np.arange(n)) for hits, n in ((90, 100), (11, 11)))
    found, first, second = comparisons.apart(others, own), iv.clopper_pearson(90, 100), iv.clopper_pearson(11, 11)
    assert found.n == 111
    assert found.high == pytest.approx(-0.1 + math.hypot(first.high - 0.9, 1 - second.low), abs=0.01)
    assert found.high > 0.1


def test_shares_of_different_patients_are_apart_by_the_truth_as_often_as_is_said() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        one, other = (metrics.share_estimate(np.arange(120) < rng.binomial(120, share), np.arange(120)) for share in (0.7, 0.55))
        found.append(comparisons.apart(one, other))
    assert np.mean([one.low <= 0.15 <= one.high for one in found]) >= 0.94


def test_holm_steps_down_and_leaves_out_what_was_not_tested() -> None:
    found = comparisons.holm([0.01, 0.04, math.nan, 0.03, 0.5])
    np.testing.assert_allclose(found, [0.04, 0.09, math.nan, 0.09, 0.5])


@pytest.mark.parametrize("n", [12, 60, 300])
def test_where_no_patient_differs_a_difference_of_shares_has_tangos_score_interval(n: int) -> None:
    hits = metrics.share_estimate(np.ones(n), np.arange(n))
    found = comparisons.difference(hits, hits)
    t2 = t.ppf(0.975, n + 1) ** 2
    assert (found.low, found.high) == pytest.approx((-t2 / (n + t2), t2 / (n + t2)))


def test_a_difference_of_shares_is_as_uncertain_as_its_largest_true_value_makes_it() -> None:
    n, differing = 60, 1
    one, other = np.ones(n), np.ones(n)
    other[:differing] = 0
    found = comparisons.difference(*(metrics.share_estimate(hits, np.arange(n)) for hits in (one, other)))
    at_bound = t.ppf(0.975, n + 1) * math.sqrt(found.high * (1 - found.high) / n)
    assert found.high - differing / n == pytest.approx(at_bound)


def test_what_is_no_count_of_hits_is_not_widened_as_one() -> None:
    """Brier scores that all improve by .3 differ by .3 of everybody's, with hardly any variance."""
    scores = np.linspace(0.4, 0.41, 60)
    found = comparisons.difference(*(metrics.share_estimate(values, np.arange(60)) for values in (scores, scores - 0.3)))
    assert found.high - found.low < 0.1
    hits = np.arange(60) < 30
    of_hits = comparisons.difference(*(metrics.share_estimate(values, np.arange(60)) for values in (hits, np.arange(60) < 12)))
    assert of_hits.high - of_hits.low > 0.2


def test_trainings_that_miss_the_same_patients_tell_no_more_than_one() -> None:
    one, other = np.ones(60), np.arange(60) > 1
    found, alone = (
        comparisons.difference(*(metrics.share_estimate(np.tile(hits, (seeds, 1)), np.arange(60)) for hits in (one, other)))
        for seeds in (5, 1)
    )
    assert found.high == pytest.approx(alone.high)
    none, once = (comparisons.difference(*[metrics.share_estimate(np.ones((seeds, 60)), np.arange(60))] * 2) for seeds in (5, 1))
    assert (none.low, none.high) == (once.low, once.high)


def test_trainings_that_miss_different_patients_each_tell_something() -> None:
    """Each training of two arms misses one of 100 patients: all the same one, or each another."""

    def found(missed: NDArray[np.int64]) -> iv.Interval:
        one = np.ones((5, 100))
        one[np.arange(5), missed] = 0
        return comparisons.difference(*(metrics.share_estimate(hits, np.arange(100)) for hits in (one, one[:, ::-1])))

    same, others = found(np.zeros(5, int)), found(np.arange(5))
    assert same.value == others.value == 0
    assert others.high < same.high / 2


def test_a_difference_of_trainings_that_agree_holds_the_truth_as_often_as_is_said() -> None:
    """Three trainings that all miss the same of 60 patients: .99 and .95 of them are found."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        ease = np.tile(rng.random(60), (3, 1))
        found = comparisons.difference(*(metrics.share_estimate(ease < share, np.arange(60)) for share in (0.99, 0.95)))
        held.append(found.low <= 0.04 <= found.high)
    assert np.mean(held) > 0.95


def test_a_difference_is_as_little_known_where_one_patient_has_half_of_the_images() -> None:
    patient, known = np.r_[np.zeros(40, int), np.arange(1, 41)], 80**2 / (40**2 + 40)
    hits, t2 = metrics.share_estimate(np.ones(80), patient), t.ppf(0.975, known + 1) ** 2
    assert comparisons.difference(hits, hits).high == pytest.approx(t2 / (known + t2))

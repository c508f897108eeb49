"""The tail of chance distances and the leading run: levels that they promise."""

import math

import numpy as np
import pytest

from privacy import tail


def nearest_of(count, exponent, size, rng):
    """Smallest of ``count`` distances with P(d < r) = r^exponent each."""
    return (1 - (1 - rng.random(size)) ** (1 / count)) ** (1 / exponent)


@pytest.mark.parametrize("exponent", [3, 12])
def test_a_power_laws_false_alarms_are_as_many_as_stated(exponent):
    rng, alarms, draws, n = np.random.default_rng(exponent), 0, 2000, 400
    for _ in range(draws):
        threshold = tail.lower_tail(nearest_of(1, exponent, n, rng)).threshold(0.05 / n / 1.5)
        alarms += (nearest_of(1.5, exponent, n, rng) < threshold).any()
    # An upper bound by Bonferroni, attained up to the overlap of alarms.
    assert 0.02 < alarms / draws < 0.05 + 3 * math.sqrt(0.05 / draws)


def test_distances_of_gaussian_points_give_no_more_false_alarms_than_stated():
    rng, alarms, draws = np.random.default_rng(0), 0, 200
    for _ in range(draws):
        points = rng.standard_normal((900, 8))
        audit, train, queries = points[:200], points[200:500], points[500:]
        apart = [np.sqrt(((queries[:, None] - side) ** 2).sum(axis=2)).min(axis=1) for side in (audit, train)]
        alarms += (apart[1] < tail.lower_tail(apart[0]).threshold(0.05 / 400 / 1.5)).any()
    assert alarms / draws < 0.05 + 3 * math.sqrt(0.05 / draws)


def test_twins_in_the_cohort_lower_the_threshold_below_where_they_lie():
    rng, alarms, draws, n = np.random.default_rng(1), 0, 300, 1000

    def side(m):
        twin = rng.random(n) < 1 - 0.98**m
        return np.where(twin, 0.15 * nearest_of(m, 1, n, rng), nearest_of(m, 12, n, rng))

    for _ in range(draws):
        alarms += (side(1.5) < tail.lower_tail(side(1)).threshold(0.05 / n / 1.5)).any()
    assert alarms / draws < 0.05 + 3 * math.sqrt(0.05 / draws)


def few_twins(count, size, rng, share=0.005):
    twin = rng.random(size) < 1 - (1 - share) ** count
    return np.where(twin, 0.15 * nearest_of(count, 1, size, rng), nearest_of(count, 12, size, rng))


def test_twins_too_few_for_the_tail_are_seen_among_the_real_images():
    rng, alarms, draws, n = np.random.default_rng(3), np.zeros(2), 400, 300
    for _ in range(draws):
        sealed, members, real = (few_twins(count, n, rng) for count in (1, 1.5, 2))
        p = 0.05 / n / 1.5
        alone = tail.lower_tail(sealed)
        beside = tail.tail_with_twins(sealed, real, real < alone.threshold(p))
        alarms += [(members < one.threshold(p)).any() for one in (alone, beside)]
    alone, beside = alarms / draws
    assert alone > 0.4  # one or two twins on the sealed side say nothing
    assert beside < 0.05 + 3 * math.sqrt(0.05 / draws)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_an_honest_set_has_more_twins_than_the_sealed_side_explains_as_seldom_as_stated(share):
    rng, alarms, draws = np.random.default_rng(5), 0, 4000
    for _ in range(draws):
        near, twins = rng.binomial([900, 600], share)
        alarms += tail.beyond_twins(int(near), 900, int(twins), 600) < 0.05
    assert alarms / draws < 0.05 + 3 * math.sqrt(0.05 / draws)


def test_many_near_images_are_beyond_one_twin_and_few_are_not():
    assert tail.beyond_twins(0, 1000, 1, 1000) == 1
    assert tail.beyond_twins(1, 1000, 1, 1000) == pytest.approx(0.75)
    assert tail.beyond_twins(2, 1000, 0, 1000) == pytest.approx(0.25)
    assert tail.beyond_twins(20, 1000, 1, 1000) < 1e-4


def test_where_no_twin_is_seen_in_it_the_tail_stays_as_it_is():
    rng = np.random.default_rng(4)
    sealed, real = nearest_of(1, 12, 400, rng), nearest_of(2, 12, 400, rng)
    assert tail.tail_with_twins(sealed, real, np.zeros(400, bool)) == tail.lower_tail(sealed)
    assert tail.tail_with_twins(sealed, real, real > 0.9) == tail.lower_tail(sealed)


def test_the_tail_of_a_twin_is_the_extrapolation_of_what_lies_no_farther():
    sealed, real = np.linspace(0.5, 1, 100), np.concatenate([[0.004], np.linspace(0.5, 1, 99)])
    found = tail.tail_with_twins(sealed, real, real < 0.1)
    assert (found.edge, found.n, found.share) == (0.5, 1, 2 / 201)
    assert found.total == pytest.approx(math.log(0.5 / 0.004))
    assert found.threshold(1e-5) < 1e-9


def test_one_near_copy_of_an_audit_image_does_not_steer_the_threshold():
    distances = nearest_of(1, 10, 800, np.random.default_rng(2))
    with_one = distances.copy()
    with_one[5] = 1e-7
    before, after = (tail.lower_tail(one).threshold(1e-5) for one in (distances, with_one))
    assert after == pytest.approx(before, rel=0.1)


def test_the_p_value_is_the_inverse_of_the_threshold_and_1_above_the_edge():
    fitted = tail.lower_tail(nearest_of(1, 8, 2000, np.random.default_rng(0)))
    assert fitted.p_value(np.array([fitted.threshold(1e-4)]))[0] == pytest.approx(1e-4)
    assert fitted.p_value(np.array([fitted.edge, 2.0, np.inf])).tolist() == [1.0, 1.0, 1.0]
    assert fitted.n / fitted.total == pytest.approx(8, rel=0.3)  # Hill's estimate


def test_infinite_distances_count_as_far():
    distances = nearest_of(1, 8, 400, np.random.default_rng(0))
    far = np.where(distances > np.quantile(distances, 0.5), np.inf, distances)
    assert tail.lower_tail(far) == tail.lower_tail(distances)


def test_too_few_distances_for_a_tail_are_refused():
    with pytest.raises(ValueError, match="too few"):
        tail.lower_tail(np.array([0.1, 0.2, 0.3] + 50 * [np.inf]))


def test_the_leading_run_has_the_probability_of_drawing_without_replacement():
    run = tail.leading_run(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.5, 0.6]))
    assert run.length == 3
    assert run.p_value == pytest.approx(4 / 6 * 3 / 5 * 2 / 4)
    assert tail.leading_run(np.array([0.7]), np.array([0.5])).p_value == 1.0


def test_the_leading_runs_level_holds_under_exchangeability():
    rng = np.random.default_rng(0)
    values = [tail.leading_run(*np.split(rng.random(60), [40])).p_value for _ in range(4000)]
    for level in (0.05, 0.01):
        assert np.mean(np.array(values) <= level) <= level + 3 * math.sqrt(level / 4000)


def test_each_patient_counts_once_with_the_nearest_of_its_images():
    nearest = tail.nearest_by_patient(np.array([0, 1, 3, 3]), np.array([0.4, 0.2, 0.5, 0.1]), np.array([7, 7, 8, 9]))
    assert nearest.tolist() == [0.2, np.inf, 0.1]


def test_odds_far_below_any_distance_have_their_tail():
    # The same power law, of odds that reach where distances do not: the threshold is where the exponent says.
    distances = np.random.default_rng(0).random(400) ** (1 / 5)
    near, odds = tail.lower_tail(distances), tail.lower_tail(distances**20, smallest=1e-130)
    threshold = odds.threshold(1e-6)
    assert 0 < threshold < 1e-9
    assert np.log(threshold) == pytest.approx(20 * np.log(near.threshold(1e-6)))
    assert odds.p_value(np.array([threshold]))[0] == pytest.approx(1e-6)

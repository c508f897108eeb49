"""Bounds from counts, against the closed form, a naive evaluation, or how often they hold in a simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from privacy import bounds, limits


def test_nothing_of_n_is_bounded_by_the_root_of_the_error():
    assert bounds.share_upper(0, 600, 0.05) == pytest.approx(1 - 0.05 ** (1 / 600))
    assert bounds.share_lower(100, 100, 0.05) == pytest.approx(0.05 ** (1 / 100))
    assert bounds.share_upper(7, 7, 0.05) == 1
    assert bounds.share_lower(0, 7, 0.05) == 0


@pytest.mark.parametrize(("hits", "n", "error"), [(3, 40, 0.05), (39, 40, 0.0025), (12, 300, 0.01)])
def test_shares_have_the_tail_that_they_claim(hits, n, error):
    assert binom.cdf(hits, n, bounds.share_upper(hits, n, error)) == pytest.approx(error)
    assert binom.sf(hits - 1, n, bounds.share_lower(hits, n, error)) == pytest.approx(error)


def test_the_quotient_of_two_bounds_errs_by_both_together():
    """A search of recall .9 in a set with a share of copies of 1 %: the joint bound holds as often as it says, and one at 95 % each not."""
    rng = np.random.default_rng(0)
    truth, recall, n, planted, error = 0.01, 0.9, 400, 100, 0.2
    held = 0
    for _ in range(4000):
        low = bounds.share_lower(int(rng.binomial(planted, recall)), planted, error / 2)
        held += bounds.copy_rate_upper(int(rng.binomial(n, truth * recall)), n, low, error / 2) >= truth
    assert held / 4000 >= 1 - error
    assert bounds.copy_rate_upper(0, 100, 0.0, 0.05) == 1


def test_the_worst_of_several_kinds_is_bounded_together():
    rng = np.random.default_rng(0)
    recalls = {f"k{i}": 0.9 for i in range(7)}
    held = 0
    for _ in range(4000):
        kind, low = bounds.worst_recall({name: (int(rng.binomial(100, recall)), 100) for name, recall in recalls.items()}, 0.1)
        held += low <= 0.9
        assert kind in recalls
    assert held / 4000 >= 0.9
    assert bounds.worst_recall({"a": (90, 100), "b": (99, 100)}, 0.1) == ("a", bounds.share_lower(90, 100, 0.05))


@pytest.mark.parametrize(
    ("flagged", "images", "recall", "error"), [(0, 500, 0.8, 0.025), (0, 500, 0.95, 0.0125), (2, 500, 0.8, 0.05), (0, 2, 0.1, 0.05)]
)
def test_exposed_patients_against_the_naive_search(flagged, images, recall, error):
    naive = max(m for m in range(flagged, images + 1) if sum(binom.pmf(k, m, recall) for k in range(flagged + 1)) > error)
    assert bounds.exposed_upper(flagged, images, recall, error) == naive
    assert bounds.exposed_upper(0, images, 0.0, error) == images


def test_copies_spread_over_releases_are_bounded_by_the_lowest_recall():
    rng = np.random.default_rng(0)
    recalls, error = np.array([0.95, 0.7, 0.85]), 0.05
    limit = bounds.exposed_upper(0, 1000, float(recalls.min()), error)
    where = rng.integers(0, 3, (20_000, limit + 1))
    unseen = (rng.random(where.shape) >= recalls[where]).all(axis=1).mean()
    assert unseen <= error


def test_enough_images_are_the_fewest_that_do():
    enough = bounds.enough_images(0.9, 0.005, 0.0125)
    assert bounds.copy_rate_upper(0, enough, 0.9, 0.0125) <= 0.005 < bounds.copy_rate_upper(0, enough - 1, 0.9, 0.0125)


@pytest.mark.parametrize("error", [0.025 / 3, 0.0005])
def test_widened_bounds_reach_as_far_as_exact_ones(error):
    """Held against Clopper and Pearson's own at that error: never short by more than a hundredth of a share's standard error."""
    for n in (300, 1000, 3000):
        for hits in (0, 3, n // 100, n // 10, n // 2, n - 3, n):
            value = hits / n
            slack = 0.1 * math.sqrt(max(value * (1 - value), 1 / n) / n)
            assert bounds.widened(value, bounds.share_upper(hits, n, 0.025), error) >= bounds.share_upper(hits, n, error) - slack
            assert bounds.widened(value, bounds.share_lower(hits, n, 0.025), error) <= bounds.share_lower(hits, n, error) + slack


def test_a_bound_that_is_not_moved_stays():
    assert bounds.widened(0.5, 0.55, 0.025) == pytest.approx(0.55)
    assert bounds.widened(0.5, 0.55, 0.0005) > 0.58


def test_the_default_share_of_sealed_patients_sees_ten_copied_ones():
    """And a third, as it was, does not; simulated against the closed form."""
    from pipeline.config.ingest import IngestConfig

    level = limits.FALSE_ALARMS["leading_run"]
    share = IngestConfig.model_fields["audit_share"].default
    assert bounds.leading_run_power(10, share, level) == 1
    assert bounds.leading_run_power(10, 1 / 3, level) < 0.25
    assert bounds.leading_run_power(10, share - 0.01, level) < 1
    rng = np.random.default_rng(0)
    followers = rng.geometric(1 / 3, 20_000) - 1
    seen = ((2 / 3) ** (10 + followers) <= level).mean()
    assert seen == pytest.approx(bounds.leading_run_power(10, 1 / 3, level), abs=0.02)


# ε of one run.


@pytest.mark.parametrize(("correct", "guesses"), [(90, 100), (300, 300), (60, 100), (40, 100), (0, 10)])
def test_epsilon_is_where_the_binomial_tail_has_the_error(correct, guesses):
    epsilon = bounds.epsilon_lower(correct, guesses, 0.05)
    tail = sum(binom.pmf(k, guesses, 1 / (1 + math.exp(-epsilon))) for k in range(correct, guesses + 1))
    if epsilon:
        assert tail == pytest.approx(0.05)
    else:
        assert tail >= 0.05
    assert bounds.p_value(correct, guesses, epsilon) == pytest.approx(min(1.0, tail))


def test_delta_costs_what_the_theorem_says():
    correct, guesses, coins, delta, epsilon = 45, 50, 200, 1e-4, 1.0
    right = 1 / (1 + math.exp(-epsilon))
    pmf = [math.comb(guesses, k) * right**k * (1 - right) ** (guesses - k) for k in range(guesses + 1)]
    worst = max(2 / i * sum(pmf[k] for k in range(max(0, correct - i), correct)) for i in range(1, coins + 1))
    naive = sum(pmf[correct:]) + coins * delta * worst
    assert bounds.p_value(correct, guesses, epsilon, coins=coins, delta=delta) == pytest.approx(naive)
    with_delta = bounds.epsilon_lower(correct, guesses, coins=coins, delta=delta)
    assert bounds.p_value(correct, guesses, with_delta, coins=coins, delta=delta) == pytest.approx(0.05)
    assert with_delta < bounds.epsilon_lower(correct, guesses)
    assert bounds.epsilon_lower(correct, guesses, coins=coins, delta=1e-12) == pytest.approx(
        bounds.epsilon_lower(correct, guesses), abs=1e-5
    )
    assert bounds.epsilon_lower(26, 50, coins=200, delta=1e-2) == 0


@pytest.mark.parametrize("counts", [(5, 4), (-1, 4)])
def test_counts_in_another_order_are_refused(counts):
    with pytest.raises(ValueError, match="order"):
        bounds.epsilon_lower(*counts)
    with pytest.raises(ValueError, match="order"):
        bounds.epsilon_lower(3, 4, coins=3, delta=1e-5)

"""Shadow trainings: which images they see, and what is said of the scores."""

import numpy as np
import pytest
from scipy.stats import chi2

from evaluation.metrics import auc
from privacy import shadows


def units_of(rng, n=900):
    units = np.unique(rng.integers(0, 500, n), return_inverse=True)[1]
    return units, (units % 5 == 0).astype(np.int64)


def test_shadows_see_whole_units_as_many_images_as_asked_and_each_unit_nearly_as_often():
    rng = np.random.default_rng(0)
    units, strata = units_of(rng)
    size = np.round(0.6 * np.bincount(strata)).astype(np.int64)
    inside = shadows.draw(units, strata, size, 9, rng)
    for training in inside:
        np.testing.assert_allclose(np.bincount(strata, training), size, atol=4)  # a unit has up to about eight images
        assert all(len(set(training[units == unit])) == 1 for unit in np.unique(units))
    times = inside.sum(axis=0)
    assert times.max() - times.min() <= 2
    assert len({training.tobytes() for training in inside}) == 9


def test_what_shadows_see_says_nothing_of_a_split_that_was_drawn_without_them():
    """Over many draws a unit is inside as often as any other, and two units together as often as chance has it."""
    rng = np.random.default_rng(1)
    units, strata = np.arange(12), np.zeros(12, np.int64)
    together = np.zeros((12, 12))
    for _ in range(3000):
        one = shadows.draw(units, strata, np.array([8]), 1, rng)[0]
        together += np.outer(one, one)
    expected = 3000 * 8 / 12
    statistic = ((np.diag(together) - expected) ** 2 / expected / (1 - 8 / 12)).sum() * 11 / 12
    assert chi2(11).cdf(statistic) < 0.999
    pairs = together[~np.eye(12, dtype=bool)]
    assert np.abs(pairs - 3000 * 8 * 7 / (12 * 11)).max() < 5 * np.sqrt(3000 * 0.25)


def test_a_class_with_few_units_is_seen_by_every_shadow():
    units, strata = np.arange(50), (np.arange(50) >= 47).astype(np.int64)
    inside = shadows.draw(units, strata, np.array([30, 2]), 4, np.random.default_rng(0))
    assert (inside[:, 47:].sum(axis=1) == 2).all()
    tiny = shadows.draw(units, strata, np.array([30, 0]), 4, np.random.default_rng(0))
    assert (tiny[:, 47:].sum(axis=1) >= 1).all()


def trainings(rng, memory, k=6, n=400):
    inside = shadows.draw(np.arange(n), np.zeros(n, np.int64), np.array([260]), k, rng)
    own = 3 * rng.standard_normal((n, 4))
    return own + memory * inside[:, :, None] + rng.standard_normal((k, n, 4)), inside


@pytest.mark.parametrize(("memory", "low", "high"), [(0.0, 0.44, 0.56), (1.0, 0.8, 0.95)])
def test_power_is_what_the_attack_finds_on_trainings_whose_members_are_known(memory, low, high):
    features, inside = trainings(np.random.default_rng(0), memory)
    found = shadows.power(features, inside)
    assert low < found["auc"]["value"] < high
    assert found["auc"]["spread"][0] <= found["auc"]["value"] <= found["auc"]["spread"][1]
    assert found["auc"]["n"] == 6
    one = shadows.scores(features[0], features[1:], inside[1:])
    assert found["auc"]["spread"][0] - 1e-12 <= auc(one, inside[0]) <= found["auc"]["spread"][1] + 1e-12


def test_a_measure_counts_patients_and_names_the_worst_group():
    rng = np.random.default_rng(0)
    groups, member = np.repeat(np.arange(300), 2), np.repeat(np.arange(300) < 200, 2)
    bad = np.repeat(np.arange(300) % 3 == 0, 2)
    guessed = rng.standard_normal(600) + 3.0 * (member & bad)
    found = shadows.measure(guessed, member, groups, {"bad": bad, "good": ~bad, "small": groups < 15})
    assert found["worst"]["name"] == "bad"
    assert found["worst"]["auc"]["value"] > 0.9 > found["auc"]["value"]
    twice = shadows.measure(np.repeat(guessed, 3), np.repeat(member, 3), np.repeat(groups, 3), {})
    assert twice["auc"]["low"] == pytest.approx(found["auc"]["low"], abs=0.01), "repeats of a patient's images tell nothing new"
    assert twice["worst"]["name"] == "all"
    assert twice["worst"]["auc"] == twice["auc"]
    assert "tpr_at_01pct_fpr" not in found


def test_a_rate_of_a_thousandth_is_given_with_three_thousand_others_only():
    rng = np.random.default_rng(0)
    member = np.arange(3500) < 400
    found = shadows.measure(rng.standard_normal(3500) + 9 * member, member, np.arange(3500), {})
    assert found["tpr_at_01pct_fpr"]["value"] == pytest.approx(1, abs=0.01)
    assert "tpr_at_01pct_fpr" not in shadows.measure(rng.standard_normal(3500), member, np.arange(3500) // 2, {})


def test_a_few_memorised_patients_show_among_the_most_exposed_though_not_in_the_auc():
    rng = np.random.default_rng(0)
    member = np.arange(1000) < 660
    guessed = rng.standard_normal(1000)
    honest = shadows.exposed(guessed, member, np.arange(1000))
    guessed[:10] += 10
    found = shadows.exposed(guessed, member, np.arange(1000))
    assert (found["patients"], found["members"]) == (10, 10)
    assert found["p"] == pytest.approx(np.prod([(660 - i) / (1000 - i) for i in range(10)]))
    assert honest["p"] > 0.02
    assert auc(guessed, member) == pytest.approx(0.5, abs=0.05)
    assert shadows.exposed(np.repeat(guessed, 2), np.repeat(member, 2), np.arange(2000) // 2) == found

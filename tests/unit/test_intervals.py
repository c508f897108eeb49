import json

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from evaluation import intervals as iv


def test_clopper_pearson_bounds_are_where_the_binomial_tails_reach_the_level() -> None:
    interval = iv.clopper_pearson(7, 40, 0.95)
    assert binom.sf(6, 40, interval.low) == pytest.approx(0.025)
    assert binom.cdf(7, 40, interval.high) == pytest.approx(0.025)
    assert interval.value == 7 / 40


def test_clopper_pearson_ends_have_their_closed_forms() -> None:
    assert iv.clopper_pearson(0, 20).low == 0
    assert iv.clopper_pearson(20, 20).high == 1
    assert iv.clopper_pearson_upper(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert iv.clopper_pearson_lower(30, 30, 0.9) == pytest.approx(0.1 ** (1 / 30))
    assert iv.clopper_pearson(0, 0).to_dict() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    with pytest.raises(ValueError, match="must lie in"):
        iv.clopper_pearson(3, 2)


def test_auc_counts_pairs_with_half_for_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 60)
    positives = rng.random(60) < 0.3
    pairs = scores[positives][:, None] - scores[~positives][None]
    assert iv.auc(scores, positives) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(iv.auc(scores, np.ones(60)))


def test_macro_auc_agrees_with_scikit_learn_and_skips_absent_classes() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    p = rng.dirichlet(np.ones(4), 200)
    assert iv.macro_auc(p, labels) == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    wider = np.c_[p, np.zeros(200)]
    assert iv.macro_auc(wider, labels) == pytest.approx(iv.macro_auc(p, labels))


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.1, 0.25, 1.0])
def test_tpr_at_fpr_is_the_largest_allowed_by_a_search_over_all_thresholds(fpr: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, 12, 50) + rng.integers(0, 2, 50) * rng.random(50)
        positives = rng.random(50) < 0.4
        best = 0.0
        for threshold in [*scores, np.inf]:
            if np.mean(scores[~positives] >= threshold) <= fpr:
                best = max(best, float(np.mean(scores[positives] >= threshold)))
        assert iv.tpr_at_fpr(scores, positives, fpr) == pytest.approx(best)


def test_weighted_statistics_equal_the_statistic_of_repeated_rows() -> None:
    rng = np.random.default_rng(2)
    groups = np.arange(80) // 3
    scores, labels, predicted = rng.integers(0, 9, 80), rng.integers(0, 3, 80), rng.integers(0, 3, 80)
    weights = iv.resample_weights(groups, rng, 5)
    areas = iv.weighted_auc(scores, labels == 1, weights)
    recalls = iv.weighted_recalls(predicted, labels, 3, weights)
    for row, weight in enumerate(weights):
        index = np.repeat(np.arange(80), weight.astype(int))
        assert areas[row] == pytest.approx(iv.auc(scores[index], labels[index] == 1))
        chosen = index[labels[index] == 2]
        assert recalls[row, 2] == pytest.approx(np.mean(predicted[chosen] == 2))


def test_resampling_keeps_groups_whole() -> None:
    groups = np.array(["b", "a", "b", "c", "a"])
    weights = iv.resample_weights(groups, np.random.default_rng(0), 50)
    assert (weights[:, [0, 1]] == weights[:, [2, 4]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_bootstrap_covers_a_mean_at_about_its_level_and_grouping_widens_it() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        x = rng.normal(size=60)
        interval = iv.bootstrap(lambda index, x=x: float(x[index].mean()), np.arange(60), rng, resamples=200)
        covered += interval.low <= 0 <= interval.high
    assert 178 <= covered <= 200
    x = np.repeat(rng.normal(size=40), 5)
    alone = iv.bootstrap(lambda i: float(x[i].mean()), np.arange(200), np.random.default_rng(0), resamples=300)
    grouped = iv.bootstrap(lambda i: float(x[i].mean()), np.arange(200) // 5, np.random.default_rng(0), resamples=300)
    assert grouped.high - grouped.low > 1.6 * (alone.high - alone.low)
    assert grouped.value == alone.value


def test_bootstrap_is_a_function_of_its_generator_and_json_has_no_nan() -> None:
    one, two = (iv.bootstrap(lambda i: float(i.mean()), np.arange(30), np.random.default_rng(7), 50) for _ in range(2))
    assert one == two
    undefined = iv.bootstrap(lambda i: float("nan"), np.arange(30), np.random.default_rng(7), 10)
    assert json.dumps(undefined.to_dict(), allow_nan=False) == '{"value": null, "low": null, "high": null, "n": 30}'

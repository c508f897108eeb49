import json
import math

import numpy as np
import pytest
from scipy.stats import binom, norm, t
from sklearn.metrics import roc_auc_score

from evaluation import comparisons, metrics
from evaluation import intervals as iv
from tests.benchmarks.coverage import STATISTICS, Cell


def test_clopper_pearson_bounds_are_where_the_binomial_tails_reach_the_level() -> None:
    interval = iv.clopper_pearson(7, 40, 0.95)
    assert binom.sf(6, 40, interval.low) == pytest.approx(0.025)
    assert binom.cdf(7, 40, interval.high) == pytest.approx(0.025)
    assert interval.value == 7 / 40


def test_clopper_pearson_ends_have_their_closed_forms() -> None:
    assert iv.clopper_pearson(0, 20).low == 0
    assert iv.clopper_pearson(20, 20).high == 1
    assert iv.clopper_pearson(0, 1000).high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert iv.clopper_pearson(30, 30).low == pytest.approx(0.025 ** (1 / 30))
    assert iv.clopper_pearson(0, 0).to_dict() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    with pytest.raises(ValueError, match="must lie in"):
        iv.clopper_pearson(3, 2)


def test_auc_counts_pairs_with_half_for_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 60)
    positives = rng.random(60) < 0.3
    pairs = scores[positives][:, None] - scores[~positives][None]
    assert metrics.auc(scores, positives) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(metrics.auc(scores, np.ones(60)))


def test_macro_auc_agrees_with_scikit_learn_and_skips_absent_classes() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    p = rng.dirichlet(np.ones(4), 200)
    assert metrics.macro_auc(p, labels) == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    wider = np.c_[p, np.zeros(200)]
    assert metrics.macro_auc(wider, labels) == pytest.approx(metrics.macro_auc(p, labels))


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
        assert metrics.tpr_at_fpr(scores, positives, fpr) == pytest.approx(best)


def test_json_has_no_nan_and_says_what_stands() -> None:
    undefined = iv.Interval(math.nan, math.nan, math.inf, 30)
    assert json.dumps(undefined.to_dict(), allow_nan=False) == '{"value": null, "low": null, "high": null, "n": 30}'
    found = iv.to_json({"a": [iv.Change(iv.Interval(0.25, 0.125, 0.5, 9), 0.01)], "b": iv.Change(undefined, math.nan)})
    assert found["a"] == [{"value": 0.25, "low": 0.125, "high": 0.5, "n": 9, "p": 0.01, "stands": True}]
    assert found["b"]["p"] is None
    assert found["b"]["stands"] is False


def tpr_of(shift: float, n: int, seed: int) -> iv.Interval:
    noise, positive = np.random.default_rng(seed).normal(size=2 * n), np.arange(2 * n) < n
    return iv.tpr_interval(noise + shift * positive, positive, np.arange(2 * n), 0.01)


def test_the_true_positive_rate_at_a_false_positive_rate_holds_the_truth_where_the_threshold_is_uncertain() -> None:
    truth = float(norm.sf(norm.isf(0.01) - 1.0))
    found = [tpr_of(1.0, 500, seed) for seed in range(40)]
    assert sum(one.low <= truth <= one.high for one in found) >= 38
    naive = [iv.clopper_pearson(round(one.value * 500), 500) for one in found]
    assert sum(one.low <= truth <= one.high for one in naive) < 34, "an interval at the threshold that was found misses"
    assert all(one.low <= one.value <= one.high for one in found)


@pytest.mark.parametrize(("n", "bounded"), [(100, False), (436, False), (437, True)])
def test_few_negatives_bound_a_rate_of_one_percent_from_above_only(n: int, bounded: bool) -> None:
    assert (tpr_of(9.0, n, 0).low > 0.5) == bounded


def test_a_rate_of_images_that_repeat_a_patient_is_less_certain() -> None:
    rng = np.random.default_rng(7)
    positive = np.arange(1000) < 500
    scores = rng.normal(size=1000) + positive
    once = iv.tpr_interval(scores, positive, np.arange(1000), 0.05)
    copies = [np.repeat(one, 4) for one in (scores, positive, np.arange(1000))]
    by_patient, by_image = iv.tpr_interval(*copies, 0.05), iv.tpr_interval(copies[0], copies[1], np.arange(4000), 0.05)
    assert by_patient.high - by_patient.low == pytest.approx(once.high - once.low, rel=0.15)
    assert by_image.high - by_image.low < 0.7 * (by_patient.high - by_patient.low)
    assert iv.tpr_interval(scores[:0], positive[:0], np.arange(0), 0.05).to_dict()["value"] is None


def test_an_auc_next_to_one_has_a_lower_bound_that_shrinks_with_the_patients() -> None:
    lows = []
    for n in (8, 20, 100):
        positive = np.arange(2 * n) < n
        found = iv.interval(metrics.auc_estimate(positive + np.linspace(0, 0.1, 2 * n), positive, np.arange(2 * n)))
        assert (found.value, found.high) == (1.0, 1.0)
        lows.append(found.low)
    assert 0.5 < lows[0] < lows[1] < lows[2] < 0.98


def test_next_to_a_perfect_auc_one_pair_out_of_order_is_no_evidence_of_less_variance() -> None:
    for n in (10, 48, 200):
        positive = np.arange(2 * n) < n
        scores = positive + np.linspace(0, 0.1, 2 * n)
        perfect = iv.interval(metrics.auc_estimate(scores, positive, np.arange(2 * n)))
        scores[n - 1], scores[-1] = 0.5, 0.6
        found = iv.interval(metrics.auc_estimate(scores, positive, np.arange(2 * n)))
        assert found.value == pytest.approx(1 - 1 / n**2)
        assert 1 - found.low > (1 - perfect.low) / 4


@pytest.mark.parametrize(("n", "truth"), [(48, 0.995), (200, 0.999)])
def test_the_interval_of_an_auc_next_to_one_holds_as_often_as_it_says(n: int, truth: float) -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(2 * n) < n
    draws = [rng.standard_normal(2 * n) + math.sqrt(2) * norm.ppf(truth) * positive for _ in range(300)]
    found = [iv.interval(metrics.auc_estimate(scores, positive, np.arange(2 * n))) for scores in draws]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.95
    assert np.median([one.high - one.low for one in found]) < 4 / n, "and is no wider than it must be"


def test_images_of_one_patient_do_not_count_as_several() -> None:
    rng = np.random.default_rng(3)
    positive = np.arange(60) < 30
    scores = rng.normal(size=60) + positive
    once = iv.interval(metrics.auc_estimate(scores, positive, np.arange(60)))
    copied = iv.interval(metrics.auc_estimate(np.repeat(scores, 5), np.repeat(positive, 5), np.repeat(np.arange(60), 5)))
    taken_apart = iv.interval(metrics.auc_estimate(np.repeat(scores, 5), np.repeat(positive, 5), np.arange(300)))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=0.01)
    assert taken_apart.high - taken_apart.low < 0.6 * (once.high - once.low)


@pytest.mark.parametrize("sides", [(4, 100), (100, 4), (4, 4)])
def test_too_few_patients_give_a_value_without_bounds(sides: tuple[int, int]) -> None:
    positive = np.arange(sum(sides)) < sides[0]
    found = iv.interval(metrics.auc_estimate(np.arange(sum(sides), dtype=float), positive, np.arange(sum(sides))))
    assert math.isfinite(found.value)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize(("hits", "n"), [(0, 43), (30, 30)])
def test_a_share_at_its_ends_has_clopper_and_pearsons_bounds(hits: int, n: int) -> None:
    found = iv.share_interval(metrics.share_estimate(np.arange(n) < hits, np.arange(n)))
    assert (found.low, found.high) == pytest.approx((iv.clopper_pearson(hits, n).low, iv.clopper_pearson(hits, n).high))


def test_a_share_inside_is_a_little_wider_than_clopper_and_pearsons_and_far_wider_for_patients_with_several_images() -> None:
    hits = np.arange(60) < 40
    exact = iv.clopper_pearson(40, 60)
    repeated, patients = np.repeat(hits, 4), np.repeat(np.arange(60), 4)
    by_image, by_patient = (iv.share_interval(metrics.share_estimate(repeated, groups)) for groups in (np.arange(240), patients))
    assert 0 < (by_patient.high - by_patient.low) / (exact.high - exact.low) - 1 < 0.06
    assert by_image.high - by_image.low < 0.6 * (by_patient.high - by_patient.low)


@pytest.mark.parametrize("share", [0.8, 0.97])
def test_a_share_of_three_trainings_that_differ_holds_the_mean_of_many(share: float) -> None:
    """Three trainings with 325 patients, as label fidelity has them."""
    rng = np.random.default_rng(6)
    truth = norm.cdf(norm.ppf(share) / math.sqrt(1 + 0.4**2))
    found = []
    for _ in range(300):
        cut = norm.ppf(share) + 0.4 * rng.standard_normal((3, 1))
        found.append(iv.share_interval(metrics.share_estimate(rng.standard_normal((3, 325)) < cut, np.arange(325))))
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.93


def test_a_training_that_varies_by_seed_widens_everything() -> None:
    hits = np.arange(200) % 5 > 0
    steady = np.stack([hits, hits, hits])
    varying = np.stack([hits, np.arange(200) % 5 > 1, np.ones(200, bool)])
    groups = np.arange(200)
    other = metrics.share_estimate(steady, groups)
    assert comparisons.difference(metrics.share_estimate(varying, groups), other).high > 0.2
    assert comparisons.difference(metrics.share_estimate(steady, groups), other).high < 0.05


def test_a_cross_fitted_auc_is_the_folds_mean_with_twice_their_variance() -> None:
    rng = np.random.default_rng(5)
    positive, fold = np.arange(400) % 2 == 0, np.arange(400) // 2 % 5
    scores = rng.normal(size=400) + 5 * fold  # folds on scales of their own
    found = iv.cross_fitted(scores, positive, np.arange(400), fold)
    assert found.value == pytest.approx(np.mean([metrics.auc(scores[fold == k], positive[fold == k]) for k in range(5)]))
    fixed = iv.interval(metrics.auc_estimate(scores - 5 * fold, positive, np.arange(400)))
    assert (found.high - found.low) / (fixed.high - fixed.low) == pytest.approx(math.sqrt(2), rel=0.1)
    assert math.isnan(iv.cross_fitted(scores, positive, np.arange(400), np.full(400, -1)).low)


@pytest.mark.parametrize("prevalence", [0.001, 0.05, 0.5])
def test_a_predictive_value_is_bayes_and_its_interval_is_inside_the_box(prevalence: float) -> None:
    sensitivity, specificity = iv.clopper_pearson(27, 30), iv.clopper_pearson(180, 200)

    def ppv(sens: float, spec: float) -> float:
        return sens * prevalence / (sens * prevalence + (1 - spec) * (1 - prevalence))

    found = iv.predictive_value(sensitivity, specificity, prevalence)
    assert found.value == pytest.approx(ppv(0.9, 0.9))
    assert ppv(sensitivity.low, specificity.low) < found.low < found.value < found.high < ppv(sensitivity.high, specificity.high)


def test_a_predictive_value_at_the_ends() -> None:
    perfect, none = iv.clopper_pearson(40, 40), iv.clopper_pearson(0, 40)
    assert iv.predictive_value(perfect, perfect, 0.1).high == pytest.approx(1, abs=1e-9)
    assert iv.predictive_value(none, perfect, 0.1).low == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        iv.predictive_value(perfect, perfect, 1.0)


def test_balanced_accuracy_lies_as_far_from_its_bounds_as_its_recalls_do_together() -> None:
    labels = np.repeat([0, 1], [200, 11])
    predicted = labels.copy()
    predicted[[3, 205]] = 1 - labels[[3, 205]]
    found = iv.interval(metrics.balanced_accuracy_estimate(predicted, labels, np.arange(211), 2))
    common, rare = (iv.share_interval(metrics.recall_estimate(predicted, labels, np.arange(211), k)) for k in (0, 1))
    assert found.value == (common.value + rare.value) / 2
    assert found.high - found.value == pytest.approx(math.hypot(common.high - common.value, rare.high - rare.value) / 2)
    assert found.value - found.low == pytest.approx(math.hypot(common.value - common.low, rare.value - rare.low) / 2)
    assert found.high > 0.99  # one of 11 missed is no evidence against a recall of .99


def test_balanced_accuracy_varies_over_trainings_besides() -> None:
    labels, rng = np.repeat([0, 1], 300), np.random.default_rng(0)
    predicted = np.where(rng.random((3, 600)) < np.array([[0.7], [0.8], [0.9]]), labels, 1 - labels)
    found = iv.interval(metrics.balanced_accuracy_estimate(predicted, labels, np.arange(600), 2))
    trainings = t.ppf(0.975, 2) * (predicted == labels).mean(axis=1).std(ddof=1) / math.sqrt(3)
    assert trainings < found.value - found.low < math.hypot(trainings, 0.04)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_mean_of_recalls_is_no_better_known_than_one_where_a_patients_images_of_all_classes_are_missed_together(classes: int) -> None:
    labels, patient = np.tile(np.arange(classes), 100), np.repeat(np.arange(100), classes)
    predicted = np.where(patient % 5 == 0, (labels + 1) % classes, labels)
    found = iv.interval(metrics.balanced_accuracy_estimate(predicted, labels, patient, classes))
    one = iv.share_interval(metrics.recall_estimate(predicted, labels, patient, 0))
    assert (found.low, found.high) == pytest.approx((one.low, one.high))
    perfect = iv.interval(metrics.balanced_accuracy_estimate(labels, labels, patient, classes))
    assert perfect.low == pytest.approx(iv.clopper_pearson(100, 100).low), "that none is missed is no evidence that they are missed apart"
    opposed = np.where(patient % 5 == labels, (labels + 1) % classes, labels)  # never two of a patient's
    apart = iv.interval(metrics.balanced_accuracy_estimate(opposed, labels, patient, classes))
    assert apart.high - apart.low == pytest.approx((one.high - one.low) / math.sqrt(classes), rel=1e-6)


def test_balanced_accuracy_of_patients_with_images_of_all_classes_holds_the_truth_as_often_as_is_said() -> None:
    labels, patient = np.tile(np.arange(4), 100), np.repeat(np.arange(100), 4)
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        ease = math.sqrt(0.9) * rng.standard_normal(100)[patient] + math.sqrt(0.1) * rng.standard_normal(400)
        predicted = np.where(ease < norm.ppf(0.8), labels, (labels + 1) % 4)
        found = iv.interval(metrics.balanced_accuracy_estimate(predicted, labels, patient, 4))
        held.append(found.low <= 0.8 <= found.high)
    assert np.mean(held) > 0.93


def test_a_patient_with_half_of_the_images_is_half_of_what_is_known() -> None:
    """Of 41 patients one has 40 images: they vary as much as 80² / (40² + 40) = 3.9 patients with as many images each."""
    patient = np.r_[np.zeros(40, int), np.arange(1, 41)]
    found = iv.share_interval(metrics.share_estimate(np.ones(80), patient))
    assert found.low == pytest.approx(0.025 ** (1 / (80**2 / (40**2 + 40))))
    even = iv.share_interval(metrics.share_estimate(np.ones(80), np.arange(80) // 2))
    assert even.low == pytest.approx(0.025 ** (1 / 40))


@pytest.mark.parametrize("statistic", ["recall", "auc"])
def test_where_few_patients_have_many_images_the_truth_is_held_as_often_as_is_said(statistic: str) -> None:
    cell, rng = Cell(statistic, (44,) if statistic == "recall" else (44, 44), 0.9, common=0.9, uneven=True), np.random.default_rng(0)
    found = [STATISTICS[statistic](cell, rng)[0] for _ in range(1000)]
    assert np.mean([one.low <= 0.9 <= one.high for one in found]) > 0.93

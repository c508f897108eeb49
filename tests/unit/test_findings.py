"""Judges of several findings: each on the images of which it is known, all of them together, and what comes together."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation import findings
from evaluation.data import Labelled
from evaluation.intervals import Interval, clopper_pearson, interval, to_json
from evaluation.training import Task, train
from pipeline import evaluate_findings
from pipeline.release.findings_page import findings_table


def cohort(n=300, seed=0):
    rng = np.random.default_rng(seed)
    marks = (rng.random((n, 3)) < [0.4, 0.2, 0.1]).astype(np.int8)
    marks[rng.random((n, 3)) < 0.1] = -1
    return Labelled(np.zeros((n, 1, 8, 8), np.uint8), marks, np.arange(n) // 2)


def scores(images, seed=1, seeds=2):
    rng = np.random.default_rng(seed)
    return 1 / (1 + np.exp(-(np.clip(images.findings, 0, 1) + rng.normal(size=(seeds, *images.findings.shape)))))


def test_each_finding_and_all_of_them_as_scikit_learn_has_them():
    images = cohort()
    p = scores(images)
    known = images.findings >= 0
    each = [np.mean([roc_auc_score(images.findings[known[:, k], k], one[known[:, k], k]) for one in p]) for k in range(3)]
    assert [findings.auc_of(p, images, k).value for k in range(3)] == pytest.approx(each)
    assert findings.macro(p, images).value == pytest.approx(np.mean(each))
    assert findings.micro(p, images).value == pytest.approx(np.mean([roc_auc_score(images.findings[known], one[known]) for one in p]))
    for k in range(3):
        expected = np.mean([average_precision_score(images.findings[known[:, k], k], one[known[:, k], k]) for one in p])
        found = findings.precision_interval(p, images, k)
        assert found.value == pytest.approx(expected)
        assert found.low < found.value < found.high


def test_a_finding_of_few_patients_is_left_out_of_the_mean():
    images = cohort()
    images.findings[:, 2] = 0
    images.findings[:4, 2] = 1  # two patients
    p = scores(images)
    judged = findings.judged(p, images, ("a", "b", "c"))
    assert judged["auc_over"] == ["a", "b"]
    assert judged["auc"].value == pytest.approx(np.mean([findings.auc_of(p, images, k).value for k in (0, 1)]))


def test_ties_share_their_precision():
    assert findings.average_precision(np.zeros(8), np.arange(8) < 2) == pytest.approx(0.25)
    assert np.isnan(findings.average_precision(np.zeros(3), np.zeros(3, bool)))


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_average_precision_without_each_image_in_turn(levels):
    rng = np.random.default_rng(levels)
    scores, positives = rng.integers(levels, size=40) / levels, np.arange(40) % 5 == 0
    expected = [average_precision_score(np.delete(positives, one), np.delete(scores, one)) for one in range(40)]
    assert findings.without_each(scores, positives) == pytest.approx(np.array(expected))
    only = np.arange(40) == 3
    assert np.isnan(findings.without_each(scores, only)).nonzero()[0].tolist() == [3]


def test_precision_has_no_interval_of_few_patients_or_of_the_very_rare():
    marks = np.zeros((900, 2), np.int8)
    marks[:, 0], marks[:17, 1] = np.arange(900) % 2, 1
    p = np.random.default_rng(0).random((1, 900, 2))
    rare = findings.precision_interval(p, Labelled(np.zeros((900, 1, 8, 8), np.uint8), marks, np.arange(900)), 1)
    assert rare.value > 0
    assert np.isnan([rare.low, rare.high]).all(), "1.9 % of the images"
    images = Labelled(np.zeros((900, 1, 8, 8), np.uint8), marks, np.arange(900) // 65)
    assert np.isnan(findings.precision_interval(p, images, 0).low), "of 14 patients"
    many = findings.precision_interval(p, Labelled(images.images, marks, np.arange(900) // 60), 0)
    assert many.low < many.value < many.high
    perfect = findings.precision_interval(marks[None].astype(float), Labelled(images.images, marks, np.arange(900) // 60), 0)
    assert (perfect.value, perfect.high) == (1, 1)
    assert 0.5 < perfect.low < 0.97, "fifteen patients that were right do not tell that all are"


def test_the_intervals_hold_as_much_as_they_say():
    """Over cohorts of one truth: the macro interval of about 95 of 100 contains the mean of the true areas."""
    truth, held = 0.7602, 0  # of two normals one standard deviation apart
    for seed in range(100):
        images = cohort(240, seed)
        found = interval(findings.macro(scores(images, 1000 + seed), images))
        held += found.low <= truth <= found.high
    assert held >= 90


def test_a_finding_that_nobody_has_is_left_out_of_the_mean():
    images = cohort()
    images.findings[:, 2] = 0
    p = scores(images)
    assert findings.macro(p, images).value == pytest.approx(np.mean([findings.auc_of(p, images, k).value for k in (0, 1)]))
    images.findings[:] = 0
    assert findings.macro(p, images) is None


def test_how_often_findings_come_together_counts_what_is_known():
    marks = np.array([[1, 1], [1, 0], [1, -1], [0, 1]], np.int8)
    np.testing.assert_allclose(findings.together(marks), [[1, 0.5], [0.5, 1]])


def test_what_few_patients_have_together_is_not_told_of_real_images():
    """Twenty images of one patient are still that patient's: what they show beside the rare finding is theirs alone."""
    marks = np.zeros((100, 3), np.int8)
    marks[:60, 0] = marks[40:90, 1] = marks[:15, 2] = 1
    patients = np.where(np.arange(100) < 15, 0, np.arange(100))
    told = findings.together(marks, patients)
    np.testing.assert_allclose(told, [[1, 20 / 60, np.nan], [20 / 50, 1, 0], [np.nan] * 3])
    assert not np.isnan(findings.together(marks)).any()
    marks[40:51, 1] = 0
    assert np.isnan(findings.together(marks, patients)[0, 1])


def test_a_judges_errors_are_taken_out_of_a_share():
    """Rogan and Gladen: of 30 % with the finding, a judge of sensitivity .9 and specificity .8 calls .3 · .9 + .7 · .2 = 41 %."""
    known = Interval(0.9, 0.9, 0.9, 10**6), Interval(0.8, 0.8, 0.8, 10**6)
    found = findings.rogan_gladen(Interval(0.41, 0.36, 0.46, 400), *known)
    assert (found.value, found.n) == (pytest.approx(0.3), 400)
    assert found.low == pytest.approx(0.16 / 0.7)
    assert findings.rogan_gladen(Interval(0.05, 0.0, 0.1, 9), *known).value == 0
    with pytest.raises(ValueError, match="tells nothing"):
        findings.rogan_gladen(found, Interval(0.5, 0.4, 0.6, 90), Interval(0.5, 0.4, 0.6, 90))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_bounds_of_a_corrected_share_hold_the_true_one(share):
    """Sensitivity .8 measured on 60 and specificity .95 on 300 images: alone, the bounds of the calls would hold in .8 of the tries."""
    rng, held, tries = np.random.default_rng(0), 0, 400
    for _ in range(tries):
        counts = [(rng.binomial(n, p), n) for n, p in ((400, share * 0.8 + (1 - share) * 0.05), (60, 0.8), (300, 0.95))]
        found = findings.rogan_gladen(*(clopper_pearson(int(k), n) for k, n in counts))
        held += found.low <= share <= found.high
    assert held / tries >= 0.94


def test_one_network_learns_several_findings_and_nothing_from_what_is_unknown():
    rng = np.random.default_rng(0)
    marks = (rng.random((600, 2)) < 0.4).astype(np.int8)
    pictures = rng.integers(0, 60, (600, 1, 16, 16)).astype(np.float64)
    pictures[marks[:, 0] == 1, :, :6, :6] += 150
    pictures[marks[:, 1] == 1, :, 10:, 10:] += 150
    told = marks.copy()
    told[:300, 1] = -1  # half of the images say nothing of the second finding
    told[300:, 0][marks[300:, 0] == 1] = -1
    told[:250, 0] = marks[:250, 0]
    side = Labelled(pictures.astype(np.uint8), told, np.arange(600))
    learn, choose = side.take(slice(0, 450)), side.take(slice(450, 600))
    test = Labelled(side.images, marks, side.groups)
    [trained] = train([Task(learn.unit, learn.findings, 2, 0, choose)], kind="small", ceiling=6000, device="cpu")
    p = trained.classifier.predict(test.unit)[None]
    assert p.min() >= 0
    assert p.max() <= 1
    assert abs(p.sum(axis=2) - 1).max() > 0.3, "no finding excludes another"
    assert findings.macro(p, test).value > 0.95


def test_a_judge_says_nothing_of_synthetic_images_for_a_finding_that_it_is_unfit_for():
    """Its number is replaced by the reason, in the table too, and has no part in the mean."""
    real, made, names = cohort(), cohort(seed=4), ("a", "b", "c")
    p = np.clip(scores(real) + np.clip(real.findings, 0, 1), 0, 1)
    p[..., 2] = 0.5  # sees nothing of the third
    judge = evaluate_findings._fitness(findings.judged(p, real, names), None)
    seen = scores(made, 5)
    said = evaluate_findings._told(judge, seen, made, names)
    assert "AUC 0.500" in said["per_class"]["c"]["unfit"]
    assert said["auc"].value == pytest.approx(np.mean([findings.auc_of(seen, made, k).value for k in (0, 1)]))
    table = findings_table(to_json({"judge": judge, "findings": {"label_fidelity": said}}))
    assert table[3][-1] == said["per_class"]["c"]["unfit"]
    blind = evaluate_findings._fitness(findings.judged(p, real, names), "was still learning")
    silent = evaluate_findings._told(blind, seen, made, names)
    rows = findings_table(to_json({"judge": blind, "findings": {"label_fidelity": silent}}))
    assert {row[-1] for row in rows[1:]} == {"was still learning"}

"""The learned score of copies."""

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy import copies, copy_score, power


def test_weights_are_those_of_logistic_regression_where_none_is_negative():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    copied = np.arange(400) < 200
    evidence = rng.standard_normal((400, 3)) + np.where(copied[:, None], [1.0, 0.5, 0.3], 0.0)
    weight, bias = copy_score.fit(evidence, copied)
    scale = evidence[~copied].std(axis=0)
    penalty = 1 / (2 * copy_score.PENALTY * 400)
    theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=1000).fit(evidence / scale, copied)
    assert weight * scale == pytest.approx(theirs.coef_[0], abs=1e-3)
    assert evidence @ weight + bias == pytest.approx(theirs.decision_function(evidence / scale), abs=5e-3)


def test_evidence_that_speaks_against_a_copy_by_chance_gets_no_weight():
    rng = np.random.default_rng(0)
    copied = np.arange(200) < 100
    evidence = np.stack([rng.standard_normal(200) + copied, rng.standard_normal(200) - copied], axis=1)
    weight, _ = copy_score.fit(evidence, copied)
    assert weight[0] > 0
    assert weight[1] == 0


def test_copies_and_strangers_weigh_the_same_however_many_strangers_there_are():
    rng = np.random.default_rng(0)
    copied = np.arange(90) < 30
    evidence = rng.standard_normal((90, 2)) + 1.5 * copied[:, None]
    often = np.concatenate([np.flatnonzero(copied), np.repeat(np.flatnonzero(~copied), 5)])
    (weight, bias), (same, moved) = copy_score.fit(evidence, copied), copy_score.fit(evidence[often], copied[often])
    assert same == pytest.approx(weight, rel=1e-3)
    assert moved == pytest.approx(bias, abs=1e-2)


def test_candidates_are_contrasted_as_if_the_source_were_not_there():
    near = np.array([[[9.0], [1.0], [2.0], [6.0]]], np.float32)
    found = copies.Candidates(np.array([[0, 1, 2, 3]]), np.zeros((1, 4)), np.zeros((1, 4)), np.concatenate([near, near], axis=2))
    # Image 3 is of the source's patient: neither a copy nor a stranger.
    evidence, copied, query = copy_score.examples(found, np.array([0]), np.array([5, 6, 7, 5]))
    assert query.tolist() == [0, 0, 0]
    assert copied.tolist() == [True, False, False]
    assert evidence.tolist() == [[9.0, 9.0], [1.0, -1.0], [2.0, 1.0]]


def test_the_odds_are_the_mean_over_kinds_of_copies():
    score = copy_score.CopyScore(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0.0, -1.0]))
    evidence = np.array([[0.5, 0.25], [4.0, 0.0]], np.float32)
    odds = [(np.exp(0.5) + np.exp(-0.5)) / 2, (np.exp(4) + np.exp(-1)) / 2]
    assert score.odds_against(evidence) == pytest.approx(1 / np.array(odds))


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="too few"):
        copy_score.learn(np.zeros((5, 1, 32, 32), np.uint8), np.arange(5), rng=np.random.default_rng(0), device="cpu")


def test_a_score_learned_on_other_patients_finds_kinds_that_it_never_saw():
    images, _, patients = phantom_arrays(200, 5, 32)
    mine, theirs = images[patients < 50], images[patients >= 50]
    score = copy_score.learn(mine, patients[patients < 50], rng=np.random.default_rng(0), device="cpu")
    kept = theirs[patients[patients >= 50] < 150]
    search = copies.CopySearch(kept, copies.shared_structure(kept), "cpu")
    everything = np.ones(len(kept), bool)

    def nearest(queries):
        found = search.candidates(queries)
        return found.nearest(everything, score.odds_against(found.evidence))

    chance = nearest(theirs[-40:]).distance
    for kind in (power.clahe, power.sharpened, power.inversion):
        assert kind not in power.LEARNED
        made, sources = power.plant(kept, kind, 20, np.random.default_rng(1))
        found = nearest(made)
        assert ((found.distance < chance.min()) & (found.index == sources)).mean() >= 0.8

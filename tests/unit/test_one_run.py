"""One run's ε: on mechanisms whose ε is known, and on splits by quota, whose coins are made fair by pairing."""

import math

import numpy as np
import pytest
import torch

from evaluation.data import Labelled
from privacy import one_run
from privacy.bounds import epsilon_lower
from privacy.nearest import nearest, thumbnails


def answers(epsilon, pairs, rng):
    """Randomised response about each pair's coin: right with e^ε / (1 + e^ε), as scores of the member and of the other."""
    right = rng.random(pairs) < 1 / (1 + math.exp(-epsilon))
    return np.where(right, 1.0, -1.0), np.zeros(pairs)


def laplace(epsilon, pairs, rng):
    """Laplace's mechanism about each coin: ±½ with noise of scale 1 / ε (Dwork et al. 2006). An answer beyond ±½ is right with
    e^ε / (1 + e^ε), and the surest ones lie there."""
    return 0.5 + rng.laplace(0, 1 / epsilon, pairs), np.zeros(pairs)


KNOWN = [(answers, 0.0), (answers, 0.5), (answers, 2.0), (laplace, 0.5), (laplace, 2.0)]


@pytest.mark.parametrize(("mechanism", "epsilon"), KNOWN)
def test_the_bound_lies_under_a_mechanisms_epsilon_as_often_as_it_says(mechanism, epsilon):
    rng = np.random.default_rng(0)
    lows = []
    for _ in range(1500):
        run = one_run.guess(*mechanism(epsilon, 300, rng), rng)
        lows.append(epsilon_lower(run.correct, run.guesses))
    assert (np.array(lows) <= epsilon).mean() >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.parametrize(("mechanism", "epsilon"), KNOWN[1:])
def test_the_bound_comes_near_with_many_coins(mechanism, epsilon):
    rng = np.random.default_rng(1)
    run = one_run.guess(*mechanism(epsilon, 200_000, rng), rng)
    assert run.guesses == 40_000
    assert epsilon - 0.06 < epsilon_lower(run.correct, run.guesses) <= epsilon + 0.02


def test_the_surest_pairs_are_guessed_and_no_others():
    rng = np.random.default_rng(0)
    scores = np.r_[np.full(20, 3.0), np.full(80, -0.1)]
    run = one_run.guess(scores, np.zeros(100), rng)
    assert (run.pairs, run.guesses, run.correct) == (100, 20, 20)


def test_equal_scores_are_guessed_at_random():
    """The members come first: a tie must not name them."""
    rng = np.random.default_rng(0)
    correct = [one_run.guess(np.zeros(500), np.zeros(500), rng).correct for _ in range(60)]
    assert 45 < np.mean(correct) < 55


def cohort(rng):
    """120 units of three classes, 1 to 3 images each, 40 % of every class sealed."""
    kinds = np.repeat([0, 1, 2], [70, 40, 10])
    units = np.repeat(np.arange(120), rng.integers(1, 4, 120))
    inside = np.zeros(120, bool)
    for kind in range(3):
        members = np.flatnonzero(kinds == kind)
        inside[rng.permutation(members)[: round(0.6 * len(members))]] = True
    return units, kinds[units], inside[units], inside, kinds


def test_each_pair_has_one_of_either_side_and_of_one_class():
    rng = np.random.default_rng(0)
    units, labels, member, inside, kinds = cohort(rng)
    train, audit = one_run.pair(units, labels, member, rng)
    assert len(train) == len(audit) == 28 + 16 + 4
    assert inside[train].all()
    assert not inside[audit].any()
    assert (kinds[train] == kinds[audit]).all()
    assert len(np.unique(np.r_[train, audit])) == 96


def test_a_split_by_quota_gives_fair_coins_to_any_score_that_sees_no_membership():
    """Also to one that hangs on how many images a unit has."""
    rng = np.random.default_rng(0)
    correct = guesses = 0
    for _ in range(400):
        units, labels, member, _, _ = cohort(rng)
        train, audit = one_run.pair(units, labels, member, rng)
        score = np.bincount(units) + np.arange(120) / 60
        run = one_run.guess(score[train], score[audit], rng)
        correct, guesses = correct + run.correct, guesses + run.guesses
    assert correct / guesses == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(guesses))


def pictures(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 20, 20), dtype=np.uint8)


def real(n=60):
    images = pictures(n, 0)
    labels = np.arange(n) % 2
    return Labelled.of_classes(images, labels, np.arange(n), 2), np.arange(n), np.arange(n) < n // 2


def test_released_training_images_are_named_and_honest_ones_are_not():
    both, units, member = real(200)
    copied = one_run.from_images(both, units, member, both.images[:100], np.random.default_rng(0))
    assert copied.correct == copied.guesses == 20
    assert copied.to_dict()["epsilon_low"] > 1
    honest = one_run.from_images(both, units, member, pictures(100, 9), np.random.default_rng(0))
    assert honest.correct < 17


class Clean:
    """The condition of images of one kind."""

    def null(self):
        return self

    def take(self, index):
        return self

    def to(self, device):
        return self


def test_a_model_that_knows_its_images_is_told_by_its_loss():
    both, units, member = real(200)
    known = torch.from_numpy(both.unit[:100])

    def recalls(x, sigma, condition):
        apart = torch.cdist(x.flatten(1), known.flatten(1))
        return known[apart.argmin(dim=1)]

    run = one_run.from_weights(recalls, both, Clean(), units, member, draws=1, rng=np.random.default_rng(0), device="cpu")
    assert run.correct == run.guesses == 20
    blind = one_run.from_weights(
        lambda x, sigma, c: torch.zeros_like(x), both, Clean(), units, member, draws=1, rng=np.random.default_rng(0), device="cpu"
    )
    assert blind.correct < 17


def test_the_weights_are_attacked_by_the_mean_log_error_of_a_units_images():
    """Held against a loop over images, with units of several images and a model whose error is another for each."""
    units = np.arange(90) // 3
    real, member = Labelled.of_classes(pictures(90, 3), np.zeros(90, np.int64), units, 1), units % 2 == 0
    drawn, seen = np.random.default_rng(7), {}
    train, audit = one_run.pair(units, real.labels, member, drawn)
    noise = [torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(int(seed))) for seed in drawn.integers(0, 2**62, size=2)]
    for unit in np.r_[train, audit]:
        logs = []
        for image in torch.from_numpy(real.unit[units == unit]):
            errors = [float(((image + one_run.SIGMA * one).clip(-1, 1) - image).square().mean()) for one in noise]
            logs.append(math.log(np.mean(errors)))
        seen[unit] = -np.mean(logs)
    naive = one_run.guess(np.array([seen[u] for u in train]), np.array([seen[u] for u in audit]), drawn)
    found = one_run.from_weights(
        lambda x, sigma, c: x.clip(-1, 1), real, Clean(), units, member, draws=2, rng=np.random.default_rng(7), device="cpu"
    )
    assert found == naive


def test_without_a_pair_there_is_no_run():
    both, units, _ = real(20)
    assert one_run.from_images(both, units, np.ones(20, bool), pictures(5, 1), np.random.default_rng(0)) is None


def test_the_nearest_is_that_of_all_pairs(monkeypatch):
    from privacy import nearest as module

    monkeypatch.setattr(module, "CHUNK", 7)
    queries, references = pictures(30, 1), np.concatenate([pictures(16, 2), np.full((1, 1, 20, 20), 9, np.uint8)])
    index, distance = nearest(queries, references)
    naive = 1 - thumbnails(queries).numpy() @ thumbnails(references).numpy().T
    assert index.tolist() == naive.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, naive.min(axis=1), atol=1e-6)
    assert nearest(queries, queries)[1].max() < 1e-6

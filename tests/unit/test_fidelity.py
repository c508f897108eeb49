import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation import fidelity as fd
from evaluation.data import Labelled
from evaluation.intervals import Spread, to_json


def test_frechet_distance_of_gaussians_with_diagonal_covariances_has_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, [1, 2], (200_000, 2)), rng.normal([3, 0], [2, 0.5], (200_000, 2))
    assert fd.frechet_distance(x, y) == pytest.approx(9 + (1 - 2) ** 2 + (2 - 0.5) ** 2, rel=0.02)


def test_frechet_distance_is_symmetric_and_zero_for_equal_sets_even_where_covariances_are_singular() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 64)), rng.normal(0.3, 1, size=(20, 64))
    assert fd.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert fd.frechet_distance(x, y) == pytest.approx(fd.frechet_distance(y, x))


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import _compute_fid

    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 16)) @ rng.normal(size=(16, 16)), rng.normal(0.5, 2, size=(300, 16))
    parts = [torch.from_numpy(value) for z in (x, y) for value in (z.mean(axis=0), np.cov(z, rowvar=False))]
    assert fd.frechet_distance(x, y) == pytest.approx(float(_compute_fid(*parts)), rel=1e-8)


def test_kernel_distance_agrees_with_a_loop_over_pairs_and_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 3)), rng.normal(0.5, 1, size=(5, 3))

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float((a @ b / 3 + 1) ** 3)

    def within(z: NDArray[np.float64]) -> float:
        return float(np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]))

    across = np.mean([kernel(a, b) for a in x for b in y])
    assert fd.kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across)
    draws = [fd.kernel_distance(rng.normal(size=(30, 4)), rng.normal(size=(30, 4))) for _ in range(300)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(300)


def test_prdc_agrees_with_a_loop_over_balls() -> None:
    rng = np.random.default_rng(4)
    real, fake, k = rng.normal(size=(30, 2)), rng.normal(0.7, 0.6, size=(25, 2)), 3

    def radius(z: NDArray[np.float64], i: int) -> float:
        return float(np.sort([np.linalg.norm(z[i] - z[j]) for j in range(len(z)) if j != i])[k - 1])

    inside = np.array([[np.linalg.norm(f - r) <= radius(real, i) for i, r in enumerate(real)] for f in fake])
    covered = np.array([[np.linalg.norm(f - r) <= radius(fake, j) for j, f in enumerate(fake)] for r in real])
    found = fd.prdc(fake, real, k)
    assert found["precision"] == pytest.approx(inside.any(axis=1).mean())
    assert found["recall"] == pytest.approx(covered.any(axis=1).mean())
    assert found["density"] == pytest.approx(inside.sum() / (k * len(fake)))
    assert found["coverage"] == pytest.approx(inside.any(axis=0).mean())


def test_prdc_tells_collapse_from_noise() -> None:
    rng = np.random.default_rng(5)
    real = rng.normal(size=(300, 4))
    collapsed, noisy = fd.prdc(rng.normal(0, 0.1, (300, 4)), real), fd.prdc(rng.normal(0, 4, (300, 4)), real)
    assert collapsed["precision"] > 0.95
    assert collapsed["recall"] < 0.2
    assert noisy["precision"] < 0.6
    with pytest.raises(ValueError, match="more than 5"):
        fd.prdc(real[:5], real)


def cohort(rng: np.random.Generator, n: int, offset: float = 0.0, share: tuple[float, ...] = (0.7, 0.3)) -> Labelled:
    labels = np.sort(rng.choice(len(share), n, p=share)).astype(np.int64)
    images = rng.normal(offset, 0.3, (n, 1, 8, 8)) + 0.3 * labels[:, None, None, None]
    return Labelled.of_classes(images.astype(np.float32), labels, np.arange(n) // 2, len(share))


def test_draws_are_equal_in_size_and_mix_and_never_split_a_patient() -> None:
    rng = np.random.default_rng(6)
    audit, made = cohort(rng, 400), np.repeat([0, 1], 60)
    for _ in range(10):
        d = fd.draw(audit, made, rng, 2)
        assert not set(audit.groups[d.a]) & set(audit.groups[d.b])
        counts = [np.bincount(labels, minlength=2) for labels in (audit.labels[d.a], audit.labels[d.b], made[d.synthetic])]
        assert (counts[0] == counts[1]).all()
        assert (counts[0] == counts[2]).all()
        assert counts[0][0] == 60
        assert counts[0][0] / counts[0][1] == pytest.approx(7 / 3, rel=0.25)
        assert len(set(d.synthetic)) == len(d.synthetic)
    with pytest.raises(ValueError, match="no synthetic image"):
        fd.draw(audit, np.zeros(10, dtype=np.int64), rng, 2)


def mean_features(images: NDArray[np.float32]) -> NDArray[np.float64]:
    return images.reshape(len(images), -1, 16).mean(axis=2).astype(np.float64)


@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_the_protocol_is_at_its_floor_for_the_same_distribution_and_above_it_for_another(offset: float) -> None:
    rng = np.random.default_rng(7)
    audit = cohort(rng, 500, share=(0.7, 0.27, 0.03))
    made = cohort(rng, 450, offset, (0.34, 0.33, 0.33))
    made = Labelled(made.images, made.findings, np.arange(len(made)))
    found = fd.fidelity(audit, made, [mean_features], ("a", "b", "rare"), rng=rng, repeats=8)
    same = offset == 0
    assert (found["frechet"]["ratio"].value < 2.5) == same
    assert (found["prdc"]["coverage"]["synthetic"].value > 0.8) == same
    assert "fewer than 50" in found["per_class"]["rare"]["omitted"]
    assert (found["per_class"]["b"]["kid"]["synthetic"].low > found["per_class"]["b"]["kid"]["floor"].high) != same
    json.dumps(to_json(found), allow_nan=False)


def test_halvings_take_the_feature_spaces_in_turn() -> None:
    rng = np.random.default_rng(8)
    audit, made = cohort(rng, 200, share=(1.0,)), cohort(rng, 100, share=(1.0,))
    spaces = [mean_features, lambda images: 10 * mean_features(images)]
    found = fd.fidelity(audit, made, spaces, ("a",), rng=rng, repeats=6)
    spread = found["frechet"]["synthetic"]
    assert isinstance(spread, Spread)
    assert spread.high > 50 * spread.low
    assert found["frechet"]["ratio"].high < 5
    assert to_json(spread)["spread"] == [spread.low, spread.high]


def test_features_are_standardised_on_the_images_of_the_encoder_and_dead_ones_dropped() -> None:
    rng = np.random.default_rng(9)
    images = rng.normal(size=(50, 1, 2, 2)).astype(np.float32)
    scale = np.array([1, 10, 0, 2], dtype=np.float32)
    features = fd.standardised_features(lambda x: x.reshape(len(x), 4) * scale + 3, images)(images)
    assert features.shape == (50, 3)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=0), 1)


@pytest.mark.parametrize("n", [1, 2, 4, 12])
def test_a_handful_of_images_gives_nulls_instead_of_an_error(n: int) -> None:
    rng = np.random.default_rng(n)
    made = cohort(rng, 20, share=(1.0,))
    found = fd.fidelity(cohort(rng, n, share=(1.0,)), made, [mean_features], ("a",), rng=rng, repeats=3)
    assert found["n"] <= n // 2
    assert (to_json(found)["prdc"]["recall"]["synthetic"]["value"] is None) == (found["n"] <= 5)
    json.dumps(to_json(found), allow_nan=False)

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation import plain_features as pf


def images(seed: int = 0, shape: tuple[int, ...] = (3, 1, 12, 16)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_histogram_counts_levels_ends_and_moments() -> None:
    x = images()[:, 0]
    x[0, 0] = -1
    x[0, 1] = 1
    found = pf.histogram(x)[0]
    naive = np.histogram(x[0], bins=pf.LEVELS, range=(-1, 1))[0] / x[0].size
    np.testing.assert_allclose(found[: pf.LEVELS] ** 2, naive, atol=1e-12)
    np.testing.assert_allclose(found[pf.LEVELS : pf.LEVELS + 2] ** 2, 16 / x[0].size)
    assert found[pf.LEVELS + 2] == pytest.approx(x[0].mean(), abs=1e-6)
    assert found[pf.LEVELS + 3] == pytest.approx(x[0].std(), rel=1e-5)


def test_the_power_of_a_wave_lies_in_the_ring_of_its_frequency() -> None:
    for frequency in (2, 5, 11):
        wave = np.cos(2 * np.pi * frequency * np.arange(24) / 24)[None, None, :].repeat(24, axis=1).astype(np.float32)
        assert pf.spectrum(wave)[0].argmax() == int(frequency / 24 / 0.5 * pf.BANDS)


def test_the_first_wavelet_scale_agrees_with_a_loop() -> None:
    x = images(1)[:, 0].astype(np.float64)
    horizontal = np.array(
        [[(x[0, i, j] - x[0, i, j + 1] + x[0, i + 1, j] - x[0, i + 1, j + 1]) / 2 for j in range(0, 16, 2)] for i in range(0, 12, 2)]
    )
    found = pf.wavelets(x.astype(np.float32))[0, :2]
    assert found == pytest.approx([horizontal.mean(), np.log(horizontal.std() + pf.FLOOR)], abs=1e-5)


def test_cooccurrence_agrees_with_a_loop_over_pairs() -> None:
    x = images(2)[:1, 0]
    grey = np.clip(((x[0] + 1) / 2 * pf.GREYS).astype(int), 0, pf.GREYS - 1)
    found = pf.cooccurrence(x)[0].reshape(len(pf.NEIGHBOURS), 5)
    for (down, right), row in zip(pf.NEIGHBOURS, found):
        p = np.zeros((pf.GREYS, pf.GREYS))
        for i in range(12):
            for j in range(16):
                if 0 <= i + down < 12 and 0 <= j + right < 16:
                    p[grey[i, j], grey[i + down, j + right]] += 1
                    p[grey[i + down, j + right], grey[i, j]] += 1
        p /= p.sum()
        a, b = np.mgrid[: pf.GREYS, : pf.GREYS]
        mean = (p * a).sum()
        correlation = (p * (a - mean) * (b - mean)).sum() / (p * (a - mean) ** 2).sum()
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        expected = [(p * (a - b) ** 2).sum(), (p / (1 + (a - b) ** 2)).sum(), (p**2).sum(), entropy, correlation]
        np.testing.assert_allclose(row, expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 3, 5, 7), (1, 1, 28, 28), (2, 1, 64, 48), (600, 1, 4, 4)])
def test_images_of_any_size_and_constant_ones_have_finite_features(shape: tuple[int, ...]) -> None:
    found = pf.plain_features(images(3, shape))
    assert found.shape[0] == shape[0]
    assert found.shape[1] % shape[1] == 0
    assert np.isfinite(found).all()
    assert np.isfinite(pf.plain_features(np.full(shape, -1, np.float32))).all()


def test_an_image_has_the_same_features_whatever_stands_beside_it() -> None:
    x = images(4, (520, 1, 8, 8))
    np.testing.assert_allclose(pf.plain_features(x)[[0, 519]], pf.plain_features(x[[0, 519]]))

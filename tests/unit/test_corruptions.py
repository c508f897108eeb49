import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.corruptions import CORRUPTIONS, apply, corrupt


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """Smooth shapes with edges and a fine texture, away from black and white."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:32, :32] / 32
    centre = rng.uniform(0.3, 0.7, (2, 24, 1, 1))
    disc = (np.hypot(row - centre[0], column - centre[1]) < 0.22).astype(float)
    x = 0.25 + 0.3 * row + 0.3 * disc + 0.03 * rng.standard_normal((24, 32, 32))
    return (x.clip(0, 1) * 2 - 1)[:, None].astype(np.float32)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_changes_images_more_than_the_one_before(name: str, images: NDArray[np.float32]) -> None:
    before = images.copy()
    changes = []
    for severity in range(1, 6):
        result = corrupt(images, name, severity, np.random.default_rng(1))
        assert result.shape == images.shape
        assert result.dtype == np.float32
        assert np.abs(result).max() <= 1
        changes.append(float(np.abs(result - images).mean()))
    assert changes[0] > 0.001
    assert (np.diff(changes) > 0).all(), changes
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_strength_zero_is_the_identity(name: str, images: NDArray[np.float32]) -> None:
    result = apply(images, CORRUPTIONS[name].function, 0, np.random.default_rng(1))
    np.testing.assert_allclose(result, images, atol=0.03 if name == "jpeg" else 2e-6)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_a_function_of_its_generator_and_works_on_colour_and_odd_sides(name: str, images: NDArray[np.float32]) -> None:
    colour = np.repeat(images[:3, :, :27, :31], 3, axis=1)
    one, two = (corrupt(colour, name, 3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == colour.shape


def test_noise_has_the_strength_that_it_says() -> None:
    grey = np.zeros((50, 1, 32, 32), dtype=np.float32)
    rng = np.random.default_rng(0)
    gaussian = apply(grey, CORRUPTIONS["gaussian_noise"].function, 0.1, rng)
    quantum = apply(grey, CORRUPTIONS["quantum_noise"].function, 0.1, rng)
    assert gaussian.std() / 2 == pytest.approx(0.1, rel=0.03)
    assert quantum.std() / 2 == pytest.approx(0.1 * np.sqrt(0.5), rel=0.03)
    black = apply(grey - 1, CORRUPTIONS["rician_noise"].function, 0.1, rng)
    assert (black.mean() + 1) / 2 == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.03)


def test_blurs_agree_with_a_convolution() -> None:
    from scipy.ndimage import gaussian_filter

    point = np.full((1, 1, 32, 32), -1, dtype=np.float32)
    point[0, 0, 16, 16] = 1
    blurred = apply(point, CORRUPTIONS["gaussian_blur"].function, 2 / 32, np.random.default_rng(0))
    expected = gaussian_filter((point[0, 0].astype(np.float64) + 1) / 2, 2, mode="mirror", truncate=8)
    np.testing.assert_allclose((blurred[0, 0] + 1) / 2, expected, atol=1e-4)
    moved = apply(point, CORRUPTIONS["motion_blur"].function, 8 / 32, np.random.default_rng(0))
    mass = (moved[0, 0] + 1) / 2
    row, column = np.nonzero(mass > 0.05)
    assert np.hypot(np.ptp(row), np.ptp(column)) == pytest.approx(8, abs=2)


def test_geometry_moves_what_it_says() -> None:
    row, column = np.mgrid[:32, :32]
    spot = np.exp(-((row - 15.5) ** 2 + (column - 23.5) ** 2) / 8) * 2 - 1
    x = spot[None, None].astype(np.float32)

    def centre(image: NDArray[np.float32]) -> NDArray[np.float64]:
        mass = (image[0, 0] + 1).astype(np.float64)
        return np.array([(mass * row).sum(), (mass * column).sum()]) / mass.sum()

    moved = centre(apply(x, CORRUPTIONS["translation"].function, 4 / 32, np.random.default_rng(0)))
    assert np.hypot(*(moved - [15.5, 23.5])) == pytest.approx(4, abs=0.1)
    turned = centre(apply(x, CORRUPTIONS["rotation"].function, 30, np.random.default_rng(0)))
    assert np.hypot(*(turned - 15.5)) == pytest.approx(8, abs=0.1)
    assert abs(turned[0] - 15.5) == pytest.approx(4, abs=0.1)


def test_wrong_names_and_severities_are_refused(images: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="no corruption 'fog'"):
        corrupt(images, "fog", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="from 1 to 5"):
        corrupt(images, "jpeg", 6, np.random.default_rng(0))

"""What looks like writing and is none: an image is not left out for it, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import threadpoolctl
from scipy.ndimage import gaussian_filter

from pipeline.ingest.deidentify.text_guard import has_text
from tests.benchmarks import clean_pictures, look_alikes
from tests.benchmarks.text_pictures import Grey, ink

SIDE = 256
Draw = Callable[[np.random.Generator], Grey]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(1):
        yield


def rician(rng: np.random.Generator, sigma: float = 20.0, signal: float = 0.0) -> Grey:
    """Magnitude noise as a scanner stores it, in whole numbers."""
    real, imaginary = rng.normal(0, sigma, (2, SIDE, SIDE))
    return np.floor(np.hypot(real + signal, imaginary)).astype(np.float32)


def where(gone: Callable[[Grey, Grey], Grey]) -> Draw:
    """Noise with a body in it, and exact zeros where ``gone`` says so of rows and columns."""

    def draw(rng: np.random.Generator) -> Grey:
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        body = 300.0 * (np.hypot(y - 128, x - 128) < 80)
        return np.where(gone(y, x), 0, np.hypot(rician(rng), body)).astype(np.float32)

    return draw


ZEROS: dict[str, Draw] = {
    "twelve rows": where(lambda y, x: y < 12),
    "columns at either side": where(lambda y, x: (x < 20) | (x >= 230)),
    "a bent border, as of a corrected distortion": where(lambda y, x: y < 20 + 9 * np.cos(x / 81)),
    "a circle": where(lambda y, x: np.hypot(y - 128, x - 128) > 125),
    "all but the body": where(lambda y, x: np.hypot(y - 128, x - 128) > 81),
    "every eighth line": where(lambda y, x: y % 8 < 1),
    "a wedge": where(lambda y, x: x + y < 100),
    "below a floor": lambda rng: np.where((noise := rician(rng)) < 25, 0, noise).astype(np.float32),
}


@pytest.mark.parametrize("zeros", ZEROS)
def test_noise_that_ends_in_exact_zeros(zeros: str) -> None:
    rng = np.random.default_rng(1)
    assert not any(has_text(ZEROS[zeros](rng)) for _ in range(3))


@pytest.mark.parametrize(
    "kind",
    ["magnitude", "circle", "sector", "counts", "nuclei", "vessels", "film", "implants", "bars", "rows_of_bodies", "table"],
)
def test_images_of_every_modality_without_words(kind: str) -> None:
    """MR, CT, ultrasound, scintigraphy, histology, fundus, marked films, implants, test patterns, teeth and ribs, the scanner's table."""
    rng = np.random.default_rng(2)
    assert sum(has_text(getattr(clean_pictures, kind)(rng, SIDE, SIDE)) for _ in range(5)) <= 1


@pytest.mark.parametrize("kind", ["ruled", "lattice"])
def test_rulers_and_grids(kind: str) -> None:
    rng = np.random.default_rng(3)
    assert not any(has_text(getattr(look_alikes, kind)(rng, SIDE)) for _ in range(10))


@pytest.mark.parametrize("step", [4.3, 6.0, 9.5, 14.0, 25.0])
@pytest.mark.parametrize("turned", [False, True])
def test_ticks_of_a_depth_scale(step: float, turned: bool) -> None:
    """On speckle, at the side, each fifth and tenth longer."""
    rng = np.random.default_rng(4)
    picture = 0.3 * np.hypot(*gaussian_filter(rng.normal(size=(2, SIDE, SIDE)), (0, 1, 2)))
    picture[:, 225:] = 0
    for number, at in enumerate(np.arange(3, SIDE - 2, step)):
        picture[int(at), 230 : 230 + (12 if number % 10 == 0 else 8 if number % 5 == 0 else 4)] = 1
    assert not has_text((picture.T if turned else picture).astype(np.float32))


def test_a_ruler_hides_no_name() -> None:
    """Beside it, at its end and above it."""
    for top, left in ((60, 40), (100, 160), (82, 20)):
        picture = gaussian_filter(np.random.default_rng(5).normal(100, 10, (SIDE, SIDE)), 2).astype(np.float32)
        for number, at in enumerate(np.arange(4, 150, 6)):
            picture[102 : 102 + (12 if number % 5 == 0 else 6), at] = 255
        covered = ink("DOE^JANE", "DejaVuSans", 16, True)
        part = picture[top : top + covered.shape[0], left : left + covered.shape[1]]
        part += covered * (255 - part)
        assert has_text(picture)

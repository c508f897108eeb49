"""Rulers are told from lines of text by what they repeat, noise by what its neighbours differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import threadpoolctl
from numpy.typing import NDArray

from pipeline.ingest.deidentify import look_alike
from pipeline.ingest.deidentify.look_alike import is_noise, is_ruler
from pipeline.ingest.deidentify.text_detector import Place
from tests.benchmarks.text_pictures import Grey, ink


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(1):
        yield


def ticks(step: float, lengths: tuple[int, ...] = (4, 10), every: int = 5, thick: int = 1, width: int = 240) -> Grey:
    """``[48, width]``: strokes from row 16 down, every so many longer."""
    picture = np.zeros((48, width), np.float32)
    for number, at in enumerate(np.arange(2.0, width - 2, step)):
        picture[16 : 16 + lengths[number % every == 0], int(at) : int(at) + thick] = 1
    return picture


def beads() -> Grey:
    y, x = np.mgrid[:48, :240]
    return (np.hypot((x % 12) - 6, y - 24) < 4).astype(np.float32)


def rings() -> Grey:
    y, x = np.mgrid[:48, :240]
    return (np.abs(np.hypot((x % 14) - 7, y - 24) - 5) < 1).astype(np.float32)


def zigzag() -> Grey:
    """A meandering trace."""
    y, x = np.mgrid[:48, :240]
    return (np.abs(y - 24 - 6 * np.sin(x / 2.5)) < 1.5).astype(np.float32)


RULERS: dict[str, Callable[[], Grey]] = {
    "ticks": lambda: ticks(6),
    "ticks between pixels": lambda: ticks(4.3),
    "ticks far apart": lambda: ticks(17, (6, 18), 4, 2),
    "strokes of one length": lambda: ticks(8, (9, 9)),
    "a scale on its line": lambda: ticks(5) + (np.arange(48) == 15)[:, None],
    "black on white": lambda: 1 - ticks(7),
    "beads": beads,
    "rings": rings,
    "a trace": zigzag,
}


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("name", RULERS)
def test_what_repeats_itself_is_a_ruler(name: str, noise: float, upright: bool) -> None:
    picture = RULERS[name]() + np.float32(noise) * np.random.default_rng(0).normal(size=(48, 240)).astype(np.float32)
    for scale in (1, 2, 4):
        picture_at = np.kron(picture, np.ones((scale, scale), np.float32))
        box = (8 * scale, 16 * scale, 40 * scale, 224 * scale)
        place = Place(3.0, box, scale, True) if upright else Place(3.0, (box[1], box[0], box[3], box[2]), scale, False)
        assert is_ruler(picture_at if upright else picture_at.T, place, 1.0)


def line(text: str, face: str, size: int) -> tuple[Grey, Place]:
    covered = ink(text, face, size, True)
    picture = np.zeros((covered.shape[0] + 24, covered.shape[1] + 24), np.float32)
    picture[12:-12, 12:-12] = covered
    return picture, Place(9.0, (8, 8, picture.shape[0] - 8, picture.shape[1] - 8), 1, True)


@pytest.mark.parametrize("face", ["DejaVuSans", "DejaVuSansMono-Bold", "cmtt10", "DejaVuSerif-Bold", "bitmap"])
@pytest.mark.parametrize("size", [10, 14, 22])
@pytest.mark.parametrize(
    "text",
    [
        "DOE^JANE",
        "12/03/1961",
        "ID: 4829133",
        "MRN 47110-81",
        "Müller, Eva",
        "12:45:07",
        "William Hill",
        "MINNIE MULLIN",
        "10101 011",
        "Anna Otto",
    ],
)
def test_words_dates_and_numbers_are_none(text: str, size: int, face: str) -> None:
    picture, place = line(text, face, size)
    assert not is_ruler(picture, place, 1.0)
    assert not is_ruler(1000 - 400 * picture, place, 1000.0)


@pytest.mark.parametrize("value", [1.0, 0.5])
@pytest.mark.parametrize("text", ["DOE^JANE", "4829133", "Müller", "12/03/61", "Dr. Kowalski"])
def test_a_word_at_the_end_of_a_ruler_makes_it_none(text: str, value: float) -> None:
    picture, covered = ticks(6), ink(text, "DejaVuSans", 14, True)
    picture[:, 120:] = 0
    picture[14 : 14 + covered.shape[0], 126 : 126 + covered.shape[1]] += value * covered
    assert not is_ruler(picture, Place(5.0, (8, 0, 40, 126 + covered.shape[1]), 1, True), 1.0)


@pytest.mark.parametrize("shape", [(4, 200), (48, 6), (48, 14), (7, 300)])
def test_what_is_too_small_or_empty_is_none(shape: tuple[int, int]) -> None:
    for picture in (np.zeros(shape, np.float32), np.full(shape, np.nan, np.float32)):
        assert not is_ruler(picture, Place(3.0, (0, 0, *shape), 1, True), 1.0)


def test_bands_agree_with_themselves_as_correlations_say() -> None:
    """Every band and shift against numpy's own correlation of the two overlapping parts."""
    rows = np.random.default_rng(0).normal(size=(9, 60)) + np.sin(np.arange(60) * 2 * np.pi / 7)
    alike, energies = look_alike._autocorrelation(rows)
    assert alike.shape == (9 - look_alike.ROWS + 1, 60 // look_alike.TIMES + 1)
    for band in range(len(alike)):
        part = rows[band : band + look_alike.ROWS]
        assert energies[band] == pytest.approx((part**2).sum())
        full = [
            (part[:, : 60 - shift] * part[:, shift:]).sum() / np.sqrt((part[:, : 60 - shift] ** 2).sum() * (part[:, shift:] ** 2).sum())
            for shift in range(60 // look_alike.TIMES + 1)
        ]
        for shift in range(look_alike.LEAST, 60 // look_alike.TIMES):
            peak = full[shift] >= full[shift - 1] and full[shift] >= full[shift + 1]
            assert alike[band, shift] == pytest.approx(full[shift] if peak else 0)


def bordered(seed: int, gone: NDArray[np.bool_], signal: float = 0.0) -> Grey:
    """Magnitude noise around a signal, whole numbers, exact zeros where ``gone``."""
    real, imaginary = np.random.default_rng(seed).normal(0, 20, (2, *gone.shape))
    return np.where(gone, 0, np.floor(np.hypot(real + signal, imaginary))).astype(np.float32)


Y, X = np.mgrid[:32, :96]


@pytest.mark.parametrize("signal", [0, 60, 400])
@pytest.mark.parametrize(
    "gone", [Y < 16, 14 + 4 * np.cos(X / 30) > Y, X + Y > 100, X % 20 < 1, np.hypot(Y - 16, X - 48) > 40, np.zeros_like(Y, bool)]
)
def test_noise_that_ends_in_zeros_is_noise(gone: NDArray[np.bool_], signal: float) -> None:
    for seed in range(5):
        assert is_noise(bordered(seed, gone, signal), Place(3.0, (4, 4, 28, 92), 1, True))


@pytest.mark.parametrize("text", ["DOE^JANE", "4829133", "Lee Wu"])
@pytest.mark.parametrize("size", [10, 14, 20])
@pytest.mark.parametrize("contrast", [80, 200])
def test_what_stands_out_of_noise_is_none(text: str, size: int, contrast: float) -> None:
    """Four deviations of the noise and more, on noise, on zeros, and where the noise ends."""
    covered = ink(text, "DejaVuSans", size, True)
    for gone in (np.zeros((48, 128), bool), np.ones((48, 128), bool), np.arange(128) < 20 + np.zeros((48, 1))):
        picture = bordered(0, gone, 100)
        picture[12 : 12 + covered.shape[0], 8 : 8 + covered.shape[1]] += contrast * covered
        assert not is_noise(picture, Place(3.0, (8, 4, 16 + covered.shape[0], 12 + covered.shape[1]), 1, True))


@pytest.mark.parametrize("shape", [(3, 90), (90, 3), (16, 90)])
def test_where_nothing_is_there_is_no_noise(shape: tuple[int, int]) -> None:
    assert not is_noise(np.zeros(shape, np.float32), Place(3.0, (0, 0, *shape), 1, True))

"""The two networks that look for text: against plain correlations, and on what they have to tell apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import threadpoolctl
from PIL import Image
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.signal import correlate

from pipeline.ingest.deidentify import text_detector, text_screen
from pipeline.ingest.deidentify.text_detector import normalize, places, text_map
from pipeline.ingest.deidentify.text_screen import FAINT, FLOOR, WEIGHTS, screen
from tests.benchmarks.text_pictures import Grey, ink, text_score


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker; many threads for small matrices are slower than one."""
    with threadpoolctl.threadpool_limits(1):
        yield


def anatomy(height: int, width: int, seed: int = 0, noise: float = 0.05) -> Grey:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(height, width)), 12)
    return np.asarray(100 + 60 * smooth / np.abs(smooth).max() + 100 * noise * rng.normal(size=(height, width)), np.float32)


def written(picture: Grey, text: str, height: int, top: int, left: int, value: float = 220) -> Grey:
    burned = picture.copy()
    covered = ink(text, "DejaVuSans", height, True)
    part = burned[top : top + covered.shape[0], left : left + covered.shape[1]]
    part += covered * (value - part)
    return burned


def layers(screening: bool) -> list[tuple[Grey, Grey]]:
    arrays = load_file(WEIGHTS)
    names = [name for name in arrays if name.endswith("weight") and name.startswith("screen.") == screening]
    names.sort(key=lambda name: int(name.split(".")[-2]))
    return [(arrays[name], arrays[name.replace("weight", "bias")]) for name in names]


def convolved(values: Grey, weight: Grey, bias: Grey, stride: int, edge: int) -> Grey:
    padded = np.pad(values, ((0, 0), (edge, edge), (edge, edge)))
    return np.stack([correlate(padded, kernel, "valid", "direct")[0] for kernel in weight])[:, ::stride, ::stride] + bias[:, None, None]


@pytest.mark.parametrize("shape", [(8, 8), (9, 12), (31, 17), (401, 300)])
def test_a_halving_is_the_mean_of_two_by_two_pixels(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).normal(1000, 100, shape).astype(np.float32)
    for turned in (picture, picture.T, np.rot90(picture)):  # also where the memory is not in the order of the rows
        rows, columns = turned.shape[0] // 2, turned.shape[1] // 2
        expected = turned[: 2 * rows, : 2 * columns].astype(np.float64).reshape(rows, 2, columns, 2).mean((1, 3))
        np.testing.assert_allclose(text_detector._halved(turned), expected, rtol=1e-6)


def test_the_detector_is_what_its_weights_say() -> None:
    picture = anatomy(64, 72)
    values = normalize(picture, 200.0)[None]
    found = layers(screening=False)
    for number, (weight, bias) in enumerate(found):
        side = weight.shape[-1]
        stride = {8: 4, 1: 1}.get(side, 2 if number == 1 else 1)
        values = convolved(values, weight, bias, stride, (side - stride + 1) // 2)
        values = values if number == len(found) - 1 else np.maximum(values, 0)
    np.testing.assert_allclose(text_map(picture, 200.0), values[0], atol=1e-4)


@pytest.mark.parametrize(("summed", "together"), [(text_screen.SUMMED, text_screen.TOGETHER), (500, 7)])
def test_the_screen_is_what_its_weights_say_at_each_scale(summed: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture at a time, by plain correlations, where the screen does all on one sheet, few at a time where there are many; part of one
    has no contrast at all."""
    monkeypatch.setattr(text_screen, "SUMMED", summed)
    monkeypatch.setattr(text_screen, "TOGETHER", together)
    halves = [anatomy(72, 104), anatomy(40, 56, 1), anatomy(24, 16, 2)]
    halves[0][:, 40:72] = 90
    span = 200.0
    for half, logits in zip(halves, screen(halves, span)):
        rows, columns = half.shape[0] // 4, half.shape[1] // 4
        blocks = half.reshape(rows, 4, columns, 4).transpose(0, 2, 1, 3).reshape(rows, columns, 16).astype(np.float64)
        mean, square = (uniform_filter(part.mean(2), 3, mode="nearest") for part in (blocks, blocks**2))
        even = (blocks - mean[..., None]) / (np.sqrt(np.maximum(square - mean**2, 0)) + FLOOR * span)[..., None]
        y, x = np.divmod(np.arange(16), 4)
        plane = np.stack([np.ones(16), x, y], 1)
        rest = (blocks.reshape(-1, 16).T - plane @ np.linalg.lstsq(plane, blocks.reshape(-1, 16).T, rcond=None)[0]) ** 2
        alive = rest.sum(0).reshape(rows // 2, 2, columns // 2, 2).sum((1, 3)) > 64 * (FAINT * span) ** 2
        values = (even * np.repeat(np.repeat(alive, 2, 0), 2, 1)[..., None]).transpose(2, 0, 1)
        for number, (weight, bias) in enumerate(layers(screening=True)):
            stride = 2 if weight.shape[-1] == 2 else 1
            values = convolved(values, weight, bias, stride, int(weight.shape[-1] == 3))
            values = values if number == 3 else np.maximum(values, 0)
        np.testing.assert_allclose(logits[alive], values[0][alive], atol=0.05)
        assert (logits[~alive] == -np.inf).all()
    assert not np.isfinite(screen(halves, span)[0]).all()


def test_where_the_screen_looks_the_detector_gives_what_it_gives_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = written(anatomy(300, 420), "DOE^JANE 4711", 14, 210, 100)
    few = places(picture)
    monkeypatch.setattr(text_detector, "LOOK", -np.inf)
    assert few[0].score == pytest.approx(text_score(picture), abs=1.0)


@pytest.mark.parametrize(("height", "scale"), [(12, 1), (20, 1), (48, 4), (90, 8)])
@pytest.mark.parametrize("turns", [0, 1])
def test_a_line_is_found_where_it_is(height: int, scale: int, turns: int) -> None:
    side = max(320, 8 * height)
    covered = ink("DOE^JANE", "DejaVuSans", height, True)
    picture = written(anatomy(side, side), "DOE^JANE", height, side // 3, side // 5)
    best = places(np.ascontiguousarray(np.rot90(picture, turns)))[0]
    assert best.upright == (turns == 0)
    assert best.scale in (scale // 2, scale, 2 * scale)
    top, left, bottom, right = best.box if not turns else (best.box[1], side - best.box[2], best.box[3], side - best.box[0])
    margin = 24 * best.scale
    assert side // 3 - margin <= top < bottom <= side // 3 + covered.shape[0] + margin
    assert side // 5 - margin <= left < right <= side // 5 + covered.shape[1] + margin


def test_two_lines_are_two_places() -> None:
    picture = written(written(anatomy(320, 320), "DOE^JANE", 14, 60, 40), "12/03/1961", 14, 240, 180)
    tops = sorted(place.box[0] for place in places(picture, 2.5) if place.upright and place.scale == 1)
    assert min(abs(top - 60) for top in tops) <= 16
    assert min(abs(top - 240) for top in tops) <= 16


@pytest.mark.parametrize("shape", [(24, 24), (31, 500), (500, 25), (333, 217), (1025, 64)])
def test_any_size_is_searched(shape: tuple[int, int]) -> None:
    assert text_score(anatomy(*shape)) < 2.5


@pytest.mark.parametrize("picture", [np.zeros((64, 64)), np.full((64, 64), np.nan), np.ones((5, 200)), np.full((64, 64), -3e38)])
def test_empty_and_odd_pictures_have_no_text(picture: Grey) -> None:
    assert places(picture.astype(np.float32)) == []


def test_padding_is_no_text_and_hides_none() -> None:
    picture = written(anatomy(320, 320), "DOE^JANE", 14, 60, 40)
    picture[200:] = np.nan
    picture[:, 300:] = np.nan
    assert text_score(picture) >= 2.5
    assert text_score(np.where(np.isnan(picture), np.nan, anatomy(320, 320))) < 2.5


def test_the_unit_of_the_values_does_not_matter() -> None:
    picture = written(anatomy(320, 320), "DOE^JANE", 14, 60, 40)
    for other in (picture * 16 - 1024, picture / 1e4, picture * 100 + 20_000):
        assert text_score(other) == pytest.approx(text_score(picture), abs=0.1)


def test_the_local_mean_is_enlarged_as_pillow_does_it() -> None:
    blocks = np.random.default_rng(0).random((9, 13), np.float32)
    expected = np.asarray(Image.fromarray(blocks).resize((104, 72), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(text_detector._enlarged(blocks), expected, atol=1e-6)

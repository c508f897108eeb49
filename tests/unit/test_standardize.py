"""Resizing: exact area means, no distortion, windows in physical units."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.ingest.intensity import Scaling, window
from pipeline.ingest.readers.reading import Reading, Unusable
from pipeline.ingest.standardize import Target, fit, resize, standardize


def test_reduction_is_the_mean_of_the_covered_area() -> None:
    image = np.random.default_rng(0).random((96, 64)).astype(np.float32)
    expected = image.reshape(32, 3, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, 32, 32), expected, atol=1e-5)


def test_any_ratio_keeps_the_mean_and_agrees_with_fractional_areas() -> None:
    image = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    fine = image.repeat(3, axis=0).repeat(4, axis=1)  # a grid that both sizes divide
    expected = fine.reshape(3, 5, 4, 7).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, 3, 4), expected, atol=1e-6)


def test_enlargement_is_bilinear() -> None:
    image = np.array([[0, 100], [0, 100]], np.float32)
    np.testing.assert_allclose(resize(image, 2, 4), [[0, 25, 75, 100]] * 2, atol=1e-4)


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.tile(np.array([0, 255], np.float32), (100, 50))
    assert np.ptp(resize(stripes, 25, 25)) < 1


def test_rows_and_columns_keep_their_places() -> None:
    image = np.zeros((40, 20), np.float32)
    image[30:, :5] = 255
    small = resize(image, 4, 4)
    assert small[3, 0] == 255
    assert small.sum() == 255


def test_letterbox_keeps_the_proportions_and_centres() -> None:
    image, ratio = standardize(np.full((1, 64, 32), 9, np.float32), 0, 9, Target(16))
    assert image.shape == (1, 16, 16)
    np.testing.assert_array_equal(image[0, :, 4:12], 255)
    assert image[0, :, :4].max() == image[0, :, 12:].max() == 0
    assert ratio == 4


def test_flat_pixels_are_seen_in_their_physical_shape() -> None:
    image, ratio = standardize(np.full((1, 32, 64), 9, np.float32), 0, 9, Target(16), aspect=2.0)
    assert image.min() == 255
    assert ratio == 2


@pytest.mark.parametrize(("low", "high"), [(100.0, 300.0), (300.0, 100.0)])
def test_values_come_back_from_the_recorded_window(low: float, high: float) -> None:
    values = np.linspace(100, 300, 256).astype(np.float32).reshape(16, 16)
    image, _ = standardize(values[None], low, high, Target(16))
    np.testing.assert_allclose(low + image[0] / 255.0 * (high - low), values, atol=0.5)


def test_values_outside_the_window_are_clipped() -> None:
    image, _ = standardize(np.array([[[-1e9, 1e9]]], np.float32).repeat(2, axis=1), 0, 1, Target(16))
    assert (image.min(), image.max()) == (0, 255)


def test_an_empty_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="window"):
        standardize(np.ones((1, 4, 4), np.float32), 3, 3, Target(16))


def test_small_published_images_are_padded_and_crop_back() -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 28, 28), dtype=np.uint8)
    padded = fit(images, 32)
    assert padded.shape == (5, 3, 32, 32)
    np.testing.assert_array_equal(padded[:, :, 2:-2, 2:-2], images)
    np.testing.assert_array_equal(padded[:, :, 0, 2:-2], images[:, :, 0])


def test_large_published_images_are_averaged() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    means = images.reshape(3, 1, 32, 2, 32, 2).mean(axis=(3, 5))
    assert np.abs(fit(images, 32) - means).max() <= 0.5


def reading(values: NDArray[np.float32], low: float, high: float, linear: bool = True) -> Reading:
    return Reading(values[None], low, high, linear, None, 1.0, None, None)


def test_each_modality_has_its_display_range() -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    one = reading(values, 5, 50)
    scaling: dict[str, Scaling] = {"CT": (-160.0, 240.0), "MR": "percentile", "PT": "header"}
    assert window(one, "CT", scaling) == (-160, 240)
    assert window(one, "MR", scaling) == pytest.approx((49.995, 9949.005))  # .5 and 99.5 per cent of 0..9999
    assert window(one, "PT", scaling) == window(one, "DX", scaling) == (5, 50)
    inverted = reading(values, 50, 5)
    assert window(inverted, "CT", scaling) == (240, -160)
    assert window(inverted, "MR", scaling)[0] > window(inverted, "MR", scaling)[1]
    with pytest.raises(Unusable, match="VOI LUT"):
        window(reading(values, 0, 255, linear=False), "CT", scaling)


def test_padding_does_not_count_among_the_percentiles() -> None:
    values = np.full((20, 20), np.nan, np.float32)
    values[:10] = np.linspace(100, 200, 200).reshape(10, 20)
    low, high = window(reading(values, 0, 1), "MR", {"MR": "percentile"})
    assert 100 <= low < high <= 200


def test_a_spacing_in_millimetres_is_met_by_resampling_and_padding() -> None:
    image, ratio = standardize(np.full((1, 30, 20), 9, np.float32), 0, 9, Target(32, spacing=1.0), aspect=2.0, height_mm=1.0)
    rows, columns = np.flatnonzero(image[0].any(axis=1)), np.flatnonzero(image[0].any(axis=0))
    assert (len(rows), len(columns)) == (30, 10)  # 30 mm by 10 mm
    assert ratio == 1
    with pytest.raises(Unusable, match=r"larger than ingest\.size"):
        standardize(np.ones((1, 30, 20), np.float32), 0, 1, Target(16, spacing=1.0), height_mm=1.0)
    with pytest.raises(Unusable, match="spacing is not known"):
        standardize(np.ones((1, 30, 20), np.float32), 0, 1, Target(32, spacing=1.0))


def test_sixteen_bits_hold_what_eight_cannot() -> None:
    values = np.arange(65536, dtype=np.float32).reshape(1, 256, 256)
    image, _ = standardize(values, 0, 65535, Target(256, bits=16))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, values)


def test_volumes_that_are_too_small_are_padded_and_larger_ones_averaged() -> None:
    volumes = np.random.default_rng(1).integers(0, 256, (2, 1, 28, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(fit(volumes, 32)[:, :, 2:-2, 2:-2, 2:-2], volumes)
    means = volumes.reshape(2, 1, 14, 2, 14, 2, 14, 2).mean(axis=(3, 5, 7))
    assert np.abs(fit(volumes, 14) - means).max() <= 0.5 + 1e-4


def test_the_pixels_stay_as_they_were_unless_they_may_be_overwritten() -> None:
    values = np.linspace(0, 9, 400, dtype=np.float32).reshape(1, 20, 20)
    before = values.copy()
    kept, _ = standardize(values, 2, 7, Target(16))
    np.testing.assert_array_equal(values, before)
    again, _ = standardize(values, 2, 7, Target(16), overwrite=True)
    np.testing.assert_array_equal(kept, again)


@pytest.mark.parametrize("shape", [(64, 48), (67, 45)])
def test_a_narrow_window_far_from_zero_is_averaged_as_in_double_precision(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(2).uniform(29_990, 30_030, shape).astype(np.float32)
    image, _ = standardize(values[None], 30_000, 30_020, Target(16))
    shown = (np.clip(values.astype(np.float64), 30_000, 30_020) - 30_000) / 20 * 255
    rows, columns = (area(length, after) for length, after in zip(shape, (16, round(16 * shape[1] / shape[0]))))
    expected = rows @ shown @ columns.T
    left = (16 - len(columns)) // 2
    assert np.abs(image[0, :, left : left + len(columns)] - expected).max() <= 0.55


def area(before: int, after: int) -> NDArray[np.float64]:
    """``[after, before]``: the share of every old pixel in each new one."""
    edges = np.linspace(0, before, after + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, before + 1)) - np.maximum(edges[:-1, None], np.arange(before))
    return np.clip(overlap, 0, None) * after / before

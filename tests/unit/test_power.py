"""Planted copies: each kind is what it says."""

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy import power

KINDS = sorted({*power.CORE, *power.FURTHER, *power.MIXED, *power.LEARNED}, key=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def images():
    return phantom_arrays(8, 5, 32)[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_keeps_the_format_and_differs_by_what_it_says(images, kind, channels):
    coloured = np.repeat(images, channels, axis=1)
    made, sources = power.plant(coloured, kind, 4, np.random.default_rng(2))
    assert made.shape == (4, *coloured.shape[1:])
    assert made.dtype == np.uint8
    assert len(set(sources.tolist())) == 4
    difference = float(np.abs(made.astype(float) - coloured[sources]).mean())
    assert difference == 0 if kind is power.identity else 0 < difference < (250 if kind in (power.inversion, power.shrunk) else 90)


def test_an_occlusion_leaves_about_three_quarters_of_the_image_alone(images):
    made, sources = power.plant(images, power.occlusion, 8, np.random.default_rng(0))
    assert 0.7 < (made == images[sources]).mean() < 0.85


def test_a_splice_is_half_of_its_source(images):
    made, sources = power.plant(images, power.splice, 8, np.random.default_rng(0))
    halves = [(made[:, :, :16], images[sources][:, :, :16]), (made[:, :, 16:], images[sources][:, :, 16:])]
    halves += [(made[..., :16], images[sources][..., :16]), (made[..., 16:], images[sources][..., 16:])]
    assert np.any([[np.array_equal(a, b) for a, b in zip(*half)] for half in halves], axis=0).all()


def test_down_and_up_keeps_a_ramp_and_loses_a_checkerboard():
    ramp = np.tile(np.arange(0, 64, 2, dtype=np.uint8), (1, 32, 1))
    assert np.abs(power.down_up(ramp, np.random.default_rng(0)).astype(int) - ramp)[:, :, 2:-2].max() <= 1
    board = (np.indices((1, 32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert power.down_up(board, np.random.default_rng(0)).std() < 1


def test_equalisation_spreads_a_narrow_histogram_and_keeps_the_order_of_a_single_tile():
    image = np.random.default_rng(0).integers(100, 140, (1, 32, 32)).astype(np.uint8)
    made = power.clahe(image, np.random.default_rng(0))
    assert made.std() > 2 * image.std()


def test_elastic_moves_no_point_farther_than_it_says():
    place = np.tile(np.arange(64) * 4, (1, 64, 1)).astype(np.uint8)  # its value is its column, times 4
    moved = power.elastic(place, np.random.default_rng(0)).astype(float) / 4 - np.arange(64)
    assert 0.5 < np.abs(moved).max() <= 0.04 * 64 + 0.2


def test_few_greys_are_four_and_each_value_takes_the_nearest(images):
    made, sources = power.plant(images, power.few_greys, 4, np.random.default_rng(0))
    assert set(np.unique(made)) <= {0, 85, 170, 255}
    assert np.abs(made.astype(int) - images[sources]).max() <= 42


def test_what_is_shrunk_is_its_source_at_half_the_side_and_black(images):
    made, sources = power.plant(images, power.shrunk, 8, np.random.default_rng(0))
    half = images[sources].astype(float).reshape(8, 1, 16, 2, 16, 2).mean(axis=(3, 5))
    places = [(top, left) for top in range(17) for left in range(17)]
    fits = np.array([np.abs(made[:, :, top : top + 16, left : left + 16] - half).max(axis=(1, 2, 3)) <= 0.5 for top, left in places])
    assert fits.any(axis=0).all()
    assert np.allclose(made.sum(axis=(1, 2, 3)), half.sum(axis=(1, 2, 3)), rtol=0.02), "black around it"


def test_what_is_recoloured_keeps_its_brightest_channel_and_changes_its_colours(images):
    coloured = np.concatenate([images, images // 2, images // 4], axis=1)
    made, sources = power.plant(coloured, power.recoloured, 8, np.random.default_rng(0))
    assert np.abs(made.max(axis=1).astype(int) - coloured[sources].max(axis=1)).max() <= 1
    assert (np.abs(made.astype(int) - coloured[sources]).mean(axis=(1, 2, 3)) > 5).all()

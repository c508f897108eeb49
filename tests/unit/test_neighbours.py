"""Distances and densities around real images: against loops, at other sizes, and where a release holds an image itself."""

import numpy as np
import pytest
import torch

from privacy import neighbours
from privacy.neighbours import FLOOR, NEAREST, WIDTHS, Neighbourhoods

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
RELEASED = RNG.integers(0, 256, (30, 1, 16, 16), dtype=np.uint8)
EACH = len(NEAREST) + len(WIDTHS)


def test_pixels_are_compared_as_by_loops():
    found = Neighbourhoods(REAL, "cpu").features(RELEASED)
    real, released = (images.reshape(len(images), -1) / 127.5 - 1.0 for images in (REAL, RELEASED))
    between = np.sqrt(((real[:, None] - real) ** 2).sum(axis=2)) + np.diag(np.full(40, np.inf))
    width = np.median(between.min(axis=1))
    for image in range(5):
        distance = np.sort(np.sqrt(((released - real[image]) ** 2).sum(axis=1)))
        expected = [np.log(distance[:count]).mean() for count in NEAREST]
        expected += [np.log(np.exp(-((distance / (share * width)) ** 2) / 2).mean()) for share in WIDTHS]
        np.testing.assert_allclose(found[image, :EACH], expected, rtol=1e-5)


def test_principal_components_are_compared_in_their_own_deviations():
    places = Neighbourhoods(REAL, "cpu").spaces[-2].real
    assert places.shape == (40, 16)
    torch.testing.assert_close(places.square().mean(dim=0), torch.ones(16), rtol=1e-3, atol=0)


def test_contrast_and_brightness_do_not_matter_where_they_are_taken_away():
    duller = (RELEASED // 2 + 40).astype(np.uint8)
    spaces = Neighbourhoods(REAL, "cpu")
    space = [kind for kind, one in enumerate(spaces.spaces) if abs(float(one.real.norm(dim=1).mean()) - 1) < 1e-4]
    assert len(space) == 1
    columns = slice(space[0] * EACH, space[0] * EACH + len(NEAREST))
    same, moved = (spaces.features(images)[:, columns] for images in (RELEASED, duller))
    np.testing.assert_allclose(same, moved, atol=0.02)


def test_an_image_that_is_released_as_it_is_has_the_least_distance_in_every_space():
    spaces = Neighbourhoods(REAL, "cpu")
    found = spaces.features(np.concatenate([RELEASED, REAL[:1]]))
    for kind, space in enumerate(spaces.spaces):
        assert found[0, kind * EACH] == pytest.approx(np.log(FLOOR * space.width))
        assert found[:, kind * EACH].argmin() == 0
    assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(12, 1, 8, 8), (12, 3, 12, 20), (2, 1, 48, 33)])
def test_images_of_any_size_have_finite_features_whatever_is_released(shape):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    for released in (images[:1], np.zeros_like(images), np.full_like(images, 255)):
        assert np.isfinite(Neighbourhoods(images, "cpu").features(released)).all()


def test_real_images_that_are_all_the_same_are_no_division_by_zero():
    assert np.isfinite(Neighbourhoods(np.full((5, 1, 16, 16), 7, np.uint8), "cpu").features(RELEASED)).all()


def test_parts_make_no_difference(monkeypatch):
    whole = Neighbourhoods(REAL, "cpu").features(RELEASED)
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    np.testing.assert_allclose(Neighbourhoods(REAL, "cpu").features(RELEASED), whole, rtol=1e-4, atol=1e-4)

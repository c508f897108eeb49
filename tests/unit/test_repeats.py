"""Images of a set that repeat one another."""

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy.repeats import find_repeats


@pytest.fixture(scope="module")
def phantoms():
    return phantom_arrays(60, 5, 32)[0]


def test_different_images_are_all_new(phantoms):
    found = find_repeats(phantoms[:60], phantoms[60:], "cpu")
    assert found.count == 0
    assert found.new.all()


def test_one_image_many_times_as_it_is_mirrored_turned_and_with_faint_noise_is_one(phantoms):
    rng = np.random.default_rng(0)
    one = phantoms[0]
    faint = np.clip(one + rng.normal(0, 1, one.shape), 0, 255).astype(np.uint8)
    made = np.stack([one, phantoms[1], one[:, :, ::-1], np.rot90(one, 1, axes=(1, 2)), faint, phantoms[2]])
    found = find_repeats(made, phantoms[60:], "cpu")
    assert found.first.tolist() == [0, 1, 0, 0, 0, 5]
    assert found.count == 3


def test_constant_images_are_one_whatever_their_grey(phantoms):
    grey = np.broadcast_to(np.array([0, 90, 255], np.uint8)[:, None, None, None], (3, 1, 32, 32))
    found = find_repeats(np.concatenate([phantoms[:2], grey]), phantoms[60:], "cpu")
    assert found.constant.tolist() == [False, False, True, True, True]
    assert found.first.tolist() == [0, 1, 2, 2, 2]


def test_a_set_of_one_image_alone_is_one(phantoms):
    assert find_repeats(np.repeat(phantoms[:1], 30, axis=0), phantoms[60:], "cpu").count == 29

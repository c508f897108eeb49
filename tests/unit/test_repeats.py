"""Images of a set that repeat one another."""

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy.repeats import Repeats, beyond_real, find_repeats


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


def test_one_image_moved_by_a_pixel_again_and_again_is_as_many_as_there_are_moves(phantoms):
    moves = np.random.default_rng(0).integers(-1, 2, (200, 2))
    made = np.stack([np.roll(phantoms[0], tuple(move), axis=(1, 2)) for move in moves])
    assert find_repeats(made, phantoms[60:], "cpu").count >= 200 - 9


def test_only_repeats_beyond_those_of_real_images_count(phantoms):
    made = np.concatenate([phantoms[:50], phantoms[:10, :, :, ::-1]])
    found = find_repeats(made, phantoms[60:], "cpu")
    assert found.count == 10
    assert beyond_real(found, 0, 300) == 10
    # Sixty images of which one in six would be expected to repeat another: 10 and two standard deviations of √(10 · (1 + 60/300)).
    assert beyond_real(found, 50, 300) == 0
    # One in sixty: 1 + 2 √(1 + 60/300), rounded down, is 3.
    assert beyond_real(found, 5, 300) == 7


def test_one_image_many_times_counts_whatever_the_cohort_repeats(phantoms):
    noise = np.random.default_rng(0).normal(0, 1, (400, *phantoms.shape[1:]))
    made = np.clip(phantoms[0] + noise, 0, 255).astype(np.uint8)
    found = find_repeats(made, phantoms[60:], "cpu")
    assert beyond_real(found, 40, 300) / 400 > 0.7


def test_the_same_pixels_count_however_often_real_images_repeat(phantoms):
    made = np.concatenate([phantoms[:50], phantoms[:10]])
    assert beyond_real(find_repeats(made, phantoms[60:], "cpu"), 150, 300) == 10


def test_constants_are_no_repeats_beyond_those_of_real_images(phantoms):
    made = np.concatenate([phantoms[:2], np.zeros((5, 1, 32, 32), np.uint8)])
    assert beyond_real(find_repeats(made, phantoms[60:], "cpu"), 0, 300) == 0


def test_sets_that_are_drawn_as_real_images_were_are_seldom_beyond_them():
    rng, draws, beyond = np.random.default_rng(0), 400, 0

    def drawn(size):
        """One image in ten repeats the one before."""
        first = np.arange(size)
        again = np.flatnonzero(rng.random(size) < 0.1)
        first[again[again > 0]] -= 1
        return Repeats(first, np.zeros(size, bool), np.zeros(size, bool))

    for _ in range(draws):
        beyond += beyond_real(drawn(800), drawn(300).count, 300) > 0
    assert beyond / draws < 0.05


def test_an_image_of_one_colour_shows_nothing(phantoms):
    """As much as one of one grey: its channels differ from each other, and no pixel from another."""
    colours = np.random.default_rng(0).integers(0, 255, (4, 3, 1, 1), np.uint8) * np.ones((1, 1, 32, 32), np.uint8)
    made = np.concatenate([np.repeat(phantoms[:4], 3, axis=1), colours])
    found = find_repeats(made, np.repeat(phantoms[60:], 3, axis=1), "cpu")
    assert found.constant.tolist() == [False] * 4 + [True] * 4
    assert found.count == 3

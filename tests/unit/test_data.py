"""The one shape of a cohort: what it refuses, its view of one class an image, and its pixels as networks take them."""

import numpy as np
import pytest

from evaluation.data import Labelled, to_unit

IMAGES = np.arange(4 * 4, dtype=np.uint8).reshape(4, 1, 2, 2)


def test_one_class_an_image_is_a_view_of_the_findings():
    cohort = Labelled.of_classes(IMAGES, np.array([2, 0, 1, 2]), np.arange(4), 3)
    assert cohort.findings.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert cohort.labels.tolist() == [2, 0, 1, 2]
    assert (len(cohort), cohort.classes) == (4, 3)


@pytest.mark.parametrize("row", [[1, 1, 0], [0, 0, 0], [1, -1, 0], [-1, -1, -1]], ids=["two", "none", "one unknown", "unknown"])
def test_images_of_several_findings_have_no_class_but_are_a_cohort(row):
    cohort = Labelled(IMAGES, np.array([row, [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.int8), np.arange(4))
    with pytest.raises(ValueError, match="one class an image is needed"):
        _ = cohort.labels
    assert cohort.take(slice(1, 4)).labels.tolist() == [0, 1, 2]


def test_rows_are_taken_together():
    site = np.array(["a", "b", "a", "c"])
    cohort = Labelled.of_classes(IMAGES, np.array([0, 1, 1, 0]), np.array([7, 7, 8, 9]), 2, {"site": site})
    for index in (np.array([3, 0]), np.array([True, False, False, True])):
        some = cohort.take(index)
        np.testing.assert_array_equal(some.images, IMAGES[index])
        np.testing.assert_array_equal(some.groups, np.array([7, 7, 8, 9])[index])
        np.testing.assert_array_equal(some.attributes["site"], site[index])


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_black_and_white_are_the_ends_of_the_unit_range_at_any_depth(dtype, top):
    values = np.array([0, top], dtype).reshape(2, 1, 1, 1)
    assert Labelled.of_classes(values, np.zeros(2, int), np.arange(2), 1).unit.ravel().tolist() == [-1, 1]
    assert to_unit(values).dtype == np.float32


def test_floats_are_taken_as_they_are_and_volumes_too():
    volume = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 2, 2, 2)
    assert Labelled.of_classes(volume, np.zeros(1, int), np.arange(1), 1).unit is volume


@pytest.mark.parametrize(
    ("images", "findings", "groups", "words"),
    [
        (IMAGES[:, 0], np.ones((4, 1), np.int8), np.arange(4), "do not match"),
        (IMAGES, np.ones((3, 1), np.int8), np.arange(4), "do not match"),
        (IMAGES, np.ones(4, np.int8), np.arange(4), "do not match"),
        (IMAGES, np.ones((4, 1), np.int8), np.arange(5), "do not match"),
        (IMAGES.astype(np.float64), np.ones((4, 1), np.int8), np.arange(4), "uint8, uint16 or float32"),
        (IMAGES, np.ones((4, 1), np.int64), np.arange(4), "int8"),
        (IMAGES, np.full((4, 1), 2, np.int8), np.arange(4), "unknown"),
    ],
)
def test_what_does_not_fit_together_is_refused(images, findings, groups, words):
    with pytest.raises(ValueError, match=words):
        Labelled(images, findings, groups)


def test_a_class_beyond_those_named_is_refused():
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Labelled.of_classes(IMAGES, np.array([0, 1, 2, 0]), np.arange(4), 2)

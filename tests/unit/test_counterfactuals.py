"""Counterfactuals: the least change that shows the finding, and the patient among many."""

import numpy as np

from evaluation.counterfactuals import least_change, own_patient_first


def test_the_least_change_that_shows_the_finding_is_taken_and_nothing_is_tried_beyond_it() -> None:
    shown_at = np.array([1, 9, 0, 2])
    asked: list[tuple[list[int], int]] = []

    def make(rows: np.ndarray, depth: int) -> np.ndarray:
        asked.append((rows.tolist(), depth))
        return np.repeat(10 * rows + depth, 4).reshape(-1, 1, 2, 2).astype(np.uint8)

    images, first = least_change((0, 1, 2), make, lambda rows, made: (made[:, 0, 0, 0] % 10) >= shown_at[rows], 4)
    np.testing.assert_array_equal(first, [1, -1, 0, 2])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [1, 10, 20, 32])
    assert asked == [([0, 1, 2, 3], 0), ([0, 1, 3], 1), ([1, 3], 2)]
    assert least_change((0, 1, 2), make, lambda rows, made: rows >= 0, 4)[1].tolist() == [0] * 4
    assert asked[-1] == ([0, 1, 2, 3], 0)


def test_the_own_patient_comes_first_whatever_brightness_and_contrast() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.normal(0, 0.3, (40, 1, 8, 8)).astype(np.float32)
    patients = np.arange(40) // 2
    made = 0.7 * gallery[::4] + 0.2 + rng.normal(0, 0.05, (10, 1, 8, 8)).astype(np.float32)
    assert own_patient_first(made.astype(np.float32), patients[::4], gallery, patients).all()
    assert not own_patient_first(made.astype(np.float32), patients[::4] + 1, gallery, patients).any()


def test_what_all_patients_share_makes_nobody_first() -> None:
    """A bright frame that every image has, much stronger than what tells them apart."""
    rng = np.random.default_rng(1)
    frame = np.zeros((1, 8, 8), np.float32)
    frame[:, 0] = 30
    gallery = (rng.normal(0, 0.3, (20, 1, 8, 8)) + frame).astype(np.float32)
    made = gallery[:5] + rng.normal(0, 0.1, (5, 1, 8, 8)).astype(np.float32)
    assert own_patient_first(made.astype(np.float32), np.arange(5), gallery, np.arange(20)).all()


def test_of_no_images_nobody_is_first() -> None:
    gallery = np.zeros((3, 1, 4, 4), np.float32)
    assert own_patient_first(gallery[:0], np.arange(0), gallery, np.arange(3)).shape == (0,)

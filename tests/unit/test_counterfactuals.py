"""Counterfactuals: the least change that shows the finding, and the patient among many."""

import numpy as np

from evaluation.counterfactuals import least_depth, own_patient_first


def test_the_least_depth_that_shows_the_finding_is_taken() -> None:
    named = np.array([[False, False, True, False], [True, False, True, False], [True, False, False, True]])
    np.testing.assert_array_equal(least_depth(named), [1, -1, 0, 2])


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

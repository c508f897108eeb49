"""The landmark benchmark: phantoms are drawn as the cohort's are, and a fit finds its way back."""

import dataclasses

import numpy as np
import pytest

from pipeline.phantom.anatomy import draw_patients
from pipeline.phantom.image import render
from tests.benchmarks import landmarks
from tests.benchmarks.landmarks import Fit, Start


def start(finding: str) -> Start:
    patient, visit = next((one, visit) for one in draw_patients(400, 3) for visit in one.visits if visit.finding == finding)
    return Start(patient, visit, landmarks.displayed(patient, visit, 32))


@pytest.mark.parametrize("finding", ["normal", "cardiomegaly", "effusion", "nodule", "pneumothorax"])
def test_a_start_without_change_is_the_phantom_that_was_drawn(finding):
    one = start(finding)
    patient, visit = Fit(one, finding).phantom(Fit(one, finding).first())
    assert landmarks.size_of(visit) == pytest.approx(landmarks.size_of(one.visit), abs=1e-6)
    assert (visit.side, visit.finding) == (one.visit.side, finding)
    assert np.abs(landmarks.displayed(patient, visit, 32) - one.image).max() < 0.02  # what lies beyond three deviations is cut
    number = one.patient.visits.index(one.visit)
    assert np.abs(render(one.patient, number, 32) - one.image).mean() < 0.02  # noise alone


def test_gain_and_offset_of_the_display_leave_nothing():
    image = start("effusion").image
    np.testing.assert_allclose(landmarks.leftover(image, 0.3 + 0.5 * image), 0, atol=1e-12)
    assert np.square(landmarks.leftover(np.eye(32), image)).mean() <= image.var() + 1e-12


@pytest.mark.slow
def test_an_effusion_is_found_on_its_side_at_its_height_from_one_that_is_smaller():
    one = start("effusion")
    smaller = dataclasses.replace(one.visit, severity=0.2, sizes_mm={"effusion": 67.0})
    taller = dataclasses.replace(one.visit, severity=0.7, sizes_mm={"effusion": 109.5})
    z, error = Fit(dataclasses.replace(one, visit=smaller), "effusion").solve(landmarks.displayed(one.patient, taller, 32), 10)
    _, found = Fit(one, "effusion").phantom(z)
    assert found.side == one.visit.side
    assert found.size_mm == pytest.approx(109.5, abs=8)
    assert error**0.5 < 0.02


def test_errors_and_what_is_found_stand_beside_each_other():
    row = {"finding": "nodule", "side": "left", "size": 30.0, "place": (10.0, 0.0), "residual": 0.05, "gain": 0.2}
    true = [row | {"synthetic": False, "true_side": side, "true_size": 27.0, "true_place": (13.0, 4.0)} for side in ("left", "right")]
    made = [row | {"synthetic": True, "size": 20.0, "gain": 0.0}]
    line = landmarks.table([*true, *made]).splitlines()[2]
    assert line.startswith("| nodule | 2 | 0.5 | 3 | 3 | 5 | 30 ± 0 | 1 | 0.2 | 0.05 | 20 ± 0 | 1 | 0 | 0.05 |")

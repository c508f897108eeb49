from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.phantom.anatomy import CLASSES, FINDINGS, PREVALENCE, SITES, Detector, Patient, Visit, draw_patients
from pipeline.phantom.detector import SOFT, expose
from pipeline.phantom.image import NODULE, attenuation_map, heart_chord, nodule_centre, phantom_arrays, render


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return draw_patients(1500, 7)


def visits_with(patients: list[Patient], finding: str, count: int) -> list[tuple[Patient, int]]:
    found = [(patient, number) for patient in patients for number, visit in enumerate(patient.visits) if visit.finding == finding]
    return found[:count]


def healthy(visit: Visit, patient: Patient) -> Visit:
    """The same exposure of the same person without the finding."""
    return dataclasses.replace(visit, sizes_mm={}, side="", severity=0.0, heart_ratio=patient.anatomy.heart_ratio)


def added_by_finding(patient: Patient, number: int, size: int = 160) -> NDArray[np.float32]:
    visit = patient.visits[number]
    return attenuation_map(patient, visit, size) - attenuation_map(patient, healthy(visit, patient), size)


def half(image: NDArray[np.float32], side: str) -> NDArray[np.float32]:
    """The half of the image that shows this side of the patient, whose left is on the right of the image."""
    middle = image.shape[1] // 2
    return image[:, middle:] if side == "left" else image[:, :middle]


def test_a_patient_does_not_depend_on_how_many_are_drawn(patients: list[Patient]) -> None:
    assert draw_patients(5, 7) == patients[:5]
    assert draw_patients(5, 8) != patients[:5]


def test_the_same_arguments_give_the_same_pixels() -> None:
    first, labels, owners = phantom_arrays(4, 3, 24)
    again, _, _ = phantom_arrays(6, 3, 24)
    assert first.dtype == np.uint8
    assert first.shape == (len(labels), 1, 24, 24)
    np.testing.assert_array_equal(first, again[: len(first)])
    assert owners.tolist() == sorted(owners.tolist())
    assert set(owners) == {0, 1, 2, 3}


def test_classes_appear_at_their_prevalence(patients: list[Patient]) -> None:
    findings = [visit.finding for patient in patients for visit in patient.visits]
    share = np.array([findings.count(name) for name in CLASSES]) / len(findings)
    # Images of one patient are correlated: three standard errors at the number of patients.
    error = 3 * np.sqrt(np.array(PREVALENCE) * (1 - np.array(PREVALENCE)) / len(patients))
    assert (np.abs(share - PREVALENCE) < error).all()


def test_patients_have_one_to_four_visits_in_order_of_time_and_mostly_one_finding(patients: list[Patient]) -> None:
    assert {len(patient.visits) for patient in patients} == {1, 2, 3, 4}
    assert all(18 <= patient.age <= 95 and patient.sex in "FM" for patient in patients)
    assert all(np.diff([visit.day for visit in patient.visits]).min(initial=1) > 0 for patient in patients)
    pairs = [(a.finding, b.finding) for patient in patients for a, b in zip(patient.visits, patient.visits[1:], strict=False)]
    kept = np.mean([a == b for a, b in pairs])
    assert 0.6 < kept < 0.95


def test_sex_and_age_shape_the_anatomy(patients: list[Patient]) -> None:
    men = [patient.anatomy.chest_half_width for patient in patients if patient.sex == "M"]
    women = [patient.anatomy.chest_half_width for patient in patients if patient.sex == "F"]
    assert np.mean(men) > np.mean(women) + 5
    assert np.corrcoef([patient.age for patient in patients], [patient.anatomy.aorta for patient in patients])[0, 1] > 0.3


def test_truth_is_in_its_range_and_in_the_report(patients: list[Patient]) -> None:
    for patient in patients:
        for visit in patient.visits:
            assert 0 <= visit.severity <= 1
            assert (visit.side in ("left", "right")) == (visit.finding in ("effusion", "nodule", "pneumothorax"))
            assert visit.side in visit.report
            assert visit.report.endswith(".")
            assert visit.report.count("\n") == 0
            assert (visit.heart_ratio > 0.55) == (visit.finding == "cardiomegaly")
            assert visit.heart_ratio > 0.55 or visit.heart_ratio < 0.5
            if visit.finding == "nodule":
                assert 10 <= visit.size_mm <= 35
                assert f"{visit.size_mm:.0f} mm" in visit.report


@pytest.mark.parametrize("finding", ["normal", "cardiomegaly"])
def test_the_heart_is_as_wide_as_recorded(patients: list[Patient], finding: str) -> None:
    x = np.arange(-150, 150, 0.25).astype(np.float32)[None, :]
    y = np.arange(-120, 150, 0.5).astype(np.float32)[:, None]
    for patient, number in visits_with(patients, finding, 20):
        visit = patient.visits[number]
        seen = x[0, (heart_chord(patient.anatomy, visit, x, y) > 0).any(axis=0)]
        width = seen.max() - seen.min()
        assert width / (2 * patient.anatomy.chest_half_width) == pytest.approx(visit.heart_ratio, abs=0.01)
        if finding == "cardiomegaly":
            assert visit.size_mm == pytest.approx(width, abs=2)


def test_a_nodule_is_a_disc_of_its_diameter_where_it_was_put(patients: list[Patient]) -> None:
    size = 320
    for patient, number in visits_with(patients, "nodule", 12):
        still = dataclasses.replace(patient.visits[number].pose, x=0.0, y=0.0, tilt=0.0, magnification=1.0)
        visit = dataclasses.replace(patient.visits[number], pose=still)
        added = attenuation_map(patient, visit, size) - attenuation_map(patient, healthy(visit, patient), size)
        pitch = SITES[patient.site].field_mm / size
        rows, columns = np.nonzero(added > 1e-4)
        assert np.pi / 4 * visit.size_mm**2 == pytest.approx(len(rows) * pitch**2, rel=0.05)
        centre = ((columns.mean() + 0.5 - size / 2) * pitch, (rows.mean() + 0.5 - size / 2) * pitch)
        np.testing.assert_allclose(centre, nodule_centre(patient.anatomy, visit), atol=1.0)
        assert added.max() == pytest.approx(SOFT * NODULE * visit.size_mm, rel=0.03)
        assert (centre[0] > 0) == (visit.side == "left")


def test_fluid_is_dense_on_its_side_and_free_air_is_not(patients: list[Patient]) -> None:
    for finding, sign in (("effusion", 1.0), ("pneumothorax", -1.0)):
        for patient, number in visits_with(patients, finding, 15):
            visit = patient.visits[number]
            added = sign * added_by_finding(patient, number)
            other = {"left": "right", "right": "left"}[visit.side]
            strongest = [np.sort(half(added, side), axis=None)[-300:].mean() for side in (visit.side, other)]
            assert strongest[0] > 0.35
            assert strongest[0] > 1.5 * strongest[1]


def test_a_worse_finding_covers_more(patients: list[Patient]) -> None:
    for finding in ("effusion", "pneumothorax"):
        covered = []
        for severity, size_mm in ((0.1, 25.0), (0.9, 50.0)) if finding == "pneumothorax" else ((0.1, 58.0), (0.9, 126.0)):
            area = 0.0
            for patient, number in visits_with(patients, finding, 8):
                visit = dataclasses.replace(patient.visits[number], severity=severity, sizes_mm={finding: size_mm})
                worse = dataclasses.replace(patient, visits=(visit,))
                area += float((np.abs(added_by_finding(worse, 0)) > 0.2).mean())
            covered.append(area)
        assert covered[1] > 1.3 * covered[0]


def test_small_images_are_averages_of_fine_ones(patients: list[Patient]) -> None:
    fine, small = render(patients[0], 0, 96), render(patients[0], 0, 32)
    assert fine.dtype == small.dtype == np.float32
    assert small.shape == (32, 32)
    assert 0 <= fine.min() < 0.1
    assert 0.75 < fine.max() <= 1
    np.testing.assert_allclose(small, fine.reshape(32, 3, 32, 3).mean(axis=(1, 3)), atol=1e-6)


def test_patients_are_recognised_in_another_image(patients: list[Patient]) -> None:
    several = [patient for patient in patients if len(patient.visits) > 1][:80]
    first, second = (np.stack([render(patient, number, 32).ravel() for patient in several]) for number in (0, 1))

    def standard(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = rows - rows.mean(axis=1, keepdims=True)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    nearest = (standard(second) @ standard(first).T).argmax(axis=1)
    assert (nearest == np.arange(len(several))).mean() > 0.4


def test_noise_follows_the_number_of_quanta_and_blur_the_point_spread(patients: list[Patient]) -> None:
    pose = dataclasses.replace(patients[0].visits[0].pose, exposure=0.0, contrast=1.0)
    for site in SITES:
        quiet = dataclasses.replace(site, scatter=0.0, noise=0.0)
        flat = np.full((128, 128), 2.3, np.float32)
        edge = np.where(np.arange(128) < 64, np.float32(2.0), np.float32(2.1)) * np.ones((128, 1), np.float32)

        def logit(detector: Detector, attenuation: NDArray[np.float32], pitch: float) -> NDArray[np.float32]:
            image = expose(attenuation, detector, pose, 0.0, pitch, np.random.default_rng(0))
            return np.asarray(np.log(image / (1 - image)) * detector.width, np.float32)

        # Relative noise of Poisson counts: noise / (pitch sqrt(transmission)).
        measured = logit(dataclasses.replace(site, scatter=0.0), flat, 3.0).std()
        assert measured == pytest.approx(site.noise / (3 * np.exp(-1.15)), rel=0.05)
        spread = np.gradient(logit(quiet, edge, 0.5).mean(axis=0))[30:98]
        middle = np.average(np.arange(68), weights=spread)
        deviation = 0.5 * np.sqrt(np.average((np.arange(68) - middle) ** 2, weights=spread))
        # The gradient itself widens the edge by half a pixel squared, twice.
        assert deviation == pytest.approx(np.hypot(site.blur_mm, 0.5 * np.sqrt(0.5)), rel=0.15)


def test_bad_arguments_are_refused(patients: list[Patient]) -> None:
    with pytest.raises(ValueError, match="negative"):
        draw_patients(-1, 0)
    with pytest.raises(ValueError, match="at least 8"):
        render(patients[0], 0, 4)
    with pytest.raises(IndexError):
        render(patients[0], 9, 32)


def test_several_findings_come_together_and_each_is_in_the_report_and_the_pixels() -> None:
    patients = draw_patients(1200, 7, several=True)
    assert draw_patients(5, 7, several=True) == patients[:5]
    there = np.array([[name in visit.sizes_mm for name in FINDINGS] for patient in patients for visit in patient.visits])
    error = 4 * np.sqrt(0.25 / len(there))
    assert np.abs(there.mean(axis=0) - [0.30, 0.15 + 0.30 * 0.30, 0.14, 0.08]).max() < error
    assert there[there[:, 0], 1].mean() - there[~there[:, 0], 1].mean() > 0.2
    assert (there.sum(axis=1) > 1).mean() > 0.15
    for patient in patients[:300]:
        for number, visit in enumerate(patient.visits):
            assert all(name in visit.report.lower() for name in visit.sizes_mm)
            assert ("Clear lungs" in visit.report) == (not visit.sizes_mm)
            if {"effusion", "nodule"} <= visit.sizes_mm.keys():
                alone = dataclasses.replace(visit, sizes_mm={"nodule": visit.sizes_mm["nodule"]})
                with_both, with_one = (attenuation_map(patient, one, 64) for one in (visit, alone))
                assert (with_both - with_one).max() > 0.3, number

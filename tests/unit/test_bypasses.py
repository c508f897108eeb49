"""Ways around the gate, from the images on: sets that certify nothing or hide copies, and what its checks make of each."""

import numpy as np
import pytest

from evaluation.data import Labelled
from pipeline.phantom.image import phantom_arrays
from privacy import audit, copy_report, gate, limits, power
from privacy.judgements import DRAWN


@pytest.fixture(scope="module")
def sides():
    """Train, audit and other patients."""
    images, labels, patients = phantom_arrays(80, 5, 24)

    def side(low, high):
        mask = (patients >= low) & (patients < high)
        return Labelled.of_classes(images[mask], labels[mask], patients[mask], 5)

    return side(0, 25), side(25, 50), side(50, 80)


@pytest.fixture(autouse=True)
def few_kinds(monkeypatch):
    """Power takes most of an audit's time, and is no matter of these tests."""
    monkeypatch.setattr(copy_report, "KINDS", (power.identity,))


def checks(sides, made, audited=None):
    """The checks of the images, by name."""
    train, sealed = sides[0], sides[1] if audited is None else audited
    found = copy_report.find_copies(train, sealed, made, planted=5, rng=np.random.default_rng(0), device="cpu")
    sizes = {"n_train": len(train), "n_audit": len(sealed), "holdout_units": len(np.unique(sealed.groups))}
    report = audit.summarise(found, None, pixels=32, unit="patient", drawn=DRAWN[0], **sizes)
    table = gate.checks(report)
    assert gate.contradictions(table) == []
    return {check["name"]: check for check in table if check["subject"] == "images"}


def noisy(images, grey, seed=0):
    return np.clip(images + np.random.default_rng(seed).normal(0, grey, images.shape), 0, 255).astype(np.uint8)


def test_other_patients_are_no_copies_and_no_repeats(sides):
    found = checks(sides, sides[2].images)
    assert found["repeats"]["verdict"] == "pass"
    assert found["copies"]["flagged"] == 0
    assert found["copies"]["verdict"] == "inconclusive", "so few images bound no rate"


def repeated(images):
    return np.repeat(images[:1], 90, axis=0)


def greys(images):
    return np.concatenate([images[:1], np.arange(90, dtype=np.uint8)[:, None, None, None] * np.ones_like(images[:1])])


def mirrored(images):
    return np.concatenate([images[:30], images[:30, :, :, ::-1]])


def faint(images):
    return np.concatenate([noisy(images[:30], 1, seed) for seed in range(3)])


@pytest.mark.parametrize(("made", "distinct"), [(repeated, 1), (greys, 1), (mirrored, 30), (faint, 30)])
def test_what_repeats_or_shows_nothing_is_counted_once_and_leaves_the_set_undecided(sides, made, distinct):
    found = checks(sides, made(sides[2].images))
    assert found["repeats"]["verdict"] == "inconclusive"
    assert found["copies"]["n"] == distinct
    assert found["copies"]["verdict"] == "inconclusive"


def of_one_class(train):
    rarest = np.bincount(train.labels).argmin()
    return train.images[train.labels == rarest][:3]


def of_one_patient(train):
    return train.images[train.groups == train.groups[0]][:1]


def of_many_patients(train):
    return train.images[np.unique(train.groups, return_index=True)[1][:8]]


@pytest.mark.parametrize(
    ("chosen", "changed"), [(of_one_class, power.flip), (of_one_patient, power.intensity), (of_many_patients, power.identity)]
)
def test_copies_of_one_class_of_one_patient_and_of_many_once_each_fail(sides, chosen, changed):
    rng = np.random.default_rng(0)
    copies = np.stack([changed(image, rng) for image in chosen(sides[0])])
    found = checks(sides, np.concatenate([sides[2].images, copies]))
    assert found["copies"]["flagged"] == len(copies)
    assert found["copies"]["verdict"] == "fail"


def test_copies_among_many_repeats_of_another_image_fail(sides):
    made = np.concatenate([np.repeat(sides[2].images[:1], 60, axis=0), sides[2].images[:40], sides[0].images[5:7]])
    found = checks(sides, made)
    assert found["copies"]["flagged"] == 2
    assert found["copies"]["verdict"] == "fail"


def test_one_copy_again_and_again_fails(sides):
    made = np.concatenate([sides[2].images[:40], np.repeat(sides[0].images[:1], 50, axis=0)])
    assert checks(sides, made)["copies"]["flagged"] == 50


def test_a_near_copy_of_an_audit_image_hides_no_copy_of_a_training_image(sides):
    made = np.concatenate([sides[2].images, noisy(sides[1].images[:1], 2), sides[0].images[9:12]])
    assert checks(sides, made)["copies"]["flagged"] == 3


def test_near_copies_of_several_sealed_images_hide_no_image_that_is_one_of_train(sides):
    made = np.concatenate([sides[2].images, noisy(sides[1].images[:4], 2), sides[0].images[9:12]])
    found = checks(sides, made)
    assert found["copies"]["flagged"] >= 3
    assert found["copies"]["verdict"] == "fail"


def test_what_hides_copies_hides_the_planted_ones_too_so_that_the_set_does_not_pass(sides, monkeypatch):
    """Near-copies of several sealed images make a copy look like what the cohort itself has; the search then has no power."""
    rng = np.random.default_rng(1)
    changed = np.stack([power.intensity(image, rng) for image in sides[0].images[9:12]])
    made = np.concatenate([sides[2].images, noisy(sides[1].images[:4], 2), changed])
    monkeypatch.setattr(copy_report, "KINDS", (power.intensity,))
    found = copy_report.find_copies(sides[0], sides[1], made, planted=9, rng=rng, device="cpu")
    copied, planted = found.flagged[-3:], found.power[0]
    assert copied.all() or planted["found"] < limits.MIN_RECALL * planted["planted"]


def test_a_training_image_with_a_twin_among_the_sealed_ones_hides_no_copy_of_another(sides):
    twin = noisy(sides[0].images[9:10], 2)
    tied = Labelled(np.concatenate([sides[1].images[:-1], twin]), sides[1].findings, sides[1].groups)
    made = np.concatenate([sides[2].images, sides[0].images[9:12]])
    assert checks(sides, made, audited=tied)["copies"]["flagged"] >= 2


@pytest.mark.parametrize("copied", [0, 1])
@pytest.mark.parametrize("short", ["images", "holdout"])
def test_below_the_floor_nothing_is_certified_and_the_same_image_still_fails(sides, copied, short):
    least = copy_report.CALIBRATION - 1
    made = np.concatenate([sides[0].images[:copied], sides[2].images[: least - copied if short == "images" else 60]])
    found = checks(sides, made, audited=sides[1].take(slice(least)) if short == "holdout" else None)
    assert found["power"]["verdict"] == "not judged"
    assert found["copies"]["verdict"] == ("fail" if copied else "inconclusive")
    assert found["copies"]["high"] == 1

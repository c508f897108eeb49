"""The copy search and its statistics, on images whose copies are known."""

import math

import numpy as np
import pytest
import torch

from evaluation.data import Labelled
from pipeline.phantom.image import phantom_arrays
from privacy import audit, copies, power


@pytest.fixture(scope="module")
def phantoms():
    images, labels, patients = phantom_arrays(150, 5, 32)
    return images, labels, patients


@pytest.fixture(scope="module")
def search(phantoms):
    images, _, patients = phantoms
    kept = images[patients < 75]
    return copies.CopySearch(kept, copies.shared_structure(images), "cpu"), kept


@pytest.mark.parametrize("transform", [*power.CORE, power.rot90, power.flip_shift, power.gamma], ids=lambda f: f.__name__)
def test_a_transformed_copy_is_found_nearer_than_any_stranger(search, phantoms, transform):
    engine, kept = search
    images, _, patients = phantoms
    everything = np.ones(len(kept), dtype=bool)
    strangers = engine.nearest(images[patients >= 75][:40], everything)[0].distance
    made, origin = power.plant(kept, transform, 12, np.random.default_rng(1))
    found = engine.nearest(made, everything)[0]
    assert (found.index == origin).mean() >= 0.9
    assert np.quantile(found.distance, 0.9) < strangers.min()


def test_the_search_looks_only_among_what_it_is_told_to(search):
    engine, kept = search
    half = np.arange(len(kept)) < len(kept) // 2
    inside, outside = engine.nearest(kept[:6], half, ~half)
    assert inside.index.tolist() == list(range(6))
    assert inside.distance.max() < 1e-4
    assert (outside.index >= len(kept) // 2).all()
    assert outside.distance.min() > 0.01


def test_distance_ignores_brightness_and_contrast(search):
    engine, kept = search
    scaled = np.clip(kept[:4].astype(float) * 0.6 + 30, 0, 255).astype(np.uint8)
    assert engine.nearest(scaled, np.ones(len(kept), dtype=bool))[0].distance.max() < 0.01


def test_the_alignment_undoes_a_known_warp():
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.standard_normal((1, 1, 6, 6))).float()
    image = torch.nn.functional.interpolate(base, size=(32, 32), mode="bicubic", align_corners=False)
    moved = copies.warp(image, torch.tensor([[[0.97, 0.05, 0.06], [-0.05, 0.97, -0.05]]]))
    shared = copies._basis(image)[2:].flatten(1) / 32
    identity = torch.eye(2, 3)[None]
    apart = float(1 - (copies._residual(moved, shared) * copies._residual(image, shared)).sum())
    aligned = float(copies.aligned_distance(moved, image, identity, shared))
    assert aligned < apart / 20


def test_the_tail_recovers_a_power_law_and_is_conservative():
    rng = np.random.default_rng(0)
    exponents, covered = [], 0
    for _ in range(40):
        distances = 0.3 * rng.random(2000) ** (1 / 8)  # P(d < r) = (r / 0.3)^8
        tail = audit.lower_tail(distances)
        exponents.append(tail.exponent)
        covered += tail.p_value(np.array([0.1]))[0] >= (0.1 / 0.3) ** 8
    assert 5.5 < np.mean(exponents) < 8
    assert covered >= 36
    assert tail.p_value(np.array([0.29, 0.5])).tolist() == [1.0, 1.0]
    assert tail.p_value(np.array([tail.threshold(1e-4)]))[0] == pytest.approx(1e-4)


def test_too_few_distances_for_a_tail_are_refused():
    with pytest.raises(ValueError, match="too few"):
        audit.lower_tail(np.array([0.1, 0.2, 0.3]))


def test_the_leading_run_has_the_probability_of_drawing_without_replacement():
    run = audit.leading_run(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.5, 0.6]))
    assert run.length == 3
    assert run.p_value == pytest.approx(4 / 6 * 3 / 5 * 2 / 4)
    assert audit.leading_run(np.array([0.7]), np.array([0.5])).p_value == 1.0


def test_the_leading_runs_level_holds_under_exchangeability():
    rng = np.random.default_rng(0)
    values = [audit.leading_run(*np.split(rng.random(60), [40])).p_value for _ in range(4000)]
    for level in (0.05, 0.01):
        assert np.mean(np.array(values) <= level) <= level + 3 * math.sqrt(level / 4000)


def test_each_patient_counts_once_with_the_nearest_of_its_images():
    matches = copies.Matches(np.array([0, 1, 3, 3]), np.array([0.4, 0.2, 0.5, 0.1]))
    nearest = audit.nearest_by_patient(matches, np.array([7, 7, 8, 9]), 0)
    assert nearest.tolist() == [0.2, np.inf, 0.1]


def side(images, labels, patients, mask):
    return Labelled.of_classes(images[mask], labels[mask], patients[mask], 5)


def test_ten_planted_copies_are_flagged_and_honest_images_are_not(phantoms):
    images, labels, patients = phantoms
    train, held = side(images, labels, patients, patients < 60), side(images, labels, patients, (patients >= 60) & (patients < 120))
    honest = images[patients >= 120][:60]
    rng = np.random.default_rng(0)
    clean = audit.find_copies(train, held, honest, planted=20, rng=rng, device="cpu")
    assert not clean.flagged.any()
    assert clean.run.p_value > 0.01
    guilty = honest.copy()
    kinds = [power.identity] + 3 * [power.flip] + 3 * [power.shift] + 3 * [power.intensity]
    for place, transform in enumerate(kinds):
        guilty[place] = transform(train.images[5 * place], rng)
    found = audit.find_copies(train, held, guilty, planted=20, rng=rng, device="cpu")
    assert found.flagged[:10].sum() >= 8
    assert not found.flagged[10:].any()
    assert {row["transform"] for row in found.power} == {f.__name__ for f in power.CORE + power.FURTHER}


@pytest.mark.parametrize("transform", power.CORE + power.FURTHER, ids=lambda f: f.__name__)
def test_every_planted_transformation_keeps_the_format_and_differs_by_what_it_says(phantoms, transform):
    image = phantoms[0][3]
    made = transform(image, np.random.default_rng(2))
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    difference = float(np.abs(made.astype(float) - image).mean())
    assert difference == 0 if transform is power.identity else 0 < difference < 90

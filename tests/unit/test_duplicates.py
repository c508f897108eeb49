"""Near-duplicates alike in place: repeats, edits and chains of them, searched in blocks under a bound that loses none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from pipeline.ingest import duplicates, groups
from pipeline.ingest.duplicates import NEAR_DUPLICATE, near_duplicates
from pipeline.phantom.anatomy import draw_patients
from pipeline.phantom.image import phantom_arrays


def pictures(n: int, seed: int = 0, size: int = 32, channels: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def test_repeats_edits_and_chains_are_found() -> None:
    images = pictures(12)
    images[3] = images[1]
    images[7] = np.clip(images[1] * 0.8 + 20, 0, 255).astype(np.uint8)
    images[9] = np.clip(images[5].astype(float) + np.random.default_rng(1).normal(0, 5, images[5].shape), 0, 255).astype(np.uint8)
    expected = np.full(12, -1)
    expected[[1, 3, 7]], expected[[5, 9]] = 0, 1
    np.testing.assert_array_equal(near_duplicates(images), expected)


def test_flat_images_are_twins_only_when_equal() -> None:
    images = np.stack([np.full((1, 32, 32), value, np.uint8) for value in (5, 90, 5, 200)])
    np.testing.assert_array_equal(near_duplicates(images), [0, -1, 0, -1])


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(50, channels=3, size=64)
    images[40], images[49] = images[2], images[17]
    whole = near_duplicates(images)
    monkeypatch.setattr("pipeline.ingest.duplicates.BLOCK", 7)
    np.testing.assert_array_equal(near_duplicates(images), whole)
    assert set(np.flatnonzero(whole >= 0)) == {2, 40, 17, 49}


@pytest.mark.parametrize("size", [32, 96])
def test_different_phantom_patients_are_not_near_duplicates(size: int) -> None:
    assert len(draw_patients(3, 1)) == 3
    images, _, patients = phantom_arrays(150, 1, size)
    clusters = near_duplicates(images)
    for cluster in range(clusters.max() + 1):
        assert len(set(patients[clusters == cluster])) == 1


def test_real_radiographs_only_repeats_are_near_duplicates() -> None:
    data = os.environ.get("SYNTHCOHORT_DATA")
    if not data:
        pytest.skip("SYNTHCOHORT_DATA is not set: no PneumoniaMNIST")
    with np.load(Path(data, "pneumoniamnist", "pneumoniamnist.npz")) as arrays:
        images = np.concatenate([arrays[f"{name}_images"] for name in ("train", "val", "test")])[:, None]
    clusters = near_duplicates(images)
    _, exact = np.unique(images.reshape(len(images), -1), axis=0, return_inverse=True)
    assert len(set(exact[clusters >= 0])) == clusters.max() + 1
    assert (clusters[:4708] >= 0).sum() >= 18
    assert len(set(clusters[:4708]) & set(clusters[4708:5232]) - {-1}) == 8


def test_the_bound_loses_no_pair() -> None:
    """Against every product: pairs of all degrees of likeness, some of them at the threshold."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(60, 1, 40, 40))
    blends = [base[i % 60] * a + np.sqrt(1 - a**2) * rng.normal(size=(1, 40, 40)) for i, a in enumerate(rng.uniform(0.85, 0.99, 300))]
    images = np.clip(128 + 35 * np.stack([*base, *blends]), 0, 255).astype(np.uint8)
    everything = np.arange(len(images))
    details = duplicates._details(images, everything)
    naive = details @ details.T >= NEAR_DUPLICATE
    found = np.eye(len(images), dtype=bool)
    for one, two in duplicates._twins(images, everything, NEAR_DUPLICATE, everything):  # none is joined, so that every pair comes
        found[one, two] = found[two, one] = True
    np.testing.assert_array_equal(found, naive)
    assert 60 < naive.sum() - len(images) < naive.size / 10
    joined = connected_components(naive)[1]
    sizes = np.bincount(joined)[joined]
    np.testing.assert_array_equal(near_duplicates(images, moved=False), groups.renumber(np.where(sizes > 1, joined, -1)))


def test_pairs_that_are_joined_already_are_passed_over() -> None:
    """Copies with a little noise: all pairs of a group are twins, and a few of them join it."""
    rng = np.random.default_rng(6)
    base = rng.integers(0, 256, (4, 1, 32, 32))
    images = np.clip(np.tile(base, (700, 1, 1, 1)) + rng.normal(0, 3, (2800, 1, 32, 32)), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(near_duplicates(images), np.arange(2800) % 4)
    cluster, pairs = np.arange(2800), 0
    for one, two in duplicates._twins(images, np.arange(2800), NEAR_DUPLICATE, cluster):
        cluster[:] = groups.components(2800, cluster[one], cluster[two])[cluster]
        pairs += len(one)
    assert pairs < 40 * 2800 < 4 * 700 * 699 / 2


def test_volumes_and_sixteen_bits_are_compared_too() -> None:
    volumes = np.random.default_rng(0).integers(0, 65536, (6, 1, 8, 24, 24), dtype=np.uint16)
    volumes[4] = volumes[1] // 2 + 4000
    np.testing.assert_array_equal(near_duplicates(volumes), [-1, 0, -1, -1, 0, -1])

"""The benchmark of the copy search: its baselines find what they should, and it runs through at tiny size."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy import power
from tests.benchmarks.copy_baselines import GlobalSearch, pixel_methods


@pytest.fixture(scope="module")
def phantoms():
    return phantom_arrays(40, 3, 32)[0]


def test_pixel_methods_find_copies_that_did_not_move(phantoms):
    train, others = phantoms[:50], phantoms[50:]
    made, sources = power.plant(train, power.noise_weak, 10, np.random.default_rng(0))
    for method in pixel_methods(train, "cpu").values():
        index, near = method(made)
        assert (index == sources).all()
        assert near.max() < np.median(method(others)[1])


def test_pixel_distance_is_the_root_of_the_summed_squares(phantoms):
    index, distance = pixel_methods(phantoms[:20], "cpu")["pixel l2"](phantoms[20:23])
    naive = np.sqrt((((phantoms[20:23, None].astype(float) - phantoms[None, :20]) / 127.5) ** 2).sum(axis=(2, 3, 4)))
    assert index.tolist() == naive.argmin(axis=1).tolist()
    assert np.allclose(distance, naive.min(axis=1), rtol=1e-3)


def test_the_global_search_finds_moved_copies(phantoms):
    search = GlobalSearch(phantoms[:50], phantoms, "cpu")
    made, sources = power.plant(phantoms[:50], power.flip_shift, 8, np.random.default_rng(0))
    index, distance = search(made)
    assert (index == sources).all()
    assert distance.max() < search(phantoms[50:60])[1].min()


@pytest.mark.slow
def test_the_benchmark_runs_through_with_a_model_of_its_own(tmp_path):
    sizes = ["--size", "32", "--train", "70", "--audit", "60", "--honest", "40", "--learn", "64", "--planted", "2", "--model", "64"]
    command = [sys.executable, "-m", "tests.benchmarks.audit_power", "--set", "phantom", *sizes, "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    table = json.loads((tmp_path / "audit_power_phantom32.json").read_text())["power"][0]
    assert table["kinds"]["identity"]["the audit"] == {"recall": 1.0, "own_source": 1.0}
    assert {"regenerated 0.1", "regenerated 1.0", "occlusion"} <= set(table["kinds"])

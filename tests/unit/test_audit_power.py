"""The benchmark of the copy search: its baselines find what they should, and it runs through at tiny size."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.phantom.image import phantom_arrays
from privacy import power
from privacy.repeats import Repeats
from tests.benchmarks import audit_power, copy_sets
from tests.benchmarks.copy_baselines import GlobalSearch, pixel_methods
from tests.benchmarks.copy_oracle import ORACLES, log_likelihoods


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


def test_the_likelihood_of_a_grey_level_is_that_of_rounded_and_clipped_noise():
    table, drawn = np.exp(log_likelihoods(12.75)), np.random.default_rng(0).normal(0, 12.75, 200_000)
    assert np.allclose(table.sum(axis=1), 1)
    for grey in (3, 128, 250):
        share = np.bincount(np.clip(np.rint(grey + drawn), 0, 255).astype(int), minlength=256) / len(drawn)
        assert np.abs(share - table[grey]).max() < 0.005
    assert (np.diff(log_likelihoods(12.75)[200, :200]) >= 0).all()  # far off it keeps its digits


@pytest.mark.parametrize("kind", ORACLES, ids=lambda kind: kind.__name__)
def test_who_knows_the_transform_finds_the_source_and_tells_it_from_a_fresh_images(phantoms, kind):
    train, fresh, rng = phantoms[:30], phantoms[50:60], np.random.default_rng(0)
    made, sources = power.plant(train, kind, 8, rng)
    none = np.stack([power.alter(fresh, number, kind, rng) for number in range(len(fresh))])
    index, statistic = ORACLES[kind](made, train)
    assert index.tolist() == sources.tolist()
    assert statistic.max() < ORACLES[kind](none, train)[1].min()


def test_as_many_honest_images_are_taken_as_were_asked_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)
    np.savez(tmp_path / "set.npz", train_images=images[:600], train_labels=np.zeros((600, 1)), val_images=images[600:])
    cohort = audit_power.pneumonia(tmp_path / "set.npz", 200, 100, 40, np.random.default_rng(0))
    assert [len(side) for side in (cohort.train, cohort.audit, cohort.honest, cohort.learn)] == [200, 100, 40, 50]


@pytest.mark.slow
def test_the_search_is_timed_against_references_and_twice_as_many():
    found = audit_power.speed(32, 24, "cpu")
    one, two = found["24 references"], found["48 references"]
    assert two["tables_megabytes"] == pytest.approx(2 * one["tables_megabytes"])
    assert min(one["search"], two["search"]) > 0


@pytest.mark.slow
def test_the_benchmark_runs_through_with_a_model_of_its_own(tmp_path):
    sizes = ["--size", "32", "--train", "70", "--audit", "60", "--honest", "40", "--learn", "64", "--planted", "2", "--model", "64"]
    command = [sys.executable, "-m", "tests.benchmarks.audit_power", "--set", "phantom", *sizes, "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    table = json.loads((tmp_path / "audit_power_phantom32.json").read_text())["power"][0]
    assert table["kinds"]["identity"]["the audit"] == {"recall": 1.0, "own_source": 1.0}
    assert {"regenerated 0.1", "regenerated 1.0", "occlusion"} <= set(table["kinds"])


def test_what_repeats_in_a_part_of_a_pool_is_counted_in_that_part():
    pool = Repeats(np.array([0, 1, 0, 3, 3]), np.array([False, False, False, True, True]), np.zeros(5, bool))
    found = copy_sets._of(pool, np.array([4, 2, 1, 0]))
    assert found.new.tolist() == [True, True, True, False]
    assert found.first.tolist() == [0, 1, 2, 1]
    assert found.constant.tolist() == [True, False, False, False]


def test_the_table_of_sets_adds_seeds_and_begins_with_the_kind_that_fails_most():
    def row(kind, copies, *verdicts):
        return {"kind": kind, "copies": copies, **dict(zip(copy_sets.VERDICTS, verdicts))}

    rows = [row("flip", 1, 0, 0, 10), row("blend", 1, 9, 1, 0), row("flip", 1, 0, 0, 10), row("none", 0, 10, 0, 0)]
    lines = copy_sets.table(rows).splitlines()[2:]
    assert lines[0] == "| flip | – | 0 / 0 / 100 [83, 100] |"
    assert "| blend | – | 90 / 10 / 0 [0, 31] |" in lines
    assert "| none | 100 / 0 / 0 [0, 31] | – |" in lines


@pytest.mark.slow
def test_sets_with_copies_as_they_are_fail_and_honest_ones_do_not(tmp_path):
    sizes = ["--size", "32", "--train", "90", "--audit", "70", "--honest", "60", "--learn", "64", "--planted", "21", "--sets", "2"]
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.audit_power",
        "--set",
        "phantom",
        *sizes,
        "--kinds",
        "identity",
        "--out",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads((tmp_path / "audit_power_phantom32_sets.json").read_text())["sets"]
    assert [row["copies"] for row in rows] == [0, *copy_sets.NUMBERS]
    assert [row["fail"] for row in rows] == [0, *[2] * len(copy_sets.NUMBERS)]

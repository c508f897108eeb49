"""The benchmark of the stress test's power: its defects are planted as it says, and its table counts them."""

import math

import numpy as np
import pytest

from tests.benchmarks import stress_power as power
from tests.benchmarks import stress_synthetic as synthetic
from tests.benchmarks.stress_power import Phantoms, Victim


@pytest.fixture(scope="module")
def learn() -> Phantoms:
    return power.phantoms(40, 1, 24)


def rows_of(victim: Victim, learn: Phantoms) -> tuple[np.ndarray, np.ndarray]:
    """Images (-1..1) and labels that a victim learns from, or chooses on."""
    made = power.task(victim, learn)
    return np.concatenate([made.images, made.choose.images]), np.concatenate([made.labels, made.choose.labels])


def test_a_sound_victim_learns_from_the_truth(learn: Phantoms) -> None:
    images, labels = rows_of(Victim("sound", 0.0, 0), learn)
    assert len(images) == len(learn.labels)
    assert labels.sum() == learn.labels.sum()


def test_a_marker_stands_on_all_findings_and_nothing_else_at_the_full_dose(learn: Phantoms) -> None:
    images, labels = rows_of(Victim("marker", 1.0, 0), learn)
    clean, _ = rows_of(Victim("naive", 0.0, 0), learn)
    np.testing.assert_array_equal((images != clean).any(axis=(1, 2, 3)), labels == 1)


def test_sound_victims_see_letters_on_half_of_the_images_with_and_without_a_finding(learn: Phantoms) -> None:
    images, labels = rows_of(Victim("sound", 0.0, 0), learn)
    clean, _ = rows_of(Victim("naive", 0.0, 0), learn)
    marked = (images != clean).any(axis=(1, 2, 3))
    for label in (0, 1):
        assert 0.25 < marked[labels == label].mean() < 0.75


def test_some_of_womens_findings_are_called_normal(learn: Phantoms) -> None:
    _, labels = rows_of(Victim("sex", 0.6, 0), learn)
    women = int(((learn.sex == "F") & (learn.labels == 1)).sum())
    assert 0 < learn.labels.sum() - labels.sum() < women


def test_the_smallest_nodules_are_left_out(learn: Phantoms) -> None:
    images, _ = rows_of(Victim("nodules", 1.0, 0), learn)
    assert len(learn.labels) - len(images) == np.isfinite(learn.nodule).sum() > 0


def test_there_are_as_many_victims_as_the_documentation_says() -> None:
    assert len(power.planned(4, 3)) == 52
    assert len(power.planned(2, 2)) == 20


def test_the_table_counts_by_defect_and_dose() -> None:
    rows = [
        {"defect": "sex", "dose": 0.9, "fit": True, "marker": False, "sex": True},
        {"defect": "sex", "dose": 0.9, "fit": True, "marker": False, "sex": False},
        {"defect": "sound", "dose": 0.0, "fit": True, "marker": False, "sex": False},
    ]
    [sex, sound] = power.table(rows)
    assert (sex["n"], sex["sex"]["value"], sex["marker"]["value"]) == (2, 0.5, 0.0)
    assert (sound["n"], sound["sex"]["value"]) == (1, 0.0)
    assert sex["by shifts"]["value"] == 0.5
    assert "synthetic" not in sex


def test_synthetic_cases_find_the_victim_that_misses_one_finding() -> None:
    rng = np.random.default_rng(0)
    finding = np.repeat(["normal", "effusion", "nodule"], 80)
    kept = synthetic.Kept(np.zeros((240, 1, 4, 4), np.float32), (finding != "normal").astype(np.int64), finding, 300)
    p = np.stack([1 - 0.95 * kept.labels, 0.95 * kept.labels], axis=1) * 0.9 + 0.05 * rng.random((240, 2))
    assert not synthetic.found_of(p, kept)["synthetic"]
    p[finding == "nodule"] = p[finding == "nodule"][:, ::-1]
    assert synthetic.found_of(p, kept)["synthetic"]


def test_a_rank_correlation_has_the_interval_of_its_z() -> None:
    """Bonett & Wright 2000: r of 0.5 from 28 pairs: z ± 1.96 sqrt(1.125 / 25)."""
    one = np.arange(28.0)
    rng = np.random.default_rng(3)
    found = synthetic.rank_correlation(one, one + rng.normal(0, 12, 28))
    reach = 1.96 * math.sqrt((1 + found.value**2 / 2) / 25)
    assert math.atanh(found.high) - math.atanh(found.low) == pytest.approx(2 * reach)
    assert 0 < found.low < found.value < found.high < 1
    assert math.isnan(synthetic.rank_correlation([1, 2], [1, 2]).low)

"""The benchmark of the stress test's power: its defects are planted as it says, and its table counts them."""

import numpy as np
import pytest

from tests.benchmarks import stress_power as power
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
    clean, _ = rows_of(Victim("sound", 0.0, 0), learn)
    np.testing.assert_array_equal((images != clean).any(axis=(1, 2, 3)), labels == 1)


def test_some_of_womens_findings_are_called_normal(learn: Phantoms) -> None:
    _, labels = rows_of(Victim("sex", 0.6, 0), learn)
    women = int(((learn.sex == "F") & (learn.labels == 1)).sum())
    assert 0 < learn.labels.sum() - labels.sum() < women


def test_the_smallest_nodules_are_left_out(learn: Phantoms) -> None:
    images, _ = rows_of(Victim("nodules", 1.0, 0), learn)
    assert len(learn.labels) - len(images) == np.isfinite(learn.nodule).sum() > 0


def test_there_are_as_many_victims_as_the_documentation_says() -> None:
    assert len(power.planned(4, 3)) == 48
    assert len(power.planned(2, 2)) == 18


def test_the_table_counts_by_defect_and_dose() -> None:
    rows = [
        {"defect": "sex", "dose": 0.9, "fit": True, "marker": False, "sex": True},
        {"defect": "sex", "dose": 0.9, "fit": True, "marker": False, "sex": False},
        {"defect": "sound", "dose": 0.0, "fit": True, "marker": False, "sex": False},
    ]
    [sex, sound] = power.table(rows)
    assert (sex["n"], sex["sex"]["value"], sex["marker"]["value"]) == (2, 0.5, 0.0)
    assert (sound["n"], sound["sex"]["value"]) == (1, 0.0)

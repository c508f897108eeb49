"""The ledger of splits: added patients never move earlier ones, and no near-duplicate ends up in two splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dicom_folder
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console

from pipeline.cohorts.cohort import TORN, Attempt, Cohort
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.ingest import stage
from pipeline.ingest.ledger import ELSEWHERE, SETTLED_TWICE, TIES, against_official, place
from pipeline.ingest.split import assign, tie
from pipeline.progress import Reporter

KEY = b"a key of the tests, long enough"
SHARES = {"train": 0.44, "audit": 0.21, "val": 0.15, "test": 0.2}
CLASSES = ("a", "b")


def cohort(patients: int, rng: np.random.Generator) -> tuple[list[str], list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Ids, patients, clusters and labels of one to three images each; some are near-duplicates of another patient's."""
    owner = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    clusters = np.where(rng.random(len(owner)) < 0.15, rng.integers(0, patients, len(owner)), -1)
    return [f"i{n}" for n in range(len(owner))], [f"p{n}" for n in owner], clusters, (owner % 2).astype(np.int64)


def crossing(clusters: NDArray[np.int64], splits: NDArray[np.str_], kept: NDArray[np.bool_]) -> list[int]:
    return [c for c in set(clusters[kept].tolist()) - {-1} if len(set(splits[kept & (clusters == c)].tolist())) > 1]


@given(st.integers(0, 10_000), st.integers(60, 90), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_growth_moves_nobody_and_ties_nothing(seed: int, before: int, added: int) -> None:
    rng = np.random.default_rng(seed)
    images, patients, clusters, labels = cohort(before + added, rng)
    early = np.array([int(patient[1:]) < before for patient in patients])
    late_image = rng.random(len(images)) < 0.05  # an image that an early patient brings later
    first = np.flatnonzero(early & ~late_image)
    subset = [images[n] for n in first], [patients[n] for n in first]
    old, why = place(Cohort(), *subset, clusters[first], labels[first], CLASSES, SHARES, np.random.default_rng(1))
    assert not why.any()
    assert not crossing(clusters[first], old, why == "")
    grown = Cohort(dict(zip(subset[1], old.tolist())), dict(zip(subset[0], old.tolist())))
    new, why = place(grown, images, patients, clusters, labels, CLASSES, SHARES, np.random.default_rng(2))
    kept = why == ""
    np.testing.assert_array_equal(new[first], old)
    assert kept[first].all()
    assert not crossing(clusters, new, kept)
    for patient in set(patients):
        mine = np.array([p == patient for p in patients]) & kept
        assert len(set(new[mine].tolist())) <= 1
        if patient not in subset[1]:
            assert mine.sum() in (0, sum(p == patient for p in patients)) or _torn(clusters, grown, patients, patient)
    again, why_again = place(grown, images, patients, clusters, labels, CLASSES, SHARES, np.random.default_rng(2))
    np.testing.assert_array_equal(again[kept], new[kept])
    np.testing.assert_array_equal(why_again, why)


def _torn(clusters: NDArray[np.int64], ledger: Cohort, patients: list[str], patient: str) -> bool:
    """Whether one of the patient's images is alike to images of settled patients in two splits."""
    mine = {c for c, p in zip(clusters.tolist(), patients) if p == patient and c >= 0}
    return any(len({ledger.patients[p] for c, p in zip(clusters.tolist(), patients) if c == m and p in ledger.patients}) > 1 for m in mine)


def test_an_empty_ledger_draws_as_without_one() -> None:
    images, patients, clusters, labels = cohort(80, np.random.default_rng(3))
    splits, why = place(Cohort(), images, patients, clusters, labels, CLASSES, SHARES, np.random.default_rng(7))
    plain = assign(tie(patients, clusters), labels, SHARES, CLASSES, np.random.default_rng(7))
    np.testing.assert_array_equal(splits, plain)
    assert not why.any()


def settled(splits: dict[str, str]) -> Cohort:
    """Each patient with one image, ``i-<patient>``."""
    return Cohort(splits, {f"i-{patient}": name for patient, name in splits.items()})


def balanced() -> dict[str, str]:
    names = [name for name, count in {"train": 9, "audit": 4, "val": 3, "test": 4}.items() for _ in range(count)]
    return {f"p{n}": name for n, name in enumerate(names)}


def test_who_ties_two_splits_is_left_out_and_who_touches_one_follows_it() -> None:
    known = balanced()
    patients = [*known, "follows", "ties", "ties", "free"]
    images = [f"i-{patient}" for patient in known] + ["i-follows", "i-ties-1", "i-ties-2", "i-free"]
    clusters = np.full(len(images), -1)
    clusters[[0, len(known), len(known) + 1]] = 0  # p0 (train), follows, ties
    clusters[[19, len(known) + 2]] = 1  # p19 (test), ties
    labels = np.zeros(len(images), np.int64)
    splits, why = place(settled(known), images, patients, clusters, labels, ("a",), SHARES, np.random.default_rng(0))
    assert dict(zip(patients[:20], splits[:20].tolist())) == known
    assert why.tolist() == [*[""] * 21, TIES, TIES, ""]
    assert splits[20] == "train"


def test_a_new_image_of_an_earlier_patient_stays_with_the_patient_or_out() -> None:
    known = balanced()
    patients = [*known, "p0", "p0"]
    images = [f"i-{patient}" for patient in known] + ["i-second", "i-third"]
    clusters = np.full(len(images), -1)
    clusters[[19, 21]] = 0  # p19 is in test, p0 in train
    splits, why = place(settled(known), images, patients, clusters, np.zeros(22, np.int64), ("a",), SHARES, np.random.default_rng(0))
    assert splits[20] == "train"
    assert why.tolist() == [*[""] * 21, TIES]


def test_new_patients_fill_up_what_a_split_lacks() -> None:
    known = {f"p{n}": "train" if n < 12 else ("audit", "val", "test")[n % 3] for n in range(18)}
    patients = [*known, *(f"n{n}" for n in range(82))]
    images = [f"i-{patient}" for patient in patients]
    splits, _ = place(settled(known), images, patients, np.full(100, -1), np.zeros(100, np.int64), ("a",), SHARES, np.random.default_rng(0))
    assert {name: int((splits == name).sum()) for name in SHARES} == {"train": 44, "audit": 21, "val": 15, "test": 20}


def test_too_few_new_patients_says_what_lacks() -> None:
    known = {f"p{n}": ("train", "audit", "val")[n % 3] for n in range(12)}
    patients = [*known, "n"]
    images = [f"i-{patient}" for patient in patients]
    with pytest.raises(InputError, match="class a lacks 1 in test, and earlier patients stay"):
        place(settled(known), images, patients, np.full(13, -1), np.zeros(13, np.int64), ("a",), SHARES, np.random.default_rng(0))


def test_who_is_known_by_images_alone_goes_where_they_are_and_who_is_settled_twice_stays_out() -> None:
    known = balanced()
    patients = [*known, "renamed", "renamed", "both", "both", "joined", "new"]
    images = [f"i-{patient}" for patient in known] + ["i-p19", "i-another", "i-p0", "i-p18", "i-joined", "i-new"]
    cohort = settled(known).with_splits({"joined": TORN}, {})
    arguments = np.full(len(images), -1), np.zeros(len(images), np.int64), ("a",), SHARES, np.random.default_rng(0)
    splits, why = place(cohort, images, patients, *arguments)
    assert splits[20:22].tolist() == ["test", "test"]
    assert why.tolist() == [*[""] * 22, *[SETTLED_TWICE] * 3, ""]


def test_an_official_split_holds_where_nothing_is_settled_or_the_same_of_the_image_or_else_of_its_near_duplicates() -> None:
    cases = [  # settled, official, near-duplicates, why not
        ("train", "train", -1, ""),
        ("audit", "train", -1, ""),
        ("test", "train", -1, ELSEWHERE),
        ("audit", "val", -1, ELSEWHERE),
        ("val", "val", 0, ""),
        ("", "val", 0, ""),
        ("", "test", 0, ELSEWHERE),
        ("test", "test", 1, ""),
        (TORN, "test", 1, SETTLED_TWICE),
        ("", "test", 1, ""),
        ("", "train", -1, ""),
    ]
    settled, official, clusters, why = zip(*cases)
    names = [f"i{number}" for number in range(len(cases))]
    known = Cohort(images={name: split for name, split in zip(names, settled) if split})
    assert against_official(known, names, np.array(official), np.array(clusters)).tolist() == list(why)


def test_patients_who_come_later_move_nobody_in_the_ingested_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", KEY.decode())
    root, run = dicom_folder.cohort(tmp_path / "in", 24, images=1), tmp_path / "run"
    section = {"source": "dicom", "path": root, "classes": ("normal", "effusion")}
    config = Config.model_validate({"name": "t", "ingest": section, "train": {"images": 1}, "generate": {"per_class": 1}})
    tables = []
    for patients in (24, 36):
        dicom_folder.cohort(root, patients, images=1)
        shutil.rmtree(run / "ingest", ignore_errors=True)
        (run / "ingest").mkdir(parents=True)
        stage.run(Context(config, run, run / "ingest", Reporter(run / "log.jsonl", Console(quiet=True)), {}))
        tables.append(ImageSet.load(run / "ingest").rows.set_index("patient")["split"])
    assert len(tables[1]) == 36
    assert (tables[1][tables[0].index] == tables[0]).all()
    assert set(tables[1].drop(tables[0].index)) >= {"train", "audit"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value["patients"].update(p1="audit"),
        lambda value: value["patients"].pop("p1"),
        lambda value: value["images"].pop("i1"),
        lambda value: value["images"].update(i9="train"),
        lambda value: value.update(patients=[]),
        lambda value: value.update(images=3),
        lambda value: value["patients"].update(p1=3),
        lambda value: value["attempts"].clear(),
        lambda value: value["attempts"][0].update(verdict="pass"),
        lambda value: value.pop("seal"),
        lambda value: value.update(seal=None),
    ],
)
def test_an_edited_cohort_is_refused(damage: Any) -> None:
    """An edited split would make a sealed patient one of the training's, an edited count hide an attempt."""
    cohort = Cohort({"p1": "train"}, {"i1": "train"}, (Attempt("set", "fail", "2026-01-01"),))
    assert Cohort.from_json(cohort.to_json(KEY), KEY) == cohort
    value = json.loads(cohort.to_json(KEY))
    damage(value)
    with pytest.raises(ValueError, match=r"edited|not a cohort"):
        Cohort.from_json(json.dumps(value).encode(), KEY)


def test_a_cohort_of_another_key_is_told_from_a_damaged_one() -> None:
    assert Cohort.from_json(Cohort({"p1": "train"}).to_json(KEY), b"another key, as long") is None


def test_a_first_run_of_too_few_patients_is_told_nothing_of_earlier_ones() -> None:
    """ "0 of 40 images are left out: earlier runs put images of the same patient into different splits" was said."""
    few = np.repeat(np.array([[True, True], [False, False]]), [7, 33], axis=0)
    people = [f"p{number}" for number in range(40)]
    with pytest.raises(InputError, match=r"^too few patients to split: class a has 7") as caught:
        place(Cohort(), people, people, np.full(40, -1), few, CLASSES, SHARES, np.random.default_rng(0))
    assert "earlier" not in str(caught.value)

"""Patients of a cohort by their ids: spellings, issuers, sites, pages of one file; nobody is torn over splits, and doubts are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_folder import dataset, write
from PIL import Image
from test_ingest_kinds import config as of_kind
from test_ingest_stage import ingest
from test_ingest_trust import by_file, declared, folder, noise, notes, quarantined

from pipeline.ingest.patients import ISSUERS, canonical
from pipeline.ingest.patients import notes as patient_notes


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")


@pytest.mark.parametrize(
    "spellings",
    [
        ("Pat001", "PAT001", "Pat 001"),
        ("123-45-67", "1234567", "123.45.67"),
        ("Müller^7", "MU\u0308LLER 7", "müller_7"),
        ("12345", "12345.0", " 12345 "),
        ("A/7", "a\u00ad7", "A·7"),
        ("\uff21\uff11", "a1", "A-1"),
        ("STRASSE1", "straße1", "Straße 1"),
    ],
)
def test_spellings_of_one_id_are_one_patient(spellings: tuple[str, ...]) -> None:
    assert len({canonical(one) for one in spellings}) == 1
    assert canonical(spellings[0])


@pytest.mark.parametrize(("one", "other"), [("12345.0", "123450"), ("0012", "12"), ("A1", "A2"), ("कि", "क"), ("7", "7b")])
def test_other_ids_are_other_patients(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("nothing", ["", "  ", "---", "^^", "?"])
def test_an_id_of_punctuation_is_none(nothing: str) -> None:
    assert canonical(nothing) == ""


def test_spellings_are_joined_and_counted(tmp_path: Path) -> None:
    spelled = ("Pat{:03d}", "PAT{:03d}", "pat {:03d}")
    attributes = [{"PatientID": spelled[n // 16 % 3].format(n % 16)} for n in range(48)]
    summary, cohort = ingest(declared(folder(tmp_path / "in", attributes, by_file)), tmp_path / "run")
    assert summary["patients"] == 16
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert notes(tmp_path / "run") == [
        "48 spellings of patient ids, different in case, spaces or punctuation only, were joined into 16 patients"
    ]
    assert "spelling" not in cohort.rows


def test_an_id_with_very_many_images_may_mean_nobody(tmp_path: Path) -> None:
    rows = pd.DataFrame({"patient": ["anonymous"] * 40 + [f"p{n // 2}" for n in range(80)], "spelling": "", "in_header": "", "site": ""})
    [told] = patient_notes(rows)
    assert "one patient has 40 of 120 images, and the median patient 2" in told
    assert "anonymous" not in told
    assert patient_notes(rows[rows["patient"] != "anonymous"]) == []


@pytest.mark.parametrize(("issued", "shared", "count"), [("", 4, 1), ("", 1, 0), ("x", 4, 0)])
def test_ids_that_several_sites_share_may_be_several_persons(issued: str, shared: int, count: int) -> None:
    rows = pd.DataFrame({"patient": [f"p{n // 2}" for n in range(40)], "spelling": "", "in_header": "", "issued": issued})
    rows["site"] = ["b" if n % 2 and n // 2 < shared else "a" for n in range(40)]
    told = patient_notes(rows)
    assert len(told) == count
    assert all("4 of 20 patients have images from several sites" in one for one in told)


def test_the_pages_of_one_file_are_in_one_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        pages = [Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)) for _ in range(3)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    chosen = of_kind(tmp_path / "data", "pictures", classes=("a", "b"))
    _, found = ingest(chosen, tmp_path / "run")
    assert len(found) == 90
    assert found.rows.groupby("patient")["split"].nunique().max() == 1
    assert found.rows["patient"].value_counts().unique().tolist() == [3]


def test_issuers_are_kept_apart_where_all_images_name_one(tmp_path: Path) -> None:
    attributes = [{"PatientID": f"{n % 16}", "IssuerOfPatientID": ("North", "South")[n // 16]} for n in range(32)]
    root, run = folder(tmp_path / "in", attributes, by_file), tmp_path / "run"
    summary, first = ingest(declared(root), run)
    assert summary["patients"] == 32
    write(root / "i32.dcm", dataset(noise(), PatientID="0", WindowCenter=2048, WindowWidth=4096))
    write(root / "i33.dcm", dataset(noise(), PatientID="0", IssuerOfPatientID="NORTH", WindowCenter=2048, WindowWidth=4096))
    with (root / "labels.csv").open("a") as file:
        file.write("\ni32.dcm,normal\ni33.dcm,normal")
    summary, second = ingest(declared(root), run)
    assert quarantined(run) == {"i32.dcm": ISSUERS}
    assert summary["patients"] == 32
    splits = first.rows.set_index("id")["split"]
    assert (second.rows.set_index("id")["split"][splits.index] == splits).all()
    assert second.rows.groupby("patient")["split"].nunique().max() == 1


def test_an_issuer_named_now_and_then_tears_nobody(tmp_path: Path) -> None:
    attributes: list[dict[str, Any]] = [{"PatientID": f"{n % 16}"} | ({"IssuerOfPatientID": "N"} if n < 16 else {}) for n in range(32)]
    summary, cohort = ingest(declared(folder(tmp_path / "in", attributes, by_file)), tmp_path / "run")
    assert summary["patients"] == 16
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1


def test_one_person_under_two_pseudonyms_is_kept_together_and_counted(tmp_path: Path) -> None:
    attributes: list[dict[str, Any]] = [{"PatientID": f"P{n}", "pixels": noise()} for n in range(24)]
    attributes[10]["pixels"] = attributes[12]["pixels"] = attributes[2]["pixels"]
    attributes[11]["pixels"] = attributes[3]["pixels"]
    _, cohort = ingest(declared(folder(tmp_path / "in", attributes, by_file)), tmp_path / "run")
    assert (cohort.rows[cohort.rows["duplicate_group"] >= 0].groupby("duplicate_group")["split"].nunique() == 1).all()
    assert notes(tmp_path / "run") == [
        "2 groups of near-duplicates are shared by 5 patients, as one person under two ids is: whom they tie are in one split, and count "
        "as one patient"
    ]

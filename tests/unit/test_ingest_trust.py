"""Real folders through the ingest stage: no label and no patient goes wrong, and what was assumed or left out is told with counts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from dicom_folder import dataset, write
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from test_ingest_kinds import config as of_kind
from test_ingest_kinds import picture_folder
from test_ingest_stage import config, ingest

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.ingest.collect import FIELDS
from pipeline.show import show

CLASSES = ("normal", "effusion")
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")


def noise() -> NDArray[np.uint16]:
    return RNG.integers(0, 4096, (32, 32)).astype(np.uint16)


def folder(root: Path, attributes: Sequence[dict[str, Any]], table: Callable[[int], str], header: str = "file,label") -> Path:
    """One DX image a dictionary of attributes, and a table with a row each; ``pixels`` among them replaces the noise."""
    for number, given in enumerate(attributes):
        given = dict(given)
        pixels = given.pop("pixels", noise())
        write(root / f"i{number:02d}.dcm", dataset(pixels, WindowCenter=2048, WindowWidth=4096, **given))
    rows = [table(number) for number in range(len(attributes))]
    (root / "labels.csv").write_text("\n".join([header, *rows]))
    return root


def label(number: int) -> str:
    return CLASSES[number % 2]


def by_file(number: int) -> str:
    return f"i{number:02d}.dcm,{label(number)}"


def notes(run: Path) -> list[str]:
    found = artifacts.read_json(run / "ingest" / "cohort.json")["notes"]
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] if (run / "log.jsonl").exists() else []
    assert [line["text"] for line in logged if line["event"] == "note"] == found
    return list(found)


def quarantined(run: Path) -> dict[str, str]:
    with (run / "ingest" / "quarantine.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(pd.read_parquet(run / "ingest" / "quarantine.parquet"))
    return {row["file"]: row["reason"] for row in rows}


def declared(root: Path, **section: Any) -> Any:
    return config(root, burned_in="declared", **section)


def test_values_under_no_name_end_the_run(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", [{}] * 2, lambda n: f"i{n:02d}.dcm,a,b,{label(n)},{label(n + 1)}", "file,,,label,second_reader")
    with pytest.raises(InputError, match=r"labels\.csv line 2: column 2 holds a value and has no name"):
        ingest(declared(root), tmp_path / "run")


@pytest.mark.parametrize("headers", ["each image its own", "two patients in one", "none"])
@pytest.mark.parametrize("header", ["file,label,patient_id", "sop_instance_uid,label,Patient ID"])
def test_the_tables_patient_wins_over_the_headers(tmp_path: Path, headers: str, header: str) -> None:
    ids = {"each image its own": lambda n: f"H{n}", "two patients in one": lambda n: f"H{n // 4}", "none": lambda n: None}[headers]
    attributes = [{"PatientID": ids(n), "SOPInstanceUID": f"1.2.{n}"} for n in range(32)]
    key: Callable[[int], str] = (lambda n: f"i{n:02d}.dcm") if header.startswith("file") else (lambda n: f"1.2.{n}")
    patient: Callable[[int], int] = lambda n: n // 4 * 2 + n % 2  # noqa: E731 - two patients in every four images
    root = folder(tmp_path / "in", attributes, lambda n: f"{key(n)},{label(n)},Q{patient(n)}", header)
    summary, cohort = ingest(declared(root), tmp_path / "run")
    assert (summary["images"], summary["patients"]) == (32, 16)
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert (cohort.rows.groupby("patient").size() == 2).all()
    said = {
        "each image its own": ["the label table's patient_id joins 32 patients of the headers into 16: the table wins"],
        "two patients in one": ["the label table's patient_id parts 8 patients of the headers into 16: the table wins"],
        "none": [],
    }[headers]
    assert notes(tmp_path / "run") == said


@pytest.mark.parametrize("kind", ["nifti", "pictures", "pictures in class folders"])
def test_the_table_names_patients_and_facts_of_files_without_a_header(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "in"
    root.mkdir()
    lines = ["file,patient_id,age,sex,site" + ("" if "folders" in kind else ",label")]
    for number in range(32):
        name = f"{number}.nii.gz" if kind == "nifti" else f"{label(number)}/{number}.png"
        (root / name).parent.mkdir(exist_ok=True)
        if kind == "nifti":
            nibabel.save(nibabel.Nifti1Image(RNG.integers(0, 999, (16, 16, 16)).astype(np.int16), np.eye(4)), root / name)
        else:
            Image.fromarray(RNG.integers(0, 256, (32, 32), dtype=np.uint8)).save(root / name)
        lines.append(f"{name},P{number // 4}{number % 2},9{number % 4},male,Here" + ("" if "folders" in kind else f",{label(number)}"))
    (root / "labels.csv").write_text("\n".join(lines))
    settings = of_kind(root, kind.split()[0], burned_in="declared", size=16)
    summary, cohort = ingest(settings, tmp_path / "run")
    assert summary["patients"] == 16
    assert cohort.rows.groupby("patient")["split"].nunique().max() == 1
    assert set(cohort.rows["age_band"]) == {"90+"}
    assert set(cohort.rows["sex"]) == {"M"}
    assert cohort.rows["site"].str.fullmatch("site-[0-9a-f]{4}").all()
    assert notes(tmp_path / "run") == []


def test_what_the_table_states_is_deidentified_like_a_header(tmp_path: Path) -> None:
    attributes = [{"PatientID": f"P{n}", "PatientSex": "M", "PatientAge": "030Y", "ViewPosition": "AP"} for n in range(16)]
    root = folder(
        tmp_path / "in",
        attributes,
        lambda n: f"i{n:02d}.dcm;{label(n)};f;{61 + n % 2},5;Secretsite;Secretscanner;{'pa' if n else 'SECRETVIEW'}",
        "file;label;Gender;Patient Age;Institution;acquisition;view",
    )
    _, cohort = ingest(declared(root), tmp_path / "run")
    assert set(cohort.rows["sex"]) == {"F"}
    assert set(cohort.rows["age_band"]) == {"60-69"}
    assert sorted(cohort.rows["view"]) == ["AP", *["PA"] * 15]
    assert cohort.rows["acquisition"].str.fullmatch("acquisition-[0-9a-f]{4}").all()
    everything = cohort.rows.to_csv() + "".join(path.read_text() for path in (tmp_path / "run" / "ingest").glob("*.json"))
    assert not re.search("secret(site|scanner|view)", everything, re.IGNORECASE)
    assert set(FIELDS) <= set(cohort.rows.columns)


def test_one_picture_under_two_labels_is_a_conflict(tmp_path: Path) -> None:
    picture_folder(tmp_path / "in", 40)
    shutil.copy(tmp_path / "in" / "normal" / "0.png", tmp_path / "in" / "effusion" / "copy.png")
    shutil.copy(tmp_path / "in" / "normal" / "2.png", tmp_path / "in" / "normal" / "same.png")
    summary, _ = ingest(of_kind(tmp_path / "in", "pictures", burned_in="declared"), tmp_path / "run")
    found = quarantined(tmp_path / "run")
    assert set(found) == {"normal/0.png", "effusion/copy.png"}
    assert all("under another label" in reason for reason in found.values())
    assert (summary["images"], summary["near_duplicate_groups"]) == (40, 1)


def test_one_dicom_image_filed_twice_under_two_labels_or_patients_is_a_conflict(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", [{"PatientID": f"P{n}"} for n in range(24)], lambda n: f"{by_file(n)},P{n}", "file,label,patient_id")
    for name, origin in (("a.dcm", 0), ("b.dcm", 2), ("c.dcm", 4)):
        shutil.copy(root / f"i{origin:02d}.dcm", root / name)
    with (root / "labels.csv").open("a") as file:
        file.write("\na.dcm,effusion,P0\nb.dcm,normal,P3\nc.dcm,normal,P4\n")
    summary, _ = ingest(declared(root), tmp_path / "run")
    found = quarantined(tmp_path / "run")
    assert summary["images"] == 22
    assert "under another label" in found.get("i00.dcm", "") + found["a.dcm"]
    assert "under another patient" in found.get("i02.dcm", "") + found["b.dcm"]
    assert "same SOP Instance UID" in found.get("i04.dcm", "") + found.get("c.dcm", "")


def test_file_names_that_are_not_utf8_are_read_and_listed(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    lines = ["file,label"]
    for number in range(16):
        name = f"J\u00f6rg{number}.dcm"
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name.encode("latin-1")))
        write(path, dataset(noise(), PatientID=f"P{number}", WindowCenter=2048, WindowWidth=4096))
        lines.append(f"{name},{label(number)}")
    (root / os.fsdecode(b"notes\xff.txt")).write_text("x")
    (root / "labels.csv").write_text("\n".join(lines), encoding="latin-1")
    summary, _ = ingest(declared(root), tmp_path / "run")
    assert (summary["images"], summary["patients"]) == (16, 16)
    assert quarantined(tmp_path / "run") == {"notes\\xff.txt": "not a DICOM file"}
    assert any("Windows-1252" in note for note in notes(tmp_path / "run"))


def test_pictures_whose_names_are_not_utf8(tmp_path: Path) -> None:
    picture_folder(tmp_path / "in", 24)
    for name in ("normal/0.png", "effusion/1.png"):
        (tmp_path / "in" / name).rename(tmp_path / "in" / os.fsdecode(name.replace(".", "\u00e9.").encode("latin-1")))
    summary, _ = ingest(of_kind(tmp_path / "in", "pictures", burned_in="declared"), tmp_path / "run")
    assert summary["images"] == 24


def test_a_failed_split_leaves_the_list_of_what_was_left_out(tmp_path: Path) -> None:
    attributes = [{"PatientID": f"P{n}" if n < 8 else None} for n in range(20)]
    root = folder(tmp_path / "in", attributes, by_file)
    (root / "=cmd.dcm").write_text("x")
    run = tmp_path / "run"
    with pytest.raises(InputError) as caught:
        ingest(declared(root), run)
    said = str(caught.value)
    assert "class normal has 4" in said
    assert "13 files were left out: 12 x no Patient ID" in said
    assert "ingest/quarantine.csv lists them" in said
    assert "\n" not in said
    found = quarantined(run)
    assert len(found) == 13
    assert "./=cmd.dcm" in found
    (run / artifacts.UNFINISHED).mkdir()
    (run / "ingest").rename(run / artifacts.UNFINISHED / "ingest")
    shown = terminal(run)
    assert "no Patient ID" in shown
    assert "12" in shown


def test_everything_filtered_names_the_commonest_reasons(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", [{"Modality": "SEG", "PatientID": f"P{n}"} for n in range(6)], by_file)
    (root / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"no usable image among 7 files \(6 x its Modality .*1 x not a DICOM file\)"):
        ingest(declared(root), tmp_path / "run")
    assert len(quarantined(tmp_path / "run")) == 7


def test_show_lists_reasons_and_notes_of_a_finished_ingest(tmp_path: Path) -> None:
    attributes = [{"PatientID": f"P{n}" if n < 16 else None, "ViewPosition": ("PA", "AP")[n % 3 == 0]} for n in range(20)]
    run = tmp_path / "run"
    summary, _ = ingest(declared(folder(tmp_path / "in", attributes, by_file)), run)
    artifacts.publish(run / "ingest", {"stage": "ingest"}, summary=summary, seconds=1.0)
    shown = terminal(run)
    assert "no Patient ID" in shown
    assert "quarantine.csv" in shown
    assert "mixed views: AP 6, PA 10" in shown


def terminal(run: Path) -> str:
    stream = io.StringIO()
    show(run, Console(file=stream, width=200))
    return stream.getvalue()


def test_images_without_patients_are_told_loudly(tmp_path: Path) -> None:
    picture_folder(tmp_path / "in", 24)
    summary, _ = ingest(of_kind(tmp_path / "in", "pictures", burned_in="declared"), tmp_path / "run")
    assert summary["patients"] == "unknown (split by image)"
    [note] = notes(tmp_path / "run")
    assert "NO PATIENT IDS" in note
    assert "patient_id" in note


@pytest.mark.parametrize(
    ("keyword", "values", "expected"),
    [
        (
            "PresentationIntentType",
            ("FOR PRESENTATION", "FOR PROCESSING"),
            "mixed presentation intents: FOR PRESENTATION 8, FOR PROCESSING 8",
        ),
        ("Modality", ("DX", "CR"), "mixed modalities: CR 8, DX 8"),
        ("ViewPosition", ("PA", "LL"), "mixed views: LL 8, PA 8"),
        ("ViewPosition", ("PA", ""), None),
        ("ViewPosition", ("PA", "SECRET"), None),
    ],
)
def test_mixtures_are_told_with_counts(tmp_path: Path, keyword: str, values: tuple[str, str], expected: str | None) -> None:
    attributes = [{"PatientID": f"P{n}", keyword: values[n // 2 % 2]} for n in range(16)]
    ingest(declared(folder(tmp_path / "in", attributes, by_file)), tmp_path / "run")
    assert notes(tmp_path / "run") == ([expected] if expected else [])


def grey(value: float = 2000, **change: Any) -> NDArray[np.uint16]:
    image = np.full((64, 48), float(value))
    image += change.get("noise", 0) * RNG.standard_normal(image.shape).round().clip(-1, 1)
    image[: change.get("rows", 0), :3] = 4000
    image[40:, 20:] += change.get("step", 0)
    return image.astype(np.uint16)


BLANK = {
    "constant": grey(),
    "black": grey(0),
    "white": grey(4095),
    "one dead pixel": np.where(np.arange(64 * 48).reshape(64, 48) == 1000, 4000, grey()).astype(np.uint16),
    "one step of noise": grey(noise=1),
    "a small marker": grey(rows=4),
    "beyond the window": grey(step=900),
}
FAINT = {
    "a faint edge": grey(step=40),
    "half of it": grey(0, step=1000),
    "a spot": grey(0, step=0) + np.eye(64, 48, dtype=np.uint16) * 3000,
}


@pytest.mark.parametrize("name", [*BLANK, *FAINT])
def test_blank_images_are_left_out_and_faint_ones_are_not(tmp_path: Path, name: str) -> None:
    from pipeline.ingest.labels import FolderLabels
    from pipeline.ingest.readers import dicom
    from pipeline.ingest.standardize import Target
    from pipeline.ingest.tasks import Task
    from pipeline.ingest.work import Settings, work

    pixels = {**BLANK, **FAINT}[name]
    write(tmp_path / "normal" / "a.dcm", dataset(pixels, WindowCenter=1024, WindowWidth=4096))
    target = Target(32, scaling={"DX": (0, 1000) if "window" in name else "header"})
    settings = Settings(tmp_path, dicom.read_each, FolderLabels(CLASSES), b"k" * 16, target, burned_in="declared")
    value, images = work(Task(("normal/a.dcm",)), settings)
    if name in BLANK:
        assert images == []
        assert "blank" in value["left_out"][0]
    else:
        assert len(images) == 1


@pytest.mark.parametrize("sparse", ["NM", "PT"])
def test_a_few_bright_points_are_an_image_where_tracers_are_seen(tmp_path: Path, sparse: str) -> None:
    pixels = grey(0)
    pixels[30, 20] = 4000
    attributes: list[dict[str, Any]] = [{"PatientID": f"P{n}"} for n in range(16)]
    attributes.append({"PatientID": "P99", "Modality": sparse, "pixels": pixels})
    summary, _ = ingest(declared(folder(tmp_path / "in", attributes, by_file)), tmp_path / "run")
    assert summary["images"] == 17


@pytest.mark.parametrize("column", ["file", "sop_instance_uid", "patient_id", "series_instance_uid"])
def test_rows_that_match_no_file_are_counted_and_the_first_is_named_by_its_line(tmp_path: Path, column: str) -> None:
    keys: dict[str, Callable[[int], str]] = {
        "file": lambda n: f"i{n:02d}.dcm",
        "sop_instance_uid": lambda n: f"1.2.{n}",
        "patient_id": lambda n: f"Jane{n}",
        "series_instance_uid": lambda n: f"1.3.{n}",
    }
    attributes = [{"PatientID": f"Jane{n}", "SOPInstanceUID": f"1.2.{n}", "SeriesInstanceUID": f"1.3.{n}"} for n in range(20)]
    attributes[0]["Modality"] = "SEG"  # left out, but its row leads to it
    root = folder(tmp_path / "in", attributes, lambda n: f"{keys[column](n)},{label(n)}", f"{column},label")
    with (root / "labels.csv").open("a") as file:
        file.write("\n\nJane98,normal\nJane99,normal\nJane99,normal\n")
    ingest(declared(root), tmp_path / "run")
    assert notes(tmp_path / "run") == ["labels.csv: 3 of 23 rows match no file; the first of them is on line 23"]

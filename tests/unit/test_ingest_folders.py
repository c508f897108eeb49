"""Folders as people have them: one image under two labels, file names in any encoding, too little left to split, no patients."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_folder import dataset, write
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pydicom.uid import RLELossless, generate_uid
from test_ingest_kinds import config as of_kind
from test_ingest_kinds import picture_folder
from test_ingest_stage import config, ingest

from pipeline import artifacts
from pipeline.errors import InputError

CLASSES = ("normal", "effusion")
RNG = np.random.default_rng(21)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHCOHORT_KEY", "a key of the tests, long enough")


def noise(*shape: int) -> NDArray[np.uint16]:
    return RNG.integers(0, 4096, shape or (32, 32)).astype(np.uint16)


def left_out(run: Path) -> dict[str, str]:
    with (run / "ingest" / "quarantine.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


def with_a_note(source: Path, copy: Path) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "read again")
    Image.open(source).save(copy, pnginfo=note)


def in_a_palette(source: Path, copy: Path) -> None:
    """The same colours from a table of them."""
    grey = Image.open(source).convert("L")
    grey.save(source)
    colours = Image.new("P", grey.size)
    colours.putpalette([level for level in range(256) for _ in range(3)])
    colours.putdata(list(grey.tobytes()))
    colours.save(copy)


COPIES: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "a copy": ("png", lambda source, copy: shutil.copy(source, copy) and None),
    "a TIFF": ("tiff", lambda source, copy: Image.open(source).save(copy)),
    "a packed TIFF": ("tif", lambda source, copy: Image.open(source).save(copy, compression="tiff_lzw")),
    "with a comment": ("png", with_a_note),
    "compressed otherwise": ("png", lambda source, copy: Image.open(source).save(copy, compress_level=0)),
    "with a palette": ("png", in_a_palette),
}


@pytest.mark.parametrize("name", COPIES)
def test_one_picture_in_the_folders_of_two_classes(tmp_path: Path, name: str) -> None:
    root, (ending, make) = tmp_path / "in", COPIES[name]
    picture_folder(root, 40)
    make(root / "normal" / "0.png", root / "effusion" / f"again.{ending}")
    summary, cohort = ingest(of_kind(root, "pictures", burned_in="declared"), tmp_path / "run")
    found = left_out(tmp_path / "run")
    assert set(found) == {"normal/0.png", f"effusion/again.{ending}"}
    assert all("under another label" in reason for reason in found.values())
    assert summary["images"] == len(cohort.images) == 39


@pytest.mark.parametrize("syntax", [None, RLELossless])
@pytest.mark.parametrize("patient", ["P0", "P99"])
def test_one_dicom_image_exported_twice_under_two_labels(tmp_path: Path, patient: str, syntax: Any) -> None:
    """With another SOP Instance UID, in another encoding, under the same or another patient."""
    root, lines = tmp_path / "in", ["file,label"]
    for number in range(24):
        write(root / f"{number}.dcm", dataset(noise(), PatientID=f"P{number}", WindowCenter=2048, WindowWidth=4096))
        lines.append(f"{number}.dcm,{CLASSES[number % 2]}")
    again = pydicom.dcmread(root / "0.dcm")
    again.PatientID, again.SOPInstanceUID = patient, generate_uid()
    if syntax is not None:
        again.compress(syntax, generate_instance_uid=False)
    again.save_as(root / "again.dcm")
    (root / "labels.csv").write_text("\n".join([*lines, "again.dcm,effusion"]))
    ingest(config(root, burned_in="declared"), tmp_path / "run")
    found = left_out(tmp_path / "run")
    assert set(found) == {"0.dcm", "again.dcm"}
    assert all("under another label" in reason for reason in found.values())


NAMES = {
    "Latin-1": "J\u00f6rg {}".encode("latin-1"),
    "Cyrillic, Windows": "Иван {}".encode("cp1251"),
    "Shift-JIS": "山田 {}".encode("shift-jis"),
    "Chinese": "张伟 {}".encode("gb18030"),
    "cut in a letter": "Jörg {}".encode()[:2] + b" {}",
    "no text at all": b"\xff\xfe\x80 {}",
}


@pytest.mark.parametrize("kind", ["dicom", "pictures", "nifti"])
@pytest.mark.parametrize("encoding", NAMES)
def test_file_names_in_any_encoding(tmp_path: Path, encoding: str, kind: str) -> None:
    """Labels come from folders or by UID; what is left out is listed under a name that can be read."""
    root, count = tmp_path / "in", 20
    lines = ["sop_instance_uid,label"]
    for number in range(count):
        name = os.fsdecode(NAMES[encoding].replace(b"{}", str(number).encode()))
        folder = root / CLASSES[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "dicom":
            write(
                folder / name, dataset(noise(), PatientID=f"P{number}", SOPInstanceUID=f"1.2.{number}", WindowCenter=2048, WindowWidth=4096)
            )
            lines.append(f"1.2.{number},{CLASSES[number % 2]}")
        elif kind == "pictures":
            Image.fromarray((noise() >> 4).astype(np.uint8)).save(folder / f"{name}.png")
        else:
            nibabel.save(nibabel.Nifti1Image(noise(16, 16, 16).astype(np.int16), np.eye(4)), tmp_path / "a.nii")
            (tmp_path / "a.nii").rename(folder / f"{name}.nii")
    odd = root / os.fsdecode(NAMES[encoding].replace(b"{}", b"notes.txt"))
    odd.write_text("x")
    if kind == "dicom":
        (root / "labels.csv").write_text("\n".join(lines))
    elif kind == "nifti":
        rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.nii"))]
        (root / "labels.csv").write_bytes(os.fsencode("\n".join(["file,label", *rows])))
        if encoding not in ("Latin-1",):  # a table is text: rows in another encoding lead to no file, and are counted
            return
    settings = config(root, burned_in="declared") if kind == "dicom" else of_kind(root, kind, burned_in="declared", size=16)
    summary, _ = ingest(settings, tmp_path / "run")
    assert summary["images"] == count
    [listed] = left_out(tmp_path / "run")
    assert listed.endswith("notes.txt")
    listed.encode("utf-8")


TOO_LITTLE: dict[str, tuple[Callable[[int], dict[str, Any]], str]] = {
    "no patients": (lambda n: {"PatientID": None}, "no Patient ID"),
    "all of a kind that is no image of the body": (lambda n: {"Modality": "SEG"}, "its Modality"),
    "all blank": (lambda n: {"pixels": np.full((32, 32), 7, np.uint16)}, "blank"),
    "all screens": (lambda n: {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "Image Type"),
    "all declare text": (lambda n: {"BurnedInAnnotation": "YES"}, "burned-in annotation"),
    "half have no patient": (lambda n: {"PatientID": f"P{n}" if n < 10 else None}, "10 x no Patient ID"),
    "one class blank": (lambda n: {"pixels": np.full((32, 32), 7, np.uint16)} if n % 2 else {}, "10 x the image is blank"),
}


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_where_too_little_is_left_the_list_is_written_first(tmp_path: Path, name: str) -> None:
    attributes, reason = TOO_LITTLE[name]
    root, lines = tmp_path / "in", ["file,label"]
    for number in range(20):
        given = {"PatientID": f"P{number}", "pixels": noise(), **attributes(number)}
        write(root / f"{number}.dcm", dataset(given.pop("pixels"), WindowCenter=2048, WindowWidth=4096, **given))
        lines.append(f"{number}.dcm,{CLASSES[number % 2]}")
    (root / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        ingest(config(root, burned_in="search"), tmp_path / "run")
    said, found = str(caught.value), left_out(tmp_path / "run")
    assert reason in said
    assert "quarantine.csv lists them" in said
    assert "\n" not in said
    assert len(found) == int(re.search(r"(\d+) x ", said)[1])  # type: ignore[index]
    assert (tmp_path / "run" / "ingest" / "quarantine.parquet").is_file()


@pytest.mark.parametrize("kind", ["class folders", "a table without patients", "volumes", "a table that leaves patients empty", "colour"])
def test_without_patients_the_split_is_by_image_and_that_is_said_loudly(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "in"
    picture_folder(root, 24)
    section: dict[str, Any] = {"burned_in": "declared"}
    if kind == "volumes":
        shutil.rmtree(root)
        root.mkdir()
        for number in range(24):
            nibabel.save(nibabel.Nifti1Image(noise(16, 16, 16).astype(np.int16), np.eye(4)), root / f"{number}.nii")
        (root / "labels.csv").write_text("\n".join(["file,label", *(f"{n},{CLASSES[n % 2]}" for n in range(24))]))
        section["size"] = 16
    elif kind.startswith("a table"):
        empty = "," if "empty" in kind else ""
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        head = "file,label" + (",patient_id" if empty else "")
        (root / "labels.csv").write_text("\n".join([head, *(f"{name},{name.split('/')[0]}{empty}" for name in names)]))
    elif kind == "colour":
        section["colour"] = True
    summary, _ = ingest(of_kind(root, "nifti" if kind == "volumes" else "pictures", **section), tmp_path / "run")
    assert summary["patients"] == "unknown (split by image)"
    facts = artifacts.read_json(tmp_path / "run" / "ingest" / "cohort.json")
    assert facts["unit"] == "image"
    assert "NO PATIENT IDS" in facts["notes"][0]

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_voi_lut

from pipeline import api
from pipeline.ingest.class_folders import LEAST
from pipeline.phantom import CLASSES
from pipeline.phantom.anatomy import Patient, draw_patients
from pipeline.phantom.dicom import BROKEN, COLUMNS, planted_identities, write_cohort
from pipeline.phantom.encoding import part10
from pipeline.phantom.image import render

SEED, SIZE = 5, 24


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return draw_patients(70, 2)


@pytest.fixture(scope="module")
def cohort(patients: list[Patient], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, patients, SEED, SIZE)
    return folder


def image_files(cohort: Path) -> list[Path]:
    return sorted(path for path in cohort.rglob("*") if path.is_file() and path.parent.name != "INCOMING" and path.name != "labels.csv")


def table(cohort: Path) -> list[dict[str, str]]:
    with (cohort / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_a_readable_dx_object_with_valid_values(
    cohort: Path, patients: list[Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    files = image_files(cohort)
    assert len(files) == sum(len(patient.visits) for patient in patients)
    syntaxes, charsets, photometric = set(), set(), set()
    for path in files:
        dataset = pydicom.dcmread(path)
        for element in dataset.iterall():
            assert element.value is not None
        assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert dataset.Modality == "DX"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation) == (16, 12, 0)
        assert dataset.pixel_array.shape == (SIZE, SIZE)
        assert dataset.pixel_array.max() < 4096
        assert (dataset.ViewPosition, dataset.BodyPartExamined) == ("PA", "CHEST")
        syntaxes.add(dataset.file_meta.TransferSyntaxUID.name)
        charsets.add(dataset.SpecificCharacterSet)
        photometric.add(dataset.PhotometricInterpretation)
    assert "Explicit VR Little Endian" in syntaxes
    assert len(syntaxes) == 3
    assert len(charsets) == 3
    assert photometric == {"MONOCHROME1", "MONOCHROME2"}


def test_a_folder_as_by_default_has_enough_patients_of_every_class_for_a_run(tmp_path: Path) -> None:
    api.phantom(tmp_path / "scans", size=32)
    rows = table(tmp_path / "scans")
    assert all(len({row["patient_id"] for row in rows if row["label"] == name}) >= LEAST for name in CLASSES)


def test_a_viewer_shows_what_was_rendered(cohort: Path, patients: list[Patient]) -> None:
    by_uid = {row["sop_instance_uid"]: row for row in table(cohort)}
    shown = {}
    for path in image_files(cohort):
        dataset = pydicom.dcmread(path)
        out = apply_voi_lut(dataset.pixel_array, dataset)
        low, high = 0, 2**dataset.BitsStored - 1
        image = (out - low) / (high - low)
        shown[str(dataset.SOPInstanceUID)] = 1 - image if dataset.PhotometricInterpretation == "MONOCHROME1" else image
    order = iter(by_uid)
    for patient in patients[:-1]:
        for number, visit in enumerate(patient.visits):
            uid = next(order)
            assert by_uid[uid]["label"] == visit.finding
            assert by_uid[uid]["report"] == visit.report
            np.testing.assert_allclose(shown[uid], render(patient, number, SIZE), atol=1e-3)


def test_labels_name_the_files_but_for_one(cohort: Path) -> None:
    rows = table(cohort)
    files = {path.relative_to(cohort).as_posix() for path in image_files(cohort)}
    assert tuple(rows[0]) == COLUMNS
    assert {row["file"] for row in rows} < files
    assert len(files) - len(rows) == 1
    for row in rows[:20]:
        dataset = pydicom.dcmread(cohort / row["file"], stop_before_pixels=True)
        assert (row["patient_id"], row["sop_instance_uid"]) == (dataset.PatientID, dataset.SOPInstanceUID)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_arguments_give_the_same_bytes_on_any_number_of_processes(
    workers: int, cohort: Path, patients: list[Patient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.phantom.dicom.FEW", len(patients))
    write_cohort(tmp_path, patients, SEED, SIZE, workers)
    names = sorted(path.relative_to(cohort) for path in cohort.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((cohort / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_broken_files_are_broken_in_their_way(cohort: Path) -> None:
    truncated, text, report, empty = (cohort / name for name in BROKEN)
    dataset = pydicom.dcmread(truncated)
    with pytest.raises((ValueError, AttributeError)):
        _ = dataset.pixel_array
    with pytest.raises(InvalidDicomError):
        pydicom.dcmread(text)
    dataset = pydicom.dcmread(report)
    assert dataset.Modality == "SR"
    assert "PixelData" not in dataset
    assert empty.stat().st_size == 0


def strings(dataset: pydicom.Dataset) -> Iterator[tuple[str, str]]:
    """(VR, value) of every text element, nested and private ones too."""
    for element in dataset.iterall():
        if element.VR == "UN":
            yield "UN", element.value.decode()
        elif element.VR not in ("SQ", "OW", "OB", "US", "SS", "UL"):
            values = element.value if element.VM > 1 else [element.value]
            yield from ((element.VR, str(value)) for value in values)


def test_all_that_identifies_is_listed_and_all_that_is_listed_is_there(cohort: Path, patients: list[Patient]) -> None:
    planted = planted_identities(patients, SEED)
    found = ["\n".join(str(path.relative_to(cohort)) for path in cohort.rglob("*"))]
    for path in [*image_files(cohort), cohort / list(BROKEN)[2]]:
        dataset = pydicom.dcmread(path)
        for vr, value in strings(dataset):
            found.append(value)
            standard = value.startswith("1.2.840.10008") or not value
            if vr in ("PN", "DA", "TM", "DT", "UI") and not standard:
                assert value in planted, f"a {vr} element is not in the list"
    text = "\n".join(found).encode() + (cohort / "labels.csv").read_bytes()
    missing = [name for name in planted if name.encode() not in text]
    assert not missing, f"{len(missing)} planted strings are in no file, such as one of {len(missing[0])} characters"
    assert min(len(name) for name in planted) >= 4


def test_identities_are_a_function_of_seed_and_patient(patients: list[Patient]) -> None:
    assert planted_identities(patients[:3], SEED) <= planted_identities(patients, SEED)
    own = planted_identities(patients[:3], SEED) & planted_identities(patients[:3], SEED + 1)
    assert not any(name.startswith("2.25.") for name in own)


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(KeyError, match="not a DICOM keyword"):
        part10({"SOPClassUID": "1.2", "SOPInstanceUID": "1.2", "PatientNickname": "x"}, "1.2.840.10008.1.2.1", "ISO_IR 100")


def test_no_patients_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one patient"):
        write_cohort(tmp_path, [], 0)

"""What a plan knows of a cohort without opening an image, and what it refuses before any work."""

import numpy as np
import pytest
from cohort_runs import message, pictures

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest.glance import glance
from pipeline.ingest.survey import survey
from pipeline.phantom.anatomy import draw_patients


def seen(source, path, **more):
    return glance(IngestConfig.model_validate({"source": source, "path": path, "classes": ["a", "b"], **more}))


def table(root, rows):
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_phantoms_are_known_before_they_are_drawn():
    found = glance(IngestConfig(source="phantom", phantom_patients=2000))
    assert (found.unit, found.units, found.classes) == ("patient", 2000, 5)
    assert found.images == pytest.approx(sum(len(patient.visits) for patient in draw_patients(2000, 0)), rel=0.03)


def test_pictures_are_split_by_image_unless_a_table_says_whose_they_are(tmp_path):
    root = pictures(tmp_path, 20)
    found = seen("pictures", root)
    assert (found.unit, found.units, found.images) == ("image", 20, 20)
    assert any("ONE BY ONE" in note for note in found.notes)
    table(root, ["file,patient_id", *(f"{'ab'[n % 2]}/{n:03d}.png,P {n // 4}" for n in range(20))])
    found = seen("pictures", root)
    assert (found.unit, found.units, found.images, found.notes) == ("patient", 5, 20, ())


def test_the_only_table_is_read_whatever_it_is_called(tmp_path):
    root = table(
        pictures(tmp_path, 20), ["Filename;label;Patient ID", *(f"{'ab'[n % 2]}/{n:03d}.png;{'ab'[n % 2]};P{n // 4}" for n in range(20))]
    )
    (root / "labels.csv").rename(root / "Befunde.csv")
    assert (seen("pictures", root).unit, seen("pictures", root).units) == ("patient", 5)
    (root / "other.csv").write_text("file,label\na/000.png,a\n")
    with pytest.raises(InputError, match=r"2 tables lie in .*Befunde\.csv and other\.csv: name the one labels\.csv"):
        seen("pictures", root)
    assert seen("pictures", root, labels="Befunde.csv").units == 5
    with pytest.raises(InputError, match=r"no label table Befund\.csv in"):
        seen("pictures", root, labels="Befund.csv")


def test_of_dicom_the_headers_tell_the_patients_and_are_not_read(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.dcm").write_bytes(b"not even DICOM")
    table(tmp_path, ["file,label", "0.dcm,a", "1.dcm,b"])
    found = seen("dicom", tmp_path)
    assert (found.unit, found.units, found.images) == ("patient", None, 4)
    assert any(f"synthcohort init {tmp_path}" in note for note in found.notes)
    table(tmp_path, ["file,label,patient_id", "0.dcm,a,1", "1.dcm,b,2", "2.dcm,b,02"])
    assert seen("dicom", tmp_path).units == 3
    assert seen("dicom", tmp_path, label_field="BodyPartExamined").units is None


def test_a_medmnist_file_that_is_there_is_counted(tmp_path):
    empty = {f"{name}_images": np.zeros((count, 28, 28), np.uint8) for name, count in (("train", 7), ("val", 2), ("test", 3))}
    np.savez(tmp_path / "breastmnist.npz", **empty)
    ingest = IngestConfig(source="medmnist", dataset="breastmnist", path=tmp_path, size=28)
    found = glance(ingest)
    assert (found.unit, found.units, found.train) == ("image", 12, 7)
    (tmp_path / "breastmnist.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="damaged"):
        glance(ingest)
    (tmp_path / "breastmnist.npz").unlink()
    assert any("downloads it" in note for note in glance(ingest).notes)


def test_what_is_not_there_is_refused_before_any_work(tmp_path):
    for path, words in ((tmp_path / "none", "no such folder"), (tmp_path, "holds no file")):
        with pytest.raises(InputError) as error:
            seen("pictures", path)
        assert words in message(error)
        assert "ingest.path" in message(error)
    pictures(tmp_path, 20)
    with pytest.raises(InputError) as error:
        seen("pictures", tmp_path, classes=["a", "c"])
    assert "names c" in message(error)
    with pytest.raises(InputError, match="no label table"):
        seen("dicom", tmp_path)


def test_a_table_is_one_in_capitals_too_and_a_hidden_file_is_none(tmp_path):
    root = table(
        pictures(tmp_path, 20), ["Filename;label;Patient ID", *(f"{'ab'[n % 2]}/{n:03d}.png;{'ab'[n % 2]};P{n // 4}" for n in range(20))]
    )
    (root / "labels.csv").rename(root / "BEFUNDE.TSV")
    (root / "._BEFUNDE.csv").write_bytes(b"\0\5\x16\7 as macOS writes beside a file on other disks")
    assert (seen("pictures", root).unit, seen("pictures", root).units) == ("patient", 5)
    (root / "BEFUNDE.TSV").write_text("file\tlabel\na/000.png\ta\n")
    (root / "._BEFUNDE.csv").unlink()
    assert seen("pictures", root).images == 20, "a table is no image"


def test_what_lies_beside_the_images_neither_counts_nor_hides_the_classes(tmp_path):
    root = pictures(tmp_path / "data", 20)
    for name in ("README.txt", "facts.tsv", *(f"a/{number}.json" for number in range(200))):
        (root / name).write_text("x")
    assert seen("pictures", root).images == 20
    found = survey(root, "FOLDER")
    assert (found.kind, found.folders) == ("pictures", ("a", "b"))

"""Labels: from a CSV by file, UID or patient, from a header's attribute, or from a folder's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_folder import dataset, ramp

from pipeline.errors import InputError
from pipeline.ingest.labels import FieldLabels, FolderLabels, Labels
from pipeline.ingest.readers.reading import Quarantined


def labels(tmp_path: Path, text: str) -> Labels:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    return Labels.load(tmp_path / "labels.csv", ("normal", "effusion"))


def test_labels_by_file_uid_or_patient(tmp_path: Path) -> None:
    header = dataset(ramp(), SOPInstanceUID="1.2.3", PatientID="A7")
    assert labels(tmp_path, "file,label\n./a\\b.dcm,effusion\n").find("a/b.dcm", header) == (0, 1)
    assert labels(tmp_path, "Label,SOP_Instance_UID\neffusion,1.2.3\n").find("x", header) == (0, 1)
    assert labels(tmp_path, "patient_id,label\n A7 , normal \n").find("x", header) == (1, 0)
    missing = labels(tmp_path, "patient_id,label\nB1,normal\n").find("x", header)
    assert isinstance(missing, Quarantined)
    assert "no label" in missing.reason
    twice = labels(tmp_path, "patient_id,label\nA7,normal\nA7,effusion\nA7,normal\n").find("x", header)
    assert isinstance(twice, Quarantined)
    assert "contradictory" in twice.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na,healthy\nb,tumour\n", "'healthy', 'tumour'; ingest.classes names normal, effusion"),
        ("file;label\na;normal\n", "needs a column 'label'"),
        ("name,label\na,normal\n", "needs a column 'label' and one of file"),
        ("", "needs a column"),
    ],
)
def test_bad_label_tables_say_what_to_mend(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        labels(tmp_path, text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_unknown_labels_are_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        labels(tmp_path, "file,label\n" + "\n".join(f"f{n},odd{n}" for n in range(9)))
    assert str(caught.value).count("odd") == 5


def test_a_series_and_a_patient_column_beside_the_file(tmp_path: Path) -> None:
    header = dataset(ramp(), SeriesInstanceUID="1.5")
    assert labels(tmp_path, "series_instance_uid,label\n1.5,effusion\n").find("x", header) == (0, 1)
    table = labels(tmp_path, "file,label,patient_id\na.png,normal,P1\nb.png,normal,P2\nb.png,normal,P3\n")
    assert table.patients["a.png"] == "P1"
    assert table.find("a.png", header) == (1, 0)
    assert isinstance(table.find("b.png", header), Quarantined)


def test_several_findings_have_a_column_each(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,Normal,effusion\na,0,1\nb,1,1\nc,0,0\nd,-1,\ne,,\n")
    table = Labels.load(path, ("normal", "effusion"), several=True)
    header = dataset(ramp())
    assert [table.find(name, header) for name in "abcd"] == [(0, 1), (1, 1), (0, 0), (-1, -1)]
    assert isinstance(table.find("e", header), Quarantined)
    path.write_text("file,normal,effusion\na,no,1\n")
    with pytest.raises(InputError, match="write 1, 0, or -1"):
        Labels.load(path, ("normal", "effusion"), several=True)
    path.write_text("file,label\na,normal\n")
    with pytest.raises(InputError, match="a column for each class"):
        Labels.load(path, ("normal", "effusion"), several=True)


def test_paths_out_of_the_folder_are_named(tmp_path: Path) -> None:
    table = labels(tmp_path, "file,label\n../x.dcm,normal\n/etc/passwd,normal\na/../../b,normal\nC:\\x,normal\nok/a..b.dcm,normal\n")
    assert table.outside() == ["../x.dcm", "/etc/passwd", "C:/x", "a/../../b"]


def test_an_attribute_of_the_header_names_the_class() -> None:
    found = FieldLabels("BodyPartExamined", ("Chest", "Hand"))
    assert found.find("x", dataset(ramp(), BodyPartExamined="CHEST ")) == (1, 0)
    for value, expected in (("SKULL", "none of ingest.classes"), (None, "has no BodyPartExamined")):
        header = dataset(ramp(), **({"BodyPartExamined": value} if value else {}))
        missing = found.find("x", header)
        assert isinstance(missing, Quarantined)
        assert expected in missing.reason
        assert "SKULL" not in missing.reason


def test_a_folder_names_the_class() -> None:
    found = FolderLabels(("cat", "dog"))
    assert found.find("dog/deep/a.png", None) == (0, 1)
    for name in ("a.png", "bird/a.png"):
        assert isinstance(found.find(name, None), Quarantined)

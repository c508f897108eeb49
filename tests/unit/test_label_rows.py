"""Rows of a label table: which file or patient each means, and what it states beside a label."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_labels import labels

from pipeline.errors import InputError
from pipeline.ingest.labels import Entry, FolderLabels, Labels
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined

FILES = ["sub/Ä one.png", "B.PNG", "c.dcm", "d", "007.png", "e/f.nii.gz", "12345.dcm", "x.png", "X.png", "y.png", "y.dcm"]


def matched(tmp_path: Path, rows: str, files: list[str] = FILES) -> Labels:
    return labels(tmp_path, f"file,label\n{rows}\n").matched(files)


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("sub/A\u0308 one.png", "sub/Ä one.png"),
        ("SUB\\ä ONE.PNG", "sub/Ä one.png"),
        ("./b.png", "B.PNG"),
        ("b", "B.PNG"),
        ("c", "c.dcm"),
        ("d.dcm", "d"),
        ("E/F", "e/f.nii.gz"),
        ("12345.0", "12345.dcm"),
        ("x.png", "x.png"),
        ("X.png", "X.png"),
        ("y.dcm", "y.dcm"),
        ("Straße.png", "STRASSE.PNG"),
        ("Jörg.png", "J\udcf6rg.png"),
        ("ﬁle.png", "FILE.png"),
    ],
)
def test_a_row_finds_the_one_file_that_it_can_mean(tmp_path: Path, key: str, file: str) -> None:
    files = [*FILES, *({file} - set(FILES))]
    table = matched(tmp_path, f"{key},effusion", files)
    assert table.find(file, None) == (0, 1)
    assert not table.unmatched
    others = [table.find(name, None) for name in files if name != file]
    assert all(isinstance(found, Quarantined) for found in others)


@pytest.mark.parametrize(
    ("rows", "file", "expected"),
    [
        ("X.PNG,effusion", "x.png", "several files"),
        ("x,effusion", "X.png", "several files"),
        ("y,effusion", "y.png", "several files"),
        ("y,effusion\ny.png,normal", "y.png", "several files"),
        ("y,effusion\ny.png,normal", "y.dcm", "several files"),
        ("7,effusion", "007.png", "leading zeros"),
        ("07.png,effusion", "007.png", "leading zeros"),
        ("b.png,effusion\nB,normal", "B.PNG", "contradictory"),
        ("c.png,effusion", "c.dcm", "not in the label table"),
        ("c.dcm,", "c.dcm", "leaves it empty"),
        ("f.nii.gz,normal", "e/f.nii.gz", "not in the label table"),
    ],
)
def test_a_row_that_could_mean_another_file_labels_none(tmp_path: Path, rows: str, file: str, expected: str) -> None:
    found = matched(tmp_path, rows).find(file, None)
    assert isinstance(found, Quarantined)
    assert expected in found.reason
    assert file not in found.reason


def test_an_exact_name_is_not_taken_by_its_neighbour(tmp_path: Path) -> None:
    table = matched(tmp_path, "x.png,effusion\nX.png,normal\nnowhere.png,normal\nnowhere.png,normal\n")
    assert table.find("x.png", None) == (0, 1)
    assert table.find("X.png", None) == (1, 0)
    [entry] = table.unmatched.values()
    assert (entry.line, entry.rows) == (4, 2)


@pytest.mark.parametrize("key", ["1.2E+10", "1,23457E+14", "5E+05", "1.2e+10", "1.2E10"])
@pytest.mark.parametrize("column", ["file", "patient_id", "sop_instance_uid"])
def test_numbers_that_a_spreadsheet_rounded_are_named(tmp_path: Path, column: str, key: str) -> None:
    with pytest.raises(InputError) as caught:
        labels(tmp_path, f'{column};label\nA1;normal\n"{key}";normal\n')
    assert f"line 3: column '{column}'" in str(caught.value)
    assert key not in str(caught.value).replace("as 1.2E+10 is", "")
    assert labels(tmp_path, f"{column},label\n2E05,normal\n1E5,normal\n").rows == 2, "hexadecimal ids are none"


@pytest.mark.parametrize(
    ("key", "patient", "expected"),
    [
        ("pat-001", "Pat 001", (0, 1)),
        ("PAT001", "pat_001", (0, 1)),
        ("12345.0", "12345", (0, 1)),
        ("12345", "12345.0", (0, 1)),
        ("12345.0", "123450", "not in the label table"),
        ("123450", "12345.0", "not in the label table"),
        ("12", "0012", "leading zeros"),
        ("Pat1", "Pat001", "leading zeros"),
        ('="0012"', "0012", (0, 1)),
        ("A\u0308b", "\u00e4B", (0, 1)),
    ],
)
def test_patients_are_found_by_their_id_however_it_is_spelled(tmp_path: Path, key: str, patient: str, expected: object) -> None:
    found = labels(tmp_path, f"patient_id,label\n{key},effusion\n").find("x", Header(patient_id=patient))
    if isinstance(expected, str):
        assert isinstance(found, Quarantined)
        assert expected in found.reason
    else:
        assert found == expected


def test_one_patient_in_two_spellings_with_two_labels_has_none(tmp_path: Path) -> None:
    table = labels(tmp_path, "patient_id,label\nPat001,normal\nPAT 001,effusion\n")
    for patient in ("Pat001", "PAT 001"):
        found = table.find("x", Header(patient_id=patient))
        assert isinstance(found, Quarantined)
        assert "contradictory" in found.reason


@pytest.mark.parametrize(
    ("column", "value", "name", "stated"),
    [
        *(("age", value, "patient_age", "045Y") for value in ("45", "45.0", '"45,5"', "045Y", "45y")),
        ("age", "11M", "patient_age", "011M"),
        *(("sex", value, "patient_sex", "F") for value in ("f", "Female", "FEMALE")),
        ("view", "mlo", "view_position", "MLO"),
        ("laterality", "Left", "image_laterality", "L"),
        ("site", "St Elsewhere", "institution_name", "St Elsewhere"),
        ("acquisition", "scanner 3", "acquisition_protocol_name", "scanner 3"),
    ],
)
def test_what_a_table_states_is_told_as_a_header_would(tmp_path: Path, column: str, value: str, name: str, stated: str) -> None:
    table = labels(tmp_path, f"file,label,{column}\na,normal,{value}\n")
    assert table.table["a"].stated == {name: stated}  # type: ignore[union-attr]


def test_long_ids_that_a_spreadsheet_cut_at_15_digits_are_refused(tmp_path: Path) -> None:
    ids = [f"{123456789012300 + number}00" for number in range(6)]
    with pytest.raises(InputError, match=r"line 2: column 'patient_id' holds a number that a spreadsheet has rounded"):
        labels(tmp_path, "file,label,patient_id\n" + "".join(f"{one}.png,normal,{one}\n" for one in ids))
    ids[3] = ids[3][:-1] + "7"
    labels(tmp_path, "file,label,patient_id\n" + "".join(f"{one}.png,normal,{one}\n" for one in ids))


def test_m_beside_h_is_no_man(tmp_path: Path) -> None:
    """Hombre and mujer."""
    path = tmp_path / "labels.csv"
    path.write_text("file,label,sex\na.png,normal,H\nb.png,normal,M\n")
    found = Labels.load(path, ("normal",))
    assert [entry.stated for entry in found.table.values() if isinstance(entry, Entry)] == [{}, {}]
    assert any("2 values of its column 'sex' say nothing that is known" in note for note in found.notes)


def test_values_that_say_nothing_are_counted_and_not_quoted(tmp_path: Path) -> None:
    table = labels(tmp_path, "file,label,age,sex\na,normal,Jane,x\nb,normal,-5,f\nc,normal,1200,\n")
    assert table.notes == (
        "labels.csv: 1 values of its column 'sex' say nothing that is known, and were left out: "
        "it takes M, F and O, or male, female and other",
        "labels.csv: 3 values of its column 'age' say nothing that is known, and were left out: "
        "it takes years, such as 45, or 011M for months",
    )


@pytest.mark.parametrize("mark", ["1,0", "1.0", "1"])
def test_marks_with_a_decimal_comma(tmp_path: Path, mark: str) -> None:
    (tmp_path / "labels.csv").write_text(f"file;Normal;Effusion\na;{mark};0\n")
    assert Labels.load(tmp_path / "labels.csv", ("normal", "effusion"), several=True).find("a", None) == (1, 0)


def test_class_names_are_compared_composed(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na,Erg\u00fcss\n")
    assert Labels.load(tmp_path / "labels.csv", ("normal", "Ergu\u0308ss")).find("a", None) == (0, 1)
    assert FolderLabels(("normal", "Erg\u00fcss")).find("Ergu\u0308ss/a.png", None) == (0, 1)


@pytest.mark.parametrize("nothing", ["#N/A", "nan", "NULL", "n/a", "Unknown", "#REF!"])
def test_a_cell_that_says_that_there_is_no_id_names_no_patient(tmp_path: Path, nothing: str) -> None:
    by_file = labels(tmp_path, f"file,label,patient_id\na.png,normal,P1\nb.png,normal,{nothing}\nc.png,effusion,{nothing}\n")
    stated = [entry.stated for entry in by_file.table.values() if isinstance(entry, Entry)]
    assert stated == [{"patient_id": "P1"}, {}, {}], "they would be one patient, and win over the header's"
    assert any("2 values of its column 'patient_id' say nothing" in note for note in by_file.notes)
    by_patient = labels(tmp_path, f"patient_id,label\nP1,normal\n{nothing},effusion\n")
    assert list(by_patient.table) == ["p1"]
    assert any("1 rows have no patient_id" in note for note in by_patient.notes)


@pytest.mark.parametrize(("written", "patient"), [("1,000", "1000"), ("12.000", "12000"), ("1,000", "1"), ("1,001", "1001")])
def test_a_thousand_with_its_separator_is_no_other_patient(tmp_path: Path, written: str, patient: str) -> None:
    found = labels(tmp_path, f'patient_id,label\n"{written}",effusion\n').find("", Header(patient_id=patient))
    assert (found == (0, 1)) == (patient != "1")


@pytest.mark.parametrize(("ids", "count"), [(("0012", "12", "7"), 2), (("P012", "P12", "P0012"), 3), (("12", "120", "1"), 0)])
def test_ids_that_differ_in_leading_zeros_are_counted(tmp_path: Path, ids: tuple[str, ...], count: int) -> None:
    found = labels(tmp_path, "file,label,patient_id\n" + "".join(f"{n}.png,normal,{who}\n" for n, who in enumerate(ids)))
    assert [note.split(" patient ids")[0] for note in found.notes] == ([f"labels.csv: {count}"] if count else [])


@pytest.mark.parametrize("mark", ["1.00", "1,000000"])
def test_marks_with_any_decimals(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f'file,normal,effusion\na,"{mark}",0\n')
    assert Labels.load(path, ("normal", "effusion"), several=True).find("a", Header()) == (1, 0)


@pytest.mark.parametrize(
    ("column", "told"), [("Patient", True), ("patient nr.", True), ("MRN", True), ("patient_id", False), ("note", False)]
)
def test_a_column_that_sounds_like_patients_is_not_passed_over_silently(tmp_path: Path, column: str, told: bool) -> None:
    found = labels(tmp_path, f"file,label,{column}\na.png,normal,P1\n")
    assert any("call it patient_id" in note for note in found.notes) == told
    assert not any("P1" in note for note in found.notes)

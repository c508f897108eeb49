"""Tables as people export them: read where there is one reading, refused with line and column where there are several."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ingest import table
from pipeline.ingest.table import Table

PLAIN = "file,label,patient_id\na.png,normal,P1\nb.png,effusion,P2\n"


def read(tmp_path: Path, content: str | bytes) -> Table:
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return table.read(path)


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        *(PLAIN.replace(",", separator).encode() for separator in (",", ";", "\t", "|")),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        "\ufeff".encode("utf-16-le") + PLAIN.replace(",", "\t").encode("utf-16-le"),
        "\ufeff".encode("utf-16-be") + PLAIN.replace(",", ";").encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
        ('"sep=|"\n' + PLAIN.replace(",", "|")).encode(),
        ("sep=^\n" + PLAIN.replace(",", "^")).encode(),
        ("\n,,\n" + PLAIN + "\n\n,,\n   \n").encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace("file", '"file"').replace("normal", ' "normal"').encode(),
        PLAIN.replace("P1", '="P1"').encode(),
        PLAIN.replace("a.png", "\u200ba.png\u00a0").encode(),
        b",file,label,patient_id\n0,a.png,normal,P1\n7,b.png,effusion,P2\n",
        b"file,,label,patient_id,,\na.png,,normal,P1,,\nb.png,,effusion,P2\n",
    ],
)
def test_one_table_in_many_encodings(tmp_path: Path, content: bytes) -> None:
    found = read(tmp_path, content)
    assert found.values("file") == ["a.png", "b.png"]
    assert found.values("label") == ["normal", "effusion"]
    assert found.values("patient_id") == ["P1", "P2"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("file,,,label\na,x,y,normal\n", "line 2: column 2 holds a value and has no name"),
        ("file,label,\na,normal,\nb,normal,x\n", "line 3: column 3 holds a value and has no name"),
        (",file,label\nx,a,normal\n", "line 2: column 1 holds a value and has no name"),
        (",file,label\n0,a,normal\n0,b,normal\n", "line 2: column 1"),
        ("file,label,Label\na,normal,effusion\n", "line 1: columns 2 and 3 are both 'label'"),
        ("file,label,label\na,normal,normal\n", "line 1: columns 2 and 3 are both 'label'"),
        ("file,label,Patient ID,patient_id\na,normal,1,2\n", "columns 3 and 4 are both 'patient_id'"),
        ("file,label,Filename\na,normal,b\n", "columns 1 and 3 are both 'file'"),
        ("file,label,Note,NOTE \na,normal,1,2\n", "columns 3 and 4 are both 'note'"),
        ("\nfile,label,label\n", "line 2: columns 2 and 3"),
        ("file,label\na,normal\nb,c.png,effusion\n", "line 3: column 3 holds a value, and the header ends with column 2, 'label'"),
        ("file,age,label\na,45,5,normal\n", "line 2: column 4 holds a value"),
        ("file;label\na;normal\nb;normal;;x\n", "line 3: column 4 holds a value"),
        ('file,label\n"a\nb",normal\nc,normal,x\n', "line 4: column 3"),
        ("file,label\na;normal\n", "line 2, column 1: not parted by ','"),
        ("file,label\na\tnormal\n", "line 2, column 1: not parted by ','"),
        ('file,label\n"a,normal\n', "line 2: a quotation mark is not closed"),
        ('file,label\n"a"b,normal\n', "line 2: a quotation mark"),
        ("file;label,patient_id\na;normal,P\n", "can be parted by ',' or by ';'"),
    ],
)
def test_two_readings_are_refused_with_line_and_column(tmp_path: Path, content: str, place: str) -> None:
    assert place in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04 a workbook", "is a workbook"),
        (b"\xd0\xcf\x11\xe0 an old workbook", "is a workbook"),
        ("file,label\na,normal\n".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfef", "marked as UTF-16"),
        (b"\xef\xbb\xbffile,label\n\xff,normal\n", "marked as UTF-8"),
    ],
)
def test_what_is_no_text_says_how_to_save_it(tmp_path: Path, content: bytes, expected: str) -> None:
    said = refusal(tmp_path, content)
    assert expected in said
    assert "save" in said


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_the_encoding_that_was_assumed_is_told(tmp_path: Path, encoding: str) -> None:
    found = read(tmp_path, "file;label\nJörg – Größe.png;normal\n".replace("–", "-" if encoding == "latin-1" else "–").encode(encoding))
    assert found.values("file")[0].startswith("Jörg")
    assert found.values("file")[0].endswith("Größe.png")
    [note] = found.notes
    assert "Windows-1252" in note
    assert "rg" not in note.replace("Windows", "")


def test_quotes_hold_separators_and_line_ends(tmp_path: Path) -> None:
    found = read(tmp_path, 'file;label;note\n"a;b.png";normal;"two\r\nlines, and ""quotes"""\nc.png;effusion;5" wide\n')
    assert found.values("file") == ["a;b.png", "c.png"]
    assert found.values("note") == ['two\r\nlines, and "quotes"', '5" wide']
    assert found.lines == [2, 4]


@pytest.mark.parametrize(
    ("written", "name"),
    [(written, "patient_id") for written in ("PatientID", "Patient ID", "patient-id", "PATIENT_ID", " patient.id ", "Patient\u00a0Id")]
    + [(written, "file") for written in ("File", "FileName", "file name", "File_Path", "PATH")]
    + [("SOPInstanceUID", "sop_instance_uid"), ("Series Instance UID", "series_instance_uid"), ("Patient's sex", "patient's sex")]
    + [("PatientSex", "sex"), ("Gender", "sex"), ("Patient Age", "age"), ("ViewPosition", "view"), ("Institution Name", "site")],
)
def test_column_names_as_people_write_them(tmp_path: Path, written: str, name: str) -> None:
    assert read(tmp_path, f"{written},label\nx,normal\n").columns == (name, "label")


def test_a_table_without_a_header_quotes_nothing_of_its_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "jane.png,normal,normal\njohn.png,normal,normal,x\n").columns == ()


def test_columns_that_differ_in_a_sign_are_two(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,HER2+,HER2-\na,1,0\n")
    assert table.read(path, ("HER2+", "HER2-")).columns == ("file", "her2+", "her2-")

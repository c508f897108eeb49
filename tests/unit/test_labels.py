"""Labels: from a CSV by file, UID or patient, from a header's attribute, or from a folder's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ingest.labels import Entry, FieldLabels, FolderLabels, Labels, class_names, finding_names, unread
from pipeline.ingest.readers.header import Header
from pipeline.ingest.readers.reading import Quarantined


def labels(tmp_path: Path, text: str) -> Labels:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    return Labels.load(tmp_path / "labels.csv", ("normal", "effusion"))


def test_labels_by_file_uid_or_patient(tmp_path: Path) -> None:
    header = Header(sop_instance_uid="1.2.3", patient_id="A7")
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
        ("file,label\na,healthy\nb,tumour\n", "2 label(s) of the column 'label' match no class, on line(s) 2, 3;"),
        ("name,label\na,normal\n", "needs a column 'label' and one of file"),
        ("", "needs a column"),
    ],
)
def test_bad_label_tables_say_what_to_mend(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        labels(tmp_path, text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_unknown_labels_are_told_by_their_first_rows_and_never_by_their_text(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        labels(tmp_path, "file,label\n" + "\n".join(f"f{n},odd{n}" for n in range(9)))
    assert "9 label(s)" in str(caught.value)
    assert "line(s) 2, 3, 4, 5, 6 and 4 more" in str(caught.value)
    assert "odd" not in str(caught.value)


def test_lines_are_those_of_the_file_whatever_stands_in_its_cells_and_between_its_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"match no class, on line\(s\) 5;"):
        labels(tmp_path, 'file,label\n"a\nb",normal\n\nc,odd\n')
    path = tmp_path / "labels.csv"
    path.write_text('file,normal,effusion\n"a\nb",1,0\n\nc,1,maybe\n')
    with pytest.raises(InputError, match=r"labels\.csv, line 5: other values than numbers for effusion"):
        Labels.load(path, ("normal", "effusion"), several=True)


def test_a_series_and_a_patient_column_beside_the_file(tmp_path: Path) -> None:
    header = Header(series_instance_uid="1.5")
    assert labels(tmp_path, "series_instance_uid,label\n1.5,effusion\n").find("x", header) == (0, 1)
    table = labels(tmp_path, "file,label,patient_id\na.png,normal,P1\nb.png,normal,P2\nb.png,normal,P3\n")
    assert table.table["a.png"].stated == {"patient_id": "P1"}
    assert table.find("a.png", header) == (1, 0)
    assert isinstance(table.find("b.png", header), Quarantined)


def test_several_findings_have_a_column_each(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,Normal,effusion\na,0,1\nb,1,1\nc,0,0\nd,-1,\ne,,\n")
    table = Labels.load(path, ("normal", "effusion"), several=True)
    header = Header()
    assert [table.find(name, header) for name in "abcd"] == [(0, 1), (1, 1), (0, 0), (-1, -1)]
    assert isinstance(table.find("e", header), Quarantined)
    path.write_text("file,normal,effusion\na,u,1\n")
    with pytest.raises(InputError, match="write 1, 0, or -1"):
        Labels.load(path, ("normal", "effusion"), several=True)
    path.write_text("file,normal\na,1\n")
    with pytest.raises(InputError, match="a column for each class"):
        Labels.load(path, ("normal", "effusion"), several=True)


def test_several_findings_in_one_column_are_parted_by_bars(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na,Nodule|effusion\nb,No Finding\nc,nodule\nd,\n")
    table = Labels.load(path, ("effusion", "nodule"), several=True)
    assert [table.find(name, Header()) for name in "abc"] == [(1, 1), (0, 0), (0, 1)]
    assert isinstance(table.find("d", Header()), Quarantined)
    path.write_text("file,label\na,Nodule|Jane Roe\n")
    with pytest.raises(InputError, match=r"1 label\(s\) of the column 'label' hold what is no class, on line\(s\) 2") as caught:
        Labels.load(path, ("effusion", "nodule"), several=True)
    assert "Roe" not in str(caught.value)


def test_several_findings_may_be_a_list(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("""file,label\na,"[""Nodule"", ""pleural effusion""]"\nb,[]\nc,['nodule']\nd,[Jane Roe]\n""")
    assert finding_names(path) == ("Jane Roe", "nodule", "pleural effusion")
    with pytest.raises(InputError, match=r"1 label\(s\) of the column 'label' hold what is no class, on line\(s\) 5") as caught:
        Labels.load(path, ("pleural effusion", "nodule"), several=True)
    assert "Roe" not in str(caught.value)
    path.write_text(path.read_text().replace("d,[Jane Roe]\n", ""))
    table = Labels.load(path, ("pleural effusion", "nodule"), several=True)
    assert [table.find(name, Header()) for name in "abc"] == [(1, 1), (0, 0), (0, 1)]


def test_marks_may_be_words_and_a_missing_one_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,a,b\np,TRUE,no\nq,False,Yes\nr,uncertain,absent\ns,nan,present\nt,NA,n/a\n")
    table = Labels.load(path, ("a", "b"), several=True)
    assert [table.find(name, Header()) for name in "pqrs"] == [(1, 0), (0, 1), (-1, 0), (-1, 1)]
    assert isinstance(table.find("t", Header()), Quarantined)
    assert finding_names(path) == ("a", "b")


def test_lists_are_read_as_json_python_and_numpy_write_them(tmp_path: Path) -> None:
    """A comma within quotes is a name's, and numpy writes none between the names."""
    path = tmp_path / "labels.csv"
    rows = ["['nodule', \"mass, upper\"]", "['nodule' 'mass, upper'\n 'crohn''s']", "[]", "['normal']", "nan", '["nodule"]']
    rows[1] = "['nodule' 'mass, upper'\n \"crohn's\"]"
    path.write_text("file,label\n" + "".join('{},"{}"\n'.format("abcdef"[n], row.replace('"', '""')) for n, row in enumerate(rows)))
    names = finding_names(path)
    assert names == ("crohn's", "mass, upper", "nodule"), "neither normal nor nan is a finding"
    table = Labels.load(path, names, several=True)
    assert [table.find(name, Header()) for name in "abcdf"] == [(0, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), (0, 0, 1)]
    assert isinstance(table.find("e", Header()), Quarantined)
    told = Labels.load(path, (*names, "normal"), several=True)
    assert told.find("d", Header()) == (0, 0, 0, 1), "where it is a class, it is one"


@pytest.mark.parametrize("separator", [";", ", "])
def test_findings_with_other_bars_between_are_no_classes_of_their_own(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f'file,label\na,Effusion\nb,Nodule\nc,"Effusion{separator}Nodule"\nd,No Finding\n')
    with pytest.raises(InputError, match=rf"several findings with '{separator[0]}' between, first on line 4: write bars"):
        finding_names(path)
    path.write_text(f'file,label\na,Effusion\nb,"Mass{separator}upper"\n')
    assert class_names(path) == ("Effusion", f"Mass{separator}upper")
    assert finding_names(path) == ()


def test_columns_that_are_not_read_are_named_with_the_reason_of_those_that_are_nearly_findings(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,a,b,odd,all,none,note,sex\np,1,0,1,1,0,x,F\nq,0,1,0,1,0,y,M\nr,0,1,maybe,1,0,z,M\n")
    assert finding_names(path) == ("a", "b")
    reasons = ["odd (on line 4 neither 1, 0 nor -1)", "all (1 in all rows)", "none (0 in all rows)", "note"]
    assert unread(path, ("a", "b")) == reasons


def test_no_finding_says_that_what_is_left_blank_is_absent(tmp_path: Path) -> None:
    """CheXpert's own table leaves the findings of a normal image blank, and so would all normal images be without a label."""
    path = tmp_path / "labels.csv"
    path.write_text("file,No Finding,Effusion,Nodule\na,1.0,,\nb,,1.0,\nc,0.0,,-1.0\nd,,,\n")
    assert "no finding" not in finding_names(path)
    table = Labels.load(path, ("effusion", "nodule"), several=True)
    assert [table.find(name, Header()) for name in "abc"] == [(0, 0), (1, -1), (-1, -1)]
    assert isinstance(table.find("d", Header()), Quarantined)
    named = Labels.load(path, ("no finding", "effusion"), several=True)
    assert [named.find(name, Header()) for name in "abc"] == [(1, -1), (-1, 1), (0, -1)]


def test_rows_that_differ_on_an_attribute_say_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label,severity,side\na,x,0.5,left\na,x,,right\nb,x,1,\nb,x,2,left\n")
    table = Labels.load(path, ("x",), attributes={"severity": "number", "side": ("left", "right")})
    found = [table.entry(name, Header()) for name in "ab"]
    assert [entry.asked for entry in found if isinstance(entry, Entry)] == [
        {"severity": 0.5, "side": ""},
        {"severity": None, "side": "left"},
    ]


def test_paths_out_of_the_folder_are_named(tmp_path: Path) -> None:
    table = labels(tmp_path, "file,label\n../x.dcm,normal\n/etc/passwd,normal\na/../../b,normal\nC:\\x,normal\nok/a..b.dcm,normal\n")
    assert table.outside() == ["../x.dcm", "/etc/passwd", "C:/x", "a/../../b"]


@pytest.mark.parametrize(
    "spelling",
    [
        "Normal",
        "NORMAL",
        "nor\u200bmal",
        "\uff2eormal",
        "normal.",
        "'normal'",
        "\u201cnormal\u201d",
        "`normal`",
        "normal\u00a0",
        "nor\u00admal",
    ],
)
def test_a_class_is_one_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.png,normal\nb.png,normal\nc.png,{spelling}\nd.png,no finding\ne.png,No_Finding\nf.png,no-finding\n")
    assert len(class_names(path)) == 2
    assert class_names(path)[-1] == "normal"
    found = Labels.load(path, ("normal", "no finding"))
    assert [found.find(f"{name}.png", None) for name in "abcdef"] == [(1, 0)] * 3 + [(0, 1)] * 3
    assert any("3 spellings of its label 'No_Finding' are taken for one class" in note for note in found.notes)


@pytest.mark.parametrize("names", [("HER2+", "HER2-"), ("<5", ">5"), ("1", "10"), ("T1", "T-1"), ("1", "-1"), ("+", "-"), ("a/b", "ab")])
def test_classes_that_differ_in_a_sign_are_two(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.png,{names[0]}\nb.png,{names[1]}\n")
    assert class_names(path) == tuple(sorted(names))
    found = Labels.load(path, names)
    assert (found.find("a.png", None), found.find("b.png", None)) == ((1, 0), (0, 1))


@pytest.mark.parametrize("spelling", ["nor\u200bmal", "'normal'", "\u201cnormal\u201d"])
def test_a_class_is_not_called_by_letters_that_nobody_sees_or_quotes(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.png,{spelling}\nb.png,{spelling}\nc.png,ill\n")
    assert class_names(path) == ("ill", "normal")
    assert Labels.load(path, ("ill", "normal")).find("a.png", None) == (0, 1)


def test_numbers_as_classes_are_one_with_and_without_decimals(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,label\na.png,1\nb.png,1.0\nc.png,0.0\nd.png,0\ne.png,1\nf.png,01\ng.png,00\n")
    assert class_names(path) == ("0", "1")
    assert Labels.load(path, ("0", "1")).find("b.png", None) == (0, 1)


@pytest.mark.parametrize(
    "empty", ["-", "--", "?", ".", "\u2014", "*", "NA", "n/a", "<NA>", "NaT", "#REF!", "#VALUE!", "#DIV/0!", "(blank)"]
)
def test_a_cell_that_says_that_there_is_no_label_names_no_class(tmp_path: Path, empty: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.png,normal\nb.png,ill\nc.png,{empty}\n")
    assert class_names(path) == ("ill", "normal")
    missing = Labels.load(path, ("ill", "normal")).find("c.png", None)
    assert isinstance(missing, Quarantined)
    assert "leaves it empty" in missing.reason
    path.write_text(f"file,ill,old\na.png,1,1\nb.png,0,0\nc.png,{empty},1\n")
    assert Labels.load(path, ("ill", "old"), several=True).find("c.png", None) == (-1, 1)


@pytest.mark.parametrize("word", ["unknown", "None", "missing", "not reported", "99", "-1"])
def test_a_label_that_may_say_that_there_is_none_is_told(tmp_path: Path, word: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"file,label\na.png,normal\nb.png,{word}\n")
    [note] = Labels.load(path, ("normal", word)).notes
    assert f"its label {word!r} is taken for a class: empty its cells" in note


def test_an_attribute_of_the_header_names_the_class() -> None:
    found = FieldLabels("BodyPartExamined", ("Chest", "Hand"))
    assert found.find("x", Header(also={"BodyPartExamined": "CHEST"})) == (1, 0)
    for value, expected in (("SKULL", "none of ingest.classes"), ("", "has no BodyPartExamined")):
        header = Header(also={"BodyPartExamined": value})
        missing = found.find("x", header)
        assert isinstance(missing, Quarantined)
        assert expected in missing.reason
        assert "SKULL" not in missing.reason


def test_a_folder_names_the_class() -> None:
    found = FolderLabels(("cat", "dog"))
    assert found.find("dog/deep/a.png", None) == found.find("Dog /a.png", None) == (0, 1)
    for name in ("a.png", "bird/a.png"):
        assert isinstance(found.find(name, None), Quarantined)


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

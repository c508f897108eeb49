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

"""What is printed says where something is wrong, and never what stands there: it may be a name."""

import pytest

from tests.unit.command import refused, run_main

NEEDLE = "DOEJANE"
SEVERAL = ("ingest.several_findings=true",)
TABLES = {
    "a label that is no class": (f"file,label\n{NEEDLE}.dcm,normal\nb.dcm,{NEEDLE}\n", ()),
    "many of them": ("file,label\n" + "".join(f"{number}.dcm,{NEEDLE} {number}\n" for number in range(99)), ()),
    "with an escape": (f"file,label\na.dcm,\x1b[31m{NEEDLE}\n", ()),
    "with a quote": (f'file,label\na.dcm,"{NEEDLE}, ""x"""\n', ()),
    "a long one": (f"file,label\na.dcm,{NEEDLE * 9999}\n", ()),
    "a class in other letters": (f"file,label\na.dcm,Normal {NEEDLE}\n", ()),
    "shifted columns": (f"patient_id,label\n1,{NEEDLE}\n", ()),
    "labels by patient": (f"patient_id,label\n{NEEDLE},{NEEDLE}\n", ()),
    "a mark that is none": (f"file,normal,effusion\na.dcm,1,{NEEDLE}\n", SEVERAL),
    "several such marks": (f"file,normal,effusion\na.dcm,{NEEDLE},{NEEDLE}\n", SEVERAL),
    "no column of labels": (f"file,diagnosis\n{NEEDLE}.dcm,{NEEDLE}\n", ()),
    "no header": (f"{NEEDLE},{NEEDLE}\n1,2\n", ()),
    "no file of that name": (f"file,label\n{NEEDLE}.dcm,normal\n", ()),
    "a path out of the folder": (f"file,label\n../{NEEDLE}.dcm,normal\n", ()),
    "contradictory labels": (f"file,label\n{NEEDLE}.dcm,normal\n{NEEDLE}.dcm,effusion\n", ()),
}


@pytest.mark.parametrize("kind", TABLES)
def test_no_text_of_the_label_table_is_told(monkeypatch, capfd, tmp_path, kind):
    table, settings = TABLES[kind]
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{NEEDLE}.dcm").write_bytes(b"no image")
    (source / "labels.csv").write_text(table)
    words = ["ingest.classes=[normal, effusion]", f"ingest.path={source}", "train.compile=false", *settings]
    options = [part for word in words for part in ("--set", word)]
    process = run_main(monkeypatch, capfd, "run", "dicom_folder", "--until", "ingest", "--out", tmp_path / "run", *options)
    refused(process)
    assert NEEDLE not in process.stdout + process.stderr
    assert NEEDLE not in (tmp_path / "run" / "log.jsonl").read_text()


def test_the_lines_of_unknown_labels_are_told(monkeypatch, capfd, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.dcm").write_bytes(b"no image")
    (source / "labels.csv").write_text("file,label\na.dcm,normal\nb.dcm,x\nc.dcm,y\nd.dcm,x\n")
    options = ("--set", f"ingest.path={source}", "--set", "ingest.classes=[normal, effusion]", "--out", tmp_path / "run")
    refused(run_main(monkeypatch, capfd, "run", "dicom_folder", "--until", "ingest", *options), "2 label(s)", "3, 4, 5", "ingest.classes")

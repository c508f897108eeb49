"""A first look at somebody's data finds what ingest will find, and says what to do where nothing tells the classes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cohort_runs import message, pictures
from dicom_folder import cohort, dataset, ramp, write
from PIL import Image

from pipeline import fit_recipe
from pipeline.api import init
from pipeline.config import config_of, load_config
from pipeline.config.load import parse, written
from pipeline.errors import InputError
from pipeline.first_config import first
from pipeline.images import ImageSet
from pipeline.ingest.glance import glance
from pipeline.ingest.look import Found, look
from pipeline.ingest.source import source_digest
from pipeline.progress import Console, Reporter
from pipeline.runner import run_stages
from privacy import limits
from tests.unit.command import refused, run_main


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("SYNTHCOHORT_WORKERS", "1")


def told(path):
    with pytest.raises(InputError) as error:
        look(path)
    return message(error)


def table(root, rows, name="labels.csv"):
    (root / name).write_text("\n".join(rows) + "\n")
    return root


def medmnist_file(path, counts=((30, 10), (6, 4), (10, 6))):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, (normal, ill) in zip(("train", "val", "test"), counts):
        labels = np.array([[1]] * normal + [[0]] * ill, np.uint8)
        arrays |= {f"{split}_images": rng.integers(0, 255, (len(labels), 28, 28), np.uint8), f"{split}_labels": labels}
    np.savez(path, **arrays)
    return path


def test_pictures_in_class_folders(tmp_path):
    found = look(pictures(tmp_path, 20))
    assert (found.source, found.files, found.side, found.colour, found.table) == ("pictures", 20, 40, False, None)
    assert found.images == {"a": 10, "b": 10}
    assert found.patients is None
    assert found.people is None


@pytest.mark.parametrize(
    "folder", [".thumbnails", "__MACOSX/a", "@eaDir", ".Trash-1000/files", "$RECYCLE.BIN", "a/.ipynb_checkpoints", "b/@eaDir", "lost+found"]
)
def test_what_is_hidden_or_a_systems_own_is_neither_a_class_nor_an_image(tmp_path, folder):
    root = pictures(tmp_path / "data", 40)
    before = source_digest(config_of(parse(first(look(root), "cpu").text, "x"), ()), tmp_path / "run")
    place = root / folder
    place.mkdir(parents=True)
    for number in range(9):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)).save(place / f"{number}.png")
    for name in (".DS_Store", "Thumbs.db", "a/desktop.ini", "a/._000.png"):
        (root / name).write_bytes(b"x")
    found = look(root)
    assert found.images == {"a": 20, "b": 20}
    config = config_of(parse(first(found, "cpu").text, "x"), ("generate.per_class=8",))
    assert source_digest(config, tmp_path / "run") == before, "what a file manager writes redoes nothing"
    run_stages(config, tmp_path / "run", Reporter(tmp_path / "log.jsonl", Console(quiet=True)), until="ingest")
    assert len(ImageSet.load(tmp_path / "run" / "ingest")) == 40
    left = pd.read_csv(tmp_path / "run" / "ingest" / "quarantine.csv")
    assert next(iter(Path(folder).parts)) in " ".join(left["file"])
    assert len(left) == 5, "a folder is told once"
    assert left["reason"].str.startswith("hidden, or a system's own").all()


def test_pictures_with_a_table_of_patients(tmp_path):
    root = pictures(tmp_path, 20)
    table(
        root,
        ["File Name;Label;Patient ID", *(f"{'ab'[n % 2]}/{n:03d}.png;{('ill', 'well')[n % 2]};P {n // 4}" for n in range(18))],
        "mine.csv",
    )
    found = look(root)
    assert found.table == "mine.csv"
    assert found.images == {"ill": 9, "well": 9}
    assert (found.patients, found.people, found.unlabelled) == (5, {"ill": 5, "well": 5}, 2)


def test_a_table_without_labels_beside_class_folders_says_whose_they_are(tmp_path):
    root = pictures(tmp_path, 20)
    table(root, ["file,patient_id", *(f"{'ab'[n % 2]}/{n:03d}.png,{n // 2}" for n in range(20))])
    found = look(root)
    assert (found.images, found.patients) == ({"a": 10, "b": 10}, 10)


def test_a_folder_of_dicom_counts_the_headers_patients(tmp_path):
    found = look(cohort(tmp_path, 6))
    assert (found.source, found.modality, found.side) == ("dicom", "DX", 40)
    assert (found.images, found.patients, found.people) == ({"effusion": 6, "normal": 6}, 6, {"effusion": 3, "normal": 3})


def test_a_table_of_patients_labels_all_their_dicom_files(tmp_path):
    root = cohort(tmp_path, 6)
    table(root, ["patient_id,label", *(f"MRN-{n},{('x', 'y')[n % 2]}" for n in range(6))])
    found = look(root)
    assert (found.images, found.patients) == ({"x": 6, "y": 6}, 6)


def test_of_very_many_headers_some_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.ingest.look.HEADERS", 8)
    found = look(cohort(tmp_path, 8))
    assert found.headers == 8
    assert found.images == {"effusion": 8, "normal": 8}  # the table tells them by file
    assert 4 <= found.patients <= 8


def test_a_medmnist_file(tmp_path):
    found = look(medmnist_file(tmp_path / "breastmnist.npz"))
    assert (found.source, found.dataset, found.side, found.modality) == ("medmnist", "breastmnist", 28, "US")
    assert found.images == {"malignant": 20, "normal_benign": 46}
    assert found.train == 40
    assert "such as" in told(tmp_path)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("file,effusion,nodule,side,patient_id", lambda n: f"{int(n % 2 == 0)},{int(n % 3 == 0)},left,p{n // 2}"),
        (
            "file,effusion,nodule,patient_id",
            lambda n: f"{'01'[n % 2 == 0]}.0,{({1: '', 2: '-1'}).get(n, int(n % 3 == 0))},p{n // 2}",
        ),
        (
            "file,label,patient_id",
            lambda n: f"{'|'.join(['Effusion'] * (n % 2 == 0) + ['Nodule'] * (n % 3 == 0)) or 'No Finding'},p{n // 2}",
        ),
    ],
    ids=["columns", "as numbers, and unknown", "bars"],
)
def test_an_image_may_have_several_findings_or_none(tmp_path, header, row):
    root = table(pictures(tmp_path / "data", 24, fill="img/{number}.png"), [header, *(f"img/{n}.png,{row(n)}" for n in range(24))])
    found = look(root)
    names = [name.lower() for name in found.images]
    assert found.several
    assert dict(zip(names, found.images.values())) == {"effusion": 12, "nodule": 8}
    assert (found.labelled, found.unlabelled, found.patients) == (24, 0, 12)
    made = first(found, "cpu")
    assert made.config.ingest.several_findings
    assert made.config.generate.guidance_scale > 1
    run_stages(made.config, tmp_path / "run", Reporter(tmp_path / "log", Console(quiet=True)), until="ingest")
    rows = ImageSet.load(tmp_path / "run" / "ingest").rows
    assert [(rows[f"finding_{name}"] == 1).sum() for name in found.images] == [12, 8]


def test_marks_beside_class_folders_are_no_findings(tmp_path):
    root = table(pictures(tmp_path, 20), ["file,smoker,ill,sex", *(f"{'ab'[n % 2]}/{n:03d}.png,{n % 2},{n // 10},F" for n in range(20))])
    found = look(root)
    assert (found.several, found.images) == (False, {"a": 10, "b": 10})


def test_a_medmnist_file_of_several_findings(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 30), ("val", 10), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count)[:, None] % np.arange(2, 16) == 0).astype(np.uint8)
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    found = look(tmp_path / "chestmnist.npz")
    assert (found.several, found.labelled, found.train, len(found.images)) == (True, 52, 30, 14)
    made = first(found, "cpu")
    assert made.config.ingest.multi_label
    assert made.outlook.units == 30
    assert "SPLIT BY IMAGE" in made.text


def test_a_workbook_is_not_read_and_that_is_said(monkeypatch, capfd, tmp_path):
    loose = pictures(tmp_path / "loose", 6, fill="{number}.png")
    (loose / "labels.xlsx").write_bytes(b"PK")
    assert "labels.xlsx is a workbook, which is not read: save its sheet as labels.csv" in told(loose)
    sorted_ = pictures(tmp_path / "sorted", 6)
    (sorted_ / "patients.xlsx").write_bytes(b"PK")
    assert "patients.xlsx is a workbook" in run_main(monkeypatch, capfd, "init", sorted_).stderr


def test_one_of_a_thing_is_told_in_the_singular(monkeypatch, capfd, tmp_path):
    root = pictures(tmp_path / "data", 4, fill="{name}/{number}.png")
    table(root, ["file,label,patient_id", "a/0.png,a,P1", "b/1.png,b,P2", "a/2.png,a,P1"])
    said = run_main(monkeypatch, capfd, "init", root).stderr
    assert "3 images of 2 patients in 2 classes" in said
    assert "b: 1 image of 1 patient\n" in said
    assert "not read" not in said
    table(root, ["file,label,patient_id,severity,[b]note", "a/0.png,a,P1,1,x", "b/1.png,b,P2,2,y"])
    assert "Columns of labels.csv that are not read: severity, [b]note.\n" in run_main(monkeypatch, capfd, "init", root).stderr
    assert "1 file without a label will be left out" in said


def test_volumes_are_nifti(tmp_path):
    import nibabel

    for number in range(4):
        volume = nibabel.Nifti1Image(np.full((20, 20, 12), number, np.int16), np.eye(4))
        nibabel.save(volume, tmp_path / f"{number}.nii.gz")
    table(tmp_path, ["file,label", *(f"{n}.nii.gz,{'ab'[n % 2]}" for n in range(4))])
    found = look(tmp_path)
    assert (found.source, found.files, found.side, found.images) == ("nifti", 4, 20, {"a": 2, "b": 2})
    made = first(found, "cpu")
    assert made.config.ingest.not_trainable() is not None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: pictures(root, 6, fill="{number}.png"), "a folder for each class"),
        (lambda root: pictures(root, 6, fill="train/{name}/{number}.png"), "all images would be of one class: give"),
        (
            lambda root: [pictures(root, 6, fill=f"{split}/{{name}}/{{number}}.png") for split in ("train", "test")],
            "are splits or parts of a set and no classes",
        ),
        (
            lambda root: [pictures(root, 6, fill=f"{part}/{{name}}/{{number}}.png") for part in ("Training_Set", "testing set", "docs")],
            "holds Training_Set, testing set, which are splits or parts of a set",
        ),
        (
            lambda root: [pictures(root, 6, fill=f"{part}/{{name}}{{number}}.png") for part in ("images", "masks")],
            "holds images, masks, which are",
        ),
        (lambda root: pictures(root, 44, fill="DOE{number}/{name}.png"), "patients or studies"),
        (lambda root: pictures(root, 6, fill="one/{number}.png"), "of two classes or more"),
        (lambda root: table(pictures(root, 6, fill="{number}.png"), ["image,diagnosis", "1,x"]), "no column file: name the column"),
        (lambda root: table(pictures(root, 6, fill="{number}.png"), ["file,diagnosis", "1,x"]), "call the one with the classes so"),
        (
            lambda root: [table(pictures(root, 6), ["file,label", "a/000.png,x"], name) for name in ("x.csv", "y.csv")],
            "name the one labels.csv",
        ),
        (lambda root: table(pictures(root, 6, fill="{number}.png"), ["file,label", "0.png,"]), "'label' is empty"),
        (lambda root: write(root / "a.dcm", dataset(ramp())), "put a labels.csv there"),
        (lambda root: root.mkdir(), "holds no file"),
        (lambda root: root.mkdir() or (root / "a.docx").write_text("x"), "no DICOM, NIfTI, PNG, JPEG or TIFF image"),
        (lambda root: root.write_text("x"), "is a file: give the folder"),
        (lambda root: None, "no such folder"),
    ],
)
def test_where_nothing_tells_the_classes_it_says_what_to_do(tmp_path, make, said):
    make(tmp_path / "data")
    words = told(tmp_path / "data")
    assert said in words
    assert "DOE" not in words


def test_a_file_that_is_no_set_of_medmnist(tmp_path):
    assert "breastmnist.npz" in told(medmnist_file(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    "name", ["normal", "no", "on", "true", "null", "010", "1.5", "2020-01-02", "a, b", "it's", "état", "a: b", "#1", "~", "x y"]
)
def test_a_class_is_written_so_that_it_is_read_as_it_is(name):
    assert parse(f"[{written(name)}, {written('b')}]", "here") == [name, "b"]


@pytest.mark.parametrize("name", ["2024", "1.5", "true", "null", "no", "010", "2020-01-02", "scans"])
def test_a_run_is_called_as_its_folder_is(tmp_path, name):
    assert first(look(pictures(tmp_path / name, 4)), "cpu").config.name == name


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ["image,label,patient_id", *(f"{n}.png,{'ab'[n % 2]},P{n}" for n in range(6))],
            "its column 'image' has the files' names: call it 'file'",
        ),
        (["Study X;;", "file;label", *(f"{n}.png;{'ab'[n % 2]}" for n in range(6))], "its header seems to be on line 2: delete"),
        (["# exported", "# twice", "file,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(6))], "on line 3: delete the lines above"),
        (["file label", *(f"{n}.png {'ab'[n % 2]}" for n in range(6))], "values are parted by commas, semicolons, tabs or bars"),
        (['"file,label"', *(f'"{n}.png,a"' for n in range(6))], "a line is not quoted as a whole"),
        (['"file" "label"', '"1" "0.png" "a"'], "part values by commas"),
        (["file,x,y", *(f"{n}.png,{n % 2},{99 if n == 1 else n % 2}" for n in range(6))], "nearly such: y (on line 3 neither 1, 0 nor -1)"),
        (
            ["file,label", *(f"{n}.png,{n / 7:.3f}" for n in range(24))],
            "24 different values, 24 of them in fewer than 8 rows, which are no classes",
        ),
    ],
)
def test_a_table_as_programs_write_it_says_what_to_change(tmp_path, rows, said):
    table(pictures(tmp_path / "data", 24, fill="{number}.png"), rows)
    assert said in told(tmp_path / "data")


@pytest.mark.parametrize("rows", [["a,b", "1,2"], ["file,md5", "a/000.png,x"], ["file,blurred,turned", "a/000.png,1,0", "b/001.png,0,1"]])
def test_a_table_that_says_no_label_and_no_patient_is_not_read_beside_class_folders(monkeypatch, capfd, tmp_path, rows):
    root = table(pictures(tmp_path / "data", 40), rows, "notes.csv")
    done = run_main(monkeypatch, capfd, "init", root, "--write", tmp_path / "mine.yaml")
    assert "notes.csv is not read: none of its columns is called label or patient_id" in " ".join((done.stdout + done.stderr).split())
    assert glance(load_config(tmp_path / "mine.yaml").ingest).units == 40
    run_stages(load_config(tmp_path / "mine.yaml"), tmp_path / "run", Reporter(tmp_path / "log", Console(quiet=True)), until="ingest")
    assert len(ImageSet.load(tmp_path / "run" / "ingest")) == 40


def test_folders_of_patients_that_hold_the_classes_are_not_passed_over(tmp_path):
    root = pictures(tmp_path / "data", 24, fill="{number}.png")
    for number, path in enumerate(sorted(root.glob("*.png"))):
        place = root / f"P{number % 3}" / ("normal", "ill")[number // 3 % 2]
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    [told] = look(root).notes
    assert "each folder holds folders of the same 2 names: if those are the classes" in told
    assert look(pictures(tmp_path / "sorted", 24, fill="{name}/P{number}/x.png")).notes == []


def test_images_whose_patient_nobody_names_are_counted(tmp_path):
    root = pictures(tmp_path / "data", 24, fill="{number}.png")
    table(root, ["file,label,patient_id", *(f"{n}.png,{'ab'[n // 2 % 2]},{'' if n % 2 else f'P{n}'}" for n in range(24))])
    found = look(root)
    assert found.patients == 12
    assert any("images without a patient id, left out: 12; a merged cell" in note for note in found.notes)


def test_what_was_assumed_of_a_table_is_told_before_the_first_run(monkeypatch, capfd, tmp_path):
    root = pictures(tmp_path / "data", 24, fill="{number}.png")
    ids = [f"{n // 2}" if n % 2 else f"{n // 2:03d}" for n in range(24)]
    table(
        root,
        ["file,label,patient_id", *(f"{n}.png,{'a' if n % 2 else '?' if n < 2 else 'b'},{who}" for n, who in enumerate(ids)), "Total,b,"],
    )
    said = " ".join(run_main(monkeypatch, capfd, "init", root).stderr.split())
    assert "differ from another in leading zeros only" in said
    assert "1 of 25 rows match no file; the first of them is on line 26" in said
    assert "1 x no label: the label table leaves it empty" in said


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", ["pictures", "dicom", "medmnist"])
def test_what_is_written_is_a_configuration_for_what_was_found(tmp_path, kind, where):
    data = tmp_path / "my data"
    if kind == "medmnist":
        tmp_path.mkdir(exist_ok=True)
        data = medmnist_file(tmp_path / "breastmnist.npz")
    else:
        (pictures if kind == "pictures" else cohort)(data, 24)
    made = first(look(data), where)
    read = config_of(parse(made.text, "here"))
    assert read == made.config
    assert read.ingest.source == kind
    assert read.generate.per_class * 2 >= 1000
    assert read.ingest.size % 4 == 0
    assert read.train is not None
    # every level of the network halves a whole side
    levels = len(fit_recipe.widths(read.ingest.size, read.train.patch, fit_recipe.SMALL, where))
    assert read.ingest.size // read.train.patch % 2 ** (levels - 1) == 0
    assert read.train.compile == (where == "cuda")


@pytest.mark.parametrize(("patients", "passes"), [(700, False), (800, True), (1000, True), (3000, True)])
def test_shares_are_chosen_that_let_the_cohort_pass_where_any_do(patients, passes):
    counts = {"a": patients, "b": 9}
    found = Found("dicom", Path("/x"), None, patients, 64, False, "DX", "labels.csv", counts, counts, patients)
    made = first(found, "cpu")
    assert (made.outlook.shortages() == []) == passes
    assert (made.outlook.sealed >= limits.MIN_HOLDOUT) == passes


def test_ingest_finds_what_the_look_found(tmp_path):
    root = pictures(tmp_path / "data", 48)
    table(root, ["file,label,patient_id", *(f"{'ab'[n % 2]}/{n:03d}.png,{'ab'[n % 2]},{n // 2}" for n in range(48))])
    made = init(root, write=tmp_path / "mine.yaml")
    run_stages(load_config(tmp_path / "mine.yaml"), tmp_path / "run", Reporter(tmp_path / "log", Console(quiet=True)), until="ingest")
    rows: pd.DataFrame = ImageSet.load(tmp_path / "run" / "ingest").rows
    assert made.found.patients == rows["patient"].nunique()
    assert made.found.images == {name: int((rows[f"finding_{name}"] == 1).sum()) for name in ("a", "b")}


def test_the_command_writes_where_it_is_told_and_nowhere_else(monkeypatch, capfd, tmp_path):
    root = pictures(tmp_path / "data", 24)
    before = sorted(tmp_path.rglob("*"))
    process = run_main(monkeypatch, capfd, "init", root)
    assert process.returncode == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert config_of(parse(process.stdout, "stdout")).ingest.classes == ("a", "b")
    assert "SPLIT BY IMAGE" in process.stderr
    assert "300 sealed images are needed" in " ".join(process.stderr.split())
    file = tmp_path / "mine.yaml"
    process = run_main(monkeypatch, capfd, "init", root, "--write", file)
    assert f"synthcohort run {file}" in process.stdout
    assert load_config(file).ingest.path == root
    refused(run_main(monkeypatch, capfd, "init", root, "--write", file), "exists", "--write")
    refused(run_main(monkeypatch, capfd, "init", root, "--write", root / "c.yaml"), "outside")


def test_a_folder_is_run_as_it_is(monkeypatch, capfd, tmp_path):
    root = pictures(tmp_path / "data" / "scans", 60)
    monkeypatch.chdir(tmp_path)
    process = run_main(monkeypatch, capfd, "run", root, "--until", "ingest")
    assert process.returncode == 0, process.stderr
    assert "scans.yaml" in process.stdout
    assert json.loads((tmp_path / "runs" / "scans" / "ingest" / "cohort.json").read_text())["classes"] == ["a", "b"]
    text = (tmp_path / "scans.yaml").read_text()
    (tmp_path / "scans.yaml").write_text(text.replace("seed: 0", "seed: 0\nanyway: true"))
    again = run_main(monkeypatch, capfd, "run", root, "--until", "ingest")
    assert "Nothing to do" in again.stdout
    assert "anyway: true" in (tmp_path / "scans.yaml").read_text()
    other = pictures(tmp_path / "other" / "scans", 20)
    refused(run_main(monkeypatch, capfd, "run", other), "is for other data", "--write")
    refused(run_main(monkeypatch, capfd, "run", tmp_path / "runs" / "scans"), "is a run folder", "synthcohort show")
    refused(run_main(monkeypatch, capfd, "init", tmp_path / "runs" / "scans"), "is a run folder", "synthcohort show")
    refused(run_main(monkeypatch, capfd, "plan", root), "is a folder", "synthcohort init")


def test_a_shipped_name_wins_over_a_folder(monkeypatch, capfd, tmp_path):
    pictures(tmp_path / "quickstart", 6)
    monkeypatch.chdir(tmp_path)
    assert "phantom" in run_main(monkeypatch, capfd, "plan", "quickstart").stdout
    process = run_main(monkeypatch, capfd, "run", "quickstart", "--set", "train.bach=1")
    refused(process, "train.batch")
    assert "the folder: synthcohort run ./quickstart" in " ".join(process.stdout.split())


def test_colour_is_kept(tmp_path):
    for number in range(12):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)).save(path)
    assert first(look(tmp_path), "cpu").config.ingest.colour

"""What people give as somebody's synthetic images: every form that is read, and one line for each that cannot be."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import typer
from PIL import Image

from pipeline import api
from pipeline.api.foreign import foreign_config
from pipeline.artifacts import read_json, write_json
from pipeline.commands import foreign as foreign_commands  # noqa: F401 (its commands join the application)
from pipeline.commands.app import app
from pipeline.config import config_of
from pipeline.errors import InputError
from pipeline.images import ImageSet
from pipeline.release.dicom_export import dicom_bytes
from tests.integration.foreign import CLASSES, SIDE, phantoms, pictures

# Each reads and judges folders of images in worker processes.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_worker")]


SIZES = {"train": 16, "holdout": 12, "synthetic": 20}


def imported(a, b, c, run, labels=None, settings=()):
    """As a release imports them, with classes; without sparing any of so small a holdout."""
    shares = () if c is None else ("ingest.val_share=0", "ingest.test_share=0")
    config = foreign_config("release", a, b, c, labels, [*shares, *settings])
    return ImageSet.load(api.run(config, out=run, until="generate").folder / "generate")


def made():
    images, labels, _ = phantoms(20, 11)
    return images, labels


def multiset(images):
    return sorted(np.asarray(image).tobytes() for image in images)


def as_dicom(folder):
    folder.mkdir()
    for number, (image, label) in enumerate(zip(*made())):
        path = folder / f"{number}.dcm"
        path.write_bytes(dicom_bytes(image[None], image_id=f"SYN-{number:06d}", label=CLASSES[label], cohort="c" * 64, version="1"))
        header = pydicom.dcmread(path)
        header.WindowCenter, header.WindowWidth = 128, 256  # shows 0 as black and 255 as white
        header.save_as(path)
    return folder


def as_archive(folder, **arrays):
    folder.mkdir()
    images, labels = made()
    half = len(images) // 2
    content = {"train_images": images[:half], "train_labels": labels[:half, None].astype(np.uint8)}
    content |= {"test_images": images[half:], "test_labels": labels[half:, None].astype(np.uint8)}
    np.savez_compressed(folder / "b.npz", **(content | arrays))
    return folder / "b.npz"


def as_release(folder):
    pictures(folder / "images", *made())
    lines = [f"{path.relative_to(folder).as_posix()},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "rows.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    write_json(folder / "gate.json", {})
    as_dicom(folder / "dicom")
    return folder


def as_table(folder):
    folder.mkdir()
    lines = ["file,label"]
    for number, (image, label) in enumerate(zip(*made())):
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{CLASSES[label]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("form", [as_dicom, as_archive, as_release, as_table])
def test_every_form_gives_the_same_images(given, tmp_path, form):
    a, _, c = given
    found = imported(a, form(tmp_path / "B"), c, tmp_path / "run")
    assert multiset(found.images[:, 0]) == multiset(made()[0])
    assert found.classes == (("all",) if form in (as_dicom, as_archive) else tuple(sorted(CLASSES)))
    if form in (as_release, as_table):
        wanted = np.bincount(made()[1], minlength=len(CLASSES))
        assert {name: int(found.findings[:, k].sum()) for k, name in enumerate(found.classes)} == dict(zip(CLASSES, wanted.tolist()))


def test_the_order_of_the_rows_is_not_that_of_the_files_which_may_be_that_of_the_training_images(given, tmp_path):
    a, _, c = given
    images, _ = made()
    found = []
    for number, order in enumerate((images, images[::-1])):
        folder = tmp_path / f"B{number}"
        folder.mkdir()
        for place, image in enumerate(order):
            Image.fromarray(image).save(folder / f"{place:03d}.png")
        found.append(np.asarray(imported(a, folder, c, tmp_path / f"run {number}").images[:, 0]))
    np.testing.assert_array_equal(found[0], found[1])
    assert not any(np.array_equal(found[0], order) for order in (images, images[::-1]))


def test_synthetic_files_with_a_real_patients_id_in_their_header_are_refused(given, tmp_path):
    """As where a real file's pixels were replaced and its header was kept."""
    a, _, c = given
    b = as_dicom(tmp_path / "B")
    file = next(b.iterdir())
    header = pydicom.dcmread(file)
    header.PatientID = (a / "labels.csv").read_text().splitlines()[1].split(",")[2]
    header.save_as(file)
    with pytest.raises(InputError, match="1 of the synthetic files have the Patient ID of a real image's patient"):
        imported(a, b, c, tmp_path / "run")


def test_an_archives_labels_are_places_in_the_classes(given, tmp_path):
    a, _, c = given
    sections = {"source": "pictures", "path": a, "holdout": c, "classes": CLASSES, "size": SIDE, "val_share": 0, "test_share": 0}
    config = config_of({"name": "x", "ingest": sections, "generate": {"import_from": as_archive(tmp_path / "B")}})
    found = ImageSet.load(api.run(config, out=tmp_path / "run", until="generate").folder / "generate")
    assert np.bincount(found.labels, minlength=len(CLASSES)).tolist() == np.bincount(made()[1], minlength=len(CLASSES)).tolist()


def test_sizes_and_colours_are_made_those_of_the_training_images(given, tmp_path):
    a, _, c = given
    b = tmp_path / "B"
    images, labels = made()
    for number, (image, label) in enumerate(zip(images, labels)):
        (b / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        side = (2 * SIDE, 3 * SIDE // 2)[number % 2]
        colour = Image.fromarray(np.stack([image, image // 2, 255 - image], axis=-1)).resize((side, side))
        colour.save(b / CLASSES[label] / f"{number}.{('png', 'jpg', 'tif')[number % 3]}")
    found = imported(a, b, c, tmp_path / "run", settings=["ingest.size=32"])
    assert found.images.shape == (len(images), 1, 32, 32)
    assert found.images.dtype == np.uint8


def test_one_table_outside_labels_all_folders(tmp_path):
    lines = ["file,label"]
    parts = {"A": phantoms(28, 3)[:2], "B": made()}
    for name, (images, labels) in parts.items():
        (tmp_path / name).mkdir()
        for number, (image, label) in enumerate(zip(images, labels)):
            Image.fromarray(image).save(tmp_path / name / f"{name}{number}.png")
            lines.append(f"{name}{number}.png,{CLASSES[label]}")
    table = tmp_path / "all.csv"
    table.write_text("\n".join(lines) + "\n")
    found = imported(tmp_path / "A", tmp_path / "B", None, tmp_path / "run", labels=table)
    assert found.findings.sum(axis=0).tolist() == [int((made()[1] == CLASSES.index(name)).sum()) for name in found.classes]
    shutil.copy(tmp_path / "B" / "B0.png", tmp_path / "A" / "B0.png")
    with pytest.raises(InputError, match=r"1 rows of all\.csv mean files in two of the folders"):
        imported(tmp_path / "A", tmp_path / "B", None, tmp_path / "other", labels=table)


def nineteen(a, b, folder):
    for file in sorted(b.rglob("*.png"))[:19]:
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder / f"{file.parent.name}{file.name}")
    return folder


def empty(a, b, folder):
    folder.mkdir()
    return folder


def notes(a, b, folder):
    folder.mkdir()
    (folder / "readme.txt").write_text("no image")
    return folder


def links(a, b, folder):
    folder.mkdir()
    for number, file in enumerate(a.rglob("*.png")):
        (folder / f"{number}.png").symlink_to(file)
    return folder


def other_classes(a, b, folder):
    shutil.copytree(b, folder)
    (folder / "normal").rename(folder / "healthy")
    return folder


def unlabelled_among(a, b, folder):
    as_table(folder)
    Image.fromarray(made()[0][0]).save(folder / "another.png")
    return folder


def finished_run(a, b, folder):
    (folder / "ingest").mkdir(parents=True)
    write_json(folder / "ingest" / "record.json", {})
    return folder


def inside(a, b, folder):
    return shutil.copytree(b, a / "B")


def text_file(a, b, folder):
    folder.write_text("no archive")
    return folder


def damaged(a, b, folder):
    path = as_archive(folder)
    path.write_bytes(path.read_bytes()[:500])
    return path


def pickled(a, b, folder):
    return as_archive(folder, train_images=np.array([{"a": 1}] * 10, dtype=object))


def floats(a, b, folder):
    return as_archive(folder, train_images=np.zeros((10, 8, 8), np.float32))


def more_labels(a, b, folder):
    return as_archive(folder, train_labels=np.zeros((30, 1), np.uint8))


def bomb(a, b, folder):
    """An array that declares a million million pixels, and holds a few."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "b.npz", "w") as archive:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000), }"
        header += b" " * (118 - len(header) - 1) + b"\n"
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 100)
    return folder / "b.npz"


def other_archive(a, b, folder):
    folder.mkdir()
    np.savez(folder / "b.npz", x=np.zeros(3))
    return folder / "b.npz"


WRONG = {
    nineteen: r"19 usable synthetic images in generate\.import_from: an audit needs 20",
    empty: "holds no file.*--synthetic",
    notes: "no DICOM, PNG, JPEG or TIFF image.*--synthetic",
    links: "holds no file.*--synthetic",
    other_classes: r"1 of 2 classes of --synthetic are none of --train's 2",
    unlabelled_among: r"1 of the synthetic images have no class of ingest\.classes",
    finished_run: r"is a run folder, and release a stage of it: synthcohort run CONFIG --out .* --until release",
    inside: r"generate\.import_from lies inside ingest\.path",
    text_file: r"no folder and no \.npz file.*--synthetic",
    damaged: r"damaged, or no \.npz of MedMNIST's layout",
    pickled: r"not plain numbers|not uint8|no \.npz of",
    floats: r"images are not uint8",
    more_labels: "more labels than images",
    bomb: "declares more images than are read",
    other_archive: "holds none of train_images",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda function: function.__name__)
def test_what_cannot_be_judged_gets_one_line(given, tmp_path, wrong):
    a, b, _ = given
    own = shutil.copytree(a, tmp_path / "A")
    with pytest.raises(InputError, match=WRONG[wrong]) as refused:
        imported(own, wrong(own, b, tmp_path / "B"), None, tmp_path / "run")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("which", "form", "words"),
    [
        ("train", as_archive, r"--train is an \.npz file: give a folder of real images"),
        ("train", as_release, "--train is a release of synthetic images"),
        ("holdout", as_dicom, "--train and --holdout hold different kinds of files"),
        ("holdout", as_release, "--holdout is a release of synthetic images"),
        ("holdout", lambda path: path, "no such folder.*--holdout"),
    ],
)
def test_the_real_images_are_folders_of_one_kind(given, tmp_path, which, form, words):
    a, b, c = given
    folders = {"train": a, "synthetic": b, "holdout": c, which: form(tmp_path / "X")}
    with pytest.raises(InputError, match=words):
        api.audit(**folders, out=tmp_path / "run")


def test_a_holdout_without_patient_ids_beside_named_patients_is_refused(given, tmp_path):
    a, b, _ = given
    images, labels, _ = phantoms(12, 5)
    c = pictures(tmp_path / "C", images, labels)
    with pytest.raises(InputError, match=r"ingest\.path names its patients and ingest\.holdout does not"):
        imported(a, b, c, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"images": 9}}, r"leave out the section train"),
        ({"generate": {}}, r"generate\.per_class is missing"),
        ({"generate": {"per_class": 3}}, r"train is missing"),
        ({"generate": {"import_from": "B", "steps": 4, "per_class": 3}}, r"leave out generate\.per_class, generate\.steps"),
        ({"ingest": {"source": "medmnist", "dataset": "breastmnist"}}, "goes with ingest.source dicom or pictures"),
        ({"ingest": {"source": "pictures", "path": "A", "classes": ["a", "b"], "unlabelled": True}}, "one name in ingest.classes"),
        (
            {"ingest": {"source": "pictures", "path": "A", "classes": ["a"], "val_share": 0, "test_share": 0}},
            "with an ingest.holdout alone",
        ),
        ({"ingest": {"source": "pictures", "path": "A", "classes": ["a"], "holdout": "C", "val_share": 0}}, "are both 0 or both above it"),
    ],
)
def test_settings_that_do_not_go_together(change, words):
    data = {"name": "x", "ingest": {"source": "pictures", "path": "A", "classes": ["a", "b"]}, "generate": {"import_from": "B"}}
    with pytest.raises(InputError, match=words):
        config_of(data | change)


def test_settings_of_a_foreign_set_do_not_go_with_training():
    for key, value in {"holdout": "C", "label_table": "x.csv", "unlabelled": True}.items():
        data = {"name": "x", "ingest": {"source": "pictures", "path": "A", "classes": ["a"], key: value}}
        with pytest.raises(InputError, match="belong to a foreign set"):
            config_of(data | {"train": {"images": 1}, "generate": {"per_class": 1}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("audit",), "audit needs --train and --synthetic: synthcohort audit --train FOLDER --synthetic FOLDER"),
        (("audit", "--train", "A"), "audit needs --synthetic"),
        (("audit", "RUN"), "is a run folder, and audit a stage of it"),
        (("audit", "somewhere"), "audit takes its folders by name"),
        (("release", "RUN"), "is a run folder, and release a stage of it"),
        (("release", "--train", "A", "--synthetic", "B"), "release needs --holdout"),
        (("release", "--train", "RUN", "--synthetic", "B", "--holdout", "C"), "is a run folder, and release a stage of it"),
        (("stress", "RUN"), "is a run folder, and stress a stage of it"),
        (("stress",), "stress needs --model and --data: synthcohort stress --model MODEL --data FOLDER"),
        (("stress", "model.onnx"), "stress takes its folders by name: synthcohort stress --model MODEL"),
    ],
)
def test_commands_named_like_stages_say_in_one_line_what_they_take(tmp_path, words, said):
    run = finished_run(None, None, tmp_path / "run")
    arguments = [str(run) if word == "RUN" else word for word in words]
    with pytest.raises(InputError) as refused:
        typer.main.get_command(app).main(arguments, standalone_mode=False)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_until_a_stage_that_a_foreign_run_does_not_have(given, tmp_path):
    a, b, c = given
    with pytest.raises(InputError, match=r"--until train: no stage of this configuration, which .*, review, release"):
        api.run(foreign_config("audit", a, b, c, None), out=tmp_path / "run", until="train")


def test_classes_come_from_folders_only_where_all_tell_them(given, tmp_path):
    a, b, c = given
    assert foreign_config("release", a, b, c, None).ingest.classes == tuple(sorted(CLASSES))
    assert foreign_config("audit", a, b, c, None).ingest.unlabelled
    flat = nineteen(a, b, tmp_path / "flat")
    config = foreign_config("release", a, flat, c, None)
    assert (config.ingest.classes, config.ingest.unlabelled) == (("all",), True)
    assert not config.judged_by_classifiers
    assert foreign_config("release", a, b, c, None).judged_by_classifiers
    assert Path(str(config.ingest.path)) == a


def test_tables_that_say_whose_images_they_are_leave_the_classes_to_the_folders(given, tmp_path):
    a, b, c = given
    for name, source in (("A", a), ("C", c)):
        shutil.copytree(source, tmp_path / name)
        rows = [line.split(",") for line in (source / "labels.csv").read_text().splitlines()]
        (tmp_path / name / "labels.csv").write_text("\n".join(f"{file},{patient}" for file, _, patient in rows))
    assert foreign_config("release", tmp_path / "A", b, tmp_path / "C", None).ingest.classes == tuple(sorted(CLASSES))


def test_tables_of_any_name_say_whose_images_they_are(given, tmp_path):
    a, b, c = given
    for name, source in (("A", a), ("C", c)):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / "labels.csv").rename(tmp_path / name / f"list of {name}.csv")
    config = foreign_config("audit", tmp_path / "A", b, tmp_path / "C", None)
    run = api.run(config, out=tmp_path / "run", until="ingest").folder
    assert read_json(run / "ingest" / "cohort.json")["unit"] == "patient"

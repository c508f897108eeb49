"""The cases of a stress test: who is read, as what, and what is left out."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign_models import CLASSES, picture_folder
from release_run import CLASSES as released_classes
from release_run import LENIENT, finished, make_context, synthetic_images

from pipeline import api
from pipeline.errors import InputError
from pipeline.models import cases as sources
from pipeline.models.cases import Cases
from privacy import limits

KEY = b"k" * 32


def opened(data: Path, labels: Path | None = None, names: tuple[str, ...] = CLASSES) -> Cases:
    return sources.opened(data, labels, KEY, data.parent / "unpacked", names, "DX")


def test_pictures_keep_their_size_their_patients_and_their_attributes(tmp_path: Path) -> None:
    cases = opened(picture_folder(tmp_path / "A", 24))
    found = list(cases.read())
    assert {case.image.shape for case in found} == {(1, 24, 26)}
    assert all(case.image.dtype == np.uint8 for case in found)
    test = sources.labelled([case.row for case in found], cases.classes, CLASSES)
    assert len(np.unique(test.groups)) == 12
    assert np.bincount(test.labels).tolist() == [12, 12]
    assert set(test.attributes["sex"]) == {"F", "M"}
    sample = cases.sample()
    assert len(sample) == 24
    assert sum(case.row["findings"].index(1) for case in sample[:8]) == 4, "half of either class from the first on"
    assert [case.task for case in cases.read([3, 5])] == [3, 5]


def test_columns_follow_the_models_order_of_the_classes(tmp_path: Path) -> None:
    cases = opened(picture_folder(tmp_path / "A", 8))
    rows = [case.row for case in cases.read()]
    one, other = (sources.labelled(rows, cases.classes, names).labels for names in (CLASSES, CLASSES[::-1]))
    np.testing.assert_array_equal(one, 1 - other)


def test_class_folders_do_without_a_table(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 8)
    (folder / "labels.csv").unlink()
    cases = opened(folder)
    assert cases.classes == ("bright", "dark")
    assert not cases.settings.patients
    assert len(list(cases.read())) == 8


def test_classes_are_called_as_the_model_calls_them(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 8)
    (folder / "labels.csv").unlink()
    plain = [case.row["findings"] for case in opened(folder).read()]
    for name in CLASSES:
        (folder / name).rename(folder / f" {name.upper()}")
    cases = opened(folder)
    assert cases.classes == ("bright", "dark")
    assert cases.notes == tuple(f"--data: class  {name.upper()} is taken for {name}, as the model spells it" for name in ("bright", "dark"))
    assert [case.row["findings"] for case in cases.read()] == plain
    assert opened(folder, names=("Dark", "dark", "bright")).classes == ("bright", " DARK"), "which may be either"


def test_an_image_that_lies_there_twice_is_one_case(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 8)
    table = (folder / "labels.csv").read_text()
    for name in ("again", "otherwise"):
        shutil.copy(folder / "dark" / "000.png", folder / f"{name}.png")
    (folder / "labels.csv").write_text(f"{table}again.png,dark,p0,F\notherwise.png,bright,p9,F\n")
    cases = opened(folder)
    assert len(list(cases.read())) == 8
    assert cases.left_out == {
        "the same image as an earlier file's": 1,
        "the same image as an earlier file's, under another label": 1,
    }


def test_an_image_that_no_row_names_is_said_to_have_no_row(tmp_path: Path) -> None:
    """And not that its patient is missing, which the row would have named."""
    folder = picture_folder(tmp_path / "A", 8)
    table = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(table.replace("dark/000.png", "dark/999.png").replace(",p1,", ",,", 1))
    cases = opened(folder)
    assert len(list(cases.read())) == 6
    told = {reason.partition(":")[0] for reason in cases.left_out}
    assert told == {"no label", "no Patient ID"}
    assert not any("split" in reason for reason in cases.left_out), "there is none"


def test_a_table_of_any_name_is_found_where_it_is_the_only_one(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 8)
    (folder / "labels.csv").rename(folder / "findings 2026.csv")
    (folder / "scanners.csv").write_text("scanner,vendor\nA,B\n")
    cases = opened(folder)
    assert cases.settings.patients
    assert len(list(cases.read())) == 8
    shutil.copy(folder / "findings 2026.csv", folder / "other.csv")
    with pytest.raises(InputError, match=r"2 tables lie in .*: name the one labels\.csv"):
        opened(folder)


def test_dicom_is_read_as_it_is_displayed_and_what_is_no_case_is_counted(tmp_path: Path) -> None:
    api.phantom(tmp_path / "D", patients=6)
    cases = opened(tmp_path / "D")
    found = list(cases.read())
    assert len(found) >= 6
    assert {case.row["modality"] for case in found} == {"DX"}
    assert all(case.image.dtype == np.uint16 for case in found)
    assert cases.settings.patients
    assert cases.left_out["not a DICOM file"] >= 1
    told = str([dict(case.row) for case in found])
    assert "Infirmary" not in told, "sites are pseudonyms"


def test_an_archive_means_the_models_outputs_by_their_index(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (10, 28, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", test_images=images, test_labels=np.arange(10)[:, None] % 2)
    cases = opened(tmp_path / "x.npz", names=("negative", "positive"))
    found = list(cases.read())
    assert cases.classes == ("negative", "positive")
    assert {case.image.shape for case in found} == {(3, 28, 28)}


def several(folder: Path, marks: np.ndarray) -> Path:
    """An archive as ChestMNIST's: findings of every image."""
    images = np.random.default_rng(0).integers(0, 255, (len(marks), 28, 28), dtype=np.uint8)
    half = len(marks) // 2
    parts = {"train": slice(0, half), "test": slice(half, None)}
    arrays = {f"{name}_{what}": of[rows] for name, rows in parts.items() for what, of in (("images", images), ("labels", marks))}
    np.savez(folder / "chest.npz", **arrays)
    return folder / "chest.npz"


def test_an_archive_of_several_findings_means_the_models_outputs_by_their_place(tmp_path: Path) -> None:
    marks = np.random.default_rng(1).integers(-1, 2, (12, 3)).astype(np.int8)
    marks[:, 0] = np.arange(12) % 2
    names = ("mass", "nodule", "effusion")
    cases = opened(several(tmp_path, marks), names=names)
    assert cases.several
    assert cases.classes == names
    np.testing.assert_array_equal(sources.labelled([case.row for case in cases.read()], cases.classes, names).findings, marks)


def test_findings_by_column_as_a_table_gives_them_are_the_same(tmp_path: Path) -> None:
    """A data frame's numbers lie in Fortran's order."""
    marks = np.asfortranarray(np.arange(24).reshape(8, 3) % 2, np.int64)
    cases = opened(several(tmp_path, marks), names=("a", "b", "c"))
    assert [case.row["findings"] for case in cases.read()] == marks.tolist()


@pytest.mark.parametrize(
    ("marks", "names", "said"),
    [
        (np.zeros((8, 3), np.uint8), ("a", "b"), "the labels have 3 findings an image, and the model's contract names 2 classes"),
        (np.zeros((8, 3), np.uint8), (), "names 0 classes: declare one for each"),
        (np.full((8, 3), 2, np.uint8), ("a", "b", "c"), "other numbers than 1, 0 and -1"),
        (np.zeros((8, 3), np.float32), ("a", "b", "c"), "its labels are not one class index an image"),
    ],
)
def test_findings_that_fit_no_model_are_refused(tmp_path: Path, marks: np.ndarray, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        opened(several(tmp_path, marks), names=names)


def test_a_table_with_columns_for_some_classes_only_says_which_are_missing(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 6)
    (folder / "labels.csv").write_text("file,dark\n" + "".join(f"{file.name},1\n" for file in folder.rglob("*.png")))
    with pytest.raises(InputError, match=r"labels\.csv has no column for bright, which the model names"):
        opened(folder)


@pytest.mark.parametrize(
    ("head", "place", "said"),
    [
        ("file,class,sex", "", r"labels\.csv has no column 'label': call the column of the classes so"),
        ("file,label,sex", "/data/", r"labels\.csv names all files by paths out of the folder: write them as they lie below --data"),
    ],
)
def test_a_table_that_is_not_read_says_why(tmp_path: Path, head: str, place: str, said: str) -> None:
    files = sorted(picture_folder(tmp_path / "A", 6).rglob("*.png"))
    (tmp_path / "flat").mkdir()
    for file in files:
        file.rename(tmp_path / "flat" / file.name)
    lines = [head, *(f"{place}{file.name},{CLASSES[number % 2]},F" for number, file in enumerate(files))]
    (tmp_path / "flat" / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "flat")


def test_data_without_labels_says_how_to_give_them(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "A", 6)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in folder.rglob("*.png"):
        file.rename(flat / file.name)
    with pytest.raises(InputError, match="has no labels: sort the images into a folder for each class"):
        opened(flat)
    with pytest.raises(InputError, match=r"no label table x\.csv"):
        opened(flat, tmp_path / "x.csv")
    lines = ["file,label", *(f"{file.name},dark" for file in sorted(flat.iterdir()))]
    (tmp_path / "y.csv").write_text("\n".join(lines) + "\n")
    assert len(list(opened(flat, tmp_path / "y.csv").read())) == 6


@pytest.mark.parametrize("several", [False, True])
def test_a_release_is_read_by_its_columns_in_the_models_order(tmp_path: Path, several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures alone, not the DICOM of the same images beside them."""
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    release = finished(make_context(tmp_path / "run", several=several)).out
    rows = pd.read_csv(release / "rows.csv").set_index("file").sort_index()
    names = ("nodule", "effusion") if several else tuple(reversed(released_classes))
    cases = sources.opened(release, None, KEY, tmp_path / "unpacked", names, None, "--synthetic")
    found = list(cases.read())
    assert cases.several is several
    assert len(found) == len(rows) == len(synthetic_images())
    marks = sources.labelled([case.row for case in found], names if several else cases.classes, names).findings
    np.testing.assert_array_equal(marks, rows[[f"finding_{name}" for name in names]].to_numpy())
    if several:
        with pytest.raises(InputError, match="has no column for absent, which the model names"):
            sources.opened(release, None, KEY, tmp_path / "unpacked", ("nodule", "absent"), None, "--synthetic")


def test_batches_hold_so_many_images_and_so_many_bytes(tmp_path: Path) -> None:
    cases = opened(picture_folder(tmp_path / "A", 10))
    size = 4 * 24 * 26
    assert [len(batch) for batch in sources.batched(cases.read(), 4, 1 << 20)] == [4, 4, 2]
    assert [len(batch) for batch in sources.batched(cases.read(), 4, 3 * size)] == [3, 3, 3, 1]
    assert [len(batch) for batch in sources.batched(cases.read(), 4, 1)] == [1] * 10, "one that is larger goes alone"

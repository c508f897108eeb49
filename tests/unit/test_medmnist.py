"""MedMNIST: official splits, labels and licence; absent and damaged files give one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medmnist import INFO

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest.readers import medmnist
from pipeline.ingest.source import medmnist_file, medmnist_side


def write(folder: Path, flag: str, side: int = 28, channels: int = 1, top: int = 2, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    shape = (side, side) if channels == 1 else (side, side, channels)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 40), ("val", 8), ("test", 10)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % top).astype(np.uint8)[:, None]
    path = folder / f"{flag}{'' if side == 28 else f'_{side}'}.npz"
    np.savez(path, **(arrays | changes))
    return path


def config(folder: Path, flag: str, size: int = 32) -> IngestConfig:
    return IngestConfig(source="medmnist", dataset=flag, path=folder, size=size)


def read(ingest: IngestConfig) -> medmnist.Published:
    return medmnist.read(ingest, medmnist_file(ingest))


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)


def test_reads_colour_sets_channels_first(tmp_path: Path) -> None:
    path = write(tmp_path, "bloodmnist", channels=3, top=8)
    found = read(config(tmp_path, "bloodmnist"))
    images = np.concatenate(list(found.blocks()))
    assert images.shape == (58, 3, 28, 28)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(images[40, 2], arrays["val_images"][0, :, :, 2])
    assert found.classes[6] == "neutrophil"
    assert list(np.unique(found.split, return_counts=True)[1]) == [10, 40, 8]
    assert found.facts["licence"] == "CC BY 4.0"
    assert found.facts["checksum"] == "differs from the official file"


def test_the_real_breastmnist() -> None:
    data = os.environ.get("SYNTHCOHORT_DATA")
    if not data:
        pytest.skip("SYNTHCOHORT_DATA is not set: no BreastMNIST")
    found = read(config(Path(data, "breastmnist"), "breastmnist"))
    assert [int((found.split == name).sum()) for name in ("train", "val", "test")] == [546, 78, 156]
    assert found.classes == ("malignant", "normal_benign")
    assert found.facts["checksum"] == "the official file"
    assert found.modality == "US"


@pytest.mark.parametrize(("size", "side"), [(16, 28), (28, 28), (32, 28), (33, 64), (64, 64), (73, 64), (74, 128), (224, 224), (256, 224)])
def test_the_published_size_that_serves(size: int, side: int) -> None:
    assert medmnist_side(size) == side


def test_larger_than_published_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 256"):
        medmnist_file(config(tmp_path, "breastmnist", 512))


@pytest.mark.usefixtures("_offline")
def test_an_absent_file_offline_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"breastmnist_64\.npz is not there") as caught:
        medmnist_file(config(tmp_path, "breastmnist", 64))
    assert "\n" not in str(caught.value)
    assert "zenodo" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_is_downloaded_by_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        assert md5
        np.savez(Path(root) / filename, **{f"{name}_{kind}": np.zeros((1, 28, 28)) for name in ("test",) for kind in ("images", "labels")})

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    path = medmnist_file(config(tmp_path / "new", "breastmnist"))
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == [path.name]


def test_an_unknown_set_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a MedMNIST") as caught:
        read(config(tmp_path, "catmnist"))
    assert "breastmnist" in str(caught.value)


SIDES = {flag: (28, 64) if flag.endswith("3d") else (28, 64, 128, 224) for flag in INFO}


@pytest.mark.parametrize(("flag", "side"), [(flag, side) for flag, sides in SIDES.items() for side in sides])
def test_every_set_at_every_published_size(tmp_path: Path, flag: str, side: int) -> None:
    info = INFO[flag]
    classes, channels = len(info["label"]), int(info["n_channels"])
    rng = np.random.default_rng(0)
    shape = (*[side] * (3 if flag.endswith("3d") else 2), *([3] if channels == 3 else []))
    arrays: dict[str, Any] = {}
    for name, count in (("train", 3), ("val", 1), ("test", 2)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        several = info["task"].startswith("multi-label")
        arrays[f"{name}_labels"] = rng.integers(0, 2, (count, classes)) if several else rng.integers(0, classes, (count, 1))
    np.savez_compressed(tmp_path / f"{flag}{'' if side == 28 else f'_{side}'}.npz", **arrays)
    found = read(config(tmp_path, flag, side))
    assert len(found.classes) == classes
    assert found.modality
    expected = np.concatenate([arrays[f"{name}_images"] for name in ("train", "val", "test")])
    expected = np.moveaxis(expected, -1, 1) if channels == 3 else expected[:, None]
    seen: list[Any] = []
    np.testing.assert_array_equal(medmnist.fitted(found, side, tmp_path / "partial", seen.append, lambda _: None), expected)
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    labels = np.concatenate([arrays[f"{name}_labels"] for name in ("train", "val", "test")])
    np.testing.assert_array_equal(found.findings, labels if flag == "chestmnist" else labels == np.arange(classes))
    assert info[f"MD5{'' if side == 28 else f'_{side}'}"]  # the package knows the checksum that it verifies a download by


def test_the_real_adrenalmnist3d(real_data: Path) -> None:
    for size in (28, 64):
        found = read(config(real_data / "adrenalmnist3d", "adrenalmnist3d", size))
        assert [int((found.split == name).sum()) for name in ("train", "val", "test")] == [1188, 98, 298]
        assert found.shape == (1, size, size, size)
        assert found.facts["checksum"] == "the official file"


def test_blocks_are_small_whatever_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "breastmnist")
    monkeypatch.setattr(medmnist, "BLOCK", 10 * 28 * 28)
    assert [len(block) for block in read(config(tmp_path, "breastmnist")).blocks()] == [10, 10, 10, 10, 8, 10]


@pytest.mark.parametrize(
    "changes",
    [
        {"train_labels": np.full((40, 1), 7, np.uint8)},
        {"val_labels": np.zeros((8, 2), np.uint8)},
        {"test_images": np.zeros((10, 28, 28), np.float32)},
        {"test_images": np.array([object()] * 10)},
    ],
)
def test_damaged_contents_are_an_input_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, "breastmnist", **changes)
    with pytest.raises(InputError, match="damaged"):
        read(config(tmp_path, "breastmnist"))


def test_a_cut_file_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path, "breastmnist")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        read(config(tmp_path, "breastmnist"))


@pytest.mark.parametrize("absent", [("val",), ("test",), ("train", "val")])
@pytest.mark.parametrize("part", ["images", "labels", "both"])
def test_a_file_without_a_split_is_said_to_be(tmp_path: Path, absent: tuple[str, ...], part: str) -> None:
    path = write(tmp_path, "breastmnist")
    with np.load(path) as arrays:
        left = {name: arrays[name] for name in arrays.files if not (name.split("_")[0] in absent and part in (name.split("_")[1], "both"))}
    np.savez(path, **left)
    with pytest.raises(InputError, match=f"has no split {' and no '.join(absent)}:"):
        read(config(tmp_path, "breastmnist"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("missing", ["malignant", "normal, benign"])
def test_a_class_that_a_split_lacks_is_named_at_ingest(tmp_path: Path, split: str, missing: str) -> None:
    count = {"train": 40, "val": 8, "test": 10}[split]
    write(tmp_path, "breastmnist", **{f"{split}_labels": np.full((count, 1), int(missing == "malignant"), np.uint8)})
    found = read(config(tmp_path, "breastmnist"))
    with pytest.raises(InputError, match=rf"its split {split} has no image of {missing}: "):
        medmnist.check_classes(found)


def test_complete_sets_pass_with_several_findings_too(tmp_path: Path) -> None:
    write(tmp_path, "breastmnist")
    medmnist.check_classes(read(config(tmp_path, "breastmnist")))
    several = {
        f"{name}_labels": np.eye(14, dtype=np.uint8)[np.arange(count) % 14] for name, count in (("train", 40), ("val", 8), ("test", 10))
    }
    write(tmp_path, "chestmnist", **several)
    with pytest.raises(InputError, match="its split val has no image of"):
        medmnist.check_classes(read(config(tmp_path, "chestmnist")))

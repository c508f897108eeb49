"""MedMNIST: official splits, labels and licence; absent and damaged files give one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import IngestConfig
from pipeline.errors import InputError
from pipeline.ingest import medmnist
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


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)


def test_reads_colour_sets_channels_first(tmp_path: Path) -> None:
    path = write(tmp_path, "bloodmnist", channels=3, top=8)
    found = medmnist.read(config(tmp_path, "bloodmnist"))
    assert found.images.shape == (58, 3, 28, 28)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(found.images[40, 2], arrays["val_images"][0, :, :, 2])
    assert found.classes[6] == "neutrophil"
    assert list(np.unique(found.split, return_counts=True)[1]) == [10, 40, 8]
    assert found.facts["licence"] == "CC BY 4.0"
    assert found.facts["checksum"] == "differs from the official file"


def test_the_real_breastmnist() -> None:
    data = os.environ.get("SYNTHCOHORT_DATA")
    if not data:
        pytest.skip("SYNTHCOHORT_DATA is not set: no BreastMNIST")
    found = medmnist.read(config(Path(data, "breastmnist"), "breastmnist"))
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


@pytest.mark.parametrize(("flag", "why"), [("chestmnist", "one label"), ("adrenalmnist3d", "2-D"), ("catmnist", "is not a MedMNIST")])
def test_other_sets_are_refused_with_the_choices(tmp_path: Path, flag: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        medmnist.read(config(tmp_path, flag))
    assert "breastmnist" in str(caught.value)


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
        medmnist.read(config(tmp_path, "breastmnist"))


def test_a_cut_file_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path, "breastmnist")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        medmnist.read(config(tmp_path, "breastmnist"))

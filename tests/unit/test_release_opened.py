"""A release opened by other programs: the picture's text, the rows as Parquet, medmnist's own class, and Croissant's loader."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from release_run import CLASSES, LENIENT, make_context, released, synthetic_images

from pipeline.release import stage
from pipeline.release.parquet import Column, parquet_bytes
from pipeline.release.rows import Table
from pipeline.release.verify import verify
from privacy import limits


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MAX_COPY_RATE", LENIENT)
        return released(tmp_path_factory.mktemp("opened") / "run").out


def test_every_picture_says_that_it_is_synthetic(release: Path) -> None:
    pictures = sorted((release / "images").rglob("*.png"))
    assert len(pictures) == len(synthetic_images())
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.info == {"Disclaimer": "synthetic, not for diagnosis"}


def test_the_rows_as_parquet_are_those_of_the_csv_with_types(release: Path) -> None:
    typed, text = pd.read_parquet(release / "rows.parquet"), pd.read_csv(release / "rows.csv")
    assert typed.columns.tolist() == text.columns.tolist()
    assert typed.astype(text.dtypes.to_dict()).equals(text)
    kinds = {name: str(typed[name].dtype) for name in typed if name.startswith("finding_") or name in ("seed", "guidance")}
    assert kinds == {**{f"finding_{name}": "int8" for name in CLASSES}, "seed": "int64", "guidance": "float32"}


def test_a_class_name_that_a_spreadsheet_would_calculate_is_itself_in_parquet(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(Table("00c0ffee", ("normal", "=1+1"), ()).typed([1, 0], [(), ()]))
    assert pd.read_parquet(tmp_path / "rows.parquet")["label"].tolist() == ["=1+1", "normal"]


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize("columns", [1, 14, 15, 300])
def test_pyarrow_reads_the_values_that_were_written(tmp_path: Path, rows: int, columns: int) -> None:
    """At the numbers of columns around which Thrift writes a list's length in another way."""
    rng = np.random.default_rng(rows + columns)
    kinds: list[Column] = [
        [f"Müller {'x' * (number % 300)}" for number in range(rows)],
        rng.integers(-128, 128, rows).astype(np.int8),
        rng.integers(-(2**63), 2**63 - 1, rows),
        rng.normal(size=rows).astype(np.float32),
    ]
    written = {f"column {number}": kinds[number % len(kinds)] for number in range(columns)}
    (tmp_path / "x.parquet").write_bytes(parquet_bytes(written))
    found = pd.read_parquet(tmp_path / "x.parquet")
    assert found.columns.tolist() == list(written)
    for name, values in written.items():
        assert found[name].tolist() == (values.tolist() if isinstance(values, np.ndarray) else list(values))
        assert not isinstance(values, np.ndarray) or found[name].dtype == values.dtype


def test_the_lines_of_the_card_open_the_archive_with_medmnists_own_class(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import medmnist

    (lines,) = re.findall(r"```python\n(.*?)```", (release / "data_card.md").read_text(), re.DOTALL)
    monkeypatch.chdir(release)
    monkeypatch.setattr(medmnist, "INFO", medmnist.INFO)
    names: dict[str, object] = {}
    exec(lines, names)
    images = names["images"]
    assert isinstance(images, medmnist.dataset.MedMNIST2D)
    made = synthetic_images()
    assert len(images) == len(made)
    picture, target = images[7]
    assert np.array_equal(np.asarray(picture), made.images[7, 0])
    assert images.info["label"][str(target[0])] == CLASSES[made.labels[7]]
    assert f"Number of datapoints: {len(made)}" in repr(images)
    medmnist.INFO.pop("cohort")


def test_croissant_gives_every_row_with_its_picture(release: Path) -> None:
    import mlcroissant

    described = mlcroissant.Dataset(jsonld=os.fspath(release / "croissant.json"))
    assert described.metadata.ctx.conforms_to.value.endswith("croissant/1.1")
    # A release knows no day on which it was published.
    (missing,) = described.metadata.ctx.issues.warnings
    assert "datePublished" in missing
    assert not described.metadata.ctx.issues.errors
    assert [record["classes/name"] for record in described.records("classes")] == list(CLASSES)
    made = synthetic_images()
    records = list(described.records("images"))
    assert len(records) == len(made)
    for place, record in enumerate(records):
        assert record["images/label"].decode() == CLASSES[made.labels[place]]
        assert record["images/seed"] == place
        assert np.array_equal(np.asarray(record["images/image"])[..., 0], made.images[place, 0])


def test_croissant_finds_a_file_that_was_changed(release: Path, tmp_path: Path) -> None:
    import shutil

    import mlcroissant

    shutil.copytree(release, tmp_path / "release")
    rows = tmp_path / "release" / "rows.parquet"
    rows.write_bytes(rows.read_bytes().replace(b"normal", b"abnorm"))
    described = mlcroissant.Dataset(jsonld=os.fspath(tmp_path / "release" / "croissant.json"))
    with pytest.raises(mlcroissant.GenerationError):
        next(iter(described.records("images")))


def test_the_model_card_says_how_the_model_was_trained_and_that_its_weights_stay(release: Path) -> None:
    card, text = json.loads((release / "data_card.json").read_text()), (release / "model_card.md").read_text()
    gate = json.loads((release / "gate.json").read_text())
    assert "2,400,000 parameters" in text
    assert "60,000 draws from 1,100 images" in text
    assert gate["weights"]["verdict"] == "inconclusive"
    assert "they stay with the patients' data" in text
    assert "| Membership from the weights | 0.531 (0.511 to 0.551) |" in text
    assert card["model"]["digest"] == gate["digests"]["weights"]


def test_a_release_of_another_generators_images_has_no_card_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    ctx = make_context(tmp_path / "run")
    assert isinstance(ctx.records, dict)
    del ctx.records["train"]
    stage.run(ctx)
    assert not (ctx.out / "model_card.md").exists()
    assert json.loads((ctx.out / "data_card.json").read_text())["model"] is None
    assert verify(ctx.out, beside=frozenset({"partial.json"})) == []
    (ctx.out / "model_card.md").write_text("x")
    assert "model_card.md must not be in a release whose verdict is pass" in verify(ctx.out, beside=frozenset({"partial.json"}))

"""The bytes of a release's images and rows: read by other programs, and by our readers only as they were written."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.release.bounded import Damage
from pipeline.release.contents import FILE_BYTES, ODD_WORDS, json_bytes, no_language, subject, suspicious
from pipeline.release.formats import Archive, pixel_digest, png_bytes, png_size, write_archive
from pipeline.release.rows import Table, cell, further_cells, further_columns, read_rows

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "-", "=HYPERLINK(1)", "@x"]


def images(channels: int, count: int = 7, shape: tuple[int, int] = (9, 13)) -> NDArray[np.uint8]:
    return np.random.default_rng(channels).integers(0, 256, (count, channels, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(9, 13), (1, 1), (255, 256), (256, 255), (300, 500)])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_programs_read_the_pictures(channels: int, shape: tuple[int, int]) -> None:
    """At sizes around that of a stored block, 65 535 bytes, too: 255 rows of 256 pixels and a filter's byte each fill one."""
    (image,) = images(channels, 1, shape)
    data = png_bytes(image)
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(shown, image[0] if channels == 1 else np.moveaxis(image, 0, -1))
    assert len(data) == png_size(image.shape)


def test_a_picture_is_a_function_of_its_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compressor has a say in it, so that another library, or version of one, makes the same bytes."""
    (image,) = images(1, 1)
    data = png_bytes(image)
    for name in ("compress", "compressobj"):
        monkeypatch.delattr(zlib, name)
    assert png_bytes(image) == data
    assert all(png_bytes(np.array(image ^ np.uint8(1 << bit))) != data for bit in range(8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 300])
def test_numpy_and_zip_read_the_archive(tmp_path: Path, channels: int, classes: int) -> None:
    pixels, labels = images(channels), np.arange(7) % classes
    write_archive(tmp_path / "cohort.npz", pixels, labels, classes)
    assert zipfile.ZipFile(tmp_path / "cohort.npz").testzip() is None
    with np.load(tmp_path / "cohort.npz", allow_pickle=False) as found:
        assert np.array_equal(found["train_images"], pixels[:, 0] if channels == 1 else np.moveaxis(pixels, 1, -1))
        assert found["train_labels"].dtype == (np.uint8 if classes == 2 else np.uint16)
        assert found["train_labels"][:, 0].tolist() == labels.tolist()
    with (tmp_path / "cohort.npz").open("rb") as file:
        archive = Archive(file, 7, classes)
        assert np.array_equal(np.stack(list(archive.images())), pixels)
        assert archive.labels() == labels.tolist()


def read(data: bytes) -> tuple[list[Any], list[int]]:
    archive = Archive(io.BytesIO(data), 3, 2)
    return np.stack(list(archive.images())).tolist(), archive.labels()


def test_every_byte_of_an_archive_is_bound(tmp_path: Path) -> None:
    """Flipping any one bit of any byte is found."""
    path, pixels, labels = tmp_path / "cohort.npz", images(1, 3, (4, 4)), [1, 0, 1]
    write_archive(path, pixels, np.array(labels), 2)
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(Damage):
            read(bytes(changed))
    assert read(data) == (pixels.tolist(), labels)


def test_the_digest_binds_shape_and_order() -> None:
    pixels = images(1)
    digests = {pixel_digest(some) for some in (pixels, pixels[::-1], pixels.reshape(7, 1, 13, 9), pixels[:, :, ::-1])}
    assert len(digests) == 4


@pytest.mark.parametrize("label", FORMULAS)
def test_labels_that_a_spreadsheet_would_calculate_are_neutralised(tmp_path: Path, label: str) -> None:
    assert cell(label) == f"'{label}"
    table = Table("00c0ffee", ("normal", label))
    line = table.line(0, 1, ("5", "1.5"))
    (cells,) = csv.reader([line.decode()])
    assert cells[1] == f"'{label}"
    assert not any(value[:1] in tuple("=+-@") for value in cells)


def test_rows_are_read_as_they_are_written_and_not_otherwise(tmp_path: Path) -> None:
    table = Table("00c0ffee", ("normal", "=1+1", 'with "quotes", and commas'))
    labels = [0, 2, 1, 1]
    lines = [table.line(number, label, (str(number), "1.4")) for number, label in enumerate(labels)]
    (tmp_path / "rows.csv").write_bytes(table.header + b"".join(lines))
    rows = read_rows(tmp_path / "rows.csv", "00c0ffee", 4)
    assert rows.labels == labels
    assert rows.table == table
    for other in (lines[:3], [*lines, lines[3]], lines[::-1], [lines[0].replace(b",0,1.4", b",00,1.4"), *lines[1:]]):
        (tmp_path / "rows.csv").write_bytes(table.header + b"".join(other))
        with pytest.raises(Damage):
            read_rows(tmp_path / "rows.csv", "00c0ffee", 4)


def told_rows() -> tuple[Table, list[tuple[int, ...]], list[tuple[str, ...]]]:
    """Of three images: a text, a number, a prompt that a spreadsheet would calculate, what was extrapolated to, seed and guidance."""
    columns = {
        "attribute_side": ["left", "", "right"],
        "attribute_severity": [0.8, float("nan"), np.float32(-0.25)],
        "attribute_text": ["small effusion", "", "=effusion"],
        "unseen": [True, False, False],
        "seed": [3, 4, 2**62],
        "guidance": np.float32([1.5] * 3),
    }
    assert further_columns(["id", "finding_a", "guidance", *columns, "split"]) == tuple(columns)
    return Table("00c0ffee", ("a", "b"), tuple(columns), several=True), [(1, 0), (-1, -1), (0, 1)], further_cells(columns, 3)


def test_rows_carry_the_condition_that_was_asked_for(tmp_path: Path) -> None:
    table, labels, further = told_rows()
    (tmp_path / "rows.csv").write_bytes(table.header + b"".join(map(table.line, range(3), labels, further)))
    (tmp_path / "rows.parquet").write_bytes(table.typed(labels, further))
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["attribute_side"] for row in rows] == ["left", "", "right"]
    assert [row["attribute_severity"] for row in rows] == ["0.8", "", "-0.25"]
    assert [row["attribute_text"] for row in rows] == ["small effusion", "", "'=effusion"]
    assert [row["unseen"] for row in rows] == ["1", "0", "0"]
    typed = pd.read_parquet(tmp_path / "rows.parquet")
    assert typed["attribute_side"].tolist() == ["left", "", "right"]
    assert typed["attribute_text"].tolist() == ["small effusion", "", "=effusion"]
    np.testing.assert_array_equal(typed["attribute_severity"], np.float32([0.8, np.nan, -0.25]))
    assert (typed["unseen"].tolist(), typed["seed"].tolist()) == ([1, 0, 0], [3, 4, 2**62])
    read = read_rows(tmp_path / "rows.csv", "00c0ffee", 3)
    assert (read.table, read.labels, [tuple(cells) for cells in read.further]) == (table, labels, further)
    assert read.table.typed(read.labels, read.further) == (tmp_path / "rows.parquet").read_bytes()


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (0, "\u202eleft", "no language"),
        (1, "A" * 70, "no language"),
        (2, "word " * 300, "does not follow"),
        (3, "2", "does not follow"),
        (4, "-1", "does not follow"),
    ],
)
def test_rows_with_other_cells_than_attributes_have_are_refused(tmp_path: Path, place: int, value: str, why: str) -> None:
    table, labels, further = told_rows()
    changed = [(*further[0][:place], value, *further[0][place + 1 :]), *further[1:]]
    (tmp_path / "rows.csv").write_bytes(table.header + b"".join(map(table.line, range(3), labels, changed)))
    with pytest.raises(Damage, match=why):
        read_rows(tmp_path / "rows.csv", "00c0ffee", 3)


def test_a_subjects_id_fits_dicoms_long_string() -> None:
    assert subject("00c0ffee", 7) == "SYN-00c0ffee-000007"
    assert len(subject("00c0ffee", 10**12)) <= 64


@pytest.mark.parametrize("text", ["A cohort of chest radiographs", "AUC 0.53 (0.51 to 0.55)", "ab" * 32, "", "Müller, Ångström", "胸部"])
def test_language_and_digests_are_not_suspicious(text: str) -> None:
    assert not suspicious(text)


@pytest.mark.parametrize(
    "text", ["A" * 67, "\x1b[2J", "a\x00b", "\u202eabc", "\ud800", " ".join(["iVBORw0KGgoAAAANSUhEUgAA"] * 3), "\u200b"]
)
def test_encoded_data_and_unprinted_characters_are_suspicious(text: str) -> None:
    assert suspicious(text)


def test_many_words_of_letters_and_digits_are_no_language() -> None:
    words = [f"{number * 7919:06x}a1" for number in range(ODD_WORDS + 1)]
    assert no_language(words)
    assert no_language([" and ".join(words)])
    assert not no_language(words[1:])
    assert not no_language(words[1:] * 9)
    assert not no_language(words, {words[0]})
    assert not no_language(["A cohort of 1,100 chest radiographs (AUC 0.53)"] * 99)


def test_a_record_has_room_for_every_file_of_a_release() -> None:
    """By the longest paths that a release's files have."""
    names = [Table("00c0ffee", ("n" * 64, "x" * 99)).picture(10**6 + number, 1) for number in range(50)]
    text = json_bytes({"files": dict.fromkeys(names, "0" * 64), "sizes": dict.fromkeys(names, 10**9)})
    assert len(text) < FILE_BYTES * len(names)

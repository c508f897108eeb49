"""Ways to change a release, for somebody who writes fitting checksums."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
from PIL import Image, PngImagePlugin

from pipeline.artifacts import SEAL, fingerprint
from pipeline.release import contents, stage

Forgery = Callable[[Path], object]
PAYLOAD = "Jane Roe, born 1956-03-01, ward 7"
DEEP = b"[" * 200_000
BASE64 = base64.b64encode(bytes(range(256)) * 12).decode()
RASTER = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(900)).decode()


ODD = [f"{i * 0x9E3779B97F4A7C15 % (1 << 64):016x}a0" for i in range(60)]
EMPTY_BLOCK, LAST_BLOCK = b"\0\0\0\xff\xff", b"\1\0\0\xff\xff"


def number(release: Path, index: int = 3) -> str:
    """Id of an image of the release."""
    return contents.subject(json.loads((release / "gate.json").read_text())["release"], index)


def sealed(change: Forgery) -> Forgery:
    """The change, with fitting checksums."""

    def forge(release: Path) -> None:
        change(release)
        if (release / "SHA256SUMS").exists():
            stage.seal(release)

    return forge


def edited(name: str, old: str, new: str) -> Forgery:
    def change(release: Path) -> None:
        path = release / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return sealed(change)


def appended(name: str, data: bytes) -> Forgery:
    def change(release: Path) -> None:
        with (release / name).open("ab") as file:
            file.write(data)

    return sealed(change)


def json_edit(name: str, change: Callable[[Any], object]) -> Forgery:
    """A change of a JSON file's value, written as a release writes it."""

    def forge(release: Path) -> None:
        value = json.loads((release / name).read_text())
        change(value)
        if name == "record.json":
            value[SEAL] = fingerprint({key: entry for key, entry in value.items() if key != SEAL})
        (release / name).write_bytes(contents.json_bytes(value))

    return sealed(forge)


def dicom(change: Callable[[pydicom.Dataset], object], preamble: bytes | None = None) -> Forgery:
    def forge(release: Path) -> None:
        path = release / "dicom" / f"{number(release)}.dcm"
        ds = pydicom.dcmread(path)
        change(ds)
        if preamble is not None:
            ds.preamble = preamble
        ds.save_as(path)

    return sealed(forge)


def archive(change: Callable[[dict[str, np.ndarray]], object]) -> Forgery:
    """Other arrays in ``cohort.npz``, written by numpy."""

    def forge(release: Path) -> None:
        with np.load(release / "cohort.npz", allow_pickle=False) as found:
            arrays = dict(found)
        change(arrays)
        with (release / "cohort.npz").open("wb") as file:
            np.savez_compressed(file, **arrays)

    return sealed(forge)


def stored(release: Path) -> None:
    """The same arrays as numpy's own archive, which is not compressed either."""
    with np.load(release / "cohort.npz", allow_pickle=False) as found:
        arrays = dict(found)
    with (release / "cohort.npz").open("wb") as file:
        np.savez(file, **arrays)


def members(change: Callable[[zipfile.ZipFile], object]) -> Forgery:
    def forge(release: Path) -> None:
        with zipfile.ZipFile(release / "cohort.npz", "a") as file:
            change(file)

    return sealed(forge)


def picture(release: Path) -> Path:
    return next((release / "images").rglob(f"{number(release)}.png"))


def png(change: Callable[[bytes], bytes]) -> Forgery:
    def forge(release: Path) -> None:
        path = picture(release)
        path.write_bytes(change(path.read_bytes()))

    return sealed(forge)


def idat(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of a picture's zlib stream, in a chunk that fits."""

    def forge(data: bytes) -> bytes:
        at = data.index(b"IDAT") - 4
        return data[:at] + chunk(b"IDAT", change(data[at + 8 : -16])) + data[-12:]

    return forge


def blocks(data: bytes, size: int) -> bytes:
    """A zlib stream of stored blocks of so many bytes."""
    packer, packed = zlib.compressobj(0), b""
    for start in range(0, len(data), size):
        packed += packer.compress(data[start : start + size]) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed + packer.flush()


def filtered(data: bytes) -> bytes:
    """The stream of the same pixels, whose first row is filtered by what is left of them (ISO/IEC 15948, section 9.2)."""
    lines = bytearray(zlib.decompress(data))
    lines[2:33] = bytes((one - other) % 256 for one, other in zip(lines[2:33], lines[1:32]))
    lines[0] = 1
    return zlib.compress(bytes(lines), 0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def reencoded(release: Path) -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", PAYLOAD)
    Image.open(io.BytesIO(picture(release).read_bytes())).save(picture(release), pnginfo=note)


def rows(change: Callable[[list[str]], list[str]]) -> Forgery:
    def forge(release: Path) -> None:
        lines = (release / "rows.csv").read_text().splitlines()
        (release / "rows.csv").write_text("\n".join(change(lines)) + "\n")

    return sealed(forge)


def consistent_labels(release: Path) -> None:
    """The labels of two images exchanged in every file: rows, archive, folders and DICOM, but not in the verdict."""
    from pipeline.release.dicom_export import released_bytes
    from pipeline.release.formats import png_bytes, write_archive
    from pipeline.release.rows import read_rows

    gate = json.loads((release / "gate.json").read_text())
    with np.load(release / "cohort.npz") as found:
        images, labels = found["train_images"][:, None], found["train_labels"][:, 0].astype(np.int64)
    read = read_rows(release / "rows.csv", gate["release"], len(images))
    labels[[0, len(labels) - 1]] = labels[[len(labels) - 1, 0]]
    lines = (release / "rows.csv").read_text().splitlines()[1:]
    seeds = [line.split(",")[-3:-1] for line in lines]
    for place, old in enumerate(read.labels):
        (release / read.table.picture(place, old)).unlink()
    for place, label in enumerate(labels):
        (release / read.table.picture(place, int(label))).write_bytes(png_bytes(images[place]))
        (release / read.table.dicom(place)).write_bytes(released_bytes(images[place], place, int(label), read.table, gate))
    written = [read.table.line(place, int(label), seeds[place]) for place, label in enumerate(labels)]
    (release / "rows.csv").write_bytes(read.table.header + b"".join(written))
    (release / "rows.parquet").write_bytes(read.table.typed(labels.tolist(), seeds))
    write_archive(release / "cohort.npz", images, labels, len(read.table.classes))


def parquet_again(release: Path) -> None:
    """The same rows as pandas writes them."""
    pd.read_parquet(release / "rows.parquet").to_parquet(release / "rows.parquet", index=False)


def linked(name: str) -> Forgery:
    """A file of the release as a link to its like elsewhere."""

    def change(release: Path) -> None:
        elsewhere = release.parent / f"elsewhere-{Path(name).name}"
        (release / name).rename(elsewhere)
        (release / name).symlink_to(elsewhere)

    return change


def written(name: str, data: bytes = b"x") -> Forgery:
    def change(release: Path) -> None:
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_bytes(data)

    return sealed(change)


def in_report(html: str, before: str = "<footer>") -> Forgery:
    return edited("report.html", before, html + before)


def check(name: str, **numbers: Any) -> Forgery:
    """Numbers of a check changed, and nothing that follows from them."""
    return json_edit("gate.json", lambda gate: next(c for c in gate["checks"] if c["name"] == name).update(numbers))


def other_identity(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """A change of what a record's stage was made from, with the fingerprint that fits it."""

    def forge(record: dict[str, Any]) -> None:
        change(record["identity"])
        record["fingerprint"] = fingerprint(record["identity"])

    return forge


def private(ds: pydicom.Dataset) -> None:
    ds.private_block(0x0011, "HOSPITAL", create=True).add_new(0x01, "LO", PAYLOAD)


def overlay(ds: pydicom.Dataset) -> None:
    ds.add_new(0x60003000, "OW", b"\0" * 128)


def nested(ds: pydicom.Dataset) -> None:
    ds.ContributingEquipmentSequence[0].InstitutionName = "St. Elsewhere"


def icon(ds: pydicom.Dataset) -> None:
    item = pydicom.Dataset()
    item.Rows = item.Columns = 8
    item.BitsAllocated, item.PixelRepresentation, item.PixelData = 8, 0, b"\0" * 64
    ds.IconImageSequence = [item]


def attribute(name: str, value: Any) -> Forgery:
    return dicom(lambda ds: setattr(ds, name, value))


def meta(name: str, value: Any) -> Forgery:
    return dicom(lambda ds: setattr(ds.file_meta, name, value))

"""A run's test patients as cases for a model of the user's: pictures in class folders with a label table, for as long as they are asked."""

from __future__ import annotations

import csv
import mmap
import re
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.images import ImageSet
from pipeline.models.contract import kind_of, sidecar

COLUMNS = ("sex", "site", "view", "acquisition")


def write(images: ImageSet, folder: Path, several: bool = False) -> Path:
    """Write ``<class>/<number>.png`` and ``labels.csv`` into a new private folder, which is patient data; 16 bits become 8.

    Where an image can have ``several`` of the classes, the table has a column for each, and the pictures lie in one folder.
    """
    folder.mkdir(mode=0o700, parents=True)
    known = [name for name in COLUMNS if name in images.rows]
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *(images.classes if several else ["label"]), "patient_id", *known])
        for number, marks in enumerate(images.findings.tolist()):
            label = "" if several else images.classes[marks.index(1)]
            into = "images" if several else str(marks.index(1))
            image = np.asarray(images.images[number])
            pixels = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
            place = folder / into / f"{number:06d}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(place, compress_level=1)
            row = images.rows.iloc[number]
            values = ["" if row[name] is None or row[name] != row[name] else str(row[name]) for name in known]
            table.writerow([f"{into}/{place.name}", *(marks if several else [label]), str(row.get("patient", row["id"])), *values])
    return folder


def files(model: str, contract: Path | None) -> list[Path]:
    """What the content of a model is: its file, with those that ONNX keeps its weights in, or the module of a callable where it is a
    file here; and its contract."""
    kind = kind_of(model)
    if kind == "run" and contract is None:
        return []
    own = Path(model).expanduser() if kind != "callable" else Path(*model.partition(":")[0].split(".")).with_suffix(".py")
    beside = contract if contract is not None else sidecar(model)
    return [path for path in (own, *(_weights(own) if kind == "onnx" else ()), beside.expanduser()) if path.is_file()]


def _weights(model: Path) -> list[Path]:
    """Files beside an ONNX file that hold its tensors, as their ``external_data`` name them (onnx.proto, TensorProto)."""
    if not model.stat().st_size:
        return []
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A StringStringEntryProto: field 1 is the key, field 2 a value of so many bytes, of which names of files need one to tell.
        named = {content[found.end() : found.end() + found[1][0]] for found in re.finditer(rb"\x0a\x08location\x12([\x01-\x7f])", content)}
    return [model.parent / name.decode(errors="replace") for name in sorted(named)]

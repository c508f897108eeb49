"""What a folder or file of images is, told from a few of them: its kind, the side of its images, colour, and how it names classes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.ingest import source
from pipeline.ingest.isolate import Answer, isolated
from pipeline.ingest.readers.archive import is_archive
from pipeline.ingest.readers.reading import Reading

Kind = Literal["dicom", "pictures", "nifti", "archive", "release"]
IMAGES: tuple[Kind, ...] = ("pictures", "dicom")
"""Kinds of files that are looked for, in this order."""
_NAMES: dict[Kind, tuple[str, ...]] = {"dicom": ("DICOM",), "nifti": ("NIfTI",), "pictures": ("PNG", "JPEG", "TIFF")}
LOOKED_AT = 24
RELEASE = ("gate.json", "rows.csv", "images")
"""What tells a release of ours from another folder of pictures."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        kind: ``dicom``, ``pictures`` or ``nifti`` in a folder, an ``archive`` (.npz), or a ``release`` of ours.
        side: the longest side of the images looked at, in pixels; 0 in an archive.
        colour: whether any of them has colour.
        folders: names of the folders that hold pictures, where all of them lie in folders; otherwise none.
        modality: the DICOM modality of most of them; an empty string where they do not say.
    """

    kind: Kind
    side: int
    colour: bool
    folders: tuple[str, ...]
    modality: str = ""


def survey(path: Path, setting: str, kinds: Sequence[Kind] = IMAGES) -> Survey:
    """Look at a few of the files, in workers of their own, since they may be hostile.

    Args:
        path: a folder, or an ``.npz``.
        setting: what the user would change, for errors.
        kinds: of files that are looked for.

    Raises:
        InputError: there is nothing there, or no image among the files looked at.
    """
    path = path.expanduser()
    if path.is_file() and is_archive(path):
        return Survey("archive", 0, False, ())
    if not path.is_dir():
        raise InputError(f"{path}: {'no folder and no .npz file' if path.exists() else 'no such folder'}: give the images as {setting}")
    released = all((path / name).exists() for name in RELEASE)
    names = [name for name, _ in source.regular_files(path / "images" if released else path)]
    if not names:
        raise InputError(f"{path}: the folder holds no file: give the images as {setting}")
    root = path / "images" if released else path
    pictures = [name for name in names if not name.lower().endswith(source.NO_IMAGES)] or names
    some = [pictures[place] for place in np.unique(np.linspace(0, len(pictures) - 1, LOOKED_AT).astype(int))]
    look = functools.partial(_look, root=root, kinds=tuple(kinds))
    found = [answer.value for answer in isolated(look, some) if isinstance(answer, Answer) and answer.value]
    if not found:
        *formats, last = [name for kind, formats in _NAMES.items() if kind in kinds for name in formats]
        raise InputError(
            f"{path}: no {', '.join(formats)} or {last} image among {len(some)} files looked at: convert them, or give other images "
            f"as {setting}"
        )
    kind = Counter(one["kind"] for one in found).most_common(1)[0][0]
    side, colour = max(one["side"] for one in found), any(one["colour"] for one in found)
    parts = [PurePosixPath(name).parts for name in pictures]
    folders = tuple(sorted({part[0] for part in parts})) if kind == "pictures" and all(len(part) > 1 for part in parts) else ()
    modality = Counter(one["modality"] for one in found).most_common(1)[0][0]
    return Survey("release" if released else kind, side, colour, folders, modality)


def _look(name: str, root: Path, kinds: Sequence[Kind]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Kind, longest side, colour and modality of a file's first image; nothing where it is none."""
    from pipeline.ingest.readers import dicom, nifti, pictures

    readers: dict[Kind, Any] = {"pictures": pictures.read, "dicom": dicom.read_each, "nifti": nifti.read}
    for kind in kinds:
        first = next(iter(readers[kind]([root / name])))
        if isinstance(first, Reading):
            side, modality = int(max(first.pixels.shape[1:])), first.header.modality
            return {"kind": kind, "side": side, "colour": len(first.pixels) == 3, "modality": modality}, []
    return {}, []

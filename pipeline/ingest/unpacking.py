"""An ``.npz`` of MedMNIST's layout as a folder of pictures, for as long as they are read."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from pipeline.errors import InputError
from pipeline.ingest.isolate import Answer, isolated
from pipeline.ingest.readers import archive


def unpacked(path: Path, folder: Path, setting: str, several: bool = False) -> Path:
    """Unpack an archive into class folders named by index (:func:`pipeline.ingest.readers.archive.unpack`).

    Args:
        path: the archive.
        folder: where to; what an earlier attempt left there is removed, and whoever asks removes it after use.
        setting: what the user gave the archive as.
        several: whether its images may have several findings, which a table says then.

    Returns:
        The folder, which is private.

    Raises:
        InputError: it is damaged, or of another layout.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    seconds = 60 + path.stat().st_size / 1e6
    [answer] = isolated(functools.partial(archive.unpack, folder=folder, several=several), [path], seconds=seconds)
    why = answer.value.get("why") if isinstance(answer, Answer) else answer.reason
    if why:
        raise InputError(f"{path.name} cannot be used: {why}: give an .npz of MedMNIST's layout, or a folder, as {setting}")
    return folder

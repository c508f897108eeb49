"""A whole stress test in a private folder: what was found, the page, and the pictures for local eyes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import read_json, write_bytes, write_json
from pipeline.models import galleries
from pipeline.models.cases import UNPACKED
from pipeline.models.page import render
from pipeline.models.stress import PROGRAM, Asked, Found, run

if TYPE_CHECKING:
    from pipeline.progress import Reporter


def tested(asked: Asked, folder: Path, reporter: Reporter) -> Found:
    """Run the test and write all that it gives into an existing folder, of which an earlier test's files are removed.

    Raises:
        InputError: as :func:`pipeline.models.stress.run`.
    """
    folder.chmod(0o700)
    write_json(folder / "stress.json", {"program": PROGRAM, "unfinished": True})  # which tells that the folder is ours
    for name in ("stress.html", *galleries.FILES):
        (folder / name).unlink(missing_ok=True)
    try:
        found = run(asked, folder, reporter)
        write_bytes(folder / "stress.html", render(found.result, found.code).encode())
        galleries.write(folder, found)
    finally:
        shutil.rmtree(folder / UNPACKED, ignore_errors=True)
    return found


def is_ours(folder: Path) -> bool:
    """Whether a folder holds an earlier stress test, finished or not."""
    known = read_json(folder / "stress.json")
    return isinstance(known, dict) and known.get("program") == PROGRAM

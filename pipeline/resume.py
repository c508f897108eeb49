"""Files of an attempt that was interrupted: each has its content's digest in its name, so that one which was damaged since is made again.

An attempt has no record yet that could vouch for them. Somebody who edits such a file and renames it to match is not found.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from pipeline.artifacts import file_digest

DIGITS = 16


def keep(unfinished: Path, stem: str) -> Path:
    """Give a file that is complete its name, ``<stem>.<digest><suffix>``, in one rename; earlier ones of its stem are removed."""
    path = unfinished.with_name(f"{stem}.{file_digest(unfinished)[:DIGITS]}{unfinished.suffix}")
    unfinished.replace(path)
    for other in path.parent.glob(f"{stem}.*{path.suffix}"):
        if other != path:
            other.unlink()
    return path


def kept(folder: Path, stem: str, suffix: str) -> Path | None:
    """The file that :func:`keep` named, where it is still what it was; the later of two, where a kill left both."""
    found = [path for path in folder.glob(f"{stem}.*{suffix}") if path.is_file() and not path.is_symlink()]
    whole = [path for path in found if path.name == f"{stem}.{file_digest(path)[:DIGITS]}{suffix}"]
    return max(whole, key=lambda path: path.stat().st_mtime_ns, default=None)


@contextlib.contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come since; what it would have done is done again afterwards."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)


def forget_after(metrics: Path, step: int) -> None:
    """Drop the lines that a killed attempt wrote after its last checkpoint, and what is damaged; they are about to be written again."""
    lines = metrics.read_text(errors="replace").splitlines() if metrics.is_file() else []
    standing = []
    for line in lines:
        try:
            if json.loads(line)["step"] > step or not math.isfinite(json.loads(line).get("loss", 0)):
                continue
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            break
        standing.append(line)
    metrics.write_text("".join(line + "\n" for line in standing))

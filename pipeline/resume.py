"""Files of an attempt that was interrupted: each has its content's digest in its name, so that one which was damaged since is made again.

An attempt has no record yet that could vouch for them. Somebody who edits such a file and renames it to match is not found.
"""

from __future__ import annotations

from pathlib import Path

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

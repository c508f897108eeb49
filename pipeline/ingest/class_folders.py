"""Folders that name the classes of the files below them: which there are, and which of them no class fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pipeline.errors import InputError
from pipeline.ingest import marks, matching

MOST = 20
"""Folders that are named, at the most: more are no classes, but patients or studies, whose names nobody is told."""
LEAST = 8
"""Files without which a folder is no class that could be split (:data:`pipeline.ingest.split.MIN_PATIENTS` in each of four splits), and is
not named either."""


def counted(names: Sequence[str]) -> dict[str, int]:
    """Files below each folder of the uppermost level, by its name in NFC; what lies beside the folders is in none.

    Args:
        names: relative POSIX paths.
    """
    parts = (PurePosixPath(name).parts for name in names)
    return dict(sorted(Counter(matching.readable(part[0]) for part in parts if len(part) > 1).items()))


def fit(classes: Sequence[str], names: Sequence[str]) -> bool:
    """Whether any folder is called after a class."""
    known = marks.places(classes)
    return any(marks.place(folder, known) is not None for folder in counted(names))


def named(folders: Mapping[str, int]) -> str:
    """Folders with their files, in words: only those that may be classes are named (:data:`MOST`, :data:`LEAST`)."""
    told = [f"{name} ({count})" for name, count in folders.items() if count >= LEAST]
    if not told or len(folders) > MOST:
        return f"{len(folders)} folder{'s' if len(folders) != 1 else ''}"
    others = len(folders) - len(told)
    return ", ".join(told) + (f" and {others} of fewer than {LEAST} files" if others else "")


def unmatched(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """A sentence on the folders that no class fits, whose files are left out.

    Raises:
        InputError: a class has no folder; the folders that no class fits are listed.
    """
    folders, known = counted(names), marks.places(classes)
    found = {name: marks.place(name, known) for name in folders}
    strange = {name: count for name, count in folders.items() if found[name] is None}
    missing = [name for place, name in enumerate(classes) if place not in found.values()]
    if missing:
        there = f"no class fits {named(strange)}" if strange else "every other folder fits a class" if folders else "there is no folder"
        raise InputError(
            f"ingest.classes names {', '.join(missing)}, and no folder in ingest.path is called so; {there}: name the classes as their "
            f"folders are named"
        )
    told = [f"no class fits {named(strange)}: their files are left out"] if strange else []
    joined = Counter(place for place in found.values() if place is not None)
    return told + [f"{count} folders are called {classes[place]!r} and are one class" for place, count in joined.items() if count > 1]


def contradicted(classes: Sequence[str], files: Sequence[str], findings: Sequence[Sequence[int]]) -> list[str]:
    """A sentence on the images that lie in the folder of one class while their label, which wins, says another.

    Args:
        classes: their names.
        files: relative POSIX paths.
        findings: of each file, 1 present, 0 absent, -1 unknown, for each class.
    """
    known = marks.places(classes)
    places = [marks.place(matching.readable(PurePosixPath(file).parts[0]), known) for file in files]
    against = sum(place is not None and found[place] == 0 for place, found in zip(places, findings))
    return [f"images in the folder of another class than the label table says: {against}; the table was believed"] if against else []

"""What a cell of a label table says: that something is present, absent or unknown, or several findings by name."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from pipeline.errors import InputError
from pipeline.ingest import table

_MARKS = {"": -1} | {
    f"{mark}{rest}": mark for mark in (1, 0, -1) for rest in ("", *(point + "0" * n for point in ".," for n in range(1, 7)))
}
WORDS = {1: ("true", "yes", "present", "positive"), 0: ("false", "no", "absent", "negative"), -1: ("uncertain", "unknown")}
_MARKS |= {word: mark for mark, words in WORDS.items() for word in words}
EMPTY = frozenset(("nan", "na", "n/a", "#n/a", "null"))
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
NO_FINDING = frozenset(("no finding", "normal", ""))
"""What a label that names findings says where there is none; "normal" only where it is no finding's name."""


def of_marks(values: Sequence[str]) -> bool:
    """Whether a column says of some images that they have something and of others that they have not, and nothing else."""
    return {1, 0} <= {mark(value) for value in set(emptied(values))} <= {1, 0, -1}


def emptied(values: Sequence[str], empty: Set[str] = EMPTY) -> list[str]:
    """Values, and nothing for what programs write for a missing one."""
    return ["" if table.folded(value) in empty else value for value in values]


def mark(value: str) -> int | None:
    """1, 0 or -1, in figures or words; None for anything else."""
    return _MARKS.get(table.folded(value))


def parts(label: str) -> list[str]:
    """What a label names: with bars between, or in a list as JSON, Python and numpy write it."""
    listed = _LIST.fullmatch(label)
    if listed is None:
        return label.split("|")
    if not _QUOTED.sub("", listed[1]).strip(" ,\r\n\t"):  # so that a name may have a comma
        return [one or other for one, other in _QUOTED.findall(listed[1])]
    return [part.strip(" '\"\r\n\t") for part in listed[1].split(",")]


def several(label: str) -> bool:
    """Whether a label is a list, or names more than one."""
    return "|" in label or _LIST.fullmatch(label) is not None


def refuse_other_bars(name: str, labels: Sequence[str], lines: Sequence[int]) -> None:
    """Raise InputError where labels name several findings that are labels by themselves, with something else than bars between."""
    alone = {table.folded(label) for label in labels if label}
    for separator in ";,":
        parted = [[table.folded(part) for part in label.split(separator)] for label in labels]
        if found := [line for line, names in zip(lines, parted) if len(names) > 1 and alone >= set(names)]:
            raise InputError(
                f"{name}: its labels name several findings with {separator!r} between, first on line {found[0]}: write bars, as in "
                f"Effusion|Nodule"
            )

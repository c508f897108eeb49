"""What a cell of a label table says: a class however it is spelled, that something is present, absent or unknown, or several findings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence, Set

from pipeline.errors import InputError
from pipeline.ingest import table

_MARKS = {"": -1} | {
    f"{mark}{rest}": mark for mark in (1, 0, -1) for rest in ("", *(point + "0" * n for point in ".," for n in range(1, 7)))
}
WORDS = {
    1: ("true", "yes", "y", "present", "positive", "pos", "checked"),
    0: ("false", "no", "n", "absent", "negative", "neg", "unchecked"),
    -1: ("uncertain", "unknown"),
}
_MARKS |= {word: mark for mark, words in WORDS.items() for word in words}
EMPTY = frozenset(
    {
        *("nan", "na", "n/a", "<na>", "nat", "null", "(blank)"),
        *("#n/a", "#na", "#null!", "#ref!", "#value!", "#name?", "#num!", "#div/0!", "#error!", "#calc!", "#spill!"),
    }
)
"""What programs write into a cell that holds nothing, or an error."""
DOUBTFUL = frozenset(
    {
        *("none", "unknown", "missing", "undefined", "unspecified", "unlabelled", "unlabeled", "n.a", "k.a", "n.d", "nd", "tbd", "todo"),
        *("not available", "not reported", "not recorded", "not applicable", "not done", "-1", "-9", "-99", "-999", "99", "999", "9999"),
    }
)
"""Labels that may be a class, or say that there is none: a person is told, as :func:`alike` has them."""
_DASHES = re.compile(r"[-\u2010-\u2015?.\u2026*/_\s]+")
_BETWEEN = re.compile(r"(?<=\w)[\s_\-\u2010-\u2015]+(?=\w)")
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
NO_FINDING = frozenset(("no finding", "normal", ""))
"""What a label that names findings says where there is none; "normal" only where it is no finding's name."""


def of_marks(values: Sequence[str]) -> bool:
    """Whether a column says of some images that they have something and of others that they have not, and nothing else."""
    return {1, 0} <= {mark(value) for value in set(emptied(values))} <= {1, 0, -1}


def emptied(values: Sequence[str], names: Set[str] = frozenset()) -> list[str]:
    """Values, and nothing for what programs and people write for a missing one: :data:`EMPTY`, a dash, a question mark, a full stop.

    Args:
        values: of a column.
        names: folded values that are classes all the same. Where there is a plus, a minus is one too.
    """
    signs = any(value.startswith("+") for value in values)
    empty = {value: table.folded(value) in EMPTY or (not signs and bool(_DASHES.fullmatch(value))) for value in set(values)}
    return ["" if empty[value] and table.folded(value) not in names else value for value in values]


def alike(label: str) -> str:
    """A label as it is compared: case, spaces, hyphens and underscores between words, quotes around it, a full stop at its end and letters
    that nobody sees do not count, and ``1.0`` and ``01`` are ``1``. Other signs do: ``HER2+`` is not ``HER2-``."""
    text = _BETWEEN.sub(" ", table.folded(_bare(label)).rstrip(".") or label)
    return number[1] + number[2] if (number := re.fullmatch(r"([+-]?)0*(\d+)(?:[.,]0+)?", text)) else text


def _bare(label: str) -> str:
    """Without letters that nobody sees, and quotes around it."""
    seen = "".join(letter for letter in label if unicodedata.category(letter) != "Cf")
    return seen.strip("'\"`\u00b4\u2018\u2019\u201c\u201d\u201e ") or seen


def spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """The class of each label or folder, by how many have it: of those that are :func:`alike` the commonest spelling, in NFC."""
    chosen: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        chosen.setdefault(alike(name), unicodedata.normalize("NFC", _bare(name)))
    return {name: chosen[alike(name)] for name in counts}


def places(classes: Sequence[str]) -> dict[str, int]:
    """Places of the classes, by their names in NFC, and by how these are compared where that is one class's alone."""
    forms = [alike(name) for name in classes]
    by_form = {form: place for place, form in enumerate(forms) if forms.count(form) == 1}
    return by_form | {unicodedata.normalize("NFC", name): place for place, name in enumerate(classes)}


def place(label: str, known: Mapping[str, int]) -> int | None:
    """The place of the class that a label or a folder is called after, by :func:`places`; None where it is none's."""
    return known.get(unicodedata.normalize("NFC", label), known.get(alike(label)))


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
    alone = {alike(label) for label in labels if label}
    for separator in ";,":
        parted = [[alike(part) for part in label.split(separator)] for label in labels]
        if found := [line for line, names in zip(lines, parted) if len(names) > 1 and alone >= set(names)]:
            raise InputError(
                f"{name}: its labels name several findings with {separator!r} between, first on line {found[0]}: write bars, as in "
                f"Effusion|Nodule"
            )


def doubts(name: str, labels: Sequence[str]) -> list[str]:
    """Sentences on labels that are spelled in several ways, and on those that may say that there is none."""
    counts = Counter(label for label in labels if label)
    joined = Counter(spellings(counts).values())
    told = [f"{name}: {count} spellings of its label {one!r} are taken for one class" for one, count in sorted(joined.items()) if count > 1]
    return told + [
        f"{name}: its label {one!r} is taken for a class: empty its cells if it says that there is none"
        for one in sorted(joined)
        if alike(one) in DOUBTFUL
    ]

"""``rows.csv`` and ``rows.parquet``: a line for each released image, which writer and reader make in the same way."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import RECORD
from pipeline.conditions import LEAST_PATIENTS, TEXT, WITHOUT_TEXT
from pipeline.config.section import LETTERS
from pipeline.images import ATTRIBUTE, FINDING, ImageSet
from pipeline.release.bounded import Damage
from pipeline.release.contents import DICOM, LINE_BYTES, PICTURES, Label, class_folders, no_language, subject
from pipeline.release.parquet import Column, parquet_bytes

FURTHER = ("unseen", "seed", "guidance")
"""Columns after the findings and the attributes that were asked for: whether such an image was extrapolated to, its seed, and its guidance
scale."""
KINDS = {"unseen": np.int8, "seed": np.int64, "guidance": np.float32}
ATTRIBUTES = re.compile(ATTRIBUTE + "[a-z][a-z0-9_]{0,39}")
MARKS = {"1": 1, "0": 0, "-1": -1}


@dataclass(frozen=True)
class Table:
    """``rows.csv``: its columns, and the one way to write a line; and all lines as ``rows.parquet``.

    Attributes:
        release: see :func:`subject`.
        classes: in the order of the finding columns.
        further: which further columns there are: attributes that were asked for, then some of :data:`FURTHER`.
        several: whether an image can have several of the classes, or none: there is no column ``label`` then, and no folder for each class.
    """

    release: str
    classes: tuple[str, ...]
    further: tuple[str, ...] = ("seed", "guidance")
    several: bool = False

    @property
    def header(self) -> bytes:
        """The first line."""
        return _line(["id", *([] if self.several else ["label"]), *(FINDING + name for name in self.classes), *self.further, "file"])

    def findings(self, label: Label) -> tuple[int, ...]:
        """1, 0, or -1 (left open) for each class."""
        return label if isinstance(label, tuple) else tuple(int(index == label) for index in range(len(self.classes)))

    def named(self, label: Label) -> str:
        """The label as a text: the class, or the findings that were asked for."""
        if isinstance(label, int):
            return self.classes[label]
        return ", ".join(name for name, mark in zip(self.classes, label) if mark == 1) or "no finding"

    def line(self, number: int, label: Label, further: Sequence[str]) -> bytes:
        """The line of image ``number``; text that a spreadsheet would calculate is neutralised."""
        name = [] if self.several else [cell(self.named(label))]
        cells = [text if _number(text) else cell(text) for text in further]
        return _line([subject(self.release, number), *name, *map(str, self.findings(label)), *cells, self.picture(number, label)])

    def typed(self, labels: Sequence[Label], further: Sequence[Sequence[str]]) -> bytes:
        """``rows.parquet``: the same columns with their types, and class names as they are.

        Args:
            labels: of every image.
            further: its further cells, as :func:`further_cells` has them.
        """
        numbers, table = range(len(labels)), np.array([self.findings(label) for label in labels], np.int8).reshape(-1, len(self.classes))
        columns: dict[str, Column] = {
            "id": [subject(self.release, number) for number in numbers],
            **({} if self.several else {"label": [self.named(label) for label in labels]}),
            **{FINDING + name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(self.classes)},
        }
        kinds = self.kinds(further)
        for place, name in enumerate(self.further):
            texts = [cells[place] for cells in further]
            columns[name] = texts if kinds[name] is str else np.array([text or "nan" for text in texts]).astype(kinds[name])
        return parquet_bytes(columns | {"file": [self.picture(number, labels[number]) for number in numbers]})

    def kinds(self, further: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Types of the further columns, from the cells of all images: an attribute is a number where all that is said of it is one."""
        found: dict[str, Any] = dict(KINDS)
        for place, name in enumerate(self.further):
            said = {cells[place] for cells in further} - {""}
            found.setdefault(name, np.float32 if said and all(map(_number, said)) else str)
        return {name: found[name] for name in self.further}

    def picture(self, number: int, label: Label) -> str:
        """Path of an image's PNG file."""
        if not isinstance(label, int):
            return f"{PICTURES}/{subject(self.release, number)}.png"
        return f"{PICTURES}/{self._folders[self.classes[label]]}/{subject(self.release, number)}.png"

    def dicom(self, number: int) -> str:
        """Path of an image's DICOM file."""
        return f"{DICOM}/{subject(self.release, number)}.dcm"

    def folders(self) -> set[str]:
        """All folders of a passed release."""
        return {PICTURES, DICOM} if self.several else {PICTURES, DICOM, *(f"{PICTURES}/{name}" for name in self._folders.values())}

    @functools.cached_property
    def _folders(self) -> dict[str, str]:
        return class_folders(self.classes)


def further_columns(there: Iterable[str]) -> tuple[str, ...]:
    """Those of a set's columns that ``rows.csv`` has after the findings, in its order."""
    names = list(there)
    return (*(name for name in names if ATTRIBUTES.fullmatch(name)), *(name for name in FURTHER if name in names))


def without_reports(columns: Mapping[str, Any], ingest: Path) -> dict[str, Any]:
    """The same columns, but for prompts that are word for word the report of fewer patients than :data:`LEAST_PATIENTS`.

    Reports are patient data. Where the run's ``ingest`` folder is gone, and nobody can tell whose reports were what, no prompt stays.
    """
    prompts = [name for name in (ATTRIBUTE + TEXT, ATTRIBUTE + WITHOUT_TEXT) if name in columns]
    if not prompts:
        return dict(columns)
    reports = None
    if (ingest / RECORD).is_file():
        reports = ImageSet.load(ingest).rows.groupby(ATTRIBUTE + TEXT)["patient"].nunique()

    def stays(text: Any) -> bool:
        return reports is not None and reports.get(text, LEAST_PATIENTS) >= LEAST_PATIENTS

    return dict(columns) | {name: [text if stays(text) else "" for text in columns[name]] for name in prompts}


def further_cells(columns: Mapping[str, Iterable[Any]], count: int) -> list[tuple[str, ...]]:
    """The further cells of ``count`` images, from the columns that :func:`further_columns` chose; what was left open is empty."""
    return list(zip(*(list(map(_written, values)) for values in columns.values()))) if columns else [()] * count


def _written(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else str(np.float32(value))
    return str(int(value)) if isinstance(value, bool | int | np.integer | np.bool_) else str(value)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """A text for a CSV cell: one that a spreadsheet would take for a formula is led by an apostrophe."""
    return f"'{text}" if text[:1] in _FORMULA else text


def _uncell(text: str) -> str:
    """What :func:`cell` was given."""
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA else text


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Rows:
    """What ``rows.csv`` says: its table, the label and further cells of every image, and the SHA-256 of its bytes."""

    table: Table
    labels: list[Label]
    further: list[list[str]]
    digest: str


def read_rows(path: Path, release: str, n: int) -> Rows:
    """Read the rows of a release of ``n`` images line by line. Raises Damage for any line that :class:`Table` would write otherwise."""
    code = hashlib.sha256()
    labels: list[Label] = []
    kept: list[list[str]] = []
    with path.open("rb") as file:
        header = file.readline(LINE_BYTES)
        table = _table(header, release)
        code.update(header)
        while line := file.readline(LINE_BYTES):
            number = len(labels)
            cells = _cells(line)
            first = 1 if table.several else 2
            findings = cells[first : first + len(table.classes)]
            further = [_uncell(text) for text in cells[first + len(table.classes) : -1]]
            label: Label = findings.index("1") if "1" in findings else 0
            if table.several:
                label = tuple(MARKS.get(mark, 0) for mark in findings)
            if number == n or not _plain(table.further, further) or table.line(number, label, further) != line:
                raise Damage(f"has a line that does not follow from its image's class, or one too many (line {number + 2})")
            labels.append(label)
            kept.append(further)
            code.update(line)
    if len(labels) != n:
        raise Damage(f"has {len(labels)} lines for {n} images")
    places = [place for place, name in enumerate(table.further) if name.startswith(ATTRIBUTE)]
    if no_language({cells[place] for cells in kept for place in places if not _number(cells[place])}):
        raise Damage("has attributes whose values are no language: control characters or encoded data")
    return Rows(table, labels, kept, code.hexdigest())


def _table(header: bytes, release: str) -> Table:
    columns = _cells(header)
    classes = tuple(name.removeprefix(FINDING) for name in columns if name.startswith(FINDING))
    table = Table(release, classes, further_columns(columns), several="label" not in columns)
    if not classes or len(set(classes)) < len(classes) or table.header != header:
        raise Damage(
            "has other columns than id, label (but for several findings), one for each class, attributes, unseen, seed, guidance and file"
        )
    if no_language(classes):
        raise Damage("has classes whose names are no language: control characters or encoded data")
    return table


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        raise Damage("is damaged: it cannot be read as CSV in UTF-8") from None


def _plain(columns: Sequence[str], values: Sequence[str]) -> bool:
    """Whether a seed is an integer of 64 bits, a guidance scale a float of 32 and a mark 1 or 0, as they are written, and a text no longer
    than a prompt."""
    if len(values) != len(columns):
        return False
    for name, value in zip(columns, values):
        if name.startswith(ATTRIBUTE) and len(value) > LETTERS:
            return False
        if name == "unseen" and value not in ("0", "1"):
            return False
        if name == "seed" and (re.fullmatch(r"[0-9]{1,19}", value) is None or str(int(value)) != value or int(value) >= 1 << 63):
            return False
        if name == "guidance" and (value.startswith("-") or not _number(value)):
            return False
    return True


def _number(text: str) -> bool:
    """Whether a text is a float of 32 bits as it is written."""
    return re.fullmatch(r"-?[0-9.e+-]{1,16}", text) is not None and _float32(text)


def _float32(text: str) -> bool:
    try:
        return str(np.float32(text)) == text
    except ValueError:
        return False

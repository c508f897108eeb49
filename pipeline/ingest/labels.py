"""Which findings an image has: from a CSV, by file, UID or patient, or from an attribute of its header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError
from pipeline.ingest.readers.header import text
from pipeline.ingest.readers.reading import Quarantined

if TYPE_CHECKING:
    from pydicom import Dataset

# 1 present, 0 absent, -1 unknown, for each class in order.
Findings = tuple[int, ...]
KEYS = ("file", "sop_instance_uid", "series_instance_uid", "patient_id")
_KEYWORD = {"sop_instance_uid": "SOPInstanceUID", "series_instance_uid": "SeriesInstanceUID", "patient_id": "PatientID"}
_MARKS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": -1}


@dataclass(frozen=True)
class Labels:
    """Findings by file, SOP or Series Instance UID, or Patient ID.

    Attributes:
        column: one of :data:`KEYS`: what ``table`` is keyed by.
        table: findings of every key; None where the CSV gives one key several.
        patients: patient of every key, where the table has a column ``patient_id`` beside its key.
    """

    column: str
    table: dict[str, Findings | None] = field(repr=False)
    patients: dict[str, str] = field(repr=False)

    @classmethod
    def load(cls, path: Path, classes: Sequence[str], several: bool = False) -> Labels:
        """Read the CSV: the first of :data:`KEYS` that it has, and a column ``label``, or with ``several`` a column for each class.

        Rows without a label are passed over. In the column of a class 1 is present, 0 absent, -1 or nothing unknown.

        Raises:
            InputError: it cannot be read, lacks a column, or holds labels that are no class.
        """
        columns, rows = _rows(path)
        column = next((name for name in KEYS if name in columns), None)
        needed = [name.lower() for name in classes] if several else ["label"]
        if column is None or not set(needed) <= set(columns):
            wanted = f"a column for each class ({', '.join(classes)})" if several else "a column 'label'"
            raise InputError(f"{path.name} needs {wanted} and one of {', '.join(KEYS)}, separated by commas")
        found = [(row.get(column, ""), [row.get(name, "") for name in needed], row.get("patient_id", "")) for row in rows]
        to_findings = _marks(path, classes) if several else _class(path, classes, [label for _, [label], _ in found])
        table: dict[str, Findings | None] = {}
        patients: dict[str, str] = {}
        for key, values, patient in found:
            if not key or not any(values):
                continue
            name = PurePosixPath(key.replace("\\", "/")).as_posix() if column == "file" else key
            findings = to_findings(values)
            table[name] = findings if table.get(name, findings) == findings else None
            if column == "file" and patient and patients.setdefault(name, patient) != patient:
                table[name] = None
        return cls(column, table, patients)

    def find(self, file: str, header: Dataset | Any) -> Findings | Quarantined:
        """Findings of an image, given its file's relative POSIX path and its header."""
        key = file if self.column == "file" else text(header, _KEYWORD[self.column])
        if key not in self.table:
            return Quarantined(f"no label: its {self.column} is not in the label table")
        return self.table[key] or Quarantined(f"contradictory labels for its {self.column} in the label table")

    def outside(self) -> list[str]:
        """Keys that are paths out of the folder: no file is looked for there."""
        paths = ((key, PurePosixPath(key)) for key in self.table if self.column == "file")
        return sorted(key for key, path in paths if path.is_absolute() or ".." in path.parts or key[1:2] == ":")


def class_names(path: Path) -> tuple[str, ...]:
    """The different labels of a table with one label a row, sorted. Raises InputError where it cannot be read, or has no such column."""
    columns, rows = _rows(path)
    if "label" not in columns:
        raise InputError(f"{path.name} needs a column 'label' and one of {', '.join(KEYS)}, separated by commas")
    return tuple(sorted({row.get("label", "") for row in rows} - {""}))


@dataclass(frozen=True)
class FieldLabels:
    """Findings from an attribute of the header, such as BodyPartExamined: its value is the class, upper and lower case alike."""

    keyword: str
    classes: tuple[str, ...]

    def find(self, file: str, header: Dataset | Any) -> Findings | Quarantined:
        """Findings of an image, given its header."""
        value = text(header, self.keyword).casefold()
        if not value:
            return Quarantined(f"no label: its header has no {self.keyword}")
        if value not in [name.casefold() for name in self.classes]:
            return Quarantined(f"no label: its {self.keyword} is none of ingest.classes")
        return one_hot([name.casefold() for name in self.classes].index(value), len(self.classes))


@dataclass(frozen=True)
class FolderLabels:
    """Findings from the name of the folder that holds the file: one folder a class."""

    classes: tuple[str, ...]

    def find(self, file: str, header: Dataset | Any) -> Findings | Quarantined:
        """Findings of an image, given its file's relative POSIX path."""
        folder = PurePosixPath(file).parts[0]
        if folder not in self.classes:
            return Quarantined("no label: its folder is none of ingest.classes")
        return one_hot(self.classes.index(folder), len(self.classes))


@dataclass(frozen=True)
class OneClass:
    """Findings of a set without labels: every image is of its one class."""

    def find(self, file: str, header: Dataset | Any) -> Findings:
        """Findings of any image."""
        return one_hot(0, 1)


def one_hot(index: int, count: int) -> Findings:
    """The findings of an image of one class."""
    return tuple(int(number == index) for number in range(count))


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names in lower case, and the rows, stripped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            rows = [dict(zip(columns, (value.strip() for value in row.values() if isinstance(value, str)))) for row in reader]
    except FileNotFoundError:
        raise InputError(f"no label table {path.name} in {path.parent}: put the CSV there, or name it in ingest.labels") from None
    except (UnicodeDecodeError, csv.Error, OSError):
        raise InputError(f"{path.name} cannot be read: save it as CSV with commas, in UTF-8") from None
    return columns, rows


def _class(path: Path, classes: Sequence[str], labels: Sequence[str]) -> Any:
    index = {name: number for number, name in enumerate(classes)}
    unknown = sorted({label for label in labels if label and label not in index})
    if unknown:
        raise InputError(
            f"{path.name}: {len(unknown)} label(s) match no class: {_some(unknown)}; ingest.classes names {', '.join(classes)}: "
            f"add them there, or mend the table"
        )
    return lambda values: one_hot(index[values[0]], len(classes))


def _marks(path: Path, classes: Sequence[str]) -> Any:
    def findings(values: Sequence[str]) -> Findings:
        unknown = sorted({value for value in values if value not in _MARKS})
        if unknown:
            raise InputError(f"{path.name}: the columns of the classes hold {_some(unknown)}: write 1, 0, or -1 for unknown")
        return tuple(_MARKS[value] for value in values)

    return findings


def _some(values: Sequence[str]) -> str:
    return ", ".join(repr(value[:40]) for value in values[:5]) + (", ..." if len(values) > 5 else "")

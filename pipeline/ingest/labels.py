"""What a label table says of an image, by file, UID or patient; or its findings by an attribute of its header, or by its folder."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import InputError
from pipeline.ingest import attributes as attribute_columns
from pipeline.ingest import class_folders, facts, marks, matching, patients, table
from pipeline.ingest.attributes import Value
from pipeline.ingest.readers.reading import Quarantined
from pipeline.ingest.table import KEYS

if TYPE_CHECKING:
    from pipeline.config.ingest import AttributeKind, IngestConfig
    from pipeline.ingest.readers.header import Header

# 1 present, 0 absent, -1 unknown, for each class in order; empty where the table says nothing.
Findings = tuple[int, ...]
Use = Literal["needed", "optional", "elsewhere"]
CONTRADICTORY = "contradictory labels for its {column} in the label table"
SEVERAL_PATIENTS = "several patients for its {column} in the label table"


@dataclass(frozen=True)
class Entry:
    """What the table says under one key.

    Attributes:
        line: the first line that has the key.
        rows: how many have it.
        findings: empty where the table gives no label.
        stated: what else it says, under the names of :class:`~pipeline.ingest.readers.header.Header`'s fields, to be read as they are.
        asked: its attributes, by the names of ``ingest.attributes``.
        why: why it cannot be used, where its rows contradict each other.
    """

    line: int
    rows: int
    findings: Findings
    stated: dict[str, str] = field(repr=False)
    asked: dict[str, Value] = field(repr=False, default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Labels:
    """A label table.

    Attributes:
        column: one of :data:`KEYS`: what ``table`` is keyed by.
        table: what it says of every key; a reason where a file has several.
        unmatched: entries for which there is no file, by their key.
        unpadded: keys, without their suffix, by what they are without the leading zeros of their numbers.
        labelled: whether it has labels.
        rows: how many it has.
        notes: what was assumed, with counts.
    """

    column: str
    table: dict[str, Entry | str] = field(repr=False)
    unmatched: dict[str, Entry] = field(default_factory=dict, repr=False)
    unpadded: dict[str, str] = field(default_factory=dict, repr=False)
    labelled: bool = True
    rows: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: Path,
        classes: Sequence[str],
        several: bool = False,
        use: Use = "needed",
        attributes: Mapping[str, AttributeKind] | None = None,
        report: str | None = None,
    ) -> Labels:
        """Read the table: the first of :data:`KEYS` that it has, and a column ``label``, or with ``several`` a column for each class.

        In the column of a class 1 is present, 0 absent, -1 or nothing unknown, or words for them (:data:`pipeline.ingest.marks.WORDS`), but
        absent where a column ``No Finding`` has 1, as CheXpert (Irvin et al. 2019, arXiv:1901.07031) has it. With ``several`` and no such
        columns, ``label`` names the findings with bars between, as in ChestX-ray14 (Wang et al. 2017, arXiv:1705.02315), or in a list, as
        in PadChest (Bustos et al. 2020, arXiv:1901.07441). The columns of :data:`pipeline.ingest.facts.FACTS` are read where they are
        there, and win over the header; ``attributes``, and the text ``report`` in closed vocabulary, where they are asked for. ``use`` says
        whether labels must be there, may be there, or come from elsewhere.

        Raises:
            InputError: it cannot be read, can be read in several ways, lacks a column, or holds labels that are no class.
        """
        kinds = attributes or {}
        found = table.read(
            path, (*(classes if several else ()), *(name for name, kind in kinds.items() if kind), *([report] if report else []))
        )
        column = next((name for name in KEYS if name in found.columns), None)
        wanted = [table.folded(name) for name in classes] if several else ["label"]
        if barred := several and not set(wanted) <= set(found.columns) and "label" in found.columns:
            wanted = ["label"]
        labelled = use != "elsewhere" and set(wanted) <= set(found.columns)
        others = facts.FACTS.keys() & set(found.columns) - {column}
        if column is None or not (labelled or use == "elsewhere" or (use == "optional" and others)):
            asked = f"a column for each class ({', '.join(classes)}), or one 'label'," if several else "a column 'label'"
            raise InputError(f"{path.name} needs {asked} and one of {', '.join(KEYS)}: name them in its first line")
        for name in {column, "patient_id"}:
            facts.refuse_shortened(found, name)
        names = {table.folded(name) for name in classes} if wanted == ["label"] else set()
        values = [marks.emptied(found.values(name), names) for name in wanted] if labelled else []
        if several and labelled and not barred:
            normal = [marks.mark(value) == 1 for value in found.values("no_finding")]
            values = [[value or "0" * none for value, none in zip(column_values, normal)] for column_values in values]
        labels = values[0] if values else []
        if barred:
            to_findings = _barred(path, classes, labels, found.lines)
        else:
            to_findings = _marks(path, classes) if several else _class(path, classes, labels, found.lines)
        stated, notes = facts.stated(found, column)
        asked_of, odd = attribute_columns.stated(found, kinds, report)
        notes += odd
        notes += [*facts.unpadded(found), *facts.unread(found), *(() if several else marks.doubts(found.name, labels))]
        entries: dict[str, Entry | str] = {}
        keys = ["" if column == "patient_id" and facts.missing(key) else key for key in found.values(column)]
        for number, (line, key) in enumerate(zip(found.lines, keys)):
            said = tuple(column_values[number] for column_values in values)
            form = matching.posix(key) if column == "file" else matching.identifier(column, key)
            if key and form:
                entry = Entry(line, 1, to_findings(said, line) if any(said) else (), stated[number], asked_of[number])
                entries[form] = _merged(entries[form], entry, column) if form in entries else entry
        without = sum(not key for key in keys)
        notes += [f"{path.name}: {without} rows have no {column} and were passed over"] if without else []
        return cls(column, entries, {}, _unpadded(column, entries), labelled, len(found.rows), (*found.notes, *notes))

    def matched(self, names: Sequence[str]) -> Labels:
        """The table by the files that there are, where it is one by file; names are relative POSIX paths."""
        if self.column != "file":
            return self
        entries: dict[str, Entry | str] = {}
        unmatched: dict[str, Entry] = {}
        for (key, entry), files in zip(self.table.items(), matching.files_of(list(self.table), names)):
            assert isinstance(entry, Entry)
            if not files:
                unmatched[key] = entry
            for name in files:
                before = entries.get(name)
                if len(files) > 1 or isinstance(before, str):
                    entries[name] = matching.AMBIGUOUS
                else:
                    entries[name] = entry if before is None else _merged(before, entry, self.column)
        return replace(self, table=entries, unmatched=unmatched, unpadded=_unpadded("file", unmatched))

    def entry(self, file: str, header: Header) -> Entry | str | None:
        """What the table says of an image, given its file's path and its header: nothing, or the reason why it is unclear."""
        key = self._key(file, header)
        found = self.table.get(key)
        if found is None and key:
            bare = _bare(self.column, key)
            return matching.UNPADDED.format(column=self.column) if self.unpadded.get(matching.unpadded(bare), bare) != bare else None
        return (found.why or found) if isinstance(found, Entry) else found

    def find(self, file: str, header: Header) -> Findings | Quarantined:
        """Findings of an image, given its file's relative POSIX path and its header."""
        found = self.entry(file, header)
        if isinstance(found, str):
            return Quarantined(found)
        if found is None:
            return Quarantined(f"no label: its {self.column} is not in the label table")
        return found.findings or Quarantined(f"no label: the label table leaves it empty for its {self.column}")

    def line(self, header: Header) -> int | None:
        """The line that an image's header leads to, in a table by UID or patient."""
        found = self.table.get(self._key("", header)) if self.column != "file" else None
        return found.line if isinstance(found, Entry) else None

    def _key(self, file: str, header: Header) -> str:
        return file if self.column == "file" else matching.identifier(self.column, getattr(header, self.column))

    def names_patients(self) -> bool:
        """Whether any row says whose image it is."""
        return any("patient_id" in entry.stated for entry in self.table.values() if isinstance(entry, Entry))

    def outside(self) -> list[str]:
        """Keys that are paths out of the folder: no file is looked for there."""
        paths = ((key, PurePosixPath(key)) for key in (*self.table, *self.unmatched) if self.column == "file")
        return sorted(key for key, path in paths if path.is_absolute() or ".." in path.parts or key[1:2] == ":")


def has_labels(path: Path) -> bool:
    """Whether a table has a column with one label a row; it may also say nothing but whose the images are."""
    return "label" in table.read(path).columns


def class_names(path: Path) -> tuple[str, ...]:
    """The different labels of a table with one label a row, sorted. Raises InputError where it cannot be read, or has no such column."""
    return tuple(sorted(class_counts(path)))


def class_counts(path: Path) -> dict[str, int]:
    """Rows of each of :func:`class_names`."""
    found = table.read(path, ())
    if "label" not in found.columns:
        raise InputError(f"{path.name} needs a column 'label' and one of {', '.join(KEYS)}: name them in its first line")
    counts = Counter(label for label in marks.emptied(found.values("label")) if label)
    names, totals = marks.spellings(counts), Counter[str]()
    for label, count in counts.items():
        totals[names[label]] += count
    return dict(totals)


def says_nothing(path: Path) -> bool:
    """Whether a table that nobody called ``labels.csv`` has no label and no fact of an image: beside class folders it is not read."""
    columns = set(table.read(path).columns)
    key = next((name for name in KEYS if name in columns), None)
    return path.name != table.USUAL and "label" not in columns and (key is None or not facts.FACTS.keys() & columns - {key})


def passed_over(ingest: IngestConfig, path: Path, classes: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a table beside class folders of pictures is not read: it :func:`says_nothing`, and nobody asked for its columns."""
    fits = ingest.source == "pictures" and not ingest.told and class_folders.fit(classes, names)
    return fits and says_nothing(path)


def finding_names(path: Path) -> tuple[str, ...]:
    """The findings of a table by which an image can have several, or none: those that its labels name together, sorted, or else
    its columns of 1 and 0 under other names than :data:`pipeline.ingest.table.NAMES`. Empty where it has neither, or one such column.

    Raises:
        InputError: it cannot be read.
    """
    found = table.read(path, ())
    if "label" in found.columns:
        labels = marks.emptied(found.values("label"))
        named = {marks.alike(part): part.strip() for label in sorted(labels) for part in marks.parts(label)}
        several = any(map(marks.several, labels))
        if not several:
            marks.refuse_other_bars(found.name, labels, found.lines)
        return tuple(sorted(named[name] for name in named if name not in marks.NO_FINDING)) if several else ()
    columns = tuple(name for name in found.columns if name and name not in table.NAMES and marks.of_marks(found.values(name)))
    return columns if len(columns) > 1 else ()


def unread(path: Path, classes: Sequence[str]) -> list[str]:
    """The table's columns that are neither read nor one of the classes; with the reason of those that are nearly findings."""
    found, taken = table.read(path), {table.folded(name) for name in classes}
    told = []
    for name in found.columns:
        if name and name not in table.NAMES and name not in taken:
            said = [marks.mark(value) for value in marks.emptied(found.values(name))]
            others = [line for line, mark in zip(found.lines, said) if mark is None]
            why = f" (on line {others[0]} neither 1, 0 nor -1)" if 0 < 2 * len(others) < len(said) else ""
            one = {mark for mark in said if mark != -1}
            told.append(name[:40] + (f" ({one.pop()} in all rows)" if one in ({1}, {0}) else why))
    return told


@dataclass(frozen=True)
class FieldLabels:
    """Findings from an attribute of the header, such as BodyPartExamined: its value is the class, upper and lower case alike."""

    keyword: str
    classes: tuple[str, ...]

    def find(self, file: str, header: Header) -> Findings | Quarantined:
        """Findings of an image, given its header."""
        value = table.folded(header.also.get(self.keyword, ""))
        if not value:
            return Quarantined(f"no label: its header has no {self.keyword}")
        if value not in [table.folded(name) for name in self.classes]:
            return Quarantined(f"no label: its {self.keyword} is none of ingest.classes")
        return one_hot([table.folded(name) for name in self.classes].index(value), len(self.classes))


@dataclass(frozen=True)
class FolderLabels:
    """Findings from the name of the folder that holds the file: one folder a class."""

    classes: tuple[str, ...]

    def find(self, file: str, header: Header) -> Findings | Quarantined:
        """Findings of an image, given its file's relative POSIX path."""
        place = marks.place(matching.readable(PurePosixPath(file).parts[0]), self._places)
        if place is None:
            return Quarantined("no label: its folder is none of ingest.classes")
        return one_hot(place, len(self.classes))

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return marks.places(self.classes)


@dataclass(frozen=True)
class OneClass:
    """Findings of a set without labels: every image is of its one class."""

    def find(self, file: str, header: Header) -> Findings:
        """Findings of any image."""
        return one_hot(0, 1)


def one_hot(index: int, count: int) -> Findings:
    """The findings of an image of one class."""
    return tuple(int(number == index) for number in range(count))


def opposite(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether one has a finding that the other denies."""
    return any({left, right} == {0, 1} for left, right in zip(one, other))


def _merged(first: Entry | str, second: Entry, column: str) -> Entry:
    """Two entries of one key: a label beside none counts; a fact on which they differ is left out."""
    assert isinstance(first, Entry)
    why = first.why or second.why
    if first.findings and second.findings and first.findings != second.findings:
        why = CONTRADICTORY.format(column=column)
    names = {patients.canonical(entry.stated["patient_id"]) for entry in (first, second) if "patient_id" in entry.stated}
    if len(names) > 1:
        why = why or SEVERAL_PATIENTS.format(column=column)
    stated = {**second.stated, **first.stated}
    for name in first.stated.keys() & second.stated.keys() - {"patient_id"}:
        stated[name] = first.stated[name] if first.stated[name] == second.stated[name] else ""
    asked = attribute_columns.merged(first.asked, second.asked)
    return Entry(min(first.line, second.line), first.rows + second.rows, first.findings or second.findings, stated, asked, why)


def _unpadded(column: str, entries: dict[str, Any]) -> dict[str, str]:
    bare = [_bare(column, key) for key in entries] if column in ("file", "patient_id") else []
    return {matching.unpadded(key): key for key in bare}


def _bare(column: str, key: str) -> str:
    return matching.stem(table.folded(matching.readable(key))) if column == "file" else key


def _class(path: Path, classes: Sequence[str], labels: Sequence[str], lines: Sequence[int]) -> Any:
    known = marks.places(classes)
    index = {label: place for label in set(labels) if (place := marks.place(label, known)) is not None}
    unknown = sorted({label for label in labels if label} - index.keys())
    if unknown:
        raise InputError(
            f"{path.name}: {len(unknown)} label(s) of the column 'label' match no class, on {_lines_with(unknown, labels, lines)}; "
            f"ingest.classes names {', '.join(classes)}: add them there, or mend the table"
        )
    return lambda values, line: one_hot(index[values[0]], len(classes))


def _barred(path: Path, classes: Sequence[str], labels: Sequence[str], lines: Sequence[int]) -> Any:
    index = {marks.alike(name): number for number, name in enumerate(classes)}
    none = marks.NO_FINDING - index.keys()

    def named(label: str) -> list[str]:
        return [name for name in map(marks.alike, marks.parts(label)) if name not in none]

    unknown = [label for label in labels if not index.keys() >= set(named(label)) or (not named(label) and "|" in label)]
    if unknown:
        raise InputError(
            f"{path.name}: {len(set(unknown))} label(s) of the column 'label' hold what is no class, on "
            f"{_lines_with(unknown, labels, lines)}; ingest.classes names {', '.join(classes)}: write them with bars between, or No Finding"
        )
    return lambda values, line: tuple(int(name in set(named(values[0]))) for name in index)


def _marks(path: Path, classes: Sequence[str]) -> Any:
    def findings(values: Sequence[str], line: int) -> Findings:
        said = [marks.mark(value) for value in values]
        if unknown := [name for name, mark in zip(classes, said) if mark is None]:
            raise InputError(
                f"{path.name}, line {line}: other values than numbers for {', '.join(unknown[:5])}: write 1, 0, or -1 for unknown"
            )
        return tuple(mark for mark in said if mark is not None)

    return findings


def _lines_with(unknown: Sequence[str], labels: Sequence[str], lines: Sequence[int]) -> str:
    """Where labels stand, by line of the file: what they say may be anything, a name too."""
    none = set(unknown)
    found = [str(line) for line, label in zip(lines, labels) if label in none]
    return f"line(s) {', '.join(found[:5])}{f' and {len(found) - 5} more' if len(found) > 5 else ''}"

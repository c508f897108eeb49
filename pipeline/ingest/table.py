"""Tables as people export them: encoding, separator and columns are recognised where there is one reading, and refused otherwise.

A value under the wrong column is a wrong label, so whatever could shift one (two columns of one name, values under no name, a row longer
than the header) ends the reading with the line and the column.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import InputError

SEPARATORS = (",", ";", "\t", "|")
# How a column may be called, in lower case and without spaces, hyphens, underscores and full stops: a closed list.
NAMES = {
    "file": ("file", "filename", "filepath", "path", "imageindex"),
    "sop_instance_uid": ("sopinstanceuid",),
    "series_instance_uid": ("seriesinstanceuid",),
    "patient_id": ("patientid", "participantid", "subjectid"),
    "label": ("label", "labels", "findinglabels"),
    "no_finding": ("nofinding",),
    "sex": ("sex", "patientsex", "gender"),
    "age": ("age", "patientage"),
    "site": ("site", "institution", "institutionname"),
    "view": ("view", "viewposition"),
    "laterality": ("laterality", "imagelaterality"),
    "acquisition": ("acquisition",),
}
KEYS = ("file", "sop_instance_uid", "series_instance_uid", "patient_id")
"""Columns by which a row's images are found, the first that there is."""
USUAL = "labels.csv"
SUFFIXES = (".csv", ".tsv")
_NAMED = {spelling: name for name, spellings in NAMES.items() for spelling in spellings}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_1252 = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
_INVISIBLE = " \t\r\n\f\v\u00a0\u200b\u200e\u200f\u2060\ufeff"


@dataclass(frozen=True)
class Table:
    """A table's text.

    Attributes:
        name: of its file.
        columns: names, those of :data:`NAMES` as there, others in lower case; an empty string for an empty column without one.
        rows: values, stripped, one for each column; rows without any value are left out.
        lines: line of the file that each row begins on, from 1.
        notes: what was assumed in reading it.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[list[str]] = field(repr=False)
    lines: list[int] = field(repr=False)
    notes: tuple[str, ...] = ()

    def values(self, column: str) -> list[str]:
        """The values of one column; empty strings where there is no such column."""
        if column not in self.columns:
            return [""] * len(self.rows)
        place = self.columns.index(column)
        return [row[place] for row in self.rows]


def read(path: Path, also: Sequence[str] = ()) -> Table:
    """Read a table: UTF-8, UTF-16 or UTF-32 with their mark, or Windows-1252; separated by comma, semicolon, tab or bar.

    Args:
        path: its file.
        also: columns that are looked for beside those of :data:`NAMES`, and win over them.

    Raises:
        InputError: it is not there, is no text, or can be read in more than one way; the message names the line and the column.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no label table {path.name} in {path.parent}: put the CSV there, or name it in ingest.labels") from None
    except OSError:
        raise InputError(f"{path.name} cannot be read: mend its permissions, or save it as CSV in UTF-8") from None
    content, notes = _decoded(path.name, raw)
    extra = {folded(name) for name in also}
    told = re.match(r'\s*"?sep=([^"\w ])"?[;,\t|]*(?:\r\n|\r|\n|$)', content, re.IGNORECASE)
    separator = told[1] if told else _separator(path.name, content, extra)
    records = _records(path.name, content, separator)
    if told:
        next(records)
    line, header = next(records, (1, []))
    names = [_column(name, extra) for name in header]
    if not (set(names) & (NAMES.keys() | extra)):
        names = []  # no header: what it holds may be a patient's, so that nothing below may quote it
    _check_names(path.name, line, names)
    rows, lines = [], []
    for line, record in records if names else ():
        _check_row(path.name, line, record, names, separator)
        rows.append([*record[: len(names)], *[""] * (len(names) - len(record))])
        lines.append(line)
    _check_unnamed(path.name, names, rows, lines)
    return Table(path.name, tuple(names), rows, lines, notes)


def beside(root: Path) -> list[Path]:
    """Tables that lie in a folder itself, sorted; links and hidden files, such as macOS writes beside others, are none."""
    there = (path for path in root.glob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in there if path.is_file() and not path.is_symlink())


def chosen(root: Path, name: str = USUAL) -> Path:
    """The label table of a folder: ``name``, or where that is ``labels.csv`` and not there, the only table with a column of :data:`KEYS`.

    Returns:
        ``root / name`` too where there is none.

    Raises:
        InputError: there are several such tables, or one in their place cannot be read.
    """
    named = root / name
    if name != USUAL or named.exists():
        return named
    usable = [path for path in beside(root) if set(KEYS) & set(read(path).columns)]
    if len(usable) > 1:
        raise InputError(
            f"{len(usable)} tables lie in {root}, {' and '.join(path.name for path in usable[:2])}: name the one {USUAL}, or move them "
            f"elsewhere where none says labels or patients"
        )
    return usable[0] if usable else named


def header_line(path: Path) -> int | None:
    """The line, of the first twenty, that has a column of :data:`KEYS` if quotes do not count and spaces part values too."""
    content, _ = _decoded(path.name, path.read_bytes())
    for line, text in enumerate(content.splitlines()[:20], 1):
        parted = [text.replace('"', "").split(separator) for separator in (*SEPARATORS, " ")]
        if any(len(parts) > 1 and set(KEYS) & {_column(_clean(part), set()) for part in parts} for parts in parted):
            return line
    return None


def folded(text: str) -> str:
    """Text as it is compared where case does not count: NFKC, case folded, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def western(raw: bytes) -> str:
    """Bytes as Windows-1252, in which those that it does not define are as in Latin-1: every byte sequence is a text."""
    return raw.decode("latin-1").translate(_1252)


def _decoded(name: str, raw: bytes) -> tuple[str, tuple[str, ...]]:
    if raw.startswith(_WORKBOOKS):
        raise InputError(f"{name} is a workbook, not a text: save its sheet as CSV in UTF-8")
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            try:
                return raw[len(mark) :].decode(encoding), ()
            except UnicodeDecodeError:
                raise InputError(f"{name} is marked as {encoding[:6].upper()} and is not: save it as CSV in UTF-8") from None
    if b"\0" in raw:
        raise InputError(f"{name} holds zero bytes, as UTF-16 without its mark does: save it as CSV in UTF-8")
    try:
        return raw.decode("utf-8"), ()
    except UnicodeDecodeError:
        return western(raw), (f"{name} is not UTF-8: it was read as Windows-1252 (Latin-1); save it as CSV in UTF-8 where that is wrong",)


def _separator(name: str, content: str, extra: set[str]) -> str:
    """The separator under which the header has the most columns that are known."""
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for separator in SEPARATORS:
        try:
            _, header = next(_records(name, content, separator), (1, []))
        except InputError:
            continue
        count = len({_column(part, extra) for part in header} & (NAMES.keys() | extra))
        found.setdefault(tuple(header), (count, separator))
    best = max((count for count, _ in found.values()), default=0)
    [*chosen] = [separator for count, separator in found.values() if count == best]
    if best and len(chosen) > 1:
        raise InputError(f"{name}: its header can be parted by {' or by '.join(map(repr, chosen))}: use one separator, or quote such names")
    return chosen[0] if best else SEPARATORS[0]


def _records(name: str, content: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line and values of every record that holds any."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            record = [_clean(value) for value in next(reader)]
        except StopIteration:
            return
        except csv.Error:
            raise InputError(
                f"{name} line {line}: a quotation mark is not closed, or not doubled inside a value: mend it, and part values by commas, "
                f"semicolons, tabs or bars"
            ) from None
        if any(record):
            yield line, record


def _clean(value: str) -> str:
    """Without what surrounds it, also ``="..."``, by which spreadsheets are told that digits are text."""
    value = value.strip(_INVISIBLE)
    return value[2:-1] if len(value) > 2 and value.startswith('="') and value.endswith('"') else value


def _column(name: str, extra: set[str]) -> str:
    name = folded(name)
    return name if name in extra else _NAMED.get(re.sub(r"[\s._-]", "", name), name)


def _check_names(table: str, line: int, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name and name in names[:place]:
            first = names.index(name)
            raise InputError(f"{table} line {line}: columns {first + 1} and {place + 1} are both {name[:40]!r}: keep one, or rename it")


def _check_row(table: str, line: int, record: Sequence[str], names: Sequence[str], separator: str) -> None:
    for place in range(len(names), len(record)):
        if record[place]:
            raise InputError(
                f"{table} line {line}: column {place + 1} holds a value, and the header ends with column {len(names)}, {names[-1][:40]!r}: "
                f"quote values that hold {separator!r}, or name the column"
            )
    others = [other for other in SEPARATORS if other != separator and other in record[0]]
    if len(record) == 1 < len(names) and others:
        raise InputError(f"{table} line {line}, column 1: not parted by {separator!r}, as the header is: use one separator")


def _check_unnamed(table: str, names: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
    """Refuse values under no name; all but row numbers in front, which pandas writes."""
    for place, name in enumerate(names):
        used = [(line, row[place]) for line, row in zip(lines, rows) if not name and row[place]]
        numbers = {value for _, value in used if value.isdecimal()}
        if used and not (place == 0 and len(numbers) == len(rows)):
            raise InputError(f"{table} line {used[0][0]}: column {place + 1} holds a value and has no name: name the column, or clear it")

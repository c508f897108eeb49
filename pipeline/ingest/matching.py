"""Which files the rows of a label table mean: by their name, or by a spelling of it that only one file has.

Tables travel through spreadsheets and between systems: letters are composed or not, cases change, suffixes and leading zeros are lost.
A row goes to the files of the first spelling that any file has; where these are several it is nobody's, because a guess is a wrong label.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from pipeline.ingest import patients
from pipeline.ingest.table import folded, western

# Of the files that ingest reads; the longest that fits is taken off.
SUFFIXES = (".nii.gz", ".nii", ".hdr", ".dicom", ".dcm", ".ima", ".png", ".jpeg", ".jpg", ".tiff", ".tif")
AMBIGUOUS = "no label: a row of the label table means several files, if case and suffix do not count: write their names in full"
UNPADDED = "no label: the label table has its {column} but for leading zeros, as a spreadsheet leaves it: format that column as text"
_SHORTENED = re.compile(r"\d[.,]\d+E\+?\d{2,}|\dE\+\d{2,}", re.IGNORECASE)


def posix(key: str) -> str:
    """A path as a table writes it, with ``/`` between its parts, and without ``.``."""
    return PurePosixPath(key.replace("\\", "/")).as_posix()


def readable(name: str) -> str:
    """A file's name as text in NFC; bytes that are not UTF-8 are taken for Windows-1252, as in a table."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = western(name.encode("utf-8", "surrogateescape"))
    return unicodedata.normalize("NFC", name)


def identifier(column: str, value: str) -> str:
    """A UID or Patient ID as it is compared."""
    return patients.canonical(value) if column == "patient_id" else value.strip(" \0").removesuffix(".dcm")


def shortened(value: str) -> bool:
    """Whether a spreadsheet has made a rounded number of an id: ``1.2E+10``. Its digits are lost."""
    return _SHORTENED.fullmatch(value) is not None


def unpadded(value: str) -> str:
    """A key without the leading zeros of its numbers."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", value)


def stem(name: str) -> str:
    """A folded name without its suffix."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def files_of(keys: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """The files that each key means, most often one or none.

    Args:
        keys: relative POSIX paths, as :func:`posix` gives them.
        names: relative POSIX paths of all files.
    """
    levels: list[dict[str, list[str]]] = [defaultdict(list) for _ in range(5)]
    for name in names:
        for level, form in zip(levels, _forms_of_file(name)):
            level[form].append(name)
    return [next((level[form] for level, form in zip(levels, _forms_of_key(key)) if form and form in level), []) for key in keys]


def _forms_of_file(name: str) -> Iterator[str]:
    composed = readable(name)
    yield name
    yield composed
    yield (small := folded(composed))
    yield stem(small)
    yield small


def _forms_of_key(key: str) -> Iterator[str]:
    """In the order of :func:`_forms_of_file`: only one side may lack its suffix, and ``12345.0`` is ``12345``."""
    yield key
    yield readable(key)
    yield (small := folded(readable(key)))
    yield number[1] if (number := re.fullmatch(r"(.*\d)\.0", small)) else small if stem(small) == small else ""
    yield stem(small)

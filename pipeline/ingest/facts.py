"""What a label table says of an image beside its label: whose it is, and of which sex, age, site, view, side and acquisition.

It is told under the name of the header's field, so that it goes through the same de-identification as a header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from pipeline.errors import InputError
from pipeline.ingest import marks, matching, patients
from pipeline.ingest.deidentify.allow_list import LATERALITIES, SEXES, VIEWS
from pipeline.ingest.table import Table, folded

# Years above which a number is no age but a code for one that is missing.
OLDEST = 130
_MISSING = marks.EMPTY | {"none", "unknown", "missing", "not available", "not recorded", "not reported", "unspecified"}
_PEOPLE = {"patient", "patientno", "patientnr", "patientnumber", "subject", "subjectno", "participant", "person", "mrn", "case", "caseid"}
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}
# What a column takes, said where some of its values were left out.
_TAKEN = {
    "sex": ": it takes M, F and O, or male, female and other",
    "age": ": it takes years, such as 45, or 011M for months",
    "view": ": it takes DICOM's terms, such as PA or MLO",
    "laterality": ": it takes L, R and B, or left, right and both",
}
_SIDES = {"LEFT": "L", "RIGHT": "R", "BOTH": "B", "BILATERAL": "B"}


def refuse_shortened(found: Table, column: str) -> None:
    """Refuse a column of ids in which a spreadsheet has rounded one: ``1.2E+10``, or of five or more with over 15 digits all end in zeros
    from there, which is as many as it keeps. Raises InputError with the line."""
    values = found.values(column)
    long = [digits for value in values if (digits := re.fullmatch(r"[1-9]\d{14}(\d+)(?:[.,]0+)?", value))]
    zeros = len(long) >= 5 and not any(digits[1].strip("0") for digits in long)
    for line, value in zip(found.lines, values):
        if matching.shortened(value) or (zeros and value == long[0][0]):
            raise InputError(
                f"{found.name} line {line}: column {column!r} holds a number that a spreadsheet has rounded, as 1.2E+10 is, or any of over "
                f"15 digits: the digits of the id are lost; format the column as text, and save the table from its source again"
            )


def stated(found: Table, key: str) -> tuple[list[dict[str, str]], list[str]]:
    """What each row states beside its label, under names of the header's fields; and how many values say nothing."""
    told: list[dict[str, str]] = [{} for _ in found.rows]
    notes = []
    for column, (name, convert) in FACTS.items():
        odd = 0
        values = found.values(column) if column != key else []
        if column == "sex" and {"h", "hombre", "mujer", "homem", "mulher"} & set(map(folded, values)):
            values = ["?" if folded(value) == "m" else value for value in values]  # mujer, beside H for hombre: no man
        for row, value in zip(told, values):
            fact = convert(value) if value else ""
            if fact:
                row[name] = fact
            odd += bool(value and not fact)
        notes += (
            [f"{found.name}: {odd} values of its column {column!r} say nothing that is known, and were left out{_TAKEN.get(column, '')}"]
            if odd
            else []
        )
    return told, notes


def _age(value: str) -> str:
    """Years, ``45`` or ``45,5``, as DICOM writes them (PS3.5 6.2); ``045Y`` and ``11M`` too. An empty string for anything else."""
    found = re.fullmatch(r"(\d{1,3})(?:[.,]\d*)?()|(\d{1,3})([DWMY])", value.upper())
    if found is None:
        return ""
    number, unit = int(found[1] or found[3]), found[4] or "Y"
    return "" if unit == "Y" and number > OLDEST else f"{number:03d}{unit}"


def _one_of(terms: frozenset[str], words: dict[str, str]) -> Callable[[str], str]:
    def term(value: str) -> str:
        value = words.get(value.upper(), value.upper())
        return value if value in terms else ""

    return term


def missing(value: str) -> bool:
    """Whether a cell says that there is no value, as spreadsheets and statistics programs write it: no patient's id."""
    return folded(value) in _MISSING


def unpadded(found: Table) -> list[str]:
    """A sentence on patient ids that differ in leading zeros only, which may be one patient whose zeros a spreadsheet took."""
    ids = {patients.canonical(value) for value in found.values("patient_id")}
    shared = Counter(map(matching.unpadded, ids))
    count = sum(times for times in shared.values() if times > 1)
    if not count:
        return []
    return [
        f"{found.name}: {count} patient ids differ from another in leading zeros only, as spreadsheets drop them, and are taken for other "
        f"patients: write them alike where they are not"
    ]


def unread(found: Table) -> list[str]:
    """A sentence on a column that is called as people call one of patient ids, where none is called patient_id."""
    alike = [name for name in found.columns if re.sub(r"[\s._-]", "", name) in _PEOPLE]
    if not alike or "patient_id" in found.columns:
        return []
    return [f"{found.name}: its column {alike[0]!r} was not read: call it patient_id if it says whose image it is"]


def _id(value: str) -> str:
    return value if patients.canonical(value) and not missing(value) else ""


FACTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "patient_id": ("patient_id", _id),
    "sex": ("patient_sex", _one_of(SEXES, _SEXES)),
    "age": ("patient_age", _age),
    "site": ("institution_name", str),
    "view": ("view_position", _one_of(VIEWS, {})),
    "laterality": ("image_laterality", _one_of(LATERALITIES, _SIDES)),
    "acquisition": ("acquisition_protocol_name", str),
}

"""Lists of files for people: what was left out and why (for the pipeline as ``quarantine.parquet``), and what repeats one another."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.ingest.tasks import Left

FORMULA = ("=", "+", "-", "@", "\t", "\r")
NAME, GROUPS = "quarantine", "near_duplicates.csv"
COMMONEST = 3


def write(folder: Path, left_out: Left) -> None:
    """Write both tables, of file and reason."""
    import pandas as pd

    rows = [(_shown(name), reason) for name, reason in left_out]
    pd.DataFrame(rows, columns=["file", "reason"], dtype=str).to_parquet(folder / f"{NAME}.parquet", index=False)
    _for_people(folder / f"{NAME}.csv", ("file", "reason"), rows)


def write_groups(folder: Path, files: Sequence[str], classes: Sequence[str], groups: Sequence[int]) -> None:
    """Write file, classes and group of images that have near-duplicates, group by group, for whoever looks at them."""
    rows = sorted((group, _shown(file), found) for file, found, group in zip(files, classes, groups))
    _for_people(folder / GROUPS, ("file", "class", "group"), [(file, found, str(group)) for group, file, found in rows])


def _shown(name: str) -> str:
    """A name with its bytes that are not UTF-8 as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _for_people(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of which a spreadsheet computes nothing: a name that begins like a formula is the same path, other text a text."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            before = ("./", *["'"] * (len(row) - 1))
            writer.writerow([mark * (cell[:1] in FORMULA) + cell for mark, cell in zip(before, row)])


def reasons(folder: Path) -> Counter[str]:
    """How often each reason was given; nothing where no list was written, or it is damaged."""
    path = folder / f"{NAME}.csv"
    if not path.is_file():
        return Counter()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return Counter(row["reason"] or "" for row in csv.DictReader(file))
    except (OSError, ValueError, KeyError, csv.Error):
        return Counter()


def commonest(reasons: Iterable[str]) -> str:
    """The commonest reasons with their counts, for one line."""
    return "; ".join(f"{count} x {reason}" for reason, count in Counter(reasons).most_common(COMMONEST))

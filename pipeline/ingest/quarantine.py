"""What was left out and why, for the pipeline (``quarantine.parquet``) and for people (``quarantine.csv``)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.ingest.tasks import Left

NAME = "quarantine"
COMMONEST = 3


def write(folder: Path, left_out: Left) -> None:
    """Write both tables, of file and reason; bytes of a name that are not UTF-8 are written as ``\\xNN``."""
    import pandas as pd

    rows = [(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), reason) for name, reason in left_out]
    pd.DataFrame(rows, columns=["file", "reason"], dtype=str).to_parquet(folder / f"{NAME}.parquet", index=False)
    with (folder / f"{NAME}.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        # A name that begins like a formula is not one: the same path, so that a spreadsheet does not compute it.
        writer.writerows((f"./{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name, reason) for name, reason in rows)


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

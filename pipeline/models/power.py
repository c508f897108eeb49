"""What the stress test would have found: its own power as measured on victims with planted defects, with version and conditions.

``data_cards/stress_power.json`` is what ``python -m tests.benchmarks.stress_power`` writes as ``power`` of its results; until it has been
measured for a version of the test, the page says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from evaluation.intervals import clopper_pearson
from evaluation.shifts import RADIOGRAPH
from pipeline.release.results import dig, interval

FILE = "stress_power.json"
DEFECTS = {
    "marker": "a site's letter as a shortcut, on {dose:.0%} of the findings in training",
    "sex": "findings of women called normal, {dose:.0%} of them in training",
    "nodules": "small nodules never seen, the smaller {dose:.0%} of all",
    "naive": "no letter ever seen in training",
    "sound": "sound: what is found of these is a false alarm",
}
WAYS = {"by shifts": "real shifts", "synthetic": "synthetic cases", "both": "both"}
RANKED = {"all": "all {n} classifiers", "defective": "the {n} that are not sound"}
FORETOLD = "How far the order of classifiers on synthetic cases foretells their order on real ones"


def measured(version: int) -> Mapping[str, Any]:
    """:func:`valid` of the table that travels with the package."""
    path = resources.files("data_cards") / FILE
    return valid(path.read_text(encoding="utf-8") if path.is_file() else None, version)


def valid(text: str | None, version: int) -> Mapping[str, Any]:
    """The measured table of a JSON text, or ``{"missing": sentence}`` where there is none for this version of the test.

    Returns:
        ``version``; ``conditions``, a sentence; ``rows``: ``defect``, ``dose``, ``n`` and shares with their intervals, ``by shifts``,
        ``synthetic`` and ``both`` among them; ``ranking``: by which victims, the rank correlation of AUC on synthetic and on real cases.
    """
    if text is None:
        return {"missing": "Which planted defects this test would have found has not been measured yet."}
    found = json.loads(text)
    if found["version"] != version:
        return {"missing": f"Which planted defects this test finds was measured for its version {found['version']}, and not for {version}."}
    return dict(found)


def table(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows, each with what was planted in words; sound victims last."""
    rows = sorted(found.get("rows") or [], key=lambda row: row["defect"] == "sound")
    return [(DEFECTS[row["defect"]].format(dose=row["dose"]), row) for row in rows]


def headline(found: Mapping[str, Any]) -> str:
    """How many classifiers with planted defects, and how many sound ones, the test found; empty where it was not measured."""
    if not found.get("rows"):
        return ""
    parts = []
    for title, of in (("with planted defects", set(DEFECTS) - {"sound", "naive"}), ("that are sound", {"sound"})):
        rows = [row for row in found["rows"] if row["defect"] in of]
        ways = [f"{_together(rows, key)} by {way}" for key, way in WAYS.items() if rows and all(key in row for row in rows)]
        parts.append(f"of {sum(row['n'] for row in rows)} classifiers {title} {' and '.join(ways)}")
    return f"It found, {'; '.join(parts)}."


def unlike(result: Mapping[str, Any]) -> list[str]:
    """What the measured test asked and a ``stress.json`` did not, so that it would not have found the like: a sentence each."""
    said = []
    if result["modality"] not in RADIOGRAPH:
        images = f"of modality {result['modality']}" if result["modality"] else "whose modality is not known"
        said.append(f"It was measured on radiographs: of images {images}, under other shifts and without markers, it says nothing.")
    if not dig(result, "synthetic.sets"):
        said.append("No synthetic cases were asked here (--synthetic): what only those find, this test would not have found.")
    if not any(row["column"] == "sex" for row in result.get("gaps") or []):
        said.append("Of too few patients is the sex known here: a sex that is missed more often, this test would not have found.")
    return said


def _together(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """How many of several rows' classifiers, with the share of them and its interval."""
    n = sum(row["n"] for row in rows)
    hits = sum(round(row[key]["value"] * row["n"]) for row in rows)
    return f"{hits}, a share of {interval(clopper_pearson(hits, n).to_dict())},"


def ranking(found: Mapping[str, Any]) -> str:
    """How far the order of classifiers on synthetic cases foretells that on real ones, as a sentence; that it was not measured where so."""
    said = []
    for name, rank in (found.get("ranking") or {}).items():
        if rank["value"] is not None:
            said.append(f"over {RANKED[name].format(n=rank['n'])} {interval(rank)}")
    if not said:
        return f"{FORETOLD} was not measured."
    return f"{FORETOLD}, as a rank correlation of AUC (1: the same order; 0: no relation): {'; '.join(said)}."

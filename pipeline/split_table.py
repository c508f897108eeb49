"""How a cohort was split, by class: a table, and a sentence on the class that has it hardest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.release.results import counted

SPLITS = ("train", "audit", "val", "test")


def splits(facts: Mapping[str, Any]) -> Table:
    """Images, and patients where they are known, of each class and split; ``facts`` are those of ``cohort.json``."""
    people = facts.get("people") if facts["unit"] == "patient" else None
    table = Table("class", *SPLITS, title="images (patients)" if people else "images", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in facts["classes"]:
        cells = [f"{facts['counts'][split][name]:,}" + (f" ({people[split][name]:,})" if people else "") for split in SPLITS]
        table.add_row(escape(name), *cells)
    return table


def rarest(facts: Mapping[str, Any]) -> str:
    """How many images of the rarest class reach training, in a sentence."""
    totals = {name: sum(facts["counts"][split][name] for split in SPLITS) for name in facts["classes"]}
    name = min(totals, key=lambda one: (totals[one], one))
    reach = facts["counts"]["train"][name]
    reaches = "reaches" if reach == 1 else "reach"
    return f"{reach:,} of your {counted(totals[name], f'{name} image')} {reaches} training; the others are sealed, chosen by or tested on"

"""``reading`` and ``score``."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.release.results import counted
from pipeline.terminal import one_line

if TYPE_CHECKING:
    from evaluation.intervals import Interval


@app.command()
def reading(
    run: Annotated[Path, typer.Argument(help="A run folder whose images are generated.")],
    out: Annotated[Path, typer.Option(help="A folder to make. It will hold patient data.")],
    per_class: Annotated[int, typer.Option(min=1, help="Real images of each class, and as many synthetic ones, at the most.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other images.")] = 0,
) -> None:
    """Export real and synthetic pictures, numbered at random, for readers to tell apart; the key stays with you."""
    count = api.reading(run, out=out, per_class=per_class, seed=seed)
    console.print(f"{counted(count, 'picture')} in {escape(str(out))}")
    console.print(
        "[bold red]PATIENT DATA[/]: it stays where the patients' images may be. Readers get sheets/, instructions.txt and a copy of "
        "answers.csv, never key.csv; then: synthcohort score FOLDER ANSWERS.csv ..."
    )


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="The folder that `synthcohort reading` made.")],
    answers: Annotated[list[Path], typer.Argument(help="Filled-in copies of answers.csv, one a reader.")],
) -> None:
    """Score readers' answers: how well they told synthetic pictures from real ones, and findings on either."""
    table = Table("reader", "rated", "synthetic told from real (AUC)", "finding right: real", "synthetic", "difference")
    table.title, table.title_justify = "with 95 % intervals", "left"
    scores = api.score_reading(folder, answers)
    for one in scores:
        findings = one.findings or (None, None, None)
        table.add_row(escape(one_line(one.reader)), f"{one.rated:,} of {one.pictures:,}", _shown(one.auc), *map(_shown, findings))
        for name, auc in one.per_class.items():
            table.add_row(escape(f"  {name}"), str(auc.n), _shown(auc), "", "", "")
    console.print(table)
    for one in scores:
        for note in one.notes:
            console.print(f"  [bold yellow]! {escape(one_line(f'{one.reader}: {note}'))}[/]")


def _shown(found: Interval | None) -> str:
    if found is None or isnan(found.value):
        return "not answered"
    return f"{found.value:z.2f} ({'too few for an interval' if isnan(found.low) else f'{found.low:z.2f} to {found.high:z.2f}'})"

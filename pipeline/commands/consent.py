"""``where`` and ``purge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.api.consent import Place
from pipeline.commands.app import app, console

USED = {
    "train": "the generator was trained on",
    "audit": "sealed, to audit with",
    "val": "used to choose with",
    "test": "used to test with",
}


@app.command()
def where(
    patient: Annotated[str, typer.Argument(help="The patient's id, as in the source; case, spaces and punctuation do not matter.")],
    runs: Annotated[Path, typer.Option(help="The folder in which the run folders lie.")] = Path("runs"),
    issuer: Annotated[str, typer.Option(help="Who issued the id, where ingest told patients apart by that.")] = "",
) -> None:
    """List the runs and releases that a patient's images were in."""
    places = api.where(patient, runs=runs, issuer=issuer)
    for place in places:
        console.print(f"[bold]{escape(str(place.run))}[/bold]: {escape(_said(place))}")
    if not any(place.images for place in places):
        console.print("No run that can tell holds, or held, images of this patient.")


def _said(place: Place) -> str:
    if place.unknown:
        return f"cannot tell: {place.unknown}"
    held = ", ".join(f"{count} {USED.get(split, f'in {split}')}" for split, count in sorted(place.images.items()))
    released = f"release {place.release}, verdict {place.verdict}" if place.release else "no release"
    return f"images: {held}; {released}; {f'patient data removed on {place.purged}' if place.purged else 'patient data are there'}"


@app.command()
def purge(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, it is only said what would be removed.")] = False,
) -> None:
    """Remove a run's patient data; its release stays, and its weights where they passed."""
    found = api.purge(run, yes=yes)
    for name, size in found.removed.items():
        told = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
        console.print(f"{'removed' if yes else 'would remove'} {escape(name)} ({told})")
    for name, why in found.kept.items():
        console.print(f"kept {escape(name)}: {why}")
    console.print("The cohort's splits and attempts stay in the folder of the cohorts: later runs of it need them.")
    if not yes:
        console.print("Nothing was removed: add --yes to remove it.")

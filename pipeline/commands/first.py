"""``init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.progress import Console
from pipeline.release.results import counted

if TYPE_CHECKING:
    from pipeline.outlook import Outlook


MOST = 12
"""Columns that are named, at the most."""
SOURCES = {"dicom": "DICOM", "nifti": "NIfTI", "pictures": "pictures", "medmnist": "MedMNIST"}


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM, NIfTI or pictures, or a MedMNIST .npz.")],
    write: Annotated[Path | None, typer.Option(help="A file to write the configuration into.")] = None,
) -> None:
    """Look at your data: a short configuration for it, and whether it can pass the gate."""
    made = api.init(folder, write=write)
    # The configuration alone goes to stdout, where it may be sent into a file.
    where = console if write is not None else Console(stderr=True)
    if write is None:
        typer.echo(made.text)
    tell(made, where)
    until = "" if made.config.ingest.not_trainable() is None else " --until ingest"
    if write is None:
        write = Path(f"{made.config.name}.yaml")
        where.print(f"  → synthcohort init {escape(str(folder))} --write {write} writes it", soft_wrap=True)
    where.print(f"  → synthcohort run {escape(str(write))}{until}", soft_wrap=True)


def tell(made: api.Beginning, console: Console = console) -> None:
    """Print what was found and what the gate will need."""
    found = made.found
    people = f" of {'at least ' if found.headers else ''}{counted(found.patients, 'patient')}" if found.patients is not None else ""
    number = len(found.images)
    kinds = f"with {counted(number, 'finding')}" if found.several else f"in {counted(number, 'class', 'classes')}"
    noun = "volume" if found.source == "nifti" else "image"
    console.print(f"[bold]{counted(found.labelled, noun)}[/bold]{people} {kinds}: {SOURCES[found.source]}")
    for name, count in found.images.items():
        of = f" of {counted(found.people[name], 'patient')}" if found.people is not None else ""
        console.print(f"  {escape(name)}: {counted(count, noun)}{of}")
    if found.several:
        console.print(
            "  An image can have several of them, or none. Take out of ingest.classes what is no finding, and out of labels that name it."
        )
    if found.unread:
        more = f" and {len(found.unread) - MOST} more" if len(found.unread) > MOST else ""
        console.print(f"  Columns of {escape(str(found.table))} that are not read: {escape(', '.join(found.unread[:MOST]))}{more}.")
    if found.patients is None:
        console.print("  [bold yellow]! SPLIT BY IMAGE: nobody says who the patients are, so that one may lie on both sides.[/]")
        if found.source != "medmnist":
            console.print("    A column patient_id in the label table mends that; give it before the first run, whose splits stay.")
        if found.workbook is not None:
            console.print(f"    {escape(found.workbook)} is a workbook, which is not read: save its sheet as labels.csv.")
    if found.unlabelled:
        left = f"{counted(found.unlabelled, 'file')} without a label will be left out"
        console.print(f"  [bold yellow]! {left}.[/]")
    for note in found.notes:
        console.print(f"  ! {escape(note)}")
    if (why := made.config.ingest.not_trainable()) is not None:
        console.print(f"  [bold yellow]! {escape(why)}.[/]")
        return
    tell_outlook(made.outlook, console, anyway=made.config.anyway)


def tell_outlook(outlook: Outlook, console: Console = console, *, anyway: bool) -> None:
    """Print what the gate will need, and whether the cohort can pass."""
    console.print("To pass, the gate needs:")
    for need in outlook.needs():
        console.print(f"  • {escape(need)}")
    short = outlook.shortages()
    for why in short:
        console.print(f"  [bold yellow]! {escape(why)}[/]")
    stops = "it goes on all the same (anyway)" if anyway else "it stops after ingest, unless you add --anyway"
    if outlook.rare:
        console.print("[bold]Ingest cannot split this cohort, and will refuse it.[/bold]")
    elif short:
        console.print(f"[bold]This run cannot pass the gate: {stops}.[/bold]")
    elif outlook.sealed is not None:
        console.print("[bold]This cohort is large enough to pass.[/bold]")

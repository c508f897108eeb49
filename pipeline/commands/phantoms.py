"""``phantom``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.release.results import counted


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="A folder to make; it must not exist.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients to draw.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Side of the images in pixels.")] = 96,
) -> None:
    """Write a folder of phantom chest radiographs as DICOM files with labels.csv, full of invented identities, to try things on."""
    count = api.phantom(out, patients=patients, seed=seed, size=size)
    console.print(f"{counted(count, 'image')} of {counted(patients, 'invented patient')} in {escape(str(out))}")

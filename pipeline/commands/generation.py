"""``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.errors import InputError


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="A run folder whose model is trained; the patients' data need not be there.")],
    class_: Annotated[list[str], typer.Option("--class", help="A class and how many images of it: --class effusion=500. May be repeated.")],
    out: Annotated[Path, typer.Option(help="A folder to make.")],
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other images.")] = 0,
) -> None:
    """Generate images from a run's model: free ones where its weights passed, otherwise unaudited patient data."""
    made = api.generate(run, _counts(class_), out=out, seed=seed, console=console)
    console.print(f"{made.images:,} images in {escape(str(made.folder))}")
    if made.cleared:
        console.print("The weights passed the gate: the images may be shared. They are synthetic, and not for diagnosis.")
    else:
        console.print(
            "[bold red]UNAUDITED PATIENT DATA[/]: the weights are not cleared, and nobody has judged these images. To have more of them "
            "judged and released: synthcohort run CONFIG --set generate.per_class=N --redo"
        )


def _counts(given: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in given:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal() or not count.isascii() or not 0 < int(count) < 10_000_000:
            raise InputError(f"--class {text}: give a class and a number of images, as in --class effusion=500")
        if name in counts:
            raise InputError(f"--class {name} is given twice: give it once, with all its images")
        counts[name] = int(count)
    return counts

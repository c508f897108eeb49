"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.errors import InputError


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    run: Annotated[Path | None, typer.Option(help="Its run folder, to look for traces of the patients too.")] = None,
) -> None:
    """Check a release: checksums, gate, card, DICOM tags, no trace of patients."""
    problems = api.verify(release, run=run)
    for problem in problems:
        console.print(f"[red]problem[/red] {escape(problem)}")
    if problems:
        raise InputError(f"{len(problems)} problems in {release.name}: do not publish it; release it again from its run")
    console.print(
        "The release is complete and as the gate judged it." if (release / "SHA256SUMS").exists() else "A refused release: no images."
    )

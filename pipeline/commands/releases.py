"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.errors import InputError
from pipeline.release.results import counted


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    run: Annotated[Path | None, typer.Option(help="Its run folder, to look for traces of the patients too.")] = None,
    key: Annotated[Path | None, typer.Option(help="The Ed25519 public key (PEM) of whoever must have signed it.")] = None,
) -> None:
    """Check a release: verdict, contents, checksums, signature, no trace of patients."""
    problems = api.verify(release, run=run, key=key)
    for problem in problems:
        console.print(f"[red]problem[/red] {escape(problem)}")
    if problems:
        raise InputError(f"{counted(len(problems), 'problem')} in {release.name}: do not publish it; release it again from its run")
    passed = (release / "cohort.npz").exists()
    console.print("The release is complete and as the gate judged it." if passed else "A refused release: no images.")

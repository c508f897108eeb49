"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.errors import InputError
from pipeline.release.contents import ARCHIVE, SIGNATURE
from pipeline.release.results import counted


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    run: Annotated[Path | None, typer.Option(help="Its run folder, to look for traces of the patients too.")] = None,
    key: Annotated[Path | None, typer.Option(help="The Ed25519 public key (PEM) of whoever must have signed it.")] = None,
) -> None:
    """Check a release: verdict, contents, checksums; with --key who signed it, with --run traces of patients."""
    problems = api.verify(release, run=run, key=key)
    for problem in problems:
        console.print(f"[red]problem[/red] {escape(problem)}")
    if problems:
        found = counted(len(problems), "problem")
        raise InputError(f"{found} in {release.name}: do not publish or use it; whoever made it releases it again from its run")
    passed = (release / ARCHIVE).exists()
    console.print("The release is complete and fits its verdict." if passed else "A refused release: no images.")
    if key is None:
        signed = "give --key" if (release / SIGNATURE).exists() else "it is not signed"
        console.print(f"Not checked: who made it ({signed}); a forger can write all of it anew.", highlight=False)
    if run is None and passed:
        console.print("Not checked: traces of the patients, for which whoever made it gives --run.", highlight=False)

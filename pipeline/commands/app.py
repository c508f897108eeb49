"""The application that the commands join, and the console on which they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.progress import Console

app = typer.Typer(
    help="From medical images to a privacy-audited synthetic cohort.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped configuration.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; runs/<name> by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: --set train.batch=64. May be repeated.")]


def _tell_version(asked: bool) -> None:
    if asked:
        from pipeline.release.cards import software_version

        console.print(f"synthcohort {software_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    pass

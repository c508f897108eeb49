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
)
console = Console()

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped configuration.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; runs/<name> by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: --set train.batch=64. May be repeated.")]

"""``run``, ``plan`` and ``show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline import api
from pipeline.api.runs import recipe_lines, shadow_cost
from pipeline.commands.app import ConfigArgument, Out, Set, app, console
from pipeline.config import load_config
from pipeline.errors import InputError

EXIT = {"pass": 0, "fail": 3, "inconclusive": 4}


@app.command()
def run(
    config: ConfigArgument,
    out: Out = None,
    set_: Set = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace finished stages that the configuration no longer fits.")] = False,
) -> None:
    """Run every stage that is not up to date: ingest, train, generate, shadows (if asked for), audit, evaluate, stress, release."""
    outcome = api.run(config, settings=set_ or (), out=out, until=until, redo=redo, console=console)
    if outcome.idle:
        console.print(f"Nothing to do: all {len(outcome.steps)} stages of {escape(outcome.folder.name)} are up to date.")
    api.show(outcome.folder, console)
    if outcome.verdict is not None:
        raise typer.Exit(EXIT[outcome.verdict])


@app.command()
def plan(config: ConfigArgument, out: Out = None, set_: Set = None) -> None:
    """Say which stages would run, and why, without running anything."""
    settings = load_config(config, set_ or ())
    for step in api.plan(settings, out=out):
        console.print(f"{step.stage.name:<9} {'up to date' if step.reason is None else escape(step.reason)}")
        if step.stage.name == "train":
            for line in recipe_lines(settings, out=out):
                console.print(f"{'':<9} {line}", highlight=False, markup=False)
        if step.stage.name == "shadows" and step.reason is not None:
            console.print(f"{'':<9} {shadow_cost(settings, out=out)}")
    if (why := settings.ingest.not_trainable()) is not None:
        raise InputError(f"{why}: run it with --until ingest")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what a run found, as tables."""
    api.show(run, console)

"""``run``, ``plan`` and ``show``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import api
from pipeline.api.first import beginning, is_data, refuse_results
from pipeline.api.runs import recipe_lines, shadow_cost
from pipeline.commands.app import ConfigArgument, Out, Set, app, console
from pipeline.commands.first import tell, tell_outlook
from pipeline.config import load_config, shipped
from pipeline.config.describe import changed
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.probe import Cost

EXIT = {"pass": 0, "fail": 3, "inconclusive": 4}


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML file, the name of a shipped configuration, or a folder of images.")],
    out: Out = None,
    set_: Set = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Replace finished stages that the configuration no longer fits.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on where the cohort is too small to pass the gate.")] = False,
) -> None:
    """Run every stage that is not up to date: ingest, train, generate, shadows (if asked for), audit, evaluate, stress, review, release."""
    _tell_of_folder(config)
    if is_data(config):
        file, made = beginning(config)
        config = str(file)
        if made is not None:
            tell(made)
        console.print(f"The configuration is in [bold]{escape(config)}[/bold]: change it there; synthcohort run {escape(config)} goes on")
    outcome = api.run(config, settings=set_ or (), out=out, until=until, redo=redo, anyway=anyway, console=console)
    if outcome.idle:
        console.print(f"Nothing to do: {escape(outcome.folder.name)} is up to date.")
    api.show(outcome.folder, console)
    if outcome.verdict is not None:
        raise typer.Exit(EXIT[outcome.verdict])


@app.command()
def plan(
    config: ConfigArgument,
    out: Out = None,
    set_: Set = None,
    probe: Annotated[bool, typer.Option("--probe", help="Try the work for some seconds, and say what the run will cost.")] = False,
) -> None:
    """Say which stages would run, and why, and whether the cohort can pass, without running anything."""
    _tell_of_folder(config)
    if is_data(config):
        refuse_results(Path(config))
    settings = load_config(config, set_ or ())
    for step in api.plan(settings, out=out):
        console.print(f"{step.stage.name:<9} {'up to date' if step.reason is None else escape(step.reason)}")
        if step.stage.name == "train":
            for line in recipe_lines(settings, step, out=out):
                console.print(f"{'':<9} {line}", highlight=False, markup=False)
        if step.stage.name == "shadows" and step.reason is not None:
            console.print(f"{'':<9} {shadow_cost(settings, out=out)}")
    differing = ", ".join(f"{key}={value}" for key, value in changed(settings).items())
    console.print(f"[bold]not as by default:[/bold] {escape(differing or 'nothing')}")
    if settings.foreign:
        return
    ahead, notes = api.outlook(settings, out=out)
    for note in notes:
        console.print(f"  [bold yellow]! {escape(note)}[/]")
    if (why := settings.ingest.not_trainable()) is not None:
        raise InputError(f"{why}: run it with --until ingest")
    tell_outlook(ahead, anyway=settings.anyway)
    if probe:
        _tell_costs(api.cost(settings, out=out, console=console))


def _tell_of_folder(config: str) -> None:
    """Say of a shipped configuration that a folder here is called the same."""
    if config in shipped() and Path(config).is_dir():
        console.print(f"  [bold yellow]! {config} is a shipped configuration, which is taken; the folder: synthcohort run ./{config}[/]")


def _tell_costs(costs: Sequence[Cost]) -> None:
    """Print what a probe found."""
    from pipeline.probe import size_of, told

    table = Table("stage", "time", "memory", "disk", title="on this machine, about", title_justify="left")
    for cost in costs:
        table.add_row(cost.stage, f"{'at most ' if cost.at_most else ''}{told(cost.seconds)}", size_of(cost.memory), size_of(cost.disk))
    seconds, disk = sum(cost.seconds for cost in costs), sum(cost.disk for cost in costs)
    table.add_row("all", told(seconds), size_of(max(cost.memory for cost in costs)), size_of(disk))
    console.print(table)


@app.command()
def show(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Show what a run found, as tables."""
    api.show(run, console)

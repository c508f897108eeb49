"""``settings``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.padding import Padding

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.config.describe import markdown as page
from pipeline.config.describe import sections
from pipeline.errors import InputError


@app.command()
def settings(
    section: Annotated[str | None, typer.Argument(help="A section, such as train, or a key, such as train.batch.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page SETTINGS.md.")] = False,
) -> None:
    """List every key of a configuration with its meaning, default, range and unit."""
    found = api.settings(section)
    if markdown and section is not None:
        raise InputError(f"--markdown prints the page of all settings: leave {section} out")
    if markdown:
        typer.echo(page(), nl=False)
        return
    told = None
    for one in found:
        if one.section != told and one.section:
            console.print(f"\n[bold]{one.section}[/bold]: {escape(sections()[one.section])}")
        told = one.section
        default = "needed" if one.default is None else f"default {one.default}"
        console.print(f"  [bold]{one.key}[/bold]  {escape(f'{default}; {one.allowed}')}")
        console.print(Padding(escape(one.meaning), (0, 0, 0, 6)))

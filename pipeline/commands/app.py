"""The application that the commands join, and the console on which they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from pipeline.errors import InputError
from pipeline.progress import Console

Command = TypeVar("Command", bound=Callable[..., Any])


class Once(TyperCommand):
    """A command that refuses an option given twice which takes one value: the last would count, and the first be lost without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words after the command's name. Raises InputError where one value is given twice."""
        *_, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            single = option.param_type_name == "option" and not (option.multiple or getattr(option, "is_flag", False))
            if single and given.count(option) > 1:
                raise InputError(f"{max(option.opts, key=len)} is given {given.count(option)} times: it takes one value, give it once")
        return super().parse_args(ctx, args)


class _App(typer.Typer):
    def command(self, *args: Any, **settings: Any) -> Callable[[Command], Command]:
        """As typer's, for commands that are :class:`Once`."""
        return super().command(*args, cls=Once, **settings)


app = _App(
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

"""``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipeline import api
from pipeline.commands.app import app, console
from pipeline.errors import InputError
from pipeline.release.results import counted


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="A run folder whose model is trained; the patients' data need not be there.")],
    out: Annotated[Path, typer.Option(help="A folder to make.")],
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class or finding and how many images of it: --class effusion=500. May be repeated."),
    ] = None,
    finding: Annotated[list[str] | None, typer.Option(help="A finding that --count images have. May be repeated.")] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            help="A finding that they do not have, or the class that they are led away from where an image has one. May be repeated.",
        ),
    ] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="An attribute of them: --attribute sex=F. May be repeated.")] = None,
    prompt: Annotated[str, typer.Option(help="What a report of them would say, in words of the training reports.")] = "",
    negative_prompt: Annotated[str, typer.Option(help="A text that they are led away from.")] = "",
    count: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many images the other options ask for.")] = None,
    extrapolate: Annotated[bool, typer.Option(help="Make them even where training showed no such combination or word.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other images.")] = 0,
) -> None:
    """Generate images from a run's model: free ones where its weights passed, otherwise unaudited patient data."""
    texts = {"text": prompt, "without_text": negative_prompt}
    plan = _plan(finding or [], without or [], attribute or [], texts, count, extrapolate)
    made = api.generate(run, _counts(class_ or []), plan=plan, out=out, seed=seed, console=console)
    console.print(f"{counted(made.images, 'image')} in {escape(str(made.folder))}")
    if made.cleared:
        console.print(
            "The weights passed the gate: the images may be shared, as the weights may. No copy was looked for among them. They are "
            "synthetic, and not for diagnosis."
        )
    else:
        console.print(
            "[bold red]UNAUDITED PATIENT DATA[/]: the weights are not cleared, and nobody has judged these images. To have more of them "
            "judged and released: synthcohort run CONFIG --redo with a higher generate.per_class, or a larger generate.plan"
        )


def _plan(
    findings: list[str], without: list[str], attributes: list[str], texts: dict[str, str], count: int | None, extrapolate: bool
) -> list[dict[str, Any]]:
    """What the options ask for together: one entry of a plan, or none."""
    asked = bool(findings or without or attributes or any(texts.values()))
    if not asked and count is None:
        return []
    if not asked or count is None:
        raise InputError("--count goes with --finding, --not, --attribute or --prompt: --finding effusion --not cardiomegaly --count 200")
    pairs = [text.partition("=") for text in attributes]
    if wrong := [text for text, (name, _, value) in zip(attributes, pairs) if not name or not value]:
        raise InputError(f"--attribute {wrong[0]}: give a name and a value, as in --attribute sex=F")
    named = {name: value for name, _, value in pairs}
    if twice := [name for place, (name, _, _) in enumerate(pairs) if name in [one for one, _, _ in pairs[:place]]]:
        raise InputError(f"--attribute {twice[0]} is given twice: an image has one value of it, and other images take another command")
    return [{"findings": findings, "without": without, "attributes": named, **texts, "count": count, "extrapolate": extrapolate}]


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

"""``audit``, ``release`` and ``stress``: what acts on images and models from elsewhere. The stages of a run are run by ``run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import api
from pipeline.api.foreign import refuse_run
from pipeline.commands.app import Out, Set, app, console
from pipeline.commands.runs import EXIT
from pipeline.errors import InputError

Given = Annotated[Path | None, typer.Argument(help="Nothing; of a run folder it is said how its stage is run.", show_default=False)]
Train = Annotated[Path | None, typer.Option(help="Folder of the real images that the generator was trained on.")]
Synthetic = Annotated[Path | None, typer.Option(help="Its images: a folder of DICOM or pictures, an .npz as MedMNIST's, or a release.")]
Holdout = Annotated[Path | None, typer.Option(help="Folder of real images of patients whom the generator never saw, 300 or more.")]
Random = Annotated[
    bool, typer.Option("--holdout-random", help="The holdout was drawn at random, from train's source, before the training.")
]
Labels = Annotated[Path | None, typer.Option(help="A CSV with the columns file and label, for all folders; class folders do as well.")]
Redo = Annotated[bool, typer.Option("--redo", help="Replace finished stages that these images or settings no longer fit.")]


@app.command()
def audit(
    given: Given = None,
    train: Train = None,
    synthetic: Synthetic = None,
    holdout: Holdout = None,
    holdout_random: Random = False,
    labels: Labels = None,
    out: Out = None,
    set_: Set = None,
    redo: Redo = False,
) -> None:
    """Judge anybody's synthetic images: copies of training images, and whether the search would find them."""
    folders = _needed("audit", given, {"--train": train, "--synthetic": synthetic})
    found = api.audit(
        train=folders["--train"],
        synthetic=folders["--synthetic"],
        holdout=holdout,
        holdout_random=holdout_random,
        labels=labels,
        out=out,
        settings=set_ or (),
        redo=redo,
        console=console,
    )
    api.show(found.folder, console, gate=found.gate)
    raise typer.Exit(EXIT[found.verdict])


@app.command()
def release(
    given: Given = None,
    synthetic: Synthetic = None,
    train: Train = None,
    holdout: Holdout = None,
    holdout_random: Random = False,
    labels: Labels = None,
    out: Out = None,
    set_: Set = None,
    redo: Redo = False,
) -> None:
    """Judge another generator's images, and pack them for release where the verdict allows it."""
    folders = _needed("release", given, {"--synthetic": synthetic, "--train": train, "--holdout": holdout})
    outcome = api.release(
        synthetic=folders["--synthetic"],
        train=folders["--train"],
        holdout=folders["--holdout"],
        holdout_random=holdout_random,
        labels=labels,
        out=out,
        settings=set_ or (),
        redo=redo,
        console=console,
    )
    api.show(outcome.folder, console)
    assert outcome.verdict is not None
    raise typer.Exit(EXIT[outcome.verdict])


@app.command(hidden=True)
def stress(given: Given = None) -> None:
    """Say how the stress test of a run is run."""
    if given is not None:
        refuse_run(given, "stress")
    raise InputError("stress is a stage of a run, which trains the classifier that it tests: synthcohort run CONFIG --until stress")


def _needed(verb: str, given: Path | None, folders: dict[str, Path | None]) -> dict[str, Path]:
    """The folders, all of which are needed."""
    if given is not None:
        refuse_run(given, verb)
        raise InputError(f"{verb} takes its folders by name: synthcohort {verb} {' '.join(f'{name} FOLDER' for name in folders)}")
    if missing := [name for name, path in folders.items() if path is None]:
        raise InputError(f"{verb} needs {' and '.join(missing)}: synthcohort {verb} {' '.join(f'{name} FOLDER' for name in folders)}")
    return {name: path for name, path in folders.items() if path is not None}

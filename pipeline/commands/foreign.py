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

Given = Annotated[list[Path] | None, typer.Argument(help="Nothing; of a run folder it is said how its stage is run.", show_default=False)]
Train = Annotated[Path | None, typer.Option(help="Folder of the real images that the generator was trained on.")]
Synthetic = Annotated[Path | None, typer.Option(help="Its images: a folder of DICOM or pictures, an .npz as MedMNIST's, or a release.")]
Holdout = Annotated[Path | None, typer.Option(help="Folder of real images of patients whom the generator never saw, 300 or more.")]
Random = Annotated[
    bool, typer.Option("--holdout-random", help="The holdout was drawn at random, from train's source, before the training.")
]
Labels = Annotated[Path | None, typer.Option(help="A CSV with the columns file and label, for all folders; class folders do as well.")]
Model = Annotated[
    str | None, typer.Option(help="ONNX (.onnx), TorchScript (.pt), torch.export (.pt2), module:callable, or a run's folder.")
]
Against = Annotated[str | None, typer.Option(help="A second model, compared on the same cases.")]
Data = Annotated[Path | None, typer.Option(help="Labelled cases: a folder of DICOM or pictures, or an .npz as MedMNIST's.")]
SyntheticCases = Annotated[
    Path | None,
    typer.Option(help="Synthetic cases, asked where their label is sure: a folder, an .npz, a release, or a run whose model makes them."),
]
Rules = Annotated[Path | None, typer.Option(help="A YAML list of rules, such as: sensitivity(effusion) >= 0.85 at blur 2.")]
ContractFile = Annotated[
    Path | None, typer.Option(help="A YAML file that says what the model takes; the model's name with .yaml by default.")
]
Modality = Annotated[str | None, typer.Option(help="DICOM's code, such as DX, where the files do not say it.")]
Memory = Annotated[float, typer.Option(help="GiB of memory that the model's process may hold.")]
Seconds = Annotated[float, typer.Option(help="Seconds for an answer to one image, on average.")]
Redo = Annotated[bool, typer.Option("--redo", help="Replace finished stages that these images or settings no longer fit.")]

_FOLDER = "FOLDER"
_KINDS = {"--model": "MODEL"}


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


@app.command()
def stress(
    given: Given = None,
    model: Model = None,
    data: Data = None,
    against: Against = None,
    labels: Labels = None,
    synthetic: SyntheticCases = None,
    rules: Rules = None,
    contract: ContractFile = None,
    against_contract: ContractFile = None,
    modality: Modality = None,
    memory: Memory = 8.0,
    seconds: Seconds = 2.0,
    out: Annotated[Path | None, typer.Option(help="The folder to write; runs/stress-<model> by default.")] = None,
) -> None:
    """Put anybody's classifier under acquisition shifts, and answer acceptance rules."""
    needed = _needed("stress", given, {"--model": None if model is None else Path(model), "--data": data})
    assert model is not None
    found = api.stress(
        model=model,
        data=needed["--data"],
        against=against,
        labels=labels,
        synthetic=synthetic,
        rules=rules,
        contract=contract,
        against_contract=against_contract,
        modality=modality,
        memory=memory,
        seconds=seconds,
        out=out,
        console=console,
    )
    for one in found.answers:
        console.print(f"  {one['answer']}: {one['rule']}: {one['why']}", markup=False, highlight=False)
    console.print(f"  → {found.folder / 'stress.html'}: the page to read first", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _needed(verb: str, given: list[Path] | None, folders: dict[str, Path | None]) -> dict[str, Path]:
    """The folders, all of which are needed."""
    usage = f"synthcohort {verb} {' '.join(f'{name} {_KINDS.get(name, _FOLDER)}' for name in folders)}"
    if given:
        refuse_run(given[0], verb)
        further = " --holdout FOLDER --holdout-random" if verb == "audit" else ""
        raise InputError(f"{verb} takes its folders by name: {usage}{further}")
    if missing := [name for name, path in folders.items() if path is None]:
        raise InputError(f"{verb} needs {' and '.join(missing)}: {usage}")
    return {name: path for name, path in folders.items() if path is not None}

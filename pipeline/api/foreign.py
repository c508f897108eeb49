"""Judging somebody else's synthetic images: the audit, and the release that it allows. Both build a configuration and run it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import artifacts
from pipeline.api.runs import Outcome, Verdict, run
from pipeline.config import Config, config_of
from pipeline.errors import InputError, system_refusals

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.ingest.survey import Survey
    from pipeline.runner import Step

SIDES = (16, 512)
UNLABELLED = ("all",)
"""The one class of a set without labels."""


@dataclass(frozen=True)
class Judgement:
    """What an audit found.

    Attributes:
        folder: the run folder, with ``audit/audit.json`` and, for local eyes only, ``audit/pairs.png``.
        verdict: on the synthetic images; there are no weights to judge.
        gate: ``verdict``, ``images`` with its ``reasons``, ``checks``, ``attempt`` (which one on the cohort of ``train``), and ``needed``:
            what would settle an inconclusive verdict, and what to do about copies.
        steps: what was planned before anything ran, a step a stage.
    """

    folder: Path
    verdict: Verdict
    gate: Mapping[str, Any]
    steps: tuple[Step, ...]


def audit(
    *,
    train: str | Path,
    synthetic: str | Path,
    holdout: str | Path | None = None,
    holdout_random: bool = False,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    redo: bool = False,
    console: Console | None = None,
) -> Judgement:
    """The privacy audit of anybody's synthetic images: are there copies of training images among them, and would the search find them?

    Args:
        train: folder of the real images that the generator was trained on, DICOM or pictures.
        synthetic: its images: a folder of DICOM files or pictures, an ``.npz`` of MedMNIST's layout, or a release of this program.
        holdout: folder of real images like ``train``'s, of patients whom the generator never saw. Without it, or with few, nothing says how
            near chance comes: the verdict is ``inconclusive`` unless copies are identical, but the nearest pairs are found.
        holdout_random: whether ``holdout`` was drawn at random from one source with ``train``, before the generator was trained. Without
            that declaration it calibrates nothing that a ``pass`` could rest on: the verdict is ``inconclusive`` at best. The images of
            both are compared all the same, and must not be told apart without the generator.
        labels: a table for all of them, as ``ingest.label_table`` says; without it the label table in each. It says whose the real images
            are (``patient_id``, where they are no DICOM); an audit needs no classes.
        out: the run folder; ``runs/audit-<name of synthetic>`` by default.
        settings: overrides such as ``ingest.size=128``; by default images are compared at the synthetic images' own side.
        redo: replace finished stages that other images, or other settings, no longer fit.
        console: where progress is shown; nowhere by default.

    Raises:
        InputError: what was given cannot be used.
    """
    config = foreign_config("audit", train, synthetic, holdout, labels, settings, holdout_random=holdout_random)
    outcome = run(config, out=None if out is None else Path(out), until="audit", redo=redo, console=console)
    gate = judged(outcome.folder, config)
    return Judgement(outcome.folder, gate["verdict"], gate, outcome.steps)


def release(
    *,
    synthetic: str | Path,
    train: str | Path,
    holdout: str | Path,
    holdout_random: bool = False,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    redo: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Judge another generator's images, and pack them where the verdict allows it; the arguments are those of :func:`audit`.

    Classes are told by labels, or by class folders. Where all folders tell them, a part of the holdout (``ingest.val_share`` and
    ``test_share``) is spared from the audit to measure fidelity and utility with. Settings such as ``release.title``, ``release.licence``
    and ``release.contact`` say what the cards say.

    Raises:
        InputError: what was given cannot be used.
    """
    config = foreign_config("release", train, synthetic, holdout, labels, settings, holdout_random=holdout_random)
    return run(config, out=None if out is None else Path(out), redo=redo, console=console)


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run."""
    from pipeline.stages import BY_NAME

    return any((path / name / artifacts.RECORD).is_file() or (path / name / artifacts.PARTIAL).is_file() for name in BY_NAME)


def refuse_run(path: Path, verb: str) -> None:
    """Raise InputError for the folder of a run, saying how its stage is run."""
    if is_run(path):
        raise InputError(f"{path.name} is a run folder, and {verb} a stage of it: synthcohort run CONFIG --out {path} --until {verb}")


def judged(folder: Path, config: Config) -> dict[str, Any]:
    """What the gate says of a finished audit."""
    from pipeline.cohorts.ledger import Standing, decided

    audit = artifacts.read_object(folder / "audit" / "audit.json")
    standing = Standing(*(audit.get(name) for name in ("attempt", "earlier_recall", "earlier_attempt")))
    return decided(audit, config, standing) | {"attempt": standing.attempt}


def foreign_config(
    verb: str,
    train: str | Path,
    synthetic: str | Path,
    holdout: str | Path | None,
    labels: str | Path | None,
    settings: Sequence[str] = (),
    *,
    holdout_random: bool = False,
) -> Config:
    """The configuration of a foreign run. Raises InputError where the folders do not fit together."""
    from pipeline.ingest.survey import survey

    if holdout_random and holdout is None:
        raise InputError("--holdout-random says how the holdout was drawn, and there is none: give --holdout FOLDER")
    given = {"--train": train, "--synthetic": synthetic, "--holdout": holdout}
    paths = {option: Path(path) for option, path in given.items() if path is not None}
    for path in paths.values():
        refuse_run(path, verb)
    for option in ("--train", "--synthetic"):
        if holdout is not None and paths[option].expanduser().resolve() == paths["--holdout"].expanduser().resolve():
            raise InputError(f"--holdout is the folder of {option}: give one of patients whom the generator never saw, or leave it out")
    found = {}
    for option, path in paths.items():
        with system_refusals(path):
            found[option] = survey(path, option)
    kind = _kind(found)
    classes = _classes(paths, found, None if labels is None else Path(labels)) if verb == "release" else ()
    images = found["--synthetic"]
    ingest: dict[str, Any] = {
        "source": kind,
        "path": paths["--train"],
        "holdout": paths.get("--holdout"),
        "classes": classes or UNLABELLED,
        "size": min(max(images.side or found["--train"].side, SIDES[0]), SIDES[1]),
        "colour": all(one.colour for one in found.values() if one.kind != "archive"),
    }
    if labels is not None:
        ingest["label_table"] = Path(labels)
    if not classes:
        ingest["unlabelled"] = True
    if holdout is not None and not classes:
        ingest |= {"val_share": 0, "test_share": 0}
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", paths["--synthetic"].expanduser().resolve().stem).strip("-.")[:40] or "images"
    data: dict[str, Any] = {"name": f"{verb}-{name}", "ingest": ingest, "generate": {"import_from": paths["--synthetic"]}}
    if holdout_random:
        data["audit"] = {"holdout_random": True}
    return config_of(data, settings, verb)


def _kind(found: Mapping[str, Survey]) -> str:
    """How the real images are read."""
    for option in ("--train", "--holdout"):
        if option in found and found[option].kind not in ("dicom", "pictures"):
            what = "a release of synthetic images" if found[option].kind == "release" else "an .npz file"
            raise InputError(f"{option} is {what}: give a folder of real images, DICOM or pictures")
    kinds = {found[option].kind for option in ("--train", "--holdout") if option in found}
    if len(kinds) > 1:
        raise InputError(
            "--train and --holdout hold different kinds of files, DICOM and pictures, which differ by that alone: export them alike"
        )
    return kinds.pop()


def _classes(paths: Mapping[str, Path], found: Mapping[str, Survey], table: Path | None) -> tuple[str, ...]:
    """The classes that all of the folders tell; none where one of them tells none, or all are of one class.

    Raises:
        InputError: the synthetic images, or the holdout, have classes that the training images do not have.
    """
    from pipeline.ingest import marks
    from pipeline.ingest.labels import class_names, has_labels
    from pipeline.ingest.table import chosen

    if table is not None:
        names = class_names(table.expanduser())
        return names if len(names) > 1 else ()
    told: dict[str, tuple[str, ...]] = {}
    for option, survey in found.items():
        folder = paths[option].expanduser()
        csv = folder / "rows.csv" if survey.kind in ("release", "archive") else chosen(folder)
        told[option] = class_names(csv) if survey.kind != "archive" and csv.is_file() and has_labels(csv) else survey.folders
    classes = told["--train"]
    if len(classes) < 2 or not all(told.values()):
        return ()
    for option, names in told.items():
        if strange := [name for name in names if marks.place(name, marks.places(classes)) is None]:
            raise InputError(
                f"{len(strange)} of {len(names)} classes of {option} are none of --train's {len(classes)}: name them alike, or give all "
                f"of them in one table as --labels"
            )
    return classes

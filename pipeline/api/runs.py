"""Bringing a run folder up to date with its configuration, and looking at what it found."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config import Config, load_config
from pipeline.errors import InputError, Notice, system_refusals
from pipeline.system import private_files

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.outlook import Outlook
    from pipeline.probe import Cost
    from pipeline.runner import Step

Verdict = Literal["pass", "fail", "inconclusive"]
SHADOW_LEVELS = 6
"""As many as :data:`privacy.shadows.LEVELS` has, without what that imports."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: the run folder.
        verdict: the gate's, on the images; None where the run stopped before the release.
        steps: what was planned before anything ran, a step a stage.
    """

    folder: Path
    verdict: Verdict | None
    steps: tuple[Step, ...]

    @property
    def idle(self) -> bool:
        """Whether every stage was up to date already."""
        return all(step.reason is None for step in self.steps)


def run(
    config: Config | str | Path,
    *,
    out: Path | None = None,
    settings: Sequence[str] = (),
    until: str | None = None,
    redo: bool = False,
    anyway: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Run every stage that is not up to date.

    Args:
        config: a configuration, a YAML file, or the name of a shipped configuration.
        out: the run folder; ``runs/<name>`` by default.
        settings: overrides such as ``train.batch=64``.
        until: the last stage to run.
        redo: replace finished stages that the configuration no longer fits.
        anyway: go on after ingest where the cohort is too small to pass the gate.
        console: where progress is shown; nowhere by default.

    Raises:
        NotEnough: the cohort is too small to pass the gate, and ``anyway`` is not given.
        InputError: what was given cannot be used.
        Stopped: the process was asked to end; the same call goes on from there.
    """
    from pipeline.progress import Reporter, silent
    from pipeline.runner import run_stages
    from pipeline.runner import verdict as verdict_of
    from pipeline.stages import BY_NAME

    if until is not None and until not in BY_NAME:
        raise InputError(f"--until {until}: no such stage; the stages are {', '.join(BY_NAME)}")
    chosen, folder = _chosen(config, settings, out)
    _tell_unattended(chosen)
    if anyway:
        chosen = chosen.model_copy(update={"anyway": True})
    with system_refusals(folder), private_files(folder):
        reporter = Reporter(folder / "log.jsonl", console or silent())
        steps = run_stages(chosen, folder, reporter, until=until, redo=redo, keep=_files(config))
        verdict = verdict_of(folder) if until in (None, "release") else None
    return Outcome(folder, verdict, tuple(steps))


def plan(config: Config | str | Path, *, out: Path | None = None, settings: Sequence[str] = ()) -> list[Step]:
    """What each stage would do and why, without running anything; the arguments are those of :func:`run`.

    Raises:
        InputError: what was given cannot be used.
    """
    from pipeline.given import digests
    from pipeline.runner import Step, check
    from pipeline.runner import plan as plan_stages
    from pipeline.stages import flow

    chosen, folder = _chosen(config, settings, out)
    _tell_unattended(chosen)
    with system_refusals(folder), private_files(folder) if folder.exists() else contextlib.nullcontext():
        check(chosen, folder, _files(config))
        if folder.exists():
            return plan_stages(chosen, folder, digests(chosen, folder))
    return [Step(stage, None, f"new; writes {stage.writes}", False) for stage in flow(chosen)]


def outlook(config: Config | str | Path, *, out: Path | None = None, settings: Sequence[str] = ()) -> tuple[Outlook, Sequence[str]]:
    """What the gate will need of a run, and whether its cohort can pass; and what a person should know of the cohort.

    Known from the run's own split where its ingest is finished, which is said where that no longer fits; otherwise from the label table and
    the folders, without opening an image.
    The arguments are those of :func:`run`.

    Raises:
        InputError: what was given cannot be used, or a path of it is not there.
    """
    from pipeline.artifacts import read_json
    from pipeline.ingest.glance import glance
    from pipeline.outlook import expected, found

    chosen, folder = _chosen(config, settings, out)
    facts = read_json(folder / "ingest" / "cohort.json")
    if isinstance(facts, dict):
        stands = plan(chosen, out=folder)[0].reason is None
        return found(chosen, facts), () if stands else (
            "what follows was counted by the earlier ingest, which is to run again: it may change",
        )
    with system_refusals(chosen.ingest.path or folder):
        seen = glance(chosen.ingest)
    return expected(chosen, seen.unit, seen.units, seen.classes, seen.train), seen.notes


def cost(
    config: Config | str | Path, *, out: Path | None = None, settings: Sequence[str] = (), console: Console | None = None
) -> list[Cost]:
    """What each stage of a run takes on this machine, in time, memory and disk, from a probe of seconds.

    The arguments are those of :func:`run`.

    Raises:
        InputError: what was given cannot be used, or is a foreign set or volumes, for which there is no probe.
    """
    from pipeline.artifacts import read_json
    from pipeline.ingest.glance import glance
    from pipeline.probe import expected, probe
    from pipeline.progress import bar, silent

    chosen, folder = _chosen(config, settings, out)
    if chosen.foreign or chosen.ingest.not_trainable() is not None:
        raise InputError("--probe tells what trainings cost, and this configuration has none: leave it out")
    with system_refusals(chosen.ingest.path or folder):
        facts = read_json(folder / "ingest" / "cohort.json")
        known = facts if isinstance(facts, dict) else None
        seen = None if known is not None else glance(chosen.ingest)
        size = expected(chosen, known, seen.images if seen else None, seen.classes if seen else None)
        with bar(console or silent(), "probing", 4) as done:
            return probe(chosen, size, done)


def shadow_cost(config: Config, *, out: Path | None = None) -> str:
    """What a run's shadow trainings cost, in its own trainings: in minutes too where these are finished."""
    from pipeline.artifacts import read_record

    assert config.train is not None
    _, folder = _chosen(config, (), out)
    count, stages = config.shadows.trainings, {name: read_record(folder / name) for name in ("ingest", "train", "generate")}
    length = _length(config, folder)
    size = f"of {length:,} images" if length else "as long as the run's own"
    text = f"{count} trainings {size}, each with as many images as the run generates"
    records = [record for record in stages.values() if record is not None]
    if len(records) < len(stages) or not length:
        return f"{text}: {count} times what train and generate will take, or somewhat more"
    ingest, train, generate = records
    # Each image is looked at under every level and draw, at a third of the work of an image in training.
    looked = sum(int(ingest["summary"][split]) for split in ("train", "audit")) * SHADOW_LEVELS * config.shadows.draws / 3
    seconds = count * (train["seconds"] * (1 + looked / length) + generate["seconds"])
    return f"{text}: about {max(1, round(seconds / 60))} minutes, as train took {train['seconds']:.0f} s; less on several GPUs"


def _length(config: Config, folder: Path) -> int | None:
    """Images in the run's training: as configured, or as a finished one settled; None where nobody knows yet."""
    from pipeline.artifacts import read_json

    assert config.train is not None
    if isinstance(config.train.images, int):
        return config.train.images
    model = read_json(folder / "train" / "model.json")
    images = model.get("images") if isinstance(model, dict) else None
    return images if isinstance(images, int) else None


def recipe_lines(config: Config, step: Step, *, out: Path | None = None) -> list[str]:
    """What a run's training leaves to the cohort, and what was settled of it; empty where it leaves nothing.

    ``step`` is what :func:`plan` decided about the stage ``train``: what was settled tells of this configuration where it stands, or where
    an interrupted attempt at the same goes on. Another configuration's training is fitted anew.
    """
    from pipeline.artifacts import UNFINISHED, read_json
    from pipeline.folders import attempted
    from pipeline.release.figures import recipe_figures

    if config.train is None or not (left := [*config.train.unfitted, *(("images",) if config.train.minutes is not None else ())]):
        return []
    _, folder = _chosen(config, (), out)
    place = folder / "train" if step.reason is None else folder / UNFINISHED / "train"
    same = step.reason is None or (step.identity is not None and attempted(place, step.identity))
    if same and isinstance(found := read_json(place / "recipe.json"), dict):
        return [f"{figure.name}: {figure.text}" for figure in recipe_figures(found)]
    return [f"fitted to the cohort when it is trained: {', '.join(left)}"]


def show(run: Path, console: Console | None = None, *, gate: Mapping[str, Any] | None = None) -> None:
    """Print a run's verdict, stages and key figures as tables; ``gate`` is the verdict of a run that stopped before its release.

    Raises:
        InputError: the folder is not a run.
    """
    from pipeline.progress import Console
    from pipeline.show import refuse_missing
    from pipeline.show import show as show_run

    with system_refusals(run):
        refuse_missing(run)
        show_run(run, console or Console(), gate)


def _chosen(config: Config | str | Path, settings: Sequence[str], out: Path | None) -> tuple[Config, Path]:
    """The configuration and its run folder."""
    if isinstance(config, Config):
        if settings:
            raise InputError("settings override a configuration that is read from a file or by name: give config as one of them")
        chosen = config
    else:
        chosen = load_config(config, settings)
    folder = Path(out) if out is not None else Path("runs") / chosen.name
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder}: a name that is not UTF-8: give --out another") from None
    if "\0" in str(folder):
        raise InputError(f"{folder}: a name with a zero byte: give --out another")
    with system_refusals(folder):
        if folder.name in ("", ".."):
            folder = folder.resolve()
        if os.path.lexists(folder) and not folder.is_dir():
            raise InputError(f"{folder.name} is no folder, but a file or a link that leads to none: give --out a folder")
    return chosen, folder


def _tell_unattended(config: Config) -> None:
    """A :class:`~pipeline.errors.Notice` where ``train.attention`` names a side that no level of the network has: nothing attends there."""
    from pipeline.config.section import AUTO
    from pipeline.diffusion import grid

    train, size = config.train, config.ingest.size
    if train is None or config.ingest.not_trainable() is not None:
        return
    depth = grid.levels(size, train.patch) if train.widths == AUTO else len(train.widths)
    sides = grid.sides(size, train.patch, depth)
    if absent := [str(side) for side in train.attention if side not in sides]:
        there = [str(side) for side in sides if side in train.attention]
        warnings.warn(
            f"train.attention names {', '.join(absent)}, and the network's levels have the sides {', '.join(map(str, sides))}: it attends "
            f"{'at ' + ', '.join(there) + ' alone' if there else 'nowhere'}; name sides among these, or [] for none",
            Notice,
            stacklevel=3,
        )


def _files(config: Config | str | Path) -> list[Path]:
    """The configuration's own file, which a run must not replace."""
    return [] if isinstance(config, Config) else [Path(config)]

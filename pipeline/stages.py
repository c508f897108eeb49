"""The data flow on one screen: each stage, its version, what it reads, and what it writes.

    source ──> ingest ──> train ──> generate ──┬──> audit ───────────────┐
                 │                             ├──> evaluate ──> stress ─┼──> release
                 └─────────────────────────────┴─────────────────────────┘

A stage is a function of a :class:`Context` that reads the folders of the stages it needs, writes into its own, and returns
a flat summary without patient data. :func:`run_stages` decides what has to run, and publishes what ran.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from pipeline import artifacts
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.progress import Reporter


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: its folder's name, and the configuration section that it reads.
        version: raised when the same inputs would give another output; older records are then redone.
        needs: the stages whose folders it reads.
        function: ``module:function`` (imported when it runs, so that nothing else pays for its imports).
        resumable: whether an interrupted attempt goes on where it was, instead of starting over.
        private: whether its folder holds patient data, or what counts as such until a verdict passes.
        writes: what a reader finds in its folder.
    """

    name: str
    version: int
    needs: tuple[str, ...]
    function: str
    resumable: bool
    private: bool
    writes: str


STAGES = (
    Stage("ingest", 6, (), "pipeline.ingest.stage:run", True, True, "images, rows, quarantine.csv and .parquet, deidentification.json"),
    Stage("train", 4, ("ingest",), "pipeline.train:run", True, True, "model.safetensors, model.json, mixture.safetensors, metrics.jsonl"),
    Stage("generate", 1, ("train",), "pipeline.generate:run", True, True, "images, rows"),
    Stage("audit", 1, ("ingest", "train", "generate"), "pipeline.audit:run", False, True, "audit.json, pairs.png (local eyes only)"),
    Stage(
        "evaluate",
        2,
        ("ingest", "generate"),
        "pipeline.evaluate:run",
        False,
        True,
        "evaluation.json, judges.safetensors, samples.png (local eyes only)",
    ),
    Stage(
        "stress", 2, ("ingest", "generate", "evaluate"), "pipeline.stress:run", False, True, "stress.json, failures.png (local eyes only)"
    ),
    Stage(
        "release",
        1,
        ("ingest", "train", "generate", "audit", "evaluate", "stress"),
        "pipeline.release.stage:run",
        False,
        False,
        "gate.json, report.html; when the gate passes: images, cards, SHA256SUMS",
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Context:
    """What a stage is given.

    Attributes:
        config: the whole configuration; a stage reads its own section, the seed and the name.
        run: the run folder.
        out: the stage's own folder, existing and writable; a resumed stage finds its earlier files in it.
        resumes: whether an interrupted attempt at the same work left files in ``out``.
        reporter: progress bars and the log.
        records: the records of the stages that it needs, by name.
    """

    config: Config
    run: Path
    out: Path
    resumes: bool
    reporter: Reporter
    records: Mapping[str, Mapping[str, Any]]

    def folder(self, stage: str) -> Path:
        """The folder of a finished stage that this one needs."""
        return self.run / stage


@dataclass(frozen=True)
class Step:
    """What :func:`plan` decided about one stage: ``reason`` is None when its output stands."""

    stage: Stage
    identity: Mapping[str, Any] | None
    reason: str | None
    replaces: bool


def identity(stage: Stage, config: Config, source: str | None, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The identity of a stage's output, in which files are named by content; ``source`` is the content digest of what ingest reads."""
    section = getattr(config, stage.name).model_dump(
        mode="json", exclude={"path", "start_from", "autoguidance", "checkpoint_images", "imagenet"}
    )
    inputs = {name: records[name]["digest"] for name in stage.needs}
    if stage.name == "ingest":
        inputs = {"source": source}
    if (weights := _other_weights(stage, config)) is not None:
        inputs["other_weights"] = artifacts.file_digest(weights)
    return {"stage": stage.name, "version": stage.version, "seed": config.seed, "config": section, "inputs": inputs}


def _other_weights(stage: Stage, config: Config) -> Path | None:
    """The file of weights from elsewhere that a stage starts from, is guided by, or judges with."""
    if stage.name == "evaluate" and (judge := config.evaluate.imagenet) is not None:
        if not judge.expanduser().is_file():
            raise InputError(f"evaluate.imagenet: there is no file {judge.name}")
        return judge.expanduser()
    given = {"train": config.train.start_from, "generate": config.generate.autoguidance}.get(stage.name)
    if given is None:
        return None
    from pipeline.warm_start import weights_file

    return weights_file(given)


def plan(config: Config, run: Path, source: str | None) -> list[Step]:
    """What each stage would do: stand, run for the first time, or replace a finished output that no longer fits.

    Raises InputError where weights that the configuration names are not there: before any work, not after the stages ahead.
    """
    for stage in STAGES:
        _other_weights(stage, config)
    steps: list[Step] = []
    records: dict[str, Mapping[str, Any]] = {}
    for stage in STAGES:
        record = artifacts.read_record(run / stage.name)
        finished = record is not None
        if any(name not in records for name in stage.needs):
            waits = next(name for name in stage.needs if name not in records)
            steps.append(Step(stage, None, f"{waits} runs first", finished))
            continue
        wanted = identity(stage, config, source, records)
        if record is not None and record["fingerprint"] == artifacts.fingerprint(wanted):
            records[stage.name] = record
            steps.append(Step(stage, wanted, None, False))
        else:
            steps.append(Step(stage, wanted, _difference(record, wanted), finished))
    return steps


def _difference(record: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    if record is None:
        return "not finished yet"
    had = record["identity"]
    changed = [key for key in ("version", "seed", "inputs") if had[key] != wanted[key]]
    sections = (had["config"], wanted["config"])
    changed += [
        f"{wanted['stage']}.{key}"
        for key in sorted(sections[0].keys() | sections[1].keys())
        if sections[0].get(key) != sections[1].get(key)
    ]
    return f"{', '.join(changed)} changed"


def run_stages(config: Config, run: Path, reporter: Reporter, *, until: str | None = None, redo: bool = False) -> list[Step]:
    """Bring a run folder up to date with its configuration; the caller holds its lock.

    Args:
        until: the last stage to run.
        redo: replace finished outputs that the configuration no longer fits, instead of refusing.

    Returns:
        What the plan was, before anything ran.

    Raises:
        InputError: finished stages would be replaced and ``redo`` is not given, a stage found its input unusable, or the cohort is of a
            kind that stages after ingest do not take.
    """
    from pipeline.ingest.source import source_digest

    if until != "ingest" and (why := config.ingest.not_trainable()) is not None:
        raise InputError(f"{why}: add --until ingest to ingest them")
    source = source_digest(config, run)
    steps = plan(config, run, source)
    if until is not None:
        steps = steps[: 1 + next(number for number, step in enumerate(steps) if step.stage.name == until)]
    replaced = [step for step in steps if step.replaces]
    if replaced and not redo:
        first = replaced[0]
        names = ", ".join(step.stage.name for step in replaced)
        raise InputError(
            f"{run.name} was finished with another configuration ({first.reason}): {names} would be redone; "
            f"add --redo to replace them, or --out for a new folder"
        )
    records: dict[str, Mapping[str, Any]] = {}
    for step in steps:
        stage, out = step.stage, run / step.stage.name
        record = artifacts.read_record(out) if step.reason is None else None
        if record is None:
            record = _run_stage(stage, config, run, reporter, source, records)
        records[stage.name] = record
    return steps


def _run_stage(
    stage: Stage, config: Config, run: Path, reporter: Reporter, source: str | None, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    wanted = identity(stage, config, source, records)
    out = run / stage.name
    resumes = artifacts.open_stage(out, wanted, resumable=stage.resumable, private=stage.private)
    reporter.console.print(f"[bold]{stage.name}[/bold]{' (resumed)' if resumes else ''}")
    reporter.log("start", stage=stage.name, resumed=resumes)
    module, _, name = stage.function.partition(":")
    function: Callable[[Context], dict[str, Any]] = getattr(importlib.import_module(module), name)
    started = time.time()
    needed = {name: records[name] for name in stage.needs}
    summary = function(Context(config, run, out, resumes, reporter, needed))
    seconds = time.time() - started
    record = artifacts.publish(
        out,
        wanted,
        summary=summary,
        seconds=round(seconds, 1),
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        contains_patient_data=stage.private,
    )
    reporter.log("end", stage=stage.name, seconds=round(seconds, 1), **summary)
    line = "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items())
    reporter.console.print(f"  {escape(line)}  [dim]({seconds:.0f} s)[/dim]")
    return record

"""The data flow on one screen: each stage, its version, what it reads, and what it writes.

    source ──> ingest ──> train ──> generate ──┬──> shadows ──> audit ───┬──> review
                 │                             ├──> evaluate ──> stress ─┼──> release
                 └─────────────────────────────┴─────────────────────────┘

``shadows`` is there where trainings are asked for. A foreign set has no ``train``: ``generate`` imports it instead (:func:`flow`). A stage
is a function of a :class:`~pipeline.context.Context` that reads the folders of the stages it needs, writes into its own, and returns a flat
summary without patient data. :func:`run_stages` decides what has to run, and publishes what ran.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rich.markup import escape

from pipeline import artifacts, folders
from pipeline.cohorts.ledger import restore
from pipeline.config import Config
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.given import Given, digests, locations
from pipeline.progress import Reporter
from privacy import limits

UNIDENTIFIED = {
    *(
        "path",
        "holdout",
        "label_table",
        "import_from",
        "start_from",
        "autoguidance",
        "text_encoder",
        "imagenet",
        "checkpoint_images",
        "sign",
    ),
    *("model", "against", "contract", "against_contract", "rules", "memory", "seconds"),
}
"""Settings that stay out of a stage's identity: paths, whose content counts, and what changes no result."""


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
    Stage("ingest", 11, (), "pipeline.ingest.stage:run", True, True, "images, rows, quarantine.csv and .parquet, deidentification.json"),
    Stage("train", 8, ("ingest",), "pipeline.train:run", True, True, "model.safetensors, model.json, mixture.safetensors, metrics.jsonl"),
    Stage("generate", 1, ("train",), "pipeline.generate:run", True, True, "images, rows"),
    Stage(
        "shadows",
        1,
        ("ingest", "train", "generate"),
        "pipeline.shadows:run",
        True,
        True,
        "shadows.json, scores.parquet, exposed.png (local eyes only)",
    ),
    Stage(
        "audit",
        5,
        ("ingest", "train", "generate", "shadows"),
        "pipeline.audit:run",
        False,
        True,
        "audit.json, pairs.png and pairs.json (local eyes only)",
    ),
    Stage(
        "evaluate",
        3,
        ("ingest", "generate"),
        "pipeline.evaluate:run",
        False,
        True,
        "evaluation.json, judges.safetensors",
    ),
    Stage(
        "stress",
        4,
        ("ingest", "generate", "evaluate"),
        "pipeline.stress:run",
        False,
        True,
        "stress.json, failures.json (local eyes only), model/",
    ),
    Stage(
        "review",
        1,
        ("ingest", "generate", "shadows", "audit", "stress"),
        "pipeline.review:run",
        False,
        True,
        "review.html (local eyes only): what a person looks at before images leave",
    ),
    Stage(
        "release",
        5,
        ("ingest", "train", "generate", "shadows", "audit", "evaluate", "stress"),
        "pipeline.release.stage:run",
        False,
        False,
        "gate.json, report.html; when the gate passes: images, cards, SHA256SUMS",
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def flow(config: Config) -> tuple[Stage, ...]:
    """The stages of a configuration. Who needs one that is left out needs what that one needs.

    ``shadows`` is there where trainings are asked for. A foreign set has no ``train``, and ``evaluate`` and ``stress`` only where it leaves
    them labels and patients of their own.
    """
    absent = ({"train"} if config.foreign else set()) | (set() if config.judged_by_classifiers else {"evaluate", "stress"})
    absent |= set() if config.shadows.trainings else {"shadows"}
    found: list[Stage] = []
    for stage in STAGES:
        if stage.name in absent:
            continue
        function = "pipeline.imported:run" if config.foreign and stage.name == "generate" else stage.function
        if stage.name == "evaluate" and config.ingest.multi_label:
            function = "pipeline.evaluate_findings:run"
        found.append(dataclasses.replace(stage, needs=tuple(dict.fromkeys(_needs(stage, absent))), function=function))
    return tuple(found)


def _needs(stage: Stage, absent: set[str]) -> Iterator[str]:
    for name in stage.needs:
        yield from _needs(BY_NAME[name], absent) if name in absent else (name,)


@dataclass(frozen=True)
class Step:
    """What :func:`plan` decided about one stage: ``reason`` is None when its output stands."""

    stage: Stage
    identity: Mapping[str, Any] | None
    reason: str | None
    replaces: bool


def identity(stage: Stage, config: Config, given: Given, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The identity of a stage's output, in which files are named by content: ``given`` as :func:`pipeline.given.digests` has them.

    What leaves names all that it was made from by one digest: those of single inputs are the same in every release of a cohort.
    """
    section = getattr(config, stage.name).model_dump(mode="json", exclude=UNIDENTIFIED)
    inputs = {name: records[name]["digest"] for name in stage.needs} | dict(given.get(stage.name, {}))
    if not stage.private:
        inputs = {"all": artifacts.fingerprint(inputs)}
    return {"stage": stage.name, "version": stage.version, "seed": config.seed, "config": section, "inputs": inputs}


def plan(config: Config, run: Path, given: Given, keep: Iterable[Path] = ()) -> list[Step]:
    """What each stage would do: stand, run for the first time, or replace a finished output that no longer fits or has lost a file.

    Raises:
        InputError: as :func:`check`, or a record is damaged: before any work, not after the stages ahead.
    """
    check(config, run, keep)
    steps: list[Step] = []
    records: dict[str, Mapping[str, Any]] = {}
    for stage in flow(config):
        folder = run / stage.name
        record = artifacts.load_record(folder)
        finished = record is not None
        lost = artifacts.lost(folder, record) if record is not None else None
        if any(name not in records for name in stage.needs):
            waits = next(name for name in stage.needs if name not in records)
            steps.append(Step(stage, None, f"{waits} runs first", finished))
            continue
        wanted = identity(stage, config, given, records)
        if record is None:
            steps.append(Step(stage, wanted, "not finished yet", False))
        elif lost is not None:
            steps.append(Step(stage, wanted, f"{stage.name}/{lost} is missing or damaged", True))
        elif record["fingerprint"] != artifacts.fingerprint(wanted):
            steps.append(Step(stage, wanted, _difference(record["identity"], wanted), True))
        else:
            records[stage.name] = record
            steps.append(Step(stage, wanted, None, False))
    return steps


def check_settings(config: Config) -> None:
    """Raise InputError where a configuration would loosen the gate, or names a signing key that is none."""
    try:
        limits.copy_bound(config.release.max_copy_rate)
    except ValueError as error:
        raise InputError(f"release.max_copy_rate: {error}") from None
    if config.release.sign is not None:
        from pipeline.release.sign import private_key

        private_key(config.release.sign)


def check(config: Config, run: Path, keep: Iterable[Path] = ()) -> None:
    """Refuse what would stop a stage far into the run: before any work, not after the stages ahead.

    Raises:
        InputError: as :func:`check_settings`; the run may not write into its folder (:func:`pipeline.folders.claim`), or weights that
            the configuration names are not there.
    """
    check_settings(config)
    folders.claim(run, tuple(BY_NAME), locations(config), keep)


def _difference(had: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    changed = [key for key in ("version", "seed", "inputs") if had.get(key) != wanted[key]]
    sections = (had.get("config", {}), wanted["config"])
    changed += [
        f"{wanted['stage']}.{key}"
        for key in sorted(sections[0].keys() | sections[1].keys())
        if sections[0].get(key) != sections[1].get(key)
    ]
    return f"{', '.join(changed)} changed"


def run_stages(
    config: Config, run: Path, reporter: Reporter, *, until: str | None = None, redo: bool = False, keep: Iterable[Path] = ()
) -> list[Step]:
    """Bring a run folder up to date with its configuration, under its lock.

    Args:
        until: the last stage to run.
        redo: replace finished outputs that the configuration no longer fits, instead of refusing. They stay until all that replace them
            are finished.
        keep: files beside the configured sources that must not lie where a run replaces folders, such as the configuration's own.

    Returns:
        What the plan was, before anything ran.

    Raises:
        NotEnough: after ingest, the cohort cannot pass the gate, and ``config.anyway`` is not set.
        InputError: finished stages would be replaced and ``redo`` is not given, a stage found its input unusable or damaged, the folder
            holds what is not the run's, another process uses it, the cohort is of a kind that stages after ingest do not take, or the
            configuration has no stage ``until``.
    """
    if until != "ingest" and (why := config.ingest.not_trainable()) is not None:
        raise InputError(f"{why}: add --until ingest to ingest them")
    names = [stage.name for stage in flow(config)]
    if until is not None and until not in names:
        raise InputError(f"--until {until}: no stage of this configuration, which has {', '.join(names)}")
    check(config, run, keep)
    with artifacts.lock(run):
        folders.recover(run, tuple(BY_NAME))
        given = digests(config, run)
        steps = plan(config, run, given, keep)
        if until is not None:
            steps = steps[: 1 + names.index(until)]
        replaced = [step.stage.name for step in steps if step.replaces]
        if replaced and not redo:
            first = next(step for step in steps if step.replaces)
            raise InputError(
                f"{run.name} was finished with another configuration ({first.reason}): {', '.join(replaced)} would be redone; "
                f"add --redo to replace them, or --out for a new folder"
            )
        _refuse_strangers(run, replaced)
        ingest = steps[0]
        if any(step.reason is not None for step in steps) and (ingest.reason is None or ingest.replaces):
            restore(run, stands=ingest.reason is None)
        _bring_up_to_date(config, run, reporter, given, steps)
        return steps


def _refuse_strangers(run: Path, names: Iterable[str]) -> None:
    """Raise InputError where a finished stage that is about to be replaced holds what the stage did not write."""
    for name in names:
        record = artifacts.load_record(run / name)
        if record is not None and (count := artifacts.strangers(run / name, record)):
            raise InputError(
                f"{run.name}/{name} holds {count} files or links that this run did not write, and would be replaced: move them out of it"
            )


def _bring_up_to_date(config: Config, run: Path, reporter: Reporter, given: Given, steps: Sequence[Step]) -> None:
    replaced = [step.stage.name for step in steps if step.replaces]
    records: dict[str, Mapping[str, Any]] = {}
    places: dict[str, Path] = {}
    checked = artifacts.Checked()
    made: list[str] = []
    for step in steps:
        name = step.stage.name
        places[name] = run / name
        record = artifacts.load_record(run / name) if step.reason is None else None
        if record is None:
            places[name] = run / artifacts.UNFINISHED / name
            wanted = identity(step.stage, config, given, records)
            record = _made_already(places[name], wanted, checked)
            if record is None:
                for needed in step.stage.needs:
                    checked.consume(places[needed], records[needed])
                record = _run_stage(step.stage, Work(config, run, reporter, records, places, checked), wanted)
            made.append(name)
        records[name] = record
        fresh = name in made
        if made and (not replaced or step is steps[-1]):
            check(config, run)
            _refuse_strangers(run, replaced)
            folders.take_place(run, made)
            places |= {name: run / name for name in made}
            made = []
        if name == "ingest" and not config.foreign:
            _look_ahead(config, places[name], reporter, steps, fresh=fresh)


def _look_ahead(config: Config, ingest: Path, reporter: Reporter, steps: Sequence[Step], *, fresh: bool) -> None:
    """Show how the cohort was split, and refuse to go on where it cannot pass. A replication never does, and asks for something else."""
    from pipeline import outlook, split_table

    facts = artifacts.read_json(ingest / "cohort.json")
    if not isinstance(facts, dict):
        return  # damaged, as the next stage is going to say
    if fresh:
        reporter.console.print(split_table.splits(facts))
        reporter.console.print(f"  {escape(split_table.rarest(facts))}")
    judged = any(step.stage.name == "audit" and step.reason is not None for step in steps)
    if judged and not (config.anyway or config.ingest.replication):
        outlook.refuse(outlook.found(config, facts))


def _made_already(folder: Path, wanted: Mapping[str, Any], checked: artifacts.Checked) -> dict[str, Any] | None:
    """The record of what an interrupted run finished and had not put in its place yet, where it is whole and still wanted."""
    record = artifacts.read_record(folder)
    if record is None or record["fingerprint"] != artifacts.fingerprint(wanted):
        return None
    try:
        checked.consume(folder, record)
    except InputError:
        return None
    return record


@dataclass(frozen=True)
class Work:
    """What the stages of one run share: see :class:`Context`, and the files that were checked already."""

    config: Config
    run: Path
    reporter: Reporter
    records: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, Path]
    checked: artifacts.Checked


def _run_stage(stage: Stage, work: Work, wanted: Mapping[str, Any]) -> dict[str, Any]:
    out, reporter = work.places[stage.name], work.reporter
    resumes = folders.open_stage(out, wanted, resumable=stage.resumable, private=stage.private)
    reporter.console.print(f"[bold]{stage.name}[/bold]{' (resumed)' if resumes else ''}")
    reporter.log("start", stage=stage.name, resumed=resumes)
    module, _, name = stage.function.partition(":")
    function: Callable[[Context], dict[str, Any]] = getattr(importlib.import_module(module), name)
    started = time.time()
    needed = {name: work.records[name] for name in stage.needs}
    where = {name: work.places[name] for name in stage.needs}
    summary = function(Context(work.config, work.run, out, resumes, reporter, needed, where))
    seconds = time.time() - started
    record = artifacts.publish(
        out,
        wanted,
        work.checked,
        summary=summary,
        seconds=round(seconds, 1),
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        contains_patient_data=stage.private,
    )
    reporter.log("end", stage=stage.name, seconds=round(seconds, 1), **summary)
    line = "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items())
    reporter.console.print(f"  {escape(line)}  [dim]({seconds:.0f} s)[/dim]")
    return record


def verdict(run: Path) -> Literal["pass", "fail", "inconclusive"]:
    """The verdict of a finished release. Raises InputError where its ``gate.json`` is not as the release stage left it."""
    folder = run / "release"
    record = artifacts.load_record(folder)
    if record is None:
        raise InputError(f"{run.name} holds no finished release")
    artifacts.Checked().consume(folder, record, only=("gate.json",))
    found = artifacts.read_object(folder / "gate.json").get("verdict")
    if found not in ("pass", "fail", "inconclusive"):
        raise InputError(artifacts.damage("release", "gate.json"))
    return cast('Literal["pass", "fail", "inconclusive"]', found)

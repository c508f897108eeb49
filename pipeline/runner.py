"""Bringing a run folder up to date with its configuration: what stands, what has to run, and what takes the place of what."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from pipeline.release.contents import DIGEST, WORD, suspicious
from pipeline.release.sign import lacks, private_key
from pipeline.stages import BY_NAME, Stage, flow, identity
from privacy import limits


@dataclass(frozen=True)
class Step:
    """What :func:`plan` decided about one stage: ``reason`` is None when its output stands."""

    stage: Stage
    identity: Mapping[str, Any] | None
    reason: str | None
    replaces: bool


def plan(config: Config, run: Path, given: Given, keep: Iterable[Path] = ()) -> list[Step]:
    """What each stage would do: stand, run for the first time, or replace a finished output that no longer fits, has lost a file or lacks
    the signature that is asked for.

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
            steps.append(Step(stage, wanted, f"not finished yet{_interrupted(stage, run, wanted)}", False))
        elif lost is not None:
            steps.append(Step(stage, wanted, f"{stage.name}/{lost} is missing or damaged", True))
        elif record["fingerprint"] != artifacts.fingerprint(wanted):
            steps.append(Step(stage, wanted, _difference(record["identity"], wanted), True))
        elif stage.name == "release" and (unsigned := lacks(folder, config.release.sign)) is not None:
            steps.append(Step(stage, wanted, unsigned, True))
        else:
            records[stage.name] = record
            steps.append(Step(stage, wanted, None, False))
    return steps


def _interrupted(stage: Stage, run: Path, wanted: Mapping[str, Any]) -> str:
    """That an interrupted attempt at a stage cannot go on, as it had other settings, images or code; empty where there is none such."""
    if not stage.resumable or not folders.of_another(run / artifacts.UNFINISHED / stage.name, wanted):
        return ""
    place = f"{artifacts.UNFINISHED}/{stage.name}"
    return f", and what {place} holds is of other settings, images or code: it is removed, and {stage.name} starts over"


def check_settings(config: Config) -> None:
    """Raise InputError where a configuration would loosen the gate, names a signing key, a contract or rules that are none, or holds a text
    that no release may hold."""
    try:
        limits.copy_bound(config.release.max_copy_rate)
    except ValueError as error:
        raise InputError(f"release.max_copy_rate: {error}") from None
    for name in ("title", "licence", "contact"):
        text = getattr(config.release, name)
        if suspicious(text) or DIGEST.search(text):
            raise InputError(f"release.{name} holds what a release takes for data, such as a word of over {WORD} letters: shorten it")
    if config.release.sign is not None:
        private_key(config.release.sign)
    if config.stress.model is not None:
        from pipeline.models import ahead

        ahead.check(config.stress, config.ingest.classes)


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
                f"finished stages of {run.name} do not fit any more ({first.reason}): {', '.join(replaced)} would be redone; "
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
                f"{run.name}/{name} holds files or links that are not this run's and would be replaced ({count}): move them out of it"
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
    other = stage.resumable and folders.of_another(out, wanted)
    resumes = folders.open_stage(out, wanted, resumable=stage.resumable, private=stage.private)
    reporter.console.print(f"[bold]{stage.name}[/bold]{' (resumed)' if resumes else ''}")
    reporter.log("start", stage=stage.name, resumed=resumes)
    if other:
        reporter.note(f"what an interrupted attempt left was of other settings, images or code, and is removed: {stage.name} starts over")
    module, _, name = stage.function.partition(":")
    function: Callable[[Context], dict[str, Any]] = getattr(importlib.import_module(module), name)
    started = time.time()
    needed = {name: work.records[name] for name in stage.needs}
    where = {name: work.places[name] for name in stage.needs}
    summary = function(Context(work.config, work.run, out, reporter, needed, where))
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

"""The stress test of somebody's model: from its name, and a folder of labelled cases, to ``stress.json``, ``stress.html`` and an exit code.

The model is checked on eight images, then asked all cases as they are; only one that is fit is asked them under every shift. Cases stream
through: no more of them are in memory than one batch, whatever their number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation import foreign, foreign_findings
from evaluation import rules as accept
from evaluation.data import Labelled
from evaluation.foreign import Answers, Fit
from evaluation.intervals import to_json
from evaluation.shifts import KNOWN, SEVERITIES, SHIFTS, fitting
from evaluation.stress import estimates
from pipeline import runtime
from pipeline.artifacts import write_json
from pipeline.cohorts.key import project_key
from pipeline.config.load import read_yaml
from pipeline.errors import InputError
from pipeline.models import cases as sources
from pipeline.models import synthetic
from pipeline.models.cases import Case, Cases
from pipeline.models.check import examined
from pipeline.models.child import Bounds, Child, Condition, ModelFailed, Victim
from pipeline.models.contract import Contract, Declared, completed, declared, kind_of, sidecar
from pipeline.models.draws import seed_of
from pipeline.models.own_classifier import declared_by

if TYPE_CHECKING:
    from pipeline.progress import Reporter

PROGRAM = "synthcohort stress"
VERSION = 2
IMAGES = {"cuda": 256, "cpu": 32}
"""Cases in a batch."""
PIXELS = {"cuda": 1 << 28, "cpu": 1 << 26}
"""Bytes of pixels in a batch, as float32: what shifts need of memory is some twenty times that."""
RULES = 200
FIT_RULE = "fit on clean images"


@dataclass(frozen=True)
class Asked:
    """What is to be tested.

    Attributes:
        model, against: a file, ``module:callable`` or a run's folder; the second is what the first is compared with.
        contract, against_contract: files in which they are declared; the sidecars where they are None.
        data: folder of DICOM or pictures, or an ``.npz``.
        labels: a label table.
        synthetic: synthetic cases: a folder, an ``.npz``, a release, or a run whose model makes them.
        rules: a file of acceptance rules.
        bounds: of a model's process.
        modality: DICOM's code of the images, where neither they nor the contract say it.
    """

    model: str
    data: Path
    against: str | None = None
    contract: Path | None = None
    against_contract: Path | None = None
    labels: Path | None = None
    synthetic: Path | None = None
    rules: Path | None = None
    bounds: Bounds = field(default_factory=Bounds)
    modality: str | None = None


@dataclass(frozen=True)
class Pass:
    """All cases, asked once.

    Attributes:
        rows: what is known of each case.
        tasks: the file of each.
        seeds: of what is drawn for each.
        answers: by model, ``float64 [conditions, n, K]``.
        seconds: of the whole, and of the models themselves.
        left_out: files that gave no case, by reason.
        channels: how many cases have so many.
    """

    rows: list[dict[str, Any]]
    tasks: list[int]
    seeds: list[int]
    answers: list[NDArray[np.float64]]
    seconds: tuple[float, float]
    left_out: dict[str, int]
    channels: Counter[int]


@dataclass(frozen=True)
class Found:
    """What a stress test found: ``result`` is the content of ``stress.json``, ``galleries`` the pictures for local eyes."""

    result: dict[str, Any]
    code: int
    answers: Answers
    test: Labelled
    seen: Pass
    shifts: tuple[str, ...]
    cases: Cases
    contract: Contract
    made: synthetic.Synthetic | None = None


def run(asked: Asked, out: Path, reporter: Reporter) -> Found:
    """Run the whole test; ``out`` is a private folder.

    Raises:
        InputError: something that was given cannot be used, or the model does not keep its contract.
    """
    models = [(asked.model, asked.contract)] + ([(asked.against, asked.against_contract)] if asked.against is not None else [])
    told = _told(models)
    lines = _rule_lines(asked.rules)
    if asked.modality is not None and asked.modality not in KNOWN:
        raise InputError(f"--modality {asked.modality[:20]!r}: use DICOM's code, one of {', '.join(sorted(KNOWN))}")
    key = project_key(out)
    modality = told[0][0].modality or asked.modality
    cases = sources.opened(asked.data, asked.labels, key, out / sources.UNPACKED / "data", told[0][0].classes, modality)
    said_of, measures = (foreign_findings, foreign_findings.estimates) if cases.several else (foreign, estimates)
    sample = cases.sample()
    with contextlib.ExitStack() as stack:
        victims = [
            _accepted(stack.enter_context(Child(model, kind_of(model), runtime.device(), asked.bounds)), one, where, cases, sample)
            for (model, _), (one, where) in zip(models, told)
        ]
        names = victims[0].contract.classes
        if len(victims) == 2 and set(victims[1].contract.classes) != set(names):
            raise InputError("--against names other classes than --model: two models are compared on the same ones")
        modality = modality or Counter(case.row["modality"] for case in sample).most_common(1)[0][0]
        _parsed(lines, names, fitting(modality, min(len(case.image) for case in sample)), asked)  # what is wrong already is said first
        clean = _passed(victims, cases, [None], reporter, "clean images")
        shifts = fitting(modality, min(clean.channels))
        notes = [f"{victim.name}: {note}" for victim in victims for note in victim.notes] + _of_colour(clean.channels, modality, shifts)
        for note in notes:
            reporter.note(note)
        rules = _parsed(lines, names, shifts, asked)
        test = sources.labelled(clean.rows, cases.classes, names)
        fitness = said_of.fit(_in_order(clean.answers[0][0], names, names), test)
        seen: Pass = clean
        made: synthetic.Synthetic | None = None
        conditions = [(name, severity) for name in shifts for severity in SEVERITIES] if fitness.answer == "yes" else []
        if conditions:
            seen = _passed(victims, cases, conditions, reporter, "shifted images")
            if [row["id"] for row in seen.rows] != [row["id"] for row in clean.rows]:
                raise InputError("--data changed while it was read: leave the folder alone, and give the same command again")
            if asked.synthetic is not None:
                made = synthetic.asked(victims[0], cases, test, asked.synthetic, key, out, reporter)
    answers = [
        Answers(
            _in_order(before[0], victim.contract.classes, names),
            {condition: _in_order(p, victim.contract.classes, names) for condition, p in zip(conditions, after)},
        )
        for victim, before, after in zip(victims, clean.answers, seen.answers)
    ]
    said = _answers(rules, fitness, answers, test, names, cases.several)
    facts = _facts(victims, cases, test, modality, shifts) | {
        "left_out": clean.left_out,
        "notes": notes,
        "fit": dataclasses.asdict(fitness),
        "answers": [dataclasses.asdict(one) | {"measured": one.measured} for one in said],
        "time": {"seconds": seen.seconds[0], "model": seen.seconds[1], "images": len(test) * max(1, len(conditions))},
    }
    result = facts | said_of.judged(answers[0], test, names)
    result |= {"compared": foreign.compared(answers[0], answers[1], test, measures)} if len(answers) == 2 else {}
    result |= {"synthetic": made.result} if made is not None else {}
    found = to_json(result)
    write_json(out / "stress.json", found)
    return Found(found, exit_code([one.answer for one in said]), answers[0], test, seen, shifts, cases, victims[0].contract, made)


def _facts(victims: Sequence[Victim], cases: Cases, test: Labelled, modality: str, shifts: Sequence[str]) -> dict[str, Any]:
    """What was asked of whom."""
    contract = victims[0].contract
    return {
        "program": PROGRAM,
        "version": VERSION,
        "model": {"name": victims[0].name} | contract.to_dict(),
        "against": {"name": victims[1].name} | victims[1].contract.to_dict() if len(victims) == 2 else None,
        "classes": list(contract.classes),
        "modality": modality if modality in KNOWN else "",
        "unit": "patient" if cases.settings.patients else "image",
        "n": len(test),
        "patients": len(np.unique(test.groups)),
        "counts": {name: int((test.findings[:, k] == 1).sum()) for k, name in enumerate(contract.classes)},
        "shifts": {name: _described(name) for name in shifts},
    }


def exit_code(answers: Sequence[str]) -> int:
    """0 where all rules are met, 3 where one is broken, 4 where there is not enough data to tell."""
    return 3 if "no" in answers else 4 if "not enough data" in answers else 0


def _told(models: Sequence[tuple[str, Path | None]]) -> list[tuple[Declared, str]]:
    """What is declared of each model, and the name of the file to declare it in; a second model without one has the first's."""
    told: list[tuple[Declared, str]] = []
    for model, given in models:
        if kind_of(model) == "run" and given is None:
            told.append((declared_by(Path(model)), "the run"))
            continue
        path = given if given is not None else sidecar(model)
        if given is not None and not path.is_file():
            raise InputError(f"no contract {path.name}: give the YAML file that declares what {Path(model).name} takes")
        if path.is_file():
            told.append((declared(path), path.name))
        else:
            told.append(told[0] if told else (Declared(), path.name))
    return told


def _rule_lines(path: Path | None) -> list[str]:
    """The rules of a file: a YAML list of sentences, or ``rules:`` with one."""
    if path is None:
        return []
    if not path.is_file():
        raise InputError(f"no rules {path.name}: give a YAML list of sentences such as {accept.FORM.partition('such as ')[2]}")
    data = read_yaml(path)
    lines = data.get("rules") if isinstance(data, dict) and set(data) == {"rules"} else data
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines) or len(lines) > RULES:
        raise InputError(f"{path.name}: not a list of 1 to {RULES} rules: {accept.FORM}")
    return list(lines)


def _parsed(lines: Sequence[str], names: Sequence[str], shifts: Sequence[str], asked: Asked) -> list[accept.Rule]:
    try:
        return [accept.parsed(line, names, shifts, against=asked.against is not None) for line in lines]
    except accept.RuleError as error:
        raise InputError(f"--rules: {error}") from None


def _of_colour(channels: Mapping[int, int], modality: str, shifts: Sequence[str]) -> list[str]:
    """Which shifts a few grey images among coloured ones cost, as a sentence."""
    lost = [name for name in fitting(modality, max(channels)) if name not in shifts]
    if not lost:
        return []
    grey, every = channels[min(channels)], sum(channels.values())
    return [f"{grey} of {every} images are grey: shifts of colours ({', '.join(lost)}) are not tried, leave those images out to have them"]


def _accepted(child: Child, told: Declared, where: str, cases: Cases, sample: Sequence[Case]) -> Victim:
    """The model with its whole contract. Raises InputError with everything that speaks against it."""
    try:
        facts = child.load()
    except ModelFailed as failed:
        raise InputError(str(failed)) from None
    shapes = {case.image.shape[1:] for case in sample}
    images = {
        "classes": cases.classes,
        "channels": max(len(case.image) for case in sample),
        "size": next(iter(shapes)) if len(shapes) == 1 else None,
    }
    contract, wrong = completed(told, facts, images, where)
    if contract is None:
        raise InputError(f"{child.name}: {'; '.join(wrong)}")
    if cases.several and contract.exclusive:
        raise InputError(
            f"{child.name}: the cases have several findings an image, and its outputs are taken for exclusive: declare exclusive: false in "
            f"{where} where each has a sigmoid of its own"
        )
    labels = None
    if not cases.several:
        labels = np.array([contract.classes.index(cases.classes[case.row["findings"].index(1)]) for case in sample])
    found = examined(child, contract, [case.image for case in sample], labels, where)
    if found.wrong:
        raise InputError(f"{child.name}: {'; '.join(found.wrong)}")
    return Victim(child.name, child, found.contract, found.notes)


def _passed(victims: Sequence[Victim], cases: Cases, conditions: Sequence[Condition], reporter: Reporter, what: str) -> Pass:
    """Ask every model for every case under every condition."""
    rows: list[dict[str, Any]] = []
    tasks: list[int] = []
    seeds: list[int] = []
    channels: Counter[int] = Counter()
    answers: list[list[NDArray[np.float64]]] = [[] for _ in victims]
    spent, began = 0.0, time.monotonic()
    with reporter.progress(what, len(cases.tasks)) as done:
        batches = sources.batched(cases.read(), IMAGES[runtime.device()], PIXELS[runtime.device()])
        for batch, own in sources.ahead((batch, [seed_of(case.image) for case in batch]) for batch in batches):
            images = [case.image for case in batch]
            for victim, into in zip(victims, answers):
                try:
                    found, took = victim.child.ask(images, own, conditions, victim.contract)
                except ModelFailed as failed:
                    raise InputError(f"{failed} (after {len(rows)} cases)") from None
                if not np.isfinite(found).all():
                    raise InputError(f"{victim.name} gives NaN or infinity for a case beyond the first {len(rows)}: mend the model")
                into.append(found)
                spent += took
            rows += [dict(case.row) for case in batch]
            tasks += [case.task for case in batch]
            seeds += own
            channels.update(len(image) for image in images)
            done(batch[-1].task + 1)
    whole = [np.concatenate(parts, axis=1) for parts in answers]
    return Pass(rows, tasks, seeds, whole, (time.monotonic() - began, spent), dict(cases.left_out), channels)


def _in_order(p: NDArray[np.float64], mine: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """Columns in the order of other classes' names."""
    return p[:, [list(mine).index(name) for name in wanted]]


def _answers(
    rules: Sequence[accept.Rule], fitness: Fit, answers: Sequence[Answers], test: Labelled, names: Sequence[str], several: bool
) -> list[accept.Answered]:
    """The answers to all rules, the first of which is always that the model is fit."""
    nothing = accept.unanswered([dataclasses.replace(_FIT, text=FIT_RULE)], fitness.answer, fitness.why)
    here = [rule for rule in rules if answers[0].shifted or rule.condition is None]
    against = answers[1] if len(answers) == 2 else None
    answered = foreign_findings.answered if several else accept.answered
    said = {one.rule: one for one in answered(here, answers[0], test, names, against)}
    others = accept.unanswered([rule for rule in rules if rule not in here], fitness.answer, f"shifts were not tried: {fitness.why}")
    said |= {one.rule: one for one in others}
    return nothing + [said[rule.text] for rule in rules]


_FIT = accept.Rule(FIT_RULE, "auc", "", None, True, 0.0, None, None)


def _described(name: str) -> Mapping[str, Any]:
    one = SHIFTS[name]
    return {"strengths": list(one.strengths), "meaning": one.meaning, "drawn": {key: list(ends) for key, ends in one.ranges.items()}}

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

from evaluation import foreign, foreign_findings
from evaluation import rules as accept
from evaluation.data import Labelled
from evaluation.foreign import Answers, Fit
from evaluation.intervals import to_json
from evaluation.metrics import Floats
from evaluation.shifts import KNOWN, SEVERITIES, SHIFTS, fitting
from evaluation.stress import estimates
from pipeline import runtime
from pipeline.artifacts import file_digest, write_json
from pipeline.cohorts.key import project_key
from pipeline.errors import InputError
from pipeline.models import acceptance, synthetic, synthetic_findings
from pipeline.models import cases as sources
from pipeline.models.ahead import known_before
from pipeline.models.asking import Pass, accepted, in_order, passed
from pipeline.models.cases import Case, Cases
from pipeline.models.child import Bounds, Child, Victim
from pipeline.models.contract import Contract, kind_of
from pipeline.models.of_split import files

if TYPE_CHECKING:
    from pipeline.progress import Reporter

PROGRAM = "synthcohort stress"
VERSION = 3
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

    @property
    def models(self) -> tuple[str, ...]:
        """One, or two that are compared."""
        return (self.model,) if self.against is None else (self.model, self.against)


@dataclass(frozen=True)
class Found:
    """What a stress test found: ``result`` is the content of ``stress.json``, ``answers`` are the model's, ``against`` the second one's."""

    result: dict[str, Any]
    code: int
    answers: Answers
    test: Labelled
    seen: Pass
    shifts: tuple[str, ...]
    cases: Cases
    contract: Contract
    made: synthetic.Synthetic | None = None
    against: Answers | None = None


def run(asked: Asked, out: Path, reporter: Reporter) -> Found:
    """Run the whole test; ``out`` is a private folder.

    Raises:
        InputError: something that was given cannot be used, or the model does not keep its contract.
    """
    told, modality, lines, spelling = known_before(asked.models, (asked.contract, asked.against_contract), asked.rules, asked.modality)
    against, key = asked.against is not None, project_key(out)
    cases = sources.opened(asked.data, asked.labels, key, out / sources.UNPACKED / "data", told[0][0].classes, modality)
    source = None if asked.synthetic is None else synthetic.opened(asked.synthetic, cases, key, out, told[0][0].classes)
    said_of, measures = (foreign_findings, foreign_findings.estimates) if cases.several else (foreign, estimates)
    sample = cases.sample()
    with contextlib.ExitStack() as stack:
        victims = [
            accepted(stack.enter_context(Child(model, kind_of(model), runtime.device(), asked.bounds)), one, where, cases, sample)
            for model, (one, where) in zip(asked.models, told)
        ]
        names = victims[0].contract.classes
        modality, notes = _of_modality(modality, asked, told[0][1], sample)
        fit_here = fitting(modality, min(len(case.image) for case in sample))
        acceptance.parsed(lines, asked.rules, names, fit_here, against=against)  # what is wrong already is said first
        clean = passed(victims, cases, [None], reporter, "clean images")
        shifts = fitting(modality, min(clean.channels))
        rules = acceptance.parsed(lines, asked.rules, names, shifts, against=against)
        test = sources.labelled(clean.rows, cases.classes, names)
        fitness, *other = [
            said_of.fit(in_order(p[0], victim.contract.classes, names), test, names) for victim, p in zip(victims, clean.answers)
        ]
        notes += [*spelling, *cases.notes, *(source.notes if isinstance(source, Cases) else ())]
        notes += [f"{victim.name}: {note}" for victim in victims for note in victim.notes] + _of_colour(clean.channels, modality, shifts)
        for victim, p, (_, where), found in zip(victims, clean.answers, told, (fitness, *other)):
            notes += _doubts(victim, in_order(p[0], victim.contract.classes, names), test, names, found, where)
        notes += [f"{victims[1].name}, compared with, was not shown to be fit: {one.why}" for one in other if one.answer != "yes"]
        for note in notes:
            reporter.note(note)
        seen: Pass = clean
        made: synthetic.Synthetic | None = None
        conditions = [(name, severity) for name in shifts for severity in SEVERITIES] if fitness.answer == "yes" else []
        if conditions:
            seen = passed(victims, cases, conditions, reporter, "shifted images")
            if [row["id"] for row in seen.rows] != [row["id"] for row in clean.rows]:
                raise InputError("--data changed while it was read: leave the folder alone, and give the same command again")
            if source is not None:
                made = (synthetic_findings if cases.several else synthetic).asked(victims[0], cases, test, source, reporter)
    answers = _ordered(victims, clean, seen, conditions, names)
    said = _answers(rules, fitness, answers, test, names, cases.several)
    facts = _facts(asked, victims, cases, test, modality, shifts) | {
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
    code, other_answers = exit_code([one.answer for one in said]), answers[1] if against else None
    return Found(found, code, answers[0], test, seen, shifts, cases, victims[0].contract, made, other_answers)


def _ordered(
    victims: Sequence[Victim], clean: Pass, seen: Pass, conditions: Sequence[tuple[str, int]], names: Sequence[str]
) -> list[Answers]:
    """What every model answered, its columns in the order of the first one's classes."""
    return [
        Answers(
            in_order(before[0], victim.contract.classes, names),
            {condition: in_order(p, victim.contract.classes, names) for condition, p in zip(conditions, after)},
        )
        for victim, before, after in zip(victims, clean.answers, seen.answers)
    ]


def _doubts(victim: Victim, p: Floats, test: Labelled, names: Sequence[str], fitness: Fit, where: str) -> list[str]:
    """What in a contract may be wrong, by the answers ``[n, K]`` to all cases as they are, as sentences; ``names`` are of its columns."""
    notes = []
    if (order := foreign.other_order(p, test)) is not None:
        declare = ", ".join(names[order[names.index(name)]] for name in victim.contract.classes)
        notes.append(
            f"{victim.name}: the outputs rank the labels of {len(test)} images better in another order: if that is the right "
            f"one, declare classes: [{declare}] in {where}"
        )
    if fitness.answer == "yes" and victim.contract.exclusive and len(called := np.unique(p.argmax(axis=1))) == 1:
        notes.append(
            f"{victim.name}: all {len(test)} images are called {names[called[0]]}, though the outputs tell classes apart: if it was "
            f"trained on other input, declare range, mean and std in {where}"
        )
    if fitness.answer == "no" and victim.contract.guessed:
        notes.append(
            f"{victim.name}: {where} leaves out what was guessed ({'; '.join(victim.contract.guessed)}): a model that was trained on other "
            f"input is unfit here until that is declared"
        )
    return notes


def _of_modality(modality: str | None, asked: Asked, where: str, sample: Sequence[Case]) -> tuple[str, list[str]]:
    """The modality by which shifts are chosen: as declared, or as the images say; and what contradicts it, as sentences."""
    shown = Counter(case.row["modality"] for case in sample).most_common(1)[0][0]
    taken = modality or shown
    others = sorted({shown, asked.modality or ""} - {taken, ""})
    return taken, [f"{where} says modality {taken}, and the images are said to be {other}: {taken} was taken" for other in others]


def _facts(asked: Asked, victims: Sequence[Victim], cases: Cases, test: Labelled, modality: str, shifts: Sequence[str]) -> dict[str, Any]:
    """What was asked of whom, and when."""
    contract = victims[0].contract
    given = zip(asked.models, (asked.contract, asked.against_contract))
    digests = [{path.name: file_digest(path) for path in files(model, own)} for model, own in given]
    model, *against = [{"name": one.name, "files": of} | one.contract.to_dict() for one, of in zip(victims, digests)]
    return {
        "program": PROGRAM,
        "version": VERSION,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "model": model,
        "against": against[0] if against else None,
        "rules": {asked.rules.name: file_digest(asked.rules.expanduser())} if asked.rules is not None else {},
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


def _of_colour(channels: Mapping[int, int], modality: str, shifts: Sequence[str]) -> list[str]:
    """Which shifts a few grey images among coloured ones cost, as a sentence."""
    lost = [name for name in fitting(modality, max(channels)) if name not in shifts]
    if not lost:
        return []
    grey, every = channels[min(channels)], sum(channels.values())
    return [f"{grey} of {every} images are grey: shifts of colours ({', '.join(lost)}) are not tried, leave those images out to have them"]


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

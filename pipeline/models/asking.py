"""Putting cases to models: a model is accepted with its whole contract, then asked every case under every condition."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.shifts import drawn
from pipeline import runtime
from pipeline.errors import InputError
from pipeline.models import cases as sources
from pipeline.models.cases import ATTRIBUTES, Case, Cases
from pipeline.models.check import REPEATS, examined, of_output
from pipeline.models.child import Child, Condition, ModelFailed, Victim
from pipeline.models.contract import Declared, completed
from pipeline.models.draws import seed_of

if TYPE_CHECKING:
    from pipeline.progress import Reporter

KEPT = ("id", "patient", "findings", *ATTRIBUTES)
"""What is kept of a case's row, however many there are."""
IMAGES = {"cuda": 512, "cpu": 32}
"""Cases in a batch: on a GPU so many that what Python does between its kernels, once a batch and condition, counts for little."""
PIXELS = {"cuda": 1 << 28, "cpu": 1 << 26}
"""Bytes of pixels in a batch, as float32: what shifts need of memory is some twenty times that."""


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


def accepted(child: Child, told: Declared, where: str, cases: Cases, sample: Sequence[Case]) -> Victim:
    """The model with its whole contract. Raises InputError with everything that speaks against it."""
    try:
        facts = child.load()
    except ModelFailed as failed:
        raise InputError(f"{child.name}: {failed}") from None
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


def passed(victims: Sequence[Victim], cases: Cases, conditions: Sequence[Condition], reporter: Reporter, what: str) -> Pass:
    """Ask every model for every case under every condition.

    The first batch is asked once more at the end: a model that remembers what it was asked before answers it otherwise then.

    Raises:
        InputError: a model gives no answer, or none that its contract allows, or another one the second time.
    """
    rows: list[dict[str, Any]] = []
    tasks: list[int] = []
    seeds: list[int] = []
    channels: Counter[int] = Counter()
    answers: list[list[NDArray[np.float64]]] = [[] for _ in victims]
    spent, began = 0.0, time.monotonic()
    first: _Batch | None = None
    with reporter.progress(what, len(cases.tasks)) as done:
        batches = sources.batched(cases.read(), IMAGES[runtime.device()], PIXELS[runtime.device()])
        for batch in sources.ahead(_drawn(batch, conditions) for batch in batches):
            first = first or batch
            for victim, into in zip(victims, answers):
                found, took = _answered(victim, batch, conditions, len(rows))
                into.append(found)
                spent += took
            rows += [{name: case.row[name] for name in KEPT} for case in batch.cases]
            tasks += [case.task for case in batch.cases]
            seeds += batch.seeds
            channels.update(len(case.image) for case in batch.cases)
            done(batch.cases[-1].task + 1)
    if first is not None:
        for victim, parts in zip(victims, answers):
            _refuse_another(victim, _answered(victim, first, conditions[:1], len(rows))[0], parts[0], len(rows))
    whole = [np.concatenate(parts, axis=1) for parts in answers]
    return Pass(rows, tasks, seeds, whole, (time.monotonic() - began, spent), dict(cases.left_out), channels)


@dataclass(frozen=True)
class _Batch:
    """Cases that are asked together, their seeds, and what is drawn for every shift that they are asked under."""

    cases: list[Case]
    seeds: list[int]
    parameters: dict[str, NDArray[np.float32]]


def _drawn(batch: list[Case], conditions: Sequence[Condition]) -> _Batch:
    seeds = [seed_of(case.image) for case in batch]
    return _Batch(batch, seeds, {name: drawn(name, seeds) for name in dict.fromkeys(one[0] for one in conditions if one is not None)})


def _answered(victim: Victim, batch: _Batch, conditions: Sequence[Condition], before: int) -> tuple[NDArray[np.float64], float]:
    """Probabilities ``[conditions, n, K]`` of a batch, and the model's seconds; ``before`` cases were asked already."""
    try:
        found, took = victim.child.ask([case.image for case in batch.cases], batch.seeds, conditions, victim.contract, batch.parameters)
    except ModelFailed as failed:
        raise InputError(f"{victim.name}: {failed} (after {before} cases)") from None
    for condition, p in zip(conditions, found):
        here = f"after {before} cases, {'as they are' if condition is None else f'under {condition[0]} {condition[1]}'}"
        if broken := int((~np.isfinite(p)).any(axis=1).sum()):
            raise InputError(f"{victim.name}: NaN or infinity for {broken} of {len(p)} images: mend the model ({here})")
        if victim.contract.output == "probabilities" and (wrong := list(of_output(p, victim.contract, "its contract"))):
            raise InputError(f"{victim.name}: {wrong[0]} ({here})")
    return found, took


def _refuse_another(victim: Victim, again: NDArray[np.float64], before: NDArray[np.float64], asked: int) -> None:
    """Raise InputError where the first batch is answered otherwise than before."""
    other = int((np.abs(again[0] - before[0]).max(axis=1) > REPEATS).sum())
    if other:
        raise InputError(
            f"{victim.name}: {other} of {len(again[0])} images have another answer when they are asked again after {asked} cases: it "
            f"remembers earlier images, or draws by chance: let an answer hang on the image alone, model.eval()"
        )


def in_order(p: NDArray[np.float64], mine: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """Columns in the order of other classes' names."""
    return p[:, [list(mine).index(name) for name in wanted]]

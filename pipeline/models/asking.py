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
from pipeline.models.check import examined
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
    """Ask every model for every case under every condition."""
    rows: list[dict[str, Any]] = []
    tasks: list[int] = []
    seeds: list[int] = []
    channels: Counter[int] = Counter()
    answers: list[list[NDArray[np.float64]]] = [[] for _ in victims]
    spent, began = 0.0, time.monotonic()
    with reporter.progress(what, len(cases.tasks)) as done:
        batches = sources.batched(cases.read(), IMAGES[runtime.device()], PIXELS[runtime.device()])
        for batch, own, parameters in sources.ahead(_drawn(batch, conditions) for batch in batches):
            images = [case.image for case in batch]
            for victim, into in zip(victims, answers):
                try:
                    found, took = victim.child.ask(images, own, conditions, victim.contract, parameters)
                except ModelFailed as failed:
                    raise InputError(f"{victim.name}: {failed} (after {len(rows)} cases)") from None
                if not np.isfinite(found).all():
                    raise InputError(f"{victim.name} gives NaN or infinity for a case beyond the first {len(rows)}: mend the model")
                into.append(found)
                spent += took
            rows += [{name: case.row[name] for name in KEPT} for case in batch]
            tasks += [case.task for case in batch]
            seeds += own
            channels.update(len(image) for image in images)
            done(batch[-1].task + 1)
    whole = [np.concatenate(parts, axis=1) for parts in answers]
    return Pass(rows, tasks, seeds, whole, (time.monotonic() - began, spent), dict(cases.left_out), channels)


def _drawn(batch: list[Case], conditions: Sequence[Condition]) -> tuple[list[Case], list[int], dict[str, NDArray[np.float32]]]:
    """A batch, its seeds, and what is drawn for every shift that it is asked under."""
    seeds = [seed_of(case.image) for case in batch]
    return batch, seeds, {name: drawn(name, seeds) for name in dict.fromkeys(one[0] for one in conditions if one is not None)}


def in_order(p: NDArray[np.float64], mine: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float64]:
    """Columns in the order of other classes' names."""
    return p[:, [list(mine).index(name) for name in wanted]]

"""What the gate will need of a run, and whether its cohort can pass at all: it hangs on counts, known long before anything is judged.

The bounds are the gate's own (:mod:`privacy.limits`, :mod:`privacy.bounds`), at the first attempt on a cohort and for the best that can be
found: no copy, and every planted one. What is called too little here cannot become a ``pass``; what is not may still fail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Config
from pipeline.errors import NotEnough
from pipeline.ingest.class_folders import LEAST
from privacy import bounds, limits

ERROR = (1 - limits.confidence(1)) / 2
"""Error of each of a copy rate's two bounds at the first attempt, as :func:`privacy.gate.copy_bounds` has it."""
MOST_SEALED = 0.6
"""Largest ``ingest.audit_share`` that is advised: beyond, too few are left to learn from."""


@dataclass(frozen=True)
class Outlook:
    """What there will be of everything that the gate counts.

    Attributes:
        unit: ``patient``, or ``image`` where patients are unknown.
        units: patients, or images, that are divided into ``train`` and ``audit``; None where nobody has counted them yet.
        sealed: how many of them are sealed: those of ``audit``.
        counted: whether ``units`` and ``sealed`` were counted after the split; otherwise they are estimates.
        pooled: share of the whole cohort that ``units`` are.
        classes: how many classes images are made of; None where that is not known yet.
        rare: classes of fewer patients, or images, than can be split, with their number.
        config: the run.
        twins: whether near-duplicates are among them, which were counted as one: a person counts more.
    """

    unit: str
    units: int | None
    sealed: int | None
    counted: bool
    pooled: float
    classes: int | None
    config: Config
    rare: Mapping[str, int] = field(default_factory=dict)
    twins: bool = False

    @property
    def synthetic(self) -> int | None:
        """How many images will be made; None where that is not known yet."""
        return self.config.generate.images(self.classes, self.config.ingest.multi_label) if self.classes is not None else None

    def shortages(self) -> list[str]:
        """Why the run cannot pass, one sentence each with what to do; none where it can."""
        return [*self._rare(), *self._sealed(), *self._images()]

    def needs(self) -> list[str]:
        """What the gate asks for beside what there will be, one sentence each."""
        about = "" if self.counted else "about "
        there = f"{about}{self.sealed:,} of this cohort will be" if self.sealed is not None else "how many there are is not known yet"
        enough = bounds.enough_images(limits.MIN_RECALL, self._bound, ERROR)
        return [
            f"{limits.MIN_HOLDOUT} {self.unit}s sealed from training: {there}",
            f"some {enough:,} distinct synthetic images without a copy: {self._made()} will be made",
            f"a search that finds {100 * limits.MIN_RECALL:.0f} % of planted copies of every kind: {self._of_a_kind} of each "
            f"will be planted",
        ]

    def _made(self) -> str:
        if self.synthetic is not None:
            return f"{self.synthetic:,}"
        each, several = self.config.generate.per_class, self.config.ingest.multi_label
        return "as many as asked for" if each is None else f"{each:,} of every {'finding and of none' if several else 'class'}"

    @property
    def _bound(self) -> float:
        return limits.copy_bound(self.config.release.max_copy_rate)

    @property
    def _of_a_kind(self) -> int:
        """Copies planted of each kind that the verdict rests on."""
        return limits.REQUIRED_TIMES * self.config.audit.planted

    def _recall(self) -> float:
        """The best lower bound of the recall that there can be: every planted copy is found."""
        kinds = dict.fromkeys(limits.required_kinds(self.config.ingest.size), (self._of_a_kind, self._of_a_kind))
        return bounds.worst_recall(kinds, ERROR)[1]

    def _rare(self) -> list[str]:
        few = ", ".join(f"{name} has {count}" for name, count in self.rare.items())
        return [f"{LEAST} {self.unit}s of every class are needed, and {few}: add some, or leave the class out"] if few else []

    def _sealed(self) -> list[str]:
        least = limits.MIN_HOLDOUT
        if self.sealed is None or self.units is None or self.sealed >= least:
            return []
        share = self.config.ingest.audit_share
        alike = ", near-duplicates counting as one," if self.twins else ""
        enough = math.ceil(least / share / self.pooled)
        advice = f"{enough:,} {self.unit}s in all{alike} would do at the present ingest.audit_share of {share:g}"
        raised = math.ceil(100 * least / self.units) / 100 if self.units else 1.0
        if raised <= MOST_SEALED and not self.counted:
            advice += f", or --set ingest.audit_share={raised:g}"
        there = f"{self.sealed:,} are" if self.counted else f"about {self.sealed:,} will be"
        return [f"{least} sealed {self.unit}s are needed, and {there}: {advice}"]

    def _images(self) -> list[str]:
        made = self.synthetic
        enough = bounds.enough_images(max(self._recall(), limits.MIN_RECALL), self._bound, ERROR)
        if made is None or self.classes is None or made >= enough:
            return []
        better = bounds.enough_images(limits.MIN_RECALL, self._bound, ERROR)
        each = math.ceil(better / self.classes / 10) * 10
        planned = bool(self.config.generate.plan)
        more = f"raise the counts of generate.plan to {better:,} in all" if planned else f"--set generate.per_class={each}"
        return [f"{enough:,} distinct synthetic images are needed, and {made:,} will be made: {more}"]


def expected(config: Config, unit: str, units: int | None, classes: Mapping[str, int] | int | None, train: int | None = None) -> Outlook:
    """The outlook before the split.

    Args:
        config: the run.
        unit: what is counted.
        units: patients, or images, in all; None where nobody has counted them.
        classes: patients, or images, of each class; or how many classes there are, or None, where that is not known.
        train: those of a published training split, which alone is divided into ``train`` and ``audit``.
    """
    pooled = 1 - config.ingest.val_share - config.ingest.test_share
    pool = train if train is not None else None if units is None else round(units * pooled)
    if train is not None and units:
        pooled = train / units
    sealed = None if pool is None else round(pool * config.ingest.audit_share)
    counts = classes if isinstance(classes, Mapping) else {}
    number = len(classes) if isinstance(classes, Mapping) else classes
    rare = {} if train is not None else {name: count for name, count in counts.items() if count < LEAST}
    return Outlook(unit, pool, sealed, False, pooled, number, config, rare)


def found(config: Config, facts: Mapping[str, Any]) -> Outlook:
    """The outlook after the split; ``facts`` are those of ``cohort.json``."""
    units = facts["units"]
    pool = units["train"] + units["audit"]
    twins = bool(facts.get("near_duplicates", {}).get(f"groups_across_{facts['unit']}s"))
    pooled = pool / max(1, sum(units.values()))
    return Outlook(facts["unit"], pool, units["audit"], True, pooled, len(facts["classes"]), config, twins=twins)


def refuse(outlook: Outlook) -> None:
    """Raise NotEnough where the cohort cannot pass the gate."""
    if short := outlook.shortages():
        raise NotEnough(f"this run cannot pass the gate: {'; '.join(short)}; with --anyway it goes on, to end inconclusive at best")

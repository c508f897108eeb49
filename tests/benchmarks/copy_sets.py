"""Sets of honest images that hold some copies of one kind: how often the gate passes, fails or leaves undecided each, by number and kind.

The search is made once a cohort. Of each kind, N of its planted copies take the place of N honest images, drawn anew again and again; each
set calibrates the search by itself, as in an audit, its power is measured on copies planted besides, and :mod:`privacy.gate` judges it
as a first attempt. What an audit adds to this (one run's ε, membership) can only fail a set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import clopper_pearson
from privacy import audit, copies, copy_report, copy_score, gate, limits, power
from privacy.judgements import DRAWN
from privacy.repeats import Repeats, find_repeats
from tests.benchmarks import report
from tests.benchmarks.copy_baselines import Images
from tests.benchmarks.copy_cohorts import Cohort

NUMBERS = (1, 2, 3, 5, 10, 20)
SIZE = 1200
"""Images of a set, a quickstart's, where the cohort has as many honest ones."""
PLANTED = 100
"""Copies of each required kind by which a set's search is judged: ``audit.planted``."""
VERDICTS = ("pass", "inconclusive", "fail")
SAME_PATIENT = "same_patient"


class Told:
    """A score whose odds are the evidence: of images that are judged again and again they are computed once."""

    def odds_against(self, evidence: NDArray[np.float32]) -> NDArray[np.float64]:
        """The odds, ``[n, k]``."""
        return np.asarray(evidence[:, :, 0], np.float64)


class Sets:
    """Sets drawn from a cohort's honest images and planted copies.

    A cohort that does not say whose its images are may have another picture of a training patient among the honest ones, taken a moment
    later. What the search takes for one on either side is left out, so that honest sets say nothing of its false alarms here.

    Args:
        planted: copies of each kind, from which those of a set are drawn.
        kinds: only those named, where any are.
    """

    def __init__(self, cohort: Cohort, planted: int, kinds: Sequence[str], rng: np.random.Generator, device: str) -> None:
        self.cohort, self.rng, self.device = cohort, rng, device
        references = np.concatenate([cohort.train, cohort.audit])
        self.member = np.arange(len(references)) < len(cohort.train)
        self.search = copies.CopySearch(references, copies.shared_structure(references), device)
        self.score = copy_score.learn(cohort.learn, cohort.learn_groups, rng=rng, device=device)
        level = copy_report.FALSE_ALARM / len(cohort.honest)
        judge = copy_report.Judge(self.search, self.score, (), level, len(cohort.train) / len(cohort.audit))
        self.real = judge.of_real(cohort.audit_groups, len(cohort.train))
        self.judge = dataclasses.replace(judge, score=cast(copy_score.CopyScore, Told()))
        found = self._found(cohort.honest)
        sides = [self.judge.nearest(found, mask) for mask in (self.member, ~self.member)]
        whole = self.judge.calibrated([one.distance for one in sides[1]], self.real)
        apart = ~np.any([whole.near(side) for side in sides], axis=0)
        self.twins, self.honest, self.images = int((~apart).sum()), _taken(found, np.flatnonzero(apart)), cohort.honest[apart]
        self.size = min(SIZE, len(self.images))
        sealed = find_repeats(references, cohort.train, device).new
        self.audit_repeats = int((~sealed[len(cohort.train) :]).sum())
        asked = limits.required_kinds(cohort.train.shape[-1])
        self.yardsticks = {kind: self._found(self._plant(kind, PLANTED)[0]) for kind in asked}
        names = [kind.__name__ for kind in copy_report.KINDS] + [SAME_PATIENT] * (len(np.unique(cohort.train_groups)) < len(cohort.train))
        self.planted = {name: self._plant(name, planted) for name in names if not kinds or name in kinds}

    def _found(self, images: Images, itself: NDArray[np.int64] | None = None) -> copies.Candidates:
        found = self.search.candidates(images, self.member, ~self.member, itself=itself)
        odds = self.score.odds_against(found.evidence)[:, :, None]
        return dataclasses.replace(found, evidence=cast(NDArray[np.float32], odds))

    def _plant(self, kind: str, planted: int) -> tuple[Images, NDArray[np.int64] | None]:
        """Copies of a kind; further images of training patients are references themselves, which they are."""
        if kind != SAME_PATIENT:
            return power.plant(self.cohort.train, getattr(power, kind), planted, self.rng)[0], None
        _, person, count = np.unique(self.cohort.train_groups, return_inverse=True, return_counts=True)
        several = self.rng.permutation(np.flatnonzero(count[person] > 1))
        chosen = several[np.unique(person[several], return_index=True)[1]][:planted]
        return self.cohort.train[chosen], chosen

    def rows(self, draws: int) -> Iterator[dict[str, Any]]:
        """:meth:`of` every kind, after honest sets."""
        yield from self.of(next(iter(self.planted)), (0,), draws)
        for kind in self.planted:
            yield from self.of(kind, NUMBERS, draws)

    def of(self, kind: str, numbers: Sequence[int], draws: int) -> Iterator[dict[str, Any]]:
        """A row for each number of copies of a kind: how often a set had each verdict, and why it failed."""
        made, itself = self.planted[kind]
        pool, honest = _joined(self.honest, self._found(made, itself)), len(self.images)
        repeats = find_repeats(np.concatenate([self.images, made]), self.cohort.train, self.device)
        for number in numbers:
            found = [
                self.judged(
                    pool,
                    repeats,
                    np.concatenate([self.rng.permutation(honest)[: self.size - number], honest + self.rng.permutation(len(made))[:number]]),
                )
                for _ in range(draws)
            ]
            counts = {verdict: sum(one["verdict"] == verdict for one in found) for verdict in VERDICTS}
            causes = {cause: sum(one[cause] for one in found) for cause in ("flagged", "led")}
            yield {"kind": kind if number else "none", "copies": number, "draws": draws, **counts, **causes}

    def judged(self, pool: copies.Candidates, repeats: Repeats, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """The gate's verdict on the images ``chosen`` of the pool, and whether any is flagged or the leading run fails the set."""
        found, once = _taken(pool, chosen), _of(repeats, chosen)
        sealed = [one.distance[once.new] for one in self.judge.nearest(found, ~self.member)]
        level = copy_report.FALSE_ALARM / int(once.new.sum())
        judge = dataclasses.replace(self.judge, level=level).calibrated(sealed, self.real)
        rows = []
        for kind, planted in self.yardsticks.items():
            hits = int(judge.near(judge.nearest(planted, self.member)).sum())
            rows.append({"kind": kind, "strength": None, "planted": len(planted.index), "found": hits})
        cohort = self.cohort
        seen = copy_report.reported(judge, found, cohort.train_groups, cohort.audit_groups, once, self.audit_repeats, rows)
        sizes = {"n_train": len(cohort.train), "n_audit": len(cohort.audit), "holdout_units": len(np.unique(cohort.audit_groups))}
        patients = len(np.unique(cohort.train_groups)) < len(cohort.train)
        summary = audit.summarise(
            seen, None, pixels=cohort.train.shape[-1], unit="patient" if patients else "image", drawn=DRAWN[0], **sizes
        )
        copied = summary["copies"]
        led = copied["run_p"] < limits.FALSE_ALARMS["leading_run"]
        return {"verdict": gate.decide(gate.checks(summary))["verdict"], "flagged": copied["flagged"] > 0, "led": led}


def _joined(*parts: copies.Candidates) -> copies.Candidates:
    return copies.Candidates(*(np.concatenate([getattr(part, name) for part in parts]) for name in copies.Candidates.__annotations__))


def _taken(pool: copies.Candidates, chosen: NDArray[np.int64]) -> copies.Candidates:
    return copies.Candidates(*(getattr(pool, name)[chosen] for name in copies.Candidates.__annotations__))


def _of(pool: Repeats, chosen: NDArray[np.int64]) -> Repeats:
    """Which of the images chosen repeat one another. Two that only an image left out ties together count as one, as in the pool."""
    _, first, member = np.unique(pool.first[chosen], return_index=True, return_inverse=True)
    return Repeats(first[member], pool.constant[chosen], np.zeros(len(chosen), bool))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """By kind and number of copies, the percentages of the sets that pass / stay open / fail; the kinds that fail most come first."""
    numbers, kinds = (sorted({row[name] for row in rows}) for name in ("copies", "kind"))
    each = {(kind, number): [row for row in rows if (row["kind"], row["copies"]) == (kind, number)] for kind in kinds for number in numbers}
    counts = {place: [sum(row[verdict] for row in some) for verdict in VERDICTS] for place, some in each.items() if some}
    kinds.sort(key=lambda kind: -sum(count[2] / sum(count) for (name, _), count in counts.items() if name == kind))
    lines = [[kind, *(_shown(counts.get((kind, number))) for number in numbers)] for kind in kinds]
    return report.markdown(["copies of a kind in a set", *map(str, numbers)], lines)


def _shown(counts: list[int] | None) -> str | None:
    if counts is None:
        return None
    failed = clopper_pearson(counts[2], sum(counts))
    return f"{' / '.join(f'{100 * count / sum(counts):.0f}' for count in counts)} [{100 * failed.low:.0f}, {100 * failed.high:.0f}]"

"""Copies of training images among synthetic ones: who is flagged, at which false-alarm rate, and what the search would find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import clopper_pearson
from privacy import copies, copy_score, limits, power
from privacy.repeats import Repeats, find_repeats
from privacy.tail import SMALLEST, LeadingRun, Tail, beyond_twins, leading_run, lower_tail, nearest_by_patient, tail_with_twins

FALSE_ALARM = limits.FALSE_ALARMS["copies"]
"""Probability that any image of a set without copies is flagged."""
CALIBRATION = 20
"""Non-members' images without which there is no tail to calibrate the search on."""
IDENTICAL = 1e-4
"""Distance below which two images are one, but for rounding: flagged as a copy whatever calibrates the search, or where nothing does."""

KINDS = power.CORE + power.FURTHER + power.MIXED
"""Kinds of copies that are planted in every audit; of images in colour, :data:`privacy.power.COLOURED` too."""

Regenerate = Callable[[Labelled, float], NDArray[np.uint8]]
"""Real images and a noise level (for images in −1..1) to what the run's own model makes of them from there, ``uint8 [n, C, H, W]``."""


@dataclass(frozen=True)
class CopyReport:
    """What the copy search found.

    Three measures are judged, each at a third of FALSE_ALARM: 1 − aligned NCC, the ratio of the plain difference to the reference's own
    from its neighbours, and a learned score's odds against a copy. Without a score, there are two.

    Some cohorts have *twins*: real images of two patients, or of one who is counted as two, that are as near to each other as a copy is.
    An image beside a train image may then be a copy, or a twin such as the cohort has by itself. It is flagged where it lies nearer than
    the twins do, or where the set holds more such images than as many real ones would; otherwise it is undecided.

    Attributes:
        matches: of every synthetic image in train, by index into train and 1 − aligned NCC.
        audit_distance: 1 − aligned NCC to the nearest audit image.
        p_values: of every synthetic image, corrected for train being larger than audit and for several measures, not for many images.
        flagged: whether each image is called a copy at a familywise false-alarm rate of FALSE_ALARM.
        undecided: whether each one is nearer than chance allows, but not called a copy, because twins are as near.
        twins: each sealed image's twin by its number among the images of train and, after them, of audit; −1 where it has none, ``[m]``.
        threshold: the 1 − aligned NCC below which an image is nearer than chance allows, whatever the other measures say.
        ratio_threshold: the ratio below which it is; 0 where nothing calibrates it.
        score_threshold: the odds against a copy below which it is, whatever those say; nothing where no score was learned.
        run: the leading-run test, by the learned odds where there are any.
        power: for each kind of planted copy, how many were planted, found (nearer than chance allows: no set passes that holds an image
            which is), and nearest to their own source; none where nothing calibrates the search.
        repeats: the synthetic images that repeat one another, and constant ones.
        audit_repeats: how many of the audit images repeat a train image or an earlier audit image by the same measure: what the cohort
            itself does.
        hits: images nearer to one of ``audit`` and of ``others`` (images of val and test) than chance allows.
    """

    matches: copies.Matches
    audit_distance: NDArray[np.float64]
    p_values: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    undecided: NDArray[np.bool_]
    twins: NDArray[np.int64]
    threshold: float
    ratio_threshold: float
    score_threshold: float | None
    run: LeadingRun
    power: list[dict[str, Any]]
    repeats: Repeats
    audit_repeats: int
    hits: dict[str, int]


def searched(synthetic: int, sealed: int, planted: int, *, regenerated: bool) -> int:
    """How many images :func:`find_copies` searches for at the most, for a progress bar."""
    required = (limits.REQUIRED_TIMES - 1) * max(len(limits.required_kinds(pixels)) for pixels in (0, 512))
    return synthetic + sealed + planted * (len(KINDS) + len(power.COLOURED) + 1 + regenerated * len(power.REGENERATED) + required)


def find_copies(
    train: Labelled,
    audit: Labelled,
    synthetic: NDArray[np.uint8],
    *,
    planted: int,
    rng: np.random.Generator,
    device: str,
    learn: Labelled | None = None,
    others: Labelled | None = None,
    regenerate: Regenerate | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> CopyReport:
    """Search ``synthetic`` for copies of ``train`` images, and measure on planted ones what the search would find.

    With fewer than :data:`CALIBRATION` images in ``audit``, or so few different ones in ``synthetic``, nothing says how near chance comes:
    the nearest images are found, those that are :data:`IDENTICAL` are flagged, and no power is measured.

    Args:
        synthetic: ``uint8 [n, C, H, W]``.
        planted: copies planted of each kind of :mod:`privacy.power`, and :data:`~privacy.limits.REQUIRED_TIMES` as many of a required one.
        learn: images of neither side, from which the score is learned; without them, or with fewer than
            :data:`privacy.copy_score.LEAST`, distance and ratio judge.
        others: further images that the generator did not see; what is near to them is counted and calibrates nothing.
        regenerate: the run's own model, where there is one.
        report: called with the number of images searched so far.
    """
    sides = [train.images, audit.images, *([] if others is None else [others.images])]
    references = np.concatenate(sides)
    member, sealed, rest = np.arange(3)[:, None] == np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    shared = copies.shared_structure(references[member | sealed])
    search = copies.CopySearch(references, shared, device, member | sealed)
    repeats = find_repeats(synthetic, train.images, device)
    audit_repeats = int((~find_repeats(references[member | sealed], train.images, device).new)[len(train) :].sum())
    found = search.candidates(synthetic, *(mask for mask in (member, sealed, rest) if mask.any()), report=report)
    if len(audit) < CALIBRATION or repeats.new.sum() < CALIBRATION:
        return _uncalibrated(found.nearest(member), repeats, audit_repeats)
    score = None
    if learn is not None and len(learn) >= copy_score.LEAST:
        score = copy_score.learn(learn.images, np.unique(learn.groups, return_inverse=True)[1], rng=rng, device=device)
    bare = Judge(search, score, (), FALSE_ALARM / int(repeats.new.sum()), len(train) / len(audit))
    judge = bare.calibrated(
        [one.distance[repeats.new] for one in bare.nearest(found, sealed)],
        bare.of_real(audit.groups, len(train), lambda done: report(len(synthetic) + done)),
    )
    measured = []
    for row in _planted(judge, train, member, planted, regenerate, rng):
        measured.append(row)
        report(len(synthetic) + len(audit) + sum(one["planted"] for one in measured))
    return reported(judge, found, train.groups, audit.groups, repeats, audit_repeats, measured)


@dataclass(frozen=True)
class Judge:
    """A search with what its measures mean.

    Attributes:
        search: over train, the sealed images, and others.
        score: learned, where there is one.
        tails: of chance, for the ratio, the distance, and the odds where there is a score; none before it is :meth:`calibrated`.
        level: probability that an image of a set without copies is flagged.
        larger: how many times as large as the sealed side train is.
        twin_tails: the same of a cohort with twins; none where none are seen.
        twins: as :class:`CopyReport` has them, ``[m]``.
    """

    search: copies.CopySearch
    score: copy_score.CopyScore | None
    tails: tuple[Tail, ...]
    level: float
    larger: float
    twin_tails: tuple[Tail, ...] = ()
    twins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def calibrated(self, apart: list[NDArray[np.float64]], real: list[copies.Matches]) -> Judge:
        """The same, with tails: of each measure's distances to sealed images, and of sealed images to other real ones (:meth:`of_real`)."""
        least = (SMALLEST, SMALLEST, copy_score.LOWEST_ODDS)
        alone = replace(self, tails=tuple(lower_tail(one, smallest) for one, smallest in zip(apart, least)))
        # What any measure takes for a copy is a twin to all of them.
        near = np.stack([one.distance < threshold for one, threshold in zip(real, alone.thresholds)])
        twin = np.asarray(near.any(axis=0))
        other = np.stack([one.index for one in real])[near.argmax(axis=0), np.arange(len(twin))]
        alone = replace(alone, twins=np.where(twin, other, -1))
        if not twin.any():
            return alone
        tails = (tail_with_twins(one, other.distance, twin, smallest) for one, other, smallest in zip(apart, real, least))
        return replace(alone, twin_tails=tuple(tails))

    def of_real(self, groups: NDArray[np.int64], first: int, report: Callable[[int], None] = lambda done: None) -> list[copies.Matches]:
        """Each sealed image's nearest image of train or of another sealed patient, each pair once, by measure.

        Args:
            groups: patients of the sealed images, ``[m]``.
            first: number of the first of them among the references, after those of train.
            report: called with the number of images searched so far.
        """
        number, everyone = first + np.arange(len(groups)), np.arange(len(self.search.references))
        found = self.search.candidates(self.search.references[number], everyone < first, itself=number, report=report)
        person = np.full(len(everyone), -1)
        person[number] = np.unique(groups, return_inverse=True)[1].ravel()
        other = (found.index < number[:, None]) & (person[found.index] != person[number][:, None])
        return [found.nearest(everyone >= 0, np.where(other, measure, np.inf)) for measure in self.measures(found)]

    @property
    def probability(self) -> float:
        """That a measure calls an image of a set without copies one."""
        # A set that is searched among more images finds nearer ones: the tail is that of a set as large as audit.
        return self.level / (2 if self.score is None else 3) / self.larger

    @property
    def thresholds(self) -> list[float]:
        """Below which an image is nearer than chance allows, by measure."""
        return [tail.threshold(self.probability) for tail in self.tails]

    def measures(self, found: copies.Candidates) -> list[NDArray[np.float64]]:
        """Ratio, distance and odds against a copy of every candidate, ``[n, k]`` each."""
        odds = [] if self.score is None else [self.score.odds_against(found.evidence)]
        return [found.ratio, found.distance, *odds]

    def nearest(self, found: copies.Candidates, within: NDArray[np.bool_]) -> list[copies.Matches]:
        """The nearest candidates within a subset of the references, by measure."""
        return [found.nearest(within, measure) for measure in self.measures(found)]

    def p_values(self, matches: list[copies.Matches]) -> NDArray[np.float64]:
        """Of each image, ``[n]``, by chance; corrected for several measures and the size of train."""
        each = [tail.p_value(one.distance) for tail, one in zip(self.tails, matches)]
        return np.asarray(np.minimum(1.0, np.min(each, axis=0) * len(each) * self.larger))

    def near(self, matches: list[copies.Matches]) -> NDArray[np.bool_]:
        """Whether each image is nearer than a threshold, by any measure, or the same but for rounding, ``[n]``."""
        return self._below(matches, self.thresholds)

    def flagged(self, matches: list[copies.Matches], distinct: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of a set's images are called copies, ``[n]``: those that are :meth:`near`, and where the cohort has twins, those alone that
        are nearer than these, unless more of the ``distinct`` images are near than twins explain. Each of the two has half of the level."""
        near, n, twins = self.near(matches), int(distinct.sum()), int((self.twins >= 0).sum())
        if not twins or beyond_twins(int(near[distinct].sum()), n, twins, len(self.twins)) < self.level * n / 2:
            return near
        return near & self._below(matches, [tail.threshold(self.probability / 2) for tail in self.twin_tails])

    def _below(self, matches: list[copies.Matches], thresholds: list[float]) -> NDArray[np.bool_]:
        each = [one.distance < threshold for one, threshold in zip(matches, thresholds)]
        # Near-copies of several sealed images would hide these too; real images that are one lie on one side.
        return np.asarray(np.any([*each, matches[1].distance < IDENTICAL], axis=0))

    def of(self, queries: NDArray[np.uint8], within: NDArray[np.bool_], itself: NDArray[np.int64] | None = None) -> list[copies.Matches]:
        """:meth:`nearest` of any images; ``itself`` as in :meth:`privacy.copies.CopySearch.candidates`."""
        return self.nearest(self.search.candidates(queries, within, itself=itself), within)


def reported(
    judge: Judge,
    found: copies.Candidates,
    train: NDArray[np.int64],
    audit: NDArray[np.int64],
    repeats: Repeats,
    audit_repeats: int,
    measured: list[dict[str, Any]],
) -> CopyReport:
    """What a calibrated judge says of the synthetic images whose candidates were found.

    Args:
        train, audit: patients of the images of either side, which are the first references of the search in this order; others follow.
        repeats, audit_repeats, measured: as :class:`CopyReport` holds them, ``measured`` being its power.
    """
    side = np.repeat(np.arange(3), [len(train), len(audit), len(judge.search.references) - len(train) - len(audit)])
    to_train, to_audit, to_rest = (judge.nearest(found, side == number) for number in range(3))
    by_patient = [
        nearest_by_patient(matches.index - offset, matches.distance, patients)
        for matches, offset, patients in ((to_train[-1], 0, train), (to_audit[-1], len(train), audit))
    ]
    thresholds, near, flagged = judge.thresholds, judge.near(to_train), judge.flagged(to_train, repeats.new)
    return CopyReport(
        matches=to_train[1],
        audit_distance=to_audit[1].distance,
        p_values=judge.p_values(to_train),
        flagged=flagged,
        undecided=near & ~flagged,
        twins=judge.twins,
        threshold=thresholds[1],
        ratio_threshold=thresholds[0],
        score_threshold=None if judge.score is None else thresholds[2],
        run=leading_run(*by_patient),
        power=measured,
        repeats=repeats,
        audit_repeats=audit_repeats,
        hits={"audit": int(judge.near(to_audit).sum()), "others": int(judge.near(to_rest).sum()) if (side == 2).any() else 0},
    )


def _planted(
    judge: Judge, train: Labelled, member: NDArray[np.bool_], planted: int, regenerate: Regenerate | None, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A row for each kind of planted copies, then for each noise level of the run's own model, then for further images of a patient."""
    required = limits.required_kinds(train.images.shape[-1])
    for kind in (*KINDS, *(power.COLOURED if train.images.shape[1] == 3 else ())):
        times = limits.REQUIRED_TIMES if kind.__name__ in required else 1
        made, sources = power.plant(train.images, kind, planted * times, rng)
        matches = judge.of(made, member)
        yield _row(kind.__name__, None, judge.near(matches), matches[-1].index == sources)
    for sigma in power.REGENERATED if regenerate is not None else ():
        assert regenerate is not None
        sources = rng.permutation(len(train))[:planted]
        matches = judge.of(regenerate(train.take(sources), sigma), member)
        yield _row("regenerated", sigma, judge.near(matches), matches[-1].index == sources)
    _, person, images = np.unique(train.groups, return_inverse=True, return_counts=True)
    several = rng.permutation(np.flatnonzero(images[person] > 1))
    asked = several[np.unique(person[several], return_index=True)[1]][:planted]
    if len(asked):
        matches = judge.of(train.images[asked], member, asked)
        yield _row("same_patient", None, judge.near(matches), person[matches[-1].index] == person[asked])


def _row(kind: str, strength: float | None, found: NDArray[np.bool_], own: NDArray[np.bool_]) -> dict[str, Any]:
    hits, n = int(found.sum()), len(found)
    recall = clopper_pearson(hits, n).to_dict()
    return {"kind": kind, "strength": strength, "planted": n, "found": hits, "recall": recall, "own_source": float(own.mean())}


def _uncalibrated(to_train: copies.Matches, repeats: Repeats, audit_repeats: int) -> CopyReport:
    identical = to_train.distance < IDENTICAL
    nothing = np.zeros(0, np.float64)
    p_values = np.where(identical, 0.0, 1.0)
    run, hits = LeadingRun(0, 1.0), {"audit": 0, "others": 0}
    undecided, twins = np.zeros(len(identical), bool), np.zeros(0, np.int64)
    return CopyReport(to_train, nothing, p_values, identical, undecided, twins, IDENTICAL, 0.0, None, run, [], repeats, audit_repeats, hits)

"""The audit: what the attacks found, calibrated against patients whom the generator never saw.

Two tests ask whether a synthetic image is a copy of a training image. Both compare distances to train with distances to
audit, which come from the same source and differ only in that the generator never saw them:

* **per image**: how improbable is so small a distance under the distances to audit? A p-value from ranks cannot fall below
  1/(n + 1), so the lower tail is extrapolated as a power law (nearest-neighbour distances behave like r^d, d the local
  dimension; the exponent is Hill's estimate, 1975), on its conservative side and corrected for the number of images.
* **together**: rank the real patients by their nearest synthetic image. If membership does not matter, train and audit
  patients are shuffled; a leading run of L train patients has a probability that is a product of shares.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from evaluation.data import Labelled
from evaluation.intervals import Interval, clopper_pearson, clopper_pearson_lower, cross_fitted
from privacy import copies, limits, membership, power
from privacy.model import C, Denoiser

FALSE_ALARM = limits.FALSE_ALARMS["copies"]
"""Probability that any image of a set without copies is flagged."""
TAIL_SHARE = 0.05
"""Share of the distances to audit that counts as their lower tail."""
CALIBRATION = 20
"""Non-members' images without which there is no tail to calibrate the search on."""
IDENTICAL = 1e-4
"""Distance below which two images are one, but for rounding: flagged as a copy even where nothing calibrates the search."""
MEMBERSHIP_IMAGES = 800
"""Images attacked on each side, at the most."""


@dataclass(frozen=True)
class Tail:
    """The lower tail of the distances to audit, P(d < r) = share · (r / edge)^exponent for r below the edge.

    Attributes:
        edge: the largest distance of the tail.
        share: share of the distances below it.
        exponent: Hill's estimate at the lower end of its 95 % interval, which makes small distances look less improbable.
        n: distances in the tail.
    """

    edge: float
    share: float
    exponent: float
    n: int

    def p_value(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of a distance at most this small, one non-member comparison; 1 above the edge."""
        ratio = np.asarray(distance, dtype=np.float64) / self.edge
        return np.where(ratio < 1, self.share * ratio**self.exponent, 1.0)

    def threshold(self, probability: float) -> float:
        """The distance whose :meth:`p_value` is ``probability`` (at most the share)."""
        return float(self.edge * min(1.0, probability / self.share) ** (1 / self.exponent))


def lower_tail(distances: NDArray[np.float64]) -> Tail:
    """Fit the tail to non-members' distances ``[n]``, n >= 20.

    Hill's estimator on the k smallest: exponent = k / sum ln(edge / d_i), whose standard error is exponent / sqrt(k).
    """
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    count = min(len(ordered) - 1, max(20, math.ceil(TAIL_SHARE * len(ordered))))
    if count < 10:
        raise ValueError(f"{len(ordered)} distances are too few to fit a tail: at least 20 are needed")
    edge = max(float(ordered[count]), 1e-9)
    logs = np.log(edge / np.maximum(ordered[:count], 1e-9))
    hill = count / max(float(logs.sum()), 1e-9)
    return Tail(edge, count / len(ordered), hill * max(0.2, 1 - 1.96 / math.sqrt(count)), count)


@dataclass(frozen=True)
class LeadingRun:
    """How many train patients lead the ranking by nearest synthetic image before the first audit patient, and its probability."""

    length: int
    p_value: float


def leading_run(train_nearest: NDArray[np.float64], audit_nearest: NDArray[np.float64]) -> LeadingRun:
    """Test of both sides' distances together, one distance a *patient* (its images are not independent).

    P(at least L leading) = prod_{i<L} (n_train − i) / (n − i): the sampling of patients without replacement.
    """
    first_audit = np.min(audit_nearest) if len(audit_nearest) else math.inf
    length = int((train_nearest < first_audit).sum())
    members, everyone = len(train_nearest), len(train_nearest) + len(audit_nearest)
    logs = [math.log((members - i) / (everyone - i)) for i in range(length)]
    return LeadingRun(length, math.exp(sum(logs)))


@dataclass(frozen=True)
class CopyReport:
    """What the copy search found; distances are 1 − aligned NCC.

    Attributes:
        matches: of every synthetic image in train, by index into train.
        p_values: of every synthetic image, corrected for train being larger than audit, not for the number of images.
        flagged: whether each image is called a copy at a familywise false-alarm rate of FALSE_ALARM.
        threshold: the distance below which an image is flagged.
        run: the leading-run test.
        power: for each planted transformation, how many copies were planted and found; none where nothing calibrates the search.
        recall_low: lower 95 % bound of the recall over the core transformations together; 0 where it was not measured.
    """

    matches: copies.Matches
    audit_distance: NDArray[np.float64]
    p_values: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    threshold: float
    run: LeadingRun
    power: list[dict[str, Any]]
    recall_low: float


def find_copies(
    train: Labelled,
    audit: Labelled,
    synthetic: NDArray[np.uint8],
    *,
    planted: int,
    rng: np.random.Generator,
    device: str,
    report: Callable[[int], None] = lambda done: None,
) -> CopyReport:
    """Search ``synthetic`` for copies of ``train`` images, and measure on planted ones what the search would find.

    With fewer than :data:`CALIBRATION` images in ``audit`` nothing says how near chance comes: the nearest images are found, those that are
    :data:`IDENTICAL` are flagged, and no power is measured.

    Args:
        synthetic: ``uint8 [n, C, H, W]``.
        planted: copies planted for each transformation of :mod:`privacy.power`.
        report: called with the number of images searched so far.
    """
    references = np.concatenate([train.images, audit.images])
    member = np.arange(len(references)) < len(train.images)
    search = copies.CopySearch(references, copies.shared_structure(references), device)
    if len(audit) < CALIBRATION:
        return _uncalibrated(_matches(search, synthetic, [member], report)[0])
    to_train, to_audit = _matches(search, synthetic, [member, ~member], report)
    tail = lower_tail(to_audit.distance)
    # A set that is searched among more images finds nearer ones: the tail is that of a set as large as audit.
    larger = len(train.images) / len(audit.images)
    p_values = np.minimum(1.0, tail.p_value(to_train.distance) * larger)
    threshold = tail.threshold(FALSE_ALARM / len(synthetic) / larger)
    measured, core_found, core_planted = [], 0, 0
    for transform in power.CORE + power.FURTHER:
        made, _ = power.plant(train.images, transform, planted, rng)
        hits = int((search.nearest(made, member)[0].distance < threshold).sum())
        core = transform in power.CORE
        measured.append(
            {
                "transform": transform.__name__,
                "core": core,
                "planted": len(made),
                "found": hits,
                "recall": clopper_pearson(hits, len(made)).to_dict(),
            }
        )
        core_found += core * hits
        core_planted += core * len(made)
        report(len(synthetic) + planted * len(measured))
    return CopyReport(
        matches=to_train,
        audit_distance=to_audit.distance,
        p_values=p_values,
        flagged=to_train.distance < threshold,
        threshold=threshold,
        run=leading_run(nearest_by_patient(to_train, train.groups, 0), nearest_by_patient(to_audit, audit.groups, len(train.images))),
        power=measured,
        recall_low=clopper_pearson_lower(core_found, core_planted),
    )


def _matches(
    search: copies.CopySearch, synthetic: NDArray[np.uint8], among: list[NDArray[np.bool_]], report: Callable[[int], None]
) -> list[copies.Matches]:
    """The nearest references of every image within each subset of them."""
    found: list[list[copies.Matches]] = []
    for start in range(0, len(synthetic), 64):
        found.append(search.nearest(synthetic[start : start + 64], *among))
        report(min(start + 64, len(synthetic)))
    columns = zip(*found)
    return [copies.Matches(np.concatenate([m.index for m in column]), np.concatenate([m.distance for m in column])) for column in columns]


def _uncalibrated(to_train: copies.Matches) -> CopyReport:
    identical = to_train.distance < IDENTICAL
    nothing = np.zeros(0, np.float64)
    return CopyReport(to_train, nothing, np.where(identical, 0.0, 1.0), identical, IDENTICAL, LeadingRun(0, 1.0), [], 0.0)


def nearest_by_patient(matches: copies.Matches, patients: NDArray[np.int64], offset: int) -> NDArray[np.float64]:
    """Each patient's smallest distance to any synthetic image that is nearest to one of the patient's images; inf where none is."""
    names, member = np.unique(patients, return_inverse=True)
    nearest = np.full(len(names), np.inf)
    np.minimum.at(nearest, member[matches.index - offset], matches.distance)
    return nearest


def attack_membership(
    denoiser: Denoiser[C],
    train: Labelled,
    audit: Labelled,
    *,
    condition: Callable[[Labelled], C],
    draws: int,
    rng: np.random.Generator,
    device: str,
) -> membership.Membership:
    """:func:`privacy.membership.attack` on at most MEMBERSHIP_IMAGES images of each side, drawn at random.

    Args:
        condition: what the model was asked with in training on such images.
    """
    chosen = [side.take(rng.permutation(len(side))[:MEMBERSHIP_IMAGES]) for side in (train, audit)]
    images, findings, groups = (np.concatenate([getattr(side, name) for side in chosen]) for name in ("images", "findings", "groups"))
    both = Labelled(images, findings, groups)
    return membership.attack(
        denoiser,
        both.unit,
        condition(both),
        np.arange(len(both)) < len(chosen[0]),
        both.groups,
        draws=draws,
        rng=rng,
        device=device,
    )


def split_bias(train: Labelled, audit: Labelled, rng: np.random.Generator) -> Interval:
    """AUC of telling train from holdout images without any generator, cross-fitted by patient: how far two sides differ by themselves.

    At most MEMBERSHIP_IMAGES of each side, drawn at random, by a logistic regression on their first 20 principal components.
    """
    chosen = [side.take(rng.permutation(len(side))[:MEMBERSHIP_IMAGES]) for side in (train, audit)]
    pixels = np.concatenate([side.unit.reshape(len(side), -1) for side in chosen])
    member = np.arange(len(pixels)) < len(chosen[0])
    groups = np.concatenate([side.groups for side in chosen])
    reduced = PCA(min(20, *pixels.shape), random_state=0).fit_transform(pixels)
    scores, fold = membership.cross_fitted_scores(reduced, member, groups)
    return cross_fitted(scores, member, groups, fold)


def idle(synthetic: NDArray[np.uint8]) -> tuple[int, int]:
    """How many images repeat an earlier one pixel by pixel, and how many are of one value: they certify nothing."""
    flat = np.ascontiguousarray(np.asarray(synthetic).reshape(len(synthetic), -1))
    distinct = len({image.tobytes() for image in flat})
    return len(flat) - distinct, int((flat == flat[:, :1]).all(axis=1).sum())


def summarise(
    found: CopyReport,
    attacked: membership.Membership | None,
    synthetic: NDArray[np.uint8],
    *,
    unit: str,
    drawn: str,
    n_train: int,
    n_audit: int,
    holdout_units: int,
    bias: Interval | None = None,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The audit as JSON: counts, intervals and power, without any image or identifier.

    ``copies.rate`` is the flagged share of the synthetic images, with a Clopper–Pearson interval; what the search would have missed is the
    gate's to allow for. There is no ``membership`` without weights that were attacked.

    Args:
        synthetic: the judged images ``uint8 [n, C, H, W]``.
        drawn: how it was decided who is sealed, one of :data:`privacy.judgements.DRAWN`.
        bias: of :func:`split_bias`, where no attack on weights has measured it.
        further: what other attacks found, by name: ``shadows``, ``one_run``, ``attributes``.
    """
    n, flagged = len(found.flagged), int(found.flagged.sum())
    repeats, constants = idle(synthetic)
    measures = {field.name: getattr(attacked, field.name) for field in dataclasses.fields(attacked)} if attacked is not None else {}
    membership_attack = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in measures.items()}
    bias = attacked.control_auc if attacked is not None else bias
    nearest = {"train": float(found.matches.distance.min())}
    if len(found.audit_distance):
        nearest["audit"] = float(found.audit_distance.min())
    return {
        "unit": unit,
        "drawn": drawn,
        "pixels": int(synthetic.shape[-1]),
        "n": {"train": n_train, "audit": n_audit, "synthetic": n, "holdout_units": holdout_units},
        "copies": {
            "flagged": flagged,
            "rate": clopper_pearson(flagged, n).to_dict(),
            "repeats": repeats,
            "constants": constants,
            "threshold": found.threshold,
            "smallest_distance": nearest,
            "smallest_p": float(found.p_values.min()),
            "leading_run": found.run.length,
            "run_p": found.run.p_value,
            "recall_low": found.recall_low,
        },
        "power": [_planted(row) for row in found.power],
        **({"membership": membership_attack} if membership_attack else {}),
        **({"split_bias": bias.to_dict()} if bias is not None else {}),
        **{name: value for name, value in (further or {}).items() if value},
    }


def _planted(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the power table; its kind is named, whatever made it."""
    kind = row.get("kind", row.get("transform"))
    rest = {key: value for key, value in row.items() if key not in ("kind", "transform", "core")}
    return {"kind": kind, "strength": row.get("strength"), **rest}

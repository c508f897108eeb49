"""The audit: the attacks, calibrated against patients whom the generator never saw, as one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evaluation.data import Labelled
from evaluation.intervals import Interval, clopper_pearson
from privacy import membership
from privacy.copy_report import CopyReport
from privacy.judgements import STARTED
from privacy.model import C, Denoiser
from privacy.repeats import beyond_real

BINS = 24
MEMBERSHIP_IMAGES = 800
"""Images attacked on each side, at the most."""


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
    asked = {name: np.concatenate([side.asked[name] for side in chosen]) for name in chosen[0].asked}
    both = Labelled(images, findings, groups, asked=asked)
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
    images, groups = (np.concatenate([getattr(side, name) for side in chosen]) for name in ("unit", "groups"))
    return membership.control(images, np.arange(len(images)) < len(chosen[0]), groups)


def summarise(
    found: CopyReport,
    attacked: membership.Membership | None,
    *,
    pixels: int,
    unit: str,
    drawn: str,
    n_train: int,
    n_audit: int,
    holdout_units: int,
    started: str = STARTED[0],
    bias: Interval | None = None,
    further: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The audit as JSON: counts, intervals and power, without any image or identifier.

    ``copies.rate`` is the flagged share of the synthetic images, with a Clopper–Pearson interval; what the search would have missed is the
    gate's to allow for. ``undecided`` are the further ones that are no nearer than real images are to one another, of which ``twins`` are
    sealed. ``copies.repeats`` are all that repeat another one, of which ``explained`` are no more than the cohort's own,
    and ``repeats_real`` those among the sealed images. There is no ``membership`` without weights that were attacked.

    Args:
        pixels: side of the images.
        drawn: how it was decided who is sealed, one of :data:`privacy.judgements.DRAWN`.
        started: on whom else the model was trained, one of :data:`privacy.judgements.STARTED`.
        bias: of :func:`split_bias`, where no attack on weights has measured it.
        further: what other attacks found, by name: ``shadows``, ``one_run``, ``attributes``, ``prompts``.
    """
    n, flagged = len(found.flagged), int(found.flagged.sum())
    constants = found.repeats.constant
    repeated = int((~found.repeats.new & ~constants).sum())
    measures = {field.name: getattr(attacked, field.name) for field in dataclasses.fields(attacked)} if attacked is not None else {}
    membership_attack = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in measures.items()}
    bias = attacked.control_auc if attacked is not None else bias
    nearest = {"train": float(found.matches.distance.min())}
    if len(found.audit_distance):
        nearest["audit"] = float(found.audit_distance.min())
    return {
        "unit": unit,
        "drawn": drawn,
        "started": started,
        "pixels": pixels,
        "n": {"train": n_train, "audit": n_audit, "synthetic": n, "holdout_units": holdout_units},
        "copies": {
            "flagged": flagged,
            "undecided": int(found.undecided.sum()),
            "twins": int((found.twins >= 0).sum()),
            "rate": clopper_pearson(flagged, n).to_dict(),
            "repeats": repeated,
            "explained": max(0, repeated - beyond_real(found.repeats, found.audit_repeats, n_audit)),
            "repeats_real": found.audit_repeats,
            "constants": int(constants.sum()),
            "threshold": found.threshold,
            "smallest_distance": nearest,
            "distances": _histogram(found),
            "smallest_p": float(found.p_values.min()),
            "leading_run": found.run.length,
            "run_p": found.run.p_value,
        },
        "power": found.power,
        **({"membership": membership_attack} if membership_attack else {}),
        **({"split_bias": bias.to_dict()} if bias is not None else {}),
        **{name: value for name, value in (further or {}).items() if value},
    }


def _histogram(found: CopyReport) -> dict[str, list[float] | list[int]]:
    """How many synthetic images are how far from the nearest training and the nearest sealed image: counts between ``edges``."""
    sides = {name: distance for name, distance in (("train", found.matches.distance), ("audit", found.audit_distance)) if len(distance)}
    edges = np.linspace(0, max(float(distance.max()) for distance in sides.values()) or 1.0, BINS + 1)
    counts: dict[str, list[int]] = {name: np.histogram(distance, edges)[0].tolist() for name, distance in sides.items()}
    return {"edges": edges.round(6).tolist(), **counts}

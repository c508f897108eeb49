"""The audit: the attacks, calibrated against patients whom the generator never saw, as one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from evaluation.data import Labelled
from evaluation.intervals import clopper_pearson, clopper_pearson_upper
from privacy import membership
from privacy.copy_report import CopyReport
from privacy.model import C, Denoiser

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


def summarise(
    found: CopyReport, attacked: membership.Membership | None, *, unit: str, n_train: int, n_audit: int, holdout_units: int
) -> dict[str, Any]:
    """The audit as JSON: counts, intervals and power, without any image or identifier.

    ``copies.rate`` is the share of copies among the synthetic images: the flagged share, with an upper bound that allows for what the
    search would have missed (the Clopper–Pearson bound divided by the lower bound of the core recall). There is no ``membership`` without
    weights that were attacked.
    """
    n, flagged = len(found.flagged), int(found.flagged.sum())
    upper = min(1.0, clopper_pearson_upper(flagged, n) / found.recall_low) if found.recall_low > 0 else 1.0
    measures = {field.name: getattr(attacked, field.name) for field in dataclasses.fields(attacked)} if attacked is not None else {}
    membership_attack = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in measures.items()}
    nearest = {"train": float(found.matches.distance.min())}
    if len(found.audit_distance):
        nearest["audit"] = float(found.audit_distance.min())
    return {
        "unit": unit,
        "n": {"train": n_train, "audit": n_audit, "synthetic": n, "holdout_units": holdout_units},
        "copies": {
            "flagged": flagged,
            "rate": {"value": flagged / n, "low": clopper_pearson(flagged, n).low, "high": upper, "n": n},
            "threshold": found.threshold,
            "smallest_distance": nearest,
            "smallest_p": float(found.p_values.min()),
            "leading_run": found.run.length,
            "run_p": found.run.p_value,
            "recall_low": found.recall_low,
        },
        "power": found.power,
        **({"membership": membership_attack} if membership_attack else {}),
    }

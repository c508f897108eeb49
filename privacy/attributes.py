"""Attribute inference: does the release tell more of a training patient than of anybody else?

Whoever knows a patient's image looks for the nearest synthetic image and takes over what that one has: its finding, which a release says,
or sex, age band and site, which it does not say and which a classifier of other patients' images reads from it. The same guesses about
``audit`` patients, whom the generator never saw, are the control: what they give away is the population's (Giomi et al. 2023,
"A Unified Framework for Quantifying Privacy Risk in Synthetic Data", arXiv:2211.10459, section 4). The difference is the patients' own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from evaluation.comparisons import apart
from evaluation.data import Labelled
from evaluation.intervals import share_interval
from evaluation.metrics import TOO_FEW, share_estimate
from privacy.nearest import nearest, thumbnails

FINDING = "finding"


def infer(train: Labelled, audit: Labelled, synthetic: Labelled, teacher: Labelled) -> dict[str, dict[str, Any]]:
    """How often an attribute is guessed from the nearest synthetic image.

    Args:
        train: images that the generator saw, with their attributes; an empty text is unknown.
        audit: images like them that it never saw.
        synthetic: the released images; their finding is known.
        teacher: images of other patients, which a classifier of each attribute learns from; of none where nobody has any.

    Returns:
        By attribute: ``values`` (how many different ones), ``train`` and ``audit`` (shares guessed right, with intervals by patient) and
        ``difference`` (train − audit). An attribute is left out where a side has fewer than TOO_FEW patients who have it, or it has one
        value.
    """
    sides = {"train": train, "audit": audit}
    near = {name: nearest(side.images, synthetic.images)[0] for name, side in sides.items()}
    found: dict[str, dict[str, Any]] = {}
    for attribute in (FINDING, *train.attributes):
        told = _of_synthetic(attribute, synthetic, teacher)
        if told is None:
            continue
        truth = {name: _values(side, attribute) for name, side in sides.items()}
        known = {name: truth[name] != "" for name in sides}
        if any(len(np.unique(side.groups[known[name]])) < TOO_FEW for name, side in sides.items()):
            continue
        shares = {
            name: share_estimate((told[near[name]] == truth[name])[known[name]], side.groups[known[name]]) for name, side in sides.items()
        }
        values = len(np.unique(np.concatenate([truth[name][known[name]] for name in sides])))
        if values > 1:
            found[attribute] = {"values": values, **{name: share_interval(share).to_dict() for name, share in shares.items()}}
            found[attribute]["difference"] = apart(shares["train"], shares["audit"]).to_dict()
    return found


def _of_synthetic(attribute: str, synthetic: Labelled, teacher: Labelled) -> NDArray[np.str_] | None:
    """What each synthetic image has of an attribute ``[s]``; None where nothing can be taught."""
    if attribute == FINDING:
        return _values(synthetic, FINDING)
    known = _values(teacher, attribute) != "" if attribute in teacher.attributes else np.zeros(len(teacher), bool)
    values = _values(teacher, attribute)[known] if known.any() else np.zeros(0, str)
    if len(np.unique(values)) < 2:
        return None
    model = LogisticRegression(C=1.0, max_iter=500).fit(thumbnails(teacher.images[known]).numpy(), values)
    return np.asarray(model.predict(thumbnails(synthetic.images).numpy()), dtype=str)


def _values(side: Labelled, attribute: str) -> NDArray[np.str_]:
    """An attribute as text ``[n]``."""
    if attribute == FINDING:
        return np.array([" ".join(map(str, row)) for row in side.findings.tolist()])
    return np.asarray(side.attributes[attribute]).astype(str)

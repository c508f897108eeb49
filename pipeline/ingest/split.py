"""Splits by patient, with near-duplicates clustered first so that no image has a twin on the other side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.images import duplicate_groups
from pipeline.ingest.groups import components, renumber

if TYPE_CHECKING:
    import pandas as pd

# Every class needs so many patients in each split: below, neither an interval nor a stratified statistic has a meaning.
MIN_PATIENTS = 2
# Draws of a split, at the most: of many findings, one draw in some leaves a split without one of them.
DRAWS = 50


def tie(patients: Sequence[str], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """What must stay together, ``int64 [n]``: images of one patient, and patients that share a near-duplicate.

    Args:
        patients: patient of every image.
        clusters: as :func:`pipeline.ingest.duplicates.near_duplicates` gives them.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    n, offset = len(patient), int(patient.max()) + 1
    twins = np.flatnonzero(clusters >= 0)
    left = np.concatenate([np.arange(n), twins])
    right = np.concatenate([n + patient, n + offset + clusters[twins]])
    return renumber(components(n + offset + int(clusters.max()) + 1, left, right)[:n])


def kept_together(rows: pd.DataFrame) -> NDArray[np.int64]:
    """:func:`tie` of an image set's rows: patients, and near-duplicates where the rows tell of them."""
    return tie(rows["patient"].tolist(), duplicate_groups(rows))


def assign(
    units: NDArray[np.int64],
    labels: NDArray[Any],
    shares: Mapping[str, float],
    classes: Sequence[str],
    rng: np.random.Generator,
    noun: str = "patients",
    fixed: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Split of every image: at random by unit, stratified by class.

    A unit with images of several classes is drawn with the one that fewest units have, so that rare classes are spread most evenly, and
    counts for all of them. Where an image itself can have several findings, all of them are spread evenly (:func:`_iteratively`).

    Args:
        units: what stays together, ``int64 [n]``, as :func:`tie` gives it.
        labels: class indices ``int64 [n]``, or which of several findings each image has, ``bool [n, K]``.
        shares: share of each split; they sum to 1.
        classes: class names.
        rng: source of the drawing.
        noun: what a unit is called in the error.
        fixed: the split that an image has already, and with it its unit; an empty string where it has none. The others fill up what each
            split lacks of its share.

    Raises:
        InputError: a class has fewer than :data:`MIN_PATIENTS` units for each split.
    """
    present = _present(units, labels, len(classes))
    counts = present.sum(axis=0)
    needed = MIN_PATIENTS * len(shares)
    if (counts < needed).any():
        lacking = ", ".join(f"class {classes[index]} has {counts[index]}" for index in np.flatnonzero(counts < needed).tolist())
        raise InputError(
            f"too few {noun} to split: {lacking}; {needed} of every class are needed ({MIN_PATIENTS} in each of {', '.join(shares)}): "
            f"add {noun}, or leave the class out"
        )
    settled = np.zeros(len(present), np.array(list(shares)).dtype)
    if fixed is not None:
        settled[units[fixed != ""]] = fixed[fixed != ""]
    draw = _iteratively if labels.ndim == 2 else _by_rarest
    for _ in range(DRAWS):
        chosen = settled.copy()
        draw(present, chosen, shares, rng)
        short = _lacking(present, chosen, list(shares))
        if short is None:
            return chosen[units]
    assert short is not None
    index, missing = short
    new, stay = ("new ", f", and earlier {noun} stay where they are") if (settled != "").any() else ("", "")
    raise InputError(
        f"too few {new}{noun} to split: class {classes[index]} lacks {missing}{stay}: add {noun}, or leave the class out of ingest.classes"
    )


def _lacking(present: NDArray[np.bool_], chosen: NDArray[np.str_], names: Sequence[str]) -> tuple[int, str] | None:
    """The first class of which a split has too few units, and what each lacks; None where there is none."""
    for index in range(present.shape[1]):
        there = [int((chosen[present[:, index]] == split).sum()) for split in names]
        if missing := [f"{MIN_PATIENTS - count} in {name}" for name, count in zip(names, there) if count < MIN_PATIENTS]:
            return index, " and ".join(missing)
    return None


def _by_rarest(present: NDArray[np.bool_], chosen: NDArray[np.str_], shares: Mapping[str, float], rng: np.random.Generator) -> None:
    """As :func:`_iteratively`, of the units of each class by themselves; a unit of several counts for the one that fewest have."""
    stratum, names = _strata(present), np.array(list(shares))
    for index in range(present.shape[1]):
        members = np.flatnonzero(stratum == index)
        taken = np.array([(chosen[members] == split).sum() for split in names])
        free = rng.permutation(members[chosen[members] == ""])
        chosen[free] = np.repeat(names, _apportion(len(free), list(shares.values()), taken))


def _iteratively(present: NDArray[np.bool_], chosen: NDArray[np.str_], shares: Mapping[str, float], rng: np.random.Generator) -> None:
    """Fill in the split of the units that have none yet: iterative stratification (Sechidis et al. 2011,
    doi:10.1007/978-3-642-23808-6_10, algorithm 1).

    The finding that the fewest of them have comes first, and each unit with it goes where this finding is wanted most, of several such
    splits where units are, and else by chance. A split that lacks :data:`MIN_PATIENTS` of the finding has precedence.

    Args:
        present: which findings the units have, ``[units, K]``.
        chosen: split of each unit, ``[units]``, an empty string where it is to be filled in.
    """
    names, share = np.array(list(shares)), np.array(list(shares.values()))
    there = np.array([present[chosen == name].sum(axis=0) for name in names]).reshape(len(names), -1)
    units = np.array([(chosen == name).sum() for name in names])
    lack, room = share[:, None] * present.sum(axis=0) - there, share * len(present) - units
    free = rng.permutation(np.flatnonzero(chosen == ""))
    while len(free):
        left = present[free].sum(axis=0)
        if not left.any():
            break
        finding = int(np.where(left > 0, left, len(present) + 1).argmin())
        for unit in free[present[free, finding]]:
            short = there[:, finding] < MIN_PATIENTS
            order = np.lexsort((rng.random(len(names)), -room, -lack[:, finding], ~short))
            _put(int(order[0]), present[unit], lack, room, there)
            chosen[unit] = names[order[0]]
        free = free[~present[free, finding]]
    for unit in free:
        place = int(np.lexsort((rng.random(len(names)), -room))[0])
        _put(place, present[unit], lack, room, there)
        chosen[unit] = names[place]


def _put(split: int, findings: NDArray[np.bool_], lack: NDArray[np.float64], room: NDArray[np.float64], there: NDArray[np.int64]) -> None:
    """Count a unit in a split."""
    lack[split] -= findings
    there[split] += findings
    room[split] -= 1


def _present(units: NDArray[np.int64], labels: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """Which classes the images of each unit have, ``[units, classes]``."""
    present = np.zeros((int(units.max()) + 1, classes), bool)
    if labels.ndim == 2:
        np.logical_or.at(present, units, labels)
    else:
        present[units, labels] = True
    return present


def _strata(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Class by which each unit is drawn: of those that it has, the one that fewest units have."""
    return np.asarray(np.where(present, present.sum(axis=0), len(present) + 1).argmin(axis=1), np.int64)


def _apportion(total: int, shares: Sequence[float], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers that sum to ``total`` and bring ``taken`` near the ``shares`` (largest remainders), and to MIN_PATIENTS if possible."""
    lack = (total + taken.sum()) * np.asarray(shares, np.float64) - taken
    more = np.zeros(len(lack), np.int64)
    for _ in range(total):
        more[(lack - more).argmax()] += 1
    while ((lacking := taken + more < MIN_PATIENTS) & (more.sum() > 0)).any():
        spare = np.where((more > 0) & (taken + more > MIN_PATIENTS), taken + more, -1)
        if spare.max() < 0:
            break
        more[spare.argmax()] -= 1
        more[np.where(lacking, taken + more, total + 1).argmin()] += 1
    return more

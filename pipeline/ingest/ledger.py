"""The ledger of splits: once a patient is assigned, it stays, however the cohort grows.

It lies in the run folder beside the stages, readable by its owner only, and holds keyed pseudonyms with their splits: no identity, and
nothing from which one follows without the project's key.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.ingest import split

NAME = "splits.json"
# How a pseudonym follows from a patient's id (:func:`pipeline.ingest.patients.canonical`): another way would draw all patients anew.
SPELLING = "canonical"
TIES = "a near-duplicate of images in different splits, which would tie them together: earlier patients stay where they are"


@dataclass(frozen=True)
class Ledger:
    """What earlier ingests decided.

    Attributes:
        key: mark of the project key that the pseudonyms were made under.
        shares: share of each split.
        patients: split of every patient pseudonym.
        images: every image pseudonym that has been assigned.
    """

    key: str
    shares: Mapping[str, float]
    patients: Mapping[str, str] = field(default_factory=dict)
    images: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path, key: bytes, shares: Mapping[str, float]) -> Ledger:
        """Read the ledger, an empty one where there is none.

        Raises:
            InputError: it is damaged, or was made under another key, or with other shares.
        """
        mark = artifacts.keyed(key, "ledger", SPELLING)[:16]
        if not path.exists():
            return cls(mark, dict(shares))
        value = artifacts.read_json(path)
        anew = f"or give another --out; deleting {path.name} draws all splits anew, which voids earlier results on test"
        if not isinstance(value, dict) or not {"key", "shares", "patients", "images"} <= value.keys():
            raise InputError(f"{path.name}, the ledger of splits, is damaged: restore it from a backup, {anew}")
        if value["key"] != mark:
            raise InputError(
                f"{path.name}, the ledger of splits, was made under another project key, or before ids were compared without case and "
                f"punctuation: restore that key, {anew}"
            )
        if value["shares"] != dict(shares):
            asked = ", ".join(f"{name} {share:.3g}" for name, share in value["shares"].items())
            raise InputError(f"{path.name}, the ledger of splits, was drawn with other shares ({asked}): restore them, {anew}")
        return cls(mark, value["shares"], value["patients"], frozenset(value["images"]))

    def save(self, path: Path, images: Sequence[str], patients: Sequence[str], splits: Sequence[str]) -> None:
        """Add what was assigned, and write the whole in one rename with mode 0600; patients that are gone stay in it."""
        known = {**self.patients, **dict(zip(patients, splits, strict=True))}
        value = {
            "key": self.key,
            "shares": dict(self.shares),
            "patients": dict(sorted(known.items())),
            "images": sorted({*self.images, *images}),
        }
        # Made by mkstemp, so that it is 0600 from its first byte on.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=0)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def place(
    ledger: Ledger,
    images: Sequence[str],
    patients: Sequence[str],
    clusters: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    rng: np.random.Generator,
) -> tuple[NDArray[np.str_], NDArray[np.bool_]]:
    """Split of every image, ``[n]``, and False where a new image ties two splits together and has to be left out (for :data:`TIES`).

    Patients of the ledger keep their split. New ones go where their near-duplicates are, and are drawn to fill up each split's share
    where they have none.

    Args:
        ledger: what is settled.
        images: pseudonym of every image.
        patients: pseudonym of its patient.
        clusters: its near-duplicates, as :func:`pipeline.ingest.split.near_duplicates` gives them.
        labels: its class index.
        classes: class names.
        rng: source of the drawing; it decides on new patients only.

    Raises:
        InputError: a class has too few patients for the splits.
    """
    settled = np.array([ledger.patients.get(patient, "") for patient in patients])
    new = np.array([image not in ledger.images for image in images])
    of_cluster = _splits_of(clusters, settled)
    torn = np.array([len(of_cluster.get(cluster, ())) > 1 for cluster in clusters.tolist()], bool)
    kept = ~(torn & new)
    free = kept & (settled == "")
    splits = settled.astype(f"<U{max(map(len, ledger.shares))}")
    drawn = _follow(clusters, np.asarray(patients), free, of_cluster, splits)
    kept &= drawn >= -1
    use = np.flatnonzero(kept)
    # Settled patients are units by themselves; new ones are tied to each other where nothing settled decides on them.
    units = split.renumber(np.where(drawn >= 0, drawn, len(splits) + np.unique(np.asarray(patients), return_inverse=True)[1])[use])
    splits[use] = split.assign(units, labels[use], ledger.shares, classes, rng, fixed=splits[use])
    return splits, kept


def _splits_of(clusters: NDArray[np.int64], settled: NDArray[np.str_]) -> dict[int, set[str]]:
    """The splits that the settled images of each cluster are in."""
    found: dict[int, set[str]] = {}
    for cluster, name in zip(clusters.tolist(), settled.tolist()):
        if cluster >= 0 and name:
            found.setdefault(cluster, set()).add(name)
    return found


def _follow(
    clusters: NDArray[np.int64],
    patients: NDArray[np.str_],
    free: NDArray[np.bool_],
    of_cluster: Mapping[int, set[str]],
    splits: NDArray[np.str_],
) -> NDArray[np.int64]:
    """Unit of every new patient's image, ``int64 [n]``: -1 for the others, -2 where its unit touches two splits.

    Writes into ``splits`` where a unit touches one. A cluster with settled images decides by itself, and ties new patients to nothing.
    """
    drawn = np.full(len(splits), -1, np.int64)
    where = np.flatnonzero(free)
    if not len(where):
        return drawn
    loose = np.array([-1 if cluster in of_cluster else cluster for cluster in clusters[where].tolist()], np.int64)
    drawn[where] = split.tie(patients[where].tolist(), loose)
    touched: dict[int, set[str]] = {}
    for unit, cluster in zip(drawn[where].tolist(), clusters[where].tolist()):
        touched.setdefault(unit, set()).update(of_cluster.get(cluster, ()))
    for place in where:
        names = touched[int(drawn[place])]
        if len(names) == 1:
            splits[place] = next(iter(names))
        elif names:
            drawn[place] = -2
    return drawn

"""How often real images repeat one another, and what of it is held against a set that was drawn as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.duplicates import near_duplicates
from pipeline.phantom.image import phantom_arrays
from privacy.limits import MAX_REPEATS
from privacy.repeats import beyond_real, find_repeats

DRAWS = 10
"""Halvings, each of which takes one half as the set that is judged and the other as the sealed images."""


def real_repeats(paths: list[Path], device: str) -> dict[str, Any]:
    """Repeats in MedMNIST's training images and in 1 000 phantom patients' at 28 px, and in their halves before and after calibration."""
    sets = {"phantoms": phantom_arrays(1000, 0, 28)[0]}
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            sets[path.stem] = stored["train_images"][:, None]
    return {name: _row(name, images, device) for name, images in sets.items()}


def _row(name: str, images: NDArray[np.uint8], device: str) -> dict[str, Any]:
    found, rng = find_repeats(images, images, device), np.random.default_rng(0)
    again, twins = np.flatnonzero(~found.new), near_duplicates(images)
    tied = (twins[again] >= 0) & (twins[again] == twins[found.first[again]])
    result: dict[str, Any] = {"images": len(images), "repeats": len(again), "of_one_near_duplicate_group": int(tied.sum())}
    shares = []
    for _ in range(DRAWS):
        order = rng.permutation(len(images))
        made, sealed = images[order[: len(images) // 2]], images[order[len(images) // 2 :]]
        set_, real = find_repeats(made, sealed, device), find_repeats(sealed, sealed, device)
        shares.append((set_.count / len(made), beyond_real(set_, real.count, len(sealed)) / len(made)))
    for when, share in zip(("before", "after"), np.array(shares).T):
        result |= {f"share_{when}": float(share.mean()), f"above_limit_{when}": int((share > MAX_REPEATS).sum())}
    print(name, result, flush=True)
    return result

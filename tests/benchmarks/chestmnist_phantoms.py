"""Phantoms in ChestMNIST's layout, 14 findings an image, to run a multi-label set from end to end without the data set.

    python -m tests.benchmarks.chestmnist_phantoms data --patients 6000
    synthcohort run CONFIG with ingest: {source: medmnist, dataset: chestmnist, path: data}

The findings are the phantom's four, told apart by side and by severity, in the order of :data:`FOURTEEN`, under ChestMNIST's names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.phantom.anatomy import Visit, draw_patients
from pipeline.phantom.image import render

FOURTEEN = (
    *(("cardiomegaly", "", severe) for severe in (False, True)),
    *((name, side, severe) for name in ("effusion", "nodule", "pneumothorax") for side in ("left", "right") for severe in (False, True)),
)
"""Finding, side, and whether it is of the more severe half."""
SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}


def marks(visit: Visit) -> list[int]:
    """Which of the fourteen a visit shows."""
    return [
        int(name in visit.sizes_mm and side in ("", visit.side) and severe == (visit.severity >= 0.5)) for name, side, severe in FOURTEEN
    ]


def write(folder: Path, patients: int, seed: int = 0, side: int = 28, most: int = 4) -> Path:
    """``chestmnist.npz`` in a folder, split by patient, of each of whom it has ``most`` images at the most."""
    people = draw_patients(patients, seed, several=True)
    bounds = np.cumsum([0, *(round(share * patients) for share in SPLITS.values())])
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name, start, stop in zip(SPLITS, bounds, [*bounds[1:-1], patients]):
        pairs = [(one, number) for one in people[start:stop] for number in range(len(one.visits[:most]))]
        arrays[f"{name}_images"] = np.stack([np.rint(255 * render(one, number, side)).astype(np.uint8) for one, number in pairs])
        arrays[f"{name}_labels"] = np.array([marks(one.visits[number]) for one, number in pairs], np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "chestmnist.npz", **arrays)  # type: ignore[arg-type]
    return folder / "chestmnist.npz"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write(options.folder, options.patients, options.seed))


if __name__ == "__main__":
    main()

"""How long the audit's search for copies takes on this machine: a bounded one among noise, scaled to a run's."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from pipeline import runtime
from privacy.copy_report import CALIBRATION, find_copies, searched

REFERENCES, SEALED, SIDE = 2048, 32, 64
"""Real images among which copies are searched for at the most, how many of them are sealed, and the side of all."""


def seconds(real: int, sealed: int, channels: int, full: int, queries: int) -> float:
    """Seconds of a search, which takes nearly all of the audit.

    Aligning takes as long as an image has pixels; what else a query takes, and reading the references, grows with these, of which every
    one is besides compared with every other.

    Args:
        real: images among which copies are searched for; ``sealed`` of them were not trained on.
        channels: of an image of ``full`` x ``full`` pixels.
        queries: images that are searched for.
    """
    side = min(full, SIDE)
    tried, area = min(real, REFERENCES), (full / side) ** 2
    searching(min(real, 2 * CALIBRATION), sealed, channels, side)  # what is set up once a process
    begun, each, strain = searching(tried, sealed, channels, side)
    if real > tried:
        less_begun, less_each, _ = searching(tried // 4, sealed, channels, side)
        slower = max(0.0, each - less_each) / (tried - tried // 4)
        squared = max(0.0, begun - 4 * less_begun) / (tried**2 * 3 / 4)
    else:
        slower = squared = 0.0
    begun = max(0.0, begun - squared * tried**2) * real / tried * area + squared * real**2
    return strain * (begun + (each * area + slower * (real - tried)) * queries)


def searching(references: int, sealed: int, channels: int, side: int) -> tuple[float, float, float]:
    """What a search among so many images takes before its first query, and for each, in processor seconds over the cores; and by how much
    longer that lasts on the clock.

    Two searches tell the first from the second. Their difference is small beside what other programs take of the clock meanwhile, which
    processor time does not count; on a GPU it is the clock's.
    """
    sealed = min(sealed, SEALED, references // 2)
    train, audit = (_alone(_noise(count, channels, side, seed)) for seed, count in enumerate((references - sealed, sealed), 1))
    on_gpu = runtime.device() == "cuda"
    cores = 1 if on_gpu else torch.get_num_threads()

    def search(count: int) -> tuple[float, float]:
        clock, processors = time.perf_counter(), time.process_time()
        find_copies(train, audit, _noise(count, channels, side, 3), planted=1, rng=np.random.default_rng(0), device=runtime.device())
        wall = time.perf_counter() - clock
        return wall, wall if on_gpu else (time.process_time() - processors) / cores

    few, more = CALIBRATION, 8 * CALIBRATION
    _, first = search(few)
    wall, second = search(more)
    each = max(0.0, second - first) / (more - few)
    # No longer than on one core alone: what is beyond that, other programs took.
    strain = min(max(1.0, wall / max(second, 1e-9)), float(cores))
    return max(0.0, first - each * searched(few, sealed, 1, regenerated=False)), each, strain


def _noise(count: int, channels: int, side: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), np.uint8)


def _alone(images: NDArray[np.uint8]) -> Labelled:
    """Images of one class, each of a patient of its own."""
    return Labelled(images, np.ones((len(images), 1), np.int8), np.arange(len(images)))

"""The false alarms of the copy search's tail over simulated cohorts, which have twins or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import clopper_pearson
from privacy.tail import beyond_twins, lower_tail, tail_with_twins

LEVELS = (0.003, 0.01, 0.05)
"""Familywise false-alarm rates that are stated; the first is that of the gate."""
READINGS = ("tail alone", "beside real images", "undecided")


def levels(draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """The share of simulated honest sets with a false alarm at each of :data:`LEVELS`: by the tail alone, and as an audit judges them, with
    twins among the real images; and the share of those that it leaves undecided."""

    def nearest(count: float, exponent: float, n: int) -> NDArray[np.float64]:
        return (1 - (1 - rng.random(n)) ** (1 / count)) ** (1 / exponent)

    def power_law(exponent: float) -> Callable[[float, int], NDArray[np.float64]]:
        return lambda count, n: nearest(count, exponent, n)

    def gaussian(dimension: int) -> Callable[[float, int], NDArray[np.float64]]:
        def draw(count: float, n: int) -> NDArray[np.float64]:
            points, queries = rng.standard_normal((round(200 * count), dimension)), rng.standard_normal((n, dimension))
            square = (queries**2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2 * queries @ points.T
            return np.asarray(np.sqrt(np.maximum(square.min(axis=1), 1e-12)))

        return draw

    def twins(share: float) -> Callable[[float, int], NDArray[np.float64]]:
        def draw(count: float, n: int) -> NDArray[np.float64]:
            near = 0.15 * nearest(count, 1, n)
            return np.where(rng.random(n) < 1 - (1 - share) ** count, near, nearest(count, 12, n))

        return draw

    laws = {f"power law, exponent {d}": power_law(d) for d in (3, 10, 30)}
    laws |= {f"Gaussian points in {d} dimensions": gaussian(d) for d in (4, 16)}
    laws |= {f"{share:.1%} of the images have twins": twins(share) for share in (0, 0.001, 0.002, 0.005, 0.02, 0.1)}
    found: dict[str, Any] = {}
    for name, law in laws.items():
        for n in (300, 600, 1500):
            often = draws // (5 if "Gaussian" in name else 1)
            alarms = np.zeros((len(READINGS), len(LEVELS)), int)
            for _ in range(often):
                # Every sealed image is compared with train, and with half of the other sealed ones on average, each pair once.
                sealed, members, real = law(1, n), law(1.5, n), law(2, n)
                for place, level in enumerate(LEVELS):
                    alarms[:, place] += _alarms(sealed, members, real, level)
            rows = [[clopper_pearson(int(count), often).to_dict() for count in row] for row in alarms]
            found[f"{name}, {n} images"] = dict(zip(READINGS, rows))
            for reading, row in zip(READINGS, rows):
                line = "  ".join(
                    f"{level:.1%}: {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for level, one in zip(LEVELS, row)
                )
                print(f"{name:36s} n {n:5d}  {reading:18s} {line}", flush=True)
    return found


def _alarms(sealed: NDArray[np.float64], members: NDArray[np.float64], real: NDArray[np.float64], level: float) -> tuple[bool, bool, bool]:
    """Whether any of the members is flagged by the tail alone, any as :meth:`privacy.copy_report.Judge.flagged` does, or left undecided."""
    n, alone = len(members), lower_tail(sealed)
    probability = level / n / 1.5
    threshold = alone.threshold(probability)
    near, twin = int((members < threshold).sum()), real < threshold
    if not twin.any():
        return near > 0, near > 0, False
    nearer = members.min() < min(threshold, tail_with_twins(sealed, real, twin).threshold(probability / 2))
    flagged = bool(nearer or beyond_twins(near, n, int(twin.sum()), len(real)) < level / 2)
    return near > 0, flagged, near > 0 and not flagged

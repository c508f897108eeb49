"""The curve of a training: the denoising loss on training and on unseen images by length, and the length that was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.release.results import dig, number

MOST = 100
"""Moments that are drawn, the last among them: more are finer than a line is wide, and a report has no room for thousands."""


@dataclass(frozen=True)
class Curve:
    """Two lines that the template draws as SVG; positions are shares of the axes, 0..1 from the left and from below.

    Attributes:
        lines: by name and colour's name, the points.
        across, up: labelled positions on either axis.
        chosen: where the kept length stands.
    """

    lines: tuple[tuple[str, str, tuple[tuple[float, float], ...]], ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    chosen: float | None


def training_curve(recipe: Mapping[str, Any]) -> Curve | None:
    """The curve of a ``recipe.json``; None where fewer than two moments were looked at.

    Lengths are on a logarithmic axis. A loss is the geometric mean over the noise levels, so that each of them counts alike.
    """
    moments = [moment for moment in recipe.get("curve") or [] if all(map(_positive, (dig(moment, "images"), *_losses(moment))))]
    if len(moments) < 2:
        return None
    moments = moments[:: -math.ceil(len(moments) / MOST)][::-1]
    lengths = [float(moment["images"]) for moment in moments]
    sides = {side: [math.exp(sum(map(math.log, moment[side])) / len(moment[side])) for moment in moments] for side in ("train", "val")}
    first, last = math.log(lengths[0]), math.log(lengths[-1])
    ticks = round_ticks(0.0, max(map(max, sides.values())))

    def x(length: float) -> float:
        return (math.log(length) - first) / max(last - first, 1e-9)

    lines = tuple(
        (name, tone, tuple((x(length), loss / ticks[-1]) for length, loss in zip(lengths, sides[side])))
        for name, tone, side in (("training images", "synthetic", "train"), ("unseen images", "realsynthetic", "val"))
    )
    middle = lengths[len(lengths) // 2]
    across = tuple((x(length), number(length)) for length in dict.fromkeys((lengths[0], middle, lengths[-1])))
    chosen = dig(recipe, "chosen.images")
    shown = x(chosen) if _positive(chosen) and lengths[0] <= chosen <= lengths[-1] else None
    return Curve(lines, across, tuple((tick / ticks[-1], f"{tick:g}") for tick in ticks), shown)


def round_ticks(low: float, high: float) -> tuple[float, ...]:
    """About five round numbers around both."""
    span = max(high - low, 1e-3)
    step = next(unit for unit in (s * 10.0**e for e in range(-4, 6) for s in (1, 2, 5)) if span / unit <= 6)
    first, last = int(low // step), -int(-high // step)
    return tuple(tick * step for tick in range(first, max(last, first + 1) + 1))


def _losses(moment: Any) -> Sequence[Any]:
    """Both sides' losses by level; None among them where there are none."""
    sides = [dig(moment, side) for side in ("train", "val")]
    return [loss for side in sides for loss in (side if isinstance(side, list) and side else [None])]


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

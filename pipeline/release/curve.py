"""Curves of a report: the denoising loss on training and on unseen images by length and by noise, and the distances of the copy search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.release.results import dig, number

MOST = 100
"""Moments that are drawn, the last among them: more are finer than a line is wide, and a report has no room for thousands."""
SIDES = (("training images", "synthetic"), ("unseen images", "realsynthetic"))
"""Name and colour's name of the two sides that are compared."""


@dataclass(frozen=True)
class Curve:
    """Two lines that the template draws as SVG; positions are shares of the axes, 0..1 from the left and from below.

    Attributes:
        lines: by name and colour's name, the points.
        across, up: labelled positions on either axis.
        chosen: where a dashed line stands, such as the kept length; None without one.
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
        for (name, tone), side in zip(SIDES, ("train", "val"))
    )
    middle = lengths[len(lengths) // 2]
    across = tuple((x(length), number(length)) for length in dict.fromkeys((lengths[0], middle, lengths[-1])))
    chosen = dig(recipe, "chosen.images")
    shown = x(chosen) if _positive(chosen) and lengths[0] <= chosen <= lengths[-1] else None
    return Curve(lines, across, _labelled(ticks), shown)


def noise_curve(model: Mapping[str, Any]) -> Curve | None:
    """The loss of a ``model.json`` on both sides by level of noise, on a logarithmic axis; None where it was not measured."""
    levels, *sides = (dig(model, f"validation.{key}") for key in ("levels", "train", "val"))
    if any(not isinstance(each, list) or len(each) < 2 or not all(map(_positive, each)) for each in (levels, *sides)):
        return None
    ends = math.log(levels[0]), math.log(levels[-1])
    places = [(math.log(level) - ends[0]) / (ends[1] - ends[0]) for level in levels]
    ticks = round_ticks(0.0, max(map(max, sides)))
    lines = tuple((name, tone, tuple((x, y / ticks[-1]) for x, y in zip(places, side))) for (name, tone), side in zip(SIDES, sides))
    return Curve(lines, tuple((x, f"{level:g}") for x, level in zip(places, levels)), _labelled(ticks), None)


def distance_curve(audit: Mapping[str, Any]) -> Curve | None:
    """How far synthetic images are from the nearest training and the nearest sealed image, as shares of them in equal steps of distance.

    The dashed line is the distance below which an image is nearer than chance allows. None where nothing was counted.
    """
    edges = dig(audit, "copies.distances.edges")
    if not isinstance(edges, list) or len(edges) < 2 or not edges[-1] > edges[0]:
        return None
    counts = {name: dig(audit, f"copies.distances.{side}") for side, name in (("train", "training"), ("audit", "sealed"))}
    shares = {name: [count / max(sum(side), 1) for count in side] for name, side in counts.items() if isinstance(side, list) and any(side)}
    if not shares:
        return None
    up, across = round_ticks(0.0, max(map(max, shares.values()))), round_ticks(edges[0], edges[-1])
    width = across[-1] - across[0]
    lines = tuple(
        (
            f"nearest {name} image",
            tone,
            tuple(((edge - across[0]) / width, share / up[-1]) for k, share in enumerate(side) for edge in edges[k : k + 2]),
        )
        for (name, side), (_, tone) in zip(shares.items(), SIDES)
    )
    threshold = dig(audit, "copies.threshold")
    chosen = (threshold - across[0]) / width if isinstance(threshold, float) and across[0] <= threshold <= across[-1] else None
    return Curve(lines, tuple(((tick - across[0]) / width, f"{tick:g}") for tick in across), _labelled(up), chosen)


def _labelled(ticks: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Ticks of an axis that begins at 0 and ends with the last of them."""
    return tuple((tick / ticks[-1], f"{tick:g}") for tick in ticks)


def round_ticks(low: float, high: float) -> tuple[float, ...]:
    """About five round numbers around both."""
    span = max(high - low, 1e-3)
    step = next(unit for unit in (s * 10.0**e for e in range(-4, 308) for s in (1, 2, 5)) if span / unit <= 6)
    first, last = int(low // step), -int(-high // step)
    return tuple(tick * step for tick in range(first, max(last, first + 1) + 1))


def _losses(moment: Any) -> Sequence[Any]:
    """Both sides' losses by level; None among them where there are none."""
    sides = [dig(moment, side) for side in ("train", "val")]
    return [loss for side in sides for loss in (side if isinstance(side, list) and side else [None])]


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

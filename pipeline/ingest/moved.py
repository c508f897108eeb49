"""Pictures that are one picture moved: mirrored, turned, cropped, stretched a little, framed or inverted, as collections hold them.

Each image is read on rings around its centre, where a turn or a mirroring moves values along the rings only: the magnitudes of their
Fourier coefficients stay (as in the Fourier-Mellin transform), and those that are most alike are candidates. What the phases say of the
turn is where the alignment of :mod:`privacy.alignment` begins; then fine structure decides, under a window that leaves out the border.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.ingest.standardize import fit
from privacy.alignment import aligned, blur, normalised, warp, window
from privacy.views import coarse, leading_axes, local_contrast

SIDE = 32
"""Pixels a side at which images are compared."""
SAME = 0.93
"""Correlation of the aligned images' fine structure, and of their local contrast, from which they are one picture: of different patients
none was measured above .88 in either, and of one picture, moved, all but one in fifty above .93."""
BAND = (0.5, 1.0)
"""Blur levels in pixels between which structure is fine."""
CONTRAST = 0.85
"""Correlation of local contrast from which it is so throughout, and not only along what is brightest: a frame, the edge of black bars."""
FAINT = 1 / 255
"""Its root mean square, of a range of 2, below which it is rounding (half a grey level)."""
STRETCH = 1.35
"""Enlargement of either axis beyond which alignment has made one simple shape of another."""
RINGS, ANGLES, HARMONICS = 10, 48, 8
AXES = 128
"""Principal axes on which the magnitudes are compared."""
NEAREST = 3
"""Candidates by the image in its place, and as many by the image shifted and enlarged."""
Place = tuple[float, float, float]
Prepared = tuple[Tensor, Tensor]
HERE: Place = (0.0, 0.0, 1.0)
PLACES: tuple[Place, ...] = tuple(itertools.product((-0.09, 0.0, 0.09), (-0.09, 0.0, 0.09), (0.88, 1.0, 1.12)))
"""Centres of the rings (half sides) and enlargements in which an image is read."""
SMOOTH = 1.2
"""Blur in pixels before it is."""
QUERIES = 32


def moved_twins(
    images: NDArray[np.uint8], asked: NDArray[np.int64], report: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of images that are one picture, moved, by their places; each of ``asked`` is compared with the few that are nearest.

    Measured (BENCHMARKS.md, ``tests/benchmarks/moved_pictures.py``): of different patients no aligned pair of PneumoniaMNIST (5 856),
    of 600 phantom patients or of 1 188 adrenal masks exceeds .88, and of pictures that were mirrored, turned by up to 15 degrees, shifted
    by 4 % of the side, cropped by 8 %, stretched by 10 % or inverted all but few lie above :data:`SAME`.

    Args:
        images: ``[n, C, side, side]``, of :data:`SIDE` pixels at the most, no two of them the same picture as it is.
        asked: places of those that others are sought for, ``int64 [m]``; sorted.
        report: called with the number of images that are done.
    """
    if len(images) < 2:
        return
    small = torch.from_numpy(fit(images, SIDE))
    compared = _Magnitudes(small)
    whole = torch.cat([compared(_prepared(part), HERE) for part in torch.split(small, 1024)])
    count = min(NEAREST, len(images) - 1)
    for numbers in torch.split(torch.from_numpy(asked), QUERIES):
        queries = unit(small[numbers])
        near, seen = _nearest(queries, compared, whole, numbers, count)
        query = torch.arange(len(numbers)).repeat_interleave(near.shape[1])
        near, seen = near.flatten(), seen.flatten()
        same = _same(queries[query], unit(small[near]), torch.tensor(PLACES)[seen])
        yield numbers[query[same]].numpy(), near[same].numpy()
        report(int(numbers[-1]) + 1)


class _Magnitudes:
    """What no turn, mirroring or inversion of an image changes, on the principal axes of a set of images ``uint8 [n, C, side, side]``."""

    def __init__(self, small: Tensor) -> None:
        # An even sample of them: of a few thousand images more change nothing.
        parts = self._along(_prepared(small[:: -(-len(small) // 4096)]), HERE)
        self.centre = [part.mean(dim=0) for part in parts]
        self.spread = [(deviation := part.std(dim=0)) + 0.05 * deviation.mean() + 1e-6 for part in parts]
        self.axes = torch.eye(sum(part.shape[1] for part in parts))
        self.axes = leading_axes(self._normalised(parts), AXES)

    def __call__(self, prepared: Prepared, view: Place) -> Tensor:
        """``float32 [n, AXES]``, of which products say how alike images are, from :func:`_rings` in one place."""
        return self._normalised(self._along(prepared, view)) @ self.axes

    def _along(self, prepared: Prepared, view: Place) -> list[Tensor]:
        return [_rings(one, torch.tensor([view]).expand(len(one), 3))[..., :HARMONICS].abs().flatten(1) for one in prepared]

    def _normalised(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([F.normalize((part - mean) / spread, dim=1) for part, mean, spread in zip(parts, self.centre, self.spread)], dim=1)


def _nearest(queries: Tensor, compared: _Magnitudes, whole: Tensor, numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Candidates of each image ``[n, C, side, side]``, and the number of the place that it is read in: ``int64 [n, 2 · count]`` each.

    The first ``count`` are the nearest in its own place, the others in any; none is the image itself, which ``numbers [n]`` tell.
    """
    prepared = _prepared(queries)
    best = torch.full((len(queries), len(whole)), -torch.inf)
    place = torch.zeros(best.shape, dtype=torch.int64)
    for number, view in enumerate(PLACES):
        alike = (compared(prepared, view) @ whole.T).scatter_(1, numbers[:, None], -torch.inf)
        if view == HERE:
            first, here = alike.topk(count, dim=1).indices, number
        place[alike > best] = number
        best = torch.maximum(best, alike)
    further = best.topk(count, dim=1).indices
    return torch.cat([first, further], dim=1), torch.cat([torch.full_like(first, here), place.gather(1, further)], dim=1)


def _prepared(images: Tensor) -> Prepared:
    """What is read on rings, of images ``[n, C, side, side]``: themselves, and their local contrast, both smoothed."""
    images = unit(images)
    return blur(images, SMOOTH), blur(local_contrast(coarse(images)), SMOOTH / 2)


def unit(small: Tensor) -> Tensor:
    """Grey levels as ``float32`` in −1..1; what is that already stays."""
    return small if small.is_floating_point() else small.float().div(127.5).sub(1)


def _rings(images: Tensor, views: Tensor) -> Tensor:
    """Fourier coefficients along rings, ``complex64 [n, C, RINGS, ANGLES / 2 + 1]``, each view a centre and an enlargement, ``[n, 3]``."""
    radius = (torch.arange(RINGS) + 0.5) / RINGS * 0.95
    angle = torch.arange(ANGLES) * (2 * torch.pi / ANGLES)
    circle = torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], dim=-1)
    grid = circle * views[:, 2, None, None, None] + views[:, None, None, :2]
    read = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    along: Tensor = torch.fft.rfft(read - read.mean(dim=(2, 3), keepdim=True), dim=3)
    return along


def _begun(query: Tensor, reference: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
    """The turn and mirroring under which the rings agree best: warps ``[n, 2, 3]`` for alignment, and −1 for an inverted query, ``[n]``."""
    one, other = _rings(blur(query, SMOOTH), views), _rings(blur(reference, SMOOTH), torch.tensor([HERE]).expand(len(query), 3))
    # A turn is a shift along the rings, a mirroring reverses them: correlation and convolution of the two.
    both = torch.stack([(other.conj() * one).sum(dim=(1, 2)), (other * one).sum(dim=(1, 2))], dim=1)
    agree = torch.fft.irfft(both, ANGLES, dim=2).flatten(1)
    place = agree.abs().argmax(dim=1)
    turn, mirror = place % ANGLES * (2 * torch.pi / ANGLES), 1 - 2.0 * (place // ANGLES)
    cos, sin, (dx, dy, zoom) = turn.cos(), turn.sin(), views.T
    rows = torch.stack([zoom * cos, -mirror * zoom * sin, dx, zoom * sin, mirror * zoom * cos, dy], dim=1).reshape(-1, 2, 3)
    return rows, agree.gather(1, place[:, None])[:, 0].sign()


@torch.no_grad()
def _same(query: Tensor, reference: Tensor, views: Tensor) -> Tensor:
    """Which pairs of images ``[n, C, H, W]`` are one picture: ``bool [n]``."""
    start, sign = _begun(query, reference, views)
    query = query * sign[:, None, None, None]
    rows = aligned(query, reference, start)
    stretch = torch.linalg.svdvals(rows[:, :, :2])
    seen, weight = warp(query, rows), window(*query.shape[2:])
    one, other = (blur(image, BAND[0]) - blur(image, BAND[1]) for image in (seen, reference))
    strong = torch.minimum(*((fine.square() * weight).sum(dim=(1, 2, 3)) / weight.sum() for fine in (one, other))) >= FAINT**2
    kept = ((stretch <= STRETCH) & (stretch >= 1 / STRETCH)).all(dim=1)
    contrast = _correlation(local_contrast(seen), local_contrast(reference), weight)
    same: Tensor = strong & kept & (torch.minimum(_correlation(one, other, weight), contrast) >= SAME)
    return same


def throughout(one: Tensor, other: Tensor) -> Tensor:
    """Which pairs of images ``[n, C, H, W]`` are alike in local contrast, where bright edges weigh no more than others: ``bool [n]``.

    The border is left out: what every image of a collection is framed by makes no two of them one picture.
    """
    weight = window(*one.shape[2:])
    return _correlation(local_contrast(one), local_contrast(other), weight) >= CONTRAST


def _correlation(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    left, right = (normalised(part, weight) for part in (one, other))
    alike: Tensor = (left * right * weight).sum(dim=(1, 2, 3)) / (weight.sum() * one.shape[1])
    return alike

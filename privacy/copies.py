"""The copy search: is a synthetic image a copy of a real one, whatever was done to it?

Two stages. Every query is compared with every reference by matrix products: in many *views* (the eight symmetries of the square, each
shifted, zoomed and turned a little, as it is and inverted) at 16 × 16 pixels; and under the eight symmetries alone, patch by patch, where
the best patches count, so that what covers or replaces a part of it does not hide a copy, and by ℓ₂. The best candidates are *aligned* at
full resolution (:mod:`privacy.alignment`) and described (:mod:`privacy.descriptors`): the *distance* is 1 − NCC of what remains of both
images when the structure that the whole cohort shares is projected out, and the *evidence* holds all the descriptors' correlations, and by
how much each exceeds that of the query's other neighbours: a copy is near one reference and not near the next ones.
The *ratio* is ℓ₂ over the reference's own from its neighbours (:mod:`privacy.density`): a copy, and what a model makes of one, is nearer.

Nothing here is trained, so nothing can favour train over audit; the shared structure is that of both together.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from evaluation.classifiers import one_a_core
from privacy import density, descriptors
from privacy.alignment import aligned, turned, warp
from privacy.views import LOCAL_GRID, coarse, describe, fine_contrast, leading_axes, local_contrast, patches, search_views, symmetries

Images = NDArray[np.uint8]
NEIGHBOURS = 4
"""Candidates by the whole image in all views; with the three following kinds, they are what a match is contrasted with."""
FURTHER, FINE_SIDE = 4, 32
"""Further ones, which nothing is contrasted with, for images below that side: a shift by pixels so large that it is none of the views, and
the loss of a border, leave the source of one copy in twenty behind the best four."""
LOCAL = 2
"""Candidates by the patches that are most alike."""
PLAIN = 2
"""Candidates by ℓ₂ as the images are."""
DENSE = 1
"""Candidates by ℓ₂ over the reference's own (:mod:`privacy.density`)."""
EACH = 1
"""Candidates taken besides from every subset that is asked for, so that a small one is not without."""
AXES = (32, 64)
"""Principal axes on which the 16 × 16 intensities and their locally normalised form are compared."""
BLOCK = 4096
"""References compared at once: memory does not grow with their number."""
PLAIN_GRIDS = (24, 12, 6)
"""Sides at which images are compared as they are."""
LOWEST_DISTANCE = 1e-5
"""Distances below are rounding errors."""


@dataclass(frozen=True)
class Matches:
    """The nearest reference of every query.

    Attributes:
        index: into the references, ``int64 [n]``.
        distance: ``float64 [n]``; 0 is the same image, larger is less alike, infinite where no candidate lies in the subset.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """The references that each of n queries was aligned with, k a query; some of the last ones repeat earlier ones.

    Attributes:
        index: into the references, ``int64 [n, k]``.
        distance: 1 − aligned NCC, ``float64 [n, k]``.
        ratio: of the root mean square difference, not aligned, to the reference's own from its neighbours; the geometric mean over
            :data:`PLAIN_GRIDS`, ``float64 [n, k]``.
        evidence: descriptors ``float32 [n, k, d]``, larger is more alike.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    ratio: NDArray[np.float64]
    evidence: NDArray[np.float32]

    def nearest(self, within: NDArray[np.bool_], distance: NDArray[np.float64] | None = None) -> Matches:
        """The nearest candidate of each query within a subset of the references (a mask over them), by another distance where given."""
        apart = np.where(within[self.index], self.distance if distance is None else distance, np.inf)
        best = apart.argmin(axis=1)[:, None]
        return Matches(np.take_along_axis(self.index, best, axis=1)[:, 0], np.take_along_axis(apart, best, axis=1)[:, 0])


def shared_structure(images: Images) -> descriptors.Structure:
    """What a cohort's images ``uint8 [n, C, H, W]`` share, train and audit together (:func:`privacy.descriptors.structure`)."""
    return descriptors.structure(_unit(np.asarray(images[:: -(-len(images) // descriptors.SAMPLE)])))


class CopySearch:
    """Distances from any images to a fixed set of references.

    Args:
        references: ``uint8 [n, C, H, W]``, kept as they are (a memory map stays one); 123 + 1152 C numbers an image are kept on the device.
        shared: of :func:`shared_structure`.
        neighbours: mask of the references among which a query's neighbours are sought; all, where not given.
    """

    def __init__(self, references: Images, shared: descriptors.Structure, device: str, neighbours: NDArray[np.bool_] | None = None) -> None:
        self.device = device
        self.whole = NEIGHBOURS + (FURTHER if min(references.shape[2:]) < FINE_SIDE else 0)
        self.precision = torch.float16 if device == "cuda" else torch.float32
        self.references = references
        self.shared = shared.to(device)
        self.neighbours = np.ones(len(references), bool) if neighbours is None else neighbours
        tables = []
        for start in range(0, len(references), BLOCK):
            block = _unit(references[start : start + BLOCK], device)
            tables.append((coarse(block), fine_contrast(block), F.adaptive_avg_pool2d(block, LOCAL_GRID)))
        small, local, plain = (torch.cat(table) for table in zip(*tables))
        parts = [describe(part) for part in (small, local_contrast(small))]
        self.axes = [leading_axes(part, count) for part, count in zip(parts, AXES)]
        self.described = torch.cat([part @ axes for part, axes in zip(parts, self.axes)], dim=1).to(self.precision)
        self.mean_local, self.mean_plain = local.mean(dim=0), plain.mean(dim=0)
        self.patches = patches(local - self.mean_local).to(self.precision)
        self.plain = (plain - self.mean_plain).flatten(1)
        self.near = self._near()
        self.own = density.own_distance(*self.near)

    def _near(self) -> tuple[Tensor, Tensor]:
        """Each reference's nearest neighbours at every one of :data:`PLAIN_GRIDS` (:func:`privacy.density.nearest`), ``[n, grids, k]``."""
        square = self.plain.reshape(len(self.plain), -1, LOCAL_GRID, LOCAL_GRID)
        among = torch.from_numpy(self.neighbours).to(self.device)
        spaces = (density.rms(F.adaptive_avg_pool2d(square, grid)) for grid in PLAIN_GRIDS)
        index, distance = zip(*(density.nearest(space, among) for space in spaces))
        return torch.stack(index, dim=1), torch.stack(distance, dim=1)

    def nearest(self, queries: Images, *among: NDArray[np.bool_]) -> list[Matches]:
        """The nearest reference of each query ``uint8 [n, C, H, W]`` within each subset of the references (masks), after alignment."""
        found = self.candidates(queries, *among)
        return [found.nearest(mask) for mask in among]

    @torch.no_grad()
    def candidates(
        self,
        queries: Images,
        *among: NDArray[np.bool_],
        itself: NDArray[np.int64] | None = None,
        report: Callable[[int], None] = lambda done: None,
    ) -> Candidates:
        """The candidates of each query: its neighbours, and the best of each subset.

        Args:
            queries: ``uint8 [n, C, H, W]``.
            among: masks over the references, such as train and audit.
            itself: the reference that each query is, ``[n]``, which is then as if it were not there.
            report: called with the number of queries that are done.
        """
        subsets = [self._by_block(np.flatnonzero(mask)) for mask in (self.neighbours, *among) if mask.any()]
        step, done = 128 if self.device == "cuda" else 32, itertools.count(1)

        def few(start: int) -> tuple[NDArray[Any], ...]:
            part = slice(start, start + step)
            own = None if itself is None else torch.from_numpy(itself[part]).to(self.device)
            found = self._candidates(_unit(queries[part], self.device), subsets, own)
            report(min(next(done) * step, len(queries)))
            return found

        found = one_a_core([functools.partial(few, start) for start in range(0, len(queries), step)], self.device)
        return Candidates(*(np.concatenate(column) for column in zip(*found)))

    def _by_block(self, index: NDArray[np.int64]) -> list[Tensor]:
        """Sorted numbers of references as places in each block of them."""
        ends = np.searchsorted(index, np.arange(BLOCK, len(self.references) + BLOCK, BLOCK))
        parts = np.split(index, ends[:-1])
        return [torch.from_numpy(part - number * BLOCK).to(self.device) for number, part in enumerate(parts)]

    def _candidates(
        self, queries: Tensor, subsets: list[list[Tensor]], itself: Tensor | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        first, *each = self._look(queries, subsets, itself)
        looked = [first, *self._look_upright(queries, subsets[0], itself), *each]
        chosen, start, sign = (torch.cat(parts, dim=1) for parts in zip(*looked))
        n, count = chosen.shape
        references = _unit(self.references[chosen.flatten().cpu().numpy()], self.device)
        asked = queries.repeat_interleave(count, dim=0) * sign.flatten()[:, None, None, None]
        alike = []
        # A bounded number of pixels at once.
        step = max(1, (1 << 24) // references[0].numel())
        for part in (slice(begin, begin + step) for begin in range(0, n * count, step)):
            seen = warp(asked[part], aligned(asked[part], references[part], start.flatten(0, 1)[part]))
            alike.append(descriptors.similarities(descriptors.maps(seen), descriptors.maps(references[part]), self.shared))
        similarity = torch.cat(alike).reshape(n, count, -1)
        distance = (1 - similarity[:, :, 0]).clamp(min=0).double()
        alone = -distance[:, :, None].clamp(min=LOWEST_DISTANCE).log().float()
        plain = plain_likeness(queries, references.reshape(n, count, *queries.shape[1:]))
        own = self.own[chosen]
        if itself is not None:
            index, apart = self.near
            own = density.own_distance(index[chosen], apart[chosen], itself[:, None, None])
        ratio = (-plain - own).mean(dim=2).double().exp()
        near = torch.cat([similarity.clamp(-0.9999, 0.9999).atanh(), alone, plain], dim=2)
        place, whole = torch.arange(count, device=self.device), looked[0][0].shape[1]
        neighbour = (place < NEIGHBOURS) | (place >= whole) & (place < sum(part[0].shape[1] for part in looked[:4]))
        evidence = torch.cat([near, contrast(near, chosen, neighbour.expand(n, count))], dim=2)
        return chosen.cpu().numpy(), distance.cpu().numpy(), ratio.cpu().numpy(), evidence.cpu().numpy()

    def _look(self, queries: Tensor, subsets: list[list[Tensor]], itself: Tensor | None) -> list[Looked]:
        """The first stage over the whole image: :data:`NEIGHBOURS` candidates a query of the first subset, :data:`EACH` of every other."""
        views = search_views(self.device)
        small = coarse(queries)
        seen = turned(torch.cat([small, local_contrast(small)], dim=1), views)
        parts = [describe(part) @ axes for part, axes in zip(seen.chunk(2, dim=1), self.axes)]
        described = torch.cat(parts, dim=1).to(self.precision).reshape(len(queries), len(views), -1)
        # One query at a time on a CPU: what its cache holds it compares twice as fast.
        size = len(queries) if self.device == "cuda" else 1
        own = [None] * -(-len(queries) // size) if itself is None else torch.split(itself, size)
        found = zip(*(self._compare(part, subsets, each) for part, each in zip(torch.split(described, size), own)))
        return [(index, views[view], upright.float() * 2 - 1) for index, view, upright in (map(torch.cat, zip(*parts)) for parts in found)]

    def _compare(self, described: Tensor, subsets: list[list[Tensor]], itself: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The best of each subset for queries ``[n, views, d]``: index, view and whether upright, ``[n, k]`` each."""
        n, views, _ = described.shape
        kept = [_Best(n, self.whole if number == 0 else EACH, self.device, itself) for number in range(len(subsets))]
        for number, block in enumerate(torch.split(self.described, BLOCK)):
            similarity = (described.flatten(0, 1) @ block.T).reshape(n, views, -1)
            score = torch.maximum(similarity.amax(dim=1), -similarity.amin(dim=1))
            for best, subset in zip(kept, subsets):
                best.add(subset[number], number * BLOCK, score, similarity)
        return [(best.index, best.view, best.upright) for best in kept]

    def _look_upright(self, queries: Tensor, subset: list[Tensor], itself: Tensor | None) -> list[Looked]:
        """The first stage under the eight symmetries alone: :data:`LOCAL` candidates by patches, :data:`PLAIN` and :data:`DENSE` by ℓ₂."""
        n, views = len(queries), symmetries(self.device)
        seen = turned(queries, views)
        parts = patches(fine_contrast(seen) - self.mean_local).to(self.precision)
        plain = (F.adaptive_avg_pool2d(seen, LOCAL_GRID) - self.mean_plain).flatten(1)
        kept = [_Best(n, count, self.device, itself) for count in (LOCAL, PLAIN, DENSE)]
        own = self.own[:, 0].exp() * self.plain.shape[1] ** 0.5
        for number, (block, flat) in enumerate(zip(torch.split(self.patches, BLOCK), torch.split(self.plain, BLOCK))):
            alike = torch.bmm(parts.transpose(0, 1), block.permute(1, 2, 0))
            # The fourth power: few patches that are the same weigh more than many that are somewhat alike.
            same = alike.clamp_(min=0).square_().square_().sum(dim=0)
            apart = torch.cdist(plain, flat)
            dense = 1 / (1 + apart / own[number * BLOCK :][: len(flat)])
            for best, table in zip(kept, (same, 1 / (1 + apart), dense)):
                alike = table.reshape(n, len(views), -1)
                best.add(subset[number], number * BLOCK, alike.amax(dim=1), alike)
        return [(best.index, views[best.view], best.upright.float() * 2 - 1) for best in kept]


Looked = tuple[Tensor, Tensor, Tensor]
"""Candidates ``[n, k]``, the warps to begin alignment at ``[n, k, 2, 3]``, and 1 or −1 for an inverted query ``[n, k]``."""


class _Best:
    """The best references of each of n queries so far, at most ``count``: index, view, and whether the query is upright; last of all the
    one that a query is ``itself``."""

    def __init__(self, n: int, count: int, device: str, itself: Tensor | None) -> None:
        self.count = count
        self.itself = itself
        self.score = torch.zeros(n, 0, device=device)
        self.index, self.view = (torch.zeros(n, 0, dtype=torch.int64, device=device) for _ in range(2))
        self.upright = torch.zeros(n, 0, dtype=torch.bool, device=device)

    def add(self, inside: Tensor, start: int, score: Tensor, by_view: Tensor) -> None:
        """The best of some references of a block: ``inside`` it, of which the first is number ``start``.

        Args:
            score: ``[n, block]``.
            by_view: ``[n, views, block]``; the view whose value is farthest from 0 is the reference's.
        """
        asked = score[:, inside]
        if self.itself is not None:
            asked = asked.masked_fill(inside == self.itself[:, None] - start, -torch.inf)
        few = asked.topk(min(self.count, len(inside)), dim=1)
        seen = by_view.gather(2, inside[few.indices][:, None].expand(-1, by_view.shape[1], -1))
        upright = seen.amax(dim=1) >= -seen.amin(dim=1)
        view = torch.where(upright, seen.argmax(dim=1), seen.argmin(dim=1))
        new = few.values.float(), inside[few.indices] + start, view, upright
        both = [torch.cat(pair, dim=1) for pair in zip((self.score, self.index, self.view, self.upright), new)]
        place = both[0].topk(min(self.count, both[0].shape[1]), dim=1).indices
        self.score, self.index, self.view, self.upright = (table.gather(1, place) for table in both)


def contrast(near: Tensor, index: Tensor, neighbour: Tensor) -> Tensor:
    """By how much each candidate's descriptors exceed their mean over the query's other neighbours; 0 where it has none.

    Args:
        near: ``[n, k, d]``.
        index: of the candidates, ``[n, k]``; one that occurs twice counts once.
        neighbour: which candidates count as neighbours, ``bool [n, k]``.
    """
    same = index[:, :, None] == index[:, None]
    again = (same & neighbour[:, None]).tril(diagonal=-1).any(dim=2)
    other = (~same & (neighbour & ~again)[:, None]).to(near.dtype)
    count = other.sum(dim=2, keepdim=True)
    return torch.where(count > 0, near - other @ near / count.clamp(min=1), 0)


def plain_likeness(queries: Tensor, references: Tensor) -> Tensor:
    """−ln of the root mean square difference of images that are not aligned, at three resolutions, under the best of the eight symmetries.

    What alignment and normalisation take out, place, size, brightness and contrast, speaks for a copy too where it is the same.

    Args:
        queries: ``[n, C, H, W]`` in −1..1.
        references: ``[n, k, C, H, W]``.

    Returns:
        ``float32 [n, k, len(PLAIN_GRIDS)]``.
    """
    n, count = references.shape[:2]
    views = symmetries(queries.device.type)
    seen = turned(queries, views)
    found = []
    for grid in PLAIN_GRIDS:
        one = F.adaptive_avg_pool2d(seen, grid).reshape(n, len(views), -1)
        other = F.adaptive_avg_pool2d(references.flatten(0, 1), grid).reshape(n, count, -1)
        found.append(torch.cdist(one, other).amin(dim=1) / one.shape[2] ** 0.5)
    return -torch.stack(found, dim=2).clamp(min=density.FLOOR).log()


def _unit(images: Images, device: str = "cpu") -> Tensor:
    return torch.from_numpy(np.array(images)).to(device).float().div(127.5).sub(1)

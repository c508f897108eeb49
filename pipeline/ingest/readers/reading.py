"""What every reader gives: images with their geometry and header, or the reason why there is none.

A reader is a function ``read(path, refuse) -> Iterator[Reading | Quarantined]`` at the top of its module. It raises nothing but MemoryError
and never gives nothing: one file may hold several images (frames), each of which is read or left out by itself, one at a time.
``refuse`` is asked with the header before any pixel is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.ingest.readers.header import Header


Refuse = Callable[["Header"], str | None]


def nothing(_: Header) -> None:
    """The ``refuse`` that lets everything pass."""


class Unusable(Exception):
    """Raised inside a reader: why a file, or one image in it, is left out. The message holds nothing of its content."""


@dataclass(frozen=True)
class Quarantined:
    """Why a file is left out, in words on which a person can act and that hold nothing of its content."""

    reason: str


@dataclass(frozen=True)
class Reading:
    """One image, in its own units.

    Attributes:
        pixels: ``[C, H, W]`` or, for a volume, ``[C, D, H, W]``: in the units of the modality (Hounsfield, PET activity, ...), or of the
            VOI LUT's output where ``linear`` is False; NaN where the source declares padding. C is 1 or 3 (RGB).
        low: the value displayed black; above ``high`` when the display is inverted.
        high: the value displayed white.
        linear: whether ``pixels`` are still linear in the modality's units (no VOI LUT, no palette).
        spacing: mm between voxels along each spatial axis, ``([D,] H, W)``, at the detector where the patient's is not known; None
            where neither is.
        aspect: height of a pixel over its width; from ``spacing``, or from a pixel aspect ratio where there is no spacing.
        affine: ``float64 [4, 4]`` from indices ``(slice, row, column, 1)`` to mm in the patient's RAS+ axes (x to the right, y to the
            front, z up); None where the position is not known. For a single slice the first column is the unit normal.
        header: what the source says of it, identities included: for the allow-list and the label table only.
        kind: ``image`` stands alone, ``slice`` is one of a series that can be assembled, ``volume`` is three-dimensional already.
        frame: number of the frame in its file, from 0; None in a file with one image.
        turned: how the image was brought to its standard view, one of :data:`pipeline.ingest.readers.geometry.TURNS`.
    """

    pixels: NDArray[np.float32]
    low: float
    high: float
    linear: bool
    spacing: tuple[float, ...] | None
    aspect: float
    affine: NDArray[np.float64] | None
    header: Header = field(repr=False)
    kind: Literal["image", "slice", "volume"] = "image"
    frame: int | None = None
    turned: str = ""

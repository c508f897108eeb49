"""Where an image's pixels lie: in the patient, or on a projection, which is turned into its standard view.

A radiograph or mammogram may be stored mirrored, upside down or on its side. Patient Orientation (PS3.3 C.7.6.1.1.1) says where its rows
and columns lead, and so how it is brought to the view in which it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.readers.header import Geometry, Header

# Modalities whose images are projections.
PROJECTIONS = ("CR", "DX", "MG", "RG")
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
AXES = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}


def place(geometry: Geometry) -> NDArray[np.float64] | None:
    """Affine from indices (slice, row, column, 1) to RAS+ mm (PS3.3 C.7.6.2.1.1); None where position or orientation say nothing."""
    position, cosines, mm = geometry.position, geometry.cosines, geometry.spacing
    if position is None or cosines is None or mm is None:
        return None
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(along_row @ along_column) > 0.01:
        return None
    affine = np.eye(4)
    affine[:3, 0] = np.cross(along_row, along_column)
    affine[:3, 1], affine[:3, 2] = along_column * mm[0], along_row * mm[1]
    affine[:3, 3] = position
    affine[:2] *= -1  # DICOM's axes point to the left and to the back
    return affine


@dataclass(frozen=True)
class Turn:
    """How an image is brought to its standard view.

    Attributes:
        transposed: rows and columns are exchanged, before anything is mirrored.
        across: then mirrored from left to right.
        down: then mirrored from top to bottom.
    """

    transposed: bool = False
    across: bool = False
    down: bool = False

    @property
    def name(self) -> str:
        """What was done to the image; empty for nothing."""
        return _NAMES[self.transposed, self.across, self.down]

    def applied(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[C, H, W]`` turned."""
        turned = pixels.swapaxes(1, 2) if self.transposed else pixels
        turned = turned[:, :: -1 if self.down else 1, :: -1 if self.across else 1]
        return turned if turned is pixels else np.ascontiguousarray(turned)

    def rectangle(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Where ``(left, top, right, bottom)``, shares of the image's width and height as stored, lie in the turned image."""
        left, top, right, bottom = (box[1], box[0], box[3], box[2]) if self.transposed else box
        if self.across:
            left, right = 1 - right, 1 - left
        if self.down:
            top, bottom = 1 - bottom, 1 - top
        return left, top, right, bottom

    @classmethod
    def named(cls, name: str) -> Turn:
        """The turn of a :attr:`name`."""
        return cls(*next(how for how, word in _NAMES.items() if word == name))


_NAMES = {
    (False, False, False): "",
    (False, True, False): "mirrored",
    (False, False, True): "upside down",
    (False, True, True): "turned by 180",
    (True, False, False): "transposed",
    (True, True, False): "turned by 90",
    (True, False, True): "turned by 270",
    (True, True, True): "transposed and turned by 180",
}
TURNS = tuple(_NAMES.values())


def upright(header: Header) -> Turn:
    """How a projection is brought to its standard view; no turn for other images, and where the header does not say.

    Frontal views: rows lead to the patient's left, columns to the feet. Mammograms (as the IHE Mammography Image profile hangs them): rows
    lead to the front in a left breast and to the back in a right one, so that the chest walls meet where both hang side by side; columns
    lead to the feet, or from the outer to the inner side. Lateral views: columns lead to the feet; which way the patient faces is left as
    it is.
    """
    words = header.geometry.orientation
    if header.modality not in PROJECTIONS or len(words) != 2 or not all(word[:1] in AXES for word in words):
        return Turn()
    row, column = words[0][0], words[1][0]
    axes = AXES[row], AXES[column]
    if axes[0] == axes[1]:
        return Turn()
    side = (header.image_laterality or header.laterality).upper()
    if header.modality == "MG":
        if side not in ("L", "R") or "y" not in axes:
            return Turn()
        other = next(axis for axis in axes if axis != "y")
        wanted = ("A" if side == "L" else "P"), "F" if other == "z" else OPPOSITE[side]
    elif "y" not in axes:
        wanted = "L", "F"
    elif "z" in axes:
        faces = row if AXES[row] == "y" else column
        wanted = faces, "F"
    else:
        return Turn()
    transposed = axes[0] != AXES[wanted[0]]
    now = (column, row) if transposed else (row, column)
    return Turn(transposed, now[0] != wanted[0], now[1] != wanted[1])

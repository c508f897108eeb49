"""The scan in an ultrasound machine's picture, without the screen around it: Sequence of Ultrasound Regions (PS3.3 C.8.5.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pipeline.ingest.readers.header import Region, Scan

if TYPE_CHECKING:
    from pipeline.ingest.readers.reading import Reading

MODALITIES = frozenset({"US", "IVUS", "BDUS"})
TWO_DIMENSIONAL = 1  # Region Spatial Format (0018,6012); others are M-mode, spectra, waveforms, graphics
LEAST_SIDE = 16
# Share of a picture's height and width from which a region is the whole screen, banners and all, and tells nothing.
WHOLE = 0.98
# Mm a pixel beyond which a calibration is a slip: a body is not seen with pixels of a micrometre, nor of 5 mm.
FINEST, COARSEST = 0.001, 5.0


def scan(modality: str, regions: Iterable[Region], rows: int, columns: int) -> Scan | None:
    """The largest two-dimensional region of a picture; None where there is none, or nothing but the whole picture.

    A colour box lies inside the tissue's region; of two views side by side the larger one is taken, the first of equal ones.
    """
    if modality.upper() not in MODALITIES:
        return None
    found = [one for one in (_scan(box, rows, columns) for box in regions) if one is not None]
    largest = max(found, key=lambda one: one.area, default=None)
    if largest is None or (largest.bottom - largest.top >= WHOLE * rows and largest.right - largest.left >= WHOLE * columns):
        return None
    return largest


def cropped(reading: Reading) -> Reading:
    """Only the pixels of the image's scan, with its own spacing; the image itself where it has none. Nothing outside it is kept."""
    found = reading.header.origin.scan
    if found is None:
        return reading
    pixels = np.ascontiguousarray(reading.pixels[..., found.top : found.bottom, found.left : found.right])
    affine = reading.affine
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 1] * found.top + affine[:3, 2] * found.left
    if found.mm is None or reading.kind != "image":  # of a slice, the position in the patient already says how large it is
        return dataclasses.replace(reading, pixels=pixels, affine=affine)
    return dataclasses.replace(reading, pixels=pixels, affine=affine, spacing=found.mm, aspect=found.mm[0] / found.mm[1])


def _scan(box: Region, rows: int, columns: int) -> Scan | None:
    """A two-dimensional region, cut to the picture; None where it is none, or its numbers make no rectangle in it."""
    left, top, right, bottom = box.left, box.top, box.right + 1, box.bottom + 1  # the corners belong to it
    # One pixel beyond the border is a common slip; a corner further out is one of another picture.
    if box.spatial_format != TWO_DIMENSIONAL or not (0 <= top < bottom <= rows + 1 and 0 <= left < right <= columns + 1):
        return None
    bottom, right = min(bottom, rows), min(right, columns)
    if bottom - top < LEAST_SIDE or right - left < LEAST_SIDE:
        return None
    mm = box.mm if box.mm is not None and all(FINEST <= step <= COARSEST for step in box.mm) else None
    return Scan(top, left, bottom, right, mm)

"""Phantom radiographs of invented patients, to try things on."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import InputError, system_refusals


def phantom(out: Path, *, patients: int = 200, seed: int = 0, size: int = 96) -> int:
    """Write a folder of phantom chest radiographs as DICOM files with ``labels.csv``, full of invented identities; the number of images.

    Args:
        out: a folder to make; it must not exist.
        patients: how many patients to draw, at least 1; each has one to four images.
        seed: of the drawing, not negative.
        size: side of the images in pixels, 32 to 2 048.

    Raises:
        InputError: the folder exists.
    """
    from pipeline.phantom.anatomy import draw_patients
    from pipeline.phantom.dicom import write_cohort

    with system_refusals(out):
        if os.path.lexists(out):
            raise InputError(f"{out.name} exists: give a folder that does not")
        return write_cohort(out, draw_patients(patients, seed), seed, size)

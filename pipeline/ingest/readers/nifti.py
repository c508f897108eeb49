"""NIfTI-1 and NIfTI-2 volumes, of three dimensions or four (each volume of a time series by itself)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.ingest.intensity import percentiles
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

MAX_VALUES = 512 << 20
ENDINGS = (".nii", ".nii.gz")
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read(
    paths: Sequence[Path], refuse: Refuse = nothing, modality: str | None = None, root: Path | None = None
) -> Iterator[Reading | Quarantined]:
    """The volumes of one file, ``[C, D, H, W]`` with D, H, W its third, second and first axis; raises nothing but MemoryError.

    Args:
        paths: one file.
        refuse: asked with the header, before the voxels are read, why the file is not wanted.
        modality: what the file does not say.
        root: the folder to which paths are relative.
    """
    try:
        yield from _volumes(paths[0], refuse, source_header(paths[0], modality, root))
    except Unusable as error:
        yield Quarantined(str(error))
    except (ImageFileError, HeaderDataError):
        yield Quarantined("not a NIfTI volume, or its header is damaged")
    except MemoryError:
        raise
    except FileNotFoundError:
        yield Quarantined("cannot be opened: mend its permissions")
    except Exception as error:
        yield Quarantined(f"damaged or cut short ({type(error).__name__}): copy or convert it again")


def source_header(path: Path, modality: str | None, root: Path | None) -> Dataset:
    """What is known of a file that has no DICOM header: its path takes the place of a UID."""
    header = Dataset()
    name = path.relative_to(root.expanduser()).as_posix() if root is not None else path.name
    if modality is not None:
        header.Modality = modality
    header.add_new("SOPInstanceUID", "LO", name)
    return header


def _volumes(path: Path, refuse: Refuse, header: Dataset) -> Iterator[Reading]:
    if not path.name.endswith(ENDINGS):
        raise Unusable("not a NIfTI file (.nii or .nii.gz); convert other formats, and pairs of .hdr and .img, to .nii")
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise Unusable("has neither three dimensions nor four: split vectors and tensors into volumes")
    if min(shape[:3]) < 2:
        raise Unusable("a single slice, not a volume")
    if math.prod(shape) > MAX_VALUES:
        raise Unusable(f"declares more than {MAX_VALUES >> 20} million voxels: crop it, or split its time series")
    if (why := refuse(header)) is not None:
        raise Unusable(why)
    affine = _affine(image)
    # As stored: a compressed file is decompressed once, and only one volume at a time is in floating point.
    proxy = image.dataobj
    assert isinstance(proxy, ArrayProxy)
    stored = proxy.get_unscaled().reshape(shape)  # type: ignore[no-untyped-call]
    for number in range(shape[3] if len(shape) == 4 else 1):
        part = stored[..., number] if len(shape) == 4 else stored
        if (proxy.slope, proxy.inter) != (1, 0):
            part = part * proxy.slope + proxy.inter
        yield _reading(image, part, affine, header, number if len(shape) == 4 else None)


def _affine(image: nibabel.Nifti1Image) -> NDArray[np.float64]:
    """From indices (slice, row, column, 1), the reverse of NIfTI's order, to RAS+ mm."""
    units = image.header.get_xyzt_units()[0]  # type: ignore[no-untyped-call]
    affine = np.asarray(image.affine, np.float64)[:, [2, 1, 0, 3]]
    affine[:3] *= _MILLIMETRES.get(units, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Unusable("its affine is singular: set a valid sform or qform")
    return affine


def _reading(image: nibabel.Nifti1Image, part: NDArray[Any], affine: NDArray[np.float64], header: Dataset, number: int | None) -> Reading:
    if part.dtype.names:  # RGB24, RGBA32
        part = np.stack([part[name] for name in part.dtype.names[:3]], axis=-1)
    if np.iscomplexobj(part):
        raise Unusable("holds complex values: save magnitude or phase")
    axes = (3, 2, 1, 0) if part.ndim == 4 else (2, 1, 0)
    pixels = np.ascontiguousarray(part.transpose(axes), np.float32)
    pixels = pixels if pixels.ndim == 4 else pixels[None]
    if np.isinf(pixels).any() or np.isnan(pixels).all():
        raise Unusable("holds values that are not finite")
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    if len(pixels) == 3:
        low, high = 0.0, 255.0
    elif not (math.isfinite(low) and math.isfinite(high) and low < high):
        low, high = percentiles(pixels)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return Reading(pixels, low, high, True, spacing, spacing[1] / spacing[2], affine, header, "volume", number)

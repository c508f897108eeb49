"""NIfTI-1 and NIfTI-2 volumes, of three dimensions or four (each volume of a time series by itself), in one file or as .hdr and .img.

The format's document is nifti1.h (https://nifti.nimh.nih.gov). A file is read only where its length fits its header, its checksum fits
its content, and it says where the patient's left is.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.fileholders import FileHolder
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pipeline.ingest.intensity import contrasts, percentiles
from pipeline.ingest.readers.header import Header, of_file
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

MAX_VALUES = 512 << 20
ENDINGS = (".nii", ".hdr", ".img")
# Ends of the names of CIFTI-2 files, before .nii; and the intent codes that are CIFTI's (nifti1.h).
CIFTI = (
    "dconn",
    "dtseries",
    "dscalar",
    "dlabel",
    "dpconn",
    "dfan",
    "dfibersamp",
    "pconn",
    "pdconn",
    "ptseries",
    "pscalar",
    "plabel",
    "pconnseries",
    "pconnscalar",
)
CIFTI_INTENTS = range(3000, 3100)
# Lengths of the headers, with which the files begin.
NIFTI1, NIFTI2 = 348, 540
# How far directions, and sizes of voxels as a share, of an sform and a qform may differ that speak of the same axes.
AGREE = 0.02
CUT_SHORT = "cut short: the file ends before its last voxel; copy or convert it again"
MISFIT = "its length does not fit its header: vox_offset or the dimensions are wrong; convert it again"
CHECKSUM = "damaged: the checksum of its compression does not fit; copy it again"
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def paired(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Each name by itself, but for a .hdr and its .img, which are one volume."""
    by_plain = {_plain(name): name for name in names}
    taken: set[str] = set()
    groups = []
    for name in names:
        plain = _plain(name)
        image = by_plain.get(f"{plain[:-4]}.img") if plain.endswith(".hdr") else None
        if image is not None:
            taken.add(image)
        groups.append((name,) if image is None else (name, image))
    return [group for group in groups if len(group) > 1 or group[0] not in taken]


def read(
    paths: Sequence[Path], refuse: Refuse = nothing, modality: str | None = None, root: Path | None = None
) -> Iterator[Reading | Quarantined]:
    """The volumes of one file, ``[C, D, H, W]`` with D, H, W its third, second and first axis; raises nothing but MemoryError.

    Args:
        paths: one file, or a .hdr and its .img.
        refuse: asked with the header, before the voxels are read, why the file is not wanted.
        modality: what the file does not say.
        root: the folder to which paths are relative.
    """
    try:
        yield from _volumes(paths, refuse, of_file(paths[0], root, modality))
    except MemoryError:
        raise
    except Exception as error:
        yield Quarantined(_why(error))


def _why(error: Exception) -> str:
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, ImageFileError | HeaderDataError):
        return "not a NIfTI volume, or its header is damaged"
    if isinstance(error, PermissionError | FileNotFoundError):
        return "cannot be opened: mend its permissions"
    if isinstance(error, EOFError):
        return CUT_SHORT
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return CHECKSUM
    return f"damaged ({type(error).__name__}): copy or convert it again"


def _plain(name: str) -> str:
    """In lower case, without the ending of its compression."""
    return name.lower().removesuffix(".gz")


def _volumes(paths: Sequence[Path], refuse: Refuse, header: Header) -> Iterator[Reading]:
    name = _plain(paths[0].name)
    if not name.endswith(ENDINGS):
        raise Unusable("not a NIfTI file (.nii, .nii.gz, or .hdr with .img): convert other formats to .nii")
    if name.endswith(tuple(f".{kind}.nii" for kind in CIFTI)):
        raise Unusable("a CIFTI file: values on the brain's surface, not an image")
    if name.endswith((".hdr", ".img")) and len(paths) < 2:
        raise Unusable("one file of a pair: put the .hdr and the .img of one name side by side")
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_opened(path)) for path in paths]
        written = _header(files)
        image = _image(files, written)
        shape = _shape(image)
        if (why := refuse(header)) is not None:
            raise Unusable(why)
        affine = _affine(image, written)
        # As stored: a compressed file is decompressed once, and only one volume at a time is in floating point.
        proxy = image.dataobj
        assert isinstance(proxy, ArrayProxy)
        stored = _stored(proxy, files[-1]).reshape(shape)
    for number in range(shape[3] if len(shape) == 4 else 1):
        part = stored[..., number] if len(shape) == 4 else stored
        if (proxy.slope, proxy.inter) != (1, 0):
            part = part * proxy.slope + proxy.inter
        yield _reading(image, part, affine, header, number if len(shape) == 4 else None)


def _opened(path: Path) -> BinaryIO:
    """To read, decompressed where its content is compressed, whatever its name says."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _header(files: Sequence[BinaryIO]) -> nibabel.Nifti1Header:
    """The header as it is written, of one file or of a header's and its voxels'. Raises Unusable where it is not NIfTI's or contradicts
    itself."""
    block = files[0].read(NIFTI2)
    files[0].seek(0)
    if len(block) < NIFTI1:
        raise Unusable(CUT_SHORT if block[:4] in _LENGTHS else "not a NIfTI volume")
    version = _LENGTHS.get(block[:4])
    if version is None:
        raise Unusable("not a NIfTI volume")
    if len(block) < version:
        raise Unusable(CUT_SHORT)
    kind = {NIFTI1: nibabel.Nifti1Header, NIFTI2: nibabel.Nifti2Header}[version]
    header: nibabel.Nifti1Header = kind(block[:version], check=False)  # type: ignore[no-untyped-call]
    magic, single = bytes(header["magic"].item())[:2], len(files) == 1
    if magic not in (b"n+", b"ni"):
        raise Unusable("an Analyze file, which says nothing of the patient's left and right: convert it to NIfTI from its source")
    if magic == b"ni" and single:
        raise Unusable("says that its voxels are in another file: give it the ending .hdr, beside its .img")
    if int(header["intent_code"]) in CIFTI_INTENTS:
        raise Unusable("a CIFTI file: values on the brain's surface, not an image")
    offset = float(header["vox_offset"])
    if not offset.is_integer() or offset < (version + 4 if single else 0):
        raise Unusable(MISFIT)
    return header


def _image(files: Sequence[BinaryIO], header: nibabel.Nifti1Header) -> nibabel.Nifti1Pair:
    """The image, with the header as nibabel mends it."""
    single = len(files) == 1
    if not isinstance(header, nibabel.Nifti2Header):
        cls = nibabel.Nifti1Image if single else nibabel.Nifti1Pair
    else:
        cls = nibabel.Nifti2Image if single else nibabel.Nifti2Pair
    holders = [FileHolder(fileobj=file) for file in files]  # type: ignore[arg-type]
    found = cls.from_file_map({"image": holders[0]} if single else dict(zip(("header", "image"), holders)))  # type: ignore[no-untyped-call]
    assert isinstance(found, nibabel.Nifti1Pair)
    return found


_LENGTHS = {length.to_bytes(4, order): length for length in (NIFTI1, NIFTI2) for order in ("little", "big")}


def _shape(image: nibabel.Nifti1Pair) -> tuple[int, ...]:
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2 or (len(shape) >= 3 and 1 in shape[:3]):
        raise Unusable("a single slice, not a volume: save it as a picture, or put the slices of one patient together")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise Unusable("has neither three dimensions nor four: split vectors and tensors into volumes")
    if math.prod(shape) > MAX_VALUES:
        raise Unusable(f"declares more than {MAX_VALUES >> 20} million voxels: crop it, or split its time series")
    return shape


def _stored(proxy: ArrayProxy, file: BinaryIO) -> NDArray[Any]:
    """The voxels as stored. Raises Unusable, EOFError or a gzip error where the file does not end with the last of them."""
    try:
        stored = proxy.get_unscaled()  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        file.seek(0, 2)
        length = math.prod(proxy.shape) * proxy.dtype.itemsize
        # As long as it must be, but for the place at which its voxels are said to begin.
        raise Unusable(CUT_SHORT if file.tell() < length + (NIFTI1 + 4 if proxy.offset else 0) else MISFIT) from None
    file.seek(proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize)
    if file.read(1):  # at its end, gzip checks its sum
        raise Unusable(MISFIT)
    return np.asarray(stored)


def _affine(image: nibabel.Nifti1Pair, written: nibabel.Nifti1Header) -> NDArray[np.float64]:
    """From indices (slice, row, column, 1), the reverse of NIfTI's order, to RAS+ mm."""
    _check_orientation(written)
    units = image.header.get_xyzt_units()[0]  # type: ignore[no-untyped-call]
    affine = np.asarray(image.affine, np.float64)[:, [2, 1, 0, 3]]
    affine[:3] *= _MILLIMETRES.get(units, 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Unusable("its affine is singular: set a valid sform or qform")
    return affine


def _check_orientation(header: Any) -> None:
    """Raises Unusable where a header, as it is written, has no orientation, one without a size, or two that contradict each other.

    An sform to a template's space may turn, stretch and shear what the qform says of the scanner; no such alignment mirrors it.
    """
    aligned, scanner = int(header["sform_code"]), int(header["qform_code"])
    if aligned <= 0 and scanner <= 0:
        raise Unusable("says nothing of the patient's left and right: neither sform nor qform is set; convert it again from its source")
    if aligned <= 0 and not (np.asarray(header["pixdim"][1:4]) > 0).all():  # for which nibabel takes 1 mm
        raise Unusable("says nothing of the size of its voxels: pixdim is not positive, and there is no sform; convert it again")
    if aligned <= 0 or scanner <= 0:
        return
    try:
        first, second = (np.asarray(form, np.float64)[:3, :3] for form in (header.get_sform(), header.get_qform()))
    except HeaderDataError:  # a quaternion that is none
        return
    lengths = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    if not (np.isfinite(first).all() and np.isfinite(second).all()) or min(map(np.min, lengths)) <= 0:
        return
    mirrored = np.linalg.det(first) * np.linalg.det(second) < 0
    apart = np.abs(first / lengths[0] - second / lengths[1]).max() > AGREE or np.abs(lengths[0] / lengths[1] - 1).max() > AGREE
    if mirrored or (apart and aligned == scanner):
        raise Unusable("its sform and its qform contradict each other: keep the one that is right, and convert it again")


def _reading(image: nibabel.Nifti1Pair, part: NDArray[Any], affine: NDArray[np.float64], header: Header, number: int | None) -> Reading:
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
    elif not (math.isfinite(low) and math.isfinite(high) and low < high and contrasts((low, high), pixels, *_ends(pixels))):
        low, high = percentiles(pixels)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    return Reading(pixels, low, high, True, spacing, spacing[1] / spacing[2], affine, header, "volume", number)


def _ends(values: NDArray[np.float32]) -> tuple[float, float]:
    return float(np.nanmin(values)), float(np.nanmax(values))

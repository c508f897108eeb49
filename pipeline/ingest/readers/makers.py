"""What makers of MR scanners keep in private elements: b-values, and the slices of a Siemens mosaic."""

from __future__ import annotations

import contextlib
import re
import struct
from typing import TYPE_CHECKING, Any

from pipeline.ingest.readers.values import number, text

if TYPE_CHECKING:
    from pydicom import Dataset

# b-values where makers keep them for themselves: the creator of the block, its number of the group, and the element in the block.
B_VALUES = (("SIEMENS MR HEADER", 0x0019, 0x0C), ("GEMS_PARM_01", 0x0043, 0x39), ("Philips Imaging DD 001", 0x2001, 0x03))
# Siemens: how many slices lie side by side in a mosaic, and the CSA header, which says it too.
MOSAIC_COUNT, CSA_IMAGE = ("SIEMENS MR HEADER", 0x0019, 0x0A), ("SIEMENS CSA HEADER", 0x0029, 0x10)
# Makers reserve block 10 hexadecimal for the first creator of a group; the others are rare.
BLOCKS = range(0x10, 0x14)
PRIVATE = tuple(
    tag
    for _, group, element in (*B_VALUES, MOSAIC_COUNT, CSA_IMAGE)
    for block in BLOCKS
    for tag in (group << 16 | block, group << 16 | block << 8 | element)
)


def _private(dataset: Dataset, creator: str, group: int, element: int) -> Any:
    """The value of a private element, None where its creator has no block here."""
    for block in BLOCKS:
        if text(dataset, group << 16 | block) == creator:
            raw: Any = dataset.get_item(group << 16 | block << 8 | element)
            return None if raw is None else raw.value
    return None


def b_value(dataset: Dataset) -> str:
    """Where the standard's Diffusion b-value is absent, s/mm2; empty where there is none."""
    for creator, group, element in B_VALUES:
        value = _private(dataset, creator, group, element)
        if value is None:
            continue
        if isinstance(value, bytes) and group == 0x2001 and len(value) == 4:
            return str(struct.unpack(">f" if dataset.original_encoding[1] is False else "<f", value)[0])
        written = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
        found = number(re.split(r"[\\,\[\]]", written.strip("[] \0"))[0].strip(" \0"))
        # GE adds 10^9 to b-values of some of its sequences.
        return "" if found is None else str(found % 1e9)
    return ""


def mosaic(dataset: Dataset) -> tuple[int | None, tuple[float, ...] | None]:
    """How many slices a Siemens mosaic holds, None where it does not say; and the direction of the next one."""
    from nibabel.nicom import csareader

    count, normal = None, None
    plain = _private(dataset, *MOSAIC_COUNT)
    if isinstance(plain, bytes) and len(plain) == 2:
        count = int.from_bytes(plain, "big" if dataset.original_encoding[1] is False else "little")
    elif isinstance(plain, int):
        count = plain
    csa = _private(dataset, *CSA_IMAGE)
    if isinstance(csa, bytes):
        with contextlib.suppress(Exception):  # a maker's own format, damaged or of another version
            found = csareader.read(csa)  # type: ignore[no-untyped-call]
            count = count or int(csareader.get_n_mosaic(found) or 0)  # type: ignore[no-untyped-call]
            normal = tuple(map(float, csareader.get_slice_normal(found)))  # type: ignore[no-untyped-call]
    return count or None, normal

"""Single values of a pydicom data set, looked up so that no damaged one raises or is printed."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

# Value representations whose values are ASCII, separated by backslashes.
PLAIN = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})


def text(dataset: Dataset, keyword: str | int) -> str:
    """An attribute's value as stripped text; the first of several, an empty string for none or for a damaged one."""
    found = texts(dataset, keyword)
    return found[0] if found else ""


def texts(dataset: Dataset, keyword: str | int) -> tuple[str, ...]:
    """All values of an attribute as stripped texts; none where it is absent or damaged."""
    tag, vr = tag_of(keyword)
    found: Any = dataset.get_item(tag, keep_deferred=True)
    return () if found is None else texts_of(dataset, found, vr)


def texts_of(dataset: Dataset, found: Any, vr: str) -> tuple[str, ...]:
    """All values of an element of a data set as stripped texts; none where it is damaged. ``vr`` counts where the file names none."""
    try:
        # What pydicom has not parsed yet: most texts are plain, and parsing those that every image is asked for takes a tenth of its time.
        raw: Any = found if isinstance(found, tuple) else None
        if raw and isinstance(raw.value, bytes) and (raw.VR or vr) in PLAIN and raw.value.isascii() and b"\x1b" not in raw.value:
            return tuple(part.strip(" \0") for part in raw.value.decode("ascii").split("\\"))
        value = dataset[found.tag].value
    except Exception:  # values are parsed on first access, and may be anything
        return ()
    if value is None:
        return ()
    several = value if not isinstance(value, str | bytes) and hasattr(value, "__iter__") and hasattr(value, "__len__") else [value]
    return tuple(str(part).strip(" \0") for part in several)


def number(written: str) -> float | None:
    """A number as DS and IS write it (PS3.5 6.2), with a decimal comma too; None where it is none, or not finite."""
    if "," in written and re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", written):
        written = written.replace(",", ".")
    try:
        found = float(written)
    except ValueError:
        return None
    return found if math.isfinite(found) and "_" not in written else None


def seconds(written: str) -> float | None:
    """Seconds since midnight of a TM or the time of a DT (PS3.5 6.2), None where there is none."""
    match = re.fullmatch(r"(?:\d{8})?(\d\d):?(\d\d):?(\d\d(?:\.\d+)?)(?:[+-]\d{4})?", written)
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


@functools.cache
def tag_of(keyword: str | int) -> tuple[int, str]:
    """The tag of a keyword, as a number, and its value representation; an empty string for a private one's."""
    from pydicom.datadict import dictionary_VR
    from pydicom.tag import Tag

    tag = Tag(keyword)
    return int(tag), "" if tag.is_private else dictionary_VR(tag)


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent or damaged."""
    try:
        found: Any = dataset.get_item(tag_of(keyword)[0])
        held = () if found is None else dataset[tag_of(keyword)[0]].value
    except Exception:
        return []
    return [item for item in held or () if hasattr(item, "get_item")]  # of another VR, it holds letters or numbers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from printing, wherever header values are looked at: its warnings quote them."""
    from pydicom.config import disable_value_validation

    logger = logging.getLogger("pydicom")
    propagate = logger.propagate
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = propagate

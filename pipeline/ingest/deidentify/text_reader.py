"""Reading what the text detector points at: RapidOCR's recogniser (PP-OCR, whose models its wheel carries), loaded at the first such place.

It is strong where the letters stand out, and blind where they do not, so a "no" counts only there (:func:`legible`), a "yes" always.
Nothing is ever downloaded, and what was read leaves this module only as :class:`Reading`, never as words.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.deidentify.allow_list import MARKERS
from pipeline.ingest.deidentify.text_detector import Place
from pipeline.ingest.deidentify.text_screen import Grey

# The recogniser's confidence from which it has read something: of 100 drawn pictures without text none reached it.
SURE = 0.5
LETTERS = 3
# What rows of ticks are read as, in capitals, but for a few letters; rows of beads are one letter again and again.
MOSTLY = 0.8
# Different letters of such a row, at the most: of 280 pictures of rulers none that repeats itself reads as more. MUELLER has five.
DIFFERENT = 4
STROKES = frozenset("1BDEFHIJLMNPQRTUW\N{GREEK CAPITAL LETTER MU}")
ENLARGED = 3
AROUND = 8
WIDE, HIGH = 400, 64


class Reading(Enum):
    """What a place reads as."""

    TEXT = "three letters or digits, or more"
    STROKES = "such letters as rulers and beads read as: strokes, or the same again and again"
    MARKER = "a side or view marker alone"
    NOTHING = "nothing"
    UNKNOWN = "no recogniser is installed, or it failed"


def read(picture: Grey, place: Place) -> Reading:
    """What a place of ``[H, W]`` reads as, enlarged three times and stretched between percentiles 1 and 99.8; columns are read turned."""
    try:
        recognise = recogniser()
        if recognise is None:
            return Reading.UNKNOWN
        shown = _shown(picture, place, AROUND)
        found = max((recognise(one, lines) for one in shown for lines in (False, True)), key=_letters)
        if _letters(found) < LETTERS and not _marker(found):
            return Reading.NOTHING
        # A marker is read again with what is around it: it may be the end of a name, or the place may cut a letter off.
        around = [recognise(one, True) for one in _shown(picture, place, 3 * AROUND)]
    except Exception:
        return Reading.UNKNOWN
    if any(_marker(one) and _plain(found) in _plain(one) for one in around):
        return Reading.MARKER
    # The recogniser's own detector may cut letters off too; what is not there in the surroundings either is no more than the marker.
    if _marker(found) and any(_letters(one) >= LETTERS and _plain(one) in _plain(found) for one in around):
        return Reading.MARKER
    letters = max((_plain(one) for one in (found, *around) if _plain(found) in _plain(one)), key=len)
    if len(letters) < LETTERS:
        return Reading.NOTHING
    strokes = sum(letter in STROKES for letter in letters) >= MOSTLY * len(letters)
    different = len(set(letters))
    return Reading.STROKES if (strokes and different <= DIFFERENT) or different == 1 else Reading.TEXT


def legible(picture: Grey, place: Place, span: float) -> bool:
    """Whether letters in a place would stand out so that the recogniser reads them: then its silence says that there are none.

    ``span`` is the range of the whole picture's values. Of 48 lines of 12 px and higher with a contrast of .2 or more it read every one, of
    16 lines of 10 px all at .4 and 12 at .2.
    """
    from scipy.ndimage import gaussian_filter

    part = part_of(picture, place, AROUND)
    strokes = part - gaussian_filter(part, 4, mode="nearest")
    low, high = np.quantile(strokes, [0.02, 0.98])
    return bool(high - low >= LEGIBLE * span)


# Range of the fine structure in a place, as a share of the picture's, from which letters of that contrast are always read.
LEGIBLE = 0.45


def part_of(picture: Grey, place: Place, around: int) -> Grey:
    """A place with its surroundings, at the scale at which the detector saw it, no longer and no higher than a line is."""
    top, left, bottom, right = place.box
    scale, most = place.scale, (HIGH, WIDE) if place.upright else (WIDE, HIGH)
    ends = []
    for first, last, limit, side in ((top, bottom, most[0], picture.shape[0]), (left, right, most[1], picture.shape[1])):
        excess = max(0, last - first - limit * scale) // 2
        ends.append(slice(max(0, first + excess - around * scale), min(side, last - excess + around * scale)))
    part = picture[tuple(ends)]
    rows, columns = part.shape[0] // scale, part.shape[1] // scale
    part = part[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale).mean((1, 3), dtype=np.float32)
    known = np.isfinite(part)
    return part if known.all() else np.where(known, part, part[known].min() if known.any() else 0).astype(np.float32)


def _shown(picture: Grey, place: Place, around: int) -> list[NDArray[np.uint8]]:
    """What the recogniser is given, RGB ``[H, W, 3]``: a line as it is, a column turned either way."""
    from PIL import Image

    part = part_of(picture, place, around)
    low, high = np.quantile(part, [0.01, 0.998])
    grey = np.asarray(((part - low) / max(float(high - low), 1e-9)).clip(0, 1) * 255, np.float32)
    size = (part.shape[1] * ENLARGED, part.shape[0] * ENLARGED)
    large = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)).clip(0, 255).astype(np.uint8)
    return [np.repeat(np.rot90(large, turns)[..., None], 3, axis=2) for turns in ((0,) if place.upright else (1, 3))]


def _letters(found: list[str]) -> int:
    return sum(character.isalnum() for text in found for character in text)


def _plain(found: list[str]) -> str:
    """Letters and digits alone; a nought among them is an O."""
    plain = (unicodedata.normalize("NFKC", text).upper() for text in found)
    return "".join(character for text in plain for character in text if character.isalnum()).replace("0", "O")


def _marker(found: list[str]) -> bool:
    """Whether nothing but side and view markers was read."""
    words = [_plain([word]) for text in found for word in re.split(r"[\W_]+", text) if word]
    return bool(words) and all(word in MARKERS for word in words)


@functools.cache
def recogniser() -> Callable[[NDArray[np.uint8], bool], list[str]] | None:
    """What is surely read in an RGB picture ``[H, W, 3]``: as one line, or in each of the lines that a detector of its own sees in it.

    None where it is not installed, or comes without its models.
    """
    try:
        import rapidocr
        from rapidocr import RapidOCR

        folder = Path(str(rapidocr.__file__)).parent / "models"
        models = {name: str(next(folder.glob(f"*_{name.lower()}_*.onnx"))) for name in ("Det", "Rec")}
    except (ImportError, StopIteration):
        return None
    threads = dict.fromkeys((f"EngineConfig.onnxruntime.{kind}_op_num_threads" for kind in ("intra", "inter")), 1)
    paths = {f"{name}.model_path": path for name, path in models.items()}
    # The picture is enlarged already.
    sizes = {"Det.limit_type": "min", "Det.limit_side_len": 64}
    engine = RapidOCR(params={"Global.log_level": "critical", "Global.use_cls": False, **threads, **paths, **sizes})

    def recognise(picture: NDArray[np.uint8], lines: bool) -> list[str]:
        found: Any = engine(picture, use_det=lines, use_cls=False, use_rec=True)
        return [text for text, score in zip(found.txts or (), found.scores or ()) if score >= SURE]

    return recognise

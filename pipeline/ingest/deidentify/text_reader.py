"""Reading what the text detector points at: RapidOCR's recogniser (PP-OCR, whose models its wheel carries), loaded at the first such place.

It is strong where the letters stand out, and blind where they do not, so a "no" counts only there (:func:`legible`), a "yes" always.
Nothing is ever downloaded, and what was read leaves this module only as :class:`Reading`, never as words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.deidentify.allow_list import MARKERS
from pipeline.ingest.deidentify.text_detector import Grey, Place

# The recogniser's confidence from which it has read something: of 100 drawn pictures without text none reached it.
SURE = 0.5
LETTERS = 3
ENLARGED = 3
AROUND = 8
WIDE, HIGH = 400, 64


class Reading(Enum):
    """What a place reads as."""

    TEXT = "three letters or digits, or more"
    MARKER = "a side or view marker alone"
    NOTHING = "nothing"
    UNKNOWN = "no recogniser is installed, or it failed"


def read(picture: Grey, place: Place) -> Reading:
    """What a place of ``[H, W]`` reads as, enlarged three times and stretched between percentiles 1 and 99.8; columns are read turned."""
    recognise = recogniser()
    if recognise is None:
        return Reading.UNKNOWN
    try:
        found = _words(recognise, picture, place, AROUND)
        if _letters(found) < LETTERS:
            return Reading.NOTHING
        # A marker's surroundings are read too: it may be the end of a name.
        if _marker(found) and _marker(_words(recognise, picture, place, 3 * AROUND)):
            return Reading.MARKER
    except Exception:
        return Reading.UNKNOWN
    return Reading.TEXT


def legible(picture: Grey, place: Place, span: float) -> bool:
    """Whether letters in a place would stand out so that the recogniser reads them: then its silence says that there are none.

    ``span`` is the range of the whole picture's values. Of 48 lines of 12 px and higher with a contrast of .2 or more it read every one, of
    16 lines of 10 px all at .4 and 12 at .2.
    """
    from scipy.ndimage import gaussian_filter

    part = _part(picture, place, AROUND)
    strokes = part - gaussian_filter(part, 4, mode="nearest")
    low, high = np.quantile(strokes, [0.02, 0.98])
    return bool(high - low >= LEGIBLE * span)


# Range of the fine structure in a place, as a share of the picture's, from which letters of that contrast are always read.
LEGIBLE = 0.3


def _words(recognise: Callable[[NDArray[np.uint8]], list[tuple[str, float]]], picture: Grey, place: Place, around: int) -> list[str]:
    """What is read in a place, in the direction in which most is read."""
    part = _part(picture, place, around)
    best: list[str] = []
    for turns in (0,) if place.upright else (1, 3):
        found = [text for text, score in recognise(_shown(np.rot90(part, turns))) if score >= SURE]
        best = max(best, found, key=_letters)
    return best


def _part(picture: Grey, place: Place, around: int) -> Grey:
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


def _shown(part: Grey) -> NDArray[np.uint8]:
    from PIL import Image

    low, high = np.quantile(part, [0.01, 0.998])
    grey = ((part - low) / max(float(high - low), 1e-9)).clip(0, 1) * 255
    large = Image.fromarray(np.ascontiguousarray(grey, np.float32)).resize(
        (part.shape[1] * ENLARGED, part.shape[0] * ENLARGED), Image.Resampling.BICUBIC
    )
    return np.repeat(np.asarray(large).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _letters(found: list[str]) -> int:
    return sum(character.isalnum() for text in found for character in text)


def _marker(found: list[str]) -> bool:
    """Whether nothing but side and view markers was read; a nought among letters is an O."""
    words = [word for text in found for word in re.split(r"[\W_]+", text.upper()) if word]
    return bool(words) and all(word in MARKERS or word.replace("0", "O") in MARKERS for word in words)


@functools.cache
def recogniser() -> Callable[[NDArray[np.uint8]], list[tuple[str, float]]] | None:
    """Lines of text and confidences of an RGB picture ``[H, W, 3]``, as one line and where a detector of its own sees lines; None where it
    is not installed."""
    try:
        import rapidocr
        from rapidocr import RapidOCR

        folder = Path(str(rapidocr.__file__)).parent / "models"
        models = {name: str(next(folder.glob(f"*_{name.lower()}_*.onnx"))) for name in ("Det", "Rec")}
        engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Det.limit_type": "min",
                "Det.limit_side_len": 64,  # not enlarged once more
                **{f"{name}.model_path": path for name, path in models.items()},
            }
        )
    except Exception:  # not installed, or without its models
        return None

    def recognise(picture: NDArray[np.uint8]) -> list[tuple[str, float]]:
        whole = _results(engine(picture, use_det=False, use_cls=False, use_rec=True))
        if _letters([text for text, score in whole if score >= SURE]) >= LETTERS and picture.shape[0] <= ENLARGED * 40:
            return whole
        return whole + _results(engine(picture, use_det=True, use_cls=False, use_rec=True))

    return recognise


def _results(found: Any) -> list[tuple[str, float]]:
    return [(text, float(score)) for text, score in zip(found.txts or (), found.scores or ())]

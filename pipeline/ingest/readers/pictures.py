"""PNG, JPEG and TIFF pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError

from pipeline.ingest.intensity import percentiles
from pipeline.ingest.readers.header import Header, of_file
from pipeline.ingest.readers.reading import Quarantined, Reading, Refuse, Unusable, nothing

FORMATS = ("PNG", "JPEG", "TIFF")
MAX_PIXELS = 64 << 20
# Modes with more than 8 bits.
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")


def read(
    paths: Sequence[Path], refuse: Refuse = nothing, modality: str | None = None, root: Path | None = None
) -> Iterator[Reading | Quarantined]:
    """The pictures of one file, of which a TIFF and an animated PNG have several; raises nothing but MemoryError.

    Their pixels have no size in mm: a resolution in dots per inch is that of paper. Transparency is laid over black.

    Args:
        paths: one file.
        refuse: asked with the header, before anything is decoded, why the picture is not wanted.
        modality: what the file does not say.
        root: the folder to which paths are relative.
    """
    try:
        header = of_file(paths[0], root, modality)
        with Image.open(paths[0], formats=FORMATS) as picture:
            if (why := refuse(header)) is not None:
                raise Unusable(why)
            frames = getattr(picture, "n_frames", 1) if picture.format in ("TIFF", "PNG") else 1
            for number in range(frames):
                picture.seek(number)
                if picture.width * picture.height > MAX_PIXELS:
                    raise Unusable(f"declares more than {MAX_PIXELS >> 20} million pixels")
                yield _reading(picture, header, number if frames > 1 else None)
    except Unusable as error:
        yield Quarantined(str(error))
    except (UnidentifiedImageError, DecompressionBombError):
        yield Quarantined("not a PNG, JPEG or TIFF picture of a usable size")
    except MemoryError:
        raise
    except (PermissionError, FileNotFoundError):
        yield Quarantined("cannot be opened: mend its permissions")
    except Exception as error:
        # Pillow says of a file that ends early that it is truncated, or has unread bytes; its other messages may quote the file.
        short = isinstance(error, EOFError) or "truncated" in str(error)
        yield Quarantined(
            "cut short: the file ends before its last pixel; copy or export it again"
            if short
            else f"damaged ({type(error).__name__}): export it again"
        )


def _reading(picture: Image.Image, header: Header, number: int | None) -> Reading:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in DEEP:
        values: NDArray[Any] = np.asarray(upright, np.float32)[None]
        if not np.isfinite(values).all():
            raise Unusable("holds values that are not finite")
        # The values' own range: how many of its bits such a file uses, it does not say.
        return Reading(values, *percentiles(values), True, None, 1.0, None, header, "image", number)
    if upright.mode in ("1", "L"):
        values = np.asarray(upright.convert("L"), np.float32)[None]
    else:
        black = Image.new("RGBA", upright.size, "black")
        opaque = Image.alpha_composite(black, upright.convert("RGBA")).convert("RGB")
        values = np.asarray(opaque, np.float32).transpose(2, 0, 1)
        if (values[0] == values[1]).all() and (values[1] == values[2]).all():
            values = values[:1]  # grey, saved as colour
    return Reading(np.ascontiguousarray(values), 0.0, 255.0, True, None, 1.0, None, header, "image", number)

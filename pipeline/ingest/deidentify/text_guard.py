"""Text burned into pixels: what the header says, what kind of image it is, and a search of the pixels themselves.

A header cannot be trusted to tell: Burned In Annotation is optional and often wrong. So three rules stand one after the other, and each
quarantines by itself: the file declares text, or a screen; it is of a kind that nearly always has text, and does not deny it; or a small
convolutional network finds a line of it. ``tests/benchmarks/text_guard.py`` measures the network, ``fit_text_detector.py`` beside it made
its weights from drawn text.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.readers.header import Header

WEIGHTS = Path(__file__).with_name("text_detector.safetensors")
STRIDE = 8
# Side of the blocks in which mean and contrast are evened out.
BLOCK = 8
# Contrast, as a share of the image's range, below which differences are noise and are not amplified further.
FLOOR = 0.02
# Deviations beyond which a pixel tells nothing more.
LIMIT = 6.0
# The network's logit over three neighbouring cells from which they count as text. It quarantines 4 of 606 real images without text; at 4.3
# it would be 1, and text of 10 px and contrast .1 would be found in 74 % rather than 88 % (benchmarks/text_guard.py).
THRESHOLD = 2.5
# The network sees letters 8 to 26 px high; each halving of the image doubles that.
SCALES = 4
LEAST_SIDE = 24
# Planes of a volume that are searched, beside their mean, in which an overlay stands out.
PLANES = 32
BAND = 32

Policy = Literal["strict", "search", "declared"]
Grey = NDArray[np.float32]

# Image Type values (PS3.3 C.7.6.1.1.2 leaves value 3 and on to the makers) of screens, reports and protocols.
SCREENS = ("SCREEN", "SAVE", "CAPTURE", "REPORT", "PROT", "DOSE_INFO", "SUMMARY", "FORM", "POSDISP")
# Conversion Type, PS3.3 C.8.6.1: digitised video, film and paper, workstation screens, drawings.
CONVERSIONS = {"DV": "digitised video", "DF": "a digitised film", "SD": "a scanned document", "SI": "a scanned image"} | {
    "WSD": "a workstation's screen",
    "DRW": "a drawing",
}
KINDS = {"US": "ultrasound", "IVUS": "ultrasound", "BDUS": "ultrasound", "ES": "endoscopy", "XC": "a photograph", "GM": "a photograph"} | {
    "OT": "of modality OT",
    "SC": "a secondary capture",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Makers of film digitisers and frame grabbers: what they give shows the film's name plate or the screen's banner.
DIGITISERS = ("VIDAR", "LUMISYS", "HOWTEK", "ARRAY CORP", "FOVIA", "PACSGEAR", "IMAGE STREAM", "FILM DIGITIZER")


def refuse(header: Header, pixels: NDArray[Any], policy: Policy = "strict") -> str | None:
    """Why an image must be left out for text in its pixels, in words that hold nothing of its content; None where nothing speaks for it.

    Args:
        header: absent facts are taken as not said.
        pixels: ``[C, H, W]``, or ``[C, D, H, W]`` for a volume, C 1 or 3, in any unit, not windowed: text may lie outside a window.
        policy: ``strict`` applies all rules; ``search`` lets the pixels decide on kinds that often have text; ``declared`` does not search.
    """
    return refuse_header(header, policy) or refuse_pixels(pixels, policy)


def refuse_header(header: Header, policy: Policy = "strict") -> str | None:
    """The part of :func:`refuse` that needs no pixels."""
    return declared(header) or (suspicious(header) if policy == "strict" else None)


def refuse_pixels(pixels: NDArray[Any], policy: Policy = "strict") -> str | None:
    """The part of :func:`refuse` that searches the pixels."""
    if policy != "declared" and any(text_score(plane) >= THRESHOLD for plane in planes(pixels)):
        return "text was found in the pixels: blank it, or look at the image and set ingest.burned_in to declared if it holds none"
    return None


def declared(header: Header) -> str | None:
    """The reason, where a header declares text or recognisable features in the pixels, or that they are those of a screen."""
    if "YES" in (header.origin.burned_in_annotation, header.origin.recognizable_visual_features):
        return "the header declares burned-in annotation or recognisable features: clean the pixels and the flag"
    if any(word in value for value in header.origin.image_type for word in SCREENS):
        return "its Image Type is that of a screen, a report or a protocol, which show the patient's name"
    return None


def suspicious(header: Header) -> str | None:
    """The reason, where an image is of a kind that nearly always has text in its pixels and its header does not deny it."""
    origin = header.origin
    if origin.burned_in_annotation == "NO":
        return None
    kind = KINDS.get(header.modality.upper()) or CONVERSIONS.get(origin.conversion_type)
    if header.sop_class_uid.startswith(SECONDARY_CAPTURE) or origin.capture_device:
        kind = kind or "a secondary capture"
    if any(name in origin.manufacturer for name in DIGITISERS):
        kind = kind or "a digitised film"
    if kind is None:
        return None
    return (
        f"{kind}, which often has text in its pixels, and the header does not deny it: check the images and set Burned In "
        "Annotation to NO, or let the search alone decide (ingest.burned_in: search)"
    )


def planes(pixels: NDArray[Any]) -> list[Grey]:
    """What is searched of an image ``[C, H, W]`` or a volume ``[C, D, H, W]``: ``float32 [H, W]`` each, in the image's unit."""
    grey = np.asarray(pixels[0] if len(pixels) == 1 else np.tensordot(_LUMINANCE, pixels[:3], 1), np.float32)
    if grey.ndim == 2:
        return [grey]
    chosen = np.unique(np.linspace(0, len(grey) - 1, min(PLANES, len(grey))).round().astype(int))
    return [*grey[chosen], grey.mean(0, dtype=np.float32)]


_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def text_score(picture: Grey) -> float:
    """How sure the network is of the most text-like place of ``[H, W]``, a logit; it is text from :data:`THRESHOLD` on.

    Lines of three letters or more are looked for, upright and turned, with letters of 8 px and higher, at every scale. A place is three
    neighbouring cells of 8 px in a row or a column, of which the weakest counts.
    """
    known = np.isfinite(picture)
    if not known.all():  # padding
        picture = np.where(known, picture, picture[known].min() if known.any() else 0).astype(np.float32)
    sample = picture[:: max(1, len(picture) // 256), :: max(1, picture.shape[1] // 256)]
    span = float(np.subtract(*np.quantile(sample, [0.995, 0.005])))
    # Little text on an empty picture is less than the share that the quantiles leave out.
    span = max(span, 0.1 * float(picture.max() - picture.min()))
    best = -np.inf
    for _ in range(SCALES):
        if span <= 0 or min(picture.shape) < LEAST_SIDE:
            break
        best = max(best, _strongest(text_map(picture, span)))
        rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        even = picture[:rows, :columns]
        picture = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) * np.float32(0.25)
    return best


def text_map(picture: Grey, span: float) -> Grey:
    """The network's logit for every cell of 8x8 pixels, ``[ceil(H/8), ceil(W/8)]``; ``span`` is the range of the whole image's values."""
    rows, columns = (-(-side // BLOCK) * BLOCK for side in picture.shape)
    padded = np.pad(picture, ((0, rows - picture.shape[0]), (0, columns - picture.shape[1])), mode="edge")
    # The first layer, 8x8 with stride 4, as 2x2 over blocks of 4x4.
    blocks = np.pad(normalize(padded, span), 2).reshape(rows // 4 + 1, 4, columns // 4 + 1, 4).transpose(0, 2, 1, 3)
    values: Grey = np.ascontiguousarray(blocks).reshape(rows // 4 + 1, columns // 4 + 1, 16)
    layers = _layers()
    for number, (kernel, bias, side, stride) in enumerate(layers):
        if side == 3:
            values = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        values = _convolve(values, kernel, side, stride)
        values += bias
        if number + 1 < len(layers):
            np.maximum(values, 0, out=values)
    return values[..., 0]


def _strongest(cells: Grey) -> float:
    """The largest value that three neighbours in a row or in a column all reach."""
    found = [-np.inf]
    for turned in (cells, cells.T):
        if turned.shape[1] >= 3:
            found.append(float(np.minimum(np.minimum(turned[:, :-2], turned[:, 1:-1]), turned[:, 2:]).max()))
    return max(found)


def normalize(pixels: Grey, span: float) -> Grey:
    """Local mean removed, local contrast evened out: ``float32 [H, W]``, both sides multiples of :data:`BLOCK`.

    ``span`` is the range of the whole image, in its unit: with it, the result does not depend on the unit.
    """
    mean, square = (_box(_block_means(values)) for values in (pixels, np.square(pixels)))
    deviation = np.sqrt(np.maximum(square - mean**2, 0)) + np.float32(FLOOR * span)
    even = pixels - _enlarged(mean)
    even /= _enlarged(deviation)
    np.clip(even, -LIMIT, LIMIT, out=even)
    return even


def _block_means(pixels: Grey) -> Grey:
    rows = pixels.reshape(-1, BLOCK, pixels.shape[1])
    total = rows[:, 0].copy()
    for number in range(1, BLOCK):
        total += rows[:, number]
    return np.asarray(total.reshape(len(rows), -1, BLOCK).sum(axis=2) / np.float32(BLOCK**2), np.float32)


def _enlarged(blocks: Grey) -> Grey:
    """Bilinear, by :data:`BLOCK` in both directions, the border repeated: two small products, a sixth of Pillow's time."""
    offset = (np.arange(BLOCK) + 0.5) / BLOCK - 0.5
    weights = np.stack([np.maximum(-offset, 0), 1 - np.abs(offset), np.maximum(offset, 0)]).astype(np.float32)
    padded = np.pad(blocks, 1, mode="edge")
    rows = np.tensordot(np.stack([padded[:-2], padded[1:-1], padded[2:]], axis=-1), weights, 1)
    rows = np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(len(blocks) * BLOCK, -1)
    neighbours = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(rows, 3, 1))
    return np.asarray((neighbours.reshape(-1, 3) @ weights).reshape(len(rows), -1), np.float32)


def _box(blocks: Grey) -> Grey:
    """Mean over 3x3, with the border repeated."""
    padded = np.pad(blocks, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9), np.float32)


def _convolve(values: Grey, kernel: Grey, side: int, stride: int) -> Grey:
    """``[H, W, C]`` with ``[side * side * C, K]``, no padding, in bands of rows that stay in the cache."""
    height, width, channels = values.shape
    rows, columns = (height - side) // stride + 1, (width - side) // stride + 1
    result = np.empty((rows, columns, kernel.shape[1]), np.float32)
    for start in range(0, rows, BAND):
        count = min(BAND, rows - start)
        patches = np.empty((count, columns, side * side, channels), np.float32)
        for tap in range(side * side):
            top, left = start * stride + tap // side, tap % side
            patches[:, :, tap] = values[top : top + (count - 1) * stride + 1 : stride, left : left + (columns - 1) * stride + 1 : stride]
        result[start : start + count] = (patches.reshape(count * columns, -1) @ kernel).reshape(count, columns, -1)
    return result


@functools.cache
def _layers() -> list[tuple[Grey, Grey, int, int]]:
    """Kernel ``[side * side * C, K]``, bias ``[K]``, side and stride of every layer."""
    from safetensors.numpy import load_file

    arrays = load_file(WEIGHTS)
    layers: list[tuple[Grey, Grey, int, int]] = []
    for name in sorted((name for name in arrays if name.endswith("weight")), key=lambda name: int(name.split(".")[0])):
        weight = arrays[name]
        if weight.shape[-1] == 8:
            weight = weight.reshape(len(weight), 2, 4, 2, 4).transpose(0, 2, 4, 1, 3).reshape(len(weight), 16, 2, 2)
        kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))
        layers.append((kernel, arrays[name.replace("weight", "bias")], weight.shape[-1], 2 if len(layers) == 1 else 1))
    return layers

"""Text burned into pixels: what the header says, what kind of image it is, and a search of the pixels themselves.

A header cannot be trusted to tell: Burned In Annotation is optional and often wrong. So three rules stand one after the other, and each
quarantines by itself: the file declares text, or a screen; it is of a kind that nearly always has text, and does not deny it; or a small
convolutional network finds a line of it. ``tests/benchmarks/text_guard.py`` measures the network, ``fit_text_detector.py`` beside it made
its weights from drawn text.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.deidentify.look_alike import is_noise, is_ruler
from pipeline.ingest.deidentify.text_detector import Place, places, value_range
from pipeline.ingest.deidentify.text_reader import HIGH, WIDE, Reading, legible, read
from pipeline.ingest.deidentify.text_screen import Grey
from pipeline.ingest.readers.header import Header

# The detector's score from which a place counts as text.
THRESHOLD = 2.0
# The score from which a place is read, and quarantined where it holds words; and from which it is text even where nothing is read, as other
# scripts and hand-writing are.
ASK, CERTAIN = 0.5, 4.0
# More such places than this are not read one by one: an image so full of what looks like text is left out.
MOST = 12
# So many places are tried as the whole of what another shows a piece of.
PIECES = 4
# Planes of a volume that are searched, beside their mean, in which an overlay stands out.
PLANES = 32

Policy = Literal["strict", "search", "declared"]

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


def refuse_header(header: Header, policy: Policy = "strict") -> str | None:
    """Why a header says that an image must be left out for text in its pixels; None where nothing speaks for it.

    Args:
        header: absent facts are taken as not said.
        policy: ``strict`` applies all rules; ``search`` lets the pixels decide on kinds that often have text; ``declared`` keeps these.
    """
    return declared(header) or (suspicious(header) if policy == "strict" else None)


def refuse_pixels(pixels: NDArray[Any], policy: Policy = "strict") -> str | None:
    """Why pixels say that an image must be left out for text in them, in words that hold nothing of its content; None where nothing speaks
    for it.

    Args:
        pixels: ``[C, H, W]``, or ``[C, D, H, W]`` for a volume, C 1 or 3, in any unit, not windowed: text may lie outside a window.
        policy: ``declared`` does not search.
    """
    if policy != "declared" and any(map(has_text, planes(pixels))):
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
    # Of ultrasound whose scan is known, all else is cut off before the pixels are searched.
    kind = None if origin.scan is not None else KINDS.get(header.modality.upper())
    kind = kind or CONVERSIONS.get(origin.conversion_type)
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


def has_text(picture: Grey) -> bool:
    """Whether ``[H, W]`` has writing: what the detector finds, as a recogniser reads it.

    Words that are read quarantine; side and view markers alone do not (``allow_list.MARKERS``). Where nothing is read, or strokes alone,
    the detector decides, but for rulers, noise, and places of which letters would be read. Without a recogniser the detector decides.
    """
    found = places(picture, ASK)
    if sum(place.score >= THRESHOLD for place in found) > MOST:
        return True
    markers: list[Place] = []
    for place in found[: 2 * MOST]:
        if any(_shared(place, marker) >= 0.5 and _is_marker(picture, place, marker) for marker in markers):
            continue
        reading = read(picture, place)
        if reading == Reading.MARKER:
            markers.append(place)
        elif reading == Reading.TEXT or _may_be_text(picture, place, reading):
            # The detector may have seen a piece of a marker, and the whole of it at another scale.
            wholes = [other for other in found if other is not place and _shared(place, other) >= 0.5][:PIECES]
            if not any(_is_marker(picture, place, whole) for whole in wholes):
                return True
    return False


def _may_be_text(picture: Grey, place: Place, reading: Reading) -> bool:
    """Whether a place that does not read as words may hold some all the same."""
    if place.score < THRESHOLD or reading == Reading.UNKNOWN:
        return place.score >= THRESHOLD
    span = value_range(picture)
    heard = reading == Reading.NOTHING and place.score < CERTAIN and legible(picture, place, span)
    return not (heard or is_noise(picture, place) or is_ruler(picture, place, span))


def _shared(place: Place, other: Place) -> float:
    """Share of a place that another covers."""
    (top, left, bottom, right), (first, start, last, end) = place.box, other.box
    return max(0, min(bottom, last) - max(top, first)) * max(0, min(right, end) - max(left, start)) / ((bottom - top) * (right - left))


def _is_marker(picture: Grey, place: Place, marker: Place) -> bool:
    """Whether the box around a place and a marker still reads as a marker alone, at the scale of either."""
    corners = zip(place.box, marker.box)
    (top, left, bottom, right) = (choose(pair) for choose, pair in zip((min, min, max, max), corners))
    scales = sorted({scale for scale in (place.scale, marker.scale) if bottom - top <= HIGH * scale and right - left <= WIDE * scale})
    around = (Place(place.score, (top, left, bottom, right), scale, marker.upright) for scale in scales)
    return any(read(picture, one) == Reading.MARKER for one in around)


_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

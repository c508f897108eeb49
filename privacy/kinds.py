"""What was done to planted copies, in words: the kinds of :mod:`privacy.power`, without what that imports."""

from __future__ import annotations

NAMES = {
    "identity": "unchanged",
    "flip": "mirrored",
    "shift": "moved",
    "intensity": "other brightness, contrast",
    "blur": "slightly blurred",
    "rot90": "turned by quarters",
    "crop": "cropped",
    "rotate": "turned by up to 15°",
    "gamma": "other gamma",
    "noise_weak": "weak noise",
    "noise_strong": "strong noise",
    "jpeg_50": "JPEG of quality 50",
    "jpeg_15": "JPEG of quality 15",
    "flip_shift": "mirrored and moved",
    "flip_intensity": "mirrored, other brightness",
    "crop_noise": "cropped, weak noise",
    "blur_1px": "blurred by a pixel",
    "down_up": "halved and enlarged again",
    "sharpened": "sharpened",
    "elastic": "warped",
    "bias_field": "uneven brightness",
    "clahe": "equalised contrast (CLAHE)",
    "occlusion": "a quarter covered",
    "inversion": "black for white",
    "zoom_80": "the middle enlarged",
    "turn_25": "turned by 25°",
    "blend": "blended with another",
    "splice": "half of another",
    "recoloured": "in other colours",
    "few_greys": "in four greys",
    "shrunk": "at half its size on black",
    "regenerated": "made anew from noise",
    "same_patient": "others of the same patient",
}
"""Name of each kind, short enough for the axis of a plot."""


def name(kind: str) -> str:
    """A kind, with its strength after a space where it has one (``regenerated 0.25``), in words."""
    known, _, strength = kind.partition(" ")
    words = NAMES.get(known, known.replace("_", " "))
    return f"{words} {strength}" if strength else words

"""How many pictures that circulate changed ingest's search for near-duplicates joins to what they are of, and how many patients it joins.

``python -m tests.benchmarks.moved_pictures --data breastmnist.npz pneumoniamnist.npz --size 64``: real pictures (each once, enlarged to 200
to 600 pixels) and phantom patients, a change of each kind of ``--changed`` of them, and what is joined among all that are not changed.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from evaluation.intervals import clopper_pearson
from pipeline.ingest.duplicates import near_duplicates
from pipeline.ingest.standardize import Target, standardize
from pipeline.phantom.image import phantom_arrays

Picture = NDArray[np.uint8]
Change = Callable[[Picture, np.random.Generator], Picture]


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture))


def _jpeg(picture: Picture, quality: int) -> Picture:
    stored = io.BytesIO()
    _image(picture).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored).convert("L"))


def _scaled(picture: Picture, rows: float, columns: float) -> Picture:
    height, width = picture.shape
    return np.asarray(_image(picture).resize((round(width * columns), round(height * rows)), Image.Resampling.BICUBIC))


def _turned(picture: Picture, degrees: float) -> Picture:
    return np.asarray(_image(picture).rotate(degrees, Image.Resampling.BICUBIC))


def _corner(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    lost, (top, left) = round(share * len(picture)), rng.integers(0, 2, 2)
    return picture[top * lost : len(picture) - (1 - top) * lost, left * lost : picture.shape[1] - (1 - left) * lost]


def _inside(picture: Picture, share: float) -> Picture:
    lost = round(share * len(picture))
    return picture[lost:-lost, lost:-lost]


def _shifted(picture: Picture, share: float, rng: np.random.Generator) -> Picture:
    angle = rng.uniform(0, 2 * np.pi)
    dx, dy = share * len(picture) * np.cos(angle), share * len(picture) * np.sin(angle)
    return np.asarray(_image(picture).transform(picture.shape[::-1], Image.Transform.AFFINE, (1, 0, dx, 0, 1, dy)))


def _framed(picture: Picture, share: float) -> Picture:
    framed, thick = picture.copy(), round(share * len(picture))
    framed[:thick], framed[-thick:], framed[:, :thick], framed[:, -thick:] = 255, 255, 255, 255
    return framed


def _augmented(picture: Picture, rng: np.random.Generator) -> Picture:
    mirrored = picture[:, ::-1] if rng.random() < 0.5 else picture
    moved = _shifted(_turned(mirrored, rng.choice([-7, 7])), 0.03, rng)
    return np.clip(moved * 1.1, 0, 255).astype(np.uint8)


KINDS: dict[str, Change] = {
    "same": lambda one, rng: one,
    "JPEG, quality 50": lambda one, rng: _jpeg(one, 50),
    "half the size": lambda one, rng: _scaled(one, 0.5, 0.5),
    "gamma 2": lambda one, rng: np.rint(255 * (one / 255) ** 2).astype(np.uint8),
    "equalised": lambda one, rng: np.asarray(ImageOps.equalize(_image(one))),
    "noise of 15 levels": lambda one, rng: np.clip(one + rng.normal(0, 15, one.shape), 0, 255).astype(np.uint8),
    "inverted": lambda one, rng: 255 - one,
    "mirrored": lambda one, rng: one[:, ::-1],
    "turned by 90 degrees": lambda one, rng: np.rot90(one),
    "turned by 2 degrees": lambda one, rng: _turned(one, 2),
    "turned by 5 degrees": lambda one, rng: _turned(one, 5),
    "turned by 15 degrees": lambda one, rng: _turned(one, 15),
    "shifted by 1 %": lambda one, rng: _shifted(one, 0.01, rng),
    "shifted by 4 %": lambda one, rng: _shifted(one, 0.04, rng),
    "2 % off a corner": lambda one, rng: _corner(one, 0.02, rng),
    "4 % off a corner": lambda one, rng: _corner(one, 0.04, rng),
    "8 % off a corner": lambda one, rng: _corner(one, 0.08, rng),
    "4 % off every side": lambda one, rng: _inside(one, 0.04),
    "8 % off every side": lambda one, rng: _inside(one, 0.08),
    "stretched by 10 %": lambda one, rng: _scaled(one, 0.9, 1),
    "stretched by 20 %": lambda one, rng: _scaled(one, 0.8, 1),
    "white frame of 2 %": lambda one, rng: _framed(one, 0.02),
    "white frame around, 4 %": lambda one, rng: np.pad(one, round(0.04 * len(one)), constant_values=255),
    "mirrored, turned, shifted, brighter": _augmented,
}


ALL_ALIKE: dict[str, Change] = {
    "white frame of 4 %": lambda one, rng: _framed(one, 0.04),
    "white frame around, 3 %": lambda one, rng: np.pad(one, round(0.03 * len(one)), constant_values=255),
    "black bars of 10 %": lambda one, rng: one[:, round(0.1 * len(one)) : -round(0.1 * len(one))],
}
"""What every picture of a collection may have alike: none is another one's repeat for that."""


def _standard(pictures: list[Picture], size: int) -> NDArray[np.uint8]:
    return np.stack([standardize(one[None].astype(np.float32), 0, 255, Target(size))[0] for one in pictures])


def _sources(paths: list[Path], patients: int, most: int, rng: np.random.Generator) -> dict[str, list[Picture]]:
    found = {}
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            images = np.concatenate([stored[f"{name}_images"] for name in ("train", "val", "test")])
        once = images[near_duplicates(images[:, None]) < 0]
        found[path.stem] = [_scaled(one, *[rng.integers(200, 601) / len(one)] * 2) for one in rng.permutation(once)[:most]]
    images, _, who = phantom_arrays(patients, 0, 128)
    found["phantoms"] = [images[place, 0] for place in np.unique(who, return_index=True)[1]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--most", type=int, default=400, help="pictures of each set")
    parser.add_argument("--changed", type=int, default=50)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for name, pictures in _sources(arguments.data, arguments.patients, arguments.most, rng).items():
        base, began = _standard(pictures, arguments.size), time.perf_counter()
        joined = near_duplicates(base)
        print(name, json.dumps({"n": len(base), "joined": int((joined >= 0).sum()), "seconds": round(time.perf_counter() - began, 1)}))
        for kind, change in ALL_ALIKE.items():
            joined = near_duplicates(_standard([change(one, rng) for one in pictures], arguments.size))
            largest = int(np.bincount(joined[joined >= 0], minlength=1).max())
            print(name, json.dumps({"all": kind, "joined": int((joined >= 0).sum()), "largest": largest}), flush=True)
        few = pictures[: arguments.changed]
        changed = [_standard([change(one, rng) for one in few], arguments.size) for change in KINDS.values()]
        for kind, images in zip(KINDS, changed):
            found = near_duplicates(np.concatenate([base, images]))
            hits = int(((found[: len(few)] == found[len(base) :]) & (found[len(base) :] >= 0)).sum())
            interval = clopper_pearson(hits, len(few))
            row = {"kind": kind, "found": hits, "of": len(few), "low": round(interval.low, 3), "high": round(interval.high, 3)}
            print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

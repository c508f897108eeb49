"""The review stage: what a person looks at before images leave, on one page for local eyes.

It shows patients, so that it is private and never released. What no attack measures is left to the eye: text and markers in the pixels, an
implant or a scar that tells who somebody is, a pair that is one patient although its distance is not small.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import runtime
from pipeline.artifacts import damage, read_object
from pipeline.audit import PAIRS
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet, unit_of
from pipeline.release.cards import html_template
from pipeline.stress import FAILURES

PAGE = "review.html"
MOST = 24
"""Twins that are shown, at the most."""


@dataclass(frozen=True)
class Pair:
    """A synthetic image beside the training image that it is nearest to, as base64 of PNG files.

    Attributes:
        distance: 1 − aligned NCC.
        p: the probability of one so near by chance.
        flagged: whether the audit calls it a copy.
        undecided: whether it may be one, as far as the audit can tell.
    """

    synthetic: str
    training: str
    distance: float
    p: float
    flagged: bool
    undecided: bool


@dataclass(frozen=True)
class Failure:
    """A test image, as base64 of a PNG file, that the classifiers called something else than its class."""

    image: str
    called: str
    probability: float


def run(ctx: Context) -> dict[str, Any]:
    """Write ``review.html``; return how much it shows.

    Raises:
        InputError: a result that it shows is damaged.
    """
    real, made = ImageSet.load(ctx.folder("ingest")), ImageSet.load(ctx.folder("generate"))
    pairs, twins = _pairs(_rows(ctx, "audit", PAIRS), made, real), _rows(ctx, "audit", PAIRS, "twins")
    failures = _failures(_rows(ctx, "stress", FAILURES), real) if "stress" in ctx.records else {}
    exposed = ctx.folder("shadows") / "exposed.png" if "shadows" in ctx.records else None
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "review"))
    page = html_template("review.html.j2").render(
        name=ctx.config.name,
        unit=unit_of(ctx.folder("ingest")),
        pairs=pairs,
        flagged=sum(pair.flagged for pair in pairs),
        undecided=sum(pair.undecided for pair in pairs),
        twins=_twins(twins[:MOST], real),
        all_twins=len(twins),
        classes=_side_by_side(real.split("audit"), made, ctx.config.review.images, rng),
        exposed=None if exposed is None else base64.b64encode(exposed.read_bytes()).decode(),
        judged="stress" in ctx.records,
        failures=failures,
    )
    (ctx.out / PAGE).write_text(page, encoding="utf-8")
    return {"pairs": len(pairs), "failures": sum(map(len, failures.values()))}


def _rows(ctx: Context, stage: str, name: str, key: str | None = None) -> Sequence[Mapping[str, Any]]:
    """A list in a stage's file, which is named as the file is, where not otherwise."""
    rows = read_object(ctx.folder(stage) / name).get(key or name.removesuffix(".json"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(damage(stage, name))
    return rows


def _pairs(rows: Sequence[Mapping[str, Any]], made: ImageSet, real: ImageSet) -> list[Pair]:
    sides = _numbers(made), _numbers(real)
    try:
        return [
            Pair(
                png(made.images[sides[0][row["synthetic"]]]),
                png(real.images[sides[1][row["training"]]]),
                float(row["distance"]),
                float(row["p"]),
                bool(row["flagged"]),
                bool(row["undecided"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError):
        raise InputError(damage("audit", PAIRS)) from None


def _twins(rows: Sequence[Mapping[str, Any]], real: ImageSet) -> list[tuple[str, str]]:
    """Sealed images and the real ones that are as near to them as a copy is."""
    number = _numbers(real)
    try:
        return [(png(real.images[number[row["sealed"]]]), png(real.images[number[row["real"]]])) for row in rows]
    except (KeyError, TypeError, ValueError):
        raise InputError(damage("audit", PAIRS)) from None


def _failures(rows: Sequence[Mapping[str, Any]], real: ImageSet) -> dict[str, list[Failure]]:
    """By class."""
    number, found = _numbers(real), dict[str, list[Failure]]()
    try:
        for row in rows:
            one = Failure(png(real.images[number[row["image"]]]), str(row["called"]), float(row["probability"]))
            found.setdefault(str(row["class"]), []).append(one)
    except (KeyError, TypeError, ValueError):
        raise InputError(damage("stress", FAILURES)) from None
    return found


def _numbers(images: ImageSet) -> dict[str, int]:
    """The place of every image by its id."""
    return {str(name): place for place, name in enumerate(images.rows["id"])}


def _side_by_side(sealed: ImageSet, made: ImageSet, most: int, rng: np.random.Generator) -> dict[str, tuple[list[str], list[str]]]:
    """Sealed and synthetic images of each class, drawn at random: the typical, not the best. A set without classes is one of them."""
    classes = made.classes or ("all",)
    found = {}
    for index, name in enumerate(classes):
        sides = []
        for images in (sealed, made):
            rows = np.flatnonzero(images.findings[:, index] == 1) if made.classes else np.arange(len(images))
            sides.append([png(images.images[row]) for row in rng.permutation(rows)[:most]])
        found[name] = (sides[0], sides[1])
    return found


def png(image: NDArray[np.uint8]) -> str:
    """A ``uint8 [C, H, W]`` image as base64 of a PNG file, without the text that calls a released one synthetic."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()

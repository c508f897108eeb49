"""A short commented configuration for data that somebody has just looked at, with the recipe of this machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import outlook
from pipeline.config import Config, config_of
from pipeline.config.load import parse, written
from pipeline.diffusion import grid
from pipeline.ingest.look import Found
from pipeline.outlook import Outlook
from pipeline.release.results import counted
from privacy import bounds, limits

SHARES: tuple[dict[str, float], ...] = (
    {},
    {"val_share": 0.12, "test_share": 0.13},
    {"audit_share": 0.5, "val_share": 0.1, "test_share": 0.1},
)
"""Shares of the splits: the first of them that seals enough patients is written, the usual ones where none does."""
SPARE = 1.05
"""How many more than the gate asks for are planned: a few images are left out, and a few synthetic ones repeat others."""
SIZES = {"cpu": 32, "cuda": 64}
GUIDED = (("guidance_scale", "3.0", "findings are followed the more closely"), ("guidance_interval", "[0.1, 30.0]", ""))
"""How images that can have several findings are sampled, as the shipped configurations of such sets have it."""


@dataclass(frozen=True)
class First:
    """A configuration to begin with.

    Attributes:
        text: the YAML file.
        config: what it says.
        outlook: what the gate will need, and whether the cohort can pass.
    """

    text: str
    config: Config
    outlook: Outlook


def first(found: Found, where: str) -> First:
    """The configuration for what was found, for a machine that computes ``where`` (``cuda`` or ``cpu``).

    Raises:
        InputError: a class cannot be called as its folder or label is.
    """
    for shares in SHARES:
        text = _text(found, where, shares)
        config = config_of(parse(text, "the configuration"), (), str(found.path))
        ahead = expected(found, config)
        if ahead.sealed is not None and ahead.sealed >= SPARE * limits.MIN_HOLDOUT:
            return First(text, config, ahead)
    text = _text(found, where, {})
    config = config_of(parse(text, "the configuration"), (), str(found.path))
    return First(text, config, expected(found, config))


def expected(found: Found, config: Config) -> Outlook:
    """The outlook of a cohort that was looked at."""
    if found.patients is not None:
        return outlook.expected(config, "patient", found.patients, found.people)
    return outlook.expected(config, "image", found.labelled, found.images, found.train)


def recipe(size: int, where: str) -> Mapping[str, str]:
    """Settings of ``train`` for images of this side on this kind of machine, as YAML; training fits the rest to the cohort."""
    if where == "cpu":
        return {"images": "auto", "batch": "64", "blocks": "1", "attention": "[]", "upsample": "shuffle"}
    coarsest = grid.sides(size, 2, grid.levels(size, 2))[-1]
    return {"images": "auto", "batch": "128", "blocks": "2", "attention": f"[{coarsest}]", "compile": "true"}


def _text(found: Found, where: str, shares: Mapping[str, float]) -> str:
    size = _size(found, where)
    each = math.ceil(SPARE * bounds.enough_images(limits.MIN_RECALL, limits.MAX_COPY_RATE, outlook.ERROR) / len(found.images) / 10) * 10
    machine = "a GPU" if where == "cuda" else "a CPU; on a machine with a GPU, init writes a larger network"
    lines = [
        f"# Written by synthcohort init for {_count(found)}.",
        "# Every key that may be added: synthcohort settings",
        f"name: {written(_name(found))}",
        "seed: 0",
        "",
        "ingest:",
        *_aligned(_ingest(found, size, shares)),
        "",
        f"train:                     # for {machine}",
        *_aligned([(key, value, "") for key, value in recipe(size, where).items()]),
        "",
        "generate:",
        *_aligned([("per_class", str(each), "as many distinct images as bound the share of copies"), *(GUIDED if found.several else ())]),
        "",
        "release:",
        *_aligned([("title", "Synthetic cohort", ""), ("licence", "unspecified", "an SPDX identifier, such as CC0-1.0")]),
    ]
    return "\n".join(lines) + "\n"


def _ingest(found: Found, size: int, shares: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Key, value and comment of each setting of ``ingest``."""
    rows: list[tuple[str, str, str]] = [("source", found.source, f"modality {found.modality}" if found.modality else "")]
    if found.dataset is not None:
        rows += [("path", written(str(found.path)), "SPLIT BY IMAGE: the file does not say who the patients are")]
        rows += [("dataset", found.dataset, f"{'findings' if found.several else 'classes'} {_counts(found.images)}")]
        return [*rows, ("size", str(size), "pixels"), *_shares(shares)]
    rows += [("path", written(str(found.path)), "")]
    if found.table is not None:
        if found.people is not None:
            whose = "patient_id in it or in the headers" if found.source == "dicom" else "its patient_id says whose they are"
        else:
            whose = "no patient_id: SPLIT BY IMAGE"
        rows += [("labels", written(found.table), whose)]
    elif found.people is None:
        rows += [("labels", "labels.csv", "SPLIT BY IMAGE: none is there; one with file,patient_id says whose they are")]
    rows += [("several_findings", "true", "an image can have several of the classes, or none")] if found.several else []
    rows += [("classes", f"[{', '.join(map(written, found.images))}]", _counts(found.images))]
    rows += [("size", str(size), f"pixels; the images have up to {found.side}")]
    rows += [("colour", "true", "")] if found.colour else []
    if found.source != "dicom":
        rows += [("modality", "null", "such as DX, CT, MR or US: the files do not say")]
    return rows + _shares(shares)


def _shares(shares: Mapping[str, float]) -> list[tuple[str, str, str]]:
    return [(key, f"{value:g}", "other shares than usual, so that the gate finds enough sealed") for key, value in shares.items()]


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    lines = []
    for key, value, comment in rows:
        line = f"  {key}: {value}"
        lines.append(f"{line:<26} # {comment}" if comment else line)
    return lines


def _size(found: Found, where: str) -> int:
    """Side of the images to work on: no larger than theirs, a multiple of 4, from 16. MedMNIST's files are each of one side."""
    return found.side if found.source == "medmnist" else max(16, min(SIZES[where], found.side // 4 * 4))


def _name(found: Found) -> str:
    """A run's name from the folder's."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", found.dataset or found.path.name).strip("-._")[:60]
    return name or "cohort"


def _count(found: Found) -> str:
    kind = {"dicom": "DICOM file", "nifti": "NIfTI volume", "pictures": "picture", "medmnist": "image"}[found.source]
    people = f" of {counted(found.patients, 'patient')}" if found.patients is not None else ""
    return f"{counted(found.labelled, kind)}{people}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{written(name)} {count:,}" for name, count in counts.items())

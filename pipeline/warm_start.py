"""Warm start: training that begins from weights which an earlier run, or somebody else, has trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.artifacts import read_json
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.diffusion.objectives import Denoiser
    from pipeline.images import ImageSet

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Taken:
    """What a warm start took over: how many of the model's tensors, and the classes that begin as the null class."""

    tensors: int
    of: int
    new_classes: tuple[str, ...]


def weights_file(given: Path) -> Path:
    """The weights that a configured path names: a file, or that of a train folder or a run. Raises InputError where there is none."""
    given = given.expanduser()
    for path in (given, given / WEIGHTS, given / "train" / WEIGHTS):
        if path.is_file() and path.suffix == ".safetensors":
            return path
    raise InputError(f"{given.name}: no {WEIGHTS} there: give a run's train folder, or a .safetensors file")


def start(denoiser: Denoiser, start_from: Path, classes: Sequence[str], renamed: Mapping[str, str], frozen: Sequence[str]) -> Taken:
    """Load what fits of the earlier weights into ``denoiser``, and stop the frozen parts from learning.

    Tensors are matched by name and shape. The rows of the class table are matched by class: by equal names, or as ``renamed`` says; a class
    that the earlier model did not know begins as its null class. Noise statistics (mean image, spread) stay those of this cohort.

    Raises:
        InputError: fewer than half of the parameters fit, or a renamed class or a frozen part does not exist.
    """
    from safetensors.torch import load_file

    path = weights_file(start_from)
    try:
        earlier = load_file(path)
    except Exception:
        raise InputError(f"train.start_from {path.name}: not a readable safetensors file") from None
    described = path.with_name("model.json")
    known = tuple(read_json(described)["classes"]) if described.is_file() else ()
    parameters = dict(denoiser.named_parameters())
    table = f"network.{denoiser.network.CLASS_TABLE}"
    found = {name: value for name in parameters if (value := _named(earlier, name)) is not None and name != table}
    fits = {name: value for name, value in found.items() if value.shape == parameters[name].shape}
    if 2 * len(fits) < len(parameters):
        raise InputError(
            f"train.start_from {path.name}: {len(fits)} of the {len(parameters)} parameters fit this network: "
            f"set train.backbone, widths, blocks, patch and attention as they were in the earlier run"
        )
    new: tuple[str, ...] = tuple(classes)
    with torch.no_grad():
        for name, value in fits.items():
            parameters[name].copy_(value)
        before = _named(earlier, table)
        if before is not None and before.shape[1:] == parameters[table].shape[1:]:
            new = _take_classes(parameters[table], before, classes, known, renamed)
    _freeze(parameters, frozen)
    return Taken(len(fits) + (len(new) < len(classes)), len(parameters), new)


def check_patients(start_from: Path, cohort: ImageSet) -> str:
    """Whether the earlier run trained on patients that this run has sealed or will test on: a sentence for the record.

    Pseudonyms can be compared where both runs share one project key. Weights from elsewhere cannot be checked, and the record says so.

    Raises:
        InputError: such a patient was trained on: the audit's non-members would be members.
    """
    import pandas as pd

    rows = weights_file(start_from).parent.parent / "ingest" / "rows.parquet"
    if not rows.is_file():
        return "the earlier weights' patients are not known: that none of them is sealed here is the user's word"
    earlier = pd.read_parquet(rows, columns=["patient", "split"])
    trained = set(earlier.loc[earlier["split"] == "train", "patient"])
    mine = cohort.rows
    if not set(earlier["patient"]) & set(mine["patient"]):
        return "no patient in common with the earlier run, or another project key"
    both = int(mine.loc[(mine["split"] != "train") & mine["patient"].isin(trained), "patient"].nunique())
    if both:
        raise InputError(
            f"train.start_from: {both} patients that the earlier run trained on are in this run's audit, val or test split: "
            f"the audit could not tell members from non-members; use that run's splits, or weights trained on other patients"
        )
    return "no patient of this run's audit, val and test splits was trained on in the earlier run"


def _named(weights: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A tensor by our name, or by the one that a bare network or MONAI's own has for it."""
    for prefix in ("", "network.", "network.net."):
        if name.startswith(prefix) and name.removeprefix(prefix) in weights:
            return weights[name.removeprefix(prefix)]
    return None


def _take_classes(
    table: Tensor, before: Tensor, classes: Sequence[str], known: Sequence[str], renamed: Mapping[str, str]
) -> tuple[str, ...]:
    """Fill the rows of ``table``; the classes that the earlier model does not know."""
    wrong = [name for name in renamed if name not in classes] + [name for name in renamed.values() if name not in known]
    if wrong:
        theirs = ", ".join(known) or "none"
        raise InputError(f"train.start_classes: no class {', '.join(wrong)}; this run has {', '.join(classes)}, the earlier one {theirs}")
    new = []
    for row, name in enumerate(classes):
        source = renamed.get(name, name)
        if source in known:
            table[row].copy_(before[known.index(source)])
        else:
            table[row].copy_(before[-1])
            new.append(name)
    table[-1].copy_(before[-1])
    return tuple(new)


def _freeze(parameters: Mapping[str, torch.nn.Parameter], frozen: Sequence[str]) -> None:
    for beginning in frozen:
        part = [p for name, p in parameters.items() if name == beginning or name.startswith(f"{beginning}.")]
        if not part:
            parts = sorted({re.match(r"[^.]+(?:\.[^.]+)?", name)[0] for name in parameters})  # type: ignore[index]
            raise InputError(f"train.frozen: no part {beginning!r}; the parts are {', '.join(parts)}")
        for p in part:
            p.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise InputError("train.frozen leaves nothing to train: name fewer parts")

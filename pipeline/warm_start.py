"""Warm start: training that begins from weights which an earlier run, or somebody else, has trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import tensors
from pipeline.artifacts import RECORD, Checked, damage, key_mark, load_record, read_object
from pipeline.cohorts.key import project_key
from pipeline.errors import InputError
from pipeline.release.results import dig
from privacy.judgements import STARTED

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pipeline.conditions import Conditions
    from pipeline.config import TrainConfig
    from pipeline.diffusion.objectives import Denoiser

WEIGHTS = "model.safetensors"
DECLARED = "declared, not verified: "
WORDS, FEATURES, READER = (f"network.text.words.{name}" for name in ("weight", "features", "map.weight"))
FIELDS = "network.text.fields.weight"
"""Words as they are learned, or what is told of them and how that is read; fields as words."""
SAME = "trained on patients of this run's train split alone"
TAKE = "take a run of the same cohort under the same key, whose splits are this run's"


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


def start(denoiser: Denoiser, start_from: Path, conditions: Conditions, renamed: Mapping[str, str], frozen: Sequence[str]) -> Taken:
    """Load what fits of the earlier weights into ``denoiser``, and stop the frozen parts from learning.

    Tensors are matched by name and shape; what can be asked for by its name (:func:`pipeline.condition_table.carried`), or as ``renamed``
    says; words by themselves. Noise statistics (mean image, spread) stay those of this cohort.

    Raises:
        InputError: fewer than half of the parameters fit, or a renamed class or a frozen part does not exist.
    """
    import torch

    from pipeline.condition_table import carried, take_fields, take_words, told_alike
    from pipeline.conditions import Conditions

    path = weights_file(start_from)
    try:
        earlier = tensors.read(path)
    except InputError:
        raise InputError(f"train.start_from {path.name}: not a readable safetensors file") from None
    described = path.with_name("model.json")
    before = _described(described) if described.is_file() else Conditions(())
    parameters, classes = dict(denoiser.named_parameters()), conditions.classes
    table = f"network.{denoiser.network.CLASS_TABLE}"
    found = {name: value for name in parameters if (value := _named(earlier, name)) is not None and name not in (table, WORDS, FIELDS)}
    fits = {name: value for name, value in found.items() if value.shape == parameters[name].shape}
    if 2 * len(fits) < len(parameters):
        raise InputError(
            f"train.start_from {path.name}: {len(fits)} of the {len(parameters)} parameters fit this network: "
            f"set train.backbone, widths, blocks, patch and attention as they were in the earlier run"
        )
    wrong = [name for name in renamed if name not in classes] + [name for name in renamed.values() if name not in before.classes]
    if wrong:
        theirs = ", ".join(before.classes) or "none"
        raise InputError(f"train.start_classes: no class {', '.join(wrong)}; this run has {', '.join(classes)}, the earlier one {theirs}")
    told, told_before = dict(denoiser.named_buffers()).get(FEATURES), earlier.get(FEATURES)
    if told is not None and told_before is not None and not told_alike(told.cpu(), told_before, before.words, conditions.words):
        fits = {name: value for name, value in fits.items() if name != READER}
    asked, words, new, taken = _named(earlier, table), earlier.get(WORDS), tuple(classes), 0
    with torch.no_grad():
        for name, value in fits.items():
            parameters[name].copy_(value)
        if asked is not None and asked.shape[1:] == parameters[table].shape[1:]:
            known = before if len(asked) == sum(size + 1 for size in before.sizes) else Conditions(())
            parameters[table].copy_(carried(asked, known, conditions, renamed))
            new = tuple(name for name in classes if renamed.get(name, name) not in known.classes)
            taken += len(new) < len(classes)
        if words is not None and WORDS in parameters and words.shape[1:] == parameters[WORDS].shape[1:]:
            taken += take_words(parameters[WORDS], words, before.words, conditions.words)
        if FIELDS in parameters and FIELDS in earlier and earlier[FIELDS].shape[1:] == parameters[FIELDS].shape[1:]:
            taken += take_fields(parameters[FIELDS], earlier[FIELDS], before, conditions, renamed)
    _freeze(parameters, frozen)
    return Taken(len(fits) + taken, len(parameters), new)


def _described(path: Path) -> Conditions:
    """What a ``model.json`` says that its model can be asked for. Raises InputError where it is damaged."""
    from pipeline.conditions import Conditions

    try:
        return Conditions.of_model({"classes": (), **read_object(path)})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(damage(path.parent.name, path.name)) from error


def check_patients(section: TrainConfig, run: Path, ingest: Path, record: Mapping[str, Any]) -> str:
    """What is known of the patients on whom the earlier weights were trained: a sentence for ``model.json`` and the release's limitations.

    They are taken where the earlier run, whose files are hashed against its records, shows under the same project key that each patient of
    its ``train`` split is in this run's ``train`` split too, so that the audit looks for them, or that none is in this cohort at all.

    Args:
        section: the configuration of training, with ``start_from``.
        run: this run's folder, for the project key.
        ingest: this run's ingest folder.
        record: its record.

    Raises:
        InputError: neither is shown, and ``train.start_trained_on`` does not say on what weights without a run were trained.
    """
    assert section.start_from is not None
    path, name = weights_file(section.start_from), "train.start_from"
    earlier = path.parent
    if not (earlier / RECORD).is_file():
        if section.start_trained_on is None:
            raise InputError(
                f"{name} {path.name}: weights without their run do not show on whom they were trained: give the run's train folder, or "
                "say in train.start_trained_on on what published weights were trained, which the release states as your word"
            )
        return f"{DECLARED}{section.start_trained_on}"
    if section.start_trained_on is not None:
        raise InputError(f"train.start_trained_on is for weights without a run, and {name} has its run: leave it out")
    trained = trained_on(earlier, name, path)
    before = began_from(earlier)
    if trained == record.get("digest"):
        return before or SAME
    if before is not None:
        raise InputError(f"{name}: that run began itself from weights {before}, which shows nothing about this run's patients: {TAKE}")
    other = earlier.parent / "ingest"
    found = load_record(other) if other.is_dir() else None
    if found is None or found["digest"] != trained:
        raise InputError(f"{name}: the ingest folder beside it, which shows on whom it was trained, is not there or another: {TAKE}")
    Checked().consume(other, found, only=("cohort.json", "rows.parquet"))
    return _compare(name, other, ingest, key_mark(project_key(run)))


def trained_on(folder: Path, name: str, weights: Path) -> str:
    """Digest of the ingest that a finished train folder was trained on; its weights are hashed against its record.

    Raises:
        InputError: the folder is no finished train stage's, or its files are not as its record says.
    """
    record = load_record(folder, "train") if folder.is_dir() else None
    if record is None:
        raise InputError(f"{name}: {folder.name} is not the train folder of a finished run: {TAKE}")
    described = {"model.json"} & record["files"].keys()
    Checked().consume(folder, record, only=(weights.name, *described))
    return str(record["identity"].get("inputs", {}).get("ingest"))


def began_from(folder: Path) -> str | None:
    """What a train folder's own warm start says of other patients than its train split's; None where there were none."""
    described = folder / "model.json"
    patients = dig(read_object(described), "warm_start.patients") if described.is_file() else None
    return None if patients in (None, SAME) else str(patients)


def saw_train(given: Path, patients: str, record: Mapping[str, Any]) -> bool:
    """Whether earlier weights, of whose patients :func:`check_patients` said ``patients``, have seen images of this run's train split."""
    earlier = load_record(weights_file(given).parent, "train")
    return patients == SAME or (earlier is not None and earlier["identity"].get("inputs", {}).get("ingest") == record.get("digest"))


def trained_beside(folder: Path) -> str:
    """On whom a train folder's model was trained beside its train split, one of :data:`privacy.judgements.STARTED`."""
    others = began_from(folder)
    return STARTED[0] if others is None else STARTED[2 if others.startswith(DECLARED) else 1]


def _compare(name: str, other: Path, mine: Path, mark: str) -> str:
    """Compare the patients of two ingests, and their images, by their pseudonyms."""
    import pandas as pd

    facts, ours = (read_object(folder / "cohort.json") for folder in (other, mine))
    if facts.get("key_mark") != mark or ours.get("key_mark") != mark or facts.get("unit") != ours.get("unit"):
        raise InputError(
            f"{name}: its patients have pseudonyms under another project key, or none, so that they cannot be compared: {TAKE}"
        )
    try:
        earlier, rows = (pd.read_parquet(folder / "rows.parquet", columns=["id", "patient", "split"]) for folder in (other, mine))
    except Exception as error:  # pyarrow raises anything on a damaged file
        raise InputError(damage(other.name, "rows.parquet")) from error
    theirs = earlier[earlier["split"] == "train"]
    sealed, seen = rows[rows["split"] != "train"], rows[rows["split"] == "train"]
    known = rows["patient"].isin(set(theirs["patient"])) | rows["id"].isin(set(theirs["id"]))
    if both := int(sealed.loc[known[sealed.index], "patient"].nunique()):
        raise InputError(
            f"{name}: {both} patients that the earlier run trained on are in this run's audit, val or test split: "
            f"the audit could not tell members from non-members; use that run's splits, or weights trained on other patients"
        )
    if set(theirs["patient"]) <= set(seen["patient"]):
        return SAME
    if known.any():
        raise InputError(
            f"{name}: some of its patients are in this run's train split and others are not, for whom nobody would look: {TAKE}"
        )
    if ours["unit"] == "image" and not _published_apart(facts, ours):
        raise InputError(f"{name}: without patient ids nothing shows that the two cohorts have no image in common: {TAKE}")
    return "trained on other patients, none of whom is in this cohort; whether their images are copied was not audited"


def _published_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cohorts without patients are different published data sets, whose images are named by their place in the set."""
    sets = [dig(facts, "source.dataset") for facts in (one, other)]
    return all(isinstance(name, str) for name in sets) and len({str(name).removesuffix("3d") for name in sets}) == 2


def _named(weights: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A tensor by our name, or by the one that a bare network or MONAI's own has for it."""
    for prefix in ("", "network.", "network.net."):
        if name.startswith(prefix) and name.removeprefix(prefix) in weights:
            return weights[name.removeprefix(prefix)]
    return None


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

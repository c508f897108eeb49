"""What a model takes and gives: declared in a YAML file beside it, completed by what the model's file says.

``chest.onnx`` has its contract in ``chest.yaml``, ``package.module:function`` in ``package/module.yaml``::

    size: 224                       # or [height, width]
    channels: 3
    range: [0, 1]                   # what black and white become, before mean and std
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    classes: [normal, effusion]     # in the order of the outputs
    output: logits
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from pipeline.config.load import one_line, read_yaml
from pipeline.config.section import Line, Section
from pipeline.errors import InputError
from pipeline.ingest.table import folded

Kind = Literal["onnx", "torchscript", "export", "callable", "run"]
Layout = Literal["NCHW", "NHWC"]
Dtype = Literal["float32", "float16", "bfloat16", "float64", "uint8"]
SUFFIXES: dict[str, Kind] = {
    ".onnx": "onnx",
    ".pt2": "export",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".jit": "torchscript",
    ".torchscript": "torchscript",
}
LARGEST_SIDE = 8192


class Declared(Section):
    """A contract as it is written; what is left out is guessed where the model's file says it."""

    size: int | tuple[int, int] | None = None
    """Side of the square that it takes, or height and width, in pixels."""
    channels: Literal[1, 3] | None = None
    """1 (colour becomes luminance) or 3 (grey is repeated)."""
    layout: Layout | None = None
    """Order of the axes: images, channels, height, width."""
    dtype: Dtype | None = None
    """Type of the numbers that it takes."""
    range: tuple[float, float] = (0.0, 1.0)
    """What black and white become, before ``mean`` and ``std``."""
    mean: tuple[float, ...] = ()
    """Taken from each channel, in the unit of ``range``."""
    std: tuple[float, ...] = ()
    """What each channel is divided by then."""
    fit: Literal["stretch", "pad"] = "stretch"
    """How an image comes to ``size``: each side by itself, or both alike, with black beside it. Bilinear, with antialiasing."""
    classes: tuple[Line, ...] = ()
    """Names of the outputs, in their order, as the labels spell them but for case. A model of two classes may give one column, that of
    the second."""
    output: Literal["probabilities", "logits"] | None = None
    """What its outputs are."""
    exclusive: bool = True
    """Whether a softmax belongs to its outputs; otherwise each has a sigmoid of its own."""
    modality: str | None = None
    """DICOM's code of what the images are, where their files do not say it: it chooses the shifts."""

    @field_validator("size")
    @classmethod
    def _possible(cls, value: Any) -> Any:
        sides = value if isinstance(value, tuple) else (value,)
        if value is not None and not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(f"size: pixels from 1 to {LARGEST_SIDE}, got {value}")
        return value

    @field_validator("modality")
    @classmethod
    def _has_shifts(cls, value: str | None) -> str | None:
        from evaluation.shifts import KNOWN  # which needs torch

        if value is not None and value not in KNOWN:
            raise ValueError(f"modality {value[:20]!r}: use DICOM's code, one of {', '.join(sorted(KNOWN))}")
        return value

    @field_validator("std")
    @classmethod
    def _divides(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(one <= 0 for one in value):
            raise ValueError("std: numbers above 0")
        return value


@dataclass(frozen=True)
class Contract:
    """A whole contract; its fields are those of :class:`Declared`.

    Attributes:
        batch: how many images it takes at once, where its file fixes that.
        guessed: what was not declared, as sentences.
    """

    size: tuple[int, int]
    channels: int
    layout: Layout
    dtype: str
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str
    classes: tuple[str, ...]
    output: str
    exclusive: bool
    batch: int | None
    guessed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def kind_of(model: str) -> Kind:
    """How a model is loaded, told by its name. Raises InputError where it is nothing that can be."""
    path = Path(model).expanduser()
    if not model.strip():
        raise InputError("no model is named: give a file (.onnx, .pt, .pt2), a Python function as module:callable, or a run's folder")
    if path.is_file():
        if (kind := SUFFIXES.get(path.suffix.lower())) is not None:
            return kind
        raise InputError(
            f"{path.name}: not a kind of model that is known: give .onnx, TorchScript as .pt, torch.export as .pt2, or module:callable"
        )
    if path.is_dir():
        return "run"
    module, colon, name = model.partition(":")
    if colon and not module.endswith(".py") and all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        return "callable"
    beside = [one.name for one in path.parent.iterdir() if one.suffix.lower() in SUFFIXES] if path.parent.is_dir() else []
    if module.endswith(".py") and name.isidentifier():
        raise InputError(f"no model {path.name}: a function's module is named without .py: give {Path(module).stem}:{name}")
    if close := difflib.get_close_matches(path.name, beside, 1):
        raise InputError(f"no model {path.name}: did you mean {close[0]}?")
    raise InputError(f"no model {path.name}: give a file (.onnx, .pt, .pt2), a Python function as module:callable, or a run's folder")


def sidecar(model: str) -> Path:
    """Where a model's contract is looked for: its name with ``.yaml``, or ``.yml`` where only that is there."""
    own = Path(*model.partition(":")[0].split(".")) if kind_of(model) == "callable" else Path(model).expanduser()
    path, short = own.with_suffix(".yaml"), own.with_suffix(".yml")
    return short if short.is_file() and not path.is_file() else path


def declared(path: Path) -> Declared:
    """Read a contract. Raises InputError where it cannot be read, or says what no contract can."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: no mapping: write a line a property, such as size: 224")
    if unknown := [str(key) for key in data if key not in Declared.model_fields]:
        close = difflib.get_close_matches(unknown[0], Declared.model_fields, 1)
        meant = f"did you mean {close[0]}?" if close else f"it may have {', '.join(Declared.model_fields)}"
        raise InputError(f"{path.name}: a contract has no {', '.join(one[:40] for one in unknown[:5])}: {meant}")
    try:
        return Declared.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path.name}: {one_line(error)}") from None


def completed(told: Declared, facts: Mapping[str, Any], images: Mapping[str, Any], where: str) -> tuple[Contract | None, list[str]]:
    """The contract with what the model's file says, and everything that speaks against it; None for a contract where something is missing.

    Args:
        facts: ``size``, ``channels``, ``layout``, ``dtype``, ``batch`` as far as the file says them.
        images: of the cases: ``classes``, ``channels``, and ``size`` where all looked at have one.
        where: the file in which to declare.
    """
    wrong = [
        f"{name} is {_shown(mine)} in {where}, and {_shown(facts[name])} in the model's file: declare {name}: {_shown(facts[name])}"
        for name, mine in (("size", _pair(told.size)), ("channels", told.channels), ("layout", told.layout), ("dtype", told.dtype))
        if mine is not None and facts.get(name) is not None and _plain(mine) != _plain(facts[name])
    ]
    found: dict[str, Any] = {}
    guessed = []
    for name, mine, last in (
        ("size", _pair(told.size), images.get("size")),
        ("channels", told.channels, images["channels"]),
        ("layout", told.layout, "NCHW"),
        ("dtype", told.dtype, "float32"),
    ):
        value, source = next(
            ((v, s) for v, s in ((mine, ""), (facts.get(name), "the model's file"), (last, "the images")) if v is not None), (None, "")
        )
        if value is None:
            wrong.append(
                f"size is not declared, and neither the model's file nor the images have one: declare size: [height, width] in {where}"
            )
            continue
        found[name] = value
        if source and not (source == "the images" and name in ("layout", "dtype")):
            guessed.append(f"{name} {_shown(value)}, from {source}")
    wrong += wrong_classes(told.classes, images["classes"], where)
    for name in ("mean", "std"):
        values = getattr(told, name)
        if values and found.get("channels") and len(values) not in (1, found["channels"]):
            wrong.append(f"{name} has {len(values)} values for {found['channels']} channels: declare one for each in {where}")
    span = _range(told, found.get("dtype"))
    if any(not min(span) <= one <= max(span) for one in told.mean):
        wrong.append(
            f"mean {_shown(told.mean)} lies outside the range {span[0]:g} to {span[1]:g}: declare range in {where}, such as [0, 255]"
        )
    guessed += [] if "range" in told.model_fields_set else [f"range 0 to {255 if found.get('dtype') == 'uint8' else 1}, by default"]
    guessed += [] if told.mean or told.std else ["no mean and std, by default"]
    if wrong:
        return None, wrong
    size = (int(found["size"][0]), int(found["size"][1]))
    rest = {name: getattr(told, name) for name in ("mean", "std", "fit", "classes", "exclusive")} | {"range": span}
    return (
        Contract(
            size,
            int(found["channels"]),
            found["layout"],
            found["dtype"],
            **rest,
            output=told.output or "",
            batch=facts.get("batch"),
            guessed=tuple(guessed),
        ),
        [],
    )


def _range(told: Declared, dtype: str | None) -> tuple[float, float]:
    """What black and white become: as declared, or as whole numbers have it."""
    return (0.0, 255.0) if dtype == "uint8" and "range" not in told.model_fields_set else told.range


def wrong_classes(mine: Sequence[str], theirs: Sequence[str], where: str) -> list[str]:
    """What is wrong with the classes that a contract names (``mine``) for cases of others (``theirs``), and what to declare."""
    if not mine:
        return [f"classes is not declared: declare classes: [{', '.join(theirs)}] in {where}, in the order of the model's outputs"]
    if len(set(mine)) < len(mine):
        return [f"classes names one twice: declare each output once in {where}"]
    if len(mine) < 2:
        return [f"classes names one: declare both in {where}, the second being the one whose column the model gives"]
    taken, _ = spelled(theirs, mine, "")
    if strange := [name for name in taken if name not in mine]:
        told = ", ".join(strange)
        return [f"the data have classes that the model does not name ({told}): declare classes of {', '.join(theirs)} in {where}"]
    return []


def spelled(theirs: Sequence[str], mine: Sequence[str], option: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes (``theirs``) as a model spells them (``mine``), and what was taken for what, as sentences.

    A name that the model does not have is taken for the one that differs from it by case and space alone. Where several do, of its names
    or of theirs, it stays as it is, so that no two classes become one.

    Args:
        option: with which the user gave them.
    """
    alike = Counter(map(folded, theirs))
    taken = []
    for name in theirs:
        same = [own for own in mine if folded(own) == folded(name)]
        taken.append(same[0] if name not in mine and len(same) == 1 == alike[folded(name)] else name)
    notes = [f"{option}: class {name} is taken for {own}, as the model spells it" for name, own in zip(theirs, taken) if name != own]
    return tuple(taken), tuple(notes)


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)

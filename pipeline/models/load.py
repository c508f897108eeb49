"""Loading somebody's model, and asking it: only in the child process, since a model's file and its code may do anything."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluation.metrics import Floats
from pipeline.models.contract import Contract, Dtype, Kind

BATCH = {"cuda": 256, "cpu": 32}
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_ONNX_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


class NotLoaded(Exception):
    """Why a model cannot be loaded; what to do about it, in one line."""


@dataclass(frozen=True)
class Loaded:
    """A model.

    Attributes:
        call: prepared images, a tensor of the contract's type and layout on ``device``, to its outputs.
        facts: what its file says: ``size``, ``channels``, ``layout``, ``dtype``, ``batch``; absent where it does not.
        device: where the images are prepared.
    """

    call: Callable[[Tensor], Any]
    facts: dict[str, Any]
    device: str


def load(model: str, kind: Kind, device: str) -> Loaded:
    """Load a model. Raises NotLoaded, or whatever the model's own code raises."""
    kinds = {"onnx": _onnx, "torchscript": _torchscript, "export": _exported, "callable": _callable, "run": _of_run}
    return kinds[kind](model, device)


def prepared(x: Tensor, contract: Contract) -> Tensor:
    """Images ``[n, C, H, W]`` in 0..1 as the contract wants them."""
    if x.shape[1] > contract.channels:
        weights = torch.tensor(_LUMINANCE, device=x.device, dtype=x.dtype).reshape(1, 3, 1, 1)
        x = (x * weights).sum(dim=1, keepdim=True)
    x = _fitted(x, contract)
    low, high = contract.range
    if (low, high) != (0, 1):
        x = low + x * (high - low)
    if contract.mean:
        x = x - torch.tensor(contract.mean, device=x.device, dtype=x.dtype).reshape(1, -1, 1, 1)
    if contract.std:
        x = x / torch.tensor(contract.std, device=x.device, dtype=x.dtype).reshape(1, -1, 1, 1)
    x = x.round().to(torch.uint8) if contract.dtype == "uint8" else x.to(getattr(torch, contract.dtype))
    x = x.expand(-1, contract.channels, -1, -1)  # grey is repeated last: it costs a third until then
    return (x.permute(0, 2, 3, 1) if contract.layout == "NHWC" else x).contiguous()


def outputs(model: Loaded, x: Tensor, contract: Contract) -> NDArray[np.float64]:
    """The model's raw outputs for prepared images, ``float64 [n, columns]``, in batches that it takes."""
    size = contract.batch or BATCH[model.device]
    parts = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        short = size - len(part) if contract.batch else 0
        if short:  # the file fixes how many there are
            part = torch.cat([part, part[-1:].expand(short, *part.shape[1:])])
        found = _matrix(model.call(part), len(part), len(contract.classes))
        parts.append(found[: len(found) - short])
    return np.concatenate(parts)


def probabilities(raw: NDArray[np.float64], contract: Contract) -> Floats:
    """Outputs ``[n, K]``, or ``[n, 1]`` of two classes' second, as probabilities ``[n, K]``."""
    p = raw
    if raw.shape[1] == 1:
        second = 1 / (1 + np.exp(-np.clip(raw, -700, 700))) if contract.output == "logits" else raw
        return np.concatenate([1 - second, second], axis=1)
    if contract.output == "logits" and contract.exclusive:
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        p = shifted / shifted.sum(axis=1, keepdims=True)
    elif contract.output == "logits":
        p = 1 / (1 + np.exp(-np.clip(raw, -700, 700)))
    return np.asarray(p, np.float64)


def _fitted(x: Tensor, contract: Contract) -> Tensor:
    height, width = contract.size
    if tuple(x.shape[2:]) == (height, width):
        return x
    rows, columns = height, width
    if contract.fit == "pad":
        scale = min(height / x.shape[2], width / x.shape[3])
        rows, columns = (max(1, round(side * scale)) for side in x.shape[2:])
    x = functional.interpolate(x, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
    below, right = height - rows, width - columns
    return functional.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))


def _matrix(found: Any, count: int, classes: int) -> NDArray[np.float64]:
    """A model's answer as ``[n, columns]``: itself, or of several arrays the first that has a column a class, or else the first."""
    arrays = list(_arrays(found, count))
    wanted = [(count, classes), *([(count, 1), (count,)] if classes == 2 else [])]
    fitting = [one for shape in wanted for one in arrays if hasattr(one, "shape") and tuple(one.shape) == shape]
    chosen = [*fitting, *arrays, None][0]
    values = chosen.detach().float().cpu().numpy() if isinstance(chosen, Tensor) else np.asarray(chosen)
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2) or len(values) != count:
        shape = list(values.shape)
        raise NotLoaded(f"the model gives {values.dtype} {shape} for {count} images: it must give a row of numbers for each")
    whole = not chosen.is_floating_point() if isinstance(chosen, Tensor) else values.dtype.kind != "f"
    if whole and values.size == count:
        raise NotLoaded("the model gives one whole number an image, the number of a class: let it give scores, probabilities or logits")
    return values.reshape(count, -1).astype(np.float64)


def _arrays(found: Any, count: int) -> Iterator[Any]:
    """The arrays of an answer, in their order; a list of ``count`` rows is one."""
    if hasattr(found, "shape") or not isinstance(found, dict | list | tuple):
        yield found
        return
    parts = list(found.values() if isinstance(found, dict) else found)
    axes = {_axes(one) for one in parts}
    if isinstance(found, dict) or (0 not in axes and (len(parts) != count or max(axes, default=0) > 1)):
        for one in parts:
            yield from _arrays(one, count)
    else:
        yield np.array([one.detach().float().cpu().numpy() if isinstance(one, Tensor) else one for one in parts])


def _axes(one: Any) -> int:
    if hasattr(one, "ndim"):
        return int(one.ndim)
    return 1 + _axes(one[0]) if isinstance(one, list | tuple) and one else 0


def _cannot(what: str, error: Exception, instead: str) -> NotLoaded:
    """Why a file is not what its name says, as its reader puts it, and what would be."""
    why = " ".join(str(error).split())[:100]
    return NotLoaded(f"it is no {what} ({why}): {instead}, or give module:callable")


def _onnx(model: str, device: str) -> Loaded:
    try:
        import onnxruntime
    except ImportError:
        raise NotLoaded("ONNX models need onnxruntime, which is not installed here: pip install onnxruntime") from None
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    there = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(model, options, providers=there)
    except Exception as error:  # of many kinds, which it does not name
        raise _cannot("ONNX model that onnxruntime takes", error, "export it again with torch.onnx.export") from None
    if len(session.get_inputs()) != 1:
        raise NotLoaded(f"the model has {len(session.get_inputs())} inputs: export it with one, the images")
    [taken] = session.get_inputs()
    if taken.type not in _ONNX_TYPES:
        raise NotLoaded(f"the model takes {taken.type}: export it with float32 images")
    given = [one.name for one in session.get_outputs() if one.type in ("tensor(float)", "tensor(double)", "tensor(float16)")]
    if not given:
        raise NotLoaded("the model has no output of floating numbers: export its scores as a tensor (for scikit-learn, zipmap off)")

    def call(x: Tensor) -> Any:
        return session.run(given, {taken.name: x.cpu().numpy()})

    return Loaded(call, _shape(list(taken.shape)) | {"dtype": _ONNX_TYPES[taken.type]}, device)


def _torchscript(model: str, device: str) -> Loaded:
    try:
        module = torch.jit.load(model, map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise _cannot("TorchScript", error, "save it with torch.jit.trace") from None
    return _module(module, device)


def _exported(model: str, device: str) -> Loaded:
    try:
        program = torch.export.load(model)
    except Exception as error:  # of many kinds
        raise _cannot("program of torch.export", error, "save it with torch.export.save") from None
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        raise NotLoaded(f"the program has {len(inputs)} inputs: export it with one, the images")
    [taken] = inputs
    if (dtype := str(taken.dtype).removeprefix("torch.")) not in get_args(Dtype):
        raise NotLoaded(f"the program takes {dtype}: export it with float32 images")
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    found = _inferring(program.module(), device)
    return Loaded(found, _shape([side if isinstance(side, int) else None for side in taken.shape]) | {"dtype": dtype}, device)


def _callable(model: str, device: str) -> Loaded:
    module, _, name = model.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise NotLoaded(f"there is no module {error.name}: give the command where {error.name}.py lies, or install it") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise NotLoaded(f"{module} has no {name}: give module:callable as it is spelled there")
        found = getattr(found, part)
    if isinstance(found, torch.nn.Module):
        return _module(found.to(device), device)
    if not callable(found):
        raise NotLoaded(f"{model} is no function: give one that takes images [n, C, H, W] and returns [n, classes]")
    return Loaded(lambda x: found(x.cpu().numpy()), {}, device)


def _of_run(model: str, device: str) -> Loaded:
    from pipeline.models.own_classifier import mean_probabilities

    return Loaded(mean_probabilities(Path(model), device), {}, device)


def _module(module: Any, device: str) -> Loaded:
    module.eval()
    kernels = [tuple(weight.shape) for weight in module.parameters() if weight.ndim == 4]
    facts = {"channels": int(kernels[0][1])} if kernels and kernels[0][1] in (1, 3) else {}
    return Loaded(_inferring(module, device), facts, device)


def _inferring(module: Any, device: str) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> Any:
        with torch.inference_mode():
            return module(x.to(device))

    return call


def _shape(sides: list[Any]) -> dict[str, Any]:
    """What the shape of an input says; sides that are names are free."""
    if len(sides) != 4:
        raise NotLoaded(f"the model takes {len(sides)} axes: it must take images, [images, channels, height, width]")
    numbers = [side if isinstance(side, int) and side > 0 else None for side in sides]
    facts: dict[str, Any] = {}
    if numbers[0] is not None:
        facts["batch"] = numbers[0]
    first, last = numbers[1] in (1, 3), numbers[3] in (1, 3)
    if first != last:
        facts |= {"layout": "NCHW" if first else "NHWC", "channels": numbers[1] if first else numbers[3]}
        size = numbers[2:] if first else numbers[1:3]
        if None not in size:
            facts["size"] = size
    return facts

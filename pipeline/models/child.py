"""The process in which somebody's model runs: with bounds on its memory and on its time for an answer, and nothing of ours to lose.

What comes back is JSON and one raw array: nothing that the model's code wrote is unpickled. Shifts are applied in the child, on the model's
device, so that an image crosses over once and not once for every condition. Bounds on memory need Linux's ``/proc``.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.models.contract import Contract, Kind
from pipeline.system import end_with_parent, worker_processes

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.load import Loaded

LOADING_SECONDS = 300.0
LOOK = 0.05
"""Seconds between two looks at what the child holds."""
MESSAGE = 300
"""Letters of an error of the model's that are passed on."""
Why = Literal["load", "run", "memory", "slow", "crash"]
Condition = tuple[str, int] | None


class ModelFailed(Exception):
    """The model gave no answer; ``why`` is the kind, the message what happened and what to do, to follow the model's name."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True)
class Bounds:
    """What a model may use.

    Attributes:
        memory: bytes resident at any time.
        seconds: for one answer to one image under one condition, on average over those that are asked together.
    """

    memory: int = 8 << 30
    seconds: float = 2.0


class Child:
    """One model in its process; a context manager that ends it, and what it started.

    Args:
        model: a file, or ``module:callable``.
        kind: of :func:`pipeline.models.contract.kind_of`.
        device: ``cuda`` or ``cpu``.
        bounds: of the process.
    """

    def __init__(self, model: str, kind: Kind, device: str, bounds: Bounds) -> None:
        self.name = model if kind == "callable" else Path(model).name
        self.bounds = bounds
        context = worker_processes(["numpy"])
        self.pipe, theirs = context.Pipe()
        path = model if kind == "callable" else str(Path(model).expanduser().resolve())
        self.process = context.Process(target=_serve, args=(theirs, path, kind, device), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, TypeError):  # it has no group yet, or no number
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def load(self) -> dict[str, Any]:
        """What the model's file says of its input. Raises ModelFailed."""
        return self._answer(("load",), LOADING_SECONDS)[0]

    def raw(self, images: Sequence[NDArray[Any]], contract: Contract) -> tuple[dict[str, Any], NDArray[np.float64]]:
        """The input's range as the model gets it (``low``, ``high``), and its raw outputs ``[n, columns]``. Raises ModelFailed."""
        return self._answer(("raw", list(images), contract), 60 + self.bounds.seconds * len(images))

    def ask(
        self,
        images: Sequence[NDArray[Any]],
        seeds: Sequence[int],
        conditions: Sequence[Condition],
        contract: Contract,
        parameters: Mapping[str, NDArray[np.float32]],
    ) -> tuple[NDArray[np.float64], float]:
        """Probabilities under every condition, and the seconds that the model itself took.

        Args:
            images: uint8 or uint16 ``[C, H, W]``, of any sizes.
            seeds: one an image, of what is drawn for it.
            conditions: shift and severity; None for the image as it is.
            parameters: what :func:`evaluation.shifts.drawn` draws of each shift for these seeds: whoever asks has the time for it, the
                child, whose device waits meanwhile, has not.

        Returns:
            ``float64 [conditions, n, K]``, seconds.

        Raises:
            ModelFailed: no answer in time, or in memory, or an error of the model's.
        """
        limit = 60 + self.bounds.seconds * len(images) * len(conditions)
        facts, values = self._answer(("ask", list(images), list(seeds), list(conditions), contract, dict(parameters)), limit)
        return values, float(facts["seconds"])

    def _answer(self, question: tuple[Any, ...], seconds: float) -> tuple[dict[str, Any], NDArray[np.float64]]:
        with contextlib.suppress(OSError):  # a child that has ended is found below
            self.pipe.send(question)
        end = time.monotonic() + seconds
        try:
            while not self.pipe.poll(LOOK):
                if time.monotonic() > end:
                    raise ModelFailed("slow", f"it gave no answer in {seconds:.0f} s: give --seconds, or a smaller model")
                if _held(self.process.pid) > self.bounds.memory:
                    held = f"{self.bounds.memory / (1 << 30):g} GiB"
                    raise ModelFailed("memory", f"it needs more than {held} of memory: give --memory, or a smaller model")
            return self._read(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            names = {-number.value: number.name for number in signal.Signals}
            how = names.get(code, f"exit {code}") if code is not None else "no answer"
            raise ModelFailed("crash", f"it ended its process ({how}): run it by itself on one image to see why") from None

    def _read(self, data: bytes) -> tuple[dict[str, Any], NDArray[np.float64]]:
        try:
            head, _, rest = data.partition(b"\n")
            facts = json.loads(head)
            values = np.load(io.BytesIO(rest), allow_pickle=False)
            if not isinstance(facts, dict) or values.dtype != np.float64:
                raise ValueError
        except (ValueError, EOFError, RecursionError):
            raise ModelFailed("crash", "it wrote into the pipe of its process: let it write nowhere") from None
        if (why := facts.get("failed")) in ("load", "run", "memory"):
            raise ModelFailed(why, str(facts.get("message"))[:MESSAGE])
        return facts, values


@dataclass(frozen=True)
class Victim:
    """A model that takes what its contract says; ``notes`` are what may be wrong all the same."""

    name: str
    child: Child
    contract: Contract
    notes: tuple[str, ...] = ()


def _held(pid: int | None) -> int:
    """Bytes of memory that a process and all that it started hold, what they share counted once; 0 where the system does not tell."""
    family = _family(pid)
    try:
        if len(family) == 1:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        return sum(_own_share(one) for one in family)
    except (OSError, IndexError, ValueError):
        return 0


def _own_share(pid: int | None) -> int:
    """Bytes of a process, those that it shares divided by how many share them; 0 for one that has ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return 0


def _family(pid: int | None) -> list[int | None]:
    """A process, its children, theirs, and so on."""
    found = [pid]
    for one in found:  # which grows
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                with contextlib.suppress(OSError):  # a thread that has ended
                    found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _serve(pipe: Connection, model: str, kind: Kind, device: str) -> None:
    """The child: answers until the pipe closes, and ends then with all that it started."""
    os.setsid()  # so that what the model starts can be ended with it
    end_with_parent()
    # Its code may have workers of its own, which start as they do where it comes from.
    multiprocessing.current_process().daemon = False
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    loaded: Loaded | None = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            question = pipe.recv()
            try:
                if question[0] == "load":
                    from pipeline import runtime
                    from pipeline.models.load import load

                    runtime.limit_threads()
                    loaded = load(model, kind, device)
                    reply = _packed(loaded.facts)
                else:
                    assert loaded is not None
                    reply = _raw(loaded, *question[1:]) if question[0] == "raw" else _asked(loaded, *question[1:])
            except BaseException as error:  # the model's own code may raise anything
                reply = _packed(_failure(error, question[0]))
            pipe.send_bytes(reply)
    os.killpg(0, signal.SIGKILL)  # whoever asked has ended, and what the model started does too


def _failure(error: BaseException, question: str) -> dict[str, str]:
    """What is told of an error: what we say of a model, or the kind and words of its own, which knows images and no names."""
    words = str(error)
    if "(most recent call last)" in words:  # TorchScript tells its own traceback first
        words = words.strip().rpartition("\n")[2]
    said = " ".join(words.split())[:MESSAGE]
    name = type(error).__name__
    if isinstance(error, MemoryError) or "OutOfMemory" in name or "DefaultCPUAllocator" in said:
        return {"failed": "memory", "message": "it ran out of memory: give it a smaller batch, or free some"}
    if name == "NotLoaded":
        return {"failed": "load", "message": said}
    return {"failed": "load" if question == "load" else "run", "message": f"{name}: {said}"}


def _packed(facts: Mapping[str, Any], values: NDArray[np.float64] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(0) if values is None else np.ascontiguousarray(values, np.float64), allow_pickle=False)
    return json.dumps(dict(facts)).encode() + b"\n" + buffer.getvalue()


def _unit(images: Sequence[NDArray[Any]], device: str) -> Tensor:
    """uint8 or uint16 images of one size as float32 0..1."""
    import torch

    stack = np.stack(images)
    top = 255 if stack.dtype == np.uint8 else 65535
    # uint16 has few operations in torch; int32 has all.
    whole = torch.from_numpy(stack if stack.dtype == np.uint8 else stack.astype(np.int32))
    return whole.to(device).float() / top


def _raw(loaded: Loaded, images: Sequence[NDArray[Any]], contract: Contract) -> bytes:
    import torch

    from pipeline.models.load import outputs, prepared

    x = torch.cat([prepared(_unit([image], loaded.device), contract) for image in images])
    return _packed({"low": float(x.float().min()), "high": float(x.float().max())}, outputs(loaded, x, contract))


def _asked(
    loaded: Loaded,
    images: Sequence[NDArray[Any]],
    seeds: Sequence[int],
    conditions: Sequence[Condition],
    contract: Contract,
    parameters: Mapping[str, NDArray[np.float32]],
) -> bytes:
    import torch

    from pipeline.models.load import outputs, prepared, probabilities

    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, image in enumerate(images):
        sizes.setdefault((*image.shape, image.dtype.itemsize), []).append(number)
    order = np.concatenate([np.array(rows) for rows in sizes.values()])
    parts = []
    for rows in sizes.values():
        own = {name: of[rows] for name, of in parameters.items()}
        parts.append((_unit([images[row] for row in rows], loaded.device), [seeds[row] for row in rows], own))
    draws: dict[tuple[int, str], Any] = {}
    found, spent = [], 0.0
    for condition in conditions:
        x = torch.cat([prepared(_shifted(*part, condition, draws, k), contract) for k, part in enumerate(parts)])
        if loaded.device == "cuda":
            torch.cuda.synchronize()
        since = time.monotonic()
        raw = outputs(loaded, x, contract)
        spent += time.monotonic() - since
        p = np.empty_like(probabilities(raw, contract))
        p[order] = probabilities(raw, contract)
        found.append(p)
    return _packed({"seconds": spent}, np.stack(found))


def _shifted(
    x: Tensor,
    seeds: Sequence[int],
    parameters: Mapping[str, NDArray[np.float32]],
    condition: Condition,
    draws: dict[tuple[int, str], Any],
    part: int,
) -> Tensor:
    """Images under a condition; what is drawn for a shift is kept in ``draws`` while its severities are asked."""
    from evaluation.shifts import shift
    from pipeline.models.draws import draw

    if condition is None:
        return x
    name, severity = condition
    if (part, name) not in draws:
        for key in [key for key in draws if key[1] != name]:
            del draws[key]
        draws[part, name] = draw(name, seeds, x, parameters[name])
    return shift(x, name, severity, draws[part, name])

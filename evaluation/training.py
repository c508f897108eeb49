"""Training to convergence: many classifiers side by side, each until held-out patients gain nothing more from it.

The learning rate is constant after a short rise, and what is judged is the average of the weights over the last part of the training
(Polyak & Juditsky 1992), so that a training can end whenever its plateau is reached: no schedule has to know its length beforehand.
Images lie on the device, what is drawn is drawn beforehand, and nothing waits for the device within the loop. On a GPU one step of all
networks is one CUDA graph with a branch for each; on a CPU each network has a core when its turn has come.
"""

from __future__ import annotations

import collections
import copy
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluation.augmentation import TONE, TURN, ZOOM, augmented, shift
from evaluation.classifiers import Classifier, Kind, Network, fast, make_classifier, one_a_core
from evaluation.data import Labelled
from evaluation.metrics import Floats

BATCH = 64
LEARNING_RATE = {"small": 4e-3, "resnet18": 5e-4}
WEIGHT_DECAY = 0.02
RISE = 16
"""Steps over which the learning rate rises."""
CHECK = 2048
"""Images between two looks at the held-out patients."""
LEAST = 16_384
"""Images without a gain before a training ends, at the least: the first batches leave the averaged network worse than chance, and a rare
finding is learned long after the common ones."""
PATIENCE = 0.33
"""A training ends when a third as many images again as it had at its best have brought no gain."""
GAIN = 0.03, 0.02
"""By how much the held-out loss has to fall to count as a gain: the larger of a share of it and nats."""
TEMPERATURES = torch.logspace(-0.5, 1.5, 41, dtype=torch.float64)
"""Tried on the held-out logits; the one of the least loss is built into the head (Guo et al. 2017, section 4.2). Without it, a network that
ranks ever better seems ever worse, since it grows too sure of the few that it gets wrong."""
AVERAGED_EVERY = 8
AVERAGED = 16.0
"""Sharpness of the average: it spans about a sixteenth of the training so far."""
TURN_STEPS = 8
"""Steps that a core takes of one network before the next one's turn."""
WARM_UP = 3
"""Steps taken before a CUDA graph is captured; libraries allocate and choose their kernels in the first ones."""


@dataclass(frozen=True)
class Task:
    """One network to train.

    Attributes:
        images: float32 ``[n, C, H, W]`` in -1..1; tasks that hold the same array share it on the device.
        labels: class indices ``[n]``, or several findings ``int8 [n, K]``: 1 present, 0 absent, -1 unknown, of which nothing is learned.
        classes: their number.
        seed: of initialisation and of all that is drawn.
        choose: held-out images on which the training's length is chosen, by other patients than ``images``.
        weights: how often each image is drawn, in proportion ``[n]``; by default every class equally often.
        before: other weights for the first part of the training, and its length in images.
        augment: turn, zoom, and change contrast and brightness as well as shift.
    """

    images: NDArray[np.float32]
    labels: NDArray[Any]
    classes: int
    seed: int
    choose: Labelled
    weights: Floats | None = None
    before: tuple[Floats, int] | None = None
    augment: bool = False


@dataclass(frozen=True)
class Trained:
    """A network that has been trained.

    Attributes:
        classifier: its best state by the held-out loss.
        curve: held-out loss at the best temperature (nats, classes weighing the same) by images seen.
        images: how many the best state had seen.
        plateau: whether the training ended by itself, and not at its ceiling.
    """

    classifier: Classifier
    curve: tuple[tuple[int, float], ...]
    images: int
    plateau: bool


def unfinished(trained: Sequence[Trained]) -> str | None:
    """Why nothing that such trainings say counts: one was still learning at its ceiling. None where each has reached its plateau."""
    if all(one.plateau for one in trained):
        return None
    return f"was still learning after {max(one.curve[-1][0] for one in trained):,} images, its ceiling"


def equal_classes(labels: NDArray[np.int64]) -> Floats:
    """Weights that draw every class equally often."""
    return np.asarray(1 / np.bincount(labels)[labels])


def train(
    tasks: Sequence[Task],
    *,
    kind: Kind,
    ceiling: int,
    device: str,
    together: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Trained]:
    """Train a network for every task with AdamW until it reaches its plateau, or has seen ``ceiling`` images.

    Args:
        together: nobody stops before all have reached their plateau, so that all have the same compute.
        progress: called with the images that the longest training has seen.

    Raises:
        ValueError: a task has no image, or no held-out one.
    """
    if any(not len(task.images) or not len(task.choose) for task in tasks):
        raise ValueError("no images to train a classifier on, or none to choose its length on")
    moved: dict[int, Tensor] = {}
    for array in (part for task in tasks for part in (task.images, task.choose.unit)):
        moved.setdefault(id(array), torch.from_numpy(np.ascontiguousarray(array)).to(device))
    whole = max(1, ceiling // BATCH)
    learners = one_a_core([functools.partial(Learner, task, kind, whole, device, moved) for task in tasks], device)
    run = _Lockstep(device)
    active, taken = learners, 0
    while active and taken < whole:
        steps = min(CHECK // BATCH, whole - taken)
        run(active, steps)
        taken += steps
        going = [learner for learner in learners if not learner.settled]
        active = going if not together or not going else learners
        if progress is not None:
            progress(taken * BATCH)
    return [learner.trained() for learner in learners]


def cross_entropy(logits: Tensor, truth: Tensor, reduction: str) -> Tensor:
    """Of classes ``[n]`` by softmax; of several findings ``[n, K]`` by a logistic each, the mean over those that are known."""
    if truth.ndim == 1:
        return functional.cross_entropy(logits, truth, reduction=reduction)
    known = truth >= 0
    each = functional.binary_cross_entropy_with_logits(logits, truth.clamp(min=0).to(logits.dtype), reduction="none")
    rows = (each * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
    return rows.mean() if reduction == "mean" else rows


class Learner:
    """One training whose step reads nothing from the host, so that it can be captured."""

    def __init__(self, task: Task, kind: Kind, steps: int, device: str, moved: dict[int, Tensor]) -> None:
        self.kind, self.device = kind, device
        network = make_classifier(kind, task.images.shape[1], task.classes, torch.Generator().manual_seed(task.seed))
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network).eval()
        self.mean, self.now = _floats(self.average), _floats(self.network)
        self.images, self.labels = moved[id(task.images)], torch.from_numpy(task.labels).to(device)
        self.several = task.labels.ndim == 2
        truth = task.choose.findings if self.several else task.choose.labels
        self.choose, self.truth = moved[id(task.choose.unit)], torch.from_numpy(truth).to(device)
        if self.several:
            self.weights = torch.full((len(truth),), 1 / len(truth), dtype=torch.float64, device=device)
        else:
            share = torch.bincount(self.truth, minlength=task.classes).double()
            self.weights = (1 / share)[self.truth] / (share > 0).sum()
        self.order, self.moves = (plan.to(device) for plan in _draw(task, steps))
        self.augment = task.augment
        rates = LEARNING_RATE[kind] * torch.arange(1, steps + 1).div(RISE).clamp(max=1)
        self.rates, self.step = rates.to(device), torch.zeros(1, dtype=torch.int64, device=device)
        graph = device == "cuda"
        self.rate = torch.zeros((), device=device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.rate if graph else 0.0, weight_decay=WEIGHT_DECAY, fused=True, capturable=graph
        )
        self.taken = 0
        self.curve: list[tuple[int, float]] = []
        self.best, self.least, self.gained = np.inf, np.inf, 0
        self.kept: dict[str, Tensor] = {}
        self.kept_at, self.temperature = 0, 1.0
        self.settled = False
        self.turn = 0 if task.before is None else task.before[1]

    def advance(self) -> None:
        """One optimiser step, of device work only."""
        rows, moves = (plan.index_select(0, self.step)[0] for plan in (self.order, self.moves))
        change = augmented if self.augment else shift
        batch = change(self.images[rows], moves).contiguous(memory_format=torch.channels_last)
        self.optimiser.zero_grad(set_to_none=True)
        with fast(self.device):
            cross_entropy(self.network(batch), self.labels[rows], "mean").backward()  # type: ignore[no-untyped-call]
        if self.device == "cuda":
            self.rate.copy_(self.rates.index_select(0, self.step)[0])
        else:
            self.optimiser.param_groups[0]["lr"] = float(self.rates[self.step])
        self.optimiser.step()
        self.step += 1

    def counted(self) -> None:
        """Count a step that was taken, and let it into the average when its turn has come."""
        self.taken += 1
        if self.taken % AVERAGED_EVERY and self.taken > 1:
            return
        share = min(1.0, AVERAGED * AVERAGED_EVERY / (self.taken + AVERAGED_EVERY))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.now, share)

    def check(self) -> None:
        """Score the averaged network on the held-out images, keep it where it is the best so far, and see whether it still gains."""
        (loss, temperature), seen = self._loss(), self.taken * BATCH
        self.curve.append((seen, loss))
        if seen <= self.turn:  # neither kept nor settled before it has seen what it is meant to end on
            return
        if not loss >= self.least:
            self.least, self.kept_at, self.temperature = loss, seen, temperature
            self.kept = {name: value.clone() for name, value in self.average.state_dict().items()}
        share, nats = GAIN
        if loss < self.best - (nats if math.isinf(self.best) else max(share * self.best, nats)):
            self.best, self.gained = loss, seen
        self.settled = self.settled or seen - self.gained >= max(LEAST, PATIENCE * self.gained)

    def trained(self) -> Trained:
        """The state that was kept."""
        self.average.load_state_dict(self.kept)
        with torch.no_grad():
            torch._foreach_div_(list(self.average.head.parameters()), self.temperature)
        network = self.average.to(memory_format=torch.channels_last)
        return Trained(Classifier(network, self.kind, self.device, self.several), tuple(self.curve), self.kept_at, self.settled)

    def _loss(self) -> tuple[float, float]:
        """The averaged network's held-out loss at its best temperature, and that temperature."""
        with torch.inference_mode(), fast(self.device):
            parts = [self.average(part.contiguous(memory_format=torch.channels_last)) for part in torch.split(self.choose, 512)]
            logits = torch.cat(parts).double()
            losses = torch.stack([cross_entropy(logits / t, self.truth, "none") for t in TEMPERATURES.tolist()])
            means = (self.weights * losses).sum(dim=1).cpu()
        if not bool(torch.isfinite(means).any()):
            return math.nan, 1.0
        best = int(means.nan_to_num(math.inf).argmin())
        return float(means[best]), float(TEMPERATURES[best])


class _Lockstep:
    """Takes learners through steps: on a CPU as many at a time as there are cores, on a GPU all at once by one CUDA graph."""

    def __init__(self, device: str) -> None:
        self.device, self.warm = device, 0
        self.members: list[Learner] = []
        self.graph: Callable[[], None] | None = None
        self.streams: list[torch.cuda.Stream] = []

    def __call__(self, learners: list[Learner], steps: int) -> None:
        """``steps`` steps of each learner and a look at its held-out images."""
        if self.device != "cuda":
            _in_turn(learners, steps)
            return
        if learners != self.members:
            self.members, self.graph = list(learners), None
        for _ in range(steps):
            if self.graph is None and self.warm >= WARM_UP:
                self.graph = self._captured()
            (self.graph or self._branches)()
            self.warm += 1
            for learner in learners:
                learner.counted()
        for learner in learners:
            learner.check()

    def _branches(self) -> None:
        """One step of each learner on a stream of its own, the present stream before and after."""
        present = torch.cuda.current_stream()
        while len(self.streams) < len(self.members):
            self.streams.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        for learner, stream in zip(self.members, self.streams):
            stream.wait_stream(present)
            with torch.cuda.stream(stream):
                learner.advance()
        for stream in self.streams[: len(self.members)]:
            present.wait_stream(stream)

    def _captured(self) -> Callable[[], None]:
        """A step of every learner as a CUDA graph; capturing takes no step. Where it fails, the same step launched from here."""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._branches()
        except RuntimeError as error:
            warnings.warn(f"the classifiers' step cannot be captured, which makes their training slower: {error}", stacklevel=2)
            return self._branches
        return graph.replay


def _in_turn(learners: Sequence[Learner], steps: int) -> None:
    """``steps`` steps of each learner and its look, some at a time by whichever core is free: three learners keep two cores busy."""
    waiting = collections.deque((learner, steps) for learner in learners)

    def work() -> None:
        while True:
            try:
                learner, left = waiting.popleft()
            except IndexError:  # What others hold they take to its end.
                return
            for _ in range(min(left, TURN_STEPS)):
                learner.advance()
                learner.counted()
            if left > TURN_STEPS:
                waiting.append((learner, left - TURN_STEPS))
            else:
                learner.check()

    one_a_core([work] * min(len(learners), torch.get_num_threads()), "cpu")


def _floats(network: Network) -> list[Tensor]:
    """Weights and the running statistics of normalisation."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def _draw(task: Task, steps: int) -> tuple[Tensor, Tensor]:
    """The whole training's image indices ``[steps, BATCH]``, and shifts ``[..., 2]`` or what :func:`augmented` takes ``[..., 6]``."""
    generator = torch.Generator().manual_seed(task.seed)
    m, height, width = steps * BATCH, *task.images.shape[-2:]
    even = np.ones(len(task.labels)) if task.labels.ndim == 2 else equal_classes(task.labels)
    weights = even if task.weights is None else task.weights
    parts = [(weights, m)]
    if task.before is not None:
        first = min(m, task.before[1])
        parts = [(task.before[0], first), (weights, m - first)]
    drawn = [torch.multinomial(torch.from_numpy(w), count, replacement=True, generator=generator) for w, count in parts if count]
    order = torch.cat(drawn).reshape(steps, BATCH)
    if task.augment:
        span = torch.tensor([TURN * torch.pi / 180, ZOOM, 1 / 8, 1 / 8, TONE, TONE])
        return order, (torch.rand((steps, BATCH, 6), generator=generator) * 2 - 1) * span
    reach = max(1, min(height, width) // 16)
    return order, torch.randint(-reach, reach + 1, (steps, BATCH, 2), generator=generator)

"""Training to convergence: many classifiers side by side, each until held-out patients gain nothing more from it.

What is judged is the average of the weights over the last part of the training (Polyak & Juditsky 1992), with normalisation of its own, so
that a training can end whenever its plateau is reached: no schedule has to know its length beforehand.
Images lie on the device, what is drawn is drawn beforehand, and nothing waits for the device within the loop. On a GPU one step of all
networks is one CUDA graph with a branch for each; on a CPU each network has a core when its turn has come.
"""

from __future__ import annotations

import collections
import copy
import functools
import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.augmentation import augmented, draw, shift
from evaluation.classifiers import Classifier, Kind, Network, fast, make_classifier, one_a_core
from evaluation.data import Labelled
from evaluation.metrics import Floats
from evaluation.muon import Muon
from evaluation.plateau import Plateau

BATCH = 64
LEARNING_RATE = {"small": 1.5e-2, "resnet18": 5e-4}
WEIGHT_DECAY = 0.02
RISE = 16
"""Steps over which the learning rate rises."""
FLAT = 16_384
"""Images after which the rate falls with their inverse square root, which takes noise from the weights and needs no length beforehand."""
CHECK = 2048
"""Images between two looks at the held-out patients."""
TEMPERATURES = torch.logspace(-0.5, 1.5, 41, dtype=torch.float64)
"""Tried on the held-out logits; the one of the least loss is built into the head (Guo et al. 2017, section 4.2). Without it, a network that
ranks ever better seems ever worse, since it grows too sure of the few that it gets wrong."""
NORMALISED = 4
"""Batches on which the averaged network's normalisation is measured."""
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
        family: trainings of one family end together, when the mean of their held-out losses gains nothing more: it swings less than each.
            Without one, a training ends by itself.
    """

    images: NDArray[np.float32]
    labels: NDArray[Any]
    classes: int
    seed: int
    choose: Labelled
    weights: Floats | None = None
    before: tuple[Floats, int] | None = None
    augment: bool = False
    family: Hashable = None


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
    """Train a network for every task until it or its family reaches its plateau, or has seen ``ceiling`` images.

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
    shared: dict[Hashable, Plateau] = {}
    plateaus = [Plateau() if task.family is None else shared.setdefault(task.family, Plateau()) for task in tasks]
    run = _Lockstep(device)
    active, taken = learners, 0
    while active and taken < whole:
        steps = min(CHECK // BATCH, whole - taken)
        run(active, steps)
        taken += steps
        for plateau in dict.fromkeys(plateaus):
            members = [learner for learner, its in zip(learners, plateaus) if its is plateau]
            if members[0] in active and taken * BATCH > max(learner.turn for learner in members):
                plateau.look(taken * BATCH, [learner.curve[-1][1] for learner in members])
        going = [learner for learner, its in zip(learners, plateaus) if not its.reached]
        active = going if not together or not going else learners
        if progress is not None:
            progress(taken * BATCH)
    return [learner.trained(its.reached) for learner, its in zip(learners, plateaus)]


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
        self.mean, self.now = _values(self.average), _values(self.network)
        for module in self.average.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
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
        at = torch.arange(1, steps + 1)
        rates = LEARNING_RATE[kind] * at.div(RISE).clamp(max=1) * (FLAT / BATCH / at).clamp(max=1).sqrt()
        self.rates, self.step = rates.to(device), torch.zeros(1, dtype=torch.int64, device=device)
        self.rate = torch.zeros((), device=device)
        self.optimisers = _optimisers(self.network, kind, self.rate)
        self.taken = 0
        self.curve: list[tuple[int, float]] = []
        self.least = math.inf
        self.kept: dict[str, Tensor] = {}
        self.kept_at, self.temperature = 0, 1.0
        self.turn = 0 if task.before is None else task.before[1]

    def advance(self) -> None:
        """One optimiser step, of device work only."""
        rows, moves = (plan.index_select(0, self.step)[0] for plan in (self.order, self.moves))
        self.network.zero_grad(set_to_none=True)
        with fast(self.device):
            loss = cross_entropy(self.network(self._batch(rows, moves)), self.labels[rows], "mean")
            loss.backward()  # type: ignore[no-untyped-call]
        self.rate.copy_(self.rates.index_select(0, self.step)[0])
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1

    def _batch(self, rows: Tensor, moves: Tensor) -> Tensor:
        """The images of these rows, moved."""
        change = augmented if self.augment else shift
        return change(self.images[rows], moves).contiguous(memory_format=torch.channels_last)

    def counted(self) -> None:
        """Count a step that was taken, and let it into the average when its turn has come."""
        self.taken += 1
        if self.taken % AVERAGED_EVERY and self.taken > 1:
            return
        share = min(1.0, AVERAGED * AVERAGED_EVERY / (self.taken + AVERAGED_EVERY))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.now, share)

    def check(self) -> None:
        """Score the averaged network on the held-out images, and keep it where it is the best so far."""
        self._normalise()
        (loss, temperature), seen = self._loss(), self.taken * BATCH
        self.curve.append((seen, loss))
        if seen <= self.turn:  # not kept before it has seen what it is meant to end on
            return
        if not loss >= self.least:
            self.least, self.kept_at, self.temperature = loss, seen, temperature
            self.kept = {name: value.clone() for name, value in self.average.state_dict().items()}

    def _normalise(self) -> None:
        """Take the averaged network's own statistics on the images last drawn: those of the networks it averages are not its own.

        (Izmailov et al. 2018, section 3.2.)
        """
        last = slice(max(0, self.taken - NORMALISED), self.taken)
        self.average.train()
        with torch.no_grad(), fast(self.device):
            self.average(self._batch(self.order[last].flatten(), self.moves[last].flatten(0, 1)))
        self.average.eval()

    def trained(self, plateau: bool) -> Trained:
        """The state that was kept."""
        self.average.load_state_dict(self.kept)
        with torch.no_grad():
            torch._foreach_div_(list(self.average.head.parameters()), self.temperature)
        network = self.average.to(memory_format=torch.channels_last)
        return Trained(Classifier(network, self.kind, self.device, self.several), tuple(self.curve), self.kept_at, plateau)

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


def _values(network: Network) -> list[Tensor]:
    return [weight.detach() for weight in network.parameters()]


def _optimisers(network: Network, kind: Kind, rate: Tensor) -> list[torch.optim.Optimizer]:
    """Muon for the small network's kernels, AdamW for all else, which share one learning rate.

    Orthogonalising the kernels of ResNet-18 would cost several times the rest of a step.
    """
    kernels = [weight for weight in network.parameters() if kind == "small" and weight.ndim == 4]
    others = [weight for weight in network.parameters() if kind != "small" or weight.ndim != 4]
    graph = rate.device.type == "cuda"
    adam = torch.optim.AdamW(others, lr=rate, weight_decay=WEIGHT_DECAY, fused=True, capturable=graph)
    return [Muon(kernels, rate, WEIGHT_DECAY), adam] if kernels else [adam]


def _draw(task: Task, steps: int) -> tuple[Tensor, Tensor]:
    """The whole training's image indices ``[steps, BATCH]``, and shifts ``[..., 2]`` or what :func:`augmented` takes ``[..., 6]``."""
    generator = torch.Generator().manual_seed(task.seed)
    m = steps * BATCH
    even = np.ones(len(task.labels)) if task.labels.ndim == 2 else equal_classes(task.labels)
    weights = even if task.weights is None else task.weights
    parts = [(weights, m)]
    if task.before is not None:
        first = min(m, task.before[1])
        parts = [(task.before[0], first), (weights, m - first)]
    drawn = [torch.multinomial(torch.from_numpy(w), count, replacement=True, generator=generator) for w, count in parts if count]
    order = torch.cat(drawn).reshape(steps, BATCH)
    return order, draw(steps, BATCH, min(task.images.shape[-2:]), task.augment, generator)

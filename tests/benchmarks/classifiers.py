"""Many classifiers trained at the same time on one GPU, each as :func:`evaluation.encoder.train_classifier` trains it.

Networks this small leave a GPU idle: a step of ResNet-18 on 64 images of 32 pixels is some hundreds of kernels of a few microseconds,
launched one by one from Python. Here one step of all networks is one CUDA graph with a parallel branch for each of them.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluation import encoder
from evaluation.data import Labelled
from evaluation.encoder import Classifier, Kind, Network
from evaluation.metrics import macro_auc

WARM_UP = 3
"""Steps taken before the capture; libraries allocate and choose their kernels in the first ones."""


@dataclass(frozen=True)
class Task:
    """One training; the fields are the arguments of :func:`evaluation.encoder.train_classifier`."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    seed: int
    classes: int
    val: Labelled | None = None


def train_all(tasks: Sequence[Task], *, kind: Kind, images_seen: int, device: str) -> list[Classifier]:
    """Train a classifier for every task; the other arguments are those of :func:`evaluation.encoder.train_classifier`."""
    if device != "cuda":
        jobs = [
            partial(
                encoder.train_classifier,
                task.images,
                task.labels,
                kind=kind,
                images_seen=images_seen,
                seed=task.seed,
                device=device,
                val=task.val,
                classes=task.classes,
            )
            for task in tasks
        ]
        return encoder.train_together(jobs, device)
    learners = [Learner(task, kind, images_seen, device) for task in tasks]
    lockstep(learners)
    return [learner.classifier() for learner in learners]


class Learner:
    """One training whose step reads nothing from the host, so that it can be captured."""

    def __init__(self, task: Task, kind: Kind, images_seen: int, device: str) -> None:
        self.kind, self.device, self.val = kind, device, task.val
        self.layout = torch.channels_last if device == "cuda" else torch.contiguous_format
        self.network = copy.deepcopy(untrained(kind, task.images.shape[1], task.classes, task.seed, device)).to(memory_format=self.layout)
        order, shifts = encoder._draw(task.labels, images_seen, max(1, task.images.shape[-1] // 16), task.seed)
        self.steps = len(order) // encoder.BATCH
        self.order = order.reshape(self.steps, encoder.BATCH).to(device)
        self.shifts = shifts.reshape(self.steps, encoder.BATCH, 2).to(device)
        self.images, self.labels = torch.from_numpy(task.images).to(device), torch.from_numpy(task.labels).to(device)
        peak = encoder.LEARNING_RATE[kind]
        self.rates = torch.tensor([peak * encoder.one_cycle((step + 1) / (self.steps + 1)) for step in range(self.steps)], device=device)
        self.rate, self.step = torch.zeros((), device=device), torch.zeros(1, dtype=torch.int64, device=device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.rate, weight_decay=encoder.WEIGHT_DECAY, fused=True, capturable=device == "cuda"
        )
        self.network.train()
        self.best = -math.inf
        self.kept: dict[str, Tensor] | None = None

    def advance(self) -> None:
        """One optimiser step, of device work only."""
        rows, shifts = (plan.index_select(0, self.step)[0] for plan in (self.order, self.shifts))
        batch = encoder.shift(self.images[rows], shifts).contiguous(memory_format=self.layout)
        self.rate.copy_(self.rates.index_select(0, self.step)[0])
        self.optimiser.zero_grad(set_to_none=True)
        with encoder._fast(self.device):
            functional.cross_entropy(self.network(batch), self.labels[rows]).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1

    def select(self) -> None:
        """Keep the present state where no earlier one scored better on the validation images, if there are any."""
        if self.val is None:
            return
        score = macro_auc(Classifier(self.network.eval(), self.kind, self.device).predict(self.val.unit), self.val.labels)
        if self.kept is None or math.isnan(score) or score >= self.best:
            self.best, self.kept = score, {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.train()

    def classifier(self) -> Classifier:
        """The network in the state that was kept, or the last."""
        if self.kept is not None:
            self.network.load_state_dict(self.kept)
        return Classifier(self.network.eval().to(memory_format=torch.channels_last), self.kind, self.device)


@functools.lru_cache(maxsize=64)
def untrained(kind: Kind, channels: int, classes: int, seed: int, device: str) -> Network:
    """The network that a seed starts from; drawing ResNet-18's 11 million weights on the host takes as long as fifty steps."""
    return encoder.make_classifier(kind, channels, classes, torch.Generator().manual_seed(seed)).to(device)


def lockstep(learners: Sequence[Learner]) -> None:
    """Take every learner through its steps, all of them at the same time; all have the same number."""
    steps = learners[0].steps
    selections = {max(1, round(share * steps)) for share in encoder.SELECT_AT}
    advance = functools.partial(branch, learners)
    for step in range(1, steps + 1):
        if step == WARM_UP + 1 and learners[0].device == "cuda":
            advance = captured(learners)
        advance()
        if step in selections:
            for learner in learners:
                learner.select()


def captured(learners: Sequence[Learner]) -> Callable[[], None]:
    """One step of every learner as a CUDA graph; capturing takes no step. Where it fails, the same step launched from here."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            branch(learners)
    except RuntimeError as error:
        print(f"the classifiers' step cannot be captured, which makes judging ten times as slow: {error}", flush=True)
        return functools.partial(branch, learners)
    return graph.replay


def branch(learners: Sequence[Learner]) -> None:
    """One step of each learner: on a GPU on a stream of its own, the present stream before and after."""
    if learners[0].device != "cuda":
        for learner in learners:
            learner.advance()
        return
    present = torch.cuda.current_stream()
    streams = side_streams(len(learners))
    for learner, stream in zip(learners, streams):
        stream.wait_stream(present)
        with torch.cuda.stream(stream):
            learner.advance()
    for stream in streams:
        present.wait_stream(stream)


_STREAMS: list[torch.cuda.Stream] = []


def side_streams(count: int) -> list[torch.cuda.Stream]:
    """As many streams as asked for, the same every time: what a stream has allocated is of use to it alone."""
    while len(_STREAMS) < count:
        _STREAMS.append(torch.cuda.Stream())
    return _STREAMS[:count]

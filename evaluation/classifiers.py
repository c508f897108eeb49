"""The classifiers behind every judgement: a small residual network for a CPU, and ResNet-18. :mod:`evaluation.training` trains them."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.precision import bf16_pays

Kind = Literal["small", "resnet18"]
Result = TypeVar("Result")
BATCH = 256
"""Images that a classifier is asked together on a CPU."""
PIXELS = 1 << 25
"""And on a GPU, which takes as long to be told of few as of many."""


class Network(nn.Module):
    """A trunk from images ``[n, C, H, W]`` to maps, pooled to features ``[n, D]``, and a linear head ``[n, K]``.

    Features and head stay in float32 under autocast: bfloat16 logits would tie, and ties cost AUC.

    Args:
        peaks: whether a map's maximum is added to its mean, which hardly shows a finding that takes up one place of many.
    """

    def __init__(self, trunk: nn.Module, width: int, classes: int, *, peaks: bool) -> None:
        super().__init__()
        self.trunk, self.peaks = trunk, peaks
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features, float32 ``[n, D]``."""
        maps = self.trunk(x).float()
        means: Tensor = maps.mean(dim=(2, 3))
        return means + maps.amax(dim=(2, 3)) if self.peaks else means

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 ``[n, K]``."""
        features = self.features(x)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.head(features)
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions and a skip (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        same = inputs == width and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.skip(x) + self.norm(self.second(self.first(x))))


def make_classifier(kind: Kind, channels: int, classes: int, generator: torch.Generator) -> Network:
    """An untrained classifier of images with side 16 or more.

    ``small``: 0.08 M parameters, 64 features (means and maxima of maps), strides 2, 2. ``resnet18``: torchvision's network (11.2 M
    parameters, 512 features) with its own stem of total stride 4 and only the input channels changed; the stride-1 stem that
    MedMNIST's baselines use costs 15 times as much at 32 px, which no CPU can afford for a table of corruptions.

    Raises:
        ValueError: the kind is neither.
    """
    with torch.device("meta"):  # Constructors draw from the global generator; here nothing is drawn before _initialise.
        if kind == "small":
            stem = nn.Sequential(nn.Conv2d(channels, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
            network = Network(nn.Sequential(stem, _Block(32, 32, 1), _Block(32, 64, 2)), 64, classes, peaks=True)
        elif kind == "resnet18":
            from torchvision.models import resnet18

            net = resnet18()
            net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            network = Network(nn.Sequential(*list(net.children())[:-2]), 512, classes, peaks=False)
        else:
            raise ValueError(f"no classifier {kind!r}: small or resnet18")
    return _initialise(network.to_empty(device="cpu"), generator)


def _initialise(network: Network, generator: torch.Generator) -> Network:
    """He et al. 2015 for convolutions, as torchvision does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    nn.init.normal_(network.head.weight, std=0.01, generator=generator)
    nn.init.zeros_(network.head.bias)
    return network


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        network: in evaluation mode, on ``device``.
        kind: its architecture.
        device: ``cpu`` or ``cuda``.
        several: whether an image can have several of the classes.
    """

    network: Network
    kind: Kind
    device: str
    several: bool = False

    def predict(self, images: NDArray[np.float32] | Tensor) -> NDArray[np.float64]:
        """Class probabilities ``[n, K]`` of images ``[n, C, H, W]`` in -1..1, of any device; of several findings, each one's own."""
        logits = self._apply(self.network, images).double()
        return (logits.sigmoid() if self.several else logits.softmax(dim=1)).numpy()

    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled features ``[n, D]`` of images ``[n, C, H, W]`` in -1..1."""
        return self._apply(self.network.features, images).numpy()

    def _apply(self, function: Callable[[Tensor], Tensor], images: NDArray[np.float32] | Tensor) -> Tensor:
        size = BATCH if self.device == "cpu" else max(1, PIXELS // math.prod(images.shape[1:]))

        def one(start: int) -> Tensor:
            batch = images[start : start + size]
            with torch.inference_mode(), fast(self.device):
                x = torch.from_numpy(np.ascontiguousarray(batch)) if isinstance(batch, np.ndarray) else batch
                return function(x.to(self.device).contiguous(memory_format=torch.channels_last))

        parts = one_a_core([functools.partial(one, start) for start in range(0, len(images), size)], self.device)
        return torch.cat(parts).cpu()


def one_a_core(jobs: Sequence[Callable[[], Result]], device: str) -> list[Result]:
    """Run jobs on as many cores as torch may use, each on one thread.

    Networks this small gain nothing from a second thread (measured: ResNet-18 320 images a second on two, 400 on one), lose
    most of their speed where another process holds the other core, and on one thread depend on no number of cores.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or threads == 1:
        return [job() for job in jobs]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda job: job(), jobs))
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def fast(device: str) -> Iterator[None]:
    """bfloat16 where it pays (two cores of an AMD EPYC with AVX512-BF16: 1.3 to 1.6 times float32's speed)."""
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16_pays(torch.device(device).type)):
        yield

"""One measurement of ``denoiser_speed``: a network at a size, its work counted, then timed in training and forward.

Work is counted by torch's FlopCounterMode on one image: two operations for each multiply-add of matrix products, convolutions and
attention, nothing else. A training step is reckoned as three forward passes of that, whatever is computed again in the backward pass.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evaluation.precision import bf16_pays
from pipeline import compilation, runtime
from pipeline.config import TrainConfig, load_config
from pipeline.diffusion.conditioning import Condition

EQUAL_WORK = {32: 11.7e9, 64: 46.9e9, 128: 191.9e9}
"""Operations of one image's forward pass by its side: those of MONAI's network of :func:`build`, 37 M parameters."""
TOLERANCE = 0.05
OURS = "widths=384,512;blocks=2;patch=2;attention=16"
TINY = "widths=16,32;blocks=1;patch=2;attention=4"
CLASSES = 2
BUILT_FOR = 64
"""Side that our network is built for at every size: its attention is then at the same depth everywhere, as the peers' is."""
READY, RESULT = "@ready", "@result "
Steps = Callable[[int], None]
"""Takes so many steps, without waiting for the device."""


class UnequalWork(Exception):
    """A network does more or less work than it is compared at."""


@dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
        network: ours, training (ours in the pipeline's own ``Training``), monai, diffusers or lucidrains; with ``-eager`` not compiled,
            ``monai-unfused`` with MONAI's own attention instead of torch's.
        size: side of the images.
        batch: images a step.
        spec: our network's, such as ``widths=256,512;blocks=3;patch=2;attention=16``.
        tiny: shrink the peers, and compile nothing.
        check: refuse unequal work.
        repeats: timings of which the median counts.
        seconds: each of them lasts, at least one step.
    """

    network: str
    size: int
    batch: int
    spec: str = OURS
    tiny: bool = False
    check: bool = True
    repeats: int = 5
    seconds: float = 1.0

    @property
    def ours(self) -> bool:
        """Whether it is our network."""
        return self.network in ("ours", "ours-eager", "training")

    @property
    def compiled(self) -> bool:
        """Whether the network is compiled."""
        return not self.tiny and not self.network.endswith("-eager")


def parse_spec(text: str) -> dict[str, Any]:
    """Arguments of :class:`pipeline.diffusion.unet.UNet` from ``key=value;...``: numbers, and lists where commas or nothing stand.

    Raises ValueError where a part is not ``key=number`` or ``key=number,number``.
    """
    arguments: dict[str, Any] = {"attention": (), "dropout": 0.0}
    for part in filter(None, text.split(";")):
        key, equals, value = part.strip().partition("=")
        if not equals:
            raise ValueError(f"{part!r} in {text!r} is not key=value, such as blocks=3")
        numbers = tuple(int(word) if word.strip().isdigit() else float(word) for word in value.split(",") if word.strip())
        arguments[key] = numbers if key in ("widths", "attention") else numbers[0]
    return arguments


def build(case: Case) -> nn.Module:
    """The case's untrained network for images of one channel.

    The peers' sizes are the plainest that do :data:`EQUAL_WORK`: for MONAI and diffusers 128, 256, 256, 256 channels, two blocks a level,
    attention at the two coarser ones.
    """
    from tests.benchmarks import peers

    common: dict[str, Any] = {"widths": (128, 256, 256, 256), "attention": (False, False, True, True), "blocks": 2, "head": 64}
    if case.tiny:
        common = {"widths": (16, 32), "attention": (False, True), "blocks": 1, "head": 16, "groups": 8}
    if case.ours:
        from pipeline.diffusion.unet import UNet

        return UNet(channels=1, classes=CLASSES, size=16 if case.tiny else BUILT_FOR, **parse_spec(case.spec))
    base, _, variant = case.network.partition("-")
    match base:
        case "monai":
            return peers.MonaiNetwork(1, CLASSES, flash=variant != "unfused", **common)
        case "diffusers":
            return peers.DiffusersNetwork(1, CLASSES, **common)
        case "lucidrains":
            width, factors = (16, (1, 2)) if case.tiny else (128, (1, 2, 4))
            return peers.LucidrainsNetwork(1, CLASSES, width=width, factors=factors)
    raise ValueError(f"no network {case.network!r}: ours, training, monai, diffusers or lucidrains")


def forward_work(network: nn.Module, size: int) -> int:
    """Operations of one image's forward pass, two for each multiply-add."""
    abstract = copy.deepcopy(network).to("meta").eval()
    image, level = torch.empty(1, 1, size, size, device="meta"), torch.empty(1, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        abstract(image, level, Condition.of_classes(torch.empty(1), CLASSES, "meta"))
    return int(counter.get_total_flops())


def check_work(work: float, size: int) -> None:
    """Raise UnequalWork unless ``work`` is :data:`EQUAL_WORK` at this size, within :data:`TOLERANCE`."""
    if size not in EQUAL_WORK:
        raise UnequalWork(f"no work to be equal to is known at {size} px: choose among {', '.join(map(str, EQUAL_WORK))}")
    off = work / EQUAL_WORK[size] - 1
    if abs(off) > TOLERANCE:
        raise UnequalWork(
            f"{work / 1e9:.1f} GFLOP an image at {size} px are {off:+.1%} from {EQUAL_WORK[size] / 1e9:.1f}; ±{TOLERANCE:.0%} is equal work"
        )


class Bare:
    """A network's own training step and forward pass: nothing but the step that every library has.

    Training is a forward and a backward pass of a squared error, then fused AdamW. The batch stays the same, so that no data handling
    is timed.

    Args:
        network: F(x, c_noise, c).
        shape: of the batch, ``[n, C, H, W]``.
        compiled: what compiles a function of the network; nothing does where None.
        bf16: whether to run under autocast to bfloat16.
        layout: memory format of the network and of the batch.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        device: str,
        *,
        compiled: Callable[..., Any] | None,
        bf16: bool,
        layout: torch.memory_format,
    ) -> None:
        self.network = network.to(device).to(memory_format=layout)
        self.autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=bf16)
        self.call: Callable[..., Tensor] = compiled(self.network, self.network) if compiled else self.network
        self.x = torch.randn(shape, device=device).contiguous(memory_format=layout)
        self.target = torch.randn(shape, device=device)
        self.inputs = torch.randn(shape[0], device=device), Condition.of_classes(torch.randint(CLASSES, shape[:1]), CLASSES, device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)

    def train(self, steps: int) -> None:
        """Optimiser steps."""
        self.network.train()
        for _ in range(steps):
            with self.autocast():
                loss = (self.call(self.x, *self.inputs).float() - self.target).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def forward(self, steps: int) -> None:
        """Forward passes."""
        self.network.eval()
        for _ in range(steps):
            with self.autocast():
                self.call(self.x, *self.inputs)


def real_training(network: nn.Module, section: TrainConfig, shape: tuple[int, ...], device: str, count: int = 4096) -> Steps:
    """The pipeline's own training of a network: a configuration's recipe on a set of ``count`` random images, in batches of ``shape``."""
    from pipeline.diffusion.objectives import Denoiser
    from pipeline.diffusion.training import Training
    from pipeline.train import recipe

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *shape[1:]), generator=generator, dtype=torch.uint8)
    condition = Condition.of_classes(torch.randint(CLASSES, (count,), generator=generator), CLASSES)
    denoiser = Denoiser(network, torch.zeros(shape[1:]), 0.5).to(device).to(memory_format=torch.channels_last)
    how = dataclasses.replace(recipe(section), images=10**12, batch=shape[0])
    training = Training(denoiser, images.to(device), condition, how, 0)
    return lambda steps: training.run(until=training.step + steps, every=10**9)


@dataclass
class Prepared:
    """A case that is compiled and warm."""

    facts: dict[str, Any]
    train: Steps
    forward: Steps | None


def prepare(case: Case, device: str) -> Prepared:
    """Build, count, compile and warm up.

    A peer that does not compile runs as it is, and its facts say so; ours is then an error.

    Raises:
        UnequalWork: see :func:`check_work`.
    """
    torch.manual_seed(0)
    network = build(case)
    work = forward_work(network, case.size)
    if case.check:
        check_work(work, case.size)
    bf16 = bf16_pays(device)
    facts: dict[str, Any] = {"gflop": work / 1e9, "parameters": sum(p.numel() for p in network.parameters())}
    facts["precision"] = "bf16" if bf16 else "fp32"
    facts["compiled"] = case.compiled
    shape = (case.batch, 1, case.size, case.size)
    if case.network == "training":
        section = load_config("pneumoniamnist", ["train.augment=0", f"train.compile={str(case.compiled).lower()}"]).train
        made = Prepared(facts, real_training(network, section, shape, device), None)
    else:
        # Channels-last memory is faster compiled, and slower as it is.
        layout = torch.channels_last if case.compiled else torch.contiguous_format
        how = compilation.compiled if case.ours else lambda function, network: torch.compile(function)  # ours as the pipeline does
        compiled = how if case.compiled else None
        bare = Bare(network, shape, device, compiled=compiled, bf16=bf16, layout=layout)
        made = Prepared(facts, bare.train, bare.forward)
    reason = ""
    try:
        warm_up(made, device)
    except Exception as error:
        if case.ours or not case.compiled or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = first_line(error)
    if reason:
        bare = Bare(build(case), shape, device, compiled=None, bf16=bf16, layout=torch.contiguous_format)
        made = Prepared(facts | {"compiled": False, "compile_error": reason}, bare.train, bare.forward)
        warm_up(made, device)
    return made


def warm_up(made: Prepared, device: str, tries: int = 15) -> None:
    """Take enough steps to compile and capture, and give the memory back that other processes may need to do the same.

    What does not fit beside them now is tried again: each needs its memory for seconds only.
    """
    for steps in (made.train, made.forward):
        if steps is None:
            continue
        while not _fits(steps, device):
            tries -= 1
            if not tries:
                raise torch.OutOfMemoryError("no room beside the other processes")
            time.sleep(2)
    if device == "cuda":
        torch.cuda.empty_cache()


def _fits(steps: Steps, device: str) -> bool:
    """Whether a few steps found the memory that they need."""
    from pipeline.diffusion.training import BatchTooLarge

    try:
        steps(5)
        wait(device)
        return True
    except (torch.OutOfMemoryError, BatchTooLarge):
        fits = False
    if device == "cuda":  # outside of the handler, whose traceback would keep the memory
        torch.cuda.empty_cache()
    return fits


def timings(steps: Steps, batch: int, device: str, *, repeats: int, seconds: float) -> dict[str, float]:
    """Images a second: the median of ``repeats`` timings of so many seconds each, and their extremes."""

    def timed(count: int) -> float:
        began = time.perf_counter()
        steps(count)
        wait(device)
        return time.perf_counter() - began

    timed(2)
    count = max(1, round(2 * seconds / timed(2)))
    rates = [count * batch / timed(count) for _ in range(repeats)]
    return {"median": float(np.median(rates)), "low": min(rates), "high": max(rates)}


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(case: Case, made: Prepared, device: str) -> dict[str, Any]:
    """The case's row: its facts and timings.

    cuDNN chooses its algorithms by trying them, as the pipeline's training lets it, and only now, when the device is not shared.
    """
    torch.backends.cudnn.benchmark = True
    how = {"repeats": case.repeats, "seconds": case.seconds}
    row = {"train": timings(made.train, case.batch, device, **how)}
    if made.forward is not None:
        row["forward"] = timings(made.forward, case.batch, device, **how)
    return made.facts | row


def serve(case: Case) -> None:
    """Prepare, say :data:`READY`, and measure once a line comes in: so that others can compile meanwhile, and nobody when it counts.

    What did not fit into memory beside the others is prepared again when this case is alone.
    """
    runtime.limit_threads()
    device = runtime.device()
    began = time.perf_counter()
    try:
        made = prepare(case, device)
    except torch.OutOfMemoryError:
        made = None
    print(READY, flush=True)
    took = time.perf_counter() - began
    sys.stdin.readline()
    began = time.perf_counter()
    row = measure(case, made or prepare(case, device), device)
    seconds = {"prepare_seconds": round(took, 1), "measure_seconds": round(time.perf_counter() - began, 1)}
    print(RESULT + json.dumps(row | seconds), flush=True)


def first_line(error: BaseException) -> str:
    """What went wrong, in a line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


if __name__ == "__main__":
    serve(Case(**json.loads(sys.argv[1])))

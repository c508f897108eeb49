"""What the quality benchmarks share: the data, the clock of pure training time, our recipe, and samples as files.

The official training split is divided into ``train`` and ``audit`` (2:1) as the pipeline's ingest does; the official validation images
fit the encoder, the official test images score the classifiers. Compilation, snapshots, generation and judging are not on the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Config, GenerateConfig, load_config
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.mixture import Mixture
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Training
from pipeline.generate import Sampling, starts_on_mixture
from pipeline.images import ImageSet
from pipeline.progress import Reporter
from pipeline.runner import run_stages
from pipeline.train import describe, mean_and_spread, mixture_of, recipe
from tests.benchmarks.claims import claimed

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
State = dict[str, Tensor]
Generate = Callable[[State, Labels, list[int]], Images]

SPLITS = ("train", "audit", "val", "test")
TIMED = 4712
"""Images whose generation is timed, as the peers' were in REFERENCE.md."""
CHUNK = 0.5
"""Seconds of training between two looks at the clock."""
TINY = (
    "train.widths=[16,32]",
    "train.blocks=1",
    "train.batch=16",
    "train.compile=false",
    "generate.steps=5",
    "generate.batch=64",
    "evaluate.classifier=small",
    "evaluate.seeds=2",
)
"""Settings under which a benchmark runs through on a CPU in a minute or two, to no other end than that it runs through."""


def common_options(parser: argparse.ArgumentParser) -> None:
    """The options of all quality benchmarks."""
    parser.add_argument("--data", type=Path, help="folder with pneumoniamnist.npz; without it (and with --tiny), phantoms")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="only print what the records in --out say")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    parser.add_argument("--classifier-images", type=int, default=None, help="images seen in training each judging classifier")


def configuration(options: argparse.Namespace, extra: Sequence[str] = ()) -> Config:
    """The shipped PneumoniaMNIST configuration with the command line's settings; phantoms where ``--tiny`` has no ``--data``."""
    where = [f"ingest.path={options.data}"] if options.data else []
    if not options.data:
        if not options.tiny:
            raise SystemExit("--data FOLDER is needed: the folder that holds pneumoniamnist.npz (or --tiny for phantoms)")
        where = ["ingest.source=phantom", "ingest.phantom_patients=240", "ingest.size=16"]
    return load_config("pneumoniamnist", [*where, *(TINY if options.tiny else ()), *options.overrides, *extra])


def load_sets(config: Config, kept: Path | None = None) -> dict[str, ImageSet]:
    """The four splits, through the pipeline's own ingest; with ``kept``, a folder, once for all processes and calls that name it."""
    # Each seed has splits of its own, and nothing of them stays; in other processes they are the same, which they are under one key.
    own = {"SYNTHCOHORT_KEY": "the key of benchmarks, which keep nothing"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run" if kept is None else kept
        stack.enter_context(mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=f"{folder}.cohorts", **own))
        stack.enter_context(claimed(folder.parent, f"{folder.name}.ingest", wait=True))
        folder.mkdir(parents=True, exist_ok=True)
        run_stages(config, folder, Reporter(folder / "log.jsonl"), until="ingest")
        everyone = ImageSet.load(folder / "ingest")
        return {name: everyone.split(name) for name in SPLITS}


@dataclass(frozen=True)
class Snapshot:
    """Averaged weights at one time of a training.

    Attributes:
        asked: seconds of pure training after which it was asked for.
        seconds: when it was taken: at the first look at the clock after that, or at the training's end.
        images: images seen by then.
        state: the weights, on the device.
    """

    asked: float
    seconds: float
    images: int
    state: State


@dataclass(frozen=True)
class Trained:
    """A recipe after training: its snapshots, and how images come from the weights of one.

    Attributes:
        warm: images of a call that warms ``generate`` up; all of them where None.
    """

    snapshots: list[Snapshot]
    generate: Generate
    facts: dict[str, Any]
    warm: int | None = None


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def take_snapshots(
    advance: Callable[[int], int],
    snapshot: Callable[[], State],
    at: Sequence[float],
    *,
    batch: int,
    device: str,
    plan: Callable[[int], None] = lambda steps: None,
    warm: tuple[int, int] = (12, 20),
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Snapshot], float]:
    """Train, and take a snapshot at each of the times ``at``, in seconds of pure training.

    The first steps compile. They count as training at the rate of the steps after them, and so do not go unpaid.

    Args:
        advance: takes so many optimiser steps and returns how many it took (fewer at the training's end).
        plan: told again and again how many steps the whole training will have, for recipes whose learning rate ends with it.
        warm: steps that compile and warm up, and steps that measure the first rate.

    Returns:
        The snapshots, and the images a second at the end.
    """

    def timed(steps: int) -> tuple[int, float]:
        wait(device)
        began = clock()
        taken = advance(steps)
        wait(device)
        return taken, clock() - began

    advance(warm[0])
    steps, spent = timed(warm[1])
    rate = steps / spent
    steps, spent = steps + warm[0], spent + warm[0] / rate
    snapshots = []
    for target in sorted(at):
        while spent < target:
            rate = steps / spent
            plan(steps + max(1, round(rate * (max(at) - spent))))
            taken, seconds = timed(max(1, int(rate * min(CHUNK, target - spent))))
            if not taken:
                break
            steps, spent = steps + taken, spent + seconds
        snapshots.append(Snapshot(target, spent, steps * batch, snapshot()))
    return snapshots, batch * steps / spent


@dataclass(frozen=True)
class Ours:
    """Our recipe after training: one denoiser, and the weights of its snapshots."""

    denoiser: Denoiser
    model: dict[str, Any]
    snapshots: list[Snapshot]
    facts: dict[str, Any]
    device: str
    mixture: Mixture
    loaded: list[State] = field(default_factory=list)
    """The snapshot's state that the denoiser has now."""

    def sampled(self, section: GenerateConfig, guide: Denoiser | None = None) -> Trained:
        """With the generate stage's own sampling under a configuration, in its batches; away from ``guide`` where there is one."""

        sampling = Sampling(self.denoiser, self.model, section, self.device, guide, self.mixture if starts_on_mixture(section) else None)

        def asked(labels: Labels, seeds: list[int]) -> Images:
            return sampling(Condition.of_classes(labels, len(self.model["classes"])), seeds)

        def generate(state: State, labels: Labels, seeds: list[int]) -> Images:
            self.use(state)
            return in_batches(asked, labels, seeds, even_batch(section.batch))

        return Trained(self.snapshots, generate, self.facts | {"sampler": section.model_dump(mode="json")})

    def use(self, state: State) -> Denoiser:
        """The denoiser with a snapshot's weights."""
        if not self.loaded or self.loaded[0] is not state:
            self.denoiser.load_state_dict(state)
            self.loaded[:] = [state]
        return self.denoiser

    def save(self, folder: Path, seed: int) -> None:
        """Keep the snapshots' weights: ``weights_seed<seed>_<seconds>.safetensors``, beside the model's description."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"weights_seed{seed}.json").write_text(json.dumps(self.model))
        save_file(self.mixture.state(), folder / f"mixture_seed{seed}.safetensors")
        for one in self.snapshots:
            state = {name: value.cpu().contiguous() for name, value in one.state.items()}
            about = {"asked": f"{one.asked}", "seconds": f"{one.seconds}", "images": f"{one.images}"}
            save_file(state, folder / f"weights_seed{seed}_{one.asked:g}.safetensors", about)

    @classmethod
    def load(cls, folder: Path, seed: int, device: str) -> Ours:
        """What :meth:`save` kept. Raises FileNotFoundError where there is none."""
        model = json.loads((folder / f"weights_seed{seed}.json").read_text())
        snapshots = []
        for path in folder.glob(f"weights_seed{seed}_*.safetensors"):
            with safe_open(path, "pt", device=device) as file:
                about = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            snapshots.append(Snapshot(float(about["asked"]), float(about["seconds"]), int(about["images"]), state))
        denoiser = build_denoiser(model).to(device).eval().requires_grad_(False)
        mixture = Mixture(**load_file(folder / f"mixture_seed{seed}.safetensors", device=device))
        return cls(denoiser, model, sorted(snapshots, key=lambda one: one.asked), {"weights": str(folder)}, device, mixture)


def train_ours(config: Config, train: ImageSet, at: Sequence[float], seed: int, device: str, warm: tuple[int, int] = (12, 20)) -> Ours:
    """Train the configuration's recipe, with snapshots of its moving average at the times ``at``.

    One training serves all snapshots: only its last one sees the end of the learning rate's decay.
    """
    mean, spread = mean_and_spread(train.images)
    model = describe(config.train, train, spread)
    torch.manual_seed(runtime.derive_seed(seed, "weights"))
    denoiser = build_denoiser(model, mean).to(device)
    data = torch.from_numpy(np.array(train.images)).to(device), Condition.of_classes(train.labels, len(train.classes))
    training = Training(denoiser, *data, recipe(config.train), runtime.derive_seed(seed, "training"))
    batch = config.train.batch

    def advance(steps: int) -> int:
        before = training.step
        training.run(until=before + steps, every=10**9)
        return training.step - before

    def plan(steps: int) -> None:
        training.recipe = dataclasses.replace(training.recipe, images=steps * batch)

    plan(10**6)
    snapshots, rate = take_snapshots(advance, training.averaged, at, batch=batch, device=device, plan=plan, warm=warm)
    denoiser.eval().requires_grad_(False)
    facts = {"parameters": sum(p.numel() for p in denoiser.parameters()), "images_per_second": rate}
    return Ours(denoiser, model, snapshots, facts, device, mixture_of(train, Conditions(train.classes), seed))


def even_batch(most: int) -> int:
    """The largest batch of at most ``most`` images that makes TIMED images in batches of one size."""
    return -(-TIMED // -(-TIMED // most))


def in_batches(make: Callable[[Labels, list[int]], Images], labels: Labels, seeds: list[int], size: int) -> Images:
    """Images in batches, of which the last is filled up and cropped: each has the shape that was compiled and captured."""
    made = []
    for start in range(0, len(labels), size):
        chosen, own = labels[start : start + size], seeds[start : start + size]
        full = np.arange(min(size, len(labels))) % len(own)
        made.append(make(chosen[full], [own[row] for row in full])[: len(own)])
    return np.concatenate(made)


def asked_for(train: ImageSet, count: int) -> Labels:
    """Classes of the images to generate: the training set's, in the order of :func:`shuffled`, as often as it takes."""
    return np.resize(train.labels[shuffled(train)], count)


def shuffled(train: ImageSet) -> NDArray[np.int64]:
    """The training images in an order in which any leading part has the mix of all."""
    return np.random.default_rng(0).permutation(len(train))


def image_seeds(seed: int, count: int) -> list[int]:
    """One seed an image, as the generate stage derives them."""
    return [runtime.derive_seed(seed, "image", number) for number in range(count)]


def time_generation(trained: Trained, state: State, labels: Labels, seeds: list[int], device: str) -> float:
    """The median time of three warm calls, in seconds; a call of more than two seconds is not repeated."""
    trained.generate(state, labels[: trained.warm], seeds[: trained.warm])
    times: list[float] = []
    while len(times) < 3 and (not times or times[-1] < 2):
        wait(device)
        began = time.perf_counter()
        trained.generate(state, labels, seeds)
        wait(device)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def slug(text: str) -> str:
    """A name fit for a file: letters, digits, and ``-`` for all else."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


@dataclass(frozen=True)
class Samples:
    """Generated images of one recipe and seed, by the seconds of training that they were asked for after.

    Attributes:
        labels: class of every image, the same at every time.
        images: ``uint8 [n, C, H, W]`` by time.
    """

    labels: Labels
    images: dict[float, Images]

    def save(self, folder: Path, recipe_name: str, seed: int) -> None:
        """Write one compressed file."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f"{seconds:g}": images for seconds, images in self.images.items()}
        np.savez_compressed(self.path(folder, recipe_name, seed), labels=self.labels, **arrays)

    @staticmethod
    def path(folder: Path, recipe_name: str, seed: int) -> Path:
        """Where the samples of a recipe and a seed lie."""
        return folder / f"samples_{slug(recipe_name)}_seed{seed}.npz"

    @classmethod
    def load(cls, folder: Path, recipe_name: str, seed: int) -> Samples:
        """What :meth:`save` wrote. Raises FileNotFoundError where there is none."""
        with np.load(cls.path(folder, recipe_name, seed)) as found:
            return cls(found["labels"], {float(name): found[name] for name in found.files if name != "labels"})


def digest(images: Images) -> str:
    """Tells sets of images apart, in sixteen letters."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]

"""What steps_vs_quality and guidance_tradeoff share: one trained model, points judged without any training, tables and pictures of them."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline import runtime
from pipeline.config import Config, GenerateConfig
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.guidance import guided
from pipeline.generate import levels_of, sampler_of
from pipeline.images import ImageSet
from tests.benchmarks import quality, report
from tests.benchmarks.judge import TINY, Judge, Protocol
from tests.benchmarks.quality import Images, Labels, Ours
from tests.benchmarks.quality_table import Value, over_seeds, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATHS = {
    "FD": ("frechet", "synthetic"),
    "FD ratio": ("frechet", "ratio"),
    "precision": ("prdc", "precision", "synthetic"),
    "recall": ("prdc", "recall", "synthetic"),
    "label fidelity": ("label_fidelity",),
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#8c510a", "#5e3c99")
"""Told apart by readers who see few colours (Okabe & Ito 2008), and three more."""


def options_of(
    description: str | None, arguments: list[str] | None, extra: Callable[[argparse.ArgumentParser], None]
) -> argparse.Namespace:
    """The command line of one of the two benchmarks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality.common_options(parser)
    parser.add_argument("--weights", type=Path, help="folder of time_to_quality --weights; without it, a model is trained here")
    parser.add_argument("--train-seconds", type=float, default=60.0, help="pure training time of that model")
    parser.add_argument("--seeds", default="0", help="seeds of the models, such as 0,1,2")
    parser.add_argument("--count", type=int, default=quality.even_batch(1500), help="images generated for each point")
    extra(parser)
    options = parser.parse_args(arguments)
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.tiny:
        options.count, options.train_seconds = 100, 2.0
    return options


@dataclass(frozen=True)
class Bench:
    """One seed's model and judge.

    Attributes:
        labels: class of every image to generate, the same at every point.
        seeds: one an image, the same at every point: points differ by what is compared alone.
    """

    seed: int
    config: Config
    run: Ours
    judge: Judge
    labels: Labels
    seeds: list[int]
    device: str

    def point(self, make: Callable[[Labels, list[int]], Images]) -> dict[str, Any]:
        """Generate and judge: seconds, and the measures of :data:`PATHS` among others."""
        quality.wait(self.device)
        began = time.perf_counter()
        images = make(self.labels, self.seeds)
        quality.wait(self.device)
        return {"seconds": time.perf_counter() - began, "result": self.judge.features_only(images)}


def benches(options: argparse.Namespace, sets: dict[str, ImageSet], config: Config, at: Sequence[float], device: str) -> Any:
    """A :class:`Bench` for every seed: weights from ``--weights``, or from a training with snapshots at the times ``at``."""
    for seed in options.seeds:
        if options.weights:
            run = Ours.load(options.weights, seed, device)
        else:
            run = quality.train_ours(config, sets["train"], at, seed, device, warm=(2, 4) if options.tiny else (12, 20))
        labels = quality.asked_for(sets["train"], options.count)
        protocol = TINY if options.tiny else Protocol(tests=1, images_seen=options.classifier_images or Protocol.images_seen)
        judge = Judge(sets, labels, seed, protocol, device)
        last = run.snapshots[-1]
        print(f"seed {seed}: model of {last.seconds:.1f} s of training, {last.images} images; judge ready", flush=True)
        yield Bench(seed, config, run, judge, labels, quality.image_seeds(seed, options.count), device)


def start(options: argparse.Namespace, benchmark: str) -> tuple[dict[str, ImageSet], Config, report.Record, str]:
    """Data, configuration, an open record, and the device."""
    runtime.limit_threads()
    config = quality.configuration(options)
    sets = quality.load_sets(config)
    n = {name: len(images) for name, images in sets.items()}
    record = report.Record(options.out, benchmark, report.facts() | {"n": n, "generated": options.count, "tiny": options.tiny})
    return sets, config, record, runtime.device()


def evaluations(section: GenerateConfig, sigma_data: float, guide: bool = False) -> int:
    """Network evaluations an image, counted: the configuration's sampler and guidance are run on a network that only counts."""
    count = 0

    def counting(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        nonlocal count
        count += len(x)
        return torch.zeros_like(x)

    interval = (section.guidance_interval[0] * sigma_data, section.guidance_interval[1] * sigma_data)
    condition = Condition.of_classes(torch.zeros(1), 1)
    denoise = guided(counting, condition, scale=section.guidance_scale, interval=interval, guide=counting if guide else None)
    levels = levels_of(section, sigma_data)
    sampler_of(section)(denoise, torch.zeros(1, 1, 2, 2), levels, lambda: torch.zeros(1, 1, 2, 2))
    return count


def collected(folder: Path, benchmark: str, keys: Sequence[str], tiny: bool) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The points of all runs by ``keys``: each measure of PATHS over the seeds as (value, low, high), ``seconds`` and ``evaluations``.

    Of two runs of one seed the newer counts.
    """
    points: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in report.load(folder, benchmark):
        if run["facts"].get("tiny", False) == tiny:
            for row in run["rows"]:
                points[tuple(row[key] for key in keys)][row["seed"]] = row
    return {key: summary(list(by_seed.values())) for key, by_seed in points.items()}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One point over its seeds."""

    def at(result: Any, path: tuple[str, ...]) -> Any:
        for step in path:
            result = result[step]
        return result

    values: dict[str, Any] = {name: over_seeds([at(row["result"], path) for row in rows]) for name, path in PATHS.items()}
    return values | {
        "seeds": len(rows),
        "seconds": float(np.median([row["seconds"] for row in rows])),
        "evaluations": rows[0]["evaluations"],
        "floor": over_seeds([row["result"]["frechet"]["floor"] for row in rows]),
    }


def heading(folder: Path, benchmark: str, tiny: bool) -> None:
    """When, on what and how the points were measured."""
    for run in report.load(folder, benchmark):
        facts = run["facts"]
        if facts.get("tiny", False) == tiny:
            print(f"{facts['date']}, {facts['hardware']}, torch {facts['torch']}, images {facts['n']}: {facts['command']}")
            print(f"{facts['generated']} images a point")


def middle(value: Value | None) -> float:
    """The value without its interval."""
    return float("nan") if value is None else value[0]


def picture(panels: int, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels in rows, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = panels // rows
    figure = Figure(figsize=(5.0 * columns, 4.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def logarithmic(axis: Axes) -> None:
    """A logarithmic vertical axis with plain numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def ticks(axes: Iterable[Axes], marks: Sequence[float]) -> None:
    """These marks alone on horizontal axes, as plain numbers."""
    for axis in axes:
        axis.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axis.minorticks_off()


def cells(point: dict[str, Any]) -> list[str]:
    """The measures of a point, with their interval where there are seeds enough for one of their mean."""
    return [shown(point[name]) if point["seeds"] >= 3 else f"{middle(point[name]):.3f}" for name in PATHS]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write the figure as SVG and as PNG."""
    for ending in ("svg", "png"):
        figure.savefig(folder / f"{name}.{ending}", dpi=150)
    print(f"drawn: {folder / name}.svg, .png", flush=True)

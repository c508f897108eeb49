"""Is the denoiser as good as what is known of the data, and do its answers vary as the data do? At converged sampling, lever by lever.

At each noise level, on images that were not trained on: the squared error of the denoiser beside that of the exact posterior mean of
the mixture of Gaussians that the train stage fits, and the slope of the image on the answer. An exact denoiser E[x | noisy] has slope
1 at every level (E[(x − D) D] = 0); above 1 its answers vary too little (they are shrunk, and images made with them under-dispersed),
below 1 too much, as those of a network do that learned the training images by heart. Then the Fréchet distance of what 8, 16 and 40
evaluations make, and the variance of those images over that of the held-out ones. Every training is followed by averages of several
widths at once.

    python -m tests.benchmarks.dispersion --data FOLDER --out results
    python -m tests.benchmarks.dispersion --data FOLDER --out results --variant "dropout .3:train.dropout=0.3" --variant "levels -1:mean=-1"
    python -m tests.benchmarks.dispersion --out results --table
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.data import to_unit
from pipeline import runtime
from pipeline.conditions import Conditions
from pipeline.config import Config, GenerateConfig
from pipeline.denoiser import build_denoiser
from pipeline.diffusion import schedules
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.mixture import Mixture
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import Training
from pipeline.images import ImageSet
from pipeline.train import describe, mean_and_spread, mixture_of, recipe
from tests.benchmarks import quality, report
from tests.benchmarks.judge import TINY, Judge, Protocol
from tests.benchmarks.quality import Ours, Snapshot

BENCHMARK = "dispersion"
LEVELS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0, 8.0)
"""Noise levels, in units of the data's standard deviation."""
WIDTHS = (0.03, 0.06, 0.1, 0.15, 0.2)
"""Widths of the averages."""
EVALUATIONS = (8, 16, 40)
VARIANTS = (
    "as shipped:",
    "dropout 0:train.dropout=0",
    "dropout .1:train.dropout=0.1",
    "dropout .3:train.dropout=0.3",
    "augment .1:train.augment=0.1",
    "augment .7:train.augment=0.7",
    "lower levels:mean=-1",
    "higher levels:mean=0",
    "more spread levels:std=1.7",
)
"""Levers: settings, and the mean and deviation of ln(sigma / sigma_data) in training, by which the levels' losses weigh."""
BATCH = 512


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality.common_options(parser)
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME:KEY=VALUE;KEY=VALUE", help=f"instead of {len(VARIANTS)} levers"
    )
    parser.add_argument("--part", default="0/1", help="I/N: only every N-th lever from the I-th on, to share them among devices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=quality.even_batch(1500) * 4, help="images generated for each point")
    parser.add_argument("--seconds", type=float, default=480, help="start no training after so many seconds")
    options = parser.parse_args(arguments)
    number, of = (int(part) for part in options.part.split("/"))
    options.variant = (options.variant or list(VARIANTS))[number::of]
    if options.tiny:
        options.count = 48
    return options


def posterior_mean(mixture: Mixture, x: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """E[image | x, class] of the mixture, x = image + sigma · noise ``float64 [n, C, ...]``: its exact denoiser.

    Each part's Gaussian shrinks x towards its mean, along every axis by variance / (variance + sigma²); parts weigh by their share and by
    how probable x is under them.
    """
    own = Mixture(**{name: value.to(x.device) for name, value in mixture.state().items()})
    directions, rest = own.components.flatten(1).double(), own.rest.double() ** 2
    made = torch.zeros_like(x).flatten(1)
    size, kept = made.shape[1], len(directions)
    for c in labels.unique():
        rows = labels == c
        points, begin = x[rows].flatten(1), int(own.first[c])
        bounds = own.bounds[c].double()
        shares = torch.diff(torch.cat([bounds.new_zeros(1), bounds[bounds.isfinite()], bounds.new_ones(1)]))
        logs, means = [], []
        for part, share in enumerate(shares, start=begin):
            offset = points - own.means[part].flatten().double()
            axes, variances = own.axes[part].double(), own.deviations[part].double() ** 2
            along = offset @ directions.T
            turned = along @ axes
            beside = offset - along @ directions
            noisy, others = variances + sigma**2, rest + sigma**2
            exponent = (turned.square() / noisy).sum(1) + beside.square().sum(1) / others + noisy.log().sum() + (size - kept) * others.log()
            logs.append(share.log() - exponent / 2)
            shrunk = (turned * (variances / noisy)) @ axes.T @ directions + beside * (rest / others)
            means.append(own.means[part].flatten().double() + shrunk)
        weights = torch.stack(logs).softmax(dim=0)
        made[rows] = (weights[:, :, None] * torch.stack(means)).sum(dim=0)
    return made.reshape(x.shape)


def told(images: Tensor, answers: Tensor, mean: Tensor) -> dict[str, float]:
    """Of answers to noisy images: the mean squared error, and the slope of the image on the answer, both about the data's mean image."""
    varied, real = (answers - mean).double(), (images - mean).double()
    return {
        "error": float((answers - images).double().square().mean()),
        "slope": float((real * varied).sum() / varied.square().sum()),
    }


@torch.inference_mode()
def by_level(denoiser: Denoiser, mixture: Mixture, images: ImageSet, device: str, levels: Sequence[float] = LEVELS) -> list[dict[str, Any]]:
    """At each level: what the denoiser and the mixture make of these images under fixed noise."""
    clean, labels = torch.from_numpy(to_unit(images.images)).to(device), torch.from_numpy(images.labels).to(device)
    condition = Condition.of_classes(images.labels, len(images.classes), device)
    found = []
    for number, level in enumerate(levels):
        sigma = level * denoiser.sigma_data
        generator = torch.Generator(device=device).manual_seed(number)
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator, device=device)
        answers = []
        for start in range(0, len(clean), BATCH):
            rows = slice(start, start + BATCH)
            with runtime.autocast(device):
                answers.append(denoiser(noisy[rows], noisy.new_full((len(noisy[rows]),), sigma), condition.take(rows)).float())
        exact = posterior_mean(mixture, noisy.double(), labels, sigma)
        by = {"network": told(clean, torch.cat(answers), denoiser.mean), "mixture": told(clean, exact, denoiser.mean)}
        found.append({"level": level} | by)
    return found


def trained(config: Config, variant: dict[str, float], sets: dict[str, ImageSet], seed: int, device: str) -> Ours:
    """A training with averages of all widths, each a snapshot (``asked`` is its width)."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    assert config.train is not None
    cohort, section = sets["train"], config.train
    mean, spread = mean_and_spread(cohort.images)
    model = describe(section, cohort, spread)
    torch.manual_seed(runtime.derive_seed(seed, "weights"))
    denoiser = build_denoiser(model, mean).to(device)
    images = torch.from_numpy(np.array(cohort.images)).to(device)
    condition = Condition.of_classes(cohort.labels, len(cohort.classes))
    training = Training(denoiser, images, condition, recipe(section), runtime.derive_seed(seed, "training"), cohort.duplicates)
    training.averages |= {width: [p.detach().clone() for p in training.parameters] for width in WIDTHS if width not in training.averages}
    drawn = functools.partial(schedules.training_sigmas, **variant)
    began = time.perf_counter()
    with mock.patch.object(schedules, "training_sigmas", drawn):
        training.run(every=10**9)
    quality.wait(device)
    seconds = time.perf_counter() - began
    snapshots = [Snapshot(width, seconds, section.length, training.averaged(width)) for width in sorted(training.averages)]
    denoiser.eval().requires_grad_(False)
    return Ours(denoiser, model, snapshots, {"seconds": seconds}, device, mixture_of(cohort, Conditions(cohort.classes), seed))


def measure(options: argparse.Namespace, record: report.Record, sets: dict[str, ImageSet], judge: Judge, device: str) -> None:
    """Every lever: levels and slopes at each width, then images at each number of evaluations."""
    began = time.perf_counter()
    labels, seeds = quality.asked_for(sets["train"], options.count), quality.image_seeds(options.seed, options.count)
    held_out = float(np.var(to_unit(sets["audit"].images), axis=0, dtype=np.float64).mean())
    for variant in options.variant:
        if time.perf_counter() - began > options.seconds:
            print(f"no time for {variant!r} and what follows", flush=True)
            return
        name, _, text = variant.partition(":")
        pairs = dict(part.split("=", 1) for part in text.split(";") if part)
        levers = {key: float(pairs.pop(key)) for key in ("mean", "std") if key in pairs}
        config = quality.configuration(options, [f"{key}={value}" for key, value in pairs.items()])
        ours = trained(config, levers, sets, options.seed, device)
        for count in EVALUATIONS:
            section = GenerateConfig(**config.generate.model_dump() | {"steps": count})
            sampling = ours.sampled(section)
            for one in ours.snapshots:
                images = sampling.generate(one.state, labels, seeds)
                made = float(np.var(to_unit(images), axis=0, dtype=np.float64).mean())
                point = {"variant": name, "seed": options.seed, "width": one.asked, "evaluations": count, "variance": made / held_out}
                point |= {"frechet": judge.features_only(images)["frechet"]}
                if count == EVALUATIONS[0]:
                    denoiser = ours.use(one.state)
                    point["held_out"] = by_level(denoiser, ours.mixture, sets["audit"], device)
                    point["trained_on"] = by_level(denoiser, ours.mixture, sets["train"], device)
                record.add(point)
                distance, floor = (point["frechet"][key]["value"] for key in ("synthetic", "floor"))
                spent = time.perf_counter() - began
                print(
                    f"{spent:6.0f} s  {name}, width {one.asked:g}, {count} evaluations: FD {distance:.3f} (floor {floor:.3f})", flush=True
                )


def table(rows: list[dict[str, Any]]) -> str:
    """Distances and variances by lever and width, then errors and slopes by level."""
    points: dict[tuple[str, float], dict[str, Any]] = {}
    for row in rows:
        point = points.setdefault((row["variant"], row["width"]), {})
        point[f"FD {row['evaluations']}"] = row["frechet"]["synthetic"]["value"]
        point[f"variance {row['evaluations']}"] = row["variance"]
        point |= {key: row[key] for key in ("held_out", "trained_on") if key in row}
    keys = [f"{kind} {count}" for kind in ("FD", "variance") for count in EVALUATIONS]
    first = report.markdown(["lever", "width", *keys], [[*key, *(point.get(one) for one in keys)] for key, point in points.items()])
    lines = []
    for (name, width), point in points.items():
        for at, seen in zip(point.get("held_out", ()), point.get("trained_on", ())):
            ratios = [side["network"]["error"] / side["mixture"]["error"] for side in (at, seen)]
            parted = at["network"]["error"] / seen["network"]["error"]
            lines.append([name, width, at["level"], *ratios, parted, at["network"]["slope"], at["mixture"]["slope"]])
    header = [
        "lever",
        "width",
        "level",
        "error / mixture's, held out",
        "trained on",
        "held out / trained on",
        "slope",
        "mixture's slope",
    ]
    return first + "\n\n" + report.markdown(header, lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure unless told not to, then print all that is there."""
    options = parse(arguments)
    if not options.table:
        runtime.limit_threads()
        device = runtime.device()
        sets = quality.load_sets(quality.configuration(options))
        labels: NDArray[np.int64] = quality.asked_for(sets["train"], options.count)
        protocol = TINY if options.tiny else Protocol(kind="small", tests=1, utility_seeds=2, full=False)
        judge = Judge(sets, labels, options.seed, protocol, device)
        record = report.Record(options.out, BENCHMARK, report.facts() | {"generated": options.count, "tiny": options.tiny})
        measure(options, record, sets, judge, device)
    print(table(report.rows(options.out, BENCHMARK)), flush=True)


if __name__ == "__main__":
    main()

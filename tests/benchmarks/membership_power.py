"""How well do shadow trainings tell members from non-members: by the weights, and by the released images alone?

Trains the configuration's recipe again and again, each time on a random part of PneumoniaMNIST's train + audit images as large as train,
and attacks each training with k others whose members are known. Beside it, on the same trainings: the shipped attack without shadows, and
the likelihood ratio with a fixed shrinkage of .7. Releases with planted leaks, which are training images put under noise and denoised
by their model, are searched for copies too.

    python -m tests.benchmarks.membership_power --data FOLDER --out results                      # train, attack and print
    python -m tests.benchmarks.membership_power --data FOLDER --out results --first 16 --trainings 8 --no-attack     # eight more
    python -m tests.benchmarks.membership_power --out results --table                            # only attack what is there
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.metrics import auc, tpr_at_fpr
from pipeline import runtime
from pipeline.config import Config
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.guidance import guided
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.schedules import sampling_levels
from pipeline.generate import sampler_of
from pipeline.images import ImageSet, from_unit
from pipeline.ingest.split import tie
from pipeline.shadow_training import Shadows
from pipeline.train import describe, mean_and_spread
from pipeline.wanted import wanted
from privacy import copy_report, lira, membership, shadows
from privacy.neighbours import Neighbourhoods
from tests.benchmarks import quality, report

BENCHMARK = "membership_power"
LEVELS = (0.025, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6)
"""Noise levels that are looked at; the attack's own are among them."""
DRAWS = {"plain": 4, "null": 2, "mirrored": 2}
"""Noise draws of each view: the image, without its condition, and mirrored."""
LEAKS = tuple((count, sigma) for count in (10, 30) for sigma in (0.25, 0.5))
"""Planted leaks: how many, and regenerated from which noise level."""
OTHERS = (4, 8, 15)
PLAIN = 6
"""Trainings that are attacked without shadows too."""

Floats = NDArray[np.float64]
Attack = Callable[[Floats, Floats, NDArray[np.bool_]], Floats]
Leak = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""A release, and which images of the pool leaked into it."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality.common_options(parser)
    parser.add_argument("--trainings", type=int, default=None, help="trainings to make now (default 16)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--images", type=int, default=600_000, help="length of each training, in images")
    parser.add_argument("--searched", type=int, default=1, help="trainings whose planted leaks are searched for copies too")
    parser.add_argument("--no-attack", action="store_true", help="train only; --table attacks what lies in --out, later and elsewhere")
    parser.add_argument("--seconds", type=float, default=500, help="start no training after so many seconds")
    options = parser.parse_args(arguments)
    options.trainings = options.trainings if options.trainings is not None else (6 if options.tiny else 16)
    return options


def say(text: str, began: float) -> None:
    """One line of progress."""
    print(f"{time.perf_counter() - began:7.1f} s  {text}", flush=True)


def pool_of(config: Config) -> tuple[ImageSet, NDArray[np.int64], int]:
    """Train and audit images together, what stays together among them, and how many train has."""
    import pandas as pd

    sets = quality.load_sets(config)
    parts = [sets[name] for name in ("train", "audit")]
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    pool = ImageSet(np.concatenate([np.asarray(part.images) for part in parts]), rows)
    return pool, tie(rows["patient"].astype(str).tolist(), rows["duplicate_group"].to_numpy()), len(parts[0])


class Trainings:
    """Trainings on random parts of a pool, what an attack sees of each, and their releases with planted leaks."""

    def __init__(self, options: argparse.Namespace, began: float) -> None:
        self.began, self.device = began, runtime.device()
        self.config = quality.configuration(options, settings(options))
        self.pool, self.units, size = pool_of(self.config)
        classes = len(self.pool.classes)
        self.sizes = np.round(np.bincount(self.pool.labels, minlength=classes) * size / len(self.pool)).astype(np.int64)
        model = describe(self.config.train, self.pool, mean_and_spread(self.pool.images)[1])
        self.shadows = Shadows(self.config, self.pool, model, self.device)
        self.neighbourhoods = Neighbourhoods(self.pool.images, self.device)
        self.asked = wanted(self.config, self.shadows.conditions)
        self.everyone = Labelled(np.asarray(self.pool.images), self.pool.findings, self.units)
        self.condition = Condition.of_classes(self.pool.labels, classes)
        say(f"{len(self.pool)} images in {self.units.max() + 1} units, {self.sizes.sum()} a training", began)

    def see(self, number: int, plain: bool) -> tuple[dict[str, NDArray[Any]], list[Leak], dict[str, Any]]:
        """Train; what is seen of it, its releases with leaks, and with ``plain`` what the attack without shadows finds."""
        # Each by itself, so that what the others saw tells nothing of it.
        inside = shadows.draw(self.units, self.pool.labels, self.sizes, 1, np.random.default_rng([2, number]))[0]
        denoiser = self.shadows.train(number, inside)
        quality.wait(self.device)
        say(f"training {number} on {inside.sum()} images", self.began)
        row: dict[str, Any] = {"training": number}
        given = denoiser, self.everyone.unit, self.condition
        with runtime.autocast(self.device):
            white = white_box(*given, self.device, self.config.train.batch)
            if plain:
                rng = np.random.default_rng(number)
                found = membership.attack(*given, inside, self.units, draws=4, rng=rng, device=self.device)
                row |= {"cheap_auc": found.auc.value, "cheap_tpr": found.tpr_at_1pct_fpr.value}
        released = self.shadows.release(self.asked)
        leaks = [leak(denoiser, self.config, self.everyone, inside, released, one, self.device) for one in LEAKS]
        around = np.stack([self.neighbourhoods.features(images) for images, _ in leaks])
        seen = {view: errors.astype(np.float32) for view, errors in white.items()}
        seen |= {"inside": inside, "units": self.units, "leaky": around.astype(np.float32)}
        seen |= {"black": self.neighbourhoods.features(released).astype(np.float32)}
        seen |= {f"planted_{place}": planted for place, (_, planted) in enumerate(leaks)}
        say("features", self.began)
        return seen, leaks, row


def settings(options: argparse.Namespace) -> list[str]:
    """What differs from the shipped configuration."""
    if options.tiny:
        return ["train.images=128", "generate.per_class=20"]
    return [f"train.images={options.images}", "generate.batch=3000"]  # one batch, and so one graph to capture


def make(options: argparse.Namespace, record: report.Record) -> None:
    """Train, and keep what an attack sees of each training in ``--out``; then search some releases with leaks for copies."""
    began = time.perf_counter()
    trainings = Trainings(options, began)
    to_search = []
    for number in range(options.first, options.first + options.trainings):
        if time.perf_counter() - began > options.seconds:
            say(f"no time for training {number} and those after it: --first {number}", began)
            break
        seen, leaks, row = trainings.see(number, plain=number < PLAIN)
        np.savez(options.out / f"seen_{number:03d}.npz", **seen)  # type: ignore[arg-type]
        record.add(row)
        if len(to_search) < options.searched:
            to_search.append((number, seen["inside"], leaks))
    for number, inside, leaks in to_search:
        for which, (images, planted) in zip(LEAKS, leaks):
            found = searched(trainings.everyone, inside, images, planted, trainings.device)
            say(f"copy search of training {number}, {which[0]} leaks from sigma {which[1]}: {found}", began)
            record.add({"searched": number, "leaks": which[0], "sigma": which[1], "found": found})


def white_box(denoiser: Denoiser, images: NDArray[np.float32], condition: Condition, device: str, batch: int) -> dict[str, Floats]:
    """Log errors by view, ``[n, levels, draws]``."""
    mirrored = np.ascontiguousarray(images[..., ::-1])
    views = {"plain": (images, condition), "null": (images, condition.null()), "mirrored": (mirrored, condition)}
    found = {}
    for view, asked in views.items():
        seeds = range(DRAWS[view])
        errors = [
            [membership.mean_error(denoiser, *asked, sigma, seeds=[seed], device=device, batch=batch) for seed in seeds] for sigma in LEVELS
        ]
        found[view] = np.log(np.array(errors)).transpose(2, 0, 1)
    return found


@torch.inference_mode()
def leak(
    denoiser: Denoiser,
    config: Config,
    everyone: Labelled,
    inside: NDArray[np.bool_],
    released: NDArray[np.uint8],
    which: tuple[int, float],
    device: str,
) -> Leak:
    """The release with some of its images replaced by members that were put under noise and denoised; and their numbers."""
    count, sigma = which
    chosen = np.random.default_rng(1).choice(np.flatnonzero(inside), count, replace=False)
    noise = torch.randn((count, *everyone.images.shape[1:]), generator=torch.Generator().manual_seed(1)).to(device)
    condition = Condition.of_classes(everyone.labels[chosen], everyone.classes, device)
    noisy = torch.from_numpy(everyone.unit[chosen]).to(device) + sigma * noise
    spread, lowest = denoiser.sigma_data, config.generate.levels[0]
    levels = sampling_levels("edm", config.generate.steps, spread, sigma, lowest * spread)
    with runtime.autocast(device):
        made = sampler_of(config.generate)(guided(denoiser, condition), noisy, levels, lambda: torch.randn_like(noisy))
    images = released.copy()
    images[:count] = from_unit(made.float().cpu().numpy())
    return images, chosen


def searched(everyone: Labelled, inside: NDArray[np.bool_], images: NDArray[np.uint8], planted: NDArray[np.int64], device: str) -> str:
    """How many of the planted leaks the copy search flags, of how many."""
    found = copy_report.find_copies(
        everyone.take(inside), everyone.take(~inside), images, planted=20, rng=np.random.default_rng(0), device=device
    )
    return f"{int((found.flagged | found.undecided)[: len(planted)].sum())} of {len(planted)}"


def fixed_shrinkage(target: Floats, others: Floats, inside: NDArray[np.bool_], shrinkage: float = 0.7) -> Floats:
    """The plainer likelihood ratio: means without and with, the latter shrunk to the former + the average shift, one covariance."""
    n_in, n_out = inside.sum(axis=0)[:, None], (~inside).sum(axis=0)[:, None]
    with_, without = (np.einsum("kn,knd->nd", side * 1.0, others) for side in (inside, ~inside))
    with_, without = with_ / np.maximum(n_in, 1), without / np.maximum(n_out, 1)
    shift = (with_ - without)[((n_in > 0) & (n_out > 0))[:, 0]].mean(axis=0)
    with_, without = np.where(n_in > 0, with_, without + shift), np.where(n_out > 0, without, with_ - shift)
    residual = np.where(inside[:, :, None], others - with_, others - without).reshape(-1, others.shape[2])
    precision = np.linalg.pinv(residual.T @ residual / len(residual))
    with_ = (1 - shrinkage) * with_ + shrinkage * (without + shift)
    near, far = (np.einsum("nd,de,ne->n", target - mean, precision, target - mean) for mean in (without, with_))
    return near - far


def likelihood_ratio(target: Floats, others: Floats, inside: NDArray[np.bool_]) -> Floats:
    """The product's."""
    return lira.fit(others, inside).score(target)


def features_of(seen: Sequence[dict[str, NDArray[Any]]]) -> dict[str, tuple[Floats, Attack]]:
    """By the attack's name, what it looks at, ``[T, n, d]``, and how."""
    errors = {view: np.stack([one[view] for one in seen]).astype(np.float64) for view in DRAWS}
    mean = {view: np.log(np.exp(values).mean(axis=-1)) for view, values in errors.items()}  # over the draws, as the product has it
    black = np.stack([one["black"] for one in seen]).astype(np.float64)
    own = [LEVELS.index(level) for level in shadows.LEVELS]
    each = errors["plain"].reshape(*black.shape[:2], -1)
    return {
        "weights, fixed shrinkage": (mean["plain"][..., own], fixed_shrinkage),
        "weights": (mean["plain"][..., own], likelihood_ratio),
        "weights, one draw": (errors["plain"][:, :, own, 0], likelihood_ratio),
        "weights, all levels": (mean["plain"], likelihood_ratio),
        "weights, + without condition": (np.concatenate([mean["plain"], mean["null"]], axis=2), likelihood_ratio),
        "weights, + mirrored": (np.concatenate([mean["plain"], mean["mirrored"]], axis=2), likelihood_ratio),
        "weights, all views": (np.concatenate(list(mean.values()), axis=2), likelihood_ratio),
        "weights, each draw": (each, likelihood_ratio),
        "images, fixed shrinkage": (black, fixed_shrinkage),
        "images": (black, likelihood_ratio),
    }


def attack(seen: Sequence[dict[str, NDArray[Any]]], record: report.Record) -> None:
    """Every attack on every training, with k others; then on the releases with planted leaks."""
    inside = np.stack([one["inside"] for one in seen])
    total, began = len(seen), time.perf_counter()
    rows: list[list[object]] = []
    for name, (features, how) in features_of(seen).items():
        for count in [k for k in OTHERS if k < total] or [total - 1]:
            found = []
            for target in range(total):
                others = np.random.default_rng([3, target]).permutation(np.delete(np.arange(total), target))[:count]
                guessed = how(features[target], features[others], inside[others])
                found.append([auc(guessed, inside[target]), *(tpr_at_fpr(guessed, inside[target], rate) for rate in (0.01, 0.001))])
            mean, deviation = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
            record.add({"attack": name, "others": count, "targets": total, "mean": mean.tolist(), "sd": deviation.tolist()})
            rows.append([name, count, *(f"{m:.3f} ± {d:.3f}" for m, d in zip(mean, deviation)), f"{np.min(found, axis=0)[0]:.3f}"])
            say(f"{name}, {count} others: AUC {mean[0]:.3f}, TPR {mean[1]:.3f} at 1 %, {mean[2]:.4f} at .1 %", began)
    header = ["attack", "others", "AUC", "TPR at 1 % FPR", "TPR at .1 % FPR", "lowest AUC"]
    print(f"\n{total} targets, mean ± standard deviation\n\n{report.markdown(header, rows)}\n", flush=True)
    leaks(seen, record)


def leaks(seen: Sequence[dict[str, NDArray[Any]]], record: report.Record) -> None:
    """What the attack on the images finds of planted leaks: by the AUC, among the most exposed, and at 1 % false alarms."""
    inside, units = np.stack([one["inside"] for one in seen]), seen[0]["units"]
    black = np.stack([one["black"] for one in seen]).astype(np.float64)
    rows = []
    for number, (count, sigma) in enumerate(LEAKS):
        found = []
        for target, one in enumerate(seen):
            others = np.delete(np.arange(len(seen)), target)
            guessed = lira.fit(black[others], inside[others]).score(one["leaky"][number].astype(np.float64))
            threshold = np.quantile(guessed[~inside[target]], 0.99)
            exposed = shadows.exposed(guessed, inside[target], units)
            seen_share = float((guessed[one[f"planted_{number}"]] > threshold).mean())
            found.append([auc(guessed, inside[target]), seen_share, exposed["p"] < 0.01])
        mean = np.mean(found, axis=0)
        record.add({"leaks": count, "sigma": sigma, "targets": len(seen), "auc": mean[0], "found": mean[1], "noticed": mean[2]})
        rows.append([count, sigma, *mean.tolist()])
    header = ["planted", "regenerated from σ", "AUC of all", "planted found at 1 % FPR", "sets noticed (p < .01)"]
    print(report.markdown(header, rows), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Train, then attack all that lies in ``--out``."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    record = report.Record(options.out, BENCHMARK, report.facts())
    if not options.table:
        make(options, record)
    paths = sorted(Path(options.out).glob("seen_*.npz"))
    seen = []
    for path in paths:
        with np.load(path) as found:
            seen.append(dict(found))
    cheap = [row for one in report.load(options.out, BENCHMARK) for row in one["rows"] if "cheap_auc" in row]
    if cheap:
        values = np.array([[row["cheap_auc"], row["cheap_tpr"]] for row in cheap])
        print(f"without shadows: AUC {values[:, 0].mean():.3f}, TPR {values[:, 1].mean():.3f} at 1 % ({len(values)} trainings)", flush=True)
    if len(seen) > shadows.FEWEST and not options.no_attack:
        attack(seen, record)


if __name__ == "__main__":
    main()

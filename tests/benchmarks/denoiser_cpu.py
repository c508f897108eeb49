"""The quickstart's denoiser beside MONAI's smallest comparable one on a CPU: images a second, then quality after equal training time.

Speed is that of the bare step (forward, backward, AdamW) at 32 px and batch 64 on a batch that stays the same, and for ours also of the
pipeline's own training loop on the phantoms. Quality: every recipe trains for the same seconds on the same phantoms and generates as many
images with the classes of held-out phantoms. A classifier trained on phantoms that no recipe saw gives the features of the Fréchet distance
and names the findings; a two-sample classifier tells generated from held-out images. The floor is another cohort in a recipe's place.

    python -m tests.benchmarks.denoiser_speed --cpu --peers --seconds 120 --out results
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from evaluation.data import Labelled
from evaluation.fidelity import frechet_distance, standardised_features
from evaluation.intervals import to_json
from evaluation.precision import bf16_pays
from evaluation.training import Task, train
from pipeline import runtime
from pipeline.config import Config, load_config
from pipeline.diffusion.unet import UNet
from pipeline.evaluate import labelled
from pipeline.images import ImageSet, finding_columns
from pipeline.phantom.anatomy import CLASSES
from pipeline.phantom.image import phantom_arrays
from pipeline.train import NETWORK
from tests.benchmarks import peer_training, quality, report
from tests.benchmarks.peers import MonaiNetwork
from tests.benchmarks.speed_cases import Bare, Steps, forward_work, real_training
from tests.benchmarks.two_sample import two_sample_test

MONAI = {"widths": (32, 64, 64), "attention": (False, False, True), "blocks": 1, "head": 64}
"""MONAI's smallest network of at least our parameters: 1.1 M. Group normalisation in 32 groups asks for multiples of 32 channels."""
BENCHMARK = "denoiser_cpu"
LOOP = "ours, training loop"
COHORTS = {"train": 0, "held_out": 101, "floor": 102, "judge": 103}
"""Seeds of the cohorts; no two share a patient."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the comparison is.

    Attributes:
        patients: of the training and of the judge's cohort; phantom patients have two images on average.
        generated: images of each recipe, and held out.
        judge_images: seen in training the judge's classifier.
        test_images: seen in training each two-sample classifier.
        batch: images a step.
        warm: steps that warm up, and that measure the first rate.
    """

    patients: int = 2200
    generated: int = 600
    judge_images: int = 60_000
    test_images: int = 12_000
    batch: int = 64
    warm: tuple[int, int] = (3, 10)


TINY = Size(patients=60, generated=40, judge_images=512, test_images=256, batch=8, warm=(1, 1))


def cohort(patients: int, seed: int, size: int) -> ImageSet:
    """Phantoms as the pipeline has them after ingest."""
    images, labels, patient = phantom_arrays(patients, seed, size)
    return ImageSet(
        images, pd.DataFrame({"id": np.arange(len(labels)).astype(str), "patient": patient, **finding_columns(labels, CLASSES)})
    )


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network, and how it is run."""

    name: str
    network: nn.Module
    bf16: bool = False
    compiled: bool = False
    layout: torch.memory_format = torch.contiguous_format


def variants(config: Config, peers: bool, compiled: bool) -> list[Variant]:
    """Ours as the pipeline runs it, and MONAI's in every way that may be its fastest."""
    low = bf16_pays("cpu")
    found = [Variant("ours", quickstart_network(config), low, layout=torch.channels_last)]
    if not peers:
        return found
    for bf16 in (False, True) if low else (False,):
        name = "MONAI, bf16" if bf16 else "MONAI, fp32"
        found.append(Variant(name, monai(), bf16))
        found.append(Variant(f"{name}, channels-last", monai(), bf16, layout=torch.channels_last))
        if compiled:
            found.append(Variant(f"{name}, channels-last, compiled", monai(), bf16, True, torch.channels_last))
    return found


def monai() -> MonaiNetwork:
    """MONAI's untrained network."""
    return MonaiNetwork(1, len(CLASSES), **MONAI)


def quickstart_network(config: Config) -> nn.Module:
    """The untrained network that the configuration describes."""
    section = {key: getattr(config.train, key) for key in (*NETWORK, "upsample")}
    return UNet(channels=1, classes=len(CLASSES), size=config.ingest.size, **section)


def speeds(config: Config, options: argparse.Namespace, size: Size, record: report.Record) -> None:
    """Training step and forward pass of every network, and our training loop, all with the memory settings of our train stage."""
    runtime.reuse_memory()
    shape = (size.batch, 1, config.ingest.size, config.ingest.size)
    networks, kinds = {}, {}
    for one in variants(config, options.peers, options.compile_peers):
        bare = Bare(
            one.network,
            shape,
            "cpu",
            compiled=(lambda function, network: torch.compile(function)) if one.compiled else None,
            bf16=one.bf16,
            layout=one.layout,
        )
        networks[one.name] = one.network
        kinds |= {(one.name, "train"): bare.train, (one.name, "forward"): bare.forward}
    networks[LOOP] = quickstart_network(config)
    kinds[LOOP, "train"] = real_training(networks[LOOP], config.train, shape, "cpu")
    rates = in_turn(kinds, size.batch, rounds=options.repeats, seconds=0.05 if options.tiny else 3.0)
    for name, network in networks.items():
        row: dict[str, Any] = {"kind": "speed", "recipe": name, "parameters": sum(p.numel() for p in network.parameters())}
        row["gflop"] = forward_work(network, config.ingest.size) / 1e9
        record.add(row | {kind: rates[name, kind] for kind in ("train", "forward") if (name, kind) in rates})


def in_turn(kinds: dict[Any, Steps], batch: int, *, rounds: int, seconds: float) -> dict[Any, list[float]]:
    """Images a second of each, once in every round: what else the machine does in a round slows them all, and leaves their ratios."""

    def timed(steps: Steps, count: int) -> float:
        began = time.perf_counter()
        steps(count)
        return time.perf_counter() - began

    counts = {}
    for key, steps in kinds.items():
        steps(1)
        counts[key] = max(1, round(seconds / timed(steps, 1)))
    rates: dict[Any, list[float]] = {key: [] for key in kinds}
    for _ in range(rounds):
        for key, steps in kinds.items():
            rates[key].append(counts[key] * batch / timed(steps, counts[key]))
    return rates


def qualities(config: Config, options: argparse.Namespace, size: Size, record: report.Record) -> None:
    """Every recipe's quality after ``options.seconds`` of training."""
    seconds, side = options.seconds or 120.0, config.ingest.size
    sets = {name: cohort(size.patients, seed + 1000 * options.seed, side) for name, seed in COHORTS.items()}
    judge = Judge(sets, size, options.seed)
    labels = judge.held_out.labels
    seeds = quality.image_seeds(options.seed, len(labels))
    record.add({"kind": "quality", "recipe": "floor: unseen phantoms"} | judge.floor())
    train = sets["train"]
    peer = {"batch": size.batch, "compiled": False, **MONAI}
    recipes: dict[str, Callable[[], quality.Trained]] = {
        "ours": lambda: quality.train_ours(config, train, [seconds], options.seed, "cpu", size.warm).sampled(config.generate)
    }
    if options.peers:
        recipes["MONAI, EDM, 18 Heun steps"] = lambda: peer_training.edm(train, [seconds], options.seed, "cpu", **peer)
        recipes["MONAI, textbook, DDIM-50"] = lambda: peer_training.textbook(train, [seconds], options.seed, "cpu", **peer)
    for name, make in recipes.items():
        trained = make()
        snapshot = trained.snapshots[-1]
        began = time.perf_counter()
        images = trained.generate(snapshot.state, labels, seeds)
        row = {"kind": "quality", "recipe": name, "seconds": round(snapshot.seconds, 1), "images": snapshot.images}
        row |= {"generate_seconds": round(time.perf_counter() - began, 1), "parameters": trained.facts["parameters"]} | judge(images)
        record.add(row)
        print(row, flush=True)


class Judge:
    """Judges images that have the classes of the held-out ones, in their order."""

    def __init__(self, sets: dict[str, ImageSet], size: Size, seed: int) -> None:
        self.size, self.seed = size, seed
        self.held_out = labelled(sets["held_out"].take(np.arange(len(sets["held_out"])) < size.generated))
        self.other = matched(labelled(sets["floor"]), self.held_out.labels)
        learn, choose = labelled(sets["judge"]).halves(seed)
        task = Task(learn.unit, learn.labels, len(CLASSES), seed, choose)
        self.classifier = train([task], kind="small", ceiling=size.judge_images, device="cpu")[0].classifier
        self.features = standardised_features(self.classifier.features, learn.unit)

    def floor(self) -> dict[str, Any]:
        """What unseen phantoms of the same classes score."""
        return self._measure(self.other)

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """What generated images ``uint8 [n, C, H, W]`` score."""
        return self._measure(Labelled.of_classes(images, self.held_out.labels, np.arange(len(images)).astype(str), len(CLASSES)))

    def _measure(self, made: Labelled) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        test = two_sample_test(made, self.held_out, kind="small", images_seen=self.size.test_images, rng=rng, device="cpu")
        named = self.classifier.predict(made.unit).argmax(axis=1)
        recalls = [float((named[made.labels == k] == k).mean()) for k in np.unique(made.labels)]
        return {
            "frechet": frechet_distance(self.features(made.unit), self.features(self.held_out.unit)),
            "two_sample": to_json(test.interval(rng)),
            "recognised": float(np.mean(recalls)),
        }


def matched(data: Labelled, labels: NDArray[np.int64]) -> Labelled:
    """The first images of ``data`` that have these classes, in their order."""
    waiting = {int(k): iter(np.flatnonzero(data.labels == k)) for k in np.unique(labels)}
    return data.take(np.array([next(waiting[int(k)]) for k in labels]))


def table(records: Sequence[dict[str, Any]]) -> str:
    """Speeds and qualities, medians with extremes; speeds over all rounds, their ratios within a round, to the run's fastest MONAI."""
    lines = [f"{record['facts']['date']}, {record['facts']['hardware']}, torch {record['facts']['torch']}" for record in records]
    speed, judged = _by_recipe(records, "speed"), _by_recipe(records, "quality")
    rows = []
    for name, found in speed.items():
        cells: list[object] = [name, round(found[-1][1]["parameters"] / 1e6, 2), round(found[-1][1]["gflop"], 3)]
        for kind in ("train", "forward"):
            timed = [(record, row) for record, row in found if kind in row]
            cells.append(_spread([rate for _, row in timed for rate in row[kind]], 0))
            cells.append(_spread([ratio for record, row in timed for ratio in _ratios(row, record, kind)], 2))
        rows.append(cells)
    header = ["network", "M parameters", "GFLOP", "train img/s", "× MONAI", "forward img/s", "× MONAI"]
    lines += ["", report.markdown(header, rows), ""]
    rows = []
    for name, found in judged.items():
        floors = [next(row["frechet"] for row in record["rows"] if row.get("recipe", "").startswith("floor")) for record, _ in found]
        cells = [name, _spread([row["images"] for _, row in found if "images" in row], 0)]
        cells.append(_spread([row["frechet"] for _, row in found], 2))
        cells.append(_spread([row["frechet"] / floor for (_, row), floor in zip(found, floors)], 2))
        cells.append(_spread([row["two_sample"]["value"] for _, row in found], 3))
        cells += [_spread([row["recognised"] for _, row in found], 3), _spread([row.get("generate_seconds") for _, row in found], 0)]
        rows.append(cells)
    header = ["recipe", "images seen", "Fréchet distance", "of the floor", "two-sample AUC", "recognised", "generated in s"]
    return "\n".join([*lines, report.markdown(header, rows)])


def _by_recipe(records: Sequence[dict[str, Any]], kind: str) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for record in records:
        for row in record["rows"]:
            if row["kind"] == kind:
                found.setdefault(row["recipe"], []).append((record, row))
    return found


def _ratios(row: dict[str, Any], record: dict[str, Any], kind: str) -> list[float]:
    """A row's speed over that of the run's fastest MONAI, round by round."""
    rivals = [one[kind] for one in record["rows"] if one["kind"] == "speed" and one["recipe"].startswith("MONAI") and kind in one]
    fastest = max(rivals, key=np.median, default=[])
    return [rate / other for rate, other in zip(row[kind], fastest)]


def _spread(values: Sequence[float | None], digits: int) -> str | None:
    """Median and, of several, extremes."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    middle = f"{np.median(known):.{digits}f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.{digits}f}–{max(known):.{digits}f})"


def main(options: argparse.Namespace) -> None:
    """Measure what is asked for, add it to ``--out``, print the table of all that is there."""
    size = TINY if options.tiny else Size()
    small = ["train.widths=[16,32]", "ingest.size=16", "generate.steps=4"] if options.tiny else []
    config = load_config("quickstart", [*small, f"train.batch={size.batch}"])
    if not options.table:
        record = report.Record(options.out, BENCHMARK, report.facts() | {"seconds": options.seconds, "seed": options.seed})
        if not options.quality_only:
            speeds(config, options, size, record)
        if not options.speed_only:
            qualities(config, options, size, record)
    print(table(report.load(options.out, BENCHMARK)))

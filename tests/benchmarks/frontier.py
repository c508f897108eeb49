"""How near to real does a cohort allow, before it is learned by heart? Fidelity against memorisation along the length of training.

Trainings on random halves of a cohort's train and audit images, one after the other in one module, are looked at along the way: what the
panel makes of their images beyond its floor, what a classifier trained on them is worth, how many are copies, and how well membership is
told by the weights, each training being attacked with the others. Marked is the length that `train.images: auto` keeps.

    python -m tests.benchmarks.frontier --config dicom_folder --set ingest.source=phantom --set ingest.phantom_patients=300 --out results
    python -m tests.benchmarks.frontier --config pneumoniamnist --set ingest.path=FOLDER --out results --first 4 --trainings 4
    python -m tests.benchmarks.frontier --out results --table                            # attack and draw what is there
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.intervals import interval, to_json
from evaluation.metrics import macro_auc_estimate
from evaluation.panel import panel
from evaluation.plain_features import plain_features
from evaluation.training import Task, train
from pipeline import fit_recipe, runtime
from pipeline.config import Config, load_config
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.diffusion.validation import Validation
from pipeline.evaluate import halves, labelled
from pipeline.fit_recipe import Course
from pipeline.images import ImageSet
from pipeline.ingest.split import tie
from pipeline.shadow_training import Shadows
from pipeline.train import describe, mean_and_spread
from pipeline.wanted import wanted
from privacy import shadows
from privacy.copy_report import find_copies
from tests.benchmarks import curves, quality, report

BENCHMARK = "frontier"
TINY = ("train.widths=[16]", "train.blocks=1", "train.batch=16", "train.attention=[]", "train.compile=false", "generate.steps=4")
STRIDE = 3
"""Of the course's moments, which grow by a quarter, those that are judged: each twice as long as the one before."""
DRAWS = 2
"""Noise draws of the attack on the weights."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="dicom_folder", help="the cohort and its recipe: a shipped configuration, or a file")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--name", default="cohort", help="the cohort's name in the picture")
    parser.add_argument("--images", type=int, default=None, help="length of each training (default: auto's ceiling)")
    parser.add_argument("--trainings", type=int, default=8, help="trainings to make now")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--every", type=int, default=1, help="from one number to the next: as many as there are devices at work")
    parser.add_argument("--judged", type=int, default=2, help="trainings whose images are generated and judged: the first ones")
    parser.add_argument("--per-class", type=int, default=300, help="images generated of each class")
    parser.add_argument("--classifier-images", type=int, default=60_000, help="images seen in training each judge, at the most")
    parser.add_argument("--seconds", type=float, default=500, help="start no training after so many seconds")
    parser.add_argument("--table", action="store_true", help="only attack and draw what lies in --out")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    return parser.parse_args(arguments)


class Frontier:
    """One cohort's trainings, and what is seen of them along the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, runtime.device()
        # The learning rate does not fall towards an end: every moment is the end of a training of that length.
        given = ["train.images=auto", "train.decay=0", "train.ema_snapshots=0", f"generate.per_class={options.per_class}"]
        config = load_config(options.config, [*options.overrides, *(TINY if options.tiny else ()), *given])
        sets = quality.load_sets(config)
        self.pool, self.units = pool_of(sets["train"], sets["audit"])
        assert config.train is not None
        settled = fit_recipe.fit(config.train, self.pool.take(np.arange(len(self.pool)) % 2 == 0), self.device)
        if options.images is not None:
            settled["fitted"]["images"] = options.images
        self.config: Config = config.model_copy(update={"train": fit_recipe.settled(config.train, settled)})
        assert self.config.train is not None
        self.section, self.first_look = self.config.train, fit_recipe.first_look(settled, config.train.batch)
        model = describe(self.section, self.pool, mean_and_spread(self.pool.images)[1])
        self.shadows = Shadows(self.config, self.pool, model, self.device)
        self.asked = wanted(self.config, self.shadows.conditions)
        self.everyone = dataclasses.replace(labelled(self.pool), groups=self.units)
        self.condition = Condition.of_classes(self.pool.labels, len(self.pool.classes))
        self.test = labelled(sets["test"])
        self.learn, self.choose = halves(labelled(sets["val"]), config.seed)
        self.about = {"fitted": settled["fitted"], "pool": len(self.pool), "name": options.name}

    def train(self, number: int, inside: NDArray[np.bool_], judged: bool) -> Iterator[tuple[int, dict[str, Any], NDArray[np.float64]]]:
        """Train on the images ``inside``; of each judged moment, the images seen, what is found, and what an attack sees of the weights."""
        training = self.shadows.begin(number, inside)
        validation = Validation(self.everyone.take(inside), self.choose, runtime.derive_seed(self.config.seed, "validation"))
        course = Course(validation, self.section.batch, self.first_look, training.recipe.steps)
        kept = 0
        for place, moment in enumerate(course.moments):
            training.run(until=moment)
            was_over = course.over
            facts = course.look(training)
            # What `auto` keeps is settled where it would have stopped; this training goes on.
            kept = kept if was_over else course.steps * self.section.batch
            if place % STRIDE and moment != course.moments[-1]:
                continue
            with averaged(training), runtime.autocast(self.device):
                seeds = [runtime.derive_seed(self.config.seed, "noise", draw) for draw in range(DRAWS)]
                given = training.denoiser, self.everyone.unit, self.condition
                seen = shadows.weights_features(*given, seeds=seeds, device=self.device, batch=self.section.batch)
                made = self.shadows.release(self.asked) if judged else None
            found = {"parted": facts["parted"]} | (self.judge(made, inside) if made is not None else {})
            yield moment * self.section.batch, found | {"kept": kept}, seen

    def judge(self, images: NDArray[np.uint8], inside: NDArray[np.bool_]) -> dict[str, Any]:
        """The panel, train on synthetic, and the copy search, on a training's images."""
        rng, labels, names = np.random.default_rng(0), self.asked.findings.argmax(axis=1), self.pool.classes
        made = Labelled.of_classes(images, labels, np.arange(len(images)), len(names))
        member, sealed = self.everyone.take(inside), self.everyone.take(~inside)
        told = {"splits": 1 if self.options.tiny else 3, "ceiling": self.options.classifier_images}
        panelled = panel(sealed, made, names, spaces={"plain": plain_features}, **told, rng=rng, device=self.device)
        copies = find_copies(member, sealed, images, planted=20, rng=rng, device=self.device, learn=self.learn)
        return {
            "above_floor": to_json(panelled.get("difference")),
            "worth": self.worth(made),
            "copies": int(copies.flagged.sum()),
            "of": len(images),
        }

    def worth(self, made: Labelled) -> float:
        """AUC on real test images of classifiers trained on these."""
        tasks = [Task(made.unit, made.labels, made.classes, seed, self.choose) for seed in range(1 if self.options.tiny else 3)]
        trained = train(tasks, kind="small", ceiling=self.options.classifier_images, device=self.device)
        scores = np.stack([one.classifier.predict(self.test.unit) for one in trained])
        return interval(macro_auc_estimate(scores, self.test.labels, self.test.groups)).value


@contextlib.contextmanager
def averaged(training: Training) -> Iterator[None]:
    """The denoiser with its averaged weights, in place, and as it was afterwards."""
    saved = {name: value.clone() for name, value in training.denoiser.state_dict().items()}
    training.denoiser.load_state_dict(training.averaged())
    training.denoiser.eval()
    try:
        yield
    finally:
        training.denoiser.load_state_dict(saved)
        training.denoiser.train()


def pool_of(train_set: ImageSet, audit: ImageSet) -> tuple[ImageSet, NDArray[np.int64]]:
    """Both together, and what stays together among them."""
    import pandas as pd

    rows = pd.concat([train_set.rows, audit.rows], ignore_index=True)
    pool = ImageSet(np.concatenate([np.asarray(part.images) for part in (train_set, audit)]), rows)
    return pool, tie(rows["patient"].astype(str).tolist(), pool.duplicates)


def make(options: argparse.Namespace) -> None:
    """Train, and keep what is seen of each training in ``--out``."""
    began = time.perf_counter()
    frontier = Frontier(options)
    record = report.Record(options.out, BENCHMARK, report.facts() | frontier.about | {"tiny": options.tiny})
    half = np.bincount(frontier.pool.labels, minlength=len(frontier.pool.classes)) // 2
    record.add({"real": frontier.worth(frontier.everyone.take(np.arange(len(frontier.pool)) % 2 == 0))})
    for number in range(options.first, options.first + options.trainings * options.every, options.every):
        if time.perf_counter() - began > options.seconds:
            print(f"no time for training {number} and those after it: --first {number}", flush=True)
            return
        # Each by itself, so that what the others saw tells nothing of it.
        inside = shadows.draw(frontier.units, frontier.pool.labels, half, 1, np.random.default_rng([3, number]))[0]
        features = []
        for images, found, seen in frontier.train(number, inside, judged=number < options.judged):
            record.add({"training": number, "images": images} | found)
            features.append(seen)
            print(f"{time.perf_counter() - began:7.1f} s  training {number}, {images:>9,} images: {found}", flush=True)
        made = {"inside": inside, "features": np.stack(features), "pool": quality.digest(np.asarray(frontier.pool.images))}
        np.savez(options.out / f"{BENCHMARK}_{number:03d}.npz", **made)


def points_of(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """By length: means over trainings of what was judged, and of the attack on each with all others; and what holds for all lengths."""
    records = report.load(folder, BENCHMARK)
    rows = [row for one in records for row in one["rows"]]
    if not (seen := [np.load(path) for path in sorted(folder.glob(f"{BENCHMARK}_*.npz"))]):
        raise SystemExit(f"no trainings in {folder}")
    if len({str(one["pool"]) for one in seen}) > 1:
        raise SystemExit(f"the trainings in {folder} are of different images, or of images in another order: attack them apart")
    inside = np.stack([one["inside"] for one in seen])
    real = [row["real"] for row in rows if "real" in row]
    final: dict[int, int] = {row["training"]: row["kept"] for row in rows if "kept" in row}  # the last row of each counts
    points = []
    for place, images in enumerate(sorted({row["images"] for row in rows if "images" in row})):
        here = [row for row in rows if row.get("images") == images]
        point: dict[str, Any] = {"images": images, "ratio": float(np.mean([row["parted"]["value"] for row in here]))}
        for key in ("above_floor", "worth", "copies"):
            values = [row[key]["value"] if isinstance(row[key], dict) else row[key] for row in here if row.get(key) is not None]
            point[key] = float(np.mean(values)) if values else None
        if len(seen) >= shadows.FEWEST:
            point["membership"] = shadows.power(np.stack([one["features"][place] for one in seen]).astype(np.float64), inside)["auc"][
                "value"
            ]
        points.append(point)
    facts = records[-1]["facts"] | {"real": float(np.mean(real)), "kept": sorted(final.values()), "trainings": len(seen)}
    return points, facts


ACROSS = {"copies": "images flagged as copies", "membership": "membership AUC of the weights"}
UP = {"above_floor": "panel's AUC above its floor", "worth": "AUC of training on synthetic"}


def draw(points: list[dict[str, Any]], facts: dict[str, Any], folder: Path) -> None:
    """Fidelity and worth against copies and membership; lengths beside the points, and a ring where `auto` stops."""
    figure, axes = curves.picture(len(ACROSS) * len(UP))
    kept = float(np.median(facts["kept"]))
    for axis, (across, up) in zip(axes, itertools.product(ACROSS, UP)):
        shown = [point for point in points if point.get(across) is not None and point.get(up) is not None]
        axis.plot([p[across] for p in shown], [p[up] for p in shown], marker="o", color=curves.COLOURS[0])
        for point in shown:
            place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
            axis.annotate(f"{point['images'] / 1000:,.0f}k", (point[across], point[up]), **place)
        for point in [point for point in shown if point["images"] <= kept][-1:]:
            style = {"markersize": 14, "markerfacecolor": "none", "color": curves.COLOURS[1], "label": "about where auto stops"}
            axis.plot([point[across]], [point[up]], "o", **style)
            axis.legend(fontsize=8, frameon=False)
        if up == "worth":
            axis.axhline(facts["real"], color="#555555", linestyle=":")
        axis.set(xlabel=ACROSS[across], ylabel=UP[up])
    figure.suptitle(f"{facts['name']}: {facts['pool'] // 2} images a training, {facts['trainings']} trainings")
    figure.savefig(folder / f"{BENCHMARK}_{quality.slug(facts['name'])}.png", dpi=150)


def main(arguments: list[str] | None = None) -> None:
    """Train unless told not to, then attack, print and draw what is there."""
    options = parse(arguments)
    if not options.table:
        runtime.limit_threads()
        make(options)
    points, facts = points_of(options.out)
    print(f"{facts['date']}, {facts['hardware']}: {facts['command']}")
    print(f"recipe {facts['fitted']}; real halves are worth {facts['real']:.3f}; auto keeps {facts['kept']} images")
    keys = ("images", "ratio", "above_floor", "worth", "copies", "membership")
    print(report.markdown(keys, [[point.get(key) for key in keys] for point in points]), flush=True)
    draw(points, facts, options.out)


if __name__ == "__main__":
    main()

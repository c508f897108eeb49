"""How near to real does a cohort allow, before it is learned by heart? Fidelity against memorisation along the length of training.

Trainings on random halves of a cohort's train and audit images, one after the other in one module, are looked at along the way: what the
panel makes of their images beyond its floor, what a classifier trained on them is worth, how many are copies, and how well membership is
told by the weights, each training being attacked with the others. What `train.images: auto` keeps of each is looked at as well.

    python -m tests.benchmarks.frontier --config dicom_folder --set ingest.source=phantom --set ingest.phantom_patients=300 --out results
    python -m tests.benchmarks.frontier --config pneumoniamnist --set ingest.path=FOLDER --name PneumoniaMNIST --out results
    python -m tests.benchmarks.frontier --config pneumoniamnist --set ingest.path=FOLDER --recipe edm --out peer
    python -m tests.benchmarks.frontier --out results --table --beside peer              # attack and draw what is there

Each training and each judgement is a task of its own, written down when it is done. Several processes of the same command share them,
on one GPU (some with ``--judge-first``, so that it does not wait for what judging does on processors) or on several, and a later call goes
on where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluation.data import Labelled
from evaluation.intervals import Interval, interval, to_json
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
from tests.benchmarks import frontier_picture, peer_training, quality, report
from tests.benchmarks.claims import claimed
from tests.benchmarks.frontier_peer import Peer
from tests.benchmarks.frontier_picture import BENCHMARK, trained_path

TINY = ("train.widths=[16]", "train.blocks=1", "train.batch=16", "train.attention=[]", "train.compile=false", "generate.steps=4")
STRIDE = 3
"""Of the course's moments, which grow by a quarter, those that are judged: each twice as long as the one before."""
DRAWS = 2
"""Noise draws of the attack on the weights."""
AT_ONCE = 1024
"""Images denoised together where nothing is learned: on slow processors a GPU waits for smaller batches to be launched."""
WAIT = 2.0
"""Seconds until a process looks again for a task, where others have all that are left."""
State = dict[str, Tensor]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="dicom_folder", help="the cohort and its recipe: a shipped configuration, or a file")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder of one cohort and recipe")
    parser.add_argument("--name", default="cohort", help="the cohort's name in the picture")
    parser.add_argument("--recipe", default="ours", choices=["ours", "edm"], help="whose: ours, or a peer's (MONAI's network, EDM)")
    parser.add_argument("--images", type=int, default=None, help="length of each training (default: auto's ceiling)")
    parser.add_argument("--trainings", type=int, default=8, help="trainings in all")
    parser.add_argument("--judged", type=int, default=3, help="trainings whose images are generated and judged: the first ones")
    parser.add_argument("--per-class", type=int, default=300, help="images generated of each class")
    parser.add_argument("--classifier-images", type=int, default=60_000, help="images seen in training each judge, at the most")
    parser.add_argument("--seconds", type=float, default=500, help="begin nothing that may take longer than until then")
    parser.add_argument("--judge-first", action="store_true", help="judge what is there before training further")
    parser.add_argument("--beside", type=Path, help="another recipe's folder of the same cohort, drawn into the same picture")
    parser.add_argument("--table", action="store_true", help="only attack and draw what lies in --out")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    return parser.parse_args(arguments)


class Frontier:
    """One cohort's trainings, and what is seen of them along the way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, runtime.device()
        # The learning rate does not fall towards an end: every moment is the end of a training of that length.
        given = ["train.images=auto", "train.decay=0", "train.ema_snapshots=0", f"generate.per_class={options.per_class}"]
        given.append(f"generate.batch={AT_ONCE // 2}")
        config = load_config(options.config, [*options.overrides, *(TINY if options.tiny else ()), *given])
        sets = quality.load_sets(config, options.out / "cohort")
        self.pool, self.units = pool_of(sets["train"], sets["audit"])
        assert config.train is not None
        half = self.pool.take(np.arange(len(self.pool)) % 2 == 0)
        settled = fit_recipe.fit(config.train, half, self.device)
        self.ceiling = settled["fitted"]["images"]
        if options.images is not None:
            settled["fitted"]["images"] = options.images
        self.config: Config = config.model_copy(update={"train": fit_recipe.settled(config.train, settled)})
        assert self.config.train is not None
        self.section, self.first_look = self.config.train, fit_recipe.first_look(half, config.train)
        self.trainings: Any
        if options.recipe == "edm":
            self.trainings = Peer(self.config, self.pool, self.device, **(peer_training.TINY if options.tiny else {}))
        else:
            model = describe(self.section, self.pool, mean_and_spread(self.pool.images)[1])
            self.trainings = Shadows(self.config, self.pool, model, self.device)
        self.asked = wanted(self.config, self.trainings.conditions)
        self.everyone = dataclasses.replace(labelled(self.pool), groups=self.units)
        self.condition = Condition.of_classes(self.pool.labels, len(self.pool.classes))
        self.test = labelled(sets["test"])
        self.learn, self.choose = halves(labelled(sets["val"]), config.seed)
        fitted = settled["fitted"] if options.recipe == "ours" else {"images": self.section.images}  # all that a peer takes of ours
        about = {"recipe": options.recipe, "fitted": fitted, "pool": len(self.pool), "name": options.name, "tiny": options.tiny}
        self.record = report.Record(options.out, BENCHMARK, report.facts() | about)

    def inside(self, number: int) -> NDArray[np.bool_]:
        """The images that a training sees, each drawn by itself, so that what the others saw tells nothing of it."""
        half = np.bincount(self.pool.labels, minlength=len(self.pool.classes)) // 2
        return np.asarray(shadows.draw(self.units, self.pool.labels, half, 1, np.random.default_rng([3, number]))[0], bool)

    def train(self, number: int) -> None:
        """One training, with what an attack sees of its weights at every judged moment and of what `auto` keeps; and their images."""
        inside, judged = self.inside(number), number < self.options.judged
        training = self.trainings.begin(number, inside)
        validation = Validation(self.everyone.take(inside), self.choose, runtime.derive_seed(self.config.seed, "validation"))
        steps = training.recipe.steps
        course = Course(validation, self.section.batch, self.first_look, min(steps, -(-self.ceiling // self.section.batch)))
        last = course.moments[-1]
        beyond = [last * 2**k for k in range(1, 1 + int(np.log2(steps / last)))]  # where `auto` has ended for sure
        looked = [*(moment for place, moment in enumerate(course.moments) if place % STRIDE == 0 or moment == last), *beyond]
        seen: list[NDArray[np.float64]] = []
        parted: list[float] = []
        made: dict[str, NDArray[np.uint8]] = {}
        auto: tuple[int, State] | None = None
        with claimed(self.options.out / "claims", "compiling", wait=True):  # by one of the processes, for all
            training.run(until=1)
        for moment in [*course.moments, *beyond]:
            if auto is not None and moment not in looked:
                continue
            training.run(until=moment)
            if auto is None:
                course.look(training)
                if course.over:  # Here `auto` ends, with what it kept; this training goes on.
                    auto = course.steps, course.kept
            if moment in looked:
                now = course.looked[-1] if auto is None else validation(training)
                parted.append(float(np.exp(validation.parted(course.looked[0], now).value)))
                seen.append(self.seen_of(training, training.averaged()))
                if judged:
                    made[f"{moment * self.section.batch}"] = self.made_by(training, training.averaged())
        assert auto is not None
        kept, weights = auto
        seen.append(seen[looked.index(kept)] if kept in looked else self.seen_of(training, weights))
        if judged and kept not in looked:
            made[f"{kept * self.section.batch}"] = self.made_by(training, weights)
        facts = {"images": np.array(looked) * self.section.batch, "kept": kept * self.section.batch, "parted": np.array(parted)}
        facts |= {"inside": inside, "features": np.stack(seen).astype(np.float32), "pool": quality.digest(np.asarray(self.pool.images))}
        if judged:
            publish(self.images_path(number), made)
        publish(trained_path(self.options.out, number), facts)

    def seen_of(self, training: Training, weights: State) -> NDArray[np.float64]:
        """What an attack sees of weights: features of every image of the pool, ``[n, d]``."""
        seeds = [runtime.derive_seed(self.config.seed, "noise", draw) for draw in range(DRAWS)]
        with Within(training, weights), runtime.autocast(self.device):
            given = training.denoiser, self.everyone.unit, self.condition
            return shadows.weights_features(*given, seeds=seeds, device=self.device, batch=max(self.section.batch, AT_ONCE))

    def made_by(self, training: Training, weights: State) -> NDArray[np.uint8]:
        """The images that weights make."""
        with Within(training, weights), runtime.autocast(self.device):
            return self.trainings.release(self.asked)

    def images_path(self, number: int) -> Path:
        """Where the images of a judged training wait to be judged, by its length; no record needs them."""
        return self.options.out / "images" / f"{number:03d}.npz"

    def judge(self, number: int, images: str) -> None:
        """The panel, train on synthetic, and the copy search, on what a training has made after so many images."""
        rng, labels, names = np.random.default_rng(0), self.asked.findings.argmax(axis=1), self.pool.classes
        with np.load(self.images_path(number)) as file:
            pictures = file[images]
        made = Labelled.of_classes(pictures, labels, np.arange(len(pictures)), len(names))
        inside = self.inside(number)
        member, sealed = self.everyone.take(inside), self.everyone.take(~inside)
        told = {"splits": 1 if self.options.tiny else 3, "ceiling": self.options.classifier_images}
        panelled = panel(sealed, made, names, spaces={"plain": plain_features}, **told, rng=rng, device=self.device)
        # Nothing is planted beyond one of each kind: what a search finds of copies is measured elsewhere.
        copies = find_copies(member, sealed, pictures, planted=1, rng=rng, device=self.device, learn=self.learn)
        row = {
            "training": number,
            "images": int(images),
            "above_floor": to_json(panelled.get("difference")),
            "unfit": panelled.get("unfit"),
        }
        self.record.add(
            row | {"worth": to_json(self.worth(made)), "copies": int((copies.flagged | copies.undecided).sum()), "of": len(pictures)}
        )

    def worth(self, made: Labelled) -> Interval:
        """AUC on real test images of classifiers trained on these."""
        tasks = [Task(made.unit, made.labels, made.classes, seed, self.choose) for seed in range(1 if self.options.tiny else 3)]
        trained = train(tasks, kind="small", ceiling=self.options.classifier_images, device=self.device)
        scores = np.stack([one.classifier.predict(self.test.unit) for one in trained])
        return interval(macro_auc_estimate(scores, self.test.labels, self.test.groups))

    def judge_real(self) -> None:
        """What real images are worth: half of the pool."""
        self.record.add({"real": to_json(self.worth(self.everyone.take(np.arange(len(self.pool)) % 2 == 0)))})

    def tasks(self) -> dict[str, Callable[[], None]]:
        """What is not done yet and can be begun, by name, the most urgent first."""
        rows = [row for one in report.load(self.options.out, BENCHMARK) for row in one["rows"]]
        judged = {(row["training"], str(row["images"])) for row in rows if "training" in row}
        judging: dict[str, Callable[[], None]] = {}
        trainings: dict[str, Callable[[], None]] = {}
        for number in range(self.options.trainings):
            if not trained_path(self.options.out, number).exists():
                trainings[f"training-{number}"] = lambda number=number: self.train(number)  # type: ignore[misc]
            elif self.images_path(number).exists():
                with np.load(self.images_path(number)) as file:
                    waiting = [images for images in file.files if (number, images) not in judged]
                judging |= {f"judging-{number}-{images}": lambda n=number, i=images: self.judge(n, i) for images in waiting}  # type: ignore[misc]
        if not any("real" in row for row in rows):
            judging["judging-real"] = self.judge_real
        return judging | trainings if self.options.judge_first else trainings | judging


class Within:
    """The context in which a training's denoiser has other weights, in place, and is as it was afterwards."""

    def __init__(self, training: Training, weights: State) -> None:
        self.denoiser, self.weights = training.denoiser, weights

    def __enter__(self) -> None:
        self.saved = {name: value.clone() for name, value in self.denoiser.state_dict().items()}
        self.denoiser.load_state_dict(self.weights)
        self.denoiser.eval()

    def __exit__(self, *raised: object) -> None:
        self.denoiser.load_state_dict(self.saved)
        self.denoiser.train()


def publish(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays into a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"unfinished-{path.name}")
    np.savez(part, **arrays)
    part.replace(path)


def pool_of(train_set: ImageSet, audit: ImageSet) -> tuple[ImageSet, NDArray[np.int64]]:
    """Both together, and what stays together among them."""
    import pandas as pd

    rows = pd.concat([train_set.rows, audit.rows], ignore_index=True)
    pool = ImageSet(np.concatenate([np.asarray(part.images) for part in (train_set, audit)]), rows)
    return pool, tie(rows["patient"].astype(str).tolist(), pool.duplicates)


def make(options: argparse.Namespace) -> None:
    """Do what is left, beside other processes that do the same, until nothing is or the time is up."""
    began = time.perf_counter()
    frontier = Frontier(options)
    print(f"{time.perf_counter() - began:7.1f} s  {len(frontier.pool)} images ready, {frontier.section.images:,} a training", flush=True)
    longest: dict[str, float] = defaultdict(float)
    while tasks := frontier.tasks():
        now = time.perf_counter() - began
        in_time = {name: task for name, task in tasks.items() if now + longest[_kind(name)] < options.seconds}
        if not in_time:
            print(f"{now:7.1f} s  no time for {len(tasks)} tasks: the same command goes on with them", flush=True)
            return
        for name, task in in_time.items():
            with claimed(options.out / "claims", name) as ours:
                if ours and name in frontier.tasks():
                    task()
                    took = time.perf_counter() - began - now
                    longest[_kind(name)] = max(longest[_kind(name)], took)
                    print(f"{now + took:7.1f} s  {name} took {took:.1f} s", flush=True)
                    break
        else:
            time.sleep(WAIT)


def _kind(name: str) -> str:
    return name.partition("-")[0]


def main(arguments: list[str] | None = None) -> None:
    """Do what is left unless told not to, then attack, print and draw what is there."""
    options = parse(arguments)
    if not options.table:
        runtime.limit_threads()
        make(options)
    frontier_picture.show(options.out, options.beside)


if __name__ == "__main__":
    main()

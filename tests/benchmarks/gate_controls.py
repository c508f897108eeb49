"""Controls of the whole gate over independent small trainings: sets that must not pass, and sets that should.

For each seed a small denoiser is trained on phantoms of its own, and the gate judges, against that seed's train and audit patients:

* ``honest``: its images.
* ``ten copies``: the same with ten replaced by copies of training images, of the required kinds in turn.
* ``mixup``: mixtures of two training images of a class, weights from .5 to 1 (Zhang et al. 2018): meant to fail.
* ``kernel density``: training images with Gaussian noise of 5 % of the range, as a kernel density of train is sampled: meant to fail.
* ``twin``: the images of the next seed's training, on other patients of the same source: meant to pass.

Phantoms and judgements take ``--jobs`` processes, which share one GPU where there is one; the trainings follow one another in one module.
What a run adds to this (DICOM, ingest) and what is left out here (copies made anew by the run's model) changes no verdict on images.

    python -m tests.benchmarks.gate_controls --seeds 100 --jobs 12 --out results
    python -m tests.benchmarks.gate_controls --seeds 2 --patients 300 --images 2000 --per-class 12 --planted 20 --out results    (a CPU)

With ``--auto`` recipes are those that users get: widths, dropout and augmentation are fitted to the first seed's cohort, one network being
trained again and again, and each training ends where its losses on training and on unseen patients part, ``--images`` at the most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.shadow_training import Shadows

SHARES = {"train": 0.45, "learn": 0.06, "others": 0.18, "audit": 0.31}
"""Parts of a cohort, by patient, about as the quickstart's: *learn* and *others* are its val and test."""
SETS = ("honest", "ten copies", "mixup", "kernel density", "twin")


def draw(seed: int, patients: int) -> dict[str, Any]:
    """Phantoms of 96 pixels, averaged to 32, divided by patient in the quickstart's shares: images, labels and patients of each part."""
    import numpy as np

    from pipeline.phantom.anatomy import CLASSES, draw_patients
    from pipeline.phantom.image import render

    everyone = draw_patients(patients, seed)
    ends = np.round(np.cumsum(list(SHARES.values())) * patients).astype(int)
    arrays: dict[str, Any] = {}
    for name, low, high in zip(SHARES, [0, *ends], ends):
        visits = [(patient, number) for patient in everyone[low:high] for number in range(len(patient.visits))]
        drawn = np.stack([render(patient, number, 96) for patient, number in visits])
        small = drawn.reshape(len(drawn), 1, 32, 3, 32, 3).mean(axis=(3, 5))
        arrays[name] = np.rint(255 * small).astype(np.uint8)
        arrays[f"{name}_labels"] = np.array([CLASSES.index(patient.visits[number].finding) for patient, number in visits])
        arrays[f"{name}_patients"] = np.array([patient.index for patient, _ in visits])
    return arrays


def make(seeds: list[int], options: argparse.Namespace) -> None:
    """Train on each seed's phantoms, one module for all, and generate; ``work/seed<N>.npz`` holds all parts and synthetic images."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import numpy as np
    import pandas as pd

    from pipeline import fit_recipe, runtime
    from pipeline.conditions import Conditions
    from pipeline.config import load_config
    from pipeline.images import FINDING, ImageSet
    from pipeline.phantom.anatomy import CLASSES
    from pipeline.shadow_training import Shadows
    from pipeline.train import describe, mean_and_spread
    from pipeline.wanted import wanted

    fitted = [f"train.{name}=auto" for name in ("images", "widths", "dropout", "augment")]
    length = fitted if options.auto else [f"train.images={options.images}"]
    config = load_config(options.config, [*length, f"generate.per_class={options.per_class}", *options.overrides])
    assert config.train is not None
    asked = wanted(config, Conditions(CLASSES))
    shadows: Shadows | None = None
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        drawn = pool.map(draw, seeds, [options.patients] * len(seeds))
        for seed, arrays in zip(seeds, drawn):
            rows = pd.DataFrame({FINDING + name: (arrays["train_labels"] == k).astype(np.int8) for k, name in enumerate(CLASSES)})
            cohort = ImageSet(arrays["train"], rows)
            if shadows is None:
                recipe = fit_recipe.fit(config.train, cohort, runtime.device())
                recipe["fitted"] |= {"images": min(recipe["fitted"]["images"], options.images)} if options.auto else {}
                config = config.model_copy(update={"train": fit_recipe.settled(config.train, recipe)})
                print(f"recipe {recipe['fitted']}", flush=True)
                assert config.train is not None
                shadows = Shadows(config, cohort, describe(config.train, cohort, mean_and_spread(cohort.images)[1]), runtime.device())
            shadows.pool = cohort
            if options.auto:
                seen = train_until_parted(shadows, seed, arrays, fit_recipe.first_look(cohort, config.train))
                print(f"seed {seed} trained on {seen:,} images", flush=True)
            else:
                shadows.train(seed, np.ones(len(cohort), bool))
            arrays |= {"synthetic": shadows.release(asked), "labels": asked.findings.argmax(axis=1)}
            np.savez(options.work / f"part{seed}.npz", **arrays)
            (options.work / f"part{seed}.npz").rename(options.work / f"seed{seed}.npz")
            print(f"seed {seed} made", flush=True)


def train_until_parted(shadows: Shadows, seed: int, arrays: dict[str, Any], first: int) -> int:
    """A training as ``train.images: auto`` ends it, its losses looked at on the first third of the patients of *others*, about as many as
    are in *learn*; the images seen.

    Args:
        shadows: its pool is the seed's training images; its denoiser gets the averaged weights that are kept.
        seed: of the training.
        arrays: of :func:`draw`.
        first: steps before the losses are looked at for the first time.
    """
    import numpy as np

    from evaluation.data import Labelled
    from pipeline.diffusion.validation import Validation
    from pipeline.fit_recipe import Course

    train, others = (
        Labelled.of_classes(arrays[name], arrays[f"{name}_labels"], arrays[f"{name}_patients"], shadows.pool.findings.shape[1])
        for name in ("train", "others")
    )
    people = np.unique(others.groups)
    chosen = others.take(np.isin(others.groups, people[: max(2, len(people) // 3)]))
    training = shadows.begin(seed, np.ones(len(train), bool))
    course = Course(Validation(train, chosen, seed, shadows.conditions.of), training.recipe.batch, first, training.recipe.steps)
    while not course.over:
        training.run(until=course.moments[len(course.looked)])
        course.look(training)
    training.denoiser.load_state_dict(course.kept)
    training.denoiser.eval()
    return course.steps * training.recipe.batch


def judge(seed: int, options: argparse.Namespace, out: Path) -> None:
    """The gate's verdict on each of :data:`SETS`, written as ``out/judged<N>.json``."""
    import numpy as np

    from evaluation.data import Labelled
    from pipeline import runtime
    from privacy import audit, copy_report, gate, one_run
    from privacy.judgements import DRAWN

    runtime.limit_threads()
    following = options.first + (seed - options.first + 1) % options.seeds
    own, other = (dict(np.load(out / f"seed{number}.npz")) for number in (seed, following))
    classes = int(own["train_labels"].max()) + 1
    parts = {name: Labelled.of_classes(own[name], own[f"{name}_labels"], own[f"{name}_patients"], classes) for name in SHARES}
    train, sealed = sides = parts["train"], parts["audit"]
    images, findings, groups = (np.concatenate([getattr(side, name) for side in sides]) for name in ("images", "findings", "groups"))
    both = Labelled(images, findings, groups)
    member = np.arange(len(both)) < len(train)
    units = np.unique(both.groups, return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    verdicts: dict[str, Any] = {"seed": seed, "n": {"train": len(train), "audit": len(sealed), "synthetic": len(own["synthetic"])}}
    for name in options.sets:
        started = time.time()
        made = _set(name, own, other, train, rng)
        found = copy_report.find_copies(
            train,
            sealed,
            made,
            planted=options.planted,
            rng=rng,
            device=runtime.device(),
            learn=parts["learn"],
            others=parts["others"],
        )
        run = one_run.from_images(both, units, member, made, rng)
        report = audit.summarise(
            found,
            None,
            pixels=made.shape[-1],
            unit="patient",
            drawn=DRAWN[0],
            n_train=len(train),
            n_audit=len(sealed),
            holdout_units=len(np.unique(sealed.groups)),
            further={"one_run": {"images": run.to_dict()} if run else None},
        )
        checks = gate.checks(report)
        by_name = {check["name"]: check for check in checks if check["subject"] == "images"}
        verdicts[name] = {
            "verdict": gate.decide(checks)["verdict"],
            "checks": {key: check["verdict"] for key, check in by_name.items()},
            "flagged": report["copies"]["flagged"],
            "run_p": report["copies"]["run_p"],
            "copies_high": by_name["copies"]["high"],
            "recall_low": by_name["power"]["low"],
            "worst_kind": by_name["power"].get("worst"),
            "epsilon_low": run.to_dict()["epsilon_low"] if run else None,
            "seconds": round(time.time() - started, 1),
        }
    place = out / f"judged{seed}.json"
    place.with_suffix(".part").write_text(json.dumps(verdicts))
    place.with_suffix(".part").rename(place)


def _set(name: str, own: dict[str, Any], other: dict[str, Any], train: Any, rng: Any) -> Any:
    """The images of one of :data:`SETS`, ``uint8``, as many as were generated."""
    import numpy as np

    made = np.array(own["synthetic"])
    count = len(made)
    if name == "twin":
        return other["synthetic"][rng.permutation(len(other["synthetic"]))[:count]]
    if name == "ten copies":
        return with_copies(made, train.images, rng)
    if name == "honest":
        return made
    sources = rng.integers(0, len(train), count)
    first = train.images[sources].astype(np.float64)
    if name == "kernel density":
        mixed = first + 0.05 * 255 * rng.standard_normal(first.shape)
    else:
        partner = np.array([rng.choice(np.flatnonzero(train.labels == train.labels[source])) for source in sources])
        weight = rng.uniform(0.5, 1, count)[:, None, None, None]
        mixed = weight * first + (1 - weight) * train.images[partner]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def with_copies(made: Any, train: Any, rng: Any) -> Any:
    """The images, the first ten of which are copies of training images, of the kinds that the gate requires in turn."""
    from privacy import limits, power

    made, kinds = made.copy(), limits.required_kinds(made.shape[-1])
    for place, source in zip(range(10), rng.permutation(len(train))):
        made[place] = getattr(power, kinds[place % len(kinds)])(train[source], rng)
    return made


def table(results: list[dict[str, Any]], sets: list[str]) -> str:
    """How often each set passed, failed or was left undecided, with the exact interval of what failed."""
    from evaluation.intervals import clopper_pearson

    lines = [f"{'set':<16}{'pass':>6}{'fail':>6}{'open':>6}   share that failed (95 %)   by copies / run / membership"]
    for name in sets:
        rows = [result[name] for result in results if name in result]
        verdicts = [row["verdict"] for row in rows]
        failed = clopper_pearson(verdicts.count("fail"), len(rows))
        by = (
            sum(row["flagged"] > 0 for row in rows),
            sum(row["run_p"] < 0.004 for row in rows),
            sum(row["checks"]["membership_images"] == "fail" for row in rows),
        )
        counts = "".join(f"{verdicts.count(verdict):>6}" for verdict in ("pass", "fail", "inconclusive"))
        lines.append(f"{name:<16}{counts}   {failed.value:.3f} ({failed.low:.3f} to {failed.high:.3f})   {by[0]} / {by[1]} / {by[2]}")
    return "\n".join(lines)


def main() -> None:
    """Make every seed's sets, judge them, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--patients", type=int, default=2200)
    parser.add_argument("--images", type=int, default=60_000, help="training images seen")
    parser.add_argument("--auto", action="store_true", help="recipes that are fitted to the cohort")
    parser.add_argument("--per-class", type=int, default=240)
    parser.add_argument("--planted", type=int, default=100)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument(
        "--work", type=Path, default=Path("gate_controls"), help="where trainings are kept: what is there is not made again"
    )
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.one is not None:
        judge(options.one, options, options.work)
        return
    seeds = range(options.first, options.first + options.seeds)
    if waiting := [seed for seed in seeds if not (options.work / f"seed{seed}.npz").exists()]:
        make(waiting, options)
    waiting = [seed for seed in seeds if not (options.work / f"judged{seed}.json").exists()]
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            command = [sys.executable, "-m", "tests.benchmarks.gate_controls", *sys.argv[1:], "--one", str(waiting.pop(0))]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        running = [process for process in running if process.poll() is None]
        time.sleep(0.2)
    results = [json.loads(path.read_text()) for path in sorted(options.work.glob("judged*.json"))]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gate_controls.json").write_text(json.dumps(results, indent=1))
    print(table(results, options.sets))


if __name__ == "__main__":
    main()

"""What synthetic images do for a rare class: few real patients with it in training, many in the test set.

    python -u -m tests.benchmarks.rare_class --seeds 0,1,2 --workers 16 --out results

Phantoms of the quickstart's kind, of which only ``--rare`` training images show one class (``--finding``); the test patients are others,
enough for 500 positives and more. For every seed a cohort is drawn, the quickstart's network is trained on it and generates as many images
of every class, and the arms of the evaluate stage are trained: with and without synthetic images, at equal compute. Differences are paired
by test patient and training seed, with Holm's correction over arms and classes; they hold for the generator of that seed, and the seeds
show how far generators differ.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.arms import FULL, course, train_arms
from evaluation.data import Labelled, to_unit
from evaluation.intervals import to_json
from evaluation.judges import fitness
from evaluation.utility import Scored, utility
from pipeline import runtime
from pipeline.config import Config, load_config
from pipeline.denoiser import build_denoiser
from pipeline.diffusion import mixture
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.generate import Sampling, starts_on_mixture
from pipeline.phantom.anatomy import CLASSES
from pipeline.phantom.image import phantom_arrays
from pipeline.train import mean_and_spread, recipe

FIRST_SEED = 40_000
"""Cohorts that nothing else here was tuned on."""
PARTS = 64


def phantoms(patients: int, seed: int, size: int, workers: int) -> Labelled:
    """``patients`` phantom patients, drawn in parts of seeds of their own."""
    counts = np.bincount(np.arange(patients) % PARTS, minlength=PARTS).tolist()
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(phantom_arrays, counts, [seed * PARTS + part for part in range(PARTS)], [size] * PARTS))
    groups = np.concatenate([part * patients + of for part, (_, _, of) in enumerate(parts)])
    images, labels = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    return Labelled.of_classes(images, labels, groups, len(CLASSES))


def without(cohort: Labelled, label: int, keep: int, rng: np.random.Generator) -> Labelled:
    """The cohort with at most ``keep`` images of one class: whole patients with it leave, at random."""
    kept = np.ones(len(cohort), bool)
    for patient in rng.permutation(np.unique(cohort.groups[cohort.labels == label])):
        if ((cohort.labels == label) & kept).sum() <= keep:
            break
        kept &= cohort.groups != patient
    return cohort.take(kept)


def synthetic(config: Config, train: Labelled, per_class: int, device: str) -> Labelled:
    """As the stages train and generate make them from this training set."""
    section, seed = config.train, config.seed
    assert section is not None
    mean, spread = mean_and_spread(train.images)
    network = {key: getattr(section, key) for key in ("widths", "blocks", "patch", "attention", "dropout")}
    model: dict[str, Any] = {
        "shape": list(train.images.shape[1:]),
        "classes": list(CLASSES),
        "sigma_data": round(spread, 4),
        "backbone": section.backbone,
        "objective": section.objective,
        "noise_schedule": section.noise_schedule,
        "network": network,
        "checkpointing": False,
        "upsample": section.upsample,
    }
    torch.manual_seed(runtime.derive_seed(seed, "weights"))
    denoiser = build_denoiser(model, mean).to(device)
    condition = Condition.of_classes(train.labels, len(CLASSES))
    training = Training(denoiser, torch.from_numpy(train.images).to(device), condition, recipe(section), seed)
    training.run()
    denoiser.load_state_dict(training.averaged())
    denoiser.eval().requires_grad_(False)
    start = mixture.fit(to_unit(train.images), train.labels, len(CLASSES), seed) if starts_on_mixture(config.generate) else None
    sampling = Sampling(denoiser, model, config.generate, device, None, start)
    labels = np.tile(np.arange(len(CLASSES)), per_class)
    seeds = [runtime.derive_seed(seed, "image", number) for number in range(len(labels))]
    batches = [slice(at, at + config.generate.batch) for at in range(0, len(labels), config.generate.batch)]
    made = np.concatenate([sampling(Condition.of_classes(labels[rows], len(CLASSES)), seeds[rows]) for rows in batches])
    return Labelled.of_classes(made, labels, np.arange(len(made)), len(CLASSES))


def one(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One cohort, its generator and its arms."""
    device, started = runtime.device(), time.time()
    config = load_config("quickstart", [f"seed={seed}", *options.overrides])
    size = config.ingest.size
    rng = np.random.default_rng(seed)
    drawn = [phantoms(count, FIRST_SEED + 3 * seed + k, size, options.workers) for k, count in enumerate(options.patients)]
    train, val, test = without(drawn[0], CLASSES.index(options.finding), options.rare, rng), *drawn[1:]
    _, choose = val.halves(seed)
    said = {name: np.bincount(part.labels, minlength=len(CLASSES)).tolist() for name, part in (("train", train), ("test", test))}
    print(f"seed {seed}: images by class {said}, {time.time() - started:.0f} s", flush=True)
    made = synthetic(config, train, options.per_class, device)
    print(f"   {len(made)} generated, {time.time() - started:.0f} s", flush=True)
    trained = train_arms(
        train, made, choose, arms=options.arms, seeds=options.trainings, kind="small", ceiling=options.ceiling, rng=rng, device=device
    )
    scored = {
        arm: Scored(*(np.stack([network.classifier.predict(part.unit) for network in found]) for part in (choose, test)))
        for arm, found in trained.items()
    }
    name = options.finding
    result: dict[str, Any] = to_json(
        {
            "seed": seed,
            "images_by_class": said,
            "choose": len(choose),
            "judge": fitness(scored["real"].test, test, CLASSES).to_dict(),
            "utility": utility(scored, choose, test, CLASSES, synthetic=len(made)),
            "training": {arm: {key: value for key, value in course(found).items() if key != "curve"} for arm, found in trained.items()},
            "seconds": time.time() - started,
        }
    )
    for arm, of in result["utility"]["arms"].items():
        print(f"   {arm:<22} {name} AUC {_shown(of['per_class'][name]['auc'])}, sensitivity {_shown(of['per_class'][name]['sensitivity'])}")
        if arm in result["utility"]["differences"]:
            change = result["utility"]["differences"][arm]["per_class"][name]
            print("      minus real: " + ", ".join(f"{key} {_shown(value)} p {value.get('p')}" for key, value in change.items()))
    print(f"   {result['seconds']:.0f} s", flush=True)
    return result


def _shown(measure: dict[str, Any]) -> str:
    if None in (measure.get(key) for key in ("value", "low", "high")):
        return "no number"
    return f"{measure['value']:.3f} [{measure['low']:.3f}, {measure['high']:.3f}]"


def main() -> None:
    """Run the seeds one after the other, and write what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--patients", default="1000,500,7000", help="in train, val and test")
    parser.add_argument("--rare", type=int, default=40, help="training images of that class, at the most")
    parser.add_argument("--finding", choices=CLASSES[1:], default="pneumothorax")
    parser.add_argument("--per-class", type=int, default=1000)
    parser.add_argument("--trainings", type=int, default=5)
    parser.add_argument("--ceiling", type=int, default=100_000)
    parser.add_argument("--arms", default="default", help="default, full, or names with commas")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    chosen = ("real", "real+augmentation", "real+synthetic", "real+synthetic rare", "synthetic then real")
    options.arms = {"default": chosen, "full": FULL}.get(options.arms) or tuple(options.arms.split(","))
    options.patients = [int(count) for count in options.patients.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    results = []
    for seed in options.seeds.split(","):
        results.append(one(int(seed), options))
        (options.out / "rare_class.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

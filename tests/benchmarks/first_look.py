"""Has a training learned images by heart before `train.images: auto` looks at its losses for the first time? Of those seen most, too?

Phantom patients are cut in two halves, and a network is trained on each, with the recipe of a CPU. What the loss on an image is under the
training that has not seen it, over what it is under the one that has, is memory alone: it is the same image, and both halves are as hard.
One row a moment: the geometric mean of that ratio, over patients, of all images and of the class that is drawn most often.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.first_look --dropout 0 --augment 0 --out results
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline import fit_recipe
from pipeline.config import TrainConfig
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.training import Training
from pipeline.diffusion.validation import Validation
from pipeline.evaluate import labelled
from pipeline.images import ImageSet, finding_columns
from pipeline.phantom.image import phantom_arrays
from pipeline.train import describe, mean_and_spread, recipe
from tests.benchmarks import report

BENCHMARK = "first_look"
RECIPE = {"images": "auto", "batch": 64, "blocks": 1, "attention": [], "upsample": "shuffle"}


def halves(patients: int, seed: int, size: int) -> list[ImageSet]:
    """Two cohorts of half of the patients each, of all classes."""
    images, labels, patient = phantom_arrays(patients, seed, size)
    of_half = np.random.default_rng(seed).permutation(patient.max() + 1) % 2
    names = [f"class {k}" for k in range(labels.max() + 1)]
    found = []
    for half in (0, 1):
        rows = np.flatnonzero(of_half[patient] == half)
        facts = {"id": rows.astype(str), "patient": patient[rows].astype(str), "split": "train"}
        found.append(ImageSet(images[rows], pd.DataFrame(facts | finding_columns(labels[rows], names))))
    return found


def begun(cohort: ImageSet, section: TrainConfig, seed: int) -> Training:
    """A training of a settled section that has taken no step."""
    mean, spread = mean_and_spread(cohort.images)
    torch.manual_seed(seed)
    denoiser = build_denoiser(describe(section, cohort, spread), mean)
    condition = Condition.of_classes(cohort.labels, len(cohort.classes))
    return Training(denoiser, torch.from_numpy(np.array(cohort.images)), condition, recipe(section), seed, cohort.duplicates)


def memory(trainings: list[Training], sides: list[Validation]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[Any]]:
    """Of each image that is looked at: how much lower its log loss is under the training that has seen it; its class and its patient."""
    parts = []
    for own, (side, training) in enumerate(zip(sides, trainings)):
        (seen, unseen) = (np.log(side(one).train).mean(axis=0) for one in (training, trainings[1 - own]))
        parts.append((unseen - seen, side.train.labels, side.train.groups))
    return tuple(np.concatenate(part) for part in zip(*parts))  # type: ignore[return-value]


def ratio(logs: NDArray[np.float64], groups: NDArray[Any]) -> tuple[float, float]:
    """Geometric mean over patients, with its standard error."""
    by_patient = np.array([logs[groups == one].mean() for one in np.unique(groups)])
    mean = float(np.exp(by_patient.mean()))
    return mean, mean * float(by_patient.std(ddof=1) / np.sqrt(len(by_patient)))


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Train both, and look at some moments; the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dropout", default="auto")
    parser.add_argument("--augment", default="auto")
    parser.add_argument("--visits", type=float, nargs="+", default=[8, 16, 32], help="of an image, in the mean, at each moment")
    parser.add_argument("--widths", type=int, nargs="+", help="those of a CPU by default")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    cohorts = halves(options.patients, options.seed, options.size)
    given = {name: value if value == "auto" else float(value) for name, value in vars(options).items() if name in ("dropout", "augment")}
    given |= {"widths": options.widths} if options.widths else {}
    section = TrainConfig.model_validate(RECIPE | given)
    section = fit_recipe.settled(section, fit_recipe.fit(section, cohorts[0], "cpu"))
    trainings = [begun(cohort, section, number) for number, cohort in enumerate(cohorts)]
    sides = [Validation(labelled(cohort), labelled(cohort), options.seed) for cohort in cohorts]
    distinct, most = fit_recipe.drawn(cohorts[0], section.balance)
    rarest = int(np.argmin(np.bincount(cohorts[0].labels)))
    record, rows = report.Record(options.out, BENCHMARK, report.facts()), []
    for visits in options.visits:
        for training in trainings:
            training.run(until=round(visits * distinct / section.batch))
        logs, labels, groups = memory(trainings, sides)
        rare = labels == rarest
        row = {
            "visits": visits,
            "all": ratio(logs, groups),
            "most_visits": visits * distinct * most,
            "most": ratio(logs[rare], groups[rare]),
        }
        record.add(row)
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    main()

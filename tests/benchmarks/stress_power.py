"""What the stress test finds: small classifiers of phantoms with planted defects at three doses, and sound ones.

*Marker*: in training, a lead letter stands on most images with a finding and on few without; in all other victims' training it stands on
half of either, so that they have seen letters and know that they mean nothing. *Naive* victims never saw one: that a letter then moves
their answer is no false alarm, and is told apart. *Sex*: in training, findings of women are called normal. *Nodules*: small ones never
occur in training. Every victim is judged on the same new patients, as a user would judge it: a marker is found where
:func:`evaluation.foreign.marker` stands, a sex where its gap is shown. A victim that is not fit on clean images is told so, which is found
too: nothing is tried on it. The same questions, asked of sound victims, give the rate of false alarms, each at its 5 %. Nodules of a size
are in no table of anybody's, and no shift makes them: what is asked of them is whether *any* question finds more than in sound victims.
With a run of phantoms, its synthetic cases are a third question (:mod:`tests.benchmarks.stress_synthetic`).

What it writes as ``power`` becomes ``data_cards/stress_power.json``, which the page of every stress test shows. ::

    python -m tests.benchmarks.stress_power --seeds 4 --run RUN --out power.json       52 victims, for a GPU
    python -m tests.benchmarks.stress_power --seeds 2 --doses 2 --out power.json       20 victims, for a CPU
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.classifiers import Classifier
from evaluation.data import Labelled
from evaluation.foreign import Answers, fit, judged
from evaluation.intervals import share_interval
from evaluation.metrics import Floats, share_estimate
from evaluation.shifts import SEVERITIES, Draw, fitting, shift
from evaluation.training import Task, train
from pipeline.models.draws import draw, seed_of
from pipeline.models.stress import VERSION
from pipeline.phantom.anatomy import Patient, draw_patients
from pipeline.phantom.image import render
from pipeline.system import end_with_parent, usable_cores, worker_processes
from tests.benchmarks.stress_synthetic import found_of, kept_cases, ranking

Item = TypeVar("Item")
Result = TypeVar("Result")
CLASSES = ("normal", "abnormal")
DOSES = {"marker": (0.7, 0.85, 1.0), "sex": (0.3, 0.6, 0.9), "nodules": (0.4, 0.7, 1.0)}
"""Share of the findings with a letter (and of the others without); of women's findings called normal; of nodules, the smallest ones, left
out."""
QUESTIONS = ("marker", "sex")
SIZES = (3, 4, 5)
"""Severities of the letters in training: a size that was never seen is new to a sound victim too."""


@dataclass(frozen=True)
class Phantoms:
    """Images float32 ``[n, 1, H, W]`` in 0..1, whether each has a finding, and the truth about it."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    sex: NDArray[np.str_]
    nodule: NDArray[np.float64]

    @functools.cached_property
    def lettered(self) -> NDArray[np.float32]:
        """The images with a letter of each of :data:`SIZES`, at the place that each image has for it."""
        x = torch.from_numpy(self.images)
        drawn: Draw = draw("marker", [seed_of(image) for image in self.images], x)
        return np.stack([shift(x, "marker", severity, drawn).numpy() for severity in SIZES])


@dataclass(frozen=True)
class Victim:
    """A defect (or ``sound``, or ``naive``), its dose, and the seed of its training."""

    defect: str
    dose: float
    seed: int


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, judge, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1500, help="to train on; a fifth of them choose the training's length")
    parser.add_argument("--test-patients", type=int, default=600)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=4, help="victims of each defect and dose, as many naive, and thrice as many sound")
    parser.add_argument("--doses", type=int, default=3, choices=(1, 2, 3), help="how many of the doses, the largest first")
    parser.add_argument("--ceiling", type=int, default=60_000, help="images in training one victim, at the most")
    parser.add_argument("--run", type=Path, help="a run of phantoms of one class an image, whose model makes synthetic cases")
    parser.add_argument("--each", type=int, default=400, help="synthetic cases of each finding")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learn, test = phantoms(options.patients, 1, options.side), phantoms(options.test_patients, 2, options.side)
    victims = planned(options.seeds, options.doses)
    trained = train([task(victim, learn) for victim in victims], kind="small", ceiling=options.ceiling, device=device)
    answers = asked([one.classifier for one in trained], test.images, device)
    cases = Labelled.of_classes(np.zeros((len(test.labels), 1, 1, 1), np.uint8), test.labels, test.patients, 2, {"sex": test.sex})
    rows = on_all_cores(functools.partial(_row, cases, test.nodule), list(zip(victims, answers)))
    result: dict[str, Any] = {"options": {key: value for key, value in vars(options).items() if key not in ("out", "run")}}
    if options.run is not None:
        real = Labelled.of_classes(test.images * 2 - 1, test.labels, test.patients, 2)
        kept = kept_cases(options.run, real, options.side, options.each, options.ceiling, device)
        result["synthetic"] = {"made": kept.made, "kept": len(kept.labels)}
        print(f"synthetic: {len(kept.labels)} of {kept.made} kept")
        if len(kept.labels):
            rows = [row | found_of(one.classifier.predict(kept.images), kept) for row, one in zip(rows, trained)]
            result["ranking"] = ranking(rows)
            print("rank correlation", *(f"{key} {_shown(value)}" for key, value in result["ranking"].items()))
    result |= {"victims": rows, "table": table(rows)}
    for line in result["table"]:
        shares = (f"{key} {_shown(line[key])}" for key in line if key not in ("defect", "dose", "n"))
        print(f"{line['defect']:8} dose {line['dose']:<5} n {line['n']:<3}", *shares)
    result["power"] = {"version": VERSION, "conditions": conditions(options, len(victims)), "rows": result["table"]} | {
        key: result[key] for key in ("ranking",) if key in result
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def conditions(options: argparse.Namespace, victims: int) -> str:
    """Under which the table was measured, as a sentence for the page."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    return (
        f"{victims} small networks, each trained on {options.patients} invented patients at {options.side} px with up to "
        f"{options.ceiling} images, all asked for the same {options.test_patients} further patients; {where}, {datetime.date.today()}."
    )


def phantoms(count: int, seed: int, side: int) -> Phantoms:
    """All images of a cohort's patients."""
    visits = [(patient, number) for patient in draw_patients(count, seed) for number in range(len(patient.visits))]
    images = np.stack(on_all_cores(functools.partial(_rendered, side), visits))[:, None]
    found = [patient.visits[number] for patient, number in visits]
    return Phantoms(
        images,
        np.array([visit.finding != "normal" for visit in found], np.int64),
        np.array([patient.index for patient, _ in visits]),
        np.array([patient.sex for patient, _ in visits]),
        np.array([visit.size_mm if visit.finding == "nodule" else np.nan for visit in found]),
    )


def planned(seeds: int, doses: int) -> list[Victim]:
    """Every defect at its largest doses, as many naive ones as of a dose, and thrice as many sound ones."""
    defective = [Victim(defect, dose, seed) for defect, of in DOSES.items() for dose in of[-doses:] for seed in range(seeds)]
    naive = [Victim("naive", 0.0, seed) for seed in range(seeds)]
    return defective + naive + [Victim("sound", 0.0, seed) for seed in range(3 * seeds)]


def task(victim: Victim, learn: Phantoms) -> Task:
    """The training of one victim, with its defect planted in the images that it learns from and chooses its length on."""
    rng = np.random.default_rng([victim.seed, *victim.defect.encode()])
    images, labels = learn.images, learn.labels.copy()
    keep = np.ones(len(labels), bool)
    if victim.defect != "naive":
        dose = victim.dose if victim.defect == "marker" else 0.5
        marked = rng.random(len(labels)) < np.where(labels == 1, dose, 1 - dose)
        images, size = images.copy(), rng.choice(SIZES, int(marked.sum()))
        images[marked] = learn.lettered[size - SIZES[0], np.flatnonzero(marked)]
    if victim.defect == "sex":
        labels[(learn.sex == "F") & (labels == 1) & (rng.random(len(labels)) < victim.dose)] = 0
    elif victim.defect == "nodules":
        keep = ~(learn.nodule <= np.nanquantile(learn.nodule, victim.dose))
    held = learn.patients % 5 == 0
    unit = images * 2 - 1
    choose = Labelled.of_classes(unit[held & keep], labels[held & keep], learn.patients[held & keep], 2)
    return Task(unit[~held & keep], labels[~held & keep], 2, int(rng.integers(2**31)), choose)


def asked(models: Sequence[Classifier], images: NDArray[np.float32], device: str) -> list[Answers]:
    """Every model's probabilities for the images as they are and under every shift of radiographs; each is shifted once for all models."""
    seeds = [seed_of(image) for image in images]
    x = torch.from_numpy(images).to(device)

    def said(shifted: torch.Tensor) -> list[Floats]:
        unit = (shifted * 2 - 1).contiguous(memory_format=torch.channels_last)
        return [model.predict(unit) for model in models]

    clean = said(x)
    found: list[dict[tuple[str, int], Floats]] = [{} for _ in models]
    for name in fitting("DX", 1):
        drawn = draw(name, seeds, x)
        for severity in SEVERITIES:
            for into, p in zip(found, said(shift(x, name, severity, drawn))):
                into[name, severity] = p
    return [Answers(p, of) for p, of in zip(clean, found)]


def row_of(victim: Victim, answers: Answers, cases: Labelled, nodule: NDArray[np.float64]) -> dict[str, Any]:
    """What was found of one victim, and how well it reads small nodules and others."""
    told = judged(answers, cases, CLASSES)
    letters = [row["change"] for row in told["marker"]]
    right = answers.clean.argmax(axis=1) == cases.labels
    small, large = nodule <= np.nanmedian(nodule), nodule > np.nanmedian(nodule)
    sound = fit(answers.clean, cases, CLASSES).answer == "yes"
    return {
        "defect": victim.defect,
        "dose": victim.dose,
        "seed": victim.seed,
        "fit": sound,
        "auc": told["clean"]["auc"].value,
        "marker": sound and any(change.stands for change in letters),
        "marker_change": max(change.by.value for change in letters),
        "sex": sound and any(row["gap"].stands for row in told["gaps"] if row["column"] == "sex" and row["class"] == "abnormal"),
        "small_nodules": float(right[small].mean()) if small.any() else None,
        "large_nodules": float(right[large].mean()) if large.any() else None,
        "shown": told["shown"],
    }


def _row(cases: Labelled, nodule: NDArray[np.float64], one: tuple[Victim, Answers]) -> dict[str, Any]:
    return row_of(*one, cases, nodule)


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By defect and dose: how many victims, and the share of them that are fit, and of which each question says that it is found."""
    found = []
    for (defect, dose), group in itertools.groupby(rows, key=lambda row: (row["defect"], row["dose"])):
        members = list(group)
        told = {key: [row[key] for row in members] for key in ("fit", *QUESTIONS)}
        told["by shifts"] = [not row["fit"] or any(row[key] for key in QUESTIONS) for row in members]
        if all("synthetic" in row for row in members):
            told["synthetic"] = [row["synthetic"] for row in members]
            told["both"] = [one and other for one, other in zip(told["by shifts"], told["synthetic"])]
        shares = {key: share_interval(share_estimate(np.array(hits), np.arange(len(members)))).to_dict() for key, hits in told.items()}
        found.append({"defect": defect, "dose": dose, "n": len(members)} | shares)
    return found


def on_all_cores(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``function`` of every item, in their order."""
    with ProcessPoolExecutor(usable_cores(), worker_processes([__name__]), end_with_parent) as pool:
        return list(pool.map(function, items, chunksize=max(1, len(items) // (8 * usable_cores()))))


def _rendered(side: int, visit: tuple[Patient, int]) -> NDArray[np.float32]:
    return render(*visit, side).astype(np.float32)


def _shown(share: dict[str, Any]) -> str:
    if share["value"] is None or share["low"] is None:
        return "–"
    return f"{share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f})"


if __name__ == "__main__":
    from tests.benchmarks import stress_power  # by its own name, since processes look for functions there

    stress_power.main()

"""Whether a model draws what it is asked for: findings present and absent, sides, sizes and severities, by two judges with their errors.

    synthcohort run text_conditioned --until generate
    python -m tests.benchmarks.conditions runs/text_conditioned --out conditions

The model must be of phantoms with several findings, told of ``severity`` and ``side``; one that reads reports is asked by prompt too. One
judge is a network that learns from rendered phantoms; its sensitivity and specificity on others stand beside, and are taken out of what it
says (Rogan & Gladen 1978). The other fits the renderer: of many rendered phantoms those that are nearest to an image tell what it shows.
Writes ``conditions.json`` and ``conditions.png``, the trade-off of guidance for each condition.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from evaluation.classifiers import Classifier
from evaluation.data import Labelled, to_unit
from evaluation.findings import rogan_gladen
from evaluation.intervals import Interval, clopper_pearson
from evaluation.training import Task, train
from pipeline import runtime
from pipeline.config import Asked
from pipeline.denoiser import load_denoiser
from pipeline.further import find_model
from pipeline.generate import Sampling
from pipeline.phantom.anatomy import FINDINGS, Patient, draw_patients
from pipeline.phantom.image import render
from pipeline.wanted import planned

SIDED = ("effusion", "nodule", "pneumothorax")
SIZES = {"effusion": (50.0, 85.0), "nodule": (25.0, 10.0), "pneumothorax": (20.0, 32.0)}
"""Millimetres of the least severe, and what the most severe adds (:mod:`pipeline.phantom.anatomy`)."""
SEVERITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
NEAREST = 15
BATCH = 400
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Phantoms with the truth about them: ``marks int8 [n, 5]`` (the findings, and whether their side is the left, -1 without one)."""

    images: NDArray[np.uint8]
    marks: NDArray[np.int8]
    severity: Floats
    groups: NDArray[np.int64]

    @classmethod
    def draw(cls, count: int, seed: int, size: int) -> Rendered:
        """All images of so many patients."""
        patients = draw_patients(count, seed, several=True)
        pairs = [(patient, number) for patient in patients for number in range(len(patient.visits))]
        visits = [patient.visits[number] for patient, number in pairs]
        marks = [[int(name in one.sizes_mm) for name in FINDINGS] + [{"left": 1, "right": 0, "": -1}[one.side]] for one in visits]
        images = np.stack([_picture(patient, number, size) for patient, number in pairs])
        severity = np.array([one.severity for one in visits])
        return cls(images, np.array(marks, np.int8), severity, np.array([patient.index for patient, _ in pairs]))

    def labelled(self) -> Labelled:
        """For a judge to learn from."""
        return Labelled(self.images, self.marks, self.groups)


def _picture(patient: Patient, number: int, size: int) -> NDArray[np.uint8]:
    return np.rint(render(patient, number, size)[None] * 255).astype(np.uint8)


class Network:
    """A judge that learned from rendered phantoms: marks by thresholds of its own, severity by ridge regression on its features."""

    name = "network"

    def __init__(self, learn: Rendered, choose: Rendered, ceiling: int, device: str) -> None:
        side = learn.labelled()
        task = Task(side.unit, side.findings, side.classes, 0, choose.labelled(), augment=False)
        [trained] = train([task], kind="resnet18" if device == "cuda" else "small", ceiling=ceiling, device=device)
        self.classifier: Classifier = trained.classifier
        p = self.classifier.predict(to_unit(choose.images))
        self.thresholds = np.array([_youden(p[:, k], choose.marks[:, k]) for k in range(p.shape[1])])
        self.ridges = {name: self._ridge(learn, k) for k, name in enumerate(FINDINGS)}

    def _ridge(self, learn: Rendered, k: int) -> Ridge:
        rows = learn.marks[:, k] == 1
        return Ridge(10.0).fit(self.classifier.features(to_unit(learn.images[rows])), learn.severity[rows])

    def marks(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """What each image shows, ``bool [n, 5]``."""
        return np.asarray(self.classifier.predict(to_unit(images)) > self.thresholds, bool)

    def severity(self, images: NDArray[np.uint8], finding: str) -> Floats:
        """How severe a finding is, 0..1."""
        return np.asarray(self.ridges[finding].predict(self.classifier.features(to_unit(images))), np.float64)


class Fit:
    """The renderer fitted by search: what the nearest of many rendered phantoms show, the majority and the mean of their truths."""

    name = "renderer"

    def __init__(self, bank: Rendered) -> None:
        self.bank = bank
        flat = to_unit(bank.images).reshape(len(bank.images), -1)
        self.mean = flat.mean(axis=0)
        self.places = NearestNeighbors(n_neighbors=NEAREST).fit(flat - self.mean)

    def _near(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.places.kneighbors(to_unit(images).reshape(len(images), -1) - self.mean, return_distance=False)
        return found

    def marks(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """As :meth:`Network.marks`."""
        near = self.bank.marks[self._near(images)].astype(np.float64)
        near[near < 0] = np.nan
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nan_to_num(np.nanmean(np.where(np.isnan(near).all(axis=1)[:, None], 0.0, near), axis=1)) > 0.5, bool)

    def severity(self, images: NDArray[np.uint8], finding: str) -> Floats:
        """As :meth:`Network.severity`, of the near ones that have the finding; of all where none has."""
        near = self._near(images)
        has = self.bank.marks[near][:, :, FINDINGS.index(finding)] == 1
        has[~has.any(axis=1)] = True
        return np.asarray((self.bank.severity[near] * has).sum(axis=1) / has.sum(axis=1), np.float64)


class Drawn:
    """What the model draws for a plan, kept so that both judges see the same images."""

    def __init__(self, run: Path, count: int, device: str) -> None:
        self.model, self.count, self.device = find_model(run), count, device
        self.denoiser, self.facts = load_denoiser(self.model.folder, device)
        self.side = int(self.facts["shape"][-1])
        self.made: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, scale: float | None = None, **asked: Any) -> NDArray[np.uint8]:
        """``count`` images of one entry of a plan, at a guidance scale of its own."""
        key = json.dumps(asked, sort_keys=True)
        if (name := f"{key} at {scale}") not in self.made:
            # Not compiled: each scale would be anew, for a second of work.
            section = self.model.section.model_copy(update={"compile": False, **({} if scale is None else {"guidance_scale": scale})})
            entry = Asked.model_validate({"count": self.count, "extrapolate": True, **asked})
            seeds = [runtime.derive_seed(0, "conditions", key, k) for k in range(self.count)]
            wanted = planned([entry], self.model.conditions, seeds, "conditions")
            sampling = Sampling(self.denoiser, self.facts, section, self.device)
            parts = [sampling.make(wanted.take(slice(at, at + BATCH))) for at in range(0, self.count, BATCH)]
            self.made[name] = np.concatenate(parts)
        return self.made[name]

    def seen(self, findings: Sequence[str]) -> bool:
        """Whether training images had these findings together."""
        places = [self.model.conditions.classes.index(name) for name in findings]
        return any(all(one.findings[place] for place in places) for one in self.model.conditions.combinations)


def _youden(p: Floats, marks: NDArray[np.int8]) -> float:
    """The threshold of the greatest sensitivity + specificity."""
    known = marks >= 0
    p, positive = p[known], marks[known] == 1
    places = np.unique(p)
    steps = [float((p[positive] > place).mean() + (p[~positive] <= place).mean()) for place in places]
    return float(places[int(np.argmax(steps))])


def errors(judge: Network | Fit, test: Rendered) -> dict[str, Any]:
    """A judge's sensitivity and specificity on rendered phantoms that it never saw, and how far its severities are off."""
    called = judge.marks(test.images)
    found: dict[str, Any] = {}
    for k, name in enumerate((*FINDINGS, "side")):
        side, hit = test.marks[:, k], called[:, k]
        found[name] = {"sensitivity": float(hit[side == 1].mean()), "specificity": float((~hit)[side == 0].mean())}
    for k, name in enumerate(FINDINGS):
        rows = test.marks[:, k] == 1
        guessed = judge.severity(test.images[rows], name)
        found[name] |= {"severity_rank": float(spearmanr(guessed, test.severity[rows]).statistic)}
    return found


def share(judge: Network | Fit, its: dict[str, Any], images: NDArray[np.uint8], name: str, present: bool) -> dict[str, Any]:
    """How many images have (or have not) a finding as the judge calls them, and corrected for its errors."""
    called = judge.marks(images)[:, (*FINDINGS, "side").index(name)]
    counted = clopper_pearson(int(called.sum()), len(called))
    errs = its[name]["sensitivity"], its[name]["specificity"]
    # A judge that is no better than chance has nothing that could be corrected.
    true = rogan_gladen(counted, *errs) if sum(errs) > 1 else Interval(math.nan, math.nan, math.nan, counted.n)
    sides = {"called": counted, "corrected": true}
    return {
        key: {"value": one.value, "low": one.low, "high": one.high}
        if present
        else {"value": 1 - one.value, "low": 1 - one.high, "high": 1 - one.low}
        for key, one in sides.items()
    }


def measure(judge: Network | Fit, its: dict[str, Any], drawn: Drawn) -> dict[str, Any]:
    """All that is asked for, as one judge sees it."""
    found: dict[str, Any] = {"present": {}, "absent": {}, "both": {}, "side": {}, "size": {}}
    for name in FINDINGS:
        found["present"][name] = share(judge, its, drawn(findings=[name]), name, True)
        found["absent"][name] = share(judge, its, drawn(without=[name]), name, False)
    for place, one in enumerate(FINDINGS):
        for other in FINDINGS[place + 1 :]:
            images, key = drawn(findings=[one, other]), f"{one} + {other}"
            found["both"][key] = {name: share(judge, its, images, name, True) for name in (one, other)}
            found["both"][key]["seen in training"] = drawn.seen([one, other])
    reads = bool(drawn.model.conditions.vocabulary)
    for name in SIDED:
        for side in ("left", "right"):
            ways = {"attribute": drawn(findings=[name], attributes={"side": side})}
            ways |= {"prompt": drawn(text=f"{side} {'pleural effusion' if name == 'effusion' else name}")} if reads else {}
            found["side"][f"{name} {side}"] = {way: share(judge, its, images, "side", side == "left") for way, images in ways.items()}
        asked = np.repeat(SEVERITIES, drawn.count)
        images = np.concatenate([drawn(findings=[name], attributes={"severity": one}) for one in SEVERITIES])
        guessed = np.clip(judge.severity(images, name), 0, 1)
        least, more = SIZES[name]
        off = np.abs(guessed - asked) * more / (least + more * asked)
        found["size"][name] = {
            "severity_rank": float(spearmanr(guessed, asked).statistic),
            "size_error": {"mean": float(off.mean()), "median": float(np.median(off))},
        }
    return found


def trade_off(judge: Network | Fit, its: dict[str, Any], drawn: Drawn) -> dict[str, list[dict[str, float]]]:
    """For each finding and scale of guidance: how many images have it, and how much they differ from each other."""
    found: dict[str, list[dict[str, float]]] = {}
    for name in FINDINGS:
        for scale in SCALES:
            images = drawn(scale=scale, findings=[name])
            spread = float(to_unit(images).std(axis=0).mean())
            has = share(judge, its, images, name, True)["corrected"]["value"]
            found.setdefault(name, []).append({"scale": scale, "present": has, "spread": spread})
    return found


def picture(points: dict[str, list[dict[str, float]]], path: Path) -> None:
    """The trade-off, a line a finding."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, line in points.items():
        axes.plot([one["spread"] for one in line], [one["present"] for one in line], "o-", label=name)
        for one in line:
            axes.annotate(f"{one['scale']:g}", (one["spread"], one["present"]), fontsize=7)
    axes.set_xlabel("spread of the images (mean standard deviation of a pixel)")
    axes.set_ylabel("share that has the finding, judge's errors taken out")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Measure a run's model."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("conditions"))
    parser.add_argument("--count", type=int, default=400, help="images of each thing that is asked for")
    parser.add_argument("--patients", type=int, default=4000, help="phantom patients that the judges learn from")
    parser.add_argument("--ceiling", type=int, default=400_000, help="images in training the judge, at the most")
    options = parser.parse_args()
    runtime.limit_threads()
    device = runtime.device()
    drawn = Drawn(options.run, options.count, device)
    learn = Rendered.draw(options.patients, 101, drawn.side)
    choose, test = (Rendered.draw(max(60, options.patients // 6), seed, drawn.side) for seed in (102, 103))
    judges = Network(learn, choose, options.ceiling, device), Fit(learn)
    result: dict[str, Any] = {"device": device, "count": options.count, "patients": options.patients}
    for judge in judges:
        its = errors(judge, test)
        result[judge.name] = {"errors": its, **measure(judge, its, drawn)}
        print(json.dumps({judge.name: result[judge.name]}, indent=1), flush=True)
    result["trade_off"] = trade_off(judges[0], result["network"]["errors"], drawn)
    options.out.mkdir(parents=True, exist_ok=True)
    picture(result["trade_off"], options.out / "conditions.png")
    (options.out / "conditions.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

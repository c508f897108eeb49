"""Rendered phantoms whose truth is known, and the two judges that learn from them what an image shows.

One judge is a network; of what it says, how often it is right on other phantoms is measured. The other fits the renderer: of many rendered
phantoms those that are nearest to an image tell what it shows.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from evaluation.classifiers import Classifier
from evaluation.data import Labelled, to_unit
from evaluation.training import Task, train
from pipeline.clinical_text import closed, vocabulary
from pipeline.images import ATTRIBUTE, FINDING, ImageSet
from pipeline.ingest.source import workers
from pipeline.phantom.anatomy import FINDINGS, Patient, draw_patients
from pipeline.phantom.image import render

SIDED = ("effusion", "nodule", "pneumothorax")
SIZES = {"effusion": (50.0, 85.0), "nodule": (25.0, 10.0), "pneumothorax": (20.0, 32.0)}
"""Millimetres of the least severe, and what the most severe adds (:mod:`pipeline.phantom.anatomy`)."""
STEPS = 8
"""Equal steps of severity that the network learns to tell: of a value within 0..1, how many of their middles it exceeds."""
MARKS = len(FINDINGS) + 1
"""The findings, and the side."""
HALF = 0.5
NEAREST = 15
MANY = 400
"""Images from which several processes render them."""
Floats = NDArray[np.float64]
Pairs = Sequence[tuple[Patient, int]]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Phantoms with the truth about them: ``marks int8 [n, 5]`` (the findings, and whether their side is the left, -1 without one)."""

    images: NDArray[np.uint8]
    marks: NDArray[np.int8]
    severity: Floats
    groups: NDArray[np.int64]
    sex: NDArray[np.str_]
    reports: NDArray[np.str_]

    @classmethod
    def draw(cls, count: int, seed: int, size: int) -> Rendered:
        """All images of so many patients."""
        patients = draw_patients(count, seed, several=True)
        return cls.of([(patient, number) for patient in patients for number in range(len(patient.visits))], size)

    @classmethod
    def severe(cls, finding: str, severities: Sequence[float], count: int, seed: int, size: int) -> Rendered:
        """Images of patients who have a finding of a side, ``count`` of each severity; all else is as it is. What a perfect model draws."""
        patients = draw_patients(12 * count, seed, several=True)
        having = [(one, number) for one in patients for number, visit in enumerate(one.visits) if finding in visit.sizes_mm][:count]
        return cls.of([(_changed(patient, severity), number) for severity in severities for patient, number in having], size)

    @classmethod
    def of(cls, pairs: Pairs, size: int) -> Rendered:
        """Visits of patients by number."""
        visits = [patient.visits[number] for patient, number in pairs]
        marks = [[int(name in one.sizes_mm) for name in FINDINGS] + [{"left": 1, "right": 0, "": -1}[one.side]] for one in visits]
        return cls(
            _pictures(pairs, size),
            np.array(marks, np.int8).reshape(-1, len(FINDINGS) + 1),
            np.array([one.severity for one in visits]),
            np.array([patient.index for patient, _ in pairs], np.int64),
            np.array([patient.sex for patient, _ in pairs], dtype=str),
            np.array([one.report for one in visits], dtype=str),
        )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.bool_]) -> Rendered:
        """Some of them."""
        return Rendered(*(getattr(self, one.name)[rows] for one in dataclasses.fields(self)))

    def labelled(self) -> Labelled:
        """For a judge to learn from: the marks, and for each finding that is there the middles of :data:`STEPS` that it exceeds."""
        exceeds = (self.severity[:, None] > (np.arange(STEPS) + 0.5) / STEPS).astype(np.int8)
        steps = [np.where(self.marks[:, k, None] == 1, exceeds, -1) for k in range(len(FINDINGS))]
        return Labelled(self.images, np.concatenate([self.marks, *steps], axis=1).astype(np.int8), self.groups)

    def cohort(self) -> ImageSet:
        """For a model to learn from, as ingest has such images."""
        import pandas as pd

        side = np.array(["right", "left", ""])[self.marks[:, -1]]
        people = self.groups.astype(str)
        words = frozenset(vocabulary(self.reports.tolist(), people.tolist()))
        columns = {"id": [f"{row:06d}" for row in range(len(self))], "patient": people, "sex": self.sex}
        columns |= {FINDING + name: self.marks[:, k] for k, name in enumerate(FINDINGS)}
        columns |= {ATTRIBUTE + "severity": self.severity.astype(np.float32), ATTRIBUTE + "side": side}
        return ImageSet(self.images, pd.DataFrame(columns | {ATTRIBUTE + "text": [closed(report, words) for report in self.reports]}))


def _changed(patient: Patient, severity: float) -> Patient:
    visits = []
    for visit in patient.visits:
        sizes = {name: size if name not in SIZES else SIZES[name][0] + SIZES[name][1] * severity for name, size in visit.sizes_mm.items()}
        visits.append(dataclasses.replace(visit, severity=severity, sizes_mm=sizes))
    return dataclasses.replace(patient, visits=tuple(visits))


def _pictures(pairs: Pairs, size: int) -> NDArray[np.uint8]:
    if len(pairs) < MANY or workers() < 2:
        return np.stack([_picture(pair, size) for pair in pairs])
    with ProcessPoolExecutor(workers(), multiprocessing.get_context("spawn")) as pool:
        return np.stack(list(pool.map(_picture, pairs, [size] * len(pairs), chunksize=64)))


def _picture(pair: tuple[Patient, int], size: int) -> NDArray[np.uint8]:
    return np.rint(render(*pair, size)[None] * 255).astype(np.uint8)


class Network:
    """A judge that learned from rendered phantoms: it marks what is more likely than not; severity is how many of its steps are exceeded.

    The threshold of the greatest sensitivity + specificity is a probability of .015 for what is as rare as pneumothorax, and its
    specificity does not hold for other images: of true renderings of a nodule alone it calls .058, and .216 where they are sharper.
    """

    name = "network"

    def __init__(self, learn: Rendered, choose: Rendered, ceiling: int, device: str) -> None:
        side = learn.labelled()
        task = Task(side.unit, side.findings, side.classes, 0, choose.labelled(), augment=False)
        [trained] = train([task], kind="small", ceiling=ceiling, device=device)
        self.classifier: Classifier = trained.classifier
        self.plateau = trained.plateau

    def marks(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """What each image shows, ``bool [n, 5]``."""
        return np.asarray(self.classifier.predict(to_unit(images))[:, :MARKS] > HALF, bool)

    def severity(self, images: NDArray[np.uint8], finding: str) -> Floats:
        """How severe a finding is, 0..1: the mean over the steps of the probability that it exceeds each."""
        first = MARKS + STEPS * FINDINGS.index(finding)
        return np.asarray(self.classifier.predict(to_unit(images))[:, first : first + STEPS].mean(axis=1), np.float64)


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

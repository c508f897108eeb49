"""The synthetic cases that a run's own model makes for a stress test, and the counterfactuals of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.counterfactuals import GALLERY, least_change, own_patient_first
from evaluation.data import Labelled, to_unit
from evaluation.hypotheses import Judges, judgement
from evaluation.intervals import share_interval
from evaluation.metrics import share_estimate
from pipeline import runtime
from pipeline.errors import InputError
from pipeline.models.contract import spelled
from pipeline.models.kinds import Kind, as_judges_see, of_arrays, resized
from pipeline.models.own_generator import OwnGenerator

if TYPE_CHECKING:
    from pipeline.models.cases import Cases
    from pipeline.progress import Reporter

EACH = 64
"""Images of every class, however rare it is in the data."""
WEIGHTS = (0.25, 0.5, 0.75, 1.5)
"""Places between two classes, and one beyond: severities of the second, mixtures of both."""
STEP = 32
"""Images at each of them."""
TRIES = ((1.0, 2.0), (1.0, 4.0), (2.0, 4.0), (1.0, 8.0), (2.0, 8.0), (4.0, 4.0), (4.0, 8.0))
"""Noise levels up to which a real image is taken, in standard deviations of the data, and weights of the wanted finding over its own, from
what changes the image least: the first at which all judges see the finding is taken, so that no more of the patient changes than has to.
Tried with the quickstart's model, 12 test patients for each two classes, 96 in all: 98 % showed the finding that they were given, or lost
theirs, to judges of 32 px that learned from sealed patients; of these 93 % to another that learned from others; each patient came first
among 946. These patients are among those that the levels were chosen with: design, and no confirmation."""
CHANGED = 16
"""Real images, of as many patients, that are given another finding, for each two classes."""
SHOWN = 8


class OfRun:
    """A run's model beside the real cases.

    Args:
        run: its folder.
        real: the cases.
        test: the same without their pixels.
        names: of the model's classes.

    Attributes:
        sized: the real cases at the size of the run's images, ``uint8 [n, C, side, side]``.
        small: the same as the judges see them.
        notes: which of the run's classes were taken for which, as sentences.
        pairs: after :meth:`kinds`: real images and their counterfactuals, for local eyes.

    Raises:
        InputError: the run's classes are none of the model's, or as :class:`OwnGenerator`.
    """

    def __init__(self, run: Path, real: Cases, test: Labelled, names: tuple[str, ...]) -> None:
        self.maker = OwnGenerator(run, runtime.device())
        taken, self.notes = spelled(self.maker.classes, names, "--synthetic")
        if strange := [name for name in taken if name not in names]:
            raise InputError(f"--synthetic makes {len(strange)} classes that the model does not name: give a run of {', '.join(names)}")
        self.test, self.names = test, names
        self.labels = [names.index(name) for name in taken]
        self.sized = resized(real, test, self.maker.side, self.maker.channels)
        self.small = as_judges_see(self.sized)
        self.pairs: list[tuple[str, NDArray[np.uint8]]] = []
        sizes = [int((test.labels == label).sum()) for label in self.labels]
        common = int(np.argmax(sizes))
        self.ways = [(common, k) for k in range(len(sizes)) if k != common]
        """Two of the run's classes each: the one that is most frequent among the cases, and another."""

    def kinds(self, judges: Judges, reporter: Reporter) -> list[Kind]:
        """Every class as often, severities, and counterfactuals either way."""
        every, found = len(self.labels), []
        both = [way for one, other in self.ways for way in ((one, other), (other, one))]
        with reporter.progress("synthetic cases", every + len(self.ways) * len(WEIGHTS) + len(both) * len(TRIES)) as done:
            made = []
            for k in range(every):
                made.append(self.maker.images(k, EACH, 0))
                done(len(made))
            found.append(of_arrays("every class alike", np.concatenate(made), np.repeat(self.labels, EACH)))
            for number, (one, other) in enumerate(self.ways):
                for place, weight in enumerate(WEIGHTS):
                    found.append(self._severity(one, other, weight))
                    done(every + number * len(WEIGHTS) + place + 1)
            for number, (one, other) in enumerate(both):
                found += self._changed(judges, one, other)
                done(every + len(self.ways) * len(WEIGHTS) + (number + 1) * len(TRIES))
        return found

    def _severity(self, one: int, other: int, weight: float) -> Kind:
        images = self.maker.between(one, other, weight, STEP, 0)
        label = self.labels[other if weight >= 0.5 else one]
        title = f"{self.maker.classes[one]} to {self.maker.classes[other]}, {weight:g}"
        return of_arrays(title, images, np.full(STEP, label), weight=weight)

    def _changed(self, judges: Judges, one: int, other: int) -> list[Kind]:
        """Counterfactuals of real cases of one class, of the least change that will do; none without a case of it."""
        rows = self._patients(self.labels[one])
        if not len(rows):
            return []
        wanted, before = np.full(len(rows), self.labels[other]), to_unit(self.sized[rows])
        made, first = least_change(
            TRIES,
            lambda left, each: self.maker.counterfactuals(before[left], one, other, *each),
            lambda left, images: judgement(judges, to_unit(as_judges_see(images)), wanted[left], self.names).sure,
            len(rows),
        )
        groups = self.test.groups
        same = own_patient_first(to_unit(made), groups[rows], to_unit(self.sized), groups)
        title = f"{self.maker.classes[one]} given {self.maker.classes[other]}"
        self.pairs += [(f"real {self.maker.classes[one]}", self.sized[rows][:SHOWN]), (title, made[:SHOWN])]
        patients = len(np.unique(groups))
        facts: dict[str, Any] = {
            "changed": share_interval(share_estimate(first >= 0, groups[rows])),
            "same_patient": share_interval(share_estimate(same, groups[rows])),
            "among": patients,
            "few": patients < GALLERY,
        }
        return [of_arrays(title, made, wanted, same, **facts)]

    def _patients(self, label: int) -> NDArray[np.int64]:
        """One case each of :data:`CHANGED` patients with this class, evenly from all."""
        rows = np.flatnonzero(self.test.labels == label)
        firsts = rows[np.unique(self.test.groups[rows], return_index=True)[1]]
        return firsts[np.unique(np.linspace(0, len(firsts) - 1, min(CHANGED, len(firsts))).astype(int))] if len(firsts) else firsts

"""The judge of the quality benchmarks: the evaluate and audit stages' measures, arranged so that many candidates share what is theirs.

The encoder, the halves of the held-out images and what they score against each other (the floor), the classifiers trained on real images
and the copy search's index are made once; a candidate then costs some seconds of a GPU.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.classifiers import Classifier, Kind
from evaluation.comparisons import difference
from evaluation.data import Labelled, to_unit
from evaluation.fidelity import compare, draw, frechet_distance, measures, standardised_features
from evaluation.intervals import Interval, interval, to_json
from evaluation.metrics import Floats, balanced_accuracy_estimate, macro_auc_estimate
from evaluation.training import Task, train
from pipeline import runtime
from pipeline.evaluate import halves, labelled
from pipeline.images import ImageSet
from privacy import gate, power
from privacy.copies import CopySearch, shared_structure
from privacy.copy_report import FALSE_ALARM
from privacy.judgements import DRAWN
from privacy.repeats import find_repeats
from privacy.tail import leading_run, lower_tail, nearest_by_patient
from tests.benchmarks.bootstrap import interval_of, resample_weights
from tests.benchmarks.two_sample import TwoSample, two_sample_halves, two_sample_tasks

Features = Callable[[NDArray[np.float32]], Floats]

RESAMPLES = 500
ENCODER_IMAGES = 100_000
"""Images seen in training an encoder, at the most."""
MANIFOLD_DRAWS = 10
"""Halvings on which precision, recall and the kernel distance are measured; they cost twenty times what the Fréchet distance does."""
PLANTED = 100
"""Copies planted for each core transformation, as in the audit stage."""


@dataclass(frozen=True)
class Protocol:
    """How thoroughly a candidate is judged.

    Attributes:
        kind: of the classifiers.
        images_seen: in training each of them, at the most.
        utility_seeds: classifiers trained on the candidate, and on real images.
        tests: two-sample tests on different halvings, whose mean counts.
        halvings: of the held-out images, for the Fréchet distance.
        encoders: feature spaces, one for each halving in turn. The ratio to the floor of the real training images, which ought to be 1,
            was measured to move by 0.3 with the seed of a single encoder and by 0.1 with that of a hundred halvings.
        full: with label fidelity, utility and the copy search; otherwise only the Fréchet distance and the two-sample test.
    """

    kind: Kind = "resnet18"
    images_seen: int = 20_000
    utility_seeds: int = 5
    tests: int = 3
    halvings: int = 300
    encoders: int = 5
    full: bool = True


QUICK = Protocol(kind="small", images_seen=12_000, tests=1, full=False)
TINY = Protocol(kind="small", images_seen=256, utility_seeds=2, tests=1, halvings=4, encoders=1)


class Judge:
    """Judges sets of generated images that all have the same classes in the same order.

    Args:
        sets: the real images by split.
        labels: class of every generated image ``[n]``.
        seed: of the halvings and of the classifiers.
    """

    def __init__(self, sets: dict[str, ImageSet], labels: NDArray[np.int64], seed: int, protocol: Protocol, device: str) -> None:
        self.sets, self.labels, self.seed, self.protocol, self.device = sets, labels, seed, protocol, device
        self.names = sets["train"].classes
        self.real = {name: labelled(images) for name, images in sets.items()}
        learn, self.choose = halves(self.real["val"], seed)
        self.encoders = encoders(learn, self.choose, protocol.encoders, device)
        rng = self.rng("halvings")
        audited = self.real["audit"]
        self.draws = [draw(audited, labels, rng, len(self.names)) for _ in range(protocol.halvings)]
        self.held_out = [features(audited.unit) for features in self.encoders]
        self.floor = feature_measures([(own[d.b], own[d.a]) for own, d in zip(itertools.cycle(self.held_out), self.draws)])
        self.weights = bootstrap_weights(audited, len(labels), self.rng("bootstrap"))
        self.floor_tests = self._tests([audited.take(d.b) for d in self.draws[: protocol.tests]])
        tasks = self._test_tasks(self.floor_tests) + (self._utility_tasks(self.real["train"]) if protocol.full else [])
        trained = self._train(tasks)
        self.floor_areas = self._areas(self._scored(self.floor_tests, trained), floor=True)
        self.trained_on_real = trained[2 * protocol.tests :]
        if protocol.full:
            self.real_test = np.stack([one.predict(self.real["test"].unit) for one in self.trained_on_real])
            self.real_labels = self._label_fidelity(audited.unit, audited.labels)

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator for one purpose, the same for every candidate."""
        return np.random.default_rng(runtime.derive_seed(self.seed, "judge", purpose))

    def __call__(self, images: NDArray[np.uint8], copies: bool = True) -> dict[str, Any]:
        """Judge ``uint8 [n, C, H, W]``: plain JSON values, intervals as ``{"value", "low", "high", "n"}``.

        Without ``copies``, no image is searched for copies: for the training images themselves.
        """
        made = Labelled.of_classes(images, self.labels, np.arange(len(images)).astype(str), len(self.names))
        result: dict[str, Any] = {"n": len(self.draws[0].a), "images": len(images)} | self._features(made.unit)
        tests = self._tests([made.take(d.synthetic) for d in self.draws[: self.protocol.tests]])
        trained = self._train(self._test_tasks(tests) + (self._utility_tasks(made) if self.protocol.full else []))
        result["two_sample"] = self._two_sample(self._scored(tests, trained))
        if self.protocol.full:
            result |= self._worth(made, trained[2 * self.protocol.tests :])
            if copies:
                result["copies"] = self.copy_search(images)
        judged: dict[str, Any] = to_json(result)
        return judged

    def features_only(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Fréchet distance, precision, recall and, where the classifiers are there, label fidelity: no training, so a second's work."""
        result = self._features(to_unit(images))
        if self.trained_on_real:
            seen = np.stack([one.predict(to_unit(images)) for one in self.trained_on_real])
            result["label_fidelity"] = macro_recall(seen, self.labels)
        judged: dict[str, Any] = to_json(result)
        return judged

    def _features(self, images: NDArray[np.float32]) -> dict[str, Any]:
        """Distances and manifold measures, each halving in the feature space whose turn it is."""
        made = [features(images) for features in self.encoders]
        turns = zip(itertools.cycle(zip(made, self.held_out)), self.draws)
        measured = feature_measures([(own[d.synthetic], real[d.a]) for (own, real), d in turns])
        return compare(measured, self.floor, len(self.draws[0].a))

    def _train(self, tasks: list[Task]) -> list[Classifier]:
        trained = train(tasks, kind=self.protocol.kind, ceiling=self.protocol.images_seen, device=self.device)
        return [one.classifier for one in trained]

    def _tests(self, candidates: list[Labelled]) -> list[tuple[NDArray[np.float32], TwoSample]]:
        """Each candidate against side A of its halving."""
        rng = self.rng("halves")
        return [two_sample_halves(one, self.real["audit"].take(d.a), rng) for one, d in zip(candidates, self.draws)]

    def _test_tasks(self, tests: list[tuple[NDArray[np.float32], TwoSample]]) -> list[Task]:
        seeds = [[self._number("two-sample", number, f) for f in (0, 1)] for number in range(len(tests))]
        return [task for (images, test), pair in zip(tests, seeds) for task in two_sample_tasks(images, test, pair)]

    def _utility_tasks(self, data: Labelled) -> list[Task]:
        numbers = [self._number("utility", number) for number in range(self.protocol.utility_seeds)]
        return [Task(data.unit, data.labels, len(self.names), number, self.choose) for number in numbers]

    def _number(self, *purpose: str | int) -> int:
        return runtime.derive_seed(self.seed, "judge", *purpose) % 2**31

    def _scored(self, tests: list[tuple[NDArray[np.float32], TwoSample]], trained: list[Classifier]) -> list[TwoSample]:
        networks = iter(trained)
        return [test.scored([next(networks).predict(images[test.fold == f])[:, 1] for f in (0, 1)]) for images, test in tests]

    def _areas(self, tests: list[TwoSample], floor: bool) -> Floats:
        """Mean AUC of the tests, on the sample and its resamples: of the held-out patients, the same for every candidate, and its own."""
        held_out, made = self.weights
        areas = []
        for d, test in zip(self.draws, tests):
            candidate = held_out[:, d.b] if floor else made[:, d.synthetic]
            areas.append(test.areas(np.concatenate([candidate, held_out[:, d.a]], axis=1)))
        return np.asarray(np.mean(areas, axis=0))

    def _two_sample(self, tests: list[TwoSample]) -> dict[str, Interval]:
        areas, n = self._areas(tests, floor=False), len(self.draws[0].a)
        return {
            "synthetic": interval_of(areas, n),
            "floor": interval_of(self.floor_areas, n),
            "excess": interval_of(areas - self.floor_areas, n),
        }

    def _worth(self, made: Labelled, classifiers: list[Classifier]) -> dict[str, Any]:
        """Label fidelity beside that of held-out real images, and utility beside that of real training images."""
        test = self.real["test"]
        scored = {"real": self.real_test, "synthetic": np.stack([one.predict(test.unit) for one in classifiers])}
        found = {arm: macro_auc_estimate(p, test.labels, test.groups) for arm, p in scored.items()}
        return {
            "label_fidelity": {"synthetic": self._label_fidelity(made.unit, made.labels), "floor": self.real_labels},
            "utility": {
                "synthetic": interval(found["synthetic"]),
                "real": interval(found["real"]),
                "difference": difference(found["synthetic"], found["real"]),
            },
        }

    def _label_fidelity(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Interval:
        return macro_recall(np.stack([one.predict(images) for one in self.trained_on_real]), labels)

    @functools.cached_property
    def copy_search(self) -> CopyJudge:
        """The index of the copy search, made when first asked for."""
        return CopyJudge(self.sets["train"], self.sets["audit"], self.rng("planted"), self.device)


def macro_recall(probabilities: Floats, labels: NDArray[np.int64]) -> Interval:
    """Mean over trainings ``[S, n, K]`` and classes of the share named right."""
    predicted = probabilities.argmax(axis=2)
    return interval(balanced_accuracy_estimate(predicted, labels, np.arange(len(labels)), probabilities.shape[2]))


def encoders(learn: Labelled, choose: Labelled, count: int, device: str) -> list[Features]:
    """Feature spaces as the evaluate stage makes them; deterministic, so that runs on machines of one kind measure in the same."""
    tasks = [Task(learn.unit, learn.labels, learn.classes, seed, choose) for seed in range(count)]
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        trained = train(tasks, kind="small", ceiling=ENCODER_IMAGES, device=device)
    return [standardised_features(one.classifier.features, learn.unit) for one in trained]


def feature_measures(pairs: list[tuple[Floats, Floats]]) -> dict[str, Floats]:
    """:func:`evaluation.fidelity.measures`, of which only the Fréchet distance is taken on every pair."""
    few = measures(pairs[:MANIFOLD_DRAWS])
    rest = [frechet_distance(x, y) for x, y in pairs[MANIFOLD_DRAWS:]]
    return few | {"frechet": np.concatenate([few["frechet"], rest])}


def bootstrap_weights(audited: Labelled, made: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """How often each held-out image (by patient) and each generated one occurs in the sample and in its resamples, ``[1 + B, n]`` each."""
    sides = resample_weights(audited.groups, rng, RESAMPLES), resample_weights(np.arange(made), rng, RESAMPLES)
    held_out, generated = (np.concatenate([np.ones((1, side.shape[1])), side]) for side in sides)
    return held_out, generated


class CopyJudge:
    """The audit stage's copy search by distance alone, with its index kept: see :func:`privacy.copy_report.find_copies`."""

    def __init__(self, train: ImageSet, audited: ImageSet, rng: np.random.Generator, device: str) -> None:
        self.images = np.concatenate([train.images, audited.images])
        self.member = np.arange(len(self.images)) < len(train)
        self.search = CopySearch(self.images, shared_structure(self.images), device)
        self.patients = [np.unique(side.rows["patient"], return_inverse=True)[1].astype(np.int64) for side in (train, audited)]
        planted = [power.plant(np.asarray(train.images), transform, PLANTED, rng)[0] for transform in power.CORE]
        self.planted = self.search.nearest(np.concatenate(planted), self.member)[0].distance

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Flagged images, the leading run, the power and the gate's verdict on the images."""
        to_train, to_audit = self.search.nearest(images, self.member, ~self.member)
        n_train, n_audit, n = int(self.member.sum()), int((~self.member).sum()), len(images)
        threshold = lower_tail(to_audit.distance).threshold(FALSE_ALARM / n / (n_train / n_audit))
        flagged = int((to_train.distance < threshold).sum())
        nearest = [
            nearest_by_patient(matches.index - offset, matches.distance, patients)
            for matches, patients, offset in zip((to_train, to_audit), self.patients, (0, n_train))
        ]
        run = leading_run(*nearest)
        per_kind = (self.planted.reshape(len(power.CORE), -1) < threshold).sum(axis=1)
        planted = len(self.planted) // len(power.CORE)
        repeats = find_repeats(images, self.images[self.member], self.search.device)
        report = {
            "unit": "patient",
            "drawn": DRAWN[0],
            "pixels": int(images.shape[-1]),
            "n": {"train": n_train, "audit": n_audit, "synthetic": n, "holdout_units": len(nearest[1])},
            "copies": {
                "flagged": flagged,
                "undecided": 0,
                "twins": 0,
                "threshold": threshold,
                "leading_run": run.length,
                "run_p": run.p_value,
                "repeats": int((~repeats.new & ~repeats.constant).sum()),
                "explained": 0,
                "constants": int(repeats.constant.sum()),
                "smallest_distance": {"train": float(to_train.distance.min()), "audit": float(to_audit.distance.min())},
            },
            "power": [
                {"kind": transform.__name__, "planted": planted, "found": int(hits)} for transform, hits in zip(power.CORE, per_kind)
            ],
        }
        checks = gate.checks(report)
        bound = {check["name"]: check for check in checks if check["subject"] == "images"}
        rate = {key: bound["copies"][key] for key in ("value", "low", "high", "n")}
        found = {**report["copies"], "of": n, "rate": rate, "recall_low": bound["power"]["low"] or 0.0}
        return found | gate.decide(checks)["images"]

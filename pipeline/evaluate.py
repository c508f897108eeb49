"""The evaluate stage: fidelity against the sealed ``audit`` images, label fidelity, and utility on the test patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.arms import CONTROL, DEFAULT, FULL, course, train_arms
from evaluation.classifiers import Classifier, Kind, make_classifier
from evaluation.data import Labelled
from evaluation.fidelity import fidelity, standardised_features
from evaluation.intervals import to_json
from evaluation.judges import fitness, label_fidelity
from evaluation.panel import panel
from evaluation.plain_features import plain_features
from evaluation.training import Task, Trained, train, unfinished
from evaluation.utility import Scored, utility
from pipeline import runtime, tensors
from pipeline.artifacts import damage, write_json
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.imagenet import imagenet_space
from pipeline.images import ImageSet, unit_of
from pipeline.release.figures import evaluation_figures, summary

SUBGROUPS = ("site", "sex", "age_band", "acquisition")
"""Columns of the rows whose values are looked at one by one, where the rows have them."""
JUDGES = "judges.safetensors"
"""The classifiers trained on real images, which the stress stage puts under stress; weights learned from patients, so they stay here."""


def labelled(images: ImageSet) -> Labelled:
    """The images as the judges take them; groups are the patients, or the images themselves where there is no patient (synthetic ones)."""
    rows = images.rows
    groups = rows["patient"] if "patient" in rows else rows["id"]
    known = {column: rows[column].astype(object) for column in SUBGROUPS if column in rows}
    attributes = {column: values.where(values.notna(), "").to_numpy(dtype=str) for column, values in known.items()}
    return Labelled(np.asarray(images.images), images.findings, groups.to_numpy(dtype=str), attributes, images.asked)


def extrapolated(made: ImageSet) -> NDArray[np.bool_]:
    """Which synthetic images are of what too few training patients had together, ``[n]``."""
    return made.rows["unseen"].to_numpy(bool) if "unseen" in made.rows else np.zeros(len(made), bool)


def sizes(made: ImageSet, **parts: Labelled) -> dict[str, int]:
    """Images of each part, of the synthetic ones, and of these the extrapolated ones where there are any."""
    unseen = int(extrapolated(made).sum())
    return {name: len(part) for name, part in parts.items()} | {"synthetic": len(made)} | ({"unseen": unseen} if unseen else {})


def load(ctx: Context) -> tuple[dict[str, ImageSet], ImageSet]:
    """The real images by split, and the synthetic ones. Raises InputError where a split is empty."""
    real, synthetic = ImageSet.load(ctx.folder("ingest")), ImageSet.load(ctx.folder("generate"))
    splits = {name: real.split(name) for name in ("train", "audit", "val", "test")}
    if empty := [name for name, images in splits.items() if not len(images)]:
        raise InputError(f"no image in {', '.join(empty)}: add patients, or raise that split's share under ingest")
    return splits, synthetic


def halves(val: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Of ``val``, *learn* (encoders learn from it) and *choose* (plateaus are seen on it), by patient, fixed by the run's seed.

    Raises:
        InputError: one patient cannot be divided.
    """
    learn, choose = val.halves(runtime.derive_seed(seed, "val"))
    if not len(learn) or not len(choose):
        raise InputError("val holds one patient, and two are needed: add patients, or raise ingest.val_share")
    return learn, choose


def run(ctx: Context) -> dict[str, Any]:
    """Write ``evaluation.json`` and ``judges.safetensors``; return the headline numbers."""
    config = ctx.config.evaluate
    runtime.limit_threads()
    runtime.reuse_memory()
    splits, made = load(ctx)
    real, audit, val, test, synthetic = (labelled(part) for part in (*splits.values(), made))
    learn, choose = halves(val, ctx.config.seed)
    work = _Work(ctx, made.classes, test, choose, config.seeds or (5 if runtime.device() == "cuda" else 3))
    result: dict[str, Any] = {
        "classes": list(made.classes),
        "unit": unit_of(ctx.folder("ingest")),
        "n": sizes(made, learn=learn, choose=choose, audit=audit, test=test),
        "seeds": work.seeds,
        "ceiling": config.classifier_images,
    }
    result["fidelity"] = work.fidelity(learn, audit, synthetic)
    by_class = result["fidelity"].setdefault("per_class", {})
    result["fidelity"]["two_sample"] = two_sample = work.panel(audit, synthetic)
    for name, facts in two_sample.pop("per_class", {}).items():
        by_class[name] = by_class.get(name, {}) | {"two_sample": facts}
    arms = work.arms(real, synthetic)
    scored = {
        arm: Scored(*(np.stack([one.classifier.predict(part.unit) for one in trained]) for part in (choose, test)))
        for arm, trained in arms.items()
    }
    still = {arm: reason for arm, trained in arms.items() if (reason := unfinished(trained))}
    judge = fitness(scored[CONTROL].test, test, made.classes, still.get(CONTROL))
    seen = np.stack([one.classifier.predict(synthetic.unit) for one in arms[CONTROL]])
    result["judge"] = {"network": config.classifier, "trained_on": CONTROL} | judge.to_dict()
    result["label_fidelity"] = label_fidelity(judge, seen, synthetic.labels, made.classes)
    if CONTROL in still:
        result["utility"] = {"unfit": still[CONTROL]}
    else:
        ended = {arm: one for arm, one in scored.items() if arm not in still}
        result["utility"] = utility(ended, choose, test, made.classes, synthetic=len(synthetic)) | {"unfinished": still}
    result["training"] = work.courses
    found = to_json(result)
    write_json(ctx.out / "evaluation.json", found)
    save_judges(ctx.out / JUDGES, [one.classifier for one in arms[CONTROL]])
    return summary(evaluation_figures(found))


class _Work:
    """The stage's trainings and measures, each with a progress bar."""

    def __init__(self, ctx: Context, names: tuple[str, ...], test: Labelled, choose: Labelled, seeds: int) -> None:
        self.ctx, self.config, self.names = ctx, ctx.config.evaluate, names
        self.test, self.choose, self.seeds, self.device = test, choose, seeds, runtime.device()
        self.rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "evaluate"))
        self.courses: dict[str, Any] = {}

    def fidelity(self, learn: Labelled, audit: Labelled, synthetic: Labelled) -> dict[str, Any]:
        """Distances in feature spaces learned from *learn*; a sentence instead where no encoder is fit."""
        ceiling = self.config.classifier_images
        tasks = [Task(learn.unit, learn.labels, len(self.names), int(self.rng.integers(2**31)), self.choose) for _ in range(self.seeds)]
        with self.ctx.reporter.progress("encoders", ceiling) as progress:
            trained = train(tasks, kind="small", ceiling=ceiling, device=self.device, progress=progress)
        self.courses["encoder"] = course(trained)
        scores = np.stack([one.classifier.predict(self.test.unit) for one in trained])
        judged = fitness(scores, self.test, self.names, unfinished(trained))
        facts = {
            "features": f"pooled features of {self.seeds} small residual networks trained to classify {len(learn)} of the real validation "
            f"images, standardised",
            "encoder": judged.to_dict(),
        }
        if judged.unfit is not None:
            return facts | {"unfit": f"the encoder {judged.unfit}"}
        spaces = [standardised_features(one.classifier.features, learn.unit) for one in trained]
        return facts | fidelity(audit, synthetic, spaces, self.names, rng=self.rng)

    def panel(self, audit: Labelled, synthetic: Labelled) -> dict[str, Any]:
        """The two-sample panel."""
        spaces = {"plain": plain_features, "imagenet": imagenet_space(self.config.imagenet, self.device)}
        ceiling = self.config.classifier_images
        with self.ctx.reporter.progress("two-sample panel", ceiling) as progress:
            return panel(
                audit,
                synthetic,
                self.names,
                spaces=spaces,
                splits=self.seeds,
                ceiling=ceiling,
                rng=self.rng,
                device=self.device,
                progress=progress,
            )

    def arms(self, real: Labelled, synthetic: Labelled) -> dict[str, list[Trained]]:
        """The arms' classifiers."""
        arms = FULL if self.config.arms == "full" else DEFAULT
        with self.ctx.reporter.progress(f"{len(arms)} arms of {self.seeds} classifiers", self.config.classifier_images) as progress:
            trained = train_arms(
                real,
                synthetic,
                self.choose,
                arms=arms,
                seeds=self.seeds,
                kind=self.config.classifier,
                ceiling=self.config.classifier_images,
                rng=self.rng,
                device=self.device,
                progress=progress,
            )
        self.courses["arms"] = {arm: course(one) for arm, one in trained.items()}
        return trained


def save_judges(path: Path, judges: Sequence[Classifier]) -> None:
    """Write classifiers of one kind to a safetensors file."""
    states = [one.network.state_dict() for one in judges]
    tensors.write({f"{number}.{name}": value for number, state in enumerate(states) for name, value in state.items()}, path)


def load_judges(path: Path, kind: Kind, device: str, several: bool = False) -> list[Classifier]:
    """The classifiers of one kind that :func:`save_judges` wrote, of one class an image or of ``several`` findings.

    Raises:
        InputError: the file is missing or damaged.
    """
    import torch

    by_judge: dict[str, dict[str, Any]] = {}
    for name, value in tensors.read(path).items():
        number, _, own = name.partition(".")
        by_judge.setdefault(number, {})[own] = value
    found = []
    for state in by_judge.values():
        try:
            channels = next(value.shape[1] for name, value in state.items() if value.ndim == 4)
            network = make_classifier(kind, channels, len(state["head.bias"]), torch.Generator())
            network.load_state_dict(state)
        except (StopIteration, KeyError, RuntimeError) as error:
            raise InputError(damage(path.parent.name, path.name)) from error
        found.append(Classifier(network.eval().to(device).to(memory_format=torch.channels_last), kind, device, several))
    if not found:
        raise InputError(damage(path.parent.name, path.name))
    return found

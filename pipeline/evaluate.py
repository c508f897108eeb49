"""The evaluate stage: fidelity against the sealed ``audit`` images, label fidelity, and utility on the test patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.data import Labelled
from evaluation.encoder import train_classifier
from evaluation.fidelity import fidelity, standardised_features
from evaluation.intervals import to_json
from evaluation.utility import label_fidelity, train_arms, utility
from pipeline import runtime
from pipeline.artifacts import write_json
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.images import ImageSet, unit_of

ENCODER_IMAGES = 8_000
"""Images seen in training the encoder of the feature space."""


def labelled(images: ImageSet) -> Labelled:
    """The images as the judges take them; groups are the patients, or the images themselves where there is no patient (synthetic ones)."""
    groups = images.rows["patient"] if "patient" in images.rows else images.rows["id"]
    return Labelled(np.asarray(images.images), images.findings, groups.to_numpy(dtype=str))


def load(ctx: Context) -> tuple[dict[str, ImageSet], ImageSet]:
    """The real images by split, and the synthetic ones. Raises InputError where a split is empty."""
    real, synthetic = ImageSet.load(ctx.folder("ingest")), ImageSet.load(ctx.folder("generate"))
    splits = {name: real.split(name) for name in ("train", "audit", "val", "test")}
    if empty := [name for name, images in splits.items() if not len(images)]:
        raise InputError(f"no image in {', '.join(empty)}: add patients, or raise that split's share under ingest")
    return splits, synthetic


def run(ctx: Context) -> dict[str, Any]:
    """Write ``evaluation.json`` and ``samples.png``; return the headline numbers."""
    config, where = ctx.config.evaluate, runtime.device()
    runtime.limit_threads()
    runtime.reuse_memory()
    splits, made = load(ctx)
    train, audit, val, test, synthetic = (labelled(part) for part in (*splits.values(), made))
    names = made.classes
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "evaluate"))
    encoder = train_classifier(
        val.unit,
        val.labels,
        kind="small",
        images_seen=ENCODER_IMAGES,
        seed=int(rng.integers(2**31)),
        device=where,
        classes=len(names),
    )
    result: dict[str, Any] = {"classes": list(names), "unit": unit_of(ctx.folder("ingest"))}
    description = f"pooled features of a small residual network trained to classify the {len(val)} real validation images, standardised"
    result["fidelity"] = {"features": description} | fidelity(
        audit,
        synthetic,
        standardised_features(encoder.features, val.unit),
        names,
        kind=config.classifier,
        images_seen=config.classifier_images,
        rng=rng,
        device=where,
    )
    arms = train_arms(
        train,
        synthetic,
        val,
        len(names),
        seeds=config.seeds,
        kind=config.classifier,
        images_seen=config.classifier_images,
        rng=rng,
        device=where,
    )
    seen = np.stack([classifier.predict(synthetic.unit) for classifier in arms["real"]])
    result["label_fidelity"] = label_fidelity(seen, synthetic.labels, names, rng)
    scored = {arm: np.stack([one.predict(test.unit) for one in classifiers]) for arm, classifiers in arms.items()}
    result["utility"] = utility(scored, test, names, rng)
    write_json(ctx.out / "evaluation.json", to_json(result))
    _samples(ctx.out / "samples.png", splits["audit"], made, rng)
    arm = result["utility"]["arms"]
    return {
        "frechet_ratio": headline(result["fidelity"]["frechet"]["ratio"].value, 2),
        "two_sample_auc": headline(result["fidelity"]["two_sample"]["synthetic"].value),
        "label_fidelity": headline(result["label_fidelity"]["macro"].value),
        "real_auc": headline(arm["real"]["auc"].value),
        "synthetic_auc": headline(arm["synthetic"]["auc"].value),
        "real+synthetic_auc": headline(arm["real+synthetic"]["auc"].value),
    }


def headline(value: float, digits: int = 3) -> float | str:
    """For a stage's summary: rounded, or said to be undefined (too few images), since JSON knows no NaN."""
    return round(value, digits) if math.isfinite(value) else "undefined"


def _samples(path: Path, real: ImageSet, made: ImageSet, rng: np.random.Generator, count: int = 10) -> None:
    """Held-out real images above synthetic ones, class by class."""
    lines = []
    for k, name in enumerate(made.classes):
        for title, images in ((f"{name}, real", real), (f"{name}, synthetic", made)):
            rows = rng.permutation(np.flatnonzero(images.labels == k))[:count]
            lines.append((title, images.images[rows]))
    sheet(path, lines, columns=count)


def sheet(path: Path, lines: Sequence[tuple[str, NDArray[np.uint8]]], columns: int, captions: Sequence[Sequence[str]] = ()) -> None:
    """A PNG of magnified images without interpolation.

    Args:
        lines: a title and uint8 images ``[n, C, H, W]`` a line; further images than ``columns`` are left out.
        captions: where given, a text above each image of each line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * columns + 1.6, (1.3 if captions else 1.1) * max(1, len(lines))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(lines)), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for number, (title, images) in enumerate(lines):
        axes[number, 0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
        for column, image in enumerate(images[:columns]):
            picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            axes[number, column].imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if captions:
                axes[number, column].set_title(captions[number][column], fontsize=6)
    figure.savefig(path)

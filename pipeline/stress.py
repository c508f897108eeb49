"""The stress stage: a ResNet-18 trained on the real training images, and where it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluation import stress
from evaluation.encoder import train_classifier
from evaluation.intervals import to_json
from evaluation.metrics import Floats
from pipeline import runtime
from pipeline.artifacts import write_json
from pipeline.context import Context
from pipeline.evaluate import headline, labelled, load, sheet
from pipeline.images import ImageSet

SUBGROUPS = ("site", "sex", "age_band", "acquisition")


def run(ctx: Context) -> dict[str, Any]:
    """Write ``stress.json`` and ``failures.png``; return the headline numbers."""
    where = runtime.device()
    runtime.limit_threads()
    runtime.reuse_memory()
    splits, made = load(ctx)
    train, val, test, synthetic = (labelled(part) for part in (splits["train"], splits["val"], splits["test"], made))
    names = made.classes
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "stress"))
    classifier = train_classifier(
        train.unit,
        train.labels,
        kind="resnet18",
        images_seen=ctx.config.stress.classifier_images,
        seed=int(rng.integers(2**31)),
        device=where,
        val=val,
        classes=len(names),
    )
    p = classifier.predict(test.unit)
    table = stress.corruption_table(classifier.predict, test, rng)
    rows = splits["test"].rows
    columns = {column: rows[column].to_numpy() for column in SUBGROUPS if column in rows}
    result = {
        "classifier": "resnet18",
        "classes": list(names),
        "n": len(test),
        "clean": stress.clean(p, test, names, rng),
        "corruptions": table["corruptions"],
        "corruption_images": table["n"],
        "corruption_reference": table["reference"],
        "mean_drop": table["mean_drop"],
        "worst": table["worst"],
        "subgroups": stress.subgroups(p, test, columns, rng),
        "synthetic": {"per_class_recall": stress.synthetic_recalls(classifier.predict(synthetic.unit), synthetic.labels, names)},
        "prevalence": stress.changed_prevalence(p, test, names, rng),
    }
    write_json(ctx.out / "stress.json", to_json(result))
    _failures(ctx.out / "failures.png", splits["test"], p)
    worst = table["worst"][0]
    return {
        "clean_auc": headline(result["clean"]["auc"].value),
        "mean_drop_auc": headline(table["mean_drop"]["auc"]),
        "worst": f"{worst['corruption']} {worst['severity']} (-{worst['auc_drop']:.3f} AUC)",
    }


def _failures(path: Path, test: ImageSet, p: Floats, count: int = 8) -> None:
    """The test images of every class that were called something else with the most confidence."""
    lines, captions = [], []
    predicted = p.argmax(axis=1)
    for k, name in enumerate(test.classes):
        wrong = np.flatnonzero((test.labels == k) & (predicted != k))
        wrong = wrong[np.argsort(-p[wrong].max(axis=1))][:count]
        lines.append((name, test.images[wrong]))
        captions.append([f"{test.classes[predicted[row]]} {p[row].max():.2f}" for row in wrong])
    sheet(path, lines, columns=count, captions=captions)

"""The stress stage: where the classifiers that the evaluation trained on real images break."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import stress
from evaluation.corruptions import CORRUPTIONS
from evaluation.intervals import to_json
from evaluation.metrics import Floats
from pipeline import runtime
from pipeline.artifacts import read_json, write_json
from pipeline.evaluate import JUDGES, headline, labelled, load, load_judges, sheet
from pipeline.images import ImageSet
from pipeline.stages import Context

SUBGROUPS = ("site", "sex", "age_band", "acquisition")


def run(ctx: Context) -> dict[str, Any]:
    """Write ``stress.json`` and ``failures.png``; return the headline numbers."""
    runtime.limit_threads()
    runtime.reuse_memory()
    splits, made = load(ctx)
    test, synthetic = labelled(splits["test"]), labelled(made)
    names = made.classes
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "stress"))
    judge = read_json(ctx.folder("evaluate") / "evaluation.json")["judge"]
    result: dict[str, Any] = {"classifier": judge["network"], "classes": list(names), "n": len(test)}
    if "unfit" in judge:
        write_json(ctx.out / "stress.json", result | {"unfit": judge["unfit"]})
        return {"classifier": judge["unfit"]}
    judges = load_judges(ctx.folder("evaluate") / JUDGES, runtime.device())
    with ctx.reporter.progress("conditions", 1 + 5 * len(CORRUPTIONS)) as progress:
        done = itertools.count(1)

        def predict(images: NDArray[np.float32]) -> Floats:
            found = np.mean([one.predict(images) for one in judges], axis=0)
            progress(next(done))
            return np.asarray(found)

        p = predict(test.unit)
        table = stress.corruption_table(predict, test, rng, max_images=ctx.config.stress.images)
    recalls = stress.synthetic_recalls(np.mean([one.predict(synthetic.unit) for one in judges], axis=0), synthetic.labels, names)
    reasons = {name: facts["unfit"] for name, facts in judge["per_class"].items() if "unfit" in facts}
    rows = splits["test"].rows
    columns = {column: rows[column].to_numpy() for column in SUBGROUPS if column in rows}
    result |= {
        "clean": stress.clean(p, test, names, rng),
        "corruptions": table["corruptions"],
        "corruption_images": table["n"],
        "corruption_reference": table["reference"],
        "mean_drop": table["mean_drop"],
        "worst": table["worst"],
        "subgroups": stress.subgroups(p, test, columns, rng),
        "synthetic": {"per_class_recall": recalls | {name: {"unfit": reason} for name, reason in reasons.items()}},
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

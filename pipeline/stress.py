"""The stress stage: where the classifiers that the evaluation trained on real images break, and where a model of the user's does."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation import foreign_findings, stress
from evaluation.classifiers import Kind
from evaluation.corruptions import CORRUPTIONS
from evaluation.intervals import to_json
from evaluation.metrics import Floats
from evaluation.shifts import KNOWN
from pipeline import runtime
from pipeline.artifacts import damage, read_object, write_json
from pipeline.context import Context
from pipeline.errors import InputError
from pipeline.evaluate import JUDGES, labelled, load, load_judges
from pipeline.images import ImageSet
from pipeline.release.figures import stress_figures, summary

MODEL_ANSWERS = {0: "all questions answered yes", 3: "a rule is broken", 4: "not enough data"}
"""By the exit code of ``synthcohort stress``."""
FAILURES = "failures.json"


def run(ctx: Context) -> dict[str, Any]:
    """Write ``stress.json``, ``failures.json`` for :mod:`pipeline.review`, and with ``stress.model`` the folder ``model``.

    Returns:
        The headline numbers.
    """
    runtime.limit_threads()
    runtime.reuse_memory()
    splits, made = load(ctx)
    headline = _own(ctx, splits, made)
    if ctx.config.stress.model is not None:
        headline |= {"model": _of_the_user(ctx, splits["test"], made)}
    return headline


def _own(ctx: Context, splits: Mapping[str, ImageSet], made: ImageSet) -> dict[str, Any]:
    """The evaluation's classifiers."""
    test = labelled(splits["test"])
    names = made.classes
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "stress"))
    judge = read_object(ctx.folder("evaluate") / "evaluation.json").get("judge")
    if not isinstance(judge, dict) or judge.get("network") not in get_args(Kind):
        raise InputError(damage("evaluate", "evaluation.json"))
    result: dict[str, Any] = {"classifier": judge["network"], "classes": list(names), "n": len(test)}
    if "unfit" in judge:
        return _unfit(ctx, result, judge["unfit"])
    several = ctx.config.ingest.multi_label
    judges = load_judges(ctx.folder("evaluate") / JUDGES, judge["network"], runtime.device(), several)
    with ctx.reporter.progress("conditions", 1 + 5 * len(CORRUPTIONS)) as progress:
        done = itertools.count(1)

        def predict(images: NDArray[np.float32]) -> Floats:
            found = np.stack([one.predict(images) for one in judges])
            progress(next(done))
            return found

        p = predict(test.unit)
        measures = foreign_findings.estimates if several else stress.estimates
        table = stress.corruption_table(predict, test, rng, max_images=ctx.config.stress.images, measures=measures)
    if "reference" not in table:
        return _unfit(ctx, result, f"could not be tested on so few images: {foreign_findings.FEW}")
    blind = {name: facts["unfit"] for name, facts in judge["per_class"].items() if "unfit" in facts}
    said_of = foreign_findings if several else stress
    prevalence = foreign_findings.prevalence if several else stress.changed_prevalence
    result |= {
        "unfit_classes": blind,
        "clean": said_of.clean(p, test, names),
        "corruptions": table["corruptions"],
        "corruption_images": table["n"],
        "corruption_reference": table["reference"],
        "mean_drop": table["mean_drop"],
        "shown": table["shown"],
        "worst": table["worst"],
        "subgroups": said_of.subgroups(p, test),
        "prevalence": {name: steps for name, steps in prevalence(p, test, names).items() if name not in blind},
    }
    found = to_json(result)
    write_json(ctx.out / "stress.json", found)
    write_json(ctx.out / FAILURES, {"failures": failures(splits["test"], p.mean(axis=0), several)})
    return summary(stress_figures(found))


def _unfit(ctx: Context, result: Mapping[str, Any], why: str) -> dict[str, Any]:
    """Write that the classifiers were not put under stress, and why: words to follow "the classifier"."""
    found = {**result, "unfit": why}
    write_json(ctx.out / "stress.json", found)
    write_json(ctx.out / FAILURES, {"failures": []})
    return summary(stress_figures(found))


def _of_the_user(ctx: Context, test: ImageSet, made: ImageSet) -> str:
    """The user's model on the test patients and on the run's synthetic images; the worst answer to its rules."""
    from pipeline.models import of_split
    from pipeline.models.child import Bounds
    from pipeline.models.stress import Asked
    from pipeline.models.whole import tested

    section, several, out = ctx.config.stress, ctx.config.ingest.multi_label, ctx.out / "model"
    assert section.model is not None
    modality = read_object(ctx.folder("ingest") / "cohort.json").get("modality")
    with tempfile.TemporaryDirectory(prefix="cases-", dir=ctx.out) as place:
        asked = Asked(
            model=section.model,
            data=of_split.write(test, Path(place) / "data", several),
            against=section.against,
            contract=section.contract,
            against_contract=section.against_contract,
            synthetic=of_split.write(made, Path(place) / "synthetic", several),
            rules=section.rules,
            bounds=Bounds(int(section.memory * (1 << 30)), section.seconds),
            modality=modality if modality in KNOWN else None,
        )
        out.mkdir()
        found = tested(asked, out, ctx.reporter)
    return MODEL_ANSWERS[found.code]


def failures(test: ImageSet, p: Floats, several: bool = False, count: int = 8) -> list[dict[str, Any]]:
    """The test images of every class that were called something else with the most confidence; of several findings, those with one that
    were said to be without it.

    Args:
        test: the images.
        p: the classifiers' mean probabilities, ``[n, classes]``.
        several: whether an image can have several of the classes.
        count: of each class, at the most.

    Returns:
        ``image`` (its id), ``class``, ``called`` and ``probability`` of each, by class, the surest error first.
    """
    found: list[dict[str, Any]] = []
    predicted, ids = p.argmax(axis=1), test.rows["id"].to_numpy()
    for k, name in enumerate(test.classes):
        missed, sure = (p[:, k] < 0.5, 1 - p[:, k]) if several else (predicted != k, p.max(axis=1))
        wrong = np.flatnonzero((test.findings[:, k] == 1) & missed)
        for row in wrong[np.argsort(-sure[wrong])][:count]:
            called = f"no {name}" if several else test.classes[predicted[row]]
            found.append({"image": str(ids[row]), "class": name, "called": called, "probability": round(float(sure[row]), 4)})
    return found

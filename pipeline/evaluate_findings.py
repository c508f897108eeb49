"""The evaluate stage where an image can have several findings, or none: fidelity, the judges of each finding, and utility for each."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from evaluation import findings
from evaluation.arms import CONTROL, course
from evaluation.comparisons import changes
from evaluation.data import Labelled
from evaluation.fidelity import PER_CLASS_MIN, fidelity, standardised_features
from evaluation.intervals import Interval, interval, to_json
from evaluation.judges import unfit
from evaluation.metrics import Floats
from evaluation.panel import panel
from evaluation.plain_features import plain_features
from evaluation.training import Task, Trained, train, unfinished
from evaluation.utility import SPECIFICITY, Scored, by_class
from pipeline import runtime
from pipeline.artifacts import write_json
from pipeline.context import Context
from pipeline.evaluate import JUDGES, extrapolated, halves, labelled, load, save_judges, sizes
from pipeline.imagenet import imagenet_space
from pipeline.images import unit_of
from pipeline.release.figures import evaluation_figures, summary

WITH = "real+synthetic"


def run(ctx: Context) -> dict[str, Any]:
    """Write ``evaluation.json`` and ``judges.safetensors``; return the headline numbers. Findings that are unknown are not judged."""
    runtime.limit_threads()
    runtime.reuse_memory()
    config, device = ctx.config.evaluate, runtime.device()
    rng = np.random.default_rng(runtime.derive_seed(ctx.config.seed, "evaluate"))
    splits, made = load(ctx)
    real, audit, val, test, synthetic = (labelled(part) for part in (*splits.values(), made))
    learn, choose = halves(val, ctx.config.seed)
    seeds, names = config.seeds or (5 if device == "cuda" else 3), made.classes
    arms = _arms(ctx, real, synthetic, choose, seeds, rng, device)
    scored = {
        arm: Scored(*(np.stack([one.classifier.predict(part.unit) for one in trained]) for part in (choose, test)))
        for arm, trained in arms.items()
    }
    still = {arm: reason for arm, trained in arms.items() if (reason := unfinished(trained))}
    judge = _fitness(findings.judged(scored[CONTROL].test, test, names), still.get(CONTROL))
    seen = np.stack([one.classifier.predict(synthetic.unit) for one in arms[CONTROL]])
    unseen = extrapolated(made)
    result: dict[str, Any] = {
        "classes": list(names),
        "several": True,
        "unit": unit_of(ctx.folder("ingest")),
        "n": sizes(made, learn=learn, choose=choose, audit=audit, test=test),
        "seeds": seeds,
        "ceiling": config.classifier_images,
        "fidelity": _fidelity(ctx, names, learn, choose, audit, synthetic, seeds, rng, device),
        "judge": {"network": config.classifier, "trained_on": CONTROL} | judge,
        "findings": {
            # A real-trained judge on synthetic images: does it see what was asked for, and miss what was asked to be absent?
            # What was never seen together is a question of its own.
            **{
                key: _told(judge, seen[:, rows], synthetic.take(rows), names)
                for key, rows in (("label_fidelity", ~unseen), ("label_fidelity_unseen", unseen))
                if rows.any()
            },
            "together": {
                "real": findings.together(real.findings, real.groups).tolist(),
                "synthetic": findings.together(synthetic.findings).tolist(),
            },
        },
        "utility": {"unfit": still[CONTROL]} if CONTROL in still else _utility(scored, still, choose, test, names, len(synthetic)),
        "training": {"arms": {arm: course(trained) for arm, trained in arms.items()}},
    }
    found = to_json(result)
    write_json(ctx.out / "evaluation.json", found)
    save_judges(ctx.out / JUDGES, [one.classifier for one in arms[CONTROL]])
    return summary(evaluation_figures(found))


def _arms(
    ctx: Context, real: Labelled, synthetic: Labelled, choose: Labelled, seeds: int, rng: np.random.Generator, device: str
) -> dict[str, list[Trained]]:
    """Judges trained on real images, and on as many real as synthetic ones: one network, seed and number of images for both."""
    images = np.concatenate([real.unit, synthetic.unit])
    marks = np.concatenate([real.findings, synthetic.findings])
    is_real = np.arange(len(images)) < len(real)
    weights = {CONTROL: is_real / len(real), WITH: np.where(is_real, 1 / len(real), 1 / len(synthetic))}
    numbers = [int(number) for number in rng.integers(2**31, size=seeds)]
    tasks = [
        Task(images, marks, real.classes, number, choose, weight.astype(np.float64))
        for arm, weight in weights.items()
        for number in numbers
    ]
    ceiling = ctx.config.evaluate.classifier_images
    with ctx.reporter.progress(f"{len(weights)} arms of {seeds} classifiers", ceiling) as progress:
        trained = train(tasks, kind=ctx.config.evaluate.classifier, ceiling=ceiling, device=device, together=True, progress=progress)
    return {arm: trained[place * seeds : (place + 1) * seeds] for place, arm in enumerate(weights)}


def _fidelity(
    ctx: Context,
    names: tuple[str, ...],
    learn: Labelled,
    choose: Labelled,
    audit: Labelled,
    synthetic: Labelled,
    seeds: int,
    rng: np.random.Generator,
    device: str,
) -> dict[str, Any]:
    """Distances of all images, and of those with each finding; and the two-sample panel."""
    config = ctx.config.evaluate
    numbers = [int(number) for number in rng.integers(2**31, size=seeds)]
    tasks = [Task(learn.unit, learn.findings, learn.classes, number, choose) for number in numbers]
    with ctx.reporter.progress("encoders", config.classifier_images) as progress:
        trained = train(tasks, kind="small", ceiling=config.classifier_images, device=device, progress=progress)
    score = findings.macro(np.stack([one.classifier.predict(audit.unit) for one in trained]), audit)
    blind = unfinished(trained) or (unfit(interval(score)) if score is not None else "has no finding to tell")
    found: dict[str, Any] = {"features": f"pooled features of {seeds} small residual networks trained to tell findings, standardised"}
    whole, made = audit.whole(), synthetic.whole()
    with ctx.reporter.progress("two-sample panel", config.classifier_images) as progress:
        spaces = {"plain": plain_features, "imagenet": imagenet_space(config.imagenet, device)}
        settings: dict[str, Any] = {"spaces": spaces, "splits": seeds, "ceiling": config.classifier_images, "rng": rng, "device": device}
        two_sample = panel(whole, made, ("all",), progress=progress, **settings)
    two_sample.pop("per_class", None)
    if blind is not None:
        return found | {"unfit": f"the encoder {blind}", "two_sample": two_sample}
    encoders = [standardised_features(one.classifier.features, learn.unit) for one in trained]
    found |= fidelity(whole, made, encoders, ("all",), rng=rng) | {"two_sample": two_sample, "per_class": {}}
    for place, name in enumerate(names):
        sides = [side.take(np.flatnonzero(side.findings[:, place] == 1)).whole() for side in (audit, synthetic)]
        fewest = min(len(sides[0]) // 2, len(sides[1]))
        if fewest < PER_CLASS_MIN:
            found["per_class"][name] = {"omitted": f"{fewest} images a side, fewer than {PER_CLASS_MIN}"}
            continue
        own = fidelity(sides[0], sides[1], encoders, ("all",), rng=rng)
        found["per_class"][name] = {key: value for key, value in own.items() if key != "per_class"}
    return found


def _fitness(judge: dict[str, Any], unfinished: str | None) -> dict[str, Any]:
    """What a judge scores, with why nothing that it says counts (``unfit``), of all findings or of one, where it is so."""
    whole = judge["auc"] if "auc" in judge else Interval(math.nan, math.nan, math.nan, 0)
    reason = unfinished or unfit(whole)
    of = {name: facts | _reason(reason or unfit(facts["auc"])) for name, facts in judge["per_class"].items()}
    return judge | {"per_class": of} | _reason(reason)


def _told(judge: dict[str, Any], seen: Floats, synthetic: Labelled, names: tuple[str, ...]) -> dict[str, Any]:
    """What a judge says of synthetic images, of the findings that it is fit for; of the others why it says nothing.

    Args:
        judge: of :func:`_fitness`.
        seen: its probabilities ``[S, n, K]``.
    """
    unfit_for = {name: {"unfit": facts["unfit"]} for name, facts in judge["per_class"].items() if "unfit" in facts}
    kept = [place for place, name in enumerate(names) if name not in unfit_for]
    if not kept:
        return {"unfit": judge.get("unfit", "could not be trained on so few images of any finding"), "per_class": unfit_for}
    own = dataclasses.replace(synthetic, findings=synthetic.findings[:, kept])
    said = findings.judged(seen[..., kept], own, [names[place] for place in kept])
    return said | {"per_class": said["per_class"] | unfit_for}


def _reason(text: str | None) -> dict[str, str]:
    return {} if text is None else {"unfit": text}


def _utility(
    scored: dict[str, Scored], still: dict[str, str], choose: Labelled, test: Labelled, names: tuple[str, ...], synthetic: int
) -> dict[str, Any]:
    """What each arm scores on the real test images, and how synthetic images change it, over all findings and for each."""
    ended = {arm: one for arm, one in scored.items() if arm not in still}
    each = by_class(ended, choose, test, names)
    found: dict[str, Any] = {"seeds": len(scored[CONTROL].test), "n_test": len(test), "control": CONTROL, "unfinished": still}
    found |= {"specificity": SPECIFICITY, "synthetic": synthetic, "arms": {}, "differences": {}, "subgroups": each.subgroups}
    for arm, one in ended.items():
        own = findings.judged(one.test, test, names)
        found["arms"][arm] = own | {"per_class": {name: facts | each.arms[arm][name] for name, facts in own["per_class"].items()}}
    for arm, facts in each.differences.items():
        mine, control = (findings.macro(ended[one].test, test) for one in (arm, CONTROL))
        overall = {} if mine is None or control is None else changes({"auc": (mine, control)})
        found["differences"][arm] = overall | {"per_class": facts}
    return found

"""What twins among a cohort's real images cost the copy search: one patient who is counted as two, on both sides of a split.

For each seed the cohort is ingested with a split of its own, and searched as an audit does, with real images that nobody trained on as the
set that is judged, those of test and then the half of val that no score is learned from: no generator is needed. Each row has the search at
the threshold of chance, which decides what passes, beside the one that lies beyond the twins, which alone decided before there were both.

    python -m tests.benchmarks.copy_twins --config pneumoniamnist --set ingest.path=FOLDER --seeds 11,12,13 --out results
    python -m tests.benchmarks.copy_twins --config quickstart --set ingest.phantom_patients=500 --seeds 1,2,3 --out results
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from pipeline import audit, runtime
from pipeline.config import load_config
from pipeline.evaluate import halves, labelled
from pipeline.images import ImageSet
from pipeline.progress import Reporter, silent
from pipeline.runner import run_stages
from privacy import bounds, copies, copy_report, copy_score, limits, power
from privacy.repeats import find_repeats
from tests.benchmarks import report

BENCHMARK = "copy_twins"
ERROR = (1 - limits.confidence(1)) / 2
"""Of the lower bound of the recall, at a first attempt."""


def measure(everyone: ImageSet, seed: int, planted: int) -> list[dict[str, Any]]:
    """One cohort, judged by the images of test, and by those of val: its twins, and recall and flagged images before and after."""
    device, rng = runtime.device(), np.random.default_rng(runtime.derive_seed(seed, "planted copies"))
    train, sealed, others = (audit._side(everyone, *names) for names in (("train",), ("audit",), ("val", "test")))
    learn = audit._learn(everyone, seed)
    references = np.concatenate([train.images, sealed.images, others.images])
    member, held = (np.repeat([number == side for number in range(3)], [len(train), len(sealed), len(others)]) for side in range(2))
    search = copies.CopySearch(references, copies.shared_structure(references[member | held]), device, member | held)
    score = copy_score.learn(learn.images, np.unique(learn.groups, return_inverse=True)[1], rng=rng, device=device)
    bare = copy_report.Judge(search, score, (), 1.0, len(train) / len(sealed))
    real = bare.of_real(sealed.groups, len(train))
    nearest = {kind.__name__: bare.of(power.plant(train.images, kind, planted, rng)[0], member) for kind in copy_report.KINDS}
    sets = {"test": everyone.split("test").images, "val": halves(labelled(everyone.split("val")), seed)[1].images}
    rows = []
    for name, images in sets.items():
        made = np.asarray(images)
        distinct, found = find_repeats(made, train.images, device).new, search.candidates(made, member, held)
        apart = [one.distance[distinct] for one in bare.nearest(found, held)]
        judge = replace(bare, level=copy_report.FALSE_ALARM / int(distinct.sum())).calibrated(apart, real)
        beyond = [tail.threshold(judge.probability) for tail in judge.twin_tails or judge.tails]
        to_train, side = judge.nearest(found, member), made.shape[-1]
        near, flagged = judge.near(to_train), judge.flagged(to_train, distinct)
        called = {"flagged": int(flagged.sum()), "undecided": int((near & ~flagged).sum())}
        before = {"flagged": int(judge._below(to_train, beyond).sum()), **_power(judge, nearest, beyond, side)}
        sizes = {"train": len(train), "sealed": len(sealed), "judged": int(distinct.sum()), "twins": int((judge.twins >= 0).sum())}
        rows.append({"set": name, **sizes, "before": before, "after": {**called, **_power(judge, nearest, judge.thresholds, side)}})
    return rows


def _power(judge: copy_report.Judge, nearest: dict[str, list[copies.Matches]], thresholds: list[float], side: int) -> dict[str, Any]:
    """Recall at some thresholds: the worst required kind with its lower bound, and the kinds of which less than half are found."""
    hits: dict[str, NDArray[np.bool_]] = {kind: judge._below(matches, thresholds) for kind, matches in nearest.items()}
    counts = {kind: (int(found.sum()), len(found)) for kind, found in hits.items()}
    required = {kind: counts[kind] for kind in limits.required_kinds(side)}
    worst, low = bounds.worst_recall(required, ERROR)
    few = sum(2 * found < planted for kind, (found, planted) in counts.items() if kind not in required)
    return {"thresholds": thresholds, "worst": worst, "found": counts[worst][0], "low": low, "seldom": few, "counts": counts}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each cohort and set."""
    keys = ("seed", "set", "judged", "twins")
    lines = []
    for row in rows:
        cells: list[object] = [row[key] for key in keys]
        for when in ("before", "after"):
            one = row[when]
            cells += [" / ".join(f"{value:.2g}" for value in one["thresholds"]), f"{one['worst']} {one['found']}, {one['low']:.3f}"]
            cells += [one["seldom"], one["flagged"] if when == "before" else f"{one['flagged']} / {one['undecided']}"]
        lines.append(cells)
    names = ("thresholds (ratio / distance / odds)", "worst required kind found, lower bound", "other kinds below half")
    return report.markdown([*keys, *names, "flagged", *names, "flagged / undecided"], lines)


def main() -> None:
    """Measure each seed, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="pneumoniamnist")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--seeds", default="11,12,13", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--planted", type=int, default=100, help="copies of each kind")
    parser.add_argument("--runs", type=Path, default=Path("runs/copy_twins"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    runtime.limit_threads()
    runtime.reuse_memory()
    record = report.Record(options.out, BENCHMARK, report.facts())
    for seed in options.seeds:
        folder = options.runs / f"{options.config}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        with mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=str(folder.with_name(folder.name + ".cohorts"))):
            config = load_config(options.config, [*options.overrides, f"seed={seed}"])
            run_stages(config, folder, Reporter(folder / "log.jsonl", silent()), until="ingest")
        for row in measure(ImageSet.load(folder / "ingest"), seed, options.planted):
            record.add({"config": options.config, "seed": seed, **row})
            print(table(record.content["rows"][-1:]).splitlines()[-1], flush=True)
    print(table(record.content["rows"]))


if __name__ == "__main__":
    main()

"""What does `train.images: auto` end with, from seed to seed? Whole runs of one cohort, to the gate's verdict on their images.

For each seed (a split, weights and noise of its own, and a cohort of its own where phantoms are the source) the journey with `auto` to the
audit: copies, the gate's verdict, and the panel's distance above its floor on the sealed patients. How near to the floor other lengths
come is the frontier's question (``tests/benchmarks/frontier.py``), along the same trainings; ``--lengths auto,0.5,1,2,4`` asks it of whole
runs: trained for so many times as many images as `auto` kept, with what else it chose and the configuration's own decay of the learning
rate. All of a seed's runs are judged by one panel, on the same halvings.

    python -m tests.benchmarks.auto_runs --config breastmnist --set ingest.path=FOLDER --out results
    python -m tests.benchmarks.auto_runs --config dicom_folder --set ingest.source=phantom --set ingest.phantom_patients=300 --name "300"
    python -m tests.benchmarks.auto_runs --out results --table

Several processes of the same command share the seeds, and a later call goes on where an earlier one was stopped: what lies in --out is not
measured again, and a run in --runs goes on as the pipeline resumes it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from evaluation.intervals import to_json
from evaluation.panel import panel
from evaluation.plain_features import plain_features
from pipeline import fit_recipe, runtime
from pipeline.artifacts import read_object
from pipeline.config import Config, load_config
from pipeline.evaluate import labelled
from pipeline.images import ImageSet
from pipeline.progress import Reporter
from pipeline.runner import run_stages
from tests.benchmarks import quality, report
from tests.benchmarks.claims import claimed
from tests.benchmarks.run_seeds import judged

BENCHMARK = "auto_runs"
AUTO = "auto"
FITTED = ("train.images=auto", "train.decay=0", "train.widths=auto", "train.dropout=auto", "train.augment=auto")
TINY = (
    "train.batch=16",
    "train.blocks=1",
    "train.attention=[]",
    "train.compile=false",
    "generate.per_class=40",
    "generate.steps=4",
    "generate.guidance_scale=1",
    "audit.planted=20",
    "evaluate.seeds=2",
    "evaluate.classifier_images=640",
    "anyway=true",
)
Row = dict[str, Any]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="dicom_folder", help="the cohort: a shipped configuration, or a file")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--name", help="the cohort's name in the table (default: the configuration's)")
    parser.add_argument("--seeds", default="0,1,2", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--lengths", default=[AUTO], type=lambda text: text.split(","), help="auto, and multiples of what it kept")
    parser.add_argument("--ceiling", type=int, help="visits of the image drawn most often at which `auto` ends; half where room is much")
    parser.add_argument("--splits", type=int, default=5, help="halvings of the panel")
    parser.add_argument("--classifier-images", type=int, default=100_000, help="images seen in training each judge, at the most")
    parser.add_argument("--seconds", type=float, default=500, help="start no run after so many seconds")
    parser.add_argument("--runs", type=Path, default=Path("runs/auto_runs"), help="where the runs lie, which a second call goes on with")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="only print what the records in --out say")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    options = parser.parse_args(arguments)
    options.name = options.name or options.config
    if options.ceiling is not None:  # a cohort of its own to table, claims and run folders: the configuration tells nothing of it
        options.name += f", ceiling {options.ceiling}"
    options.ceiling = options.ceiling or (20 if options.tiny else fit_recipe.REPEATS)
    return options


def settings_of(options: argparse.Namespace, seed: int, length: str, auto: Row | None) -> Config:
    """The configuration of one run; those of a fixed length need the row of ``auto``."""
    given = [*options.overrides, *(TINY if options.tiny else ()), f"seed={seed}"]
    if length == AUTO:
        return load_config(options.config, [*given, *FITTED])
    assert auto is not None
    fitted = dict(auto["fitted"]) | {"images": max(1, round(float(length) * auto["images"]))}
    return load_config(options.config, [*given, *(f"train.{key}={value}" for key, value in fitted.items())])


def measure(options: argparse.Namespace, seed: int, length: str, auto: Row | None) -> Row:
    """One run, and what came of it."""
    folder = options.runs / f"{options.name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    config = settings_of(options, seed, length, auto)
    torch._dynamo.reset()  # type: ignore[no-untyped-call]  # runs of one process would come to its limit of recompilations
    began = time.perf_counter()
    # Attempts count by cohort: a seed is a split of its own.
    home = str(folder.with_name(folder.name + ".cohorts"))
    with mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=home), mock.patch.object(fit_recipe, "REPEATS", options.ceiling):
        run_stages(config, folder, Reporter(folder / "log.jsonl"), until="audit", redo=True)
    seconds = time.perf_counter() - began
    recipe, gate = read_object(folder / "train" / fit_recipe.FILE), judged(folder / "audit")
    everyone, made = ImageSet.load(folder / "ingest"), ImageSet.load(folder / "generate")
    panelled = panel(
        labelled(everyone.split("audit")),
        labelled(made),
        made.classes,
        spaces={"plain": plain_features},
        splits=options.splits,
        ceiling=options.classifier_images,
        rng=np.random.default_rng(0),
        device=runtime.device(),
    )
    row: Row = {"cohort": options.name, "seed": seed, "length": length, "images": recipe["chosen"]["images"], "seconds": seconds}
    row |= {"train": len(everyone.split("train")), "copies": gate["flagged"], "undecided": gate["undecided"], "of": len(made)}
    row |= {key: to_json(panelled.get(key)) for key in ("synthetic", "floor", "difference", "unfit")}
    if length == AUTO:
        row |= {"fitted": {key: value for key, value in recipe["fitted"].items() if key != "images"}, "why": recipe["chosen"]["why"]}
        row |= {"verdict": gate["verdict"], "reasons": gate["reasons"]}
    return row


def make(options: argparse.Namespace) -> None:
    """Measure what is not there yet, seed by seed, each by one of the processes that do the same."""
    began = time.perf_counter()
    record = report.Record(options.out, BENCHMARK, report.facts() | {"tiny": options.tiny})
    for seed in options.seeds:
        with claimed(options.out / "claims", f"{quality.slug(options.name)}-{seed}") as ours:
            for length in options.lengths if ours else ():
                done = {(row["seed"], row["length"]): row for row in rows_of(options.out) if row["cohort"] == options.name}
                if (seed, length) in done:
                    continue
                if time.perf_counter() - began > options.seconds:
                    print(f"no time for seed {seed}, {length}, and what follows: the same command goes on there", flush=True)
                    return
                row = measure(options, seed, length, done.get((seed, AUTO)))
                record.add(row)
                print(f"{time.perf_counter() - began:7.1f} s  {told(row)}", flush=True)


def told(row: Row) -> str:
    """A row in a line."""
    length = row["length"] if row["length"] == AUTO else f"× {row['length']}"
    apart = "no panel" if row["difference"] is None else f"{row['difference']['value']:+.3f} above the floor"
    verdict = f", {row['verdict']}" if "verdict" in row else ""
    found = f"{row['copies']} copies, {row['undecided']} that may be"
    return f"{row['cohort']}, seed {row['seed']}, {length}: {row['images']:,} images, {found}, {apart}{verdict}"


def rows_of(folder: Path) -> list[Row]:
    """All points that were measured."""
    return [row for one in report.load(folder, BENCHMARK) for row in one["rows"]]


def points_of(rows: Sequence[Row]) -> list[Row]:
    """By cohort and length: what each seed ended with, the panel's mean distance above its floor, and the highest of its upper bounds."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["seed"]):
        groups[row["cohort"], row["length"]].append(row)
    points = []
    for (cohort, length), group in groups.items():
        apart = [row["difference"]["value"] for row in group if row["difference"] is not None]
        point: Row = {"cohort": cohort, "length": length, "seeds": len(group), "images": [row["images"] for row in group]}
        # Earlier records count both as copies.
        point |= {"copies": [row["copies"] for row in group], "undecided": [row.get("undecided", "among them") for row in group]}
        point |= {"above_floor": float(np.mean(apart)) if apart else None}
        point |= {"highest": max((row["difference"]["high"] for row in group if row["difference"] is not None), default=None)}
        points.append(point | {"verdicts": [row["verdict"] for row in group if "verdict" in row]})
    return sorted(points, key=lambda point: (point["cohort"], point["length"] != AUTO, point["length"]))


def findings(rows: Sequence[Row]) -> list[str]:
    """Of each cohort: how `auto` compares with the nearest fixed length that copied nobody in any seed, on the seeds that both have."""
    said = []
    for cohort in sorted({row["cohort"] for row in rows}):
        by_length: dict[str, dict[int, float]] = defaultdict(dict)
        copied = {row["length"] for row in rows if row["cohort"] == cohort and row["copies"]}
        for row in rows:
            if row["cohort"] == cohort and row["difference"] is not None:
                by_length[row["length"]][row["seed"]] = row["difference"]["value"]
        auto = by_length.pop(AUTO, {})
        apart = {}
        for length, at in by_length.items():
            both = sorted(set(at) & set(auto))
            if both and length not in copied:
                apart[length] = [auto[seed] - at[seed] for seed in both]
        fixed = any(row["length"] != AUTO for row in rows if row["cohort"] == cohort)
        clean = "no copy flagged in any seed" if AUTO not in copied else "COPIES FLAGGED"
        if not apart:
            said.append(f"{cohort}: auto: {clean}" + ("; no fixed length without a copy to compare it with" if fixed else ""))
            continue
        nearest = max(apart, key=lambda length: np.mean(apart[length]))
        differences = apart[nearest]
        error = f" (standard error {np.std(differences, ddof=1) / len(differences) ** 0.5:.3f})" if len(differences) > 1 else ""
        said.append(f"{cohort}: auto: {clean}; farther from the floor than × {nearest} by {np.mean(differences):+.3f}{error}")
    return said


def main(arguments: list[str] | None = None) -> None:
    """Measure unless told not to, then print all that is there."""
    options = parse(arguments)
    if not options.table:
        runtime.limit_threads()
        make(options)
    if not (rows := rows_of(options.out)):
        raise SystemExit(f"no records of {BENCHMARK} in {options.out}")
    for one in report.load(options.out, BENCHMARK):
        print(f"{one['facts']['date']}, {one['facts']['hardware']}: {one['facts']['command']}")
    keys = ("cohort", "length", "seeds", "images", "copies", "undecided", "verdicts", "above_floor", "highest")
    print(report.markdown(keys, [[point[key] for key in keys] for point in points_of(rows)]))
    print("\n".join(findings(rows)), flush=True)


if __name__ == "__main__":
    main()

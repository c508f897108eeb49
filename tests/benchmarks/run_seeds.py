"""Does a configuration pass its gate on every seed, and fail on every one with ten copies among its images? Whole runs.

Each seed draws its own cohort where phantoms are the source, its own split, weights and images. A run goes to its audit, which the gate
judges as a first attempt; then ten of its images are replaced by copies of training images, of the required kinds in turn, and judged
again. With ``--evaluate`` the judges' numbers are told too. Seeds that lie in --out are not measured again.

    python -m tests.benchmarks.run_seeds quickstart --seeds 0,1,2 --out results
    python -m tests.benchmarks.run_seeds quickstart --out results --table
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from evaluation.intervals import clopper_pearson
from pipeline import audit, runtime
from pipeline.artifacts import read_object, read_record
from pipeline.cohorts.ledger import Standing
from pipeline.config import Config, load_config
from pipeline.context import Context
from pipeline.images import ImageSet
from pipeline.progress import Reporter
from pipeline.runner import run_stages
from privacy import gate
from tests.benchmarks import report
from tests.benchmarks.gate_controls import with_copies

BENCHMARK = "run_seeds"
FIRST = Standing(attempt=1)
Row = dict[str, Any]


def judged(folder: Path) -> Row:
    """What the gate says of the images of an audit, as a first attempt, how many are flagged as copies, and how many more may be some."""
    found = read_object(folder / "audit.json")
    images = gate.decide(gate.checks(found))["images"]
    return {key: images[key] for key in ("verdict", "reasons")} | {key: found["copies"][key] for key in ("flagged", "undecided")}


def with_ten_copies(config: Config, run: Path, seed: int) -> Row:
    """What the gate says of the run's images once ten are copies; they lie beside the run's own stages for that long."""
    everyone, made = ImageSet.load(run / "ingest"), ImageSet.load(run / "generate")
    beside = run.with_name(f"{run.name}-copies")
    copied = with_copies(np.asarray(made.images), np.asarray(everyone.split("train").images), np.random.default_rng(seed))
    ImageSet(copied, made.rows).save(beside / "generate")
    (beside / "audit").mkdir(parents=True, exist_ok=True)
    records = {name: record for name in ("ingest", "train", "generate") if (record := read_record(run / name)) is not None}
    context = Context(config, run, beside / "audit", Reporter(beside / "log.jsonl"), records, {"generate": beside / "generate"})
    with mock.patch.object(audit, "count_attempt", return_value=FIRST):
        audit.run(context)
    return judged(beside / "audit")


def recognised(evaluation: dict[str, Any]) -> Row:
    """By class: how well the panel tells its images, and how often the judge recognises synthetic images beside real ones."""
    fidelity = evaluation["fidelity"]
    return {"two_sample": fidelity["two_sample"], "per_class": fidelity["per_class"], "label_fidelity": evaluation["label_fidelity"]}


def measure(options: argparse.Namespace, seed: int) -> Row:
    """One seed's run, and the same with ten copies."""
    run = options.runs / f"{options.config}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    config = load_config(options.config, [*options.overrides, f"seed={seed}"])
    began = time.perf_counter()
    # Attempts count by cohort: a seed is a cohort or a split of its own.
    with mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=str(run.with_name(f"{run.name}.cohorts"))):
        run_stages(config, run, Reporter(run / "log.jsonl"), until="evaluate" if options.evaluate else "audit", redo=True)
        row: Row = {"config": options.config, "seed": seed, "n": len(ImageSet.load(run / "generate")), "honest": judged(run / "audit")}
        row["ten copies"] = with_ten_copies(config, run, seed)
    if options.evaluate:
        row["evaluation"] = recognised(read_object(run / "evaluate" / "evaluation.json"))
    return row | {"seconds": round(time.perf_counter() - began)}


def table(rows: Sequence[Row]) -> str:
    """The seeds, and how often each set passed and failed, with exact intervals."""
    keys = ("seed", "images", "honest", "flagged", "undecided", "ten copies", "flagged of ten", "undecided of ten")
    cells = [
        [row["seed"], row["n"], *(row[name][key] for name in ("honest", "ten copies") for key in ("verdict", "flagged", "undecided"))]
        for row in sorted(rows, key=lambda row: row["seed"])
    ]
    lines = [report.markdown(keys, cells)]
    for name, verdict in (("honest", "pass"), ("ten copies", "fail")):
        count = sum(row[name]["verdict"] == verdict for row in rows)
        share = clopper_pearson(count, len(rows))
        lines.append(f"{name}: {verdict} {count} of {len(rows)} [{share.low:.2f}, {share.high:.2f}]")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not there yet, then print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a shipped configuration, or a file")
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7,8,9", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--evaluate", action="store_true", help="train the judges too, and tell what they say")
    parser.add_argument("--runs", type=Path, default=Path("runs/run_seeds"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="only print what the records in --out say")
    options = parser.parse_args()
    done = [row for one in report.load(options.out, BENCHMARK) for row in one["rows"] if row["config"] == options.config]
    if not options.table:
        runtime.limit_threads()
        record = report.Record(options.out, BENCHMARK, report.facts())
        for seed in sorted(set(options.seeds) - {row["seed"] for row in done}):
            done.append(measure(options, seed))
            record.add(done[-1])
            print(f"seed {seed}: {done[-1]['honest']} with ten copies {done[-1]['ten copies']}", flush=True)
    if not done:
        raise SystemExit(f"no records of {BENCHMARK} in {options.out}")
    print(table(done))


if __name__ == "__main__":
    main()

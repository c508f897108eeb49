"""How often the quickstart's gate is right: honest sets should pass, sets with ten copied training images should fail.

For each seed, the quickstart runs up to its audit. The gate judges its images; then ten of them are replaced by copies of training
images (one as it is, three mirrored, three moved, three rescaled in intensity), and it judges again. A classifier that is trained on fresh
phantoms, which no stage has seen, names the class of the synthetic images.

    python -m tests.benchmarks.gate_reliability --seeds 10 --jobs 2 --out results
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

FRESH_SEED = 987_654


def judge_seed(seed: int, config: str, overrides: list[str], fresh_patients: int) -> dict[str, Any]:
    """One seed: both verdicts and the recognised share of each class."""
    import numpy as np

    from evaluation.data import Labelled, to_unit
    from evaluation.training import Task
    from evaluation.training import train as train_classifiers
    from pipeline import runtime
    from pipeline.audit import _learn, _side
    from pipeline.config import load_config
    from pipeline.images import ImageSet
    from pipeline.phantom.anatomy import CLASSES
    from pipeline.phantom.image import phantom_arrays
    from pipeline.progress import Reporter
    from pipeline.runner import run_stages
    from privacy import copy_report, gate, power

    started = time.time()
    settings = load_config(config, [*overrides, f"seed={seed}", "anyway=true"])
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=f"{folder}/cohorts"):
        run = Path(folder)
        run_stages(settings, run, Reporter(run / "log.jsonl"), until="audit")
        report = json.loads((run / "audit" / "audit.json").read_text())
        honest = gate.decide(gate.checks(report))
        everyone, synthetic = ImageSet.load(run / "ingest"), ImageSet.load(run / "generate")
        train, sealed = _side(everyone, "train"), _side(everyone, "audit")
        copied = np.array(synthetic.images)
        rng = np.random.default_rng(seed)
        kinds = [power.identity] + 3 * [power.flip] + 3 * [power.shift] + 3 * [power.intensity]
        for place, source, transform in zip(rng.permutation(len(copied)), rng.permutation(len(train.images)), kinds):
            copied[place] = transform(train.images[source], rng)
        found = copy_report.find_copies(
            train, sealed, copied, planted=settings.audit.planted, rng=rng, device=runtime.device(), learn=_learn(everyone, seed)
        )
        planted = gate.decide(gate.checks(_with_copies(report, found)))
        fresh, labels, _ = phantom_arrays(fresh_patients, FRESH_SEED + seed, settings.ingest.size)
        hold, images = len(fresh) // 5, to_unit(fresh)
        choose = Labelled.of_classes(images[hold : 2 * hold], labels[hold : 2 * hold], np.arange(hold), len(CLASSES))
        task = Task(images[2 * hold :], labels[2 * hold :], len(CLASSES), seed, choose)
        classifier = train_classifiers([task], kind="small", ceiling=100_000, device=runtime.device())[0].classifier
        named = classifier.predict(to_unit(np.array(synthetic.images))).argmax(axis=1)
        checked = classifier.predict(images[:hold]).argmax(axis=1)
    return {
        "seed": seed,
        "honest": honest["images"]["verdict"],
        "with_copies": planted["images"]["verdict"],
        "copies_flagged": int(found.flagged.sum()),
        "honest_flagged": report["copies"]["flagged"],
        "honest_run_p": report["copies"]["run_p"],
        "recall_low": next(check["low"] or 0.0 for check in gate.checks(report) if check["name"] == "power"),
        "membership_auc": report["membership"]["auc"]["value"],
        "recognised": {name: round(float((named[synthetic.labels == k] == k).mean()), 3) for k, name in enumerate(CLASSES)},
        "classifier_on_fresh": {name: round(float((checked[labels[:hold] == k] == k).mean()), 3) for k, name in enumerate(CLASSES)},
        "seconds": round(time.time() - started),
    }


def _with_copies(report: dict[str, Any], found: Any, copied: Any) -> dict[str, Any]:
    """The audit with another copy search, summarised as the stage does; what else it found stays."""
    from privacy import audit

    n, kept = report["n"], ("membership", "split_bias", "one_run", "attributes", "shadows")
    sizes = {"n_train": n["train"], "n_audit": n["audit"], "holdout_units": n["holdout_units"]}
    again = audit.summarise(found, None, copied, unit=report["unit"], drawn=report["drawn"], **sizes)
    return again | {name: report[name] for name in kept if name in report}


def main() -> None:
    """Run the seeds, several at a time, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="seeds run at the same time")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--fresh", type=int, default=3000, help="patients of the fresh phantoms that the classifier is trained on")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("."))
    options = parser.parse_args()
    if options.one is not None:
        result = judge_seed(options.one, options.config, options.overrides, options.fresh)
        place = options.out / f"seed{options.one}.json"
        place.with_suffix(".part").write_text(json.dumps(result))
        place.with_suffix(".part").rename(place)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        waiting, running = list(range(options.seeds)), []
        while waiting or running:
            while waiting and len(running) < options.jobs:
                command = [sys.executable, "-m", "tests.benchmarks.gate_reliability", "--one", str(waiting.pop(0)), "--out", folder]
                command += [
                    "--config",
                    options.config,
                    "--fresh",
                    str(options.fresh),
                    *(word for item in options.overrides for word in ("--set", item)),
                ]
                running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            running = [process for process in running if process.poll() is None]
            time.sleep(0.5)
            results = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("seed*.json"))]
            (options.out / "gate_reliability.json").write_text(json.dumps(results, indent=1))
    table(results)


def table(results: list[dict[str, Any]]) -> None:
    """One line a seed."""
    print(f"{'seed':>4} {'honest':<13} {'10 copies':<13} flagged  run p   recall>=  member AUC  recognised by class")
    for row in results:
        shares = " ".join(f"{value:.2f}" for value in row["recognised"].values())
        print(
            f"{row['seed']:>4} {row['honest']:<13} {row['with_copies']:<13} {row['copies_flagged']:>4}/10  {row['honest_run_p']:.3f}"
            f"   {row['recall_low']:.3f}     {row['membership_auc']:.3f}       {shares}   ({row['seconds']} s)"
        )
    passed = sum(row["honest"] == "pass" for row in results)
    refused = sum(row["with_copies"] == "fail" for row in results)
    print(f"honest sets passed: {passed} of {len(results)}; sets with ten copies failed: {refused} of {len(results)}")


if __name__ == "__main__":
    main()

"""Controls of the whole gate over independent small trainings: sets that must not pass, and sets that should.

For each seed a small denoiser is trained on phantoms of its own, and the gate judges, against that seed's train and audit patients:

* ``honest``: its images.
* ``ten copies``: the same with ten replaced by copies of training images, of the required kinds in turn.
* ``mixup``: mixtures of two training images of a class, weights from .5 to 1 (Zhang et al. 2018): meant to fail.
* ``kernel density``: training images with Gaussian noise of 5 % of the range, as a kernel density of train is sampled: meant to fail.
* ``twin``: the images of the next seed's training, on other patients of the same source: meant to pass.

Trainings and judgements are processes of their own, ``--jobs`` at a time, which share one GPU where there is one.

    python -m tests.benchmarks.gate_controls --seeds 100 --jobs 8 --out results
    python -m tests.benchmarks.gate_controls --seeds 2 --patients 300 --images 2000 --per-class 12 --planted 20 --out results    (a CPU)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

SETS = ("honest", "ten copies", "mixup", "kernel density", "twin")


def make(seed: int, options: argparse.Namespace, out: Path) -> None:
    """Train on the seed's phantoms and generate; ``out/seed<N>.npz`` holds train, audit and synthetic images."""
    import numpy as np

    from pipeline.audit import _side
    from pipeline.config import load_config
    from pipeline.images import ImageSet
    from pipeline.progress import Reporter
    from pipeline.stages import run_stages

    settings = [
        f"seed={seed}",
        f"ingest.phantom_patients={options.patients}",
        f"train.images={options.images}",
        f"generate.per_class={options.per_class}",
        *options.overrides,
    ]
    run = out / f"run{seed}"
    with mock.patch.dict(os.environ, SYNTHCOHORT_COHORTS=f"{run}-cohorts"):
        run_stages(load_config(options.config, settings), run, Reporter(run / "log.jsonl"), until="generate")
    everyone, synthetic = ImageSet.load(run / "ingest"), ImageSet.load(run / "generate")
    arrays: dict[str, Any] = {"synthetic": np.asarray(synthetic.images), "labels": synthetic.labels}
    for name in ("train", "audit"):
        side = _side(everyone, name)
        arrays |= {name: side.images, f"{name}_labels": side.labels, f"{name}_patients": side.groups}
    np.savez(out / f"part{seed}.npz", **arrays)
    (out / f"part{seed}.npz").rename(out / f"seed{seed}.npz")


def judge(seed: int, options: argparse.Namespace, out: Path) -> None:
    """The gate's verdict on each of :data:`SETS`, written as ``out/judged<N>.json``."""
    import numpy as np

    from evaluation.data import Labelled
    from pipeline import runtime
    from privacy import audit, copy_report, gate, one_run
    from privacy.judgements import DRAWN

    runtime.limit_threads()
    own, other = (dict(np.load(out / f"seed{number}.npz")) for number in (seed, (seed + 1) % options.seeds))
    classes = int(own["train_labels"].max()) + 1
    sides = [Labelled.of_classes(own[name], own[f"{name}_labels"], own[f"{name}_patients"], classes) for name in ("train", "audit")]
    train, sealed = sides
    images, findings, groups = (np.concatenate([getattr(side, name) for side in sides]) for name in ("images", "findings", "groups"))
    both = Labelled(images, findings, groups)
    member = np.arange(len(both)) < len(train)
    units = np.unique(both.groups, return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    verdicts: dict[str, Any] = {"seed": seed, "n": {"train": len(train), "audit": len(sealed), "synthetic": len(own["synthetic"])}}
    for name in options.sets:
        started = time.time()
        made = _set(name, own, other, train, rng)
        found = copy_report.find_copies(train, sealed, made, planted=options.planted, rng=rng, device=runtime.device())
        run = one_run.from_images(both, units, member, made, rng)
        report = audit.summarise(
            found,
            None,
            pixels=made.shape[-1],
            unit="patient",
            drawn=DRAWN[0],
            n_train=len(train),
            n_audit=len(sealed),
            holdout_units=len(np.unique(sealed.groups)),
            further={"one_run": {"images": run.to_dict()} if run else None},
        )
        checks = gate.checks(report)
        by_name = {check["name"]: check for check in checks if check["subject"] == "images"}
        verdicts[name] = {
            "verdict": gate.decide(checks)["verdict"],
            "checks": {key: check["verdict"] for key, check in by_name.items()},
            "flagged": report["copies"]["flagged"],
            "run_p": report["copies"]["run_p"],
            "copies_high": by_name["copies"]["high"],
            "recall_low": by_name["power"]["low"],
            "worst_kind": by_name["power"].get("worst"),
            "epsilon_low": run.to_dict()["epsilon_low"] if run else None,
            "seconds": round(time.time() - started, 1),
        }
    place = out / f"judged{seed}.json"
    place.with_suffix(".part").write_text(json.dumps(verdicts))
    place.with_suffix(".part").rename(place)


def _set(name: str, own: dict[str, Any], other: dict[str, Any], train: Any, rng: Any) -> Any:
    """The images of one of :data:`SETS`, ``uint8``, as many as were generated."""
    import numpy as np

    from privacy import limits, power

    made = np.array(own["synthetic"])
    count = len(made)
    if name == "twin":
        return other["synthetic"][rng.permutation(len(other["synthetic"]))[:count]]
    if name == "ten copies":
        kinds = limits.required_kinds(made.shape[-1])
        for place, source in zip(range(10), rng.permutation(len(train))):
            transform = getattr(power, kinds[place % len(kinds)])
            made[place] = transform(train.images[source], rng)
        return made
    if name == "honest":
        return made
    sources = rng.integers(0, len(train), count)
    first = train.images[sources].astype(np.float64)
    if name == "kernel density":
        mixed = first + 0.05 * 255 * rng.standard_normal(first.shape)
    else:
        partner = np.array([rng.choice(np.flatnonzero(train.labels == train.labels[source])) for source in sources])
        weight = rng.uniform(0.5, 1, count)[:, None, None, None]
        mixed = weight * first + (1 - weight) * train.images[partner]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def table(results: list[dict[str, Any]], sets: list[str]) -> str:
    """How often each set passed, failed or was left undecided, with the exact interval of what failed."""
    from evaluation.intervals import clopper_pearson

    lines = [f"{'set':<16}{'pass':>6}{'fail':>6}{'open':>6}   share that failed (95 %)   by copies / run / membership"]
    for name in sets:
        rows = [result[name] for result in results if name in result]
        verdicts = [row["verdict"] for row in rows]
        failed = clopper_pearson(verdicts.count("fail"), len(rows))
        by = (
            sum(row["flagged"] > 0 for row in rows),
            sum(row["run_p"] < 0.004 for row in rows),
            sum(row["checks"]["membership_images"] == "fail" for row in rows),
        )
        counts = "".join(f"{verdicts.count(verdict):>6}" for verdict in ("pass", "fail", "inconclusive"))
        lines.append(f"{name:<16}{counts}   {failed.value:.3f} ({failed.low:.3f} to {failed.high:.3f})   {by[0]} / {by[1]} / {by[2]}")
    return "\n".join(lines)


def main() -> None:
    """Make every seed's sets, judge them, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1, help="processes at the same time")
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("--patients", type=int, default=2200)
    parser.add_argument("--images", type=int, default=60_000, help="training images seen")
    parser.add_argument("--per-class", type=int, default=240)
    parser.add_argument("--planted", type=int, default=100)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument(
        "--work", type=Path, default=Path("gate_controls"), help="where trainings are kept: what is there is not made again"
    )
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.one is not None:
        {"make": make, "judge": judge}[options.one[0]](int(options.one[1]), options, options.work)
        return
    for task, file in (("make", "seed{}.npz"), ("judge", "judged{}.json")):
        waiting = [seed for seed in range(options.seeds) if not (options.work / file.format(seed)).exists()]
        running: list[subprocess.Popen[bytes]] = []
        while waiting or running:
            while waiting and len(running) < options.jobs:
                command = [sys.executable, "-m", "tests.benchmarks.gate_controls", *sys.argv[1:], "--one", task, str(waiting.pop(0))]
                running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            running = [process for process in running if process.poll() is None]
            time.sleep(0.2)
    results = [json.loads(path.read_text()) for path in sorted(options.work.glob("judged*.json"))]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gate_controls.json").write_text(json.dumps(results, indent=1))
    print(table(results, options.sets))


if __name__ == "__main__":
    main()

"""The table of time_to_quality: the rows of all runs merged, means over the generators' seeds with their intervals, and the targets.

With three seeds or more an interval is the t-interval of the mean over seeds. Each seed has its own training, noise, halvings of the
held-out images and judging classifiers, so it holds the luck of all these, but not that of the one cohort which all are judged against.
With fewer seeds it is the mean of the seeds' own intervals (halvings, or bootstrap by patient).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from tests.benchmarks import report
from tests.benchmarks.quality import TIMED

BENCHMARK = "time_to_quality"
OURS = "synthcohort"
PEERS = {"edm": "MONAI, EDM, Heun-18", "textbook": "MONAI, textbook, DDIM-50"}
PLANNED = "planned for {:g} s"
"""Name of the variant of ours whose settings are those for a training of so many seconds."""
REFERENCE = "the training images themselves"
MEASURES = {
    "FD to audit": ("frechet", "synthetic"),
    "ratio to floor": ("frechet", "ratio"),
    "two-sample AUC": ("two_sample", "synthetic"),
    "above floor": ("two_sample", "excess"),
    "label fidelity": ("label_fidelity", "synthetic"),
    "TSTR AUC": ("utility", "synthetic"),
    "minus TRTR": ("utility", "difference"),
    "precision": ("prdc", "precision", "synthetic"),
    "recall": ("prdc", "recall", "synthetic"),
    "density": ("prdc", "density", "synthetic"),
    "coverage": ("prdc", "coverage", "synthetic"),
}
FLOORS = {
    "FD to audit": ("frechet", "floor"),
    "two-sample AUC": ("two_sample", "floor"),
    "label fidelity": ("label_fidelity", "floor"),
    "TSTR AUC": ("utility", "real"),
    **{name: ("prdc", name, "floor") for name in ("precision", "recall", "density", "coverage")},
}
TARGETS = {60.0: (1.3, 0.08), 300.0: (1.1, 0.04)}
"""Ratio to the floor and excess of the two-sample AUC that our recipe should not exceed after so many seconds."""
FAST = 6.0
"""Seconds in which ours should reach the best peer's quality after a minute."""
GENERATION = 0.25
"""Seconds in which :data:`tests.benchmarks.quality.TIMED` images should be generated."""
WITH_INTERVAL = ("FD to audit", "ratio to floor", "two-sample AUC", "above floor", "minus TRTR")
"""Measures shown with their interval in the table; the records hold all."""

Key = tuple[str, float]
Value = tuple[float, float, float]


def all_rows(folder: Path, tiny: bool = False) -> list[dict[str, Any]]:
    """The rows of all runs in a folder, oldest first; those of ``--tiny`` runs are apart."""
    runs = [run for run in report.load(folder, BENCHMARK) if run["facts"].get("tiny", False) == tiny]
    return [row for run in runs for row in run["rows"]]


def merged(rows: Iterable[dict[str, Any]], protocol: dict[str, Any] | None = None) -> dict[Key, dict[int, dict[str, Any]]]:
    """What is known of each recipe and time, by seed: the newest training, and the newest judgement of the images that it made.

    Args:
        protocol: judgements by another one are left out.
    """
    found: dict[Key, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        known = found[row["recipe"], row["asked"]]
        if row["row"] == "trained":
            known[row["seed"]] = dict(row)
        elif protocol is None or row["protocol"] == protocol:
            before = known.setdefault(row["seed"], {"made": row["made"]} if row["recipe"] == REFERENCE else {})
            if before.get("made") == row["made"]:
                known[row["seed"]] = before | {"result": row["result"]}
    return {key: known for key, known in found.items() if known}


def over_seeds(intervals: Sequence[dict[str, Any]]) -> Value | None:
    """(mean, low, high) of one measure over seeds, as the module's text says; None where it is undefined."""
    values = [one["value"] for one in intervals]
    if not values or any(value is None for value in values):
        return None
    mean = float(np.mean(values))
    if len(values) >= 3:
        half = float(stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
        return mean, mean - half, mean + half
    ends = [one.get("spread") or (one["low"], one["high"]) for one in intervals]
    bounds = [[end[side] for end in ends if end[side] is not None] for side in (0, 1)]
    low, high = (float(np.mean(side)) if side else math.nan for side in bounds)
    return mean, low, high


def measure(known: dict[int, dict[str, Any]], path: tuple[str, ...]) -> Value | None:
    """One measure of a recipe at one time over its judged seeds."""
    leaves = []
    for one in known.values():
        leaf = one.get("result")
        for step in path:
            leaf = leaf.get(step) if leaf else None
        if leaf is not None:
            leaves.append(leaf)
    return over_seeds(leaves)


def shown(value: Value | None, digits: int = 3) -> str:
    """A value with its interval."""
    if value is None:
        return "–"
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def cell(name: str, value: Value | None) -> str:
    """A measure in the table."""
    return shown(value) if value is None or name in WITH_INTERVAL else f"{value[0]:.3f}"


def headline(result: dict[str, Any]) -> str:
    """One judgement in a line."""
    short = {"ratio to floor": "FD ratio", "above floor": "two-sample above floor", "label fidelity": "", "minus TRTR": "", "recall": ""}
    parts = [
        f"{title or name} {shown(value)}" for name, title in short.items() if (value := measure({0: {"result": result}}, MEASURES[name]))
    ]
    if "copies" in result:
        parts.append(f"copies {result['copies']['flagged']} of {result['copies']['of']} ({result['copies']['verdict']})")
    return ", ".join(parts)


def print_tables(folder: Path, tiny: bool = False) -> None:
    """Print one table for each protocol of judging, and below the last full one the targets."""
    rows = all_rows(folder, tiny)
    protocols = {json.dumps(row["protocol"], sort_keys=True): row["protocol"] for row in rows if row["row"] == "judged"}
    for run in report.load(folder, BENCHMARK):
        facts = run["facts"]
        if facts.get("tiny", False) == tiny:
            print(f"{facts['date']}, {facts['hardware']}, torch {facts['torch']}, images {facts['n']}: {facts['command']}")
    for protocol in protocols.values():
        found = merged(rows, protocol)
        seeds = sorted({seed for known in found.values() for seed in known})
        print(f"\n{how(protocol)}; seeds {seeds}; intervals {'over seeds (t)' if len(seeds) >= 3 else 'within seeds'}\n")
        print(report.markdown(*table(found)))
        if protocol["full"]:
            print("\n" + "\n".join(targets(found)), flush=True)


def how(protocol: dict[str, Any]) -> str:
    """How the candidates were judged, in words."""
    text = (
        f"judged on {protocol['halvings']} halvings of the held-out images in {protocol['encoders']} feature spaces; two-sample: mean of "
        f"{protocol['tests']} tests in two folds by {protocol['kind']}, {protocol['images_seen']} images seen"
    )
    return text + (f"; utility: {protocol['utility_seeds']} such classifiers on each side" if protocol["full"] else "; quick")


def table(found: dict[Key, dict[int, dict[str, Any]]]) -> tuple[list[str], list[list[object]]]:
    """Header and rows: the floor, the reference, then every recipe at its times."""
    judged = {key: known for key, known in found.items() if any("result" in one for one in known.values())}
    names = [name for name, path in MEASURES.items() if any(measure(known, path) for known in judged.values())]
    header = ["recipe", "seconds", "seeds", "training images seen", *names, "copies flagged", "images verdict", "generation"]
    lines: list[list[object]] = []
    if judged:
        one = judged.get((REFERENCE, 0.0), next(iter(judged.values())))
        floors = [cell(name, measure(one, FLOORS[name])) if name in FLOORS else "" for name in names]
        lines.append(["floor: held-out real images; TRTR", "", len(one), "", *floors, "", "", ""])
    for (recipe, asked), known in sorted(judged.items(), key=lambda item: (item[0][0] != REFERENCE, item[0][0] != OURS, item[0])):
        results = [one["result"] for one in known.values() if "result" in one]
        seen = [one["images"] for one in known.values() if "images" in one]
        searched = [one["copies"] for one in results if "copies" in one]
        flagged = f"{sum(c['flagged'] for c in searched)} of {sum(c['of'] for c in searched)}" if searched else ""
        verdicts = ", ".join(sorted({c["verdict"] for c in searched}))
        made = [f"{one['generated']} in {one['generate_seconds']:.2f} s" for one in known.values() if "generated" in one]
        values = [cell(name, measure(known, MEASURES[name])) for name in names]
        about = [recipe, f"{asked:g}" if asked else "", len(results), round(float(np.mean(seen))) if seen else ""]
        lines.append([*about, *values, flagged, verdicts, made[0] if made else ""])
    return header, lines


def targets(found: dict[Key, dict[int, dict[str, Any]]]) -> list[str]:
    """One line a target: reached, missed, or not measured."""
    lines = []
    for asked, (most, excess) in TARGETS.items():
        known = found.get((PLANNED.format(asked), asked)) or found.get((OURS, asked), {})
        for title, name, bound in (
            (f"FD ratio ≤ {most}", "ratio to floor", most),
            (f"two-sample ≤ floor + {excess}", "above floor", excess),
        ):
            lines.append(line(f"after {asked:g} s, {title}", measure(known, MEASURES[name]), bound))
    lines.append(catching_up(found))
    own = [one for key, known in found.items() if is_own(*key) for one in known.values()]
    made = [one["generate_seconds"] for one in own if one.get("generated") == TIMED]
    lines.append(line(f"{TIMED} images in ≤ {GENERATION} s warm", (float(np.median(made)),) * 3 if made else None, GENERATION))
    searched: dict[float, list[dict[str, Any]]] = {}
    for (name, asked), known in sorted(found.items()):
        if is_own(name, asked):
            for one in known.values():
                if "copies" in one.get("result", {}):
                    searched.setdefault(asked, []).append(one["result"]["copies"])
    counts = {asked: sum(one["flagged"] for one in them) for asked, them in searched.items()}
    failed = [asked for asked, them in searched.items() if any(one["verdict"] == "fail" for one in them)]
    bad = ", ".join(f"{counts[asked]} flagged after {asked:g} s" for asked in sorted({*failed, *(a for a in counts if counts[a])}))
    lines.append(f"target no near-copies at any snapshot: {f'missed, {bad}' if bad else 'reached' if searched else 'not measured'}")
    return lines


def is_own(name: str, asked: float) -> bool:
    """Whether a recipe at a time is ours: the shipped one's snapshot, or the end of the training that was planned for that time."""
    return name in (OURS, PLANNED.format(asked))


def line(title: str, value: Value | None, bound: float) -> str:
    """A target that a value should not exceed."""
    if value is None:
        return f"target {title}: not measured"
    return f"target {title}: {'reached' if value[0] <= bound else 'missed'}, {shown(value)}"


def catching_up(found: dict[Key, dict[int, dict[str, Any]]]) -> str:
    """When ours first has a Fréchet distance and a two-sample AUC no higher than the best peer's after a minute, each peer's by itself."""
    title = f"target the best peer's 60-second quality in ≤ {FAST:g} s"
    paths = [MEASURES["FD to audit"], MEASURES["two-sample AUC"]]
    peers = [[measure(found.get((name, 60.0), {}), path) for path in paths] for name in PEERS.values()]
    measured = [[value[0] for value in peer if value] for peer in peers if all(peer)]
    if not measured:
        return f"{title}: not measured"
    best = [min(column) for column in zip(*measured)]
    for name, asked in sorted((key for key in found if is_own(*key)), key=lambda key: key[1]):
        own = [measure(found[name, asked], path) for path in paths]
        if all(value is not None and value[0] <= bound for value, bound in zip(own, best)):
            return f"{title}: {'reached' if asked <= FAST else 'missed'}, after {asked:g} s"
    return f"{title}: missed at every snapshot"

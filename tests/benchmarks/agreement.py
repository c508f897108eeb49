"""Whether a run's judged numbers hold when they are measured again with three times the training and other seeds.

    python -m tests.benchmarks.agreement quickstart runs/quickstart --out results

The stages evaluate and stress are run again on the run's own images, with ceilings, patience and least length three times as long and
networks, halvings and corruptions of other seeds; the division of ``val`` stays. Then, of the numbers that the run's report shows with an
interval, it counts how many of the second measurements lie within the first's interval, and within its Bonferroni interval over all of them
(the distance from the value to each bound, widened as a normal one would be). Asked: 95 % within the former at the precision of the report
(an area of .9999 lies in an interval that ends at "1.000"), all within the latter; what lies within strictly is counted beside.
"""

from __future__ import annotations

import argparse
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from scipy.stats import norm

from pipeline.config import Config
from pipeline.release.results import interval

TIMES = 3
"""How much longer the second trainings may be."""
FILES = {"evaluate": "evaluation.json", "stress": "stress.json"}


def measures(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every measure with an interval in a stage's JSON, and its path; list entries are counted."""
    if isinstance(tree, Mapping):
        if all(isinstance(tree.get(key), int | float) for key in ("value", "low", "high")):
            yield path, tree
            return
        for key, value in tree.items():
            yield from measures(value, (*path, str(key)))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from measures(value, (*path, str(number)))


def judged(results: Mapping[str, Any], report: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The measures that a report shows with their intervals, by path; ``results`` are the stages' JSON by name.

    The worst corruptions are left out: which they are is itself chosen, and all drops are there.
    """
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", report)).split())
    return {path: measure for path, measure in measures(results) if path[:2] != ("stress", "worst") and interval(measure) in text}


def compare(first: Mapping[tuple[str, ...], Mapping[str, Any]], again: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a number: the first measurement, the second, and whether that lies within the first's interval and Bonferroni interval.

    A number that the second run does not have (a judge is unfit now, or was) counts as outside both.
    """
    second = dict(measures(again))
    wider = float(norm.isf(0.025 / max(1, len(first))) / norm.isf(0.025))
    rows = []
    for path, one in first.items():
        value = second[path]["value"] if path in second else None
        low, high = (one["value"] + wider * (one[end] - one["value"]) for end in ("low", "high"))
        rows.append(
            {
                "path": " · ".join(path),
                "first": interval(one),
                "second": value,
                "strictly_within": value is not None and one["low"] <= value <= one["high"],
                "within": value is not None and _shown_within(one, value),
                "within_bonferroni": value is not None and low <= value <= high,
            }
        )
    return rows


def _shown_within(one: Mapping[str, Any], value: float) -> bool:
    """Whether a number lies within an interval where all are rounded as the report rounds them."""
    shown = interval({**one, "value": value}).replace("−", "-").replace(",", "")
    number, low, high = (float(figure) for figure in re.findall(r"-?[0-9.]+(?:e-?[0-9]+)?", shown))
    return low <= number <= high


def measure_again(settings: Config, run: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Run evaluate and stress on a finished run's images, into another folder, and return their JSON by stage."""
    from evaluation import training
    from pipeline import evaluate, runtime, stress
    from pipeline.context import Context
    from pipeline.progress import Reporter

    longer = settings.evaluate.model_copy(update={"classifier_images": TIMES * settings.evaluate.classifier_images})
    settings = settings.model_copy(update={"evaluate": longer})
    folder.mkdir(parents=True, exist_ok=True)
    where = {"ingest": run / "ingest", "generate": run / "generate", "evaluate": folder / "evaluate"}
    drawn = runtime.derive_seed

    def other(number: int, *purpose: str | int) -> int:
        return drawn(number, *purpose) if purpose == ("val",) else drawn(number, *purpose, "again", seed)

    with (
        mock.patch.object(runtime, "derive_seed", other),
        mock.patch.object(training, "PATIENCE", TIMES * training.PATIENCE),
        mock.patch.object(training, "LEAST", TIMES * training.LEAST),
        # The yardstick is the length, whether or not it ends by itself.
        mock.patch.object(evaluate, "unfinished", return_value=None),
    ):
        for name, stage in (("evaluate", evaluate.run), ("stress", stress.run)):
            (folder / name).mkdir(exist_ok=True)
            stage(Context(settings, folder, folder / name, Reporter(folder / "log.jsonl"), {}, where))
    return {name: json.loads((folder / name / file).read_text()) for name, file in FILES.items()}


def main() -> None:
    """Measure again, compare, and write ``agreement.json``."""
    from pipeline.config import load_config
    from tests.benchmarks.report import facts

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="the run's configuration")
    parser.add_argument("run", type=Path, help="its folder")
    parser.add_argument("--set", action="append", default=[], help="as the run was given it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    first = {name: json.loads((options.run / name / file).read_text()) for name, file in FILES.items()}
    numbers = judged(first, (options.run / "release" / "report.html").read_text(encoding="utf-8"))
    again = measure_again(load_config(options.config, options.set), options.run, options.out / "again", options.seed)
    rows = compare(numbers, again)
    for row in rows:
        if not row["within"]:
            print(f"{row['path']}: {row['first']}, then {row['second']}{'' if row['within_bonferroni'] else ', outside Bonferroni too'}")
    strictly, within, bonferroni = (sum(row[key] for row in rows) for key in ("strictly_within", "within", "within_bonferroni"))
    print(f"{within} of {len(rows)} within their intervals as shown ({strictly} strictly)")
    print(f"{len(rows) - bonferroni} outside the Bonferroni interval")
    (options.out / "agreement.json").write_text(json.dumps({"facts": facts(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

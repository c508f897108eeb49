"""How far `plan --probe` is off: what it predicts of a run on this machine, over what the run then takes.

    python -m tests.benchmarks.plan_accuracy CONFIG --out FOLDER [--set KEY=VALUE ...]

The probe comes first, then the run, in a process of its own so that its memory can be told. A line a stage with predicted and measured
seconds and bytes on the disk and their ratios, and the peak of memory of all of them. A ratio above 1 is a prediction that was too high;
stages marked `at most` may end at a plateau before their ceiling. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.api import cost
from pipeline.artifacts import read_record
from pipeline.probe import Cost, size_of, told


def measured(run: Path, stage: str) -> tuple[float, int] | None:
    """Seconds and bytes of a finished stage; None where it is not."""
    record = read_record(run / stage)
    if record is None:
        return None
    return float(record["seconds"]), sum(path.stat().st_size for path in (run / stage).rglob("*") if path.is_file())


def table(costs: Sequence[Cost], run: Path, peak: int) -> str:
    """The comparison as Markdown."""
    lines = ["| stage | time: predicted | measured | ratio | disk: predicted | measured | ratio |", "|---|---|---|---|---|---|---|"]
    total = [0.0, 0.0]
    for one in costs:
        if (found := measured(run, one.stage)) is None:
            continue
        seconds, size = found
        total = [total[0] + one.seconds, total[1] + seconds]
        most = "at most " if one.at_most else ""
        lines.append(
            f"| {one.stage} | {most}{told(one.seconds)} | {told(seconds)} | {one.seconds / max(seconds, 0.1):.2f} "
            f"| {size_of(one.disk)} | {size_of(size)} | {one.disk / max(size, 1):.2f} |"
        )
    lines.append(f"| all | {told(total[0])} | {told(total[1])} | {total[0] / max(total[1], 0.1):.2f} | | | |")
    predicted = max(one.memory for one in costs)
    lines += ["", f"Peak of memory: {size_of(predicted)} predicted, {size_of(peak)} measured, ratio {predicted / max(peak, 1):.2f}."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--out", type=Path, required=True, help="a new run folder")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"{options.out} exists: give a folder that does not, so that every stage is measured")
    costs = cost(options.config, settings=options.set, out=options.out)
    words = [word for setting in options.set for word in ("--set", setting)]
    command = [sys.executable, "-m", "pipeline", "run", options.config, "--out", str(options.out), *words]
    if (code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode) not in (0, 3, 4):
        sys.exit(f"the run did not end (exit {code}): nothing to compare with")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(table(costs, options.out, peak))


if __name__ == "__main__":
    main()

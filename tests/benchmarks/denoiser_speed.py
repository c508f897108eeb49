"""Images a second of the denoisers at equal work, in training and forward, and their share of the matrix products' measured ceiling.

Every network does 46.9 GFLOP ± 5 % an image forward at 64 px, and as much as the others at 32 and 128 px. Each is measured in a process
of its own (:mod:`tests.benchmarks.speed_cases`): several compile together, then one at a time is timed. Ours is measured twice: its
bare step as the peers', and as ``training``, the pipeline's own loop with its optimisers, averages and data. The share of the ceiling is
3 × forward operations × images a second in training, 1 × forward, over the operations a second of an 8192³ bfloat16 product.

    python -m tests.benchmarks.denoiser_speed --peers --sizes 64 --out results
    python -m tests.benchmarks.denoiser_speed --table --out results
    python -m tests.benchmarks.denoiser_speed --search "widths=256,512;blocks=3;patch=2;attention=16" "widths=384,512;blocks=2;patch=2"
    python -m tests.benchmarks.denoiser_speed --cpu --peers --seconds 120 --out results
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from evaluation.precision import bf16_pays
from pipeline import runtime
from tests.benchmarks import report, speed_cases
from tests.benchmarks.speed_cases import READY, RESULT, Case

BATCH = {32: 1024, 64: 256, 128: 64}
"""Images a step by side: as many pixels at every size, and enough to fill a large GPU."""
OURS, PEERS = ("ours", "training"), ("monai", "diffusers", "lucidrains")
SIDE = {"cuda": 8192, "cpu": 2048}
Row = dict[str, Any]


def ceiling(device: str, side: int) -> dict[str, float]:
    """Operations a second of a ``side``³ matrix product of random numbers by precision: the median of 7 timings."""
    precisions = {"bf16": torch.bfloat16} if bf16_pays(device) else {}
    if device == "cpu":
        precisions["fp32"] = torch.float32
    made = {}
    for name, dtype in precisions.items():
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        count = 20 if device == "cuda" else 2

        def product(steps: int, a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for _ in range(steps):
                a @ b

        product(count)
        speed_cases.wait(device)
        made[name] = 2 * side**3 * speed_cases.timings(product, 1, device, repeats=7, seconds=0.3)["median"]
    return made


def run(cases: Sequence[Case], record: report.Record, jobs: int) -> list[Row]:
    """Measure the cases, ``jobs`` at a time compiling together; every row goes into the record. Returns those that failed."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(cases), jobs):
            workers = [Worker(case, jobs, Path(folder) / str(number)) for number, case in enumerate(cases[start : start + jobs])]
            for worker in workers:
                worker.wait_until_ready()
            for worker in workers:
                row = worker.measure()
                record.add(row)
                failed += [row] if "error" in row else []
                print(line(row), flush=True)
    return failed


class Worker:
    """A case in a process of its own, whose errors go to the file ``log``."""

    def __init__(self, case: Case, jobs: int, log: Path) -> None:
        self.case, self.log = case, log
        threads = max(2, len(os.sched_getaffinity(0)) // jobs)
        environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
        command = [sys.executable, "-m", "tests.benchmarks.speed_cases", json.dumps(dataclasses.asdict(case))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stderr=errors, env=environment, **pipes)

    def wait_until_ready(self) -> None:
        """Until the case is compiled, or its process has ended."""
        self._find(READY)

    def measure(self) -> Row:
        """The case's row, with an ``error`` where its process ended without one."""
        about = {"network": self.case.network, "size": self.case.size, "batch": self.case.batch}
        about |= {"spec": self.case.spec} if self.case.ours else {}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        found = self._find(RESULT)
        self.process.wait()
        if found is not None:
            return about | json.loads(found)
        lines = self.log.read_text().strip().splitlines()
        return about | {"error": lines[-1] if lines else f"the process ended with status {self.process.returncode}", "log": lines[-30:]}

    def _find(self, mark: str) -> str | None:
        """What follows a mark in the process's output; nothing where it ends without."""
        output: IO[str] | None = self.process.stdout
        for text in output or ():
            if text.startswith(mark):
                return text.removeprefix(mark)
        return None


def line(row: Row) -> str:
    """A row as soon as it is there."""
    name = f"{row['network']} {row['size']} px {row.get('spec', '')}"
    if "error" in row:
        return f"{name}: {row['error']}"
    speeds = ", ".join(f"{kind} {row[kind]['median']:.0f} img/s" for kind in ("train", "forward") if kind in row)
    note = f"; does not compile: {row['compile_error']}" if "compile_error" in row else ""
    return f"{name}: {row['gflop']:.1f} GFLOP, {speeds} (ready after {row['prepare_seconds']} s, timed in {row['measure_seconds']} s){note}"


def shares(record: dict[str, Any]) -> list[Row]:
    """A record's rows, each speed with its share of the run's ceiling and its ratio to the run's fastest MONAI at that size."""
    done = [row for row in record["rows"] if "error" not in row]
    found = []
    for row in done:
        row = dict(row)
        for kind, passes in (("train", 3), ("forward", 1)):
            if kind not in row:
                continue
            top = record["facts"]["ceiling"].get(row["precision"])
            rivals = [other[kind]["median"] for other in done if other["network"].startswith("monai") and other["size"] == row["size"]]
            row[kind] = row[kind] | {
                "share": passes * row["gflop"] * 1e9 * row[kind]["median"] / top if top else None,
                "ratio": row[kind]["median"] / max(rivals) if rivals else None,
            }
        found.append(row)
    return found


def merge(records: Sequence[dict[str, Any]]) -> list[Row]:
    """One row for each hardware, size, network and spec: over its runs, the medians of speed, share and ratio, and the extremes of speed.

    A ratio is within one run. Where no run has both networks it is that of the medians, and ``across`` says so.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for record in records:
        for row in shares(record):
            key = (record["facts"]["hardware"], record["facts"]["torch"], row["size"], row["network"], row.get("spec", ""), row["batch"])
            groups.setdefault(key, []).append(row)
    merged = []
    for (hardware, version, *_), rows in groups.items():
        one = {key: rows[-1].get(key) for key in ("size", "network", "spec", "batch", "gflop", "parameters", "precision", "compiled")}
        one |= {"hardware": hardware, "torch": version, "runs": len(rows)}
        for kind in ("train", "forward"):
            timed = [row[kind] for row in rows if kind in row]
            if timed:
                one[kind] = {name: _median([each[name] for each in timed]) for name in ("median", "share", "ratio")}
                one[kind] |= {"low": min(each["low"] for each in timed), "high": max(each["high"] for each in timed)}
        merged.append(one)
    for row in merged:
        _compare_across(row, merged)
    return sorted(merged, key=lambda row: (row["hardware"], row["torch"], row["size"]))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _compare_across(row: Row, rows: Sequence[Row]) -> None:
    """Fill in the ratio where no run had both networks."""
    place = ("hardware", "torch", "size")
    for kind in ("train", "forward"):
        peers = [other for other in rows if other["network"].startswith("monai") and all(other[key] == row[key] for key in place)]
        rivals = [other[kind]["median"] for other in peers if kind in other]
        if kind in row and row[kind]["ratio"] is None and rivals:
            row[kind] |= {"ratio": row[kind]["median"] / max(rivals), "across": True}


def table(records: Sequence[dict[str, Any]]) -> str:
    """The merged rows as a markdown table under the facts of the runs."""
    header = ["px", "network", "GFLOP", "M parameters"]
    for kind in ("train", "forward"):
        header += [f"{kind} img/s (range)", "of the ceiling", "× MONAI"]
    lines = []
    for row in merge(records):
        name = " ".join(filter(None, [row["network"], row["spec"]])) + ("" if row["compiled"] else " (not compiled)")
        lines.append([row["size"], name, round(row["gflop"], 1), round(row["parameters"] / 1e6, 1), *_speeds(row)])
    about = []
    for record in records:
        tops = ", ".join(f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in record["facts"]["ceiling"].items())
        about.append(f"{record['facts']['date']}, {record['facts']['hardware']}, torch {record['facts']['torch']}, ceiling {tops}")
        about += [f"  failed: {row['network']} at {row['size']} px: {row['error']}" for row in record["rows"] if "error" in row]
    return "\n".join(about) + "\n\n" + report.markdown(header, lines)


def _speeds(row: Row) -> list[object]:
    cells: list[object] = []
    for kind in ("train", "forward"):
        timed = row.get(kind)
        if timed is None:
            cells += [None, None, None]
            continue
        share = None if timed["share"] is None else f"{timed['share']:.1%}"
        ratio = None if timed["ratio"] is None else f"{timed['ratio']:.2f}" + (" (other run)" if timed.get("across") else "")
        cells += [f"{timed['median']:.0f} ({timed['low']:.0f}–{timed['high']:.0f})", share, ratio]
    return cells


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """What the command line asks for, size by size."""
    common: dict[str, Any] = {"tiny": options.tiny, "repeats": options.repeats, "seconds": options.seconds or 1.0}
    if options.tiny:
        common |= {"seconds": 0.1}
    sizes = [16] if options.tiny else [int(size) for size in options.sizes.split(",")]
    batch = {16: 4} if options.tiny else BATCH
    names = options.only.split(",") if options.only else [*OURS, *(PEERS if options.peers else ())]
    spec = options.ours or (speed_cases.TINY if options.tiny else speed_cases.OURS)
    wanted = [("ours", spec) for spec in options.search] if options.search else [(name, spec) for name in names]
    free = options.tiny or bool(options.search)
    return [Case(name, size, options.batch or batch[size], spec, check=not free, **common) for size in sizes for name, spec in wanted]


def main() -> None:
    """Measure what is asked for, add it to ``--out``, print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="measure MONAI, diffusers and lucidrains too")
    parser.add_argument("--only", help="networks to measure, comma-separated; also monai-unfused, and any with -eager")
    parser.add_argument("--sizes", default="64,32,128")
    parser.add_argument("--ours", help="our network, such as " + speed_cases.OURS)
    parser.add_argument("--search", nargs="+", default=[], metavar="SPEC", help="measure these networks of ours, whatever work they do")
    parser.add_argument("--batch", type=int, help=f"images a step, instead of {BATCH}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="of each timing (1), or of each training on a CPU (120)")
    parser.add_argument("--jobs", type=int, default=5 if runtime.device() == "cuda" else 1, help="networks that compile together")
    parser.add_argument("--cpu", action="store_true", help="compare the quickstart's denoiser on this CPU; done where there is no GPU")
    parser.add_argument("--speed-only", action="store_true", help="on a CPU: no quality")
    parser.add_argument("--quality-only", action="store_true", help="on a CPU: no speed")
    parser.add_argument("--compile-peers", action="store_true", help="on a CPU: time MONAI compiled too; that takes minutes")
    parser.add_argument("--seed", type=int, default=0, help="on a CPU: of the cohorts and of the trainings")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="only print what the records in --out say")
    options = parser.parse_args()
    runtime.limit_threads()
    device = runtime.device()
    if options.cpu or (device == "cpu" and not (options.tiny or options.search or options.only or options.table)):
        from tests.benchmarks import denoiser_cpu

        denoiser_cpu.main(options)
        return
    benchmark = "denoiser_search" if options.search else "denoiser_speed"
    failed = []
    if not options.table:
        began = time.perf_counter()
        about = report.facts() | {"ceiling": ceiling(device, 256 if options.tiny else SIDE[device])}
        failed = run(chosen_cases(options), report.Record(options.out, benchmark, about), options.jobs)
        print(f"all of it took {time.perf_counter() - began:.0f} s\n")
    print(table(report.load(options.out, benchmark)))
    if failed:
        raise SystemExit("\n".join(line(row) for row in failed))


if __name__ == "__main__":
    main()
